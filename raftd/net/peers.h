/* Peers: what the nodes of a cluster say to each other.  One TCP port; TLS 1.3 always; docs/protocol.md#between-nodes.
 *
 * Each node dials its own connections to each of its peers, one per kind, and keeps them up with back-off:
 *
 *   RAFT      messages of the consensus, one way; may be lost, never delayed by anything else
 *   REQUEST   question and answer, by id
 *   BULK      streams of bytes with credit: as much is under way as the reader has room for
 *   JOIN      one question of a node that is no member (yet), to an address; then closed
 *
 * Who speaks is proved by the instance's key (node_key.h), which signs the TLS channel; the certificates of -node-cert and its
 * family are checked in addition.  Which key belongs to a member is the membership's matter: `members` below for who we dial,
 * judge() for who dials us.
 *
 * Threads: one thread at a time owns the sockets and reads; one more resolves names.  Everything that sends does so at once, on the thread
 * that brings it, and never waits: what the socket does not take is queued up to a bound that the call names.  Callbacks come on
 * the one thread, hold no lock of ours (they may call anything here but rq_peers_free), and must not block: all connections wait
 * for them meanwhile. */
#ifndef RAFTD_NET_PEERS_H
#define RAFTD_NET_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "raftd/net/node_key.h"
#include "raftd/net/tls.h"
#include "raftd/wire/err.h"
#include "raftd/wire/peer.h"

#define RQ_PEERS_ADDRESS_MAX 320u /* host:port with its NUL */

/* What may pile up for a peer that does not read; then the next is dropped or refused.  A single message is always taken. */
#define RQ_PEERS_RAFT_QUEUE_MAX    ((size_t)8 << 20)
#define RQ_PEERS_REQUEST_QUEUE_MAX ((size_t)8 << 20)
#define RQ_PEERS_REQUESTS_MAX      1024u /* of ours that one peer has not answered; and of his that we have not */
#define RQ_PEERS_BULK_WINDOW       ((size_t)1 << 20) /* bytes of a stream that its reader has not consumed */
#define RQ_PEERS_BULK_STREAMS_MAX  64u               /* of one connection */
#define RQ_PEERS_STRANGERS_MAX     256u /* connections that have not said who they are: the oldest gives way */
#define RQ_PEERS_MEMBERS_MAX       256u
#define RQ_PEERS_HANDSHAKE_MS      10000
#define RQ_PEERS_JOIN_MS           60000 /* a stranger with a question */

struct rq_peers;
struct rq_call;
struct rq_stream;

/* Who is at the other end of a connection.  Borrowed for the call that shows it. */
struct rq_peer_who {
    uint64_t cluster; /* 0: in none yet; only in a JOIN */
    uint64_t instance;
    uint64_t epoch; /* of this start of its process */
    const char *node_name;
    const uint8_t *key;  /* RQ_NODE_KEY_BYTES: proved */
    const char *address; /* of the socket, for messages */
    enum rq_peer_kind kind;
};

/* One direction of a stream.  ctx is what opened() returned, or rq_stream_open() was given. */
struct rq_stream_ops {
    /* Bytes in order.  At most RQ_PEERS_BULK_WINDOW come before rq_stream_consumed() says that there is room for more. */
    void (*data)(void *ctx, const uint8_t *data, size_t bytes);
    /* The other side has sent everything: rq_stream_end(). */
    void (*ended)(void *ctx);
    /* rq_stream_send() may be tried again. */
    void (*writable)(void *ctx);
    /* Once, and nothing comes after it.  OK: both sides had ended.  Else the other's rq_stream_abort() with its text, or AWAY:
     * the connection is lost. */
    void (*closed)(void *ctx, enum rq_err err, const char *text);
};

struct rq_peers_ops {
    void *ctx;
    /* May it connect?  OK; else the refusal, with words that the other side is told, too.  Not asked about other clusters,
     * versions, forged keys and copies of data directories: those are refused before. */
    enum rq_err (*judge)(void *ctx, const struct rq_peer_who *who, char text[RQ_TEXT_MAX + 1]);
    void (*raft)(void *ctx, uint64_t from, const uint8_t *data, size_t bytes);
    /* Takes the call: exactly one rq_call_answer() or rq_call_fail(), from any thread, also long after. */
    void (*request)(void *ctx, const struct rq_peer_who *from, struct rq_call *call, const uint8_t *data, size_t bytes);
    /* A stream that the other side opened, with its first words.  Takes the stream.  Fills in ops (borrowed until closed) and ctx;
     * or refuses with an error and words, and has not taken it. */
    enum rq_err (*stream)(void *ctx, const struct rq_peer_who *from, struct rq_stream *stream, const uint8_t *head,
                          size_t head_bytes, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                          char text[RQ_TEXT_MAX + 1]);
};

struct rq_peers_config {
    const char *listen_address;    /* -raft-addr: host:port; port 0 for any */
    const char *advertise_address; /* -raft-adv-addr */
    const char *node_name;
    uint64_t cluster; /* 0: none yet, see rq_peers_set_cluster() */
    uint64_t instance;
    struct rq_node_key *key;        /* borrows, as all else here */
    const struct rq_tls_files *tls; /* the -node-* flags; NULL: none given */
    const struct rq_peers_ops *ops;
    /* 0: the default.  A ping goes out when nothing was heard for ping_ms; after dead_ms of silence a connection is given up. */
    unsigned ping_ms, dead_ms;
};

