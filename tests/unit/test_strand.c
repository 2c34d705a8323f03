/* strand: never two tasks of one strand at once, in order, never one strand on top of another, nothing lost on any path. */
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "raftd/run/strand.h"
#include "tests/support/tap.h"

struct note {
    struct rq_task task;
    int id;
};

static int trace[64];
static unsigned trace_count;

static void write_down(struct rq_task *task)
{
    trace[trace_count++] = ((struct note *)task)->id;
}

static struct rq_pool *new_pool(unsigned thread_count)
{
    struct rq_pool *pool = NULL;
    check_eq(rq_pool_new(thread_count, "test", &pool), RQ_OK);
    trace_count = 0;
    return pool;
}

/* --- on one thread ---------------------------------------------------------------------------------------------------- */

static void carried_task_has_run_when_post_returns(void)
{
    struct rq_pool *pool = new_pool(1);
    struct rq_strand s;
    rq_strand_init(&s, pool, "s");
    struct note n = { { .run = write_down }, 7 };
    rq_strand_post(&s, &n.task, RQ_CARRY);
    check_eq(trace_count, 1);
    check_eq(trace[0], 7);
    check(!rq_strand_is_mine(&s));
    rq_strand_fini(&s);
    rq_pool_free(pool);
}

static struct rq_strand paused;
static struct note resumed = { { .run = write_down }, 2 };
static bool resumes_itself;

static void write_down_and_pause(struct rq_task *task)
{
    write_down(task);
    rq_strand_pause(&paused);
    if (resumes_itself) {
        rq_strand_resume(&paused, &resumed.task);
    }
}

static void paused_strand_stands_still_until_it_is_resumed(void)
{
    for (unsigned threads = 0; threads < 3; threads++) {
        struct rq_pool *pool = new_pool(threads);
        struct note pause = { { .run = write_down_and_pause }, 1 }, behind = { { .run = write_down }, 3 },
                    later = { { .run = write_down }, 4 };
        rq_strand_init(&paused, pool, "paused");
        resumes_itself = false;
        rq_strand_hold();
        rq_strand_post(&paused, &pause.task, RQ_CARRY);
        rq_strand_post(&paused, &behind.task, RQ_CARRY);
        rq_strand_let_go();
        while (rq_pool_run_one(pool)) {
        }
        rq_strand_post(&paused, &later.task, RQ_CARRY);
        check(!rq_pool_run_one(pool));
        check_eq(trace_count, 1);
        rq_strand_resume(&paused, &resumed.task);
        rq_pool_free(pool); /* runs what is queued */
        check_eq(trace_count, 4);
        for (int i = 0; i < 4; i++) {
            check_eq(trace[i], i + 1);
        }
        rq_strand_fini(&paused);
    }
}

static void strand_may_be_resumed_before_the_task_that_paused_it_has_returned(void)
{
    struct rq_pool *pool = new_pool(1);
    struct note pause = { { .run = write_down_and_pause }, 1 };
    rq_strand_init(&paused, pool, "paused");
    resumes_itself = true;
    rq_strand_post(&paused, &pause.task, RQ_CARRY);
    check_eq(trace_count, 2);
    check_eq(trace[1], 2);
    rq_strand_fini(&paused);
    rq_pool_free(pool);
}

static struct rq_strand outer, inner;
static struct note on_inner[2], on_outer;
static atomic_bool inner_ran;

static void say_inner_ran(struct rq_task *task)
{
    (void)task;
    atomic_store(&inner_ran, true);
}

/* As an apply that waits for space: it returns only when the strand it posted to was carried by somebody else. */
static void post_and_block(struct rq_task *task)
{
    (void)task;
    rq_strand_post(&inner, &on_inner[0].task, RQ_CARRY);
    rq_strand_will_block();
    while (!atomic_load(&inner_ran)) {
        sched_yield();
    }
}

