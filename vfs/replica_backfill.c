/* Replica, background: WAL to database file, and the WAL begun anew.
 *
 * Both sides of the reader protocol publish first and look at the other side then.  Ours: the wal-index header (append) and
 * reset_gate are published, fence, then stock marks and reader table are read.  A reader that is missed by this has not looked at
 * the header yet, so it will see the newest, and what is done here changes nothing of that. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/wire/txn.h"
#include "vfs/replica_impl.h"
#include "vfs/trickle.h"

#define READER_LOOKS   10
#define READER_LOOK_NS 50000 /* between two looks whether a reader has left the WAL */
#define APPEND_ENDS_MS 10    /* a reset waits so long for an append; the thread serves other databases, too */

/* --- readers ------------------------------------------------------------------------------------------------------------- */

/* Lowers *limit to what the table's readers need to stay in the WAL: frames beyond it may not be copied.  IDLE snapshots that
 * are in the way are taken away. */
static void page_limit(struct rq_control *control, uint32_t *limit)
{
    for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
        struct rq_slot *slot = &control->slots[i];
        uint64_t word = atomic_load(&slot->snapshot);
        for (;;) {
            const unsigned state = rq_snap_state(word);
            /* Who reads the file only must not see it change at all. */
            const uint32_t needs = rq_snap_kind(word) == RQ_SNAP_WAL ? rq_snap_frames(word) : 0;
            if (state == RQ_SNAP_NONE || needs >= *limit) {
                break;
            }
            if (state != RQ_SNAP_IDLE) {
                *limit = needs;
                break;
            }
            if (atomic_compare_exchange_strong(&slot->snapshot, &word, rq_snap_word(RQ_SNAP_NONE, 0, 0))) {
                break;
            }
        }
    }
}

static void table_limit(struct rq_replica *r, uint32_t *limit)
{
    for (struct rq_control *c = r->control; c != NULL; c = c->former) {
        page_limit(c, limit);
    }
}

/* The same for stock readers, by SQLite's rule: a mark whose lock is free is moved out of the way. */
static enum rq_err marks_limit(struct rq_replica *r, uint32_t *limit)
{
    for (uint32_t i = 1; i < RQ_READ_MARKS; i++) {
        pthread_mutex_lock(&r->mutex);
        enum rq_err err = rq_replica_shm_whole(r) ? RQ_OK : RQ_FULL;
        const uint32_t mark =
            err == RQ_OK ? __atomic_load_n(&rq_replica_ckpt_info(r)->aReadMark[i], __ATOMIC_SEQ_CST) : 0;
        if (err == RQ_OK && mark < *limit) {
            err = r->disk->ops->lock(r->shm, RQ_SHM_READ0 + i, 1, RQ_EXCLUSIVE);
            if (err == RQ_OK) {
                __atomic_store_n(&rq_replica_ckpt_info(r)->aReadMark[i], i == 1 ? *limit : RQ_READ_MARK_UNUSED,
                                 __ATOMIC_SEQ_CST);
                err = r->disk->ops->lock(r->shm, RQ_SHM_READ0 + i, 1, RQ_UNLOCKED);
            } else if (err == RQ_BUSY) {
                *limit = mark;
                err = RQ_OK;
            }
        }
        pthread_mutex_unlock(&r->mutex);
        if (err != RQ_OK) {
            return err;
        }
    }
    return RQ_OK;
}

/* No snapshot of the table may look into the WAL any more.  All of it is back-filled, so that a connection which only waits
 * for its COMMIT can go on from the file. */
static bool page_leaves_wal(struct rq_control *control, uint32_t backfilled)
{
    for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
        struct rq_slot *slot = &control->slots[i];
        uint64_t word = atomic_load(&slot->snapshot);
        while (rq_snap_state(word) != RQ_SNAP_NONE && rq_snap_kind(word) == RQ_SNAP_WAL) {
            uint64_t left;
            if (rq_snap_state(word) == RQ_SNAP_IDLE) {
                left = rq_snap_word(RQ_SNAP_NONE, 0, 0);
            } else if (rq_snap_state(word) == RQ_SNAP_COMMITTING && rq_snap_frames(word) == backfilled) {
                left = rq_snap_word(RQ_SNAP_COMMITTING, RQ_SNAP_FILE, rq_snap_frames(word));
            } else {
                return false;
            }
            if (atomic_compare_exchange_strong(&slot->snapshot, &word, left)) {
                break;
            }
        }
    }
    return true;
}

