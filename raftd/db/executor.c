/* The executor's thread.
 *
 * When a group is closed.  One group is in the log at a time, so the next one may grow as long as that takes; and when there is
 * none, as long as more requests wait than it has already.  So about half of those that clients keep in flight are in the log
 * while the other half run, and a single request goes to the log at once.
 *
 * Mostly the thread has run all there is when the group in the log is settled, and sleeps.  Whoever settles then hands on the
 * next group itself, before it wakes the thread: the log does not wait for a wake-up.
 *
 * The requests of a single writer are carried to the log and back by whoever runs them, which wakes nobody: the thread, or in its
 * place the one that brings a request (rq_executor_carry), as long as no other one comes.
 *
 * The lock guards the queue and what the host says of a group.  Everything else belongs to him who is at work: the thread, or a
 * carrier; while nobody is, to him who has the lock. */
#include "raftd/db/executor.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "vfs/hold.h"
#include "vfs/shim.h"

#define GROUP_REQUESTS_MAX  1024u
#define EXECUTOR_QUANTUM_MS 20u
#define TURN_WAIT_US        50000u /* at once: it looks whether it is to stop, and for how long requests have waited */
#define PAUSE_US            200u
#define CROWDED_MAX_US      20000u
#define BUSY_TIMEOUT_MS     10000u
#define CACHE_KIB           16384

struct request_list {
    struct rq_sql_request *first, *last;
    uint32_t count;
};

struct rq_executor {
    struct rq_executor_host host;
    char *path; /* owns */
    uint64_t busy_timeout_ms;
    bool foreign_keys;
    uint64_t session; /* of the origins */
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct request_list queue; /* guarded by lock, as all up to settled_as */
    bool stops;
    enum { THREAD, CARRIER, NOBODY } at_work; /* NOBODY: the thread is asleep */
    bool answering;                           /* the thread is woken after that, once */
    bool handed_on; /* the group behind the one that was settled is with the host, which the thread does not know yet */
    unsigned settled_count; /* groups with an outcome that the thread has not seen */
    enum rq_err settled_as; /* the last of them; all before it are OK */

    /* His who is at work. */
    sqlite3 *db;
    struct rq_hold *hold;
    sqlite3_stmt *begin, *commit;
    uint64_t seen; /* the version of which SQLite knows that it can read it; 0: none yet */
    bool holds;    /* the hold is taken */
    bool rests;    /* and rests, since nobody is at work */
    bool leaves;   /* it runs nothing more before it has given the turn back */
    bool solitary; /* while the last group was in the log no other request came */
    uint64_t turn_since_us, busy_since_us;
    struct request_list batch; /* taken from the queue, not run yet */
    struct request_list
        ran;          /* their outcome depends on layers that are not submitted yet, or on what those are built on */
    bool submitted;   /* the oldest layer is the host's, as a group */
    enum rq_err lost; /* not OK: all that has run fails so, once the host has nothing of it any more */
    struct rq_group groups[2]; /* the one in the log, and the next one, in turns */
    unsigned group_turn;
    uint64_t next_seq;
};

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void list_put(struct request_list *list, struct rq_sql_request *r)
{
    r->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = r;
    list->last = r;
    list->count++;
}

static struct rq_sql_request *list_take(struct request_list *list)
{
    struct rq_sql_request *r = list->first;
    list->first = r->next;
    if (list->first == NULL) {
        list->last = NULL;
    }
    list->count--;
    return r;
}

/* Answers all of a list, which is empty afterwards. */
static void list_done(struct request_list *list, enum rq_err outcome)
{
    struct rq_sql_request *r = list->first;
    *list = (struct request_list){ 0 };
    while (r != NULL) {
        struct rq_sql_request *next = r->next; /* r is not ours any more once it is done */
        r->done(r, outcome);
        r = next;
    }
}

/* --- the sink of its connection ----------------------------------------------------------------------------------------- */

