/* Repair: at a MARK entry of the log a quarantined database becomes what the others say it is there, page by page.
 *
 * All of it is one task of the strand, so the version that the log has led to by then is the one that is fetched, and what comes next in
 * the log goes on from it.  Pages that differ become one WAL transaction: a kill before its end leaves the database as it was. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/db/database_impl.h"
#include "raftd/wire/txn.h"

/* The pages that are wrong, ascending. */
struct wrong {
    struct rq_page_source source;
    struct rq_database *db;
    struct rq_repair *repair;
    struct rq_replica_state state;
    uint64_t *hashes; /* owns: of [first, first + count) */
    uint8_t *page;    /* owns */
    uint32_t first, count, next;
    uint64_t zero_hash;
    size_t text_bytes;
};

static enum rq_err wrong_init(struct wrong *w, struct rq_database *db, struct rq_repair *r,
                              const struct rq_replica_state *state)
{
    *w = (struct wrong){ .db = db, .repair = r, .state = *state, .first = 1, .next = 1 };
    w->hashes = malloc(RQ_MARK_PAGES_MAX * sizeof *w->hashes);
    w->page = calloc(1, state->page_size);
    if (w->hashes == NULL || w->page == NULL) {
        return RQ_NOMEM;
    }
    w->zero_hash = rq_page_hash(w->page, state->page_size);
    return RQ_OK;
}

static void wrong_fini(struct wrong *w)
{
    free(w->hashes);
    free(w->page);
}

/* Our own page, unless it is what raftd did not write there: then the records of this host prove that it is wrong.  One that is as it was
 * written, and that the log has not changed since, is as good as that of any other single host. */
static enum rq_err is_right(struct wrong *w, uint32_t pgno, uint64_t hash, bool *ret_right, bool *ret_disputed)
{
    struct rq_database *db = w->db;
    *ret_disputed = !rq_db_missed_changed(db, pgno);
    if (pgno > db->file.page_count) {
        *ret_right = hash == w->zero_hash; /* rule Z: what does not come is zero */
        return RQ_OK;
    }
    enum rq_err err = rq_replica_read_as_shown(db->replica, pgno, w->page);
    *ret_right = err == RQ_OK && rq_page_hash(w->page, w->state.page_size) == hash;
    *ret_disputed = *ret_disputed && err == RQ_OK;
    return err == RQ_CORRUPT ? RQ_OK : err;
}

static void note_page(struct wrong *w, uint32_t pgno)
{
    char *text = w->repair->first_pages;
    const size_t room = sizeof w->repair->first_pages - w->text_bytes;
    const int n = snprintf(text + w->text_bytes, room, "%s%u", w->text_bytes > 0 ? "," : "", pgno);
    if (n < 0 || (size_t)n >= room) {
        text[w->text_bytes] = '\0';
    } else {
        w->text_bytes += (size_t)n;
    }
    w->repair->mended++;
}

/* NOTFOUND would be the end of the pages: nobody holds the entry's state still any more, so it takes another one. */
static enum rq_err from_source(enum rq_err err)
{
    return err == RQ_NOTFOUND ? RQ_UNREADY : err;
}

static enum rq_err next_wrong(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct wrong *w = ctx;
    const struct rq_repair_source *from = &w->repair->source;
    for (; w->next <= w->state.page_count; w->next++) {
        if (w->next >= w->first + w->count) {
            const uint32_t left = w->state.page_count - w->next + 1;
            w->first = w->next;
            w->count = left < RQ_MARK_PAGES_MAX ? left : RQ_MARK_PAGES_MAX;
            enum rq_err err = from_source(from->hashes(from->ctx, w->first, w->count, w->hashes));
            if (err != RQ_OK) {
                w->count = 0;
                return err;
            }
            w->repair->compared += w->count;
        }
        const uint64_t hash = w->hashes[w->next - w->first];
        bool right, disputed;
        enum rq_err err = is_right(w, w->next, hash, &right, &disputed);
        if (err != RQ_OK) {
            return err;
        }
        if (right) {
            continue;
        }
        err = from_source(from->page(from->ctx, w->next, w->state.page_size, disputed, w->page));
        if (err == RQ_OK && rq_page_hash(w->page, w->state.page_size) != hash) {
            err = RQ_CORRUPT; /* it is not what they said */
        }
        if (err != RQ_OK) {
            return err;
        }
        note_page(w, w->next);
        *ret_pgno = w->next++;
        *ret_page = w->page;
        return RQ_OK;
    }
    return RQ_NOTFOUND;
}

