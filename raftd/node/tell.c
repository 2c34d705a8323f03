#include "raftd/node/tell.h"

#include <stddef.h>

#include "raftd/node/filter.h"

/* So many entries are not kept waiting: well below what the core has under way for a member. */
#define KEPT_ENTRIES_MAX 16u
/* Who was overtaken is not prompt for so long, if others can be. */
#define LATE_MS 1000u

static const struct raft_server *find_member(const struct rq_core *core, uint64_t id)
{
    const struct raft_configuration *c = &core->raft.configuration;
    unsigned i = 0;
    while (i < c->n && c->servers[i].id != id) {
        i++;
    }
    return i < c->n ? &c->servers[i] : NULL;
}

struct rq_core_peer *rq_tell_peer(struct rq_core *core, uint64_t id)
{
    for (unsigned i = 0; i < core->peer_count; i++) {
        if (core->peers[i].id == id) {
            return &core->peers[i];
        }
    }
    struct rq_core_peer *peer = &core->peers[core->peer_count];
    if (core->peer_count < RQ_MEMBERS_MAX) {
        core->peer_count++;
    } else { /* a former member has to go: with this node the members would be too many else */
        do {
            peer--;
        } while (peer > core->peers && find_member(core, peer->id) != NULL);
    }
    *peer = (struct rq_core_peer){ .id = id };
    return peer;
}

void rq_tell_forget(struct rq_core *core)
{
    core->peer_count = 0;
    core->tell_ms = 0;
}

/* --- who is prompt ------------------------------------------------------------------------------------------------------- */

static bool is_other_voter(const struct raft *r, const struct raft_server *s)
{
    return s->role == RAFT_VOTER && s->id != r->id;
}

static bool is_late(const struct rq_core *core, const struct rq_core_peer *peer)
{
    return !rq_core_hears(core, peer->id) || (peer->overtaken_ms > 0 && core->now_ms - peer->overtaken_ms < LATE_MS);
}

/* Is a to be prompt rather than b, which comes later in the list of members? */
static bool comes_first(const struct rq_core *core, const struct rq_core_peer *a, const struct rq_core_peer *b)
{
    if (is_late(core, a) != is_late(core, b)) {
        return is_late(core, b);
    }
    if (a->awaited != b->awaited) {
        return a->awaited > b->awaited;
    }
    return a->overtaken_ms <= b->overtaken_ms;
}

static bool is_prompt(struct rq_core *core, uint64_t id)
{
    const struct raft *r = &core->raft;
    struct rq_core_peer *peer = rq_tell_peer(core, id);
    unsigned voters = 0, before = 0;
    bool votes = false, self = false, passed = false;
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        voters += s->role == RAFT_VOTER;
        self = self || (s->role == RAFT_VOTER && s->id == r->id);
        if (s->id == id) {
            votes = s->role == RAFT_VOTER;
            passed = true;
        } else if (is_other_voter(r, s)) {
            const struct rq_core_peer *other = rq_tell_peer(core, s->id);
            before += passed ? !comes_first(core, peer, other) : comes_first(core, other, peer);
        }
    }
    const unsigned wanted = voters / 2 + (self ? 0 : 1);
    return votes && before < wanted;
}

/* --- entries -------------------------------------------------------------------------------------------------------------- */

static void send_now(struct rq_core *core, struct rq_core_peer *peer, const struct raft_message *m)
{
    const struct raft_append_entries *a = &m->append_entries;
    const uint64_t matched = a->prev_log_index + a->n_entries;
    const uint64_t told = a->leader_commit < matched ? a->leader_commit : matched;
    if (told > peer->told) {
        peer->told = told;
        peer->told_ms = core->now_ms;
    }
    core->env.send(core->env.ctx, m);
}

static bool is_awaited(const struct rq_core_peer *peer, uint64_t commit)
{
    return peer->awaited > peer->told && peer->awaited <= commit;
}

/* To apply several entries together is less work there than one at a time. */
static bool may_tell_later(const struct rq_core *core, const struct rq_core_peer *peer)
{
    return core->now_ms < peer->told_ms + RQ_NODE_SHOW_MS - RQ_NODE_TELL_MS &&
           !is_awaited(peer, core->raft.commit_index) && core->raft.configuration_uncommitted_index == 0;
}

/* How many of the entries that are kept for it a member may be sent.  G16: one without a vote gets what is committed. */
static unsigned count_ready(const struct rq_core *core, const struct rq_core_peer *peer)
{
    const struct raft *r = &core->raft;
    const struct rq_core_kept *kept = &peer->kept;
    if (rq_filter_is_voter(&r->configuration, peer->id)) {
        return kept->count;
    }
    const uint64_t committed = r->commit_index > kept->prev ? r->commit_index - kept->prev : 0;
    return committed < kept->count ? (unsigned)committed : kept->count;
}

