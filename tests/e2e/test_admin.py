"""The HTTP endpoints about a cluster of three: who is in it, who leads, who leaves."""

import concurrent.futures
import json
import sys

from cluster import STEADY, Cluster
from harness import Raftd, check, connect, equal, main, test, value, wait_for

VERSION = "0.1.0"
ITSELF = "cannot step down to the current Leader"


def cluster(*flags):
    """Three voters: the first leads."""
    nodes = Cluster(3, *flags).nodes
    wait_for(lambda: all(len(voters(node)) == 3 for node in nodes), "all three are voters")
    return nodes


def voters(node):
    return [n["id"] for n in node.status()["store"]["nodes"] if n["suffrage"] == "voter"]


def leader_of(node):
    return node.status()["store"]["leader"]["node_id"]


def named(nodes, name):
    return nodes[int(name) - 1]


def listed(node, query=""):
    code, body = node.get("/nodes" + query)
    equal(code, 200, "/nodes")
    return json.loads(body)


def send(node, method, path, body, kind="application/json"):
    return node.request(method, path, body=body.encode(), headers={"Content-Type": kind})


@test
def s2_6_status_names_leader_and_members():
    nodes = cluster(*STEADY)
    leaders = [node.status()["store"]["leader"] for node in nodes]
    equal(leaders, [{"addr": nodes[0].raft, "node_id": "1"}] * 3, "store.leader")
    states = [node.status()["store"]["raft"] for node in nodes]
    equal([s["state"] for s in states], ["Leader", "Follower", "Follower"])
    equal([s["voter"] for s in states], [True] * 3)
    equal([s["num_peers"] for s in states], [2] * 3)
    equal(len({s["term"] for s in states}), 1, "terms")
    equal(states[0]["last_contact"], 0)
    check(all(s["last_contact"].endswith("s") for s in states[1:]), states)
    equal([node.get("/status?key=store.raft.state")[1] for node in nodes], ['"Leader"', '"Follower"', '"Follower"'])
    for node in nodes:
        equal([(n["id"], n["addr"]) for n in node.status()["store"]["nodes"]],
              [(str(i + 1), n.raft) for i, n in enumerate(nodes)])


@test
def s2_6_s14_3_nodes_says_who_answers():
    nodes = cluster(*STEADY)
    for node in nodes:
        found = listed(node)
        equal(list(found), ["1", "2", "3"])
        for name, n in found.items():
            equal(list(n), ["id", "api_addr", "addr", "version", "voter", "reachable", "leader", "time", "time_s"])
            equal((n["id"], n["api_addr"], n["addr"]), (name, f"http://{named(nodes, name).http}", named(nodes, name).raft))
            equal((n["version"], n["voter"], n["reachable"], n["leader"]), (VERSION, True, True, name == "1"))
            check(0 <= n["time"] < 5 and n["time_s"].endswith("s"), n)
    equal([n["id"] for n in listed(nodes[1], "?ver=2")["nodes"]], ["1", "2", "3"])
    check("\n    " in nodes[1].get("/nodes?pretty")[1], "pretty")
    nodes[2].kill()
    wait_for(lambda: not listed(nodes[0])["3"]["reachable"], "the dead one is told to be so")
    dead = listed(nodes[0])["3"]
    equal((dead["reachable"], dead["leader"], dead["version"], "api_addr" in dead), (False, False, "", False))
    check(dead["error"], "no reason")
    nodes[2].start()
    wait_for(lambda: listed(nodes[0])["3"]["reachable"], "it is back")


@test
def s2_6_nonvoters_are_listed_when_asked_for():
    both = Cluster(1)
    first = both.nodes[0]
    both.add(2, "-join", first.raft, "-raft-non-voter").start()
    wait_for(lambda: "2" in listed(first, "?nonvoters"), "the read replica is a member")
    equal(list(listed(first)), ["1"])
    equal([n["voter"] for n in listed(first, "?nonvoters").values()], [True, False])
    equal([n["suffrage"] for n in first.status()["store"]["nodes"]], ["voter", "nonvoter"])


@test
def s2_6_s6_leadership_goes_where_it_is_sent():
    nodes = cluster(*STEADY)
    for node in nodes:
        code, body = node.get("/leader")
        equal((code, json.loads(body)["id"]), (200, "1"))
    # Asked of one that does not lead: it passes it on.
    equal(send(nodes[1], "POST", "/leader?wait", '{"id": "3"}'), (200, ""))
    wait_for(lambda: {leader_of(node) for node in nodes} == {"3"}, "3 leads")
    equal(json.loads(nodes[0].get("/leader")[1])["id"], "3")
    equal(send(nodes[0], "POST", "/leader", '{"id": null}'), (200, ""))
    wait_for(lambda: leader_of(nodes[0]) in ("1", "2"), "another leads")
    now = leader_of(nodes[0])
    equal(send(nodes[0], "POST", "/leader?wait", json.dumps({"id": now})), (500, f"stepdown: {ITSELF}\n"))
    equal(send(nodes[0], "POST", "/leader?wait", '{"id": "nobody"}'), (500, "stepdown: node not found in cluster\n"))
    code, body = send(nodes[0], "POST", "/leader?wait", "{")
    check(code == 400 and body.startswith("invalid JSON: "), body)


