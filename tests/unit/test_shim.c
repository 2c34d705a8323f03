/* shim: what SQLite does on a replicated database is what it does on its own; every transaction is handed to the sink exactly
 * once, or not at all; each outcome reaches the application as the code that vfs/shim.h names. */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/local_sink.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"
#include "vfs/shim.h"

static char served[128], plain[64];
static int name_count;

/* --- handles ------------------------------------------------------------------------------------------------------------ */

static sqlite3 *open_with(const char *dir, const char *name, const char *params, int flags, int *ret_code)
{
    char uri[400];
    sqlite3 *db;
    snprintf(uri, sizeof uri, "file:%s/%s%s", dir, name, params);
    int code = sqlite3_open_v2(uri, &db, flags | SQLITE_OPEN_URI, NULL);
    if (code == SQLITE_OK) {
        sqlite3_extended_result_codes(db, 1);
    } else {
        code = sqlite3_extended_errcode(db);
    }
    if (ret_code != NULL) {
        *ret_code = code;
    }
    return db;
}

static sqlite3 *open_rq(const char *name)
{
    int code;
    sqlite3 *db = open_with(served, name, "?vfs=rqvfs", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &code);
    check_eq(code, SQLITE_OK);
    return db;
}

static sqlite3 *open_plain(const char *dir, const char *name)
{
    int code;
    sqlite3 *db = open_with(dir, name, "?vfs=unix", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &code);
    check_eq(code, SQLITE_OK);
    return db;
}

/* Its main database is none of ours. */
static int open_memory(sqlite3 **ret_db)
{
    int code = sqlite3_open_v2(":memory:", ret_db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    sqlite3_extended_result_codes(*ret_db, 1);
    return code;
}

/* A name of its own for each test. */
static const char *fresh(void)
{
    static char name[32];
    snprintf(name, sizeof name, "db%d.db", name_count++);
    if (name_count % (LOCAL_DB_MAX - 4) == 0) { /* the catalog of the local sink is small: a new directory */
        local_stop();
        snprintf(served, sizeof served, "%s/served%d", plain, name_count);
        local_start(served);
    }
    return name;
}

static int run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

#define ok(db, sql)                                                                               \
    do {                                                                                          \
        int ok_code = run(db, sql);                                                               \
        if (ok_code != SQLITE_OK) {                                                               \
            printf("# %s:%d: %s: %d %s\n", __FILE__, __LINE__, sql, ok_code, sqlite3_errmsg(db)); \
            longjmp(tap_jump, 1);                                                                 \
        }                                                                                         \
    } while (0)

static long long number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st;
    long long value = -1;
    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK) {
        printf("# %s: %s\n", sql, sqlite3_errmsg(db));
        return -2;
    }
    if (sqlite3_step(st) == SQLITE_ROW) {
        value = sqlite3_column_int64(st, 0);
    }
    sqlite3_finalize(st);
    return value;
}

static const char *text(sqlite3 *db, const char *sql)
{
    static char value[200];
    sqlite3_stmt *st;
    value[0] = '\0';
    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK) {
        if (sqlite3_step(st) == SQLITE_ROW && sqlite3_column_text(st, 0) != NULL) {
            snprintf(value, sizeof value, "%s", (const char *)sqlite3_column_text(st, 0));
        }
        sqlite3_finalize(st);
    }
    return value;
}

/* A new database of ours: what the SQL makes it. */
static sqlite3 *open_made(const char *name, const char *sql)
{
    sqlite3 *db = open_rq(name);
    ok(db, sql);
    return db;
}

/* A stock connection in a transaction that sees this x in t. */
static sqlite3 *open_stock_reader(const char *name, long long x)
{
    sqlite3 *stock = open_plain(served, name);
    ok(stock, "BEGIN");
    check_eq(number(stock, "SELECT x FROM t"), x);
    return stock;
}

static void empty_wal(const char *name)
{
    check_eq(local_backfill(name), RQ_OK);
    check_eq(local_reset(name), RQ_OK);
}

/* Our connection, a new one of ours and a stock one see the same. */
static void all_see(sqlite3 *db, const char *name, const char *sql, long long expected)
{
    check_eq(number(db, sql), expected);
    sqlite3 *other = open_rq(name);
    check_eq(number(other, sql), expected);
    check(strcmp(text(other, "PRAGMA integrity_check"), "ok") == 0);
    sqlite3_close(other);
    sqlite3 *stock = open_plain(served, name);
    check_eq(number(stock, sql), expected);
    check(strcmp(text(stock, "PRAGMA integrity_check"), "ok") == 0);
    sqlite3_close(stock);
}

/* --- commits ------------------------------------------------------------------------------------------------------------ */

static void a_new_name_is_an_empty_database_until_its_first_commit(void)
{
    const char *name = fresh();
    sqlite3 *db = open_rq(name);
    char path[200];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", served, name);
    check_eq(number(db, "SELECT count(*) FROM sqlite_schema"), 0);
    check(stat(path, &st) != 0);
    ok(db, "CREATE TABLE t(x)");
    check(stat(path, &st) == 0);
    ok(db, "INSERT INTO t VALUES(1),(2)");
    check_eq(local_commit_count(), 2);
    all_see(db, name, "SELECT sum(x) FROM t", 3);
    sqlite3_close(db);
}

static void every_journal_mode_and_synchronous_commits_once(void)
{
    const char *modes[] = { "delete", "truncate", "persist", "memory", "off", "wal" };
    const char *syncs[] = { "off", "normal", "full", "extra" };
    for (size_t m = 0; m < 6; m++) {
        for (size_t s = 0; s < 4; s++) {
            const char *name = fresh();
            /* Behind a main database that is not ours the pragmas reach SQLite's pager. */
            sqlite3 *db;
            char sql[300];
            check_eq(open_memory(&db), SQLITE_OK);
            snprintf(sql, sizeof sql, "ATTACH 'file:%s/%s?vfs=rqvfs' AS a", served, name);
            ok(db, sql);
            snprintf(sql, sizeof sql, "PRAGMA journal_mode=%s; PRAGMA a.synchronous=%s", modes[m], syncs[s]);
            ok(db, sql);
            ok(db, "CREATE TABLE a.t(x); INSERT INTO a.t VALUES(0)");
            uint64_t before = local_commit_count();
            ok(db, "INSERT INTO a.t VALUES(1)");
            check_eq(local_commit_count(), before + 1);
            ok(db, "BEGIN; INSERT INTO a.t VALUES(2); INSERT INTO a.t VALUES(3); COMMIT");
            check_eq(local_commit_count(), before + 2);
            ok(db, "BEGIN IMMEDIATE; COMMIT");
            if (strcmp(modes[m], "off") != 0) {
                ok(db, "BEGIN; INSERT INTO a.t VALUES(4); ROLLBACK");
            }
            ok(db, "SELECT * FROM a.t");
            check_eq(local_commit_count(), before + 2);
            check_eq(number(db, "SELECT sum(x) FROM a.t"), 6);
            sqlite3_close(db);
            db = open_rq(name);
            all_see(db, name, "SELECT sum(x) FROM t", 6);
            sqlite3_close(db);
        }
    }
}

static void a_rollback_after_spilling_commits_nothing(void)
{
    const char *modes[] = { "delete", "truncate", "persist", "memory" };
    for (size_t m = 0; m < 4; m++) {
        const char *name = fresh();
        sqlite3 *db;
        char sql[300];
        check_eq(open_memory(&db), SQLITE_OK);
        snprintf(sql, sizeof sql, "ATTACH 'file:%s/%s?vfs=rqvfs' AS a; PRAGMA a.cache_size=5; PRAGMA journal_mode=%s",
                 served, name, modes[m]);
        ok(db, sql);
        ok(db,
           "CREATE TABLE a.t(x); WITH c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<300) "
           "INSERT INTO a.t SELECT randomblob(500) FROM c");
        long long sum = number(db, "SELECT sum(length(x)) FROM a.t");
        uint64_t before = local_commit_count();
        for (int i = 0; i < 3; i++) {
            ok(db, "BEGIN; UPDATE a.t SET x = randomblob(600); ROLLBACK");
            check_eq(local_commit_count(), before);
            check_eq(number(db, "SELECT sum(length(x)) FROM a.t"), sum);
            check_eq(sqlite3_get_autocommit(db), 1);
        }
        ok(db, "UPDATE a.t SET x = zeroblob(500)"); /* and the next one is committed */
        check_eq(local_commit_count(), before + 1);
        ok(db, "DETACH a");
        sqlite3_close(db);
        db = open_rq(name);
        all_see(db, name, "SELECT sum(length(x)) FROM t", 150000);
        sqlite3_close(db);
    }
}

