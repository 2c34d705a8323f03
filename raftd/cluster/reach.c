/* Reach: a voter that does not hear the leader, but hears somebody who does, gets a leader that it hears.
 *
 * Votes do not bring this about: whoever hears the leader does not vote against it.  So the one between them, who hears both, tells
 * the leader, and if the leader does not hear that voter either, it hands over to the one between.  A leader that nobody misses
 * stays; who stands for a moment only, after a pause or a start, is none that misses it. */
#include <stdlib.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"

#define STANDS_MS    ((uint64_t)RQ_NODE_ELECTION_MS) /* so long it has to stand */
#define FORGOTTEN_MS ((uint64_t)4 * RQ_NODE_ELECTION_MS)
#define AGAIN_MS     3000u /* between two such hand-overs, or questions for one */
#define ANSWER_MS    1000u

static void on_answer(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    (void)ctx; /* it leads on, or hands over: the node sees which */
    (void)err;
    (void)data;
    (void)bytes;
}

static void tell_leader(struct rq_cluster *c, uint64_t leader, uint64_t instance)
{
    struct rq_bytes body;
    const struct rq_ask ask = { .kind = RQ_ASK_REACH, .instance = instance };
    rq_bytes_init(&body, 64);
    if (rq_ask_put(&body, &ask) == RQ_OK) {
        struct iovec part = { body.data, body.size };
        (void)rq_peers_request(c->peers, leader, &part, 1, ANSWER_MS, on_answer, NULL); /* else at its next try */
    }
    rq_bytes_fini(&body);
}

static bool is_voter(struct rq_cluster *c, uint64_t instance)
{
    struct rq_members members;
    rq_cluster_members(c, &members);
    const struct rq_member *m = rq_members_find(&members, instance);
    return m != NULL && m->role == RQ_MEMBER_VOTER;
}

void rq_cluster_stands(struct rq_cluster *c, uint64_t instance)
{
    struct rq_standing *s = &c->standing;
    const uint64_t leader = rq_driver_view(atomic_load(&c->driver)).leader_id, now = rq_clock_ms();
    if (leader == 0 || leader == instance || leader == c->config.instance) {
        s->instance = 0;
        return;
    }
    if (s->instance != instance || now - s->last_ms > FORGOTTEN_MS) {
        s->instance = instance;
        s->since_ms = now;
    }
    s->last_ms = now;
    if (now - s->since_ms >= STANDS_MS && now - s->asked_ms >= AGAIN_MS && is_voter(c, instance) &&
        is_voter(c, c->config.instance)) {
        s->asked_ms = now;
        tell_leader(c, leader, instance);
    }
}

/* --- the leader's ------------------------------------------------------------------------------------------------------------- */

struct reach {
    struct rq_task task;
    struct rq_cluster *cluster;
    struct rq_call *call;
    uint64_t from, instance;
};

static void handed_over(void *ctx, enum rq_err err)
{
    (void)ctx;
    rq_note(RQ_LEVEL_INFO, "leadership goes to a node that hears more of the others", "err=%s", rq_err_name(err));
}

static void run_reach(struct rq_task *task)
{
    struct reach *r = (struct reach *)task;
    struct rq_node *node = rq_driver_node(atomic_load(&r->cluster->driver));
    const uint64_t now = rq_clock_ms();
    if (rq_node_leads(node) && !rq_node_hears(node, r->instance) && rq_node_hears(node, r->from) &&
        now - r->cluster->standing.asked_ms >= AGAIN_MS) {
        r->cluster->standing.asked_ms = now;
        (void)rq_node_transfer(node, r->from, handed_over, NULL); /* BUSY: it is handed over already */
    }
    rq_call_answer(r->call, NULL, 0);
    free(r);
}

void rq_cluster_asked_reach(struct rq_cluster *c, const struct rq_peer_who *from, struct rq_call *call,
                            const struct rq_ask *ask)
{
    struct rq_driver *d = atomic_load(&c->driver);
    struct reach *r = d != NULL ? malloc(sizeof *r) : NULL;
    if (r == NULL) {
        rq_call_fail(call, d == NULL ? RQ_AWAY : RQ_NOMEM, "");
        return;
    }
    *r = (struct reach){ { .run = run_reach }, c, call, from->instance, ask->instance };
    rq_strand_post(rq_driver_loop(d), &r->task, RQ_HAND_OVER);
}
