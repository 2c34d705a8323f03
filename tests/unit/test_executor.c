/* executor: requests run in their order, each as transactions of its own, on top of what is not durable; an outcome is told when
 * it is true and not before; what fails takes with it what was built on it, and nothing else; nobody else sees any of it. */
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "raftd/db/executor.h"
#include "tests/support/local_sink.h"
#include "tests/support/log_host.h"
#include "tests/support/seeded.h"
#include "tests/support/sleeps.h"
#include "tests/support/tap.h"
#include "vfs/shim.h"

#define DEADLINE_S 90

static char base_dir[64], served[128], path[200];
static struct log_host *host;
static struct rq_executor *executor;
static _Atomic pthread_t sql_thread;
static atomic_uint handed_on;         /* groups that came on another thread than the one that ran them */
static atomic_int until_refused = -1; /* so many groups pass before one is refused; below 0: none is */

/* --- a database, its executor, its log ---------------------------------------------------------------------------------- */

static struct rq_sink *sink_new(void *ctx, const char *file, const char *raftd_socket, unsigned timeout_ms)
{
    return (raftd_socket != NULL ? local_sink_new : rq_executor_sink_new)(ctx, file, raftd_socket, timeout_ms);
}

static sqlite3 *open_application(void)
{
    char uri[300];
    sqlite3 *db;
    snprintf(uri, sizeof uri, "file:%s?vfs=rqvfs&raftd=local", path);
    check_eq(sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL), SQLITE_OK);
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, DEADLINE_S * 1000);
    return db;
}

static sqlite3 *open_stock(void)
{
    sqlite3 *db;
    check_eq(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, "unix"), SQLITE_OK);
    return db;
}

static void note_frames(uint32_t *max)
{
    struct rq_replica_wal wal;
    rq_replica_get_wal(local_db("app.db")->replica, &wal);
    if (wal.frames > *max) {
        *max = wal.frames;
    }
}

static void submit(void *ctx, struct rq_group *g)
{
    if (!pthread_equal(pthread_self(), atomic_load(&sql_thread))) {
        atomic_fetch_add(&handed_on, 1);
    }
    if (atomic_fetch_sub(&until_refused, 1) == 0) {
        log_host_order(ctx, RQ_REFUSED);
    }
    const struct rq_executor_host h = log_host_ops(ctx);
    h.submit(h.ctx, g);
}

static void begin_with(uint64_t busy_timeout_ms)
{
    static int count;
    char log_dir[300];
    snprintf(served, sizeof served, "%s/served%d", base_dir, count++);
    local_start(served);
    snprintf(path, sizeof path, "%s/app.db", served);
    snprintf(log_dir, sizeof log_dir, "%s/raft/log", served);
    sqlite3_close(open_application());
    host = log_host_new(log_dir, "app.db");
    const struct rq_executor_config config = { .path = path,
                                               .host = { .ctx = host, .submit = submit },
                                               .busy_timeout_ms = busy_timeout_ms };
    check_eq(rq_executor_new(&config, &executor), RQ_OK);
}

static void begin(void)
{
    begin_with(DEADLINE_S * UINT64_C(1000));
}

static void end(void)
{
    rq_executor_free(executor);
    log_host_free(host);
    local_stop();
}

/* --- requests ----------------------------------------------------------------------------------------------------------- */

struct request {
    struct rq_sql_request request; /* first */
    char sql[400];
    long long number; /* of the first row */
    atomic_bool ran;
    atomic_int outcome;   /* -1: not told */
    atomic_int order;     /* in which outcomes were told */
    void (*then)(void);   /* called when it was; set while the gate is shut */
    void (*within)(void); /* called by run; set before it is carried */
    pthread_t runner;
    int runs;
    bool takes_long; /* too long for who carries it */
};

static atomic_int told;

static int run_sql(struct rq_sql_request *r, sqlite3 *db)
{
    struct request *q = (struct request *)r;
    const char *sql = q->sql;
    int code = SQLITE_OK;
    const bool too_long = q->takes_long && r->carried;
    atomic_store(&sql_thread, pthread_self());
    q->runner = pthread_self();
    q->runs++;
    if (too_long && !r->transaction) {
        return RQ_SQL_TOO_LONG; /* before anything is committed */
    }
    while (code == SQLITE_OK && *sql != '\0') {
        sqlite3_stmt *s;
        code = sqlite3_prepare_v2(db, sql, -1, &s, &sql);
        if (code == SQLITE_OK && s != NULL) {
            while (sqlite3_step(s) == SQLITE_ROW) {
                q->number = sqlite3_column_int64(s, 0);
            }
            code = sqlite3_finalize(s);
        }
    }
    if (q->within != NULL) {
        q->within();
    }
    atomic_store(&q->ran, true);
    return too_long ? RQ_SQL_TOO_LONG : code;
}

