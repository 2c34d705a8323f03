/* statements: what each form of a body means, and what is said of one that means nothing.  Names begin with the section of the
 * reference. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

#include "raftd/http/sql_text.h"
#include "raftd/http/statements.h"
#include "tests/support/tap.h"

#define SHOWN_MAX 4096u

struct row {
    const char *body, *wanted; /* what show() gives, or the error's text */
};

struct shown {
    char text[SHOWN_MAX];
    size_t used;
};

__attribute__((format(printf, 2, 3))) static void add(struct shown *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(s->text + s->used, sizeof s->text - s->used, format, args);
    va_end(args);
    s->used = n > 0 && s->used + (size_t)n < sizeof s->text ? s->used + (size_t)n : s->used;
}

static void add_value(struct shown *s, const struct rq_value *v)
{
    add(s, v->name != NULL ? " %s=" : " ", v->name);
    switch (v->type) {
        case RQ_VALUE_NULL:
            add(s, "null");
            break;
        case RQ_VALUE_INTEGER:
            add(s, "%lld", (long long)v->integer);
            break;
        case RQ_VALUE_REAL:
            add(s, "%.17gr", v->real);
            break;
        case RQ_VALUE_TEXT:
            add(s, "'%.*s'", (int)v->text.bytes, (const char *)v->text.data);
            break;
        case RQ_VALUE_BLOB:
        default:
            add(s, "x");
            for (size_t i = 0; i < v->text.bytes; i++) {
                add(s, "%02x", v->text.data[i]);
            }
    }
}

static void show(const struct rq_statements *statements, struct shown *s)
{
    s->used = 0;
    s->text[0] = '\0';
    for (uint32_t i = 0; i < rq_statements_count(statements); i++) {
        const struct rq_statement *statement = rq_statements_at(statements, i);
        add(s, "%s<%s>", i > 0 ? " " : "", statement->sql);
        for (uint32_t j = 0; j < statement->value_count; j++) {
            add_value(s, &statement->values[j]);
        }
    }
}

static bool means(const char *body, size_t bytes, const char *wanted)
{
    struct rq_statements *statements = NULL;
    struct shown shown;
    char text[RQ_HTTP_TEXT_MAX] = "";
    char *exact = malloc(bytes + 1); /* so that a read past the end is seen */
    memcpy(exact, body, bytes);
    char *last = realloc(exact, bytes > 0 ? bytes : 1);
    enum rq_err err = rq_statements_parse((const uint8_t *)last, bytes, &statements, text);
    free(last);
    if (err == RQ_OK) {
        show(statements, &shown);
        rq_statements_free(statements);
    } else {
        text[strcspn(text, "\n")] = '\0';
        shown.used = 0;
        add(&shown, "400 %s", err == RQ_PROTOCOL ? text : "not a client's error");
    }
    const bool same = strcmp(shown.text, wanted) == 0;
    if (!same) {
        printf("# %.*s\n# means  %s\n# wanted %s\n", (int)bytes, body, shown.text, wanted);
    }
    return same;
}

#define EACH(rows)                                                              \
    for (size_t i = 0; i < sizeof(rows) / sizeof *(rows); i++) {                \
        check(means((rows)[i].body, strlen((rows)[i].body), (rows)[i].wanted)); \
    }

static void forms(void)
{
    static const struct row rows[] = {
        { "[\"SELECT 1\"]", "<SELECT 1>" },
        { " \n[ \"SELECT 1\" , \"SELECT 2\" ] ", "<SELECT 1> <SELECT 2>" },
        { "[[\"SELECT 1\"]]", "<SELECT 1>" },
        { "[[\"SELECT ?\",1],[\"SELECT ?, ?\",2,\"b\"]]", "<SELECT ?> 1 <SELECT ?, ?> 2 'b'" },
        { "[\"SELECT 1\",[\"SELECT ?\",5],\"SELECT 2\"]", "<SELECT 1> <SELECT ?> 5 <SELECT 2>" },
        { "[[\"SELECT :a\",{\"a\":1}]]", "<SELECT :a> a=1" },
        { "[[\"SELECT :a\",{\"a\":1,\"b\":\"x\"},{\"c\":null},7]]", "<SELECT :a> a=1 b='x' c=null 7" },
        { "[[\"SELECT :a\",7,{\"a\":1},8]]", "<SELECT :a> 7 a=1 8" },
        { "[[\"SELECT ?\",{\"\":3}]]", "<SELECT ?> 3" },
        { "[[\"SELECT ?\",{}]]", "<SELECT ?>" },
        { "[\"\"]", "<>" },
        { "[\"a \\\"b\\\" \\u00e9 \xc3\xa9\"]", "<a \"b\" \xc3\xa9 \xc3\xa9>" },
        { "[\"SELECT 1\\u0000; DROP TABLE x\"]", "<SELECT 1>" },
        { "[\"SELECT 1\"] and what follows", "<SELECT 1>" },
        { "[\"SELECT 1\"][", "<SELECT 1>" },
    };
    EACH(rows);
}

