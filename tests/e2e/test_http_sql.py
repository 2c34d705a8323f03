"""SQL over HTTP, as rqlite's clients speak it: the rows of sections 2.1 to 2.4, 3 and 4 of its surface, on one node and on three.  The
names of tests begin with the sections that they are about."""

import base64
import gzip
import http.client
import json
import socket
import threading
import zlib

from cluster import Cluster, wait_reads
from harness import Raftd, check, connect, equal, main, temporary, test, value, wait_for
from http_client import Client, result, target

SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT sum(i) FROM n"


# --- one node -----------------------------------------------------------------------------------------------------------


@test
def s2_4_every_sample_of_the_reference():
    client = Client(Raftd())
    equal(client.query("SELECT 1"), {"results": [{"columns": ["1"], "types": ["integer"], "values": [[1]]}]}, "before any write")
    equal(client.query("SELECT * FROM foo"), {"results": [{"error": "no such table: foo"}]}, "before any write")
    equal(client.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)"), {"results": [{}]}, "CREATE")
    equal(
        client.execute(["INSERT INTO foo(name) VALUES(?)", "fiona"], ["INSERT INTO foo(name) VALUES(:n)", {"n": "bob"}]),
        {"results": [{"last_insert_id": 1, "rows_affected": 1}, {"last_insert_id": 2, "rows_affected": 1}]},
        "INSERT",
    )
    timed = client.execute("INSERT INTO foo(name) VALUES('x')", timings=True)
    check(timed["time"] > 0 and result(timed)["time"] > 0, f"timings: {timed}")
    first = client.execute("INSERT INTO foo(name) VALUES('y')", raft_index=True)
    second = client.execute("INSERT INTO foo(name) VALUES('z')", raft_index=True)
    check(0 < first["raft_index"] < second["raft_index"], f"raft_index: {first} {second}")
    equal(
        client.execute("INSERT INTO foo(id,name) VALUES(9,'x') RETURNING *"),
        {"results": [{"columns": ["id", "name"], "types": ["integer", "text"], "values": [[9, "x"]]}]},
        "RETURNING",
    )
    equal(
        client.execute("UPDATE foo SET name='y' WHERE id=9 RETURNING name", associative=True),
        {"results": [{"types": {"name": "text"}, "rows": [{"name": "y"}]}]},
        "RETURNING, associative",
    )
    equal(
        client.execute("INSERT INTO bar VALUES(1)", "INSERT INTO foo(name) VALUES('z')"),
        {"results": [{"error": "no such table: bar"}, {"last_insert_id": 10, "rows_affected": 1}]},
        "an error among statements",
    )
    equal(
        client.query("PRAGMA journal_mode"),
        {"results": [{"columns": ["journal_mode"], "types": ["text"], "values": [["wal"]]}]},
        "a pragma that the VFS answers",
    )
    equal(client.execute("PRAGMA journal_mode=DELETE"), {"results": [], "error": "disallowed pragma"}, "pragma")
    equal(
        client.query("SELECT * FROM foo WHERE id=1", associative=True),
        {"results": [{"types": {"id": "integer", "name": "text"}, "rows": [{"id": 1, "name": "fiona"}]}]},
        "associative",
    )
    equal(
        client.query("INSERT INTO foo(name) VALUES('q')"),
        {"results": [{"error": "attempt to change database via query operation"}]},
        "a write on the read path",
    )
    plan = result(client.query("EXPLAIN QUERY PLAN SELECT * FROM foo"))
    equal((plan["columns"][-1], plan["values"][0][-1]), ("detail", "SCAN foo"), "EXPLAIN")
    equal(
        client.request(["INSERT INTO foo(name) VALUES(?)", "d"], "SELECT * FROM foo WHERE id=1", "SELECT * FROM nope", associative=True),
        {
            "results": [
                {"last_insert_id": 11, "rows_affected": 1, "rows": None},
                {"types": {"id": "integer", "name": "text"}, "rows": [{"id": 1, "name": "fiona"}]},
                {"error": "no such table: nope"},
            ]
        },
        "/db/request",
    )
    pretty = client.ask("GET", target("/db/query", {"pretty": True, "q": "SELECT id FROM foo WHERE id=1"})).text
    check(pretty.startswith('{\n    "results": [\n        {\n            "columns": [\n'), f"pretty: {pretty}")
    client.execute("CREATE TABLE b (data BLOB)", "INSERT INTO b VALUES('fiona')", "INSERT INTO b VALUES(x'deadbeef')")
    encoded = base64.b64encode(bytes.fromhex("deadbeef")).decode()
    equal(client.values("SELECT data FROM b"), [["fiona"], [encoded]], "blobs")
    equal(client.values("SELECT data FROM b", blob_array=True), [["fiona"], [[222, 173, 190, 239]]], "blobs as arrays")


