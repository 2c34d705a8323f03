"""Flags that say how a node comes and goes."""

import signal
import threading

from cluster import Cluster, wait_reads
from harness import check, connect, equal, main, test, wait_for


@test
def s6_a_read_replica_founds_no_cluster():
    Cluster(1, "-raft-non-voter", start=False).nodes[0].refused("cannot create a new non-voting node without joining")


@test
def s6_s14_4_the_only_node_of_a_cluster_joins_no_other():
    cluster = Cluster(1)
    node = cluster.nodes[0]
    node.stop()
    node.flags += ["-join", f"{cluster.subnet}.2:4002"]
    node.refused("node is the only node in a single-node cluster, joining other clusters not supported")


@test
def s6_s14_3_a_node_that_is_stopped_leaves_the_cluster_when_told_so():
    cluster = Cluster(2)
    left = cluster.nodes[1]
    left.stop()
    left.flags += ["-raft-cluster-remove-shutdown"]
    left.start()
    connection = connect(cluster.nodes[0].path(), busy_ms=20000)
    connection.execute("CREATE TABLE t(x)")
    wait_reads(left, "SELECT count(*) FROM t", 0)
    left.stop()
    connection.execute("INSERT INTO t VALUES(1)")  # no majority of two is needed any more


@test
def s6_s14_3_the_leader_that_is_stopped_leaves_the_cluster_when_told_so():
    cluster = Cluster(2, "-raft-cluster-remove-shutdown")
    stays = cluster.nodes[1]
    connection = connect(stays.path(), busy_ms=20000)
    connection.execute("CREATE TABLE t(x)")
    cluster.leader([cluster.nodes[0]])
    cluster.nodes[0].stop()
    connection.execute("INSERT INTO t VALUES(1)")
    check(stays.leads(), "who is left does not lead")


@test
def s6_a_removed_node_says_so_and_ends_when_told_so():
    cluster = Cluster()
    first, last = cluster.nodes[0], cluster.nodes[2]
    connect(first.path(), busy_ms=20000).execute("CREATE TABLE t(x)")

    check(last.status()["cluster"]["removed"] is False, "removed before it was")
    first.removes(last)
    wait_for(lambda: last.status()["cluster"]["removed"], "node 3 knows that it was removed")
    check("was removed from the cluster" in last.log(), last.log())
    last.stop()
    last.flags += ["-raft-remove-shutdown"]
    last.start()  # with -join, as ever
    wait_reads(last, "SELECT count(*) FROM t", 0)
    wait_for(lambda: not last.status()["cluster"]["removed"], "node 3 is a member again")
    first.removes(last)
    equal(last.exit_code(), 0, "exit code of a node that was removed")


@test
def s6_s14_7_members_that_are_silent_for_too_long_are_removed():
    cluster = Cluster(3, "-raft-reap-node-timeout", "6s", "-raft-reap-read-only-node-timeout", "2s")
    reader = cluster.add(4, "-raft-non-voter", "-join", cluster.nodes[0].raft).start()
    leader = cluster.leader()
    voter = cluster.others(leader, reader)[0]
    for gone in (reader, voter):
        gone.kill()
        words = f"it was not heard for too long\" node={gone.name} "
        wait_for(lambda: any(words in node.log() for node in cluster.others(gone)), f"node {gone.name} is removed")
    rest = cluster.others(reader, voter)
    connection = connect(rest[0].path(), busy_ms=20000)
    connection.execute("CREATE TABLE t(x)")
    wait_reads(rest[1], "SELECT count(*) FROM t", 0)
    check(not any(f"node={node.name} limit" in other.log() for node in rest for other in rest), "one that is heard was removed")


@test
def s1_1_a_longer_time_to_wait_for_the_leader():
    cluster = Cluster(3, "-raft-heartbeat-timeout", "10s")
    leader = cluster.leader()
    connection = connect(cluster.others(leader)[0].path(), busy_ms=20000, timeout=30000)
    connection.execute("CREATE TABLE t(x)")
    leader.pause()
    resume = threading.Timer(1.5, leader.process.send_signal, [signal.SIGCONT])  # more than the usual 0.6 s
    resume.start()
    connection.execute("INSERT INTO t VALUES(1)")
    resume.join()
    check(leader.leads(), "it was replaced")


if __name__ == "__main__":
    main()
