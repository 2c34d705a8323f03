"""End-to-end tests: real raftd processes, stock SQLite tools and bindings, on this machine.

A test is a function decorated with @test; main() runs them all, or those named on the command line, and speaks TAP.  Each one
runs in a process group of its own with its own temporary directory: when it ends, fails, crashes or takes too long, every
process that it started is killed and the directory removed.  What it printed, and the logs of its raftds, are shown when it
failed; lines that begin with NOTE in any case.

Nothing here sleeps to wait: wait_for() looks at a condition until it holds or a deadline has passed.  Deadlines end what hangs, and
measure nothing: a busy machine stands still for seconds."""

import contextlib
import ctypes
import faulthandler
import functools
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

BUILD = pathlib.Path(os.environ.get("RQ_BUILD", "build")).resolve()
SOURCE = pathlib.Path(__file__).resolve().parents[2]
RAFTD = BUILD / "raftd" / "raftd"
EXTENSION = BUILD / "ext" / "librqvfs.so"
# As .ci/sanitize starts the tests: "asan", "tsan", or "".
SANITIZER = next((name for name in ("asan", "tsan") if f"lib{name}.so" in os.environ.get("LD_PRELOAD", "")), "")
NOT_UNDER_TSAN = {"sh": "does not start", "node": "has races of its own"}

# Extended result codes of rqvfs (docs/protocol.md).
BUSY_AWAY = sqlite3.SQLITE_BUSY | 81 << 8
IOERR_UNKNOWN = sqlite3.SQLITE_IOERR | 81 << 8
CORRUPT_QUARANTINED = sqlite3.SQLITE_CORRUPT | 81 << 8

_tests = []
_directory = None  # of the running test


class Skip(Exception):
    """Raised by a test that cannot run on this machine; says why."""


def test(function=None, *, seconds=240):
    """Registers a test; it fails when it takes longer than seconds."""

    def register(function):
        _tests.append((function, seconds))
        return function

    return register(function) if function else register


def why_not(program):
    """Why that program cannot take part here; "" if it can."""
    if shutil.which(program) is None:
        return f"{program} is not installed"
    if SANITIZER == "tsan" and program in NOT_UNDER_TSAN:
        return f"under tsan {program} {NOT_UNDER_TSAN[program]}"
    return ""


def needs(program):
    reason = why_not(program)
    if reason:
        raise Skip(reason)


def wait_for(condition, what, seconds=60.0):
    """The first true value of condition(), which is asked until seconds have passed."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain until {what}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def equal(got, wanted, what="value"):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


@contextlib.contextmanager
def fails(*codes):
    """The block must raise a sqlite3 error with one of these result codes (a primary code stands for its extended ones)."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None or not any(code == wanted or wanted < 256 and code & 255 == wanted for wanted in codes):
            raise AssertionError(f"got code {code} ({error}), wanted {codes}") from error
        return
    raise AssertionError(f"no error, wanted {codes}")


# --- disks --------------------------------------------------------------------------------------------------------------

MEBIBYTE = 1 << 20


def small_file_system(mebibytes):
    directory = temporary("small")
    directory.mkdir()
    if os.geteuid() != 0:
        raise Skip("mounting a small file system needs root")
    result = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", directory], capture_output=True, text=True)
    if result.returncode != 0:
        raise Skip(f"cannot mount here: {result.stderr.strip()}")
    return directory


def fill(path, leave):
    """Takes all space of the file system but leave bytes."""
    with path.open("ab") as file:
        while True:
            free = os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize
            if free <= leave:
                return
            try:
                file.write(b"\0" * min(MEBIBYTE, free - leave))
                file.flush()
            except OSError:
                return


# --- raftd --------------------------------------------------------------------------------------------------------------


HTTP_PORT, RAFT_PORT = 4001, 4002  # not among those that a system gives to whoever dials
PR_SET_CHILD_SUBREAPER = 36

_numbers = itertools.count()
_claims = []  # sockets, as long as this process lives
RAFT_ADDRESSES = {}  # by directory: it names the node, as long as there is no -node-id


def claim_subnet():
    """The beginning of addresses of this machine, "127.x.y", that no other test has."""
    dice = random.SystemRandom()
    while True:
        subnet = f"127.{dice.randrange(1, 255)}.{dice.randrange(256)}"
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0rqvfs {subnet}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return subnet


