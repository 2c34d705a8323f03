"""A member whose log was released while it was away gets the databases' state from another one: pages that differ, and no more."""

import json
import random
import re
import sqlite3
import threading

from cluster import Cluster, wait_reads
from harness import check, connect, connect_stock, equal, main, test, wait_for

COMPACTS = ("-raft-snap", "20", "-raft-snap-int", "500ms")
CAUGHT_UP = re.compile(r"caught up by the databases of another member.*databases=(\d+) pages_compared=(\d+) pages_fetched=(\d+)")


def caught_up(node):
    """What its catch-ups came to, each (databases, pages compared, pages fetched)."""
    return [tuple(map(int, found)) for found in CAUGHT_UP.findall(node.log())]


def fill(node, rows, name="app.db"):
    connection = connect(node.path(name), busy_ms=20000)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    for first in range(1, rows + 1, 800):  # each small enough for the log
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2) "
            "INSERT INTO t SELECT i, randomblob(3900) FROM n",
            (first, min(first + 799, rows)),
        )
    connection.close()


def push_out(cluster, node, name="app.db", rounds=45):
    """So much log that what was before is released; it changes 800 rows of the table over and over."""
    connection = connect(node.path(name), busy_ms=20000)
    for _ in range(rounds):
        connection.execute("UPDATE t SET b = randomblob(3900) WHERE id <= 800")
    connection.close()

    def released():
        connection = connect(node.path("spare.db"), busy_ms=20000)
        connection.execute("CREATE TABLE IF NOT EXISTS s(x)")
        connection.execute("INSERT INTO s VALUES(1)")
        connection.close()
        return cluster.leader().status()["store"]["raft"]["log_size"] < 100 << 20

    wait_for(released, "the log was released")


def wal_is_empty(path):
    """Its first frame is of a former WAL, or there is none."""
    with open(f"{path}-wal", "rb") as file:
        start = file.read(32 + 24)
    return start[16:24] != start[40:48]


@test
def adopted_databases_reach_joiners():
    cluster = Cluster(start=False)
    made = sqlite3.connect(cluster.nodes[0].path())
    made.execute("CREATE TABLE t(x)")
    made.executemany("INSERT INTO t VALUES(?)", ((number,) for number in range(5000)))
    made.commit()
    made.close()
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM t", 5000)
    for count, node in enumerate(cluster.nodes, 1):
        connection = connect(node.path(), busy_ms=20000)
        connection.execute("INSERT INTO t VALUES(-1)")
        connection.close()
        for other in cluster.nodes:
            wait_reads(other, "SELECT count(*) FROM t", 5000 + count)
    cluster.wait_equal()


@test
def a_follower_gets_what_differs():
    cluster = Cluster(3, *COMPACTS)
    leader, last = cluster.nodes[0], cluster.nodes[2]
    fill(leader, 4000)
    fill(leader, 500, "same.db")
    cluster.wait_equal()
    cluster.wait_equal("same.db")
    reader = connect(last.path())
    equal(reader.execute("SELECT count(*) FROM t").fetchone(), (4000,))
    last.stop()
    push_out(cluster, leader)
    last.start()
    wait_for(lambda: caught_up(last), "node 3 caught up by pages")
    cluster.wait_equal()
    cluster.wait_equal("same.db")
    databases, compared, fetched = caught_up(last)[-1]
    check(4000 < compared < 4400, f"pages compared: {compared}")
    check(700 < fetched < 1500, f"pages fetched: {fetched}")
    counted = sum(pages for _, _, pages in caught_up(last))
    equal(last.status()["store"]["catchup"]["pages_fetched"], counted, "pages fetched, in /status")
    wait_for(
        lambda: reader.execute("SELECT sum(length(b)), total(hex(substr(b, 1, 4)) > 'A') FROM t").fetchone()
        == connect_stock(leader.path()).execute("SELECT sum(length(b)), total(hex(substr(b, 1, 4)) > 'A') FROM t").fetchone(),
        "an open connection reads the new state",
    )
    connection = connect(last.path(), busy_ms=20000)
    connection.execute("INSERT INTO t VALUES(99999, 'from 3')")
    connection.close()
    cluster.wait_equal()
    last.stop()
    last.start()
    cluster.wait_equal()


