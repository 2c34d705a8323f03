"""Three nodes on this machine, applications on each of them: what one was told is true on all, whatever dies."""

import random
import sqlite3
import threading
import time

from cluster import STEADY, Cluster, Ledger, Node, together, wait_reads
from harness import Raftd, check, connect, equal, main, temporary, test, wait_for


def writes_everywhere(cluster):
    """One row from each host, read on every host."""
    first = connect(cluster.nodes[0].path(), busy_ms=20000)
    first.execute("CREATE TABLE IF NOT EXISTS hello(host)")
    before = first.execute("SELECT count(*) FROM hello").fetchone()[0]
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM hello", before)
        connection = connect(node.path(), busy_ms=20000)
        connection.execute("INSERT INTO hello VALUES(?)", (node.name,))
        before += 1
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM hello", before)
    cluster.wait_equal()


# --- starting -------------------------------------------------------------------------------------------------------------


@test
def s6_found_and_join():
    cluster = Cluster(3, *STEADY)
    writes_everywhere(cluster)
    equal(cluster.leader().name, "1", "the node that leads")


@test
def s14_5_five_nodes():
    cluster = Cluster(5)
    writes_everywhere(cluster)


@test
def s6_s14_4_join_through_a_follower():
    cluster = Cluster()
    cluster.add(4, "-join", cluster.nodes[2].raft).start()
    writes_everywhere(cluster)


@test
def s6_s14_5_bootstrap_of_three_started_at_once():
    cluster = Cluster(start=False)
    for node in cluster.nodes:
        node.flags = ["-node-id", node.name, "-bootstrap-expect", "3", "-join", ",".join(n.raft for n in cluster.nodes)]
    together(cluster.nodes)
    writes_everywhere(cluster)


@test
def s6_bootstrap_goes_on_when_the_last_one_comes():
    cluster = Cluster(start=False)
    for node in cluster.nodes:
        node.flags = ["-node-id", node.name, "-bootstrap-expect", "3", "-join", ",".join(n.raft for n in cluster.nodes)]
    for node in cluster.nodes[:2]:
        node.launch()
    for node in cluster.nodes[:2]:
        wait_for(lambda node=node: node.get("/readyz?noleader")[0] == 200 if answers(node) else False, "it answers")
        check(node.get("/readyz")[0] == 503, "two of three are ready")
    cluster.nodes[2].start()
    for node in cluster.nodes:
        node.wait_ready()
    writes_everywhere(cluster)


def answers(node):
    try:
        node.get("/readyz")
        return True
    except OSError:
        return False


@test
def s6_bootstrap_that_is_not_complete_ends_in_time():
    cluster = Cluster(2, start=False)
    for node in cluster.nodes:
        node.flags = ["-node-id", node.name, "-bootstrap-expect", "3", "-bootstrap-expect-timeout", "2s", "-join",
                      ",".join(n.raft for n in cluster.nodes)]
        node.launch()
    for node in cluster.nodes:
        equal(node.exit_code(), 1, "exit code")
        check("2 of 3 nodes" in node.log(), node.log())


@test
def s6_a_join_without_anybody_there_ends():
    cluster = Cluster(2, "-join-attempts", "2", "-join-interval", "100ms", start=False)
    cluster.nodes[1].refused("failed to join", cluster.nodes[0].raft)
    cluster.nodes[0].start()
    cluster.nodes[1].start()
    writes_everywhere(cluster)


# --- who may join ---------------------------------------------------------------------------------------------------------


@test
def s6_a_taken_node_id_is_refused():
    cluster = Cluster()
    twin = Node(2, f"{cluster.subnet}.9", "-join", cluster.nodes[0].raft, "-join-attempts", "1")
    twin.refused("-node-id")
    writes_everywhere(cluster)


@test
def a_taken_address_is_refused():
    cluster = Cluster()
    twin = Node(4, f"{cluster.subnet}.9", "-join", cluster.nodes[0].raft, "-join-attempts", "1", "-raft-adv-addr",
                cluster.nodes[1].raft)
    twin.refused("address")
    writes_everywhere(cluster)


@test
def databases_are_not_overwritten_by_a_join():
    cluster = Cluster()
    new = cluster.add(4, "-join", cluster.nodes[0].raft)
    new.path().write_bytes(b"")  # is no database yet
    alone = Raftd()
    connect(alone.path("old.db")).execute("CREATE TABLE t(x)")
    alone.stop()
    new.path("old.db").write_bytes(alone.path("old.db").read_bytes())
    before = new.path("old.db").read_bytes()
    new.refused("holds databases", "without -join")
    equal(new.path("old.db").read_bytes(), before, "the database that was there")
    check(not (new.directory / "raft").exists(), "a refused start left a raft/")


@test
def s6_s14_4_a_join_again_changes_nothing():
    cluster = Cluster(3, *STEADY)
    for _ in range(2):
        cluster.nodes[2].stop()
        cluster.nodes[2].start()
    writes_everywhere(cluster)
    equal(cluster.nodes[0].log().count("node joined"), 2, "joins that the leader has counted")


