/* Raft messages as bytes, between nodes.  Format: docs/protocol.md#raft-messages.
 *
 * An AppendEntries names its entries only by place; they come from the log, and go out in as many messages as their size asks for,
 * each with its own right prev: a receiver cannot tell it from several that the core has made. */
#ifndef RAFTD_NODE_MESSAGE_H
#define RAFTD_NODE_MESSAGE_H

#include <raft.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/log/log.h"
#include "raftd/node/node.h"
#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"

#define RQ_RAFT_MESSAGE_BYTES \
    (1u << 20) /* a message ends with the entry that takes it past this: heartbeats wait behind it */
#define RQ_RAFT_MESSAGE_ENTRIES 1024u

/* Gives out the message in pieces, to be sent in this order; data is valid for the call.  Loop context.  NOTFOUND: the log does not
 * hold its entries any more, or not yet; nothing, or only the first pieces were given out, and the rest must not be sent. */
enum rq_err rq_raft_message_put(const struct raft_message *m, struct rq_log *log,
                                void (*piece)(void *ctx, const uint8_t *data, size_t bytes), void *ctx);

/* Gives out the question or answer as the only piece. */
enum rq_err rq_raft_message_put_round(const struct rq_round *round,
                                      void (*piece)(void *ctx, const uint8_t *data, size_t bytes), void *ctx);

struct rq_raft_message {
    bool is_round;
    struct rq_round round;        /* for rq_node_receive_round(), or: */
    struct raft_message message;  /* for rq_node_receive(); server_id and server_address are the caller's */
    struct rq_log_entry *entries; /* owns, with a reference to each blob */
    unsigned entry_count;
};

/* PROTOCOL: no such message.  fini is due after OK only. */
enum rq_err rq_raft_message_get(const uint8_t *data, size_t bytes, struct rq_raft_message *ret);
void rq_raft_message_fini(struct rq_raft_message *m);

#endif
