/* Change records: of what the log has, those that count. */
#include <stdlib.h>
#include <string.h>

#include "raftd/db/change_records.h"
#include "tests/support/tap.h"

static struct rq_change_records records;

/* {base, version} each; their indexes are 1, 2, 3 .. */
static void have(size_t count, const uint64_t entries[][2])
{
    rq_change_records_init(&records);
    records.list = calloc(count, sizeof *records.list);
    records.count = records.capacity = count;
    for (size_t i = 0; i < count; i++) {
        records.list[i] = (struct rq_change_record){ .base = entries[i][0], .version = entries[i][1], .index = i + 1 };
    }
}

static void check_kept(size_t count, const uint64_t *indexes)
{
    check_eq(records.count, count);
    for (size_t i = 0; i < count; i++) {
        check_eq(records.list[i].index, indexes[i]);
    }
    rq_change_records_fini(&records);
}

#define HAVE(...) have(sizeof((uint64_t[][2]){ __VA_ARGS__ }) / 16, (const uint64_t[][2]){ __VA_ARGS__ })
#define KEPT(...) check_kept(sizeof((uint64_t[]){ __VA_ARGS__ }) / 8, (const uint64_t[]){ __VA_ARGS__ })

static void follow_leaves_out_what_had_no_effect(void)
{
    HAVE({ 4, 5 }, { 5, 6 }, { 5, 8 }, { 6, 9 }, { 6, 7 }, { 9, 10 });
    check_eq(rq_change_records_follow(&records, 5, 10), RQ_OK);
    KEPT(2, 4, 6);
}

static void follow_says_when_something_is_missing(void)
{
    HAVE({ 5, 6 }, { 7, 8 });
    check_eq(rq_change_records_follow(&records, 5, 8), RQ_NOTFOUND);
    check_kept(0, NULL);
    HAVE({ 7, 8 });
    check_eq(rq_change_records_follow(&records, 5, 8), RQ_NOTFOUND);
    check_kept(0, NULL);
    HAVE({ 5, 6 }, { 6, 7 });
    check_eq(rq_change_records_follow(&records, 5, 6), RQ_NOTFOUND); /* it is not what the log says */
    check_kept(0, NULL);
}

static void trace_begins_behind_what_it_cannot_be_sure_of(void)
{
    HAVE({ 10, 11 }, { 11, 12 }, { 12, 13 }, { 12, 14 });
    rq_change_records_trace(&records, 13, 3);
    KEPT(2, 3);
    HAVE({ 0, 1 }, { 1, 2 }); /* nothing is before the first */
    rq_change_records_trace(&records, 2, 2);
    KEPT(1, 2);
}

static void trace_finds_the_beginning_behind_one_without_effect(void)
{
    HAVE({ 10, 15 }, { 11, 12 }, { 12, 13 }, { 13, 14 });
    rq_change_records_trace(&records, 14, 4);
    KEPT(3, 4);
    HAVE({ 10, 11 }, { 20, 21 });
    rq_change_records_trace(&records, 30, 9);
    check_kept(0, NULL);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(follow_leaves_out_what_had_no_effect),
        TAP(follow_says_when_something_is_missing),
        TAP(trace_begins_behind_what_it_cannot_be_sure_of),
        TAP(trace_finds_the_beginning_behind_one_without_effect),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
