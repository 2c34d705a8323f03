/* Side by side: native SQLite in WAL mode with synchronous=FULL, and the same through rqvfs and raftd.
 *
 * Both sides run alternately in one process tree on one disk; each figure is the median of the rounds.  Output is the table of
 * docs/benchmarks.md.  Nothing here is a test: a timing never passes or fails.
 *
 *   bench --raftd PATH --ext PATH [--dir DIR] [--only NAME] [--rounds N] [--seconds S] [--rows N]
 *
 * DIR must be on the disk to be measured (not tmpfs).  What is in it under bench-native/ and bench-node/ is deleted. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/raftd_process.h"

#define ROUNDS_MAX  16
#define WRITERS_MAX 64

static const char *raftd_path, *ext_path, *only, *dir = ".";
static int rounds = 3;
static double seconds = 1.0;
static int rows_small = 10000, rows_hot = 200000, rows_cold = 1000000;
static char node_dir[512], native_dir[512];
static pid_t raftd_pid;

enum side { NATIVE, OURS };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    if (raftd_pid > 0) {
        kill(raftd_pid, SIGKILL);
    }
    _exit(1);
}

static void must(sqlite3 *db, int rc, const char *what)
{
    if (rc != SQLITE_OK && rc != SQLITE_DONE && rc != SQLITE_ROW) {
        die("bench: %s: %s (%d)", what, db != NULL ? sqlite3_errmsg(db) : "", rc);
    }
}

static void run_sql(sqlite3 *db, const char *sql)
{
    must(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

static sqlite3 *open_database(enum side side, const char *name)
{
    sqlite3 *db;
    char uri[1100];
    if (side == NATIVE) {
        snprintf(uri, sizeof uri, "file:%s/%s", native_dir, name);
    } else {
        snprintf(uri, sizeof uri, "file:%s/%s?vfs=rqvfs", node_dir, name);
    }
    int rc = sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    must(db, rc, uri);
    sqlite3_busy_timeout(db, 60000);
    if (side == NATIVE) {
        run_sql(db, "PRAGMA journal_mode=wal; PRAGMA synchronous=full");
    }
    return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *s;
    must(db, sqlite3_prepare_v2(db, sql, -1, &s, NULL), sql);
    return s;
}

static void step_once(sqlite3 *db, sqlite3_stmt *s)
{
    int rc = sqlite3_step(s);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW) {
        die("bench: step: %s (%d)", sqlite3_errmsg(db), rc);
    }
    sqlite3_reset(s);
}

/* --- the daemon -------------------------------------------------------------------------------------------------------- */

static void start_raftd(void)
{
    char log[600];
    snprintf(log, sizeof log, "%s.log", node_dir);
    raftd_pid = raftd_spawn(&(struct raftd_place){ raftd_path, node_dir, log, "localhost:24001", "localhost:24002" });
}

/* Until a first read through rqvfs works. */
static void await_raftd(void)
{
    for (double until = now() + 20;;) {
        sqlite3 *db;
        char uri[1100];
        snprintf(uri, sizeof uri, "file:%s/%s?vfs=rqvfs", node_dir, "ready.db");
        int rc = sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
        if (rc == SQLITE_OK) {
            rc = sqlite3_exec(db, "CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES(1)", NULL, NULL, NULL);
        }
        sqlite3_close(db);
        if (rc == SQLITE_OK) {
            return;
        }
        if (now() > until) {
            die("bench: raftd does not become ready: see %s.log", node_dir);
        }
        usleep(1000);
    }
}

/* --- work: each returns operations per second -------------------------------------------------------------------------- */

struct shared {       /* between the processes of one measurement */
    atomic_int ready; /* workers that wait for go */
    atomic_bool go;
    volatile double until;
    volatile uint64_t done[WRITERS_MAX];
    volatile double wait_max[WRITERS_MAX];
};
static struct shared *shared;

typedef void (*worker)(enum side side, int number);

