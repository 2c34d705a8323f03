"""Transactions that are too big for the log, in a cluster: every host gets their pages, whoever dies meanwhile."""

import os
import shutil
import sqlite3
import threading

from cluster import Cluster, wait_reads
from harness import IOERR_UNKNOWN, check, connect, connect_stock, equal, main, small_file_system, test, wait_for
from harness import fill as fill_disk

ROWS = 60000  # 6 MB: above what goes into the log
FILL = (
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {rows}) "
    "INSERT INTO big SELECT {batch}, hex(randomblob(40)) FROM c"
)


def staged(node):
    return [name for name in os.listdir(node.directory / "raft/staged") if len(name) == 32]


def fill(connection, batch, rows=ROWS):
    connection.execute(FILL.format(rows=rows, batch=batch))


def batches(node, name="app.db"):
    connection = connect_stock(node.path(name))
    rows = dict(connection.execute("SELECT batch, count(*) FROM big GROUP BY batch"))
    connection.close()
    return rows


def ready(cluster):
    connection = connect(cluster.nodes[0].path(), busy_ms=20000)
    connection.execute("CREATE TABLE big(batch, text)")
    connection.close()
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM big", 0)


class Filler(threading.Thread):
    """One big transaction after another on a host; notes what it was told of each."""

    def __init__(self, node, first):
        super().__init__(daemon=True)
        self.node, self.batch = node, first
        self.acknowledged, self.refused, self.unknown, self.wrong = [], [], [], []
        self.done = threading.Event()
        self.begun = threading.Event()

    def run(self):
        connection = connect(self.node.path(), busy_ms=20000, timeout=20000)
        while not self.done.is_set():
            self.batch += 1
            self.begun.set()
            try:
                fill(connection, self.batch)
                self.acknowledged.append(self.batch)
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0)
                if code == IOERR_UNKNOWN:
                    self.unknown.append(self.batch)
                elif code & 255 == sqlite3.SQLITE_BUSY:
                    self.refused.append(self.batch)
                else:
                    self.wrong.append((self.batch, getattr(error, "sqlite_errorname", None), str(error)))
        connection.close()

    def end(self):
        self.done.set()
        self.join(timeout=120)
        check(not self.is_alive(), "an application hangs in its transaction")
        equal(self.wrong, [], "errors that an application saw")

    def settle(self, cluster):
        """What is there is what it was told."""
        cluster.wait_equal()
        there = batches(cluster.nodes[0])
        for batch, rows in there.items():
            equal(rows, ROWS, f"rows of batch {batch}")
        lost = set(self.acknowledged) - set(there)
        check(not lost, f"acknowledged and lost: {sorted(lost)}")
        ghosts = set(there) & set(self.refused)
        check(not ghosts, f"reported as failed, and there: {sorted(ghosts)}")
        print(f"NOTE {len(self.acknowledged)} acknowledged, {len(self.refused)} busy, {len(self.unknown)} unknown")


@test
def big_transactions_on_every_host():
    cluster = Cluster()
    ready(cluster)
    count = 0
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM big", count)
        connection = connect(node.path(), busy_ms=20000)
        fill(connection, int(node.name))
        connection.close()
        count += ROWS
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM big", count)
    cluster.wait_equal()
    for node in cluster.nodes:
        check("quarantined" not in node.log(), node.log())


@test
def same_pages_in_two_databases():
    """They share one body."""
    cluster = Cluster()
    leader = cluster.leader()
    names = ["one.db", "two.db"]
    for name in names:
        connection = connect(leader.path(name), busy_ms=20000)
        connection.execute("CREATE TABLE big(batch, text)")
        connection.close()

    def write(name):
        connection = connect(leader.path(name), busy_ms=20000)
        for batch in range(3):
            connection.execute(
                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 60000) "
                f"INSERT INTO big SELECT {batch}, printf('%080d', i) FROM c"
            )
        connection.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        cluster.wait_equal(name)
        for node in cluster.nodes:
            equal(batches(node, name), {0: 60000, 1: 60000, 2: 60000}, f"batches in {name} on node {node.name}")
    for node in cluster.nodes:
        check("quarantined" not in node.log(), node.log())


