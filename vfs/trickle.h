/* Trickle: a file that gets big is on its way to the disk while it is written.
 *
 * All of it at the sync in the end, or whenever the kernel thinks of it, would hold up everybody whose commit waits for the same
 * disk.  So each piece of RQ_TRICKLE_BEGIN_BYTES is begun: the disk's flush for somebody's commit waits for what is on its way, and with
 * pieces of 1 MiB every hundredth took ten times as long.  After RQ_TRICKLE_SYNC_BYTES there is a sync, which finds little left to do: so
 * much at most is ever on its way.  The last sync is the caller's.  Start zeroed. */
#ifndef VFS_TRICKLE_H
#define VFS_TRICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/disk.h"

#define RQ_TRICKLE_BEGIN_BYTES (64u << 10)
#define RQ_TRICKLE_SYNC_BYTES  (16u << 20)

struct rq_trickle {
    uint64_t from, upto; /* bytes not begun are in here */
    size_t waiting;      /* so many */
    size_t unsynced;
};

/* As the disk's write.  IO also for a sync that failed, whatever for: what it had to write is lost. */
enum rq_err rq_trickle_write(struct rq_trickle *t, struct rq_file *f, const void *data, size_t bytes, uint64_t offset);

#endif
