#include "raftd/node/core.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/node/filter.h"
#include "raftd/node/tell.h"

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
        core->retry_ms = clock_ms(core) + core->config.heartbeat_ms;
        return;
    }
    must(core, err, "reserve room in the log");
    core->barrier_reserved = true;
}

static void give_barrier_back(struct rq_core *core)
{
    if (core->barrier_reserved) {
        rq_log_unreserve(core->env.log, 0, 1);
        core->barrier_reserved = false;
    }
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
    if ((flags & RAFT_UPDATE_STATE) && r->state == RAFT_LEADER) {
        rq_tell_forget(core);
    }
    if (flags & RAFT_UPDATE_MESSAGES) {
        for (unsigned i = 0; i < update->messages.n; i++) {
            struct raft_message m = update->messages.batch[i];
            if (m.type ==
                RAFT_INSTALL_SNAPSHOT) { /* names the descriptor; the member fetches what that names by itself */
                m.install_snapshot.conf = (struct raft_configuration){ 0 };
                m.install_snapshot.data = (struct raft_buffer){ 0 };
            }
            rq_tell_send(core, &m);
        }
    }
    if (r->state == RAFT_LEADER && raft_voted_for(r) != r->id) {
        fatal(core, "leads a term in which it voted for another", RQ_CORRUPT); /* G1 */
    }
    if ((flags & RAFT_UPDATE_STATE) && rq_core_owes_barrier(core)) {
        submit_barrier(core);
    }
    advance(core, raft_commit_index(r));
    rq_tell_committed(core);
}

