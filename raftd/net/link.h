/* Link: the local socket, and the frames that applications send over it.
 *
 * One line = one connection.  Frames of a line are given out one at a time, in order, on a thread of the link, which may carry
 * strands until the answer is sent: other lines go on meanwhile.  An answer may be sent from any thread, also long after.
 *
 * What a stranger may do: connect, if the file system lets him; send garbage (closed); stop in the middle of a frame (closed after
 * RQ_LINE_HALF_FRAME_MS, delays nobody); not read his answers (closed past RQ_LINE_UNSENT_MAX); connect until descriptors run
 * out (further connects wait, lines that exist go on). */
#ifndef RAFTD_NET_LINK_H
#define RAFTD_NET_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "raftd/wire/err.h"
#include "raftd/wire/frame.h"

#define RQ_LINK_SOCKET        "raftd.sock"
#define RQ_LINE_HALF_FRAME_MS 10000
#define RQ_LINE_UNSENT_MAX    (1u << 20)

struct rq_link;
struct rq_line;

struct rq_link_ops {
    void *ctx;
    /* A connection: returns what frame and closed get as user; NULL: close it.  Owns one reference to the line. */
    void *(*opened)(void *ctx, struct rq_line *line);
    /* Borrows body for the call.  False: the line is closed. */
    bool (*frame)(void *user, const struct rq_frame *frame, const uint8_t *body);
    /* The other side is gone, or was sent away.  Comes once, and nothing comes after it. */
    void (*closed)(void *user);
};

struct rq_link_config {
    const char *dir;               /* the socket is RQ_LINK_SOCKET in it; may be longer than a socket's path */
    const struct rq_link_ops *ops; /* borrows */
};

/* The caller holds the lock on the data directory: a socket that is there is a dead one, and is replaced.  EXISTS: something
 * that is no socket is in its place. */
enum rq_err rq_link_new(const struct rq_link_config *config, struct rq_link **ret_link);
/* Accepts nothing more and removes the socket.  Lines that exist are left to the end of the process. */
void rq_link_stop(struct rq_link *link);

/* Sends whole frames; what the socket does not take at once is copied.  On a closed line nothing happens. */
void rq_line_send(struct rq_line *line, const void *data, size_t bytes);
/* Ends the line, from any thread: who cannot be told what he asked for learns that he has to ask again. */
void rq_line_break(struct rq_line *line);
void rq_line_unref(struct rq_line *line);

/* For the log: who connected.  In a container these may mean nothing. */
void rq_line_peer(const struct rq_line *line, pid_t *ret_pid, uid_t *ret_uid);

#endif
