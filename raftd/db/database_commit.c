/* Commit: what comes from applications is judged, checked, diffed against our own base, and handed to the node. */
#include <stdlib.h>
#include <string.h>

#include "raftd/db/database_impl.h"
#include "raftd/db/executor.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"

enum rq_err rq_commit_new(struct rq_commit **ret_commit)
{
    struct rq_commit *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return RQ_NOMEM;
    }
    rq_bytes_init(&c->pages, RQ_COMMIT_BYTES_MAX);
    *ret_commit = c;
    return RQ_OK;
}

void rq_commit_free(struct rq_commit *c)
{
    if (c == NULL) {
        return;
    }
    rq_bytes_fini(&c->pages);
    rq_staged_free(c->body);
    if (c->db != NULL) {
        rq_database_unref(c->db);
    }
    free(c);
}

enum rq_err rq_commit_check_pages(uint8_t *records, size_t bytes, uint32_t page_size, uint32_t db_page_count,
                                  uint64_t base, uint32_t *last_pgno, const char **ret_text)
{
    *ret_text = "";
    if (page_size < 512 || page_size > 65536 || (page_size & (page_size - 1)) != 0 || bytes % (page_size + 4) != 0) {
        *ret_text = "page size is none of SQLite's";
        return RQ_PROTOCOL;
    }
    for (size_t at = 0; at < bytes; at += page_size + 4) {
        uint32_t pgno = rq_get_u32(records + at);
        uint8_t *page = records + at + 4;
        if (pgno <= *last_pgno || pgno > db_page_count) {
            *ret_text = "pages are not ascending, or beyond the end of the database";
            return RQ_PROTOCOL;
        }
        if (pgno == 1) {
            uint32_t header_size = (uint32_t)page[16] << 8 | page[17];
            if (memcmp(page, "SQLite format 3", 16) != 0 || (header_size == 1 ? 65536 : header_size) != page_size ||
                rq_get_u32(page + 28) != db_page_count) {
                *ret_text = "page 1 is not the first page of a SQLite database of that size";
                return RQ_CORRUPT;
            }
            if (rq_get_u32(page + 24) != (uint32_t)(base + 1)) {
                *ret_text = "the change counter of page 1 is not the base's plus one";
                return RQ_PROTOCOL;
            }
            rq_page1_normalise(page);
        } else if (*last_pgno == 0) {
            *ret_text = "page 1 is missing";
            return RQ_PROTOCOL;
        }
        *last_pgno = pgno;
    }
    return RQ_OK;
}

/* Into a file; also what is collected so far, the first time. */
static enum rq_err stage(struct rq_commit *c, struct rq_disk *disk, const char *staged_dir, const uint8_t *records,
                         size_t bytes)
{
    enum rq_err err = RQ_OK;
    rq_strand_will_block();
    if (c->body == NULL) {
        const struct rq_body_head head = { c->page_size, c->db_page_count };
        err = rq_staged_new(disk, staged_dir, &head, &c->body);
    }
    if (err == RQ_OK) {
        err = rq_staged_add(c->body, records, bytes);
    }
    if (err == RQ_IO) {
        rq_fatal("a staged body could not be written", err);
    }
    return err;
}

enum rq_err rq_commit_add_pages(struct rq_commit *c, struct rq_disk *disk, const char *staged_dir,
                                const uint8_t *records, size_t bytes, uint32_t *last_pgno, const char **ret_text)
{
    enum rq_err err;
    *ret_text = "";
    if (c->body != NULL) { /* behind page 1, so that order and place are all there is to check */
        err = stage(c, disk, staged_dir, records, bytes);
        if (err == RQ_MISUSE) {
            err = RQ_PROTOCOL;
            *ret_text = "pages are not ascending, or beyond the end of the database";
        }
        return err;
    }
    const size_t at = c->pages.size;
    err = rq_bytes_put(&c->pages, records, bytes);
    if (err == RQ_OK) {
        err = rq_commit_check_pages(c->pages.data + at, bytes, c->page_size, c->db_page_count, c->base, last_pgno,
                                    ret_text);
    }
    if (err == RQ_OK && c->pages.size > RQ_TXN_MEMORY_MAX) {
        err = stage(c, disk, staged_dir, c->pages.data, c->pages.size);
        rq_bytes_fini(&c->pages);
    }
    return err;
}

