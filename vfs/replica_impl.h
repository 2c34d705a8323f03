/* Replica, inside: what the files replica*.c share.
 *
 *   replica.c           open, create, close, read, sync
 *   replica_recover.c   the WAL that is found: its frames, its state
 *   replica_append.c    one WAL transaction
 *   replica_watch.c     who is told which pages that changed
 *   replica_index.c     -shm: locks, regions, publication
 *   replica_backfill.c  WAL to database file, reset, and the readers that have a say in it
 *   replica_mend.c      names and publications that others took away
 *   replica_check.c     are the files still what we wrote?
 *   replica_hashes.c    are the pages of the database file?
 *
 * The mutex guards what the comments of struct rq_replica say, and every access to mapped -shm.  Frames behind the committed
 * ones are the strand's alone while it appends; the background sees only committed ones, and takes them away (reset) only while
 * nothing is being appended. */
#ifndef VFS_REPLICA_IMPL_H
#define VFS_REPLICA_IMPL_H

#include <pthread.h>

#include "vfs/frames.h"
#include "vfs/page_hashes.h"
#include "vfs/replica.h"
#include "vfs/wal.h"

#define RQ_CHUNK_BYTES (1u << 18) /* of frames or pages per read or write; there may be thousands of replicas */

struct rq_replica {
    struct rq_disk *disk;       /* borrows */
    struct rq_control *control; /* borrows */
    char *path;                 /* owns, as the three below */
    char *wal_path;
    char *shm_path;
    char *dir_path;
    uint32_t wal_soft_frames;
    uint32_t wal_hard_frames;
    uint32_t page_size;
    unsigned mode; /* of the database file; -wal and -shm get the same */

    struct rq_file *db;      /* owns */
    uint64_t db_modified_ns; /* by us, as nobody else may; the background thread's */
    struct rq_file *wal; /* the background thread may put another one in its place: with the mutex, appends held off, */
    pthread_mutex_t syncs; /* and with this, which is held while the strand, or a compaction, syncs it */
    struct rq_file *shm;
    bool dir_synced;               /* background only: the names of -wal and the database are durable */
    struct rq_page_hashes *hashes; /* owns; NULL: none are kept */
    bool in_doubt;                 /* the opener's: see rq_replica_in_doubt() */
    uint64_t doubt_from;
    uint64_t boot;
    uint32_t scrub_pass; /* background only, as what follows */
    uint32_t scrub_next; /* page that comes next in this pass */

    pthread_mutex_t mutex;
    pthread_cond_t changed; /* resetting or appending */
    bool resetting;         /* the WAL is about to begin anew: append waits */
    bool appending;         /* frames are being written: reset waits a little */
    struct rq_replica_state state;
    uint8_t *page1; /* owns; newest version, as it is on disk */
    struct rq_frames frames;
    struct rq_wal_head head;
    uint32_t backfilled;   /* so many frames are in the database file, synced */
    uint64_t wal_reserved; /* -wal has space up to here */
    uint32_t promised;     /* frames that the next append may need: they were reserved for it */
    bool blocked;
    uint8_t **regions; /* owns; mapped regions of -shm */
    uint32_t region_count;
    bool index_stale;      /* -shm lost its content, or could not be written: publish all of it */
    uint8_t *region_image; /* owns; one region, to compare with */

    /* The strand's (at open, the opener's). */
    struct rq_replica_watch *watches; /* borrows */
    uint64_t wal_begun;               /* -wal up to here is on its way to the disk */
    uint8_t *chunk;                   /* owns; RQ_CHUNK_BYTES */
    uint32_t chunk_frame;             /* it still holds frames of the last append: the first of them, and */
    uint32_t chunk_count;             /* how many; a reset forgets all frames, these too */
    uint8_t *page1_next;
    uint8_t *frame; /* one frame: a page source may read the replica while its pages are appended */
    uint8_t *zeros; /* a page */
};

static inline uint32_t rq_frame_bytes(const struct rq_replica *r)
{
    return r->page_size + RQ_WAL_FRAME_BYTES;
}
/* The page that SQLite's lock bytes lie on: never used, never written. */
static inline uint32_t rq_lock_page(uint32_t page_size)
{
    return (uint32_t)(RQ_DB_PENDING / page_size) + 1;
}

/* What a failed sync had to write is lost, also when it failed for lack of space: final. */
static inline enum rq_err rq_sync_final(struct rq_disk *disk, struct rq_file *file)
{
    return disk->ops->sync(file) == RQ_OK ? RQ_OK : RQ_IO;
}

/* --- pages of a transaction ---------------------------------------------------------------------------------------------- */

/* A page source, completed: page 1 first, stamped; the pages of (old_count, page_count] that the source lacks, as zeros; none
 * past page_count, and not the lock page. */
