/* Load: what a client sends becomes the content of a database.
 *
 *   POST /db/load[?db=NAME]  a SQLite file, of any size: replaces the content on all hosts, as one transaction (raftd/db/load.h);
 *                            or SQL, also of any size: run as one transaction (load_sql.h)
 *   POST /boot[?db=NAME]     a SQLite file, where this node is the whole cluster
 *
 * The body goes into a file of raft/staged/ as it comes.  A database that there is none of is created. */
#ifndef RAFTD_HTTP_LOAD_H
#define RAFTD_HTTP_LOAD_H

#include "raftd/http/admin.h"
#include "raftd/http/server.h"

extern const struct rq_http_route rq_load_routes[]; /* their ctx is a struct rq_admin */
extern const size_t rq_load_route_count;

#endif
