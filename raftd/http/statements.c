/* A body stays as yyjson read it: texts are where they were, and only blobs are made anew, behind the arrays of statements and
 * values.  Numbers are left as they were written, since only so an integer of 64 bits is told from a real, and an error can name
 * what was sent. */
#include "raftd/http/statements.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "raftd/http/sql_text.h"
#include "raftd/run/duration.h"

#define INVALID_JSON    "invalid JSON body"
#define INVALID_REQUEST "invalid request"
#define NO_STATEMENTS   "no statements"

struct rq_statements {
    uint32_t count;
    bool disallowed;
    yyjson_doc *doc;            /* owns; NULL: of plain text */
    struct rq_statement list[]; /* then the values, then the bytes of blobs, or the plain text */
};

/* The place for what a body turns into. */
struct building {
    struct rq_value *values;
    uint8_t *blobs;
    char *text; /* RQ_HTTP_TEXT_MAX: why not */
};

static enum rq_err refuse(char *text, const char *why)
{
    (void)snprintf(text, RQ_HTTP_TEXT_MAX, "%s\n", why);
    return RQ_PROTOCOL;
}

static enum rq_err refuse_type(char *text, const char *type)
{
    (void)snprintf(text, RQ_HTTP_TEXT_MAX, "unsupported type %.400s\n", type);
    return RQ_PROTOCOL;
}

/* --- values --------------------------------------------------------------------------------------------------------------- */

/* The words of Go, which rqlite's clients see. */
static const char *type_name(yyjson_val *v)
{
    switch (yyjson_get_type(v)) {
        case YYJSON_TYPE_STR:
            return "string";
        case YYJSON_TYPE_BOOL:
            return "bool";
        case YYJSON_TYPE_ARR:
            return "[]interface {}";
        case YYJSON_TYPE_OBJ:
            return "map[string]interface {}";
        default:
            return "<nil>";
    }
}

