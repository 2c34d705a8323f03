/* metrics: counters under their names, and times in the buckets where they belong. */
#include <string.h>

#include "raftd/run/metrics.h"
#include "tests/support/tap.h"

static void counters_have_their_names(void)
{
    RQ_COUNT(http, loads);
    RQ_COUNT(http, loads);
    check_eq(atomic_load(&rq_counters[RQ_COUNTER_http_loads]), 2);
    check(strcmp(rq_counter_names[RQ_COUNTER_http_loads].section, "http") == 0);
    check(strcmp(rq_counter_names[RQ_COUNTER_http_loads].key, "loads") == 0);
    for (unsigned i = 1; i < RQ_COUNTER_COUNT; i++) { /* sections are shown in one piece each */
        const struct rq_counter_name *a = &rq_counter_names[i - 1], *b = &rq_counter_names[i];
        const int sections = strcmp(a->section, b->section);
        check(sections < 0 || (sections == 0 && strcmp(a->key, b->key) < 0));
    }
}

static void a_bucket_has_what_took_at_most_its_bound(void)
{
    check_eq(rq_stage_bucket(0), 0);
    check_eq(rq_stage_bucket(1000), 0);
    check_eq(rq_stage_bucket(1001), 1);
    check_eq(rq_stage_bucket(2000), 1);
    check_eq(rq_stage_bucket(2001), 2);
    for (unsigned i = 1; i < RQ_STAGE_BUCKETS - 1; i++) {
        check_eq(rq_stage_bucket((1000ull << i)), i);
        check_eq(rq_stage_bucket((1000ull << i) + 1), i + 1);
    }
    check_eq(rq_stage_bucket(UINT64_MAX), RQ_STAGE_BUCKETS - 1);
}

static void what_a_stage_took_is_summed_up(void)
{
    rq_stage_took(RQ_STAGE_sync, 1500);
    rq_stage_took(RQ_STAGE_sync, 1600);
    check_eq(atomic_load(&rq_stages[RQ_STAGE_sync].buckets[1]), 2);
    check_eq(atomic_load(&rq_stages[RQ_STAGE_sync].sum_ns), 3100);
    check(strcmp(rq_stage_names[RQ_STAGE_log_write], "log_write") == 0);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(counters_have_their_names),
        TAP(a_bucket_has_what_took_at_most_its_bound),
        TAP(what_a_stage_took_is_summed_up),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