static void a_first_transaction_may_be_rolled_back(void)
{
    const char *modes[] = { "delete", "truncate", "persist", "memory", "off" };
    for (size_t m = 0; m < 5; m++) {
        const char *name = fresh();
        sqlite3 *db;
        char sql[300];
        check_eq(open_memory(&db), SQLITE_OK);
        snprintf(sql, sizeof sql, "ATTACH 'file:%s/%s?vfs=rqvfs' AS a; PRAGMA a.cache_size=5; PRAGMA journal_mode=%s",
                 served, name, modes[m]);
        ok(db, sql);
        uint64_t before = local_commit_count();
        for (int i = 0; i < 3 && m < 4; i++) { /* without a journal there is no rollback */
            ok(db,
               "BEGIN; CREATE TABLE a.t(x); WITH c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<300) "
               "INSERT INTO a.t SELECT randomblob(500) FROM c; ROLLBACK");
            check_eq(local_commit_count(), before);
        }
        local_order(RQ_FULL, false);
        check_eq(run(db, "CREATE TABLE a.t(x)"), SQLITE_FULL);
        check_eq(local_commit_count(), before);
        ok(db, "CREATE TABLE a.t(x)");
        check_eq(local_commit_count(), before + 1);
        ok(db, "INSERT INTO a.t VALUES(7)");
        check_eq(local_commit_count(), before + 2);
        ok(db, "DETACH a");
        sqlite3_close(db);
        db = open_rq(name);
        all_see(db, name, "SELECT sum(x) FROM t", 7);
        sqlite3_close(db);
    }
}

static void savepoints_with_a_tiny_cache_keep_what_they_should(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "PRAGMA cache_size=5; CREATE TABLE t(k INTEGER PRIMARY KEY, x)");
    ok(db,
       "WITH c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<400) INSERT INTO t SELECT i, zeroblob(400) FROM c");
    uint64_t before = local_commit_count();
    ok(db,
       "BEGIN; UPDATE t SET x = 1; SAVEPOINT a; UPDATE t SET x = zeroblob(900); ROLLBACK TO a; UPDATE t SET x = 2 "
       "WHERE k <= 10; "
       "SAVEPOINT b; DELETE FROM t; ROLLBACK TO b; COMMIT");
    check_eq(local_commit_count(), before + 1);
    all_see(db, name, "SELECT sum(x) FROM t", 410);
    sqlite3_close(db);
}

static void writes_inside_an_open_select_commit_each(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(k INTEGER PRIMARY KEY, x); CREATE TABLE log(x)");
    ok(db, "INSERT INTO t VALUES(1,10),(2,20),(3,30)");
    uint64_t before = local_commit_count();
    sqlite3_stmt *st;
    check_eq(sqlite3_prepare_v2(db, "SELECT x FROM t ORDER BY k", -1, &st, NULL), SQLITE_OK);
    long long sum = 0;
    int rows = 0;
    while (sqlite3_step(st) == SQLITE_ROW) {
        sum += sqlite3_column_int64(st, 0);
        rows++;
        ok(db, "INSERT INTO log SELECT count(*) FROM log");
        if (rows == 2) {
            /* A rollback behind two commits that are still only in front of the snapshot. */
            ok(db, "PRAGMA cache_size=1; BEGIN; INSERT INTO log VALUES(1000); UPDATE t SET x = x; ROLLBACK");
        }
        check_eq(number(db, "SELECT count(*) FROM log"), rows);
    }
    sqlite3_finalize(st);
    check_eq(sum, 60);
    check_eq(local_commit_count(), before + 3);
    all_see(db, name, "SELECT sum(x) FROM log", 3);

    check_eq(sqlite3_prepare_v2(db, "SELECT x FROM t ORDER BY k", -1, &st, NULL), SQLITE_OK);
    check_eq(sqlite3_step(st), SQLITE_ROW);
    ok(db, "INSERT INTO log VALUES(7)");
    local_foreign_commit(name);
    uint64_t refusals = local_refusal_count();
    check_eq(run(db, "INSERT INTO log VALUES(8)"), SQLITE_BUSY_SNAPSHOT); /* as natively */
    check_eq(local_refusal_count(), refusals);                            /* and at once */
    check_eq(sqlite3_step(st), SQLITE_ROW);
    sqlite3_finalize(st);
    ok(db, "INSERT INTO log VALUES(8)");
    all_see(db, name, "SELECT sum(x) FROM log", 18);
    sqlite3_close(db);
}

static void a_transaction_larger_than_memory_commits(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "PRAGMA cache_size=10; CREATE TABLE t(x)");
    ok(db,
       "WITH c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<3000) INSERT INTO t SELECT zeroblob(1000) FROM c");
    ok(db, "BEGIN; UPDATE t SET x = zeroblob(900); DELETE FROM t WHERE rowid % 2; COMMIT");
    all_see(db, name, "SELECT sum(length(x)) FROM t", 1350000);
    ok(db, "VACUUM");
    all_see(db, name, "SELECT sum(length(x)) FROM t", 1350000);
    sqlite3_close(db);
}

/* --- the creator's choices ---------------------------------------------------------------------------------------------- */

static void the_creator_chooses_page_size_encoding_and_auto_vacuum(void)
{
    const int sizes[] = { 512, 1024, 8192, 65536 };
    for (int i = 0; i < 4; i++) {
        const char *name = fresh();
        sqlite3 *db = open_rq(name);
        char sql[200];
        snprintf(sql, sizeof sql,
                 "PRAGMA page_size=%d; PRAGMA encoding='UTF-16le'; PRAGMA auto_vacuum=2; CREATE TABLE t(x); "
                 "INSERT INTO t VALUES('abc')",
                 sizes[i]);
        ok(db, sql);
        ok(db,
           "WITH c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<200) INSERT INTO t SELECT zeroblob(1000) FROM "
           "c");
        ok(db, "DELETE FROM t WHERE rowid > 1; PRAGMA incremental_vacuum");
        all_see(db, name, "SELECT count(*) FROM t", 1);
        check_eq(number(db, "PRAGMA page_size"), sizes[i]);
        ok(db, "PRAGMA page_size=2048; VACUUM"); /* of an existing one it stays */
        check_eq(number(db, "PRAGMA page_size"), sizes[i]);
        check_eq(number(db, "PRAGMA auto_vacuum"), 2);
        check(strcmp(text(db, "PRAGMA encoding"), "UTF-16le") == 0);
        all_see(db, name, "SELECT count(*) FROM t", 1);
        sqlite3_close(db);
    }
}

static void a_rolled_back_creation_leaves_the_choice_open(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "PRAGMA page_size=1024; BEGIN; CREATE TABLE t(x); ROLLBACK");
    sqlite3_close(db);
    db = open_rq(name);
    ok(db, "PRAGMA page_size=2048; CREATE TABLE t(x)");
    check_eq(number(db, "PRAGMA page_size"), 2048);
    all_see(db, name, "SELECT count(*) FROM t", 0);
    sqlite3_close(db);
}

