#include "raftd/wire/body.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "raftd/wire/bytes.h"

enum { FORMAT = 1 };
enum { MAGIC_AT = 0, FORMAT_AT = 8, PAGE_SIZE_AT = 12, DB_PAGE_COUNT_AT = 16, ZERO_AT = 20 };
enum { TAIL_PAGE_COUNT_AT = 4, TAIL_HASH_AT = 8 };
static const uint8_t magic[8] = { 'r', 'q', 'v', 'f', 's', 'b', 'd', 'y' };
static const uint8_t zeros[RQ_BODY_HEAD_BYTES - ZERO_AT];

_Static_assert(sizeof(XXH128_canonical_t) == RQ_BODY_HASH_BYTES, "docs/file-format.md");
_Static_assert(TAIL_HASH_AT + RQ_BODY_HASH_BYTES == RQ_BODY_TAIL_BYTES, "docs/file-format.md");

static enum rq_err hash_new(void **ret_hash)
{
    XXH3_state_t *hash = XXH3_createState(); /* aligned as it must be */
    if (hash == NULL) {
        return RQ_NOMEM;
    }
    (void)XXH3_128bits_reset(hash); /* fails for NULL only, and so does update */
    *ret_hash = hash;
    return RQ_OK;
}

static void hash_digest(const void *hash, uint8_t ret_digest[RQ_BODY_HASH_BYTES])
{
    XXH128_canonical_t digest;
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(hash));
    memcpy(ret_digest, digest.digest, RQ_BODY_HASH_BYTES);
}

static bool head_valid(const struct rq_body_head *head)
{
    return rq_page_size_check(head->page_size) && head->db_page_count != 0;
}

uint64_t rq_body_bytes(uint32_t page_size, uint32_t page_count)
{
    return RQ_BODY_HEAD_BYTES + (uint64_t)page_count * (RQ_BODY_PAGE_HEAD_BYTES + page_size) + RQ_BODY_TAIL_BYTES;
}

/* --- writing ------------------------------------------------------------------------------------------------------------ */

enum rq_err rq_body_writer_init(struct rq_body_writer *w, const struct rq_body_head *head,
                                uint8_t ret_head[RQ_BODY_HEAD_BYTES])
{
    if (!head_valid(head)) {
        return RQ_MISUSE;
    }
    *w = (struct rq_body_writer){ .head = *head };
    enum rq_err err = hash_new(&w->hash);
    if (err != RQ_OK) {
        return err;
    }
    memcpy(ret_head + MAGIC_AT, magic, sizeof magic);
    rq_put_u32(ret_head + FORMAT_AT, FORMAT);
    rq_put_u32(ret_head + PAGE_SIZE_AT, head->page_size);
    rq_put_u32(ret_head + DB_PAGE_COUNT_AT, head->db_page_count);
    memset(ret_head + ZERO_AT, 0, sizeof zeros);
    (void)XXH3_128bits_update(w->hash, ret_head, RQ_BODY_HEAD_BYTES);
    return RQ_OK;
}

void rq_body_writer_fini(struct rq_body_writer *w)
{
    (void)XXH3_freeState(w->hash);
    w->hash = NULL;
}

enum rq_err rq_body_writer_pages(struct rq_body_writer *w, const uint8_t *records, size_t bytes)
{
    const size_t record_bytes = RQ_BODY_PAGE_HEAD_BYTES + (size_t)w->head.page_size;
    uint32_t last_pgno = w->last_pgno;
    if (bytes % record_bytes != 0) {
        return RQ_MISUSE;
    }
    for (size_t at = 0; at < bytes; at += record_bytes) {
        uint32_t pgno = rq_get_u32(records + at);
        if (pgno <= last_pgno || pgno > w->head.db_page_count) {
            return RQ_MISUSE;
        }
        last_pgno = pgno;
    }
    (void)XXH3_128bits_update(w->hash, records, bytes);
    w->last_pgno = last_pgno;
    w->page_count += (uint32_t)(bytes / record_bytes);
    return RQ_OK;
}

void rq_body_writer_end(struct rq_body_writer *w, uint8_t ret_tail[RQ_BODY_TAIL_BYTES])
{
    rq_put_u32(ret_tail, 0);
    rq_put_u32(ret_tail + TAIL_PAGE_COUNT_AT, w->page_count);
    (void)XXH3_128bits_update(w->hash, ret_tail, TAIL_HASH_AT);
    hash_digest(w->hash, ret_tail + TAIL_HASH_AT);
}

