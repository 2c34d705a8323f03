/* About: what is the same on every node.
 *
 *   GET /licenses  this program's, and those of what it is made with */
#ifndef RAFTD_HTTP_ABOUT_H
#define RAFTD_HTTP_ABOUT_H

#include "raftd/http/server.h"

extern const struct rq_http_route rq_about_routes[]; /* without ctx */
extern const size_t rq_about_route_count;

#endif
