/* Shim: the VFS "rqvfs".  Shows SQLite a rollback-journal database while the file on disk is in WAL mode, collects what a
 * transaction writes in an overlay, and hands it to a sink at COMMIT.  The traps are in the comments of shim.c.
 *
 * Compiled twice: into the extension (sqlite3ext.h) and into raftd and the tests (linked to libsqlite3).
 * We are a guest: no thread, no abort, no output; an error is a code and a line to sqlite3_log(). */
#ifndef VFS_SHIM_H
#define VFS_SHIM_H

#include <stdbool.h>

#include "vfs/disk.h"
#include "vfs/sink.h"

/* Extended result codes of our own (also docs/protocol.md). */
#define RQVFS_BUSY_AWAY           (5 | (81 << 8))  /* SQLITE_BUSY: raftd away or no leader; nothing has happened */
#define RQVFS_BUSY_CONSISTENCY    (5 | (82 << 8))  /* SQLITE_BUSY: the asked consistency cannot be kept now */
#define RQVFS_IOERR_UNKNOWN       (10 | (81 << 8)) /* SQLITE_IOERR: COMMIT may or may not have happened */
#define RQVFS_CORRUPT_QUARANTINED (11 | (81 << 8)) /* SQLITE_CORRUPT: the database is quarantined on this host */
#define RQVFS_READONLY_SECOND \
    (8 | (81 << 8)) /* SQLITE_READONLY: the transaction writes another replicated database already */

/* File control: *(char **)arg, for sqlite3_free(): why the last read transaction was RQVFS_BUSY_CONSISTENCY; empty: it was not. */
#define RQ_FCNTL_READ_REFUSED 0x52510002
/* File control of a connection without a transaction: arg, a struct rq_sink * that has a commit, takes the place of its sink.  The
 * connection has the new one then, and cannot hold any more. */
#define RQ_FCNTL_SINK 0x52510003
/* File control: *(int *)arg: does this connection's write transaction stand in somebody's way?  Another one waits for its turn, here or
 * on another host, or was given it already. */
#define RQ_FCNTL_IN_THE_WAY 0x52510004

struct rq_shim_config {
    struct rq_disk *disk; /* borrows, for ever */
    /* Makes the sink of one connection to the database file at path; NULL without memory.  raftd_socket: of the URI or the
     * environment, else NULL: raftd.sock beside the database. */
    struct rq_sink *(*sink_new)(void *ctx, const char *path, const char *raftd_socket, unsigned timeout_ms);
    void *ctx;
    bool make_default; /* files outside served directories then go straight to the previous default */
    size_t memory_max; /* of one transaction's overlay, and of its journal; default 16 MiB each */
};

/* Registers, or registers again after sqlite3_shutdown().  Returns SQLITE_OK or an SQLite code. */
int rq_shim_register(const struct rq_shim_config *config);

#endif
