/* Freshness: who wants to read waits for a proof, and for what it proves; one question serves many.  The leader, the clocks and
 * what is delivered are what the test says.  Guards that nothing is served on an older proof than it allows for. */
#include <string.h>

#include "raftd/db/freshness.h"
#include "tests/support/tap.h"

enum { LEADER = 7, HEIR = 8, READINGS_MAX = 8 };

static struct {
    struct rq_freshness freshness;
    struct rq_freshness_now now;
    uint64_t asked_of, question;
    unsigned questions;
    enum rq_err answer_at_once; /* UNKNOWN: the answer comes later */
    uint64_t index_at_once;
} world;

static struct reading {
    struct rq_reading reading; /* first */
    unsigned calls;
    enum rq_err err;
    char text[100];
} readings[READINGS_MAX];
static unsigned reading_count;

static void on_ask(void *ctx, uint64_t leader_id, uint64_t question)
{
    (void)ctx;
    world.asked_of = leader_id;
    world.question = question;
    world.questions++;
    if (world.answer_at_once != RQ_UNKNOWN) {
        rq_freshness_answer(&world.freshness, question, world.answer_at_once, world.index_at_once, &world.now);
    }
}

static void begin(void)
{
    memset(&world, 0, sizeof world);
    world.now = (struct rq_freshness_now){ .ms = 1000, .boot_ms = 5000, .leader_id = LEADER, .delivered = 10 };
    world.answer_at_once = RQ_UNKNOWN;
    rq_freshness_init(&world.freshness, &(struct rq_freshness_env){ .ask = on_ask });
    reading_count = 0;
}

static void on_done(struct rq_reading *r, enum rq_err err, const char *text)
{
    struct reading *reading = (struct reading *)r;
    reading->calls++;
    reading->err = err;
    snprintf(reading->text, sizeof reading->text, "%s", text);
}

static void go_on(void)
{
    rq_freshness_go_on(&world.freshness, &world.now);
}

static struct reading *wants(uint64_t max_age_ms)
{
    check(reading_count < READINGS_MAX);
    struct reading *r = &readings[reading_count++];
    *r = (struct reading){
        .reading = { .max_age_ms = max_age_ms, .deadline_ms = world.now.ms + 1000, .done = on_done },
    };
    rq_freshness_add(&world.freshness, &r->reading);
    go_on();
    return r;
}

static void pass(uint64_t ms)
{
    world.now.ms += ms;
    world.now.boot_ms += ms;
    go_on();
}

static void answer(uint64_t question, enum rq_err err, uint64_t index)
{
    rq_freshness_answer(&world.freshness, question, err, index, &world.now);
    go_on();
}

static void deliver(uint64_t index)
{
    world.now.delivered = index;
    go_on();
}

static void is_served(const struct reading *r)
{
    check_eq(r->calls, 1);
    check_eq(r->err, RQ_OK);
}

static void reading_waits_for_the_index_and_then_for_what_is_up_to_it(void)
{
    begin();
    struct reading *r = wants(0);
    check_eq(world.asked_of, LEADER);
    check_eq(r->calls, 0);
    answer(world.question, RQ_OK, 12);
    check_eq(r->calls, 0);
    deliver(11);
    check_eq(r->calls, 0);
    deliver(12);
    is_served(r);
    check_eq(r->reading.index, 12);
    check_eq(r->reading.left_ms, 0);
}

static void leader_may_answer_from_inside(void)
{
    begin();
    world.answer_at_once = RQ_OK;
    world.index_at_once = 10;
    is_served(wants(0));
    check_eq(world.questions, 1);
    is_served(wants(0)); /* the last proof is of before it came */
    check_eq(world.questions, 2);
}

static void one_question_at_a_time_serves_all_who_waited_for_it(void)
{
    begin();
    struct reading *first = wants(0), *second = wants(0), *third = wants(0);
    check_eq(world.questions, 1);
    answer(world.question, RQ_OK, 10);
    is_served(first);
    check_eq(second->calls, 0);
    check_eq(world.questions, 2);
    answer(world.question, RQ_OK, 10);
    is_served(second);
    is_served(third);
    check_eq(world.questions, 2);
}

static void proof_serves_until_it_is_too_old_counted_from_its_question(void)
{
    begin();
    struct reading *first = wants(500);
    pass(100); /* on its way */
    answer(world.question, RQ_OK, 10);
    is_served(first);
    check_eq(first->reading.left_ms, 400);
    pass(399);
    struct reading *second = wants(500);
    is_served(second);
    check_eq(second->reading.left_ms, 1);
    check_eq(world.questions, 1);
    pass(1);
    struct reading *third = wants(500);
    check_eq(third->calls, 0);
    check_eq(world.questions, 2);
    is_served(wants(501)); /* allows for more */
}

