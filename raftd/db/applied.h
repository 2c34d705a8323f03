/* Applied: waiting until this host's files show what the log holds up to some entry. */
#ifndef RAFTD_DB_APPLIED_H
#define RAFTD_DB_APPLIED_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/db/catalog.h"
#include "raftd/db/driver.h"

/* Every entry up to index has been given to the state machine, and each database has applied what it was given; false when
 * timeout_ms have passed before.  Any thread that may wait. */
bool rq_applied_wait(struct rq_catalog *c, struct rq_driver *d, uint64_t index, unsigned timeout_ms);

#endif
