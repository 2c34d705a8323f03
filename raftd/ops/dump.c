/* The order is that of rqlite's dump (tables by name with their rows, then indexes, triggers and views), with three things that
 * it lacks: sqlite_sequence and sqlite_stat1 come last, when what they tell of is there; a virtual table is put into the schema
 * without being created anew, since its shadow tables are in the dump themselves; and text with a zero byte in it is whole. */
#include "raftd/ops/dump.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/wire/bytes.h"

#define PIECE_BYTES (64u << 10)

struct dump {
    sqlite3 *db;
    const struct rq_backup_sink *sink;
    const char *tables;
    bool schema_writable; /* the text so far has switched it on */
    size_t used;
    char piece[PIECE_BYTES];
};

/* --- text ----------------------------------------------------------------------------------------------------------------- */

static enum rq_err flush(struct dump *d)
{
    enum rq_err err = d->used > 0 ? d->sink->put(d->sink->ctx, d->piece, d->used) : RQ_OK;
    d->used = 0;
    return err;
}

static enum rq_err put(struct dump *d, const char *text, size_t bytes)
{
    while (bytes > 0) {
        if (d->used == sizeof d->piece) {
            enum rq_err err = flush(d);
            if (err != RQ_OK) {
                return err;
            }
        }
        const size_t room = sizeof d->piece - d->used, n = bytes < room ? bytes : room;
        memcpy(d->piece + d->used, text, n);
        d->used += n;
        text += n;
        bytes -= n;
    }
    return RQ_OK;
}

static enum rq_err put_text(struct dump *d, const char *text)
{
    return put(d, text, strlen(text));
}

/* With the quote around it, and each one inside doubled. */
static enum rq_err put_quoted(struct dump *d, const char *text, size_t bytes, char quote)
{
    enum rq_err err = put(d, &quote, 1);
    while (bytes > 0 && err == RQ_OK) {
        const char *next = memchr(text, quote, bytes);
        const size_t n = next != NULL ? (size_t)(next - text) + 1 : bytes;
        err = put(d, text, n);
        if (err == RQ_OK && next != NULL) {
            err = put(d, &quote, 1);
        }
        text += n;
        bytes -= n;
    }
    return err == RQ_OK ? put(d, &quote, 1) : err;
}

static enum rq_err put_hex(struct dump *d, const uint8_t *data, size_t bytes)
{
    static const char digits[] = "0123456789ABCDEF";
    enum rq_err err = put_text(d, "X'");
    for (size_t i = 0; i < bytes && err == RQ_OK; i++) {
        const char pair[2] = { digits[data[i] >> 4], digits[data[i] & 15] };
        err = put(d, pair, 2);
    }
    return err == RQ_OK ? put_text(d, "'") : err;
}

static enum rq_err put_real(struct dump *d, double value)
{
    char text[64];
    if (isinf(value)) {
        return put_text(d, value > 0 ? "9.0e+999" : "-9.0e+999");
    }
    sqlite3_snprintf(sizeof text, text, "%!.15g", value);
    if (strtod(text, NULL) != value) {
        sqlite3_snprintf(sizeof text, text, "%!.20e", value);
    }
    return put_text(d, text);
}

static enum rq_err put_value(struct dump *d, sqlite3_stmt *row, int column)
{
    char number[32];
    const int type = sqlite3_column_type(row, column);
    if (type == SQLITE_INTEGER) {
        (void)snprintf(number, sizeof number, "%lld", (long long)sqlite3_column_int64(row, column));
        return put_text(d, number);
    }
    if (type == SQLITE_FLOAT) {
        return put_real(d, sqlite3_column_double(row, column));
    }
    if (type == SQLITE_NULL) {
        return put_text(d, "NULL");
    }
    const void *data =
        type == SQLITE_TEXT ? (const void *)sqlite3_column_text(row, column) : sqlite3_column_blob(row, column);
    const size_t bytes = (size_t)sqlite3_column_bytes(row, column);
    if (type == SQLITE_BLOB) {
        return data == NULL && bytes > 0 ? RQ_NOMEM : put_hex(d, data, bytes);
    }
    if (data == NULL) {
        return RQ_NOMEM;
    }
    if (memchr(data, '\0', bytes) == NULL) {
        return put_quoted(d, data, bytes, '\'');
    }
    enum rq_err err = put_text(d, "CAST(");
    err = err == RQ_OK ? put_hex(d, data, bytes) : err;
    return err == RQ_OK ? put_text(d, " AS TEXT)") : err;
}

