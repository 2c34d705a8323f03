/* One request goes through stages; between two of them its connection may be suspended, while somebody else brings it on.
 *
 *   PARSE -> FIND -> [CREATE] -> [OPEN] -> CHOOSE -> [PROVE] -> READ -> [READ_SLOWLY] -> ANSWER      only reads
 *                                            \-> WRITE -> WRITTEN ---------------------> ANSWER      may write
 *                                            \-> QUEUE -> QUEUED ----------------------> ANSWER      is queued
 *   PARSE -> WITHIN -> RAN ----------------------------------------------------------------> ANSWER      in a transaction of the client's
 *
 * Stages run on the server's threads, but for what may take its time: large bodies and slow statements are the crew's.  A write is
 * the executor's, or where nobody else waits for it the thread's that has read the request, so that no other one is woken.
 *
 * Whoever brings it on holds a reference, and resumes it once.  A write may be told before its outcome is known, when its time is
 * over; then its results are the executor's for as long as that takes, and nobody looks at them. */
#include "raftd/http/sql.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "raftd/http/begin.h"
#include "raftd/http/deadlines.h"
#include "raftd/http/desk.h"
#include "raftd/http/results.h"
#include "raftd/http/sql_text.h"
#include "raftd/http/statements.h"
#include "raftd/http/transactions.h"
#include "raftd/http/write_queue.h"
#include "raftd/ops/inflate.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/crew.h"
#include "raftd/run/duration.h"
#include "raftd/run/metrics.h"

#define DEFAULT_NAME      "db.sqlite" /* what rqlite's clients know, without naming it */
#define BODY_BYTES_MAX    (512u << 20)
#define RESULT_BYTES_MAX  (512u << 20) /* in memory: of a row, since large answers go to a file */
#define QUICK_BODY_BYTES  (128u << 10)
#define QUICK_STEPS       100u /* thousands of SQLite's machine: about a millisecond */
#define SLOW_THREADS      64u
#define LINEARIZABLE_MS   10000u
#define FRESHNESS_WAIT_MS 1000u
#define RUNS_MAX          5u /* of a write that others overtook */
#define READER_TRIES      3u /* each of which found the encoding changed by then */
#define DRAIN_MS          10000u

struct rq_sql_service {
    struct rq_sql_service_config config;
    _Atomic(struct rq_desks *) desks; /* NULL until the node is about to serve */
    struct rq_crew *crew;
    struct rq_deadlines *deadlines;
    struct rq_write_queue *queue;
    struct rq_upkeep *upkeep;
    struct rq_answer_room room;
    _Atomic(struct rq_transactions *) transactions; /* as desks, and before them */
};

enum level { LEVEL_NONE, LEVEL_WEAK, LEVEL_LINEARIZABLE };

struct errand {
    atomic_uint refs;
    struct rq_sql_service *service;
    enum rq_sql_kind kind;
    const struct rq_http_request *request; /* until the exchange has ended, as response */
    struct rq_http_response *response;
    bool (*stage)(struct errand *e); /* the next one; false: suspended or answered */
    uint64_t begin_ns;
    struct rq_sql_form form;
    struct rq_bytes inflated; /* while it is parsed */
    struct rq_statements *statements;
    struct rq_sql_results results;
    struct rq_desk *desk;      /* counted; NULL: the database is not there, which is as if it were empty */
    enum rq_err err;           /* of what was waited for */
    uint64_t index;            /* of the log: what was read or written is there; 0: not known */
    struct rq_task task;       /* the crew's, or the database's */
    struct rq_reading reading; /* PROVE */
    struct rq_sql_request write;
    struct rq_deadline deadline;
    int run_code;
    unsigned runs;
    bool overdue; /* its time was over before the outcome was known */
    struct rq_queued_write queued;
    struct rq_tx_found found; /* tx=: in use by this request until it has run */
    const char *ended;        /* what is to be said of it beside the results; NULL: it goes on */
};

static struct errand *errand_ref(struct errand *e)
{
    atomic_fetch_add(&e->refs, 1);
    return e;
}

static void errand_unref(void *arg)
{
    struct errand *e = arg;
    if (atomic_fetch_sub(&e->refs, 1) != 1) {
        return;
    }
    rq_bytes_fini(&e->inflated);
    rq_statements_free(e->statements);
    rq_sql_results_fini(&e->results); /* the client has the answer, or will not have it */
    if (e->desk != NULL) {
        rq_desk_unref(e->desk);
    }
    free(e);
}

