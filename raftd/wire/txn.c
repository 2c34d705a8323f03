/* Transaction records: docs/file-format.md#transaction-record.
 *
 *   msgpack array of 8: format, delta count, db_id, page_size, page_count, base, version, origins
 *   deltas:  varint pgno, u64 hash before, u64 hash after, varint bytes of ranges, ranges
 *   range:   varint bytes skipped since the end of the range before, varint length, the bytes of the page after
 *
 * A varint holds 7 bits a byte, lowest first, 0x80 in all but the last.  The delta count is a msgpack uint 32 whatever its
 * value and stands right behind the format, so that it can be filled in at the end. */
#include "raftd/wire/txn.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <endian.h>
#include <xxhash.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/mp.h"

enum {
    FORMAT = 1,
    HEAD_FIELDS = 8,
    DELTA_COUNT_AT = 3, /* array byte, format byte, type byte of the count */
    ORIGIN_BYTES = 16,
    VARINT_BYTES_MAX = 5,
    /* Ranges nearer than this are one range.  Two headers cost more than that many bytes that did not change; and see
     * RANGES_OVERHEAD_MAX. */
    JOIN_BYTES = 5,
    /* Ranges never need more than the whole page and this: with at least JOIN_BYTES skipped before it, a range's header (2
     * bytes when both its numbers are under 128, at most 6) is never longer than what it skips; but the first skips perhaps
     * nothing: 1 byte and 3. */
    RANGES_OVERHEAD_MAX = 4,
};

enum { PAGE1_VERSIONS_AT = 18, PAGE1_STAMP_AT = 72, PAGE1_STAMP_BYTES = 20 };

bool rq_page_size_check(uint32_t page_size)
{
    return page_size >= RQ_PAGE_SIZE_MIN && page_size <= RQ_PAGE_SIZE_MAX && (page_size & (page_size - 1)) == 0;
}

bool rq_txn_head_check(const struct rq_txn_head *head)
{
    return head->db_id != 0 && rq_page_size_check(head->page_size) && head->page_count != 0 &&
           head->origin_count != 0 && head->version > head->base && head->version - head->base == head->origin_count &&
           head->origin_count <= UINT32_MAX / ORIGIN_BYTES;
}

void rq_page1_normalise(uint8_t *page1)
{
    page1[PAGE1_VERSIONS_AT] = 1;
    page1[PAGE1_VERSIONS_AT + 1] = 1;
    memset(page1 + PAGE1_STAMP_AT, 0, PAGE1_STAMP_BYTES);
}

uint64_t rq_page_hash(const uint8_t *page, uint32_t page_size)
{
    return XXH3_64bits(page, page_size);
}

/* rq_page_hash() of a page of zeros, for 512, 1024 .. 65536. */
static const uint64_t zero_hashes[8] = {
    0xb2987a9d949e807cull, 0xde5f15ab6daf7941ull, 0x211d551610b7f84aull, 0x93d76fe148c689baull,
    0x620797930ab0991aull, 0xb7ce04b81707a4d0ull, 0xbfe2ad64afaf0dd7ull, 0x33b202d302b65caaull,
};

static uint64_t zero_hash(uint32_t page_size)
{
    return zero_hashes[__builtin_ctz(page_size) - 9];
}

/* --- varints ---------------------------------------------------------------------------------------------------------- */

static uint8_t *put_varint(uint8_t *p, uint32_t v)
{
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

/* NULL when it is cut off, or more than 32 bits. */
static const uint8_t *get_varint(const uint8_t *p, const uint8_t *end, uint32_t *ret_v)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < VARINT_BYTES_MAX && p < end; i++) {
        uint8_t byte = *p++;
        v |= (uint64_t)(byte & 0x7fu) << (7 * i);
        if (byte < 0x80) {
            *ret_v = (uint32_t)v;
            return v <= UINT32_MAX ? p : NULL;
        }
    }
    return NULL;
}

/* --- the difference of two pages --------------------------------------------------------------------------------------- */

enum { BLOCK_BYTES = 64, WORD_BYTES = 8 };
static const uint8_t zero_block[BLOCK_BYTES];

struct ranges_writer {
    uint8_t *out;
    const uint8_t *page;
    uint32_t done;       /* end of the last range written */
    uint32_t begin, end; /* the open range; empty at first */
};

