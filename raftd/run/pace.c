#include "raftd/run/pace.h"

#include <time.h>

#include "raftd/run/clock.h"

void rq_pace_begin(struct rq_pace *p)
{
    p->began_ns = rq_clock_ns();
}

uint64_t rq_pace_rest_ns(uint64_t piece_ns, bool others_work)
{
    const uint64_t most = RQ_PACE_REST_MS * 1000000ull;
    if (!others_work) {
        return 0;
    }
    return piece_ns > most / RQ_PACE_RESTS ? most : piece_ns * RQ_PACE_RESTS;
}

void rq_pace_end(struct rq_pace *p, bool others_work)
{
    const uint64_t rest_ns = rq_pace_rest_ns(rq_clock_ns() - p->began_ns, others_work);
    if (rest_ns > 0) {
        const struct timespec rest = { (time_t)(rest_ns / 1000000000u), (long)(rest_ns % 1000000000u) };
        (void)nanosleep(&rest, NULL);
    }
}
