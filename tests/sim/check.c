#include <inttypes.h>
#include <string.h>

#include "raftd/node/filter.h"
#include "tests/sim/world.h"

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value + 0x9e3779b97f4a7c15ull + (hash << 6) + (hash >> 2);
    return hash * 0xbf58476d1ce4e5b9ull;
}

static uint64_t hash_bytes(uint64_t hash, const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ data[i]) * 1099511628211ull;
    }
    return hash;
}

static uint64_t hash_of(const struct rq_log_entry *e)
{
    uint64_t hash = mix(14695981039346656037ull, e->type);
    return e->blob != NULL ? hash_bytes(hash, e->blob->data, e->blob->bytes) : hash;
}

/* Log matching: what has this index and term is the same entry everywhere and for ever, and so is all before it. */
static void check_identity(struct sim_host *h, const struct rq_log_entry *e, uint64_t term_before)
{
    struct world *w = h->world;
    uint64_t hash = hash_of(e);
    for (uint64_t at = e->index * 3 + e->term, tries = 0; tries < SIM_IDENTITY_MAX; at++, tries++) {
        struct sim_identity *known = &w->identities[at % SIM_IDENTITY_MAX];
        if (known->index == 0) {
            *known = (struct sim_identity){ e->index, e->term, hash, term_before };
            return;
        }
        if (known->index == e->index && known->term == e->term) {
            if (known->payload != hash || known->term_before != term_before) {
                sim_fail(w, "log matching: host %u holds another entry %" PRIu64 " of term %" PRIu64, h->number,
                         e->index, e->term);
            }
            return;
        }
    }
    sim_fail(w, "too many entries for one seed");
}

static void see_entry(struct sim_host *h, uint64_t index)
{
    struct rq_log_entry e;
    if (index >= SIM_INDEX_MAX) {
        sim_fail(h->world, "too many entries for one seed");
    }
    if (rq_log_get(h->log, index, &e) != RQ_OK || e.index != index) {
        sim_fail(h->world, "host %u: entry %" PRIu64 " cannot be read", h->number, index);
    }
    if (index > rq_log_first(h->log) || index == 1) {
        check_identity(h, &e, index > 1 ? rq_log_term_at(h->log, index - 1) : 0);
    }
    h->terms[index] = e.term;
    h->changes[index] = e.type == RQ_ENTRY_CHANGE;
    h->change_at = h->changes[index] ? index : h->change_at;
    rq_blob_unref(e.blob);
}

/* What was seen of entries that a descriptor stands for now may be of a log that was given up for it. */
static void find_change(struct sim_host *h)
{
    h->change_at = h->last;
    while (h->change_at > h->descriptor.state.index && !h->changes[h->change_at]) {
        h->change_at--;
    }
    if (h->change_at <= h->descriptor.state.index) {
        h->change_at = h->descriptor.configuration_index;
    }
}

void check_appended(struct sim_host *h)
{
    uint64_t last = rq_log_last(h->log), first = last;
    while (first > 1 && (first - 1 > h->last || h->terms[first - 1] != rq_log_term_at(h->log, first - 1)) &&
           first - 1 >= rq_log_first(h->log)) {
        first--;
    }
    if (first <= h->last && first > 1) {
        sim_count(h->world, SIM_cuts);
    }
    if (first <= h->committed) {
        sim_fail(h->world, "host %u cuts its log at %" PRIu64 ", committed is %" PRIu64, h->number, first,
                 h->committed);
    }
    h->stored = h->stored < first ? h->stored : first - 1;
    if (h->change_at >= first && h->last > 0) {
        sim_count(h->world, SIM_changes_rolled_back);
        h->last = first - 1;
        find_change(h);
    }
    for (uint64_t i = first; i <= last; i++) {
        see_entry(h, i);
    }
    h->last = last;
}

/* C6, as the node has it: the log does not lead up to what was installed. */
static bool is_given_up(const struct sim_host *h, const struct rq_log_found *found)
{
    uint64_t index = h->descriptor.state.index;
    return h->descriptor.installed &&
           (found->last_index < index || found->first_index > index + 1 ||
            (found->first_index <= index && rq_log_term_at(h->log, index) != h->descriptor.state.term));
}

