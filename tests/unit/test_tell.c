/* Whom a leader sends entries at once, and whom a moment later, several together. */
#include <string.h>

#include "tests/support/node_rig.h"

/* Messages with entries to that peer among what was sent; *ret_last: the newest, if there is one. */
static unsigned sent_to(uint64_t peer, struct raft_append_entries *ret_last)
{
    unsigned count = 0;
    *ret_last = (struct raft_append_entries){ 0 };
    for (unsigned i = 0; i < rig.sent_count; i++) {
        const struct raft_message *m = &rig.sent[i];
        if (m->server_id == peer && m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
            *ret_last = m->append_entries;
            count++;
        }
    }
    return count;
}

static void submit(void)
{
    check_eq(rig_submit(1), RQ_OK);
    rig_persist();
}

static void ignore(void *ctx, enum rq_err err)
{
    (void)ctx;
    (void)err;
}

static void has(uint64_t peer)
{
    rig_feed_result(peer, rq_node_term(rig.node), 0, rq_log_last(rig.log));
}

static void who_makes_a_majority_is_sent_entries_at_once(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    submit();
    check_eq(sent_to(PEER_A, &a), 1);
    check_eq(a.prev_log_index, 2);
    check_eq(a.n_entries, 1);
    check_eq(sent_to(PEER_B, &a), 0);
    has(PEER_A);
    check_eq(rq_node_committed(rig.node), 3);
}

static void the_others_get_several_together_and_hear_of_their_commit(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    for (int i = 0; i < 3; i++) {
        submit();
        has(PEER_A);
    }
    check_eq(sent_to(PEER_A, &a), 3);
    check_eq(sent_to(PEER_B, &a), 0);
    rig_wait_ms(RQ_NODE_SHOW_MS + 1);
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.prev_log_index, 2);
    check_eq(a.prev_log_term, rq_node_term(rig.node));
    check_eq(a.n_entries, 3);
    check_eq(a.leader_commit, 5);
    has(PEER_B);
    rig.sent_count = 0;
    rig_wait_ms(2 * RQ_NODE_TELL_MS);
    check_eq(rig.sent_count, 0); /* no further word of it */
}

static void as_long_as_commits_go_on_without_them_more_are_gathered(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    const uint64_t begin_ms = rig.now_ms;
    while (rig.now_ms < begin_ms + RQ_NODE_SHOW_MS - 1) {
        submit();
        has(PEER_A);
        rig_wait_ms(1);
        check_eq(sent_to(PEER_B, &a), 0);
    }
    rig_wait_ms(RQ_NODE_TELL_MS + 1);
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.prev_log_index, 2);
    check_eq(a.n_entries, RQ_NODE_SHOW_MS - 1);
}

static void who_becomes_needed_is_sent_what_was_gathered(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    submit();
    has(PEER_A);
    rig_wait_ms(1);
    submit(); /* and PEER_A says no more */
    rig_wait_ms(2 * RQ_NODE_TELL_MS);
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.n_entries, 2);
}

static void many_do_not_wait(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    for (unsigned i = 0; i < 40 && sent_to(PEER_B, &a) == 0; i++) {
        submit();
        has(PEER_A);
    }
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.prev_log_index, 2);
    check(a.n_entries > 1);
    check_eq(a.n_entries, rq_log_last(rig.log) - 2);
}

static void who_is_waited_at_is_sent_entries_at_once_and_spares_the_other(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    submit();
    check_eq(sent_to(PEER_B, &a), 0);
    rq_node_awaited(rig.node, PEER_B, 3);
    check_eq(sent_to(PEER_B, &a), 1);
    has(PEER_A);
    has(PEER_B);
    rig.sent_count = 0;
    submit();
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.prev_log_index, 3);
    check_eq(sent_to(PEER_A, &a), 0);
}

static void who_is_overtaken_is_not_counted_on(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    submit();
    rig_wait_ms(RQ_NODE_TELL_MS + 1);
    has(PEER_B);
    check_eq(rq_node_committed(rig.node), 3);
    rig.sent_count = 0;
    submit();
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(sent_to(PEER_A, &a), 0);
    has(PEER_B);
    check_eq(rq_node_committed(rig.node), 4);
}

static void who_has_the_older_of_them_is_not_overtaken(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    submit();
    has(PEER_A);
    rig_wait_ms(RQ_NODE_TELL_MS - 1);
    submit();
    rig_wait_ms(RQ_NODE_TELL_MS + 2);
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.n_entries, 2);
    has(PEER_B); /* the second entry had been kept for a moment only */
    rig.sent_count = 0;
    submit();
    check_eq(sent_to(PEER_A, &a), 1);
    check_eq(sent_to(PEER_B, &a), 0);
}

