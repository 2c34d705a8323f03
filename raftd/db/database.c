#include "raftd/db/database.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/ops/journal.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"

#define RECORD_BYTES_MAX (RQ_TXN_MEMORY_MAX + RQ_TXN_MEMORY_MAX / 8 + 65536u)
#define WORK_BYTES_MAX \
    (64u * 1024u * 1024u)                  /* page images of one record; a record of RQ_TXN_MEMORY_MAX never needs it */
#define KEEP_BYTES   (1024u * 1024u)       /* larger work buffers are given back */
#define SPACE_MARGIN (16u * 1024u * 1024u) /* left free on the disk for what belongs to no transaction */

struct rq_place {
    struct rq_strand strand;
    char name[];
};

struct rq_database {
    atomic_uint refs;
    struct rq_database_env env;
    struct rq_place *place; /* borrows */
    uint32_t id;
    char *path, *control_path;
    struct rq_task open_task;

    /* The strand's. */
    struct rq_database_known known; /* until the files are open */
    struct rq_control control;
    struct rq_replica *replica;   /* owns; NULL: no commit yet.  Written under hold, as inode and device */
    uint64_t inode, device;       /* of its file */
    struct rq_replica_state file; /* what the replica holds */
    uint64_t version;             /* of the state machine */
    uint64_t applied_index;
    uint64_t checksum;
    struct rq_origins origins;
    enum rq_control_state state;
    char message[RQ_DB_TEXT_BYTES];
    bool dropped;
    bool caught_up;  /* the log was replayed up to what was known to be committed when raftd started */
    bool diverged;   /* the file holds what the log does not */
    bool superseded; /* seen in replay only: the file is already that of a later database of this name */
    struct rq_commit *in_flight;
    struct rq_commit *waiting_first, *waiting_last;
    struct rq_submit submit;
    struct rq_task not_appended;
    enum rq_err submit_err;
    struct rq_bytes record, work;

    pthread_mutex_t hold; /* the replica stays open while it is held */
    pthread_mutex_t info_lock;
    struct rq_database_info info; /* guarded by info_lock */
    _Atomic uint64_t last_use_ms;
    atomic_bool stirred;
};

