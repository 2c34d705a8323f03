/* Pace: bulk work beside commits.  It is done in small pieces; while others are at work a rest follows each piece that is so many
 * times as long as the piece took, so the work gets a fixed share of what the machine can do just now, and without others all of it.
 *
 *   rq_pace_begin(p); ... a piece, no waiting for anybody else ... rq_pace_end(p, others are at work); */
#ifndef RAFTD_RUN_PACE_H
#define RAFTD_RUN_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define RQ_PACE_RESTS   3u   /* a quarter of the time is for the work */
#define RQ_PACE_REST_MS 250u /* at most, at once */

struct rq_pace {
    uint64_t began_ns;
};

void rq_pace_begin(struct rq_pace *p);
void rq_pace_end(struct rq_pace *p, bool others_work); /* rests */

/* The rest after a piece that took so long. */
uint64_t rq_pace_rest_ns(uint64_t piece_ns, bool others_work);

#endif
