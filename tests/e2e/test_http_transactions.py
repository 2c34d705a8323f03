"""Transactions over several HTTP requests: /db/begin, ?tx=, /db/commit, /db/rollback; on one node and on three."""

import json
import threading

from access import login
from cluster import Cluster
from harness import Raftd, check, connect, equal, main, temporary, test, value, wait_for
from http_client import Client, result, target

SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000) SELECT sum(i) FROM n"
NO_SUCH = (404, "no such transaction\n")


def begin(client, **flags):
    return client.json("POST", target("/db/begin", {"idle_timeout": "1m", **flags}))["tx"]


def answer(client, path, headers=None, **flags):
    """Status and text."""
    got = client.ask("POST", target(path, flags), headers=headers)
    return got.status, got.text


def ends(client, path, tx, **flags):
    """It does, as it should."""
    status, text = answer(client, path, tx=tx, **flags)
    equal(status, 200, f"{path}: {text}")
    return json.loads(text)


def is_over(client, tx, why):
    """Each request says so."""
    for path in ("/db/execute", "/db/query", "/db/request"):
        got = client.ask("POST", target(path, {"tx": tx}), ["SELECT 1"])
        equal((got.status, got.text), (404, f"this transaction was {why}\n"), path)


def counts(node):
    """Of transactions, by how they ended."""
    counters = json.loads(node.get("/debug/vars?key=http")[1])["http"]
    return {key[3:]: number for key, number in counters.items() if key.startswith("tx_")}


def opened(node):
    return node.status()["http"]["transactions"]["open"]


class Node:
    """One raftd with a table t(x)."""

    def __init__(self, *flags, node=None):
        self.node = node or Raftd(None, *flags)
        self.client = Client(self.node)
        self.client.execute("CREATE TABLE t (x UNIQUE)")

    def __iter__(self):
        return iter((self.node, self.client, Client(self.node)))


# --- one node -----------------------------------------------------------------------------------------------------------


@test
def requests_of_a_transaction_see_what_it_wrote_and_nobody_else_does_before_its_commit():
    node, client, other = Node()
    begun = client.json("POST", "/db/begin")
    tx = begun.pop("tx")
    equal(begun, {"db": "db.sqlite", "mode": "immediate", "idle_timeout": "10s", "lifetime": "1m0s"}, "what is said of it")
    equal(result(client.execute("INSERT INTO t VALUES(1)", tx=tx)), {"last_insert_id": 1, "rows_affected": 1}, "a write")
    equal(result(client.request("INSERT INTO t VALUES(2) RETURNING x", tx=tx))["values"], [[2]], "RETURNING")
    equal(client.values("SELECT count(*) FROM t", tx=tx), [[2]], "its own writes")
    equal(other.values("SELECT count(*) FROM t"), [[0]], "others'")
    equal(opened(node), 1, "open")
    before = other.json("GET", "/db/query?q=SELECT+1&level=linearizable&raft_index")["raft_index"]
    committed = ends(other, "/db/commit", tx, raft_index=True)  # any connection may
    check(committed.pop("raft_index") > before and committed == {"results": []}, f"commit: {committed}")
    equal(other.values("SELECT count(*) FROM t"), [[2]], "after the commit")
    equal(value(connect(node.path("db.sqlite")), "SELECT count(*) FROM t"), 2, "for applications, too")
    check(ends(client, "/db/commit", tx, raft_index=True)["raft_index"] > before, "whoever asks again hears the same")
    equal(answer(client, "/db/rollback", tx=tx), (404, "this transaction was committed\n"), "what is committed is")
    is_over(client, tx, "committed")
    tx = begin(client)
    client.execute("DELETE FROM t", "DROP TABLE t", tx=tx)
    equal(client.query("SELECT * FROM t", tx=tx), {"results": [{"error": "no such table: t"}]}, "dropped")
    equal(ends(client, "/db/rollback", tx, timings=True).keys(), {"results", "time"}, "rollback")
    ends(client, "/db/rollback", tx)
    equal(answer(client, "/db/commit", tx=tx), (404, "this transaction was rolled back\n"), "what is rolled back is")
    is_over(client, tx, "rolled back")
    equal(client.values("SELECT count(*) FROM t"), [[2]], "after the rollback")
    equal(ends(client, "/db/commit", begin(client)), {"results": []}, "one that wrote nothing")
    counted = {"begun": 3, "committed": 2, "rolled_back": 1, "expired": 0, "failed": 0, "unknown": 0}
    equal(counts(node), counted, "counters")
    check("raftd_http_transactions 0\n" in node.get("/metrics")[1], "metrics")


