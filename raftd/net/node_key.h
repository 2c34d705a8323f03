/* Node key: the Ed25519 key that is this instance, for the other nodes.
 *
 * File raft/key, sealed_text.h with one line; mode 0600.  Made at the first start, never changed: whoever has it is this node. */
#ifndef RAFTD_NET_NODE_KEY_H
#define RAFTD_NET_NODE_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "raftd/wire/peer.h"
#include "vfs/disk.h"

#define RQ_NODE_KEY_FORMAT 1u

struct rq_node_key;

/* Reads it; or makes one, which is durable on return.  CORRUPT, VERSION, IO, FULL, PERM. */
enum rq_err rq_node_key_load(struct rq_disk *disk, const char *raft_dir, struct rq_node_key **ret_key);
void rq_node_key_free(struct rq_node_key *k);

const uint8_t *rq_node_key_public(const struct rq_node_key *k); /* RQ_NODE_KEY_BYTES */

/* Any thread. */
enum rq_err rq_node_key_sign(const struct rq_node_key *k, const void *data, size_t bytes,
                             uint8_t signature[RQ_NODE_SIGNATURE_BYTES]);
bool rq_node_key_verify(const uint8_t public_key[RQ_NODE_KEY_BYTES], const void *data, size_t bytes,
                        const uint8_t signature[RQ_NODE_SIGNATURE_BYTES]);

#endif
