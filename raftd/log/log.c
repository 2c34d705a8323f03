/* Order in this file: opening; owner's calls; space; the writer; segments given back and made.
 *
 * What the disk holds is a sequence of records, never changed; what the log holds is the table.  next_write is where the two
 * part: entries from there on wait for the writer, a cut only moves it back.  A cut while the writer is at work is left for it
 * in cut_floor. */
#include "raftd/log/log.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/log/load.h"
#include "raftd/log/meta.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"
#include "raftd/run/room.h"
#include "raftd/run/strand.h"

#define DEFAULT_SEGMENT_BYTES ((uint64_t)16 << 20)
#define DEFAULT_CACHE_BYTES   ((uint64_t)32 << 20)
#define FIRST_SEGMENT_DIVISOR 16u /* founding waits for this part of a segment alone */

#define ALIGN_BYTES                          ((size_t)4096)
#define BATCH_BYTES_MAX                      ((size_t)1 << 20) /* but one record may be larger */
#define BATCH_ENTRIES_MAX                    1024u
#define SEGMENT_PAYLOAD_BYTES(segment_bytes) ((segment_bytes) - RQ_LOG_SECTOR_BYTES - RQ_LOG_RECORD_BYTES)

struct taken {
    struct rq_blob *blob; /* shares */
    uint64_t term;
    uint32_t offset;
    uint16_t type;
};

struct rq_log {
    /* Immutable. */
    uint64_t segment_bytes, cache_bytes;

    struct rq_log_meta meta; /* owner's */

    pthread_mutex_t lock; /* guards from here on */
    struct rq_log_table table;
    struct rq_log_segment **used; /* owns; oldest first, the last is written to */
    size_t used_count, used_capacity;
    struct rq_log_segment *spares;   /* owns */
    struct rq_log_segment *released; /* owns; oldest first: they become spares in this order */
    unsigned spare_count;
    uint32_t frontier; /* in the last segment */
    bool fresh;        /* the last segment is begun and has no header on the medium yet */
    bool restarts;     /* the next entry does not follow the last one written: begin a segment with it */
    bool forgets;      /* and what is on the medium before it is not of this log any more */
    uint64_t next_write;
    uint64_t durable;   /* everything up to here is on the medium, and in the table */
    uint64_t disk_last; /* index of the last record: above durable while a cut waits for the writer */
    uint64_t cut_floor; /* lowest cut since the writer took its batch */
    uint64_t committed;
    bool failed;
    uint64_t reserved_bytes, reserved_entries; /* promised and not appended */
    uint64_t waiting_bytes;                    /* on the disk, of what is appended and not written */
    uint64_t largest_bytes;                    /* payload of any of these */
    uint64_t written_batches, written_entries;

    pthread_mutex_t prepare_lock; /* one thread makes segments; taken before lock, held across disk calls */
    struct rq_log_dir dir;        /* guarded by prepare_lock */

    /* The writer's. */
    uint64_t chain;
    uint8_t *buffer; /* owns; aligned */
    size_t buffer_bytes;
    struct taken taken[BATCH_ENTRIES_MAX];
};

/* The public face of a const log may still wait for its lock. */
static void lock(const struct rq_log *log)
{
    pthread_mutex_lock((pthread_mutex_t *)(uintptr_t)&log->lock);
}

static void unlock(const struct rq_log *log)
{
    pthread_mutex_unlock((pthread_mutex_t *)(uintptr_t)&log->lock);
}

static void check_log(const struct rq_log *log)
{
    assert(log->used_count > 0);
    assert(log->next_write >= log->table.first);
    assert(log->next_write <= log->table.last + 1);
    assert(log->durable < log->next_write);
    assert(log->frontier % RQ_LOG_SECTOR_BYTES == 0);
}

/* ---- opening ---- */

