#include "raftd/http/guests.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

struct rq_guest {
    struct rq_guest *previous, *next; /* among those that wait */
    int fd;
    bool waits;
};

struct rq_guests {
    pthread_mutex_t lock;          /* what follows, and all guests */
    struct rq_guest *first, *last; /* who waits: the longest first */
    unsigned count, full;          /* more than that is nearly full */
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

static void take_out(struct rq_guests *g, struct rq_guest *guest)
{
    if (guest->waits) {
        *(guest->previous != NULL ? &guest->previous->next : &g->first) = guest->next;
        *(guest->next != NULL ? &guest->next->previous : &g->last) = guest->previous;
        guest->waits = false;
    }
}

static void put_last(struct rq_guests *g, struct rq_guest *guest)
{
    take_out(g, guest);
    guest->previous = g->last;
    guest->next = NULL;
    *(g->last != NULL ? &g->last->next : &g->first) = guest;
    g->last = guest;
    guest->waits = true;
}

struct rq_guest *rq_guests_enter(struct rq_guests *g, int fd)
{
    struct rq_guest *guest = calloc(1, sizeof *guest);
    if (guest == NULL) {
        return NULL;
    }
    guest->fd = fd;
    pthread_mutex_lock(&g->lock);
    struct rq_guest *goes = ++g->count > g->full ? g->first : NULL;
    if (goes != NULL) {
        (void)shutdown(goes->fd, SHUT_RDWR); /* is still open: it has not left */
        take_out(g, goes);
    }
    put_last(g, guest);
    pthread_mutex_unlock(&g->lock);
    return guest;
}

void rq_guests_leave(struct rq_guests *g, struct rq_guest *guest)
{
    if (guest != NULL) {
        pthread_mutex_lock(&g->lock);
        take_out(g, guest);
        g->count--;
        pthread_mutex_unlock(&g->lock);
        free(guest);
    }
}

void rq_guests_waits(struct rq_guests *g, struct rq_guest *guest)
{
    if (guest != NULL) {
        pthread_mutex_lock(&g->lock);
        put_last(g, guest);
        pthread_mutex_unlock(&g->lock);
    }
}

void rq_guests_gave(struct rq_guests *g, struct rq_guest *guest, size_t bytes)
{
    if (bytes >= RQ_GUEST_PIECE_MIN) {
        rq_guests_waits(g, guest);
    }
}

void rq_guests_is_served(struct rq_guests *g, struct rq_guest *guest)
{
    if (guest != NULL) {
        pthread_mutex_lock(&g->lock);
        take_out(g, guest);
        pthread_mutex_unlock(&g->lock);
    }
}
