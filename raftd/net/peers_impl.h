/* Peers, inside.  Divisions: peers.c (members, the thread, dialling), peer_conn.c (one connection: bytes and frames),
 * peer_handshake.c (who is there), peer_request.c, peer_stream.c.
 *
 * "The I/O thread" is the watcher of the door in peers.c: one at a time, so what is its own needs no lock.  Order of locks, outer first:
 * rq_peers.lock, peer_member.lock, peer_conn.lock.  No callback is called with any of them held. */
#ifndef RAFTD_NET_PEERS_IMPL_H
#define RAFTD_NET_PEERS_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "raftd/net/door.h"
#include "raftd/net/peers.h"
#include "raftd/net/resolve.h"

#define PEER_TICK_MS           50                  /* time-outs are looked at so often */
#define PEER_CONNECT_MS        500                 /* then another SYN is better than waiting for the kernel's next */
#define PEER_BACKOFF_MS        50                  /* doubled up to the next */
#define PEER_BACKOFF_MAX       250                 /* whoever comes back is found within it */
#define PEER_REFUSED_MS        2000                /* who was told no asks less often */
#define PEER_ENDING_MS         1000                /* for the other side to read why */
#define PEER_NOTE_MS           1000                /* lines of the log about refusals are so far apart */
#define PEER_BULK_QUEUE        ((size_t)512 << 10) /* ciphertext under way; small, so that credit decides */
#define PEER_CONTROL_ROOM      ((size_t)64 << 10)  /* above a queue's bound, for what answers the other side */
#define PEER_IN_BYTES_STRANGER 4096u
#define PEER_IN_BYTES          65536u
#define PEER_THREADS_MAX       64
#define PEER_RECEIVES_A_TURN   4 /* then the others have theirs */

struct peer_conn;
struct peer_dial;
struct peer_ask;
struct peer_join;

/* --- one connection ------------------------------------------------------------------------------------------------------- */

enum conn_state {
    CONN_CONNECTING,
    CONN_TLS,
    CONN_HELLO, /* waits for HELLO, or as the dialler for WELCOME */
    CONN_OPEN,
    CONN_ENDING, /* has sent why; waits for the other to have read it */
    CONN_GONE,
};

struct peer_conn {
    struct rq_peers *peers;
    atomic_uint refs;              /* the thread's, one of each call and stream, a sender's for the moment */
    struct peer_conn *next, *prev; /* in peers->conns, oldest first */

    /* The I/O thread's. */
    enum conn_state state;
    struct peer_dial *dial; /* whose it is; NULL: we were dialled, or the dialler has gone */
    bool dialled;
    bool nursed; /* in the porch's epoll set */
    bool asked;  /* a JOIN had its question */
    uint64_t since_ms, deadline_ms, heard_ms, pinged_ms;
    struct rq_channel *channel; /* sending: under lock */
    uint8_t *in;                /* ciphertext from the socket: in_begin .. in_end of in_bytes */
    size_t in_begin, in_end, in_bytes;
    unsigned receives_left;
    uint8_t head[RQ_FRAME_HEAD_BYTES]; /* of the frame that is coming */
    size_t head_bytes;
    struct rq_frame frame;
    struct rq_bytes body;
    uint64_t stream_last;         /* id */
    enum rq_err refusal;          /* by either side; OK: none */
    char reason[RQ_TEXT_MAX + 1]; /* of the refusal, or of the end */

    /* Immutable once OPEN. */
    enum rq_peer_kind kind;
    uint64_t cluster, instance, epoch;
    uint8_t key[RQ_NODE_KEY_BYTES];
    char name[RQ_PEER_NAME_MAX + 1];
    char address[RQ_PEERS_ADDRESS_MAX]; /* of the socket */

