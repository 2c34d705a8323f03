/* The protocol of a new snapshot, against a raftd that back-fills and resets meanwhile:
 *
 *   1 read the wal-index header (two equal copies) and nBackfill: they say FILE or WAL
 *   2 write that into our slot
 *   3 full fence
 *   4 look again: header the same, and for WAL no reset in progress; else take the slot's word back and begin anew
 *
 * raftd publishes a header or raises reset_gate, fences, and then looks at the slots.  So if our look (4) came before its
 * publication, its look sees our slot; else (4) sees the publication.
 *
 * FILE needs no look at the gate: a reset does not touch the database file, and as long as our word stands nothing of the new
 * WAL is back-filled. */
#include "vfs/snapshot.h"

#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/wire/bytes.h"

#define TRY_COUNT_MAX     100
#define TRY_COUNT_SPIN    10  /* then it sleeps a little between */
#define COPIES_TRY_MAX    64  /* reads of a header whose copies differ, before one of them is taken */
#define CLAIM_EVERY       256 /* looks for a free slot, once all were taken: it costs a system call for each slot */
#define INDEX_INFO_OFFSET (2 * sizeof(struct rq_wal_index_head))

#define HEAD_PAGE_SIZE    16
#define HEAD_COUNTER      24
#define HEAD_PAGE_COUNT   28
#define HEAD_STAMP_DB     72
#define HEAD_VERSION_HIGH 88
#define HEAD_VALID_FOR    92

/* Asked of the kernel once: it does not change while a process lives. */
static uint64_t boot_id(void)
{
    static _Atomic uint64_t known;
    uint64_t boot = atomic_load_explicit(&known, memory_order_relaxed);
    if (boot == 0) {
        boot = rq_boot_id();
        atomic_store_explicit(&known, boot, memory_order_relaxed);
    }
    return boot;
}

void rq_snapshot_init(struct rq_snapshot *s, struct rq_disk *disk)
{
    memset(s, 0, offsetof(struct rq_snapshot, page1));
    s->disk = disk;
    s->boot = boot_id();
    s->mark = -1;
}

/* --- shared memory ------------------------------------------------------------------------------------------------------ */

/* Copies in units that a concurrent writer cannot tear. */
static void shared_copy(void *to, const uint8_t *from, size_t bytes)
{
    uint32_t *words = to;
    for (size_t i = 0; i < bytes / sizeof *words; i++) {
        words[i] = __atomic_load_n((const uint32_t *)from + i, __ATOMIC_RELAXED);
    }
    atomic_thread_fence(memory_order_acquire);
}

static bool shared_equal(const void *ours, const uint8_t *shared)
{
    uint64_t differ = 0;
    for (size_t i = 0; i < sizeof(struct rq_wal_index_head) / sizeof(uint64_t); i++) {
        uint64_t word;
        memcpy(&word, (const uint8_t *)ours + i * sizeof word, sizeof word);
        differ |= word ^ __atomic_load_n((const uint64_t *)shared + i, __ATOMIC_RELAXED);
    }
    atomic_thread_fence(memory_order_acquire);
    return differ == 0;
}

static const uint8_t *index_memory(const struct rq_snapshot *s)
{
    return atomic_load_explicit(&s->files->map, memory_order_acquire)->regions[0];
}

static uint32_t index_backfilled(const struct rq_snapshot *s)
{
    return __atomic_load_n((const uint32_t *)(index_memory(s) + INDEX_INFO_OFFSET), __ATOMIC_ACQUIRE);
}

static uint32_t *index_mark(const struct rq_snapshot *s, int mark)
{
    struct rq_wal_ckpt_info *info = (struct rq_wal_ckpt_info *)(uintptr_t)(index_memory(s) + INDEX_INFO_OFFSET);
    return &info->aReadMark[mark];
}

/* A published header.  The writer writes copy 1, then copy 0; what is in either, complete, is a state of the database whose
 * frames are all there.  So if a writer was killed between the two, the one that is valid serves, copy 0 first: everybody who
 * looks then sees the same. */
