/* Marks: databases that this member holds still where the log has a MARK entry, and what other members ask of them (wire/ask.h: STATE,
 * HASHES, PAGES).  The entry is at the same place everywhere, so it is the same state everywhere, unless a replica is wrong.
 *
 * A mark to mend by is read as it is asked about.  For one to compare pages at this member makes the hashes once, at a slow pace, and lets
 * the database go then; others are told UNREADY until they are there.  Whatever nobody asks about is let go after a while. */
#ifndef RAFTD_CLUSTER_MARKS_H
#define RAFTD_CLUSTER_MARKS_H

#include <stdint.h>

#include "raftd/db/database.h"
#include "raftd/net/peers.h"
#include "raftd/wire/ask.h"
#include "raftd/wire/err.h"

struct rq_cluster;
struct rq_marks;

enum rq_err rq_marks_new(struct rq_cluster *c, struct rq_marks **ret_marks);

/* On the database's strand: as in struct rq_database_env. */
void rq_marks_take(struct rq_marks *m, struct rq_database *db, const struct rq_entry_mark *mark, uint64_t index,
                   struct rq_view *view);
/* On the peers' thread: takes the call. */
void rq_marks_asked(struct rq_marks *m, struct rq_call *call, const struct rq_ask *ask);

/* A thread that may wait: makes the hashes of the pages of a mark to compare at, ret_count of them (fewer when the database is shorter), and
 * keeps a copy for others.  NOTFOUND: there is no such mark; QUARANTINED: the database is fenced here; or errors of the disk. */
enum rq_err rq_marks_compare(struct rq_marks *m, const struct rq_entry_mark *mark, uint64_t index,
                             uint64_t ret_hashes[RQ_MARK_PAGES_MAX], uint32_t *ret_count);

#endif
