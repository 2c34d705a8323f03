/* Status: the endpoints about this node.
 *
 *   GET /readyz[?noleader][?sync]   rqlite's text: does the leader answer, is this node ready, has it what was committed
 *   GET /status[?key=a.b][&pretty]  rqlite's keys as far as they exist here, and the databases */
#ifndef RAFTD_HTTP_STATUS_H
#define RAFTD_HTTP_STATUS_H

#include "raftd/http/admin.h"
#include "raftd/http/server.h"

extern const struct rq_http_route rq_status_routes[]; /* their ctx is a struct rq_admin */
extern const size_t rq_status_route_count;

#endif
