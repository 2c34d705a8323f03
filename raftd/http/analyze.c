/* Whether a text is SQL is asked of SQLite, on a database that has nothing in it: it complains of the text before it does of missing
 * tables, and only the former counts. */
#include "raftd/http/analyze.h"

#include <sqlite3.h>
#include <string.h>

#include "raftd/http/go_json.h"
#include "raftd/http/sql_connection.h"
#include "raftd/http/statements.h"
#include "raftd/run/clock.h"

#define ANSWER_BYTES_MAX (64u << 20)

static bool is_syntax_error(const char *text)
{
    return strstr(text, "syntax error") != NULL || strcmp(text, "incomplete input") == 0 ||
           strncmp(text, "unrecognized token", 18) == 0;
}

static enum rq_err put(struct rq_bytes *out, const char *literal)
{
    return rq_bytes_put(out, literal, strlen(literal));
}

static enum rq_err put_field(struct rq_bytes *out, const char *name, const char *text, size_t bytes)
{
    enum rq_err err = put(out, name);
    return err == RQ_OK ? rq_go_put_text(out, (const uint8_t *)text, bytes) : err;
}

static enum rq_err put_statement(struct rq_bytes *out, struct rq_sql_connection *c, const struct rq_statement *s)
{
    const char *sql = s->sql, *end = s->sql + s->sql_bytes, *error = NULL;
    enum rq_err err = put_field(out, "{\"original\":", s->sql, s->sql_bytes);
    while (sql < end && err == RQ_OK) {
        struct rq_sql_prepared *p = NULL;
        if (rq_sql_prepare(c, sql, (size_t)(end - sql), &p, &sql) != SQLITE_OK) {
            error = rq_sql_error(c);
            break; /* where the next statement begins is not known */
        }
        rq_sql_release(p);
    }
    if (err == RQ_OK && error != NULL && is_syntax_error(error)) {
        err = put_field(out, ",\"error\":", error, strlen(error));
    } else if (err == RQ_OK && s->sql_bytes > 0) {
        err = put_field(out, ",\"rewritten\":", s->sql, s->sql_bytes);
    }
    return err == RQ_OK ? put(out, "}") : err;
}

static enum rq_err put_answer(struct rq_bytes *out, struct rq_sql_connection *c, const struct rq_statements *statements,
                              const struct rq_sql_form *form, uint64_t began_ns)
{
    enum rq_err err = put(out, "{\"results\":[");
    for (uint32_t i = 0; i < rq_statements_count(statements) && err == RQ_OK; i++) {
        err = i > 0 ? put(out, ",") : RQ_OK;
        err = err == RQ_OK ? put_statement(out, c, rq_statements_at(statements, i)) : err;
    }
    err = err == RQ_OK ? put(out, "]") : err;
    if (form->timings && err == RQ_OK) {
        err = put(out, ",\"time\":");
        err = err == RQ_OK ? rq_go_put_real(out, (double)(rq_clock_ns() - began_ns) / 1e9) : err;
    }
    return err == RQ_OK ? put(out, "}") : err;
}

static enum rq_err analyze(const struct rq_statements *statements, const struct rq_sql_form *form,
                           struct rq_bytes *ret_json)
{
    const uint64_t began_ns = rq_clock_ns();
    struct rq_sql_connection c = { .db = NULL };
    struct rq_go_indent indent = { 0 };
    struct rq_bytes json;
    sqlite3 *db = NULL;
    rq_bytes_init(&json, ANSWER_BYTES_MAX);
    enum rq_err err = sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, NULL) == SQLITE_OK
                          ? rq_sql_connection_init(&c, db)
                          : RQ_NOMEM;
    err = err == RQ_OK ? put_answer(&json, &c, statements, form, began_ns) : err;
    rq_sql_connection_fini(&c);
    (void)sqlite3_close(db); /* nothing is open */
    if (err == RQ_OK && form->pretty) {
        err = rq_go_indent(&indent, ret_json, json.data, json.size);
    } else if (err == RQ_OK) {
        err = rq_bytes_put(ret_json, json.data, json.size);
    }
    rq_bytes_fini(&json);
    return err;
}

static void on_analyze(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_statements *statements = NULL;
    struct rq_sql_form form;
    char text[RQ_HTTP_TEXT_MAX];
    (void)ctx;
    if (strcmp(request->method, "GET") == 0 && !rq_http_has(request, "q")) {
        rq_http_text(response, 400, "query not specified\n");
        return;
    }
    enum rq_err err = rq_statements_read(request, RQ_SQL_REQUEST, &statements, text);
    if (err == RQ_PROTOCOL) {
        rq_http_text(response, 400, text);
        return;
    }
    rq_sql_form_read(request, &form);
    err = err == RQ_OK ? analyze(statements, &form, &response->body) : err;
    rq_statements_free(statements);
    response->status = err == RQ_OK ? 200 : 500;
    response->content_type = RQ_HTTP_JSON;
    if (err != RQ_OK) {
        response->body.size = 0;
    }
}

const struct rq_http_route rq_analyze_routes[] = {
    { "/db/sql", true, false, "GET, POST", "query", on_analyze, .type = RQ_HTTP_JSON },
};
const size_t rq_analyze_route_count = sizeof rq_analyze_routes / sizeof *rq_analyze_routes;
