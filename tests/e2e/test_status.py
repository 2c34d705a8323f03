"""What a node says of itself over HTTP: /status, /debug/vars, /metrics, snapshots on demand.  A test's name begins with the section
of rqlite's surface that it covers."""

import json
import re
import sys

from cluster import Cluster
from harness import Raftd, check, connect, equal, main, test, wait_for


def variables(node, section):
    code, body = node.get(f"/debug/vars?key={section}")
    equal(code, 200, "/debug/vars")
    return json.loads(body)[section]


def write(node, count=1, name="app.db"):
    connection = connect(node.path(name))
    connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
    for i in range(count):
        connection.execute("INSERT INTO t VALUES(?)", (i,))
    connection.close()


@test
def s10_1_s14_2_status_has_the_keys_that_clients_read():
    node = Raftd(None, "-node-id", "1", "-raft-snap", "4", "-raft-snap-int", "100ms")
    write(node, 8, "db.sqlite")
    wait_for(lambda: node.status()["store"]["snapshot_store"]["snapshots"], "there is a snapshot")
    status = node.status()
    for key in ("build.version", "cluster.addr", "cluster.api_addr", "cluster.https", "extensions.names", "http.auth",
                "http.bind_addr", "http.tls.enabled", "mux.tls", "network.interfaces", "node.current_time", "node.start_time",
                "node.uptime", "os.executable", "os.hostname", "os.page_size", "os.pid", "os.ppid", "runtime.GOARCH",
                "runtime.GOOS", "runtime.GOMAXPROCS", "runtime.kubernetes_hint", "runtime.num_cpu", "runtime.version",
                "store.addr", "store.db_applied_index", "store.db_conf.fk_constraints", "store.dir", "store.dir_size",
                "store.dir_size_friendly", "store.election_timeout", "store.fsm_index", "store.fsm_term",
                "store.heartbeat_timeout", "store.leader.addr", "store.leader.node_id", "store.node_id", "store.nodes",
                "store.open", "store.raft.applied_index", "store.raft.commit_index", "store.raft.fsm_pending",
                "store.raft.last_contact", "store.raft.last_log_index", "store.raft.last_snapshot_index",
                "store.raft.last_snapshot_term", "store.raft.log_size", "store.raft.log_size_friendly", "store.raft.num_peers",
                "store.raft.state", "store.raft.term", "store.raft.voter", "store.ready", "store.reap_timeout",
                "store.reap_read_only_timeout", "store.snapshot_interval", "store.snapshot_threshold",
                "store.snapshot_store.dir", "store.snapshot_store.dir_size", "store.sqlite3.compile_options",
                "store.sqlite3.db_size", "store.sqlite3.db_size_friendly", "store.sqlite3.path", "store.sqlite3.version"):
        at = status
        for part in key.split("."):
            check(part in at, f"{key} is missing")
            at = at[part]
        if not isinstance(at, (dict, list)):
            equal(node.get(f"/status?key={key}")[0], 200, key)
    raft, store = status["store"]["raft"], status["store"]
    check(0 < raft["last_snapshot_index"] <= raft["applied_index"] <= raft["commit_index"] <= raft["last_log_index"], raft)
    check(re.fullmatch(r"\d+(\.\d)? [kMGTPE]?B", store["dir_size_friendly"]), store["dir_size_friendly"])
    equal(store["sqlite3"]["path"], str(node.path("db.sqlite").resolve()))
    equal(store["sqlite3"]["pragmas"]["rw"],
          {"busy_timeout": "5000", "foreign_keys": "0", "journal_mode": "wal", "synchronous": "0", "wal_autocheckpoint": "0"})
    equal(store["sqlite3"]["pragmas"]["ro"]["wal_autocheckpoint"], "1000")
    interfaces = status["network"]["interfaces"]
    check({"address": "127.0.0.1/8"} in interfaces["lo"]["addresses"], interfaces)
    equal(interfaces["lo"]["hardware_address"], "", "of the loopback")
    equal(list(interfaces), sorted(interfaces), "keys are in order")
    keyed = Raftd(None, "-fk").status()["store"]
    check(keyed["db_conf"]["fk_constraints"] is True and store["db_conf"]["fk_constraints"] is False, "-fk is to be seen")
    equal([keyed["sqlite3"]["pragmas"][kind]["foreign_keys"] for kind in ("ro", "rw")], ["1", "1"], "-fk is to be seen")
    equal(node.get("/status?key=store.nope.at.all"), (200, "{}"))
    equal(node.get("/status?key=store.raft.state.more"), (200, '"Leader"'))


