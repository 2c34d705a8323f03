/* The rollback journal of a served database: memory, and past a limit a file without a name.  It is gone with its connection,
 * so there is never a hot one.
 *
 * It tells two things about the transaction that nothing else does: that SQLite is about to change the database (its first
 * write), and that it rolls back (it asks for the size; see shim_commit.c). */
#include <string.h>

#include "vfs/shim_parts.h"

static int journal_close(sqlite3_file *file)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    db->rolling_back = false;
    rq_spill_truncate(&db->journal, 0);
    file->pMethods = NULL;
    return SQLITE_OK;
}

static int journal_read(sqlite3_file *file, void *data, int bytes, sqlite3_int64 offset)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    size_t got;
    enum rq_err err = rq_spill_read(&db->journal, data, (size_t)bytes, (uint64_t)offset, &got);
    if (err != RQ_OK) {
        return rq_shim_content_code(err, SQLITE_IOERR_READ);
    }
    if (got < (size_t)bytes) {
        memset((uint8_t *)data + got, 0, (size_t)bytes - got);
        return SQLITE_IOERR_SHORT_READ;
    }
    return SQLITE_OK;
}

static int journal_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    if (!db->journal_written) {
        /* A transaction over two replicated databases would need one commit for both.  It is refused here, at its first write to
         * the second one: nothing has happened, the transaction is still good for the first. */
        if (rq_shim_writes_another(db, true)) {
            rq_shim_log(db, RQVFS_READONLY_SECOND, "a transaction cannot write two replicated databases");
            return RQVFS_READONLY_SECOND;
        }
        db->journal_written = db->lock >= SQLITE_LOCK_RESERVED;
    }
    db->rolling_back = false; /* finalised (journal_mode PERSIST), or a new one */
    enum rq_err err = rq_spill_write(&db->journal, data, (size_t)bytes, (uint64_t)offset);
    return rq_shim_content_code(err, SQLITE_IOERR_WRITE);
}

static int journal_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    db->rolling_back = false;
    rq_spill_truncate(&db->journal, (uint64_t)bytes);
    return SQLITE_OK;
}

static int journal_sync(sqlite3_file *file, int flags)
{
    (void)file;
    (void)flags;
    return SQLITE_OK;
}

static int journal_file_size(sqlite3_file *file, sqlite3_int64 *ret_bytes)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    db->rolling_back = true;
    *ret_bytes = (sqlite3_int64)db->journal.size;
    return SQLITE_OK;
}

static int journal_lock(sqlite3_file *file, int level)
{
    (void)file;
    (void)level;
    return SQLITE_OK;
}

static int journal_check_reserved_lock(sqlite3_file *file, int *ret_reserved)
{
    (void)file;
    *ret_reserved = 0;
    return SQLITE_OK;
}

static int journal_file_control(sqlite3_file *file, int op, void *arg)
{
    (void)file;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int journal_sector_size(sqlite3_file *file)
{
    (void)file;
    return 4096;
}

static int journal_device_characteristics(sqlite3_file *file)
{
    (void)file;
    return SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL | SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

const sqlite3_io_methods rq_shim_journal_methods = {
    .iVersion = 1,
    .xClose = journal_close,
    .xRead = journal_read,
    .xWrite = journal_write,
    .xTruncate = journal_truncate,
    .xSync = journal_sync,
    .xFileSize = journal_file_size,
    .xLock = journal_lock,
    .xUnlock = journal_lock,
    .xCheckReservedLock = journal_check_reserved_lock,
    .xFileControl = journal_file_control,
    .xSectorSize = journal_sector_size,
    .xDeviceCharacteristics = journal_device_characteristics,
};
