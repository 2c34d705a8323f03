/* Which statements are stepped, and what becomes an element of the results, follows rqlited:
 *
 *   EXECUTE   all statements of a string; the element tells the numbers after the last one, or its rows if it has RETURNING
 *   QUERY     the last one of a string; the others are only compiled, and their parameters counted
 *   REQUEST   all; the element has the rows of the last one if it reads or has RETURNING, else the numbers
 *
 * An element that turns out to be an error is taken back to where it began, which may be in the file. */
#include "raftd/http/results.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/http/go_json.h"
#include "raftd/run/clock.h"

#define HEAD           "{\"results\":["
#define ERROR_MAX      RQ_HTTP_TEXT_MAX
#define NOT_ENOUGH     "not enough args to execute query: want %d got %u"
#define WRITE_IN_QUERY "attempt to change database via query operation"
#define SAVEPOINT      "\"the request\""
#define LONG_BYTES     4096u           /* a value of more may be what makes a row large */
#define PIECE_BYTES    (3u * 16 << 10) /* of such a value, a multiple of what base64 takes at once */

struct run {
    const struct rq_sql_form *form;
    enum rq_sql_kind kind;
    struct rq_sql_connection *c;
    struct rq_bytes *out;
    struct rq_sql_results *results;
    enum rq_err err;            /* of writing the answer; after one, nothing more is written */
    size_t start;               /* of the element that is being written, in `out`; */
    bool in_file;               /* or else it begins in the file, */
    struct rq_answer_mark mark; /* here, and goes on at the beginning of `out` */
    uint64_t began_ns;
    char why[ERROR_MAX]; /* text of an error that is not SQLite's; "": it is */
};

/* --- pieces --------------------------------------------------------------------------------------------------------------- */

static void put(struct run *r, const void *data, size_t bytes)
{
    if (r->err == RQ_OK) {
        r->err = rq_bytes_put(r->out, data, bytes);
    }
}
#define PUT(r, literal) put((r), (literal), sizeof(literal) - 1)

/* What stands between values: there are as many of them. */
static inline void put_byte(struct run *r, char c)
{
    if (r->err == RQ_OK && r->out->size < r->out->capacity) {
        r->out->data[r->out->size++] = (uint8_t)c;
    } else {
        put(r, &c, 1);
    }
}

static inline void put_comma(struct run *r, bool needed)
{
    if (needed) {
        put_byte(r, ',');
    }
}

/* A comma, unless it is the first in its object. */
static void put_key(struct run *r, const char *key)
{
    if (r->err == RQ_OK && r->out->data[r->out->size - 1] != '{') {
        put_byte(r, ',');
    }
    put_byte(r, '"');
    put(r, key, strlen(key));
    PUT(r, "\":");
}

static void put_integer(struct run *r, const char *key, int64_t v)
{
    if (v != 0) {
        put_key(r, key);
        r->err = r->err == RQ_OK ? rq_go_put_integer(r->out, v) : r->err;
    }
}

static void put_time(struct run *r)
{
    const uint64_t ns = r->form->timings ? rq_clock_ns() - r->began_ns : 0;
    if (ns > 0) {
        put_key(r, "time");
        r->err = r->err == RQ_OK ? rq_go_put_real(r->out, (double)ns / 1e9) : r->err;
    }
}

static void put_piece(struct run *r, const struct rq_sql_shape *shape, uint32_t at, uint32_t bytes)
{
    put(r, shape->pieces.data + at, bytes);
}

/* --- out of memory -------------------------------------------------------------------------------------------------------- */

/* What is in memory goes to the file. */
static void leave_memory(struct run *r)
{
    struct rq_answer_file *file = &r->results->file;
    size_t before = 0;
    if (!r->in_file) { /* what comes before the element is not taken back with it */
        before = r->start;
        r->err = rq_answer_file_put(file, r->out->data, before);
        if (r->err != RQ_OK) {
            return;
        }
        r->in_file = true;
        r->mark = file->end;
    }
    r->err = rq_answer_file_put(file, r->out->data + before, r->out->size - before);
    r->out->size = 0;
}