static void values(void)
{
    static const struct row rows[] = {
        { "[[\"x\",0,-0,1,-1]]", "<x> 0 0 1 -1" },
        { "[[\"x\",9223372036854775807,-9223372036854775808]]", "<x> 9223372036854775807 -9223372036854775808" },
        { "[[\"x\",9007199254740993]]", "<x> 9007199254740993" },
        { "[[\"x\",9223372036854775808]]", "<x> 9.2233720368547758e+18r" },
        { "[[\"x\",-9223372036854775809]]", "<x> -9.2233720368547758e+18r" },
        { "[[\"x\",18446744073709551616,100000000000000000000000]]",
          "<x> 1.8446744073709552e+19r 9.9999999999999992e+22r" },
        { "[[\"x\",1.0,1e2,1.5E-3,0.1]]", "<x> 1r 100r 0.0015r 0.10000000000000001r" },
        { "[[\"x\",1e-400]]", "<x> 0r" },
        { "[[\"x\",true,false,null]]", "<x> 1 0 null" },
        { "[[\"x\",\"text\",\"\",\"x\"]]", "<x> 'text' '' 'x'" },
        { "[[\"x\",\"x'deadBEEF'\",\"X'00ff'\",\"  x'01'\\t\\n\",\"x''\"]]", "<x> xdeadbeef x00ff x01 x" },
        { "[[\"x\",\"x'abc'\",\"x'0g'\",\"x'00\",\"x00'\",\"ax'00'\",\"x'\"]]",
          "<x> 'x'abc'' 'x'0g'' 'x'00' 'x00'' 'ax'00'' 'x''" },
        { "[[\"x\",[],[0],[1,2,255]]]", "<x> x x00 x0102ff" },
        { "[[\"x\",{\"a\":[1],\"b\":\"x'02'\",\"c\":true,\"d\":2.5}]]", "<x> a=x01 b=x02 c=1 d=2.5r" },
        { "[[\"x\",\"\xf0\x9f\x98\x80 \\ud83d\\ude00\"]]", "<x> '\xf0\x9f\x98\x80 \xf0\x9f\x98\x80'" },
    };
    EACH(rows);
}

static void texts_with_zero_bytes(void)
{
    static const char body[] = "[[\"x\",\"a\\u0000b\"]]";
    struct rq_statements *s;
    char text[RQ_HTTP_TEXT_MAX];
    check_eq(rq_statements_parse((const uint8_t *)body, strlen(body), &s, text), RQ_OK);
    const struct rq_value *v = rq_statements_at(s, 0)->values;
    check_eq(v->text.bytes, 3);
    check(memcmp(v->text.data, "a\0b", 3) == 0);
    rq_statements_free(s);
}