/* Its files are ours, the WAL is all there and can take another transaction; only pages of the database file may be wrong. */
static bool is_sound(struct rq_database *db)
{
    char text[160];
    return db->replica != NULL && db->control.head != NULL && db->proof == NULL && !db->diverged &&
           db->file.version > 0 && db->file.version <= db->version && rq_replica_check_wal(db->replica, text) == RQ_OK;
}

/* Readers and writers come back. */
static void let_in(struct rq_database *db)
{
    pthread_mutex_lock(&db->hold); /* from the background's checks */
    rq_replica_mended(db->replica);
    pthread_mutex_unlock(&db->hold);
    rq_replica_get_state(db->replica, &db->file);
    db->state = RQ_DB_LIVE;
    db->message[0] = '\0';
    db->needs_log = false;
    rq_db_missed_fini(&db->missed);
}

enum rq_err rq_db_repair(struct rq_database *db, struct rq_repair *r, uint64_t index)
{
    struct rq_replica_state state;
    struct wrong w = { 0 };
    if (db->dropped || db->state != RQ_DB_QUARANTINED) {
        return RQ_EXISTS;
    }
    if (!is_sound(db)) {
        return RQ_NOTFOUND;
    }
    enum rq_err err = from_source(r->source.open(r->source.ctx, index, &state));
    if (err == RQ_OK && (state.stamp.db_id != db->id || state.version != db->version)) {
        err = RQ_UNREADY;
    }
    if (err == RQ_OK && (state.page_size != db->file.page_size || state.page_count == 0)) {
        err = RQ_CORRUPT;
    }
    if (err == RQ_OK) {
        err = wrong_init(&w, db, r, &state);
        w.source = (struct rq_page_source){ &w, next_wrong };
    }
    if (err == RQ_OK) {
        err = rq_replica_append(db->replica, &w.source, &state);
    }
    if (err == RQ_OK) {
        err = rq_replica_sync(db->replica);
    }
    wrong_fini(&w);
    if (err == RQ_IO) {
        db->env.fatal(db->env.ctx, "a replica could not be mended", err);
    }
    if (err == RQ_OK) {
        let_in(db);
    }
    return err;
}

/* --- for whoever waits --------------------------------------------------------------------------------------------------- */

void rq_database_repair_begin(struct rq_database *db, struct rq_repair *r)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->ended, &attr);
    pthread_condattr_destroy(&attr);
    r->done = false;
    pthread_mutex_lock(&db->info_lock);
    db->repair = r;
    pthread_mutex_unlock(&db->info_lock);
}

static bool is_done(struct rq_repair *r)
{
    pthread_mutex_lock(&r->lock);
    const bool done = r->done;
    pthread_mutex_unlock(&r->lock);
    return done;
}

static void wait_until(struct rq_repair *r, unsigned ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(ms % 1000u) * 1000000;
    until.tv_sec += (time_t)(ms / 1000u) + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&r->lock);
    for (int waited = 0; !r->done && waited == 0;) {
        waited = pthread_cond_timedwait(&r->ended, &r->lock, &until);
    }
    pthread_mutex_unlock(&r->lock);
}

/* False: it is under way, and comes to its end. */
static bool give_up(struct rq_database *db, struct rq_repair *r)
{
    pthread_mutex_lock(&db->info_lock);
    const bool waits = db->repair == r;
    if (waits) {
        db->repair = NULL;
    }
    pthread_mutex_unlock(&db->info_lock);
    return waits;
}

enum rq_err rq_database_repair_wait(struct rq_database *db, struct rq_repair *r, unsigned timeout_ms)
{
    while (!rq_pool_has_threads(db->env.pool) && !is_done(r) && rq_pool_run_one(db->env.pool)) {
    }
    wait_until(r, timeout_ms);
    if (!is_done(r) && give_up(db, r)) {
        r->err = RQ_AWAY;
    } else {
        pthread_mutex_lock(&r->lock);
        while (!r->done) {
            pthread_cond_wait(&r->ended, &r->lock);
        }
        pthread_mutex_unlock(&r->lock);
    }
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->ended);
    return r->err;
}
