/* Awake: a wait for an answer that is only some hundred microseconds away, without going to sleep.
 *
 * Where a processor without work halts, which all of them do in virtual machines, to wake the application up takes a third as long as
 * the sync of the log that it waits for.  So it looks again and again, and lets everybody else who wants its processor go first.  That
 * is worth while as long as the answer is found in this way: after each wait in vain (it took longer, or others had work for the
 * processor) twice as many waits are slept through as after the one before, until nearly all succeed.  A process that has a single processor always sleeps,
 * and so does one with RQVFS_AWAKE=0 in its environment. */
#ifndef EXT_AWAKE_H
#define EXT_AWAKE_H

#include <stdbool.h>

#define RQ_AWAKE_NS 400000u /* a wait takes no longer */
#define RQ_AWAKE_AWAY_NS \
    30000u                   /* others have had the processor for that long: it does not halt, one may as well sleep */
#define RQ_AWAKE_ASLEEP 512u /* at most so many waits are slept through */
#define RQ_AWAKE_TRUST  16u  /* so many waits with success make up for one in vain */

struct rq_awake {
    bool never;
    unsigned in_vain; /* the next wait in vain costs a sleep of 2 to the power of this */
    unsigned in_time; /* waits with success since the last one that counted, or the last in vain */
    unsigned asleep;  /* so many waits are still to be slept through */
};

void rq_awake_init(struct rq_awake *a);

/* True: fd is readable, or broken, which the next call on it tells.  False: go to sleep. */
bool rq_awake_wait(struct rq_awake *a, int fd);

/* The decision, as rq_awake_wait() takes it: whether this wait is one to stay awake for, and what came of it. */
bool rq_awake_begin(struct rq_awake *a);
void rq_awake_end(struct rq_awake *a, bool in_time);

#endif
