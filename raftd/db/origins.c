#include "raftd/db/origins.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 16u

void rq_origins_init(struct rq_origins *o, uint64_t next)
{
    *o = (struct rq_origins){ .first = next, .next = next };
}

void rq_origins_fini(struct rq_origins *o)
{
    free(o->ring);
    o->ring = NULL;
}

static enum rq_err grow(struct rq_origins *o)
{
    uint32_t capacity = o->capacity == 0 ? CAPACITY_MIN : o->capacity * 2;
    struct rq_origin *ring = malloc(capacity * sizeof *ring);
    if (ring == NULL) {
        return RQ_NOMEM;
    }
    assert(o->capacity > 0 || o->first == o->next);
    for (uint64_t base = o->first; base < o->next; base++) {
        ring[base % capacity] = o->ring[base % o->capacity];
    }
    free(o->ring);
    o->ring = ring;
    o->capacity = capacity;
    return RQ_OK;
}

enum rq_err rq_origins_copy(const struct rq_origins *o, struct rq_origins *ret_copy)
{
    struct rq_origins copy = *o;
    if (o->capacity > 0) {
        copy.ring = malloc(o->capacity * sizeof *copy.ring);
        if (copy.ring == NULL) {
            return RQ_NOMEM;
        }
        memcpy(copy.ring, o->ring, o->capacity * sizeof *copy.ring);
    }
    *ret_copy = copy;
    return RQ_OK;
}

enum rq_err rq_origins_put(struct rq_origins *o, struct rq_origin origin)
{
    assert(o->next - o->first <= o->capacity);
    if (o->next - o->first == o->capacity) {
        if (o->capacity < RQ_ORIGINS_MAX) {
            enum rq_err err = grow(o);
            if (err != RQ_OK) {
                return err;
            }
        } else {
            o->first++;
        }
    }
    o->ring[o->next % o->capacity] = origin;
    o->next++;
    return RQ_OK;
}

void rq_origins_take_back(struct rq_origins *o)
{
    assert(o->next > o->first);
    o->next--;
}

bool rq_origins_find(const struct rq_origins *o, uint64_t base, struct rq_origin *ret_origin)
{
    if (base < o->first || base >= o->next) {
        return false;
    }
    *ret_origin = o->ring[base % o->capacity];
    return true;
}
