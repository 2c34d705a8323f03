/* txn: a record turns the base pages into the pages after, once or twice; small changes make small records; no input, however
 * mangled, is read past its end or half believed. */
#include "raftd/wire/bytes.h"
#include "raftd/wire/txn.h"
#include "tests/support/exact.h"
#include "tests/support/seeded.h"
#include "tests/support/tap.h"

enum { RECORD_MAX = 1 << 22 };

static struct rq_txn_head head_of(uint32_t page_size, uint32_t page_count)
{
    return (struct rq_txn_head){
        .db_id = 3, .page_size = page_size, .page_count = page_count, .base = 41, .version = 42, .origin_count = 1
    };
}
static const struct rq_origin origin = { .session = 0x1122334455667788ull, .seq = 9 };

/* A record of one page. */
static void build_one(struct rq_bytes *out, const uint8_t *base, const uint8_t *page, uint32_t page_size)
{
    struct rq_txn_head head = head_of(page_size, 1);
    rq_bytes_init(out, RECORD_MAX);
    check_eq(rq_txn_begin(out, &head, &origin), RQ_OK);
    check_eq(rq_txn_add(out, 1, base, page, page_size), RQ_OK);
    check_eq(rq_txn_end(out, 0), RQ_OK);
}

static void read_one(const struct rq_bytes *record, struct rq_delta *ret_delta)
{
    struct rq_txn_reader reader;
    check_eq(rq_txn_read(&reader, record->data, record->size), RQ_OK);
    check_eq(reader.delta_count, 1);
    check_eq(rq_txn_next(&reader, ret_delta), RQ_OK);
    check_eq(rq_txn_next(&reader, &(struct rq_delta){ 0 }), RQ_NOTFOUND);
}

static void head_and_origins_come_back(void)
{
    struct rq_bytes record;
    rq_bytes_init(&record, RECORD_MAX);
    struct rq_txn_head head = { .db_id = UINT32_MAX,
                                .page_size = 65536,
                                .page_count = UINT32_MAX,
                                .base = UINT64_MAX - 300,
                                .version = UINT64_MAX,
                                .origin_count = 300 };
    struct rq_origin origins[300];
    for (uint32_t i = 0; i < 300; i++) {
        origins[i] = (struct rq_origin){ .session = UINT64_MAX - i, .seq = i + 1 };
    }
    check_eq(rq_bytes_put(&record, "before", 6), RQ_OK);
    check_eq(rq_txn_begin(&record, &head, origins), RQ_OK);
    check_eq(rq_txn_end(&record, 6), RQ_OK);
    struct rq_txn_reader reader;
    check_eq(rq_txn_read(&reader, record.data + 6, record.size - 6), RQ_OK);
    check(reader.head.db_id == UINT32_MAX);
    check_eq(reader.head.page_size, 65536);
    check(reader.head.page_count == UINT32_MAX && reader.head.base == head.base && reader.head.version == head.version);
    check_eq(reader.head.origin_count, 300);
    for (uint32_t i = 0; i < 300; i++) {
        struct rq_origin o = rq_txn_origin(&reader, i);
        check(o.session == origins[i].session && o.seq == origins[i].seq);
    }
    check_eq(rq_txn_next(&reader, &(struct rq_delta){ 0 }), RQ_NOTFOUND);
    rq_bytes_fini(&record);
}

static void begin_refuses_a_head_that_no_reader_takes(void)
{
    struct rq_bytes record;
    rq_bytes_init(&record, RECORD_MAX);
    const struct rq_txn_head good = head_of(4096, 7);
    struct rq_txn_head bad[9];
    for (size_t i = 0; i < 9; i++) {
        bad[i] = good;
    }
    bad[0].db_id = 0;
    bad[1].page_size = 256;
    bad[2].page_size = 131072;
    bad[3].page_size = 4097;
    bad[4].page_count = 0;
    bad[5].version = bad[5].base;
    bad[6].version = bad[6].base + 2;
    bad[7].origin_count = 0;
    bad[8].version = bad[8].base - 1;
    for (size_t i = 0; i < 9; i++) {
        check_eq(rq_txn_begin(&record, &bad[i], &origin), RQ_MISUSE);
        check_eq(record.size, 0);
    }
    rq_bytes_fini(&record);
}

