/* Copy: what a node that needs databases asks of a member that has them, on one stream.  docs/protocol.md#copies.
 *
 * Question and answer in turn.  A question has 16 bytes: u32 kind, u32 count, u64 value; for PAGES count page numbers (u32) follow.
 * An answer has 8: u32 error, u32 bytes; then so many bytes, the error's text if there is one.  All integers are big-endian.
 *
 *   PICTURE   value: at least this index      index, term, configuration, and the databases that there are then
 *   DATABASE  count: id                       opens it: its state now, and its origins; the next questions are about it
 *   HASHES    count pages from value on       u64 each: rq_page_hash() in normal form
 *   PAGES     count page numbers              the pages in normal form
 *   CHANGED   value: 1: hold it now           u8 held, u32 how many are left, u32 count, page numbers: copy_out.h
 *   HELD                                      as DATABASE: the state that is held
 *   HEAD      count: id                       as DATABASE, but only version and origins, also of a quarantined one; begins nothing */
#ifndef RAFTD_CLUSTER_COPY_WIRE_H
#define RAFTD_CLUSTER_COPY_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/db/database.h"
#include "raftd/db/descriptor.h"
#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"
#include "vfs/replica.h"

#define RQ_COPY_QUESTION_BYTES 16u
#define RQ_COPY_ANSWER_BYTES   8u
#define RQ_COPY_ANSWER_MAX     (64u << 20) /* of a picture; the others are far below */

enum rq_copy_kind {
    RQ_COPY_PICTURE = 1,
    RQ_COPY_DATABASE = 2,
    RQ_COPY_HASHES = 3,
    RQ_COPY_PAGES = 4,
    RQ_COPY_CHANGED = 5,
    RQ_COPY_HELD = 6,
    RQ_COPY_HEAD = 7
};

struct rq_copy_question {
    enum rq_copy_kind kind;
    uint32_t count;
    uint64_t value;
};
void rq_copy_put_question(uint8_t out[RQ_COPY_QUESTION_BYTES], const struct rq_copy_question *q);
/* PROTOCOL: no such question, or more than may be asked for at once. */
enum rq_err rq_copy_get_question(const uint8_t in[RQ_COPY_QUESTION_BYTES], struct rq_copy_question *ret_q);

struct rq_copy_answer {
    enum rq_err err;
    uint32_t bytes;
};
void rq_copy_put_answer(uint8_t out[RQ_COPY_ANSWER_BYTES], const struct rq_copy_answer *a);
void rq_copy_get_answer(const uint8_t in[RQ_COPY_ANSWER_BYTES], struct rq_copy_answer *ret_a);

/* Of the descriptor: index, term, configuration, and names and ids of the databases. */
enum rq_err rq_copy_put_picture(struct rq_bytes *out, const struct rq_descriptor *d);
/* PROTOCOL; NOMEM.  rq_descriptor_fini(). */
enum rq_err rq_copy_get_picture(const uint8_t *data, size_t bytes, struct rq_descriptor *ret_d);

enum rq_err rq_copy_put_database(struct rq_bytes *out, const struct rq_replica_state *state,
                                 const struct rq_origins *origins);
enum rq_err rq_copy_get_database(const uint8_t *data, size_t bytes, struct rq_replica_state *ret_state,
                                 struct rq_origins *ret_origins);

enum rq_err rq_copy_put_changed(struct rq_bytes *out, const struct rq_copy_changed *c);
enum rq_err rq_copy_get_changed(const uint8_t *data, size_t bytes, struct rq_copy_changed *ret_c);

#endif