@test
def s2_2_bodies_and_what_is_wrong_with_them():
    client = Client(Raftd())
    client.execute("CREATE TABLE t (x)")
    for body, text in (
        ("", "invalid JSON body"),
        ("[", "invalid JSON body"),
        ("{}", "invalid request"),
        ("[1]", "invalid request"),
        ("[[1]]", "invalid request"),
        ("[]", "no statements"),
    ):
        for path in ("/db/execute", "/db/query", "/db/request"):
            answer = client.ask("POST", path, body)
            equal((answer.status, answer.text), (400, text + "\n"), f"{path} of {body!r}")
            equal(answer.headers["X-Content-Type-Options"], "nosniff", "header of an error")
    plain = client.json("POST", "/db/execute", "INSERT INTO t VALUES('plain')", {"Content-Type": "text/plain"})
    equal(result(plain)["rows_affected"], 1, "a body in plain text")
    equal(client.json("GET", "/db/query"), {"results": []}, "no q")
    equal(client.execute(""), {"results": []}, "an empty statement")
    largest = 2**63 - 1
    client.execute(["INSERT INTO t VALUES(?)", largest], ["INSERT INTO t VALUES(?)", -largest - 1])
    equal(client.values("SELECT x FROM t WHERE typeof(x) = 'integer' ORDER BY x"), [[-largest - 1], [largest]], "64 bits")


@test
def s2_2_compressed_bodies():
    client = Client(Raftd())
    client.execute("CREATE TABLE t (x)")
    body = json.dumps([["INSERT INTO t VALUES(?)", "a" * 3_000_000]]).encode()
    for encoding, data in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        answer = client.ask("POST", "/db/execute", data, {"Content-Encoding": encoding})
        equal((answer.status, json.loads(answer.text)["results"][0]["rows_affected"]), (200, 1), encoding)
    equal(client.values("SELECT count(*), min(length(x)) FROM t"), [[3, 3_000_000]], "what was written")
    for encoding, data, status in (
        ("gzip", body, 400),
        ("gzip", gzip.compress(body)[:-9], 400),
        ("gzip", gzip.compress(body) + b"more", 400),
        ("br", body, 415),
    ):
        equal(client.ask("POST", "/db/execute", data, {"Content-Encoding": encoding}).status, status, f"{encoding} that is none")


