"""Applications on every host (history_client.py) whose histories are judged in the end (linear.py)."""

import collections
import json
import math
import subprocess
import sys
import threading
import time

from cluster import wait_reads
from harness import SOURCE, check, connect, connect_stock, temporary, wait_for
from linear import OK, UNKNOWN, Transaction, linearizable, serializable

CLIENT = SOURCE / "tests" / "e2e" / "history_client.py"


class Application:
    """One process; nobody else has its name, and its node and seed are its own for ever."""

    def __init__(self, node, name, seed):
        self.node, self.name, self.path = node, name, temporary("history")
        self.path.touch()
        self.process = subprocess.Popen([sys.executable, CLIENT, node.path(), name, str(seed), self.path], stdin=subprocess.PIPE)
        self.file, self.rest = self.path.open(), ""
        self.lines, self.succeeded = [], 0

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.look()

    def look(self):
        """Takes up what it has written since."""
        *lines, self.rest = (self.rest + self.file.read()).split("\n")
        for line in map(json.loads, lines):
            self.lines.append(line)
            self.succeeded += line[0] == "end" and line[4] == OK
            check(line[0] != "wrong", f"application {self.name} saw {line[1:]}")


class Applications:
    def __init__(self, cluster, dice, processes=2):
        self.cluster, self.dice = cluster, dice
        first = connect(cluster.nodes[0].path(), busy_ms=20000, timeout=20000)
        first.executescript(
            "BEGIN; CREATE TABLE registers(key TEXT PRIMARY KEY, value); CREATE TABLE lists(key TEXT PRIMARY KEY, items TEXT);"
            "CREATE TABLE ballast(bytes); INSERT INTO ballast VALUES(NULL); COMMIT;"
        )
        first.close()
        for node in cluster.nodes:
            wait_reads(node, "SELECT count(*) FROM ballast", 1)
        self.number, self.never = 0, threading.Event()
        self.running, self.over = [], []
        for node in cluster.nodes * processes:
            self.start(node)

    def start(self, node):
        self.number += 1
        self.running.append(Application(node, f"{node.name}.{self.number}", self.dice.randrange(1 << 30)))

    def replace(self, application):
        """It is killed, wherever it is; another one comes."""
        application.kill()
        self.running.remove(application)
        self.over.append(application)
        self.start(application.node)

    def progress(self):
        """Of each process that runs: how many transactions it has done with success."""
        for application in self.running:
            application.look()
            check(application.process.poll() is None, f"application {application.name} ended with {application.process.returncode}")
        return {application.name: application.succeeded for application in self.running}

    def wait_more(self, transactions, seconds=60.0, nodes=None):
        """Until every application (on those nodes) has so many more done."""
        before = self.progress()
        names = [each.name for each in self.running if nodes is None or each.node in nodes]

        def more():
            now = self.progress()
            return all(now[name] >= before[name] + transactions for name in names)

        try:
            wait_for(more, f"each application has {transactions} more transactions", seconds)
        except AssertionError as error:
            now = self.progress()
            raise AssertionError(f"{error}: {({name: now[name] - before[name] for name in names})}; {self.cluster.summary()}") from None

    def pass_time(self, seconds):
        """A trouble has to last so long; the applications are looked at meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.progress()
            self.never.wait(min(0.1, max(0, until - time.monotonic())))

    def stop(self):
        for application in self.running:
            application.kill()
        self.over += self.running
        self.running = []

    def history(self):
        transactions = {}
        for application in self.over:
            for line in application.lines:
                if line[0] == "begin":
                    _, client, number, begin, strict, ops = line
                    transactions[client, number] = Transaction(client, begin, math.inf, UNKNOWN, ops_of(ops, planned=True), strict)
                elif line[0] == "end":
                    _, client, number, end, outcome, ops = line
                    one = transactions[client, number]
                    one.outcome = outcome
                    if outcome != UNKNOWN:
                        one.end = end
                    if outcome == OK:
                        one.ops = ops_of(ops)
                    else:  # what it has read, and all that it would have written
                        one.ops = ops_of(ops) + ops_of(one.ops[len(ops):], planned=True)
        return list(transactions.values())

    def settle(self):
        """Ends the applications; the files of all hosts are the same then, and what each was told hangs together."""
        self.stop()
        self.cluster.wait_equal()
        history = self.history()
        history += self.last_looks(history)
        outcomes = collections.Counter(one.outcome for one in history)
        print(f"NOTE {len(history)} transactions of {len(self.over)} processes: " +
              ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))
        slowest = sorted((one for one in history if one.end < math.inf), key=lambda one: one.end - one.begin)[-3:]
        for one in slowest:
            print(f"NOTE {one.end - one.begin:.3f} s: {one}"[:300])
        wrong = linearizable(history) + [f"{name}: {words}" for name, words in serializable(history)]
        check(not wrong, "what the applications were told does not hang together:\n" + "\n".join(wrong[:5]))

    def last_looks(self, history):
        """At every register and list."""
        connection = connect_stock(self.cluster.nodes[0].path())
        values = dict(connection.execute("SELECT key, value FROM registers"))
        items = dict(connection.execute("SELECT key, items FROM lists"))
        connection.close()
        lists = {key for one in history for kind, key, _ in one.ops if kind in ("list", "append")}
        now = time.monotonic()
        looks = [[("list", key, items.get(key, "").split()) for key in sorted(lists)]]
        looks += [[("read", key, value)] for key, value in values.items()]
        return [Transaction("the test", now, now, OK, ops) for ops in looks]


def ops_of(ops, planned=False):
    """As the judge wants them; of what was only planned nothing is known that it would have read."""
    return [(kind, key, value) for kind, key, value in ops if not planned or kind in ("write", "append")]
