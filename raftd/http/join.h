/* Join: -join http://HOST:PORT.  A node joins through the raft port, where it can prove its key; what it asks by HTTP is where
 * that is.
 *
 *   POST /join    {"addr": "HOST:PORT"}: the raft address of this node, also before it is in a cluster */
#ifndef RAFTD_HTTP_JOIN_H
#define RAFTD_HTTP_JOIN_H

#include "raftd/cluster/cluster.h"
#include "raftd/http/credentials.h"
#include "raftd/http/https.h"
#include "raftd/http/server.h"

extern const struct rq_http_route rq_join_routes[]; /* their ctx is a struct rq_admin */
extern const size_t rq_join_route_count;

/* The other side of it.  AWAY: try again; PERM: not with this login.  Blocks. */
enum rq_err rq_join_find(const char *url, const struct rq_login *login, const struct rq_http_tls_files *tls,
                         char address[RQ_PEERS_ADDRESS_MAX], char text[RQ_TEXT_MAX + 1]);

#endif
