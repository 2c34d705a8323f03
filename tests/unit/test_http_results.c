/* results: what statements give, as the very bytes that rqlite's clients expect.  Names begin with the section of the reference.
 *
 * In bodies and answers ` stands for ". */
#include <math.h>
#include <sqlite3.h>
#include <stdlib.h>

#include "raftd/http/analyze.h"
#include "raftd/http/go_json.h"
#include "raftd/http/results.h"
#include "raftd/run/clock.h"
#include "tests/support/sql_run.h"
#include "tests/support/tap.h"

#define ANSWER_MAX (64u << 20)

static const struct rq_sql_form plain;
static const struct rq_sql_form transaction = { .transaction = true };
static const struct rq_sql_form associative = { .associative = true };
static const struct rq_sql_form associative_transaction = { .associative = true, .transaction = true };
static const struct rq_sql_form blob_array = { .blob_array = true };
static const struct rq_sql_form exact_blobs = { .exact_blobs = true };
static const struct rq_sql_form exact_blob_arrays = { .exact_blobs = true, .blob_array = true };
static const struct rq_sql_form qualified = { .qualify_columns = true };
static const struct rq_sql_form qualified_associative = { .qualify_columns = true, .associative = true };
static const struct rq_sql_form noparse = { .noparse = true };
static const struct rq_sql_form pretty = { .pretty = true };

struct row {
    enum rq_sql_kind kind;
    const struct rq_sql_form *form;
    const char *body, *wanted;
};
#define EXECUTE RQ_SQL_EXECUTE
#define QUERY   RQ_SQL_QUERY
#define REQUEST RQ_SQL_REQUEST

/* --- running -------------------------------------------------------------------------------------------------------------- */

static bool is(const struct rq_bytes *json, const char *wanted)
{
    char exact[SQL_JSON_MAX];
    sql_quotes(wanted, exact);
    const bool same = json->size == strlen(exact) && memcmp(json->data, exact, json->size) == 0;
    if (!same) {
        printf("# gives  %.*s\n# wanted %s\n", (int)json->size, (char *)json->data, exact);
    }
    return same;
}

static bool gives(const struct row *row)
{
    const struct rq_sql_coda coda = { 0 };
    struct rq_sql_results results;
    rq_sql_results_init(&results, ANSWER_MAX, NULL);
    (void)sql_run(row->kind, row->form, row->body, &results);
    enum rq_err err = rq_sql_answer(&results, row->form, &coda);
    const bool same = err == RQ_OK && is(&results.json, row->wanted);
    if (!same) {
        printf("# to     %s\n", row->body);
    }
    rq_sql_results_fini(&results);
    return same;
}

static void all(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check(gives(&rows[i]));
    }
}

#define ALL(rows)                                   \
    do {                                            \
        sql_open();                                 \
        all((rows), sizeof(rows) / sizeof *(rows)); \
        sql_close();                                \
    } while (0)

#define FOO                                                                                                       \
    { EXECUTE, &plain, "[`CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)`]", "{`results`:[{}]}" }, \
        { EXECUTE, &plain,                                                                                        \
          "[[`INSERT INTO foo(name) VALUES(?)`,`fiona`],[`INSERT INTO foo(name) VALUES(:n)`,{`n`:`bob`}]]",       \
          "{`results`:[{`last_insert_id`:1,`rows_affected`:1},{`last_insert_id`:2,`rows_affected`:1}]}" }

/* --- 2.2 ------------------------------------------------------------------------------------------------------------------ */

static void parameters(void)
{
    static const struct row rows[] = {
        FOO,
        { QUERY, &plain, "[[`SELECT :a, @a, $a, :a`,{`a`:7},{`b`:0,`c`:0}]]",
          "{`results`:[{`columns`:[`:a`,`@a`,`$a`,`:a`],`types`:[`integer`,`integer`,`integer`,`integer`],"
          "`values`:[[7,7,7,7]]}]}" },
        { QUERY, &plain, "[[`SELECT :a, @a, $a`,{`a`:7}]]",
          "{`results`:[{`error`:`not enough args to execute query: want 3 got 1`}]}" },
        { QUERY, &plain, "[[`SELECT :a, @b, $c`,{`a`:7,`b`:`x`,`c`:2.5}]]",
          "{`results`:[{`columns`:[`:a`,`@b`,`$c`],`types`:[`integer`,`text`,`real`],`values`:[[7,`x`,2.5]]}]}" },
        { QUERY, &plain, "[[`SELECT ?, :n`,1,{`n`:2}]]",
          "{`results`:[{`columns`:[`?`,`:n`],`types`:[`integer`,`integer`],`values`:[[1,2]]}]}" },
        { QUERY, &plain, "[[`SELECT :n, ?`,{`n`:2},1]]",
          "{`results`:[{`columns`:[`:n`,`?`],`types`:[`integer`,`integer`],`values`:[[2,1]]}]}" },
        { QUERY, &plain, "[[`SELECT ?`,1,2,3]]", "{`results`:[{`columns`:[`?`],`types`:[`integer`],`values`:[[1]]}]}" },
        { QUERY, &plain, "[[`SELECT ?, ?, ?`,1,2]]",
          "{`results`:[{`error`:`not enough args to execute query: want 3 got 2`}]}" },
        { EXECUTE, &plain, "[[`INSERT INTO foo VALUES(?, ?)`,{`a`:2}]]",
          "{`results`:[{`error`:`not enough args to execute query: want 2 got 1`}]}" },
        { EXECUTE, &plain, "[`INSERT INTO foo(name) VALUES(?)`]",
          "{`results`:[{`error`:`not enough args to execute query: want 1 got 0`}]}" },
        { QUERY, &plain, "[[`SELECT 1`,{`1a`:2}]]",
          "{`results`:[{`error`:`name \\`1a\\` does not begin with a letter`}]}" },
        { EXECUTE, &associative, "[[`SELECT 1`,{`_a`:2}]]",
          "{`results`:[{`error`:`name \\`_a\\` does not begin with a letter`}]}" },
        { QUERY, &plain, "[[`SELECT ?, ?, ?, ?`,true,false,null,[1,2]]]",
          "{`results`:[{`columns`:[`?`,`?`,`?`,`?`],`types`:[`integer`,`integer`,``,`text`],"
          "`values`:[[1,0,null,`\\u0001\\u0002`]]}]}" },
        { QUERY, &plain, "[[`SELECT typeof(?), typeof(?), length(?), typeof(?)`,[],`x''`,`x'0102'`,1.0]]",
          "{`results`:[{`columns`:[`typeof(?)`,`typeof(?)`,`length(?)`,`typeof(?)`],"
          "`types`:[`text`,`text`,`integer`,`text`],`values`:[[`blob`,`blob`,2,`real`]]}]}" },
        { QUERY, &plain, "[[`SELECT ?`,9223372036854775807],[`SELECT ?`,-9223372036854775808]]",
          "{`results`:[{`columns`:[`?`],`types`:[`integer`],`values`:[[9223372036854775807]]},"
          "{`columns`:[`?`],`types`:[`integer`],`values`:[[-9223372036854775808]]}]}" },
        /* A value of an earlier run is not there in the next one. */
        { QUERY, &plain, "[[`SELECT :a`,{`a`:7}],[`SELECT :a`,{`a`:7}],[`SELECT :a`,{`b`:7}]]",
          "{`results`:[{`columns`:[`:a`],`types`:[`integer`],`values`:[[7]]},"
          "{`columns`:[`:a`],`types`:[`integer`],`values`:[[7]]},{`columns`:[`:a`],`types`:[``],`values`:[[null]]}]}" },
    };
    ALL(rows);
}

static void empty_statements(void)
{
    static const struct row rows[] = {
        { EXECUTE, &plain, "[``]", "{`results`:[]}" },
        { QUERY, &plain, "[``]", "{`results`:[]}" },
        { REQUEST, &plain, "[``,[``,1]]", "{`results`:[]}" },
        { QUERY, &plain, "[``,`SELECT 1 AS a`,``,`SELECT 2 AS a`,``]",
          "{`results`:[{`columns`:[`a`],`types`:[`integer`],`values`:[[1]]},"
          "{`columns`:[`a`],`types`:[`integer`],`values`:[[2]]}]}" },
        { EXECUTE, &plain, "[` `,`;`,`-- nothing`]", "{`results`:[{},{},{}]}" },
        { QUERY, &plain, "[` `]", "{`results`:[{}]}" },
        { QUERY, &associative, "[` `]", "{`results`:[{`rows`:[]}]}" },
        { EXECUTE, &associative, "[` `]", "{`results`:[{`rows`:null}]}" },
    };
    ALL(rows);
}