static int step(struct rq_core *core, struct raft_event *event, struct offer *offer)
{
    struct raft_update update;
    event->time = clock_ms(core);
    event->capacity = 0;
    int rv = raft_step(&core->raft, event, &update);
    if (rv != 0) {
        if (event->type == RAFT_SUBMIT || event->type == RAFT_TRANSFER) {
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

enum rq_err rq_core_drop_log_given_up(struct rq_log *log, struct rq_node_config *config)
{
    struct rq_log_found *f = &config->found;
    uint64_t index = config->snapshot_index;
    if (!config->snapshot_installed || index == 0) {
        return RQ_OK;
    }
    if (f->last_index >= index && f->first_index <= index + 1 &&
        (f->first_index == index + 1 || rq_log_term_at(log, index) == config->snapshot_term)) {
        return RQ_OK;
    }
    enum rq_err err = rq_log_restart(log, index);
    if (err == RQ_OK && f->term < config->snapshot_term) {
        err = rq_log_put_meta(log, config->snapshot_term, 0);
        f->term = config->snapshot_term;
        f->vote = 0;
    }
    f->first_index = index + 1;
    f->last_index = f->committed = index;
    return err;
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
    if (buf.len == 0) {
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

/* Everything that the core is told at its start lies in core->config. */
static enum rq_err begin(struct rq_core *core, const struct load *load)
{
    const struct rq_node_config *config = &core->config;
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
    memset(r, 0, sizeof *r);
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
    (void)step(core, &event, NULL);
    return RQ_OK;
}

static enum rq_err load_and_begin(struct rq_core *core)
{
    uint64_t count = core->config.found.last_index + 1 - core->config.found.first_index;
    struct load load = {
        .entries = calloc(count + 1, sizeof *load.entries),
        .blobs = (struct rq_blob **)calloc(count + 1, sizeof *load.blobs),
    };
    enum rq_err err = RQ_NOMEM;
    if (load.entries != NULL && load.blobs != NULL && count < UINT32_MAX) {
        err = load_entries(core->env.log, &core->config, &load);
    }
    if (err == RQ_OK) {
        err = begin(core, &load);
    }
    load_fini(&load);
    return err;
}

/* Copies what the caller's configuration borrows. */
static enum rq_err keep_snapshot(struct rq_core *core, uint64_t index, uint64_t term, uint64_t configuration_index,
                                 const uint8_t *configuration, size_t bytes)
{
    uint8_t *copy = malloc(bytes + 1);
    if (copy == NULL) {
        return RQ_NOMEM;
    }
    if (bytes > 0) {
        memcpy(copy, configuration, bytes);
    }
    free((void *)(uintptr_t)core->config.snapshot_configuration);
    core->config.snapshot_index = index;
    core->config.snapshot_term = term;
    core->config.snapshot_configuration_index = configuration_index;
    core->config.snapshot_configuration = copy;
    core->config.snapshot_configuration_bytes = bytes;
    return RQ_OK;
}

enum rq_err rq_core_start(struct rq_core *core, const struct rq_node_config *config, const struct rq_node_env *env)
{
    *core = (struct rq_core){ .env = *env, .config = *config };
    core->config.snapshot_configuration = NULL;
    core->config.address = strdup(config->address);
    enum rq_err err =
        core->config.address != NULL
            ? keep_snapshot(core, config->snapshot_index, config->snapshot_term, config->snapshot_configuration_index,
                            config->snapshot_configuration, config->snapshot_configuration_bytes)
            : RQ_NOMEM;
    if (err == RQ_OK) {
        err = rq_core_drop_log_given_up(env->log, &core->config);
    }
    if (err == RQ_OK && !descriptor_fits(&core->config)) {
        err = RQ_CORRUPT;
    }
    core->committed = config->snapshot_index;
    core->committed_term = config->snapshot_term;
    err = err == RQ_OK ? load_and_begin(core) : err;
    if (err == RQ_OK) { /* what an earlier life knew to be committed, whatever this one has heard yet */
        const struct rq_log_found *f = &core->config.found;
        advance(core, f->committed < f->last_index ? f->committed : f->last_index);
    }
    return err;
}

/* A new struct raft from what is durable, as after a restart of the process.  Nothing is on its way to the disk, or it was given up. */
static void start_again(struct rq_core *core)
{
    struct rq_log *log = core->env.log;
    core->config.found.first_index = rq_log_first(log);
    core->config.found.last_index = rq_log_last(log);
    core->config.seed = core->config.seed * 6364136223846793005u + 1442695040888963407u;
    raft_close(&core->raft, NULL);
    core->started = false;
    must(core, load_and_begin(core), "start again");
    uint64_t index = core->raft.configuration_uncommitted_index;
    if (index != 0 && index <= core->committed) { /* a start cannot know that; we do */
        struct rq_log_entry e;
        must(core, rq_log_get(log, index, &e), "read a configuration");
        commit_change(core, &e);
        rq_blob_unref(e.blob);
    }
}

void rq_core_fini(struct rq_core *core)
{
    give_barrier_back(core);
    if (core->started) {
        raft_close(&core->raft, NULL);
    }
    free((void *)(uintptr_t)core->config.snapshot_configuration);
    free((void *)(uintptr_t)core->config.address);
}

/* --- events --- */

enum rq_err rq_core_submit(struct rq_core *core, struct rq_log_entry *e)
{
    e->index = rq_log_last(core->env.log) + 1;
    e->term = raft_current_term(&core->raft);
    struct raft_entry entry = { .term = e->term, .type = raft_type(e->type), .batch = e };
    if (e->type == RQ_ENTRY_CHANGE) { /* the only bytes that it looks at */
        entry.buf = (struct raft_buffer){ e->blob->data, e->blob->bytes };
    }
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

enum rq_err rq_core_transfer(struct rq_core *core, uint64_t id)
{
    struct raft_event event = { .type = RAFT_TRANSFER };
    event.transfer.server_id = id;
    switch (step(core, &event, NULL)) {
        case 0:
            return RQ_OK;
        case RAFT_NOTLEADER:
            return RQ_AWAY;
        case RAFT_BADID:
        case RAFT_NOTFOUND:
            return RQ_NOTFOUND;
        default:
            fatal(core, "hand over", RQ_NOMEM);
            return RQ_NOMEM;
    }
}

bool rq_core_transfers(const struct rq_core *core)
{
    return raft_transferee(&core->raft) != 0;
}

enum rq_err rq_core_install(struct rq_core *core, const struct rq_node_snapshot *s)
{
    struct rq_log *log = core->env.log;
    core->wanted = (struct rq_core_wanted){ 0 };
    if (s->index <= core->raft.trail.snapshot.index || rq_core_holds(core, s->index, s->term)) {
        return RQ_OK; /* the entries came meanwhile */
    }
    if (s->index <= core->committed || core->raft.state == RAFT_LEADER ||
        !rq_filter_configuration_ok(s->configuration, s->configuration_bytes)) {
        fatal(core, "a descriptor that contradicts the log", RQ_CORRUPT);
    }
    core->config.found.term = raft_current_term(&core->raft);
    core->config.found.vote = raft_voted_for(&core->raft);
    if (s->term > core->config.found.term) {
        core->config.found.term = s->term;
        core->config.found.vote = 0;
        must(core, rq_log_put_meta(log, s->term, 0), "store the term");
    }
    give_barrier_back(core);
    must(core, rq_log_restart(log, s->index), "begin the log anew");
    core->committed = s->index;
    core->committed_term = s->term;
    enum rq_err err =
        keep_snapshot(core, s->index, s->term, s->configuration_index, s->configuration, s->configuration_bytes);
    must(core, err, "install a descriptor");
    start_again(core);
    return RQ_OK;
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
    core->log_full = err == RQ_FULL;
    if (err == RQ_FULL) { /* as if its entries had been lost: the leader is heard, and sends them again */
        struct raft_message heartbeat = *message;
        heartbeat.append_entries.n_entries = 0;
        feed(core, &heartbeat, NULL);
        return;
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

/* G8: a promotion that only its dead leader and a few have must not keep the promoted from giving the vote that is needed.  Votes of
 * a member without a vote are asked for by those whose configuration gives it one, and count only there. */
static bool vote_without_a_vote(struct rq_core *core, const struct raft_message *message)
{
    const struct raft *r = &core->raft;
    const struct raft_request_vote *v = &message->request_vote;
    bool quiet = clock_ms(core) - core->leader_heard_ms >= core->config.election_timeout_ms;
    uint64_t last = rq_log_last(core->env.log), last_term = rq_log_term_at(core->env.log, last);
    last_term = last_term > 0 ? last_term : r->trail.snapshot.term;
    if (r->state != RAFT_FOLLOWER || rq_filter_is_voter(&r->configuration, r->id) || r->last_stored != last ||
        !(quiet || v->disrupt_leader) || !rq_filter_would_vote(r, v, last, last_term)) {
        return false;
    }
    struct raft_message answer = { .type = RAFT_REQUEST_VOTE_RESULT,
                                   .server_id = message->server_id,
                                   .server_address = message->server_address };
    answer.request_vote_result = rq_filter_vote(v);
    if (!v->pre_vote) {
        core->config.found.term = v->term;
        core->config.found.vote = v->candidate_id;
        must(core, rq_log_put_meta(core->env.log, v->term, v->candidate_id), "store term and vote");
        start_again(core);
    }
    core->env.send(core->env.ctx, &answer);
    return true;
}

static void time_out(struct rq_core *core)
{
    struct raft_event event = { .type = RAFT_TIMEOUT };
    (void)step(core, &event, NULL);
}

/* G15: who asks for a vote and has the shorter log cannot win, and shows that it has no leader either: we stand at once.  Else both
 * would wait for another time-out and ask each other again; after the death of a leader that is busy with entries that is usual.
 * Not when the vote itself is under way: a majority has no leader then, and the term would be raised for nothing. */
static void stand_instead(struct rq_core *core, const struct raft_request_vote *v)
{
    struct raft *r = &core->raft;
    uint64_t last = rq_log_last(core->env.log), last_term = rq_log_term_at(core->env.log, last);
    bool shorter = v->last_log_term < last_term || (v->last_log_term == last_term && v->last_log_index < last);
    if (r->state == RAFT_CANDIDATE && r->candidate_state.in_pre_vote && shorter && r->last_stored == last &&
        core->barrier_reserved) {
        raft_set_election_timeout(r, 1); /* the time-out that this draws has passed, or does so in two milliseconds */
        time_out(core);
        raft_set_election_timeout(r, core->config.election_timeout_ms);
    }
}

/* G7: what it names is fetched first, and that is not the core's affair. */
static void receive_descriptor(struct rq_core *core, const struct raft_message *message)
{
    const struct raft_install_snapshot *m = &message->install_snapshot;
    const struct raft *r = &core->raft;
    if (m->term > r->current_term) {
        return; /* the next heartbeat tells the core of the term */
    }
    if (m->last_index > r->trail.snapshot.index && !rq_core_holds(core, m->last_index, m->last_term)) {
        core->wanted = (struct rq_core_wanted){ m->last_index, m->last_term, message->server_id };
        return;
    }
    struct raft_message answer = { .type = RAFT_APPEND_ENTRIES_RESULT,
                                   .server_id = message->server_id,
                                   .server_address = message->server_address };
    answer.append_entries_result = rq_filter_has_all(r, m->last_index);
    core->env.send(core->env.ctx, &answer);
}

static void note_heard(struct rq_core *core, const struct raft_message *m)
{
    const struct raft *r = &core->raft;
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.term >= r->current_term) {
        core->leader_heard_ms = clock_ms(core);
    }
    if (m->type == RAFT_APPEND_ENTRIES_RESULT && r->state == RAFT_LEADER &&
        m->append_entries_result.term == r->current_term) {
        rq_tell_peer(core, m->server_id)->heard_ms = clock_ms(core);
    }
}

static void receive(struct rq_core *core, struct raft_message m, const struct rq_log_entry *entries)
{
    struct raft_message answer;
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
    note_heard(core, &m);
    if (m.type == RAFT_INSTALL_SNAPSHOT) {
        receive_descriptor(core, &m);
        return;
    }
    if (m.type == RAFT_REQUEST_VOTE && vote_without_a_vote(core, &m)) {
        return;
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
    if (m.type == RAFT_APPEND_ENTRIES_RESULT) {
        rq_tell_answered(core, m.server_id);
    }
    if (m.type == RAFT_REQUEST_VOTE) {
        stand_instead(core, &m.request_vote);
    }
}

void rq_core_receive(struct rq_core *core, const struct raft_message *message, const struct rq_log_entry *entries)
{
    struct raft_message m = *message;
    core->silent = m.type == RAFT_APPEND_ENTRIES && m.append_entries.version == RQ_CORE_NOTICE;
    if (core->silent) {
        m.append_entries.version = 0;
    }
    receive(core, m, entries);
    core->silent = false;
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
    if (rq_core_is_removed(core)) {
        return;
    }
    if (rq_core_owes_barrier(core) && now >= core->retry_ms) {
        submit_barrier(core);
    }
    rq_tell_due(core);
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
    time_out(core);
}

uint64_t rq_core_wake_ms(const struct rq_core *core)
{
    uint64_t wake = raft_timeout(&core->raft);
    if (rq_core_owes_barrier(core)) {
        wake = core->retry_ms < wake ? core->retry_ms : wake;
    } else if (core->raft.state != RAFT_LEADER && core->retry_ms > wake) {
        wake = core->retry_ms;
    }
    const uint64_t tell = rq_tell_wake_ms(core);
    wake = tell < wake ? tell : wake;
    if (rq_core_is_removed(core)) {
        return UINT64_MAX;
    }
    return wake > core->now_ms ? wake : core->now_ms + 1; /* G12: never spin on a time-out that stays in the past */
}

enum rq_err rq_core_compact(struct rq_core *core, uint64_t index, unsigned trailing, uint64_t *ret_released)
{
    struct raft *r = &core->raft;
    if (index > raft_commit_index(r) || index > r->last_stored || index < r->configuration_committed_index) {
        return RQ_BUSY; /* known by an earlier life only: the core would hold a snapshot above its own commit index */
    }
    rq_tell_all(core);
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
        enum rq_err err = rv == 0 ? keep_snapshot(core, index, event.snapshot.metadata.term,
                                                  r->configuration_committed_index, buf.base, buf.len)
                                  : RQ_NOMEM;
        raft_free(buf.base);
        if (err != RQ_OK) {
            return err;
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

bool rq_core_is_removed(const struct rq_core *core)
{
    const struct raft *r = &core->raft;
    return core->removed_index > r->configuration_committed_index &&
           core->removed_index > r->configuration_uncommitted_index;
}

bool rq_core_hears(const struct rq_core *core, uint64_t id)
{
    for (unsigned i = 0; i < core->peer_count; i++) {
        if (core->peers[i].id == id) {
            return core->peers[i].heard_ms > 0 &&
                   core->now_ms - core->peers[i].heard_ms < core->config.election_timeout_ms;
        }
    }
    return id == core->config.id;
}

uint64_t rq_core_match(const struct rq_core *core, uint64_t id)
{
    raft_index match;
    return raft_match_index(&core->raft, id, &match) == 0 ? match : 0;
}

bool rq_core_holds(const struct rq_core *core, uint64_t index, uint64_t term)
{
    const struct raft *r = &core->raft;
    return rq_log_term_at(core->env.log, index) == term ||
           (index == r->trail.snapshot.index && r->trail.snapshot.term == term);
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
