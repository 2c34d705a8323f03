#include "raftd/db/background.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "raftd/db/scrub.h"
#include "raftd/db/wal_care.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"
#include "raftd/run/slack.h"

#define LIST_AGAIN_MS  250         /* without memory for the list of databases */
#define CHECK_MS       20000       /* well within the minute in which a change by others is to be noticed */
#define LOOK_MS        1000        /* how long a publication that somebody damaged stays so */
#define SPARE_MS       3000        /* the last staged body keeps its space so long, for the next one */
#define BODY_BYTES_MAX (32u << 20) /* staged bodies of so many bytes call for a compaction at once */

struct rq_background {
    struct rq_background_config config;
    struct rq_catalog *catalog; /* borrows, as driver */
    struct rq_driver *driver;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stirred, stops, started; /* guarded by lock, as what follows */
    uint64_t asked, answered;     /* how many asked for a compaction; up to which one that was answered */
    enum rq_err answer;
    char answer_text[512];
    pthread_cond_t answers;
    pthread_t thread;
    uint64_t next_look_ms, next_check_ms, next_compact_ms, next_bodies_ms;
    uint64_t compacted_index;
    uint32_t fill_waits;   /* the database whose back-fill was last told to wait */
    bool compaction_waits; /* and it was said why */
    struct rq_scrub scrub;
    struct rq_slack slack;
};

static void sooner(uint64_t *due, uint64_t ms)
{
    if (ms < *due) {
        *due = ms;
    }
}

/* With the replica held.  Is the file still there?  looks: was it written by somebody else, and is -shm in order?  whole: is every
 * frame of the WAL what it was? */
static void check(struct rq_database *db, struct rq_replica *r, bool looks, bool whole)
{
    char text[160] = "", why[RQ_DB_TEXT_BYTES];
    enum rq_err err = rq_database_check_name(db);
    if (err == RQ_OK && (looks || whole)) {
        err = whole ? rq_replica_check(r, text) : rq_replica_mend(r, text);
    }
    if (err == RQ_IO) {
        rq_fatal("a replica could not be read", err);
    }
    if (err == RQ_NOTFOUND) {
        rq_database_removed_text(db, why);
        rq_database_quarantine(db, why);
    } else if (err == RQ_CORRUPT || err == RQ_FOREIGN) {
        (void)snprintf(why, sizeof why, "changed behind raftd's back: %s",
                       text[0] != '\0' ? text : "another file has its name");
        rq_database_quarantine(db, why);
    } else if (err == RQ_OK && text[0] != '\0') {
        rq_note(RQ_LEVEL_WARN, "a file was put right", "id=%u what=%s", rq_database_id(db),
                rq_quote(why, sizeof why, text));
    }
}

/* leaving: raftd is about to end; what can be made complete without waiting for readers is. */
static void tend_all(struct rq_background *b, bool leaving, uint64_t *due)
{
    struct rq_database **list;
    size_t count;
    uint64_t now = rq_clock_ms();
    bool looks = now >= b->next_look_ms, checks = now >= b->next_check_ms;

    if (looks) {
        b->next_look_ms = now + LOOK_MS;
        rq_slack_look(&b->slack);
    }
    if (checks) {
        b->next_check_ms = now + CHECK_MS;
    }
    sooner(due, b->next_look_ms);
    sooner(due, b->next_check_ms);
    if (rq_catalog_list(b->catalog, &list, &count) != RQ_OK) {
        sooner(due, now + LIST_AGAIN_MS);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct rq_database_info info;
        rq_database_info(list[i], &info);
        struct rq_replica *r = rq_database_hold(list[i]);
        if (r != NULL && info.state != RQ_DB_QUARANTINED) {
            check(list[i], r, looks, checks);
            sooner(due, rq_wal_care(list[i], r, rq_clock_ms(), leaving, &b->fill_waits));
        } else {
            rq_database_settled(list[i]);
        }
        rq_database_release(list[i]);
        if (looks) {
            rq_database_mend(list[i]);
        }
        if (checks) {
            rq_database_sweep(list[i]);
        }
        rq_database_unref(list[i]);
    }
    free(list);
}