static void refused(void)
{
    static const struct row rows[] = {
        { "", "400 invalid JSON body" },
        { "  ", "400 invalid JSON body" },
        { "nonsense", "400 invalid JSON body" },
        { "[", "400 invalid JSON body" },
        { "[\"SELECT 1\"", "400 invalid JSON body" },
        { "[\"SELECT 1", "400 invalid JSON body" },
        { "[\"SELECT 1\",]", "400 invalid JSON body" },
        { "[[\"SELECT 1\",]]", "400 invalid JSON body" },
        { "[[\"SELECT 1\"", "400 invalid JSON body" },
        { "[\"a\xff\"]", "400 invalid JSON body" },
        { "[\"\\ud800\"]", "400 invalid JSON body" },
        { "[[\"x\",01]]", "400 invalid JSON body" },
        { "[[\"x\",NaN]]", "400 invalid JSON body" },
        { "\"SELECT 1\"", "400 invalid request" },
        { "5", "400 invalid request" },
        { "null", "400 invalid request" },
        { "{\"a\":1}", "400 invalid request" },
        { "{", "400 invalid request" },
        { "[5]", "400 invalid request" },
        { "[null]", "400 invalid request" },
        { "[true]", "400 invalid request" },
        { "[{\"a\":1}]", "400 invalid request" },
        { "[[]]", "400 invalid request" },
        { "[[5]]", "400 invalid request" },
        { "[[5,\"SELECT 1\"]]", "400 invalid request" },
        { "[[[\"SELECT 1\"]]]", "400 invalid request" },
        { "[[{\"a\":1}]]", "400 invalid request" },
        { "[]", "400 no statements" },
        { "[[\"x\",{\"a\":{\"b\":1}}]]", "400 unsupported type map[string]interface {}" },
        { "[[\"x\",[\"a\"]]]", "400 unsupported type string" },
        { "[[\"x\",[300]]]", "400 unsupported type 300" },
        { "[[\"x\",[-1]]]", "400 unsupported type -1" },
        { "[[\"x\",[1.5]]]", "400 unsupported type 1.5" },
        { "[[\"x\",[1e2]]]", "400 unsupported type 1e2" },
        { "[[\"x\",[18446744073709551617]]]", "400 unsupported type 18446744073709551617" },
        { "[[\"x\",[true]]]", "400 unsupported type bool" },
        { "[[\"x\",[null]]]", "400 unsupported type <nil>" },
        { "[[\"x\",[[1]]]]", "400 unsupported type []interface {}" },
        { "[[\"x\",[{}]]]", "400 unsupported type map[string]interface {}" },
        { "[[\"x\",1e400]]", "400 invalid number 1e400" },
        { "[[\"x\",{\"a\":-1e400}]]", "400 invalid number -1e400" },
    };
    EACH(rows);
}

static void long_numbers(void)
{
    static char nines[4001], body[sizeof nines + 16];
    struct rq_statements *s;
    char text[RQ_HTTP_TEXT_MAX];
    memset(nines, '9', sizeof nines - 1);
    (void)snprintf(body, sizeof body, "[[\"x\",[%s]]]", nines);
    check_eq(rq_statements_parse((const uint8_t *)body, strlen(body), &s, text), RQ_PROTOCOL);
    check(strncmp(text, "unsupported type 9999", 21) == 0);
    (void)snprintf(body, sizeof body, "[[\"x\",%s]]", nines);
    check_eq(rq_statements_parse((const uint8_t *)body, strlen(body), &s, text), RQ_PROTOCOL);
    check(strncmp(text, "invalid number 9999", 19) == 0 && text[strlen(text) - 1] == '\n');
}

static void deep_nesting(void)
{
    static char body[200000];
    struct rq_statements *s;
    char text[RQ_HTTP_TEXT_MAX];
    memset(body, '[', sizeof body);
    check_eq(rq_statements_parse((const uint8_t *)body, sizeof body, &s, text), RQ_PROTOCOL);
    memset(body + sizeof body / 2, ']', sizeof body / 2);
    check_eq(rq_statements_parse((const uint8_t *)body, sizeof body, &s, text), RQ_PROTOCOL);
    check(strcmp(text, "invalid request\n") == 0);
}

/* --- where statements come from ------------------------------------------------------------------------------------------- */

struct source {
    const char *method, *type, *query, *body;
    enum rq_sql_kind kind;
    const char *wanted;
};

