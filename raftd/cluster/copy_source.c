/* Copy source: answers who copies databases from this member (copy_wire.h), each on a thread of its own.
 *
 * The database that is being copied is held still by a reader's snapshot, so its WAL cannot begin anew meanwhile. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/conduit.h"
#include "raftd/cluster/copy_wire.h"
#include "raftd/db/catalog.h"
#include "raftd/ops/journal.h"
#include "raftd/wire/txn.h"
#include "vfs/snapshot.h"

#define SESSIONS_MAX 2u

struct session {
    struct rq_cluster *cluster; /* borrows: it lives as long as the process */
    struct rq_conduit *conduit; /* owns */
    struct rq_database *db;     /* counted; NULL: none is open */
    bool reading;               /* the snapshot is active */
    struct rq_snapshot snapshot;
    struct rq_bytes answer;
};

static void close_database(struct session *s)
{
    if (s->reading) {
        rq_snapshot_end(&s->snapshot, false);
        s->reading = false;
    }
    rq_snapshot_fini(&s->snapshot);
    if (s->db != NULL) {
        rq_database_unref(s->db);
        s->db = NULL;
    }
}

static enum rq_err answer_picture(struct session *s, uint64_t index)
{
    char text[512];
    struct rq_cluster *c = s->cluster;
    struct rq_descriptor d;
    if (!rq_catalog_ready(c->catalog) || rq_driver_view(atomic_load(&c->driver)).delivered < index) {
        return RQ_UNREADY;
    }
    enum rq_err err = rq_catalog_picture(c->catalog, &d, text);
    if (err == RQ_OK) {
        err = rq_copy_put_picture(&s->answer, &d);
        rq_descriptor_fini(&d);
    }
    return err;
}

static enum rq_err answer_database(struct session *s, uint32_t id)
{
    struct rq_replica_state state;
    struct rq_origins origins;
    close_database(s);
    if (!rq_catalog_ready(s->cluster->catalog)) {
        return RQ_UNREADY;
    }
    s->db = rq_catalog_find_id(s->cluster->catalog, id);
    if (s->db == NULL) {
        return RQ_NOTFOUND;
    }
    rq_snapshot_init(&s->snapshot, rq_disk_real());
    enum rq_err err = rq_database_view(s->db, &s->snapshot, &state, &origins);
    if (err != RQ_OK) {
        return err;
    }
    s->reading = state.version > 0;
    err = rq_copy_put_database(&s->answer, &state, &origins);
    rq_origins_fini(&origins);
    return err;
}

/* Damage is not passed on: here it fences the database. */
static enum rq_err verify(struct session *s, uint32_t pgno, const uint8_t *page)
{
    char text[RQ_DB_TEXT_BYTES];
    struct rq_replica *r = rq_database_hold(s->db);
    enum rq_err err = r != NULL ? rq_replica_verify(r, pgno, page) : RQ_QUARANTINED;
    rq_database_release(s->db);
    if (err == RQ_CORRUPT) {
        (void)snprintf(text, sizeof text, "changed behind raftd's back: page %u was changed", pgno);
        rq_database_quarantine(s->db, text);
        err = RQ_QUARANTINED;
    }
    return err;
}

static enum rq_err read_page(struct session *s, uint32_t pgno, uint8_t *page)
{
    enum rq_err err = rq_snapshot_read(&s->snapshot, pgno, 0, page, s->snapshot.page_size);
    if (err == RQ_OK) {
        err = verify(s, pgno, page);
    }
    if (err == RQ_OK && pgno == 1) {
        rq_page1_normalise(page);
    }
    return err;
}

static enum rq_err answer_hashes(struct session *s, const struct rq_copy_question *q)
{
    if (!s->reading || q->value + q->count - 1 > s->snapshot.page_count) {
        return RQ_PROTOCOL;
    }
    uint8_t *page = malloc(s->snapshot.page_size);
    enum rq_err err = page == NULL ? RQ_NOMEM : rq_bytes_reserve(&s->answer, q->count * sizeof(uint64_t));
    for (uint32_t i = 0; err == RQ_OK && i < q->count; i++) {
        err = read_page(s, (uint32_t)q->value + i, page);
        if (err == RQ_OK) {
            rq_put_u64(s->answer.data + s->answer.size, rq_page_hash(page, s->snapshot.page_size));
            s->answer.size += sizeof(uint64_t);
        }
    }
    free(page);
    return err;
}

