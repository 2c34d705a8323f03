/* Log: raft entries on disk, in preallocated and recycled segments.  Format: docs/file-format.md#log.
 *
 * Owns: raft/log/ and raft/meta (term and vote).
 * Threads: append, reserve, get, release, meta belong to the owner (the node's loop); rq_log_write runs on the log's own strand
 * and is the only place that blocks on the data's sync; rq_log_prepare runs anywhere.  A mutex inside joins them; it is never
 * held across a disk call.  Whoever waits for the disk in any of these has said rq_strand_will_block().
 * Any failed write or sync is returned as IO and is final: the caller ends the process.  Lack of space never shows here:
 * rq_log_reserve() was asked before.
 *
 * What is known to be synced is in the log itself: each record carries {index, term, chained hash, durable_upto, committed}.
 * A bad record above every durable_upto is a torn tail and is cut; one at or below is corruption (CORRUPT, with its place).
 * Opening writes everything behind the newest durable_upto again and syncs it, and term and vote likewise, before it returns:
 * what the core is told is on the disk, not only in a page cache that a dead process left behind. */
#ifndef RAFTD_LOG_LOG_H
#define RAFTD_LOG_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/run/blob.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

#define RQ_LOG_SPARES_MAX 2u

struct rq_log;

struct rq_log_entry {
    uint64_t index;
    uint64_t term;
    uint16_t type;        /* enum rq_entry_type */
    struct rq_blob *blob; /* counted; NULL: no bytes */
};

struct rq_log_config {
    struct rq_disk *disk;   /* borrows */
    const char *dir;        /* raft/ of the data directory; exists */
    uint64_t instance;      /* in every segment: a copied segment of another life is refused */
    uint64_t segment_bytes; /* default 16 MiB */
    uint64_t cache_bytes;   /* entries kept in memory for get; default 32 MiB */
    bool create;            /* found a new log; else a missing one is NOTFOUND */
    uint64_t first_index;   /* with create: index of the first entry to come, usually 1 */
};

/* What was found at opening. */
struct rq_log_found {
    uint64_t term, vote;
    uint64_t first_index; /* of the first entry kept; last_index + 1 when there is none */
    uint64_t last_index;
    uint64_t committed; /* newest value seen in a record: may be replayed at once */
    uint64_t cut_bytes; /* of a torn tail, for the log line */
    char problem[160];  /* for CORRUPT, VERSION, FOREIGN: what and where, in words */
};

/* With create: EXISTS when there is a log.  Else NOTFOUND when there is none; CORRUPT, VERSION, FOREIGN with the problem. */
enum rq_err rq_log_open(const struct rq_log_config *config, struct rq_log **ret_log, struct rq_log_found *ret_found);
void rq_log_close(struct rq_log *log);

/* Two syncs.  Durable on return.  Term never goes down, vote never changes within a term: asserted. */
enum rq_err rq_log_put_meta(struct rq_log *log, uint64_t term, uint64_t vote);

/* Space for this many payload bytes in so many entries is on the disk (segments are written once before use): FULL if not,
 * TOOBIG for what no segment can hold (rq_log_payload_bytes_max).  Makes a segment itself, and waits for the disk, when
 * rq_log_prepare() has not been there in time.
 * Reservations are used up by append; unused ones are given back with rq_log_unreserve. */
enum rq_err rq_log_reserve(struct rq_log *log, uint64_t bytes, unsigned entries);
void rq_log_unreserve(struct rq_log *log, uint64_t bytes, unsigned entries);

/* The largest payload of one entry: a segment, less its header and the record's. */
uint64_t rq_log_payload_bytes_max(const struct rq_log *log);

/* Ahead of need, on a background thread: turns released segments into spares and writes a new one when there is none, so that
 * the commit path never waits for zeros.  Wanted after start, and when a segment was begun or released.  FULL is no reason to
 * end; anything else is.  At most RQ_LOG_SPARES_MAX spares are kept. */
enum rq_err rq_log_prepare(struct rq_log *log);
bool rq_log_prepare_wanted(struct rq_log *log);

/* Queues entries for writing; an index at or below the last one cuts the log there first (in memory now, on disk in order).
 * Shares the blobs.  The next write carries committed in its records. */
enum rq_err rq_log_append(struct rq_log *log, const struct rq_log_entry *entries, unsigned count, uint64_t committed);

/* Writes everything queued as one batch and syncs it (as several where it does not fit into a segment or the buffer).  Returns
 * the highest index I such that everything up to I is durable and is still what the log holds (a cut that came meanwhile lowers
 * it; 0: nothing to report).  NOTFOUND: nothing was queued.  IO, NOMEM: final, the process ends. */
enum rq_err rq_log_write(struct rq_log *log, uint64_t *ret_durable_index);

/* Highest index that is durable and still what the log holds.  A cut lowers it at once: in the owner's context it is true, while
 * a result of rq_log_write may have been overtaken by a cut on its way to the owner. */
uint64_t rq_log_durable(const struct rq_log *log);
bool rq_log_write_pending(struct rq_log *log);

uint64_t rq_log_first(const struct rq_log *log);
uint64_t rq_log_last(const struct rq_log *log);
uint64_t rq_log_term_at(const struct rq_log *log, uint64_t index); /* 0: not in the log */

/* The entry, with a reference to its blob: from memory, else from the segments (blocks). */
enum rq_err rq_log_get(struct rq_log *log, uint64_t index, struct rq_log_entry *ret_entry);

/* The log is empty and its next entry is index + 1, whatever it holds: a descriptor that another member made stands for all up to
 * index.  Nothing is written: until the first new entry is durable, a start finds the old log (node.h: snapshot_installed).
 * Nothing may be reserved: the rest of the segment, which was counted on, is not written any more. */
enum rq_err rq_log_restart(struct rq_log *log, uint64_t index);

/* Entries up to index are not needed any more (a durable descriptor covers them): whole segments become free for
 * rq_log_prepare; the other entries stay.  An index above the last empties the log: the next entry is index + 1. */
enum rq_err rq_log_release(struct rq_log *log, uint64_t index);

struct rq_log_stats {
    uint64_t bytes;                   /* of segments that hold entries */
    uint64_t held;                    /* entries that can be read */
    uint64_t segments;                /* with the recycled ones */
    uint64_t writes;                  /* since the start: batches, each one sync */
    uint64_t entries;                 /* written since the start */
    uint64_t first_index, last_index; /* as rq_log_first() and rq_log_last() */
};
void rq_log_stats(const struct rq_log *log, struct rq_log_stats *ret_stats);

#endif
