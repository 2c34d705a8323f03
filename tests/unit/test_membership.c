/* Members come and go, leadership is handed over, a state is taken from another member: one node on a log in memory, its peers are
 * these tests.  Guards which change is made when, and what whoever asked is told. */
#include <stdlib.h>
#include <string.h>

#include "tests/support/node_rig.h"

enum { NEWCOMER = 10 };

static struct {
    unsigned calls;
    enum rq_err err;
} answer;

static void on_done(void *ctx, enum rq_err err)
{
    (void)ctx;
    answer.calls++;
    answer.err = err;
}

static void answers(uint64_t peer)
{
    rig_persist();
    rig_feed_result(peer, rq_node_term(rig.node), 0, rq_log_last(rig.log));
}

/* Leads three; only PEER_A has answered. */
static void lead_three(void)
{
    rig_start_member();
    answer.calls = 0; /* the node before may have told its end */
    rig_elect();
    answers(PEER_A);
    check(rq_node_leads(rig.node));
}

static void lead_three_that_answer(void)
{
    lead_three();
    answers(PEER_B);
}

/* Time passes; only these answer. */
static void silence_but_for(uint64_t peer, unsigned ms)
{
    for (unsigned i = 0; i < ms; i += HEARTBEAT_MS) {
        rig_wait_ms(HEARTBEAT_MS);
        answers(peer);
    }
}

static enum rq_err join(uint64_t instance, bool votes)
{
    struct rq_member m;
    rig_fill_member(&m, instance);
    m.votes = votes;
    return rq_node_join(rig.node, &m, on_done, NULL);
}

static enum rq_member_role role_of(uint64_t instance)
{
    const struct rq_member *m = rq_members_find(rq_node_members(rig.node), instance);
    check(m != NULL);
    return m->role;
}

static bool is_member(uint64_t instance)
{
    return rq_members_find(rq_node_members(rig.node), instance) != NULL;
}

/* --- join ---------------------------------------------------------------------------------------------------------------- */

static void newcomer_is_a_standby_until_it_has_caught_up(void)
{
    lead_three_that_answer();
    for (unsigned i = 0; i < 2 * RQ_NODE_UNCOMMITTED_ENTRIES_MAX / 3; i++) {
        check_eq(rig_submit(1), RQ_OK);
    }
    answers(PEER_A);
    check_eq(join(NEWCOMER, true), RQ_OK);
    check_eq(answer.calls, 0);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_STANDBY);
    check_eq(rig.members.count, 4); /* the machine lets it in before that is committed */
    answers(PEER_A);
    check_eq(answer.calls, 1);
    check_eq(answer.err, RQ_OK);
    rig_feed_result(NEWCOMER, rq_node_term(rig.node), 0, 1); /* it is there, and far behind */
    answers(PEER_A);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_STANDBY);
    answers(NEWCOMER);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_VOTER);
    uint64_t promotion = rq_log_last(rig.log);
    answers(PEER_A);
    check(rq_node_committed(rig.node) < promotion); /* two of four */
    answers(NEWCOMER);
    check_eq(rq_node_committed(rig.node), promotion);
}

static void newcomer_is_promoted_while_much_waits_for_its_commit(void)
{
    lead_three_that_answer();
    check_eq(join(NEWCOMER, true), RQ_OK);
    answers(PEER_A);
    const uint64_t committed = rq_node_committed(rig.node);
    check_eq(committed, rq_log_last(rig.log));
    for (unsigned i = 0; i < RQ_NODE_UNCOMMITTED_ENTRIES_MAX; i++) {
        check_eq(rig_submit(1), RQ_OK);
    }
    rig_feed_result(NEWCOMER, rq_node_term(rig.node), 0, committed);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_VOTER);
}

/* The room for what is not committed yet is counted by entry, in slots that are used again and again: a change among them, which
 * nobody counts, must not be taken for what was in its slot before. */
static void change_among_entries_leaves_their_room_as_it_was(void)
{
    lead_three_that_answer();
    for (unsigned i = 0; i < RQ_NODE_UNCOMMITTED_ENTRIES_MAX; i++) {
        check_eq(rig_submit(1000), RQ_OK);
        answers(PEER_A);
    }
    check_eq(rig_submit(1), RQ_OK);
    check_eq(join(NEWCOMER, false), RQ_OK);
    check_eq(rig_submit(1), RQ_OK);
    answers(PEER_A);
    check_eq(rq_node_committed(rig.node), rq_log_last(rig.log));
    check_eq(rig_submit(1), RQ_OK);
}

