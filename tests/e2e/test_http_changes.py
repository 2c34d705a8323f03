"""GET /db/changes: the committed transactions of a database as server-sent events, on every node."""

import http.client
import json
import os
import socket
import threading

from access import login
from cluster import Cluster
from harness import Raftd, check, connect, equal, main, shell_stock, temporary, test, value, wait_for


class Listener:
    """Reads a stream on a thread, into .events: (event, id, data)."""

    def __init__(self, node, target="/db/changes?db=app.db", last=None, headers=None):
        host, port = node.http.split(":")
        self.link = http.client.HTTPConnection(host, int(port), timeout=60)
        self.link.request("GET", target, headers={**(headers or {}), **({"Last-Event-ID": last} if last else {})})
        self.answer = self.link.getresponse()
        self.status = self.answer.status
        self.events, self.comments, self.ended = [], [], False
        if self.status != 200:
            self.text = self.answer.read()
            return
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        wait_for(lambda: self.events, "the stream begins")

    def read(self):
        event, number, data = None, None, None
        try:
            for line in iter(self.answer.readline, b""):
                key, _, rest = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    event = rest
                elif key == "id":
                    number = rest
                elif key == "data":
                    data = json.loads(rest)
                elif key == "" and rest:
                    self.comments.append(rest)
                elif key == "" and event:
                    self.events.append((event, number, data))
                    event, number, data = None, None, None
        except (OSError, http.client.HTTPException):
            pass
        self.ended = True

    def close(self):
        self.link.sock and self.link.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()

    def changes(self):
        return [data for event, _, data in list(self.events) if event == "change"]

    def last(self):
        """Its Last-Event-ID."""
        return [number for _, number, _ in self.events if number][-1]

    def wait_version(self, version, seconds=60.0):
        wait_for(lambda: self.changes() and self.changes()[-1]["version"] >= version, f"the change to version {version}", seconds)


def version_of(node, name="app.db"):
    return next(one["version"] for one in json.loads(node.get("/db")[1])["databases"] if one["name"] == name)


def next_change(listener, act):
    """What the listener hears of what is done now."""
    count = len(listener.changes())
    act()
    wait_for(lambda: len(listener.changes()) > count, "a change is told")
    return listener.changes()[count]


def check_chain(changes, at):
    """None behind that version is missing, none comes twice, and they are in order."""
    for change in changes:
        check(change["version"] - change["transactions"] == at, f"after version {at} comes {change}")
        at = change["version"]


def execute(node, *statements, db="app.db"):
    status, text = node.request("POST", f"/db/execute?db={db}", json.dumps(statements).encode())
    equal(status, 200, text)
    check("error" not in text, text)


@test
def each_transaction_is_told_with_its_tables():
    raftd = Raftd()
    app = connect(raftd.path())
    app.execute("CREATE TABLE first(x)")
    listener = Listener(raftd)
    event, number, data = listener.events[0]
    equal((event, data["database"]), ("start", "app.db"))
    equal(int(number.split("-")[1]), version_of(raftd))

    def tables(sql):
        return next_change(listener, lambda: app.executescript(sql))["tables"]

    equal(tables("INSERT INTO first VALUES(1)"), ["first"])
    equal(tables("CREATE TABLE second(k PRIMARY KEY, v) WITHOUT ROWID"), ["second", "sqlite_schema"])
    equal(tables("CREATE INDEX by_v ON second(v)"), ["second", "sqlite_schema"])
    equal(tables("BEGIN; INSERT INTO first VALUES(2); INSERT INTO second VALUES(1, 1); COMMIT"), ["first", "second"])
    equal(tables("UPDATE second SET v = 2"), ["second"])
    equal(tables("UPDATE first SET x = zeroblob(100000) WHERE x = 1"), ["first"])
    equal(tables("CREATE VIRTUAL TABLE words USING fts5(t)")[-1], "words_idx")
    told = tables("INSERT INTO words VALUES('fish')")
    check("words" in told and "words_content" in told and "first" not in told, told)
    equal(tables("DROP TABLE second"), ["second", "sqlite_schema"])
    equal(tables("ALTER TABLE first RENAME TO other"), ["first", "other", "sqlite_schema"])
    equal(tables("DELETE FROM other"), ["other"])
    change = next_change(listener, lambda: execute(raftd, "INSERT INTO other VALUES(5)"))  # not by an application
    equal((change["tables"], change["transactions"], change["database"]), (["other"], 1, "app.db"))
    equal(change["version"], version_of(raftd))
    check(change["time"].endswith("Z") and change["index"] > 0, change)
    check_chain(listener.changes(), listener.events[0][2]["version"])
    # More than fits into the log.
    equal(tables("INSERT INTO other SELECT zeroblob(6000000)"), ["other"])
    tables("DELETE FROM words")
    told = tables("VACUUM")
    check("sqlite_schema" in told and "words_content" in told, told)
    status = raftd.status()["http"]["changes"]
    equal(status, {"databases": 1, "listeners": 1})
    check(json.loads(raftd.get("/debug/vars")[1])["http"]["changes_told"] >= len(listener.changes()), "changes_told")
    listener.close()

    def has_left():  # which is noticed when something is to be told
        app.execute("INSERT INTO other VALUES(1)")
        return raftd.status()["http"]["changes"]["listeners"] == 0

    wait_for(has_left, "the listener has left")


