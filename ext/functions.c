/* SQL: rqvfs_version(), and the table rqvfs_status with a row for each replicated database that the connection has open.
 *
 * A database is replicated if a control page lies beside it, whichever VFS it was opened with.  What raftd says comes over a
 * connection of its own for each row; without raftd a row tells what the control page knows, and why there is not more. */
#include <stdio.h>
#include <string.h>

#include "ext/link.h"
#include "ext/module.h"
#include "vfs/control.h"
#include "vfs/shim.h"

SQLITE_EXTENSION_INIT3

#define STATUS_MS      1000u
#define CONTROL_SUFFIX "-rqctl"

enum status_column {
    COLUMN_NODE,
    COLUMN_ROLE,
    COLUMN_LEADER,
    COLUMN_DATABASE,
    COLUMN_VERSION,
    COLUMN_APPLIED,
    COLUMN_COMMITTED,
    COLUMN_CHECKSUM,
    COLUMN_LAG,
    COLUMN_STATE,
    COLUMN_MESSAGE,
};
#define STATUS_SCHEMA                                                                                            \
    "CREATE TABLE x(node TEXT, role TEXT, leader TEXT, database TEXT, version INT, applied INT, committed INT, " \
    "checksum TEXT, lag INT, state TEXT, message TEXT)"

struct status_row {
    char node[128], role[32], leader[128], database[RQ_DB_NAME_MAX + 1], state[32];
    char message[RQ_LINK_TEXT_BYTES];
    char checksum[17];
    uint64_t version, applied, committed, lag;
};

struct status_table {
    sqlite3_vtab base; /* first */
    sqlite3 *db;
};

struct status_cursor {
    sqlite3_vtab_cursor base; /* first */
    sqlite3_stmt *databases;  /* PRAGMA database_list */
    bool end;
    sqlite3_int64 row_id;
    struct status_row row;
};

/* --- one row ------------------------------------------------------------------------------------------------------------ */

static struct rq_str str_of(const char *text)
{
    return (struct rq_str){ .data = text, .bytes = (uint32_t)strlen(text) };
}

static void copy_str(char *to, size_t to_bytes, struct rq_str from)
{
    size_t n = from.bytes < to_bytes - 1 ? from.bytes : to_bytes - 1;
    if (n > 0) {
        memcpy(to, from.data, n);
    }
    to[n] = '\0';
}

static void read_control(const struct rq_control *c, struct status_row *row)
{
    static const char *const names[] = { "", "empty", "live", "quarantined" };
    uint32_t state = atomic_load(&c->head->state);
    (void)snprintf(row->state, sizeof row->state, "%s", state < sizeof names / sizeof *names ? names[state] : "");
    row->version = atomic_load(&c->head->version);
    row->applied = atomic_load(&c->head->applied_index);
    row->committed = atomic_load(&c->head->commit_index);
    row->lag = row->committed > row->applied ? row->committed - row->applied : 0;
    if (state == RQ_DB_QUARANTINED) {
        copy_str(row->message, sizeof row->message,
                 (struct rq_str){ .data = c->head->message,
                                  .bytes = (uint32_t)strnlen(c->head->message, sizeof c->head->message) });
    }
}

static enum rq_err ask_raftd(struct rq_link *l, struct status_row *row)
{
    uint64_t deadline = rq_now_ms() + STATUS_MS;
    enum rq_err err = rq_link_open(l, deadline);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_msg_status status = { .name = str_of(row->database) };
    struct rq_msg_state state;
    struct rq_answer answer;
    uint64_t id = rq_link_begin(l);
    err = rq_msg_put_status(&l->out, id, &status);
    if (err == RQ_OK) {
        err = rq_link_call(l, id, RQ_MSG_STATE, deadline, &answer);
    }
    if (err == RQ_OK) {
        err = answer.err;
    }
    if (err == RQ_OK) {
        err = rq_msg_get_state(answer.body, answer.bytes, &state);
    }
    if (err != RQ_OK) {
        return err;
    }
    copy_str(row->node, sizeof row->node, state.node_id);
    copy_str(row->role, sizeof row->role, state.role);
    copy_str(row->leader, sizeof row->leader, state.leader);
    copy_str(row->state, sizeof row->state, state.state);
    copy_str(row->message, sizeof row->message, state.message);
    (void)snprintf(row->checksum, sizeof row->checksum, "%016llx", (unsigned long long)state.checksum);
    row->version = state.version;
    row->applied = state.applied_index;
    row->committed = state.commit_index;
    row->lag = state.lag;
    return RQ_OK;
}

