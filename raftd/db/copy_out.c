#include "raftd/db/copy_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/database_impl.h"
#include "raftd/wire/txn.h"
#include "vfs/snapshot.h"

#define HELD_PAGES 1024u /* so many are sent in a moment: the WAL cannot be reset for so long */

struct rq_copy_out {
    struct rq_database *db;        /* counted */
    struct rq_replica_watch watch; /* the strand's, until it is held */
    struct rq_snapshot snapshot;
    bool held;                     /* the snapshot is active, and of this state */
    struct rq_replica_state state; /* at the last answer, as origins */
    struct rq_origins origins;     /* owns */
    uint64_t inode;                /* of the file that is copied */
    uint32_t next;                 /* pages that have changed are told in turn */
};

/* --- on the strand ------------------------------------------------------------------------------------------------------- */

/* Nothing is applied meanwhile. */
static enum rq_err note_state(struct rq_copy_out *c, struct rq_database *db)
{
    struct rq_database_known known;
    enum rq_err err = rq_database_describe(db, &known);
    if (err == RQ_OK) {
        rq_origins_fini(&c->origins);
        c->origins = known.origins;
        c->state = db->file;
    }
    return err;
}

static enum rq_err may_be_copied(const struct rq_database *db)
{
    if (db->dropped) {
        return RQ_NOTFOUND;
    }
    return db->state == RQ_DB_QUARANTINED || db->file.version != db->version ? RQ_QUARANTINED : RQ_OK;
}

static enum rq_err begin(struct rq_database *db, void *ctx)
{
    struct rq_copy_out *c = ctx;
    enum rq_err err = may_be_copied(db);
    if (err == RQ_OK) {
        err = note_state(c, db);
    }
    if (err == RQ_OK && db->version > 0) {
        c->inode = db->inode;
        rq_replica_watch_begin(db->replica, &c->watch);
    }
    return err;
}

static enum rq_err hold(struct rq_copy_out *c, struct rq_database *db)
{
    enum rq_err err = rq_snapshot_begin(&c->snapshot);
    if (err != RQ_OK) {
        return err;
    }
    err = note_state(c, db);
    if (err == RQ_OK && (c->snapshot.version != c->state.version || c->snapshot.db_id != c->state.stamp.db_id)) {
        err = RQ_BUSY; /* somebody has scribbled on -shm */
    }
    if (err != RQ_OK) {
        rq_snapshot_end(&c->snapshot, false);
        return err;
    }
    rq_replica_watch_end(&c->watch);
    c->held = true;
    return RQ_OK;
}

struct telling {
    struct rq_copy_out *copy;
    bool hold;
    struct rq_copy_changed *changed;
};

static void tell(struct rq_copy_out *c, struct rq_copy_changed *changed)
{
    struct rq_page_set *set = &c->watch.changed;
    changed->count = 0;
    while (changed->count < RQ_COPY_CHANGED_MAX && set->count > 0) {
        const uint32_t pgno = rq_page_set_next(set, c->next);
        c->next = pgno + 1; /* 1 behind the last one */
        if (pgno != 0) {
            rq_page_set_drop(set, pgno);
            changed->pgnos[changed->count++] = pgno;
        }
    }
    changed->held = c->held;
    changed->left = set->count;
}

static enum rq_err tell_changed(struct rq_database *db, void *ctx)
{
    const struct telling *t = ctx;
    struct rq_copy_out *c = t->copy;
    enum rq_err err = may_be_copied(db);
    if (err == RQ_OK && c->watch.broken) {
        err = RQ_BUSY;
    }
    if (err == RQ_OK && (t->hold || c->watch.changed.count <= HELD_PAGES)) {
        err = hold(c, db);
    } else if (err == RQ_OK) {
        c->state.version = db->version;
    }
    if (err == RQ_OK) {
        tell(c, t->changed);
    }
    return err;
}

