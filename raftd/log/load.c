#include "raftd/log/load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/run/room.h"

#define ALIGN_BYTES 4096u

struct file_ids {
    uint64_t *ids;
    size_t count, capacity;
};

struct used {
    struct rq_log_segment *segment;
    struct rq_log_segment_head head;
};

struct loader {
    struct rq_log_dir *dir;
    struct rq_log_loaded *out;
    struct used *used;
    size_t used_count;
    uint32_t batch; /* of the last record that was good, in this segment; 0: none */
    char *problem;
    size_t problem_bytes;
};

static enum rq_err add_id(void *ctx, const char *name)
{
    struct file_ids *ids = ctx;
    char *end;
    uint64_t id = strtoull(name, &end, 16);
    if (end == name || strcmp(end, ".seg") != 0) {
        return RQ_OK;
    }
    uint64_t *list = rq_room_for_one(ids->ids, ids->count, &ids->capacity, sizeof *list);
    if (list == NULL) {
        return RQ_NOMEM;
    }
    ids->ids = list;
    list[ids->count++] = id;
    return RQ_OK;
}

static enum rq_err list_ids(struct rq_log_dir *dir, struct file_ids *ids)
{
    *ids = (struct file_ids){ 0 };
    enum rq_err err = dir->disk->ops->list(dir->disk, dir->path, add_id, ids);
    for (size_t i = 0; err == RQ_OK && i < ids->count; i++) {
        if (ids->ids[i] > dir->id_last) {
            dir->id_last = ids->ids[i];
        }
    }
    return err;
}

static enum rq_err say(struct loader *l, enum rq_err err, uint64_t id, uint64_t offset, const char *what)
{
    snprintf(l->problem, l->problem_bytes, "log/%08" PRIx64 ".seg, byte %" PRIu64 ": %s", id, offset, what);
    return err;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = ((const struct used *)a)->head.number, y = ((const struct used *)b)->head.number;
    return x < y ? -1 : x > y;
}

static enum rq_err open_segments(struct loader *l, const struct file_ids *ids)
{
    l->used = calloc(ids->count + 1, sizeof *l->used);
    if (l->used == NULL) {
        return RQ_NOMEM;
    }
    for (size_t i = 0; i < ids->count; i++) {
        struct rq_log_segment *s;
        struct rq_log_segment_head head;
        enum rq_err err = rq_log_segment_open(l->dir, ids->ids[i], &s, &head);
        if (err == RQ_CORRUPT) {
            return say(l, err, ids->ids[i], 0, "the segment's header is damaged, or the file was cut off");
        }
        if (err == RQ_VERSION) {
            return say(l, err, ids->ids[i], 0, "written by a newer raftd");
        }
        if (err == RQ_FOREIGN) {
            return say(l, err, ids->ids[i], 0, "belongs to another instance");
        }
        if (err != RQ_OK) {
            return err;
        }
        if (head.spare) {
            s->next = l->out->spares;
            l->out->spares = s;
            /* A life before may have died in the write that made it one: then only a page cache knows.  The next older segment
             * may not become a spare on the medium before this one is. */
            err = rq_log_segment_put_head(l->dir, s, &head);
            if (err != RQ_OK) {
                return err;
            }
        } else {
            l->used[l->used_count++] = (struct used){ s, head };
        }
    }
    qsort(l->used, l->used_count, sizeof *l->used, by_number);
    for (size_t i = 1; i < l->used_count; i++) {
        if (l->used[i].head.number != l->used[i - 1].head.number + 1) {
            return say(l, RQ_CORRUPT, l->used[i].segment->id, 0,
                       "the segment before this one is missing, or is there twice");
        }
    }
    return RQ_OK;
}

/* The record at offset if it is whole and follows the chain. */
static bool good_record(const struct loader *l, const struct used *u, const uint8_t *bytes, uint64_t offset,
                        struct rq_log_record *ret_record)
{
    if (offset + RQ_LOG_RECORD_BYTES > u->head.bytes) {
        return false;
    }
    const uint8_t *at = bytes + offset;
    struct rq_log_place place = { u->head.instance, u->head.number, (uint32_t)offset };
    struct rq_log_record r;
    if (!rq_log_get_record(at, &place, &r) || r.chain != rq_log_chain(at, l->out->chain) ||
        rq_log_record_bytes(r.bytes) > u->head.bytes - offset ||
        r.payload_hash != rq_log_payload_hash(at + RQ_LOG_RECORD_BYTES, r.bytes)) {
        return false;
    }
    *ret_record = r;
    return true;
}