static enum rq_err sink_open(struct rq_sink *sink, const char *name, bool create)
{
    (void)sink;
    (void)name;
    (void)create;
    return RQ_UNREADY; /* raftd makes control pages before it opens connections; this one is not there, or not yet again */
}

static enum rq_err sink_ready(struct rq_sink *sink, uint64_t *ret_session)
{
    (void)sink;
    *ret_session = 0;
    return RQ_OK;
}

static const char *sink_text(struct rq_sink *sink)
{
    (void)sink;
    return "the database is not open in this raftd";
}

static void sink_nothing(struct rq_sink *sink)
{
    (void)sink;
}

struct door_sink {
    struct rq_sink sink; /* first */
    const struct rq_executor_door *door;
};

static void sink_look(struct rq_sink *sink, uint32_t db_id)
{
    const struct rq_executor_door *door = ((struct door_sink *)sink)->door;
    door->look(door->ctx, db_id);
}

static void sink_free(struct rq_sink *sink)
{
    free(sink);
}

struct rq_sink *rq_executor_sink_new(void *ctx, const char *path, const char *raftd_socket, unsigned timeout_ms)
{
    static const struct rq_sink_ops alone_ops = {
        .open = sink_open,
        .ready = sink_ready,
        .text = sink_text,
        .close = sink_nothing,
        .orphan = sink_nothing,
    };
    static const struct rq_sink_ops ops = {
        .open = sink_open,
        .ready = sink_ready,
        .look = sink_look,
        .text = sink_text,
        .close = sink_free,
        .orphan = sink_nothing,
    };
    static struct rq_sink alone = { .ops = &alone_ops }; /* has no state: one for all */
    (void)path;
    (void)raftd_socket;
    (void)timeout_ms;
    if (ctx == NULL) {
        return &alone;
    }
    struct door_sink *s = malloc(sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    *s = (struct door_sink){ { &ops }, ctx };
    return &s->sink;
}

enum rq_err rq_executor_register(const struct rq_executor_door *door)
{
    const struct rq_shim_config config = { .disk = rq_disk_real(),
                                           .sink_new = rq_executor_sink_new,
                                           .ctx = (void *)(uintptr_t)door };
    return rq_shim_register(&config) == SQLITE_OK ? RQ_OK : RQ_NOMEM;
}

/* --- groups ------------------------------------------------------------------------------------------------------------- */

static struct rq_origin *origins_of(const struct rq_group *g)
{
    struct rq_origin *origins = malloc(g->head.origin_count * sizeof *origins);
    for (uint32_t i = 0; origins != NULL && i < g->head.origin_count; i++) {
        origins[i] = (struct rq_origin){ .session = g->session, .seq = g->first_seq + i };
    }
    return origins;
}

enum rq_err rq_group_walk_init(struct rq_overlay_walk *walk, const struct rq_group *g)
{
    return rq_overlay_walk_init(walk, g->pages, g->head.page_count);
}

enum rq_err rq_group_walk_next(struct rq_overlay_walk *walk, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    uint8_t *page;
    enum rq_err err = rq_overlay_walk_next(walk, ret_pgno, &page);
    if (err == RQ_OK) {
        if (*ret_pgno == 1) {
            rq_page1_normalise(page);
        }
        *ret_page = page;
    }
    return err;
}

enum rq_err rq_group_record(const struct rq_group *g, rq_base_page base, void *ctx, struct rq_bytes *out)
{
    const size_t start = out->size;
    const uint32_t page_size = g->head.page_size;
    struct rq_overlay_walk walk;
    enum rq_err err = rq_group_walk_init(&walk, g);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_origin *origins = origins_of(g);
    uint8_t *before = malloc(page_size);
    err = origins == NULL || before == NULL ? RQ_NOMEM : rq_txn_begin(out, &g->head, origins);
    while (err == RQ_OK) {
        uint32_t pgno;
        const uint8_t *page;
        err = rq_group_walk_next(&walk, &pgno, &page);
        if (err == RQ_OK) {
            err = base(ctx, pgno, before, page_size);
        }
        if (err == RQ_OK) {
            err = rq_txn_add(out, pgno, before, page, page_size);
        }
    }
    if (err == RQ_NOTFOUND) {
        err = rq_txn_end(out, start);
    }
    free(origins);
    free(before);
    rq_overlay_walk_fini(&walk);
    if (err != RQ_OK) {
        out->size = start;
    }
    return err;
}

/* All up to that version is applied.  At most the first request has some of it, and more. */
static void note_kept(struct rq_executor *x, uint64_t version)
{
    struct rq_sql_request *r = x->ran.first;
    if (r != NULL && r->base < version) {
        r->kept = version;
    }
}

/* The layer as a group, with the requests whose outcome it decides. */
static struct rq_group *cut(struct rq_executor *x, struct rq_layer *layer)
{
    struct rq_group *g = &x->groups[x->group_turn];
    const uint64_t count = layer->version - layer->base;
    layer->closed = true;
    x->group_turn ^= 1u;
    *g = (struct rq_group){
        .executor = x,
        .head = {
            .db_id = layer->db_id,
            .page_size = layer->page_size,
            .page_count = layer->page_count,
            .base = layer->base,
            .version = layer->version,
            .origin_count = (uint32_t)count,
        },
        .session = x->session,
        .first_seq = x->next_seq,
        .pages = &layer->pages,
    };
    x->next_seq += count;
    struct request_list taken = { 0 };
    note_kept(x, layer->base); /* one group is under way at a time: those before it are applied */
    while (x->ran.first != NULL && x->ran.first->version <= layer->version) {
        list_put(&taken, list_take(&x->ran));
    }
    g->first = taken.first;
    g->request_count = taken.count;
    return g;
}

/* With the lock.  What is ready behind the group in flight, which has been applied; NULL: nothing, or somebody is at work and goes
 * on himself, or it is a large layer, for which the host waits for a disk. */
static struct rq_group *cut_next(struct rq_executor *x)
{
    if (x->at_work != NOBODY || x->settled_count > 0 || x->lost != RQ_OK || rq_hold_broken(x->hold)) {
        return NULL;
    }
    struct rq_layer *layer = rq_hold_oldest(x->hold)->newer;
    if (layer == NULL || (uint64_t)layer->pages.count * layer->page_size > RQ_LAYER_BYTES_MAX) {
        return NULL;
    }
    x->handed_on = true;
    return cut(x, layer);
}

void rq_group_settle(struct rq_group *g, enum rq_err outcome)
{
    struct rq_executor *x = g->executor;
    struct request_list list = { .first = g->first };
    pthread_mutex_lock(&x->lock);
    struct rq_group *next = outcome == RQ_OK ? cut_next(x) : NULL;
    x->answering = true;
    pthread_mutex_unlock(&x->lock);
    list_done(&list, outcome);
    pthread_mutex_lock(&x->lock);
    x->answering = false;
    x->settled_count++;
    x->settled_as = outcome;
    if (x->at_work == NOBODY) {
        pthread_cond_signal(&x->wake);
    }
    pthread_mutex_unlock(&x->lock);
    if (next != NULL) {
        x->host.submit(x->host.ctx, next); /* it keeps x alive */
    }
}

static void submit(struct rq_executor *x, uint32_t waiting)
{
    struct rq_group *g = cut(x, rq_hold_oldest(x->hold));
    const bool carries = x->solitary && g->request_count == 1 && waiting == 0;
    x->submitted = true;
    g->is_carried = carries;
    if (carries) {
        rq_hold_rest(x->hold); /* as when nobody is at work meanwhile */
    }
    x->host.submit(x->host.ctx, g);
    if (carries) {
        rq_hold_wake(x->hold);
    }
}

/* --- the connection ----------------------------------------------------------------------------------------------------- */

static enum rq_err err_of(int code)
{
    switch (code) {
        case SQLITE_OK:
            return RQ_OK;
        case SQLITE_NOMEM:
            return RQ_NOMEM;
        case SQLITE_FULL:
            return RQ_FULL;
        case SQLITE_BUSY_SNAPSHOT:
            return RQ_REFUSED;
        case RQVFS_CORRUPT_QUARANTINED:
            return RQ_QUARANTINED;
        case RQVFS_BUSY_AWAY:
            return RQ_AWAY;
        default:
            break;
    }
    switch (code & 0xff) {
        case SQLITE_BUSY:
            return RQ_BUSY;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
            return RQ_CORRUPT;
        case SQLITE_CANTOPEN:
            return RQ_NOTFOUND;
        case SQLITE_READONLY:
            return RQ_READONLY;
        default:
            return RQ_IO;
    }
}

static void connection_close(struct rq_executor *x)
{
    sqlite3_stmt *s;
    if (x->db == NULL) {
        return;
    }
    while ((s = sqlite3_next_stmt(x->db, NULL)) != NULL) {
        sqlite3_finalize(s);
    }
    sqlite3_close(x->db);
    x->db = NULL;
    x->hold = NULL;
    x->seen = 0;
}

static enum rq_err connection_open(struct rq_executor *x)
{
    if (x->db != NULL) {
        return RQ_OK;
    }
    int code = sqlite3_open_v2(x->path, &x->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, "rqvfs");
    if (code == SQLITE_OK) {
        sqlite3_extended_result_codes(x->db, 1);
        code = sqlite3_file_control(x->db, "main", RQ_FCNTL_HOLD, &x->hold);
    }
    char pragma[80];
    (void)snprintf(pragma, sizeof pragma, "PRAGMA main.cache_size=-%d; PRAGMA foreign_keys=%d", CACHE_KIB,
                   x->foreign_keys);
    code = code != SQLITE_OK ? code : sqlite3_exec(x->db, pragma, NULL, NULL, NULL);
    code = code != SQLITE_OK
               ? code
               : sqlite3_prepare_v3(x->db, "BEGIN IMMEDIATE", -1, SQLITE_PREPARE_PERSISTENT, &x->begin, NULL);
    code =
        code != SQLITE_OK ? code : sqlite3_prepare_v3(x->db, "COMMIT", -1, SQLITE_PREPARE_PERSISTENT, &x->commit, NULL);
    if (code != SQLITE_OK) {
        connection_close(x);
    }
    return err_of(code);
}

/* Between requests nothing may be open: the snapshot moves. */
static void leave_nothing_open(sqlite3 *db)
{
    if (sqlite3_get_autocommit(db) != 0 && sqlite3_txn_state(db, NULL) == SQLITE_TXN_NONE) {
        return;
    }
    for (sqlite3_stmt *s = NULL; (s = sqlite3_next_stmt(db, s)) != NULL;) {
        (void)sqlite3_reset(s); /* says again what its step said */
    }
    if (sqlite3_get_autocommit(db) == 0) {
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL); /* cannot fail without open statements */
    }
}

