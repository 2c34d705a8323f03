/* Install: a replica becomes what another member has, page by page where it differs, by one WAL transaction.
 *
 * All of it is one task of the strand, so nothing else is applied meanwhile, and what was compared is what is written on.  The WAL
 * takes the pages as they come: frames without a commit mark, which nobody looks at.  The last one commits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/database_impl.h"
#include "raftd/ops/journal.h"
#include "raftd/wire/txn.h"

/* The pages that differ, ascending. */
struct differing {
    struct rq_page_source source;
    const struct rq_copy_source *from;
    struct rq_replica *base; /* NULL: everything differs */
    uint32_t base_pages;
    uint32_t page_size, page_count;
    uint32_t range_next; /* first page that was not compared */
    uint64_t zero_hash;
    uint64_t *hashes; /* owns, as the next three: of the range */
    uint32_t *wanted;
    uint8_t *pages, *local;
    uint32_t wanted_at, wanted_count; /* wanted[wanted_at ..) were not fetched */
    uint32_t first_in_range;
    uint32_t fetched_at, fetched_count; /* in pages: wanted[fetched_at - fetched_count ..) */
    uint32_t handed;                    /* of the fetched ones */
    bool peeked;                        /* the next page was looked at, and is handed out again */
    struct rq_copy_count count;
};

static enum rq_err differing_init(struct differing *d, const struct rq_copy_source *from, struct rq_replica *base,
                                  uint32_t base_pages, const struct rq_replica_state *state)
{
    const size_t bytes = state->page_size > RQ_COPY_PAGES_BYTES ? state->page_size : RQ_COPY_PAGES_BYTES;
    *d = (struct differing){
        .from = from,
        .base = base,
        .base_pages = base_pages,
        .page_size = state->page_size,
        .page_count = state->page_count,
        .range_next = 1,
        .hashes = malloc(RQ_COPY_HASHES_MAX * sizeof(uint64_t)),
        .wanted = malloc(RQ_COPY_HASHES_MAX * sizeof(uint32_t)),
        .pages = malloc(bytes),
        .local = calloc(1, state->page_size),
    };
    if (d->hashes == NULL || d->wanted == NULL || d->pages == NULL || d->local == NULL) {
        return RQ_NOMEM;
    }
    d->zero_hash = rq_page_hash(d->local, d->page_size);
    return RQ_OK;
}

static void differing_fini(struct differing *d)
{
    free(d->hashes);
    free(d->wanted);
    free(d->pages);
    free(d->local);
}

/* Is our page of this number what the hash says?  One that was damaged is not. */
static enum rq_err has_page(struct differing *d, uint32_t pgno, uint64_t hash, bool *ret_has)
{
    *ret_has = false;
    if (d->base == NULL || pgno > d->base_pages) {
        *ret_has = hash == d->zero_hash; /* rule Z: what does not come is zero */
        return RQ_OK;
    }
    enum rq_err err = rq_replica_read(d->base, pgno, d->local);
    if (err == RQ_OK) {
        *ret_has = rq_page_hash(d->local, d->page_size) == hash;
    }
    return err == RQ_CORRUPT ? RQ_OK : err;
}

static enum rq_err compare_range(struct differing *d)
{
    const uint32_t left = d->page_count - d->range_next + 1;
    const uint32_t count = left < RQ_COPY_HASHES_MAX ? left : RQ_COPY_HASHES_MAX;
    enum rq_err err = d->from->hashes(d->from->ctx, d->range_next, count, d->hashes);
    d->wanted_at = d->wanted_count = 0;
    d->first_in_range = d->range_next;
    for (uint32_t i = 0; err == RQ_OK && i < count; i++) {
        bool has;
        err = has_page(d, d->range_next + i, d->hashes[i], &has);
        if (!has) {
            d->wanted[d->wanted_count++] = d->range_next + i;
        }
    }
    d->range_next += count;
    d->count.compared += count;
    return err;
}

