/* Native twins of the C interface: what SQL cannot reach.  Each function below does the same on a native database in WAL mode and
 * on one through rqvfs and notes every answer; the notes must be equal, line by line.
 *
 *   twin_calls EXTENSION NATIVE-DIRECTORY SERVED-DIRECTORY          TAP on stdout */
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOTES_MAX 65536

struct side {
    const char *vfs, *dir;
    char path[1024], uri[1200];
    size_t bytes;
    char notes[NOTES_MAX];
};

static struct side *now; /* whose turn it is to answer */

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(now->notes + now->bytes, NOTES_MAX - now->bytes, format, arguments);
    va_end(arguments);
    if (n > 0 && now->bytes + (size_t)n + 1 < NOTES_MAX) {
        now->bytes += (size_t)n;
        now->notes[now->bytes++] = '\n';
        now->notes[now->bytes] = 0;
    }
}

static int note_row(void *ctx, int count, char **values, char **names)
{
    (void)ctx;
    for (int i = 0; i < count; i++) {
        note("  %s=%s", names[i], values[i] == NULL ? "NULL" : values[i]);
    }
    return 0;
}

static void sql(sqlite3 *db, const char *text)
{
    int code = sqlite3_exec(db, text, note_row, NULL, NULL);
    note("%s: %d %s, changes %d, autocommit %d", text, code, code != 0 ? sqlite3_errmsg(db) : "", sqlite3_changes(db),
         sqlite3_get_autocommit(db));
}

static sqlite3 *open_with(int flags)
{
    sqlite3 *db = NULL;
    int code = sqlite3_open_v2(now->uri, &db, flags | SQLITE_OPEN_URI, NULL);
    note("open with flags %x: %d", flags, code);
    sqlite3_extended_result_codes(db, 1);
    return db;
}

static sqlite3 *open_db(void)
{
    return open_with(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
}

static void finish(sqlite3 *db)
{
    note("close: %d", sqlite3_close(db));
}

/* --- the calls ---------------------------------------------------------------------------------------------------------- */

static int count_to(void *ctx, int tries)
{
    int *limit = ctx;
    note("busy %d", tries);
    return tries < *limit;
}

static sqlite3 *holder;
static int free_on_third(void *ctx, int tries)
{
    (void)ctx;
    note("busy %d", tries);
    if (tries == 2) {
        sql(holder, "COMMIT");
    }
    return 1;
}

static void busy_handlers(void)
{
    sqlite3 *db = open_db();
    holder = open_db();
    int limit = 3;
    sqlite3_busy_handler(db, count_to, &limit);
    sql(holder, "BEGIN IMMEDIATE; INSERT INTO t VALUES(10)");
    sql(db, "INSERT INTO t VALUES(11)");
    sql(db, "BEGIN IMMEDIATE");
    sql(db, "BEGIN EXCLUSIVE");
    sql(db, "SELECT count(*) FROM t");
    sql(db, "BEGIN; SELECT count(*) FROM t");
    sql(db, "INSERT INTO t VALUES(11)"); /* no handler: it could wait for ever */
    sql(db, "COMMIT");
    sqlite3_busy_handler(db, free_on_third, NULL);
    sql(db, "INSERT INTO t VALUES(12)");
    sql(db, "SELECT count(*) FROM t");
    sqlite3_busy_timeout(db, 1); /* takes the place of the handler */
    sql(holder, "BEGIN IMMEDIATE");
    sql(db, "INSERT INTO t VALUES(13)");
    sqlite3_busy_handler(db, NULL, NULL);
    sql(db, "INSERT INTO t VALUES(13)");
    sql(holder, "ROLLBACK");
    finish(holder);
    finish(db);
}

static int commit_answer;
static int on_commit(void *ctx)
{
    (void)ctx;
    note("commit hook");
    return commit_answer;
}
static void on_rollback(void *ctx)
{
    (void)ctx;
    note("rollback hook");
}
static void on_update(void *ctx, int what, const char *database, const char *table, sqlite3_int64 row)
{
    (void)ctx;
    note("update hook %d %s.%s %lld", what, database, table, row);
}

static void hooks(void)
{
    sqlite3 *db = open_db();
    sqlite3_commit_hook(db, on_commit, NULL);
    sqlite3_rollback_hook(db, on_rollback, NULL);
    sqlite3_update_hook(db, on_update, NULL);
    sql(db, "INSERT INTO t VALUES(20)");
    sql(db, "BEGIN; DELETE FROM t WHERE x = 20; ROLLBACK");
    commit_answer = 1;
    sql(db, "INSERT INTO t VALUES(21)");
    sql(db, "BEGIN; INSERT INTO t VALUES(22)");
    sql(db, "COMMIT");
    commit_answer = 0;
    sql(db, "SELECT count(*) FROM t");
    finish(db);
}

static void states(void)
{
    sqlite3 *db = open_db();
    static const char *const steps[] = { "BEGIN",  "SELECT 1 FROM t", "INSERT INTO t VALUES(30)",
                                         "COMMIT", "BEGIN IMMEDIATE", "ROLLBACK" };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        sql(db, steps[i]);
        note("state %d, readonly %d", sqlite3_txn_state(db, "main"), sqlite3_db_readonly(db, "main"));
    }
    const char *name = sqlite3_db_filename(db, "main");
    note("file %s", name == NULL ? "NULL" : strcmp(name, now->path) == 0 ? "its path" : name);
    note("journal %s, wal %s", strstr(sqlite3_filename_journal(name), "-journal"),
         strstr(sqlite3_filename_wal(name), "-wal"));
    note("checkpoint hook off %d", sqlite3_wal_autocheckpoint(db, 0));
    note("flush %d, release %d", sqlite3_db_cacheflush(db), sqlite3_db_release_memory(db));
    sql(db, "BEGIN; INSERT INTO t VALUES(31)");
    note("flush in a transaction %d", sqlite3_db_cacheflush(db));
    sql(db, "INSERT INTO t VALUES(32); ROLLBACK; SELECT count(*) FROM t");
    finish(db);
}

