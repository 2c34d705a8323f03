/* Statements: what a client asks the SQL endpoints to run, from a JSON body in any of rqlite's forms, a plain text body or `?q=`,
 * and the parameters of the query string that say how it is run and shown.
 *
 * Every value is exact: integers of 64 bits, text and blobs of any bytes.  Immutable once made, so any thread may run them; the
 * values are valid as long as the statements are, and may be bound without a copy. */
#ifndef RAFTD_HTTP_STATEMENTS_H
#define RAFTD_HTTP_STATEMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/http/server.h"
#include "raftd/wire/err.h"

enum rq_sql_kind {
    RQ_SQL_EXECUTE, /* /db/execute */
    RQ_SQL_QUERY,   /* /db/query */
    RQ_SQL_REQUEST, /* /db/request */
};

/* --- values --------------------------------------------------------------------------------------------------------------- */

enum rq_value_type { RQ_VALUE_NULL, RQ_VALUE_INTEGER, RQ_VALUE_REAL, RQ_VALUE_TEXT, RQ_VALUE_BLOB };

struct rq_value {
    const char *name; /* without prefix; NULL: positional */
    enum rq_value_type type;
    union {
        int64_t integer;
        double real;
        struct {
            const uint8_t *data; /* of an empty blob: not NULL either */
            size_t bytes;
        } text; /* blob too */
    };
};

struct rq_statement {
    const char *sql; /* ends with a zero byte, and has none before */
    size_t sql_bytes;
    const struct rq_value *values; /* in the order given: named and positional ones mixed */
    uint32_t value_count;
};

/* --- statements ----------------------------------------------------------------------------------------------------------- */

struct rq_statements;

/* text (with a newline, as rqlited ends it) says what is wrong when the answer is PROTOCOL: status 400. */
enum rq_err rq_statements_parse(const uint8_t *body, size_t bytes, struct rq_statements **ret_statements,
                                char text[RQ_HTTP_TEXT_MAX]);
/* All of sql as one statement string; none if it is empty. */
enum rq_err rq_statements_from_sql(const char *sql, size_t bytes, struct rq_statements **ret_statements);
/* What the request holds: `q` of a GET (none if there is no q), a text/plain body unless kind is REQUEST, JSON otherwise. */
enum rq_err rq_statements_read(const struct rq_http_request *request, enum rq_sql_kind kind,
                               struct rq_statements **ret_statements, char text[RQ_HTTP_TEXT_MAX]);
void rq_statements_free(struct rq_statements *s);

uint32_t rq_statements_count(const struct rq_statements *s);
const struct rq_statement *rq_statements_at(const struct rq_statements *s, uint32_t index);
/* Why none of them may be run: an error for the whole answer (status 200); NULL: they may. */
const char *rq_statements_disallowed(const struct rq_statements *s);

/* --- form ----------------------------------------------------------------------------------------------------------------- */

struct rq_sql_form {
    bool transaction;
    bool within; /* set by who runs it: in a transaction that the client has begun and will end */
    bool timings;
    bool associative;
    bool blob_array;
    bool exact_blobs; /* ours: blobs in text columns and in expressions too are base64, or arrays */
    bool pretty;
    bool qualify_columns;
    bool raft_index;
    bool noparse; /* RETURNING and EXPLAIN of a write yield no rows */
    bool queue, wait, redirect, noleader;
    uint64_t db_timeout_ns; /* 0: none */
};

/* Of parameters that rq_http_check_params() has found to be right. */
void rq_sql_form_read(const struct rq_http_request *request, struct rq_sql_form *ret_form);

#endif
