/* Apply: what the log says is committed goes into the replica, in order, once.
 *
 * Transactions that have come together become one of the WAL, which has each page once, as the last of them left it: on a follower,
 * which is sent several entries at a time, and in replay.  Each is made and proved by its hashes as if it were alone, its pages in
 * db->merged, and has its place in version and origins.  Readers go from one version to a later one at once, as they do when they come
 * less often.  All of that is in one task of the strand, which writes what it has merged before it does anything else and before it
 * ends: nobody else finds the replica behind db->file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/db/database_impl.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"

/* The pages of a record, or of a body, as the replica wants them. */
struct source {
    struct rq_page_source source;
    const struct rq_bytes *pages; /* records {page number, page} */
    uint32_t page_size;
    size_t at;
    struct rq_staged_reader *body;
    struct rq_overlay_walk group;
};

static enum rq_err next_from_memory(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct source *s = ctx;
    if (s->at == s->pages->size) {
        return RQ_NOTFOUND;
    }
    *ret_pgno = rq_get_u32(s->pages->data + s->at);
    *ret_page = s->pages->data + s->at + 4;
    s->at += 4 + s->page_size;
    return RQ_OK;
}

static enum rq_err next_from_body(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    return rq_staged_next(((struct source *)ctx)->body, ret_pgno, ret_page);
}

static enum rq_err next_from_group(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    return rq_group_walk_next(&((struct source *)ctx)->group, ret_pgno, ret_page);
}

/* The page that the next transaction builds on; zeros past the end. */
static enum rq_err base_page(struct rq_database *db, uint32_t pgno, uint8_t *page, uint32_t page_size)
{
    if (pgno > db->file.page_count) {
        memset(page, 0, page_size);
        return RQ_OK;
    }
    const enum rq_err err = rq_overlay_read(&db->merged, pgno, 0, page, page_size);
    return err == RQ_NOTFOUND ? rq_replica_read(db->replica, pgno, page) : err;
}

/* Can other members tell whose page is wrong, ours or that of the host which made the transaction? */
static bool is_judged(struct rq_database *db, uint32_t pgno)
{
    return db->env.disputed != NULL && db->env.disputed(db->env.ctx, db, pgno);
}

/* All pages of the record, made from our own base and proved by their hashes, before a byte is written.  CORRUPT: *ret_damaged is the
 * page of ours that is not what we wrote; 0: the record does not fit.
 *
 * may_differ: of a record that does not fit nobody can tell by itself whether this host is wrong or the one that made it.  If the others can,
 * its bytes go into our pages: so all whose pages are the same go on with the same, and a majority of them is right (cluster/compare.h). */
static enum rq_err make_pages(struct rq_database *db, struct rq_txn_reader *reader, bool may_differ,
                              uint32_t *ret_damaged)
{
    struct rq_delta delta;
    uint32_t page_size = reader->head.page_size;
    enum rq_err err;

    *ret_damaged = 0;
    db->work.size = 0;
    while ((err = rq_txn_next(reader, &delta)) == RQ_OK) {
        err = rq_bytes_reserve(&db->work, 4 + page_size);
        if (err != RQ_OK) {
            return err;
        }
        uint8_t *record = db->work.data + db->work.size;
        rq_put_u32(record, delta.pgno);
        err = base_page(db, delta.pgno, record + 4, page_size);
        if (err == RQ_CORRUPT) {
            *ret_damaged = delta.pgno;
        }
        if (err == RQ_OK) {
            err = rq_delta_apply(&delta, record + 4, page_size);
            if (err == RQ_CORRUPT && may_differ && is_judged(db, delta.pgno)) {
                err = base_page(db, delta.pgno, record + 4, page_size);
                err = err == RQ_OK ? rq_delta_put(&delta, record + 4, page_size) : err;
            }
        }
        if (err != RQ_OK) {
            return err;
        }
        db->work.size += 4 + page_size;
    }
    return err == RQ_NOTFOUND ? RQ_OK : err;
}

