#include "raftd/cluster/marks.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/db/catalog.h"
#include "raftd/run/clock.h"

#define HELD_MAX     8u
#define KEEP_MS      10000u     /* since it was asked about last */
#define LOOK_MS      1000u      /* is it to be let go? */
#define PACE_BYTES   (1u << 20) /* read in one go, each PACE_MS, while hashes are made: as the scrub */
#define PACE_MS      100u
#define ANSWER_BYTES (256u << 10) /* of pages, or one */

struct held {
    struct rq_database *db; /* counted; NULL: a free place */
    uint64_t index;
    struct rq_view *view; /* owns; NULL: let go, or it never was */
    bool compared;        /* a mark to compare at: only hashes are told */
    uint64_t *hashes;     /* owns; NULL: not made */
    uint32_t first, count;
    unsigned users; /* threads that read the view: it stays */
    uint64_t used_ms;
};

struct asked {
    struct asked *next;
    struct rq_call *call;
    struct rq_ask ask;
};

struct rq_marks {
    struct rq_cluster *cluster; /* borrows: it lives as long as the process */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct held held[HELD_MAX]; /* guarded by lock, as what follows */
    struct asked *first, *last;
};

/* --- what is held; with the lock ------------------------------------------------------------------------------------------ */

/* What has to be let go without the lock. */
struct gone {
    struct rq_database *db;
    struct rq_view *view;
};

static struct gone let_go(struct held *h)
{
    const struct gone gone = { h->db, h->view };
    free(h->hashes);
    *h = (struct held){ 0 };
    return gone;
}

static void gone_free(struct gone gone)
{
    rq_view_free(gone.view);
    if (gone.db != NULL) {
        rq_database_unref(gone.db);
    }
}

static struct held *find(struct rq_marks *m, uint32_t id, uint64_t index)
{
    for (unsigned i = 0; i < HELD_MAX; i++) {
        if (m->held[i].db != NULL && rq_database_id(m->held[i].db) == id && m->held[i].index == index) {
            return &m->held[i];
        }
    }
    return NULL;
}

/* A free place, or that which nobody has asked about for longest; NULL: all are read now. */
static struct held *place_for_one(struct rq_marks *m)
{
    struct held *best = NULL;
    for (unsigned i = 0; i < HELD_MAX; i++) {
        struct held *h = &m->held[i];
        if (h->users == 0 && (best == NULL || (best->db != NULL && (h->db == NULL || h->used_ms < best->used_ms)))) {
            best = h;
        }
    }
    return best;
}

void rq_marks_take(struct rq_marks *m, struct rq_database *db, const struct rq_entry_mark *mark, uint64_t index,
                   struct rq_view *view)
{
    struct gone gone = { .view = view };
    pthread_mutex_lock(&m->lock);
    struct held *h = place_for_one(m);
    if (h != NULL) {
        gone = let_go(h);
        *h = (struct held){ .db = rq_database_ref(db),
                            .index = index,
                            .view = view,
                            .compared = mark->count > 0,
                            .used_ms = rq_clock_ms() };
    }
    pthread_mutex_unlock(&m->lock);
    gone_free(gone);
}

static void let_old_ones_go(struct rq_marks *m)
{
    struct gone gone[HELD_MAX];
    unsigned count = 0;
    const uint64_t now = rq_clock_ms();
    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < HELD_MAX; i++) {
        struct held *h = &m->held[i];
        if (h->db != NULL && h->users == 0 && now - h->used_ms > KEEP_MS) {
            gone[count++] = let_go(h);
        }
    }
    pthread_mutex_unlock(&m->lock);
    while (count > 0) {
        gone_free(gone[--count]);
    }
}

/* --- hashes to compare ----------------------------------------------------------------------------------------------------- */

static enum rq_err make_hashes(struct rq_view *view, struct rq_database *db, uint32_t first, uint32_t count,
                               uint64_t *hashes)
{
    const uint32_t most = PACE_BYTES / view->state.page_size;
    enum rq_err err = RQ_OK;
    for (uint32_t done = 0; err == RQ_OK && done < count;) {
        const uint32_t some = count - done < most ? count - done : most;
        err = rq_view_hashes(view, db, first + done, some, hashes + done);
        done += some;
        if (done < count) {
            nanosleep(&(struct timespec){ .tv_nsec = PACE_MS * 1000000l }, NULL);
        }
    }
    return err;
}

