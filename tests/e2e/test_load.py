"""POST /db/load and /boot: a SQLite file becomes the content of a database on every node, page by page and at once; POST /db."""

import http.client
import json
import sqlite3
import sys

from cluster import STEADY, Cluster
from harness import SANITIZER, Raftd, check, connect, equal, main, shell_stock, temporary, test, value, wait_for

LOADED = (200, '{"results":[]}')


def made(rows=100, *, page_size=4096, wal=False, size=100, encoding="UTF-8"):
    """An ordinary SQLite file."""
    path = temporary("made.db")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size={page_size}")
    connection.execute(f"PRAGMA encoding='{encoding}'")
    if wal:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    connection.execute("CREATE INDEX by_x ON t(x)")
    connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                       "INSERT INTO t SELECT i, printf('%0*d', ?, i) FROM n", (rows, size))
    connection.close()
    return path


def ask(node, method, target, body=None):
    """The answer, its body in .text; however long it takes on a busy machine."""
    link = http.client.HTTPConnection(node.http, timeout=120)
    link.request(method, target, body, {"Content-Type": "application/octet-stream"} if body else {})
    answer = link.getresponse()
    answer.text = answer.read()
    link.close()
    return answer


def load(node, path, query="?db=app.db", to="/db/load"):
    answer = ask(node, "POST", to + query, path if isinstance(path, bytes) else path.read_bytes())
    return answer.status, answer.text.decode()


def backup(node, query="?db=app.db"):
    answer = ask(node, "GET", "/db/backup" + query)
    equal(answer.status, 200, answer.text[:200])
    return answer.text


def without_header(content):
    return content[:18] + content[20:24] + content[32:40] + content[44:72] + content[100:]


def count(node, name="app.db"):
    return value(connect(node.path(name)), "SELECT count(*) FROM t")


@test
def s7_a_file_replaces_the_content_page_by_page():
    raftd = Raftd()
    file = made(1000)
    answer = ask(raftd, "POST", "/db/load", file.read_bytes())
    equal((answer.status, answer.text), (200, b'{"results":[]}'))
    equal(answer.headers["Content-Type"], "text/plain; charset=utf-8")
    equal(answer.headers["X-Rqlite-Served-By"], raftd.http)
    equal(without_header(backup(raftd, "")), without_header(file.read_bytes()), "pages")
    equal(count(raftd, "db.sqlite"), 1000)
    for rows in (10, 5000, 1):  # smaller, larger
        file = made(rows)
        equal(load(raftd, file, ""), LOADED)
        equal(without_header(backup(raftd, "")), without_header(file.read_bytes()), "pages")
        equal(count(raftd, "db.sqlite"), rows)
    connection = connect(raftd.path("db.sqlite"))
    connection.execute("INSERT INTO t VALUES(100, 'written')")
    equal(value(connection, "PRAGMA integrity_check"), "ok")
    connection.close()
    raftd.kill()
    raftd.start()
    equal(count(raftd, "db.sqlite"), 2)
    equal(shell_stock(raftd.path("db.sqlite"), "PRAGMA integrity_check"), "ok")
    wait_for(lambda: not [p for p in (raftd.directory / "raft" / "staged").iterdir() if p.name.startswith("load-")], "nothing is left")


@test
def s7_connections_notice_and_snapshots_stay():
    raftd = Raftd()
    reader, other = connect(raftd.path()), connect(raftd.path())
    reader.execute("CREATE TABLE t(old)")
    reader.execute("INSERT INTO t VALUES('old')")
    equal(other.execute("SELECT * FROM t").fetchall(), [("old",)])
    reader.execute("BEGIN")
    equal(reader.execute("SELECT * FROM t").fetchall(), [("old",)])
    # A schema cookie that is the same as the one they know.
    equal(value(other, "PRAGMA schema_version"), 1)
    file = temporary("other.db")
    sqlite3.connect(file).execute("CREATE TABLE t(id, another, more)")
    equal(load(raftd, file), LOADED)
    equal(reader.execute("SELECT * FROM t").fetchall(), [("old",)])
    equal([row[1] for row in other.execute("PRAGMA table_info(t)")], ["id", "another", "more"])
    other.execute("INSERT INTO t VALUES(1, 2, 3)")
    reader.execute("COMMIT")
    equal(reader.execute("SELECT * FROM t").fetchall(), [(1, 2, 3)])
    check(value(other, "PRAGMA schema_version") > 1, "the same cookie")


@test
def s7_files_in_wal_mode_and_of_other_page_sizes():
    raftd = Raftd()
    equal(load(raftd, made(10, wal=True)), LOADED)
    equal(backup(raftd)[18:20], b"\x01\x01")
    equal(load(raftd, made(20, page_size=1024), "?db=small.db"), LOADED)
    connection = connect(raftd.path("small.db"))
    equal((value(connection, "PRAGMA page_size"), value(connection, "SELECT count(*) FROM t")), (1024, 20))
    # One with content keeps its page size: the file is written anew before.
    for rows, size in ((300, 65536), (200, 512), (100, 4096)):
        equal(load(raftd, made(rows, page_size=size), "?db=small.db"), LOADED)
        equal((value(connection, "PRAGMA page_size"), value(connection, "SELECT count(*) FROM t")), (1024, rows))
        equal(value(connection, "PRAGMA integrity_check"), "ok")


