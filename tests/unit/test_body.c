/* body: pages written are the pages read, and no changed, missing, doubled or swapped byte of a body is taken for good. */
#include "raftd/wire/body.h"
#include "tests/support/exact.h"
#include "tests/support/seeded.h"
#include "tests/support/tap.h"

static void put_page(struct rq_bytes *out, struct rq_body_writer *w, uint32_t pgno, const uint8_t *page)
{
    uint8_t number[RQ_BODY_PAGE_HEAD_BYTES];
    size_t at = out->size;
    rq_put_u32(number, pgno);
    check_eq(rq_bytes_put(out, number, sizeof number), RQ_OK);
    check_eq(rq_bytes_put(out, page, w->head.page_size), RQ_OK);
    check_eq(rq_body_writer_pages(w, out->data + at, out->size - at), RQ_OK);
}

/* Pages 1, 3, 5 ... filled with their number. */
static void write_body(struct rq_bytes *out, uint32_t page_size, uint32_t page_count)
{
    struct rq_body_writer w;
    struct rq_body_head head = { .page_size = page_size, .db_page_count = page_count * 2 + 1 };
    uint8_t head_bytes[RQ_BODY_HEAD_BYTES], tail[RQ_BODY_TAIL_BYTES];
    static uint8_t page[65536];
    rq_bytes_init(out, 1 << 24);
    check_eq(rq_body_writer_init(&w, &head, head_bytes), RQ_OK);
    check_eq(rq_bytes_put(out, head_bytes, sizeof head_bytes), RQ_OK);
    for (uint32_t i = 0; i < page_count; i++) {
        memset(page, (int)(2 * i + 1), page_size);
        put_page(out, &w, 2 * i + 1, page);
    }
    rq_body_writer_end(&w, tail);
    check_eq(rq_bytes_put(out, tail, sizeof tail), RQ_OK);
    rq_body_writer_fini(&w);
    check_eq(out->size, rq_body_bytes(page_size, page_count));
}

/* Reads a body piece by piece, each in an allocation of its own; NOTFOUND when it ends before it is complete. */
static enum rq_err read_body(const uint8_t *data, size_t bytes, uint64_t body_bytes, uint32_t *ret_page_count)
{
    struct rq_body_reader r;
    uint32_t pgno, last = 0;
    enum rq_err err = rq_body_reader_init(&r, body_bytes);
    if (err != RQ_OK) {
        return err;
    }
    while (err == RQ_OK && rq_body_reader_want(&r) > 0) {
        size_t want = rq_body_reader_want(&r);
        if (want > bytes) {
            err = RQ_NOTFOUND;
            break;
        }
        uint8_t *piece = exact_copy(data, want);
        err = rq_body_reader_take(&r, piece, &pgno);
        free(piece);
        data += want;
        bytes -= want;
        if (err == RQ_OK && pgno != 0) {
            check(pgno > last && pgno <= r.head.db_page_count);
            last = pgno;
        }
    }
    *ret_page_count = r.pages_read;
    if (err == RQ_OK) {
        check_eq(bytes, 0);
        uint8_t hash[RQ_BODY_HASH_BYTES];
        rq_body_reader_hash(&r, hash);
        check_eq(memcmp(hash, data - RQ_BODY_HASH_BYTES, sizeof hash), 0);
    }
    rq_body_reader_fini(&r);
    return err;
}

static void pages_come_back_in_every_page_size(void)
{
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
        struct rq_bytes b;
        struct rq_body_reader r;
        write_body(&b, page_size, 5);
        check_eq(rq_body_reader_init(&r, b.size), RQ_OK);
        const uint8_t *at = b.data;
        uint32_t pgno = 0, expected = 1;
        while (rq_body_reader_want(&r) > 0) {
            size_t want = rq_body_reader_want(&r);
            check(want <= RQ_BODY_PIECE_BYTES_MAX);
            check_eq(rq_body_reader_take(&r, at, &pgno), RQ_OK);
            if (pgno != 0) {
                check_eq(pgno, expected);
                check_eq(at[RQ_BODY_PAGE_HEAD_BYTES], expected);
                check_eq(at[want - 1], expected);
                expected += 2;
            }
            at += want;
        }
        check_eq(expected, 11);
        check_eq(rq_body_reader_take(&r, at, &pgno), RQ_MISUSE);
        rq_body_reader_fini(&r);
        rq_bytes_fini(&b);
    }
}