static void vacuum_into_makes_a_served_database_and_overwrites_none(void)
{
    char source[32], sql[300];
    (void)snprintf(source, sizeof source, "%s", fresh());
    sqlite3 *db = open_rq(source);
    ok(db, "CREATE TABLE t(x); INSERT INTO t VALUES(41),(1)");
    const char *copy = fresh();
    snprintf(sql, sizeof sql, "VACUUM INTO 'file:%s/%s?vfs=rqvfs'", served, copy);
    uint64_t before = local_commit_count();
    ok(db, sql);
    check_eq(local_commit_count(), before + 1);
    sqlite3 *other = open_rq(copy);
    all_see(other, copy, "SELECT sum(x) FROM t", 42);
    sqlite3_close(other);
    check_eq(run(db, sql), SQLITE_ERROR); /* output file already exists */
    snprintf(sql, sizeof sql, "VACUUM INTO '%s/out-%d.db'", plain, name_count);
    ok(db, sql); /* a file outside is a file */
    snprintf(sql, sizeof sql, "out-%d.db", name_count);
    other = open_plain(plain, sql);
    check_eq(number(other, "SELECT sum(x) FROM t"), 42);
    ok(other, "INSERT INTO t VALUES(1)"); /* and may be written */
    sqlite3_close(other);
    sqlite3_close(db);
}

static int copy_all(sqlite3 *to, sqlite3 *from)
{
    sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
    if (b == NULL) {
        return sqlite3_extended_errcode(to);
    }
    int code = sqlite3_backup_step(b, -1);
    int finish = sqlite3_backup_finish(b);
    return code == SQLITE_DONE ? finish : code;
}

static void the_backup_api_works_both_ways(void)
{
    const char *name = fresh();
    char stock_name[64];
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(5)");
    snprintf(stock_name, sizeof stock_name, "backup-%d.db", name_count);
    sqlite3 *stock = open_plain(plain, stock_name);
    check_eq(copy_all(stock, db), SQLITE_OK);
    check_eq(number(stock, "SELECT sum(x) FROM t"), 5);
    /* From a database in WAL mode, whose header SQLite copies with the rest. */
    ok(stock, "PRAGMA journal_mode=wal; INSERT INTO t VALUES(6)");
    sqlite3_close(stock);
    stock = open_plain(plain, stock_name);
    for (int i = 0; i < 2; i++) {
        check_eq(copy_all(db, stock), SQLITE_OK);
        all_see(db, name, "SELECT sum(x) FROM t", 11);
        ok(db, "INSERT INTO t VALUES(100)");
        all_see(db, name, "SELECT sum(x) FROM t", 111);
    }
    sqlite3_close(stock);

    snprintf(stock_name, sizeof stock_name, "small-%d.db", name_count);
    stock = open_plain(plain, stock_name);
    ok(stock, "PRAGMA page_size=1024; CREATE TABLE t(x); INSERT INTO t VALUES(9)");
    uint64_t before = local_commit_count();
    check_eq(copy_all(db, stock) & 0xff, SQLITE_READONLY); /* another page size */
    check_eq(local_commit_count(), before);
    all_see(db, name, "SELECT sum(x) FROM t", 111);
    ok(db, "INSERT INTO t VALUES(1)");
    const char *second = fresh();
    sqlite3 *into = open_rq(second);
    check_eq(copy_all(into, stock), SQLITE_OK); /* into a new one it may have any */
    check_eq(number(into, "PRAGMA page_size"), 1024);
    all_see(into, second, "SELECT sum(x) FROM t", 9);
    sqlite3_close(into);
    sqlite3_close(stock);
    sqlite3_close(db);
}

/* --- several connections ------------------------------------------------------------------------------------------------ */

static void busy_and_stale_as_natively(void)
{
    const char *name = fresh();
    sqlite3 *a = open_rq(name), *b = open_rq(name);
    ok(a, "CREATE TABLE t(x)");
    ok(a, "BEGIN; INSERT INTO t VALUES(1)");
    check_eq(run(b, "INSERT INTO t VALUES(2)"), SQLITE_BUSY);
    check_eq(run(b, "BEGIN IMMEDIATE"), SQLITE_BUSY);
    check_eq(run(b, "BEGIN EXCLUSIVE"), SQLITE_BUSY);
    check_eq(number(b, "SELECT count(*) FROM t"), 0);
    ok(b, "BEGIN; SELECT * FROM t");
    check_eq(run(b, "INSERT INTO t VALUES(2)"), SQLITE_BUSY);
    ok(a, "COMMIT");
    check_eq(number(b, "SELECT count(*) FROM t"), 0); /* its snapshot */
    uint64_t refusals = local_refusal_count();
    check_eq(run(b, "INSERT INTO t VALUES(2)"), SQLITE_BUSY_SNAPSHOT);
    check_eq(local_refusal_count(), refusals);
    check_eq(sqlite3_get_autocommit(b), 0);
    check_eq(number(b, "SELECT count(*) FROM t"), 0);
    ok(b, "ROLLBACK");
    ok(b, "INSERT INTO t VALUES(2)");
    ok(a, "BEGIN EXCLUSIVE");
    check_eq(number(b, "SELECT count(*) FROM t"), 2); /* keeps no reader out */
    ok(a, "COMMIT");
    all_see(a, name, "SELECT sum(x) FROM t", 3);
    sqlite3_close(a);
    sqlite3_close(b);
}

static void data_version_tells_of_others_commits_only(void)
{
    const char *name = fresh();
    sqlite3 *a = open_rq(name), *b = open_rq(name);
    ok(a, "CREATE TABLE t(x)");
    long long first = number(a, "PRAGMA data_version");
    ok(a, "INSERT INTO t VALUES(1)");
    check_eq(number(a, "PRAGMA data_version"), first);
    ok(b, "INSERT INTO t VALUES(1)");
    check(number(a, "PRAGMA data_version") != first);
    sqlite3_close(a);
    sqlite3_close(b);
}

struct writer {
    pthread_t thread;
    const char *name;
    int errors;
};

static atomic_int writers_done;

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    int code;
    sqlite3 *db = open_with(served, w->name, "?vfs=rqvfs", SQLITE_OPEN_READWRITE, &code);
    w->errors += code != SQLITE_OK;
    sqlite3_busy_timeout(db, 20000);
    for (int i = 0; i < 60; i++) {
        w->errors += run(db, "UPDATE t SET x = x + 1") != SQLITE_OK;
        w->errors += number(db, "SELECT sum(x) % 2 FROM t") != 0;
    }
    sqlite3_close(db);
    atomic_fetch_add(&writers_done, 1);
    return NULL;
}

static void threads_wait_for_the_turn_and_lose_nothing(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(0),(0)");
    struct writer writers[4] = { 0 };
    for (int i = 0; i < 4; i++) {
        writers[i].name = name;
        check_eq(pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]), 0);
    }
    while (atomic_load(&writers_done) < 4) {
        (void)local_backfill(name);
        (void)local_reset(name);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(writers[i].thread, NULL);
        check_eq(writers[i].errors, 0);
    }
    all_see(db, name, "SELECT sum(x) FROM t", 480);
    sqlite3_close(db);
}

static void *waiter_main(void *arg)
{
    sqlite3 *db = arg;
    return run(db, "INSERT INTO t VALUES(2)") == SQLITE_OK ? NULL : db;
}

static void a_busy_handler_sleeps_in_the_queue_for_the_turn(void)
{
    const char *name = fresh();
    sqlite3 *a = open_rq(name), *b = open_rq(name);
    ok(a, "CREATE TABLE t(x); BEGIN IMMEDIATE; INSERT INTO t VALUES(1)");
    sqlite3_busy_timeout(b, 20000);
    pthread_t thread;
    check_eq(pthread_create(&thread, NULL, waiter_main, b), 0);
    struct rq_slot *slots = local_db(name)->control.slots;
    bool asleep = false;
    for (time_t deadline = time(NULL) + 20; !asleep && time(NULL) < deadline;) {
        for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
            asleep = asleep || atomic_load(&slots[i].asleep) != 0;
        }
    }
    ok(a, "COMMIT");
    void *failed;
    pthread_join(thread, &failed);
    check(failed == NULL);
    check(asleep);
    all_see(a, name, "SELECT sum(x) FROM t", 3);
    sqlite3_close(a);
    sqlite3_close(b);
}

