/* Recent: waiting until this host's files are as a linearizable read has to find them. */
#ifndef RAFTD_HTTP_RECENT_H
#define RAFTD_HTTP_RECENT_H

#include <stdbool.h>

#include "raftd/http/admin.h"
#include "raftd/http/server.h"

/* They show all that was committed, on any host, before the call; else the answer is made: 503.  The node serves.  Blocks, for a route
 * that waits. */
bool rq_http_recent(struct rq_admin *a, unsigned timeout_ms, struct rq_http_response *response);

#endif
