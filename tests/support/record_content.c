#include "tests/support/record_content.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/seeded.h"

/* Past this many events the oldest half is written back, as a kernel does with old dirty pages. */
#define EVENT_COUNT_MAX 8192u

struct record_block {
    atomic_uint refs; /* copies of a disk may live in different threads */
    uint8_t data[RECORD_BLOCK_BYTES];
};

static void *must(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, "recording disk: out of memory\n");
        abort();
    }
    return memory;
}

static struct record_block *block_ref(struct record_block *b)
{
    if (b != NULL) {
        atomic_fetch_add(&b->refs, 1);
    }
    return b;
}

static void block_unref(struct record_block *b)
{
    if (b != NULL && atomic_fetch_sub(&b->refs, 1) == 1) {
        free(b);
    }
}

static void version_fini(struct record_version *v)
{
    for (size_t i = 0; i < v->block_count; i++) {
        block_unref(v->blocks[i]);
    }
    free(v->blocks);
    *v = (struct record_version){ 0 };
}

static void version_copy(struct record_version *to, const struct record_version *from)
{
    *to = *from;
    if (from->block_count == 0) {
        to->blocks = NULL;
        return;
    }
    to->blocks = must(malloc(from->block_count * sizeof(struct record_block *)));
    for (size_t i = 0; i < from->block_count; i++) {
        to->blocks[i] = block_ref(from->blocks[i]);
    }
}

static struct record_block **version_slot(struct record_version *v, uint64_t block_index)
{
    if (block_index >= v->block_count) {
        size_t count = v->block_count == 0 ? 8 : v->block_count;
        while (count <= block_index) {
            count *= 2;
        }
        v->blocks = must(realloc(v->blocks, count * sizeof(struct record_block *)));
        memset(v->blocks + v->block_count, 0, (count - v->block_count) * sizeof(struct record_block *));
        v->block_count = count;
    }
    return v->blocks + block_index;
}

/* A block that nobody else sees, with what it held. */
static struct record_block *version_own(struct record_version *v, uint64_t block_index)
{
    struct record_block **slot = version_slot(v, block_index);
    struct record_block *old = *slot;
    if (old != NULL && atomic_load(&old->refs) == 1) {
        return old;
    }
    struct record_block *fresh = must(malloc(sizeof *fresh));
    atomic_init(&fresh->refs, 1);
    if (old != NULL) {
        memcpy(fresh->data, old->data, sizeof fresh->data);
    } else {
        memset(fresh->data, 0, sizeof fresh->data);
    }
    block_unref(old);
    *slot = fresh;
    return fresh;
}

static void version_put(struct record_version *v, uint64_t block_index, struct record_block *image)
{
    struct record_block **slot = version_slot(v, block_index);
    block_ref(image);
    block_unref(*slot);
    *slot = image;
}

static void version_truncate(struct record_version *v, uint64_t size)
{
    uint64_t first = (size + RECORD_BLOCK_BYTES - 1) / RECORD_BLOCK_BYTES;
    for (uint64_t i = first; i < v->block_count; i++) {
        block_unref(v->blocks[i]);
        v->blocks[i] = NULL;
    }
    size_t rest = size % RECORD_BLOCK_BYTES;
    if (rest != 0 && first <= v->block_count && v->blocks[first - 1] != NULL) {
        struct record_block *last = version_own(v, first - 1);
        memset(last->data + rest, 0, RECORD_BLOCK_BYTES - rest);
    }
    v->size = size;
}

static void event_apply(const struct record_event *e, struct record_version *v)
{
    if (e->truncates) {
        version_truncate(v, e->size_after);
        return;
    }
    if (e->image != NULL) {
        version_put(v, e->block_index, e->image);
    }
    if (e->size_after > v->size) {
        v->size = e->size_after;
    }
}

