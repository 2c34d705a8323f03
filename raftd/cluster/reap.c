/* Reap: the leader removes members that it has not heard for a long time, if the operator wants that. */
#include <stddef.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"

#define LOOK_MS 500u

static void reaped(void *ctx, enum rq_err err)
{
    (void)ctx;
    if (err == RQ_OK) {
        RQ_COUNT(store, nodes_reaped_ok);
    } else { /* it is tried again as long as that node is a member */
        RQ_COUNT(store, nodes_reaped_failed);
    }
}

/* As long as the leader has been one: what its predecessor heard is not known. */
static uint64_t silent_ms(struct rq_cluster *c, const struct rq_member *m, uint64_t now)
{
    struct rq_peer_state state;
    const uint64_t led_ms = now - c->reaper.leads_since_ms;
    if (!rq_peers_state(c->peers, m->instance, &state)) {
        return 0;
    }
    return state.heard_ms_ago < led_ms ? state.heard_ms_ago : led_ms;
}

static void reap(struct rq_cluster *c, struct rq_node *node, uint64_t now)
{
    struct rq_members members;
    rq_cluster_members(c, &members);
    for (unsigned i = 0; i < members.count; i++) {
        const struct rq_member *m = &members.list[i];
        const uint64_t limit = m->votes ? c->config.reap_voter_ms : c->config.reap_reader_ms;
        if (m->instance == c->config.instance || limit == 0 || silent_ms(c, m, now) < limit) {
            continue;
        }
        if (rq_node_remove(node, m->instance, reaped, NULL) == RQ_OK) {
            rq_note(RQ_LEVEL_WARN, "node removed, it was not heard for too long", "node=%s limit_ms=%llu", m->name,
                    (unsigned long long)limit);
        }
        return; /* one at a time */
    }
}

static void run_reap(struct rq_task *task)
{
    struct rq_cluster *c = (struct rq_cluster *)((char *)task - offsetof(struct rq_cluster, reaper.task));
    struct rq_driver *d = atomic_load(&c->driver);
    struct rq_node *node = rq_driver_node(d);
    const uint64_t now = rq_clock_ms();
    if (!rq_node_leads(node)) {
        c->reaper.leads_since_ms = 0;
    } else if (c->reaper.leads_since_ms == 0) {
        c->reaper.leads_since_ms = now;
    } else {
        reap(c, node, now);
    }
    rq_reaper_start(c);
}

void rq_reaper_start(struct rq_cluster *c)
{
    struct rq_driver *d = atomic_load(&c->driver);
    if (c->config.reap_voter_ms == 0 && c->config.reap_reader_ms == 0) {
        return;
    }
    c->reaper.task.run = run_reap;
    c->reaper.later = (struct rq_later){ .strand = rq_driver_loop(d), .task = &c->reaper.task };
    rq_driver_post_later(d, &c->reaper.later, LOOK_MS);
}