/* IO or PERM: the address cannot be listened on, or a certificate cannot be read; text says which, and why. */
enum rq_err rq_peers_new(const struct rq_peers_config *config, struct rq_peers **ret_peers, char text[RQ_TEXT_MAX + 1]);
/* Closes everything; what was asked and not answered is answered now, streams are closed.  Calls and streams that are still held
 * stay valid and do nothing. */
void rq_peers_free(struct rq_peers *p);

unsigned rq_peers_port(const struct rq_peers *p);
/* The cluster was founded or joined.  Connections that were made without it stay. */
void rq_peers_set_cluster(struct rq_peers *p, uint64_t cluster);
/* Looks at the certificate files again at the next connection even if they seem unchanged (SIGHUP). */
void rq_peers_reload(struct rq_peers *p);

struct rq_peer_member {
    uint64_t instance;
    const char *address;
    uint8_t key[RQ_NODE_KEY_BYTES];
};
/* Whom to dial: all members but this node.  Connections to others, or to another address or key, are closed; also those that
 * members had made to us and others had: judge() is asked again about each. */
enum rq_err rq_peers_set_members(struct rq_peers *p, const struct rq_peer_member *members, size_t count);

/* --- raft ----------------------------------------------------------------------------------------------------------------- */

/* False: dropped, there is no connection or its queue is full.  Raft sends again.  Copies. */
bool rq_peers_send_raft(struct rq_peers *p, uint64_t instance, const struct iovec *parts, int part_count);

/* --- requests ------------------------------------------------------------------------------------------------------------- */

/* OK: the answer.  AWAY: it was not sent, nothing has happened.  UNKNOWN: it was sent, and no answer came in time or ever.  Else
 * what rq_call_fail() said; data is its text then. */
typedef void (*rq_answer_cb)(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes);

/* Answered exactly once, on the thread of callbacks, never from inside the call.  While there is no connection the request waits
 * for one, as long as its time lasts.  Copies.  NOTFOUND: no such member; BUSY: too many are under way; TOOBIG; NOMEM: then
 * there is no answer. */
enum rq_err rq_peers_request(struct rq_peers *p, uint64_t instance, const struct iovec *parts, int part_count,
                             unsigned timeout_ms, rq_answer_cb answer, void *ctx);

/* As a JOIN, to whoever listens there; who is NULL if nobody did.  On a refusal data is its text. */
typedef void (*rq_join_cb)(void *ctx, enum rq_err err, const struct rq_peer_who *who, const uint8_t *data,
                           size_t bytes);
enum rq_err rq_peers_join(struct rq_peers *p, const char *address, const struct iovec *parts, int part_count,
                          unsigned timeout_ms, rq_join_cb answer, void *ctx);

/* Frees the call.  An answer that nobody waits for any more is dropped. */
void rq_call_answer(struct rq_call *call, const struct iovec *parts, int part_count);
/* The same, for an answer that may wait for company: it goes with the next frame to that node, or some 50 ms later. */
void rq_call_answer_later(struct rq_call *call, const struct iovec *parts, int part_count);
void rq_call_fail(struct rq_call *call, enum rq_err err, const char *text);

/* --- streams -------------------------------------------------------------------------------------------------------------- */

/* AWAY: no connection; BUSY: too many streams; NOTFOUND; TOOBIG: head above RQ_PEER_STREAM_HEAD_MAX.  On OK closed() will come. */
enum rq_err rq_stream_open(struct rq_peers *p, uint64_t instance, const void *head, size_t head_bytes,
                           const struct rq_stream_ops *ops, void *ctx, struct rq_stream **ret_stream);
/* Takes as many bytes as there is credit and queue for: 0 .. bytes.  When it is fewer, writable() comes later.  Any thread, but one
 * at a time for a stream. */
size_t rq_stream_send(struct rq_stream *s, const void *data, size_t bytes);
/* The reader has room for so many bytes more. */
void rq_stream_consumed(struct rq_stream *s, size_t bytes);
/* Nothing more will be sent. */
void rq_stream_end(struct rq_stream *s);
/* Closed for both sides: closed() comes here, too, with the same. */
void rq_stream_abort(struct rq_stream *s, enum rq_err err, const char *text);
/* The holder's reference; also before closed() has come. */
void rq_stream_unref(struct rq_stream *s);

/* --- for people ----------------------------------------------------------------------------------------------------------- */

struct rq_peer_state {
    bool connected[RQ_PEER_KINDS]; /* ours to it, by kind */
    uint64_t heard_ms_ago;         /* anything, on any connection; UINT64_MAX: never */
    uint64_t raft_sent, raft_dropped;
    uint64_t sent_bytes, received_bytes;
    char text[RQ_TEXT_MAX + 1]; /* why there is no connection, if there is none */
};
/* False: no such member. */
bool rq_peers_state(struct rq_peers *p, uint64_t instance, struct rq_peer_state *ret_state);

#endif
