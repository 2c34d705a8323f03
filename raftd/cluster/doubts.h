/* Doubts: pages of which some transaction says that they are not what this host has, so that either this host is wrong or the one that made
 * the transaction.  A majority is to tell (compare.h); the transaction was applied to our page meanwhile (rq_delta_put).
 *
 * One page of a database is enough: whoever is found to be wrong has all its pages compared (mend.h). */
#ifndef RAFTD_CLUSTER_DOUBTS_H
#define RAFTD_CLUSTER_DOUBTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define RQ_DOUBTS_MAX       32u
#define RQ_DOUBT_FIRST_MS   1000u /* asked again after, then twice that, and so on */
#define RQ_DOUBT_LONGEST_MS 60000u

struct rq_doubt {
    uint32_t db_id, page;
    uint64_t due_ms, pause_ms;
};

/* Zeroed, but for the lock. */
struct rq_doubts {
    pthread_mutex_t lock;
    struct rq_doubt list[RQ_DOUBTS_MAX]; /* guarded by lock, as count */
    unsigned count;
};

void rq_doubts_init(struct rq_doubts *d);

/* Any thread, as all.  False: there is one in that database already, or too many databases have one. */
bool rq_doubts_put(struct rq_doubts *d, uint32_t db_id, uint32_t page);
/* One that is to be asked about now; it will be again after a while, if it is still there. */
bool rq_doubts_due(struct rq_doubts *d, uint64_t now_ms, struct rq_doubt *ret_doubt);
/* 0: none in that database. */
uint32_t rq_doubts_page(struct rq_doubts *d, uint32_t db_id);
void rq_doubts_end(struct rq_doubts *d, uint32_t db_id);

#endif