static void task_that_blocks_holds_back_only_its_own_strand(void)
{
    struct rq_pool *pool = new_pool(1);
    rq_strand_init(&outer, pool, "outer");
    rq_strand_init(&inner, pool, "inner");
    atomic_store(&inner_ran, false);
    on_inner[0] = (struct note){ { .run = say_inner_ran }, 0 };
    on_outer = (struct note){ { .run = post_and_block }, 0 };
    rq_strand_post(&outer, &on_outer.task, RQ_CARRY);
    check(atomic_load(&inner_ran));
    rq_pool_free(pool);
    rq_strand_fini(&inner);
    rq_strand_fini(&outer);
}

static void post_inside(struct rq_task *task)
{
    (void)task;
    trace[trace_count++] = 1;
    rq_strand_post(&inner, &on_inner[0].task, RQ_CARRY);
    rq_strand_post(&outer, &on_outer.task, RQ_CARRY);
    rq_strand_post(&inner, &on_inner[1].task, RQ_CARRY);
    trace[trace_count++] = 2;
}

static void check_inner_alone(struct rq_task *task)
{
    trace[trace_count++] = rq_strand_is_mine(&inner) && !rq_strand_is_mine(&outer) && !outer.running ? 4 : -1;
    (void)task;
}

static void strand_posted_inside_runs_after_the_current_is_released(void)
{
    struct rq_pool *pool = new_pool(1);
    rq_strand_init(&outer, pool, "outer");
    rq_strand_init(&inner, pool, "inner");
    struct note first = { { .run = post_inside }, 0 };
    on_outer = (struct note){ { .run = write_down }, 3 };
    on_inner[0] = (struct note){ { .run = check_inner_alone }, 0 };
    on_inner[1] = (struct note){ { .run = write_down }, 5 };
    rq_strand_post(&outer, &first.task, RQ_CARRY);
    check_eq(trace_count, 5);
    for (int i = 0; i < 5; i++) {
        check_eq(trace[i], i + 1);
    }
    rq_strand_fini(&outer);
    rq_strand_fini(&inner);
    rq_pool_free(pool);
}

static void without_threads_tasks_run_in_order_of_posting(void)
{
    struct rq_pool *pool = new_pool(0);
    struct rq_strand a, b;
    rq_strand_init(&a, pool, "a");
    rq_strand_init(&b, pool, "b");
    struct note n[4];
    for (int i = 0; i < 4; i++) {
        n[i] = (struct note){ { .run = write_down }, i };
        rq_strand_post(i % 2 == 0 ? &a : &b, &n[i].task, i < 2 ? RQ_CARRY : RQ_HAND_OVER);
    }
    check_eq(trace_count, 0);
    for (int i = 0; i < 4; i++) {
        check(rq_pool_run_one(pool));
        check_eq(trace_count, i + 1);
        check_eq(trace[i], i);
    }
    check(!rq_pool_run_one(pool));
    rq_strand_fini(&a);
    rq_strand_fini(&b);
    rq_pool_free(pool);
}

/* --- with threads ------------------------------------------------------------------------------------------------------- */

static atomic_bool rest_ran;
static pthread_t rest_thread;

static void run_rest(struct rq_task *task)
{
    (void)task;
    rest_thread = pthread_self();
    atomic_store(&rest_ran, true);
}

static struct note rest = { { .run = run_rest }, 0 };

static void post_rest_and_yield(struct rq_task *task)
{
    (void)task;
    rq_strand_post(&outer, &rest.task, RQ_CARRY);
    rq_strand_yield(&outer);
}

static void yield_gives_the_rest_to_the_pool(void)
{
    struct rq_pool *pool = new_pool(1);
    rq_strand_init(&outer, pool, "outer");
    atomic_store(&rest_ran, false);
    struct note first = { { .run = post_rest_and_yield }, 0 };
    rq_strand_post(&outer, &first.task, RQ_CARRY);
    rq_pool_free(pool); /* finishes what is queued */
    check(atomic_load(&rest_ran));
    check(!pthread_equal(rest_thread, pthread_self()));
    rq_strand_fini(&outer);
}

