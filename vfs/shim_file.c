/* A served database as SQLite sees it: a rollback-journal database file.
 *
 * SQLite's cache check is the read of 16 bytes at offset 24 at each SHARED lock; it is answered from the snapshot, so that a
 * statement on an unchanged database makes no system call.  Where SQLite's cache is wrong although these bytes are the same
 * (TRAP C of SQLite's: discarded transactions re-use change counters), or must be read anew for another reason, they are
 * answered wrong once: reset_cache. */
#include <string.h>
#include <time.h>

#include "raftd/wire/bytes.h"
#include "vfs/shim_parts.h"

#define COUNTER_OFFSET  24
#define COUNTER_BYTES   16
#define VERSIONS_OFFSET 18
#define STAMP_OFFSET    72
#define STAMP_BYTES     20
#define NAMED_EVERY_MS  500u

/* Those of the field's bytes that are in data. */
static void overwrite(uint8_t *data, uint32_t begin, uint32_t bytes, uint32_t field, uint32_t field_bytes, int value)
{
    uint32_t from = field > begin ? field : begin;
    uint32_t to = field + field_bytes < begin + bytes ? field + field_bytes : begin + bytes;
    if (from < to) {
        memset(data + (from - begin), value, to - from);
    }
}

void rq_shim_normalise(uint8_t *data, uint32_t begin, uint32_t bytes)
{
    overwrite(data, begin, bytes, VERSIONS_OFFSET, 2, 1);
    overwrite(data, begin, bytes, STAMP_OFFSET, STAMP_BYTES, 0);
}

enum rq_err rq_shim_page(struct rq_shim_db *db, uint32_t pgno, uint32_t offset, void *data, uint32_t bytes)
{
    if (db->view_lost) {
        return RQ_IO;
    }
    if (db->dirty.count > 0) {
        enum rq_err err = rq_overlay_read(&db->dirty, pgno, offset, data, bytes);
        if (err != RQ_NOTFOUND) {
            return err;
        }
    }
    if (db->committed.count > 0) {
        enum rq_err err = rq_overlay_read(&db->committed, pgno, offset, data, bytes);
        if (err != RQ_NOTFOUND) {
            return err;
        }
    }
    if (rq_hold_taken(db->hold)) {
        enum rq_err err = rq_hold_read(db->hold, pgno, offset, data, bytes);
        if (err != RQ_NOTFOUND) {
            return err;
        }
    }
    if (pgno == 1 && offset < db->view.page1_bytes && bytes <= db->view.page1_bytes - offset) {
        memcpy(data, db->view.page1 + offset, bytes);
        return RQ_OK;
    }
    return rq_snapshot_read(&db->view, pgno, offset, data, bytes);
}

/* --- locks -------------------------------------------------------------------------------------------------------------- */

/* A host that lost its directory gets another one, by another raftd, while what this connection has open lives on and is never
 * changed again.  Nothing tells of that but the name, so it is looked at now and then.  (A name without a file says nothing: raftd may
 * be away, or this process be in a root of its own.) */
static void follow_name(struct rq_shim_db *db)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    const uint64_t now_ms = (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
    if (now_ms - db->named_ms >= NAMED_EVERY_MS && db->view.control != NULL) {
        db->named_ms = now_ms;
        if (rq_control_share_named(db->view.control) == RQ_FOREIGN) {
            rq_snapshot_fini(&db->view);
        }
    }
}

int rq_shim_view_begin(struct rq_shim_db *db)
{
    follow_name(db);
    enum rq_err err = rq_snapshot_begin(&db->view);
    if (err == RQ_UNREADY) {
        err = rq_shim_reach(db, false);
        if (err == RQ_OK) {
            err = rq_snapshot_begin(&db->view);
        }
    }
    if (err != RQ_OK) {
        int code = rq_shim_code(err, SQLITE_IOERR_LOCK);
        if (err == RQ_QUARANTINED && db->view.control != NULL) {
            char why[sizeof db->view.control->head->message]; /* a copy: anybody may write there meanwhile */
            memcpy(why, db->view.control->head->message, sizeof why);
            why[sizeof why - 1] = '\0';
            rq_shim_log(db, code, why);
        }
        return code;
    }
    int code = rq_shim_read_check(db);
    if (code != SQLITE_OK) {
        rq_snapshot_end(&db->view, false);
        return code;
    }
    db->version = db->view.version;
    db->page_size = db->view.page_size;
    db->page_count = db->file_count = db->view.page_count;
    if (db->view.db_id != db->seen_db_id) {
        db->reset_cache = db->seen_db_id != 0; /* another database under the same name: equal counters mean nothing */
        db->seen_db_id = db->view.db_id;
    }
    return SQLITE_OK;
}

void rq_shim_view_end(struct rq_shim_db *db)
{
    /* After a commit of our own the snapshot is old, and nothing speaks for keeping it. */
    rq_snapshot_end(&db->view, !db->committed_any);
    rq_overlay_clear(&db->committed);
    db->committed_any = db->view_spoilt = db->view_lost = false;
}

