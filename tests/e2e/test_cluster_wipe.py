"""A host that lost its disk comes back as a new member under its old name; it does not vote on what it has forgotten."""

import json
import shutil
import sqlite3
import threading
import time
import urllib.request

from cluster import Cluster, wait_reads
from harness import check, connect, equal, main, test, value, wait_for
from troubles import PATIENTLY


def wiped(node):
    """Started again with nothing, as an operator would."""
    shutil.rmtree(node.directory)
    node.directory.mkdir()
    return node


def rows(connection, *numbers):
    for number in numbers:
        connection.execute("INSERT INTO t VALUES(?)", (number,))


def with_table(cluster):
    connection = connect(cluster.nodes[0].path(), busy_ms=20000, timeout=20000)
    connection.execute("CREATE TABLE t(x)")
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM t", 0)
    return connection


def joins_all(cluster):
    """Each node is told of all others: it may have to come back through any of them."""
    for node in cluster.nodes:
        node.flags += ["-join", ",".join(n.raft for n in cluster.nodes if n is not node), *PATIENTLY]


@test
def a_follower_that_lost_its_disk_votes_again():
    cluster = Cluster()
    connection = with_table(cluster)
    rows(connection, *range(10))
    lost = cluster.nodes[2]
    lost.kill()
    rows(connection, *range(10, 20))
    wiped(lost).start()
    wait_reads(lost, "SELECT count(*) FROM t", 20)
    wait_for(cluster.all_vote, "it has a vote again")
    cluster.others(cluster.leader(), lost)[0].kill()
    rows(connect(cluster.leader().path(), busy_ms=20000, timeout=20000), 20)  # leader and the one that came back are a majority
    wait_reads(lost, "SELECT count(*) FROM t", 21)


def members(node):
    with urllib.request.urlopen(f"http://{node.http}/nodes?ver=2&nonvoters&timeout=1s", timeout=60) as answer:
        return {entry["id"]: entry for entry in json.load(answer)["nodes"]}


@test
def the_leader_that_lost_its_disk_comes_back():
    cluster = Cluster()
    joins_all(cluster)
    connection = with_table(cluster)
    rows(connection, *range(10))
    connection.close()
    lost = cluster.leader()
    lost.kill()
    other = cluster.others(lost)[0]
    rows(connect(other.path(), busy_ms=20000, timeout=20000), *range(10, 20))
    wiped(lost).start()
    wait_reads(lost, "SELECT count(*) FROM t", 20)
    wait_for(cluster.all_vote, "it has a vote again")
    cluster.wait_equal()


@test
def a_leader_that_is_back_before_it_is_missed():
    """Empty.  Whoever still takes its former life for the leader does not keep it waiting long for an answer of that."""
    cluster = Cluster()
    joins_all(cluster)
    with_table(cluster).close()
    for _ in range(3):
        lost = cluster.leader()
        wait_for(cluster.all_vote, "all vote")
        lost.kill()
        begun = time.monotonic()
        wiped(lost).start()
        print(f"NOTE ready again after {time.monotonic() - begun:.3f} s")
        wait_reads(lost, "SELECT count(*) FROM t", 0)
    cluster.wait_equal()


def rows_or_busy(connection):
    try:
        return value(connection, "SELECT count(*) FROM t")
    except sqlite3.OperationalError as error:
        equal(error.sqlite_errorcode & 255, sqlite3.SQLITE_BUSY, "result code")
        return "busy"


@test
def connections_outlive_the_disk():
    """They find the files of the host's next life, and show nothing older than they did, nor than they promise."""
    cluster = Cluster()
    joins_all(cluster)
    connection = with_table(cluster)
    rows(connection, *range(10))
    connection.close()
    lost = cluster.others(cluster.leader())[0]
    local = connect(lost.path(), busy_ms=20000, timeout=20000)
    strict = connect(lost.path(), busy_ms=0, timeout=20000, consistency="linearizable")
    equal(value(strict, "SELECT count(*) FROM t"), 10, "rows before")
    lost.kill()
    writer = connect(cluster.others(lost)[0].path(), busy_ms=20000, timeout=20000)
    rows(writer, *range(10, 20))
    equal(value(local, "SELECT count(*) FROM t"), 10, "rows without raftd")
    wiped(lost).start()
    rows(writer, *range(20, 30))
    equal(value(strict, "SELECT count(*) FROM t"), 30, "rows of a linearizable read")
    seen = [10]

    def caught_up():
        seen.append(rows_or_busy(local))
        return seen[-1] == 30

    wait_for(caught_up, "the other one sees them, too")
    numbers = [each for each in seen if each != "busy"]
    equal(numbers, sorted(numbers), "what it saw")
    rows(local, 30)
    equal(value(strict, "SELECT count(*) FROM t"), 31, "rows after one was written there")
    cluster.wait_equal()


@test
def memory_that_is_lost_does_not_vote():
    cluster = Cluster()
    joins_all(cluster)
    connection = with_table(cluster)
    leader = cluster.leader()
    lags, forgets = cluster.others(leader)
    lags.kill()
    writes = connect(leader.path(), busy_ms=20000, timeout=20000)
    rows(writes, *range(200))  # durable on the leader, and on the one that is to forget
    connection.close()
    writes.close()
    leader.kill()
    forgets.kill()
    wiped(forgets).launch()
    lags.launch()
    end, never = time.monotonic() + 5, threading.Event()  # many elections' time
    while not never.wait(0.1) and time.monotonic() < end:
        check(not lags.leads() and not (forgets.alive() and forgets.leads()), "who lacks what was committed leads")
    leader.start()
    lags.wait_ready()
    for node in (leader, lags):
        wait_reads(node, "SELECT count(*) FROM t", 200)
    forgets.wait_ready()  # it has gone on trying to join
    wait_reads(forgets, "SELECT count(*) FROM t", 200)
    rows(connect(leader.path(), busy_ms=20000, timeout=20000), 200)
    cluster.wait_equal()


@test
def removed_wiped_and_started_again_at_once():
    cluster = Cluster()
    connection = with_table(cluster)
    rows(connection, *range(10))
    gone = cluster.nodes[2]
    cluster.nodes[1].removes(gone)
    gone.kill()
    wiped(gone).start()
    wait_reads(gone, "SELECT count(*) FROM t", 10)
    wait_for(cluster.all_vote, "it has a vote again")
    rows(connect(gone.path(), busy_ms=20000, timeout=20000), 10)
    cluster.wait_equal()


@test
def removed_and_not_wiped_it_does_not_come_back_by_itself():
    cluster = Cluster()
    connection = with_table(cluster)
    gone = cluster.nodes[2]
    cluster.nodes[0].removes(gone)
    rows(connection, *range(10))
    gone.kill()
    join = gone.flags.index("-join")
    del gone.flags[join:join + 2]  # with it, it is to join again
    gone.launch()
    wait_for(lambda: "not a member" in gone.log(), "it is told that it is no member")
    check(not any(name == "3" for name in members(cluster.nodes[0])), "it is a member again")
    equal(value(connection, "SELECT count(*) FROM t"), 10, "rows")


if __name__ == "__main__":
    main()
