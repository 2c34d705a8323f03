"""Native twins, written scripts: whatever an application can notice."""

import itertools
import sqlite3

from harness import check, connect, connect_stock, equal, main, shell_stock, temporary, test, uri, value
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


@test(seconds=120)
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


@test(seconds=120)
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


@test(seconds=120)
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


@test(seconds=180)
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


main()
