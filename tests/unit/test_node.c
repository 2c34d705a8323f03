/* Node of a cluster of one, and one member of three fed with messages by hand, on a log in memory.  Guards what raftd relies on:
 * when an entry is delivered, in which order, under which term it leads, and what it does when there is no room. */
#include <raft.h>
#include <stdlib.h>

#include "raftd/node/core.h"
#include "raftd/node/node.h"
#include "tests/support/memory_log.h"
#include "tests/support/tap.h"

enum { SELF = 7, ELECTION_MS = 300, HEARTBEAT_MS = 50, DELIVERED_MAX = 1024, SENT_MAX = 64 };

static struct {
    struct rq_log *log;
    struct rq_node *node;
    uint64_t now_ms;
    unsigned writes_wanted;
    uint64_t delivered[DELIVERED_MAX]; /* indexes */
    uint64_t delivered_terms[DELIVERED_MAX];
    unsigned delivered_count;
    bool leads;
    uint64_t term, leader_id;
    struct raft_message sent[SENT_MAX];
    unsigned sent_count;
    unsigned fatal_count;
    jmp_buf on_fatal;
    bool submit_in_delivery;
} t;

static uint64_t now_ms(void *ctx)
{
    (void)ctx;
    return t.now_ms;
}

static void write_wanted(void *ctx)
{
    (void)ctx;
    t.writes_wanted++;
}

static void send_message(void *ctx, const struct raft_message *m)
{
    (void)ctx;
    t.sent[t.sent_count++ % SENT_MAX] = *m;
}

static void on_fatal(void *ctx, const char *why, enum rq_err err)
{
    (void)ctx;
    printf("# fatal: %s: %s\n", why, rq_err_name(err));
    t.fatal_count++;
    longjmp(t.on_fatal, 1);
}

static void on_committed(void *ctx, const struct rq_log_entry *e)
{
    (void)ctx;
    t.delivered[t.delivered_count % DELIVERED_MAX] = e->index;
    t.delivered_terms[t.delivered_count++ % DELIVERED_MAX] = e->term;
    if (t.submit_in_delivery && rq_node_leads(t.node)) {
        uint64_t index, term;
        t.submit_in_delivery = false;
        check_eq(rq_node_submit(t.node, RQ_ENTRY_TXN, rq_blob_new(1), &index, &term), RQ_OK);
        rq_log_write(t.log, &index);
        rq_node_persisted(t.node);
    }
}

static void on_role(void *ctx, bool leads, uint64_t term, uint64_t leader_id)
{
    (void)ctx;
    t.leads = leads;
    t.term = term;
    t.leader_id = leader_id;
}

static struct rq_node_env env_of_test(void)
{
    return (struct rq_node_env){
        .log = t.log, .now_ms = now_ms, .write_wanted = write_wanted, .send = send_message, .fatal = on_fatal
    };
}

static enum rq_err start_with(struct rq_node_config *config)
{
    const struct rq_node_machine machine = { .committed = on_committed, .role = on_role };
    const struct rq_node_env env = env_of_test();
    config->id = SELF;
    config->address = "self";
    config->seed = 1;
    config->election_timeout_ms = ELECTION_MS;
    config->heartbeat_ms = HEARTBEAT_MS;
    t.delivered_count = 0;
    t.leads = false;
    return rq_node_new(config, &env, &machine, &t.node);
}

static enum rq_err start(void)
{
    struct rq_node_config config = { 0 };
    memory_log_crash(t.log, &config.found);
    return start_with(&config);
}

static void reset(void)
{
    rq_node_free(t.node);
    if (t.log != NULL) {
        rq_log_close(t.log);
    }
    memset(&t, 0, sizeof t);
    t.log = memory_log_new();
}

static void persist(void)
{
    uint64_t durable;
    if (rq_log_write(t.log, &durable) == RQ_OK) {
        rq_node_persisted(t.node);
    }
}

static void fill_member(struct rq_member *m, uint64_t instance)
{
    *m = (struct rq_member){
        .instance = instance, .role = RQ_MEMBER_VOTER, .votes = true, .key = { (uint8_t)instance }
    };
    snprintf(m->name, sizeof m->name, "n%u", (unsigned)instance);
    snprintf(m->raft_addr, sizeof m->raft_addr, "host%u:4002", (unsigned)instance);
    snprintf(m->http_addr, sizeof m->http_addr, "host%u:4001", (unsigned)instance);
}