static int step_once(sqlite3_stmt *s)
{
    (void)sqlite3_step(s); /* reset tells */
    return sqlite3_reset(s);
}

/* False: it takes too long for a carrier; it is as if it had not run. */
static bool run(struct rq_executor *x, struct rq_sql_request *r)
{
    r->kept = 0;
    r->base = rq_hold_version(x->hold);
    int code = r->transaction ? step_once(x->begin) : SQLITE_OK;
    if (code == SQLITE_OK) {
        code = r->run(r, x->db);
        if (code == SQLITE_OK && r->transaction) {
            code = step_once(x->commit);
        }
    }
    leave_nothing_open(x->db);
    r->code = code;
    r->version = rq_hold_version(x->hold);
    if (code == RQ_SQL_TOO_LONG && r->carried && r->version == r->base) {
        return false;
    }
    list_put(&x->ran, r);
    return true;
}

/* --- the turn ----------------------------------------------------------------------------------------------------------- */

/* Nothing that has run will be. */
static void fail(struct rq_executor *x, enum rq_err outcome)
{
    rq_hold_discard(x->hold);
    x->holds = x->leaves = false;
    list_done(&x->ran, outcome);
    /* The schema in SQLite's memory may be of a discarded CREATE, whose cookie another one will have. */
    if (sqlite3_exec(x->db, "PRAGMA writable_schema=RESET", NULL, NULL, NULL) != SQLITE_OK) {
        connection_close(x);
    }
}