@test
def what_is_no_transaction_is_not_found():
    node, client, other = Node()
    tx = begin(client)
    for wrong in ("", "1", tx[:-1], tx + "0", tx[:17] + "0" * 32, "g" + tx[1:], "0" * 16 + tx[16:], tx.replace("-", "_")):
        for path in ("/db/commit", "/db/rollback", "/db/execute", "/db/request"):
            got = client.ask("POST", target(path, {"tx": wrong}), ["SELECT 1"])
            equal((got.status, got.text), NO_SUCH, f"{path} {wrong!r}")
    equal(answer(client, "/db/commit"), NO_SUCH, "without an id")
    equal(answer(client, "/db/commit", tx=tx, db="other"), NO_SUCH, "of another database")
    for flags, text in (
        ({"mode": "exclusive"}, "mode is neither immediate nor deferred\n"),
        ({"idle_timeout": "x"}, "idle_timeout is not a valid duration\n"),
        ({"idle_timeout": "0"}, "idle_timeout has to be between 1ms and 1m0s\n"),
        ({"idle_timeout": "61s"}, "idle_timeout has to be between 1ms and 1m0s\n"),
    ):
        equal(answer(client, "/db/begin", **flags), (400, text), f"{flags}")
    equal(answer(client, "/db/begin", db="none"), (404, "no such database\n"), "no database")
    equal(client.ask("GET", "/db/begin").status, 405, "GET")
    got = client.ask("POST", target("/db/execute", {"tx": tx, "queue": True}), ["SELECT 1"])
    equal((got.status, got.text), (400, "a transaction cannot be queued\n"), "queue")
    ends(client, "/db/commit", tx, db="db.sqlite")
    new = Client(Raftd())
    equal(answer(new, "/db/begin", mode="deferred")[0], 200, "a node without a database")
    tx = begin(new)
    new.execute("CREATE TABLE t (x)", tx=tx)
    equal(new.query("SELECT * FROM t"), {"results": [{"error": "no such table: t"}]}, "not yet")
    ends(new, "/db/commit", tx)
    equal(new.values("SELECT count(*) FROM t"), [[0]], "its first commit")


@test
def errors_leave_it_open_unless_sqlite_ends_it():
    node, client, other = Node()
    tx = begin(client)
    client.execute("INSERT INTO t VALUES(1)", tx=tx)
    equal(
        client.execute("INSERT INTO t VALUES(1)", "nonsense", "INSERT INTO t VALUES(2)", tx=tx)["results"],
        [{"error": "UNIQUE constraint failed: t.x"}, {"error": 'near "nonsense": syntax error'}, {"last_insert_id": 2, "rows_affected": 1}],
        "errors of statements",
    )
    for sql in ("COMMIT", "END", "ROLLBACK", "commit transaction"):
        wanted = {"results": [{"error": "this transaction is ended by /db/commit or /db/rollback"}]}
        equal(client.execute(sql, tx=tx), wanted, sql)
    equal(client.execute("BEGIN", tx=tx), {"results": [{"error": "cannot start a transaction within a transaction"}]}, "BEGIN")
    equal(client.execute("VACUUM", tx=tx), {"results": [{"error": "cannot VACUUM from within a transaction"}]}, "VACUUM")
    equal(client.execute("PRAGMA journal_mode=off", tx=tx), {"results": [], "error": "disallowed pragma"}, "a pragma")
    equal(client.query("INSERT INTO t VALUES(3)", tx=tx), {"results": [{"error": "attempt to change database via query operation"}]}, "query")
    # Savepoints, of the client and of a request.
    client.execute("SAVEPOINT s", "INSERT INTO t VALUES(3)", "ROLLBACK TO s", "INSERT INTO t VALUES(4)", "RELEASE s", tx=tx)
    wanted = [{"last_insert_id": 4, "rows_affected": 1}, {"error": "UNIQUE constraint failed: t.x"}]
    answered = client.execute("INSERT INTO t VALUES(5)", "INSERT INTO t VALUES(4)", "INSERT INTO t VALUES(6)", tx=tx, transaction=True)
    equal(answered["results"], wanted, "a request with transaction stops at an error")
    client.execute("INSERT INTO t VALUES(7)", "INSERT INTO t VALUES(8)", tx=tx, transaction=True)
    wanted = [[1], [2], [4], [7], [8]]
    equal(client.values("SELECT x FROM t", tx=tx), wanted, "before the commit")
    ends(client, "/db/commit", tx)
    equal(client.values("SELECT x FROM t"), wanted, "after it")
    tx = begin(client)
    client.execute("INSERT INTO t VALUES(9)", tx=tx)
    wanted = {"results": [{"error": "UNIQUE constraint failed: t.x"}], "error": "the transaction was rolled back"}
    equal(client.execute("INSERT OR ROLLBACK INTO t VALUES(1)", tx=tx), wanted, "SQLite rolls back")
    is_over(client, tx, "rolled back, by an error of one of its statements")
    equal(answer(client, "/db/commit", tx=tx)[0], 404, "commit of it")
    tx = begin(client)
    client.execute("SAVEPOINT s", tx=tx)
    ended = client.execute("INSERT INTO t VALUES(9)", "RELEASE s", tx=tx, transaction=True)
    equal(ended.get("error"), "the transaction was rolled back", "a request releases what is not its own")
    equal(counts(node)["failed"], 2, "failed")


