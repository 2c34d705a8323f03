"""Clusters on one machine: fail-over, and what replication costs.  Prints a table; never passes or fails.

bench_cluster.py [ROW ...]: only these rows.  RQ_BUILD is the build directory, RQ_ROUNDS how often each is measured."""

import json
import os
import pathlib
import signal
import sqlite3
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "e2e"))

from cluster import HTTP_PORT, Cluster, wait_reads  # noqa: E402
from harness import BUILD, connect, measure, temporary  # noqa: E402

ROUNDS = int(os.environ.get("RQ_ROUNDS", "3"))
KILLS = int(os.environ.get("RQ_KILLS", "25"))
SECONDS = 1.5
INSERT = "INSERT INTO t(a, b) VALUES('some text of a usual length', 1)"
CREATE = "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a TEXT, b INT)"
MANY = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 100) " \
       "INSERT INTO t(a, b) SELECT 'some text of a usual length', i FROM n"
WORK = {"one row": [INSERT], "10 statements": [INSERT] * 10, "100 rows": [MANY]}  # transactions


# --- a writer process -----------------------------------------------------------------------------------------------------


def native(path):
    connection = sqlite3.connect(path, isolation_level=None, timeout=20)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def opened(kind, path):
    return native(path) if kind == "native" else connect(path, busy_ms=20000, timeout=20000)


def writer(kind, path, work):
    """Prints "ready"; when a line comes in, commits such transactions for a while; prints how many, and its CPU seconds."""
    connection = opened(kind, path)
    statements = WORK[work] if len(WORK[work]) == 1 else ["BEGIN IMMEDIATE", *WORK[work], "COMMIT"]
    print("ready", flush=True)
    sys.stdin.readline()
    count, end, cpu = 0, time.monotonic() + SECONDS, time.process_time()
    while time.monotonic() < end:
        for statement in statements:
            connection.execute(statement)
        count += 1
    print(count, time.process_time() - cpu, flush=True)


class Writer:
    def __init__(self, path, kind="ours", work="one row"):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--writer", kind, str(path), work],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self

    def result(self):
        """(transactions a second, CPU seconds for each)"""
        count, cpu = self.process.stdout.readline().split()
        self.process.wait()
        return int(count) / SECONDS, float(cpu) / max(int(count), 1)


def rate(path, kind="ours"):
    return Writer(path, kind).go().result()[0]


# --- rows -----------------------------------------------------------------------------------------------------------------


def line(what, figure, wanted):
    print(f"| {what} | {figure} | {wanted} |", flush=True)


def table(cluster, name="app.db"):
    connect(cluster.nodes[0].path(name), busy_ms=20000).execute(CREATE)
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM t", 0, name)


def percentiles(times):
    times = sorted(times)
    return f"p50 {statistics.median(times):.2f} s, p99 {times[min(len(times) - 1, len(times) * 99 // 100)]:.2f} s of {len(times)}"


def failover():
    cluster = Cluster()
    table(cluster)
    times = []
    for _ in range(KILLS):
        leader = cluster.leader()
        other = cluster.others(leader)[0]
        connection = connect(other.path(), busy_ms=20000, timeout=20000)
        connection.execute(INSERT)
        leader.kill()
        begin = time.monotonic()
        connection.execute(INSERT)
        times.append(time.monotonic() - begin)
        leader.start()
        wait_reads(leader, "SELECT count(*) FROM t", connection.execute("SELECT count(*) FROM t").fetchone()[0])
    line("kill -9 of the leader to the first commit on another host", percentiles(times), "p50 < 0.7 s, p99 < 1.2 s")


def pause():
    cluster = Cluster()
    table(cluster)
    gaps, healed = [], []
    for _ in range(KILLS // 2):
        leader = cluster.leader()
        other = cluster.others(leader)[0]
        connection = connect(other.path(), busy_ms=20000, timeout=20000)
        connection.execute(INSERT)
        leader.process.send_signal(signal.SIGSTOP)
        last = begin = time.monotonic()
        gap = 0
        while last - begin < 3:
            connection.execute(INSERT)
            now = time.monotonic()
            last, gap = now, max(gap, now - last)
        gaps.append(gap)
        leader.process.send_signal(signal.SIGCONT)
        begin = time.monotonic()
        connect(leader.path(), busy_ms=20000, timeout=20000).execute(INSERT)
        healed.append(time.monotonic() - begin)
    line("leader paused: longest gap without a commit", percentiles(gaps), "p99 < 1.5 s")
    line("- resumed, it writes again after", percentiles(healed), "< 1 s")


def single():
    one, three = Cluster(1), Cluster()
    table(one)
    table(three)
    leader = three.leader()
    follower = three.others(leader)[0]
    rates = {"one": [], "leader": [], "follower": []}
    for _ in range(ROUNDS):
        rates["one"].append(rate(one.nodes[0].path()))
        rates["leader"].append(rate(leader.path()))
        rates["follower"].append(rate(follower.path()))
    one_rate = statistics.median(rates["one"])
    for where, wanted in (("leader", 0.5), ("follower", 0.4)):
        figure = statistics.median(rates[where])
        line(f"INSERT, 3 nodes, on the {where}'s host, against 1 node ({one_rate:.0f}/s)",
             f"{figure:.0f}/s, {figure / one_rate:.2f}", wanted)


def together():
    cluster = Cluster()
    table(cluster)
    ratios, shares = [], []
    for _ in range(ROUNDS):
        alone = rate(cluster.leader().path())
        writers = [Writer(node.path()) for node in cluster.nodes]
        rates = [w.result()[0] for w in [w.go() for w in writers]]
        ratios.append(sum(rates) / alone)
        shares.append(min(rates) / sum(rates))
    line("3 hosts writing at once, total against one host; the slowest's share",
         f"{statistics.median(ratios):.2f}; {statistics.median(shares) * 100:.0f} %", "0.5; 25 %")


def bulk():
    rows = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) " \
           "INSERT INTO t(a, b) SELECT 'some text of a usual length', i FROM n"
    cluster = Cluster()
    times = {"native": [], "ours": []}
    for number in range(ROUNDS):
        for kind in times:
            name = f"bulk{number}.db"
            path = temporary(name) if kind == "native" else cluster.leader().path(name)
            connection = opened(kind, path)
            connection.execute(CREATE)
            begin = time.monotonic()
            connection.execute(rows)
            times[kind].append(time.monotonic() - begin)
            connection.close()
    native_s, ours_s = (statistics.median(times[kind]) for kind in ("native", "ours"))
    line("bulk INSERT of 1 M rows, 3 nodes, against native SQLite", f"{ours_s:.2f} s, {native_s / ours_s:.2f}", 0.6)


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def by_writers(leader, work, count):
    writers = [Writer(leader.path(), work=work) for _ in range(count)]
    return sum(w.result()[0] * SECONDS for w in [w.go() for w in writers])


