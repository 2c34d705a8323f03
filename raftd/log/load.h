/* Load: from the files to what the log holds, and nothing that is not on the medium when it is done.
 *
 * Every batch was synced before the next one began, and one segment before the next.  So the first bad record is
 * - corruption, if anything of this segment's life was begun behind its place, or a later segment is in use;
 * - else the torn tail of a batch that was never reported: cut.
 * For the same reason only the last batch can be in a page cache alone: it is written again, with the segment's header; so are
 * the headers of spares, and the directory is synced. */
#ifndef RAFTD_LOG_LOAD_H
#define RAFTD_LOG_LOAD_H

#include "raftd/log/segment.h"
#include "raftd/log/table.h"

struct rq_log_loaded {
    struct rq_log_segment **used; /* owns; by number, the last one is written to */
    size_t used_count;
    struct rq_log_segment *spares; /* owns */
    struct rq_log_table table;     /* owns; no bytes in memory */
    uint64_t chain;                /* of the last record */
    uint32_t frontier;             /* in the last segment: where the next batch goes */
    uint64_t committed;
    uint64_t cut_bytes;
};

/* NOTFOUND: no segment is in use. */
enum rq_err rq_log_load(struct rq_log_dir *dir, struct rq_log_loaded *ret_loaded, char *problem, size_t problem_bytes);
void rq_log_loaded_fini(struct rq_log_loaded *l);

/* Removes what a founding that died has left.  EXISTS when a log is there, even a damaged one. */
enum rq_err rq_log_clear_founding(struct rq_log_dir *dir);

#endif