/* --- judging and answering ---------------------------------------------------------------------------------------------------- */

static void consider(struct rq_database *db, struct rq_commit *c);

void rq_db_answer(struct rq_database *db, struct rq_commit *c, enum rq_err err, const char *text)
{
    struct rq_msg_outcome outcome = {
        .err = err,
        .version = err == RQ_OK ? (c->group != NULL ? c->group->head.version : c->base + 1) : db->version,
        .text = { text, (uint32_t)strlen(text) },
    };
    c->answer(c, &outcome);
}

/* What the state machine says about a transaction that was made on a base which is not the head any more. */
static enum rq_err outcome_of(const struct rq_database *db, struct rq_origin origin, uint64_t base)
{
    struct rq_origin applied;
    if (!rq_origins_find(&db->origins, base, &applied)) {
        return RQ_UNKNOWN;
    }
    return applied.session == origin.session && applied.seq == origin.seq ? RQ_OK : RQ_REFUSED;
}

/* Whoever waits for the head to move.  A waiter that is judged again may become the one in flight. */
void rq_db_consider_waiting(struct rq_database *db)
{
    struct rq_commit *list = db->waiting_first;
    db->waiting_first = db->waiting_last = NULL;
    while (list != NULL) {
        struct rq_commit *c = list;
        list = c->next;
        consider(db, c);
    }
}

/* Does this session hold the turn, and in which slot? */
bool rq_db_turn_holder(const struct rq_database *db, uint64_t session, uint32_t *ret_slot)
{
    uint32_t holder = (uint32_t)atomic_load(&db->control.head->turn) & 0xfffu; /* slot + 1 */
    if (holder < 1 || holder > RQ_SLOT_COUNT || atomic_load(&db->control.slots[holder - 1].session) != session) {
        return false;
    }
    *ret_slot = holder - 1;
    return true;
}

/* The head has moved, or never will by what was in flight. */
void rq_db_settle(struct rq_database *db)
{
    struct rq_commit *c = db->in_flight;
    if (c != NULL && c->base < db->version) {
        enum rq_err err = outcome_of(db, c->origin, c->base);
        (void)rq_db_take_in_flight(db);
        rq_db_turn_step(db); /* used up: it is not passed on here */
        if (err == RQ_OK && db->control.head != NULL) {
            /* The next writer starts while this one is still being told. */
            uint32_t slot;
            if (rq_db_turn_holder(db, c->origin.session, &slot)) {
                rq_turn_pass(&db->control, slot);
            }
        }
        rq_db_answer(db, c, err, "");
    }
    if (db->in_flight == NULL && db->waiting_first != NULL) {
        rq_db_consider_waiting(db);
    }
    rq_db_turn_step(db);
}

/* --- preparing ------------------------------------------------------------------------------------------------------------------- */

/* Space for the transaction once it is committed: applying it may not fail. */
static enum rq_err reserve(struct rq_database *db, uint32_t page_size, uint32_t db_page_count, uint32_t page_count)
{
    uint32_t frames = page_count + 1; /* page 1 may be re-written */
    if (db_page_count > db->file.page_count) {
        frames += db_page_count - db->file.page_count; /* rule Z: the pages in between, as zeros */
    }
    if (db->replica != NULL) {
        if (rq_replica_appends_held(db->replica)) {
            rq_strand_will_block();
        }
        return rq_replica_reserve(db->replica, frames);
    }
    uint64_t free_bytes;
    enum rq_err err = db->env.disk->ops->space(db->env.disk, db->env.dir, &free_bytes);
    if (err == RQ_OK && free_bytes < (uint64_t)frames * page_size + SPACE_MARGIN) {
        err = RQ_FULL;
    }
    return err;
}

