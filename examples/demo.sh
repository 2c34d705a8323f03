#!/bin/sh
# demo.sh [BUILDDIR]: the product in a minute.  Prints each command before its output; waits for conditions, never for time.
# Works in a new directory under /tmp and leaves nothing behind.
set -eu
build=$(cd "${1:-build}" && pwd -P)
examples=$(cd "$(dirname "$0")" && pwd -P)
raftd=$build/raftd/raftd
extension=$build/ext/librqvfs
place=$(mktemp -d "${TMPDIR:-/tmp}/rqvfs-demo.XXXXXX")
node=$place/node
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=$(free_port) raft_port=$(free_port)
database=$node/app.db
raftd_pid=
writer_pid=

cleanup() {
    for pid in $writer_pid $raftd_pid; do kill -9 "$pid" 2>/dev/null || true; done
    rm -rf "$place"
}
mkdir "$node"
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$(printf '\033[1m') dim=$(printf '\033[2m') plain=$(printf '\033[0m'); else bold= dim= plain=; fi
title() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
show() { # prints a command as one would type it, then runs it
    printf '%s$' "$dim"
    for word; do
        case $word in
        *[!A-Za-z0-9_./:=-]*) printf " '%s'" "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '%s\n' "$plain"
    "$@"
}
fail() {
    echo "demo: $1" >&2
    [ ! -f "$place/log" ] || tail -n 20 "$place/log" >&2
    exit 1
}
wait_until() { # what, command: asks until it succeeds, for 20 seconds
    what=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 400 ] || fail "waited in vain until $what"
        sleep 0.05
    done
}
start_raftd() {
    printf '%s$ raftd -http-addr 127.0.0.1:%s -raft-addr 127.0.0.1:%s %s &%s\n' "$dim" "$port" "$raft_port" "$node" "$plain"
    "$raftd" -http-addr "127.0.0.1:$port" -raft-addr "127.0.0.1:$raft_port" "$node" >>"$place/log" 2>&1 &
    raftd_pid=$!
    wait_until "raftd is ready" curl -sf "http://127.0.0.1:$port/readyz"
}
ours() { # SQL through rqvfs, in the stock shell
    printf "%s\$ sqlite3\nsqlite> .load %s\nsqlite> .open 'file:%s?vfs=rqvfs'\n%s%s\n" "$dim" "$extension" "$database" \
        "$(echo "$1" | sed 's/^/sqlite> /')" "$plain"
    printf ".bail on\n.load %s\n.open 'file:%s?vfs=rqvfs'\n.timeout 5000\n%s\n" "$extension" "$database" "$1" | sqlite3 -batch
}

title "1. A daemon serves every database in a directory"
start_raftd
show curl -s "http://127.0.0.1:$port/readyz"
echo

title "2. An application: the stock sqlite3 shell; only the connection string is new"
ours "CREATE TABLE t(x, at DEFAULT CURRENT_TIMESTAMP);
INSERT INTO t(x) VALUES(random());
SELECT * FROM t;"

title "3. The replica is an ordinary SQLite file: any tool reads it, without us"
show sqlite3 "$database" 'SELECT * FROM t'
show sqlite3 "$database" 'PRAGMA integrity_check'

title "4. ... but only raftd writes it"
if show sqlite3 "$database" 'INSERT INTO t(x) VALUES(1)' 2>&1; then fail "a stock tool could write"; fi

title "5. The same from a program"
show python3 "$examples/visits.py" "$database" "$extension"

title "6. kill -9 of raftd under a writer that never retries: every COMMIT that returned is there, once"
cat >"$place/writer.py" <<'PYTHON'
import os, sqlite3, sys
database, extension, acknowledged = sys.argv[1:]
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(extension)
connection = sqlite3.connect(f"file:{database}?vfs=rqvfs", uri=True, isolation_level=None, timeout=20)
connection.execute("CREATE TABLE numbers(n)")
with open(acknowledged, "w") as file:
    for n in range(600):
        connection.execute("INSERT INTO numbers VALUES(?)", (n,))
        print(n, file=file, flush=True)
PYTHON
python3 "$place/writer.py" "$database" "$extension" "$place/acknowledged" &
writer_pid=$!
acknowledged() { [ "$(wc -l <"$place/acknowledged")" -ge "$1" ]; }
for commits in 150 300 450; do
    wait_until "$commits commits are acknowledged" acknowledged "$commits"
    show kill -9 "$raftd_pid"
    wait "$raftd_pid" 2>/dev/null || true
    start_raftd
done
wait "$writer_pid" || fail "the writer saw an error"
writer_pid=
echo "acknowledged: $(wc -l <"$place/acknowledged") commits"
show sqlite3 "$database" 'SELECT count(*), count(DISTINCT n), max(n) FROM numbers'
[ "$(sqlite3 "$database" 'SELECT count(*), count(DISTINCT n) FROM numbers')" = "600|600" ] || fail "a commit was lost or doubled"

title "7. What the node says of itself"
show curl -s "http://127.0.0.1:$port/status?pretty"
echo
ours "SELECT * FROM rqvfs_status;"

title "That was it"
echo "Everything above ran in $node, which is gone now.  To go on by yourself:"
echo "    $raftd ~/node &"
echo "    sqlite3 -cmd '.load $extension' -cmd \".open 'file:\$HOME/node/app.db?vfs=rqvfs'\""