static uint64_t asked(struct rq_background *b)
{
    pthread_mutex_lock(&b->lock);
    const uint64_t asked = b->asked;
    pthread_mutex_unlock(&b->lock);
    return asked;
}

static void answer(struct rq_background *b, uint64_t upto, enum rq_err err, const char *text)
{
    pthread_mutex_lock(&b->lock);
    if (b->answered < upto) {
        b->answered = upto;
        b->answer = err;
        (void)snprintf(b->answer_text, sizeof b->answer_text, "%s", text);
        pthread_cond_broadcast(&b->answers);
    }
    pthread_mutex_unlock(&b->lock);
}

static void compact(struct rq_background *b, uint64_t *due)
{
    struct rq_log_stats stats;
    char text[512], why[sizeof text * 2];
    uint64_t now = rq_clock_ms();
    const uint64_t upto = asked(b); /* before the view: what they have committed is in it */
    struct rq_driver_view view = rq_driver_view(b->driver);
    bool looks = now >= b->next_compact_ms;
    uint64_t bodies = rq_catalog_body_bytes(b->catalog);

    rq_driver_log_stats(b->driver, &stats);
    if (looks) {
        b->next_compact_ms = now + b->config.compact_every_ms;
    }
    sooner(due, b->next_compact_ms);
    bool wanted = upto > b->answered || stats.bytes >= b->config.compact_bytes || bodies >= BODY_BYTES_MAX ||
                  (looks && (bodies > 0 || view.delivered - b->compacted_index >= b->config.compact_entries));
    if (!rq_catalog_ready(b->catalog)) {
        answer(b, upto, RQ_UNREADY, rq_err_text(RQ_UNREADY));
        return;
    }
    if (view.delivered == b->compacted_index || !wanted) {
        answer(b, upto, RQ_NOTFOUND, "nothing new to snapshot");
        return;
    }
    enum rq_err err = rq_catalog_compact(b->catalog, text);
    bool waited = b->compaction_waits;
    b->compaction_waits = err != RQ_OK;
    if (err == RQ_OK) {
        rq_note(RQ_LEVEL_DEBUG, "log compacted", "index=%llu log_bytes=%llu", (unsigned long long)view.delivered,
                (unsigned long long)stats.bytes);
        b->compacted_index = view.delivered;
        RQ_COUNT(store, num_snapshots);
    } else if (err == RQ_IO) {
        rq_fatal("the descriptor could not be made durable", err);
    } else {
        rq_note(waited ? RQ_LEVEL_DEBUG : RQ_LEVEL_WARN, "log compaction has to wait", "err=%s why=%s",
                rq_err_name(err), rq_quote(why, sizeof why, text));
        sooner(due, now + 1000);
        RQ_COUNT(store, num_snapshots_failed);
    }
    answer(b, upto, err, err == RQ_OK ? "" : text[0] != '\0' ? text : rq_err_text(err));
}

static void drop_spare(struct rq_background *b)
{
    if (rq_catalog_drop_spare(b->catalog, SPARE_MS) == RQ_IO) {
        rq_fatal("the spare of the staged bodies could not be deleted", RQ_IO);
    }
}

static void look_at_bodies(struct rq_background *b, uint64_t *due)
{
    const uint64_t now = rq_clock_ms();
    if (now >= b->next_bodies_ms) {
        b->next_bodies_ms = now + RQ_SHELF_LOOK_MS;
        enum rq_err err = rq_catalog_look_at_bodies(b->catalog);
        if (err == RQ_IO) {
            rq_fatal("a staged body could not be deleted", err);
        }
    }
    sooner(due, b->next_bodies_ms);
}

/* Segments of zeros, before a commit has to wait for them. */
static void prepare_log(struct rq_background *b)
{
    enum rq_err err = rq_driver_prepare_log(b->driver);
    if (err != RQ_OK && err != RQ_FULL) { /* FULL: said to whoever needs the space */
        rq_fatal("a segment of the log could not be made", err);
    }
}

