"""The turn between hosts: who wants to write waits for it, and no SQLITE_BUSY reaches an application that waits."""

import signal
import sqlite3
import struct
import subprocess
import time

from cluster import Cluster, wait_reads
from harness import check, connect, equal, fails, finish, main, pause, python, test, value, wait_for

# Told to, it writes as long as it may, or is let, and prints: commits, longest wait in ms, errors.
WRITER = """
import signal, sqlite3, sys, time
from harness import connect
path, who, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
connection = connect(path, busy_ms=30000)
commits, errors, longest, over = 0, [], 0.0, []
signal.signal(signal.SIGTERM, lambda *_: over.append(True))
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + seconds
while time.monotonic() < end and not over:
    begin = time.monotonic()
    try:
        connection.execute("INSERT INTO ledger VALUES(?, ?)", (who, commits))
        commits += 1
    except sqlite3.Error as error:
        errors.append(f"{error.sqlite_errorname}: {error}")
    longest = max(longest, time.monotonic() - begin)
print(commits, round(longest * 1000), *errors[:3], sep="|")
"""


def ledger(cluster):
    first = connect(cluster.nodes[0].path(), busy_ms=20000)
    first.execute("CREATE TABLE ledger(who, number)")
    first.close()
    for node in cluster.nodes:
        wait_reads(node, "SELECT count(*) FROM ledger", 0)


def writer_on(node, who, seconds):
    """It is ready."""
    writer = python(WRITER, node.path(), who, seconds, stdin=subprocess.PIPE)
    equal(writer.stdout.readline(), "ready\n", f"the first words of writer {who}")
    return writer


def go(*writers):
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()


def result_of(writer):
    return finish(writer).strip().split("|")


def write(nodes, seconds):
    """(commits of each, longest wait in ms): nobody may see an error."""
    writers = [writer_on(node, node.name, seconds) for node in nodes]
    go(*writers)
    results = [result_of(writer) for writer in writers]
    for node, result in zip(nodes, results):
        equal(result[2:], [], f"errors on node {node.name}")
    return [int(result[0]) for result in results], max(int(result[1]) for result in results)


@test
def three_hosts_write_at_once():
    cluster = Cluster()
    ledger(cluster)
    alone, _ = write([cluster.leader()], 4)
    follower, _ = write(cluster.others(cluster.leader())[:1], 4)
    together, longest = write(cluster.nodes, 6)
    for node, commits in zip(cluster.nodes, together):
        check(commits > 0, f"node {node.name} has written nothing of {together}")
    total = sum(together)
    print(f"NOTE leader alone {alone[0] / 4:.0f}/s, a follower alone {follower[0] / 4:.0f}/s, three at once "
          f"{total / 6:.0f}/s ({total / 6 / (alone[0] / 4):.2f}x), slowest host {min(together) / total:.0%}, longest wait {longest} ms")
    rows = value(connect(cluster.nodes[0].path()), "SELECT count(*) FROM ledger")
    equal(rows, alone[0] + follower[0] + total, "rows of what was told to be committed")
    cluster.wait_equal()


@test
def several_on_each_host():
    cluster = Cluster()
    ledger(cluster)
    together, longest = write(cluster.nodes * 3, 6)
    check(all(commits > 0 for commits in together), f"commits of each: {together}")
    print(f"NOTE nine writers: {sum(together) / 6:.0f}/s, slowest {min(together)}, fastest {max(together)}, longest wait {longest} ms")
    cluster.wait_equal()


@test
def without_a_busy_handler_one_who_tries_again_gets_it():
    cluster = Cluster()
    ledger(cluster)
    busy = writer_on(cluster.nodes[0], "busy", 100)
    other = connect(cluster.nodes[1].path(), busy_ms=0)
    go(busy)
    wait_reads(cluster.nodes[1], "SELECT count(*) > 0 FROM ledger", 1)

    def insert():
        try:
            other.execute("INSERT INTO ledger VALUES('poller', 0)")
            return True
        except sqlite3.OperationalError as error:
            equal(error.sqlite_errorcode & 255, sqlite3.SQLITE_BUSY)
            return False

    wait_for(insert, "a poller has had the turn")
    busy.terminate()
    equal(result_of(busy)[2:], [], "errors of the other one")


def insert_at_once(node, name, busy_ms):
    connection = connect(node.path(name), busy_ms=busy_ms)
    connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
    connection.execute("INSERT INTO t VALUES(1)")
    connection.close()


