"""What an operator does to raftd: flags, signals, HTTP, systemd, sharing a directory with a group."""

import json
import os
import pathlib
import signal
import socket
import sqlite3
import stat
import subprocess
import time

from harness import (BUSY_AWAY, RAFTD, Raftd, Skip, check, connect, equal, fails, finish, main, python, shell_rqvfs, shell_stock,
                     temporary, test, value)

# --- command line -----------------------------------------------------------------------------------------------------------


def run(*arguments):
    result = subprocess.run([RAFTD, *arguments], capture_output=True, text=True, timeout=60, check=False)
    equal(result.stdout, "", "standard output")
    return result.returncode, result.stderr


@test
def s1_1_help_and_version():
    for flag in ("-h", "-help", "--help"):
        code, text = run(flag)
        equal(code, 0, f"exit code of {flag}")
        for name in ("-node-id", "-http-addr", "-raft-addr", "-refound", "-version"):
            check(name in text, f"{flag} does not name {name}")
    for flag in ("-version", "--version", "-version=true"):
        code, text = run(flag)
        equal(code, 0, f"exit code of {flag}")
        check(text.startswith("raftd ") and " sqlite3." in text, text)


@test
def s1_2_wrong_command_lines():
    """Code and words are rqlited's: 2 and the usage for what is no flag, 1 and one line for what cannot be."""
    node = str(temporary("node"))
    for arguments, wanted, words in (
        (["-nonsense", node], 2, "flag provided but not defined: -nonsense"),
        (["-on-disk", node], 2, "flag provided but not defined: -on-disk"),
        (["-raft-snap=many", node], 2, 'invalid value "many" for flag -raft-snap: parse error'),
        (["-version=perhaps", node], 2, 'invalid boolean value "perhaps" for -version: parse error'),
        (["-node-id"], 2, "flag needs an argument: -node-id"),
        ([], 1, "failed to parse command-line flags: missing required argument: DataPath"),
        ([node, "more"], 1, "arguments after data directory"),
        (["  "], 1, "fatal: data directory path is required"),
        (["-http-addr", "localhost:1", "-raft-addr", "localhost:1", node], 1, "fatal: HTTP and Raft addresses must differ"),
        (["-http-addr", "http://localhost:1", node], 1, "fatal: HTTP options should not include protocol"),
        (["-http-addr", "localhost", node], 1, "fatal: HTTP bind address not valid"),
        (["-http-addr", "0.0.0.0:1", node], 1, "fatal: advertised HTTP address is not routable"),
        (["-raft-addr", "localhost:x", node], 1, "fatal: raft bind port not valid"),
    ):
        code, text = run(*arguments)
        equal(code, wanted, f"exit code of {arguments}: {text}")
        check(words in text, f"{arguments} says {text!r}, not {words!r}")
        equal("Usage" in text, wanted == 2, f"usage shown for {arguments}: {text!r}")
    check(not os.path.exists(node), "a directory was made for a command line that is wrong")


@test
def an_address_that_is_taken():
    raftd = Raftd()
    second = Raftd(start=False)
    second.http = raftd.http
    second.launch()
    equal(second.exit_code(), 1, "exit code")
    check("failed to start HTTP server" in second.log(), second.log())


@test
def a_directory_that_cannot_be():
    file = temporary("file")
    file.write_text("not a directory")
    for directory in (file, file / "node", file / "absent" / "node"):
        code, text = run("-http-addr", "localhost:0", str(directory))
        equal(code, 1, f"exit code for {directory}")
        check(str(file) in text, text)
    equal(file.read_text(), "not a directory")


# --- start and stop -----------------------------------------------------------------------------------------------------------