@test
def s2_1_order_of_the_checks():
    client = Client(Raftd())
    for method, path, status, text in (
        ("OPTIONS", "/db/execute?timeout=x", 200, ""),
        ("GET", "/db/execute?timeout=x", 400, "timeout is not a valid duration\n"),
        ("GET", "/db/execute", 405, ""),
        ("GET", "/db/request", 405, ""),
        ("DELETE", "/db/query", 405, ""),
        ("GET", "/db/query?q=", 400, "query parameter not set\n"),
        ("GET", "/db/query?freshness_strict&q=SELECT+1", 400, "freshness_strict requires freshness\n"),
        ("GET", "/db/query?q=SELECT+1&db=none", 404, "no such database\n"),
    ):
        answer = client.ask(method, path)
        equal((answer.status, answer.text), (status, text), f"{method} {path}")
    for path in ("/db/execute", "/db/request", "/db/query", "/db/sql", "/status", "/nodes", "/leader"):
        refused = client.ask("PUT", path)
        equal((refused.status, refused.text), (405, ""), f"PUT {path}")
        equal(refused.headers["Content-Type"], "application/json; charset=utf-8", f"its content type: {path}")
    for path, text in (
        ("/db/query?q=%zz", 'invalid URL escape "%zz"\n'),
        ("/db/query?q=SELECT+1;", "invalid semicolon separator in query\n"),
        ("/nowhere?timeout=x", "timeout is not a valid duration\n"),
    ):
        answer = client.ask("GET", path)
        equal((answer.status, answer.text), (400, text), path)
        equal(client.ask("OPTIONS", path).status, 200, f"OPTIONS {path}")
    equal(client.ask("GET", f"http://{client.node.http}/readyz?noleader").text, "[+]node ok", "the form that is sent to proxies")
    served = client.ask("GET", "/db/query?q=SELECT+1")
    equal(served.headers["X-Rqlite-Served-By"], client.node.http, "who served it")


@test
def s2_3_errors_and_transactions():
    client = Client(Raftd())
    client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES(1)")
    broken = ("INSERT INTO t VALUES(2)", "INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(3)")
    error = "UNIQUE constraint failed: t.id"
    equal(
        client.execute(*broken, transaction=True)["results"], [{"last_insert_id": 2, "rows_affected": 1}, {"error": error}], "stops"
    )
    equal(client.values("SELECT id FROM t"), [[1]], "is rolled back")
    equal(client.execute(*broken)["results"][1:], [{"error": error}, {"last_insert_id": 3, "rows_affected": 1}], "goes on")
    equal(client.values("SELECT id FROM t"), [[1], [2], [3]], "each by itself")
    equal(client.request("INSERT INTO t VALUES(4)", "INSERT INTO t VALUES(4)", transaction=True)["results"][1]["error"], error, "request")
    equal(client.values("SELECT count(*) FROM t"), [[3]], "is rolled back")
    check("error" in client.execute("BEGIN", "INSERT INTO t VALUES(5)"), "a transaction that is left open")
    equal(client.values("SELECT count(*) FROM t"), [[3]], "is rolled back")
    client.execute("CREATE TABLE child (parent REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED)")
    equal(result(client.execute("INSERT INTO child VALUES(77)", transaction=True)).get("error"), None, "foreign keys are not enforced")


@test
def s1_1_foreign_keys_when_asked_for():
    client = Client(Raftd(None, "-fk"))
    client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)", "CREATE TABLE c (t REFERENCES t(id))")
    client.execute("CREATE TABLE d (t REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED)")
    equal(client.execute("INSERT INTO c VALUES(7)"), {"results": [{"error": "FOREIGN KEY constraint failed"}]}, "at once")
    answer = client.execute("INSERT INTO d VALUES(7)", transaction=True)
    check("FOREIGN KEY constraint failed" in json.dumps(answer), f"at COMMIT: {answer}")
    equal(client.values("SELECT count(*) FROM d"), [[0]], "not there")


@test
def s3_levels_on_one_node():
    client = Client(Raftd())
    client.execute("CREATE TABLE t (x)", "INSERT INTO t VALUES(1)")
    for level in ("none", "weak", "linearizable", "strong", "auto", "LINEARIZABLE", "unknown"):
        equal(client.values("SELECT x FROM t", level=level), [[1]], level)
        equal(client.request("SELECT x FROM t", level=level)["results"][0]["values"], [[1]], level)
    equal(client.values("SELECT x FROM t", level="none", freshness="1ms", freshness_strict=True), [[1]], "the leader is never stale")
    check("raft_index" not in client.query("SELECT x FROM t", level="none", raft_index=True), "none has no index")
    check(client.query("SELECT x FROM t", level="strong", raft_index=True)["raft_index"] > 0, "strong has one")


