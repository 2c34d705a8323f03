#include "raftd/wire/bytes.h"

#include <stdlib.h>
#include <string.h>

void rq_bytes_init(struct rq_bytes *b, size_t size_max)
{
    *b = (struct rq_bytes){ .size_max = size_max };
}

void rq_bytes_fini(struct rq_bytes *b)
{
    free(b->data);
    *b = (struct rq_bytes){ .size_max = b->size_max };
}

enum rq_err rq_bytes_reserve(struct rq_bytes *b, size_t n)
{
    if (n > b->size_max || b->size > b->size_max - n) {
        return RQ_TOOBIG;
    }
    size_t need = b->size + n;
    if (need <= b->capacity) {
        return RQ_OK;
    }
    size_t capacity = b->capacity < 256 ? 256 : b->capacity;
    while (capacity < need) {
        capacity = capacity > b->size_max / 2 ? b->size_max : capacity * 2;
    }
    uint8_t *data = realloc(b->data, capacity);
    if (data == NULL) {
        return RQ_NOMEM;
    }
    b->data = data;
    b->capacity = capacity;
    return RQ_OK;
}

enum rq_err rq_bytes_put(struct rq_bytes *b, const void *data, size_t n)
{
    enum rq_err err = rq_bytes_reserve(b, n);
    if (err == RQ_OK && n > 0) {
        memcpy(b->data + b->size, data, n);
        b->size += n;
    }
    return err;
}
