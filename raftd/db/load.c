#include "raftd/db/load.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/db/identity.h"
#include "raftd/run/clock.h"
#include "raftd/wire/bytes.h"
#include "vfs/hold.h"
#include "vfs/wal.h"

#define HEADER_BYTES  100u
#define BATCH_BYTES   (1u << 20)
#define TURN_WAIT_US  50000u
#define AGAIN_MS      5
#define VERSIONS_AT   18
#define CHANGES_AT    24
#define PAGE_COUNT_AT 28
#define COOKIE_AT     40
#define CHANGED_BY_AT 92 /* the change counter to which the page count belongs */

bool rq_load_is_database(const uint8_t *data, size_t bytes)
{
    return bytes >= 13 && memcmp(data, "SQLite format", 13) == 0;
}

static enum rq_err say(enum rq_err err, char text[RQ_LOAD_TEXT_MAX], const char *what)
{
    (void)snprintf(text, RQ_LOAD_TEXT_MAX, "%s", what);
    return err;
}

/* --- the file ------------------------------------------------------------------------------------------------------------- */

struct content {
    uint32_t page_size, page_count;
};

static enum rq_err inspect(const struct rq_load *l, struct rq_file *f, struct content *ret, char text[RQ_LOAD_TEXT_MAX])
{
    uint8_t h[HEADER_BYTES];
    struct rq_file_info info;
    size_t got;
    enum rq_err err = l->disk->ops->info(f, &info);
    if (err == RQ_OK) {
        err = l->disk->ops->read(f, h, sizeof h, 0, &got);
    }
    if (err != RQ_OK) {
        return say(err, text, "the file cannot be read");
    }
    if (got < sizeof h || memcmp(h, "SQLite format 3", 16) != 0) {
        return say(RQ_CORRUPT, text, "invalid SQLite data");
    }
    const uint32_t size = rq_get_u16(h + 16);
    ret->page_size = size == 1 ? 65536 : size;
    if (ret->page_size < 512 || (ret->page_size & (ret->page_size - 1)) != 0) {
        return say(RQ_CORRUPT, text, "invalid SQLite data: no page size");
    }
    const uint64_t there = info.size / ret->page_size;
    const uint32_t said = rq_get_u32(h + PAGE_COUNT_AT);
    const bool valid =
        said > 0 && rq_get_u32(h + CHANGES_AT) == rq_get_u32(h + CHANGED_BY_AT); /* as SQLite judges it */
    if (there == 0 || there >= UINT32_MAX || (valid && said > there)) {
        return say(RQ_CORRUPT, text, "invalid SQLite data: it is cut short");
    }
    ret->page_count = valid ? said : (uint32_t)there;
    return RQ_OK;
}

/* Its own connections would want a WAL. */
static enum rq_err leave_wal_mode(const struct rq_load *l, struct rq_file *f)
{
    static const uint8_t versions[2] = { 1, 1 };
    return l->disk->ops->write(f, versions, sizeof versions, VERSIONS_AT);
}

/* SQLite itself can read the schema.  page_size not 0: it is written anew with that page size. */
static enum rq_err pass_through_sqlite(const struct rq_load *l, uint32_t page_size, char text[RQ_LOAD_TEXT_MAX])
{
    sqlite3 *db = NULL;
    char pragma[128] = "";
    int code = sqlite3_open_v2(l->file, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, "unix");
    if (page_size != 0) {
        (void)snprintf(pragma, sizeof pragma,
                       "PRAGMA journal_mode=OFF;PRAGMA synchronous=OFF;PRAGMA page_size=%u;VACUUM", page_size);
    }
    code = code == SQLITE_OK ? sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL) : code;
    code = code == SQLITE_OK ? sqlite3_exec(db, pragma, NULL, NULL, NULL) : code;
    (void)snprintf(text, RQ_LOAD_TEXT_MAX, "%s%.200s", code == SQLITE_FULL ? "" : "invalid SQLite data: ",
                   db != NULL ? sqlite3_errmsg(db) : "out of memory");
    sqlite3_close(db);
    return code == SQLITE_OK ? RQ_OK : code == SQLITE_NOMEM ? RQ_NOMEM : code == SQLITE_FULL ? RQ_FULL : RQ_CORRUPT;
}

/* --- the turn ------------------------------------------------------------------------------------------------------------- */

/* A connection that holds it, in a transaction that will be rolled back. */
struct turn {
    sqlite3 *db;
    struct rq_hold *hold;
    sqlite3_file *file;
    uint64_t base;
    uint32_t cookie, page_size; /* of a database with content */
};

static bool number(sqlite3 *db, const char *sql, uint32_t *ret)
{
    sqlite3_stmt *stmt = NULL;
    const bool good = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW;
    if (good) {
        *ret = (uint32_t)sqlite3_column_int64(stmt, 0);
    }
    return sqlite3_finalize(stmt) == SQLITE_OK && good;
}