/* The record: which bytes changed against our own base. */
static enum rq_err make_record(struct rq_database *db, struct rq_commit *c)
{
    struct rq_txn_head head = {
        .db_id = db->id,
        .page_size = c->page_size,
        .page_count = c->db_page_count,
        .base = c->base,
        .version = c->base + 1,
        .origin_count = 1,
    };
    uint8_t *base = NULL;
    size_t record_bytes = 4 + c->page_size;
    enum rq_err err;

    db->record.size = 0;
    if (db->replica != NULL) {
        db->work.size = 0;
        err = rq_bytes_reserve(&db->work, c->page_size);
        if (err != RQ_OK) {
            return err;
        }
        base = db->work.data;
    }
    err = rq_txn_begin(&db->record, &head, &c->origin);
    for (size_t at = 0; err == RQ_OK && at < c->pages.size; at += record_bytes) {
        uint32_t pgno = rq_get_u32(c->pages.data + at);
        bool old = pgno <= db->file.page_count;
        if (old) {
            err = rq_replica_read(db->replica, pgno, base);
        }
        if (err == RQ_CORRUPT) {
            rq_db_quarantine_page(db, pgno);
            return RQ_QUARANTINED;
        }
        if (err == RQ_OK) {
            err = rq_txn_add(&db->record, pgno, old ? base : NULL, c->pages.data + at + 4, c->page_size);
        }
    }
    return err == RQ_OK ? rq_txn_end(&db->record, 0) : err;
}

/* For rq_group_record(). */
static enum rq_err base_page(void *ctx, uint32_t pgno, uint8_t *page, uint32_t page_size)
{
    const struct rq_database *db = ctx;
    if (pgno > db->file.page_count) {
        memset(page, 0, page_size);
        return RQ_OK;
    }
    return rq_replica_read(db->replica, pgno, page);
}

static void run_brought(struct rq_task *task)
{
    struct rq_db_errand *e = (struct rq_db_errand *)task;
    rq_db_recheck(e->db);
    rq_database_unref(e->db);
    free(e);
}

static void brought(void *ctx)
{
    struct rq_database *db = ctx;
    rq_strand_post(&db->place->strand, &rq_db_errand_new(db, run_brought)->task, RQ_HAND_OVER);
}

/* The body goes to the other voters.  file: as in carrier.h. */
static enum rq_err bring(struct rq_database *db, struct rq_file *file)
{
    const struct rq_carrier *carrier = db->env.carrier;
    db->carried_ms = rq_clock_ms();
    return carrier->bring(carrier->ctx, &db->staged, file, brought, db, &db->carriage);
}

void rq_db_drop_staged(struct rq_database *db)
{
    if (db->carriage != NULL) {
        db->env.carrier->leave(db->carriage);
        db->carriage = NULL;
    }
    if (db->staged_expected) {
        db->staged_expected = false;
        if (rq_shelf_forget(db->env.shelf, db->staged.hash, db->staged.origin) == RQ_IO) {
            db->env.fatal(db->env.ctx, "a staged body could not be deleted", RQ_IO);
        }
    }
}