/* What is kept now is the first of it. */
static void wait_for_more(const struct rq_core *core, struct rq_core_kept *kept)
{
    kept->due_ms = core->now_ms + RQ_NODE_TELL_MS;
    kept->last_ms = core->now_ms + RQ_NODE_SHOW_MS;
    kept->hoped = kept->prev + kept->count;
}

static void send_kept(struct rq_core *core, struct rq_core_peer *peer, bool tells_later)
{
    const struct raft *r = &core->raft;
    const struct raft_server *s = r->state == RAFT_LEADER ? find_member(core, peer->id) : NULL;
    struct rq_core_kept *kept = &peer->kept;
    if (s == NULL) {
        kept->count = 0;
    }
    const unsigned ready = count_ready(core, peer);
    if (ready == 0) {
        return;
    }
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES, .server_id = s->id, .server_address = s->address };
    m.append_entries.term = r->current_term;
    m.append_entries.prev_log_index = kept->prev;
    m.append_entries.prev_log_term = kept->prev_term;
    m.append_entries.leader_commit = tells_later ? peer->told : r->commit_index;
    m.append_entries.n_entries = ready;
    kept->prev += ready;
    kept->prev_term = rq_log_term_at(core->env.log, kept->prev);
    kept->count -= ready;
    wait_for_more(core, kept);
    send_now(core, peer, &m);
}

/* Behind what is kept already, or as the first. */
static bool keep(struct rq_core *core, struct rq_core_peer *peer, const struct raft_append_entries *a)
{
    if (peer->kept.count == 0) {
        peer->kept = (struct rq_core_kept){ a->prev_log_index, a->prev_log_term, a->n_entries, 0, 0, 0 };
        wait_for_more(core, &peer->kept);
        return true;
    }
    if (peer->kept.prev + peer->kept.count != a->prev_log_index) {
        return false; /* the core begins anew with this member */
    }
    peer->kept.count += a->n_entries;
    return true;
}

/* The core begins anew with this member, or has not heard it yet: it gets what it may be sent, and in any case a word. */
static void begin_anew(struct rq_core *core, struct rq_core_peer *peer, const struct raft_message *m)
{
    send_kept(core, peer, false);
    peer->kept.count = 0;
    (void)keep(core, peer, &m->append_entries);
    if (count_ready(core, peer) > 0) {
        send_kept(core, peer, false);
    } else {
        struct raft_message heartbeat = *m;
        heartbeat.append_entries.n_entries = 0;
        send_now(core, peer, &heartbeat);
    }
}

/* Entries that stay kept come behind it. */
static void send_heartbeat(struct rq_core *core, struct rq_core_peer *peer, const struct raft_message *m)
{
    struct raft_message heartbeat = *m;
    send_kept(core, peer, false);
    if (peer->kept.count > 0 && m->append_entries.prev_log_index < peer->kept.prev) {
        peer->kept.count = 0; /* the core begins anew */
    }
    if (peer->kept.count > 0) {
        heartbeat.append_entries.prev_log_index = peer->kept.prev;
        heartbeat.append_entries.prev_log_term = peer->kept.prev_term;
    }
    send_now(core, peer, &heartbeat);
}

void rq_tell_send(struct rq_core *core, const struct raft_message *m)
{
    const struct raft_append_entries *a = &m->append_entries;
    if (core->silent && m->type == RAFT_APPEND_ENTRIES_RESULT && m->append_entries_result.rejected == 0) {
        return;
    }
    if (m->type != RAFT_APPEND_ENTRIES) {
        core->env.send(core->env.ctx, m);
        return;
    }
    struct rq_core_peer *peer = rq_tell_peer(core, m->server_id);
    if (a->n_entries == 0) {
        send_heartbeat(core, peer, m);
    } else if (rq_core_match(core, peer->id) == 0 || !keep(core, peer, a)) {
        begin_anew(core, peer, m);
    } else if (is_prompt(core, peer->id)) {
        send_kept(core, peer, may_tell_later(core, peer));
    } else if (peer->kept.count >= KEPT_ENTRIES_MAX || core->raft.configuration_uncommitted_index != 0) {
        send_kept(core, peer, false);
    }
}

void rq_tell_answered(struct rq_core *core, uint64_t id)
{
    const struct raft *r = &core->raft;
    const uint64_t delayed = rq_tell_peer(core, id)->delayed;
    if (r->state != RAFT_LEADER || delayed == 0 || rq_core_match(core, id) < delayed) {
        return;
    }
    struct rq_core_peer *overtaken[RQ_MEMBERS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        if (is_other_voter(r, s) && s->id != id && rq_core_match(core, s->id) < delayed && is_prompt(core, s->id)) {
            overtaken[count++] = rq_tell_peer(core, s->id);
        }
    }
    while (count > 0) { /* of itself this changes who is prompt */
        overtaken[--count]->overtaken_ms = core->now_ms;
    }
}