@test
def body_that_a_host_has_lost_is_fetched():
    """A host is away while a big transaction is committed; and of one that it had got already the body is taken away."""
    cluster = Cluster()
    ready(cluster)
    leader = cluster.leader()
    follower = cluster.others(leader)[0]
    connection = connect(leader.path(), busy_ms=20000)
    fill(connection, 1)
    wait_for(lambda: staged(follower), "the follower has the body")
    wait_reads(follower, "SELECT count(*) FROM big", ROWS)
    follower.kill()
    fill(connection, 2)
    shutil.rmtree(follower.directory / "raft/staged")
    follower.start()
    wait_reads(follower, "SELECT count(*) FROM big", 2 * ROWS)
    cluster.wait_equal()
    check("quarantined" not in follower.log(), follower.log())


@test
def commit_waits_for_a_majority_and_then_fails_for_certain():
    cluster = Cluster()
    ready(cluster)
    leader = cluster.leader()
    for node in cluster.others(leader):
        node.kill()
    connection = connect(leader.path(), busy_ms=1000, timeout=30000)
    try:
        fill(connection, 1)
        raise AssertionError("committed by one of three")
    except sqlite3.OperationalError as error:
        equal(error.sqlite_errorcode & 255, sqlite3.SQLITE_BUSY, f"the code ({error})")
    wait_for(lambda: not staged(leader), "bodies of what has failed are gone")
    for node in cluster.others(leader):
        node.start()
    cluster.leader()
    connection.execute("PRAGMA busy_timeout = 20000")
    fill(connection, 2)
    cluster.wait_equal()
    equal(batches(cluster.nodes[0]), {2: ROWS}, "batches")


@test
def slow_host_keeps_nobody_waiting():
    """One that stands still has no part in the majority, and gets the body later."""
    cluster = Cluster()
    ready(cluster)
    leader = cluster.leader()
    slow = cluster.others(leader)[0]
    connection = connect(leader.path(), busy_ms=20000)
    slow.pause()
    try:
        for batch in range(3):
            fill(connection, batch)
        check(not staged(slow), "a process that stands still has a body")
    finally:
        slow.go_on()
    wait_reads(slow, "SELECT count(*) FROM big", 3 * ROWS)
    cluster.wait_equal()
    check("quarantined" not in slow.log(), slow.log())


@test
def host_without_space_keeps_nobody_waiting():
    """Two of three have space; the third applies the transaction when it has some, too."""
    cluster = Cluster(start=False)
    small = cluster.nodes[2]
    small.directory.rmdir()
    small.directory = small_file_system(96)
    for node in cluster.nodes:
        node.start()
    ready(cluster)
    cluster.leader()
    filler = small.directory / "filler"
    fill_disk(filler, leave=4 << 20)
    connection = connect(cluster.nodes[0].path(), busy_ms=20000)
    fill(connection, 1)
    fill(connection, 2)
    wait_reads(cluster.nodes[1], "SELECT count(*) FROM big", 2 * ROWS)
    wait_for(lambda: "a database waits for a staged body" in small.log() or "no space" in small.log(), "it says what it lacks")
    filler.unlink()
    wait_reads(small, "SELECT count(*) FROM big", 2 * ROWS)
    cluster.wait_equal()
    check("quarantined" not in small.log(), small.log())


def kills(victim_of):
    """Ten times: kills a node with kill -9 at another moment of a big transaction, and starts it again."""
    cluster = Cluster()
    ready(cluster)
    batch = 0
    for number in range(10):
        leader = cluster.leader()
        writer = cluster.others(leader)[number % 2] if number % 3 else leader
        victim = victim_of(cluster, leader, writer)
        filler = Filler(writer, batch)
        filler.start()
        # A moment of the first or second transaction: its body is spilled, staged, brought, synced, named, applied.
        wait_for(filler.begun.is_set, "it begins")
        marks = [
            lambda: os.listdir(writer.directory / "raft/staged"),
            lambda: any(os.listdir(node.directory / "raft/staged") for node in cluster.others(writer)),
            lambda: any(staged(node) for node in cluster.others(writer)),
            lambda: filler.acknowledged,
        ]
        wait_for(marks[number % len(marks)], "the moment comes")
        victim.kill()
        victim.start()
        had = len(filler.acknowledged)
        wait_for(lambda: len(filler.acknowledged) > had or not filler.is_alive(), "it commits again")
        filler.end()
        batch = filler.batch
        filler.settle(cluster)
    for node in cluster.nodes:
        check("quarantined" not in node.log(), node.log())


@test(seconds=400)
def kill_the_host_that_writes():
    kills(lambda cluster, leader, writer: writer)


@test(seconds=400)
def kill_another_host():
    kills(lambda cluster, leader, writer: next(node for node in cluster.nodes if node not in (leader, writer)))


@test(seconds=400)
def kill_the_leader_while_another_host_writes():
    kills(lambda cluster, leader, writer: leader)


main()