@test
def s2_6_s14_2_post_snapshot_makes_one_and_204_when_there_is_nothing_new():
    node = Raftd(None, "-node-id", "1")
    write(node)
    equal(node.status()["store"]["snapshot_store"]["snapshots"], [])
    equal(node.request("POST", "/snapshot?trailing_logs=0", b""), (200, ""))
    first = node.status()["store"]
    equal(len(first["snapshot_store"]["snapshots"]), 1)
    equal(first["raft"]["last_snapshot_index"], first["raft"]["applied_index"])
    equal(node.request("POST", "/snapshot", b"")[0], 204)
    write(node)
    equal(node.request("POST", "/snapshot", b"")[0], 200)
    check(node.status()["store"]["raft"]["last_snapshot_index"] > first["raft"]["last_snapshot_index"], "the same one")
    equal(node.request("POST", "/snapshot?trailing_logs=x", b"")[0], 400)
    equal(node.get("/snapshot")[0], 405)
    equal((variables(node, "http")["user_snapshots"], variables(node, "store")["num_user_snapshots"]), (3, 2))
    check(variables(node, "store")["num_snapshots"] >= 2, "num_snapshots")
    node.kill()
    node.start()
    equal([variables(node, "store")[key] for key in ("num_restores_start_skipped", "num_restores_start")], [1, 0])
    equal(len(node.status()["store"]["snapshot_store"]["snapshots"]), 1)


@test
def s2_6_s14_2_post_reap_says_that_there_was_nothing():
    node = Raftd(None, "-node-id", "1")
    equal(node.request("POST", "/reap", b""), (200, '{"snapshots_reaped":0,"wals_checkpointed":0}\n'))
    equal(variables(node, "http")["user_reaps"], 1)
    equal(node.get("/reap")[0], 405)


@test
def s2_6_debug_vars_has_all_sections_or_one():
    node = Raftd(None, "-node-id", "1")
    answer = node.raw("GET", "/debug/vars")
    equal((answer.status, answer.headers["Content-Type"]), (200, "application/json; charset=utf-8"))
    check(answer.text.startswith(b"{\n\"cmdline\": [") and answer.text.endswith(b"}\n}\n"), answer.text)
    found = json.loads(answer.text)
    check({"cluster", "cmdline", "db", "http", "memstats", "snapshot", "store"} <= set(found), list(found))
    check("-node-id" in found["cmdline"] and found["memstats"]["Sys"] > 1 << 20, found)
    equal(list(json.loads(node.get("/debug/vars?key=http")[1])), ["http"])
    equal(node.get("/debug/vars?key=nothing"), (200, "{\n\n}\n"))
    equal(node.request("POST", "/debug/vars", b"")[0], 200)
    equal(node.get("/debug/vars/more")[0], 404)
    before = variables(node, "http")["num_status"]
    node.status()
    equal(variables(node, "http")["num_status"], before + 1)


@test
def s1_1_the_leader_vacuums_and_optimizes():
    node = Raftd(None, "-auto-vacuum-int", "200ms", "-auto-optimize-int", "200ms")

    def ask(method, path, body=None):
        return json.loads(node.request(method, path, body)[1])["results"]

    def read(sql):
        return ask("GET", "/db/query?q=" + sql.replace(" ", "+"))[0]["values"]

    ask("POST", "/db/execute", b'["CREATE TABLE t(x)", "CREATE INDEX i ON t(x)"]')
    ask("POST", "/db/execute", b'["INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT zeroblob(500) || i FROM n"]')
    wait_for(lambda: read("SELECT count(*) FROM sqlite_master WHERE name='sqlite_stat1'") == [[1]], "there are statistics")
    ask("POST", "/db/execute", b'["DELETE FROM t WHERE rowid > 10"]')
    wait_for(lambda: read("PRAGMA freelist_count") == [[0]] and read("PRAGMA page_count")[0][0] < 50, "the free pages are gone")
    equal(read("SELECT count(*) FROM t"), [[10]], "rows")
    store = variables(node, "store")
    check(store["num_auto_vacuums"] > 0 and store["num_auto_optimizes"] > 0, store)
    vacuum = node.status()["store"]["auto_vacuum"]
    check("2020" < vacuum["last_vacuum"] <= vacuum["next_vacuum_after"], vacuum)
    check("auto_vacuum" not in Raftd().status()["store"], "without the flag there is none")


@test
def s2_7_licenses_are_told_as_text():
    node = Raftd(None, "-node-id", "1")
    answer = node.raw("GET", "/licenses")
    equal((answer.status, answer.headers["Content-Type"]), (200, "text/plain; charset=utf-8"))
    check(b"MIT License" in answer.text and b"SQLite" in answer.text, answer.text)