static uint32_t pages_from(const struct rq_view *view, const struct rq_entry_mark *mark)
{
    const uint32_t pages = view->state.page_count;
    const uint32_t left = mark->first > pages ? 0 : pages - mark->first + 1;
    return left < mark->count ? left : mark->count;
}

enum rq_err rq_marks_compare(struct rq_marks *m, const struct rq_entry_mark *mark, uint64_t index,
                             uint64_t ret_hashes[RQ_MARK_PAGES_MAX], uint32_t *ret_count)
{
    pthread_mutex_lock(&m->lock);
    struct held *h = find(m, mark->db_id, index);
    struct rq_view *view = h != NULL ? h->view : NULL;
    if (view != NULL) {
        h->users++;
    }
    pthread_mutex_unlock(&m->lock);
    if (view == NULL) {
        return h == NULL ? RQ_NOTFOUND : RQ_QUARANTINED;
    }
    const uint32_t count = pages_from(view, mark);
    enum rq_err err = make_hashes(view, h->db, mark->first, count, ret_hashes);
    uint64_t *kept = err == RQ_OK ? malloc((count + (size_t)1) * sizeof *kept) : NULL;
    if (kept != NULL) {
        memcpy(kept, ret_hashes, count * sizeof *kept);
    }
    rq_view_free(view); /* as long as the place is ours, and with it the database */
    pthread_mutex_lock(&m->lock);
    h->view = NULL;
    h->hashes = kept;
    h->first = mark->first;
    h->count = count;
    h->users--;
    h->used_ms = rq_clock_ms();
    pthread_mutex_unlock(&m->lock);
    *ret_count = count;
    return err;
}

/* --- what others ask ------------------------------------------------------------------------------------------------------- */

static enum rq_err tell_state(const struct rq_view *view, struct rq_bytes *reply)
{
    const struct rq_ask_state state = {
        .version = view->state.version,
        .stamp_index = view->state.stamp.index,
        .stamp_term = view->state.stamp.term,
        .page_size = view->state.page_size,
        .page_count = view->state.page_count,
    };
    return rq_ask_put_state(reply, &state);
}

static enum rq_err tell_hashes(struct rq_view *view, struct rq_database *db, const struct rq_ask *ask,
                               struct rq_bytes *reply)
{
    uint64_t *hashes = malloc(ask->mark.count * sizeof *hashes);
    enum rq_err err = hashes == NULL ? RQ_NOMEM : rq_view_hashes(view, db, ask->mark.first, ask->mark.count, hashes);
    if (err == RQ_OK) {
        err = rq_ask_put_hashes(reply, hashes, ask->mark.count);
    }
    free(hashes);
    return err;
}

static enum rq_err tell_pages(struct rq_view *view, struct rq_database *db, const struct rq_ask *ask,
                              struct rq_bytes *reply)
{
    const size_t page_size = view->state.page_size, bytes = ask->mark.count * page_size;
    if (bytes > ANSWER_BYTES && ask->mark.count > 1) {
        return RQ_TOOBIG;
    }
    uint8_t *pages = malloc(bytes);
    enum rq_err err = pages == NULL ? RQ_NOMEM : RQ_OK;
    for (uint32_t i = 0; err == RQ_OK && i < ask->mark.count; i++) {
        err = rq_view_page(view, db, ask->mark.first + i, pages + i * page_size);
    }
    if (err == RQ_OK) {
        err = rq_ask_put_pages(reply, pages, (uint32_t)bytes);
    }
    free(pages);
    return err;
}

static enum rq_err tell(struct rq_view *view, struct rq_database *db, const struct rq_ask *ask, struct rq_bytes *reply)
{
    switch ((int)ask->kind) {
        case RQ_ASK_STATE:
            return tell_state(view, reply);
        case RQ_ASK_HASHES:
            return tell_hashes(view, db, ask, reply);
        default:
            return tell_pages(view, db, ask, reply);
    }
}

