/* How fresh reads have to be: what a connection asks for is asked of raftd when a read transaction begins, once, and no transaction
 * begins when raftd says no; what cannot be asked for is refused; and no connection goes back behind what it has read. */
#include <sched.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/local_sink.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"
#include "vfs/shim.h"

static char base[64], served[128];
static int name_count;
static char logged[400]; /* the last line of SQLite's log */

static void on_log(void *ctx, int code, const char *text)
{
    (void)ctx;
    (void)code;
    snprintf(logged, sizeof logged, "%s", text);
}

static int open_database(const char *name, const char *params, sqlite3 **ret_db)
{
    char uri[400];
    snprintf(uri, sizeof uri, "file:%s/%s?vfs=rqvfs%s", served, name, params);
    int code = sqlite3_open_v2(uri, ret_db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    sqlite3_extended_result_codes(*ret_db, 1);
    return code;
}

static int run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

/* A database of one row, under a name of its own, and a connection with these parameters. */
static sqlite3 *open_with_row(const char *params, char name[32])
{
    sqlite3 *db;
    snprintf(name, 32, "db%d.db", name_count++);
    check_eq(open_database(name, "", &db), SQLITE_OK);
    check_eq(run(db, "CREATE TABLE t(x); INSERT INTO t VALUES(1)"), SQLITE_OK);
    sqlite3_close(db);
    memset(&local_reads, 0, sizeof local_reads);
    check_eq(open_database(name, params, &db), SQLITE_OK);
    return db;
}

static int read_row(sqlite3 *db)
{
    return run(db, "SELECT * FROM t");
}

static bool answers(sqlite3 *db, const char *pragma, const char *wanted)
{
    sqlite3_stmt *s;
    check_eq(sqlite3_prepare_v2(db, pragma, -1, &s, NULL), SQLITE_OK);
    bool good = sqlite3_step(s) == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(s, 0), wanted) == 0;
    sqlite3_finalize(s);
    return good;
}

static void nobody_is_asked_about_local_reads(void)
{
    char name[32];
    sqlite3 *db = open_with_row("", name);
    check(answers(db, "PRAGMA rqvfs_consistency", "local"));
    local_reads.err = RQ_AWAY;
    check_eq(read_row(db), SQLITE_OK);
    check_eq(local_reads.count, 0);
    sqlite3_close(db);
}

static void each_linearizable_transaction_asks_once(void)
{
    char name[32];
    sqlite3 *db = open_with_row("&consistency=linearizable", name);
    local_reads.left_ms = 100000; /* of no use here */
    check_eq(read_row(db), SQLITE_OK);
    unsigned first = local_reads.count; /* SQLite reads the schema, in the same transaction or one before */
    check(first >= 1);
    check_eq(local_reads.max_age_ms, 0);
    check_eq(local_reads.db_id, local_db(name)->id);
    check_eq(read_row(db), SQLITE_OK);
    check_eq(local_reads.count, first + 1);
    check_eq(run(db, "BEGIN; SELECT * FROM t; SELECT * FROM t; COMMIT"), SQLITE_OK);
    check_eq(local_reads.count, first + 2);
    check_eq(run(db, "INSERT INTO t VALUES(2)"), SQLITE_OK);
    check_eq(local_reads.count, first + 3);
    sqlite3_close(db);
}

static void bounded_reads_ask_when_the_time_is_up(void)
{
    char name[32];
    sqlite3 *db = open_with_row("&consistency=bounded&freshness=2s", name);
    local_reads.left_ms = 30;
    check_eq(read_row(db), SQLITE_OK);
    check_eq(local_reads.max_age_ms, 2000);
    check_eq(local_reads.count, 1);
    for (time_t end = time(NULL) + 10; local_reads.count == 1 && time(NULL) < end;) {
        check_eq(read_row(db), SQLITE_OK);
    }
    check_eq(local_reads.count, 2);
    local_reads.left_ms = 0; /* it was answered late */
    while (local_reads.count == 2) {
        check_eq(read_row(db), SQLITE_OK);
    }
    check_eq(read_row(db), SQLITE_OK);
    check_eq(local_reads.count, 4);
    sqlite3_close(db);
}

