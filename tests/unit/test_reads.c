/* Reads: the leader says how far the log was committed, once a majority has said that it still leads.  One node on a log in memory,
 * its peers are these tests.  Guards what counts as such an answer, and for whom. */
#include "tests/support/node_rig.h"

enum { STRANGER = 99, READS_MAX = 8 };

static struct reading {
    struct rq_node_read read; /* first */
    unsigned calls;
    enum rq_err err;
    uint64_t index;
} readings[READS_MAX];
static unsigned reading_count;

static void on_done(struct rq_node_read *r, enum rq_err err, uint64_t index)
{
    struct reading *reading = (struct reading *)r;
    reading->calls++;
    reading->err = err;
    reading->index = index;
}

static struct reading *ask(void)
{
    check(reading_count < READS_MAX);
    struct reading *r = &readings[reading_count++];
    *r = (struct reading){ .read = { .done = on_done } };
    rq_node_read(rig.node, &r->read);
    return r;
}

static void answers(uint64_t peer)
{
    rig_persist();
    rig_feed_result(peer, rq_node_term(rig.node), 0, rq_log_last(rig.log));
}

/* Leads three, and has asked nobody anything. */
static void lead_three(void)
{
    rig_start_member();
    reading_count = 0; /* the node before has told its end */
    rig_elect();
    answers(PEER_A);
    check(rq_node_leads(rig.node));
    check_eq(rig.round_count, 0);
}

static const struct rq_round *last_round(void)
{
    check(rig.round_count > 0);
    return &rig.rounds[(rig.round_count - 1) % SENT_MAX];
}

static void feed_round(uint64_t from, uint64_t term, uint64_t round, bool answer)
{
    rq_node_receive_round(rig.node, from, &(struct rq_round){ .term = term, .round = round, .answer = answer });
}

static void confirm(uint64_t from, uint64_t round)
{
    feed_round(from, rq_node_term(rig.node), round, true);
}

static void leader_of_one_is_its_own_majority(void)
{
    rig_start_leading();
    reading_count = 0;
    check_eq(rig_submit(1), RQ_OK);
    rig_persist();
    struct reading *r = ask();
    check_eq(r->calls, 1);
    check_eq(r->err, RQ_OK);
    check_eq(r->index, rq_node_committed(rig.node));
    check_eq(rig.round_count, 0);
}

static void majority_has_to_answer(void)
{
    lead_three();
    unsigned writes = rig.writes_wanted;
    uint64_t last = rq_log_last(rig.log);
    struct reading *r = ask();
    check_eq(r->calls, 0);
    check_eq(rig.round_count, 2);
    check_eq(rig.rounds_to[0], PEER_A);
    check_eq(rig.rounds_to[1], PEER_B);
    check(!last_round()->answer);
    check_eq(last_round()->term, rq_node_term(rig.node));
    confirm(PEER_B, last_round()->round);
    check_eq(r->calls, 1);
    check_eq(r->err, RQ_OK);
    check_eq(r->index, rq_node_committed(rig.node));
    check_eq(rig.writes_wanted, writes);
    check_eq(rq_log_last(rig.log), last);
}

static void what_is_committed_meanwhile_is_not_waited_for(void)
{
    lead_three();
    uint64_t before = rq_node_committed(rig.node);
    struct reading *r = ask();
    check_eq(rig_submit(1), RQ_OK);
    answers(PEER_A);
    check_eq(rq_node_committed(rig.node), before + 1);
    confirm(PEER_A, last_round()->round);
    check_eq(r->index, before);
}

static void other_answers_do_not_count(void)
{
    lead_three();
    struct reading *first = ask();
    uint64_t round = last_round()->round, term = rq_node_term(rig.node);
    feed_round(PEER_A, term - 1, round, true);
    feed_round(PEER_A, term + 1, round, true);
    feed_round(PEER_A, term, round - 1, true);
    feed_round(PEER_A, term, round + 1, true); /* that nobody asked */
    feed_round(STRANGER, term, round, true);
    feed_round(SELF, term, round, true);
    check_eq(first->calls, 0);
    confirm(PEER_A, round);
    check_eq(first->calls, 1);

    struct reading *second = ask();
    check(last_round()->round > round);
    confirm(PEER_A, round); /* late, or twice */
    confirm(PEER_B, round);
    check_eq(second->calls, 0);
    confirm(PEER_B, last_round()->round);
    check_eq(second->calls, 1);
}

