"""Networks that come apart, with writers on every host: the majority goes on, the others wait, and when all is one again what each
writer was told is what is there.  Needs root; the figures are printed."""

import random
import time

from cluster import Ledger
from harness import check, main, test
from network import NetworkCluster


def pass_time(ledger, since, seconds):
    """The trouble itself has to last so long; the writers are looked at meanwhile."""
    while time.monotonic() < since + seconds:
        ledger.done.wait(0.1)
        ledger.check_wrong()


def trouble(cluster, ledger, what, begin, going_on, seconds=3.0):
    """Begins the trouble, lets it last, ends it.  Those nodes commit meanwhile, and everybody afterwards."""
    began = time.monotonic()
    begin()
    ledger.wait_more(20, going_on)
    pass_time(ledger, began, seconds)
    gap = ledger.longest_gap(going_on, began)
    cluster.heal()
    healed = time.monotonic()
    ledger.wait_more(1)
    print(f"NOTE {what}: {gap:.3f} s without a commit on {' and '.join(node.name for node in going_on)}; "
          f"everybody has written {time.monotonic() - healed:.3f} s after it was healed")
    check(gap < 60, f"{what}: {gap:.3f} s without a commit")


@test
def a_leader_that_is_cut_off():
    cluster = NetworkCluster()
    ledger = Ledger(cluster)
    for _ in range(3):
        ledger.wait_more(20)
        leader = cluster.leader()
        trouble(cluster, ledger, "leader cut off", lambda: cluster.separate(leader), cluster.others(leader))
    ledger.settle()


@test
def a_follower_that_is_cut_off():
    cluster = NetworkCluster()
    ledger = Ledger(cluster)
    for _ in range(2):
        ledger.wait_more(20)
        follower = cluster.others(cluster.leader())[0]
        trouble(cluster, ledger, "follower cut off", lambda: cluster.separate(follower), cluster.others(follower))
    ledger.settle()


@test
def the_leader_in_the_smaller_half():
    cluster = NetworkCluster(5)
    ledger = Ledger(cluster)
    for _ in range(2):
        ledger.wait_more(10)
        leader = cluster.leader()
        half = [leader, cluster.others(leader)[0]]
        trouble(cluster, ledger, "two of five cut off, the leader among them", lambda: cluster.separate(*half),
                cluster.others(*half))
    ledger.settle()


@test
def a_leader_that_is_heard_by_nobody():
    """What it sends is lost; it hears the others."""
    cluster = NetworkCluster()
    ledger = Ledger(cluster)
    for _ in range(2):
        ledger.wait_more(20)
        leader = cluster.leader()
        others = cluster.others(leader)
        trouble(cluster, ledger, "leader heard by nobody",
                lambda: [cluster.network.drop(leader.host, other.host) for other in others], others)
    ledger.settle()


@test
def a_leader_that_hears_nobody():
    cluster = NetworkCluster()
    ledger = Ledger(cluster)
    for _ in range(2):
        ledger.wait_more(20)
        leader = cluster.leader()
        others = cluster.others(leader)
        trouble(cluster, ledger, "leader that hears nobody",
                lambda: [cluster.network.drop(other.host, leader.host) for other in others], others)
    ledger.settle()


@test
def a_host_that_reaches_all_but_the_leader():
    """It goes on writing: somebody leads whom it hears."""
    cluster = NetworkCluster()
    ledger = Ledger(cluster)
    for _ in range(3):
        ledger.wait_more(20)
        leader = cluster.leader()
        follower = cluster.others(leader)[0]
        trouble(cluster, ledger, "a follower and the leader cut off from each other",
                lambda: cluster.network.separate([leader.host], [follower.host]), [follower])
    ledger.settle()


@test
def links_that_come_and_go():
    cluster = NetworkCluster()
    ledger = Ledger(cluster, busy_ms=60000, timeout_ms=60000)
    dice = random.Random(5)
    ledger.wait_more(20)
    began = time.monotonic()
    while time.monotonic() < began + 15:
        for sender in cluster.nodes:
            for receiver in cluster.others(sender):
                if dice.random() < 0.25:
                    cluster.network.drop(sender.host, receiver.host)
        ledger.done.wait(0.05 + dice.random() * 0.7)  # as long as this lasts
        cluster.heal()
        ledger.done.wait(0.05 + dice.random() * 0.3)
        ledger.check_wrong()
    print(f"NOTE links that come and go for 15 s: longest gap without a commit {ledger.longest_gap(since=began):.3f} s")
    ledger.wait_more(5)
    ledger.settle()


main()