/* A durable body, on its way to the others, and the small entry that names it. */
static enum rq_err make_staged(struct rq_database *db, struct rq_commit *c)
{
    const struct rq_carrier *carrier = db->env.carrier;
    struct rq_file *file;
    rq_strand_will_block();
    db->staged = (struct rq_entry_staged){
        .head = { .db_id = db->id,
                  .page_size = c->page_size,
                  .page_count = c->db_page_count,
                  .base = c->base,
                  .version = c->base + 1,
                  .origin_count = 1 },
        .origin = c->origin,
    };
    enum rq_err err = rq_staged_end(c->body, db->staged.hash, &db->staged.body_bytes);
    if (err == RQ_OK) {
        err = rq_shelf_expect(db->env.shelf, db->staged.hash, db->staged.origin, RQ_SHELF_FOR_EVER);
        db->staged_expected = err == RQ_OK;
    }
    if (err == RQ_OK && carrier != NULL && !carrier->is_alone(carrier->ctx)) {
        err = rq_staged_reopen(c->body, &file);
        if (err == RQ_OK) {
            err = bring(db, file);
        }
    }
    if (err == RQ_OK) {
        err = rq_staged_seal(c->body, db->staged.hash, &db->staged.body_bytes);
    }
    if (err == RQ_IO) {
        db->env.fatal(db->env.ctx, "a staged body could not be synced", err);
    }
    db->record.size = 0;
    return err == RQ_OK ? rq_entry_put_staged(&db->record, &db->staged) : err;
}

/* --- on its way --------------------------------------------------------------------------------------------------------- */

#define RETRY_MS 50
/* So long a transaction that no leader has got waits for one.  Less than an application waits by default: it hears that it failed
 * for certain. */
#define LEADER_WAIT_MS 9000

/* One submission.  An answer may come when the state machine has settled the matter already: then it is nobody's. */
struct attempt {
    struct rq_submit submit; /* first */
    struct rq_task told;
    struct rq_database *db; /* counted */
    uint64_t number;
    enum rq_err err;
};

static void attempt_free(struct attempt *a)
{
    rq_database_unref(a->db);
    free(a);
}

static void retry_later(struct rq_database *db);

/* May its entry be proposed?  Not before a majority has its body; nor so long after that it may have been swept there.  It is brought
 * again then, and when others have come to vote; who has it already says so. */
static bool is_carried(struct rq_database *db)
{
    const struct rq_carrier *carrier = db->env.carrier;
    if (db->in_flight->body == NULL || carrier == NULL || (db->carriage == NULL && carrier->is_alone(carrier->ctx))) {
        return true;
    }
    if (db->carriage != NULL) {
        const enum rq_carriage_state state = carrier->state(db->carriage);
        if (state == RQ_CARRIAGE_DONE && rq_clock_ms() - db->carried_ms < RQ_CARRY_FRESH_MS) {
            return true;
        }
        if (state != RQ_CARRIAGE_DONE && state != RQ_CARRIAGE_PAST) {
            return false;
        }
        carrier->leave(db->carriage);
        db->carriage = NULL;
    }
    if (bring(db, NULL) != RQ_OK) {
        db->env.fatal(db->env.ctx, "no memory", RQ_NOMEM);
    }
    return false;
}

static void fail_in_flight(struct rq_database *db, enum rq_err err)
{
    struct rq_commit *c = rq_db_take_in_flight(db);
    rq_db_answer(db, c, err, "");
    rq_db_settle(db);
}

static void run_retry(struct rq_task *task)
{
    struct rq_database *db = (struct rq_database *)((char *)task - offsetof(struct rq_database, retry));
    db->retries = false;
    rq_db_recheck(db);
    if (db->in_flight != NULL && !db->attempt_open) {
        const enum rq_carriage_state carriage =
            db->carriage != NULL ? db->env.carrier->state(db->carriage) : RQ_CARRIAGE_DONE;
        if (carriage == RQ_CARRIAGE_MOVES) {
            db->give_up_ms = rq_clock_ms() + LEADER_WAIT_MS;
        }
        if (!db->may_be_appended && rq_clock_ms() >= db->give_up_ms) {
            fail_in_flight(db, carriage == RQ_CARRIAGE_FULL ? RQ_FULL : RQ_AWAY);
        } else {
            retry_later(db);
        }
    }
    rq_database_unref(db);
}

static void retry_later(struct rq_database *db)
{
    if (!db->retries) {
        db->retries = true;
        db->retry.run = run_retry;
        db->retry_later = (struct rq_later){ .strand = &db->place->strand, .task = &db->retry };
        rq_database_ref(db);
        db->env.post_later(db->env.ctx, &db->retry_later, RETRY_MS);
    }
}

