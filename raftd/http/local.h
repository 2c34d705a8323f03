/* Local: HTTP on a unix socket.  Who may connect is decided by the permissions of its file; the rest is as on the port. */
#ifndef RAFTD_HTTP_LOCAL_H
#define RAFTD_HTTP_LOCAL_H

#include "raftd/wire/err.h"

/* Listens; a socket that nobody listens on any more is replaced.  The descriptor; -1: text says why not. */
int rq_http_local_listen(const char *path, char text[256]);

#endif
