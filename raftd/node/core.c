#include "raftd/node/core.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/node/filter.h"

/* Who owns memory in events and updates is not stated by raft.h and changes with the next version: exactly this one. */
#if RAFT_VERSION_NUMBER != 2201
#    error "the ownership rules below are those of C-Raft 0.22.1"
#endif
#if defined(__x86_64__) || defined(__aarch64__)
_Static_assert(sizeof(struct raft) == 992, "layout of the library that is linked");
_Static_assert(sizeof(struct raft_event) == 80, "layout of the library that is linked");
_Static_assert(sizeof(struct raft_update) == 120, "layout of the library that is linked");
_Static_assert(sizeof(struct raft_message) == 96, "layout of the library that is linked");
_Static_assert(sizeof(struct raft_entry) == 40, "layout of the library that is linked");
#endif

/* Entries that the current event offers to the core.  The core keeps no data and may take any tail of them: its update names
 * what it took by index. */
struct offer {
    const struct rq_log_entry *entries; /* index set, ascending by one */
    unsigned count;
    unsigned taken;
};

static void fatal(struct rq_core *core, const char *why, enum rq_err err)
{
    core->env.fatal(core->env.ctx, why, err);
    abort(); /* not reached */
}

static void must(struct rq_core *core, enum rq_err err, const char *what)
{
    if (err != RQ_OK) {
        fatal(core, what, err);
    }
}

static uint64_t clock_ms(struct rq_core *core)
{
    uint64_t now = core->env.now_ms(core->env.ctx);
    if (now > core->now_ms) {
        core->now_ms = now;
    }
    return core->now_ms;
}

static enum raft_entry_type raft_type(uint16_t type)
{
    switch (type) {
        case RQ_ENTRY_BARRIER:
            return RAFT_BARRIER;
        case RQ_ENTRY_CHANGE:
            return RAFT_CHANGE;
        default:
            return RAFT_COMMAND;
    }
}

/* --- one step, and what its update asks for --- */

static int step(struct rq_core *core, struct raft_event *event, struct offer *offer);

static void append(struct rq_core *core, const struct raft_update *update, struct offer *offer)
{
    const struct rq_log_entry *first;
    struct rq_log_entry barrier;
    if (update->entries.batch == &core->raft.barrier) {
        /* Made by the core itself, with eight bytes that mean nothing and are ours now. */
        raft_free(core->raft.barrier.buf.base);
        barrier = (struct rq_log_entry){ .index = update->entries.index,
                                         .term = core->raft.barrier.term,
                                         .type = RQ_ENTRY_BARRIER };
        first = &barrier;
        assert(core->barrier_reserved);
        core->barrier_reserved = false;
    } else {
        assert(offer != NULL);
        assert(update->entries.index >= offer->entries[0].index);
        first = &offer->entries[update->entries.index - offer->entries[0].index];
        assert(first + update->entries.n == offer->entries + offer->count);
        offer->taken = update->entries.n;
    }
    assert(first->index == update->entries.index);
    assert(first->index > core->committed); /* a committed entry is never cut */
    must(core, rq_log_append(core->env.log, first, update->entries.n, core->committed), "append to the log");
    core->env.write_wanted(core->env.ctx);
}

static void reserve_barrier(struct rq_core *core)
{
    if (core->barrier_reserved) {
        return;
    }
    enum rq_err err = rq_log_reserve(core->env.log, 0, 1);
    if (err == RQ_FULL) {
        core->retry_ms = clock_ms(core) + core->heartbeat_ms;
        return;
    }
    must(core, err, "reserve room in the log");
    core->barrier_reserved = true;
}

/* G3.  The core makes a barrier only when its log is ahead of its commit index, and never as the only voter. */
static void submit_barrier(struct rq_core *core)
{
    reserve_barrier(core);
    if (!core->barrier_reserved) {
        return; /* still owed: the timer tries again */
    }
    struct rq_log_entry e = { .type = RQ_ENTRY_BARRIER };
    core->barrier_reserved = false;
    if (rq_core_submit(core, &e) != RQ_OK) {
        fatal(core, "a new leader cannot submit", RQ_AWAY);
    }
}