@functools.cache
def own_hosts():
    """Addresses for the raftds of this test, in their order."""
    subnet = claim_subnet()
    return [f"{subnet}.{number}" for number in range(1, 255)]


class Raftd:
    """One raftd and its data directory.  Usable again after kill() and stop() by start()."""

    program = RAFTD
    prefix = []  # of its command line: a program that becomes raftd

    def __init__(self, directory=None, *flags, start=True):
        self.directory = pathlib.Path(directory or temporary("node"))
        self.directory.mkdir(exist_ok=True)
        self.flags = list(flags)
        host = own_hosts()[next(_numbers)]
        self.http = f"{host}:{HTTP_PORT}"
        self.raft = RAFT_ADDRESSES.setdefault(self.directory, f"{host}:{RAFT_PORT}")
        self.process = None
        self.log_path = temporary("raftd-log")
        self.log_path.touch()
        if start:
            self.start()

    def launch(self, **popen):
        """Starts the process and does not wait."""
        self.process = subprocess.Popen(
            [*self.prefix, self.program, "-http-addr", self.http, "-raft-addr", self.raft, *self.flags, self.directory],
            stdin=subprocess.DEVNULL,
            stdout=self.log_path.open("ab"),
            stderr=subprocess.STDOUT,
            **popen,
        )
        return self

    def start(self, seconds=60.0, **popen):
        self.launch(**popen)
        self.wait_ready(seconds)
        return self

    def wait_ready(self, seconds=60.0):
        def ready():
            check(self.process.poll() is None, f"raftd ended with {self.process.returncode} instead of serving")
            try:
                return self.get("/readyz")[0] == 200
            except OSError:
                return False

        wait_for(ready, "raftd is ready", seconds)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=60)
        equal(code, 0, "exit code of raftd after SIGTERM")

    def exit_code(self, seconds=60.0):
        """Of a raftd that is expected to end by itself."""
        return self.process.wait(timeout=seconds)

    def pause(self):
        """As a machine that stands still; nothing of it runs any more when this returns."""
        pause(self.process.pid)

    def go_on(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def request(self, method, path, body=None, headers=None):
        """(status, body) of one HTTP request."""
        request = urllib.request.Request(f"http://{self.http}{path}", method=method, data=body, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def raw(self, method, path, body=None, headers=None):
        """The answer to one HTTP request, redirections included; its body is in .text."""
        link = http.client.HTTPConnection(self.http, timeout=60)
        link.request(method, path, body, headers or {})
        answer = link.getresponse()
        answer.text = answer.read()
        link.close()
        return answer

    def get(self, path):
        return self.request("GET", path)

    def status(self):
        code, body = self.get("/status")
        equal(code, 200, "/status")
        return json.loads(body)

    def path(self, name="app.db"):
        return self.directory / name

    def socket_path(self):
        return self.directory / "raftd.sock"


# --- SQLite, stock and ours -----------------------------------------------------------------------------------------------


def uri(path, **parameters):
    query = "&".join(f"{key}={value}" for key, value in {"vfs": "rqvfs", **parameters}.items())
    return f"file:{path}?{query}"


def load_extension():
    """Registers the VFS in this process, for ever."""
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(str(EXTENSION))
    loader.close()


def connect(path, *, busy_ms=20000, **parameters):
    """A connection through rqvfs, in autocommit mode (BEGIN and COMMIT are the test's own).  It waits for long, if not told else."""
    load_extension()
    connection = sqlite3.connect(uri(path, **{"timeout": 30000, **parameters}), uri=True, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout={busy_ms}")
    return connection


def connect_stock(path, mode="rwc"):
    """A connection of the same library without rqvfs."""
    return sqlite3.connect(f"file:{path}?vfs=unix&mode={mode}", uri=True, isolation_level=None)


def value(connection, sql, *arguments):
    row = connection.execute(sql, arguments).fetchone()
    return row[0] if row else None


def shell(script, *, database=None, env=None, cwd=None):
    """Runs the stock sqlite3 shell on a script."""
    return subprocess.run(
        ["sqlite3", "-batch", *([str(database)] if database else [])],
        input=script,
        text=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )


def shell_rqvfs(path, script):
    """The user's way: .load, .open, SQL.  Output of a script that must succeed."""
    result = shell(f".bail on\n.load {EXTENSION.with_suffix('')}\n.open '{uri(path)}'\n.timeout 20000\n{script}\n")
    equal((result.returncode, result.stderr), (0, ""), "sqlite3 shell")
    return result.stdout.strip()


def shell_stock(path, script):
    """Output of a script in a stock shell that has never heard of us."""
    result = shell(f".bail on\n.timeout 20000\n{script}\n", database=path)
    equal((result.returncode, result.stderr), (0, ""), "stock sqlite3 shell")
    return result.stdout.strip()


# --- processes ------------------------------------------------------------------------------------------------------------


def temporary(name):
    """A path in the test's directory that nothing has yet."""
    for number in range(100000):
        path = _directory / (f"{name}-{number}" if number else name)
        if not path.exists():
            return path
    raise AssertionError("too many temporary files")


def python(program, *arguments, env=None, **popen):
    """Starts a Python program (a string) that may import harness; its standard output can be read."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE / "tests" / "e2e"), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **popen,
    )


def pause(pid):
    """Of a child of this process: that it is stopped is told when its last thread is."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def finish(process, seconds=120.0):
    """Output of a process that must succeed."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"a process did not end in {seconds:g} s") from None
    equal(process.returncode, 0, f"exit code of a process that printed\n{output}")
    return output


# --- running --------------------------------------------------------------------------------------------------------------


def _run_in_child(function, seconds, output):
    """The child's side: never returns."""
    os.setpgid(0, 0)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)
    faulthandler.enable()
    faulthandler.dump_traceback_later(seconds, exit=True)
    code = 0
    try:
        function()
    except Skip as skip:
        print(f"SKIP {skip}")
        code = 77
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _await_orphans(seconds=60):
    """Until they are gone: whoever waits for a disk dies late, and keeps his addresses and files till then."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.001)


def _run(function, seconds):
    """(exit code of the test's process, what it printed)"""
    global _directory
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _directory = pathlib.Path(tempfile.mkdtemp(prefix=f"rq-{function.__name__[:40]}-"))
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _run_in_child(function, seconds, output)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        _await_orphans()
        output.seek(0)
        text = output.read()
    for log in sorted(_directory.glob("raftd-log*")):
        text += f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-60:]) + "\n"
    for mount in _mounts_below(_directory):
        subprocess.run(["umount", "--lazy", mount], check=False)
    shutil.rmtree(_directory, ignore_errors=True)
    return os.waitstatus_to_exitcode(status), text


def measure(function, seconds):
    """Runs a benchmark as a test is run, and prints what it printed."""
    code, text = _run(function, seconds)
    print(text.split("--- raftd-log")[0] if code == 0 else text, end="", flush=True)


def _mounts_below(directory):
    mounts = [line.split()[1] for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    return [mount for mount in reversed(mounts) if mount.startswith(str(directory))]


def main():
    wanted = sys.argv[1:]
    chosen = [(f, s) for f, s in _tests if not wanted or f.__name__ in wanted]
    print(f"1..{len(chosen)}", flush=True)
    failed = 0
    for number, (function, seconds) in enumerate(chosen, 1):
        code, text = _run(function, seconds)
        name = function.__name__
        skipped = re.search(r"^SKIP (.*)", text, re.MULTILINE) if code == 77 else None
        if skipped:
            print(f"ok {number} - {name} # SKIP {skipped.group(1)}", flush=True)
            continue
        if code == 0:
            for note in re.findall(r"^NOTE (.*)", text, re.MULTILINE):
                print(f"# {note}")
            print(f"ok {number} - {name}", flush=True)
            continue
        failed += 1
        print(f"not ok {number} - {name}")
        if code < 0:
            print(f"# ended by signal {-code}")
        said, *logs = re.split(r"^(?=--- raftd-log)", text, flags=re.MULTILINE)
        lines = said.splitlines()[-200:] + "".join(logs).splitlines()
        print("\n".join(f"# {line}" for line in lines), flush=True)
    sys.exit(1 if failed or not chosen else 0)
