/* Sink: what the shim hands a transaction to.  ext/bridge.c sends it to raftd over the socket; raftd's executor and the tests
 * plug in their own. */
#ifndef VFS_SINK_H
#define VFS_SINK_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"

/* The pages of a transaction, ascending; next returns NOTFOUND after the last.  The page is valid until the next call.  A sink
 * may go through them again from the start (rewind) to send again. */
struct rq_sink_pages {
    void *ctx;
    void (*rewind)(void *ctx);
    enum rq_err (*next)(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page);
};

struct rq_sink_commit {
    uint32_t db_id;
    uint64_t base;
    uint32_t page_size;
    uint32_t db_page_count; /* afterwards */
    uint32_t page_count;    /* that pages will give */
    const struct rq_sink_pages *pages;
};

struct rq_sink {
    const struct rq_sink_ops *ops;
};

struct rq_sink_ops {
    /* Makes sure that the database exists (create: by making it), raftd answers, and its control page is there. */
    enum rq_err (*open)(struct rq_sink *s, const char *name, bool create);
    /* A link that would carry a commit now: connects if need be.  AWAY if raftd does not answer: nothing has happened. */
    enum rq_err (*ready)(struct rq_sink *s, uint64_t *ret_session);
    /* Returns when the outcome is known, or cannot be found out in time: OK and the new version, REFUSED, UNKNOWN, or why it was
     * not passed on.  NULL: the connection writes only under a hold (hold.h), which takes its commits. */
    enum rq_err (*commit)(struct rq_sink *s, const struct rq_sink_commit *commit, uint64_t *ret_version);
    /* Returns when this host's file holds everything that was committed, on any host, max_age_ms before the call (0: before the
     * call), and for how many ms from the call on that needs not be asked again; or when that cannot be in time: AWAY, UNREADY.
     * again: the same was refused a moment ago, so there is less time.  NULL: what is here is all there is. */
    enum rq_err (*read)(struct rq_sink *s, uint32_t db_id, uint64_t max_age_ms, bool again, uint64_t *ret_left_ms);
    /* The cluster's turn for the database is elsewhere, or wanted elsewhere, and somebody here began to wait, or gave the turn back
     * without a commit: raftd is told to look.  Does not wait for it.  NULL: whoever made the sink sees to it. */
    void (*look)(struct rq_sink *s, uint32_t db_id);
    const char *(*text)(struct rq_sink *s); /* of the last failure, for logs */
    void (*close)(struct rq_sink *s);
    /* In a forked child, in an atfork handler: lets go of what was inherited without telling raftd.  Nothing but close follows. */
    void (*orphan)(struct rq_sink *s);
};

#endif
