/* Pipe: a stream between nodes for a thread that may wait: so many bytes, or an error.
 *
 * One thread reads and writes; the stream's callbacks come on the peers' thread.  What was received and not read is bounded by the
 * stream's window. */
#ifndef RAFTD_CLUSTER_PIPE_H
#define RAFTD_CLUSTER_PIPE_H

#include <stddef.h>

#include "raftd/net/peers.h"

struct rq_pipe;

/* Opens a stream; errors of rq_stream_open(). */
enum rq_err rq_pipe_open(struct rq_peers *peers, uint64_t instance, const void *head, size_t head_bytes,
                         struct rq_pipe **ret_pipe);
/* For a stream that the other side has opened, and its ops and ctx then.  Takes the stream when ops->stream() returns OK. */
enum rq_err rq_pipe_accept(struct rq_stream *stream, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                           struct rq_pipe **ret_pipe);
/* Not taken after all. */
void rq_pipe_refused(struct rq_pipe *p);

/* All of it.  AWAY: the other side has ended, or the connection; or nothing has moved for a minute; or what the other side said
 * when it aborted. */
enum rq_err rq_pipe_read(struct rq_pipe *p, void *data, size_t bytes);
enum rq_err rq_pipe_write(struct rq_pipe *p, const void *data, size_t bytes);

/* Ends the stream. */
void rq_pipe_close(struct rq_pipe *p);

#endif
