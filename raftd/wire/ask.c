#include "raftd/wire/ask.h"

#include <string.h>

#include "raftd/wire/entry.h"
#include "raftd/wire/mp.h"

static void put_member(struct rq_mp_writer *w, const struct rq_ask_member *m)
{
    rq_mp_put_uint(w, m->instance);
    rq_mp_put_text(w, m->name);
    rq_mp_put_text(w, m->raft_addr);
    rq_mp_put_text(w, m->http_addr);
    rq_mp_put_bool(w, m->votes);
    rq_mp_put_bin(w, m->key, RQ_ASK_KEY_BYTES);
    rq_mp_put_text(w, m->user);
    rq_mp_put_text(w, m->password);
}

enum rq_err rq_ask_put(struct rq_bytes *out, const struct rq_ask *ask)
{
    static const uint32_t fields[] = {
        [RQ_ASK_APPEND] = 4,    [RQ_ASK_JOIN] = 9,        [RQ_ASK_NOTIFY] = 9,    [RQ_ASK_REMOVE] = 2,
        [RQ_ASK_TURN_TAKE] = 2, [RQ_ASK_TURN_WANTED] = 3, [RQ_ASK_TURN_HELD] = 2, [RQ_ASK_INDEX] = 1,
        [RQ_ASK_REACH] = 2,     [RQ_ASK_ABOUT] = 1,       [RQ_ASK_TRANSFER] = 2,  [RQ_ASK_STATE] = 3,
        [RQ_ASK_HASHES] = 5,    [RQ_ASK_PAGES] = 5,       [RQ_ASK_HELD] = 1,
    };
    const size_t before = out->size;
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, fields[ask->kind]);
    rq_mp_put_uint(&w, (uint64_t)ask->kind);
    switch (ask->kind) {
        case RQ_ASK_APPEND:
            rq_mp_put_uint(&w, ask->append.type);
            rq_mp_put_bin(&w, ask->append.holders.data, ask->append.holders.bytes);
            rq_mp_put_bin_head(&w, ask->append.bytes);
            break;
        case RQ_ASK_JOIN:
        case RQ_ASK_NOTIFY:
            put_member(&w, &ask->member);
            break;
        case RQ_ASK_REMOVE:
        case RQ_ASK_TRANSFER:
            rq_mp_put_text(&w, ask->name);
            break;
        case RQ_ASK_INDEX:
        case RQ_ASK_HELD:
            break;
        case RQ_ASK_REACH:
            rq_mp_put_uint(&w, ask->instance);
            break;
        case RQ_ASK_ABOUT:
            break;
        case RQ_ASK_TURN_TAKE:
            rq_mp_put_uint(&w, ask->turn.db_id);
            break;
        case RQ_ASK_TURN_WANTED:
            rq_mp_put_uint(&w, ask->turn.db_id);
            rq_mp_put_uint(&w, ask->turn.serial);
            break;
        case RQ_ASK_TURN_HELD:
            rq_mp_put_bin(&w, ask->held.data, ask->held.bytes);
            break;
        case RQ_ASK_STATE:
            rq_mp_put_uint(&w, ask->mark.db_id);
            rq_mp_put_uint(&w, ask->mark.index);
            break;
        case RQ_ASK_HASHES:
        case RQ_ASK_PAGES:
            rq_mp_put_uint(&w, ask->mark.db_id);
            rq_mp_put_uint(&w, ask->mark.index);
            rq_mp_put_uint(&w, ask->mark.first);
            rq_mp_put_uint(&w, ask->mark.count);
            break;
    }
    if (w.err != RQ_OK) {
        out->size = before;
    }
    return w.err;
}

/* Nothing may stand behind the array. */
static enum rq_err read_end(struct rq_mp_reader *r, const uint8_t *end)
{
    const enum rq_err err = rq_mp_read_end(r);
    return err == RQ_OK && r->end != end ? RQ_PROTOCOL : err;
}

static struct rq_str get_text(struct rq_mp_reader *r)
{
    struct rq_str v;
    v.data = rq_mp_get_str(r, RQ_TEXT_MAX, &v.bytes);
    return v;
}

static void get_member(struct rq_mp_reader *r, struct rq_ask_member *m)
{
    uint32_t key_bytes;
    m->instance = rq_mp_get_uint(r, 1, UINT64_MAX);
    m->name = get_text(r);
    m->raft_addr = get_text(r);
    m->http_addr = get_text(r);
    m->votes = rq_mp_get_bool(r);
    m->key = rq_mp_get_bin(r, RQ_ASK_KEY_BYTES, &key_bytes);
    if (r->err == RQ_OK && key_bytes != RQ_ASK_KEY_BYTES) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    m->user = get_text(r);
    m->password = get_text(r);
}

