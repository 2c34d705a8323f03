/* Heads: the first words of a stream between nodes, which say what it is for.  docs/protocol.md#streams.
 *
 * Each is one msgpack array, its first element the kind. */
#ifndef RAFTD_WIRE_HEAD_H
#define RAFTD_WIRE_HEAD_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"

enum rq_head_kind {
    RQ_HEAD_BRING = 10, /* here is a staged body: END from there says that it is durable there */
    RQ_HEAD_FETCH = 11, /* give me a staged body */
    RQ_HEAD_COPY = 12,  /* I want to copy databases: raftd/cluster/copy_wire.h; nothing but the kind */
};

struct rq_head_body {
    uint8_t hash[RQ_BODY_HASH_BYTES];
    uint64_t body_bytes;
    struct rq_origin origin; /* BRING: of the transaction that is to name it */
    uint64_t offset;         /* FETCH: the first byte that is wanted */
};

/* 0: not the head of any stream. */
uint64_t rq_head_kind(const uint8_t *data, size_t bytes);
/* As in msg.h; kind is BRING or FETCH. */
enum rq_err rq_head_put_body(struct rq_bytes *out, enum rq_head_kind kind, const struct rq_head_body *head);
enum rq_err rq_head_get_body(const uint8_t *data, size_t bytes, struct rq_head_body *ret);

#endif