static int db_lock(sqlite3_file *file, int level)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    if (rq_shim_inherited(db)) {
        return SQLITE_MISUSE;
    }
    int held = atomic_load_explicit(&db->lock, memory_order_relaxed);
    if (held >= level) {
        return SQLITE_OK;
    }
    rq_shim_note_lock(db);
    if (held == SQLITE_LOCK_NONE) {
        int code = rq_hold_taken(db->hold) ? SQLITE_OK : rq_shim_read_begin(db);
        if (code == SQLITE_OK && !rq_hold_taken(db->hold)) {
            code = rq_shim_view_begin(db);
        }
        if (code != SQLITE_OK) {
            return code;
        }
        atomic_store_explicit(&db->lock, held = SQLITE_LOCK_SHARED, memory_order_relaxed);
    }
    if (held < SQLITE_LOCK_RESERVED && level >= SQLITE_LOCK_RESERVED) {
        int code = rq_hold_taken(db->hold) ? SQLITE_OK : rq_shim_turn_take(db);
        if (code != SQLITE_OK) {
            return code;
        }
    }
    /* PENDING and EXCLUSIVE keep nobody out: readers have their snapshots, writers wait for the turn. */
    atomic_store_explicit(&db->lock, level, memory_order_release);
    return SQLITE_OK;
}

static int db_unlock(sqlite3_file *file, int level)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    if (rq_shim_inherited(db)) {
        return SQLITE_MISUSE;
    }
    int held = atomic_load_explicit(&db->lock, memory_order_relaxed);
    if (held <= level) {
        return SQLITE_OK;
    }
    if (held >= SQLITE_LOCK_RESERVED && level < SQLITE_LOCK_RESERVED) {
        rq_shim_discard(db);
        db->journal_written = db->rolling_back = db->played_back = false;
        atomic_store_explicit(&db->lock, SQLITE_LOCK_SHARED, memory_order_release);
        if (!rq_hold_taken(db->hold)) {
            rq_shim_turn_release(db);
        }
    }
    if (level == SQLITE_LOCK_NONE && !rq_hold_taken(db->hold)) {
        rq_shim_view_end(db);
    }
    atomic_store_explicit(&db->lock, level, memory_order_release);
    return SQLITE_OK;
}

static int db_check_reserved_lock(sqlite3_file *file, int *ret_reserved)
{
    /* Asked only where a hot journal may be, and there is never one. */
    *ret_reserved = atomic_load(&rq_shim_db_of(file)->lock) >= SQLITE_LOCK_RESERVED;
    return SQLITE_OK;
}

/* --- content ------------------------------------------------------------------------------------------------------------ */

/* SQLite reads the header and asks for the size also without a lock. */
static int borrow_view(struct rq_shim_db *db, bool *ret_borrowed)
{
    *ret_borrowed = false;
    if (rq_shim_inherited(db)) {
        return SQLITE_MISUSE;
    }
    if (atomic_load_explicit(&db->lock, memory_order_relaxed) != SQLITE_LOCK_NONE || rq_hold_taken(db->hold)) {
        return SQLITE_OK;
    }
    *ret_borrowed = true;
    return rq_shim_view_begin(db);
}

static int read_range(struct rq_shim_db *db, uint8_t *data, uint32_t bytes, uint64_t offset)
{
    uint64_t file_bytes = (uint64_t)db->file_count * db->page_size;
    uint32_t have = offset >= file_bytes ? 0 : file_bytes - offset < bytes ? (uint32_t)(file_bytes - offset) : bytes;
    const unsigned shift = have > 0 ? (unsigned)__builtin_ctz(db->page_size) : 0; /* a power of two */
    for (uint32_t done = 0; done < have;) {
        uint64_t at = offset + done;
        uint32_t pgno = (uint32_t)(at >> shift) + 1;
        uint32_t in_page = (uint32_t)at & (db->page_size - 1);
        uint32_t part = db->page_size - in_page < have - done ? db->page_size - in_page : have - done;
        enum rq_err err = rq_shim_page(db, pgno, in_page, data + done, part);
        if (err != RQ_OK) {
            return rq_shim_content_code(err, SQLITE_IOERR_READ);
        }
        if (pgno == 1) {
            rq_shim_normalise(data + done, in_page, part);
        }
        done += part;
    }
    if (have < bytes) {
        memset(data + have, 0, bytes - have);
        return SQLITE_IOERR_SHORT_READ;
    }
    return SQLITE_OK;
}

/* The cache check of a statement, where nothing stands before the snapshot; these bytes are nobody's but SQLite's. */
static bool read_counter(const struct rq_shim_db *db, void *data, int bytes, sqlite3_int64 offset)
{
    if (offset != COUNTER_OFFSET || bytes != COUNTER_BYTES ||
        atomic_load_explicit(&db->lock, memory_order_relaxed) != SQLITE_LOCK_SHARED || db->dirty.count > 0 ||
        db->committed.count > 0 || db->hold != NULL || db->reset_cache || db->file_count == 0 || db->view_lost ||
        db->view.page1_bytes < COUNTER_OFFSET + COUNTER_BYTES || rq_shim_inherited(db)) {
        return false;
    }
    memcpy(data, db->view.page1 + COUNTER_OFFSET, COUNTER_BYTES);
    return true;
}

