/* large answers: when they leave memory, that they are the very bytes of one that did not, and what becomes of them when the disk does
 * not take them.
 *
 * In bodies and answers ` stands for ". */
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "raftd/http/go_json.h"
#include "raftd/http/results.h"
#include "tests/support/sql_run.h"
#include "tests/support/tap.h"

#define ANSWER_MAX (256u << 20)
#define PIECE      49152u /* of a long value, as results.c has it */

#define NUMBERS(n) "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " #n ") "
#define ROWS(n)    NUMBERS(n) "SELECT i, hex(zeroblob(500)) AS a FROM n"

static struct rq_answer_room room = { .dir = "." };

static void close_db(void)
{
    sql_close();
    check_eq(atomic_load(&room.memory), 0);
    check_eq(atomic_load(&room.disk), 0);
}

struct answer {
    struct rq_bytes all; /* owns: file and memory */
    uint64_t file_bytes; /* of the run */
    size_t memory_after; /* of the run: what is held */
};

static void answer_free(struct answer *a)
{
    rq_bytes_fini(&a->all);
}

static struct answer answer_of(enum rq_sql_kind kind, const struct rq_sql_form *form, const char *body,
                               struct rq_answer_room *where)
{
    const struct rq_sql_coda coda = { .raft_index = 7 };
    struct answer a;
    struct rq_sql_results results;
    rq_sql_results_init(&results, ANSWER_MAX, where);
    (void)sql_run(kind, form, body, &results);
    a.memory_after = results.json.capacity;
    check_eq(rq_sql_answer(&results, form, &coda), RQ_OK);
    a.file_bytes = results.file.end.bytes;
    rq_bytes_init(&a.all, ANSWER_MAX);
    check_eq(rq_bytes_reserve(&a.all, a.file_bytes), RQ_OK);
    while (a.all.size < a.file_bytes) {
        ssize_t n = pread(results.file.fd, a.all.data + a.all.size, a.file_bytes - a.all.size, (off_t)a.all.size);
        check(n > 0);
        a.all.size += (size_t)n;
    }
    check_eq(rq_bytes_put(&a.all, results.json.data, results.json.size), RQ_OK);
    rq_sql_results_fini(&results);
    return a;
}

static bool same(const struct answer *a, const struct answer *b)
{
    size_t i = 0, n = a->all.size < b->all.size ? a->all.size : b->all.size;
    while (i < n && a->all.data[i] == b->all.data[i]) {
        i++;
    }
    if (i < n || a->all.size != b->all.size) {
        printf("# %zu and %zu bytes, differ at %zu: %.40s and %.40s\n", a->all.size, b->all.size, i,
               (char *)a->all.data + (i > 20 ? i - 20 : 0), (char *)b->all.data + (i > 20 ? i - 20 : 0));
    }
    return i == n && a->all.size == b->all.size;
}

static bool is(const struct answer *a, const char *wanted)
{
    char exact[SQL_JSON_MAX];
    sql_quotes(wanted, exact);
    const bool right = a->all.size == strlen(exact) && memcmp(a->all.data, exact, a->all.size) == 0;
    if (!right) {
        printf("# gives  %.*s\n# wanted %s\n", (int)(a->all.size < 500 ? a->all.size : 500), (char *)a->all.data,
               exact);
    }
    return right;
}

/* --- when ------------------------------------------------------------------------------------------------------------------- */

static const struct rq_sql_form plain;

/* With its last row the answer has so many bytes: does it leave memory? */
static bool leaves_at(size_t size)
{
    static const char head[] = "{\"results\":[{\"columns\":[\"a\"],\"types\":[\"text\"],\"values\":[";
    const size_t row = strlen("[\"\"],") + 1000, all = size - strlen(head) - strlen("[\"\"]");
    char body[512];
    (void)snprintf(body, sizeof body,
                   "[`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %zu) "
                   "SELECT substr(hex(zeroblob(500)), 1, iif(i < %zu, 1000, %zu)) AS a FROM n`]",
                   all / row, all / row, all % row);
    struct answer a = answer_of(RQ_SQL_QUERY, &plain, body, &room), b = answer_of(RQ_SQL_QUERY, &plain, body, NULL);
    check_eq(b.all.size, size + strlen("]}]}"));
    check(same(&a, &b));
    const bool left = a.file_bytes > 0;
    check(left ? a.memory_after == 0 : a.memory_after >= size);
    answer_free(&a);
    answer_free(&b);
    return left;
}

