/* Mend: the wrong pages of a quarantined database come from the others, each proved by what a majority of those that can be asked says
 * it is at the same place of the log.  Only members speak whose own pages are what their own records say; a page here that is that as well is
 * replaced only when a majority of all voters has it otherwise. */
#ifndef RAFTD_CLUSTER_MEND_H
#define RAFTD_CLUSTER_MEND_H

#include <stdint.h>

#include "raftd/db/database.h"
#include "raftd/wire/err.h"

struct rq_cluster;

/* A thread that may wait.  AWAY, UNREADY, UNKNOWN: try again.  CORRUPT: there is no majority for a page; the log names it, and nothing is
 * changed.  NOTFOUND: its files have to be made anew.  Others as rq_database_repair_wait(). */
enum rq_err rq_mend(struct rq_cluster *c, struct rq_database *db, uint64_t *ret_compared, uint64_t *ret_mended);

#endif
