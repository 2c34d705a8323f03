/* entry: what is encoded is decoded; cut, longer, later or impossible entries are told apart; no input is read past its end. */
#include "raftd/wire/entry.h"
#include "tests/support/exact.h"
#include "tests/support/seeded.h"
#include "tests/support/tap.h"

#define STR(text) { .data = (text), .bytes = sizeof(text) - 1 }

static const struct rq_entry_staged staged = {
    .head = { .db_id = 3, .page_size = 4096, .page_count = 250000, .base = 9, .version = 10, .origin_count = 1 },
    .origin = { .session = UINT64_MAX, .seq = 1 },
    .body_bytes = 1ull << 30,
    .hash = { 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xee },
};
static const struct rq_entry_create create = { .name = STR("app.db"), .nonce = 1ull << 63 };
static const struct rq_entry_drop drop = { .db_id = UINT32_MAX };
static const struct rq_entry_adopt adopt = { .name = STR("old.db"), .page_size = 65536, .page_count = 1, .version = 7 };

static enum rq_err decode(unsigned kind, const uint8_t *data, size_t bytes)
{
    struct rq_entry_staged s;
    struct rq_entry_create c;
    struct rq_entry_drop d;
    struct rq_entry_adopt a;
    switch (kind) {
        case 0:
            return rq_entry_get_staged(data, bytes, &s);
        case 1:
            return rq_entry_get_create(data, bytes, &c);
        case 2:
            return rq_entry_get_drop(data, bytes, &d);
        default:
            return rq_entry_get_adopt(data, bytes, &a);
    }
}

static void put(struct rq_bytes *out, unsigned kind)
{
    rq_bytes_init(out, 4096);
    switch (kind) {
        case 0:
            check_eq(rq_entry_put_staged(out, &staged), RQ_OK);
            break;
        case 1:
            check_eq(rq_entry_put_create(out, &create), RQ_OK);
            break;
        case 2:
            check_eq(rq_entry_put_drop(out, &drop), RQ_OK);
            break;
        default:
            check_eq(rq_entry_put_adopt(out, &adopt), RQ_OK);
    }
}

static void staged_comes_back(void)
{
    struct rq_bytes b;
    struct rq_entry_staged e;
    put(&b, 0);
    check_eq(rq_entry_get_staged(b.data, b.size, &e), RQ_OK);
    check(e.head.db_id == 3 && e.head.page_size == 4096 && e.head.page_count == 250000);
    check(e.head.base == 9 && e.head.version == 10 && e.head.origin_count == 1);
    check(e.origin.session == UINT64_MAX && e.origin.seq == 1 && e.body_bytes == 1ull << 30);
    check_eq(memcmp(e.hash, staged.hash, sizeof e.hash), 0);
    rq_bytes_fini(&b);
}

static void create_drop_and_adopt_come_back(void)
{
    struct rq_bytes b;
    struct rq_entry_create c;
    struct rq_entry_drop d;
    struct rq_entry_adopt a;
    put(&b, 1);
    check_eq(rq_entry_get_create(b.data, b.size, &c), RQ_OK);
    check(c.name.bytes == 6 && memcmp(c.name.data, "app.db", 6) == 0 && c.nonce == 1ull << 63);
    rq_bytes_fini(&b);
    put(&b, 2);
    check_eq(rq_entry_get_drop(b.data, b.size, &d), RQ_OK);
    check(d.db_id == UINT32_MAX);
    rq_bytes_fini(&b);
    put(&b, 3);
    check_eq(rq_entry_get_adopt(b.data, b.size, &a), RQ_OK);
    check(a.name.bytes == 6 && memcmp(a.name.data, "old.db", 6) == 0);
    check(a.page_size == 65536 && a.page_count == 1 && a.version == 7);
    rq_bytes_fini(&b);
}

static void mark_comes_back(void)
{
    struct rq_bytes b;
    struct rq_entry_mark m;
    const struct rq_entry_mark wrong[] = {
        { 0, 1, 1, 1 },          { 7, 0, 1, 1 }, { 7, 1, 0, 1 }, { 7, 1, 1, 0 }, { 7, 1, 1, RQ_MARK_PAGES_MAX + 1 },
        { 7, 1, UINT32_MAX, 1 },
    };
    rq_bytes_init(&b, 4096);
    check_eq(rq_entry_put_mark(&b, &(struct rq_entry_mark){ 7, 1ull << 63, UINT32_MAX - 9, 9 }), RQ_OK);
    check_eq(rq_entry_get_mark(b.data, b.size, &m), RQ_OK);
    check(m.db_id == 7 && m.nonce == 1ull << 63 && m.first == UINT32_MAX - 9 && m.count == 9);
    check_eq(rq_entry_get_mark(b.data, b.size - 1, &m), RQ_PROTOCOL);
    b.size = 0;
    check_eq(rq_entry_put_mark(&b, &(struct rq_entry_mark){ .db_id = 7, .nonce = 1 }), RQ_OK);
    check_eq(rq_entry_get_mark(b.data, b.size, &m), RQ_OK);
    b.size = 0;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        check_eq(rq_entry_put_mark(&b, &wrong[i]), RQ_MISUSE);
        check_eq(b.size, 0);
    }
    rq_bytes_fini(&b);
}

