#include "vfs/overlay.h"

#include <stdlib.h>
#include <string.h>

#define TABLE_FIRST    64u
#define CAPACITY_FIRST 32u
#define KEPT_SLOTS     4096u /* tables up to this stay for the next transaction */

void rq_overlay_init(struct rq_overlay *o, struct rq_disk *disk, const char *dir, size_t memory_max)
{
    *o = (struct rq_overlay){ 0 };
    rq_spill_init(&o->spill, disk, dir, memory_max);
}

void rq_overlay_fini(struct rq_overlay *o)
{
    if (o == NULL) {
        return;
    }
    rq_spill_fini(&o->spill);
    free(o->pgnos);
    free(o->table);
    o->pgnos = NULL;
    o->table = NULL;
    o->count = o->capacity = o->table_slots = o->page_size = o->pgno_max = 0;
}

/* The slot that holds pgno, or the empty one where it would go.  There is always an empty one. */
static uint32_t slot_for(const struct rq_overlay *o, uint32_t pgno)
{
    uint32_t slot = (pgno * 2654435761u) & (o->table_slots - 1);
    while (o->table[slot] != 0 && o->pgnos[o->table[slot] - 1] != pgno) {
        slot = (slot + 1) & (o->table_slots - 1);
    }
    return slot;
}

static enum rq_err make_room(struct rq_overlay *o)
{
    if (o->count == o->capacity) {
        if (o->capacity > UINT32_MAX / 4) {
            return RQ_TOOBIG;
        }
        uint32_t capacity = o->capacity == 0 ? CAPACITY_FIRST : o->capacity * 2;
        uint32_t *pgnos = realloc(o->pgnos, (size_t)capacity * sizeof *pgnos);
        if (pgnos == NULL) {
            return RQ_NOMEM;
        }
        o->pgnos = pgnos;
        o->capacity = capacity;
    }
    if (o->table_slots == 0 || o->count >= o->table_slots / 2) {
        uint32_t slots = o->table_slots == 0 ? TABLE_FIRST : o->table_slots * 2;
        uint32_t *table = calloc(slots, sizeof *table);
        if (table == NULL) {
            return RQ_NOMEM;
        }
        free(o->table);
        o->table = table;
        o->table_slots = slots;
        for (uint32_t place = 0; place < o->count; place++) {
            o->table[slot_for(o, o->pgnos[place])] = place + 1;
        }
    }
    return RQ_OK;
}

enum rq_err rq_overlay_put(struct rq_overlay *o, uint32_t pgno, const uint8_t *page, uint32_t page_size)
{
    if (o->count > 0 && page_size != o->page_size) {
        return RQ_PAGESIZE;
    }
    enum rq_err err = make_room(o);
    if (err != RQ_OK) {
        return err;
    }
    uint32_t slot = slot_for(o, pgno);
    uint32_t place = o->table[slot] != 0 ? o->table[slot] - 1 : o->count;
    err = rq_spill_write(&o->spill, page, page_size, (uint64_t)place * page_size);
    if (err != RQ_OK) {
        return err;
    }
    if (place == o->count) {
        o->pgnos[place] = pgno;
        o->table[slot] = place + 1;
        o->count++;
    }
    o->page_size = page_size;
    if (pgno > o->pgno_max) {
        o->pgno_max = pgno;
    }
    return RQ_OK;
}

bool rq_overlay_has(const struct rq_overlay *o, uint32_t pgno)
{
    return o->count > 0 && o->table[slot_for(o, pgno)] != 0;
}

enum rq_err rq_overlay_read(struct rq_overlay *o, uint32_t pgno, uint32_t offset, void *data, uint32_t bytes)
{
    if (!rq_overlay_has(o, pgno)) {
        return RQ_NOTFOUND;
    }
    if (offset > o->page_size || bytes > o->page_size - offset) {
        return RQ_MISUSE;
    }
    uint32_t place = o->table[slot_for(o, pgno)] - 1;
    size_t got;
    enum rq_err err = rq_spill_read(&o->spill, data, bytes, (uint64_t)place * o->page_size + offset, &got);
    return err == RQ_OK && got != bytes ? RQ_IO : err;
}

