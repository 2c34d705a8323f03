/* `lines` holds every line, armed for one event; it is the set behind the door. */
#include "raftd/net/active.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "raftd/net/door.h"
#include "raftd/run/strand.h"

#define THREADS  4 /* some may be in the log's sync while the others go on */
#define TAKE_MAX 16

/* After a request the next is often only microseconds away, a tenth of what a wake-up costs.  To look for it is worth while as
 * long as it is found; without credit one more chance is given now and then. */
#define LOOK_NS    40000
#define CREDIT_MAX 8
#define PROBE      32

struct rq_active {
    int lines;
    struct rq_door door;
    pthread_mutex_t lock;
    struct rq_active_line *first, *last; /* guarded by lock; waited for; longest quiet first */

    const struct rq_active_line *served; /* guarded by lock: the only one of this round, until its thread first waits */

    /* The watcher's. */
    int credit;
    unsigned rounds;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* With the lock held, as the next two. */
static void list_put(struct rq_active *a, struct rq_active_line *line)
{
    line->prev = a->last;
    line->next = NULL;
    *(a->last != NULL ? &a->last->next : &a->first) = line;
    a->last = line;
}

static void list_remove(struct rq_active *a, struct rq_active_line *line)
{
    *(line->prev != NULL ? &line->prev->next : &a->first) = line->next;
    *(line->next != NULL ? &line->next->prev : &a->last) = line->prev;
}

bool rq_active_wait(struct rq_active *a, struct rq_active_line *line)
{
    struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data.ptr = line };
    int how = line->known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    line->known = true;
    line->since_ms = now_ns() / 1000000u;
    pthread_mutex_lock(&a->lock);
    list_put(a, line);
    bool done = epoll_ctl(a->lines, how, line->fd, &e) ==
                0; /* the lock keeps the watcher off until it is known how this went */
    if (!done) {
        list_remove(a, line);
        line->known = how == EPOLL_CTL_MOD;
    } else if (a->first != a->last) {
        rq_door_open(&a->door);
    }
    pthread_mutex_unlock(&a->lock);
    return done;
}

void rq_active_forget(struct rq_active *a, struct rq_active_line *line)
{
    if (line->known) {
        (void)epoll_ctl(a->lines, EPOLL_CTL_DEL, line->fd, NULL); /* it is in there */
        line->known = false;
    }
}

/* Whose request is being served sends nothing before it is answered.  While nobody else is there the door stays shut, which spares
 * opening and shutting it for each commit of a lone writer. */
static void leave_watch(void *ctx)
{
    struct rq_active *a = ctx;
    pthread_mutex_lock(&a->lock);
    const bool alone = a->first != NULL && a->first == a->last && a->first == a->served;
    if (alone && rq_door_is_mine(&a->door)) {
        a->served = NULL;
        rq_door_leave_shut(&a->door);
    }
    pthread_mutex_unlock(&a->lock);
    rq_door_leave(&a->door);
}

static void take_watch(void *ctx)
{
    rq_door_take(&((struct rq_active *)ctx)->door);
}

/* The watcher's, as the next three: lines that are readable become the caller's. */
static int take(struct rq_active *a, struct rq_active_line *taken[TAKE_MAX])
{
    struct epoll_event events[TAKE_MAX];
    int n = epoll_wait(a->lines, events, TAKE_MAX, 0);
    if (n > 0) {
        pthread_mutex_lock(&a->lock);
        for (int i = 0; i < n; i++) {
            taken[i] = events[i].data.ptr;
            list_remove(a, taken[i]);
        }
        a->served = n == 1 ? taken[0] : NULL;
        pthread_mutex_unlock(&a->lock);
    }
    return n;
}

static int look(struct rq_active *a, struct rq_active_line *taken[TAKE_MAX])
{
    int n = take(a, taken);
    if (n > 0 || (a->credit == 0 && ++a->rounds % PROBE != 0)) {
        return n;
    }
    uint64_t until = now_ns() + LOOK_NS;
    while (n <= 0 && now_ns() < until) {
        n = take(a, taken);
    }
    if (n > 0) {
        a->credit += a->credit < CREDIT_MAX;
    } else {
        a->credit -= a->credit > 0;
    }
    return n;
}

static void give_back_quiet(struct rq_active *a)
{
    uint64_t now_ms = now_ns() / 1000000u;
    for (;;) {
        pthread_mutex_lock(&a->lock);
        struct rq_active_line *line = a->first;
        bool quiet = line != NULL && now_ms - line->since_ms >= RQ_ACTIVE_QUIET_MS;
        if (quiet) {
            list_remove(a, line);
        }
        pthread_mutex_unlock(&a->lock);
        if (!quiet) {
            return;
        }
        rq_active_forget(a, line);
        line->quiet(line);
    }
}

static void *active_thread(void *arg)
{
    struct rq_active *a = arg;
    const struct rq_duty duty = { leave_watch, take_watch, a };
    rq_strand_set_duty(&duty);
    for (;;) {
        (void)rq_door_wait(&a->door, RQ_ACTIVE_QUIET_MS);
        while (rq_door_is_mine(&a->door)) {
            struct rq_active_line *taken[TAKE_MAX];
            give_back_quiet(a);
            int n = look(a, taken);
            if (n <= 0) {
                rq_door_leave(&a->door);
                break;
            }
            rq_strand_hold();
            for (int i = 0; i < n; i++) {
                taken[i]->readable(taken[i]);
            }
            rq_strand_let_go();
            rq_door_take(&a->door);
        }
    }
    return NULL;
}

enum rq_err rq_active_new(struct rq_active **ret_active)
{
    struct rq_active *a = calloc(1, sizeof *a);
    if (a == NULL) {
        return RQ_NOMEM;
    }
    pthread_mutex_init(&a->lock, NULL);
    a->credit = CREDIT_MAX / 2;
    a->lines = epoll_create1(EPOLL_CLOEXEC);
    if (a->lines < 0) {
        free(a);
        return RQ_IO;
    }
    enum rq_err err = rq_door_init(&a->door, a->lines);
    if (err != RQ_OK) {
        goto undo_lines;
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, active_thread, a) != 0) {
            if (i > 0) {
                break; /* those that are there do */
            }
            err = RQ_NOMEM;
            goto undo_door;
        }
        (void)pthread_setname_np(thread, "raftd-lines"); /* for ps only */
        pthread_detach(thread);
    }
    *ret_active = a;
    return RQ_OK;

undo_door:
    rq_door_fini(&a->door);
undo_lines:
    close(a->lines);
    free(a);
    return err;
}
