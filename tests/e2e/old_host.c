/* A host with the SQLite of the oldest version that is supported, as far as an extension can tell.
 *
 *   old_host EXTENSION DATABASE
 *
 * Behind the last function that SQLite 3.24 has in its table begins a page without access: who looks for a younger function dies
 * of SIGSEGV.  Through this table the extension does everything that an application can make it do.  Prints "old host: ok". */
#define SQLITE_CORE 1 /* of sqlite3ext.h only the type of the table */
#include <dlfcn.h>
#include <sqlite3ext.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TABLE_BYTES offsetof(sqlite3_api_routines, create_window_function) /* the first of 3.25 */

static sqlite3_api_routines whole;

static int copy_table(sqlite3 *db, char **ret_message, const sqlite3_api_routines *api)
{
    (void)db, (void)ret_message;
    whole = *api;
    return SQLITE_OK;
}

static const char *version(void)
{
    return "3.24.0";
}

static int version_number(void)
{
    return 3024000;
}

static const sqlite3_api_routines *old_table(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = (TABLE_BYTES + page - 1) / page * page;
    char *memory = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + bytes, page, PROT_NONE) != 0) {
        return NULL;
    }
    whole.libversion = version;
    whole.libversion_number = version_number;
    return memcpy(memory + bytes - TABLE_BYTES, (const void *)&whole, TABLE_BYTES);
}

static void must(int code, int wanted, sqlite3 *db, const char *what)
{
    if (code != wanted) {
        printf("%s: code %d: %s\n", what, code, sqlite3_errmsg(db));
        exit(1);
    }
}

static void run(sqlite3 *db, const char *sql)
{
    must(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, db, sql);
}

static sqlite3 *open_served(const char *path, const char *suffix)
{
    sqlite3 *db = NULL;
    char *uri = sqlite3_mprintf("file:%s%s?vfs=rqvfs", path, suffix);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
    must(sqlite3_open_v2(uri, &db, flags, NULL), SQLITE_OK, db, uri);
    must(sqlite3_extended_result_codes(db, 1), SQLITE_OK, db, "extended codes");
    sqlite3_free(uri);
    return db;
}

static void copy(sqlite3 *to, sqlite3 *from)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
    must(sqlite3_backup_step(backup, -1), SQLITE_DONE, to, "backup");
    must(sqlite3_backup_finish(backup), SQLITE_OK, to, "backup");
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    sqlite3 *db = NULL;
    must(sqlite3_auto_extension((void (*)(void))copy_table), SQLITE_OK, NULL, "auto extension");
    must(sqlite3_open(":memory:", &db), SQLITE_OK, db, "open");
    (void)sqlite3_cancel_auto_extension((void (*)(void))copy_table);
    union {
        void *object;
        int (*code)(sqlite3 *, char **, const sqlite3_api_routines *);
    } init = { dlsym(dlopen(argv[1], RTLD_NOW), "sqlite3_rqvfs_init") };
    const sqlite3_api_routines *table = old_table();
    if (init.object == NULL || table == NULL) {
        printf("no entry point, or no memory\n");
        return 1;
    }
    char *message = NULL;
    must(init.code(db, &message, table), SQLITE_OK_LOAD_PERMANENTLY, db, "load");

    sqlite3 *first = open_served(argv[2], ""), *second = open_served(argv[2], "");
    must(init.code(first, &message, table), SQLITE_OK_LOAD_PERMANENTLY, first, "load again");
    run(first, "CREATE TABLE t(x); CREATE INDEX i ON t(x); INSERT INTO t VALUES(1)");
    run(first,
        "PRAGMA cache_size=5; BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000)"
        " INSERT INTO t SELECT i FROM n; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; ROLLBACK");
    must(sqlite3_exec(second, "BEGIN; SELECT * FROM t", NULL, NULL, NULL), SQLITE_OK, second, "read");
    run(first, "INSERT INTO t VALUES(2); BEGIN IMMEDIATE");
    must(sqlite3_exec(second, "INSERT INTO t VALUES(3)", NULL, NULL, NULL), SQLITE_BUSY, second,
         "write beside a writer");
    run(first, "COMMIT");
    must(sqlite3_exec(second, "INSERT INTO t VALUES(3)", NULL, NULL, NULL), SQLITE_BUSY_SNAPSHOT, second,
         "a stale write");
    run(second, "ROLLBACK; INSERT INTO t VALUES(3); VACUUM; PRAGMA journal_mode; PRAGMA mmap_size=1");
    copy(db, first);
    char *attach = sqlite3_mprintf("ATTACH 'file:%s-2?vfs=rqvfs' AS other", argv[2]);
    run(first, attach);
    sqlite3_free(attach);
    run(first, "CREATE TABLE other.u(y); BEGIN; INSERT INTO t VALUES(4)");
    must(sqlite3_exec(first, "INSERT INTO u VALUES(4)", NULL, NULL, NULL), SQLITE_READONLY | 81 << 8, first,
         "two databases");
    run(first, "COMMIT; SELECT rqvfs_version(); SELECT * FROM rqvfs_status; DETACH other");
    sqlite3 *third = open_served(argv[2], "-3");
    copy(third, db);
    run(third, "INSERT INTO t VALUES(5)");
    sqlite3 *opened[] = { db, first, second, third };
    for (size_t i = 0; i < sizeof opened / sizeof *opened; i++) {
        must(sqlite3_close(opened[i]), SQLITE_OK, opened[i], "close");
    }
    printf("old host: ok\n");
    return 0;
}