static void sources(void)
{
    static const struct source rows[] = {
        { "GET", NULL, "q=SELECT+1%3B", NULL, RQ_SQL_QUERY, "<SELECT 1;>" },
        { "GET", NULL, "q=SELECT%20%27a%26b%27&level=none", NULL, RQ_SQL_QUERY, "<SELECT 'a&b'>" },
        { "GET", NULL, "", NULL, RQ_SQL_QUERY, "" },
        { "GET", "text/plain", "q=SELECT+1", NULL, RQ_SQL_QUERY, "<SELECT 1>" },
        { "POST", "text/plain", "", "SELECT 1", RQ_SQL_QUERY, "<SELECT 1>" },
        { "POST", "text/plain; charset=utf-8", "", "[\"SELECT 1\"]", RQ_SQL_EXECUTE, "<[\"SELECT 1\"]>" },
        { "POST", "text/plain", "", "", RQ_SQL_EXECUTE, "" },
        { "POST", "text/plain", "", "[\"SELECT 1\"]", RQ_SQL_REQUEST, "<SELECT 1>" },
        { "POST", NULL, "", "[\"SELECT 1\"]", RQ_SQL_EXECUTE, "<SELECT 1>" },
        { "POST", "text/html", "", "[\"SELECT 1\"]", RQ_SQL_QUERY, "<SELECT 1>" },
        { "POST", "application/json", "q=SELECT+2", "[\"SELECT 1\"]", RQ_SQL_QUERY, "<SELECT 1>" },
        { "POST", "application/json", "", "SELECT 1", RQ_SQL_QUERY, NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct source *s = &rows[i];
        char target[256], text[RQ_HTTP_TEXT_MAX];
        struct rq_http_request request = { .method = s->method, .content_type = s->type };
        struct rq_statements *statements;
        struct shown shown;
        (void)snprintf(target, sizeof target, "/db/query?%s", s->query);
        check(rq_http_split_target(target, &request, text));
        request.body = (const uint8_t *)s->body;
        request.body_bytes = s->body != NULL ? strlen(s->body) : 0;
        enum rq_err err = rq_statements_read(&request, s->kind, &statements, text);
        check_eq(err, s->wanted != NULL ? RQ_OK : RQ_PROTOCOL);
        if (err == RQ_OK) {
            show(statements, &shown);
            rq_statements_free(statements);
            check(strcmp(shown.text, s->wanted) == 0);
        }
    }
}

/* --- the form ------------------------------------------------------------------------------------------------------------- */

static struct rq_sql_form form_of(const char *query)
{
    char target[512], why[RQ_HTTP_TEXT_MAX];
    struct rq_http_request request = { .method = "POST" };
    struct rq_sql_form form;
    (void)snprintf(target, sizeof target, "/db/execute?%s", query);
    check(rq_http_split_target(target, &request, why));
    rq_sql_form_read(&request, &form);
    return form;
}

static void flags(void)
{
    struct rq_sql_form form = form_of("");
    check(!form.transaction && !form.timings && !form.associative && !form.blob_array && !form.pretty &&
          !form.raft_index);
    check(!form.qualify_columns && !form.noparse && !form.exact_blobs && !form.queue && form.db_timeout_ns == 0);
    form = form_of(
        "transaction&timings=&associative=no&blob_array=false&pretty=0&qualify_columns&raft_index&noparse&exact_blobs");
    check(form.transaction && form.timings && form.associative && form.blob_array && form.pretty);
    check(form.qualify_columns && form.raft_index && form.noparse && form.exact_blobs);
    form = form_of("queue&wait&redirect&noleader");
    check(form.queue && form.wait && form.redirect && form.noleader && !form.transaction);
    form = form_of("Transaction&TIMINGS");
    check(!form.transaction && !form.timings);
    check_eq(form_of("db_timeout=250ms").db_timeout_ns, 250000000);
    check_eq(form_of("db_timeout=1s&db_timeout=2s").db_timeout_ns, 1000000000);
    check_eq(form_of("db_timeout=0").db_timeout_ns, 0);
}

/* --- disallowed pragmas --------------------------------------------------------------------------------------------------- */

static bool is_disallowed(const char *sql)
{
    const bool is = rq_sql_has_disallowed_pragma(sql);
    const char *line = strrchr(sql, '\n'); /* a note is one line */
    printf("# %s: %s\n", is ? "disallowed" : "allowed", line != NULL ? line + 1 : sql);
    return is;
}

static void disallowed_pragmas(void)
{
    static const char *const refused_ones[] = {
        "PRAGMA journal_mode=WAL",        "  pragma\tJournal_Mode  =  delete",
        "PRAGMA main.journal_mode=off",   "PRAGMA wal_autocheckpoint = 5",
        "PRAGMA wal_checkpoint",          "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA foo.wal_checkpoint=full", "PRAGMA synchronous=OFF",
        "PRAGMA query_only = 1",
    };
    static const char *const allowed[] = {
        "PRAGMA journal_mode",
        "PRAGMA synchronous",
        "PRAGMA query_only",
        "PRAGMA wal_autocheckpoint",
        "PRAGMA foreign_keys=ON",
        "PRAGMA user_version = 3",
        "PRAGMA table_info(journal_mode)",
        "SELECT 'PRAGMA journal_mode=WAL'",
        "SELECT 1 -- ; PRAGMA journal_mode=WAL",
        "SELECT 1 /* ; PRAGMA journal_mode=WAL",
        "SELECT \"; PRAGMA journal_mode=WAL\"",
        "SELECT [; PRAGMA journal_mode=WAL]",
        "SELECT 'it''s; PRAGMA journal_mode=WAL'",
        "PRAGMA_journal_mode=WAL",
        "PRAGMA",
        "PRAGMA main.",
        "",
    };
    for (size_t i = 0; i < sizeof refused_ones / sizeof *refused_ones; i++) {
        check(is_disallowed(refused_ones[i]));
    }
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        check(!is_disallowed(allowed[i]));
    }
}

