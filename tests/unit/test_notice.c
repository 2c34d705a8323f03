/* What is committed is told with the next entries, after a moment, or at once to whom somebody waits on; and such word alone is not
 * answered. */
#include "tests/support/node_rig.h"

/* Notices to that peer among what was sent; all were if any was. */
static unsigned notices_to(uint64_t peer)
{
    unsigned count = 0;
    for (unsigned i = 0; i < rig.sent_count; i++) {
        const struct raft_message *m = &rig.sent[i];
        count += m->server_id == peer && m->type == RAFT_APPEND_ENTRIES && m->append_entries.version == RQ_CORE_NOTICE;
    }
    return count;
}

/* With PEER_A; PEER_B is sent the entry later, with word of its commit (test_tell.c). */
static void commit_one(void)
{
    check_eq(rig_submit(1), RQ_OK);
    rig_persist();
    rig_feed_result(PEER_A, rq_node_term(rig.node), 0, rq_log_last(rig.log));
    check_eq(rq_node_committed(rig.node), rq_log_last(rig.log));
}

static void commit_is_told_after_a_moment(void)
{
    rig_lead_three();
    commit_one();
    check_eq(notices_to(PEER_A), 0);
    rig_wait_ms(RQ_NODE_TELL_MS + 1);
    check_eq(notices_to(PEER_A), 1);
    check_eq(notices_to(PEER_B), 0);
    const struct raft_append_entries *a = &rig_last_sent()->append_entries;
    check_eq(a->leader_commit, 3);
    check_eq(a->prev_log_index, 3);
    check_eq(a->prev_log_term, rq_node_term(rig.node));
    check_eq(a->n_entries, 0);
    rig_feed_result(PEER_B, rq_node_term(rig.node), 0, 3);
    rig_wait_ms(2 * RQ_NODE_TELL_MS);
    check_eq(notices_to(PEER_A) + notices_to(PEER_B), 1); /* once */
}

static void entries_that_come_next_tell_it(void)
{
    rig_lead_three();
    for (int i = 0; i < 5; i++) {
        commit_one();
        rig_wait_ms(1);
    }
    check_eq(rig_submit(1), RQ_OK);
    rig_wait_ms(RQ_NODE_TELL_MS + 1);
    check_eq(notices_to(PEER_A) + notices_to(PEER_B), 0);
}

static void on_changed(void *ctx, enum rq_err err)
{
    (void)ctx;
    check_eq(err, RQ_OK);
}

/* The highest that peer was sent word of. */
static uint64_t told_to(uint64_t peer)
{
    uint64_t told = 0;
    for (unsigned i = 0; i < rig.sent_count; i++) {
        const struct raft_message *m = &rig.sent[i];
        if (m->server_id == peer && m->type == RAFT_APPEND_ENTRIES && m->append_entries.leader_commit > told) {
            told = m->append_entries.leader_commit;
        }
    }
    return told;
}

static void under_a_steady_load_several_commits_are_told_together(void)
{
    uint64_t committed[5 * RQ_NODE_SHOW_MS], told = 2;
    const unsigned rounds = sizeof committed / sizeof *committed;
    unsigned times = 0, notices = 0;
    rig_lead_three();
    for (unsigned i = 0; i < rounds; i++) {
        commit_one();
        committed[i] = rq_node_committed(rig.node);
        rig_wait_ms(1);
        const uint64_t now_told = told_to(PEER_A);
        if (now_told > told) {
            told = now_told;
            times++;
        }
        notices += notices_to(PEER_A);
        check(i < RQ_NODE_SHOW_MS || told >= committed[i - RQ_NODE_SHOW_MS]);
        rig.sent_count = 0;
    }
    check_eq(notices, 0);
    check(times >= rounds / RQ_NODE_SHOW_MS);
    check(times <= rounds / (RQ_NODE_SHOW_MS - RQ_NODE_TELL_MS) + 2);
    rig_wait_ms(RQ_NODE_SHOW_MS + 1); /* it ends */
    check_eq(notices_to(PEER_A), 1);
    check_eq(told_to(PEER_A), rq_node_committed(rig.node));
}