@test
def s7_what_is_no_database_changes_nothing():
    raftd = Raftd()
    equal(load(raftd, made(7)), LOADED)
    good = made(100).read_bytes()
    for content, text in ((good[:4096 * 2], "invalid SQLite data: it is cut short"),
                          (good[:90], "invalid SQLite data"), (good[:13], "invalid SQLite data"),
                          (good[:16] + b"\x10\x01" + good[18:], "invalid SQLite data: no page size"),
                          (good[:100] + b"\xff" * 4000 + good[4100:], "invalid SQLite data: database disk image is malformed")):
        code, body = load(raftd, content)
        equal((code, body), (400, text + "\n"), text)
    equal(count(raftd), 7)
    equal(raftd.get("/db/load")[0], 405)
    equal(load(raftd, good, "?db=.hidden"), (500, "no database can have this name\n"))
    raftd.path("foreign.db").write_bytes(b"somebody's")
    equal(load(raftd, good, "?db=foreign.db"), (500, "there is a file of this name that is not replicated\n"))


DUMP = """PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE child(x REFERENCES parent(id));
INSERT INTO "child" VALUES('it''s; -- 1');
CREATE TABLE parent(id TEXT PRIMARY KEY);
INSERT INTO "parent" VALUES('it''s; -- 1');
CREATE TRIGGER added AFTER INSERT ON parent BEGIN UPDATE parent SET id = id || 'x' WHERE 0; SELECT 1; END;
COMMIT;
"""


@test
def s7_sql_is_run_as_one_transaction():
    raftd = Raftd()
    answer = ask(raftd, "POST", "/db/load", DUMP.encode())
    equal((answer.status, answer.text), (200, b'{"results":[{"last_insert_id":1,"rows_affected":1}]}'))
    equal(answer.headers["Content-Type"], "text/plain; charset=utf-8")
    equal(answer.headers["X-Rqlite-Served-By"], raftd.http)
    connection = connect(raftd.path("db.sqlite"))
    equal(connection.execute("SELECT x, id FROM child, parent").fetchall(), [("it's; -- 1", "it's; -- 1")])
    # All or nothing, with or without BEGIN.
    for text, error in (("INSERT INTO child VALUES(2); INSERT INTO nowhere VALUES(1);", "no such table: nowhere"),
                        ("BEGIN; INSERT INTO child VALUES(2); COMMIT; INSERT INTO parent VALUES('a'), ('a')",
                         "UNIQUE constraint failed: parent.id"),
                        ("INSERT INTO child VALUES(2); SELECT", "incomplete input"),
                        ("INSERT INTO child VALUES(2); ROLLBACK; SELECT 1;", "ROLLBACK: nothing was loaded"),
                        ("INSERT INTO child VALUES(2); \0", "a zero byte in the SQL")):
        equal(load(raftd, text.encode(), ""), (200, '{"results":[{"error":"%s"}]}' % error), text)
    equal(value(connection, "SELECT count(*) FROM child"), 1)
    equal(load(raftd, b"SAVEPOINT a; DELETE FROM child; ROLLBACK TO a; RELEASE a; PRAGMA user_version=7", "")[0], 200)
    equal((value(connection, "SELECT count(*) FROM child"), value(connection, "PRAGMA user_version")), (1, 7))
    equal(load(raftd, b"", ""), LOADED)  # no statement has no result
    equal(load(raftd, b"", "?pretty"), (200, '{\n    "results": []\n}'))
    code, body = load(raftd, b"SELECT 1", "?timings&db=new.db")
    check(code == 200 and '"time":' in body, body)
    # What backup gives loads, with large statements, on any node.
    cluster = Cluster()
    cluster.leader()
    first, second, _ = cluster.nodes
    equal(load(first, made(3000, size=2000)), LOADED)
    text = backup(first, "?db=app.db&fmt=sql")
    check(len(text) > 6000000, len(text))
    equal(load(second, text, "?db=copy.db")[0], 200)
    copies = [backup(node, "?db=copy.db") for node in cluster.nodes]  # linearizable
    equal(len(set(copies)), 1, "different copies")
    path = temporary("copy.db")
    path.write_bytes(copies[0])
    equal(sqlite3.connect(path).execute("SELECT count(*), sum(length(x)) FROM t").fetchone(), (3000, 6000000))


def asked(raftd, method, target, *statements):
    body = json.dumps(statements).encode() if statements else None
    return json.loads(ask(raftd, method, target, body).text)["results"]