static void end_refuses_pages_out_of_order_or_past_the_end(void)
{
    static const uint8_t page[512] = { 1 };
    const uint32_t orders[][2] = { { 2, 1 }, { 2, 2 }, { 1, 4 } };
    for (size_t i = 0; i < 3; i++) {
        struct rq_bytes record;
        struct rq_txn_head head = head_of(512, 3);
        rq_bytes_init(&record, RECORD_MAX);
        check_eq(rq_txn_begin(&record, &head, &origin), RQ_OK);
        check_eq(rq_txn_add(&record, orders[i][0], NULL, page, 512), RQ_OK);
        check_eq(rq_txn_add(&record, orders[i][1], NULL, page, 512), RQ_OK);
        check_eq(rq_txn_end(&record, 0), RQ_MISUSE);
        rq_bytes_fini(&record);
    }
}

static void applying_once_or_twice_gives_the_page_after(void)
{
    uint64_t seed = 20260101;
    static uint8_t base[65536], page[65536], work[65536];
    for (unsigned round = 0; round < 4000; round++) {
        uint32_t page_size = 512u << (round % 16 == 0 ? seeded_below(&seed, 8) : seeded_below(&seed, 4));
        bool has_base = seeded_below(&seed, 8) != 0;
        memset(base, 0, page_size);
        if (has_base) {
            seeded_page(&seed, base, page_size);
        }
        memcpy(page, base, page_size);
        seeded_change(&seed, page, page_size);

        struct rq_bytes record;
        struct rq_delta delta;
        build_one(&record, has_base ? base : NULL, page, page_size);
        check(record.size <= page_size + 90u);
        if (memcmp(base, page, page_size) != 0) {
            read_one(&record, &delta);
            memcpy(work, base, page_size);
            check_eq(rq_delta_apply(&delta, work, page_size), RQ_OK);
            check_eq(memcmp(work, page, page_size), 0);
            check_eq(rq_delta_apply(&delta, work, page_size), RQ_OK);
            check_eq(memcmp(work, page, page_size), 0);
        } else {
            struct rq_txn_reader reader;
            check_eq(rq_txn_read(&reader, record.data, record.size), RQ_OK);
            check_eq(reader.delta_count, 0);
        }
        rq_bytes_fini(&record);
    }
}

static void every_single_changed_byte_is_carried(void)
{
    static uint8_t base[512], page[512];
    uint64_t seed = 5;
    seeded_fill(&seed, base, sizeof base);
    for (uint32_t i = 0; i < sizeof base; i++) {
        for (uint32_t j = i; j < sizeof base; j += 37) {
            struct rq_bytes record;
            struct rq_delta delta;
            memcpy(page, base, sizeof page);
            page[i] ^= 0x80;
            page[j] ^= 0x01;
            build_one(&record, base, page, sizeof page);
            read_one(&record, &delta);
            check(delta.ranges_bytes <= 9);
            uint8_t work[512];
            memcpy(work, base, sizeof work);
            check_eq(rq_delta_apply(&delta, work, sizeof work), RQ_OK);
            check_eq(memcmp(work, page, sizeof work), 0);
            rq_bytes_fini(&record);
        }
    }
}

static void worst_pattern_stays_near_the_page_size(void)
{
    static uint8_t page[65536];
    for (uint32_t period = 1; period <= 16; period++) {
        struct rq_bytes record;
        struct rq_delta delta;
        for (uint32_t i = 0; i < sizeof page; i++) {
            page[i] = i % period == 0;
        }
        build_one(&record, NULL, page, sizeof page);
        read_one(&record, &delta);
        check(delta.ranges_bytes <= sizeof page + 4);
        rq_bytes_fini(&record);
    }
}

static void a_page_that_becomes_zero_is_a_tiny_delta(void)
{
    static uint8_t base[4096], work[4096];
    static const uint8_t zero[4096];
    uint64_t seed = 6;
    struct rq_bytes record;
    struct rq_delta delta;
    seeded_fill(&seed, base, sizeof base);
    build_one(&record, base, zero, sizeof base);
    check(record.size < 80);
    read_one(&record, &delta);
    check_eq(delta.ranges_bytes, 0);
    memcpy(work, base, sizeof work);
    check_eq(rq_delta_apply(&delta, work, sizeof work), RQ_OK);
    check_eq(memcmp(work, zero, sizeof work), 0);
    rq_bytes_fini(&record);
}

