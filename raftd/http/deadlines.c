#include "raftd/http/deadlines.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "raftd/run/clock.h"

#define LOOK_NS   100000000
#define SECOND_MS 1000u

struct rq_deadlines {
    void (*now_and_then)(void *ctx);
    void *ctx;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct rq_deadline *first; /* guarded by lock, as what follows; in no order */
    bool stops;
};

static void unlink_one(struct rq_deadlines *d, struct rq_deadline *one)
{
    *(one->previous != NULL ? &one->previous->next : &d->first) = one->next;
    if (one->next != NULL) {
        one->next->previous = one->previous;
    }
    one->runs = false;
}

/* Lock held.  Takes one out whose time is over. */
static struct rq_deadline *take_passed(struct rq_deadlines *d, uint64_t now_ms)
{
    struct rq_deadline *one = d->first;
    while (one != NULL && one->at_ms > now_ms) {
        one = one->next;
    }
    if (one != NULL) {
        unlink_one(d, one);
    }
    return one;
}

static void *run_thread(void *arg)
{
    struct rq_deadlines *d = arg;
    uint64_t second_ms = rq_clock_ms();
    struct rq_deadline *one;
    pthread_mutex_lock(&d->lock);
    while (!d->stops) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += LOOK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        (void)pthread_cond_timedwait(&d->wake, &d->lock, &until); /* woken early, it looks early */
        const uint64_t now_ms = rq_clock_ms();
        while ((one = take_passed(d, now_ms)) != NULL) {
            pthread_mutex_unlock(&d->lock);
            one->passed(one);
            pthread_mutex_lock(&d->lock);
        }
        if (now_ms - second_ms >= SECOND_MS) {
            second_ms = now_ms;
            pthread_mutex_unlock(&d->lock);
            d->now_and_then(d->ctx);
            pthread_mutex_lock(&d->lock);
        }
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

enum rq_err rq_deadlines_new(void (*now_and_then)(void *ctx), void *ctx, struct rq_deadlines **ret_deadlines)
{
    struct rq_deadlines *d = calloc(1, sizeof *d);
    if (d == NULL) {
        return RQ_NOMEM;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&d->lock, NULL);
    d->now_and_then = now_and_then;
    d->ctx = ctx;
    if (pthread_create(&d->thread, NULL, run_thread, d) != 0) {
        pthread_cond_destroy(&d->wake);
        pthread_mutex_destroy(&d->lock);
        free(d);
        return RQ_NOMEM;
    }
    *ret_deadlines = d;
    return RQ_OK;
}

void rq_deadlines_free(struct rq_deadlines *d)
{
    if (d == NULL) {
        return;
    }
    pthread_mutex_lock(&d->lock);
    d->stops = true;
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
    pthread_cond_destroy(&d->wake);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

void rq_deadlines_begin(struct rq_deadlines *d, struct rq_deadline *one)
{
    pthread_mutex_lock(&d->lock);
    one->previous = NULL;
    one->next = d->first;
    if (d->first != NULL) {
        d->first->previous = one;
    }
    d->first = one;
    one->runs = true;
    pthread_mutex_unlock(&d->lock);
}

bool rq_deadlines_end(struct rq_deadlines *d, struct rq_deadline *one)
{
    pthread_mutex_lock(&d->lock);
    const bool runs = one->runs;
    if (runs) {
        unlink_one(d, one);
    }
    pthread_mutex_unlock(&d->lock);
    return runs;
}