static void read_replica_stays_one(void)
{
    lead_three();
    check_eq(join(NEWCOMER, false), RQ_OK);
    answers(PEER_A);
    answers(NEWCOMER);
    answers(PEER_A);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_STANDBY);
    check_eq(join(NEWCOMER, true), RQ_OK); /* and is promoted when it says so */
    answers(PEER_A);
    answers(NEWCOMER);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_VOTER);
}

static void joining_again_changes_nothing(void)
{
    lead_three();
    uint64_t last = rq_log_last(rig.log);
    check_eq(join(PEER_B, true), RQ_OK);
    check_eq(answer.calls, 1);
    check_eq(answer.err, RQ_OK);
    check_eq(rq_log_last(rig.log), last);
}

static void known_instance_may_move(void)
{
    lead_three();
    struct rq_member m;
    rig_fill_member(&m, PEER_B);
    snprintf(m.raft_addr, sizeof m.raft_addr, "elsewhere:4002");
    m.role = RQ_MEMBER_STANDBY; /* not looked at */
    m.votes = false;            /* no demotion */
    check_eq(rq_node_join(rig.node, &m, on_done, NULL), RQ_OK);
    check_eq(role_of(PEER_B), RQ_MEMBER_VOTER);
    check(strcmp(rig.members.list[2].raft_addr, "elsewhere:4002") == 0);
    check(rig.members.list[2].votes);
    answers(PEER_A);
    check_eq(answer.err, RQ_OK);
    check_eq(rig.members.count, 3);
}

static void name_of_a_live_member_is_taken(void)
{
    lead_three_that_answer();
    struct rq_member m;
    rig_fill_member(&m, NEWCOMER);
    snprintf(m.name, sizeof m.name, "n%u", (unsigned)PEER_B);
    check_eq(rq_node_join(rig.node, &m, on_done, NULL), RQ_EXISTS);
    snprintf(m.name, sizeof m.name, "n%u", (unsigned)SELF);
    check_eq(rq_node_join(rig.node, &m, on_done, NULL), RQ_EXISTS);
    check_eq(answer.calls, 0);
}

static void address_of_a_live_member_is_taken(void)
{
    lead_three_that_answer();
    struct rq_member m, b;
    rig_fill_member(&m, NEWCOMER);
    rig_fill_member(&b, PEER_B);
    memcpy(m.raft_addr, b.raft_addr, sizeof m.raft_addr);
    check_eq(rq_node_join(rig.node, &m, on_done, NULL), RQ_EXISTS);
    rig_fill_member(&m, PEER_A); /* nor may a member move there */
    memcpy(m.raft_addr, b.raft_addr, sizeof m.raft_addr);
    check_eq(rq_node_join(rig.node, &m, on_done, NULL), RQ_EXISTS);
    check_eq(answer.calls, 0);
    silence_but_for(PEER_A, 2 * ELECTION_MS);
    rig_fill_member(&m, NEWCOMER);
    memcpy(m.raft_addr, b.raft_addr, sizeof m.raft_addr);
    check_eq(rq_node_join(rig.node, &m, on_done, NULL), RQ_OK); /* who was there is gone */
}

/* A node that lost its disk: the new instance counts when it has everything, and then the old one goes. */
static void namesake_replaces_a_silent_member(void)
{
    lead_three();
    silence_but_for(PEER_A, 2 * ELECTION_MS);
    struct rq_member m;
    rig_fill_member(&m, NEWCOMER);
    snprintf(m.name, sizeof m.name, "n%u", (unsigned)PEER_B);
    check_eq(rq_node_join(rig.node, &m, on_done, NULL), RQ_OK);
    answers(PEER_A);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_STANDBY);
    check_eq(role_of(PEER_B), RQ_MEMBER_VOTER);
    answers(NEWCOMER);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_VOTER);
    check(is_member(PEER_B));
    answers(PEER_A);
    answers(NEWCOMER); /* the promotion is committed: three of four */
    check(!is_member(PEER_B));
    check_eq(rig.told_removed, 0);
    answers(PEER_A);
    check_eq(rig.told_removed, PEER_B);
    check_eq(rig.told_removed_index, rq_node_committed(rig.node));
}