/* Is it what this host has in flight? */
static bool own(const struct rq_database *db, struct rq_origin origin, uint64_t base)
{
    const struct rq_commit *c = db->in_flight;
    return c != NULL && c->base == base && c->origin.session == origin.session && c->origin.seq == origin.seq;
}

/* Is it the transaction that this host made the record of, a moment ago and on this very base?  Then its pages are what the
 * deltas give, and they are still here. */
static bool own_pages(const struct rq_database *db, const struct rq_txn_head *head, const struct rq_txn_reader *reader)
{
    const struct rq_commit *c = db->in_flight;
    return own(db, rq_txn_origin(reader, 0), head->base) && c->body == NULL &&
           head->origin_count == (c->group != NULL ? c->group->head.origin_count : 1);
}

/* Told at once: the strand publishes nothing while it waits for space. */
static void note_space(struct rq_database *db, bool is_short)
{
    if (atomic_exchange(&db->short_of_space, is_short) != is_short && db->control.head != NULL) {
        atomic_store(&db->control.head->full, rq_db_is_full(db));
    }
}

/* Into the replica.  Space was reserved; where that was not possible (the first commit; replay on a disk that has filled up
 * meanwhile) a committed transaction waits for space, as it may neither fail nor be skipped. */
static enum rq_err write_pages(struct rq_database *db, struct source *s, const struct rq_replica_state *after)
{
    bool told = false;
    for (;;) {
        enum rq_err err;
        if (db->replica != NULL) {
            if (rq_replica_appends_held(db->replica)) {
                rq_strand_will_block();
            }
            err = rq_replica_append(db->replica, &s->source, after);
        } else {
            struct rq_replica *r;
            struct rq_replica_config config = rq_db_replica_config(db);
            err = rq_replica_create(&config, &s->source, after, &r);
            if (err == RQ_EXISTS && told) { /* made by then, only not opened */
                struct rq_replica_state state;
                err = rq_replica_open(&config, &r, &state);
                if (err == RQ_OK && !rq_stamp_equal(&state.stamp, &after->stamp)) {
                    rq_replica_close(r);
                    err = RQ_EXISTS;
                }
            }
            if (err == RQ_OK) {
                char text[RQ_DB_TEXT_BYTES];
                err = rq_db_keep_hashes(db, r, text);
                if (err == RQ_FULL) { /* without them those that are there would become those of other pages */
                    rq_replica_close(r);
                } else {
                    rq_db_set_replica(db, r);
                }
                if (err != RQ_OK && err != RQ_FULL) {
                    rq_db_quarantine(db, err, text);
                }
            }
        }
        if (err == RQ_IO) {
            db->env.fatal(db->env.ctx, "a replica could not be written", err);
        }
        note_space(db, err == RQ_FULL);
        if (err != RQ_FULL) {
            return err;
        }
        if (!told) {
            rq_note(RQ_LEVEL_ERROR, "no space to apply a committed transaction, waiting for it", "id=%u", db->id);
            told = true;
        }
        rq_strand_will_block();
        nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
        s->at = 0;
        err = s->body != NULL ? rq_staged_rewind(s->body) : RQ_OK;
        if (err != RQ_OK) {
            return err;
        }
        rq_overlay_walk_rewind(&s->group);
    }
}

static struct rq_replica_state state_after(const struct rq_database *db, const struct rq_log_entry *e,
                                           const struct rq_txn_head *head)
{
    return (struct rq_replica_state){
        .stamp = { .db_id = db->id,
                   .term = (uint32_t)e->term,
                   .index = e->index,
                   .version_high = (uint32_t)(head->version >> 32) },
        .version = head->version,
        .page_size = head->page_size,
        .page_count = head->page_count,
    };
}

static enum rq_err apply(struct rq_database *db, const struct rq_log_entry *e, const struct rq_txn_head *head,
                         struct rq_txn_reader *reader, const struct rq_entry_staged *staged)
{
    struct source s = { .pages = &db->work, .page_size = head->page_size };
    enum rq_err err;

