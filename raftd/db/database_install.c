/* Install: a replica becomes what another member has, page by page where it differs, by one WAL transaction.
 *
 *   compare   all pages by their hashes; those that differ, and that no earlier copy has left, are fetched into the copy file
 *   rounds    pages that have changed at the source meanwhile are fetched again, until it holds still and all are told
 *   write     what is in the copy file becomes one transaction on the replica, or with a damaged one a new file
 *
 * All of it is one task of the strand, so nothing else is applied meanwhile, and what was compared is what is written on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/db/copy_file.h"
#include "raftd/db/database_impl.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/wire/txn.h"

#define PIECE_BYTES  (64u << 10) /* of pages at once: nobody waits for long for the processor */
#define PIECE_HASHES 256u
#define ROUNDS_MAX   6u /* then the source is to hold still, however much it goes on changing */
#define LOG_WAIT_MS  1000u
#define LOG_LOOK_MS  10u

struct install {
    struct rq_database *db;
    const struct rq_copy_source *from;
    struct rq_replica *base; /* borrows; NULL: everything differs */
    uint32_t base_pages;
    struct rq_replica_state state; /* as the source began; then what it holds */
    struct rq_origins origins;     /* owns, of state */
    struct rq_copy_file file;
    struct rq_page_set
        surprises; /* pages that were not what their hashes said: they have changed, and are to be told */
    uint64_t zero_hash;
    uint64_t *hashes; /* owns, as the next four */
    uint32_t *wanted;
    uint8_t *pages, *page;
    struct rq_copy_changed *changed;
    struct rq_copy_count count;
    struct rq_page_source source; /* of what is in the file */
    uint32_t next;                /* page of it */
    uint32_t unsynced;
};

static enum rq_err install_init(struct install *n)
{
    const uint32_t page_size = n->state.page_size;
    n->hashes = malloc(PIECE_HASHES * sizeof *n->hashes);
    n->wanted = malloc(PIECE_HASHES * sizeof *n->wanted);
    n->pages = malloc(page_size > PIECE_BYTES ? page_size : PIECE_BYTES);
    n->page = calloc(1, page_size);
    n->changed = malloc(sizeof *n->changed);
    if (n->hashes == NULL || n->wanted == NULL || n->pages == NULL || n->page == NULL || n->changed == NULL) {
        return RQ_NOMEM;
    }
    n->zero_hash = rq_page_hash(n->page, page_size);
    return rq_copy_file_open(&n->file, n->db->env.disk, n->db->env.copies_dir, n->db->id, page_size);
}

static void install_fini(struct install *n)
{
    rq_copy_file_close(&n->file);
    rq_page_set_fini(&n->surprises);
    rq_origins_fini(&n->origins);
    free(n->hashes);
    free(n->wanted);
    free(n->pages);
    free(n->page);
    free(n->changed);
}

/* --- compare ------------------------------------------------------------------------------------------------------------- */

/* Is our page of this number what the hash says?  One that was damaged is not. */
static enum rq_err has_page(struct install *n, uint32_t pgno, uint64_t hash, bool *ret_has)
{
    enum rq_err err = RQ_OK;
    *ret_has = false;
    if (n->base == NULL || pgno > n->base_pages) {
        *ret_has = hash == n->zero_hash; /* rule Z: what does not come is zero */
    } else {
        err = rq_replica_read(n->base, pgno, n->page);
        *ret_has = err == RQ_OK && rq_page_hash(n->page, n->state.page_size) == hash;
        err = err == RQ_CORRUPT ? RQ_OK : err;
    }
    if (err == RQ_OK && !*ret_has) {
        err = rq_copy_file_find(&n->file, pgno, hash, n->page, ret_has);
    }
    return err;
}

/* hashes: what they should be, or NULL. */
static enum rq_err fetch(struct install *n, const uint32_t *pgnos, uint32_t count, const uint64_t *hashes)
{
    const uint32_t page_size = n->state.page_size;
    const uint32_t most = PIECE_BYTES > page_size ? PIECE_BYTES / page_size : 1;
    enum rq_err err = RQ_OK;
    for (uint32_t at = 0; err == RQ_OK && at < count; at += most) {
        const uint32_t some = count - at < most ? count - at : most;
        err = n->from->pages(n->from->ctx, pgnos + at, some, page_size, n->pages);
        for (uint32_t i = 0; err == RQ_OK && hashes != NULL && i < some; i++) {
            if (rq_page_hash(n->pages + (size_t)i * page_size, page_size) != hashes[at + i]) {
                err = rq_page_set_put(&n->surprises, pgnos[at + i]);
            }
        }
        if (err == RQ_OK) {
            err = rq_copy_file_put(&n->file, pgnos + at, some, n->pages);
        }
        n->count.fetched += some;
    }
    return err;
}