def over_http(leader, work, count):
    body = temporary("body")
    body.write_text(json.dumps(WORK[work]))
    arguments = [BUILD / "tests" / "bench" / "http_load", leader.host, HTTP_PORT, count, SECONDS, "POST",
                 "/db/execute?transaction&db=app.db", body]
    answer = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=True).stdout
    return int(answer.split()[0])


LOADS = {"1 writer": (by_writers, 1), "4 writers": (by_writers, 4), "64 in flight over HTTP": (over_http, 64)}


def follower_cpu():
    cluster = Cluster()
    table(cluster)
    leader = cluster.leader()
    followers = cluster.others(leader)
    path = temporary("native.db")
    native(path).execute(CREATE)
    plain = {work: statistics.median(Writer(path, "native", work).go().result()[1] for _ in range(ROUNDS)) for work in WORK}
    line(f"follower's CPU per applied transaction, against plain SQLite that executes it: transactions of {', of '.join(WORK)} "
         f"({', '.join(f'{cpu * 1e6:.0f}' for cpu in plain.values())} us); mean of both, and who is needed for the commit and who is not",
         "", "<= 0.5")
    for load, (run, count) in LOADS.items():
        figures = []
        for work in WORK:
            rounds = []
            for _ in range(ROUNDS):
                begin = [cpu_seconds(follower.process) for follower in followers]
                done = run(leader, work, count)
                each = [(cpu_seconds(f.process) - b) / done / plain[work] for f, b in zip(followers, begin)]
                rounds.append((statistics.mean(each), max(each), min(each)))
            figures.append("{:.2f} ({:.2f}, {:.2f})".format(*(statistics.median(column) for column in zip(*rounds))))
        line(f"- {load}", "; ".join(figures), "<= 0.5")


FETCH_MB = int(os.environ.get("RQ_FETCH_MB", "1024"))


def latencies(connection, until):
    """Seconds of each INSERT, until that is true."""
    times = []
    while not until(len(times)):
        begin = time.monotonic()
        connection.execute(INSERT)
        times.append(time.monotonic() - begin)
    return sorted(times)


def fetch():
    """A fourth node fetches a database into which another host writes."""
    cluster = Cluster(3, "-raft-snap", "200", "-raft-snap-int", "1s", start=False)
    made = sqlite3.connect(cluster.nodes[0].path())
    made.execute("CREATE TABLE bulk(b)")
    made.executemany("INSERT INTO bulk VALUES(randomblob(?))", ((1 << 20,) for _ in range(FETCH_MB)))
    made.execute(CREATE)
    made.commit()
    made.close()
    for node in cluster.nodes:
        node.start(600)
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM bulk", FETCH_MB, seconds=600)
    connection = connect(cluster.leader().path(), busy_ms=20000, timeout=20000)
    latencies(connection, lambda count: count >= 1000)
    fourth = cluster.add(4, "-join", cluster.nodes[0].raft)
    end = time.monotonic() + 10
    without = latencies(connection, lambda count: time.monotonic() > end)
    begin, looked = time.monotonic(), [0.0]
    fourth.launch()

    def fetched(_):
        if time.monotonic() - looked[0] < 0.2:
            return False
        looked[0] = time.monotonic()
        return "caught up by the databases" in fourth.log()

    beside = latencies(connection, fetched)
    seconds = time.monotonic() - begin
    p50, p99 = ([times[len(times) * part // 100] for times in (without, beside)] for part in (50, 99))
    line(f"INSERT while a node fetches {FETCH_MB} MB ({seconds:.0f} s), p99 against without (p50 {p50[0] * 1000:.2f} -> "
         f"{p50[1] * 1000:.2f} ms)", f"{p99[0] * 1000:.2f} -> {p99[1] * 1000:.2f} ms, {p99[1] / p99[0]:.1f}", "<= 2")


ROWS = {row.__name__: row for row in (failover, pause, single, together, bulk, follower_cpu, fetch)}


def main():
    if sys.argv[1:2] == ["--writer"]:
        writer(*sys.argv[2:5])
        return
    print("| 3 nodes on this machine | figure | at least |\n|---|---|---|")
    for name in sys.argv[1:] or ROWS:
        measure(ROWS[name], 900)


if __name__ == "__main__":
    main()
