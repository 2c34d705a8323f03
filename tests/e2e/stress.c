/* Stress: applications, plain readers and raftd under kill -9 and SIGSTOP, with what was acknowledged counted.
 *
 *   stress --raftd PATH --ext PATH --dir DIR [--seconds S] [--writers N] [--readers N] [--plain N] [--seed N]
 *          [--kill-app MS] [--kill-raftd MS] [--stop MS]         (mean pause between two of them; 0 = never)
 *
 * Each writer, in one transaction: moves money between two of six indexed tables (the sum is constant), adds a document to an
 * FTS5 table (its count is a counter's row), counts itself up in wc(w, n), and now and then spills, rolls back to a savepoint,
 * rolls back altogether, or runs VACUUM.  Every reader checks these in each snapshot, twice within a transaction.
 *
 * Proved at the end, for each writer:   acknowledged <= n <= acknowledged + unknown + killed in flight
 * so nothing acknowledged is lost, and nothing that was reported as failed is present.  With raftd restarted in time `unknown`
 * must be 0.  TAP on stdout. */
#include <errno.h>
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
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/raftd_process.h"

#define PROCESSES_MAX 64
#define TABLES        6
#define ACCOUNTS      40
#define TOTAL         ((int64_t)TABLES * ACCOUNTS * 1000)

enum kind { WRITER, READER, PLAIN };

struct tally { /* of one process slot, over all its lives; shared memory */
    _Atomic uint64_t acknowledged, in_flight, unknown, killed_in_flight, failed, snapshots, integrity, busy;
};
struct board {
    _Atomic int stop;
    _Atomic int broken;
    char what[512];
    struct tally tally[PROCESSES_MAX];
};

static struct board *board;
static const char *raftd_path, *ext_path, *dir;
static double seconds = 20;
static int writers = 3, readers = 2, plain = 2, kill_app_ms = 300, kill_raftd_ms = 1500, stop_ms = 700;
static uint64_t seed;
static pid_t raftd_pid, pids[PROCESSES_MAX];