@test
def s6_s14_5_who_was_removed_joins_again_with_what_it_has():
    cluster = Cluster(3, "-raft-cluster-remove-shutdown")
    writes_everywhere(cluster)
    left = cluster.nodes[2]
    left.stop()
    connect(cluster.nodes[0].path()).execute("INSERT INTO hello VALUES('meanwhile')")
    left.start()
    check("has joined again" in left.log(), "it did not have to join")
    connect(left.path()).execute("INSERT INTO hello VALUES('again')")
    cluster.wait_equal()


@test
def s6_a_read_replica_has_no_vote_until_it_asks_for_one():
    cluster = Cluster(1)
    founder = cluster.nodes[0]
    replica = cluster.add(2, "-join", founder.raft, "-raft-non-voter").start()
    writes_everywhere(cluster)
    replica.kill()
    connect(founder.path()).execute("INSERT INTO hello VALUES('alone')")
    replica.start()
    wait_reads(replica, "SELECT count(*) FROM hello", 3)
    replica.stop()
    replica.flags.remove("-raft-non-voter")
    replica.start()
    writes_everywhere(cluster)

    def needs_both():
        replica.kill()
        try:
            connect(founder.path()).execute("INSERT INTO hello VALUES('?')")
            return False
        except sqlite3.OperationalError:
            return True
        finally:
            replica.start()

    wait_for(needs_both, "the replica has become a voter")


@test
def s6_s14_4_a_node_at_another_address():
    cluster = Cluster()
    leader = cluster.leader()
    moved = cluster.others(leader)[0]
    moved.stop()
    connection = connect(leader.path(), busy_ms=20000)
    connection.execute("CREATE TABLE hello(host)")
    moved.move(f"{cluster.subnet}.77")
    moved.start()
    writes_everywhere(cluster)
    for node in cluster.others(moved):
        wait_for(lambda node=node: f"address={moved.raft}" in node.log(), f"node {node.name} knows the new address")


@test
def a_wiped_node_comes_back():
    """Under its name, at its address, with nothing: it gets everything again."""
    cluster = Cluster()
    writes_everywhere(cluster)
    wiped = cluster.nodes[2]
    wiped.kill()
    wiped.directory.rename(temporary("lost"))
    wiped.start()
    writes_everywhere(cluster)


@test
def a_node_of_another_cluster_at_a_members_address():
    cluster = Cluster()
    gone = cluster.nodes[2]
    gone.stop()
    foreign = Node(3, gone.host)
    foreign.start()
    connection = connect(foreign.path(), busy_ms=20000)
    connection.execute("CREATE TABLE own(x)")
    for node in (cluster.nodes[0], foreign):
        wait_for(lambda node=node: "belongs to cluster" in node.log(), f"node {node.name} says whose it is")
    connect(cluster.nodes[0].path(), busy_ms=20000).execute("CREATE TABLE ours(x)")
    equal(connection.execute("SELECT name FROM sqlite_schema").fetchall(), [("own",)], "what the foreign node has")
    foreign.stop()
    gone.start()
    writes_everywhere(cluster)


@test
def a_node_of_another_cluster_does_not_join_by_a_flag():
    cluster = Cluster()
    foreign = Node(9, f"{cluster.subnet}.9")
    foreign.start()
    connect(foreign.path(), busy_ms=20000).execute("CREATE TABLE own(x)")
    foreign.stop()
    foreign.flags += ["-join", cluster.nodes[0].raft]
    foreign.refused("single-node cluster")
    equal(cluster.nodes[0].log().count("node joined"), 2, "nodes that have joined")
    foreign.flags = ["-node-id", "9"]
    foreign.start()
    wait_reads(foreign, "SELECT count(*) FROM own", 0)


# --- restarts ------------------------------------------------------------------------------------------------------------


@test
def s14_3_restart_of_one_and_of_all():
    cluster = Cluster()
    writes_everywhere(cluster)
    for node in cluster.nodes:
        node.stop()
        node.start()
        writes_everywhere(cluster)
    for end in (Raftd.kill, Raftd.stop):
        for node in cluster.nodes:
            end(node)
        together(cluster.nodes)
        writes_everywhere(cluster)


@test
def s14_3_a_node_that_was_away_catches_up():
    cluster = Cluster()
    writes_everywhere(cluster)
    away = cluster.nodes[1]
    away.kill()
    connection = connect(cluster.nodes[0].path(), busy_ms=20000)
    connection.execute("CREATE TABLE more(x)")
    for number in range(500):
        connection.execute("INSERT INTO more VALUES(?)", (number,))
    away.start()
    wait_reads(away, "SELECT count(*) FROM more", 500)
    cluster.wait_equal()


@test
def without_a_majority_reads_go_on_and_writes_wait():
    cluster = Cluster()
    writes_everywhere(cluster)
    left = cluster.nodes[2]
    for node in cluster.others(left):
        node.kill()
    wait_reads(left, "SELECT count(*) FROM hello", 3)
    connection = connect(left.path(), busy_ms=30000, timeout=30000)
    back = threading.Timer(1.0, lambda: together(cluster.others(left)))
    back.start()
    connection.execute("INSERT INTO hello VALUES('late')")
    back.join()
    wait_reads(cluster.nodes[0], "SELECT count(*) FROM hello", 4)
    cluster.wait_equal()


