#include "raftd/node/membership.h"

#include <stdlib.h>
#include <string.h>

#include "raftd/node/filter.h"
#include "raftd/run/metrics.h"

static uint64_t now_ms(const struct rq_core *core)
{
    uint64_t now = core->env.now_ms(core->env.ctx);
    return now > core->now_ms ? now : core->now_ms;
}

/* --- the list in force --------------------------------------------------------------------------------------------------- */

bool rq_membership_changed(struct rq_membership *ms, const struct rq_core *core)
{
    const struct raft *r = &core->raft;
    uint64_t index =
        r->configuration_uncommitted_index > 0 ? r->configuration_uncommitted_index : r->configuration_committed_index;
    uint64_t term = rq_log_term_at(core->env.log, index); /* 0: released, so committed */
    if ((index == ms->members_index && (term == ms->members_term || term == 0)) || r->configuration.n == 0) {
        return false;
    }
    struct raft_buffer buf;
    enum rq_err err = RQ_NOMEM;
    if (raft_configuration_encode(&r->configuration, &buf) == 0) {
        err = rq_members_decode(buf.base, buf.len, &ms->members);
        raft_free(buf.base);
    }
    if (err != RQ_OK) {
        core->env.fatal(core->env.ctx, "read the member list", err);
    }
    ms->members_index = index;
    ms->members_term = term;
    return true;
}

static void answer(rq_node_done_cb *done, void *ctx, enum rq_err err)
{
    rq_node_done_cb cb = *done;
    *done = NULL;
    if (cb != NULL) {
        cb(ctx, err);
    }
}

/* --- one change ----------------------------------------------------------------------------------------------------------- */

/* Nothing is known to be committed before an entry of the own term is, and then one change at a time: Raft's rules for changes of
 * one member. */
static bool may_change(const struct rq_membership *ms, const struct rq_core *core)
{
    return rq_core_leads(core) && core->raft.configuration_uncommitted_index == 0 && !ms->hands_over;
}

/* A majority of the voters to be answers: else the change would stand where it is, and everything with it. */
static bool majority_answers(const struct rq_members *members, const struct rq_core *core)
{
    unsigned voters = 0, heard = 0;
    for (unsigned i = 0; i < members->count; i++) {
        if (members->list[i].role == RQ_MEMBER_VOTER) {
            voters++;
            heard += rq_core_hears(core, members->list[i].instance);
        }
    }
    return heard > voters / 2;
}

static unsigned count_voters(const struct rq_members *members)
{
    unsigned voters = 0;
    for (unsigned i = 0; i < members->count; i++) {
        voters += members->list[i].role == RQ_MEMBER_VOTER;
    }
    return voters;
}

/* One change makes one voter more, or one less, or leaves them as they are. */
static bool may_vote(const struct rq_membership *ms, const struct rq_core *core, const struct rq_members *members)
{
    return count_voters(members) == count_voters(&ms->members) || core->env.may_vote == NULL ||
           core->env.may_vote(core->env.ctx, members);
}

static enum rq_err submit(struct rq_membership *ms, struct rq_core *core, const struct rq_members *members)
{
    uint8_t *data;
    size_t bytes;
    if (!majority_answers(members, core) || !may_vote(ms, core, members)) {
        return RQ_BUSY;
    }
    enum rq_err err = rq_members_encode(members, &data, &bytes);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_log_entry e = { .type = RQ_ENTRY_CHANGE, .blob = rq_blob_new(bytes) };
    err = e.blob != NULL ? rq_log_reserve(core->env.log, bytes, 1) : RQ_NOMEM;
    if (err == RQ_OK) {
        memcpy(e.blob->data, data, bytes);
        err = rq_core_submit(core, &e);
        if (err != RQ_OK) {
            rq_log_unreserve(core->env.log, bytes, 1);
        }
    }
    rq_blob_unref(e.blob);
    free(data);
    if (err == RQ_IO) { /* final: what is in the page cache may be lost */
        core->env.fatal(core->env.ctx, "reserve room in the log", err);
    }
    if (err == RQ_OK) {
        ms->asked_index = e.index;
        ms->asked_term = e.term;
    }
    return err == RQ_FULL ? RQ_BUSY : err;
}

static enum rq_err submit_without(struct rq_membership *ms, struct rq_core *core, uint64_t instance)
{
    struct rq_members members = { 0 };
    for (unsigned i = 0; i < ms->members.count; i++) { /* the others keep their order: raft goes by it */
        if (ms->members.list[i].instance != instance) {
            members.list[members.count++] = ms->members.list[i];
        }
    }
    enum rq_err err = submit(ms, core, &members);
    if (err == RQ_OK) {
        ms->leaving = instance;
        ms->leaving_index = ms->asked_index;
    }
    return err;
}

/* --- what the list still needs -------------------------------------------------------------------------------------------- */