static void strings_of_several(void)
{
    static const struct row rows[] = {
        FOO,
        { EXECUTE, &plain, "[`INSERT INTO foo VALUES(10,'a'); INSERT INTO foo VALUES(11,'b') ; -- done`]",
          "{`results`:[{`last_insert_id`:11,`rows_affected`:1}]}" },
        { EXECUTE, &plain, "[[`INSERT INTO foo VALUES(?,?); INSERT INTO foo VALUES(?,?)`,20,`c`,21,`d`]]",
          "{`results`:[{`last_insert_id`:21,`rows_affected`:1}]}" },
        { EXECUTE, &plain, "[[`INSERT INTO foo VALUES(:a,?); INSERT INTO foo VALUES(:b,?)`,{`a`:30},`e`,{`b`:31},`f`]]",
          "{`results`:[{`last_insert_id`:31,`rows_affected`:1}]}" },
        { EXECUTE, &plain, "[[`INSERT INTO foo VALUES(40,?); INSERT INTO foo VALUES(41,?)`,`g`]]",
          "{`results`:[{`error`:`not enough args to execute query: want 1 got 1`}]}" },
        { QUERY, &plain, "[[`SELECT ?; SELECT ?, ?`,1,2]]",
          "{`results`:[{`error`:`not enough args to execute query: want 2 got 1`}]}" },
        { QUERY, &plain, "[`SELECT group_concat(name, '') AS n FROM foo WHERE id >= 10`]",
          "{`results`:[{`columns`:[`n`],`types`:[`text`],`values`:[[`abcdefg`]]}]}" },
        /* An error stops the rest of the string, not of the request. */
        { EXECUTE, &plain,
          "[`DELETE FROM foo WHERE id = 40; DELETE FROM nope; DELETE FROM foo`,`DELETE FROM foo WHERE id = 31`]",
          "{`results`:[{`error`:`no such table: nope`},{`last_insert_id`:40,`rows_affected`:1}]}" },
        { QUERY, &plain, "[`SELECT count(*) AS c FROM foo`]",
          "{`results`:[{`columns`:[`c`],`types`:[`integer`],`values`:[[7]]}]}" },
        /* To read, only the last one is run. */
        { QUERY, &plain, "[[`SELECT ?; SELECT ? AS b`,1,2]]",
          "{`results`:[{`columns`:[`b`],`types`:[`integer`],`values`:[[2]]}]}" },
        { QUERY, &plain, "[`SELECT nope; SELECT 1`]", "{`results`:[{`error`:`no such column: nope`}]}" },
        { QUERY, &plain, "[`SELECT * FROM foo; DROP TABLE foo`]",
          "{`results`:[{`error`:`attempt to change database via query operation`}]}" },
        { QUERY, &plain, "[`DELETE FROM foo; SELECT count(*) AS c FROM foo`]",
          "{`results`:[{`columns`:[`c`],`types`:[`integer`],`values`:[[7]]}]}" },
        { REQUEST, &plain, "[`DELETE FROM foo WHERE id > 10; SELECT count(*) AS c FROM foo`]",
          "{`results`:[{`columns`:[`c`],`types`:[`integer`],`values`:[[3]]}]}" },
        { REQUEST, &plain, "[`SELECT 1; DELETE FROM foo WHERE id = 10`]",
          "{`results`:[{`last_insert_id`:40,`rows_affected`:1}]}" },
    };
    ALL(rows);
}

/* --- 2.3 ------------------------------------------------------------------------------------------------------------------ */

static void stale_numbers(void)
{
    static const struct row rows[] = {
        FOO,
        { EXECUTE, &plain, "[`SELECT * FROM foo`]", "{`results`:[{`last_insert_id`:2,`rows_affected`:1}]}" },
        { EXECUTE, &plain, "[`UPDATE foo SET name = 'x'`]", "{`results`:[{`last_insert_id`:2,`rows_affected`:2}]}" },
        { EXECUTE, &plain, "[`BEGIN`,`DELETE FROM foo WHERE id=1`,`COMMIT`]",
          "{`results`:[{`last_insert_id`:2,`rows_affected`:2},{`last_insert_id`:2,`rows_affected`:1},"
          "{`last_insert_id`:2,`rows_affected`:1}]}" },
        { EXECUTE, &plain, "[`DELETE FROM foo WHERE id=77`]", "{`results`:[{`last_insert_id`:2}]}" },
        { EXECUTE, &plain, "[`INSERT INTO foo VALUES(9007199254740993,'big')`,`DROP TABLE foo`]",
          "{`results`:[{`last_insert_id`:9007199254740993,`rows_affected`:1},"
          "{`last_insert_id`:9007199254740993,`rows_affected`:1}]}" },
    };
    ALL(rows);
}

static void reads_and_types(void)
{
    static const struct row rows[] = {
        FOO,
        { EXECUTE, &plain, "[`CREATE TABLE t (a VARCHAR(255), b Double Precision, c, d numeric(10,2))`]",
          "{`results`:[{`last_insert_id`:2,`rows_affected`:1}]}" },
        { QUERY, &plain, "[`SELECT * FROM foo WHERE id=77`]",
          "{`results`:[{`columns`:[`id`,`name`],`types`:[`integer`,`text`]}]}" },
        { QUERY, &plain, "[`SELECT * FROM t`]",
          "{`results`:[{`columns`:[`a`,`b`,`c`,`d`],`types`:[`varchar(255)`,`double "
          "precision`,``,`numeric(10,2)`]}]}" },
        { QUERY, &plain, "[`SELECT 1 AS a, 2.5 AS b, 'x' AS c, x'6162' AS d, NULL AS e`]",
          "{`results`:[{`columns`:[`a`,`b`,`c`,`d`,`e`],`types`:[`integer`,`real`,`text`,`text`,``],"
          "`values`:[[1,2.5,`x`,`ab`,null]]}]}" },
        { QUERY, &plain, "[`SELECT 1 AS a UNION ALL SELECT 'two' UNION ALL SELECT x'03'`]",
          "{`results`:[{`columns`:[`a`],`types`:[`integer`],`values`:[[1],[`two`],[`Aw==`]]}]}" },
        { QUERY, &plain, "[`SELECT NULL AS a UNION ALL SELECT 1 UNION ALL SELECT x'7a'`]",
          "{`results`:[{`columns`:[`a`],`types`:[``],`values`:[[null],[1],[`z`]]}]}" },
        { QUERY, &plain, "[`SELECT id, id, name AS id FROM foo WHERE id=1`]",
          "{`results`:[{`columns`:[`id`,`id`,`id`],`types`:[`integer`,`integer`,`text`],`values`:[[1,1,`fiona`]]}]}" },
        { QUERY, &plain, "[`PRAGMA user_version`]",
          "{`results`:[{`columns`:[`user_version`],`types`:[`integer`],`values`:[[0]]}]}" },
        { QUERY, &plain, "[`BEGIN`,`COMMIT`]", "{`results`:[{},{}]}" },
        { QUERY, &associative, "[`BEGIN`,`COMMIT`]", "{`results`:[{`rows`:[]},{`rows`:[]}]}" },
        { QUERY, &plain, "[`SELECT 1 AS \\`a\\`\\`<b>\\``]",
          "{`results`:[{`columns`:[`a\\`\\u003cb\\u003e`],`types`:[`integer`],`values`:[[1]]}]}" },
    };
    ALL(rows);
}

static void associative_form(void)
{
    static const struct row rows[] = {
        { EXECUTE, &associative, "[`CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)`]",
          "{`results`:[{`rows`:null}]}" },
        { EXECUTE, &associative, "[[`INSERT INTO foo(name) VALUES(?)`,`fiona`]]",
          "{`results`:[{`last_insert_id`:1,`rows_affected`:1,`rows`:null}]}" },
        { QUERY, &associative, "[`SELECT * FROM foo WHERE id=1`]",
          "{`results`:[{`types`:{`id`:`integer`,`name`:`text`},`rows`:[{`id`:1,`name`:`fiona`}]}]}" },
        { QUERY, &associative, "[`SELECT * FROM foo WHERE id=2`]",
          "{`results`:[{`types`:{`id`:`integer`,`name`:`text`},`rows`:[]}]}" },
        { QUERY, &associative, "[`SELECT 3 AS c, 1 AS a, 2 AS b, 4 AS B, 5 AS aa UNION ALL SELECT 6,7,8,9,10`]",
          "{`results`:[{`types`:{`B`:`integer`,`a`:`integer`,`aa`:`integer`,`b`:`integer`,`c`:`integer`},"
          "`rows`:[{`B`:4,`a`:1,`aa`:5,`b`:2,`c`:3},{`B`:9,`a`:7,`aa`:10,`b`:8,`c`:6}]}]}" },
        { QUERY, &associative, "[`SELECT 1 AS a, 'x' AS a, 2 AS b`]",
          "{`results`:[{`types`:{`a`:`text`,`b`:`integer`},`rows`:[{`a`:`x`,`b`:2}]}]}" },
        { QUERY, &associative, "[`SELECT * FROM nope`]", "{`results`:[{`rows`:[],`error`:`no such table: nope`}]}" },
        { QUERY, &associative, "[`DELETE FROM foo`]",
          "{`results`:[{`rows`:[],`error`:`attempt to change database via query operation`}]}" },
        { QUERY, &associative, "[`SELECT json('{')`]", "{`results`:[{`rows`:[],`error`:`malformed JSON`}]}" },
        { EXECUTE, &associative, "[`DELETE FROM nope`]", "{`results`:[{`error`:`no such table: nope`}]}" },
        { EXECUTE, &associative, "[`INSERT INTO foo(id) VALUES(1)`]",
          "{`results`:[{`error`:`UNIQUE constraint failed: foo.id`}]}" },
        { REQUEST, &associative, "[`SELECT * FROM nope`]", "{`results`:[{`error`:`no such table: nope`}]}" },
        { REQUEST, &associative, "[`SELECT json('{')`]", "{`results`:[{`rows`:[],`error`:`malformed JSON`}]}" },
        { REQUEST, &associative, "[`INSERT INTO foo(id) VALUES(1)`]",
          "{`results`:[{`error`:`UNIQUE constraint failed: foo.id`}]}" },
    };
    ALL(rows);
}

