/* Bytes: a growable buffer with a hard maximum, and a bounds-checked cursor.  Integers are big-endian. */
#ifndef RAFTD_WIRE_BYTES_H
#define RAFTD_WIRE_BYTES_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"

struct rq_bytes {
    uint8_t *data; /* owns */
    size_t size;
    size_t capacity;
    size_t size_max;
};

void rq_bytes_init(struct rq_bytes *b, size_t size_max);
void rq_bytes_fini(struct rq_bytes *b);
/* Room for n more bytes behind size: NOMEM, or TOOBIG past size_max. */
enum rq_err rq_bytes_reserve(struct rq_bytes *b, size_t n);
enum rq_err rq_bytes_put(struct rq_bytes *b, const void *data, size_t n);

static inline void rq_put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void rq_put_u32(uint8_t *p, uint32_t v)
{
    rq_put_u16(p, (uint16_t)(v >> 16));
    rq_put_u16(p + 2, (uint16_t)v);
}
static inline void rq_put_u64(uint8_t *p, uint64_t v)
{
    rq_put_u32(p, (uint32_t)(v >> 32));
    rq_put_u32(p + 4, (uint32_t)v);
}
static inline uint16_t rq_get_u16(const uint8_t *p)
{
    return (uint16_t)((unsigned)p[0] << 8 | p[1]);
}
static inline uint32_t rq_get_u32(const uint8_t *p)
{
    return (uint32_t)rq_get_u16(p) << 16 | rq_get_u16(p + 2);
}
static inline uint64_t rq_get_u64(const uint8_t *p)
{
    return (uint64_t)rq_get_u32(p) << 32 | rq_get_u32(p + 4);
}

#endif
