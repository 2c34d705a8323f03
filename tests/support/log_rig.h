/* Log rig: entries whose bytes follow from index and term, and the calls of a log as a test wants them. */
#ifndef TESTS_SUPPORT_LOG_RIG_H
#define TESTS_SUPPORT_LOG_RIG_H

#include <stdlib.h>

#include "raftd/log/log.h"
#include "tests/support/seeded.h"

#define RIG_INSTANCE 0x1122334455667788u

static inline void rig_fill(uint8_t *data, size_t bytes, uint64_t index, uint64_t term)
{
    uint64_t seed = index * 1000003 + term;
    seeded_fill(&seed, data, bytes);
}

static inline struct rq_log_entry rig_entry(uint64_t index, uint64_t term, size_t bytes)
{
    struct rq_log_entry e = { .index = index, .term = term, .type = (uint16_t)(1 + index % 7) };
    if (bytes > 0) {
        e.blob = rq_blob_new(bytes);
        rig_fill(e.blob->data, bytes, index, term);
    }
    return e;
}

/* Reserves, appends one entry, gives up the own reference. */
static inline enum rq_err rig_append(struct rq_log *log, uint64_t index, uint64_t term, size_t bytes,
                                     uint64_t committed)
{
    enum rq_err err = rq_log_reserve(log, bytes, 1);
    if (err == RQ_OK) {
        struct rq_log_entry e = rig_entry(index, term, bytes);
        err = rq_log_append(log, &e, 1, committed);
        rq_blob_unref(e.blob);
    }
    return err;
}

/* Is the entry there, with this term and these bytes? */
static inline bool rig_holds(struct rq_log *log, uint64_t index, uint64_t term, size_t bytes)
{
    struct rq_log_entry e;
    if (rq_log_term_at(log, index) != term || rq_log_get(log, index, &e) != RQ_OK) {
        return false;
    }
    struct rq_log_entry want = rig_entry(index, term, bytes);
    bool same = e.index == index && e.term == term && e.type == want.type && (e.blob == NULL) == (bytes == 0) &&
                (bytes == 0 || (e.blob->bytes == bytes && memcmp(e.blob->data, want.blob->data, bytes) == 0));
    rq_blob_unref(e.blob);
    rq_blob_unref(want.blob);
    return same;
}

static inline enum rq_err rig_open(struct rq_disk *disk, const char *dir, bool create, uint64_t segment_bytes,
                                   uint64_t cache_bytes, struct rq_log **ret_log, struct rq_log_found *ret_found)
{
    struct rq_log_config config = {
        .disk = disk,
        .dir = dir,
        .instance = RIG_INSTANCE,
        .segment_bytes = segment_bytes,
        .cache_bytes = cache_bytes,
        .create = create,
        .first_index = create ? 1 : 0,
    };
    return rq_log_open(&config, ret_log, ret_found);
}

#endif
