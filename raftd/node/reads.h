/* Reads: how far the log was committed when somebody asked, proven by the leader without a write.
 *
 * A round asks every other voter: are you still in my term?  Whoever is answers, from the loop, so after any higher term that it
 * took is on its disk.  When a majority has answered a round, no other leader had been elected when that round began: whatever was
 * committed by then is at or below the commit index that was noted at its beginning.  No clock is relied on.
 *
 * One round serves all who came before it began; who comes while one is under way is served by the next.  A round that gets no
 * majority within a heartbeat is followed by another, whose answers count for both.
 *
 * An answer repeats the question's term and number.  A term is led in one life only, which never uses a number twice: so an answer
 * can be taken for no other question's, however late it comes. */
#ifndef RAFTD_NODE_READS_H
#define RAFTD_NODE_READS_H

#include "raftd/node/core.h"

struct rq_reads {
    uint64_t round;    /* the newest that began; 0: none in this life */
    uint64_t term;     /* of that round and of what was answered */
    uint64_t index;    /* committed when it began */
    uint64_t asked_ms; /* when it began */
    struct {
        uint64_t id, round;
    } answered[RQ_MEMBERS_MAX]; /* the newest round that the voter has answered */
    unsigned answered_count;
    struct rq_node_read *first, **last; /* by round, not falling; last: NULL as long as nobody has ever waited */
};

void rq_reads_add(struct rq_reads *rs, struct rq_core *core, struct rq_node_read *r);
void rq_reads_receive(struct rq_reads *rs, struct rq_core *core, uint64_t from, const struct rq_round *round);
/* After every event: answers who can be answered, and begins the next round. */
void rq_reads_go_on(struct rq_reads *rs, struct rq_core *core);
uint64_t rq_reads_wake_ms(const struct rq_reads *rs, const struct rq_core *core);
void rq_reads_fini(struct rq_reads *rs); /* tells who waits */

#endif
