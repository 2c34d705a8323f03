"""No space, or no larger file allowed: SQLITE_FULL, nothing half done, reads go on, and writing resumes by itself."""

import os
import resource
import sqlite3
import subprocess

from harness import Raftd, Skip, check, connect, equal, fails, main, shell_stock, temporary, test, value, wait_for

MEBIBYTE = 1 << 20


def small_file_system(mebibytes):
    directory = temporary("small")
    directory.mkdir()
    if os.geteuid() != 0:
        raise Skip("mounting a small file system needs root")
    result = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", directory], capture_output=True, text=True)
    if result.returncode != 0:
        raise Skip(f"cannot mount here: {result.stderr.strip()}")
    return directory


def fill(path, leave):
    """Takes all space of the file system but leave bytes."""
    with path.open("ab") as file:
        while True:
            free = os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize
            if free <= leave:
                return
            try:
                file.write(b"\0" * min(MEBIBYTE, free - leave))
                file.flush()
            except OSError:
                return


def write_until_full(connection, bytes_each=20000):
    """Rows that were acknowledged before SQLITE_FULL."""
    for written in range(100000):
        try:
            connection.execute("INSERT INTO t VALUES(randomblob(?))", (bytes_each,))
        except sqlite3.Error as error:
            equal(error.sqlite_errorcode & 255, sqlite3.SQLITE_FULL, f"code of {error}")
            return written
    raise AssertionError("never full")


@test(seconds=120)
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

    wait_for(resumes, "writing resumes after space is back", 15)
    equal(value(connection, "SELECT count(*) FROM t"), written + 2, "rows")
    raftd.kill()
    raftd.start()
    equal(value(connection, "SELECT count(*) FROM t"), written + 2, "rows after a restart")


@test(seconds=120)
def several_writers_recover_from_a_full_disk():
    directory = small_file_system(400)
    raftd = Raftd(directory / "node")
    connections = [connect(raftd.path(), busy_ms=10000) for _ in range(5)]
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

        wait_for(resumes, "each writer goes on", 15)
    equal(value(connections[0], "SELECT count(*) FROM t WHERE x = 'back'"), 5, "rows after space was back")
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check;"), "ok")


@test(seconds=120)
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


@test(seconds=120)
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


main()
