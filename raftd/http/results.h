/* Results: statements run on a connection, and what they gave as the JSON that rqlite's clients expect.
 *
 * The answer grows in one buffer, from its first byte to its last; nothing is kept as a tree.  When it becomes large, it moves on to a
 * file, and the buffer is used anew (docs/decisions/0010-large-answers.md).  Errors of statements are part of it (status 200).
 * Where the connection is an executor's, it means nothing before the request is committed. */
#ifndef RAFTD_HTTP_RESULTS_H
#define RAFTD_HTTP_RESULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/db/executor.h"
#include "raftd/http/answer_file.h"
#include "raftd/http/sql_connection.h"
#include "raftd/http/statements.h"
#include "raftd/wire/bytes.h"

#define RQ_SQL_SMALL_BYTES  (256u << 10)
#define RQ_SQL_LARGE_BYTES  (4u << 20)   /* an answer stays in memory up to this, */
#define RQ_SQL_MEMORY_BYTES (256u << 20) /* but only while all that are not small do not take more than that */

struct rq_sql_results {
    struct rq_answer_file file;   /* the beginning of the answer, if it is large; else it has no bytes */
    struct rq_bytes json;         /* owns: the answer, or what comes behind the file */
    char error[RQ_HTTP_TEXT_MAX]; /* of the request as a whole; "": none.  Then the answer has no results. */

    /* Private. */
    size_t stays; /* what is in memory leaves it at this size, or looks whether it may stay */
    bool counted; /* it is not small, and in memory: in file.room->memory */
};

/* bytes_max: in memory.  room: borrows; NULL: the answer stays in memory. */
void rq_sql_results_init(struct rq_sql_results *r, size_t bytes_max, struct rq_answer_room *room);
void rq_sql_results_fini(struct rq_sql_results *r);

/* Runs all of them, and begins the answer anew.  SQLITE_OK, or the code for which the transaction that the connection is in has to
 * be rolled back; the answer says why.  TOO_LONG: the connection's budget is used up, nothing of the run counts.
 *
 * With form->transaction it runs in the transaction that is open already (an executor's, who commits it then); if none is, it
 * begins one and ends it.  Without, whatever a statement leaves open is rolled back, and the request has an error.
 *
 * With form->within it runs in the transaction that is open, and neither ends it nor lets a statement do so; `transaction` makes
 * it a savepoint there.  The transaction is over afterwards only if SQLite has rolled it back. */
int rq_sql_run(const struct rq_statements *statements, enum rq_sql_kind kind, const struct rq_sql_form *form,
               struct rq_sql_connection *connection, struct rq_sql_results *results);

/* Can they all be prepared, and does none of them write?  Then a REQUEST may be run on a connection for reading. */
bool rq_sql_only_reads(const struct rq_statements *statements, const struct rq_sql_form *form,
                       struct rq_sql_connection *connection);

/* The answer has no results but this error: of what happened to the request after its run, or instead of it. */
void rq_sql_results_fail(struct rq_sql_results *r, const char *error);
/* The error of a COMMIT that failed with this code. */
const char *rq_sql_code_text(int code);

struct rq_sql_coda {
    double seconds;           /* told with `timings` */
    uint64_t sequence_number; /* 0: none */
    uint64_t raft_index;      /* told with `raft_index`; 0: none */
    const char *error;        /* beside the results; NULL: none */
};

/* Ends the answer (one without a run, too): what r->file has, and then r->json, is the body, application/json; charset=utf-8.  NOMEM or
 * TOOBIG: 500. */
enum rq_err rq_sql_answer(struct rq_sql_results *r, const struct rq_sql_form *form, const struct rq_sql_coda *coda);

#endif
