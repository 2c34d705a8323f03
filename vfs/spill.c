/* Spill: the first memory_max bytes lie in memory, those behind in the file, at their offset less memory_max.
 * Bytes below size that nobody wrote are zero. */
#include "vfs/spill.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MEMORY_FIRST 16384u  /* capacity of the first allocation */
#define MEMORY_KEPT  131072u /* memory_kept, unless its owner wants another */
#define NAME_TRIES   8

void rq_spill_init(struct rq_spill *s, struct rq_disk *disk, const char *dir, size_t memory_max)
{
    *s = (struct rq_spill){ .disk = disk, .dir = dir, .memory_max = memory_max, .memory_kept = MEMORY_KEPT };
}

static void drop_file(struct rq_spill *s)
{
    if (s->file != NULL) {
        s->disk->ops->close(s->file);
        s->file = NULL;
    }
}

void rq_spill_fini(struct rq_spill *s)
{
    if (s == NULL) {
        return;
    }
    drop_file(s);
    free(s->memory);
    s->memory = NULL;
    s->memory_bytes = s->memory_capacity = 0;
    s->size = 0;
}

/* A file without a name: nobody finds it, and a kill leaves nothing behind. */
static enum rq_err open_file(struct rq_spill *s)
{
    if (s->file != NULL) {
        return RQ_OK;
    }
    for (int i = 0; i < NAME_TRIES; i++) {
        uint64_t random[2];
        if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
            return RQ_IO;
        }
        char path[4096];
        int bytes = snprintf(path, sizeof path, "%s/rqvfs-%016llx%016llx", s->dir, (unsigned long long)random[0],
                             (unsigned long long)random[1]);
        if (bytes < 0 || (size_t)bytes >= sizeof path) {
            return RQ_TOOBIG;
        }
        struct rq_file *file;
        enum rq_err err = s->disk->ops->open(
            s->disk, path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_EXCLUSIVE | RQ_OPEN_NOFOLLOW, 0600, &file);
        if (err == RQ_EXISTS) {
            continue;
        }
        if (err != RQ_OK) {
            return err;
        }
        err = s->disk->ops->unlink(s->disk, path);
        if (err != RQ_OK) {
            s->disk->ops->close(file);
            return err;
        }
        s->file = file;
        return RQ_OK;
    }
    return RQ_EXISTS;
}

/* Makes the first `bytes` (at most memory_max) of the content addressable, zeros where there was nothing.  Those from `filled` on
 * are about to be written. */
static enum rq_err grow_memory(struct rq_spill *s, size_t filled, size_t bytes)
{
    if (bytes <= s->memory_bytes) {
        return RQ_OK;
    }
    if (bytes > s->memory_capacity) {
        size_t capacity = s->memory_capacity > 0 ? s->memory_capacity : MEMORY_FIRST;
        while (capacity < bytes) {
            capacity *= 2;
        }
        if (capacity > s->memory_max) {
            capacity = s->memory_max;
        }
        uint8_t *memory = realloc(s->memory, capacity);
        if (memory == NULL) {
            return RQ_NOMEM;
        }
        s->memory = memory;
        s->memory_capacity = capacity;
    }
    if (filled > s->memory_bytes) {
        memset(s->memory + s->memory_bytes, 0, filled - s->memory_bytes);
    }
    s->memory_bytes = bytes;
    return RQ_OK;
}

enum rq_err rq_spill_write(struct rq_spill *s, const void *data, size_t bytes, uint64_t offset)
{
    if (offset > UINT64_MAX / 2 || bytes > UINT32_MAX) {
        return RQ_TOOBIG;
    }
    const uint8_t *from = data;
    uint64_t end = offset + bytes;
    size_t in_memory = offset >= s->memory_max ? 0 : (size_t)(s->memory_max - offset);
    if (in_memory > bytes) {
        in_memory = bytes;
    }
    enum rq_err err = RQ_OK;
    if (in_memory > 0) {
        err = grow_memory(s, (size_t)offset, (size_t)offset + in_memory);
        if (err == RQ_OK) {
            memcpy(s->memory + offset, from, in_memory);
        }
    }
    if (err == RQ_OK && in_memory < bytes) {
        err = open_file(s);
        if (err == RQ_OK) {
            err = s->disk->ops->write(s->file, from + in_memory, bytes - in_memory, offset + in_memory - s->memory_max);
        }
    }
    if (err == RQ_OK && end > s->size) {
        s->size = end;
    }
    return err;
}

enum rq_err rq_spill_read(struct rq_spill *s, void *data, size_t bytes, uint64_t offset, size_t *ret_bytes)
{
    if (offset >= s->size) {
        *ret_bytes = 0;
        return RQ_OK;
    }
    if (bytes > s->size - offset) {
        bytes = (size_t)(s->size - offset);
    }
    uint8_t *to = data;
    size_t done = 0;
    if (offset < s->memory_bytes) {
        done = s->memory_bytes - (size_t)offset < bytes ? s->memory_bytes - (size_t)offset : bytes;
        memcpy(to, s->memory + offset, done);
    }
    /* Between what is in memory and the beginning of the file: never written. */
    size_t hole_end = offset + done < s->memory_max ? (size_t)(s->memory_max - offset) : done;
    if (hole_end > bytes) {
        hole_end = bytes;
    }
    memset(to + done, 0, hole_end - done);
    done = hole_end;
    if (done < bytes) {
        size_t got = 0;
        if (s->file != NULL) {
            enum rq_err err = s->disk->ops->read(s->file, to + done, bytes - done, offset + done - s->memory_max, &got);
            if (err != RQ_OK) {
                return err;
            }
        }
        memset(to + done + got, 0, bytes - done - got);
    }
    *ret_bytes = bytes;
    return RQ_OK;
}

const uint8_t *rq_spill_at(const struct rq_spill *s, uint64_t offset, size_t bytes)
{
    return offset <= s->memory_bytes && bytes <= s->memory_bytes - offset ? s->memory + offset : NULL;
}

void rq_spill_truncate(struct rq_spill *s, uint64_t size)
{
    if (size >= s->size) {
        return;
    }
    s->size = size;
    if (s->memory_bytes > size) {
        s->memory_bytes = (size_t)size;
    }
    if (size <= s->memory_max) {
        drop_file(s); /* gives its space back */
    } else if (s->file != NULL) {
        (void)s->disk->ops->truncate(s->file,
                                     size - s->memory_max); /* only to give space back: nothing is read past size */
    }
    if (size == 0 && s->memory_capacity > s->memory_kept) {
        free(s->memory);
        s->memory = NULL;
        s->memory_capacity = 0;
    }
}
