#include "raftd/wire/peer.h"

#include <string.h>

#include "raftd/wire/mp.h"

enum { HELLO_FIELDS = 11, FAILED_FIELDS = 2, TYPE_AT = 4 };

void rq_peer_signed(enum rq_peer_type type, const uint8_t exporter[RQ_PEER_EXPORTER_BYTES],
                    uint8_t text[RQ_PEER_SIGNED_BYTES])
{
    rq_put_u64(text, RQ_PEER_MAGIC);
    rq_put_u32(text + 8, (uint32_t)type);
    memcpy(text + 12, exporter, RQ_PEER_EXPORTER_BYTES);
}

enum rq_err rq_peer_frame_decode(const uint8_t head[RQ_FRAME_HEAD_BYTES], struct rq_frame *ret_frame)
{
    struct rq_frame frame = { .body_bytes = rq_get_u32(head),
                              .type = rq_get_u16(head + TYPE_AT),
                              .id = rq_get_u64(head + 8) };
    if (frame.type < RQ_PEER_HELLO || frame.type > RQ_PEER_END || rq_get_u16(head + 6) != 0) {
        return RQ_PROTOCOL;
    }
    if (frame.body_bytes > RQ_PEER_BODY_MAX) {
        return RQ_TOOBIG;
    }
    *ret_frame = frame;
    return RQ_OK;
}

/* --- frames ----------------------------------------------------------------------------------------------------------- */

static enum rq_err frame_begin(struct rq_mp_writer *w, struct rq_bytes *out, uint32_t field_count)
{
    static const uint8_t empty_head[RQ_FRAME_HEAD_BYTES];
    enum rq_err err = rq_bytes_put(out, empty_head, sizeof empty_head);
    if (err == RQ_OK) {
        rq_mp_write_begin(w, out, field_count);
    }
    return err;
}

static enum rq_err frame_end(struct rq_mp_writer *w, size_t start, uint64_t id, enum rq_peer_type type)
{
    struct rq_bytes *out = w->out;
    size_t body_bytes = out->size - start - RQ_FRAME_HEAD_BYTES;
    enum rq_err err = w->err;
    if (err == RQ_OK && body_bytes > RQ_PEER_HANDSHAKE_BODY_MAX) {
        err = RQ_TOOBIG;
    }
    if (err != RQ_OK) {
        out->size = start;
        return err;
    }
    struct rq_frame frame = { .body_bytes = (uint32_t)body_bytes, .type = (uint16_t)type, .id = id };
    rq_frame_encode(&frame, out->data + start);
    return RQ_OK;
}

/* --- kinds of fields ---------------------------------------------------------------------------------------------------- */

static void put_name(struct rq_mp_writer *w, struct rq_str v)
{
    if (v.bytes > RQ_PEER_NAME_MAX || (v.bytes > 0 && memchr(v.data, 0, v.bytes) != NULL)) {
        rq_mp_write_fail(w, RQ_MISUSE);
        return;
    }
    rq_mp_put_str(w, v.data, v.bytes);
}

static struct rq_str get_name(struct rq_mp_reader *r)
{
    struct rq_str v;
    v.data = rq_mp_get_str(r, RQ_PEER_NAME_MAX, &v.bytes);
    if (v.bytes > 0 && memchr(v.data, 0, v.bytes) != NULL) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return v;
}

static const uint8_t *get_bytes(struct rq_mp_reader *r, uint32_t bytes)
{
    uint32_t found;
    const uint8_t *v = rq_mp_get_bin(r, bytes, &found);
    if (found != bytes) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return v;
}

/* --- messages ----------------------------------------------------------------------------------------------------------- */