static void request_done(struct rq_sql_request *r, enum rq_err outcome)
{
    struct request *q = (struct request *)r;
    atomic_store(&q->order, atomic_fetch_add(&told, 1));
    if (q->then != NULL) {
        q->then();
    }
    atomic_store(&q->outcome, (int)outcome);
}

static void make(struct request *q, bool transaction, const char *sql)
{
    memset(q, 0, sizeof *q);
    q->request.transaction = transaction;
    q->request.run = run_sql;
    q->request.done = request_done;
    q->number = -1;
    q->outcome = -1;
    snprintf(q->sql, sizeof q->sql, "%s", sql);
}

static void queue_in(struct request *q, bool transaction, const char *sql)
{
    make(q, transaction, sql);
    rq_executor_queue(executor, &q->request);
}

static void queue(struct request *q, const char *sql)
{
    queue_in(q, false, sql);
}

/* Until the condition holds; false when it takes too long. */
#define await(condition)                                   \
    do {                                                   \
        time_t await_until = time(NULL) + DEADLINE_S;      \
        while (!(condition) && time(NULL) < await_until) { \
            usleep(200);                                   \
        }                                                  \
        check(condition);                                  \
    } while (0)

static int outcome(struct request *q)
{
    await(atomic_load(&q->outcome) >= 0);
    return atomic_load(&q->outcome);
}

static void done_ok(struct request *q)
{
    check_eq(outcome(q), RQ_OK);
    check_eq(q->request.code, SQLITE_OK);
}

static void execute(const char *sql)
{
    struct request q;
    queue(&q, sql);
    done_ok(&q);
}

static long long number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *s;
    long long value = -1;
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW) {
        value = sqlite3_column_int64(s, 0);
    }
    sqlite3_finalize(s);
    return value;
}

static bool sound(sqlite3 *db)
{
    sqlite3_stmt *s;
    bool sound = sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL) == SQLITE_OK &&
                 sqlite3_step(s) == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(s, 0), "ok") == 0;
    sqlite3_finalize(s);
    return sound;
}

/* An application, a stock tool and the executor see this number, in a sound database. */
static void all_see(const char *sql, long long expected)
{
    sqlite3 *app = open_application(), *stock = open_stock();
    struct request q;
    check_eq(number(app, sql), expected);
    check_eq(number(stock, sql), expected);
    check(sound(stock));
    queue(&q, sql);
    done_ok(&q);
    check_eq(q.number, expected);
    sqlite3_close(app);
    sqlite3_close(stock);
}

/* --- order and outcome -------------------------------------------------------------------------------------------------- */

static void the_first_request_makes_the_database(void)
{
    struct stat st;
    begin();
    check(stat(path, &st) != 0);
    execute("CREATE TABLE t(x)");
    check(stat(path, &st) == 0);
    execute("INSERT INTO t VALUES(7)");
    all_see("SELECT sum(x) FROM t", 7);
    end();
}

static void requests_run_in_order_each_on_top_of_the_last(void)
{
    enum { COUNT = 300 };
    static struct request q[COUNT];
    begin();
    execute("CREATE TABLE t(x); INSERT INTO t VALUES(0)");
    for (int i = 0; i < COUNT; i++) {
        queue(&q[i], "UPDATE t SET x = x + 1; SELECT x FROM t");
    }
    for (int i = 0; i < COUNT; i++) {
        done_ok(&q[i]);
        check_eq(q[i].number, i + 1);
        check(i == 0 || q[i].order > q[i - 1].order);
        check(i == 0 || q[i].request.version == q[i - 1].request.version + 1);
    }
    struct log_host_stats stats = log_host_stats(host);
    check_eq(stats.transactions, COUNT + 2);
    check(stats.groups < COUNT / 4);
    all_see("SELECT x FROM t", COUNT);
    end();
}