/* Every node tells its core of each committed change, when it is committed and not when it is applied. */
static void commit_change(struct rq_core *core, const struct rq_log_entry *e)
{
    struct raft_event event = { .type = RAFT_CONFIGURATION };
    struct raft_buffer buf = { e->blob->data, e->blob->bytes };
    event.configuration.index = e->index;
    int rv = raft_configuration_decode(&buf, &event.configuration.conf); /* taken by the core */
    if (rv != 0) {
        fatal(core, "decode a committed configuration", rv == RAFT_NOMEM ? RQ_NOMEM : RQ_CORRUPT);
    }
    (void)step(core, &event, NULL);
}

/* May be entered again from commit_change(): the inner call then does the rest. */
static void advance(struct rq_core *core, uint64_t committed)
{
    while (core->committed < committed) {
        struct rq_log_entry e;
        must(core, rq_log_get(core->env.log, core->committed + 1, &e), "read a committed entry");
        core->committed++;
        core->committed_term = e.term;
        if (e.type == RQ_ENTRY_CHANGE) {
            commit_change(core, &e);
        }
        rq_blob_unref(e.blob);
    }
}

/* The order is the contract: a crash between any two of these is safe. */
static void obey(struct rq_core *core, const struct raft_update *update, struct offer *offer)
{
    struct raft *r = &core->raft;
    unsigned flags = update->flags; /* raft's macros have no parentheses: (flags & X) only */
    if ((flags & RAFT_UPDATE_CURRENT_TERM) || (flags & RAFT_UPDATE_VOTED_FOR)) {
        must(core, rq_log_put_meta(core->env.log, raft_current_term(r), raft_voted_for(r)), "store term and vote");
    }
    if (flags & RAFT_UPDATE_ENTRIES) {
        append(core, update, offer);
    }
    if (flags & RAFT_UPDATE_SNAPSHOT) {
        fatal(core, "an install that was never delivered", RQ_PROTOCOL); /* G7 */
    }
    if (flags & RAFT_UPDATE_MESSAGES) {
        for (unsigned i = 0; i < update->messages.n; i++) {
            const struct raft_message *m = &update->messages.batch[i];
            if (m->type != RAFT_INSTALL_SNAPSHOT) { /* G7: a member that needs the databases fetches them itself */
                core->env.send(core->env.ctx, m);
            }
        }
    }
    if (r->state == RAFT_LEADER && raft_voted_for(r) != r->id) {
        fatal(core, "leads a term in which it voted for another", RQ_CORRUPT); /* G1 */
    }
    if ((flags & RAFT_UPDATE_STATE) && rq_core_owes_barrier(core)) {
        submit_barrier(core);
    }
    advance(core, raft_commit_index(r));
}

static int step(struct rq_core *core, struct raft_event *event, struct offer *offer)
{
    struct raft_update update;
    event->time = clock_ms(core);
    event->capacity = 0;
    int rv = raft_step(&core->raft, event, &update);
    if (rv != 0) {
        if (event->type == RAFT_SUBMIT) {
            return rv; /* nothing happened */
        }
        fatal(core, raft_strerror(rv), rv == RAFT_NOMEM ? RQ_NOMEM : RQ_CORRUPT);
    }
    obey(core, &update, offer);
    return 0;
}

/* --- start --- */

struct load {
    struct raft_entry *entries;
    struct rq_blob **blobs; /* what entries' bytes lie in; NULL where the core does not look */
    unsigned count;
    struct rq_blob *configuration; /* of the newest change in the log; NULL: the descriptor's is the newest */
};

static void load_fini(struct load *load)
{
    for (unsigned i = 0; i < load->count; i++) {
        rq_blob_unref(load->blobs[i]);
    }
    free((void *)load->blobs);
    free(load->entries);
}