static void typed_values(void)
{
    static const struct row rows[] = {
        { EXECUTE, &plain,
          "[`CREATE TABLE v (b BOOLEAN, d DATE, dt DateTime, ts TIMESTAMP, x DATETIME NOT NULL DEFAULT 0)`]",
          "{`results`:[{}]}" },
        { EXECUTE, &plain, "[`INSERT INTO v VALUES(1, 0, 1700000000, 1700000000123, -1)`]",
          "{`results`:[{`last_insert_id`:1,`rows_affected`:1}]}" },
        { EXECUTE, &plain,
          "[`INSERT INTO v VALUES(-1, '2024-02-29', '2024-02-29 12:34:56', '2024-02-29T12:34:56.120Z', 2.5)`]",
          "{`results`:[{`last_insert_id`:2,`rows_affected`:1}]}" },
        { EXECUTE, &plain, "[`INSERT INTO v VALUES('yes', NULL, x'6162', '2023-02-29', '')`]",
          "{`results`:[{`last_insert_id`:3,`rows_affected`:1}]}" },
        { QUERY, &plain, "[`SELECT * FROM v`]",
          "{`results`:[{`columns`:[`b`,`d`,`dt`,`ts`,`x`],`types`:[`boolean`,`date`,`datetime`,`timestamp`,`datetime`],"
          "`values`:[[true,`1970-01-01T00:00:00Z`,`2023-11-14T22:13:20Z`,`2023-11-14T22:13:20.123Z`,`1969-12-31T23:59:"
          "59Z`],"
          "[false,`2024-02-29T00:00:00Z`,`2024-02-29T12:34:56Z`,`2024-02-29T12:34:56.12Z`,2.5],"
          "[`yes`,null,`YWI=`,`2023-02-29`,``]]}]}" },
        /* An expression has no declared type. */
        { QUERY, &plain, "[`SELECT b+0 AS b, max(d) AS d FROM v WHERE rowid=1`]",
          "{`results`:[{`columns`:[`b`,`d`],`types`:[`integer`,`integer`],`values`:[[1,0]]}]}" },
    };
    ALL(rows);
}

static void blobs(void)
{
    static const struct row rows[] = {
        { EXECUTE, &plain, "[`CREATE TABLE b (data BLOB, t TEXT, v VARCHAR(9), j JSON, n, i INTEGER)`]",
          "{`results`:[{}]}" },
        { EXECUTE, &plain, "[`INSERT INTO b VALUES('fiona', x'61', x'62', x'63', x'64', x'65')`]",
          "{`results`:[{`last_insert_id`:1,`rows_affected`:1}]}" },
        { EXECUTE, &plain, "[`INSERT INTO b VALUES(x'deadbeef', x'', x'00', x'0a', 5, x'66')`]",
          "{`results`:[{`last_insert_id`:2,`rows_affected`:1}]}" },
        { QUERY, &plain, "[`SELECT * FROM b`]",
          "{`results`:[{`columns`:[`data`,`t`,`v`,`j`,`n`,`i`],`types`:[`blob`,`text`,`varchar(9)`,`json`,`text`,`"
          "integer`],"
          "`values`:[[`fiona`,`a`,`b`,`c`,`d`,`ZQ==`],[`3q2+7w==`,``,`\\u0000`,`\\n`,5,`Zg==`]]}]}" },
        { QUERY, &blob_array, "[`SELECT data, t, i, x'' AS e FROM b`]",
          "{`results`:[{`columns`:[`data`,`t`,`i`,`e`],`types`:[`blob`,`text`,`integer`,`text`],"
          "`values`:[[`fiona`,`a`,[101],``],[[222,173,190,239],``,[102],``]]}]}" },
        { QUERY, &exact_blobs, "[`SELECT data, t, n, x'0102' AS e FROM b`]",
          "{`results`:[{`columns`:[`data`,`t`,`n`,`e`],`types`:[`blob`,`text`,`blob`,`blob`],"
          "`values`:[[`fiona`,`YQ==`,`ZA==`,`AQI=`],[`3q2+7w==`,``,5,`AQI=`]]}]}" },
        { QUERY, &exact_blob_arrays, "[`SELECT t, x'' AS e FROM b`]",
          "{`results`:[{`columns`:[`t`,`e`],`types`:[`text`,`blob`],`values`:[[[97],[]],[[],[]]]}]}" },
        { QUERY, &plain, "[`SELECT data FROM b WHERE data=x'deadbeef'`,`SELECT CAST(x'' AS BLOB) AS e`]",
          "{`results`:[{`columns`:[`data`],`types`:[`blob`],`values`:[[`3q2+7w==`]]},"
          "{`columns`:[`e`],`types`:[`text`],`values`:[[``]]}]}" },
    };
    ALL(rows);
}

static void errors_without_transaction(void)
{
    static const struct row rows[] = {
        FOO,
        { EXECUTE, &plain, "[`blah blah`]", "{`results`:[{`error`:`near \\`blah\\`: syntax error`}]}" },
        { EXECUTE, &plain, "[`INSERT INTO bar VALUES(1)`]", "{`results`:[{`error`:`no such table: bar`}]}" },
        { EXECUTE, &plain, "[`INSERT INTO foo(id) VALUES(1)`]",
          "{`results`:[{`error`:`UNIQUE constraint failed: foo.id`}]}" },
        { QUERY, &plain, "[`SELECT * FROM`]", "{`results`:[{`error`:`incomplete input`}]}" },
        { QUERY, &plain, "[`SELECT rot13('x')`]", "{`results`:[{`error`:`no such function: rot13`}]}" },
        { EXECUTE, &plain, "[`INSERT INTO foo(id) VALUES(1)`,`INSERT INTO foo(id) VALUES(3)`]",
          "{`results`:[{`error`:`UNIQUE constraint failed: foo.id`},{`last_insert_id`:3,`rows_affected`:1}]}" },
        { QUERY, &plain, "[`SELECT 1 AS a`,`SELECT * FROM nope`,`SELECT 2 AS a`]",
          "{`results`:[{`columns`:[`a`],`types`:[`integer`],`values`:[[1]]},{`error`:`no such table: nope`},"
          "{`columns`:[`a`],`types`:[`integer`],`values`:[[2]]}]}" },
        /* Rows that were found before the error are not told. */
        { QUERY, &plain, "[`SELECT abs(column1) AS a FROM (VALUES(1),(2),(-9223372036854775808))`]",
          "{`results`:[{`error`:`integer overflow`}]}" },
        { REQUEST, &plain, "[`SELECT * FROM nope`,`INSERT INTO foo(id) VALUES(4)`,`SELECT id FROM foo WHERE id=4`]",
          "{`results`:[{`error`:`no such table: nope`},{`last_insert_id`:4,`rows_affected`:1},"
          "{`columns`:[`id`],`types`:[`integer`],`values`:[[4]]}]}" },
    };
    ALL(rows);
}

static void errors_in_transaction(void)
{
    static const struct row rows[] = {
        FOO,
        { EXECUTE, &transaction,
          "[`INSERT INTO foo(id) VALUES(3)`,`INSERT INTO foo(id) VALUES(1)`,`INSERT INTO foo(id) VALUES(4)`]",
          "{`results`:[{`last_insert_id`:3,`rows_affected`:1},{`error`:`UNIQUE constraint failed: foo.id`}]}" },
        { EXECUTE, &transaction, "[`INSERT INTO foo(id) VALUES(3)`,`INSERT INTO nope VALUES(1)`]",
          "{`results`:[{`last_insert_id`:3,`rows_affected`:1},{`error`:`no such table: nope`}]}" },
        { QUERY, &plain, "[`SELECT count(*) AS c FROM foo`]",
          "{`results`:[{`columns`:[`c`],`types`:[`integer`],`values`:[[2]]}]}" },
        { EXECUTE, &transaction, "[`INSERT INTO foo(id) VALUES(3)`,`INSERT INTO foo(id) VALUES(4)`]",
          "{`results`:[{`last_insert_id`:3,`rows_affected`:1},{`last_insert_id`:4,`rows_affected`:1}]}" },
        { QUERY, &transaction, "[`SELECT * FROM nope`,`SELECT count(*) AS c FROM foo`]",
          "{`results`:[{`error`:`no such table: nope`},{`columns`:[`c`],`types`:[`integer`],`values`:[[4]]}]}" },
        { QUERY, &associative_transaction, "[`SELECT count(*) AS c FROM foo`]",
          "{`results`:[{`types`:{`c`:`integer`},`rows`:[{`c`:4}]}]}" },
    };
    ALL(rows);
}

static void request_stops_at_the_first_error(void)
{
    static const struct row rows[] = {
        FOO,
        { REQUEST, &transaction,
          "[`INSERT INTO foo(id) VALUES(3)`,`SELECT * FROM nope`,`INSERT INTO foo(id) VALUES(4)`]",
          "{`results`:[{`last_insert_id`:3,`rows_affected`:1},{`error`:`no such table: nope`}]}" },
        { REQUEST, &transaction, "[`INSERT INTO foo(id) VALUES(3)`,`INSERT INTO foo(id) VALUES(1)`,`SELECT 1`]",
          "{`results`:[{`last_insert_id`:3,`rows_affected`:1},{`error`:`UNIQUE constraint failed: foo.id`}]}" },
        { QUERY, &plain, "[`SELECT count(*) AS c FROM foo`]",
          "{`results`:[{`columns`:[`c`],`types`:[`integer`],`values`:[[2]]}]}" },
    };
    ALL(rows);
}

/* --- 2.3: the encoder ----------------------------------------------------------------------------------------------------- */

static struct rq_bytes written;

static const char *text_of(enum rq_err err)
{
    static char text[256];
    check_eq(err, RQ_OK);
    check(written.size < sizeof text);
    memcpy(text, written.data, written.size);
    text[written.size] = '\0';
    rq_bytes_fini(&written);
    return text;
}

static void check_real(double v, const char *wanted)
{
    rq_bytes_init(&written, 1024);
    const char *text = text_of(rq_go_put_real(&written, v));
    if (strcmp(text, wanted) != 0) {
        printf("# %.17g is %s, wanted %s\n", v, text, wanted);
        check(false);
    }
}