static void events_apply_oldest(struct record_content *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        event_apply(&c->events[i], &c->durable);
        block_unref(c->events[i].image);
    }
    c->event_count -= count;
    if (c->event_count > 0) {
        memmove(c->events, c->events + count, c->event_count * sizeof *c->events);
    }
}

static void events_drop(struct record_content *c)
{
    for (size_t i = 0; i < c->event_count; i++) {
        block_unref(c->events[i].image);
    }
    c->event_count = 0;
}

static void event_add(struct record_content *c, struct record_event event)
{
    if (c->event_count >= EVENT_COUNT_MAX) {
        events_apply_oldest(c, EVENT_COUNT_MAX / 2);
    }
    if (c->event_count == c->event_capacity) {
        c->event_capacity = c->event_capacity == 0 ? 8 : c->event_capacity * 2;
        c->events = must(realloc(c->events, c->event_capacity * sizeof *c->events));
    }
    block_ref(event.image);
    c->events[c->event_count++] = event;
}

void record_content_fini(struct record_content *c)
{
    version_fini(&c->cache);
    version_fini(&c->durable);
    events_drop(c);
    free(c->events);
    *c = (struct record_content){ 0 };
}

void record_content_copy(struct record_content *to, const struct record_content *from)
{
    version_copy(&to->cache, &from->cache);
    version_copy(&to->durable, &from->durable);
    for (size_t i = 0; i < from->event_count; i++) {
        event_add(to, from->events[i]);
    }
}

size_t record_content_read(const struct record_content *c, void *data, size_t bytes, uint64_t offset)
{
    if (offset >= c->cache.size) {
        return 0;
    }
    if (bytes > c->cache.size - offset) {
        bytes = (size_t)(c->cache.size - offset);
    }
    for (size_t done = 0; done < bytes;) {
        uint64_t block_index = (offset + done) / RECORD_BLOCK_BYTES;
        size_t at = (offset + done) % RECORD_BLOCK_BYTES;
        size_t n = RECORD_BLOCK_BYTES - at < bytes - done ? RECORD_BLOCK_BYTES - at : bytes - done;
        const struct record_block *b = block_index < c->cache.block_count ? c->cache.blocks[block_index] : NULL;
        if (b != NULL) {
            memcpy((uint8_t *)data + done, b->data + at, n);
        } else {
            memset((uint8_t *)data + done, 0, n);
        }
        done += n;
    }
    return bytes;
}

void record_content_write(struct record_content *c, const void *data, size_t bytes, uint64_t offset)
{
    for (size_t done = 0; done < bytes;) {
        uint64_t block_index = (offset + done) / RECORD_BLOCK_BYTES;
        size_t at = (offset + done) % RECORD_BLOCK_BYTES;
        size_t n = RECORD_BLOCK_BYTES - at < bytes - done ? RECORD_BLOCK_BYTES - at : bytes - done;
        struct record_block *b = version_own(&c->cache, block_index);
        memcpy(b->data + at, (const uint8_t *)data + done, n);
        done += n;
        if (offset + done > c->cache.size) {
            c->cache.size = offset + done;
        }
        event_add(c, (struct record_event){ .image = b, .block_index = block_index, .size_after = c->cache.size });
    }
}

void record_content_truncate(struct record_content *c, uint64_t size)
{
    if (size >= c->cache.size) {
        record_content_grow(c, size);
        return;
    }
    version_truncate(&c->cache, size);
    event_add(c, (struct record_event){ .size_after = size, .truncates = true });
}

void record_content_grow(struct record_content *c, uint64_t size)
{
    if (size > c->cache.size) {
        c->cache.size = size;
        event_add(c, (struct record_event){ .size_after = size });
    }
}

void record_content_sync(struct record_content *c)
{
    events_apply_oldest(c, c->event_count);
}

