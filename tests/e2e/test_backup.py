"""GET /db/backup: what comes is an ordinary SQLite file, or SQL that makes one, as of one commit, from any node."""

import gzip
import http.client
import json
import sqlite3
import sys
import zlib

from cluster import Cluster
from harness import SANITIZER, Raftd, check, connect, equal, main, temporary, test, value, wait_for

PEOPLE = """
CREATE TABLE people(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, note);
INSERT INTO people(name, note) VALUES('o''hara', 1.5), ('two
lines', x'00ff'), ('ünï', NULL), ('', 9e999), (char(97, 0, 98), -9223372036854775808), ('real', 0.1), ('big', 1e300);
"""
EVERYTHING = PEOPLE + """
CREATE TABLE "odd ""name"(a, "b c" AS (a * 2) STORED, d AS (a + 1), "e""f");
INSERT INTO "odd ""name"(a, "e""f") VALUES(1, 'x'), (2, 'y');
CREATE TABLE pair(k TEXT, v, PRIMARY KEY(k, v)) WITHOUT ROWID;
INSERT INTO pair VALUES('a', 1), ('a', 2);
CREATE TABLE alone(x);
CREATE VIRTUAL TABLE words USING fts5(w);
INSERT INTO words VALUES('hello world'), ('good bye');
CREATE TABLE zlog(x);
CREATE INDEX by_name ON people(name) WHERE note IS NOT NULL;
CREATE VIEW both AS SELECT name FROM people UNION SELECT k FROM pair;
CREATE TRIGGER noted AFTER INSERT ON people BEGIN INSERT INTO zlog VALUES(new.name); END;
ANALYZE;
"""


def fetch(node, query=""):
    answer = node.raw("GET", "/db/backup?db=app.db" + query)
    equal(answer.status, 200, answer.text[:200])
    return answer


def as_file(content):
    path = temporary("copy.db")
    path.write_bytes(content)
    return path


@test
def s7_a_copy_is_an_ordinary_file():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.executescript(EVERYTHING)
    answer = fetch(raftd)
    equal(answer.headers["Content-Type"], "application/octet-stream")
    content = answer.text
    equal(content[18:20], b"\x01\x01", "versions of reading and writing")
    equal(content[72:92], bytes(20), "the stamp")
    path = as_file(content)
    copy = sqlite3.connect(path, isolation_level=None)
    equal(value(copy, "PRAGMA integrity_check"), "ok")
    for table in ("people", '"odd ""name"', "pair", "words", "both", "sqlite_sequence", "sqlite_stat1"):
        equal(copy.execute(f"SELECT * FROM {table}").fetchall(), connection.execute(f"SELECT * FROM {table}").fetchall(), table)
    copy.execute("INSERT INTO people(name) VALUES('written')")
    equal(value(copy, "SELECT count(*) FROM zlog"), 1)
    equal(len(content), value(connection, "PRAGMA page_count") * value(connection, "PRAGMA page_size"))
    equal(fetch(raftd, "&fmt=delete").text, content)


@test
def s7_the_text_makes_the_same_database():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.executescript(EVERYTHING)
    answer = fetch(raftd, "&fmt=sql")
    equal(answer.headers["Content-Type"], "application/sql")
    text = answer.text.decode()
    check(text.startswith("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n") and text.endswith("COMMIT;\n"), text[:80])
    path = temporary("made.db")
    made = sqlite3.connect(path, isolation_level=None)
    made.executescript(text)
    made.close()
    made = sqlite3.connect(path, isolation_level=None)
    equal(value(made, "PRAGMA integrity_check"), "ok")
    for table in ("people", '"odd ""name"', "pair", "words", "both", "sqlite_sequence", "alone", "zlog"):
        equal(made.execute(f"SELECT *, typeof(1) FROM {table}").fetchall(),
              connection.execute(f"SELECT *, typeof(1) FROM {table}").fetchall(), table)
    equal(made.execute("SELECT typeof(name), hex(name), typeof(note), quote(note) FROM people").fetchall(),
          connection.execute("SELECT typeof(name), hex(name), typeof(note), quote(note) FROM people").fetchall())
    equal(made.execute("SELECT w FROM words('bye')").fetchall(), [("good bye",)])
    names = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name"
    equal(made.execute(names).fetchall(), connection.execute(names).fetchall())
    # rqlite's own shape, for a plain table.
    check("INSERT INTO \"pair\" VALUES('a',1);\nINSERT INTO \"pair\" VALUES('a',2);\n" in text, text)
    some = fetch(raftd, "&fmt=sql&tables=pair,alone").text.decode()
    equal(fetch(raftd, "&fmt=SQL&tables=%20pair%20,,%20,alone").text.decode(), some, "the same, written otherwise")
    check("CREATE TABLE pair" in some and "CREATE TABLE alone" in some and "CREATE TABLE people" not in some, some)


@test
def s7_copies_are_compressed_and_vacuumed():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
                       "INSERT INTO t SELECT printf('%0800d', i) FROM n")
    connection.execute("DELETE FROM t WHERE rowid % 2")
    plain = fetch(raftd).text
    equal(gzip.decompress(fetch(raftd, "&compress").text), plain)
    equal(gzip.decompress(fetch(raftd, "&compress&fmt=sql").text), fetch(raftd, "&fmt=sql").text)
    small = fetch(raftd, "&vacuum").text
    check(len(small) < len(plain) * 0.7, (len(small), len(plain)))
    equal(zlib.decompress(fetch(raftd, "&vacuum&compress").text, 31)[:16], b"SQLite format 3\0")
    copy = sqlite3.connect(as_file(small), isolation_level=None)
    equal(value(copy, "SELECT count(*) FROM t"), 1500)
    equal(small[18:20], b"\x01\x01")
    equal(small[72:92], bytes(20))
    equal(raftd.get("/db/backup?db=app.db&vacuum&fmt=sql"), (500, "invalid backup format\n"))
    wait_for(lambda: not list((raftd.directory / "raft" / "staged").iterdir()), "nothing is left behind")


