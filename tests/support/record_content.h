/* Content of one file of a recording disk: what reads see (cache), what the medium holds (durable), and the writes between.
 *
 * Both are arrays of 4 KiB blocks that are shared and copied on write, so that a version, a write that is not synced and a copy
 * of the whole disk cost a pointer each.  Every write leaves one event per block it touched: the block's image after it.
 * Power loss starts from durable and takes, sector by sector, any version that an event holds: writes dropped, kept, torn and in
 * any order.  Two limits keep that legal: a truncate that is lost takes every later write of the file with it, and what lies
 * between the old end and a grown one without its data is zero.
 *
 * Running out of memory ends the test. */
#ifndef TESTS_SUPPORT_RECORD_CONTENT_H
#define TESTS_SUPPORT_RECORD_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_BLOCK_BYTES  4096u
#define RECORD_SECTOR_BYTES 512u

struct record_block;
struct record_version {
    struct record_block **blocks; /* NULL: zeros */
    size_t block_count;           /* allocated pointers */
    uint64_t size;                /* bytes behind it in the last block are zero */
};
struct record_event {
    struct record_block *image; /* NULL: only the size changed */
    uint64_t block_index;
    uint64_t size_after;
    bool truncates; /* everything from size_after on was cut off */
};
struct record_content {
    struct record_version cache, durable;
    struct record_event *events; /* oldest first */
    size_t event_count, event_capacity;
};

void record_content_fini(struct record_content *c); /* a zeroed one is an empty file */
void record_content_copy(struct record_content *to, const struct record_content *from); /* to is zeroed */

size_t record_content_read(const struct record_content *c, void *data, size_t bytes, uint64_t offset);
void record_content_write(struct record_content *c, const void *data, size_t bytes, uint64_t offset);
void record_content_truncate(struct record_content *c, uint64_t size);
void record_content_grow(struct record_content *c, uint64_t size); /* no effect when it is as long already */

void record_content_sync(struct record_content *c);
/* What a write through a synced handle makes durable: these bytes, and the end of the file at least behind them. */
void record_content_sync_range(struct record_content *c, uint64_t offset, size_t bytes);
/* A sync that failed: what was dirty counts as clean now and will never be written; reads still see it. */
void record_content_forget_dirty(struct record_content *c);
/* The cache drops its clean blocks: reads see the medium again, and what is still dirty. */
void record_content_evict(struct record_content *c);
void record_content_power_loss(struct record_content *c, uint64_t *seed);

#endif