@test
def s14_3_a_fourth_node_joins_a_compacted_cluster():
    cluster = Cluster(3, *COMPACTS)
    fill(cluster.nodes[0], 2000)
    push_out(cluster, cluster.nodes[1])
    fourth = cluster.add(4, "-join", cluster.nodes[1].raft).start()
    cluster.wait_equal()
    check(caught_up(fourth), "node 4 got its databases by pages")
    restores = json.loads(fourth.get("/debug/vars?key=store")[1])["store"]["num_restores"]
    equal(restores, len(caught_up(fourth)), "states that node 4 counts")
    connection = connect(fourth.path(), busy_ms=20000)
    connection.execute("INSERT INTO t VALUES(99999, 'from 4')")
    connection.close()
    cluster.wait_equal()


@test
def killed_while_it_fetches():
    cluster = Cluster(3, *COMPACTS)
    leader, last = cluster.nodes[0], cluster.nodes[2]
    seed = random.randrange(1 << 30)
    print(f"NOTE seed {seed}")
    rng, never = random.Random(seed), threading.Event()
    fill(leader, 10000)
    cluster.wait_equal()
    last.stop()
    push_out(cluster, leader)
    connection = connect(leader.path(), busy_ms=20000)
    for part in range(8):
        connection.execute("UPDATE t SET b = randomblob(3901) WHERE id % 8 = ?", (part,))
    connection.execute("CREATE TABLE new_one(x)")
    connection.close()
    fetching, copies = last.directory / "raft" / "fetching", last.directory / "raft" / "copies"

    def fetched():
        """Bytes that wait until all are there."""
        try:
            return sum(file.stat().st_blocks * 512 for file in copies.iterdir())
        except FileNotFoundError:  # that was the end of it
            return 0

    amid = most = 0
    for turn in range(8):
        last.launch()
        had = fetched()
        wait_for(lambda: (fetched() > had if turn % 2 else fetching.exists()) or caught_up(last), "node 3 fetches")
        never.wait(rng.random() * 0.1)  # any point of it
        last.kill()
        amid += fetching.exists()
        most = max(most, fetched())
    victim = cluster.leader(cluster.others(last))
    last.launch()
    never.wait(rng.random() * 0.5)
    victim.kill()
    never.wait(rng.random())
    victim.start()
    last.wait_ready()
    cluster.wait_equal(seconds=60)
    wait_for(lambda: not fetching.exists(), "raft/fetching is gone")
    wait_for(lambda: not any(copies.iterdir()), "raft/copies is empty")
    check(amid > 0, "node 3 was never killed while it fetched")
    again = caught_up(last)
    print(f"NOTE killed {amid} times while it fetched {most} bytes; (databases, pages compared, pages fetched): {again}")
    check(not most or min(pages for _, _, pages in again) < 10000, "what was fetched before a kill is not fetched again")


@test
def a_damaged_replica_gets_its_page_back():
    cluster = Cluster()
    fill(cluster.nodes[0], 500)
    cluster.wait_equal()
    last = cluster.nodes[2]
    wait_for(lambda: wal_is_empty(last.path()), "node 3 has copied its WAL into the database file")
    last.stop()
    with open(last.path(), "r+b") as file:
        file.seek(4096 * 100 + 1000)
        file.write(b"damage")
    last.start()
    wait_for(lambda: "mended by the pages of other members" in last.log(), "node 3 has mended its database")
    equal(last.status()["store"]["catchup"]["pages_fetched"], 1, "pages fetched")
    connection = connect(last.path(), busy_ms=20000)
    connection.execute("UPDATE t SET b = 'mended' WHERE id = 1")
    connection.close()
    cluster.wait_equal()


@test
def one_that_is_damaged_elsewhere_keeps_no_other_waiting():
    """Two of three have a damaged database; the third, which lacks the log, gets the other one, and then mends theirs."""
    cluster = Cluster(3, *COMPACTS)
    leader, last = cluster.nodes[0], cluster.nodes[2]
    fill(leader, 800)
    fill(leader, 300, "bad.db")
    cluster.wait_equal()
    cluster.wait_equal("bad.db")
    last.stop()
    for node in cluster.others(last):
        wait_for(lambda path=node.path("bad.db"): wal_is_empty(path), "bad.db is in its file")
        with open(node.path("bad.db"), "r+b") as file:
            file.seek(4096 * 100 + 1000)
            file.write(b"damage")
    for node in cluster.others(last):
        wait_for(lambda node=node: "quarantined" in node.log(), f"node {node.name} has noticed")
    push_out(cluster, leader)
    last.start()
    wait_for(lambda: caught_up(last), "node 3 caught up by pages")
    cluster.wait_equal()
    cluster.wait_equal("bad.db", 60)


if __name__ == "__main__":
    main()