static struct rq_ask_held get_held(struct rq_mp_reader *r)
{
    struct rq_ask_held held;
    held.data = rq_mp_get_bin(r, UINT32_MAX, &held.bytes);
    if (held.bytes % RQ_ASK_HELD_BYTES != 0) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return held;
}

static struct rq_ask_holders get_holders(struct rq_mp_reader *r)
{
    struct rq_ask_holders holders;
    holders.data = rq_mp_get_bin(r, RQ_ASK_HOLDERS_MAX * sizeof(uint64_t), &holders.bytes);
    if (holders.bytes % sizeof(uint64_t) != 0) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return holders;
}

enum rq_err rq_ask_get(const uint8_t *data, size_t bytes, struct rq_ask *ret)
{
    struct rq_mp_reader r;
    struct rq_ask ask = { .kind = RQ_ASK_APPEND };
    rq_mp_read_begin(&r, data, bytes);
    const uint64_t kind = rq_mp_get_uint(&r, RQ_ASK_APPEND, RQ_ASK_HELD);
    if (r.err != RQ_OK) {
        return r.err;
    }
    ask.kind = (enum rq_ask_kind)kind;
    switch (ask.kind) {
        case RQ_ASK_APPEND:
            ask.append.type = (uint16_t)rq_mp_get_uint(&r, 1, UINT16_MAX);
            ask.append.holders = get_holders(&r);
            ask.append.data = rq_mp_get_bin(&r, UINT32_MAX, &ask.append.bytes);
            break;
        case RQ_ASK_JOIN:
        case RQ_ASK_NOTIFY:
            get_member(&r, &ask.member);
            break;
        case RQ_ASK_REMOVE:
        case RQ_ASK_TRANSFER:
            ask.name = get_text(&r);
            break;
        case RQ_ASK_INDEX:
        case RQ_ASK_HELD:
            break;
        case RQ_ASK_REACH:
            ask.instance = rq_mp_get_uint(&r, 1, UINT64_MAX);
            break;
        case RQ_ASK_ABOUT:
            break;
        case RQ_ASK_TURN_TAKE:
            ask.turn.db_id = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
            break;
        case RQ_ASK_TURN_WANTED:
            ask.turn.db_id = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
            ask.turn.serial = rq_mp_get_uint(&r, 0, UINT64_MAX);
            break;
        case RQ_ASK_TURN_HELD:
            ask.held = get_held(&r);
            break;
        case RQ_ASK_STATE:
        case RQ_ASK_HASHES:
        case RQ_ASK_PAGES:
            ask.mark.db_id = (uint32_t)rq_mp_get_uint(&r, 1, UINT32_MAX);
            ask.mark.index = rq_mp_get_uint(&r, 1, UINT64_MAX);
            if (ask.kind != RQ_ASK_STATE) {
                ask.mark.first = (uint32_t)rq_mp_get_uint(&r, 1, UINT32_MAX - RQ_MARK_PAGES_MAX);
                ask.mark.count = (uint32_t)rq_mp_get_uint(&r, 1, RQ_MARK_PAGES_MAX);
            }
            break;
        default:
            return RQ_PROTOCOL;
    }
    enum rq_err err = read_end(&r, data + bytes);
    if (err == RQ_OK) {
        *ret = ask;
    }
    return err;
}

enum rq_err rq_ask_put_appended(struct rq_bytes *out, uint64_t term)
{
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, 1);
    rq_mp_put_uint(&w, term);
    return w.err;
}

enum rq_err rq_ask_get_appended(const uint8_t *data, size_t bytes, uint64_t *ret_term)
{
    struct rq_mp_reader r;
    rq_mp_read_begin(&r, data, bytes);
    *ret_term = rq_mp_get_uint(&r, 1, UINT64_MAX);
    return read_end(&r, data + bytes);
}

enum rq_err rq_ask_put_index(struct rq_bytes *out, uint64_t index)
{
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, 1);
    rq_mp_put_uint(&w, index);
    return w.err;
}

enum rq_err rq_ask_put_granted(struct rq_bytes *out, uint64_t serial, uint64_t index)
{
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, 2);
    rq_mp_put_uint(&w, serial);
    rq_mp_put_uint(&w, index);
    return w.err;
}