/* Runs workers as processes at once for the duration; the sum of what they did per second. */
static double run_workers(enum side side, worker work, int count, double duration)
{
    memset((void *)shared, 0, sizeof *shared);
    pid_t pids[WRITERS_MAX];
    const double patience = now() + 60;
    for (int i = 0; i < count; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            raftd_pid = 0;
            work(side, i);
            _exit(0);
        }
    }
    while (atomic_load(&shared->ready) < count) {
        if (now() > patience) {
            die("bench: a worker does not become ready");
        }
        usleep(1000);
    }
    double start = now();
    shared->until = start + duration;
    atomic_store(&shared->go, true);
    for (int i = 0; i < count; i++) {
        int status;
        waitpid(pids[i], &status, 0);
        if (status != 0) {
            die("bench: a worker failed");
        }
    }
    double elapsed = now() - start;
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) {
        sum += shared->done[i];
    }
    return (double)sum / elapsed;
}

/* A worker has opened and prepared: all start together, when the last one has. */
static void await_go(void)
{
    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load(&shared->go)) {
        usleep(200);
    }
}

static void fill(sqlite3 *db, int rows)
{
    run_sql(db, "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v TEXT)");
    sqlite3_stmt *count = prepare(db, "SELECT count(*) FROM t");
    sqlite3_step(count);
    int have = sqlite3_column_int(count, 0);
    sqlite3_finalize(count);
    if (have >= rows) {
        return;
    }
    char sql[300];
    snprintf(sql, sizeof sql,
             "DELETE FROM t; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) "
             "INSERT INTO t SELECT i, printf('%%0100d', i) FROM n",
             rows);
    run_sql(db, sql);
}

static void select_worker(enum side side, int number, const char *name, int rows, bool warm)
{
    sqlite3 *db = open_database(side, name);
    if (warm) {
        run_sql(db, "PRAGMA cache_size=-400000");
        run_sql(db, "SELECT sum(length(v)) FROM t");
    }
    sqlite3_stmt *s = prepare(db, "SELECT v FROM t WHERE id=?");
    uint64_t x = 88172645463325252ull + (uint64_t)number, n = 0;
    await_go();
    while (now() < shared->until) {
        for (int i = 0; i < 200; i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            sqlite3_bind_int(s, 1, (int)(x % (uint64_t)rows) + 1);
            step_once(db, s);
        }
        n += 200;
    }
    shared->done[number] = n;
    sqlite3_finalize(s);
    sqlite3_close(db);
}
static void select_small_worker(enum side side, int number)
{
    select_worker(side, number, "small.db", rows_small, true);
}
static void select_hot_worker(enum side side, int number)
{
    select_worker(side, number, "hot.db", rows_hot, true);
}
static void select_cold_worker(enum side side, int number)
{
    select_worker(side, number, "cold.db", rows_cold, false);
}

static double select_small(enum side side)
{
    return run_workers(side, select_small_worker, 1, seconds);
}
static double select_hot_1(enum side side)
{
    return run_workers(side, select_hot_worker, 1, seconds);
}
static double select_hot_2(enum side side)
{
    return run_workers(side, select_hot_worker, 2, seconds);
}
static double select_cold(enum side side)
{
    return run_workers(side, select_cold_worker, 1, seconds);
}

static void scan_worker(enum side side, int number)
{
    sqlite3 *db = open_database(side, "cold.db");
    sqlite3_stmt *s = prepare(db, "SELECT sum(length(v)) FROM t");
    uint64_t n = 0;
    await_go();
    do {
        step_once(db, s);
        n++;
    } while (now() < shared->until);
    shared->done[number] = n;
    sqlite3_finalize(s);
    sqlite3_close(db);
}
static double scan(enum side side)
{
    return run_workers(side, scan_worker, 1, seconds);
}

static void open_worker(enum side side, int number)
{
    sqlite3 *keeper = open_database(side, "hot.db");
    run_sql(keeper, "SELECT count(*) FROM sqlite_schema");
    uint64_t n = 0;
    await_go();
    while (now() < shared->until) {
        sqlite3 *db;
        char uri[1100];
        snprintf(uri, sizeof uri, side == NATIVE ? "file:%s/hot.db" : "file:%s/hot.db?vfs=rqvfs",
                 side == NATIVE ? native_dir : node_dir);
        must(NULL, sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, NULL), "open");
        sqlite3_stmt *s = prepare(db, "SELECT v FROM t WHERE id=77");
        step_once(db, s);
        sqlite3_finalize(s);
        sqlite3_close(db);
        n++;
    }
    shared->done[number] = n;
    sqlite3_close(keeper);
}
static double open_close(enum side side)
{
    return run_workers(side, open_worker, 1, seconds);
}