static int db_read(sqlite3_file *file, void *data, int bytes, sqlite3_int64 offset)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    if (read_counter(db, data, bytes, offset)) {
        return SQLITE_OK;
    }
    bool borrowed;
    int code = borrow_view(db, &borrowed);
    if (code != SQLITE_OK) {
        return code;
    }
    code = read_range(db, data, (uint32_t)bytes, (uint64_t)offset);
    if (borrowed) {
        rq_shim_view_end(db);
    } else if (db->reset_cache && offset == COUNTER_OFFSET && bytes == COUNTER_BYTES) {
        for (int i = 0; i < bytes; i++) {
            ((uint8_t *)data)[i] ^= 0xff;
        }
        db->reset_cache = false;
        code = SQLITE_OK;
    }
    if (atomic_load_explicit(&db->lock, memory_order_relaxed) >= SQLITE_LOCK_RESERVED) {
        rq_shim_progress(db);
    }
    return code;
}

static int db_file_size(sqlite3_file *file, sqlite3_int64 *ret_bytes)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    bool borrowed;
    int code = borrow_view(db, &borrowed);
    if (code != SQLITE_OK) {
        return code;
    }
    *ret_bytes = (sqlite3_int64)db->file_count * db->page_size;
    if (borrowed) {
        rq_shim_view_end(db);
    }
    return SQLITE_OK;
}

static bool page_size_valid(uint32_t bytes)
{
    return bytes >= 512 && bytes <= 65536 && (bytes & (bytes - 1)) == 0;
}

static int db_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    if (rq_shim_inherited(db)) {
        return SQLITE_MISUSE;
    }
    if (atomic_load_explicit(&db->lock, memory_order_relaxed) < SQLITE_LOCK_RESERVED) {
        return SQLITE_IOERR_WRITE; /* SQLite never does */
    }
    uint32_t page_size = (uint32_t)bytes;
    bool fixed = db->page_count > 0 || db->dirty.count > 0;
    if (!page_size_valid(page_size) || (uint64_t)offset % page_size != 0 || (fixed && page_size != db->page_size)) {
        return SQLITE_READONLY; /* the code of SQLite itself for another page size, in WAL mode */
    }
    uint64_t pgno = (uint64_t)offset / page_size + 1;
    if (pgno >= UINT32_MAX) {
        return SQLITE_FULL;
    }
    enum rq_err err = rq_overlay_put(&db->dirty, (uint32_t)pgno, data, page_size);
    if (err != RQ_OK) {
        return rq_shim_content_code(err, SQLITE_IOERR_WRITE);
    }
    db->page_size = page_size;
    db->played_back = db->rolling_back;
    if (pgno > db->file_count) {
        db->file_count = (uint32_t)pgno;
    }
    rq_shim_progress(db);
    return SQLITE_OK;
}

static int db_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
    /* Comes after the commit too (VACUUM): the size that counts is in page 1.  Pages past it are not sent. */
    struct rq_shim_db *db = rq_shim_db_of(file);
    if (rq_shim_inherited(db)) {
        return SQLITE_MISUSE;
    }
    if (atomic_load_explicit(&db->lock, memory_order_relaxed) < SQLITE_LOCK_RESERVED) {
        return SQLITE_IOERR_TRUNCATE;
    }
    if (db->page_size > 0 && (uint64_t)bytes / db->page_size < db->file_count) {
        db->file_count = (uint32_t)((uint64_t)bytes / db->page_size);
    }
    return SQLITE_OK;
}

static int db_sync(sqlite3_file *file, int flags)
{
    /* Skipped with synchronous=OFF, so the commit is at SQLITE_FCNTL_SYNC, which always comes before. */
    (void)file;
    (void)flags;
    return SQLITE_OK;
}

static int db_sector_size(sqlite3_file *file)
{
    (void)file;
    return 4096;
}

static int db_device_characteristics(sqlite3_file *file)
{
    /* The journal is memory and a file without a name: no order and no sync of it matters. */
    (void)file;
    return SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL | SQLITE_IOCAP_POWERSAFE_OVERWRITE |
           SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN;
}

static int db_close(sqlite3_file *file)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    if (!rq_shim_inherited(db)) {
        (void)db_unlock(file, SQLITE_LOCK_NONE); /* fails for inherited ones only */
    }
    rq_shim_close(db);
    file->pMethods = NULL;
    return SQLITE_OK;
}

/* Version 1: without xShm SQLite never takes the WAL way; without xFetch nothing of it is mapped. */
const sqlite3_io_methods rq_shim_db_methods = {
    .iVersion = 1,
    .xClose = db_close,
    .xRead = db_read,
    .xWrite = db_write,
    .xTruncate = db_truncate,
    .xSync = db_sync,
    .xFileSize = db_file_size,
    .xLock = db_lock,
    .xUnlock = db_unlock,
    .xCheckReservedLock = db_check_reserved_lock,
    .xFileControl = rq_shim_file_control,
    .xSectorSize = db_sector_size,
    .xDeviceCharacteristics = db_device_characteristics,
};