enum rq_err rq_ask_put_has(struct rq_bytes *out, const struct rq_ask_has *has)
{
    struct rq_mp_writer w;
    uint8_t ids[RQ_ASK_FENCED_MAX * sizeof(uint32_t)];
    for (unsigned i = 0; i < has->fenced_count; i++) {
        rq_put_u32(ids + i * sizeof(uint32_t), has->fenced[i]);
    }
    rq_mp_write_begin(&w, out, 2);
    rq_mp_put_uint(&w, has->index);
    rq_mp_put_bin(&w, ids, has->fenced_count * (uint32_t)sizeof(uint32_t));
    return w.err;
}

enum rq_err rq_ask_get_has(const uint8_t *data, size_t bytes, struct rq_ask_has *ret)
{
    struct rq_mp_reader r;
    uint32_t size;
    rq_mp_read_begin(&r, data, bytes);
    ret->index = rq_mp_get_uint(&r, 1, UINT64_MAX);
    const uint8_t *ids = rq_mp_get_bin(&r, RQ_ASK_FENCED_MAX * sizeof(uint32_t), &size);
    if (size % sizeof(uint32_t) != 0) {
        rq_mp_read_fail(&r, RQ_PROTOCOL);
    }
    const enum rq_err err = read_end(&r, data + bytes);
    ret->fenced_count = err == RQ_OK ? size / (unsigned)sizeof(uint32_t) : 0;
    for (unsigned i = 0; i < ret->fenced_count; i++) {
        ret->fenced[i] = rq_get_u32(ids + i * sizeof(uint32_t));
    }
    return err;
}

enum rq_err rq_ask_get_index(const uint8_t *data, size_t bytes, uint64_t *ret_index)
{
    struct rq_mp_reader r;
    rq_mp_read_begin(&r, data, bytes);
    *ret_index = rq_mp_get_uint(&r, 1, UINT64_MAX);
    return read_end(&r, data + bytes);
}

enum rq_err rq_ask_get_granted(const uint8_t *data, size_t bytes, uint64_t *ret_serial, uint64_t *ret_index)
{
    struct rq_mp_reader r;
    rq_mp_read_begin(&r, data, bytes);
    *ret_serial = rq_mp_get_uint(&r, 1, UINT64_MAX);
    *ret_index = rq_mp_get_uint(&r, 0, UINT64_MAX);
    return read_end(&r, data + bytes);
}

enum rq_err rq_ask_put_hashes(struct rq_bytes *out, const uint64_t *hashes, uint32_t count)
{
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, 1);
    rq_mp_put_bin_head(&w, count * (uint32_t)sizeof *hashes);
    enum rq_err err = w.err == RQ_OK ? rq_bytes_reserve(out, count * sizeof *hashes) : w.err;
    for (uint32_t i = 0; err == RQ_OK && i < count; i++) {
        rq_put_u64(out->data + out->size, hashes[i]);
        out->size += sizeof *hashes;
    }
    return err;
}

enum rq_err rq_ask_get_hashes(const uint8_t *data, size_t bytes, const uint8_t **ret_hashes, uint32_t *ret_count)
{
    struct rq_mp_reader r;
    uint32_t size;
    rq_mp_read_begin(&r, data, bytes);
    *ret_hashes = rq_mp_get_bin(&r, UINT32_MAX, &size);
    *ret_count = size / (uint32_t)sizeof(uint64_t);
    if (size % sizeof(uint64_t) != 0) {
        rq_mp_read_fail(&r, RQ_PROTOCOL);
    }
    return read_end(&r, data + bytes);
}

enum rq_err rq_ask_put_state(struct rq_bytes *out, const struct rq_ask_state *state)
{
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, 5);
    rq_mp_put_uint(&w, state->version);
    rq_mp_put_uint(&w, state->stamp_term);
    rq_mp_put_uint(&w, state->stamp_index);
    rq_mp_put_uint(&w, state->page_size);
    rq_mp_put_uint(&w, state->page_count);
    return w.err;
}