static enum rq_err index_head_read(const struct rq_snapshot *s, struct rq_wal_index_head *ret_head)
{
    const uint8_t *memory = index_memory(s);
    struct rq_wal_index_head copy[2];
    for (int i = 0; i < COPIES_TRY_MAX; i++) {
        shared_copy(&copy[0], memory, sizeof copy[0]);
        shared_copy(&copy[1], memory + sizeof copy[0], sizeof copy[1]);
        if (memcmp(&copy[0], &copy[1], sizeof copy[0]) == 0 && copy[0].isInit != 0 && rq_wal_index_valid(&copy[0])) {
            *ret_head = copy[0];
            return RQ_OK;
        }
        sched_yield();
    }
    for (int i = 0; i < 2; i++) {
        if (copy[i].isInit != 0 && rq_wal_index_valid(&copy[i])) {
            *ret_head = copy[i];
            return RQ_OK;
        }
    }
    return RQ_PROTOCOL;
}

/* Still the header that we read?  Copy 1 counts only as above. */
static bool index_head_same(const struct rq_snapshot *s)
{
    const uint8_t *memory = index_memory(s);
    return shared_equal(&s->index_head, memory) || (!rq_wal_index_valid((const struct rq_wal_index_head *)memory) &&
                                                    shared_equal(&s->index_head, memory + sizeof s->index_head));
}

/* --- what others must respect ------------------------------------------------------------------------------------------- */

static _Atomic uint64_t *slot_word(const struct rq_snapshot *s)
{
    return &s->control->slots[s->slot].snapshot;
}

static void unlock_mark(struct rq_snapshot *s)
{
    if (s->mark >= 0) {
        (void)s->disk->ops->lock(s->marks, RQ_SHM_READ0 + (uint64_t)s->mark, 1,
                                 RQ_UNLOCKED); /* a lock we hold: cannot fail */
        s->mark = -1;
    }
}

static void withdraw(struct rq_snapshot *s)
{
    if (s->slot_held) {
        atomic_store_explicit(slot_word(s), rq_snap_word(RQ_SNAP_NONE, 0, 0), memory_order_release);
    }
    unlock_mark(s);
    s->state = RQ_SNAPSHOT_NONE;
}

static enum rq_err lock_mark(struct rq_snapshot *s, int mark)
{
    enum rq_err err = s->disk->ops->lock(s->marks, RQ_SHM_READ0 + (uint64_t)mark, 1, RQ_SHARED);
    if (err == RQ_OK) {
        s->mark = mark;
    }
    return err;
}

/* SQLite's own way (wal.c, walTryBeginRead): mark 0 says "database file only", the others up to which frame somebody reads. */
static enum rq_err publish_by_mark(struct rq_snapshot *s)
{
    if (s->marks == NULL) {
        char *path = malloc(strlen(s->path) + sizeof "-shm");
        if (path == NULL) {
            return RQ_NOMEM;
        }
        memcpy(path, s->path, strlen(s->path));
        memcpy(path + strlen(s->path), "-shm", sizeof "-shm");
        enum rq_err err = s->disk->ops->open(s->disk, path, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &s->marks);
        free(path);
        if (err != RQ_OK) {
            return err;
        }
    }
    if (s->kind == RQ_SNAP_FILE) {
        return lock_mark(s, 0);
    }
    int best = 0;
    uint32_t best_frame = 0;
    for (int i = 1; i < RQ_READ_MARKS; i++) {
        uint32_t frame = __atomic_load_n(index_mark(s, i), __ATOMIC_ACQUIRE);
        if (frame <= s->max_frame && frame >= best_frame && frame != RQ_READ_MARK_UNUSED) {
            best = i;
            best_frame = frame;
        }
    }
    for (int i = 1; i < RQ_READ_MARKS && best_frame != s->max_frame; i++) {
        if (s->disk->ops->lock(s->marks, RQ_SHM_READ0 + (uint64_t)i, 1, RQ_EXCLUSIVE) == RQ_OK) {
            __atomic_store_n(index_mark(s, i), s->max_frame, __ATOMIC_SEQ_CST);
            best = i;
            best_frame = s->max_frame;
        }
        if (best == i) {
            (void)s->disk->ops->lock(s->marks, RQ_SHM_READ0 + (uint64_t)i, 1, RQ_UNLOCKED); /* or it was not locked */
        }
    }
    if (best == 0) {
        return RQ_BUSY;
    }
    enum rq_err err = lock_mark(s, best);
    if (err == RQ_OK && __atomic_load_n(index_mark(s, best), __ATOMIC_SEQ_CST) != best_frame) {
        unlock_mark(s);
        err = RQ_BUSY;
    }
    return err;
}