static void controls(void)
{
    sqlite3 *db = open_db();
    sql(db, "SELECT count(*) FROM t");
    static const struct {
        int op, value;
    } of_int[] = { { SQLITE_FCNTL_LOCKSTATE, 0 },
                   { SQLITE_FCNTL_PERSIST_WAL, -1 },
                   { SQLITE_FCNTL_PERSIST_WAL, 1 },
                   { SQLITE_FCNTL_PERSIST_WAL, -1 },
                   { SQLITE_FCNTL_PERSIST_WAL, 0 },
                   { SQLITE_FCNTL_POWERSAFE_OVERWRITE, -1 },
                   { SQLITE_FCNTL_HAS_MOVED, 7 },
                   { SQLITE_FCNTL_POWERSAFE_OVERWRITE, 0 },
                   { SQLITE_FCNTL_POWERSAFE_OVERWRITE, -1 },
                   { SQLITE_FCNTL_RESERVE_BYTES, -1 },
                   { SQLITE_FCNTL_EXTERNAL_READER, 7 },
                   { SQLITE_FCNTL_CHUNK_SIZE, 65536 },
                   { SQLITE_FCNTL_RESET_CACHE, 0 },
                   { SQLITE_FCNTL_CKPT_DONE, 0 },
                   { 12345, 0 } };
    for (size_t i = 0; i < sizeof of_int / sizeof *of_int; i++) {
        int value = of_int[i].value;
        int code = sqlite3_file_control(db, "main", of_int[i].op, &value);
        note("file control %d: %d, %d", of_int[i].op, code, of_int[i].op == SQLITE_FCNTL_LOCKSTATE ? 0 : value);
    }
    sqlite3_int64 size = 1 << 20;
    note("size hint %d", sqlite3_file_control(db, "main", SQLITE_FCNTL_SIZE_HINT, &size));
    size = -1;
    note("mmap size %d", sqlite3_file_control(db, "main", SQLITE_FCNTL_MMAP_SIZE, &size));
    note("%lld", size);
    sqlite3_file *file = NULL;
    note("file pointer %d", sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, (void *)&file));
    note("is there %d", file != NULL);
    char *name = NULL;
    note("temporary name %d", sqlite3_file_control(db, "main", SQLITE_FCNTL_TEMPFILENAME, (void *)&name));
    note("is a path %d", name != NULL && name[0] == '/' && access(name, F_OK) != 0);
    sqlite3_free(name);
    sqlite3_vfs *vfs = NULL;
    note("vfs pointer %d", sqlite3_file_control(db, "main", SQLITE_FCNTL_VFS_POINTER, (void *)&vfs));
    note("named %d", vfs != NULL && strcmp(vfs->zName, now->vfs) == 0);
    note("no such database %d", sqlite3_file_control(db, "absent", SQLITE_FCNTL_HAS_MOVED, &size));
    sql(db, "INSERT INTO t VALUES(40); SELECT count(*) FROM t");
    finish(db);
}

