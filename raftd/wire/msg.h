/* Messages between an application (extension) and its raftd.  Normative text and byte examples: docs/protocol.md.
 *
 * Every body is one msgpack array, checked by rq_mp_check() before anything else looks at it.  Strings and byte strings in
 * decoded structs borrow from the frame.  Requests are answered in any order, by frame id.
 *
 *   application -> raftd                         raftd -> application
 *   HELLO     who I am                           WELCOME  who I am, limits
 *   OPEN      name -> make sure it exists        OPENED   database id, version, state
 *   PAGES     some pages of a transaction        (no answer; an error shows at COMMIT)
 *   COMMIT    the rest, and: commit it           OUTCOME  committed at version, refused, or an error that means "not sent on"
 *   ASK       outcome of {db, base, origin}?     OUTCOME
 *   STATUS    of one database                    STATE
 *   READ      may I read, this fresh?            READY    the file here is at least that fresh now
 *   LOOK      at who waits for the turn          (no answer)
 *   any                                          FAILED   error, text
 */
#ifndef RAFTD_WIRE_MSG_H
#define RAFTD_WIRE_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"
#include "raftd/wire/frame.h"
#include "raftd/wire/txn.h"

#define RQ_PROTOCOL_VERSION 1u
#define RQ_DB_NAME_MAX      200u /* bytes of a database's file name */
#define RQ_READ_WAIT_MS_MAX 3600000u
#define RQ_TEXT_MAX         1000u /* bytes of any other string; encoders shorten longer ones, at a UTF-8 character */

/* How many pages a PAGES or COMMIT frame can carry. */
#define RQ_COMMIT_ARRAY_BYTES_MAX      40u
#define RQ_COMMIT_PAGES_MAX(page_size) ((RQ_FRAME_BODY_MAX - RQ_COMMIT_ARRAY_BYTES_MAX) / (4u + (page_size)))

enum rq_msg_type {
    RQ_MSG_HELLO = 1,
    RQ_MSG_WELCOME = 2,
    RQ_MSG_OPEN = 3,
    RQ_MSG_OPENED = 4,
    RQ_MSG_PAGES = 5,
    RQ_MSG_COMMIT = 6,
    RQ_MSG_OUTCOME = 7,
    RQ_MSG_ASK = 8,
    RQ_MSG_STATUS = 9,
    RQ_MSG_STATE = 10,
    RQ_MSG_FAILED = 11,
    RQ_MSG_READ = 12,
    RQ_MSG_READY = 13,
    RQ_MSG_LOOK = 14,
};

struct rq_str {
    const char *data; /* borrows, not terminated */
    uint32_t bytes;
};

struct rq_msg_hello {
    uint32_t protocol;
    uint64_t session; /* chosen by the application, from getrandom; the same again after a reconnect */
    uint64_t pid;
    struct rq_str program;
    struct rq_str sqlite; /* sqlite3_libversion() */
};

struct rq_msg_welcome {
    uint32_t protocol;
    uint32_t frame_body_max;
    uint64_t instance; /* of this raftd's raft directory */
    struct rq_str node_id;
    struct rq_str version;
};

struct rq_msg_open {
    struct rq_str name; /* file name within the served directory */
    bool create;
};

struct rq_msg_opened {
    uint32_t db_id;
    uint64_t version;   /* 0: no commit yet */
    uint32_t page_size; /* 0: no commit yet */
};

/* One piece of a transaction.  Pieces of one transaction come in order on one connection, pages ascending over all of them.
 * Behind the msgpack array follow page_count times {u32 page number, page bytes}.  A PAGES frame carries a part; the COMMIT
 * frame carries the last part, possibly of no pages. */
struct rq_msg_commit {
    uint32_t db_id;
    uint64_t seq;  /* origin = {session of HELLO, seq} */
    uint64_t base; /* version that the transaction was made on */
    uint32_t page_size;
    uint32_t db_page_count; /* of the database afterwards */
    uint32_t page_count;    /* in this frame */
    const uint8_t *pages;   /* borrows */
};

struct rq_msg_ask {
    uint32_t db_id;
    uint64_t seq;
    uint64_t base;
};

/* err: OK = committed, version says at what.  REFUSED = certain, for ever.  NOTFOUND (to ASK only) = has not arrived, base is
 * still the head: send it again.  UNREADY, AWAY, FULL, BUSY, QUARANTINED, PAGESIZE, TOOBIG, CORRUPT: it was not passed on. */
struct rq_msg_outcome {
    enum rq_err err;
    uint64_t version;
    struct rq_str text;
};

struct rq_msg_status {
    struct rq_str name;
};

struct rq_msg_state {
    struct rq_str node_id;
    struct rq_str role;   /* "Leader", "Follower", "Candidate" */
    struct rq_str leader; /* node id */
    struct rq_str name;
    uint32_t db_id;
    uint64_t version;
    uint64_t applied_index;
    uint64_t commit_index;
    uint64_t checksum;   /* of the last page 1 applied: cheap proof that two hosts are at the same place */
    uint64_t lag;        /* entries committed, not applied here */
    struct rq_str state; /* "empty", "live", "quarantined" */
    struct rq_str message;
};

