#include "raftd/run/blob.h"

#include <stdlib.h>

struct rq_blob *rq_blob_new(size_t bytes)
{
    if (bytes > SIZE_MAX - sizeof(struct rq_blob)) {
        return NULL;
    }
    struct rq_blob *b = malloc(sizeof *b + bytes);
    if (b != NULL) {
        atomic_init(&b->refs, 1);
        b->bytes = bytes;
    }
    return b;
}

struct rq_blob *rq_blob_ref(struct rq_blob *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void rq_blob_unref(struct rq_blob *b)
{
    /* Release: our reads of the data come before the free, which another thread may do; acquire: in the one that does. */
    if (b != NULL && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1) {
        free(b);
    }
}
