/* Fate: what an application knows of one COMMIT while connections break and raftd's die.
 *
 *      send ---------- all handed to the kernel ----------> wait for OUTCOME ---> committed, refused, or not passed on
 *       ^ |                                                      |
 *       | | broke before: cannot have arrived                    | broke, or raftd does not know
 *       | v                                                      v
 *      connect <------------ NOTFOUND: never arrived ---------- connect, ASK ---> committed, refused
 *       |                                                        |
 *       v out of time                                            v out of time
 *      AWAY                                                     UNKNOWN
 *
 * NOTFOUND is certain: a connection breaks because raftd ended, or because raftd closed it, and raftd takes up nothing from a
 * connection that it has closed.  (Who closes one with a COMMIT in it does so only out of time, and then asks no more.)  But a raftd
 * that was started anew does not know what its former life had sent to the leader, which may commit it yet.  To send it again is
 * harmless, as it has the same origin and base, so that it can be applied only once; but only the state machine can say from then on
 * that it failed.
 *
 * Pure: who sends, asks and waits is ext/bridge.c, or the simulation. */
#ifndef EXT_FATE_H
#define EXT_FATE_H

#include <stdbool.h>

#include "raftd/wire/err.h"

/* All false: nothing was sent yet. */
struct rq_fate {
    bool may_have_arrived; /* and its OUTCOME was not heard: the next thing is to ASK; else it is to send */
    bool may_be_on_its_way;
};

/* All of it was handed over. */
void rq_fate_sent(struct rq_fate *f);
/* It was not handed over, for a reason of this side: what the application is told. */
enum rq_err rq_fate_unsent(const struct rq_fate *f, enum rq_err err);
/* The OUTCOME of COMMIT.  True: it is known, and *ret_err is what the application is told. */
bool rq_fate_outcome(const struct rq_fate *f, enum rq_err outcome, enum rq_err *ret_err);
/* The OUTCOME of ASK.  True: as above. */
bool rq_fate_asked(struct rq_fate *f, enum rq_err outcome, enum rq_err *ret_err);
/* There is no more time: what the application is told. */
enum rq_err rq_fate_out_of_time(const struct rq_fate *f);

#endif
