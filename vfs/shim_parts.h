/* What the files of the shim share among themselves: shim.c (VFS), shim_file.c (database), shim_commit.c (turn and commit),
 * shim_journal.c (its rollback journal), shim_control.c (file controls), shim_hold.c (commits that are only queued),
 * shim_read.c (how fresh reads have to be). */
#ifndef VFS_SHIM_PARTS_H
#define VFS_SHIM_PARTS_H

#ifdef RQ_EXTENSION
#    include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3
#else
#    include <sqlite3.h>
#endif

#include <stdbool.h>
#include <stdint.h>

#include "vfs/hold.h"
#include "vfs/overlay.h"
#include "vfs/shim.h"
#include "vfs/snapshot.h"
#include "vfs/spill.h"

/* One connection to a served database.
 *
 * Owned by the connection's sqlite3_file; whoever sleeps for its turn (xSleep) shares it meanwhile.
 * Threads: used under the connection's mutex, but for what is marked; the list by the lock in shim.c. */
struct rq_shim_db {
    struct rq_shim_db *next; /* in its bucket; under the list's lock */
    uint32_t ref_count;      /* under the list's lock */
    uint64_t serial;         /* never used twice in a process */
    uint32_t generation;     /* of the process: another one after fork */
    char *path;              /* owns */
    size_t path_bytes;
    const char *name; /* borrows from path: what follows the last slash */
    bool read_only;
    sqlite3 *
        *_Atomic owner; /* borrows: whose connection this is, or NULL (SQLITE_FCNTL_PDB); others look at it: see list */
    struct rq_sink *sink;

    _Atomic int lock; /* SQLITE_LOCK_*; atomic since other connections look for the holder of the turn */
    struct rq_snapshot view;
    uint64_t version;      /* of view, or what this connection has committed on top of it since */
    uint32_t page_size;    /* 0: no page yet */
    uint32_t page_count;   /* at version */
    uint32_t file_count;   /* as SQLite sees the file now: page_count, and what it wrote or truncated */
    uint32_t seen_db_id;   /* that SQLite's page cache is of */
    uint64_t seen_version; /* newest that was read of it */
    uint64_t named_ms;     /* when the name of the control page was looked at last */

    enum rq_read_level { RQ_READ_LOCAL, RQ_READ_BOUNDED, RQ_READ_LINEARIZABLE } read_level;
    uint64_t freshness_ms;   /* of bounded reads; 0: not given */
    uint64_t fresh_until_ms; /* raftd needs not be asked before, by the clock of shim_read.c */
    uint64_t refused_ms;     /* when raftd last did not say so in time; 0: it did */
    char read_refused[400];  /* why the last read transaction did not begin; else empty */

    /* What stands before the view: dirty pages, behind them those committed under the present SHARED lock. */
    struct rq_overlay dirty;
    struct rq_overlay committed;
    struct rq_hold *hold; /* owns; NULL: commits go to the sink, and this connection cannot hold */
    bool committed_any;   /* a commit was made under the present SHARED lock */
    bool view_spoilt;     /* what other statements of the connection see cannot be written on: unlock first */
    bool view_lost;   /* pages that were committed could not be kept: nothing can be read before the next SHARED lock */
    bool reset_cache; /* SQLite has to forget its cached pages: see rq_shim_read */

    struct rq_spill journal;
    bool journal_written; /* in this transaction: some page of it will change */
    bool rolling_back;    /* the journal is being played back: see shim_commit.c */
    bool played_back;     /* and has put something back */

    uint64_t fetch_again_us; /* before, the turn of another host is not waited for without a busy handler */

    bool away_logged;
    bool persist_wal, powersafe; /* remembered for who asks back */
    sqlite3_int64 mmap_size;
};

/* Both kinds of file that we hand to SQLite. */
struct rq_shim_file {
    sqlite3_file base; /* first */
    struct rq_shim_db *db;
};

static inline struct rq_shim_db *rq_shim_db_of(sqlite3_file *file)
{
    return ((struct rq_shim_file *)file)->db;
}

extern const sqlite3_io_methods rq_shim_db_methods;
extern const sqlite3_io_methods rq_shim_journal_methods;

/* --- shim.c ------------------------------------------------------------------------------------------------------------- */

/* A connection that was inherited through fork: everything on it is SQLITE_MISUSE. */
bool rq_shim_inherited(const struct rq_shim_db *db);

/* The connection whose rollback journal SQLite opens under this name; NULL: none, or (several) it cannot be told which. */
struct rq_shim_db *rq_shim_find_writer(const char *journal_name, bool *ret_several);

