/* Fields: integers of fixed width, big-endian, one behind another: put to the end of a growable buffer, taken from received bytes.
 *
 * Both remember their first error, so that a list of fields is put or taken in one go and asked once, at its end. */
#ifndef RAFTD_WIRE_FIELDS_H
#define RAFTD_WIRE_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"

struct rq_fields_writer {
    struct rq_bytes *out; /* borrows */
    enum rq_err err;
};

void rq_fields_put(struct rq_fields_writer *w, const void *data, size_t bytes);
void rq_fields_put_u8(struct rq_fields_writer *w, uint8_t v);
void rq_fields_put_u16(struct rq_fields_writer *w, uint16_t v);
void rq_fields_put_u32(struct rq_fields_writer *w, uint32_t v);
void rq_fields_put_u64(struct rq_fields_writer *w, uint64_t v);
/* u32 bytes, then the bytes. */
void rq_fields_put_block(struct rq_fields_writer *w, const void *data, size_t bytes);

struct rq_fields_reader {
    const uint8_t *at;
    size_t left;
    bool short_of; /* something was missing: all that is taken since is 0, or NULL */
};

const uint8_t *rq_fields_take(struct rq_fields_reader *r, size_t bytes); /* borrows */
uint8_t rq_fields_take_u8(struct rq_fields_reader *r);
uint16_t rq_fields_take_u16(struct rq_fields_reader *r);
uint32_t rq_fields_take_u32(struct rq_fields_reader *r);
uint64_t rq_fields_take_u64(struct rq_fields_reader *r);
const uint8_t *rq_fields_take_block(struct rq_fields_reader *r, size_t *ret_bytes);

#endif
