/* Replica: open, create, close, and what is asked of it between appends.  The map of files is in replica_impl.h. */
#include "vfs/replica.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/txn.h"
#include "vfs/replica_impl.h"
#include "vfs/trickle.h"

#define SOFT_FRAMES_DEFAULT 1000u
#define HARD_FRAMES_DEFAULT 4000u

/* --- page 1 -------------------------------------------------------------------------------------------------------------- */

/* Offsets in page 1; up to 72 as in https://sqlite.org/fileformat2.html#the_database_header. */
enum {
    P1_PAGE_SIZE = 16,
    P1_WRITE_VERSION = 18,
    P1_READ_VERSION = 19,
    P1_CHANGE_COUNTER = 24,
    P1_PAGE_COUNT = 28,
    P1_STAMP = 72, /* db_id u32, term u32, index u64, version_high u32 */
    P1_VALID_FOR = 92,
    P1_HEAD_BYTES = 100,
};

static const char SQLITE_MAGIC[16] = "SQLite format 3";

static bool page_size_valid(uint32_t page_size)
{
    return page_size >= 512 && page_size <= 65536 && (page_size & (page_size - 1)) == 0;
}

static uint32_t page1_page_size(const uint8_t *page1)
{
    const uint32_t size = rq_get_u16(page1 + P1_PAGE_SIZE);
    return size == 1 ? 65536 : size;
}

enum rq_err rq_page1_state(const uint8_t *page1, struct rq_replica_state *ret_state)
{
    const uint32_t page_size = page1_page_size(page1);
    if (memcmp(page1, SQLITE_MAGIC, sizeof SQLITE_MAGIC) != 0 || !page_size_valid(page_size)) {
        return RQ_CORRUPT;
    }
    const uint32_t version_low = rq_get_u32(page1 + P1_CHANGE_COUNTER);
    struct rq_replica_state state = {
        .stamp = {
            .db_id = rq_get_u32(page1 + P1_STAMP),
            .term = rq_get_u32(page1 + P1_STAMP + 4),
            .index = rq_get_u64(page1 + P1_STAMP + 8),
            .version_high = rq_get_u32(page1 + P1_STAMP + 16),
        },
        .page_size = page_size,
        .page_count = rq_get_u32(page1 + P1_PAGE_COUNT),
    };
    state.version = (uint64_t)state.stamp.version_high << 32 | version_low;
    if (page1[P1_WRITE_VERSION] != RQ_WRITE_VERSION || page1[P1_READ_VERSION] != 2 || state.stamp.db_id == 0) {
        return RQ_FOREIGN;
    }
    if (state.page_count == 0 || rq_get_u32(page1 + P1_VALID_FOR) != version_low) {
        return RQ_CORRUPT;
    }
    *ret_state = state;
    return RQ_OK;
}

void rq_page1_stamp(uint8_t *page1, const struct rq_replica_state *state)
{
    page1[P1_WRITE_VERSION] = RQ_WRITE_VERSION;
    page1[P1_READ_VERSION] = 2;
    rq_put_u32(page1 + P1_CHANGE_COUNTER, (uint32_t)state->version);
    rq_put_u32(page1 + P1_PAGE_COUNT, state->page_count);
    rq_put_u32(page1 + P1_STAMP, state->stamp.db_id);
    rq_put_u32(page1 + P1_STAMP + 4, state->stamp.term);
    rq_put_u64(page1 + P1_STAMP + 8, state->stamp.index);
    rq_put_u32(page1 + P1_STAMP + 16, (uint32_t)(state->version >> 32));
    rq_put_u32(page1 + P1_VALID_FOR, (uint32_t)state->version);
}

/* --- open and close ------------------------------------------------------------------------------------------------------ */

static char *text_join(const char *a, const char *b)
{
    char *joined = NULL;
    return asprintf(&joined, "%s%s", a, b) < 0 ? NULL : joined;
}