@test
def s7_a_file_may_have_another_text_encoding():
    raftd = Raftd()
    asked(raftd, "POST", "/db/execute", "CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    for rows, encoding in ((3, "UTF-16le"), (4, "UTF-16be"), (5, "UTF-8")):
        # Connections that were opened before are there, for reading and for writing.
        asked(raftd, "POST", "/db/query", "SELECT * FROM t")
        asked(raftd, "POST", "/db/execute", "INSERT INTO t(x) VALUES('more')")
        equal(load(raftd, made(rows, encoding=encoding), ""), LOADED)
        equal(asked(raftd, "POST", "/db/query", "SELECT count(*) FROM t", "PRAGMA encoding"),
              [{"columns": ["count(*)"], "types": ["integer"], "values": [[rows]]},
               {"columns": ["encoding"], "types": ["text"], "values": [[encoding]]}], "rows")
        equal(asked(raftd, "POST", "/db/execute", "INSERT INTO t(x) VALUES('\N{EURO SIGN}')"),
              [{"last_insert_id": rows + 1, "rows_affected": 1}], "an insert")
        equal(asked(raftd, "POST", "/db/request", "SELECT x FROM t ORDER BY id DESC LIMIT 1")[0]["values"], [["\N{EURO SIGN}"]])
        equal(value(connect(raftd.path("db.sqlite")), "PRAGMA encoding"), encoding)


@test
def s2_1_post_db_creates():
    raftd = Raftd()
    equal(raftd.request("POST", "/db?db=new.db", b""), (200, ""))
    equal(raftd.request("POST", "/db?db=new.db", b""), (200, ""))
    check('"new.db"' in raftd.get("/db")[1], raftd.get("/db"))
    equal(raftd.request("POST", "/db", b"")[0], 400)
    equal(raftd.request("POST", "/db?db=a%2fb", b"")[0], 400)
    raftd.path("foreign.db").write_bytes(b"somebody's")
    equal(raftd.request("POST", "/db?db=foreign.db", b"")[0], 409)


@test
def s7_boot_is_for_a_node_that_is_alone():
    raftd = Raftd()
    equal(load(raftd, made(50), "", "/boot"), (200, ""))
    equal(count(raftd, "db.sqlite"), 50)
    equal(load(raftd, b"SELECT 1", "", "/boot"), (400, "invalid SQLite data\n"))
    raftd.kill()
    raftd.start()
    equal(count(raftd, "db.sqlite"), 50)
    nodes = Cluster(2, *STEADY).nodes
    equal(load(nodes[0], made(1), "", "/boot"), (503, "not single-node\n"))
    equal(load(nodes[1], made(1), "", "/boot"), (503, "not leader\n"))


@test
def s7_s14_3_a_file_is_loaded_through_any_node_of_three():
    cluster = Cluster()
    cluster.leader()
    writers = [connect(node.path(), busy_ms=20000) for node in cluster.nodes]
    for number, node in enumerate(cluster.nodes):
        file = made(20000 + number, size=400)  # some megabytes
        equal(load(node, file), LOADED)
        equal([without_header(backup(n)) for n in cluster.nodes], [without_header(file.read_bytes())] * 3)
        for writer in writers:  # the turn was given back
            writer.execute("INSERT INTO t(x) VALUES('more')")
    wait_for(lambda: [count(node) for node in cluster.nodes] == [20005] * 3, "every node has all of it")
    addresses = [f"http://{node.http}/db/load?redirect" for node in cluster.nodes]

    def redirected():
        """The leader says that this is no database."""
        answers = [ask(node, "POST", "/db/load?redirect", b"SQLite format") for node in cluster.nodes]
        return sorted(a.status for a in answers) == [301, 301, 400] and \
            all(a.headers["Location"] in addresses for a in answers if a.status == 301)

    wait_for(redirected, "who does not lead redirects")
    cluster.kill_all()
    wait_for(lambda: [count(node) for node in cluster.nodes] == [20005] * 3, "every node has all of it")


def peak_kib(raftd):
    return int(open(f"/proc/{raftd.process.pid}/status").read().split("VmHWM:")[1].split()[0])


@test
def s7_a_large_file_takes_little_memory_and_may_come_in_chunks():
    raftd = Raftd()
    equal(load(raftd, made(10)), LOADED)
    before = peak_kib(raftd)
    file = made(60000, size=500)  # 64 MB, with its index
    link = http.client.HTTPConnection(raftd.http, timeout=120)

    def pieces():
        with file.open("rb") as source:
            while piece := source.read(100003):
                yield piece

    link.request("POST", "/db/load?db=app.db", body=pieces(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    answer = link.getresponse()
    equal((answer.status, answer.read()), (200, b'{"results":[]}'))
    if not SANITIZER:
        check(peak_kib(raftd) - before < 24 << 10, f"{peak_kib(raftd) - before} KiB more")
    equal(count(raftd), 60000)
    # Who leaves in the midst of it changes nothing.
    link = http.client.HTTPConnection(raftd.http, timeout=120)
    link.putrequest("POST", "/db/load?db=app.db")
    link.putheader("Content-Length", str(file.stat().st_size))
    link.endheaders(made(1).read_bytes())
    link.close()
    staged = raftd.directory / "raft" / "staged"
    wait_for(lambda: not list(staged.glob("tmp-load-*")), "what came of it is deleted")
    equal(count(raftd), 60000)


if __name__ == "__main__":
    sys.exit(main())
