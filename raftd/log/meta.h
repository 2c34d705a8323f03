/* Meta: term and vote, in two slots of the file raft/meta.
 *
 * Each change is written and synced to one slot, then to the other.  So one slot that is bad costs nothing: the other holds the
 * newest change that was reported done, or one that was not yet. */
#ifndef RAFTD_LOG_META_H
#define RAFTD_LOG_META_H

#include "raftd/log/format.h"
#include "vfs/disk.h"

struct rq_log_meta {
    struct rq_file *file; /* owns */
    struct rq_log_slot slot;
    uint8_t *sector; /* owns; aligned */
};

/* A new file with term and vote 0, under its name and durable on return. */
enum rq_err rq_log_meta_create(struct rq_disk *disk, const char *dir, uint64_t instance);
/* Reads, then writes both slots again and syncs the directory: what is returned is on the medium.  problem says what is wrong. */
enum rq_err rq_log_meta_open(struct rq_log_meta *m, struct rq_disk *disk, const char *dir, uint64_t instance,
                             char *problem, size_t problem_bytes);
void rq_log_meta_close(struct rq_log_meta *m);
enum rq_err rq_log_meta_put(struct rq_log_meta *m, uint64_t term, uint64_t vote);

#endif