/* What happened to the group in flight; handed_on: the next one is in flight already. */
static void settle(struct rq_executor *x, enum rq_err outcome, bool handed_on)
{
    x->submitted = handed_on;
    if (outcome != RQ_OK) {
        /* Of what ran on top of it nothing has left this node, so it is not unknown. */
        x->lost = outcome == RQ_UNKNOWN ? RQ_AWAY : outcome;
    } else {
        note_kept(x, rq_hold_oldest(x->hold)->version);
        if (x->lost == RQ_OK) {
            x->lost = err_of(rq_hold_settle(x->hold));
        }
    }
    if (x->lost != RQ_OK && !x->submitted) {
        fail(x, x->lost);
        x->lost = RQ_OK;
    }
}

static void pause_us(long us)
{
    struct timespec t = { .tv_nsec = us * 1000 };
    nanosleep(&t, NULL);
}

/* SQLite takes the text encoding for a connection once and for all; others may have replaced the database by one of another.  A
 * connection that is new is taken as it is. */
static bool is_outdated(struct rq_executor *x)
{
    const uint64_t version = rq_hold_version(x->hold);
    const bool looks = x->seen != 0 && x->seen != version;
    x->seen = version;
    return looks &&
           (sqlite3_exec(x->db, "SELECT 1 FROM main.sqlite_schema LIMIT 0", NULL, NULL, NULL) & 0xff) == SQLITE_ERROR;
}

