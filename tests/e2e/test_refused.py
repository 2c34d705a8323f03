"""What cannot be right is refused with a clear message, and nothing is damaged by trying."""

import contextlib
import ctypes
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import threading
import time

from harness import (CORRUPT_QUARANTINED, Raftd, Skip, check, connect, connect_stock, equal, fails, finish, main, python, shell,
                     shell_stock, temporary, test, value, wait_for)


def served(rows=10, name="app.db"):
    raftd = Raftd()
    connection = connect(raftd.path(name))
    connection.execute("CREATE TABLE t(x)")
    connection.executemany("INSERT INTO t VALUES(?)", [(n,) for n in range(rows)])
    return raftd, connection


# --- stock tools ----------------------------------------------------------------------------------------------------------


def stock_write_is_refused(path):
    for statement in ("INSERT INTO t VALUES(1)", "DELETE FROM t", "CREATE TABLE u(x)", "DROP TABLE t", "VACUUM"):
        with fails(sqlite3.SQLITE_READONLY):
            connect_stock(path).execute(statement)
    result = shell("INSERT INTO t VALUES(1);", database=path)
    check(result.returncode != 0 and "readonly" in result.stderr, f"the stock shell said: {result.stderr}")


@test
def a_stock_write_while_raftd_runs():
    raftd, connection = served()
    stock_write_is_refused(raftd.path())
    equal(value(connection, "SELECT count(*) FROM t"), 10, "rows")


@test
def a_stock_write_while_raftd_is_down():
    raftd, connection = served()
    connection.close()
    raftd.stop()
    stock_write_is_refused(raftd.path())
    raftd.start()
    raftd.kill()
    stock_write_is_refused(raftd.path())
    raftd.start()
    equal(value(connect(raftd.path()), "SELECT count(*) FROM t"), 10, "rows")


@test
def stock_checkpoints_and_journal_mode_change_nothing():
    raftd, connection = served()
    stock = connect_stock(raftd.path())
    for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
        stock.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    with fails(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY):
        stock.execute("PRAGMA journal_mode=delete").fetchall()
    connection.execute("INSERT INTO t VALUES(100)")
    equal(value(stock, "SELECT count(*) FROM t"), 11, "rows a stock reader sees")


# --- two raftds, wrong directories ----------------------------------------------------------------------------------------


def refuses_to_start(raftd, *words):
    raftd.launch()
    code = raftd.exit_code()
    check(code not in (0, -6, -11), f"exit code {code}")
    log = raftd.log()
    for word in words:
        check(word in log, f"the message does not say {word!r}:\n{log}")


@test
def a_second_raftd_on_one_directory():
    raftd, connection = served()
    refuses_to_start(Raftd(raftd.directory, start=False), str(raftd.directory.name))
    connection.execute("INSERT INTO t VALUES(1)")
    equal(value(connection, "SELECT count(*) FROM t"), 11, "the first one goes on")


@test
def a_log_that_is_missing():
    raftd, connection = served()
    connection.close()
    raftd.stop()
    kept = temporary("kept")
    shutil.move(raftd.path("raft"), kept)
    refuses_to_start(Raftd(raftd.directory, start=False), "app.db", f"raftd -refound {raftd.directory}")
    shutil.rmtree(raftd.path("raft"), ignore_errors=True)
    shutil.move(kept, raftd.path("raft"))
    raftd.start()
    equal(value(connect(raftd.path()), "SELECT count(*) FROM t"), 10, "rows when the log is back")


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@test
def a_log_that_is_older_than_its_replicas():
    raftd, connection = served()
    raftd.stop()
    old = temporary("old")
    shutil.copytree(raftd.path("raft"), old)
    raftd.start()
    connection.executemany("INSERT INTO t VALUES(?)", [(n,) for n in range(50)])
    connection.close()
    raftd.stop()
    new = temporary("new")
    shutil.move(raftd.path("raft"), new)
    shutil.copytree(old, raftd.path("raft"))
    found = contents(raftd.directory)
    refuses_to_start(Raftd(raftd.directory, start=False), "app.db", "the log ends at", f"raftd -refound {raftd.directory}")
    check(contents(raftd.directory) == found, "something was written into what was refused")
    shutil.rmtree(raftd.path("raft"))
    shutil.move(new, raftd.path("raft"))
    raftd.start()
    equal(value(connect(raftd.path()), "SELECT count(*) FROM t"), 60, "rows when the log is back")


