#include "raftd/http/guests.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>

struct list {
    struct rq_guest *first, *last; /* who came to it the longest ago is the first */
};

struct rq_guest {
    struct list *in;
    struct rq_guest *previous, *next;
    int fd;
};

struct rq_guests {
    pthread_mutex_t lock;        /* what follows, and all guests */
    struct list waiting, served; /* each is in one of them, or was sent away */
    unsigned count, full;        /* more than that is nearly full */
};

enum rq_err rq_guests_new(unsigned room, struct rq_guests **ret_guests)
{
    struct rq_guests *g = calloc(1, sizeof *g);
    if (g == NULL) {
        return RQ_NOMEM;
    }
    g->full = room - room / 8;
    pthread_mutex_init(&g->lock, NULL);
    *ret_guests = g;
    return RQ_OK;
}

void rq_guests_free(struct rq_guests *g)
{
    if (g != NULL) {
        pthread_mutex_destroy(&g->lock);
        free(g);
    }
}

static void take_out(struct rq_guest *guest)
{
    struct list *in = guest->in;
    if (in != NULL) {
        *(guest->previous != NULL ? &guest->previous->next : &in->first) = guest->next;
        *(guest->next != NULL ? &guest->next->previous : &in->last) = guest->previous;
        guest->in = NULL;
    }
}

static void put(struct list *to, struct rq_guest *guest)
{
    guest->in = to;
    guest->previous = to->last;
    guest->next = NULL;
    *(to->last != NULL ? &to->last->next : &to->first) = guest;
    to->last = guest;
}

struct rq_guest *rq_guests_enter(struct rq_guests *g, int fd)
{
    struct rq_guest *guest = calloc(1, sizeof *guest);
    if (guest == NULL) {
        return NULL;
    }
    guest->fd = fd;
    pthread_mutex_lock(&g->lock);
    struct rq_guest *goes = ++g->count > g->full ? g->waiting.first : NULL;
    if (goes != NULL) {
        (void)shutdown(goes->fd, SHUT_RDWR); /* is still open: it has not left */
        take_out(goes);
    }
    put(&g->waiting, guest);
    pthread_mutex_unlock(&g->lock);
    return guest;
}

void rq_guests_leave(struct rq_guests *g, struct rq_guest *guest)
{
    if (guest != NULL) {
        pthread_mutex_lock(&g->lock);
        take_out(guest);
        g->count--;
        pthread_mutex_unlock(&g->lock);
        free(guest);
    }
}

static void move(struct rq_guests *g, struct list *to, struct rq_guest *guest)
{
    if (guest != NULL) {
        pthread_mutex_lock(&g->lock);
        if (guest->in != NULL) {
            take_out(guest);
            put(to, guest);
        }
        pthread_mutex_unlock(&g->lock);
    }
}

void rq_guests_waits(struct rq_guests *g, struct rq_guest *guest)
{
    move(g, &g->waiting, guest);
}

void rq_guests_gave(struct rq_guests *g, struct rq_guest *guest, size_t bytes)
{
    if (bytes >= RQ_GUEST_PIECE_MIN) {
        move(g, &g->waiting, guest);
    }
}

void rq_guests_is_served(struct rq_guests *g, struct rq_guest *guest)
{
    move(g, &g->served, guest);
}

static unsigned watch(const struct list *list, struct pollfd *fds)
{
    unsigned count = 0;
    for (const struct rq_guest *guest = list->first; guest != NULL; guest = guest->next) {
        fds[count++] = (struct pollfd){ .fd = guest->fd, .events = POLLRDHUP };
    }
    return count;
}

void rq_guests_stir(struct rq_guests *g)
{
    pthread_mutex_lock(&g->lock);
    struct pollfd *fds = g->count > 0 ? malloc(g->count * sizeof *fds) : NULL;
    if (fds != NULL) { /* else a second later */
        unsigned count = watch(&g->waiting, fds);
        count += watch(&g->served, fds + count);
        if (poll(fds, count, 0) > 0) {
            for (unsigned i = 0; i < count; i++) {
                if (fds[i].revents != 0) {
                    (void)shutdown(fds[i].fd, SHUT_RD); /* which it is already: to the other side nothing happens */
                }
            }
        }
    }
    pthread_mutex_unlock(&g->lock);
    free(fds);
}
