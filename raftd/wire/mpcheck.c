/* The walk over msgpack before anything is decoded: whatever a stranger sends costs no memory and at most one step a byte.
 *
 * msgpack-c alone accepts arrays that claim more elements than there are bytes, and reserves address space for them (a
 * hundred bytes can ask for forty gigabytes).  Here a container must have at least one byte left for each element. */
#include "raftd/wire/msg.h"

enum { DEPTH_MAX = 8 };

/* What stands behind a type byte. */
struct shape {
    uint8_t count_bytes;   /* of a big-endian count or length that follows the type byte */
    uint8_t payload_bytes; /* besides what the count says */
    bool container;        /* the count counts objects, else bytes */
    uint8_t per_count;     /* objects or bytes for each 1 of the count: a map has two */
};

/* Types 0xc0 .. 0xdf; the others carry everything in the type byte. */
static const struct shape shapes[32] = {
    [0x00] = { 0 }, /* nil; 0xc1 is never used and refused before */
    [0x02] = { 0 }, /* false, true */
    [0x03] = { 0 },
    [0x04] = { .count_bytes = 1, .per_count = 1 }, /* bin */
    [0x05] = { .count_bytes = 2, .per_count = 1 },
    [0x06] = { .count_bytes = 4, .per_count = 1 },
    [0x07] = { .count_bytes = 1, .per_count = 1, .payload_bytes = 1 }, /* ext: its type */
    [0x08] = { .count_bytes = 2, .per_count = 1, .payload_bytes = 1 },
    [0x09] = { .count_bytes = 4, .per_count = 1, .payload_bytes = 1 },
    [0x0a] = { .payload_bytes = 4 }, /* float */
    [0x0b] = { .payload_bytes = 8 },
    [0x0c] = { .payload_bytes = 1 }, /* uint */
    [0x0d] = { .payload_bytes = 2 },
    [0x0e] = { .payload_bytes = 4 },
    [0x0f] = { .payload_bytes = 8 },
    [0x10] = { .payload_bytes = 1 }, /* int */
    [0x11] = { .payload_bytes = 2 },
    [0x12] = { .payload_bytes = 4 },
    [0x13] = { .payload_bytes = 8 },
    [0x14] = { .payload_bytes = 1 + 1 }, /* fixext */
    [0x15] = { .payload_bytes = 1 + 2 },
    [0x16] = { .payload_bytes = 1 + 4 },
    [0x17] = { .payload_bytes = 1 + 8 },
    [0x18] = { .payload_bytes = 1 + 16 },
    [0x19] = { .count_bytes = 1, .per_count = 1 }, /* str */
    [0x1a] = { .count_bytes = 2, .per_count = 1 },
    [0x1b] = { .count_bytes = 4, .per_count = 1 },
    [0x1c] = { .count_bytes = 2, .per_count = 1, .container = true }, /* array */
    [0x1d] = { .count_bytes = 4, .per_count = 1, .container = true },
    [0x1e] = { .count_bytes = 2, .per_count = 2, .container = true }, /* map */
    [0x1f] = { .count_bytes = 4, .per_count = 2, .container = true },
};

/* Steps over one object without its children, whose number it returns. */
static enum rq_err step(const uint8_t **p, const uint8_t *end, uint64_t *ret_children)
{
    if (*p == end) {
        return RQ_PROTOCOL;
    }
    uint8_t type = *(*p)++;
    uint64_t children = 0, payload = 0;
    if (type <= 0x7f || type >= 0xe0) {
        payload = 0; /* a small integer */
    } else if (type <= 0x8f) {
        children = (uint64_t)2 * (type & 0x0fu);
    } else if (type <= 0x9f) {
        children = type & 0x0fu;
    } else if (type <= 0xbf) {
        payload = type & 0x1fu;
    } else if (type == 0xc1) {
        return RQ_PROTOCOL;
    } else {
        const struct shape *shape = &shapes[type & 0x1fu];
        if ((size_t)(end - *p) < shape->count_bytes) {
            return RQ_PROTOCOL;
        }
        uint64_t count = 0;
        for (unsigned i = 0; i < shape->count_bytes; i++) {
            count = count << 8 | *(*p)++;
        }
        count *= shape->per_count;
        children = shape->container ? count : 0;
        payload = shape->payload_bytes + (shape->container ? 0 : count);
    }
    uint64_t left = (uint64_t)(end - *p);
    if (payload > left || children > left) {
        return RQ_PROTOCOL;
    }
    *p += payload;
    *ret_children = children;
    return RQ_OK;
}

enum rq_err rq_mp_check(const uint8_t *data, size_t bytes, size_t *ret_object_bytes)
{
    const uint8_t *p = data;
    const uint8_t *end = data + bytes;
    uint64_t open[DEPTH_MAX] = { 0 }; /* objects still to come, of each container that is open */
    unsigned depth = 0;
    do {
        uint64_t children;
        enum rq_err err = step(&p, end, &children);
        if (err != RQ_OK) {
            return err;
        }
        if (children > 0) {
            if (depth == DEPTH_MAX) {
                return RQ_PROTOCOL;
            }
            open[depth++] = children;
            continue;
        }
        while (depth > 0 && --open[depth - 1] == 0) {
            depth--;
        }
    } while (depth > 0);
    *ret_object_bytes = (size_t)(p - data);
    return RQ_OK;
}