static enum rq_err turn_take(const struct rq_load *l, uint64_t end_ms, struct turn *t, char text[RQ_LOAD_TEXT_MAX])
{
    *t = (struct turn){ 0 };
    int code = sqlite3_open_v2(l->path, &t->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, "rqvfs");
    if (code == SQLITE_OK) {
        code = sqlite3_file_control(t->db, "main", RQ_FCNTL_HOLD, &t->hold);
    }
    if (code == SQLITE_OK) {
        do {
            code = rq_hold_take(t->hold, TURN_WAIT_US);
            rq_database_turn_look(l->db); /* who waits, or gives it back, says so: the turn may be another host's */
        } while ((code & 0xff) == SQLITE_BUSY && rq_clock_ms() < end_ms);
    }
    if (code == SQLITE_OK) { /* in a transaction: reads are signs of life then */
        code = sqlite3_exec(t->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    }
    if (code == SQLITE_OK) {
        code = sqlite3_file_control(t->db, "main", SQLITE_FCNTL_FILE_POINTER, &t->file);
    }
    if (code == SQLITE_OK &&
        (!number(t->db, "PRAGMA schema_version", &t->cookie) || !number(t->db, "PRAGMA page_size", &t->page_size))) {
        code = sqlite3_errcode(t->db);
    }
    if (code == SQLITE_OK) {
        t->base = rq_hold_version(t->hold);
        return RQ_OK;
    }
    (void)snprintf(text, RQ_LOAD_TEXT_MAX, "%.200s", sqlite3_errstr(code));
    return (code & 0xff) == SQLITE_BUSY ? RQ_BUSY : code == SQLITE_NOMEM ? RQ_NOMEM : RQ_IO;
}

/* Whoever holds the turn and does nothing for two seconds loses it to those who wait; a read is something. */
static void turn_use(const struct turn *t)
{
    uint8_t some[HEADER_BYTES];
    (void)t->file->pMethods->xRead(t->file, some, (int)sizeof some, 0);
}

static void turn_give_back(const struct rq_load *l, struct turn *t)
{
    if (t->db != NULL && sqlite3_get_autocommit(t->db) == 0) {
        (void)sqlite3_exec(t->db, "ROLLBACK", NULL, NULL, NULL); /* nothing was written */
    }
    if (t->hold != NULL) {
        rq_hold_end(t->hold);
        rq_database_turn_look(l->db);
    }
    sqlite3_close(t->db);
}

/* --- the transaction ------------------------------------------------------------------------------------------------------ */

static void change_first_page(uint8_t *page, const struct turn *t, const struct content *c)
{
    rq_put_u32(page + CHANGES_AT, (uint32_t)(t->base + 1));
    rq_put_u32(page + CHANGED_BY_AT, (uint32_t)(t->base + 1));
    rq_put_u32(page + PAGE_COUNT_AT, c->page_count);
    if (t->base > 0) { /* else nobody has a schema of it */
        rq_put_u32(page + COOKIE_AT, t->cookie + 1);
    }
    rq_page1_normalise(page);
}

/* The pages of the file as records of a body, a batch at a time. */
static enum rq_err add_pages(const struct rq_load *l, struct rq_file *f, const struct turn *t, const struct content *c,
                             struct rq_staged *body, uint8_t *batch)
{
    const uint32_t lock_page = (uint32_t)(RQ_DB_PENDING / c->page_size) + 1; /* never used, always zeros */
    const size_t record_bytes = 4 + (size_t)c->page_size;
    const size_t per_batch = BATCH_BYTES / record_bytes > 0 ? BATCH_BYTES / record_bytes : 1;
    enum rq_err err = RQ_OK;
    for (uint32_t pgno = 1; pgno <= c->page_count && err == RQ_OK;) {
        size_t used = 0;
        for (; used < per_batch * record_bytes && pgno <= c->page_count && err == RQ_OK; pgno++) {
            uint8_t *record = batch + used;
            size_t got = 0;
            if (pgno == lock_page) {
                continue;
            }
            err = l->disk->ops->read(f, record + 4, c->page_size, (uint64_t)(pgno - 1) * c->page_size, &got);
            err = err == RQ_OK && got != c->page_size ? RQ_CORRUPT : err;
            if (err == RQ_OK && pgno == 1) {
                change_first_page(record + 4, t, c);
            }
            rq_put_u32(record, pgno);
            used += record_bytes;
        }
        err = err == RQ_OK && used > 0 ? rq_staged_add(body, batch, used) : err;
        turn_use(t);
    }
    return err;
}

static enum rq_err make_body(const struct rq_load *l, struct rq_file *f, const struct turn *t, const struct content *c,
                             struct rq_staged **ret_body)
{
    const struct rq_body_head head = { .page_size = c->page_size, .db_page_count = c->page_count };
    struct rq_staged *body = NULL;
    uint8_t *batch = malloc(BATCH_BYTES + 4 + RQ_PAGE_SIZE_MAX);
    enum rq_err err = batch == NULL ? RQ_NOMEM : rq_staged_new(l->disk, l->staged_dir, &head, &body);
    if (err == RQ_OK) {
        err = add_pages(l, f, t, c, body, batch);
    }
    free(batch);
    if (err != RQ_OK) {
        rq_staged_free(body);
        return err;
    }
    *ret_body = body;
    return RQ_OK;
}

struct waiting {
    pthread_mutex_t lock;
    pthread_cond_t came;
    bool done;
    enum rq_err err;
    char text[RQ_LOAD_TEXT_MAX];
};

static void answered(struct rq_commit *c, const struct rq_msg_outcome *outcome)
{
    struct waiting *w = c->ctx;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    w->err = outcome->err;
    (void)snprintf(w->text, sizeof w->text, "%.*s", (int)outcome->text.bytes, outcome->text.data);
    pthread_cond_signal(&w->came);
    pthread_mutex_unlock(&w->lock);
    rq_commit_free(c);
}

/* Takes body. */
static enum rq_err commit(const struct rq_load *l, const struct turn *t, const struct content *c,
                          struct rq_staged *body, char text[RQ_LOAD_TEXT_MAX])
{
    struct waiting w = { .done = false };
    struct rq_commit *commit;
    enum rq_err err = rq_commit_new(&commit);
    if (err != RQ_OK) {
        rq_staged_free(body);
        return say(err, text, rq_err_text(err));
    }
    commit->db = rq_database_ref(l->db);
    commit->origin = (struct rq_origin){ .session = rq_random_id(), .seq = 1 };
    commit->base = t->base;
    commit->page_size = c->page_size;
    commit->db_page_count = c->page_count;
    commit->body = body;
    commit->answer = answered;
    commit->ctx = &w;
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.came, NULL);
    rq_database_commit(commit);
    pthread_mutex_lock(&w.lock);
    while (!w.done) { /* the state machine says what became of it, however long that takes */
        pthread_cond_wait(&w.came, &w.lock);
    }
    pthread_mutex_unlock(&w.lock);
    pthread_mutex_destroy(&w.lock);
    pthread_cond_destroy(&w.came);
    return say(w.err, text, w.text[0] != '\0' ? w.text : rq_err_text(w.err));
}