static void an_answer_leaves_memory_when_it_is_large(void)
{
    sql_open();
    for (size_t more = 0; more < 3; more++) {
        check_eq(leaves_at(RQ_SQL_SMALL_BYTES - 1 + more), false);
        check_eq(leaves_at(RQ_SQL_LARGE_BYTES - 1 + more), more > 0);
    }
    close_db();
}

/* Then it leaves from RQ_SQL_SMALL_BYTES on. */
static void let_others_have(size_t memory)
{
    atomic_store(&room.memory, memory);
}

static void an_answer_leaves_memory_earlier_when_others_have_much(void)
{
    sql_open();
    for (size_t more = 0; more < 3; more++) {
        let_others_have(RQ_SQL_MEMORY_BYTES - RQ_SQL_LARGE_BYTES + 1);
        check_eq(leaves_at(RQ_SQL_SMALL_BYTES - 1 + more), more > 0);
        check_eq(atomic_load(&room.memory), RQ_SQL_MEMORY_BYTES - RQ_SQL_LARGE_BYTES + 1);
        let_others_have(RQ_SQL_MEMORY_BYTES - RQ_SQL_LARGE_BYTES);
        check_eq(leaves_at(RQ_SQL_SMALL_BYTES - 1 + more), false);
    }
    let_others_have(0);
    close_db();
}

static void a_quick_run_leaves_large_answers_to_one_that_may_take_its_time(void)
{
    struct rq_sql_results results;
    sql_open();
    rq_sql_results_init(&results, ANSWER_MAX, &room);
    sql_connection.budget = UINT32_MAX;
    check_eq(sql_run(RQ_SQL_QUERY, &plain, "[`" ROWS(4000) "`]", &results), SQLITE_OK);
    check_eq(sql_run(RQ_SQL_QUERY, &plain, "[`" ROWS(6000) "`]", &results), RQ_SQL_TOO_LONG);
    check_eq(results.file.end.bytes, 0);
    check(results.json.size < RQ_SQL_LARGE_BYTES + 2000);
    sql_connection.budget = 0;
    check_eq(sql_run(RQ_SQL_QUERY, &plain, "[`" ROWS(6000) "`]", &results), SQLITE_OK);
    check(results.file.end.bytes > 6000000);
    rq_sql_results_fini(&results);
    close_db();
}

/* --- what ------------------------------------------------------------------------------------------------------------------- */

static void it_is_the_same_answer(void)
{
    static const struct rq_sql_form forms[] = {
        { .pretty = false },     { .pretty = true },      { .associative = true },
        { .raft_index = true },  { .blob_array = true },  { .associative = true, .pretty = true, .raft_index = true },
        { .exact_blobs = true }, { .transaction = true },
    };
    static const char *const bodies[] = {
        "[`" ROWS(900) "`]",
        "[`SELECT 1`,`" ROWS(1000) "`,`SELECT 2`,`SELECT nope`,`" ROWS(1000) "`,`SELECT 3`]",
        /* Errors of elements that have left memory: the first, one amid others, the last. */
        "[`" NUMBERS(1000) "SELECT hex(zeroblob(500)), iif(i < 1000, i, abs(-9223372036854775807 - 1)) FROM n`,`SELECT 1`]",
        "[`" ROWS(10) "`,`" NUMBERS(1000) "SELECT hex(zeroblob(500)), iif(i < 1000, i, abs(-9223372036854775807 - 1)) FROM n`,"
        "`" ROWS(1000) "`,`" NUMBERS(1000) "SELECT hex(zeroblob(500)), iif(i < 1000, i, abs(-9223372036854775807 - 1)) FROM n`]",
        /* Rows that are large, and rows of many values. */
        "[`" NUMBERS(5) "SELECT i, hex(zeroblob(100000)) AS a, zeroblob(200000) AS b, i AS c FROM n`]",
        "[`" NUMBERS(300) "SELECT i, hex(zeroblob(2500)), zeroblob(4097), hex(zeroblob(2049)), zeroblob(0) FROM n`]",
        "[`SELECT zeroblob(49151), zeroblob(49152), zeroblob(49153), zeroblob(98304), zeroblob(500000)`]",
    };
    sql_open();
    let_others_have(RQ_SQL_MEMORY_BYTES);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
            struct answer a = answer_of(RQ_SQL_QUERY, &forms[f], bodies[i], &room);
            struct answer b = answer_of(RQ_SQL_QUERY, &forms[f], bodies[i], NULL);
            check(same(&a, &b));
            check_eq(b.file_bytes, 0);
            answer_free(&a);
            answer_free(&b);
        }
    }
    let_others_have(0);
    close_db();
}