static enum rq_err found_alone(void)
{
    struct rq_members members = { .count = 1 };
    fill_member(&members.list[0], SELF);
    return rq_node_found(t.log, &members);
}

static void start_leading(void)
{
    reset();
    check_eq(found_alone(), RQ_OK);
    check_eq(start(), RQ_OK);
    persist();
    check(rq_node_leads(t.node));
}

static enum rq_err submit(size_t bytes)
{
    uint64_t index, term;
    struct rq_blob *blob = rq_blob_new(bytes);
    enum rq_err err = rq_node_submit(t.node, RQ_ENTRY_TXN, blob, &index, &term);
    if (err != RQ_OK) {
        rq_blob_unref(blob);
    }
    return err;
}

static void wait_ms(unsigned ms)
{
    for (uint64_t end = t.now_ms + ms; t.now_ms < end; t.now_ms++) {
        if (t.now_ms >= rq_node_wake_ms(t.node)) {
            rq_node_timer(t.node);
        }
    }
}

/* --- one voter --- */

static void a_founded_log_cannot_be_founded_again(void)
{
    reset();
    check_eq(found_alone(), RQ_OK);
    check_eq(found_alone(), RQ_EXISTS);
    check_eq(rq_log_last(t.log), 1);
    check_eq(rq_log_durable(t.log), 1);
}

static void leads_only_after_its_barrier_is_durable(void)
{
    reset();
    check_eq(found_alone(), RQ_OK);
    check_eq(start(), RQ_OK);
    check(strcmp(rq_node_role(t.node), "Leader") == 0);
    check(!rq_node_leads(t.node));
    check_eq(submit(1), RQ_AWAY);
    check_eq(t.writes_wanted, 1);
    persist();
    check(rq_node_leads(t.node));
    check(t.leads);
    check_eq(t.leader_id, SELF);
    check_eq(t.delivered_count, 2); /* the configuration and the barrier */
    check_eq(submit(1), RQ_OK);
}

/* N1: the core alone would lead in the term that is stored. */
static void sole_voter_never_leads_twice_in_a_term(void)
{
    start_leading();
    uint64_t term = rq_node_term(t.node);
    for (int i = 0; i < 3; i++) {
        rq_node_free(t.node);
        t.node = NULL;
        check_eq(start(), RQ_OK);
        check(rq_node_term(t.node) > term);
        term = rq_node_term(t.node);
        struct rq_log_found found;
        memory_log_crash(t.log, &found);
        check_eq(found.term, term);
        check_eq(found.vote, SELF);
    }
}

static void delivers_only_what_is_durable_and_in_order(void)
{
    start_leading();
    unsigned before = t.delivered_count;
    for (int i = 0; i < 10; i++) {
        check_eq(submit(8), RQ_OK);
    }
    check_eq(t.delivered_count, before);
    persist();
    check_eq(t.delivered_count, before + 10);
    for (unsigned i = 1; i < t.delivered_count; i++) {
        check_eq(t.delivered[i], t.delivered[i - 1] + 1);
    }
}

static void submit_from_inside_a_delivery_keeps_the_order(void)
{
    start_leading();
    t.submit_in_delivery = true;
    check_eq(submit(1), RQ_OK);
    check_eq(submit(1), RQ_OK);
    persist();
    check_eq(rq_node_committed(t.node), 5);
    check_eq(t.delivered_count, 5);
    for (unsigned i = 0; i < t.delivered_count; i++) {
        check_eq(t.delivered[i], i + 1);
    }
}

static void restart_delivers_everything_again_at_once(void)
{
    start_leading();
    check_eq(submit(1), RQ_OK);
    persist();
    check_eq(submit(1), RQ_OK); /* carries the commit index of the one before */
    persist();
    uint64_t last = rq_log_last(t.log);
    check_eq(submit(1), RQ_OK); /* never durable */
    rq_node_free(t.node);
    check_eq(start(), RQ_OK);
    check_eq(t.delivered_count, last); /* the only voter's durable entries are committed */
    check_eq(rq_node_committed(t.node), last);
}

static void uncommitted_entries_are_limited(void)
{
    start_leading();
    for (unsigned i = 0; i < RQ_NODE_UNCOMMITTED_ENTRIES_MAX; i++) {
        check_eq(submit(1), RQ_OK);
    }
    check_eq(submit(1), RQ_BUSY);
    persist();
    check_eq(submit(1), RQ_OK);
}

