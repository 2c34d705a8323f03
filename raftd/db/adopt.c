#include "raftd/db/adopt.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/catalog.h"
#include "vfs/control.h"
#include "vfs/replica.h"

#define HEADER_BYTES       100u
#define STAMP_OFFSET       72u
#define PROBLEMS_BYTES_MAX 65536u
#define CKSUMVFS_RESERVED  8 /* bytes at the end of each page that hold a checksum over the page, stamp and all */
#define BUSY_MS            2000

struct survey {
    struct rq_disk *disk;
    const char *dir;
    bool replicas;
    struct rq_adoption *adoption;
    struct rq_bytes names; /* each with its NUL: the directory is not changed while it is listed */
};

static void problem(struct survey *s, const char *name, const char *why)
{
    char line[512];
    int n = snprintf(line, sizeof line, "%.200s: %.250s\n", name, why);
    (void)rq_bytes_put(&s->adoption->problems, line, (size_t)n); /* past its maximum there are problems enough */
}

static enum rq_err note_name(void *ctx, const char *name)
{
    struct survey *s = ctx;
    return rq_db_name_valid(name, strlen(name)) ? rq_bytes_put(&s->names, name, strlen(name) + 1) : RQ_OK;
}

/* NOTFOUND: no SQLite file, left alone. */
static enum rq_err read_header(struct survey *s, const char *path, uint8_t header[HEADER_BYTES])
{
    struct rq_file_info info;
    struct rq_file *f;
    size_t n = 0;
    enum rq_err err = s->disk->ops->stat(s->disk, path, &info);
    if (err != RQ_OK || !info.regular || info.size < HEADER_BYTES) {
        return err != RQ_OK ? err : RQ_NOTFOUND;
    }
    err = s->disk->ops->open(s->disk, path, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &f);
    if (err != RQ_OK) {
        return err;
    }
    err = s->disk->ops->read(f, header, HEADER_BYTES, 0, &n);
    s->disk->ops->close(f);
    if (err == RQ_OK && (n < HEADER_BYTES || memcmp(header, "SQLite format 3", 16) != 0)) {
        err = RQ_NOTFOUND;
    }
    return err;
}

/* By SQLite: it alone knows how to recover what it left.  Returns why not, NULL when done. */
static const char *rest_native(const char *path, char text[256])
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    const char *why = NULL;
    int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, "unix");
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(db, BUSY_MS);
        /* Writing user_version makes an old file say its size in the header, and proves that we may write. */
        rc = sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &stmt, NULL);
    }
    int user_version = 0;
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
    }
    if (rc == SQLITE_ROW) {
        user_version = sqlite3_column_int(stmt, 0);
        rc = SQLITE_OK;
    }
    sqlite3_finalize(stmt);
    stmt = NULL;
    if (rc == SQLITE_OK) {
        char sql[64];
        (void)snprintf(sql, sizeof sql, "PRAGMA synchronous=FULL; PRAGMA user_version=%d", user_version);
        rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_prepare_v2(db, "PRAGMA journal_mode=DELETE", -1, &stmt, NULL);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
    }
    if (rc == SQLITE_ROW) {
        rc = SQLITE_OK;
        if (strcmp((const char *)sqlite3_column_text(stmt, 0), "delete") != 0) {
            rc = SQLITE_BUSY;
        }
    }
    sqlite3_finalize(stmt);
    if (rc == SQLITE_BUSY) {
        why = "in use by another process";
    } else if (rc != SQLITE_OK) {
        (void)snprintf(text, 256, "SQLite cannot open it: %.200s",
                       db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
        why = text;
    }
    sqlite3_close(db);
    return why;
}

/* The stamp names an entry of a log that is gone, and may look like one of the new log: it gets an id that no database has.  Its
 * high half of the version stays. */
static enum rq_err forget_stamp(struct survey *s, const char *path)
{
    uint8_t stamp[16];
    struct rq_file *f;
    enum rq_err err = s->disk->ops->open(s->disk, path, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &f);
    if (err != RQ_OK) {
        return err;
    }
    rq_put_u32(stamp, UINT32_MAX); /* database id */
    rq_put_u32(stamp + 4, 0);      /* term */
    rq_put_u64(stamp + 8, 0);      /* index */
    err = s->disk->ops->write(f, stamp, sizeof stamp, STAMP_OFFSET);
    if (err == RQ_OK) {
        err = s->disk->ops->sync(f);
    }
    s->disk->ops->close(f);
    return err;
}

