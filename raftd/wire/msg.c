/* Messages: one list of fields each, from which its encoder and its decoder are made. */
#include "raftd/wire/msg.h"

#include <string.h>

#include "raftd/wire/mp.h"

/* clang-format off */
#define HELLO(F)   F(protocol, protocol) F(id, session) F(u64, pid) F(text, program) F(text, sqlite)
#define WELCOME(F) F(protocol, protocol) F(u32, frame_body_max) F(u64, instance) F(text, node_id) F(text, version)
#define OPEN(F)    F(name, name) F(boolean, create)
#define OPENED(F)  F(u32, db_id) F(u64, version) F(page_size_or_0, page_size)
#define COMMIT(F)  F(u32, db_id) F(id, seq) F(u64, base) F(page_size, page_size) F(count, db_page_count) F(u32, page_count)
#define OUTCOME(F) F(err, err) F(u64, version) F(text, text)
#define ASK(F)     F(u32, db_id) F(id, seq) F(u64, base)
#define STATUS(F)  F(name, name)
#define STATE(F)                                                                                            \
    F(text, node_id) F(text, role) F(text, leader) F(name, name) F(u32, db_id) F(u64, version)              \
    F(u64, applied_index) F(u64, commit_index) F(u64, checksum) F(u64, lag) F(text, state) F(text, message)
#define READ(F)    F(u32, db_id) F(u64, max_age_ms) F(wait, wait_ms)
#define READY(F)   F(u64, index) F(u64, left_ms)
#define FAILED(F)  F(err, err) F(text, text)
#define LOOK(F)    F(u32, db_id)
/* clang-format on */

bool rq_name_check(struct rq_str name)
{
    return name.bytes >= 1 && name.bytes <= RQ_DB_NAME_MAX && memchr(name.data, 0, name.bytes) == NULL;
}

/* --- kinds of fields -------------------------------------------------------------------------------------------------- */

static void put_number(struct rq_mp_writer *w, uint64_t v, uint64_t min, uint64_t max)
{
    rq_mp_put_uint(w, v);
    if (v < min || v > max) {
        rq_mp_write_fail(w, RQ_MISUSE);
    }
}

#define NUMBER(kind, type, min, max)                       \
    static void put_##kind(struct rq_mp_writer *w, type v) \
    {                                                      \
        put_number(w, (uint64_t)v, (min), (max));          \
    }                                                      \
    static type get_##kind(struct rq_mp_reader *r)         \
    {                                                      \
        return (type)rq_mp_get_uint(r, (min), (max));      \
    }

NUMBER(u32, uint32_t, 0, UINT32_MAX)
NUMBER(u64, uint64_t, 0, UINT64_MAX)
NUMBER(id, uint64_t, 1, UINT64_MAX)
NUMBER(count, uint32_t, 1, UINT32_MAX)
NUMBER(wait, uint32_t, 0, RQ_READ_WAIT_MS_MAX)
NUMBER(err, enum rq_err, 0, UINT16_MAX) /* a number that this version does not know is kept as it is */
NUMBER(any_page_size, uint32_t, 0, 65536)

static void put_protocol(struct rq_mp_writer *w, uint32_t v)
{
    rq_mp_put_uint(w, v);
}
/* The first field, and the one that every version has in this place: it is judged before the number of fields is. */
static uint32_t get_protocol(struct rq_mp_reader *r)
{
    uint32_t v = get_u32(r);
    if (v != RQ_PROTOCOL_VERSION) {
        rq_mp_read_fail(r, RQ_VERSION);
    }
    return v;
}

static void put_page_size_or_0(struct rq_mp_writer *w, uint32_t v)
{
    put_any_page_size(w, v);
    if (v != 0 && !rq_page_size_check(v)) {
        rq_mp_write_fail(w, RQ_MISUSE);
    }
}
static uint32_t get_page_size_or_0(struct rq_mp_reader *r)
{
    uint32_t v = get_any_page_size(r);
    if (v != 0 && !rq_page_size_check(v)) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return v;
}

static void put_page_size(struct rq_mp_writer *w, uint32_t v)
{
    put_page_size_or_0(w, v);
    if (v == 0) {
        rq_mp_write_fail(w, RQ_MISUSE);
    }
}
static uint32_t get_page_size(struct rq_mp_reader *r)
{
    uint32_t v = get_page_size_or_0(r);
    if (v == 0) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return v;
}

static void put_boolean(struct rq_mp_writer *w, bool v)
{
    rq_mp_put_bool(w, v);
}
static bool get_boolean(struct rq_mp_reader *r)
{
    return rq_mp_get_bool(r);
}

static void put_name(struct rq_mp_writer *w, struct rq_str v)
{
    if (!rq_name_check(v)) {
        rq_mp_write_fail(w, RQ_MISUSE);
        return;
    }
    rq_mp_put_str(w, v.data, v.bytes);
}
static struct rq_str get_name(struct rq_mp_reader *r)
{
    struct rq_str v;
    v.data = rq_mp_get_str(r, RQ_DB_NAME_MAX, &v.bytes);
    if (!rq_name_check(v)) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return v;
}

