"""The judge of histories (linear.py) against histories made by hand, and made at random by a system that is right and by ones that
are not."""

import math
import random

from harness import check, equal, main, test
from linear import FAILED, OK, UNKNOWN, Transaction, linearizable, serializable


def one(begin, end, *ops, client=None, outcome=OK, strict=True):
    return Transaction(client or f"{begin}", begin, math.inf if outcome == UNKNOWN else end, outcome, list(ops), strict)


def write(begin, end, value, outcome=OK):
    return one(begin, end, ("write", "x", value), outcome=outcome)


def read(begin, end, value, strict=True):
    return one(begin, end, ("read", "x", value), strict=strict)


def swap(begin, end, old, new, outcome=OK):
    return one(begin, end, ("read", "x", old), ("write", "x", new), outcome=outcome)


def append(key, value):
    return "append", key, value


def look(key, *elements):
    return "list", key, list(elements)


def names(*history):
    return [name for name, _ in serializable(list(history))]


def accepts(*history):
    equal(linearizable(list(history)), [], "problems of a good history")


def rejects(*history):
    equal(len(linearizable(list(history))), 1, f"problems of {history}")


# --- registers ------------------------------------------------------------------------------------------------------------


@test
def registers_that_are_linearizable():
    accepts()
    accepts(read(0, 1, None), write(2, 3, 1), read(4, 5, 1))
    accepts(write(0, 10, 1), read(1, 2, None), read(3, 4, 1))  # it took effect between the reads
    accepts(write(0, 10, 1), write(0, 10, 2), read(1, 2, 2), read(3, 4, 1), read(11, 12, 1))
    accepts(swap(0, 10, 2, 3), swap(0, 10, None, 2), read(11, 12, 3))
    accepts(write(0, 1, 1), write(2, 3, 9, FAILED), read(4, 5, 1))
    accepts(write(0, 1, 1), read(2, 3, None, strict=False))  # that was not promised
    accepts(one(0, 1, ("write", "x", 1)), one(2, 3, ("read", "y", None)))  # another register


@test
def registers_with_unknown_outcomes():
    accepts(write(0, 1, 1), write(2, 3, 2, UNKNOWN), read(4, 5, 1))
    accepts(write(0, 1, 1), write(2, 3, 2, UNKNOWN), read(4, 5, 1), read(50, 51, 2))  # much later
    accepts(swap(0, 1, None, 1, UNKNOWN), swap(0, 1, 1, 2, UNKNOWN), read(4, 5, 2))  # the one because of the other
    rejects(write(0, 1, 1), write(2, 3, 2, UNKNOWN), read(4, 5, 2), read(6, 7, 1))  # back again
    rejects(write(5, 6, 2, UNKNOWN), read(1, 2, 2))  # before it was asked for
    rejects(swap(0, 1, 7, 1, UNKNOWN), read(4, 5, 1))  # it could not


@test
def a_stale_read_is_found():
    rejects(write(0, 1, 1), write(2, 3, 2), read(4, 5, 1))
    rejects(write(0, 1, 1), read(2, 3, None))
    rejects(write(0, 10, 1), read(1, 2, 1), read(3, 4, None))


@test
def a_lost_write_is_found():
    rejects(write(0, 1, 1), swap(2, 5, 1, 2), swap(3, 6, 1, 3))  # both from the same value
    rejects(write(0, 1, 1), swap(2, 3, 1, 2), read(4, 5, 1))


@test
def a_failed_write_that_is_seen_is_found():
    rejects(write(0, 1, 1), write(2, 3, 2, FAILED), read(4, 5, 2))
    rejects(read(0, 1, 77))


@test
def two_readers_that_disagree_are_found():
    rejects(write(0, 20, 1), write(0, 20, 2), read(1, 2, 1), read(3, 4, 2), read(5, 6, 1))


@test
def registers_at_random():
    """A register that is right is never accused, with many calls at once; one that serves an old value now and then is found."""
    dice = random.Random(1)
    found = 0
    for case in range(120):
        history, value, old, changed, now = [], None, None, math.inf, 0.0
        free = {f"c{number}": 0.0 for number in range(6)}
        lied = False
        for number in range(150):
            client = dice.choice(sorted(free))
            now = max(now + dice.random() * 0.2, free[client])
            begin, end = now - dice.random() * min(1, now - free[client]), now + dice.random()
            free[client] = end
            if dice.random() < 0.7:
                lie = case % 2 == 1 and not lied and number > 100 and begin > changed
                lied |= lie
                history.append(read(begin, end, old if lie else value))
                continue
            make = dice.choice([lambda outcome: write(begin, end, number, outcome), lambda outcome: swap(begin, end, value, number, outcome)])
            outcome = UNKNOWN if dice.random() < 0.05 else OK
            history.append(make(outcome))
            if outcome == OK or dice.random() < 0.5:
                old, value, changed = value, number, end
        problems = linearizable(history)
        equal(len(problems), int(lied), f"problems of case {case}: {problems}")
        found += lied
    check(found > 30, f"{found} lies")


# --- lists ----------------------------------------------------------------------------------------------------------------