/* --- what is refused ----------------------------------------------------------------------------------------------------- */

static void one_change_at_a_time(void)
{
    lead_three_that_answer();
    check_eq(join(NEWCOMER, true), RQ_OK);
    check_eq(join(NEWCOMER + 1, true), RQ_BUSY);
    check_eq(rq_node_remove(rig.node, PEER_B, on_done, NULL), RQ_BUSY);
    check_eq(answer.calls, 0);
    answers(PEER_A);
    check_eq(answer.calls, 1);
    check_eq(join(NEWCOMER + 1, true), RQ_OK);
}

static void only_a_leader_with_an_entry_of_its_own_term_changes_members(void)
{
    rig_start_member();
    answer.calls = 0; /* the node before may have told its end */
    check_eq(join(NEWCOMER, true), RQ_AWAY);
    check_eq(rq_node_remove(rig.node, PEER_B, on_done, NULL), RQ_AWAY);
    check_eq(rq_node_transfer(rig.node, 0, on_done, NULL), RQ_AWAY);
    rig_elect();
    check_eq(join(NEWCOMER, true), RQ_AWAY);
    check_eq(answer.calls, 0);
}

static void no_change_that_leaves_less_than_a_majority_in_reach(void)
{
    lead_three();
    check_eq(rq_node_remove(rig.node, PEER_A, on_done, NULL), RQ_BUSY); /* PEER_B was never heard */
    check_eq(rq_node_remove(rig.node, PEER_B, on_done, NULL), RQ_OK);
    check_eq(answer.calls, 0);
}

static void newcomer_out_of_reach_is_not_promoted(void)
{
    lead_three();
    check_eq(join(NEWCOMER, true), RQ_OK);
    answers(PEER_A);
    silence_but_for(PEER_A, 2 * ELECTION_MS);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_STANDBY);
}

static void voters_become_others_only_when_the_machine_says_so(void)
{
    lead_three_that_answer();
    rig.may_not_vote = true;
    rig.asked_to_vote.count = 0;
    check_eq(join(NEWCOMER, true), RQ_OK); /* as a standby, which changes no vote */
    answers(PEER_A);
    check_eq(answer.calls, 1);
    answers(NEWCOMER);
    answers(PEER_A);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_STANDBY);
    check_eq(rig.asked_to_vote.count, 4);
    check_eq(rig.asked_to_vote.list[3].role, RQ_MEMBER_VOTER);
    rig.asked_to_vote.count = 0;
    check_eq(rq_node_remove(rig.node, PEER_B, on_done, NULL), RQ_BUSY);
    check(is_member(PEER_B));
    check(rq_members_find(&rig.asked_to_vote, PEER_B) == NULL);
    rig.may_not_vote = false;
    answers(PEER_A);
    check_eq(role_of(NEWCOMER), RQ_MEMBER_VOTER);
    answers(PEER_A);
    answers(NEWCOMER);
    check_eq(rq_node_remove(rig.node, PEER_B, on_done, NULL), RQ_OK);
    check(!is_member(PEER_B));
}

static void only_voter_stays(void)
{
    rig_start_leading();
    check_eq(rq_node_remove(rig.node, SELF, on_done, NULL), RQ_MISUSE);
    check_eq(rq_node_remove(rig.node, NEWCOMER, on_done, NULL), RQ_NOTFOUND);
    check_eq(rq_node_transfer(rig.node, 0, on_done, NULL), RQ_NOTFOUND);
}

/* --- remove -------------------------------------------------------------------------------------------------------------- */

static void removed_member_is_told_when_that_is_committed_and_whenever_it_is_heard(void)
{
    lead_three_that_answer();
    check_eq(rq_node_remove(rig.node, PEER_B, on_done, NULL), RQ_OK);
    check(!is_member(PEER_B));
    check_eq(rig.told_removed, 0);
    answers(PEER_A);
    check_eq(answer.err, RQ_OK);
    check_eq(rig.told_removed, PEER_B);
    check_eq(rig.told_removed_index, 3);
    rig.told_removed = 0;
    rig_feed_result(PEER_B, rq_node_term(rig.node), 0, 1);
    check_eq(rig.told_removed, PEER_B);
}