/* The directory that path lies in. */
static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? strdup(".") : slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* SQLite's SHARED lock: PENDING is held for the moment, so that who waits for EXCLUSIVE is not overtaken for ever. */
static enum rq_err lock_shared(struct rq_disk *disk, struct rq_file *db)
{
    enum rq_err err = disk->ops->lock(db, RQ_DB_PENDING, 1, RQ_SHARED);
    if (err != RQ_OK) {
        return err;
    }
    err = disk->ops->lock(db, RQ_DB_SHARED, RQ_DB_SHARED_BYTES, RQ_SHARED);
    const enum rq_err unlocked = disk->ops->lock(db, RQ_DB_PENDING, 1, RQ_UNLOCKED);
    return err != RQ_OK ? err : unlocked;
}

static enum rq_err db_open(struct rq_replica *r)
{
    uint8_t head[P1_HEAD_BYTES];
    struct rq_file_info info;
    size_t got;
    enum rq_err err = r->disk->ops->open(r->disk, r->path, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &r->db);
    if (err == RQ_OK) {
        err = r->disk->ops->info(r->db, &info);
    }
    if (err != RQ_OK) {
        return err;
    }
    if (!info.regular) {
        return RQ_FOREIGN;
    }
    if (info.size == 0) {
        return RQ_NOTFOUND;
    }
    r->mode = info.mode & 0777u;
    err = lock_shared(r->disk, r->db);
    if (err == RQ_OK) {
        err = r->disk->ops->read(r->db, head, sizeof head, 0, &got);
    }
    if (err != RQ_OK) {
        return err;
    }
    /* Of this page 1, which may be older than the WAL's, only what never changes is believed: whose file it is and the size of
     * its pages.  Nothing of a file that is not ours was touched so far. */
    struct rq_replica_state state;
    if (got != sizeof head || memcmp(head, SQLITE_MAGIC, sizeof SQLITE_MAGIC) != 0 ||
        rq_page1_state(head, &state) == RQ_FOREIGN) {
        return RQ_FOREIGN;
    }
    r->page_size = page1_page_size(head);
    return page_size_valid(r->page_size) ? RQ_OK : RQ_CORRUPT;
}

static enum rq_err wal_open(struct rq_replica *r, bool *ret_made)
{
    enum rq_err err = r->disk->ops->open(r->disk, r->wal_path, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &r->wal);
    *ret_made = err == RQ_NOTFOUND;
    if (err == RQ_NOTFOUND) {
        err = r->disk->ops->open(r->disk, r->wal_path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_NOFOLLOW, r->mode,
                                 &r->wal);
    }
    return err;
}

static enum rq_err buffers_new(struct rq_replica *r)
{
    r->page1 = malloc(r->page_size);
    r->page1_next = malloc(r->page_size);
    r->frame = malloc(rq_frame_bytes(r));
    r->zeros = calloc(1, r->page_size);
    r->chunk = malloc(RQ_CHUNK_BYTES);
    r->region_image = malloc(RQ_WAL_INDEX_REGION);
    const bool all = r->page1 != NULL && r->page1_next != NULL && r->frame != NULL && r->zeros != NULL &&
                     r->chunk != NULL && r->region_image != NULL;
    /* The map has its arrays also when nothing is in them. */
    return all ? rq_frames_reserve(&r->frames, 1) : RQ_NOMEM;
}

/* First publication.  Readers of a predecessor may be at work: what they look for stays where it was; that nothing counts as
 * back-filled any more is right for them, too, and what recovery by SQLite itself does. */