/* --- tables --------------------------------------------------------------------------------------------------------------- */

static enum rq_err prepare(struct dump *d, const char *sql, sqlite3_stmt **ret_stmt)
{
    return sqlite3_prepare_v2(d->db, sql, -1, ret_stmt, NULL) == SQLITE_OK ? RQ_OK : RQ_IO;
}

/* SELECT of the columns that an INSERT without a list of them sets. */
static enum rq_err prepare_rows(struct dump *d, const char *table, sqlite3_stmt **ret_stmt)
{
    struct rq_bytes sql;
    sqlite3_stmt *columns = NULL;
    rq_bytes_init(&sql, 8u << 20);
    enum rq_err err = prepare(d, "SELECT name FROM pragma_table_info(?1) ORDER BY cid", &columns);
    if (err == RQ_OK) {
        sqlite3_bind_text(columns, 1, table, -1, SQLITE_STATIC);
        int code;
        while (err == RQ_OK && (code = sqlite3_step(columns)) == SQLITE_ROW) {
            char *name = sqlite3_mprintf("%s\"%w\"", sql.size == 0 ? "SELECT " : ",", sqlite3_column_text(columns, 0));
            err = name != NULL ? rq_bytes_put(&sql, name, strlen(name)) : RQ_NOMEM;
            sqlite3_free(name);
        }
        err = err == RQ_OK && code != SQLITE_DONE ? RQ_IO : err;
    }
    sqlite3_finalize(columns);
    if (err == RQ_OK) {
        char *from = sqlite3_mprintf(" FROM \"%w\"", table);
        err = from != NULL ? rq_bytes_put(&sql, from, strlen(from) + 1) : RQ_NOMEM;
        sqlite3_free(from);
    }
    if (err == RQ_OK) {
        err = prepare(d, (const char *)sql.data, ret_stmt);
    }
    rq_bytes_fini(&sql);
    return err;
}

static enum rq_err put_row(struct dump *d, const char *table, sqlite3_stmt *row)
{
    enum rq_err err = put_text(d, "INSERT INTO ");
    err = err == RQ_OK ? put_quoted(d, table, strlen(table), '"') : err;
    err = err == RQ_OK ? put_text(d, " VALUES(") : err;
    for (int i = 0; i < sqlite3_column_count(row) && err == RQ_OK; i++) {
        err = i > 0 ? put_text(d, ",") : RQ_OK;
        err = err == RQ_OK ? put_value(d, row, i) : err;
    }
    return err == RQ_OK ? put_text(d, ");\n") : err;
}

static enum rq_err put_rows(struct dump *d, const char *table)
{
    sqlite3_stmt *rows = NULL;
    int code = SQLITE_DONE;
    enum rq_err err = prepare_rows(d, table, &rows);
    while (err == RQ_OK && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        err = put_row(d, table, rows);
    }
    err = err == RQ_OK && code != SQLITE_DONE ? RQ_IO : err;
    sqlite3_finalize(rows);
    return err;
}

static enum rq_err put_virtual(struct dump *d, const char *name, const char *sql)
{
    enum rq_err err = d->schema_writable ? RQ_OK : put_text(d, "PRAGMA writable_schema=ON;\n");
    d->schema_writable = true;
    char *text = sqlite3_mprintf(
        "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES('table',%Q,%Q,0,%Q);\n", name, name, sql);
    err = text == NULL ? RQ_NOMEM : err == RQ_OK ? put_text(d, text) : err;
    sqlite3_free(text);
    return err;
}

