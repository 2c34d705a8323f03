/* admission: no more than the limit are in, who waits comes in when one leaves, the longest waiting first. */
#include "raftd/db/admission.h"
#include "tests/support/tap.h"

struct guest {
    struct rq_admission_waiter waiter; /* first */
    bool in;
};

static void let_in(struct rq_admission_waiter *w)
{
    ((struct guest *)w)->in = true;
}

static struct rq_admission hall;
static struct guest guests[6];

static void come(unsigned i)
{
    guests[i] = (struct guest){ .waiter.admitted = let_in };
    if (rq_admission_enter(&hall, &guests[i].waiter)) {
        guests[i].in = true;
    }
}

static unsigned count_in(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < 6; i++) {
        count += guests[i].in;
    }
    return count;
}

static void go(unsigned i)
{
    guests[i].in = false;
    rq_admission_leave(&hall);
}

static void past_the_limit_they_wait_in_order(void)
{
    rq_admission_init(&hall, 2);
    for (unsigned i = 0; i < 5; i++) {
        come(i);
        check_eq(count_in(), i < 2 ? i + 1 : 2);
    }
    go(1);
    check(guests[2].in && count_in() == 2);
    go(0);
    check(guests[3].in && count_in() == 2);
    come(5); /* behind who waits already */
    go(2);
    check(guests[4].in && !guests[5].in);
    go(3);
    check(guests[5].in);
    go(4);
    go(5);
    check_eq(count_in(), 0);
}

static void places_are_not_lost(void)
{
    rq_admission_init(&hall, 2);
    for (unsigned round = 0; round < 3; round++) {
        come(0);
        come(1);
        come(2);
        check(!guests[2].in);
        go(0);
        check(guests[2].in);
        go(1);
        go(2);
    }
    come(3);
    come(4);
    check_eq(count_in(), 2);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = { TAP(past_the_limit_they_wait_in_order), TAP(places_are_not_lost) };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
