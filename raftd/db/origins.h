/* Origins: who made the last transactions of a database, by the version that each was made on.  What the state machine answers
 * questions about outcomes from; the same on every host. */
#ifndef RAFTD_DB_ORIGINS_H
#define RAFTD_DB_ORIGINS_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "raftd/wire/txn.h"

#define RQ_ORIGINS_MAX 4096u /* kept for each database; what is older is unknown, never guessed */

struct rq_origins {
    struct rq_origin *ring; /* owns; the entry for base is at base % capacity */
    uint32_t capacity;      /* power of two, grows up to RQ_ORIGINS_MAX */
    uint64_t first, next;   /* bases that are kept: [first, next) */
};

void rq_origins_init(struct rq_origins *o, uint64_t next);
void rq_origins_fini(struct rq_origins *o);
enum rq_err rq_origins_copy(const struct rq_origins *o, struct rq_origins *ret_copy); /* NOMEM */
/* base == o->next. */
enum rq_err rq_origins_put(struct rq_origins *o, struct rq_origin origin);
/* The last one that was put. */
void rq_origins_take_back(struct rq_origins *o);
bool rq_origins_find(const struct rq_origins *o, uint64_t base, struct rq_origin *ret_origin);

#endif
