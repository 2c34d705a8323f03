/* The shim and what fails under it: a fixed life of a connection, again and again, in which the first, the second, ... call of
 * a kind fails.  A step of it succeeds or returns a code that says what was missing; then nothing of it has happened, the same
 * step succeeds when it is tried again, and each that writes is committed once.
 *
 * What fails: malloc in the shim (the linker puts ours in the place of it, in all that is linked statically), SQLite's own
 * allocations, and the calls of the shim to its disk.  The sink, here a raftd in the process, never fails. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/failing_memory.h"
#include "tests/support/fault_disk.h"
#include "tests/support/local_sink.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"
#include "vfs/shim.h"

#define NAME       "life.db"
#define MEMORY_MAX 10000 /* a few pages, and the last of them partly: the rest is in a file */

static char folder[64], served[128];
static struct fault_disk disk;

/* --- what fails --------------------------------------------------------------------------------------------------------- */

/* Of one thread, as all of this program. */
struct allocations {
    uint64_t countdown; /* until the one that fails; 0: passed, or not armed */
    bool stays, hit;
    unsigned paused; /* the sink allocates */
};
static struct allocations shim_memory, sqlite_memory;
static sqlite3_mem_methods sqlite_default;

static bool fails(struct allocations *a)
{
    if (a->paused > 0) {
        return false;
    }
    if (a->countdown > 0) {
        a->countdown--;
        a->hit = a->countdown == 0;
        return a->hit;
    }
    return a->hit && a->stays;
}

bool allocation_fails(void)
{
    return fails(&shim_memory);
}

static void *sqlite_malloc(int bytes)
{
    return fails(&sqlite_memory) ? NULL : sqlite_default.xMalloc(bytes);
}

static void *sqlite_realloc(void *memory, int bytes)
{
    return fails(&sqlite_memory) ? NULL : sqlite_default.xRealloc(memory, bytes);
}

/* One kind of failure.  allocations NULL: calls to the disk, of kinds. */
struct fault {
    struct allocations *allocations;
    unsigned kinds;
    enum rq_err err;
    size_t partial_bytes;
    bool stays; /* all that come later fail, too, until a step has failed */
    int code;   /* that a step which fails has to return, without its extension; 0: any of clean_code */
};

static void arm(const struct fault *f, uint64_t nth)
{
    if (f->allocations != NULL) {
        *f->allocations = (struct allocations){ .countdown = nth, .stays = f->stays };
    } else {
        fault_disk_arm(&disk, f->kinds, nth, f->err);
        disk.partial_bytes = f->partial_bytes;
        disk.stays = f->stays;
    }
}

static bool was_hit(const struct fault *f)
{
    return f->allocations != NULL ? f->allocations->hit : disk.hit;
}

/* What was hit stays so. */
static void disarm(void)
{
    shim_memory.countdown = sqlite_memory.countdown = 0;
    shim_memory.stays = sqlite_memory.stays = false;
    disk.kinds = 0;
}

/* --- the sink, whose allocations do not fail ---------------------------------------------------------------------------- */

struct calm_sink {
    struct rq_sink sink; /* first */
    struct rq_sink *below;
};

static struct rq_sink *below(struct rq_sink *s)
{
    return ((struct calm_sink *)s)->below;
}

static enum rq_err calm_open(struct rq_sink *s, const char *name, bool create)
{
    shim_memory.paused++;
    enum rq_err err = below(s)->ops->open(below(s), name, create);
    shim_memory.paused--;
    return err;
}

static enum rq_err calm_ready(struct rq_sink *s, uint64_t *ret_session)
{
    return below(s)->ops->ready(below(s), ret_session);
}

static enum rq_err calm_commit(struct rq_sink *s, const struct rq_sink_commit *commit, uint64_t *ret_version)
{
    shim_memory.paused++;
    enum rq_err err = below(s)->ops->commit(below(s), commit, ret_version);
    shim_memory.paused--;
    return err;
}

static const char *calm_text(struct rq_sink *s)
{
    return below(s)->ops->text(below(s));
}

static void calm_close(struct rq_sink *s)
{
    below(s)->ops->close(below(s));
    free(s);
}

static void calm_orphan(struct rq_sink *s)
{
    below(s)->ops->orphan(below(s));
}

