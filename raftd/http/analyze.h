/* Analyze: GET|POST /db/sql, which tells what a statement becomes before it is run.  Here that is nothing but itself, or why it is no
 * statement; the client's words are kept. */
#ifndef RAFTD_HTTP_ANALYZE_H
#define RAFTD_HTTP_ANALYZE_H

#include <stddef.h>

#include "raftd/http/server.h"

extern const struct rq_http_route rq_analyze_routes[]; /* without ctx */
extern const size_t rq_analyze_route_count;

#endif
