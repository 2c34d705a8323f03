#include "tests/support/node_rig.h"

#include <stdlib.h>
#include <string.h>

struct node_rig rig;

static uint64_t now_ms(void *ctx)
{
    (void)ctx;
    return rig.now_ms;
}

static void write_wanted(void *ctx)
{
    (void)ctx;
    rig.writes_wanted++;
}

static void send_message(void *ctx, const struct raft_message *m)
{
    (void)ctx;
    rig.sent[rig.sent_count++ % SENT_MAX] = *m;
}

static void send_round(void *ctx, uint64_t to, const struct rq_round *round)
{
    (void)ctx;
    rig.rounds_to[rig.round_count % SENT_MAX] = to;
    rig.rounds[rig.round_count++ % SENT_MAX] = *round;
}

static void on_fatal(void *ctx, const char *why, enum rq_err err)
{
    (void)ctx;
    printf("# fatal: %s: %s\n", why, rq_err_name(err));
    rig.fatal_count++;
    longjmp(rig.on_fatal, 1);
}

static void on_committed(void *ctx, const struct rq_log_entry *e)
{
    (void)ctx;
    rig.delivered[rig.delivered_count % DELIVERED_MAX] = e->index;
    rig.delivered_terms[rig.delivered_count++ % DELIVERED_MAX] = e->term;
    if (rig.submit_in_delivery && rq_node_leads(rig.node)) {
        uint64_t index, term;
        rig.submit_in_delivery = false;
        check_eq(rq_node_submit(rig.node, RQ_ENTRY_TXN, rq_blob_new(1), &index, &term), RQ_OK);
        rq_log_write(rig.log, &index);
        rq_node_persisted(rig.node);
    }
}

static void on_role(void *ctx, bool leads, uint64_t term, uint64_t leader_id)
{
    (void)ctx;
    rig.leads = leads;
    rig.term = term;
    rig.leader_id = leader_id;
}

static void on_members(void *ctx, const struct rq_members *members)
{
    (void)ctx;
    rig.members = *members;
    rig.members_told++;
}

static void on_install(void *ctx, uint64_t index, uint64_t term, uint64_t leader_id)
{
    (void)ctx;
    (void)term;
    (void)leader_id;
    rig.install_index = index;
}

static void on_removed(void *ctx)
{
    (void)ctx;
    rig.removed_count++;
}

static bool may_vote(void *ctx, const struct rq_members *members)
{
    (void)ctx;
    if (rig.asked_to_vote.count == 0) {
        rig.asked_to_vote = *members;
    }
    return !rig.may_not_vote;
}

static void tell_removed(void *ctx, uint64_t instance, uint64_t index)
{
    (void)ctx;
    rig.told_removed = instance;
    rig.told_removed_index = index;
}

enum rq_err rig_start_with(struct rq_node_config *config)
{
    const struct rq_node_machine machine = {
        .committed = on_committed, .role = on_role, .members = on_members, .install = on_install, .removed = on_removed
    };
    const struct rq_node_env env = { .log = rig.log,
                                     .now_ms = now_ms,
                                     .write_wanted = write_wanted,
                                     .send = send_message,
                                     .send_round = send_round,
                                     .may_vote = may_vote,
                                     .tell_removed = tell_removed,
                                     .fatal = on_fatal };
    config->id = SELF;
    config->address = "self";
    config->seed = 1;
    config->election_timeout_ms = ELECTION_MS;
    config->heartbeat_ms = HEARTBEAT_MS;
    rig.delivered_count = 0;
    rig.leads = false;
    return rq_node_new(config, &env, &machine, &rig.node);
}

enum rq_err rig_start(void)
{
    struct rq_node_config config = { 0 };
    memory_log_crash(rig.log, &config.found);
    return rig_start_with(&config);
}

void rig_reset(void)
{
    rq_node_free(rig.node);
    if (rig.log != NULL) {
        rq_log_close(rig.log);
    }
    memset(&rig, 0, sizeof rig);
    rig.log = memory_log_new();
}

void rig_persist(void)
{
    uint64_t durable;
    if (rq_log_write(rig.log, &durable) == RQ_OK) {
        rq_node_persisted(rig.node);
    }
}

void rig_fill_member(struct rq_member *m, uint64_t instance)
{
    *m = (struct rq_member){
        .instance = instance, .role = RQ_MEMBER_VOTER, .votes = true, .key = { (uint8_t)instance }
    };
    snprintf(m->name, sizeof m->name, "n%u", (unsigned)instance);
    snprintf(m->raft_addr, sizeof m->raft_addr, "host%u:4002", (unsigned)instance);
    snprintf(m->http_addr, sizeof m->http_addr, "host%u:4001", (unsigned)instance);
}

enum rq_err rig_found_alone(void)
{
    struct rq_members members = { .count = 1 };
    rig_fill_member(&members.list[0], SELF);
    return rq_node_found(rig.log, &members);
}

void rig_start_leading(void)
{
    rig_reset();
    check_eq(rig_found_alone(), RQ_OK);
    check_eq(rig_start(), RQ_OK);
    rig_persist();
    check(rq_node_leads(rig.node));
}