/* Says what is about to be read, and that it may be: BUSY, try again with what is there now. */
static enum rq_err publish(struct rq_snapshot *s)
{
    uint32_t gate = atomic_load(&s->control->head->reset_gate);
    if (s->slot_held) {
        atomic_store(slot_word(s), rq_snap_word(RQ_SNAP_ACTIVE, s->kind, s->kind == RQ_SNAP_WAL ? s->max_frame : 0));
    } else if (s->files->shm != NULL) {
        enum rq_err err = publish_by_mark(s);
        if (err != RQ_OK) {
            return err;
        }
    }
    s->state = RQ_SNAPSHOT_ACTIVE;
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&s->control->head->gone) != 0) {
        return RQ_BUSY; /* its table is not read any more */
    }
    if (s->files->shm == NULL) {
        return rq_files_grown(s->files) ? RQ_BUSY : RQ_OK;
    }
    bool gate_open = s->kind == RQ_SNAP_FILE || ((gate & 1) == 0 && atomic_load(&s->control->head->reset_gate) == gate);
    return gate_open && index_head_same(s) ? RQ_OK : RQ_BUSY;
}

/* --- reading ------------------------------------------------------------------------------------------------------------ */

/* 0: in the database file. */
static enum rq_err frame_of(const struct rq_snapshot *s, uint32_t pgno, uint32_t *ret_frame)
{
    *ret_frame = 0;
    return s->kind == RQ_SNAP_WAL
               ? rq_wal_index_find(s->map->regions, s->map->region_count, s->min_frame, s->max_frame, pgno, ret_frame)
               : RQ_OK;
}

bool rq_snapshot_reads_file(const struct rq_snapshot *s, uint32_t pgno)
{
    uint32_t frame;
    return frame_of(s, pgno, &frame) == RQ_OK && frame == 0;
}

enum rq_err rq_snapshot_read(struct rq_snapshot *s, uint32_t pgno, uint32_t offset, void *data, uint32_t bytes)
{
    uint32_t frame;
    if (s->empty || pgno == 0 || pgno > s->page_count) {
        memset(data, 0, bytes);
        return RQ_OK;
    }
    enum rq_err err = frame_of(s, pgno, &frame);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_file *file = frame != 0 ? s->files->wal : s->files->db;
    uint64_t begin = frame != 0 ? rq_wal_frame_offset(frame, s->page_size) + RQ_WAL_FRAME_BYTES
                                : (uint64_t)(pgno - 1) * s->page_size;
    size_t got = 0;
    err = s->disk->ops->read(file, data, bytes, begin + offset, &got);
    if (err != RQ_OK) {
        return err;
    }
    if (got < bytes) {
        if (frame != 0) {
            return RQ_CORRUPT; /* a frame that was published is whole */
        }
        memset((uint8_t *)data + got, 0, bytes - got);
    }
    return RQ_OK;
}

static bool page_size_valid(uint32_t bytes)
{
    return bytes >= 512 && bytes <= 65536 && (bytes & (bytes - 1)) == 0;
}

static uint32_t head_page_size(const uint8_t *head)
{
    uint32_t bytes = rq_get_u16(head + HEAD_PAGE_SIZE);
    return bytes == 1 ? 65536 : bytes;
}