static void reals(void)
{
    check_real(0, "0");
    check_real(-0.0, "-0");
    check_real(1, "1");
    check_real(-1.5, "-1.5");
    check_real(0.1, "0.1");
    check_real(100, "100");
    check_real(12.34, "12.34");
    check_real(1.0 / 3, "0.3333333333333333");
    check_real(2.0 / 3, "0.6666666666666666");
    check_real(3.141592653589793, "3.141592653589793");
    check_real(1e-6, "0.000001");
    check_real(9.999999e-7, "9.999999e-7");
    check_real(1e-7, "1e-7");
    check_real(2.26e-7, "2.26e-7");
    check_real(1.5e-10, "1.5e-10");
    check_real(0.000277428, "0.000277428");
    check_real(0.00001234, "0.00001234");
    check_real(1e15, "1000000000000000");
    check_real(123456789012345680.0, "123456789012345680");
    check_real(1e20, "100000000000000000000");
    check_real(999999999999999900000.0, "999999999999999900000");
    check_real(1e21, "1e+21");
    check_real(-1.2345e22, "-1.2345e+22");
    check_real(1.7976931348623157e308, "1.7976931348623157e+308");
    check_real(2.2250738585072014e-308, "2.2250738585072014e-308");
    check_real(5e-324, "5e-324");
    check_real(9007199254740993.0, "9007199254740992");
    check_real(0.30000000000000004, "0.30000000000000004");
    check_real(1234567.125, "1234567.125");
    check_real(HUGE_VAL, "\"+Inf\"");
    check_real(-HUGE_VAL, "\"-Inf\"");
}

/* Whatever the double: what is written gives it again, and one digit less does not. */
static void shortest_reals(void)
{
    uint64_t state = 88172645463325252u;
    for (unsigned i = 0; i < 20000; i++) {
        double v, shorter;
        char text[64], cut[64];
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        memcpy(&v, &state, sizeof v);
        if (i % 3 == 0) {
            v = (double)(state >> 40) / (i % 2 == 0 ? 1000.0 : 64.0);
        }
        if (!isfinite(v)) {
            continue;
        }
        rq_bytes_init(&written, 1024);
        (void)snprintf(text, sizeof text, "%s", text_of(rq_go_put_real(&written, v)));
        check(strtod(text, NULL) == v);
        unsigned digits = 0;
        for (const char *s = text + strspn(text, "-0."); *s != '\0' && *s != 'e'; s++) {
            digits += *s != '.';
        }
        for (const char *s = text + strcspn(text, "e"); strchr(text, '.') == NULL && s > text && s[-1] == '0'; s--) {
            digits--; /* of a whole number */
        }
        if (digits > 1) {
            (void)snprintf(cut, sizeof cut, "%.*e", (int)digits - 2, v);
            shorter = strtod(cut, NULL);
            check(shorter != v);
        }
    }
}

static void check_text(const char *from, size_t bytes, const char *wanted)
{
    char exact[SQL_JSON_MAX];
    sql_quotes(wanted, exact);
    rq_bytes_init(&written, 1024);
    const char *text = text_of(rq_go_put_text(&written, (const uint8_t *)from, bytes));
    if (strcmp(text, exact) != 0) {
        printf("# is %s, wanted %s\n", text, exact);
        check(false);
    }
}
#define CHECK_TEXT(from, wanted) check_text(from, sizeof(from) - 1, wanted)

static void texts(void)
{
    CHECK_TEXT("", "``");
    CHECK_TEXT("plain", "`plain`");
    CHECK_TEXT("a\"b\\c/d", "`a\\`b\\\\c/d`");
    CHECK_TEXT("\b\f\n\r\t", "`\\b\\f\\n\\r\\t`");
    CHECK_TEXT("\0\x01\x1f\x7f", "`\\u0000\\u0001\\u001f\x7f`");
    CHECK_TEXT("<a> & </a>", "`\\u003ca\\u003e \\u0026 \\u003c/a\\u003e`");
    CHECK_TEXT("\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa", "`\\u2028\\u2029\xe2\x80\xaa`");
    CHECK_TEXT("\xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80", "`\xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80`");
    CHECK_TEXT(
        "a\xff"
        "b",
        "`a\\ufffdb`");
    CHECK_TEXT("\xc3", "`\\ufffd`");
    CHECK_TEXT("\xe4\xbd", "`\\ufffd\\ufffd`");
    CHECK_TEXT("\xc0\x80", "`\\ufffd\\ufffd`");
    CHECK_TEXT("\xed\xa0\x80", "`\\ufffd\\ufffd\\ufffd`");
    CHECK_TEXT("\xf4\x90\x80\x80", "`\\ufffd\\ufffd\\ufffd\\ufffd`");
    CHECK_TEXT("\xf0\x9f\x98", "`\\ufffd\\ufffd\\ufffd`");
    CHECK_TEXT("\x80x", "`\\ufffdx`");
}

/* Each byte in each place among eight plain ones is seen as it is alone. */
static void texts_by_eights(void)
{
    for (unsigned c = 0; c < 256; c++) {
        const uint8_t alone = (uint8_t)c;
        char wanted[256];
        rq_bytes_init(&written, 1024);
        (void)snprintf(wanted, sizeof wanted, "%s", text_of(rq_go_put_text(&written, &alone, 1)));
        for (unsigned at = 0; at < 17; at++) {
            uint8_t text[17];
            char exact[256];
            memset(text, 'a', sizeof text);
            text[at] = alone;
            (void)snprintf(exact, sizeof exact, "\"%.*s%.*s%.*s\"", (int)at, "aaaaaaaaaaaaaaaaa",
                           (int)strlen(wanted) - 2, wanted + 1, (int)(16 - at), "aaaaaaaaaaaaaaaaa");
            rq_bytes_init(&written, 1024);
            check(strcmp(text_of(rq_go_put_text(&written, text, sizeof text)), exact) == 0);
        }
    }
}

static void integers_and_bytes(void)
{
    static const int64_t integers[] = { 0, 7, -7, 10, 4096, INT64_MAX, INT64_MIN };
    static const char *const in_base64[] = { "\"\"", "\"Zg==\"", "\"Zm8=\"", "\"Zm9v\"", "\"Zm9vYg==\"" };
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        char wanted[32];
        (void)snprintf(wanted, sizeof wanted, "%lld", (long long)integers[i]);
        rq_bytes_init(&written, 1024);
        check(strcmp(text_of(rq_go_put_integer(&written, integers[i])), wanted) == 0);
    }
    for (size_t i = 0; i < sizeof in_base64 / sizeof *in_base64; i++) {
        rq_bytes_init(&written, 1024);
        check(strcmp(text_of(rq_go_put_base64(&written, (const uint8_t *)"foob", i)), in_base64[i]) == 0);
    }
    rq_bytes_init(&written, 1024);
    check(strcmp(text_of(rq_go_put_array(&written, (const uint8_t *)"\0\x7f\xff", 3)), "[0,127,255]") == 0);
}

static void check_time(const char *from, const char *wanted)
{
    char text[40];
    const bool is_time = rq_go_time_of_text(from, strlen(from), text);
    if (is_time != (wanted != NULL) || (is_time && strcmp(text, wanted) != 0)) {
        printf("# %s is %s, wanted %s\n", from, is_time ? text : "none", wanted != NULL ? wanted : "none");
        check(false);
    }
}

static void times(void)
{
    check_time("2024-02-29", "2024-02-29T00:00:00Z");
    check_time("2024-02-29Z", "2024-02-29T00:00:00Z");
    check_time("2024-02-29 12:34", "2024-02-29T12:34:00Z");
    check_time("2024-02-29T12:34Z", "2024-02-29T12:34:00Z");
    check_time("2024-02-29 12:34:56", "2024-02-29T12:34:56Z");
    check_time("2024-02-29 2:34:56", "2024-02-29T02:34:56Z");
    check_time("2024-02-29T12:34:56.5", "2024-02-29T12:34:56.5Z");
    check_time("2024-02-29 12:34:56.123456789", "2024-02-29T12:34:56.123456789Z");
    check_time("2024-02-29 12:34:56.1234567899", "2024-02-29T12:34:56.123456789Z");
    check_time("2024-02-29 12:34:56.100", "2024-02-29T12:34:56.1Z");
    check_time("2024-02-29 12:34:56.000", "2024-02-29T12:34:56Z");
    check_time("2024-02-29 12:34:56+02:00", "2024-02-29T12:34:56+02:00");
    check_time("2024-02-29T12:34:56.7-11:30", "2024-02-29T12:34:56.7-11:30");
    check_time("2024-02-29 12:34:56+00:00", "2024-02-29T12:34:56Z");
    check_time("0000-01-01", "0000-01-01T00:00:00Z");
    check_time("9999-12-31 23:59:59", "9999-12-31T23:59:59Z");
    check_time("", NULL);
    check_time("Z", NULL);
    check_time("now", NULL);
    check_time("2023-02-29", NULL);
    check_time("2024-13-01", NULL);
    check_time("2024-00-01", NULL);
    check_time("2024-01-00", NULL);
    check_time("2024-1-1", NULL);
    check_time("2024-01-01 ", NULL);
    check_time("2024-01-01 24:00", NULL);
    check_time("2024-01-01 12", NULL);
    check_time("2024-01-01 12:60", NULL);
    check_time("2024-01-01 12:00:60", NULL);
    check_time("2024-01-01 12:00:00.", NULL);
    check_time("2024-01-01 12:00+02:00", NULL);
    check_time("2024-01-01 12:00:00+2:00", NULL);
    check_time("2024-01-01 12:00:00+24:00", NULL);
    check_time("2024-01-01 12:00:00 x", NULL);
    check_time("02024-01-01", NULL);
}

