/* replica: what stock SQLite reads is what was appended, whoever reads, dies, deletes or scribbles meanwhile. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raftd/wire/bytes.h"
#include "tests/support/replica_model.h"
#include "tests/support/tap.h"
#include "vfs/replica.h"

#define FILL                                                                                            \
    "with recursive c(x) as (select 1 union all select x+1 from c where x<%u) insert into t select x, " \
    "hex(randomblob(%u)) from c"

static struct model m; /* of the test that runs */

static struct rq_replica_wal wal_of(void)
{
    struct rq_replica_wal wal;
    rq_replica_get_wal(m.replica, &wal);
    return wal;
}

static void sql_ok(const char *sql)
{
    check_eq(model_sql(&m, sql), RQ_OK);
}

static void sql_begin_database(uint32_t page_size)
{
    model_init(&m, page_size, page_size);
    sql_ok("create table t(a integer, b text); create index i on t(b)");
}

static char *sibling(const char *suffix)
{
    static char path[160];
    snprintf(path, sizeof path, "%s%s", m.path, suffix);
    return path;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* --- stock readers ------------------------------------------------------------------------------------------------------- */

static void page_size_run(uint32_t page_size)
{
    sql_begin_database(page_size);
    sqlite3 *kept = model_stock_open(&m);
    check(stock_agrees(&m, kept));
    for (int i = 0; i < 25; i++) {
        char sql[320];
        if (i % 10 == 7) {
            snprintf(sql, sizeof sql, "delete from t; vacuum"); /* two at once: a group */
        } else if (i % 3 == 0) {
            snprintf(sql, sizeof sql, "begin; " FILL "; update t set b = hex(randomblob(9)) where a %% 7 = 1; commit",
                     100u, 30u);
        } else {
            snprintf(sql, sizeof sql, "insert into t values(%d, 'x')", i);
        }
        sql_ok(sql);
        check(stock_agrees(&m, kept));
        sqlite3 *fresh = model_stock_open(&m);
        check(stock_agrees(&m, fresh));
        check_eq(sqlite3_close(fresh), SQLITE_OK);
        check(model_matches(&m));
        if (i % 4 == 3) {
            check_eq(rq_replica_backfill(m.replica), RQ_OK);
            check_eq(wal_of().backfilled, wal_of().frames);
            check(model_file_matches(&m));
            check(stock_agrees(&m, kept));
        }
        if (i % 8 == 7) {
            check_eq(rq_replica_reset(m.replica), RQ_OK);
            check_eq(wal_of().frames, 0);
            check(model_matches(&m));
            check(stock_agrees(&m, kept));
        }
    }
    check_eq(sqlite3_close(kept), SQLITE_OK);
    model_fini(&m);
}

static void stock_reads_every_version_at_every_page_size(void)
{
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
        page_size_run(page_size);
    }
}

static void more_than_one_region_of_the_index(void)
{
    sql_begin_database(512);
    sqlite3 *kept = model_stock_open(&m);
    char sql[320];
    snprintf(sql, sizeof sql, FILL, 12000u, 100u);
    sql_ok(sql);
    check(wal_of().frames > 4062 + 4096);
    check(stock_agrees(&m, kept));
    check(model_matches(&m));
    model_close(&m);
    check_eq(model_open(&m), RQ_OK);
    check(wal_of().frames > 4062 + 4096);
    check(stock_agrees(&m, kept));
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    sql_ok("update t set b = 'x' where a % 3 = 0");
    check(stock_agrees(&m, kept));
    check(model_matches(&m));
    check_eq(sqlite3_close(kept), SQLITE_OK);
    model_fini(&m);
}

static void stock_reader_keeps_its_snapshot_and_holds_backfill_there(void)
{
    sql_begin_database(4096);
    sql_ok("insert into t values(1, 'one')");
    const uint32_t held = wal_of().frames;
    sqlite3 *reader = model_stock_open(&m);
    check_eq(stock_int(reader, "begin"), 0);
    check_eq(stock_int(reader, "select count(*) from t"), 1);
    for (int i = 0; i < 50; i++) {
        sql_ok("insert into t values(2, hex(randomblob(2000)))");
    }
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(wal_of().backfilled, held);
    check(wal_of().blocked);
    check_eq(rq_replica_reset(m.replica), RQ_BUSY);
    check_eq(stock_int(reader, "select count(*) from t"), 1);
    check_eq(stock_int(reader, "select integrity_check = 'ok' from pragma_integrity_check"), 1);
    check_eq(stock_int(reader, "commit"), 0);
    check_eq(stock_int(reader, "begin"), 0);
    check_eq(stock_int(reader, "select count(*) from t"), 51);

    check_eq(rq_replica_backfill(m.replica),
             RQ_OK); /* the reader is at the newest: nothing is in the way, but the reset is */
    check_eq(wal_of().backfilled, wal_of().frames);
    check_eq(rq_replica_reset(m.replica), RQ_BUSY);
    check(wal_of().blocked);
    check_eq(stock_int(reader, "commit"), 0);
    check_eq(stock_int(reader, "begin"), 0);
    check_eq(stock_int(reader, "select count(*) from t"), 51); /* from the file alone now */
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    check(!wal_of().blocked);
    sql_ok("delete from t");
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(wal_of().backfilled, 0);
    check(wal_of().blocked);
    check_eq(stock_int(reader, "select count(*) from t"), 51);
    check_eq(stock_int(reader, "select integrity_check = 'ok' from pragma_integrity_check"), 1);
    check_eq(stock_int(reader, "commit"), 0);
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(wal_of().backfilled, wal_of().frames);
    check(model_file_matches(&m));
    check(stock_agrees(&m, reader));
    check_eq(sqlite3_close(reader), SQLITE_OK);
    model_fini(&m);
}

