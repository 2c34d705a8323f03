/* Admission: how many transactions may be half-sent at once, over all connections, so that their memory has a limit whoever
 * connects.  Who is not let in waits, first come, first served; who is in never waits for anybody here, so it can come to its end.
 *
 * Any thread. */
#ifndef RAFTD_DB_ADMISSION_H
#define RAFTD_DB_ADMISSION_H

#include <pthread.h>
#include <stdbool.h>

struct rq_admission_waiter {
    void (*admitted)(struct rq_admission_waiter *w); /* it is in now; on the thread of who left */
    struct rq_admission_waiter *next;
};

struct rq_admission {
    pthread_mutex_t lock;
    unsigned free; /* guarded by lock, as the rest */
    struct rq_admission_waiter *first, *last;
};

void rq_admission_init(struct rq_admission *a, unsigned count_max);

/* True: in.  False: w is borrowed, until admitted is called. */
bool rq_admission_enter(struct rq_admission *a, struct rq_admission_waiter *w);
void rq_admission_leave(struct rq_admission *a);

#endif
