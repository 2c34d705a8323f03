/* Verdict: several members say what pages of one database are, at one place of the log.  Who is right?
 *
 * What more than half of all voters say.  Only voters count; who does not answer, or is fenced, says nothing, and so is on nobody's
 * side: two of three that agree are right whatever the third one says, one of three never is. */
#ifndef RAFTD_CLUSTER_VERDICT_H
#define RAFTD_CLUSTER_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

struct rq_opinion {
    bool votes;
    const uint64_t *hashes; /* borrows; NULL: says nothing */
    uint32_t count;         /* pages from there on there are none */
};

/* Of one page.  needed: so many votes make it so.  False: no content has them. */
bool rq_verdict_page(const struct rq_opinion *opinions, unsigned count, uint32_t page, unsigned needed,
                     uint64_t *ret_hash);

/* Is that what it says? */
bool rq_verdict_agrees(const struct rq_opinion *opinion, uint32_t page, uint64_t hash);

struct rq_verdict {
    uint32_t wrong_here,
        first_wrong_here;                /* pages of opinion 0 that are not what a majority says; offset of the first */
    uint32_t undecided, first_undecided; /* pages on which opinions differ, and no majority is for any */
    uint64_t wrong_elsewhere;            /* members, a bit each, that have other pages than a majority says */
};

/* Opinion 0 is our own.  voters: how many there are in all; at most 64 opinions. */
void rq_verdict(const struct rq_opinion *opinions, unsigned count, unsigned voters, struct rq_verdict *ret_verdict);

#endif
