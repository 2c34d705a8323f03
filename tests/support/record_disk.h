/* Recording disk: a whole file system in memory behind struct rq_disk, that knows what would survive which kind of death.
 *
 * It holds two trees, what processes see and what the medium has, and every unsynced change between them in order.  It is
 * deterministic: no clock, no addresses, the same calls and seeds give the same bytes.
 *
 *   struct record_disk *d = record_disk_new();
 *   record_disk_mkdir_p(d, "/data/raft");       parents and all, durable at once
 *   ... run the code under test on &d->disk ...
 *   record_disk_power_loss(d, seed);            or record_disk_crash(d): the process dies, the page cache stays
 *   ... free the dead process's objects: all their calls give IO and change nothing ...
 *   record_disk_start(d);                       calls work again; what was open before stays dead
 *   ... open again, check ...
 *
 * WHAT SURVIVES POWER LOSS, all drawn from the seed:
 * - File content: per 4 KiB block and 512-byte sector the synced version or any unsynced one after it, in any mixture; a write
 *   through an RQ_OPEN_DSYNC handle is synced when it returns, torn by sector until then.  A lost truncate takes later writes of
 *   that file with it.  A grown file may keep its size and lose its bytes: zeros.
 * - Names: of each directory a prefix of its changes (create, rename, unlink, mkdir) since the last sync_dir; a rename across
 *   two directories holds back both.  Syncing a file does NOT make its name durable: sync_dir does.
 * - Mapped files: as content that was written without a sync.
 * - Locks, mappings and open handles are gone, as after a process crash.  A process crash loses nothing else.
 *
 * MOMENTS.  Each call that changes something on the medium (write, writev, sync, truncate, reserve, rename, unlink, mkdir,
 * sync_dir, an open that creates) is a moment: its change is made, and is not yet durable.  Moments are numbered from 1 in
 * d->moments.  At one you can
 * - die: record_disk_stop_at(d, n): the n-th moment from now and all later calls give IO; then crash() or power_loss().
 * - look: record_disk_watch(): a callback, which may record_disk_fork() the disk, kill the copy and open it, so that one run of
 *   a workload visits every state.  It may also play another thread of the code under test: no lock of the disk is held.
 *
 * FAULTS: record_disk_fail_sync() fails a sync (or a synced write) with IO and drops the dirty data while reads still see it;
 * record_disk_evict() then shows what is really there.  record_disk_lie() turns kinds of syncs into nothing, the planted bug
 * that a power-loss test has to find.  Other errors: tests/support/fault_disk.h on top.
 *
 * Limits: no "..", no links, no rmdir; RECORD_MAP_BYTES_MAX mapped bytes a file; memory without end, so never FULL.  Threads may
 * share it, except that a mapped file's memory is read when calls on that file are made.  Running out of memory ends the test. */
#ifndef TESTS_SUPPORT_RECORD_DISK_H
#define TESTS_SUPPORT_RECORD_DISK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vfs/disk.h"

#define RECORD_MAP_BYTES_MAX ((size_t)16 << 20)

enum record_lie { RECORD_LIE_SYNC = 1, RECORD_LIE_DSYNC = 2, RECORD_LIE_SYNC_DIR = 4 };

struct record_inode;
struct record_op;

struct record_disk {
    struct rq_disk disk; /* first: give this to the code under test */
    pthread_mutex_t lock;
    bool off;            /* nobody is alive: every call gives IO */
    bool stopped;        /* by record_disk_stop_at */
    unsigned generation; /* of the process; handles of another one are dead */
    uint64_t moments;
    uint64_t syncs; /* sync calls and synced writes */
    uint64_t stop_moment, fail_sync;
    unsigned lies;
    void (*watch_cb)(void *ctx, struct record_disk *d);
    void *watch_ctx;

    struct record_inode *root;
    struct record_inode *inodes; /* all of them, newest first */
    uint64_t inode_last;
    struct record_op *ops; /* changes of names that are not durable, oldest first */
    size_t op_count, op_capacity;
};

struct record_disk *record_disk_new(void);
void record_disk_free(struct record_disk *d); /* after all handles are closed; NULL is fine */
/* A copy at this moment, as after a crash: kill it further or start it.  The original goes on. */
struct record_disk *record_disk_fork(struct record_disk *d);

void record_disk_crash(struct record_disk *d);
void record_disk_power_loss(struct record_disk *d, uint64_t seed);
void record_disk_start(struct record_disk *d);

void record_disk_stop_at(struct record_disk *d, uint64_t moments_from_now); /* 0: never */
void record_disk_watch(struct record_disk *d, void (*watch_cb)(void *ctx, struct record_disk *d), void *ctx);

void record_disk_fail_sync(struct record_disk *d, uint64_t syncs_from_now); /* 1: the next; 0: none */
void record_disk_evict(struct record_disk *d);
void record_disk_lie(struct record_disk *d, unsigned lies);

void record_disk_mkdir_p(struct record_disk *d, const char *path);

#endif