static void reserved_bytes_and_reset(void)
{
    sqlite3 *db = open_db(), *other = open_db();
    int bytes = 32;
    note("reserve %d", sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &bytes));
    sql(db, "VACUUM; SELECT count(*) FROM t; PRAGMA integrity_check");
    sql(other, "INSERT INTO t VALUES(50); PRAGMA integrity_check");
    bytes = -1;
    (void)sqlite3_file_control(other, "main", SQLITE_FCNTL_RESERVE_BYTES, &bytes);
    note("reserved %d", bytes);
    /* SQLite's own way to empty a database, whatever is in it. */
    note("reset %d", sqlite3_db_config(db, SQLITE_DBCONFIG_RESET_DATABASE, 1, 0));
    sql(db, "VACUUM");
    note("reset %d", sqlite3_db_config(db, SQLITE_DBCONFIG_RESET_DATABASE, 0, 0));
    sql(db, "SELECT count(*) FROM sqlite_master; PRAGMA page_count");
    sql(other, "SELECT count(*) FROM sqlite_master");
    sql(other, "CREATE TABLE t(x); INSERT INTO t VALUES(51); PRAGMA integrity_check");
    sql(db, "SELECT x FROM t");
    finish(other);
    finish(db);
}

static void flags(void)
{
    sqlite3 *db = open_with(SQLITE_OPEN_READONLY);
    note("readonly %d", sqlite3_db_readonly(db, "main"));
    sql(db, "SELECT count(*) FROM t; CREATE TEMP TABLE w AS SELECT * FROM t");
    sql(db, "INSERT INTO t VALUES(60)");
    sql(db, "BEGIN IMMEDIATE; COMMIT");
    sql(db, "BEGIN EXCLUSIVE");
    sql(db, "VACUUM");
    sql(db, "PRAGMA user_version=4");
    finish(db);
    static const int more[] = { SQLITE_OPEN_READWRITE,
                                SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW,
                                SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
                                SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX,
                                SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE,
                                SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE,
                                SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY };
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        db = open_with(more[i]);
        sql(db, "INSERT INTO t VALUES(61)");
        sql(db, "SELECT count(*) FROM t");
        finish(db);
    }
    char link[1200];
    snprintf(link, sizeof link, "%s/link.db", now->dir);
    note("link %d", symlink(now->path, link));
    snprintf(link, sizeof link, "file:%s/link.db?vfs=%s", now->dir, now->vfs);
    note("a link with NOFOLLOW %d",
         sqlite3_open_v2(link, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI | SQLITE_OPEN_NOFOLLOW, NULL));
    sqlite3_close(db);
}

static void statements(void)
{
    sqlite3 *db = open_db(), *other = open_db();
    sqlite3_stmt *select = NULL, *insert = NULL;
    note("prepare %d", sqlite3_prepare_v2(db, "SELECT * FROM t ORDER BY rowid", -1, &select, NULL));
    note("prepare %d", sqlite3_prepare_v2(db, "INSERT INTO t VALUES(?)", -1, &insert, NULL));
    note("readonly %d %d", sqlite3_stmt_readonly(select), sqlite3_stmt_readonly(insert));
    note("step %d, columns %d", sqlite3_step(select), sqlite3_column_count(select));
    note("busy %d", sqlite3_stmt_busy(select));
    sql(other, "ALTER TABLE t ADD COLUMN y DEFAULT 5");
    note("step %d, columns %d", sqlite3_step(select), sqlite3_column_count(select));
    note("write on the old snapshot %d", sqlite3_step(insert)); /* 517 natively, too */
    note("reset %d %d", sqlite3_reset(insert), sqlite3_reset(select));
    note("prepared again %d, columns %d", sqlite3_step(select), sqlite3_column_count(select));
    note("close while it is open %d", sqlite3_close(db));
    note("finalize %d", sqlite3_finalize(insert));
    note("close later %d", sqlite3_close_v2(db));
    note("step %d", sqlite3_step(select));
    sql(other, "INSERT INTO t VALUES(70, 1)");
    note("step %d", sqlite3_step(select));
    note("finalize %d", sqlite3_finalize(select));
    sql(other, "SELECT count(*) FROM t");
    finish(other);
}

static int interrupts(void *db)
{
    sqlite3_interrupt(db);
    return 0;
}