enum rq_err rig_submit(size_t bytes)
{
    uint64_t index, term;
    struct rq_blob *blob = rq_blob_new(bytes);
    enum rq_err err = rq_node_submit(rig.node, RQ_ENTRY_TXN, blob, &index, &term);
    if (err != RQ_OK) {
        rq_blob_unref(blob);
    }
    return err;
}

void rig_wait_ms(unsigned ms)
{
    for (uint64_t end = rig.now_ms + ms; rig.now_ms < end; rig.now_ms++) {
        if (rig.now_ms >= rq_node_wake_ms(rig.node)) {
            rq_node_timer(rig.node);
        }
    }
}

struct rq_blob *rig_configuration_of(unsigned servers)
{
    struct rq_members members = { .count = servers };
    uint8_t *data;
    size_t bytes;
    for (unsigned i = 0; i < servers; i++) {
        rig_fill_member(&members.list[i], SELF + i);
    }
    check_eq(rq_members_encode(&members, &data, &bytes), RQ_OK);
    struct rq_blob *blob = rq_blob_new(bytes);
    memcpy(blob->data, data, bytes);
    free(data);
    return blob;
}

void rig_start_member(void)
{
    rig_reset();
    struct rq_log_entry e = { .index = 1, .term = 1, .type = RQ_ENTRY_CHANGE, .blob = rig_configuration_of(3) };
    uint64_t durable;
    check_eq(rq_log_reserve(rig.log, e.blob->bytes, 1), RQ_OK);
    check_eq(rq_log_put_meta(rig.log, 1, 0), RQ_OK);
    check_eq(rq_log_append(rig.log, &e, 1, 0), RQ_OK);
    check_eq(rq_log_write(rig.log, &durable), RQ_OK);
    rq_blob_unref(e.blob);
    check_eq(rig_start(), RQ_OK);
}

const struct raft *rig_raft_of_node(void)
{
    return &rq_node_core(rig.node)->raft;
}

const struct raft_message *rig_last_sent(void)
{
    check(rig.sent_count > 0);
    return &rig.sent[(rig.sent_count - 1) % SENT_MAX];
}

void rig_feed_append(struct rig_append a)
{
    struct rq_log_entry entries[64] = { 0 };
    for (unsigned i = 0; i < a.count; i++) {
        entries[i].term = a.entry_term;
        entries[i].type = i < 4 && a.servers[i] > 0 ? RQ_ENTRY_CHANGE : RQ_ENTRY_TXN;
        entries[i].blob = i < 4 && a.servers[i] > 0 ? rig_configuration_of(a.servers[i]) : NULL;
    }
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES, .server_id = PEER_A, .server_address = "server1" };
    m.append_entries.term = a.term;
    m.append_entries.prev_log_index = a.prev;
    m.append_entries.prev_log_term = a.prev_term;
    m.append_entries.leader_commit = a.commit;
    m.append_entries.n_entries = a.count;
    rq_node_receive(rig.node, &m, entries);
    for (unsigned i = 0; i < a.count; i++) {
        rq_blob_unref(entries[i].blob);
    }
}

void rig_feed_result(uint64_t peer, uint64_t term, uint64_t rejected, uint64_t last)
{
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES_RESULT,
                              .server_id = peer,
                              .server_address = peer == PEER_A ? "server1" : "server2" };
    m.append_entries_result.version = 2;
    m.append_entries_result.term = term;
    m.append_entries_result.rejected = rejected;
    m.append_entries_result.last_log_index = last;
    rq_node_receive(rig.node, &m, NULL);
}

void rig_elect(void)
{
    while (rig.sent_count == 0 || rig_last_sent()->type != RAFT_REQUEST_VOTE) {
        rig_wait_ms(1);
    }
    for (int round = 0; round < 2; round++) { /* before the vote, and the vote */
        check_eq(rig_last_sent()->type, RAFT_REQUEST_VOTE);
        check_eq(rig_last_sent()->request_vote.pre_vote, round == 0);
        struct raft_message m = { .type = RAFT_REQUEST_VOTE_RESULT, .server_id = PEER_A, .server_address = "server1" };
        m.request_vote_result.version = 2;
        m.request_vote_result.term = rig_last_sent()->request_vote.term;
        m.request_vote_result.pre_vote = rig_last_sent()->request_vote.pre_vote;
        m.request_vote_result.vote_granted = true;
        rq_node_receive(rig.node, &m, NULL);
    }
    check(strcmp(rq_node_role(rig.node), "Leader") == 0);
}

void rig_lead_three(void)
{
    rig_start_member();
    rig_elect();
    rig_persist();
    rig_feed_result(PEER_A, rq_node_term(rig.node), 0, 2);
    rig_feed_result(PEER_B, rq_node_term(rig.node), 0, 2);
    check(rq_node_leads(rig.node));
    rig_wait_ms(2 * RQ_NODE_SHOW_MS + RQ_NODE_TELL_MS);
    rig.sent_count = 0;
}
