/* WAL care: back-fill, reset and shortening of one database's WAL, beside its readers and writers. */
#ifndef RAFTD_DB_WAL_CARE_H
#define RAFTD_DB_WAL_CARE_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/db/database.h"

#define RQ_WAL_SOFT_FRAMES 1000u /* back-filled from here on, also while somebody writes */
#define RQ_WAL_HARD_FRAMES 4000u /* readers are asked to leave it */

/* With the replica held.  Back-fills when the WAL is long or nobody writes, and resets it when that is complete.  Returns when it is to
 * be looked at again, of rq_clock_ms(); UINT64_MAX: when the database is used again.
 * leaving: raftd is about to end; what can be made complete without waiting for readers is.
 * waits: the database of which it was said last that its back-fill has to wait; 0: none yet. */
uint64_t rq_wal_care(struct rq_database *db, struct rq_replica *r, uint64_t now, bool leaving, uint32_t *waits);

#endif