/* One posting to the strand that carries more than the embedded task can. */
struct errand {
    struct rq_task task;
    struct rq_database *db; /* counted */
    struct rq_log_entry entry;
    uint64_t session;
    void (*done)(void *ctx);
    void *ctx;
    char text[RQ_DB_TEXT_BYTES];
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* --- places and commits ------------------------------------------------------------------------------------------------- */

enum rq_err rq_place_new(struct rq_pool *pool, const char *name, struct rq_place **ret_place)
{
    size_t bytes = strlen(name) + 1;
    struct rq_place *p = malloc(sizeof *p + bytes);
    if (p == NULL) {
        return RQ_NOMEM;
    }
    memcpy(p->name, name, bytes);
    rq_strand_init(&p->strand, pool, p->name);
    *ret_place = p;
    return RQ_OK;
}

void rq_place_free(struct rq_place *p)
{
    if (p != NULL) {
        rq_strand_fini(&p->strand);
        free(p);
    }
}

const char *rq_place_name(const struct rq_place *p)
{
    return p->name;
}

enum rq_err rq_commit_new(struct rq_commit **ret_commit)
{
    struct rq_commit *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return RQ_NOMEM;
    }
    rq_bytes_init(&c->pages, RQ_TXN_MEMORY_MAX + 2u * 1024u * 1024u);
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

/* --- life --------------------------------------------------------------------------------------------------------------- */

struct rq_database *rq_database_ref(struct rq_database *db)
{
    atomic_fetch_add(&db->refs, 1);
    return db;
}

void rq_database_unref(struct rq_database *db)
{
    if (atomic_fetch_sub(&db->refs, 1) != 1) {
        return;
    }
    rq_replica_close(db->replica);
    if (db->control.head != NULL) {
        rq_control_close(&db->control);
    }
    rq_origins_fini(&db->origins);
    rq_origins_fini(&db->known.origins);
    rq_bytes_fini(&db->record);
    rq_bytes_fini(&db->work);
    pthread_mutex_destroy(&db->hold);
    pthread_mutex_destroy(&db->info_lock);
    free(db->path);
    free(db->control_path);
    free(db);
}

/* --- what others see ------------------------------------------------------------------------------------------------------ */

/* The control page and the info, from what the strand knows. */
static void publish(struct rq_database *db)
{
    struct rq_control_head *h = db->control.head;
    if (h != NULL) {
        atomic_store(&h->db_id, db->id);
        atomic_store(&h->page_size, db->file.page_size);
        atomic_store(&h->applied_index, db->applied_index);
        atomic_store(&h->commit_index, db->applied_index);
        atomic_store(&h->version, db->version);
        if (db->state == RQ_DB_QUARANTINED) {
            (void)snprintf(h->message, sizeof h->message, "%s", db->message);
        }
        atomic_store(&h->state, db->state);
        if (db->caught_up) {
            atomic_store(&h->ready, 1);
        }
    }
    pthread_mutex_lock(&db->info_lock);
    db->info = (struct rq_database_info){
        .id = db->id,
        .version = db->version,
        .page_size = db->file.page_size,
        .page_count = db->file.page_count,
        .applied_index = db->applied_index,
        .checksum = db->checksum,
        .state = db->state,
        .diverged = db->diverged,
    };
    memcpy(db->info.message, db->message, sizeof db->message);
    pthread_mutex_unlock(&db->info_lock);
}

void rq_database_info(struct rq_database *db, struct rq_database_info *ret_info)
{
    pthread_mutex_lock(&db->info_lock);
    *ret_info = db->info;
    pthread_mutex_unlock(&db->info_lock);
}

uint32_t rq_database_id(const struct rq_database *db)
{
    return db->id;
}

const char *rq_database_name(const struct rq_database *db)
{
    return db->place->name;
}

struct rq_place *rq_database_place(const struct rq_database *db)
{
    return db->place;
}

struct rq_strand *rq_database_strand(const struct rq_database *db)
{
    return &db->place->strand;
}

static void touch(struct rq_database *db)
{
    atomic_store_explicit(&db->last_use_ms, now_ms(), memory_order_relaxed);
    if (!atomic_exchange(&db->stirred, true)) {
        db->env.stir(db->env.ctx);
    }
}

uint64_t rq_database_last_use(struct rq_database *db)
{
    return atomic_load(&db->last_use_ms);
}

void rq_database_settled(struct rq_database *db)
{
    atomic_store(&db->stirred, false);
}

static void note_quarantine(struct rq_database *db)
{
    char why[RQ_DB_TEXT_BYTES * 2], name[RQ_DB_NAME_MAX * 2];
    rq_note(RQ_LEVEL_ERROR, "database quarantined", "db=%s id=%u why=%s", rq_quote(name, sizeof name, db->place->name),
            db->id, rq_quote(why, sizeof why, db->message));
}

/* The database is fenced on this host.  Its place in the log goes on being followed. */
static void quarantine(struct rq_database *db, const char *text)
{
    if (db->state == RQ_DB_QUARANTINED || db->dropped) {
        return;
    }
    db->state = RQ_DB_QUARANTINED;
    (void)snprintf(db->message, sizeof db->message, "%s", text);
    if (db->caught_up) { /* in replay a DROP may still follow, and all is well */
        note_quarantine(db);
    }
    publish(db);
}

/* --- opening ---------------------------------------------------------------------------------------------------------------- */

static struct rq_replica_config replica_config(struct rq_database *db)
{
    return (struct rq_replica_config){
        .disk = db->env.disk,
        .path = db->path,
        .control = &db->control,
        .wal_soft_frames = db->env.wal_soft_frames,
        .wal_hard_frames = db->env.wal_hard_frames,
    };
}

static void set_replica(struct rq_database *db, struct rq_replica *r)
{
    struct rq_file_info info = { 0 };
    bool there = db->env.disk->ops->stat(db->env.disk, db->path, &info) == RQ_OK;
    pthread_mutex_lock(&db->hold);
    db->replica = r;
    db->inode = info.inode;
    db->device = info.device;
    pthread_mutex_unlock(&db->hold);
    rq_replica_get_state(r, &db->file);
    if (there) {
        db->env.file_made(db->env.ctx, db->id, info.inode, info.device);
    }
}

/* Adoption, when its entry is committed: the file that was found when the cluster was founded gets its stamp.  Version and stamp
 * lie in one sector of page 1, so this one write is whole or not there; the file has no journal and no WAL. */
static enum rq_err stamp_adopted(struct rq_database *db)
{
    const struct rq_database_known *k = &db->known;
    struct rq_disk *disk = db->env.disk;
    struct rq_file *f;
    uint8_t sector[512];
    size_t n;
    enum rq_err err = disk->ops->open(disk, db->path, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &f);
    if (err != RQ_OK) {
        return err;
    }
    err = disk->ops->read(f, sector, sizeof sector, 0, &n);
    if (err == RQ_OK && n < sizeof sector) {
        err = RQ_CORRUPT;
    }
    uint8_t stamp[20];
    rq_put_u32(stamp, k->adopt_stamp.db_id);
    rq_put_u32(stamp + 4, k->adopt_stamp.term);
    rq_put_u64(stamp + 8, k->adopt_stamp.index);
    rq_put_u32(stamp + 16, k->adopt_stamp.version_high);
    if (err == RQ_OK && sector[18] == RQ_WRITE_VERSION && rq_get_u32(sector + 72) == db->id &&
        rq_get_u64(sector + 80) >= k->adopt_stamp.index) {
        disk->ops->close(f); /* stamped before, and perhaps written since */
        return RQ_OK;
    }
    if (err == RQ_OK &&
        (rq_get_u32(sector + 24) != (uint32_t)k->version || rq_get_u32(sector + 28) != k->adopt_page_count)) {
        err = RQ_FOREIGN;
    }
    if (err == RQ_OK) {
        sector[18] = RQ_WRITE_VERSION;
        sector[19] = 2;
        memcpy(sector + 72, stamp, sizeof stamp);
        err = disk->ops->write(f, sector, sizeof sector, 0);
        if (err == RQ_OK) {
            err = disk->ops->sync(f);
        }
        if (err != RQ_OK) {
            db->env.fatal(db->env.ctx, "an adopted file could not be stamped", err);
        }
    }
    disk->ops->close(f);
    return err;
}

static void open_files(struct rq_database *db)
{
    struct rq_disk *disk = db->env.disk;
    struct rq_file_info info;
    char text[RQ_DB_TEXT_BYTES];
    const struct rq_database_known *k = &db->known;
    enum rq_err err = disk->ops->stat(disk, db->path, &info);
    bool there = err == RQ_OK && info.size > 0;
    bool same = k->inode == 0 || (there && info.inode == k->inode && info.device == k->device);

    /* The page belongs to those who may use the database: to those who may use its file, or else its directory. */
    unsigned mode = 0600;
    if (there) {
        mode = info.mode & 0666;
    } else if (disk->ops->stat(disk, db->env.dir, &info) == RQ_OK) {
        mode = 0600 | (info.mode & 0066);
    }
    err = rq_control_publish(disk, db->control_path, db->env.boot, mode, &db->control);
    if (err != RQ_OK) {
        db->control.head = NULL;
        (void)snprintf(text, sizeof text, "its control page could not be made: %s", rq_err_text(err));
        quarantine(db, text);
        return;
    }
    if (k->adopt && there) {
        err = stamp_adopted(db);
        if (err == RQ_FOREIGN) {
            quarantine(db, "the file was changed between its adoption and raftd's start");
            return;
        }
    }
    if (!there) {
        if (k->file_made || k->version > 0) {
            (void)snprintf(
                text, sizeof text,
                "%.60s was removed, but not dropped; to drop it: curl -X DELETE 'http://HTTP-ADDR/db?db=%.60s'",
                db->place->name, db->place->name);
            quarantine(db, text);
        }
        publish(db);
        return;
    }
    struct rq_replica *r;
    struct rq_replica_config config = replica_config(db);
    err = rq_replica_open(&config, &r, &db->file);
    if (err != RQ_OK) {
        (void)snprintf(text, sizeof text, "the file cannot be opened as a replica: %s", rq_err_text(err));
        db->file = (struct rq_replica_state){ 0 };
        quarantine(db, text);
        return;
    }
    if (db->file.stamp.db_id != db->id) {
        (void)snprintf(text, sizeof text, "the file is a replica of database %u, not of %u", db->file.stamp.db_id,
                       db->id);
        db->superseded = db->file.stamp.db_id > db->id;
        rq_replica_close(r);
        db->file = (struct rq_replica_state){ 0 };
        quarantine(db, text);
        return;
    }
    if (!same) { /* its stamp is kept: catching up finds out whether it is the log that was replaced */
        rq_replica_close(r);
        quarantine(db, "the file is not the one that raftd left: it was replaced while raftd was down");
        return;
    }
    set_replica(db, r);
    if (db->file.version < db->version) {
        (void)snprintf(text, sizeof text, "the file is at version %llu, older than the %llu that raftd left",
                       (unsigned long long)db->file.version, (unsigned long long)db->version);
        quarantine(db, text);
    } else {
        db->state = RQ_DB_LIVE;
        db->applied_index = db->file.stamp.index;
    }
    publish(db);
}

static void run_open(struct rq_task *task)
{
    struct rq_database *db = (struct rq_database *)((char *)task - offsetof(struct rq_database, open_task));
    open_files(db);
    rq_database_unref(db);
}

enum rq_err rq_database_new(const struct rq_database_env *env, struct rq_place *place, uint32_t id,
                            struct rq_database_known *known, struct rq_database **ret_db)
{
    struct rq_database *db = calloc(1, sizeof *db);
    if (db == NULL) {
        return RQ_NOMEM;
    }
    db->env = *env;
    db->place = place;
    db->id = id;
    if (asprintf(&db->path, "%s/%s", env->dir, place->name) < 0) {
        db->path = NULL;
    }
    if (asprintf(&db->control_path, "%s/%s-rqctl", env->dir, place->name) < 0) {
        db->control_path = NULL;
    }
    if (db->path == NULL || db->control_path == NULL) {
        free(db->path);
        free(db->control_path);
        free(db);
        return RQ_NOMEM;
    }
    db->known = *known;
    db->origins = known->origins;
    db->known.origins = known->origins = (struct rq_origins){ 0 };
    db->version = known->version;
    db->caught_up = known->caught_up;
    db->state = RQ_DB_EMPTY;
    rq_bytes_init(&db->record, RECORD_BYTES_MAX);
    rq_bytes_init(&db->work, WORK_BYTES_MAX);
    pthread_mutex_init(&db->hold, NULL);
    pthread_mutex_init(&db->info_lock, NULL);
    db->info = (struct rq_database_info){ .id = id, .version = db->version, .state = RQ_DB_EMPTY };
    db->open_task.run = run_open;
    atomic_init(&db->refs, 2); /* one is the task's */
    rq_strand_post(&place->strand, &db->open_task, RQ_CARRY);
    *ret_db = db;
    return RQ_OK;
}

/* --- judging and answering ---------------------------------------------------------------------------------------------------- */

static void consider(struct rq_database *db, struct rq_commit *c);

static void answer(struct rq_database *db, struct rq_commit *c, enum rq_err err, const char *text)
{
    struct rq_msg_outcome outcome = {
        .err = err,
        .version = err == RQ_OK ? c->base + 1 : db->version,
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
static void consider_waiting(struct rq_database *db)
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
static bool turn_holder(const struct rq_database *db, uint64_t session, uint32_t *ret_slot)
{
    uint32_t holder = (uint32_t)atomic_load(&db->control.head->turn) & 0xfffu; /* slot + 1 */
    if (holder < 1 || holder > RQ_SLOT_COUNT || atomic_load(&db->control.slots[holder - 1].session) != session) {
        return false;
    }
    *ret_slot = holder - 1;
    return true;
}

/* The head has moved, or never will by what was in flight. */
static void settle(struct rq_database *db)
{
    struct rq_commit *c = db->in_flight;
    if (c != NULL && c->base < db->version) {
        enum rq_err err = outcome_of(db, c->origin, c->base);
        db->in_flight = NULL;
        if (err == RQ_OK && db->control.head != NULL) {
            /* The next writer starts while this one is still being told. */
            uint32_t slot;
            if (turn_holder(db, c->origin.session, &slot)) {
                rq_turn_pass(&db->control, slot);
            }
        }
        answer(db, c, err, "");
    }
    if (db->in_flight == NULL && db->waiting_first != NULL) {
        consider_waiting(db);
    }
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
        if (err == RQ_OK) {
            err = rq_txn_add(&db->record, pgno, old ? base : NULL, c->pages.data + at + 4, c->page_size);
        }
    }
    return err == RQ_OK ? rq_txn_end(&db->record, 0) : err;
}

/* A durable body, and the small entry that names it. */
static enum rq_err make_staged(struct rq_database *db, struct rq_commit *c)
{
    struct rq_entry_staged entry = {
        .head = { .db_id = db->id,
                  .page_size = c->page_size,
                  .page_count = c->db_page_count,
                  .base = c->base,
                  .version = c->base + 1,
                  .origin_count = 1 },
        .origin = c->origin,
    };
    enum rq_err err = rq_staged_seal(c->body, entry.hash, &entry.body_bytes);
    if (err == RQ_IO) {
        db->env.fatal(db->env.ctx, "a staged body could not be synced", err);
    }
    if (err != RQ_OK) {
        return err;
    }
    db->record.size = 0;
    return rq_entry_put_staged(&db->record, &entry);
}

static void run_not_appended(struct rq_task *task)
{
    struct rq_database *db = (struct rq_database *)((char *)task - offsetof(struct rq_database, not_appended));
    struct rq_commit *c = db->in_flight;
    db->in_flight = NULL;
    answer(db, c, db->submit_err, "");
    settle(db);
    rq_database_unref(db);
}

static void on_submitted(struct rq_submit *s, enum rq_err err)
{
    struct rq_database *db = (struct rq_database *)((char *)s - offsetof(struct rq_database, submit));
    if (err == RQ_OK) {
        rq_database_unref(db);
        return;
    }
    db->submit_err = err;
    db->not_appended.run = run_not_appended;
    rq_strand_post(&db->place->strand, &db->not_appended, RQ_CARRY);
}

static enum rq_err prepare(struct rq_database *db, struct rq_commit *c, const char **ret_text)
{
    *ret_text = "";
    if (db->file.page_size != 0 && c->page_size != db->file.page_size) {
        return RQ_PAGESIZE;
    }
    size_t pages = c->body != NULL ? rq_staged_page_count(c->body) : c->pages.size / (4 + c->page_size);
    enum rq_err err = reserve(db, c->page_size, c->db_page_count, (uint32_t)pages);
    if (err == RQ_OK) {
        err = c->body != NULL ? make_staged(db, c) : make_record(db, c);
    }
    if (err == RQ_CORRUPT || err == RQ_IO) {
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
        err = prepare(db, c, &text);
        struct rq_blob *blob = err == RQ_OK ? rq_blob_new(db->record.size) : NULL;
        if (err == RQ_OK && blob == NULL) {
            err = RQ_NOMEM;
        }
        if (err == RQ_OK) {
            memcpy(blob->data, db->record.data, db->record.size);
            db->in_flight = c;
            db->submit = (struct rq_submit){
                .type = c->body != NULL ? RQ_ENTRY_STAGED : RQ_ENTRY_TXN,
                .blob = blob,
                .done = on_submitted,
            };
            rq_database_ref(db);
            db->env.submit(db->env.ctx, &db->submit);
            return;
        }
    }
    answer(db, c, err, text);
}

static void run_commit(struct rq_task *task)
{
    struct rq_commit *c = (struct rq_commit *)task;
    consider(c->db, c);
}

void rq_database_commit(struct rq_commit *c)
{
    c->task.run = run_commit;
    rq_strand_post(&c->db->place->strand, &c->task, RQ_CARRY);
}

/* --- applying ---------------------------------------------------------------------------------------------------------------------- */

/* The pages of a record, or of a body, as the replica wants them. */
struct source {
    struct rq_page_source source;
    const struct rq_bytes *pages; /* records {page number, page} */
    uint32_t page_size;
    size_t at;
    struct rq_staged_reader *body;
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

/* Is it the transaction that this host made the record of, a moment ago and on this very base?  Then its pages are what the
 * deltas give, and they are still here. */
static bool own_pages(const struct rq_database *db, const struct rq_txn_head *head, const struct rq_txn_reader *reader)
{
    const struct rq_commit *c = db->in_flight;
    if (c == NULL || c->body != NULL || c->base != head->base || head->origin_count != 1) {
        return false;
    }
    struct rq_origin origin = rq_txn_origin(reader, 0);
    return origin.session == c->origin.session && origin.seq == c->origin.seq;
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
            struct rq_replica_config config = replica_config(db);
            err = rq_replica_create(&config, &s->source, after, &r);
            if (err == RQ_OK) {
                set_replica(db, r);
            }
        }
        if (err == RQ_IO) {
            db->env.fatal(db->env.ctx, "a replica could not be written", err);
        }
        if (err != RQ_FULL) {
            return err;
        }
        if (!told) {
            rq_note(RQ_LEVEL_ERROR, "no space to apply a committed transaction, waiting for it", "id=%u", db->id);
            told = true;
        }
        nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
        s->at = 0;
        if (s->body != NULL) {
            rq_staged_rewind(s->body);
        }
    }
}

static enum rq_err apply(struct rq_database *db, const struct rq_log_entry *e, const struct rq_txn_head *head,
                         struct rq_txn_reader *reader, const struct rq_entry_staged *staged)
{
    struct source s = { .pages = &db->work, .page_size = head->page_size };
    enum rq_err err;

