/* Entries: each is one msgpack array whose first element is its format.  The type travels beside it, in the log record. */
#include "raftd/wire/entry.h"

#include <string.h>

#include "raftd/wire/mp.h"

enum { FORMAT = 1 };
enum { STAGED_FIELDS = 10, CREATE_FIELDS = 3, DROP_FIELDS = 2, ADOPT_FIELDS = 5, MARK_FIELDS = 5 };

static void write_begin(struct rq_mp_writer *w, struct rq_bytes *out, uint32_t fields)
{
    rq_mp_write_begin(w, out, fields);
    rq_mp_put_uint(w, FORMAT);
}

static enum rq_err write_end(struct rq_mp_writer *w, size_t start)
{
    if (w->err != RQ_OK) {
        w->out->size = start;
    }
    return w->err;
}

static void read_begin(struct rq_mp_reader *r, const uint8_t *data, size_t bytes)
{
    rq_mp_read_begin(r, data, bytes);
    if (rq_mp_get_uint(r, 0, UINT64_MAX) != FORMAT) {
        rq_mp_read_fail(r, RQ_VERSION);
    }
}

/* Nothing may stand behind the array. */
static enum rq_err read_end(struct rq_mp_reader *r, const uint8_t *entry_end)
{
    enum rq_err err = rq_mp_read_end(r);
    return err == RQ_OK && r->end != entry_end ? RQ_PROTOCOL : err;
}

static struct rq_str get_name(struct rq_mp_reader *r)
{
    struct rq_str name;
    name.data = rq_mp_get_str(r, RQ_DB_NAME_MAX, &name.bytes);
    if (!rq_name_check(name)) {
        rq_mp_read_fail(r, RQ_PROTOCOL);
    }
    return name;
}

/* --- STAGED ------------------------------------------------------------------------------------------------------------- */

static bool staged_valid(const struct rq_entry_staged *e)
{
    return e->head.origin_count == 1 && rq_txn_head_check(&e->head) && e->origin.session != 0 && e->origin.seq != 0 &&
           e->body_bytes != 0;
}

enum rq_err rq_entry_put_staged(struct rq_bytes *out, const struct rq_entry_staged *e)
{
    if (!staged_valid(e)) {
        return RQ_MISUSE;
    }
    struct rq_mp_writer w;
    size_t start = out->size;
    write_begin(&w, out, STAGED_FIELDS);
    rq_mp_put_uint(&w, e->head.db_id);
    rq_mp_put_uint(&w, e->head.page_size);
    rq_mp_put_uint(&w, e->head.page_count);
    rq_mp_put_uint(&w, e->head.base);
    rq_mp_put_uint(&w, e->head.version);
    rq_mp_put_uint(&w, e->origin.session);
    rq_mp_put_uint(&w, e->origin.seq);
    rq_mp_put_uint(&w, e->body_bytes);
    rq_mp_put_bin(&w, e->hash, RQ_BODY_HASH_BYTES);
    return write_end(&w, start);
}

enum rq_err rq_entry_get_staged(const uint8_t *data, size_t bytes, struct rq_entry_staged *ret)
{
    struct rq_mp_reader r;
    struct rq_entry_staged e;
    uint32_t hash_bytes;
    read_begin(&r, data, bytes);
    e.head.db_id = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    e.head.page_size = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    e.head.page_count = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    e.head.base = rq_mp_get_uint(&r, 0, UINT64_MAX);
    e.head.version = rq_mp_get_uint(&r, 0, UINT64_MAX);
    e.head.origin_count = 1;
    e.origin.session = rq_mp_get_uint(&r, 0, UINT64_MAX);
    e.origin.seq = rq_mp_get_uint(&r, 0, UINT64_MAX);
    e.body_bytes = rq_mp_get_uint(&r, 0, UINT64_MAX);
    const uint8_t *hash = rq_mp_get_bin(&r, RQ_BODY_HASH_BYTES, &hash_bytes);
    enum rq_err err = read_end(&r, data + bytes);
    if (err != RQ_OK) {
        return err;
    }
    if (hash_bytes != RQ_BODY_HASH_BYTES || !staged_valid(&e)) {
        return RQ_PROTOCOL;
    }
    memcpy(e.hash, hash, RQ_BODY_HASH_BYTES);
    *ret = e;
    return RQ_OK;
}

/* --- CREATE and DROP ------------------------------------------------------------------------------------------------------ */