/* --- answers -------------------------------------------------------------------------------------------------------------- */

static bool refuse(struct errand *e, unsigned status, const char *text)
{
    rq_http_text(e->response, status, text);
    return false;
}

static bool no_leader(struct errand *e)
{
    RQ_COUNT(http, leader_not_found);
    return refuse(e, 503, "leader not found\n");
}

static bool answer(struct errand *e)
{
    const struct rq_sql_coda coda = {
        .seconds = (double)(rq_clock_ns() - e->begin_ns) / 1e9,
        .raft_index = e->index,
        .sequence_number = e->queued.sequence_number,
        .error = e->ended,
    };
    if (rq_sql_answer(&e->results, &e->form, &coda) != RQ_OK) {
        return refuse(e, 500, "the answer is too large\n");
    }
    struct rq_http_response *r = e->response;
    rq_bytes_fini(&r->body);
    r->body = e->results.json;
    rq_bytes_init(&e->results.json, 0);
    r->file_bytes = e->results.file.end.bytes;
    r->file = rq_answer_file_give(&e->results.file);
    r->status = 200;
    r->content_type = RQ_HTTP_JSON;
    r->served_by = e->service->config.admin->http_adv_addr;
    return false;
}

/* Status 200, as rqlited has it for all that befalls a request but transport, permission and the lack of a leader. */
static bool fail(struct errand *e, const char *text)
{
    rq_sql_results_fail(&e->results, text);
    return answer(e);
}

/* --- suspension ------------------------------------------------------------------------------------------------------------ */

/* Whoever brings it on to its next stage has a reference from here, which resume() takes. */
static void suspend(struct errand *e, bool (*next)(struct errand *e))
{
    e->stage = next;
    errand_ref(e);
    rq_http_suspend(e->response);
}

static void resume(struct errand *e)
{
    rq_http_resume(e->response);
    errand_unref(e);
}

static bool give_to_crew(struct errand *e, void (*run)(struct rq_task *task), bool (*next)(struct errand *e))
{
    e->task.run = run;
    suspend(e, next);
    if (rq_crew_post(e->service->crew, &e->task) != RQ_OK) {
        e->err = RQ_AWAY;
        resume(e);
    }
    return false;
}

static struct errand *errand_of(struct rq_task *task)
{
    return (struct errand *)((char *)task - offsetof(struct errand, task));
}

/* --- reading ---------------------------------------------------------------------------------------------------------------- */

static bool slowly_read(struct errand *e)
{
    return e->err == RQ_OK ? answer(e) : refuse(e, 503, "no connection to read with\n");
}

/* Of a database that is not there. */
static enum rq_err empty_reader(struct rq_sql_connection *ret_c)
{
    sqlite3 *db;
    if (sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        sqlite3_close(db);
        return RQ_NOMEM;
    }
    enum rq_err err = rq_sql_connection_init(ret_c, db);
    if (err != RQ_OK) {
        sqlite3_close(db);
    }
    return err;
}

/* For who has gone nothing is read. */
static bool has_left(void *ctx)
{
    const struct errand *e = ctx;
    return rq_http_has_left(e->response);
}

/* Work on a connection that only reads; budget: of SQLite's steps, 0 for all that it takes.  ret_err: there was none. */
static int on_reader(struct errand *e, unsigned budget, int (*work)(struct errand *e, struct rq_sql_connection *c),
                     enum rq_err *ret_err)
{
    struct rq_sql_connection empty, *c = &empty;
    int code = SQLITE_OK;
    unsigned tries = 0;
    do {
        *ret_err = e->desk != NULL ? rq_desk_take_reader(e->desk, budget == 0, &c) : empty_reader(&empty);
        if (*ret_err != RQ_OK) {
            return code;
        }
        c->budget = budget;
        c->has_left = budget == 0 ? has_left : NULL;
        c->ctx = e;
        code = work(e, c);
    } while (e->desk != NULL && !rq_desk_give_reader(e->desk, c) && ++tries < READER_TRIES);
    if (e->desk == NULL) {
        sqlite3 *db = empty.db;
        rq_sql_connection_fini(&empty);
        sqlite3_close(db);
    }
    return code;
}

static int run_read(struct errand *e, struct rq_sql_connection *c)
{
    return rq_sql_run(e->statements, e->kind, &e->form, c, &e->results);
}