static enum rq_err found_log(struct rq_log *log, const struct rq_log_config *config, struct rq_log_found *found)
{
    struct rq_disk *disk = config->disk;
    enum rq_err err = disk->ops->mkdir(disk, log->dir.path, 0700);
    if (err != RQ_OK && err != RQ_EXISTS) {
        return err;
    }
    err = disk->ops->sync_dir(disk, config->dir);
    err = err == RQ_OK ? rq_log_clear_founding(&log->dir) : err;
    if (err == RQ_EXISTS) {
        snprintf(found->problem, sizeof found->problem, "log: segments are there, but no term and vote");
    }
    if (err != RQ_OK) {
        return err;
    }
    uint64_t bytes = log->segment_bytes / FIRST_SEGMENT_DIVISOR / ALIGN_BYTES * ALIGN_BYTES;
    struct rq_log_segment *first;
    err = rq_log_segment_make(&log->dir, bytes > 16 * ALIGN_BYTES ? bytes : log->segment_bytes, &first);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_log_segment_head head = { .instance = config->instance,
                                        .number = 1,
                                        .first_index = config->first_index,
                                        .chain = config->instance,
                                        .bytes = first->bytes };
    err = rq_log_segment_put_head(&log->dir, first, &head);
    rq_log_segment_free(first);
    return err == RQ_OK ? rq_log_meta_create(disk, config->dir, config->instance) : err;
}

static enum rq_err find_meta(const struct rq_log_config *config, bool *ret_there)
{
    char path[4096];
    struct rq_file_info info;
    if (snprintf(path, sizeof path, "%s/meta", config->dir) >= (int)sizeof path) {
        return RQ_TOOBIG;
    }
    enum rq_err err = config->disk->ops->stat(config->disk, path, &info);
    *ret_there = err == RQ_OK;
    return err == RQ_NOTFOUND ? RQ_OK : err;
}

static enum rq_err load_log(struct rq_log *log, const struct rq_log_config *config, struct rq_log_found *found)
{
    enum rq_err err = rq_log_meta_open(&log->meta, config->disk, config->dir, config->instance, found->problem,
                                       sizeof found->problem);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_log_loaded l;
    err = rq_log_load(&log->dir, &l, found->problem, sizeof found->problem);
    if (err == RQ_NOTFOUND) {
        snprintf(found->problem, sizeof found->problem, "log: term and vote are there, but no segment");
        err = RQ_CORRUPT;
    }
    if (err != RQ_OK) {
        return err;
    }
    log->table = l.table;
    log->used = l.used;
    log->used_count = log->used_capacity = l.used_count;
    log->spares = l.spares;
    log->chain = l.chain;
    log->frontier = l.frontier;
    log->durable = log->disk_last = l.table.last;
    log->next_write = l.table.last + 1;
    log->committed = l.committed < l.table.last ? l.committed : l.table.last;
    for (const struct rq_log_segment *s = log->spares; s != NULL; s = s->next) {
        log->spare_count++;
    }
    found->term = log->meta.slot.term;
    found->vote = log->meta.slot.vote;
    found->first_index = log->table.first;
    found->last_index = log->table.last;
    found->committed = log->committed;
    found->cut_bytes = l.cut_bytes;
    return RQ_OK;
}

/* Damage of the one file that says whether there is a log must not look like a new node. */
static enum rq_err check_no_segments(struct rq_log *log, struct rq_log_found *found)
{
    struct rq_log_loaded l;
    enum rq_err err = rq_log_load(&log->dir, &l, found->problem, sizeof found->problem);
    if (err == RQ_OK) {
        bool empty = l.used_count == 1 && l.used[0]->number == 1 && l.table.last < l.table.first;
        rq_log_loaded_fini(&l);
        if (!empty) { /* else: a founding that died */
            snprintf(found->problem, sizeof found->problem, "meta: the file with term and vote is missing");
            return RQ_CORRUPT;
        }
        err = RQ_NOTFOUND;
    }
    return err;
}