@test
def s2_3_slow_statements_end_in_time_and_hold_nobody_up():
    node = Raftd()
    client = Client(node)
    equal(client.values(SLOW.format(10**6)), [[500000500000]], "of a database that is not there")
    client.execute("CREATE TABLE t (x)", "INSERT INTO t VALUES(1)")
    equal(result(client.query(SLOW.format(10**9), db_timeout="100ms")), {"error": "query timeout"}, "a read")
    equal(result(client.execute("INSERT INTO t " + SLOW.format(10**9), db_timeout="100ms")), {"error": "execute timeout"}, "a write")
    slow = [threading.Thread(target=Client(node).query, args=(SLOW.format(3 * 10**5),)) for _ in range(12)]
    for thread in slow:
        thread.start()
    for number in range(20):
        equal(client.values("SELECT count(*) FROM t"), [[1 + number]], "reads go on")
        client.execute("INSERT INTO t VALUES(2)")
    for thread in slow:
        thread.join()
    # A slow write keeps writers of its database waiting, no reader, and no other database.
    connect(node.path("other.db")).execute("CREATE TABLE o (x)")
    for written, exponent in enumerate((6, 7, 8)):  # on a slow machine it takes a slower one
        writer = threading.Thread(target=Client(node, timeout=600).execute, args=("INSERT INTO t " + SLOW.format(2 * 10**exponent),))
        writer.start()
        equal(client.values("SELECT count(*) FROM t"), [[21 + written]], "reads go on")
        equal(result(client.execute("INSERT INTO o VALUES(1)", db="other.db"))["rows_affected"], 1, "another database")
        was_slow = writer.is_alive()
        writer.join()
        if was_slow:
            break
    check(was_slow, "the slow write was still at work")
    equal(client.values("SELECT count(*) FROM t"), [[22 + written]], "it was written")


