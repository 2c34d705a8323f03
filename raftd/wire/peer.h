/* Messages between nodes.  Normative text and byte examples: docs/protocol.md#between-nodes.
 *
 * Frames as on the local socket (frame.h), with types and a maximum of their own.  Bodies of HELLO, WELCOME and FAILED are one
 * msgpack array each; all others are for whoever is above the transport, or empty.
 *
 *   who dials                                      who is dialled
 *   HELLO     who I am, what for                   WELCOME   who I am
 *   FAILED    you are not who I meant              FAILED    go away
 *   PING      are you there?                       PONG      yes                     (either side may ask)
 *   MESSAGE   raft, no answer
 *   REQUEST   id, body                             ANSWER    id, body; or FAILED     with the id
 *   OPEN      id = stream, its first words
 *   DATA, CREDIT, END, FAILED: with the stream's id, by either side
 */
#ifndef RAFTD_WIRE_PEER_H
#define RAFTD_WIRE_PEER_H

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"
#include "raftd/wire/frame.h"
#include "raftd/wire/msg.h"

#define RQ_PEER_MAGIC              0x72712d7065657273u /* "rq-peers" */
#define RQ_PEER_VERSION            1u
#define RQ_PEER_BODY_MAX           (8u << 20) /* a record that does not fit into a log entry is a staged body */
#define RQ_PEER_HANDSHAKE_BODY_MAX 4096u
#define RQ_PEER_DATA_MAX           65536u
#define RQ_PEER_STREAM_HEAD_MAX    65536u
#define RQ_PEER_NAME_MAX           255u

#define RQ_NODE_KEY_BYTES       32u /* Ed25519, public */
#define RQ_NODE_SIGNATURE_BYTES 64u

enum rq_peer_type {
    RQ_PEER_HELLO = 1,
    RQ_PEER_WELCOME = 2,
    RQ_PEER_FAILED = 3, /* id 0: the connection is refused; else that request or stream */
    RQ_PEER_PING = 4,
    RQ_PEER_PONG = 5,
    RQ_PEER_MESSAGE = 6,
    RQ_PEER_REQUEST = 7,
    RQ_PEER_ANSWER = 8,
    RQ_PEER_OPEN = 9,
    RQ_PEER_DATA = 10,
    RQ_PEER_CREDIT = 11, /* body: u32, bytes that the reader has room for in addition */
    RQ_PEER_END = 12,
};

enum rq_peer_kind { RQ_PEER_RAFT, RQ_PEER_REQUESTS, RQ_PEER_BULK, RQ_PEER_JOIN };
#define RQ_PEER_KINDS 4

/* HELLO and WELCOME.  The signature is over rq_peer_signed(): only who holds the key and is an end of this very TLS channel can
 * have made it. */
struct rq_peer_hello {
    uint32_t version;
    uint64_t cluster; /* 0: none yet */
    uint64_t instance;
    uint64_t epoch;                   /* random, of this start of the process */
    uint64_t to;                      /* instance that is spoken to; 0: whoever is there */
    enum rq_peer_kind kind;           /* WELCOME repeats it */
    struct rq_str node_name, address; /* as it is to be dialled */
    const uint8_t *key;               /* RQ_NODE_KEY_BYTES, borrows */
    const uint8_t *signature;         /* RQ_NODE_SIGNATURE_BYTES, borrows */
};

struct rq_peer_failed {
    enum rq_err err;
    struct rq_str text;
};

#define RQ_PEER_EXPORTER_LABEL "EXPORTER-rqvfs-peer"
#define RQ_PEER_EXPORTER_BYTES 32u
#define RQ_PEER_SIGNED_BYTES   (12u + RQ_PEER_EXPORTER_BYTES)
/* What HELLO (type HELLO) and WELCOME sign: another text for each, so that none can be given back as the other. */
void rq_peer_signed(enum rq_peer_type type, const uint8_t exporter[RQ_PEER_EXPORTER_BYTES],
                    uint8_t text[RQ_PEER_SIGNED_BYTES]);

/* TOOBIG past RQ_PEER_BODY_MAX, PROTOCOL when flags are not 0 or the type is unknown. */
enum rq_err rq_peer_frame_decode(const uint8_t head[RQ_FRAME_HEAD_BYTES], struct rq_frame *ret_frame);

/* Encoders append a whole frame, decoders take a whole body; as in msg.h.  VERSION: another version, told by its first two
 * fields whatever follows them. */
enum rq_err rq_peer_put_hello(struct rq_bytes *out, enum rq_peer_type type, const struct rq_peer_hello *m);
enum rq_err rq_peer_put_failed(struct rq_bytes *out, uint64_t id, const struct rq_peer_failed *m);
enum rq_err rq_peer_get_hello(const uint8_t *body, size_t bytes, struct rq_peer_hello *ret);
enum rq_err rq_peer_get_failed(const uint8_t *body, size_t bytes, struct rq_peer_failed *ret);

#endif
