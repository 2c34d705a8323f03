/* Between cluster_turn.c and the rest of the cluster. */
#ifndef RAFTD_CLUSTER_CLUSTER_TURN_H
#define RAFTD_CLUSTER_CLUSTER_TURN_H

#include "raftd/cluster/cluster_impl.h"
#include "raftd/db/catalog.h"

struct rq_cluster_turns;

enum rq_err rq_cluster_turns_new(struct rq_cluster *c, struct rq_cluster_turns **ret_turns);
void rq_cluster_turns_free(struct rq_cluster_turns *t);
/* From here on the catalog's databases are spoken to. */
void rq_cluster_turn_start(struct rq_cluster_turns *t, struct rq_catalog *catalog);

/* A request of another node: TURN_TAKE, TURN_WANTED, TURN_HELD; takes the call.  On the peers' thread. */
void rq_cluster_asked_turn(struct rq_cluster_turns *t, const struct rq_peer_who *from, struct rq_call *call,
                           const struct rq_ask *ask);
/* The leader wants to know of a turn that this host has; takes the call, NULL: this node leads.  Any thread. */
void rq_cluster_turn_wanted(struct rq_cluster_turns *t, struct rq_call *call, uint32_t db_id, uint64_t serial);

/* Loop context. */
void rq_cluster_turn_role(struct rq_cluster_turns *t, bool leads, uint64_t term, uint64_t leader);
/* This node is about to end: a new leader is not told that anything is held here.  Any thread. */
void rq_cluster_turn_leave(struct rq_cluster_turns *t);
/* The members are others than before. */
void rq_cluster_turn_members(struct rq_cluster_turns *t);

#endif
