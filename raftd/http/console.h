/* Console: a page for a browser, made of the other endpoints.
 *
 *   GET /           to /console/
 *   GET /console/   the page; /console leads there */
#ifndef RAFTD_HTTP_CONSOLE_H
#define RAFTD_HTTP_CONSOLE_H

#include "raftd/http/server.h"

extern const struct rq_http_route rq_console_routes[]; /* without ctx */
extern const size_t rq_console_route_count;

#endif
