/* Nodes: the endpoints about the members of the cluster.
 *
 *   GET /nodes[?nonvoters][&ver=2][&timeout=D]  who they are, and whether each answers
 *   GET /leader                                 the same of the leader
 *   POST /leader[?wait]                         {"id": "NODE"}: leadership goes to that voter, or to any other
 *   DELETE /remove                              {"id": "NODE"}: is no member any more */
#ifndef RAFTD_HTTP_NODES_H
#define RAFTD_HTTP_NODES_H

#include "raftd/http/admin.h"
#include "raftd/http/server.h"

extern const struct rq_http_route rq_nodes_routes[]; /* their ctx is a struct rq_admin */
extern const size_t rq_nodes_route_count;

#endif