static void check_unix(int64_t from, const char *wanted)
{
    char text[40];
    const bool is_time = rq_go_time_of_integer(from, text);
    if (is_time != (wanted != NULL) || (is_time && strcmp(text, wanted) != 0)) {
        printf("# %lld is %s\n", (long long)from, is_time ? text : "none");
        check(false);
    }
}

static void unix_times(void)
{
    check_unix(0, "1970-01-01T00:00:00Z");
    check_unix(951782400, "2000-02-29T00:00:00Z");
    check_unix(-62167219200, "0000-01-01T00:00:00Z");
    check_unix(-62167219201, NULL);
    check_unix(253402300799, "9999-12-31T23:59:59Z");
    check_unix(253402300800, NULL);
    check_unix(1000000000000, NULL); /* seconds still */
    check_unix(1000000000001, "2001-09-09T01:46:40.001Z");
    check_unix(-1000000000001, "1938-04-24T22:13:19.999Z");
    check_unix(INT64_MAX, NULL);
    check_unix(INT64_MIN, NULL);
}

static void real_values(void)
{
    static const struct row rows[] = {
        { QUERY, &plain, "[`SELECT 1.0 AS a, 1e21 AS b, 1e-7 AS c, 9e999 AS d, -9e999 AS e`]",
          "{`results`:[{`columns`:[`a`,`b`,`c`,`d`,`e`],`types`:[`real`,`real`,`real`,`real`,`real`],"
          "`values`:[[1,1e+21,1e-7,`+Inf`,`-Inf`]]}]}" },
    };
    ALL(rows);
}

/* --- 2.4 ------------------------------------------------------------------------------------------------------------------ */

static void samples(void)
{
    static const struct row rows[] = {
        FOO,
        { QUERY, &plain, "[`SELECT * FROM foo`]",
          "{`results`:[{`columns`:[`id`,`name`],`types`:[`integer`,`text`],`values`:[[1,`fiona`],[2,`bob`]]}]}" },
        { QUERY, &plain, "[`SELECT COUNT(*) FROM foo`]",
          "{`results`:[{`columns`:[`COUNT(*)`],`types`:[`integer`],`values`:[[2]]}]}" },
        { QUERY, &plain, "[`INSERT INTO foo(name) VALUES('q')`]",
          "{`results`:[{`error`:`attempt to change database via query operation`}]}" },
        { REQUEST, &associative,
          "[[`INSERT INTO foo(name) VALUES(?)`,`d`],[`SELECT * FROM foo WHERE id=1`],[`SELECT * FROM nope`]]",
          "{`results`:[{`last_insert_id`:3,`rows_affected`:1,`rows`:null},"
          "{`types`:{`id`:`integer`,`name`:`text`},`rows`:[{`id`:1,`name`:`fiona`}]},{`error`:`no such table: "
          "nope`}]}" },
        { QUERY, &pretty, "[`SELECT * FROM foo WHERE id=1`]",
          "{\n    `results`: [\n        {\n            `columns`: [\n                `id`,\n                `name`\n"
          "            ],\n            `types`: [\n                `integer`,\n                `text`\n            ],\n"
          "            `values`: [\n                [\n                    1,\n                    `fiona`\n"
          "                ]\n            ]\n        }\n    ]\n}" },
        { EXECUTE, &pretty, "[`CREATE TABLE bar (a)`]",
          "{\n    `results`: [\n        {\n            `last_insert_id`: 3,\n            `rows_affected`: 1\n        "
          "}\n    ]\n}" },
        { EXECUTE, &pretty, "[``]", "{\n    `results`: []\n}" },
    };
    ALL(rows);
}

/* Of the plan's rows, only what each SQLite says of it. */
static void check_plan(enum rq_sql_kind kind, const char *body, const char *detail)
{
    static const char head[] =
        "{\"results\":[{\"columns\":[\"id\",\"parent\",\"notused\",\"detail\"],"
        "\"types\":[\"integer\",\"integer\",\"integer\",\"text\"],\"values\":[[";
    struct rq_sql_results results;
    rq_sql_results_init(&results, ANSWER_MAX, NULL);
    check_eq(sql_run(kind, &plain, body, &results), SQLITE_OK);
    check_eq(rq_bytes_put(&results.json, "", 1), RQ_OK);
    check(strncmp((const char *)results.json.data, head, strlen(head)) == 0);
    check(strstr((const char *)results.json.data, detail) != NULL);
    rq_sql_results_fini(&results);
}

static void explain(void)
{
    static const struct row rows[] = { FOO };
    sql_open();
    all(rows, 2);
    check_plan(QUERY, "[`EXPLAIN QUERY PLAN SELECT * FROM foo`]", "\"SCAN ");
    check_plan(QUERY, "[`EXPLAIN QUERY PLAN DELETE FROM foo WHERE id=1`]", "\"SEARCH ");
    check_plan(REQUEST, "[`EXPLAIN QUERY PLAN DELETE FROM foo WHERE id=1`]", "\"SEARCH ");
    sql_close();
}

static void returning(void)
{
    static const struct row rows[] = {
        FOO,
        { EXECUTE, &plain, "[`INSERT INTO foo(name) VALUES('r'),('s') RETURNING id, name`]",
          "{`results`:[{`columns`:[`id`,`name`],`types`:[`integer`,`text`],`values`:[[3,`r`],[4,`s`]]}]}" },
        { EXECUTE, &associative, "[`DELETE FROM foo WHERE id=4 RETURNING *`]",
          "{`results`:[{`types`:{`id`:`integer`,`name`:`text`},`rows`:[{`id`:4,`name`:`s`}]}]}" },
        { REQUEST, &plain, "[`UPDATE foo SET name='t' WHERE id=3 RETURNING\\nname`]",
          "{`results`:[{`columns`:[`name`],`types`:[`text`],`values`:[[`t`]]}]}" },
        { EXECUTE, &transaction,
          "[`INSERT INTO foo VALUES(9,'z') RETURNING id`,`INSERT INTO foo VALUES(1,'y') RETURNING id`]",
          "{`results`:[{`columns`:[`id`],`types`:[`integer`],`values`:[[9]]},{`error`:`UNIQUE constraint failed: "
          "foo.id`}]}" },
        { EXECUTE, &noparse, "[`INSERT INTO foo VALUES(5,'v'),(6,'w') RETURNING id`]",
          "{`results`:[{`last_insert_id`:6,`rows_affected`:2}]}" },
        { QUERY, &plain, "[`DELETE FROM foo RETURNING id`]",
          "{`results`:[{`error`:`attempt to change database via query operation`}]}" },
        { QUERY, &plain, "[`SELECT group_concat(id) AS ids FROM foo`]",
          "{`results`:[{`columns`:[`ids`],`types`:[`text`],`values`:[[`1,2,3,5,6`]]}]}" },
        { REQUEST, &noparse, "[`EXPLAIN QUERY PLAN DELETE FROM foo WHERE id=1`]",
          "{`results`:[{`last_insert_id`:6}]}" },
        { EXECUTE, &plain, "[`EXPLAIN QUERY PLAN DELETE FROM foo WHERE id=1`]", "{`results`:[{`last_insert_id`:6}]}" },
    };
    ALL(rows);
}

static void pragmas_that_write(void)
{
    static const struct row rows[] = {
        { EXECUTE, &plain,
          "[`PRAGMA auto_vacuum=2`,`VACUUM`,`CREATE TABLE t (x)`,`INSERT INTO t VALUES(zeroblob(100000))`]",
          "{`results`:[{},{},{},{`last_insert_id`:1,`rows_affected`:1}]}" },
        { EXECUTE, &plain, "[`DELETE FROM t`,`PRAGMA incremental_vacuum`]",
          "{`results`:[{`last_insert_id`:1,`rows_affected`:1},{`last_insert_id`:1,`rows_affected`:1}]}" },
        { REQUEST, &plain, "[`PRAGMA freelist_count`,`PRAGMA user_version=7`,`PRAGMA user_version`]",
          "{`results`:[{`columns`:[`freelist_count`],`types`:[`integer`],`values`:[[0]]},"
          "{`last_insert_id`:1,`rows_affected`:1},{`columns`:[`user_version`],`types`:[`integer`],`values`:[[7]]}]}" },
        { EXECUTE, &plain, "[`PRAGMA user_version=8`,`PRAGMA user_version`]",
          "{`results`:[{`last_insert_id`:1,`rows_affected`:1},{`last_insert_id`:1,`rows_affected`:1}]}" },
        { QUERY, &plain, "[`PRAGMA user_version=9`]",
          "{`results`:[{`error`:`attempt to change database via query operation`}]}" },
    };
    ALL(rows);
}

