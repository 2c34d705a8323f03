"""Who may use the HTTP endpoints: -auth, and HTTPS with and without certificates of clients."""

import http.client
import json
import os
import signal
import ssl
import sys

from access import authority, certificate, login
from harness import Raftd, check, connect, equal, main, temporary, test, wait_for

USERS = [
    {"username": "bob", "password": "secret1", "perms": ["status"]},
    {"username": "ann", "password": "secret2", "perms": ["all"]},
    {"username": "*", "perms": ["ready"]},
]


def users(entries):
    path = temporary("users.json")
    path.write_text(json.dumps(entries))
    return path


@test
def s5_each_endpoint_wants_its_perm():
    path = users(USERS)
    raftd = Raftd(None, "-auth", str(path), "-http-allow-origin", "https://x")  # ready: /readyz is everybody's
    connect(raftd.path("db.sqlite")).execute("CREATE TABLE t(x)")
    for method, target in (("GET", "/status"), ("GET", "/nodes"), ("GET", "/leader"), ("DELETE", "/remove"), ("GET", "/db"),
                           ("DELETE", "/db?db=x"), ("GET", "/db/backup"), ("POST", "/status")):
        answer = raftd.raw(method, target)
        equal((answer.status, answer.text), (401, b""), target)
        equal(answer.headers["WWW-Authenticate"], 'Basic realm="rqlite"')
        equal(answer.headers["Access-Control-Allow-Headers"], "Content-Type, Authorization")
        equal(answer.headers["Access-Control-Allow-Origin"], "https://x")
        check(raftd.raw(method, target, headers=login("ann", "secret2")).status != 401, target)
        equal(raftd.raw(method, target, headers=login("ann", "secret1")).status, 401, target)
    equal(raftd.raw("GET", "/status", headers=login("bob", "secret1")).status, 200)
    equal(raftd.raw("GET", "/db/backup", headers=login("bob", "secret1")).status, 401)
    equal(raftd.raw("GET", "/readyz").headers["WWW-Authenticate"], 'Basic realm="rqlite"')
    equal(raftd.raw("OPTIONS", "/status").status, 200)
    equal(raftd.raw("GET", "/nowhere").status, 404)
    # The order of the checks: query, who, method.
    equal(raftd.raw("GET", "/status?timeout=x").status, 400)
    equal(raftd.raw("POST", "/status", headers=login("bob", "secret1")).status, 405)
    status = json.loads(raftd.raw("GET", "/status", headers=login("bob", "secret1")).text)
    equal(status["http"]["auth"], "enabled")
    # Another file counts without a restart.
    following = path.with_suffix(".new")
    following.write_text(json.dumps([*USERS[:2], {"username": "*", "perms": ["ready", "status"]}]))
    os.replace(following, path)
    equal(raftd.raw("GET", "/status").status, 200)


@test
def s5_a_file_that_is_no_list_of_users_is_said():
    path = temporary("users.json")
    path.write_text("[{")
    raftd = Raftd(None, "-auth", str(path), start=False).launch()
    equal(raftd.exit_code(), 1)
    check("failed to get credential store: " in raftd.log(), raftd.log())


BCRYPT = "$2b$10$KBCwKxOzLha2MUDgW0PjXe5iC0KgerkTIWLGUoONajjj98vdFiyt2"  # of "secret"


NO_FILE = b"SQLite format" + bytes(300000)


@test
def s5_hashed_passwords_are_passwords():
    path = users([{"username": "bob", "password": BCRYPT, "perms": ["status", "load", "snapshot"]},
                  {"username": "ann", "password": "plain", "perms": ["status"]}, {"username": "*", "perms": ["ready"]}])
    raftd = Raftd(None, "-auth", str(path))
    bob, wrong, hashed = login("bob", "secret"), login("bob", "Secret"), login("bob", BCRYPT)
    # Also with a body, which comes while the password is being looked at; on one connection, in any order.
    link = http.client.HTTPConnection(raftd.http, timeout=60)
    for method, target, headers, body, status in (
            ("GET", "/status", wrong, None, 401), ("GET", "/status", bob, None, 200), ("POST", "/db?db=a.db", bob, b"", 200),
            ("POST", "/db/load", wrong, NO_FILE, 401), ("POST", "/db/load", bob, NO_FILE, 400),
            ("GET", "/status", hashed, None, 401), ("GET", "/db/backup", bob, None, 401), ("GET", "/readyz", wrong, None, 200),
            ("DELETE", "/status", bob, None, 405), ("GET", "/status", login("ann", "plain"), None, 200),
            ("GET", "/status", login("ann", "wrong"), None, 401), ("GET", "/status", bob, None, 200)):
        link.request(method, target, body, headers)
        answer = link.getresponse()
        text = answer.read()
        equal(answer.status, status, f"{method} {target} {text[:100]}")
    # A first request with a body, before the pair is known.
    os.utime(path)
    equal(raftd.raw("POST", "/db/load", NO_FILE, bob).text, b"invalid SQLite data\n")
    counted = json.loads(raftd.raw("GET", "/debug/vars?key=http", headers=bob).text)["http"]
    equal(counted["auth_fail"], 5)