@test
def without_a_busy_handler_a_write_succeeds_where_nobody_else_writes():
    cluster = Cluster()
    for i in range(4):
        for j, node in enumerate(cluster.nodes):
            name = f"new{i % 2}.db"
            if i > 1 or j > 0:
                wait_reads(node, "SELECT count(*) FROM t", 3 * (i // 2) + j, name)
            begin = time.monotonic()
            try:
                insert_at_once(node, name, busy_ms=0)
            except sqlite3.OperationalError as error:
                # On a machine that needs longer than the shim waits, this proves nothing.
                check(time.monotonic() - begin >= 1, f"{error} on node {node.name}, after less than it waits for")
                insert_at_once(node, name, busy_ms=20000)
    cluster.wait_equal("new0.db")


def hold_turn(node):
    """A transaction that has the turn, and does nothing."""
    holder = connect(node.path(), busy_ms=20000)
    holder.execute("BEGIN IMMEDIATE")
    holder.execute("INSERT INTO ledger VALUES('holder', 0)")
    return holder


def goes_on(node):
    """That host can write."""
    begin = time.monotonic()
    other = connect(node.path(), busy_ms=30000)
    other.execute("INSERT INTO ledger VALUES('other', 0)")
    print(f"NOTE went on after {(time.monotonic() - begin) * 1000:.0f} ms")


@test
def a_transaction_that_does_nothing_loses_it():
    cluster = Cluster()
    ledger(cluster)
    for holding, waiting in [(0, 1), (1, 0), (1, 2)]:
        begin = time.monotonic()
        holder = hold_turn(cluster.nodes[holding])
        goes_on(cluster.nodes[waiting])
        check(time.monotonic() - begin > 1.0, "it was not waited for")
        with fails(sqlite3.SQLITE_BUSY):
            holder.execute("COMMIT")
        holder.execute("INSERT INTO ledger VALUES('holder', 1)")
    cluster.wait_equal()
    equal(value(connect(cluster.nodes[0].path()), "SELECT count(*) FROM ledger WHERE number = 0 AND who = 'holder'"), 0)


@test
def a_host_that_is_killed_or_stopped_loses_it():
    cluster = Cluster()
    ledger(cluster)
    leader = cluster.leader()
    victim, waiting = cluster.others(leader)
    holder = hold_turn(victim)
    victim.pause()
    goes_on(waiting)
    victim.go_on()
    with fails(sqlite3.SQLITE_BUSY):
        holder.execute("COMMIT")
    holder.execute("INSERT INTO ledger VALUES('victim', 1)")
    victim.kill()
    goes_on(waiting)
    goes_on(leader)
    victim.start()
    wait_for(lambda: value(connect(victim.path()), "SELECT count(*) FROM ledger WHERE who = 'other'") == 3, "it has caught up")
    connect(victim.path(), busy_ms=20000).execute("INSERT INTO ledger VALUES('victim', 2)")
    cluster.wait_equal()


def sleeps_for_it(node, pid):
    """Whether that process is in the queue of its host, asleep: as its slot of the control page says."""
    page = node.path("app.db-rqctl").read_bytes()
    slots = [struct.unpack_from("=QIIQQII", page, at) for at in range(4096, len(page), 64)]
    return any(slot[6] == pid and slot[5] == 1 and slot[2] != 0 for slot in slots)


@test
def who_is_stopped_while_he_waits_holds_up_nobody():
    """Nor the others of his host, to which the turn comes for a moment each time."""
    cluster = Cluster()
    ledger(cluster)
    there, here = cluster.nodes[:2]
    stopped = [writer_on(here, f"stopped{number}", 0.001) for number in range(2)]
    busy = writer_on(there, "busy", 200)
    holder = hold_turn(there)
    go(*stopped)
    for process in stopped:
        wait_for(lambda: sleeps_for_it(here, process.pid), "it waits for the turn")
        pause(process.pid)
    holder.execute("COMMIT")
    go(busy)
    other = connect(here.path(), busy_ms=30000)
    wait_for(lambda: value(other, "SELECT count(*) FROM ledger WHERE who = 'busy'") > 0, "the other host writes")
    begun = time.monotonic()
    for number in range(20):
        other.execute("INSERT INTO ledger VALUES('other', ?)", (number,))
    print(f"NOTE 20 commits beside two who are stopped: {time.monotonic() - begun:.3f} s")
    busy.kill()
    for process in stopped:
        process.send_signal(signal.SIGCONT)
    for process in stopped:
        equal(result_of(process)[2:], [], "errors of who was stopped")
    cluster.wait_equal()


@test
def a_leader_that_dies_takes_no_turn_with_it():
    cluster = Cluster()
    ledger(cluster)
    leader = cluster.leader()
    one, two = cluster.others(leader)
    keeper = connect(one.path(), busy_ms=20000)
    keeper.execute("INSERT INTO ledger VALUES('keeper', 0)")
    leader.kill()
    keeper.execute("INSERT INTO ledger VALUES('keeper', 1)")
    goes_on(two)
    keeper.execute("INSERT INTO ledger VALUES('keeper', 2)")
    leader.start()
    cluster.wait_equal()


@test
def a_host_that_joins_and_leaves():
    cluster = Cluster(start=False)
    first = cluster.nodes[0].start()
    keeper = connect(first.path(), busy_ms=20000)
    keeper.execute("CREATE TABLE ledger(who, number)")
    keeper.execute("BEGIN IMMEDIATE")
    cluster.nodes[1].start()
    keeper.execute("INSERT INTO ledger VALUES('keeper', 0)")
    keeper.execute("COMMIT")
    wait_reads(cluster.nodes[1], "SELECT count(*) FROM ledger", 1)
    goes_on(cluster.nodes[1])
    keeper.execute("INSERT INTO ledger VALUES('keeper', 1)")
    equal(value(keeper, "SELECT count(*) FROM ledger"), 3)


if __name__ == "__main__":
    main()