static void uncommitted_bytes_are_limited(void)
{
    start_leading();
    check_eq(submit(RQ_NODE_UNCOMMITTED_BYTES_MAX + 1), RQ_TOOBIG);
    for (int round = 0; round < 3; round++) {
        check_eq(submit(RQ_NODE_UNCOMMITTED_BYTES_MAX - 10), RQ_OK);
        check_eq(submit(11), RQ_BUSY);
        check_eq(submit(10), RQ_OK);
        check_eq(submit(1), RQ_BUSY);
        persist();
    }
}

static void membership_is_not_for_submit(void)
{
    start_leading();
    uint64_t index, term;
    check_eq(rq_node_submit(t.node, RQ_ENTRY_CHANGE, NULL, &index, &term), RQ_MISUSE);
}

static void full_log_refuses_and_takes_again(void)
{
    start_leading();
    memory_log_limit(t.log, 1);
    check_eq(submit(1), RQ_OK);
    check_eq(submit(1), RQ_FULL);
    persist();
    check_eq(memory_log_reserved(t.log), 0);
    memory_log_limit(t.log, 10);
    check_eq(submit(1), RQ_OK);
}

static void full_log_at_the_start_delays_leading_only(void)
{
    reset();
    check_eq(found_alone(), RQ_OK);
    memory_log_limit(t.log, 0);
    check_eq(start(), RQ_OK);
    check_eq(t.delivered_count, 1);
    check_eq(submit(1), RQ_FULL);
    wait_ms(3 * ELECTION_MS);
    check(!rq_node_leads(t.node));
    memory_log_limit(t.log, 10);
    wait_ms(2 * HEARTBEAT_MS);
    persist();
    check(rq_node_leads(t.node));
    check_eq(submit(1), RQ_OK);
}

static void timer_keeps_an_idle_leader_without_spinning(void)
{
    start_leading();
    unsigned wakes = 0;
    for (; t.now_ms < 10000; t.now_ms++) {
        if (t.now_ms >= rq_node_wake_ms(t.node)) {
            rq_node_timer(t.node);
            wakes++;
        }
    }
    check(rq_node_leads(t.node));
    check(wakes <= 10000 / HEARTBEAT_MS + 1);
}

static void compaction_releases_and_a_restart_continues(void)
{
    start_leading();
    for (int i = 0; i < 20; i++) {
        check_eq(submit(4), RQ_OK);
    }
    persist();
    uint8_t *configuration;
    size_t bytes;
    uint64_t configuration_index, last = rq_log_last(t.log);
    check_eq(rq_node_configuration(t.node, last - 5, &configuration, &bytes, &configuration_index), RQ_OK);
    check_eq(configuration_index, 1);
    check_eq(rq_node_compacted(t.node, last + 1, 0), RQ_MISUSE);
    struct rq_node_config config = {
        .snapshot_index = last - 5,
        .snapshot_term = rq_log_term_at(t.log, last - 5),
        .snapshot_configuration_index = configuration_index,
        .snapshot_configuration = configuration,
        .snapshot_configuration_bytes = bytes,
    };
    check_eq(rq_node_compacted(t.node, last - 5, 3), RQ_OK);
    check_eq(rq_log_first(t.log), last - 5 - 3 + 1);
    check_eq(rq_node_compacted(t.node, last - 5, 0), RQ_OK); /* repeated: no harm */

    rq_node_free(t.node);
    memory_log_crash(t.log, &config.found);
    check_eq(start_with(&config), RQ_OK);
    check_eq(t.delivered[0], last - 4); /* behind the descriptor */
    persist();
    check(rq_node_leads(t.node));

    /* Nothing at all left in the log. */
    last = rq_log_last(t.log);
    config.snapshot_index = last;
    config.snapshot_term = rq_log_term_at(t.log, last);
    check_eq(rq_node_compacted(t.node, last, 0), RQ_OK);
    check(rq_node_leads(t.node));
    check_eq(submit(1), RQ_OK);
    persist();
    check_eq(rq_node_committed(t.node), last + 1);
    rq_node_free(t.node);
    memory_log_crash(t.log, &config.found);
    check_eq(start_with(&config), RQ_OK);
    persist();
    check(rq_node_leads(t.node));
    check_eq(t.delivered[0], last + 1);
    free(configuration);
}