static enum rq_err take_hold(struct rq_executor *x, uint64_t wait_us)
{
    enum rq_err err = connection_open(x);
    return err == RQ_OK ? err_of(rq_hold_take(x->hold, wait_us)) : err;
}

static void take_turn(struct rq_executor *x, uint64_t wait_us)
{
    enum rq_err err = take_hold(x, wait_us);
    if (err == RQ_OK && is_outdated(x)) {
        rq_hold_end(x->hold);
        connection_close(x);
        err = take_hold(x, wait_us);
    }
    const uint64_t now = now_us();
    if (err == RQ_OK) {
        x->holds = true;
        x->turn_since_us = now;
        x->busy_since_us = 0;
    } else if (err == RQ_BUSY || err == RQ_REFUSED) {
        x->busy_since_us = x->busy_since_us == 0 ? now : x->busy_since_us;
        if (now - x->busy_since_us >= x->busy_timeout_ms * 1000u) {
            x->busy_since_us = 0;
            list_done(&x->batch, RQ_BUSY);
        } else if (wait_us > 0) {
            pause_us(PAUSE_US); /* it has waited already, unless the control page has no slot left to wait in */
        }
    } else {
        list_done(&x->batch, err);
    }
}

static void give_turn_back(struct rq_executor *x)
{
    const bool crowded = rq_hold_crowded(x->hold);
    x->seen = rq_hold_version(x->hold);
    rq_hold_end(x->hold);
    x->holds = x->leaves = false;
    for (unsigned us = 0; crowded && us < CROWDED_MAX_US && rq_hold_crowded(x->hold); us += PAUSE_US) {
        pause_us(PAUSE_US); /* raftd empties the WAL: it needs it for itself for a moment */
    }
}

/* --- the thread --------------------------------------------------------------------------------------------------------- */

/* May another request run on top of what there is?  Not while a layer waits for its place in the log. */
static bool may_run(const struct rq_executor *x)
{
    const struct rq_layer *layer = x->holds ? rq_hold_oldest(x->hold) : NULL;
    if (x->submitted) {
        assert(layer != NULL); /* the host's, until its outcome is here */
        layer = layer->newer;
    }
    return !x->leaves && x->lost == RQ_OK && !(x->holds && rq_hold_broken(x->hold)) &&
           x->ran.count < GROUP_REQUESTS_MAX && (layer == NULL || !layer->closed);
}

