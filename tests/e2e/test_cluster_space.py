"""A host of three has no space left: the others go on, it says so, and catches up by itself when there is space again."""

import sqlite3

from cluster import Cluster, wait_reads
from harness import check, connect, equal, fails, fill, main, small_file_system, test, wait_for

ROW = "INSERT INTO t VALUES(randomblob(300000))"


def on_small_disk(number, *flags):
    """Three nodes, that one on a file system of 250 MB."""
    directory = small_file_system(250)
    cluster = Cluster(3, *flags, start=False)
    small = cluster.nodes[number - 1]
    small.directory = directory / "node"
    small.directory.mkdir()
    for node in cluster.nodes:
        node.start()
    connection = connect(cluster.nodes[0].path())
    connection.execute("CREATE TABLE t(x)")
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM t", 0)
    return cluster, small, directory / "filler"


def others_go_on_and_it_comes_back(cluster, small, filler, rows):
    other = cluster.others(small)[-1]
    fill(filler, 1 << 20)
    connection = connect(other.path(), busy_ms=20000)
    for _ in range(rows):
        connection.execute(ROW)
    wait_reads(cluster.others(small)[0], "SELECT count(*) FROM t", rows)
    wait_for(lambda: "no space" in small.log(), "it says that it has no space")
    check(small.alive(), "it has ended")
    mine = connect(small.path(), busy_ms=20000)  # who asks before it is known that there is no space is BUSY until it is
    check(mine.execute("SELECT count(*) FROM t").fetchone()[0] < rows, "it has more space than this test thinks")
    for _ in range(3):
        with fails(sqlite3.SQLITE_FULL):
            mine.execute(ROW)
    filler.unlink()
    wait_reads(small, "SELECT count(*) FROM t", rows)
    connect(small.path(), busy_ms=20000).execute(ROW)
    cluster.wait_equal()


@test
def a_follower_without_space():
    cluster, small, filler = on_small_disk(3)
    others_go_on_and_it_comes_back(cluster, small, filler, 60)


@test
def a_leader_without_space_lets_another_one_lead():
    cluster, small, filler = on_small_disk(1)
    equal(cluster.leader(), small, "the node that leads")
    others_go_on_and_it_comes_back(cluster, small, filler, 150)  # more than its log has room for
    check("another node is asked to lead" in small.log(), "it went on to lead without space")  # now that it has some, it may again


if __name__ == "__main__":
    main()
