#include "raftd/net/door.h"

#include <sys/epoll.h>
#include <unistd.h>

static _Thread_local const struct rq_door *mine; /* whose watcher this thread is */
static _Thread_local const struct rq_door *kept; /* or will be again: it was left shut, and nobody may have opened it */

static void set_open(struct rq_door *d, bool open)
{
    struct epoll_event e = { .events = open ? EPOLLIN | EPOLLONESHOT : 0 };
    (void)epoll_ctl(d->sleep, EPOLL_CTL_MOD, d->set, &e); /* it is in there from the start */
}

enum rq_err rq_door_init(struct rq_door *d, int set)
{
    struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT };
    *d = (struct rq_door){ .set = set, .sleep = epoll_create1(EPOLL_CLOEXEC) };
    pthread_mutex_init(&d->lock, NULL);
    if (d->sleep < 0 || epoll_ctl(d->sleep, EPOLL_CTL_ADD, set, &e) != 0) {
        rq_door_fini(d);
        return RQ_IO;
    }
    return RQ_OK;
}

void rq_door_fini(struct rq_door *d)
{
    if (d->sleep >= 0) {
        close(d->sleep);
        d->sleep = -1;
    }
    pthread_mutex_destroy(&d->lock);
}

bool rq_door_is_mine(const struct rq_door *d)
{
    return mine == d;
}

/* shut: the event that brought this thread here has shut the door. */
static bool begin(struct rq_door *d, bool shut)
{
    pthread_mutex_lock(&d->lock);
    const bool first = !d->watched;
    d->watched = true;
    if (first && !shut) {
        set_open(d, false);
    }
    pthread_mutex_unlock(&d->lock);
    if (first) {
        mine = d;
    }
    return first;
}

bool rq_door_wait(struct rq_door *d, int timeout_ms)
{
    struct epoll_event e;
    const int came = epoll_wait(d->sleep, &e, 1, timeout_ms);
    return came >= 0 && begin(d, came > 0);
}

/* Nobody has needed it meanwhile. */
static bool still_shut(struct rq_door *d)
{
    kept = NULL;
    pthread_mutex_lock(&d->lock);
    const bool shut = d->kept;
    d->kept = false;
    pthread_mutex_unlock(&d->lock);
    return shut;
}

void rq_door_take(struct rq_door *d)
{
    if (kept == d && still_shut(d)) {
        mine = d;
    }
    if (mine != d) {
        (void)begin(d, false);
    }
}

void rq_door_leave(struct rq_door *d)
{
    if (mine == d) {
        mine = NULL;
        pthread_mutex_lock(&d->lock);
        d->watched = false;
        set_open(d, true);
        pthread_mutex_unlock(&d->lock);
    }
}

void rq_door_leave_shut(struct rq_door *d)
{
    if (mine == d) {
        mine = NULL;
        kept = d;
        pthread_mutex_lock(&d->lock);
        d->kept = true;
        pthread_mutex_unlock(&d->lock);
    }
}

void rq_door_open(struct rq_door *d)
{
    pthread_mutex_lock(&d->lock);
    if (d->kept) {
        d->kept = false;
        d->watched = false;
        set_open(d, true);
    }
    pthread_mutex_unlock(&d->lock);
}
