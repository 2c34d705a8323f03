"""Native twins, written scripts: whatever an application can notice."""

import contextlib
import itertools
import json
import os
import sqlite3
import subprocess
import threading
import time
import urllib.parse

from harness import BUILD, EXTENSION, Raftd, check, equal, main, shell_stock, temporary, test, value
from twins import Answer, Twins, ask

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, a INT, b TEXT);
CREATE INDEX t_a ON t(a);
INSERT INTO t(a, b) VALUES(1, 'one'), (2, 'two'), (3, 'three');
"""
MODES = ["delete", "truncate", "persist", "memory", "off", "wal"]
FILL = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{}) INSERT INTO t(a, b) SELECT i, printf('%.*c', i % 300, 'x') FROM n"


# --- transactions ---------------------------------------------------------------------------------------------------------


def transactions(twins, undo=True):
    """Each way a transaction begins and ends."""
    twins("INSERT INTO t(a) VALUES(10)")
    for begin in ("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"):
        twins(begin)
        twins("UPDATE t SET a = a + 1")
        twins("INSERT INTO t(a) VALUES(20) RETURNING id")
        twins("COMMIT")
        twins(begin)
        twins("COMMIT")
    twins("SAVEPOINT one")
    twins("INSERT INTO t(a) VALUES(30)")
    twins("SAVEPOINT two")
    twins("RELEASE two")
    twins("RELEASE one")
    twins("SELECT * FROM t")
    if undo:
        twins("BEGIN")
        twins("DELETE FROM t")
        twins("ROLLBACK")
        twins("SAVEPOINT one")
        twins("DELETE FROM t WHERE a > 5")
        twins("ROLLBACK TO one")
        twins("INSERT INTO t(a) VALUES(40)")
        twins("RELEASE one")
        twins("INSERT OR ROLLBACK INTO t(id, a) VALUES(1, 1)")
        twins("SELECT * FROM t")
        twins("PRAGMA cache_size=5")
        twins("BEGIN")
        twins(FILL.format(3000))
        twins("SAVEPOINT two")
        twins("UPDATE t SET a = -a")
        twins("ROLLBACK TO two")
        twins("SELECT count(*), sum(a) FROM t")
        twins("ROLLBACK")
        twins("SELECT count(*), sum(a) FROM t")
        twins(FILL.format(1000))
        twins("PRAGMA cache_size=2000")
    twins("DELETE FROM t WHERE a > 100")
    twins("COMMIT")
    twins("ROLLBACK")


@test
def every_journal_mode_and_synchronous_setting():
    twins = Twins(creation=SCHEMA)
    for mode, synchronous in itertools.product(MODES, range(4)):
        twins.open()
        # What rqvfs answers to all of them.  A native rollback with journal_mode=OFF is undefined, so not compared.
        native = f"PRAGMA journal_mode={mode}"
        twins.each(native, lambda side: side.connection().execute(native).fetchall() and None)
        equal(ask(lambda: twins.ours.connection().execute(native)), Answer([("wal",)], ["wal"]), native)
        twins(f"PRAGMA synchronous={synchronous}")
        twins("PRAGMA synchronous")
        transactions(twins, undo=mode != "off")
    twins.open()
    twins.native.connection().execute("PRAGMA journal_mode=wal")
    twins.same_content()


@test
def every_journal_mode_set_from_a_connection_whose_main_database_is_not_ours():
    """Unqualified pragmas then reach the pager of the attached database, past the VFS."""
    for where in (":memory:", "plain"):
        twins = Twins(creation=SCHEMA)
        twins.close()
        for mode, synchronous in itertools.product(MODES, range(4)):
            for side in twins.sides:
                path = where if where == ":memory:" else twins.plain[side] / "main.db"
                side.connections[0] = sqlite3.connect(path, isolation_level=None, uri=True)
            twins("ATTACH '{uri:twin.db}' AS x")
            for side in twins.sides:
                side.connection().execute(f"PRAGMA journal_mode={mode}")
            twins(f"PRAGMA synchronous={synchronous}")
            twins(f"PRAGMA x.synchronous={synchronous}")
            twins("PRAGMA x.synchronous")
            transactions(twins, undo=mode != "off")
            twins.close()
        twins.open()
        twins.native.connection().execute("PRAGMA journal_mode=wal")
        twins.same_content()
        twins.close()


@test
def locking_mode():
    twins = Twins(creation=SCHEMA)
    for _ in range(2):
        twins("PRAGMA locking_mode")
        twins("PRAGMA locking_mode=exclusive", ours=Answer([("normal",)], ["locking_mode"]))
        twins("PRAGMA main.locking_mode=EXCLUSIVE", ours=Answer([("normal",)], ["locking_mode"]))
        transactions(twins)
        twins.open()
    twins.open("second")
    twins("PRAGMA locking_mode=exclusive", native="PRAGMA locking_mode")
    twins("INSERT INTO t(a) VALUES(1)")
    twins("INSERT INTO t(a) VALUES(1)", who="second")
    twins.same_content()


@test
def exclusive_locking_set_past_the_vfs_loses_no_commit_in_silence():
    twins = Twins(creation=SCHEMA)
    memory = sqlite3.connect(":memory:", isolation_level=None, uri=True)
    memory.execute("ATTACH ? AS x", (twins.ours.uri("twin.db"),))
    memory.execute("PRAGMA locking_mode=exclusive")
    good = 0
    for number in range(5):
        answer = ask(lambda: memory.execute("INSERT INTO x.t(a) VALUES(?)", (1000 + number,)))
        good += answer.error is None
    memory.close()
    twins.open()
    equal(value(twins.ours.connection(), "SELECT count(*) FROM t WHERE a >= 1000"), good, "acknowledged rows")


# --- pragmas --------------------------------------------------------------------------------------------------------------

VALUES = ["", "=0", "=1", "=2", "=-1", "=17", "=100000", "=0x7fffffffffff", "='no such word'", "(t)", "(3)"]
APART = {
    "journal_mode", "locking_mode",  # above
    "page_size", "wal_checkpoint", "data_version",  # below
    "database_list",  # shows the path
    "temp_store_directory", "data_store_directory",  # of the process
    "hard_heap_limit", "soft_heap_limit",
}


def all_pragmas(twins):
    names = [row[0] for row in twins.ours.connection().execute("PRAGMA pragma_list")]
    check(len(names) > 50, f"only {len(names)} pragmas?")
    return sorted(set(names) - APART)


@test
def every_pragma_on_a_database_with_content():
    twins = Twins(creation=SCHEMA)
    for name, schema in itertools.product(all_pragmas(twins), ("", "main.")):
        for argument in VALUES:
            twins.open()
            twins(f"PRAGMA {schema}{name}{argument}")
            twins(f"PRAGMA {schema}{name}")
            twins("INSERT INTO t(a) VALUES(1)")
            twins("SELECT count(*) FROM t")
    twins.same_content()


@test
def every_pragma_on_a_new_database():
    twins = Twins(creation=SCHEMA)
    number = 0
    for name in all_pragmas(twins):
        for argument in VALUES:
            number += 1
            twins.open(name=f"new{number}.db")
            twins(f"PRAGMA {name}{argument}")
            twins(f"PRAGMA {name}")
    names = ["PRAGMA auto_vacuum=1", "PRAGMA auto_vacuum=2", "PRAGMA encoding='UTF-16'", "PRAGMA page_size=512", "PRAGMA page_size=333",
             "PRAGMA user_version=5", "PRAGMA application_id=6", "PRAGMA page_size=65536; PRAGMA auto_vacuum=full",
             "PRAGMA encoding='UTF-16be'; PRAGMA page_size=1024", "PRAGMA legacy_file_format=1", "PRAGMA schema_version=9"]
    for first, second in itertools.product(names, ("CREATE TABLE u(x)", "VACUUM", "SELECT 1")):
        number += 1
        twins.open(name=f"new{number}.db")
        for statement in (*first.split("; "), second, "CREATE TABLE v(x)", "INSERT INTO v VALUES('é')", "VACUUM"):
            twins(statement)
        for pragma in ("page_size", "auto_vacuum", "encoding", "user_version", "application_id", "page_count", "integrity_check"):
            twins(f"PRAGMA {pragma}")


@test
def pragmas_about_what_is_different():
    twins = Twins(creation=SCHEMA)
    twins("PRAGMA page_size")
    for mode in ("", "main."):
        equal(ask(lambda: twins.ours.connection().execute(f"PRAGMA {mode}journal_mode")), Answer([("wal",)], ["wal"]))
        twins(f"PRAGMA {mode}wal_checkpoint", ours=Answer([(0, -1, -1)], ["busy", "log", "checkpointed"]))
        twins(f"PRAGMA {mode}wal_checkpoint(TRUNCATE)", ours=Answer([(0, -1, -1)], ["busy", "log", "checkpointed"]))
    for size in (512, 8192, 65536, 4096):
        twins(f"PRAGMA page_size={size}")
        twins("VACUUM")
        twins("PRAGMA page_size")
    twins.open("other")
    versions = [[side.connection(who).execute("PRAGMA data_version").fetchone()[0] for who in (0, "other")] for side in twins.sides]
    for step in range(6):
        twins("UPDATE t SET a = ?", step, who="other" if step % 3 else 0)
        twins("BEGIN", who="other")
        twins("SELECT count(*) FROM t", who="other")
        twins("COMMIT", who="other")
        for who, before in zip((0, "other"), zip(*versions)):
            twins.each("changes of data_version", lambda side: (
                side.connection(who).execute("PRAGMA data_version").fetchone()[0] - before[twins.sides.index(side)]))
    twins("PRAGMA database_list", native="SELECT 0 AS seq, 'main' AS name, '%s' AS file" % twins.ours.path("twin.db"))


# --- several databases ----------------------------------------------------------------------------------------------------


def two_databases():
    twins = Twins(creation=SCHEMA)
    twins.open("maker", name="other.db")
    twins("CREATE TABLE u(x)", who="maker")
    twins("INSERT INTO u VALUES(1), (2)", who="maker")
    for side in twins.sides:
        if side is twins.native:
            side.connection("maker").execute("PRAGMA journal_mode=wal")
    twins.close("maker")
    twins("ATTACH '{uri:other.db}' AS o")
    return twins


@test
def attached_databases_are_read_together_and_written_one_at_a_time():
    twins = two_databases()
    twins("SELECT count(*), (SELECT sum(x) FROM o.u) FROM t")
    twins("INSERT INTO t(a) SELECT x FROM o.u")
    twins("INSERT INTO o.u SELECT a FROM t RETURNING x")
    twins("BEGIN")
    twins("SELECT (SELECT count(*) FROM u), (SELECT count(*) FROM t)")
    twins("UPDATE o.u SET x = x + 1")
    twins("SELECT sum(x) FROM u")
    twins("ROLLBACK")
    twins("BEGIN")
    twins("UPDATE t SET a = 0")
    twins("SELECT sum(x) FROM u")
    twins("COMMIT")
    twins("CREATE TABLE o.v AS SELECT * FROM t")
    twins("CREATE TEMP TABLE w AS SELECT * FROM o.v")
    twins("BEGIN")
    twins("INSERT INTO t(a) SELECT a FROM temp.w")
    twins("DELETE FROM w")
    twins("COMMIT")
    twins("SELECT count(*) FROM t")
    twins("DETACH o")
    twins("DETACH o")
    twins("SELECT * FROM u")
    twins.same_content()


@test
def one_database_attached_twice():
    twins = Twins(creation=SCHEMA)
    counts = "SELECT (SELECT count(*) FROM main.t), (SELECT count(*) FROM x.t)"
    for statement in ("ATTACH '{uri:twin.db}' AS x", counts, "INSERT INTO x.t(a) VALUES(2)", "INSERT INTO main.t(a) VALUES(2)", counts,
                      "BEGIN", "INSERT INTO main.t(a) VALUES(2)", counts, "INSERT INTO x.t(a) VALUES(2)", counts, "COMMIT",
                      "BEGIN IMMEDIATE", "ROLLBACK", "INSERT INTO x.t(a) SELECT a FROM main.t",
                      "BEGIN", "SELECT count(*) FROM main.t", "INSERT INTO x.t(a) VALUES(2)", "INSERT INTO main.t(a) VALUES(2)", "ROLLBACK",
                      counts):
        twins(statement)
    twins.same_content()


@test
def a_transaction_over_two_replicated_databases_is_refused_before_anything_happened():
    for first, second in (("t(a)", "o.u(x)"), ("o.u(x)", "t(a)")):
        twins = two_databases()
        connection = twins.ours.connection()
        contents = connection.execute("SELECT count(*) FROM t").fetchone() + connection.execute("SELECT count(*) FROM u").fetchone()
        connection.execute("BEGIN")
        connection.execute(f"INSERT INTO {first} VALUES(100)")
        answer = ask(lambda: connection.execute(f"INSERT INTO {second} VALUES(100)"))
        equal(answer.error and answer.error[0], sqlite3.SQLITE_READONLY | 81 << 8, "code of the second write")
        equal(connection.in_transaction, True, "the transaction goes on")
        equal(value(connection, "SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM u)"), sum(contents) + 1)
        connection.execute("COMMIT")
        equal(value(connection, "SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM u)"), sum(contents) + 1, "what is committed")
        # In one statement: by a trigger in temp, which may write anywhere.
        connection.execute("CREATE TEMP TRIGGER both AFTER INSERT ON main.t BEGIN INSERT INTO u VALUES(new.a); END")
        answer = ask(lambda: connection.execute("INSERT INTO t(a) VALUES(7)"))
        equal(answer.error and answer.error[0], sqlite3.SQLITE_READONLY | 81 << 8, "code of one statement that writes both")
        equal(connection.in_transaction, False)
        connection.execute("DROP TRIGGER both")
        equal(value(connection, "SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM u)"), sum(contents) + 1, "nothing of it")
        # BEGIN IMMEDIATE takes both turns, and gives both back.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO u VALUES(1)")
        connection.execute("COMMIT")
        connection.execute("INSERT INTO t(a) VALUES(1)")
        other = twins.ours.open("other.db")
        other.execute("INSERT INTO u VALUES(1)")
        for name in ("twin.db", "other.db"):
            equal(shell_stock(twins.ours.path(name), "PRAGMA integrity_check;"), "ok")


@test
def one_transaction_writes_a_replicated_database_and_a_native_one():
    twins = Twins(creation=SCHEMA)
    twins("ATTACH '{plain:side.db}' AS s")
    twins("PRAGMA s.journal_mode")
    twins("CREATE TABLE s.log(x)")
    for end in ("COMMIT", "ROLLBACK", "COMMIT"):
        twins("BEGIN")
        twins("INSERT INTO t(a) VALUES(1)")
        twins("INSERT INTO s.log SELECT a FROM t")
        twins(end)
        twins("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM s.log)")
    twins("INSERT INTO t(a) VALUES(5)")
    twins.same_content()


@test
def a_database_attached_to_a_connection_in_memory():
    twins = Twins(creation=SCHEMA)
    twins.close()
    for side in twins.sides:
        side.connections[0] = sqlite3.connect(":memory:", isolation_level=None, uri=True)
    twins("ATTACH '{uri:twin.db}' AS x")
    twins("CREATE TABLE m(y)")
    for end in ("COMMIT", "ROLLBACK"):
        twins("BEGIN")
        twins("INSERT INTO m SELECT a FROM t")
        twins("INSERT INTO t(a) SELECT y FROM m")
        twins(end)
        twins("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM m)")
    twins("PRAGMA x.journal_mode", ours=Answer([("wal",)], ["wal"]))
    for pragma in ("x.page_size=512", "x.auto_vacuum=1", "x.synchronous", "cache_size=5", "x.page_count", "integrity_check"):
        twins(f"PRAGMA {pragma}")
    twins("VACUUM x")
    twins("PRAGMA x.page_size")
    twins("PRAGMA page_size=512")  # of main; the VFS does not hear of it
    twins("VACUUM x", ours=Answer(error=(sqlite3.SQLITE_READONLY, "attempt to write a readonly database")))
    twins("PRAGMA x.page_size")
    twins("INSERT INTO t(a) VALUES(1)")
    twins("DETACH x")
    twins.same_content()


@test
def a_connection_ends_inside_a_transaction():
    twins = Twins(creation=SCHEMA)
    twins.open("second")
    twins("BEGIN IMMEDIATE")
    twins("DELETE FROM t")
    twins("INSERT INTO t(a) VALUES(1)", who="second")
    twins.close()
    twins("SELECT count(*) FROM t", who="second")
    twins("INSERT INTO t(a) VALUES(1)", who="second")
    twins.same_content()


# --- copies ---------------------------------------------------------------------------------------------------------------


@test
def backups_into_and_from_a_replica():
    for source_size, target_size, target_new in itertools.product((512, 4096, 65536), (1024, 4096), (True, False)):
        twins = Twins(empty=True)
        for side in twins.sides:
            target = side.connection()
            if not target_new:
                target.execute(f"PRAGMA page_size={target_size}")
                target.execute("CREATE TABLE old(x)")
                if side is twins.native:
                    target.execute("PRAGMA journal_mode=wal")
            for name, mode in (("delete.db", "delete"), ("wal.db", "wal")):
                source = sqlite3.connect(twins.plain[side] / name, isolation_level=None)
                source.execute(f"PRAGMA page_size={source_size}")
                source.execute(f"PRAGMA journal_mode={mode}")
                source.executescript(SCHEMA)
                source.execute("INSERT INTO t(b) VALUES(zeroblob(200000))")
                side.connections[name] = source
        # From a source of another page size: natively refused if the target is in WAL mode.
        for name, pages in (("delete.db", -1), ("wal.db", 3), ("delete.db", 1)):
            twins.each(f"backup of {name}, {source_size} to {target_size}", lambda side: side.connection(name).backup(
                side.connection(), pages=pages))
            twins("SELECT count(*), sum(length(b)) FROM t")
            twins("PRAGMA page_size")
            twins("INSERT INTO t(a) VALUES(9)")
            twins("PRAGMA integrity_check")
            if target_new and twins.native.connection().execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                twins.native.connection().execute("PRAGMA journal_mode=wal")
        for side in twins.sides:
            side.connections["back"] = sqlite3.connect(twins.plain[side] / "back.db", isolation_level=None)
        twins.each("backup out of it", lambda side: side.connection().backup(side.connection("back"), pages=7))
        for statement in ("SELECT * FROM sqlite_schema", "PRAGMA integrity_check", "PRAGMA page_size", "CREATE TABLE v(x)"):
            twins(statement, who="back")
        twins.same_content()


@test
def a_backup_while_its_source_is_written():
    twins = Twins(creation=SCHEMA)
    twins(FILL.format(2000))
    twins.open("writer")
    for writer in ("writer", 0):  # another connection: the backup starts again; the same: it is told of each page
        for side in twins.sides:
            side.connections["copy"] = sqlite3.connect(":memory:", isolation_level=None)
        steps = [0]

        def write(side, writer=writer, steps=steps):
            steps[0] += 1
            if steps[0] % 5 == 0 and steps[0] < 50:
                side.connection(writer).execute("UPDATE t SET a = a + 1 WHERE id % 10 = 0")

        def backup(side):
            steps[0] = 0
            side.connection().backup(side.connection("copy"), pages=2, sleep=0.0001, progress=lambda *_: write(side))
        twins.each("backup beside writes", backup)
        twins("SELECT count(*), sum(a), sum(length(b)) FROM t", who="copy")
        twins("PRAGMA integrity_check", who="copy")
    twins.same_content()


@test
def a_backup_into_a_database_that_others_use():
    twins = Twins(creation=SCHEMA)
    twins.open("reader")
    for side in twins.sides:
        side.connections["source"] = sqlite3.connect(":memory:", isolation_level=None)
    twins("CREATE TABLE n(x)", who="source")
    twins("INSERT INTO n VALUES(zeroblob(50000))", who="source")
    twins("BEGIN", who="reader")
    twins("SELECT count(*) FROM t", who="reader")
    twins.each("backup", lambda side: side.connection("source").backup(side.connection()))
    twins("SELECT count(*) FROM t", who="reader")
    twins("COMMIT", who="reader")
    twins("SELECT length(x) FROM n", who="reader")
    twins("BEGIN IMMEDIATE", who="reader")
    twins("INSERT INTO n VALUES(1)", who="reader")

    def busy(side):  # Python's backup() sleeps while it is busy: one look is enough
        tries = []

        def stop(*_):
            tries.append(1)
            if len(tries) > 3:
                raise sqlite3.OperationalError("still busy")
        side.connection("source").backup(side.connection(), pages=1, sleep=0.001, progress=stop)
    twins.each("backup beside a writer", busy)
    twins("ROLLBACK", who="reader")
    twins.same_content()


@test
def vacuum_and_vacuum_into():
    for auto_vacuum, size in itertools.product((0, 1, 2), (512, 4096)):
        twins = Twins(creation=f"PRAGMA page_size={size}; PRAGMA auto_vacuum={auto_vacuum};" + SCHEMA)
        twins(FILL.format(500))
        twins("DELETE FROM t WHERE id % 2")
        for pragma in ("auto_vacuum", "freelist_count", "page_count", "incremental_vacuum(3)", "page_count", "incremental_vacuum", "page_count"):
            twins(f"PRAGMA {pragma}")
        for other in (0, 1, 2):
            twins(f"PRAGMA auto_vacuum={other}")
            twins("VACUUM")
            twins("PRAGMA auto_vacuum")
            twins("PRAGMA page_count")
        twins("BEGIN")
        twins("VACUUM")
        twins("COMMIT")
        for target in ("{uri:copy.db}", "{plain:copy.db}"):
            twins(f"VACUUM INTO '{target}'")
            twins(f"VACUUM INTO '{target}'")  # refused: not empty
        twins.open("copy", name="copy.db")
        for statement in ("PRAGMA page_size", "SELECT count(*), sum(a) FROM t", "INSERT INTO t(a) VALUES(1)", "PRAGMA integrity_check"):
            twins(statement, who="copy")
        for side in twins.sides:
            side.connections["plain"] = sqlite3.connect(twins.plain[side] / "copy.db", isolation_level=None)
        for statement in ("SELECT count(*), sum(a) FROM t", "PRAGMA journal_mode", "INSERT INTO t(a) VALUES(1)", "PRAGMA integrity_check"):
            twins(statement, who="plain")
        twins("VACUUM INTO '/no/such/place.db'")
        twins.open("reader")
        twins("BEGIN", who="reader")
        twins("SELECT count(*) FROM t", who="reader")
        twins("VACUUM")
        twins("SELECT count(*) FROM t", who="reader")
        twins("COMMIT", who="reader")
        twins.same_content()


@test
def serialize_and_deserialize():
    twins = Twins(creation=SCHEMA)
    twins("UPDATE t SET a = a * 2")

    def copy(side):
        image = side.connection().serialize()
        check(image[72:92] == bytes(20), "the stamp is in the image")
        memory = sqlite3.connect(":memory:", isolation_level=None)
        if side is twins.native:  # an image in WAL mode cannot be opened in memory
            image = image[:18] + b"\x01\x01" + image[20:]
        memory.deserialize(image)
        memory.execute("INSERT INTO t(a) VALUES(1)")
        return memory.execute("SELECT * FROM t").fetchall() + memory.execute("PRAGMA integrity_check").fetchall()
    twins.each("a copy by serialize", copy)
    image = twins.native.connection().serialize()
    image = image[:18] + b"\x01\x01" + image[20:]

    def replace(side):
        side.connection().deserialize(image)  # the connection is then one to a database in memory
        side.connection().execute("DELETE FROM t")
        return side.connection().execute("SELECT count(*) FROM t").fetchone()
    twins.each("deserialize", replace)
    twins.open()
    twins("SELECT count(*) FROM t")
    twins.same_content()


# --- what SQL can do ------------------------------------------------------------------------------------------------------


FEATURES = """
CREATE VIRTUAL TABLE f USING fts5(title, body, tokenize='porter')
INSERT INTO f VALUES('first', 'running dogs'), ('second', 'a dog runs')
SELECT title, snippet(f, 1, '[', ']', '', 5), bm25(f) FROM f WHERE f MATCH 'dog' ORDER BY rank
INSERT INTO f(f) VALUES('optimize')
INSERT INTO f(f) VALUES('integrity-check')
DELETE FROM f WHERE rowid = 1
CREATE VIRTUAL TABLE f4 USING fts4(body)
INSERT INTO f4 VALUES('some words'), ('more words')
SELECT docid FROM f4 WHERE body MATCH 'words'
CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, y0, y1)
INSERT INTO box SELECT id, a, a + 1, a, a + 2 FROM t
SELECT id FROM box WHERE x0 >= 2 ORDER BY id
CREATE TABLE w(k TEXT, n INT, v, PRIMARY KEY(k, n)) WITHOUT ROWID, STRICT
CREATE TABLE w(k TEXT, n INT, v ANY, PRIMARY KEY(k, n)) WITHOUT ROWID, STRICT
INSERT INTO w VALUES('a', 1, zeroblob(9000)), ('b', 2, NULL)
INSERT INTO w VALUES('a', 1, 'again')
INSERT INTO w VALUES('a', 1, 'again') ON CONFLICT DO UPDATE SET v = excluded.v || n RETURNING *
INSERT INTO w VALUES('a', 'not a number', 1)
CREATE TABLE g(a INT, b AS (a * 2), c AS (a || 'x') STORED CHECK(a <> 13), UNIQUE(c))
INSERT INTO g(a) VALUES(1), (2)
INSERT INTO g(a) VALUES(2)
INSERT INTO g(a) VALUES(13)
INSERT INTO g(b) VALUES(13)
UPDATE g SET a = a + 10 RETURNING a, b, c
CREATE TABLE p(id INTEGER PRIMARY KEY)
CREATE TABLE q(p REFERENCES p ON DELETE CASCADE ON UPDATE SET NULL, o REFERENCES p DEFERRABLE INITIALLY DEFERRED)
PRAGMA foreign_keys=1
INSERT INTO p VALUES(1), (2)
INSERT INTO q VALUES(1, 2)
INSERT INTO q VALUES(9, 2)
BEGIN
INSERT INTO q VALUES(2, 77)
COMMIT
INSERT INTO p VALUES(77)
COMMIT
DELETE FROM p WHERE id = 2
UPDATE p SET id = 5 WHERE id = 1
SELECT * FROM q
PRAGMA foreign_key_check
CREATE TABLE log(what, at DEFAULT 'never')
CREATE TRIGGER t_i AFTER INSERT ON t BEGIN INSERT INTO log(what) VALUES('i' || new.id); SELECT RAISE(IGNORE) WHERE new.a = 99; END
CREATE TRIGGER t_u BEFORE UPDATE OF a ON t WHEN new.a < 0 BEGIN SELECT RAISE(ABORT, 'negative'); END
CREATE VIEW both AS SELECT a, b FROM t
CREATE TRIGGER both_i INSTEAD OF INSERT ON both BEGIN INSERT INTO t(a, b) VALUES(new.a, new.b); END
INSERT INTO both VALUES(50, 'by a view'), (99, 'ignored')
UPDATE t SET a = -1
SELECT * FROM log
SELECT last_insert_rowid(), changes()
CREATE TEMP TABLE s AS SELECT * FROM t
CREATE TEMP TRIGGER s_i AFTER INSERT ON main.t BEGIN DELETE FROM s WHERE id = 1; END
INSERT INTO t(a) VALUES(60)
SELECT count(*) FROM s
CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, x)
INSERT INTO auto(x) VALUES(1), (2)
DELETE FROM auto
INSERT INTO auto(x) VALUES(3) RETURNING id
SELECT * FROM sqlite_sequence
CREATE INDEX partial ON t(b) WHERE a > 2
CREATE INDEX expression ON t(a % 3, lower(b) COLLATE NOCASE DESC)
ANALYZE
SELECT * FROM sqlite_stat1 ORDER BY 1, 2
EXPLAIN QUERY PLAN SELECT * FROM t WHERE a = 1
REINDEX
ALTER TABLE t RENAME COLUMN b TO text
ALTER TABLE t ADD COLUMN d DEFAULT 'd'
ALTER TABLE t DROP COLUMN d
ALTER TABLE t RENAME TO renamed
SELECT * FROM renamed
SELECT name, sql FROM sqlite_schema ORDER BY 1
WITH RECURSIVE x(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM x WHERE i < 10) SELECT sum(i), group_concat(i) FROM x
SELECT id, row_number() OVER (ORDER BY a DESC) FROM renamed
SELECT json_extract('{"a":[1,2]}', '$.a[1]'), json_group_array(id) FROM renamed
SELECT count(*) FROM dbstat
SELECT pgno FROM sqlite_dbpage
SELECT * FROM no_such_table
CREATE TABLE renamed(x)
UPDATE renamed SET nothing = 1
PRAGMA writable_schema=1
UPDATE sqlite_schema SET sql = sql WHERE name = 'renamed'
PRAGMA writable_schema=0
PRAGMA query_only=1
DELETE FROM renamed
PRAGMA query_only=0
DROP TABLE f
DROP TABLE f4
DROP TABLE box
PRAGMA integrity_check
PRAGMA max_page_count=40
INSERT INTO log(what) VALUES(zeroblob(1000000))
SELECT count(*) FROM log
PRAGMA max_page_count=1000000
INSERT INTO log(what) VALUES(zeroblob(1000000))
"""


@test
def features_of_sql():
    twins = Twins(creation=SCHEMA)
    for statement in FEATURES.strip().splitlines():
        twins(statement)
    twins.same_content()


@test
def user_functions_collations_and_authorisers():
    twins = Twins(creation=SCHEMA)
    for side in twins.sides:
        connection = side.connection()
        connection.create_function("twice", 1, lambda x: x * 2, deterministic=True)
        connection.create_function("fail", 0, lambda: 1 / 0)
        connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
        connection.create_aggregate("longest", 1, Longest)
    twins("CREATE INDEX doubled ON t(twice(a))")
    twins("SELECT a FROM t WHERE twice(a) = 4")
    twins("SELECT b FROM t ORDER BY b COLLATE backwards")
    twins("SELECT longest(b) FROM t")
    twins("UPDATE t SET a = twice(a)")
    twins("INSERT INTO t(a) VALUES(fail())")
    twins("INSERT INTO t(a) SELECT CASE WHEN id < 3 THEN 1 ELSE fail() END FROM t")
    for side in twins.sides:
        side.connection().set_authorizer(lambda action, one, two, *_: sqlite3.SQLITE_DENY if one == "t" and two == "b" else sqlite3.SQLITE_OK)
    twins("SELECT b FROM t")
    for side in twins.sides:
        side.connection().set_authorizer(None)
    twins.open()
    twins("SELECT count(*) FROM t")
    twins("INSERT INTO t(a) VALUES(1)")  # the index needs a function that is not there
    twins("DROP INDEX doubled")
    twins.same_content()


class Longest:
    def __init__(self):
        self.text = ""

    def step(self, text):
        self.text = max(self.text, text or "", key=len)

    def finalize(self):
        return self.text


@test
def incremental_blobs():
    twins = Twins(creation=SCHEMA)
    twins("UPDATE t SET b = zeroblob(70000) WHERE id = 1")
    twins.open("second")

    def blob(action, who=0, row=1, **arguments):
        def run(side):
            with side.connection(who).blobopen("t", "b", row, **arguments) as handle:
                return action(side, handle)
        return twins.each("a blob", run)
    blob(lambda side, handle: handle.write(b"x" * 5000))
    blob(lambda side, handle: (handle.seek(60000), handle.write(b"y" * 10000))[1])
    blob(lambda side, handle: (len(handle), handle.read(6), handle[69999]), readonly=True)
    blob(lambda side, handle: handle.write(b"n"), readonly=True)
    blob(lambda side, handle: handle.read(), row=77)
    # The row changes under an open handle: SQLITE_ABORT.
    blob(lambda side, handle: (side.connection().execute("UPDATE t SET a = 0 WHERE id = 1"), handle.read(1))[1])
    # Another writer beside an open handle.
    blob(lambda side, handle: (handle.write(b"w"), side.connection("second").execute("INSERT INTO t(a) VALUES(1)").fetchall()))
    twins("BEGIN")
    blob(lambda side, handle: handle.write(b"rolled back"))
    twins("ROLLBACK")
    twins("SELECT count(*), sum(length(b)), substr(b, 1, 11) FROM t")
    twins.same_content()


# --- time -----------------------------------------------------------------------------------------------------------------


@test
def interrupt_and_progress_handlers():
    twins = Twins(creation=SCHEMA)
    twins(FILL.format(5000))
    twins("PRAGMA cache_size=5")

    def count_to(limit):
        steps = [0]

        def handler():
            steps[0] += 1
            return steps[0] >= limit
        return handler
    for limit in (1, 10, 30):
        for statement in ("UPDATE t SET a = a + 1, b = b || 'y'", "SELECT sum(length(b)) FROM t, (SELECT 1 UNION SELECT 2)", "VACUUM",
                          "DELETE FROM t"):
            for transaction in (False, True):
                if transaction:
                    twins("BEGIN")
                for side in twins.sides:
                    side.connection().set_progress_handler(count_to(limit), 1000)
                twins(statement)
                for side in twins.sides:
                    side.connection().set_progress_handler(None, 0)
                twins("SELECT count(*), sum(a), sum(length(b)) FROM t")
                if transaction:
                    twins("ROLLBACK")
        twins("SELECT count(*), sum(a), sum(length(b)) FROM t")
    for side in twins.sides:
        connection = side.connection()
        connection.create_function("interrupt", 0, connection.interrupt)
    twins("UPDATE t SET a = 0, b = CASE WHEN id = 4000 THEN interrupt() END")
    twins("SELECT count(*), sum(a) FROM t")
    twins.same_content()


@test
def busy_timeouts():
    twins = Twins(creation=SCHEMA)
    twins.open("second")
    for statement in ("PRAGMA busy_timeout=60", "PRAGMA busy_timeout"):
        twins(statement)
    twins("BEGIN IMMEDIATE", who="second")
    twins("INSERT INTO t(a) VALUES(1)", who="second")
    for statement in ("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "INSERT INTO t(a) VALUES(2)", "SELECT count(*) FROM t", "VACUUM",
                      "CREATE TABLE u(x)", "PRAGMA user_version=3"):
        waits = {}
        for side in twins.sides:
            began = time.monotonic()
            side.last = ask(lambda: side.connection().execute(statement))
            waits[side] = time.monotonic() - began
        twins.compare(statement, [side.last for side in twins.sides])
        check(all(wait > 0.055 for side, wait in waits.items() if side.last.error is not None), f"{statement}: {waits}")
        check(all(wait < 10 for wait in waits.values()), f"{statement}: {waits}")
    twins("BEGIN")
    twins("SELECT count(*) FROM t")
    twins("INSERT INTO t(a) VALUES(3)")  # at once: a reader that waited for a writer could wait for ever
    twins("COMMIT", who="second")
    twins("INSERT INTO t(a) VALUES(3)")  # stale
    twins("SELECT count(*) FROM t")
    twins("COMMIT")
    twins("INSERT INTO t(a) VALUES(3)")
    twins.same_content()


@test
def a_statement_that_is_not_reset_while_others_write():
    twins = Twins(creation=SCHEMA)
    twins(FILL.format(300))
    twins.open("second")
    cursors = {side: side.connection().execute("SELECT id, a FROM t ORDER BY id") for side in twins.sides}
    twins.each("first rows", lambda side: cursors[side].fetchmany(5))
    twins("INSERT INTO t(a) VALUES(1)", who="second")
    twins("SELECT count(*) FROM t", who="second")
    twins("SELECT count(*) FROM t")  # the snapshot of the open statement
    twins("INSERT INTO t(a) VALUES(2)")  # stale
    twins.each("more rows", lambda side: cursors[side].fetchmany(5))
    twins("BEGIN")
    twins("COMMIT")
    twins.each("the rest", lambda side: len(cursors[side].fetchall()))
    twins("INSERT INTO t(a) VALUES(2)")
    # Writes of its own under an open statement.
    cursors = {side: side.connection().execute("SELECT id, a FROM t ORDER BY id") for side in twins.sides}
    twins.each("first rows", lambda side: cursors[side].fetchmany(5))
    for number in range(5):
        twins("UPDATE t SET a = ? WHERE id > 200", number)
        twins.each("rows", lambda side: cursors[side].fetchmany(3))
        twins("INSERT INTO t(a) VALUES(7)")
        twins("BEGIN")
        twins("DELETE FROM t WHERE id = ?", 150 + number)
        twins("ROLLBACK" if number == 4 else "COMMIT")
    twins("SELECT count(*) FROM t", who="second")
    twins("INSERT INTO t(a) VALUES(8)", who="second")
    twins("INSERT INTO t(a) VALUES(9)")
    twins.each("the rest", lambda side: cursors[side].fetchall())
    twins("DROP TABLE t", who="second")
    twins("SELECT count(*) FROM t")
    twins.same_content()


# --- names and flags ------------------------------------------------------------------------------------------------------


def opened(side, name, sql="SELECT count(*) FROM t", parameters=""):
    """Answer to sql on a connection of its own, by this URI without a query."""
    connection = sqlite3.connect(f"{name}?vfs={side.vfs}{parameters}", uri=True, isolation_level=None)
    with contextlib.closing(connection):
        return connection.execute(sql).fetchall()


@test
def spellings_of_a_name():
    twins = Twins(creation=SCHEMA)
    links = temporary("links")
    links.mkdir()
    for side in twins.sides:
        (side.directory / "sub").mkdir()
        (links / side.name).symlink_to(side.directory)
        (links / f"{side.name}.db").symlink_to(side.path("twin.db"))
        side.path("alias.db").symlink_to("twin.db")
    spellings = ["file:{directory}/twin.db", "file://{directory}/twin.db", "file://localhost{directory}/twin.db",
                 "file:{directory}//twin.db", "file:{directory}/./twin.db", "file:{directory}/sub/../twin.db",
                 "file:{directory}/twin%2edb", "file:twin.db", "file:./twin.db", "file:sub/../twin.db",
                 "file:../{base}/twin.db", "file:{links}/{name}/twin.db", "file:{links}/{name}.db", "file:alias.db",
                 "file:{links}/{name}/alias.db"]
    for number, spelling in enumerate(spellings):

        def name(side, spelling=spelling):
            os.chdir(side.directory)
            return spelling.format(directory=side.directory, base=side.directory.name, links=links, name=side.name)
        twins.each(f"write by {spelling}", lambda side: opened(side, name(side), f"INSERT INTO t(a) VALUES({number}) RETURNING id"))
        twins("SELECT count(*) FROM t")
    for wrong in ("file://elsewhere{directory}/twin.db", "file:{directory}/absent/twin.db", "file:{directory}/sub", "file:{directory}",
                  "file:" + "/x" * 300 + "/twin.db"):
        twins.each(f"open {wrong}", lambda side: opened(side, wrong.format(directory=side.directory)))
    code, body = twins.raftd.get("/db")
    equal([database["name"] for database in json.loads(body)["databases"]] if code == 200 else code, ["twin.db"], "databases")
    twins.same_content()


@test
def names_of_databases():
    twins = Twins(creation=SCHEMA)
    names = ["with space.db", "été.db", "数据库", "a'quote\".db", "percent%41.db", "question?.db", "hash#.db", "no-suffix", "UPPER.DB", "semi;colon.db",
             "a" * 196 + ".db", "-starts-with-dash.db", "back\\slash.db", "x.db-old"]
    for number, name in enumerate(names):
        quoted = urllib.parse.quote(name)
        make = "CREATE TABLE t(x)"
        twins.each(f"create {name}", lambda side: opened(side, f"file:{side.directory}/{quoted}", make))
        twins.each(f"write {name}", lambda side: opened(side, f"file:{side.directory}/{quoted}", "INSERT INTO t VALUES(1)"))
        twins.each(f"read {name}", lambda side: opened(side, f"file:{side.directory}/{quoted}"))
        check(twins.ours.path(name).exists(), f"{name} is not there under its name")
        equal(twins.raftd.request("DELETE", f"/db?db={quoted}")[0], 200, f"drop {name}")
    # docs/operating.md: names that a replicated database cannot have, and other directories.
    twins.ours.path("sub").mkdir()
    for name in ("a" * 201, "new\nline.db", ".hidden.db", "x.db-wal", "x.db-journal", "x.db-shm", "x.db-rqctl", "raftd.sock", "sub/x.db"):
        answer = ask(lambda: opened(twins.ours, f"file:{twins.ours.directory}/{urllib.parse.quote(name)}", "CREATE TABLE t(x)"))
        equal(answer.error and answer.error[0], sqlite3.SQLITE_CANTOPEN, f"open {name}")
        check(name == "raftd.sock" or not twins.ours.path(name).exists(), f"{name} was made")
    answer = ask(lambda: opened(twins.ours, f"file:{temporary('elsewhere.db')}", "CREATE TABLE t(x)"))
    equal(answer.error and answer.error[0], sqlite3.SQLITE_CANTOPEN, "a directory that is not served")


@test
def how_a_database_is_opened():
    twins = Twins(creation=SCHEMA)
    script = ("SELECT count(*) FROM t", "INSERT INTO t(a) VALUES(1)", "BEGIN IMMEDIATE", "COMMIT", "CREATE TEMP TABLE x AS SELECT * FROM t",
              "PRAGMA user_version=3", "VACUUM", "PRAGMA query_only", "SELECT count(*) FROM x", "PRAGMA page_count", "PRAGMA synchronous")
    for parameters in ({"mode": "ro"}, {"mode": "rw"}, {"mode": "rwc"}, {"mode": "memory"}, {"cache": "private"}, {"cache": "shared"},
                       {"psow": 0}, {"mode": "wrong"}, {"cache": "wrong"}, {"nonsense": 1}, {"timeout": "x"}, {"vfs": "none-such"}):
        twins.close()
        if twins.open(**parameters) is None:
            for statement in script:
                twins(statement)
    for mode in ("ro", "rw", "wrong"):
        twins.open("absent", name="absent.db", mode=mode)
        check(not twins.ours.path("absent.db").exists(), "a database was made")
    for parameters in ("immutable=1", "nolock=1"):
        answer = ask(lambda: opened(twins.ours, f"file:{twins.ours.path('twin.db')}", parameters=f"&{parameters}"))
        equal(answer.error and answer.error[0], sqlite3.SQLITE_CANTOPEN, parameters)
    for name in ("file:", "file::memory:"):
        for statement in ("CREATE TABLE t(x)", "PRAGMA page_size", "PRAGMA journal_mode"):
            twins.each(f"{statement} in {name}", lambda side: opened(side, name, statement))
    twins.open()
    twins.same_content()


@test
def opening_alone_makes_no_database():
    twins = Twins(empty=True)
    twins.open(name="new.db")
    for statement in ("SELECT count(*) FROM sqlite_schema", "PRAGMA page_count", "BEGIN", "CREATE TABLE t(x)", "ROLLBACK",
                      "SELECT * FROM t", "PRAGMA page_size=8192", "BEGIN IMMEDIATE", "COMMIT", "CREATE TABLE t(x)", "PRAGMA page_size"):
        twins(statement)
    twins.open("second", name="new.db")
    twins("INSERT INTO t VALUES(1)", who="second")
    twins("SELECT * FROM t")


@test
def a_file_that_was_there_before():
    twins = Twins(creation=SCHEMA)
    for side in twins.sides:
        side.path("touched.db").touch()  # a database without content, as some programs make it
        side.connections["stock"] = sqlite3.connect(side.path("stock.db"), isolation_level=None)
    twins.open("touched", name="touched.db")
    twins("CREATE TABLE t(x)", who="touched")
    twins("SELECT * FROM t", who="touched")
    # Of another maker: left alone, so it cannot be opened as if it were replicated.
    twins("CREATE TABLE t(x)", who="stock")
    answer = ask(lambda: twins.ours.open("stock.db"))
    equal(answer.error, (sqlite3.SQLITE_CANTOPEN, "unable to open database file"))
    twins("INSERT INTO t VALUES(1)", who="stock")


@test
def shared_cache():
    twins = Twins(creation=SCHEMA)
    twins.close()
    for who in (0, 1, 2):
        twins.open(who, cache="shared")
    twins("BEGIN")
    twins("INSERT INTO t(a) VALUES(1)")
    twins("SELECT count(*) FROM t", who=1)
    twins("INSERT INTO t(a) VALUES(1)", who=1)
    twins("PRAGMA read_uncommitted=1", who=2)
    twins("SELECT count(*) FROM t", who=2)
    twins("COMMIT")
    twins("INSERT INTO t(a) VALUES(1)", who=1)
    twins("SELECT count(*) FROM t", who=2)
    twins("BEGIN IMMEDIATE")
    twins("DELETE FROM t")
    twins("ROLLBACK")
    twins("SELECT count(*) FROM t", who=1)
    twins.close()
    twins.close(1)
    twins.close(2)
    twins.same_content()


# --- threads and processes ------------------------------------------------------------------------------------------------


@test
def one_connection_used_by_many_threads():
    twins = Twins(creation=SCHEMA)
    equal(sqlite3.threadsafety, 3, "SQLite here is in serialized mode")
    twins("PRAGMA busy_timeout=20000")

    def work(side):
        def run(number):
            for step in range(50):
                side.connection().execute("UPDATE t SET a = a + 1")
                side.connection().execute("INSERT INTO t(a) VALUES(0)")
                side.connection().execute("SELECT count(*) FROM t").fetchall()
        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return side.connection().execute("SELECT count(*) FROM t").fetchall()
    twins.each("four threads on one connection", work)
    twins.each("first row", lambda side: side.connection().execute("SELECT a FROM t WHERE id = 1").fetchall())


@test
def a_child_that_uses_an_inherited_connection_is_told_misuse():
    twins = Twins(creation=SCHEMA)
    ours = twins.ours.connection()
    cursor = ours.execute("SELECT * FROM t")
    cursor.fetchone()
    child = os.fork()
    if child == 0:
        codes = [ask(lambda statement=statement: ours.execute(statement)) for statement in
                 ("SELECT * FROM sqlite_schema", "INSERT INTO t(a) VALUES(1)", "BEGIN IMMEDIATE", "PRAGMA user_version=7")]
        own = twins.ours.open("twin.db")
        own.execute("INSERT INTO t(a) VALUES(100)")
        ours.close()  # of the inherited one: harmless to the parent
        own.execute("INSERT INTO t(a) VALUES(100)")
        wrong = [answer for answer in codes[1:] if not answer.error or answer.error[0] != sqlite3.SQLITE_MISUSE]
        print(codes)
        os._exit(len(wrong))
    equal(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0, "answers that were not SQLITE_MISUSE")
    equal(len(cursor.fetchall()), 2, "the rest of the statement that was open over the fork")
    ours.execute("INSERT INTO t(a) VALUES(100)")
    equal(value(ours, "SELECT count(*) FROM t WHERE a = 100"), 3)


@test
def calls_of_the_c_interface():
    raftd = Raftd()
    native = temporary("native")
    native.mkdir()
    result = subprocess.run([BUILD / "tests" / "e2e" / "twin_calls", EXTENSION, native, raftd.directory], capture_output=True, text=True,
                            timeout=200)
    print(result.stdout, result.stderr)
    equal(result.returncode, 0, "exit code")


main()
