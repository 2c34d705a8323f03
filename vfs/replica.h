/* Replica: the one writer of a database on this host.  WAL transactions in, an ordinary SQLite file out.
 *
 * Owns: the database file, -wal and -shm of one database, and SQLite's WAL_WRITE_LOCK on it for as long as it is open; SHARED
 * on the database and WAL_CKPT_LOCK shared too, so that no stock tool checkpoints, resets or deletes the WAL.
 * Never trusts shared memory: where a page is comes from its own map, made from the WAL's checksummed frames; -shm and the
 * control page are publications, put right whenever they differ.
 *
 * Every byte of a replica enters by rq_replica_append(): frames, stamp, then the wal-index.  What is on the disk is always some
 * prefix of the transactions: page 1 says which (the stamp).
 *
 * Threads: append, read, reserve, watch: the database's strand.  backfill, reset, sync, scrub: one background thread at a time,
 * beside the strand; a mutex inside joins them and is never held while the background reads, writes or syncs -wal or the database.
 * No stock connection to the same database in this process: when the replica closes one of its files, the kernel drops all POSIX
 * locks that the process has on it, so also that connection's read mark.  Our own readers have OFD locks, or the reader table.
 * Errors: FULL from create, reserve, append, backfill, reset: nothing has happened, or (backfill) nothing that is not done again.
 * IO from append, backfill, reset or sync is final: the caller ends the process.
 *
 * Reset: new WAL header written and synced first, then published (docs/file-format.md#wal-reset); readers were drained by the
 * rules of control.h. */
#ifndef VFS_REPLICA_H
#define VFS_REPLICA_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/control.h"
#include "vfs/disk.h"
#include "vfs/page_set.h"

struct rq_replica;

#define RQ_WRITE_VERSION 0x52 /* byte 18 of page 1: stock tools read and never write */

/* Page 1 bytes 72..91: which entry of which history made this state. */
struct rq_stamp {
    uint32_t db_id;
    uint32_t term;
    uint64_t index;
    uint32_t version_high;
};

static inline bool rq_stamp_equal(const struct rq_stamp *a, const struct rq_stamp *b)
{
    return a->db_id == b->db_id && a->term == b->term && a->index == b->index && a->version_high == b->version_high;
}

struct rq_replica_state {
    struct rq_stamp stamp;
    uint64_t version;
    uint32_t page_size;
    uint32_t page_count;
};

struct rq_replica_config {
    struct rq_disk *disk;       /* borrows */
    const char *path;           /* of the database file; copied */
    struct rq_control *control; /* borrows: reader slots, files_epoch, drain */
    uint32_t wal_soft_frames;   /* back-fill is wanted from here (default 1000) */
    uint32_t wal_hard_frames;   /* readers are drained from here (default 4000) */
    const char *hashes_path;    /* create: the hashes of the pages that it writes go there; NULL: nowhere */
    uint64_t boot;              /* create: with these, as for rq_replica_keep_hashes() */
};

/* Opens an existing replica: recovers the WAL by its checksums (also one that native SQLite, or a killed predecessor, left),
 * publishes the wal-index.  NOTFOUND: no file.  FOREIGN: a SQLite file without our stamp or write version.  CORRUPT.
 * BUSY: another process holds WAL_WRITE_LOCK. */
enum rq_err rq_replica_open(const struct rq_replica_config *config, struct rq_replica **ret_replica,
                            struct rq_replica_state *ret_state);

/* The newest state that the files of a replica show, opened or not: reads them and writes nothing.  NOTFOUND; FOREIGN: no
 * replica; CORRUPT. */
enum rq_err rq_replica_peek(struct rq_disk *disk, const char *path, struct rq_replica_state *ret_state);

/* A page source for create and append: pages in ascending order; called until it returns NOTFOUND.  Pages in normal form for
 * append (the stamp and write version are put in by the replica). */