/* What is taken back is taken back from the disk. */
static void an_error_in_the_last_row_leaves_nothing_of_the_rows(void)
{
    sql_open();
    let_others_have(RQ_SQL_MEMORY_BYTES);
    struct answer a = answer_of(
        RQ_SQL_QUERY, &plain,
        "[`" NUMBERS(900) "SELECT hex(zeroblob(500)), iif(i < 900, i, abs(-9223372036854775807 - 1)) FROM n`]", &room);
    check(is(&a, "{`results`:[{`error`:`integer overflow`}]}"));
    answer_free(&a);
    let_others_have(0);
    close_db();
}

/* As SQLite's blob it is text; which is what one that is in memory as a whole is made of. */
static void check_text(const uint8_t *text, size_t bytes)
{
    static const char head[] = "{\"results\":[{\"columns\":[\"a\"],\"types\":[\"text\"],\"values\":[[";
    struct answer a, b = { .file_bytes = 0 };
    rq_bytes_init(&b.all, ANSWER_MAX);
    check_eq(rq_bytes_put(&b.all, head, strlen(head)), RQ_OK);
    check_eq(rq_go_put_text(&b.all, text, bytes), RQ_OK);
    check_eq(rq_bytes_put(&b.all, "]]}]}", 5), RQ_OK);
    sqlite3_stmt *stmt;
    check_eq(sqlite3_prepare_v2(sql_db, "INSERT OR REPLACE INTO one VALUES(1, ?)", -1, &stmt, NULL), SQLITE_OK);
    check_eq(sqlite3_bind_blob64(stmt, 1, text, bytes, SQLITE_STATIC), SQLITE_OK);
    check_eq(sqlite3_step(stmt), SQLITE_DONE);
    check_eq(sqlite3_finalize(stmt), SQLITE_OK);
    a = answer_of(RQ_SQL_QUERY, &plain, "[`SELECT a FROM one`]", &room);
    check(same(&a, &b));
    answer_free(&a);
    answer_free(&b);
}

static void a_long_text_is_cut_between_characters(void)
{
    /* Whole characters, what begins as one, and what goes on without having begun. */
    static const char *const parts[] = {
        "\xc3\xa4",         "\xe2\x82\xac",     "\xf0\x9f\x98\x80", "\xe2\x80\xa8",         "\xf0\x9f\x98",
        "\xe2\x82\xac\x80", "\x80\x80\x80\x80", "\xf0\x80\x80\x80", "\xf0\x9f\x98\x80\x80", "\"<\n",
    };
    uint8_t *text = malloc(4 * PIECE);
    sql_open();
    let_others_have(RQ_SQL_MEMORY_BYTES);
    check_eq(sqlite3_exec(sql_db, "CREATE TABLE one (id INTEGER PRIMARY KEY, a TEXT)", NULL, NULL, NULL), SQLITE_OK);
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
        const size_t n = strlen(parts[p]);
        for (size_t at = PIECE - 6; at <= PIECE + 1; at++) {
            memset(text, 'x', at);
            size_t size = at;
            for (; size + n <= at + 40; size += n) {
                memcpy(text + size, parts[p], n);
            }
            check_text(text, size);
            memset(text + size, 'y', PIECE);
            check_text(text, size + PIECE);
        }
    }
    for (size_t size = PIECE - 1; size < 3 * PIECE; size += PIECE / 2) {
        memset(text, 0x80, size);
        check_text(text, size);
    }
    let_others_have(0);
    close_db();
    free(text);
}