enum rq_err rq_entry_put_create(struct rq_bytes *out, const struct rq_entry_create *e)
{
    if (!rq_name_check(e->name)) {
        return RQ_MISUSE;
    }
    struct rq_mp_writer w;
    size_t start = out->size;
    write_begin(&w, out, CREATE_FIELDS);
    rq_mp_put_str(&w, e->name.data, e->name.bytes);
    rq_mp_put_uint(&w, e->nonce);
    return write_end(&w, start);
}

enum rq_err rq_entry_get_create(const uint8_t *data, size_t bytes, struct rq_entry_create *ret)
{
    struct rq_mp_reader r;
    struct rq_entry_create e;
    read_begin(&r, data, bytes);
    e.name = get_name(&r);
    e.nonce = rq_mp_get_uint(&r, 0, UINT64_MAX);
    enum rq_err err = read_end(&r, data + bytes);
    if (err == RQ_OK) {
        *ret = e;
    }
    return err;
}

enum rq_err rq_entry_put_drop(struct rq_bytes *out, const struct rq_entry_drop *e)
{
    if (e->db_id == 0) {
        return RQ_MISUSE;
    }
    struct rq_mp_writer w;
    size_t start = out->size;
    write_begin(&w, out, DROP_FIELDS);
    rq_mp_put_uint(&w, e->db_id);
    return write_end(&w, start);
}

enum rq_err rq_entry_get_drop(const uint8_t *data, size_t bytes, struct rq_entry_drop *ret)
{
    struct rq_mp_reader r;
    struct rq_entry_drop e;
    read_begin(&r, data, bytes);
    e.db_id = (uint32_t)rq_mp_get_uint(&r, 1, UINT32_MAX);
    enum rq_err err = read_end(&r, data + bytes);
    if (err == RQ_OK) {
        *ret = e;
    }
    return err;
}

/* --- ADOPT ---------------------------------------------------------------------------------------------------------------- */

static bool adopt_valid(const struct rq_entry_adopt *e)
{
    return rq_name_check(e->name) && rq_page_size_check(e->page_size) && e->page_count != 0;
}

enum rq_err rq_entry_put_adopt(struct rq_bytes *out, const struct rq_entry_adopt *e)
{
    if (!adopt_valid(e)) {
        return RQ_MISUSE;
    }
    struct rq_mp_writer w;
    size_t start = out->size;
    write_begin(&w, out, ADOPT_FIELDS);
    rq_mp_put_str(&w, e->name.data, e->name.bytes);
    rq_mp_put_uint(&w, e->page_size);
    rq_mp_put_uint(&w, e->page_count);
    rq_mp_put_uint(&w, e->version);
    return write_end(&w, start);
}

enum rq_err rq_entry_get_adopt(const uint8_t *data, size_t bytes, struct rq_entry_adopt *ret)
{
    struct rq_mp_reader r;
    struct rq_entry_adopt e;
    read_begin(&r, data, bytes);
    e.name = get_name(&r);
    e.page_size = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    e.page_count = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    e.version = rq_mp_get_uint(&r, 0, UINT64_MAX);
    enum rq_err err = read_end(&r, data + bytes);
    if (err != RQ_OK) {
        return err;
    }
    if (!adopt_valid(&e)) {
        return RQ_PROTOCOL;
    }
    *ret = e;
    return RQ_OK;
}

/* --- MARK ----------------------------------------------------------------------------------------------------------------- */

static bool mark_valid(const struct rq_entry_mark *e)
{
    return e->db_id != 0 && e->nonce != 0 && (e->first == 0) == (e->count == 0) && e->count <= RQ_MARK_PAGES_MAX &&
           e->first <= UINT32_MAX - e->count;
}

enum rq_err rq_entry_put_mark(struct rq_bytes *out, const struct rq_entry_mark *e)
{
    if (!mark_valid(e)) {
        return RQ_MISUSE;
    }
    struct rq_mp_writer w;
    size_t start = out->size;
    write_begin(&w, out, MARK_FIELDS);
    rq_mp_put_uint(&w, e->db_id);
    rq_mp_put_uint(&w, e->nonce);
    rq_mp_put_uint(&w, e->first);
    rq_mp_put_uint(&w, e->count);
    return write_end(&w, start);
}

enum rq_err rq_entry_get_mark(const uint8_t *data, size_t bytes, struct rq_entry_mark *ret)
{
    struct rq_mp_reader r;
    struct rq_entry_mark e;
    read_begin(&r, data, bytes);
    e.db_id = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    e.nonce = rq_mp_get_uint(&r, 0, UINT64_MAX);
    e.first = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    e.count = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    enum rq_err err = read_end(&r, data + bytes);
    if (err != RQ_OK) {
        return err;
    }
    if (!mark_valid(&e)) {
        return RQ_PROTOCOL;
    }
    *ret = e;
    return RQ_OK;
}