static void write_open_range(struct ranges_writer *w)
{
    uint32_t bytes = w->end - w->begin;
    if (bytes == 0) {
        return;
    }
    w->out = put_varint(w->out, w->begin - w->done);
    w->out = put_varint(w->out, bytes);
    memcpy(w->out, w->page + w->begin, bytes);
    w->out += bytes;
    w->done = w->end;
}

static void add_changed(struct ranges_writer *w, uint32_t begin, uint32_t end)
{
    if (w->end == 0 || begin - w->end >= JOIN_BYTES) {
        write_open_range(w);
        w->begin = begin;
    }
    w->end = end;
}

/* The first byte in memory is the lowest. */
static uint64_t load_word(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

static bool block_equal(const uint8_t *a, const uint8_t *b)
{
    uint64_t differ = 0;
    for (unsigned i = 0; i < BLOCK_BYTES; i += WORD_BYTES) {
        uint64_t x, y;
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        differ |= x ^ y;
    }
    return differ == 0;
}

/* Writes the ranges in which page differs from base (NULL: zeros) and returns where they end.  out has room for page_size +
 * RANGES_OVERHEAD_MAX. */
static uint8_t *write_ranges(uint8_t *out, const uint8_t *base, const uint8_t *page, uint32_t page_size)
{
    struct ranges_writer w = { .out = out, .page = page };
    for (uint32_t at = 0; at < page_size; at += BLOCK_BYTES) {
        const uint8_t *base_block = base != NULL ? base + at : zero_block;
        if (block_equal(base_block, page + at)) {
            continue;
        }
        for (uint32_t i = 0; i < BLOCK_BYTES; i += WORD_BYTES) {
            uint64_t differ = load_word(base_block + i) ^ load_word(page + at + i);
            if (differ != 0) {
                uint32_t first = (uint32_t)__builtin_ctzll(differ) / 8;
                uint32_t last = 7 - (uint32_t)__builtin_clzll(differ) / 8;
                add_changed(&w, at + i + first, at + i + last + 1);
            }
        }
    }
    write_open_range(&w);
    return w.out;
}

static bool is_zero(const uint8_t *page, uint32_t page_size)
{
    return page[0] == 0 && memcmp(page, page + 1, page_size - 1) == 0;
}

/* --- walking what was built, or came from outside ------------------------------------------------------------------------ */

/* The delta at p without a look at its ranges; NULL if it is cut off. */
static const uint8_t *get_delta(const uint8_t *p, const uint8_t *end, struct rq_delta *ret_delta)
{
    uint32_t ranges_bytes;
    p = get_varint(p, end, &ret_delta->pgno);
    if (p == NULL || end - p < 16) {
        return NULL;
    }
    ret_delta->before = rq_get_u64(p);
    ret_delta->after = rq_get_u64(p + 8);
    p = get_varint(p + 16, end, &ranges_bytes);
    if (p == NULL || (size_t)(end - p) < ranges_bytes) {
        return NULL;
    }
    ret_delta->ranges = p;
    ret_delta->ranges_bytes = ranges_bytes;
    return p + ranges_bytes;
}

struct range {
    uint32_t offset, bytes; /* in the page */
    const uint8_t *data;
};

/* The range at p into *range, which holds the one before it (at first: none, all 0).  NULL if it is cut off, empty, or runs past
 * the page. */
static const uint8_t *get_range(const uint8_t *p, const uint8_t *end, uint32_t page_size, struct range *range)
{
    uint32_t skip, bytes;
    uint32_t left = page_size - (range->offset + range->bytes);
    p = get_varint(p, end, &skip);
    if (p == NULL || skip > left) {
        return NULL;
    }
    p = get_varint(p, end, &bytes);
    if (p == NULL || bytes == 0 || bytes > left - skip || (size_t)(end - p) < bytes) {
        return NULL;
    }
    *range = (struct range){ .offset = page_size - left + skip, .bytes = bytes, .data = p };
    return p + bytes;
}

static bool ranges_valid(const struct rq_delta *delta, uint32_t page_size)
{
    const uint8_t *end = delta->ranges + delta->ranges_bytes;
    struct range range = { 0 };
    for (const uint8_t *p = delta->ranges; p < end;) {
        p = get_range(p, end, page_size, &range);
        if (p == NULL) {
            return false;
        }
    }
    return true;
}

/* The head; reader is then before the first delta. */
static enum rq_err read_head(struct rq_txn_reader *reader, const uint8_t *data, size_t bytes)
{
    struct rq_mp_reader r;
    struct rq_txn_head head;
    uint32_t origins_bytes;
    rq_mp_read_begin(&r, data, bytes);
    if (rq_mp_get_uint(&r, 0, UINT64_MAX) != FORMAT) {
        rq_mp_read_fail(&r, RQ_VERSION);
    }
    uint32_t delta_count = (uint32_t)rq_mp_get_uint(&r, 0, UINT32_MAX);
    head.db_id = (uint32_t)rq_mp_get_uint(&r, 1, UINT32_MAX);
    head.page_size = (uint32_t)rq_mp_get_uint(&r, RQ_PAGE_SIZE_MIN, RQ_PAGE_SIZE_MAX);
    head.page_count = (uint32_t)rq_mp_get_uint(&r, 1, UINT32_MAX);
    head.base = rq_mp_get_uint(&r, 0, UINT64_MAX);
    head.version = rq_mp_get_uint(&r, 1, UINT64_MAX);
    const uint8_t *origins = rq_mp_get_bin(&r, UINT32_MAX, &origins_bytes);
    enum rq_err err = rq_mp_read_end(&r);
    if (err != RQ_OK) {
        return err;
    }
    head.origin_count = origins_bytes / ORIGIN_BYTES;
    if (origins_bytes % ORIGIN_BYTES != 0 || !rq_txn_head_check(&head)) {
        return RQ_PROTOCOL;
    }
    *reader = (struct rq_txn_reader){
        .head = head,
        .delta_count = delta_count,
        .origins = origins,
        .next = r.end,
        .end = data + bytes,
        .deltas_left = delta_count,
    };
    return RQ_OK;
}

/* The next delta, whose number must be above the last and within the database.  Its ranges are not looked at. */
static enum rq_err next_delta(struct rq_txn_reader *reader, struct rq_delta *ret_delta)
{
    struct rq_delta delta;
    const uint8_t *next = get_delta(reader->next, reader->end, &delta);
    if (next == NULL || delta.pgno <= reader->last_pgno || delta.pgno > reader->head.page_count) {
        return RQ_PROTOCOL;
    }
    reader->next = next;
    reader->last_pgno = delta.pgno;
    *ret_delta = delta;
    return RQ_OK;
}

/* --- building ---------------------------------------------------------------------------------------------------------- */

enum rq_err rq_txn_begin(struct rq_bytes *out, const struct rq_txn_head *head, const struct rq_origin *origins)
{
    if (!rq_txn_head_check(head)) {
        return RQ_MISUSE;
    }
    size_t start = out->size;
    struct rq_mp_writer w;
    rq_mp_write_begin(&w, out, HEAD_FIELDS);
    rq_mp_put_uint(&w, FORMAT);
    rq_mp_put_u32_fixed(&w, 0);
    rq_mp_put_uint(&w, head->db_id);
    rq_mp_put_uint(&w, head->page_size);
    rq_mp_put_uint(&w, head->page_count);
    rq_mp_put_uint(&w, head->base);
    rq_mp_put_uint(&w, head->version);
    rq_mp_put_bin_head(&w, head->origin_count * ORIGIN_BYTES);
    for (uint32_t i = 0; i < head->origin_count && w.err == RQ_OK; i++) {
        uint8_t packed[ORIGIN_BYTES];
        rq_put_u64(packed, origins[i].session);
        rq_put_u64(packed + 8, origins[i].seq);
        w.err = rq_bytes_put(out, packed, sizeof packed);
    }
    if (w.err != RQ_OK) {
        out->size = start;
    }
    return w.err;
}

enum rq_err rq_txn_add(struct rq_bytes *out, uint32_t pgno, const uint8_t *base, const uint8_t *page,
                       uint32_t page_size)
{
    if (pgno == 0 || !rq_page_size_check(page_size)) {
        return RQ_MISUSE;
    }
    enum { HEAD_BYTES_MAX = VARINT_BYTES_MAX + 8 + 8 + VARINT_BYTES_MAX };
    enum rq_err err = rq_bytes_reserve(out, HEAD_BYTES_MAX + (size_t)page_size + RANGES_OVERHEAD_MAX);
    if (err != RQ_OK) {
        return err;
    }
    /* The ranges first, where they end up if their head is as long as it can be; then the head; then they move up to it. */
    uint8_t *p = out->data + out->size;
    uint8_t *ranges = p + HEAD_BYTES_MAX;
    size_t ranges_bytes = (size_t)(write_ranges(ranges, base, page, page_size) - ranges);
    if (ranges_bytes == 0) {
        return RQ_OK; /* nothing changed */
    }
    if (is_zero(page, page_size)) {
        ranges_bytes = 0;
    }
    p = put_varint(p, pgno);
    rq_put_u64(p, base != NULL ? rq_page_hash(base, page_size) : zero_hash(page_size));
    rq_put_u64(p + 8, rq_page_hash(page, page_size));
    p = put_varint(p + 16, (uint32_t)ranges_bytes);
    memmove(p, ranges, ranges_bytes);
    out->size = (size_t)(p + ranges_bytes - out->data);
    return RQ_OK;
}

enum rq_err rq_txn_end(struct rq_bytes *out, size_t start)
{
    struct rq_txn_reader reader;
    struct rq_delta delta;
    uint32_t count = 0;
    enum rq_err err = read_head(&reader, out->data + start, out->size - start);
    for (; err == RQ_OK && reader.next < reader.end; count++) {
        err = next_delta(&reader, &delta);
    }
    if (err != RQ_OK) {
        return RQ_MISUSE;
    }
    rq_put_u32(out->data + start + DELTA_COUNT_AT, count);
    return RQ_OK;
}

/* --- reading ------------------------------------------------------------------------------------------------------------ */

enum rq_err rq_txn_read(struct rq_txn_reader *reader, const uint8_t *data, size_t bytes)
{
    struct rq_txn_reader whole, walk;
    struct rq_delta delta;
    enum rq_err err = read_head(&whole, data, bytes);
    if (err != RQ_OK) {
        return err;
    }
    walk = whole;
    while (walk.deltas_left > 0) {
        err = rq_txn_next(&walk, &delta);
        if (err != RQ_OK) {
            return err;
        }
        if (!ranges_valid(&delta, walk.head.page_size)) {
            return RQ_PROTOCOL;
        }
    }
    if (walk.next != walk.end) {
        return RQ_PROTOCOL;
    }
    *reader = whole;
    return RQ_OK;
}

struct rq_origin rq_txn_origin(const struct rq_txn_reader *reader, uint32_t i)
{
    const uint8_t *p = reader->origins + (size_t)i * ORIGIN_BYTES;
    return (struct rq_origin){ .session = rq_get_u64(p), .seq = rq_get_u64(p + 8) };
}

enum rq_err rq_txn_next(struct rq_txn_reader *reader, struct rq_delta *ret_delta)
{
    if (reader->deltas_left == 0) {
        return RQ_NOTFOUND;
    }
    enum rq_err err = next_delta(reader, ret_delta);
    if (err == RQ_OK) {
        reader->deltas_left--;
    }
    return err;
}

static void put_ranges(const struct rq_delta *delta, uint8_t *page, uint32_t page_size)
{
    if (delta->ranges_bytes == 0) {
        memset(page, 0, page_size);
    }
    const uint8_t *end = delta->ranges + delta->ranges_bytes;
    struct range range = { 0 };
    for (const uint8_t *p = delta->ranges; p < end;) {
        p = get_range(p, end, page_size, &range);
        memcpy(page + range.offset, range.data, range.bytes);
    }
}

enum rq_err rq_delta_apply(const struct rq_delta *delta, uint8_t *page, uint32_t page_size)
{
    if (!ranges_valid(delta, page_size)) {
        return RQ_PROTOCOL;
    }
    uint64_t hash = rq_page_hash(page, page_size);
    if (hash == delta->after) {
        return RQ_OK;
    }
    if (hash != delta->before) {
        return RQ_CORRUPT;
    }
    put_ranges(delta, page, page_size);
    return rq_page_hash(page, page_size) == delta->after ? RQ_OK : RQ_CORRUPT;
}

enum rq_err rq_delta_put(const struct rq_delta *delta, uint8_t *page, uint32_t page_size)
{
    if (!ranges_valid(delta, page_size)) {
        return RQ_PROTOCOL;
    }
    put_ranges(delta, page, page_size);
    return RQ_OK;
}

bool rq_delta_covers(const struct rq_delta *delta, uint32_t page_size, uint32_t begin, uint32_t end)
{
    const uint8_t *ranges_end = delta->ranges + delta->ranges_bytes;
    struct range range = { 0 };
    bool covers = delta->ranges_bytes == 0; /* all of it is zero */
    for (const uint8_t *p = delta->ranges; p != NULL && p < ranges_end && !covers;) {
        p = get_range(p, ranges_end, page_size, &range);
        covers = range.offset < end && begin < range.offset + range.bytes;
    }
    return covers;
}