static void chain_again(struct rq_task *task)
{
    struct note *n = (struct note *)task;
    rest_thread = pthread_self();
    n->id++;
    if (n->id < 1000) {
        rq_strand_post(&outer, task, RQ_CARRY);
    }
}

static void busy_strand_leaves_its_carrier(void)
{
    struct rq_pool *pool = new_pool(1);
    rq_strand_init(&outer, pool, "outer");
    struct note n = { { .run = chain_again }, 0 };
    rq_strand_post(&outer, &n.task, RQ_CARRY);
    rq_pool_free(pool);
    check_eq(n.id, 1000);
    check(!pthread_equal(rest_thread, pthread_self()));
    rq_strand_fini(&outer);
}

enum { STRANDS = 5, THREADS = 6, ROUNDS = 4000 };

static struct rq_strand strands[STRANDS];
static unsigned long counts[STRANDS]; /* no lock: the strand is the lock, tsan says whether it is */
static unsigned last_seen[STRANDS][THREADS];
static atomic_bool out_of_order;
static atomic_ulong freed;

struct hop {
    struct rq_task task;
    unsigned strand, hops_left, thread, round;
    bool first;
};

static void run_hop(struct rq_task *task)
{
    struct hop *h = (struct hop *)task;
    counts[h->strand]++;
    if (h->first) {
        if (h->round <= last_seen[h->strand][h->thread]) {
            atomic_store(&out_of_order, true);
        }
        last_seen[h->strand][h->thread] = h->round;
        h->first = false;
    }
    if (h->round % 7 == 0) {
        rq_strand_yield(&strands[h->strand]);
    }
    if (h->hops_left == 0) {
        free(h);
        atomic_fetch_add(&freed, 1);
        return;
    }
    h->hops_left--;
    h->strand = (h->strand + 1) % STRANDS;
    rq_strand_post(&strands[h->strand], &h->task, h->hops_left % 2 == 0 ? RQ_CARRY : RQ_HAND_OVER);
}

static void *post_many(void *arg)
{
    unsigned thread = (unsigned)(uintptr_t)arg;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        struct hop *h = malloc(sizeof *h);
        *h = (struct hop){ { .run = run_hop }, (thread + round) % STRANDS, 3, thread, round, true };
        rq_strand_post(&strands[h->strand], &h->task, round % 3 == 0 ? RQ_HAND_OVER : RQ_CARRY);
    }
    return NULL;
}

static void many_threads_lose_nothing_and_keep_order(void)
{
    struct rq_pool *pool = new_pool(2);
    for (int i = 0; i < STRANDS; i++) {
        rq_strand_init(&strands[i], pool, "s");
        counts[i] = 0;
    }
    atomic_store(&freed, 0);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        check_eq(pthread_create(&threads[i], NULL, post_many, (void *)i), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    while (atomic_load(&freed) < (unsigned long)THREADS * ROUNDS) {
        sched_yield();
    }
    rq_pool_free(pool);
    unsigned long sum = 0;
    for (int i = 0; i < STRANDS; i++) {
        sum += counts[i];
        rq_strand_fini(&strands[i]);
    }
    check_eq(sum, 4ul * THREADS * ROUNDS);
    check(!atomic_load(&out_of_order));
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(carried_task_has_run_when_post_returns),
        TAP(paused_strand_stands_still_until_it_is_resumed),
        TAP(strand_may_be_resumed_before_the_task_that_paused_it_has_returned),
        TAP(strand_posted_inside_runs_after_the_current_is_released),
        TAP(task_that_blocks_holds_back_only_its_own_strand),
        TAP(without_threads_tasks_run_in_order_of_posting),
        TAP(yield_gives_the_rest_to_the_pool),
        TAP(busy_strand_leaves_its_carrier),
        TAP(many_threads_lose_nothing_and_keep_order),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
