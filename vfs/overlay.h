/* Overlay: pages by number that stand in front of a snapshot: what a transaction wrote and nobody else sees.
 *
 * A page has a place in a spill, in the order in which pages were first put; a hash table says which.  So the memory of a huge
 * transaction is bounded: 16 bytes a page beside the spill's limit.
 * Threads: one at a time. */
#ifndef VFS_OVERLAY_H
#define VFS_OVERLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/spill.h"

struct rq_overlay {
    struct rq_spill spill; /* owns: place p at p * page_size */
    uint32_t *pgnos;       /* owns: page number of each place */
    uint32_t count;        /* places */
    uint32_t capacity;
    uint32_t *table;      /* owns: place + 1, by hash of the page number; 0 empty */
    uint32_t table_slots; /* a power of two, more than count */
    uint32_t page_size;   /* 0 while empty */
    uint32_t pgno_max;
};

void rq_overlay_init(struct rq_overlay *o, struct rq_disk *disk, const char *dir, size_t memory_max);
void rq_overlay_fini(struct rq_overlay *o);

/* The first page sets the page size; PAGESIZE for another one after that. */
enum rq_err rq_overlay_put(struct rq_overlay *o, uint32_t pgno, const uint8_t *page, uint32_t page_size);

bool rq_overlay_has(const struct rq_overlay *o, uint32_t pgno);

/* Part of a page; NOTFOUND if the page is not here. */
enum rq_err rq_overlay_read(struct rq_overlay *o, uint32_t pgno, uint32_t offset, void *data, uint32_t bytes);

void rq_overlay_clear(struct rq_overlay *o);

/* Puts all pages of `from` over those of `into`, and clears `from`.  After an error both are to be cleared. */
enum rq_err rq_overlay_merge(struct rq_overlay *into, struct rq_overlay *from);

/* Ascending walk.  The overlay is not changed while one lasts. */
struct rq_overlay_walk {
    struct rq_overlay *overlay; /* borrows */
    uint64_t *order;            /* owns: page number << 32 | place, sorted */
    uint8_t *page;              /* owns: the page that next gave last */
    uint32_t count;
    uint32_t index;
};

/* Pages past pgno_max are left out. */
enum rq_err rq_overlay_walk_init(struct rq_overlay_walk *w, struct rq_overlay *o, uint32_t pgno_max);
void rq_overlay_walk_fini(struct rq_overlay_walk *w);
void rq_overlay_walk_rewind(struct rq_overlay_walk *w);
/* NOTFOUND after the last.  The page may be changed; it is valid until the next call. */
enum rq_err rq_overlay_walk_next(struct rq_overlay_walk *w, uint32_t *ret_pgno, uint8_t **ret_page);

#endif