/* --- reading ------------------------------------------------------------------------------------------------------------ */

enum rq_err rq_body_reader_init(struct rq_body_reader *r, uint64_t body_bytes)
{
    if (body_bytes < RQ_BODY_HEAD_BYTES + RQ_BODY_TAIL_BYTES) {
        return RQ_CORRUPT;
    }
    *r = (struct rq_body_reader){ .body_bytes = body_bytes, .want = RQ_BODY_HEAD_BYTES };
    return hash_new(&r->hash);
}

void rq_body_reader_fini(struct rq_body_reader *r)
{
    (void)XXH3_freeState(r->hash);
    r->hash = NULL;
}

size_t rq_body_reader_want(const struct rq_body_reader *r)
{
    return r->want;
}

static size_t want_after_head(const struct rq_body_reader *r)
{
    return r->pages_read < r->page_count ? RQ_BODY_PAGE_HEAD_BYTES + (size_t)r->head.page_size : RQ_BODY_TAIL_BYTES;
}

static enum rq_err take_head(struct rq_body_reader *r, const uint8_t *piece)
{
    struct rq_body_head head = {
        .page_size = rq_get_u32(piece + PAGE_SIZE_AT),
        .db_page_count = rq_get_u32(piece + DB_PAGE_COUNT_AT),
    };
    if (memcmp(piece + MAGIC_AT, magic, sizeof magic) != 0) {
        return RQ_CORRUPT;
    }
    if (rq_get_u32(piece + FORMAT_AT) != FORMAT) {
        return RQ_VERSION;
    }
    if (!head_valid(&head) || memcmp(piece + ZERO_AT, zeros, sizeof zeros) != 0) {
        return RQ_CORRUPT;
    }
    uint64_t pages_bytes = r->body_bytes - RQ_BODY_HEAD_BYTES - RQ_BODY_TAIL_BYTES;
    uint64_t piece_bytes = RQ_BODY_PAGE_HEAD_BYTES + (uint64_t)head.page_size;
    if (pages_bytes % piece_bytes != 0 || pages_bytes / piece_bytes > head.db_page_count) {
        return RQ_CORRUPT;
    }
    r->head = head;
    r->page_count = (uint32_t)(pages_bytes / piece_bytes);
    (void)XXH3_128bits_update(r->hash, piece, RQ_BODY_HEAD_BYTES);
    r->want = want_after_head(r);
    return RQ_OK;
}

static enum rq_err take_page(struct rq_body_reader *r, const uint8_t *piece, uint32_t *ret_pgno)
{
    uint32_t pgno = rq_get_u32(piece);
    if (pgno <= r->last_pgno || pgno > r->head.db_page_count) {
        return RQ_CORRUPT;
    }
    (void)XXH3_128bits_update(r->hash, piece, r->want);
    r->last_pgno = pgno;
    r->pages_read++;
    r->want = want_after_head(r);
    *ret_pgno = pgno;
    return RQ_OK;
}

static enum rq_err take_tail(struct rq_body_reader *r, const uint8_t *piece)
{
    uint8_t digest[RQ_BODY_HASH_BYTES];
    (void)XXH3_128bits_update(r->hash, piece, TAIL_HASH_AT);
    hash_digest(r->hash, digest);
    if (rq_get_u32(piece) != 0 || rq_get_u32(piece + TAIL_PAGE_COUNT_AT) != r->page_count ||
        memcmp(piece + TAIL_HASH_AT, digest, sizeof digest) != 0) {
        return RQ_CORRUPT;
    }
    r->want = 0;
    return RQ_OK;
}

enum rq_err rq_body_reader_take(struct rq_body_reader *r, const uint8_t *piece, uint32_t *ret_pgno)
{
    *ret_pgno = 0;
    if (r->want == 0) {
        return RQ_MISUSE;
    }
    if (r->head.page_size == 0) {
        return take_head(r, piece);
    }
    return r->pages_read < r->page_count ? take_page(r, piece, ret_pgno) : take_tail(r, piece);
}

void rq_body_reader_hash(const struct rq_body_reader *r, uint8_t ret_hash[RQ_BODY_HASH_BYTES])
{
    hash_digest(r->hash, ret_hash);
}
