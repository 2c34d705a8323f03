"""What raftd does by itself: the log stays small, the WAL is emptied, files become complete, descriptors do not run out."""

import os
import shutil
import sqlite3
import time

from harness import (CORRUPT_QUARANTINED, Raftd, check, connect, connect_stock, equal, fails, main, python, shell_stock, temporary, test, value,
                     wait_for)

MEBIBYTE = 1 << 20


def size_of(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def fill(connection, mebibytes):
    """Many commits, each of one mebibyte that nothing can make smaller, over the same pages."""
    for _ in range(mebibytes):
        connection.execute("UPDATE t SET x = randomblob(1048576)")


@test
def the_log_stays_small_however_long_a_reader_stays():
    raftd = Raftd()
    writer = connect(raftd.path())
    writer.execute("CREATE TABLE t(x)")
    writer.execute("INSERT INTO t VALUES(zeroblob(1048576))")
    reader = connect_stock(raftd.path())
    reader.execute("BEGIN")
    equal(value(reader, "SELECT length(x) FROM t"), MEBIBYTE)
    largest = 0
    for _ in range(20):
        fill(writer, 20)
        largest = max(largest, size_of(raftd.path("raft") / "log"))
    check(largest < 256 * MEBIBYTE, f"the log took {largest / MEBIBYTE:.0f} MB")
    grown = raftd.path("app.db-wal").stat().st_size
    check(grown > 300 * MEBIBYTE, f"the WAL has {grown / MEBIBYTE:.0f} MB beside an open reader: what did it read?")
    equal(value(reader, "SELECT x = zeroblob(1048576) FROM t"), 1, "what the old snapshot reads")
    reader.execute("COMMIT")
    wait_for(lambda: raftd.path("app.db-wal").stat().st_size < 32 * MEBIBYTE, "the WAL shrinks when the reader is gone")
    check(size_of(raftd.path("raft")) < 256 * MEBIBYTE, "raft/ as a whole")
    raftd.kill()
    raftd.start()
    equal(shell_stock(raftd.path(), "SELECT length(x) FROM t; PRAGMA integrity_check;"), f"{MEBIBYTE}\nok")


@test
def a_quarantined_database_does_not_hold_the_log():
    raftd = Raftd()
    for name in ("app.db", "other.db"):
        connection = connect(raftd.path(name))
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES(zeroblob(1048576))")
        connection.close()
    raftd.kill()
    with raftd.path().open("r+b") as file:
        file.write(b"scribble")
    raftd.start()
    writer = connect(raftd.path("other.db"))
    fill(writer, 300)
    log = size_of(raftd.path("raft") / "log")
    check(log < 256 * MEBIBYTE, f"the log took {log / MEBIBYTE:.0f} MB")
    writer.close()
    for _ in range(2):
        raftd.kill()
        raftd.start()
        databases = raftd.status()["store"]["databases"]
        equal(databases["app.db"]["state"], "quarantined")
        check("cannot be opened as a replica" in databases["app.db"]["message"], databases["app.db"]["message"])
        with fails(CORRUPT_QUARANTINED):
            value(connect(raftd.path()), "SELECT count(*) FROM t")
        equal(databases["other.db"]["version"], 302)
        equal(shell_stock(raftd.path("other.db"), "SELECT length(x) FROM t; PRAGMA integrity_check;"), f"{MEBIBYTE}\nok")


@test
def the_wal_is_emptied_beside_a_steady_writer():
    """Readers that come and go do not make it grow."""
    raftd = Raftd()
    writer = connect(raftd.path())
    writer.execute("CREATE TABLE t(x)")
    writer.execute("INSERT INTO t VALUES(zeroblob(1048576))")
    reader, stock = connect(raftd.path()), connect_stock(raftd.path())
    for _ in range(100):
        fill(writer, 1)
        equal(value(reader, "SELECT length(x) FROM t"), MEBIBYTE)
        equal(value(stock, "SELECT length(x) FROM t"), MEBIBYTE)
    check(raftd.path("app.db-wal").stat().st_size < 64 * MEBIBYTE,
          f"-wal has {raftd.path('app.db-wal').stat().st_size / MEBIBYTE:.0f} MB")


@test
def a_copy_of_the_file_is_whole_soon_after_the_last_close():
    raftd = Raftd()
    for round in range(1, 6):
        connection = connect(raftd.path())
        connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
        connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
                           "INSERT INTO t SELECT randomblob(500) FROM n")
        connection.close()

        def whole():
            copy = temporary("copy")
            shutil.copy(raftd.path(), copy)
            try:
                with sqlite3.connect(copy) as native:
                    return (value(native, "SELECT count(*) FROM t"), value(native, "PRAGMA integrity_check")) == (1000 * round, "ok")
            except sqlite3.Error:
                return False

        wait_for(whole, "a copy of the file is the whole database")


