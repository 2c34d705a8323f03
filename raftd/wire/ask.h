/* Asks: what one node asks of another, in a REQUEST or JOIN between them (peer.h).  docs/protocol.md#asks.
 *
 * The body of each is one msgpack array, its first element the kind.  An answer is an array without a kind: who asked knows what
 * for.  Errors come as FAILED, with words.
 *
 *   APPEND   an entry for the leader's log, and    term in which it was appended; AWAY, FULL, BUSY, TOOBIG: it was not
 *            who has its staged body
 *   JOIN     I want to be a member                 the cluster's id, and its members: I am one now
 *   NOTIFY   I wait for others, to found one       the same, or id 0 as long as there is no cluster; how many wait
 *   REMOVE   this member is to leave               (empty)
 *   INDEX    how far is the log committed now?     index; AWAY: it does not lead, or cannot prove that it still does
 *   REACH    a voter that I hear does not hear     (empty)
 *            you, the leader: I could lead
 *   ABOUT    who are you?                          version, address of the HTTP API, and how far it is
 *   TRANSFER let this voter lead, or any other     (empty): it does
 *   HELD     how far do you have all that the      index: up to it nothing that any entry names is missing here (staged bodies); and
 *            log names?                            which databases are fenced here
 *
 * A database where the log has a MARK entry (raftd/cluster/marks.h).  UNREADY: not there yet; QUARANTINED: it is fenced here; NOTFOUND: not
 * held any more:
 *   STATE    what is it there?                     version, stamp, page size and pages
 *   HASHES   of these pages?                       the hashes
 *   PAGES    these pages?                          their bytes
 *
 * The turn of a database (raftd/cluster/turns.h):
 *   TURN_TAKE    to the leader: I want it          comes when it is granted: its serial number, and the index up to which the log
 *                                                  has to be applied first; AWAY: not the leader, or not any more
 *   TURN_WANTED  to the holder: others wait        given, and the index of its last commit (0: not known); or not yet: ask again
 *   TURN_HELD    to a new leader: I hold these     which of them another one holds
 */
#ifndef RAFTD_WIRE_ASK_H
#define RAFTD_WIRE_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"
#include "raftd/wire/msg.h"

#define RQ_ASK_KEY_BYTES 32u

enum rq_ask_kind {
    RQ_ASK_APPEND = 1,
    RQ_ASK_JOIN = 2,
    RQ_ASK_NOTIFY = 3,
    RQ_ASK_REMOVE = 4,
    RQ_ASK_TURN_TAKE = 5,
    RQ_ASK_TURN_WANTED = 6,
    RQ_ASK_TURN_HELD = 7,
    RQ_ASK_INDEX = 8,
    RQ_ASK_REACH = 14,
    RQ_ASK_ABOUT = 15,
    RQ_ASK_TRANSFER = 16,
    RQ_ASK_STATE = 17,
    RQ_ASK_HASHES = 18,
    RQ_ASK_PAGES = 19,
    RQ_ASK_HELD = 20,
};

/* A node that wants to be a member, as it describes itself; who relays a JOIN to the leader repeats what it has proved. */
struct rq_ask_member {
    uint64_t instance;
    struct rq_str name, raft_addr, http_addr;
    bool votes;
    const uint8_t *key;           /* RQ_ASK_KEY_BYTES, borrows */
    struct rq_str user, password; /* of a credentials file (http/credentials.h); empty: nobody's */
};

/* A list of {database id u32, serial u64}, RQ_ASK_HELD_BYTES each. */
#define RQ_ASK_HELD_BYTES 12u
struct rq_ask_held {
    const uint8_t *data; /* borrows */
    uint32_t bytes;
};

/* A list of instances, u64 each, big-endian. */
struct rq_ask_holders {
    const uint8_t *data; /* borrows */
    uint32_t bytes;
};
#define RQ_ASK_HOLDERS_MAX 64u

struct rq_ask {
    enum rq_ask_kind kind;
    struct {
        uint16_t type;
        struct rq_ask_holders holders; /* STAGED: instances that have the body; else empty */
        const uint8_t *data;           /* borrows; a put leaves it out: the caller sends it behind */
        uint32_t bytes;
    } append;
    struct rq_ask_member member; /* JOIN, NOTIFY */
    struct rq_str name;          /* REMOVE: of a node, or its address; TRANSFER: of a node, or empty */
    uint64_t instance;           /* REACH */
    struct {
        uint32_t db_id;
        uint64_t serial; /* WANTED */
    } turn;              /* TAKE, WANTED */
    struct rq_ask_held held;
    struct {
        uint32_t db_id;
        uint64_t index;
        uint32_t first, count; /* HASHES, PAGES */
    } mark;                    /* STATE, HASHES, PAGES */
};