static enum rq_err compare(struct install *n)
{
    enum rq_err err = RQ_OK;
    for (uint32_t first = 1; err == RQ_OK && first <= n->state.page_count;) {
        const uint32_t left = n->state.page_count - first + 1;
        const uint32_t count = left < PIECE_HASHES ? left : PIECE_HASHES;
        uint32_t wanted = 0;
        err = n->from->hashes(n->from->ctx, first, count, n->hashes);
        for (uint32_t i = 0; err == RQ_OK && i < count; i++) {
            bool has;
            err = has_page(n, first + i, n->hashes[i], &has);
            if (!has) {
                n->hashes[wanted] = n->hashes[i];
                n->wanted[wanted++] = first + i;
            }
        }
        if (err == RQ_OK) {
            err = fetch(n, n->wanted, wanted, n->hashes);
        }
        n->count.compared += count;
        if (left == count) {
            break;
        }
        first += count;
    }
    return err;
}

/* --- rounds -------------------------------------------------------------------------------------------------------------- */

static bool is_sane(const struct rq_database *db, const struct rq_replica_state *state, const struct rq_origins *o)
{
    return state->stamp.db_id == db->id && state->page_count > 0 && state->page_size >= 512 &&
           state->page_size <= 65536 && (state->page_size & (state->page_size - 1)) == 0 && o->next == state->version &&
           (db->file.page_size == 0 || db->file.page_size == state->page_size);
}

static enum rq_err take_held(struct install *n)
{
    const struct rq_replica_state began = n->state;
    rq_origins_fini(&n->origins);
    enum rq_err err = n->from->held(n->from->ctx, &n->state, &n->origins);
    if (err == RQ_OK && (!is_sane(n->db, &n->state, &n->origins) || n->state.page_size != began.page_size ||
                         n->state.version < began.version || n->surprises.count > 0)) {
        err = RQ_CORRUPT;
    }
    return err;
}

