#include "raftd/http/load_sql.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "raftd/db/applied.h"
#include "raftd/http/desk.h"
#include "raftd/http/results.h"
#include "raftd/http/sql.h"
#include "raftd/http/sql_file.h"
#include "raftd/http/sql_text.h"

#define PIECE_BYTES (256u << 10)
#define RUNS_MAX    5u /* of what others overtook */
#define OPEN_MS     10000u

struct loading {
    struct rq_sql_request request; /* first */
    struct rq_desk *desk;
    int fd;
    struct rq_load_sql_result *result;
    unsigned runs;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    enum rq_err err;
};

/* --- executor's thread ---------------------------------------------------------------------------------------------------- */

static int fail(struct loading *l, int code, const char *text)
{
    (void)snprintf(l->result->error, sizeof l->result->error, "%s", text);
    return code != SQLITE_OK ? code : SQLITE_ERROR;
}

static bool begins_with(const char *sql, const char *word)
{
    const size_t bytes = strlen(word);
    const char behind = strncasecmp(sql, word, bytes) == 0 ? sql[bytes] : 'x';
    return behind == '\0' || strchr(" \t\r\n\f;/-", behind) != NULL;
}

static int run_statement(struct loading *l, struct rq_sql_connection *c, const char *sql, size_t bytes)
{
    struct rq_sql_prepared *p;
    const char *tail, *begin = rq_sql_skip_blanks(sql);
    if (begins_with(begin, "BEGIN")) {
        return SQLITE_OK; /* it has begun */
    }
    int code = rq_sql_prepare(c, sql, bytes, &p, &tail);
    if (code != SQLITE_OK) {
        return fail(l, code, rq_sql_error(c));
    }
    if (p->ends_transaction && begins_with(begin, "ROLLBACK")) {
        code = fail(l, SQLITE_ERROR, "ROLLBACK: nothing was loaded");
    } else if (p->stmt != NULL && !p->ends_transaction) {
        while ((code = sqlite3_step(p->stmt)) == SQLITE_ROW) {
        }
        code = code == SQLITE_DONE ? SQLITE_OK : fail(l, code, rq_sql_error(c));
    }
    rq_sql_release(p);
    return code;
}

static int run_all(struct loading *l, struct rq_sql_connection *c, sqlite3 *db)
{
    struct rq_sql_file f;
    const char *sql;
    size_t bytes;
    if (lseek(l->fd, 0, SEEK_SET) != 0 || rq_sql_file_init(&f, l->fd, PIECE_BYTES) != RQ_OK) {
        return fail(l, SQLITE_NOMEM, "out of memory");
    }
    /* Tables come in any order: a dump says foreign_keys=OFF, which means nothing inside a transaction. */
    int code = sqlite3_exec(db, "PRAGMA defer_foreign_keys=ON", NULL, NULL, NULL);
    enum rq_err err = RQ_OK;
    while (code == SQLITE_OK && (err = rq_sql_file_next(&f, &sql, &bytes)) == RQ_OK) {
        code = run_statement(l, c, sql, bytes);
    }
    if (code == SQLITE_OK && err != RQ_NOTFOUND) {
        code = fail(l, SQLITE_ERROR,
                    err == RQ_PROTOCOL ? "a zero byte in the SQL"
                    : err == RQ_TOOBIG ? "a statement is too long"
                                       : rq_err_text(err));
    }
    rq_sql_file_fini(&f);
    return code;
}

static int run(struct rq_sql_request *r, sqlite3 *db)
{
    struct loading *l = (struct loading *)r;
    struct rq_sql_connection *c = rq_desk_writer(db);
    l->runs++;
    *l->result = (struct rq_load_sql_result){ 0 };
    if (c == NULL) {
        return fail(l, SQLITE_NOMEM, "out of memory");
    }
    c->budget = 0;
    rq_sql_connection_begin(c, 0);
    const int code = run_all(l, c, db);
    rq_sql_connection_end(c);
    l->result->last_insert_id = sqlite3_last_insert_rowid(db);
    l->result->rows_affected = sqlite3_changes(db);
    return code;
}

static void done(struct rq_sql_request *r, enum rq_err outcome)
{
    struct loading *l = (struct loading *)r;
    if (outcome == RQ_REFUSED && r->kept == 0 && l->runs < RUNS_MAX && rq_desk_queue(l->desk, r) == RQ_OK) {
        return; /* nothing of it has happened: it runs again, on top of what came in between */
    }
    pthread_mutex_lock(&l->lock);
    l->done = true;
    l->err = outcome;
    pthread_cond_signal(&l->ended);
    pthread_mutex_unlock(&l->lock);
}

/* --- from outside --------------------------------------------------------------------------------------------------------- */

static enum rq_err queue_and_wait(struct loading *l)
{
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->ended, NULL);
    enum rq_err err = rq_desk_queue(l->desk, &l->request);
    if (err == RQ_OK) {
        pthread_mutex_lock(&l->lock);
        while (!l->done) { /* the executor says what became of it, however long that takes */
            pthread_cond_wait(&l->ended, &l->lock);
        }
        err = l->err;
        pthread_mutex_unlock(&l->lock);
    }
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->ended);
    return err;
}

enum rq_err rq_load_sql(struct rq_admin *a, const char *name, int fd, struct rq_load_sql_result *ret_result)
{
    struct rq_driver *driver = atomic_load(&a->driver);
    struct loading l = {
        .request = { .transaction = true, .run = run, .done = done },
        .fd = fd,
        .result = ret_result,
    };
    *ret_result = (struct rq_load_sql_result){ 0 };
    enum rq_err err = rq_desk_find(rq_sql_service_desks(a->sql), name, strlen(name), &l.desk);
    if (err != RQ_OK) {
        return err;
    }
    if (!rq_desk_is_open(l.desk)) {
        if (rq_applied_wait(atomic_load(&a->catalog), driver, rq_driver_view(driver).delivered, OPEN_MS)) {
            rq_desk_opened(l.desk);
        } else {
            err = RQ_BUSY;
        }
    }
    err = err == RQ_OK ? queue_and_wait(&l) : err;
    rq_desk_unref(l.desk);
    if (err == RQ_OK && l.request.code != SQLITE_OK && ret_result->error[0] == '\0') { /* BEGIN, or COMMIT */
        (void)snprintf(ret_result->error, sizeof ret_result->error, "%s", rq_sql_code_text(l.request.code));
    }
    return err;
}
