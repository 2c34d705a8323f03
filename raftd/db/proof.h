/* Proof: the pages that the log says were changed since a version, and to what; for rq_replica_prove(). */
#ifndef RAFTD_DB_PROOF_H
#define RAFTD_DB_PROOF_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/db/staged.h"
#include "raftd/wire/err.h"
#include "raftd/wire/txn.h"
#include "vfs/replica.h"

struct rq_proof;

/* from: version before the first transaction that is added. */
enum rq_err rq_proof_new(uint64_t from, struct rq_proof **ret_proof);
void rq_proof_free(struct rq_proof *p); /* NULL is fine */

/* The next transaction; one that is at or before the version is not looked at.  Reads the record, or the body, to its end. */
enum rq_err rq_proof_add(struct rq_proof *p, struct rq_txn_reader *record);
enum rq_err rq_proof_add_staged(struct rq_proof *p, const struct rq_txn_head *head, struct rq_staged_reader *body);

/* All that there is up to this version.  NOTFOUND: transactions are missing.  The claims are the proof's. */
enum rq_err rq_proof_claims(struct rq_proof *p, uint64_t version, const struct rq_page_claim **ret_claims,
                            size_t *ret_count);

#endif