enum rq_err rq_log_open(const struct rq_log_config *config, struct rq_log **ret_log, struct rq_log_found *ret_found)
{
    *ret_found = (struct rq_log_found){ 0 };
    uint64_t segment_bytes = config->segment_bytes > 0 ? config->segment_bytes : DEFAULT_SEGMENT_BYTES;
    if (segment_bytes < 4 * ALIGN_BYTES || segment_bytes > RQ_LOG_SEGMENT_BYTES_MAX ||
        (config->create && config->first_index == 0)) {
        return RQ_MISUSE;
    }
    struct rq_log *log = calloc(1, sizeof *log);
    if (log == NULL) {
        return RQ_NOMEM;
    }
    pthread_mutex_init(&log->lock, NULL);
    pthread_mutex_init(&log->prepare_lock, NULL);
    log->segment_bytes = segment_bytes / ALIGN_BYTES * ALIGN_BYTES;
    log->cache_bytes = config->cache_bytes > 0 ? config->cache_bytes : DEFAULT_CACHE_BYTES;
    log->buffer_bytes = BATCH_BYTES_MAX + ALIGN_BYTES;
    log->buffer = aligned_alloc(ALIGN_BYTES, log->buffer_bytes);
    log->dir = (struct rq_log_dir){ .disk = config->disk, .instance = config->instance };
    size_t path_bytes = strlen(config->dir) + sizeof "/log";
    log->dir.path = malloc(path_bytes);
    bool there = false;
    enum rq_err err = log->buffer != NULL && log->dir.path != NULL ? find_meta(config, &there) : RQ_NOMEM;
    if (err != RQ_OK) {
        goto undo_log;
    }
    snprintf(log->dir.path, path_bytes, "%s/log", config->dir);
    if (config->create) {
        err = there ? RQ_EXISTS : found_log(log, config, ret_found);
    } else if (!there) {
        err = check_no_segments(log, ret_found);
    }
    err = err == RQ_OK ? load_log(log, config, ret_found) : err;
    if (err != RQ_OK) {
        goto undo_log;
    }
    check_log(log);
    *ret_log = log;
    return RQ_OK;
undo_log:
    rq_log_close(log);
    return err;
}

static void free_list(struct rq_log_segment *s)
{
    while (s != NULL) {
        struct rq_log_segment *next = s->next;
        rq_log_segment_free(s);
        s = next;
    }
}

void rq_log_close(struct rq_log *log)
{
    if (log == NULL) {
        return;
    }
    for (size_t i = 0; i < log->used_count; i++) {
        rq_log_segment_free(log->used[i]);
    }
    free((void *)log->used);
    free_list(log->spares);
    free_list(log->released);
    rq_log_table_fini(&log->table);
    rq_log_meta_close(&log->meta);
    free(log->buffer);
    free(log->dir.path);
    pthread_mutex_destroy(&log->lock);
    pthread_mutex_destroy(&log->prepare_lock);
    free(log);
}

/* ---- owner's calls ---- */

enum rq_err rq_log_put_meta(struct rq_log *log, uint64_t term, uint64_t vote)
{
    const struct rq_log_slot *old = &log->meta.slot;
    assert(term >= old->term);
    assert(term > old->term || old->vote == 0 || vote == old->vote);
    rq_strand_will_block();
    return rq_log_meta_put(&log->meta, term, vote) == RQ_OK ? RQ_OK : RQ_IO;
}

static uint64_t blob_bytes(const struct rq_blob *b)
{
    return b != NULL ? b->bytes : 0;
}

/* On the disk, when it is a batch of its own. */
static uint64_t alone_bytes(uint64_t payload_bytes)
{
    return rq_log_sectors_bytes(rq_log_record_bytes(payload_bytes));
}

static void cut(struct rq_log *log, uint64_t index)
{
    for (uint64_t i = log->next_write > index ? log->next_write : index; i <= log->table.last; i++) {
        log->waiting_bytes -= alone_bytes(rq_log_table_at(&log->table, i)->bytes);
    }
    rq_log_table_cut(&log->table, index);
    log->next_write = index < log->next_write ? index : log->next_write;
    log->durable = index - 1 < log->durable ? index - 1 : log->durable;
    log->cut_floor = index < log->cut_floor ? index : log->cut_floor;
}

static void use_up(uint64_t *promised, uint64_t amount)
{
    *promised -= amount < *promised ? amount : *promised;
}

static enum rq_err check_entries(const struct rq_log *log, const struct rq_log_entry *entries, unsigned count)
{
    if (count > 0 && (entries[0].index < log->table.first || entries[0].index > log->table.last + 1)) {
        return RQ_MISUSE;
    }
    for (unsigned i = 0; i < count; i++) {
        if (entries[i].index != entries[0].index + i) {
            return RQ_MISUSE;
        }
        if (blob_bytes(entries[i].blob) > SEGMENT_PAYLOAD_BYTES(log->segment_bytes)) {
            return RQ_TOOBIG;
        }
    }
    return RQ_OK;
}