static void pragmas_that_hide(void)
{
    static const char *const hidden[] = {
        "PRAGMA synchronous(1)",
        "PRAGMA main . synchronous ( OFF )",
        "-- a comment\nPRAGMA journal_mode=WAL",
        "/* one */ /* two */PRAGMA/**/journal_mode/**/=/**/WAL",
        "SELECT 1; PRAGMA journal_mode=WAL",
        ";;PRAGMA journal_mode=WAL",
        "SELECT ';' ; PRAGMA wal_checkpoint",
        "EXPLAIN PRAGMA journal_mode=WAL",
        "EXPLAIN QUERY PLAN PRAGMA journal_mode=WAL",
        "PRAGMA \"journal_mode\"=WAL",
        "PRAGMA [main].'synchronous'=0",
        "PRAGMA `query_only`=1",
        "\xef\xbb\xbfPRAGMA synchronous=0",
        "PRAGMA locking_mode=EXCLUSIVE",
        "PRAGMA temp_store_directory='/tmp'",
        "PRAGMA hard_heap_limit=1",
    };
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        check(is_disallowed(hidden[i]));
    }
}

static void single_changes(void)
{
    static const char *const single[] = {
        "INSERT INTO t VALUES(1)",
        "insert or rollback into t values(1) ;  ",
        "/* a */ UPDATE t SET x = ';' -- b; c\n;;",
        "REPLACE INTO t VALUES(1)",
        "DELETE FROM [a;b]",
    };
    static const char *const others[] = {
        "INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)",
        "INSERTS",
        "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
        "PRAGMA optimize",
        "VACUUM",
        "EXPLAIN DELETE FROM t",
        "SELECT 1",
        "BEGIN",
        ";",
        "",
    };
    for (size_t i = 0; i < sizeof single / sizeof *single; i++) {
        check(rq_sql_is_one_change(single[i]));
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        check(!rq_sql_is_one_change(others[i]));
    }
}

static void one_pragma_refuses_all(void)
{
    static const char body[] = "[\"SELECT 1\",[\"PRAGMA journal_mode=WAL\"]]";
    struct rq_statements *s;
    char text[RQ_HTTP_TEXT_MAX];
    check_eq(rq_statements_parse((const uint8_t *)body, strlen(body), &s, text), RQ_OK);
    check(strcmp(rq_statements_disallowed(s), "disallowed pragma") == 0);
    rq_statements_free(s);
    check_eq(rq_statements_from_sql("SELECT 1", 8, &s), RQ_OK);
    check(rq_statements_disallowed(s) == NULL);
    rq_statements_free(s);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        { "2.1 flags are there or not, the first of two counts, and letters' case too", flags, false },
        { "2.2 forms of a body, also mixed; what follows is not read", forms, false },
        { "2.2 values: exact integers, reals, booleans, null, text, blobs, names", values, false },
        { "2.2 texts with a zero byte", texts_with_zero_bytes, false },
        { "2.2 bodies that are refused, and with which words", refused, false },
        { "2.2 numbers longer than the text of an error", long_numbers, false },
        { "2.2 a hundred thousand brackets", deep_nesting, false },
        { "2.2 text/plain and ?q=", sources, false },
        { "4 disallowed pragmas, and those that look like one", disallowed_pragmas, false },
        { "4 one disallowed pragma refuses the whole request", one_pragma_refuses_all, false },
        { "statements that are one transaction", single_changes, false },
        { "17.19 pragmas behind comments, other statements, quotes and brackets", pragmas_that_hide, false },
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
