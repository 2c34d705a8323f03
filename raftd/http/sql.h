/* SQL: the endpoints that run it, as rqlited's.
 *
 *   POST /db/execute       writes; with `queue` it is answered before it is done
 *   GET|POST /db/query     reads, at a consistency level
 *   POST /db/request       both
 *
 * With tx=ID they run in a transaction that /db/begin has begun (begin.h); else:
 *
 * Everything runs on the node that was asked.  What may write goes to the database's executor, which has the cluster's turn then, as
 * any application; so the outcome is found out by this node's own state machine, and no result travels.  What only reads, reads this
 * host's file, once that is as fresh as the level asks for. */
#ifndef RAFTD_HTTP_SQL_H
#define RAFTD_HTTP_SQL_H

#include <stdbool.h>

#include "raftd/http/admin.h"
#include "raftd/http/server.h"
#include "raftd/http/transactions.h"
#include "raftd/http/upkeep.h"
#include "raftd/http/write_queue.h"
#include "raftd/wire/err.h"

struct rq_desks;
struct rq_sql_service;

struct rq_sql_service_config {
    struct rq_admin *admin; /* borrows */
    bool foreign_keys;
    unsigned readers_max; /* connections of one database that only read; 0: any number */
    struct rq_write_queue_config queue;
    struct rq_upkeep_config upkeep;
    struct rq_transactions_config transactions; /* without the instance */
};

enum rq_err rq_sql_service_new(const struct rq_sql_service_config *config, struct rq_sql_service **ret_service);
/* The catalog is there; before the driver is, which is when the endpoints begin to do more than to say that the node does not serve. */
enum rq_err rq_sql_service_open(struct rq_sql_service *s);

/* No more queued writes; waits for a while until those that there are have been made.  Transactions that clients keep open are rolled
 * back. */
void rq_sql_service_drain(struct rq_sql_service *s);
const struct rq_write_queue *rq_sql_service_queue(const struct rq_sql_service *s);
/* Borrows; from then on. */
struct rq_desks *rq_sql_service_desks(struct rq_sql_service *s);
struct rq_transactions *rq_sql_service_transactions(struct rq_sql_service *s); /* NULL before open */

extern const struct rq_http_route rq_sql_routes[]; /* their ctx is the service */
extern const size_t rq_sql_route_count;

#endif