@test
def another_node_s_log():
    raftd, connection = served()
    other, other_connection = served(3)
    connection.close()
    other_connection.close()
    raftd.stop()
    other.stop()
    kept = temporary("kept")
    shutil.move(raftd.path("raft"), kept)
    shutil.copytree(other.path("raft"), raftd.path("raft"))
    refuses_to_start(Raftd(raftd.directory, "-node-id", other.raft, start=False), "app.db")


# --- what a newer raftd wrote (docs/file-format.md#versions) ---------------------------------------------------------------


def xxh3(data):
    library = ctypes.CDLL("libxxhash.so.0")
    library.XXH3_64bits.restype = ctypes.c_uint64
    return library.XXH3_64bits(bytes(data), ctypes.c_size_t(len(data)))


def newer_text(data):
    body = data[:data.rindex(b"check=")].replace(b"format=1\n", b"format=2\n")
    return body + b"check=%016x\n" % xxh3(body)


def newer_descriptor(data):
    body = data[:6] + b"3" + data[7:-8]
    return body + xxh3(body).to_bytes(8, "big")


def newer_sectors(*offsets):
    def newer(data):
        data = bytearray(data)
        for at in offsets:
            data[at + 8:at + 12] = (2).to_bytes(4, "big")
            data[at + 56:at + 64] = xxh3(data[at:at + 56]).to_bytes(8, "big")
        return bytes(data)

    return newer


@test
def what_a_newer_raftd_wrote():
    raftd = Raftd(None, "-raft-snap", "1", "-raft-snap-int", "100ms")
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    connection.close()
    wait_for(raftd.path("raft/descriptor").exists, "the log was compacted")
    raftd.stop()
    segment = next(path for path in sorted(raftd.path("raft/log").glob("*.seg")) if path.read_bytes()[15] == 1)  # in use, no spare
    for path, newer, words in (
        (raftd.path("raft/node"), newer_text, ("was written by a newer raftd (format 2, this one knows 1)",)),
        (raftd.path("raft/files"), newer_text, ("raft/files was written by a newer raftd",)),
        (raftd.path("raft/descriptor"), newer_descriptor, ("raft/descriptor was written by a newer raftd",)),
        (segment, newer_sectors(0), (segment.name, "byte 0: written by a newer raftd")),
        (raftd.path("raft/meta"), newer_sectors(0, 4096), ("meta: written by a newer raftd",)),
    ):
        kept = path.read_bytes()
        path.write_bytes(newer(kept))
        check(path.read_bytes() != kept and len(path.read_bytes()) == len(kept), f"{path} is as it was")
        found = contents(raftd.directory)
        refuses_to_start(Raftd(raftd.directory, start=False), *words)
        check(contents(raftd.directory) == found, f"with a newer {path}, something was written into what was refused")
        path.write_bytes(kept)
    raftd.start()
    equal(value(connect(raftd.path()), "SELECT count(*) FROM t"), 0, "rows with the files as they were")


# --- files that were changed behind raftd's back ---------------------------------------------------------------------------