/* What the core had been told to be durable has survived, and so have term and vote. */
void check_reopened(struct sim_host *h, struct rq_log_found *found)
{
    struct world *w = h->world;
    const bool given_up = is_given_up(h, found);
    uint64_t last = given_up ? h->descriptor.state.index : found->last_index;
    if (last < h->stored) {
        sim_fail(w, "host %u lost entries it had reported durable: up to %" PRIu64 ", found %" PRIu64, h->number,
                 h->stored, last);
    }
    if (found->term < h->meta_term ||
        (found->term == h->meta_term && h->meta_vote != 0 && found->vote != h->meta_vote)) {
        sim_fail(w, "host %u lost its vote: term %" PRIu64 " vote %" PRIu64 ", found %" PRIu64 " %" PRIu64, h->number,
                 h->meta_term, h->meta_vote, found->term, found->vote);
    }
    for (uint64_t i = found->first_index; last == found->last_index && i <= last; i++) {
        uint64_t before = h->terms[i];
        see_entry(h, i);
        if (i <= h->stored && i > h->descriptor.state.index && before != h->terms[i]) {
            sim_fail(w, "host %u: entry %" PRIu64 " was durable in term %" PRIu64 ", found in term %" PRIu64, h->number,
                     i, before, h->terms[i]);
        }
    }
    if (h->last > last) {
        sim_count(w, SIM_entries_lost_unacknowledged);
    }
    h->last = last;
    h->stored = last;
    if (given_up) { /* with the changes in it */
        h->change_at = h->descriptor.configuration_index;
    } else {
        find_change(h);
    }
}

/* From here on a start gives up a log that does not lead up to the descriptor. */
void check_descriptor(struct sim_host *h)
{
    uint64_t index = h->descriptor.state.index;
    if (h->stored > index && rq_log_term_at(h->log, index) != h->descriptor.state.term) {
        h->stored = index;
    }
}

void check_installed(struct sim_host *h)
{
    uint64_t index = h->descriptor.state.index;
    if (rq_node_core(h->node)->config.snapshot_index != index) {
        return; /* the entries came meanwhile */
    }
    h->terms[index] = h->descriptor.state.term;
    h->last = h->stored = index;
    h->committed = h->committed > index ? h->committed : index;
    h->delivered = h->delivered > index ? h->delivered : index;
    h->change_at = h->descriptor.configuration_index;
}

/* Holds it durably, as far as the simulation knows at this moment. */
static bool holds(const struct sim_host *h, uint64_t index, uint64_t term)
{
    if (index <= h->descriptor.state.index) {
        return true;
    }
    uint64_t durable = h->alive && h->log != NULL ? rq_log_durable(h->log) : h->stored;
    return index <= durable && h->terms[index] == term;
}

/* It acknowledged that; then its disk was lost, and with it no majority. */
static bool held(const struct world *w, uint64_t instance, uint64_t index)
{
    for (unsigned i = 0; i < w->lost_count && i < SIM_LOST_MAX; i++) {
        if (w->lost[i].instance == instance && w->lost[i].stored >= index) {
            return true;
        }
    }
    return false;
}

static bool majority_holds(struct world *w, const struct rq_members *members, uint64_t index, uint64_t term)
{
    unsigned holders = 0, voters = 0;
    for (unsigned i = 0; i < members->count; i++) {
        if (members->list[i].role == RQ_MEMBER_VOTER) {
            const struct sim_host *voter = world_host(w, members->list[i].instance);
            holders += voter != NULL ? holds(voter, index, term) : held(w, members->list[i].instance, index);
            voters++;
        }
    }
    return holders > voters / 2;
}

