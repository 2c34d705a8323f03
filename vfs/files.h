/* Files: database, -wal and -shm of a served database, opened once per process and shared by its connections.
 *
 * An opened set never changes, but for more of -shm being mapped.  When one of the files became another (control page:
 * files_epoch, db_id) a new set is opened, and the old one lives until its last snapshot is gone.
 *
 * Held while somebody uses it, by OFD locks, shared: the database's SHARED bytes (no stock tool deletes -wal and -shm as the last
 * closer), WAL_CKPT_LOCK (no stock tool back-fills under a snapshot that SQLite's read marks do not show) and DMS (no stock tool
 * empties -shm under our mapping as the first opener).
 *
 * A set outlives its last user (parked, RQ_PARKED_MAX of them, the longest unused is closed), without these locks.  Not only for
 * speed: closing any descriptor of a file drops the POSIX locks that this process has on it, so a connection through SQLite's
 * own VFS beside ours would read without its locks.  Who takes a parked set up again takes the locks first, and then looks
 * whether the names still mean these files.  The set of a database that lost its name is not parked.
 * Threads: any. */
#ifndef VFS_FILES_H
#define VFS_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/disk.h"

struct rq_files_map {
    struct rq_files_map *older; /* owns: smaller mappings that somebody may still look at */
    uint32_t region_count;
    uint8_t *regions[];
};

struct rq_files_id {
    uint64_t device, inode;
};

struct rq_files {
    struct rq_files *next; /* in the process's list: most recently opened or parked first; under the list's lock */
    uint32_t ref_count;    /* 0: parked; under the list's lock */
    bool stale;            /* not to be found any more; under the list's lock */
    struct rq_disk *disk;  /* borrows, for ever */
    char *path;            /* owns */
    uint32_t db_id;
    uint32_t epoch;
    struct rq_file *db;
    struct rq_file *wal; /* NULL: the database stands alone; a stock tool was the last closer while raftd was down */
    struct rq_file *shm; /* NULL when wal is */
    struct rq_files_id db_is, wal_is, shm_is; /* which files they are */
    _Atomic(struct rq_files_map *) map;
};

/* NOTFOUND: no database file.  BUSY: a stock tool is just opening, checkpointing or closing; try again. */
enum rq_err rq_files_get(struct rq_disk *disk, const char *path, uint32_t db_id, uint32_t epoch,
                         struct rq_files **ret_files);
void rq_files_put(struct rq_files *f);

/* Has -shm come to be beside a database that stood alone?  True also when that cannot be told: then a WAL may be there whose
 * commits the database file lacks, and getting the set anew says what is wrong. */
bool rq_files_grown(const struct rq_files *f);

/* A mapping of at least so many regions of -shm; CORRUPT if -shm is shorter.  Valid as long as f. */
enum rq_err rq_files_map(struct rq_files *f, uint32_t region_count, const struct rq_files_map **ret_map);

/* fork: lock and unlock around it, orphan in the child: closes what was inherited.  Locks belong to the open file, so the
 * parent keeps them. */
void rq_files_fork_lock(void);
void rq_files_fork_unlock(void);
void rq_files_fork_orphan(void);

#endif
