#include "raftd/db/direct_sink.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/db/identity.h"
#include "raftd/wire/bytes.h"

#define BATCH_BYTES (256u << 10) /* of pages that are handed over at once */

struct rq_direct_sink {
    struct rq_sink sink; /* first */
    atomic_uint refs;
    struct rq_database *db; /* counted */
    struct rq_disk *disk;   /* borrows, as staged_dir */
    const char *staged_dir;
    uint64_t session, seq; /* of the origins */
    uint64_t deadline_ms;

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t came;
    enum { NONE, PENDING, KNOWN } state;
    enum rq_err err; /* KNOWN, as what follows */
    uint64_t version;
    char text[RQ_DB_TEXT_BYTES];

    char told[RQ_DB_TEXT_BYTES]; /* text, as the connection was told: its own */
};

static struct rq_direct_sink *direct_of(struct rq_sink *sink)
{
    return (struct rq_direct_sink *)sink;
}

struct rq_direct_sink *rq_direct_sink_ref(struct rq_direct_sink *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void rq_direct_sink_unref(struct rq_direct_sink *s)
{
    if (s != NULL && atomic_fetch_sub(&s->refs, 1) == 1) {
        rq_database_unref(s->db);
        pthread_mutex_destroy(&s->lock);
        pthread_cond_destroy(&s->came);
        free(s);
    }
}

/* --- commit --------------------------------------------------------------------------------------------------------------- */

static void note(struct rq_direct_sink *s, enum rq_err err, uint64_t version, const char *text, size_t text_bytes)
{
    pthread_mutex_lock(&s->lock);
    s->state = KNOWN;
    s->err = err;
    s->version = version;
    (void)snprintf(s->text, sizeof s->text, "%.*s", (int)text_bytes, text);
    pthread_cond_broadcast(&s->came);
    pthread_mutex_unlock(&s->lock);
}

static void answered(struct rq_commit *c, const struct rq_msg_outcome *outcome)
{
    struct rq_direct_sink *s = c->ctx;
    note(s, outcome->err, outcome->version, outcome->text.data, outcome->text.bytes);
    rq_commit_free(c);
    rq_direct_sink_unref(s);
}

/* Copies the pages of the transaction. */
static enum rq_err add_pages(struct rq_direct_sink *s, const struct rq_sink_commit *commit, struct rq_commit *c,
                             const char **ret_text)
{
    const size_t record_bytes = commit->page_size + 4;
    struct rq_bytes batch;
    uint32_t last_pgno = 0, pgno;
    const uint8_t *page;
    uint8_t number[4];
    rq_bytes_init(&batch, BATCH_BYTES + record_bytes);
    enum rq_err err = RQ_OK;
    commit->pages->rewind(commit->pages->ctx);
    while (err == RQ_OK && (err = commit->pages->next(commit->pages->ctx, &pgno, &page)) == RQ_OK) {
        rq_put_u32(number, pgno);
        err = rq_bytes_put(&batch, number, sizeof number);
        err = err == RQ_OK ? rq_bytes_put(&batch, page, commit->page_size) : err;
        if (err == RQ_OK && batch.size >= BATCH_BYTES) {
            err = rq_commit_add_pages(c, s->disk, s->staged_dir, batch.data, batch.size, &last_pgno, ret_text);
            batch.size = 0;
        }
    }
    if (err == RQ_NOTFOUND) {
        err = RQ_OK;
        if (batch.size > 0) {
            err = rq_commit_add_pages(c, s->disk, s->staged_dir, batch.data, batch.size, &last_pgno, ret_text);
        }
    }
    rq_bytes_fini(&batch);
    return err == RQ_OK && last_pgno == 0 ? RQ_PROTOCOL : err;
}

/* ret_version: of the connection itself; NULL: somebody else asks. */
static enum rq_err await(struct rq_direct_sink *s, uint64_t deadline_ms, uint64_t *ret_version)
{
    const struct timespec until = { (time_t)(deadline_ms / 1000u), (long)(deadline_ms % 1000u) * 1000000 };
    int waited = 0;
    pthread_mutex_lock(&s->lock);
    while (s->state == PENDING && waited == 0) {
        waited = pthread_cond_clockwait(&s->came, &s->lock, CLOCK_MONOTONIC, &until);
    }
    const enum rq_err err = s->state == KNOWN ? s->err : s->state == PENDING ? RQ_UNKNOWN : RQ_NOTFOUND;
    if (ret_version != NULL) {
        *ret_version = s->version;
        memcpy(s->told, s->text, sizeof s->told);
    }
    pthread_mutex_unlock(&s->lock);
    return err;
}

enum rq_err rq_direct_sink_outcome(struct rq_direct_sink *s, uint64_t deadline_ms)
{
    return await(s, deadline_ms, NULL);
}

/* It does not come as far as the database. */
static enum rq_err fail(struct rq_direct_sink *s, enum rq_err err, const char *text)
{
    uint64_t version;
    note(s, err, 0, text, strlen(text));
    return await(s, 0, &version);
}

static enum rq_err sink_commit(struct rq_sink *sink, const struct rq_sink_commit *commit, uint64_t *ret_version)
{
    struct rq_direct_sink *s = direct_of(sink);
    const char *text = "";
    struct rq_commit *c;
    if (commit->db_id != rq_database_id(s->db)) {
        return fail(s, RQ_NOTFOUND, "the database was dropped");
    }
    enum rq_err err = rq_commit_new(&c);
    if (err != RQ_OK) {
        return fail(s, err, "");
    }
    c->origin = (struct rq_origin){ s->session, ++s->seq };
    c->base = commit->base;
    c->page_size = commit->page_size;
    c->db_page_count = commit->db_page_count;
    err = add_pages(s, commit, c, &text);
    if (err != RQ_OK) {
        rq_commit_free(c);
        return fail(s, err, text);
    }
    c->db = rq_database_ref(s->db);
    c->answer = answered;
    c->ctx = rq_direct_sink_ref(s);
    pthread_mutex_lock(&s->lock);
    s->state = PENDING;
    pthread_mutex_unlock(&s->lock);
    rq_database_commit(c);
    return await(s, s->deadline_ms, ret_version);
}
/* --- the rest of the sink ------------------------------------------------------------------------------------------------- */

static enum rq_err sink_open(struct rq_sink *sink, const char *name, bool create)
{
    (void)sink;
    (void)name;
    (void)create;
    return RQ_UNREADY; /* raftd makes control pages before it opens connections; this one is not there, or not yet again */
}

static enum rq_err sink_ready(struct rq_sink *sink, uint64_t *ret_session)
{
    *ret_session = direct_of(sink)->session;
    return RQ_OK;
}

static void sink_look(struct rq_sink *sink, uint32_t db_id)
{
    (void)db_id;
    rq_database_turn_look(direct_of(sink)->db);
}

static const char *sink_text(struct rq_sink *sink)
{
    return direct_of(sink)->told;
}

static void sink_close(struct rq_sink *sink)
{
    rq_direct_sink_unref(direct_of(sink));
}

static void sink_orphan(struct rq_sink *sink)
{
    (void)sink;
}

enum rq_err rq_direct_sink_new(struct rq_database *db, struct rq_disk *disk, const char *staged_dir,
                               struct rq_direct_sink **ret_sink)
{
    static const struct rq_sink_ops ops = {
        .open = sink_open,
        .ready = sink_ready,
        .commit = sink_commit,
        .look = sink_look,
        .text = sink_text,
        .close = sink_close,
        .orphan = sink_orphan,
    };
    struct rq_direct_sink *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    s->sink.ops = &ops;
    s->refs = 2;
    s->db = rq_database_ref(db);
    s->disk = disk;
    s->staged_dir = staged_dir;
    s->session = rq_random_id();
    s->deadline_ms = UINT64_MAX;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->came, NULL);
    *ret_sink = s;
    return RQ_OK;
}

struct rq_sink *rq_direct_sink_sink(struct rq_direct_sink *s)
{
    return &s->sink;
}

void rq_direct_sink_set_deadline(struct rq_direct_sink *s, uint64_t deadline_ms)
{
    s->deadline_ms = deadline_ms;
}
