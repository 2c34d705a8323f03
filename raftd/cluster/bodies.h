/* Bodies: staged bodies between the nodes.  docs/protocol.md#staged-bodies.
 *
 *   bring   here --> every voter, in parallel,      before the entry that names it is proposed
 *                    and who is to be one
 *   fetch   any member that has it --> here         before an entry is applied whose body is missing
 *
 * Each body on its way has a thread of its own, which waits for network and disk, and holds a window of it; so a slow member keeps
 * nobody else waiting.  One more thread fetches, one body after another. */
#ifndef RAFTD_CLUSTER_BODIES_H
#define RAFTD_CLUSTER_BODIES_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/db/carrier.h"
#include "raftd/db/shelf.h"
#include "raftd/net/peers.h"
#include "raftd/node/member.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

struct rq_bodies;

struct rq_bodies_config {
    struct rq_disk *disk; /* borrows, as all */
    const char *staged_dir;
    struct rq_shelf *shelf;
    struct rq_peers *peers;
    uint64_t instance; /* this node's */
    /* A copy of the members as they are known now; count 0: not known. */
    void (*members)(void *ctx, struct rq_members *ret_members);
    /* The state of another member is to take the place of what the log here leads to, and nothing that is missing for it is worth waiting
     * for; nor need the members of the log be those who have it. */
    bool (*is_superseded)(void *ctx);
    void *ctx;
};

enum rq_err rq_bodies_new(const struct rq_bodies_config *config, struct rq_bodies **ret_bodies);
/* After the peers were freed, and with every carriage left.  Fetches that are not done never will be. */
void rq_bodies_free(struct rq_bodies *b);

const struct rq_carrier *rq_bodies_carrier(struct rq_bodies *b); /* borrows */

/* A stream whose head says BRING or FETCH; as the callback of peers.h. */
enum rq_err rq_bodies_stream(struct rq_bodies *b, struct rq_stream *stream, const uint8_t *head, size_t head_bytes,
                             const struct rq_stream_ops **ret_ops, void **ret_ctx, char text[RQ_TEXT_MAX + 1]);

#endif