static void check_true_commit(struct sim_host *h, const struct raft *r, uint64_t index, uint64_t term)
{
    struct world *w = h->world;
    if (term != r->current_term && !rq_filter_sole_voter(&r->configuration, r->id)) {
        sim_fail(w, "host %u commits %" PRIu64 " of term %" PRIu64 " in term %llu", h->number, index, term,
                 r->current_term);
    }
    /* The list may have changed behind the commit in the same step. */
    const struct rq_members *now = rq_node_members(h->node);
    if (!majority_holds(w, &h->members, index, term) && !majority_holds(w, now, index, term)) {
        sim_fail(w, "false commit: host %u commits %" PRIu64 " of term %" PRIu64 ", no majority holds it", h->number,
                 index, term);
    }
}

/* One more entry is committed: the first host to know it writes it down, all others must agree. */
static void check_ledger(struct sim_host *h, uint64_t index, uint64_t in_term)
{
    struct world *w = h->world;
    struct sim_committed *known = &w->ledger[index];
    uint64_t term = h->terms[index];
    if (known->term != 0) {
        if (known->term != term) {
            sim_fail(w, "host %u commits %" PRIu64 " of term %" PRIu64 ", committed was term %" PRIu64, h->number,
                     index, term, known->term);
        }
        return;
    }
    known->term = term;
    known->committed_in_term = in_term;
    w->ledger_last = index > w->ledger_last ? index : w->ledger_last;
}

/* One member at a time is added, removed or altered: two majorities in force at once always meet. */
static void check_members(struct world *w, const struct rq_log_entry *e)
{
    struct rq_members now;
    if (rq_members_decode(e->blob->data, e->blob->bytes, &now) != RQ_OK) {
        sim_fail(w, "members of entry %" PRIu64 " cannot be read", e->index);
    }
    unsigned differences = 0;
    for (unsigned i = 0; i < now.count; i++) {
        const struct rq_member *m = &now.list[i], *old = rq_members_find(&w->members, m->instance);
        bool promoted = old != NULL && old->role == RQ_MEMBER_STANDBY && m->role == RQ_MEMBER_VOTER;
        bool altered = old != NULL && !promoted && (old->role != m->role || !rq_member_same_data(old, m));
        differences += old == NULL || promoted || altered;
        if (w->members.count > 0 && (old == NULL || promoted || altered)) {
            sim_count(w, promoted                                             ? SIM_promotions
                         : altered                                            ? SIM_addresses_changed
                         : rq_members_find_name(&w->members, m->name) != NULL ? SIM_replacements
                                                                              : SIM_joins);
        }
    }
    for (unsigned i = 0; i < w->members.count; i++) {
        if (rq_members_find(&now, w->members.list[i].instance) == NULL) {
            sim_count(w, SIM_removals);
            differences++;
        }
    }
    if (w->members.count > 0 && differences != 1) {
        sim_fail(w, "entry %" PRIu64 " changes %u members", e->index, differences);
    }
    w->members = now;
    w->members_index = e->index;
    w->ledger[e->index].members = hash_bytes(1, e->blob->data, e->blob->bytes);
}

/* Only what is committed is in a descriptor. */
void check_members_of(const struct sim_host *h, const struct sim_descriptor *d)
{
    if (hash_bytes(1, d->configuration, d->configuration_bytes) != h->world->ledger[d->configuration_index].members) {
        sim_fail(h->world, "host %u: a descriptor at %" PRIu64 " has other members than entry %" PRIu64, h->number,
                 d->state.index, d->configuration_index);
    }
}

