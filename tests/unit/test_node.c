/* Node of a cluster of one, and one member of three fed with messages by hand, on a log in memory.  Guards what raftd relies on:
 * when an entry is delivered, in which order, under which term it leads, and what it does when there is no room. */
#include <stdlib.h>
#include <string.h>

#include "tests/support/node_rig.h"

/* --- one voter --- */

static void a_founded_log_cannot_be_founded_again(void)
{
    rig_reset();
    check_eq(rig_found_alone(), RQ_OK);
    check_eq(rig_found_alone(), RQ_EXISTS);
    check_eq(rq_log_last(rig.log), 1);
    check_eq(rq_log_durable(rig.log), 1);
}

static void leads_only_after_its_barrier_is_durable(void)
{
    rig_reset();
    check_eq(rig_found_alone(), RQ_OK);
    check_eq(rig_start(), RQ_OK);
    check(strcmp(rq_node_role(rig.node), "Leader") == 0);
    check(!rq_node_leads(rig.node));
    check_eq(rig_submit(1), RQ_AWAY);
    check_eq(rig.writes_wanted, 1);
    rig_persist();
    check(rq_node_leads(rig.node));
    check(rig.leads);
    check_eq(rig.leader_id, SELF);
    check_eq(rig.delivered_count, 2); /* the configuration and the barrier */
    check_eq(rig_submit(1), RQ_OK);
}

/* N1: the core alone would lead in the term that is stored. */
static void sole_voter_never_leads_twice_in_a_term(void)
{
    rig_start_leading();
    uint64_t term = rq_node_term(rig.node);
    for (int i = 0; i < 3; i++) {
        rq_node_free(rig.node);
        rig.node = NULL;
        check_eq(rig_start(), RQ_OK);
        check(rq_node_term(rig.node) > term);
        term = rq_node_term(rig.node);
        struct rq_log_found found;
        memory_log_crash(rig.log, &found);
        check_eq(found.term, term);
        check_eq(found.vote, SELF);
    }
}

static void delivers_only_what_is_durable_and_in_order(void)
{
    rig_start_leading();
    unsigned before = rig.delivered_count;
    for (int i = 0; i < 10; i++) {
        check_eq(rig_submit(8), RQ_OK);
    }
    check_eq(rig.delivered_count, before);
    rig_persist();
    check_eq(rig.delivered_count, before + 10);
    for (unsigned i = 1; i < rig.delivered_count; i++) {
        check_eq(rig.delivered[i], rig.delivered[i - 1] + 1);
    }
}

static void submit_from_inside_a_delivery_keeps_the_order(void)
{
    rig_start_leading();
    rig.submit_in_delivery = true;
    check_eq(rig_submit(1), RQ_OK);
    check_eq(rig_submit(1), RQ_OK);
    rig_persist();
    check_eq(rq_node_committed(rig.node), 5);
    check_eq(rig.delivered_count, 5);
    for (unsigned i = 0; i < rig.delivered_count; i++) {
        check_eq(rig.delivered[i], i + 1);
    }
}

static void restart_delivers_everything_again_at_once(void)
{
    rig_start_leading();
    check_eq(rig_submit(1), RQ_OK);
    rig_persist();
    check_eq(rig_submit(1), RQ_OK); /* carries the commit index of the one before */
    rig_persist();
    uint64_t last = rq_log_last(rig.log);
    check_eq(rig_submit(1), RQ_OK); /* never durable */
    rq_node_free(rig.node);
    check_eq(rig_start(), RQ_OK);
    check_eq(rig.delivered_count, last); /* the only voter's durable entries are committed */
    check_eq(rq_node_committed(rig.node), last);
}

static void uncommitted_entries_are_limited(void)
{
    rig_start_leading();
    for (unsigned i = 0; i < RQ_NODE_UNCOMMITTED_ENTRIES_MAX; i++) {
        check_eq(rig_submit(1), RQ_OK);
    }
    check_eq(rig_submit(1), RQ_BUSY);
    rig_persist();
    check_eq(rig_submit(1), RQ_OK);
}