static void run_slowly(struct rq_task *task)
{
    struct errand *e = errand_of(task);
    (void)on_reader(e, 0, run_read, &e->err);
    resume(e);
}

static bool read_stage(struct errand *e)
{
    enum rq_err err;
    const int code = on_reader(e, QUICK_STEPS, run_read, &err);
    if (err == RQ_BUSY || code == RQ_SQL_TOO_LONG) {
        return give_to_crew(e, run_slowly, slowly_read);
    }
    if (err != RQ_OK) {
        return refuse(e, 503, "no connection to read with\n");
    }
    return answer(e);
}

/* --- how fresh ---------------------------------------------------------------------------------------------------------------- */

static bool proven(struct errand *e)
{
    if (e->err == RQ_OK) {
        e->stage = read_stage;
        return true;
    }
    return e->reading.max_age_ms > 0 ? fail(e, "stale read") : no_leader(e);
}

static void run_applied(struct rq_task *task)
{
    resume(errand_of(task));
}

static void on_proof(struct rq_reading *r, enum rq_err err, const char *text)
{
    struct errand *e = (struct errand *)((char *)r - offsetof(struct errand, reading));
    (void)text;
    e->err = err;
    e->index = r->max_age_ms == 0 && err == RQ_OK ? r->index : 0;
    if (err == RQ_OK && e->desk != NULL) {
        e->task.run = run_applied; /* behind all that was delivered to the database before */
        rq_strand_post(rq_database_strand(rq_desk_database(e->desk)), &e->task, RQ_CARRY);
    } else {
        resume(e);
    }
}

static bool prove(struct errand *e, uint64_t max_age_ms, uint64_t wait_ms)
{
    e->reading = (struct rq_reading){
        .max_age_ms = max_age_ms,
        .deadline_ms = rq_clock_ms() + wait_ms,
        .done = on_proof,
    };
    suspend(e, proven);
    rq_driver_read(atomic_load(&e->service->config.admin->driver), &e->reading);
    return false;
}

/* On the leader: whatever anybody was told to be committed is to be seen here, too.  So what is committed has to be applied, which it
 * mostly is; a database that waits for a body is read as it is. */
static bool catch_up(struct errand *e, const struct rq_driver_view *view)
{
    e->stage = read_stage;
    if (e->desk == NULL) {
        return true;
    }
    struct rq_database *db = rq_desk_database(e->desk);
    struct rq_strand *strand = rq_database_strand(db);
    if (view->delivered < view->committed) {
        return prove(e, 0, LINEARIZABLE_MS);
    }
    if (rq_strand_is_idle(strand) || rq_database_waits(db)) {
        return true;
    }
    e->task.run = run_applied;
    suspend(e, read_stage);
    rq_strand_post(strand, &e->task, RQ_HAND_OVER);
    return false;
}

static uint64_t duration_ms(const struct errand *e, const char *key, uint64_t otherwise)
{
    const char *value = rq_http_param(e->request, key);
    uint64_t ns;
    if (value == NULL || !rq_parse_duration(value, &ns)) {
        return otherwise;
    }
    return (ns + 999999u) / 1000000u;
}

static bool votes(struct rq_admin *a)
{
    struct rq_member self;
    rq_cluster_self(atomic_load(&a->cluster), &self);
    return self.votes;
}

/* rqlite's strong reads go through the log to be as fresh as a linearizable one; here both have the same proof. */
static enum level level_of(const struct errand *e)
{
    const char *name = rq_http_param(e->request, "level");
    if (name != NULL && strcasecmp(name, "none") == 0) {
        return LEVEL_NONE;
    }
    if (name != NULL && (strcasecmp(name, "linearizable") == 0 || strcasecmp(name, "strong") == 0)) {
        return LEVEL_LINEARIZABLE;
    }
    if (name != NULL && strcasecmp(name, "auto") == 0 && !votes(e->service->config.admin)) {
        return LEVEL_NONE;
    }
    return LEVEL_WEAK;
}

static bool redirected(struct errand *e);
static void run_redirect(struct rq_task *task);

