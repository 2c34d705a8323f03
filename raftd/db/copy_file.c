#include "raftd/db/copy_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "raftd/wire/txn.h"

enum rq_err rq_copy_file_open(struct rq_copy_file *c, struct rq_disk *disk, const char *dir, uint32_t id,
                              uint32_t page_size)
{
    c->disk = disk;
    c->page_size = page_size;
    if (asprintf(&c->path, "%s/%" PRIu32, dir, id) < 0) {
        c->path = NULL;
        return RQ_NOMEM;
    }
    return disk->ops->open(disk, c->path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_NOFOLLOW, 0600, &c->file);
}

void rq_copy_file_close(struct rq_copy_file *c)
{
    if (c->file != NULL) {
        c->disk->ops->close(c->file);
    }
    free(c->path);
    rq_page_set_fini(&c->pages);
    *c = (struct rq_copy_file){ 0 };
}

void rq_copy_file_remove(struct rq_copy_file *c)
{
    if (c->file != NULL) {
        (void)c->disk->ops->unlink(c->disk, c->path); /* the next sweep finds it */
    }
    rq_copy_file_close(c);
}

/* --- pages --------------------------------------------------------------------------------------------------------------- */

static uint64_t offset_of(const struct rq_copy_file *c, uint32_t pgno)
{
    return (uint64_t)(pgno - 1) * c->page_size;
}

enum rq_err rq_copy_file_find(struct rq_copy_file *c, uint32_t pgno, uint64_t hash, uint8_t *page, bool *ret_found)
{
    size_t got;
    *ret_found = false;
    enum rq_err err = c->disk->ops->read(c->file, page, c->page_size, offset_of(c, pgno), &got);
    if (err == RQ_OK && got == c->page_size && rq_page_hash(page, c->page_size) == hash) {
        *ret_found = true;
        err = rq_page_set_put(&c->pages, pgno);
    }
    return err;
}

enum rq_err rq_copy_file_put(struct rq_copy_file *c, const uint32_t *pgnos, uint32_t count, const uint8_t *pages)
{
    enum rq_err err = RQ_OK;
    for (uint32_t i = 0; err == RQ_OK && i < count;) {
        uint32_t run = 1;
        while (i + run < count && pgnos[i + run] == pgnos[i] + run) {
            run++;
        }
        err = rq_trickle_write(&c->trickle, c->file, pages + (size_t)i * c->page_size, (size_t)run * c->page_size,
                               offset_of(c, pgnos[i]));
        for (uint32_t k = 0; err == RQ_OK && k < run; k++) {
            err = rq_page_set_put(&c->pages, pgnos[i] + k);
        }
        i += run;
    }
    return err;
}

enum rq_err rq_copy_file_get(struct rq_copy_file *c, uint32_t pgno, uint8_t *page)
{
    size_t got;
    enum rq_err err = c->disk->ops->read(c->file, page, c->page_size, offset_of(c, pgno), &got);
    return err == RQ_OK && got != c->page_size ? RQ_IO : err;
}

/* --- sweep --------------------------------------------------------------------------------------------------------------- */

struct sweep {
    struct rq_disk *disk;
    const char *dir;
};

static enum rq_err sweep_one(void *ctx, const char *name)
{
    const struct sweep *s = ctx;
    char *path;
    if (asprintf(&path, "%s/%s", s->dir, name) < 0) {
        return RQ_NOMEM;
    }
    enum rq_err err = s->disk->ops->unlink(s->disk, path);
    free(path);
    return err == RQ_NOTFOUND ? RQ_OK : err;
}

enum rq_err rq_copy_file_sweep(struct rq_disk *disk, const char *dir)
{
    struct sweep s = { disk, dir };
    return disk->ops->list(disk, dir, sweep_one, &s);
}