@test
def a_deferred_constraint_is_looked_at_by_commit():
    node = Raftd(None, "-fk")
    client = Client(node)
    client.execute("CREATE TABLE a (id INTEGER PRIMARY KEY)", "CREATE TABLE b (a REFERENCES a DEFERRABLE INITIALLY DEFERRED)")
    tx = begin(client)
    client.execute("INSERT INTO b VALUES(1)", tx=tx)
    equal(ends(client, "/db/commit", tx), {"results": [], "error": "FOREIGN KEY constraint failed: the transaction is still open"}, "commit")
    client.execute("INSERT INTO a VALUES(1)", tx=tx)
    equal(ends(client, "/db/commit", tx), {"results": []}, "commit")
    equal(client.values("SELECT * FROM b"), [[1]], "after it")


@test
def a_deferred_one_has_one_snapshot_and_writes_only_on_the_newest():
    node, client, other = Node()
    other.execute("INSERT INTO t VALUES(1)")
    tx = begin(client, mode="deferred")
    other.execute("INSERT INTO t VALUES(2)")
    equal(client.values("SELECT count(*) FROM t", tx=tx), [[1]], "as it was when it began")
    other.execute("INSERT INTO t VALUES(3)")
    equal(client.values("SELECT count(*) FROM t", tx=tx, level="linearizable"), [[1]], "still")
    equal(client.execute("INSERT INTO t VALUES(4)", tx=tx), {"results": [{"error": "database is locked"}]}, "a write on what is old")
    equal(client.values("SELECT count(*) FROM t", tx=tx), [[1]], "goes on")
    equal(ends(client, "/db/commit", tx), {"results": []}, "commit")
    tx = begin(client, mode="deferred", level="none")
    client.execute("INSERT INTO t VALUES(4)", tx=tx)
    got = other.ask("POST", target("/db/begin", {"timeout": "50ms"}))
    equal((got.status, got.text), (503, "another writer has the database\n"), "while it writes")
    ends(client, "/db/commit", tx)
    equal(client.values("SELECT count(*) FROM t"), [[4]], "after it")


@test
def a_deferred_one_waits_for_a_writer_and_goes_on_if_that_wrote_nothing():
    node, client, other = Node()
    for end, wanted in (("rollback", {"last_insert_id": 1, "rows_affected": 1}), ("commit", {"error": "database is locked"})):
        writer, reader = begin(other), begin(client, mode="deferred", level="none")
        other.execute("INSERT INTO t VALUES(1)", tx=writer)
        told = []
        waiter = threading.Thread(target=lambda: told.append(client.execute("INSERT INTO t VALUES(2)", tx=reader)))
        waiter.start()
        ends(other, "/db/" + end, writer)
        waiter.join()
        equal(result(told[0]), wanted, f"after {end}")
        ends(client, "/db/rollback", reader)


