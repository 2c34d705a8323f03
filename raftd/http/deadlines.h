/* Deadlines: of requests that wait for something that may never come.  They are looked at a few times a second, by a thread that is
 * there for this, and that also does what has to be done now and then. */
#ifndef RAFTD_HTTP_DEADLINES_H
#define RAFTD_HTTP_DEADLINES_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"

struct rq_deadlines;

/* Embedded by who waits. */
struct rq_deadline {
    struct rq_deadline *next, *previous;   /* inner */
    bool runs;                             /* inner */
    uint64_t at_ms;                        /* rq_clock_ms() */
    void (*passed)(struct rq_deadline *d); /* on the thread; must not wait */
};

/* now_and_then: each second, on the thread; may wait for a moment. */
enum rq_err rq_deadlines_new(void (*now_and_then)(void *ctx), void *ctx, struct rq_deadlines **ret_deadlines);
void rq_deadlines_free(struct rq_deadlines *d); /* without waiting for those that run */

/* Any thread. */
void rq_deadlines_begin(struct rq_deadlines *d, struct rq_deadline *one);
/* True: it has not passed and never will; else passed() was called, or is being called. */
bool rq_deadlines_end(struct rq_deadlines *d, struct rq_deadline *one);

#endif
