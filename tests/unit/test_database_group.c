/* database_group: what the executor makes goes through the node as any commit does, and comes back with its outcome. */
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "raftd/db/database.h"
#include "raftd/db/executor.h"
#include "tests/support/one_host.h"
#include "tests/support/sleeps.h"
#include "tests/support/stock.h"
#include "tests/support/tap.h"
#include "vfs/control.h"
#include "vfs/shim.h"

#define DEADLINE_S 60

static char dir[64];
static struct one_host *host;

struct fixture {
    struct rq_database *db;
    struct rq_executor *executor;
    char path[200];
};

static struct fixture begin(void)
{
    static int count;
    struct fixture f;
    char name[32];
    snprintf(name, sizeof name, "app%d.db", count++);
    snprintf(f.path, sizeof f.path, "%s/%s", dir, name);
    f.db = one_host_create(host, name);
    const struct rq_executor_config config = { .path = f.path, .host = rq_database_executor_host(f.db) };
    check_eq(rq_executor_new(&config, &f.executor), RQ_OK);
    return f;
}

static void end(struct fixture *f)
{
    rq_executor_free(f->executor);
    rq_database_unref(f->db);
}

struct request {
    struct rq_sql_request request; /* first */
    const char *sql;
    const char *control; /* its WAL is too long, from when the request runs until it is answered */
    atomic_int outcome;  /* -1: not told */
    atomic_bool ran;
    pthread_t runner, teller;
    long sleeps; /* of the teller, when it told */
};

/* As raftd says it in the control page, until the next commit. */
static void crowd(const struct request *q)
{
    struct rq_control control;
    if (q->control == NULL) {
        return;
    }
    check_eq(rq_control_open(rq_disk_real(), q->control, rq_boot_id(), &control), RQ_OK);
    atomic_store(&control.head->drain, 1);
    rq_control_close(&control);
}

static int run_sql(struct rq_sql_request *r, sqlite3 *db)
{
    struct request *q = (struct request *)r;
    int code = sqlite3_exec(db, q->sql, NULL, NULL, NULL);
    crowd(q);
    q->runner = pthread_self();
    atomic_store(&q->ran, true);
    return code;
}

static void request_done(struct rq_sql_request *r, enum rq_err outcome)
{
    struct request *q = (struct request *)r;
    q->teller = pthread_self();
    crowd(q);
    q->sleeps = sleeps();
    atomic_store(&q->outcome, (int)outcome);
}

static void queue(struct fixture *f, struct request *q, const char *sql)
{
    *q = (struct request){ .request = { .run = run_sql, .done = request_done }, .sql = sql, .outcome = -1 };
    rq_executor_queue(f->executor, &q->request);
}

static int outcome(struct request *q)
{
    time_t until = time(NULL) + DEADLINE_S;
    while (atomic_load(&q->outcome) < 0 && time(NULL) < until) {
        usleep(200);
    }
    return atomic_load(&q->outcome);
}

static void execute(struct fixture *f, const char *sql)
{
    struct request q;
    queue(f, &q, sql);
    check_eq(outcome(&q), RQ_OK);
    check_eq(q.request.code, SQLITE_OK);
}

static long long number(struct fixture *f, const char *sql)
{
    return stock_number(f->path, sql);
}

