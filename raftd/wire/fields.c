#include "raftd/wire/fields.h"

/* --- writing ------------------------------------------------------------------------------------------------------------- */

void rq_fields_put(struct rq_fields_writer *w, const void *data, size_t bytes)
{
    if (w->err == RQ_OK) {
        w->err = rq_bytes_put(w->out, data, bytes);
    }
}

void rq_fields_put_u8(struct rq_fields_writer *w, uint8_t v)
{
    rq_fields_put(w, &v, sizeof v);
}

void rq_fields_put_u16(struct rq_fields_writer *w, uint16_t v)
{
    uint8_t b[2];
    rq_put_u16(b, v);
    rq_fields_put(w, b, sizeof b);
}

void rq_fields_put_u32(struct rq_fields_writer *w, uint32_t v)
{
    uint8_t b[4];
    rq_put_u32(b, v);
    rq_fields_put(w, b, sizeof b);
}

void rq_fields_put_u64(struct rq_fields_writer *w, uint64_t v)
{
    uint8_t b[8];
    rq_put_u64(b, v);
    rq_fields_put(w, b, sizeof b);
}

void rq_fields_put_block(struct rq_fields_writer *w, const void *data, size_t bytes)
{
    rq_fields_put_u32(w, (uint32_t)bytes);
    rq_fields_put(w, data, bytes);
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */

const uint8_t *rq_fields_take(struct rq_fields_reader *r, size_t bytes)
{
    if (r->short_of || r->left < bytes) {
        r->short_of = true;
        return NULL;
    }
    const uint8_t *p = r->at;
    r->at += bytes;
    r->left -= bytes;
    return p;
}

uint8_t rq_fields_take_u8(struct rq_fields_reader *r)
{
    const uint8_t *p = rq_fields_take(r, 1);
    return p != NULL ? *p : 0;
}

uint16_t rq_fields_take_u16(struct rq_fields_reader *r)
{
    const uint8_t *p = rq_fields_take(r, 2);
    return p != NULL ? rq_get_u16(p) : 0;
}

uint32_t rq_fields_take_u32(struct rq_fields_reader *r)
{
    const uint8_t *p = rq_fields_take(r, 4);
    return p != NULL ? rq_get_u32(p) : 0;
}

uint64_t rq_fields_take_u64(struct rq_fields_reader *r)
{
    const uint8_t *p = rq_fields_take(r, 8);
    return p != NULL ? rq_get_u64(p) : 0;
}

const uint8_t *rq_fields_take_block(struct rq_fields_reader *r, size_t *ret_bytes)
{
    *ret_bytes = rq_fields_take_u32(r);
    return rq_fields_take(r, *ret_bytes);
}
