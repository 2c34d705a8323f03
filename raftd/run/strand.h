/* Strand: a queue of tasks that run one after another, never two at once, on whatever thread carries it.
 *
 * The node's loop, the log writer and each database are strands: what a strand owns needs no lock.  A wake-up of a sleeping
 * thread costs more than most tasks, so who brings work to an idle strand may CARRY it: run it on the own thread.  One commit
 * of one writer then goes through loop, log writer and apply without a single wake-up inside raftd.  HAND_OVER gives the strand
 * to a thread of the pool instead, for callers that must not wait for a disk.
 *
 * A post from inside a task never runs another strand on top of the current one: a carried strand runs when the current strand
 * is released, so no strand is ever held while another one works (the loop never waits for the log writer's disk).
 *
 * Without a pool (simulation, unit tests) strands run when rq_pool_run_one() is called, in the order of posting. */
#ifndef RAFTD_RUN_STRAND_H
#define RAFTD_RUN_STRAND_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"

/* Embedded in whatever describes the work; the strand borrows it until run is called, and never touches it after. */
struct rq_task {
    struct rq_task *next;
    void (*run)(struct rq_task *task);
};

enum rq_carry { RQ_CARRY, RQ_HAND_OVER };

struct rq_pool;

struct rq_strand {
    pthread_mutex_t lock;
    struct rq_task *first; /* guarded by lock, as the rest */
    struct rq_task *last;
    bool running; /* some thread carries it, the pool has it queued, or it is paused */
    bool paused;
    bool rests; /* paused, and the task that did it has returned */
    const char *name;
    struct rq_pool *pool;         /* borrows */
    struct rq_strand *next_ready; /* in the pool's queue, or in a thread's list of strands to carry */
};

void rq_strand_init(struct rq_strand *s, struct rq_pool *pool, const char *name);
void rq_strand_fini(struct rq_strand *s); /* must be empty and not running */
void rq_strand_post(struct rq_strand *s, struct rq_task *task, enum rq_carry how);

/* Nothing is queued, and nobody carries it; at some moment of the call. */
bool rq_strand_is_idle(struct rq_strand *s);

/* True on the thread that carries s now: for asserts. */
bool rq_strand_is_mine(const struct rq_strand *s);

/* How many strands the calling thread is to carry after the present one. */
unsigned rq_strand_waiting(void);

/* From inside a task: what is still queued goes to the pool once this task returns, so that the carrying thread can go on with
 * the result (the log writer does this after each batch). */
void rq_strand_yield(struct rq_strand *s);

/* From inside a task, which waits for something without keeping its thread: when it has returned, no other task of the strand runs
 * until rq_strand_resume(), by any thread, also before it has returned; then `task` is the first, carried by the pool. */
void rq_strand_pause(struct rq_strand *s);
void rq_strand_resume(struct rq_strand *s, struct rq_task *task);

/* Around a wait for something slow (a disk, space on it): strands that wait for this thread go to the pool, so that only the
 * strand of the task itself stands still; and what else the thread is there for (rq_strand_set_duty) is left to others. */
void rq_strand_will_block(void);
void rq_strand_goes_on(void); /* may be left out: the duty is taken up again when the thread comes back to it */

/* The calling thread has a duty between its tasks, of which only one thread is in charge: leave gives it away, take tries to get
 * it back. */
struct rq_duty {
    void (*leave)(void *ctx);
    void (*take)(void *ctx);
    void *ctx;
};
void rq_strand_set_duty(const struct rq_duty *duty); /* borrows */

/* What the calling thread posts between these two is carried at the end, all together: the log then writes once for all of it. */
void rq_strand_hold(void);
void rq_strand_let_go(void);

/* thread_count 0: no threads; rq_pool_run_one() runs the oldest ready strand's next task and says whether there was one. */
enum rq_err rq_pool_new(unsigned thread_count, const char *name, struct rq_pool **ret_pool);
void rq_pool_free(struct rq_pool *pool); /* finishes what is queued, joins the threads */
bool rq_pool_run_one(struct rq_pool *pool);
/* From now on rq_pool_run_one() takes any ready strand, as threads would, but repeatably. */
void rq_pool_shuffle(struct rq_pool *pool, uint64_t seed);
bool rq_pool_has_threads(const struct rq_pool *pool);

#endif