static void proof_that_grows_too_old_while_it_is_waited_for_serves_nobody(void)
{
    begin();
    struct reading *first = wants(0);
    answer(world.question, RQ_OK, 20);
    struct reading *second = wants(500); /* what was proven is not here yet */
    check_eq(world.questions, 1);
    pass(500);
    check_eq(world.questions, 2); /* asked again */
    deliver(20);
    is_served(first);
    check_eq(second->calls, 0);
    answer(world.question, RQ_OK, 21);
    check_eq(second->calls, 0);
    deliver(21);
    is_served(second);
}

static void what_allows_for_some_age_is_served_as_soon_as_what_allows_for_none(void)
{
    begin();
    struct reading *r = wants(5);
    pass(50); /* a far leader */
    answer(world.question, RQ_OK, 10);
    is_served(r);
    check_eq(r->reading.left_ms, 0);
}

static void nothing_is_proven_at_the_start(void)
{
    begin();
    world.now.leader_id = 0;
    struct reading *r = wants(500000);
    check_eq(r->calls, 0);
    pass(1000);
    check_eq(r->calls, 1);
    check_eq(r->err, RQ_AWAY);
    check(strstr(r->text, "no leader") != NULL);
}

static void sleep_of_the_machine_makes_proofs_old(void)
{
    begin();
    wants(500);
    answer(world.question, RQ_OK, 10);
    world.now.boot_ms += 600; /* the other clock stood still */
    struct reading *r = wants(500);
    check_eq(r->calls, 0);
}

static void refusal_is_asked_again_after_a_while(void)
{
    begin();
    struct reading *r = wants(0);
    answer(world.question, RQ_AWAY, 0);
    check_eq(world.questions, 1);
    check_eq(rq_freshness_wake_ms(&world.freshness, world.now.ms), world.now.ms + RQ_FRESHNESS_RETRY_MS);
    pass(RQ_FRESHNESS_RETRY_MS);
    check_eq(world.questions, 2);
    answer(world.question, RQ_OK, 10);
    is_served(r);
    check(rq_freshness_wake_ms(&world.freshness, world.now.ms) == UINT64_MAX);
}

static void another_leader_is_asked_instead(void)
{
    begin();
    struct reading *r = wants(0);
    uint64_t question = world.question;
    world.now.leader_id = 0;
    go_on();
    check_eq(world.questions, 1);
    check_eq(rq_freshness_wake_ms(&world.freshness, world.now.ms), r->reading.deadline_ms);
    world.now.leader_id = HEIR;
    go_on();
    check_eq(world.asked_of, HEIR);
    answer(question, RQ_OK, 10); /* late */
    check_eq(r->calls, 0);
    answer(world.question, RQ_OK, 10);
    is_served(r);
}

static void deadline_is_kept_wherever_it_waits(void)
{
    begin();
    struct reading *asked = wants(0);
    struct reading *waiting = wants(0);
    pass(999);
    check_eq(asked->calls, 0);
    pass(1);
    check_eq(asked->err, RQ_AWAY);
    check_eq(waiting->err, RQ_AWAY);
    check_eq(asked->calls, 1);
    check_eq(waiting->calls, 1);

    begin();
    struct reading *behind = wants(0);
    answer(world.question, RQ_OK, 11);
    check_eq(rq_freshness_wake_ms(&world.freshness, world.now.ms), behind->reading.deadline_ms);
    pass(1000);
    check_eq(behind->calls, 1);
    check_eq(behind->err, RQ_UNREADY);
}

int main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TAP(reading_waits_for_the_index_and_then_for_what_is_up_to_it),
        TAP(leader_may_answer_from_inside),
        TAP(one_question_at_a_time_serves_all_who_waited_for_it),
        TAP(proof_serves_until_it_is_too_old_counted_from_its_question),
        TAP(proof_that_grows_too_old_while_it_is_waited_for_serves_nobody),
        TAP(what_allows_for_some_age_is_served_as_soon_as_what_allows_for_none),
        TAP(nothing_is_proven_at_the_start),
        TAP(sleep_of_the_machine_makes_proofs_old),
        TAP(refusal_is_asked_again_after_a_while),
        TAP(another_leader_is_asked_instead),
        TAP(deadline_is_kept_wherever_it_waits),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
