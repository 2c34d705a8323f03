"""Judges a history: what clients asked for, when, and what they were told.  Knows nothing of how the system works.

    linearizable(history)   problems of registers: is there one order, in which each operation takes effect between its call and its
                            answer, that explains every value?  The search of Wing and Gong with Lowe's memory of configurations.
    serializable(history)   problems of lists that are appended to: each element is written once, so who reads a list shows the order
                            in which it was written.  Cycles of dependencies between transactions are named as Adya does.

An operation of which the outcome is unknown may take effect at any time after its call, or never."""

import collections
import dataclasses

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"


@dataclasses.dataclass
class Transaction:
    """ops, in order: ("read", key, value), ("write", key, value) of registers; ("list", key, [elements]), ("append", key, element).

    strict: it promises to take effect between begin and end; else it may show an older state, but no older than its client knows."""

    client: str
    begin: float
    end: float
    outcome: str
    ops: list
    strict: bool = True

    def __str__(self):
        said = ", ".join(f"{kind} {key} {shorten(value)}" for kind, key, value in self.ops)
        return f"{self.client} [{self.begin:.6f} {self.end:.6f}] {self.outcome}{'' if self.strict else ' local'}: {said}"


def shorten(value):
    return f"... {value[-4:]} ({len(value)})" if isinstance(value, list) and len(value) > 5 else value


# --- registers ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Step:
    """A transaction as its register sees it: it expects a value, if it read one first, and leaves one, if it wrote."""

    transaction: Transaction
    reads: bool = False
    expected: object = None
    writes: bool = False
    left: object = None


def linearizable(history):
    """Each transaction with registers has one of them.  A register that nobody has written is None."""
    registers, problems = collections.defaultdict(list), []
    for transaction in history:
        keys = {key for kind, key, _ in transaction.ops if kind in ("read", "write")}
        assert len(keys) <= 1, f"several registers at once: {transaction}"
        if keys and transaction.strict and transaction.outcome != FAILED:
            registers[keys.pop()].append(_step(transaction))
    for key, steps in sorted(registers.items()):
        steps = _of_consequence(steps)
        stuck = _search(steps)
        if stuck:
            problems.append(f"register {key} is not linearizable; no order has a place for {stuck.transaction}; around it: " +
                            "; ".join(str(step.transaction) for step in _around(steps, stuck)))
    return problems


def _step(transaction):
    step = _Step(transaction)
    for kind, _, value in transaction.ops:
        if kind == "write":
            step.writes, step.left = True, value
        elif not step.writes:
            step.reads, step.expected = True, value
    return step


def _of_consequence(steps):
    """All but what is unknown and was seen by nobody: without it the others are explained as well."""
    kept = [step for step in steps if step.transaction.outcome == OK]
    unknown = [step for step in steps if step.transaction.outcome == UNKNOWN and step.writes]
    while True:
        seen = {step.expected for step in kept if step.reads}
        more = [step for step in unknown if step.left in seen]
        if not more:
            return kept
        kept += more
        unknown = [step for step in unknown if step.left not in seen]


def _around(steps, stuck):
    one = stuck.transaction
    near = [step for step in steps if step.transaction.begin <= one.end and step.transaction.end >= one.begin - (one.end - one.begin)]
    return sorted(near, key=lambda step: step.transaction.begin)[-12:]


class _Entry:
    """A call or an answer, in a list in order of time; answers have match None."""

    __slots__ = ("number", "match", "before", "after")

    def __init__(self, number):
        self.number, self.match, self.before, self.after = number, None, None, None


def _search(steps):
    """None if there is an order, else the step whose answer came before the search had found a place for it, in the best try."""
    events, calls = [], {}
    for number, step in enumerate(steps):
        events.append((step.transaction.begin, 0, number))
        if step.transaction.outcome == OK:
            events.append((step.transaction.end, 1, number))
    head = last = _Entry(-1)
    unanswered = 0
    for _, answer, number in sorted(events):
        entry = _Entry(number)
        if answer:
            calls[number].match = entry
            unanswered += 1
        else:
            calls[number] = entry
        last.after, entry.before = entry, last
        last = entry
    answers = {id(call.match) for call in calls.values() if call.match}

    def take(entry):
        entry.before.after = entry.after
        if entry.after:
            entry.after.before = entry.before

    def put_back(entry):
        entry.before.after = entry
        if entry.after:
            entry.after.before = entry

    value, placed, tried, stack = None, 0, set(), []
    best, stuck = -1, None
    entry = head.after
    while unanswered:
        if id(entry) not in answers:
            step = steps[entry.number]
            if not step.reads or step.expected == value:
                left = step.left if step.writes else value
                configuration = (placed | 1 << entry.number, left)
                if configuration not in tried:
                    tried.add(configuration)
                    stack.append((entry, value))
                    placed, value = configuration
                    take(entry)
                    if entry.match:
                        take(entry.match)
                        unanswered -= 1
                    entry = head.after
                    continue
            entry = entry.after
            continue
        if len(stack) > best:
            best, stuck = len(stack), steps[entry.number]
        if not stack:
            return stuck
        entry, value = stack.pop()
        placed &= ~(1 << entry.number)
        if entry.match:
            put_back(entry.match)
            unanswered += 1
        put_back(entry)
        entry = entry.after
    return None