/* May an answer that is not small any more stay in memory for a while? */
static bool may_stay(struct rq_sql_results *s)
{
    if (s->counted || s->file.end.bytes > 0) {
        return false;
    }
    s->counted =
        atomic_fetch_add(&s->file.room->memory, RQ_SQL_LARGE_BYTES) + RQ_SQL_LARGE_BYTES <= RQ_SQL_MEMORY_BYTES;
    if (s->counted) {
        s->stays = RQ_SQL_LARGE_BYTES;
    } else {
        atomic_fetch_sub(&s->file.room->memory, RQ_SQL_LARGE_BYTES);
    }
    return s->counted;
}

static void outgrow(struct run *r)
{
    if (r->err != RQ_OK || may_stay(r->results)) {
        return;
    }
    if (r->c->budget > 0) { /* files are for runs that may take their time */
        r->c->too_long = true;
        r->err = RQ_BUSY;
    } else if (rq_sql_connection_left(r->c)) {
        r->err = RQ_AWAY;
    } else {
        leave_memory(r);
    }
}

/* Between two values. */
static inline void make_room(struct run *r)
{
    if (r->out->size >= r->results->stays) {
        outgrow(r);
    }
}

static void take_back(struct run *r)
{
    if (r->in_file) {
        rq_answer_file_cut(&r->results->file, &r->mark);
    }
    r->out->size = r->in_file ? 0 : r->start;
}

/* --- rows ----------------------------------------------------------------------------------------------------------------- */

/* What the first row tells of columns without a declared type. */
static void see_types(struct run *r, const struct rq_sql_prepared *p, bool has_row)
{
    for (uint32_t i = 0; i < p->shape.count; i++) {
        struct rq_sql_column *c = &p->shape.columns[i];
        if (c->declared) {
            continue;
        }
        c->seen = "";
        switch (has_row ? sqlite3_column_type(p->stmt, (int)i) : SQLITE_NULL) {
            case SQLITE_INTEGER:
                c->seen = "integer";
                break;
            case SQLITE_FLOAT:
                c->seen = "real";
                break;
            case SQLITE_TEXT:
                c->seen = "text";
                break;
            case SQLITE_BLOB:
                c->seen = r->form->exact_blobs ? "blob" : "text";
                break;
            default:
                break;
        }
        c->is_text = *c->seen == '\0' || *c->seen == 't';
    }
}

static void put_type(struct run *r, const struct rq_sql_shape *shape, const struct rq_sql_column *c)
{
    if (c->declared) {
        put_piece(r, shape, c->type_at, c->type_bytes);
    } else {
        put_byte(r, '"');
        put(r, c->seen, strlen(c->seen));
        put_byte(r, '"');
    }
}

static void put_columns(struct run *r, const struct rq_sql_shape *shape)
{
    if (shape->count == 0) {
        return;
    }
    PUT(r, "\"columns\":[");
    for (uint32_t i = 0; i < shape->count; i++) {
        put_comma(r, i > 0);
        put_piece(r, shape, shape->columns[i].name_at, shape->columns[i].name_bytes);
    }
    PUT(r, "],\"types\":[");
    for (uint32_t i = 0; i < shape->count; i++) {
        put_comma(r, i > 0);
        put_type(r, shape, &shape->columns[i]);
    }
    put_byte(r, ']');
}

static void put_named_types(struct run *r, const struct rq_sql_shape *shape)
{
    if (shape->order_count == 0) {
        return;
    }
    PUT(r, "\"types\":{");
    for (uint32_t i = 0; i < shape->order_count; i++) {
        const struct rq_sql_column *c = &shape->columns[shape->order[i]];
        put_comma(r, i > 0);
        put_piece(r, shape, c->name_at, c->name_bytes);
        put_byte(r, ':');
        put_type(r, shape, c);
    }
    PUT(r, "},");
}

typedef enum rq_err (*put_bytes)(struct rq_bytes *out, const uint8_t *data, size_t bytes);

/* As many of its bytes as may be written by themselves: no character goes on behind them. */
static size_t piece_of(put_bytes put_all, const uint8_t *data, size_t bytes)
{
    if (bytes <= PIECE_BYTES || put_all != rq_go_put_text) {
        return bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
    }
    for (size_t n = PIECE_BYTES; n > PIECE_BYTES - 4; n--) {
        if ((data[n] & 0xc0) != 0x80) {
            return n;
        }
    }
    return PIECE_BYTES; /* amid more bytes than can go on with a character: they are none */
}