static void refused_read_is_busy_and_says_why(void)
{
    char name[32], *why = NULL;
    sqlite3 *db = open_with_row("&consistency=linearizable", name);
    check_eq(read_row(db), SQLITE_OK);
    check(!local_reads.again);
    local_reads.err = RQ_UNREADY;
    check_eq(read_row(db), RQVFS_BUSY_CONSISTENCY);
    check(strstr(logged, "linearizable reads: the local sink says no") != NULL);
    check(!local_reads.again);
    check_eq(read_row(db), RQVFS_BUSY_CONSISTENCY);
    check(local_reads.again); /* as from a busy handler */
    check_eq(sqlite3_file_control(db, "main", RQ_FCNTL_READ_REFUSED, &why), SQLITE_OK);
    check(strstr(why, "the local sink says no") != NULL);
    sqlite3_free(why);
    check_eq(run(db, "BEGIN IMMEDIATE"), RQVFS_BUSY_CONSISTENCY);
    local_reads.err = RQ_OK;
    check_eq(read_row(db), SQLITE_OK);
    check_eq(sqlite3_file_control(db, "main", RQ_FCNTL_READ_REFUSED, &why), SQLITE_OK);
    check_eq(why[0], 0);
    sqlite3_free(why);
    check_eq(read_row(db), SQLITE_OK);
    check(!local_reads.again);
    sqlite3_close(db);
}

static void pragmas_ask_for_it_from_the_next_transaction_on(void)
{
    char name[32];
    sqlite3 *db = open_with_row("", name);
    check(answers(db, "PRAGMA rqvfs_consistency=LINEARIZABLE", "linearizable"));
    check_eq(read_row(db), SQLITE_OK);
    unsigned count = local_reads.count;
    check(count >= 1);
    check_eq(run(db, "PRAGMA rqvfs_consistency=bounded"), SQLITE_ERROR);
    check(strstr(sqlite3_errmsg(db), "needs a freshness") != NULL);
    check(answers(db, "PRAGMA rqvfs_consistency", "linearizable"));
    check(answers(db, "PRAGMA rqvfs_freshness", "0ms"));
    check(answers(db, "PRAGMA rqvfs_freshness='2m'", "120000ms"));
    check(answers(db, "PRAGMA rqvfs_consistency=bounded", "bounded"));
    check_eq(read_row(db), SQLITE_OK);
    check_eq(local_reads.max_age_ms, 120000);
    check(answers(db, "PRAGMA main.rqvfs_consistency=local", "local"));
    count = local_reads.count;
    check_eq(read_row(db), SQLITE_OK);
    check_eq(local_reads.count, count);
    check_eq(run(db, "PRAGMA rqvfs_freshness='soon'"), SQLITE_ERROR);
    check(strstr(sqlite3_errmsg(db), "500ms") != NULL);
    check_eq(run(db, "PRAGMA rqvfs_nothing=1"), SQLITE_OK); /* as any pragma that there is not */
    sqlite3_close(db);
}

static void what_cannot_be_asked_for_is_refused_at_open(void)
{
    static const char *const bad[] = {
        "&consistency=strong",
        "&consistency=",
        "&consistency=bounded",
        "&consistency=bounded&freshness=0s",
        "&consistency=bounded&freshness=500",
        "&consistency=bounded&freshness=ms",
        "&consistency=bounded&freshness=-5ms",
        "&consistency=bounded&freshness=25h",
        "&consistency=bounded&freshness=99999999999999999999ms",
        "&consistency=bounded&freshness=1s5",
        "&freshness=soon",
    };
    char name[32];
    sqlite3_close(open_with_row("&consistency=bounded&freshness=24h", name));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sqlite3 *db;
        logged[0] = '\0';
        if (open_database(name, bad[i], &db) != SQLITE_CANTOPEN ||
            strstr(logged, i < 2 ? "linearizable" : "ms") == NULL) {
            printf("# %s: %s\n", bad[i], logged);
            check(false);
        }
        sqlite3_close(db);
    }
}

