#include "raftd/run/crew.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#define IDLE_SECONDS 10

struct rq_crew {
    const char *name;
    unsigned threads_max;
    pthread_mutex_t lock;
    pthread_cond_t work, empty;
    struct rq_task *first, *last; /* guarded by lock, as the rest */
    unsigned queued, threads, idle;
    bool stops;
};

/* The next one; NULL: the thread is to go. */
static struct rq_task *next_task(struct rq_crew *c)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_SECONDS;
    int waited = 0;
    c->idle++;
    while (c->first == NULL && !c->stops && waited == 0) {
        waited = pthread_cond_timedwait(&c->work, &c->lock, &until);
    }
    c->idle--;
    struct rq_task *task = c->first;
    if (task != NULL) {
        c->first = task->next;
        c->queued--;
    }
    return task;
}

static void *run_thread(void *arg)
{
    struct rq_crew *c = arg;
    struct rq_task *task;
    (void)pthread_setname_np(pthread_self(), c->name);
    pthread_mutex_lock(&c->lock);
    while ((task = next_task(c)) != NULL) {
        pthread_mutex_unlock(&c->lock);
        task->run(task);
        pthread_mutex_lock(&c->lock);
    }
    c->threads--;
    pthread_cond_signal(&c->empty);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

enum rq_err rq_crew_new(unsigned threads_max, const char *name, struct rq_crew **ret_crew)
{
    struct rq_crew *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return RQ_NOMEM;
    }
    c->name = name;
    c->threads_max = threads_max;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, &attr);
    pthread_cond_init(&c->empty, &attr);
    pthread_condattr_destroy(&attr);
    *ret_crew = c;
    return RQ_OK;
}

void rq_crew_free(struct rq_crew *c)
{
    if (c == NULL) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    c->stops = true;
    pthread_cond_broadcast(&c->work);
    while (c->threads > 0) {
        pthread_cond_wait(&c->empty, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->empty);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* Lock held. */
static bool start_thread(struct rq_crew *c)
{
    pthread_t thread;
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    const bool started = pthread_create(&thread, &detached, run_thread, c) == 0;
    pthread_attr_destroy(&detached);
    c->threads += started;
    return started;
}

enum rq_err rq_crew_post(struct rq_crew *c, struct rq_task *task)
{
    pthread_mutex_lock(&c->lock);
    if (c->idle <= c->queued && c->threads < c->threads_max && !start_thread(c) && c->threads == 0) {
        pthread_mutex_unlock(&c->lock);
        return RQ_AWAY;
    }
    task->next = NULL;
    *(c->first != NULL ? &c->last->next : &c->first) = task;
    c->last = task;
    c->queued++;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
    return RQ_OK;
}