@test
def a_replica_that_was_unlinked_is_never_made_anew_in_silence():
    raftd, connection = served()
    connect(raftd.path("other.db")).execute("CREATE TABLE u(x)")
    connection.close()
    raftd.stop()
    for suffix in ("", "-wal", "-shm", "-rqctl"):
        raftd.path("app.db" + suffix).unlink(missing_ok=True)
    raftd.launch()
    raftd.wait_ready()
    with fails(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        value(connect(raftd.path(), busy_ms=100), "SELECT count(*) FROM sqlite_master")
    check(not raftd.path().exists(), "an empty database was made in its place")
    check(f"curl -X DELETE 'http://{raftd.http}/db?db=app.db'" in raftd.log(), f"the log does not say how to drop it: {raftd.log()}")
    equal(value(connect(raftd.path("other.db")), "SELECT count(*) FROM u"), 0, "other databases are served")


@test
def a_replica_that_was_unlinked_while_running_takes_no_more_commits():
    raftd, connection = served()
    raftd.path().unlink()
    with fails(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            connection.execute("INSERT INTO t VALUES(1)")
    check(not raftd.path().exists() or raftd.path().stat().st_size > 0, "an empty database was made in its place")


@test
def a_changed_page_quarantines_its_database_and_no_other():
    raftd, connection = served(2000)
    connect(raftd.path("other.db")).execute("CREATE TABLE u(x)")
    connection.close()
    wait_for(lambda: raftd.path().exists() and raftd.path().stat().st_size > 20000, "the file has its pages")
    raftd.stop()
    with raftd.path().open("r+b") as file:
        file.seek(72)  # the stamp: says that this file is another state than the log knows
        stamp = file.read(20)
        file.seek(72)
        file.write(bytes(byte ^ 0xFF for byte in stamp))
    raftd.launch()
    if raftd.process.poll() is None:
        raftd.wait_ready()
        with fails(CORRUPT_QUARANTINED):
            value(connect(raftd.path(), busy_ms=100), "SELECT count(*) FROM t")
        equal(value(connect(raftd.path("other.db")), "SELECT count(*) FROM u"), 0, "other databases are served")


def refuses_reads_and_writes(raftd, connection, word):
    """A database that is quarantined: new and old connections, reads and writes, and what /status and the log say."""
    wait_for(lambda: raftd.status()["store"]["databases"]["app.db"]["state"] == "quarantined", "the database is quarantined", 150)
    for statement in ("SELECT count(*) FROM t", "INSERT INTO t VALUES(1)"):
        with fails(CORRUPT_QUARANTINED):
            connection.execute(statement).fetchall()
        with fails(CORRUPT_QUARANTINED):
            connect(raftd.path(), busy_ms=100).execute(statement).fetchall()
    message = raftd.status()["store"]["databases"]["app.db"]["message"]
    check(word in message, f"the message does not say {word!r}: {message}")
    check(raftd.log().count('msg="database quarantined"') == 1, "the log tells it once")
    check(raftd.process.poll() is None, "raftd ended")


def complete(raftd):
    copy = temporary("copy")
    shutil.copy(raftd.path(), copy)
    try:
        native, served_rows = (sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute("SELECT count(*) FROM t").fetchone()
                               for path in (copy, raftd.path()))
        return native == served_rows
    except sqlite3.Error:
        return False


def whole_file(raftd):
    """Everything is in the database file."""
    wait_for(lambda: complete(raftd), "the file is complete")


def overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@test
def a_database_file_that_is_written_while_it_is_served():
    raftd, connection = served(3000)
    whole_file(raftd)
    overwrite(raftd.path(), 2 * 4096 + 100, b"changed")
    refuses_reads_and_writes(raftd, connection, "somebody else has written")
    with raftd.path().open("rb") as file:
        file.seek(2 * 4096 + 100)
        equal(file.read(7), b"changed", "what was found is left for whoever looks into it")


@test
def a_database_file_that_is_shortened_while_it_is_served():
    raftd, connection = served(3000)
    whole_file(raftd)
    os.truncate(raftd.path(), 2 * 4096)
    refuses_reads_and_writes(raftd, connection, "somebody else has written")
    equal(raftd.path().stat().st_size, 2 * 4096, "size of what was found")


@test
def a_database_file_that_is_replaced_while_it_is_served():
    raftd, connection = served()
    whole_file(raftd)
    copy = temporary("copy")
    shutil.copy(raftd.path(), copy)
    os.replace(copy, raftd.path())
    refuses_reads_and_writes(raftd, connection, "another file")


@test
def a_wal_that_is_changed_while_it_is_served():
    raftd, connection = served()
    reader = connect(raftd.path())
    reader.execute("BEGIN")
    value(reader, "SELECT count(*) FROM t")  # so the WAL stays as it is
    connection.executemany("INSERT INTO t VALUES(?)", [(n,) for n in range(5)])
    overwrite(raftd.path("app.db-wal"), 32 + 24 + 2000, b"changed")
    refuses_reads_and_writes(raftd, connection, "was changed")


def refuses_after(damage, word):
    """Damage while raftd is down; then a start that serves every other database."""
    raftd, connection = served(3000)
    connect(raftd.path("other.db")).execute("CREATE TABLE u(x)")
    whole_file(raftd)
    raftd.stop()
    damage(raftd.path())
    found = raftd.path().read_bytes()
    raftd.start()
    refuses_reads_and_writes(raftd, connection, word)
    equal(value(connect(raftd.path("other.db")), "SELECT count(*) FROM u"), 0, "other databases are served")
    equal(raftd.path().read_bytes() == found, True, "the file is as it was found")


@test
def a_stamp_of_another_database():
    refuses_after(lambda path: overwrite(path, 72, b"\0\0\1\0"), "of database")


@test
def a_shortened_file():
    refuses_after(lambda path: os.truncate(path, 2 * 4096), "")


@test
def a_file_that_was_replaced_by_its_copy():
    def replace(path):
        copy = temporary("copy")
        shutil.copy(path, copy)
        os.replace(copy, path)

    refuses_after(replace, "replaced")


@test
def a_file_that_is_no_database_any_more():
    refuses_after(lambda path: overwrite(path, 0, b"not a database"), "")


# --- the socket -----------------------------------------------------------------------------------------------------------


def plug(raftd):
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(60)
    link.connect(str(raftd.socket_path()))
    return link


def commits_go_on(connection, rows):
    before = value(connection, "SELECT count(*) FROM t")
    for _ in range(rows):
        connection.execute("INSERT INTO t VALUES(1)")
    equal(value(connection, "SELECT count(*) FROM t"), before + rows, "rows")


@test
def garbage_on_the_socket():
    raftd, connection = served()
    dice = random.Random(1)
    for size in (1, 15, 16, 17, 100, 5000, 100000):
        link = plug(raftd)
        try:
            link.sendall(dice.randbytes(size))
            link.shutdown(socket.SHUT_WR)
            link.recv(1000)
        except OSError:
            pass
        link.close()
    commits_go_on(connection, 20)
    check(raftd.process.poll() is None, "raftd ended")


@test
def an_oversized_frame_is_cut_off():
    raftd, connection = served()
    link = plug(raftd)
    try:
        link.sendall(b"\xff\xff\xff\xff" + b"\x00\x01" + b"\0" * 10 + b"x" * 100000)
        ended = b""
        while chunk := link.recv(65536):
            ended += chunk
    except OSError:
        pass  # reset is as good an end as any
    commits_go_on(connection, 20)


@test
def a_thousand_idle_connections():
    raftd, connection = served()
    links = [plug(raftd) for _ in range(900)]
    commits_go_on(connection, 20)
    late = connect(raftd.path())
    commits_go_on(late, 5)
    equal(len(links), 900)


@test
def a_half_sent_frame_delays_nobody_and_is_dropped():
    raftd, connection = served()
    link = plug(raftd)
    link.sendall(b"\0\0")
    began = time.monotonic()
    commits_go_on(connection, 20)
    check(time.monotonic() - began < 9, "commits waited for a half-sent frame")
    try:
        equal(link.recv(1), b"", "what comes after a half-sent frame")
    except ConnectionResetError:
        pass
    check(8 < time.monotonic() - began < 40, f"dropped after {time.monotonic() - began:.1f} s instead of 10")


@test
def no_file_descriptors_left():
    raftd = Raftd(start=False)

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))

    raftd.start(preexec_fn=limit)
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    elsewhere = connect(raftd.path("other.db"))
    links = []
    for _ in range(100):
        link = socket.socket(socket.AF_UNIX)
        link.setblocking(False)
        try:
            link.connect(str(raftd.socket_path()))
        except BlockingIOError:
            pass
        links.append(link)
    commits_go_on(connection, 20)
    # What needs files of its own: a staged body, the next segments of the log, the first commit of a database.
    connection.execute("INSERT INTO t VALUES(zeroblob(20000000))")
    for _ in range(20):
        connection.execute("UPDATE t SET x = randomblob(3000000) WHERE rowid = 1")
    elsewhere.execute("CREATE TABLE u(x)")
    check(raftd.process.poll() is None, "raftd ended")
    for link in links:
        link.close()
    late = connect(raftd.path(), busy_ms=10000)
    wait_for(lambda: value(late, "SELECT count(*) FROM t") == 21, "a connection is served when descriptors are free again")
    late.execute("INSERT INTO t VALUES(1)")


