#include "ext/fate.h"

void rq_fate_sent(struct rq_fate *f)
{
    f->may_have_arrived = true;
}

enum rq_err rq_fate_unsent(const struct rq_fate *f, enum rq_err err)
{
    return f->may_be_on_its_way && err != RQ_OK && err != RQ_REFUSED ? RQ_UNKNOWN : err;
}

bool rq_fate_outcome(const struct rq_fate *f, enum rq_err outcome, enum rq_err *ret_err)
{
    if (outcome == RQ_UNKNOWN || outcome == RQ_SHUTDOWN || outcome == RQ_NOTFOUND) {
        return false; /* raftd cannot tell, or not yet */
    }
    *ret_err = rq_fate_unsent(f, outcome);
    return true;
}

/* Whatever else it says, it says about the question and not about the transaction. */
bool rq_fate_asked(struct rq_fate *f, enum rq_err outcome, enum rq_err *ret_err)
{
    if (outcome == RQ_NOTFOUND) {
        f->may_have_arrived = false;
        f->may_be_on_its_way = true;
    }
    *ret_err = outcome;
    return outcome == RQ_OK || outcome == RQ_REFUSED;
}

enum rq_err rq_fate_out_of_time(const struct rq_fate *f)
{
    return f->may_have_arrived || f->may_be_on_its_way ? RQ_UNKNOWN : RQ_AWAY;
}