static struct rq_sink *calm_sink_new(void *ctx, const char *path, const char *raftd_socket, unsigned timeout_ms)
{
    static const struct rq_sink_ops ops = {
        .open = calm_open,
        .ready = calm_ready,
        .commit = calm_commit,
        .text = calm_text,
        .close = calm_close,
        .orphan = calm_orphan,
    };
    struct calm_sink *s = malloc(sizeof *s); /* fails, as that of another sink may */
    if (s == NULL) {
        return NULL;
    }
    shim_memory.paused++;
    *s = (struct calm_sink){ .sink.ops = &ops, .below = local_sink_new(ctx, path, raftd_socket, timeout_ms) };
    shim_memory.paused--;
    return &s->sink;
}

/* --- the life ----------------------------------------------------------------------------------------------------------- */

/* Steps may be tried again: a second time they change nothing. */
static const struct step {
    const char *sql; /* NULL: backup of all of it; "": close and open */
    unsigned commits;
} steps[] = {
    { "CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, x)", 1 },
    { "INSERT OR REPLACE INTO t VALUES(1,'1')", 1 },
    { "SELECT * FROM t", 0 },
    /* Does not fit in SQLite's cache, nor in our memory. */
    { "BEGIN; WITH c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<80) "
      "INSERT OR REPLACE INTO t SELECT i, printf('%d.%.*c', i, 700, 'x') FROM c; COMMIT",
      1 },
    { "BEGIN; UPDATE t SET x = k || '.' || hex(zeroblob(300)); SAVEPOINT a; UPDATE t SET x = 'lost' || "
      "hex(zeroblob(400)); "
      "ROLLBACK TO a; DELETE FROM t WHERE k > 70; COMMIT",
      1 },
    { "BEGIN; UPDATE t SET x = 'lost' || hex(zeroblob(400)); ROLLBACK", 0 },
    { "UPDATE t SET x = k || '.' || hex(zeroblob(200)) WHERE k % 3 = 0", 1 },
    { "", 0 },
    { "DELETE FROM t WHERE k % 2 = 0", 1 },
    { NULL, 0 },
    { "VACUUM", 1 },
    { "INSERT OR REPLACE INTO t VALUES(1000,'1000')", 1 },
};
#define STEP_COUNT (sizeof steps / sizeof *steps)

/* The content after each step, told by a life in which nothing fails; the last: before all. */
static long long content_after[STEP_COUNT + 1];