static void change_that_another_leader_overwrites_is_told_and_undone(void)
{
    lead_three_that_answer();
    check_eq(join(NEWCOMER, true), RQ_OK);
    check_eq(rig.members.count, 4);
    uint64_t term = rq_node_term(rig.node);
    rig_feed_append(
        (struct rig_append){ .term = term + 1, .prev = 2, .prev_term = term, .count = 1, .entry_term = term + 1 });
    check_eq(rig.members.count, 3);
    check(!is_member(NEWCOMER));
    check_eq(answer.calls, 0); /* that may be overwritten in its turn */
    rig_feed_append((struct rig_append){ .term = term + 1, .prev = 3, .prev_term = term + 1, .commit = 3 });
    check_eq(answer.calls, 1);
    check_eq(answer.err, RQ_AWAY);
}

static void change_that_another_leader_cuts_off_keeps_nobody_waiting(void)
{
    lead_three_that_answer();
    check_eq(rig_submit(1), RQ_OK);
    check_eq(join(NEWCOMER, true), RQ_OK);
    uint64_t term = rq_node_term(rig.node);
    rig_feed_append(
        (struct rig_append){ .term = term + 1, .prev = 2, .prev_term = term, .count = 1, .entry_term = term + 1 });
    check_eq(rq_log_last(rig.log), 3); /* it was the 4th, and there may be none for long */
    check_eq(answer.calls, 1);
    check_eq(answer.err, RQ_UNKNOWN); /* who holds it may lead yet */
}

static void end_of_the_node_is_an_unknown_outcome(void)
{
    lead_three_that_answer();
    check_eq(join(NEWCOMER, true), RQ_OK);
    rig_reset();
    check_eq(answer.calls, 1);
    check_eq(answer.err, RQ_UNKNOWN);
}

static void whoever_was_removed_takes_no_part_until_it_is_added_again(void)
{
    rig_start_member();
    rq_node_told_removed(rig.node, NEWCOMER, 5); /* no member says so */
    check_eq(rig.removed_count, 0);
    rq_node_told_removed(rig.node, PEER_B, 1); /* the list of entry 1 holds it */
    check_eq(rig.removed_count, 0);
    rq_node_told_removed(rig.node, PEER_B, 5);
    rq_node_told_removed(rig.node, PEER_B, 5);
    check_eq(rig.removed_count, 1);
    rig_wait_ms(10 * ELECTION_MS);
    check_eq(rig.sent_count, 0);
    rig_feed_append((struct rig_append){
        .term = 1, .prev = 1, .prev_term = 1, .count = 6, .entry_term = 1, .servers = { 0, 0, 0, 0 } });
    rig_feed_append(
        (struct rig_append){ .term = 1, .prev = 7, .prev_term = 1, .count = 1, .entry_term = 1, .servers = { 3 } });
    rig_persist();
    rig_elect();
}

static void whoever_finds_out_that_it_was_removed_waits_to_be_added_again(void)
{
    rig_start_member();
    rq_node_found_removed(rig.node);
    rq_node_found_removed(rig.node);
    check_eq(rig.removed_count, 1);
    rig_wait_ms(10 * ELECTION_MS);
    check_eq(rig.sent_count, 0);
    rig_feed_append(
        (struct rig_append){ .term = 1, .prev = 1, .prev_term = 1, .count = 2, .entry_term = 1, .servers = { 0, 3 } });
    rig_persist();
    rig_elect();
}

/* --- handing over -------------------------------------------------------------------------------------------------------- */

static unsigned told_to_stand(uint64_t peer)
{
    unsigned count = 0;
    for (unsigned i = 0; i < rig.sent_count && i < SENT_MAX; i++) {
        count += rig.sent[i].type == RAFT_TIMEOUT_NOW && rig.sent[i].server_id == peer;
    }
    return count;
}

/* N8: the core would ask an heir that lacks entries, once and in vain. */
static void heir_is_asked_when_it_has_everything(void)
{
    lead_three_that_answer();
    check_eq(rig_submit(1), RQ_OK);
    check_eq(rq_node_transfer(rig.node, PEER_B, on_done, NULL), RQ_OK);
    check_eq(rig_submit(1), RQ_BUSY);
    check_eq(join(NEWCOMER, true), RQ_BUSY);
    answers(PEER_A);
    check_eq(told_to_stand(PEER_B), 0);
    answers(PEER_B);
    check_eq(told_to_stand(PEER_B), 1);
    check_eq(answer.calls, 0);
    rig_feed_append((struct rig_append){ .term = rq_node_term(rig.node) + 1, .prev = 3, .prev_term = 2 });
    check_eq(answer.calls, 1);
    check_eq(answer.err, RQ_OK);
    check(!rig.leads);
}

