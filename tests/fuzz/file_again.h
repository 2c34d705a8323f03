/* File again: for targets whose file is read whole: what is taken is written again as the very same bytes. */
#ifndef TESTS_FUZZ_FILE_AGAIN_H
#define TESTS_FUZZ_FILE_AGAIN_H

#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/support/small_replica.h"

#define RAFT "/data/raft"

static inline struct record_disk *disk_with(const char *path, const uint8_t *data, size_t bytes)
{
    struct record_disk *d = record_disk_new();
    record_disk_mkdir_p(d, RAFT);
    small_file_write(d, path, data, bytes);
    return d;
}

static inline void must_hold(struct record_disk *d, const char *path, const uint8_t *data, size_t bytes)
{
    struct rq_bytes again;
    rq_bytes_init(&again, 1 << 20);
    small_file_read(d, path, &again);
    MUST(again.size == bytes && (bytes == 0 || memcmp(again.data, data, bytes) == 0)); /* memcmp takes no NULL */
    rq_bytes_fini(&again);
}

#endif