/* One attempt.  PAGESIZE: *ret_page_size is wanted.  REFUSED: somebody else has written meanwhile. */
static enum rq_err load(const struct rq_load *l, struct rq_file *f, uint64_t end_ms, uint32_t *ret_page_size,
                        char text[RQ_LOAD_TEXT_MAX])
{
    struct content c;
    struct turn t;
    struct rq_staged *body = NULL;
    enum rq_err err = inspect(l, f, &c, text);
    if (err != RQ_OK) {
        return err;
    }
    err = turn_take(l, end_ms, &t, text);
    if (err == RQ_OK && t.base > 0 && t.page_size != c.page_size) {
        *ret_page_size = t.page_size;
        err = RQ_PAGESIZE;
    }
    if (err == RQ_OK) {
        err = make_body(l, f, &t, &c, &body);
        err = err != RQ_OK ? say(err, text, rq_err_text(err)) : commit(l, &t, &c, body, text);
    }
    turn_give_back(l, &t);
    return err;
}

enum rq_err rq_load_run(const struct rq_load *l, char text[RQ_LOAD_TEXT_MAX])
{
    const uint64_t end_ms = rq_clock_ms() + l->timeout_ms;
    struct content c;
    struct rq_file *f;
    enum rq_err err = l->disk->ops->open(l->disk, l->file, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &f);
    if (err != RQ_OK) {
        return say(err, text, "the file cannot be opened");
    }
    err = inspect(l, f, &c, text);
    if (err == RQ_OK) {
        err = leave_wal_mode(l, f);
    }
    if (err == RQ_OK) {
        err = pass_through_sqlite(l, 0, text);
    }
    while (err == RQ_OK) {
        uint32_t page_size = 0;
        err = load(l, f, end_ms, &page_size, text);
        if (err == RQ_PAGESIZE && page_size != 0) { /* of content one page size cannot be changed into another */
            err = pass_through_sqlite(l, page_size, text);
        } else if ((err == RQ_REFUSED || err == RQ_BUSY) && rq_clock_ms() < end_ms) {
            nanosleep(&(struct timespec){ .tv_nsec = (long)AGAIN_MS * 1000000 }, NULL);
            err = RQ_OK; /* again, on what there is now */
        } else {
            break;
        }
    }
    l->disk->ops->close(f);
    return err;
}