static void stock_tools_read_and_never_write_or_checkpoint(void)
{
    sql_begin_database(4096);
    sql_ok("insert into t values(1, 'one')");
    for (int open = 1; open >= 0; open--) {
        sqlite3 *db = model_stock_open(&m);
        check_eq(stock_int(db, "insert into t values(9, 'nine')"), -1000 - SQLITE_READONLY);
        check_eq(stock_int(db, "create table u(x)"), -1000 - SQLITE_READONLY);
        check_eq(stock_int(db, "select count(*) from t"), 1);
        if (open == 1) {
            check_eq(stock_int(db, "pragma wal_checkpoint"), 1); /* busy */
            check_eq(stock_int(db, "pragma wal_checkpoint(truncate)"), 1);
        }
        check_eq(sqlite3_close(db), SQLITE_OK);
        check_eq(exists(sibling("-wal")), open);
        if (open == 1) {
            check(model_matches(&m));
            model_close(&m);
        }
    }
    check_eq(model_open(&m), RQ_OK);
    check(model_matches(&m));
    model_fini(&m);
}

static void goes_on_after_a_stock_last_closer(void)
{
    sql_begin_database(1024);
    for (int i = 0; i < 5; i++) {
        sql_ok("insert into t values(1, hex(randomblob(900)))");
        model_close(&m);
        sqlite3 *db = model_stock_open(&m);
        check(stock_agrees(&m, db));
        check_eq(sqlite3_close(db), SQLITE_OK);
        check(!exists(sibling("-wal")));
        const uint32_t epoch = atomic_load(&m.control.head->files_epoch);
        check_eq(model_open(&m), RQ_OK);
        check(atomic_load(&m.control.head->files_epoch) != epoch);
        check(model_matches(&m));
        sql_ok("update t set a = a + 1");
        check(model_matches(&m));
    }
    model_fini(&m);
}

#define INTEGRITY "select integrity_check = 'ok' from pragma_integrity_check"
#define COUNT     "select count(*) from t"

static void restarts_under_readers_that_stay(void)
{
    model_init(&m, 1024, 9);
    struct stock_process holds = stock_process_start(&m), follows = stock_process_start(&m);
    sql_ok("create table t(a integer, b text); create index i on t(b)");
    for (int i = 0; i < 12; i++) {
        sql_ok("insert into t values(1, hex(randomblob(900)))");
        check_eq(stock_process_int(&holds, "begin"), 0);
        const int64_t count = 2 * i + 1;
        check_eq(stock_process_int(&holds, COUNT), count);
        if (i % 3 == 1) {
            check_eq(rq_replica_backfill(m.replica), RQ_OK);
        }
        model_close(&m);
        check_eq(stock_process_int(&follows, COUNT), count); /* without us */
        check_eq(stock_process_int(&follows, INTEGRITY), 1);
        check_eq(model_open(&m), RQ_OK);
        check(model_matches(&m));
        sql_ok("insert into t values(2, hex(randomblob(900)))");
        check_eq(rq_replica_backfill(m.replica), RQ_OK);
        check(wal_of().blocked);
        check_eq(stock_process_int(&holds, COUNT), count);
        check_eq(stock_process_int(&holds, INTEGRITY), 1);
        check_eq(stock_process_int(&follows, COUNT), count + 1);
        check_eq(stock_process_int(&holds, "commit"), 0);
        check_eq(stock_process_int(&holds, COUNT), count + 1);
        check_eq(stock_process_int(&holds, INTEGRITY), 1);
        check_eq(stock_process_int(&follows, INTEGRITY), 1);
        if (i % 4 == 3) {
            check_eq(rq_replica_backfill(m.replica), RQ_OK);
            check_eq(rq_replica_reset(m.replica), RQ_OK);
        }
    }
    stock_process_end(&holds);
    stock_process_end(&follows);
    model_fini(&m);
}

static void second_owner_is_refused(void)
{
    sql_begin_database(4096);
    struct rq_replica *first = m.replica, *second = NULL;
    struct rq_replica_state state;
    const struct rq_replica_config config = { .disk = m.disk, .path = m.path, .control = &m.control };
    check_eq(rq_replica_open(&config, &second, &state), RQ_BUSY);
    check(m.replica == first);
    sql_ok("insert into t values(1, 'still ours')");
    check(model_matches(&m));
    model_fini(&m);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(stock_reads_every_version_at_every_page_size),
        TAP(more_than_one_region_of_the_index),
        TAP(stock_reader_keeps_its_snapshot_and_holds_backfill_there),
        TAP(stock_tools_read_and_never_write_or_checkpoint),
        TAP(goes_on_after_a_stock_last_closer),
        TAP(restarts_under_readers_that_stay),
        TAP(second_owner_is_refused),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