static bool table_leaves_wal(struct rq_replica *r)
{
    for (struct rq_control *c = r->control; c != NULL; c = c->former) {
        if (!page_leaves_wal(c, r->backfilled)) {
            return false;
        }
    }
    return true;
}

static void set_blocked(struct rq_replica *r, bool blocked)
{
    pthread_mutex_lock(&r->mutex);
    r->blocked = blocked;
    pthread_mutex_unlock(&r->mutex);
}

/* --- back-fill ----------------------------------------------------------------------------------------------------------- */

/* What one back-fill works on: committed frames (from, to], as they were when it began. */
struct backfill {
    struct rq_wal_head head;
    struct rq_frame *frames; /* owns; frames[0] is the one before the first: its checksum starts the chain */
    uint32_t *order;         /* owns; frame numbers, by page; newest of each page only */
    uint32_t order_count;
    uint32_t *pages; /* owns; of order, in the end: which pages were copied, and their hashes */
    uint64_t *hashes;
    uint32_t from, to;
    uint32_t page_count;
    uint64_t version; /* that is whole when all is copied */
};

static void backfill_fini(struct backfill *b)
{
    free(b->frames);
    free(b->order);
    free(b->pages);
    free(b->hashes);
}

static enum rq_err backfill_init(struct backfill *b, struct rq_replica *r)
{
    memset(b, 0, sizeof *b);
    pthread_mutex_lock(&r->mutex);
    b->head = r->head;
    b->from = r->backfilled;
    b->to = r->frames.committed;
    b->page_count = r->state.page_count;
    b->version = r->state.version;
    const size_t count = b->to - b->from;
    b->frames = malloc((count + 1) * sizeof *b->frames);
    b->order = malloc((count + 1) * sizeof *b->order);
    b->pages = malloc((count + 1) * sizeof *b->pages);
    b->hashes = malloc((count + 1) * sizeof *b->hashes);
    const bool allocated = b->frames != NULL && b->order != NULL && b->pages != NULL && b->hashes != NULL;
    if (allocated) {
        memcpy(b->frames[0].checksum, rq_replica_sum_before(r, b->from + 1), sizeof b->frames[0].checksum);
        if (count > 0) {
            memcpy(b->frames + 1, r->frames.frames + b->from, count * sizeof *b->frames);
        }
    }
    pthread_mutex_unlock(&r->mutex);
    return allocated ? RQ_OK : RQ_NOMEM;
}

static int order_compare(const void *a, const void *b, void *ctx)
{
    const struct backfill *f = ctx;
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    const uint32_t px = f->frames[x - f->from].pgno, py = f->frames[y - f->from].pgno;
    return px != py ? (px > py) - (px < py) : (x < y) - (x > y);
}

/* The newest frame of each page up to limit, pages ascending; no page past the end of the database. */
static void order_make(struct backfill *b, uint32_t limit)
{
    uint32_t count = 0, kept = 0;
    for (uint32_t frame = b->from + 1; frame <= limit; frame++) {
        if (b->frames[frame - b->from].pgno <= b->page_count) {
            b->order[count++] = frame;
        }
    }
    qsort_r(b->order, count, sizeof *b->order, order_compare, b);
    for (uint32_t i = 0; i < count; i++) {
        if (i == 0 || b->frames[b->order[i] - b->from].pgno != b->frames[b->order[i - 1] - b->from].pgno) {
            b->order[kept++] = b->order[i];
        }
    }
    b->order_count = kept;
}

