"""Clients that are many, silent, slow or verbose cost nothing but themselves: sections 2.1 of rqlite's surface and what it leaves open.
The names of tests begin with the sections that they are about."""

import json
import pathlib
import resource
import socket
import sys
import threading

from harness import Raftd, Skip, check, connect, equal, main, temporary, test, wait_for

IDLE = 3000
ASK = b"GET /db/query?q=SELECT+7 HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = b'"values":[[7]]}]}'


def dial(node, send=b""):
    host, port = node.http.split(":")
    link = socket.create_connection((host, int(port)), timeout=60)
    link.sendall(send)
    return link


def served(link):
    """It is asked, and answers."""
    try:
        link.sendall(ASK)
        answer = b""
        while ANSWER not in answer:
            piece = link.recv(65536)
            if not piece:
                return False
            answer += piece
        return answer.startswith(b"HTTP/1.1 200 OK\r\n")
    except (BrokenPipeError, ConnectionResetError):
        return False


def closed(link):
    link.setblocking(False)
    try:
        return link.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def resident_kib(node):
    status = pathlib.Path(f"/proc/{node.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


@test
def s2_1_thousands_that_are_idle_keep_nobody_waiting():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 4 * IDLE:
        raise Skip(f"{hard} descriptors are too few")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    node = Raftd()
    before = resident_kib(node)
    idle = [dial(node) for _ in range(IDLE)]
    for link in idle:
        check(served(link), "one of many")
    each = (resident_kib(node) - before) / IDLE
    print(f"# {each:.1f} KiB for each of {IDLE} connections")
    check(each < 64, f"each takes {each} KiB")
    busy = dial(node)
    for number in range(300):
        check(served(busy), f"request {number} beside them")
    equal(sum(closed(link) for link in idle), 0, "connections that were closed")
    for link in idle[::100]:
        link.setblocking(True)
        check(served(link), "one that was idle")


@test
def s2_1_who_lets_us_wait_makes_room_for_others():
    crowded = Raftd(start=False)
    crowded.prefix = ["prlimit", "--nofile=512:512"]  # room for 256
    crowded.start()
    slow = threading.Thread(target=lambda: answers.append(served_slowly(crowded)))
    answers = []
    slow.start()
    wait_for(lambda: json.loads(crowded.get("/debug/vars?key=http")[1])["http"]["queries"] >= 1, "the slow one is at work")
    silent = [dial(crowded) for _ in range(150)]
    drips = [dial(crowded, b"POST /db/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[") for _ in range(150)]
    heads = [dial(crowded, b"GET /status HTT") for _ in range(150)]
    for number in range(100):
        link = dial(crowded)
        check(served(link), f"newcomer {number}")
        link.close()
    wait_for(lambda: all(closed(link) for link in silent) and closed(drips[0]), "who has waited the longest has made room")
    equal(closed(heads[-1]), False, "who has come just now")
    slow.join()
    equal(answers, [True], "who was being answered")


def served_slowly(node):
    link = dial(node)
    link.settimeout(90)
    slow = "WITH+RECURSIVE+n(i)+AS+(SELECT+1+UNION+ALL+SELECT+i%2B1+FROM+n+WHERE+i<3000000)+SELECT+max(i)+FROM+n"
    link.sendall(f"GET /db/query?q={slow} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while piece := link.recv(65536):
        answer += piece
    return b"[[3000000]]" in answer


def threads(node):
    return len(list(pathlib.Path(f"/proc/{node.process.pid}/task").iterdir()))


@test
def s2_1_who_hangs_up_is_noticed():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    path = temporary("sockets")
    path.mkdir()
    node = Raftd(None, "-http-socket", str(path / "http.sock"))
    served(dial(node))

    def dial_socket(_, send):
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(60)
        link.connect(str(path / "http.sock"))
        link.sendall(send)
        return link

    idle = []
    for door in (dial, dial_socket, dial):  # at first they are polled, then waited for by epoll, edge triggered
        if door is dial_socket:
            idle = [dial(node) for _ in range(600)]
            check(all(served(link) for link in idle), "those who are idle")
        before = threads(node)
        node.pause()  # it meets the end together with what came before it
        for size in (0, 1, 1000, 50000):
            door(node, b"POST /db/load HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * size).close()
        half = door(node, ASK)
        half.shutdown(socket.SHUT_WR)
        node.go_on()
        wait_for(lambda: threads(node) <= before, "nobody waits for the rest of a body that will not come")
        answer = b""
        while piece := half.recv(65536):  # to its end, which comes before that of idle connections
            answer += piece
        check(ANSWER in answer, "the answer to who only listens")


@test
def s2_1_slow_uploads_and_downloads_leave_the_others_their_answers():
    node = Raftd()
    app = connect(node.path("db.sqlite"))
    app.execute("CREATE TABLE t(x)")
    app.execute("INSERT INTO t SELECT randomblob(16 << 20)")  # more than is under way to who does not read
    slow = [dial(node, b"POST /db/load HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\nx") for _ in range(60)]
    wait_for(lambda: json.loads(node.get("/debug/vars?key=http")[1])["http"]["loads"] >= 60, "the uploads have begun")
    for _ in range(4):
        slow.append(dial(node, b"GET /db/backup HTTP/1.1\r\nHost: x\r\n\r\n"))
        equal(slow[-1].recv(15), b"HTTP/1.1 200 OK", "a download begins")
    equal(node.get("/db/backup")[0], 503, "one more of these")
    equal(node.request("POST", "/db/load", b"x")[0], 503, "or of those")
    for path in ("/readyz", "/readyz?sync", "/status", "/leader", "/nodes", "/metrics", "/debug/vars", "/db", "/db/query?q=SELECT+1"):
        equal(node.get(path)[0], 200, path)
    execute = node.request("POST", "/db/execute", b'["INSERT INTO t VALUES(1)"]')
    check(execute[0] == 200 and "error" not in execute[1], execute)
    for link in slow:
        link.close()
    wait_for(lambda: node.request("POST", "/db/load", b"x")[0] != 503, "they have gone")


@test
def s2_1_targets_and_heads_have_limits():
    node = Raftd()
    long = "SELECT+1+" + "+" * 20000
    equal(node.get(f"/db/query?q={long}")[0], 200, "20 kB")
    equal(node.get(f"/db/query?q={long}{'+' * 5000}")[0], 414, "25 kB")
    equal(node.get(f"/db/query?q={long}{'+' * 50000}")[0], 414, "70 kB")
    equal(node.request("GET", "/readyz", headers={"X-Long": "x" * 20000})[0], 200, "a head of 20 kB")
    equal(node.request("GET", "/readyz", headers={"X-Long": "x" * 50000})[0], 431, "a head of 50 kB")
    equal(node.get("/db/query?q=SELECT+1&" + "&".join(f"a{i}" for i in range(31)))[0], 200, "32 parameters")
    equal(node.get("/db/query?q=SELECT+1&" + "&".join(f"a{i}" for i in range(32)))[0], 400, "33 parameters")


@test
def what_fetches_is_loaded_when_something_is_fetched():
    node = Raftd()

    def maps(of):
        return pathlib.Path(f"/proc/{of.process.pid}/maps").read_text()

    check("libcurl" not in maps(node), "libcurl takes memory of a node that fetches nothing")
    print(f"# {resident_kib(node)} KiB idle")
    joining = Raftd(None, "-join", f"http://{node.http}", "-node-id", "2")
    check("libcurl" in maps(joining), "and is there where -join names a URL")


if __name__ == "__main__":
    sys.exit(main())
