"""DELETE /db?db=NAME: the files go to raft/trash/, the name is free at once."""

import json
import sqlite3

from harness import Raftd, check, connect, equal, fails, main, test, value, wait_for


def listed(raftd):
    code, body = raftd.get("/db")
    equal(code, 200, "GET /db")
    return json.dumps(json.loads(body))


@test
def a_dropped_database_is_gone_and_its_name_is_free():
    raftd = Raftd()
    for round in range(3):
        connection = connect(raftd.path())
        equal(value(connection, "SELECT count(*) FROM sqlite_master"), 0, f"tables of the new database, round {round}")
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES(?)", (round,))
        connection.close()
        check("app.db" in listed(raftd), "GET /db does not list app.db")
        code, body = raftd.request("DELETE", "/db?db=app.db")
        equal(code, 200, f"DELETE /db: {body}")
        check('"app.db"' not in listed(raftd), "GET /db still lists app.db")
        check(not raftd.path().exists(), "the file is still there")
    trash = raftd.path("raft") / "trash"
    equal(len([path for path in trash.rglob("*") if path.is_file() and path.name.endswith("-app.db")]) >= 3, True,
          f"three databases in {trash}: {sorted(trash.rglob('*'))}")


@test
def a_dropped_database_stays_dropped_after_a_kill():
    raftd = Raftd()
    connect(raftd.path()).execute("CREATE TABLE t(x)")
    connect(raftd.path("other.db")).execute("CREATE TABLE u(x)")
    equal(raftd.request("DELETE", "/db?db=app.db")[0], 200, "DELETE /db")
    raftd.kill()
    raftd.start()
    check('"app.db"' not in listed(raftd), "GET /db lists a database whose drop was acknowledged")
    equal(value(connect(raftd.path("other.db")), "SELECT count(*) FROM u"), 0, "the other one")
    equal(value(connect(raftd.path()), "SELECT count(*) FROM sqlite_master"), 0, "a new one of the old name")


@test
def an_open_connection_cannot_write_into_the_next_database_of_that_name():
    raftd = Raftd()
    old = connect(raftd.path(), busy_ms=0)
    old.execute("CREATE TABLE t(x)")
    old.execute("BEGIN")
    equal(value(old, "SELECT count(*) FROM t"), 0)
    equal(raftd.request("DELETE", "/db?db=app.db")[0], 200, "DELETE /db")
    new = connect(raftd.path())
    new.execute("CREATE TABLE t(x)")
    with fails(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN):
        old.execute("INSERT INTO t VALUES('old')")
        old.execute("COMMIT")
    equal(value(new, "SELECT count(*) FROM t"), 0, "rows in the new database")


@test
def dropping_what_is_not_there_says_so():
    raftd = Raftd()
    code, body = raftd.request("DELETE", "/db?db=absent.db")
    equal(code, 404, f"DELETE of an unknown name: {body}")
    code, _ = raftd.request("DELETE", "/db?db=../raft")
    check(code >= 400, "a path was taken for a name")
    wait_for(lambda: raftd.get("/readyz")[0] == 200, "raftd is still ready")


main()
