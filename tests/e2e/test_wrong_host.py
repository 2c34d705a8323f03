"""A replica that is wrong, and whole by its own records, on the host that writes: its transactions are made on pages that nobody else
has.  They are committed, the others go on serving what is right, and the wrong one is found and mended."""

from cluster import Cluster, database, in_file
from harness import check, connect, connect_stock, equal, main, test, wait_for

FENCED = "database quarantined"
MENDED = "mended by the pages of other members"
DISPUTED = "a transaction was made on another page than the one here"


def filled():
    """Three nodes that compare only when one of them is in doubt, with a database of some 20 pages."""
    cluster = Cluster(3, "-compare-int", "0")
    connection = connect(cluster.nodes[0].path(), busy_ms=20000)
    connection.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, text)")
    connection.execute("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000) "
                       "INSERT INTO t SELECT n, printf('row %08d .....................', n) FROM c")
    connection.close()
    cluster.wait_equal()
    return cluster


def falsify(node, *rows):
    """And it will not know what it has written there."""
    wait_for(lambda: in_file(node), f"node {node.name} has copied its WAL into the database file")
    node.stop()
    content = node.path().read_bytes()
    with node.path().open("r+b") as file:
        for row in rows:
            file.seek(content.index(b"row %08d" % row))
            file.write(b"BAD")
    for file in node.path("raft/hashes").iterdir():
        file.unlink()
    node.start()


def write(node, row):
    connection = connect(node.path(), busy_ms=20000)
    connection.execute(f"UPDATE t SET text = 'new {row:08d} .....................' WHERE n = {row}")
    connection.close()


def shows(node, *texts):
    connection = connect_stock(node.path())
    for text in texts:
        row = connection.execute("SELECT text FROM t WHERE n = ?", (int(text.split()[1]),)).fetchone()
        equal(row[0][:12], text, f"on node {node.name}")
    connection.close()


def mended(wrong, cluster, times):
    """So often in all; and nobody else was ever fenced."""
    wait_for(lambda: wrong.log().count(MENDED) == times, f"node {wrong.name} has mended its database")
    wait_for(lambda: database(wrong)["state"] == "live", f"node {wrong.name} serves it again")
    cluster.wait_equal()
    for node in cluster.others(wrong):
        check(FENCED not in node.log(), f"node {node.name} was right, and was fenced:\n{node.log()}")


@test
def the_others_go_on_and_it_is_mended():
    cluster = filled()
    first, second, third = cluster.nodes
    falsify(first, 1001, 301)  # the second one is on a page that no transaction will tell of
    first.lead()
    shows(first, "BAD 00001001", "BAD 00000301")
    write(first, 1010)
    mended(first, cluster, 1)
    for node in (second, third):
        check(DISPUTED in node.log(), f"node {node.name} was not in doubt:\n{node.log()}")
        shows(node, "row 00001001", "new 00001010", "row 00000301")
    # When a node is away there is no majority: both go on until it is back.
    falsify(first, 1001)
    third.stop()
    write(first, 1011)
    wait_for(lambda: second.log().count(DISPUTED) == 2, "node 2 is in doubt")
    write(second, 1012)
    wait_for(lambda: "no majority holds the same" in second.log(), "nobody can decide")
    third.start()
    mended(first, cluster, 2)
    shows(first, "row 00001001", "new 00001011", "new 00001012")


if __name__ == "__main__":
    main()
