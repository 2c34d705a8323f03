/* Local: HTTP on a unix socket.  Who may connect is decided by the permissions of its file; the rest is as on the port. */
#ifndef RAFTD_HTTP_LOCAL_H
#define RAFTD_HTTP_LOCAL_H

#include <microhttpd.h>

#include "raftd/wire/err.h"

struct rq_http_local;

/* Borrows daemon.  A socket that nobody listens on any more is replaced.  IO: text says why not. */
enum rq_err rq_http_local_new(struct MHD_Daemon *daemon, const char *path, struct rq_http_local **ret_local,
                              char text[256]);
void rq_http_local_free(struct rq_http_local *l); /* before the daemon stops; NULL is fine */

#endif