enum rq_err rq_log_append(struct rq_log *log, const struct rq_log_entry *entries, unsigned count, uint64_t committed)
{
    lock(log);
    enum rq_err err = log->failed ? RQ_IO : check_entries(log, entries, count);
    err = err == RQ_OK ? rq_log_table_reserve(&log->table, count) : err;
    if (err != RQ_OK) {
        unlock(log);
        return err;
    }
    if (count > 0 && entries[0].index <= log->table.last) {
        cut(log, entries[0].index);
    }
    for (unsigned i = 0; i < count; i++) {
        const struct rq_log_entry *e = &entries[i];
        uint64_t bytes = blob_bytes(e->blob);
        rq_log_table_push(&log->table, &(struct rq_log_known){
                                           .blob = e->blob != NULL ? rq_blob_ref(e->blob) : NULL,
                                           .term = e->term,
                                           .bytes = (uint32_t)bytes,
                                           .type = e->type,
                                       });
        use_up(&log->reserved_bytes, bytes);
        use_up(&log->reserved_entries, 1);
        log->waiting_bytes += alone_bytes(bytes);
        log->largest_bytes = bytes > log->largest_bytes ? bytes : log->largest_bytes;
    }
    log->committed = committed > log->committed ? committed : log->committed;
    rq_log_table_shrink_cache(&log->table, log->cache_bytes, log->durable + 1);
    check_log(log);
    unlock(log);
    return RQ_OK;
}

bool rq_log_write_pending(struct rq_log *log)
{
    lock(log);
    bool pending = log->next_write <= log->table.last;
    unlock(log);
    return pending;
}

uint64_t rq_log_durable(const struct rq_log *log)
{
    lock(log);
    uint64_t index = log->durable;
    unlock(log);
    return index;
}

uint64_t rq_log_first(const struct rq_log *log)
{
    lock(log);
    uint64_t index = log->table.first;
    unlock(log);
    return index;
}

uint64_t rq_log_last(const struct rq_log *log)
{
    lock(log);
    uint64_t index = log->table.last;
    unlock(log);
    return index;
}

uint64_t rq_log_term_at(const struct rq_log *log, uint64_t index)
{
    lock(log);
    const struct rq_log_known *k = rq_log_table_at(&log->table, index);
    uint64_t term = k != NULL ? k->term : 0;
    unlock(log);
    return term;
}

/* Only the owner gives segments back, so the reader stays open while the owner reads. */
static enum rq_err read_entry(const struct rq_log *log, struct rq_file *reader, uint64_t index,
                              const struct rq_log_known *k, struct rq_blob **ret_blob)
{
    uint8_t head[RQ_LOG_RECORD_BYTES];
    size_t n = 0, payload = 0;
    struct rq_blob *b = rq_blob_new(k->bytes);
    if (b == NULL) {
        return RQ_NOMEM;
    }
    rq_strand_will_block();
    enum rq_err err = reader->disk->ops->read(reader, head, sizeof head, k->offset, &n);
    err = err == RQ_OK ? reader->disk->ops->read(reader, b->data, k->bytes, k->offset + sizeof head, &payload) : err;
    struct rq_log_place place = { log->meta.slot.instance, k->segment, k->offset };
    struct rq_log_record r;
    if (err == RQ_OK &&
        (n != sizeof head || payload != k->bytes || !rq_log_get_record(head, &place, &r) || r.index != index ||
         r.term != k->term || r.bytes != k->bytes || r.payload_hash != rq_log_payload_hash(b->data, k->bytes))) {
        err = RQ_CORRUPT;
    }
    if (err != RQ_OK) {
        rq_blob_unref(b);
        return err;
    }
    *ret_blob = b;
    return RQ_OK;
}

enum rq_err rq_log_get(struct rq_log *log, uint64_t index, struct rq_log_entry *ret_entry)
{
    lock(log);
    const struct rq_log_known *at = rq_log_table_at(&log->table, index);
    if (at == NULL) {
        unlock(log);
        return RQ_NOTFOUND;
    }
    struct rq_log_known k = *at;
    struct rq_file *reader = NULL;
    if (k.blob != NULL) {
        rq_blob_ref(k.blob);
    } else if (k.bytes > 0) {
        reader = log->used[k.segment - log->used[0]->number]->reader;
    }
    unlock(log);
    enum rq_err err = reader != NULL ? read_entry(log, reader, index, &k, &k.blob) : RQ_OK;
    if (err == RQ_OK) {
        *ret_entry = (struct rq_log_entry){ .index = index, .term = k.term, .type = k.type, .blob = k.blob };
    }
    return err;
}

