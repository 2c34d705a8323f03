/* The turn, and the commit.
 *
 * The commit point is SQLITE_FCNTL_SYNC: SQLite sends it after it has written all dirty pages and before it finalises the
 * journal, whatever the journal mode, also with synchronous=OFF.  After it has returned SQLITE_OK nothing in the commit can fail.
 *
 * TRAP A.  The same file control ends a rollback, if pages were written before (the cache spilled, or a commit failed): SQLite
 * has played the journal back and syncs the file.  That must not be taken for a commit.
 * TRAP B.  The change counter in page 1 does not tell them apart: SQLite skips the playback when the journal names a super-journal
 * that is not there, and then page 1 is still the new one.
 * What does: a rollback, and nothing else, asks for the size of the journal first.  (So does a commit that writes the name of a
 * super-journal into it; but then SYNC has that name as argument, which a rollback's has not.)  The reading of the journal
 * would not do, ROLLBACK TO reads it as well.  Whatever was written since the last commit is then dropped as a whole, which
 * does not depend on what was played back.
 *
 * Journals that SQLite keeps for itself (journal_mode MEMORY or OFF, which a pragma without a schema name can set from a
 * connection whose main database is not ours): there the counter has to do; base + 1 is a commit, and base with nothing but
 * pages as they were is a rollback.  Dirty pages without either are those of locking_mode=EXCLUSIVE, set in the same way, where
 * SQLite does not count its later commits: an error, since they could not be told apart by other connections' caches. */
#include <stdlib.h>
#include <string.h>

#include "raftd/wire/bytes.h"
#include "vfs/shim_parts.h"

#define PAGE_SIZE_OFFSET  16
#define VERSIONS_OFFSET   18
#define COUNTER_OFFSET    24
#define PAGE_COUNT_OFFSET 28
#define VALID_FOR_OFFSET  92

#define FETCH_US       ((uint64_t)1000000)
#define FETCH_AGAIN_US ((uint64_t)10000000)

/* --- the turn ----------------------------------------------------------------------------------------------------------- */

void rq_shim_progress(struct rq_shim_db *db)
{
    if (db->view.slot_held) {
        _Atomic uint64_t *progress = &db->view.control->slots[db->view.slot].progress;
        atomic_store_explicit(progress, atomic_load_explicit(progress, memory_order_relaxed) + 1, memory_order_relaxed);
    }
}

/* Nobody has committed on top of what this connection sees. */
static bool view_newest(const struct rq_shim_db *db)
{
    if (db->committed_any) {
        const struct rq_control_head *head = db->view.control->head;
        return !db->view_spoilt && atomic_load(&head->gone) == 0 && atomic_load(&head->version) <= db->version;
    }
    return rq_snapshot_current(&db->view);
}

/* Costs nothing while the cluster's turn is at this host and no other one wants it. */
static void tell_raftd(struct rq_shim_db *db)
{
    if (db->view.slot_held && rq_turn_elsewhere(db->view.control) && db->sink->ops->look != NULL) {
        db->sink->ops->look(db->sink, db->view.db_id);
    }
}

static void release(struct rq_shim_db *db)
{
    if (rq_turn_held(db->view.control, db->view.slot)) { /* not if raftd passed it on with the commit */
        rq_turn_release(db->view.control, db->view.slot);
        tell_raftd(db);
    }
}

/* Another host has the turn, or nobody has had it yet, and it was asked for.  Where nobody writes it is here after about a commit's
 * time.  Natively such a write just succeeds, also without a busy handler: so it waits.  But not again soon, when that was in vain: a
 * busy handler counts what it sleeps, and not this; it sleeps in the queue (xSleep).  Who is stale by now leaves the turn offered:
 * his next try begins with the newest commit, and is to find it. */
static bool fetch_turn(struct rq_shim_db *db)
{
    struct rq_control *c = db->view.control;
    const uint64_t now_us = rq_shim_now_us();
    if (db->hold != NULL || now_us < db->fetch_again_us || rq_turn_holder(c, NULL) != RQ_SLOT_COUNT) {
        return false;
    }
    const bool offered = rq_turn_wait(c, db->view.slot, FETCH_US);
    db->fetch_again_us = offered ? 0 : now_us + FETCH_AGAIN_US;
    return offered && view_newest(db) && rq_turn_take(c, db->view.slot) == RQ_OK;
}

static bool take_turn(struct rq_shim_db *db, uint64_t session)
{
    if (rq_snapshot_claim(&db->view, session) != RQ_OK) {
        return false;
    }
    const bool elsewhere = rq_turn_elsewhere(db->view.control);
    if (rq_turn_take(db->view.control, db->view.slot) == RQ_OK) {
        return true;
    }
    tell_raftd(db);
    return elsewhere && fetch_turn(db);
}