static void put_text(struct rq_mp_writer *w, struct rq_str v)
{
    rq_mp_put_text(w, v);
}
static struct rq_str get_text(struct rq_mp_reader *r)
{
    struct rq_str v;
    v.data = rq_mp_get_str(r, RQ_TEXT_MAX, &v.bytes);
    return v;
}

/* --- frames ----------------------------------------------------------------------------------------------------------- */

static const uint8_t empty_head[RQ_FRAME_HEAD_BYTES];

/* Room for the head, then the array; frame_end fills in the head. */
static enum rq_err frame_begin(struct rq_mp_writer *w, struct rq_bytes *out, uint32_t field_count)
{
    enum rq_err err = rq_bytes_put(out, empty_head, sizeof empty_head);
    if (err == RQ_OK) {
        rq_mp_write_begin(w, out, field_count);
    }
    return err;
}

/* behind_bytes: of pages that the caller will send behind what is in out. */
static enum rq_err frame_end(struct rq_mp_writer *w, size_t start, uint64_t id, enum rq_msg_type type,
                             uint64_t behind_bytes)
{
    struct rq_bytes *out = w->out;
    uint64_t body_bytes = (uint64_t)out->size - start - RQ_FRAME_HEAD_BYTES + behind_bytes;
    enum rq_err err = w->err;
    if (err == RQ_OK && body_bytes > RQ_FRAME_BODY_MAX) {
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

#define COUNT_FIELD(kind, field) +1u /* NOLINT(bugprone-macro-parentheses): a sum of them */
#define PUT_FIELD(kind, field)   put_##kind(&w, m->field);
#define GET_FIELD(kind, field)   m.field = get_##kind(&r);

#define MESSAGE(TYPE, name)                                                                         \
    enum rq_err rq_msg_put_##name(struct rq_bytes *out, uint64_t id, const struct rq_msg_##name *m) \
    {                                                                                               \
        struct rq_mp_writer w;                                                                      \
        size_t start = out->size;                                                                   \
        enum rq_err err = frame_begin(&w, out, 0 TYPE(COUNT_FIELD));                                \
        if (err != RQ_OK) {                                                                         \
            return err;                                                                             \
        }                                                                                           \
        TYPE(PUT_FIELD)                                                                             \
        return frame_end(&w, start, id, RQ_MSG_##TYPE, 0);                                          \
    }                                                                                               \
    enum rq_err rq_msg_get_##name(const uint8_t *body, size_t bytes, struct rq_msg_##name *ret)     \
    {                                                                                               \
        struct rq_mp_reader r;                                                                      \
        struct rq_msg_##name m;                                                                     \
        rq_mp_read_begin(&r, body, bytes);                                                          \
        TYPE(GET_FIELD)                                                                             \
        enum rq_err err = rq_mp_read_end(&r);                                                       \
        if (err == RQ_OK && r.end != body + bytes) {                                                \
            err = RQ_PROTOCOL;                                                                      \
        }                                                                                           \
        if (err == RQ_OK) {                                                                         \
            *ret = m;                                                                               \
        }                                                                                           \
        return err;                                                                                 \
    }

MESSAGE(HELLO, hello)
MESSAGE(WELCOME, welcome)
MESSAGE(OPEN, open)
MESSAGE(OPENED, opened)
MESSAGE(OUTCOME, outcome)
MESSAGE(ASK, ask)
MESSAGE(STATUS, status)
MESSAGE(STATE, state)
MESSAGE(READ, read)
MESSAGE(READY, ready)
MESSAGE(FAILED, failed)
MESSAGE(LOOK, look)

/* --- PAGES and COMMIT: the array, then pages ---------------------------------------------------------------------------- */

enum rq_err rq_msg_put_commit(struct rq_bytes *out, uint64_t id, enum rq_msg_type type, const struct rq_msg_commit *m)
{
    if (type != RQ_MSG_PAGES && type != RQ_MSG_COMMIT) {
        return RQ_MISUSE;
    }
    struct rq_mp_writer w;
    size_t start = out->size;
    enum rq_err err = frame_begin(&w, out, 0 COMMIT(COUNT_FIELD));
    if (err != RQ_OK) {
        return err;
    }
    COMMIT(PUT_FIELD)
    return frame_end(&w, start, id, type, (uint64_t)m->page_count * (4 + (uint64_t)m->page_size));
}

enum rq_err rq_msg_get_commit(const uint8_t *body, size_t bytes, struct rq_msg_commit *ret)
{
    struct rq_mp_reader r;
    struct rq_msg_commit m;
    rq_mp_read_begin(&r, body, bytes);
    COMMIT(GET_FIELD)
    enum rq_err err = rq_mp_read_end(&r);
    if (err != RQ_OK) {
        return err;
    }
    m.pages = r.end;
    size_t piece_bytes = 4 + (size_t)m.page_size;
    size_t pages_bytes = (size_t)(body + bytes - m.pages);
    if (pages_bytes % piece_bytes != 0 || pages_bytes / piece_bytes != m.page_count) {
        return RQ_PROTOCOL;
    }
    uint32_t last = 0;
    for (uint32_t i = 0; i < m.page_count; i++) {
        uint32_t pgno = rq_get_u32(m.pages + i * piece_bytes);
        if (pgno <= last || pgno > m.db_page_count) {
            return RQ_PROTOCOL;
        }
        last = pgno;
    }
    *ret = m;
    return RQ_OK;
}
