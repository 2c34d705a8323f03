"""Whatever may happen to one node of three, or to the links between them, or to all at once, in an order that a seed decides, for
RQ_SECONDS (10), with writers on every host: no outcome stays unknown.  RQ_SEED plays one seed."""

import os
import random
import time

import troubles
from cluster import Ledger
from harness import main, test
from network import NetworkCluster

SECONDS = float(os.environ.get("RQ_SECONDS", "10"))
SEED = int(os.environ.get("RQ_SEED", "0")) or random.randrange(1, 1 << 30)


@test(seconds=int(3 * SECONDS) + 200)
def troubles_of_every_kind():
    print(f"NOTE RQ_SEED={SEED}")
    dice = random.Random(SEED)
    cluster = NetworkCluster()
    ledger = Ledger(cluster, busy_ms=60000, timeout_ms=60000)
    counts = {}
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ledger.wait_more(3, seconds=60)
        ledger.done.wait(dice.random() * 0.1)  # any point of a commit
        trouble = dice.choice(troubles.OF_PROCESSES + troubles.OF_NETWORKS)
        counts[trouble.__name__] = counts.get(trouble.__name__, 0) + 1
        print(f"{time.strftime('%H:%M:%S')} {trouble.__name__}")
        trouble(cluster, dice, lambda: ledger.done.wait(dice.choice([0.02, 0.3, 0.8, 2.0])))
    ledger.wait_more(3, seconds=60)
    print("NOTE " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    ledger.settle()


main()
