/* results: what statements give, as the very bytes that rqlite's clients expect.  Names say the section of the reference. */
#include <sqlite3.h>
#include <stdlib.h>

#include "raftd/http/results.h"
#include "tests/support/tap.h"

#define ANSWER_MAX (64u << 20)

static sqlite3 *db;
static struct rq_sql_connection connection;

static void open_db(void)
{
    check_eq(sqlite3_open(":memory:", &db), SQLITE_OK);
    check_eq(rq_sql_connection_init(&connection, db), RQ_OK);
}

static void close_db(void)
{
    rq_sql_connection_fini(&connection);
    check_eq(sqlite3_close(db), SQLITE_OK);
}

static bool gives(enum rq_sql_kind kind, struct rq_sql_form form, const char *body, const char *wanted)
{
    char text[RQ_HTTP_TEXT_MAX];
    struct rq_statements *statements;
    struct rq_sql_results results;
    struct rq_sql_coda coda = { 0 };
    enum rq_err err = rq_statements_parse((const uint8_t *)body, strlen(body), &statements, text);
    if (err != RQ_OK) {
        printf("# %s: %s", body, text);
        return false;
    }
    rq_sql_results_init(&results, ANSWER_MAX);
    (void)rq_sql_run(statements, kind, &form, &connection, &results);
    err = rq_sql_answer(&results, &form, &coda);
    const bool same = err == RQ_OK && results.json.size == strlen(wanted) &&
                      memcmp(results.json.data, wanted, results.json.size) == 0;
    if (!same) {
        printf("# %s\n# gives  %.*s\n# wanted %s\n", body, (int)results.json.size, (char *)results.json.data, wanted);
    }
    rq_sql_results_fini(&results);
    rq_statements_free(statements);
    return same;
}

static void s2_4_samples(void)
{
    const struct rq_sql_form plain = { 0 };
    open_db();
    check(gives(RQ_SQL_EXECUTE, plain, "[\"CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)\"]",
                "{\"results\":[{}]}"));
    check(gives(RQ_SQL_EXECUTE, plain,
                "[[\"INSERT INTO foo(name) VALUES(?)\",\"fiona\"],[\"INSERT INTO foo(name) VALUES(:n)\",{\"n\":\"bob\"}]]",
                "{\"results\":[{\"last_insert_id\":1,\"rows_affected\":1},{\"last_insert_id\":2,\"rows_affected\":1}]}"));
    check(gives(RQ_SQL_QUERY, plain, "[\"SELECT * FROM foo\"]",
                "{\"results\":[{\"columns\":[\"id\",\"name\"],\"types\":[\"integer\",\"text\"],"
                "\"values\":[[1,\"fiona\"],[2,\"bob\"]]}]}"));
    close_db();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = { TAP(s2_4_samples) };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