/* The turn of another host is on its way, as soon as somebody sleeps for it. */
static void *bring_turn(void *arg)
{
    struct rq_control *c = arg;
    for (time_t deadline = time(NULL) + 20; time(NULL) < deadline;) {
        for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
            if (atomic_load(&c->slots[i].asleep) != 0) {
                rq_turn_open(c);
                return NULL;
            }
        }
    }
    return c;
}

static void without_a_busy_handler_the_turn_of_another_host_is_waited_for(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x)");
    struct rq_control *c = &local_db(name)->control;
    pthread_t thread;
    rq_turn_close(c);
    check_eq(pthread_create(&thread, NULL, bring_turn, c), 0);
    ok(db, "INSERT INTO t VALUES(1)");
    void *failed;
    pthread_join(thread, &failed);
    check(failed == NULL);
    all_see(db, name, "SELECT sum(x) FROM t", 1);
    sqlite3_close(db);
}

/* An insert is busy without a wait for the turn of another host, which would take a second. */
static bool is_busy_at_once(sqlite3 *db)
{
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    check_eq(run(db, "INSERT INTO t VALUES(2)"), SQLITE_BUSY);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000 < 500;
}

#define AT_ONCE_TRIES 5 /* the machine may be slow by chance, but not each time */

static void nobody_waits_where_the_turn_is_here_or_did_not_come_just_before(void)
{
    const char *name = fresh();
    sqlite3 *a = open_rq(name), *b = open_rq(name);
    ok(a, "CREATE TABLE t(x); BEGIN IMMEDIATE; INSERT INTO t VALUES(1)");
    struct rq_control *c = &local_db(name)->control;
    rq_turn_close(c);
    bool at_once = false;
    for (int i = 0; i < AT_ONCE_TRIES && !at_once; i++) {
        sqlite3 *first_try = open_rq(name);
        at_once = is_busy_at_once(first_try);
        sqlite3_close(first_try);
    }
    check(at_once);
    ok(a, "COMMIT");
    check_eq(run(b, "INSERT INTO t VALUES(2)"), SQLITE_BUSY);
    at_once = false;
    for (int i = 0; i < AT_ONCE_TRIES && !at_once; i++) {
        at_once = is_busy_at_once(b);
    }
    check(at_once);
    rq_turn_open(c);
    ok(b, "INSERT INTO t VALUES(2)");
    all_see(a, name, "SELECT sum(x) FROM t", 3);
    sqlite3_close(a);
    sqlite3_close(b);
}

static int tries_left;

static int poll_without_sleeping(void *ctx, int count)
{
    (void)count;
    if (tries_left-- == 5) { /* meanwhile the turn comes free */
        ok((sqlite3 *)ctx, "COMMIT");
    }
    return tries_left > 0;
}

static void who_was_busy_and_went_away_keeps_nobody_waiting(void)
{
    const char *name = fresh();
    sqlite3 *a = open_rq(name), *b = open_rq(name), *c = open_rq(name);
    ok(a, "CREATE TABLE t(x); BEGIN IMMEDIATE; INSERT INTO t VALUES(1)");
    for (int i = 0; i < 3; i++) {
        check_eq(run(b, "INSERT INTO t VALUES(2)"), SQLITE_BUSY);
    }
    ok(b, "BEGIN; SELECT * FROM t");
    for (int i = 0; i < 20; i++) {
        check_eq(run(b, "INSERT INTO t VALUES(2)"), SQLITE_BUSY);
    }
    ok(a, "COMMIT");
    ok(c, "INSERT INTO t VALUES(3)"); /* nobody writes, so nobody is told BUSY */
    ok(b, "COMMIT");
    ok(a, "BEGIN IMMEDIATE");
    tries_left = 30;
    sqlite3_busy_handler(b, poll_without_sleeping, a);
    ok(b, "INSERT INTO t VALUES(4)");
    all_see(a, name, "SELECT sum(x) FROM t", 8);
    sqlite3_close(a);
    sqlite3_close(b);
    sqlite3_close(c);
}

/* A VFS call is a system call here only if the snapshot moved: seen by the slot, which stays idle in between. */
static void a_snapshot_stays_between_statements_until_it_is_taken_away(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    check_eq(number(db, "SELECT x FROM t"), 1);
    struct rq_slot *slots = local_db(name)->control.slots;
    int idle = -1;
    for (int i = 0; i < (int)RQ_SLOT_COUNT; i++) {
        if (rq_snap_state(atomic_load(&slots[i].snapshot)) == RQ_SNAP_IDLE) {
            idle = i;
        }
    }
    check(idle >= 0);
    empty_wal(name);
    check_eq(rq_snap_state(atomic_load(&slots[idle].snapshot)), RQ_SNAP_NONE);
    check_eq(number(db, "SELECT x FROM t"), 1);
    check_eq(rq_snap_kind(atomic_load(&slots[idle].snapshot)), RQ_SNAP_FILE);
    ok(db, "BEGIN; SELECT * FROM t");
    sqlite3 *other = open_rq(name);
    ok(other, "UPDATE t SET x = 2");
    check_eq(local_backfill(name), RQ_OK); /* held up by the reader of the file */
    check_eq(number(db, "SELECT x FROM t"), 1);
    ok(db, "COMMIT");
    check_eq(local_backfill(name), RQ_OK);
    check_eq(number(db, "SELECT x FROM t"), 2);
    sqlite3_close(other);
    sqlite3_close(db);
}

static void without_a_free_slot_sqlites_read_marks_serve(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    static struct rq_control all[RQ_SLOT_COUNT];
    uint32_t slot;
    int taken = 0;
    char path[300];
    snprintf(path, sizeof path, "%s/%s-rqctl", served, name);
    while (rq_control_open(rq_disk_real(), path, rq_boot_id(), &all[taken]) == RQ_OK &&
           rq_slot_claim(&all[taken], 0, &slot) == RQ_OK) {
        taken++;
    }
    check(taken > (int)RQ_SLOT_COUNT - 10);
    sqlite3 *late = open_rq(name);
    check_eq(number(late, "SELECT x FROM t"), 1);
    ok(late, "BEGIN; SELECT * FROM t");
    ok(db, "UPDATE t SET x = 2");
    check_eq(local_backfill(name), RQ_OK);
    check_eq(local_reset(name), RQ_BUSY); /* the mark holds it up */
    check_eq(number(late, "SELECT x FROM t"), 1);
    ok(late, "COMMIT");
    check_eq(number(late, "SELECT x FROM t"), 2);
    empty_wal(name);
    check_eq(number(late, "SELECT x FROM t"), 2);
    ok(late, "BEGIN; SELECT * FROM t");
    ok(db, "UPDATE t SET x = 3");
    check_eq(local_backfill(name), RQ_OK);
    check_eq(number(late, "SELECT x FROM t"), 2); /* of the file, by mark 0 */
    ok(late, "COMMIT");
    check_eq(run(late, "UPDATE t SET x = 4"), SQLITE_BUSY);
    for (int i = 0; i <= taken; i++) {
        rq_control_close(&all[i]);
    }
    sqlite3_close(late);
    late = open_rq(name);
    ok(late, "UPDATE t SET x = 4");
    all_see(db, name, "SELECT x FROM t", 4);
    sqlite3_close(late);
    sqlite3_close(db);
}

/* POSIX locks are the process's, and go when it closes any descriptor of the file. */
static void the_last_close_leaves_the_locks_of_a_stock_connection_of_the_process(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    sqlite3 *stock = open_stock_reader(name, 1);
    ok(db, "UPDATE t SET x = 2");
    sqlite3_close(db);
    check_eq(local_backfill(name), RQ_OK);
    check_eq(local_reset(name), RQ_BUSY); /* the stock reader's mark is locked */
    db = open_rq(name);
    ok(db, "UPDATE t SET x = 3");
    sqlite3_close(db);
    check_eq(local_reset(name), RQ_BUSY);
    check_eq(number(stock, "SELECT x FROM t"), 1);
    ok(stock, "COMMIT");
    check_eq(number(stock, "SELECT x FROM t"), 3);
    empty_wal(name);
    sqlite3_close(stock);
}

