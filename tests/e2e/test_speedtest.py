"""SQLite's own speedtest1, where it is installed: the same work gives the same results as natively."""

import os
import re
import shutil
import subprocess

from harness import EXTENSION, Raftd, Skip, check, equal, main, shell_stock, temporary, test

PROGRAM = os.environ.get("SPEEDTEST1") or shutil.which("speedtest1")


def results(path, vfs, **env):
    """How many bytes of results there were, and their hash."""
    command = [PROGRAM, "--vfs", vfs, "--size", "5", "--verify", path]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=300)
    equal(done.returncode, 0, done.stdout + done.stderr)
    return re.search(r"Verification Hash: (.*)", done.stdout).group(1)


@test
def speedtest1_gives_the_same_results():
    if PROGRAM is None:
        raise Skip("speedtest1 is not installed")
    raftd = Raftd()
    native = temporary("native.db")
    equal(results(raftd.path(), "rqvfs", LD_PRELOAD=str(EXTENSION)), results(native, "unix"), "what is read")
    sql = "PRAGMA integrity_check; SELECT name, sql FROM sqlite_schema ORDER BY name"
    here = shell_stock(raftd.path(), sql)
    check(here.startswith("ok\n") and here.count("CREATE TABLE") > 5, here)
    equal(here, shell_stock(native, sql), "what is left")


main()