static void uncommitted_bytes_are_limited(void)
{
    rig_start_leading();
    check_eq(rig_submit(RQ_NODE_UNCOMMITTED_BYTES_MAX + 1), RQ_TOOBIG);
    for (int round = 0; round < 3; round++) {
        check_eq(rig_submit(RQ_NODE_UNCOMMITTED_BYTES_MAX - 10), RQ_OK);
        check_eq(rig_submit(11), RQ_BUSY);
        check_eq(rig_submit(10), RQ_OK);
        check_eq(rig_submit(1), RQ_BUSY);
        rig_persist();
    }
}

static void membership_is_not_for_submit(void)
{
    rig_start_leading();
    uint64_t index, term;
    check_eq(rq_node_submit(rig.node, RQ_ENTRY_CHANGE, NULL, &index, &term), RQ_MISUSE);
}

static void full_log_refuses_and_takes_again(void)
{
    rig_start_leading();
    memory_log_limit(rig.log, 1);
    check_eq(rig_submit(1), RQ_OK);
    check_eq(rig_submit(1), RQ_FULL);
    rig_persist();
    check_eq(memory_log_reserved(rig.log), 0);
    memory_log_limit(rig.log, 10);
    check_eq(rig_submit(1), RQ_OK);
}

static void full_log_at_the_start_delays_leading_only(void)
{
    rig_reset();
    check_eq(rig_found_alone(), RQ_OK);
    memory_log_limit(rig.log, 0);
    check_eq(rig_start(), RQ_OK);
    check_eq(rig.delivered_count, 1);
    check_eq(rig_submit(1), RQ_FULL);
    rig_wait_ms(3 * ELECTION_MS);
    check(!rq_node_leads(rig.node));
    memory_log_limit(rig.log, 10);
    rig_wait_ms(2 * HEARTBEAT_MS);
    rig_persist();
    check(rq_node_leads(rig.node));
    check_eq(rig_submit(1), RQ_OK);
}

static void timer_keeps_an_idle_leader_without_spinning(void)
{
    rig_start_leading();
    unsigned wakes = 0;
    for (; rig.now_ms < 10000; rig.now_ms++) {
        if (rig.now_ms >= rq_node_wake_ms(rig.node)) {
            rq_node_timer(rig.node);
            wakes++;
        }
    }
    check(rq_node_leads(rig.node));
    check(wakes <= 10000 / HEARTBEAT_MS + 1);
}

static void compaction_releases_and_a_restart_continues(void)
{
    rig_start_leading();
    for (int i = 0; i < 20; i++) {
        check_eq(rig_submit(4), RQ_OK);
    }
    rig_persist();
    uint8_t *configuration;
    size_t bytes;
    uint64_t configuration_index, last = rq_log_last(rig.log);
    check_eq(rq_node_configuration(rig.node, last - 5, &configuration, &bytes, &configuration_index), RQ_OK);
    check_eq(configuration_index, 1);
    check_eq(rq_node_compacted(rig.node, last + 1, 0), RQ_MISUSE);
    struct rq_node_config config = {
        .snapshot_index = last - 5,
        .snapshot_term = rq_log_term_at(rig.log, last - 5),
        .snapshot_configuration_index = configuration_index,
        .snapshot_configuration = configuration,
        .snapshot_configuration_bytes = bytes,
    };
    check_eq(rq_node_compacted(rig.node, last - 5, 3), RQ_OK);
    check_eq(rq_log_first(rig.log), last - 5 - 3 + 1);
    check_eq(rq_node_compacted(rig.node, last - 5, 0), RQ_OK); /* repeated: no harm */

    rq_node_free(rig.node);
    memory_log_crash(rig.log, &config.found);
    check_eq(rig_start_with(&config), RQ_OK);
    check_eq(rig.delivered[0], last - 4); /* behind the descriptor */
    rig_persist();
    check(rq_node_leads(rig.node));

    /* Nothing at all left in the log. */
    last = rq_log_last(rig.log);
    config.snapshot_index = last;
    config.snapshot_term = rq_log_term_at(rig.log, last);
    check_eq(rq_node_compacted(rig.node, last, 0), RQ_OK);
    check(rq_node_leads(rig.node));
    check_eq(rig_submit(1), RQ_OK);
    rig_persist();
    check_eq(rq_node_committed(rig.node), last + 1);
    rq_node_free(rig.node);
    memory_log_crash(rig.log, &config.found);
    check_eq(rig_start_with(&config), RQ_OK);
    rig_persist();
    check(rq_node_leads(rig.node));
    check_eq(rig.delivered[0], last + 1);
    free(configuration);
}