static void descriptor_and_log_must_fit(void)
{
    start_leading();
    for (int i = 0; i < 5; i++) {
        check_eq(submit(4), RQ_OK);
    }
    persist();
    struct rq_node_config good = { .snapshot_index = 4 }, config;
    uint8_t *configuration;
    check_eq(rq_node_configuration(t.node, 4, &configuration, &good.snapshot_configuration_bytes,
                                   &good.snapshot_configuration_index),
             RQ_OK);
    good.snapshot_configuration = configuration;
    good.snapshot_term = rq_log_term_at(t.log, 4);
    rq_node_free(t.node);
    t.node = NULL;
    memory_log_crash(t.log, &good.found);

    config = good;
    config.snapshot_index = good.found.last_index + 1; /* the log is older than the descriptor */
    check_eq(start_with(&config), RQ_CORRUPT);
    config = good;
    config.snapshot_term--;
    check_eq(start_with(&config), RQ_CORRUPT);
    config = good;
    config.snapshot_configuration_bytes = 8;
    check_eq(start_with(&config), RQ_CORRUPT);
    config = good;
    config.snapshot_index = 0;
    config.found.first_index = 2; /* a log without its beginning, and no descriptor */
    check_eq(start_with(&config), RQ_CORRUPT);
    config = good;
    config.found.term = 1; /* the term file is older than the log */
    check_eq(start_with(&config), RQ_CORRUPT);
    check_eq(start_with(&good), RQ_OK);
    free(configuration);
}

/* --- one member of three; the others are this test --- */

enum { PEER_A = 8, PEER_B = 9 };

static struct rq_blob *configuration_of(unsigned servers)
{
    struct rq_members members = { .count = servers };
    uint8_t *data;
    size_t bytes;
    for (unsigned i = 0; i < servers; i++) {
        fill_member(&members.list[i], SELF + i);
    }
    check_eq(rq_members_encode(&members, &data, &bytes), RQ_OK);
    struct rq_blob *blob = rq_blob_new(bytes);
    memcpy(blob->data, data, bytes);
    free(data);
    return blob;
}

static void start_member(void)
{
    reset();
    struct rq_log_entry e = { .index = 1, .term = 1, .type = RQ_ENTRY_CHANGE, .blob = configuration_of(3) };
    uint64_t durable;
    check_eq(rq_log_reserve(t.log, e.blob->bytes, 1), RQ_OK);
    check_eq(rq_log_put_meta(t.log, 1, 0), RQ_OK);
    check_eq(rq_log_append(t.log, &e, 1, 0), RQ_OK);
    check_eq(rq_log_write(t.log, &durable), RQ_OK);
    rq_blob_unref(e.blob);
    check_eq(start(), RQ_OK);
}

static const struct raft *raft_of_node(void)
{
    return &rq_node_core(t.node)->raft;
}

static const struct raft_message *last_sent(void)
{
    check(t.sent_count > 0);
    return &t.sent[(t.sent_count - 1) % SENT_MAX];
}

struct append {
    uint64_t term, prev, prev_term, commit;
    unsigned count;
    uint64_t entry_term;
    unsigned servers[4]; /* of entries that are changes; 0: an ordinary entry */
};

static void feed_append(struct append a)
{
    struct rq_log_entry entries[64] = { 0 };
    for (unsigned i = 0; i < a.count; i++) {
        entries[i].term = a.entry_term;
        entries[i].type = i < 4 && a.servers[i] > 0 ? RQ_ENTRY_CHANGE : RQ_ENTRY_TXN;
        entries[i].blob = i < 4 && a.servers[i] > 0 ? configuration_of(a.servers[i]) : NULL;
    }
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES, .server_id = PEER_A, .server_address = "server1" };
    m.append_entries.term = a.term;
    m.append_entries.prev_log_index = a.prev;
    m.append_entries.prev_log_term = a.prev_term;
    m.append_entries.leader_commit = a.commit;
    m.append_entries.n_entries = a.count;
    rq_node_receive(t.node, &m, entries);
    for (unsigned i = 0; i < a.count; i++) {
        rq_blob_unref(entries[i].blob);
    }
}

