/* Crew: threads for work that takes its time.  They are started as there is work, up to a limit, and go home when there is none.
 *
 * For what keeps a thread busy for milliseconds or more; what is quick and has an order belongs on a strand (strand.h). */
#ifndef RAFTD_RUN_CREW_H
#define RAFTD_RUN_CREW_H

#include "raftd/run/strand.h"
#include "raftd/wire/err.h"

struct rq_crew;

enum rq_err rq_crew_new(unsigned threads_max, const char *name, struct rq_crew **ret_crew); /* borrows name */
/* Finishes what is posted. */
void rq_crew_free(struct rq_crew *c);
/* First come, first served.  AWAY: there is no thread, and none could be started; the task is the caller's. */
enum rq_err rq_crew_post(struct rq_crew *c, struct rq_task *task);

#endif