/* The state machine's side: in order, each once, the same chain everywhere, and no client's entry twice. */
void check_delivered(struct sim_host *h, const struct rq_log_entry *e)
{
    struct world *w = h->world;
    if (e->index != h->delivered + 1) {
        sim_fail(w, "host %u is given %" PRIu64 " after %" PRIu64, h->number, e->index, h->delivered);
    }
    h->delivered = e->index;
    if (e->index <= h->cached.index) {
        if (e->index == h->cached.index && e->term != h->cached.term) {
            sim_fail(w, "host %u has applied %" PRIu64 " of another term", h->number, e->index);
        }
        sim_count(w, SIM_skipped_replays);
        return;
    }
    if (e->index != h->cached.index + 1) {
        sim_fail(w, "host %u applies %" PRIu64 " on top of %" PRIu64, h->number, e->index, h->cached.index);
    }
    if (e->index > rq_log_durable(h->log)) {
        sim_fail(w, "host %u applies %" PRIu64 " before it is durable here", h->number, e->index);
    }
    h->cached = (struct sim_state){ e->index, e->term, mix(mix(h->cached.hash, e->index), hash_of(e)) };

    w->shown_last = e->index > w->shown_last ? e->index : w->shown_last;
    struct sim_committed *known = &w->ledger[e->index];
    uint64_t payload = host_payload(e);
    if (known->chain == 0) {
        known->chain = h->cached.hash;
        if (e->type == RQ_ENTRY_CHANGE) {
            check_members(w, e);
        }
        known->payload = payload;
        if (payload != 0 && w->index_of_payload[payload] != 0) {
            sim_fail(w, "entry %" PRIu64 " of a client is applied twice: at %" PRIu64 " and %" PRIu64, payload,
                     w->index_of_payload[payload], e->index);
        }
        w->index_of_payload[payload] = e->index;
        struct sim_committed *before = &w->ledger[e->index - 1];
        if (payload != 0 && before->payload > payload && before->term == e->term) {
            sim_fail(w, "entries of one leader changed their order at %" PRIu64, e->index);
        }
    } else if (known->chain != h->cached.hash) {
        sim_fail(w, "host %u diverges at %" PRIu64, h->number, e->index);
    }
    if (h->submitted_term[e->index] == e->term) {
        sim_count(w, SIM_acknowledged);
        h->submitted_term[e->index] = 0;
    }
}

/* Who has no vote holds nothing that can be lost: nobody who is to lead has less. */
void check_sent(const struct sim_host *h, const struct raft_message *m)
{
    const struct rq_core *core = h->node != NULL ? rq_node_core(h->node) : NULL;
    const struct raft_append_entries *a = &m->append_entries;
    if (core != NULL && m->type == RAFT_APPEND_ENTRIES && a->n_entries > 0 &&
        !rq_filter_is_voter(&core->raft.configuration, m->server_id) &&
        a->prev_log_index + a->n_entries > raft_commit_index(&core->raft)) {
        sim_fail(h->world, "host %u sends %llu, who has no vote, entries up to %llu, committed is %" PRIu64, h->number,
                 m->server_id, a->prev_log_index + a->n_entries, core->committed);
    }
}

void check_read(const struct sim_host *h, uint64_t shown, uint64_t index)
{
    if (index < shown) {
        sim_fail(h->world,
                 "stale read: host %u answers %" PRIu64 ", and %" PRIu64 " had been shown before the question",
                 h->number, index, shown);
    }
    sim_count(h->world, SIM_reads);
}

static void check_leader(struct sim_host *h, const struct raft *r)
{
    struct world *w = h->world;
    if (r->current_term >= SIM_INDEX_MAX) {
        sim_fail(w, "too many terms for one seed");
    }
    if (r->voted_for != r->id) {
        sim_fail(w, "host %u leads term %llu and voted for %llu", h->number, r->current_term, r->voted_for);
    }
    uint64_t id = w->leader_of_term[r->current_term].host_id;
    unsigned life = w->leader_of_term[r->current_term].life;
    if (id == 0) {
        w->leader_of_term[r->current_term].host_id = h->id;
        w->leader_of_term[r->current_term].life = h->life;
        sim_count(w, SIM_elections);
        sim_trace(w, "host %u leads term %llu", h->number, r->current_term);
        /* Leader completeness: it has what was committed in the terms before its own. */
        uint64_t i = w->ledger_last;
        while (i > 0 && w->ledger[i].committed_in_term >= r->current_term) {
            i--;
        }
        if (i > h->descriptor.state.index && (i > h->last || h->terms[i] != w->ledger[i].term)) {
            sim_fail(w, "host %u leads term %llu without committed entry %" PRIu64, h->number, r->current_term, i);
        }
    } else if (id != h->id || life != h->life) {
        sim_fail(w, "two leaders of term %llu: hosts %" PRIu64 " and %u (lives %u and %u)", r->current_term, id,
                 h->number, life, h->life);
    }
}

