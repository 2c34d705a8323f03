/* Carrier: how a database's staged bodies get to other nodes, and from them.  The cluster implements it (raftd/cluster/bodies.h).
 *
 * Any thread; nothing here waits. */
#ifndef RAFTD_DB_CARRIER_H
#define RAFTD_DB_CARRIER_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/node/member.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

/* What a majority of voters has told stays true for much longer than this; who has not proposed the entry by then brings the body
 * again, which costs a question where it is there already. */
#define RQ_CARRY_FRESH_MS 60000u

struct rq_carriage; /* of one body to the voters */

enum rq_carriage_state {
    RQ_CARRIAGE_WAITS, /* too few voters can be reached: as without a leader */
    RQ_CARRIAGE_MOVES,
    RQ_CARRIAGE_DONE, /* a majority of the voters in force, with this one, has it durably */
    RQ_CARRIAGE_FULL, /* waits, and a voter that is needed has no space */
    RQ_CARRIAGE_PAST, /* the voters are others than those that it is brought to: to be brought again */
};

struct rq_carrier {
    void *ctx;
    /* This node is the only voter, and the only member: there is nobody to bring to, or to fetch from. */
    bool (*is_alone)(void *ctx);
    /* Brings it to all voters at once, again and again to those that cannot be reached.  file: where it is read, also while it is
     * being synced here (taken, also on error); NULL: it has its name.  done comes once when a majority has it, from within or on
     * another thread, unless it is left before; it may do no more than post a task to be handed over.  NOMEM. */
    enum rq_err (*bring)(void *ctx, const struct rq_entry_staged *entry, struct rq_file *file, void (*done)(void *ctx),
                         void *done_ctx, struct rq_carriage **ret_carriage);
    /* Fetches it until it is there: OK; or NOTFOUND: all other members, or with this one a majority of the voters, have said that it
     * is not there.  done comes once, on another thread. */
    void (*fetch)(void *ctx, const struct rq_entry_staged *entry, void (*done)(void *ctx, enum rq_err err),
                  void *done_ctx);
    enum rq_carriage_state (*state)(struct rq_carriage *c);
    /* Who has it durably, so far as is known, with this node.  c NULL: this node alone. */
    void (*holders)(void *ctx, struct rq_carriage *c, struct rq_instances *ret_holders);
    /* With a majority it goes on to the others; else it ends.  When this returns done has come, or never will. */
    void (*leave)(struct rq_carriage *c);
};

#endif