static void leader_leads_on_when_its_heir_does_not_take_over(void)
{
    lead_three_that_answer();
    check_eq(rig_submit(1), RQ_OK);
    check_eq(rq_node_transfer(rig.node, PEER_B, on_done, NULL), RQ_OK);
    silence_but_for(PEER_A, ELECTION_MS + HEARTBEAT_MS);
    check_eq(answer.calls, 1); /* it never caught up */
    check_eq(answer.err, RQ_BUSY);
    check_eq(told_to_stand(PEER_B), 0);
    check_eq(rig_submit(1), RQ_OK);
    check_eq(rq_node_transfer(rig.node, PEER_B, on_done, NULL), RQ_BUSY); /* it is silent: nothing waits for it */
    check_eq(rig_submit(1), RQ_OK);

    answers(PEER_A);
    answers(PEER_B);
    check_eq(rq_node_transfer(rig.node, PEER_B, on_done, NULL), RQ_OK);
    check_eq(told_to_stand(PEER_B), 1);
    silence_but_for(PEER_A, 2 * ELECTION_MS);
    check_eq(answer.calls, 2); /* it was asked, and nothing came of it */
    check_eq(answer.err, RQ_BUSY);
    check_eq(rig_submit(1), RQ_OK);
}

static void best_heir_is_the_one_with_the_most_entries_that_answers(void)
{
    lead_three_that_answer();
    check_eq(rig_submit(1), RQ_OK);
    answers(PEER_A);
    check_eq(rq_node_transfer(rig.node, 0, on_done, NULL), RQ_OK);
    check_eq(told_to_stand(PEER_A), 1);
    check_eq(told_to_stand(PEER_B), 0);
}

static void leader_that_is_to_go_hands_over_first(void)
{
    lead_three_that_answer();
    check_eq(rq_node_remove(rig.node, SELF, on_done, NULL), RQ_OK);
    check(is_member(SELF));
    check_eq(told_to_stand(PEER_A) + told_to_stand(PEER_B), 1);
    rig_feed_append((struct rig_append){ .term = rq_node_term(rig.node) + 1, .prev = 2, .prev_term = 2 });
    check_eq(answer.calls, 1);
    check_eq(answer.err, RQ_AWAY); /* the next leader is to be asked */
}

/* It is not taken for one that is gone, of which there is nothing left to do. */
static void leader_that_hears_nobody_and_is_to_go_is_told_to_try_again(void)
{
    lead_three_that_answer();
    const struct rq_core *core = rq_node_core(rig.node);
    while (rq_core_hears(core, PEER_A) || rq_core_hears(core, PEER_B)) {
        rig_wait_ms(1);
    }
    check(rq_node_leads(rig.node));
    check_eq(rq_node_remove(rig.node, SELF, on_done, NULL), RQ_BUSY);
    check(is_member(SELF));
    check_eq(told_to_stand(PEER_A) + told_to_stand(PEER_B), 0);
    check_eq(rig_submit(1), RQ_OK);
}

/* --- a state from another member ----------------------------------------------------------------------------------------- */

static void feed_descriptor_of(uint64_t leader, uint64_t leader_term, uint64_t index, uint64_t term)
{
    struct raft_message m = { .type = RAFT_INSTALL_SNAPSHOT, .server_id = leader, .server_address = "server" };
    m.install_snapshot.term = leader_term;
    m.install_snapshot.last_index = index;
    m.install_snapshot.last_term = term;
    m.install_snapshot.conf_index = 1;
    struct raft_message heartbeat = { .type = RAFT_APPEND_ENTRIES, .server_id = leader, .server_address = "server" };
    heartbeat.append_entries.term = leader_term; /* tells the term */
    heartbeat.append_entries.prev_log_index = 1;
    heartbeat.append_entries.prev_log_term = 1;
    rq_node_receive(rig.node, &heartbeat, NULL);
    rq_node_receive(rig.node, &m, NULL);
}

static void feed_descriptor(uint64_t index, uint64_t term)
{
    feed_descriptor_of(PEER_A, 3, index, term);
}

