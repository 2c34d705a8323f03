"""A network of hosts in one machine: each has a network namespace of its own, on one switch; the test's process is one more host on
it.  What goes from one host to another can be dropped, in silence, in either direction alone, and what a host sends be slowed down.
All of it ends with the test.

Files and sockets of a data directory are the machine's: applications run in the test's process, whatever happens to the network."""

import os
import shutil
import subprocess
import threading

from cluster import Cluster
from harness import Skip

SUBNET = "10.77.0"


class Network:
    def __init__(self):
        missing = [program for program in ("ip", "iptables", "nsenter", "tc") if shutil.which(program) is None]
        if missing:
            raise Skip(f"no {', '.join(missing)} here")
        try:
            os.unshare(os.CLONE_NEWNET)
        except OSError as error:
            raise Skip(f"no network namespace can be made: {error.strerror}") from None
        self.namespaces = {}  # by address: a path
        self.slowed = set()
        try:
            self._run("ip", "link", "set", "lo", "up")
            self._run("ip", "link", "add", "switch", "type", "bridge")
            self._run("ip", "address", "add", f"{SUBNET}.254/24", "dev", "switch")
            self._run("ip", "link", "set", "switch", "up")
            self._run("iptables", "-w", "-L", "INPUT")
        except subprocess.CalledProcessError as error:
            raise Skip(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from None

    @staticmethod
    def _run(*command):
        subprocess.run(command, check=True, capture_output=True, text=True)

    def _run_at(self, host, *command):
        self._run(*self.enter(host), *command)

    def enter(self, host):
        """Makes a command run on that host."""
        return ["nsenter", f"--net={self.namespaces[host]}"]

    def add(self, number):
        """A host on the switch.  Its address."""
        host, opened = f"{SUBNET}.{number}", []

        def make():  # a thread of its own: the others stay where they are
            os.unshare(os.CLONE_NEWNET)
            opened.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

        maker = threading.Thread(target=make)
        maker.start()
        maker.join()
        self.namespaces[host] = f"/proc/{os.getpid()}/fd/{opened[0]}"
        self._run("ip", "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", self.namespaces[host])
        self._run("ip", "link", "set", f"port{number}", "master", "switch", "up")
        self._run_at(host, "ip", "address", "add", f"{host}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self._run_at(host, "ip", "link", "set", device, "up")
        return host

    def drop(self, sender, receiver):
        """What the first sends to the second does not arrive any more."""
        self._run_at(receiver, "iptables", "-w", "-A", "INPUT", "-s", sender, "-j", "DROP")

    def separate(self, some, others):
        for one in some:
            for other in others:
                self.drop(one, other)
                self.drop(other, one)

    def slow(self, host, kilobits):
        """What that host sends, to anybody, goes at so many kilobits in a second; what waits longer than a second is lost."""
        self._run_at(host, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", f"{kilobits}kbit", "burst", "16kb",
                     "latency", "1s")
        self.slowed.add(host)

    def heal(self):
        for host in self.namespaces:
            self._run_at(host, "iptables", "-w", "-F", "INPUT")
        for host in self.slowed:
            self._run_at(host, "tc", "qdisc", "del", "dev", "eth0", "root")
        self.slowed.clear()


class NetworkCluster(Cluster):
    """A cluster, each of its nodes on a host of its own."""

    def __init__(self, count=3, *flags):
        self.network = Network()
        super().__init__(count, *flags, start=False)
        for node in self.nodes:
            node.prefix = self.network.enter(node.host)
            node.start()

    def host(self, number):
        return self.network.add(number)

    def separate(self, *nodes):
        """Those from all others."""
        self.network.separate([node.host for node in nodes], [node.host for node in self.others(*nodes)])

    def heal(self):
        self.network.heal()
