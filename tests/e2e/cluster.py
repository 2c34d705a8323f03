"""Clusters on this machine, for the tests on harness.py: each node has a host address of its own under 127/8, so that the ports
are the same everywhere and no other program's are met; writers on every host keep a ledger of what they were told."""

import json
import sqlite3
import threading
import time

from harness import (HTTP_PORT, IOERR_UNKNOWN, RAFT_PORT, Raftd, check, claim_subnet, connect, connect_stock, equal, shell_stock,
                     temporary, wait_for)


# Nobody who hears nothing for a few seconds stands for election: for tests in which the first node is to go on leading.
STEADY = ["-raft-heartbeat-timeout", "8s", "-raft-election-timeout", "8s"]


class Node(Raftd):
    def __init__(self, name, host, *flags):
        super().__init__(temporary(f"node{name}"), "-node-id", str(name), *flags, start=False)
        self.name = str(name)
        self.move(host)

    def move(self, host):
        """From its next start on it is there."""
        self.host = host
        self.http, self.raft = f"{host}:{HTTP_PORT}", f"{host}:{RAFT_PORT}"

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def removes(self, other):
        """Is asked to, and answers when it is done."""
        body, headers = json.dumps({"id": other.name}).encode(), {"Content-Type": "application/json"}
        wait_for(lambda: self.request("DELETE", "/remove", body=body, headers=headers)[0] == 200, f"node {other.name} is removed")

    def refused(self, *words):
        """It ends by itself, and says why."""
        self.launch()
        equal(self.exit_code(), 1, "exit code of a node that is to be refused")
        for word in words:
            check(word in self.log(), f"node {self.name} did not say {word!r}:\n{self.log()}")

    def lead(self):
        """It is made the leader, if it is not."""
        body, headers = json.dumps({"id": self.name}).encode(), {"Content-Type": "application/json"}
        wait_for(lambda: self.leads() or self.request("POST", "/leader", body, headers) and self.leads(), f"node {self.name} leads")

    def leads(self):
        try:
            return self.alive() and self.status()["store"].get("raft", {}).get("state") == "Leader"
        except OSError:
            return False


def together(nodes):
    """Starts them at once, and waits for all."""
    for node in nodes:
        node.launch()
    for node in nodes:
        node.wait_ready()


class Cluster:
    """count nodes, named 1, 2, ...: the first founds, the others join it."""

    def __init__(self, count=3, *flags, start=True):
        self.subnet = claim_subnet()
        self.flags = flags
        self.nodes = [Node(number, self.host(number), *flags) for number in range(1, count + 1)]
        for node in self.nodes[1:]:
            node.flags += ["-join", self.nodes[0].raft]
        if start:
            for node in self.nodes:
                node.start()
            wait_for(self.all_vote, "every node has a vote")  # else to lose one may be to lose the majority

    def host(self, number):
        return f"{self.subnet}.{number}"

    def add(self, name, *flags):
        """A further node, not started."""
        node = Node(name, self.host(len(self.nodes) + 1), *self.flags, *flags)
        self.nodes.append(node)
        return node

    def leader(self, among=None, seconds=60.0):
        """The node that says that it leads; of those given, or all."""
        return wait_for(lambda: next((node for node in among or self.nodes if node.leads()), None), "a node leads", seconds)

    def kill_all(self):
        """At once, and they come back together."""
        for node in self.nodes:
            node.kill()
        together(self.nodes)

    def others(self, *nodes):
        return [node for node in self.nodes if node not in nodes]

    def all_vote(self):
        """Nobody is there twice, as what it was and as what it is now, and nobody is still without a vote: else to lose one more
        would be to lose two of three."""
        leader = next((node for node in self.nodes if node.leads()), None)
        members = leader.status()["store"]["nodes"] if leader else []
        return [member["suffrage"] for member in members] == ["voter"] * len(self.nodes)

    def summary(self):
        """What each node says of its log."""

        def one(node):
            try:
                store = node.status()["store"]
                return {**store["raft"], "databases": {name: each["version"] for name, each in store["databases"].items()}}
            except (OSError, KeyError, AssertionError) as error:
                return error

        return "; ".join(f"node {node.name}: {one(node)}" for node in self.nodes)

    def wait_equal(self, name="app.db", seconds=90.0):
        """Until the database has the same bytes on every host, the stamp among them; then its pages are proved to hang together."""
        images = []

        def same():
            images[:] = []
            for node in self.nodes:
                try:
                    connection = connect_stock(node.path(name), mode="rw")  # which makes no file where none is yet
                except sqlite3.OperationalError:
                    return False
                images.append(connection.serialize())
                connection.close()
            return all(image == images[0] for image in images)

        wait_for(same, f"{name} is the same on every host", seconds)
        for node in self.nodes:
            equal(shell_stock(node.path(name), "PRAGMA integrity_check;"), "ok", f"integrity on node {node.name}")


def database(node):
    return node.status()["store"]["databases"]["app.db"]


def in_file(node):
    """All is in the database file, and the WAL has begun anew."""
    content = node.path("app.db-wal").read_bytes()[:32 + 24]
    here = database(node)
    return (node.path().stat().st_size == here["page_count"] * here["page_size"]
            and (len(content) < 56 or content[16:24] != content[40:48]))