int rq_shim_turn_take(struct rq_shim_db *db)
{
    if (db->read_only || (db->hold != NULL && db->lock != SQLITE_LOCK_NONE)) {
        return SQLITE_READONLY; /* who can hold writes only while it does */
    }
    uint64_t session = 0;
    enum rq_err err = db->sink->ops->ready(db->sink, &session);
    if (err != RQ_OK) {
        int code = rq_shim_code(err, SQLITE_IOERR_LOCK);
        rq_shim_log_away(db, code);
        return code;
    }
    db->away_logged = false;
    /* The turn first, then the look at the snapshot: who is stale while another writes gets BUSY, as from native SQLite. */
    if (atomic_load(&db->view.control->head->full) != 0) {
        return SQLITE_FULL; /* the turn would come only with what this host lacks */
    }
    if (!take_turn(db, session)) {
        rq_shim_wait_arm(db);
        return SQLITE_BUSY;
    }
    if (!view_newest(db)) {
        release(db);
        rq_shim_wait_arm(db); /* a busy handler's next try is then with the turn, so on the newest commit */
        return SQLITE_BUSY_SNAPSHOT;
    }
    return SQLITE_OK;
}

void rq_shim_turn_release(struct rq_shim_db *db)
{
    if (db->view.slot_held) {
        release(db);
    }
}

bool rq_shim_in_the_way(const struct rq_shim_db *db)
{
    if (atomic_load(&db->lock) < SQLITE_LOCK_RESERVED || !db->view.slot_held) {
        return false;
    }
    const struct rq_control *c = db->view.control;
    return !rq_turn_held(c, db->view.slot) || rq_turn_wanted(c) || rq_turn_elsewhere(c);
}

/* --- the end of a transaction ------------------------------------------------------------------------------------------- */

void rq_shim_discard(struct rq_shim_db *db)
{
    rq_overlay_clear(&db->dirty);
    db->file_count = db->page_count;
    if (db->page_count == 0) {
        db->page_size = 0; /* of a database without pages the next transaction chooses it */
    }
}

static int rolled_back(struct rq_shim_db *db)
{
    rq_shim_discard(db);
    if (!db->played_back) {
        db->reset_cache = true; /* SQLite's cache may still hold what was rolled back */
    }
    /* If a commit of this connection was undone as one of several databases', then other statements of it read what is no
     * version of the database at all. */
    db->view_spoilt = db->committed_any;
    return SQLITE_OK;
}

/* All dirty pages are what they were? */
static enum rq_err dirty_changes_nothing(struct rq_shim_db *db, bool *ret_same)
{
    struct rq_overlay dirty = db->dirty;
    db->dirty.count = 0; /* look past them */
    struct rq_overlay_walk walk;
    uint8_t *before = malloc(dirty.page_size);
    bool same = true;
    enum rq_err err = before == NULL ? RQ_NOMEM : RQ_OK;
    enum rq_err walk_err = rq_overlay_walk_init(&walk, &dirty, UINT32_MAX);
    err = err == RQ_OK ? walk_err : err;
    while (err == RQ_OK && same) {
        uint32_t pgno;
        uint8_t *page;
        err = rq_overlay_walk_next(&walk, &pgno, &page);
        if (err == RQ_OK) {
            err = rq_shim_page(db, pgno, 0, before, dirty.page_size);
        }
        if (err == RQ_OK && pgno == 1) {
            rq_shim_normalise(before, 0, dirty.page_size);
            rq_shim_normalise(page, 0, dirty.page_size);
        }
        same = err != RQ_OK || memcmp(before, page, dirty.page_size) == 0;
    }
    rq_overlay_walk_fini(&walk);
    free(before);
    db->dirty = dirty;
    if (err != RQ_OK && err != RQ_NOTFOUND) {
        return err;
    }
    *ret_same = same;
    return RQ_OK;
}

/* TRAP.  Of a database without pages SQLite reads no counter, it goes on from what it wrote last: after a first transaction that
 * was rolled back, or did not fit, the next one is not number 1.  A rollback in such a database leaves no page, so this is a
 * commit.  SQLite reads page 1 again when it finds another counter there than its own. */
static enum rq_err count_first(struct rq_shim_db *db)
{
    uint8_t *page = malloc(db->page_size);
    enum rq_err err = page == NULL ? RQ_NOMEM : rq_shim_page(db, 1, 0, page, db->page_size);
    if (err == RQ_OK) {
        rq_put_u32(page + COUNTER_OFFSET, 1);
        rq_put_u32(page + VALID_FOR_OFFSET, 1);
        err = rq_overlay_put(&db->dirty, 1, page, db->page_size);
    }
    free(page);
    return err;
}

/* --- the commit --------------------------------------------------------------------------------------------------------- */

/* Of one commit, on their way to the sink. */
struct leaving_pages {
    struct rq_overlay_walk walk;
    struct rq_shim_db *db;
};

static void pages_rewind(void *ctx)
{
    rq_overlay_walk_rewind(&((struct leaving_pages *)ctx)->walk);
}

static enum rq_err pages_next(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct leaving_pages *leaving = ctx;
    uint8_t *page;
    rq_shim_progress(leaving->db);
    enum rq_err err = rq_overlay_walk_next(&leaving->walk, ret_pgno, &page);
    if (err != RQ_OK) {
        return err;
    }
    if (*ret_pgno == 1) {
        rq_shim_normalise(page, 0, leaving->walk.overlay->page_size);
    }
    *ret_page = page;
    return RQ_OK;
}

