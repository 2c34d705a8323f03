"""SQLite files that are there when a node is first started become its databases; files that come later do not."""

import os
import shutil
import signal
import sqlite3

from harness import (Raftd, check, connect, connect_stock, equal, fails, main, python, shell_rqvfs, shell_stock, temporary, test,
                     value)


def native(path, *statements):
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    return connection


FILL = "INSERT INTO t SELECT value, 'row ' || value FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value+1 FROM n" \
       " WHERE value<300) SELECT value FROM n)"


@test
def every_journal_mode_and_page_size():
    directory = temporary("node")
    directory.mkdir()
    names = []
    for mode in ("delete", "truncate", "persist", "memory", "off", "wal"):
        for size in (512, 4096, 65536):
            name = f"{mode}{size}.db"
            native(directory / name, f"PRAGMA page_size={size}", f"PRAGMA journal_mode={mode}", "CREATE TABLE t(a, b)", FILL).close()
            names.append(name)
    raftd = Raftd(directory)
    for name in names:
        connection = connect(raftd.path(name))
        equal(value(connection, "SELECT sum(a) FROM t"), 45150, f"sum in {name}")
        connection.execute("DELETE FROM t WHERE a > 100")
        equal(shell_stock(raftd.path(name), "SELECT sum(a) FROM t; PRAGMA integrity_check;"), "5050\nok", name)
        with fails(sqlite3.SQLITE_READONLY):
            connect_stock(raftd.path(name)).execute("INSERT INTO t VALUES(0, 'stock')")


LEAVE_JOURNAL = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=" + sys.argv[2])
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.execute("PRAGMA cache_size=2")
connection.execute("INSERT INTO t SELECT a + 1000, b FROM t")
connection.execute("BEGIN")
connection.execute("UPDATE t SET b = hex(randomblob(400))")
print("open", flush=True)
sys.stdin.read()
"""


@test
def hot_journal_and_unfinished_wal_are_recovered():
    directory = temporary("node")
    directory.mkdir()
    for mode in ("delete", "wal"):
        path = directory / f"{mode}.db"
        native(path, "CREATE TABLE t(a, b)", FILL).close()
        writer = python(LEAVE_JOURNAL, path, mode, stdin=-1)
        equal(writer.stdout.readline(), "open\n")
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        check(os.path.getsize(f"{path}-{'journal' if mode == 'delete' else 'wal'}") > 0, "the test left no journal")
    raftd = Raftd(directory)
    for mode in ("delete", "wal"):
        connection = connect(raftd.path(f"{mode}.db"))
        equal(value(connection, "SELECT count(*) FROM t"), 600, f"rows in {mode}.db: what was committed, no more")
        equal(value(connection, "SELECT count(*) FROM t WHERE b LIKE 'row %'"), 600, "rows as they were committed")
        equal(value(connection, "PRAGMA integrity_check"), "ok")
        with fails(sqlite3.SQLITE_READONLY):
            connect_stock(raftd.path(f"{mode}.db")).execute("DELETE FROM t")


@test
def a_file_that_comes_later_is_left_alone():
    raftd = Raftd()
    connect(raftd.path()).execute("CREATE TABLE t(x)")
    later = raftd.path("later.db")
    native(later, "CREATE TABLE t(x)", "INSERT INTO t VALUES(1)").close()
    before = later.read_bytes()
    raftd.stop()
    raftd.start()
    equal(later.read_bytes() == before, True, "the file is as it was")
    native(later, "INSERT INTO t VALUES(2)").close()
    equal(shell_stock(later, "SELECT sum(x) FROM t;"), "3", "and stays writable")


@test
def other_files_are_left_alone():
    directory = temporary("node")
    directory.mkdir()
    (directory / "notes.txt").write_text("not a database\n")
    (directory / "empty").touch()
    (directory / "sub").mkdir()
    native(directory / "sub" / "inner.db", "CREATE TABLE t(x)").close()
    inner = (directory / "sub" / "inner.db").read_bytes()
    Raftd(directory).stop()
    equal((directory / "notes.txt").read_text(), "not a database\n")
    equal((directory / "empty").read_bytes(), b"")
    equal((directory / "sub" / "inner.db").read_bytes() == inner, True, "the database in a subdirectory is as it was")


@test
def an_adopted_database_survives_a_kill_at_once():
    directory = temporary("node")
    directory.mkdir()
    native(directory / "app.db", "PRAGMA journal_mode=wal", "CREATE TABLE t(a, b)", FILL).close()
    raftd = Raftd(directory)
    equal(shell_rqvfs(raftd.path(), "INSERT INTO t VALUES(1000, 'new'); SELECT count(*) FROM t;"), "301")
    raftd.kill()
    raftd.start()
    equal(shell_rqvfs(raftd.path(), "SELECT count(*) FROM t;"), "301", "rows after the kill")


@test
def a_copy_of_a_replica_is_not_the_replica():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    raftd.stop()
    shutil.copy(raftd.path(), raftd.path("copy.db"))
    raftd.start()
    connection.execute("INSERT INTO t VALUES(1)")
    equal(value(connect(raftd.path()), "SELECT count(*) FROM t"), 1, "the replica goes on")
    equal(shell_stock(raftd.path("copy.db"), "SELECT count(*) FROM t;"), "0", "the copy is left alone")


main()