static void release_segments(struct rq_log *log, uint64_t below)
{
    struct rq_log_segment **last = &log->released;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    size_t gone = 0;
    for (; gone + 1 < log->used_count && log->used[gone]->number < below; gone++) {
        log->used[gone]->next = NULL;
        *last = log->used[gone];
        last = &log->used[gone]->next;
    }
    log->used_count -= gone;
    memmove((void *)log->used, (const void *)(log->used + gone), log->used_count * sizeof(struct rq_log_segment *));
}

static void restart(struct rq_log *log, uint64_t index)
{
    cut(log, log->table.first);
    rq_log_table_restart(&log->table, index + 1);
    log->next_write = index + 1;
    log->durable = index;
    log->restarts = true;
    log->forgets = true;
}

enum rq_err rq_log_restart(struct rq_log *log, uint64_t index)
{
    lock(log);
    assert(log->reserved_entries == 0);
    enum rq_err err = log->failed ? RQ_IO : RQ_OK;
    if (err == RQ_OK) {
        restart(log, index);
    }
    check_log(log);
    unlock(log);
    return err;
}

enum rq_err rq_log_release(struct rq_log *log, uint64_t index)
{
    lock(log);
    if (log->failed) {
        unlock(log);
        return RQ_IO;
    }
    if (index > log->table.last) {
        restart(log, index);
    }
    /* While a cut waits for the writer, the segments still say what was before it: a restart now needs them all. */
    if (log->durable >= log->disk_last) {
        const struct rq_log_known *next = rq_log_table_at(&log->table, index + 1);
        /* One that has its header on the medium stays: without it there is no log. */
        uint64_t newest = log->used[log->used_count - 1]->number - (log->fresh ? 1 : 0);
        uint64_t below = next != NULL && next->segment != 0 ? next->segment : newest;
        release_segments(log, below);
        uint64_t first = log->table.first;
        for (const struct rq_log_known *k; (k = rq_log_table_at(&log->table, first)) != NULL;) {
            if (k->segment == 0 || k->segment >= below) {
                break;
            }
            first++;
        }
        rq_log_table_drop_front(&log->table, first);
    }
    check_log(log);
    unlock(log);
    return RQ_OK;
}

void rq_log_stats(const struct rq_log *log, struct rq_log_stats *ret_stats)
{
    lock(log);
    *ret_stats = (struct rq_log_stats){
        .held = log->table.last + 1 - log->table.first,
        .segments = log->used_count + log->spare_count,
        .writes = log->written_batches,
        .entries = log->written_entries,
        .first_index = log->table.first,
        .last_index = log->table.last,
    };
    for (size_t i = 0; i < log->used_count; i++) {
        ret_stats->bytes += log->used[i]->bytes;
    }
    for (const struct rq_log_segment *s = log->released; s != NULL; s = s->next) {
        ret_stats->segments++;
    }
    unlock(log);
}

/* ---- space ---- */

uint64_t rq_log_payload_bytes_max(const struct rq_log *log)
{
    return SEGMENT_PAYLOAD_BYTES(log->segment_bytes);
}

/* Spares that everything promised needs at worst: each entry a batch of its own, in the worst order.
 *
 * A segment ends before a record that does not fit, so it may waste less than the largest one.  Where that is more than half of
 * it: two segments after one another hold more than one segment's worth, else the second's first record had fitted. */
static uint64_t spares_needed(const struct rq_log *log, uint64_t more_bytes, uint64_t more_entries)
{
    uint64_t entries = log->reserved_entries + more_entries;
    uint64_t bytes = log->waiting_bytes + log->reserved_bytes + more_bytes + entries * (alone_bytes(0) + 7);
    uint64_t largest = more_bytes > log->largest_bytes ? more_bytes : log->largest_bytes;
    uint64_t waste = alone_bytes(largest), usable = log->segment_bytes - RQ_LOG_SECTOR_BYTES;
    uint64_t here = log->used[log->used_count - 1]->bytes - log->frontier;
    here = here > waste && !log->restarts ? here - waste : 0;
    if (bytes <= here) {
        return 0;
    }
    bool large = waste > usable / 2;
    uint64_t each = large ? usable / 2 : usable - waste;
    return (bytes - here + each - 1) / each + (large ? 1 : 0);
}

