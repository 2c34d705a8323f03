/* Results and memory: a body is read, run and answered again and again, while the first, the second, ... allocation of ours fails,
 * once.  Either the answer is the right one, or it says that memory was short, or there is none; and the next one is right.  SQLite's
 * and yyjson's own memory does not fail. */
#include <sqlite3.h>
#include <stdlib.h>

#include "raftd/http/results.h"
#include "tests/support/failing_memory.h"
#include "tests/support/tap.h"

#define ALLOCATIONS_MAX 10000u
#define ANSWER_MAX      (1u << 20)

static unsigned countdown; /* until the one that fails; 0: passed */

bool allocation_fails(void)
{
    if (countdown == 0) {
        return false;
    }
    countdown--;
    return countdown == 0;
}

/* Each statement twice, so that it is kept. */
static const char body[] =
    "[[\"SELECT ?, :b, 1.5 AS c FROM t\",[1,2],{\"b\":\"text\"}],[\"SELECT ?, :b, 1.5 AS c FROM t\",1,{\"b\":2}],"
    "\"SELECT * FROM t\",\"SELECT * FROM t\",\"SELECT nope\"]";
static const char right[] =
    "{\"results\":[{\"columns\":[\"?\",\":b\",\"c\"],\"types\":[\"text\",\"text\",\"real\"],\"values\":[["
    "\"\\u0001\\u0002\","
    "\"text\",1.5]]},{\"columns\":[\"?\",\":b\",\"c\"],\"types\":[\"integer\",\"integer\",\"real\"],\"values\":[[1,2,1."
    "5]]},"
    "{\"columns\":[\"t.id\"],\"types\":[\"integer\"],\"values\":[[7]]},{\"columns\":[\"t.id\"],\"types\":[\"integer\"],"
    "\"values\":[[7]]},{\"error\":\"no such column: nope\"}]}";

static bool is_right(const struct rq_bytes *json)
{
    return json->size == strlen(right) && memcmp(json->data, right, json->size) == 0;
}

struct asked {
    enum rq_err parsed, answered;
    struct rq_sql_results results;
    bool is_right, says_memory;
};

static struct asked ask(struct rq_sql_connection *connection)
{
    const struct rq_sql_form form = { .qualify_columns = true };
    const struct rq_sql_coda coda = { 0 };
    struct asked a = { .answered = RQ_NOMEM };
    struct rq_statements *statements;
    char text[RQ_HTTP_TEXT_MAX];
    a.parsed = rq_statements_parse((const uint8_t *)body, strlen(body), &statements, text);
    if (a.parsed == RQ_OK) {
        rq_sql_results_init(&a.results, ANSWER_MAX);
        (void)rq_sql_run(statements, RQ_SQL_QUERY, &form, connection, &a.results);
        a.answered = rq_sql_answer(&a.results, &form, &coda);
        a.is_right = a.answered == RQ_OK && is_right(&a.results.json);
        a.says_memory =
            a.answered == RQ_OK && memmem(a.results.json.data, a.results.json.size, "out of memory", 13) != NULL;
        rq_sql_results_fini(&a.results);
        rq_statements_free(statements);
    }
    return a;
}

static void every_allocation_may_fail(void)
{
    unsigned n = 1, failed = 0;
    bool passed = false;
    for (; !passed; n++) {
        sqlite3 *db;
        struct rq_sql_connection connection;
        check(n < ALLOCATIONS_MAX);
        check_eq(sqlite3_open(":memory:", &db), SQLITE_OK);
        check_eq(sqlite3_exec(db, "CREATE TABLE t (id INTEGER); INSERT INTO t VALUES(7)", NULL, NULL, NULL), SQLITE_OK);
        countdown = n;
        enum rq_err err = rq_sql_connection_init(&connection, db);
        check(err == RQ_OK || err == RQ_NOMEM);
        if (err == RQ_OK) {
            struct asked a = ask(&connection);
            passed = countdown > 0;
            countdown = 0;
            check(a.parsed == RQ_OK || a.parsed == RQ_NOMEM);
            check(a.is_right || a.says_memory || a.parsed == RQ_NOMEM || a.answered == RQ_NOMEM);
            failed += !a.is_right;
            check(!passed || a.is_right);
            check(ask(&connection).is_right);
            rq_sql_connection_fini(&connection);
        }
        check_eq(sqlite3_close(db), SQLITE_OK);
    }
    printf("# %u allocations, %u answers without rows\n", n - 2, failed);
    check(failed > 10);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = { TAP(every_allocation_may_fail) };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