static bool descriptor_fits(const struct rq_node_config *config)
{
    const struct rq_log_found *f = &config->found;
    bool empty = f->first_index > f->last_index;
    if (config->snapshot_index == 0) {
        return f->first_index == 1;
    }
    return config->snapshot_term > 0 && config->snapshot_term <= f->term && config->snapshot_configuration_index > 0 &&
           config->snapshot_configuration_index <= config->snapshot_index &&
           rq_filter_configuration_ok(config->snapshot_configuration, config->snapshot_configuration_bytes) &&
           f->first_index <= config->snapshot_index + 1 && f->last_index >= config->snapshot_index &&
           (!empty || f->first_index == config->snapshot_index + 1);
}

static bool entry_fits(const struct rq_node_config *config, const struct rq_log_entry *e, uint64_t previous_term)
{
    if (e->term == 0 || e->term < previous_term || e->term > config->found.term) {
        return false;
    }
    if (e->index == config->snapshot_index && e->term != config->snapshot_term) {
        return false;
    }
    if (e->type == RQ_ENTRY_CHANGE) {
        return e->blob != NULL && rq_filter_configuration_ok(e->blob->data, e->blob->bytes);
    }
    return e->index != 1; /* the first entry of every log is a configuration */
}

/* The core reads term and type of every entry, and the bytes of changes only. */
static enum rq_err load_entries(struct rq_log *log, const struct rq_node_config *config, struct load *load)
{
    uint64_t term = 0;
    for (uint64_t i = config->found.first_index; i <= config->found.last_index; i++) {
        struct rq_log_entry e;
        enum rq_err err = rq_log_get(log, i, &e);
        if (err != RQ_OK) {
            return err;
        }
        if (!entry_fits(config, &e, term)) {
            rq_blob_unref(e.blob);
            return RQ_CORRUPT;
        }
        term = e.term;
        load->entries[load->count] = (struct raft_entry){ .term = e.term, .type = raft_type(e.type) };
        if (e.type == RQ_ENTRY_CHANGE) {
            load->entries[load->count].buf = (struct raft_buffer){ e.blob->data, e.blob->bytes };
            load->blobs[load->count] = e.blob;
            if (e.index > config->snapshot_configuration_index) {
                load->configuration = e.blob;
            }
        } else {
            rq_blob_unref(e.blob);
        }
        load->count++;
    }
    return RQ_OK;
}

/* G1: the core elects a sole voter without raising the term.  Started twice, or beside what a former life had sent in that term,
 * it would be a second leader of the same term: so the term is raised before, durably, with the vote for ourselves. */
static enum rq_err raise_term_of_sole_voter(struct rq_log *log, const struct rq_node_config *config,
                                            const struct load *load, uint64_t *term, uint64_t *vote)
{
    struct raft_buffer buf = { (void *)(uintptr_t)config->snapshot_configuration,
                               config->snapshot_configuration_bytes };
    if (load->configuration != NULL) {
        buf = (struct raft_buffer){ load->configuration->data, load->configuration->bytes };
    }
    if (buf.base == NULL) {
        return RQ_OK; /* a new member that knows nothing yet */
    }
    struct raft_configuration conf;
    if (raft_configuration_decode(&buf, &conf) != 0) {
        return RQ_NOMEM;
    }
    bool sole = rq_filter_sole_voter(&conf, config->id);
    raft_configuration_close(&conf);
    if (!sole) {
        return RQ_OK;
    }
    enum rq_err err = rq_log_put_meta(log, *term + 1, config->id);
    if (err == RQ_OK) {
        *term += 1;
        *vote = config->id;
    }
    return err;
}

static enum rq_err begin(struct rq_core *core, const struct rq_node_config *config, const struct load *load)
{
    uint64_t term = config->found.term, vote = config->found.vote;
    enum rq_err err = raise_term_of_sole_voter(core->env.log, config, load, &term, &vote);
    if (err != RQ_OK) {
        return err;
    }
    struct raft_snapshot_metadata metadata = {
        .index = config->snapshot_index,
        .term = config->snapshot_term,
        .configuration_index = config->snapshot_configuration_index,
    };
    struct raft_buffer buf = { (void *)(uintptr_t)config->snapshot_configuration,
                               config->snapshot_configuration_bytes };
    if (config->snapshot_index > 0 && raft_configuration_decode(&buf, &metadata.configuration) != 0) {
        return RQ_NOMEM;
    }
    struct raft *r = &core->raft;
    if (raft_init(r, NULL, NULL, config->id, config->address) != 0) {
        raft_configuration_close(&metadata.configuration);
        return RQ_NOMEM;
    }
    core->started = true;
    r->tracer = NULL; /* the default one formats every step into a static buffer */
    raft_seed(r, (unsigned)(config->seed ^ config->seed >> 32));
    raft_set_election_timeout(r, config->election_timeout_ms);
    raft_set_heartbeat_timeout(r, config->heartbeat_ms);
    raft_set_pre_vote(r, true);