static void base_null_is_a_page_of_zeros(void)
{
    static uint8_t zero[65536], page[65536];
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
        struct rq_bytes with_null, with_zeros;
        memset(page, 0x5a, page_size);
        build_one(&with_null, NULL, page, page_size);
        build_one(&with_zeros, zero, page, page_size);
        check_eq(with_null.size, with_zeros.size);
        check_eq(memcmp(with_null.data, with_zeros.data, with_null.size), 0);
        rq_bytes_fini(&with_null);
        rq_bytes_fini(&with_zeros);
    }
}

static void a_wrong_base_or_result_is_corrupt(void)
{
    static uint8_t base[1024], page[1024], work[1024];
    uint64_t seed = 7;
    struct rq_bytes record;
    struct rq_delta delta;
    seeded_fill(&seed, base, sizeof base);
    memcpy(page, base, sizeof page);
    page[100] ^= 1;
    build_one(&record, base, page, sizeof page);
    read_one(&record, &delta);

    memcpy(work, base, sizeof work);
    work[1000] ^= 1;
    uint8_t before[1024];
    memcpy(before, work, sizeof work);
    check_eq(rq_delta_apply(&delta, work, sizeof work), RQ_CORRUPT);
    check_eq(memcmp(work, before, sizeof work), 0);

    delta.after ^= 1;
    memcpy(work, base, sizeof work);
    check_eq(rq_delta_apply(&delta, work, sizeof work), RQ_CORRUPT);
    rq_bytes_fini(&record);
}

static void bytes_can_be_put_into_any_page(void)
{
    static uint8_t base[1024], page[1024], other[1024], wanted[1024];
    uint64_t seed = 8;
    struct rq_bytes record;
    struct rq_delta delta;
    seeded_fill(&seed, base, sizeof base);
    memcpy(page, base, sizeof page);
    page[100] ^= 1;
    page[700] ^= 1;
    build_one(&record, base, page, sizeof page);
    read_one(&record, &delta);
    memcpy(other, base, sizeof other);
    other[1000] ^= 1;
    memcpy(wanted, page, sizeof wanted);
    wanted[1000] ^= 1;
    check_eq(rq_delta_put(&delta, other, sizeof other), RQ_OK);
    check_eq(memcmp(other, wanted, sizeof other), 0);
    check_eq(rq_delta_put(&delta, other, 512), RQ_PROTOCOL);
    rq_bytes_fini(&record);

    memset(page, 0, sizeof page); /* a page that becomes zeros does so whatever it was */
    build_one(&record, base, page, sizeof page);
    read_one(&record, &delta);
    check_eq(rq_delta_put(&delta, other, sizeof other), RQ_OK);
    check_eq(memcmp(other, page, sizeof other), 0);
    rq_bytes_fini(&record);
}

static void apply_refuses_a_delta_for_a_larger_page(void)
{
    static uint8_t page[1024], work[512];
    struct rq_bytes record;
    struct rq_delta delta;
    page[1023] = 1;
    build_one(&record, NULL, page, sizeof page);
    read_one(&record, &delta);
    check_eq(rq_delta_apply(&delta, work, sizeof work), RQ_PROTOCOL);
    rq_bytes_fini(&record);
}

static void apply_refuses_ranges_that_are_no_ranges(void)
{
    static const struct {
        const char *what;
        uint8_t bytes[8];
        size_t size;
    } wrong[] = {
        { "past the page", { 0xff, 0x03, 2, 1, 1 }, 5 },
        { "skips past the page", { 0x81, 0x04, 1, 1 }, 4 },
        { "sum past the page", { 0, 1, 1, 0xff, 0x03, 1, 1 }, 7 },
        { "longer than its bytes", { 0, 3, 1, 1 }, 4 },
        { "empty", { 5, 0 }, 2 },
        { "no length", { 5 }, 1 },
        { "number cut off", { 0x80 }, 1 },
        { "33 bits", { 0x80, 0x80, 0x80, 0x80, 0x10, 1, 1 }, 7 },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint8_t page[512] = { 0 };
        uint8_t *copy = exact_copy(wrong[i].bytes, wrong[i].size);
        struct rq_delta delta = {
            .pgno = 1, .before = rq_page_hash(page, 512), .ranges = copy, .ranges_bytes = wrong[i].size
        };
        enum rq_err err = rq_delta_apply(&delta, page, 512);
        free(copy);
        printf("# %s\n", wrong[i].what);
        check_eq(err, RQ_PROTOCOL);
    }
}