    s.source.ctx = &s;
    if (db->file.page_size != 0 && db->file.page_size != head->page_size) {
        return RQ_PAGESIZE;
    }
    if (staged != NULL) {
        s.source.next = next_from_body;
        err = rq_staged_open(db->env.disk, db->env.staged_dir, staged, &s.body);
    } else {
        s.source.next = next_from_memory;
        if (own_pages(db, head, reader)) {
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
        if (staged == NULL && s.pages->size > 4 && rq_get_u32(s.pages->data) == 1) {
            db->checksum = rq_page_hash(s.pages->data + 4, head->page_size);
        }
    }
    rq_staged_close(s.body);
    if (db->work.capacity > KEEP_BYTES) {
        rq_bytes_fini(&db->work);
        rq_bytes_init(&db->work, WORK_BYTES_MAX);
    }
    return err;
}

static void apply_entry(struct rq_database *db, const struct rq_log_entry *e)
{
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
        quarantine(db, text);
        return;
    }
    head = is_staged ? staged.head : reader.head;
    if (head.base != db->version) {
        return; /* not made on the head: it has no effect, on any host */
    }
    for (uint32_t i = 0; i < head.origin_count; i++) {
        if (rq_origins_put(&db->origins, is_staged ? staged.origin : rq_txn_origin(&reader, i)) != RQ_OK) {
            db->env.fatal(db->env.ctx, "no memory to apply a committed transaction", RQ_NOMEM);
        }
    }
    db->version = head.version;
    if (e->index == db->file.stamp.index &&
        (db->version != db->file.version || (uint32_t)e->term != db->file.stamp.term)) {
        db->diverged = true;
    }
    if (db->state == RQ_DB_QUARANTINED || e->index <= db->file.stamp.index) {
        return; /* fenced, or in the file already */
    }
    if (db->file.version != head.base) {
        quarantine(db, "the log does not go on where the file ends");
        return;
    }
    err = apply(db, e, &head, &reader, is_staged ? &staged : NULL);
    if (err == RQ_NOMEM) {
        db->env.fatal(db->env.ctx, "no memory to apply a committed transaction", err);
    }
    if (err != RQ_OK) {
        (void)snprintf(text, sizeof text, "transaction %llu (log entry %llu) does not fit the file: %s",
                       (unsigned long long)head.version, (unsigned long long)e->index, rq_err_text(err));
        quarantine(db, text);
        return;
    }
    db->state = RQ_DB_LIVE;
}

static void run_committed(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    struct rq_database *db = e->db;
    if (!db->dropped) {
        apply_entry(db, &e->entry);
        db->applied_index = e->entry.index;
        publish(db);
        settle(db);
        touch(db);
    }
    rq_blob_unref(e->entry.blob);
    rq_database_unref(db);
    free(e);
}

static struct errand *errand_new(struct rq_database *db, void (*run)(struct rq_task *task))
{
    struct errand *e = calloc(1, sizeof *e);
    if (e == NULL) {
        db->env.fatal(db->env.ctx, "no memory", RQ_NOMEM);
    }
    e->task.run = run;
    e->db = rq_database_ref(db);
    return e;
}

void rq_database_committed(struct rq_database *db, const struct rq_log_entry *entry)
{
    struct errand *e = errand_new(db, run_committed);
    e->entry = *entry;
    rq_blob_ref(e->entry.blob);
    rq_strand_post(&db->place->strand, &e->task, RQ_CARRY);
}

/* --- other errands ---------------------------------------------------------------------------------------------------------------- */

static void run_caught_up(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    struct rq_database *db = e->db;
    char text[RQ_DB_TEXT_BYTES];
    if (!db->dropped && (db->diverged || db->file.version > db->version)) {
        (void)snprintf(text, sizeof text,
                       "the file is at version %llu, made by log entry %llu of term %u; the log ends at version %llu",
                       (unsigned long long)db->file.version, (unsigned long long)db->file.stamp.index,
                       db->file.stamp.term, (unsigned long long)db->version);
        db->diverged = true;
        quarantine(db, text);
        (void)snprintf(db->message, sizeof db->message, "%s", text);
    }
    db->caught_up = true;
    if (db->state == RQ_DB_QUARANTINED) {
        note_quarantine(db);
    }
    publish(db);
    touch(db);
    rq_database_unref(db);
    free(e);
}

void rq_database_caught_up(struct rq_database *db)
{
    rq_strand_post(&db->place->strand, &errand_new(db, run_caught_up)->task, RQ_CARRY);
}

static void move_to_trash(struct rq_database *db, const char *suffix)
{
    struct rq_disk *disk = db->env.disk;
    char *from = NULL, *to = NULL;
    if (asprintf(&from, "%s%s", db->path, suffix) < 0 ||
        asprintf(&to, "%s/%u-%s%s", db->env.trash_dir, db->id, db->place->name, suffix) < 0) {
        db->env.fatal(db->env.ctx, "no memory", RQ_NOMEM);
    }
    enum rq_err err = disk->ops->rename(disk, from, to);
    if (err != RQ_OK && err != RQ_NOTFOUND) {
        db->env.fatal(db->env.ctx, "a dropped database could not be moved to the trash", err);
    }
    free(from);
    free(to);
}

static void run_drop(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    struct rq_database *db = e->db;
    struct rq_replica *r = db->replica;

    db->dropped = true;
    if (db->control.head != NULL) {
        atomic_store(&db->control.head->gone, 1);
        (void)db->env.disk->ops->unlink(db->env.disk, db->control_path); /* one that is marked gone misleads nobody */
    }
    pthread_mutex_lock(&db->hold); /* waits for a back-fill that is on its way */
    db->replica = NULL;
    pthread_mutex_unlock(&db->hold);
    rq_replica_close(r);
    if (!db->superseded) {
        move_to_trash(db, "");
        move_to_trash(db, "-wal");
        move_to_trash(db, "-shm");
    }
    if (db->env.disk->ops->sync_dir(db->env.disk, db->env.trash_dir) != RQ_OK ||
        db->env.disk->ops->sync_dir(db->env.disk, db->env.dir) != RQ_OK) {
        db->env.fatal(db->env.ctx, "a dropped database could not be moved to the trash", RQ_IO);
    }
    if (db->in_flight != NULL) { /* submitted before the drop: its entry comes after it, and has no effect */
        struct rq_commit *c = db->in_flight;
        db->in_flight = NULL;
        answer(db, c, RQ_REFUSED, "the database was dropped");
    }
    consider_waiting(db);
    e->done(e->ctx);
    rq_database_unref(db);
    free(e);
}

void rq_database_drop(struct rq_database *db, void (*done)(void *ctx), void *ctx)
{
    struct errand *e = errand_new(db, run_drop);
    e->done = done;
    e->ctx = ctx;
    rq_strand_post(&db->place->strand, &e->task, RQ_CARRY);
}

static void run_session_ended(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    struct rq_database *db = e->db;
    if (db->control.head != NULL && !db->dropped) {
        uint32_t slot;
        if (turn_holder(db, e->session, &slot)) {
            rq_control_sweep(&db->control); /* it did not give it back: its process is dead */
        }
    }
    rq_database_unref(db);
    free(e);
}

void rq_database_session_ended(struct rq_database *db, uint64_t session)
{
    struct errand *e = errand_new(db, run_session_ended);
    e->session = session;
    rq_strand_post(&db->place->strand, &e->task, RQ_CARRY);
}

static void run_sweep(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    if (e->db->control.head != NULL && !e->db->dropped) {
        rq_control_sweep(&e->db->control);
    }
    rq_database_unref(e->db);
    free(e);
}

void rq_database_sweep(struct rq_database *db)
{
    rq_strand_post(&db->place->strand, &errand_new(db, run_sweep)->task, RQ_CARRY);
}

static void run_quarantine(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    quarantine(e->db, e->text);
    rq_database_unref(e->db);
    free(e);
}

void rq_database_quarantine(struct rq_database *db, const char *text)
{
    struct errand *e = errand_new(db, run_quarantine);
    (void)snprintf(e->text, sizeof e->text, "%s", text);
    rq_strand_post(&db->place->strand, &e->task, RQ_CARRY);
}

struct rq_replica *rq_database_hold(struct rq_database *db)
{
    pthread_mutex_lock(&db->hold);
    return db->replica;
}

enum rq_err rq_database_check_name(struct rq_database *db)
{
    struct rq_file_info info;
    enum rq_err err = db->env.disk->ops->stat(db->env.disk, db->path, &info);
    return err == RQ_OK && (info.inode != db->inode || info.device != db->device) ? RQ_FOREIGN : err;
}

void rq_database_release(struct rq_database *db)
{
    pthread_mutex_unlock(&db->hold);
}

enum rq_err rq_database_describe(struct rq_database *db, struct rq_database_known *ret_known)
{
    struct rq_origins copy = db->origins;
    assert(rq_strand_is_mine(&db->place->strand));
    copy.ring = copy.capacity > 0 ? malloc(copy.capacity * sizeof *copy.ring) : NULL;
    if (copy.ring != NULL) {
        memcpy(copy.ring, db->origins.ring, copy.capacity * sizeof *copy.ring);
    } else if (copy.capacity > 0) {
        return RQ_NOMEM;
    }
    *ret_known = (struct rq_database_known){
        .version = db->version,
        .file_made = db->file.version > 0,
        .origins = copy,
    };
    return RQ_OK;
}