static void feed_result(uint64_t peer, uint64_t term, uint64_t rejected, uint64_t last)
{
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES_RESULT,
                              .server_id = peer,
                              .server_address = peer == PEER_A ? "server1" : "server2" };
    m.append_entries_result.version = 2;
    m.append_entries_result.term = term;
    m.append_entries_result.rejected = rejected;
    m.append_entries_result.last_log_index = last;
    rq_node_receive(t.node, &m, NULL);
}

/* Time passes until it asks for votes, and it gets them. */
static void elect(void)
{
    while (t.sent_count == 0 || last_sent()->type != RAFT_REQUEST_VOTE) {
        wait_ms(1);
    }
    for (int round = 0; round < 2; round++) { /* before the vote, and the vote */
        check_eq(last_sent()->type, RAFT_REQUEST_VOTE);
        check_eq(last_sent()->request_vote.pre_vote, round == 0);
        struct raft_message m = { .type = RAFT_REQUEST_VOTE_RESULT, .server_id = PEER_A, .server_address = "server1" };
        m.request_vote_result.version = 2;
        m.request_vote_result.term = last_sent()->request_vote.term;
        m.request_vote_result.pre_vote = last_sent()->request_vote.pre_vote;
        m.request_vote_result.vote_granted = true;
        rq_node_receive(t.node, &m, NULL);
    }
    check(strcmp(rq_node_role(t.node), "Leader") == 0);
}

/* N11: the core makes no barrier when its last entry is committed, and would then take changes too early. */
static void new_leader_appends_a_barrier_and_waits_for_it(void)
{
    start_member();
    elect();
    check_eq(rq_log_last(t.log), 2);
    persist();
    check(!rq_node_leads(t.node));
    check_eq(submit(1), RQ_AWAY);
    feed_result(PEER_A, rq_node_term(t.node), 0, 2);
    check(rq_node_leads(t.node));
    check_eq(submit(1), RQ_OK);
}

/* N17: the core would take an early time-out for a heartbeat interval in which nobody has answered. */
static void early_timer_does_nothing(void)
{
    start_member();
    elect();
    unsigned sent = t.sent_count;
    for (int i = 0; i < 100; i++) {
        rq_node_timer(t.node);
    }
    check_eq(t.sent_count, sent);
    wait_ms(HEARTBEAT_MS + 1);
    check(t.sent_count > sent);
}

static void no_candidacy_without_room_for_the_barrier(void)
{
    start_member();
    memory_log_limit(t.log, 0);
    wait_ms(10 * ELECTION_MS);
    check_eq(t.sent_count, 0);
    memory_log_limit(t.log, 10);
    elect();
}

static void follower_without_room_takes_nothing(void)
{
    start_member();
    memory_log_limit(t.log, 1);
    feed_append((struct append){ .term = 1, .prev = 1, .prev_term = 1, .count = 2, .entry_term = 1 });
    check_eq(rq_log_last(t.log), 1);
    check_eq(memory_log_reserved(t.log), 0);
    feed_append((struct append){ .term = 1, .prev = 1, .prev_term = 1, .count = 1, .entry_term = 1 });
    check_eq(rq_log_last(t.log), 2);
}

static void entries_that_are_there_already_give_their_room_back(void)
{
    start_member();
    for (int i = 0; i < 2; i++) {
        feed_append((struct append){ .term = 1, .prev = 1, .prev_term = 1, .count = 5, .entry_term = 1 });
        check_eq(rq_log_last(t.log), 6);
        check_eq(memory_log_reserved(t.log), 0);
    }
}

/* N2: the core notes the wrong index for a change that is not the first entry of a message, and would not roll it back. */
static void overwritten_change_is_rolled_back(void)
{
    start_member();
    feed_append(
        (struct append){ .term = 2, .prev = 1, .prev_term = 1, .count = 2, .entry_term = 2, .servers = { 0, 4 } });
    check_eq(rq_log_last(t.log), 3);
    check_eq(raft_of_node()->configuration.n, 4);
    check_eq(raft_of_node()->configuration_uncommitted_index, 3);
    feed_append((struct append){ .term = 3, .prev = 2, .prev_term = 2, .count = 1, .entry_term = 3 });
    check_eq(raft_of_node()->configuration.n, 3);
    check_eq(raft_of_node()->configuration_uncommitted_index, 0);
}

