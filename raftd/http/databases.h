/* Databases: the endpoints about all of them.
 *
 *   GET /db             the databases, and the files that are not replicated
 *   POST /db?db=NAME    creates one, on all hosts; 200 also when it is there
 *   DELETE /db?db=NAME  drops one, on all hosts */
#ifndef RAFTD_HTTP_DATABASES_H
#define RAFTD_HTTP_DATABASES_H

#include <yyjson.h>

#include "raftd/http/admin.h"
#include "raftd/http/server.h"

extern const struct rq_http_route rq_databases_routes[]; /* their ctx is a struct rq_admin */
extern const size_t rq_databases_route_count;

/* ?db=, or the one that rqlite's clients mean. */
const char *rq_admin_database_name(const struct rq_http_request *request);
/* Finds it, or creates it.  Counted.  Errors of rq_catalog_create(); UNKNOWN also: not in time.  Blocks. */
enum rq_err rq_admin_create(struct rq_admin *a, const char *name, unsigned timeout_ms, struct rq_database **ret_db);
const char *rq_admin_create_text(enum rq_err err);

/* What is said of one. */
void rq_http_put_database(yyjson_mut_doc *doc, yyjson_mut_val *in, struct rq_database *db);

#endif
