"""Troubles of every kind in an order that a seed decides, for RQ_SECONDS (12), with applications on every host that now and then are
killed or stopped themselves; then an independent judge looks at what each of them was told.  RQ_SEED plays one seed,
RQ_TROUBLES=wiped,slow these troubles alone."""

import os
import random
import signal
import time

import troubles
from harness import main, test
from history import Applications
from network import NetworkCluster

SECONDS = float(os.environ.get("RQ_SECONDS", "12")) / 2  # with three nodes, and with five
KINDS = [kind for kind in troubles.EVERY if kind.__name__ in os.environ.get("RQ_TROUBLES", kind.__name__).split(",")]
SEED = int(os.environ.get("RQ_SEED", "0")) or random.randrange(1, 1 << 30)
COMPACTS = ("-raft-snap", "20", "-raft-snap-int", "500ms")


def play(count):
    print(f"NOTE RQ_SEED={SEED}")
    dice = random.Random(SEED)
    cluster = NetworkCluster(count, *COMPACTS)
    applications = Applications(cluster, dice, processes=2 if count == 3 else 1)
    counts, longest = {}, (0.0, "")
    begun = over = time.monotonic()
    trouble = None
    while time.monotonic() < begun + SECONDS:
        applications.wait_more(3)
        longest = max(longest, (time.monotonic() - over, trouble.__name__ if trouble else "start"))
        trouble = dice.choice(KINDS)
        counts[trouble.__name__] = counts.get(trouble.__name__, 0) + 1
        print(f"{time.monotonic() - begun:.3f} {trouble.__name__}", flush=True)
        stopped = dice.sample(applications.running, dice.choice([0, 0, 0, 1, 2]))
        for application in stopped:
            os.kill(application.process.pid, signal.SIGSTOP)
        trouble(cluster, dice, lambda: applications.pass_time(dice.choice([0.02, 0.3, 0.8, 2.0])))
        for application in stopped:
            os.kill(application.process.pid, signal.SIGCONT)
        over = time.monotonic()
        if dice.random() < 0.3:
            applications.replace(dice.choice(applications.running))
    cluster.heal()
    applications.wait_more(3)
    print("NOTE " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) +
          f"; everybody had done 3 more transactions at most {longest[0]:.3f} s after one was over ({longest[1]})")
    applications.settle()


@test(seconds=int(3 * SECONDS) + 200)
def three_nodes():
    play(3)


@test(seconds=int(3 * SECONDS) + 200)
def five_nodes():
    play(5)


main()
