/* verdict: what a majority of the voters says of a page, and that fewer never decide. */
#include "raftd/cluster/verdict.h"
#include "tests/support/tap.h"

enum { PAGES = 4 };
static const uint64_t right[PAGES] = { 11, 12, 13, 14 };
static const uint64_t second_other[PAGES] = { 11, 99, 13, 14 };
static const uint64_t third_other[PAGES] = { 11, 98, 13, 77 };

static struct rq_opinion voter(const uint64_t *hashes)
{
    return (struct rq_opinion){ true, hashes, PAGES };
}

static struct rq_verdict judge(const struct rq_opinion *opinions, unsigned count, unsigned voters)
{
    struct rq_verdict v;
    rq_verdict(opinions, count, voters, &v);
    return v;
}

static void all_agree(void)
{
    const struct rq_opinion o[] = { voter(right), voter(right), voter(right) };
    const struct rq_verdict v = judge(o, 3, 3);
    check(v.wrong_here == 0 && v.undecided == 0 && v.wrong_elsewhere == 0);
}

static void two_of_three_decide(void)
{
    const struct rq_opinion here[] = { voter(third_other), voter(right), voter(right) };
    struct rq_verdict v = judge(here, 3, 3);
    check(v.wrong_here == 2 && v.first_wrong_here == 1 && v.undecided == 0 && v.wrong_elsewhere == 0);
    const struct rq_opinion there[] = { voter(right), voter(right), voter(second_other) };
    v = judge(there, 3, 3);
    check(v.wrong_here == 0 && v.undecided == 0 && v.wrong_elsewhere == 1u << 2);
}

static void three_that_all_differ_decide_nothing(void)
{
    const struct rq_opinion o[] = { voter(right), voter(second_other), voter(third_other) };
    const struct rq_verdict v = judge(o, 3, 3);
    check(v.wrong_here == 0 && v.undecided == 1 && v.first_undecided == 1); /* page 4 has two of three */
    check_eq(v.wrong_elsewhere, 1u << 2);
}

static void who_is_silent_is_on_nobodys_side(void)
{
    const struct rq_opinion two[] = { voter(right), voter(second_other), { true, NULL, 0 } };
    struct rq_verdict v = judge(two, 3, 3);
    check(v.wrong_here == 0 && v.undecided == 1 && v.wrong_elsewhere == 0);
    const struct rq_opinion five[] = {
        voter(second_other), voter(right), voter(right), { true, NULL, 0 }, { true, NULL, 0 }
    };
    v = judge(five, 5, 5); /* two of five */
    check(v.wrong_here == 0 && v.undecided == 1);
    const struct rq_opinion alone[] = { voter(right), { true, NULL, 0 }, { true, NULL, 0 } };
    v = judge(alone, 3, 3);
    check(v.wrong_here == 0 && v.undecided == 0);
}

static void two_voters_that_differ_decide_nothing(void)
{
    const struct rq_opinion o[] = { voter(right), voter(second_other) };
    const struct rq_verdict v = judge(o, 2, 2);
    check(v.wrong_here == 0 && v.undecided == 1 && v.wrong_elsewhere == 0);
}

static void who_has_no_vote_is_judged_and_does_not_count(void)
{
    const struct rq_opinion o[] = { { false, second_other, PAGES }, voter(right), voter(right), { true, NULL, 0 } };
    struct rq_verdict v = judge(o, 4, 3);
    check(v.wrong_here == 1 && v.first_wrong_here == 1);
    const struct rq_opinion more[] = {
        voter(right), { false, second_other, PAGES }, { false, second_other, PAGES }, { true, NULL, 0 }
    };
    v = judge(more, 4, 2);
    check(v.wrong_here == 0 && v.undecided == 1);
    const struct rq_opinion sides[] = { voter(right), voter(second_other), { false, right, PAGES } };
    v = judge(sides, 3, 2); /* nor does it count for one of them */
    check(v.wrong_here == 0 && v.undecided == 1 && v.wrong_elsewhere == 0);
    const struct rq_opinion against[] = { { false, second_other, PAGES },
                                          { false, second_other, PAGES },
                                          voter(right) };
    v = judge(against, 3, 1);
    check(v.wrong_here == 1 && v.undecided == 0 && v.wrong_elsewhere == 1u << 1);
}

static void a_database_that_is_shorter_or_longer_is_wrong_from_there_on(void)
{
    const struct rq_opinion o[] = { { true, right, PAGES - 2 }, voter(right), voter(right) };
    struct rq_verdict v = judge(o, 3, 3);
    check(v.wrong_here == 2 && v.first_wrong_here == PAGES - 2);
    const struct rq_opinion longer[] = { voter(right), { true, right, PAGES - 1 }, { true, right, PAGES - 1 } };
    v = judge(longer, 3, 3);
    check(v.wrong_here == 1 && v.first_wrong_here == PAGES - 1);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(all_agree),
        TAP(two_of_three_decide),
        TAP(three_that_all_differ_decide_nothing),
        TAP(who_is_silent_is_on_nobodys_side),
        TAP(two_voters_that_differ_decide_nothing),
        TAP(who_has_no_vote_is_judged_and_does_not_count),
        TAP(a_database_that_is_shorter_or_longer_is_wrong_from_there_on),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
