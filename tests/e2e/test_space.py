"""No space, or no larger file allowed: SQLITE_FULL, nothing half done, reads go on, and writing resumes by itself."""

import os
import resource
import sqlite3
import threading

from harness import (BUILD, MEBIBYTE, Raftd, check, connect, equal, fails, fill, finish, main, python, shell_stock, small_file_system, temporary, test, value,
                     wait_for)

def write_until_full(connection, bytes_each=20000):
    """Rows that were acknowledged before SQLITE_FULL."""
    for written in range(100000):
        try:
            connection.execute("INSERT INTO t VALUES(randomblob(?))", (bytes_each,))
        except sqlite3.Error as error:
            equal(error.sqlite_errorcode & 255, sqlite3.SQLITE_FULL, f"code of {error}")
            return written
    raise AssertionError("never full")


@test
def a_full_disk_is_sqlite_full_and_mends_itself():
    directory = small_file_system(400)
    raftd = Raftd(directory / "node")
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    connection.execute("INSERT INTO t VALUES('first')")
    filler = directory / "filler"
    fill(filler, 256 << 10)
    written = write_until_full(connection)
    equal(value(connection, "SELECT count(*) FROM t"), written + 1, "rows: all that were acknowledged, nothing of the refused one")
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check;"), "ok")
    with fails(sqlite3.SQLITE_FULL):
        connection.execute("INSERT INTO t VALUES(randomblob(1000000))")
    check(raftd.process.poll() is None, "raftd ended because the disk was full")
    filler.unlink()

    def resumes():
        try:
            connection.execute("INSERT INTO t VALUES('last')")
            return True
        except sqlite3.OperationalError:
            return False

    wait_for(resumes, "writing resumes after space is back")
    equal(value(connection, "SELECT count(*) FROM t"), written + 2, "rows")
    raftd.kill()
    raftd.start()
    equal(value(connection, "SELECT count(*) FROM t"), written + 2, "rows after a restart")


@test
def several_writers_recover_from_a_full_disk():
    directory = small_file_system(400)
    raftd = Raftd(directory / "node")
    connections = [connect(raftd.path(), busy_ms=60000) for _ in range(5)]
    connections[0].execute("CREATE TABLE t(x)")
    filler = directory / "filler"
    fill(filler, 256 << 10)
    for connection in connections:
        write_until_full(connection)
    filler.unlink()
    for connection in connections:

        def resumes():
            try:
                connection.execute("INSERT INTO t VALUES('back')")
                return True
            except sqlite3.OperationalError:
                return False

        wait_for(resumes, "each writer goes on")
    equal(value(connections[0], "SELECT count(*) FROM t WHERE x = 'back'"), 5, "rows after space was back")
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check;"), "ok")


@test
def a_full_disk_survives_a_restart():
    directory = small_file_system(400)
    raftd = Raftd(directory / "node")
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    filler = directory / "filler"
    fill(filler, 256 << 10)
    written = write_until_full(connection)
    raftd.kill()
    filler.unlink()
    raftd.start()
    equal(value(connection, "SELECT count(*) FROM t"), written, "rows after kill -9 on a full disk")
    connection.execute("INSERT INTO t VALUES('last')")


@test
def a_file_size_limit_is_sqlite_full():
    raftd = Raftd(start=False)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (80 * MEBIBYTE, 80 * MEBIBYTE))

    raftd.start(preexec_fn=limit)
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    connection.execute("BEGIN")
    for _ in range(100):
        connection.execute("INSERT INTO t VALUES(randomblob(1000000))")
    with fails(sqlite3.SQLITE_FULL):
        connection.execute("COMMIT")
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    equal(value(connection, "SELECT count(*) FROM t"), 0, "rows of the refused transaction")
    connection.execute("INSERT INTO t VALUES(1)")
    check(raftd.process.poll() is None, "raftd ended at its file size limit")


