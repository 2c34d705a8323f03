/* Shared control page: one mapping and one open file description of a database's control page for all connections of this
 * process, so that opening a connection beside another costs a look at a name and the lock of a slot.
 *
 * A page outlives its last connection (parked, RQ_PARKED_MAX of them, the longest unused is closed): the next open finds it
 * mapped.  No slot is locked then, so nobody can notice but by the descriptor.
 *
 * A page that is shared under a name proves that the directory was found to be served; one that merely lies there does not: it
 * may have been copied there beside a database.
 * Threads: any. */
#ifndef VFS_CONTROL_SHARE_H
#define VFS_CONTROL_SHARE_H

#include "vfs/control.h"

#define RQ_PARKED_MAX 8u /* control pages, and sets of files (files.h), that stay open without a connection */

/* The page that this process has of the database at db_path, if its file still has that name and it is usable, else NULL. */
struct rq_control *rq_control_share_find(struct rq_disk *disk, const char *db_path, uint64_t boot);

/* The same, opened if it is not there.  Errors: as rq_control_open(), and UNREADY while the page is not ready. */
enum rq_err rq_control_share_get(struct rq_disk *disk, const char *db_path, uint64_t boot,
                                 struct rq_control **ret_control);
void rq_control_share_put(struct rq_control *c); /* NULL is fine */

/* Does its file still have its name?  FOREIGN: another file has it; else what looking at the name says. */
enum rq_err rq_control_share_named(const struct rq_control *c);

/* rq_slot_claim() and rq_slot_release() on a shared page. */
enum rq_err rq_control_share_claim(struct rq_control *c, uint64_t session, uint32_t *ret_slot);
void rq_control_share_release(struct rq_control *c, uint32_t slot);

/* fork: lock and unlock around it, orphan in the child: closes what was inherited; nobody may use a page of it after that. */
void rq_control_share_fork_lock(void);
void rq_control_share_fork_unlock(void);
void rq_control_share_fork_orphan(void);

#endif