static bool prove_stage(struct errand *e)
{
    const struct rq_driver_view view = rq_driver_view(atomic_load(&e->service->config.admin->driver));
    const enum level level = level_of(e);
    const uint64_t freshness_ms = level == LEVEL_NONE && !view.leads ? duration_ms(e, "freshness", 0) : 0;
    if (level != LEVEL_NONE && !view.leads && e->form.redirect) {
        return give_to_crew(e, run_redirect, redirected);
    }
    if (level != LEVEL_NONE && !rq_admin_has_leader(e->service->config.admin)) {
        return no_leader(e);
    }
    if (level == LEVEL_WEAK && view.leads) {
        return catch_up(e, &view);
    }
    if (level == LEVEL_NONE && freshness_ms == 0) {
        e->stage = read_stage;
        return true;
    }
    if (level == LEVEL_NONE) {
        return prove(e, freshness_ms, FRESHNESS_WAIT_MS);
    }
    return prove(e, 0, duration_ms(e, "linearizable_timeout", LINEARIZABLE_MS));
}

/* --- writing ------------------------------------------------------------------------------------------------------------------ */

static int run_write(struct rq_sql_request *r, sqlite3 *db)
{
    struct errand *e = (struct errand *)((char *)r - offsetof(struct errand, write));
    struct rq_sql_connection *c = rq_desk_writer(db);
    e->runs++;
    e->run_code = SQLITE_NOMEM;
    if (c != NULL) {
        c->budget = r->carried ? QUICK_STEPS : 0;
        e->run_code = rq_sql_run(e->statements, e->kind, &e->form, c, &e->results);
    }
    return e->run_code;
}

static void on_outcome(struct rq_sql_request *r, enum rq_err outcome)
{
    struct errand *e = (struct errand *)((char *)r - offsetof(struct errand, write));
    if (outcome == RQ_REFUSED && r->kept == 0 && e->runs < RUNS_MAX && rq_desk_queue(e->desk, r) == RQ_OK) {
        return; /* nothing of it has happened: it runs again, on top of what came in between */
    }
    if (outcome == RQ_OK && e->form.raft_index) {
        struct rq_database_info info;
        rq_database_info(rq_desk_database(e->desk), &info);
        e->index = info.applied_index;
    }
    e->err = outcome;
    if (rq_deadlines_end(e->service->deadlines, &e->deadline)) {
        resume(e);
    } else {
        errand_unref(e);
    }
}

static void on_deadline(struct rq_deadline *d)
{
    struct errand *e = (struct errand *)((char *)d - offsetof(struct errand, deadline));
    e->overdue = true;
    rq_http_resume(e->response);
}

/* What an outcome means: docs/protocol.md. */
static bool written(struct errand *e)
{
    if (e->overdue) { /* the executor may be at work on it still */
        return refuse(e, 504, "the outcome is unknown: the request may or may not be committed later\n");
    }
    switch ((int)e->err) {
        case RQ_OK:
            if (e->runs == 0 || (e->write.code != SQLITE_OK && e->run_code == SQLITE_OK)) {
                rq_sql_results_fail(&e->results, rq_sql_code_text(e->write.code)); /* BEGIN, or COMMIT */
            }
            return answer(e);
        case RQ_UNKNOWN:
            return refuse(e, 504, "the outcome is unknown: the request may or may not be committed\n");
        case RQ_AWAY:
            return no_leader(e);
        case RQ_BUSY:
            if (!rq_admin_has_leader(e->service->config.admin)) {
                return no_leader(e);
            }
            return refuse(e, 503, "another writer has the database: nothing was written\n");
        case RQ_NOTFOUND:
            return refuse(e, 404, "no such database\n");
        case RQ_FULL:
            return fail(e, "database or disk is full");
        default:
            return fail(e, rq_err_text(e->err));
    }
}

/* Is it one transaction, whatever it says?  Then it can be run once more when it takes too long. */
static bool is_one_transaction(const struct errand *e)
{
    return e->form.transaction ||
           (rq_statements_count(e->statements) == 1 && rq_sql_is_one_change(rq_statements_at(e->statements, 0)->sql));
}

