/* awake: who waits in vain sleeps through ever more waits, who does not looks every time; and what is there is found. */
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ext/awake.h"
#include "tests/support/tap.h"

static unsigned slept_through(struct rq_awake *a)
{
    unsigned n = 0;
    while (!rq_awake_begin(a)) {
        n++;
    }
    return n;
}

static void in_time(struct rq_awake *a, unsigned times)
{
    for (; times > 0; times--) {
        check(rq_awake_begin(a));
        rq_awake_end(a, true);
    }
}

static void each_wait_in_vain_doubles_the_sleep_up_to_a_bound(void)
{
    struct rq_awake a = { 0 };
    check_eq(slept_through(&a), 0);
    for (unsigned expected = 1; expected <= RQ_AWAKE_ASLEEP; expected *= 2) {
        rq_awake_end(&a, false);
        check_eq(slept_through(&a), expected);
    }
    rq_awake_end(&a, false);
    check_eq(slept_through(&a), RQ_AWAKE_ASLEEP);
}

static void who_finds_it_again_is_trusted_again_step_by_step(void)
{
    struct rq_awake a = { 0 };
    for (unsigned i = 0; i < 4; i++) {
        rq_awake_end(&a, false);
        (void)slept_through(&a);
    }
    in_time(&a, RQ_AWAKE_TRUST - 1);
    rq_awake_end(&a, false);
    check_eq(slept_through(&a), 16);
    in_time(&a, RQ_AWAKE_TRUST);
    rq_awake_end(&a, false);
    check_eq(slept_through(&a), 16);
    in_time(&a, 6 * RQ_AWAKE_TRUST);
    rq_awake_end(&a, false);
    check_eq(slept_through(&a), 1);
}

static void what_is_there_is_found_and_what_never_comes_ends_the_wait(void)
{
    int ends[2];
    check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct rq_awake a = { 0 };
    while (a.asleep == 0) { /* a wait that others' work cuts short is not in vain */
        check(!rq_awake_wait(&a, ends[0]));
    }
    check_eq(a.asleep, 1);
    check(!rq_awake_wait(&a, ends[0])); /* slept through */
    check_eq(a.asleep, 0);
    check_eq(write(ends[1], "x", 1), 1);
    check(rq_awake_wait(&a, ends[0]));
    close(ends[1]);
    char byte;
    check_eq(read(ends[0], &byte, 1), 1);
    rq_awake_end(&a, true);
    check(rq_awake_wait(&a, ends[0])); /* the end of the connection is an answer too */
    close(ends[0]);
}

static void a_single_processor_is_left_to_raftd_and_any_on_demand(void)
{
    cpu_set_t all, one;
    check_eq(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (unsigned i = 0; CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &all)) {
            CPU_SET(i, &one);
        }
    }
    check_eq(sched_setaffinity(0, sizeof one, &one), 0);
    struct rq_awake a;
    rq_awake_init(&a);
    check(!rq_awake_begin(&a));
    check_eq(sched_setaffinity(0, sizeof all, &all), 0);
    rq_awake_init(&a);
    check_eq(rq_awake_begin(&a), CPU_COUNT(&all) > 1);
    check_eq(setenv("RQVFS_AWAKE", "0", 1), 0);
    rq_awake_init(&a);
    check(!rq_awake_begin(&a));
    check_eq(unsetenv("RQVFS_AWAKE"), 0);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(each_wait_in_vain_doubles_the_sleep_up_to_a_bound),
        TAP(who_finds_it_again_is_trusted_again_step_by_step),
        TAP(what_is_there_is_found_and_what_never_comes_ends_the_wait),
        TAP(a_single_processor_is_left_to_raftd_and_any_on_demand),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