@test
def a_new_database_needs_space_too():
    """Neither a file nor a name that cannot be used stays behind a first commit that did not fit."""
    directory = small_file_system(200)
    raftd = Raftd(directory / "node")
    connection = connect(raftd.path())
    filler = directory / "filler"
    fill(filler, 8 << 10)
    with fails(sqlite3.SQLITE_FULL):
        connection.execute("CREATE TABLE t(x)")
    check(not raftd.path().exists(), "half a database was left")
    filler.unlink()
    wait_for(lambda: succeeds(connection, "CREATE TABLE t(x)"), "the first commit is taken when space is back")
    connection.execute("INSERT INTO t VALUES(1)")
    equal(shell_stock(raftd.path(), "SELECT count(*) FROM t; PRAGMA integrity_check;"), "1\nok")


def succeeds(connection, statement):
    try:
        connection.execute(statement)
        return True
    except sqlite3.OperationalError as error:
        equal(error.sqlite_errorcode & 255, sqlite3.SQLITE_FULL, f"code of {error}")
        return False


@test
def an_application_without_space_for_its_own_temporary_file():
    """What does not fit into memory goes into a file of the application's: lack of space there is its own SQLITE_FULL."""
    directory = small_file_system(2)
    raftd = Raftd()
    program = """
import sqlite3, sys
from harness import connect
connection = connect(sys.argv[1])
connection.execute("CREATE TABLE t(x)")
connection.execute("PRAGMA cache_size=10")
connection.execute("BEGIN")
try:
    for _ in range(100):
        connection.execute("INSERT INTO t VALUES(randomblob(1000000))")
    connection.execute("COMMIT")
    print("committed")
except sqlite3.OperationalError as error:
    print(error.sqlite_errorname.split("_")[1])
if connection.in_transaction:
    connection.execute("ROLLBACK")
connection.execute("INSERT INTO t VALUES('small')")
print(connection.execute("SELECT count(*) FROM t").fetchone()[0])
"""
    output = finish(python(program, raftd.path(), env={"SQLITE_TMPDIR": str(directory), "TMPDIR": str(directory)}))
    check(output.split() in (["FULL", "1"], ["IOERR", "1"]), f"it printed {output}")
    equal(shell_stock(raftd.path(), "SELECT count(*) FROM t; PRAGMA integrity_check;"), "1\nok")


# --- a disk that breaks ---------------------------------------------------------------------------------------------------------


def broken_disk(what, part):
    """A call fails that may not: raftd ends at once, acknowledges nothing more, and a restart is right."""
    raftd = Raftd(start=False)
    flag = temporary("flag")
    raftd.start(env={**os.environ, "LD_PRELOAD": str(BUILD / "tests" / "support" / "libfailing_disk.so"), "RQ_FAIL_FLAG": str(flag),
                     "RQ_FAIL_PATH": part})
    connection = connect(raftd.path(), busy_ms=60000)
    connection.execute("CREATE TABLE t(x)")
    for number in range(20):
        connection.execute("INSERT INTO t VALUES(?)", (number,))
    flag.write_text(what)
    outcome = []

    def write():
        try:
            connection.execute("INSERT INTO t VALUES(20)")  # waits for the next raftd, and is told the truth
            outcome.append("committed")
        except sqlite3.Error as error:
            outcome.append(error.sqlite_errorname)

    writer = threading.Thread(target=write)
    writer.start()
    check(raftd.exit_code() != 0, "raftd ended as if nothing had happened")
    check("level=error" in raftd.log(), "it does not say why")
    equal(value(connect(raftd.path()), "SELECT count(*) FROM t") in (20, 21), True, "reads go on")
    flag.unlink()
    raftd.start()
    writer.join()
    equal(outcome, ["committed"], "what the writer was told")
    equal([row[0] for row in connection.execute("SELECT x FROM t")], list(range(21)))
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check;"), "ok")


@test
def a_log_that_cannot_be_written():
    """Its writes are synced by themselves (O_DSYNC), so this is a failed sync, too."""
    broken_disk("write", "/raft/log/")


@test
def a_replica_that_cannot_be_written():
    broken_disk("write", "app.db-wal")


@test
def a_replica_that_cannot_be_synced():
    broken_disk("sync", "app.db")


main()