# --- lists ----------------------------------------------------------------------------------------------------------------

WW, WR, RW, SESSION, TIME = "ww", "wr", "rw", "session", "time"


def serializable(history, limit=10):
    """(name, explanation) of what is wrong, at most so many.

    garbage        an element that nobody appended
    doubled        an element that is there twice
    G1a            what a failed transaction appended was seen
    G1b            what a transaction appended was seen before its last append to that list
    internal       a transaction does not see what it has read or appended itself
    order          two transactions saw lists of which neither begins with the other
    G0 G1c         a cycle of writes; of writes and reads
    G-single G2    a cycle with one anti-dependency; with more
    Names of cycles end in -session or -time when only what one client did in a row, or what was over before the other began, closes them."""
    return _Lists(history).problems[:limit]


class _Lists:
    def __init__(self, history):
        self.problems = []
        self.history = [each for each in history if any(kind in ("list", "append") for kind, _, _ in each.ops)]
        self.history.sort(key=lambda each: each.begin)
        self.appended = {}  # (key, element): number of the transaction
        self.last = {}  # (number, key): the last element that it appended there
        for number, transaction in enumerate(self.history):
            for kind, key, value in transaction.ops:
                if kind == "append":
                    assert (key, value) not in self.appended, f"{value} was appended to {key} twice"
                    self.appended[key, value] = number
                    self.last[number, key] = value
        self.reads = []  # (number, key, elements): what others had appended
        for number, transaction in enumerate(self.history):
            self._look_at(number, transaction)
        self.orders = self._orders()
        self.edges = [[] for _ in self.history]  # of each transaction: (to, kind)
        self._depend()
        self._cycles()

    def _tell(self, name, words, *numbers):
        self.problems.append((name, words + "".join(f"; {self.history[number]}" for number in numbers)))

    def _look_at(self, number, transaction):
        """What one transaction shows by itself; its first look at each list, without its own appends, is noted."""
        known, own = {}, collections.defaultdict(list)
        for kind, key, value in transaction.ops:
            if kind == "append":
                own[key].append(value)
                if key in known:
                    known[key] = known[key] + [value]
            elif kind == "list":
                mine = own[key]
                if key in known:
                    if value != known[key]:
                        self._tell("internal", f"it must read {known[key][-4:]} in {key}", number)
                    continue
                known[key] = value
                if mine and value[-len(mine):] != mine:
                    self._tell("internal", f"it appended {mine} to {key}", number)
                    continue
                self._judge(number, key, value[:len(value) - len(mine)])

    def _judge(self, number, key, elements):
        if len(set(elements)) != len(elements):
            twice = [element for element, count in collections.Counter(elements).items() if count > 1]
            self._tell("doubled", f"{twice[:4]} in {key}", number)
            return
        for element in elements:
            writer = self.appended.get((key, element))
            if writer is None:
                self._tell("garbage", f"{element} in {key}", number)
                return
            if self.history[writer].outcome == FAILED or writer == number:
                self._tell("G1a", f"{element} in {key}", number, writer)
                return
        if elements:
            writer = self.appended[key, elements[-1]]
            if self.last[writer, key] != elements[-1]:
                self._tell("G1b", f"{elements[-1]} at the end of {key}", number, writer)
        self.reads.append((number, key, elements))

    def _orders(self):
        """Of each list, the longest that was seen; all others are its beginnings."""
        longest = {}
        for number, key, elements in self.reads:
            if key not in longest or len(elements) > len(longest[key][1]):
                longest[key] = (number, elements)
        for number, key, elements in self.reads:
            if longest[key][1][:len(elements)] != elements:
                self._tell("order", f"of {key}", number, longest[key][0])
        return {key: elements for key, (_, elements) in longest.items()}

    def _depend(self):
        seen = {(key, element) for key, order in self.orders.items() for element in order}
        # Unknown, and seen by somebody: it happened.
        happened = {self.appended[each] for each in seen if each in self.appended}
        self.there = [each.outcome == OK or number in happened for number, each in enumerate(self.history)]
        unseen = collections.defaultdict(list)  # of each list: who appended what no transaction saw: later than all that was seen
        for (key, element), number in self.appended.items():
            if self.there[number] and (key, element) not in seen:
                unseen[key].append(number)
        for key, order in self.orders.items():
            for before, after in zip(order, order[1:]):
                self._edge(self.appended.get((key, before)), self.appended.get((key, after)), WW)
            for number in unseen[key] if order else ():
                self._edge(self.appended.get((key, order[-1])), number, WW)
        for number, key, elements in self.reads:
            if self.history[number].outcome != OK:
                continue
            if elements:
                self._edge(self.appended[key, elements[-1]], number, WR)
            order = self.orders[key]
            if len(elements) < len(order):
                self._edge(number, self.appended.get((key, order[len(elements)])), RW)
            else:
                for later in unseen[key]:
                    self._edge(number, later, RW)
        self._sessions()
        self._time()

    def _edge(self, before, after, kind):
        if before is not None and after is not None and before != after and self.there[before] and self.there[after]:
            self.edges[before].append((after, kind))

    def _sessions(self):
        last = {}
        for number, transaction in enumerate(self.history):
            if transaction.outcome == OK:
                self._edge(last.get(transaction.client), number, SESSION)
                last[transaction.client] = number

    def _time(self):
        """From what was over to what began then; not to what follows from others that were over in between."""
        events = []
        for number, transaction in enumerate(self.history):
            if transaction.strict and self.there[number]:
                events.append((transaction.begin, 0, number))
                if transaction.outcome == OK:
                    events.append((transaction.end, 1, number))
        over, before = set(), {}
        for _, ended, number in sorted(events):
            if ended:
                over -= before.pop(number)
                over.add(number)
            else:
                before[number] = set(over)
                for each in over:
                    self._edge(each, number, TIME)

    def _cycles(self):
        """The least kinds of edges that close a cycle name it."""
        told = set()
        for name, kinds in (("G0", {WW}), ("G1c", {WW, WR}), ("G", {WW, WR, RW})):
            for suffix, more in (("", set()), ("-session", {SESSION}), ("-time", {SESSION, TIME})):
                for component in self._components(kinds | more):
                    if told & component:
                        continue
                    told |= component
                    self._name(name, suffix, component, kinds | more)

    def _name(self, name, suffix, component, kinds):
        inside = {one: [(to, kind) for to, kind in self.edges[one] if to in component and kind in kinds] for one in component}
        if name != "G":
            start = min(component)
            cycle = self._way(inside, start, start, kinds)
        else:
            cycle, name = None, "G-single"
            for one in sorted(component):
                for to, kind in inside[one]:
                    way = self._way(inside, to, one, kinds - {RW}) if kind == RW and cycle is None else None
                    cycle = [(one, RW)] + way if way is not None else cycle
            if cycle is None:
                name, start = "G2", min(component)
                cycle = self._way(inside, start, start, kinds)
        words = " -> ".join(f"T{one} {kind}" for one, kind in cycle)
        self._tell(name + suffix, f"{words} -> T{cycle[0][0]}", *(one for one, _ in cycle))

    @staticmethod
    def _way(inside, start, goal, kinds):
        """The shortest, as [(transaction, kind of the edge from it)]; at least one edge long.  None: there is none."""
        came, queue = {}, collections.deque([start])
        while queue:
            one = queue.popleft()
            for to, kind in inside[one]:
                if kind in kinds and to not in came:
                    came[to] = (one, kind)
                    if to == goal:
                        way, at = [], goal
                        while not way or at != start:
                            at, by = came[at]
                            way.append((at, by))
                        return way[::-1]
                    queue.append(to)
        return None

    def _components(self, kinds):
        """Those with more than one transaction that are strongly connected by such edges (Tarjan, without recursion)."""
        index, low, stack, on_stack, found = {}, {}, [], set(), []
        for root in range(len(self.history)):
            if root in index:
                continue
            work = [(root, iter(self.edges[root]))]
            index[root] = low[root] = len(index)
            stack.append(root)
            on_stack.add(root)
            while work:
                one, edges = work[-1]
                for to, kind in edges:
                    if kind not in kinds:
                        continue
                    if to not in index:
                        index[to] = low[to] = len(index)
                        stack.append(to)
                        on_stack.add(to)
                        work.append((to, iter(self.edges[to])))
                        break
                    if to in on_stack:
                        low[one] = min(low[one], index[to])
                else:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[one])
                    if low[one] == index[one]:
                        component = set()
                        while one not in component:
                            component.add(stack.pop())
                        on_stack -= component
                        if len(component) > 1:
                            found.append(component)
        return found


def problems(history):
    return linearizable(history) + [f"{name}: {words}" for name, words in serializable(history)]