static void who_is_silent_is_not_counted_on(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    for (unsigned i = 0; i < ELECTION_MS / 10; i++) {
        rig_wait_ms(10);
        rig_feed_result(PEER_B, rq_node_term(rig.node), 0, 2);
    }
    rig.sent_count = 0;
    submit();
    check_eq(sent_to(PEER_B, &a), 1);
}

static void what_is_kept_goes_before_what_comes_behind_it(void)
{
    rig_lead_three();
    rig_wait_ms((unsigned)(raft_timeout(rig_raft_of_node()) - rig.now_ms) - 1);
    rig.sent_count = 0;
    submit();
    rig_wait_ms(RQ_NODE_TELL_MS + 2);
    uint64_t held = 2; /* by PEER_B */
    for (unsigned i = 0; i < rig.sent_count; i++) {
        const struct raft_append_entries *a = &rig.sent[i].append_entries;
        if (rig.sent[i].server_id == PEER_B && rig.sent[i].type == RAFT_APPEND_ENTRIES) {
            check(a->prev_log_index <= held);
            held = a->prev_log_index + a->n_entries > held ? a->prev_log_index + a->n_entries : held;
        }
    }
    check_eq(held, 3);
}

static void what_the_log_releases_was_sent(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    submit();
    has(PEER_A);
    check_eq(rq_node_delivered(rig.node), 3);
    check_eq(rq_node_compacted(rig.node, 3, 0), RQ_OK);
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.prev_log_index, 2);
}

static void who_leads_no_more_sends_nothing(void)
{
    struct raft_append_entries a;
    rig_lead_three();
    submit();
    rig_feed_append((struct rig_append){ .term = rq_node_term(rig.node) + 1, .prev = 2, .prev_term = 2, .commit = 2 });
    check_eq(strcmp(rq_node_role(rig.node), "Follower"), 0);
    rig_wait_ms(10 * RQ_NODE_TELL_MS);
    check_eq(sent_to(PEER_B, &a), 0);
    check(rq_node_wake_ms(rig.node) > rig.now_ms + RQ_NODE_TELL_MS);
}

static void who_has_not_answered_yet_is_sent_entries_at_once(void)
{
    struct raft_append_entries a;
    rig_start_member();
    rig_elect();
    for (unsigned i = 0; i < ELECTION_MS && sent_to(PEER_A, &a) == 0; i++) {
        rig_wait_ms(1);
    }
    check_eq(sent_to(PEER_A, &a), 1);
    check_eq(sent_to(PEER_B, &a), 1);
}

static void on_changed(void *ctx, enum rq_err err)
{
    (void)ctx;
    check_eq(err, RQ_OK);
}

static void in_a_change_of_the_members_nothing_is_held_back(void)
{
    struct rq_member m;
    struct raft_append_entries a;
    rig_lead_three();
    rig_fill_member(&m, PEER_B + 1);
    m.votes = false;
    check_eq(rq_node_join(rig.node, &m, on_changed, NULL), RQ_OK);
    submit();
    check_eq(sent_to(PEER_A, &a), 2);
    check_eq(sent_to(PEER_B, &a), 2); /* the change, and what comes behind it */
    check_eq(a.prev_log_index, 3);
    has(PEER_A);
    rig.sent_count = 0;
    submit();
    check_eq(sent_to(PEER_A, &a), 1);
    check_eq(sent_to(PEER_B, &a), 0);
}

/* Leads alone, with PEER_B beside it that has no vote and holds the whole log. */
static void lead_a_standby(bool is_to_vote)
{
    struct rq_member b;
    rig_start_leading();
    rig.may_not_vote = true;
    rig_fill_member(&b, PEER_B);
    b.role = RQ_MEMBER_STANDBY;
    b.votes = is_to_vote;
    check_eq(rq_node_join(rig.node, &b, ignore, NULL), RQ_OK);
    rig_persist();
    rig_wait_ms(HEARTBEAT_MS + 1);
    has(PEER_B);
    rig_wait_ms(HEARTBEAT_MS + 1);
    rig.sent_count = 0;
}

