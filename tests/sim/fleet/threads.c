/* Threads of raftd that ask other members and wait for what they say: marks.c, compare.c and mend.c of raftd/cluster, as they are.
 *
 * Each is a real thread, and one of all goes at a time: whoever tells it to go on stands still until it waits, or ends.  So it is the seed
 * alone that says what happens.  It waits for a condition or a time, and goes on in the millisecond in which that comes, or a few later.
 *
 * While a database is mended a task of its strand waits, too.  Tasks are carried by threads like these then: one that waits in a
 * task keeps that strand, and the next one carries the others. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/fleet/fleet.h"

enum { STACK_BYTES = 1 << 20, TASKS_AT_ONCE = 64 };

struct fleet_thread {
    struct fleet_thread *next;
    struct fleet_host *host;
    pthread_t thread;
    void *(*run)(void *arg);
    void *arg;
    sem_t go, back;
    jmp_buf end;                /* where it ends with its process */
    const pthread_cond_t *cond; /* that it waits for; NULL: none */
    bool woken;
    uint64_t until_ms;
    bool carries;        /* tasks of strands */
    bool rests, had_one; /* ... and has no task; the last time there was one */
    bool leaves;         /* its process has died */
    bool died;           /* it was that which has ended the process */
    bool ended;
};

static _Thread_local struct fleet_thread *self; /* NULL: the simulation's own */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *arg), void *arg);
bool __real_rq_pool_run_one(struct rq_pool *pool);

/* --- one at a time --------------------------------------------------------------------------------------------------------- */

static void wait_for_semaphore(sem_t *s)
{
    while (sem_wait(s) != 0) {
    }
}

static void *begin(void *arg)
{
    struct fleet_thread *t = arg;
    self = t;
    wait_for_semaphore(&t->go);
    if (!t->leaves && setjmp(t->end) == 0) {
        memcpy(t->host->rig.end, t->end, sizeof t->end);
        (void)t->run(t->arg);
    } else {
        t->died = !t->leaves;
    }
    t->ended = true;
    sem_post(&t->back);
    return NULL;
}