@test
def s2_7_the_console_is_a_page():
    node = Raftd(None, "-node-id", "1")
    for path, status in (("/", 302), ("/console", 301)):
        answer = node.raw("GET", path)
        equal((answer.status, answer.headers["Location"]), (status, "/console/"), path)
    answer = node.raw("GET", "/console/")
    equal((answer.status, answer.headers["Content-Type"]), (200, "text/html; charset=utf-8"))
    check(answer.text.startswith(b"<!DOCTYPE html>") and answer.text.endswith(b"</script>\n"), answer.text[-40:])
    equal(node.raw("HEAD", "/console/").status, 200)
    equal((node.get("/console/x")[0], node.request("POST", "/console/", b"")[0], node.request("POST", "/", b"")[0]), (404, 405, 405))
    equal(variables(node, "http")["ui"], 2)


@test
def s2_1_answers_have_the_headers_of_rqlite():
    node = Raftd(None, "-node-id", "1", "-http-allow-origin", "http://example.com")
    for path, status in (("/status", 200), ("/nowhere", 404), ("/readyz?timeout=x", 400)):
        answer = node.raw("GET", path)
        equal((answer.status, answer.headers["X-Rqlite-Version"]), (status, "0.1.0"), path)
        equal(answer.headers["Access-Control-Allow-Methods"], "OPTIONS, GET, POST")
        equal(answer.headers["Access-Control-Allow-Headers"], "Content-Type")
        equal(answer.headers["Access-Control-Allow-Origin"], "http://example.com")
        equal(answer.headers["WWW-Authenticate"], None)
        equal(answer.headers["X-Content-Type-Options"], "nosniff" if status == 400 else None)
    equal(node.raw("GET", "/nowhere").text, b"")
    equal((node.raw("PUT", "/status").status, node.raw("PUT", "/status").text), (405, b""))
    equal((node.raw("OPTIONS", "/nowhere?timeout=x").status, node.raw("OPTIONS", "/status").text), (200, b""))
    answer = node.raw("HEAD", "/status")
    equal((answer.status, answer.text), (200, b""))


@test
def s14_1_s14_4_joins_are_counted_as_rqlite_counts_them():
    both = Cluster(1)
    first = both.nodes[0]
    second = both.add(2, "-join", first.raft, "-raft-non-voter")
    second.start()
    check(variables(first, "cluster")["num_join_req"] >= 1, "it has asked")
    before = variables(first, "store")["num_ignored_joins"]
    second.kill()
    second.start()
    wait_for(lambda: variables(first, "store")["num_ignored_joins"] > before, "the second time nothing changes")
    check(variables(first, "cluster")["num_join_req"] >= 2, "it has asked again")
    moved = variables(first, "store")["num_removed_before_joins"]
    second.kill()
    second.move(both.host(9))
    second.start()
    wait_for(lambda: variables(first, "store")["num_removed_before_joins"] > moved, "its addresses are others")


def samples(node):
    code, body = node.get("/metrics")
    equal(code, 200, "/metrics")
    found = {}
    for line in body.splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r'([a-z_]+(?:\{[^}]*\})?) (\S+)', line)
            check(match, f"not a sample: {line}")
            check(match[1] not in found, f"twice: {match[1]}")
            found[match[1]] = float(match[2])
    return found


@test
def metrics_tell_of_every_stage_of_a_commit():
    node = Raftd(None, "-node-id", "1")
    write(node, 20, 'a "quoted\\" name.db')
    stages = ("queue", "diff", "log_write", "sync", "replicate", "apply", "answer")

    def counted():  # the last one a moment after its answer
        found = samples(node)
        return found if all(found[f'raftd_commit_stage_seconds_count{{stage="{stage}"}}'] >= 20 for stage in stages) else None

    found = wait_for(counted, "each commit is counted at each stage")
    for stage in stages:
        count = found[f'raftd_commit_stage_seconds_count{{stage="{stage}"}}']
        equal(found[f'raftd_commit_stage_seconds_bucket{{stage="{stage}",le="+Inf"}}'], count, stage)
        check(0 < found[f'raftd_commit_stage_seconds_sum{{stage="{stage}"}}'] < 60, stage)
        bounds = [v for k, v in found.items() if k.startswith(f'raftd_commit_stage_seconds_bucket{{stage="{stage}"')]
        equal(bounds, sorted(bounds), stage)
    equal((found["raftd_raft_leader"], found["raftd_ready"]), (1, 1))
    equal(found['raftd_database_version{db="a \\"quoted\\\\\\" name.db"}'], 21)
    check(found["raftd_db_applied_total"] >= 21 and found["raftd_resident_memory_bytes"] > 1 << 20, found)
    equal(node.raw("GET", "/metrics").headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")


if __name__ == "__main__":
    sys.exit(main())