/* The database, in place of that of the local sink, as it was some commits ago. */
static void connection_never_goes_back(void)
{
    char name[32], *why = NULL;
    sqlite3 *db = open_with_row("", name), *other;
    check_eq(run(db, "INSERT INTO t VALUES(2)"), SQLITE_OK);
    check_eq(read_row(db), SQLITE_OK);
    const uint32_t id = local_db(name)->id;
    local_drop(name); /* as when the disk was lost, and the node gets everything again */
    check_eq(open_database(name, "", &other), SQLITE_OK);
    local_rename_id(name, id);
    check_eq(read_row(db), RQVFS_BUSY_CONSISTENCY);
    check_eq(run(other, "CREATE TABLE t(x)"), SQLITE_OK);
    check_eq(read_row(db), RQVFS_BUSY_CONSISTENCY);
    check_eq(sqlite3_file_control(db, "main", RQ_FCNTL_READ_REFUSED, &why), SQLITE_OK);
    check(strstr(why, "has not caught up") != NULL);
    sqlite3_free(why);
    check_eq(run(other, "INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)"), SQLITE_OK);
    check_eq(read_row(db), SQLITE_OK);
    sqlite3_close(other);
    sqlite3_close(db);
}

/* The directory, taken away with all that is open in it, as when the disk was lost; the host gets another one under its name. */
static void lose_directory(void)
{
    char lost[160];
    local_stop();
    snprintf(lost, sizeof lost, "%s-%d", served, name_count);
    check_eq(rename(served, lost), 0);
    local_start(lost); /* so that it forgets its databases */
    local_stop();
    local_start(served);
}

/* To the database id of the first life: as a node gets everything again. */
static sqlite3 *second_life(const char *name, uint32_t id, const char *sql)
{
    sqlite3 *other;
    check_eq(open_database(name, "", &other), SQLITE_OK);
    local_rename_id(name, id);
    check_eq(run(other, sql), SQLITE_OK);
    return other;
}

static int count_rows(sqlite3 *db)
{
    sqlite3_stmt *s;
    int rows = -1;
    if (sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW) {
        rows = sqlite3_column_int(s, 0);
    }
    sqlite3_finalize(s);
    return rows;
}

#define MORE "CREATE TABLE t(x); INSERT INTO t VALUES(1); INSERT INTO t VALUES(2); INSERT INTO t VALUES(3)"

static void linearizable_read_is_of_the_files_that_raftd_serves(void)
{
    char name[32];
    sqlite3 *db = open_with_row("&consistency=linearizable", name);
    check_eq(count_rows(db), 1);
    const uint32_t id = local_db(name)->id;
    lose_directory();
    sqlite3 *other = second_life(name, id, MORE);
    check_eq(count_rows(db), 3);
    check_eq(local_reads.db_id, id);
    sqlite3_close(other);
    sqlite3_close(db);
}

static void connection_finds_the_files_of_a_new_life(void)
{
    char name[32];
    sqlite3 *db = open_with_row("", name);
    check_eq(count_rows(db), 1);
    const uint32_t id = local_db(name)->id;
    lose_directory();
    sqlite3 *other = second_life(name, id, MORE);
    for (time_t end = time(NULL) + 20; count_rows(db) != 3 && time(NULL) < end;) {
        sched_yield();
    }
    check_eq(count_rows(db), 3);
    check_eq(run(db, "INSERT INTO t VALUES(4)"), SQLITE_OK);
    check_eq(count_rows(other), 4);
    sqlite3_close(other);
    sqlite3_close(db);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(nobody_is_asked_about_local_reads),
        TAP(each_linearizable_transaction_asks_once),
        TAP(bounded_reads_ask_when_the_time_is_up),
        TAP(refused_read_is_busy_and_says_why),
        TAP(pragmas_ask_for_it_from_the_next_transaction_on),
        TAP(what_cannot_be_asked_for_is_refused_at_open),
        TAP(connection_never_goes_back),
        TAP(linearizable_read_is_of_the_files_that_raftd_serves),
        TAP(connection_finds_the_files_of_a_new_life),
    };
    (void)snprintf(base, sizeof base, "/tmp/rqshim-XXXXXX");
    if (mkdtemp(base) == NULL || sqlite3_config(SQLITE_CONFIG_LOG, on_log, NULL) != SQLITE_OK) {
        return 1;
    }
    snprintf(served, sizeof served, "%s/served", base);
    local_start(served);
    const struct rq_shim_config config = { .disk = rq_disk_real(), .sink_new = local_sink_new };
    if (rq_shim_register(&config) != SQLITE_OK) {
        return 1;
    }
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    return !scratch_remove(base) || failed;
}