static enum rq_err publish_first(struct rq_replica *r, bool files_made)
{
    enum rq_err err = rq_replica_shm_grow(r, r->frames.committed + 1);
    if (err != RQ_OK) {
        return err;
    }
    if (!rq_replica_shm_whole(r)) {
        return RQ_FULL;
    }
    struct rq_wal_ckpt_info *info = rq_replica_ckpt_info(r);
    for (uint32_t i = 1; i < RQ_READ_MARKS; i++) {
        err = r->disk->ops->lock(r->shm, RQ_SHM_READ0 + i, 1, RQ_EXCLUSIVE);
        if (err == RQ_BUSY) {
            continue; /* a reader's */
        }
        if (err != RQ_OK) {
            return err;
        }
        /* One is always set: who may not write -shm can only lock a mark that is there. */
        const uint32_t mark = i == 1 ? r->frames.committed : RQ_READ_MARK_UNUSED;
        __atomic_store_n(&info->aReadMark[i], mark, __ATOMIC_RELAXED);
        (void)r->disk->ops->lock(r->shm, RQ_SHM_READ0 + i, 1, RQ_UNLOCKED);
    }
    __atomic_store_n(&info->nBackfillAttempted, r->frames.committed, __ATOMIC_RELAXED);
    rq_replica_publish_all(r);

    struct rq_control_head *head = r->control->head;
    atomic_fetch_add(&head->files_epoch, files_made ? 1u : 0u);
    rq_replica_publish_control(r);
    atomic_store(&head->state, (uint32_t)RQ_DB_LIVE);
    /* A predecessor may have died in a reset. */
    atomic_fetch_add(&head->reset_gate, atomic_load(&head->reset_gate) & 1u);
    rq_replica_note_modified(r);
    return RQ_OK;
}

enum rq_err rq_replica_open(const struct rq_replica_config *config, struct rq_replica **ret_replica,
                            struct rq_replica_state *ret_state)
{
    struct rq_replica *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return RQ_NOMEM;
    }
    r->disk = config->disk;
    r->control = config->control;
    r->wal_soft_frames = config->wal_soft_frames != 0 ? config->wal_soft_frames : SOFT_FRAMES_DEFAULT;
    r->wal_hard_frames = config->wal_hard_frames != 0 ? config->wal_hard_frames : HARD_FRAMES_DEFAULT;
    r->path = strdup(config->path);
    r->wal_path = text_join(config->path, "-wal");
    r->shm_path = text_join(config->path, "-shm");
    r->dir_path = dir_of(config->path);
    rq_frames_init(&r->frames);
    pthread_mutex_init(&r->mutex, NULL);
    pthread_mutex_init(&r->syncs, NULL);
    pthread_cond_init(&r->changed, NULL);

    bool wal_made = false, shm_made = false;
    enum rq_err err = RQ_NOMEM;
    if (r->path != NULL && r->wal_path != NULL && r->shm_path != NULL && r->dir_path != NULL) {
        err = db_open(r);
    }
    if (err == RQ_OK) {
        err = buffers_new(r);
    }
    /* -shm first: its WRITE lock says that nobody else is at the WAL. */
    if (err == RQ_OK) {
        err = rq_replica_shm_open(r, &r->shm, &shm_made);
    }
    if (err == RQ_OK) {
        err = wal_open(r, &wal_made);
    }
    if (err == RQ_OK) {
        err = rq_replica_recover(r);
    }
    if (err == RQ_OK) {
        err = publish_first(r, wal_made || shm_made);
    }
    if (err != RQ_OK) {
        rq_replica_close(r);
        return err;
    }
    *ret_state = r->state;
    *ret_replica = r;
    return RQ_OK;
}

void rq_replica_close(struct rq_replica *r)
{
    if (r == NULL) {
        return;
    }
    rq_replica_watches_break(r);
    rq_replica_shm_close(r);
    rq_page_hashes_close(r->hashes);
    if (r->wal != NULL) {
        r->disk->ops->close(r->wal);
    }
    if (r->db != NULL) {
        r->disk->ops->close(r->db);
    }
    rq_frames_fini(&r->frames);
    pthread_mutex_destroy(&r->mutex);
    pthread_mutex_destroy(&r->syncs);
    pthread_cond_destroy(&r->changed);
    free(r->page1);
    free(r->page1_next);
    free(r->frame);
    free(r->zeros);
    free(r->chunk);
    free(r->region_image);
    free(r->path);
    free(r->wal_path);
    free(r->shm_path);
    free(r->dir_path);
    free(r);
}