static enum rq_err end_watch(struct rq_database *db, void *ctx)
{
    (void)db;
    rq_replica_watch_end(ctx);
    return RQ_OK;
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */

static enum rq_err read_begin(struct rq_copy_out *c)
{
    if (c->held) {
        return RQ_OK;
    }
    enum rq_err err = rq_snapshot_begin(&c->snapshot);
    if (err == RQ_OK && (c->snapshot.version < c->state.version || c->snapshot.db_id != c->state.stamp.db_id ||
                         c->snapshot.page_size != c->state.page_size)) {
        rq_snapshot_end(&c->snapshot, false);
        err = RQ_BUSY;
    }
    return err;
}

static void read_end(struct rq_copy_out *c)
{
    if (!c->held) {
        rq_snapshot_end(&c->snapshot, false);
    }
}

/* Damage is not passed on: here it fences the database. */
static enum rq_err verify(struct rq_copy_out *c, uint32_t pgno, const uint8_t *page)
{
    char text[RQ_DB_TEXT_BYTES];
    struct rq_replica *r = rq_database_hold(c->db);
    enum rq_err err = r == NULL ? RQ_QUARANTINED : RQ_OK;
    if (err == RQ_OK) { /* else it was made anew, and what is known of its pages is not of what was read */
        err = c->db->inode == c->inode ? rq_replica_verify(r, pgno, page) : RQ_BUSY;
    }
    rq_database_release(c->db);
    if (err == RQ_CORRUPT) {
        (void)snprintf(text, sizeof text, "changed behind raftd's back: page %u was changed", pgno);
        rq_database_quarantine(c->db, text);
        err = RQ_QUARANTINED;
    }
    return err;
}

static enum rq_err read_page(struct rq_copy_out *c, uint32_t pgno, uint8_t *page)
{
    if (pgno > c->snapshot.page_count) {
        memset(page, 0, c->state.page_size);
        return RQ_OK;
    }
    enum rq_err err = rq_snapshot_read(&c->snapshot, pgno, 0, page, c->state.page_size);
    if (err == RQ_OK && rq_snapshot_reads_file(&c->snapshot, pgno)) {
        err = verify(c, pgno, page);
    }
    if (err == RQ_OK && pgno == 1) {
        rq_page1_normalise(page);
    }
    return err;
}

enum rq_err rq_copy_out_hashes(struct rq_copy_out *c, uint32_t first, uint32_t count, uint64_t *ret_hashes)
{
    uint8_t *page = malloc(c->state.page_size);
    enum rq_err err = page == NULL ? RQ_NOMEM : read_begin(c);
    if (err == RQ_OK) {
        for (uint32_t i = 0; err == RQ_OK && i < count; i++) {
            err = read_page(c, first + i, page);
            ret_hashes[i] = err == RQ_OK ? rq_page_hash(page, c->state.page_size) : 0;
        }
        read_end(c);
    }
    free(page);
    return err;
}

enum rq_err rq_copy_out_pages(struct rq_copy_out *c, const uint32_t *pgnos, uint32_t count, uint8_t *ret_pages)
{
    enum rq_err err = read_begin(c);
    if (err == RQ_OK) {
        for (uint32_t i = 0; err == RQ_OK && i < count; i++) {
            err = read_page(c, pgnos[i], ret_pages + (size_t)i * c->state.page_size);
        }
        read_end(c);
    }
    return err;
}

enum rq_err rq_copy_out_changed(struct rq_copy_out *c, bool hold, struct rq_copy_changed *ret_changed)
{
    if (c->held) {
        tell(c, ret_changed);
        return RQ_OK;
    }
    struct telling t = { c, hold, ret_changed };
    return rq_db_call(c->db, tell_changed, &t);
}

bool rq_copy_out_held(const struct rq_copy_out *c, const struct rq_replica_state **ret_state,
                      const struct rq_origins **ret_origins)
{
    *ret_state = &c->state;
    *ret_origins = &c->origins;
    return c->held;
}

/* --- life ---------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_copy_out_new(struct rq_disk *disk, struct rq_database *db, struct rq_copy_out **ret_copy,
                            struct rq_replica_state *ret_state, struct rq_origins *ret_origins)
{
    struct rq_copy_out *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return RQ_NOMEM;
    }
    c->db = rq_database_ref(db);
    c->next = 1;
    rq_snapshot_init(&c->snapshot, disk);
    c->snapshot.path = db->path;
    enum rq_err err = rq_db_call(db, begin, c);
    if (err == RQ_OK && c->state.version > 0) {
        err = rq_snapshot_open(&c->snapshot);
    }
    if (err == RQ_OK) {
        *ret_state = c->state;
        err = rq_origins_copy(&c->origins, ret_origins);
    }
    const bool goes_on = err == RQ_OK && c->state.version > 0;
    if (!goes_on) {
        rq_copy_out_free(c);
    }
    *ret_copy = goes_on ? c : NULL;
    return err;
}

void rq_copy_out_free(struct rq_copy_out *c)
{
    if (c == NULL) {
        return;
    }
    if (c->held) {
        rq_snapshot_end(&c->snapshot, false);
    } else {
        (void)rq_db_call(c->db, end_watch, &c->watch);
    }
    rq_snapshot_fini(&c->snapshot);
    rq_page_set_fini(&c->watch.changed);
    rq_origins_fini(&c->origins);
    rq_database_unref(c->db);
    free(c);
}

struct head {
    uint64_t version;
    struct rq_origins origins;
};

static enum rq_err note_head(struct rq_database *db, void *ctx)
{
    struct head *h = ctx;
    h->version = db->version;
    return db->dropped ? RQ_NOTFOUND : rq_origins_copy(&db->origins, &h->origins);
}

enum rq_err rq_copy_out_head(struct rq_database *db, uint64_t *ret_version, struct rq_origins *ret_origins)
{
    struct head h;
    enum rq_err err = rq_db_call(db, note_head, &h);
    if (err == RQ_OK) {
        *ret_version = h.version;
        *ret_origins = h.origins;
    }
    return err;
}

uint32_t rq_copy_out_page_size(const struct rq_copy_out *c)
{
    return c->state.page_size;
}