/* G16: more than what is committed it does not get, however much waits for that. */
static bool has_caught_up(const struct rq_core *core, uint64_t instance)
{
    return rq_core_hears(core, instance) && rq_core_match(core, instance) + RQ_MEMBERSHIP_LAG_MAX >= core->committed;
}

static bool is_replaced(const struct rq_members *members, const struct rq_member *m)
{
    const struct rq_member *newest = rq_members_find_name(members, m->name);
    return newest != m && (newest->role == RQ_MEMBER_VOTER || !newest->votes);
}

/* Leaves out what cannot be done now: it is looked at again after every event. */
static void mend(struct rq_membership *ms, struct rq_core *core)
{
    for (unsigned i = 0; i < ms->members.count; i++) {
        const struct rq_member *m = &ms->members.list[i];
        if (m->instance != core->config.id && is_replaced(&ms->members, m)) {
            (void)submit_without(ms, core, m->instance);
            return;
        }
        if (m->role == RQ_MEMBER_STANDBY && m->votes && has_caught_up(core, m->instance)) {
            struct rq_members members = ms->members;
            members.list[i].role = RQ_MEMBER_VOTER;
            (void)submit(ms, core, &members);
            return;
        }
    }
}

/* --- handing over --------------------------------------------------------------------------------------------------------- */

/* The voter with the most entries, of those that answer. */
static uint64_t best_heir(const struct rq_membership *ms, const struct rq_core *core)
{
    uint64_t best = 0;
    for (unsigned i = 0; i < ms->members.count; i++) {
        const struct rq_member *m = &ms->members.list[i];
        if (m->role == RQ_MEMBER_VOTER && m->instance != core->config.id && rq_core_hears(core, m->instance) &&
            (best == 0 || rq_core_match(core, m->instance) > rq_core_match(core, best))) {
            best = m->instance;
        }
    }
    return best;
}

static void end_hand_over(struct rq_membership *ms, enum rq_err err)
{
    ms->hands_over = ms->handing = false;
    answer(&ms->hand_over_done, ms->hand_over_ctx, err);
}

/* G11.  The core asks its heir once, and in vain if it lacks an entry then: so only when it has them all. */
static void go_on_handing_over(struct rq_membership *ms, struct rq_core *core)
{
    if (core->raft.state != RAFT_LEADER) {
        end_hand_over(ms, ms->handed_over);
    } else if (ms->handing ? !rq_core_transfers(core) : now_ms(core) >= ms->hand_over_until_ms) {
        end_hand_over(ms, RQ_BUSY);
    } else if (!ms->handing && core->raft.configuration_uncommitted_index == 0 &&
               rq_core_match(core, ms->heir) == rq_log_last(core->env.log)) {
        enum rq_err err = rq_core_transfer(core, ms->heir);
        ms->handing = err == RQ_OK;
        if (err != RQ_OK) {
            end_hand_over(ms, err == RQ_NOTFOUND ? RQ_BUSY : err);
        }
    }
}

/* --- events --------------------------------------------------------------------------------------------------------------- */

static void tell_leaving(struct rq_membership *ms, struct rq_core *core)
{
    if (ms->leaving != 0 && core->committed >= ms->leaving_index) {
        if (rq_core_leads(core) && core->env.tell_removed != NULL &&
            rq_members_find(&ms->members, ms->leaving) == NULL) {
            core->env.tell_removed(core->env.ctx, ms->leaving, ms->leaving_index);
        }
        ms->leaving = 0;
    }
}

static void tell_asker(struct rq_membership *ms, struct rq_core *core)
{
    bool cut = ms->asked_index > rq_log_last(core->env.log); /* no other entry has its place, and perhaps none comes */
    if (ms->asked_done == NULL || (core->committed < ms->asked_index && !cut)) {
        return;
    }
    uint64_t term = rq_log_term_at(core->env.log, ms->asked_index);
    enum rq_err err = term == ms->asked_term ? RQ_OK : term == 0 ? RQ_UNKNOWN : RQ_AWAY;
    answer(&ms->asked_done, ms->asked_ctx, err);
}

void rq_membership_go_on(struct rq_membership *ms, struct rq_core *core)
{
    tell_asker(ms, core);
    tell_leaving(ms, core);
    if (ms->hands_over) {
        go_on_handing_over(ms, core);
    }
    if (may_change(ms, core) && ms->asked_done == NULL) {
        mend(ms, core);
    }
}

void rq_membership_heard(struct rq_membership *ms, struct rq_core *core, uint64_t sender)
{
    const struct raft *r = &core->raft;
    if (rq_core_leads(core) && r->configuration_uncommitted_index == 0 && ms->members.count > 0 &&
        core->env.tell_removed != NULL && rq_members_find(&ms->members, sender) == NULL) {
        core->env.tell_removed(core->env.ctx, sender, r->configuration_committed_index);
    }
}

