/* Resolve: names of hosts into addresses, on a thread of its own, because the library waits for name servers.
 *
 * One name after another: while one waits for a server that does not answer, the others wait, too.  Addresses in digits need no
 * thread. */
#ifndef RAFTD_NET_RESOLVE_H
#define RAFTD_NET_RESOLVE_H

#include <stdbool.h>
#include <sys/socket.h>

#include "raftd/wire/err.h"

#define RQ_ADDRESSES_MAX 8

struct rq_addresses {
    unsigned count;
    struct sockaddr_storage all[RQ_ADDRESSES_MAX];
    socklen_t bytes[RQ_ADDRESSES_MAX];
};

/* host:port; waits.  The host may be empty when listening: any address.  NOTFOUND; why borrows a constant. */
enum rq_err rq_resolve_now(const char *address, bool to_listen, struct rq_addresses *ret_addresses,
                           const char **ret_why);
/* The same for digits alone; NOTFOUND for names. */
enum rq_err rq_resolve_digits(const char *address, struct rq_addresses *ret_addresses);

struct rq_resolver;
struct rq_resolve_job {
    struct rq_resolve_job *next;
    const char *address; /* borrows until done */
    enum rq_err err;
    const char *why;
    struct rq_addresses addresses;
};

/* done: on the resolver's thread; gives the job back. */
enum rq_err rq_resolver_new(void (*done)(void *ctx, struct rq_resolve_job *job), void *ctx,
                            struct rq_resolver **ret_resolver);
/* Waits for the name that is being looked up; jobs that it has not begun are given back with SHUTDOWN. */
void rq_resolver_free(struct rq_resolver *r);
void rq_resolver_post(struct rq_resolver *r, struct rq_resolve_job *job);

#endif