/* --- create -------------------------------------------------------------------------------------------------------------- */

/* Nobody has written these pages before, and nobody may ever write them again: what they must be is known now or, should they
 * be damaged before a scrub comes to them, never. */
static enum rq_err hashes_begin(const struct rq_replica_config *config, const struct rq_replica_state *state,
                                struct rq_page_hashes **ret_hashes)
{
    const char *removed;
    if (config->hashes_path == NULL) {
        return RQ_OK;
    }
    enum rq_err err = rq_page_hashes_open(config->disk, config->hashes_path, state->stamp.db_id, state->page_size,
                                          ret_hashes, &removed);
    if (err == RQ_OK) {
        err = rq_page_hashes_forget(*ret_hashes); /* of a file that is no more */
    }
    if (err == RQ_OK) {
        err = rq_page_hashes_make(*ret_hashes, 0);
    }
    if (err != RQ_OK) {
        rq_page_hashes_close(*ret_hashes);
        *ret_hashes = NULL;
    }
    return err == RQ_FULL || err == RQ_PERM ? RQ_OK : err;
}

/* The file is durable; err: all its pages were put.  Else they are unknown. */
static enum rq_err hashes_end(const struct rq_replica_config *config, const struct rq_replica_state *state,
                              struct rq_page_hashes *hashes, enum rq_err err)
{
    if (err == RQ_OK) {
        err = rq_page_hashes_set_boot(hashes, config->boot);
    }
    if (err == RQ_OK) {
        err = rq_page_hashes_seal(hashes, state->version, state->page_count);
    }
    if (err == RQ_FULL) {
        err = rq_page_hashes_forget(hashes);
    }
    return err;
}

static enum rq_err pages_write(struct rq_file *file, struct rq_page_merge *merge, uint8_t *chunk,
                               struct rq_page_hashes *hashes, enum rq_err *ret_hashed)
{
    const uint32_t page_size = merge->after->page_size;
    uint64_t of_chunk[RQ_TRICKLE_BEGIN_BYTES / 512];
    size_t filled = 0;
    struct rq_trickle trickle = { 0 };
    uint64_t at = 0;
    for (;;) {
        uint32_t pgno;
        const uint8_t *page;
        enum rq_err err = rq_page_merge_next(merge, &pgno, &page);
        const bool last = err == RQ_NOTFOUND;
        if (err != RQ_OK && !last) {
            return err;
        }
        const uint64_t offset = last ? 0 : (uint64_t)(pgno - 1) * page_size;
        if (filled > 0 && (last || filled == RQ_TRICKLE_BEGIN_BYTES || offset != at + filled)) {
            err = rq_trickle_write(&trickle, file, chunk, filled, at);
            if (err != RQ_OK) {
                return err;
            }
            if (hashes != NULL && *ret_hashed == RQ_OK) {
                *ret_hashed = rq_page_hashes_put(hashes, (uint32_t)(at / page_size) + 1, (uint32_t)(filled / page_size),
                                                 of_chunk);
            }
            filled = 0;
        }
        if (last) {
            return RQ_OK;
        }
        at = filled == 0 ? offset : at;
        memcpy(chunk + filled, page, page_size);
        of_chunk[filled / page_size] = hashes != NULL ? rq_page_hash(page, page_size) : 0;
        filled += page_size;
    }
}