static void an_outcome_is_told_only_when_it_is_durable(void)
{
    struct request a, b, reads, fails;
    begin();
    execute("CREATE TABLE t(x UNIQUE)");
    log_host_gate(host, true);
    uint64_t arrived = log_host_arrived(host);
    queue(&a, "INSERT INTO t VALUES(1)");
    await(log_host_arrived(host) == arrived + 1);
    queue(&b, "INSERT INTO t VALUES(2)");
    queue(&reads, "SELECT count(*) FROM t");
    queue(&fails, "INSERT INTO t VALUES(1)"); /* an error that is none if the first one does not stay */
    await(atomic_load(&fails.ran));
    check_eq(atomic_load(&a.outcome), -1);
    check_eq(atomic_load(&b.outcome), -1);
    check_eq(atomic_load(&reads.outcome), -1);
    check_eq(atomic_load(&fails.outcome), -1);
    check_eq(log_host_arrived(host), arrived + 1); /* one group at a time */
    log_host_gate(host, false);
    done_ok(&a);
    done_ok(&b);
    done_ok(&reads);
    check_eq(reads.number, 2);
    check_eq(outcome(&fails), RQ_OK);
    check_eq(fails.request.code & 0xff, SQLITE_CONSTRAINT);
    all_see("SELECT count(*) FROM t", 2);
    end();
}

static void nobody_else_sees_what_is_not_durable(void)
{
    struct request a, b;
    begin();
    execute("CREATE TABLE t(x)");
    sqlite3 *app = open_application(), *stock = open_stock();
    log_host_gate(host, true);
    uint64_t arrived = log_host_arrived(host);
    queue(&a, "INSERT INTO t VALUES(1)");
    await(log_host_arrived(host) == arrived + 1);
    queue(&b, "INSERT INTO t VALUES(2); SELECT count(*) FROM t");
    await(atomic_load(&b.ran));
    check_eq(b.number, 2);
    check_eq(number(app, "SELECT count(*) FROM t"), 0);
    check_eq(number(stock, "SELECT count(*) FROM t"), 0);
    log_host_gate(host, false);
    done_ok(&b);
    check_eq(number(app, "SELECT count(*) FROM t"), 2);
    check_eq(number(stock, "SELECT count(*) FROM t"), 2);
    sqlite3_close(app);
    sqlite3_close(stock);
    end();
}

/* --- failure ------------------------------------------------------------------------------------------------------------ */

/* One group in the log, which will end so; more built on it. */
static void doom(struct request *first, const char *first_sql, struct request *later, const char *later_sql,
                 enum rq_err end_as)
{
    log_host_gate(host, true);
    uint64_t arrived = log_host_arrived(host);
    log_host_order(host, end_as);
    queue(first, first_sql);
    await(log_host_arrived(host) == arrived + 1);
    queue(later, later_sql);
    await(atomic_load(&later->ran));
    log_host_gate(host, false);
}

static void a_refused_group_takes_the_later_ones_with_it(void)
{
    struct request a, b;
    begin();
    execute("CREATE TABLE t(x); CREATE INDEX t_x ON t(x)");
    doom(&a, "INSERT INTO t VALUES(1)", &b, "INSERT INTO t VALUES(2); SELECT count(*) FROM t", RQ_REFUSED);
    check_eq(outcome(&a), RQ_REFUSED);
    check_eq(outcome(&b), RQ_REFUSED);
    all_see("SELECT count(*) FROM t", 0);
    execute("INSERT INTO t VALUES(3)");
    all_see("SELECT sum(x) FROM t", 3);
    end();
}

static void what_was_built_on_an_unknown_outcome_is_not_unknown(void)
{
    struct request a, b;
    begin();
    execute("CREATE TABLE t(x)");
    doom(&a, "INSERT INTO t VALUES(1)", &b, "INSERT INTO t VALUES(2)", RQ_UNKNOWN);
    check_eq(outcome(&a), RQ_UNKNOWN);
    check_eq(outcome(&b), RQ_AWAY);
    all_see("SELECT count(*) FROM t", 0);
    end();
}

static void next_is_refused_at_the_gate(void)
{
    log_host_order(host, RQ_REFUSED);
    log_host_gate(host, true);
}

