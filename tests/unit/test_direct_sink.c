/* direct sink: a connection of raftd's own commits like an application's; an outcome that comes late can still be had. */
#include <pthread.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raftd/db/database.h"
#include "raftd/db/direct_sink.h"
#include "raftd/db/executor.h"
#include "raftd/run/clock.h"
#include "tests/support/one_host.h"
#include "tests/support/stock.h"
#include "tests/support/tap.h"
#include "vfs/shim.h"

#define DEADLINE_MS 20000u

static char dir[64], staged_dir[100];
static struct one_host *host;

struct fixture {
    struct rq_database *db;
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
    return f;
}

struct connection {
    sqlite3 *db;
    struct rq_direct_sink *sink;
};

static struct connection open_direct(const struct fixture *f)
{
    struct connection c;
    check_eq(sqlite3_open_v2(f->path, &c.db, SQLITE_OPEN_READWRITE, "rqvfs"), SQLITE_OK);
    sqlite3_extended_result_codes(c.db, 1);
    check_eq(rq_direct_sink_new(f->db, rq_disk_real(), staged_dir, &c.sink), RQ_OK);
    check_eq(sqlite3_file_control(c.db, "main", RQ_FCNTL_SINK, rq_direct_sink_sink(c.sink)), SQLITE_OK);
    rq_direct_sink_set_deadline(c.sink, rq_clock_ms() + DEADLINE_MS);
    return c;
}

static void close_direct(struct connection *c)
{
    check_eq(sqlite3_close(c->db), SQLITE_OK);
    rq_direct_sink_unref(c->sink);
}

static int run(struct connection *c, const char *sql)
{
    return sqlite3_exec(c->db, sql, NULL, NULL, NULL);
}

static long long number(const struct fixture *f, const char *sql)
{
    return stock_number(f->path, sql);
}

static int in_the_way(struct connection *c)
{
    int answer = -1;
    check_eq(sqlite3_file_control(c->db, "main", RQ_FCNTL_IN_THE_WAY, &answer), SQLITE_OK);
    return answer;
}

/* --- tests -------------------------------------------------------------------------------------------------------------- */

static void what_it_commits_is_there_also_when_it_is_large(void)
{
    struct fixture f = begin();
    struct connection c = open_direct(&f);
    check_eq(rq_direct_sink_outcome(c.sink, 0), RQ_NOTFOUND);
    check_eq(run(&c, "CREATE TABLE t(x)"), SQLITE_OK);
    check_eq(rq_direct_sink_outcome(c.sink, 0), RQ_OK);
    check_eq(run(&c, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)"), SQLITE_OK);
    check_eq(number(&f, "SELECT count(*) FROM t"), 0);
    check_eq(run(&c, "COMMIT"), SQLITE_OK);
    check_eq(number(&f, "SELECT count(*) FROM t"), 2);
    check_eq(run(&c, "INSERT INTO t SELECT randomblob(1000000) FROM (VALUES(1),(2),(3),(4),(5),(6),(7),(8))"),
             SQLITE_OK);
    check_eq(number(&f, "SELECT sum(length(x)) FROM t"), 8000002);
    check_eq(run(&c, "BEGIN; INSERT INTO t VALUES(3); ROLLBACK"), SQLITE_OK);
    check_eq(number(&f, "SELECT count(*) FROM t"), 10);
    close_direct(&c);
    rq_database_unref(f.db);
}

static void *begin_and_wait(void *arg)
{
    struct connection *c = arg;
    sqlite3_busy_timeout(c->db, (int)DEADLINE_MS);
    return (void *)(intptr_t)run(c, "BEGIN IMMEDIATE; INSERT INTO t VALUES(2); COMMIT");
}

static void connections_take_turns_and_one_that_is_waited_for_knows_it(void)
{
    struct fixture f = begin();
    struct connection a = open_direct(&f), b = open_direct(&f);
    pthread_t thread;
    void *code;
    check_eq(run(&a, "CREATE TABLE t(x)"), SQLITE_OK);
    check_eq(in_the_way(&a), 0);
    check_eq(run(&a, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1)"), SQLITE_OK);
    check_eq(run(&b, "BEGIN IMMEDIATE"), SQLITE_BUSY);
    check_eq(in_the_way(&a), 0); /* who does not sleep for it does not wait */
    check_eq(sqlite3_file_control(a.db, "main", RQ_FCNTL_SINK, rq_direct_sink_sink(a.sink)), SQLITE_MISUSE);
    check_eq(pthread_create(&thread, NULL, begin_and_wait, &b), 0);
    const uint64_t until = rq_clock_ms() + DEADLINE_MS;
    while (in_the_way(&a) == 0 && rq_clock_ms() < until) {
        usleep(200);
    }
    check_eq(in_the_way(&a), 1);
    check_eq(run(&a, "COMMIT"), SQLITE_OK);
    pthread_join(thread, &code);
    check_eq((intptr_t)code, SQLITE_OK);
    check_eq(in_the_way(&a), 0);
    check_eq(number(&f, "SELECT sum(x) FROM t"), 3);
    close_direct(&a);
    close_direct(&b);
    rq_database_unref(f.db);
}

struct stop {
    struct rq_task task; /* first */
    sem_t begun, ends;
};

static void run_stop(struct rq_task *task)
{
    struct stop *s = (struct stop *)task;
    sem_post(&s->begun);
    sem_wait(&s->ends);
}

static void an_outcome_that_comes_late_is_kept(void)
{
    struct fixture f = begin();
    struct connection c = open_direct(&f);
    struct stop stop = { .task = { .run = run_stop } };
    sem_init(&stop.begun, 0, 0);
    sem_init(&stop.ends, 0, 0);
    check_eq(run(&c, "CREATE TABLE t(x)"), SQLITE_OK);
    rq_strand_post(rq_database_strand(f.db), &stop.task, RQ_HAND_OVER);
    sem_wait(&stop.begun);
    rq_direct_sink_set_deadline(c.sink, rq_clock_ms() + 20);
    check_eq(run(&c, "INSERT INTO t VALUES(1)"), RQVFS_IOERR_UNKNOWN);
    check_eq(rq_direct_sink_outcome(c.sink, 0), RQ_UNKNOWN);
    check_eq(sqlite3_close(c.db), SQLITE_OK);
    sem_post(&stop.ends);
    check_eq(rq_direct_sink_outcome(c.sink, rq_clock_ms() + DEADLINE_MS), RQ_OK);
    check_eq(number(&f, "SELECT count(*) FROM t"), 1);
    rq_direct_sink_unref(c.sink);
    rq_database_unref(f.db);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(what_it_commits_is_there_also_when_it_is_large),
        TAP(connections_take_turns_and_one_that_is_waited_for_knows_it),
        TAP(an_outcome_that_comes_late_is_kept),
    };
    snprintf(dir, sizeof dir, "/tmp/rq-direct-XXXXXX");
    if (mkdtemp(dir) == NULL || rq_executor_register(NULL) != RQ_OK) {
        return 2;
    }
    snprintf(staged_dir, sizeof staged_dir, "%s/raft/staged", dir);
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
