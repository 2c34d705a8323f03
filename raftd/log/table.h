/* Table: what is known of each entry of the log, by its index; and the newest entries' bytes, within a limit.
 *
 * A ring: the slot of an index is its place modulo the capacity.  Guarded by the lock of who holds it. */
#ifndef RAFTD_LOG_TABLE_H
#define RAFTD_LOG_TABLE_H

#include "raftd/log/log.h"

struct rq_log_known {
    struct rq_blob *blob; /* shares; NULL: read it from the segment */
    uint64_t term;
    uint64_t segment; /* number; 0: not written yet */
    uint32_t offset;  /* of the record's header */
    uint32_t bytes;
    uint16_t type;
};

struct rq_log_table {
    struct rq_log_known *ring; /* owns */
    uint64_t capacity;         /* a power of two, or 0 */
    uint64_t first, last;      /* last == first - 1: empty */
    uint64_t cache_first;      /* entries from here on have their bytes in memory */
    uint64_t cache_bytes;
};

void rq_log_table_fini(struct rq_log_table *t);
/* Room for so many more entries. */
enum rq_err rq_log_table_reserve(struct rq_log_table *t, uint64_t more);
/* At last + 1, in room that was reserved.  Takes known->blob. */
void rq_log_table_push(struct rq_log_table *t, const struct rq_log_known *known);
/* NULL: not in the log. */
struct rq_log_known *rq_log_table_at(const struct rq_log_table *t, uint64_t index);
void rq_log_table_cut(struct rq_log_table *t, uint64_t index);        /* that one and all behind go */
void rq_log_table_drop_front(struct rq_log_table *t, uint64_t first); /* all in front of first go */
void rq_log_table_restart(struct rq_log_table *t, uint64_t first);    /* empty, next index first */
void rq_log_table_shrink_cache(struct rq_log_table *t, uint64_t bytes_max, uint64_t needed_from);

#endif
