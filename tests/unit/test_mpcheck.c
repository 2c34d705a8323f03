/* mpcheck: agrees with a plain recursive reading of the msgpack specification, and refuses what costs its reader memory:
 * counts and lengths larger than the bytes that are there, and deep nesting. */
#include "raftd/wire/msg.h"
#include "tests/support/exact.h"
#include "tests/support/seeded.h"
#include "tests/support/tap.h"

static enum rq_err walk(const uint8_t *data, size_t bytes, size_t *ret_object_bytes)
{
    uint8_t *copy = exact_copy(data, bytes);
    enum rq_err err = rq_mp_check(copy, bytes, ret_object_bytes);
    free(copy);
    return err;
}

/* --- the specification, read once more and slowly --------------------------------------------------------------------- */

static bool model(const uint8_t **p, const uint8_t *end, unsigned depth);

static bool model_skip(const uint8_t **p, const uint8_t *end, uint64_t bytes)
{
    if (bytes > (uint64_t)(end - *p)) {
        return false;
    }
    *p += bytes;
    return true;
}

static bool model_number(const uint8_t **p, const uint8_t *end, unsigned bytes, uint64_t *ret_v)
{
    const uint8_t *at = *p;
    if (!model_skip(p, end, bytes)) {
        return false;
    }
    *ret_v = bytes == 1 ? at[0] : bytes == 2 ? rq_get_u16(at) : rq_get_u32(at);
    return true;
}

static bool model_children(const uint8_t **p, const uint8_t *end, uint64_t count, unsigned depth)
{
    if (count > 0 && depth == 8) {
        return false;
    }
    for (; count > 0; count--) {
        if (!model(p, end, depth + 1)) {
            return false;
        }
    }
    return true;
}

static bool model(const uint8_t **p, const uint8_t *end, unsigned depth)
{
    uint64_t n;
    if (*p == end) {
        return false;
    }
    uint8_t type = *(*p)++;
    if (type < 0x80 || type >= 0xe0) {
        return true;
    }
    if (type < 0x90) {
        return model_children(p, end, 2 * (uint64_t)(type - 0x80u), depth);
    }
    if (type < 0xa0) {
        return model_children(p, end, type - 0x90u, depth);
    }
    if (type < 0xc0) {
        return model_skip(p, end, type - 0xa0u);
    }
    switch (type) {
        case 0xc0:
        case 0xc2:
        case 0xc3:
            return true;
        case 0xc4:
        case 0xd9:
            return model_number(p, end, 1, &n) && model_skip(p, end, n);
        case 0xc5:
        case 0xda:
            return model_number(p, end, 2, &n) && model_skip(p, end, n);
        case 0xc6:
        case 0xdb:
            return model_number(p, end, 4, &n) && model_skip(p, end, n);
        case 0xc7:
            return model_number(p, end, 1, &n) && model_skip(p, end, n + 1);
        case 0xc8:
            return model_number(p, end, 2, &n) && model_skip(p, end, n + 1);
        case 0xc9:
            return model_number(p, end, 4, &n) && model_skip(p, end, n + 1);
        case 0xca:
        case 0xce:
        case 0xd2:
            return model_skip(p, end, 4);
        case 0xcb:
        case 0xcf:
        case 0xd3:
            return model_skip(p, end, 8);
        case 0xcc:
        case 0xd0:
            return model_skip(p, end, 1);
        case 0xcd:
        case 0xd1:
        case 0xd4:
            return model_skip(p, end, 2);
        case 0xd5:
            return model_skip(p, end, 3);
        case 0xd6:
            return model_skip(p, end, 5);
        case 0xd7:
            return model_skip(p, end, 9);
        case 0xd8:
            return model_skip(p, end, 17);
        case 0xdc:
            return model_number(p, end, 2, &n) && model_children(p, end, n, depth);
        case 0xdd:
            return model_number(p, end, 4, &n) && model_children(p, end, n, depth);
        case 0xde:
            return model_number(p, end, 2, &n) && model_children(p, end, 2 * n, depth);
        case 0xdf:
            return model_number(p, end, 4, &n) && model_children(p, end, 2 * n, depth);
        default:
            return false;
    }
}

