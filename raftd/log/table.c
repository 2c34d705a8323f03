#include "raftd/log/table.h"

#include <stdlib.h>

#define CAPACITY_MIN 1024u

static struct rq_log_known *slot(const struct rq_log_table *t, uint64_t index)
{
    return &t->ring[index & (t->capacity - 1)];
}

static void forget_bytes(struct rq_log_table *t, struct rq_log_known *k)
{
    if (k->blob != NULL) {
        t->cache_bytes -= k->blob->bytes;
        rq_blob_unref(k->blob);
        k->blob = NULL;
    }
}

void rq_log_table_fini(struct rq_log_table *t)
{
    if (t->ring != NULL) {
        rq_log_table_cut(t, t->first);
    }
    free(t->ring);
    t->ring = NULL;
    t->capacity = 0;
}

enum rq_err rq_log_table_reserve(struct rq_log_table *t, uint64_t more)
{
    uint64_t count = t->last + 1 - t->first, capacity = t->capacity == 0 ? CAPACITY_MIN : t->capacity;
    while (capacity < count + more) {
        capacity *= 2;
    }
    if (capacity == t->capacity) {
        return RQ_OK;
    }
    struct rq_log_known *ring = calloc(capacity, sizeof *ring);
    if (ring == NULL) {
        return RQ_NOMEM;
    }
    for (uint64_t i = t->first; i <= t->last; i++) {
        ring[i & (capacity - 1)] = *slot(t, i);
    }
    free(t->ring);
    t->ring = ring;
    t->capacity = capacity;
    return RQ_OK;
}

void rq_log_table_push(struct rq_log_table *t, const struct rq_log_known *known)
{
    t->last++;
    *slot(t, t->last) = *known;
    if (known->blob != NULL) {
        t->cache_bytes += known->blob->bytes;
    } else if (known->bytes > 0) {
        t->cache_first = t->last + 1;
    }
}

struct rq_log_known *rq_log_table_at(const struct rq_log_table *t, uint64_t index)
{
    return index >= t->first && index <= t->last ? slot(t, index) : NULL;
}

void rq_log_table_cut(struct rq_log_table *t, uint64_t index)
{
    for (; t->last >= index; t->last--) {
        forget_bytes(t, slot(t, t->last));
    }
    if (t->cache_first > t->last + 1) {
        t->cache_first = t->last + 1;
    }
}

void rq_log_table_drop_front(struct rq_log_table *t, uint64_t first)
{
    for (; t->first < first; t->first++) {
        forget_bytes(t, slot(t, t->first));
    }
    if (t->cache_first < t->first) {
        t->cache_first = t->first;
    }
}

void rq_log_table_restart(struct rq_log_table *t, uint64_t first)
{
    if (t->ring != NULL) {
        rq_log_table_cut(t, t->first);
    }
    t->first = t->cache_first = first;
    t->last = first - 1;
}

void rq_log_table_shrink_cache(struct rq_log_table *t, uint64_t bytes_max, uint64_t needed_from)
{
    while (t->cache_bytes > bytes_max && t->cache_first < needed_from) {
        forget_bytes(t, slot(t, t->cache_first));
        t->cache_first++;
    }
}