static enum rq_err file_build(const struct rq_replica_config *config, const char *path,
                              const struct rq_page_source *pages, const struct rq_replica_state *state)
{
    const struct rq_disk_ops *ops = config->disk->ops;
    struct rq_file *file = NULL;
    struct rq_page_hashes *hashes = NULL;
    enum rq_err hashed = RQ_OK;
    uint8_t *page1 = malloc(state->page_size), *zeros = calloc(1, state->page_size);
    uint8_t *chunk = malloc(RQ_TRICKLE_BEGIN_BYTES);
    struct rq_page_merge merge = { .source = pages, .after = state, .page1 = page1, .zeros = zeros, .next_zero = 1 };
    enum rq_err err = RQ_NOMEM;
    if (page1 != NULL && zeros != NULL && chunk != NULL) {
        err = ops->open(config->disk, path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_NOFOLLOW, 0666, &file);
    }
    if (err == RQ_OK) {
        err = ops->truncate(file, 0); /* what a predecessor that was killed had begun */
    }
    if (err == RQ_OK) {
        err = hashes_begin(config, state, &hashes);
    }
    if (err == RQ_OK) {
        err = pages_write(file, &merge, chunk, hashes, &hashed);
    }
    if (err == RQ_OK) {
        err = rq_sync_final(config->disk, file);
    }
    if (err == RQ_OK && hashes != NULL) {
        err = hashes_end(config, state, hashes, hashed);
    }
    rq_page_hashes_close(hashes);
    if (file != NULL) {
        ops->close(file);
    }
    free(page1);
    free(zeros);
    free(chunk);
    return err;
}

/* A -wal or -journal of a former database of this name would be played into the new one. */
static enum rq_err leftovers_remove(struct rq_disk *disk, const char *path)
{
    static const char *const suffixes[] = { "-wal", "-journal" };
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char *name = text_join(path, suffixes[i]);
        enum rq_err err = name == NULL ? RQ_NOMEM : disk->ops->unlink(disk, name);
        free(name);
        if (err != RQ_OK && err != RQ_NOTFOUND) {
            return err;
        }
    }
    return RQ_OK;
}

enum rq_err rq_replica_create(const struct rq_replica_config *config, const struct rq_page_source *pages,
                              const struct rq_replica_state *state, struct rq_replica **ret_replica)
{
    const struct rq_disk_ops *ops = config->disk->ops;
    if (!page_size_valid(state->page_size) || state->page_count == 0 || state->stamp.db_id == 0) {
        return RQ_MISUSE;
    }
    struct rq_file_info info;
    enum rq_err err = ops->stat(config->disk, config->path, &info);
    if (err == RQ_OK && (!info.regular || info.size > 0)) {
        return RQ_EXISTS;
    }
    if (err != RQ_OK && err != RQ_NOTFOUND) {
        return err;
    }
    char *path_new = text_join(config->path, RQ_NEW_SUFFIX), *dir = dir_of(config->path);
    err = path_new == NULL || dir == NULL ? RQ_NOMEM : file_build(config, path_new, pages, state);
    if (err == RQ_OK) {
        err = leftovers_remove(config->disk, config->path);
    }
    if (err == RQ_OK) {
        err = ops->sync_dir(config->disk, dir); /* they are gone before the new name can be there */
    }
    if (err == RQ_OK) {
        err = ops->rename(config->disk, path_new, config->path);
    }
    if (err != RQ_OK && path_new != NULL) {
        (void)ops->unlink(config->disk, path_new); /* only for its space: the next create would overwrite it */
    }
    if (err == RQ_OK) {
        err = ops->sync_dir(config->disk, dir);
    }
    free(path_new);
    free(dir);
    struct rq_replica_state opened;
    if (err == RQ_OK) {
        err = rq_replica_open(config, ret_replica, &opened);
    }
    return err;
}

/* --- between appends ----------------------------------------------------------------------------------------------------- */

void rq_replica_get_state(const struct rq_replica *replica, struct rq_replica_state *ret_state)
{
    struct rq_replica *r = (struct rq_replica *)replica; /* for its mutex */
    pthread_mutex_lock(&r->mutex);
    *ret_state = r->state;
    pthread_mutex_unlock(&r->mutex);
}