/* In pieces, so that its form need not be in memory as a whole. */
static enum rq_err put_long(struct run *r, put_bytes put_all, const uint8_t *data, size_t bytes)
{
    struct rq_bytes piece;
    const bool array = put_all == rq_go_put_array;
    rq_bytes_init(&piece, r->out->size_max);
    put_byte(r, array ? '[' : '"');
    for (size_t done = 0, n; done < bytes && r->err == RQ_OK; done += n) {
        n = piece_of(put_all, data + done, bytes - done);
        piece.size = 0;
        put_comma(r, array && done > 0);
        r->err = r->err == RQ_OK ? put_all(&piece, data + done, n) : r->err;
        if (r->err == RQ_OK) {
            put(r, piece.data + 1, piece.size - 2); /* without what is around a whole one */
            make_room(r);
        }
    }
    put_byte(r, array ? ']' : '"');
    rq_bytes_fini(&piece);
    return r->err;
}

static enum rq_err put_any(struct run *r, put_bytes put_all, const uint8_t *data, size_t bytes)
{
    if (bytes <= LONG_BYTES) {
        return put_all(r->out, data, bytes);
    }
    make_room(r);
    return r->err != RQ_OK        ? r->err
           : bytes <= PIECE_BYTES ? put_all(r->out, data, bytes)
                                  : put_long(r, put_all, data, bytes);
}

static enum rq_err put_blob(struct run *r, const struct rq_sql_column *c, const void *data, size_t bytes)
{
    if (c->is_text && !r->form->exact_blobs) {
        return put_any(r, rq_go_put_text, data, bytes);
    }
    return put_any(r, r->form->blob_array ? rq_go_put_array : rq_go_put_base64, data, bytes);
}

static enum rq_err put_integer_value(struct rq_bytes *out, const struct rq_sql_column *c, int64_t v)
{
    char text[40];
    if (c->kind == RQ_COLUMN_BOOLEAN) {
        return v > 0 ? rq_bytes_put(out, "true", 4) : rq_bytes_put(out, "false", 5);
    }
    if (c->kind == RQ_COLUMN_TIME && rq_go_time_of_integer(v, text)) {
        return rq_go_put_text(out, (const uint8_t *)text, strlen(text));
    }
    return rq_go_put_integer(out, v);
}

static enum rq_err put_text_value(struct run *r, const struct rq_sql_column *c, const uint8_t *text, size_t bytes)
{
    char time[40];
    if (c->kind == RQ_COLUMN_TIME && rq_go_time_of_text((const char *)text, bytes, time)) {
        return rq_go_put_text(r->out, (const uint8_t *)time, strlen(time));
    }
    return put_any(r, rq_go_put_text, text, bytes);
}

static enum rq_err put_value(struct run *r, sqlite3_stmt *stmt, int i, const struct rq_sql_column *c)
{
    const void *data;
    switch (sqlite3_column_type(stmt, i)) {
        case SQLITE_INTEGER:
            return put_integer_value(r->out, c, sqlite3_column_int64(stmt, i));
        case SQLITE_FLOAT:
            return rq_go_put_real(r->out, sqlite3_column_double(stmt, i));
        case SQLITE_TEXT:
            data = sqlite3_column_text(stmt, i);
            return data == NULL ? RQ_NOMEM : put_text_value(r, c, data, (size_t)sqlite3_column_bytes(stmt, i));
        case SQLITE_BLOB:
            data = sqlite3_column_blob(stmt, i);
            return put_blob(r, c, data != NULL ? data : "", (size_t)sqlite3_column_bytes(stmt, i));
        default:
            return rq_bytes_put(r->out, "null", 4);
    }
}

static void put_row(struct run *r, const struct rq_sql_prepared *p)
{
    const struct rq_sql_shape *shape = &p->shape;
    put_byte(r, '[');
    for (uint32_t i = 0; i < shape->count && r->err == RQ_OK; i++) {
        put_comma(r, i > 0);
        r->err = r->err == RQ_OK ? put_value(r, p->stmt, (int)i, &shape->columns[i]) : r->err;
    }
    put_byte(r, ']');
}

