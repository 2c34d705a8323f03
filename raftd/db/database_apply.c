/* Apply: what the log says is committed goes into the replica, in order, once. */
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

/* All pages of the record, made from our own base and proved by their hashes, before a byte is written. */
static enum rq_err make_pages(struct rq_database *db, struct rq_txn_reader *reader)
{
    struct rq_delta delta;
    uint32_t page_size = reader->head.page_size;
    enum rq_err err;

    db->work.size = 0;
    while ((err = rq_txn_next(reader, &delta)) == RQ_OK) {
        err = rq_bytes_reserve(&db->work, 4 + page_size);
        if (err != RQ_OK) {
            return err;
        }
        uint8_t *record = db->work.data + db->work.size;
        rq_put_u32(record, delta.pgno);
        if (delta.pgno > db->file.page_count) {
            memset(record + 4, 0, page_size);
        } else {
            err = rq_replica_read(db->replica, delta.pgno, record + 4);
            if (err == RQ_CORRUPT) {
                rq_db_quarantine_page(db, delta.pgno);
            }
        }
        if (err == RQ_OK) {
            err = rq_delta_apply(&delta, record + 4, page_size);
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
            err = make_pages(db, reader);
        }
    }
    if (err == RQ_OK) {
        const struct rq_replica_state after = {
            .stamp = { .db_id = db->id,
                       .term = (uint32_t)e->term,
                       .index = e->index,
                       .version_high = (uint32_t)(head->version >> 32) },
            .version = head->version,
            .page_size = head->page_size,
            .page_count = head->page_count,
        };
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
static bool may_fetch(const struct rq_database *db, const struct rq_db_errand *errand)
{
    const struct rq_carrier *carrier = db->env.carrier;
    return !errand->fetched && carrier != NULL && !carrier->is_alone(carrier->ctx);
}

/* CORRUPT: the body of the entry is damaged and is to be fetched; nothing has happened. */
static enum rq_err apply_entry(struct rq_database *db, const struct rq_db_errand *errand)
{
    const struct rq_log_entry *e = &errand->entry;
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
    for (uint32_t i = 0; i < head.origin_count; i++) {
        if (rq_origins_put(&db->origins, is_staged ? staged.origin : rq_txn_origin(&reader, i)) != RQ_OK) {
            db->env.fatal(db->env.ctx, "no memory to apply a committed transaction", RQ_NOMEM);
        }
    }
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
    if (is_staged && err == RQ_CORRUPT && may_fetch(db, errand)) {
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
        rq_db_missed_add(db, e, &head, is_staged ? &staged : NULL);
        return RQ_OK;
    }
    db->state = RQ_DB_LIVE;
    return RQ_OK;
}

/* Is the body of the entry needed, and not here? */
static bool lacks_body(struct rq_database *db, const struct rq_db_errand *errand)
{
    const struct rq_log_entry *e = &errand->entry;
    struct rq_entry_staged staged;
    struct rq_file *file;
    if (e->type != RQ_ENTRY_STAGED || !may_fetch(db, errand) ||
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
    struct rq_db_errand *e = ctx;
    e->fetched = true;
    if (err != RQ_OK) {
        rq_note(RQ_LEVEL_ERROR, "no member has a staged body any more", "id=%u index=%llu err=%s", e->db->id,
                (unsigned long long)e->entry.index, rq_err_name(err));
    }
    atomic_store(&e->db->waits, false);
    rq_strand_resume(&e->db->place->strand, &e->task);
}

/* The database stands still meanwhile, but no thread does. */
static void fetch_body(struct rq_database *db, struct rq_db_errand *e)
{
    struct rq_entry_staged staged;
    if (rq_entry_get_staged(e->entry.blob->data, e->entry.blob->bytes, &staged) != RQ_OK) {
        db->env.fatal(db->env.ctx, "an entry of the log has changed", RQ_CORRUPT);
    }
    /* What is there, if anything is, is damaged. */
    if (rq_shelf_discard(db->env.shelf, staged.hash) == RQ_IO) {
        db->env.fatal(db->env.ctx, "a damaged staged body could not be deleted", RQ_IO);
    }
    atomic_store(&db->waits, true);
    rq_strand_pause(&db->place->strand);
    db->env.carrier->fetch(db->env.carrier->ctx, &staged, body_fetched, e);
}

static void run_committed(struct rq_task *task)
{
    struct rq_db_errand *e = (struct rq_db_errand *)task;
    struct rq_database *db = e->db;
    if (!db->dropped && e->entry.type == RQ_ENTRY_MARK) {
        rq_db_mark(db, &e->entry);
    }
    if (!db->dropped) {
        const uint64_t begin_ns = rq_clock_ns();
        if (e->entry.type != RQ_ENTRY_MARK && (lacks_body(db, e) || apply_entry(db, e) != RQ_OK)) {
            fetch_body(db, e);
            return;
        }
        const uint64_t applied_ns = rq_clock_ns();
        rq_stage_took(RQ_STAGE_apply, applied_ns - begin_ns);
        RQ_COUNT(db, applied);
        if (db->in_flight != NULL && db->in_flight->base < db->version) {
            rq_stage_took(RQ_STAGE_replicate, begin_ns - db->in_flight->since_ns);
        }
        if (e->entry.index > db->applied_index) { /* in replay the file is ahead */
            db->applied_index = e->entry.index;
        }
        rq_db_publish(db);
        rq_db_settle(db);
        rq_stage_took(RQ_STAGE_answer, rq_clock_ns() - applied_ns);
        rq_db_touch(db);
    }
    rq_blob_unref(e->entry.blob);
    rq_database_unref(db);
    free(e);
}

void rq_database_committed(struct rq_database *db, const struct rq_log_entry *entry)
{
    struct rq_db_errand *e = rq_db_errand_new(db, run_committed);
    e->entry = *entry;
    rq_blob_ref(e->entry.blob);
    rq_strand_post(&db->place->strand, &e->task, RQ_CARRY);
}