    s.source.ctx = &s;
    if (staged != NULL || db->replica == NULL || e->blob->bytes > QUICK_BYTES) {
        rq_strand_will_block();
    }
    if (db->file.page_size != 0 && db->file.page_size != head->page_size) {
        return RQ_PAGESIZE;
    }
    if (staged != NULL) {
        s.source.next = next_from_body;
        err = rq_staged_open(db->env.disk, db->env.staged_dir, staged, &s.body);
    } else {
        s.source.next = next_from_memory;
        if (own_pages(db, head, reader) && db->in_flight->group != NULL) {
            s.source.next = next_from_group;
            err = rq_group_walk_init(&s.group, db->in_flight->group);
        } else if (own_pages(db, head, reader)) {
            s.pages = &db->in_flight->pages;
            err = RQ_OK;
        } else {
            uint32_t damaged;
            err = make_pages(db, reader, true, &damaged);
            if (damaged != 0) {
                rq_db_quarantine_page(db, damaged);
            }
        }
    }
    if (err == RQ_OK) {
        const struct rq_replica_state after = state_after(db, e, head);
        err = write_pages(db, &s, &after);
    }
    if (err == RQ_OK) {
        rq_replica_get_state(db->replica, &db->file);
    }
    rq_overlay_walk_fini(&s.group);
    rq_staged_close(s.body);
    if (db->work.capacity > KEEP_BYTES) {
        rq_bytes_fini(&db->work);
        rq_bytes_init(&db->work, WORK_BYTES_MAX);
    }
    return err;
}

/* An entry that is in the file already, and the file is in doubt. */
static void prove(struct rq_database *db, const struct rq_txn_head *head, struct rq_txn_reader *reader,
                  const struct rq_entry_staged *staged)
{
    struct rq_staged_reader *body;
    enum rq_err err;
    rq_strand_will_block();
    if (staged == NULL) {
        err = rq_proof_add(db->proof, reader);
    } else {
        err = rq_staged_open(db->env.disk, db->env.staged_dir, staged, &body);
        if (err == RQ_OK) {
            err = rq_proof_add_staged(db->proof, head, body);
            rq_staged_close(body);
        }
    }
    if (err == RQ_NOMEM || err == RQ_IO) {
        db->env.fatal(db->env.ctx, "a replica could not be proved", err);
    } /* else something is missing, which the end will find */
}

/* Can a body that is missing, or damaged, be had from another member? */
static bool may_fetch(const struct rq_database *db, const struct rq_db_arrivals *a)
{
    const struct rq_carrier *carrier = db->env.carrier;
    return !a->fetched && carrier != NULL && !carrier->is_alone(carrier->ctx);
}

/* The state machine's part, whatever becomes of the pages. */
static void put_origins(struct rq_database *db, const struct rq_txn_head *head, const struct rq_txn_reader *reader,
                        const struct rq_entry_staged *staged)
{
    for (uint32_t i = 0; i < head->origin_count; i++) {
        if (rq_origins_put(&db->origins, staged != NULL ? staged->origin : rq_txn_origin(reader, i)) != RQ_OK) {
            db->env.fatal(db->env.ctx, "no memory to apply a committed transaction", RQ_NOMEM);
        }
    }
}

