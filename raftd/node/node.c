#include "raftd/node/node.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/node/core.h"
#include "raftd/node/filter.h"
#include "raftd/node/membership.h"
#include "raftd/node/reads.h"
#include "raftd/node/tell.h"

struct role {
    bool leads;
    uint64_t term, leader_id;
};

struct rq_node {
    struct rq_core core;
    struct rq_log *log;             /* borrows */
    struct rq_node_machine machine; /* its ctx is borrowed */
    uint64_t delivered;
    bool delivering;
    struct role told;
    struct rq_membership membership;
    struct rq_reads reads;
    uint64_t install_asked;  /* index; 0: none */
    uint64_t install_leader; /* whose offer it was */
    bool removed_told, settling;

    /* Bytes of what was submitted in this leadership and is not committed, by index modulo the number that may wait. */
    uint32_t waiting_bytes_of[RQ_NODE_UNCOMMITTED_ENTRIES_MAX];
    uint64_t waiting_first; /* of the oldest counted entry; nothing counted when above waiting_last */
    uint64_t waiting_last;
    uint64_t waiting_bytes;
};

static void must(struct rq_node *n, enum rq_err err, const char *what)
{
    if (err != RQ_OK) {
        n->core.env.fatal(n->core.env.ctx, what, err);
        abort(); /* not reached */
    }
}

static void forget_waiting(struct rq_node *n)
{
    n->waiting_first = 1;
    n->waiting_last = 0;
    n->waiting_bytes = 0;
}

static void count_committed(struct rq_node *n)
{
    if (n->core.raft.state != RAFT_LEADER) {
        forget_waiting(n);
    }
    while (n->waiting_first <= n->waiting_last && n->waiting_first <= n->core.committed) {
        n->waiting_bytes -= n->waiting_bytes_of[n->waiting_first % RQ_NODE_UNCOMMITTED_ENTRIES_MAX];
        n->waiting_first++;
    }
}

static void count_submitted(struct rq_node *n, uint64_t index, uint32_t bytes)
{
    if (n->waiting_first > n->waiting_last) {
        n->waiting_first = index;
        n->waiting_last = index - 1;
    }
    while (++n->waiting_last < index) { /* a change of the members: not counted */
        n->waiting_bytes_of[n->waiting_last % RQ_NODE_UNCOMMITTED_ENTRIES_MAX] = 0;
    }
    n->waiting_bytes_of[index % RQ_NODE_UNCOMMITTED_ENTRIES_MAX] = bytes;
    n->waiting_bytes += bytes;
}

/* The machine may call the node from inside: the outermost call goes on with what that brings. */
static void deliver(struct rq_node *n)
{
    if (n->delivering) {
        return;
    }
    n->delivering = true;
    while (n->delivered < rq_core_deliverable(&n->core)) {
        struct rq_log_entry e;
        must(n, rq_log_get(n->log, n->delivered + 1, &e), "read a committed entry");
        n->delivered++;
        n->machine.committed(n->machine.ctx, &e);
        rq_blob_unref(e.blob);
    }
    n->delivering = false;
}

static void tell_role(struct rq_node *n)
{
    struct role now = { rq_core_leads(&n->core), rq_node_term(n), rq_core_leader_id(&n->core) };
    if (now.leads != n->told.leads || now.term != n->told.term || now.leader_id != n->told.leader_id) {
        n->told = now;
        n->machine.role(n->machine.ctx, now.leads, now.term, now.leader_id);
    }
}

static void ask_install(struct rq_node *n)
{
    const struct rq_core_wanted *wanted = &n->core.wanted;
    /* Another leader may offer less, which is enough then, and all there is: who had more may be gone. */
    const bool news = wanted->index > n->install_asked || wanted->leader_id != n->install_leader;
    if (wanted->index > 0 && news && n->machine.install != NULL) {
        n->install_asked = wanted->index;
        n->install_leader = wanted->leader_id;
        n->machine.install(n->machine.ctx, wanted->index, wanted->term, wanted->leader_id);
    }
}