# --- shared memory --------------------------------------------------------------------------------------------------------

WORK_ON = """
import sqlite3, sys
from harness import connect
connection = connect(sys.argv[1], busy_ms=200)
print("working", flush=True)
for line in sys.stdin:
    try:
        connection.execute(line)
    except sqlite3.Error:
        pass
print("alive", flush=True)
"""


def scribbled(name, damage, ends=(0,)):
    """Clients read and write while a shared file is damaged: raftd goes on, the replica is whole, and new clients work.  ends:
    how a client that has the file mapped may end."""
    raftd, connection = served(200)
    connection.close()
    clients = [python(WORK_ON, raftd.path(), stdin=-1) for _ in range(2)]
    for client in clients:
        equal(client.stdout.readline(), "working\n")
    dice = random.Random(2)
    for _ in range(10):
        damage(raftd.path(name), dice)
        for client, statement in zip(clients, ("SELECT count(*) FROM t\n", "INSERT INTO t VALUES(1)\n")):
            with contextlib.suppress(BrokenPipeError):
                client.stdin.write(statement)
                client.stdin.flush()

    def mended():
        program = "import sys\nfrom harness import *\nc = connect(sys.argv[1], busy_ms=200)\n" \
                  "c.execute(\"INSERT INTO t VALUES('mended')\")\nprint(value(c, 'PRAGMA integrity_check'))"
        new = python(program, raftd.path())
        output, _ = new.communicate(timeout=60)
        return new.returncode == 0 and output == "ok\n"

    wait_for(mended, "new connections work again")
    check(raftd.process.poll() is None, "raftd ended")
    for client in clients:
        with contextlib.suppress(BrokenPipeError):
            client.stdin.close()
        code = client.wait(timeout=60)
        check(code in ends, f"a client ended with {code}: {client.stdout.read()}")
    raftd.kill()
    raftd.start()
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check;"), "ok", "the replica")