static void normal_form_hides_stamp_and_write_version(void)
{
    uint8_t page[512];
    memset(page, 0xee, sizeof page);
    rq_page1_normalise(page);
    for (uint32_t i = 0; i < sizeof page; i++) {
        check_eq(page[i], i == 18 || i == 19 ? 1 : i >= 72 && i < 92 ? 0 : 0xee);
    }
}

static void a_delta_says_which_bytes_it_covers(void)
{
    static const uint8_t zeros[1024];
    static uint8_t marked[1024];
    struct rq_bytes record;
    struct rq_delta delta;
    marked[40] = marked[43] = marked[500] = 1;
    build_one(&record, zeros, marked, 1024);
    read_one(&record, &delta);
    check(rq_delta_covers(&delta, 1024, 40, 44) && rq_delta_covers(&delta, 1024, 0, 41));
    check(rq_delta_covers(&delta, 1024, 43, 100) && rq_delta_covers(&delta, 1024, 500, 501));
    check(!rq_delta_covers(&delta, 1024, 0, 40) && !rq_delta_covers(&delta, 1024, 44, 500));
    check(!rq_delta_covers(&delta, 1024, 501, 1024));
    rq_bytes_fini(&record);
    build_one(&record, marked, zeros, 1024); /* it becomes zero */
    read_one(&record, &delta);
    check(rq_delta_covers(&delta, 1024, 7, 8));
    rq_bytes_fini(&record);
}

/* What a single INSERT into a table with one index does to its pages: counters on page 1; on each leaf a cell, its pointer, a
 * larger cell count and a lower start of content. */
static void a_small_insert_is_small(void)
{
    static uint8_t base[3][4096], page[3][4096];
    uint64_t seed = 8;
    struct rq_bytes record;
    struct rq_txn_head head = head_of(4096, 1000);
    for (unsigned i = 0; i < 3; i++) {
        seeded_fill(&seed, base[i], 2000);
        seeded_fill(&seed, base[i] + 2600, 1496);
        memcpy(page[i], base[i], 4096);
    }
    page[0][27]++;
    page[0][95]++;
    for (unsigned i = 1; i < 3; i++) {
        page[i][4]++;
        page[i][6]++;
        seeded_fill(&seed, page[i] + 2000, 2);
        seeded_fill(&seed, page[i] + 2600 - 100, 100);
    }
    rq_bytes_init(&record, RECORD_MAX);
    check_eq(rq_txn_begin(&record, &head, &origin), RQ_OK);
    const uint32_t pgnos[] = { 1, 420, 990 };
    for (unsigned i = 0; i < 3; i++) {
        check_eq(rq_txn_add(&record, pgnos[i], base[i], page[i], 4096), RQ_OK);
    }
    check_eq(rq_txn_end(&record, 0), RQ_OK);
    printf("# %zu bytes, 210 of them new\n", record.size);
    check(record.size <= 360);
    rq_bytes_fini(&record);
}

/* Reads all of a record and applies it to pages of zeros; whatever the bytes are, this must come back. */
static bool swallow(const uint8_t *data, size_t bytes)
{
    struct rq_txn_reader reader;
    struct rq_delta delta;
    enum rq_err err = rq_txn_read(&reader, data, bytes);
    if (err != RQ_OK) {
        check(err == RQ_PROTOCOL || err == RQ_VERSION);
        return false;
    }
    for (uint32_t i = 0; i < reader.head.origin_count; i++) {
        (void)rq_txn_origin(&reader, i);
    }
    uint32_t count = 0, last = 0;
    while ((err = rq_txn_next(&reader, &delta)) == RQ_OK) {
        check(delta.pgno > last && delta.pgno <= reader.head.page_count);
        last = delta.pgno;
        count++;
        uint8_t *page = calloc(reader.head.page_size, 1);
        check(page != NULL);
        delta.before = rq_page_hash(page, reader.head.page_size);
        err = rq_delta_apply(&delta, page, reader.head.page_size);
        free(page);
        check(err == RQ_OK || err == RQ_CORRUPT);
    }
    check_eq(err, RQ_NOTFOUND);
    check_eq(count, reader.delta_count);
    return true;
}

