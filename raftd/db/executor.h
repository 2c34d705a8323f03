/* Executor: raftd's own SQL connection to one database.  Requests run one after another, each as transactions of its own, on
 * top of what is not durable yet; the log gets them in groups.
 *
 *   queued -> run -> open group -> closed -> submitted (one at a time) -> applied: done(OK) for each of its requests
 *                                                                      -> refused: done() for each, and for all that ran on it
 *
 * While one group is in the log, the next ones run on top of it.  A group that fails takes the later ones with it; what they
 * did is dropped, and the executor goes on from the newest committed version.
 *
 * Nothing is told before it is true: neither rows nor errors of a request mean anything before done(), since they may come from
 * transactions that will not be.  No other connection sees anything of a group before it is applied.
 *
 * The executor has the database's turn, as any writer has to, from the first request on; it gives way it had it for 20 ms
 * and somebody waits, and when there is nothing to do.
 *
 * Threads: one of its own, which runs the SQL, or in its place, while it has nothing to do, one that brings a request.  The
 * connection is used by one of them at a time.  Queueing: any thread. */
#ifndef RAFTD_DB_EXECUTOR_H
#define RAFTD_DB_EXECUTOR_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"
#include "raftd/wire/txn.h"
#include "vfs/overlay.h"
#include "vfs/sink.h"

struct rq_executor;

/* --- requests ----------------------------------------------------------------------------------------------------------- */

#define RQ_SQL_TOO_LONG (-1) /* beside SQLITE_*: nothing of this run counts */

/* Embedded by who makes it; the executor borrows it from queue to done. */
struct rq_sql_request {
    struct rq_sql_request *next;
    bool transaction; /* run inside BEGIN IMMEDIATE and COMMIT; else each statement is a transaction by itself */

    /* On the thread that runs the SQL.  Anything SQL but the end of that transaction.  Returns SQLITE_OK or a code; for a
     * transaction a code means that it is rolled back.  What it leaves open is closed.  Statements that it prepares and keeps live
     * as long as the connection: until the executor is freed.  If it is carried and nothing of it is committed yet it may return
     * TOO_LONG: then it is run once more, on the executor's thread. */
    int (*run)(struct rq_sql_request *r, sqlite3 *db);

    /* Any thread; must not wait for anything.  OK: what run() and `code` say is so, and what was written is committed.
     * UNKNOWN: it may or may not be.  Any other: nothing of it has happened but what `kept` says. */
    void (*done)(struct rq_sql_request *r, enum rq_err outcome);

    int code;         /* what run(), or the COMMIT after it, returned */
    uint64_t version; /* of the database after it */
    uint64_t
        kept; /* of a request of several transactions: what it made up to this version is committed, whatever done()
                       * is told of the rest; 0: nothing */

    uint64_t base; /* the executor's: the version that it began on */
    bool carried;  /* the executor's: run() is on the thread that has brought it, which it is not to keep for long */
};

/* --- groups: towards the log -------------------------------------------------------------------------------------------- */

/* Several transactions merged into one.  The host's from submit until rq_group_settle(); any thread, one at a time. */
struct rq_group {
    struct rq_executor *executor; /* borrows */
    struct rq_txn_head head;
    uint64_t session, first_seq; /* origins: seq goes up by one with each version */
    struct rq_overlay *pages;    /* borrows: may have some past the end of the database, which do not count */
    struct rq_sql_request *first;
    uint32_t request_count;
    bool is_carried; /* the thread that submits it has nothing else to do: it may carry the group as far as it can */
};

/* Its pages in normal form, ascending; next gives NOTFOUND after the last, and a page is valid until the next call. */
enum rq_err rq_group_walk_init(struct rq_overlay_walk *walk, const struct rq_group *g);
enum rq_err rq_group_walk_next(struct rq_overlay_walk *walk, uint32_t *ret_pgno, const uint8_t **ret_page);

/* The page of the version head.base, in normal form; zeros for one past its end. */
typedef enum rq_err (*rq_base_page)(void *ctx, uint32_t pgno, uint8_t *page, uint32_t page_size);

/* The group as a transaction record, behind what out holds.  TOOBIG: it has to go as a staged body; such a group is a single
 * transaction.  On any error out is as it was. */
enum rq_err rq_group_record(const struct rq_group *g, rq_base_page base, void *ctx, struct rq_bytes *out);

/* OK: applied here, so that the next snapshot of this host shows it.  REFUSED: another entry was applied at its base.  UNKNOWN:
 * may be applied still.  Others: it never left this node.  Answers the requests, on this thread. */
void rq_group_settle(struct rq_group *g, enum rq_err outcome);

struct rq_executor_host {
    void *ctx;
    /* Takes the group to the log.  On the thread that runs the SQL, or for a group that is not large from inside
     * rq_group_settle() of the one before: must not wait for a disk then.  The next one comes when this one is settled. */
    void (*submit)(void *ctx, struct rq_group *g);
};

/* --- life --------------------------------------------------------------------------------------------------------------- */

struct rq_executor_config {
    const char *path; /* of the database file; copied.  Its control page is there. */
    struct rq_executor_host host;
    uint64_t busy_timeout_ms; /* so long a request waits for the turn of another writer; then BUSY.  0: 10 s */
    bool foreign_keys;
};

/* What the executors' connections need of raftd; the ctx of the VFS (struct rq_shim_config). */
struct rq_executor_door {
    void *ctx;
    /* The cluster's turn for that database is, or is wanted, elsewhere: rq_database_turn_look().  Any thread; must not wait. */
    void (*look)(void *ctx, uint32_t db_id);
};

/* Of each connection that raftd itself opens with the VFS "rqvfs" (struct rq_shim_config): commits only under a hold.
 * ctx: a struct rq_executor_door, borrowed for ever; NULL: this host is alone for ever. */
struct rq_sink *rq_executor_sink_new(void *ctx, const char *path, const char *raftd_socket, unsigned timeout_ms);
/* Registers that VFS for this process, on the real disk; before the first connection. */
enum rq_err rq_executor_register(const struct rq_executor_door *door);

enum rq_err rq_executor_new(const struct rq_executor_config *config, struct rq_executor **ret_executor);

/* Finishes what is queued, as far as the host settles groups.  Nothing is queued any more. */
void rq_executor_free(struct rq_executor *x);

/* Any thread, also from done().  Takes the request until its done().  x is not freed before this has returned. */
void rq_executor_queue(struct rq_executor *x, struct rq_sql_request *r);
/* The same.  If x has nothing else to do, and had not lately, the calling thread runs it and takes it to the log, as far as it
 * comes, which wakes nobody: done() may have been called on return.  Not from done(), nor in a task of a strand. */
void rq_executor_carry(struct rq_executor *x, struct rq_sql_request *r);

#endif