static bool write_stage(struct errand *e)
{
    const struct rq_driver_view view = rq_driver_view(atomic_load(&e->service->config.admin->driver));
    if (!view.leads && e->form.redirect) {
        return give_to_crew(e, run_redirect, redirected);
    }
    if (!rq_admin_has_leader(e->service->config.admin)) {
        return no_leader(e);
    }
    e->write = (struct rq_sql_request){ .transaction = e->form.transaction, .run = run_write, .done = on_outcome };
    e->deadline = (struct rq_deadline){
        .at_ms = rq_clock_ms() + rq_http_timeout_ms(e->request),
        .passed = on_deadline,
    };
    suspend(e, written);
    rq_deadlines_begin(e->service->deadlines, &e->deadline);
    /* In a cluster a majority may have it while the own disk takes its time. */
    const bool lingers = is_one_transaction(e) &&
                         rq_cluster_is_alone(atomic_load(&e->service->config.admin->cluster)) &&
                         rq_http_may_linger(e->response);
    enum rq_err err = (lingers ? rq_desk_carry : rq_desk_queue)(e->desk, &e->write);
    if (err != RQ_OK) {
        on_outcome(&e->write, err);
    }
    return false;
}

/* --- queueing ----------------------------------------------------------------------------------------------------------------- */

static void on_taken(struct rq_queued_write *w)
{
    struct errand *e = (struct errand *)((char *)w - offsetof(struct errand, queued));
    if (!w->urgent) {
        rq_http_resume(e->response);
    }
}

static void on_flushed(struct rq_queued_write *w, enum rq_err err)
{
    struct errand *e = (struct errand *)((char *)w - offsetof(struct errand, queued));
    e->err = err;
    if (w->urgent && rq_deadlines_end(e->service->deadlines, &e->deadline)) {
        resume(e);
    } else {
        errand_unref(e);
    }
}

static bool queued(struct errand *e)
{
    if (e->form.wait) {
        if (e->overdue) {
            RQ_COUNT(http, queued_executions_wait_timeout);
            return refuse(e, 408, "queue wait timeout\n");
        }
        if (e->err != RQ_OK) {
            return e->err == RQ_UNKNOWN ? refuse(e, 504, "the outcome is unknown\n") : fail(e, rq_err_text(e->err));
        }
    }
    return answer(e);
}

static bool not_queued(struct errand *e)
{
    return refuse(e, 503, "this node is shutting down\n");
}

static bool queue_stage(struct errand *e)
{
    e->queued = (struct rq_queued_write){
        .statements = e->statements,
        .bytes = e->request->body_bytes + sizeof *e,
        .urgent = e->form.wait,
        .taken = on_taken,
        .flushed = on_flushed,
    };
    suspend(e, queued);
    if (e->form.wait) {
        RQ_COUNT(http, queued_executions_wait);
        e->deadline = (struct rq_deadline){
            .at_ms = rq_clock_ms() + rq_http_timeout_ms(e->request),
            .passed = on_deadline,
        };
        rq_deadlines_begin(e->service->deadlines, &e->deadline);
    }
    enum rq_err err = rq_write_queue_put(e->service->queue, e->desk, &e->queued);
    if (err != RQ_OK) {
        e->stage = not_queued;
        if (!e->form.wait || rq_deadlines_end(e->service->deadlines, &e->deadline)) {
            resume(e);
        } else {
            errand_unref(e);
        }
    }
    return false;
}

/* --- in a transaction ----------------------------------------------------------------------------------------------------------- */

static void run_refusal(struct rq_task *task)
{
    struct errand *e = errand_of(task);
    rq_transaction_refuse(e->service->config.admin, e->request, e->response, e->err, &e->found);
    e->err = RQ_OK;
    resume(e);
}

static bool refused(struct errand *e)
{
    return e->err == RQ_OK ? false : refuse(e, 503, "no thread for the request\n");
}

/* Its lifetime bounds what runs in it. */
static void run_within(struct rq_task *task)
{
    struct errand *e = errand_of(task);
    struct rq_transaction *tx = e->found.tx;
    const uint64_t left_ns = rq_transaction_left_ms(tx) * 1000000u + 1;
    e->form.within = true;
    if (e->form.db_timeout_ns == 0 || e->form.db_timeout_ns > left_ns) {
        e->form.db_timeout_ns = left_ns;
    }
    (void)rq_sql_run(e->statements, e->kind, &e->form, rq_transaction_connection(tx), &e->results);
    e->ended = rq_transaction_give(tx) ? NULL : "the transaction was rolled back";
    resume(e);
}

static bool ran_within(struct errand *e)
{
    if (e->err != RQ_OK) {
        (void)rq_transaction_give(e->found.tx);
        return refused(e);
    }
    return answer(e);
}

