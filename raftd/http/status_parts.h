/* Status parts: what GET /status is made of.  Keys are rqlite's, in byte order where they are many. */
#ifndef RAFTD_HTTP_STATUS_PARTS_H
#define RAFTD_HTTP_STATUS_PARTS_H

#include <yyjson.h>

#include "raftd/http/admin.h"

/* "store": log, members, databases, and the default one in detail. */
void rq_status_put_store(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *root);
/* "node", "os", "runtime", "network". */
void rq_status_put_host(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *root);

#endif