/* Not held: will it be? */
static enum rq_err why_not(const struct rq_marks *m, const struct rq_ask *ask)
{
    struct rq_database_info info;
    struct rq_cluster *c = m->cluster;
    if (rq_driver_view(atomic_load(&c->driver)).delivered < ask->mark.index) {
        return RQ_UNREADY;
    }
    struct rq_database *db = rq_catalog_find_id(c->catalog, ask->mark.db_id);
    if (db == NULL) {
        return RQ_NOTFOUND;
    }
    rq_database_info(db, &info);
    rq_database_unref(db);
    return info.applied_index < ask->mark.index ? RQ_UNREADY : RQ_NOTFOUND;
}

/* With the lock: the hashes that were made to be compared. */
static enum rq_err tell_compared(const struct held *h, const struct rq_ask *ask, struct rq_bytes *reply)
{
    if (h->hashes == NULL) {
        return h->view != NULL ? RQ_UNREADY : RQ_QUARANTINED;
    }
    if (ask->kind != RQ_ASK_HASHES || ask->mark.first != h->first || ask->mark.count < h->count) {
        return RQ_PROTOCOL;
    }
    return rq_ask_put_hashes(reply, h->hashes, h->count);
}

static enum rq_err answer(struct rq_marks *m, const struct rq_ask *ask, struct rq_bytes *reply)
{
    enum rq_err err = RQ_OK;
    struct rq_view *view = NULL;
    pthread_mutex_lock(&m->lock);
    struct held *h = find(m, ask->mark.db_id, ask->mark.index);
    if (h != NULL) {
        h->used_ms = rq_clock_ms();
        if (h->compared) {
            err = tell_compared(h, ask, reply);
        } else if (h->view == NULL) {
            err = RQ_QUARANTINED;
        } else {
            view = h->view;
            h->users++;
        }
    }
    pthread_mutex_unlock(&m->lock);
    if (h == NULL) {
        return why_not(m, ask);
    }
    if (view != NULL) {
        err = tell(view, h->db, ask, reply);
        pthread_mutex_lock(&m->lock);
        h->users--;
        pthread_mutex_unlock(&m->lock);
    }
    return err;
}

static void serve(struct rq_marks *m, struct asked *a)
{
    struct rq_bytes reply;
    rq_bytes_init(&reply, RQ_CLUSTER_REPLY_MAX);
    const enum rq_err err = answer(m, &a->ask, &reply);
    rq_cluster_reply(a->call, &reply, err);
    free(a);
}

void rq_marks_asked(struct rq_marks *m, struct rq_call *call, const struct rq_ask *ask)
{
    struct asked *a = malloc(sizeof *a);
    if (a == NULL) {
        rq_call_fail(call, RQ_NOMEM, "");
        return;
    }
    *a = (struct asked){ NULL, call, *ask };
    pthread_mutex_lock(&m->lock);
    if (m->first == NULL) {
        m->first = a;
    } else {
        m->last->next = a;
    }
    m->last = a;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
}

static struct asked *next_asked(struct rq_marks *m)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LOOK_MS / 1000;
    pthread_mutex_lock(&m->lock);
    for (int waited = 0; m->first == NULL && waited == 0;) {
        waited = pthread_cond_timedwait(&m->wake, &m->lock, &until);
    }
    struct asked *a = m->first;
    if (a != NULL) {
        m->first = a->next;
    }
    pthread_mutex_unlock(&m->lock);
    return a;
}

static void *marks_thread(void *arg)
{
    struct rq_marks *m = arg;
    for (;;) {
        struct asked *a = next_asked(m);
        if (a != NULL) {
            serve(m, a);
        }
        let_old_ones_go(m);
    }
    return NULL;
}

enum rq_err rq_marks_new(struct rq_cluster *c, struct rq_marks **ret_marks)
{
    pthread_t thread;
    pthread_condattr_t attr;
    struct rq_marks *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return RQ_NOMEM;
    }
    m->cluster = c;
    pthread_mutex_init(&m->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&m->wake, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&thread, NULL, marks_thread, m) != 0) {
        pthread_cond_destroy(&m->wake);
        pthread_mutex_destroy(&m->lock);
        free(m);
        return RQ_NOMEM;
    }
    (void)pthread_detach(thread);
    *ret_marks = m;
    return RQ_OK;
}