static void who_has_no_vote_is_sent_what_is_committed(void)
{
    struct raft_append_entries a;
    lead_a_standby(false);
    const uint64_t last = rq_log_last(rig.log);
    check_eq(rig_submit(1), RQ_OK);
    rig_persist();
    check_eq(rq_node_committed(rig.node), last + 1);
    check_eq(rig_submit(1), RQ_OK);
    rig_wait_ms(RQ_NODE_SHOW_MS + 1);
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.prev_log_index, last);
    check_eq(a.n_entries, 1);
    check_eq(a.leader_commit, last + 1);
    has(PEER_B);
    rig.sent_count = 0;
    rig_wait_ms(2 * RQ_NODE_SHOW_MS);
    check_eq(sent_to(PEER_B, &a), 0);
    check(rq_node_wake_ms(rig.node) > rig.now_ms + RQ_NODE_TELL_MS); /* and nothing is due */
    rig_persist();
    rig_wait_ms(RQ_NODE_SHOW_MS + 1);
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.prev_log_index, last + 1);
    check_eq(a.prev_log_term, rq_node_term(rig.node));
    check_eq(a.n_entries, 1);
}

static void many_that_are_committed_do_not_wait(void)
{
    struct raft_append_entries a;
    lead_a_standby(false);
    const uint64_t last = rq_log_last(rig.log);
    for (unsigned i = 0; i < 20; i++) {
        check_eq(rig_submit(1), RQ_OK);
    }
    check_eq(sent_to(PEER_B, &a), 0);
    rig_persist();
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.prev_log_index, last);
    check_eq(a.n_entries, 20);
    check_eq(a.leader_commit, last + 20);
}

static void who_has_no_vote_is_heard_while_nothing_is_committed(void)
{
    struct raft_append_entries a;
    lead_a_standby(false);
    const uint64_t last = rq_log_last(rig.log);
    check_eq(rig_submit(1), RQ_OK);
    rig_wait_ms(HEARTBEAT_MS + 1);
    check_eq(sent_to(PEER_B, &a), 0);
    check(rig.sent_count > 0);
    check_eq(rig_last_sent()->server_id, PEER_B);
    check_eq(rig_last_sent()->append_entries.prev_log_index, last); /* what comes behind it was not sent */
}

static void who_has_no_vote_and_is_waited_at_is_sent_entries_when_they_are_committed(void)
{
    struct raft_append_entries a;
    lead_a_standby(false);
    check_eq(rig_submit(1), RQ_OK);
    rq_node_awaited(rig.node, PEER_B, rq_log_last(rig.log));
    check_eq(sent_to(PEER_B, &a), 0);
    rig_persist();
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.leader_commit, rq_log_last(rig.log));
}

static void who_is_promoted_is_sent_what_was_kept_with_it(void)
{
    struct raft_append_entries a;
    lead_a_standby(true);
    const uint64_t last = rq_log_last(rig.log);
    check_eq(rig_submit(1), RQ_OK);
    check_eq(sent_to(PEER_B, &a), 0);
    rig.may_not_vote = false;
    has(PEER_B - 1); /* any event */
    check_eq(rq_log_last(rig.log), last + 2);
    check_eq(sent_to(PEER_B, &a), 1);
    check_eq(a.prev_log_index, last);
    check_eq(a.n_entries, 2);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(who_makes_a_majority_is_sent_entries_at_once),
        TAP(the_others_get_several_together_and_hear_of_their_commit),
        TAP(as_long_as_commits_go_on_without_them_more_are_gathered),
        TAP(who_becomes_needed_is_sent_what_was_gathered),
        TAP(many_do_not_wait),
        TAP(who_is_waited_at_is_sent_entries_at_once_and_spares_the_other),
        TAP(who_is_overtaken_is_not_counted_on),
        TAP(who_has_the_older_of_them_is_not_overtaken),
        TAP(who_is_silent_is_not_counted_on),
        TAP(what_is_kept_goes_before_what_comes_behind_it),
        TAP(what_the_log_releases_was_sent),
        TAP(who_leads_no_more_sends_nothing),
        TAP(who_has_not_answered_yet_is_sent_entries_at_once),
        TAP(in_a_change_of_the_members_nothing_is_held_back),
        TAP(who_has_no_vote_is_sent_what_is_committed),
        TAP(many_that_are_committed_do_not_wait),
        TAP(who_has_no_vote_is_heard_while_nothing_is_committed),
        TAP(who_has_no_vote_and_is_waited_at_is_sent_entries_when_they_are_committed),
        TAP(who_is_promoted_is_sent_what_was_kept_with_it),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