/* Fills in what page 1 says.  The page size is the wal-index's where there are frames: it is needed to find page 1. */
static enum rq_err load_head(struct rq_snapshot *s)
{
    s->page_count = 1; /* page 1 may be read */
    s->page_size = s->kind == RQ_SNAP_WAL ? rq_wal_index_page_size(&s->index_head) : 512;
    if (!page_size_valid(s->page_size)) {
        return RQ_CORRUPT;
    }
    /* As much as page 1 may have; what lies behind it in the file does not count. */
    uint32_t bytes = s->kind == RQ_SNAP_WAL && s->page_size < sizeof s->page1 ? s->page_size : sizeof s->page1;
    enum rq_err err = rq_snapshot_read(s, 1, 0, s->page1, bytes);
    if (err != RQ_OK) {
        return err;
    }
    if (s->kind == RQ_SNAP_FILE) {
        s->page_size = head_page_size(s->page1);
    }
    if (!page_size_valid(s->page_size) || head_page_size(s->page1) != s->page_size) {
        return RQ_CORRUPT;
    }
    s->page1_bytes = s->page_size < sizeof s->page1 ? s->page_size : sizeof s->page1;
    s->page_count = s->files->shm != NULL && s->index_head.mxFrame > 0 ? s->index_head.nPage : 0;
    if (s->page_count == 0 && rq_get_u32(s->page1 + HEAD_COUNTER) == rq_get_u32(s->page1 + HEAD_VALID_FOR)) {
        s->page_count = rq_get_u32(s->page1 + HEAD_PAGE_COUNT);
    }
    if (s->page_count == 0) { /* last written by an SQLite that does not know the field */
        struct rq_file_info info;
        err = s->disk->ops->info(s->files->db, &info);
        if (err != RQ_OK) {
            return err;
        }
        uint64_t count = info.size / s->page_size;
        s->page_count = count > UINT32_MAX - 1 ? UINT32_MAX - 1 : (uint32_t)count;
    }
    s->version = (uint64_t)rq_get_u32(s->page1 + HEAD_VERSION_HIGH) << 32 | rq_get_u32(s->page1 + HEAD_COUNTER);
    s->db_id = rq_get_u32(s->page1 + HEAD_STAMP_DB);
    s->head_loaded = true;
    return RQ_OK;
}

/* --- begin and end ------------------------------------------------------------------------------------------------------ */

static void drop_files(struct rq_snapshot *s)
{
    withdraw(s);
    if (s->marks != NULL) {
        s->disk->ops->close(s->marks);
        s->marks = NULL;
    }
    rq_files_put(s->files);
    s->files = NULL;
    s->map = NULL;
    s->head_loaded = false;
}

static void drop_control(struct rq_snapshot *s)
{
    drop_files(s);
    if (s->slot_held) {
        rq_control_share_release(s->control, s->slot);
        s->slot_held = false;
    }
    rq_control_share_put(s->control);
    s->control = NULL;
}

void rq_snapshot_fini(struct rq_snapshot *s)
{
    drop_control(s);
}

void rq_snapshot_orphan(struct rq_snapshot *s)
{
    s->control = NULL;
    s->slot_held = false;
    s->mark = -1;
    if (s->marks != NULL) {
        s->disk->ops->close(s->marks);
        s->marks = NULL;
    }
    s->state = RQ_SNAPSHOT_NONE;
}

enum rq_err rq_snapshot_open(struct rq_snapshot *s)
{
    if (s->control != NULL) {
        return RQ_OK;
    }
    return rq_control_share_get(s->disk, s->path, s->boot, &s->control);
}

struct rq_control *rq_snapshot_known_page(struct rq_disk *disk, const char *path)
{
    return rq_control_share_find(disk, path, boot_id());
}

enum rq_err rq_snapshot_claim(struct rq_snapshot *s, uint64_t session)
{
    if (!s->slot_held) {
        enum rq_err err = rq_control_share_claim(s->control, session, &s->slot);
        if (err != RQ_OK) {
            return err;
        }
        s->slot_held = true;
    } else if (session != 0 &&
               atomic_load_explicit(&s->control->slots[s->slot].session, memory_order_relaxed) != session) {
        atomic_store(&s->control->slots[s->slot].session, session);
    }
    return RQ_OK;
}