    struct raft_event event = { .type = RAFT_START };
    event.start.term = term;
    event.start.voted_for = vote;
    event.start.metadata = config->snapshot_index > 0 ? &metadata : NULL; /* its configuration is the core's now */
    event.start.start_index = config->found.first_index;
    event.start.entries = load->entries;
    event.start.n_entries = load->count;
    core->committed = config->snapshot_index;
    core->committed_term = config->snapshot_term;
    (void)step(core, &event, NULL);

    /* What an earlier life knew to be committed, whatever this one has heard yet. */
    uint64_t known = config->found.committed;
    advance(core, known < config->found.last_index ? known : config->found.last_index);
    return RQ_OK;
}

enum rq_err rq_core_start(struct rq_core *core, const struct rq_node_config *config, const struct rq_node_env *env)
{
    *core = (struct rq_core){ .env = *env, .heartbeat_ms = config->heartbeat_ms };
    if (!descriptor_fits(config)) {
        return RQ_CORRUPT;
    }
    uint64_t count = config->found.last_index + 1 - config->found.first_index;
    struct load load = {
        .entries = calloc(count + 1, sizeof *load.entries),
        .blobs = (struct rq_blob **)calloc(count + 1, sizeof *load.blobs),
    };
    enum rq_err err = RQ_NOMEM;
    if (load.entries != NULL && load.blobs != NULL && count < UINT32_MAX) {
        err = load_entries(env->log, config, &load);
    }
    if (err == RQ_OK) {
        err = begin(core, config, &load);
    }
    load_fini(&load);
    return err;
}

void rq_core_fini(struct rq_core *core)
{
    if (core->barrier_reserved) {
        rq_log_unreserve(core->env.log, 0, 1);
    }
    if (core->started) {
        raft_close(&core->raft, NULL);
    }
}

/* --- events --- */

enum rq_err rq_core_submit(struct rq_core *core, struct rq_log_entry *e)
{
    e->index = rq_log_last(core->env.log) + 1;
    e->term = raft_current_term(&core->raft);
    struct raft_entry entry = { .term = e->term, .type = raft_type(e->type), .batch = e };
    struct raft_event event = { .type = RAFT_SUBMIT };
    event.submit.entries = &entry;
    event.submit.n = 1;
    struct offer offer = { .entries = e, .count = 1 };
    int rv = step(core, &event, &offer);
    if (rv != 0 && rv != RAFT_NOTLEADER) {
        fatal(core, raft_strerror(rv), rv == RAFT_NOMEM ? RQ_NOMEM : RQ_CORRUPT);
    }
    assert(rv != 0 || offer.taken == 1);
    return rv == 0 ? RQ_OK : RQ_AWAY;
}

static void feed(struct rq_core *core, struct raft_message *message, struct offer *offer)
{
    struct raft_event event = { .type = RAFT_RECEIVE };
    event.receive.message = message;
    (void)step(core, &event, offer);
}

/* G2: the core has room to remember one uncommitted change, so a second one proves the first committed; tell it before. */
static void commit_change_before(struct rq_core *core, const struct raft_append_entries *m)
{
    uint64_t index = core->raft.configuration_uncommitted_index;
    if (index == 0 || index > m->prev_log_index ||
        rq_log_term_at(core->env.log, m->prev_log_index) != m->prev_log_term) {
        return;
    }
    struct rq_log_entry e;
    must(core, rq_log_get(core->env.log, index, &e), "read a configuration");
    commit_change(core, &e);
    rq_blob_unref(e.blob);
}