/* Whoever settles a group hands on the next one, if the executor has it ready and sleeps, which it does a moment later. */
static void a_group_that_was_handed_on_is_refused(void)
{
    struct request a, b, c;
    begin();
    execute("CREATE TABLE t(x)");
    const unsigned before = atomic_load(&handed_on);
    const time_t until = time(NULL) + DEADLINE_S;
    int count = 0;
    do {
        log_host_gate(host, true);
        uint64_t arrived = log_host_arrived(host);
        queue(&a, "INSERT INTO t VALUES('a')");
        await(log_host_arrived(host) == arrived + 1);
        queue(&b, "INSERT INTO t VALUES('b')");
        await(atomic_load(&b.ran));
        a.then = next_is_refused_at_the_gate;
        log_host_gate(host, false);
        await(log_host_arrived(host) == arrived + 2);
        queue(&c, "INSERT INTO t VALUES('c')");
        await(atomic_load(&c.ran));
        log_host_gate(host, false);
        done_ok(&a);
        check_eq(outcome(&b), RQ_REFUSED);
        check_eq(outcome(&c), RQ_REFUSED);
        all_see("SELECT count(*) FROM t", ++count);
        all_see("SELECT count(*) FROM t WHERE x <> 'a'", 0);
    } while (atomic_load(&handed_on) == before && time(NULL) < until);
    check(atomic_load(&handed_on) > before);
    end();
}

static void change_counters_of_discarded_transactions_are_used_again(void)
{
    struct request a, b;
    begin();
    execute("CREATE TABLE t(x); INSERT INTO t VALUES(0)");
    sqlite3 *app = open_application();
    /* The executor's cache holds two discarded versions of the page; two of somebody else get the same counters. */
    doom(&a, "UPDATE t SET x = 100", &b, "UPDATE t SET x = 200", RQ_REFUSED);
    check_eq(outcome(&b), RQ_REFUSED);
    check_eq(sqlite3_exec(app, "UPDATE t SET x = 1; UPDATE t SET x = 2", NULL, NULL, NULL), SQLITE_OK);
    struct request reads;
    queue(&reads, "SELECT x FROM t");
    done_ok(&reads);
    check_eq(reads.number, 2);
    execute("UPDATE t SET x = x + 1");
    all_see("SELECT x FROM t", 3);
    sqlite3_close(app);
    end();
}

static void schema_cookies_of_discarded_transactions_are_used_again(void)
{
    struct request a, b, fails;
    begin();
    execute("CREATE TABLE t(x)");
    sqlite3 *app = open_application();
    doom(&a, "CREATE TABLE gone(a, b)", &b, "INSERT INTO gone VALUES(1, 2)", RQ_REFUSED);
    check_eq(outcome(&b), RQ_REFUSED);
    check_eq(sqlite3_exec(app, "CREATE TABLE other(c UNIQUE, d)", NULL, NULL, NULL), SQLITE_OK);
    queue(&fails, "INSERT INTO gone VALUES(3, 4)");
    check_eq(outcome(&fails), RQ_OK);
    check_eq(fails.request.code, SQLITE_ERROR);
    execute("INSERT INTO other VALUES(5, 6)");
    all_see("SELECT c FROM other WHERE c = 5", 5);
    sqlite3_close(app);
    end();
}

static void an_error_leaves_other_requests_alone(void)
{
    struct request a, bad, wrong, c, transaction, left_open;
    begin();
    execute("CREATE TABLE t(x UNIQUE)");
    log_host_gate(host, true); /* so that they share a group */
    struct request first;
    uint64_t arrived = log_host_arrived(host);
    queue(&first, "INSERT INTO t VALUES(0)");
    await(log_host_arrived(host) == arrived + 1);
    queue(&a, "INSERT INTO t VALUES(1)");
    queue(&bad, "INSERT INTO t VALUES(10), (11), (1)");
    queue(&wrong, "INSERT INTO nowhere VALUES(1)");
    queue_in(&transaction, true, "INSERT INTO t VALUES(20); INSERT INTO t VALUES(1)");
    queue(&left_open, "BEGIN; INSERT INTO t VALUES(30)");
    queue(&c, "INSERT INTO t VALUES(2)");
    await(atomic_load(&c.ran));
    log_host_gate(host, false);
    done_ok(&a);
    check_eq(outcome(&bad), RQ_OK);
    check_eq(bad.request.code & 0xff, SQLITE_CONSTRAINT);
    check_eq(outcome(&wrong), RQ_OK);
    check_eq(wrong.request.code, SQLITE_ERROR);
    check_eq(outcome(&transaction), RQ_OK);
    check_eq(transaction.request.code & 0xff, SQLITE_CONSTRAINT);
    check_eq(outcome(&left_open), RQ_OK);
    done_ok(&c);
    check_eq(log_host_arrived(host), arrived + 2);
    all_see("SELECT count(*) * 100 + sum(x) FROM t", 303);
    end();
}

