"""The story of the README, from the first start to a restart after kill -9."""

import json
import shutil
import subprocess

from harness import (RAFTD, Raftd, check, connect, connect_stock, equal, main, shell_rqvfs, shell_stock, temporary, test, uri,
                     value, wait_for)


@test
def shell_writes_and_stock_shell_reads():
    raftd = Raftd()
    ours = shell_rqvfs(raftd.path(), "CREATE TABLE t(x); INSERT INTO t VALUES(random()); SELECT x FROM t;")
    check(ours.lstrip("-").isdigit(), f"not a number: {ours}")
    equal(shell_stock(raftd.path(), "SELECT x FROM t;"), ours, "what the stock shell reads")
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check;"), "ok")


@test
def every_commit_is_seen_at_once_by_a_stock_reader():
    raftd = Raftd()
    writer = connect(raftd.path())
    writer.execute("CREATE TABLE t(x)")
    reader = connect_stock(raftd.path())
    for number in range(1, 200):
        writer.execute("INSERT INTO t VALUES(?)", (number,))
        equal(value(reader, "SELECT count(*) FROM t"), number, "rows a stock reader sees after COMMIT")


@test
def nothing_uncommitted_is_seen():
    raftd = Raftd()
    writer, ours, stock = connect(raftd.path()), connect(raftd.path()), None
    writer.execute("CREATE TABLE t(x)")
    stock = connect_stock(raftd.path())
    writer.execute("BEGIN")
    writer.execute("INSERT INTO t VALUES(1)")
    equal((value(ours, "SELECT count(*) FROM t"), value(stock, "SELECT count(*) FROM t")), (0, 0), "rows before COMMIT")
    writer.execute("ROLLBACK")
    equal((value(ours, "SELECT count(*) FROM t"), value(stock, "SELECT count(*) FROM t")), (0, 0), "rows after ROLLBACK")


@test
def clean_restart_keeps_everything():
    raftd = Raftd()
    shell_rqvfs(raftd.path(), "CREATE TABLE t(x); INSERT INTO t VALUES(1),(2);")
    raftd.stop()
    equal(shell_stock(raftd.path(), "SELECT sum(x) FROM t;"), "3", "sum while raftd is down")
    raftd.start()
    equal(shell_rqvfs(raftd.path(), "INSERT INTO t VALUES(4); SELECT sum(x) FROM t;"), "7", "sum after the restart")


@test
def kill_and_restart_keep_everything():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    for number in range(1, 101):
        connection.execute("INSERT INTO t VALUES(?)", (number,))
        if number % 25 == 0:
            raftd.kill()
            raftd.start()
    equal(value(connection, "SELECT count(*) FROM t"), 100, "rows")
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check; SELECT count(*) FROM t;"), "ok\n100")


@test
def a_copy_of_the_file_alone_is_complete_soon_after_the_last_close():
    raftd = Raftd()
    shell_rqvfs(raftd.path(), "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)"
                              " INSERT INTO t SELECT i FROM n;")

    def copied():
        copy = temporary("copy.db")
        shutil.copyfile(raftd.path(), copy)
        result = subprocess.run(["sqlite3", f"file:{copy}?immutable=1", "SELECT count(*) FROM t"], capture_output=True, text=True)
        return result.stdout.strip() == "500"

    wait_for(copied, "a copy of app.db alone has all rows")


@test
def the_file_says_that_stock_tools_may_not_write():
    raftd = Raftd()
    shell_rqvfs(raftd.path(), "CREATE TABLE t(x);")

    def write_version():
        with raftd.path().open("rb") as file:
            head = file.read(100)
        return head[18:20] if head[:16] == b"SQLite format 3\0" else None

    equal(wait_for(write_version, "the file has a header"), b"\x52\x02", "bytes 18 and 19")
    connection = connect(raftd.path())
    equal(value(connection, "PRAGMA journal_mode"), "wal", "journal_mode through rqvfs")


@test
def an_export_is_an_ordinary_database():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    connection.execute("INSERT INTO t VALUES(7)")
    export = temporary("export.db")
    connection.execute("VACUUM INTO ?", (uri(export, vfs="unix"),))
    equal(shell_stock(export, "INSERT INTO t VALUES(8); SELECT sum(x) FROM t;"), "15", "sum in the export")


@test
def status_tells_node_and_databases():
    raftd = Raftd(None, "-node-id", "north")
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    connection.execute("INSERT INTO t VALUES(1)")
    cursor = connection.execute("SELECT * FROM rqvfs_status")
    names = [column[0] for column in cursor.description]
    row = dict(zip(names, cursor.fetchone()))
    equal(row["node"], "north", "rqvfs_status.node")
    equal(row["role"], "Leader", "rqvfs_status.role")
    equal(row["database"], "app.db", "rqvfs_status.database")
    equal(row["version"], 2, "rqvfs_status.version after two transactions")
    check(0 < row["applied"] <= row["committed"], f"applied past what is committed: {row}")
    equal(row["state"], "live", "rqvfs_status.state")
    check(value(connection, "SELECT rqvfs_version()"), "rqvfs_version() is empty")
    check("store" in raftd.status(), "/status has no store section")
    code, body = raftd.get("/db")
    equal(code, 200, "GET /db")
    check("app.db" in json.dumps(json.loads(body)), f"GET /db does not list app.db: {body}")


def run_raftd(*arguments):
    return subprocess.run([RAFTD, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@test
def the_command_line_speaks_as_rqlited_does():
    equal(run_raftd("-version").returncode, 0, "exit code of -version")
    usage = run_raftd("-h")
    equal(usage.returncode, 0, "exit code of -h")
    check("-http-addr" in usage.stderr, "-h does not name -http-addr on standard error")
    unknown = run_raftd("-no-such-flag", temporary("node"))
    equal(unknown.returncode, 2, "exit code of an unknown flag")
    check("flag provided but not defined: -no-such-flag" in unknown.stderr, unknown.stderr)
    missing = run_raftd()
    equal(missing.returncode, 1, "exit code without a data directory")
    check("DataPath" in missing.stderr, missing.stderr)
    bad = run_raftd("-raft-snap-int=soon", temporary("node"))
    check(bad.returncode != 0, "a bad duration was accepted")
    check("raft-snap-int" in bad.stderr, f"the flag is not named: {bad.stderr}")


@test
def a_long_directory_is_served():
    directory = temporary("d" * 200)
    raftd = Raftd(directory)
    equal(shell_rqvfs(raftd.path(), "CREATE TABLE t(x); INSERT INTO t VALUES(5); SELECT x FROM t;"), "5")


@test
def many_databases_share_one_raftd():
    raftd = Raftd()
    connections = [connect(raftd.path(f"db{number}.db")) for number in range(20)]
    for number, connection in enumerate(connections):
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES(?)", (number,))
    raftd.kill()
    raftd.start()
    for number, connection in enumerate(connections):
        equal(value(connection, "SELECT x FROM t"), number, f"row of db{number}.db")


@test
def triggers_and_full_text_search_are_replicated():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.executescript("CREATE TABLE t(x); CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES('hello world');"
                             "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO f VALUES('row ' || new.x); END;"
                             "INSERT INTO t VALUES(1);")
    equal(value(connection, "SELECT count(*) FROM f('row')"), 1, "rows by FTS5 of a trigger")
    equal(shell_stock(raftd.path(), "SELECT count(*) FROM f('hello OR row');"), "2", "FTS5 read by the stock shell")


main()
