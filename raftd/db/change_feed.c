#include "raftd/db/change_feed.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/db/change_records.h"
#include "raftd/db/change_tables.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "vfs/snapshot.h"

#define KEPT_MAX        65536u     /* changes */
#define NAMES_BYTES_MAX (8u << 20) /* of their tables */
#define PAST_ENTRIES    16384u     /* of the log, that a new feed begins with */
#define WARM_MS         600000u    /* without listeners */
#define LOOK_MS         1000u      /* whether the database is still there */
#define BEAT_MS         15000u
#define AGAIN_MS        50u /* when it could not be read */

enum { STAMP_INDEX_AT = 80 };

/* A change that is kept. */
struct kept {
    uint64_t base, version, index, time_ms;
    struct rq_table_names *names; /* counted; NULL: not known */
};

struct rq_feed {
    struct rq_feeds *feeds; /* borrows */
    struct rq_feed *next;   /* guarded by the lock of feeds */
    struct rq_database *db; /* counted */
    sem_t wake;
    atomic_bool stirred;

    /* The thread's. */
    char *path;
    struct rq_snapshot snapshot;
    uint64_t index; /* of the entry that made the version */
    struct rq_change_records records;
    struct rq_change_tables *tables;
    uint64_t alone_since_ms; /* 0: somebody listens */

    pthread_mutex_t lock; /* guards what follows */
    bool ready, gone;
    uint64_t version;
    uint64_t broken;   /* below it nothing is known that leads up to it: the state came from elsewhere */
    struct kept *ring; /* owns: KEPT_MAX, once there is one */
    size_t first, count;
    size_t names_bytes;
    struct rq_feed_listener *listeners;
};

struct rq_feeds {
    struct rq_feeds_config config;
    pthread_mutex_t lock;
    struct rq_feed *list;
    struct rq_feeds_count count;
    atomic_bool stops;
};

/* --- what is kept; lock held ------------------------------------------------------------------------------------------------ */

static struct kept *kept_at(const struct rq_feed *f, size_t i)
{
    return &f->ring[(f->first + i) % KEPT_MAX];
}

static uint64_t oldest(const struct rq_feed *f)
{
    return f->count > 0 ? kept_at(f, 0)->base : f->version;
}

static void forget_first(struct rq_feed *f)
{
    struct kept *k = kept_at(f, 0);
    f->names_bytes -= k->names != NULL ? k->names->bytes : 0;
    rq_table_names_unref(k->names);
    f->first = (f->first + 1) % KEPT_MAX;
    f->count--;
}

static void forget_all(struct rq_feed *f)
{
    while (f->count > 0) {
        forget_first(f);
    }
}

static void keep(struct rq_feed *f, const struct kept *k)
{
    f->names_bytes += k->names != NULL ? k->names->bytes : 0;
    while (f->count == KEPT_MAX || (f->count > 0 && f->names_bytes > NAMES_BYTES_MAX)) {
        forget_first(f);
    }
    f->count++;
    *kept_at(f, f->count - 1) = *k;
}