/* Worker 0 reads, worker 1 writes at 1000 commits/s. */
static void beside_worker(enum side side, int number)
{
    if (number == 0) {
        select_hot_worker(side, 0);
        return;
    }
    sqlite3 *db = open_database(side, "hot.db");
    run_sql(db, "CREATE TABLE IF NOT EXISTS w(id INTEGER PRIMARY KEY, v TEXT)");
    sqlite3_stmt *s = prepare(db, "INSERT INTO w(v) VALUES('steady')");
    await_go();
    for (double next = now(); now() < shared->until; next += 0.001) {
        step_once(db, s);
        double left = next - now();
        if (left > 0) {
            usleep((useconds_t)(left * 1e6));
        }
    }
    shared->done[1] = 0;
    sqlite3_finalize(s);
    sqlite3_close(db);
}
static double read_beside(enum side side)
{
    return run_workers(side, beside_worker, 2, seconds);
}

static void insert_loop(enum side side, int number, const char *name, int statements)
{
    sqlite3 *db = open_database(side, name);
    run_sql(db, "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a TEXT, b INT)");
    sqlite3_stmt *s = prepare(db, "INSERT INTO t(a,b) VALUES('a row of some forty bytes, as usual ...', ?)");
    sqlite3_stmt *begin = prepare(db, "BEGIN IMMEDIATE"), *commit = prepare(db, "COMMIT");
    uint64_t n = 0;
    await_go();
    while (now() < shared->until) {
        double start = now();
        if (statements > 1) {
            step_once(db, begin);
        }
        for (int i = 0; i < statements; i++) {
            sqlite3_bind_int(s, 1, i);
            step_once(db, s);
        }
        if (statements > 1) {
            step_once(db, commit);
        }
        double wait = now() - start;
        if (wait > shared->wait_max[number]) {
            shared->wait_max[number] = wait;
        }
        n++;
    }
    shared->done[number] = n;
    sqlite3_finalize(s);
    sqlite3_finalize(begin);
    sqlite3_finalize(commit);
    sqlite3_close(db);
}
static void insert_worker(enum side side, int number)
{
    insert_loop(side, number, "write.db", 1);
}
static void tx10_worker(enum side side, int number)
{
    insert_loop(side, number, "write.db", 10);
}
static void many_worker(enum side side, int number)
{
    char name[32];
    snprintf(name, sizeof name, "many%d.db", number);
    insert_loop(side, number, name, 1);
}
static double insert_1(enum side side)
{
    return run_workers(side, insert_worker, 1, seconds);
}
static double tx10(enum side side)
{
    return run_workers(side, tx10_worker, 1, seconds);
}
static double share_min[2], wait_max[2]; /* of the last run of writers, worst over the rounds */
static double writers(enum side side, int count)
{
    double rate = run_workers(side, insert_worker, count, seconds * 2);
    uint64_t least = UINT64_MAX, sum = 0;
    double longest = 0;
    for (int i = 0; i < count; i++) {
        least = shared->done[i] < least ? shared->done[i] : least;
        sum += shared->done[i];
        longest = shared->wait_max[i] > longest ? shared->wait_max[i] : longest;
    }
    share_min[side] = sum > 0 ? 100.0 * (double)least / (double)sum : 0;
    wait_max[side] = longest * 1000;
    return rate;
}
static double writers_4(enum side side)
{
    return writers(side, 4);
}
static double writers_64(enum side side)
{
    return writers(side, 64);
}
static double databases_8(enum side side)
{
    return run_workers(side, many_worker, 8, seconds * 2);
}

static double bulk(enum side side)
{
    sqlite3 *db = open_database(side, "bulk.db");
    run_sql(db, "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v TEXT)");
    run_sql(db, "DELETE FROM t");
    sqlite3_stmt *s = prepare(db, "INSERT INTO t(v) VALUES(?)");
    double start = now();
    run_sql(db, "BEGIN");
    char text[101];
    for (int i = 0; i < rows_cold; i++) {
        snprintf(text, sizeof text, "%0100d", i);
        sqlite3_bind_text(s, 1, text, 100, SQLITE_STATIC);
        step_once(db, s);
    }
    run_sql(db, "COMMIT");
    double rate = rows_cold / (now() - start);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return rate;
}

/* --- the disk ----------------------------------------------------------------------------------------------------------- */

struct disk_counters {
    uint64_t sectors_written, flushes;
};

