/* Blob: counted, immutable bytes: a log entry's data, shared by log writer, cache, peers and apply. */
#ifndef RAFTD_RUN_BLOB_H
#define RAFTD_RUN_BLOB_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct rq_blob {
    atomic_uint refs;
    size_t bytes;
    uint8_t data[]; /* filled by who made it, before it is shared */
};

struct rq_blob *rq_blob_new(size_t bytes); /* one reference; NULL without memory */
struct rq_blob *rq_blob_ref(struct rq_blob *b);
void rq_blob_unref(struct rq_blob *b); /* NULL is fine */

#endif