static void put_named_row(struct run *r, const struct rq_sql_prepared *p)
{
    const struct rq_sql_shape *shape = &p->shape;
    put_byte(r, '{');
    for (uint32_t i = 0; i < shape->order_count && r->err == RQ_OK; i++) {
        const struct rq_sql_column *c = &shape->columns[shape->order[i]];
        put_comma(r, i > 0);
        put_piece(r, shape, c->name_at, c->name_bytes);
        put_byte(r, ':');
        r->err = r->err == RQ_OK ? put_value(r, p->stmt, (int)shape->order[i], c) : r->err;
    }
    put_byte(r, '}');
}

/* Ends a statement in the middle of its rows.  What it wrote is undone: a reset alone would commit it, where it is a transaction by
 * itself. */
static void cut_off(struct run *r, struct rq_sql_prepared *p)
{
    if (!sqlite3_stmt_readonly(p->stmt)) {
        sqlite3_interrupt(r->c->db);
        (void)sqlite3_step(p->stmt);
    }
    (void)sqlite3_reset(p->stmt); /* says again what the last step said */
}

/* There is no place for its rows: the statement has an error, as if the disk had been too full for it. */
static int give_up(struct run *r, struct rq_sql_prepared *p)
{
    (void)snprintf(
        r->why, sizeof r->why, "%s",
        r->err == RQ_FULL ? "not enough disk space for the results" : "the results cannot be written to disk");
    r->err = RQ_OK;
    cut_off(r, p);
    return SQLITE_FULL;
}

/* Steps to the end; the element is there if it is SQLITE_OK. */
static int put_rows(struct run *r, struct rq_sql_prepared *p)
{
    const bool associative = r->form->associative;
    int code = sqlite3_step(p->stmt);
    r->err = r->err == RQ_OK ? rq_sql_shape_of(&p->shape, p->stmt, r->form->qualify_columns, p->column_name) : r->err;
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return sqlite3_reset(p->stmt);
    }
    if (r->err != RQ_OK) {
        cut_off(r, p);
        return SQLITE_INTERRUPT;
    }
    see_types(r, p, code == SQLITE_ROW);
    put_byte(r, '{');
    if (associative) {
        put_named_types(r, &p->shape);
        PUT(r, "\"rows\":[");
    } else {
        put_columns(r, &p->shape);
    }
    if (code == SQLITE_ROW && !associative) {
        PUT(r, ",\"values\":[");
    }
    for (bool first = true; code == SQLITE_ROW; first = false) {
        put_comma(r, !first);
        (associative ? put_named_row : put_row)(r, p);
        make_room(r);
        if (r->err == RQ_FULL || r->err == RQ_IO) {
            return give_up(r, p);
        }
        if (r->err != RQ_OK) {
            cut_off(r, p);
            return SQLITE_INTERRUPT;
        }
        code = sqlite3_step(p->stmt);
        if (code != SQLITE_ROW && !associative) {
            put_byte(r, ']');
        }
    }
    if (associative) {
        put_byte(r, ']');
    }
    put_time(r);
    put_byte(r, '}');
    return sqlite3_reset(p->stmt);
}

/* --- numbers -------------------------------------------------------------------------------------------------------------- */

/* Of the connection: they are those of an earlier statement if this one wrote no row, as rqlited's. */
static void put_numbers(struct run *r, bool ran)
{
    put_byte(r, '{');
    put_integer(r, "last_insert_id", ran ? sqlite3_last_insert_rowid(r->c->db) : 0);
    put_integer(r, "rows_affected", ran ? sqlite3_changes64(r->c->db) : 0);
    put_time(r);
    if (r->form->associative) {
        put_key(r, "rows");
        PUT(r, "null");
    }
    put_byte(r, '}');
}

/* --- errors --------------------------------------------------------------------------------------------------------------- */

static const char *error_text(const struct run *r, bool read)
{
    if (r->c->timed_out) {
        return read ? "query timeout" : "execute timeout";
    }
    return r->why[0] != '\0' ? r->why : rq_sql_error(r->c);
}

