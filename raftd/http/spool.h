/* Spool: between what makes an answer and a client that is slow to take it.
 *
 * Who makes it holds a snapshot, and a snapshot held keeps the WAL from being begun anew.  So it waits for the client RQ_SPOOL_WAIT_MS
 * in all; what comes after that goes into a scratch file, and from there to the client when all has been made.  While the disk has
 * little space left the client is waited for after all: a long WAL is better than a full log.
 *
 * One thread: that of the request. */
#ifndef RAFTD_HTTP_SPOOL_H
#define RAFTD_HTTP_SPOOL_H

#include <stdint.h>

#include "raftd/http/server.h"
#include "raftd/ops/backup.h"

#define RQ_SPOOL_WAIT_MS 2000u

struct rq_spool {
    struct rq_http_response *response; /* borrows, as dir */
    const char *dir;
    uint64_t waited_ms;
    int fd; /* owns; -1: nothing is in a file */
    uint64_t bytes;
};

void rq_spool_init(struct rq_spool *s, struct rq_http_response *response, const char *dir);
struct rq_backup_sink rq_spool_sink(struct rq_spool *s);
/* All was made: what is in the file goes to the client. */
enum rq_err rq_spool_end(struct rq_spool *s);
void rq_spool_fini(struct rq_spool *s);

#endif
