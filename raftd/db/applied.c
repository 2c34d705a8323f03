#include "raftd/db/applied.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "raftd/run/clock.h"

#define LOOK_AGAIN_MS 2

/* One task behind what is queued for each database.  Who waits may give up before all have run: the last of them frees it. */
struct barrier {
    struct rq_task task;
    struct crowd *crowd;
    struct rq_database *db; /* counted */
};

struct crowd {
    pthread_mutex_t lock;
    pthread_cond_t none_left;
    size_t left, holders; /* guarded by lock */
    struct barrier barriers[];
};

static void crowd_leave(struct crowd *c, bool passed)
{
    pthread_mutex_lock(&c->lock);
    c->left -= passed;
    if (c->left == 0) {
        pthread_cond_signal(&c->none_left);
    }
    const bool last = --c->holders == 0;
    pthread_mutex_unlock(&c->lock);
    if (last) {
        pthread_mutex_destroy(&c->lock);
        pthread_cond_destroy(&c->none_left);
        free(c);
    }
}

static void run_barrier(struct rq_task *task)
{
    struct barrier *b = (struct barrier *)task;
    struct crowd *crowd = b->crowd;
    rq_database_unref(b->db);
    crowd_leave(crowd, true);
}

static bool wait_for_crowd(struct crowd *crowd, uint64_t end_ms)
{
    const struct timespec until = { (time_t)(end_ms / 1000u), (long)(end_ms % 1000u) * 1000000 };
    int waited = 0;
    pthread_mutex_lock(&crowd->lock);
    while (crowd->left > 0 && waited == 0) {
        waited = pthread_cond_timedwait(&crowd->none_left, &crowd->lock, &until);
    }
    const bool passed = crowd->left == 0;
    pthread_mutex_unlock(&crowd->lock);
    return passed;
}

static bool wait_for_databases(struct rq_catalog *c, uint64_t end_ms)
{
    struct rq_database **list;
    size_t count;
    if (rq_catalog_list(c, &list, &count) != RQ_OK) {
        return false;
    }
    struct crowd *crowd = calloc(1, sizeof *crowd + count * sizeof *crowd->barriers);
    if (crowd == NULL) {
        for (size_t i = 0; i < count; i++) {
            rq_database_unref(list[i]);
        }
        free(list);
        return false;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&crowd->none_left, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&crowd->lock, NULL);
    crowd->left = count;
    crowd->holders = count + 1;
    for (size_t i = 0; i < count; i++) {
        crowd->barriers[i] = (struct barrier){ { .run = run_barrier }, crowd, list[i] };
        rq_strand_post(rq_database_strand(list[i]), &crowd->barriers[i].task, RQ_HAND_OVER);
    }
    free(list);
    const bool all = wait_for_crowd(crowd, end_ms);
    crowd_leave(crowd, false);
    return all;
}

bool rq_applied_wait(struct rq_catalog *c, struct rq_driver *d, uint64_t index, unsigned timeout_ms)
{
    const uint64_t end_ms = rq_clock_ms() + timeout_ms;
    while (rq_driver_view(d).delivered < index) {
        if (rq_clock_ms() >= end_ms) {
            return false;
        }
        nanosleep(&(struct timespec){ .tv_nsec = (long)LOOK_AGAIN_MS * 1000000 }, NULL);
    }
    return wait_for_databases(c, end_ms);
}
