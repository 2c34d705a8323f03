"""What raftd does over HTTP: requests a second and how long one takes, on one node and on three.  Prints a table; never passes or
fails.

bench_http.py [ROW ...]: only these rows.  RQ_BUILD is the build directory.  RQLITED, the path of an rqlited, has it do the same
beside raftd, in turns; the ratios are told then."""

import json
import os
import pathlib
import sqlite3
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "e2e"))

from cluster import HTTP_PORT, Cluster  # noqa: E402
from harness import BUILD, check, measure, temporary, wait_for  # noqa: E402

ROUNDS = int(os.environ.get("RQ_ROUNDS", "3"))
SECONDS = 2
SETTLE_SECONDS = 5  # memory is what a node takes that has done nothing for so long
PEER = os.environ.get("RQLITED")
LOAD = BUILD / "tests" / "bench" / "http_load"
LOAD_ROWS, LOAD_BYTES = 100_000, 970
JSON = {"Content-Type": "application/json"}
INSERT = [["INSERT INTO foo(name) VALUES(?)", "fiona"]]
SELECT = "/db/query?q=SELECT%20*%20FROM%20foo"

# name: (connections, method, target, body, rows in a request, wanted of rqlited's on 1 node, on 3)
LOADS = {
    "INSERT per request, 1 connection": (1, "POST", "/db/execute", INSERT, 1, "", "p50 0.4x"),
    "INSERT per request, 64 connections": (64, "POST", "/db/execute", INSERT, 1, "4x", "5x"),
    "INSERT per request, 256 connections": (256, "POST", "/db/execute", INSERT, 1, "", ""),
    "queued INSERT, 64 connections": (64, "POST", "/db/execute?queue", INSERT, 1, "4x", "4x"),
    "rows, 1,000 INSERTs in a request, 4 connections": (4, "POST", "/db/execute", INSERT * 1000, 1000, "5x", "5x"),
    "rows, the same in one transaction": (4, "POST", "/db/execute?transaction", INSERT * 1000, 1000, "3x", "3x"),
    "SELECT by key, none, 64 connections": (64, "GET", f"{SELECT}%20WHERE%20id=500&level=none", None, 1, "2.5x", "2.5x"),
    "SELECT by key, weak, 64 connections": (64, "GET", f"{SELECT}%20WHERE%20id=500&level=weak", None, 1, "2.5x", "2.5x"),
    "SELECT by key, linearizable, 64 connections": (64, "GET", f"{SELECT}%20WHERE%20id=500&level=linearizable", None, 1, "2.5x",
                                                    "2.5x"),
    "SELECT by key, linearizable, 1 connection": (1, "GET", f"{SELECT}%20WHERE%20id=500&level=linearizable", None, 1, "", "1.5x"),
    "SELECT of 1,000 rows, 8 connections": (8, "GET", f"{SELECT}%20LIMIT%201000", None, 1, "4x", "4x"),
}


def line(what, figure, peer, wanted):
    print(f"| {what} | {figure} | {peer} | {wanted} |", flush=True)


def execute(node, statements, target="/db/execute"):
    code, text = node.request("POST", target, json.dumps(statements).encode(), JSON)
    check(code == 200 and "error" not in text, f"{statements}: {code} {text}")


def clusters(count):
    """raftd's, and rqlited's if it is at hand."""
    made = {"raftd": Cluster(count)}
    if PEER:
        made["rqlited"] = Cluster(count, start=False)
        for node in made["rqlited"].nodes:
            node.program = PEER
            node.start()
    for cluster in made.values():
        leader = cluster.leader()
        execute(leader, ["CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)"])
        execute(leader, INSERT * 1000, "/db/execute?transaction")
    return made


class Load:
    """Requests on that node for a while."""

    def __init__(self, node, connections, method, target, body):
        arguments = [LOAD, node.host, HTTP_PORT, connections, SECONDS, method, target]
        if body:
            arguments.append(temporary("body"))
            arguments[-1].write_text(json.dumps(body))
        answer = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=True).stdout.split()
        requests, failed, seconds, p50, p99, longest = (float(word) for word in answer)
        self.rate, self.failed = requests / seconds, int(failed)
        self.p50, self.p99, self.longest = p50 / 1000, p99 / 1000, longest / 1000


def medians(loads):
    return [statistics.median(getattr(load, name) for load in loads) for name in ("rate", "p50", "p99", "longest")]


def thousands(figure):
    return f"{figure / 1000:.1f} k/s" if figure >= 10000 else f"{figure:.0f}/s"