static bool is_idle(const struct rq_executor *x)
{
    return x->ran.count == 0 && !x->submitted && !x->holds;
}

/* With the lock.  Is there something to do? */
static bool has_work(const struct rq_executor *x)
{
    return x->settled_count > 0 || (x->queue.count + x->batch.count > 0 && may_run(x)) || (x->stops && is_idle(x)) ||
           (!x->submitted && !is_idle(x));
}

/* With the lock. */
static void stop_work(struct rq_executor *x)
{
    x->at_work = NOBODY;
    if (x->holds && !x->rests) {
        x->rests = true;
        rq_hold_rest(x->hold); /* else a WAL that is reset while a group is in the log would be an exception */
    }
}

/* What one finds who looks up from his work. */
struct news {
    unsigned settled_count;
    enum rq_err settled_as;
    bool handed_on;
    uint32_t waiting; /* requests that have not run */
};

/* With the lock.  Takes what was queued. */
static void take_news(struct rq_executor *x, struct news *ret_news)
{
    if (x->batch.count == 0) {
        x->batch = x->queue;
        x->queue = (struct request_list){ 0 };
    }
    *ret_news = (struct news){
        .settled_count = x->settled_count,
        .settled_as = x->settled_as,
        .handed_on = x->handed_on,
        .waiting = x->batch.count + x->queue.count,
    };
    x->settled_count = 0;
    x->handed_on = false;
}

/* The thread sleeps until there is something to do.  False: it is to end, and has nothing left. */
static bool next_work(struct rq_executor *x, struct news *ret_news)
{
    pthread_mutex_lock(&x->lock);
    while (x->at_work == CARRIER || !has_work(x)) {
        if (x->at_work == THREAD) {
            stop_work(x);
        }
        pthread_cond_wait(&x->wake, &x->lock);
    }
    x->at_work = THREAD;
    if (x->rests) {
        x->rests = false;
        rq_hold_wake(x->hold);
    }
    take_news(x, ret_news);
    const bool goes_on = !(x->stops && is_idle(x) && ret_news->waiting == 0 && ret_news->settled_count == 0);
    pthread_mutex_unlock(&x->lock);
    return goes_on;
}

/* With nothing in the log: what is ready goes there, and what waits for nothing is answered. */
static void hand_on(struct rq_executor *x, uint32_t waiting)
{
    struct rq_layer *layer = rq_hold_oldest(x->hold);
    if (rq_hold_broken(x->hold)) {
        fail(x, RQ_NOMEM);
    } else if (layer == NULL) {
        list_done(&x->ran, RQ_OK); /* they wrote nothing, and read what is applied */
    } else if (layer->closed || waiting <= x->ran.count || !may_run(x)) {
        submit(x, waiting);
    }
}

/* One round.  carries: it must not wait for anything but what the host waits for in submit. */
static void work(struct rq_executor *x, struct news *news, bool carries)
{
    if (news->settled_count == 2) {
        settle(x, RQ_OK, true);
        settle(x, news->settled_as, false);
    } else if (news->settled_count == 1) {
        settle(x, news->settled_as, news->handed_on);
    }
    if (news->settled_count > 0) {
        x->solitary = news->waiting == 0 && x->ran.count == 0 && !x->submitted;
    }
    if (!x->holds && x->batch.count > 0) {
        take_turn(x, carries ? 0 : TURN_WAIT_US);
    }
    if (x->holds && x->batch.count > 0 && may_run(x)) {
        struct rq_sql_request *r = list_take(&x->batch);
        r->carried = carries;
        if (run(x, r)) {
            news->waiting--;
        } else {
            assert(x->batch.count == 0); /* a carrier has no other one */
            list_put(&x->batch, r);
        }
    }
    if (x->holds && !x->leaves && x->lost == RQ_OK) {
        x->leaves = rq_hold_crowded(x->hold) ||
                    (now_us() - x->turn_since_us >= EXECUTOR_QUANTUM_MS * (uint64_t)1000 && rq_hold_wanted(x->hold));
    }
    if (x->holds && !x->submitted) {
        hand_on(x, news->waiting);
    }
    const bool may_leave = x->leaves ? !carries : news->waiting == 0; /* where it has to it waits for raftd */
    if (x->holds && !x->submitted && rq_hold_oldest(x->hold) == NULL && may_leave) {
        give_turn_back(x);
    }
}