static void tell_removed(struct rq_node *n)
{
    bool removed = rq_core_is_removed(&n->core);
    if (removed && !n->removed_told && n->machine.removed != NULL) {
        n->machine.removed(n->machine.ctx);
    }
    n->removed_told = removed;
}

static void tell_members(struct rq_node *n)
{
    if (rq_membership_changed(&n->membership, &n->core) && n->machine.members != NULL) {
        n->machine.members(n->machine.ctx, &n->membership.members);
    }
}

/* After every event: what the machine is to know of it, and what a leader owes to the membership. */
static void settle(struct rq_node *n)
{
    count_committed(n);
    tell_members(n);
    deliver(n);
    tell_role(n);
    ask_install(n);
    tell_removed(n);
    if (!n->settling) { /* whom it answers may ask for the next change */
        n->settling = true;
        rq_membership_go_on(&n->membership, &n->core);
        n->settling = false;
        count_committed(n);
        tell_members(n);
        tell_role(n);
    }
    rq_reads_go_on(&n->reads, &n->core);
}

enum rq_err rq_node_new(const struct rq_node_config *config, const struct rq_node_env *env,
                        const struct rq_node_machine *machine, struct rq_node **ret_node)
{
    struct rq_node *n = calloc(1, sizeof *n);
    if (n == NULL) {
        return RQ_NOMEM;
    }
    n->log = env->log;
    n->machine = *machine;
    n->delivered = config->snapshot_index;
    forget_waiting(n);
    enum rq_err err = rq_core_start(&n->core, config, env);
    if (err != RQ_OK) {
        rq_node_free(n);
        return err;
    }
    *ret_node = n;
    settle(n);
    return RQ_OK;
}

void rq_node_free(struct rq_node *n)
{
    if (n != NULL) {
        rq_reads_fini(&n->reads);
        rq_membership_fini(&n->membership);
        rq_core_fini(&n->core);
        free(n);
    }
}

/* A list as an entry's blob. */
static enum rq_err list_blob(const struct rq_members *members, struct rq_blob **ret_blob)
{
    uint8_t *data;
    size_t bytes;
    enum rq_err err = rq_members_encode(members, &data, &bytes);
    if (err != RQ_OK) {
        return err;
    }
    *ret_blob = rq_blob_new(bytes);
    if (*ret_blob != NULL) {
        memcpy((*ret_blob)->data, data, bytes);
    }
    free(data);
    return *ret_blob != NULL ? RQ_OK : RQ_NOMEM;
}

/* Without a node: the list is in force for whoever starts on this log, in this term. */
static enum rq_err write_list(struct rq_log *log, uint64_t index, uint64_t term, uint64_t vote, uint64_t committed,
                              const struct rq_members *members)
{
    struct rq_blob *blob = NULL;
    enum rq_err err = list_blob(members, &blob);
    if (err == RQ_OK) {
        err = rq_log_reserve(log, blob->bytes, 1);
    }
    if (err == RQ_OK) {
        err = rq_log_put_meta(log, term, vote);
    }
    if (err == RQ_OK) {
        const struct rq_log_entry e = { .index = index, .term = term, .type = RQ_ENTRY_CHANGE, .blob = blob };
        err = rq_log_append(log, &e, 1, committed);
    }
    uint64_t durable = 0;
    if (err == RQ_OK) {
        err = rq_log_write(log, &durable);
    }
    assert(err != RQ_OK || durable == index);
    rq_blob_unref(blob);
    return err;
}

enum rq_err rq_node_found(struct rq_log *log, const struct rq_members *members)
{
    return rq_log_last(log) > 0 ? RQ_EXISTS : write_list(log, 1, 1, 0, 0, members);
}

enum rq_err rq_node_recover(struct rq_log *log, struct rq_node_config *config, const struct rq_member *survivor)
{
    struct rq_members members = { .count = 1, .list = { *survivor } };
    struct rq_log_found *found = &config->found;
    enum rq_err err = rq_core_drop_log_given_up(log, config);
    if (err == RQ_OK) {
        err = write_list(log, found->last_index + 1, found->term + 1, survivor->instance, found->committed, &members);
    }
    if (err == RQ_OK) {
        found->last_index++;
        found->term++;
        found->vote = survivor->instance;
    }
    return err;
}

