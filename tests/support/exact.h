/* Exact: a copy of bytes in an allocation of just their size, so that a sanitizer sees a read one byte past them. */
#ifndef TESTS_SUPPORT_EXACT_H
#define TESTS_SUPPORT_EXACT_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The caller frees it. */
static inline uint8_t *exact_copy(const uint8_t *data, size_t bytes)
{
    uint8_t *copy =
        calloc(bytes, 1); /* NOLINT(clang-analyzer-optin.portability.UnixAPI): of nothing too, no byte may be read */
    if (copy == NULL && bytes > 0) {
        abort();
    }
    if (bytes > 0) {
        memcpy(copy, data, bytes);
    }
    return copy;
}

#endif