static void *background_thread(void *arg)
{
    struct rq_background *b = arg;
    uint64_t tend_due = 0, scrub_due = 0;
    for (;;) {
        const uint64_t due = tend_due < scrub_due ? tend_due : scrub_due;
        pthread_mutex_lock(&b->lock);
        if (!b->stops && !b->stirred) {
            struct timespec until = { (time_t)(due / 1000u), (long)(due % 1000u) * 1000000 };
            pthread_cond_timedwait(&b->wake, &b->lock, &until);
        }
        bool stops = b->stops, tends = stops || b->stirred || rq_clock_ms() >= tend_due;
        b->stirred = false;
        pthread_mutex_unlock(&b->lock);
        tend_due = tends ? UINT64_MAX : tend_due;
        if (tends && !stops) {
            /* Before what takes long: somebody may wait for a segment, or for the file of a staged body. */
            compact(b, &tend_due);
            look_at_bodies(b, &tend_due);
            drop_spare(b);
            prepare_log(b);
        }
        if (tends) {
            tend_all(b, stops, &tend_due);
        }
        if (stops) {
            return NULL;
        }
        scrub_due = UINT64_MAX;
        rq_scrub_step(&b->scrub, b->catalog, rq_clock_ms(), &scrub_due);
    }
}

enum rq_err rq_background_new(const struct rq_background_config *config, struct rq_background **ret_background)
{
    struct rq_background *b = calloc(1, sizeof *b);
    pthread_condattr_t attr;
    if (b == NULL) {
        return RQ_NOMEM;
    }
    b->config = *config;
    b->scrub.every_ms = config->scrub_every_ms;
    pthread_mutex_init(&b->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&b->wake, &attr);
    pthread_cond_init(&b->answers, &attr);
    pthread_condattr_destroy(&attr);
    *ret_background = b;
    return RQ_OK;
}

enum rq_err rq_background_start(struct rq_background *b, struct rq_catalog *catalog, struct rq_driver *driver)
{
    b->catalog = catalog;
    b->driver = driver;
    b->next_look_ms = rq_clock_ms() + LOOK_MS;
    b->next_check_ms = rq_clock_ms() + CHECK_MS;
    b->next_compact_ms = rq_clock_ms() + b->config.compact_every_ms;
    b->next_bodies_ms = rq_clock_ms() + RQ_SHELF_LOOK_MS;
    b->started = pthread_create(&b->thread, NULL, background_thread, b) == 0;
    return b->started ? RQ_OK : RQ_NOMEM;
}

void rq_background_stop(struct rq_background *b)
{
    pthread_mutex_lock(&b->lock);
    b->stops = true;
    pthread_cond_signal(&b->wake);
    pthread_mutex_unlock(&b->lock);
    if (b->started) {
        pthread_join(b->thread, NULL);
    }
}

enum rq_err rq_background_snapshot(struct rq_background *b, unsigned timeout_ms, char text[512])
{
    const uint64_t end_ms = rq_clock_ms() + timeout_ms;
    const struct timespec until = { (time_t)(end_ms / 1000u), (long)(end_ms % 1000u) * 1000000 };
    int waited = 0;
    pthread_mutex_lock(&b->lock);
    const uint64_t mine = ++b->asked;
    b->stirred = true;
    pthread_cond_signal(&b->wake);
    while (b->answered < mine && waited == 0) {
        waited = pthread_cond_timedwait(&b->answers, &b->lock, &until);
    }
    const enum rq_err err = b->answered >= mine ? b->answer : RQ_AWAY;
    (void)snprintf(text, 512, "%s", b->answered >= mine ? b->answer_text : "not done in time");
    pthread_mutex_unlock(&b->lock);
    return err;
}

void rq_background_stir(void *background)
{
    struct rq_background *b = background;
    pthread_mutex_lock(&b->lock);
    b->stirred = true;
    pthread_cond_signal(&b->wake);
    pthread_mutex_unlock(&b->lock);
}