static void another_leader_offers_what_it_has(void)
{
    rig_start_member();
    feed_descriptor_of(PEER_A, 3, 40, 2);
    check_eq(rig.install_index, 40);
    feed_descriptor_of(PEER_B, 4, 30, 2); /* what the other one had may be lost */
    check_eq(rig.install_index, 30);
    rig.install_index = 0;
    feed_descriptor_of(PEER_B, 4, 30, 2);
    check_eq(rig.install_index, 0);
}

static void state_is_fetched_before_the_log_begins_anew(void)
{
    rig_start_member();
    feed_descriptor(40, 2);
    check_eq(rig.install_index, 40);
    check_eq(rq_log_last(rig.log), 1); /* nothing is given up yet */
    rig.install_index = 0;
    feed_descriptor(40, 2);
    check_eq(rig.install_index, 0); /* asked once */
    feed_descriptor(45, 2);
    check_eq(rig.install_index, 45); /* the leader has moved on */

    struct rq_blob *configuration = rig_configuration_of(4);
    const struct rq_node_snapshot later = {
        .index = 50,
        .term = 3,
        .configuration_index = 30,
        .configuration = configuration->data,
        .configuration_bytes = configuration->bytes,
    };
    rq_node_installed(rig.node, &later);
    check_eq(rq_log_first(rig.log), 51);
    check_eq(rq_log_last(rig.log), 50);
    check_eq(rq_node_committed(rig.node), 50);
    check_eq(rig.members.count, 4);
    unsigned delivered = rig.delivered_count;
    rig_feed_append(
        (struct rig_append){ .term = 3, .prev = 50, .prev_term = 3, .commit = 52, .count = 2, .entry_term = 3 });
    rig_persist();
    check_eq(rig.delivered_count, delivered + 2);
    check_eq(rig.delivered[delivered], 51);
    rq_blob_unref(configuration);
}

static void log_without_room_is_full_until_it_takes_what_the_leader_sends(void)
{
    const struct rig_append entries = {
        .term = 2, .prev = 1, .prev_term = 1, .commit = 9, .count = 8, .entry_term = 2
    };
    rig_start_member();
    check(!rq_node_is_full(rig.node));
    memory_log_limit(rig.log, 3);
    rig_feed_append(entries);
    check(rq_node_is_full(rig.node));
    check_eq(rq_log_last(rig.log), 1);
    rig_feed_append((struct rig_append){ .term = 2, .prev = 1, .prev_term = 1 }); /* a heartbeat */
    check(rq_node_is_full(rig.node));
    memory_log_limit(rig.log, 100);
    rig_feed_append(entries);
    check(!rq_node_is_full(rig.node));
    check_eq(rq_log_last(rig.log), 9);
}

static void leader_is_told_what_is_there_already(void)
{
    rig_start_member();
    rig_feed_append(
        (struct rig_append){ .term = 2, .prev = 1, .prev_term = 1, .commit = 9, .count = 9, .entry_term = 2 });
    rig_persist();
    feed_descriptor(9, 2);
    check_eq(rig.install_index, 0);
    check_eq(rig_last_sent()->type, RAFT_APPEND_ENTRIES_RESULT);
    check_eq(rig_last_sent()->append_entries_result.rejected, 0);
    check_eq(rig_last_sent()->append_entries_result.last_log_index, 9);
}

static void fetched_state_that_the_log_has_reached_changes_nothing(void)
{
    rig_start_member();
    feed_descriptor(5, 3);
    rig_feed_append(
        (struct rig_append){ .term = 3, .prev = 1, .prev_term = 1, .commit = 8, .count = 8, .entry_term = 3 });
    rig_persist();
    struct rq_blob *configuration = rig_configuration_of(3);
    const struct rq_node_snapshot s = { 5, 3, 1, configuration->data, configuration->bytes };
    rq_node_installed(rig.node, &s);
    check_eq(rq_log_first(rig.log), 1);
    check_eq(rq_log_last(rig.log), 9);
    rq_blob_unref(configuration);
}

/* --- recovery from a lost majority --------------------------------------------------------------------------------------- */