@test
def writers_take_turns_and_other_databases_are_other_turns():
    node, client, other = Node()
    node.request("POST", "/db?db=two.db")
    other.execute("CREATE TABLE t (x)", db="two.db")
    first, second = begin(client), begin(client, db="two.db")
    equal(answer(client, "/db/begin", timeout="50ms"), (503, "another writer has the database\n"), "its turn is taken")
    begun = []
    for number in range(20):
        client.execute(["INSERT INTO t VALUES(?)", number], tx=first)
        client.execute(["INSERT INTO t VALUES(?)", number], tx=second, db="two.db")
    waiter = threading.Thread(target=lambda: begun.append(begin(other)))
    waiter.start()
    equal(client.values("SELECT count(*) FROM t", tx=second), [[20]], "both go on")
    rows = 20 if answer(client, "/db/commit", tx=first)[0] == 200 else 0  # on a slow machine it may have given way
    waiter.join()
    equal(client.values("SELECT count(*) FROM t", tx=begun[0]), [[rows]], "who waited begins on top of it")
    ends(client, "/db/rollback", second)
    client.execute(["INSERT INTO t VALUES(?)", 20], tx=begun[0])
    ends(client, "/db/commit", begun[0])
    equal((client.values("SELECT count(*) FROM t"), client.values("SELECT count(*) FROM t", db="two.db")), ([[rows + 1]], [[0]]), "in the end")


@test
def who_does_nothing_for_too_long_is_rolled_back():
    node, client, other = Node("-http-tx-idle-timeout", "300ms", "-http-tx-lifetime", "1s")
    begun = client.json("POST", "/db/begin")
    equal((begun["idle_timeout"], begun["lifetime"]), ("300ms", "1s"), "as the flags say")
    tx = begun["tx"]
    client.ask("POST", target("/db/execute", {"tx": tx}), ["INSERT INTO t VALUES(1)"])  # on a slow machine it may come too late
    wait_for(lambda: opened(node) == 0, "it is rolled back")
    is_over(client, tx, "rolled back: no request came within its idle_timeout")
    equal(answer(client, "/db/commit", tx=tx)[0], 404, "commit")
    equal(answer(client, "/db/rollback", tx=tx)[0], 404, "rollback")
    client.execute("INSERT INTO t VALUES(2)")
    equal(client.values("SELECT x FROM t"), [[2]], "nothing of it is there")
    # A statement does not go on for longer than its transaction may.
    tx = begin(client, idle_timeout="1s")
    slow = client.ask("GET", target("/db/query", {"tx": tx, "q": SLOW}))
    check(slow.status == 404 or result(json.loads(slow.text)) == {"error": "query timeout"}, f"a slow statement: {slow.text}")
    is_over(client, tx, "rolled back: it was open for too long")
    tx = begin(client, idle_timeout="1s")
    wait_for(lambda: client.ask("GET", target("/db/query", {"tx": tx, "q": "SELECT 1"})).status == 404, "it is too old")
    is_over(client, tx, "rolled back: it was open for too long")
    equal(counts(node)["expired"], 3, "expired")


@test
def who_is_idle_gives_way_to_others():
    node, client, other = Node()
    tx = begin(client, idle_timeout="1m")
    client.execute("INSERT INTO t VALUES(1)", tx=tx)
    reader = begin(client, idle_timeout="1m", mode="deferred")
    application = connect(node.path("db.sqlite"), busy_ms=20000)
    waiter = threading.Thread(target=lambda: application.execute("INSERT INTO t VALUES(3)"))
    waiter.start()
    other.execute("INSERT INTO t VALUES(2)")
    waiter.join()
    is_over(client, tx, "rolled back: it was idle while another writer waited")
    equal(answer(client, "/db/commit", tx=tx), (404, "this transaction was rolled back: it was idle while another writer waited\n"), "commit")
    equal(client.values("SELECT count(*) FROM t", tx=reader), [[0]], "who only reads is in nobody's way")
    equal(client.values("SELECT sum(x) FROM t"), [[5]], "in the end")


@test
def so_many_may_be_open_and_one_request_uses_one_at_a_time():
    node, client, other = Node("-http-tx-max", "2")
    first, second = begin(client), begin(client, mode="deferred")
    equal(answer(client, "/db/begin", mode="deferred"), (503, "too many transactions are open\n"), "a third one")
    ends(client, "/db/rollback", first)
    first = begin(client)
    seen = threading.Event()

    def use():
        while not seen.is_set():
            client.ask("GET", target("/db/query", {"tx": second, "q": SLOW, "db_timeout": "300ms"}))

    user = threading.Thread(target=use)
    user.start()

    def is_busy():
        got = other.ask("GET", target("/db/query", {"tx": second, "q": "SELECT 1"}))
        return (got.status, got.text) == (409, "another request of this transaction is being answered\n")

    try:
        wait_for(is_busy, "it is in use")
        equal(other.values("SELECT count(*) FROM t", tx=first), [[0]], "another one is not")
    finally:
        seen.set()
        user.join()
    equal(client.values("SELECT 1", tx=second), [[1]], "it goes on")
    equal(node.status()["http"]["transactions"], {"idle_timeout": "10s", "lifetime": "1m0s", "max": 2, "open": 2}, "status")


