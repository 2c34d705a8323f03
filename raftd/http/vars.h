/* Vars: what this process counts and measures.
 *
 *   GET /debug/vars[?key=SECTION]  counters, by section: rqlite's, as far as they exist here
 *   GET /metrics                   all of it, and the state of node and databases, in Prometheus' text format */
#ifndef RAFTD_HTTP_VARS_H
#define RAFTD_HTTP_VARS_H

#include "raftd/http/admin.h"
#include "raftd/http/server.h"

extern const struct rq_http_route rq_vars_routes[]; /* their ctx is a struct rq_admin */
extern const size_t rq_vars_route_count;

#endif