@test
def a_stream_goes_on_where_it_was():
    raftd = Raftd()
    app = connect(raftd.path())
    app.execute("CREATE TABLE t(x)")
    listener = Listener(raftd)
    start = version_of(raftd)
    for i in range(50):
        app.execute("INSERT INTO t VALUES(?)", (i,))
    listener.wait_version(start + 50)
    equal([one["tables"] for one in listener.changes()], [["t"]] * 50)
    listener.close()
    middle = listener.events[20][1]
    for i in range(20):
        app.execute("INSERT INTO t VALUES(?)", (i,))
    again = Listener(raftd, last=middle)
    again.wait_version(start + 70)
    check_chain(again.changes(), int(middle.split("-")[1]))
    again.close()
    # ?from is the same, and Last-Event-ID is stronger.
    again = Listener(raftd, f"/db/changes?db=app.db&from={start + 69}")
    again.wait_version(start + 70)
    equal(len(again.changes()), 1)
    again.close()
    again = Listener(raftd, "/db/changes?db=app.db&from=1", last=listener.last())
    again.wait_version(start + 70)
    equal(len(again.changes()), 20)
    again.close()
    # After a kill, from the log.
    raftd.kill()
    raftd.start()
    again = Listener(raftd, f"/db/changes?db=app.db&from={start}")
    again.wait_version(start + 70)
    check_chain(again.changes(), start)
    equal({tuple(one["tables"]) for one in again.changes()}, {("t",)})
    connect(raftd.path()).execute("INSERT INTO t VALUES(1)")
    again.wait_version(start + 71)
    check_chain(again.changes(), start)
    raftd.stop()
    wait_for(lambda: again.ended, "the stream ends")
    equal(again.comments[-1], "this node stops")


@test
def what_cannot_be_told_is_said():
    raftd = Raftd()
    app = connect(raftd.path())
    app.execute("CREATE TABLE t(x)")
    for target, last, status in (("/db/changes?db=none", None, 404), ("/db/changes?db=app.db&from=x", None, 400),
                                 ("/db/changes?db=app.db", "7-", 400), ("/db/changes?db=app.db", "1-2-3", 400),
                                 ("/db/changes?db=app.db", "99999-1", 410)):
        equal(Listener(raftd, target, last).status, status, target)
    equal(raftd.raw("POST", "/db/changes?db=app.db").status, 405)
    # Dropped while somebody listens; the next one of that name is another.
    listener = Listener(raftd)
    last = listener.last()
    app.close()
    equal(raftd.request("DELETE", "/db?db=app.db")[0], 200)
    wait_for(lambda: listener.ended, "the stream ends")
    equal(listener.events[-1][0], "dropped")
    app = connect(raftd.path())
    app.execute("CREATE TABLE t(x)")
    refused = Listener(raftd, last=last)
    equal(refused.status, 410)
    said = json.loads(refused.text)
    equal((said["version"], said["database"]), (version_of(raftd), "app.db"))


@test
def what_the_log_has_no_more_is_said():
    raftd = Raftd(None, "-raft-snap", "10", "-raft-snap-int", "100ms")
    app = connect(raftd.path())
    app.execute("CREATE TABLE t(x)")
    start = version_of(raftd)
    for _ in range(40):
        app.execute("INSERT INTO t VALUES(randomblob(1000000))")
    wait_for(lambda: raftd.status()["store"]["raft"]["log_size"] < 40000000, "the log is compacted")
    refused = Listener(raftd, f"/db/changes?db=app.db&from={start}")
    equal(refused.status, 410)
    said = json.loads(refused.text)
    check(start < said["oldest"] <= said["version"] == start + 40, said)
    listener = Listener(raftd, f"/db/changes?db=app.db&from={said['oldest']}")
    app.execute("INSERT INTO t VALUES(1)")
    listener.wait_version(start + 41)
    check_chain(listener.changes(), said["oldest"])