static void *executor_thread(void *arg)
{
    struct rq_executor *x = arg;
    struct news news;
    (void)pthread_setname_np(pthread_self(), "raftd-sql");
    while (next_work(x, &news)) {
        work(x, &news, false);
    }
    connection_close(x);
    return NULL;
}

/* --- life --------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_executor_new(const struct rq_executor_config *config, struct rq_executor **ret_executor)
{
    struct rq_executor *x = calloc(1, sizeof *x);
    if (x == NULL) {
        return RQ_NOMEM;
    }
    enum rq_err err = RQ_NOMEM;
    x->host = config->host;
    x->busy_timeout_ms = config->busy_timeout_ms != 0 ? config->busy_timeout_ms : BUSY_TIMEOUT_MS;
    x->foreign_keys = config->foreign_keys;
    x->next_seq = 1;
    x->path = strdup(config->path);
    if (x->path == NULL) {
        goto undo;
    }
    while (x->session == 0) {
        if (getrandom(&x->session, sizeof x->session, 0) != (ssize_t)sizeof x->session) {
            err = RQ_IO;
            goto undo;
        }
    }
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->wake, NULL);
    if (pthread_create(&x->thread, NULL, executor_thread, x) != 0) {
        pthread_mutex_destroy(&x->lock);
        pthread_cond_destroy(&x->wake);
        goto undo;
    }
    *ret_executor = x;
    return RQ_OK;

undo:
    free(x->path);
    free(x);
    return err;
}

void rq_executor_free(struct rq_executor *x)
{
    if (x == NULL) {
        return;
    }
    pthread_mutex_lock(&x->lock);
    x->stops = true;
    pthread_cond_signal(&x->wake);
    pthread_mutex_unlock(&x->lock);
    pthread_join(x->thread, NULL);
    pthread_mutex_destroy(&x->lock);
    pthread_cond_destroy(&x->wake);
    free(x->path);
    free(x);
}

void rq_executor_queue(struct rq_executor *x, struct rq_sql_request *r)
{
    pthread_mutex_lock(&x->lock);
    list_put(&x->queue, r);
    const bool wakes = x->at_work == NOBODY && !x->answering;
    pthread_mutex_unlock(&x->lock);
    if (wakes) {
        pthread_cond_signal(&x->wake); /* without the lock, which the thread would find taken */
    }
}

/* With the lock.  Is a request that comes now the only one, as the one before it was? */
static bool may_be_carried(const struct rq_executor *x)
{
    return x->at_work == NOBODY && x->solitary && x->db != NULL && is_idle(x) && !has_work(x);
}

void rq_executor_carry(struct rq_executor *x, struct rq_sql_request *r)
{
    pthread_mutex_lock(&x->lock);
    if (!may_be_carried(x)) {
        pthread_mutex_unlock(&x->lock);
        rq_executor_queue(x, r);
        return;
    }
    x->at_work = CARRIER;
    list_put(&x->queue, r);
    do {
        struct news news;
        take_news(x, &news);
        pthread_mutex_unlock(&x->lock);
        work(x, &news, true);
        pthread_mutex_lock(&x->lock);
    } while (has_work(x) && x->queue.count + x->batch.count == 0 && !x->leaves); /* else the thread takes over */
    stop_work(x);
    const bool wakes = has_work(x);
    pthread_mutex_unlock(&x->lock);
    if (wakes) {
        pthread_cond_signal(&x->wake);
    }
}
