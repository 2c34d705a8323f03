/* Group commit: single-row INSERTs into a table with one secondary index, each a durable transaction of its own; native SQLite
 * (WAL, synchronous=FULL, which does not get faster with more clients) and the executor with so many requests in flight.
 *
 * The executor's groups go through a real node, log and replica on the same disk (tests/support/one_host.h).  Both sides
 * alternate; figures are medians.  Nothing here is a test.
 *
 *   bench_group [--dir DIR] [--rounds N] [--seconds S] [--verbose]
 *
 * DIR must be on the disk to be measured.  What is in it under bench-group/ is deleted. */
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/one_host.h"
#include "vfs/shim.h"

#define ROUNDS_MAX 16
#define FLIGHT_MAX 512

#define SCHEMA                                                                          \
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT); CREATE INDEX t_b ON t(b); " \
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "  \
    "INSERT INTO t SELECT i, 'a row of some forty bytes, as usual ...', i % 100 FROM n"
#define INSERT "INSERT INTO t(a, b) VALUES('a row of some forty bytes, as usual ...', ?)"

static char root_dir[512];
static int rounds = 5;
static double seconds = 1.0;
static int verbose;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(int code, const char *what)
{
    if (code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_ROW) {
        fprintf(stderr, "bench_group: %s: %s (%d)\n", what, sqlite3_errstr(code), code);
        exit(1);
    }
}

static void remove_tree(const char *path)
{
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", "--", path, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
}

static int insert(sqlite3_stmt *s, unsigned i)
{
    sqlite3_bind_int64(s, 1, (sqlite3_int64)(i * 2654435761u % 100u));
    (void)sqlite3_step(s);
    return sqlite3_reset(s);
}

/* --- native ------------------------------------------------------------------------------------------------------------- */