@test
def a_stop_rolls_back_and_large_ones_are_committed_as_others_are():
    node, client, other = Node()
    tx = begin(client)
    client.execute("INSERT INTO t VALUES(1)", tx=tx)
    node.stop()
    node.start()
    client, other = Client(node), Client(node)
    equal(answer(client, "/db/commit", tx=tx), NO_SUCH, "after a restart")
    equal(client.values("SELECT count(*) FROM t"), [[0]], "nothing of it is there")
    tx = begin(client)
    for number in range(8):
        client.execute(["INSERT INTO t VALUES(randomblob(1000000 + ?))", number], tx=tx)
    ends(client, "/db/commit", tx)
    equal(client.values("SELECT sum(length(x)) FROM t"), [[8000028]], "8 MB")
    tx = begin(client)
    client.execute("DELETE FROM t", tx=tx)
    node.kill()
    node.start()
    equal(Client(node).values("SELECT count(*) FROM t"), [[8]], "a kill rolls back")


@test
def permissions_are_those_of_the_plain_endpoints():
    path = temporary("users.json")
    perms = {"reader": ["query"], "writer": ["execute"], "both": ["execute", "query"], "none": ["status"], "*": ["ready"]}
    path.write_text(json.dumps([{"username": name, "password": "x", "perms": each} for name, each in perms.items()]))
    client = Client(Raftd(None, "-auth", str(path)))
    reader, writer, both = (login(name, "x") for name in ("reader", "writer", "both"))

    def ask(who, path, body=None, **flags):
        return client.ask("POST", target(path, flags), body, who)

    def begun(who, **flags):
        return json.loads(ask(who, "/db/begin", **flags).text)["tx"]

    equal(ask(reader, "/db/begin", mode="deferred").status, 404, "a reader makes no database")
    equal(ask(writer, "/db/execute", ["CREATE TABLE t (x)"]).status, 200, "a table")
    for who, flags, status in ((None, {}, 401), (login("none", "x"), {}, 401), (reader, {}, 401), (reader, {"mode": "deferred"}, 200)):
        equal(ask(who, "/db/begin", **flags).status, status, f"{who} {flags}")
    tx = begun(writer)
    equal(ask(reader, "/db/execute", ["INSERT INTO t VALUES(1)"], tx=tx).status, 401, "execute by a reader")
    equal(ask(writer, "/db/execute", ["INSERT INTO t VALUES(1)"], tx=tx).status, 200, "execute by a writer")
    equal(ask(writer, "/db/query", ["SELECT 1"], tx=tx).status, 401, "query by a writer")
    equal(ask(writer, "/db/request", ["SELECT 1"], tx=tx).status, 401, "request by a writer")
    equal(ask(both, "/db/request", ["SELECT * FROM t"], tx=tx).status, 200, "request by both")
    equal(ask(None, "/db/commit", tx=tx).status, 401, "commit by nobody")
    equal(ask(writer, "/db/commit", tx=tx).status, 200, "commit")


# --- three nodes ----------------------------------------------------------------------------------------------------------


def cluster_with_table():
    cluster = Cluster()
    leader = cluster.leader()
    Client(leader).execute("CREATE TABLE t (x UNIQUE)")
    return cluster, leader


@test
def it_lives_on_the_node_where_it_was_begun():
    cluster, leader = cluster_with_table()
    follower, third = cluster.others(leader)
    client = Client(follower)
    equal(client.ask("POST", "/db/begin?redirect").headers["Location"], f"http://{leader.http}/db/begin?redirect", "to the leader if asked")
    tx = begin(client)
    client.execute("INSERT INTO t VALUES(1)", tx=tx)
    for node in (leader, third):
        elsewhere = (421, f"this transaction is on node {follower.name}: http://{follower.http}\n")
        equal(answer(Client(node), "/db/commit", tx=tx), elsewhere, "commit elsewhere")
        got = Client(node).ask("POST", target("/db/execute", {"tx": tx}), ["INSERT INTO t VALUES(9)"])
        equal((got.status, got.text), elsewhere, "execute elsewhere")
        path = target("/db/execute", {"tx": tx, "redirect": True})
        got = Client(node).ask("POST", path, ["INSERT INTO t VALUES(9)"])
        equal((got.status, got.headers["Location"]), (307, f"http://{follower.http}{path}"), "redirect")
    ends(client, "/db/commit", tx)
    for node in cluster.nodes:
        equal(Client(node).values("SELECT x FROM t", level="linearizable"), [[1]], f"node {node.name}")
    # Readers have what was committed anywhere before they began.
    Client(third).execute("INSERT INTO t VALUES(2)")
    reader = begin(client, mode="deferred")
    Client(third).execute("INSERT INTO t VALUES(3)")
    equal(client.values("SELECT count(*) FROM t", tx=reader), [[2]], "a snapshot")
    tx = begin(client)
    follower.kill()
    gone = f"this transaction is on node {follower.name}, which cannot be reached\n"
    equal(answer(Client(leader), "/db/commit", tx=tx), (421, gone), "while it is down")


