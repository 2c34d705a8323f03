"""Whatever may happen to one node of three, or to the links between them, or to all at once, in an order that a seed decides, for
RQ_SECONDS (20), with writers on every host.  RQ_SEED plays one seed."""

import os
import random
import signal
import time

from cluster import Ledger
from harness import main, test
from network import NetworkCluster

SECONDS = float(os.environ.get("RQ_SECONDS", "20"))
SEED = int(os.environ.get("RQ_SEED", "0")) or random.randrange(1, 1 << 30)


def killed(cluster, node, last):
    node.kill()
    last()
    node.start(40)


def ended(cluster, node, last):
    node.stop()
    last()
    node.start(40)


def paused(cluster, node, last):
    os.kill(node.process.pid, signal.SIGSTOP)
    last()
    os.kill(node.process.pid, signal.SIGCONT)


def cut_off(cluster, node, last):
    cluster.separate(node)
    last()
    cluster.heal()


def not_heard(cluster, node, last):
    for other in cluster.others(node):
        cluster.network.drop(node.host, other.host)
    last()
    cluster.heal()


def killed_while_cut_off(cluster, node, last):
    cluster.separate(node)
    last()
    node.kill()
    cluster.heal()
    node.start(40)


def all_killed(cluster, node, last):
    for each in cluster.nodes:
        each.kill()
    for each in cluster.nodes:
        each.launch()
    for each in cluster.nodes:
        each.wait_ready(40)


TROUBLES = [killed, killed, ended, paused, cut_off, not_heard, killed_while_cut_off, all_killed]


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
        trouble = dice.choice(TROUBLES)
        counts[trouble.__name__] = counts.get(trouble.__name__, 0) + 1
        print(f"{time.strftime('%H:%M:%S')} {trouble.__name__}")
        trouble(cluster, dice.choice(cluster.nodes), lambda: ledger.done.wait(dice.choice([0.02, 0.3, 0.8, 2.0])))
    ledger.wait_more(3, seconds=60)
    print("NOTE " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    ledger.settle()


main()
