/* Spill: bytes by offset, in memory up to a limit, past it in an unlinked temporary file.
 * Serves as SQLite's rollback journal and, with a map from page number to place, as the overlay (overlay.h). */
#ifndef VFS_SPILL_H
#define VFS_SPILL_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/disk.h"

struct rq_spill {
    struct rq_disk *disk; /* borrows */
    const char *dir;      /* borrows: where the temporary file goes */
    uint8_t *memory;      /* owns: the first memory_bytes of the content */
    size_t memory_bytes, memory_capacity, memory_max;
    size_t memory_kept;   /* so much stays allocated for the next use */
    struct rq_file *file; /* owns: the rest; NULL until needed */
    uint64_t size;
};

void rq_spill_init(struct rq_spill *s, struct rq_disk *disk, const char *dir, size_t memory_max);
void rq_spill_fini(struct rq_spill *s);
enum rq_err rq_spill_write(struct rq_spill *s, const void *data, size_t bytes, uint64_t offset);
enum rq_err rq_spill_read(struct rq_spill *s, void *data, size_t bytes, uint64_t offset, size_t *ret_bytes);
/* The bytes themselves, if all of them lie in memory, else NULL; good until the next write or truncate. */
const uint8_t *rq_spill_at(const struct rq_spill *s, uint64_t offset, size_t bytes);
/* Shorter, never longer; 0 keeps a small buffer for the next use.  What lay behind may show again if a later write leaves a hole
 * there: neither a journal nor an overlay does. */
void rq_spill_truncate(struct rq_spill *s, uint64_t size);

#endif
