/* Log entries: what the replicated state machine understands.  Bytes: docs/file-format.md#log-entries.
 *
 * Numbers are for ever.  RQ_ENTRY_CHANGE is a raft configuration, encoded by C-Raft; the others are ours. */
#ifndef RAFTD_WIRE_ENTRY_H
#define RAFTD_WIRE_ENTRY_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"
#include "raftd/wire/msg.h"
#include "raftd/wire/txn.h"

enum rq_entry_type {
    RQ_ENTRY_BARRIER = 1, /* empty: a leader's first entry in its term */
    RQ_ENTRY_CHANGE = 2,  /* raft membership */
    RQ_ENTRY_TXN = 3,     /* a transaction record (txn.h) */
    RQ_ENTRY_STAGED = 4,  /* a transaction whose pages are in a staged body */
    RQ_ENTRY_CREATE = 5,  /* name -> database; its id is the index of this entry */
    RQ_ENTRY_DROP = 6,
    RQ_ENTRY_ADOPT = 7, /* name, as CREATE; and the file that is present becomes its content */
    RQ_ENTRY_MARK = 8,  /* changes nothing: members hold the database still as it is here, to be compared or copied */
};

#define RQ_BODY_HASH_BYTES 16u

/* A transaction in a staged body: file raft/staged/<hash in hex>, format docs/file-format.md#staged-body. */
struct rq_entry_staged {
    struct rq_txn_head head;
    struct rq_origin origin; /* exactly one */
    uint64_t body_bytes;
    uint8_t hash[RQ_BODY_HASH_BYTES]; /* of the body, as its tail has it (body.h) */
};

struct rq_entry_create {
    struct rq_str name;
    uint64_t nonce; /* tells who asked, so that a repeated request finds its own answer */
};

struct rq_entry_drop {
    uint32_t db_id;
};

/* The file as it was found when the cluster was founded.  version is that of its page 1 after adoption. */
struct rq_entry_adopt {
    struct rq_str name;
    uint32_t page_size;
    uint32_t page_count;
    uint64_t version;
};

/* What is wanted of the database at that place of the log. */
struct rq_entry_mark {
    uint32_t db_id;
    uint64_t nonce;        /* tells who asked, never 0 */
    uint32_t first, count; /* compare these pages (raftd/cluster/compare.h); both 0: somebody will copy it */
};
#define RQ_MARK_PAGES_MAX 8192u

/* Encoders append to out, on any error nothing: NOMEM, TOOBIG, MISUSE for what a decoder would refuse.  Decoders take a whole
 * entry: PROTOCOL, or VERSION for one of a later format; strings borrow; *ret is untouched unless OK. */
enum rq_err rq_entry_put_staged(struct rq_bytes *out, const struct rq_entry_staged *e);
enum rq_err rq_entry_put_create(struct rq_bytes *out, const struct rq_entry_create *e);
enum rq_err rq_entry_put_drop(struct rq_bytes *out, const struct rq_entry_drop *e);
enum rq_err rq_entry_put_adopt(struct rq_bytes *out, const struct rq_entry_adopt *e);
enum rq_err rq_entry_put_mark(struct rq_bytes *out, const struct rq_entry_mark *e);
enum rq_err rq_entry_get_staged(const uint8_t *data, size_t bytes, struct rq_entry_staged *ret);
enum rq_err rq_entry_get_create(const uint8_t *data, size_t bytes, struct rq_entry_create *ret);
enum rq_err rq_entry_get_drop(const uint8_t *data, size_t bytes, struct rq_entry_drop *ret);
enum rq_err rq_entry_get_adopt(const uint8_t *data, size_t bytes, struct rq_entry_adopt *ret);
enum rq_err rq_entry_get_mark(const uint8_t *data, size_t bytes, struct rq_entry_mark *ret);

#endif