/* Answered when this host's file holds everything that was committed, on any host, max_age_ms before the question.  FAILED: AWAY or
 * UNREADY, when that cannot be within wait_ms. */
struct rq_msg_read {
    uint32_t db_id;
    uint64_t max_age_ms; /* 0: everything that was committed before the question */
    uint32_t wait_ms;
};

struct rq_msg_ready {
    uint64_t index;   /* of the log: the file holds everything up to it */
    uint64_t left_ms; /* the same question needs not be asked again for so long, from the sending of READ on */
};

/* The turn of this database is not at this host, or is to go to another one, and somebody here waits for it, or gave it back. */
struct rq_msg_look {
    uint32_t db_id;
};

struct rq_msg_failed {
    enum rq_err err;
    struct rq_str text;
};

/* A database's file name: 1 .. RQ_DB_NAME_MAX bytes, none of them NUL.  What else a name may not be, the catalog says. */
bool rq_name_check(struct rq_str name);

/* Walks msgpack without allocating: refuses counts and lengths larger than the bytes left, nesting past 8, 0xc1.  OK and the
 * size of the first object, or PROTOCOL. */
enum rq_err rq_mp_check(const uint8_t *data, size_t bytes, size_t *ret_object_bytes);

/* Each encoder appends a whole frame (head and body) to out, or on any error nothing; commit encodes without its pages: the
 * caller sends them behind, and they are counted in the frame's length.  NOMEM, TOOBIG; MISUSE for what a decoder would
 * refuse. */
enum rq_err rq_msg_put_hello(struct rq_bytes *out, uint64_t id, const struct rq_msg_hello *m);
enum rq_err rq_msg_put_welcome(struct rq_bytes *out, uint64_t id, const struct rq_msg_welcome *m);
enum rq_err rq_msg_put_open(struct rq_bytes *out, uint64_t id, const struct rq_msg_open *m);
enum rq_err rq_msg_put_opened(struct rq_bytes *out, uint64_t id, const struct rq_msg_opened *m);
/* type: PAGES or COMMIT. */
enum rq_err rq_msg_put_commit(struct rq_bytes *out, uint64_t id, enum rq_msg_type type, const struct rq_msg_commit *m);
enum rq_err rq_msg_put_outcome(struct rq_bytes *out, uint64_t id, const struct rq_msg_outcome *m);
enum rq_err rq_msg_put_ask(struct rq_bytes *out, uint64_t id, const struct rq_msg_ask *m);
enum rq_err rq_msg_put_status(struct rq_bytes *out, uint64_t id, const struct rq_msg_status *m);
enum rq_err rq_msg_put_state(struct rq_bytes *out, uint64_t id, const struct rq_msg_state *m);
enum rq_err rq_msg_put_read(struct rq_bytes *out, uint64_t id, const struct rq_msg_read *m);
enum rq_err rq_msg_put_ready(struct rq_bytes *out, uint64_t id, const struct rq_msg_ready *m);
enum rq_err rq_msg_put_failed(struct rq_bytes *out, uint64_t id, const struct rq_msg_failed *m);
enum rq_err rq_msg_put_look(struct rq_bytes *out, uint64_t id, const struct rq_msg_look *m);

/* Decoders take a whole body and are strict: PROTOCOL when the array has not exactly its fields, anything stands behind it (but
 * for pages), or a value is out of bounds; VERSION when hello or welcome speak another protocol.  *ret is untouched unless OK. */
enum rq_err rq_msg_get_hello(const uint8_t *body, size_t bytes, struct rq_msg_hello *ret);
enum rq_err rq_msg_get_welcome(const uint8_t *body, size_t bytes, struct rq_msg_welcome *ret);
enum rq_err rq_msg_get_open(const uint8_t *body, size_t bytes, struct rq_msg_open *ret);
enum rq_err rq_msg_get_opened(const uint8_t *body, size_t bytes, struct rq_msg_opened *ret);
enum rq_err rq_msg_get_commit(const uint8_t *body, size_t bytes, struct rq_msg_commit *ret);
enum rq_err rq_msg_get_outcome(const uint8_t *body, size_t bytes, struct rq_msg_outcome *ret);
enum rq_err rq_msg_get_ask(const uint8_t *body, size_t bytes, struct rq_msg_ask *ret);
enum rq_err rq_msg_get_status(const uint8_t *body, size_t bytes, struct rq_msg_status *ret);
enum rq_err rq_msg_get_state(const uint8_t *body, size_t bytes, struct rq_msg_state *ret);
enum rq_err rq_msg_get_read(const uint8_t *body, size_t bytes, struct rq_msg_read *ret);
enum rq_err rq_msg_get_ready(const uint8_t *body, size_t bytes, struct rq_msg_ready *ret);
enum rq_err rq_msg_get_failed(const uint8_t *body, size_t bytes, struct rq_msg_failed *ret);
enum rq_err rq_msg_get_look(const uint8_t *body, size_t bytes, struct rq_msg_look *ret);

#endif