static void qualified_columns(void)
{
    static const struct row rows[] = {
        { EXECUTE, &plain,
          "[`CREATE TABLE foo (id INTEGER)`,`CREATE TABLE bar (id INTEGER)`,`INSERT INTO foo VALUES(1)`,"
          "`INSERT INTO bar VALUES(2)`]",
          "{`results`:[{},{},{`last_insert_id`:1,`rows_affected`:1},{`last_insert_id`:1,`rows_affected`:1}]}" },
        { QUERY, &plain, "[`SELECT foo.id, bar.id, 1 AS one FROM foo, bar`]",
          "{`results`:[{`columns`:[`id`,`id`,`one`],`types`:[`integer`,`integer`,`integer`],`values`:[[1,2,1]]}]}" },
        { QUERY, &qualified, "[`SELECT foo.id, bar.id, 1 AS one FROM foo, bar`]",
          "{`results`:[{`columns`:[`foo.id`,`bar.id`,`one`],`types`:[`integer`,`integer`,`integer`],`values`:[[1,2,1]]}"
          "]}" },
        { QUERY, &plain, "[`SELECT foo.id, bar.id, 1 AS one FROM foo, bar`]",
          "{`results`:[{`columns`:[`id`,`id`,`one`],`types`:[`integer`,`integer`,`integer`],`values`:[[1,2,1]]}]}" },
        { QUERY, &qualified_associative, "[`SELECT foo.id, bar.id, 1 AS one FROM foo, bar`]",
          "{`results`:[{`types`:{`bar.id`:`integer`,`foo.id`:`integer`,`one`:`integer`},"
          "`rows`:[{`bar.id`:2,`foo.id`:1,`one`:1}]}]}" },
    };
    ALL(rows);
}

static void transactions_by_statements(void)
{
    static const struct row rows[] = {
        FOO,
        { EXECUTE, &plain, "[`BEGIN`,`INSERT INTO foo(id) VALUES(3)`,`ROLLBACK`]",
          "{`results`:[{`last_insert_id`:2,`rows_affected`:1},{`last_insert_id`:3,`rows_affected`:1},"
          "{`last_insert_id`:3,`rows_affected`:1}]}" },
        { EXECUTE, &plain, "[`BEGIN`,`INSERT INTO foo(id) VALUES(4)`]",
          "{`results`:[],`error`:`a transaction was left open, and is rolled back`}" },
        { QUERY, &plain, "[`BEGIN`,`SELECT count(*) AS c FROM foo`]",
          "{`results`:[{},{`columns`:[`c`],`types`:[`integer`],`values`:[[2]]}]}" },
        { EXECUTE, &transaction, "[`INSERT INTO foo(id) VALUES(5)`,`COMMIT`,`INSERT INTO foo(id) VALUES(6)`]",
          "{`results`:[{`last_insert_id`:5,`rows_affected`:1},"
          "{`error`:`the transaction of a request cannot be ended by its statements`}]}" },
        { EXECUTE, &transaction, "[`INSERT INTO foo(id) VALUES(5); END; BEGIN`]",
          "{`results`:[{`error`:`the transaction of a request cannot be ended by its statements`}]}" },
        { EXECUTE, &transaction, "[`ROLLBACK`]",
          "{`results`:[{`error`:`the transaction of a request cannot be ended by its statements`}]}" },
        /* Compiled when it was harmless. */
        { EXECUTE, &plain, "[`BEGIN`,`COMMIT`]",
          "{`results`:[{`last_insert_id`:5,`rows_affected`:1},{`last_insert_id`:5,`rows_affected`:1}]}" },
        { EXECUTE, &transaction, "[`COMMIT`]",
          "{`results`:[{`error`:`the transaction of a request cannot be ended by its statements`}]}" },
        { EXECUTE, &transaction, "[`BEGIN`]",
          "{`results`:[{`error`:`cannot start a transaction within a transaction`}]}" },
        { EXECUTE, &transaction,
          "[`SAVEPOINT a`,`INSERT INTO foo(id) VALUES(7)`,`ROLLBACK TO a`,`INSERT INTO foo(id) VALUES(8)`,`RELEASE a`]",
          "{`results`:[{`last_insert_id`:5,`rows_affected`:1},{`last_insert_id`:7,`rows_affected`:1},"
          "{`last_insert_id`:7,`rows_affected`:1},{`last_insert_id`:8,`rows_affected`:1},"
          "{`last_insert_id`:8,`rows_affected`:1}]}" },
        { QUERY, &plain, "[`SELECT group_concat(id) AS ids FROM foo`]",
          "{`results`:[{`columns`:[`ids`],`types`:[`text`],`values`:[[`1,2,8`]]}]}" },
        { EXECUTE, &transaction, "[`INSERT INTO foo(id) VALUES(9)`,`INSERT OR ROLLBACK INTO foo(id) VALUES(1)`]",
          "{`results`:[{`last_insert_id`:9,`rows_affected`:1},{`error`:`UNIQUE constraint failed: foo.id`}]}" },
    };
    ALL(rows);
}

static void disallowed(void)
{
    static const struct row rows[] = {
        FOO,
        { EXECUTE, &plain, "[`INSERT INTO foo(id) VALUES(3)`,`PRAGMA journal_mode=DELETE`]",
          "{`results`:[],`error`:`disallowed pragma`}" },
        { QUERY, &associative, "[`PRAGMA wal_checkpoint`]", "{`results`:[],`error`:`disallowed pragma`}" },
        { REQUEST, &plain, "[`SELECT 1; PRAGMA synchronous(0)`]", "{`results`:[],`error`:`disallowed pragma`}" },
        { EXECUTE, &plain, "[`ATTACH '/tmp/other.db' AS other`]", "{`results`:[{`error`:`ATTACH is not allowed`}]}" },
        { EXECUTE, &plain, "[`ATTACH '' AS other`]", "{`results`:[{`error`:`ATTACH is not allowed`}]}" },
        { QUERY, &plain, "[`ATTACH ':memory:' AS other`]", "{`results`:[{`error`:`ATTACH is not allowed`}]}" },
        { EXECUTE, &plain, "[[`ATTACH ? AS other`,`/tmp/x`]]", "{`results`:[{`error`:`ATTACH is not allowed`}]}" },
        { EXECUTE, &plain, "[`DETACH main`]", "{`results`:[{`error`:`DETACH is not allowed`}]}" },
        { EXECUTE, &plain, "[`VACUUM INTO '/tmp/other.db'`]", "{`results`:[{`error`:`VACUUM INTO is not allowed`}]}" },
        { EXECUTE, &plain, "[[`VACUUM INTO ?`,`/tmp/other.db`]]",
          "{`results`:[{`error`:`VACUUM INTO is not allowed`}]}" },
        { EXECUTE, &plain, "[`VACUUM`]", "{`results`:[{`last_insert_id`:2,`rows_affected`:1}]}" },
        { EXECUTE, &plain, "[`SELECT load_extension('x')`]", "{`results`:[{`error`:`not authorized`}]}" },
        { QUERY, &plain, "[`SELECT count(*) AS c FROM foo`]",
          "{`results`:[{`columns`:[`c`],`types`:[`integer`],`values`:[[2]]}]}" },
    };
    ALL(rows);
}

/* --- time and budget ------------------------------------------------------------------------------------------------------ */

#define FOR_EVER "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT max(x) FROM c"

static void timeouts(void)
{
    static const struct rq_sql_form soon = { .db_timeout_ns = 20000000 };
    static const struct rq_sql_form soon_together = { .db_timeout_ns = 20000000, .transaction = true };
    static const struct row rows[] = {
        FOO,
        { QUERY, &soon, "[`" FOR_EVER "`,`SELECT 1`]",
          "{`results`:[{`error`:`query timeout`},{`error`:`query timeout`}]}" },
        { EXECUTE, &soon, "[`INSERT INTO foo(id) " FOR_EVER "`]", "{`results`:[{`error`:`execute timeout`}]}" },
        { REQUEST, &soon, "[`" FOR_EVER "`]", "{`results`:[{`error`:`query timeout`}]}" },
        { EXECUTE, &soon_together, "[`INSERT INTO foo(id) " FOR_EVER "`,`DELETE FROM foo`]",
          "{`results`:[{`error`:`execute timeout`}]}" },
        { QUERY, &plain, "[`SELECT count(*) AS c FROM foo`]",
          "{`results`:[{`columns`:[`c`],`types`:[`integer`],`values`:[[2]]}]}" },
    };
    ALL(rows);
}

static void budget(void)
{
    static const struct row after = { QUERY, &plain, "[`SELECT 1 AS a`]",
                                      "{`results`:[{`columns`:[`a`],`types`:[`integer`],`values`:[[1]]}]}" };
    struct rq_sql_results results;
    sql_open();
    rq_sql_results_init(&results, ANSWER_MAX, NULL);
    sql_connection.budget = 5;
    check_eq(sql_run(QUERY, &plain, "[`" FOR_EVER "`]", &results), RQ_SQL_TOO_LONG);
    check_eq(sql_run(QUERY, &transaction, "[`SELECT 1`,`" FOR_EVER "`]", &results), RQ_SQL_TOO_LONG);
    check_eq(sql_run(QUERY, &plain, "[`SELECT 1`]", &results), SQLITE_OK); /* each run has it anew */
    check(gives(&after));
    /* It is for runs alone: not for what else is done with the sql_connection. */
    check_eq(
        sqlite3_exec(sql_db,
                     "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 100000) SELECT max(x) FROM c",
                     NULL, NULL, NULL),
        SQLITE_OK);
    rq_sql_results_fini(&results);
    sql_close();
}

/* Is it that, with a time in the middle? */
static bool is_timed(const char *text, const char *before, const char *after)
{
    const size_t n = strlen(before);
    if (strncmp(text, before, n) != 0) {
        return false;
    }
    char *end;
    const double seconds = strtod(text + n, &end);
    return seconds > 0 && strcmp(end, after) == 0;
}

