"""Replicas that are whole by themselves, and not the same: a majority decides, and mends the one that is wrong, page by page."""

import pathlib
import re

from cluster import Cluster, database, in_file
from harness import check, connect, equal, main, test, value, wait_for

PAGE = 4096
MENDED = "mended by the pages of other members"
NOT_DECIDED = "no majority holds the same"


def filled():
    """Three nodes that compare only when it is the first that leads, with a database of some 30 pages."""
    cluster = Cluster(start=False)
    cluster.nodes[0].flags += ["-compare-int", "300ms"]
    for node in cluster.nodes[1:]:
        node.flags += ["-compare-int", "0"]
    for node in cluster.nodes:
        node.start()
    connection = connect(cluster.nodes[0].path(), busy_ms=20000)
    connection.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, text)")
    connection.execute("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000) "
                       "INSERT INTO t SELECT n, printf('%030d', n) FROM c")
    connection.close()
    cluster.wait_equal()
    for node in cluster.nodes:
        wait_for(lambda node=node: in_file(node), f"node {node.name} has copied its WAL into the database file")
    return cluster


def falsify(node, page, byte=b"x", offset=PAGE // 2):
    """While it is down; and it will not know what it has written there."""
    with node.path().open("r+b") as file:
        file.seek((page - 1) * PAGE + offset)
        file.write(byte)
    for file in node.path("raft/hashes").iterdir():
        file.unlink()


def writes_go_on(cluster):
    connection = connect(cluster.nodes[1].path(), busy_ms=20000)
    connection.execute("INSERT INTO t(text) VALUES('and on')")
    connection.close()


def mended(node):
    wait_for(lambda: MENDED in node.log(), f"node {node.name} has mended its database")
    wait_for(lambda: database(node)["state"] == "live", f"node {node.name} serves it again")


@test
def one_of_three_is_wrong():
    cluster = filled()
    last = cluster.nodes[2]
    last.stop()
    falsify(last, 9)
    falsify(last, 12)
    last.start()
    writes_go_on(cluster)
    mended(last)
    check("what a majority of the hosts holds" in last.log(), f"the log does not say why:\n{last.log()}")
    pages = set(re.search(r"first=([0-9,]+)", last.log()).group(1).split(","))  # and what was committed meanwhile
    check({"9", "12"} <= pages and len(pages) < 8, f"pages that came back: {pages}")
    store = last.status()["store"]
    equal((store["compare"]["pages_wrong"], store["catchup"]["repairs"], store["catchup"]["pages_fetched"]), (2, 1, len(pages)))
    for node in cluster.nodes[:2]:
        check(MENDED not in node.log(), f"node {node.name} was right")
    writes_go_on(cluster)
    cluster.wait_equal()


@test
def the_leader_is_wrong():
    cluster = filled()
    first = cluster.nodes[0]
    first.stop()
    falsify(first, 7)
    first.start()
    first.lead()
    mended(first)
    check(first.leads(), "it does not lead any more")
    writes_go_on(cluster)
    cluster.wait_equal()


@test
def no_majority_no_change():
    cluster = filled()
    second, third = cluster.nodes[1:]
    for node, byte in ((second, b"y"), (third, b"z")):
        node.kill()  # both: as long as one is right there is a majority
    for node, byte in ((second, b"y"), (third, b"z")):
        falsify(node, 9, byte)
        node.launch()
    second.wait_ready()
    third.wait_ready()
    cluster.nodes[0].lead()
    for node in cluster.nodes:
        wait_for(lambda node=node: NOT_DECIDED in node.log(), f"node {node.name} says so")
        equal(database(node)["state"], "live", f"state on node {node.name}")
        check(node.status()["store"]["compare"]["pages_undecided"] > 0, "the status does not say so")
        check(MENDED not in node.log() and "quarantined" not in node.log(), f"node {node.name} has changed something")
        value(connect(node.path()), "SELECT n FROM t LIMIT 1")


@test
def what_had_the_name_of_a_database_is_kept_and_named():
    cluster = Cluster(2)
    connection = connect(cluster.nodes[0].path(), busy_ms=20000)
    connection.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, text)")
    connection.execute("INSERT INTO t(text) VALUES('right')")
    connection.close()
    third = cluster.add(3, "-join", cluster.nodes[0].raft)
    mine = b"somebody's notes, no database at all\n" * 1000
    third.path().write_bytes(mine)
    third.start()
    wait_for(lambda: "in the trash" in third.log(), "the log says where it is")
    kept = re.search(r'file="([^"]*)"', third.log()).group(1)
    equal(pathlib.Path(kept).read_bytes(), mine, "what it was")
    wait_for(lambda: database(third)["state"] == "live", "the database is there")
    cluster.wait_equal()


if __name__ == "__main__":
    main()
