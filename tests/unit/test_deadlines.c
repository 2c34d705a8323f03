/* deadlines: what has passed is told once; what was ended before is not told; nothing is told before its time. */
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#include "raftd/http/deadlines.h"
#include "raftd/run/clock.h"
#include "tests/support/tap.h"

enum { COUNT = 200 };

struct one {
    struct rq_deadline deadline;
    atomic_uint told;
    atomic_bool early;
};

static struct one ones[COUNT];
static atomic_uint told, seconds;

static void passed(struct rq_deadline *d)
{
    struct one *o = (struct one *)((char *)d - offsetof(struct one, deadline));
    atomic_store(&o->early, rq_clock_ms() < o->deadline.at_ms);
    atomic_fetch_add(&o->told, 1);
    atomic_fetch_add(&told, 1);
}

static void now_and_then(void *ctx)
{
    (void)ctx;
    atomic_fetch_add(&seconds, 1);
}

static void await(atomic_uint *what, unsigned value)
{
    for (int i = 0; i < 60000 && atomic_load(what) < value; i++) {
        usleep(1000);
    }
    check(atomic_load(what) >= value);
}

static void each_is_told_once_and_not_before_its_time(void)
{
    struct rq_deadlines *d;
    unsigned ended = 0;
    check_eq(rq_deadlines_new(now_and_then, NULL, &d), RQ_OK);
    for (unsigned i = 0; i < COUNT; i++) {
        ones[i].deadline = (struct rq_deadline){
            .at_ms = rq_clock_ms() + (i % 4 == 3 ? 3600000 : i * 2),
            .passed = passed,
        };
        rq_deadlines_begin(d, &ones[i].deadline);
    }
    for (unsigned i = 0; i < COUNT; i += 4) { /* some may be over by now */
        ended += rq_deadlines_end(d, &ones[i].deadline);
    }
    await(&told, COUNT * 3 / 4 - ended);
    await(&seconds, 1);
    for (unsigned i = 0; i < COUNT; i++) {
        const unsigned times = atomic_load(&ones[i].told);
        check(!atomic_load(&ones[i].early));
        check(i % 4 == 3 ? times == 0 : i % 4 == 0 ? times <= 1 : times == 1);
        check_eq(rq_deadlines_end(d, &ones[i].deadline), i % 4 == 3);
    }
    check_eq(atomic_load(&told), COUNT * 3 / 4 - ended);
    rq_deadlines_free(d);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = { TAP(each_is_told_once_and_not_before_its_time) };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