static bool may_pass(enum rq_err err)
{
    return err == RQ_AWAY || err == RQ_BUSY;
}

/* On the strand.  "Not appended" is an outcome only as long as no attempt may have been. */
static void run_told(struct rq_task *task)
{
    struct attempt *a = (struct attempt *)((char *)task - offsetof(struct attempt, told));
    struct rq_database *db = a->db;
    if (a->number == db->attempt && db->in_flight != NULL) {
        db->attempt_open = false;
        db->may_be_appended = db->may_be_appended || a->err == RQ_OK || a->err == RQ_UNKNOWN;
        if (a->err == RQ_OK) {
            rq_db_recheck(db); /* its term may be over already */
        } else if (!db->may_be_appended && !may_pass(a->err)) {
            fail_in_flight(db, a->err);
        } else {
            retry_later(db);
        }
    }
    attempt_free(a);
}

/* Loop context.  Appended by this node itself: nothing is to be done but to know when. */
static void on_submitted(struct rq_submit *s, enum rq_err err)
{
    struct attempt *a = (struct attempt *)s;
    struct rq_database *db = a->db;
    if (err == RQ_OK) {
        atomic_store(&db->appended_term, s->term);
        atomic_store(&db->appended_attempt, a->number);
    }
    if (err == RQ_OK && !s->forwarded) {
        attempt_free(a);
        return;
    }
    a->err = err;
    a->told.run = run_told;
    rq_strand_post(&db->place->strand, &a->told, RQ_CARRY);
}

static void submit_in_flight(struct rq_database *db)
{
    struct attempt *a = calloc(1, sizeof *a);
    if (a == NULL) {
        db->env.fatal(db->env.ctx, "no memory", RQ_NOMEM);
    }
    a->db = rq_database_ref(db);
    a->number = ++db->attempt;
    a->submit = (struct rq_submit){
        .type = db->in_flight->body != NULL ? RQ_ENTRY_STAGED : RQ_ENTRY_TXN,
        .blob = rq_blob_ref(db->in_flight_blob),
        .done = on_submitted,
    };
    if (db->in_flight->body != NULL && db->env.carrier != NULL) {
        db->env.carrier->holders(db->env.carrier->ctx, db->carriage, &a->submit.holders);
    }
    db->attempt_open = true;
    db->attempt_leader = db->env.leader(db->env.ctx);
    db->env.submit(db->env.ctx, &a->submit);
}

/* What is in flight may be in the log of a leader that is none any more, and then nobody else would bring it on: it is submitted
 * again, until the state machine says what became of it.  Twice in the log does no harm: only one can be made on its base. */
void rq_db_recheck(struct rq_database *db)
{
    if (db->in_flight == NULL) {
        return;
    }
    if (atomic_load(&db->appended_attempt) == db->attempt) {
        db->attempt_open = false;
        db->may_be_appended = true;
        if (atomic_load(&db->appended_term) == db->env.term(db->env.ctx)) {
            return;
        }
    }
    const uint64_t leader = db->env.leader(db->env.ctx);
    if (db->attempt_open && db->attempt_leader != 0 && leader != 0 && leader != db->attempt_leader) {
        db->attempt_open = false; /* its answer may never come */
        db->may_be_appended = true;
    }
    if (!db->attempt_open && leader != 0 && is_carried(db)) { /* else the coming of a leader brings us here again */
        submit_in_flight(db);
    }
}

struct rq_commit *rq_db_take_in_flight(struct rq_database *db)
{
    struct rq_commit *c = db->in_flight;
    db->in_flight = NULL;
    db->may_be_appended = false;
    rq_blob_unref(db->in_flight_blob);
    db->in_flight_blob = NULL;
    rq_db_drop_staged(db);
    return c;
}