static void interrupted_commits(void)
{
    sqlite3 *db = open_db();
    sqlite3_progress_handler(db, 500, interrupts, db);
    sql(db,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<100000) INSERT INTO t(x) SELECT i FROM "
        "n");
    sql(db, "BEGIN; INSERT INTO t(x) VALUES(80)");
    sql(db,
        "DELETE FROM t WHERE x IN (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<100000) SELECT "
        "i FROM n)");
    sqlite3_progress_handler(db, 0, NULL, NULL);
    sql(db, "COMMIT");
    sql(db, "SELECT count(*) FROM t; PRAGMA integrity_check");
    finish(db);
}

static int on_wal(void *ctx, sqlite3 *db, const char *database, int frames)
{
    (void)db, (void)database, (void)frames;
    ++*(int *)ctx;
    return SQLITE_OK;
}

/* What docs/compatibility.md lists; the notes are the same only because each side is asked for what it should say. */
static void listed_differences(void)
{
    bool ours = strcmp(now->vfs, "rqvfs") == 0;
    sqlite3 *db = open_db();
    int calls = 0, log = 0, done = 0;
    sqlite3_wal_hook(db, on_wal, &calls);
    sql(db, "INSERT INTO t(x) VALUES(90)");
    note("wal hook as listed %d", ours ? calls == 0 : calls == 1);
    for (int mode = SQLITE_CHECKPOINT_PASSIVE; mode <= SQLITE_CHECKPOINT_TRUNCATE; mode++) {
        note("checkpoint %d", sqlite3_wal_checkpoint_v2(db, NULL, mode, &log, &done));
        note("numbers as listed %d", ours ? log == -1 && done == -1 : log >= 0 && done >= 0);
    }
    char *name = NULL;
    note("vfs name %d", sqlite3_file_control(db, "main", SQLITE_FCNTL_VFSNAME, (void *)&name));
    note("vfs name as listed %d", strcmp(name, now->vfs) == 0);
    sqlite3_free(name);
    note("no checkpoint on close %d", sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL));
    finish(db);
}

/* --- running ------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    void (*run)(void);
} calls[] = {
    { "busy_handlers", busy_handlers },
    { "hooks", hooks },
    { "states", states },
    { "controls", controls },
    { "reserved_bytes_and_reset", reserved_bytes_and_reset },
    { "flags", flags },
    { "statements", statements },
    { "interrupted_commits", interrupted_commits },
    { "listed_differences", listed_differences },
};

static bool compare(const struct side *one, const struct side *other)
{
    const char *a = one->notes, *b = other->notes;
    while (*a != 0 || *b != 0) {
        size_t n = strcspn(a, "\n"), m = strcspn(b, "\n");
        if (n != m || memcmp(a, b, n) != 0) {
            printf("# native: %.*s\n# rqvfs:  %.*s\n", (int)n, a, (int)m, b);
            return false;
        }
        a += n + (a[n] != 0), b += m + (b[m] != 0);
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct side sides[2];
    sqlite3 *db;
    if (argc != 4 || sqlite3_open(":memory:", &db) != SQLITE_OK || sqlite3_enable_load_extension(db, 1) != SQLITE_OK ||
        sqlite3_load_extension(db, argv[1], NULL, NULL) != SQLITE_OK) {
        printf("Bail out! usage, or the extension\n");
        return 2;
    }
    sqlite3_close(db);
    int failed = 0, count = (int)(sizeof calls / sizeof *calls);
    printf("1..%d\n", count);
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < 2; k++) {
            now = &sides[k];
            now->vfs = k == 0 ? "unix" : "rqvfs";
            now->dir = argv[2 + k];
            now->bytes = 0;
            now->notes[0] = 0;
            snprintf(now->path, sizeof now->path, "%s/%s.db", now->dir, calls[i].name);
            snprintf(now->uri, sizeof now->uri, "file:%s?vfs=%s", now->path, now->vfs);
            db = open_db();
            if (k == 0) {
                (void)sqlite3_exec(db, "PRAGMA journal_mode=wal", NULL, NULL, NULL);
            }
            sql(db, "CREATE TABLE t(x); INSERT INTO t VALUES(1), (2), (3)");
            finish(db);
            calls[i].run();
        }
        bool good = compare(&sides[0], &sides[1]);
        failed += !good;
        printf("%s %d - %s\n", good ? "ok" : "not ok", i + 1, calls[i].name);
    }
    return failed != 0;
}