static void descriptor_and_log_must_fit(void)
{
    rig_start_leading();
    for (int i = 0; i < 5; i++) {
        check_eq(rig_submit(4), RQ_OK);
    }
    rig_persist();
    struct rq_node_config good = { .snapshot_index = 4 }, config;
    uint8_t *configuration;
    check_eq(rq_node_configuration(rig.node, 4, &configuration, &good.snapshot_configuration_bytes,
                                   &good.snapshot_configuration_index),
             RQ_OK);
    good.snapshot_configuration = configuration;
    good.snapshot_term = rq_log_term_at(rig.log, 4);
    rq_node_free(rig.node);
    rig.node = NULL;
    memory_log_crash(rig.log, &good.found);

    config = good;
    config.snapshot_index = good.found.last_index + 1; /* the log is older than the descriptor */
    check_eq(rig_start_with(&config), RQ_CORRUPT);
    config = good;
    config.snapshot_term--;
    check_eq(rig_start_with(&config), RQ_CORRUPT);
    config = good;
    config.snapshot_configuration_bytes = 8;
    check_eq(rig_start_with(&config), RQ_CORRUPT);
    config = good;
    config.snapshot_index = 0;
    config.found.first_index = 2; /* a log without its beginning, and no descriptor */
    check_eq(rig_start_with(&config), RQ_CORRUPT);
    config = good;
    config.found.term = 1; /* the term file is older than the log */
    check_eq(rig_start_with(&config), RQ_CORRUPT);
    check_eq(rig_start_with(&good), RQ_OK);
    free(configuration);
}

/* --- one member of three; the others are this test --- */

/* N11: the core makes no barrier when its last entry is committed, and would then take changes too early. */
static void new_leader_appends_a_barrier_and_waits_for_it(void)
{
    rig_start_member();
    rig_elect();
    check_eq(rq_log_last(rig.log), 2);
    rig_persist();
    check(!rq_node_leads(rig.node));
    check_eq(rig_submit(1), RQ_AWAY);
    rig_feed_result(PEER_A, rq_node_term(rig.node), 0, 2);
    check(rq_node_leads(rig.node));
    check_eq(rig_submit(1), RQ_OK);
}

/* N17: the core would take an early time-out for a heartbeat interval in which nobody has answered. */
static void early_timer_does_nothing(void)
{
    rig_start_member();
    rig_elect();
    unsigned sent = rig.sent_count;
    for (int i = 0; i < 100; i++) {
        rq_node_timer(rig.node);
    }
    check_eq(rig.sent_count, sent);
    rig_wait_ms(HEARTBEAT_MS + 1);
    check(rig.sent_count > sent);
}

static void no_candidacy_without_room_for_the_barrier(void)
{
    rig_start_member();
    memory_log_limit(rig.log, 0);
    rig_wait_ms(10 * ELECTION_MS);
    check_eq(rig.sent_count, 0);
    memory_log_limit(rig.log, 10);
    rig_elect();
}

