/* Snapshot: one connection's view of a served database, as of one commit, without asking anybody.
 *
 * Finds pages as SQLite's WAL reader does (wal-index, frames up to mxFrame, else the database file), but says what it reads in
 * its slot of the control page instead of by read marks, so that taking up an unchanged snapshot again costs no system call.
 * When all slots are taken it uses SQLite's read marks.
 *
 * States:  none --begin--> active --end--> idle --begin--> active ...   idle: still shown in the slot; raftd may take it away.
 * Trusts shared memory for what this connection reads, never for where memory is accessed: everything is bounds-checked.
 * Threads: one at a time. */
#ifndef VFS_SNAPSHOT_H
#define VFS_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/control_share.h"
#include "vfs/disk.h"
#include "vfs/files.h"
#include "vfs/wal.h"

#define RQ_SNAPSHOT_HEAD_BYTES 100u  /* SQLite's file header: the beginning of page 1 */
#define RQ_SNAPSHOT_PAGE1_MAX  4096u /* so much of page 1 is kept: SQLite reads it at each change, and so do we */

struct rq_snapshot {
    struct rq_disk *disk; /* borrows, for ever */
    const char *path;     /* borrows: of the database file */
    uint64_t boot;
    struct rq_control *control; /* shares; NULL: not open */
    struct rq_files *files;     /* shares; NULL while nothing was committed */
    bool slot_held;
    uint32_t slot;
    uint32_t claims_refused; /* since all slots were taken */
    enum { RQ_SNAPSHOT_NONE, RQ_SNAPSHOT_ACTIVE, RQ_SNAPSHOT_IDLE } state;

    /* The view; valid while ACTIVE. */
    bool empty;         /* no commit yet: 0 pages */
    unsigned kind;      /* RQ_SNAP_FILE or RQ_SNAP_WAL */
    uint32_t min_frame; /* frames before it are in the database file */
    uint32_t max_frame;
    const struct rq_files_map *map; /* borrows from files: covers max_frame */
    uint32_t page_size;
    uint32_t page_count;
    uint64_t version;
    uint32_t db_id;
    uint32_t page1_bytes; /* of page 1 are known: at least the header, unless empty */

    bool head_loaded; /* the fields above belong to index_head and files */
    struct rq_wal_index_head index_head;

    struct rq_file
        *marks; /* owns: own handle on -shm, since its locks are this connection's; NULL until there is no slot */
    int mark;   /* read mark held; -1 none */

    uint8_t page1[RQ_SNAPSHOT_PAGE1_MAX]; /* as on disk; part of the view */
};

void rq_snapshot_init(struct rq_snapshot *s, struct rq_disk *disk); /* path: set by the owner before open */
void rq_snapshot_fini(struct rq_snapshot *s);                       /* may be opened again */

/* Maps the control page if it is not mapped.  NOTFOUND, UNREADY: raftd has to be asked. */
enum rq_err rq_snapshot_open(struct rq_snapshot *s);

/* The control page of the database at path if this process has it mapped already, else NULL: for a snapshot's control. */
struct rq_control *rq_snapshot_known_page(struct rq_disk *disk, const char *path);

/* The newest commit.  UNREADY: the control page is not this database's any more: ask raftd, then rq_snapshot_open().
 * QUARANTINED.  NOTFOUND: raftd says there is a database, but there is no file.  BUSY, PROTOCOL: as SQLite's codes of these
 * names. */
enum rq_err rq_snapshot_begin(struct rq_snapshot *s);

/* keep: may stay idle. */
void rq_snapshot_end(struct rq_snapshot *s, bool keep);

/* Is it still the newest commit?  While ACTIVE. */
bool rq_snapshot_current(const struct rq_snapshot *s);

/* Part of a page; zeros for what no file has.  CORRUPT: the wal-index points nowhere. */
enum rq_err rq_snapshot_read(struct rq_snapshot *s, uint32_t pgno, uint32_t offset, void *data, uint32_t bytes);

/* Is that page, which the snapshot has, read from the database file?  Else from the WAL. */
bool rq_snapshot_reads_file(const struct rq_snapshot *s, uint32_t pgno);

/* Makes sure of a slot: one is needed for the turn.  BUSY: all are taken. */
enum rq_err rq_snapshot_claim(struct rq_snapshot *s, uint64_t session);

/* Around the wait for a commit, in which nothing is read: lets raftd empty the WAL meanwhile. */
void rq_snapshot_wait_begin(struct rq_snapshot *s);
void rq_snapshot_wait_end(struct rq_snapshot *s);

/* In a forked child: lets go without touching what belongs to the parent.  Control pages and files are orphaned by
 * rq_control_share_fork_orphan() and rq_files_fork_orphan(). */
void rq_snapshot_orphan(struct rq_snapshot *s);

#endif