@test
def s2_1_pipelined_requests_and_large_ones():
    node = Raftd()
    client = Client(node)
    client.execute("CREATE TABLE t (x)")
    host, port = node.http.split(":")
    link = socket.create_connection((host, int(port)), timeout=60)
    one = b'POST /db/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 27\r\n\r\n["INSERT INTO t VALUES(1)"]'
    link.sendall(one * 50)
    link.sendall(b"GET /db/query?q=SELECT+count(*)+FROM+t HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = b""
    while piece := link.recv(65536):
        text += piece
    equal(text.count(b"HTTP/1.1 200 OK"), 51, "answers")
    check(b'"values":[[50]]' in text, f"the last one sees all before it: {text[-300:]}")
    rows = [["INSERT INTO t VALUES(?)", "x" * 1000]] * 6000
    equal(len(client.execute(*rows, transaction=True)["results"]), 6000, "results of a large request")
    equal(len(client.values("SELECT x FROM t")), 6050, "rows of a large answer")
    blob = "x" * (20 << 20)
    equal(result(client.execute(["INSERT INTO t VALUES(?)", blob]))["rows_affected"], 1, "a value of 20 MiB")
    equal(client.values("SELECT length(x) FROM t ORDER BY 1 DESC LIMIT 1"), [[20 << 20]], "its length")


@test
def s2_1_on_a_unix_socket():
    path = temporary("sockets")
    path.mkdir()
    path = path / "http.sock"
    node = Raftd(None, "-http-socket", str(path))

    def ask(method, target, body=None):
        link = http.client.HTTPConnection("localhost", timeout=60)
        link.sock = socket.socket(socket.AF_UNIX)
        link.sock.connect(str(path))
        link.request(method, target, body)
        answer = link.getresponse()
        text = answer.read().decode()
        equal(answer.status, 200, f"status ({text})")
        return json.loads(text)

    equal(ask("POST", "/db/execute", '["CREATE TABLE t (x)"]'), {"results": [{}]}, "a write")
    node.kill()
    node.start()  # in the place of the former one's socket
    equal(ask("POST", "/db/execute", '["INSERT INTO t VALUES(7)"]')["results"][0]["rows_affected"], 1, "another one")
    equal(ask("GET", "/db/query?q=SELECT+x+FROM+t")["results"][0]["values"], [[7]], "a read")
    node.stop()
    check(not path.exists(), "the socket is gone")


class Clients:
    """Threads that INSERT numbers one by one, each by its own connection, and note what they were told."""

    def __init__(self, nodes, each=1):
        self.done = threading.Event()
        self.acknowledged, self.failed, self.unknown, self.wrong = set(), set(), set(), []
        self.threads = [threading.Thread(target=self.run, args=(node, f"{node.http}/{n}")) for node in nodes for n in range(each)]
        for thread in self.threads:
            thread.start()

    def run(self, node, name):
        client = Client(node)
        number = 0
        while not self.done.is_set():
            number += 1
            key = f"{name}/{number}"
            try:
                answer = client.ask("POST", "/db/execute", [["INSERT INTO ledger VALUES(?)", key]])
            except ConnectionRefusedError:  # not even asked
                if self.ends(node):
                    return
                continue
            except (OSError, http.client.HTTPException):
                self.unknown.add(key)
                if self.ends(node):
                    return
                continue
            if answer.status == 200 and json.loads(answer.text) == {"results": [{"last_insert_id": mine(answer), "rows_affected": 1}]}:
                self.acknowledged.add(key)
            elif answer.status == 503:
                self.failed.add(key)
                self.done.wait(0.002)
            elif answer.status == 504:
                self.unknown.add(key)
            else:
                self.wrong.append((answer.status, answer.text))

    def ends(self, node):
        self.done.wait(0.002)
        return not node.alive()

    def wait_more(self, count, seconds=90):
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) >= before + count, f"{count} more are acknowledged ({self.summary()})", seconds)

    def stop(self):
        self.done.set()
        for thread in self.threads:
            thread.join(timeout=150)
            check(not thread.is_alive(), "a client hangs")
        equal(self.wrong[:3], [], "answers that are none")

    def summary(self):
        return f"{len(self.acknowledged)} acknowledged, {len(self.failed)} failed, {len(self.unknown)} unknown, {self.wrong[:3]}"

    def settle(self, rows):
        """What is there is what they were told."""
        keys = [key for (key,) in rows]
        equal(len(keys), len(set(keys)), "each once")
        there = set(keys)
        equal(sorted(self.acknowledged - there)[:5], [], "acknowledged and lost")
        equal(sorted(there & self.failed)[:5], [], "reported as failed, and there")
        equal(sorted(there - self.acknowledged - self.unknown)[:5], [], "never written, and there")
        print(f"NOTE {len(keys)} rows; {self.summary()}")


def mine(answer):
    return json.loads(answer.text)["results"][0].get("last_insert_id")


@test
def s4_many_clients_and_applications_write_at_once():
    node = Raftd()
    client = Client(node)
    client.execute("CREATE TABLE ledger (key)", "CREATE TABLE other (x)")
    node.alive = lambda: True
    clients = Clients([node], each=16)
    application = connect(node.path("db.sqlite"), busy_ms=30000)
    for number in range(200):
        application.execute("INSERT INTO other VALUES(?)", (number,))
        equal(client.values("SELECT count(*) FROM other", level="none"), [[number + 1]], "what an application has committed")
    clients.wait_more(100)
    clients.stop()
    clients.settle([tuple(row) for row in client.values("SELECT key FROM ledger")])
    equal(value(application, "SELECT count(*) FROM ledger"), len(clients.acknowledged), "rows that an application sees")