static void follower_without_room_takes_nothing(void)
{
    rig_start_member();
    memory_log_limit(rig.log, 1);
    rig_feed_append((struct rig_append){ .term = 1, .prev = 1, .prev_term = 1, .count = 2, .entry_term = 1 });
    check_eq(rq_log_last(rig.log), 1);
    check_eq(memory_log_reserved(rig.log), 0);
    rig_feed_append((struct rig_append){ .term = 1, .prev = 1, .prev_term = 1, .count = 1, .entry_term = 1 });
    check_eq(rq_log_last(rig.log), 2);
}

static void entries_that_are_there_already_give_their_room_back(void)
{
    rig_start_member();
    for (int i = 0; i < 2; i++) {
        rig_feed_append((struct rig_append){ .term = 1, .prev = 1, .prev_term = 1, .count = 5, .entry_term = 1 });
        check_eq(rq_log_last(rig.log), 6);
        check_eq(memory_log_reserved(rig.log), 0);
    }
}

/* N2: the core notes the wrong index for a change that is not the first entry of a message, and would not roll it back. */
static void overwritten_change_is_rolled_back(void)
{
    rig_start_member();
    rig_feed_append(
        (struct rig_append){ .term = 2, .prev = 1, .prev_term = 1, .count = 2, .entry_term = 2, .servers = { 0, 4 } });
    check_eq(rq_log_last(rig.log), 3);
    check_eq(rig_raft_of_node()->configuration.n, 4);
    check_eq(rig_raft_of_node()->configuration_uncommitted_index, 3);
    rig_feed_append((struct rig_append){ .term = 3, .prev = 2, .prev_term = 2, .count = 1, .entry_term = 3 });
    check_eq(rig_raft_of_node()->configuration.n, 3);
    check_eq(rig_raft_of_node()->configuration_uncommitted_index, 0);
}

static void second_change_proves_the_first_committed(void)
{
    rig_start_member();
    rig_feed_append((struct rig_append){
        .term = 2, .prev = 1, .prev_term = 1, .count = 3, .entry_term = 2, .servers = { 4, 0, 5 } });
    check_eq(rig_raft_of_node()->configuration.n, 5);
    rig_feed_append((struct rig_append){ .term = 3, .prev = 3, .prev_term = 2, .count = 1, .entry_term = 3 });
    check_eq(rig_raft_of_node()->configuration.n, 4);
}

/* N3: uninitialised bytes in the core's own answer. */
static void leader_of_an_older_term_is_told_the_term_and_nothing_else(void)
{
    rig_start_member();
    rig_feed_append((struct rig_append){ .term = 5, .prev = 1, .prev_term = 1, .count = 2, .entry_term = 5 });
    rig_persist();
    rig_feed_append((struct rig_append){ .term = 4, .prev = 0, .prev_term = 0, .count = 0 });
    check_eq(rig_last_sent()->type, RAFT_APPEND_ENTRIES_RESULT);
    check_eq(rig_last_sent()->append_entries_result.term, 5);
    check_eq(rig_last_sent()->append_entries_result.rejected, 1);
    check_eq(rig_last_sent()->append_entries_result.last_log_index, 0);
}

/* N4: old entries behind the newest. */
static void entries_below_the_descriptor_are_clipped(void)
{
    rig_start_member();
    rig_feed_append(
        (struct rig_append){ .term = 1, .prev = 1, .prev_term = 1, .commit = 20, .count = 19, .entry_term = 1 });
    rig_persist();
    check_eq(rq_node_committed(rig.node), 20);
    check_eq(rq_node_compacted(rig.node, 15, 0), RQ_OK);
    rig_feed_append(
        (struct rig_append){ .term = 1, .prev = 1, .prev_term = 1, .commit = 20, .count = 10, .entry_term = 1 });
    check_eq(rq_log_last(rig.log), 20);
    check_eq(rig_last_sent()->append_entries_result.rejected, 0);
    check_eq(rig_last_sent()->append_entries_result.last_log_index, 15);
    rig_feed_append(
        (struct rig_append){ .term = 1, .prev = 0, .commit = 20, .count = 25, .entry_term = 1, .servers = { 3 } });
    check_eq(rq_log_last(rig.log), 25);
    rig_persist();
    check_eq(rig_last_sent()->append_entries_result.last_log_index, 25);
}