def told(loads, rows):
    rate, p50, p99, longest = medians(loads)
    failed = sum(load.failed for load in loads)
    return f"{thousands(rate * rows)}; {p50:.2f}, {p99:.2f}, {longest:.1f} ms" + (f"; {failed} not answered with 200" if failed else "")


def requests(count):
    made = clusters(count)
    leaders = {name: cluster.leader() for name, cluster in made.items()}
    for what, (connections, method, target, body, rows, *wanted) in LOADS.items():
        loads = {name: [] for name in leaders}
        for _ in range(ROUNDS):
            for name, leader in leaders.items():
                loads[name].append(Load(leader, connections, method, target, body))
        ratio = ""
        if PEER:
            ours, theirs = medians(loads["raftd"]), medians(loads["rqlited"])
            ratio = f"{told(loads['rqlited'], rows)}; {ours[0] / theirs[0]:.1f}x, p50 {ours[1] / theirs[1]:.2f}x"
        line(f"{what}, {count} node{'s' * (count > 1)}", told(loads["raftd"], rows), ratio, wanted[count > 1])
    return made


def memory_mb(node, field):
    text = pathlib.Path(f"/proc/{node.process.pid}/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


def largest_mb(cluster, field):
    return max(memory_mb(node, field) for node in cluster.nodes)


def large_file():
    path = temporary("load.db")
    made = sqlite3.connect(path)
    made.execute("CREATE TABLE big(a, b)")
    made.executemany("INSERT INTO big VALUES(?, hex(randomblob(?)))", ((i, LOAD_BYTES // 2) for i in range(LOAD_ROWS)))
    made.commit()
    made.close()
    return path


def load(node, path):
    subprocess.run(["curl", "-fsS", "-o", temporary("answer"), "-XPOST", f"http://{node.http}/db/load", "-H",
                    "Content-Type: application/octet-stream", "-T", path], check=True)


def loads_a_file():
    """A database file of 100 MB by /db/load."""
    path = large_file()
    figures = {}
    for name, cluster in clusters(3).items():
        leader = cluster.leader()
        time.sleep(SETTLE_SECONDS)
        idle = largest_mb(cluster, "VmRSS")
        begin = time.monotonic()
        load(leader, path)
        loaded = time.monotonic() - begin
        highest = largest_mb(cluster, "VmHWM")
        follower = cluster.others(leader)[0]
        follower.kill()
        begin = time.monotonic()
        follower.launch()
        wait_for(lambda: _ready(follower), "it is ready", 60)
        figures[name] = (loaded, idle, highest, time.monotonic() - begin)
    size = path.stat().st_size / 1e6
    rows = ((f"SQLite file of {size:.0f} MB by /db/load, 3 nodes: time", "{:.2f} s", "0.15x"), ("idle node's memory", "{:.1f} MB", "< 12 MB"),
            ("the largest node's after the load", "{:.1f} MB", "0.1x"), ("ready after kill -9 with it", "{:.2f} s", "< 0.5 s"))
    for number, (what, form, wanted) in enumerate(rows):
        peer = form.format(figures["rqlited"][number]) if PEER else ""
        line(what, form.format(figures["raftd"][number]), peer, wanted)


def _ready(node):
    try:
        return node.get("/readyz")[0] == 200
    except OSError:
        return False


def one_node():
    requests(1)


def three_nodes():
    """And what they have taken of memory in the end."""
    made = requests(3)
    path = large_file()
    for cluster in made.values():
        load(cluster.leader(), path)
    at_once = {name: largest_mb(cluster, "VmRSS") for name, cluster in made.items()}
    time.sleep(SETTLE_SECONDS)
    later = {name: largest_mb(cluster, "VmRSS") for name, cluster in made.items()}
    for when, figures in (("at once", at_once), (f"{SETTLE_SECONDS} s later", later)):
        peer = f"{figures['rqlited']:.1f} MB; {figures['raftd'] / figures['rqlited']:.2f}x" if PEER else ""
        line(f"the largest node's memory after all of that and a file by /db/load, {when}", f"{figures['raftd']:.1f} MB", peer,
             "0.3x")


ROWS = {row.__name__: row for row in (one_node, three_nodes, loads_a_file)}


def main():
    print("| over HTTP: how many; median, 99th percentile and longest | raftd | rqlited | wanted of it |\n|---|---|---|---|")
    for name in sys.argv[1:] or ROWS:
        measure(ROWS[name], 900)


if __name__ == "__main__":
    main()