    pthread_mutex_t lock;
    int fd;              /* guarded by lock, as all below; -1: closed */
    bool open;           /* frames may be sent */
    bool broken;         /* the I/O thread is to close it; fd is shut down */
    bool waits_for_room; /* armed for EPOLLOUT */
    uint8_t *out;        /* ciphertext that the socket has not taken: out_begin .. out_end of out_bytes */
    size_t out_begin, out_end, out_bytes;
    uint8_t *record; /* plaintext of the next record */
    size_t record_bytes;
    struct rq_stream *streams;
    unsigned stream_count;
    uint64_t stream_next; /* id of the last that we opened */

    atomic_uint calls; /* of the other side, not answered */
    atomic_ullong sent_bytes, received_bytes;
};

struct rq_peer_who;
void peer_conn_who(const struct peer_conn *c, struct rq_peer_who *ret_who);

struct peer_conn *peer_conn_new(struct rq_peers *p, int fd, struct peer_dial *dial, const char *address);
void peer_conn_ref(struct peer_conn *c);
void peer_conn_unref(struct peer_conn *c);
/* The I/O thread's.  Ends it now. */
void peer_conn_close(struct peer_conn *c, const char *why_format, ...) __attribute__((format(printf, 2, 3)));
/* Tells the other side why, and ends it when it has read that. */
void peer_conn_refuse(struct peer_conn *c, enum rq_err err, const char *text);
void peer_conn_event(struct peer_conn *c, uint32_t events);
/* Allows frames: OPEN. */
void peer_conn_opened(struct peer_conn *c);
/* Any thread: the I/O thread is to close it. */
void peer_conn_break_locked(struct peer_conn *c);

/* OK; BUSY: bytes are queued, and with these it would be more than queue_max; AWAY.  Any thread. */
enum rq_err peer_conn_send(struct peer_conn *c, enum rq_peer_type type, uint64_t id, const struct iovec *parts,
                           int part_count, size_t queue_max);
/* The same without the end: several frames, then one write.  Lock held. */
enum rq_err peer_conn_put_locked(struct peer_conn *c, enum rq_peer_type type, uint64_t id, const struct iovec *parts,
                                 int part_count);
void peer_conn_flush_locked(struct peer_conn *c);
void peer_conn_flush(struct peer_conn *c);
/* Frames that were put by an encoder. */
enum rq_err peer_conn_send_encoded(struct peer_conn *c, const struct rq_bytes *frame);
/* What answers the other side: when it does not read, the connection is broken. */
void peer_conn_reply(struct peer_conn *c, enum rq_peer_type type, uint64_t id, const struct iovec *parts,
                     int part_count, size_t queue_max);
void peer_conn_reply_failed(struct peer_conn *c, uint64_t id, enum rq_err err, const char *text);

/* --- handshake: peer_handshake.c ------------------------------------------------------------------------------------------- */

/* In TLS: goes on with it, and says HELLO. */
void peer_handshake_go_on(struct peer_conn *c);
/* HELLO, WELCOME, or FAILED came. */
void peer_handshake_frame(struct peer_conn *c, const struct rq_frame *frame, const uint8_t *body);

/* --- dialling -------------------------------------------------------------------------------------------------------------- */

/* One connection that is wanted. */
struct peer_dial {
    struct rq_peers *peers;
    struct peer_member *member; /* NULL: a join's */
    struct peer_join *join;
    enum rq_peer_kind kind;
    struct peer_conn *conn; /* being made or open; the I/O thread's, as the next */
    bool resolving;
    bool told; /* the trouble is in the log */
    bool opened_once;
    enum rq_err told_refusal; /* OK: it was no refusal */
    unsigned backoff_ms;
    uint64_t next_ms;
    struct rq_resolve_job job;
    struct rq_addresses addresses;
    unsigned address_at;
    struct peer_conn *open_conn; /* for senders; guarded by the member's lock, as text */
    char text[RQ_TEXT_MAX + 1];
};

struct peer_member {
    struct rq_peers *peers;
    atomic_uint refs;
    struct peer_member *next; /* in peers->members or ->gone; guarded by peers->lock */
    uint64_t instance;
    char address[RQ_PEERS_ADDRESS_MAX];
    uint8_t key[RQ_NODE_KEY_BYTES];
    struct peer_dial dials[RQ_PEER_JOIN]; /* the kinds before it */
    atomic_ullong heard_ms;               /* 0: never */
    atomic_ullong raft_sent, raft_dropped, sent_bytes, received_bytes;