def scribble(path, dice):
    with path.open("r+b") as file:
        size = os.path.getsize(path)
        for _ in range(20):
            file.seek(dice.randrange(max(size - 64, 1)))
            file.write(dice.randbytes(64))


def empty(path, dice):
    if path.exists():
        os.truncate(path, 0)


def delete(path, dice):
    path.unlink(missing_ok=True)


@test
def a_scribbled_control_page():
    scribbled("app.db-rqctl", scribble)


@test
def a_deleted_control_page():
    scribbled("app.db-rqctl", delete)


@test
def an_emptied_control_page():
    scribbled("app.db-rqctl", empty, ends=(0, -signal.SIGBUS))


@test
def a_scribbled_shm():
    scribbled("app.db-shm", scribble)


@test
def a_deleted_shm():
    scribbled("app.db-shm", delete)


@test
def an_emptied_shm():
    scribbled("app.db-shm", empty, ends=(0, -signal.SIGBUS))


@test
def a_snapshot_outlives_its_control_page():
    """Whoever reads by a page that was removed still holds back the back-fill; and goes on with the new page."""
    raftd, writer = served(100)
    reader = connect(raftd.path())
    reader.execute("BEGIN")
    equal(value(reader, "SELECT count(*) FROM t"), 100)
    for _ in range(3):
        inode = raftd.path("app.db-rqctl").stat().st_ino
        raftd.path("app.db-rqctl").unlink()
        wait_for(lambda: raftd.path("app.db-rqctl").exists() and raftd.path("app.db-rqctl").stat().st_ino != inode,
                 "the page is there again")
        connect(raftd.path()).execute("UPDATE t SET x = x + 1000")
        writer.execute("UPDATE t SET x = x + 1000")
        threading.Event().wait(0.3)  # longer than raftd waits before it back-fills what nobody reads
        equal(value(reader, "SELECT sum(x) FROM t"), 4950, "what the old snapshot reads")
    reader.execute("COMMIT")
    equal(value(reader, "SELECT sum(x) FROM t"), 4950 + 6 * 100 * 1000, "what a new snapshot reads")
    whole_file(raftd)


@test
def a_control_page_whose_header_is_overwritten():
    raftd, writer = served(10)
    for offset in (0, 8, 16, 24, 28, 32):
        overwrite(raftd.path("app.db-rqctl"), offset, b"\xa5\xa5\xa5\xa5")

        def works():
            try:
                writer.execute("INSERT INTO t VALUES(1)")
                return value(connect(raftd.path(), busy_ms=100), "SELECT count(*) FROM t") > 0
            except sqlite3.Error:
                return False

        wait_for(works, f"work goes on after a scribble at {offset}")


# --- names and permissions ------------------------------------------------------------------------------------------------


@test
def names_that_are_not_served():
    raftd, _ = served()
    raftd.path("sub").mkdir()
    for name in ("raft/x.db", "sub/x.db", "x" * 240):
        try:
            connect(raftd.path(name), busy_ms=100).execute("CREATE TABLE t(x)")
        except sqlite3.Error:
            check(not raftd.path(name).exists(), f"{name} was refused and made nevertheless")
    check(raftd.process.poll() is None, "raftd ended")


@test
def the_file_system_decides_who_may_connect():
    if os.geteuid() != 0:
        raise Skip("changing to another user needs root")
    raftd, connection = served()
    program = """
import os, sqlite3, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
from harness import connect
try:
    connect(sys.argv[1], busy_ms=0).execute("INSERT INTO t VALUES('stranger')")
    print("written")
except sqlite3.Error:
    print("refused")
"""
    os.chmod(raftd.directory, 0o700)
    os.chmod(raftd.directory.parent, 0o711)
    equal(finish(python(program, raftd.path())), "refused\n", "a stranger's write")
    equal(value(connection, "SELECT count(*) FROM t"), 10, "rows")


main()
