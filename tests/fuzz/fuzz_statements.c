/* A client's body: what it means, what its statements give when they are run, in every form, and the same bytes as SQL, as a text
 * and as a time.  Whatever they are, the answer is JSON. */
#include <sqlite3.h>
#include <string.h>
#include <yyjson.h>

#include "raftd/http/go_json.h"
#include "raftd/http/results.h"
#include "raftd/http/sql_text.h"
#include "tests/fuzz/fuzz.h"

#define ANSWER_MAX (1u << 20)
#define TEXT_MAX   100000 /* that SQL makes */

static void must_be_json(const struct rq_bytes *json)
{
    yyjson_doc *doc = yyjson_read((const char *)json->data, json->size, 0);
    MUST(doc != NULL);
    yyjson_doc_free(doc);
}

static void run(const struct rq_statements *statements, enum rq_sql_kind kind, struct rq_sql_form form)
{
    sqlite3 *db;
    struct rq_sql_connection connection;
    struct rq_sql_results results;
    const struct rq_sql_coda coda = { .seconds = 0.5, .raft_index = 7 };
    MUST(sqlite3_open(":memory:", &db) == SQLITE_OK);
    (void)sqlite3_limit(db, SQLITE_LIMIT_LENGTH, TEXT_MAX);
    MUST(rq_sql_connection_init(&connection, db) == RQ_OK);
    connection.budget = 10;
    rq_sql_results_init(&results, ANSWER_MAX, NULL);
    int code = rq_sql_run(statements, kind, &form, &connection, &results);
    MUST(sqlite3_get_autocommit(db) != 0);
    if (code != RQ_SQL_TOO_LONG) {
        MUST(rq_sql_answer(&results, &form, &coda) == RQ_OK);
        must_be_json(&results.json);
    }
    rq_sql_results_fini(&results);
    rq_sql_connection_fini(&connection);
    MUST(sqlite3_close(db) == SQLITE_OK);
}

static void run_all(const struct rq_statements *statements)
{
    for (uint32_t i = 0; i < rq_statements_count(statements); i++) {
        const struct rq_statement *s = rq_statements_at(statements, i);
        MUST(strlen(s->sql) == s->sql_bytes);
    }
    run(statements, RQ_SQL_EXECUTE, (struct rq_sql_form){ .transaction = true });
    run(statements, RQ_SQL_QUERY, (struct rq_sql_form){ .associative = true, .qualify_columns = true, .pretty = true });
    run(statements, RQ_SQL_REQUEST, (struct rq_sql_form){ .timings = true, .blob_array = true, .exact_blobs = true });
}

static void try_body(const uint8_t *data, size_t bytes)
{
    struct rq_statements *statements;
    char text[RQ_HTTP_TEXT_MAX];
    enum rq_err err = rq_statements_parse(data, bytes, &statements, text);
    MUST(err == RQ_OK || err == RQ_PROTOCOL);
    if (err == RQ_OK) {
        run_all(statements);
        rq_statements_free(statements);
    } else {
        MUST(text[strlen(text) - 1] == '\n');
    }
}

static void try_sql(const uint8_t *data, size_t bytes)
{
    struct rq_statements *statements;
    MUST(rq_statements_from_sql((const char *)data, bytes, &statements) == RQ_OK);
    run_all(statements);
    rq_statements_free(statements);
}

static void try_text(const uint8_t *data, size_t bytes)
{
    struct rq_bytes json, indented;
    struct rq_go_indent state = { 0 };
    char time[40];
    rq_bytes_init(&json, bytes * 6 + 2);
    MUST(rq_go_put_text(&json, data, bytes) == RQ_OK);
    must_be_json(&json);
    rq_bytes_fini(&json);
    if (rq_go_time_of_text((const char *)data, bytes, time)) {
        MUST(strlen(time) >= strlen("2006-01-02T15:04:05Z"));
    }
    rq_bytes_init(&indented, ANSWER_MAX);
    (void)rq_go_indent(&state, &indented, data, bytes); /* any bytes: it is only to stay inside */
    rq_bytes_fini(&indented);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    try_body(data, bytes);
    try_sql(data, bytes);
    try_text(data, bytes);
    return 0;
}
