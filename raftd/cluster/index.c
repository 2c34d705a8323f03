/* Index: how far the log is committed, asked of the leader by a node that somebody reads on. */
#include <stddef.h>
#include <stdlib.h>

#include "raftd/cluster/cluster_impl.h"

#define INDEX_WAIT_MS 1000 /* for the leader's answer; who gets none asks again */

/* --- asked of the leader ----------------------------------------------------------------------------------------------------- */

struct question {
    struct rq_cluster *cluster;
    uint64_t number;
};

static void on_index(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct question *q = ctx;
    uint64_t index = 0;
    if (err == RQ_OK) {
        err = rq_ask_get_index(data, bytes, &index);
    }
    rq_driver_index(atomic_load(&q->cluster->driver), q->number, err, index);
    free(q);
}

void rq_cluster_ask_index(void *ctx, uint64_t leader_id, uint64_t question)
{
    struct rq_cluster *c = ctx;
    struct question *q = malloc(sizeof *q);
    struct rq_bytes body;
    rq_bytes_init(&body, 64);
    enum rq_err err = q == NULL ? RQ_NOMEM : rq_ask_put(&body, &(struct rq_ask){ .kind = RQ_ASK_INDEX });
    struct rq_peer_state state;
    if (err == RQ_OK && (!rq_peers_state(c->peers, leader_id, &state) || !state.connected[RQ_PEER_REQUESTS])) {
        err = RQ_AWAY; /* by the time there is a connection another may lead */
    }
    if (err == RQ_OK) {
        *q = (struct question){ c, question };
        struct iovec part = { body.data, body.size };
        err = rq_peers_request(c->peers, leader_id, &part, 1, INDEX_WAIT_MS, on_index, q);
    }
    rq_bytes_fini(&body);
    if (err != RQ_OK) {
        free(q);
        rq_driver_index(atomic_load(&c->driver), question, err, 0);
    }
}

/* --- asked of this node -------------------------------------------------------------------------------------------------------- */

struct asked_index {
    struct rq_task task; /* on the loop */
    struct rq_node_read read;
    struct rq_driver *driver;
    struct rq_call *call;
    uint64_t from;
};

static void found(struct rq_node_read *read, enum rq_err err, uint64_t index)
{
    struct asked_index *a = (struct asked_index *)((char *)read - offsetof(struct asked_index, read));
    struct rq_bytes reply;
    rq_bytes_init(&reply, 64);
    if (err == RQ_OK) {
        rq_node_awaited(rq_driver_node(a->driver), a->from, index);
        err = rq_ask_put_index(&reply, index);
    }
    rq_cluster_reply(a->call, &reply, err);
    free(a);
}

static void run_asked_index(struct rq_task *task)
{
    struct asked_index *a = (struct asked_index *)task;
    rq_driver_read_index(a->driver, &a->read);
}

void rq_cluster_asked_index(struct rq_cluster *c, uint64_t from, struct rq_call *call)
{
    struct rq_driver *d = atomic_load(&c->driver);
    struct asked_index *a = malloc(sizeof *a);
    if (d == NULL || a == NULL) {
        free(a);
        rq_call_fail(call, d == NULL ? RQ_AWAY : RQ_NOMEM, "");
        return;
    }
    *a = (struct asked_index){ { .run = run_asked_index }, { .done = found }, d, call, from };
    rq_strand_post(rq_driver_loop(d), &a->task, RQ_CARRY);
}
