"""What rqlite's own end-to-end tests ask of nodes (section 14 of its surface), and sections 5 and 6 as far as no other program asks
it: perms of each endpoint, TLS between nodes, restarts, elections, read replicas, founding and joining."""

import json
import sqlite3

from access import authority, certificate, login
from cluster import STEADY, Cluster, together
from harness import Raftd, check, equal, main, temporary, test, wait_for
from http_client import Client


def members(node):
    return [(n["id"], n["suffrage"]) for n in node.status()["store"]["nodes"]]


def variables(node, section):
    return Client(node).json("GET", f"/debug/vars?key={section}")[section]


def rows(node, **flags):
    answer = Client(node).query("SELECT count(*) FROM t", **flags)["results"][0]
    return answer["values"][0][0] if "values" in answer else None


def users(*entries):
    path = temporary("users.json")
    path.write_text(json.dumps(entries))
    return "-auth", str(path)


# --- 5: who may do what ---------------------------------------------------------------------------------------------------


ENDPOINTS = {
    "execute": [("POST", "/db/execute", '["SELECT 1"]'), ("POST", "/db/execute?queue", '["SELECT 1"]')],
    "query": [("GET", "/db/query?q=SELECT+1", None), ("POST", "/db/query", '["SELECT 1"]'), ("GET", "/db/sql?q=SELECT+1", None)],
    "backup": [("GET", "/db/backup", None)],
    "load": [("POST", "/db/load", "SELECT 1;"), ("POST", "/boot", "no database")],
    "status": [("GET", "/status", None), ("GET", "/nodes", None), ("GET", "/debug/vars", None), ("GET", "/licenses", None)],
    "ready": [("GET", "/readyz", None)],
    "remove": [("DELETE", "/remove", '{"id":"nobody"}')],
    "snapshot": [("POST", "/snapshot", None), ("POST", "/reap", None)],
    "leader-ops": [("GET", "/leader", None), ("POST", "/leader", None)],
    "ui": [("GET", "/console/", None)],
}


@test
def s5_each_perm_opens_its_endpoints_alone():
    node = Raftd(None, *users(*({"username": perm, "password": "p", "perms": [perm]} for perm in ENDPOINTS),
                              {"username": "both", "password": "p", "perms": ["execute", "query"]},
                              {"username": "all", "password": "p", "perms": ["all"]}), start=False).launch()
    client = Client(node)
    wait_for(lambda: up(node) and client.ask("GET", "/readyz", headers=login("ready", "p")).status == 200, "raftd is ready")
    for perm, endpoints in ENDPOINTS.items():
        for method, path, body in endpoints:
            for user in ENDPOINTS:
                answer = client.ask(method, path, body, login(user, "p"))
                equal(answer.status == 401, user != perm, f"{method} {path} by {user}: {answer.status}")
                if answer.status == 401:
                    equal((answer.text, answer.headers["WWW-Authenticate"]), ("", 'Basic realm="rqlite"'), path)
                equal(answer.headers["Access-Control-Allow-Credentials"], "true", path)
            equal(client.ask(method, path, body).status, 401, f"{method} {path} by nobody")
            check(client.ask(method, path, body, login("all", "p")).status != 401, f"{method} {path} by all")
    for user, status in (("execute", 401), ("query", 401), ("both", 200), ("all", 200)):  # each is half of what it wants
        equal(client.ask("POST", "/db/request", ["SELECT 1"], login(user, "p")).status, status, user)


def up(node):
    try:
        node.raw("GET", "/nowhere")
        return True
    except OSError:
        return False


@test
def s5_who_is_who():
    node = Raftd(None, *users({"username": "ann", "password": "first", "perms": ["query"]},
                              {"username": "bob", "password": "p", "perms": ["query"]}, {"username": "heir", "perms": ["query"]},
                              {"username": "ann", "password": "last", "perms": ["status"]},
                              {"username": "*", "perms": ["ready", "backup"]}))
    client = Client(node)
    for name, password, path, status in (
        ("ann", "last", "/status", 200), ("ann", "first", "/status", 401),  # of two entries the last one counts
        ("ann", "last", "/db/query", 401), ("bob", "P", "/db/query", 401), ("bob", "", "/db/query", 401), ("bob", "p", "/db/query", 200),
        ("heir", "p", "/db/query", 401), ("nobody", "p", "/db/query", 401), ("*", "", "/db/query", 401),
        ("bob", "wrong", "/readyz", 200), ("nobody", "", "/readyz", 200),  # what everybody may nobody is asked for
    ):
        equal(client.ask("GET", path, headers=login(name, password)).status, status, f"{name}:{password} {path}")
    for header in ("Basic", "Basic !", "Bearer cDpw", "Basic Ym9i"):
        equal(client.ask("GET", "/db/query", headers={"Authorization": header}).status, 401, header)


