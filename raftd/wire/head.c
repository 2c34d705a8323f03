#include "raftd/wire/head.h"

#include <string.h>

#include "raftd/wire/body.h"
#include "raftd/wire/mp.h"

#define KIND_MAX 127u

uint64_t rq_head_kind(const uint8_t *data, size_t bytes)
{
    struct rq_mp_reader r;
    rq_mp_read_begin(&r, data, bytes);
    const uint64_t kind = rq_mp_get_uint(&r, 1, KIND_MAX);
    return r.err == RQ_OK ? kind : 0;
}

enum rq_err rq_head_put_body(struct rq_bytes *out, enum rq_head_kind kind, const struct rq_head_body *head)
{
    const size_t before = out->size;
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, kind == RQ_HEAD_BRING ? 5 : 4);
    rq_mp_put_uint(&w, (uint64_t)kind);
    rq_mp_put_bin(&w, head->hash, sizeof head->hash);
    rq_mp_put_uint(&w, head->body_bytes);
    if (kind == RQ_HEAD_BRING) {
        rq_mp_put_uint(&w, head->origin.session);
        rq_mp_put_uint(&w, head->origin.seq);
    } else {
        rq_mp_put_uint(&w, head->offset);
    }
    if (w.err != RQ_OK) {
        out->size = before;
    }
    return w.err;
}

enum rq_err rq_head_get_body(const uint8_t *data, size_t bytes, struct rq_head_body *ret)
{
    struct rq_mp_reader r;
    struct rq_head_body head = { 0 };
    uint32_t hash_bytes;
    rq_mp_read_begin(&r, data, bytes);
    const uint64_t kind = rq_mp_get_uint(&r, RQ_HEAD_BRING, RQ_HEAD_FETCH);
    const uint8_t *hash = rq_mp_get_bin(&r, RQ_BODY_HASH_BYTES, &hash_bytes);
    head.body_bytes = rq_mp_get_uint(&r, RQ_BODY_HEAD_BYTES + RQ_BODY_TAIL_BYTES, UINT64_MAX);
    if (kind == RQ_HEAD_BRING) {
        head.origin.session = rq_mp_get_uint(&r, 1, UINT64_MAX);
        head.origin.seq = rq_mp_get_uint(&r, 1, UINT64_MAX);
    } else {
        head.offset = rq_mp_get_uint(&r, 0, head.body_bytes);
    }
    if (r.err == RQ_OK && hash_bytes != RQ_BODY_HASH_BYTES) {
        rq_mp_read_fail(&r, RQ_PROTOCOL);
    }
    enum rq_err err = rq_mp_read_end(&r);
    if (err == RQ_OK) {
        memcpy(head.hash, hash, sizeof head.hash);
        *ret = head;
    }
    return err;
}
