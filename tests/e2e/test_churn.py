"""Nodes that come and go for good, or lose their disks and come back, while applications write: nothing acknowledged is lost."""

import time

from cluster import Cluster, Ledger, wait_reads
from harness import connect, main, temporary, test, wait_for

PATIENTLY = ["-join-attempts", "1000", "-join-interval", "200ms"]


def joins_through_any(cluster):
    for node in cluster.nodes:
        node.flags = ["-node-id", node.name, "-join", ",".join(other.raft for other in cluster.others(node)), *PATIENTLY]


def wipe(node):
    """The disk is lost."""
    node.directory.rename(temporary("lost"))


def wait_voters(through, *names):
    def voters():
        nodes = through.status()["store"]["nodes"]
        if len({node["id"] for node in nodes}) < len(nodes):
            return None  # one of them is there as what it was and as what it is now
        return sorted(node["id"] for node in nodes if node["suffrage"] == "voter")

    wait_for(lambda: voters() == sorted(names), f"the voters are {', '.join(names)}")


@test
def disks_are_lost_under_load():
    """One after the other, the leader's too; each comes back empty, under its name."""
    cluster = Cluster()
    joins_through_any(cluster)
    wait_voters(cluster.nodes[0], "1", "2", "3")
    ledger = None
    for number in range(4):
        lost = cluster.leader() if number % 2 == 0 else cluster.nodes[number % 3]
        others = cluster.others(lost)
        if ledger is None:
            ledger = Ledger(cluster, others)
        else:
            ledger.write_on(others)
        ledger.wait_more(20)
        lost.kill()
        wipe(lost)
        ledger.wait_more(20)
        lost.start()
        wait_voters(lost, "1", "2", "3")
        ledger.wait_more(20)
        ledger.stop()
    ledger.settle()


@test
def a_leader_that_a_node_has_never_heard_of():
    """It joined while the node was down, in the place of one that has lost its disk.  Nobody gives way to a read replica."""
    cluster = Cluster()
    joins_through_any(cluster)
    away = cluster.add(4, "-join", cluster.nodes[1].raft, "-raft-non-voter").start()
    wait_voters(cluster.nodes[0], "1", "2", "3")
    away.kill()
    first = cluster.nodes[0]
    first.kill()
    wipe(first)
    first.start()
    wait_voters(first, "1", "2", "3")
    first.lead()
    connect(first.path(), busy_ms=20000).execute("CREATE TABLE t(x)")
    away.start()
    wait_reads(away, "SELECT count(*) FROM t", 0)
    cluster.wait_equal()


@test
def nodes_join_and_leave_under_load():
    cluster = Cluster()
    ledger = Ledger(cluster)
    for _ in range(3):
        fourth = cluster.add(4, "-join", cluster.nodes[0].raft, *PATIENTLY).start()
        wait_voters(fourth, "1", "2", "3", "4")
        ledger.wait_more(10)
        cluster.nodes.remove(fourth)
        cluster.nodes[1].removes(fourth)
        wait_voters(cluster.nodes[0], "1", "2", "3")
        fourth.kill()
        ledger.wait_more(10)
    ledger.settle()


@test
def a_leader_that_is_removed_under_load():
    """It hands over, and goes.  Wiped, it joins again."""
    cluster = Cluster()
    joins_through_any(cluster)
    wait_voters(cluster.nodes[0], "1", "2", "3")
    leader = cluster.leader()
    others = cluster.others(leader)
    ledger = Ledger(cluster, others)
    ledger.wait_more(20)
    began = time.monotonic()
    others[0].removes(leader)
    wait_voters(others[0], *(node.name for node in others))
    ledger.wait_more(20)
    print(f"NOTE leader removed: {ledger.longest_gap(since=began):.3f} s without a commit on the others")
    leader.kill()
    wipe(leader)
    leader.start()
    wait_voters(leader, "1", "2", "3")
    ledger.wait_more(20)
    ledger.settle()


main()