void rq_replica_get_wal(const struct rq_replica *replica, struct rq_replica_wal *ret_wal)
{
    struct rq_replica *r = (struct rq_replica *)replica; /* for its mutex */
    pthread_mutex_lock(&r->mutex);
    *ret_wal = (struct rq_replica_wal){
        .frames = r->frames.committed,
        .backfilled = r->backfilled,
        .file_bytes = r->wal_reserved,
        .blocked = r->blocked,
    };
    pthread_mutex_unlock(&r->mutex);
}

/* With the mutex. */
static enum rq_err read_from_file(struct rq_replica *r, uint32_t pgno, uint8_t *page)
{
    size_t got;
    enum rq_err err = r->disk->ops->read(r->db, page, r->page_size, (uint64_t)(pgno - 1) * r->page_size, &got);
    err = err == RQ_OK && got != r->page_size ? RQ_CORRUPT : err;
    return err == RQ_OK ? rq_replica_page_verify(r, pgno, page) : err;
}

enum rq_err rq_replica_read(struct rq_replica *r, uint32_t pgno, uint8_t *page)
{
    if (pgno == 0) {
        return RQ_MISUSE;
    }
    if (pgno > r->state.page_count || pgno == rq_lock_page(r->page_size)) {
        memset(page, 0, r->page_size);
        return RQ_OK;
    }
    if (pgno == 1) {
        memcpy(page, r->page1, r->page_size);
        rq_page1_normalise(page);
        return RQ_OK;
    }
    /* With the mutex: a reset may take the frame away, or shorten the WAL. */
    enum rq_err err;
    pthread_mutex_lock(&r->mutex);
    const uint32_t frame = rq_frames_find(&r->frames, pgno);
    if (frame != 0 && frame >= r->chunk_frame && frame - r->chunk_frame < r->chunk_count) {
        /* Small transactions after one another change the same few pages. */
        memcpy(page, r->chunk + (size_t)(frame - r->chunk_frame) * rq_frame_bytes(r) + RQ_WAL_FRAME_BYTES,
               r->page_size);
        err = RQ_OK;
    } else if (frame != 0) {
        err = rq_replica_frame_read(r, &r->head, frame, &r->frames.frames[frame - 1], rq_replica_sum_before(r, frame),
                                    r->frame);
        if (err == RQ_OK) {
            memcpy(page, r->frame + RQ_WAL_FRAME_BYTES, r->page_size);
        }
    } else {
        err = read_from_file(r, pgno, page);
    }
    pthread_mutex_unlock(&r->mutex);
    return err;
}

enum rq_err rq_replica_read_as_shown(struct rq_replica *r, uint32_t pgno, uint8_t *page)
{
    if (pgno == 0 || pgno > r->state.page_count || pgno == rq_lock_page(r->page_size)) {
        return rq_replica_read(r, pgno, page);
    }
    pthread_mutex_lock(&r->mutex);
    const bool in_file = rq_frames_find(&r->frames, pgno) <= r->backfilled;
    enum rq_err err = in_file ? read_from_file(r, pgno, page) : RQ_OK;
    pthread_mutex_unlock(&r->mutex);
    if (!in_file) {
        return rq_replica_read(r, pgno, page);
    }
    if (err == RQ_OK && pgno == 1) {
        rq_page1_normalise(page);
    }
    return err;
}

enum rq_err rq_replica_sync(struct rq_replica *r)
{
    pthread_mutex_lock(&r->syncs);
    enum rq_err err = rq_sync_final(r->disk, r->wal);
    pthread_mutex_unlock(&r->syncs);
    if (err == RQ_OK && !r->dir_synced) {
        err = r->disk->ops->sync_dir(r->disk, r->dir_path) == RQ_OK ? RQ_OK : RQ_IO;
        r->dir_synced = err == RQ_OK;
    }
    return err;
}
