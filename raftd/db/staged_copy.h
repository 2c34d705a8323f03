/* Staged copy: a staged body on its way in from another host, written as its bytes come.
 *
 * It gets its name when it is complete, is what its hash says, and is durable: a body that has its name is never anything else. */
#ifndef RAFTD_DB_STAGED_COPY_H
#define RAFTD_DB_STAGED_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/body.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

struct rq_staged_copy;

/* resumes: what an earlier copy has left, also one of a process that was killed, is taken over as far as it is in order; and what
 * is left of this one will be.  One at a time for a hash.  dir is copied. */
enum rq_err rq_staged_copy_new(struct rq_disk *disk, const char *dir, const uint8_t hash[RQ_BODY_HASH_BYTES],
                               uint64_t body_bytes, bool resumes, struct rq_staged_copy **ret_copy);
uint64_t rq_staged_copy_at(const struct rq_staged_copy *c); /* so many bytes are there */
/* CORRUPT, VERSION: these cannot be bytes of that body; what is there is good for nothing.  FULL; IO: final. */
enum rq_err rq_staged_copy_add(struct rq_staged_copy *c, const uint8_t *data, size_t bytes);
/* Makes it durable, and names it.  CORRUPT: it is not complete, or has another hash. */
enum rq_err rq_staged_copy_seal(struct rq_staged_copy *c);
/* Frees.  What was not sealed is deleted, unless it can be resumed. */
void rq_staged_copy_free(struct rq_staged_copy *c);

#endif