static uint64_t random_next(uint64_t *x)
{
    *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
    return *x * 2685821657736338717ull;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The first violation is what counts. */
static void broken(const char *format, ...)
{
    if (atomic_exchange(&board->broken, 1) == 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(board->what, sizeof board->what, format, args);
        va_end(args);
    }
    _exit(1);
}

static bool may_pass(int rc)
{
    int primary = rc & 0xff;
    return primary == SQLITE_BUSY || primary == SQLITE_LOCKED || rc == (SQLITE_IOERR | (81 << 8)) ||
           primary == SQLITE_SCHEMA;
}

static sqlite3 *open_database(enum kind kind)
{
    sqlite3 *db = NULL;
    char uri[1100];
    snprintf(uri, sizeof uri, "file:%s/stress.db%s", dir, kind == PLAIN ? "" : "?vfs=rqvfs");
    for (;;) {
        int flags =
            SQLITE_OPEN_URI | (kind == PLAIN ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
        int rc = sqlite3_open_v2(uri, &db, flags, NULL);
        if (rc == SQLITE_OK) {
            break;
        }
        if (!may_pass(rc) && (rc & 0xff) != SQLITE_CANTOPEN) {
            broken("open: %s (%d)", sqlite3_errmsg(db), sqlite3_extended_errcode(db));
        }
        sqlite3_close(db);
        if (board->stop) {
            _exit(0);
        }
        usleep(1000);
    }
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, 15000);
    return db;
}

static int run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static int64_t number(sqlite3 *db, const char *sql, int *ret_rc)
{
    sqlite3_stmt *s = NULL;
    int64_t value = -1;
    int rc = sqlite3_prepare_v2(db, sql, -1, &s, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(s);
        if (rc == SQLITE_ROW) {
            value = sqlite3_column_int64(s, 0);
        }
        rc = sqlite3_finalize(s);
    }
    *ret_rc = rc;
    return value;
}

#define SUM_SQL                                                                                               \
    "SELECT (SELECT sum(v) FROM a0)+(SELECT sum(v) FROM a1)+(SELECT sum(v) FROM a2)+(SELECT sum(v) FROM a3)+" \
    "(SELECT sum(v) FROM a4)+(SELECT sum(v) FROM a5)"

static void make_schema(void)
{
    sqlite3 *db = open_database(WRITER);
    char sql[256];
    int rc = run(db, "BEGIN");
    for (int i = 0; i < TABLES && rc == SQLITE_OK; i++) {
        snprintf(sql, sizeof sql,
                 "CREATE TABLE a%d(id INTEGER PRIMARY KEY, v INT, pad); CREATE INDEX i%d ON a%d(v);"
                 "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO a%d SELECT "
                 "i,1000,zeroblob(50) FROM n",
                 i, i, i, ACCOUNTS, i);
        rc = run(db, sql);
    }
    if (rc == SQLITE_OK) {
        rc = run(
            db,
            "CREATE VIRTUAL TABLE doc USING fts5(body); CREATE TABLE docs(n INT); INSERT INTO docs VALUES(0);"
            "CREATE TABLE wc(w INTEGER PRIMARY KEY, n INT); CREATE TABLE big(id INTEGER PRIMARY KEY, b BLOB); COMMIT");
    }
    if (rc != SQLITE_OK) {
        broken("schema: %s (%d)", sqlite3_errmsg(db), rc);
    }
    sqlite3_close(db);
}

/* One transaction.  Returns the code of the first statement that failed, or of COMMIT; *ret_at_commit says which. */
static int transfer(sqlite3 *db, int w, uint64_t *rnd, bool *ret_at_commit, bool *ret_gave_up)
{
    char sql[512];
    uint64_t r = random_next(rnd);
    int from = (int)(r % TABLES), to = (int)(r / 7 % TABLES), amount = (int)(r / 64 % 50),
        x = (int)(r / 4096 % ACCOUNTS) + 1, y = (int)(r / 65536 % ACCOUNTS) + 1;
    unsigned style = (unsigned)(r >> 40) % 20;
    *ret_at_commit = *ret_gave_up = false;
    int rc = run(db, style < 8 ? "BEGIN IMMEDIATE" : style < 10 ? "BEGIN EXCLUSIVE" : "BEGIN");
    if (rc != SQLITE_OK) {
        return rc;
    }
    if (style == 3) {
        rc = run(db, "PRAGMA cache_size=5; INSERT INTO big(b) SELECT zeroblob(4000) FROM a0");
    }
    snprintf(sql, sizeof sql, "UPDATE a%d SET v=v-%d WHERE id=%d; UPDATE a%d SET v=v+%d WHERE id=%d", from, amount, x,
             to, amount, y);
    if (rc == SQLITE_OK) {
        rc = run(db, sql);
    }
    if (rc == SQLITE_OK && style == 4) {
        rc = run(db, "SAVEPOINT s; DELETE FROM a2; UPDATE docs SET n=n+1000; ROLLBACK TO s; RELEASE s");
    }
    if (rc == SQLITE_OK) {
        snprintf(sql, sizeof sql,
                 "INSERT INTO doc VALUES('word%u some text'); UPDATE docs SET n=n+1;"
                 "INSERT INTO wc VALUES(%d,1) ON CONFLICT(w) DO UPDATE SET n=n+1",
                 (unsigned)r % 100, w);
        rc = run(db, sql);
    }
    if (rc == SQLITE_OK && style == 5) {
        rc = run(db, "DELETE FROM big WHERE id IN (SELECT id FROM big ORDER BY id LIMIT 300)");
    }
    if (rc == SQLITE_OK && style == 6) {
        *ret_gave_up = true;
        return run(db, "ROLLBACK");
    }
    if (rc == SQLITE_OK) {
        *ret_at_commit = true;
        rc = run(db, "COMMIT");
    }
    return rc;
}

static void writer(int w)
{
    struct tally *t = &board->tally[w];
    uint64_t rnd = seed * 1000003 + (uint64_t)w * 7919 + (uint64_t)getpid();
    sqlite3 *db = open_database(WRITER);
    while (!board->stop) {
        bool at_commit, gave_up;
        t->in_flight = 1;
        int rc = transfer(db, w, &rnd, &at_commit, &gave_up);
        if (rc == SQLITE_OK && !gave_up) {
            t->acknowledged++;
        } else if (rc == (SQLITE_IOERR | (81 << 8))) {
            t->unknown++;
        } else if (rc != SQLITE_OK) {
            t->failed++;
        }
        t->in_flight = 0;
        if (rc != SQLITE_OK) {
            if (!may_pass(rc)) {
                broken("writer %d: %s (%d)%s", w, sqlite3_errmsg(db), rc, at_commit ? " at COMMIT" : "");
            }
            if (!sqlite3_get_autocommit(db)) {
                run(db, "ROLLBACK");
            }
        }
        if (random_next(&rnd) % 400 == 0) {
            rc = run(db, "VACUUM");
            if (rc != SQLITE_OK && !may_pass(rc)) {
                broken("writer %d: VACUUM: %s (%d)", w, sqlite3_errmsg(db), rc);
            }
        }
    }
    sqlite3_close(db);
}

static void reader(int slot, enum kind kind)
{
    struct tally *t = &board->tally[slot];
    uint64_t rnd = seed * 7777 + (uint64_t)slot * 104729 + (uint64_t)getpid();
    sqlite3 *db = open_database(kind);
    const char *who = kind == PLAIN ? "plain" : "rqvfs";
    while (!board->stop) {
        int rc = run(db, "BEGIN"), rc2 = SQLITE_OK;
        int64_t sum = number(db, SUM_SQL, &rc);
        if (rc == SQLITE_OK && sum != TOTAL) {
            broken("%s reader: sum %lld, expected %lld", who, (long long)sum, (long long)TOTAL);
        }
        int64_t docs = number(db, "SELECT (SELECT count(*) FROM doc)-(SELECT n FROM docs)", &rc2);
        if (rc == SQLITE_OK && rc2 == SQLITE_OK && docs != 0) {
            broken("%s reader: documents differ from their counter by %lld", who, (long long)docs);
        }
        if (random_next(&rnd) % 8 == 0) {
            usleep((useconds_t)(random_next(&rnd) % 20000));
        }
        int rc3 = SQLITE_OK;
        if (rc == SQLITE_OK) {
            int64_t again = number(db, SUM_SQL, &rc3);
            if (rc3 == SQLITE_OK && again != TOTAL) {
                broken("%s reader: sum %lld the second time in one transaction", who, (long long)again);
            }
        }
        if (random_next(&rnd) % 25 == 0) {
            sqlite3_stmt *s = NULL;
            if (sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL) == SQLITE_OK &&
                sqlite3_step(s) == SQLITE_ROW) {
                const char *text = (const char *)sqlite3_column_text(s, 0);
                if (text != NULL && strcmp(text, "ok") != 0) {
                    broken("%s reader: integrity_check: %s", who, text);
                }
                t->integrity++;
            }
            sqlite3_finalize(s);
        }
        if (rc != SQLITE_OK && !may_pass(rc)) {
            broken("%s reader: %s (%d)", who, sqlite3_errmsg(db), rc);
        }
        if (rc == SQLITE_OK && rc2 == SQLITE_OK && rc3 == SQLITE_OK) {
            t->snapshots++;
        } else {
            t->busy++;
        }
        run(db, "COMMIT");
        if (!sqlite3_get_autocommit(db)) {
            run(db, "ROLLBACK");
        }
    }
    sqlite3_close(db);
}