void rq_tell_all(struct rq_core *core)
{
    for (unsigned i = 0; i < core->peer_count; i++) {
        send_kept(core, &core->peers[i], false);
    }
}

/* --- what is committed ----------------------------------------------------------------------------------------------------- */

/* The core tells its commit index with the entries that come next, or with the next heartbeat: an application on another host would
 * wait for that.  So whoever holds what is newly committed is told: at once if somebody there waits for it, else when no entries
 * have come that tell it in time, for a message costs both sides more than the entry did.  A member that lags is told when it
 * has answered. */
static void tell_committed(struct rq_core *core, bool due)
{
    const struct raft *r = &core->raft;
    uint64_t next_ms = UINT64_MAX;
    for (unsigned i = 0; r->state == RAFT_LEADER && i < r->configuration.n; i++) {
        const struct raft_server *server = &r->configuration.servers[i];
        raft_index match = 0;
        if (server->id == r->id || raft_match_index(r, server->id, &match) != 0 || match == 0) {
            continue;
        }
        uint64_t commit = r->commit_index < match ? r->commit_index : match;
        uint64_t term = rq_log_term_at(core->env.log, match);
        struct rq_core_peer *peer = rq_tell_peer(core, server->id);
        if (peer->awaited > peer->kept.prev || count_ready(core, peer) >= KEPT_ENTRIES_MAX) {
            send_kept(core, peer, false);
        }
        if (commit <= peer->told || term == 0) {
            continue;
        }
        const bool awaited = is_awaited(peer, commit);
        if (!awaited && count_ready(core, peer) > 0) {
            continue; /* these tell it */
        }
        const uint64_t show_ms = peer->told_ms + RQ_NODE_SHOW_MS, soon_ms = core->now_ms + RQ_NODE_TELL_MS;
        if (!awaited && (!due || core->now_ms < show_ms)) {
            const uint64_t at_ms = show_ms > soon_ms ? show_ms : soon_ms;
            next_ms = at_ms < next_ms ? at_ms : next_ms;
            continue;
        }
        struct raft_message m = { .type = RAFT_APPEND_ENTRIES,
                                  .server_id = server->id,
                                  .server_address = server->address };
        m.append_entries.version = RQ_CORE_NOTICE;
        m.append_entries.term = r->current_term;
        m.append_entries.prev_log_index = match;
        m.append_entries.prev_log_term = term;
        m.append_entries.leader_commit = r->commit_index;
        send_now(core, peer, &m);
    }
    if (next_ms == UINT64_MAX) {
        core->tell_ms = 0;
    } else if (core->tell_ms == 0 || due || next_ms < core->tell_ms) {
        core->tell_ms = next_ms;
    }
}

void rq_tell_committed(struct rq_core *core)
{
    tell_committed(core, false);
}

void rq_tell_awaited(struct rq_core *core, uint64_t id, uint64_t index)
{
    if (core->raft.state == RAFT_LEADER && id != core->raft.id) {
        struct rq_core_peer *peer = rq_tell_peer(core, id);
        peer->awaited = index > peer->awaited ? index : peer->awaited;
        if (index > peer->kept.prev) {
            send_kept(core, peer, false);
        }
        tell_committed(core, false);
    }
}

/* --- the clock ------------------------------------------------------------------------------------------------------------- */

/* Commits go on without this member, and more come: it is not needed yet. */
static bool may_wait(const struct rq_core *core, const struct rq_core_kept *kept)
{
    return core->raft.commit_index >= kept->hoped && kept->prev + kept->count > kept->hoped &&
           core->now_ms < kept->last_ms;
}

void rq_tell_due(struct rq_core *core)
{
    for (unsigned i = 0; i < core->peer_count; i++) {
        struct rq_core_peer *peer = &core->peers[i];
        struct rq_core_kept *kept = &peer->kept;
        if (core->now_ms < kept->due_ms || count_ready(core, peer) == 0) {
            continue;
        }
        if (may_wait(core, kept)) {
            kept->hoped = kept->prev + kept->count;
            kept->due_ms = core->now_ms + RQ_NODE_TELL_MS;
        } else {
            peer->delayed = kept->prev + 1;
            send_kept(core, peer, false);
        }
    }
    if (core->tell_ms != 0 && core->now_ms >= core->tell_ms) {
        tell_committed(core, true);
    }
}

uint64_t rq_tell_wake_ms(const struct rq_core *core)
{
    uint64_t wake = core->tell_ms != 0 ? core->tell_ms : UINT64_MAX;
    for (unsigned i = 0; i < core->peer_count; i++) {
        const struct rq_core_peer *peer = &core->peers[i];
        wake = peer->kept.due_ms < wake && count_ready(core, peer) > 0 ? peer->kept.due_ms : wake;
    }
    return wake;
}