struct rq_page_source {
    void *ctx;
    enum rq_err (*next)(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page);
};

/* First commit of a new database: a new file with this content, synced, renamed to path (EXISTS when something other than an
 * empty file is there), then opened as above: with the errors of an open the file is there already, and open is to be called again.
 * The process's umask decides who may read it; -wal and -shm get the database file's mode, as far as the umask lets them.
 * Without space for its page hashes there is no file of them. */
enum rq_err rq_replica_create(const struct rq_replica_config *config, const struct rq_page_source *pages,
                              const struct rq_replica_state *state, struct rq_replica **ret_replica);

void rq_replica_close(struct rq_replica *r); /* keeps -wal and -shm */

void rq_replica_get_state(const struct rq_replica *r, struct rq_replica_state *ret_state);

/* Before its first append and back-fill: keeps the hashes of its pages in this file, and compares with it what is read from the
 * database file from now on (vfs/page_hashes.h).  boot: of the machine, not 0.  CORRUPT: page 1, or the page that was found changed
 * the last time, is not what we wrote; text says which.  ret_forgotten: why the file that was there had to be forgotten, or NULL. */
enum rq_err rq_replica_keep_hashes(struct rq_replica *r, const char *path, uint64_t boot, const char **ret_forgotten,
                                   char text[160]);

/* After that.  Somebody else has copied the WAL into the database file and removed it, and the machine has been started since:
 * whether all of it had reached the disk is not known, all that is sure was at version *ret_from.  Nothing may be read or appended
 * before rq_replica_prove() has said OK. */
bool rq_replica_in_doubt(const struct rq_replica *r, uint64_t *ret_from);

/* All pages that were changed since that version, ascending, and the hashes that they must have, in normal form.  Writes them
 * again, durably.  CORRUPT: one is another; text says which, and the doubt stays.  IO: final. */
struct rq_page_claim {
    uint32_t pgno;
    uint64_t hash;
};
enum rq_err rq_replica_prove(struct rq_replica *r, const struct rq_page_claim *claims, size_t count, char text[160]);

/* A page of the newest version, in normal form; zeros for a page past the end.  CORRUPT: changed behind our back. */
enum rq_err rq_replica_read(struct rq_replica *r, uint32_t pgno, uint8_t *page);

/* The same as readers find it: what is back-filled they read from the database file, though the WAL may still have it. */
enum rq_err rq_replica_read_as_shown(struct rq_replica *r, uint32_t pgno, uint8_t *page);

/* A page of the database file as it lies there, read from it by a snapshot that still holds it (rq_snapshot_reads_file()), whatever the WAL
 * has of it by now.  CORRUPT: it is not what we wrote.  Any thread. */
enum rq_err rq_replica_verify(struct rq_replica *r, uint32_t pgno, const uint8_t *page);

/* Space in -wal for so many more frames, without anything half done: FULL. */
enum rq_err rq_replica_reserve(struct rq_replica *r, uint32_t frames);

/* One WAL transaction: the pages, the pages of (old count, new count] that are not among them as zeros (rule Z), and page 1
 * (always among them, or re-written from the newest version) with the stamp.  Visible to readers on return; not synced. */
enum rq_err rq_replica_append(struct rq_replica *r, const struct rq_page_source *pages,
                              const struct rq_replica_state *after);

/* Which pages appends have changed, for who copies a replica that goes on changing.  From begin to end every page that a transaction
 * carries, or makes zero (rule Z), is put into changed; the watcher drops what it has taken note of.  The strand's. */
struct rq_replica_watch {
    struct rq_page_set changed;
    bool broken;                /* more has changed than that: no memory, or the replica was closed */
    struct rq_replica *replica; /* NULL: is not watched */
    struct rq_replica_watch *next;
};
void rq_replica_watch_begin(struct rq_replica *r,
                            struct rq_replica_watch *w); /* w: zeroed, and borrowed until its end */