static void a_transaction_is_one_version(void)
{
    struct request q;
    begin();
    execute("CREATE TABLE t(x)");
    queue_in(&q, true, "INSERT INTO t VALUES(1); INSERT INTO t VALUES(2); DELETE FROM t WHERE x = 1");
    done_ok(&q);
    check_eq(q.request.version, 2);
    all_see("SELECT sum(x) FROM t", 2);
    end();
}

/* A request of several large transactions, which go one by one: what is told of the rest does not undo the first. */
static void a_refused_request_says_what_of_it_is_committed(void)
{
#define INSERT_LARGE                                                                  \
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) " \
    "INSERT INTO t SELECT randomblob(1000) FROM n;"
    for (int passed = 0; passed < 3; passed++) {
        struct request q;
        begin();
        execute("CREATE TABLE t(x)");
        atomic_store(&until_refused, passed);
        queue(&q, INSERT_LARGE INSERT_LARGE INSERT_LARGE);
        check_eq(outcome(&q), RQ_REFUSED);
        check_eq(q.request.kept, passed > 0 ? 1 + passed : 0);
        atomic_store(&until_refused, -1);
        all_see("SELECT count(*) FROM t", 5000LL * passed);
        execute("INSERT INTO t VALUES(1)");
        all_see("SELECT count(*) FROM t", 5000LL * passed + 1);
        end();
    }
}

/* --- size --------------------------------------------------------------------------------------------------------------- */

static void a_large_transaction_is_a_group_by_itself(void)
{
    struct request first, small, large, after;
    begin();
    execute("CREATE TABLE t(x)");
    log_host_gate(host, true);
    uint64_t arrived = log_host_arrived(host);
    queue(&first, "INSERT INTO t VALUES(1)");
    await(log_host_arrived(host) == arrived + 1);
    queue(&small, "INSERT INTO t VALUES(2)");
    queue(&large,
          "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) "
          "INSERT INTO t SELECT randomblob(1000) FROM n");
    queue(&after, "INSERT INTO t VALUES(3)");
    await(atomic_load(&large.ran));
    log_host_gate(host, false);
    done_ok(&first);
    done_ok(&small);
    done_ok(&large);
    done_ok(&after);
    check_eq(log_host_arrived(host), arrived + 4);
    check_eq(log_host_stats(host).transactions_max, 1);
    all_see("SELECT count(*) FROM t", 6003);
    end();
}

static void what_no_entry_can_hold_fails_alone(void)
{
    struct request q;
    begin();
    execute("CREATE TABLE t(x)");
    queue(&q,
          "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
          "INSERT INTO t SELECT randomblob(1000) FROM n");
    check_eq(outcome(&q), RQ_TOOBIG);
    all_see("SELECT count(*) FROM t", 0);
    execute("INSERT INTO t VALUES(3)");
    all_see("SELECT count(*) FROM t", 1);
    end();
}

static void pages_that_were_cut_off_come_back_as_zeros(void)
{
    begin();
    execute("PRAGMA auto_vacuum=1; CREATE TABLE t(x); CREATE TABLE u(x)");
    for (int i = 0; i < 10; i++) {
        struct request q[3];
        queue(&q[0],
              "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) "
              "INSERT INTO t SELECT randomblob(1000) FROM n");
        queue(&q[1], "DELETE FROM t");
        queue(&q[2], "INSERT INTO u VALUES(randomblob(50000))");
        done_ok(&q[0]);
        done_ok(&q[1]);
        done_ok(&q[2]);
    }
    execute("VACUUM");
    all_see("SELECT count(*) FROM u", 10);
    end();
}

/* --- beside others ------------------------------------------------------------------------------------------------------ */

static atomic_bool goes_on;