@test
def s5_s4_credentials_count_on_each_of_three_nodes():
    flags = users({"username": "bob", "password": "p", "perms": ["execute", "query"]}, {"username": "node", "password": "n", "perms": ["join"]},
                  {"username": "*", "perms": ["status", "ready"]})
    cluster = Cluster(3, *flags, "-join-as", "node")
    bob = login("bob", "p")
    first = Client(cluster.nodes[0])
    equal(first.ask("POST", "/db/execute", ["CREATE TABLE t (x)"], bob).status, 200, "CREATE")
    for number, node in enumerate(cluster.nodes, 1):
        client = Client(node)
        equal(client.ask("POST", "/db/execute", ["INSERT INTO t VALUES(1)"]).status, 401, "nobody")
        for path in ("/db/execute", "/db/request", "/db/execute?queue&wait"):  # a follower's queue asks nobody for leave
            equal(client.ask("POST", path, ["INSERT INTO t VALUES(1)"], bob).status, 200, path)
        for level in ("weak", "strong", "linearizable"):
            equal(client.ask("GET", f"/db/query?level={level}&q=SELECT+1", headers=bob).status, 200, level)
        answer = client.ask("GET", "/db/query?level=linearizable&q=SELECT+count(*)+FROM+t", headers=bob)
        equal(json.loads(answer.text)["results"][0]["values"], [[3 * number]], "rows")
        equal(client.ask("DELETE", "/remove", '{"id":"9"}', bob).status, 401, "without the perm")


@test
def s5_s6_s14_3_nodes_speak_tls():
    cluster, ca = Cluster(0), authority()

    def flags(issuer, name, number):
        key, cert = certificate(issuer, name, "serverAuth,clientAuth", [cluster.host(number)])
        return "-node-cert", str(cert), "-node-key", str(key), "-node-ca-cert", str(ca[1])

    strict = "-node-verify-client", "-node-verify-common-name", "node"
    first = cluster.add(1, *flags(ca, "node", 1), *strict).start()
    once = "-join", first.raft, "-join-attempts", "1", "-join-interval", "100ms"
    cluster.add(2, *flags(ca, "node", 2), *strict, *once).start()
    cluster.add(3, *flags(ca, "node", 3), *once, "-node-verify-server-name", "node").start()
    wait_for(lambda: members(first) == [("1", "voter"), ("2", "voter"), ("3", "voter")], "all are members")
    Client(cluster.nodes[2]).execute("CREATE TABLE t (x)", "INSERT INTO t VALUES(1)")
    for node in cluster.nodes:
        equal(rows(node, level="linearizable"), 1, f"rows on node {node.name}")
    other = authority("other")
    for number, more in ((4, ()), (5, flags(other, "node", 5)), (6, flags(ca, "stranger", 6)),
                         (7, (*flags(ca, "node", 7), "-node-verify-server-name", "elsewhere"))):
        node = cluster.add(number, *more, *once)
        cluster.nodes.remove(node)
        node.move(cluster.host(number))
        node.refused("failed to join")
    equal(len(members(first)), 3, "members")
    trusting = cluster.add(8, *flags(ca, "node", 4), *once, "-node-no-verify").start()
    wait_for(lambda: members(first)[-1] == ("8", "voter"), "it is a member")
    equal(rows(trusting, level="linearizable"), 1, "rows of one that verifies nobody")


# --- 14.2: one node ---------------------------------------------------------------------------------------------------------


def database(count):
    path = temporary("made.db")
    made = sqlite3.connect(path, isolation_level=None)
    made.execute("CREATE TABLE t (x)")
    made.executemany("INSERT INTO t VALUES(?)", [(n,) for n in range(count)])
    made.close()
    return path.read_bytes()


@test
def s14_2_what_was_loaded_written_or_booted_outlives_a_kill():
    node = Raftd(None, "-node-id", "1", "-raft-snap", "100", "-raft-snap-int", "100ms")
    octets = {"Content-Type": "application/octet-stream"}

    def again():
        node.kill()
        node.start()
        return Client(node)

    client = Client(node)
    for count in (10, 20):
        equal(client.ask("POST", "/db/load", database(count), octets).text, '{"results":[]}', "/db/load")
        client = again()
        equal(rows(node), count, "rows after a load and a kill")
    for number in range(200):
        client.execute(["INSERT INTO t VALUES(?)", number])
    raft = wait_for(lambda: (r := node.status()["store"]["raft"])["last_snapshot_index"] > 100 and r, "a snapshot was made")
    check(raft["last_snapshot_index"] <= raft["applied_index"], raft)
    client = again()
    equal([variables(node, "store")[key] for key in ("num_restores_start_skipped", "num_restores_start")], [1, 0], "restores")
    check(node.status()["store"]["snapshot_store"]["snapshots"], "it is listed")
    equal(rows(node), 220, "rows after a kill")
    equal(client.ask("POST", "/boot", database(30), octets).status, 200, "/boot")
    equal(rows(node), 30, "rows after a boot")
    again()
    equal(rows(node), 30, "rows after a boot and a kill")


# --- 14.3: several nodes ------------------------------------------------------------------------------------------------------


