#include "raftd/http/write_queue.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include "raftd/http/results.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"
#include "vfs/hold.h"

#define BYTES_MAX        (64u << 20) /* of a database's writes that wait */
#define RETRY_MS         250u
#define RESULT_BYTES_MAX (64u << 20)
#define NEVER            UINT64_MAX

struct write_list {
    struct rq_queued_write *first, *last;
    unsigned count;
};

/* One database's. */
struct lane {
    struct lane *next;
    struct rq_write_queue *queue;
    struct rq_desk *desk;      /* counted */
    struct write_list waiting; /* taken in */
    struct write_list outside; /* there is no room for them */
    size_t bytes;              /* of those waiting */
    uint64_t due_ms;           /* the first of those waiting has waited for long enough; or it is tried again */
    bool urgent, failing;
    bool runs; /* what follows is the executor's */
    struct write_list batch;
    struct rq_sql_request request;
    struct rq_sql_results scratch;
};

struct rq_write_queue {
    struct rq_write_queue_config config;
    _Atomic uint64_t flushed;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake, moved;
    struct lane *lanes; /* guarded by lock, as what follows */
    uint64_t sequence_number;
    uint64_t wakes_ms; /* the thread sleeps until then */
    uint64_t held;     /* writes */
    bool draining;
};

static void list_put(struct write_list *list, struct rq_queued_write *w)
{
    w->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = w;
    list->last = w;
    list->count++;
}

static struct rq_queued_write *list_take(struct write_list *list)
{
    struct rq_queued_write *w = list->first;
    list->first = w->next;
    if (list->first == NULL) {
        list->last = NULL;
    }
    list->count--;
    return w;
}

/* list comes before what `to` has. */
static void list_prepend(struct write_list *to, struct write_list *list)
{
    if (list->first != NULL) {
        list->last->next = to->first;
        to->first = list->first;
        to->last = to->last != NULL ? to->last : list->last;
        to->count += list->count;
    }
}

/* --- a batch, on the executor's thread -------------------------------------------------------------------------------------- */

static int run_batch(struct rq_sql_request *r, sqlite3 *db)
{
    struct lane *lane = (struct lane *)((char *)r - offsetof(struct lane, request));
    const struct rq_sql_form form = { .transaction = r->transaction };
    struct rq_sql_connection *c = rq_desk_writer(db);
    struct rq_hold *hold = NULL;
    int code = sqlite3_file_control(db, "main", RQ_FCNTL_HOLD, &hold);
    if (c == NULL || code != SQLITE_OK) {
        return c == NULL ? SQLITE_NOMEM : code;
    }
    c->budget = 0;
    for (struct rq_queued_write *w = lane->batch.first; w != NULL; w = w->next) {
        if (w->statements != NULL) {
            code = rq_sql_run(w->statements, RQ_SQL_EXECUTE, &form, c, &lane->scratch);
        }
        w->version = rq_hold_version(hold);
        if (code != SQLITE_OK && r->transaction) {
            return code;
        }
    }
    return SQLITE_OK;
}

static bool is_tried_again(enum rq_err err)
{
    return err != RQ_OK && err != RQ_UNKNOWN && err != RQ_NOTFOUND && err != RQ_EXISTS;
}

static void note_failure(struct lane *lane, enum rq_err err)
{
    const char *name = rq_database_name(rq_desk_database(lane->desk));
    if (err == RQ_UNKNOWN || err == RQ_NOTFOUND) {
        rq_note(RQ_LEVEL_WARN, "queued writes are given up", "db=\"%s\" writes=%u why=%s", name, lane->batch.count,
                rq_err_name(err));
    } else if (err != RQ_OK && !lane->failing) {
        rq_note(RQ_LEVEL_WARN, "queued writes cannot be made now, and are tried again", "db=\"%s\" why=%s", name,
                rq_err_name(err));
    } else if (err == RQ_OK && lane->request.transaction && lane->request.code != SQLITE_OK) {
        rq_note(RQ_LEVEL_WARN, "queued writes are undone: one of them has an error", "db=\"%s\" writes=%u", name,
                lane->batch.count);
    }
    lane->failing = err != RQ_OK;
}

static void look_again(struct rq_write_queue *q, uint64_t at_ms);

static void tell(struct write_list *list, enum rq_err err)
{
    while (list->first != NULL) {
        struct rq_queued_write *w = list_take(list);
        w->flushed(w, err); /* it is its owner's again */
    }
}