/* Of two that were told of commits at different times, and whichever of them has the next entry first. */
static void each_is_told_when_its_own_time_has_come(void)
{
    for (unsigned i = 0; i < 2; i++) {
        rig_lead_three();
        const uint64_t term = rq_node_term(rig.node), begin_ms = rig.now_ms;
        commit_one();
        rq_node_awaited(rig.node, PEER_A, 3);
        check_eq(told_to(PEER_A), 3);
        rig_wait_ms(RQ_NODE_TELL_MS + 1);
        check_eq(told_to(PEER_B), 3);
        rig_feed_result(PEER_B, term, 0, 3);
        check_eq(rig_submit(1), RQ_OK);
        rig_persist();
        rig_wait_ms(RQ_NODE_TELL_MS + 1);
        rig_feed_result(i == 0 ? PEER_A : PEER_B, term, 0, 4);
        rig_feed_result(i == 0 ? PEER_B : PEER_A, term, 0, 4);
        check_eq(rq_node_committed(rig.node), 4);
        rig_wait_ms((unsigned)(begin_ms + RQ_NODE_SHOW_MS - rig.now_ms));
        check_eq(told_to(PEER_A), 3);
        rig_wait_ms(1);
        check_eq(told_to(PEER_A), 4);
        check_eq(told_to(PEER_B), 3);
        rig_wait_ms(RQ_NODE_TELL_MS);
        check_eq(told_to(PEER_B), 4);
    }
}

static void what_happens_meanwhile_does_not_put_it_off(void)
{
    rig_lead_three();
    commit_one();
    for (unsigned i = 0; i < RQ_NODE_TELL_MS; i++) {
        rig_feed_result(PEER_B, rq_node_term(rig.node), 0, 2);
        rig_wait_ms(1);
    }
    rig_wait_ms(1);
    check_eq(notices_to(PEER_A), 1);
}

/* PEER_B has an entry, and does not know yet that it is committed; the next one is kept for it. */
static void commit_without_a_word(void)
{
    rig_lead_three();
    check_eq(rig_submit(1), RQ_OK);
    rig_persist();
    rig_wait_ms(RQ_NODE_TELL_MS + 1);
    rig_feed_result(PEER_A, rq_node_term(rig.node), 0, 3);
    rig_feed_result(PEER_B, rq_node_term(rig.node), 0, 3);
    check_eq(rq_node_committed(rig.node), 3);
    rig_wait_ms(1);
    check_eq(rig_submit(1), RQ_OK);
    check_eq(told_to(PEER_A), 3);
    check_eq(told_to(PEER_B), 2);
}

static void entries_that_are_kept_tell_it(void)
{
    commit_without_a_word();
    rig_wait_ms(RQ_NODE_TELL_MS + 1);
    check_eq(notices_to(PEER_B), 0);
    check_eq(told_to(PEER_B), 3);
}

static void who_waits_does_not_wait_for_entries_that_are_kept(void)
{
    commit_without_a_word();
    check_eq(notices_to(PEER_B), 0);
    rq_node_awaited(rig.node, PEER_B, 3);
    check_eq(notices_to(PEER_B), 1);
    check_eq(told_to(PEER_B), 3);
}

static void who_waits_does_not_wait_for_more(void)
{
    rig_lead_three();
    for (int i = 0; i < 3; i++) { /* the first of them is told with the second */
        commit_one();
    }
    check_eq(told_to(PEER_A), 3);
    rq_node_awaited(rig.node, PEER_A, 4);
    check_eq(notices_to(PEER_A), 1);
    check_eq(told_to(PEER_A), 5);
}

static void a_change_of_the_members_is_told_with_the_next_entry(void)
{
    struct rq_member m;
    rig_lead_three();
    commit_one();
    commit_one();
    check_eq(told_to(PEER_A), 3);
    rig_fill_member(&m, PEER_B + 1);
    m.votes = false;
    check_eq(rq_node_join(rig.node, &m, on_changed, NULL), RQ_OK);
    check_eq(told_to(PEER_A), 4);
    rig_persist();
    rig_feed_result(PEER_A, rq_node_term(rig.node), 0, rq_log_last(rig.log));
}