/* The element is an error instead. */
static void put_error(struct run *r, bool read, bool prepared)
{
    const char *text = error_text(r, read);
    if (r->err != RQ_OK) {
        return; /* there is no place for it */
    }
    take_back(r);
    put_byte(r, '{');
    if (r->form->associative && read && (prepared || r->kind == RQ_SQL_QUERY)) {
        PUT(r, "\"rows\":[]");
    }
    put_key(r, "error");
    r->err = r->err == RQ_OK ? rq_go_put_text(r->out, (const uint8_t *)text, strlen(text)) : r->err;
    put_byte(r, '}');
}

/* --- values --------------------------------------------------------------------------------------------------------------- */

static int bind_at(sqlite3_stmt *stmt, int i, const struct rq_value *v)
{
    switch (v->type) {
        case RQ_VALUE_INTEGER:
            return sqlite3_bind_int64(stmt, i, v->integer);
        case RQ_VALUE_REAL:
            return sqlite3_bind_double(stmt, i, v->real);
        case RQ_VALUE_TEXT:
            return sqlite3_bind_text64(stmt, i, (const char *)v->text.data, v->text.bytes, SQLITE_STATIC, SQLITE_UTF8);
        case RQ_VALUE_BLOB:
            return sqlite3_bind_blob64(stmt, i, v->text.data, v->text.bytes, SQLITE_STATIC);
        case RQ_VALUE_NULL:
        default:
            return sqlite3_bind_null(stmt, i);
    }
}

/* To each parameter of that name, whatever its prefix. */
static int bind_named(sqlite3_stmt *stmt, const struct rq_value *v)
{
    char *name = sqlite3_mprintf(":%s", v->name);
    int code = name == NULL ? SQLITE_NOMEM : SQLITE_OK;
    for (const char *prefix = ":@$"; *prefix != '\0' && code == SQLITE_OK; prefix++) {
        name[0] = *prefix;
        const int i = sqlite3_bind_parameter_index(stmt, name);
        code = i > 0 ? bind_at(stmt, i, v) : SQLITE_OK;
    }
    sqlite3_free(name);
    return code;
}

static bool names_are_right(struct run *r, const struct rq_statement *s)
{
    for (uint32_t i = 0; i < s->value_count; i++) {
        const char *name = s->values[i].name;
        const unsigned char c = name != NULL ? (unsigned char)name[0] : 'a';
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80)) {
            (void)snprintf(r->why, sizeof r->why, "name \"%.300s\" does not begin with a letter", name);
            return false;
        }
    }
    return true;
}

/* Each statement of a string takes as many values as it has parameters; those with names are there for all of them.  rows: it is run
 * for them, and what is said of missing values does not count those of statements before it. */
static int bind(struct run *r, sqlite3_stmt *stmt, const struct rq_statement *s, uint32_t *taken, bool rows)
{
    const int wanted = sqlite3_bind_parameter_count(stmt);
    const uint32_t first = *taken, end = first + (uint32_t)wanted;
    int code = SQLITE_OK;
    if (s->value_count - first < (uint32_t)wanted) {
        (void)snprintf(r->why, sizeof r->why, NOT_ENOUGH, wanted, s->value_count - (rows ? first : 0));
        return SQLITE_ERROR;
    }
    for (uint32_t i = first; i < end && code == SQLITE_OK; i++) {
        const struct rq_value *v = &s->values[i];
        code = v->name != NULL ? bind_named(stmt, v) : bind_at(stmt, (int)(i - first) + 1, v);
    }
    for (uint32_t i = 0; i < s->value_count && code == SQLITE_OK; i++) {
        if ((i < first || i >= end) && s->values[i].name != NULL) {
            code = bind_named(stmt, &s->values[i]);
        }
    }
    *taken = end;
    return code;
}

/* --- statements ----------------------------------------------------------------------------------------------------------- */

static bool reads(const struct rq_sql_prepared *p, const struct rq_sql_form *form, enum rq_sql_kind kind)
{
    const bool explains = sqlite3_stmt_isexplain(p->stmt) != 0 && (kind == RQ_SQL_QUERY || !form->noparse);
    return sqlite3_stmt_readonly(p->stmt) != 0 || explains;
}

static bool has_rows(const struct run *r, const struct rq_sql_prepared *p, bool read)
{
    const bool returning = !r->form->noparse && !p->pragma && !sqlite3_stmt_readonly(p->stmt) &&
                           !sqlite3_stmt_isexplain(p->stmt) && sqlite3_column_count(p->stmt) > 0;
    return returning || (read && r->kind != RQ_SQL_EXECUTE);
}