enum rq_err rq_ask_get_state(const uint8_t *data, size_t bytes, struct rq_ask_state *ret)
{
    struct rq_mp_reader r;
    struct rq_ask_state state;
    rq_mp_read_begin(&r, data, bytes);
    state.version = rq_mp_get_uint(&r, 1, UINT64_MAX);
    state.stamp_term = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    state.stamp_index = rq_mp_get_uint(&r, 1, UINT64_MAX);
    state.page_size = (uint32_t)rq_mp_get_uint(&r, RQ_PAGE_SIZE_MIN, RQ_PAGE_SIZE_MAX);
    state.page_count = (uint32_t)rq_mp_get_uint(&r, 1, UINT32_MAX);
    if (!rq_page_size_check(state.page_size)) {
        rq_mp_read_fail(&r, RQ_PROTOCOL);
    }
    enum rq_err err = read_end(&r, data + bytes);
    if (err == RQ_OK) {
        *ret = state;
    }
    return err;
}

enum rq_err rq_ask_put_pages(struct rq_bytes *out, const uint8_t *pages, uint32_t pages_bytes)
{
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, 1);
    rq_mp_put_bin(&w, pages, pages_bytes);
    return w.err;
}

enum rq_err rq_ask_get_pages(const uint8_t *data, size_t bytes, const uint8_t **ret_pages, uint32_t *ret_bytes)
{
    struct rq_mp_reader r;
    rq_mp_read_begin(&r, data, bytes);
    *ret_pages = rq_mp_get_bin(&r, UINT32_MAX, ret_bytes);
    return read_end(&r, data + bytes);
}

enum rq_err rq_ask_put_given(struct rq_bytes *out, bool given, uint64_t index)
{
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, 2);
    rq_mp_put_bool(&w, given);
    rq_mp_put_uint(&w, index);
    return w.err;
}

enum rq_err rq_ask_get_given(const uint8_t *data, size_t bytes, bool *ret_given, uint64_t *ret_index)
{
    struct rq_mp_reader r;
    rq_mp_read_begin(&r, data, bytes);
    *ret_given = rq_mp_get_bool(&r);
    *ret_index = rq_mp_get_uint(&r, 0, UINT64_MAX);
    return read_end(&r, data + bytes);
}

enum rq_err rq_ask_put_denied(struct rq_bytes *out, const struct rq_ask_held *denied)
{
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, 1);
    rq_mp_put_bin(&w, denied->data, denied->bytes);
    return w.err;
}

enum rq_err rq_ask_get_denied(const uint8_t *data, size_t bytes, struct rq_ask_held *ret_denied)
{
    struct rq_mp_reader r;
    rq_mp_read_begin(&r, data, bytes);
    *ret_denied = get_held(&r);
    return read_end(&r, data + bytes);
}

enum rq_err rq_ask_put_joined(struct rq_bytes *out, const struct rq_ask_joined *joined)
{
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, 3);
    rq_mp_put_uint(&w, joined->cluster);
    rq_mp_put_uint(&w, joined->waiting);
    rq_mp_put_bin(&w, joined->members, joined->members_bytes);
    return w.err;
}

enum rq_err rq_ask_get_joined(const uint8_t *data, size_t bytes, struct rq_ask_joined *ret)
{
    struct rq_mp_reader r;
    struct rq_ask_joined joined;
    rq_mp_read_begin(&r, data, bytes);
    joined.cluster = rq_mp_get_uint(&r, 0, UINT64_MAX);
    joined.waiting = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    joined.members = rq_mp_get_bin(&r, UINT32_MAX, &joined.members_bytes);
    enum rq_err err = read_end(&r, data + bytes);
    if (err == RQ_OK) {
        *ret = joined;
    }
    return err;
}

enum rq_err rq_ask_put_about(struct rq_bytes *out, const struct rq_ask_about *about)
{
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, 5);
    rq_mp_put_text(&w, about->version);
    rq_mp_put_text(&w, about->api_url);
    rq_mp_put_bool(&w, about->leads);
    rq_mp_put_uint(&w, about->term);
    rq_mp_put_uint(&w, about->committed);
    return w.err;
}

enum rq_err rq_ask_get_about(const uint8_t *data, size_t bytes, struct rq_ask_about *ret)
{
    struct rq_mp_reader r;
    struct rq_ask_about about;
    rq_mp_read_begin(&r, data, bytes);
    about.version = get_text(&r);
    about.api_url = get_text(&r);
    about.leads = rq_mp_get_bool(&r);
    about.term = rq_mp_get_uint(&r, 0, UINT64_MAX);
    about.committed = rq_mp_get_uint(&r, 0, UINT64_MAX);
    enum rq_err err = rq_mp_read_end(&r);
    if (err == RQ_OK) {
        *ret = about;
    }
    return err;
}
