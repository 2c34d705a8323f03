#include "raftd/ops/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "raftd/db/identity.h"
#include "raftd/ops/dump.h"
#include "raftd/ops/gzip.h"

#define CHUNK_BYTES (256 << 10) /* a multiple of every page size */
#define CACHE_KIB   1024
#define BUSY_MS     5000

/* --- as a file ------------------------------------------------------------------------------------------------------------ */

/* The bytes that SQLite would read in this transaction: asked of the VFS itself, without its cache. */
static enum rq_err put_pages(sqlite3 *db, int64_t bytes, const struct rq_backup_sink *sink)
{
    sqlite3_file *file = NULL;
    enum rq_err err = RQ_OK;
    uint8_t *chunk = malloc(CHUNK_BYTES);
    if (chunk == NULL || sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK) {
        free(chunk);
        return RQ_NOMEM;
    }
    for (int64_t at = 0; at < bytes && err == RQ_OK;) {
        const int n = bytes - at < CHUNK_BYTES ? (int)(bytes - at) : CHUNK_BYTES;
        err = file->pMethods->xRead(file, chunk, n, at) == SQLITE_OK ? sink->put(sink->ctx, chunk, (size_t)n) : RQ_IO;
        at += n;
    }
    free(chunk);
    return err;
}

static bool number(sqlite3 *db, const char *sql, int64_t *ret)
{
    sqlite3_stmt *stmt = NULL;
    bool good = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW;
    if (good) {
        *ret = sqlite3_column_int64(stmt, 0);
    }
    return sqlite3_finalize(stmt) == SQLITE_OK && good;
}

static enum rq_err put_database(sqlite3 *db, const struct rq_backup_sink *sink)
{
    int64_t page_count, page_size;
    if (!number(db, "PRAGMA page_count", &page_count) || !number(db, "PRAGMA page_size", &page_size)) {
        return RQ_IO;
    }
    return put_pages(db, page_count * page_size, sink);
}

static enum rq_err put_file(int fd, const struct rq_backup_sink *sink)
{
    uint8_t *chunk = malloc(CHUNK_BYTES);
    enum rq_err err = chunk != NULL ? RQ_OK : RQ_NOMEM;
    ssize_t n = 1;
    while (err == RQ_OK && n > 0) {
        n = read(fd, chunk, CHUNK_BYTES);
        if (n < 0) {
            err = RQ_IO;
        } else if (n > 0) {
            err = sink->put(sink->ctx, chunk, (size_t)n);
        }
    }
    free(chunk);
    return err;
}

/* A file that has no name any more when the first byte of it is sent: a kill leaves nothing, or what the next start sweeps away. */
static enum rq_err put_vacuumed(sqlite3 *db, const char *scratch_dir, const struct rq_backup_sink *sink)
{
    char *path = sqlite3_mprintf("%s/tmp-backup-%016llx", scratch_dir, (unsigned long long)rq_random_id());
    char *sql = path != NULL ? sqlite3_mprintf("VACUUM INTO %Q", path) : NULL;
    enum rq_err err = RQ_NOMEM;
    if (sql != NULL) {
        err = sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? RQ_OK : RQ_IO;
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        (void)unlink(path); /* whatever of it is there */
        if (err == RQ_OK) {
            err = fd >= 0 ? put_file(fd, sink) : RQ_IO;
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    sqlite3_free(sql);
    sqlite3_free(path);
    return err;
}

/* --- one backup ----------------------------------------------------------------------------------------------------------- */

static enum rq_err put_in_transaction(const struct rq_backup *b, sqlite3 *db, const struct rq_backup_sink *sink)
{
    int64_t version;
    /* The second takes the snapshot, the first keeps it. */
    if (sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK || !number(db, "PRAGMA schema_version", &version)) {
        return RQ_IO;
    }
    return b->sql ? rq_dump(db, b->tables, sink) : put_database(db, sink);
}

static enum rq_err put_backup(const struct rq_backup *b, sqlite3 *db, const struct rq_backup_sink *sink)
{
    return b->vacuum ? put_vacuumed(db, b->scratch_dir, sink) : put_in_transaction(b, db, sink);
}

static enum rq_err put_compressed(const struct rq_backup *b, sqlite3 *db, const struct rq_backup_sink *sink)
{
    struct rq_gzip *gzip = NULL;
    enum rq_err err = rq_gzip_new(sink, &gzip);
    if (err == RQ_OK) {
        const struct rq_backup_sink inner = rq_gzip_sink(gzip);
        err = put_backup(b, db, &inner);
        err = err == RQ_OK ? rq_gzip_end(gzip) : err;
    }
    rq_gzip_free(gzip);
    return err;
}

enum rq_err rq_backup_run(const struct rq_backup *b, const struct rq_backup_sink *sink, char text[RQ_BACKUP_TEXT_MAX])
{
    sqlite3 *db = NULL;
    char pragma[64];
    enum rq_err err = RQ_IO;
    text[0] = '\0';
    int code = sqlite3_open_v2(b->path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, "rqvfs");
    if (code == SQLITE_OK) {
        (void)sqlite3_busy_timeout(db, BUSY_MS); /* cannot fail with an open connection */
        (void)snprintf(pragma, sizeof pragma, "PRAGMA cache_size=-%d", CACHE_KIB);
        code = sqlite3_exec(db, pragma, NULL, NULL, NULL);
    }
    if (code == SQLITE_OK) {
        err = b->compress ? put_compressed(b, db, sink) : put_backup(b, db, sink);
    }
    if (err == RQ_IO) {
        (void)snprintf(text, RQ_BACKUP_TEXT_MAX, "%.400s", db != NULL ? sqlite3_errmsg(db) : "out of memory");
    } else if (err != RQ_OK) {
        (void)snprintf(text, RQ_BACKUP_TEXT_MAX, "%s", rq_err_text(err));
    }
    sqlite3_close(db); /* nothing is open in it; a transaction ends with it */
    return err;
}
