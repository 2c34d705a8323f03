#include "tests/support/fixed_random.h"

#include <stdint.h>

ssize_t getrandom(void *buffer, size_t length, unsigned flags)
{
    uint8_t *out = buffer;
    (void)flags;
    for (size_t i = 0; i < length; i++) {
        out[i] = (uint8_t)(FIXED_RANDOM_FIRST + i);
    }
    return (ssize_t)length;
}
