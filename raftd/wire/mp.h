/* msgpack for the rooms of this folder: writing into a growable buffer, reading by a cursor.
 *
 * Both remember their first error, so that a list of fields is written or read in one go and asked once, at its end.  Writing
 * is msgpack-c's packer, of which everything is in its header: nothing is linked.  The cursor checks its own bounds on top of
 * rq_mp_check(), allocates nothing, and borrows strings. */
#ifndef RAFTD_WIRE_MP_H
#define RAFTD_WIRE_MP_H

#include <msgpack/pack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"

struct rq_str; /* raftd/wire/msg.h */

struct rq_mp_writer {
    msgpack_packer packer;
    struct rq_bytes *out; /* borrows */
    enum rq_err err;
};

void rq_mp_write_begin(struct rq_mp_writer *w, struct rq_bytes *out, uint32_t array_count);
void rq_mp_put_uint(struct rq_mp_writer *w, uint64_t v);
/* Always five bytes, so that it can be filled in later. */
void rq_mp_put_u32_fixed(struct rq_mp_writer *w, uint32_t v);
void rq_mp_put_bool(struct rq_mp_writer *w, bool v);
void rq_mp_put_str(struct rq_mp_writer *w, const char *data, uint32_t bytes);
/* Words for people, better shortened than not sent: at most RQ_TEXT_MAX bytes, cut at a UTF-8 character. */
void rq_mp_put_text(struct rq_mp_writer *w, struct rq_str text);
void rq_mp_put_bin(struct rq_mp_writer *w, const uint8_t *data, uint32_t bytes);
/* Only the type and the length: the caller puts the bytes behind. */
void rq_mp_put_bin_head(struct rq_mp_writer *w, uint32_t bytes);

/* The caller found what it is writing to be wrong. */
void rq_mp_write_fail(struct rq_mp_writer *w, enum rq_err err);

struct rq_mp_reader {
    const uint8_t *next;
    const uint8_t *end; /* of the array */
    enum rq_err err;
};

/* Checks the first object in data, which must be an array, and stands before its first element. */
void rq_mp_read_begin(struct rq_mp_reader *r, const uint8_t *data, size_t bytes);
/* PROTOCOL unless all elements were read (reading one more than there are has failed before); returns the reader's error. */
enum rq_err rq_mp_read_end(struct rq_mp_reader *r);

/* After an error each returns zero, false or an empty string.  Numbers outside min .. max and longer strings are
 * errors. */
uint64_t rq_mp_get_uint(struct rq_mp_reader *r, uint64_t min, uint64_t max);
bool rq_mp_get_bool(struct rq_mp_reader *r);
const char *rq_mp_get_str(struct rq_mp_reader *r, uint32_t bytes_max, uint32_t *ret_bytes);
const uint8_t *rq_mp_get_bin(struct rq_mp_reader *r, uint32_t bytes_max, uint32_t *ret_bytes);
/* The same, for what it read. */
void rq_mp_read_fail(struct rq_mp_reader *r, enum rq_err err);

#endif