static enum rq_err add_spare(struct rq_log *log);

enum rq_err rq_log_reserve(struct rq_log *log, uint64_t bytes, unsigned entries)
{
    if (entries == 1 && bytes > SEGMENT_PAYLOAD_BYTES(log->segment_bytes)) {
        return RQ_TOOBIG;
    }
    for (;;) {
        lock(log);
        if (log->failed) {
            unlock(log);
            return RQ_IO;
        }
        if (log->reserved_entries == 0 && log->waiting_bytes == 0) {
            log->largest_bytes = 0;
        }
        if (spares_needed(log, bytes, entries) <= log->spare_count) {
            log->reserved_bytes += bytes;
            log->reserved_entries += entries;
            log->largest_bytes = bytes > log->largest_bytes ? bytes : log->largest_bytes;
            unlock(log);
            return RQ_OK;
        }
        unlock(log);
        enum rq_err err = add_spare(log);
        if (err != RQ_OK) {
            return err;
        }
    }
}

void rq_log_unreserve(struct rq_log *log, uint64_t bytes, unsigned entries)
{
    lock(log);
    use_up(&log->reserved_bytes, bytes);
    use_up(&log->reserved_entries, entries);
    unlock(log);
}

/* ---- the writer ---- */

struct part {
    struct rq_log_segment *segment;
    bool fresh;     /* the segment's header goes in front of the records */
    bool forgets;   /* its first record says that no record before it counts */
    uint32_t begin; /* of what is written */
    uint64_t first_index;
    unsigned count;
    uint64_t bytes; /* upper bound */
    uint64_t durable, committed;
};

/* Locked.  Makes the spare the segment that is written to. */
static enum rq_err begin_segment(struct rq_log *log)
{
    struct rq_log_segment **used = (struct rq_log_segment **)rq_room_for_one((void *)log->used, log->used_count,
                                                                             &log->used_capacity, sizeof *used);
    if (used == NULL) {
        return RQ_NOMEM;
    }
    log->used = used;
    struct rq_log_segment *s = log->spares;
    log->spares = s->next;
    log->spare_count--;
    s->next = NULL;
    s->number = log->used[log->used_count - 1]->number + 1;
    log->used[log->used_count++] = s;
    log->frontier = RQ_LOG_SECTOR_BYTES;
    log->restarts = false;
    log->fresh = true;
    return RQ_OK;
}

static bool next_fits(const struct rq_log *log)
{
    uint64_t bytes = alone_bytes(rq_log_table_at(&log->table, log->next_write)->bytes);
    return !log->restarts && log->used[log->used_count - 1]->bytes - log->frontier >= bytes;
}

/* Locked, but for the making of a segment when none was ready.  Entries from next_write on, as many as fit. */
static enum rq_err take_part(struct rq_log *log, struct part *part)
{
    *part = (struct part){ 0 };
    while (log->next_write <= log->table.last && !next_fits(log)) {
        enum rq_err err = RQ_OK;
        if (log->spares != NULL) {
            err = begin_segment(log);
        } else {
            unlock(log);
            err = add_spare(log);
            lock(log);
        }
        if (err != RQ_OK) {
            return err;
        }
    }
    part->segment = log->used[log->used_count - 1];
    part->fresh = log->fresh;
    part->begin = log->frontier;
    part->first_index = log->next_write;
    part->durable = log->durable;
    part->committed = log->committed;
    uint64_t room = part->segment->bytes - log->frontier;
    room = room > BATCH_BYTES_MAX ? BATCH_BYTES_MAX : room;
    while (log->next_write <= log->table.last && part->count < BATCH_ENTRIES_MAX) {
        const struct rq_log_known *k = rq_log_table_at(&log->table, log->next_write);
        uint64_t bytes = rq_log_record_bytes(k->bytes);
        if (part->count > 0 && part->bytes + bytes > room) {
            break;
        }
        log->taken[part->count++] = (struct taken){
            .blob = k->blob != NULL ? rq_blob_ref(k->blob) : NULL,
            .term = k->term,
            .type = k->type,
        };
        part->bytes += bytes;
        log->next_write++;
    }
    part->forgets = log->forgets && part->count > 0;
    log->forgets = log->forgets && !part->forgets;
    log->cut_floor = UINT64_MAX;
    return RQ_OK;
}