@test
def s4_queued_writes_are_answered_at_once_and_done_in_order():
    node = Raftd()
    client = Client(node)
    client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
    sequence = 0
    for number in range(300):
        answer = client.execute(["INSERT INTO t(x) VALUES(?)", number], queue=True)
        check(answer["results"] == [] and answer["sequence_number"] > sequence, f"{answer} after {sequence}")
        sequence = answer["sequence_number"]
    last = client.execute(queue=True, wait=True)
    check(last["sequence_number"] > sequence, "an empty request that waits is a checkpoint")
    equal(client.values("SELECT count(*), sum(x = id - 1) FROM t", level="none"), [[300, 300]], "all are there, in order")
    client.execute("INSERT INTO t(x) VALUES(300)", "INSERT INTO none VALUES(1)", "INSERT INTO t(x) VALUES(301)", queue=True, wait=True)
    equal(client.values("SELECT count(*) FROM t", level="none"), [[302]], "an error is its statement's")
    for body, status, text in (("", 400, "invalid JSON body\n"), ("[]", 400, "no statements\n"), ('["SELECT 1"', 400, "invalid JSON body\n")):
        answer = client.ask("POST", "/db/execute?queue", body)
        equal((answer.status, answer.text), (status, text), f"queued {body!r}")
    queue = wait_for(lambda: node.status()["http"]["queue"]["_default"], "status of the queue")
    check(queue["sequence_number"] > sequence and queue["timeout"] == "50ms" and queue["batch_size"] == 128, f"status: {queue}")
    equal(client.execute("PRAGMA journal_mode=off", queue=True), {"results": [], "error": "disallowed pragma"}, "disallowed")
    # What was answered is there after a stop, however soon that comes.
    stopped = Raftd(None, "-write-queue-timeout", "1h", "-write-queue-batch-size", "100000")
    client = Client(stopped)
    client.execute("CREATE TABLE t (x)")
    for number in range(50):
        client.execute(["INSERT INTO t VALUES(?)", number], queue=True)
    equal(client.values("SELECT count(*) FROM t"), [[0]], "none is made yet")
    late = client.ask("POST", "/db/execute?queue&wait&timeout=1ms", [f"INSERT INTO t {SLOW.format(10**6)}"])
    equal((late.status, late.text), (408, "queue wait timeout\n"), "who does not wait for long enough")
    client.execute(["INSERT INTO t VALUES(?)", 50], queue=True)
    stopped.stop()
    stopped.start()
    equal(Client(stopped).values("SELECT count(*) FROM t"), [[52]], "all are there")


