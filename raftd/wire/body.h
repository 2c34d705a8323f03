/* Staged body: the pages of a transaction that is too big for the log, as one file named by its hash.
 *
 *    0  8   "rqvfsbdy"
 *    8  u32 format: 1
 *   12  u32 page size
 *   16  u32 pages of the database after the transaction
 *   20  12  zero
 *   32  ... {u32 page number, page} ascending, pages in normal form (txn.h)
 *   end:  u32 0 (no page number), u32 pages in this body, XXH3-128 of everything before the hash (canonical, big-endian)
 *
 * No file I/O here: the caller writes and reads the pieces, in order, and keeps its buffers. */
#ifndef RAFTD_WIRE_BODY_H
#define RAFTD_WIRE_BODY_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"
#include "raftd/wire/txn.h"

#define RQ_BODY_HEAD_BYTES      32u
#define RQ_BODY_PAGE_HEAD_BYTES 4u
#define RQ_BODY_TAIL_BYTES      (8u + RQ_BODY_HASH_BYTES)
#define RQ_BODY_PIECE_BYTES_MAX (RQ_BODY_PAGE_HEAD_BYTES + RQ_PAGE_SIZE_MAX)

struct rq_body_head {
    uint32_t page_size;
    uint32_t db_page_count;
};

/* --- writing ------------------------------------------------------------------------------------------------------------ */

struct rq_body_writer {
    struct rq_body_head head;
    uint32_t page_count; /* so far */
    uint32_t last_pgno;
    void *hash; /* owns: the running XXH3 state */
};

/* Fills in the head, to be written first.  MISUSE: no page size, or no pages.  NOMEM.  fini is due after OK only. */
enum rq_err rq_body_writer_init(struct rq_body_writer *w, const struct rq_body_head *head,
                                uint8_t ret_head[RQ_BODY_HEAD_BYTES]);
void rq_body_writer_fini(struct rq_body_writer *w);

/* The pages that are written next, whole records {u32 page number, page}.  MISUSE: one is not above the page before it, or past
 * the database; then none of them is in. */
enum rq_err rq_body_writer_pages(struct rq_body_writer *w, const uint8_t *records, size_t bytes);

/* Fills in the tail, to be written last; its last RQ_BODY_HASH_BYTES name the body. */
void rq_body_writer_end(struct rq_body_writer *w, uint8_t ret_tail[RQ_BODY_TAIL_BYTES]);

uint64_t rq_body_bytes(uint32_t page_size, uint32_t page_count);

/* --- reading: any input is answered with OK, CORRUPT or VERSION --------------------------------------------------------- */

struct rq_body_reader {
    struct rq_body_head head;
    uint32_t page_count; /* in the body; known after the head */
    uint32_t pages_read;
    uint32_t last_pgno;
    uint64_t body_bytes;
    size_t want; /* bytes of the next piece: rq_body_reader_want() */
    void *hash;  /* owns */
};

/* body_bytes: of the whole body, from the entry or the file's size.  fini is due after OK only. */
enum rq_err rq_body_reader_init(struct rq_body_reader *r, uint64_t body_bytes);
void rq_body_reader_fini(struct rq_body_reader *r);

/* How many bytes the next piece has, at most RQ_BODY_PIECE_BYTES_MAX; 0 when the body is complete and its hash was right. */
size_t rq_body_reader_want(const struct rq_body_reader *r);

/* Takes that many bytes.  *ret_pgno is 0 for head and tail; else the page is at piece + RQ_BODY_PAGE_HEAD_BYTES.  Pages are
 * proved only by the tail: whoever acts on them before has to be able to undo it.  After an error only fini is allowed. */
/* (below) */
enum rq_err rq_body_reader_take(struct rq_body_reader *r, const uint8_t *piece, uint32_t *ret_pgno);

/* After the tail was taken: what names the body. */
void rq_body_reader_hash(const struct rq_body_reader *r, uint8_t ret_hash[RQ_BODY_HASH_BYTES]);

#endif