static void json_is_indented_wherever_it_is_cut(void)
{
    static const char json[] =
        "{\"results\":[{\"columns\":[],\"a\\\"b\":{},\"c\\\\\":[[1,\"]\"],[\"\\\\\\\"{\",2,[]]]}],\"x\":[{}]}";
    struct rq_bytes whole, cut;
    struct rq_go_indent state = { 0 };
    rq_bytes_init(&whole, SQL_JSON_MAX);
    rq_bytes_init(&cut, SQL_JSON_MAX);
    check_eq(rq_go_indent(&state, &whole, (const uint8_t *)json, strlen(json)), RQ_OK);
    check(memmem(whole.data, whole.size, "\"columns\": [],\n            \"a\\\"b\": {},\n", 38) != NULL);
    for (size_t step = 1; step <= strlen(json); step++) {
        cut.size = 0;
        state = (struct rq_go_indent){ 0 };
        for (size_t at = 0; at < strlen(json); at += step) {
            const size_t left = strlen(json) - at;
            check_eq(rq_go_indent(&state, &cut, (const uint8_t *)json + at, left < step ? left : step), RQ_OK);
        }
        check(cut.size == whole.size && memcmp(cut.data, whole.data, whole.size) == 0);
    }
    rq_bytes_fini(&whole);
    rq_bytes_fini(&cut);
}

/* --- what the disk does not take ---------------------------------------------------------------------------------------------- */

#define FULL "{`error`:`not enough disk space for the results`}"

static int count_of(const char *sql)
{
    sqlite3_stmt *stmt;
    check_eq(sqlite3_prepare_v2(sql_db, sql, -1, &stmt, NULL), SQLITE_OK);
    check_eq(sqlite3_step(stmt), SQLITE_ROW);
    const int count = sqlite3_column_int(stmt, 0);
    check_eq(sqlite3_finalize(stmt), SQLITE_OK);
    return count;
}

/* Each statement that finds no room has an error, and has done nothing. */
static void check_full(void)
{
    static const struct rq_sql_form transaction = { .transaction = true };
    struct answer a = answer_of(RQ_SQL_QUERY, &plain, "[`SELECT 1 AS a`,`" ROWS(1000) "`,`SELECT 2 AS a`]", &room);
    check(is(&a, "{`results`:[{`columns`:[`a`],`types`:[`integer`],`values`:[[1]]}," FULL
                 ",{`columns`:[`a`],`types`:[`integer`],`values`:[[2]]}]}"));
    answer_free(&a);
    check_eq(sqlite3_exec(sql_db, "DROP TABLE IF EXISTS t; CREATE TABLE t (a)", NULL, NULL, NULL), SQLITE_OK);
    a = answer_of(RQ_SQL_EXECUTE, &plain,
                  "[`INSERT INTO t VALUES(1)`,`" NUMBERS(1000) "INSERT INTO t SELECT hex(zeroblob(500)) FROM n RETURNING a`,"
                  "`INSERT INTO t VALUES(2) RETURNING a`]",
                  &room);
    check(is(&a, "{`results`:[{`last_insert_id`:1,`rows_affected`:1}," FULL
                 ",{`columns`:[`a`],`types`:[`integer`],`values`:[[2]]}]}"));
    answer_free(&a);
    check_eq(count_of("SELECT count(*) FROM t"), 2);
    a = answer_of(RQ_SQL_EXECUTE, &transaction,
                  "[`INSERT INTO t VALUES(3)`,`" NUMBERS(1000) "INSERT INTO t SELECT hex(zeroblob(500)) FROM n RETURNING a`,"
                  "`INSERT INTO t VALUES(4)`]",
                  &room);
    check(is(&a, "{`results`:[{`last_insert_id`:3,`rows_affected`:1}," FULL "]}"));
    answer_free(&a);
    check_eq(count_of("SELECT count(*) FROM t"), 2);
    check_eq(sqlite3_get_autocommit(sql_db) != 0, true);
}

/* It is run again: a statement that is a transaction by itself must not be committed by what ends it amid its rows. */
static void a_quick_run_that_is_cut_off_has_written_nothing(void)
{
    struct rq_sql_results results;
    sql_open();
    check_eq(sqlite3_exec(sql_db, "CREATE TABLE t (a)", NULL, NULL, NULL), SQLITE_OK);
    rq_sql_results_init(&results, ANSWER_MAX, &room);
    sql_connection.budget = UINT32_MAX;
    check_eq(sql_run(RQ_SQL_EXECUTE, &plain,
                     "[`" NUMBERS(6000) "INSERT INTO t SELECT hex(zeroblob(500)) FROM n RETURNING a`]", &results),
             RQ_SQL_TOO_LONG);
    check_eq(count_of("SELECT count(*) FROM t"), 0);
    sql_connection.budget = 0;
    rq_sql_results_fini(&results);
    close_db();
}