static void groups_are_fewer_than_transactions_and_hold_all_of_them(void)
{
    enum { COUNT = 500 };
    static struct request q[COUNT];
    struct rq_log_stats before, after;
    struct rq_database_info info;
    struct fixture f = begin();
    execute(&f, "CREATE TABLE t(x INTEGER PRIMARY KEY, y); CREATE INDEX t_y ON t(y)");
    one_host_log_stats(host, &before);
    for (int i = 0; i < COUNT; i++) {
        queue(&f, &q[i], "INSERT INTO t(y) VALUES(random())");
    }
    for (int i = 0; i < COUNT; i++) {
        check_eq(outcome(&q[i]), RQ_OK);
        check_eq(q[i].request.code, SQLITE_OK);
        check_eq(q[i].request.version, i + 3);
    }
    one_host_log_stats(host, &after);
    check(after.entries - before.entries < COUNT / 4);
    check_eq(number(&f, "SELECT count(*) FROM t"), COUNT);
    rq_database_info(f.db, &info);
    check_eq(info.version, COUNT + 2);
    check_eq(number(&f, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
    end(&f);
}

/* No other thread has to be woken for them, unless one happens to carry what they need. */
static void requests_one_after_another_are_carried_by_the_thread_that_runs_them(void)
{
    struct fixture f = begin();
    struct request q;
    time_t until = time(NULL) + DEADLINE_S;
    execute(&f, "CREATE TABLE t(x)");
    do {
        queue(&f, &q, "INSERT INTO t VALUES(1)");
        check_eq(outcome(&q), RQ_OK);
    } while (!pthread_equal(q.runner, q.teller) && time(NULL) < until);
    check(pthread_equal(q.runner, q.teller));
    end(&f);
}

/* Until one of those that come alone was carried: as soon as the executor's thread is asleep, for which it gets more and more time. */
static void carry(struct fixture *f, struct request *q, const char *control)
{
    const time_t until = time(NULL) + DEADLINE_S;
    const pthread_t self = pthread_self();
    unsigned wait_us = 0;
    do {
        *q = (struct request){ .request = { .run = run_sql, .done = request_done },
                               .sql = "INSERT INTO t VALUES(1)",
                               .control = control,
                               .outcome = -1 };
        wait_us += wait_us < 50000 ? 1000 : 0;
        usleep(wait_us);
        rq_executor_carry(f->executor, &q->request);
        check_eq(outcome(q), RQ_OK);
    } while (!(pthread_equal(q->runner, self) && pthread_equal(q->teller, self)) && time(NULL) < until);
    check(pthread_equal(q->runner, self) && pthread_equal(q->teller, self));
}

static void a_request_alone_goes_to_the_log_and_back_on_the_thread_that_brings_it(void)
{
    struct fixture f = begin();
    struct request q;
    execute(&f, "CREATE TABLE t(x)");
    carry(&f, &q, NULL);
    end(&f);
}

static void who_carries_does_not_wait_until_the_wal_is_short(void)
{
    enum { SLEEPS_MAX = 10 }; /* for locks; who waits looks again and again */
    struct fixture f = begin();
    struct request q;
    char control[300];
    snprintf(control, sizeof control, "%s-rqctl", f.path);
    execute(&f, "CREATE TABLE t(x)");
    carry(&f, &q, control);
    check(sleeps() - q.sleeps < SLEEPS_MAX);
    execute(&f, "INSERT INTO t VALUES(2)");
    check_eq(number(&f, "SELECT count(*) FROM t WHERE x = 2"), 1);
    end(&f);
}

static void a_large_transaction_goes_as_a_staged_body(void)
{
    struct rq_log_stats before, after;
    struct fixture f = begin();
    execute(&f, "CREATE TABLE t(x)");
    one_host_log_stats(host, &before);
    execute(&f,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
            "INSERT INTO t SELECT randomblob(1000) FROM n");
    one_host_log_stats(host, &after);
    check_eq(after.entries - before.entries, 1);
    check_eq(number(&f, "SELECT count(*) FROM t"), 20000);
    execute(&f, "INSERT INTO t VALUES(1)");
    check_eq(number(&f, "SELECT count(*) FROM t"), 20001);
    end(&f);
}

/* --- somebody else's transaction on the same base ----------------------------------------------------------------------- */

static atomic_int foreign_err;

static void foreign_answered(struct rq_commit *c, const struct rq_msg_outcome *result)
{
    atomic_store(&foreign_err, (int)result->err);
    rq_commit_free(c);
}

static struct rq_database *foreign_db;

/* While the request runs, another session commits on what it sees: page 1, with the next change counter. */
static int run_overtaken(struct rq_sql_request *r, sqlite3 *db)
{
    struct rq_database_info info;
    struct rq_commit *c;
    rq_database_info(foreign_db, &info);
    uint8_t record[4 + 4096];
    sqlite3_stmt *s;
    (void)db;
    sqlite3 *stock;
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, rq_database_name(foreign_db));
    if (sqlite3_open_v2(path, &stock, SQLITE_OPEN_READONLY, "unix") != SQLITE_OK ||
        sqlite3_prepare_v2(stock, "SELECT data FROM sqlite_dbpage WHERE pgno = 1", -1, &s, NULL) != SQLITE_OK ||
        sqlite3_step(s) != SQLITE_ROW || sqlite3_column_bytes(s, 0) != 4096 || rq_commit_new(&c) != RQ_OK) {
        return SQLITE_ERROR;
    }
    rq_put_u32(record, 1);
    memcpy(record + 4, sqlite3_column_blob(s, 0), 4096);
    sqlite3_finalize(s);
    sqlite3_close(stock);
    rq_page1_normalise(record + 4);
    rq_put_u32(record + 4 + 24, (uint32_t)info.version + 1);
    rq_put_u32(record + 4 + 92, (uint32_t)info.version + 1);
    (void)rq_bytes_put(&c->pages, record, sizeof record);
    c->db = rq_database_ref(foreign_db);
    c->origin = (struct rq_origin){ .session = 99, .seq = info.version };
    c->base = info.version;
    c->page_size = info.page_size;
    c->db_page_count = info.page_count;
    c->answer = foreign_answered;
    atomic_store(&foreign_err, -1);
    rq_database_commit(c);
    return run_sql(r, db);
}

static void a_group_that_was_overtaken_is_refused(void)
{
    struct fixture f = begin();
    struct request q = { .request = { .run = run_overtaken, .done = request_done },
                         .sql = "INSERT INTO t VALUES(1)",
                         .outcome = -1 };
    execute(&f, "CREATE TABLE t(x)");
    foreign_db = f.db;
    rq_executor_queue(f.executor, &q.request);
    check_eq(outcome(&q), RQ_REFUSED);
    check_eq(atomic_load(&foreign_err), RQ_OK);
    check_eq(number(&f, "SELECT count(*) FROM t"), 0);
    execute(&f, "INSERT INTO t VALUES(2)");
    check_eq(number(&f, "SELECT sum(x) FROM t"), 2);
    end(&f);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(groups_are_fewer_than_transactions_and_hold_all_of_them),
        TAP(requests_one_after_another_are_carried_by_the_thread_that_runs_them),
        TAP(a_request_alone_goes_to_the_log_and_back_on_the_thread_that_brings_it),
        TAP(who_carries_does_not_wait_until_the_wal_is_short),
        TAP(a_large_transaction_goes_as_a_staged_body),
        TAP(a_group_that_was_overtaken_is_refused),
    };
    const struct rq_shim_config config = { .disk = rq_disk_real(), .sink_new = rq_executor_sink_new };
    snprintf(dir, sizeof dir, "/tmp/rq-group-XXXXXX");
    if (mkdtemp(dir) == NULL || rq_shim_register(&config) != SQLITE_OK) {
        return 2;
    }
    host = one_host_new(dir);
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    one_host_free(host);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", "--", dir, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
    return failed;
}