@test
def a_stock_connection_from_before_the_first_commit_does_no_harm():
    """To it the database is an empty file, and SQLite deletes a -wal that it finds beside one."""
    raftd = Raftd()
    wal = raftd.path("app.db-wal")
    stale = connect_stock(raftd.path())
    equal(value(stale, "SELECT count(*) FROM sqlite_master"), 0)
    writer = connect(raftd.path())
    writer.execute("CREATE TABLE t(x)")
    writer.execute("INSERT INTO t VALUES(1)")
    check(wal.exists(), "there is no WAL")
    value(stale, "SELECT count(*) FROM sqlite_master")
    writer.execute("INSERT INTO t VALUES(2)")
    wait_for(wal.exists, "the WAL that was deleted is there again")
    equal(shell_stock(raftd.path(), "SELECT count(*) FROM t;"), "2")
    writer.execute("INSERT INTO t VALUES(3)")
    equal(value(connect(raftd.path()), "SELECT count(*) FROM t"), 3)
    raftd.kill()
    raftd.start()
    equal(value(connect(raftd.path()), "SELECT count(*) FROM t"), 3)


def descriptors(raftd):
    return len(os.listdir(f"/proc/{raftd.process.pid}/fd"))


@test
def two_hundred_databases():
    raftd = Raftd()
    at_first = descriptors(raftd)
    connections = []
    for number in range(200):
        connection = connect(raftd.path(f"db{number}.sqlite"))
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES(?)", (number,))
        connections.append(connection)
    busy = descriptors(raftd)
    for number, connection in enumerate(connections):
        connection.execute("INSERT INTO t VALUES(?)", (number,))
        equal(value(connection, "SELECT sum(x) FROM t"), 2 * number)
    for connection in connections:
        connection.close()
    wait_for(lambda: descriptors(raftd) <= busy - 200, "the descriptors of 200 connections are given back")
    idle = descriptors(raftd)
    for _ in range(3):
        for number in range(0, 200, 10):
            connection = connect(raftd.path(f"db{number}.sqlite"))
            connection.execute("INSERT INTO t VALUES(0)")
            connection.close()
    wait_for(lambda: descriptors(raftd) <= idle, "use and disuse leave nothing behind")
    for number in range(0, 200, 2):
        equal(raftd.request("DELETE", f"/db?db=db{number}.sqlite")[0], 200)
    half = at_first + (idle - at_first) // 2
    wait_for(lambda: descriptors(raftd) <= half + 10, "dropped databases give all their descriptors back")
    raftd.kill()
    raftd.start()
    equal(len(raftd.status()["store"]["databases"]), 100)
    equal(shell_stock(raftd.path("db199.sqlite"), "SELECT sum(x) FROM t;"), "398")


@test
def a_thousand_connections_that_come_and_go():
    raftd = Raftd()
    connect(raftd.path()).execute("CREATE TABLE t(x)")
    at_first = descriptors(raftd)
    for number in range(1000):
        connection = connect(raftd.path())
        if number % 10 == 0:
            connection.execute("INSERT INTO t VALUES(1)")
        connection.close()
    # raftd opens a few of its own meanwhile: the next segment of the log, the page hashes.
    wait_for(lambda: descriptors(raftd) < at_first + 20, "nothing is left of them")


HOLD = """
import os, sys
from harness import connect
connection = connect(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
connection.execute("INSERT INTO t VALUES('lost')")
print("held", flush=True)
sys.stdin.read()
"""


@test
def the_turn_of_a_killed_process_is_free_at_once():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    waits = []
    for _ in range(10):
        holder = python(HOLD, raftd.path(), stdin=-1)
        equal(holder.stdout.readline(), "held\n")
        began = time.monotonic()
        holder.kill()
        connection.execute("INSERT INTO t VALUES('kept')")
        waits.append(time.monotonic() - began)
        holder.wait()
    equal(value(connection, "SELECT count(*) FROM t"), 10)
    print(f"NOTE waits: {[round(wait * 1000) for wait in sorted(waits)]} ms")


main()