uint64_t rq_membership_wake_ms(const struct rq_membership *ms, const struct rq_core *core)
{
    if (!ms->hands_over || ms->handing) {
        return UINT64_MAX; /* the core's timer is due before that */
    }
    return ms->hand_over_until_ms > core->now_ms ? ms->hand_over_until_ms : core->now_ms + 1;
}

bool rq_membership_hands_over(const struct rq_membership *ms)
{
    return ms->hands_over;
}

void rq_membership_fini(struct rq_membership *ms)
{
    answer(&ms->asked_done, ms->asked_ctx, RQ_UNKNOWN);
    answer(&ms->hand_over_done, ms->hand_over_ctx, RQ_UNKNOWN);
}

/* --- requests ------------------------------------------------------------------------------------------------------------- */

static enum rq_err check_free(const struct rq_membership *ms, const struct rq_core *core)
{
    if (!rq_core_leads(core)) {
        return RQ_AWAY;
    }
    return may_change(ms, core) && ms->asked_done == NULL ? RQ_OK : RQ_BUSY;
}

static enum rq_err ask(struct rq_membership *ms, enum rq_err err, rq_node_done_cb done, void *ctx)
{
    if (err == RQ_OK) {
        ms->asked_done = done;
        ms->asked_ctx = ctx;
    }
    return err;
}

enum rq_err rq_membership_join(struct rq_membership *ms, struct rq_core *core, const struct rq_member *member,
                               rq_node_done_cb done, void *ctx)
{
    const struct rq_member *known = rq_members_find(&ms->members, member->instance);
    const struct rq_member *namesake = rq_members_find_name(&ms->members, member->name);
    enum rq_err err = check_free(ms, core);
    if (err != RQ_OK) {
        return err;
    }
    if (known == NULL && namesake != NULL && rq_core_hears(core, namesake->instance)) {
        return RQ_EXISTS;
    }
    for (unsigned i = 0; i < ms->members.count; i++) { /* two at one address: each would be taken for the other */
        const struct rq_member *m = &ms->members.list[i];
        if (m->instance != member->instance && strcmp(m->raft_addr, member->raft_addr) == 0 &&
            rq_core_hears(core, m->instance)) {
            return RQ_EXISTS;
        }
    }
    if (known != NULL && rq_member_same_data(known, member)) {
        RQ_COUNT(store, num_ignored_joins);
        done(ctx, RQ_OK);
        return RQ_OK;
    }
    struct rq_members members = ms->members;
    struct rq_member *m = known != NULL ? &members.list[known - ms->members.list] : &members.list[members.count++];
    enum rq_member_role role = known != NULL ? known->role : RQ_MEMBER_STANDBY;
    if (members.count > RQ_MEMBERS_MAX - 1) {
        return RQ_TOOBIG;
    }
    if (known != NULL) { /* here it is changed in one step */
        RQ_COUNT(store, num_removed_before_joins);
    }
    *m = *member;
    m->role = role;
    m->votes = member->votes || role == RQ_MEMBER_VOTER; /* no demotion: a voter leaves, or stays one */
    return ask(ms, submit(ms, core, &members), done, ctx);
}

enum rq_err rq_membership_remove(struct rq_membership *ms, struct rq_core *core, uint64_t instance,
                                 rq_node_done_cb done, void *ctx)
{
    enum rq_err err = check_free(ms, core);
    if (err != RQ_OK) {
        return err;
    }
    if (rq_members_find(&ms->members, instance) == NULL) {
        return RQ_NOTFOUND;
    }
    if (rq_filter_sole_voter(&core->raft.configuration, instance)) {
        return RQ_MISUSE;
    }
    if (instance == core->config.id) { /* G13: it hands over, and the next leader removes it */
        err = rq_membership_transfer(ms, core, 0, done, ctx);
        ms->handed_over = RQ_AWAY;
        return err;
    }
    return ask(ms, submit_without(ms, core, instance), done, ctx);
}

enum rq_err rq_membership_transfer(struct rq_membership *ms, struct rq_core *core, uint64_t instance,
                                   rq_node_done_cb done, void *ctx)
{
    if (!rq_core_leads(core)) {
        return RQ_AWAY;
    }
    if (ms->hands_over) {
        return RQ_BUSY;
    }
    if (instance != 0 ? instance == core->config.id || !rq_filter_is_voter(&core->raft.configuration, instance)
                      : rq_filter_sole_voter(&core->raft.configuration, core->config.id)) {
        return RQ_NOTFOUND;
    }
    const uint64_t heir = instance != 0 ? instance : best_heir(ms, core);
    if (heir == 0 || !rq_core_hears(core, heir)) { /* to wait for it would keep everybody from writing */
        return RQ_BUSY;
    }
    ms->hands_over = true;
    ms->handing = false;
    ms->heir = heir;
    ms->handed_over = RQ_OK;
    ms->hand_over_until_ms = now_ms(core) + core->config.election_timeout_ms;
    ms->hand_over_done = done;
    ms->hand_over_ctx = ctx;
    return RQ_OK;
}
