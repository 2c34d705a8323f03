#include "vfs/frames.h"

#include <stdlib.h>
#include <string.h>

#define FRAMES_MIN 1024u
#define FRAMES_MAX (1u << 30) /* 512 GiB of the smallest pages; twice as many slots still fit 32 bits */

void rq_frames_init(struct rq_frames *f)
{
    memset(f, 0, sizeof *f);
}

void rq_frames_fini(struct rq_frames *f)
{
    free(f->frames);
    free(f->newest);
    rq_frames_init(f);
}

static uint32_t slot_start(uint32_t pgno, uint32_t slot_count)
{
    return (pgno * 2654435761u >> 7) & (slot_count - 1);
}

/* The slot that holds pgno, or the free one where it belongs. */
static uint32_t *slot_find(const struct rq_frames *f, uint32_t pgno)
{
    uint32_t slot = slot_start(pgno, f->slot_count);
    while (f->newest[slot] != 0 && f->frames[f->newest[slot] - 1].pgno != pgno) {
        slot = (slot + 1) & (f->slot_count - 1);
    }
    return &f->newest[slot];
}

/* The table is kept at most half full even if every frame that there is room for holds another page. */
static enum rq_err slots_grow(struct rq_frames *f, uint64_t frames)
{
    uint64_t wanted = f->slot_count == 0 ? 2 * FRAMES_MIN : f->slot_count;
    while (wanted < 2 * frames) {
        wanted *= 2;
    }
    if (wanted == f->slot_count) {
        return RQ_OK;
    }
    uint32_t *table = calloc(wanted, sizeof *table);
    if (table == NULL) {
        return RQ_NOMEM;
    }
    uint32_t *old = f->newest;
    const uint32_t old_count = f->slot_count;
    f->newest = table;
    f->slot_count = (uint32_t)wanted;
    for (uint32_t i = 0; i < old_count; i++) {
        if (old[i] != 0) {
            *slot_find(f, f->frames[old[i] - 1].pgno) = old[i];
        }
    }
    free(old);
    return RQ_OK;
}

enum rq_err rq_frames_reserve(struct rq_frames *f, uint32_t count)
{
    const uint64_t wanted = (uint64_t)f->added + count;
    if (wanted > FRAMES_MAX) {
        return RQ_FULL;
    }
    if (wanted > f->capacity) {
        uint64_t capacity = f->capacity < FRAMES_MIN ? FRAMES_MIN : f->capacity;
        while (capacity < wanted) {
            capacity *= 2;
        }
        struct rq_frame *grown = realloc(f->frames, capacity * sizeof *grown);
        if (grown == NULL) {
            return RQ_NOMEM;
        }
        f->frames = grown;
        f->capacity = (uint32_t)capacity;
    }
    return slots_grow(f, f->capacity);
}

void rq_frames_add(struct rq_frames *f, uint32_t pgno, const uint32_t checksum[2])
{
    f->frames[f->added++] = (struct rq_frame){ .pgno = pgno, .checksum = { checksum[0], checksum[1] } };
}

void rq_frames_commit(struct rq_frames *f)
{
    while (f->committed < f->added) {
        *slot_find(f, f->frames[f->committed].pgno) = f->committed + 1;
        f->committed++;
    }
}

void rq_frames_rollback(struct rq_frames *f)
{
    f->added = f->committed;
}

void rq_frames_clear(struct rq_frames *f)
{
    f->committed = f->added = 0;
    if (f->slot_count > 0) {
        memset(f->newest, 0, f->slot_count * sizeof *f->newest);
    }
}

uint32_t rq_frames_find(const struct rq_frames *f, uint32_t pgno)
{
    return f->slot_count == 0 ? 0 : *slot_find(f, pgno);
}
