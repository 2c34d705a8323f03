/* Page hashes: for each page of a replica's database file the hash of the bytes that raftd put there, or that it has not looked
 * yet.  A page that differs from its hash was changed behind raftd's back.
 *
 * One file per replica, outside of the served directory's own files (docs/file-format.md#page-hashes).  It vouches for
 * nothing but the pages: one that is lost, damaged or of another state of the database is removed, and all is unknown again.
 *
 * INVARIANT.  For every page whose newest version is in the database file, not in the WAL, the entry is 0 or the hash of exactly
 * the bytes that were written last.  Back-fill keeps it by its order: pages, sync, their hashes, sync, and only then may the WAL
 * that holds the same pages be reset.  After a death before that, the WAL still has all of them: nobody asks for their entries
 * until a back-fill has written pages and hashes again.  Entries that the scrub adds need no sync: if they are lost, they are
 * unknown.  And since a stock tool may checkpoint while raftd is down, the header says at which version the database file was
 * whole last: beside a WAL without transactions the entries count only if page 1 says the same.  It says, too, in which boot of the
 * machine that was looked at last: in a later one, what others wrote and did not sync may be lost.
 *
 * Threads: get, suspect: any; the rest: the replica's background, or whoever opens it. */
#ifndef VFS_PAGE_HASHES_H
#define VFS_PAGE_HASHES_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/disk.h"

struct rq_page_hashes;

/* Opens the file, or notes that there is none: it is made when there is something to put into it.  One that is not of this
 * database, or damaged, is removed, and *ret_removed says why; else that is NULL. */
enum rq_err rq_page_hashes_open(struct rq_disk *disk, const char *path, uint32_t db_id, uint32_t page_size,
                                struct rq_page_hashes **ret_hashes, const char **ret_removed);
void rq_page_hashes_close(struct rq_page_hashes *h);

/* Removes the file, durably: all is unknown. */
enum rq_err rq_page_hashes_forget(struct rq_page_hashes *h);

/* Is there a file, and which version of the database was whole in its file when it was written last?  boot: see set_boot.  False:
 * no file. */
bool rq_page_hashes_version(struct rq_page_hashes *h, uint64_t *ret_version, uint64_t *ret_boot);
/* In this boot of the machine the database file was found to be what it should be.  Not synced: an older one is only more careful. */
enum rq_err rq_page_hashes_set_boot(struct rq_page_hashes *h, uint64_t boot);

/* Hashes of count pages from pgno on; 0: not known. */
enum rq_err rq_page_hashes_get(struct rq_page_hashes *h, uint32_t pgno, uint32_t count, uint64_t *ret_hashes);
/* Makes the file if there is none.  version: which one is whole in the database file, 0: none is. */
enum rq_err rq_page_hashes_make(struct rq_page_hashes *h, uint64_t version);
enum rq_err rq_page_hashes_put(struct rq_page_hashes *h, uint32_t pgno, uint32_t count, const uint64_t *hashes);
/* The database file is whole at this version, and so many pages long: says so and makes it durable, with all that was put. */
enum rq_err rq_page_hashes_seal(struct rq_page_hashes *h, uint64_t version, uint32_t page_count);

/* The page that was found changed: the next start looks at it before the database is served; 0: none. */
uint32_t rq_page_hashes_suspect(struct rq_page_hashes *h);
void rq_page_hashes_set_suspect(struct rq_page_hashes *h, uint32_t pgno);

#endif
