/* Catch-up: this node gets from another member what its log does not lead to any more.
 *
 *   wanted   the log that is needed next was released: all databases, at an index (node.h: install)
 *   damaged  a database is quarantined here: its wrong pages (mend.h), or if its files are not such, all of it
 *
 * A thread of its own asks one member after the other until it is done, the leader first; it starts with the first wish. */
#ifndef RAFTD_CLUSTER_CATCHUP_H
#define RAFTD_CLUSTER_CATCHUP_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"

struct rq_cluster;
struct rq_catchup;

/* With driver and catalog of the cluster. */
enum rq_err rq_catchup_new(struct rq_cluster *c, struct rq_catchup **ret_catchup);

/* Loop context.  At least that index, whatever was wanted before; a fetch under way for another one goes on. */
void rq_catchup_wanted(struct rq_catchup *u, uint64_t index);

/* Any thread: the log is not what this node goes on by. */
bool rq_catchup_is_wanted(struct rq_catchup *u);

struct rq_catchup_stats {
    uint64_t installs, repairs; /* that came to their end */
    uint64_t pages_compared, pages_fetched;
};
void rq_catchup_stats(struct rq_catchup *u, struct rq_catchup_stats *ret_stats);

#endif
