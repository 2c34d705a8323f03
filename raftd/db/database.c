#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/database_impl.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"

/* --- places ------------------------------------------------------------------------------------------------- */

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

struct rq_strand *rq_place_strand(struct rq_place *p)
{
    return &p->strand;
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
    rq_proof_free(db->proof);
    if (db->control.head != NULL) {
        rq_control_close(&db->control);
    }
    rq_origins_fini(&db->origins);
    rq_db_missed_fini(&db->missed);
    rq_origins_fini(&db->known.origins);
    rq_bytes_fini(&db->record);
    rq_bytes_fini(&db->work);
    rq_overlay_fini(&db->merged);
    pthread_mutex_destroy(&db->arrivals_lock);
    pthread_mutex_destroy(&db->hold);
    pthread_mutex_destroy(&db->info_lock);
    free(db->path);
    free(db->control_path);
    free(db->hashes_path);
    free(db);
}

/* --- what others see ------------------------------------------------------------------------------------------------------ */

bool rq_db_is_full(const struct rq_database *db)
{
    return atomic_load(&db->short_of_space) || db->env.full(db->env.ctx);
}

/* info_lock held. */
static void tell_watcher(struct rq_database *db)
{
    if (db->changed != NULL) {
        db->changed(db->changed_ctx);
    }
}

/* The control page and the info, from what the strand knows. */
void rq_db_publish(struct rq_database *db)
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
        atomic_store(&h->full, rq_db_is_full(db));
        atomic_store(&h->state, db->state);
        if (db->caught_up) {
            atomic_store(&h->ready, 1);
        }
        rq_db_turn_publish(db);
    }
    pthread_mutex_lock(&db->info_lock);
    db->info = (struct rq_database_info){
        .id = db->id,
        .version = db->version,
        .page_size = db->file.page_size,
        .page_count = db->file.page_count,
        .applied_index = db->applied_index,
        .file_index = db->file.stamp.index,
        .state = db->state,
        .diverged = db->diverged,
    };
    memcpy(db->info.message, db->message, sizeof db->message);
    tell_watcher(db);
    pthread_mutex_unlock(&db->info_lock);
}

void rq_database_watch(struct rq_database *db, void (*changed)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&db->info_lock);
    db->changed = changed;
    db->changed_ctx = ctx;
    pthread_mutex_unlock(&db->info_lock);
}