/* A replica of ours: its WAL goes into the file, and away. */
static const char *rest_replica(struct survey *s, const char *path, struct rq_replica_state *ret_state)
{
    struct rq_control control = { 0 };
    struct rq_replica *r = NULL;
    char *control_path = NULL;
    if (asprintf(&control_path, "%s-rqctl", path) < 0) {
        return "out of memory";
    }
    enum rq_err err = rq_control_publish(s->disk, control_path, rq_boot_id(), 0600, &control);
    free(control_path);
    if (err == RQ_OK) {
        const struct rq_replica_config config = { s->disk, path, &control, 1000, 4000 };
        err = rq_replica_open(&config, &r, ret_state);
        if (err == RQ_OK) {
            err = rq_replica_backfill(r);
        }
        if (err == RQ_OK) {
            err = rq_replica_reset(r);
        }
        rq_replica_close(r);
        rq_control_close(&control);
    }
    if (err == RQ_OK) {
        err = forget_stamp(s, path);
    }
    return err == RQ_OK ? NULL : rq_err_text(err);
}

static void take(struct survey *s, const char *name, const char *path)
{
    uint8_t header[HEADER_BYTES];
    struct rq_replica_state state = { 0 };
    char text[256];
    enum rq_err err = read_header(s, path, header);
    if (err == RQ_NOTFOUND) {
        return;
    }
    if (err != RQ_OK) {
        problem(s, name, rq_err_text(err));
        return;
    }
    bool replica = header[18] == RQ_WRITE_VERSION;
    const char *why = NULL;
    if (header[20] == CKSUMVFS_RESERVED) {
        why =
            "has SQLite's checksum extension (8 reserved bytes per page), which replicas cannot keep; "
            "remove it with: PRAGMA checksum_verification, VACUUM INTO a copy without it";
    } else if (replica && !s->replicas) {
        why = "is a replica of another cluster";
    } else {
        why = replica ? rest_replica(s, path, &state) : rest_native(path, text);
    }
    if (why == NULL && read_header(s, path, header) != RQ_OK) {
        why = "cannot be read again";
    }
    if (why != NULL) {
        problem(s, name, why);
        return;
    }
    struct rq_adoptee *more = realloc(s->adoption->list, (s->adoption->count + 1) * sizeof *more);
    if (more == NULL) {
        problem(s, name, "out of memory");
        return;
    }
    s->adoption->list = more;
    struct rq_adoptee *a = &more[s->adoption->count++];
    uint32_t counter = rq_get_u32(header + 24), page_size = (uint32_t)header[16] << 8 | header[17];
    *a = (struct rq_adoptee){
        .page_size = page_size == 1 ? 65536 : page_size,
        .page_count = rq_get_u32(header + 28),
        .version = replica ? state.version : counter,
    };
    if (a->version == 0) {
        a->version = 1ull << 32; /* version 0 means "no commit yet"; the low half stays the counter */
    }
    (void)snprintf(a->name, sizeof a->name, "%s", name);
}

enum rq_err rq_adopt_survey(struct rq_disk *disk, const char *dir, bool replicas, struct rq_adoption *ret_adoption)
{
    struct survey s = { disk, dir, replicas, ret_adoption, { 0 } };
    *ret_adoption = (struct rq_adoption){ 0 };
    rq_bytes_init(&ret_adoption->problems, PROBLEMS_BYTES_MAX);
    rq_bytes_init(&s.names, 64u << 20);
    enum rq_err err = disk->ops->list(disk, dir, note_name, &s);
    for (size_t at = 0; err == RQ_OK && at < s.names.size;) {
        const char *name = (const char *)s.names.data + at;
        char *path;
        at += strlen(name) + 1;
        if (asprintf(&path, "%s/%s", dir, name) < 0) {
            err = RQ_NOMEM;
            break;
        }
        take(&s, name, path);
        free(path);
    }
    rq_bytes_fini(&s.names);
    return err != RQ_OK ? err : ret_adoption->problems.size > 0 ? RQ_FOREIGN : RQ_OK;
}

void rq_adoption_fini(struct rq_adoption *a)
{
    rq_bytes_fini(&a->problems);
    free(a->list);
    *a = (struct rq_adoption){ 0 };
}