static unsigned compare(const uint8_t *data, size_t bytes)
{
    const uint8_t *p = data;
    size_t object_bytes = 0;
    bool valid = model(&p, data + bytes, 0);
    check_eq(walk(data, bytes, &object_bytes), valid ? RQ_OK : RQ_PROTOCOL);
    if (valid) {
        check_eq(object_bytes, p - data);
    }
    return valid;
}

/* --- claims ------------------------------------------------------------------------------------------------------------- */

static void agrees_with_the_specification_on_every_type_byte(void)
{
    uint8_t data[80] = { 0 };
    for (unsigned type = 0; type < 256; type++) {
        data[0] = (uint8_t)type;
        for (unsigned count = 0; count < 4; count++) {
            memset(data + 1, (int)count, 4);
            for (size_t bytes = 1; bytes <= sizeof data; bytes++) {
                (void)compare(data, bytes);
            }
        }
    }
}

static void agrees_with_the_specification_on_random_bytes(void)
{
    static const uint8_t likely[] = {
        0x91, 0x92, 0x81, 0xa3, 0xc4, 0xdc, 0xd9, 0xc7, 0xde, 0xdd, 0x00, 0x01, 0x02, 0xce
    };
    uint64_t seed = 12;
    unsigned valid = 0;
    for (unsigned round = 0; round < 200000; round++) {
        uint8_t data[40];
        size_t bytes = seeded_below(&seed, sizeof data + 1);
        for (size_t i = 0; i < bytes; i++) {
            data[i] = seeded_below(&seed, 2) ? likely[seeded_below(&seed, sizeof likely)] : (uint8_t)seeded_next(&seed);
        }
        valid += compare(data, bytes);
    }
    check(valid > 10000);
}

static void nesting_past_8_is_refused(void)
{
    uint8_t data[10];
    size_t object_bytes;
    memset(data, 0x91, sizeof data);
    data[8] = 0;
    check_eq(walk(data, 9, &object_bytes), RQ_OK);
    check_eq(object_bytes, 9);
    data[8] = 0x91;
    data[9] = 0;
    check_eq(walk(data, 10, &object_bytes), RQ_PROTOCOL);
}

/* Twenty arrays of 64 million elements, one in the other: for msgpack-c alone, 41.9 GB of address space. */
static void counts_larger_than_what_is_left_are_refused_at_once(void)
{
    uint8_t data[100];
    size_t object_bytes;
    for (size_t i = 0; i < sizeof data; i += 5) {
        data[i] = 0xdd;
        rq_put_u32(data + i + 1, 64000000);
    }
    check_eq(walk(data, sizeof data, &object_bytes), RQ_PROTOCOL);
    rq_put_u32(data + 1, UINT32_MAX);
    check_eq(walk(data, sizeof data, &object_bytes), RQ_PROTOCOL);
    data[0] = 0xdf;
    check_eq(walk(data, sizeof data, &object_bytes), RQ_PROTOCOL);
    data[0] = 0xc6;
    check_eq(walk(data, sizeof data, &object_bytes), RQ_PROTOCOL);
    data[0] = 0xc9;
    check_eq(walk(data, sizeof data, &object_bytes), RQ_PROTOCOL);
}

static void nothing_is_no_object(void)
{
    size_t object_bytes = 5;
    check_eq(walk(NULL, 0, &object_bytes), RQ_PROTOCOL);
    check_eq(object_bytes, 5);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(agrees_with_the_specification_on_every_type_byte),
        TAP(agrees_with_the_specification_on_random_bytes),
        TAP(nesting_past_8_is_refused),
        TAP(counts_larger_than_what_is_left_are_refused_at_once),
        TAP(nothing_is_no_object),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