/* What certainly has not happened goes back to where it was. */
static void on_outcome(struct rq_sql_request *r, enum rq_err err)
{
    struct lane *lane = (struct lane *)((char *)r - offsetof(struct lane, request));
    struct rq_write_queue *q = lane->queue;
    struct write_list done = { 0 }, given_up = { 0 }, again = { 0 };
    size_t again_bytes = 0;
    uint64_t last = 0;
    note_failure(lane, err);
    while (lane->batch.first != NULL) {
        struct rq_queued_write *w = list_take(&lane->batch);
        if (err == RQ_OK || (r->kept > 0 && w->version <= r->kept)) {
            last = w->sequence_number;
            list_put(&done, w);
        } else if (is_tried_again(err)) {
            again_bytes += w->bytes;
            list_put(&again, w);
        } else {
            last = w->sequence_number;
            list_put(&given_up, w);
        }
    }
    if (last > 0) {
        atomic_store(&q->flushed, last);
    }
    const unsigned count = done.count + given_up.count;
    RQ_COUNT_N(queue, objects_tx, count);
    tell(&done, RQ_OK);
    tell(&given_up, err);
    pthread_mutex_lock(&q->lock);
    if (again.first != NULL) {
        lane->urgent = q->draining;
        lane->due_ms = rq_clock_ms() + RETRY_MS;
        lane->bytes += again_bytes;
        list_prepend(&lane->waiting, &again);
    }
    lane->runs = false; /* from here on the thread may free it */
    q->held -= count;
    look_again(q, 0);
    pthread_cond_signal(&q->moved);
    pthread_mutex_unlock(&q->lock);
}

/* --- lanes; lock held ----------------------------------------------------------------------------------------------------------- */

static void look_again(struct rq_write_queue *q, uint64_t at_ms)
{
    if (at_ms < q->wakes_ms) {
        q->wakes_ms = at_ms;
        pthread_cond_signal(&q->wake);
    }
}

/* As many as there is room for. */
static void take_in(struct lane *lane)
{
    const struct rq_write_queue *q = lane->queue;
    while (lane->outside.first != NULL && lane->waiting.count < q->config.capacity && lane->bytes < BYTES_MAX) {
        struct rq_queued_write *w = list_take(&lane->outside);
        if (lane->waiting.first == NULL) {
            lane->due_ms = rq_clock_ms() + q->config.timeout_ms;
        }
        lane->urgent = lane->urgent || w->urgent;
        lane->bytes += w->bytes;
        list_put(&lane->waiting, w);
        w->taken(w);
    }
}

/* NEVER: nothing is to be done. */
static uint64_t due(const struct lane *lane)
{
    if (lane->runs || lane->waiting.first == NULL) {
        return NEVER;
    }
    const bool full = lane->waiting.count >= lane->queue->config.batch_size || lane->outside.first != NULL;
    return !lane->failing && (full || lane->urgent) ? 0 : lane->due_ms;
}

static void start(struct lane *lane, uint64_t now_ms)
{
    struct rq_write_queue *q = lane->queue;
    RQ_COUNT(queue, num_flush);
    if (lane->waiting.count < q->config.batch_size && !lane->urgent) {
        RQ_COUNT(queue, num_timeout);
    }
    while (lane->waiting.first != NULL && lane->batch.count < q->config.batch_size) {
        struct rq_queued_write *w = list_take(&lane->waiting);
        lane->bytes -= w->bytes;
        w->version = NEVER; /* it has not run */
        list_put(&lane->batch, w);
    }
    lane->urgent = lane->urgent && lane->waiting.first != NULL;
    lane->due_ms = now_ms;
    take_in(lane);
    lane->request = (struct rq_sql_request){
        .transaction = q->config.transaction,
        .run = run_batch,
        .done = on_outcome,
    };
    lane->runs = true;
    if (rq_desk_queue(lane->desk, &lane->request) != RQ_OK) {
        for (const struct rq_queued_write *w = lane->batch.first; w != NULL; w = w->next) {
            lane->bytes += w->bytes;
        }
        list_prepend(&lane->waiting, &lane->batch);
        lane->batch = (struct write_list){ 0 };
        lane->runs = false;
        lane->failing = true;
        lane->due_ms = now_ms + RETRY_MS;
    }
}

static bool is_empty(const struct lane *lane)
{
    return !lane->runs && lane->waiting.first == NULL && lane->outside.first == NULL;
}

static void lane_free(struct lane *lane)
{
    rq_sql_results_fini(&lane->scratch);
    rq_desk_unref(lane->desk);
    free(lane);
}