/* For what it does, not for its rows: of those that only read the first one will do.  Some write with each step (incremental_vacuum). */
static int step(sqlite3_stmt *stmt)
{
    while (sqlite3_step(stmt) == SQLITE_ROW && !sqlite3_stmt_readonly(stmt)) {
    }
    return sqlite3_reset(stmt); /* tells what the last step said */
}

static int run_once(struct run *r, struct rq_sql_prepared *p, bool last, bool read)
{
    if (last && has_rows(r, p, read)) {
        return put_rows(r, p);
    }
    int code = step(p->stmt);
    if (code == SQLITE_OK && last) {
        put_numbers(r, true);
    }
    return code;
}

/* One of a string.  last: what it gives is the element. */
static int run_prepared(struct run *r, struct rq_sql_prepared *p, const struct rq_statement *s, uint32_t *taken,
                        bool last, bool read)
{
    if (rq_sql_connection_late(r->c)) {
        return SQLITE_INTERRUPT;
    }
    if (p->ends_transaction && (r->form->transaction || r->form->within)) {
        (void)snprintf(r->why, sizeof r->why, "%s",
                       r->form->within ? "this transaction is ended by /db/commit or /db/rollback"
                                       : "the transaction of a request cannot be ended by its statements");
        return SQLITE_ERROR;
    }
    int code = bind(r, p->stmt, s, taken, read && r->kind != RQ_SQL_EXECUTE);
    if (code != SQLITE_OK || (r->kind == RQ_SQL_QUERY && !last)) {
        return code;
    }
    if (r->kind == RQ_SQL_QUERY && !read) {
        (void)snprintf(r->why, sizeof r->why, WRITE_IN_QUERY);
        return SQLITE_READONLY;
    }
    uint64_t waits_since_ms = 0;
    do {
        if (last) {
            take_back(r); /* it did nothing yet, when it is run again */
        }
        code = run_once(r, p, last, read);
    } while (code == SQLITE_BUSY && rq_sql_connection_await_turn(r->c, &waits_since_ms));
    return code;
}

static int run_statement(struct run *r, const struct rq_statement *s)
{
    const char *sql = s->sql, *end = s->sql + s->sql_bytes;
    uint32_t taken = 0;
    bool read = r->kind != RQ_SQL_EXECUTE, prepared = false, any = false;
    r->why[0] = '\0';
    r->began_ns = r->form->timings ? rq_clock_ns() : 0;
    r->start = r->out->size;
    r->in_file = false;
    int code = SQLITE_OK;
    if (!names_are_right(r, s)) {
        put_error(r, r->kind == RQ_SQL_QUERY, true);
        return SQLITE_ERROR;
    }
    while (sql < end && code == SQLITE_OK) {
        struct rq_sql_prepared *p = NULL;
        const char *tail = end;
        code = rq_sql_prepare(r->c, sql, (size_t)(end - sql), &p, &tail);
        prepared = code == SQLITE_OK;
        if (prepared && p->stmt != NULL) {
            any = true;
            read = reads(p, r->form, r->kind);
            code = run_prepared(r, p, s, &taken, tail >= end, read);
        }
        if (code != SQLITE_OK) {
            read = r->kind == RQ_SQL_QUERY || (r->kind == RQ_SQL_REQUEST && read);
            put_error(r, read, prepared);
        }
        rq_sql_release(p);
        sql = tail;
    }
    if (code == SQLITE_OK && !any) {
        if (r->kind == RQ_SQL_EXECUTE) {
            put_numbers(r, false);
        } else if (r->form->associative) {
            PUT(r, "{\"rows\":[]}");
        } else {
            PUT(r, "{}");
        }
    }
    return code;
}

/* --- runs ----------------------------------------------------------------------------------------------------------------- */

void rq_sql_results_init(struct rq_sql_results *results, size_t bytes_max, struct rq_answer_room *room)
{
    *results = (struct rq_sql_results){ .stays = room != NULL ? RQ_SQL_SMALL_BYTES : SIZE_MAX };
    rq_bytes_init(&results->json, bytes_max);
    rq_answer_file_init(&results->file, room);
}