enum rq_err rq_node_submit(struct rq_node *n, uint16_t type, struct rq_blob *blob, uint64_t *ret_index,
                           uint64_t *ret_term)
{
    size_t bytes = blob != NULL ? blob->bytes : 0;
    if (type == RQ_ENTRY_CHANGE) {
        return RQ_MISUSE;
    }
    if (rq_membership_hands_over(&n->membership)) {
        return RQ_BUSY;
    }
    if (rq_core_owes_barrier(&n->core)) {
        return RQ_FULL;
    }
    if (!rq_core_leads(&n->core)) {
        return RQ_AWAY;
    }
    if (bytes > RQ_NODE_UNCOMMITTED_BYTES_MAX) {
        return RQ_TOOBIG;
    }
    if (rq_log_last(n->log) - n->core.committed >= RQ_NODE_UNCOMMITTED_ENTRIES_MAX ||
        n->waiting_bytes + bytes > RQ_NODE_UNCOMMITTED_BYTES_MAX) {
        return RQ_BUSY;
    }
    enum rq_err err = rq_log_reserve(n->log, bytes, 1);
    if (err == RQ_FULL || err == RQ_TOOBIG) {
        return err;
    }
    must(n, err, "reserve room in the log");
    struct rq_log_entry e = { .type = type, .blob = blob };
    err = rq_core_submit(&n->core, &e);
    if (err != RQ_OK) {
        rq_log_unreserve(n->log, bytes, 1);
        return err;
    }
    *ret_index = e.index;
    *ret_term = e.term;
    count_submitted(n, e.index, (uint32_t)bytes);
    rq_blob_unref(blob); /* the log holds its own reference */
    settle(n);
    return RQ_OK;
}

void rq_node_persisted(struct rq_node *n)
{
    rq_core_persisted(&n->core);
    settle(n);
}

void rq_node_receive(struct rq_node *n, const struct raft_message *message, const struct rq_log_entry *entries)
{
    rq_membership_heard(&n->membership, &n->core, message->server_id);
    rq_core_receive(&n->core, message, entries);
    settle(n);
}

void rq_node_awaited(struct rq_node *n, uint64_t instance, uint64_t index)
{
    rq_tell_awaited(&n->core, instance, index);
}

void rq_node_receive_round(struct rq_node *n, uint64_t from, const struct rq_round *round)
{
    rq_reads_receive(&n->reads, &n->core, from, round);
    rq_reads_go_on(&n->reads, &n->core);
}

void rq_node_read(struct rq_node *n, struct rq_node_read *r)
{
    rq_reads_add(&n->reads, &n->core, r);
}

void rq_node_told_removed(struct rq_node *n, uint64_t from, uint64_t index)
{
    if (rq_filter_is_voter(&n->core.raft.configuration, from) && n->core.raft.state != RAFT_LEADER) {
        n->core.removed_index = index > n->core.removed_index ? index : n->core.removed_index;
        settle(n);
    }
}

void rq_node_found_removed(struct rq_node *n)
{
    const struct raft *r = &n->core.raft;
    if (r->state != RAFT_LEADER && !rq_core_is_removed(&n->core)) {
        n->core.removed_index = (r->configuration_committed_index > r->configuration_uncommitted_index
                                     ? r->configuration_committed_index
                                     : r->configuration_uncommitted_index) +
                                1;
        settle(n);
    }
}

void rq_node_installed(struct rq_node *n, const struct rq_node_snapshot *snapshot)
{
    n->install_asked = 0;
    must(n, rq_core_install(&n->core, snapshot), "install a descriptor");
    if (n->delivered < n->core.config.snapshot_index) {
        n->delivered = n->core.config.snapshot_index;
    }
    settle(n);
}

