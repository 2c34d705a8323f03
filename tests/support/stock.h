/* Stock: SQLite as everybody has it, which knows nothing of what is tested. */
#ifndef TESTS_SUPPORT_STOCK_H
#define TESTS_SUPPORT_STOCK_H

#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>

#include "tests/support/tap.h"

/* Runs it; formats as sqlite3_mprintf() has them. */
__attribute__((format(printf, 2, 3))) static inline void stock_run(sqlite3 *db, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *sql = sqlite3_vmprintf(format, args);
    va_end(args);
    const int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        printf("# %s: %s\n", sql, sqlite3_errmsg(db));
    }
    sqlite3_free(sql);
    check_eq(rc, SQLITE_OK);
}

/* What a connection of its own to that file reads; -1: it cannot. */
static inline long long stock_number(const char *path, const char *sql)
{
    sqlite3 *db;
    sqlite3_stmt *s;
    long long value = -1;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, "unix") == SQLITE_OK &&
        sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK) {
        if (sqlite3_step(s) == SQLITE_ROW) {
            value = sqlite3_column_int64(s, 0);
        }
        sqlite3_finalize(s);
    }
    sqlite3_close(db);
    return value;
}

#endif