static enum rq_err pages_copy(struct rq_replica *r, struct backfill *b)
{
    enum rq_err err = RQ_OK;
    uint8_t *frame_buffer = malloc(rq_frame_bytes(r)), *run = malloc(RQ_CHUNK_BYTES);
    if (frame_buffer == NULL || run == NULL) {
        err = RQ_NOMEM;
        goto done;
    }
    uint32_t run_page = 0; /* the first page of the run */
    size_t run_bytes = 0;
    struct rq_trickle trickle = { 0 };
    for (uint32_t i = 0; i <= b->order_count; i++) {
        const bool last = i == b->order_count;
        const struct rq_frame *frame = last ? NULL : &b->frames[b->order[i] - b->from];
        if (run_bytes > 0 &&
            (last || run_bytes == RQ_CHUNK_BYTES || frame->pgno != run_page + run_bytes / r->page_size)) {
            err = rq_trickle_write(&trickle, r->db, run, run_bytes, (uint64_t)(run_page - 1) * r->page_size);
            if (err != RQ_OK) {
                goto done;
            }
            run_bytes = 0;
        }
        if (last) {
            break;
        }
        err = rq_replica_frame_read(r, &b->head, b->order[i], frame, frame[-1].checksum, frame_buffer);
        if (err != RQ_OK) {
            goto done;
        }
        run_page = run_bytes == 0 ? frame->pgno : run_page;
        memcpy(run + run_bytes, frame_buffer + RQ_WAL_FRAME_BYTES, r->page_size);
        run_bytes += r->page_size;
        b->pages[i] = frame->pgno;
        b->hashes[i] = r->hashes != NULL ? rq_page_hash(frame_buffer + RQ_WAL_FRAME_BYTES, r->page_size) : 0;
    }
done:
    free(frame_buffer);
    free(run);
    return err;
}

/* With the pages durable; and durable itself before anybody can take the WAL for back-filled and reset it. */
static enum rq_err hashes_keep(struct rq_replica *r, const struct backfill *b, uint32_t limit)
{
    if (r->hashes == NULL) {
        return RQ_OK;
    }
    enum rq_err err = rq_replica_put_hashes(r, b->pages, b->hashes, b->order_count);
    return err == RQ_OK && limit == b->to ? rq_page_hashes_seal(r->hashes, b->version, b->page_count) : err;
}

