#include "raftd/node/reads.h"

#include <stddef.h>

#include "raftd/node/filter.h"

static uint64_t answered_round(const struct rq_reads *rs, uint64_t id)
{
    for (unsigned i = 0; i < rs->answered_count; i++) {
        if (rs->answered[i].id == id) {
            return rs->answered[i].round;
        }
    }
    return 0;
}

/* By the members in force now: they may have changed since the round began, one at a time, so that majorities meet. */
static bool majority_answered(const struct rq_reads *rs, const struct raft *r, uint64_t round)
{
    unsigned voters = 0, with_us = 0;
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        if (s->role == RAFT_VOTER) {
            voters++;
            with_us += s->id == r->id || answered_round(rs, s->id) >= round;
        }
    }
    return with_us > voters / 2;
}

static void begin_round(struct rq_reads *rs, struct rq_core *core)
{
    const struct raft *r = &core->raft;
    if (rs->term != r->current_term) {
        rs->term = r->current_term;
        rs->answered_count = 0;
    }
    rs->round++;
    rs->index = core->committed;
    rs->asked_ms = core->now_ms;
    const struct rq_round round = { .term = rs->term, .round = rs->round };
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        if (s->role == RAFT_VOTER && s->id != r->id) {
            core->env.send_round(core->env.ctx, s->id, &round);
        }
    }
}

static struct rq_node_read *take_first(struct rq_reads *rs)
{
    struct rq_node_read *r = rs->first;
    rs->first = r->next;
    if (rs->first == NULL) {
        rs->last = &rs->first;
    }
    return r;
}

static void give_up(struct rq_reads *rs)
{
    while (rs->first != NULL) {
        struct rq_node_read *r = take_first(rs);
        r->done(r, RQ_AWAY, 0);
    }
}

void rq_reads_add(struct rq_reads *rs, struct rq_core *core, struct rq_node_read *r)
{
    if (!rq_core_leads(core)) {
        r->done(r, RQ_AWAY, 0);
        return;
    }
    if (rs->last == NULL) {
        rs->last = &rs->first;
    }
    r->next = NULL;
    r->round = rs->round + 1;
    *rs->last = r;
    rs->last = &r->next;
    rq_reads_go_on(rs, core);
}

/* Whoever is asked needs no memory of it: the term is on its disk. */
void rq_reads_receive(struct rq_reads *rs, struct rq_core *core, uint64_t from, const struct rq_round *round)
{
    const struct raft *r = &core->raft;
    if (round->term != r->current_term) {
        return;
    }
    if (!round->answer) {
        const struct rq_round answer = { .term = round->term, .round = round->round, .answer = true };
        core->env.send_round(core->env.ctx, from, &answer);
        return;
    }
    if (rs->term != round->term || round->round > rs->round || !rq_filter_is_voter(&r->configuration, from)) {
        return;
    }
    for (unsigned i = 0; i < rs->answered_count; i++) {
        if (rs->answered[i].id == from) {
            rs->answered[i].round = round->round > rs->answered[i].round ? round->round : rs->answered[i].round;
            return;
        }
    }
    if (rs->answered_count == RQ_MEMBERS_MAX) { /* former members take the room: the next round tells anew */
        rs->answered_count = 0;
    }
    rs->answered[rs->answered_count].id = from;
    rs->answered[rs->answered_count++].round = round->round;
}

/* Called again from done: each call leaves the list as the next one may find it. */
void rq_reads_go_on(struct rq_reads *rs, struct rq_core *core)
{
    if (rs->first != NULL && !rq_core_leads(core)) {
        give_up(rs);
    }
    while (rs->first != NULL) {
        if (rs->first->round > rs->round) {
            begin_round(rs, core); /* none is under way: who waited for it is answered */
        }
        if (rs->term != core->raft.current_term || !majority_answered(rs, &core->raft, rs->first->round)) {
            break;
        }
        struct rq_node_read *r = take_first(rs);
        r->done(r, RQ_OK, rs->index);
    }
    if (rs->first != NULL && core->now_ms - rs->asked_ms >= core->config.heartbeat_ms) {
        begin_round(rs, core);
    }
}

uint64_t rq_reads_wake_ms(const struct rq_reads *rs, const struct rq_core *core)
{
    return rs->first != NULL ? rs->asked_ms + core->config.heartbeat_ms : UINT64_MAX;
}

void rq_reads_fini(struct rq_reads *rs)
{
    give_up(rs);
}