/* CORRUPT: the body of the first is damaged and is to be fetched; nothing has happened. */
static enum rq_err apply_entry(struct rq_database *db, const struct rq_db_arrivals *a)
{
    const struct rq_log_entry *e = &a->first->entry;
    struct rq_txn_reader reader;
    struct rq_entry_staged staged;
    struct rq_txn_head head;
    char text[RQ_DB_TEXT_BYTES];
    bool is_staged = e->type == RQ_ENTRY_STAGED;
    enum rq_err err = is_staged ? rq_entry_get_staged(e->blob->data, e->blob->bytes, &staged)
                                : rq_txn_read(&reader, e->blob->data, e->blob->bytes);
    if (err != RQ_OK) {
        (void)snprintf(text, sizeof text, "log entry %llu is not understood: %s", (unsigned long long)e->index,
                       rq_err_text(err));
        rq_db_quarantine(db, err, text);
        return RQ_OK;
    }
    head = is_staged ? staged.head : reader.head;
    if (head.base != db->version) {
        return RQ_OK; /* not made on the head: it has no effect, on any host */
    }
    if (db->file.version == db->version && e->index <= db->file.stamp.index) {
        return RQ_OK; /* what another member sent holds it, or holds that it had no effect */
    }
    put_origins(db, &head, &reader, is_staged ? &staged : NULL);
    if (!own(db, is_staged ? staged.origin : rq_txn_origin(&reader, 0), head.base)) {
        rq_db_turn_applied_foreign(db);
    }
    db->version = head.version;
    if (e->index == db->file.stamp.index &&
        (db->version != db->file.version || (uint32_t)e->term != db->file.stamp.term)) {
        db->diverged = true;
    }
    if (db->proof != NULL && e->index <= db->file.stamp.index) {
        prove(db, &head, &reader, is_staged ? &staged : NULL);
        return RQ_OK;
    }
    rq_db_end_doubt(db);
    if (e->index <= db->file.stamp.index) {
        return RQ_OK; /* in the file already */
    }
    if (db->state == RQ_DB_QUARANTINED) {
        rq_db_missed_add(db, e, &head, is_staged ? &staged : NULL);
        return RQ_OK;
    }
    if (db->file.version != head.base) {
        rq_db_quarantine(db, RQ_CORRUPT, "the log does not go on where the file ends");
        return RQ_OK;
    }
    err = apply(db, e, &head, &reader, is_staged ? &staged : NULL);
    if (err == RQ_NOMEM) {
        db->env.fatal(db->env.ctx, "no memory to apply a committed transaction", err);
    }
    if (is_staged && err == RQ_CORRUPT && may_fetch(db, a)) {
        db->version = head.base;
        rq_origins_take_back(&db->origins);
        return err;
    }
    if (err != RQ_OK) {
        bool body = is_staged && (err == RQ_CORRUPT || err == RQ_NOTFOUND || err == RQ_VERSION);
        (void)snprintf(text, sizeof text, "%stransaction %llu (log entry %llu) %s: %s",
                       body ? "the staged body of " : "", (unsigned long long)head.version,
                       (unsigned long long)e->index, body ? "cannot be used" : "does not fit the file",
                       rq_err_text(err));
        rq_db_quarantine(db, err, text);
        /* The files are in order.  Who has the body may come back; and who has applied and released it may lack what comes behind:
         * with the log either of them can bring this replica up to date. */
        db->needs_log = db->needs_log || (body && err == RQ_NOTFOUND);
        rq_db_missed_add(db, e, &head, is_staged ? &staged : NULL);
        return RQ_OK;
    }
    db->state = RQ_DB_LIVE;
    return RQ_OK;
}

/* Is the body of the first needed, and not here? */
static bool lacks_body(struct rq_database *db, const struct rq_db_arrivals *a)
{
    const struct rq_log_entry *e = &a->first->entry;
    struct rq_entry_staged staged;
    struct rq_file *file;
    if (e->type != RQ_ENTRY_STAGED || !may_fetch(db, a) ||
        rq_entry_get_staged(e->blob->data, e->blob->bytes, &staged) != RQ_OK || staged.head.base != db->version) {
        return false;
    }
    const bool in_file = e->index <= db->file.stamp.index;
    if (in_file ? db->proof == NULL : db->state == RQ_DB_QUARANTINED) {
        return false;
    }
    enum rq_err err = rq_staged_open_file(db->env.disk, db->env.staged_dir, staged.hash, staged.body_bytes, &file);
    if (err == RQ_OK) {
        db->env.disk->ops->close(file);
    }
    return err == RQ_NOTFOUND;
}

/* It is here, or is nowhere: then the entry is judged without it. */
static void body_fetched(void *ctx, enum rq_err err)
{
    struct rq_db_arrivals *a = ctx;
    a->fetched = true;
    if (err != RQ_OK) {
        rq_note(RQ_LEVEL_ERROR, "no member has a staged body any more", "id=%u index=%llu err=%s", a->db->id,
                (unsigned long long)a->first->entry.index, rq_err_name(err));
    }
    atomic_store(&a->db->waits, false);
    rq_strand_resume(&a->db->place->strand, &a->task);
}