/* N5: the window to that member would wrap around, and nothing would ever be sent to it again. */
static void late_rejection_does_not_stop_replication(void)
{
    rig_start_member();
    rig_elect();
    rig_persist();
    uint64_t term = rq_node_term(rig.node);
    rig_feed_result(PEER_A, term, 0, 2);
    check_eq(rig_submit(1), RQ_OK);
    rig_persist();
    rig_feed_result(PEER_A, term, 0, 3);
    rig_feed_result(PEER_A, term, 2, 1);
    unsigned sent = rig.sent_count;
    check_eq(rig_submit(1), RQ_OK);
    bool seen = false;
    for (; sent < rig.sent_count; sent++) {
        const struct raft_message *m = &rig.sent[sent % SENT_MAX];
        seen |= m->server_id == PEER_A && m->append_entries.prev_log_index == 3 && m->append_entries.n_entries == 1;
    }
    check(seen);
    check_eq(rig_raft_of_node()->state, RAFT_LEADER);
    rig_feed_result(PEER_A, term + 1, 1, 0); /* not late: a newer term is told like this too */
    check_eq(rig_raft_of_node()->state, RAFT_FOLLOWER);
    check_eq(rq_node_term(rig.node), term + 1);
}

/* N9: the core's own commit index goes back. */
static void commit_index_never_goes_back(void)
{
    rig_start_member();
    rig_feed_append(
        (struct rig_append){ .term = 1, .prev = 1, .prev_term = 1, .commit = 8, .count = 9, .entry_term = 1 });
    rig_persist();
    check_eq(rq_node_committed(rig.node), 8);
    unsigned delivered = rig.delivered_count;
    rig_feed_append((struct rig_append){ .term = 1, .prev = 3, .prev_term = 1, .commit = 10, .count = 0 });
    check_eq(raft_commit_index(rig_raft_of_node()), 3);
    check_eq(rq_node_committed(rig.node), 8);
    check_eq(rig.delivered_count, delivered);
}

/* N13: whoever has the longest log has to learn why it is refused. */
static void asker_with_an_old_term_is_told_the_new_one(void)
{
    rig_start_member();
    rig_feed_append((struct rig_append){ .term = 6, .prev = 1, .prev_term = 1, .count = 0 });
    struct raft_message m = { .type = RAFT_REQUEST_VOTE, .server_id = PEER_B, .server_address = "server2" };
    m.request_vote.version = 2;
    m.request_vote.term = 3;
    m.request_vote.candidate_id = PEER_B;
    m.request_vote.pre_vote = true;
    rq_node_receive(rig.node, &m, NULL);
    check_eq(rig_last_sent()->type, RAFT_REQUEST_VOTE_RESULT);
    check_eq(rig_last_sent()->request_vote_result.term, 6);
    check(!rig_last_sent()->request_vote_result.vote_granted);
}

static unsigned pre_votes_asked(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < rig.sent_count && i < SENT_MAX; i++) {
        count += rig.sent[i].type == RAFT_REQUEST_VOTE && rig.sent[i].request_vote.pre_vote;
    }
    return count;
}

