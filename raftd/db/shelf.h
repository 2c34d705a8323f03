/* Shelf: which staged bodies somebody needs, and the only way to one's deletion.
 *
 * A body is named by its content, so two transactions with the same pages share one.  It is needed as long as
 *
 *   expected   a transaction that is to name it is on its way: made on this host, or brought here by another one
 *   named      its entry was delivered, and the log still holds it
 *   lingering  the log has released it, but another member may still come for it
 *
 * for any transaction.  Who expects one says so before it has its file; the entry is noted before the expectation ends; and what
 * nobody needs loses its file under the same lock.  So no body goes that a transaction has come to need meanwhile.
 *
 * Time is counted in looks, not by a clock: a process that stood still has let none pass.  Any thread. */
#ifndef RAFTD_DB_SHELF_H
#define RAFTD_DB_SHELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"
#include "raftd/wire/msg.h"
#include "vfs/disk.h"

#define RQ_SHELF_LOOK_MS      5000u
#define RQ_SHELF_FOR_EVER     0u
#define RQ_SHELF_EXPECT_LOOKS 120u /* ten minutes: a transaction is brought again long before that (carrier.h) */
#define RQ_SHELF_LINGER_LOOKS 6u

struct rq_shelf;

/* dir: raft/staged; copied. */
enum rq_err rq_shelf_new(struct rq_disk *disk, const char *dir, struct rq_shelf **ret_shelf);
void rq_shelf_free(struct rq_shelf *s);

/* For so many looks from now on, or until its entry is delivered or it is not expected any more. */
enum rq_err rq_shelf_expect(struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES], struct rq_origin origin,
                            unsigned looks);
/* Its transaction will not be in the log, or have no effect there.  Deletes the body if nobody else needs it. */
enum rq_err rq_shelf_forget(struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES], struct rq_origin origin);

/* The entry was delivered. */
enum rq_err rq_shelf_name(struct rq_shelf *s, const struct rq_entry_staged *entry, uint64_t index);
/* A named body; its file need not be here. */
struct rq_shelf_named {
    uint8_t hash[RQ_BODY_HASH_BYTES];
    uint64_t bytes, index;
    uint32_t db_id;
};
/* Those that are named behind that index, in no order.  Caller frees. */
enum rq_err rq_shelf_list_named(struct rq_shelf *s, uint64_t behind, struct rq_shelf_named **ret_list,
                                size_t *ret_count);
/* Of all that are named. */
uint64_t rq_shelf_named_bytes(struct rq_shelf *s);
/* The log holds nothing up to index any more: those bodies linger for so many looks, or are deleted now (0). */
enum rq_err rq_shelf_release(struct rq_shelf *s, uint64_t index, unsigned linger_looks);

/* One look has passed.  Is the time of an expectation over with the next one?  Then the caller makes sure first that no entry of
 * the log, delivered or not, names it: those are to be expected for ever. */
bool rq_shelf_is_due(struct rq_shelf *s);
enum rq_err rq_shelf_look(struct rq_shelf *s);
/* At start, with everything delivered: what nobody needs, so far as is known, is deleted after so many looks, or now (0).  It may
 * have been brought here just before the process died, and its entry is still to come. */
enum rq_err rq_shelf_sweep(struct rq_shelf *s, unsigned looks);

/* A body for who reads it while it may be deleted: its bytes stay as they are until close.  NOTFOUND also when it has another size. */
enum rq_err rq_shelf_open(struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES], uint64_t body_bytes,
                          struct rq_file **ret_file);
/* The same for a file that the caller has opened. */
void rq_shelf_reads(struct rq_shelf *s);
void rq_shelf_close(struct rq_shelf *s, struct rq_file *file);
/* What is there is not what its name says. */
enum rq_err rq_shelf_discard(struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES]);

#endif
