"""Programs whose connection string cannot be changed: RQVFS_DEFAULT=1, and LD_PRELOAD."""

import os
import subprocess
import sys

from harness import EXTENSION, SANITIZER, Raftd, Skip, check, equal, finish, main, needs, python, shell, shell_stock, temporary, test

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
def a_database_that_is_opened_can_make_it_the_default():
    raftd = Raftd()
    elsewhere = temporary("elsewhere.db")
    program = """
import sqlite3, sys, harness
harness.load_extension()
def rows(name):
    connection = sqlite3.connect(name, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
    connection.execute("INSERT INTO t VALUES(1)")
    return connection.execute("SELECT count(*) FROM t").fetchone()[0]
directory, elsewhere = sys.argv[1:]
def opens(uri):
    try:
        sqlite3.connect(uri, uri=True).execute("PRAGMA schema_version").fetchone()
        return True
    except sqlite3.OperationalError:
        return False
# Neither said nor opened: nothing has changed.
first = [opens(f"file:{directory}/app.db?vfs=rqvfs&default=0"), opens(f"file:{elsewhere}?vfs=rqvfs&default=1"), rows(elsewhere),
         rows(f"{directory}/native.db")]
second = [opens(f"file:{directory}/app.db?vfs=rqvfs&default=1"), rows(elsewhere), rows(f"{directory}/plain.db"), rows(":memory:")]
print(first, second)
"""
    equal(finish(python(program, raftd.directory, elsewhere)), "[True, False, 1, 1] [True, 2, 1, 1]\n")
    raftd.stop()
    equal([is_replicated(path) for path in (elsewhere, raftd.path("native.db"), raftd.path("plain.db"))], [False, False, True])


@test
def a_database_that_is_attached_can_make_it_the_default():
    raftd = Raftd()
    result = shell(f".load {EXTENSION.with_suffix('')}\nATTACH 'file:{raftd.path()}?vfs=rqvfs&default=1' AS app;\n"
                   f".open {raftd.path('plain.db')}\nCREATE TABLE t(x); INSERT INTO t VALUES(9); SELECT x FROM t;\n")
    equal((result.stdout, result.stderr), ("9\n", ""), "the shell's output")
    raftd.stop()
    equal(is_replicated(raftd.path("plain.db")), True, "plain.db is a replica")


@test
def preload_needs_no_change_of_a_program():
    raftd = Raftd()
    for wanted in ("1\n", "2\n"):
        equal(finish(python(PLAIN_PROGRAM, raftd.path(), env={"LD_PRELOAD": str(EXTENSION)})), wanted, "rows")
    equal(shell_stock(raftd.path(), "SELECT count(*) FROM t;"), "2")
    raftd.stop()
    equal(is_replicated(raftd.path()), True, "app.db is a replica")


# Programs as they are found: a plain path, nothing of rqvfs.  Each prints the number of rows.
PLAIN_PROGRAMS = {
    "php": ["-r", """$db = new PDO("sqlite:" . $argv[1]); $db->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
        $db->exec("CREATE TABLE IF NOT EXISTS t(x)"); $db->exec("INSERT INTO t VALUES(1)");
        echo $db->query("SELECT count(*) FROM t")->fetchColumn(), "\\n";""", "--"],
    "ruby": ["-e", """require "sqlite3"; db = SQLite3::Database.new(ARGV[0])
        db.execute("CREATE TABLE IF NOT EXISTS t(x)"); db.execute("INSERT INTO t VALUES(1)")
        puts db.get_first_value("SELECT count(*) FROM t")"""],
    "perl": ["-MDBI", "-e", """my $db = DBI->connect("dbi:SQLite:dbname=$ARGV[0]", "", "", {RaiseError => 1});
        $db->do("CREATE TABLE IF NOT EXISTS t(x)"); $db->do("INSERT INTO t VALUES(1)");
        print $db->selectrow_array("SELECT count(*) FROM t"), "\\n";"""],
    "node": ["-e", """const sqlite3 = require("sqlite3"); const db = new sqlite3.Database(process.argv[1]);
        db.serialize(() => { db.run("CREATE TABLE IF NOT EXISTS t(x)"); db.run("INSERT INTO t VALUES(1)");
            db.get("SELECT count(*) AS n FROM t", (error, row) => console.log(error || row.n)); });"""],
}


def preload_test(language, command):
    def function():
        needs(language)
        raftd = Raftd()
        elsewhere = temporary("elsewhere.db")
        for path, wanted in ((raftd.path(), "1"), (raftd.path(), "2"), (elsewhere, "1")):
            result = subprocess.run([*command, path], env={**os.environ, "LD_PRELOAD": str(EXTENSION)}, capture_output=True, text=True,
                                    timeout=60)
            equal((result.returncode, result.stdout.strip(), result.stderr), (0, wanted, ""), f"{language} on {path}")
        raftd.stop()
        equal((is_replicated(raftd.path()), is_replicated(elsewhere)), (True, False), "which file is a replica")

    function.__name__ = f"preload_serves_{language}"
    return function


for name, arguments in PLAIN_PROGRAMS.items():
    test(preload_test(name, [name, *arguments]))