static void build_mixed(struct rq_bytes *record)
{
    static uint8_t base[5][512], page[5][512];
    uint64_t seed = 9;
    struct rq_txn_head head = {
        .db_id = 3, .page_size = 512, .page_count = 1 << 30, .base = 41, .version = 43, .origin_count = 2
    };
    const struct rq_origin origins[] = { origin, { .session = 1, .seq = 1 } };
    const uint32_t pgnos[] = { 1, 2, 200, 70000, 1 << 29 };
    rq_bytes_init(record, RECORD_MAX);
    check_eq(rq_txn_begin(record, &head, origins), RQ_OK);
    for (unsigned i = 0; i < 5; i++) {
        seeded_fill(&seed, base[i], 512);
        memcpy(page[i], base[i], 512);
        for (unsigned n = 0; n < 5; n++) {
            page[i][seeded_below(&seed, 512)] ^= 1;
        }
        if (i == 3) {
            memset(page[i], 0, 512);
        }
        check_eq(rq_txn_add(record, pgnos[i], base[i], page[i], 512), RQ_OK);
    }
    check_eq(rq_txn_end(record, 0), RQ_OK);
}

static void every_truncation_is_refused(void)
{
    struct rq_bytes record;
    build_mixed(&record);
    check(swallow(record.data, record.size));
    for (size_t bytes = 0; bytes < record.size; bytes++) {
        uint8_t *copy = exact_copy(record.data, bytes);
        bool taken = swallow(copy, bytes);
        free(copy);
        check(!taken);
    }
    check_eq(rq_bytes_put(&record, "", 1), RQ_OK);
    check(!swallow(record.data, record.size));
    rq_bytes_fini(&record);
}

static void random_mutations_are_harmless(void)
{
    struct rq_bytes record;
    uint64_t seed = 10;
    build_mixed(&record);
    unsigned taken = 0;
    for (unsigned round = 0; round < 100000; round++) {
        size_t bytes = record.size - (seeded_below(&seed, 4) == 0 ? seeded_below(&seed, 20) : 0);
        uint8_t *copy = exact_copy(record.data, bytes);
        for (unsigned n = 1 + seeded_below(&seed, 4); n > 0; n--) {
            copy[seeded_below(&seed, (uint32_t)bytes)] = (uint8_t)seeded_next(&seed);
        }
        taken += swallow(copy, bytes);
        free(copy);
    }
    check(taken > 0 && taken < 100000);
    rq_bytes_fini(&record);
}

static void a_later_format_is_told_apart(void)
{
    struct rq_bytes record;
    struct rq_txn_reader reader;
    build_mixed(&record);
    record.data[1] = 2;
    check_eq(rq_txn_read(&reader, record.data, record.size), RQ_VERSION);
    rq_bytes_fini(&record);
}

static void a_full_buffer_leaves_the_record_as_it_was(void)
{
    static const uint8_t page[4096] = { 1 };
    struct rq_bytes record;
    struct rq_txn_head head = head_of(4096, 9);
    rq_bytes_init(&record, 20);
    check_eq(rq_txn_begin(&record, &head, &origin), RQ_TOOBIG);
    check_eq(record.size, 0);
    rq_bytes_fini(&record);
    rq_bytes_init(&record, 100);
    check_eq(rq_txn_begin(&record, &head, &origin), RQ_OK);
    size_t size = record.size;
    check_eq(rq_txn_add(&record, 1, NULL, page, sizeof page), RQ_TOOBIG);
    check_eq(record.size, size);
    rq_bytes_fini(&record);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(head_and_origins_come_back),
        TAP(begin_refuses_a_head_that_no_reader_takes),
        TAP(end_refuses_pages_out_of_order_or_past_the_end),
        TAP(applying_once_or_twice_gives_the_page_after),
        TAP(every_single_changed_byte_is_carried),
        TAP(worst_pattern_stays_near_the_page_size),
        TAP(a_page_that_becomes_zero_is_a_tiny_delta),
        TAP(base_null_is_a_page_of_zeros),
        TAP(a_wrong_base_or_result_is_corrupt),
        TAP(bytes_can_be_put_into_any_page),
        TAP(apply_refuses_a_delta_for_a_larger_page),
        TAP(apply_refuses_ranges_that_are_no_ranges),
        TAP(normal_form_hides_stamp_and_write_version),
        TAP(a_delta_says_which_bytes_it_covers),
        TAP(a_small_insert_is_small),
        TAP(every_truncation_is_refused),
        TAP(random_mutations_are_harmless),
        TAP(a_later_format_is_told_apart),
        TAP(a_full_buffer_leaves_the_record_as_it_was),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
