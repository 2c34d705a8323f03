/* Strand: who carries what, and the pool that carries the rest.
 *
 * A thread that carries has a list of strands which were posted from inside its tasks; it comes to them when the current one is
 * released, so the stack never holds two strands.  A strand is in exactly one place while `running`: under a carrier, in a
 * thread's list, or in the pool's queue. */
#include "raftd/run/strand.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

/* Tasks that one carrier runs of one strand in a row.  Past it the rest goes to the pool: a busy strand must not keep the
 * carrier from its own work, nor the strands in its list from theirs. */
#define CARRY_TASK_MAX 64u

struct strand_list {
    struct rq_strand *first, *last;
};

struct rq_pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct strand_list ready; /* guarded by lock, as stops */
    bool stops;
    uint64_t shuffle;      /* 0: the oldest strand comes first */
    unsigned thread_count; /* immutable after new */
    pthread_t threads[];
};

static _Thread_local struct {
    struct rq_strand *current;
    struct strand_list list; /* to be carried when current is released */
    bool yields;
    const struct rq_duty *duty; /* borrows */
    bool holds;                 /* the list waits for rq_strand_let_go() */
} carrier;

static void list_put(struct strand_list *list, struct rq_strand *s)
{
    s->next_ready = NULL;
    if (list->last != NULL) {
        list->last->next_ready = s;
    } else {
        list->first = s;
    }
    list->last = s;
}

static struct rq_strand *list_take(struct strand_list *list)
{
    struct rq_strand *s = list->first;
    if (s != NULL) {
        list->first = s->next_ready;
        if (list->first == NULL) {
            list->last = NULL;
        }
    }
    return s;
}

void rq_strand_init(struct rq_strand *s, struct rq_pool *pool, const char *name)
{
    assert(pool != NULL);
    *s = (struct rq_strand){ .name = name, .pool = pool };
    pthread_mutex_init(&s->lock, NULL);
}

void rq_strand_fini(struct rq_strand *s)
{
    assert(s->first == NULL);
    assert(!s->running);
    pthread_mutex_destroy(&s->lock);
}

bool rq_strand_is_idle(struct rq_strand *s)
{
    pthread_mutex_lock(&s->lock);
    const bool idle = s->first == NULL && !s->running;
    pthread_mutex_unlock(&s->lock);
    return idle;
}

bool rq_strand_is_mine(const struct rq_strand *s)
{
    return carrier.current == s;
}

unsigned rq_strand_waiting(void)
{
    unsigned count = 0;
    for (const struct rq_strand *s = carrier.list.first; s != NULL; s = s->next_ready) {
        count++;
    }
    return count;
}

void rq_strand_yield(struct rq_strand *s)
{
    assert(rq_strand_is_mine(s));
    carrier.yields = true;
}

void rq_strand_pause(struct rq_strand *s)
{
    assert(rq_strand_is_mine(s));
    pthread_mutex_lock(&s->lock);
    s->paused = true;
    pthread_mutex_unlock(&s->lock);
}

static void pool_put(struct rq_pool *pool, struct rq_strand *s)
{
    pthread_mutex_lock(&pool->lock);
    list_put(&pool->ready, s);
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_signal(&pool->wake); /* without the lock, which the thread would find taken */
}

void rq_strand_resume(struct rq_strand *s, struct rq_task *task)
{
    pthread_mutex_lock(&s->lock);
    assert(s->paused);
    task->next = s->first;
    s->first = task;
    if (s->last == NULL) {
        s->last = task;
    }
    const bool rests = s->rests;
    s->paused = s->rests = false;
    pthread_mutex_unlock(&s->lock);
    if (rests) { /* else its carrier comes to it */
        pool_put(s->pool, s);
    }
}

void rq_strand_will_block(void)
{
    struct rq_strand *s;
    while ((s = list_take(&carrier.list)) != NULL) {
        pool_put(s->pool, s);
    }
    if (carrier.duty != NULL) {
        carrier.duty->leave(carrier.duty->ctx);
    }
}

void rq_strand_goes_on(void)
{
    if (carrier.duty != NULL) {
        carrier.duty->take(carrier.duty->ctx);
    }
}

void rq_strand_set_duty(const struct rq_duty *duty)
{
    carrier.duty = duty;
}