@test
def s4_a_full_queue_lets_clients_wait_and_a_batch_may_be_one_transaction():
    node = Raftd(None, "-write-queue-capacity", "4", "-write-queue-batch-size", "8", "-write-queue-timeout", "20ms", "-write-queue-tx")
    client = Client(node)
    client.execute("CREATE TABLE t (x UNIQUE)")
    threads = [
        threading.Thread(target=lambda n=n: [Client(node).execute(["INSERT INTO t VALUES(?)", f"{n}/{i}"], queue=True) for i in range(50)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.execute(queue=True, wait=True)
    equal(client.values("SELECT count(*) FROM t"), [[400]], "all are there")
    client.execute(*[["INSERT INTO t VALUES(?)", n] for n in (1, 2, 2, 3)], queue=True, wait=True)
    equal(client.values("SELECT count(*) FROM t"), [[400]], "an error undoes all of its batch")


# --- three nodes ----------------------------------------------------------------------------------------------------------


@test
def s4_every_node_takes_writes_and_s3_reads_what_the_level_promises():
    cluster = Cluster()
    clients = [Client(node) for node in cluster.nodes]
    clients[1].execute("CREATE TABLE t (x)")
    for number in range(30):
        writer = clients[number % 3]
        equal(result(writer.execute(["INSERT INTO t VALUES(?)", number]))["rows_affected"], 1, "a write")
        equal(writer.values("SELECT count(*) FROM t", level="none"), [[number + 1]], "its own node has it")
        for level in ("linearizable", "strong"):
            for reader in clients:
                equal(reader.values("SELECT count(*) FROM t", level=level), [[number + 1]], f"{level} on any node")
    for reader in clients:
        check(reader.values("SELECT count(*) FROM t", level="none", freshness="5s", freshness_strict=True) == [[30]], "fresh")
    leader = cluster.leader()
    follower = Client(cluster.others(leader)[0])
    for path, body in (("/db/execute", ["INSERT INTO t VALUES(1)"]), ("/db/query", ["SELECT 1"])):
        answer = follower.ask("POST", path + "?redirect&timings", body)
        equal((answer.status, answer.headers["Location"]), (301, f"http://{leader.http}{path}?redirect&timings"), "redirect")
    equal(Client(leader).values("SELECT count(*) FROM t", redirect=True), [[30]], "the leader does not redirect")
    equal(follower.values("SELECT 1", redirect=True, level="none"), [[1]], "nor who needs no leader")
    cluster.wait_equal("db.sqlite")


@test
def s4_non_voters_take_writes_and_s3_auto_reads_here():
    cluster = Cluster(1)
    reader = cluster.add(2, "-raft-non-voter", "-join", cluster.nodes[0].raft).start()
    client = Client(reader)
    client.execute("CREATE TABLE t (x)")
    client.execute("INSERT INTO t VALUES(1)")
    equal(client.values("SELECT x FROM t", level="auto"), [[1]], "auto")
    equal(Client(cluster.nodes[0]).values("SELECT x FROM t", level="auto"), [[1]], "auto on a voter")
    cluster.nodes[0].kill()
    equal(client.values("SELECT x FROM t", level="auto"), [[1]], "auto without a leader")
    equal(client.query("SELECT x FROM t", level="auto", freshness="1ms"), {"results": [], "error": "stale read"}, "stale")


@test
def s4_queued_writes_on_any_node_are_done_whoever_leads():
    cluster = Cluster()
    follower = Client(cluster.others(cluster.leader())[0])
    follower.execute("CREATE TABLE t (x UNIQUE)")
    for number in range(500):
        follower.execute(["INSERT INTO t VALUES(?)", number], queue=True)
    follower.execute(queue=True, wait=True)
    leader = cluster.leader()
    equal(Client(leader).values("SELECT count(*) FROM t"), [[500]], "weak reads of the leader have what was waited for elsewhere")
    for number in range(500, 600):
        follower.execute(["INSERT INTO t VALUES(?)", number], queue=True)
        if number == 550:
            leader.kill()
    wait_for(lambda: follower.ask("POST", "/db/execute?queue&wait", []).status == 200, "the queue is empty")
    equal(follower.values("SELECT count(*), max(x) FROM t", level="none"), [[600, 599]], "each is there once")


@test
def s3_s14_3_without_a_majority_there_are_errors_and_no_hangs():
    cluster = Cluster(3, "-raft-election-timeout", "500ms", "-raft-heartbeat-timeout", "500ms")
    client = Client(cluster.leader())
    client.execute("CREATE TABLE t (x)", "INSERT INTO t VALUES(1)")
    for node in cluster.others(client.node):
        node.kill()
    for level in ("strong", "linearizable"):
        answer = client.ask("GET", f"/db/query?q=SELECT+1&level={level}")
        equal((answer.status, answer.text), (503, "leader not found\n"), level)
    equal(client.values("SELECT x FROM t", level="none"), [[1]], "none")
    equal(client.query("SELECT x FROM t", level="none", freshness="10ms"), {"results": [], "error": "stale read"}, "freshness")
    answer = client.ask("POST", "/db/execute", ["INSERT INTO t VALUES(2)"])
    equal((answer.status, answer.text), (503, "leader not found\n"), "a write")


def refuses_all_that_wants_a_leader(client):
    """Not when a deadline has passed: there is none in the time of this test."""
    patient = "timeout=1h&linearizable_timeout=1h"
    for method, path, body in (
        ("GET", "/db/query?q=SELECT+1", None),
        ("GET", "/db/query?q=SELECT+1&level=linearizable", None),
        ("POST", "/db/execute", ["INSERT INTO t VALUES(2)"]),
        ("POST", "/db/execute?queue", ["INSERT INTO t VALUES(2)"]),
        ("POST", "/db/request", ["INSERT INTO t VALUES(2)"]),
        ("POST", "/db/load", "INSERT INTO t VALUES(2)"),
        ("GET", "/db/backup", None),
        ("GET", "/leader", None),
        ("DELETE", "/remove", '{"id": "2"}'),
    ):
        answer = client.ask(method, f"{path}{'&' if '?' in path else '?'}{patient}", body)
        equal((answer.status, answer.text), (503, "leader not found\n"), f"{method} {path}")
    for method, path, body in (("GET", "/db/query?redirect&q=SELECT+1", None), ("POST", "/db/execute?redirect", ["SELECT 1"]),
                               ("POST", "/db/load?redirect", "SELECT 1"), ("GET", "/db/backup?redirect", None)):
        answer = client.ask(method, f"{path}{'&' if '?' in path else '?'}{patient}", body)
        equal((answer.status, answer.text), (500, "leader not found\n"), f"{method} {path}")
    equal(client.ask("GET", "/readyz").text, "[+]node ok\n[+]leader does not exist", "/readyz")
    equal(client.json("GET", "/status?key=store.leader"), {"addr": "", "node_id": ""}, "/status")


@test
def s2_4_without_a_leader_requests_are_refused_at_once():
    cluster = Cluster(2)
    replica = cluster.add(3, "-raft-non-voter", "-join", cluster.nodes[0].raft).start()
    clients = [Client(replica), Client(cluster.nodes[1])]
    clients[0].execute("CREATE TABLE t (x)", "INSERT INTO t VALUES(1)")
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM t", 1, "db.sqlite")
    cluster.nodes[0].kill()
    for client in clients:  # who has no vote stands for no election, and has to notice all the same
        wait_for(lambda: client.ask("GET", "/leader").status == 503, "it has noticed")
        refuses_all_that_wants_a_leader(client)
        equal(client.values("SELECT x FROM t", level="none"), [[1]], "none")
    cluster.nodes[0].start()
    for client in clients:
        wait_for(lambda: client.ask("GET", "/readyz").status == 200, "it has a leader")
        equal(result(client.execute("INSERT INTO t VALUES(3)"))["rows_affected"], 1, "a write")


@test
def s4_a_write_whose_fate_is_unknown_says_so():
    cluster = Cluster()
    leader = cluster.leader()
    client = Client(leader)
    client.execute("CREATE TABLE t (x)")
    followers = cluster.others(leader)
    for node in followers:
        node.kill()
    answer = client.ask("POST", "/db/execute?timeout=300ms", ["INSERT INTO t VALUES(1)"])
    check(answer.status in (503, 504), f"status {answer.status}: {answer.text}")
    for node in followers:
        node.start()
    cluster.leader()
    after = wait_for(lambda: client.ask("POST", "/db/execute", ["INSERT INTO t VALUES(2)"]).status == 200, "writes go on")
    check(after, "writes go on")
    rows = client.values("SELECT x FROM t", level="linearizable")
    check([2] in rows and (answer.status == 504 or [1] not in rows), f"{answer.status}, then {rows}")


@test
def s4_a_leader_dies_under_load_and_every_acknowledged_write_is_there_once():
    cluster = Cluster()
    Client(cluster.nodes[0]).execute("CREATE TABLE ledger (key)")
    clients = Clients(cluster.nodes, each=4)
    clients.wait_more(150)
    victim = cluster.leader()
    victim.kill()
    cluster.leader(among=cluster.others(victim))
    clients.wait_more(150)
    victim.start()
    clients.wait_more(150)
    clients.stop()
    cluster.wait_equal("db.sqlite")
    clients.settle([tuple(row) for row in Client(victim).values("SELECT key FROM ledger", level="linearizable")])


if __name__ == "__main__":
    main()