static void timings(void)
{
    static const struct rq_sql_form timed = { .timings = true };
    static const struct rq_sql_form timed_associative = { .timings = true, .associative = true };
    const struct rq_sql_coda coda = { .seconds = 0.25 };
    struct rq_sql_results results;
    sql_open();
    rq_sql_results_init(&results, ANSWER_MAX, NULL);
    check_eq(sql_run(EXECUTE, &timed_associative, "[`CREATE TABLE foo (id)`]", &results), SQLITE_OK);
    check_eq(rq_sql_answer(&results, &timed_associative, &coda), RQ_OK);
    rq_bytes_put(&results.json, "", 1);
    check(is_timed((const char *)results.json.data, "{\"results\":[{\"time\":", ",\"rows\":null}],\"time\":0.25}"));
    check_eq(sql_run(QUERY, &timed, "[`SELECT id FROM foo`,`SELECT nope`]", &results), SQLITE_OK);
    check_eq(rq_sql_answer(&results, &timed, &coda), RQ_OK);
    rq_bytes_put(&results.json, "", 1);
    check(is_timed((const char *)results.json.data, "{\"results\":[{\"columns\":[\"id\"],\"types\":[\"\"],\"time\":",
                   "},{\"error\":\"no such column: nope\"}],\"time\":0.25}"));
    rq_sql_results_fini(&results);
    sql_close();
}

/* --- the answer ----------------------------------------------------------------------------------------------------------- */

static void check_answer(const struct rq_sql_form *form, const char *error, struct rq_sql_coda coda, const char *wanted)
{
    struct rq_sql_results results;
    rq_sql_results_init(&results, ANSWER_MAX, NULL);
    if (error != NULL) {
        rq_sql_results_fail(&results, error);
    }
    check_eq(rq_sql_answer(&results, form, &coda), RQ_OK);
    check(is(&results.json, wanted));
    rq_sql_results_fini(&results);
}

static void answers(void)
{
    static const struct rq_sql_form everything = { .timings = true, .raft_index = true };
    check_answer(&plain, NULL, (struct rq_sql_coda){ 0 }, "{`results`:[]}");
    check_answer(&plain, "stale read", (struct rq_sql_coda){ 0 }, "{`results`:[],`error`:`stale read`}");
    check_answer(&plain, NULL, (struct rq_sql_coda){ 0.5, 7, 9 }, "{`results`:[],`sequence_number`:7}");
    check_answer(&everything, "no <way>", (struct rq_sql_coda){ 2.26e-7, 7, 9 },
                 "{`results`:[],`error`:`no \\u003cway\\u003e`,`time`:2.26e-7,`sequence_number`:7,`raft_index`:9}");
    check_answer(&everything, NULL, (struct rq_sql_coda){ 0, 0, 0 }, "{`results`:[]}");
    check(strcmp(rq_sql_code_text(SQLITE_CONSTRAINT_FOREIGNKEY), "FOREIGN KEY constraint failed") == 0);
}

static void failed_after_its_run(void)
{
    struct rq_sql_results results;
    const struct rq_sql_coda coda = { 0 };
    sql_open();
    rq_sql_results_init(&results, ANSWER_MAX, NULL);
    check_eq(sql_run(EXECUTE, &plain, "[`CREATE TABLE foo (id)`]", &results), SQLITE_OK);
    rq_sql_results_fail(&results, "leadership lost while committing log");
    check_eq(rq_sql_answer(&results, &plain, &coda), RQ_OK);
    check(is(&results.json, "{`results`:[],`error`:`leadership lost while committing log`}"));
    /* And may be run again. */
    check_eq(sql_run(QUERY, &plain, "[`SELECT 1 AS a`]", &results), SQLITE_OK);
    check_eq(rq_sql_answer(&results, &plain, &coda), RQ_OK);
    check(is(&results.json, "{`results`:[{`columns`:[`a`],`types`:[`integer`],`values`:[[1]]}]}"));
    rq_sql_results_fini(&results);
    sql_close();
}

static void too_large(void)
{
    struct rq_sql_results results;
    const struct rq_sql_coda coda = { 0 };
    sql_open();
    for (size_t max = 300; max < 2000; max += 7) {
        rq_sql_results_init(&results, max, NULL);
        check_eq(sql_run(QUERY, &plain, "[`SELECT printf('%2000d', 1) AS a`]", &results), SQLITE_TOOBIG);
        check_eq(rq_sql_answer(&results, &plain, &coda), RQ_OK);
        check(is(&results.json, "{`results`:[],`error`:`the results are too large`}"));
        rq_sql_results_fini(&results);
    }
    sql_close();
}

/* --- the connection ------------------------------------------------------------------------------------------------------- */

/* Kept statements see the schema as it is, and there may be more of them than are kept. */
static void kept_statements(void)
{
    static const struct row rows[] = {
        FOO,
        { QUERY, &plain,
          "[`SELECT * FROM foo WHERE id=1`,`SELECT * FROM foo WHERE id=1`,`SELECT * FROM foo WHERE id=1`]",
          "{`results`:[{`columns`:[`id`,`name`],`types`:[`integer`,`text`],`values`:[[1,`fiona`]]},"
          "{`columns`:[`id`,`name`],`types`:[`integer`,`text`],`values`:[[1,`fiona`]]},"
          "{`columns`:[`id`,`name`],`types`:[`integer`,`text`],`values`:[[1,`fiona`]]}]}" },
        { EXECUTE, &plain, "[`ALTER TABLE foo ADD COLUMN more BOOLEAN DEFAULT 1`]",
          "{`results`:[{`last_insert_id`:2,`rows_affected`:1}]}" },
        { QUERY, &plain, "[`SELECT * FROM foo WHERE id=1`]",
          "{`results`:[{`columns`:[`id`,`name`,`more`],`types`:[`integer`,`text`,`boolean`],`values`:[[1,`fiona`,true]]"
          "}]}" },
        { EXECUTE, &plain, "[`ALTER TABLE foo RENAME COLUMN name TO title`]",
          "{`results`:[{`last_insert_id`:2,`rows_affected`:1}]}" },
        { QUERY, &associative, "[`SELECT * FROM foo WHERE id=1`]",
          "{`results`:[{`types`:{`id`:`integer`,`more`:`boolean`,`title`:`text`},"
          "`rows`:[{`id`:1,`more`:true,`title`:`fiona`}]}]}" },
        { EXECUTE, &plain, "[`DROP TABLE foo`]", "{`results`:[{`last_insert_id`:2,`rows_affected`:1}]}" },
        { QUERY, &plain, "[`SELECT * FROM foo WHERE id=1`]", "{`results`:[{`error`:`no such table: foo`}]}" },
    };
    sql_open();
    all(rows, sizeof rows / sizeof *rows);
    for (unsigned i = 0; i < 1500; i++) {
        char body[64], wanted[128];
        const unsigned n = i % 500;
        (void)snprintf(body, sizeof body, "[`SELECT %u AS a`]", n);
        (void)snprintf(wanted, sizeof wanted, "{`results`:[{`columns`:[`a`],`types`:[`integer`],`values`:[[%u]]}]}", n);
        check(gives(&(struct row){ QUERY, &plain, body, wanted }));
    }
    unsigned kept = 0;
    for (sqlite3_stmt *s = NULL; (s = sqlite3_next_stmt(sql_db, s)) != NULL;) {
        kept++;
    }
    check(kept > 0 && kept <= 128);
    sql_close();
}

static void closed_by_somebody_else(void)
{
    sqlite3_stmt *s;
    sql_open();
    check(gives(&(struct row){ QUERY, &plain, "[`SELECT 1`,`SELECT 1`,`SELECT 1`]",
                               "{`results`:[{`columns`:[`1`],`types`:[`integer`],`values`:[[1]]},"
                               "{`columns`:[`1`],`types`:[`integer`],`values`:[[1]]},"
                               "{`columns`:[`1`],`types`:[`integer`],`values`:[[1]]}]}" }));
    while ((s = sqlite3_next_stmt(sql_db, NULL)) != NULL) {
        sqlite3_finalize(s);
    }
    check_eq(sqlite3_close(sql_db), SQLITE_OK);
    rq_sql_connection_forget(&sql_connection);
    rq_sql_connection_fini(&sql_connection); /* has nothing to do any more */
}

static void check_only_reads(const char *body, bool wanted)
{
    char json[SQL_JSON_MAX], text[RQ_HTTP_TEXT_MAX];
    struct rq_statements *statements;
    sql_quotes(body, json);
    check_eq(rq_statements_parse((const uint8_t *)json, strlen(json), &statements, text), RQ_OK);
    const bool only = rq_sql_only_reads(statements, &plain, &sql_connection);
    rq_statements_free(statements);
    printf("# %s %s\n", only ? "reads" : "writes", body);
    check(only == wanted);
}

static void only_reads(void)
{
    sql_open();
    check_eq(sqlite3_exec(sql_db, "CREATE TABLE foo (id)", NULL, NULL, NULL), SQLITE_OK);
    check_only_reads("[`SELECT 1`,`SELECT * FROM foo`]", true);
    check_only_reads("[``,` `]", true);
    check_only_reads("[`SELECT 1; SELECT 2`]", true);
    check_only_reads("[`EXPLAIN DELETE FROM foo`]", true);
    check_only_reads("[`SELECT 1`,`DELETE FROM foo`]", false);
    check_only_reads("[`SELECT 1; DELETE FROM foo`]", false);
    check_only_reads("[`SELECT * FROM nope`]", false);
    check_only_reads("[`CREATE TABLE bar (id)`]", false);
    sql_close();
}