@test
def systemd_is_told():
    path = temporary("notify")
    inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inbox.bind(str(path))
    inbox.settimeout(60)
    raftd = Raftd(start=False)
    raftd.launch(env={**os.environ, "NOTIFY_SOCKET": str(path)})
    equal(inbox.recv(1000), b"READY=1", "first word")
    equal(raftd.get("/readyz")[0], 200, "readiness at that moment")
    equal(shell_rqvfs(raftd.path(), "CREATE TABLE t(x); SELECT count(*) FROM t;"), "0", "service at that moment")
    raftd.process.terminate()
    equal(inbox.recv(1000), b"STOPPING=1", "last word")
    equal(raftd.exit_code(), 0, "exit code")


@test
def every_stop_and_start_keeps_what_was_committed():
    raftd = Raftd()
    connection = connect(raftd.path(), busy_ms=30000)
    connection.execute("CREATE TABLE t(x)")
    for round, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGABRT)):
        connection.execute("INSERT INTO t VALUES(?)", (round,))
        raftd.process.send_signal(signal.SIGHUP)  # a terminal that goes away is no reason to end
        equal(raftd.get("/readyz")[0], 200)
        began = time.monotonic()
        raftd.process.send_signal(number)
        code = raftd.exit_code()
        check(time.monotonic() - began < 30, f"signal {number} took {time.monotonic() - began:.1f} s")
        equal(code, 0 if number in (signal.SIGTERM, signal.SIGINT) else -number, f"exit code after {number}")
        equal(value(connection, "SELECT count(*) FROM t"), round + 1, "rows while it is down")
        raftd.start()
    equal([row[0] for row in connection.execute("SELECT x FROM t")], [0, 1, 2, 3])


# --- HTTP ---------------------------------------------------------------------------------------------------------------------


def bare(raftd, request):
    """The answer to bytes that need not be HTTP."""
    host, port = raftd.http.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as link:
        answer = b""
        try:
            link.sendall(request)
            link.shutdown(socket.SHUT_WR)
            while chunk := link.recv(65536):
                answer += chunk
        except OSError:
            pass  # it may hang up at any time
    return answer.decode(errors="replace")