static enum rq_err fetch_some(struct differing *d)
{
    const uint32_t most = RQ_COPY_PAGES_BYTES > d->page_size ? RQ_COPY_PAGES_BYTES / d->page_size : 1;
    const uint32_t left = d->wanted_count - d->wanted_at, count = left < most ? left : most;
    enum rq_err err = d->from->pages(d->from->ctx, d->wanted + d->wanted_at, count, d->page_size, d->pages);
    for (uint32_t i = 0; err == RQ_OK && i < count; i++) {
        const uint64_t hash = rq_page_hash(d->pages + (size_t)i * d->page_size, d->page_size);
        if (hash != d->hashes[d->wanted[d->wanted_at + i] - d->first_in_range]) {
            err = RQ_CORRUPT;
        }
    }
    d->fetched_at = d->wanted_at;
    d->fetched_count = count;
    d->wanted_at += count;
    d->handed = 0;
    d->count.fetched += count;
    return err;
}

static enum rq_err next_differing(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct differing *d = ctx;
    if (d->peeked) {
        d->peeked = false;
        d->handed--;
    }
    while (d->handed == d->fetched_count) {
        if (d->wanted_at == d->wanted_count && d->range_next > d->page_count) {
            return RQ_NOTFOUND;
        }
        enum rq_err err = d->wanted_at < d->wanted_count ? fetch_some(d) : compare_range(d);
        if (err != RQ_OK) {
            return err;
        }
    }
    *ret_pgno = d->wanted[d->fetched_at + d->handed];
    *ret_page = d->pages + (size_t)d->handed++ * d->page_size;
    return RQ_OK;
}

/* --- the replica -------------------------------------------------------------------------------------------------------- */

/* Whatever is there under its name is not to be built on. */
static void give_up_files(struct rq_database *db)
{
    struct rq_replica *r = db->replica;
    pthread_mutex_lock(&db->hold);
    db->replica = NULL;
    pthread_mutex_unlock(&db->hold);
    rq_replica_close(r);
    rq_db_move_to_trash(db, "");
    rq_db_move_to_trash(db, "-wal");
    rq_db_move_to_trash(db, "-shm");
    if (db->hashes_path != NULL) {
        (void)db->env.disk->ops->unlink(db->env.disk,
                                        db->hashes_path); /* one that is not of the new file is forgotten */
    }
    if (db->env.disk->ops->sync_dir(db->env.disk, db->env.trash_dir) != RQ_OK ||
        db->env.disk->ops->sync_dir(db->env.disk, db->env.dir) != RQ_OK) {
        db->env.fatal(db->env.ctx, "a damaged replica could not be moved to the trash", RQ_IO);
    }
    db->file = (struct rq_replica_state){ 0 };
}

static enum rq_err make_replica(struct rq_database *db, const struct rq_page_source *pages,
                                const struct rq_replica_state *state)
{
    char text[RQ_DB_TEXT_BYTES];
    struct rq_replica *r;
    const struct rq_replica_config config = rq_db_replica_config(db);
    enum rq_err err = rq_replica_create(&config, pages, state, &r);
    if (err != RQ_OK) {
        return err;
    }
    err = rq_db_keep_hashes(db, r, text);
    if (err != RQ_OK) {
        rq_replica_close(r);
        return err;
    }
    rq_db_set_replica(db, r);
    return RQ_OK;
}

/* From here on it is at this state, whatever it was. */
static void take_state(struct rq_database *db, struct rq_origins *origins)
{
    rq_origins_fini(&db->origins);
    db->origins = *origins;
    *origins = (struct rq_origins){ 0 };
    rq_replica_get_state(db->replica, &db->file);
    db->version = db->file.version;
    if (db->applied_index < db->file.stamp.index) {
        db->applied_index = db->file.stamp.index;
    }
    db->state = RQ_DB_LIVE;
    db->message[0] = '\0';
    db->needs_log = db->diverged = db->superseded = false;
}

static enum rq_err write_differing(struct rq_database *db, struct differing *d, const struct rq_replica_state *state)
{
    uint32_t pgno;
    const uint8_t *page;
    const bool anew = d->base == NULL;
    enum rq_err err =
        next_differing(d, &pgno, &page); /* before anything is given up: the source is there, and has pages */
    if (err != RQ_OK && err != RQ_NOTFOUND) {
        return err;
    }
    d->peeked = err == RQ_OK;
    if (anew) {
        give_up_files(db);
    }
    err = anew ? make_replica(db, &d->source, state) : rq_replica_append(db->replica, &d->source, state);
    if (err == RQ_OK) {
        err = rq_replica_sync(db->replica);
    }
    return err;
}

