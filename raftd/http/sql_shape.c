#include "raftd/http/sql_shape.h"

#include <stdlib.h>
#include <string.h>

#include "raftd/http/go_json.h"

#define PIECES_BYTES_MAX \
    (256u << 20) /* 2000 columns with names of any length that SQLite takes; offsets are of 32 bits */

void rq_sql_shape_init(struct rq_sql_shape *shape)
{
    *shape = (struct rq_sql_shape){ .known = false };
    rq_bytes_init(&shape->pieces, PIECES_BYTES_MAX);
}

void rq_sql_shape_fini(struct rq_sql_shape *shape)
{
    free(shape->columns);
    free(shape->order);
    rq_bytes_fini(&shape->pieces);
    rq_sql_shape_init(shape);
}

static bool begins(const char *s, const char *with)
{
    return strncmp(s, with, strlen(with)) == 0;
}

static bool is_text_type(const char *type)
{
    return strcmp(type, "text") == 0 || strcmp(type, "json") == 0 || begins(type, "varchar") ||
           begins(type, "varying character") || begins(type, "nchar") || begins(type, "native character") ||
           begins(type, "nvarchar") || begins(type, "clob");
}

static enum rq_column_kind kind_of(const char *type)
{
    return strcmp(type, "boolean") == 0 ? RQ_COLUMN_BOOLEAN
           : strcmp(type, "date") == 0 || strcmp(type, "datetime") == 0 || strcmp(type, "timestamp") == 0
               ? RQ_COLUMN_TIME
               : RQ_COLUMN_PLAIN;
}

static enum rq_err put_name(struct rq_bytes *pieces, sqlite3_stmt *stmt, int i, bool qualified, const char *given)
{
    const char *name = given != NULL ? given : sqlite3_column_name(stmt, i),
               *table = qualified ? sqlite3_column_table_name(stmt, i) : NULL;
    if (name == NULL) {
        return RQ_NOMEM;
    }
    if (table == NULL) {
        return rq_go_put_text(pieces, (const uint8_t *)name, strlen(name));
    }
    char *both = sqlite3_mprintf("%s.%s", table, name);
    enum rq_err err = both == NULL ? RQ_NOMEM : rq_go_put_text(pieces, (const uint8_t *)both, strlen(both));
    sqlite3_free(both);
    return err;
}

static enum rq_err column_of(struct rq_sql_shape *shape, sqlite3_stmt *stmt, int i, bool qualified, const char *name)
{
    struct rq_sql_column *c = &shape->columns[i];
    const char *declared = sqlite3_column_decltype(stmt, i);
    char *type = strdup(declared != NULL ? declared : "");
    if (type == NULL) {
        return RQ_NOMEM;
    }
    for (char *s = type; *s != '\0'; s++) {
        *s = (char)(*s >= 'A' && *s <= 'Z' ? *s + ('a' - 'A') : *s);
    }
    c->declared = *type != '\0';
    c->is_text = is_text_type(type);
    c->kind = kind_of(type);
    c->name_at = (uint32_t)shape->pieces.size;
    enum rq_err err = put_name(&shape->pieces, stmt, i, qualified, name);
    c->name_bytes = (uint32_t)shape->pieces.size - c->name_at;
    c->type_at = (uint32_t)shape->pieces.size;
    err = err == RQ_OK ? rq_go_put_text(&shape->pieces, (const uint8_t *)type, strlen(type)) : err;
    c->type_bytes = (uint32_t)shape->pieces.size - c->type_at;
    free(type);
    return err;
}

struct named {
    const uint8_t *name;
    uint32_t bytes, column;
};

/* By name; the later one of two with the same name first. */
static int compare(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    const uint32_t n = x->bytes < y->bytes ? x->bytes : y->bytes;
    int order = memcmp(x->name, y->name, n);
    order = order != 0 ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
    return order != 0 ? order : (y->column > x->column) - (y->column < x->column);
}

/* The closing quote, which is less than most of what a name goes on with, is left out.  Escapes change the order of names with
 * characters that need them, which no map's reader can tell. */
static enum rq_err sort(struct rq_sql_shape *shape)
{
    struct named *names = calloc(shape->count + 1, sizeof *names);
    if (names == NULL) {
        return RQ_NOMEM;
    }
    for (uint32_t i = 0; i < shape->count; i++) {
        const struct rq_sql_column *c = &shape->columns[i];
        names[i] = (struct named){ shape->pieces.data + c->name_at + 1, c->name_bytes - 2, i };
    }
    qsort(names, shape->count, sizeof *names, compare);
    for (uint32_t i = 0; i < shape->count; i++) {
        const bool again = i > 0 && names[i].bytes == names[i - 1].bytes &&
                           memcmp(names[i].name, names[i - 1].name, names[i].bytes) == 0;
        if (!again) {
            shape->order[shape->order_count++] = names[i].column;
        }
    }
    free(names);
    return RQ_OK;
}

enum rq_err rq_sql_shape_of(struct rq_sql_shape *shape, sqlite3_stmt *stmt, bool qualified, const char *name)
{
    const int compiled = sqlite3_stmt_status(stmt, SQLITE_STMTSTATUS_REPREPARE, 0);
    if (shape->known && shape->compiled == compiled && shape->qualified == qualified) {
        return RQ_OK;
    }
    rq_sql_shape_fini(shape);
    const int count = sqlite3_column_count(stmt);
    shape->columns = calloc((size_t)count + 1, sizeof *shape->columns);
    shape->order = calloc((size_t)count + 1, sizeof *shape->order);
    enum rq_err err = shape->columns == NULL || shape->order == NULL ? RQ_NOMEM : RQ_OK;
    for (int i = 0; i < count && err == RQ_OK; i++) {
        err = column_of(shape, stmt, i, qualified, name);
        shape->count++;
    }
    err = err == RQ_OK ? sort(shape) : err;
    if (err != RQ_OK) {
        rq_sql_shape_fini(shape);
        return err;
    }
    shape->known = true;
    shape->qualified = qualified;
    shape->compiled = compiled;
    return RQ_OK;
}