/* Copies frames up to limit; READ_LOCK(0) is held, so that no stock reader reads the file alone. */
static enum rq_err backfill_locked(struct rq_replica *r, struct backfill *b, uint32_t limit)
{
    const bool others_wrote = rq_replica_others_wrote(r); /* what we write now must not hide that from the next check */
    order_make(b, limit);
    enum rq_err err = pages_copy(r, b);
    if (err == RQ_OK && limit == b->to) {
        /* Everybody who reads has this size or a later one, and what a later one added is in the WAL (rule Z). */
        const uint64_t bytes = (uint64_t)b->page_count * r->page_size;
        struct rq_file_info info;
        err = r->disk->ops->info(r->db, &info);
        if (err == RQ_OK && info.size != bytes) {
            err = r->disk->ops->truncate(r->db, bytes);
        }
    }
    if (!others_wrote) {
        rq_replica_note_modified(r); /* at once: what comes from here on is not ours */
    }
    if (err == RQ_OK) {
        err = rq_sync_final(r->disk, r->db);
    }
    if (err == RQ_OK) {
        err = hashes_keep(r, b, limit);
    }
    if (err != RQ_OK) {
        return err;
    }
    pthread_mutex_lock(&r->mutex);
    r->backfilled = limit;
    if (rq_replica_shm_whole(r)) {
        __atomic_store_n(&rq_replica_ckpt_info(r)->nBackfill, limit, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&r->mutex);
    return RQ_OK;
}

/* How far readers let us go. */
static enum rq_err readers_limit(struct rq_replica *r, const struct backfill *b, uint32_t *ret_limit)
{
    uint32_t limit = b->to;
    atomic_thread_fence(memory_order_seq_cst);
    table_limit(r, &limit);
    if (limit < b->to) {
        rq_control_sweep(r->control);
        limit = b->to;
        table_limit(r, &limit);
    }
    enum rq_err err = marks_limit(r, &limit);
    *ret_limit = limit > b->from ? limit : b->from;
    return err;
}

enum rq_err rq_replica_backfill(struct rq_replica *r)
{
    struct backfill b;
    uint32_t limit;
    enum rq_err err = backfill_init(&b, r);
    if (err != RQ_OK || b.from == b.to) {
        backfill_fini(&b);
        if (err == RQ_OK) {
            set_blocked(r, false); /* what was in the way of a reset may have left */
        }
        return err;
    }
    err = readers_limit(r, &b, &limit); /* whoever comes from here on reads what is newest now, or later */
    bool blocked = err == RQ_OK && limit < b.to;
    if (err == RQ_OK && limit > b.from) {
        /* What goes into the database file must be durable in the WAL: a torn page is mended from there. */
        err = rq_replica_sync(r);
    }
    if (err == RQ_OK && limit > b.from) {
        err = r->disk->ops->lock(r->shm, RQ_SHM_READ0, 1, RQ_EXCLUSIVE);
        if (err == RQ_OK) {
            pthread_mutex_lock(&r->mutex);
            if (rq_replica_shm_whole(r)) {
                __atomic_store_n(&rq_replica_ckpt_info(r)->nBackfillAttempted, limit, __ATOMIC_SEQ_CST);
            }
            pthread_mutex_unlock(&r->mutex);
            err = backfill_locked(r, &b, limit);
            (void)r->disk->ops->lock(r->shm, RQ_SHM_READ0, 1, RQ_UNLOCKED);
        } else if (err == RQ_BUSY) {
            blocked = true;
            err = RQ_OK;
        }
    }
    backfill_fini(&b);
    set_blocked(r, blocked);
    return err;
}

/* --- reset --------------------------------------------------------------------------------------------------------------- */

/* The new header, durable.  Nobody looks into the WAL now; a kill from here on finds an empty WAL and a database file that has
 * everything. */
static enum rq_err head_write(struct rq_replica *r, struct rq_wal_head *ret_head)
{
    uint8_t bytes[RQ_WAL_HEAD_BYTES];
    enum rq_err err = rq_replica_next_head(r, ret_head);
    if (err != RQ_OK) {
        return err;
    }
    rq_wal_head_encode(ret_head, bytes);
    err = r->disk->ops->write(r->wal, bytes, sizeof bytes, 0);
    if (err == RQ_OK) {
        return rq_sync_final(r->disk, r->wal);
    }
    /* Any part of it may have been written, and the WAL goes on under the old one. */
    rq_wal_head_encode(&r->head, bytes);
    return r->disk->ops->write(r->wal, bytes, sizeof bytes, 0) == RQ_OK ? err : RQ_IO;
}

static void publish_reset(struct rq_replica *r, const struct rq_wal_head *head)
{
    pthread_mutex_lock(&r->mutex);
    r->head = *head;
    r->backfilled = 0;
    rq_frames_clear(&r->frames);
    if (rq_replica_shm_whole(r)) {
        struct rq_wal_ckpt_info *info = rq_replica_ckpt_info(r);
        rq_replica_publish_head(r);
        __atomic_store_n(&info->nBackfill, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&info->nBackfillAttempted, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&info->aReadMark[1], 0, __ATOMIC_RELAXED);
        for (uint32_t i = 2; i < RQ_READ_MARKS; i++) {
            __atomic_store_n(&info->aReadMark[i], RQ_READ_MARK_UNUSED, __ATOMIC_RELAXED);
        }
    }
    rq_replica_publish_control(r);
    pthread_mutex_unlock(&r->mutex);
}

/* With the gate shut and appends held off. */
static enum rq_err reset_gated(struct rq_replica *r)
{
    for (int looks = 0; !table_leaves_wal(r); looks++) {
        if (looks == READER_LOOKS) {
            return RQ_BUSY;
        }
        if (looks == 0) {
            rq_control_sweep(r->control);
        } else { /* most reads are short, and a new one comes no more into the WAL */
            nanosleep(&(struct timespec){ .tv_nsec = READER_LOOK_NS }, NULL);
        }
    }
    enum rq_err err = r->disk->ops->lock(r->shm, RQ_SHM_READ0 + 1, RQ_READ_MARKS - 1, RQ_EXCLUSIVE);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_wal_head head;
    err = head_write(r, &head);
    if (err == RQ_OK) {
        publish_reset(r, &head);
    }
    (void)r->disk->ops->lock(r->shm, RQ_SHM_READ0 + 1, RQ_READ_MARKS - 1, RQ_UNLOCKED);
    return err;
}

/* The one that is on its way may end, if that does not take long. */
bool rq_replica_hold_appends(struct rq_replica *r)
{
    struct timespec until;
    int late = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += APPEND_ENDS_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&r->mutex);
    r->resetting = true;
    while (r->appending && late == 0) {
        late = pthread_cond_timedwait(&r->changed, &r->mutex, &until);
    }
    const bool held = !r->appending;
    pthread_mutex_unlock(&r->mutex);
    return held;
}