enum rq_err rq_node_join(struct rq_node *n, const struct rq_member *member, rq_node_done_cb done, void *ctx)
{
    enum rq_err err = rq_membership_join(&n->membership, &n->core, member, done, ctx);
    settle(n);
    return err;
}

enum rq_err rq_node_remove(struct rq_node *n, uint64_t instance, rq_node_done_cb done, void *ctx)
{
    enum rq_err err = rq_membership_remove(&n->membership, &n->core, instance, done, ctx);
    settle(n);
    return err;
}

enum rq_err rq_node_transfer(struct rq_node *n, uint64_t instance, rq_node_done_cb done, void *ctx)
{
    enum rq_err err = rq_membership_transfer(&n->membership, &n->core, instance, done, ctx);
    settle(n);
    return err;
}

const struct rq_members *rq_node_members(const struct rq_node *n)
{
    return n->membership.members.count > 0 ? &n->membership.members : NULL;
}

bool rq_node_hears(const struct rq_node *n, uint64_t instance)
{
    return rq_core_hears(&n->core, instance);
}

uint64_t rq_node_needed_from(const struct rq_node *n)
{
    const struct raft *r = &n->core.raft;
    uint64_t from = UINT64_MAX;
    for (unsigned i = 0; r->state == RAFT_LEADER && i < r->configuration.n; i++) {
        uint64_t id = r->configuration.servers[i].id;
        uint64_t next = rq_core_match(&n->core, id) + 1;
        if (id != r->id && rq_core_hears(&n->core, id) && next < from) {
            from = next;
        }
    }
    return from;
}

void rq_node_timer(struct rq_node *n)
{
    rq_core_timer(&n->core);
    settle(n);
}

uint64_t rq_node_wake_ms(const struct rq_node *n)
{
    uint64_t wake = rq_core_wake_ms(&n->core);
    const uint64_t others[] = { rq_membership_wake_ms(&n->membership, &n->core),
                                rq_reads_wake_ms(&n->reads, &n->core) };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        wake = others[i] < wake ? others[i] : wake;
    }
    return wake;
}

bool rq_node_is_full(const struct rq_node *n)
{
    return n->core.log_full && n->core.raft.state != RAFT_LEADER;
}

bool rq_node_leads(const struct rq_node *n)
{
    return rq_core_leads(&n->core);
}

uint64_t rq_node_term(const struct rq_node *n)
{
    return raft_current_term(&n->core.raft);
}

uint64_t rq_node_committed(const struct rq_node *n)
{
    return n->core.committed;
}

uint64_t rq_node_delivered(const struct rq_node *n)
{
    return n->delivered;
}

const char *rq_node_role(const struct rq_node *n)
{
    switch (n->core.raft.state) {
        case RAFT_LEADER:
            return "Leader";
        case RAFT_CANDIDATE:
            return "Candidate";
        default:
            return "Follower";
    }
}

enum rq_err rq_node_configuration(struct rq_node *n, uint64_t index, uint8_t **ret_data, size_t *ret_bytes,
                                  uint64_t *ret_index)
{
    const struct raft *r = &n->core.raft;
    if (index > n->core.committed || r->configuration_committed_index == 0) {
        return RQ_MISUSE;
    }
    if (index < r->configuration_committed_index) {
        return RQ_BUSY;
    }
    struct raft_buffer buf;
    if (raft_configuration_encode(&r->configuration_committed, &buf) != 0) {
        return RQ_NOMEM;
    }
    *ret_data = buf.base; /* raft_malloc() is malloc() */
    *ret_bytes = buf.len;
    *ret_index = r->configuration_committed_index;
    return RQ_OK;
}

enum rq_err rq_node_compacted(struct rq_node *n, uint64_t index, unsigned trailing)
{
    if (index > n->delivered) {
        return RQ_MISUSE;
    }
    uint64_t released;
    enum rq_err err = rq_core_compact(&n->core, index, trailing, &released);
    if (err == RQ_OK && released > 0) {
        must(n, rq_log_release(n->log, released), "release the log");
    }
    return err;
}

const struct rq_core *rq_node_core(const struct rq_node *n)
{
    return &n->core;
}