static void a_stock_tool_beside_reads_and_never_writes(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    sqlite3 *stock = open_stock_reader(name, 1);
    ok(db, "UPDATE t SET x = 2");
    check_eq(local_backfill(name), RQ_OK);
    check_eq(number(stock, "SELECT x FROM t"), 1);
    check_eq(run(stock, "INSERT INTO t VALUES(3)") & 0xff, SQLITE_READONLY);
    ok(stock, "COMMIT");
    check_eq(number(stock, "SELECT x FROM t"), 2);
    check_eq(number(stock, "PRAGMA wal_checkpoint"), 1); /* busy: the WAL is raftd's */
    sqlite3_close(stock);
    sqlite3_close(db);
}

/* --- outcomes ----------------------------------------------------------------------------------------------------------- */

struct outcome {
    enum rq_err err;
    bool applied;
    int code;
};

static const struct outcome outcomes[] = {
    { RQ_REFUSED, false, SQLITE_BUSY_SNAPSHOT }, { RQ_AWAY, false, RQVFS_BUSY_AWAY },
    { RQ_UNREADY, false, RQVFS_BUSY_AWAY },      { RQ_FULL, false, SQLITE_FULL },
    { RQ_TOOBIG, false, SQLITE_FULL },           { RQ_UNKNOWN, false, RQVFS_IOERR_UNKNOWN },
    { RQ_UNKNOWN, true, RQVFS_IOERR_UNKNOWN },   { RQ_QUARANTINED, false, RQVFS_CORRUPT_QUARANTINED },
    { RQ_PAGESIZE, false, SQLITE_READONLY },     { RQ_NOMEM, false, SQLITE_NOMEM },
    { RQ_IO, false, SQLITE_IOERR_FSYNC },
};

static void each_outcome_has_its_code_and_leaves_the_connection_good(void)
{
    for (size_t i = 0; i < sizeof outcomes / sizeof *outcomes; i++) {
        for (int form = 0; form < 3; form++) { /* autocommit, explicit, explicit and spilled */
            const char *name = fresh();
            sqlite3 *db = open_rq(name);
            ok(db,
               "CREATE TABLE t(x); INSERT INTO t SELECT zeroblob(3000) FROM "
               "(VALUES(1),(2),(3),(4),(5),(6),(7),(8),(9))");
            ok(db, form == 2 ? "PRAGMA cache_size=2" : "PRAGMA cache_size=100");
            local_order(outcomes[i].err, outcomes[i].applied);
            int code;
            if (form == 0) {
                code = run(db, "UPDATE t SET x = zeroblob(2000)");
            } else {
                ok(db, "BEGIN; UPDATE t SET x = zeroblob(2000)");
                code = run(db, "COMMIT");
            }
            check_eq(code, outcomes[i].code);
            check_eq(sqlite3_get_autocommit(db), 1);
            all_see(db, name, "SELECT sum(length(x)) FROM t", outcomes[i].applied ? 18000 : 27000);
            uint64_t before = local_commit_count();
            ok(db, "UPDATE t SET x = zeroblob(1000)");
            check_eq(local_commit_count(), before + 1);
            all_see(db, name, "SELECT sum(length(x)) FROM t", 9000);
            sqlite3_close(db);
        }
    }
}

/* Files of this process cannot grow. */
static void limit_files(bool limited)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = limited ? 0 : limit.rlim_max;
    setrlimit(RLIMIT_FSIZE, &limit);
}

static const char *commit_between_name;

static void commit_between(void)
{
    local_foreign_commit(commit_between_name);
}

static void a_commit_on_an_old_base_is_refused(void)
{
    const char *name = commit_between_name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x)");
    local_before_commit(commit_between);
    check_eq(run(db, "INSERT INTO t VALUES(1)"), SQLITE_BUSY_SNAPSHOT);
    check_eq(number(db, "SELECT count(*) FROM t"), 0);
    ok(db, "INSERT INTO t VALUES(2)");
    all_see(db, name, "SELECT sum(x) FROM t", 2);
    sqlite3_close(db);
}

/* Everything is back-filled and the WAL begun anew while a commit waits; then other statements read on. */
/* Which raftd does by itself when nobody writes: natively nobody but a writer would. */
static void a_reset_of_the_wal_makes_no_reader_stale(void)
{
    const char *name = fresh();
    sqlite3 *a = open_rq(name), *b = open_rq(name);
    ok(a, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    check_eq(local_backfill(name), RQ_OK);
    ok(b, "BEGIN; SELECT * FROM t"); /* a reader of the file alone: holds up no reset */
    check_eq(local_reset(name), RQ_OK);
    ok(b, "INSERT INTO t VALUES(2); COMMIT");
    check_eq(local_backfill(name), RQ_OK);
    ok(b, "BEGIN; SELECT * FROM t");
    check_eq(local_reset(name), RQ_OK);
    ok(a, "INSERT INTO t VALUES(3)"); /* but who writes then does */
    check_eq(sqlite3_exec(b, "INSERT INTO t VALUES(4)", NULL, NULL, NULL), SQLITE_BUSY_SNAPSHOT);
    ok(b, "ROLLBACK");
    all_see(a, name, "SELECT sum(x) FROM t", 6);
    sqlite3_close(a);
    sqlite3_close(b);
}

static void reset_between(void)
{
    (void)local_backfill(commit_between_name);
    if (local_reset(commit_between_name) != RQ_OK) {
        abort();
    }
}

static void the_wal_can_be_reset_while_a_commit_waits(void)
{
    const char *name = commit_between_name = fresh();
    sqlite3 *db = open_made(name, "PRAGMA cache_size=1; CREATE TABLE t(k INTEGER PRIMARY KEY, x)");
    ok(db,
       "WITH c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<50) INSERT INTO t SELECT i, zeroblob(3000) FROM c");
    sqlite3_stmt *st;
    check_eq(sqlite3_prepare_v2(db, "SELECT length(x) FROM t ORDER BY k", -1, &st, NULL), SQLITE_OK);
    check_eq(sqlite3_step(st), SQLITE_ROW);
    local_before_commit(reset_between);
    ok(db, "INSERT INTO t VALUES(51, zeroblob(3000))");
    sqlite3 *other = open_rq(name); /* its frames lie where those of the first snapshot lay */
    ok(other, "UPDATE t SET x = zeroblob(2900)");
    sqlite3_close(other);
    for (int i = 0; i < 49; i++) {
        check_eq(sqlite3_step(st), SQLITE_ROW);
        check_eq(sqlite3_column_int(st, 0), 3000);
    }
    sqlite3_finalize(st);
    all_see(db, name, "SELECT sum(length(x)) FROM t", 51LL * 2900);
    sqlite3_close(db);
}

static void without_raftd_reads_go_on_and_writes_are_busy(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    local_stop();
    check_eq(number(db, "SELECT x FROM t"), 1);
    check_eq(run(db, "INSERT INTO t VALUES(2)"), RQVFS_BUSY_AWAY);
    sqlite3 *second = open_rq(name); /* its control page is of this boot: raftd need not be asked */
    check_eq(number(second, "SELECT x FROM t"), 1);
    int code;
    sqlite3 *none = open_with(served, "never.db", "?vfs=rqvfs", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &code);
    check_eq(code, RQVFS_BUSY_AWAY);
    sqlite3_close(none);
    local_start(served);
    ok(db, "INSERT INTO t VALUES(2)");
    ok(second, "INSERT INTO t VALUES(3)");
    all_see(db, name, "SELECT sum(x) FROM t", 6);
    sqlite3_close(second);
    sqlite3_close(db);
}

/* A stock tool as the last one out deletes -wal and -shm: then the database file alone is read. */
static void after_a_stock_last_close_the_file_alone_is_read(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    sqlite3_close(db);
    local_stop();
    char path[300];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s-shm", served, name);
    sqlite3 *stock = open_plain(served, name);
    check_eq(number(stock, "SELECT x FROM t"), 1);
    sqlite3_close(stock);
    check(stat(path, &st) != 0);
    db = open_rq(name);
    check_eq(number(db, "SELECT x FROM t"), 1);
    stock = open_plain(served, name);
    check_eq(number(stock, "SELECT x FROM t"), 1);
    sqlite3_close(stock);
    check_eq(number(db, "SELECT x FROM t"), 1);
    local_start(served);
    ok(db, "INSERT INTO t VALUES(2)");
    all_see(db, name, "SELECT sum(x) FROM t", 3);
    sqlite3_close(db);
}

/* Our locks speak for raftd while it is away. */
static void with_raftd_dead_stock_tools_leave_the_wal_alone(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    check_eq(number(db, "SELECT x FROM t"), 1);
    local_stop();
    char path[300];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s-shm", served, name);
    sqlite3 *stock = open_plain(served, name);
    check_eq(number(stock, "SELECT x FROM t"), 1);
    check(stat(path, &st) == 0 && st.st_size >= 32768); /* not emptied by the first opener */
    check_eq(number(stock, "PRAGMA wal_checkpoint(truncate)"), 1);
    check_eq(number(db, "SELECT x FROM t"), 1);
    sqlite3_close(stock);
    check(stat(path, &st) == 0); /* nor deleted by the last closer */
    check_eq(number(db, "SELECT x FROM t"), 1);
    local_start(served);
    ok(db, "INSERT INTO t VALUES(2)");
    all_see(db, name, "SELECT sum(x) FROM t", 3);
    sqlite3_close(db);
}

static void a_quarantined_database_is_neither_read_nor_written(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x)");
    struct rq_control_head *head = local_db(name)->control.head;
    atomic_store(&head->state, (uint32_t)RQ_DB_QUARANTINED);
    check_eq(run(db, "SELECT * FROM t"), RQVFS_CORRUPT_QUARANTINED);
    check_eq(run(db, "INSERT INTO t VALUES(1)"), RQVFS_CORRUPT_QUARANTINED);
    atomic_store(&head->state, (uint32_t)RQ_DB_LIVE);
    ok(db, "INSERT INTO t VALUES(1)");
    sqlite3_close(db);
}

