/* Copy source: answers who copies databases from this member (copy_wire.h), each on a thread of its own.  copy_out.h is what it does.
 * While entries are applied here, it leaves them most of the machine. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/conduit.h"
#include "raftd/cluster/copy_wire.h"
#include "raftd/db/catalog.h"
#include "raftd/db/copy_out.h"
#include "raftd/run/pace.h"

#define SESSIONS_MAX 2u

struct session {
    struct rq_cluster *cluster;     /* borrows: it lives as long as the process */
    struct rq_conduit *conduit;     /* owns */
    struct rq_copy_out *copy;       /* owns; NULL: none is open */
    struct rq_copy_changed changed; /* the last answer */
    struct rq_bytes answer;
    uint64_t delivered; /* at the last answer */
};

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
    rq_copy_out_free(s->copy);
    s->copy = NULL;
    if (!rq_catalog_ready(s->cluster->catalog)) {
        return RQ_UNREADY;
    }
    struct rq_database *db = rq_catalog_find_id(s->cluster->catalog, id);
    if (db == NULL) {
        return RQ_NOTFOUND;
    }
    enum rq_err err = rq_copy_out_new(rq_disk_real(), db, &s->copy, &state, &origins);
    rq_database_unref(db);
    if (err == RQ_OK) {
        err = rq_copy_put_database(&s->answer, &state, &origins);
        rq_origins_fini(&origins);
    }
    return err;
}

static enum rq_err answer_hashes(struct session *s, const struct rq_copy_question *q)
{
    uint64_t *hashes = malloc(q->count * sizeof *hashes);
    enum rq_err err = hashes == NULL ? RQ_NOMEM : rq_bytes_reserve(&s->answer, q->count * sizeof *hashes);
    if (err == RQ_OK) {
        err = rq_copy_out_hashes(s->copy, (uint32_t)q->value, q->count, hashes);
    }
    for (uint32_t i = 0; err == RQ_OK && i < q->count; i++) {
        rq_put_u64(s->answer.data + s->answer.size, hashes[i]);
        s->answer.size += sizeof *hashes;
    }
    free(hashes);
    return err;
}

static enum rq_err answer_pages(struct session *s, const struct rq_copy_question *q)
{
    const size_t number_bytes = q->count * sizeof(uint32_t);
    uint8_t *bytes = malloc(number_bytes);
    uint32_t *pgnos = malloc(number_bytes);
    const uint64_t page_bytes = (uint64_t)q->count * rq_copy_out_page_size(s->copy);
    enum rq_err err =
        bytes == NULL || pgnos == NULL ? RQ_NOMEM : rq_conduit_read_exactly(s->conduit, bytes, number_bytes);
    if (err == RQ_OK && page_bytes > RQ_COPY_PAGES_BYTES && q->count > 1) {
        err = RQ_PROTOCOL;
    }
    for (uint32_t i = 0; err == RQ_OK && i < q->count; i++) {
        pgnos[i] = rq_get_u32(bytes + i * sizeof(uint32_t));
        err = pgnos[i] == 0 ? RQ_PROTOCOL : RQ_OK;
    }
    if (err == RQ_OK) {
        err = rq_bytes_reserve(&s->answer, (size_t)page_bytes);
    }
    if (err == RQ_OK) {
        err = rq_copy_out_pages(s->copy, pgnos, q->count, s->answer.data);
        s->answer.size = (size_t)page_bytes;
    }
    free(bytes);
    free(pgnos);
    return err;
}

static enum rq_err answer_changed(struct session *s, bool hold)
{
    enum rq_err err = rq_copy_out_changed(s->copy, hold, &s->changed);
    return err == RQ_OK ? rq_copy_put_changed(&s->answer, &s->changed) : err;
}

/* The last question of a copy: all pages were sent, so nothing has to be held for them any more. */
static enum rq_err answer_held(struct session *s)
{
    const struct rq_replica_state *state;
    const struct rq_origins *origins;
    if (!rq_copy_out_held(s->copy, &state, &origins)) {
        return RQ_PROTOCOL;
    }
    const enum rq_err err = rq_copy_put_database(&s->answer, state, origins);
    rq_copy_out_free(s->copy);
    s->copy = NULL;
    return err;
}

static enum rq_err answer_head(struct session *s, uint32_t id)
{
    struct rq_replica_state state = { .stamp = { .db_id = id } };
    struct rq_origins origins;
    if (!rq_catalog_ready(s->cluster->catalog)) {
        return RQ_UNREADY;
    }
    struct rq_database *db = rq_catalog_find_id(s->cluster->catalog, id);
    if (db == NULL) {
        return RQ_NOTFOUND;
    }
    enum rq_err err = rq_copy_out_head(db, &state.version, &origins);
    rq_database_unref(db);
    if (err == RQ_OK) {
        err = rq_copy_put_database(&s->answer, &state, &origins);
        rq_origins_fini(&origins);
    }
    return err;
}

static enum rq_err answer(struct session *s, const struct rq_copy_question *q)
{
    if (q->kind != RQ_COPY_PICTURE && q->kind != RQ_COPY_DATABASE && q->kind != RQ_COPY_HEAD && s->copy == NULL) {
        return RQ_PROTOCOL;
    }
    switch (q->kind) {
        case RQ_COPY_PICTURE:
            return answer_picture(s, q->value);
        case RQ_COPY_DATABASE:
            return answer_database(s, q->count);
        case RQ_COPY_HASHES:
            return answer_hashes(s, q);
        case RQ_COPY_PAGES:
            return answer_pages(s, q);
        case RQ_COPY_CHANGED:
            return answer_changed(s, q->value == 1);
        case RQ_COPY_HELD:
            return answer_held(s);
        case RQ_COPY_HEAD:
            return answer_head(s, q->count);
    }
    return RQ_PROTOCOL;
}

static bool others_work(struct session *s)
{
    const uint64_t before = s->delivered;
    s->delivered = rq_driver_view(atomic_load(&s->cluster->driver)).delivered;
    return s->delivered != before;
}

/* One question.  An error ends the session: the stream is lost, or what came makes no sense. */
static enum rq_err serve_one(struct session *s)
{
    uint8_t asked[RQ_COPY_QUESTION_BYTES], head[RQ_COPY_ANSWER_BYTES];
    struct rq_copy_question q;
    struct rq_pace pace;
    enum rq_err err = rq_conduit_read_exactly(s->conduit, asked, sizeof asked);
    if (err == RQ_OK) {
        err = rq_copy_get_question(asked, &q);
    }
    if (err != RQ_OK) {
        return err;
    }
    s->answer.size = 0;
    rq_pace_begin(&pace);
    const enum rq_err said = answer(s, &q);
    rq_pace_end(&pace, others_work(s));
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
    rq_copy_out_free(s->copy);
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
