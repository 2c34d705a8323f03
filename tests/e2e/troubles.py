"""What may happen to nodes and to the network between them (NetworkCluster), as long as a majority of voters stays, or comes back.

Each is a function of (cluster, dice, last): it begins the trouble, calls last(), which returns when it has lasted long enough, and
ends it."""


from cluster import together
from harness import temporary, wait_for

# Whoever was away may have to be made a member again, at a time when nobody leads.
PATIENTLY = ["-join-attempts", "1000", "-join-interval", "200ms"]


def some(cluster, dice):
    """A minority."""
    return dice.sample(cluster.nodes, dice.randrange(1, (len(cluster.nodes) + 1) // 2))


def leader_or_any(cluster, dice):
    leading = [node for node in cluster.nodes if node.leads()]
    return leading[0] if leading and dice.random() < 0.7 else dice.choice(cluster.nodes)


def killed(cluster, dice, last):
    nodes = some(cluster, dice)
    for node in nodes:
        node.kill()
    last()
    together(nodes)


def leader_killed(cluster, dice, last):
    node = leader_or_any(cluster, dice)
    node.kill()
    last()
    together([node])


def ended(cluster, dice, last):
    node = leader_or_any(cluster, dice)
    node.stop()
    last()
    together([node])


def paused(cluster, dice, last):
    nodes = some(cluster, dice)
    for node in nodes:
        node.pause()
    last()
    for node in nodes:
        node.go_on()


def all_paused(cluster, dice, last):
    """As a machine of virtual ones that stands still."""
    for node in cluster.nodes:
        node.pause()
    last()
    for node in dice.sample(cluster.nodes, len(cluster.nodes)):
        node.go_on()


def all_killed(cluster, dice, last):
    for node in cluster.nodes:
        node.kill()
    together(dice.sample(cluster.nodes, len(cluster.nodes)))


def cut_off(cluster, dice, last):
    cluster.separate(*some(cluster, dice))
    last()
    cluster.heal()


def leader_cut_off(cluster, dice, last):
    cluster.separate(leader_or_any(cluster, dice))
    last()
    cluster.heal()


def one_way(cluster, last, lost):
    """What senders send to receivers is lost, not what these send to them."""
    for sender, receiver in lost:
        cluster.network.drop(sender.host, receiver.host)
    last()
    cluster.heal()


def not_heard(cluster, dice, last):
    node = leader_or_any(cluster, dice)
    one_way(cluster, last, [(node, other) for other in cluster.others(node)])


def hears_nobody(cluster, dice, last):
    node = leader_or_any(cluster, dice)
    one_way(cluster, last, [(other, node) for other in cluster.others(node)])


def bridge(cluster, dice, last):
    """Two sides that reach each other through one node only."""
    nodes = dice.sample(cluster.nodes, len(cluster.nodes))
    half = len(nodes) // 2
    cluster.network.separate([node.host for node in nodes[:half]], [node.host for node in nodes[half + 1:]])
    last()
    cluster.heal()


def flapping(cluster, dice, last):
    for _ in range(3):
        links = [(sender, receiver) for sender in cluster.nodes for receiver in cluster.others(sender)]
        one_way(cluster, last, [link for link in links if dice.random() < 0.25])


def slow(cluster, dice, last):
    for node in dice.sample(cluster.nodes, dice.randrange(1, len(cluster.nodes) + 1)):
        cluster.network.slow(node.host, dice.choice([500, 2000, 8000]))
    last()
    cluster.heal()


def killed_while_cut_off(cluster, dice, last):
    nodes = some(cluster, dice)
    cluster.separate(*nodes)
    last()
    for node in nodes:
        node.kill()
    cluster.heal()
    together(nodes)


def killed_as_it_comes_back(cluster, dice, last):
    """In the middle of its replay, its election, or its catch-up."""
    node = leader_or_any(cluster, dice)
    node.kill()
    last()
    for _ in range(dice.randrange(1, 4)):
        log = node.log_path.stat().st_size
        node.launch()
        wait_for(lambda: node.log_path.stat().st_size > log, f"node {node.name} says something")
        last()
        node.kill()
    together([node])


def wiped(cluster, dice, last):
    """The disk is lost; it comes back empty under its name, and votes again."""
    node = leader_or_any(cluster, dice)
    node.kill()
    node.directory.rename(temporary("lost"))
    node.flags = ["-node-id", node.name, "-join", ",".join(other.raft for other in cluster.others(node)), *PATIENTLY, *cluster.flags]
    last()
    together([node])
    wait_for(lambda: cluster.all_vote(), f"node {node.name} votes again")


OF_PROCESSES = [killed, leader_killed, ended, paused, all_paused, all_killed, killed_as_it_comes_back]
OF_NETWORKS = [cut_off, leader_cut_off, not_heard, hears_nobody, bridge, flapping, slow, killed_while_cut_off]
EVERY = OF_PROCESSES + OF_NETWORKS + [wiped]