static void survivor_leads_alone_with_everything_it_has(void)
{
    rig_start_member();
    rig_feed_append((struct rig_append){
        .term = 2, .prev = 1, .prev_term = 1, .commit = 2, .count = 4, .entry_term = 2, .servers = { 0, 0, 4 } });
    rig_persist();
    for (unsigned times = 1; times <= 2; times++) { /* a crash came before it was noted that it had been done */
        rq_node_free(rig.node);
        rig.node = NULL;
        struct rq_node_config config = { 0 };
        struct rq_member self;
        memory_log_crash(rig.log, &config.found);
        const uint64_t term = config.found.term;
        rig_fill_member(&self, SELF);
        check_eq(rq_node_recover(rig.log, &config, &self), RQ_OK);
        check_eq(config.found.last_index, 5 + times + (times - 1));
        check_eq(config.found.term, term + 1);
        check_eq(rig_start_with(&config), RQ_OK);
        rig_persist();
        check(rq_node_leads(rig.node));
        check_eq(rq_node_committed(rig.node), config.found.last_index + 1); /* and what nobody had committed */
        check_eq(rig.delivered_count, config.found.last_index + 1);
        check_eq(rig.members.count, 1);
        check_eq(rig_submit(1), RQ_OK);
    }
}

/* It died between a state's becoming durable here and the log behind it, and then the others were lost. */
static void survivor_goes_on_from_a_state_that_it_was_given(void)
{
    rig_start_member();
    rq_node_free(rig.node);
    rig.node = NULL;
    struct rq_blob *configuration = rig_configuration_of(3);
    struct rq_node_config config = {
        .snapshot_index = 40,
        .snapshot_term = 3,
        .snapshot_configuration_index = 30,
        .snapshot_configuration = configuration->data,
        .snapshot_configuration_bytes = configuration->bytes,
        .snapshot_installed = true,
    };
    struct rq_member self;
    memory_log_crash(rig.log, &config.found);
    rig_fill_member(&self, SELF);
    check_eq(rq_node_recover(rig.log, &config, &self), RQ_OK);
    check_eq(config.found.first_index, 41);
    check_eq(config.found.last_index, 41);
    check_eq(rig_start_with(&config), RQ_OK);
    rig_persist();
    check(rq_node_leads(rig.node));
    check_eq(rig.delivered[0], 41);
    rq_blob_unref(configuration);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(newcomer_is_a_standby_until_it_has_caught_up),
        TAP(newcomer_is_promoted_while_much_waits_for_its_commit),
        TAP(change_among_entries_leaves_their_room_as_it_was),
        TAP(read_replica_stays_one),
        TAP(joining_again_changes_nothing),
        TAP(known_instance_may_move),
        TAP(name_of_a_live_member_is_taken),
        TAP(address_of_a_live_member_is_taken),
        TAP(namesake_replaces_a_silent_member),
        TAP(one_change_at_a_time),
        TAP(only_a_leader_with_an_entry_of_its_own_term_changes_members),
        TAP(no_change_that_leaves_less_than_a_majority_in_reach),
        TAP(newcomer_out_of_reach_is_not_promoted),
        TAP(voters_become_others_only_when_the_machine_says_so),
        TAP(only_voter_stays),
        TAP(removed_member_is_told_when_that_is_committed_and_whenever_it_is_heard),
        TAP(change_that_another_leader_overwrites_is_told_and_undone),
        TAP(change_that_another_leader_cuts_off_keeps_nobody_waiting),
        TAP(end_of_the_node_is_an_unknown_outcome),
        TAP(whoever_was_removed_takes_no_part_until_it_is_added_again),
        TAP(whoever_finds_out_that_it_was_removed_waits_to_be_added_again),
        TAP(heir_is_asked_when_it_has_everything),
        TAP(leader_leads_on_when_its_heir_does_not_take_over),
        TAP(best_heir_is_the_one_with_the_most_entries_that_answers),
        TAP(leader_that_is_to_go_hands_over_first),
        TAP(leader_that_hears_nobody_and_is_to_go_is_told_to_try_again),
        TAP(another_leader_offers_what_it_has),
        TAP(state_is_fetched_before_the_log_begins_anew),
        TAP(log_without_room_is_full_until_it_takes_what_the_leader_sends),
        TAP(leader_is_told_what_is_there_already),
        TAP(fetched_state_that_the_log_has_reached_changes_nothing),
        TAP(survivor_leads_alone_with_everything_it_has),
        TAP(survivor_goes_on_from_a_state_that_it_was_given),
    };
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    rig_reset();
    rq_log_close(rig.log);
    return failed;
}
