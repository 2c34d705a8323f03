"""A page of a database file that was changed behind raftd's back: found by the scrub, or by who builds on it; and no false alarm."""

import json
import os

from harness import (CORRUPT_QUARANTINED, Raftd, check, connect, equal, fails, main, shell_stock, test, value, wait_for)

PAGE = 4096


def served(*flags, rows=2000):
    """A database of some 20 pages, all in its file."""
    raftd = Raftd(None, "-raft-log-level", "DEBUG", *flags)
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, text)")
    connection.execute("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?) "
                       "INSERT INTO t SELECT n, printf('%030d', n) FROM c", (rows,))
    settled(raftd)
    return raftd, connection


def settled(raftd):
    """Everything is in the database file, and the WAL has begun anew."""
    def complete():
        pages = raftd.status()["store"]["databases"]["app.db"]
        return raftd.path().stat().st_size == pages["page_count"] * pages["page_size"] and wal_empty(raftd)

    wait_for(complete, "the database file is complete")


def wal_empty(raftd):
    """By the checksums alone: the salts of the first frame are not those of the header."""
    content = raftd.path("app.db-wal").read_bytes()[:32 + 24]
    return len(content) < 56 or content[16:24] != content[40:48]


def flip(path, page, offset=PAGE // 2, *, time_stays=False):
    before = path.stat()
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE + offset)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    if time_stays:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def passes(raftd):
    return raftd.log().count('msg="scrub complete"')


def wait_pass(raftd):
    """One pass from its beginning to its end."""
    before = passes(raftd)
    wait_for(lambda: passes(raftd) >= before + 2, "the scrub has seen every page")


def database(raftd):
    return raftd.status()["store"]["databases"]["app.db"]


def refused(raftd, page):
    wait_for(lambda: database(raftd)["state"] == "quarantined", "the database is quarantined")
    words = f"page {page} was changed"
    for statement in ("SELECT count(*) FROM t", "INSERT INTO t(text) VALUES('x')"):
        with fails(CORRUPT_QUARANTINED):
            connect(raftd.path(), busy_ms=100).execute(statement).fetchall()
    check(words in database(raftd)["message"], f"/status does not name the page: {database(raftd)}")
    listed = json.loads(raftd.get("/db")[1])
    check(words in json.dumps(listed), f"GET /db does not name the page: {listed}")
    check(words in raftd.log(), "the log does not name the page")


@test
def cold_page_changed_while_raftd_was_down():
    raftd, connection = served("-scrub-int", "300ms")
    connect(raftd.path("other.db")).execute("CREATE TABLE u(x)")
    wait_pass(raftd)
    connection.close()
    raftd.stop()
    flip(raftd.path(), 9)
    raftd.start()
    refused(raftd, 9)
    equal(value(connect(raftd.path("other.db")), "SELECT count(*) FROM u"), 0, "other databases are served")
    raftd.kill()
    raftd.start()  # it is not served until the scrub comes round again
    refused(raftd, 9)
    raftd.stop()
    flip(raftd.path(), 9)
    raftd.start()
    connection = connect(raftd.path())
    connection.execute("INSERT INTO t(text) VALUES('right again')")
    equal(value(connection, "SELECT count(*) FROM t"), 2001, "rows when the byte is back")
    wait_pass(raftd)
    equal(database(raftd)["state"], "live", "state when the byte is back")


@test
def cold_page_changed_while_raftd_runs():
    raftd, _ = served("-scrub-int", "300ms")
    wait_pass(raftd)
    flip(raftd.path(), 12, time_stays=True)
    refused(raftd, 12)


@test
def status_function_names_the_page():
    raftd, connection = served("-scrub-int", "300ms")
    wait_pass(raftd)
    connection.execute("BEGIN")  # what it has begun to read it may finish, and ask
    value(connection, "SELECT count(*) FROM t")
    flip(raftd.path(), 5, time_stays=True)
    refused(raftd, 5)
    row = connection.execute("SELECT * FROM rqvfs_status").fetchone()
    check("page 5 was changed" in repr(row), f"rqvfs_status: {row}")


@test
def hot_page_is_found_by_the_write_that_builds_on_it():
    raftd, connection = served("-scrub-int", "0", rows=10)
    connection.execute("UPDATE t SET text = 'x' WHERE n = 1")
    settled(raftd)
    flip(raftd.path(), 2, time_stays=True)  # the table's only page, where nothing is
    with fails(CORRUPT_QUARANTINED):
        connection.execute("UPDATE t SET text = 'y' WHERE n = 1")
    refused(raftd, 2)
    raftd.stop()
    flip(raftd.path(), 2)
    raftd.start()
    equal(value(connect(raftd.path()), "SELECT text FROM t WHERE n = 1"), "x", "what was committed before")


@test
def stock_checkpoint_while_raftd_is_down_is_no_change():
    raftd, connection = served("-scrub-int", "300ms")
    wait_pass(raftd)
    reader = connect(raftd.path())
    reader.execute("BEGIN")
    value(reader, "SELECT count(*) FROM t")  # so that the WAL is not back-filled
    connection.execute("UPDATE t SET text = 'y' || text")
    raftd.kill()
    reader.close()
    connection.close()
    equal(shell_stock(raftd.path(), "SELECT count(*) FROM t WHERE text LIKE 'y%';"), "2000", "rows a stock tool sees")
    check(not raftd.path("app.db-wal").exists(), "the stock tool was not the last to close")
    raftd.start()
    wait_pass(raftd)
    equal(database(raftd)["state"], "live", "state after a stock checkpoint")
    equal(value(connect(raftd.path()), "SELECT count(*) FROM t WHERE text LIKE 'y%'"), 2000, "rows")


@test
def lost_hashes_are_learned_again():
    raftd, connection = served("-scrub-int", "300ms")
    wait_pass(raftd)
    connection.close()
    raftd.stop()
    for file in raftd.path("raft/hashes").iterdir():
        file.write_bytes(b"damaged")
    raftd.start()
    check("page hashes begin anew" in raftd.log(), "the log does not say so")
    wait_pass(raftd)
    equal(database(raftd)["state"], "live", "state without hashes")
    raftd.stop()
    flip(raftd.path(), 7)
    raftd.start()
    refused(raftd, 7)


main()