static void without_room_there_are_errors(void)
{
    const uint64_t taken = UINT64_MAX / 2;
    sql_open();
    let_others_have(RQ_SQL_MEMORY_BYTES);
    atomic_store(&room.disk, taken); /* by others: more than they leave free */
    check_full();
    check_eq(atomic_load(&room.disk), taken);
    atomic_store(&room.disk, 0);
    let_others_have(0);
    close_db();
}

/* The system's own word, at any write of the file. */
static void a_file_that_cannot_grow_is_no_room(void)
{
    struct rlimit before;
    check_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    sql_open();
    let_others_have(RQ_SQL_MEMORY_BYTES);
    struct rlimit limit = before;
    for (limit.rlim_cur = 0; limit.rlim_cur < 750000; limit.rlim_cur += 150000) {
        check_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        check_full();
    }
    /* When all has been run it is too late for errors: what there is no room for stays in memory. */
    limit.rlim_cur = 900000;
    check_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    struct answer a = answer_of(RQ_SQL_QUERY, &plain, "[`" ROWS(1000) "`]", &room);
    check_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    struct answer b = answer_of(RQ_SQL_QUERY, &plain, "[`" ROWS(1000) "`]", NULL);
    check(a.file_bytes > 750000 && a.file_bytes < 900000 && same(&a, &b));
    answer_free(&a);
    answer_free(&b);
    let_others_have(0);
    close_db();
}

static void a_file_that_cannot_be_made_is_an_error(void)
{
    struct rq_answer_room nowhere = { .dir = "/nowhere", .memory = RQ_SQL_MEMORY_BYTES };
    sql_open();
    struct answer a = answer_of(RQ_SQL_QUERY, &plain, "[`" ROWS(1000) "`,`SELECT 2 AS a`]", &nowhere);
    check(is(&a,
             "{`results`:[{`error`:`the results cannot be written to disk`},"
             "{`columns`:[`a`],`types`:[`integer`],`values`:[[2]]}]}"));
    answer_free(&a);
    check_eq(atomic_load(&nowhere.disk), 0);
    check_eq(atomic_load(&nowhere.memory), RQ_SQL_MEMORY_BYTES);
    close_db();
}

/* --- who has left -------------------------------------------------------------------------------------------------------------- */

static bool asked_often(void *ctx)
{
    unsigned *left = ctx;
    *left -= *left > 0;
    return *left == 0;
}

static void for_who_has_left_nothing_is_run(void)
{
    static const char *const bodies[] = {
        "[`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n`]",
        "[`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT hex(zeroblob(50000)) FROM n`]"
    };
    sql_open();
    let_others_have(RQ_SQL_MEMORY_BYTES);
    for (size_t i = 0; i < 2; i++) {
        unsigned left = 5;
        sql_connection.has_left = asked_often;
        sql_connection.ctx = &left;
        struct answer a = answer_of(RQ_SQL_QUERY, &plain, bodies[i], &room);
        check(is(&a, "{`results`:[],`error`:`the client has closed the connection`}"));
        answer_free(&a);
    }
    sql_connection.has_left = NULL;
    struct answer a = answer_of(RQ_SQL_QUERY, &plain, "[`SELECT 1 AS a`]", &room);
    check(is(&a, "{`results`:[{`columns`:[`a`],`types`:[`integer`],`values`:[[1]]}]}"));
    answer_free(&a);
    let_others_have(0);
    close_db();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(an_answer_leaves_memory_when_it_is_large),
        TAP(an_answer_leaves_memory_earlier_when_others_have_much),
        TAP(a_quick_run_leaves_large_answers_to_one_that_may_take_its_time),
        TAP(it_is_the_same_answer),
        TAP(an_error_in_the_last_row_leaves_nothing_of_the_rows),
        TAP(a_long_text_is_cut_between_characters),
        TAP(json_is_indented_wherever_it_is_cut),
        TAP(a_quick_run_that_is_cut_off_has_written_nothing),
        TAP(without_room_there_are_errors),
        TAP(a_file_that_cannot_grow_is_no_room),
        TAP(a_file_that_cannot_be_made_is_an_error),
        TAP(for_who_has_left_nothing_is_run),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
