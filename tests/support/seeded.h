/* Seeded: random numbers that a seed repeats (splitmix64), and pages that look like a database's. */
#ifndef TESTS_SUPPORT_SEEDED_H
#define TESTS_SUPPORT_SEEDED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t seeded_next(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* 0 .. bound - 1 */
static inline uint32_t seeded_below(uint64_t *seed, uint32_t bound)
{
    return (uint32_t)(seeded_next(seed) % bound);
}

static inline void seeded_fill(uint64_t *seed, uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)seeded_next(seed);
    }
}

/* A page of zeros, of noise, or (mostly) of noise and zeros in pieces. */
static inline void seeded_page(uint64_t *seed, uint8_t *page, uint32_t page_size)
{
    uint32_t kind = seeded_below(seed, 8);
    memset(page, 0, page_size);
    if (kind == 0) {
        return;
    }
    for (uint32_t at = 0; at < page_size;) {
        uint32_t bytes = 1 + seeded_below(seed, page_size / 4);
        bytes = bytes > page_size - at ? page_size - at : bytes;
        if (kind == 1 || seeded_below(seed, 2) == 0) {
            seeded_fill(seed, page + at, bytes);
        }
        at += bytes;
    }
}

/* Changes a page as a transaction would: some short pieces, one of them perhaps moved; now and then all of it. */
static inline void seeded_change(uint64_t *seed, uint8_t *page, uint32_t page_size)
{
    if (seeded_below(seed, 10) == 0) {
        seeded_page(seed, page, page_size);
        return;
    }
    for (uint32_t n = seeded_below(seed, 12); n > 0; n--) {
        uint32_t at = seeded_below(seed, page_size);
        uint32_t bytes = 1 + seeded_below(seed, seeded_below(seed, 4) == 0 ? page_size : 24);
        bytes = bytes > page_size - at ? page_size - at : bytes;
        if (seeded_below(seed, 4) == 0) {
            memmove(page + at, page + seeded_below(seed, page_size - bytes + 1), bytes);
        } else {
            seeded_fill(seed, page + at, bytes);
        }
    }
}

#endif
