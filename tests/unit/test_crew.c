/* crew: everything that is posted is run, by as many threads as there may be and no more. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "raftd/run/crew.h"
#include "tests/support/tap.h"

enum { TASKS = 500, THREADS = 5 };

static atomic_uint ran, at_once, most_at_once;
static atomic_bool gate;

static void run_one(struct rq_task *task)
{
    (void)task;
    unsigned now = atomic_fetch_add(&at_once, 1) + 1, most = atomic_load(&most_at_once);
    while (now > most && !atomic_compare_exchange_weak(&most_at_once, &most, now)) {
    }
    while (!atomic_load(&gate)) {
        usleep(1000);
    }
    atomic_fetch_sub(&at_once, 1);
    atomic_fetch_add(&ran, 1);
}

static void all_tasks_run_on_no_more_threads_than_there_may_be(void)
{
    static struct rq_task tasks[TASKS];
    struct rq_crew *crew;
    check_eq(rq_crew_new(THREADS, "crew", &crew), RQ_OK);
    for (int i = 0; i < TASKS; i++) {
        tasks[i].run = run_one;
        check_eq(rq_crew_post(crew, &tasks[i]), RQ_OK);
    }
    for (int i = 0; i < 30000 && atomic_load(&at_once) < THREADS; i++) {
        usleep(1000);
    }
    check_eq(atomic_load(&at_once), THREADS); /* each that waits leaves room for the next, up to the limit */
    atomic_store(&gate, true);
    rq_crew_free(crew); /* not before all have run */
    check_eq(atomic_load(&ran), TASKS);
    check_eq(atomic_load(&most_at_once), THREADS);
}

static void threads_that_are_idle_are_used_again(void)
{
    struct rq_task task = { .run = run_one };
    struct rq_crew *crew;
    atomic_store(&gate, true);
    atomic_store(&ran, 0);
    atomic_store(&most_at_once, 0);
    check_eq(rq_crew_new(THREADS, "crew", &crew), RQ_OK);
    for (unsigned i = 1; i <= 100; i++) {
        check_eq(rq_crew_post(crew, &task), RQ_OK);
        for (int wait = 0; wait < 30000 && atomic_load(&ran) < i; wait++) {
            usleep(100);
        }
        check_eq(atomic_load(&ran), i);
    }
    check_eq(atomic_load(&most_at_once), 1);
    rq_crew_free(crew);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(all_tasks_run_on_no_more_threads_than_there_may_be),
        TAP(threads_that_are_idle_are_used_again),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