static void a_body_without_pages_is_a_body(void)
{
    struct rq_bytes b;
    uint32_t pages;
    write_body(&b, 512, 0);
    check_eq(read_body(b.data, b.size, b.size, &pages), RQ_OK);
    check_eq(pages, 0);
    rq_bytes_fini(&b);
}

static void writer_refuses_pages_out_of_order_or_past_the_end(void)
{
    struct rq_body_writer w;
    struct rq_body_head head = { .page_size = 512, .db_page_count = 5 };
    static uint8_t two[2 * (RQ_BODY_PAGE_HEAD_BYTES + 512)];
    const size_t one = sizeof two / 2;
    uint8_t head_bytes[RQ_BODY_HEAD_BYTES];
    check_eq(rq_body_writer_init(&w, &(struct rq_body_head){ .page_size = 513, .db_page_count = 1 }, head_bytes),
             RQ_MISUSE);
    check_eq(rq_body_writer_init(&w, &(struct rq_body_head){ .page_size = 512 }, head_bytes), RQ_MISUSE);
    check_eq(rq_body_writer_init(&w, &head, head_bytes), RQ_OK);
    check_eq(rq_body_writer_pages(&w, two, one), RQ_MISUSE); /* page 0 */
    rq_put_u32(two, 3);
    rq_put_u32(two + one, 3);
    check_eq(rq_body_writer_pages(&w, two, one - 1), RQ_MISUSE);
    check_eq(rq_body_writer_pages(&w, two, sizeof two), RQ_MISUSE); /* the same page twice */
    check_eq(w.page_count, 0);
    check_eq(rq_body_writer_pages(&w, two, one), RQ_OK);
    check_eq(rq_body_writer_pages(&w, two, one), RQ_MISUSE);
    rq_put_u32(two, 4);
    rq_put_u32(two + one, 6);
    check_eq(rq_body_writer_pages(&w, two, sizeof two), RQ_MISUSE); /* past the end */
    check_eq(w.page_count, 1);
    rq_body_writer_fini(&w);
}

static void every_changed_bit_is_found(void)
{
    struct rq_bytes b;
    uint32_t pages;
    write_body(&b, 512, 2);
    for (size_t i = 0; i < b.size; i++) {
        b.data[i] ^= (uint8_t)(1u << (i % 8));
        enum rq_err err = read_body(b.data, b.size, b.size, &pages);
        check(err == RQ_CORRUPT || err == RQ_VERSION);
        b.data[i] ^= (uint8_t)(1u << (i % 8));
    }
    check_eq(read_body(b.data, b.size, b.size, &pages), RQ_OK);
    rq_bytes_fini(&b);
}

static void a_body_of_another_length_is_refused(void)
{
    struct rq_bytes b;
    uint32_t pages;
    write_body(&b, 512, 3);
    for (size_t bytes = 0; bytes < b.size; bytes++) {
        check(read_body(b.data, bytes, bytes, &pages) != RQ_OK);
        check(read_body(b.data, bytes, b.size, &pages) != RQ_OK);
    }
    check(read_body(b.data, b.size, b.size + 516, &pages) != RQ_OK);
    check(read_body(b.data, b.size, UINT64_MAX, &pages) != RQ_OK);
    rq_bytes_fini(&b);
}

static void swapped_pages_are_found(void)
{
    struct rq_bytes b;
    uint32_t pages;
    uint8_t piece[516];
    write_body(&b, 512, 2);
    uint8_t *first = b.data + RQ_BODY_HEAD_BYTES, *second = first + sizeof piece;
    memcpy(piece, first, sizeof piece);
    memcpy(first, second, sizeof piece);
    memcpy(second, piece, sizeof piece);
    check_eq(read_body(b.data, b.size, b.size, &pages), RQ_CORRUPT);
    check_eq(pages, 1);
    rq_bytes_fini(&b);
}

static void a_later_format_is_told_apart(void)
{
    struct rq_bytes b;
    uint32_t pages;
    write_body(&b, 512, 1);
    b.data[11] = 2;
    check_eq(read_body(b.data, b.size, b.size, &pages), RQ_VERSION);
    rq_bytes_fini(&b);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(pages_come_back_in_every_page_size),
        TAP(a_body_without_pages_is_a_body),
        TAP(writer_refuses_pages_out_of_order_or_past_the_end),
        TAP(every_changed_bit_is_found),
        TAP(a_body_of_another_length_is_refused),
        TAP(swapped_pages_are_found),
        TAP(a_later_format_is_told_apart),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