/* In a transaction that the client has begun: open afterwards, or not. */
static void check_within(bool all_or_nothing, const char *body, const char *wanted, bool open)
{
    const struct rq_sql_form form = { .within = true, .transaction = all_or_nothing };
    const struct rq_sql_coda coda = { .error = open ? NULL : "over" };
    struct rq_sql_results results;
    struct rq_statements *statements;
    char json[SQL_JSON_MAX], text[RQ_HTTP_TEXT_MAX];
    sql_quotes(body, json);
    check_eq(rq_statements_parse((const uint8_t *)json, strlen(json), &statements, text), RQ_OK);
    rq_sql_results_init(&results, ANSWER_MAX, NULL);
    (void)rq_sql_run(statements, REQUEST, &form, &sql_connection, &results);
    check_eq(rq_sql_answer(&results, &form, &coda), RQ_OK);
    const bool same = is(&results.json, wanted);
    rq_sql_results_fini(&results);
    rq_statements_free(statements);
    check(same);
    check_eq(sqlite3_get_autocommit(sql_db) == 0, open);
}

static void a_transaction_of_the_clients(void)
{
    sql_open();
    check_eq(sqlite3_exec(sql_db, "CREATE TABLE foo (id INTEGER PRIMARY KEY); BEGIN", NULL, NULL, NULL), SQLITE_OK);
    check_within(false, "[`INSERT INTO foo VALUES(1)`,`nonsense`,`INSERT INTO foo VALUES(2)`]",
                 "{`results`:[{`last_insert_id`:1,`rows_affected`:1},{`error`:`near \\`nonsense\\`: syntax error`},"
                 "{`last_insert_id`:2,`rows_affected`:1}]}",
                 true);
    check_within(false, "[`INSERT INTO foo VALUES(3); COMMIT`]",
                 "{`results`:[{`error`:`this transaction is ended by /db/commit or /db/rollback`}]}", true);
    check_within(true, "[`INSERT INTO foo VALUES(4)`,`INSERT INTO foo VALUES(1)`,`INSERT INTO foo VALUES(5)`]",
                 "{`results`:[{`last_insert_id`:4,`rows_affected`:1},{`error`:`UNIQUE constraint failed: foo.id`}]}",
                 true);
    check_within(true, "[`INSERT INTO foo VALUES(6)`,`ROLLBACK`]",
                 "{`results`:[{`last_insert_id`:6,`rows_affected`:1},"
                 "{`error`:`this transaction is ended by /db/commit or /db/rollback`}]}",
                 true);
    check_within(true, "[`INSERT INTO foo VALUES(7)`]", "{`results`:[{`last_insert_id`:7,`rows_affected`:1}]}", true);
    check_within(false, "[`SELECT group_concat(id) AS ids FROM foo`]",
                 "{`results`:[{`columns`:[`ids`],`types`:[`text`],`values`:[[`1,2,3,7`]]}]}", true);
    /* Who gives up more than his own loses all. */
    check_within(false, "[`SAVEPOINT a`]", "{`results`:[{}]}", true);
    check_within(true, "[`RELEASE a`]", "{`results`:[{}],`error`:`over`}", false);
    check_eq(sqlite3_exec(sql_db, "BEGIN", NULL, NULL, NULL), SQLITE_OK);
    check_within(false, "[`INSERT INTO foo VALUES(1)`,`INSERT OR ROLLBACK INTO foo VALUES(1)`]",
                 "{`results`:[{`last_insert_id`:1,`rows_affected`:1},{`error`:`UNIQUE constraint failed: foo.id`}],"
                 "`error`:`over`}",
                 false);
    sql_close();
}

/* A failing COMMIT of a transaction that the run has begun itself. */
static void own_transaction(void)
{
    struct rq_sql_results results;
    struct rq_statements *statements;
    char text[RQ_HTTP_TEXT_MAX];
    static const char body[] = "[\"INSERT INTO child VALUES(7)\"]";
    const struct rq_sql_coda coda = { 0 };
    sql_open();
    check_eq(sqlite3_exec(sql_db,
                          "PRAGMA foreign_keys=ON; CREATE TABLE parent (id INTEGER PRIMARY KEY);"
                          "CREATE TABLE child (p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
                          NULL, NULL, NULL),
             SQLITE_OK);
    check_eq(rq_statements_parse((const uint8_t *)body, strlen(body), &statements, text), RQ_OK);
    rq_sql_results_init(&results, ANSWER_MAX, NULL);
    check_eq(rq_sql_run(statements, REQUEST, &transaction, &sql_connection, &results), SQLITE_CONSTRAINT_FOREIGNKEY);
    check(sqlite3_get_autocommit(sql_db) != 0);
    check_eq(rq_sql_answer(&results, &transaction, &coda), RQ_OK);
    check(is(&results.json, "{`results`:[],`error`:`FOREIGN KEY constraint failed`}"));
    check_eq(rq_sql_run(statements, EXECUTE, &plain, &sql_connection, &results), SQLITE_OK);
    check_eq(rq_sql_answer(&results, &plain, &coda), RQ_OK);
    check(is(&results.json, "{`results`:[{`error`:`FOREIGN KEY constraint failed`}]}"));
    rq_sql_results_fini(&results);
    rq_statements_free(statements);
    sql_close();
}

/* --- 2.7 ------------------------------------------------------------------------------------------------------------------ */

static void check_analysis(const char *method, const char *query, const char *body, unsigned status, const char *wanted)
{
    char target[512], json[SQL_JSON_MAX] = "", why[RQ_HTTP_TEXT_MAX];
    struct rq_http_request request = { .method = method };
    struct rq_http_response response = { .status = 0 };
    (void)snprintf(target, sizeof target, "/db/sql?%s", query);
    check(rq_http_split_target(target, &request, why));
    if (body != NULL) {
        sql_quotes(body, json);
        request.body = (const uint8_t *)json;
        request.body_bytes = strlen(json);
    }
    rq_bytes_init(&response.body, ANSWER_MAX);
    rq_analyze_routes[0].handle(NULL, &request, &response);
    check_eq(response.status, status);
    check(is(&response.body, wanted));
    rq_bytes_fini(&response.body);
}

static void analysis(void)
{
    check_analysis("GET", "", NULL, 400, "query not specified\n");
    check_analysis("POST", "", "{", 400, "invalid request\n");
    check_analysis("GET", "q=SELECT+random()", NULL, 200,
                   "{`results`:[{`original`:`SELECT random()`,`rewritten`:`SELECT random()`}]}");
    check_analysis(
        "POST", "norwrandom",
        "[`INSERT INTO foo(v) VALUES(datetime('now'))`,[`DELETE FROM foo WHERE id=?`,7],`SELEKT 1`,`SELECT (`,``,"
        "`SELECT 1; UPDATE`,`PRAGMA journal_mode=WAL`]",
        200,
        "{`results`:[{`original`:`INSERT INTO foo(v) VALUES(datetime('now'))`,"
        "`rewritten`:`INSERT INTO foo(v) VALUES(datetime('now'))`},"
        "{`original`:`DELETE FROM foo WHERE id=?`,`rewritten`:`DELETE FROM foo WHERE id=?`},"
        "{`original`:`SELEKT 1`,`error`:`near \\`SELEKT\\`: syntax error`},"
        "{`original`:`SELECT (`,`error`:`incomplete input`},{`original`:``},"
        "{`original`:`SELECT 1; UPDATE`,`error`:`incomplete input`},"
        "{`original`:`PRAGMA journal_mode=WAL`,`rewritten`:`PRAGMA journal_mode=WAL`}]}");
    check_analysis(
        "GET", "q=SELECT+1&pretty", NULL, 200,
        "{\n    `results`: [\n        {\n            `original`: `SELECT 1`,\n            `rewritten`: `SELECT 1`\n"
        "        }\n    ]\n}");
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        { "2.2 parameters: names, places, too few, too many", parameters, false },
        { "2.2 empty statements give no element", empty_statements, false },
        { "2.2 strings of several statements", strings_of_several, false },
        { "2.3 2.4 17.1 numbers of an earlier statement", stale_numbers, false },
        { "2.3 rows, and types with and without a declaration", reads_and_types, false },
        { "2.3 the associative form", associative_form, false },
        { "2.3 17.2 17.3 booleans, dates and times", typed_values, false },
        { "2.3 17.4 blobs, in text columns too", blobs, false },
        { "2.3 errors without a transaction", errors_without_transaction, false },
        { "2.3 errors in a transaction", errors_in_transaction, false },
        { "17.8 a request's transaction stops at the first error of any kind", request_stops_at_the_first_error,
          false },
        { "2.3 reals", reals, false },
        { "2.3 reals have the fewest digits that give them again", shortest_reals, false },
        { "2.3 18 reals of a query, infinity too", real_values, false },
        { "2.3 texts", texts, false },
        { "2.3 texts, each byte in each place", texts_by_eights, false },
        { "2.3 integers, base64, arrays", integers_and_bytes, false },
        { "2.3 times written as text", times, false },
        { "2.3 times in seconds and milliseconds", unix_times, false },
        { "2.3 timings", timings, false },
        { "2.3 the whole answer", answers, false },
        { "2.3 an answer that fails after its run", failed_after_its_run, false },
        { "2.3 2.4 db_timeout", timeouts, false },
        { "2.4 samples, pretty too", samples, false },
        { "2.4 RETURNING", returning, false },
        { "2.4 EXPLAIN, of writes too", explain, false },
        { "2.4 pragmas that write, with each step", pragmas_that_write, false },
        { "2.4 qualify_columns", qualified_columns, false },
        { "2.4 13 transactions by statements", transactions_by_statements, false },
        { "4 17.19 what is not allowed", disallowed, false },
        { "2.7 /db/sql", analysis, false },
        { "a budget ends a run", budget, false },
        { "an answer larger than it may be", too_large, false },
        { "kept statements", kept_statements, false },
        { "a connection closed by somebody else", closed_by_somebody_else, false },
        { "requests that only read", only_reads, false },
        { "transactions of a run's own", own_transaction, false },
        { "in a transaction of the client's", a_transaction_of_the_clients, false },
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
