"""A new database takes its shape from who creates it, and keeps it."""

import sqlite3

from harness import Raftd, check, connect, connect_stock, equal, fails, main, shell_stock, temporary, test, uri, value

SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]


@test
def every_page_size():
    raftd = Raftd()
    for size in SIZES:
        connection = connect(raftd.path(f"p{size}.db"))
        connection.execute(f"PRAGMA page_size={size}")
        connection.execute("CREATE TABLE t(x, y)")
        connection.executemany("INSERT INTO t VALUES(?, ?)", [(n, "y" * (n % 700)) for n in range(50)])
        equal(value(connection, "PRAGMA page_size"), size, "page_size")
    raftd.kill()
    raftd.start()
    for size in SIZES:
        connection = connect(raftd.path(f"p{size}.db"))
        connection.execute("DELETE FROM t WHERE x % 2")
        equal(value(connection, "SELECT count(*) FROM t"), 25, f"rows at page size {size}")
        equal(shell_stock(raftd.path(f"p{size}.db"), "PRAGMA page_size; PRAGMA integrity_check; SELECT count(*) FROM t;"),
              f"{size}\nok\n25", "what the stock shell says")


@test
def the_page_size_of_a_database_with_content_stays():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    connection.execute("PRAGMA page_size=8192")
    connection.execute("VACUUM")
    equal(value(connection, "PRAGMA page_size"), 4096, "page_size after VACUUM")
    equal(shell_stock(raftd.path(), "PRAGMA page_size;"), "4096")


@test
def encodings_and_auto_vacuum_are_the_creator_s():
    raftd = Raftd()
    for name, pragma, wanted in [("a.db", "encoding", "UTF-16le"), ("b.db", "encoding", "UTF-16be"), ("c.db", "auto_vacuum", 1),
                                 ("d.db", "auto_vacuum", 2)]:
        connection = connect(raftd.path(name))
        connection.execute(f"PRAGMA {pragma}='{wanted}'")
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES('é')")
        equal(value(connect(raftd.path(name)), f"PRAGMA {pragma}"), wanted, f"{pragma} of {name}")
        equal(value(connect_stock(raftd.path(name)), "SELECT x FROM t"), "é", f"text in {name}")


@test
def auto_vacuum_shrinks_the_file():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("PRAGMA auto_vacuum=1")
    connection.execute("CREATE TABLE t(x)")
    connection.executemany("INSERT INTO t VALUES(zeroblob(3000))", [()] * 200)
    before = value(connection, "PRAGMA page_count")
    connection.execute("DELETE FROM t")
    check(value(connection, "PRAGMA page_count") < before / 10, "pages were not given back")
    connection.executemany("INSERT INTO t VALUES(randomblob(3000))", [()] * 100)
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check; SELECT count(*) FROM t;"), "ok\n100")


@test
def vacuum_keeps_content():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x PRIMARY KEY, y)")
    connection.executemany("INSERT INTO t VALUES(?, randomblob(500))", [(n,) for n in range(1000)])
    connection.execute("DELETE FROM t WHERE x % 3")
    before = connection.execute("SELECT x, y FROM t ORDER BY x").fetchall()
    connection.execute("VACUUM")
    equal(connection.execute("SELECT x, y FROM t ORDER BY x").fetchall() == before, True, "same rows after VACUUM")
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check;"), "ok")


@test
def vacuum_into_a_served_name_creates_it_once():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    connection.execute("INSERT INTO t VALUES(3)")
    target = uri(raftd.path("copy.db"))
    connection.execute("VACUUM INTO ?", (target,))
    equal(value(connect(raftd.path("copy.db")), "SELECT x FROM t"), 3, "row of the copy")
    with fails(sqlite3.SQLITE_ERROR):
        connection.execute("VACUUM INTO ?", (target,))
    equal(value(connect(raftd.path("copy.db")), "SELECT x FROM t"), 3, "the copy was not overwritten")


@test
def backup_works_in_both_directions():
    raftd = Raftd()
    plain = sqlite3.connect(temporary("plain.db"))
    plain.execute("PRAGMA page_size=1024")
    plain.execute("CREATE TABLE t(x)")
    plain.execute("INSERT INTO t VALUES(11)")
    plain.commit()
    ours = connect(raftd.path())
    plain.backup(ours)
    equal(value(ours, "SELECT x FROM t"), 11, "row after backup into rqvfs")
    equal(shell_stock(raftd.path(), "PRAGMA page_size; PRAGMA integrity_check;"), "1024\nok")
    back = sqlite3.connect(temporary("back.db"))
    ours.backup(back)
    equal(value(back, "SELECT x FROM t"), 11, "row after backup out of rqvfs")


@test
def backup_of_another_page_size_into_content_is_refused():
    raftd = Raftd()
    ours = connect(raftd.path())
    ours.execute("CREATE TABLE t(x)")
    other = sqlite3.connect(temporary("plain.db"))
    other.executescript("PRAGMA page_size=1024; CREATE TABLE u(x);")
    with fails(sqlite3.SQLITE_READONLY):
        other.backup(ours)
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check; SELECT count(*) FROM t;"), "ok\n0")


@test
def connection_flags_that_cannot_be_right_are_refused():
    raftd = Raftd()
    connect(raftd.path()).execute("CREATE TABLE t(x)")
    for parameters in ({"immutable": 1}, {"nolock": 1}):
        with fails(sqlite3.SQLITE_CANTOPEN):
            value(connect(raftd.path(), **parameters), "SELECT count(*) FROM t")
    equal(value(connect(raftd.path(), mode="ro"), "SELECT count(*) FROM t"), 0)
    with fails(sqlite3.SQLITE_READONLY):
        connect(raftd.path(), mode="ro").execute("INSERT INTO t VALUES(1)")
    with fails(sqlite3.SQLITE_CANTOPEN):
        value(connect(raftd.path("absent.db"), mode="rw"), "SELECT 1 FROM sqlite_master")


main()
