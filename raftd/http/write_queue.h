/* Write queue: writes whose clients are answered before they are done.  They are kept in memory, and run in batches, in the order in
 * which they came; for each database by itself.
 *
 * A batch goes to the database's executor when it is full, when its first write has waited for long enough, or when somebody waits for
 * one of it; one batch of a database at a time.  What certainly has not happened is tried again until it has; the errors of statements
 * are nobody's.  Any thread. */
#ifndef RAFTD_HTTP_WRITE_QUEUE_H
#define RAFTD_HTTP_WRITE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/http/desk.h"
#include "raftd/http/statements.h"
#include "raftd/wire/err.h"

struct rq_write_queue;

struct rq_write_queue_config {
    unsigned capacity;   /* writes that a database may have waiting */
    unsigned batch_size; /* writes of a batch */
    uint64_t timeout_ms;
    bool transaction; /* a batch is one transaction: the first error undoes it */
};

/* Embedded by who asks for it; the queue's from put to flushed. */
struct rq_queued_write {
    struct rq_queued_write *next; /* inner */
    uint64_t version;             /* inner: of the database after it */

    const struct rq_statements *statements; /* borrows; NULL: waits for those before it */
    size_t bytes;                           /* that it takes, about */
    bool urgent;                            /* somebody waits */
    uint64_t sequence_number;               /* given by put */
    void (*taken)(struct rq_queued_write
                      *w); /* there is room for it; perhaps from inside put.  May do nothing but rq_http_resume(). */
    /* OK: committed, but for statements with errors.  UNKNOWN: it may be.  NOTFOUND: the database is gone.  Must not wait. */
    void (*flushed)(struct rq_queued_write *w, enum rq_err err);
};

enum rq_err rq_write_queue_new(const struct rq_write_queue_config *config, struct rq_write_queue **ret_queue);
/* No more writes; those that are there are brought on at once.  Returns when all are done, or timeout_ms have passed: how many are left. */
uint64_t rq_write_queue_drain(struct rq_write_queue *q, unsigned timeout_ms);

/* SHUTDOWN, NOMEM: it is not queued, and nothing is called. */
enum rq_err rq_write_queue_put(struct rq_write_queue *q, struct rq_desk *desk, struct rq_queued_write *w);

const struct rq_write_queue_config *rq_write_queue_config(const struct rq_write_queue *q);
uint64_t rq_write_queue_flushed(const struct rq_write_queue *q); /* sequence number of the last one; 0: none */

#endif