static enum rq_err put_statement(struct dump *d, const char *sql)
{
    enum rq_err err = put_text(d, sql);
    return err == RQ_OK ? put_text(d, ";\n") : err;
}

static enum rq_err put_table(struct dump *d, const char *name, const char *sql)
{
    enum rq_err err;
    if (sqlite3_strnicmp(sql, "CREATE VIRTUAL TABLE", 20) == 0) {
        return put_virtual(d, name, sql); /* its rows are in its shadow tables, or nowhere */
    }
    if (strcmp(name, "sqlite_sequence") == 0) {
        err = put_statement(d, "DELETE FROM \"sqlite_sequence\"");
    } else if (strcmp(name, "sqlite_stat1") == 0) {
        err = put_statement(d, "ANALYZE \"sqlite_master\"");
    } else if (sqlite3_strnicmp(name, "sqlite_", 7) == 0) {
        return RQ_OK;
    } else {
        err = put_statement(d, sql);
    }
    return err == RQ_OK ? put_rows(d, name) : err;
}

static bool is_wanted(const struct dump *d, const char *name)
{
    if (d->tables == NULL || d->tables[0] == '\0') {
        return true;
    }
    for (const char *at = d->tables; *at != '\0';) {
        const size_t n = strcspn(at, ",");
        size_t first = strspn(at, " "), end = n;
        while (end > first && at[end - 1] == ' ') {
            end--;
        }
        first = first < end ? first : end;
        if (end - first == strlen(name) && strncmp(at + first, name, end - first) == 0) {
            return true;
        }
        at += n + (at[n] == ',');
    }
    return false;
}

/* --- schema --------------------------------------------------------------------------------------------------------------- */

static enum rq_err put_all(struct dump *d, const char *query, bool tables)
{
    sqlite3_stmt *list = NULL;
    int code = SQLITE_DONE;
    enum rq_err err = prepare(d, query, &list);
    while (err == RQ_OK && (code = sqlite3_step(list)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(list, 0);
        const char *sql = (const char *)sqlite3_column_text(list, 1);
        if (name == NULL || sql == NULL) {
            err = RQ_NOMEM;
        } else if (!tables) {
            err = put_statement(d, sql);
        } else if (is_wanted(d, name)) {
            err = put_table(d, name, sql);
        }
    }
    err = err == RQ_OK && code != SQLITE_DONE ? RQ_IO : err;
    sqlite3_finalize(list);
    return err;
}

static enum rq_err dump(struct dump *d)
{
    enum rq_err err = put_text(d, "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n");
    err = err != RQ_OK ? err
                       : put_all(d,
                                 "SELECT name, sql FROM sqlite_schema WHERE type='table' AND sql IS NOT NULL "
                                 "ORDER BY name IN ('sqlite_sequence', 'sqlite_stat1'), name",
                                 true);
    err = err != RQ_OK ? err
                       : put_all(d,
                                 "SELECT name, sql FROM sqlite_schema WHERE type IN ('index', 'trigger', 'view') "
                                 "AND sql IS NOT NULL ORDER BY rowid",
                                 false);
    if (err == RQ_OK && d->schema_writable) {
        err = put_text(d, "PRAGMA writable_schema=OFF;\n");
    }
    err = err == RQ_OK ? put_text(d, "COMMIT;\n") : err;
    return err == RQ_OK ? flush(d) : err;
}

enum rq_err rq_dump(sqlite3 *db, const char *tables, const struct rq_backup_sink *sink)
{
    struct dump *d = malloc(sizeof *d);
    if (d == NULL) {
        return RQ_NOMEM;
    }
    d->db = db;
    d->sink = sink;
    d->tables = tables;
    d->schema_writable = false;
    d->used = 0;
    enum rq_err err = dump(d);
    free(d);
    return err;
}
