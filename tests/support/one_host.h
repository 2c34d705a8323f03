/* One host: the middle of a raftd, in the process: log, node of one voter, catalog, databases, background thread; no doors.
 * Threads: as raftd. */
#ifndef TESTS_SUPPORT_ONE_HOST_H
#define TESTS_SUPPORT_ONE_HOST_H

#include "raftd/db/catalog.h"
#include "raftd/db/database.h"
#include "raftd/log/log.h"

struct one_host;

/* Founds a cluster on dir, which is made.  Ends the process with a message when it cannot. */
struct one_host *one_host_new(const char *dir);
void one_host_free(struct one_host *h);

/* Creates it; counted. */
struct rq_database *one_host_create(struct one_host *h, const char *name);

void one_host_log_stats(struct one_host *h, struct rq_log_stats *ret_stats);

#endif
