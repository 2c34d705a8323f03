/* Segments: files of a fixed size, written once with zeros before their first use and used again when their entries are not
 * needed any more.  (Space that is allocated but never written halves the rate of syncs.)
 *
 * A file raft/log/<id>.seg keeps its name for life; what it is stands in its first sector.  It gets its name when it is a whole
 * spare.  A used one becomes a spare again oldest first, each durable before the next: so the numbers of used ones have no gap. */
#ifndef RAFTD_LOG_SEGMENT_H
#define RAFTD_LOG_SEGMENT_H

#include "raftd/log/format.h"
#include "vfs/disk.h"

#define RQ_LOG_SEGMENT_BYTES_MIN 4096u
#define RQ_LOG_SEGMENT_BYTES_MAX (1u << 30)

struct rq_log_dir {
    struct rq_disk *disk; /* borrows */
    char *path;           /* owns: raft/log */
    uint64_t instance;
    uint64_t id_last; /* of the files */
};

struct rq_log_segment {
    struct rq_log_segment *next; /* in a list of spares or of released ones */
    uint64_t id;
    uint64_t number;
    uint64_t bytes;
    struct rq_file *writer; /* synced writes; NULL: not opened */
    struct rq_file *reader; /* unaligned reads, through the page cache */
};

/* A spare of zeros, durable under its name. */
enum rq_err rq_log_segment_make(struct rq_log_dir *dir, uint64_t bytes, struct rq_log_segment **ret_segment);
/* One that is there, for reading; and what its first sector says (CORRUPT, VERSION, FOREIGN: *ret_segment is set for OK only). */
enum rq_err rq_log_segment_open(struct rq_log_dir *dir, uint64_t id, struct rq_log_segment **ret_segment,
                                struct rq_log_segment_head *ret_head);
enum rq_err rq_log_segment_open_writer(struct rq_log_dir *dir, struct rq_log_segment *s);
void rq_log_segment_close_writer(struct rq_log_segment *s);
/* The first sector, synced. */
enum rq_err rq_log_segment_put_head(struct rq_log_dir *dir, struct rq_log_segment *s,
                                    const struct rq_log_segment_head *head);
/* Unlinks and frees. */
enum rq_err rq_log_segment_remove(struct rq_log_dir *dir, struct rq_log_segment *s);
void rq_log_segment_free(struct rq_log_segment *s);

#endif