static void free_memory(struct rq_sql_results *results)
{
    rq_bytes_fini(&results->json);
    if (results->counted) {
        atomic_fetch_sub(&results->file.room->memory, RQ_SQL_LARGE_BYTES);
        results->counted = false;
        results->stays = RQ_SQL_SMALL_BYTES;
    }
}

void rq_sql_results_fini(struct rq_sql_results *results)
{
    free_memory(results);
    rq_answer_file_fini(&results->file);
}

/* Nothing of the answer is written. */
static void begin_anew(struct rq_sql_results *results)
{
    results->json.size = 0;
    rq_answer_file_fini(&results->file);
}

void rq_sql_results_fail(struct rq_sql_results *results, const char *error)
{
    (void)snprintf(results->error, sizeof results->error, "%s", error);
}

const char *rq_sql_code_text(int code)
{
    return code == SQLITE_CONSTRAINT_FOREIGNKEY ? "FOREIGN KEY constraint failed" : sqlite3_errstr(code);
}

static int run_all(struct run *r, const struct rq_statements *statements)
{
    const bool all_or_nothing = r->form->transaction && r->kind != RQ_SQL_QUERY;
    int code = SQLITE_OK;
    bool first = true;
    for (uint32_t i = 0; i < rq_statements_count(statements) && r->err == RQ_OK && !r->c->too_long && !r->c->left;
         i++) {
        const struct rq_statement *s = rq_statements_at(statements, i);
        if (s->sql_bytes == 0) {
            continue;
        }
        put_comma(r, !first);
        first = false;
        code = run_statement(r, s);
        if (code != SQLITE_OK && all_or_nothing) {
            return code;
        }
    }
    return SQLITE_OK;
}

/* In a transaction of the client's own: all of the run or nothing of it.  SQLITE_OK, or a code: the transaction may hold a part of it. */
static int end_savepoint(struct run *r, int code)
{
    sqlite3 *db = r->c->db;
    if (sqlite3_get_autocommit(db) != 0) {
        return SQLITE_OK; /* SQLite has rolled back all of it */
    }
    int undone = code == SQLITE_OK ? SQLITE_OK : sqlite3_exec(db, "ROLLBACK TO " SAVEPOINT, NULL, NULL, NULL);
    return undone == SQLITE_OK ? sqlite3_exec(db, "RELEASE " SAVEPOINT, NULL, NULL, NULL) : undone;
}

static int run_within(struct run *r, const struct rq_statements *statements)
{
    sqlite3 *db = r->c->db;
    if (!r->form->transaction || r->kind == RQ_SQL_QUERY) {
        return run_all(r, statements);
    }
    int code = sqlite3_exec(db, "SAVEPOINT " SAVEPOINT, NULL, NULL, NULL);
    if (code != SQLITE_OK) {
        return code;
    }
    code = run_all(r, statements);
    code = code == SQLITE_OK && r->err != RQ_OK ? SQLITE_TOOBIG : code; /* what was not run is missing */
    if (end_savepoint(r, code) != SQLITE_OK) { /* a statement has released more than was its own */
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    }
    return code;
}

/* The transaction that the run has begun, or that its statements left open. */
static int end_transaction(struct run *r, struct rq_sql_results *results, int code, bool own)
{
    sqlite3 *db = r->c->db;
    if (own && code == SQLITE_OK && sqlite3_get_autocommit(db) == 0) {
        code = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
        if (code != SQLITE_OK) {
            rq_sql_results_fail(results, sqlite3_errmsg(db));
        }
    }
    if ((own || !r->form->transaction) && sqlite3_get_autocommit(db) == 0) {
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL); /* cannot fail: no statement is open */
        if (!own && code == SQLITE_OK && r->kind != RQ_SQL_QUERY) {
            rq_sql_results_fail(results, "a transaction was left open, and is rolled back");
            code = SQLITE_ABORT_ROLLBACK;
        }
    }
    return code;
}

