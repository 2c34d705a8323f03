/* Door: several threads wait for one set of descriptors, with as few wake-ups as possible.
 *
 * One of them at a time is the watcher: it alone takes events from the set (an epoll descriptor of its owner), and serves them
 * itself; nobody is woken for what comes meanwhile.  Before it waits for something slow, e.g. a disk, it leaves; then, and only then,
 * the next event wakes another thread, who sleeps at the door and becomes the watcher.  Who left and comes back while nobody was
 * needed is the watcher again without having slept. */
#ifndef RAFTD_NET_DOOR_H
#define RAFTD_NET_DOOR_H

#include <pthread.h>
#include <stdbool.h>

#include "raftd/wire/err.h"

struct rq_door {
    int set;   /* borrows */
    int sleep; /* holds set, armed for one event: shut from then on, until somebody opens it */
    pthread_mutex_t lock;
    bool watched; /* guarded by lock, as kept */
    bool kept;    /* the watcher is away, and has left the door shut */
};

enum rq_err rq_door_init(struct rq_door *d, int set);
void rq_door_fini(struct rq_door *d);

/* A thread that is not the watcher sleeps until one is needed, or timeout_ms have passed.  True: it is the watcher now. */
bool rq_door_wait(struct rq_door *d, int timeout_ms);
void rq_door_leave(struct rq_door *d); /* may be called by who is not the watcher, as the next */
void rq_door_take(struct rq_door *d);  /* unless there is one */

/* Leaves for a moment, with the door shut: for whom nobody could come in.  It stays so until he takes his place again, or somebody
 * who knows better opens it. */
void rq_door_leave_shut(struct rq_door *d);
void rq_door_open(struct rq_door *d); /* any thread; if it was left shut */
bool rq_door_is_mine(const struct rq_door *d);

#endif
