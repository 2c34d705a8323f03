/* Native twin: the same script of SQL on a native WAL database and through rqvfs; every row, code and state is compared.
 *
 *   twin --raftd PATH --ext PATH --dir DIR [--seeds FROM-TO] [--steps N] [--trace 1]
 *
 * A seed is a script: steps for several connections, one after another, without a busy timeout, so that each BUSY and each stale
 * snapshot falls on the same step on both sides.  After each step: result code (extended), rows, changes(), autocommit.  After
 * each script: schema and content of all tables, integrity_check.  What is known to differ is listed in docs/compatibility.md
 * and not generated here, or normalised in one place: normalise().  TAP on stdout, one line a seed block. */
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/raftd_process.h"

#define CONNECTIONS 3
#define OUTPUT_MAX  (1 << 20)

static const char *raftd_path, *ext_path, *dir;
static bool trace;
static pid_t raftd_pid;

struct output { /* what one side answered to one step */
    int rc, changes, autocommit;
    size_t bytes;
    char *text;
};

struct side {
    const char *name;
    char uri[1200];
    sqlite3 *db[CONNECTIONS];
    struct output out;
};

static uint64_t rnd;
static uint64_t random_next(void)
{
    rnd ^= rnd << 13, rnd ^= rnd >> 7, rnd ^= rnd << 17;
    return rnd * 2685821657736338717ull;
}
static int pick(int n)
{
    return (int)((random_next() >> 20) % (uint64_t)n);
}

static void put(struct output *o, const char *text)
{
    size_t n = strlen(text);
    if (o->bytes + n < OUTPUT_MAX) {
        memcpy(o->text + o->bytes, text, n + 1);
        o->bytes += n;
    }
}

static void put_row(struct output *o, sqlite3_stmt *s)
{
    char number[64];
    for (int i = 0; i < sqlite3_column_count(s); i++) {
        switch (sqlite3_column_type(s, i)) {
            case SQLITE_NULL:
                put(o, "NULL");
                break;
            case SQLITE_BLOB: { /* long blobs by length and sum */
                const uint8_t *b = sqlite3_column_blob(s, i);
                uint32_t sum = 0;
                for (int k = 0; k < sqlite3_column_bytes(s, i); k++) {
                    sum = sum * 31 + b[k];
                }
                snprintf(number, sizeof number, "blob(%d,%08x)", sqlite3_column_bytes(s, i), sum);
                put(o, number);
                break;
            }
            default:
                put(o, (const char *)sqlite3_column_text(s, i));
        }
        put(o, i + 1 < sqlite3_column_count(s) ? "|" : "\n");
    }
}

/* All statements of sql; stops at the first error, as an application would. */
static void run_step(struct side *side, int c, const char *sql)
{
    struct output *o = &side->out;
    sqlite3 *db = side->db[c];
    o->bytes = 0;
    o->text[0] = 0;
    o->rc = SQLITE_OK;
    for (const char *tail = sql; o->rc == SQLITE_OK && *tail != 0;) {
        sqlite3_stmt *s = NULL;
        o->rc = sqlite3_prepare_v2(db, tail, -1, &s, &tail);
        if (o->rc != SQLITE_OK || s == NULL) {
            sqlite3_finalize(s);
            continue;
        }
        while (sqlite3_step(s) == SQLITE_ROW) {
            put_row(o, s);
        }
        o->rc = sqlite3_finalize(s);
    }
    o->changes = sqlite3_changes(db);
    o->autocommit = sqlite3_get_autocommit(db);
}

/* Copies main of connection c into a fresh in-memory database and counts what arrived. */
static void run_backup(struct side *side, int c)
{
    struct output *o = &side->out;
    sqlite3 *copy = NULL;
    o->bytes = 0;
    o->text[0] = 0;
    sqlite3_open(":memory:", &copy);
    sqlite3_backup *b = sqlite3_backup_init(copy, "main", side->db[c], "main");
    o->rc = b != NULL ? sqlite3_backup_step(b, -1) : sqlite3_errcode(copy);
    int rc = sqlite3_backup_finish(b);
    if (o->rc == SQLITE_DONE) {
        o->rc = rc;
    }
    if (o->rc == SQLITE_OK) {
        sqlite3_stmt *s = NULL;
        if (sqlite3_prepare_v2(copy, "SELECT name, sql FROM sqlite_schema ORDER BY name", -1, &s, NULL) == SQLITE_OK) {
            while (sqlite3_step(s) == SQLITE_ROW) {
                put_row(o, s);
            }
        }
        sqlite3_finalize(s);
    }
    sqlite3_close(copy);
    o->changes = sqlite3_changes(side->db[c]);
    o->autocommit = sqlite3_get_autocommit(side->db[c]);
}

