/* Failing disk: passes every call to the disk below, but for the n-th of some kinds, which fails.
 *
 * A fault loop runs a fixed workload with n = 1, 2, ... until a run in which nothing was hit:
 *
 *   fault_disk_init(&f, below);
 *   fault_disk_arm(&f, FAULT_BIT(FAULT_WRITE) | FAULT_BIT(FAULT_SYNC), n, RQ_FULL);
 *   f.partial_bytes = 700;   a failing write has written that much first
 *   f.stays = true;          all later calls of these kinds fail, too
 *   ... workload on &f.disk ...
 *   if (!f.hit) break;
 *
 * Calls are counted per kind in f.calls.  One thread.
 *
 * f.lies is asked before each sync (FAULT_SYNC, FAULT_SYNC_DIR) and each write through an RQ_OPEN_DSYNC handle (FAULT_WRITE):
 * true, and the sync is answered OK without being made, the write made without being durable.  So a planted bug, one sync of
 * the code under test taken away, needs no switch in that code.  It may also play another thread of it. */
#ifndef TESTS_SUPPORT_FAULT_DISK_H
#define TESTS_SUPPORT_FAULT_DISK_H

#include "vfs/disk.h"

enum fault_kind {
    FAULT_OPEN,
    FAULT_READ,
    FAULT_WRITE, /* write and writev */
    FAULT_SYNC,
    FAULT_TRUNCATE,
    FAULT_RESERVE,
    FAULT_INFO, /* info, stat, list, space */
    FAULT_LOCK, /* lock and lock_test */
    FAULT_MAP,
    FAULT_RENAME,
    FAULT_UNLINK,
    FAULT_MKDIR,
    FAULT_SYNC_DIR,
    FAULT_KINDS,
};
#define FAULT_BIT(kind) (1u << (kind))
#define FAULT_ALL       ((1u << FAULT_KINDS) - 1)

struct fault_disk {
    struct rq_disk disk;   /* first: give this to the code under test */
    struct rq_disk *below; /* borrows */
    uint64_t calls[FAULT_KINDS];
    unsigned kinds;
    uint64_t countdown; /* calls of these kinds until the failing one; 0: passed, or not armed */
    enum rq_err err;
    size_t partial_bytes;
    bool stays;
    bool hit;
    bool (*lies)(void *ctx, enum fault_kind kind, const char *path);
    void *lies_ctx;
};

void fault_disk_init(struct fault_disk *f, struct rq_disk *below);
/* nth 1: the next one.  0: none. */
void fault_disk_arm(struct fault_disk *f, unsigned kinds, uint64_t nth, enum rq_err err);

#endif