static bool is_sane(const struct rq_database *db, const struct rq_replica_state *state, const struct rq_origins *o)
{
    return state->stamp.db_id == db->id && state->page_count > 0 && state->page_size >= 512 &&
           state->page_size <= 65536 && (state->page_size & (state->page_size - 1)) == 0 && o->next == state->version &&
           (db->file.page_size == 0 || db->file.page_size == state->page_size);
}

static enum rq_err install(struct rq_database *db, const struct rq_copy_source *source, struct rq_copy_count *count)
{
    struct rq_replica_state state;
    struct rq_origins origins = { 0 };
    struct differing d = { 0 };
    if (db->dropped) {
        return RQ_EXISTS;
    }
    if (db->control.head == NULL) {
        return RQ_IO; /* no control page: nobody could read it */
    }
    rq_db_end_doubt(db);
    enum rq_err err = source->open(source->ctx, db->id, &state, &origins);
    if (err == RQ_OK && state.version == 0) {
        err = db->version > 0 ? RQ_BUSY : RQ_OK;
        rq_origins_fini(&origins);
        return err;
    }
    if (err == RQ_OK && !is_sane(db, &state, &origins)) {
        err = RQ_CORRUPT;
    }
    const bool damaged = db->state == RQ_DB_QUARANTINED;
    if (err == RQ_OK && state.version < db->version) { /* by the log, meanwhile; a damaged one needs a newer source */
        rq_origins_fini(&origins);
        return damaged ? RQ_BUSY : RQ_OK;
    }
    if (err == RQ_OK && !damaged && db->replica != NULL && rq_stamp_equal(&db->file.stamp, &state.stamp)) {
        take_state(db, &origins); /* the same transactions have made it */
        return RQ_OK;
    }
    if (err == RQ_OK) {
        err = differing_init(&d, source, damaged ? NULL : db->replica, db->file.page_count, &state);
        d.source = (struct rq_page_source){ &d, next_differing };
    }
    if (err == RQ_OK) {
        err = write_differing(db, &d, &state);
    }
    if (err == RQ_IO) {
        db->env.fatal(db->env.ctx, "a replica could not be written", err);
    }
    if (err == RQ_OK) {
        take_state(db, &origins);
        count->compared += d.count.compared;
        count->fetched += d.count.fetched;
    }
    differing_fini(&d);
    rq_origins_fini(&origins);
    return err;
}

struct install_task {
    struct rq_db_errand errand; /* first */
    const struct rq_copy_source *source;
    struct rq_copy_count *count;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    enum rq_err err;
};

static void run_install(struct rq_task *task)
{
    struct install_task *t = (struct install_task *)task;
    struct rq_database *db = t->errand.db;
    rq_strand_will_block();
    const enum rq_err err = install(db, t->source, t->count);
    if (!db->dropped) {
        rq_db_publish(db);
        rq_db_settle(db);
        rq_db_touch(db);
    }
    pthread_mutex_lock(&t->lock);
    t->err = err;
    t->done = true;
    pthread_cond_signal(&t->ended);
    pthread_mutex_unlock(&t->lock);
}

enum rq_err rq_database_install(struct rq_database *db, const struct rq_copy_source *source,
                                struct rq_copy_count *ret_count)
{
    struct install_task t = { .errand = { .task = { .run = run_install }, .db = db },
                              .source = source,
                              .count = ret_count };
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.ended, NULL);
    rq_strand_post(&db->place->strand, &t.errand.task, RQ_HAND_OVER);
    while (!rq_pool_has_threads(db->env.pool) && !t.done && rq_pool_run_one(db->env.pool)) {
    }
    pthread_mutex_lock(&t.lock);
    while (!t.done) {
        pthread_cond_wait(&t.ended, &t.lock);
    }
    pthread_mutex_unlock(&t.lock);
    pthread_mutex_destroy(&t.lock);
    pthread_cond_destroy(&t.ended);
    return t.err;
}