/* The members in force are those of the newest list in the log, else of the descriptor. */
static void check_configuration(struct sim_host *h, const struct raft *r)
{
    uint64_t index =
        r->configuration_uncommitted_index > 0 ? r->configuration_uncommitted_index : r->configuration_committed_index;
    uint64_t expected =
        h->change_at > h->descriptor.configuration_index ? h->change_at : h->descriptor.configuration_index;
    if (index != expected) {
        sim_fail(h->world, "host %u: members of entry %" PRIu64 " are in force, not of %" PRIu64, h->number, index,
                 expected);
    }
    /* It may know so before it knows its commit index, by G2. */
    const struct world *w = h->world;
    bool committed = index <= w->ledger_last && (index > h->last || h->terms[index] == w->ledger[index].term);
    if (r->configuration_uncommitted_index == 0 && index > rq_node_core(h->node)->committed && !committed) {
        sim_fail(h->world, "host %u takes members of entry %" PRIu64 " for committed", h->number, index);
    }
}

static void keep_members(struct sim_host *h)
{
    const struct raft *r = &rq_node_core(h->node)->raft;
    uint64_t index =
        r->configuration_uncommitted_index > 0 ? r->configuration_uncommitted_index : r->configuration_committed_index;
    const struct rq_members *members = rq_node_members(h->node);
    uint64_t key = index << 24 | h->terms[index];
    if (members != NULL && key != h->members_key) {
        h->members = *members;
        h->members_key = key;
    }
}

void check_step(struct sim_host *h)
{
    struct world *w = h->world;
    const struct rq_core *core = rq_node_core(h->node);
    const struct raft *r = &core->raft;
    sim_count(w, SIM_steps);
    plant_step(h);
    if (r->current_term < h->meta_term ||
        (r->current_term == h->meta_term && h->meta_vote != 0 && r->voted_for != h->meta_vote)) {
        sim_fail(w, "host %u takes back its vote in term %llu", h->number, r->current_term);
    }
    h->meta_term = r->current_term;
    h->meta_vote = r->voted_for;
    if (raft_last_index((struct raft *)(uintptr_t)r) != rq_log_last(h->log)) {
        sim_fail(w, "host %u: the core's last entry is not the log's", h->number);
    }
    if (r->last_stored > rq_log_durable(h->log)) {
        sim_fail(w, "host %u: the core counts %llu as durable, the log %" PRIu64, h->number, r->last_stored,
                 rq_log_durable(h->log));
    }
    h->stored = r->last_stored;
    if (core->committed < h->committed) {
        sim_fail(w, "host %u takes back a commit", h->number);
    }
    check_configuration(h, r);
    if (r->state == RAFT_LEADER) {
        check_leader(h, r);
        if (core->committed > h->committed && core->committed == r->commit_index) {
            check_true_commit(h, r, core->committed, h->terms[core->committed]);
        }
    }
    for (uint64_t i = h->committed + 1; i <= core->committed; i++) {
        check_ledger(h, i, r->current_term);
    }
    h->committed = core->committed;
    if (rq_node_leads(h->node) && w->ledger[h->committed].term != r->current_term) {
        sim_fail(w, "host %u may submit before an entry of its term is committed", h->number);
    }
    keep_members(h);
}

/* All states are one, and it holds every entry that was ever delivered anywhere: so every entry that was acknowledged. */
void check_end(struct world *w)
{
    for (unsigned i = 0; i < w->host_count; i++) {
        const struct sim_host *h = &w->hosts[i];
        bool member = rq_members_find(&w->members, h->id) != NULL;
        if ((h->cached.index < w->ledger_last && member && !h->absent) ||
            w->ledger[h->cached.index].chain != h->cached.hash) {
            sim_fail(w, "host %u ends at %" PRIu64 ", committed is %" PRIu64, i, h->cached.index, w->ledger_last);
        }
    }
    for (uint64_t i = 1; i <= w->ledger_last; i++) {
        if (w->ledger[i].chain == 0) {
            sim_fail(w, "committed entry %" PRIu64 " was applied nowhere", i);
        }
    }
}
