/* Conduit: a stream of the peers (raftd/net/peers.h) for one thread that may wait. */
#ifndef RAFTD_CLUSTER_CONDUIT_H
#define RAFTD_CLUSTER_CONDUIT_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/net/peers.h"
#include "raftd/wire/err.h"

/* A side that does nothing for so long has lost interest; the stream is aborted, and the wait ends with AWAY. */
#define RQ_CONDUIT_SILENCE_MS 30000u

struct rq_conduit;

/* As rq_stream_open(). */
enum rq_err rq_conduit_open(struct rq_peers *peers, uint64_t instance, const void *head, size_t head_bytes,
                            struct rq_conduit **ret_conduit);
/* In the callback of a stream that was opened by the other side: takes it if OK; fills in what the callback has to. */
enum rq_err rq_conduit_accept(struct rq_stream *stream, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                              struct rq_conduit **ret_conduit);

/* The next bytes, which are valid until the next call; so long the other side sends no more than one window.  0 bytes: it has sent
 * everything.  Else why it was closed. */
enum rq_err rq_conduit_read(struct rq_conduit *c, const uint8_t **ret_data, size_t *ret_bytes);
/* So many, copied.  AWAY: the other side has ended before; else as above.  Of use for a conduit that is read in no other way. */
enum rq_err rq_conduit_read_exactly(struct rq_conduit *c, void *data, size_t bytes);
/* All of it.  EXISTS: the other side has ended, and wants no more. */
enum rq_err rq_conduit_write(struct rq_conduit *c, const void *data, size_t bytes);
/* Nothing more will be written; waits until the other side has ended, too: OK. */
enum rq_err rq_conduit_finish(struct rq_conduit *c);
/* Any thread: who waits is woken. */
void rq_conduit_abort(struct rq_conduit *c, enum rq_err err, const char *text);
/* Why it was closed, in words. */
const char *rq_conduit_text(struct rq_conduit *c);
/* Aborts it if it is open. */
void rq_conduit_free(struct rq_conduit *c);

#endif
