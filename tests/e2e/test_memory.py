"""What is big passes through files: VACUUM of a database and one huge transaction, with little memory in either process.

RQ_MEGABYTES is the size of the database (150); `make soak` takes 1024.  The limit is the same for both: what was measured is
56 MiB in the application and 45 MiB in raftd at 1 GiB, most of it the two buffers that spill at 16 MiB each."""

import os
import re
import threading

from harness import SANITIZER, Raftd, Skip, check, equal, finish, main, python, shell_stock, test, wait_for

MEGABYTES = int(os.environ.get("RQ_MEGABYTES", "150"))
LIMIT_KIB = 80 * 1024
SECONDS = 120 + MEGABYTES

FILL = """
import sys
from harness import connect
connection = connect(sys.argv[1])
connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
for _ in range(int(sys.argv[2]) // 10):
    connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 2500) "
                       "INSERT INTO t(b) SELECT randomblob(4000) FROM n")
"""

RUN = """
import sys
from harness import connect
connection = connect(sys.argv[1])
connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
print("ready", flush=True)
sys.stdin.readline()
connection.execute(sys.argv[2])
print("done", connection.execute("PRAGMA page_count").fetchone()[0], flush=True)
"""


def private_kib(pid):
    """Memory that this process alone answers for: what it wrote, and what it has mapped of files as the only one."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        fields = dict(re.findall(r"^(\w+): +(\d+) kB", file.read(), re.MULTILINE))
    return int(fields["Private_Dirty"]) + int(fields["Private_Clean"])


class Peak:
    """Looks at processes until the end of the block."""

    def __init__(self, **pids):
        self.pids, self.kib = pids, dict.fromkeys(pids, 0)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.stop.wait(0.003):
            for name, pid in self.pids.items():
                try:
                    self.kib[name] = max(self.kib[name], private_kib(pid))
                except (OSError, KeyError):
                    pass  # it has ended

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def measured_raftd():
    if SANITIZER:
        raise Skip("a sanitizer's own memory would be measured")
    return Raftd()


def run_measured(raftd, sql):
    process = python(RUN, raftd.path(), sql, stdin=-1)
    equal(process.stdout.readline(), "ready\n")
    with Peak(application=process.pid, raftd=raftd.process.pid) as peak:
        output = finish_line(process)
    print(f"{sql[:50]}: {output}; peak KiB of private memory {peak.kib}")
    for name, kib in peak.kib.items():
        check(0 < kib < LIMIT_KIB, f"{name} needed {kib} KiB for: {sql[:50]}")


def finish_line(process):
    output, _ = process.communicate("go\n", timeout=SECONDS)
    equal(process.returncode, 0, f"exit code of a process that printed\n{output}")
    return output.strip()


@test(seconds=SECONDS)
def vacuum_needs_little_memory():
    raftd = measured_raftd()
    finish(python(FILL, raftd.path(), MEGABYTES), SECONDS)
    run_measured(raftd, "VACUUM")
    equal(shell_stock(raftd.path(), "PRAGMA quick_check; SELECT count(*) FROM t;"), f"ok\n{MEGABYTES // 10 * 2500}")


@test(seconds=SECONDS)
def one_transaction_of_a_million_rows_needs_little_memory():
    raftd = measured_raftd()
    finish(python(FILL, raftd.path(), 10))
    rows = 1000000
    run_measured(raftd, f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < {rows}) "
                        "INSERT INTO t(b) SELECT printf('row %d of a transaction that is not small', i) FROM n")
    run_measured(raftd, "UPDATE t SET b = b || ' and changed'")
    run_measured(raftd, "DELETE FROM t")
    equal(shell_stock(raftd.path(), "PRAGMA quick_check; SELECT count(*) FROM t;"), "ok\n0")
    raftd.kill()
    raftd.start()
    wait_for(lambda: shell_stock(raftd.path(), "SELECT count(*) FROM t;") == "0", "the end is there after a restart")


main()
