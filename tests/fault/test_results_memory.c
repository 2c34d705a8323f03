/* Results and memory: bodies are read, run and answered again and again, while the first, the second, ... allocation of ours fails,
 * once.  Either the answer is the right one, or it says that memory was short, or there is none; and the next one is right.  SQLite's
 * and yyjson's own memory does not fail. */
#include <sqlite3.h>
#include <stdlib.h>
#include <unistd.h>

#include "raftd/http/results.h"
#include "tests/support/failing_memory.h"
#include "tests/support/tap.h"

#define ALLOCATIONS_MAX 10000u
#define ANSWER_MAX      (16u << 20)

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
static const char small_body[] =
    "[[\"SELECT ?, :b, 1.5 AS c FROM t\",[1,2],{\"b\":\"text\"}],[\"SELECT ?, :b, 1.5 AS c FROM t\",1,{\"b\":2}],"
    "\"SELECT * FROM t\",\"SELECT * FROM t\",\"SELECT nope\"]";
static const char small_answer[] =
    "{\"results\":[{\"columns\":[\"?\",\":b\",\"c\"],\"types\":[\"text\",\"text\",\"real\"],\"values\":[["
    "\"\\u0001\\u0002\","
    "\"text\",1.5]]},{\"columns\":[\"?\",\":b\",\"c\"],\"types\":[\"integer\",\"integer\",\"real\"],\"values\":[[1,2,1."
    "5]]},"
    "{\"columns\":[\"t.id\"],\"types\":[\"integer\"],\"values\":[[7]]},{\"columns\":[\"t.id\"],\"types\":[\"integer\"],"
    "\"values\":[[7]]},{\"error\":\"no such column: nope\"}]}";

/* It leaves memory for a file: in its rows, in a value, and with an error behind that. */
static const char large_body[] =
    "[\"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT hex(zeroblob(500)) FROM "
    "n\","
    "\"SELECT 1 AS a, hex(zeroblob(100000))\","
    "\"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) "
    "SELECT hex(zeroblob(50000)), iif(i < 20, i, abs(-9223372036854775807 - 1)) FROM n\"]";

/* Other answers have the memory. */
static struct rq_answer_room room = { .dir = ".", .memory = RQ_SQL_MEMORY_BYTES };

/* A body, the form of its answer, and the answer. */
struct question {
    const char *body;
    struct rq_sql_form form;
    struct rq_bytes right; /* owns */
};

struct asked {
    enum rq_err parsed, answered;
    struct rq_bytes answer; /* owns */
    bool is_right, says_memory;
};

static void read_answer(const struct rq_sql_results *results, struct rq_bytes *ret_answer)
{
    const uint64_t bytes = results->file.end.bytes;
    rq_bytes_init(ret_answer, ANSWER_MAX);
    check_eq(rq_bytes_reserve(ret_answer, (size_t)bytes), RQ_OK);
    check_eq(pread(results->file.fd, ret_answer->data, (size_t)bytes, 0), bytes > 0 ? (ssize_t)bytes : -1);
    ret_answer->size = (size_t)bytes;
    check_eq(rq_bytes_put(ret_answer, results->json.data, results->json.size), RQ_OK);
}

static struct asked ask(struct rq_sql_connection *connection, const struct question *q, struct rq_answer_room *where)
{
    const struct rq_sql_coda coda = { 0 };
    struct asked a = { .answered = RQ_NOMEM };
    struct rq_sql_results results;
    struct rq_statements *statements;
    char text[RQ_HTTP_TEXT_MAX];
    a.parsed = rq_statements_parse((const uint8_t *)q->body, strlen(q->body), &statements, text);
    if (a.parsed == RQ_OK) {
        rq_sql_results_init(&results, ANSWER_MAX, where);
        (void)rq_sql_run(statements, RQ_SQL_QUERY, &q->form, connection, &results);
        a.answered = rq_sql_answer(&results, &q->form, &coda);
        const unsigned left = countdown;
        countdown = 0;
        read_answer(&results, &a.answer);
        a.is_right = a.answered == RQ_OK && q->right.size == a.answer.size &&
                     memcmp(a.answer.data, q->right.data, a.answer.size) == 0;
        a.says_memory = a.answered == RQ_OK && memmem(a.answer.data, a.answer.size, "out of memory", 13) != NULL;
        countdown = left;
        rq_sql_results_fini(&results);
        rq_statements_free(statements);
    }
    return a;
}

static bool is_asked_rightly(struct rq_sql_connection *connection, const struct question *q)
{
    struct asked a = ask(connection, q, &room);
    rq_bytes_fini(&a.answer);
    return a.is_right;
}

static void open_both(sqlite3 **ret_db, struct rq_sql_connection *connection, unsigned fails, enum rq_err *ret_err)
{
    check_eq(sqlite3_open(":memory:", ret_db), SQLITE_OK);
    check_eq(sqlite3_exec(*ret_db, "CREATE TABLE t (id INTEGER); INSERT INTO t VALUES(7)", NULL, NULL, NULL),
             SQLITE_OK);
    countdown = fails;
    *ret_err = rq_sql_connection_init(connection, *ret_db);
}

static void try_all(const struct question *q, unsigned failures_min)
{
    unsigned n = 1, failed = 0;
    bool passed = false;
    for (; !passed; n++) {
        sqlite3 *db;
        struct rq_sql_connection connection;
        check(n < ALLOCATIONS_MAX);
        enum rq_err err;
        open_both(&db, &connection, n, &err);
        check(err == RQ_OK || err == RQ_NOMEM);
        if (err == RQ_OK) {
            struct asked a = ask(&connection, q, &room);
            passed = countdown > 0;
            countdown = 0;
            check(a.parsed == RQ_OK || a.parsed == RQ_NOMEM);
            check(a.is_right || a.says_memory || a.parsed == RQ_NOMEM || a.answered == RQ_NOMEM);
            failed += !a.is_right;
            check(!passed || a.is_right);
            rq_bytes_fini(&a.answer);
            check(is_asked_rightly(&connection, q));
            rq_sql_connection_fini(&connection);
        }
        check_eq(sqlite3_close(db), SQLITE_OK);
    }
    printf("# %u allocations, %u answers without rows\n", n - 2, failed);
    check(failed >= failures_min);
    check_eq(atomic_load(&room.memory), RQ_SQL_MEMORY_BYTES);
    check_eq(atomic_load(&room.disk), 0);
}

static void every_allocation_may_fail(void)
{
    struct question q = { .body = small_body, .form = { .qualify_columns = true } };
    rq_bytes_init(&q.right, ANSWER_MAX);
    check_eq(rq_bytes_put(&q.right, small_answer, strlen(small_answer)), RQ_OK);
    try_all(&q, 10);
    rq_bytes_fini(&q.right);
}

static void every_allocation_of_a_large_answer_may_fail(void)
{
    for (int pretty = 0; pretty < 2; pretty++) {
        struct question q = { .body = large_body, .form = { .pretty = pretty } };
        sqlite3 *db;
        struct rq_sql_connection connection;
        enum rq_err err;
        open_both(&db, &connection, 0, &err);
        q.right = ask(&connection, &q, NULL).answer;
        check(q.right.size > 500000);
        rq_sql_connection_fini(&connection);
        check_eq(sqlite3_close(db), SQLITE_OK);
        try_all(&q, pretty ? 20 : 15);
        rq_bytes_fini(&q.right);
    }
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = { TAP(every_allocation_may_fail),
                                      TAP(every_allocation_of_a_large_answer_may_fail) };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