static void one_round_serves_all_who_came_before_it(void)
{
    lead_three();
    struct reading *first = ask(), *second = ask(), *third = ask();
    uint64_t round = last_round()->round;
    check_eq(rig.round_count, 2); /* one question to each */
    check_eq(rig_submit(1), RQ_OK);
    answers(PEER_A);
    confirm(PEER_A, round);
    check_eq(first->calls, 1);
    check_eq(second->calls, 0); /* came when the round was under way */
    check_eq(rig.round_count, 4);
    check_eq(last_round()->round, round + 1);
    confirm(PEER_B, round + 1);
    check_eq(second->calls, 1);
    check_eq(third->calls, 1);
    check_eq(third->index, first->index + 1);
    check_eq(rig.round_count, 4);
}

static void lost_round_is_followed_by_another(void)
{
    lead_three();
    struct reading *first = ask();
    uint64_t round = last_round()->round;
    struct reading *second = ask();
    rig_wait_ms(HEARTBEAT_MS + 1);
    check_eq(rig.round_count, 4);
    check_eq(last_round()->round, round + 1);
    confirm(PEER_A, round); /* only late */
    check_eq(first->calls, 1);
    check_eq(second->calls, 0);
    confirm(PEER_A, round + 1);
    check_eq(second->calls, 1);
    unsigned count = rig.round_count;
    rig_wait_ms(2 * HEARTBEAT_MS); /* nobody waits, nobody is asked */
    check_eq(rig.round_count, count);
}

static void who_does_not_lead_says_so(void)
{
    rig_start_member();
    reading_count = 0;
    struct reading *r = ask();
    check_eq(r->calls, 1);
    check_eq(r->err, RQ_AWAY);
}

static void leader_without_an_entry_of_its_term_says_so(void)
{
    rig_start_member();
    reading_count = 0;
    rig_elect();
    struct reading *r = ask();
    check_eq(r->calls, 1);
    check_eq(r->err, RQ_AWAY);
    check_eq(rig.round_count, 0);
}

static void lost_leadership_is_told(void)
{
    lead_three();
    struct reading *r = ask();
    uint64_t round = last_round()->round, term = rq_node_term(rig.node);
    rig_feed_append((struct rig_append){ .term = term + 1, .prev = 1, .prev_term = 1, .commit = 1 });
    check_eq(r->calls, 1);
    check_eq(r->err, RQ_AWAY);
    feed_round(PEER_A, term, round, true);
    check_eq(r->calls, 1);
}

static void leader_that_is_stopped_asks_in_vain(void)
{
    lead_three();
    struct reading *r = ask();
    rig_wait_ms(3 * ELECTION_MS); /* nobody answers: it steps down */
    check_eq(r->calls, 1);
    check_eq(r->err, RQ_AWAY);
}

static void member_answers_in_its_own_term_only(void)
{
    rig_start_member();
    rig_feed_append((struct rig_append){ .term = 5, .prev = 1, .prev_term = 1, .commit = 1 });
    check_eq(rq_node_term(rig.node), 5);
    feed_round(PEER_A, 4, 7, false);
    feed_round(PEER_A, 6, 7, false);
    check_eq(rig.round_count, 0);
    feed_round(PEER_A, 5, 7, false);
    check_eq(rig.round_count, 1);
    check_eq(rig.rounds_to[0], PEER_A);
    check(last_round()->answer);
    check_eq(last_round()->term, 5);
    check_eq(last_round()->round, 7);
}

static void end_of_the_node_is_told(void)
{
    lead_three();
    struct reading *r = ask();
    rq_node_free(rig.node);
    rig.node = NULL;
    check_eq(r->calls, 1);
    check_eq(r->err, RQ_AWAY);
}

int main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TAP(leader_of_one_is_its_own_majority),
        TAP(majority_has_to_answer),
        TAP(what_is_committed_meanwhile_is_not_waited_for),
        TAP(other_answers_do_not_count),
        TAP(one_round_serves_all_who_came_before_it),
        TAP(lost_round_is_followed_by_another),
        TAP(who_does_not_lead_says_so),
        TAP(leader_without_an_entry_of_its_term_says_so),
        TAP(lost_leadership_is_told),
        TAP(leader_that_is_stopped_asks_in_vain),
        TAP(member_answers_in_its_own_term_only),
        TAP(end_of_the_node_is_told),
    };
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    rig_reset();
    rq_log_close(rig.log);
    return failed;
}
