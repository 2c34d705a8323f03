/* Link: the local socket, and the frames that applications send over it.
 *
 * One line = one connection.  Frames of a line are given out one at a time, in order, on a thread of the link, which may carry
 * strands until the answer is sent: other lines go on meanwhile.  An answer may be sent from any thread, also long after.
 *
 * What a stranger may do: connect, if the file system lets him; send garbage (closed); stop in the middle of a frame, or of what
 * takes several (closed after RQ_LINE_HALF_FRAME_MS, delays nobody); not read his answers (closed past RQ_LINE_UNSENT_MAX); connect until descriptors run
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

/* What comes of a line after a frame. */
enum rq_line_next {
    RQ_LINE_ENDS,
    RQ_LINE_GOES_ON,
    RQ_LINE_OWES, /* goes on; the next frame belongs to this one and has to come in RQ_LINE_HALF_FRAME_MS */
    RQ_LINE_WAITS, /* this frame was not taken.  Nothing is read, nor is the line closed, until rq_line_resume(); then it comes again */
};

struct rq_link_ops {
    void *ctx;
    /* A connection: returns what frame and closed get as user; NULL: close it.  Owns one reference to the line. */
    void *(*opened)(void *ctx, struct rq_line *line);
    /* Borrows body for the call. */
    enum rq_line_next (*frame)(void *user, const struct rq_frame *frame, const uint8_t *body);
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
/* Once for each RQ_LINE_WAITS, from any thread; it may come before that was returned. */
void rq_line_resume(struct rq_line *line);
/* Ends the line, from any thread: who cannot be told what he asked for learns that he has to ask again. */
void rq_line_break(struct rq_line *line);
void rq_line_unref(struct rq_line *line);

/* For the log: who connected.  In a container these may mean nothing. */
void rq_line_peer(const struct rq_line *line, pid_t *ret_pid, uid_t *ret_uid);

#endif