@test
def http_says_what_is_there():
    raftd = Raftd(None, "-node-id", "one")
    shell_rqvfs(raftd.path(), "CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    (raftd.directory / "notes.txt").write_text("hello")
    code, body = raftd.get("/db")
    listed = json.loads(body)
    equal((code, [db["name"] for db in listed["databases"]], listed["not_replicated"]), (200, ["app.db"], ["notes.txt"]))
    equal((listed["databases"][0]["state"], listed["databases"][0]["version"]), ("live", 2))
    check("\n" in raftd.get("/db?pretty")[1], "?pretty")
    status = raftd.status()
    equal(status["store"]["databases"]["app.db"]["page_size"], 4096)
    equal(status["store"]["node_id"], "one")
    equal(raftd.get("/status?key=store.databases")[0], 200)
    equal(raftd.get("/status?key=store.node_id"), (200, '"one"'))
    equal(raftd.get("/status?key=nothing.here"), (200, "{}"))
    for path in ("/nothing", "/db/nothing", "/../etc/passwd", "/dbx"):
        equal(raftd.get(path)[0], 404, path)
    for method, path in (("POST", "/status"), ("DELETE", "/readyz"), ("PUT", "/db")):
        equal(raftd.request(method, path)[0], 405, f"{method} {path}")


@test
def http_survives_what_is_not_http():
    raftd = Raftd()
    for request in (b"\0" * 100, b"GET\r\n\r\n", b"GET /status HTTP/9.9\r\n\r\n", b"x" * 100000, b"",
                    b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"DELETE /db HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc"):
        answer = bare(raftd, request)
        check(answer == "" or not answer.startswith("HTTP/1.1 2"), f"{request[:40]}: {answer[:100]}")
    idle = [socket.create_connection(tuple(raftd.http.split(":"))) for _ in range(100)]
    equal(raftd.get("/readyz")[0], 200, "beside 100 connections that say nothing")
    for link in idle:
        link.close()


# --- sharing ------------------------------------------------------------------------------------------------------------------

STRANGER = """
import os, sqlite3, sys
os.setgroups([int(sys.argv[2])]); os.setgid(65534); os.setuid(65534)
from harness import connect, connect_stock
for name, open_one, statement in (("read", connect_stock, "SELECT count(*) FROM t"), ("rqvfs", connect, "SELECT count(*) FROM t"),
                                  ("write", connect, "INSERT INTO t VALUES('stranger')")):
    try:
        connection = open_one(sys.argv[1])
        connection.execute(statement).fetchall()
        print(name, end=" ")
    except sqlite3.Error as error:
        print("no-" + name, end=" ")
"""


def another_user(mode, groups, umask=0o022):
    """What a user of that group can do in a directory of that mode."""
    if os.geteuid() != 0:
        raise Skip("changing to another user needs root")
    directory = temporary("node")
    directory.mkdir()
    os.chown(directory, 0, 12345)
    os.chmod(directory, mode)
    os.chmod(directory.parent, 0o711)
    raftd = Raftd(directory, start=False)
    raftd.start(umask=umask)
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    reader = connect(raftd.path())
    reader.execute("BEGIN")
    equal(value(reader, "SELECT count(*) FROM t"), 0)  # so what comes now stays in the WAL
    connection.execute("INSERT INTO t VALUES(1)")
    return raftd, finish(python(STRANGER, raftd.path(), groups)).split()


@test
def a_group_shares_a_directory():
    for umask in (0o022, 0o077, 0):
        raftd, can = another_user(0o2770, 12345, umask)
        equal(can, ["read", "rqvfs", "write"], f"what a member of the group can do, umask {umask:o}")
        for path in raftd.directory.iterdir():
            if path.name != "raft":
                mode = stat.S_IMODE(path.stat().st_mode)
                equal((oct(mode), path.stat().st_gid), (oct(0o660), 12345), path.name)
        equal(oct(stat.S_IMODE((raftd.directory / "raft").stat().st_mode) & 0o777), oct(0o700), "raft/ is raftd's alone")
        raftd.kill()


@test
def others_can_do_what_the_directory_allows():
    _, can = another_user(0o2770, 54321)
    equal(can, ["no-read", "no-rqvfs", "no-write"], "a stranger before a closed directory")
    for umask in (0o022, 0):
        raftd, can = another_user(0o755, 54321, umask)
        equal("no-write" in can, True, f"a stranger in a directory that is not his to write, umask {umask:o}")
        equal("read" in can, True, "but he may read it, as with SQLite")
        for path in raftd.directory.iterdir():  # each of them would keep him out: the socket, the control page, -shm
            closed_to = 0o002 if path.name == "raftd.sock" else 0o022
            equal(oct(stat.S_IMODE(path.stat().st_mode) & closed_to), "0o0", f"who else may write {path.name}, umask {umask:o}")
        raftd.kill()


@test
def a_long_directory_path():
    directory = temporary("deep") / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    raftd = Raftd(directory)
    equal(shell_rqvfs(raftd.path(), "CREATE TABLE t(x); INSERT INTO t VALUES(1); SELECT count(*) FROM t;"), "1")
    equal(shell_stock(raftd.path(), "SELECT count(*) FROM t;"), "1")


@test
def a_directory_by_symlink_and_from_elsewhere():
    raftd = Raftd()
    link = temporary("link")
    link.symlink_to(raftd.directory)
    equal(shell_rqvfs(link / "app.db", "CREATE TABLE t(x); INSERT INTO t VALUES(1); SELECT count(*) FROM t;"), "1")
    other = Raftd(start=False)
    other.directory = pathlib.Path(link)
    other.launch()
    equal(other.exit_code(), 1, "a second raftd by another name of the directory")
    elsewhere = temporary("elsewhere")
    elsewhere.mkdir()
    with fails(sqlite3.SQLITE_CANTOPEN):
        connect(elsewhere / "app.db")
    with fails(BUSY_AWAY, sqlite3.SQLITE_CANTOPEN):
        connect(elsewhere / "app.db", raftd=elsewhere / "raftd.sock", timeout=100).execute("CREATE TABLE t(x)")


main()
