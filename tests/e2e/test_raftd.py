"""raftd alone, through its socket, its files and HTTP: what an application may rely on, with none of our client code."""

import json
import os
import shutil
import socket
import sqlite3
import struct
import threading
import time
import urllib.error
import urllib.request

import harness
from harness import temporary, wait_for
from raftd_client import (Client, COMMIT, FAILED, NOTFOUND, OK, OPENED, OUTCOME, PAGES, PROTOCOL, QUARANTINED, REFUSED, STATE,
                          STATUS)

HALF_SENT_MAX = 16


class Node(harness.Raftd):
    """raftd with the node id n1 on a directory of its own."""

    def __init__(self, directory=None, *flags):
        super().__init__(directory, "-node-id", "n1", *flags, start=False)

    @property
    def dir(self):
        return str(self.directory)

    def fetch(self, path, method="GET"):
        """(status, body, headers)"""
        request = urllib.request.Request(f"http://{self.http}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers

    def databases(self):
        return {d["name"]: d for d in json.loads(self.fetch("/db")[1])["databases"]}


class App:
    """A native database beside, whose transactions are shipped page by page."""

    def __init__(self, scratch, page_size=4096):
        self.path = os.path.join(scratch, "app%d.db" % len(os.listdir(scratch)))
        self.page_size = page_size
        self.version = 0
        self.before = {}
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute("PRAGMA page_size=%d" % page_size)

    def pages(self, *statements):
        """Runs one transaction; the pages that it changed."""
        self.db.execute("BEGIN")
        for statement in statements:
            self.db.execute(statement)
        self.db.execute("COMMIT")
        with open(self.path, "rb") as f:
            data = f.read()
        after = {i + 1: data[i * self.page_size:(i + 1) * self.page_size] for i in range(len(data) // self.page_size)}
        changed = {n: p for n, p in after.items() if self.before.get(n) != p}
        self.before = after
        self.count = len(after)
        return changed


def ship(client, db_id, app, *statements):
    pages = app.pages(*statements)
    outcome = client.commit(db_id, app.version, pages, app.page_size, app.count)
    assert outcome[0] == OK, outcome
    app.version += 1
    assert outcome[1] == app.version
    return pages


def rows(directory, name="app.db", sql="SELECT count(*) FROM t"):
    with sqlite3.connect("file:%s/%s?mode=ro" % (directory, name), uri=True) as db:
        return db.execute(sql).fetchone()[0]


def claim(body):
    def run():
        scratch = temporary("scratch")
        scratch.mkdir()
        body(Node(), str(scratch))

    run.__name__ = body.__name__
    harness.test(run, seconds=90)
    return body


@claim
def commit_is_in_the_file_and_survives_kill_9(raftd, scratch):
    raftd.start()
    client, app = Client(raftd.dir), App(scratch)
    kind, (db_id, version, page_size) = client.open("app.db")
    assert (kind, version, page_size) == (OPENED, 0, 0)
    assert not os.path.exists(raftd.dir + "/app.db")
    ship(client, db_id, app, "CREATE TABLE t(x)", "INSERT INTO t VALUES(1)")
    assert rows(raftd.dir) == 1
    for i in range(20):
        ship(client, db_id, app, "INSERT INTO t VALUES(%d)" % i)
    assert rows(raftd.dir) == 21
    raftd.kill()
    raftd.start()
    assert rows(raftd.dir) == 21
    client = Client(raftd.dir, client.session)
    assert client.open("app.db")[1] == [db_id, 21, 4096]
    ship(client, db_id, app, "INSERT INTO t VALUES('again')")
    assert rows(raftd.dir) == 22 and rows(raftd.dir, sql="PRAGMA integrity_check") == "ok"


@claim
def outcome_can_be_asked_for_after_a_kill(raftd, scratch):
    raftd.start()
    client, app = Client(raftd.dir), App(scratch)
    db_id = client.open("app.db")[1][0]
    ship(client, db_id, app, "CREATE TABLE t(x)")
    ship(client, db_id, app, "INSERT INTO t VALUES(1)")
    pages = app.pages("INSERT INTO t VALUES(2)")
    client.commit(db_id, 2, pages, page_count=app.count, wait=False)
    raftd.kill()
    raftd.start()
    again = Client(raftd.dir, client.session)
    again.open("app.db")
    assert again.ask(db_id, 0, 1)[:2] == [OK, 1]
    assert again.ask(db_id, 1, 2)[:2] == [OK, 2]
    found = again.ask(db_id, 2, 3)
    assert found[0] in (OK, NOTFOUND), found
    if found[0] == NOTFOUND:
        assert again.commit(db_id, 2, pages, page_count=app.count, seq=3)[:2] == [OK, 3]
    assert again.commit(db_id, 2, pages, page_count=app.count, seq=3)[:2] == [OK, 3], "sent twice, applied once"
    assert rows(raftd.dir) == 2
    other = Client(raftd.dir)
    other.open("app.db")
    assert other.ask(db_id, 1, 1)[0] == REFUSED
    assert other.commit(db_id, 1, pages, page_count=app.count)[0] in (REFUSED, PROTOCOL)


@claim
def stale_base_is_refused_and_changes_nothing(raftd, scratch):
    raftd.start()
    client, app = Client(raftd.dir), App(scratch)
    db_id = client.open("app.db")[1][0]
    ship(client, db_id, app, "CREATE TABLE t(x)")
    shutil.copy(app.path, scratch + "/fork")
    ship(client, db_id, app, "INSERT INTO t VALUES(1)")
    fork = App(scratch)
    fork.path, fork.db, fork.before = scratch + "/fork", sqlite3.connect(scratch + "/fork", isolation_level=None), {}
    pages = fork.pages("INSERT INTO t VALUES(2)", "INSERT INTO t VALUES(3)")
    other = Client(raftd.dir)
    other.open("app.db")
    assert other.commit(db_id, 1, pages, page_count=fork.count)[0] == REFUSED
    assert rows(raftd.dir) == 1


@claim
def nonsense_is_told_apart(raftd, scratch):
    raftd.start()
    client, app = Client(raftd.dir), App(scratch)
    db_id = client.open("app.db")[1][0]
    pages = app.pages("CREATE TABLE t(x)")
    assert client.commit(db_id + 7, 0, pages, page_count=app.count)[0] == NOTFOUND
    assert client.commit(db_id, 0, {2: pages[2]}, page_count=app.count)[0] == PROTOCOL
    assert client.commit(db_id, 5, pages, page_count=app.count)[0] == PROTOCOL
    bad = dict(pages)
    bad[1] = b"\0" * 4096
    assert client.commit(db_id, 0, bad, page_count=app.count)[0] == 4
    assert client.commit(db_id, 0, pages, page_count=app.count)[0] == OK
    assert client.commit(db_id, 1, {1: b"\0" * 512}, page_size=512, page_count=2)[0] != OK
    for name in ("a/b", "", ".hidden", "x-wal", "raft", "y" * 201):
        try:
            kind, body = Client(raftd.dir).open(name)
            assert kind == FAILED, (name, body)
        except EOFError:
            pass
    with open(raftd.dir + "/other.db", "w") as f:
        f.write("not ours")
    assert client.open("other.db")[0] == FAILED
    assert client.call(STATUS, ["app.db"])[0] == STATE
    assert rows(raftd.dir) == 0


@claim
def big_transaction_goes_through_a_staged_body(raftd, scratch):
    raftd.start()
    client, app = Client(raftd.dir), App(scratch)
    db_id = client.open("app.db")[1][0]
    ship(client, db_id, app, "CREATE TABLE t(x)")
    pages = ship(client, db_id, app,
                 "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<4000) "
                 "INSERT INTO t SELECT randomblob(4000) FROM c")
    assert len(pages) * 4096 > 8 << 20
    assert rows(raftd.dir) == 4000 and len(os.listdir(raftd.dir + "/raft/staged")) == 1
    log_bytes = json.loads(raftd.fetch("/status")[1])["store"]["raft"]["log_size"]
    raftd.kill()
    raftd.start()
    assert rows(raftd.dir) == 4000 and rows(raftd.dir, sql="PRAGMA integrity_check") == "ok"
    first = App(scratch)
    other_id = Client(raftd.dir).open("first.db")[1][0]
    client = Client(raftd.dir)
    client.open("first.db")
    ship(client, other_id, first, "CREATE TABLE t(x)", "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<2000) "
         "INSERT INTO t SELECT randomblob(4000) FROM c")
    assert rows(raftd.dir, "first.db") == 2000
    assert log_bytes < 64 << 20
    raftd.stop()
    Node(raftd.dir, "-raft-snap-int", "100ms").start()
    wait_for(lambda: not os.listdir(raftd.dir + "/raft/staged"), "bodies are deleted when the log does not need them")
    assert rows(raftd.dir) == 4000 and rows(raftd.dir, "first.db") == 2000


@claim
def many_databases_list_and_drop(raftd, scratch):
    raftd.start()
    client = Client(raftd.dir)
    apps = {}
    for i in range(10):
        name, app = "db%d.sqlite" % i, App(scratch, 512 << i % 8)
        apps[name] = (client.open(name)[1][0], app)
        ship(client, apps[name][0], app, "CREATE TABLE t(x)", "INSERT INTO t VALUES(%d)" % i)
    listed = raftd.databases()
    assert sorted(listed) == sorted(apps)
    assert all(listed[n]["version"] == 1 and listed[n]["state"] == "live" for n in listed)
    db_id = apps["db3.sqlite"][0]
    assert raftd.fetch("/db?db=db3.sqlite", "DELETE")[0] == 200
    assert raftd.fetch("/db?db=db3.sqlite", "DELETE")[0] == 404
    assert not os.path.exists(raftd.dir + "/db3.sqlite")
    assert os.path.exists(raftd.dir + "/raft/trash/%d-db3.sqlite" % db_id)
    pages = apps["db3.sqlite"][1].pages("INSERT INTO t VALUES(9)")
    assert client.commit(db_id, 1, pages, apps["db3.sqlite"][1].page_size, apps["db3.sqlite"][1].count)[0] == NOTFOUND
    new_id = client.open("db3.sqlite")[1][0]
    assert new_id != db_id
    app = App(scratch)
    ship(client, new_id, app, "CREATE TABLE t(x)", "INSERT INTO t VALUES('new')")
    raftd.kill()
    raftd.start()
    assert sorted(raftd.databases()) == sorted(apps)
    assert all(d["state"] == "live" for d in raftd.databases().values()), raftd.databases()
    assert rows(raftd.dir, "db3.sqlite", "SELECT x FROM t") == "new"
    assert rows(raftd.dir, "db4.sqlite", "SELECT x FROM t") == 4


@claim
def files_become_complete_when_nobody_writes(raftd, scratch):
    raftd.start()
    client, app = Client(raftd.dir), App(scratch)
    db_id = client.open("app.db")[1][0]
    ship(client, db_id, app, "CREATE TABLE t(x)")
    for i in range(30):
        ship(client, db_id, app, "INSERT INTO t VALUES(%d)" % i)

    def copy_is_complete():
        shutil.copy(raftd.dir + "/app.db", scratch + "/copy")
        try:
            return rows(scratch, "copy") == 30
        except sqlite3.DatabaseError:
            return False
    wait_for(copy_is_complete, "a copy of the file alone has every commit")


@claim
def log_is_compacted_and_restart_goes_on(raftd, scratch):
    raftd.flags += ["-raft-snap", "10", "-raft-snap-int", "100ms"]
    raftd.start()
    client, app = Client(raftd.dir), App(scratch)
    db_id = client.open("app.db")[1][0]
    ship(client, db_id, app, "CREATE TABLE t(x)")
    for i in range(40):
        ship(client, db_id, app, "INSERT INTO t VALUES(%d)" % i)
    wait_for(lambda: os.path.exists(raftd.dir + "/raft/descriptor"), "the log was compacted")
    ship(client, db_id, app, "INSERT INTO t VALUES('after')")
    raftd.kill()
    raftd.start()
    assert rows(raftd.dir) == 41
    client = Client(raftd.dir, client.session)
    assert client.open("app.db")[1][1] == 42
    assert client.ask(db_id, 20, 21)[:2] == [OK, 21], "origins are in the descriptor"
    ship(client, db_id, app, "INSERT INTO t VALUES('more')")
    assert rows(raftd.dir) == 42


def send_part(client, kind, db_id, app, pages):
    tail = b"".join(struct.pack(">I", n) + pages[n] for n in sorted(pages))
    client.send(kind, [db_id, 1, 0, app.page_size, app.count, len(pages)], tail)


@claim
def half_sent_transactions_past_the_limit_wait(raftd, scratch):
    raftd.start()
    app, other = App(scratch), App(scratch)
    pages = app.pages("CREATE TABLE t(x)", "INSERT INTO t VALUES(zeroblob(1500000))")
    halves = {n: pages[n] for n in pages if n <= 200}, {n: pages[n] for n in pages if n > 200}
    half_sent = []
    for i in range(HALF_SENT_MAX):
        client = Client(raftd.dir, timeout=60)
        db_id = client.open("half%d.db" % i)[1][0]
        send_part(client, PAGES, db_id, app, halves[0])
        assert client.call(STATUS, ["half%d.db" % i])[0] == STATE  # it has been read
        half_sent.append((client, db_id))
    began = time.monotonic()

    small = Client(raftd.dir)
    ship(small, small.open("small.db")[1][0], other, "CREATE TABLE t(x)")

    late, outcomes = [Client(raftd.dir, timeout=60) for _ in range(2)], [None, None]

    def commit(i):
        outcomes[i] = late[i].commit(late[i].open("late%d.db" % i)[1][0], 0, pages, page_count=app.count)

    threads = [threading.Thread(target=commit, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    threads[0].join(1)
    assert outcomes == [None, None], "more than the limit were let in"

    client, db_id = half_sent.pop()  # who is in comes to the end, and makes room
    send_part(client, COMMIT, db_id, app, halves[1])
    kind, _number, body = client.receive()
    assert (kind, body[0]) == (OUTCOME, OK), body
    half_sent.pop()[0].close()
    for thread in threads:
        thread.join()
    assert [o and o[:2] for o in outcomes] == [[OK, 1], [OK, 1]], outcomes
    assert time.monotonic() - began < 9.5  # before one of those was dropped

    for client, _db_id in half_sent:  # and who stopped is dropped
        harness.equal(client.sock.recv(1), b"", "what comes after half a transaction")
    assert 8 < time.monotonic() - began < 40, time.monotonic() - began


@claim
def many_more_than_may_be_half_sent_come_to_their_end(raftd, scratch):
    raftd.start()
    app = App(scratch)
    pages = app.pages("CREATE TABLE t(x)", "INSERT INTO t VALUES(zeroblob(3000000))")
    outcomes = []

    def commit(i):
        client = Client(raftd.dir, timeout=60)
        outcomes.append(client.commit(client.open("many%d.db" % i)[1][0], 0, pages, page_count=app.count))

    threads = [threading.Thread(target=commit, args=(i,)) for i in range(3 * HALF_SENT_MAX)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    harness.equal([o[:2] for o in outcomes], [[OK, 1]] * len(threads), "outcomes")


def refused_with(raftd, *words, code=1):
    raftd.launch()
    harness.equal(raftd.exit_code(), code, "exit code of a raftd that does not start")
    for word in words:
        assert word in raftd.log(), (word, raftd.log())


@claim
def a_refused_first_start_leaves_no_raft_directory(raftd, scratch):
    with open(raftd.dir + "/stray.db-wal", "wb") as f:
        f.write(b"x" * 1000)
    before = sorted(os.listdir(raftd.dir))
    taken = socket.create_server(("127.0.0.1", 0))
    refused_with(Node(raftd.dir, "-node-id", "x" * 300), "-node-id")
    refused_with(Node(raftd.dir, "-http-addr", "127.0.0.1:%d" % taken.getsockname()[1]), "failed to start HTTP server")
    refused_with(Node(raftd.dir, "-no-such-flag"), "-no-such-flag", code=2)
    harness.equal(sorted(os.listdir(raftd.dir)), before, "what is in the directory")
    raftd.start()
    refused_with(Node(raftd.dir), "another raftd")
    assert os.path.exists(raftd.dir + "/raft/lock")
    client, app = Client(raftd.dir), App(scratch)
    ship(client, client.open("app.db")[1][0], app, "CREATE TABLE t(x)")


@claim
def an_unknown_log_level_is_told_and_does_not_stop_it(raftd, scratch):
    node = Node(raftd.dir, "-raft-log-level", "bogus")
    node.start()
    assert 'msg="-raft-log-level is none of' in node.log() and 'given="bogus"' in node.log(), node.log()
    node.stop()


@claim
def start_is_refused_on_what_is_not_its_own(raftd, scratch):
    raftd.start()
    client, app = Client(raftd.dir), App(scratch)
    db_id = client.open("app.db")[1][0]
    ship(client, db_id, app, "CREATE TABLE t(x)")
    refused_with(Node(raftd.dir), "another raftd, pid %d, serves" % raftd.process.pid)
    assert raftd.fetch("/readyz")[0] == 200
    shutil.copytree(raftd.dir + "/raft", scratch + "/raft")
    for i in range(5):
        ship(client, db_id, app, "INSERT INTO t VALUES(1)")
    raftd.kill()
    refused_with(Node(raftd.dir, "-node-id", "n2"), "belongs to node n1")
    shutil.move(raftd.dir + "/raft", scratch + "/right")
    shutil.copytree(scratch + "/raft", raftd.dir + "/raft")
    refused_with(Node(raftd.dir), "older or shorter", "-refound")
    shutil.rmtree(raftd.dir + "/raft")
    refused_with(Node(raftd.dir), "replica of another cluster", "-refound")
    assert not os.path.exists(raftd.dir + "/raft")
    shutil.copytree(scratch + "/right", raftd.dir + "/raft")
    shutil.rmtree(raftd.dir + "/raft/log")
    refused_with(Node(raftd.dir), "-refound")
    Node(raftd.dir, "-refound").start().stop()
    raftd.start()
    assert rows(raftd.dir) == 5
    client = Client(raftd.dir)
    db_id, version, _ = client.open("app.db")[1]
    assert version == 6
    ship(client, db_id, app, "INSERT INTO t VALUES(1)")
    assert rows(raftd.dir) == 6


@claim
def removed_or_replaced_file_is_quarantined(raftd, scratch):
    raftd.start()
    client = Client(raftd.dir)
    apps = {}
    for name in ("gone.db", "swapped.db", "fine.db"):
        apps[name] = App(scratch)
        ship(client, client.open(name)[1][0], apps[name], "CREATE TABLE t(x)")
    raftd.kill()
    for suffix in ("", "-wal", "-shm", "-rqctl"):
        os.unlink(raftd.dir + "/gone.db" + suffix)
    shutil.copy(raftd.dir + "/swapped.db", scratch + "/swapped")
    os.unlink(raftd.dir + "/swapped.db")
    shutil.copy(scratch + "/swapped", raftd.dir + "/swapped.db")
    raftd.start()
    listed = raftd.databases()
    assert {n: d["state"] for n, d in listed.items()} == {
        "gone.db": "quarantined", "swapped.db": "quarantined", "fine.db": "live"}, listed
    assert f"curl -X DELETE 'http://{raftd.http}/db?db=gone.db'" in listed["gone.db"]["message"], listed["gone.db"]
    assert not os.path.exists(raftd.dir + "/gone.db")
    client = Client(raftd.dir)
    db_id = client.open("gone.db")[1][0]
    assert client.commit(db_id, 1, apps["gone.db"].pages("INSERT INTO t VALUES(1)"), page_count=2)[0] == QUARANTINED
    assert raftd.fetch("/db?db=gone.db", "DELETE")[0] == 200
    new = App(scratch)
    ship(client, client.open("gone.db")[1][0], new, "CREATE TABLE t(x)")
    assert rows(raftd.dir, "gone.db") == 0


@claim
def files_that_are_there_are_adopted_when_a_cluster_is_founded(raftd, scratch):
    for mode, page_size in (("delete", 512), ("wal", 4096), ("persist", 65536)):
        with sqlite3.connect("%s/%s.db" % (raftd.dir, mode), isolation_level=None) as db:
            db.execute("PRAGMA page_size=%d" % page_size)
            db.execute("PRAGMA journal_mode=%s" % mode)
            db.execute("CREATE TABLE t(x)")
            db.execute("INSERT INTO t VALUES('%s')" % mode)
        db.close()
    # A WAL that its writer left: copied while it is open.
    db = sqlite3.connect(scratch + "/hot", isolation_level=None)
    db.execute("PRAGMA journal_mode=wal")
    db.execute("CREATE TABLE t(x)")
    db.execute("INSERT INTO t VALUES('hot')")
    for suffix in ("", "-wal"):
        shutil.copy(scratch + "/hot" + suffix, raftd.dir + "/hot.db" + suffix)
    db.close()
    with open(raftd.dir + "/notes.txt", "w") as f:
        f.write("no database")
    raftd.start()
    listed = raftd.databases()
    assert sorted(listed) == ["delete.db", "hot.db", "persist.db", "wal.db"], listed
    assert all(d["state"] == "live" for d in listed.values()), listed
    assert json.loads(raftd.fetch("/db")[1])["not_replicated"] == ["notes.txt"]
    for name in listed:
        assert rows(raftd.dir, name, "SELECT x FROM t") == name[:-3]
        with open(raftd.dir + "/" + name, "rb") as f:
            assert f.read(20)[18] == 0x52
    raftd.kill()
    raftd.start()
    assert all(d["state"] == "live" for d in raftd.databases().values())
    client, app = Client(raftd.dir), App(scratch)
    db_id, app.version, _ = client.open("delete.db")[1]
    # Shipped from a copy that a stock tool made.
    os.unlink(app.path)
    shutil.copy(raftd.dir + "/delete.db", app.path)
    with open(app.path, "r+b") as f:
        f.seek(18)
        f.write(b"\1\1")
    app.db = sqlite3.connect(app.path, isolation_level=None)
    app.page_size = 512
    ship(client, db_id, app, "INSERT INTO t VALUES('more')")
    assert rows(raftd.dir, "delete.db") == 2


@claim
def strangers_on_the_socket_hurt_nobody(raftd, scratch):
    raftd.start()
    client, app = Client(raftd.dir), App(scratch)
    db_id = client.open("app.db")[1][0]
    ship(client, db_id, app, "CREATE TABLE t(x)")
    idle = []
    for _ in range(1000):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(raftd.dir + "/raftd.sock")
        idle.append(s)
    ship(client, db_id, app, "INSERT INTO t VALUES(1)")
    for i, garbage in enumerate((os.urandom(4096), b"\0" * 16, b"\xff" * 16, b"GET / HTTP/1.1\r\n\r\n", b"\x00\x10\x00\x01" + b"\0" * 12)):
        idle[i].sendall(garbage)
        idle[i].settimeout(60)
        try:
            assert idle[i].recv(100) == b"", "garbage is answered by the end"
        except ConnectionResetError:
            pass
    half = Client(raftd.dir)
    half.sock.sendall(b"\0\0\1\0\0\6\0\0")
    for s in idle:
        s.close()
    for i in range(20):
        ship(client, db_id, app, "INSERT INTO t VALUES(%d)" % i)
    half.sock.settimeout(60)
    started = time.monotonic()
    assert half.sock.recv(1) == b""
    assert 8 < time.monotonic() - started < 40
    assert rows(raftd.dir) == 21


@claim
def http_answers_as_rqlite_does(raftd, scratch):
    raftd.start()
    status, body, headers = raftd.fetch("/readyz")
    assert (status, body) == (200, "[+]node ok\n[+]leader ok\n[+]store ok\n[+]db ok")
    assert headers["X-Rqlite-Version"]
    assert raftd.fetch("/readyz?noleader")[1] == "[+]node ok"
    status = json.loads(raftd.fetch("/status")[1])
    assert status["store"]["raft"]["state"] == "Leader"
    assert status["store"]["leader"]["node_id"] == status["store"]["node_id"] == "n1"
    assert raftd.fetch("/status?key=store.raft.state")[1] == '"Leader"'
    assert raftd.fetch("/status?key=no.such")[1] == "{}"
    assert raftd.fetch("/nothing")[:2] == (404, "")
    status, body, headers = raftd.fetch("/readyz", "POST")
    assert (status, body, headers["Allow"]) == (405, "", "GET")
    assert raftd.fetch("/db?db=%zz")[0] == 400
    assert raftd.fetch("/db", "DELETE")[0] == 400
    assert raftd.fetch("/db", "OPTIONS")[0] == 200


@claim
def sigterm_ends_it_at_once_with_status_0(raftd, scratch):
    raftd.start()
    client = Client(raftd.dir)
    started = time.monotonic()
    raftd.stop()
    assert time.monotonic() - started < 30
    assert not os.path.exists(raftd.dir + "/raftd.sock")
    client.close()


@claim
def a_data_directory_is_made_with_the_way_to_it(raftd, scratch):
    """As rqlited makes it; the last one is nobody else's."""
    raftd.directory = raftd.directory / "one" / "two" / "node"
    raftd.start()
    harness.equal(raftd.directory.stat().st_mode & 0o777, 0o750, "mode")


@claim
def long_directory_paths_are_served(raftd, scratch):
    raftd.directory = raftd.directory / ("d" * 120)
    raftd.directory.mkdir()
    raftd.start()
    assert Client(raftd.dir).open("app.db")[0] == OPENED


harness.main()