static void a_host_without_space_says_so_before_the_turn(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x)");
    struct rq_control_head *head = local_db(name)->control.head;
    atomic_store(&head->full, 1);
    check_eq(run(db, "INSERT INTO t VALUES(1)"), SQLITE_FULL);
    check_eq(run(db, "BEGIN IMMEDIATE"), SQLITE_FULL);
    check_eq(number(db, "SELECT count(*) FROM t"), 0);
    atomic_store(&head->full, 0);
    ok(db, "INSERT INTO t VALUES(1)");
    sqlite3_close(db);
}

/* --- doors -------------------------------------------------------------------------------------------------------------- */

static int open_code(const char *dir, const char *name, const char *params, int flags)
{
    int code;
    sqlite3 *db = open_with(dir, name, params, flags, &code);
    sqlite3_close(db);
    return code;
}

static void what_cannot_be_right_is_refused_at_open(void)
{
    const char *name = fresh();
    int write = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    sqlite3 *db = open_made(name, "CREATE TABLE t(x)");
    check_eq(open_code(served, name, "?vfs=rqvfs&immutable=1", write), SQLITE_CANTOPEN);
    check_eq(open_code(served, name, "?vfs=rqvfs&nolock=1", write), SQLITE_CANTOPEN);
    check_eq(open_code(plain, "x.db", "?vfs=rqvfs", write), SQLITE_CANTOPEN);
    check_eq(open_code(served, "missing.db", "?vfs=rqvfs", SQLITE_OPEN_READWRITE), SQLITE_CANTOPEN);
    const char *bad[] = { "x-wal", "x-shm", "x-journal", "x-rqctl", ".x", "raftd.sock" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_eq(open_code(served, bad[i], "?vfs=rqvfs", write), SQLITE_CANTOPEN);
    }
    int code;
    sqlite3 *reader = open_with(served, name, "?vfs=rqvfs&mode=ro", SQLITE_OPEN_READWRITE, &code);
    check_eq(code, SQLITE_OK);
    check_eq(number(reader, "SELECT count(*) FROM t"), 0);
    check_eq(run(reader, "INSERT INTO t VALUES(1)"), SQLITE_READONLY);
    sqlite3_close(reader);
    sqlite3_close(db);
}

static void an_attached_file_elsewhere_is_a_file(void)
{
    const char *name = fresh();
    sqlite3 *db = open_rq(name);
    char sql[300];
    snprintf(sql, sizeof sql, "ATTACH '%s/side-%d.db' AS side", plain, name_count);
    ok(db, sql);
    ok(db, "CREATE TABLE t(x); CREATE TABLE side.s(x)");
    /* One replicated database and others: one commit, with a super-journal of SQLite's. */
    uint64_t before = local_commit_count();
    ok(db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO side.s VALUES(2); COMMIT");
    check_eq(local_commit_count(), before + 1);
    check_eq(number(db, "SELECT sum(x) FROM side.s"), 2);
    ok(db, "BEGIN; INSERT INTO t VALUES(5); INSERT INTO side.s VALUES(5); ROLLBACK");
    check_eq(local_commit_count(), before + 1);
    /* Refused after the super-journal was written: both roll back (TRAP B). */
    local_order(RQ_REFUSED, false);
    ok(db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO side.s VALUES(2)");
    check_eq(run(db, "COMMIT"), SQLITE_BUSY_SNAPSHOT);
    check_eq(number(db, "SELECT sum(x) FROM side.s"), 2);
    check_eq(local_commit_count(), before + 1);
    all_see(db, name, "SELECT sum(x) FROM t", 1);
    sqlite3_close(db);
}

static void remove_super_journals(void)
{
    DIR *dir = opendir(served);
    const int dir_fd = dir != NULL ? dirfd(dir) : -1;
    int removed = 0;
    if (dir_fd < 0) {
        abort();
    }
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (strstr(e->d_name, "-mj") != NULL) {
            removed += unlinkat(dir_fd, e->d_name, 0) == 0;
        }
    }
    closedir(dir);
    if (removed != 1) {
        abort();
    }
}

/* TRAP B: the journal names a super-journal that is not there any more, so SQLite plays nothing back. */
static void a_rollback_without_playback_commits_nothing(void)
{
    const char *name = fresh();
    sqlite3 *db = open_rq(name);
    char sql[300];
    snprintf(sql, sizeof sql,
             "ATTACH '%s/side-%d.db' AS side; CREATE TABLE t(x); INSERT INTO t VALUES(1); CREATE TABLE side.s(x)",
             plain, name_count);
    ok(db, sql);
    uint64_t before = local_commit_count();
    for (int i = 0; i < 2; i++) {
        ok(db, "BEGIN; UPDATE t SET x = 2; INSERT INTO side.s VALUES(2)");
        local_before_commit(remove_super_journals);
        local_order(RQ_IO, false);
        check_eq(run(db, "COMMIT"), SQLITE_IOERR_FSYNC);
        check_eq(local_commit_count(), before);
        check_eq(number(db, "SELECT x FROM t"), 1);
    }
    /* The next commit of somebody else has the counter that the failed one would have had. */
    ok(db, "BEGIN; UPDATE t SET x = 2; INSERT INTO side.s VALUES(2)");
    local_before_commit(remove_super_journals);
    local_order(RQ_IO, false);
    check_eq(run(db, "COMMIT"), SQLITE_IOERR_FSYNC);
    sqlite3 *other = open_rq(name);
    ok(other, "UPDATE t SET x = 7");
    sqlite3_close(other);
    all_see(db, name, "SELECT x FROM t", 7);
    ok(db, "UPDATE t SET x = 3");
    all_see(db, name, "SELECT x FROM t", 3);
    sqlite3_close(db);
}

static void limit_now(void)
{
    /* The replica is on the same disk: what it needs for this commit is reserved by then, or it grows past this. */
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_FSIZE, &limit);
}