/* False: not a replicated database. */
static bool read_row(const char *path, const char *raftd_socket, struct status_row *row)
{
    const char *slash = strrchr(path, '/');
    *row = (struct status_row){ 0 };
    copy_str(row->database, sizeof row->database, str_of(slash == NULL ? path : slash + 1));
    char *control_path = sqlite3_mprintf("%s%s", path, CONTROL_SUFFIX);
    if (control_path == NULL) {
        return false;
    }
    struct rq_control control;
    enum rq_err err = rq_control_open(rq_disk_real(), control_path, rq_boot_id(), &control);
    sqlite3_free(control_path);
    if (err == RQ_NOTFOUND) {
        return false;
    }
    if (err == RQ_OK) {
        read_control(&control, row);
        rq_control_close(&control);
    }
    struct rq_link link;
    err = rq_link_init(&link, rq_link_socket_of(path, raftd_socket), sqlite3_libversion());
    if (err == RQ_OK) {
        err = ask_raftd(&link, row);
    }
    if (err != RQ_OK && row->message[0] == '\0') {
        const char *text = link.text[0] != '\0' ? link.text : rq_err_text(err);
        copy_str(row->message, sizeof row->message, str_of(text));
    }
    rq_link_fini(&link);
    return true;
}

/* --- the table ---------------------------------------------------------------------------------------------------------- */

static int status_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **ret_table,
                          char **ret_message)
{
    (void)aux, (void)argc, (void)argv, (void)ret_message;
    int code = sqlite3_declare_vtab(db, STATUS_SCHEMA);
    if (code != SQLITE_OK) {
        return code;
    }
    struct status_table *t = sqlite3_malloc(sizeof *t);
    if (t == NULL) {
        return SQLITE_NOMEM;
    }
    *t = (struct status_table){ .db = db };
    *ret_table = &t->base;
    return SQLITE_OK;
}

static int status_disconnect(sqlite3_vtab *table)
{
    sqlite3_free(table);
    return SQLITE_OK;
}

static int status_best_index(sqlite3_vtab *table, sqlite3_index_info *info)
{
    (void)table;
    info->estimatedCost = 1e6; /* every row is a question to raftd: read the table once */
    info->estimatedRows = 4;
    return SQLITE_OK;
}

static int status_open(sqlite3_vtab *table, sqlite3_vtab_cursor **ret_cursor)
{
    (void)table;
    struct status_cursor *c = sqlite3_malloc(sizeof *c);
    if (c == NULL) {
        return SQLITE_NOMEM;
    }
    memset(c, 0, sizeof *c);
    *ret_cursor = &c->base;
    return SQLITE_OK;
}

static int status_close(sqlite3_vtab_cursor *cursor)
{
    struct status_cursor *c = (struct status_cursor *)cursor;
    (void)sqlite3_finalize(c->databases); /* repeats the error of its last step, which was reported there */
    sqlite3_free(c);
    return SQLITE_OK;
}

/* If there is nothing worse to tell. */
static void tell_refused(sqlite3 *db, const char *schema, struct status_row *row)
{
    char *text = NULL;
    if (row->message[0] == '\0' && sqlite3_file_control(db, schema, RQ_FCNTL_READ_REFUSED, &text) == SQLITE_OK) {
        copy_str(row->message, sizeof row->message, str_of(text));
        sqlite3_free(text);
    }
}