def sent_to(name, through):
    """The answer of a node that knows a leader, as it does but for moments."""

    def answer():
        got = send(through, "POST", "/leader", json.dumps({"id": name}))
        return None if got == (503, "leader not found\n") else got

    return wait_for(answer, "a leader is known")


@test
def s6_leadership_arrives_whatever_is_in_the_way():
    """Nobody knows yet that the leader is dead; several ask at once."""
    nodes = cluster()
    nodes[0].kill()
    equal(sent_to("3", through=nodes[1]), (200, ""))
    wait_for(lambda: leader_of(nodes[1]) == "3", "3 leads")
    nodes[0].start()
    wait_for(lambda: all(leader_of(node) == "3" for node in nodes), "everybody knows it")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda node: sent_to("2", through=node), nodes[:1] * 4 + nodes[2:] * 4))
    late = (500, f"stepdown: {ITSELF}\n")
    equal([answer for answer in answers if answer not in ((200, ""), late)], [], "answers")
    check((200, "") in answers, "nobody did it")
    wait_for(lambda: all(leader_of(node) == "2" for node in nodes), "2 leads")


@test
def s2_6_s14_3_nodes_are_removed_through_any_of_them():
    nodes = cluster(*STEADY)
    equal(send(nodes[1], "DELETE", "/remove", '{"id": "3"}'), (200, ""))
    wait_for(lambda: list(listed(nodes[0])) == ["1", "2"], "3 is no member")
    equal(send(nodes[0], "DELETE", "/remove", '{"id": "3"}')[0], 200, "one that is no member")
    for body in ("", "{}", "3", '{"id": 3}', '{"id": "2", "more": 1}', '["2"]'):
        equal(send(nodes[0], "DELETE", "/remove", body), (400, ""), body)
    connection = connect(nodes[1].path())
    connection.execute("CREATE TABLE t(x)")
    # The one that leads.
    equal(send(nodes[0], "DELETE", "/remove", '{"id": "1"}')[0], 200)
    wait_for(lambda: list(listed(nodes[1])) == ["2"], "1 is no member")
    wait_for(lambda: leader_of(nodes[1]) == "2", "2 leads alone")
    connection.execute("INSERT INTO t VALUES(1)")
    equal(value(connection, "SELECT count(*) FROM t"), 1)
    code, body = send(nodes[1], "DELETE", "/remove?timeout=1s", '{"id": "2"}')
    check(code == 500 and "only voter" in body, body)


@test
def s2_6_ready_is_who_has_a_leader():
    nodes = cluster()
    connect(nodes[1].path()).execute("CREATE TABLE t(x)")
    for node in nodes:
        equal(node.get("/readyz"), (200, "[+]node ok\n[+]leader ok\n[+]store ok\n[+]db ok"))
        equal(node.get("/readyz?sync&timeout=5s"), (200, "[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync ok\n[+]db ok"))
        equal(node.get("/status?key=store.databases.app%2edb.version")[0], 200)
    nodes[0].kill()
    nodes[1].kill()
    wait_for(lambda: nodes[2].get("/readyz?timeout=1s") == (503, "[+]node ok\n[+]leader does not exist"), "no leader")
    equal(nodes[2].get("/readyz?noleader"), (200, "[+]node ok"))
    equal(nodes[2].status()["store"]["leader"], {"addr": "", "node_id": ""})
    equal(nodes[2].get("/leader"), (503, "leader not found\n"))
    equal(send(nodes[2], "DELETE", "/remove", '{"id": "1"}'), (503, "leader not found\n"))
    equal(send(nodes[2], "POST", "/leader", '{"id": "3"}'), (503, "leader not found\n"))
    nodes[1].start()
    wait_for(lambda: nodes[2].get("/readyz")[0] == 200, "two of three are ready")


@test
def s2_6_redirects_lead_to_the_leader():
    nodes = cluster(*STEADY)
    request = nodes[1].raw("DELETE", "/remove?redirect&x=%20y", b'{"id": "3"}')
    equal((request.status, request.headers["Location"]), (301, f"http://{nodes[0].http}/remove?redirect&x=%20y"))
    equal(nodes[1].raw("POST", "/leader?redirect", b"").status, 301)
    equal(list(listed(nodes[0])), ["1", "2", "3"])
    equal(nodes[0].raw("POST", "/leader?redirect", b"").headers["X-Rqlite-Served-By"], nodes[0].http)


@test
def s2_1_queries_are_judged_as_rqlite_does():
    node = Raftd(None, "-node-id", "1")
    for query, text in (("timeout=soon", "timeout is not a valid duration"), ("retries=x", "retries is not a valid integer"),
                        ("freshness_strict", "freshness_strict requires freshness"), ("q=", "query parameter not set")):
        equal(node.get("/status?" + query), (400, text + "\n"))
    equal(node.get("/status?a;b")[0], 400)
    equal(node.raw("OPTIONS", "/leader?timeout=soon", b"").status, 200)
    equal(node.raw("PUT", "/leader", b"").headers["Allow"], "GET, POST")


if __name__ == "__main__":
    sys.exit(main())