static enum rq_err ensure_buffer(struct rq_log *log, uint64_t bytes)
{
    if (bytes <= log->buffer_bytes) {
        return RQ_OK;
    }
    size_t size = (size_t)((bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES);
    uint8_t *larger = aligned_alloc(ALIGN_BYTES, size);
    if (larger == NULL) {
        return RQ_NOMEM;
    }
    free(log->buffer);
    log->buffer = larger;
    log->buffer_bytes = size;
    return RQ_OK;
}

/* Not locked: buffer, chain and what was taken are the writer's.  One write, which is one sync. */
static enum rq_err write_part(struct rq_log *log, struct part *part, uint32_t *ret_frontier)
{
    const uint64_t begin_ns = rq_clock_ns();
    size_t at = part->fresh ? RQ_LOG_SECTOR_BYTES : 0;
    enum rq_err err = ensure_buffer(log, at + rq_log_sectors_bytes(part->bytes));
    if (err != RQ_OK) {
        return err;
    }
    if (part->fresh) {
        rq_log_put_segment_head(log->buffer, &(struct rq_log_segment_head){
                                                 .instance = log->meta.slot.instance,
                                                 .number = part->segment->number,
                                                 .first_index = part->first_index,
                                                 .chain = log->chain,
                                                 .bytes = part->segment->bytes,
                                             });
    }
    uint32_t base = part->begin - (uint32_t)at; /* place of the buffer in the segment */
    for (unsigned i = 0; i < part->count; i++) {
        struct taken *t = &log->taken[i];
        uint8_t *out = log->buffer + at;
        size_t bytes = blob_bytes(t->blob);
        size_t padded = rq_log_record_bytes(bytes);
        memset(out + padded - 8, 0, 8);
        if (bytes > 0) {
            memcpy(out + RQ_LOG_RECORD_BYTES, t->blob->data, bytes);
        }
        t->offset = base + (uint32_t)at;
        struct rq_log_record r = {
            .bytes = (uint32_t)bytes,
            .type = t->type,
            .index = part->first_index + i,
            .term = t->term,
            .durable_upto = part->durable,
            .committed = part->committed,
            .batch = part->begin,
            .payload_hash = rq_log_payload_hash(out + RQ_LOG_RECORD_BYTES, bytes),
            .forgets = part->forgets && i == 0,
        };
        struct rq_log_place place = { log->meta.slot.instance, part->segment->number, t->offset };
        rq_log_put_record(out, &r, &place, log->chain);
        log->chain = r.chain;
        at += padded;
    }
    size_t end = rq_log_sectors_bytes(at);
    memset(log->buffer + at, 0, end - at);
    *ret_frontier = base + (uint32_t)end;
    const uint64_t made_ns = rq_clock_ns();
    err = part->segment->writer->disk->ops->write(part->segment->writer, log->buffer, end, base);
    rq_stage_took(RQ_STAGE_log_write, made_ns - begin_ns);
    rq_stage_took(RQ_STAGE_sync, rq_clock_ns() - made_ns);
    return err;
}

/* Locked. */
static void note_written(struct rq_log *log, const struct part *part, uint32_t frontier)
{
    uint64_t last = part->first_index + part->count - 1;
    uint64_t kept = last < log->cut_floor ? last : log->cut_floor - 1;
    for (unsigned i = 0; i < part->count; i++) {
        if (part->first_index + i <= kept) {
            struct rq_log_known *k = rq_log_table_at(&log->table, part->first_index + i);
            k->segment = part->segment->number;
            k->offset = log->taken[i].offset;
        }
        log->waiting_bytes -= alone_bytes(blob_bytes(log->taken[i].blob));
    }
    if (kept >= part->first_index) {
        log->durable = kept;
    }
    log->disk_last = last;
    log->fresh = false;
    log->frontier = frontier;
    log->written_batches++;
    log->written_entries += part->count;
    rq_log_table_shrink_cache(&log->table, log->cache_bytes, log->durable + 1);
}

enum rq_err rq_log_write(struct rq_log *log, uint64_t *ret_durable_index)
{
    enum rq_err err = RQ_OK;
    lock(log);
    uint64_t upto = log->table.last;
    if (log->failed || log->next_write > upto) {
        err = log->failed ? RQ_IO : RQ_NOTFOUND;
        unlock(log);
        return err;
    }
    while (err == RQ_OK && log->next_write <= upto && log->next_write <= log->table.last) {
        struct part part;
        err = take_part(log, &part);
        unlock(log);
        uint32_t frontier = 0;
        err = err == RQ_OK && part.count > 0 ? write_part(log, &part, &frontier) : err;
        lock(log);
        if (err == RQ_OK && part.count > 0) {
            note_written(log, &part, frontier);
        }
        for (unsigned i = 0; i < part.count; i++) {
            rq_blob_unref(log->taken[i].blob);
        }
    }
    log->failed = err != RQ_OK;
    *ret_durable_index = log->durable;
    check_log(log);
    unlock(log);
    return err == RQ_OK || err == RQ_NOMEM ? err : RQ_IO;
}

/* ---- segments given back and made ---- */

/* prepare_lock is held.  The oldest released segment becomes a spare on the medium before anybody may take it, and before the
 * next one does. */
static enum rq_err recycle_one(struct rq_log *log, unsigned spares_max, bool *ret_any)
{
    lock(log);
    struct rq_log_segment *s = log->released;
    if (s != NULL) {
        log->released = s->next;
        s->next = NULL;
    }
    bool keep = s != NULL && s->bytes == log->segment_bytes && log->spare_count < spares_max;
    unlock(log);
    *ret_any = s != NULL;
    if (s == NULL) {
        return RQ_OK;
    }
    struct rq_log_segment_head head = { .spare = true, .instance = log->dir.instance, .bytes = s->bytes };
    enum rq_err err = rq_log_segment_put_head(&log->dir, s, &head);
    if (err != RQ_OK) {
        rq_log_segment_free(s);
        return err == RQ_NOMEM ? err : RQ_IO;
    }
    if (!keep) {
        return rq_log_segment_remove(&log->dir, s);
    }
    lock(log);
    s->next = log->spares;
    log->spares = s;
    log->spare_count++;
    unlock(log);
    return RQ_OK;
}

/* prepare_lock is held. */
static enum rq_err make_one(struct rq_log *log)
{
    struct rq_log_segment *s;
    enum rq_err err = rq_log_segment_make(&log->dir, log->segment_bytes, &s);
    if (err == RQ_OK) {
        lock(log);
        s->next = log->spares;
        log->spares = s;
        log->spare_count++;
        unlock(log);
    }
    return err;
}

static enum rq_err add_spare(struct rq_log *log)
{
    rq_strand_will_block();
    pthread_mutex_lock(&log->prepare_lock);
    lock(log);
    unsigned before = log->spare_count;
    unlock(log);
    unsigned now = before;
    bool any = true;
    enum rq_err err = RQ_OK;
    while (err == RQ_OK && any && now == before) {
        err = recycle_one(log, before + 1, &any);
        lock(log);
        now = log->spare_count;
        unlock(log);
    }
    if (err == RQ_OK && now == before) {
        err = make_one(log);
    }
    pthread_mutex_unlock(&log->prepare_lock);
    return err;
}

enum rq_err rq_log_prepare(struct rq_log *log)
{
    pthread_mutex_lock(&log->prepare_lock);
    enum rq_err err = RQ_OK;
    for (bool any = true; err == RQ_OK && any;) {
        err = recycle_one(log, RQ_LOG_SPARES_MAX, &any);
    }
    lock(log);
    bool wanted = log->spares == NULL;
    unlock(log);
    if (err == RQ_OK && wanted) {
        err = make_one(log);
    }
    pthread_mutex_unlock(&log->prepare_lock);
    return err;
}

bool rq_log_prepare_wanted(struct rq_log *log)
{
    lock(log);
    bool wanted = log->spares == NULL || log->released != NULL;
    unlock(log);
    return wanted;
}
