/* The leader's table of turns, on a clock and a network that are made up here. */
#include <string.h>

#include "raftd/cluster/turns.h"
#include "tests/support/tap.h"

#define DB    7u
#define OTHER 8u
#define TERM  3u

static uint64_t const here = 1, a = 2, b = 3, c = 4;

/* What the table said, in order: "grant A 1", by the names of the asks. */
static struct {
    char said[512];
    uint64_t serial, index; /* of the last grant */
    uint64_t wanted_host, wanted_serial;
} seen;

static void say(const char *what, const char *whom)
{
    if (seen.said[0] != '\0') {
        strncat(seen.said, ", ", sizeof seen.said - strlen(seen.said) - 1);
    }
    strncat(seen.said, what, sizeof seen.said - strlen(seen.said) - 1);
    strncat(seen.said, whom, sizeof seen.said - strlen(seen.said) - 1);
}

static void on_grant(void *ctx, void *ask, uint32_t db_id, uint64_t serial, uint64_t index)
{
    (void)ctx;
    check(db_id == DB || db_id == OTHER);
    check(serial > seen.serial);
    seen.serial = serial;
    seen.index = index;
    say("grant ", ask);
}

static void on_refuse(void *ctx, void *ask)
{
    (void)ctx;
    say("refuse ", ask);
}

static void on_want(void *ctx, uint64_t host, uint32_t db_id, uint64_t serial)
{
    (void)ctx;
    (void)db_id;
    seen.wanted_host = host;
    seen.wanted_serial = serial;
    say("want", "");
}

static const struct rq_turns_ops ops = { NULL, on_grant, on_refuse, on_want };

/* Since the last look. */
static void said(const char *wanted)
{
    if (strcmp(seen.said, wanted) != 0) {
        printf("# said \"%s\", not \"%s\"\n", seen.said, wanted);
    }
    check(strcmp(seen.said, wanted) == 0);
    seen.said[0] = '\0';
}

static struct rq_turns *fresh(void)
{
    struct rq_turns *t;
    memset(&seen, 0, sizeof seen);
    check_eq(rq_turns_new(&ops, &t), RQ_OK);
    return t;
}

/* A leader that has heard everybody. */
static struct rq_turns *leading(void)
{
    struct rq_turns *t = fresh();
    rq_turns_begin(t, 1000, TERM, &here, 1);
    rq_turns_heard(t, here);
    check_eq(rq_turns_due_ms(t), UINT64_MAX);
    return t;
}

static void take(struct rq_turns *t, uint64_t host, const char *name)
{
    check_eq(rq_turns_take(t, host, DB, (void *)(uintptr_t)name), RQ_OK);
}

static void what_nobody_has_is_granted_at_once_and_kept(void)
{
    struct rq_turns *t = leading();
    take(t, a, "A");
    said("grant A");
    check(seen.serial > (uint64_t)TERM << 32 && seen.index == 0);
    rq_turns_timer(t, 1000000);
    said("");
    rq_turns_free(t);
    said("");
}

static void others_wait_in_the_order_of_their_coming(void)
{
    struct rq_turns *t = leading();
    take(t, a, "A");
    take(t, b, "B");
    said("grant A, want");
    check(seen.wanted_host == a && seen.wanted_serial == seen.serial);
    take(t, c, "C");
    said(""); /* it was told, and has not answered */
    rq_turns_given(t, DB, seen.wanted_serial, 55);
    said("grant B, want");
    check(seen.index == 55 && seen.wanted_host == b);
    take(t, a, "A2");
    rq_turns_given(t, DB, seen.wanted_serial, 60);
    said("grant C, want");
    rq_turns_given(t, DB, seen.wanted_serial, 0); /* silent */
    said("grant A2");
    check_eq(seen.index, 0);
    rq_turns_free(t);
    said("");
}

static void who_needs_it_longer_is_asked_again(void)
{
    struct rq_turns *t = leading();
    take(t, a, "A");
    take(t, b, "B");
    said("grant A, want");
    rq_turns_kept(t, DB, seen.wanted_serial);
    said("want");
    rq_turns_kept(t, DB, seen.wanted_serial + 1); /* of another holding */
    said("");
    rq_turns_given(t, DB, seen.wanted_serial, 9);
    said("grant B");
    rq_turns_free(t);
}

static void an_answer_that_comes_too_late_moves_nothing(void)
{
    struct rq_turns *t = leading();
    take(t, a, "A");
    take(t, b, "B");
    const uint64_t first = seen.wanted_serial;
    rq_turns_given(t, DB, first, 0);
    said("grant A, want, grant B");
    take(t, a, "A2");
    said("want");
    rq_turns_given(t, DB, first, 44);
    rq_turns_kept(t, DB, first);
    rq_turns_given(t, OTHER, seen.wanted_serial, 44);
    said("");
    rq_turns_free(t);
    said("refuse A2");
}