static bool integer_of(const char *digits, int64_t *ret)
{
    const bool negative = *digits == '-';
    uint64_t v = 0;
    for (const char *s = digits + negative; *s >= '0' && *s <= '9'; s++) {
        const uint64_t digit = (uint64_t)(*s - '0');
        if (v > (UINT64_MAX - digit) / 10) {
            return false;
        }
        v = v * 10 + digit;
    }
    if (v > (uint64_t)INT64_MAX + negative) {
        return false;
    }
    *ret = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static bool is_integer(yyjson_val *number, int64_t *ret)
{
    const char *raw = yyjson_get_raw(number);
    const size_t bytes = yyjson_get_len(number);
    return memchr(raw, '.', bytes) == NULL && memchr(raw, 'e', bytes) == NULL && memchr(raw, 'E', bytes) == NULL &&
           integer_of(raw, ret);
}

static enum rq_err number_of(yyjson_val *number, struct rq_value *v, char *text)
{
    if (is_integer(number, &v->integer)) {
        v->type = RQ_VALUE_INTEGER;
        return RQ_OK;
    }
    v->type = RQ_VALUE_REAL;
    v->real = strtod(yyjson_get_raw(number), NULL); /* ends with the number: it was found to be one */
    if (isinf(v->real)) {
        const size_t bytes = yyjson_get_len(number);
        (void)snprintf(text, RQ_HTTP_TEXT_MAX, "invalid number %.*s\n", bytes < 400 ? (int)bytes : 400,
                       yyjson_get_raw(number));
        return RQ_PROTOCOL;
    }
    return RQ_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The digits in x'...', with blanks around it; false: it is not such a thing. */
static bool find_hex(const char *s, size_t bytes, const char **ret_digits, size_t *ret_count)
{
    while (bytes > 0 && is_blank(s[bytes - 1])) {
        bytes--;
    }
    while (bytes > 0 && is_blank(*s)) {
        s++;
        bytes--;
    }
    if (bytes < 3 || (*s != 'x' && *s != 'X') || s[1] != '\'' || s[bytes - 1] != '\'' || bytes % 2 == 0) {
        return false;
    }
    for (size_t i = 2; i < bytes - 1; i++) {
        if (hex_digit(s[i]) < 0) {
            return false;
        }
    }
    *ret_digits = s + 2;
    *ret_count = bytes - 3;
    return true;
}

static void text_of(struct building *b, yyjson_val *string, struct rq_value *v)
{
    const char *s = yyjson_get_str(string), *digits;
    const size_t bytes = yyjson_get_len(string);
    size_t count;
    v->type = RQ_VALUE_TEXT;
    v->text.data = (const uint8_t *)s;
    v->text.bytes = bytes;
    if (find_hex(s, bytes, &digits, &count)) {
        v->type = RQ_VALUE_BLOB;
        v->text.data = b->blobs;
        v->text.bytes = count / 2;
        for (size_t i = 0; i < count; i += 2) {
            *b->blobs++ = (uint8_t)(hex_digit(digits[i]) << 4 | hex_digit(digits[i + 1]));
        }
    }
}

static enum rq_err blob_of(struct building *b, yyjson_val *array, struct rq_value *v)
{
    yyjson_val *item;
    size_t i, n;
    v->type = RQ_VALUE_BLOB;
    v->text.data = b->blobs;
    v->text.bytes = yyjson_arr_size(array);
    yyjson_arr_foreach(array, i, n, item)
    {
        int64_t byte;
        if (!yyjson_is_raw(item)) {
            return refuse_type(b->text, type_name(item));
        }
        if (!is_integer(item, &byte) || byte < 0 || byte > 255) {
            char number[64];
            (void)snprintf(number, sizeof number, "%.*s", (int)(yyjson_get_len(item) < 60 ? yyjson_get_len(item) : 60),
                           yyjson_get_raw(item));
            return refuse_type(b->text, number);
        }
        *b->blobs++ = (uint8_t)byte;
    }
    return RQ_OK;
}

static enum rq_err add_value(struct building *b, const char *name, yyjson_val *from)
{
    struct rq_value *v = b->values++;
    v->name = name != NULL && *name != '\0' ? name : NULL;
    switch (yyjson_get_type(from)) {
        case YYJSON_TYPE_RAW:
            return number_of(from, v, b->text);
        case YYJSON_TYPE_STR:
            text_of(b, from, v);
            return RQ_OK;
        case YYJSON_TYPE_BOOL:
            v->type = RQ_VALUE_INTEGER;
            v->integer = yyjson_get_bool(from);
            return RQ_OK;
        case YYJSON_TYPE_ARR:
            return blob_of(b, from, v);
        case YYJSON_TYPE_OBJ:
            return refuse_type(b->text, type_name(from));
        default:
            v->type = RQ_VALUE_NULL;
            return RQ_OK;
    }
}

/* --- statements ----------------------------------------------------------------------------------------------------------- */

static void add_sql(struct rq_statements *s, const char *sql, size_t bytes)
{
    const char *zero = memchr(sql, '\0', bytes);
    struct rq_statement *statement = &s->list[s->count++];
    statement->sql = sql;
    statement->sql_bytes = zero != NULL ? (size_t)(zero - sql) : bytes;
    s->disallowed = s->disallowed || rq_sql_has_disallowed_pragma(sql);
}

static enum rq_err add_statement(struct building *b, struct rq_statements *s, yyjson_val *from)
{
    yyjson_val *sql = yyjson_is_arr(from) ? yyjson_arr_get_first(from) : from, *item;
    size_t i, n;
    enum rq_err err = RQ_OK;
    if (!yyjson_is_str(sql)) {
        return refuse(b->text, INVALID_REQUEST);
    }
    add_sql(s, yyjson_get_str(sql), yyjson_get_len(sql));
    struct rq_statement *statement = &s->list[s->count - 1];
    statement->values = b->values;
    if (from == sql) {
        return RQ_OK;
    }
    yyjson_arr_foreach(from, i, n, item)
    {
        if (i > 0 && yyjson_is_obj(item)) {
            yyjson_val *key, *value;
            size_t j, m;
            yyjson_obj_foreach(item, j, m, key, value)
            {
                err = err == RQ_OK ? add_value(b, yyjson_get_str(key), value) : err;
            }
        } else if (i > 0) {
            err = add_value(b, NULL, item);
        }
        if (err != RQ_OK) {
            return err;
        }
    }
    statement->value_count = (uint32_t)(b->values - statement->values);
    return RQ_OK;
}

/* How much there may be: values, and bytes of blobs. */
static void measure(yyjson_val *statement, size_t *values, size_t *bytes)
{
    yyjson_val *item, *key, *value;
    size_t i, n, j, m;
    if (!yyjson_is_arr(statement)) {
        return;
    }
    yyjson_arr_foreach(statement, i, n, item)
    {
        if (yyjson_is_obj(item)) {
            yyjson_obj_foreach(item, j, m, key, value)
            {
                *bytes += yyjson_is_arr(value) ? yyjson_arr_size(value) : yyjson_get_len(value) / 2;
            }
            *values += yyjson_obj_size(item);
        } else {
            *bytes += yyjson_is_arr(item) ? yyjson_arr_size(item) : yyjson_get_len(item) / 2;
            *values += 1;
        }
    }
}

static enum rq_err build(yyjson_doc *doc, struct rq_statements **ret_statements, char *text)
{
    yyjson_val *root = yyjson_doc_get_root(doc), *item;
    size_t i, n, values = 0, bytes = 0;
    const size_t count = yyjson_arr_size(root);
    if (!yyjson_is_arr(root)) {
        return refuse(text, INVALID_REQUEST);
    }
    if (count == 0) {
        return refuse(text, NO_STATEMENTS);
    }
    yyjson_arr_foreach(root, i, n, item)
    {
        measure(item, &values, &bytes);
    }
    /* No overflow: each of them takes at least a byte of the body, which is in memory. */
    struct rq_statements *s =
        calloc(1, sizeof *s + count * sizeof(struct rq_statement) + values * sizeof(struct rq_value) + bytes + 1);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    void *behind_list = s->list + count;
    struct building b = { .values = behind_list, .text = text };
    b.blobs = (uint8_t *)(b.values + values);
    yyjson_arr_foreach(root, i, n, item)
    {
        enum rq_err err = add_statement(&b, s, item);
        if (err != RQ_OK) {
            free(s);
            return err;
        }
    }
    s->doc = doc;
    *ret_statements = s;
    return RQ_OK;
}

enum rq_err rq_statements_parse(const uint8_t *body, size_t bytes, struct rq_statements **ret_statements,
                                char text[RQ_HTTP_TEXT_MAX])
{
    yyjson_read_err why;
    if (bytes > INT32_MAX) {
        return RQ_TOOBIG; /* SQLite counts in int */
    }
    /* What follows the array is not looked at. */
    yyjson_doc *doc = bytes == 0 ? NULL
                                 : yyjson_read_opts((char *)(uintptr_t)body, bytes, /* is only read */
                                                    YYJSON_READ_NUMBER_AS_RAW | YYJSON_READ_STOP_WHEN_DONE, NULL, &why);
    if (doc == NULL) {
        size_t i = 0;
        while (i < bytes && is_blank((char)body[i])) {
            i++;
        }
        return bytes > 0 && why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION
                   ? RQ_NOMEM
                   : refuse(text, i < bytes && body[i] == '{' ? INVALID_REQUEST : INVALID_JSON);
    }
    enum rq_err err = build(doc, ret_statements, text);
    if (err != RQ_OK) {
        yyjson_doc_free(doc);
    }
    return err;
}

enum rq_err rq_statements_from_sql(const char *sql, size_t bytes, struct rq_statements **ret_statements)
{
    if (bytes > INT32_MAX) {
        return RQ_TOOBIG;
    }
    struct rq_statements *s = calloc(1, sizeof *s + sizeof(struct rq_statement) + bytes + 1);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    char *copy = (char *)(s->list + 1);
    if (bytes > 0) {
        memcpy(copy, sql, bytes);
        add_sql(s, copy, bytes);
    }
    *ret_statements = s;
    return RQ_OK;
}

enum rq_err rq_statements_read(const struct rq_http_request *request, enum rq_sql_kind kind,
                               struct rq_statements **ret_statements, char text[RQ_HTTP_TEXT_MAX])
{
    const bool plain = request->content_type != NULL && strncmp(request->content_type, "text/plain", 10) == 0;
    if (strcmp(request->method, "POST") != 0) {
        const char *q = rq_http_param(request, "q");
        return rq_statements_from_sql(q, q != NULL ? strlen(q) : 0, ret_statements);
    }
    if (plain && kind != RQ_SQL_REQUEST) {
        return rq_statements_from_sql((const char *)request->body, request->body_bytes, ret_statements);
    }
    return rq_statements_parse(request->body, request->body_bytes, ret_statements, text);
}

void rq_statements_free(struct rq_statements *s)
{
    if (s != NULL) {
        yyjson_doc_free(s->doc);
        free(s);
    }
}

uint32_t rq_statements_count(const struct rq_statements *s)
{
    return s->count;
}

const struct rq_statement *rq_statements_at(const struct rq_statements *s, uint32_t index)
{
    return &s->list[index];
}

const char *rq_statements_disallowed(const struct rq_statements *s)
{
    return s->disallowed ? "disallowed pragma" : NULL;
}

/* --- form ----------------------------------------------------------------------------------------------------------------- */

void rq_sql_form_read(const struct rq_http_request *request, struct rq_sql_form *ret_form)
{
    const char *db_timeout = rq_http_param(request, "db_timeout");
    *ret_form = (struct rq_sql_form){
        .transaction = rq_http_has(request, "transaction"),
        .timings = rq_http_has(request, "timings"),
        .associative = rq_http_has(request, "associative"),
        .blob_array = rq_http_has(request, "blob_array"),
        .exact_blobs = rq_http_has(request, "exact_blobs"),
        .pretty = rq_http_has(request, "pretty"),
        .qualify_columns = rq_http_has(request, "qualify_columns"),
        .raft_index = rq_http_has(request, "raft_index"),
        .noparse = rq_http_has(request, "noparse"),
        .queue = rq_http_has(request, "queue"),
        .wait = rq_http_has(request, "wait"),
        .redirect = rq_http_has(request, "redirect"),
        .noleader = rq_http_has(request, "noleader"),
    };
    if (db_timeout != NULL && !rq_parse_duration(db_timeout, &ret_form->db_timeout_ns)) {
        ret_form->db_timeout_ns = 0;
    }
}
