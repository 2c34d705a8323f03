/* Learn: who the members are, from one of them, before the log says it.
 *
 * A node that is behind knows the members of the place in the log where it is.  The leader need not be among them: it may have
 * joined later, in the place of one that has lost its disk, and then each of the two would refuse the other for ever.  So a member
 * that is still known, and has proved that it is one, is asked; whom it names may connect, too, until the log has got as far. */
#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/cluster_impl.h"

#define LEARN_WAIT_MS 2000

struct learning {
    struct rq_task task; /* on the loop */
    struct rq_cluster *cluster;
    struct rq_members told;
};

static void run_told(struct rq_task *task)
{
    struct learning *l = (struct learning *)task;
    rq_cluster_told(l->cluster, &l->told);
    free(l);
}

static void on_told(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct learning *l = ctx;
    struct rq_ask_joined joined;
    if (err == RQ_OK && rq_ask_get_joined(data, bytes, &joined) == RQ_OK && joined.members_bytes > 0 &&
        rq_members_decode(joined.members, joined.members_bytes, &l->told) == RQ_OK) {
        l->task.run = run_told;
        rq_strand_post(rq_driver_loop(atomic_load(&l->cluster->driver)), &l->task, RQ_HAND_OVER);
    } else {
        free(l); /* it is asked for again */
    }
}

static void run_ask(struct rq_task *task)
{
    struct learning *l = (struct learning *)task;
    const uint64_t whom = rq_cluster_someone(l->cluster);
    struct rq_member self;
    struct rq_bytes body;
    rq_cluster_self(l->cluster, &self);
    const struct rq_ask ask = rq_cluster_join_ask(RQ_ASK_NOTIFY, &self);
    rq_bytes_init(&body, 1u << 16);
    enum rq_err err = whom != 0 ? rq_ask_put(&body, &ask) : RQ_AWAY;
    if (err == RQ_OK) {
        struct iovec part = { body.data, body.size };
        err = rq_peers_request(l->cluster->peers, whom, &part, 1, LEARN_WAIT_MS, on_told, l);
    }
    if (err != RQ_OK) {
        free(l);
    }
    rq_bytes_fini(&body);
}

void rq_cluster_learn(struct rq_cluster *c)
{
    struct learning *l = malloc(sizeof *l);
    if (l != NULL) {
        l->task.run = run_ask;
        l->cluster = c;
        rq_strand_post(rq_driver_loop(atomic_load(&c->driver)), &l->task, RQ_HAND_OVER);
    }
}