@test
def s14_3_elections_restarts_and_a_replica_that_follows():
    cluster = Cluster()
    replica = cluster.add(4, "-raft-non-voter", "-join", cluster.nodes[0].raft).start()
    leader = cluster.leader()
    Client(leader).execute("CREATE TABLE t (x)", "INSERT INTO t VALUES(1)")

    def redirected(to):
        """Of everybody else, the replica included."""
        for node in cluster.others(to):
            if not node.alive():
                continue
            answer = Client(node).ask("POST", "/db/execute?redirect", ["nonsense"])
            if (answer.status, answer.headers["Location"]) != (301, f"http://{to.http}/db/execute?redirect"):
                return False
        return True

    wait_for(lambda: redirected(leader), "all lead to the leader")
    leader.kill()
    successor = cluster.leader(cluster.others(leader))
    wait_for(lambda: redirected(successor), "all lead to the next one")
    replica.kill()
    Client(successor).execute("INSERT INTO t VALUES(2)")
    for node in (leader, replica):
        node.start()
        wait_for(lambda: rows(node, level="none") == 2, "it has what was written without it")
        wait_for(lambda: node.status()["store"]["fsm_index"] >= successor.status()["store"]["fsm_index"], "and says so")
    equal([node.status()["store"]["raft"]["voter"] for node in (leader, replica)], [True, False], "voters")
    # A connection between nodes is kept, and made once more for a node that was away.
    wait_for(lambda: variables(cluster.others(leader, replica)[0], "cluster")["num_client_force_new_conn"] >= 1, "dialled again")
    for node in cluster.nodes:
        node.kill()
    for node in cluster.nodes:
        if "-join" in node.flags:
            del node.flags[node.flags.index("-join"):][:2]
    together(cluster.nodes)
    Client(replica).execute("INSERT INTO t VALUES(3)")
    equal([rows(node, level="linearizable") for node in cluster.nodes], [3] * 4, "rows")


@test
def s14_3_thousands_of_queued_writes_of_a_follower_are_there_when_one_has_waited():
    cluster = Cluster(3, *STEADY)
    follower = Client(cluster.nodes[1])
    follower.execute("CREATE TABLE t (x)")
    for number in range(2000):
        follower.execute(["INSERT INTO t VALUES(?)", number], queue=True)
    follower.execute(["INSERT INTO t VALUES(?)", 2000], queue=True, wait=True)
    equal(rows(cluster.nodes[0], level="weak"), 2001, "rows at the leader, at once")


# --- 14.4, 14.5, 6: founding and joining -------------------------------------------------------------------------------------------


@test
def s14_5_s6_the_same_flags_found_join_restart_and_return():
    cluster = Cluster(0)
    list = ",".join(f"{cluster.host(number)}:4002" for number in (1, 2, 3))
    flags = "-bootstrap-expect", "3", "-join", list, "-raft-cluster-remove-shutdown"
    nodes = [cluster.add(number, *flags) for number in (1, 2, 3)]
    together(nodes)
    fourth = cluster.add(4, *flags).start()  # there is a cluster: it joins
    wait_for(lambda: members(fourth) == [(name, "voter") for name in "1234"], "four are members")
    Client(fourth).execute("CREATE TABLE t (x)")
    for node in nodes[:2]:  # it leaves, and returns
        node.stop()
        left = [n.name for n in cluster.others(node)]
        wait_for(lambda: [name for name, _ in members(fourth)] == left, "it is no member")
        Client(fourth).execute("INSERT INTO t VALUES(1)")
        node.start()
        wait_for(lambda: sorted(members(fourth)) == [(name, "voter") for name in "1234"], "it is one again")
    cluster.kill_all()
    equal([rows(node, level="linearizable") for node in cluster.nodes], [2] * 4, "rows")


@test
def s6_what_is_no_node_to_join_or_go_on_with_is_refused():
    cluster = Cluster(1)
    node = cluster.nodes[0]
    lost = cluster.add(2, "-join", node.http, "-join-attempts", "1", "-join-interval", "100ms")
    lost.refused("failed to join")  # HTTP is served there
    itself = cluster.add(3)
    itself.flags += ["-join", itself.raft]
    itself.refused("node cannot join with itself unless bootstrapping")
    node.stop()
    address = node.raft
    for peers, words in (
        ('[{"id": "", "address": "%s"}]', "empty ID"), ('[{"id": "1", "address": ""}]', "empty address"),
        ('[{"id": "1", "address": "http://%s"}]', "protocol specified in address"), ('[{"id": "1", "address": "nowhere"}]', "invalid"),
        ('[{"id": "1", "address": "%s"}, {"id": "1", "address": "b:1"}]', "duplicate ID"),
        ('[{"id": "1", "address": "b:1"}, {"id": "2", "address": "b:1"}]', "duplicate address"),
        ('[{"id": "1", "address": "%s", "non_voter": true}]', "no voter"), ("[", "peers.json"),
    ):
        (node.directory / "raft" / "peers.json").write_text(peers.replace("%s", address))
        node.refused(words)


if __name__ == "__main__":
    main()
