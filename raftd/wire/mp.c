#include "raftd/wire/mp.h"

#include "raftd/wire/msg.h"

static int write_cb(void *writer, const char *data, size_t bytes)
{
    struct rq_mp_writer *w = writer;
    if (w->err == RQ_OK) {
        w->err = rq_bytes_put(w->out, data, bytes);
    }
    return w->err == RQ_OK ? 0 : -1;
}

void rq_mp_write_begin(struct rq_mp_writer *w, struct rq_bytes *out, uint32_t array_count)
{
    w->out = out;
    w->err = RQ_OK;
    msgpack_packer_init(&w->packer, w, write_cb);
    (void)msgpack_pack_array(&w->packer, array_count); /* errors stay in w->err, here and below */
}

void rq_mp_put_uint(struct rq_mp_writer *w, uint64_t v)
{
    (void)msgpack_pack_uint64(&w->packer, v);
}

void rq_mp_put_u32_fixed(struct rq_mp_writer *w, uint32_t v)
{
    (void)msgpack_pack_fix_uint32(&w->packer, v);
}

void rq_mp_put_bool(struct rq_mp_writer *w, bool v)
{
    (void)(v ? msgpack_pack_true(&w->packer) : msgpack_pack_false(&w->packer));
}

void rq_mp_put_str(struct rq_mp_writer *w, const char *data, uint32_t bytes)
{
    (void)msgpack_pack_str(&w->packer, bytes);
    (void)msgpack_pack_str_body(&w->packer, data, bytes);
}

void rq_mp_put_text(struct rq_mp_writer *w, struct rq_str text)
{
    uint32_t bytes = text.bytes;
    if (bytes > RQ_TEXT_MAX) {
        bytes = RQ_TEXT_MAX;
        while (bytes > 0 && ((uint8_t)text.data[bytes] & 0xc0u) == 0x80u) {
            bytes--; /* what would be cut off begins in the middle of a character */
        }
    }
    rq_mp_put_str(w, text.data, bytes);
}

void rq_mp_put_bin_head(struct rq_mp_writer *w, uint32_t bytes)
{
    (void)msgpack_pack_bin(&w->packer, bytes);
}

void rq_mp_put_bin(struct rq_mp_writer *w, const uint8_t *data, uint32_t bytes)
{
    rq_mp_put_bin_head(w, bytes);
    (void)msgpack_pack_bin_body(&w->packer, data, bytes);
}

void rq_mp_write_fail(struct rq_mp_writer *w, enum rq_err err)
{
    if (w->err == RQ_OK) {
        w->err = err;
    }
}

void rq_mp_read_fail(struct rq_mp_reader *r, enum rq_err err)
{
    if (r->err == RQ_OK) {
        r->err = err;
    }
}

/* Big-endian number of so many bytes; 0 after an error. */
static uint64_t take_number(struct rq_mp_reader *r, unsigned bytes)
{
    if (r->err != RQ_OK || (size_t)(r->end - r->next) < bytes) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
        return 0;
    }
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++) {
        v = v << 8 | *r->next++;
    }
    return v;
}

static const uint8_t *take_bytes(struct rq_mp_reader *r, uint64_t bytes, uint32_t bytes_max, uint32_t *ret_bytes)
{
    *ret_bytes = 0;
    if (r->err != RQ_OK || bytes > bytes_max || bytes > (uint64_t)(r->end - r->next)) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
        return NULL;
    }
    const uint8_t *data = r->next;
    r->next += bytes;
    *ret_bytes = (uint32_t)bytes;
    return data;
}

void rq_mp_read_begin(struct rq_mp_reader *r, const uint8_t *data, size_t bytes)
{
    size_t object_bytes = 0;
    enum rq_err err = rq_mp_check(data, bytes, &object_bytes);
    *r = (struct rq_mp_reader){ .next = data, .end = data + object_bytes, .err = err };
    uint8_t type = (uint8_t)take_number(r, 1);
    if (type == 0xdc || type == 0xdd) {
        (void)take_number(r, type == 0xdc ? 2 : 4); /* the count: the check has walked so many elements up to end */
    } else if ((type & 0xf0u) != 0x90u) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
}

enum rq_err rq_mp_read_end(struct rq_mp_reader *r)
{
    if (r->next != r->end) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return r->err;
}

uint64_t rq_mp_get_uint(struct rq_mp_reader *r, uint64_t min, uint64_t max)
{
    uint64_t v = take_number(r, 1);
    if (v >= 0xcc && v <= 0xcf) {
        v = take_number(r, 1u << (v - 0xcc));
    } else if (v > 0x7f) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    if (v < min || v > max) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return r->err == RQ_OK ? v : 0;
}

bool rq_mp_get_bool(struct rq_mp_reader *r)
{
    uint64_t type = take_number(r, 1);
    if (type != 0xc2 && type != 0xc3) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return type == 0xc3;
}

const char *rq_mp_get_str(struct rq_mp_reader *r, uint32_t bytes_max, uint32_t *ret_bytes)
{
    uint64_t bytes = take_number(r, 1);
    if (bytes >= 0xa0 && bytes <= 0xbf) {
        bytes &= 0x1fu;
    } else if (bytes >= 0xd9 && bytes <= 0xdb) {
        bytes = take_number(r, 1u << (bytes - 0xd9));
    } else {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return (const char *)take_bytes(r, bytes, bytes_max, ret_bytes);
}

const uint8_t *rq_mp_get_bin(struct rq_mp_reader *r, uint32_t bytes_max, uint32_t *ret_bytes)
{
    uint64_t bytes = take_number(r, 1);
    if (bytes >= 0xc4 && bytes <= 0xc6) {
        bytes = take_number(r, 1u << (bytes - 0xc4));
    } else {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return take_bytes(r, bytes, bytes_max, ret_bytes);
}
