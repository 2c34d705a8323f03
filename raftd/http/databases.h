/* Databases: the endpoints about all of them.
 *
 *   GET /db             the databases, and the files that are not replicated
 *   DELETE /db?db=NAME  drops one, on all hosts */
#ifndef RAFTD_HTTP_DATABASES_H
#define RAFTD_HTTP_DATABASES_H

#include <yyjson.h>

#include "raftd/http/admin.h"
#include "raftd/http/server.h"

extern const struct rq_http_route rq_databases_routes[]; /* their ctx is a struct rq_admin */
extern const size_t rq_databases_route_count;

/* What is said of one. */
void rq_http_put_database(yyjson_mut_doc *doc, yyjson_mut_val *in, struct rq_database *db);

#endif