static int code_of_commit(enum rq_err err)
{
    switch ((int)err) {
        case RQ_REFUSED:
            return SQLITE_BUSY_SNAPSHOT;
        case RQ_TOOBIG:
            return SQLITE_FULL; /* as when a database is too large */
        case RQ_UNKNOWN:
            return RQVFS_IOERR_UNKNOWN;
        default:
            return rq_shim_code(err, SQLITE_IOERR_FSYNC);
    }
}

static int commit(struct rq_shim_db *db, uint32_t page_count, bool foreign_mode)
{
    if (rq_hold_taken(db->hold)) {
        db->reset_cache = db->reset_cache || foreign_mode;
        return rq_shim_code(rq_hold_commit(db->hold, page_count), SQLITE_IOERR_FSYNC);
    }
    struct leaving_pages leaving = { .db = db };
    enum rq_err err = rq_overlay_walk_init(&leaving.walk, &db->dirty, page_count);
    if (err != RQ_OK) {
        return rq_shim_code(err, SQLITE_IOERR_NOMEM);
    }
    const struct rq_sink_pages pages = { .ctx = &leaving, .rewind = pages_rewind, .next = pages_next };
    const struct rq_sink_commit request = {
        .db_id = db->view.db_id,
        .base = db->version,
        .page_size = db->page_size,
        .db_page_count = page_count,
        .page_count = leaving.walk.count,
        .pages = &pages,
    };
    uint64_t version = 0;
    rq_snapshot_wait_begin(&db->view);
    err = db->sink->ops->commit(db->sink, &request, &version);
    rq_snapshot_wait_end(&db->view);
    rq_overlay_walk_fini(&leaving.walk);
    if (err != RQ_OK) {
        int code = code_of_commit(err);
        rq_shim_log(db, code, db->sink->ops->text(db->sink));
        return code;
    }
    db->version = version;
    db->page_count = db->file_count = page_count;
    db->committed_any = true;
    if (foreign_mode) {
        db->reset_cache =
            true; /* SQLite's cached page 1 says WAL mode (backup from such a database), and it would believe it */
    }
    if (rq_overlay_merge(&db->committed, &db->dirty) != RQ_OK) {
        /* The commit stands; only what other statements of this connection still read is not to be had. */
        rq_overlay_clear(&db->committed);
        rq_overlay_clear(&db->dirty);
        db->view_lost = true;
    }
    return SQLITE_OK;
}

int rq_shim_sync(struct rq_shim_db *db, const char *super_journal)
{
    if (db->lock < SQLITE_LOCK_RESERVED || db->dirty.count == 0) {
        return SQLITE_OK;
    }
    if (super_journal != NULL) {
        db->rolling_back = db->played_back = false; /* its name was written before the pages were */
    }
    if (db->rolling_back) {
        return rolled_back(db);
    }
    if (db->version == 0 && db->file_count == 0) {
        return rolled_back(db); /* a database that had no page: what is left of it is none */
    }
    uint8_t head[RQ_SNAPSHOT_HEAD_BYTES];
    enum rq_err err = rq_shim_page(db, 1, 0, head, sizeof head);
    if (err != RQ_OK) {
        return rq_shim_code(err, SQLITE_IOERR_READ);
    }
    uint32_t counter = rq_get_u32(head + COUNTER_OFFSET);
    if (db->version == 0 && counter != 1) {
        err = count_first(db);
        if (err != RQ_OK) {
            return rq_shim_code(err, SQLITE_IOERR_WRITE);
        }
        counter = 1;
    }
    if (counter != (uint32_t)(db->version + 1)) {
        bool same = false;
        err = counter == (uint32_t)db->version ? dirty_changes_nothing(db, &same) : RQ_OK;
        if (err != RQ_OK) {
            return rq_shim_code(err, SQLITE_IOERR_READ);
        }
        if (same) {
            return rolled_back(db);
        }
        rq_shim_log(db, SQLITE_IOERR_FSYNC,
                    "SQLite did not count this transaction (PRAGMA locking_mode=exclusive from a "
                    "connection whose main database is not replicated?); it is not committed");
        return SQLITE_IOERR_FSYNC;
    }
    uint32_t page_size = rq_get_u16(head + PAGE_SIZE_OFFSET);
    if ((page_size == 1 ? 65536 : page_size) != db->page_size) {
        rq_shim_log(db, SQLITE_READONLY, rq_err_text(RQ_PAGESIZE));
        return SQLITE_READONLY;
    }
    uint32_t page_count = rq_get_u32(head + PAGE_COUNT_OFFSET);
    if (page_count == 0) {
        return SQLITE_IOERR_FSYNC; /* SQLite always writes it */
    }
    if (!db->journal_written && rq_shim_writes_another(db, false)) {
        /* With its own journals SQLite does not show which database it writes; so both count as written. */
        return RQVFS_READONLY_SECOND;
    }
    return commit(db, page_count, head[VERSIONS_OFFSET] != 1 || head[VERSIONS_OFFSET + 1] != 1);
}