static void start_raftd(void)
{
    char log[1100];
    snprintf(log, sizeof log, "%s.log", dir);
    raftd_pid = raftd_spawn(&(struct raftd_place){ raftd_path, dir, log, "localhost:24011", "localhost:24012" });
}

static void start_process(int slot)
{
    pids[slot] = fork();
    if (pids[slot] == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (slot < writers) {
            writer(slot);
        } else {
            reader(slot, slot < writers + readers ? READER : PLAIN);
        }
        _exit(0);
    }
}

static void end_process(int slot)
{
    kill(pids[slot], SIGKILL);
    waitpid(pids[slot], NULL, 0);
    struct tally *t = &board->tally[slot];
    t->killed_in_flight += t->in_flight;
    t->in_flight = 0;
}

static double pause_of(int mean_ms, uint64_t *rnd)
{
    return mean_ms <= 0 ? 1e18 : mean_ms / 1000.0 * (0.2 + 1.6 * (double)(random_next(rnd) % 1000) / 1000);
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *f = argv[i], *v = argv[i + 1];
        int n = (int)strtol(v, NULL, 10);
        if (strcmp(f, "--raftd") == 0) {
            raftd_path = v;
        } else if (strcmp(f, "--ext") == 0) {
            ext_path = v;
        } else if (strcmp(f, "--dir") == 0) {
            dir = v;
        } else if (strcmp(f, "--seconds") == 0) {
            seconds = strtod(v, NULL);
        } else if (strcmp(f, "--writers") == 0) {
            writers = n;
        } else if (strcmp(f, "--readers") == 0) {
            readers = n;
        } else if (strcmp(f, "--plain") == 0) {
            plain = n;
        } else if (strcmp(f, "--kill-app") == 0) {
            kill_app_ms = n;
        } else if (strcmp(f, "--kill-raftd") == 0) {
            kill_raftd_ms = n;
        } else if (strcmp(f, "--stop") == 0) {
            stop_ms = n;
        } else if (strcmp(f, "--seed") == 0) {
            seed = strtoull(v, NULL, 10);
        } else {
            fprintf(stderr, "stress: unknown flag %s\n", f);
            return 2;
        }
    }
    if (raftd_path == NULL || ext_path == NULL || dir == NULL || writers + readers + plain > PROCESSES_MAX) {
        fprintf(stderr, "usage: stress --raftd PATH --ext PATH --dir DIR [--seconds S] ...\n");
        return 2;
    }
    if (seed == 0) {
        seed = (uint64_t)time(NULL);
    }
    printf("# seed %llu\n", (unsigned long long)seed);
    setvbuf(stdout, NULL, _IOLBF, 0);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (!extension_load(ext_path)) {
        printf("Bail out! the extension cannot be loaded\n");
        return 1;
    }

    start_raftd();
    pid_t maker = fork(); /* no connection of this process is inherited by the others */
    if (maker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        make_schema();
        _exit(0);
    }
    waitpid(maker, NULL, 0);

    int count = writers + readers + plain;
    uint64_t rnd = seed * 2 + 1, kills_app = 0, kills_raftd = 0, stops = 0;
    for (int i = 0; i < count && !board->broken; i++) {
        start_process(i);
    }
    double end = now() + seconds, kill_app = now() + pause_of(kill_app_ms, &rnd),
           kill_raftd = now() + pause_of(kill_raftd_ms, &rnd), stop = now() + pause_of(stop_ms, &rnd), go_on = 1e18;
    pid_t stopped = 0;
    while (now() < end && !board->broken) {
        usleep(5000);
        double t = now();
        if (stopped != 0 && t > go_on) {
            kill(stopped, SIGCONT);
            stopped = 0;
        }
        if (t > kill_app) {
            int slot = (int)(random_next(&rnd) % (uint64_t)count);
            if (pids[slot] == stopped) {
                stopped = 0;
            }
            end_process(slot);
            start_process(slot);
            kills_app++;
            kill_app = t + pause_of(kill_app_ms, &rnd);
        }
        if (t > kill_raftd) {
            if (stopped == raftd_pid) {
                stopped = 0;
            }
            kill(raftd_pid, SIGKILL);
            waitpid(raftd_pid, NULL, 0);
            start_raftd();
            kills_raftd++;
            kill_raftd = t + pause_of(kill_raftd_ms, &rnd);
        }
        if (t > stop && stopped == 0) {
            uint64_t pick = random_next(&rnd) % (uint64_t)(count + 1);
            stopped = pick == (uint64_t)count ? raftd_pid : pids[pick];
            kill(stopped, SIGSTOP);
            stops++;
            go_on = t + 0.05 + (double)(random_next(&rnd) % 300) / 1000;
            stop = t + pause_of(stop_ms, &rnd);
        }
        int status;
        if (waitpid(raftd_pid, &status, WNOHANG) == raftd_pid) {
            snprintf(board->what, sizeof board->what, "raftd ended by itself (status %d): see %s.log", status, dir);
            board->broken = 1;
            raftd_pid = 0;
        }
    }
    board->stop = 1;
    if (stopped != 0) {
        kill(stopped, SIGCONT);
    }
    double deadline = now() + 40;
    for (int i = 0; i < count; i++) {
        int status = 0;
        while (pids[i] > 0 && waitpid(pids[i], &status, WNOHANG) == 0) {
            if (now() > deadline) {
                snprintf(board->what, sizeof board->what, "process %d hangs", i);
                board->broken = 1;
                end_process(i);
                break;
            }
            usleep(2000);
        }
        if (WIFSIGNALED(status) && now() <= deadline && !board->broken) {
            snprintf(board->what, sizeof board->what, "process %d died of signal %d", i, WTERMSIG(status));
            board->broken = 1;
        }
    }

    struct tally sum = { 0 };
    uint64_t lost = 0, doubled = 0;
    if (!board->broken) {
        sqlite3 *db = open_database(READER);
        int rc;
        for (int w = 0; w < writers; w++) {
            char sql[64];
            snprintf(sql, sizeof sql, "SELECT n FROM wc WHERE w=%d", w);
            int64_t found = number(db, sql, &rc);
            struct tally *t = &board->tally[w];
            uint64_t n = found < 0 ? 0 : (uint64_t)found, least = t->acknowledged,
                     most = least + t->unknown + t->killed_in_flight;
            lost += n < least ? least - n : 0;
            doubled += n > most ? n - most : 0;
        }
        int64_t total = number(db, SUM_SQL, &rc);
        if (total != TOTAL) {
            snprintf(board->what, sizeof board->what, "final sum %lld", (long long)total);
            board->broken = 1;
        }
        sqlite3_close(db);
    }
    for (int i = 0; i < count; i++) {
        struct tally *t = &board->tally[i];
        sum.acknowledged += t->acknowledged;
        sum.unknown += t->unknown;
        sum.failed += t->failed;
        sum.snapshots += t->snapshots;
        sum.integrity += t->integrity;
        sum.busy += t->busy;
        sum.killed_in_flight += t->killed_in_flight;
    }
    if (raftd_pid > 0) {
        kill(raftd_pid, SIGKILL);
        waitpid(raftd_pid, NULL, 0);
    }
    printf(
        "# acknowledged %llu, failed %llu, unknown %llu, in flight at a kill %llu; snapshots %llu, busy %llu, "
        "integrity_checks %llu; "
        "kills %llu app, %llu raftd; stops %llu\n",
        (unsigned long long)sum.acknowledged, (unsigned long long)sum.failed, (unsigned long long)sum.unknown,
        (unsigned long long)sum.killed_in_flight, (unsigned long long)sum.snapshots, (unsigned long long)sum.busy,
        (unsigned long long)sum.integrity, (unsigned long long)kills_app, (unsigned long long)kills_raftd,
        (unsigned long long)stops);
    bool ok[5] = { !board->broken, lost == 0, doubled == 0, sum.unknown == 0,
                   sum.acknowledged > 0 && sum.snapshots > 0 };
    const char *claims[5] = { "every snapshot keeps the invariants", "no acknowledged commit is lost",
                              "nothing that failed is present, nothing is there twice",
                              "no outcome is unknown when raftd is back in time", "work was done" };
    if (board->broken) {
        printf("# %s\n", board->what);
    }
    int failed = 0;
    for (int i = 0; i < 5; i++) {
        printf("%s %d - %s\n", ok[i] ? "ok" : "not ok", i + 1, claims[i]);
        failed += !ok[i];
    }
    printf("1..5\n");
    return failed > 0;
}