static enum rq_err prepare(struct rq_database *db, struct rq_commit *c, const char **ret_text)
{
    *ret_text = "";
    if (db->file.page_size != 0 && c->page_size != db->file.page_size) {
        return RQ_PAGESIZE;
    }
    size_t pages = c->body != NULL    ? rq_staged_page_count(c->body)
                   : c->group != NULL ? c->group->pages->count
                                      : c->pages.size / (4 + c->page_size);
    enum rq_err err = reserve(db, c->page_size, c->db_page_count, (uint32_t)pages);
    if (err == RQ_OK && c->body != NULL) {
        err = make_staged(db, c);
    } else if (err == RQ_OK && c->group != NULL) {
        db->record.size = 0;
        err = rq_group_record(c->group, base_page, db, &db->record);
    } else if (err == RQ_OK) {
        err = make_record(db, c);
    }
    if (err == RQ_QUARANTINED) {
        *ret_text = db->message;
    } else if (err == RQ_IO) {
        *ret_text = "the base of the transaction could not be read from the replica";
    }
    return err;
}

static void consider(struct rq_database *db, struct rq_commit *c)
{
    const char *text = "";
    enum rq_err err;

    if (db->dropped) {
        err = RQ_NOTFOUND;
        text = "the database was dropped";
    } else if (c->base < db->version) {
        err = outcome_of(db, c->origin, c->base);
    } else if (db->state == RQ_DB_QUARANTINED) {
        err = RQ_QUARANTINED;
        text = db->message;
    } else if (!db->env.ready(db->env.ctx)) {
        err = RQ_UNREADY;
    } else if (c->base > db->version) {
        err = RQ_PROTOCOL;
        text = "the base is newer than the database";
    } else if (db->in_flight != NULL) {
        c->next = NULL;
        if (db->waiting_last != NULL) {
            db->waiting_last->next = c;
        } else {
            db->waiting_first = c;
        }
        db->waiting_last = c;
        return;
    } else if (c->ask) {
        err = RQ_NOTFOUND;
    } else {
        const uint64_t begin_ns = rq_clock_ns();
        err = prepare(db, c, &text);
        const uint64_t made_ns = rq_clock_ns();
        rq_stage_took(RQ_STAGE_queue, begin_ns - c->since_ns);
        rq_stage_took(RQ_STAGE_diff, made_ns - begin_ns);
        c->since_ns = made_ns;
        struct rq_blob *blob = err == RQ_OK ? rq_blob_new(db->record.size) : NULL;
        if (err == RQ_OK && blob == NULL) {
            err = RQ_NOMEM;
        }
        if (err == RQ_OK) {
            memcpy(blob->data, db->record.data, db->record.size);
            db->in_flight = c;
            db->in_flight_blob = blob;
            db->give_up_ms = rq_clock_ms() + LEADER_WAIT_MS;
            if (is_carried(db)) {
                submit_in_flight(db);
            } else {
                db->attempt++; /* the last one was of another transaction */
                db->attempt_open = false;
                retry_later(db);
            }
            return;
        }
        rq_db_drop_staged(db);
    }
    rq_db_answer(db, c, err, text);
}

static void run_commit(struct rq_task *task)
{
    struct rq_commit *c = (struct rq_commit *)task;
    consider(c->db, c);
}

void rq_database_commit(struct rq_commit *c)
{
    if (!c->ask && rq_db_is_full(c->db)) {
        static const char text[] = "no space to apply what other hosts have committed";
        const struct rq_msg_outcome outcome = { .err = RQ_FULL, .text = { text, sizeof text - 1 } };
        c->answer(c, &outcome); /* the strand waits for the space, and would not say so before it is there */
        return;
    }
    c->task.run = run_commit;
    c->since_ns = rq_clock_ns();
    /* The executor goes on with the next group meanwhile, if there can be one. */
    const bool goes_on = c->group != NULL && !c->group->is_carried;
    rq_strand_post(&c->db->place->strand, &c->task, goes_on ? RQ_HAND_OVER : RQ_CARRY);
}