/* As in msg.h. */
enum rq_err rq_ask_put(struct rq_bytes *out, const struct rq_ask *ask);
enum rq_err rq_ask_get(const uint8_t *data, size_t bytes, struct rq_ask *ret);

/* The answer to APPEND. */
enum rq_err rq_ask_put_appended(struct rq_bytes *out, uint64_t term);
enum rq_err rq_ask_get_appended(const uint8_t *data, size_t bytes, uint64_t *ret_term);

/* To INDEX. */
enum rq_err rq_ask_put_index(struct rq_bytes *out, uint64_t index);
enum rq_err rq_ask_get_index(const uint8_t *data, size_t bytes, uint64_t *ret_index);
/* To HELD. */
#define RQ_ASK_FENCED_MAX 64u
struct rq_ask_has {
    uint64_t index;
    unsigned fenced_count; /* RQ_ASK_FENCED_MAX: perhaps there are more */
    uint32_t fenced[RQ_ASK_FENCED_MAX];
};
enum rq_err rq_ask_put_has(struct rq_bytes *out, const struct rq_ask_has *has);
enum rq_err rq_ask_get_has(const uint8_t *data, size_t bytes, struct rq_ask_has *ret);
/* To STATE. */
struct rq_ask_state {
    uint64_t version, stamp_index;
    uint32_t stamp_term, page_size, page_count;
};
enum rq_err rq_ask_put_state(struct rq_bytes *out, const struct rq_ask_state *state);
enum rq_err rq_ask_get_state(const uint8_t *data, size_t bytes, struct rq_ask_state *ret);
/* To PAGES. */
enum rq_err rq_ask_put_pages(struct rq_bytes *out, const uint8_t *pages, uint32_t pages_bytes);
enum rq_err rq_ask_get_pages(const uint8_t *data, size_t bytes, const uint8_t **ret_pages, uint32_t *ret_bytes);
/* To HASHES: u64 each, big-endian, as many as pages; hashes borrows from data. */
enum rq_err rq_ask_put_hashes(struct rq_bytes *out, const uint64_t *hashes, uint32_t count);
enum rq_err rq_ask_get_hashes(const uint8_t *data, size_t bytes, const uint8_t **ret_hashes, uint32_t *ret_count);
/* To TURN_TAKE: serial and index.  To TURN_WANTED: given and index.  To TURN_HELD. */
enum rq_err rq_ask_put_granted(struct rq_bytes *out, uint64_t serial, uint64_t index);
enum rq_err rq_ask_get_granted(const uint8_t *data, size_t bytes, uint64_t *ret_serial, uint64_t *ret_index);
enum rq_err rq_ask_put_given(struct rq_bytes *out, bool given, uint64_t index);
enum rq_err rq_ask_get_given(const uint8_t *data, size_t bytes, bool *ret_given, uint64_t *ret_index);
enum rq_err rq_ask_put_denied(struct rq_bytes *out, const struct rq_ask_held *denied);
enum rq_err rq_ask_get_denied(const uint8_t *data, size_t bytes, struct rq_ask_held *ret_denied);

/* To JOIN and NOTIFY. */
struct rq_ask_joined {
    uint64_t cluster;       /* 0: none yet */
    uint32_t waiting;       /* nodes that are known to wait for one */
    const uint8_t *members; /* borrows; a configuration entry (node/member.h), or nothing */
    uint32_t members_bytes;
};
enum rq_err rq_ask_put_joined(struct rq_bytes *out, const struct rq_ask_joined *joined);
enum rq_err rq_ask_get_joined(const uint8_t *data, size_t bytes, struct rq_ask_joined *ret);

/* To ABOUT. */
struct rq_ask_about {
    struct rq_str version, api_url; /* borrow */
    bool leads;
    uint64_t term, committed;
};
enum rq_err rq_ask_put_about(struct rq_bytes *out, const struct rq_ask_about *about);
enum rq_err rq_ask_get_about(const uint8_t *data, size_t bytes, struct rq_ask_about *ret);

#endif