struct rq_page_merge {
    const struct rq_page_source *source;
    const struct rq_replica_state *after;
    const uint8_t *page1_old; /* NULL: the source must have page 1 */
    uint8_t *page1;           /* room for the new one */
    const uint8_t *zeros;
    uint32_t next_zero; /* starts at old_count + 1 */
    /* The rest starts as zero. */
    bool begun;
    bool handed_out; /* the source's page was returned; it stays valid until the source is asked again */
    uint32_t pgno;   /* of the source's page, 0 at its end */
    const uint8_t *page;
    uint32_t last_pgno;
};
/* NOTFOUND at the end; MISUSE: pages not in ascending order, or no page 1; or what the source says. */
enum rq_err rq_page_merge_next(struct rq_page_merge *m, uint32_t *ret_pgno, const uint8_t **ret_page);

/* --- page 1 ------------------------------------------------------------------------------------------------------------ */

/* CORRUPT: not a SQLite database's first page, or it contradicts itself; FOREIGN: no stamp or write version of ours. */
enum rq_err rq_page1_state(const uint8_t *page1, struct rq_replica_state *ret_state);
/* Puts everything that state says, and the write version, into page 1. */
void rq_page1_stamp(uint8_t *page1, const struct rq_replica_state *state);

/* --- WAL --------------------------------------------------------------------------------------------------------------- */

/* Reads a frame and verifies that it is the one we know.  buffer: rq_frame_bytes(); the page is behind its 24 bytes.
 * before: checksum of the frame before it. */
enum rq_err rq_replica_frame_read(struct rq_replica *r, const struct rq_wal_head *head, uint32_t frame,
                                  const struct rq_frame *expected, const uint32_t before[2], uint8_t *buffer);
/* The checksum that frame goes on from.  With the mutex. */
const uint32_t *rq_replica_sum_before(const struct rq_replica *r, uint32_t frame);

/* Fills frames, head and state from -wal and the database file; a WAL without a transaction gets a new, synced header. */
enum rq_err rq_replica_recover(struct rq_replica *r);
/* Salt and checkpoint count of the WAL that follows. */
enum rq_err rq_replica_next_head(const struct rq_replica *r, struct rq_wal_head *ret_head);

/* Appends are held off from here on, until they are released: false: one is on its way, and takes long. */
bool rq_replica_hold_appends(struct rq_replica *r);
void rq_replica_release_appends(struct rq_replica *r, bool blocked);

/* --- are the files ours? ------------------------------------------------------------------------------------------------- */

#define RQ_NEW_SUFFIX "-rqnew" /* of a file that is being made, until it is renamed */

/* Puts the text together, as far as there is room; returns err. */
enum rq_err rq_replica_finding(char text[160], enum rq_err err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* NOTFOUND: no file of this name; FOREIGN: another file than ours. */
enum rq_err rq_replica_name_check(struct rq_replica *r, const char *path, struct rq_file *file);
/* Has somebody else written to the database file?  Stock tools do not (byte 18), and checkpoints are kept out by locks. */
enum rq_err rq_replica_modified_check(struct rq_replica *r, char text[160]);

/* --- page hashes --------------------------------------------------------------------------------------------------------- */

/* Is this the page that we wrote into the database file?  CORRUPT, and noted for the next start. */
enum rq_err rq_replica_page_verify(struct rq_replica *r, uint32_t pgno, const uint8_t *page);
/* Hashes of pages (ascending) that are in the database file, synced. */
enum rq_err rq_replica_put_hashes(struct rq_replica *r, const uint32_t *pages, const uint64_t *hashes, uint32_t count);

/* --- watches --------------------------------------------------------------------------------------------------------------- */

/* The frames behind that one were committed. */
void rq_replica_watches_note(struct rq_replica *r, uint32_t frame);
/* Nobody will be told any more. */
void rq_replica_watches_break(struct rq_replica *r);

/* --- -shm: all with the mutex (but open and close) ---------------------------------------------------------------------- */

/* Opens or makes -shm by SQLite's rules, and takes the locks that are kept for life.  ret_made: it is a new file. */
enum rq_err rq_replica_shm_open(struct rq_replica *r, struct rq_file **ret_shm, bool *ret_made);
void rq_replica_shm_close(struct rq_replica *r);
/* The file reaches over every region that is mapped; before each access to them.  False: it could not be made so, and no
 * region may be touched. */
bool rq_replica_shm_whole(struct rq_replica *r);
/* Regions for frames up to this one. */
enum rq_err rq_replica_shm_grow(struct rq_replica *r, uint32_t frame);
/* Hash entries of the frames in (from, committed], then the header. */
void rq_replica_publish_frames(struct rq_replica *r, uint32_t from);
void rq_replica_publish_head(struct rq_replica *r);
/* Makes hash tables and headers what we know; writes only what differs. */
void rq_replica_publish_all(struct rq_replica *r);
/* Before a check sees the database file, after we have written to it; not if others had before. */
void rq_replica_note_modified(struct rq_replica *r);
bool rq_replica_others_wrote(const struct rq_replica *r);

/* The control page: what is applied, and whether readers are to leave the WAL. */
void rq_replica_publish_control(struct rq_replica *r);
/* For SQLite's checkpoint info, only with regions whole. */
struct rq_wal_ckpt_info *rq_replica_ckpt_info(struct rq_replica *r);

#endif
