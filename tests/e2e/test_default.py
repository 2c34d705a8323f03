"""Programs whose connection string cannot be changed: RQVFS_DEFAULT=1, and LD_PRELOAD."""

import os
import subprocess
import sys

from harness import EXTENSION, Raftd, check, equal, finish, main, python, shell, shell_stock, temporary, test

PLAIN_PROGRAM = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
connection.execute("INSERT INTO t VALUES(1)")
connection.commit()
print(connection.execute("SELECT count(*) FROM t").fetchone()[0])
"""


def is_replicated(path):
    with open(path, "rb") as file:
        return file.read(20)[18] == 0x52


@test
def the_default_vfs_serves_a_served_directory():
    raftd = Raftd()
    script = f".load {EXTENSION.with_suffix('')}\n.open {raftd.path()}\nCREATE TABLE t(x); INSERT INTO t VALUES(9); SELECT x FROM t;\n"
    result = shell(script, env={"RQVFS_DEFAULT": "1"})
    equal((result.stdout, result.stderr), ("9\n", ""), "the shell's output")
    raftd.stop()
    equal(is_replicated(raftd.path()), True, "app.db is a replica")


@test
def the_default_vfs_leaves_other_files_alone():
    raftd = Raftd()
    other = temporary("other.db")
    script = f".load {EXTENSION.with_suffix('')}\n.open {other}\nCREATE TABLE t(x); INSERT INTO t VALUES(9); PRAGMA journal_mode;\n"
    result = shell(script, env={"RQVFS_DEFAULT": "1"})
    equal((result.stdout, result.stderr), ("delete\n", ""), "the shell's output")
    equal(is_replicated(other), False, "a file elsewhere is a replica")
    check(not raftd.path("other.db").exists(), "something was made in the data directory")


@test
def without_the_switch_nothing_is_default():
    raftd = Raftd()
    other = temporary("other.db")
    script = f".load {EXTENSION.with_suffix('')}\n.open {other}\nCREATE TABLE t(x);\n"
    equal(shell(script).returncode, 0)
    equal(is_replicated(other), False)
    raftd.stop()


@test
def preload_needs_no_change_of_a_program():
    raftd = Raftd()
    for wanted in ("1\n", "2\n"):
        equal(finish(python(PLAIN_PROGRAM, raftd.path(), env={"LD_PRELOAD": str(EXTENSION)})), wanted, "rows")
    equal(shell_stock(raftd.path(), "SELECT count(*) FROM t;"), "2")
    raftd.stop()
    equal(is_replicated(raftd.path()), True, "app.db is a replica")


@test
def preload_serves_the_stock_shell():
    raftd = Raftd()
    result = shell("CREATE TABLE t(x); INSERT INTO t VALUES(4); SELECT x FROM t;", database=raftd.path(),
                   env={"LD_PRELOAD": str(EXTENSION)})
    equal((result.stdout, result.stderr), ("4\n", ""), "the shell's output")
    raftd.stop()
    equal(is_replicated(raftd.path()), True, "app.db is a replica")


@test
def preload_is_not_noticed_elsewhere():
    environment = {**os.environ, "LD_PRELOAD": str(EXTENSION)}
    for command in (["true"], ["sh", "-c", "echo hello"], [sys.executable, "-c", "print('hello')"]):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
        equal((result.returncode, result.stderr), (0, ""), f"{command} under LD_PRELOAD")
    equal(finish(python(PLAIN_PROGRAM, temporary("plain.db"), env={"LD_PRELOAD": str(EXTENSION)})), "1\n", "rows of a plain file")
    equal(finish(python(PLAIN_PROGRAM, ":memory:", env={"LD_PRELOAD": str(EXTENSION)})), "1\n", "rows in memory")


@test
def the_extension_exports_its_entry_points_only():
    symbols = subprocess.run(["nm", "-D", "--defined-only", EXTENSION], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in symbols.splitlines()}
    strange = {name for name in names if not name.startswith(("sqlite3_rqvfs", "sqlite3_open", "sqlite3_extension_init"))}
    equal(strange, set(), "exported symbols that are no entry points")


main()
