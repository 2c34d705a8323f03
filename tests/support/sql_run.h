/* SQL run: a body of statements on a database in memory, as raftd runs those of a request.  One at a time in a program. */
#ifndef TESTS_SUPPORT_SQL_RUN_H
#define TESTS_SUPPORT_SQL_RUN_H

#include <sqlite3.h>

#include "raftd/http/results.h"

#define SQL_JSON_MAX 8192u

/* Open between the two. */
extern sqlite3 *sql_db;
extern struct rq_sql_connection sql_connection;
void sql_open(void);
void sql_close(void);

/* JSON, in which ` stands for ". */
void sql_quotes(const char *from, char to[SQL_JSON_MAX]);

/* As an executor runs it: a transaction of a write is begun and ended around it.  body: as of sql_quotes(). */
int sql_run(enum rq_sql_kind kind, const struct rq_sql_form *form, const char *body, struct rq_sql_results *results);

#endif
