/* Compare: a background scrub between members.  It finds what no member can find by itself: a replica that is whole, and wrong.
 *
 * The leader walks through all databases in passes, a slice of pages at a time: it has the log hold a MARK entry, so every member makes the
 * hashes of the slice at the very same state (marks.h).  Each then asks the voters for theirs and judges itself (verdict.h):
 *
 *   a majority says another page than ours     the database is quarantined here, and mended (mend.h), also on the leader
 *   a majority says another page than he has   he will find out; a line in the log
 *   no majority                                an error in the log, at every pass; nothing is changed
 *
 * A leader that is lost leaves off at a slice, and the next one goes on there.
 *
 * Any member that is in doubt about a page (doubts.h) has that one marked as well, at once, and again until a majority has told. */
#ifndef RAFTD_CLUSTER_COMPARE_H
#define RAFTD_CLUSTER_COMPARE_H

#include <stdint.h>

#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"

struct rq_cluster;
struct rq_compare;

/* every_ms: from the start of one pass to that of the next; 0: this member starts none, but takes part. */
enum rq_err rq_compare_new(struct rq_cluster *c, uint64_t every_ms, struct rq_compare **ret_compare);

/* On a database's strand: a mark to compare at is held, or there was none to be had. */
void rq_compare_marked(struct rq_compare *w, const struct rq_entry_mark *mark, uint64_t index);

struct rq_compare_stats {
    uint64_t passes;    /* that came to their end */
    uint64_t compared;  /* pages, with a majority at least */
    uint64_t wrong;     /* pages of this member that a majority had otherwise */
    uint64_t undecided; /* pages without a majority */
};
void rq_compare_stats(struct rq_compare *w, struct rq_compare_stats *ret_stats);

#endif