static double native(void)
{
    static unsigned database_count;
    char path[700];
    sqlite3 *db;
    sqlite3_stmt *s;
    snprintf(path, sizeof path, "%s/plain/native%u.db", root_dir, database_count++);
    must(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix"), "open");
    must(sqlite3_exec(db, "PRAGMA journal_mode=wal; PRAGMA synchronous=full;" SCHEMA, NULL, NULL, NULL), "schema");
    must(sqlite3_prepare_v2(db, INSERT, -1, &s, NULL), INSERT);
    unsigned count = 0;
    const double start = now();
    while (now() - start < seconds) {
        must(insert(s, count++), "insert");
    }
    const double rate = count / (now() - start);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return rate;
}

/* --- ours --------------------------------------------------------------------------------------------------------------- */

struct client {
    struct rq_sql_request request; /* first */
    unsigned done;
    double queued_at, wait_max;
};

static struct client clients[FLIGHT_MAX];
static struct one_host *host;
static struct rq_executor *executor;
static sqlite3_stmt *statement;
static atomic_uint running;
static double until;

static int run_schema(struct rq_sql_request *r, sqlite3 *db)
{
    (void)r;
    int code = sqlite3_exec(db, SCHEMA, NULL, NULL, NULL);
    return code == SQLITE_OK ? sqlite3_prepare_v3(db, INSERT, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) : code;
}

static void schema_done(struct rq_sql_request *r, enum rq_err outcome)
{
    must(r->code, "schema");
    must(outcome == RQ_OK ? SQLITE_OK : SQLITE_ERROR, rq_err_text(outcome));
    atomic_store(&running, 0);
}

static int run_insert(struct rq_sql_request *r, sqlite3 *db)
{
    (void)db;
    struct client *c = (struct client *)r;
    return insert(statement, (unsigned)(c - clients) + c->done * 7919u);
}

static void insert_done(struct rq_sql_request *r, enum rq_err outcome)
{
    struct client *c = (struct client *)r;
    must(r->code, "insert");
    must(outcome == RQ_OK ? SQLITE_OK : SQLITE_ERROR, rq_err_text(outcome));
    const double t = now();
    c->done++;
    c->wait_max = t - c->queued_at > c->wait_max ? t - c->queued_at : c->wait_max;
    c->queued_at = t;
    if (t < until) {
        rq_executor_queue(executor, r);
    } else {
        atomic_fetch_sub(&running, 1);
    }
}

static void await_all(void)
{
    while (atomic_load(&running) > 0) {
        usleep(500);
    }
}

static double ours(unsigned in_flight, double *ret_wait_max)
{
    static unsigned database_count;
    char name[32], path[700];
    snprintf(name, sizeof name, "group%u.db", database_count++);
    snprintf(path, sizeof path, "%s/%s", root_dir, name);
    struct rq_database *db = one_host_create(host, name);
    const struct rq_executor_config config = { .path = path, .host = rq_database_executor_host(db) };
    must(rq_executor_new(&config, &executor) == RQ_OK ? SQLITE_OK : SQLITE_NOMEM, "executor");

    struct rq_sql_request schema = { .transaction = true, .run = run_schema, .done = schema_done };
    atomic_store(&running, 1);
    rq_executor_queue(executor, &schema);
    await_all();

    struct rq_log_stats before, after;
    one_host_log_stats(host, &before);
    const double start = now();
    until = start + seconds;
    atomic_store(&running, in_flight);
    for (unsigned i = 0; i < in_flight; i++) {
        clients[i] = (struct client){ .request = { .run = run_insert, .done = insert_done }, .queued_at = now() };
        rq_executor_queue(executor, &clients[i].request);
    }
    await_all();
    const double elapsed = now() - start;
    double count = 0;
    for (unsigned i = 0; i < in_flight; i++) {
        count += clients[i].done;
        *ret_wait_max = clients[i].wait_max > *ret_wait_max ? clients[i].wait_max : *ret_wait_max;
    }
    one_host_log_stats(host, &after);
    if (verbose) {
        const double groups = (double)(after.entries - before.entries);
        printf("  %u in flight: %.0f/s; groups of %.0f, %.0f us each; longest wait %.1f ms\n", in_flight,
               count / elapsed, count / groups, elapsed / groups * 1e6, *ret_wait_max * 1e3);
    }
    rq_executor_free(executor);
    rq_database_unref(db);
    return count / elapsed;
}

/* --- the table ---------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values)
{
    qsort(values, (size_t)rounds, sizeof *values, by_value);
    return values[rounds / 2];
}

static void row(unsigned in_flight, const char *goal)
{
    double native_rates[ROUNDS_MAX], our_rates[ROUNDS_MAX], wait_max = 0;
    for (int i = 0; i < rounds; i++) {
        native_rates[i] = native();
        our_rates[i] = ours(in_flight, &wait_max);
    }
    const double a = median(native_rates), b = median(our_rates);
    printf("| in-process group commit, %u in flight; longest wait %.1f ms | %.0f/s | %.0f/s | **%.1f** | %s |\n",
           in_flight, wait_max * 1e3, a, b, b / a, goal);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *dir = ".";
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--verbose") == 0) {
            verbose = 1;
        } else if (strcmp(argv[i], "--dir") == 0) {
            dir = value;
            i++;
        } else if (strcmp(argv[i], "--rounds") == 0) {
            rounds = (int)strtol(value, NULL, 10);
            i++;
        } else if (strcmp(argv[i], "--seconds") == 0) {
            seconds = strtod(value, NULL);
            i++;
        } else {
            rounds = 0;
        }
    }
    if (rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: bench_group [--dir DIR] [--rounds 1..%d] [--seconds S] [--verbose]\n", ROUNDS_MAX);
        return 2;
    }
    char absolute[400];
    if (realpath(dir, absolute) == NULL) {
        perror(dir);
        return 2;
    }
    snprintf(root_dir, sizeof root_dir, "%s/bench-group", absolute);
    remove_tree(root_dir);
    mkdir(root_dir, 0755);
    const struct rq_shim_config shim = { .disk = rq_disk_real(), .sink_new = rq_executor_sink_new };
    must(rq_shim_register(&shim), "register");
    char plain[600];
    snprintf(plain, sizeof plain, "%s/plain", root_dir);
    host = one_host_new(root_dir);
    mkdir(plain, 0755);
    printf("| work | native | rqvfs | ratio | at least |\n|---|---|---|---|---|\n");
    row(64, "10");
    row(512, "20");
    one_host_free(host);
    remove_tree(root_dir);
    return 0;
}
