/* pace: a rest is in proportion to the piece, bounded, and only taken beside others. */
#include "raftd/run/clock.h"
#include "raftd/run/pace.h"
#include "tests/support/tap.h"

static void a_rest_is_as_long_as_the_piece_asks_for(void)
{
    const uint64_t ms = 1000000;
    check_eq(rq_pace_rest_ns(4 * ms, true), 4 * ms * RQ_PACE_RESTS);
    check_eq(rq_pace_rest_ns(0, true), 0);
    check_eq(rq_pace_rest_ns(UINT64_MAX, true), RQ_PACE_REST_MS * ms);
    check_eq(rq_pace_rest_ns(4 * ms, false), 0);
}

static void who_is_not_alone_rests(void)
{
    struct rq_pace p;
    const uint64_t begin = rq_clock_ns();
    rq_pace_begin(&p);
    while (rq_clock_ns() < begin + 2000000) {
    }
    rq_pace_end(&p, true);
    check(rq_clock_ns() - begin >= (1 + RQ_PACE_RESTS) * 2000000ull);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(a_rest_is_as_long_as_the_piece_asks_for),
        TAP(who_is_not_alone_rests),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
