/* Guests: the connections of HTTP clients.  There is room for so many; when it is nearly full, a newcomer takes the place of the one
 * that has let us wait for a whole request the longest.  So clients that are idle, slow or hostile keep nobody out, however many they
 * are; who is being answered keeps his place.
 * Any thread. */
#ifndef RAFTD_HTTP_GUESTS_H
#define RAFTD_HTTP_GUESTS_H

#include <stddef.h>

#include "raftd/wire/err.h"

#define RQ_GUEST_PIECE_MIN 512u /* a body that comes in smaller pieces is as good as none */

struct rq_guests;
struct rq_guest;

enum rq_err rq_guests_new(unsigned room, struct rq_guests **ret_guests);
void rq_guests_free(struct rq_guests *g); /* nobody is there any more; NULL is fine */

/* NULL: no memory, and it has no place to lose. */
struct rq_guest *rq_guests_enter(struct rq_guests *g, int fd);
void rq_guests_leave(struct rq_guests *g, struct rq_guest *guest); /* before fd is closed */

/* Each takes NULL as well. */
void rq_guests_waits(struct rq_guests *g, struct rq_guest *guest);              /* for a request, from now on */
void rq_guests_gave(struct rq_guests *g, struct rq_guest *guest, size_t bytes); /* of a body */
void rq_guests_is_served(struct rq_guests *g, struct rq_guest *guest);

/* Wakes who waits by epoll, edge triggered, for guests that have hung up: it may have taken what they sent last for all there is. */
void rq_guests_stir(struct rq_guests *g);

#endif