/* Runs tasks of s, which is `running` and ours, until it is empty, it yields, or task_max have run. */
static void carry(struct rq_strand *s, unsigned task_max)
{
    struct rq_pool *pool = s->pool;
    bool more = true;

    carrier.current = s;
    carrier.yields = false;
    for (unsigned i = 0; more && i < task_max && !carrier.yields; i++) {
        pthread_mutex_lock(&s->lock);
        struct rq_task *task = s->first;
        assert(task != NULL);
        s->first = task->next;
        if (s->first == NULL) {
            s->last = NULL;
        }
        pthread_mutex_unlock(&s->lock);

        task->run(task);

        pthread_mutex_lock(&s->lock);
        more = s->first != NULL && !s->paused;
        s->running = more || s->paused;
        s->rests = s->paused;
        pthread_mutex_unlock(&s->lock);
    }
    carrier.current = NULL;
    if (more) {
        pool_put(pool, s); /* else another thread may have it already */
    }
}

static void carry_list(void)
{
    struct rq_strand *s;
    while ((s = list_take(&carrier.list)) != NULL) {
        carry(s, CARRY_TASK_MAX);
    }
}

void rq_strand_post(struct rq_strand *s, struct rq_task *task, enum rq_carry how)
{
    task->next = NULL;
    pthread_mutex_lock(&s->lock);
    if (s->last != NULL) {
        s->last->next = task;
    } else {
        s->first = task;
    }
    s->last = task;
    bool was_running = s->running;
    s->running = true;
    pthread_mutex_unlock(&s->lock);

    if (was_running) {
        return;
    }
    if (how == RQ_HAND_OVER || s->pool->thread_count == 0) {
        pool_put(s->pool, s);
        return;
    }
    list_put(&carrier.list, s);
    if (carrier.current == NULL && !carrier.holds) {
        carry_list();
    }
}

void rq_strand_hold(void)
{
    assert(carrier.current == NULL);
    carrier.holds = true;
}

void rq_strand_let_go(void)
{
    carrier.holds = false;
    carry_list();
}

static void *pool_thread(void *arg)
{
    struct rq_pool *pool = arg;
    for (;;) {
        pthread_mutex_lock(&pool->lock);
        while (pool->ready.first == NULL && !pool->stops) {
            pthread_cond_wait(&pool->wake, &pool->lock);
        }
        struct rq_strand *s = list_take(&pool->ready);
        pthread_mutex_unlock(&pool->lock);
        if (s == NULL) {
            return NULL;
        }
        list_put(&carrier.list, s);
        carry_list();
    }
}

enum rq_err rq_pool_new(unsigned thread_count, const char *name, struct rq_pool **ret_pool)
{
    struct rq_pool *pool = calloc(1, sizeof *pool + thread_count * sizeof pool->threads[0]);
    if (pool == NULL) {
        return RQ_NOMEM;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->thread_count = thread_count;
    for (unsigned i = 0; i < thread_count; i++) {
        if (pthread_create(&pool->threads[i], NULL, pool_thread, pool) != 0) {
            pool->thread_count = i;
            rq_pool_free(pool);
            return RQ_NOMEM;
        }
        (void)pthread_setname_np(pool->threads[i], name); /* for ps only */
    }
    *ret_pool = pool;
    return RQ_OK;
}

void rq_pool_free(struct rq_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->stops = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    while (rq_pool_run_one(pool)) {
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* By chance: those in front of the one that is taken go to the back. */
static void shuffle(struct rq_pool *pool)
{
    pool->shuffle = pool->shuffle * 6364136223846793005u + 1442695040888963407u;
    for (uint64_t n = pool->shuffle >> 61; n > 0 && pool->ready.first != pool->ready.last; n--) {
        list_put(&pool->ready, list_take(&pool->ready));
    }
}

bool rq_pool_run_one(struct rq_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    if (pool->shuffle != 0) {
        shuffle(pool);
    }
    struct rq_strand *s = list_take(&pool->ready);
    pthread_mutex_unlock(&pool->lock);
    if (s == NULL) {
        return false;
    }
    carry(s, 1);
    return true;
}

void rq_pool_shuffle(struct rq_pool *pool, uint64_t seed)
{
    pool->shuffle = seed | 1;
}

bool rq_pool_has_threads(const struct rq_pool *pool)
{
    return pool->thread_count > 0;
}