int rq_sql_run(const struct rq_statements *statements, enum rq_sql_kind kind, const struct rq_sql_form *form,
               struct rq_sql_connection *connection, struct rq_sql_results *results)
{
    struct run r = { .form = form, .kind = kind, .c = connection, .out = &results->json, .results = results };
    const bool own = form->transaction && !form->within && sqlite3_get_autocommit(connection->db) != 0;
    const char *disallowed = rq_statements_disallowed(statements);
    int code = SQLITE_OK;
    begin_anew(results);
    results->file.pretty = form->pretty;
    results->error[0] = '\0';
    if (disallowed != NULL) {
        rq_sql_results_fail(results, disallowed);
        return SQLITE_AUTH;
    }
    rq_sql_connection_begin(connection, form->db_timeout_ns);
    PUT(&r, HEAD);
    if (own) {
        code = sqlite3_exec(connection->db, "BEGIN", NULL, NULL, NULL);
    }
    if (code != SQLITE_OK) {
        rq_sql_results_fail(results, sqlite3_errmsg(connection->db));
    } else {
        code = form->within ? run_within(&r, statements) : run_all(&r, statements);
    }
    const bool too_long = connection->too_long, left = connection->left;
    rq_sql_connection_end(connection);
    if (too_long) {
        code = RQ_SQL_TOO_LONG;
    } else if (left) {
        code = SQLITE_INTERRUPT;
        rq_sql_results_fail(results, "the client has closed the connection");
    } else if (r.err != RQ_OK) {
        code = r.err == RQ_TOOBIG ? SQLITE_TOOBIG : SQLITE_NOMEM;
        rq_sql_results_fail(results, r.err == RQ_TOOBIG ? "the results are too large" : "out of memory");
    } else if (results->file.end.bytes > 0 &&
               rq_answer_file_put(&results->file, results->json.data, results->json.size) == RQ_OK) {
        free_memory(results); /* else it stays there */
    }
    return form->within ? code : end_transaction(&r, results, code, own);
}

bool rq_sql_only_reads(const struct rq_statements *statements, const struct rq_sql_form *form,
                       struct rq_sql_connection *connection)
{
    bool only_reads = true;
    for (uint32_t i = 0; i < rq_statements_count(statements) && only_reads; i++) {
        const struct rq_statement *s = rq_statements_at(statements, i);
        const char *sql = s->sql, *end = s->sql + s->sql_bytes;
        while (sql < end && only_reads) {
            struct rq_sql_prepared *p = NULL;
            only_reads = rq_sql_prepare(connection, sql, (size_t)(end - sql), &p, &sql) == SQLITE_OK &&
                         (p->stmt == NULL || reads(p, form, RQ_SQL_REQUEST));
            rq_sql_release(p);
        }
    }
    return only_reads;
}

/* --- the answer ----------------------------------------------------------------------------------------------------------- */

static enum rq_err prettify(struct rq_bytes *json, struct rq_go_indent *indent)
{
    struct rq_bytes pretty;
    rq_bytes_init(&pretty, json->size_max);
    enum rq_err err = rq_go_indent(indent, &pretty, json->data, json->size);
    struct rq_bytes unused = err == RQ_OK ? *json : pretty;
    if (err == RQ_OK) {
        *json = pretty;
    }
    rq_bytes_fini(&unused);
    return err;
}

enum rq_err rq_sql_answer(struct rq_sql_results *results, const struct rq_sql_form *form,
                          const struct rq_sql_coda *coda)
{
    struct run r = { .form = form, .out = &results->json };
    if (results->error[0] != '\0') {
        begin_anew(results);
    }
    if (results->json.size == 0 && results->file.end.bytes == 0) {
        PUT(&r, HEAD);
    }
    PUT(&r, "]");
    const char *error = results->error[0] != '\0' ? results->error : coda->error;
    if (error != NULL) {
        put_key(&r, "error");
        r.err = r.err == RQ_OK ? rq_go_put_text(r.out, (const uint8_t *)error, strlen(error)) : r.err;
    }
    if (form->timings && coda->seconds > 0) {
        put_key(&r, "time");
        r.err = r.err == RQ_OK ? rq_go_put_real(r.out, coda->seconds) : r.err;
    }
    put_integer(&r, "sequence_number", (int64_t)coda->sequence_number);
    put_integer(&r, "raft_index", form->raft_index ? (int64_t)coda->raft_index : 0);
    PUT(&r, "}");
    return r.err == RQ_OK && form->pretty ? prettify(&results->json, &results->file.end.indent) : r.err;
}