static void second_change_proves_the_first_committed(void)
{
    start_member();
    feed_append(
        (struct append){ .term = 2, .prev = 1, .prev_term = 1, .count = 3, .entry_term = 2, .servers = { 4, 0, 5 } });
    check_eq(raft_of_node()->configuration.n, 5);
    feed_append((struct append){ .term = 3, .prev = 3, .prev_term = 2, .count = 1, .entry_term = 3 });
    check_eq(raft_of_node()->configuration.n, 4);
}

/* N3: uninitialised bytes in the core's own answer. */
static void leader_of_an_older_term_is_told_the_term_and_nothing_else(void)
{
    start_member();
    feed_append((struct append){ .term = 5, .prev = 1, .prev_term = 1, .count = 2, .entry_term = 5 });
    persist();
    feed_append((struct append){ .term = 4, .prev = 0, .prev_term = 0, .count = 0 });
    check_eq(last_sent()->type, RAFT_APPEND_ENTRIES_RESULT);
    check_eq(last_sent()->append_entries_result.term, 5);
    check_eq(last_sent()->append_entries_result.rejected, 1);
    check_eq(last_sent()->append_entries_result.last_log_index, 0);
}

/* N4: old entries behind the newest. */
static void entries_below_the_descriptor_are_clipped(void)
{
    start_member();
    feed_append((struct append){ .term = 1, .prev = 1, .prev_term = 1, .commit = 20, .count = 19, .entry_term = 1 });
    persist();
    check_eq(rq_node_committed(t.node), 20);
    check_eq(rq_node_compacted(t.node, 15, 0), RQ_OK);
    feed_append((struct append){ .term = 1, .prev = 1, .prev_term = 1, .commit = 20, .count = 10, .entry_term = 1 });
    check_eq(rq_log_last(t.log), 20);
    check_eq(last_sent()->append_entries_result.rejected, 0);
    check_eq(last_sent()->append_entries_result.last_log_index, 15);
    feed_append((struct append){ .term = 1, .prev = 0, .commit = 20, .count = 25, .entry_term = 1, .servers = { 3 } });
    check_eq(rq_log_last(t.log), 25);
    persist();
    check_eq(last_sent()->append_entries_result.last_log_index, 25);
}

/* N5: the window to that member would wrap around, and nothing would ever be sent to it again. */
static void late_rejection_does_not_stop_replication(void)
{
    start_member();
    elect();
    persist();
    uint64_t term = rq_node_term(t.node);
    feed_result(PEER_A, term, 0, 2);
    check_eq(submit(1), RQ_OK);
    persist();
    feed_result(PEER_A, term, 0, 3);
    feed_result(PEER_A, term, 2, 1);
    unsigned sent = t.sent_count;
    check_eq(submit(1), RQ_OK);
    bool seen = false;
    for (; sent < t.sent_count; sent++) {
        const struct raft_message *m = &t.sent[sent % SENT_MAX];
        seen |= m->server_id == PEER_A && m->append_entries.prev_log_index == 3 && m->append_entries.n_entries == 1;
    }
    check(seen);
    check_eq(raft_of_node()->state, RAFT_LEADER);
    feed_result(PEER_A, term + 1, 1, 0); /* not late: a newer term is told like this too */
    check_eq(raft_of_node()->state, RAFT_FOLLOWER);
    check_eq(rq_node_term(t.node), term + 1);
}

/* N9: the core's own commit index goes back. */
static void commit_index_never_goes_back(void)
{
    start_member();
    feed_append((struct append){ .term = 1, .prev = 1, .prev_term = 1, .commit = 8, .count = 9, .entry_term = 1 });
    persist();
    check_eq(rq_node_committed(t.node), 8);
    unsigned delivered = t.delivered_count;
    feed_append((struct append){ .term = 1, .prev = 3, .prev_term = 1, .commit = 10, .count = 0 });
    check_eq(raft_commit_index(raft_of_node()), 3);
    check_eq(rq_node_committed(t.node), 8);
    check_eq(t.delivered_count, delivered);
}

/* N13: whoever has the longest log has to learn why it is refused. */
static void asker_with_an_old_term_is_told_the_new_one(void)
{
    start_member();
    feed_append((struct append){ .term = 6, .prev = 1, .prev_term = 1, .count = 0 });
    struct raft_message m = { .type = RAFT_REQUEST_VOTE, .server_id = PEER_B, .server_address = "server2" };
    m.request_vote.version = 2;
    m.request_vote.term = 3;
    m.request_vote.candidate_id = PEER_B;
    m.request_vote.pre_vote = true;
    rq_node_receive(t.node, &m, NULL);
    check_eq(last_sent()->type, RAFT_REQUEST_VOTE_RESULT);
    check_eq(last_sent()->request_vote_result.term, 6);
    check(!last_sent()->request_vote_result.vote_granted);
}