/* One piece of an AppendEntries.  All its raft_entry share one block, which the core frees unless it takes entries.  False: the
 * core did not take it over, so what follows it would not fit. */
static bool feed_piece(struct rq_core *core, struct raft_message *piece, struct offer *offer)
{
    const struct rq_log_entry *last = &offer->entries[offer->count - 1];
    const struct rq_log_entry *change = offer->entries[0].type == RQ_ENTRY_CHANGE ? &offer->entries[0] : NULL;
    size_t block_bytes = change != NULL ? change->blob->bytes : 1;
    struct raft_entry *entries = calloc(offer->count, sizeof *entries);
    void *block = raft_malloc(block_bytes);
    if (entries == NULL || block == NULL) {
        fatal(core, "receive entries", RQ_NOMEM);
    }
    for (unsigned i = 0; i < offer->count; i++) {
        entries[i] = (struct raft_entry){ .term = offer->entries[i].term,
                                          .type = raft_type(offer->entries[i].type),
                                          .batch = block };
    }
    if (change != NULL) {
        memcpy(block, change->blob->data, block_bytes);
        entries[0].buf = (struct raft_buffer){ block, block_bytes };
        commit_change_before(core, &piece->append_entries);
    }
    piece->append_entries.entries = entries;
    piece->append_entries.n_entries = offer->count;
    feed(core, piece, offer);
    if (offer->taken > 0) {
        raft_free(block);
    }
    free(entries);
    return rq_log_term_at(core->env.log, last->index) == last->term;
}

static uint64_t payload_bytes(const struct rq_log_entry *entries, unsigned count)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        bytes += entries[i].blob != NULL ? entries[i].blob->bytes : 0;
    }
    return bytes;
}

static void receive_entries(struct rq_core *core, const struct raft_message *message,
                            const struct rq_log_entry *entries)
{
    const struct raft_append_entries *m = &message->append_entries;
    unsigned count = m->n_entries;
    uint64_t bytes = payload_bytes(entries, count);
    enum rq_err err = rq_log_reserve(core->env.log, bytes, count);
    if (err == RQ_FULL) {
        return; /* as if the message had been lost; the leader sends it again */
    }
    must(core, err, "reserve room in the log");
    struct rq_log_entry *indexed = calloc(count, sizeof *indexed);
    if (indexed == NULL) {
        fatal(core, "receive entries", RQ_NOMEM);
    }
    for (unsigned i = 0; i < count; i++) {
        indexed[i] = entries[i];
        indexed[i].index = m->prev_log_index + 1 + i;
    }
    unsigned taken = 0;
    uint64_t taken_bytes = 0;
    bool fits = true;
    for (unsigned done = 0; fits && done < count;) {
        struct offer offer = { .entries = indexed + done, .count = rq_filter_piece(indexed + done, count - done) };
        struct raft_message piece = *message;
        piece.append_entries.prev_log_index = indexed[done].index - 1;
        piece.append_entries.prev_log_term = done > 0 ? indexed[done - 1].term : m->prev_log_term;
        fits = feed_piece(core, &piece, &offer);
        taken += offer.taken;
        taken_bytes += payload_bytes(offer.entries + offer.count - offer.taken, offer.taken);
        done += offer.count;
    }
    rq_log_unreserve(core->env.log, bytes - taken_bytes, count - taken);
    free(indexed);
}

void rq_core_receive(struct rq_core *core, const struct raft_message *message, const struct rq_log_entry *entries)
{
    struct raft_message m = *message, answer;
    unsigned clipped;
    switch (rq_filter_receive(&core->raft, &m, entries, &clipped, &answer)) {
        case RQ_FILTER_DROP:
            return;
        case RQ_FILTER_ANSWER:
            core->env.send(core->env.ctx, &answer);
            return;
        case RQ_FILTER_BROKEN:
            fatal(core, "another member leads the same term", RQ_CORRUPT);
            return;
        case RQ_FILTER_FEED:
            break;
    }
    if (m.type == RAFT_APPEND_ENTRIES) {
        m.append_entries.entries = NULL;
        if (m.append_entries.n_entries > 0) {
            receive_entries(core, &m, entries + clipped);
            return;
        }
    }
    if (rq_filter_may_elect(&m) && core->raft.state != RAFT_LEADER) {
        reserve_barrier(core);
        if (!core->barrier_reserved) {
            return; /* no room to lead: somebody else may */
        }
    }
    feed(core, &m, NULL);
}