static void who_asks_again_keeps_its_place(void)
{
    struct rq_turns *t = leading();
    take(t, a, "A");
    take(t, b, "B");
    take(t, c, "C");
    take(t, b, "B2");
    said("grant A, want, refuse B");
    rq_turns_given(t, DB, seen.wanted_serial, 1);
    said("grant B2, want");
    rq_turns_free(t);
    said("refuse C");
}

static void a_holder_that_asks_does_not_hold(void)
{
    struct rq_turns *t = leading();
    take(t, a, "A");
    take(t, a, "A2");
    said("grant A, grant A2");
    take(t, b, "B");
    said("want");
    const uint64_t wanted = seen.wanted_serial;
    take(t, a, "A3"); /* its answer, which is on its way, was overtaken */
    said("grant B, want");
    check_eq(seen.index, 0);
    rq_turns_given(t, DB, wanted, 5);
    said("");
    rq_turns_free(t);
    said("refuse A3");
}

static void databases_do_not_wait_for_each_other(void)
{
    struct rq_turns *t = leading();
    take(t, a, "A");
    check_eq(rq_turns_take(t, b, OTHER, (void *)(uintptr_t)"B"), RQ_OK);
    said("grant A, grant B");
    rq_turns_free(t);
}

static void a_dropped_database_is_nobodys(void)
{
    struct rq_turns *t = leading();
    take(t, a, "A");
    take(t, b, "B");
    said("grant A, want");
    rq_turns_forget(t, OTHER);
    said("");
    rq_turns_forget(t, DB);
    said("refuse B");
    rq_turns_given(t, DB, seen.wanted_serial, 1);
    check(rq_turns_held(t, c, DB, 5));
    rq_turns_free(t);
    said("");
}

static void a_new_leader_waits_for_those_who_hold(void)
{
    const uint64_t hosts[] = { here, a, b };
    struct rq_turns *t = fresh();
    rq_turns_begin(t, 1000, TERM, hosts, 3);
    check_eq(rq_turns_due_ms(t), 1000 + RQ_TURNS_GRACE_MS);
    take(t, b, "B");
    take(t, here, "H");
    said("");
    check(rq_turns_held(t, a, DB, 77));
    said("want"); /* it is known who has it: those who wait wait for it, and not for the others */
    check(seen.wanted_host == a && seen.wanted_serial == 77);
    check(!rq_turns_held(t, b, DB, 78));
    rq_turns_given(t, DB, 77, 3);
    said("");
    rq_turns_heard(t, here);
    rq_turns_heard(t, a);
    rq_turns_timer(t, 1000 + RQ_TURNS_GRACE_MS - 1);
    said("");
    rq_turns_heard(t, b);
    said("grant B, want");
    check_eq(seen.index, 3);
    check(seen.serial > (uint64_t)TERM << 32);
    check_eq(rq_turns_due_ms(t), UINT64_MAX);
    rq_turns_free(t);
}

static void a_new_leader_does_not_wait_for_ever(void)
{
    const uint64_t hosts[] = { here, a };
    struct rq_turns *t = fresh();
    rq_turns_begin(t, 1000, TERM, hosts, 2);
    take(t, b, "B");
    rq_turns_timer(t, 1000 + RQ_TURNS_GRACE_MS);
    said("grant B");
    check(!rq_turns_held(t, a, DB, 77)); /* too late */
    check(rq_turns_held(t, b, DB, seen.serial));
    rq_turns_free(t);
}

static void who_leads_no_more_forgets_and_says_so(void)
{
    struct rq_turns *t = leading();
    take(t, a, "A");
    take(t, b, "B");
    said("grant A, want");
    check(rq_turns_leads(t));
    rq_turns_end(t);
    check(!rq_turns_leads(t));
    said("refuse B");
    rq_turns_given(t, DB, seen.wanted_serial, 1);
    rq_turns_begin(t, 2000, TERM + 1, &here, 1);
    rq_turns_heard(t, here);
    take(t, c, "C");
    said("grant C");
    check(seen.serial > (uint64_t)(TERM + 1) << 32);
    rq_turns_free(t);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(what_nobody_has_is_granted_at_once_and_kept),
        TAP(others_wait_in_the_order_of_their_coming),
        TAP(who_needs_it_longer_is_asked_again),
        TAP(an_answer_that_comes_too_late_moves_nothing),
        TAP(who_asks_again_keeps_its_place),
        TAP(a_holder_that_asks_does_not_hold),
        TAP(databases_do_not_wait_for_each_other),
        TAP(a_dropped_database_is_nobodys),
        TAP(a_new_leader_waits_for_those_who_hold),
        TAP(a_new_leader_does_not_wait_for_ever),
        TAP(who_leads_no_more_forgets_and_says_so),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
