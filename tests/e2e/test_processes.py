"""Several processes and threads on one database; fork; who waits gets its turn."""

import os
import sqlite3
import threading
import time

from harness import (Raftd, check, connect, equal, fails, finish, main, pause, python, shell_stock, temporary, test, value, wait_for)

INCREMENT = """
import sys
from harness import connect
connection = connect(sys.argv[1], busy_ms=20000)
for _ in range(int(sys.argv[2])):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE counter SET n = n + 1")
    connection.execute("INSERT INTO done VALUES(?)", (sys.argv[3],))
    connection.execute("COMMIT")
"""


def counter_database():
    raftd = Raftd()
    connection = connect(raftd.path())
    connection.executescript("CREATE TABLE counter(n); INSERT INTO counter VALUES(0); CREATE TABLE done(who);")
    return raftd, connection


@test
def four_processes_lose_no_increment():
    raftd, connection = counter_database()
    for process in [python(INCREMENT, raftd.path(), 100, who) for who in range(4)]:
        finish(process)
    equal(value(connection, "SELECT n FROM counter"), 400, "counter")
    equal(connection.execute("SELECT who, count(*) FROM done GROUP BY who ORDER BY who").fetchall(),
          [(str(who), 100) for who in range(4)], "transactions of each process")
    equal(shell_stock(raftd.path(), "PRAGMA integrity_check;"), "ok")


@test
def four_threads_lose_no_increment():
    raftd, connection = counter_database()
    errors = []

    def work():
        try:
            own = connect(raftd.path(), busy_ms=20000)
            for _ in range(100):
                own.execute("UPDATE counter SET n = n + 1")
        except sqlite3.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(errors, [], "errors in threads")
    equal(value(connection, "SELECT n FROM counter"), 400, "counter")


@test
def deferred_readers_that_write_are_told_that_they_are_stale():
    raftd, first = counter_database()
    second = connect(raftd.path(), busy_ms=1000)
    second.execute("BEGIN")
    equal(value(second, "SELECT n FROM counter"), 0)
    first.execute("UPDATE counter SET n = 1")
    with fails(sqlite3.SQLITE_BUSY_SNAPSHOT):
        second.execute("UPDATE counter SET n = n + 1")
    equal(value(second, "SELECT n FROM counter"), 0, "what the stale transaction still reads")
    second.execute("ROLLBACK")
    second.execute("UPDATE counter SET n = n + 1")
    equal(value(first, "SELECT n FROM counter"), 2, "counter")


@test
def a_taken_turn_is_busy():
    raftd, first = counter_database()
    second = connect(raftd.path(), busy_ms=0)
    first.execute("BEGIN IMMEDIATE")
    with fails(sqlite3.SQLITE_BUSY):
        second.execute("BEGIN IMMEDIATE")
    first.execute("COMMIT")
    second.execute("BEGIN IMMEDIATE")
    second.execute("COMMIT")


@test
def readers_and_a_writer_do_not_wait_for_each_other():
    raftd, writer = counter_database()
    reader = connect(raftd.path(), busy_ms=0)
    reader.execute("BEGIN")
    equal(value(reader, "SELECT n FROM counter"), 0)
    for _ in range(20):
        writer.execute("UPDATE counter SET n = n + 1")
    equal(value(reader, "SELECT n FROM counter"), 0, "what the open snapshot reads")
    writer.execute("BEGIN EXCLUSIVE")
    equal(value(reader, "SELECT n FROM counter"), 0, "beside BEGIN EXCLUSIVE")
    writer.execute("ROLLBACK")
    reader.execute("COMMIT")
    equal(value(reader, "SELECT n FROM counter"), 20, "what a new snapshot reads")


@test
def a_child_opens_its_own_connection_after_fork():
    raftd, connection = counter_database()
    connection.execute("UPDATE counter SET n = 5")
    child = os.fork()
    if child == 0:
        own = connect(raftd.path())
        own.execute("UPDATE counter SET n = n + 1")
        os._exit(0 if value(own, "SELECT n FROM counter") == 6 else 1)
    equal(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0, "exit code of the child")
    connection.execute("UPDATE counter SET n = n + 1")
    equal(value(connection, "SELECT n FROM counter"), 7, "counter in the parent")


@test
def an_inherited_connection_is_refused_and_the_parent_s_goes_on():
    raftd, connection = counter_database()
    connection.execute("UPDATE counter SET n = 1")
    child = os.fork()
    if child == 0:
        try:
            connection.execute("UPDATE counter SET n = n + 100")
        except sqlite3.Error:
            os._exit(0)
        os._exit(1)
    equal(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0, "exit code of the child that used its parent's connection")
    connection.execute("UPDATE counter SET n = n + 1")
    equal(value(connection, "SELECT n FROM counter"), 2, "counter in the parent")


HOLD_TURN = """
import sys, time
from harness import connect
connection = connect(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE counter SET n = 1000")
print("held", flush=True)
sys.stdin.read()
"""


@test
def the_turn_of_a_killed_process_is_free_at_once():
    raftd, connection = counter_database()
    waits = []
    for _ in range(5):
        holder = python(HOLD_TURN, raftd.path(), stdin=-1)
        equal(holder.stdout.readline(), "held\n")
        holder.kill()
        began = time.monotonic()
        connection.execute("UPDATE counter SET n = n + 1")
        waits.append(time.monotonic() - began)
        holder.wait()
    equal(value(connection, "SELECT n FROM counter"), 5, "counter: nothing of the killed ones")
    print(f"NOTE seconds until the turn was free: {waits}")


@test
def a_stopped_writer_delays_nobody_s_reads():
    raftd, connection = counter_database()
    holder = python(HOLD_TURN, raftd.path(), stdin=-1)
    equal(holder.stdout.readline(), "held\n")
    pause(holder.pid)
    connection.execute("PRAGMA busy_timeout=0")
    for _ in range(100):
        equal(value(connection, "SELECT n FROM counter"), 0)
    holder.kill()


@test
def waiting_writers_take_turns():
    raftd, connection = counter_database()
    stop = temporary("stop")
    program = INCREMENT.replace("for _ in range(int(sys.argv[2])):", "import os\nwhile not os.path.exists(sys.argv[2]):")
    processes = [python(program, raftd.path(), stop, who) for who in range(3)]
    shares = lambda: [row[0] for row in connection.execute("SELECT count(*) FROM done GROUP BY who ORDER BY who")]
    wait_for(lambda: len(shares()) == 3, "all three are at work")
    before = shares()
    wait_for(lambda: sum(shares()) > sum(before) + 600, "600 more transactions are done")
    after = shares()
    stop.touch()
    for process in processes:
        finish(process)
    gained = [b - a for a, b in zip(before, after)]
    check(min(gained) * 20 > sum(gained), f"the slowest of three got less than a twentieth: {gained}")


main()