@test
def s7_which_database():
    raftd = Raftd()
    equal(raftd.get("/db/backup"), (404, "no such database\n"))
    equal(raftd.get("/db/backup?db=../../etc/passwd")[0], 404)
    connect(raftd.path("db.sqlite")).execute("CREATE TABLE rqlite(x)")
    equal(raftd.raw("GET", "/db/backup").text[:16], b"SQLite format 3\0")
    connect(raftd.path("new.db")).close()
    equal(raftd.raw("GET", "/db/backup?db=new.db").text, b"", "nothing was ever committed to it")
    made = raftd.raw("GET", "/db/backup?db=new.db&fmt=sql").text
    equal(made, b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCOMMIT;\n")
    equal(raftd.raw("HEAD", "/db/backup").status, 200)


@test
def s7_s14_3_every_node_gives_what_was_committed():
    cluster = Cluster()
    cluster.leader()
    writer = connect(cluster.nodes[1].path())
    writer.execute("CREATE TABLE t(x)")
    for i in range(10):
        writer.execute("INSERT INTO t VALUES(?)", (i,))
        copies = [fetch(node).text for node in cluster.nodes]
        equal(len({bytes(c) for c in copies}), 1, "different copies")
        equal(value(sqlite3.connect(as_file(copies[2])), "SELECT count(*) FROM t"), i + 1)
    first, second, third = cluster.nodes
    leader = cluster.leader()
    redirected = cluster.others(leader)[0].raw("GET", "/db/backup?db=app.db&redirect")
    equal((redirected.status, redirected.headers["Location"]), (301, f"http://{leader.http}/db/backup?db=app.db&redirect"))
    first.kill()
    second.kill()
    wait_for(lambda: third.raw("GET", "/db/backup?db=app.db&timeout=1s").status == 503, "no leader, no copy")
    equal(value(sqlite3.connect(as_file(fetch(third, "&noleader").text)), "SELECT count(*) FROM t"), 10)


def peak_kib(raftd):
    status = open(f"/proc/{raftd.process.pid}/status").read()
    return int(status.split("VmHWM:")[1].split()[0])


@test
def s7_writers_and_memory_do_not_notice():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    connection.execute("CREATE TABLE n(x)")
    for _ in range(32):
        connection.execute("INSERT INTO t SELECT randomblob(1000000) FROM (VALUES(1), (1))")
    before = peak_kib(raftd)
    link = http.client.HTTPConnection(raftd.http, timeout=60)
    link.request("GET", "/db/backup?db=app.db")
    answer = link.getresponse()
    begin = answer.read(1 << 20)
    for i in range(200):  # while the copy is half taken
        connection.execute("INSERT INTO n VALUES(?)", (i,))
    connection.execute("UPDATE t SET x = 'gone'")
    copy = sqlite3.connect(as_file(begin + answer.read()))
    equal(value(copy, "PRAGMA integrity_check"), "ok")
    equal((value(copy, "SELECT count(*) FROM n"), value(copy, "SELECT sum(length(x)) FROM t")), (0, 64000000))
    if not SANITIZER:  # theirs keep what was freed
        check(peak_kib(raftd) - before < 20 << 10, f"{peak_kib(raftd) - before} KiB more")
    # A client that leaves: nothing is held for it any more.
    for _ in range(3):
        link = http.client.HTTPConnection(raftd.http, timeout=60)
        link.request("GET", "/db/backup?db=app.db&fmt=sql")
        link.getresponse().read(1000)
        link.close()
    connection.execute("INSERT INTO n VALUES('last')")
    wal = raftd.path("app.db-wal")
    wait_for(lambda: wal.stat().st_size < 32 << 20, "the WAL shrinks")
    equal(json.loads(raftd.get("/db")[1])["databases"][0]["state"], "live")


@test
def s7_a_slow_client_does_not_hold_the_wal():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.execute("CREATE TABLE t(x)")
    connection.execute("CREATE TABLE n(x)")
    for _ in range(16):
        connection.execute("INSERT INTO t VALUES(randomblob(1000000))")
    link = http.client.HTTPConnection(raftd.http, timeout=60)
    link.request("GET", "/db/backup?db=app.db")
    answer = link.getresponse()
    begin = answer.read(1000)
    connection.execute("INSERT INTO n VALUES(0)")

    def salts():
        with raftd.path("app.db-wal").open("rb") as wal:
            return wal.read(32)[16:24]

    before = salts()

    def begun_anew():
        connection.execute("INSERT INTO n VALUES(1)")
        return salts() != before

    wait_for(begun_anew, "the WAL is begun anew while the client sleeps")
    copy = sqlite3.connect(as_file(begin + answer.read()))
    equal(value(copy, "PRAGMA integrity_check"), "ok")
    equal((value(copy, "SELECT count(*) FROM n"), value(copy, "SELECT sum(length(x)) FROM t")), (0, 16000000))


if __name__ == "__main__":
    sys.exit(main())