@test
def s5_hangup_has_the_file_read_again():
    path = users([{"username": "bob", "password": "one", "perms": ["status"]}, {"username": "*", "perms": ["ready"]}])
    raftd = Raftd(None, "-auth", str(path))
    before = os.stat(path)
    path.write_text(path.read_text().replace("one", "two"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # nothing shows that it has changed
    os.kill(raftd.process.pid, signal.SIGHUP)
    wait_for(lambda: raftd.raw("GET", "/status", headers=login("bob", "two")).status == 200, "it was read again")
    path.write_text("[")
    os.kill(raftd.process.pid, signal.SIGHUP)
    wait_for(lambda: "no good" in raftd.log(), "it is said")
    equal(raftd.raw("GET", "/status", headers=login("bob", "two")).status, 200)
    raftd.stop()


@test
def s5_who_joins_in_a_name_knows_its_password():
    path = users([{"username": "bob", "password": BCRYPT, "perms": ["join"]}])
    raftd = Raftd(None, "-auth", str(path), "-join", "127.0.0.1:1", "-join-as", "bob", start=False).launch()
    equal(raftd.exit_code(), 1)
    check("is a hash" in raftd.log(), raftd.log())


# --- HTTPS --------------------------------------------------------------------------------------------------------------


def fetch(raftd, ca, target="/status", client=None, version=None):
    """(status, body), or None if there is no connection; and the certificate that was shown."""
    context = ssl.create_default_context(cafile=ca[1])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if client is not None:
        context.load_cert_chain(client[1], client[0])
    link = http.client.HTTPSConnection(raftd.http, timeout=60, context=context)
    try:
        link.request("GET", target)
        answer = link.getresponse()
        return (answer.status, answer.read()), link.sock.getpeercert() if link.sock else None
    except (ssl.SSLError, ConnectionError) as error:
        print(error)
        return None, None
    finally:
        link.close()


def start(*flags):
    raftd = Raftd(None, *flags, start=False).launch()
    wait_for(lambda: "msg=\"ready\"" in raftd.log() or raftd.process.poll() is not None, "raftd is ready")
    check(raftd.process.poll() is None, raftd.log())
    return raftd


def name_of(shown):
    return dict(entry[0] for entry in shown["subject"])["commonName"]


@test
def s5_the_server_speaks_https_alone():
    ca = authority()
    key, cert = certificate(ca, "first")
    raftd = start("-http-cert", str(cert), "-http-key", str(key))
    (code, body), _ = fetch(raftd, ca)
    status = json.loads(body)
    equal((code, status["cluster"]["https"], status["http"]["tls"]["enabled"]), (200, "true", "true"))
    (code, body), _ = fetch(raftd, ca, "/nodes")  # waits on a thread of its own
    equal([n["api_addr"] for n in json.loads(body).values()], [f"https://{raftd.http}"])
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        equal(fetch(raftd, ca, version=version)[0][0], 200, version)
    connect(raftd.path("db.sqlite")).execute("CREATE TABLE t AS SELECT randomblob(3000000)")
    (code, body), _ = fetch(raftd, ca, "/db/backup")
    equal((code, body[:16]), (200, b"SQLite format 3\0"))
    check(len(body) > 3000000 and len(body) % 4096 == 0, len(body))
    check(fetch(raftd, authority("other"))[0] is None, "a client that does not know the authority")
    try:
        check(raftd.raw("GET", "/readyz").status != 200, "plain HTTP")
    except (ConnectionError, http.client.HTTPException):
        pass
    # A new certificate is shown without a restart.
    next_key, next_cert = certificate(ca, "second")
    os.replace(next_key, key)
    os.replace(next_cert, cert)
    equal(name_of(fetch_shown(raftd, ca)), "second")
    cert.write_text("nonsense")
    equal(name_of(fetch_shown(raftd, ca)), "second")


def fetch_shown(raftd, ca):
    context = ssl.create_default_context(cafile=ca[1])
    link = http.client.HTTPSConnection(raftd.http, timeout=60, context=context)
    link.connect()
    shown = link.sock.getpeercert()
    link.close()
    return shown


@test
def s5_clients_are_asked_for_certificates():
    ca, other = authority(), authority("other")
    key, cert = certificate(ca, "server")
    flags = ["-http-cert", str(cert), "-http-key", str(key), "-http-ca-cert", str(ca[1]), "-http-verify-client"]
    good, foreign = certificate(ca, "good", "clientAuth"), certificate(other, "good", "clientAuth")
    raftd = start(*flags)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        equal(fetch(raftd, ca, client=good, version=version)[0][0], 200)
        check(fetch(raftd, ca, version=version)[0] is None, "none")
        check(fetch(raftd, ca, client=foreign, version=version)[0] is None, "of another authority")
    raftd.kill()
    named = start(*flags, "-http-verify-common-name", "good")
    equal(fetch(named, ca, client=good)[0][0], 200)
    check(fetch(named, ca, client=certificate(ca, "good2", "clientAuth"))[0] is None, "of another name")


@test
def s1_2_flags_that_do_not_fit_together():
    def refused(text, *flags):
        raftd = Raftd(None, *flags, start=False).launch()
        equal(raftd.exit_code(), 1)
        check(text in raftd.log(), raftd.log())

    refused("fatal: either both -http-cert and -http-key must be set, or neither", "-http-cert", "x")
    refused("fatal: -http-verify-common-name requires -http-verify-client", "-http-verify-common-name", "x")
    refused("failed to start HTTP server: /nowhere/cert: ", "-http-cert", "/nowhere/cert", "-http-key", "/nowhere/key")
    ca = authority()
    key, cert = certificate(ca, "one")
    refused("failed to start HTTP server: ", "-http-cert", str(cert), "-http-key", str(ca[0]))


if __name__ == "__main__":
    sys.exit(main())