    pthread_mutex_t lock;
    struct peer_ask *slots[RQ_PEERS_REQUESTS_MAX]; /* guarded by lock, as all below */
    struct peer_ask *first, *last;
    unsigned ask_count, slot_next;
    size_t waiting_bytes; /* copies of requests that wait for a connection */
    uint64_t ask_seq;
    bool gone;
};

struct peer_member *peer_member_find(struct rq_peers *p, uint64_t instance); /* a reference; NULL: none */
void peer_member_unref(struct peer_member *m);

void peer_dial_tick(struct peer_dial *d, uint64_t now_ms); /* dials if it is time */
/* The I/O thread's: the connection of a dial is open; or is gone, and why. */
void peer_dial_opened(struct peer_dial *d);
void peer_dial_lost(struct peer_dial *d, const char *why, enum rq_err refusal);

/* --- requests: peer_request.c ---------------------------------------------------------------------------------------------- */

void peer_requests_send_waiting(struct peer_member *m);
/* What was sent on this connection will not be answered. */
void peer_requests_lost(struct peer_member *m, const struct peer_conn *c);
void peer_requests_tick(struct peer_member *m, uint64_t now_ms);
void peer_requests_end(struct peer_member *m); /* all of them, for the member is gone */
void peer_requests_frame(struct peer_conn *c, const struct rq_frame *frame, const uint8_t *body);

void peer_join_opened(struct peer_join *j);
/* With the answer or without. */
void peer_join_over(struct peer_join *j, enum rq_err err, const struct rq_peer_who *who, const uint8_t *data,
                    size_t bytes);
void peer_joins_begin(struct rq_peers *p); /* those that were asked for */
void peer_joins_tick(struct rq_peers *p, uint64_t now_ms);
void peer_joins_end(struct rq_peers *p);

/* --- streams: peer_stream.c ------------------------------------------------------------------------------------------------ */

void peer_streams_frame(struct peer_conn *c, const struct rq_frame *frame, const uint8_t *body);
void peer_streams_room(struct peer_conn *c); /* the queue has drained */
void peer_streams_lost(struct peer_conn *c);
void peer_streams_closing(struct rq_peers *p); /* those that were ended by another thread */

/* --- all of it ------------------------------------------------------------------------------------------------------------- */

struct rq_peers {
    const struct rq_peers_ops *ops;
    struct rq_node_key *key;
    struct rq_tls *tls;
    uint64_t instance, epoch;
    char name[RQ_PEER_NAME_MAX + 1], advertise[RQ_PEERS_ADDRESS_MAX];
    unsigned ping_ms, dead_ms, port;
    atomic_ullong cluster;
    struct rq_resolver *resolver;
    int listener, epoll, porch, bell;    /* porch: connections of strangers, in a set of their own within the first */
    struct rq_door door;                 /* to epoll */
    pthread_t threads[PEER_THREADS_MAX]; /* guarded by lock, until stop */
    atomic_uint thread_count, threads_away;
    atomic_bool stop;

    pthread_mutex_t lock;
    struct peer_member *members; /* guarded by lock, as the next */
    struct peer_member *gone;    /* to be ended by the I/O thread */
    struct rq_resolve_job *resolved;
    struct peer_join *joins_new;
    struct rq_stream *streams_closing;
    bool judge_again;

    /* The I/O thread's. */
    struct peer_conn *conns, *conns_last, *graveyard;
    unsigned strangers; /* that we have not let in */
    struct peer_join *joins;
    uint64_t tick_ms, refusal_noted_ms;
    bool listening;
    bool ending;
    uint8_t plain[RQ_CHANNEL_RECORD_MAX];
};

uint64_t peers_now_ms(void);
void peers_ring(struct rq_peers *p); /* wakes the I/O thread */

#endif