/* Two that are left: the one with less asks last, and is refused; neither may wait for another time-out. */
static void candidate_stands_again_when_a_shorter_log_asks(void)
{
    rig_start_member();
    rig_feed_append((struct rig_append){ .term = 6, .prev = 1, .prev_term = 1, .count = 2, .entry_term = 6 });
    rig_persist();
    while (pre_votes_asked() == 0) {
        rig_wait_ms(1);
    }
    unsigned asked = pre_votes_asked();
    rig_wait_ms(5);
    struct raft_message m = { .type = RAFT_REQUEST_VOTE, .server_id = PEER_B, .server_address = "server2" };
    m.request_vote.version = 2;
    m.request_vote.term = 7;
    m.request_vote.candidate_id = PEER_B;
    m.request_vote.last_log_index = 3;
    m.request_vote.last_log_term = 6;
    m.request_vote.pre_vote = true;
    rq_node_receive(rig.node, &m, NULL);
    check_eq(pre_votes_asked(), asked); /* it gets our vote */
    m.request_vote.last_log_index = 2;
    rq_node_receive(rig.node, &m, NULL);
    check_eq(pre_votes_asked(), 2 * asked);
    check_eq(rq_node_term(rig.node), 6);
    for (unsigned ms = 0; ms < ELECTION_MS - 1; ms++) { /* and then its own time-out is as long as ever */
        rig_wait_ms(1);
    }
    check_eq(pre_votes_asked(), 2 * asked);
}

/* C2: a write of entries that have been replaced meanwhile must not count for those that replace them. */
static void report_of_an_overtaken_write_does_not_count(void)
{
    rig_start_member();
    uint64_t durable;
    rig_feed_append((struct rig_append){ .term = 2, .prev = 1, .prev_term = 1, .count = 3, .entry_term = 2 });
    check_eq(rq_log_write(rig.log, &durable), RQ_OK);
    check_eq(durable, 4);
    rig_feed_append((struct rig_append){ .term = 3, .prev = 2, .prev_term = 2, .count = 2, .entry_term = 3 });
    rq_node_persisted(rig.node);
    check_eq(rig_raft_of_node()->last_stored, 2);
    rig_persist();
    check_eq(rig_raft_of_node()->last_stored, 4);
}

static void delivers_nothing_that_is_not_durable_here(void)
{
    rig_start_member();
    unsigned before = rig.delivered_count;
    rig_feed_append(
        (struct rig_append){ .term = 1, .prev = 1, .prev_term = 1, .commit = 4, .count = 3, .entry_term = 1 });
    check_eq(rq_node_committed(rig.node), 4);
    check_eq(rig.delivered_count, before);
    rig_persist();
    check_eq(rig.delivered_count, before + 3);
}

static void second_leader_in_a_term_ends_the_process(void)
{
    rig_start_member();
    rig_elect();
    uint64_t term = rq_node_term(rig.node);
    if (setjmp(rig.on_fatal) == 0) {
        rig_feed_append((struct rig_append){ .term = term, .prev = 1, .prev_term = 1, .count = 0 });
    }
    check_eq(rig.fatal_count, 1);
}

static void known_commits_are_delivered_before_any_leader_is_heard(void)
{
    rig_start_member();
    rig_feed_append(
        (struct rig_append){ .term = 1, .prev = 1, .prev_term = 1, .commit = 4, .count = 4, .entry_term = 1 });
    rig_persist();
    rig_feed_append(
        (struct rig_append){ .term = 1, .prev = 5, .prev_term = 1, .commit = 5, .count = 1, .entry_term = 1 });
    rig_persist(); /* these records carry: committed up to 5 */
    rq_node_free(rig.node);
    check_eq(rig_start(), RQ_OK);
    check_eq(rq_node_committed(rig.node), 4);
    check_eq(rig.delivered_count, 4);
    /* The core has not heard of these commits: its descriptor would be above its own commit index. */
    check_eq(rq_node_compacted(rig.node, 4, 0), RQ_BUSY);
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
        TAP(candidate_stands_again_when_a_shorter_log_asks),
        TAP(report_of_an_overtaken_write_does_not_count),
        TAP(delivers_nothing_that_is_not_durable_here),
        TAP(second_leader_in_a_term_ends_the_process),
        TAP(known_commits_are_delivered_before_any_leader_is_heard),
    };
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    rig_reset();
    rq_log_close(rig.log);
    return failed;
}
