/* The door of a raftd in a test (tests/support/raftd_rig.h): one line of an application and its session, without a socket.
 *
 * What the session sends comes back as frames, on the strand that answers.  A line that raftd ends is broken: nothing is heard
 * any more, and what was asked on it has no answer; the application connects again, as the same session. */
#ifndef TESTS_SUPPORT_RAFTD_DOOR_H
#define TESTS_SUPPORT_RAFTD_DOOR_H

#include "raftd/db/session.h"
#include "tests/support/raftd_rig.h"

struct raftd_door {
    struct rq_session_host host;
    struct rq_link_ops ops;
    struct rq_line *line; /* NULL: none; else counted, as the session's */
    void (*heard)(void *ctx, const struct rq_frame *frame, const uint8_t *body);
    void *ctx;
};

/* Connects and says HELLO; within rig_run().  False: sent away. */
bool raftd_door_connect(struct raftd_door *d, struct rig *rig, uint64_t session);
/* One whole frame.  False: the line is broken. */
bool raftd_door_send(struct raftd_door *d, const struct rq_bytes *frame);
bool raftd_door_open(const struct raftd_door *d);
/* The application closes it. */
void raftd_door_close(struct raftd_door *d);
/* raftd has ended, and with it the line. */
void raftd_door_gone(struct raftd_door *d);

#endif