static void encoders_refuse_what_decoders_would(void)
{
    struct rq_bytes b;
    rq_bytes_init(&b, 4096);
    struct rq_entry_staged s[6] = { staged, staged, staged, staged, staged, staged };
    s[0].head.origin_count = 2;
    s[1].head.version = 11;
    s[2].head.page_size = 1000;
    s[3].origin.session = 0;
    s[4].body_bytes = 0;
    s[5].head.db_id = 0;
    for (size_t i = 0; i < 6; i++) {
        check_eq(rq_entry_put_staged(&b, &s[i]), RQ_MISUSE);
    }
    check_eq(rq_entry_put_create(&b, &(struct rq_entry_create){ .name = STR("") }), RQ_MISUSE);
    check_eq(rq_entry_put_drop(&b, &(struct rq_entry_drop){ .db_id = 0 }), RQ_MISUSE);
    struct rq_entry_adopt a[3] = { adopt, adopt, adopt };
    a[0].page_count = 0;
    a[1].page_size = 0;
    a[2].name.bytes = 0;
    for (size_t i = 0; i < 3; i++) {
        check_eq(rq_entry_put_adopt(&b, &a[i]), RQ_MISUSE);
    }
    check_eq(b.size, 0);
    rq_bytes_fini(&b);
}

static void every_truncation_and_any_byte_behind_is_refused(void)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        struct rq_bytes b;
        put(&b, kind);
        size_t whole = b.size;
        for (size_t bytes = 0; bytes < whole; bytes++) {
            uint8_t *copy = exact_copy(b.data, bytes);
            enum rq_err err = decode(kind, copy, bytes);
            free(copy);
            check_eq(err, RQ_PROTOCOL);
        }
        check_eq(rq_bytes_put(&b, "", 1), RQ_OK);
        check_eq(decode(kind, b.data, whole + 1), RQ_PROTOCOL);
        rq_bytes_fini(&b);
    }
}

static void a_later_format_is_told_apart_whatever_its_fields(void)
{
    const uint8_t later[] = { 0x92, 2, 0xc0 };
    for (unsigned kind = 0; kind < 4; kind++) {
        check_eq(decode(kind, later, sizeof later), RQ_VERSION);
    }
}

static void a_hash_of_another_size_is_refused(void)
{
    struct rq_bytes b;
    put(&b, 0);
    b.size--;
    b.data[b.size - RQ_BODY_HASH_BYTES] = RQ_BODY_HASH_BYTES - 1; /* the length before the hash */
    check_eq(decode(0, b.data, b.size), RQ_PROTOCOL);
    rq_bytes_fini(&b);
}

static void random_mutations_are_harmless_to_every_decoder(void)
{
    uint64_t seed = 13;
    unsigned taken = 0;
    for (unsigned kind = 0; kind < 4; kind++) {
        struct rq_bytes b;
        put(&b, kind);
        for (unsigned round = 0; round < 20000; round++) {
            uint8_t *copy = exact_copy(b.data, b.size);
            for (unsigned n = 1 + seeded_below(&seed, 3); n > 0; n--) {
                copy[seeded_below(&seed, (uint32_t)b.size)] = (uint8_t)seeded_next(&seed);
            }
            for (unsigned other = 0; other < 4; other++) {
                enum rq_err err = decode(other, copy, b.size);
                check(err == RQ_OK || err == RQ_PROTOCOL || err == RQ_VERSION);
                taken += err == RQ_OK;
            }
            free(copy);
        }
        rq_bytes_fini(&b);
    }
    check(taken > 1000);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(staged_comes_back),
        TAP(create_drop_and_adopt_come_back),
        TAP(mark_comes_back),
        TAP(encoders_refuse_what_decoders_would),
        TAP(every_truncation_and_any_byte_behind_is_refused),
        TAP(a_later_format_is_told_apart_whatever_its_fields),
        TAP(a_hash_of_another_size_is_refused),
        TAP(random_mutations_are_harmless_to_every_decoder),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