static bool within_stage(struct errand *e)
{
    if (e->form.queue) {
        return refuse(e, 400, "a transaction cannot be queued\n");
    }
    e->err = rq_transaction_take(atomic_load(&e->service->transactions), rq_http_param(e->request, "tx"),
                                 rq_http_param(e->request, "db"), &e->found);
    if (e->err != RQ_OK) {
        return give_to_crew(e, run_refusal, refused);
    }
    return give_to_crew(e, run_within, ran_within);
}

/* --- which way ---------------------------------------------------------------------------------------------------------------- */

static void run_redirect(struct rq_task *task)
{
    struct errand *e = errand_of(task);
    e->err = rq_admin_redirected(e->service->config.admin, e->request, e->response) ? RQ_OK : RQ_EXISTS;
    resume(e);
}

/* EXISTS: this node leads by now. */
static bool redirected(struct errand *e)
{
    if (e->err == RQ_OK) {
        return false;
    }
    e->form.redirect = false;
    e->stage = e->kind == RQ_SQL_QUERY ? prove_stage : write_stage;
    return true;
}

static int ask_only_reads(struct errand *e, struct rq_sql_connection *c)
{
    return rq_sql_only_reads(e->statements, &e->form, c);
}

static bool find_stage(struct errand *e);

static void created(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    struct errand *e = r->ctx;
    (void)db;
    e->err = err;
    free(r);
    resume(e);
}

static bool created_stage(struct errand *e)
{
    switch ((int)e->err) {
        case RQ_OK:
            e->stage = find_stage;
            return true;
        case RQ_EXISTS:
            return fail(e, "a file of that name is there that is not replicated");
        case RQ_NOMEM:
            return refuse(e, 500, "out of memory\n");
        default:
            return no_leader(e);
    }
}

static bool create(struct errand *e)
{
    struct rq_request *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return refuse(e, 500, "out of memory\n");
    }
    if (!rq_admin_has_leader(e->service->config.admin)) {
        free(r);
        return no_leader(e);
    }
    r->done = created;
    r->ctx = e;
    suspend(e, created_stage);
    rq_catalog_create(atomic_load(&e->service->config.admin->catalog), DEFAULT_NAME, strlen(DEFAULT_NAME), r);
    return false;
}

static bool choose_stage(struct errand *e)
{
    bool reads = e->kind == RQ_SQL_QUERY;
    if (e->kind == RQ_SQL_REQUEST) {
        enum rq_err err;
        reads =
            on_reader(e, QUICK_STEPS, ask_only_reads, &err) != 0 && err == RQ_OK; /* the executor takes it as well */
    }
    if (reads) {
        e->stage = prove_stage;
        return true;
    }
    if (e->desk == NULL) {
        return create(e);
    }
    e->stage = e->form.queue ? queue_stage : write_stage;
    return true;
}

static void run_open(struct rq_task *task)
{
    struct errand *e = errand_of(task);
    rq_desk_opened(e->desk);
    resume(e);
}

static bool find_stage(struct errand *e)
{
    const char *name = rq_http_param(e->request, "db");
    struct rq_desks *desks = atomic_load(&e->service->desks);
    const char *looked_for = name != NULL ? name : DEFAULT_NAME;
    enum rq_err err = rq_desk_find(desks, looked_for, strlen(looked_for), &e->desk);
    if (err == RQ_NOMEM) {
        return refuse(e, 500, "out of memory\n");
    }
    if (err != RQ_OK && name != NULL && strcmp(name, DEFAULT_NAME) != 0) {
        return refuse(e, 404, "no such database\n");
    }
    e->stage = choose_stage;
    if (err == RQ_OK && !rq_desk_is_open(e->desk)) {
        e->task.run = run_open;
        suspend(e, choose_stage);
        rq_strand_post(rq_database_strand(rq_desk_database(e->desk)), &e->task, RQ_HAND_OVER);
        return false;
    }
    return true;
}

/* --- from the beginning -------------------------------------------------------------------------------------------------------- */

static bool charge(void *ctx, size_t bytes)
{
    return rq_http_charge(ctx, bytes);
}