/* The lane of that database, made if there is none. */
static struct lane *lane_of(struct rq_write_queue *q, struct rq_desk *desk)
{
    struct lane *lane = q->lanes;
    while (lane != NULL && lane->desk != desk) {
        lane = lane->next;
    }
    if (lane == NULL) {
        lane = calloc(1, sizeof *lane);
        if (lane != NULL) {
            lane->queue = q;
            lane->desk = rq_desk_ref(desk);
            rq_sql_results_init(&lane->scratch, RESULT_BYTES_MAX, NULL);
            lane->next = q->lanes;
            q->lanes = lane;
        }
    }
    return lane;
}

/* Starts what is due, and frees what is empty.  Returns when to look again. */
static uint64_t look(struct rq_write_queue *q)
{
    const uint64_t now_ms = rq_clock_ms();
    uint64_t next_ms = NEVER;
    for (struct lane **at = &q->lanes; *at != NULL;) {
        struct lane *lane = *at;
        take_in(lane);
        if (is_empty(lane)) {
            *at = lane->next;
            lane_free(lane);
            continue;
        }
        if (due(lane) <= now_ms) {
            start(lane, now_ms);
        }
        const uint64_t at_ms = due(lane);
        next_ms = at_ms < next_ms ? at_ms : next_ms;
        at = &lane->next;
    }
    return next_ms;
}

static void *run_thread(void *arg)
{
    struct rq_write_queue *q = arg;
    pthread_mutex_lock(&q->lock);
    for (;;) {
        q->wakes_ms = look(q);
        const uint64_t sleeps_until = q->wakes_ms;
        if (sleeps_until == NEVER) {
            while (q->wakes_ms == NEVER) {
                pthread_cond_wait(&q->wake, &q->lock);
            }
        } else {
            const struct timespec until = { (time_t)(sleeps_until / 1000u), (long)(sleeps_until % 1000u) * 1000000 };
            (void)pthread_cond_timedwait(&q->wake, &q->lock, &until); /* whatever woke it, it looks */
        }
    }
    return NULL;
}

/* --- calls ---------------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_write_queue_new(const struct rq_write_queue_config *config, struct rq_write_queue **ret_queue)
{
    struct rq_write_queue *q = calloc(1, sizeof *q);
    if (q == NULL) {
        return RQ_NOMEM;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    q->config = *config;
    q->config.capacity = config->capacity > 0 ? config->capacity : 1;
    q->config.batch_size = config->batch_size > 0 ? config->batch_size : 1;
    q->sequence_number = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->wake, &attr);
    pthread_cond_init(&q->moved, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&q->lock, NULL);
    if (pthread_create(&q->thread, NULL, run_thread, q) != 0) {
        pthread_cond_destroy(&q->wake);
        pthread_cond_destroy(&q->moved);
        pthread_mutex_destroy(&q->lock);
        free(q);
        return RQ_NOMEM;
    }
    *ret_queue = q;
    return RQ_OK;
}

enum rq_err rq_write_queue_put(struct rq_write_queue *q, struct rq_desk *desk, struct rq_queued_write *w)
{
    pthread_mutex_lock(&q->lock);
    struct lane *lane = q->draining ? NULL : lane_of(q, desk);
    if (lane == NULL) {
        const enum rq_err err = q->draining ? RQ_SHUTDOWN : RQ_NOMEM;
        pthread_mutex_unlock(&q->lock);
        return err;
    }
    w->sequence_number = q->sequence_number++;
    q->held++;
    RQ_COUNT(queue, objects_rx);
    list_put(&lane->outside, w);
    take_in(lane);
    look_again(q, due(lane));
    pthread_mutex_unlock(&q->lock);
    return RQ_OK;
}

uint64_t rq_write_queue_drain(struct rq_write_queue *q, unsigned timeout_ms)
{
    const uint64_t end_ms = rq_clock_ms() + timeout_ms;
    const struct timespec until = { (time_t)(end_ms / 1000u), (long)(end_ms % 1000u) * 1000000 };
    int waited = 0;
    pthread_mutex_lock(&q->lock);
    q->draining = true;
    for (struct lane *lane = q->lanes; lane != NULL; lane = lane->next) {
        lane->urgent = true;
    }
    look_again(q, 0);
    while (q->held > 0 && waited == 0) {
        waited = pthread_cond_timedwait(&q->moved, &q->lock, &until);
    }
    const uint64_t left = q->held;
    pthread_mutex_unlock(&q->lock);
    return left;
}

const struct rq_write_queue_config *rq_write_queue_config(const struct rq_write_queue *q)
{
    return &q->config;
}

uint64_t rq_write_queue_flushed(const struct rq_write_queue *q)
{
    return atomic_load(&q->flushed);
}