/* C2: a write of entries that have been replaced meanwhile must not count for those that replace them. */
static void report_of_an_overtaken_write_does_not_count(void)
{
    start_member();
    uint64_t durable;
    feed_append((struct append){ .term = 2, .prev = 1, .prev_term = 1, .count = 3, .entry_term = 2 });
    check_eq(rq_log_write(t.log, &durable), RQ_OK);
    check_eq(durable, 4);
    feed_append((struct append){ .term = 3, .prev = 2, .prev_term = 2, .count = 2, .entry_term = 3 });
    rq_node_persisted(t.node);
    check_eq(raft_of_node()->last_stored, 2);
    persist();
    check_eq(raft_of_node()->last_stored, 4);
}

static void delivers_nothing_that_is_not_durable_here(void)
{
    start_member();
    unsigned before = t.delivered_count;
    feed_append((struct append){ .term = 1, .prev = 1, .prev_term = 1, .commit = 4, .count = 3, .entry_term = 1 });
    check_eq(rq_node_committed(t.node), 4);
    check_eq(t.delivered_count, before);
    persist();
    check_eq(t.delivered_count, before + 3);
}

static void second_leader_in_a_term_ends_the_process(void)
{
    start_member();
    elect();
    uint64_t term = rq_node_term(t.node);
    if (setjmp(t.on_fatal) == 0) {
        feed_append((struct append){ .term = term, .prev = 1, .prev_term = 1, .count = 0 });
    }
    check_eq(t.fatal_count, 1);
}

static void known_commits_are_delivered_before_any_leader_is_heard(void)
{
    start_member();
    feed_append((struct append){ .term = 1, .prev = 1, .prev_term = 1, .commit = 4, .count = 4, .entry_term = 1 });
    persist();
    feed_append((struct append){ .term = 1, .prev = 5, .prev_term = 1, .commit = 5, .count = 1, .entry_term = 1 });
    persist(); /* these records carry: committed up to 5 */
    rq_node_free(t.node);
    check_eq(start(), RQ_OK);
    check_eq(rq_node_committed(t.node), 4);
    check_eq(t.delivered_count, 4);
    /* The core has not heard of these commits: its descriptor would be above its own commit index. */
    check_eq(rq_node_compacted(t.node, 4, 0), RQ_BUSY);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(a_founded_log_cannot_be_founded_again),
        TAP(leads_only_after_its_barrier_is_durable),
        TAP(sole_voter_never_leads_twice_in_a_term),
        TAP(delivers_only_what_is_durable_and_in_order),
        TAP(submit_from_inside_a_delivery_keeps_the_order),
        TAP(restart_delivers_everything_again_at_once),
        TAP(uncommitted_entries_are_limited),
        TAP(uncommitted_bytes_are_limited),
        TAP(membership_is_not_for_submit),
        TAP(full_log_refuses_and_takes_again),
        TAP(full_log_at_the_start_delays_leading_only),
        TAP(timer_keeps_an_idle_leader_without_spinning),
        TAP(compaction_releases_and_a_restart_continues),
        TAP(descriptor_and_log_must_fit),
        TAP(new_leader_appends_a_barrier_and_waits_for_it),
        TAP(early_timer_does_nothing),
        TAP(no_candidacy_without_room_for_the_barrier),
        TAP(follower_without_room_takes_nothing),
        TAP(entries_that_are_there_already_give_their_room_back),
        TAP(overwritten_change_is_rolled_back),
        TAP(second_change_proves_the_first_committed),
        TAP(leader_of_an_older_term_is_told_the_term_and_nothing_else),
        TAP(entries_below_the_descriptor_are_clipped),
        TAP(late_rejection_does_not_stop_replication),
        TAP(commit_index_never_goes_back),
        TAP(asker_with_an_old_term_is_told_the_new_one),
        TAP(report_of_an_overtaken_write_does_not_count),
        TAP(delivers_nothing_that_is_not_durable_here),
        TAP(second_leader_in_a_term_ends_the_process),
        TAP(known_commits_are_delivered_before_any_leader_is_heard),
    };
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    reset();
    rq_log_close(t.log);
    return failed;
}