static struct disk_counters disk_counters(void)
{
    struct disk_counters c = { 0, 0 };
    struct stat st;
    char path[128], line[512];
    if (stat(dir, &st) != 0) {
        return c;
    }
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/stat", major(st.st_dev), minor(st.st_dev));
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return c;
    }
    unsigned long long v[17] = { 0 };
    if (fgets(line, sizeof line, f) != NULL) {
        int n = 0;
        for (char *p = line, *end; n < 17; n++, p = end) {
            v[n] = strtoull(p, &end, 10);
            if (end == p) {
                break;
            }
        }
    }
    fclose(f);
    c.sectors_written = v[6];
    c.flushes = v[15];
    return c;
}

/* The disk alone: 4 KiB overwrites, each followed by fdatasync. */
static double disk_syncs(void)
{
    char path[600];
    snprintf(path, sizeof path, "%s/bench-disk", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    static char block[1 << 20];
    for (int i = 0; i < 16; i++) {
        if (write(fd, block, sizeof block) != (ssize_t)sizeof block) {
            die("bench: %s: %s", path, strerror(errno));
        }
    }
    fsync(fd);
    double start = now();
    int n = 0;
    while (now() < start + seconds) {
        if (pwrite(fd, block, 4096, (off_t)(n % 4096) * 4096) != 4096 || fdatasync(fd) != 0) {
            die("bench: %s: %s", path, strerror(errno));
        }
        n++;
    }
    close(fd);
    unlink(path);
    return n / (now() - start);
}

static void report_bytes(void)
{
    double bytes[2], flushes[2];
    for (int side = NATIVE; side <= OURS; side++) {
        sync();
        struct disk_counters a = disk_counters();
        run_workers((enum side)side, insert_worker, 1, seconds * 3);
        uint64_t commits = shared->done[0];
        struct disk_counters mid = disk_counters();
        sync();
        struct disk_counters b = disk_counters();
        bytes[side] = (double)(b.sectors_written - a.sectors_written) * 512 / (double)commits;
        flushes[side] = (double)(mid.flushes - a.flushes) / (double)commits;
    }
    printf("| bytes that reach the disk per small commit | %.0f | %.0f | %.2f | <= 1.5 |\n", bytes[0], bytes[1],
           bytes[1] / bytes[0]);
    printf("| device flushes per commit, 1 writer | %.2f | %.2f | %.2f | >= 1 each |\n", flushes[0], flushes[1],
           flushes[1] / flushes[0]);
}

/* kill -9, start, first commit; and the same in size: cold.db is some 120 MB, bulk.db likewise. */
static void report_restart(void)
{
    double times[5];
    for (int i = 0; i < 5; i++) {
        kill(raftd_pid, SIGKILL);
        waitpid(raftd_pid, NULL, 0);
        double start = now();
        start_raftd();
        await_raftd();
        times[i] = now() - start;
    }
    double sum = 0;
    for (int i = 0; i < 5; i++) {
        sum += times[i];
    }
    printf("| start after kill -9 to first commit, mean of 5 | - | %.3f s | - | < 0.5 s |\n", sum / 5);
}

/* --- the table ----------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void row(const char *name, const char *what, double (*work)(enum side), const char *goal)
{
    if (only != NULL && strstr(name, only) == NULL) {
        return;
    }
    double figure[2][ROUNDS_MAX], share[2] = { 100, 100 }, wait[2] = { 0, 0 };
    for (int i = 0; i < rounds; i++) {
        for (int side = NATIVE; side <= OURS; side++) {
            share_min[side] = -1;
            figure[side][i] = work((enum side)side);
            if (share_min[side] >= 0) {
                share[side] = share_min[side] < share[side] ? share_min[side] : share[side];
                wait[side] = wait_max[side] > wait[side] ? wait_max[side] : wait[side];
            }
        }
    }
    for (int side = NATIVE; side <= OURS; side++) {
        qsort(figure[side], (size_t)rounds, sizeof(double), by_value);
    }
    double a = figure[NATIVE][rounds / 2], b = figure[OURS][rounds / 2];
    printf("| %s | %.0f/s | %.0f/s | **%.2f** | %s |\n", what, a, b, b / a, goal);
    if (wait[OURS] > 0) {
        printf(
            "| - slowest one's share; longest wait | %.1f %%; %.1f ms | %.1f %%; %.1f ms | | 4 writers: 20 %%; 20 ms "
            "|\n",
            share[0], wait[0], share[1], wait[1]);
    }
    fflush(stdout);
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

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *flag = argv[i], *value = argv[i + 1];
        if (strcmp(flag, "--raftd") == 0) {
            raftd_path = value;
        } else if (strcmp(flag, "--ext") == 0) {
            ext_path = value;
        } else if (strcmp(flag, "--dir") == 0) {
            dir = value;
        } else if (strcmp(flag, "--only") == 0) {
            only = value;
        } else if (strcmp(flag, "--rounds") == 0) {
            rounds = (int)strtol(value, NULL, 10);
        } else if (strcmp(flag, "--seconds") == 0) {
            seconds = strtod(value, NULL);
        } else if (strcmp(flag, "--rows") == 0) {
            rows_cold = (int)strtol(value, NULL, 10);
        } else {
            die("bench: unknown flag %s", flag);
        }
    }
    if (raftd_path == NULL || ext_path == NULL || rounds < 1 || rounds > ROUNDS_MAX) {
        die("usage: bench --raftd PATH --ext PATH [--dir DIR] [--only NAME] [--rounds 1..%d] [--seconds S] [--rows N]",
            ROUNDS_MAX);
    }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(node_dir, sizeof node_dir, "%s/bench-node", dir);
    snprintf(native_dir, sizeof native_dir, "%s/bench-native", dir);
    remove_tree(node_dir);
    remove_tree(native_dir);
    mkdir(node_dir, 0755);
    mkdir(native_dir, 0755);
    if (!extension_load(ext_path)) {
        die("bench: the extension cannot be loaded");
    }
    start_raftd();
    await_raftd();

    sqlite3 *keepers[2][2]; /* native closes would checkpoint and delete the WAL each time */
    for (int side = NATIVE; side <= OURS; side++) {
        sqlite3 *db = open_database((enum side)side, "hot.db");
        fill(db, rows_hot);
        keepers[side][0] = db;
        db = open_database((enum side)side, "write.db");
        run_sql(db, "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a TEXT, b INT)");
        keepers[side][1] = db;
        db = open_database((enum side)side, "small.db");
        fill(db, rows_small);
        sqlite3_close(db);
        if (only == NULL || strstr("select_1m scan", only) != NULL) {
            db = open_database((enum side)side, "cold.db");
            fill(db, rows_cold);
            sqlite3_close(db);
        }
        sync();
    }

    printf("| work | native | rqvfs | ratio | at least |\n|---|---|---|---|---|\n");
    if (only == NULL) {
        printf("| the disk: 4 KiB overwritten + fdatasync | %.0f/s | | | |\n", disk_syncs());
    }
    row("select_small", "point SELECT by key, all in SQLite's page cache, 1 MB, 1 process", select_small, "2");
    row("select_hot_1", "the same, 25 MB", select_hot_1, "2");
    row("select_hot_2", "the same, 25 MB, 2 processes", select_hot_2, "2");
    row("select_1m", "point SELECT over 1 M rows", select_cold, "1.4");
    row("read_beside", "point SELECT beside 1000 commits/s", read_beside, "1.1");
    row("scan", "full scan of 1 M rows", scan, "1.0");
    row("open_close", "open + one SELECT + close", open_close, "0.9");
    row("insert_1", "single-row durable INSERT, 1 writer", insert_1, "0.85");
    row("tx10", "transaction of 10 statements, 1 writer", tx10, "0.85");
    row("writers_4", "4 writer processes, one database, total", writers_4, "0.8");
    row("writers_64", "64 writer processes, one database, total", writers_64, "0.7");
    row("databases_8", "8 databases with one writer each, total", databases_8, "1.0");
    row("bulk", "bulk INSERT in one transaction, rows", bulk, "0.9");
    if (only == NULL || strcmp(only, "bytes") == 0) {
        report_bytes();
    }
    if (only == NULL || strcmp(only, "restart") == 0) {
        report_restart();
    }
    for (int side = NATIVE; side <= OURS; side++) {
        sqlite3_close(keepers[side][0]);
        sqlite3_close(keepers[side][1]);
    }
    kill(raftd_pid, SIGKILL);
    waitpid(raftd_pid, NULL, 0);
    remove_tree(node_dir);
    remove_tree(native_dir);
    return 0;
}