/* The database stands still meanwhile, but no thread does. */
static void fetch_body(struct rq_database *db, struct rq_db_arrivals *a)
{
    const struct rq_blob *blob = a->first->entry.blob;
    struct rq_entry_staged staged;
    if (rq_entry_get_staged(blob->data, blob->bytes, &staged) != RQ_OK) {
        db->env.fatal(db->env.ctx, "an entry of the log has changed", RQ_CORRUPT);
    }
    /* What is there, if anything is, is damaged. */
    if (rq_shelf_discard(db->env.shelf, staged.hash) == RQ_IO) {
        db->env.fatal(db->env.ctx, "a damaged staged body could not be deleted", RQ_IO);
    }
    atomic_store(&db->waits, true);
    rq_strand_pause(&db->place->strand);
    db->env.carrier->fetch(db->env.carrier->ctx, &staged, body_fetched, a);
}

/* --- several together ---------------------------------------------------------------------------------------------------- */

/* What was applied is in the replica: everybody hears of it. */
static void tell(struct rq_database *db, uint64_t begin_ns)
{
    const uint64_t applied_ns = rq_clock_ns();
    rq_stage_took(RQ_STAGE_apply, applied_ns - begin_ns);
    rq_db_publish(db);
    rq_db_settle(db);
    rq_stage_took(RQ_STAGE_answer, rq_clock_ns() - applied_ns);
    if (db->replica != NULL) {
        rq_replica_begin_sync(db->replica);
    }
    rq_db_touch(db);
}

/* Puts the pages of a transaction over those of the ones before it.  False: it is to be applied alone; nothing has happened.  One that
 * shortens the database is, for the pages behind its end are zero for the next one (rule Z), whatever they were. */
static bool merge(struct rq_database *db, const struct rq_log_entry *e)
{
    struct rq_txn_reader reader;
    uint32_t damaged;
    if (e->type != RQ_ENTRY_TXN || e->blob->bytes > QUICK_BYTES || db->state != RQ_DB_LIVE || db->replica == NULL ||
        db->proof != NULL || rq_txn_read(&reader, e->blob->data, e->blob->bytes) != RQ_OK) {
        return false;
    }
    const struct rq_txn_head head = reader.head;
    if (head.base != db->version || head.base != db->file.version || e->index <= db->file.stamp.index ||
        head.page_size != db->file.page_size || head.page_count < db->file.page_count ||
        own(db, rq_txn_origin(&reader, 0), head.base) ||
        ((uint64_t)db->merged.count + reader.delta_count) * head.page_size > MERGED_BYTES_MAX ||
        make_pages(db, &reader, false, &damaged) != RQ_OK) {
        return false;
    }
    if (db->merged_count == 0) {
        db->merged_ns = rq_clock_ns();
    }
    for (size_t at = 0; at < db->work.size; at += 4 + head.page_size) {
        const uint8_t *record = db->work.data + at;
        const enum rq_err err = rq_overlay_put(&db->merged, rq_get_u32(record), record + 4, head.page_size);
        if (err != RQ_OK) {
            db->env.fatal(db->env.ctx, "no memory to apply a committed transaction", err);
        }
    }
    put_origins(db, &head, &reader, NULL);
    rq_db_turn_applied_foreign(db);
    RQ_COUNT(db, applied);
    db->version = head.version;
    db->file = state_after(db, e, &head);
    db->merged_count++;
    return true;
}

