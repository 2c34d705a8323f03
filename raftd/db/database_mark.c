/* Mark: a MARK entry changes nothing, but where it stands in the log every member has the same state of the database.  Here it is held
 * still for whoever compares or copies it. */
#include <stdio.h>
#include <stdlib.h>

#include "raftd/db/database_impl.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"

void rq_view_free(struct rq_view *v)
{
    if (v != NULL) {
        rq_snapshot_end(&v->snapshot, false);
        rq_snapshot_fini(&v->snapshot);
        free(v);
    }
}

/* On the strand nothing is applied meanwhile: the snapshot is of the very state that is described.  NULL: there is none, also where another
 * member's database was installed that is newer than this place of the log. */
static struct rq_view *view_new(struct rq_database *db, uint64_t index)
{
    if (db->state != RQ_DB_LIVE || db->file.version != db->version || db->file.stamp.index > index) {
        return NULL;
    }
    struct rq_view *v = calloc(1, sizeof *v);
    if (v == NULL) {
        return NULL;
    }
    rq_snapshot_init(&v->snapshot, db->env.disk);
    v->snapshot.path = db->path;
    v->snapshot.boot = db->env.boot;
    v->state = db->file;
    v->inode = db->inode;
    /* Another version: somebody has scribbled on -shm. */
    const bool right = rq_snapshot_open(&v->snapshot) == RQ_OK && rq_snapshot_begin(&v->snapshot) == RQ_OK &&
                       v->snapshot.version == db->version && v->snapshot.db_id == db->id &&
                       v->snapshot.page_count == db->file.page_count;
    if (!right) {
        rq_view_free(v);
    }
    return right ? v : NULL;
}

/* Whoever waits for this very entry. */
static struct rq_repair *repair_of(struct rq_database *db, const struct rq_entry_mark *mark)
{
    struct rq_repair *r = NULL;
    pthread_mutex_lock(&db->info_lock);
    if (db->repair != NULL && db->repair->nonce == mark->nonce) {
        r = db->repair;
        db->repair = NULL;
    }
    pthread_mutex_unlock(&db->info_lock);
    return r;
}

void rq_db_mark(struct rq_database *db, const struct rq_log_entry *e)
{
    struct rq_entry_mark mark;
    if (!db->caught_up || rq_entry_get_mark(e->blob->data, e->blob->bytes, &mark) != RQ_OK) {
        return; /* in replay nobody waits for it any more */
    }
    struct rq_repair *r = repair_of(db, &mark);
    if (r == NULL) {
        db->env.marked(db->env.ctx, db, &mark, e->index, view_new(db, e->index));
        return;
    }
    rq_strand_will_block();
    const enum rq_err err = rq_db_repair(db, r, e->index);
    pthread_mutex_lock(&r->lock);
    r->err = err;
    r->done = true;
    pthread_cond_signal(&r->ended);
    pthread_mutex_unlock(&r->lock);
}

/* Damage is not passed on: here it fences the database. */
enum rq_err rq_view_page(struct rq_view *v, struct rq_database *db, uint32_t pgno, uint8_t *page)
{
    char text[RQ_DB_TEXT_BYTES];
    if (pgno == 0 || pgno > v->state.page_count) {
        return RQ_PROTOCOL;
    }
    enum rq_err err = rq_snapshot_read(&v->snapshot, pgno, 0, page, v->state.page_size);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_replica *r = rq_database_hold(db);
    if (r == NULL ||
        db->inode != v->inode) { /* else it was made anew, and what is known of its pages is not of what was read */
        err = RQ_QUARANTINED;
    } else if (rq_snapshot_reads_file(&v->snapshot, pgno)) {
        err = rq_replica_verify(r, pgno, page);
    }
    rq_database_release(db);
    if (err == RQ_CORRUPT) {
        (void)snprintf(text, sizeof text, "changed behind raftd's back: page %u was changed", pgno);
        rq_database_quarantine(db, text);
        err = RQ_QUARANTINED;
    }
    if (err == RQ_OK && pgno == 1) {
        rq_page1_normalise(page);
    }
    return err;
}

enum rq_err rq_view_hashes(struct rq_view *v, struct rq_database *db, uint32_t first, uint32_t count,
                           uint64_t *ret_hashes)
{
    uint8_t *page = malloc(v->state.page_size);
    enum rq_err err = page == NULL ? RQ_NOMEM : RQ_OK;
    for (uint32_t i = 0; err == RQ_OK && i < count; i++) {
        err = rq_view_page(v, db, first + i, page);
        ret_hashes[i] = err == RQ_OK ? rq_page_hash(page, v->state.page_size) : 0;
    }
    free(page);
    return err;
}