@test
def preload_serves_tcl():
    needs("tclsh")
    script = temporary("plain.tcl")  # it takes no program on its command line
    script.write_text("package require sqlite3; sqlite3 db [lindex $argv 0]; db eval {CREATE TABLE IF NOT EXISTS t(x)}\n"
                      "db eval {INSERT INTO t VALUES(1)}; puts [db eval {SELECT count(*) FROM t}]\n")
    preload_test("tclsh", ["tclsh", script])()


@test
def the_default_vfs_serves_plain_names_of_a_python_program():
    raftd = Raftd()
    program = PLAIN_PROGRAM.replace("import sqlite3, sys", "import sqlite3, sys, harness\nharness.load_extension()")
    elsewhere = temporary("elsewhere.db")
    for path, wanted in ((raftd.path(), "1\n"), (raftd.path(), "2\n"), (elsewhere, "1\n"), (":memory:", "1\n"), ("", "1\n")):
        equal(finish(python(program, path, env={"RQVFS_DEFAULT": "1"})), wanted, f"rows of {path!r}")
    # docs/operating.md: the directory is flat, and a name in a subdirectory is a native file.
    raftd.path("sub").mkdir()
    equal(finish(python(program, raftd.path("sub/x.db"), env={"RQVFS_DEFAULT": "1"})), "1\n", "rows in a subdirectory")
    raftd.stop()
    equal([is_replicated(path) for path in (raftd.path(), elsewhere, raftd.path("sub/x.db"))], [True, False, False])


@test
def one_program_uses_replicated_and_plain_databases_at_once():
    raftd = Raftd()
    program = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[2], isolation_level=None)
connection.execute("PRAGMA journal_mode=wal")
connection.execute("CREATE TABLE p(x)")
connection.execute("ATTACH ? AS r", (sys.argv[1],))
connection.execute("CREATE TABLE r.t(x)")
connection.execute("BEGIN")
connection.execute("INSERT INTO t VALUES(1)")
connection.execute("INSERT INTO p SELECT x + 1 FROM t")
connection.execute("COMMIT")
connection.execute("CREATE TEMP TABLE w AS SELECT * FROM p UNION ALL SELECT * FROM t")
print(*connection.execute("SELECT sum(x), (SELECT journal_mode FROM pragma_journal_mode('main')) FROM w").fetchone())
"""
    equal(finish(python(program, raftd.path(), temporary("plain.db"), env={"LD_PRELOAD": str(EXTENSION)})), "3 wal\n")
    equal(shell_stock(raftd.path(), "SELECT x FROM t;"), "1")

@test
def preload_serves_the_stock_shell():
    raftd = Raftd()
    result = shell("CREATE TABLE t(x); INSERT INTO t VALUES(4); SELECT x FROM t;", database=raftd.path(),
                   env={"LD_PRELOAD": str(EXTENSION)})
    equal((result.stdout, result.stderr), ("4\n", ""), "the shell's output")
    raftd.stop()
    equal(is_replicated(raftd.path()), True, "app.db is a replica")


# As servers that fork their workers do: each process opens its own, before and after it has children.
PREFORK_PROGRAM = """
import os, sqlite3, sys
def insert():
    db = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
    db.execute("CREATE TABLE IF NOT EXISTS t(x)")
    db.execute("INSERT INTO t VALUES(1)")
    return db
first = insert()
first.close()
child = os.fork()
insert()
if child == 0:
    grandchild = os.fork()
    print(insert().execute("SELECT count(*) > 2 FROM t").fetchone()[0], flush=True)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) if grandchild != 0 else 0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@test
def preload_serves_processes_that_were_forked():
    raftd = Raftd()
    equal(finish(python(PREFORK_PROGRAM, raftd.path(), env={"LD_PRELOAD": str(EXTENSION)})), "1\n1\n", "what the children print")
    equal(shell_stock(raftd.path(), "SELECT count(*) FROM t;"), "5")
    raftd.stop()
    equal(is_replicated(raftd.path()), True, "app.db is a replica")


@test
def preload_is_not_noticed_elsewhere():
    environment = {**os.environ, "LD_PRELOAD": str(EXTENSION)}
    for command in (["true"], ["sh", "-c", "echo hello"], [sys.executable, "-c", "print('hello')"]):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        equal((result.returncode, result.stderr), (0, ""), f"{command} under LD_PRELOAD")
    equal(finish(python(PLAIN_PROGRAM, temporary("plain.db"), env={"LD_PRELOAD": str(EXTENSION)})), "1\n", "rows of a plain file")
    equal(finish(python(PLAIN_PROGRAM, ":memory:", env={"LD_PRELOAD": str(EXTENSION)})), "1\n", "rows in memory")


def symbols(kind):
    listed = subprocess.run(["nm", "-D", kind, EXTENSION], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].split("@")[0] for line in listed.splitlines()}


@test
def the_extension_starts_neither_threads_nor_processes_and_never_ends_its_host():
    if SANITIZER:
        raise Skip("a sanitizer brings its own")
    wanted = {"pthread_create", "thrd_create", "clone", "fork", "vfork", "posix_spawn", "system", "popen", "abort", "exit", "_exit", "signal", "sigaction"}
    equal(symbols("--undefined-only") & wanted, set(), "what it calls")


@test
def the_extension_exports_its_entry_points_only():
    names = symbols("--defined-only")
    strange = {name for name in names if not name.startswith(("sqlite3_rqvfs", "sqlite3_open", "sqlite3_extension_init"))}
    equal(strange, set(), "exported symbols that are no entry points")


main()