/* Another served database that the same SQLite connection writes; NULL: none.  written: one that has its journal in use. */
bool rq_shim_writes_another(const struct rq_shim_db *db, bool written);

void rq_shim_close(struct rq_shim_db *db);

/* RQ_FCNTL_SINK. */
int rq_shim_sink_replace(struct rq_shim_db *db, struct rq_sink *sink);

/* xAccess of this thread answers for db without a lock from now on; and xSleep sleeps. */
void rq_shim_note_lock(const struct rq_shim_db *db);

/* xSleep of this thread, if it comes soon, waits for the turn of db; rq_shim_wait_disarm: it sleeps. */
void rq_shim_wait_arm(const struct rq_shim_db *db);
void rq_shim_wait_disarm(void);

/* Maps the control page, asking raftd if need be. */
enum rq_err rq_shim_reach(struct rq_shim_db *db, bool create);

uint64_t rq_shim_now_us(void); /* monotonic */

/* An SQLite code for what no method has a better one for. */
int rq_shim_code(enum rq_err err, int otherwise);
/* The same for what reads and writes content.  TRAP.  Only after SQLITE_FULL and codes of SQLITE_IOERR does SQLite forget its
 * cache when a rollback does not get through; natively these methods have no others, SQLITE_NOMEM among them. */
int rq_shim_content_code(enum rq_err err, int otherwise);
void rq_shim_log(const struct rq_shim_db *db, int code, const char *text);
/* What the sink says, once until it is ready again: busy handlers try again and again. */
void rq_shim_log_away(struct rq_shim_db *db, int code);

/* --- shim_file.c -------------------------------------------------------------------------------------------------------- */

/* Part of a page as this connection sees it: the one place that knows what stands before what. */
enum rq_err rq_shim_page(struct rq_shim_db *db, uint32_t pgno, uint32_t offset, void *data, uint32_t bytes);

/* Bytes [begin, begin + bytes) of page 1 as applications and raftd see them: rollback mode, no stamp. */
void rq_shim_normalise(uint8_t *data, uint32_t begin, uint32_t bytes);

/* The newest commit becomes what the connection sees; SQLITE_OK or a code. */
int rq_shim_view_begin(struct rq_shim_db *db);
void rq_shim_view_end(struct rq_shim_db *db);

/* --- shim_read.c -------------------------------------------------------------------------------------------------------- */

/* NULL: leave it as it is.  Returns what is wrong with them, or NULL. */
const char *rq_shim_read_set(struct rq_shim_db *db, const char *consistency, const char *freshness);
int rq_shim_read_pragma(struct rq_shim_db *db, char **words); /* SQLITE_NOTFOUND: another pragma */
/* Before a read transaction takes its snapshot: waits until it may; SQLITE_OK or a code. */
int rq_shim_read_begin(struct rq_shim_db *db);
/* When it has taken it: is it as new as what was read before? */
int rq_shim_read_check(struct rq_shim_db *db);

/* --- shim_hold.c -------------------------------------------------------------------------------------------------------- */

struct rq_hold *rq_hold_new(struct rq_shim_db *db, struct rq_disk *disk, const char *spill_dir, size_t memory_max);
void rq_hold_free(struct rq_hold *hold); /* NULL is fine */

/* The connection sees what its hold holds, has the turn, and leaves both to it. */
bool rq_hold_taken(const struct rq_hold *hold); /* NULL is fine: false */

/* A part of a page that is queued; NOTFOUND. */
enum rq_err rq_hold_read(struct rq_hold *hold, uint32_t pgno, uint32_t offset, void *data, uint32_t bytes);

/* Queues what is dirty as the next version. */
enum rq_err rq_hold_commit(struct rq_hold *hold, uint32_t page_count);

/* --- shim_commit.c ------------------------------------------------------------------------------------------------------ */

int rq_shim_turn_take(struct rq_shim_db *db);
void rq_shim_turn_release(struct rq_shim_db *db);
void rq_shim_progress(struct rq_shim_db *db);
bool rq_shim_in_the_way(const struct rq_shim_db *db);

/* Throws away what was written since the last commit. */
void rq_shim_discard(struct rq_shim_db *db);

/* SQLITE_FCNTL_SYNC. */
int rq_shim_sync(struct rq_shim_db *db, const char *super_journal);

/* --- shim_control.c ----------------------------------------------------------------------------------------------------- */

int rq_shim_file_control(sqlite3_file *file, int op, void *arg);

#endif