/* Ours is committed, the other fails, SQLite rolls both back: as with two files in WAL mode.  Nothing is written on that view. */
static void a_commit_that_sqlite_takes_back_is_not_built_upon(void)
{
    const char *name = fresh();
    sqlite3 *db = open_rq(name);
    char sql[300];
    snprintf(sql, sizeof sql,
             "ATTACH '%s/side-%d.db' AS side; CREATE TABLE t(k INTEGER PRIMARY KEY, x); CREATE TABLE side.s(x)", plain,
             name_count);
    ok(db, sql);
    ok(db, "INSERT INTO t VALUES(1,1),(2,2),(3,3)");
    sqlite3_stmt *st;
    check_eq(sqlite3_prepare_v2(db, "SELECT x FROM t ORDER BY k", -1, &st, NULL), SQLITE_OK);
    check_eq(sqlite3_step(st), SQLITE_ROW);
    ok(db, "BEGIN; INSERT INTO t VALUES(4,4); INSERT INTO side.s VALUES(zeroblob(3000000))");
    uint64_t before = local_commit_count();
    local_before_commit(limit_now);
    int code = run(db, "COMMIT");
    limit_files(false);
    check(code != SQLITE_OK);
    check_eq(local_commit_count(), before + 1);
    uint64_t refusals = local_refusal_count();
    if (sqlite3_step(st) == SQLITE_ROW) {
        check_eq(run(db, "INSERT INTO t VALUES(5,5)"), SQLITE_BUSY_SNAPSHOT);
    }
    check_eq(local_refusal_count(), refusals);
    sqlite3_finalize(st);
    ok(db, "INSERT INTO t VALUES(5,5)");
    all_see(db, name, "SELECT sum(x) FROM t", 15);
    sqlite3_close(db);
}

/* Another database under the same name, with the same counter, size and schema cookie: no cached page may survive. */
static void a_dropped_and_recreated_name_is_another_database(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    check_eq(number(db, "SELECT x FROM t"), 1);
    local_drop(name);
    check_eq(run(db, "SELECT x FROM t"), SQLITE_CANTOPEN); /* not made anew in silence */
    sqlite3 *other = open_rq(name);
    ok(other, "CREATE TABLE t(x); INSERT INTO t VALUES(2)");
    check_eq(number(db, "SELECT x FROM t"), 2);
    ok(db, "UPDATE t SET x = x + 1");
    all_see(other, name, "SELECT x FROM t", 3);
    sqlite3_close(other);
    sqlite3_close(db);
}

static void a_full_temporary_directory_is_full(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "PRAGMA cache_size=5; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    limit_files(true);
    int code = run(
        db,
        "WITH c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<3000) INSERT INTO t SELECT zeroblob(1000) FROM c");
    limit_files(false);
    check_eq(code, SQLITE_FULL);
    all_see(db, name, "SELECT count(*) FROM t", 1);
    ok(db, "INSERT INTO t VALUES(2)");
    all_see(db, name, "SELECT count(*) FROM t", 2);
    sqlite3_close(db);
}

static void a_second_replicated_database_is_read_only_in_a_transaction(void)
{
    char first[32];
    (void)snprintf(first, sizeof first, "%s", fresh());
    const char *second = fresh();
    sqlite3 *db = open_rq(first);
    char sql[300];
    snprintf(sql, sizeof sql, "ATTACH 'file:%s/%s?vfs=rqvfs' AS b", served, second);
    ok(db, sql);
    ok(db, "CREATE TABLE t(x)");
    ok(db, "CREATE TABLE b.u(x)");
    ok(db, "INSERT INTO b.u VALUES(1)");
    uint64_t before = local_commit_count();
    ok(db, "BEGIN IMMEDIATE; INSERT INTO t SELECT x FROM b.u");
    check_eq(run(db, "INSERT INTO b.u VALUES(2)"), RQVFS_READONLY_SECOND);
    check_eq(sqlite3_get_autocommit(db), 0);
    ok(db, "INSERT INTO t VALUES(10); COMMIT");
    check_eq(local_commit_count(), before + 1);
    check_eq(number(db, "SELECT sum(x) FROM t"), 11);
    check_eq(number(db, "SELECT sum(x) FROM b.u"), 1);
    ok(db, "BEGIN; INSERT INTO b.u VALUES(2); COMMIT");
    check_eq(local_commit_count(), before + 2);
    sqlite3_close(db);

    /* With journals of SQLite's own, at the commit. */
    check_eq(open_memory(&db), SQLITE_OK);
    snprintf(sql, sizeof sql, "ATTACH 'file:%s/%s?vfs=rqvfs' AS a", served, first);
    ok(db, sql);
    snprintf(sql, sizeof sql, "ATTACH 'file:%s/%s?vfs=rqvfs' AS b", served, second);
    ok(db, sql);
    ok(db, "PRAGMA journal_mode=memory");
    before = local_commit_count();
    ok(db, "BEGIN; INSERT INTO a.t VALUES(100); INSERT INTO b.u VALUES(100)");
    check_eq(run(db, "COMMIT"), RQVFS_READONLY_SECOND);
    check_eq(local_commit_count(), before);
    check_eq(number(db, "SELECT sum(x) FROM a.t"), 11);
    check_eq(number(db, "SELECT sum(x) FROM b.u"), 3);
    sqlite3_close(db);
}

static void exclusive_mode_through_a_foreign_main_never_loses_a_commit(void)
{
    const char *name = fresh();
    sqlite3 *db;
    char sql[300];
    check_eq(open_memory(&db), SQLITE_OK);
    snprintf(sql, sizeof sql, "ATTACH 'file:%s/%s?vfs=rqvfs' AS a; PRAGMA locking_mode=exclusive; CREATE TABLE a.t(x)",
             served, name);
    ok(db, sql);
    int good = 0;
    for (int i = 0; i < 4; i++) {
        good += run(db, "INSERT INTO a.t VALUES(1)") == SQLITE_OK;
    }
    sqlite3_close(db);
    db = open_rq(name);
    check_eq(number(db, "SELECT count(*) FROM t"), good);
    sqlite3_close(db);
}

static void pragmas_answer_as_on_a_wal_database(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x)");
    const char *modes[] = { "PRAGMA journal_mode", "PRAGMA journal_mode=delete", "PRAGMA journal_mode=off",
                            "PRAGMA main.journal_mode=memory", "PRAGMA journal_mode=wal" };
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        check(strcmp(text(db, modes[i]), "wal") == 0);
    }
    check(strcmp(text(db, "PRAGMA locking_mode=EXCLUSIVE"), "normal") == 0);
    check_eq(number(db, "PRAGMA page_size=1024"), -1);
    check_eq(number(db, "PRAGMA mmap_size=65536"), 65536);
    check_eq(number(db, "PRAGMA wal_checkpoint"), 0);
    uint64_t before = local_commit_count();
    ok(db, "INSERT INTO t VALUES(1); PRAGMA user_version=7; VACUUM");
    check_eq(local_commit_count(), before + 3);
    all_see(db, name, "PRAGMA user_version", 7);
    int value = -1;
    check_eq(sqlite3_file_control(db, "main", SQLITE_FCNTL_PERSIST_WAL, &value), SQLITE_OK);
    check_eq(value, 0);
    check_eq(sqlite3_file_control(db, "main", SQLITE_FCNTL_HAS_MOVED, &value), SQLITE_OK);
    check_eq(value, 0);
    char *vfs_name = NULL;
    check_eq(sqlite3_file_control(db, "main", SQLITE_FCNTL_VFSNAME, &vfs_name), SQLITE_OK);
    check(strcmp(vfs_name, "rqvfs") == 0);
    sqlite3_free(vfs_name);
    check_eq(sqlite3_file_control(db, "main", 9999, &value), SQLITE_NOTFOUND);
    sqlite3_close(db);
}

/* The stamp and the write version are the host's business. */
static void applications_see_an_ordinary_header(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x)");
    sqlite3_int64 bytes;
    uint8_t *image = sqlite3_serialize(db, "main", &bytes, 0);
    check(image != NULL);
    check_eq(bytes, 8192);
    check(image[18] <= 2 && image[19] <= 2);
    for (int i = 72; i < 92; i++) {
        check_eq(image[i], 0);
    }
    sqlite3_free(image);
    sqlite3_close(db);
}

/* --- fork --------------------------------------------------------------------------------------------------------------- */

