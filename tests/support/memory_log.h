/* Memory log: raftd/log/log.h without a disk, for tests of what stands on it.  Link it in place of the log. */
#ifndef TESTS_SUPPORT_MEMORY_LOG_H
#define TESTS_SUPPORT_MEMORY_LOG_H

#include "raftd/log/log.h"

struct rq_log *memory_log_new(void);

/* Power fails: what was not written is gone, and nobody holds a reservation.  Says what an opening would find. */
void memory_log_crash(struct rq_log *log, struct rq_log_found *ret_found);

/* At most so many entries more may be reserved. */
void memory_log_limit(struct rq_log *log, unsigned entries);

unsigned memory_log_reserved(const struct rq_log *log);

#endif