@test
def who_is_idle_gives_way_to_other_hosts():
    cluster, leader = cluster_with_table()
    here, there = cluster.others(leader)
    client, other = Client(here), Client(there)
    tx = begin(client, idle_timeout="1m")
    client.execute("INSERT INTO t VALUES(0)", tx=tx)
    equal(result(other.execute("INSERT INTO t VALUES(1)"))["rows_affected"], 1, "a writer on another host")
    status, text = answer(client, "/db/commit", tx=tx)
    check(status in (404, 503), f"commit: {status} {text}")
    equal(other.values("SELECT x FROM t"), [[1]], "nothing of it is there")
    equal(result(client.execute("DELETE FROM t"))["rows_affected"], 1, "and both go on")


@test
def a_leader_dies_between_and_commit_tells_the_truth():
    cluster, leader = cluster_with_table()
    told = {}
    for round in range(3):
        leader = cluster.leader(seconds=40)
        client = Client(cluster.others(leader)[0] if round != 1 else leader)
        survivor = Client(cluster.others(leader)[1])
        begun = wait_for(lambda: begin_or_none(client), "a transaction begins")
        tx = json.loads(begun.text)["tx"]
        for number in range(3):
            client.execute(["INSERT INTO t VALUES(?)", f"{round}.{number}"], tx=tx)
        leader.kill()
        if round != 1:
            told[round] = settle(client, tx)
            check(told[round][0] in (200, 503), f"round {round}: {told[round]}")
        else:
            told[round] = (0, "the node with it is gone")
        cluster.leader(cluster.others(leader))
        there = survivor.values(f"SELECT count(*) FROM t WHERE x LIKE '{round}.%'", level="linearizable")
        equal(there, [[3 if told[round][0] == 200 else 0]], f"round {round}: {told[round]}")
        leader.start()
    wait_for(cluster.all_vote, "all vote")
    cluster.wait_equal("db.sqlite")
    print(f"NOTE {told}")


def begin_or_none(client):
    got = client.ask("POST", target("/db/begin", {"idle_timeout": "1m"}))
    check(got.status in (200, 503), f"begin: {got.status} {got.text}")
    return got if got.status == 200 else None


def settle(client, tx):
    """Commits until it is known."""
    told = []

    def known():
        told[:] = answer(client, "/db/commit", tx=tx, timeout="200ms")
        return told[0] != 504

    wait_for(known, "the outcome is known")
    return told


@test
def an_outcome_that_is_unknown_can_be_asked_for_again():
    cluster, leader = cluster_with_table()
    client = Client(leader)
    tx = begin(client)
    client.execute("INSERT INTO t VALUES(1)", tx=tx)
    followers = cluster.others(leader)
    for node in followers:
        node.kill()
    first = answer(client, "/db/commit", tx=tx, timeout="200ms")
    unknown = "the outcome is unknown: the transaction may or may not be committed; to ask again, commit it again\n"
    check(first[0] == 503 or first == (504, unknown), f"without a majority: {first}")
    if first[0] == 504:
        check(answer(client, "/db/commit", tx=tx, timeout="50ms")[0] in (503, 504), "asked again")
        equal(client.ask("GET", target("/db/query", {"tx": tx, "q": "SELECT 1"})).status, 404, "it is over")
    for node in followers:
        node.start()
    status, text = settle(client, tx) if first[0] == 504 else first
    check(status in (200, 503), f"in the end: {status} {text}")
    cluster.leader(seconds=40)
    there = client.values("SELECT count(*) FROM t", level="linearizable")
    equal(there, [[1 if status == 200 else 0]], f"{first}, then {status} {text}")
    print(f"NOTE {first[0]}, then {status}")


if __name__ == "__main__":
    main()
