"""Joining by an HTTP address, and with a credentials file: who may."""

import json
import sys

from access import authority, certificate, login
from cluster import Cluster, together
from harness import check, connect, equal, main, temporary, test, wait_for

USERS = [
    {"username": "voter", "password": "pv", "perms": ["join"]},
    {"username": "reader", "password": "pr", "perms": ["join-read-only"]},
    {"username": "*", "perms": ["status", "ready", "remove"]},
]


def members(node):
    return [(n["id"], n["suffrage"]) for n in node.status()["store"]["nodes"]]


def join_flags(url):
    return "-join", url, "-join-attempts", "3", "-join-interval", "100ms"


@test
def s6_nodes_join_through_an_http_address():
    cluster = Cluster(1)
    first = cluster.nodes[0]
    second = cluster.add(2, *join_flags(f"http://{first.http}")).start()
    # Through one that does not lead, with a slash behind, and one that nobody is at before it.
    third = cluster.add(3, *join_flags(f"http://127.0.0.1:1,HTTP://{second.http}/")).start()
    wait_for(lambda: [len(members(node)) for node in cluster.nodes] == [3, 3, 3], "all are members")
    connect(third.path(), busy_ms=20000).execute("CREATE TABLE t(x)")
    equal(first.raw("POST", "/join").text, json.dumps({"addr": first.raft}, separators=(",", ":")).encode())
    third.stop()
    third.start()  # the flag may stay


@test
def s6_nodes_found_a_cluster_through_http_addresses():
    cluster = Cluster(0)
    nodes = [cluster.add(n) for n in (1, 2, 3)]
    urls = ",".join(f"http://{node.http}" for node in nodes)
    for node in nodes:
        node.flags += ["-bootstrap-expect", "3", "-join", urls]
    together(nodes)
    wait_for(lambda: [len(members(node)) for node in nodes] == [3, 3, 3], "all are members")


@test
def s6_s14_2_an_address_where_nobody_is_is_tried_again():
    cluster = Cluster(0)
    node = cluster.add(1, "-join", "http://nonsense.invalid", "-join-attempts", "2", "-join-interval", "2s")
    node.launch()
    wait_for(lambda: reachable(node), "HTTP answers while the node tries")
    equal(node.get("/readyz")[0], 503)
    equal(node.get("/readyz?noleader"), (200, "[+]node ok"))
    equal(node.status()["store"], {"open": False})
    equal(node.exit_code(), 1)
    check("failed to join cluster: http://nonsense.invalid: " in node.log(), node.log())


def reachable(node):
    try:
        return node.get("/readyz?noleader")[0] == 200
    except OSError:
        return False


@test
def s5_s14_4_with_credentials_only_who_may_joins():
    path = temporary("users.json")
    path.write_text(json.dumps(USERS))
    cluster = Cluster(1, "-auth", str(path))
    first = cluster.nodes[0]

    def refused(name, *flags):
        node = cluster.add(name, *flags)
        cluster.nodes.remove(node)
        node.launch()
        equal(node.exit_code(), 1)
        check("unauthorized" in node.log(), node.log())
        check("attempt=3" in node.log(), "it did not try again: credentials may be read again meanwhile")

    for number, address in enumerate((first.raft, f"http://{first.http}")):
        refused(f"a{number}", *join_flags(address))
        refused(f"b{number}", *join_flags(address), "-join-as", "nobody")
        refused(f"c{number}", *join_flags(address), "-join-as", "reader")
        refused(f"d{number}", *join_flags(address), "-join-as", "voter", "-raft-non-voter")
    equal(members(first), [("1", "voter")])
    cluster.add(2, *join_flags(first.raft), "-join-as", "voter").start()
    cluster.add(3, *join_flags(f"http://{first.http}"), "-join-as", "reader", "-raft-non-voter").start()
    wait_for(lambda: members(first) == [("1", "voter"), ("2", "voter"), ("3", "nonvoter")], "both are members")
    equal(first.raw("POST", "/join").status, 401)
    equal(first.raw("POST", "/join", headers=login("reader", "pr")).status, 200)


@test
def s6_nodes_join_through_https():
    ca = authority()
    cluster = Cluster(0)
    key, cert = certificate(ca, "node", "serverAuth,clientAuth", [cluster.host(1)])
    flags = ["-http-cert", str(cert), "-http-key", str(key), "-http-ca-cert", str(ca[1]), "-http-verify-client"]
    first = cluster.add(1, *flags)
    first.launch()
    wait_for(lambda: 'msg="ready"' in first.log(), "the first is ready")
    stranger = cluster.add(2, *join_flags(f"https://{first.http}"))
    stranger.launch()
    equal(stranger.exit_code(), 1, "one that does not know the authority")
    check("ertificate" in stranger.log(), stranger.log())
    third = cluster.add(3, *join_flags(f"https://{first.http}"), *flags)
    third.launch()
    wait_for(lambda: 'msg="ready"' in third.log(), "the other one is ready")


if __name__ == "__main__":
    sys.exit(main())