void rq_replica_watch_end(struct rq_replica_watch *w);   /* leaves what has changed; idempotent */

/* Would append or reserve wait now, for the WAL to be begun anew?  That takes some syncs: who carries other databases, too, gives them
 * away before. */
bool rq_replica_appends_held(struct rq_replica *r);

/* To be called now and then by who appends, when he has time: what was appended starts on its way to the disk, so that the sync
 * before a back-fill, which would hold up everybody's commits, finds little left.  Promises nothing. */
void rq_replica_begin_sync(struct rq_replica *r);

/* --- background ------------------------------------------------------------------------------------------------------- */

struct rq_replica_wal {
    uint32_t frames;     /* in the WAL */
    uint32_t backfilled; /* of them, in the database file */
    uint64_t file_bytes;
    bool blocked; /* the last back-fill or reset was held up by a reader */
};
void rq_replica_get_wal(const struct rq_replica *r, struct rq_replica_wal *ret_wal);

/* Syncs the WAL, copies what no reader needs to be old into the database file, syncs that.  Checks each frame's checksum first:
 * CORRUPT: one was changed behind our back, nothing further was copied; rq_replica_check() names it.  FULL: the database file cannot
 * grow; nothing is lost, try again.  OK also when readers hold it up (rq_replica_get_wal: blocked). */
enum rq_err rq_replica_backfill(struct rq_replica *r);

#define RQ_RESET_REST_FRAMES 256

/* When no reader is in the WAL, and all of it but the last RQ_RESET_REST_FRAMES is back-filled: holds appends off, copies those,
 * and starts the WAL anew.  Appends wait for the few syncs of that.  BUSY: a reader is in the way, a long append, or more than that
 * many frames.  Else the errors of a back-fill; FULL: nothing happened. */
enum rq_err rq_replica_reset(struct rq_replica *r);

/* Gives the space of a long WAL back, but for what was reserved; does nothing while there are frames in it.  A WAL that is
 * written again soon is better left long: its blocks are there, and in the page cache. */
enum rq_err rq_replica_shrink(struct rq_replica *r);

/* Everything appended so far is durable (fdatasync of -wal; the directory once). */
enum rq_err rq_replica_sync(struct rq_replica *r);

/* Walks on through the database file in this pass (any number but 0; another than before begins at page 1), compares pages with
 * their hashes and learns the hashes of others.  Reads about *bytes, which it lowers by what it has read: when some are left, the
 * pass is complete.  CORRUPT: a page was changed; text says which.  FULL: no space for hashes. */
enum rq_err rq_replica_scrub(struct rq_replica *r, uint32_t pass, uint64_t *bytes, char text[160]);

/* Puts -shm right where it differs from our own knowledge, and makes it or -wal again if its name was taken away; text then says
 * that.  Reads no file otherwise, so it can be done often.  CORRUPT: the database file was written by somebody else.  BUSY: -shm was
 * deleted and somebody is about to make it, or a long append is on its way; FULL: no space: try again.  Not while a back-fill is on its
 * way. */
enum rq_err rq_replica_mend(struct rq_replica *r, char text[160]);

/* Would a raftd that starts now find the -wal that this one writes? */
bool rq_replica_is_named(struct rq_replica *r);

/* Is in the WAL what must be there, and are both files those of their names?  CORRUPT, FOREIGN, NOTFOUND as below. */
enum rq_err rq_replica_check_wal(struct rq_replica *r, char text[160]);
/* Every page was put right by an append, whoever wrote to the database file before: a mend takes it as it is now. */
void rq_replica_mended(struct rq_replica *r);

/* Mends; and finds out whether the files are still ours.  CORRUPT: a frame in -wal or page 1 was changed; FOREIGN: the database's
 * name is another inode now; NOTFOUND: unlinked.  text says what.  Reads the whole WAL. */
enum rq_err rq_replica_check(struct rq_replica *r, char text[160]);

#endif