/* A body that came compressed takes the place of what came; false: the answer is made. */
static bool inflate_body(struct errand *e, struct rq_http_request *r)
{
    if (r->content_encoding == NULL || strcasecmp(r->content_encoding, "identity") == 0) {
        return true;
    }
    if (strcasecmp(r->content_encoding, "gzip") != 0 && strcasecmp(r->content_encoding, "deflate") != 0) {
        return refuse(e, 415, "content encoding not supported\n");
    }
    enum rq_err err = rq_inflate(r->body, r->body_bytes, &e->inflated, charge, e->response);
    r->body = e->inflated.data;
    r->body_bytes = e->inflated.size;
    return err == RQ_OK         ? true
           : err == RQ_PROTOCOL ? refuse(e, 400, "invalid compressed body\n")
           : err == RQ_TOOBIG   ? refuse(e, 413, "request body too large\n")
                                : refuse(e, 503, "too many large requests at once\n");
}

static void parse(struct errand *e)
{
    struct rq_http_request inflated = *e->request;
    const struct rq_http_request *r = &inflated;
    char text[RQ_HTTP_TEXT_MAX] = "";
    if (!inflate_body(e, &inflated)) {
        e->err = RQ_PROTOCOL;
        return;
    }
    e->err = e->form.queue ? rq_statements_parse(r->body, r->body_bytes, &e->statements, text)
                           : rq_statements_read(r, e->kind, &e->statements, text);
    if (e->err == RQ_PROTOCOL && e->form.queue && e->form.wait && strcmp(text, "no statements\n") == 0) {
        e->err = RQ_OK; /* waits for those before it */
    } else if (e->err == RQ_PROTOCOL) {
        rq_http_text(e->response, 400, text);
    }
    rq_bytes_fini(&e->inflated);
}

static void run_parse(struct rq_task *task)
{
    struct errand *e = errand_of(task);
    parse(e);
    resume(e);
}

static void count_statements(const struct errand *e, uint32_t count)
{
    switch (e->kind) {
        case RQ_SQL_EXECUTE:
            if (e->form.queue) {
                RQ_COUNT(http, queued_executions);
                RQ_COUNT_N(http, queued_executions_num_stmts_rx, count);
            } else {
                RQ_COUNT(http, executions);
                RQ_COUNT_N(http, execute_stmts_rx, count);
            }
            break;
        case RQ_SQL_QUERY:
            RQ_COUNT(http, queries);
            RQ_COUNT_N(http, query_stmts_rx, count);
            break;
        case RQ_SQL_REQUEST:
            RQ_COUNT(http, requests);
            RQ_COUNT_N(http, request_stmts_rx, count);
            break;
    }
}

static bool parsed_stage(struct errand *e)
{
    if (e->err == RQ_PROTOCOL) {
        return false;
    }
    if (e->err != RQ_OK) {
        return refuse(e, 500, "out of memory\n");
    }
    const uint32_t count = e->statements != NULL ? rq_statements_count(e->statements) : 0;
    const char *disallowed = e->statements != NULL ? rq_statements_disallowed(e->statements) : NULL;
    count_statements(e, count);
    if (disallowed != NULL) {
        return fail(e, disallowed);
    }
    if (count == 0 && !e->form.queue) { /* a GET without q */
        return answer(e);
    }
    struct rq_admin *admin = e->service->config.admin;
    if (atomic_load(&admin->driver) == NULL || !rq_catalog_ready(atomic_load(&admin->catalog))) {
        return fail(e, "store not open");
    }
    e->stage = rq_http_has(e->request, "tx") ? within_stage : find_stage;
    return true;
}

static bool parse_stage(struct errand *e)
{
    struct rq_admin *admin = e->service->config.admin;
    if (e->form.queue && !e->form.noleader && atomic_load(&admin->driver) != NULL && !rq_admin_has_leader(admin)) {
        return no_leader(e);
    }
    if (e->request->body_bytes > QUICK_BODY_BYTES || e->request->content_encoding != NULL) {
        return give_to_crew(e, run_parse, parsed_stage);
    }
    parse(e);
    e->stage = parsed_stage;
    return true;
}

static void on_request(struct rq_sql_service *s, enum rq_sql_kind kind, const struct rq_http_request *request,
                       struct rq_http_response *response)
{
    struct errand *e = response->progress;
    if (e == NULL) {
        e = calloc(1, sizeof *e);
        if (e == NULL) {
            rq_http_text(response, 500, "out of memory\n");
            return;
        }
        e->refs = 1;
        e->service = s;
        e->kind = kind;
        e->request = request;
        e->response = response;
        e->stage = parse_stage;
        e->begin_ns = rq_clock_ns();
        rq_sql_form_read(request, &e->form);
        e->form.queue = e->form.queue && kind == RQ_SQL_EXECUTE;
        rq_bytes_init(&e->inflated, BODY_BYTES_MAX);
        rq_sql_results_init(&e->results, RESULT_BYTES_MAX, &s->room);
        response->progress = e;
        response->forget = errand_unref;
    }
    while (e->stage(e)) {
    }
}