/* What was merged becomes one transaction of the WAL. */
static void write_merged(struct rq_database *db)
{
    if (db->merged_count == 0) {
        return;
    }
    struct source s = { .source = { &s, next_from_group }, .page_size = db->file.page_size };
    const struct rq_replica_state after = db->file;
    enum rq_err err = rq_overlay_walk_init(&s.group, &db->merged, after.page_count);
    if (err == RQ_OK) {
        err = write_pages(db, &s, &after);
    }
    if (err == RQ_NOMEM) {
        db->env.fatal(db->env.ctx, "no memory to apply a committed transaction", err);
    }
    rq_replica_get_state(db->replica, &db->file);
    if (err != RQ_OK) {
        char text[RQ_DB_TEXT_BYTES];
        (void)snprintf(text, sizeof text, "the transactions up to %llu (log entry %llu) do not fit the file: %s",
                       (unsigned long long)after.version, (unsigned long long)after.stamp.index, rq_err_text(err));
        rq_db_quarantine(db, err, text);
        rq_db_missed_unknown(db);
    }
    rq_overlay_walk_fini(&s.group);
    rq_overlay_clear(&db->merged);
    db->merged_count = 0;
    db->applied_index = after.stamp.index;
    tell(db, db->merged_ns);
}

/* False: its body is being fetched. */
static bool apply_alone(struct rq_database *db, struct rq_db_arrivals *a)
{
    const struct rq_log_entry *e = &a->first->entry;
    write_merged(db);
    const uint64_t begin_ns = rq_clock_ns();
    if (e->type == RQ_ENTRY_MARK) {
        rq_db_mark(db, e);
    } else if (lacks_body(db, a) || apply_entry(db, a) != RQ_OK) {
        fetch_body(db, a);
        return false;
    }
    RQ_COUNT(db, applied);
    if (db->in_flight != NULL && db->in_flight->base < db->version) {
        rq_stage_took(RQ_STAGE_replicate, begin_ns - db->in_flight->since_ns);
    }
    if (e->index > db->applied_index) { /* in replay the file is ahead */
        db->applied_index = e->index;
    }
    tell(db, begin_ns);
    return true;
}

static void run_committed(struct rq_task *task)
{
    struct rq_db_arrivals *a = (struct rq_db_arrivals *)task;
    struct rq_database *db = a->db;
    pthread_mutex_lock(&db->arrivals_lock);
    if (db->arrivals == a) { /* now nothing is added any more */
        db->arrivals = NULL;
    }
    pthread_mutex_unlock(&db->arrivals_lock);
    while (a->first != NULL) {
        struct rq_db_arrival *one = a->first;
        const bool with_others = one->next != NULL || db->merged_count > 0;
        if (!db->dropped && !(with_others && merge(db, &one->entry)) && !apply_alone(db, a)) {
            return;
        }
        a->first = one->next;
        a->fetched = false;
        rq_blob_unref(one->entry.blob);
        free(one);
    }
    write_merged(db);
    rq_database_unref(db);
    free(a);
}

void rq_database_post(struct rq_database *db, struct rq_task *task, enum rq_carry how)
{
    pthread_mutex_lock(&db->arrivals_lock);
    db->arrivals = NULL;
    pthread_mutex_unlock(&db->arrivals_lock);
    rq_strand_post(&db->place->strand, task, how);
}

void rq_database_committed(struct rq_database *db, const struct rq_log_entry *entry)
{
    struct rq_db_arrival *one = malloc(sizeof *one);
    struct rq_db_arrivals *fresh = NULL;
    if (one == NULL) {
        db->env.fatal(db->env.ctx, "no memory", RQ_NOMEM);
    }
    *one = (struct rq_db_arrival){ .entry = *entry };
    rq_blob_ref(one->entry.blob);
    pthread_mutex_lock(&db->arrivals_lock);
    if (db->arrivals == NULL || db->arrivals->count == ARRIVALS_MAX) {
        fresh = calloc(1, sizeof *fresh);
        if (fresh == NULL) {
            db->env.fatal(db->env.ctx, "no memory", RQ_NOMEM);
        }
        fresh->task.run = run_committed;
        fresh->db = rq_database_ref(db);
        fresh->last = &fresh->first;
        db->arrivals = fresh;
    }
    *db->arrivals->last = one;
    db->arrivals->last = &one->next;
    db->arrivals->count++;
    pthread_mutex_unlock(&db->arrivals_lock);
    if (fresh != NULL) {
        rq_strand_post(&db->place->strand, &fresh->task, RQ_CARRY);
    }
}