/* The first one above version; count: none. */
static size_t find_above(const struct rq_feed *f, uint64_t version)
{
    size_t low = 0, high = f->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (kept_at(f, middle)->version > version) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void stir_all(struct rq_feed *f)
{
    for (struct rq_feed_listener *l = f->listeners; l != NULL; l = l->next) {
        l->stir(l);
    }
}

/* --- the thread: from a state to the next one -------------------------------------------------------------------------------- */

static enum rq_err read_page(void *ctx, uint32_t pgno, uint8_t *page, uint32_t bytes)
{
    return rq_snapshot_read(&((struct rq_feed *)ctx)->snapshot, pgno, 0, page, bytes);
}

static enum rq_err begin_snapshot(struct rq_feed *f)
{
    enum rq_err err = f->snapshot.control == NULL ? rq_snapshot_open(&f->snapshot) : RQ_OK;
    if (err == RQ_OK) {
        err = rq_snapshot_begin(&f->snapshot);
    }
    if (err == RQ_OK && f->snapshot.db_id != rq_database_id(f->db)) {
        rq_snapshot_end(&f->snapshot, false);
        err = RQ_FOREIGN; /* the next one of that name */
    }
    return err;
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* Takes the names. */
static void tell(struct rq_feed *f, struct rq_table_names **names, uint64_t time_ms)
{
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->records.count; i++) {
        const struct rq_change_record *r = &f->records.list[i];
        keep(f, &(struct kept){ r->base, r->version, r->index, time_ms, names[i] });
    }
    f->version = f->snapshot.version;
    f->ready = true;
    stir_all(f);
    pthread_mutex_unlock(&f->lock);
}

/* Which records led to the snapshot's state.  NOTFOUND: the log does not say. */
static enum rq_err read_records(struct rq_feed *f, uint64_t index, bool first)
{
    const struct rq_feeds_config *c = &f->feeds->config;
    const struct rq_change_source source = { c->driver, c->disk, c->staged_dir, rq_database_id(f->db) };
    const uint64_t after = !first ? f->index : index > PAST_ENTRIES ? index - PAST_ENTRIES : 0;
    enum rq_err err = rq_change_records_read(&f->records, &source, after, index);
    if (err == RQ_OK && first) {
        rq_change_records_trace(&f->records, f->snapshot.version, index);
    } else if (err == RQ_OK) {
        err = rq_change_records_follow(&f->records, f->version, f->snapshot.version);
    }
    return err;
}

/* The state came from another member, or the log was compacted meanwhile. */
static void break_off(struct rq_feed *f)
{
    pthread_mutex_lock(&f->lock);
    forget_all(f);
    f->broken = f->version = f->snapshot.version;
    pthread_mutex_unlock(&f->lock);
    f->records.count = 0;
    rq_change_tables_restart(f->tables);
}

/* To the state of the snapshot. */
static enum rq_err follow(struct rq_feed *f)
{
    const bool first = !f->ready; /* nobody else writes it */
    const uint64_t index = f->snapshot.empty ? 0 : rq_get_u64(f->snapshot.page1 + STAMP_INDEX_AT);
    enum rq_err err = RQ_OK;
    if (!first && f->snapshot.version == f->version) {
        return RQ_OK;
    }
    err = read_records(f, index, first);
    if (err == RQ_NOTFOUND) {
        break_off(f);
        err = RQ_OK;
    }
    if (err != RQ_OK) {
        return err;
    }
    struct rq_table_names **names = malloc((f->records.count + 1) * sizeof *names);
    if (names == NULL) {
        return RQ_NOMEM;
    }
    const struct rq_page_view view = { f, f->snapshot.page_size, f->snapshot.page_count, read_page };
    (void)rq_change_tables_find(f->tables, &view, &f->records, names); /* what it does not find is not known */
    f->index = index;
    tell(f, names, first ? 0 : now_ms());
    free(names);
    return RQ_OK;
}

/* False: it is gone. */
static bool is_there(struct rq_feed *f)
{
    struct rq_database *db = rq_catalog_find_id(f->feeds->config.catalog, rq_database_id(f->db));
    if (db != NULL) {
        rq_database_unref(db);
    }
    return db != NULL;
}

static void stir_now(struct rq_feed *f, bool gone)
{
    pthread_mutex_lock(&f->lock);
    f->gone = gone;
    stir_all(f);
    pthread_mutex_unlock(&f->lock);
}

static void sleep_until(struct rq_feed *f, unsigned wait_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000u;
    until.tv_nsec += (long)(wait_ms % 1000u) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (sem_clockwait(&f->wake, CLOCK_MONOTONIC, &until) != 0 && errno == EINTR) {
    }
}

static void wake(struct rq_feed *f)
{
    if (!atomic_exchange(&f->stirred, true)) {
        (void)sem_post(&f->wake);
    }
}

static void on_changed(void *ctx)
{
    wake(ctx);
}

/* Nobody has listened for so long, or the database is gone, or raftd ends: true, and nobody can join any more. */
static bool ends(struct rq_feed *f)
{
    struct rq_feeds *s = f->feeds;
    pthread_mutex_lock(&s->lock);
    pthread_mutex_lock(&f->lock);
    const bool alone = f->listeners == NULL;
    const bool over = f->gone || atomic_load(&s->stops);
    pthread_mutex_unlock(&f->lock);
    if (!alone) {
        f->alone_since_ms = 0;
    } else if (f->alone_since_ms == 0) {
        f->alone_since_ms = rq_clock_ms();
    }
    const bool ended = alone && (over || rq_clock_ms() - f->alone_since_ms >= WARM_MS);
    if (ended) {
        struct rq_feed **at = &s->list;
        while (*at != f) {
            at = &(*at)->next;
        }
        *at = f->next;
    }
    pthread_mutex_unlock(&s->lock);
    return ended;
}

static void feed_free(struct rq_feed *f)
{
    forget_all(f);
    free(f->ring);
    free(f->path);
    rq_change_records_fini(&f->records);
    rq_change_tables_free(f->tables);
    rq_snapshot_end(&f->snapshot, false);
    rq_snapshot_fini(&f->snapshot);
    pthread_mutex_destroy(&f->lock);
    (void)sem_destroy(&f->wake);
    rq_database_unref(f->db);
    free(f);
}

static void *run_feed(void *arg)
{
    struct rq_feed *f = arg;
    struct rq_feeds *s = f->feeds;
    enum rq_err told = RQ_OK;
    uint64_t looked_ms = 0, beat_ms = rq_clock_ms();
    rq_database_watch(f->db, on_changed, f);
    while (!ends(f)) {
        atomic_store(&f->stirred, false); /* what comes from now on wakes it again */
        enum rq_err err = f->gone ? RQ_OK : begin_snapshot(f);
        if (err == RQ_OK && !f->gone) {
            err = follow(f);
            rq_snapshot_end(&f->snapshot, false);
        }
        const uint64_t now = rq_clock_ms();
        if (!f->gone && (err != RQ_OK || now >= looked_ms + LOOK_MS)) {
            looked_ms = now;
            if (!is_there(f)) {
                stir_now(f, true);
            }
        }
        if (now >= beat_ms + BEAT_MS) {
            beat_ms = now;
            stir_now(f, f->gone);
        }
        if (err != RQ_OK && !f->gone && err != told && err != RQ_QUARANTINED && err != RQ_BUSY) {
            rq_note(RQ_LEVEL_WARN, "changes of a database cannot be followed for now", "id=%u err=%s",
                    rq_database_id(f->db), rq_err_name(err));
            told = err;
        }
        sleep_until(f, err != RQ_OK && !f->gone ? AGAIN_MS : LOOK_MS);
    }
    rq_database_watch(f->db, NULL, NULL);
    feed_free(f);
    pthread_mutex_lock(&s->lock);
    s->count.feeds--;
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* --- joining and leaving ----------------------------------------------------------------------------------------------------- */

/* Lock of s held.  NULL: no memory, or no thread. */
static struct rq_feed *feed_new(struct rq_feeds *s, struct rq_database *db)
{
    pthread_attr_t detached;
    pthread_t thread;
    struct rq_feed *f = calloc(1, sizeof *f);
    if (f == NULL) {
        return NULL;
    }
    pthread_mutex_init(&f->lock, NULL);
    (void)sem_init(&f->wake, 0, 0);
    rq_change_records_init(&f->records);
    rq_snapshot_init(&f->snapshot, s->config.disk);
    f->feeds = s;
    f->db = rq_database_ref(db);
    f->ring = malloc(KEPT_MAX * sizeof *f->ring); /* touched as it fills */
    const bool named = asprintf(&f->path, "%s/%s", s->config.dir, rq_database_name(db)) >= 0;
    f->path = named ? f->path : NULL;
    f->snapshot.path = f->path;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    const bool made = named && f->ring != NULL && rq_change_tables_new(&f->tables) == RQ_OK &&
                      pthread_create(&thread, &detached, run_feed, f) == 0;
    pthread_attr_destroy(&detached);
    if (!made) {
        feed_free(f);
        return NULL;
    }
    f->next = s->list;
    s->list = f;
    s->count.feeds++;
    return f;
}

enum rq_err rq_feed_join(struct rq_feeds *s, struct rq_database *db, struct rq_feed_listener *l)
{
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&s->lock);
    struct rq_feed *f = s->list;
    while (f != NULL && f->db != db) {
        f = f->next;
    }
    if (atomic_load(&s->stops)) {
        err = RQ_SHUTDOWN;
    } else if (s->count.listeners >= RQ_FEED_LISTENER_MAX || (f == NULL && s->count.feeds >= RQ_FEEDS_MAX)) {
        err = RQ_FULL;
    } else if (f == NULL) {
        f = feed_new(s, db);
        err = f == NULL ? RQ_NOMEM : RQ_OK;
    }
    if (err == RQ_OK) {
        s->count.listeners++;
        l->feed = f;
        pthread_mutex_lock(&f->lock);
        l->previous = NULL;
        l->next = f->listeners;
        if (l->next != NULL) {
            l->next->previous = l;
        }
        f->listeners = l;
        pthread_mutex_unlock(&f->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return err;
}

void rq_feed_leave(struct rq_feeds *s, struct rq_feed_listener *l)
{
    struct rq_feed *f = l->feed;
    pthread_mutex_lock(&s->lock);
    pthread_mutex_lock(&f->lock);
    if (l->previous != NULL) {
        l->previous->next = l->next;
    } else {
        f->listeners = l->next;
    }
    if (l->next != NULL) {
        l->next->previous = l->previous;
    }
    wake(f); /* while it cannot end */
    pthread_mutex_unlock(&f->lock);
    s->count.listeners--;
    pthread_mutex_unlock(&s->lock);
}

/* --- listening ----------------------------------------------------------------------------------------------------------------- */

struct rq_feed_range rq_feed_range(struct rq_feed_listener *l)
{
    struct rq_feed *f = l->feed;
    pthread_mutex_lock(&f->lock);
    const struct rq_feed_range range = {
        .ready = f->ready,
        .gone = f->gone,
        .stops = atomic_load(&f->feeds->stops),
        .oldest = oldest(f),
        .version = f->version,
    };
    pthread_mutex_unlock(&f->lock);
    return range;
}

/* Lock held. */
static enum rq_feed_answer take(struct rq_feed *f, struct rq_feed_listener *l, struct rq_change *ret_change,
                                struct rq_bytes *tables)
{
    if (f->gone) {
        return RQ_FEED_GONE;
    }
    if (!f->ready || l->version >= f->version) {
        return atomic_load(&f->feeds->stops) ? RQ_FEED_STOPS : RQ_FEED_NOTHING;
    }
    if (l->version < f->broken) {
        l->version = f->broken;
        return RQ_FEED_GAP;
    }
    if (l->version < oldest(f)) {
        return RQ_FEED_BEHIND;
    }
    const struct kept *k = kept_at(f, find_above(f, l->version));
    tables->size = 0;
    if (k->names != NULL && rq_bytes_put(tables, k->names->text, k->names->bytes) != RQ_OK) {
        return RQ_FEED_BEHIND; /* no memory: it may come again */
    }
    *ret_change = (struct rq_change){ k->base, k->version, k->index, k->time_ms, k->names != NULL };
    l->version = k->version;
    return RQ_FEED_CHANGE;
}

enum rq_feed_answer rq_feed_take(struct rq_feed_listener *l, struct rq_change *ret_change, struct rq_bytes *tables)
{
    struct rq_feed *f = l->feed;
    pthread_mutex_lock(&f->lock);
    const enum rq_feed_answer answer = take(f, l, ret_change, tables);
    pthread_mutex_unlock(&f->lock);
    return answer;
}

/* --- life ---------------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_feeds_new(const struct rq_feeds_config *config, struct rq_feeds **ret_feeds)
{
    struct rq_feeds *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    s->config = *config;
    pthread_mutex_init(&s->lock, NULL);
    *ret_feeds = s;
    return RQ_OK;
}

void rq_feeds_stop(struct rq_feeds *s)
{
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->stops, true);
    for (struct rq_feed *f = s->list; f != NULL; f = f->next) {
        pthread_mutex_lock(&f->lock);
        stir_all(f);
        wake(f);
        pthread_mutex_unlock(&f->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

void rq_feeds_free(struct rq_feeds *s)
{
    if (s == NULL) {
        return;
    }
    rq_feeds_stop(s);
    while (rq_feeds_count(s).feeds > 0) {
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct rq_feeds_count rq_feeds_count(struct rq_feeds *s)
{
    pthread_mutex_lock(&s->lock);
    const struct rq_feeds_count count = s->count;
    pthread_mutex_unlock(&s->lock);
    return count;
}