/* The set of files that the control page speaks of. */
static enum rq_err follow_files(struct rq_snapshot *s)
{
    uint32_t epoch = atomic_load(&s->control->head->files_epoch);
    uint32_t db_id = atomic_load(&s->control->head->db_id);
    if (s->files != NULL && s->files->epoch == epoch && s->files->db_id == db_id && !rq_files_grown(s->files)) {
        return RQ_OK;
    }
    drop_files(s);
    return rq_files_get(s->disk, s->path, db_id, epoch, &s->files);
}

static bool same_files(const struct rq_snapshot *s)
{
    const struct rq_control_head *h = s->control->head;
    return atomic_load_explicit(&h->gone, memory_order_acquire) == 0 &&
           atomic_load_explicit(&h->state, memory_order_relaxed) == (s->empty ? RQ_DB_EMPTY : RQ_DB_LIVE) &&
           (s->empty || (s->files->epoch == atomic_load_explicit(&h->files_epoch, memory_order_relaxed) &&
                         s->files->db_id == atomic_load_explicit(&h->db_id, memory_order_relaxed)));
}

/* The idle snapshot again, if it is still the newest and raftd has not taken it away. */
static bool take_up(struct rq_snapshot *s)
{
    if (!same_files(s) || s->empty || s->files->shm == NULL) {
        return false;
    }
    uint32_t frames = s->kind == RQ_SNAP_WAL ? s->max_frame : 0;
    uint64_t idle = rq_snap_word(RQ_SNAP_IDLE, s->kind, frames);
    if (!atomic_compare_exchange_strong(slot_word(s), &idle, rq_snap_word(RQ_SNAP_ACTIVE, s->kind, frames))) {
        return false;
    }
    if (!shared_equal(&s->index_head, index_memory(s))) {
        return false;
    }
    s->state = RQ_SNAPSHOT_ACTIVE;
    return true;
}

/* One attempt.  BUSY, PROTOCOL: something moved meanwhile, try again. */
static enum rq_err try_begin(struct rq_snapshot *s)
{
    struct rq_control_head *control = s->control->head;
    if (atomic_load(&control->gone) != 0) {
        return RQ_UNREADY;
    }
    switch (atomic_load(&control->state)) {
        case RQ_DB_EMPTY:
            drop_files(s);
            s->empty = true;
            s->page_count = s->page_size = 0;
            s->version = 0;
            s->db_id = atomic_load(&control->db_id);
            s->page1_bytes = 0;
            s->state = RQ_SNAPSHOT_ACTIVE;
            return RQ_OK;
        case RQ_DB_LIVE:
            break;
        case RQ_DB_QUARANTINED:
            return RQ_QUARANTINED;
        default:
            return RQ_UNREADY; /* scribbled, or not told yet */
    }
    s->empty = false;
    enum rq_err err = follow_files(s);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_wal_index_head head = { 0 };
    uint32_t backfilled = 0;
    if (s->files->shm != NULL) {
        err = index_head_read(s, &head);
        if (err != RQ_OK) {
            return err;
        }
        backfilled = index_backfilled(s);
    }
    unsigned kind = head.mxFrame == 0 || backfilled >= head.mxFrame ? RQ_SNAP_FILE : RQ_SNAP_WAL;
    if (kind != s->kind || memcmp(&head, &s->index_head, sizeof head) != 0) {
        s->head_loaded = false;
    }
    s->index_head = head;
    s->kind = kind;
    s->max_frame = head.mxFrame;
    s->min_frame = backfilled + 1;
    if (kind == RQ_SNAP_WAL) {
        err = rq_files_map(s->files, rq_wal_region_of(head.mxFrame) + 1, &s->map);
        if (err != RQ_OK) {
            return err;
        }
    }
    err = publish(s);
    if (err == RQ_OK && !s->head_loaded) {
        err = load_head(s);
    }
    /* Without a -wal the file must be all there is: somebody may have deleted it, and raftd is about to make it again. */
    if (err == RQ_OK && s->files->shm == NULL && s->version < atomic_load(&control->version)) {
        err = RQ_BUSY;
    }
    return err;
}