static int exec(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static int open_life(sqlite3 **ret_db)
{
    char uri[200];
    (void)snprintf(uri, sizeof uri, "file:%s/" NAME "?vfs=rqvfs", served);
    int code = sqlite3_open_v2(uri, ret_db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    if (code == SQLITE_OK) {
        code = exec(*ret_db, "PRAGMA page_size=1024; PRAGMA cache_size=5; PRAGMA temp_store=memory");
    }
    if (code != SQLITE_OK) {
        sqlite3_close(*ret_db);
        *ret_db = NULL;
    }
    return code;
}

static int backup(sqlite3 *from)
{
    sqlite3 *to;
    int code = sqlite3_open_v2(":memory:", &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix");
    if (code == SQLITE_OK) {
        sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
        code = sqlite3_errcode(to);
        if (b != NULL) {
            (void)sqlite3_backup_step(b, -1); /* finish says how it went */
            code = sqlite3_backup_finish(b);
        }
    }
    sqlite3_close(to);
    return code;
}

static int try_step(sqlite3 **db, const struct step *step)
{
    if (*db == NULL) {
        int code = open_life(db);
        if (code != SQLITE_OK) {
            return code;
        }
    }
    if (step->sql == NULL) {
        return backup(*db);
    }
    if (*step->sql == '\0') {
        check_eq(sqlite3_close(*db), SQLITE_OK);
        *db = NULL;
        return open_life(db);
    }
    int code = exec(*db, step->sql);
    if (!sqlite3_get_autocommit(*db)) {
        (void)exec(*db, "ROLLBACK"); /* may have failed too, and is made nevertheless */
        if (!sqlite3_get_autocommit(*db) && sqlite_memory.stays) {
            disarm(); /* without any memory SQLite cannot compile it */
            (void)exec(*db, "ROLLBACK");
        }
        check_eq(sqlite3_get_autocommit(*db), 1);
    }
    return code;
}

static long long number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st;
    long long value = -1;
    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
        value = sqlite3_column_int64(st, 0);
    }
    int code = sqlite3_finalize(st);
    if (code != SQLITE_OK) {
        printf("# %s: %d %s\n", sql, code, sqlite3_errmsg(db));
        return -2;
    }
    return value;
}

static long long content(sqlite3 *db)
{
    if (number(db, "SELECT count(*) FROM sqlite_schema") == 0) {
        return 0;
    }
    return number(db, "SELECT total(k * 1000003 + CAST(x AS INTEGER) * 1009 + length(x)) + count(*) + 1 FROM t");
}

static bool sound(sqlite3 *db)
{
    return number(db, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'") == 1;
}

static bool clean_code(const struct fault *f, int code)
{
    if (f->code != 0) {
        return (code & 0xff) == f->code;
    }
    switch (code & 0xff) {
        case SQLITE_NOMEM:
        case SQLITE_IOERR:
        case SQLITE_FULL:
        case SQLITE_CANTOPEN:
        case SQLITE_BUSY:
            return true;
        default:
            return false;
    }
}

/* One life; false: nothing failed in it.  NULL: nothing is to fail, it tells what is right. */
static bool live(const struct fault *f, uint64_t nth)
{
    disarm();
    const sqlite3_int64 memory_before = sqlite3_memory_used();
    sqlite3 *db = NULL;
    if (local_db(NAME) != NULL) {
        local_drop(NAME); /* of a life that ended in a failed check */
    }
    if (f != NULL) {
        arm(f, nth);
    }
    for (size_t i = 0; i < STEP_COUNT; i++) {
        const long long before = content_after[i > 0 ? i - 1 : STEP_COUNT];
        uint64_t commits = local_commit_count();
        int code = try_step(&db, &steps[i]);
        if (f != NULL && code != SQLITE_OK) {
            disarm();
            bool made = local_commit_count() != commits;
            /* Whose allocation fails after a commit is SQLite, in what it does after it, as with any file. */
            bool may_be_made = f->allocations == &sqlite_memory && steps[i].commits > 0;
            if (!was_hit(f) || !clean_code(f, code) || (made && !may_be_made)) {
                printf("# call %llu, step %zu: code %d, %s\n", (unsigned long long)nth, i, code,
                       made ? "committed" : "not committed");
                check(false);
            }
            if (db != NULL) {
                check_eq(content(db), made ? content_after[i] : before);
            }
            commits = local_commit_count();
            code = try_step(&db, &steps[i]);
            if (made) {
                commits = local_commit_count() - steps[i].commits; /* a second time, or with nothing to change */
            }
        }
        if (code != SQLITE_OK) {
            printf("# call %llu, step %zu: code %d: %s\n", (unsigned long long)nth, i, code, sqlite3_errmsg(db));
            check(false);
        }
        check_eq(local_commit_count() - commits, steps[i].commits);
        if (f == NULL) {
            content_after[i] = content(db);
        }
    }
    const bool hit = f != NULL && was_hit(f);
    disarm();
    check_eq(content(db), content_after[STEP_COUNT - 1]);

    sqlite3 *other, *stock;
    char path[200];
    check_eq(open_life(&other), SQLITE_OK);
    check_eq(content(other), content_after[STEP_COUNT - 1]);
    check(sound(other));
    (void)snprintf(path, sizeof path, "%s/" NAME, served);
    check_eq(sqlite3_open_v2(path, &stock, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
    check_eq(content(stock), content_after[STEP_COUNT - 1]);
    check(sound(stock));
    check_eq(sqlite3_close(stock), SQLITE_OK);
    check_eq(sqlite3_close(other), SQLITE_OK);
    check_eq(sqlite3_close(db), SQLITE_OK);
    check_eq(sqlite3_memory_used(), memory_before);
    local_drop(NAME);
    return hit;
}

static void all_lives(const struct fault *f, unsigned stride)
{
    uint64_t nth = 1;
    content_after[STEP_COUNT] = 0;
    (void)live(NULL, 0);
    while (live(f, nth)) {
        nth += stride;
    }
    check(nth > 1);
    printf("# the last to fail was call %llu\n", (unsigned long long)(nth - stride));
}

/* --- memory ------------------------------------------------------------------------------------------------------------- */

static void no_allocation_of_the_shim_that_fails_does_harm(void)
{
    all_lives(&(struct fault){ .allocations = &shim_memory }, 1);
}

static void without_any_memory_a_step_fails_and_does_no_harm(void)
{
    all_lives(&(struct fault){ .allocations = &shim_memory, .stays = true }, 1);
}

static void no_allocation_of_sqlite_that_fails_does_harm(void)
{
    all_lives(&(struct fault){ .allocations = &sqlite_memory }, 7);
}

static void sqlite_without_any_memory_does_no_harm(void)
{
    all_lives(&(struct fault){ .allocations = &sqlite_memory, .stays = true }, 29);
}

/* --- the disk ----------------------------------------------------------------------------------------------------------- */

static void no_read_that_fails_does_harm(void)
{
    all_lives(&(struct fault){ .kinds = FAULT_BIT(FAULT_READ), .err = RQ_IO, .code = SQLITE_IOERR }, 3);
}

static void no_open_that_fails_does_harm(void)
{
    all_lives(&(struct fault){ .kinds = FAULT_BIT(FAULT_OPEN), .err = RQ_IO }, 1);
    all_lives(&(struct fault){ .kinds = FAULT_BIT(FAULT_OPEN), .err = RQ_NOMEM }, 1);
}

static void no_map_lock_or_look_that_fails_does_harm(void)
{
    all_lives(&(struct fault){ .kinds = FAULT_BIT(FAULT_MAP), .err = RQ_IO }, 1);
    all_lives(&(struct fault){ .kinds = FAULT_BIT(FAULT_LOCK), .err = RQ_IO }, 1);
    all_lives(&(struct fault){ .kinds = FAULT_BIT(FAULT_INFO), .err = RQ_IO }, 1);
    all_lives(&(struct fault){ .kinds = FAULT_BIT(FAULT_UNLINK), .err = RQ_IO }, 1);
}

/* A file in a served directory, of which it could not be seen that it is served, is not opened as a file. */
static void no_look_that_fails_turns_a_served_database_into_a_file(void)
{
    sqlite3 *db;
    uint64_t nth = 0;
    disarm();
    check_eq(open_life(&db), SQLITE_OK);
    do {
        fault_disk_arm(&disk, FAULT_BIT(FAULT_INFO), ++nth, RQ_IO);
        disk.stays = false;
        char sql[200];
        (void)snprintf(sql, sizeof sql, "ATTACH '%s/beside.db' AS beside", served);
        int code = exec(db, sql);
        disarm();
        if (code == SQLITE_OK) {
            uint64_t commits = local_commit_count();
            check_eq(exec(db, "CREATE TABLE beside.t(x)"), SQLITE_OK);
            check_eq(local_commit_count(), commits + 1);
            check_eq(exec(db, "DETACH beside"), SQLITE_OK);
        }
        if (local_db("beside.db") != NULL) {
            local_drop("beside.db");
        }
    } while (disk.hit);
    check(nth > 2);
    check_eq(sqlite3_close(db), SQLITE_OK);
    local_drop(NAME);
}

static void no_write_that_fails_does_harm(void)
{
    all_lives(
        &(struct fault){ .kinds = FAULT_BIT(FAULT_WRITE), .err = RQ_IO, .partial_bytes = 700, .code = SQLITE_IOERR },
        5);
}

static void a_full_disk_is_full_and_the_connection_goes_on(void)
{
    const unsigned kinds = FAULT_BIT(FAULT_WRITE);
    all_lives(&(struct fault){ .kinds = kinds, .err = RQ_FULL, .partial_bytes = 700, .code = SQLITE_FULL }, 5);
    all_lives(
        &(struct fault){ .kinds = kinds, .err = RQ_FULL, .partial_bytes = 700, .stays = true, .code = SQLITE_FULL },
        11);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(no_allocation_of_the_shim_that_fails_does_harm),
        TAP(without_any_memory_a_step_fails_and_does_no_harm),
        TAP(no_allocation_of_sqlite_that_fails_does_harm),
        TAP(sqlite_without_any_memory_does_no_harm),
        TAP(no_read_that_fails_does_harm),
        TAP(no_open_that_fails_does_harm),
        TAP(no_map_lock_or_look_that_fails_does_harm),
        TAP(no_look_that_fails_turns_a_served_database_into_a_file),
        TAP(no_write_that_fails_does_harm),
        TAP(a_full_disk_is_full_and_the_connection_goes_on),
    };
    (void)snprintf(folder, sizeof folder, "/tmp/rqshimfault-XXXXXX");
    if (mkdtemp(folder) == NULL || sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_default) != SQLITE_OK) {
        return 1;
    }
    sqlite3_mem_methods failing = sqlite_default;
    failing.xMalloc = sqlite_malloc;
    failing.xRealloc = sqlite_realloc;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &failing) != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0) != SQLITE_OK) { /* else few allocations are seen */
        return 1;
    }
    (void)snprintf(served, sizeof served, "%s/served", folder);
    local_start(served);
    fault_disk_init(&disk, rq_disk_real());
    const struct rq_shim_config config = { .disk = &disk.disk, .sink_new = calm_sink_new, .memory_max = MEMORY_MAX };
    if (rq_shim_register(&config) != SQLITE_OK) {
        return 1;
    }
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    local_stop();
    return !scratch_remove(folder) || failed;
}