static enum rq_err take_record(struct loader *l, const struct used *u, uint64_t offset, const struct rq_log_record *r)
{
    struct rq_log_table *t = &l->out->table;
    bool follows = r->index > 0 && r->index <= t->last + 1 && r->batch <= offset && r->batch >= RQ_LOG_SECTOR_BYTES &&
                   r->batch % RQ_LOG_SECTOR_BYTES == 0;
    if (!follows) {
        return say(l, RQ_CORRUPT, u->segment->id, offset, "a record does not follow the one before it");
    }
    if (r->forgets ||
        r->index < t->first) { /* all before it was superseded, and the segments with the rest are used again */
        rq_log_table_restart(t, r->index);
    }
    rq_log_table_cut(t, r->index);
    enum rq_err err = rq_log_table_reserve(t, 1);
    if (err != RQ_OK) {
        return err;
    }
    rq_log_table_push(t, &(struct rq_log_known){
                             .term = r->term,
                             .segment = u->head.number,
                             .offset = (uint32_t)offset,
                             .bytes = r->bytes,
                             .type = r->type,
                         });
    l->out->chain = r->chain;
    l->batch = r->batch;
    if (r->committed > l->out->committed) {
        l->out->committed = r->committed;
    }
    return RQ_OK;
}

/* Bytes of the records whose headers are still whole, from offset on. */
static uint64_t torn_bytes(const struct used *u, const uint8_t *bytes, uint64_t offset)
{
    uint64_t at = offset;
    while (at + RQ_LOG_RECORD_BYTES <= u->head.bytes) {
        struct rq_log_place place = { u->head.instance, u->head.number, (uint32_t)at };
        struct rq_log_record r;
        if (!rq_log_get_record(bytes + at, &place, &r) || rq_log_record_bytes(r.bytes) > u->head.bytes - at) {
            break;
        }
        at += rq_log_record_bytes(r.bytes);
    }
    return at - offset;
}

/* Behind the last good record: only what a torn batch leaves? */
static enum rq_err check_tail(struct loader *l, const struct used *u, const uint8_t *bytes, uint64_t end)
{
    uint64_t next = rq_log_sectors_bytes(end);
    for (uint64_t at = next; at + RQ_LOG_RECORD_BYTES <= u->head.bytes; at += RQ_LOG_SECTOR_BYTES) {
        struct rq_log_place place = { u->head.instance, u->head.number, (uint32_t)at };
        struct rq_log_record r;
        if (!rq_log_get_record(bytes + at, &place, &r) || r.batch != at) {
            continue;
        }
        /* Here lies the bad record itself, first of its batch: its payload is torn, or it is left from a first write that lost
         * the segment's header.  Only behind the rest of a batch it is the next batch. */
        if (at == next && (end == next || r.chain == rq_log_chain(bytes + at, l->out->chain))) {
            continue;
        }
        return say(l, RQ_CORRUPT, u->segment->id, end, "a record that was synced is damaged");
    }
    l->out->cut_bytes = torn_bytes(u, bytes, end);
    if (l->out->cut_bytes == 0 && next != end) {
        l->out->cut_bytes = torn_bytes(u, bytes, next);
    }
    return RQ_OK;
}

/* Header and last batch again, and zeros up to the frontier's sector, through the handle that syncs. */
static enum rq_err write_again(struct loader *l, const struct used *u, uint8_t *bytes, uint64_t end)
{
    uint64_t frontier = rq_log_sectors_bytes(end);
    enum rq_err err = rq_log_segment_put_head(l->dir, u->segment, &u->head);
    if (err == RQ_OK && l->batch != 0) {
        memset(bytes + end, 0, frontier - end);
        err = u->segment->writer->disk->ops->write(u->segment->writer, bytes + l->batch, frontier - l->batch, l->batch);
    }
    l->out->frontier = (uint32_t)frontier;
    return err;
}