static enum rq_err answer_pages(struct session *s, const struct rq_copy_question *q)
{
    uint8_t *numbers = malloc(q->count * sizeof(uint32_t));
    enum rq_err err =
        numbers == NULL ? RQ_NOMEM : rq_conduit_read_exactly(s->conduit, numbers, q->count * sizeof(uint32_t));
    const uint64_t bytes = s->reading ? (uint64_t)q->count * s->snapshot.page_size : 0;
    if (err == RQ_OK && (bytes == 0 || (bytes > RQ_COPY_PAGES_BYTES && q->count > 1))) {
        err = RQ_PROTOCOL;
    }
    if (err == RQ_OK) {
        err = rq_bytes_reserve(&s->answer, (size_t)bytes);
    }
    for (uint32_t i = 0; err == RQ_OK && i < q->count; i++) {
        const uint32_t pgno = rq_get_u32(numbers + i * sizeof(uint32_t));
        err = pgno == 0 || pgno > s->snapshot.page_count ? RQ_PROTOCOL
                                                         : read_page(s, pgno, s->answer.data + s->answer.size);
        s->answer.size += err == RQ_OK ? s->snapshot.page_size : 0;
    }
    free(numbers);
    return err;
}

static enum rq_err answer(struct session *s, const struct rq_copy_question *q)
{
    switch (q->kind) {
        case RQ_COPY_PICTURE:
            return answer_picture(s, q->value);
        case RQ_COPY_DATABASE:
            return answer_database(s, q->count);
        case RQ_COPY_HASHES:
            return answer_hashes(s, q);
        case RQ_COPY_PAGES:
            return answer_pages(s, q);
    }
    return RQ_PROTOCOL;
}

/* One question.  An error ends the session: the stream is lost, or what came makes no sense. */
static enum rq_err serve_one(struct session *s)
{
    uint8_t asked[RQ_COPY_QUESTION_BYTES], head[RQ_COPY_ANSWER_BYTES];
    struct rq_copy_question q;
    enum rq_err err = rq_conduit_read_exactly(s->conduit, asked, sizeof asked);
    if (err == RQ_OK) {
        err = rq_copy_get_question(asked, &q);
    }
    if (err != RQ_OK) {
        return err;
    }
    s->answer.size = 0;
    const enum rq_err said = answer(s, &q);
    if (said != RQ_OK) {
        const char *text = rq_err_text(said);
        s->answer.size = 0;
        err = rq_bytes_put(&s->answer, text, strlen(text));
    }
    if (err == RQ_OK) {
        rq_copy_put_answer(head, &(struct rq_copy_answer){ said, (uint32_t)s->answer.size });
        err = rq_conduit_write(s->conduit, head, sizeof head);
    }
    return err == RQ_OK ? rq_conduit_write(s->conduit, s->answer.data, s->answer.size) : err;
}

static void *session_thread(void *arg)
{
    struct session *s = arg;
    while (serve_one(s) == RQ_OK) {
    }
    close_database(s);
    rq_conduit_free(s->conduit);
    rq_bytes_fini(&s->answer);
    atomic_fetch_sub(&s->cluster->copy_sessions, 1);
    free(s);
    return NULL;
}

enum rq_err rq_cluster_asked_copy(struct rq_cluster *c, struct rq_stream *stream, const struct rq_stream_ops **ret_ops,
                                  void **ret_ctx)
{
    pthread_t thread;
    if (atomic_load(&c->driver) == NULL) {
        return RQ_UNREADY;
    }
    struct session *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    enum rq_err err = atomic_fetch_add(&c->copy_sessions, 1) < SESSIONS_MAX ? RQ_OK : RQ_BUSY;
    if (err == RQ_OK) {
        err = rq_conduit_accept(stream, ret_ops, ret_ctx, &s->conduit);
    }
    if (err == RQ_OK) {
        s->cluster = c;
        rq_snapshot_init(&s->snapshot, rq_disk_real());
        rq_bytes_init(&s->answer, RQ_COPY_ANSWER_MAX);
        if (pthread_create(&thread, NULL, session_thread, s) == 0) {
            (void)pthread_detach(thread);
            return RQ_OK;
        }
        rq_conduit_free(s->conduit); /* taken, and given up: the other side asks somebody else */
    }
    atomic_fetch_sub(&c->copy_sessions, 1);
    free(s);
    return err;
}
