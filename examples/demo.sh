#!/bin/sh
# demo.sh [BUILDDIR]: the product in a minute.  Prints each command before its output; waits for conditions, never for time.
# Works in a new directory under /tmp and leaves nothing behind.
set -eu
build=$(cd "${1:-build}" && pwd -P)
examples=$(cd "$(dirname "$0")" && pwd -P)
raftd=$build/raftd/raftd
extension=$build/ext/librqvfs
place=$(mktemp -d "${TMPDIR:-/tmp}/rqvfs-demo.XXXXXX")
pid_1= pid_2= pid_3= writer_pid=

cleanup() {
    for pid in $writer_pid $pid_1 $pid_2 $pid_3; do kill -9 "$pid" 2>/dev/null || true; done
    rm -rf "$place"
}
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
    for log in "$place"/log*; do
        [ ! -f "$log" ] || { echo "--- $log" && tail -n 20 "$log"; } >&2
    done
    exit 1
}
wait_until() { # what, command: asks until it succeeds, for 30 seconds
    what=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "waited in vain until $what"
        sleep 0.05
    done
}

# Six ports that nobody has, and that no connection is given by chance while a node is down.
python3 >"$place/ports" <<'PYTHON'
import random, socket
taken = []
while len(taken) < 6:
    probe = socket.socket()
    try:
        probe.bind(("127.0.0.1", random.randrange(10000, 30000)))
        taken.append(probe)
    except OSError:
        pass
print(*(probe.getsockname()[1] for probe in taken))
PYTHON
read -r http_1 http_2 http_3 raft_1 raft_2 raft_3 <"$place/ports"

# What belongs to node N: pid_N and so on.
of() { eval "echo \"\$$1_$2\""; }
directory() { echo "$place/node$1"; }
replica() { echo "$place/node$1/app.db"; }
is_ready() { curl -sf "http://127.0.0.1:$(of http "$1")/readyz"; }
leads() { [ "$(curl -s "http://127.0.0.1:$(of http "$1")/status?key=store.raft.state")" = '"Leader"' ]; }
start() { # N, further flags
    number=$1
    shift
    set -- -node-id "$number" -http-addr "127.0.0.1:$(of http "$number")" -raft-addr "127.0.0.1:$(of raft "$number")" "$@" \
        "$(directory "$number")"
    printf '%s$ raftd %s &%s\n' "$dim" "$*" "$plain"
    "$raftd" "$@" >>"$place/log$number" 2>&1 &
    eval "pid_$number=$!"
    wait_until "node $number is ready" is_ready "$number"
}
leader() { # which node leads; empty: none
    for number in 1 2 3; do
        if leads "$number"; then
            echo "$number"
            return
        fi
    done
}
there_is_a_leader() { [ -n "$(leader)" ]; }
end_hard() { # kill -9 of node N
    pid=$(of pid "$1")
    show kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
}
ours() { # N, SQL: through rqvfs, in the stock shell, on node N
    printf "%s\$ sqlite3\nsqlite> .load %s\nsqlite> .open 'file:%s?vfs=rqvfs'\n%s%s\n" "$dim" "$extension" "$(replica "$1")" \
        "$(echo "$2" | sed 's/^/sqlite> /')" "$plain"
    printf ".bail on\n.load %s\n.open 'file:%s?vfs=rqvfs'\n.timeout 10000\n%s\n" "$extension" "$(replica "$1")" "$2" | sqlite3 -batch
}
holds() { [ "$(sqlite3 "$(replica "$1")" "$2")" = "$3" ]; } # the answer of node N's file to the SQL

title "1. A daemon serves every database in a directory"
start 1
show curl -s "http://127.0.0.1:$http_1/readyz"
echo

title "2. An application: the stock sqlite3 shell; only the connection string is new"
ours 1 "CREATE TABLE t(x, at DEFAULT CURRENT_TIMESTAMP);
INSERT INTO t(x) VALUES(random());
SELECT * FROM t;"

title "3. The replica is an ordinary SQLite file: any tool reads it, without us"
show sqlite3 "$(replica 1)" 'SELECT * FROM t'
show sqlite3 "$(replica 1)" 'PRAGMA integrity_check'

title "4. ... but only raftd writes it"
if show sqlite3 "$(replica 1)" 'INSERT INTO t(x) VALUES(1)' 2>&1; then fail "a stock tool could write"; fi

title "5. The same from a program"
show python3 "$examples/visits.py" "$(replica 1)" "$extension"

title "6. Two more hosts (here: two more directories): from now on a COMMIT is durable on a majority of three"
start 2 -join "127.0.0.1:$raft_1"
start 3 -join "127.0.0.1:$raft_1"

title "7. Applications on every host write to the same database"
for number in 2 3; do
    wait_until "node $number has what node 1 has" holds "$number" 'SELECT count(*) FROM t' $((number - 1))
    ours "$number" "INSERT INTO t(x) VALUES(random());"
done
wait_until "node 1 has what the others wrote" holds 1 'SELECT count(*) FROM t' 3
for number in 1 2 3; do
    wait_until "node $number has three rows" holds "$number" 'SELECT count(*) FROM t' 3
    show sqlite3 "$(replica "$number")" 'SELECT * FROM t'
done

title "8. kill -9 of the leader, and of the writer's own raftd, under a writer that never retries"
cat >"$place/writer.py" <<'PYTHON'
import sqlite3, sys
database, extension, acknowledged = sys.argv[1:]
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(extension)
connection = sqlite3.connect(f"file:{database}?vfs=rqvfs&timeout=30000", uri=True, isolation_level=None, timeout=30)
connection.execute("CREATE TABLE numbers(n)")
with open(acknowledged, "w") as file:
    for n in range(600):
        connection.execute("INSERT INTO numbers VALUES(?)", (n,))
        print(n, file=file, flush=True)
PYTHON
echo "(it runs on host 2)"
: >"$place/acknowledged"
python3 "$place/writer.py" "$(replica 2)" "$extension" "$place/acknowledged" &
writer_pid=$!
acknowledged() { [ "$(wc -l <"$place/acknowledged")" -ge "$1" ]; }

wait_until "100 commits are acknowledged" acknowledged 100
wait_until "a node leads" there_is_a_leader
first=$(leader)
echo "node $first leads"
end_hard "$first"
wait_until "250 commits are acknowledged" acknowledged 250
wait_until "a node leads" there_is_a_leader
echo "node $(leader) leads now, and the writer has gone on: $(wc -l <"$place/acknowledged") commits are acknowledged"
start "$first"
wait_until "400 commits are acknowledged" acknowledged 400
echo "the writer's own raftd:"
end_hard 2
start 2
wait "$writer_pid" || fail "the writer saw an error"
writer_pid=

echo "acknowledged: $(wc -l <"$place/acknowledged") commits; every one of them is there, once, on every host:"
for number in 1 2 3; do
    wait_until "node $number has caught up" holds "$number" 'SELECT count(*), count(DISTINCT n) FROM numbers' '600|600'
    show sqlite3 "$(replica "$number")" 'SELECT count(*), count(DISTINCT n), max(n) FROM numbers'
done

title "9. What a node says of itself"
show curl -s "http://127.0.0.1:$http_3/status?pretty"
echo
ours 3 "SELECT * FROM rqvfs_status;"

title "That was it"
echo "Everything above ran in $place, which is gone now.  To go on by yourself:"
echo "    $raftd ~/node &"
echo "    sqlite3 -cmd '.load $extension' -cmd \".open 'file:\$HOME/node/app.db?vfs=rqvfs'\""