void rq_core_persisted(struct rq_core *core)
{
    uint64_t durable = rq_log_durable(core->env.log);
    if (durable > core->raft.last_stored) {
        struct raft_event event = { .type = RAFT_PERSISTED_ENTRIES };
        event.persisted_entries.index = durable;
        (void)step(core, &event, NULL);
    }
}

/* G12: never early, which would take answering members out of pipelining. */
void rq_core_timer(struct rq_core *core)
{
    uint64_t now = clock_ms(core);
    if (rq_core_owes_barrier(core) && now >= core->retry_ms) {
        submit_barrier(core);
    }
    if (now < raft_timeout(&core->raft)) {
        return;
    }
    if (core->raft.state != RAFT_LEADER) {
        if (now < core->retry_ms) {
            return;
        }
        reserve_barrier(core);
        if (!core->barrier_reserved) {
            return; /* no room to lead: somebody else may */
        }
    }
    struct raft_event event = { .type = RAFT_TIMEOUT };
    (void)step(core, &event, NULL);
}

uint64_t rq_core_wake_ms(const struct rq_core *core)
{
    uint64_t wake = raft_timeout(&core->raft);
    if (rq_core_owes_barrier(core)) {
        wake = core->retry_ms < wake ? core->retry_ms : wake;
    } else if (core->raft.state != RAFT_LEADER && core->retry_ms > wake) {
        wake = core->retry_ms;
    }
    return wake > core->now_ms ? wake : core->now_ms + 1; /* G12: never spin on a time-out that stays in the past */
}

enum rq_err rq_core_compact(struct rq_core *core, uint64_t index, unsigned trailing, uint64_t *ret_released)
{
    struct raft *r = &core->raft;
    if (index > raft_commit_index(r) || index > r->last_stored || index < r->configuration_committed_index) {
        return RQ_BUSY; /* known by an earlier life only: the core would hold a snapshot above its own commit index */
    }
    if (index > r->trail.snapshot.index) {
        struct raft_event event = { .type = RAFT_SNAPSHOT };
        event.snapshot.metadata.index = index;
        event.snapshot.metadata.term = rq_log_term_at(core->env.log, index);
        event.snapshot.metadata.configuration_index = r->configuration_committed_index;
        event.snapshot.trailing = trailing;
        struct raft_buffer buf;
        if (raft_configuration_encode(&r->configuration_committed, &buf) != 0) {
            return RQ_NOMEM;
        }
        int rv = raft_configuration_decode(&buf, &event.snapshot.metadata.configuration); /* taken by the core */
        raft_free(buf.base);
        if (rv != 0) {
            return RQ_NOMEM;
        }
        (void)step(core, &event, NULL);
    }
    *ret_released = r->trail.offset;
    return RQ_OK;
}

/* --- what others ask --- */

bool rq_core_leads(const struct rq_core *core)
{
    return core->raft.state == RAFT_LEADER && core->committed_term == raft_current_term(&core->raft);
}

bool rq_core_owes_barrier(const struct rq_core *core)
{
    if (core->raft.state != RAFT_LEADER || rq_core_leads(core)) {
        return false;
    }
    uint64_t last = rq_log_last(core->env.log);
    return last == core->committed || rq_log_term_at(core->env.log, last) != raft_current_term(&core->raft);
}

uint64_t rq_core_leader_id(const struct rq_core *core)
{
    const struct raft *r = &core->raft;
    switch (r->state) {
        case RAFT_LEADER:
            return r->id;
        case RAFT_FOLLOWER:
            return r->follower_state.current_leader.id;
        default:
            return 0;
    }
}

uint64_t rq_core_deliverable(const struct rq_core *core)
{
    return core->committed < core->raft.last_stored ? core->committed : core->raft.last_stored;
}
