/* Copy, at its source: one database on its way to another member, while commits go on.
 *
 * Nothing is held still for the length of the copy, so the WAL can be reset meanwhile.  What is read is what is newest at that moment,
 * a piece at a time; which pages have changed is noted from the beginning on (a bit each), and told in rounds:
 *
 *   begin     noting begins
 *   read      hashes and pages, as they are now
 *   changed   some of the pages that have changed: they are noted no more, unless they change again
 *   held      at a changed when few are left, or when it is asked for: noting ends, and the state of this moment is what is read
 *             from now on
 *   changed   the rest of the pages
 *
 * Who reads all pages once, and then each page again that it is told of, has exactly the state that is held.  For at any time
 * what it has read of a page is the newest, or the page is noted, or it was told and is about to be read again: a transaction is
 * published and noted as one step on the strand, on which pages are told, too; and no reading is of an older state than the last
 * answer.  When the state is held the pages that are noted are those that may differ from it, and they become no more.  */
#ifndef RAFTD_DB_COPY_OUT_H
#define RAFTD_DB_COPY_OUT_H

#include "raftd/db/database.h"

struct rq_copy_out;

/* One thread at a time, which may wait.  state->version 0: no commit yet, and there is no copy.  origins: the caller's.
 * NOTFOUND: dropped; QUARANTINED: not to be copied; BUSY. */
enum rq_err rq_copy_out_new(struct rq_disk *disk, struct rq_database *db, struct rq_copy_out **ret_copy,
                            struct rq_replica_state *ret_state, struct rq_origins *ret_origins);
void rq_copy_out_free(struct rq_copy_out *c);

/* Where its state machine is, also when its files are not in order: NOTFOUND: dropped.  origins: the caller's. */
enum rq_err rq_copy_out_head(struct rq_database *db, uint64_t *ret_version, struct rq_origins *ret_origins);

uint32_t rq_copy_out_page_size(const struct rq_copy_out *c);

/* As those of struct rq_copy_source.  Pages past the end are zeros.  BUSY: more has changed than could be noted, or what is
 * published lags behind: the copy has to begin anew.  QUARANTINED: it is damaged, or meanwhile somebody found out that it is. */
enum rq_err rq_copy_out_hashes(struct rq_copy_out *c, uint32_t first, uint32_t count, uint64_t *ret_hashes);
enum rq_err rq_copy_out_pages(struct rq_copy_out *c, const uint32_t *pgnos, uint32_t count, uint8_t *ret_pages);
enum rq_err rq_copy_out_changed(struct rq_copy_out *c, bool hold, struct rq_copy_changed *ret_changed);
/* Of what is held; borrowed.  False: it is not yet. */
bool rq_copy_out_held(const struct rq_copy_out *c, const struct rq_replica_state **ret_state,
                      const struct rq_origins **ret_origins);

#endif