void record_content_sync_range(struct record_content *c, uint64_t offset, size_t bytes)
{
    uint64_t first = offset / RECORD_BLOCK_BYTES, end = (offset + bytes + RECORD_BLOCK_BYTES - 1) / RECORD_BLOCK_BYTES;
    size_t kept = 0;
    for (size_t i = 0; i < c->event_count; i++) {
        if (c->events[i].truncates) { /* metadata goes out in order: with this one, all before it */
            record_content_sync(c);
            return;
        }
    }
    for (size_t i = 0; i < c->event_count; i++) {
        struct record_event *e = &c->events[i];
        if (e->image != NULL && e->block_index >= first && e->block_index < end) {
            version_put(&c->durable, e->block_index, e->image);
            block_unref(e->image);
        } else {
            c->events[kept++] = *e;
        }
    }
    c->event_count = kept;
    if (offset + bytes > c->durable.size) {
        c->durable.size = offset + bytes;
    }
}

void record_content_forget_dirty(struct record_content *c)
{
    for (size_t i = 0; i < c->event_count; i++) {
        block_unref(c->events[i].image);
        c->events[i].image = NULL; /* the size stays: metadata has its own way to the medium */
    }
}

void record_content_evict(struct record_content *c)
{
    version_fini(&c->cache);
    version_copy(&c->cache, &c->durable);
    for (size_t i = 0; i < c->event_count; i++) {
        event_apply(&c->events[i], &c->cache);
    }
}

/* Which sectors of an event's image reached the medium; style is drawn once per file, so that whole outcomes (all, nothing, a
 * prefix in order) come up as well as mixtures. */
enum loss_style { LOSE_ALL, KEEP_ALL, KEEP_PREFIX, BY_BLOCK, BY_SECTOR, LOSS_STYLES };

static uint8_t sectors_kept(enum loss_style style, size_t event_index, size_t prefix, uint64_t *seed)
{
    switch (style) {
        case LOSE_ALL:
            return 0;
        case KEEP_ALL:
            return 0xff;
        case KEEP_PREFIX:
            if (event_index == prefix) {
                return (uint8_t)((1u << seeded_below(seed, 9)) - 1);
            }
            return event_index < prefix ? 0xff : 0;
        case BY_BLOCK:
            return seeded_below(seed, 2) != 0 ? 0xff : 0;
        case BY_SECTOR:
        case LOSS_STYLES:
            break;
    }
    return (uint8_t)seeded_next(seed);
}

void record_content_power_loss(struct record_content *c, uint64_t *seed)
{
    enum loss_style style = (enum loss_style)seeded_below(seed, LOSS_STYLES);
    size_t prefix = c->event_count > 0 ? seeded_below(seed, (uint32_t)c->event_count) : 0;
    struct record_version *v = &c->durable;
    for (size_t i = 0; i < c->event_count; i++) {
        const struct record_event *e = &c->events[i];
        uint8_t sectors = sectors_kept(style, i, prefix, seed);
        if (e->truncates) {
            if (sectors == 0) {
                break;
            }
            version_truncate(v, e->size_after);
            continue;
        }
        if (e->size_after > v->size && (style == KEEP_ALL || (sectors != 0 && seeded_below(seed, 4) != 0))) {
            v->size = e->size_after;
        }
        if (e->image == NULL || sectors == 0 || e->block_index * RECORD_BLOCK_BYTES >= v->size) {
            continue;
        }
        struct record_block *b = version_own(v, e->block_index);
        for (unsigned s = 0; s < RECORD_BLOCK_BYTES / RECORD_SECTOR_BYTES; s++) {
            if ((sectors >> s & 1) != 0) {
                size_t at = (size_t)s * RECORD_SECTOR_BYTES;
                memcpy(b->data + at, e->image->data + at, RECORD_SECTOR_BYTES);
            }
        }
    }
    version_truncate(v, v->size); /* an image may reach behind the end that was kept */
    events_drop(c);
    version_fini(&c->cache);
    version_copy(&c->cache, &c->durable);
}