static void endless_done(struct rq_sql_request *r, enum rq_err outcome_now)
{
    if (outcome_now == RQ_OK && atomic_load(&goes_on)) {
        rq_executor_queue(executor, r);
    } else {
        request_done(r, outcome_now);
    }
}

/* So many requests that come back as soon as they are done, until all_stop(). */
static void all_start(struct request *q, int count, const char *sql)
{
    atomic_store(&goes_on, true);
    for (int i = 0; i < count; i++) {
        memset(&q[i], 0, sizeof q[i]);
        q[i].request.run = run_sql;
        q[i].request.done = endless_done;
        q[i].outcome = -1;
        snprintf(q[i].sql, sizeof q[i].sql, "%s", sql);
        rq_executor_queue(executor, &q[i].request);
    }
}

static void all_stop(struct request *q, int count)
{
    atomic_store(&goes_on, false);
    for (int i = 0; i < count; i++) {
        done_ok(&q[i]);
    }
}

static void another_writer_gets_the_turn(void)
{
    enum { COUNT = 32, TIMES = 4 };
    static struct request q[COUNT];
    begin();
    execute("CREATE TABLE t(x); INSERT INTO t VALUES(0); CREATE TABLE u(x)");
    all_start(q, COUNT, "UPDATE t SET x = x + 1");
    sqlite3 *app = open_application();
    uint64_t groups = log_host_stats(host).groups;
    int code = SQLITE_OK;
    for (int i = 0; i < TIMES && code == SQLITE_OK; i++) {
        code = sqlite3_exec(app, "INSERT INTO u VALUES(1)", NULL, NULL, NULL);
    }
    groups = log_host_stats(host).groups - groups;
    all_stop(q, COUNT);
    check_eq(code, SQLITE_OK);
    check(groups <
          1500); /* of two pages each; after 2000 the WAL has to be emptied, for which the turn is given back, too */
    sqlite3_close(app);
    all_see("SELECT count(*) FROM u", TIMES);
    end();
}

