/* Copy file: raft/copies/<database id>: pages that were fetched from another member, each at its place in a sparse file, until all
 * are there and become one transaction (database_install.c).
 *
 * It is no more than a memory: a page that an earlier copy has left, also that of a process that was killed, counts only if its hash
 * is the one that the source gives for it.  So nothing in it need be durable; it is brought to the disk for the sake of the others. */
#ifndef RAFTD_DB_COPY_FILE_H
#define RAFTD_DB_COPY_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/disk.h"
#include "vfs/page_set.h"
#include "vfs/trickle.h"

struct rq_copy_file {
    struct rq_disk *disk; /* borrows */
    struct rq_file *file; /* owns, as path; NULL: is not open */
    char *path;
    uint32_t page_size;
    struct rq_trickle trickle;
    struct rq_page_set pages; /* that are of this copy; what else there may be is of an earlier one */
};

/* c: zeroed.  FULL; else the errors of a disk. */
enum rq_err rq_copy_file_open(struct rq_copy_file *c, struct rq_disk *disk, const char *dir, uint32_t id,
                              uint32_t page_size);
/* Leaves the file for the next copy. */
void rq_copy_file_close(struct rq_copy_file *c);
/* It has served; closes it too. */
void rq_copy_file_remove(struct rq_copy_file *c);

/* Has an earlier copy left this page?  Then it is of this one. */
enum rq_err rq_copy_file_find(struct rq_copy_file *c, uint32_t pgno, uint64_t hash, uint8_t *page, bool *ret_found);
/* Pages of these numbers, one behind another. */
enum rq_err rq_copy_file_put(struct rq_copy_file *c, const uint32_t *pgnos, uint32_t count, const uint8_t *pages);
enum rq_err rq_copy_file_get(struct rq_copy_file *c, uint32_t pgno, uint8_t *page);

/* Deletes what copies have left. */
enum rq_err rq_copy_file_sweep(struct rq_disk *disk, const char *dir);

#endif
