/* Transaction record: which bytes of which pages a commit changed.  The unit of replication.
 *
 * A record takes a database from {id, base} to {id, version}.  version - base is 1, or for a group the number of
 * transactions that were merged into it; a group lists the origin of each.  Format: docs/file-format.md#transaction-record.
 *
 * Normal form of page 1: bytes 18,19 are 1,1 and the stamp (72..91) is zero.  Deltas are taken between, and hashes over,
 * pages in normal form, so that they are the same on every host.
 * Rule Z: a page in (base size, new size] that a record does not carry is zero; the delta base of such a page is zero.
 * Deltas are absolute byte ranges, so applying one twice ends in the same page. */
#ifndef RAFTD_WIRE_TXN_H
#define RAFTD_WIRE_TXN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"

struct rq_bytes; /* growable buffer, raftd/wire/bytes.h */

/* Who made a transaction: the outcome of every commit can be asked for again by this. */
struct rq_origin {
    uint64_t session; /* from getrandom, never 0 */
    uint64_t seq;     /* 1, 2, 3 ... within the session */
};

struct rq_txn_head {
    uint32_t db_id;
    uint32_t page_size;    /* 512 .. 65536 */
    uint32_t page_count;   /* of the database after the transaction */
    uint32_t origin_count; /* == version - base */
    uint64_t base;
    uint64_t version;
};

struct rq_delta {
    uint32_t pgno;
    uint64_t before; /* hash of the page it was taken against (normal form) */
    uint64_t after;
    const uint8_t *ranges; /* borrows from the record; none: the page after is zero */
    size_t ranges_bytes;
};

#define RQ_PAGE_SIZE_MIN 512u
#define RQ_PAGE_SIZE_MAX 65536u

/* A power of two within these bounds. */
bool rq_page_size_check(uint32_t page_size);

/* Whether a transaction can have this head: ids and counts that are never 0, a page size, as many origins as versions. */
bool rq_txn_head_check(const struct rq_txn_head *head);

/* Page 1 to normal form, in place.  Other pages need no change. */
void rq_page1_normalise(uint8_t *page1);

/* 64-bit hash of a page in normal form (XXH3). */
uint64_t rq_page_hash(const uint8_t *page, uint32_t page_size);

/* --- building ---------------------------------------------------------------------------------------------------- */

/* Starts a record at the end of out.  origins: head->origin_count entries, in order of version.  MISUSE: head is not one that
 * a reader would accept.  On any error, here and below, out is as it was. */
enum rq_err rq_txn_begin(struct rq_bytes *out, const struct rq_txn_head *head, const struct rq_origin *origins);

/* Adds one page.  Both pages in normal form; base NULL means a page of zeros.  Pages come in ascending order, each once.
 * A page that did not change adds nothing. */
enum rq_err rq_txn_add(struct rq_bytes *out, uint32_t pgno, const uint8_t *base, const uint8_t *page,
                       uint32_t page_size);

/* Fills in how many deltas the record has that was begun at offset start and goes to the end of out.  MISUSE: pages were not in
 * ascending order, or lie past the end of the database. */
enum rq_err rq_txn_end(struct rq_bytes *out, size_t start);

/* --- reading: any input is answered with OK, PROTOCOL or VERSION (of a later format), never trusted -------------------- */

struct rq_txn_reader {
    struct rq_txn_head head;
    uint32_t delta_count;
    const uint8_t *origins; /* head.origin_count packed origins; see rq_txn_origin() */
    const uint8_t *next;
    const uint8_t *end;
    uint32_t deltas_left;
    uint32_t last_pgno;
};

/* Checks the whole record, every range of every delta: after OK only hashes can fail. */
enum rq_err rq_txn_read(struct rq_txn_reader *reader, const uint8_t *data, size_t bytes);
struct rq_origin rq_txn_origin(const struct rq_txn_reader *reader, uint32_t i);

/* The next delta; NOTFOUND after the last. */
enum rq_err rq_txn_next(struct rq_txn_reader *reader, struct rq_delta *ret_delta);

/* Turns page (the base, normal form) into the page after; a page that is the page after already stays so.  CORRUPT when the
 * hash before or after does not match: page is then unchanged or undefined, and the caller fences the database.  PROTOCOL when
 * the delta is for another page size. */
enum rq_err rq_delta_apply(const struct rq_delta *delta, uint8_t *page, uint32_t page_size);

/* Its bytes into whatever page that is: for one that the delta was not taken against. */
enum rq_err rq_delta_put(const struct rq_delta *delta, uint8_t *page, uint32_t page_size);

/* Does it change bytes of [begin, end) of its page?  Some that it names may be as they were, but never all of eight in a row.  Of one
 * from rq_txn_read(). */
bool rq_delta_covers(const struct rq_delta *delta, uint32_t page_size, uint32_t begin, uint32_t end);

#endif
