#!/bin/sh
# run.sh PROGRAM BUILDDIR [ARG ...]: runs stress, twin or bench with the daemon and the extension of a build directory, in a new
# directory under /var/tmp: on a disk, where a sync is a sync (RQ_DIR names another place).
# RQ_SECONDS says how long stress runs, RQ_SEEDS (1-1000) which scripts twin plays; both override the arguments.
set -eu
program=$1
build=$2
shift 2
case ${program##*/} in
stress) [ -z "${RQ_SECONDS:-}" ] || set -- "$@" --seconds "$RQ_SECONDS" ;;
twin) [ -z "${RQ_SEEDS:-}" ] || set -- "$@" --seeds "$RQ_SEEDS" ;;
esac
dir=$(mktemp -d "${RQ_DIR:-/var/tmp}/rqvfs.XXXXXX")
trap 'rm -rf "$dir" "$dir.log"' EXIT
trap 'exit 130' INT TERM
code=0
"$program" --raftd "$build/raftd/raftd" --ext "$build/ext/librqvfs.so" --dir "$dir" "$@" || code=$?
if [ $code != 0 ]; then
    for log in "$dir.log" "$dir/raftd.log"; do
        [ ! -f "$log" ] || tail -n 100 "$log" | sed 's/^/# /'
    done
fi
exit $code