static void a_request_waits_for_the_writer_before_it(void)
{
    struct request q;
    begin();
    execute("CREATE TABLE t(x)");
    sqlite3 *app = open_application();
    check_eq(sqlite3_exec(app, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1)", NULL, NULL, NULL), SQLITE_OK);
    queue(&q, "INSERT INTO t SELECT sum(x) + 1 FROM t");
    usleep(100000);
    check(!atomic_load(&q.ran));
    check_eq(sqlite3_exec(app, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    done_ok(&q);
    sqlite3_close(app);
    all_see("SELECT sum(x) FROM t", 3);
    end();
}

static void a_request_does_not_wait_for_ever(void)
{
    struct request q;
    begin_with(60);
    execute("CREATE TABLE t(x)");
    sqlite3 *app = open_application();
    check_eq(sqlite3_exec(app, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    queue(&q, "INSERT INTO t VALUES(1)");
    check_eq(outcome(&q), RQ_BUSY);
    check(!atomic_load(&q.ran));
    check_eq(sqlite3_exec(app, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    execute("INSERT INTO t VALUES(2)");
    sqlite3_close(app);
    all_see("SELECT sum(x) FROM t", 2);
    end();
}

/* --- carried by who brings it ------------------------------------------------------------------------------------------- */

static struct request *other;

static void queue_other(void)
{
    queue(other, "INSERT INTO t VALUES(100)");
}

/* Until one of those that come alone was carried: as soon as the executor has found out that they do, and is asleep. */
static void carry(struct request *q, bool transaction, bool takes_long, void (*within)(void))
{
    const time_t until = time(NULL) + DEADLINE_S;
    bool carried = false;
    unsigned wait_us = 0;
    execute("CREATE TABLE IF NOT EXISTS t(x); DELETE FROM t");
    while (!carried && time(NULL) < until) {
        execute("DELETE FROM t");
        wait_us += wait_us < 50000 ? 1000 : 0; /* more and more time, of which a busy machine needs some */
        usleep(wait_us);
        make(q, transaction, "INSERT INTO t VALUES(1)");
        q->takes_long = takes_long;
        q->within = within;
        rq_executor_carry(executor, &q->request);
        done_ok(q);
        carried = takes_long ? q->runs == 2 : pthread_equal(q->runner, pthread_self());
        if (within != NULL) {
            done_ok(other);
        }
    }
    check(carried);
}

static void who_brings_a_request_alone_runs_it(void)
{
    struct request q;
    for (int transaction = 0; transaction < 2; transaction++) {
        begin();
        carry(&q, transaction != 0, false, NULL);
        check_eq(q.runs, 1);
        all_see("SELECT count(*) FROM t", 1);
        end();
    }
}

static void what_takes_too_long_is_run_again_by_the_thread(void)
{
    struct request q;
    for (int transaction = 0; transaction < 2; transaction++) {
        begin();
        execute("CREATE TABLE t(x)");
        carry(&q, transaction != 0, true, NULL);
        check(!pthread_equal(q.runner, pthread_self()));
        all_see("SELECT count(*) FROM t", 1);
        end();
    }
}

static void who_carries_runs_nothing_of_others(void)
{
    struct request q, another;
    begin();
    other = &another;
    carry(&q, false, false, queue_other);
    check(!pthread_equal(another.runner, pthread_self()));
    all_see("SELECT sum(x) FROM t", 101);
    end();
}

static void who_carries_does_not_wait_for_the_turn(void)
{
    struct request q;
    bool slept = true;
    begin();
    for (int i = 0; i < 20 && slept; i++) { /* for a lock it may, which another thread has for a moment */
        carry(&q, false, false, NULL);
        sqlite3 *app = open_application();
        check_eq(sqlite3_exec(app, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
        make(&q, false, "INSERT INTO t VALUES(2)");
        const long before = sleeps();
        rq_executor_carry(executor, &q.request);
        slept = sleeps() > before;
        check(!atomic_load(&q.ran));
        check_eq(sqlite3_exec(app, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
        sqlite3_close(app);
        done_ok(&q);
        all_see("SELECT sum(x) FROM t", 3);
    }
    check(!slept);
    end();
}

static void who_comes_after_others_leaves_it_to_the_thread(void)
{
    struct request first, beside, q;
    begin();
    carry(&q, false, false, NULL);
    log_host_gate(host, true);
    uint64_t arrived = log_host_arrived(host);
    queue(&first, "INSERT INTO t VALUES(2)");
    await(log_host_arrived(host) == arrived + 1);
    queue(&beside, "SELECT 1"); /* nothing for the log: no group has been alone there since */
    log_host_gate(host, false);
    done_ok(&first);
    done_ok(&beside);
    usleep(10000); /* the thread is asleep, most likely */
    make(&q, false, "INSERT INTO t VALUES(3)");
    rq_executor_carry(executor, &q.request);
    done_ok(&q);
    check(!pthread_equal(q.runner, pthread_self()));
    end();
}

/* --- the WAL ------------------------------------------------------------------------------------------------------------ */

/* With a group in the log at all times a WAL would never be begun anew, if whoever waits for it held the WAL. */
static void the_wal_may_be_begun_anew_while_a_group_is_in_the_log(void)
{
    struct request in_log, on_top;
    begin();
    execute("CREATE TABLE t(x)"); /* is the file */
    execute("INSERT INTO t VALUES(1)");
    log_host_gate(host, true);
    uint64_t arrived = log_host_arrived(host);
    queue(&in_log, "INSERT INTO t VALUES(2)");
    await(log_host_arrived(host) == arrived + 1);
    struct rq_replica *r = local_db("app.db")->replica;
    uint32_t frames = 0;
    note_frames(&frames);
    check(frames > 0);
    check_eq(rq_replica_backfill(r), RQ_OK);
    await(rq_replica_reset(r) == RQ_OK); /* as soon as the executor is asleep */
    queue(&on_top, "INSERT INTO t SELECT sum(x) FROM t; SELECT sum(x) FROM t");
    await(atomic_load(&on_top.ran));
    check_eq(on_top.number, 6);
    log_host_gate(host, false);
    done_ok(&in_log);
    done_ok(&on_top);
    all_see("SELECT sum(x) FROM t", 6);
    end();
}

static void the_wal_stays_short_under_load(void)
{
    enum { COUNT = 64 };
    static struct request q[COUNT];
    begin();
    execute("CREATE TABLE t(x, y); CREATE INDEX t_x ON t(x)");
    all_start(q, COUNT, "INSERT INTO t VALUES(random(), randomblob(2000))");
    uint32_t frames_max = 0;
    await((note_frames(&frames_max), log_host_stats(host).pages > 25000));
    all_stop(q, COUNT);
    check(frames_max < 10000);
    sqlite3 *stock = open_stock();
    check(sound(stock));
    sqlite3_close(stock);
    end();
}

/* --- all at once -------------------------------------------------------------------------------------------------------- */

static void told_is_there(unsigned waits_of_100)
{
    enum { COUNT = 2000 };
    static struct request q[COUNT];
    uint64_t random = 4711;
    begin();
    execute("CREATE TABLE t(x INTEGER PRIMARY KEY, y)");
    sqlite3 *app = open_application();
    char sql[100];
    for (int i = 0; i < COUNT; i++) {
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%d, randomblob(%u))", i, seeded_below(&random, 3000));
        make(&q[i], seeded_below(&random, 2) == 0, sql);
        q[i].takes_long = seeded_below(&random, 4) == 0;
        rq_executor_carry(executor, &q[i].request);
        if (seeded_below(&random, 50) == 0) {
            log_host_order(host, seeded_below(&random, 2) == 0 ? RQ_REFUSED : RQ_UNKNOWN);
        }
        if (seeded_below(&random, 100) < waits_of_100) {
            (void)outcome(&q[i]);
        }
        if (seeded_below(&random, 100) == 0) {
            (void)outcome(&q[i]);
            snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%d, 0)", COUNT + i);
            check_eq(sqlite3_exec(app, sql, NULL, NULL, NULL), SQLITE_OK);
        }
    }
    int kept = 0, failed = 0;
    for (int i = 0; i < COUNT; i++) {
        bool ok = outcome(&q[i]) == RQ_OK;
        check(!ok || q[i].request.code == SQLITE_OK);
        kept += ok;
        failed += !ok;
        snprintf(sql, sizeof sql, "SELECT count(*) FROM t WHERE x = %d", i);
        check_eq(number(app, sql), ok);
    }
    check(failed > 0);
    snprintf(sql, sizeof sql, "SELECT count(*) FROM t WHERE x < %d", COUNT);
    all_see(sql, kept);
    sqlite3_close(app);
    end();
}

static void what_is_told_is_what_is_there(void)
{
    told_is_there(0);
}

static void what_is_told_of_those_that_come_alone_is_there(void)
{
    told_is_there(80);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(the_first_request_makes_the_database),
        TAP(requests_run_in_order_each_on_top_of_the_last),
        TAP(an_outcome_is_told_only_when_it_is_durable),
        TAP(nobody_else_sees_what_is_not_durable),
        TAP(a_refused_group_takes_the_later_ones_with_it),
        TAP(what_was_built_on_an_unknown_outcome_is_not_unknown),
        TAP(a_group_that_was_handed_on_is_refused),
        TAP(change_counters_of_discarded_transactions_are_used_again),
        TAP(schema_cookies_of_discarded_transactions_are_used_again),
        TAP(an_error_leaves_other_requests_alone),
        TAP(a_transaction_is_one_version),
        TAP(a_refused_request_says_what_of_it_is_committed),
        TAP(a_large_transaction_is_a_group_by_itself),
        TAP(what_no_entry_can_hold_fails_alone),
        TAP(pages_that_were_cut_off_come_back_as_zeros),
        TAP(another_writer_gets_the_turn),
        TAP(a_request_waits_for_the_writer_before_it),
        TAP(a_request_does_not_wait_for_ever),
        TAP(the_wal_may_be_begun_anew_while_a_group_is_in_the_log),
        TAP(the_wal_stays_short_under_load),
        TAP(what_is_told_is_what_is_there),
        TAP(what_is_told_of_those_that_come_alone_is_there),
        TAP(who_brings_a_request_alone_runs_it),
        TAP(what_takes_too_long_is_run_again_by_the_thread),
        TAP(who_carries_runs_nothing_of_others),
        TAP(who_carries_does_not_wait_for_the_turn),
        TAP(who_comes_after_others_leaves_it_to_the_thread),
    };
    const struct rq_shim_config config = { .disk = rq_disk_real(), .sink_new = sink_new };
    snprintf(base_dir, sizeof base_dir, "/tmp/rq-executor-XXXXXX");
    if (mkdtemp(base_dir) == NULL || rq_shim_register(&config) != SQLITE_OK) {
        return 2;
    }
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", "--", base_dir, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
    return failed;
}