static void on_execute(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    on_request(ctx, RQ_SQL_EXECUTE, request, response);
}

static void on_query(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    on_request(ctx, RQ_SQL_QUERY, request, response);
}

static void on_both(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    on_request(ctx, RQ_SQL_REQUEST, request, response);
}

/* --- life ---------------------------------------------------------------------------------------------------------------------- */

static void now_and_then(void *ctx)
{
    struct rq_sql_service *s = ctx;
    struct rq_desks *desks = atomic_load(&s->desks);
    if (desks != NULL) {
        rq_transactions_sweep(atomic_load(&s->transactions));
        rq_desks_sweep(desks);
        rq_upkeep_look(s->upkeep, desks);
    }
}

enum rq_err rq_sql_service_new(const struct rq_sql_service_config *config, struct rq_sql_service **ret_service)
{
    struct rq_sql_service *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    s->config = *config;
    s->room.dir = config->admin->scratch_dir;
    enum rq_err err = rq_crew_new(SLOW_THREADS, "raftd-sql", &s->crew);
    if (err == RQ_OK) {
        err = rq_write_queue_new(&config->queue, &s->queue);
    }
    if (err == RQ_OK) {
        err = rq_upkeep_new(&config->upkeep, config->admin, &s->upkeep);
    }
    if (err == RQ_OK) {
        err = rq_deadlines_new(now_and_then, s, &s->deadlines);
    }
    if (err != RQ_OK) { /* raftd does not start: what was made goes with the process */
        free(s);
        return err;
    }
    *ret_service = s;
    return RQ_OK;
}

enum rq_err rq_sql_service_open(struct rq_sql_service *s)
{
    const struct rq_desks_config config = {
        .catalog = atomic_load(&s->config.admin->catalog),
        .dir = s->config.admin->dir,
        .disk = s->config.admin->disk,
        .staged_dir = s->config.admin->scratch_dir,
        .foreign_keys = s->config.foreign_keys,
        .readers_max = s->config.readers_max,
    };
    struct rq_member self;
    struct rq_transactions_config transactions = s->config.transactions;
    struct rq_transactions *all;
    struct rq_desks *desks;
    rq_cluster_self(atomic_load(&s->config.admin->cluster), &self);
    transactions.instance = self.instance;
    enum rq_err err = rq_transactions_new(&transactions, &all);
    if (err == RQ_OK) {
        atomic_store(&s->transactions, all);
        err = rq_desks_new(&config, &desks);
    }
    if (err == RQ_OK) {
        atomic_store(&s->desks, desks);
    }
    return err;
}

void rq_sql_service_drain(struct rq_sql_service *s)
{
    const uint64_t left = rq_write_queue_drain(s->queue, DRAIN_MS);
    if (left > 0) {
        rq_note(RQ_LEVEL_ERROR, "queued writes could not be made before the end: they are lost", "writes=%llu",
                (unsigned long long)left);
    }
    struct rq_transactions *transactions = atomic_load(&s->transactions);
    if (transactions != NULL) {
        rq_transactions_stop(transactions);
    }
}

const struct rq_write_queue *rq_sql_service_queue(const struct rq_sql_service *s)
{
    return s->queue;
}

struct rq_transactions *rq_sql_service_transactions(struct rq_sql_service *s)
{
    return atomic_load(&s->transactions);
}

struct rq_desks *rq_sql_service_desks(struct rq_sql_service *s)
{
    return atomic_load(&s->desks);
}

const struct rq_http_route rq_sql_routes[] = {
    { "/db/execute", true, false, "POST", "execute", on_execute, .body_max = BODY_BYTES_MAX, .type = RQ_HTTP_JSON },
    { "/db/query", true, false, "GET, POST", "query", on_query, .body_max = BODY_BYTES_MAX, .type = RQ_HTTP_JSON },
    { "/db/request", true, false, "POST", "query", on_both, .body_max = BODY_BYTES_MAX, .perm_too = "execute",
      .type = RQ_HTTP_JSON },
};
const size_t rq_sql_route_count = sizeof rq_sql_routes / sizeof *rq_sql_routes;