static enum rq_err follow_changes(struct install *n)
{
    struct rq_copy_changed *c = n->changed;
    uint64_t again = 0;
    unsigned rounds = 0;
    enum rq_err err;
    do {
        err = n->from->changed(n->from->ctx, rounds >= ROUNDS_MAX || again > n->state.page_count, c);
        if (err == RQ_OK) {
            for (uint32_t i = 0; i < c->count; i++) {
                rq_page_set_drop(&n->surprises, c->pgnos[i]);
            }
            err = fetch(n, c->pgnos, c->count, NULL);
            again += c->count;
            rounds += c->left == 0;
        }
    } while (err == RQ_OK && (!c->held || c->left > 0));
    return err == RQ_OK ? take_held(n) : err;
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
    rq_db_move_to_trash(db, "what had the name of a database here is in the trash: the database is made anew");
    if (db->hashes_path != NULL) {
        (void)db->env.disk->ops->unlink(db->env.disk,
                                        db->hashes_path); /* one that is not of the new file is forgotten */
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
    rq_db_missed_fini(&db->missed);
}

static enum rq_err next_in_file(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct install *n = ctx;
    const uint32_t pgno = rq_page_set_next(&n->file.pages, n->next);
    if (pgno == 0) {
        return RQ_NOTFOUND;
    }
    enum rq_err err = RQ_OK;
    if (n->base != NULL && n->unsynced >= RQ_TRICKLE_SYNC_BYTES) { /* frames that nobody looks at yet */
        n->unsynced = 0;
        err = rq_replica_sync(n->base);
    }
    if (err == RQ_OK) {
        err = rq_copy_file_get(&n->file, pgno, n->page);
    }
    n->unsynced += n->state.page_size;
    n->next = pgno + 1;
    *ret_pgno = pgno;
    *ret_page = n->page;
    return err;
}

static enum rq_err write_fetched(struct install *n)
{
    struct rq_database *db = n->db;
    const bool anew = n->base == NULL;
    n->source = (struct rq_page_source){ n, next_in_file };
    n->next = 1;
    if (anew) {
        give_up_files(db);
    }
    enum rq_err err =
        anew ? make_replica(db, &n->source, &n->state) : rq_replica_append(db->replica, &n->source, &n->state);
    if (err == RQ_OK) {
        err = rq_replica_sync(db->replica);
    }
    return err;
}

/* OK, and *ret_goes_on: there is something to be done. */
static enum rq_err begin(struct install *n, bool *ret_goes_on)
{
    struct rq_database *db = n->db;
    const bool damaged = db->state == RQ_DB_QUARANTINED;
    *ret_goes_on = false;
    enum rq_err err = n->from->open(n->from->ctx, db->id, &n->state, &n->origins);
    if (err != RQ_OK) {
        return err;
    }
    if (n->state.version == 0) {
        return db->version > 0 ? RQ_BUSY : RQ_OK;
    }
    if (!is_sane(db, &n->state, &n->origins)) {
        return RQ_CORRUPT;
    }
    if (n->state.version < db->version) { /* by the log, meanwhile; a damaged one needs a newer source */
        return damaged ? RQ_BUSY : RQ_OK;
    }
    if (!damaged && db->replica != NULL && rq_stamp_equal(&db->file.stamp, &n->state.stamp)) {
        take_state(db, &n->origins); /* the same transactions have made it */
        return RQ_OK;
    }
    n->base = damaged ? NULL : db->replica;
    n->base_pages = db->file.page_count;
    *ret_goes_on = true;
    return RQ_OK;
}

/* Entries that come later are applied on this, and a start refuses a replica that is newer than its log. */
static bool log_has_come_to(struct rq_database *db, uint64_t index)
{
    const uint64_t end_ms = rq_clock_ms() + LOG_WAIT_MS;
    while (db->env.delivered(db->env.ctx) < index) {
        if (!rq_pool_has_threads(db->env.pool) || rq_clock_ms() >= end_ms) {
            return false;
        }
        nanosleep(&(struct timespec){ .tv_nsec = LOG_LOOK_MS * 1000000l }, NULL);
    }
    return true;
}

static enum rq_err install(struct rq_database *db, const struct rq_copy_source *source, bool by_itself,
                           struct rq_copy_count *count)
{
    struct install n = { .db = db, .from = source };
    bool goes_on;
    if (db->dropped) {
        return RQ_EXISTS;
    }
    if (db->control.head == NULL) {
        return RQ_IO; /* no control page: nobody could read it */
    }
    rq_db_end_doubt(db);
    enum rq_err err = begin(&n, &goes_on);
    if (err == RQ_OK && goes_on) {
        err = install_init(&n);
        if (err == RQ_OK) {
            err = compare(&n);
        }
        if (err == RQ_OK) {
            err = follow_changes(&n);
        }
        if (err == RQ_OK && by_itself && !log_has_come_to(db, n.state.stamp.index)) {
            err = RQ_UNREADY;
        }
        if (err == RQ_OK) {
            err = write_fetched(&n);
        }
        if (err == RQ_IO) {
            db->env.fatal(db->env.ctx, "a replica could not be written", err);
        }
        if (err == RQ_OK) {
            take_state(db, &n.origins);
            rq_copy_file_remove(&n.file);
            count->compared += n.count.compared;
            count->fetched += n.count.fetched;
        }
    }
    install_fini(&n);
    return err;
}

struct installing {
    const struct rq_copy_source *source;
    bool by_itself;
    struct rq_copy_count *count;
};

static enum rq_err run_install(struct rq_database *db, void *ctx)
{
    const struct installing *i = ctx;
    rq_strand_will_block();
    const enum rq_err err = install(db, i->source, i->by_itself, i->count);
    if (!db->dropped) {
        rq_db_publish(db);
        rq_db_settle(db);
        rq_db_touch(db);
    }
    return err;
}

enum rq_err rq_database_install(struct rq_database *db, const struct rq_copy_source *source, bool by_itself,
                                struct rq_copy_count *ret_count)
{
    struct installing i = { source, by_itself, ret_count };
    return rq_db_call(db, run_install, &i);
}

/* --- what nobody has ----------------------------------------------------------------------------------------------------- */

struct fence {
    uint64_t version;
    struct rq_origins *origins;
};

static enum rq_err run_fence(struct rq_database *db, void *ctx)
{
    const struct fence *f = ctx;
    if (db->dropped) {
        return RQ_EXISTS;
    }
    if (f->version > db->version) {
        rq_origins_fini(&db->origins);
        db->origins = *f->origins;
        *f->origins = (struct rq_origins){ 0 };
        db->version = f->version;
        if (db->file.version <
            f->version) { /* else the file has what the log of before had brought, and that is all of it */
            rq_db_quarantine(db, RQ_CORRUPT, "no member has it in order, and the log does not lead to it any more");
            db->needs_log = false; /* it comes from a member, or not at all */
        }
        rq_db_publish(db);
        rq_db_settle(db);
    }
    return RQ_OK;
}

enum rq_err rq_database_fence(struct rq_database *db, uint64_t version, struct rq_origins *origins)
{
    struct fence f = { version, origins };
    enum rq_err err = rq_db_call(db, run_fence, &f);
    rq_origins_fini(origins);
    return err;
}
