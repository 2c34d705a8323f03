/* Hold: one connection keeps its snapshot and the turn over many transactions, and its commits are only queued.
 *
 * For group commit: SQLite goes on with the next transaction on top of what is not durable yet.  Only this connection sees it.
 * What was queued lies in layers before the snapshot, each the merged pages of one or more transactions in a row:
 *
 *   dirty pages of the transaction -> open layer -> closed layers, newest first -> snapshot = the newest applied version
 *
 * The oldest layer is what goes to the log next.  When it has been applied, the snapshot moves on and the layer goes (settle).
 * When it was refused, all layers go with it (discard): they were built on it.  Whoever holds the connection then resets its
 * schema, too: change counter and schema cookie of what was discarded are used again, by other content.  (SQLite's page cache
 * is reset here.)
 *
 * Threads: the connection's.  A closed layer is not changed, and may be read beside it until it is settled or discarded.
 * Between statements only: all but rq_hold_wanted, rq_hold_crowded, rq_hold_oldest. */
#ifndef VFS_HOLD_H
#define VFS_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/overlay.h"

/* File control of a connection whose sink has no commit: *(struct rq_hold **)arg. */
#define RQ_FCNTL_HOLD 0x52510001

/* A layer of several transactions has no more pages than this; a transaction with more is a layer by itself. */
#define RQ_LAYER_BYTES_MAX (4u << 20)
/* And no more transactions than a state machine remembers the origins of. */
#define RQ_LAYER_TXN_MAX 1024u

struct rq_hold;

struct rq_layer {
    struct rq_layer *newer, *older;
    struct rq_overlay pages; /* may have some past page_count, which do not count */
    uint32_t db_id;
    uint32_t page_size, page_count; /* of the database at version */
    uint64_t base, version;
    bool closed;
};

/* The newest version, and the turn.  SQLITE_OK or a code; SQLITE_BUSY when the turn could not be had within wait_us. */
int rq_hold_take(struct rq_hold *hold, uint64_t wait_us);

/* Gives both back.  Nothing is queued. */
void rq_hold_end(struct rq_hold *hold);

/* The next commit begins a new layer. */
void rq_hold_close(struct rq_hold *hold);

struct rq_layer *rq_hold_oldest(const struct rq_hold *hold); /* NULL: nothing is queued */

/* What the next transaction is made on. */
uint64_t rq_hold_version(const struct rq_hold *hold);

/* The oldest layer has been applied; the next one may have been, too, if it is closed.  SQLITE_OK, or a code: what is still queued is good for nothing, discard. */
int rq_hold_settle(struct rq_hold *hold);

/* Drops everything that is queued, and ends the hold. */
void rq_hold_discard(struct rq_hold *hold);

/* Around a time in which the connection reads nothing: raftd may empty the WAL under it meanwhile. */
void rq_hold_rest(struct rq_hold *hold);
void rq_hold_wake(struct rq_hold *hold);

/* A queued page could not be kept: nothing can be read, nothing that is not closed can be sent. */
bool rq_hold_broken(const struct rq_hold *hold);

bool rq_hold_wanted(const struct rq_hold *hold);  /* another connection waits for the turn, here or on another host */
bool rq_hold_crowded(const struct rq_hold *hold); /* the WAL is to be emptied, for which its readers have to leave it */

#endif
