/* Inflate: what a client has compressed, with gzip or zlib. */
#ifndef RAFTD_OPS_INFLATE_H
#define RAFTD_OPS_INFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"

/* Behind what out holds.  may_grow is asked before each further piece of memory.  PROTOCOL: it is not compressed, or not whole; TOOBIG:
 * more than out may hold; NOMEM: also when it may not grow. */
enum rq_err rq_inflate(const uint8_t *data, size_t bytes, struct rq_bytes *out,
                       bool (*may_grow)(void *ctx, size_t bytes), void *ctx);

#endif
