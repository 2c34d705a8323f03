/* Loop: a thread that drives a libmicrohttpd daemon, which waits by epoll, and accepts connections for it.
 *
 * With libmicrohttpd's own threads each event costs a look at every connection there is, if they poll; if they wait by epoll they
 * stall when 128 connections are ready at once. */
#ifndef RAFTD_HTTP_LOOP_H
#define RAFTD_HTTP_LOOP_H

#include <microhttpd.h>
#include <stdbool.h>

#include "raftd/wire/err.h"

#define RQ_HTTP_LOOP_DOORS 2u

struct rq_http_loop;

struct rq_http_loop_config {
    struct MHD_Daemon *daemon;                 /* takes it, also when there can be no loop: then it is stopped */
    int doors[RQ_HTTP_LOOP_DOORS];             /* borrows: listening sockets that do not block; -1: none */
    bool (*accepts)(void *ctx, unsigned door); /* now? */
    void (*each_second)(void *ctx);
    void *ctx; /* for both; they are called on the thread */
};

enum rq_err rq_http_loop_new(const struct rq_http_loop_config *config, struct rq_http_loop **ret_loop);
void rq_http_loop_free(struct rq_http_loop *l); /* stops the daemon; no connection is suspended */
void rq_http_loop_wake(struct rq_http_loop *l); /* any thread: it may accept by now */

#endif