static int descriptors_of(const char *name)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        char link[64], target[512];
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t bytes = readlink(link, target, sizeof target - 1);
        target[bytes > 0 ? bytes : 0] = '\0';
        count += strstr(target, name) != NULL;
    }
    return count;
}

static void a_forked_child_has_nothing_of_what_its_parent_keeps_open(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    const int raftds = 4; /* the sink of this test has its files open in this process */
    sqlite3_close(db);
    check_eq(descriptors_of(name), raftds + 4);
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(descriptors_of(name) == raftds ? 0 : 1);
    }
    int status = -1;
    check_eq(waitpid(pid, &status, 0), pid);
    check_eq(status, 0);
    check_eq(descriptors_of(name), raftds + 4);
    db = open_rq(name);
    all_see(db, name, "SELECT x FROM t", 1);
    sqlite3_close(db);
}

static void a_forked_child_cannot_use_or_harm_what_it_inherited(void)
{
    const char *name = fresh();
    sqlite3 *db = open_made(name, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    ok(db, "BEGIN IMMEDIATE; INSERT INTO t VALUES(2)");
    sqlite3 *idle = open_rq(name);
    check_eq(number(idle, "SELECT sum(x) FROM t"), 1);
    pid_t pid = fork();
    if (pid == 0) {
        int code;
        bool good = run(idle, "SELECT * FROM t") == SQLITE_MISUSE && run(db, "COMMIT") != SQLITE_OK;
        sqlite3_close(idle);
        sqlite3_close(db);
        sqlite3 *own = open_with(served, name, "?vfs=rqvfs", SQLITE_OPEN_READWRITE, &code);
        good = good && code == SQLITE_OK && number(own, "SELECT sum(x) FROM t") == 1 &&
               run(own, "INSERT INTO t VALUES(5)") == SQLITE_BUSY;
        sqlite3_close(own);
        _exit(good ? 0 : 1);
    }
    int status;
    check_eq(waitpid(pid, &status, 0), pid);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    check_eq(number(idle, "SELECT sum(x) FROM t"), 1);
    sqlite3_close(idle);
    ok(db, "COMMIT");
    all_see(db, name, "SELECT sum(x) FROM t", 3);
    sqlite3_close(db);
}

/* --- as the default VFS; registered so from here on --------------------------------------------------------------------- */

static void as_default_it_serves_what_is_served_and_leaves_the_rest_alone(void)
{
    const char *name = fresh();
    char file[300];
    sqlite3 *db, *other;
    const struct rq_shim_config config = { .disk = rq_disk_real(), .sink_new = local_sink_new, .make_default = true };
    check_eq(rq_shim_register(&config), SQLITE_OK);
    check(strcmp(sqlite3_vfs_find(NULL)->zName, "rqvfs") == 0);
    snprintf(file, sizeof file, "%s/%s", served, name);
    check_eq(sqlite3_open(file, &db), SQLITE_OK);
    uint64_t before = local_commit_count();
    ok(db, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    check_eq(local_commit_count(), before + 2);
    all_see(db, name, "SELECT x FROM t", 1);

    snprintf(file, sizeof file, "%s/native-%d.db", plain, name_count);
    check_eq(sqlite3_open(file, &other), SQLITE_OK);
    check(strcmp(text(other, "PRAGMA journal_mode=wal"), "wal") == 0);
    ok(other, "CREATE TABLE t(x); INSERT INTO t VALUES(5)");
    char *vfs_name = NULL;
    check_eq(sqlite3_file_control(other, "main", SQLITE_FCNTL_VFSNAME, &vfs_name), SQLITE_OK);
    check(strcmp(vfs_name, "unix") == 0);
    sqlite3_free(vfs_name);
    check_eq(number(other, "SELECT x FROM t"), 5);
    sqlite3_close(other);
    check_eq(open_code(plain, "x.db", "?vfs=rqvfs", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE), SQLITE_CANTOPEN);
    sqlite3_close(db);

    /* SQLite started anew makes its own VFS the default again. */
    check_eq(sqlite3_shutdown(), SQLITE_OK);
    check_eq(sqlite3_initialize(), SQLITE_OK);
    check(strcmp(sqlite3_vfs_find(NULL)->zName, "unix") == 0);
    check_eq(rq_shim_register(&config), SQLITE_OK);
    check(strcmp(sqlite3_vfs_find(NULL)->zName, "rqvfs") == 0);
    db = open_rq(name);
    check_eq(number(db, "SELECT x FROM t"), 1);
    sqlite3_close(db);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(a_new_name_is_an_empty_database_until_its_first_commit),
        TAP(every_journal_mode_and_synchronous_commits_once),
        TAP(a_rollback_after_spilling_commits_nothing),
        TAP(a_first_transaction_may_be_rolled_back),
        TAP(savepoints_with_a_tiny_cache_keep_what_they_should),
        TAP(writes_inside_an_open_select_commit_each),
        TAP(a_transaction_larger_than_memory_commits),
        TAP(the_creator_chooses_page_size_encoding_and_auto_vacuum),
        TAP(a_rolled_back_creation_leaves_the_choice_open),
        TAP(vacuum_into_makes_a_served_database_and_overwrites_none),
        TAP(the_backup_api_works_both_ways),
        TAP(busy_and_stale_as_natively),
        TAP(data_version_tells_of_others_commits_only),
        TAP(threads_wait_for_the_turn_and_lose_nothing),
        TAP(a_busy_handler_sleeps_in_the_queue_for_the_turn),
        TAP(without_a_busy_handler_the_turn_of_another_host_is_waited_for),
        TAP(nobody_waits_where_the_turn_is_here_or_did_not_come_just_before),
        TAP(who_was_busy_and_went_away_keeps_nobody_waiting),
        TAP(a_snapshot_stays_between_statements_until_it_is_taken_away),
        TAP(without_a_free_slot_sqlites_read_marks_serve),
        TAP(a_stock_tool_beside_reads_and_never_writes),
        TAP(the_last_close_leaves_the_locks_of_a_stock_connection_of_the_process),
        TAP(each_outcome_has_its_code_and_leaves_the_connection_good),
        TAP(a_commit_on_an_old_base_is_refused),
        TAP(a_reset_of_the_wal_makes_no_reader_stale),
        TAP(the_wal_can_be_reset_while_a_commit_waits),
        TAP(without_raftd_reads_go_on_and_writes_are_busy),
        TAP(after_a_stock_last_close_the_file_alone_is_read),
        TAP(with_raftd_dead_stock_tools_leave_the_wal_alone),
        TAP(a_quarantined_database_is_neither_read_nor_written),
        TAP(a_host_without_space_says_so_before_the_turn),
        TAP(what_cannot_be_right_is_refused_at_open),
        TAP(an_attached_file_elsewhere_is_a_file),
        TAP(a_rollback_without_playback_commits_nothing),
        TAP(a_commit_that_sqlite_takes_back_is_not_built_upon),
        TAP(a_dropped_and_recreated_name_is_another_database),
        TAP(a_full_temporary_directory_is_full),
        TAP(a_second_replicated_database_is_read_only_in_a_transaction),
        TAP(exclusive_mode_through_a_foreign_main_never_loses_a_commit),
        TAP(pragmas_answer_as_on_a_wal_database),
        TAP(applications_see_an_ordinary_header),
        TAP(a_forked_child_cannot_use_or_harm_what_it_inherited),
        TAP(a_forked_child_has_nothing_of_what_its_parent_keeps_open),
        TAP(as_default_it_serves_what_is_served_and_leaves_the_rest_alone),
    };
    (void)snprintf(plain, sizeof plain, "/tmp/rqshim-XXXXXX");
    if (mkdtemp(plain) == NULL) {
        return 1;
    }
    snprintf(served, sizeof served, "%s/served", plain);
    local_start(served);
    const struct rq_shim_config config = { .disk = rq_disk_real(),
                                           .sink_new = local_sink_new,
                                           .memory_max = 256u << 10 };
    if (rq_shim_register(&config) != SQLITE_OK) {
        return 1;
    }
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    return !scratch_remove(plain) || failed;
}
