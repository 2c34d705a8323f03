/* Disk: every call that our own code makes on a file goes through this table.
 *
 * The kernel is behind rq_disk_real(); tests put a recording, failing or simulated disk in its place (tests/support), which is
 * how power loss, full disks and the node simulation run the very code of production.
 *
 * Errors: FULL for ENOSPC, EDQUOT, EFBIG; NOTFOUND for ENOENT, ENOTDIR; PERM for EACCES, EPERM, EROFS, and ELOOP (a symlink
 * that was not to be followed); EXISTS; BUSY for a lock that is taken; NOMEM; else IO.  The process ignores SIGXFSZ, else a
 * file size limit kills it.  A file handle may be used by several threads at once. */
#ifndef VFS_DISK_H
#define VFS_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "raftd/wire/err.h"

struct rq_disk;
struct rq_file;

enum {
    RQ_OPEN_READ = 0,
    RQ_OPEN_WRITE = 1, /* read and write */
    RQ_OPEN_CREATE = 2,
    RQ_OPEN_EXCLUSIVE = 4, /* with CREATE: EXISTS when it is there */
    RQ_OPEN_DSYNC = 8, /* each write is durable on return; bypasses the page cache where the file system can: give it
                            * buffers, sizes and offsets aligned to 512, better 4096 bytes (others work, through the cache) */
    RQ_OPEN_NOFOLLOW = 16,
};

enum rq_lock { RQ_UNLOCKED, RQ_SHARED, RQ_EXCLUSIVE };

struct rq_file_info {
    uint64_t size;
    uint64_t inode;
    uint64_t device;
    uint64_t modified_ns; /* when the content was last changed; 0: not known */
    uint32_t links;       /* 0: unlinked */
    uint32_t mode;
    bool regular;
};

struct rq_disk_ops {
    enum rq_err (*open)(struct rq_disk *d, const char *path, int flags, unsigned mode, struct rq_file **ret_file);
    void (*close)(struct rq_file *f);
    /* Fewer bytes than asked only at the end of the file. */
    enum rq_err (*read)(struct rq_file *f, void *data, size_t bytes, uint64_t offset, size_t *ret_bytes);
    /* All or an error; after an error any prefix may have been written. */
    enum rq_err (*write)(struct rq_file *f, const void *data, size_t bytes, uint64_t offset);
    /* As write; parts are used up: changed on return. */
    enum rq_err (*writev)(struct rq_file *f, struct iovec *parts, int part_count, uint64_t offset);
    enum rq_err (*sync)(struct rq_file *f); /* fdatasync; after an error what was written is lost: the process ends */
    /* The kernel begins to write out what is dirty there, so that a sync to come has less to do.  Promises nothing; what fails is told
     * by that sync. */
    void (*begin_sync)(struct rq_file *f, uint64_t offset, uint64_t bytes);
    enum rq_err (*truncate)(struct rq_file *f, uint64_t size);
    /* Space is really there afterwards, and the file is at least that long; what it held stays.  The range is the caller's
     * alone meanwhile. */
    enum rq_err (*reserve)(struct rq_file *f, uint64_t offset, uint64_t bytes);
    enum rq_err (*info)(struct rq_file *f, struct rq_file_info *ret_info);
    /* Locks belong to the open file, not to the process (F_OFD_SETLK): they conflict with SQLite's own POSIX locks, also with
     * those of this process, and no close() of another handle drops them.  Never waits: BUSY. */
    enum rq_err (*lock)(struct rq_file *f, uint64_t offset, uint64_t bytes, enum rq_lock kind);
    /* Would RQ_EXCLUSIVE be BUSY? */
    enum rq_err (*lock_test)(struct rq_file *f, uint64_t offset, uint64_t bytes, bool *ret_taken);
    enum rq_err (*map)(struct rq_file *f, uint64_t offset, size_t bytes,
                       void **ret_memory); /* shared, read and write */
    void (*unmap)(struct rq_file *f, void *memory, size_t bytes);

    enum rq_err (*rename)(struct rq_disk *d, const char *from, const char *to);
    enum rq_err (*unlink)(struct rq_disk *d, const char *path);
    enum rq_err (*mkdir)(struct rq_disk *d, const char *path, unsigned mode); /* EXISTS is not hidden */
    enum rq_err (*sync_dir)(struct rq_disk *d, const char *path);
    enum rq_err (*stat)(struct rq_disk *d, const char *path, struct rq_file_info *ret_info); /* follows no symlink */
    /* Calls each name but . and ..; stops at the first error that the callback returns. */
    enum rq_err (*list)(struct rq_disk *d, const char *path, enum rq_err (*name_cb)(void *ctx, const char *name),
                        void *ctx);
    enum rq_err (*space)(struct rq_disk *d, const char *path, uint64_t *ret_free_bytes);
};

struct rq_disk {
    const struct rq_disk_ops *ops;
};
struct rq_file {
    struct rq_disk *disk; /* implementations put their own fields behind */
};

/* The kernel's file system.  One object, immutable, for the whole process. */
struct rq_disk *rq_disk_real(void);

#endif
