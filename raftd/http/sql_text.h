/* SQL text: as much of it as has to be understood before SQLite sees it. */
#ifndef RAFTD_HTTP_SQL_TEXT_H
#define RAFTD_HTTP_SQL_TEXT_H

#include <stdbool.h>

/* May this pragma not be run?  It would change how the database is written, or what other databases of the process may use. */
bool rq_pragma_disallowed(const char *name, bool has_argument);

/* Does any statement of the string run such a pragma?  Wherever it stands: behind a comment, EXPLAIN or another statement. */
bool rq_sql_has_disallowed_pragma(const char *sql);

/* Is the string a single INSERT, REPLACE, UPDATE or DELETE?  Such a statement is one transaction, or none. */
bool rq_sql_is_one_change(const char *sql);

/* Behind blanks, semicolons and comments. */
const char *rq_sql_skip_blanks(const char *sql);

#endif
