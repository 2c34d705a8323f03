/* Begin: the endpoints of transactions that stay open from one request to the next (transactions.h).
 *
 *   POST /db/begin             {"tx":"ID", ...}: to be given as tx=ID to /db/execute, /db/query, /db/request, on the same node
 *   POST /db/commit?tx=ID
 *   POST /db/rollback?tx=ID */
#ifndef RAFTD_HTTP_BEGIN_H
#define RAFTD_HTTP_BEGIN_H

#include "raftd/http/admin.h"
#include "raftd/http/server.h"
#include "raftd/http/transactions.h"

extern const struct rq_http_route rq_begin_routes[]; /* their ctx is a struct rq_admin */
extern const size_t rq_begin_route_count;

/* The answer to who cannot have a transaction, as rq_transaction_take() says.  FOREIGN may wait for the other node. */
void rq_transaction_refuse(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                           enum rq_err err, const struct rq_tx_found *found);

#endif