@test
def a_node_that_was_brought_up_to_date_tells_of_the_gap():
    cluster = Cluster(3, "-raft-snap", "10", "-raft-snap-int", "100ms")
    leader = cluster.leader()
    app = connect(leader.path(), busy_ms=20000)
    app.execute("CREATE TABLE t(x)")
    behind = cluster.others(leader)[0]
    wait_for(lambda: version_of(behind) == version_of(leader), "it has the table")
    listener = Listener(behind)
    start = version_of(leader)
    behind.pause()
    rounds = 0

    def released():
        nonlocal rounds
        app.execute("INSERT OR REPLACE INTO t(rowid, x) VALUES(1, randomblob(3000000))")
        rounds += 1
        return rounds % 9 == 0 and leader.status()["store"]["raft"]["log_size"] < rounds * 3000000 - (10 << 20)

    wait_for(released, "the log is released")
    behind.go_on()
    wait_for(lambda: [one for one in listener.events if one[0] == "gap"], "a gap is told")
    event, number, data = next(one for one in listener.events if one[0] == "gap")
    check(start < data["version"] <= start + rounds and number.endswith(f"-{data['version']}"), data)

    def goes_on():  # perhaps after another gap: it may be brought up to date once more
        app.execute("INSERT INTO t VALUES(1)")
        return listener.changes()

    wait_for(goes_on, "a change is told")
    at = None
    for event, _, data in list(listener.events):
        if event == "change":
            check_chain([data], at)
            equal(data["tables"], ["t"])
        at = data["version"]


@test
def a_slow_listener_gets_all_at_its_own_pace():
    raftd = Raftd()
    app = connect(raftd.path())
    app.execute("CREATE TABLE t(x)")
    start = version_of(raftd)
    link = socket.create_connection(raftd.http.split(":"))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.sendall(b"GET /db/changes?db=app.db HTTP/1.0\r\nHost: x\r\n\r\n")
    reader = link.makefile("rb")
    while not reader.readline().startswith(b"event: start"):
        pass
    for number in range(800):
        app.execute("INSERT INTO t VALUES(?)", (number,))
    changes = []
    while not changes or changes[-1]["version"] < start + 800:
        line = reader.readline()
        check(line, "the stream has ended")
        if line.startswith(b"data: ") and b"transactions" in line:
            changes.append(json.loads(line[6:]))
    check_chain(changes, start)
    equal({tuple(one["tables"]) for one in changes}, {("t",)})


@test
def who_may_listen():
    path = temporary("users.json")
    path.write_text(json.dumps([{"username": "q", "password": "p", "perms": ["query"]}, {"username": "s", "password": "p", "perms": ["status"]},
                                {"username": "*", "perms": ["ready", "status"]}]))
    raftd = Raftd(None, "-auth", str(path))
    connect(raftd.path()).execute("CREATE TABLE t(x)")
    equal(Listener(raftd).status, 401)
    equal(Listener(raftd, headers=login("s", "p")).status, 401)
    listener = Listener(raftd, headers=login("q", "p"))
    equal((listener.status, listener.answer.headers["Content-Type"], listener.answer.headers["Cache-Control"]),
          (200, "text/event-stream", "no-store"))


@test
def many_listeners_cost_no_thread():
    raftd = Raftd()
    app = connect(raftd.path())
    app.execute("CREATE TABLE t(x)")
    listeners = [Listener(raftd) for _ in range(100)]
    threads = len(os.listdir(f"/proc/{raftd.process.pid}/task"))
    check(threads < 40, threads)
    equal(value(app, "SELECT count(*) FROM t"), 0)
    version = version_of(raftd)
    app.execute("INSERT INTO t VALUES(1)")
    for listener in listeners:
        listener.wait_version(version + 1)
        equal(listener.changes()[0]["tables"], ["t"])


@test
def every_node_tells_the_same():
    cluster = Cluster(3)
    first, second, third = cluster.nodes
    apps = {node: connect(node.path(), busy_ms=20000) for node in cluster.nodes}
    apps[first].execute("CREATE TABLE t(x)")
    wait_for(lambda: all(version_of(node) == version_of(first) for node in cluster.nodes), "all nodes have the table")
    start = version_of(first)
    listeners = {node: Listener(node) for node in cluster.nodes}
    for i in range(10):
        apps[first].execute("INSERT INTO t VALUES(?)", (i,))
        apps[second].execute("INSERT INTO t VALUES(?)", (i,))
        execute(third, f"INSERT INTO t VALUES({i})")
    told = []
    for node, listener in listeners.items():
        listener.wait_version(start + 30)
        check_chain(listener.changes(), start)
        told.append([{**one, "time": None} for one in listener.changes()])
    check(told[0] == told[1] == told[2], "the nodes tell different things")
    # The leader dies: whoever listened there goes on elsewhere.
    leader = cluster.leader()
    heard = listeners[leader]
    leader.kill()
    wait_for(lambda: heard.ended, "the stream ends")
    others = cluster.others(leader)
    cluster.leader(others)
    for i in range(10):
        apps[others[0]].execute("INSERT INTO t VALUES(?)", (i,))
    going_on = Listener(others[1], last=heard.last())
    going_on.wait_version(start + 40)
    check_chain(heard.changes() + going_on.changes(), start)
    # It comes back, and tells those, too.
    leader.start()
    back = Listener(leader, last=heard.last())
    back.wait_version(start + 40)
    check_chain(heard.changes() + back.changes(), start)
    equal({tuple(one["tables"]) for one in going_on.changes() + back.changes()}, {("t",)})  # also of those before it was listened to
    equal(shell_stock(others[1].path(), "SELECT count(*) FROM t"), "40")


main()