static void pause_before(int attempt)
{
    if (attempt < TRY_COUNT_SPIN) {
        sched_yield();
        return;
    }
    struct timespec t = { .tv_nsec = (attempt < 2 * TRY_COUNT_SPIN ? 100 : 1000) * 1000L };
    nanosleep(&t, NULL);
}

enum rq_err rq_snapshot_begin(struct rq_snapshot *s)
{
    if (s->state == RQ_SNAPSHOT_IDLE && take_up(s)) {
        return RQ_OK;
    }
    if (s->control == NULL) {
        return RQ_UNREADY;
    }
    if (!s->slot_held && s->claims_refused++ % CLAIM_EVERY == 0 && rq_snapshot_claim(s, 0) == RQ_OK) {
        s->claims_refused = 0;
    }
    enum rq_err err = RQ_OK;
    for (int i = 0; i < TRY_COUNT_MAX; i++) {
        withdraw(s);
        err = try_begin(s);
        if (err != RQ_BUSY && err != RQ_PROTOCOL) {
            break;
        }
        pause_before(i);
    }
    if (err != RQ_OK) {
        withdraw(s);
        if (err == RQ_UNREADY) {
            drop_control(s);
        }
    }
    return err;
}

void rq_snapshot_end(struct rq_snapshot *s, bool keep)
{
    if (s->state != RQ_SNAPSHOT_ACTIVE) {
        return;
    }
    bool draining = s->kind == RQ_SNAP_WAL && atomic_load_explicit(&s->control->head->drain, memory_order_relaxed) != 0;
    if (!keep || s->empty || !s->slot_held || s->mark >= 0 || s->files->shm == NULL || draining) {
        withdraw(s);
        return;
    }
    uint32_t frames = s->kind == RQ_SNAP_WAL ? s->max_frame : 0;
    atomic_store_explicit(slot_word(s), rq_snap_word(RQ_SNAP_IDLE, s->kind, frames), memory_order_release);
    s->state = RQ_SNAPSHOT_IDLE;
}

/* A reader of the file alone does not hold up a reset, which raftd makes also when nobody writes.  The WAL is empty then, and the
 * file is still all there is to read, unless frames have come since.  (After the next ones it will be of another version.) */
static bool only_reset(const struct rq_snapshot *s)
{
    struct rq_wal_index_head head;
    return s->kind == RQ_SNAP_FILE && index_head_read(s, &head) == RQ_OK && head.mxFrame == 0 &&
           atomic_load(&s->control->head->version) == s->version;
}

bool rq_snapshot_current(const struct rq_snapshot *s)
{
    return same_files(s) &&
           (s->empty || s->files->shm == NULL || shared_equal(&s->index_head, index_memory(s)) || only_reset(s));
}

void rq_snapshot_wait_begin(struct rq_snapshot *s)
{
    if (s->slot_held && !s->empty) {
        uint32_t frames = s->kind == RQ_SNAP_WAL ? s->max_frame : 0;
        atomic_store(slot_word(s), rq_snap_word(RQ_SNAP_COMMITTING, s->kind, frames));
    }
}

void rq_snapshot_wait_end(struct rq_snapshot *s)
{
    if (!s->slot_held || s->empty) {
        return;
    }
    uint64_t word = atomic_load(slot_word(s));
    unsigned kind;
    do {
        kind = rq_snap_kind(word);
    } while (!atomic_compare_exchange_weak(slot_word(s), &word,
                                           rq_snap_word(RQ_SNAP_ACTIVE, kind, kind == RQ_SNAP_WAL ? s->max_frame : 0)));
    if (s->kind == RQ_SNAP_WAL && kind == RQ_SNAP_FILE) {
        s->kind = RQ_SNAP_FILE; /* all that was looked for in the WAL is in the database file now */
        s->head_loaded = false; /* the fields stay true, but not the way in which they were found */
    }
}