@test
def s6_s14_3_one_that_is_left_goes_on_by_peers_json():
    """Two of three are lost for good; the one that is left is told so, and the others come back empty."""
    cluster = Cluster()
    writes_everywhere(cluster)
    left, other, late = cluster.nodes[1], cluster.nodes[0], cluster.nodes[2]
    wait_reads(left, "SELECT count(*) FROM hello", 3)
    for node in cluster.nodes:
        node.kill()
    peers = f'[{{"id": "{left.name}", "address": "{left.raft}", "non_voter": false}}]'
    for node in (left, other):
        (node.directory / "raft" / "peers.json").write_text(peers)
    other.refused(f"node {left.name} go on", f"-join {left.raft}")
    fetching = left.directory / "raft" / "fetching"
    fetching.write_bytes(b"")
    left.refused("brought up to date", "raftd -refound")
    fetching.unlink()
    left.start()
    check(not (left.directory / "raft" / "peers.json").exists(), "the recovery is done once")
    check((left.directory / "raft" / "peers.info").exists(), "and what was asked for can be read")
    equal(connect(left.path()).execute("SELECT count(*) FROM hello").fetchone(), (3,), "rows that were committed")
    connect(left.path()).execute("INSERT INTO hello VALUES('alone')")
    left.kill()
    check("-join" in left.flags, "what names those that were lost does no harm")
    left.start()

    late.launch()  # it knows nothing of that, and gets nobody to follow it
    for node in (other,):
        node.directory.rename(temporary("lost"))
        node.flags += ["-join", left.raft]
        node.start()
    wait_reads(other, "SELECT count(*) FROM hello", 4)
    check(not late.leads() and not left.status()["store"]["raft"]["state"] == "Follower", "the old cluster leads nobody")
    late.kill()
    late.directory.rename(temporary("lost"))
    late.flags = [flag if flag != other.raft else left.raft for flag in late.flags]
    late.start()
    wait_reads(late, "SELECT count(*) FROM hello", 4)
    cluster.wait_equal()


# --- under load ----------------------------------------------------------------------------------------------------------


@test
def s14_3_kill_of_the_leader_under_load():
    cluster = Cluster()
    ledger = Ledger(cluster)
    for _ in range(3):
        ledger.wait_more(20)
        leader = cluster.leader()
        killed = time.monotonic()
        leader.kill()
        ledger.wait_more(20, cluster.others(leader))
        print(f"NOTE leader killed: {ledger.longest_gap(cluster.others(leader), killed):.3f} s without a commit on the others")
        leader.start()
    ledger.wait_more(20)
    ledger.settle()


@test
def kills_of_random_nodes_under_load():
    cluster = Cluster()
    ledger = Ledger(cluster)
    dice = random.Random(11)
    for _ in range(12):
        ledger.wait_more(10)
        ledger.done.wait(dice.random() * 0.05)  # any point of a commit
        node = dice.choice(cluster.nodes)
        node.kill()
        ledger.wait_more(5, cluster.others(node))
        node.start()
    ledger.wait_more(10)
    print(f"NOTE longest gap without a commit {ledger.longest_gap():.3f} s")
    ledger.settle()


@test
def kill_of_all_under_load():
    cluster = Cluster()
    ledger = Ledger(cluster, busy_ms=40000, timeout_ms=40000)
    for _ in range(3):
        ledger.wait_more(10)
        cluster.kill_all()
    ledger.wait_more(10)
    ledger.settle()


@test
def a_leader_that_is_stopped_for_three_seconds():
    cluster = Cluster()
    ledger = Ledger(cluster)
    ledger.wait_more(20)
    leader = cluster.leader()
    others = cluster.others(leader)
    stopped = time.monotonic()
    leader.pause()
    ledger.wait_more(20, others)
    ledger.done.wait(max(0.0, stopped + 3 - time.monotonic()))  # the pause itself is what is tested
    leader.go_on()
    resumed = time.monotonic()
    ledger.wait_more(1, [leader])
    print(f"NOTE leader stopped: {ledger.longest_gap(others, stopped):.3f} s without a commit on the others; "
          f"it writes again {time.monotonic() - resumed:.3f} s after it goes on")
    ledger.wait_more(20)
    ledger.settle()


@test
def s6_a_leader_that_is_asked_to_end_hands_over():
    cluster = Cluster(3, *STEADY)
    ledger = Ledger(cluster)
    gaps = []
    for _ in range(5):
        ledger.wait_more(20)
        leader = cluster.leader()
        asked = time.monotonic()
        leader.stop()
        ledger.wait_more(20, cluster.others(leader))
        gaps.append(ledger.longest_gap(cluster.others(leader), asked))
        leader.start()
    print("NOTE leader asked to end: longest gaps without a commit " + ", ".join(f"{gap:.3f}" for gap in gaps) + " s")
    ledger.wait_more(20)
    ledger.settle()
    check(sorted(gaps)[2] < 7, f"somebody had to stand for election: {gaps}")


main()