uint64_t rq_database_checksum(struct rq_database *db)
{
    assert(rq_strand_is_mine(&db->place->strand));
    uint8_t *page = db->replica != NULL ? malloc(db->file.page_size) : NULL;
    uint64_t hash = 0;
    if (page != NULL && rq_replica_read(db->replica, 1, page) == RQ_OK) {
        hash = rq_page_hash(page, db->file.page_size);
    }
    free(page);
    return hash;
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

void rq_db_touch(struct rq_database *db)
{
    atomic_store_explicit(&db->last_use_ms, rq_clock_ms(), memory_order_relaxed);
    bool stirs = !atomic_exchange(&db->stirred, true);
    if (db->replica != NULL) {
        struct rq_replica_wal wal;
        rq_replica_get_wal(db->replica, &wal);
        stirs = stirs || wal.frames / db->env.wal_soft_frames > db->frames_touched / db->env.wal_soft_frames;
        db->frames_touched = wal.frames;
    }
    if (stirs) {
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

/* What could not be opened now may be what we left.  Files with other bytes than ours are not mended by any entry of the log. */
static bool may_pass(enum rq_err why)
{
    return why == RQ_IO || why == RQ_NOMEM || why == RQ_FULL || why == RQ_BUSY || why == RQ_PERM ||
           why == RQ_READONLY || why == RQ_VERSION;
}

void rq_db_quarantine(struct rq_database *db, enum rq_err why, const char *text)
{
    if (db->state == RQ_DB_QUARANTINED || db->dropped) {
        return;
    }
    db->state = RQ_DB_QUARANTINED;
    db->needs_log = may_pass(why);
    (void)snprintf(db->message, sizeof db->message, "%s", text);
    if (db->caught_up) { /* in replay a DROP may still follow, and all is well */
        note_quarantine(db);
    }
    rq_db_publish(db);
}

void rq_db_quarantine_page(struct rq_database *db, uint32_t pgno)
{
    char text[RQ_DB_TEXT_BYTES];
    (void)snprintf(text, sizeof text, "changed behind raftd's back: %s: page %u was changed", db->path, pgno);
    rq_db_quarantine(db, RQ_CORRUPT, text);
}

/* --- opening ---------------------------------------------------------------------------------------------------------------- */

struct rq_replica_config rq_db_replica_config(struct rq_database *db)
{
    return (struct rq_replica_config){
        .disk = db->env.disk,
        .path = db->path,
        .control = &db->control,
        .wal_soft_frames = db->env.wal_soft_frames,
        .wal_hard_frames = db->env.wal_hard_frames,
        .hashes_path = db->hashes_path,
        .boot = db->env.boot,
    };
}

void rq_db_set_replica(struct rq_database *db, struct rq_replica *r)
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

enum rq_err rq_db_keep_hashes(struct rq_database *db, struct rq_replica *r, char text[RQ_DB_TEXT_BYTES])
{
    const char *forgotten = NULL;
    char found[160] = "";
    if (db->hashes_path == NULL) {
        return RQ_OK;
    }
    enum rq_err err = rq_replica_keep_hashes(r, db->hashes_path, db->env.boot, &forgotten, found);
    if (forgotten != NULL) {
        rq_note(RQ_LEVEL_WARN, "page hashes begin anew: those that were there are not of these files",
                "id=%u why=\"%s\"", db->id, forgotten);
    }
    if (err == RQ_CORRUPT) {
        (void)snprintf(text, RQ_DB_TEXT_BYTES, "changed behind raftd's back: %s", found);
    } else if (err != RQ_OK) {
        (void)snprintf(text, RQ_DB_TEXT_BYTES, "its page hashes, %s, cannot be used: %s", db->hashes_path,
                       rq_err_text(err));
    }
    return err;
}

void rq_db_end_doubt(struct rq_database *db)
{
    const struct rq_page_claim *claims;
    size_t count;
    char found[160] = "", text[RQ_DB_TEXT_BYTES];
    if (db->proof == NULL) {
        return;
    }
    enum rq_err err = rq_proof_claims(db->proof, db->file.version, &claims, &count);
    if (err == RQ_NOTFOUND) {
        rq_db_quarantine(
            db, RQ_CORRUPT,
            "its -wal was copied into it by another program, and the machine was started anew since: whether all of "
            "that reached the disk cannot be told");
    } else if (err == RQ_OK) {
        err = rq_replica_prove(db->replica, claims, count, found);
        if (err == RQ_CORRUPT) {
            (void)snprintf(text, sizeof text,
                           "its -wal was copied into it by another program and not all of that reached the disk: %s",
                           found);
            rq_db_quarantine(db, err, text);
        }
    }
    if (err == RQ_IO || err == RQ_NOMEM) {
        db->env.fatal(db->env.ctx, "a replica could not be proved", err);
    }
    if (err == RQ_OK) {
        rq_note(RQ_LEVEL_INFO, "a replica that another program has checkpointed is whole", "id=%u pages=%zu", db->id,
                count);
    }
    rq_proof_free(db->proof);
    db->proof = NULL;
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
    /* Stamped before, and perhaps written since: written again all the same, as a sync that failed may have lost it. */
    const bool stamped = err == RQ_OK && sector[18] == RQ_WRITE_VERSION && rq_get_u32(sector + 72) == db->id &&
                         rq_get_u64(sector + 80) >= k->adopt_stamp.index;
    if (err == RQ_OK && !stamped &&
        (rq_get_u32(sector + 24) != (uint32_t)k->version || rq_get_u32(sector + 28) != k->adopt_page_count)) {
        err = RQ_FOREIGN;
    }
    if (err == RQ_OK && !stamped) {
        sector[18] = RQ_WRITE_VERSION;
        sector[19] = 2;
        memcpy(sector + 72, stamp, sizeof stamp);
    }
    if (err == RQ_OK) {
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

/* The control page belongs to those who may use the database: to those who may use its file, or else its directory. */
static unsigned control_mode(const struct rq_database *db)
{
    struct rq_disk *disk = db->env.disk;
    struct rq_file_info info;
    if (disk->ops->stat(disk, db->path, &info) == RQ_OK && info.size > 0) {
        return info.mode & 0666;
    }
    return disk->ops->stat(disk, db->env.dir, &info) == RQ_OK ? 0600 | (info.mode & 0066) : 0600;
}

void rq_database_removed_text(const struct rq_database *db, char text[RQ_DB_TEXT_BYTES])
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    const char *name = db->place->name;
    int n = snprintf(text, RQ_DB_TEXT_BYTES,
                     "%s was removed, but not dropped; to drop it: curl -X DELETE 'http://%s/db?db=%s'", name,
                     db->env.http_addr, name);
    if (n >= RQ_DB_TEXT_BYTES || strspn(name, plain) != strlen(name)) { /* no command that drops another one */
        (void)snprintf(text, RQ_DB_TEXT_BYTES,
                       "database %u was removed, but not dropped; to drop it: DELETE http://%.80s/db?db=, and its name "
                       "as GET /db has it",
                       db->id, db->env.http_addr);
    }
}

/* The first commit has not come yet, or somebody has removed the file. */
static void open_nothing(struct rq_database *db)
{
    const struct rq_database_known *k = &db->known;
    char text[RQ_DB_TEXT_BYTES];
    if (k->file_made || k->version > 0) {
        rq_database_removed_text(db, text);
        rq_db_quarantine(db, RQ_NOTFOUND, text);
    }
    rq_db_publish(db);
}

/* NOMEM and FULL: nothing has happened.  All else is decided: the replica is open, or the database fenced. */
static enum rq_err open_replica(struct rq_database *db, const struct rq_file_info *info)
{
    char text[RQ_DB_TEXT_BYTES];
    const struct rq_database_known *k = &db->known;
    const bool same = k->inode == 0 || (info->inode == k->inode && info->device == k->device);
    struct rq_replica *r;
    struct rq_replica_config config = rq_db_replica_config(db);
    enum rq_err err = rq_replica_open(&config, &r, &db->file);
    if (err == RQ_NOMEM || err == RQ_FULL) {
        return err;
    }
    if (err != RQ_OK) {
        (void)snprintf(text, sizeof text, "the file cannot be opened as a replica: %s", rq_err_text(err));
        db->file = (struct rq_replica_state){ 0 };
        rq_db_quarantine(db, err, text);
        return RQ_OK;
    }
    if (db->file.stamp.db_id != db->id) {
        (void)snprintf(text, sizeof text, "the file is a replica of database %u, not of %u", db->file.stamp.db_id,
                       db->id);
        db->superseded = db->file.stamp.db_id > db->id;
        rq_replica_close(r);
        db->file = (struct rq_replica_state){ 0 };
        rq_db_quarantine(db, RQ_FOREIGN, text);
        return RQ_OK;
    }
    if (!same) { /* its stamp is kept: catching up finds out whether it is the log that was replaced */
        rq_replica_close(r);
        rq_db_quarantine(db, RQ_FOREIGN,
                         "the file is not the one that raftd left: it was replaced while raftd was down");
        return RQ_OK;
    }
    err = rq_db_keep_hashes(db, r, text);
    if (err != RQ_OK) {
        rq_replica_close(r);
        if (err == RQ_NOMEM || err == RQ_FULL) {
            return err;
        }
        rq_db_quarantine(db, err, text);
        return RQ_OK;
    }
    uint64_t from;
    if (rq_replica_in_doubt(r, &from) && rq_proof_new(from, &db->proof) != RQ_OK) {
        db->env.fatal(db->env.ctx, "no memory to open a database", RQ_NOMEM);
    }
    rq_db_set_replica(db, r);
    if (db->file.version < db->version) {
        (void)snprintf(text, sizeof text, "the file is at version %llu, older than the %llu that raftd left",
                       (unsigned long long)db->file.version, (unsigned long long)db->version);
        rq_db_quarantine(db, RQ_CORRUPT, text);
    } else {
        db->state = RQ_DB_LIVE;
        db->applied_index = db->file.stamp.index;
    }
    rq_db_publish(db);
    return RQ_OK;
}

/* As above. */
static enum rq_err open_files(struct rq_database *db)
{
    struct rq_disk *disk = db->env.disk;
    struct rq_file_info info;
    char text[RQ_DB_TEXT_BYTES];
    enum rq_err err = RQ_OK;
    if (db->control.head == NULL) {
        err = rq_control_publish(disk, db->control_path, db->env.boot, control_mode(db), &db->control);
        if (err == RQ_OK) {
            rq_control_sweep(&db->control); /* who died while raftd was away, its own connections among them */
        }
    }
    if (err == RQ_NOMEM || err == RQ_FULL) {
        db->control.head = NULL;
        return err;
    }
    if (err != RQ_OK) {
        db->control.head = NULL;
        (void)snprintf(text, sizeof text, "its control page could not be made: %s", rq_err_text(err));
        rq_db_quarantine(db, err, text);
        return RQ_OK;
    }
    err = disk->ops->stat(disk, db->path, &info);
    if (err == RQ_NOTFOUND || (err == RQ_OK && info.size == 0)) {
        open_nothing(db);
        return RQ_OK;
    }
    if (err != RQ_OK) {
        (void)snprintf(text, sizeof text, "the file cannot be looked at: %s", rq_err_text(err));
        rq_db_quarantine(db, err, text);
        return RQ_OK;
    }
    if (db->known.adopt) {
        err = stamp_adopted(db);
        if (err == RQ_FOREIGN) {
            rq_db_quarantine(db, err, "the file was changed between its adoption and raftd's start");
            return RQ_OK;
        }
    }
    return open_replica(db, &info);
}

/* To open a replica takes space: what its WAL holds is written again, which on a disk that copies on write is new space each
 * time.  A disk that is full at the start is no reason to fence anything: it waits, as a committed transaction does. */
static void run_open(struct rq_task *task)
{
    struct rq_database *db = (struct rq_database *)((char *)task - offsetof(struct rq_database, open_task));
    bool told = false;
    enum rq_err err;
    rq_strand_will_block(); /* the loop, among others, which delivered its entry */
    while ((err = open_files(db)) == RQ_FULL) {
        if (!told) {
            char name[RQ_DB_NAME_MAX * 2];
            rq_note(RQ_LEVEL_ERROR, "no space to open a database, waiting for it", "db=%s id=%u",
                    rq_quote(name, sizeof name, db->place->name), db->id);
            told = true;
        }
        nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
    }
    if (err == RQ_NOMEM) {
        db->env.fatal(db->env.ctx, "no memory to open a database", err);
    }
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
    const bool hashes = env->hashes_dir != NULL;
    if (hashes && asprintf(&db->hashes_path, "%s/%u", env->hashes_dir, id) < 0) {
        db->hashes_path = NULL;
    }
    if (db->path == NULL || db->control_path == NULL || (hashes && db->hashes_path == NULL)) {
        free(db->path);
        free(db->hashes_path);
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
    rq_overlay_init(&db->merged, env->disk, env->staged_dir, MERGED_BYTES_MAX); /* is never more than that */
    pthread_mutex_init(&db->arrivals_lock, NULL);
    pthread_mutex_init(&db->hold, NULL);
    pthread_mutex_init(&db->info_lock, NULL);
    db->info = (struct rq_database_info){ .id = id, .version = db->version, .state = RQ_DB_EMPTY };
    rq_db_turn_init(db);
    db->open_task.run = run_open;
    atomic_init(&db->refs, 2); /* one is the task's */
    rq_strand_post(&place->strand, &db->open_task, RQ_CARRY);
    *ret_db = db;
    return RQ_OK;
}

/* --- errands  ---------------------------------------------------------------------------------------------------------------- */

struct rq_db_errand *rq_db_errand_new(struct rq_database *db, void (*run)(struct rq_task *task))
{
    struct rq_db_errand *e = calloc(1, sizeof *e);
    if (e == NULL) {
        db->env.fatal(db->env.ctx, "no memory", RQ_NOMEM);
    }
    e->task.run = run;
    e->db = rq_database_ref(db);
    return e;
}

struct call {
    struct rq_task task;
    struct rq_database *db;
    enum rq_err (*run)(struct rq_database *db, void *ctx);
    void *ctx;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    enum rq_err err;
};

static void run_call(struct rq_task *task)
{
    struct call *c = (struct call *)task;
    const enum rq_err err = c->run(c->db, c->ctx);
    pthread_mutex_lock(&c->lock);
    c->err = err;
    c->done = true;
    pthread_cond_signal(&c->ended);
    pthread_mutex_unlock(&c->lock);
}

enum rq_err rq_db_call(struct rq_database *db, enum rq_err (*run)(struct rq_database *db, void *ctx), void *ctx)
{
    struct call c = { .task = { .run = run_call }, .db = db, .run = run, .ctx = ctx };
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.ended, NULL);
    rq_strand_post(&db->place->strand, &c.task, RQ_HAND_OVER);
    while (!rq_pool_has_threads(db->env.pool) && !c.done && rq_pool_run_one(db->env.pool)) {
    }
    pthread_mutex_lock(&c.lock);
    while (!c.done) {
        pthread_cond_wait(&c.ended, &c.lock);
    }
    pthread_mutex_unlock(&c.lock);
    pthread_mutex_destroy(&c.lock);
    pthread_cond_destroy(&c.ended);
    return c.err;
}

static void run_caught_up(struct rq_task *task)
{
    struct rq_db_errand *e = (struct rq_db_errand *)task;
    struct rq_database *db = e->db;
    char text[RQ_DB_TEXT_BYTES];
    if (!db->dropped && (db->diverged || db->file.version > db->version)) {
        (void)snprintf(text, sizeof text,
                       "the file is at version %llu, made by log entry %llu of term %u; the log ends at version %llu",
                       (unsigned long long)db->file.version, (unsigned long long)db->file.stamp.index,
                       db->file.stamp.term, (unsigned long long)db->version);
        db->diverged = true;
        rq_db_quarantine(db, RQ_CORRUPT, text);
        (void)snprintf(db->message, sizeof db->message, "%s", text);
    }
    if (!db->dropped) {
        rq_db_end_doubt(db);
    }
    db->caught_up = true;
    if (db->state == RQ_DB_QUARANTINED) {
        note_quarantine(db);
    }
    rq_db_publish(db);
    rq_db_touch(db);
    rq_database_unref(db);
    free(e);
}

void rq_database_caught_up(struct rq_database *db)
{
    rq_database_post(db, &rq_db_errand_new(db, run_caught_up)->task, RQ_CARRY);
}

/* Of that file, the number-th of this id: the first has none. */
static char *trash_path(const struct rq_database *db, unsigned number, const char *suffix)
{
    char *path = NULL, again[16] = "";
    if (number > 1) {
        (void)snprintf(again, sizeof again, ".%u", number);
    }
    if (asprintf(&path, "%s/%u-%s%s%s", db->env.trash_dir, db->id, db->place->name, again, suffix) < 0) {
        db->env.fatal(db->env.ctx, "no memory", RQ_NOMEM);
    }
    return path;
}

/* What lies in the trash stays there. */
static unsigned trash_number(const struct rq_database *db)
{
    for (unsigned number = 1;; number++) {
        struct rq_file_info info;
        char *path = trash_path(db, number, "");
        const enum rq_err err = db->env.disk->ops->stat(db->env.disk, path, &info);
        free(path);
        if (err != RQ_OK) { /* NOTFOUND; with any other error the rename ends raftd */
            return number;
        }
    }
}

/* False: there was none. */
static bool move_to_trash(struct rq_database *db, unsigned number, const char *suffix)
{
    char *from = NULL, *to = trash_path(db, number, suffix);
    if (asprintf(&from, "%s%s", db->path, suffix) < 0) {
        db->env.fatal(db->env.ctx, "no memory", RQ_NOMEM);
    }
    const enum rq_err err = db->env.disk->ops->rename(db->env.disk, from, to);
    if (err != RQ_OK && err != RQ_NOTFOUND) {
        db->env.fatal(db->env.ctx, "the files of a database could not be moved to the trash", err);
    }
    free(from);
    free(to);
    return err == RQ_OK;
}

void rq_db_move_to_trash(struct rq_database *db, const char *why)
{
    const unsigned number = trash_number(db);
    (void)move_to_trash(db, number, "-wal");
    (void)move_to_trash(db, number, "-shm");
    const bool there = move_to_trash(db, number, ""); /* last: who dies before goes on with the same number */
    if (db->env.disk->ops->sync_dir(db->env.disk, db->env.trash_dir) != RQ_OK ||
        db->env.disk->ops->sync_dir(db->env.disk, db->env.dir) != RQ_OK) {
        db->env.fatal(db->env.ctx, "the files of a database could not be moved to the trash", RQ_IO);
    }
    if (there && why != NULL) {
        char name[RQ_DB_NAME_MAX * 2], quoted[RQ_DB_NAME_MAX * 4 + 512], *to = trash_path(db, number, "");
        rq_note(RQ_LEVEL_WARN, why, "db=%s id=%u file=%s", rq_quote(name, sizeof name, db->place->name), db->id,
                rq_quote(quoted, sizeof quoted, to));
        free(to);
    }
}

static void run_drop(struct rq_task *task)
{
    struct rq_db_errand *e = (struct rq_db_errand *)task;
    struct rq_database *db = e->db;
    struct rq_replica *r = db->replica;

    rq_strand_will_block();
    db->dropped = true;
    rq_db_turn_dropped(db);
    if (db->control.head != NULL) {
        atomic_store(&db->control.head->gone, 1);
        (void)db->env.disk->ops->unlink(db->env.disk, db->control_path); /* one that is marked gone misleads nobody */
    }
    pthread_mutex_lock(&db->info_lock);
    tell_watcher(db);
    pthread_mutex_unlock(&db->info_lock);
    pthread_mutex_lock(&db->hold); /* waits for a back-fill that is on its way */
    db->replica = NULL;
    pthread_mutex_unlock(&db->hold);
    rq_replica_close(r);
    if (db->hashes_path != NULL) {
        (void)db->env.disk->ops->unlink(db->env.disk,
                                        db->hashes_path); /* one that stays is nobody's: ids are never used again */
    }
    if (!db->superseded) {
        rq_db_move_to_trash(db, NULL);
    }
    if (db->in_flight != NULL) { /* submitted before the drop: its entry comes after it, and has no effect */
        struct rq_commit *c = rq_db_take_in_flight(db);
        rq_db_answer(db, c, RQ_REFUSED, "the database was dropped");
    }
    rq_db_consider_waiting(db);
    e->done(e->ctx);
    rq_database_unref(db);
    free(e);
}

void rq_database_drop(struct rq_database *db, void (*done)(void *ctx), void *ctx)
{
    struct rq_db_errand *e = rq_db_errand_new(db, run_drop);
    e->done = done;
    e->ctx = ctx;
    rq_strand_post(&db->place->strand, &e->task, RQ_CARRY);
}

static void run_session_ended(struct rq_task *task)
{
    struct rq_db_errand *e = (struct rq_db_errand *)task;
    struct rq_database *db = e->db;
    if (db->control.head != NULL && !db->dropped) {
        uint32_t slot;
        if (rq_db_turn_holder(db, e->session, &slot)) {
            rq_control_sweep(&db->control); /* it did not give it back: its process is dead */
            if (rq_db_turn_holder(db, e->session, &slot)) {
                rq_turn_pass(&db->control, slot); /* it is dying: the kernel closed its socket before its lock */
            }
        }
        rq_db_turn_step(db);
    }
    rq_database_unref(db);
    free(e);
}

void rq_database_session_ended(struct rq_database *db, uint64_t session)
{
    struct rq_db_errand *e = rq_db_errand_new(db, run_session_ended);
    e->session = session;
    rq_strand_post(&db->place->strand, &e->task, RQ_CARRY);
}

static void run_role(struct rq_task *task)
{
    struct rq_db_errand *e = (struct rq_db_errand *)task;
    rq_db_recheck(e->db);
    rq_db_turn_role(e->db);
    rq_database_unref(e->db);
    free(e);
}

void rq_database_role_changed(struct rq_database *db)
{
    rq_database_post(db, &rq_db_errand_new(db, run_role)->task, RQ_CARRY);
}

static void run_sweep(struct rq_task *task)
{
    struct rq_db_errand *e = (struct rq_db_errand *)task;
    if (e->db->control.head != NULL && !e->db->dropped) {
        rq_control_sweep(&e->db->control);
    }
    rq_database_unref(e->db);
    free(e);
}

void rq_database_sweep(struct rq_database *db)
{
    /* Not carried by the caller, who may hold the database. */
    rq_strand_post(&db->place->strand, &rq_db_errand_new(db, run_sweep)->task, RQ_HAND_OVER);
}

static void mend(struct rq_database *db)
{
    if (db->control.head == NULL || db->dropped) {
        return;
    }
    pthread_mutex_lock(&db->hold); /* a back-fill reads its table */
    rq_control_drop_former(&db->control);
    enum rq_err err = rq_control_check(&db->control, db->control_path, db->env.boot);
    if (err != RQ_OK) {
        enum rq_err made = rq_control_replace(&db->control, db->control_path, db->env.boot, control_mode(db));
        rq_note(made == RQ_OK ? RQ_LEVEL_WARN : RQ_LEVEL_ERROR,
                made == RQ_OK ? "a control page was damaged and is made anew" : "a control page cannot be made anew",
                "id=%u found=%s err=%s", db->id, rq_err_name(err), rq_err_name(made));
    }
    pthread_mutex_unlock(&db->hold);
    rq_db_publish(db);
}

static void run_mend(struct rq_task *task)
{
    struct rq_db_errand *e = (struct rq_db_errand *)task;
    mend(e->db);
    rq_database_unref(e->db);
    free(e);
}

void rq_database_mend(struct rq_database *db)
{
    rq_strand_post(&db->place->strand, &rq_db_errand_new(db, run_mend)->task, RQ_CARRY);
}

static void run_quarantine(struct rq_task *task)
{
    struct rq_db_errand *e = (struct rq_db_errand *)task;
    rq_db_quarantine(e->db, RQ_CORRUPT, e->text);
    rq_database_unref(e->db);
    free(e);
}

void rq_database_quarantine(struct rq_database *db, const char *text)
{
    struct rq_db_errand *e = rq_db_errand_new(db, run_quarantine);
    (void)snprintf(e->text, sizeof e->text, "%s", text);
    rq_strand_post(&db->place->strand, &e->task, RQ_HAND_OVER); /* as for a sweep */
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

bool rq_database_waits(const struct rq_database *db)
{
    return atomic_load(&db->waits);
}

enum rq_err rq_database_describe(struct rq_database *db, struct rq_database_known *ret_known)
{
    struct rq_origins copy;
    assert(rq_strand_is_mine(&db->place->strand));
    if (db->file.version < db->version && db->needs_log) {
        return RQ_BUSY;
    }
    enum rq_err err = rq_origins_copy(&db->origins, &copy);
    if (err != RQ_OK) {
        return err;
    }
    *ret_known = (struct rq_database_known){
        .version = db->version,
        .file_made = db->file.version > 0 || db->version > 0,
        .file_index = db->file.stamp.index,
        .origins = copy,
    };
    return RQ_OK;
}
