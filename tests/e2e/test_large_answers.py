"""Answers of SQL that are large: they go through a file, so that neither memory, nor the WAL, nor a connection waits for a client."""

import hashlib
import http.client
import json
import pathlib
import socket
import sys

from cluster import Cluster
from harness import MEBIBYTE, SANITIZER, Raftd, Skip, check, connect, equal, fill, main, small_file_system, test, wait_for
from http_client import Client, result, target

ROWS, COPIES = 100, 50  # of 64 kB
LIMIT_KIB = 32 * 1024
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n{}) "
TIMES = NUMBERS + "SELECT i, x FROM n CROSS JOIN t"
MANY = TIMES.format(f" WHERE i < {COPIES}")


def peak_kib(node):
    status = pathlib.Path(f"/proc/{node.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def forget_peak(node):
    pathlib.Path(f"/proc/{node.process.pid}/clear_refs").write_text("5")


def answer_files(node):
    """Without a name, and open."""
    links = []
    for link in pathlib.Path(f"/proc/{node.process.pid}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:
            pass  # closed meanwhile
    return [link for link in links if "/raft/staged/" in link and link.endswith("(deleted)")]


def digest_of(node, path):
    """Status, length as announced, bytes and hash of the answer."""
    link = http.client.HTTPConnection(node.http, timeout=120)
    link.request("GET", path)
    answer = link.getresponse()
    size, digest = 0, hashlib.blake2b()
    while piece := answer.read(MEBIBYTE):
        size += len(piece)
        digest.update(piece)
    link.close()
    return answer.status, int(answer.headers["Content-Length"]), size, digest.hexdigest()


def fill_table(client):
    client.execute("CREATE TABLE t (x TEXT)")
    client.execute(NUMBERS.format(f" WHERE i < {ROWS}") + "INSERT INTO t SELECT hex(randomblob(32000)) FROM n")
    return [x for x, in client.values("SELECT x FROM t")]


def dial(node, path):
    host, port = node.http.split(":")
    link = socket.create_connection((host, int(port)), timeout=60)
    link.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return link


@test
def s2_4_a_large_answer_takes_no_memory_on_any_node():
    if SANITIZER:
        raise Skip("memory is the sanitizer's")
    cluster = Cluster()
    texts = fill_table(Client(cluster.leader()))
    digest = hashlib.blake2b(b'{"results":[{"columns":["i","x"],"types":["integer","text"],"values":[')
    for i in range(1, COPIES + 1):
        digest.update(",".join(f'[{i},"{text}"]' for text in texts).encode() + (b"," if i < COPIES else b"]}]}"))
    leader = cluster.leader()
    for node in (leader, cluster.others(leader)[0]):
        forget_peak(node)
        before = peak_kib(node)
        status, length, size, got = digest_of(node, target("/db/query", {"q": MANY}))
        grown = peak_kib(node) - before
        print(f"# {size} bytes, and {grown} KiB of memory more")
        equal((status, length), (200, size), "status and length")
        check(size > 300 * MEBIBYTE, size)
        equal(got, digest.hexdigest(), "its content")
        check(grown < LIMIT_KIB, f"{grown} KiB")
        wait_for(lambda: not answer_files(node), "the file is gone")


@test
def s2_4_a_large_answer_is_like_a_small_one():
    node = Raftd()
    client = Client(node)
    texts = fill_table(client)
    rows = [[text] for text in texts]
    for flags in ({}, {"pretty": True}, {"timings": True, "raft_index": True}, {"pretty": True, "timings": True}):
        answer = client.query("SELECT x FROM t", **flags)
        equal(result(answer)["values"], rows, f"rows with {flags}")
        equal("time" in answer and "time" in result(answer), "timings" in flags, f"times with {flags}")
        equal(result(client.query("SELECT x FROM t", associative=True, **flags))["rows"], [{"x": text} for text in texts], f"{flags}")
    equal(result(client.execute("UPDATE t SET x = x RETURNING x"))["values"], rows, "of a write")
    begun = client.json("POST", "/db/begin")
    equal(result(client.query("SELECT x FROM t", tx=begun["tx"]))["values"], rows, "in a transaction")
    client.json("POST", f"/db/rollback?tx={begun['tx']}")
    fails = NUMBERS.format(f" WHERE i < {ROWS}") + f"SELECT x, iif(i < {ROWS}, i, abs(-9223372036854775807 - 1)) FROM n CROSS JOIN t"
    both = client.json("POST", "/db/query", [fails, "SELECT 1 AS a", "SELECT x FROM t"])["results"]
    equal(both[:2], [{"error": "integer overflow"}, {"columns": ["a"], "types": ["integer"], "values": [[1]]}], "an error behind rows")
    equal(both[2]["values"], rows, "rows behind it")
    late = client.query(TIMES.format(""), db_timeout="300ms")
    equal(result(late), {"error": "query timeout"}, "no time for more rows")
    head = client.ask("HEAD", target("/db/query", {"q": "SELECT x FROM t"}))
    check(head.status == 200 and int(head.headers["Content-Length"]) > ROWS * 64000 and head.text == "", head.headers)
    wait_for(lambda: not answer_files(node), "the files are gone")


@test
def s2_4_who_does_not_take_a_large_answer_holds_no_connection_and_no_wal():
    node = Raftd(None, "-db-max-ro-conns", "1")
    client = Client(node)
    fill_table(client)
    app = connect(node.path("db.sqlite"))
    app.execute("CREATE TABLE more (x)")
    slow = [dial(node, target("/db/query", {"q": TIMES.format(" WHERE i < 8")})) for _ in range(2)]
    for link in slow:
        equal(link.recv(15), b"HTTP/1.1 200 OK", "it begins")
    equal(len(answer_files(node)), 2, "files")
    equal(client.values("SELECT count(*) FROM t"), [[ROWS]], "who wants the connection")

    def salts():
        with node.path("db.sqlite-wal").open("rb") as wal:
            return wal.read(32)[16:24]

    before = salts()

    def begun_anew():
        app.execute("INSERT INTO more VALUES(randomblob(500000))")
        return salts() != before

    wait_for(begun_anew, "the WAL is begun anew while the clients sleep")
    for link in slow:
        link.close()
    wait_for(lambda: not answer_files(node), "the files are gone with who should take them")


@test
def s2_4_nothing_is_read_for_who_has_hung_up():
    node = Raftd(None, "-db-max-ro-conns", "1")
    client = Client(node)
    fill_table(client)
    for endless in (NUMBERS.format("") + "SELECT max(i) FROM n", TIMES.format("")):
        asked = json.loads(node.get("/debug/vars?key=http")[1])["http"]["queries"]
        link = dial(node, target("/db/query", {"q": endless}))
        wait_for(lambda: json.loads(node.get("/debug/vars?key=http")[1])["http"]["queries"] > asked, "it is asked")
        if "CROSS" in endless:
            wait_for(lambda: answer_files(node), "the answer is large")
        link.close()
        equal(client.values("SELECT count(*) FROM t"), [[ROWS]], "the connection is had again")
    wait_for(lambda: not answer_files(node), "the file is gone")


@test
def s2_4_without_disk_space_large_answers_are_errors():
    node = Raftd(small_file_system(400))
    client = Client(node)
    texts = fill_table(client)
    equal(len(client.values("SELECT x FROM t")), ROWS, "there is room for 6 MB")
    full = {"error": "not enough disk space for the results"}
    equal(result(client.query(MANY)), full, "but not for 320")
    fill(node.path("filler"), 255 * MEBIBYTE)
    equal(result(client.query("SELECT x FROM t")), full, "nor for 6 any more")
    equal(result(client.execute("UPDATE t SET x = 'y' RETURNING hex(zeroblob(40000))")), full, "of a write")
    equal(client.values("SELECT count(*) FROM t WHERE x = 'y'"), [[0]], "which has done nothing")
    equal(client.values("SELECT x FROM t LIMIT 5"), [[text] for text in texts[:5]], "what is not large")
    equal(result(client.execute("DELETE FROM t WHERE rowid > 1"))["rows_affected"], ROWS - 1, "writes go on")
    node.path("filler").unlink()
    equal(result(client.query("SELECT x FROM t"))["values"], [[texts[0]]], "the first")
    equal(len(client.values(TIMES.format(" WHERE i < 100"))), 100, "there is room again")


if __name__ == "__main__":
    sys.exit(main())