enum rq_err rq_peer_put_hello(struct rq_bytes *out, enum rq_peer_type type, const struct rq_peer_hello *m)
{
    struct rq_mp_writer w;
    size_t start = out->size;
    enum rq_err err = frame_begin(&w, out, HELLO_FIELDS);
    if (err != RQ_OK) {
        return err;
    }
    rq_mp_put_uint(&w, RQ_PEER_MAGIC);
    rq_mp_put_uint(&w, m->version);
    rq_mp_put_uint(&w, m->cluster);
    rq_mp_put_uint(&w, m->instance);
    rq_mp_put_uint(&w, m->epoch);
    rq_mp_put_uint(&w, m->to);
    rq_mp_put_uint(&w, (uint64_t)m->kind);
    put_name(&w, m->node_name);
    put_name(&w, m->address);
    rq_mp_put_bin(&w, m->key, RQ_NODE_KEY_BYTES);
    rq_mp_put_bin(&w, m->signature, RQ_NODE_SIGNATURE_BYTES);
    if (m->instance == 0 || m->epoch == 0 || (unsigned)m->kind >= RQ_PEER_KINDS) {
        rq_mp_write_fail(&w, RQ_MISUSE);
    }
    return frame_end(&w, start, 0, type);
}

enum rq_err rq_peer_get_hello(const uint8_t *body, size_t bytes, struct rq_peer_hello *ret)
{
    struct rq_mp_reader r;
    struct rq_peer_hello m;
    rq_mp_read_begin(&r, body, bytes);
    if (rq_mp_get_uint(&r, 0, UINT64_MAX) != RQ_PEER_MAGIC) {
        rq_mp_read_fail(&r, RQ_PROTOCOL);
    }
    m.version = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    if (m.version != RQ_PEER_VERSION) {
        rq_mp_read_fail(&r, RQ_VERSION); /* whatever follows: it is for the other version to say */
    }
    m.cluster = rq_mp_get_uint(&r, 0, UINT64_MAX);
    m.instance = rq_mp_get_uint(&r, 1, UINT64_MAX);
    m.epoch = rq_mp_get_uint(&r, 1, UINT64_MAX);
    m.to = rq_mp_get_uint(&r, 0, UINT64_MAX);
    m.kind = (enum rq_peer_kind)rq_mp_get_uint(&r, 0, RQ_PEER_KINDS - 1);
    m.node_name = get_name(&r);
    m.address = get_name(&r);
    m.key = get_bytes(&r, RQ_NODE_KEY_BYTES);
    m.signature = get_bytes(&r, RQ_NODE_SIGNATURE_BYTES);
    enum rq_err err = rq_mp_read_end(&r);
    if (err == RQ_OK && r.end != body + bytes) {
        err = RQ_PROTOCOL;
    }
    if (err == RQ_OK) {
        *ret = m;
    }
    return err;
}

enum rq_err rq_peer_put_failed(struct rq_bytes *out, uint64_t id, const struct rq_peer_failed *m)
{
    struct rq_mp_writer w;
    size_t start = out->size;
    enum rq_err err = frame_begin(&w, out, FAILED_FIELDS);
    if (err != RQ_OK) {
        return err;
    }
    rq_mp_put_uint(&w, (uint64_t)m->err);
    rq_mp_put_text(&w, m->text);
    if (m->err == RQ_OK || (uint64_t)m->err > UINT16_MAX) {
        rq_mp_write_fail(&w, RQ_MISUSE);
    }
    return frame_end(&w, start, id, RQ_PEER_FAILED);
}

enum rq_err rq_peer_get_failed(const uint8_t *body, size_t bytes, struct rq_peer_failed *ret)
{
    struct rq_mp_reader r;
    struct rq_peer_failed m;
    rq_mp_read_begin(&r, body, bytes);
    m.err = (enum rq_err)rq_mp_get_uint(&r, 1, UINT16_MAX);
    m.text.data = rq_mp_get_str(&r, RQ_TEXT_MAX, &m.text.bytes);
    enum rq_err err = rq_mp_read_end(&r);
    if (err == RQ_OK && r.end != body + bytes) {
        err = RQ_PROTOCOL;
    }
    if (err == RQ_OK) {
        *ret = m;
    }
    return err;
}