static int status_next(sqlite3_vtab_cursor *cursor)
{
    struct status_cursor *c = (struct status_cursor *)cursor;
    sqlite3 *db = ((struct status_table *)cursor->pVtab)->db;
    int code;
    while ((code = sqlite3_step(c->databases)) == SQLITE_ROW) {
        const char *schema = (const char *)sqlite3_column_text(c->databases, 1);
        const char *path = schema == NULL ? NULL : sqlite3_db_filename(db, schema);
        if (path != NULL && path[0] == '/' && read_row(path, sqlite3_uri_parameter(path, "raftd"), &c->row)) {
            tell_refused(db, schema, &c->row);
            c->row_id++;
            return SQLITE_OK;
        }
    }
    c->end = true;
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int status_filter(sqlite3_vtab_cursor *cursor, int index, const char *index_name, int argc, sqlite3_value **argv)
{
    (void)index, (void)index_name, (void)argc, (void)argv;
    struct status_cursor *c = (struct status_cursor *)cursor;
    (void)sqlite3_finalize(c->databases);
    c->databases = NULL;
    c->row_id = 0;
    c->end = false;
    int code =
        sqlite3_prepare_v2(((struct status_table *)cursor->pVtab)->db, "PRAGMA database_list", -1, &c->databases, NULL);
    return code == SQLITE_OK ? status_next(cursor) : code;
}

static int status_eof(sqlite3_vtab_cursor *cursor)
{
    return ((struct status_cursor *)cursor)->end;
}

static void result_text(sqlite3_context *ctx, const char *text)
{
    if (text[0] != '\0') { /* else NULL: not known */
        sqlite3_result_text(ctx, text, -1, SQLITE_TRANSIENT);
    }
}

static int status_column(sqlite3_vtab_cursor *cursor, sqlite3_context *ctx, int column)
{
    struct status_cursor *c = (struct status_cursor *)cursor;
    switch ((enum status_column)column) {
        case COLUMN_NODE:
            result_text(ctx, c->row.node);
            break;
        case COLUMN_ROLE:
            result_text(ctx, c->row.role);
            break;
        case COLUMN_LEADER:
            result_text(ctx, c->row.leader);
            break;
        case COLUMN_DATABASE:
            result_text(ctx, c->row.database);
            break;
        case COLUMN_VERSION:
            sqlite3_result_int64(ctx, (sqlite3_int64)c->row.version);
            break;
        case COLUMN_APPLIED:
            sqlite3_result_int64(ctx, (sqlite3_int64)c->row.applied);
            break;
        case COLUMN_COMMITTED:
            sqlite3_result_int64(ctx, (sqlite3_int64)c->row.committed);
            break;
        case COLUMN_CHECKSUM:
            result_text(ctx, c->row.checksum);
            break;
        case COLUMN_LAG:
            sqlite3_result_int64(ctx, (sqlite3_int64)c->row.lag);
            break;
        case COLUMN_STATE:
            result_text(ctx, c->row.state);
            break;
        case COLUMN_MESSAGE:
            result_text(ctx, c->row.message);
            break;
    }
    return SQLITE_OK;
}

static int status_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *ret_id)
{
    *ret_id = ((struct status_cursor *)cursor)->row_id;
    return SQLITE_OK;
}

/* No xCreate: the table is there under its own name, and cannot be made under another. */
static const sqlite3_module status_module = {
    .iVersion = 0,
    .xConnect = status_connect,
    .xBestIndex = status_best_index,
    .xDisconnect = status_disconnect,
    .xOpen = status_open,
    .xClose = status_close,
    .xFilter = status_filter,
    .xNext = status_next,
    .xEof = status_eof,
    .xColumn = status_column,
    .xRowid = status_rowid,
};

static void version_function(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    (void)argc, (void)argv;
    sqlite3_result_text(ctx, RQ_BUILD_VERSION, -1, SQLITE_STATIC);
}

int rq_functions_register(sqlite3 *db)
{
    int code = sqlite3_create_function_v2(db, "rqvfs_version", 0, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
                                          version_function, NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_create_module_v2(db, "rqvfs_status", &status_module, NULL, NULL);
    }
    return code;
}