void rq_overlay_clear(struct rq_overlay *o)
{
    if (o->count == 0) {
        return;
    }
    rq_spill_truncate(&o->spill, 0);
    if (o->table_slots > KEPT_SLOTS) {
        free(o->table);
        free(o->pgnos);
        o->table = NULL;
        o->pgnos = NULL;
        o->table_slots = o->capacity = 0;
    } else {
        memset(o->table, 0, o->table_slots * sizeof *o->table);
    }
    o->count = 0;
    o->page_size = 0;
    o->pgno_max = 0;
}

/* The page at a place; in buffer if it does not lie in memory. */
static enum rq_err page_at(struct rq_overlay *o, uint32_t place, uint8_t *buffer, const uint8_t **ret_page)
{
    const uint64_t at = (uint64_t)place * o->page_size;
    size_t got = o->page_size;
    enum rq_err err = RQ_OK;
    *ret_page = rq_spill_at(&o->spill, at, o->page_size);
    if (*ret_page == NULL) {
        *ret_page = buffer;
        err = rq_spill_read(&o->spill, buffer, o->page_size, at, &got);
    }
    return err == RQ_OK && got != o->page_size ? RQ_IO : err;
}

enum rq_err rq_overlay_merge(struct rq_overlay *into, struct rq_overlay *from)
{
    /* Which of the two has the larger buffers, into keeps them. */
    if (into->count == 0 && (from->spill.file != NULL || from->spill.memory_capacity >= into->spill.memory_capacity)) {
        struct rq_overlay empty = *into;
        const size_t kept = from->spill.memory_kept;
        *into = *from;
        into->spill.memory_kept = empty.spill.memory_kept;
        *from = empty;
        from->spill.memory_kept = kept;
        return RQ_OK;
    }
    uint8_t *buffer = from->spill.file != NULL ? malloc(from->page_size) : NULL;
    enum rq_err err = from->spill.file != NULL && buffer == NULL ? RQ_NOMEM : RQ_OK;
    for (uint32_t place = 0; err == RQ_OK && place < from->count; place++) {
        const uint8_t *page;
        err = page_at(from, place, buffer, &page);
        if (err == RQ_OK) {
            err = rq_overlay_put(into, from->pgnos[place], page, from->page_size);
        }
    }
    free(buffer);
    if (err == RQ_OK) {
        rq_overlay_clear(from);
    }
    return err;
}

static int order_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

enum rq_err rq_overlay_walk_init(struct rq_overlay_walk *w, struct rq_overlay *o, uint32_t pgno_max)
{
    *w = (struct rq_overlay_walk){ .overlay = o };
    w->order = malloc(((size_t)o->count + 1) * sizeof *w->order);
    w->page = malloc((size_t)o->page_size + 1);
    if (w->order == NULL || w->page == NULL) {
        rq_overlay_walk_fini(w);
        return RQ_NOMEM;
    }
    for (uint32_t place = 0; place < o->count; place++) {
        if (o->pgnos[place] <= pgno_max) {
            w->order[w->count++] = (uint64_t)o->pgnos[place] << 32 | place;
        }
    }
    qsort(w->order, w->count, sizeof *w->order, order_compare);
    return RQ_OK;
}

void rq_overlay_walk_fini(struct rq_overlay_walk *w)
{
    free(w->order);
    free(w->page);
    *w = (struct rq_overlay_walk){ 0 };
}

void rq_overlay_walk_rewind(struct rq_overlay_walk *w)
{
    w->index = 0;
}

enum rq_err rq_overlay_walk_next(struct rq_overlay_walk *w, uint32_t *ret_pgno, uint8_t **ret_page)
{
    if (w->index == w->count) {
        return RQ_NOTFOUND;
    }
    uint64_t entry = w->order[w->index];
    uint32_t page_size = w->overlay->page_size;
    size_t got;
    enum rq_err err = rq_spill_read(&w->overlay->spill, w->page, page_size, (entry & 0xffffffffu) * page_size, &got);
    if (err != RQ_OK) {
        return err;
    }
    if (got != page_size) {
        return RQ_IO;
    }
    w->index++;
    *ret_pgno = (uint32_t)(entry >> 32);
    *ret_page = w->page;
    return RQ_OK;
}