static bool open_connection(struct side *side, int c)
{
    int rc =
        sqlite3_open_v2(side->uri, &side->db[c], SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    sqlite3_extended_result_codes(side->db[c], 1);
    return rc == SQLITE_OK;
}

/* --- the script -------------------------------------------------------------------------------------------------------- */

static const char *const setup[] = {
    "CREATE TABLE t1(id INTEGER PRIMARY KEY, a INT, b TEXT, c AS (a*2) STORED, d AS (length(b)));"
    "CREATE INDEX t1a ON t1(a); CREATE UNIQUE INDEX t1b ON t1(b, id)",
    "CREATE TABLE t2(k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID",
    "CREATE TABLE parent(id INTEGER PRIMARY KEY); CREATE TABLE child(id INTEGER PRIMARY KEY, p INT REFERENCES parent "
    "ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE audit(n INTEGER PRIMARY KEY, what TEXT); CREATE TRIGGER t1i AFTER INSERT ON t1 BEGIN INSERT INTO "
    "audit(what) VALUES('i'||new.id); END;"
    "CREATE TRIGGER t1d AFTER DELETE ON t1 BEGIN INSERT INTO audit(what) VALUES('d'||old.id); END",
    "CREATE VIRTUAL TABLE doc USING fts5(body); INSERT INTO parent VALUES(1),(2),(3)",
};

/* Before the first table, on the first connection: what a creator may choose. */
static void make_creation(char *sql, size_t n)
{
    static const int sizes[] = { 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536 };
    snprintf(sql, n, "PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; PRAGMA encoding='%s'", sizes[pick(8)], pick(3),
             pick(4) == 0 ? "UTF-16le" : "UTF-8");
}

static void make_step(char *sql, size_t n)
{
    int x = pick(400), y = pick(30);
    /* clang-format off */
    switch (pick(62)) {
    case 0: case 1: snprintf(sql, n, "BEGIN"); break;
    case 2: case 3: snprintf(sql, n, "BEGIN IMMEDIATE"); break;
    case 4: snprintf(sql, n, "BEGIN EXCLUSIVE"); break;
    case 5: case 6: case 7: case 8: case 9: snprintf(sql, n, "COMMIT"); break;
    case 10: case 11: snprintf(sql, n, "ROLLBACK"); break;
    case 12: snprintf(sql, n, "SAVEPOINT s%d", y % 3); break;
    case 13: snprintf(sql, n, "ROLLBACK TO s%d", y % 3); break;
    case 14: snprintf(sql, n, "RELEASE s%d", y % 3); break;
    case 15: case 16: case 17: case 18: snprintf(sql, n, "INSERT INTO t1(a,b) VALUES(%d,'text %d')", x, y); break;
    case 19: snprintf(sql, n, "INSERT OR REPLACE INTO t1(id,a,b) VALUES(%d,%d,'replaced') RETURNING id,c,d", x, y); break;
    case 20: case 21: snprintf(sql, n, "UPDATE t1 SET a=a+%d WHERE id%%7=%d", y, x % 7); break;
    case 22: case 23: snprintf(sql, n, "DELETE FROM t1 WHERE id%%11=%d RETURNING id", x % 11); break;
    case 24: snprintf(sql, n, "INSERT INTO t1(a,b) WITH RECURSIVE q(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM q WHERE i<%d) SELECT i, printf('%%0%dd', i) FROM q", x, 10 + y * 9); break;
    case 25: case 26: snprintf(sql, n, "INSERT OR IGNORE INTO t2 VALUES('k%d', zeroblob(%d))", x, y * 700); break;
    case 27: snprintf(sql, n, "DELETE FROM t2 WHERE k LIKE 'k%d%%'", y); break;
    case 28: snprintf(sql, n, "UPDATE t2 SET v=CAST('value %d' AS BLOB) WHERE k>'k%d'", y, x); break;
    case 29: snprintf(sql, n, "PRAGMA foreign_keys=%d", y & 1); break;
    case 30: snprintf(sql, n, "INSERT INTO child(p) VALUES(%d)", y % 5 + 1); break;
    case 31: snprintf(sql, n, "DELETE FROM parent WHERE id=%d", y % 5 + 1); break;
    case 32: snprintf(sql, n, "INSERT OR IGNORE INTO parent VALUES(%d)", y % 5 + 1); break;
    case 33: case 34: snprintf(sql, n, "INSERT INTO doc VALUES('word%d other%d text')", x % 9, y); break;
    case 35: snprintf(sql, n, "SELECT count(*) FROM doc WHERE doc MATCH 'word%d'", x % 9); break;
    case 36: snprintf(sql, n, "DELETE FROM doc WHERE rowid%%5=%d", y % 5); break;
    case 37: case 38: case 39: snprintf(sql, n, "SELECT count(*), sum(a), sum(d), sum(id) FROM t1"); break;
    case 40: snprintf(sql, n, "SELECT * FROM t1 ORDER BY id LIMIT 5 OFFSET %d", y); break;
    case 41: snprintf(sql, n, "SELECT k, length(v) FROM t2 ORDER BY k LIMIT 5"); break;
    case 42: snprintf(sql, n, "SELECT count(*), max(what) FROM audit"); break;
    case 43: snprintf(sql, n, "CREATE TABLE IF NOT EXISTS x%d(q PRIMARY KEY, r)", y % 4); break;
    case 44: snprintf(sql, n, "DROP TABLE IF EXISTS x%d", y % 4); break;
    case 45: snprintf(sql, n, "INSERT OR IGNORE INTO x%d(q,r) VALUES(%d,%d)", y % 4, x, y); break;
    case 46: snprintf(sql, n, "ALTER TABLE x%d ADD COLUMN extra%d DEFAULT %d", y % 4, y, x); break;
    case 47: snprintf(sql, n, "CREATE TEMP TABLE IF NOT EXISTS tt(v); INSERT INTO tt SELECT a FROM t1 LIMIT 20; SELECT count(*) FROM tt"); break;
    case 48: snprintf(sql, n, "PRAGMA cache_size=%d", y % 3 == 0 ? 5 : 2000); break;
    case 49: snprintf(sql, n, "PRAGMA synchronous=%d", y % 4); break;
    case 50: snprintf(sql, n, "PRAGMA user_version=%d", x); break;
    case 51: snprintf(sql, n, "PRAGMA user_version; PRAGMA application_id; PRAGMA page_size; PRAGMA encoding; PRAGMA auto_vacuum"); break;
    case 52: snprintf(sql, n, "PRAGMA quick_check"); break;
    case 53: snprintf(sql, n, "VACUUM"); break;
    case 54: snprintf(sql, n, "PRAGMA incremental_vacuum(%d)", y); break;
    case 55: snprintf(sql, n, "ANALYZE"); break;
    case 56: snprintf(sql, n, "REINDEX t1"); break;
    case 57: snprintf(sql, n, "DELETE FROM t1; DELETE FROM audit"); break;
    case 58: snprintf(sql, n, "ATTACH ':memory:' AS m; CREATE TABLE m.z AS SELECT a FROM t1; SELECT count(*) FROM m.z"); break;
    case 59: snprintf(sql, n, "DETACH m"); break;
    case 60: snprintf(sql, n, "PRAGMA secure_delete=%d", y & 1); break;
    default: snprintf(sql, n, "PRAGMA page_count; PRAGMA freelist_count"); break;
    }
    /* clang-format on */
}

/* Differences that docs/compatibility.md lists and that a script cannot avoid: none so far. */
static bool same(const struct output *a, const struct output *b)
{
    return a->rc == b->rc && a->changes == b->changes && a->autocommit == b->autocommit &&
           strcmp(a->text, b->text) == 0;
}

static void show(uint64_t seed, int step, int c, const char *sql, struct side *sides)
{
    printf("# seed %llu step %d connection %d: %s\n", (unsigned long long)seed, step, c, sql);
    for (int i = 0; i < 2; i++) {
        struct output *o = &sides[i].out;
        printf("#   %-6s rc %d changes %d autocommit %d: %.300s", sides[i].name, o->rc, o->changes, o->autocommit,
               o->text);
        printf("%s", o->bytes == 0 || o->text[o->bytes - 1] != '\n' ? "\n" : "");
    }
}

static bool run_seed(uint64_t seed, int steps, struct side *sides)
{
    char sql[1024];
    bool good = true;
    rnd = seed * 0x9e3779b97f4a7c15ull + 12345;
    random_next();
    snprintf(sides[0].uri, sizeof sides[0].uri, "file:%s/native/s%llu.db", dir, (unsigned long long)seed);
    snprintf(sides[1].uri, sizeof sides[1].uri, "file:%s/node/s%llu.db?vfs=rqvfs", dir, (unsigned long long)seed);
    make_creation(sql, sizeof sql);
    for (int i = 0; i < 2; i++) {
        if (!open_connection(&sides[i], 0)) {
            printf("# seed %llu: %s: open: %s\n", (unsigned long long)seed, sides[i].name,
                   sqlite3_errmsg(sides[i].db[0]));
            return false;
        }
        run_step(&sides[i], 0, sql);
        if (i == 0) {
            run_step(&sides[i], 0, "PRAGMA journal_mode=wal");
        }
        for (size_t k = 0; k < sizeof setup / sizeof *setup; k++) {
            run_step(&sides[i], 0, setup[k]);
            if (sides[i].out.rc != SQLITE_OK) {
                printf("# seed %llu: %s: %s: %s\n", (unsigned long long)seed, sides[i].name, setup[k],
                       sqlite3_errmsg(sides[i].db[0]));
                return false;
            }
        }
        for (int c = 1; c < CONNECTIONS; c++) {
            good = open_connection(&sides[i], c) && good;
        }
    }
    for (int step = 0; step < steps && good; step++) {
        int c = pick(CONNECTIONS);
        if (pick(60) == 0) {
            snprintf(sql, sizeof sql, "(backup)");
            run_backup(&sides[0], c);
            run_backup(&sides[1], c);
        } else if (pick(50) == 0) {
            snprintf(sql, sizeof sql, "(close and open)");
            for (int i = 0; i < 2; i++) {
                sqlite3_close(sides[i].db[c]);
                good = open_connection(&sides[i], c) && good;
                run_step(&sides[i], c, "SELECT count(*) FROM t1");
            }
        } else {
            make_step(sql, sizeof sql);
            run_step(&sides[0], c, sql);
            run_step(&sides[1], c, sql);
        }
        if (trace) {
            show(seed, step, c, sql, sides);
        }
        if (!same(&sides[0].out, &sides[1].out)) {
            show(seed, step, c, sql, sides);
            good = false;
        }
    }
    static const char *const last[] = { "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1,2",
                                        "SELECT * FROM t1 ORDER BY id",
                                        "SELECT * FROM t2",
                                        "SELECT * FROM child",
                                        "SELECT * FROM audit",
                                        "SELECT rowid, * FROM doc",
                                        "PRAGMA integrity_check" };
    for (int i = 0; i < 2; i++) {
        for (int c = 0; c < CONNECTIONS; c++) {
            sqlite3_close(sides[i].db[c]);
        }
        open_connection(&sides[i], 0);
    }
    for (size_t k = 0; k < sizeof last / sizeof *last && good; k++) {
        run_step(&sides[0], 0, last[k]);
        run_step(&sides[1], 0, last[k]);
        if (!same(&sides[0].out, &sides[1].out)) {
            show(seed, steps, 0, last[k], sides);
            good = false;
        }
    }
    sqlite3_close(sides[0].db[0]);
    sqlite3_close(sides[1].db[0]);
    return good;
}

int main(int argc, char **argv)
{
    unsigned long long from = 1, to = 40;
    int steps = 250;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--raftd") == 0) {
            raftd_path = argv[i + 1];
        } else if (strcmp(argv[i], "--ext") == 0) {
            ext_path = argv[i + 1];
        } else if (strcmp(argv[i], "--dir") == 0) {
            dir = argv[i + 1];
        } else if (strcmp(argv[i], "--steps") == 0) {
            steps = (int)strtol(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            char *end;
            from = to = strtoull(argv[i + 1], &end, 10);
            if (*end == '-') {
                to = strtoull(end + 1, NULL, 10);
            }
        }
    }
    if (raftd_path == NULL || ext_path == NULL || dir == NULL) {
        fprintf(stderr, "usage: twin --raftd PATH --ext PATH --dir DIR [--seeds FROM-TO] [--steps N] [--trace 1]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    char path[1100];
    snprintf(path, sizeof path, "%s/native", dir);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/node", dir);
    mkdir(path, 0755);
    char log[1200];
    snprintf(log, sizeof log, "%s/raftd.log", dir);
    raftd_pid = raftd_spawn(&(struct raftd_place){ raftd_path, path, log, "localhost:24021", "localhost:24022" });
    if (!extension_load(ext_path)) {
        printf("Bail out! the extension cannot be loaded\n");
        kill(raftd_pid, SIGKILL);
        return 1;
    }
    struct timespec pause = { 0, 5000000 };
    for (int i = 0; i < 2000; i++) { /* until raftd answers */
        char uri[1200];
        sqlite3 *db;
        snprintf(uri, sizeof uri, "file:%s/first.db?vfs=rqvfs", path);
        int rc = sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
        if (rc == SQLITE_OK) {
            rc = sqlite3_exec(db, "CREATE TABLE IF NOT EXISTS t(x)", NULL, NULL, NULL);
        }
        sqlite3_close(db);
        if (rc == SQLITE_OK) {
            break;
        }
        nanosleep(&pause, NULL);
    }
    struct side sides[2] = { { .name = "native" }, { .name = "rqvfs" } };
    sides[0].out.text = malloc(OUTPUT_MAX);
    sides[1].out.text = malloc(OUTPUT_MAX);
    int count = 0, failed = 0;
    for (unsigned long long seed = from; seed <= to; seed++) {
        bool good = run_seed(seed, steps, sides);
        failed += !good;
        printf("%s %d - seed %llu\n", good ? "ok" : "not ok", ++count, seed);
    }
    printf("1..%d\n", count);
    free(sides[0].out.text);
    free(sides[1].out.text);
    kill(raftd_pid, SIGKILL);
    waitpid(raftd_pid, NULL, 0);
    return failed > 0 || count == 0;
}