static void who_is_waited_on_is_told_at_once(void)
{
    rig_lead_three();
    check_eq(rig_submit(1), RQ_OK);
    rq_node_awaited(rig.node, PEER_B, rq_log_last(rig.log));
    rig_persist();
    rig_feed_result(PEER_A, rq_node_term(rig.node), 0, 3);
    check_eq(rq_node_committed(rig.node), 3);
    check_eq(notices_to(PEER_B), 0); /* it does not hold the entry yet */
    rig_feed_result(PEER_B, rq_node_term(rig.node), 0, 3);
    check_eq(notices_to(PEER_B), 1);
    check_eq(notices_to(PEER_A), 0);
    rq_node_awaited(rig.node, PEER_A, 3); /* committed already */
    check_eq(notices_to(PEER_A), 1);
    rq_node_awaited(rig.node, PEER_A, 3);
    check_eq(notices_to(PEER_A), 1);
}

/* --- the other side --- */

static void feed_notice(uint64_t term, uint64_t prev, uint64_t prev_term, uint64_t commit)
{
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES, .server_id = PEER_A, .server_address = "server1" };
    m.append_entries.version = RQ_CORE_NOTICE;
    m.append_entries.term = term;
    m.append_entries.prev_log_index = prev;
    m.append_entries.prev_log_term = prev_term;
    m.append_entries.leader_commit = commit;
    rq_node_receive(rig.node, &m, NULL);
}

static void follow(void)
{
    rig_start_member();
    rig_feed_append(
        (struct rig_append){ .term = 2, .prev = 1, .prev_term = 1, .commit = 1, .count = 2, .entry_term = 2 });
    rig_persist();
    rig.sent_count = 0;
}

static void notice_delivers_and_is_not_answered(void)
{
    follow();
    feed_notice(2, 3, 2, 3);
    check_eq(rq_node_delivered(rig.node), 3);
    check_eq(rig.sent_count, 0);
    rig_feed_append((struct rig_append){ .term = 2, .prev = 3, .prev_term = 2, .commit = 3 });
    check_eq(rig.sent_count, 1); /* a heartbeat is */
    check_eq(rig_last_sent()->append_entries_result.rejected, 0);
}

static void notice_that_does_not_fit_is_rejected(void)
{
    follow();
    feed_notice(2, 9, 2, 9);
    check_eq(rq_node_delivered(rig.node), 1);
    check_eq(rig.sent_count, 1);
    check_eq(rig_last_sent()->type, RAFT_APPEND_ENTRIES_RESULT);
    check(rig_last_sent()->append_entries_result.rejected > 0);
}

static void notice_of_an_old_leader_is_rejected(void)
{
    follow();
    feed_notice(1, 3, 1, 3);
    check_eq(rq_node_delivered(rig.node), 1);
    check_eq(rig.sent_count, 1);
    check_eq(rig_last_sent()->append_entries_result.term, 2);
    check(rig_last_sent()->append_entries_result.rejected > 0);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(commit_is_told_after_a_moment),
        TAP(entries_that_come_next_tell_it),
        TAP(under_a_steady_load_several_commits_are_told_together),
        TAP(each_is_told_when_its_own_time_has_come),
        TAP(what_happens_meanwhile_does_not_put_it_off),
        TAP(entries_that_are_kept_tell_it),
        TAP(who_waits_does_not_wait_for_entries_that_are_kept),
        TAP(who_waits_does_not_wait_for_more),
        TAP(a_change_of_the_members_is_told_with_the_next_entry),
        TAP(who_is_waited_on_is_told_at_once),
        TAP(notice_delivers_and_is_not_answered),
        TAP(notice_that_does_not_fit_is_rejected),
        TAP(notice_of_an_old_leader_is_rejected),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
