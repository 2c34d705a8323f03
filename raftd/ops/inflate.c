#include "raftd/ops/inflate.h"

#include <limits.h>
#include <zlib.h>

#define PIECE_BYTES (64u << 10)
#define EITHER      (15 + 32) /* window bits: the largest, and gzip or zlib as it comes */

/* Room for more, twice what there was. */
static enum rq_err grow(struct rq_bytes *out, bool (*may_grow)(void *ctx, size_t bytes), void *ctx)
{
    size_t more = out->size < PIECE_BYTES ? PIECE_BYTES : out->size;
    more = more < out->size_max - out->size ? more : out->size_max - out->size;
    if (more == 0) {
        return RQ_TOOBIG;
    }
    const size_t before = out->capacity;
    enum rq_err err = rq_bytes_reserve(out, more);
    if (err == RQ_OK && out->capacity > before && !may_grow(ctx, out->capacity - before)) {
        err = RQ_NOMEM;
    }
    return err;
}

enum rq_err rq_inflate(const uint8_t *data, size_t bytes, struct rq_bytes *out,
                       bool (*may_grow)(void *ctx, size_t bytes), void *ctx)
{
    z_stream z = { 0 };
    enum rq_err err = RQ_OK;
    int code = Z_OK;
    if (inflateInit2(&z, EITHER) != Z_OK) {
        return RQ_NOMEM;
    }
    while (err == RQ_OK && code != Z_STREAM_END) {
        if (out->size == out->capacity) {
            err = grow(out, may_grow, ctx);
            continue;
        }
        const size_t room = out->capacity - out->size;
        const uInt in = bytes < UINT_MAX ? (uInt)bytes : UINT_MAX, to = room < UINT_MAX ? (uInt)room : UINT_MAX;
        z.next_in = (z_const Bytef *)data;
        z.avail_in = in;
        z.next_out = out->data + out->size;
        z.avail_out = to;
        code = inflate(&z, Z_NO_FLUSH);
        data += in - z.avail_in;
        bytes -= in - z.avail_in;
        out->size += to - z.avail_out;
        if (code == Z_MEM_ERROR) {
            err = RQ_NOMEM;
        } else if (code != Z_OK && code != Z_STREAM_END) {
            err = RQ_PROTOCOL; /* also when it ends in the midst */
        }
    }
    (void)inflateEnd(&z);
    return err == RQ_OK && bytes > 0 ? RQ_PROTOCOL : err;
}