void rq_replica_release_appends(struct rq_replica *r, bool blocked)
{
    pthread_mutex_lock(&r->mutex);
    r->resetting = false;
    r->blocked = blocked;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}

/* With appends held off: the frames that came since the last back-fill.  A steady writer would stay ahead of it for ever. */
static enum rq_err fill_rest(struct rq_replica *r)
{
    const uint32_t frames = r->frames.committed;
    if (r->backfilled == frames) {
        return RQ_OK;
    }
    enum rq_err err = frames - r->backfilled <= RQ_RESET_REST_FRAMES ? rq_replica_backfill(r) : RQ_BUSY;
    return err == RQ_OK && r->backfilled < frames ? RQ_BUSY : err;
}

enum rq_err rq_replica_reset(struct rq_replica *r)
{
    pthread_mutex_lock(&r->mutex);
    const bool empty = r->frames.committed == 0;
    pthread_mutex_unlock(&r->mutex);
    if (empty) {
        return RQ_OK;
    }
    enum rq_err err = rq_replica_hold_appends(r) ? fill_rest(r) : RQ_BUSY;
    if (err == RQ_OK) {
        _Atomic uint32_t *gate = &r->control->head->reset_gate;
        atomic_fetch_or(gate, 1u);
        atomic_thread_fence(memory_order_seq_cst);
        err = reset_gated(r);
        atomic_fetch_add(gate, atomic_load(gate) & 1u);
    }
    rq_replica_release_appends(r, err == RQ_BUSY);
    return err;
}

/* --- space --------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_replica_shrink(struct rq_replica *r)
{
    const uint64_t hard = rq_wal_frame_offset(r->wal_hard_frames + 1, r->page_size);
    pthread_mutex_lock(&r->mutex);
    const bool long_enough = r->wal_reserved > 2 * hard, blocked = r->blocked;
    pthread_mutex_unlock(&r->mutex);
    if (!long_enough) {
        return RQ_OK;
    }
    enum rq_err err = RQ_OK;
    /* Without a frame its header is durable: a WAL that is shortened under the header of its frames would be replayed half. */
    if (rq_replica_hold_appends(r) && r->frames.committed == 0) {
        const uint32_t keep = r->promised > r->wal_soft_frames ? r->promised : r->wal_soft_frames;
        const uint64_t bytes = rq_wal_frame_offset(keep + 1, r->page_size);
        if (bytes < r->wal_reserved) {
            err = r->disk->ops->truncate(r->wal, bytes);
        }
        if (err == RQ_OK && bytes < r->wal_reserved) {
            pthread_mutex_lock(&r->mutex);
            r->wal_reserved = bytes;
            pthread_mutex_unlock(&r->mutex);
        }
    }
    rq_replica_release_appends(r, blocked);
    return err;
}