static enum rq_err load_segment(struct loader *l, const struct used *u, bool last)
{
    uint8_t *bytes = aligned_alloc(ALIGN_BYTES, (u->head.bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES);
    if (bytes == NULL) {
        return RQ_NOMEM;
    }
    size_t n = 0;
    enum rq_err err = l->dir->disk->ops->read(u->segment->reader, bytes, u->head.bytes, 0, &n);
    if (err == RQ_OK && n != u->head.bytes) {
        err = say(l, RQ_CORRUPT, u->segment->id, n, "the file was cut off");
    }
    if (err == RQ_OK && u->head.first_index > l->out->table.last + 1) {
        rq_log_table_restart(&l->out->table, u->head.first_index); /* a snapshot stands for what lies between */
    }
    uint64_t end = RQ_LOG_SECTOR_BYTES;
    l->batch = 0;
    while (err == RQ_OK) {
        struct rq_log_record r;
        uint64_t at = end;
        if (!good_record(l, u, bytes, at, &r)) {
            at = rq_log_sectors_bytes(end);
            if (at == end || !good_record(l, u, bytes, at, &r)) {
                break;
            }
        }
        err = take_record(l, u, at, &r);
        end = at + rq_log_record_bytes(r.bytes);
    }
    if (err == RQ_OK && last) {
        err = check_tail(l, u, bytes, end);
        err = err == RQ_OK ? write_again(l, u, bytes, end) : err;
    } else if (err == RQ_OK && u[1].head.chain != l->out->chain) {
        err = say(l, RQ_CORRUPT, u->segment->id, end, "a record that was synced is damaged");
    }
    free(bytes);
    return err;
}

enum rq_err rq_log_load(struct rq_log_dir *dir, struct rq_log_loaded *ret_loaded, char *problem, size_t problem_bytes)
{
    *ret_loaded = (struct rq_log_loaded){ 0 };
    struct loader l = { .dir = dir, .out = ret_loaded, .problem = problem, .problem_bytes = problem_bytes };
    struct file_ids ids;
    enum rq_err err = list_ids(dir, &ids);
    /* A life before may have died between a name and its sync: what we find and build on has to be on the medium. */
    err = err == RQ_OK ? dir->disk->ops->sync_dir(dir->disk, dir->path) : err;
    err = err == RQ_OK ? open_segments(&l, &ids) : err;
    if (err == RQ_OK && l.used_count == 0) {
        err = RQ_NOTFOUND;
    }
    if (err == RQ_OK) {
        rq_log_table_restart(&ret_loaded->table, l.used[0].head.first_index);
        ret_loaded->chain = l.used[0].head.chain;
    }
    for (size_t i = 0; err == RQ_OK && i < l.used_count; i++) {
        err = load_segment(&l, &l.used[i], i + 1 == l.used_count);
    }
    ret_loaded->used = (struct rq_log_segment **)calloc(l.used_count + 1, sizeof(struct rq_log_segment *));
    if (err == RQ_OK && ret_loaded->used == NULL) {
        err = RQ_NOMEM;
    }
    for (size_t i = 0; i < l.used_count; i++) {
        if (ret_loaded->used != NULL) {
            ret_loaded->used[ret_loaded->used_count++] = l.used[i].segment;
        } else {
            rq_log_segment_free(l.used[i].segment);
        }
    }
    free(l.used);
    free(ids.ids);
    if (err != RQ_OK) {
        rq_log_loaded_fini(ret_loaded);
    }
    return err;
}

void rq_log_loaded_fini(struct rq_log_loaded *l)
{
    for (size_t i = 0; i < l->used_count; i++) {
        rq_log_segment_free(l->used[i]);
    }
    free((void *)l->used);
    while (l->spares != NULL) {
        struct rq_log_segment *s = l->spares;
        l->spares = s->next;
        rq_log_segment_free(s);
    }
    rq_log_table_fini(&l->table);
    *l = (struct rq_log_loaded){ 0 };
}

/* Founding writes no record before term and vote have their file; so a first segment without records is all it can leave. */
static enum rq_err remove_unused(struct rq_log_dir *dir, uint64_t id)
{
    struct rq_log_segment *s;
    struct rq_log_segment_head head;
    struct rq_log_dir any = *dir; /* the founding that died may have been another instance's */
    enum rq_err err = rq_log_segment_open(&any, id, &s, &head);
    if (err == RQ_FOREIGN) {
        any.instance = head.instance;
        err = rq_log_segment_open(&any, id, &s, &head);
    }
    if (err == RQ_CORRUPT || err == RQ_VERSION) {
        return RQ_EXISTS;
    }
    if (err != RQ_OK) {
        return err;
    }
    uint8_t record[RQ_LOG_RECORD_BYTES];
    struct rq_log_place place = { head.instance, head.number, RQ_LOG_SECTOR_BYTES };
    struct rq_log_record r;
    size_t n = 0;
    err = dir->disk->ops->read(s->reader, record, sizeof record, RQ_LOG_SECTOR_BYTES, &n);
    if (err == RQ_OK && !head.spare &&
        (head.number != 1 || n != sizeof record || rq_log_get_record(record, &place, &r))) {
        err = RQ_EXISTS;
    }
    if (err != RQ_OK) {
        rq_log_segment_free(s);
        return err;
    }
    return rq_log_segment_remove(dir, s);
}

enum rq_err rq_log_clear_founding(struct rq_log_dir *dir)
{
    struct file_ids ids;
    enum rq_err err = list_ids(dir, &ids);
    for (size_t i = 0; err == RQ_OK && i < ids.count; i++) {
        err = remove_unused(dir, ids.ids[i]);
    }
    free(ids.ids);
    return err == RQ_OK ? dir->disk->ops->sync_dir(dir->disk, dir->path) : err;
}