@test
def lists_that_are_serializable():
    equal(names(), [])
    equal(names(one(0, 1, append("x", 1)), one(2, 3, look("x", 1), append("x", 2)), one(4, 5, look("x", 1, 2))), [])
    equal(names(one(0, 1, append("x", 1)), one(2, 3, look("x"), client="r", strict=False)), [])  # an older state
    equal(names(one(0, 1, append("x", 1), append("x", 2), look("x", 1, 2)), one(2, 3, look("x", 1, 2))), [])
    equal(names(one(0, 1, append("x", 1), outcome=UNKNOWN), one(2, 3, look("x")), one(4, 5, look("x", 1))), [])
    equal(names(one(0, 1, append("x", 1), outcome=FAILED), one(2, 3, look("x"))), [])


@test
def what_one_transaction_shows():
    equal(names(one(0, 1, look("x", 7))), ["garbage"])
    equal(names(one(0, 1, append("x", 1)), one(2, 3, look("x", 1, 1))), ["doubled"])
    equal(names(one(0, 1, append("x", 1), outcome=FAILED), one(2, 3, look("x", 1))), ["G1a"])
    equal(names(one(0, 9, append("x", 1), append("x", 2)), one(2, 3, look("x", 1))), ["G1b", "G-single"])
    equal(names(one(0, 1, append("x", 1), look("x"))), ["internal"])
    equal(names(one(0, 9, append("x", 1)), one(2, 3, look("x"), look("x", 1))), ["internal"])
    equal(names(one(0, 9, append("x", 1)), one(0, 9, append("x", 2)), one(2, 3, look("x", 1)), one(4, 5, look("x", 2)))[0], "order")


@test
def cycles_of_writes():
    equal(names(one(0, 9, append("x", 1), append("y", 1)), one(1, 9, append("x", 2), append("y", 2)),
                one(10, 11, look("x", 1, 2), strict=False), one(10, 11, look("y", 2, 1), client="r", strict=False)), ["G0"])


@test
def cycles_of_writes_and_reads():
    equal(names(one(0, 9, append("x", 1), look("y", 1)), one(1, 9, append("y", 1), look("x", 1))), ["G1c"])


@test
def cycles_with_an_anti_dependency():
    # a lost update
    equal(names(one(0, 9, look("x"), append("x", 1)), one(1, 9, look("x"), append("x", 2)), one(10, 11, look("x", 1, 2))), ["G-single"])
    # a snapshot that is torn: the second write of a transaction without its first
    equal(names(one(0, 9, append("x", 1), append("y", 1)), one(1, 9, look("x"), look("y", 1), strict=False)), ["G-single"])
    # write skew
    equal(names(one(0, 9, look("x"), append("y", 1)), one(1, 9, look("y"), append("x", 1)), one(10, 11, look("x", 1), look("y", 1))),
          ["G2"])


@test
def what_goes_back():
    """In time, and for one client."""
    equal(names(one(0, 1, append("x", 1)), one(2, 3, look("x"))), ["G-single-time"])
    equal(names(one(0, 1, append("x", 1)), one(2, 3, append("x", 2)), one(4, 5, look("x", 2, 1)))[0], "G0-time")
    equal(names(one(0, 9, append("x", 1)), one(1, 2, look("x", 1), client="r", strict=False),
                one(3, 4, look("x"), client="r", strict=False)), ["G-single-session"])
    equal(names(one(0, 1, append("x", 1), client="r"), one(3, 4, look("x"), client="r", strict=False)), ["G-single-session"])


@test
def what_is_lost():
    """Acknowledged, and not there at the end."""
    equal(names(one(0, 1, append("x", 1)), one(2, 3, append("x", 2)), one(4, 5, look("x", 1))), ["G-single-time"])
    equal(names(one(0, 1, append("x", 1)), one(2, 3, append("x", 2), outcome=UNKNOWN), one(4, 5, look("x", 1))), [])


@test
def lists_at_random():
    """What was done one after the other is never accused; a transaction that works on an old state is found if that matters."""
    dice = random.Random(2)
    found = wrong = 0
    for case in range(80):
        lies = case % 2
        history, states, now = [], [{}], 0.0
        wrong_here = False
        for number in range(120):
            now += 1
            client = f"c{dice.randrange(5)}"
            strict = dice.random() < 0.7
            state = dict(states[-1])
            if lies and number > 60 and dice.random() < 0.05:
                state = dict(states[-dice.randrange(2, 6)])
                strict = True
            ops, appends = [], False
            for part in range(dice.randrange(1, 5)):
                key = dice.choice("xyz")
                if strict and dice.random() < 0.5:
                    state[key] = state.get(key, ()) + (number * 10 + part,)
                    ops.append(append(key, number * 10 + part))
                    appends = True
                else:
                    shown = state.get(key, ())
                    ops.append(look(key, *shown))
                    wrong_here |= not appends and strict and states[-1].get(key, ()) != shown
            outcome = FAILED if dice.random() < 0.1 else OK
            # The calls overlap with those before and behind.
            history.append(one(now - 0.4, now + 0.4, *ops, client=client, outcome=outcome, strict=strict))
            if appends and outcome == OK:
                states.append(state)
        problems = serializable(history)
        check(not problems or lies, f"case {case}: {problems}")
        found += bool(problems)
        wrong += wrong_here
    check(found > 30, f"{found} of {wrong} were found")


main()