static struct fleet_thread *thread_new(struct fleet_host *h, void *(*run)(void *arg), void *arg)
{
    pthread_attr_t attr;
    struct fleet_thread *t = calloc(1, sizeof *t), **at = &h->threads;
    *t = (struct fleet_thread){ .host = h, .run = run, .arg = arg, .woken = true };
    sem_init(&t->go, 0, 0);
    sem_init(&t->back, 0, 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (__real_pthread_create(&t->thread, &attr, begin, t) != 0) {
        fleet_fail("no thread");
    }
    pthread_attr_destroy(&attr);
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = t;
    return t;
}

static void thread_free(struct fleet_thread *t)
{
    pthread_join(t->thread, NULL);
    sem_destroy(&t->go);
    sem_destroy(&t->back);
    free(t);
}

/* Until it waits.  The end of its process is one for the caller, too. */
static void go_on(struct fleet_thread *t)
{
    struct rig *rig = &t->host->rig;
    jmp_buf end;
    memcpy(end, rig->end, sizeof end);
    memcpy(rig->end, t->end, sizeof end);
    t->woken = false;
    t->until_ms = FLEET_NEVER;
    t->cond = NULL;
    sem_post(&t->go);
    wait_for_semaphore(&t->back);
    memcpy(rig->end, end, sizeof end);
    if (t->died) {
        longjmp(rig->end, 1);
    }
}

static void wait_here(const pthread_cond_t *cond, uint64_t until_ms)
{
    struct fleet_thread *t = self;
    t->cond = cond;
    t->until_ms = until_ms;
    sem_post(&t->back);
    wait_for_semaphore(&t->go);
    if (t->leaves) {
        longjmp(t->end, 1);
    }
}

/* --- of a host ------------------------------------------------------------------------------------------------------------- */

static bool is_due(const struct fleet_thread *t)
{
    return t->woken || fleet->now_ms >= t->until_ms;
}

static void tick(void *ctx)
{
    struct fleet_host *h = ctx;
    for (struct fleet_thread **at = &h->threads; *at != NULL;) {
        struct fleet_thread *t = *at;
        if (is_due(t) && !fleet_chance(h->slow ? 900 : 300)) {
            go_on(t);
        }
        if (t->ended) {
            *at = t->next;
            thread_free(t);
        } else {
            at = &t->next;
        }
    }
}

void threads_tick(struct fleet_host *h)
{
    bool due = false;
    for (const struct fleet_thread *t = h->threads; t != NULL; t = t->next) {
        due = due || is_due(t);
    }
    if (due) {
        (void)host_run(h, tick, h);
    }
}

void threads_end(struct fleet_host *h)
{
    struct fleet_thread *t;
    while ((t = h->threads) != NULL) {
        h->threads = t->next;
        t->leaves = true;
        sem_post(&t->go);
        thread_free(t);
    }
}

/* --- tasks of strands ------------------------------------------------------------------------------------------------------ */

static void *carry(void *arg)
{
    struct fleet_thread *t = arg;
    for (;;) {
        unsigned left = t->host->slow ? 1 : TASKS_AT_ONCE; /* what changes threads takes longer than most tasks */
        t->had_one = false;
        while (left-- > 0 && __real_rq_pool_run_one(t->host->rig.pool)) {
            t->had_one = true;
        }
        t->rests = true;
        wait_here(NULL, FLEET_NEVER);
        t->rests = false;
    }
    return NULL;
}

static struct fleet_thread *carrier(struct fleet_host *h)
{
    struct fleet_thread *t = h->threads;
    while (t != NULL && !(t->carries && t->rests)) {
        t = t->next;
    }
    if (t == NULL) {
        t = thread_new(h, carry, NULL);
        t->arg = t;
        t->carries = true;
    }
    return t;
}

bool __wrap_rq_pool_run_one(struct rq_pool *pool);
bool __wrap_rq_pool_run_one(struct rq_pool *pool)
{
    struct fleet_host *h = fleet->current;
    if (h == NULL || !h->mends_now || (self != NULL && self->carries)) {
        return __real_rq_pool_run_one(pool);
    }
    struct fleet_thread *t = carrier(h);
    go_on(t);
    return !t->rests || t->had_one; /* it waits in the task that there was */
}

/* --- in place of the C library ----------------------------------------------------------------------------------------------- */

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *arg), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *arg), void *arg)
{
    (void)attr;
    *thread = thread_new(fleet->current, run, arg)->thread;
    return 0;
}

int __wrap_pthread_detach(pthread_t thread);
int __wrap_pthread_detach(pthread_t thread)
{
    (void)thread; /* it is joined when it has ended */
    return 0;
}

static void wait_with(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ms)
{
    pthread_mutex_unlock(lock);
    wait_here(cond, until_ms);
    pthread_mutex_lock(lock);
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock)
{
    if (self == NULL) {
        fleet_fail("nobody is there who could end a wait");
    }
    wait_with(cond, lock, FLEET_NEVER);
    return 0;
}

/* Outside of these threads, and in a task, there is nobody else who could bring what is waited for. */
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until)
{
    const uint64_t until_ms = (uint64_t)until->tv_sec * 1000u + (uint64_t)until->tv_nsec / 1000000u;
    if (self == NULL || self->carries || fleet->now_ms >= until_ms) {
        return ETIMEDOUT;
    }
    wait_with(cond, lock, until_ms);
    return fleet->now_ms >= until_ms ? ETIMEDOUT : 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *cond);
int __wrap_pthread_cond_signal(pthread_cond_t *cond)
{
    for (struct fleet_thread *t = fleet->current != NULL ? fleet->current->threads : NULL; t != NULL; t = t->next) {
        t->woken = t->woken || t->cond == cond;
    }
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
    return __wrap_pthread_cond_signal(cond);
}

int __wrap_nanosleep(const struct timespec *duration, struct timespec *left);
int __wrap_nanosleep(const struct timespec *duration, struct timespec *left)
{
    (void)left;
    if (self != NULL) {
        wait_here(NULL,
                  fleet->now_ms + 1 + (uint64_t)duration->tv_sec * 1000u + (uint64_t)duration->tv_nsec / 1000000u);
    }
    return 0;
}
