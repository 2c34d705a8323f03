/* Direct sink: what a connection of raftd's own commits goes to its database without a socket in between, and otherwise as an
 * application's: it takes the turn as they do, and its transactions are judged as theirs.
 *
 * COMMIT waits for the outcome as long as the sink is told to.  One that comes later is kept: it can be asked for as long as anybody
 * has a reference.
 *
 * Threads: the sink is its connection's; the rest is anybody's. */
#ifndef RAFTD_DB_DIRECT_SINK_H
#define RAFTD_DB_DIRECT_SINK_H

#include <stdint.h>

#include "raftd/db/database.h"
#include "raftd/wire/err.h"
#include "vfs/sink.h"

struct rq_direct_sink;

/* The sink, for RQ_FCNTL_SINK, which has a reference of its own until it is closed; the caller has another one. */
enum rq_err rq_direct_sink_new(struct rq_database *db, struct rq_disk *disk, const char *staged_dir,
                               struct rq_direct_sink **ret_sink);
struct rq_sink *rq_direct_sink_sink(struct rq_direct_sink *s);
struct rq_direct_sink *rq_direct_sink_ref(struct rq_direct_sink *s);
void rq_direct_sink_unref(struct rq_direct_sink *s); /* NULL is fine */

/* rq_clock_ms(): so long a COMMIT from now on waits; then it is UNKNOWN. */
void rq_direct_sink_set_deadline(struct rq_direct_sink *s, uint64_t deadline_ms);

/* What became of its last COMMIT: as in struct rq_sink_ops.  UNKNOWN: that is not known by then.  NOTFOUND: there was none (or the
 * database is gone). */
enum rq_err rq_direct_sink_outcome(struct rq_direct_sink *s, uint64_t deadline_ms);

#endif
