"""How fresh reads are, on three nodes: linearizable and bounded reads keep their promise or are refused, whoever is stopped."""

import sqlite3
import time

from cluster import Cluster, wait_reads
from harness import SANITIZER, check, connect, equal, fails, main, test, wait_for

BUSY_CONSISTENCY = sqlite3.SQLITE_BUSY | 82 << 8


def stop(*nodes):
    for node in nodes:
        node.pause()


def go_on(*nodes):
    for node in nodes:
        node.go_on()


def count(connection):
    return connection.execute("SELECT count(*) FROM t").fetchone()[0]


def table(cluster):
    writer = connect(cluster.nodes[0].path(), busy_ms=20000)
    writer.execute("CREATE TABLE t(x)")
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM t", 0)
    return writer


def linearizable(node, **parameters):
    return connect(node.path(), consistency="linearizable", **parameters)


@test
def a_linearizable_read_sees_every_commit_at_once():
    cluster = Cluster()
    writer = table(cluster)
    replica = cluster.add(4, "-join", cluster.nodes[0].raft, "-raft-non-voter").start()
    wait_reads(replica, "SELECT count(*) FROM t", 0)
    readers = [linearizable(node) for node in cluster.nodes]
    times = []
    for number in range(200):
        writer.execute("INSERT INTO t VALUES(?)", (number,))
        reader = readers[number % len(readers)]
        begun = time.monotonic()
        equal(count(reader), number + 1, f"rows that reader {number % len(readers)} sees")
        times.append(time.monotonic() - begun)
    print(f"NOTE linearizable read after a commit elsewhere: {sorted(times)[len(times) // 2] * 1e3:.2f} ms")
    for node, reader in zip(cluster.nodes, readers):  # what others do when it was made on another host
        second = connect(node.path(), busy_ms=20000)
        second.execute("INSERT INTO t VALUES(-1)")
        for other in readers:
            equal(count(other), count(reader), f"rows after a commit on node {node.name}")


@test
def a_leader_that_was_deposed_never_shows_old_rows():
    cluster = Cluster()
    table(cluster)
    leader = cluster.leader()
    others = cluster.others(leader)
    late = linearizable(leader, busy_ms=0, timeout=20000)
    local = connect(leader.path())
    equal(count(local), 0)
    for number in range(3):
        stop(leader)
        connect(others[0].path(), busy_ms=20000, timeout=20000).execute("INSERT INTO t VALUES(1)")
        go_on(leader)
        equal(count(late), number + 1, "rows that the former leader shows")
        leader = cluster.leader()
        others = cluster.others(leader)
        late = linearizable(leader, busy_ms=0, timeout=20000)


@test
def without_a_majority_nothing_is_promised():
    cluster = Cluster()
    writer = table(cluster)
    writer.execute("INSERT INTO t VALUES(1)")
    leader = cluster.leader()
    others = cluster.others(leader)
    strict = linearizable(leader, busy_ms=0, timeout=700)
    bounded = connect(leader.path(), busy_ms=0, timeout=700, consistency="bounded", freshness="300ms")
    equal(count(strict), 1)
    equal(count(bounded), 1)
    stop(*others)
    begun = time.monotonic()
    with fails(BUSY_CONSISTENCY):
        count(strict)
    waited = time.monotonic() - begun
    check(0.6 < waited < 15, f"it was refused after {waited:.3f} s")
    with fails(BUSY_CONSISTENCY):
        count(bounded)
    equal(count(connect(leader.path())), 1, "rows of a local read")
    strict.execute("PRAGMA rqvfs_consistency=local")
    equal(count(strict), 1)
    strict.execute("PRAGMA rqvfs_consistency=linearizable")
    with fails(BUSY_CONSISTENCY):
        count(strict)
    strict.execute("PRAGMA rqvfs_consistency=local")
    message = strict.execute("SELECT message FROM rqvfs_status").fetchone()[0]
    check("linearizable reads:" in (message or ""), f"what rqvfs_status says: {message!r}")
    strict.execute("PRAGMA rqvfs_consistency=linearizable")
    go_on(*others)
    wait_for(lambda: read_or_busy(strict) == 1, "it reads again")
    wait_for(lambda: read_or_busy(bounded) == 1, "it reads again")


def read_or_busy(connection):
    try:
        return count(connection)
    except sqlite3.OperationalError as error:
        equal(error.sqlite_errorcode, BUSY_CONSISTENCY, "result code")
        return None


@test
def a_bounded_read_is_as_fresh_as_it_says():
    """Never older than the bound, also right after a start and after a pause of the node."""
    cluster = Cluster()
    writer = table(cluster)
    leader = cluster.leader()
    node = cluster.others(leader)[0]
    bounded = connect(node.path(), busy_ms=0, timeout=20000, consistency="bounded", freshness="200ms")
    equal(count(bounded), 0)
    done = 0
    for how in ("stop", "kill", "stop", "kill"):
        stop(node) if how == "stop" else node.kill()
        for _ in range(50):
            writer.execute("INSERT INTO t VALUES(1)")
        done += 50
        written = time.monotonic()
        wait_for(lambda: time.monotonic() - written > 0.25, "what was written is older than the bound")
        go_on(node) if how == "stop" else node.launch()
        equal(count(bounded), done, f"rows after {how}")
    if SANITIZER == "":
        begun = time.monotonic()
        for _ in range(2000):
            count(bounded)
        print(f"NOTE bounded read: {(time.monotonic() - begun) / 2000 * 1e6:.1f} us")


@test
def one_node_alone_promises_everything():
    cluster = Cluster(1)
    writer = table(cluster)
    strict = linearizable(cluster.nodes[0])
    bounded = connect(cluster.nodes[0].path(), consistency="bounded", freshness="1ms")
    for number in range(50):
        writer.execute("INSERT INTO t VALUES(1)")
        equal((count(strict), count(bounded)), (number + 1, number + 1), "rows")


@test
def what_is_no_consistency_is_refused():
    node = Cluster(1).nodes[0]
    for parameters in ({"consistency": "strong"}, {"consistency": "bounded"}, {"freshness": "fast"}):
        with fails(sqlite3.SQLITE_CANTOPEN):
            connect(node.path(), **parameters)


main()
