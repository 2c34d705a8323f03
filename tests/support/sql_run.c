#include "tests/support/sql_run.h"

#include <string.h>

#include "tests/support/tap.h"

sqlite3 *sql_db;
struct rq_sql_connection sql_connection;

void sql_open(void)
{
    check_eq(sqlite3_open(":memory:", &sql_db), SQLITE_OK);
    sqlite3_extended_result_codes(sql_db, 1);
    check_eq(sqlite3_exec(sql_db, "PRAGMA temp_store=MEMORY", NULL, NULL, NULL), SQLITE_OK);
    check_eq(rq_sql_connection_init(&sql_connection, sql_db), RQ_OK);
}

void sql_close(void)
{
    rq_sql_connection_fini(&sql_connection);
    check_eq(sqlite3_close(sql_db), SQLITE_OK); /* no statement is left */
}

void sql_quotes(const char *from, char to[SQL_JSON_MAX])
{
    size_t i = 0;
    check(strlen(from) < SQL_JSON_MAX);
    for (; from[i] != '\0'; i++) {
        to[i] = from[i] == '`' ? '"' : from[i];
    }
    to[i] = '\0';
}

int sql_run(enum rq_sql_kind kind, const struct rq_sql_form *form, const char *body, struct rq_sql_results *results)
{
    const bool around = form->transaction && kind != RQ_SQL_QUERY;
    char json[SQL_JSON_MAX], text[RQ_HTTP_TEXT_MAX];
    struct rq_statements *statements;
    sql_quotes(body, json);
    check_eq(rq_statements_parse((const uint8_t *)json, strlen(json), &statements, text), RQ_OK);
    if (around) {
        check_eq(sqlite3_exec(sql_db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    }
    int code = rq_sql_run(statements, kind, form, &sql_connection, results);
    if (around && sqlite3_get_autocommit(sql_db) == 0) {
        check_eq(sqlite3_exec(sql_db, code == SQLITE_OK ? "COMMIT" : "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    }
    check(sqlite3_get_autocommit(sql_db) != 0);
    rq_statements_free(statements);
    return code;
}