def wait_reads(node, sql, wanted, name="app.db", seconds=60.0):
    """Until a connection on that host reads the value: what another host has committed arrives there a moment later."""
    connection = connect(node.path(name))

    def read():
        try:
            return connection.execute(sql).fetchone() == (wanted,)
        except sqlite3.OperationalError:  # the table is not there yet
            return False

    wait_for(read, f"node {node.name} reads {wanted!r}", seconds)
    connection.close()


class Writer(threading.Thread):
    """INSERTs numbers one by one, never the same twice, and notes what it was told of each."""

    def __init__(self, ledger, node, name):
        super().__init__(daemon=True)
        self.ledger, self.node, self.name, self.done = ledger, node, name, ledger.done
        self.acknowledged, self.refused, self.unknown, self.wrong = [], [], [], []
        self.times = []  # of the acknowledgements

    def run(self):
        connection = connect(self.node.path(), busy_ms=self.ledger.busy_ms, timeout=self.ledger.timeout_ms)
        number = 0
        while not self.done.is_set():
            number += 1
            try:
                connection.execute("INSERT INTO ledger VALUES(?, ?)", (self.name, number))
                self.acknowledged.append(number)
                self.times.append(time.monotonic())
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0)
                if code == IOERR_UNKNOWN:
                    self.unknown.append(number)
                elif code & 255 == sqlite3.SQLITE_BUSY:
                    self.refused.append(number)
                else:
                    self.wrong.append((number, getattr(error, "sqlite_errorname", None), str(error)))
        connection.close()


class Ledger:
    """Writers on each of the nodes (or of those given), each with a connection of its own to the node's replica."""

    def __init__(self, cluster, nodes=None, busy_ms=20000, timeout_ms=20000):
        self.cluster = cluster
        self.busy_ms, self.timeout_ms = busy_ms, timeout_ms
        first = connect(cluster.nodes[0].path(), busy_ms=20000)
        first.execute("CREATE TABLE ledger(writer, number)")
        first.close()
        for node in cluster.nodes:
            wait_reads(node, "SELECT count(*) FROM ledger", 0)
        self.began = time.monotonic()
        self.writers = []
        self.write_on(nodes or cluster.nodes)

    def write_on(self, nodes):
        """Further writers; those before have to be stopped."""
        self.done = threading.Event()
        writers = [Writer(self, node, f"{node.name}.{len(self.writers)}") for node in nodes]
        self.writers += writers
        for writer in writers:
            writer.start()

    def wait_more(self, commits, nodes=None, seconds=90.0):
        """Until each writer (on those nodes) has so many more acknowledged."""
        writers = [each for each in self.writers if each.done is self.done and (nodes is None or each.node in nodes)]
        before = [len(writer.acknowledged) for writer in writers]

        def more():
            self.check_wrong()
            return all(len(writer.acknowledged) >= had + commits for writer, had in zip(writers, before))

        try:
            wait_for(more, f"everybody has {commits} more commits", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.summary()}; {self.cluster.summary()}") from None

    def check_wrong(self):
        for writer in self.writers:
            check(not writer.wrong, f"writer {writer.name} saw {writer.wrong[:3]}")

    def longest_gap(self, nodes=None, since=None):
        """Longest time, in seconds, in which nobody (on those nodes) was told of a commit."""
        since = since or self.began
        times = sorted(at for writer in self.writers if nodes is None or writer.node in nodes for at in writer.times)
        times = [since] + [at for at in times if at > since]
        return max((b - a for a, b in zip(times, times[1:])), default=0.0)

    def summary(self):
        return ", ".join(
            f"{writer.name}: {len(writer.acknowledged)} acknowledged, {len(writer.refused)} busy, {len(writer.unknown)} unknown"
            for writer in self.writers
        )

    def stop(self):
        self.done.set()
        for writer in self.writers:
            writer.join(timeout=120)
            check(not writer.is_alive(), f"writer {writer.name} hangs")

    def settle(self, unknown=0):
        """Ends the writers; then what is in the database is what they were told: the acknowledged once, what was reported as
        failed not at all, and of what is unknown, unknown at most, any."""
        self.stop()
        self.check_wrong()
        self.cluster.wait_equal()
        rows = connect_stock(self.cluster.nodes[0].path()).execute("SELECT writer, number FROM ledger").fetchall()
        present = {}
        for name, number in rows:
            present.setdefault(name, []).append(number)
        for writer in self.writers:
            there = present.pop(writer.name, [])
            equal(len(there), len(set(there)), f"rows of writer {writer.name} against distinct ones")
            lost = set(writer.acknowledged) - set(there)
            check(not lost, f"acknowledged and lost, of writer {writer.name}: {sorted(lost)[:10]}")
            ghosts = set(there) & set(writer.refused)
            check(not ghosts, f"reported as failed, and there, of writer {writer.name}: {sorted(ghosts)[:10]}")
            strange = set(there) - set(writer.acknowledged) - set(writer.unknown)
            check(not strange, f"never written, and there, of writer {writer.name}: {sorted(strange)[:10]}")
        equal(present, {}, "rows of writers that do not exist")
        found = sum(len(writer.unknown) for writer in self.writers)
        check(found <= unknown, f"{found} outcomes are unknown: {self.summary()}")
        print(f"NOTE {len(rows)} rows; {self.summary()}")
