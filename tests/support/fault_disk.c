#include "tests/support/fault_disk.h"

#include <stdlib.h>
#include <string.h>

struct fault_file {
    struct rq_file file; /* first */
    struct rq_file *below;
    struct rq_file *lazy; /* the same file without DSYNC, if below has it and somebody lies */
    char *path;
};

static struct fault_disk *disk_of(struct rq_disk *d)
{
    return (struct fault_disk *)d;
}

static struct rq_file *below(struct rq_file *f)
{
    return ((struct fault_file *)f)->below;
}

/* Counts the call; what it has to fail with, or OK. */
static enum rq_err fault(struct rq_disk *d, enum fault_kind kind)
{
    struct fault_disk *f = disk_of(d);
    f->calls[kind]++;
    if ((f->kinds & FAULT_BIT(kind)) == 0) {
        return RQ_OK;
    }
    if (f->countdown > 0) {
        f->countdown--;
        f->hit = f->countdown == 0;
        return f->hit ? f->err : RQ_OK;
    }
    return f->hit && f->stays ? f->err : RQ_OK;
}

static bool lies(struct rq_disk *d, enum fault_kind kind, const char *path)
{
    struct fault_disk *f = disk_of(d);
    return f->lies != NULL && f->lies(f->lies_ctx, kind, path);
}

static enum rq_err fault_open(struct rq_disk *d, const char *path, int flags, unsigned mode, struct rq_file **ret_file)
{
    enum rq_err err = fault(d, FAULT_OPEN);
    struct rq_disk *disk = disk_of(d)->below;
    struct fault_file *f = calloc(1, sizeof *f);
    if (f == NULL) {
        return RQ_NOMEM;
    }
    f->path = strdup(path);
    if (f->path == NULL) {
        free(f);
        return RQ_NOMEM;
    }
    err = err == RQ_OK ? disk->ops->open(disk, path, flags, mode, &f->below) : err;
    if (err == RQ_OK && (flags & RQ_OPEN_DSYNC) != 0 && disk_of(d)->lies != NULL) {
        err = disk->ops->open(disk, path, RQ_OPEN_WRITE, 0, &f->lazy);
        if (err != RQ_OK) {
            disk->ops->close(f->below);
        }
    }
    if (err != RQ_OK) {
        free(f->path);
        free(f);
        return err;
    }
    f->file.disk = d;
    *ret_file = &f->file;
    return RQ_OK;
}

static void fault_close(struct rq_file *f)
{
    struct fault_file *file = (struct fault_file *)f;
    file->below->disk->ops->close(file->below);
    if (file->lazy != NULL) {
        file->lazy->disk->ops->close(file->lazy);
    }
    free(file->path);
    free(file);
}

static enum rq_err fault_read(struct rq_file *f, void *data, size_t bytes, uint64_t offset, size_t *ret_bytes)
{
    enum rq_err err = fault(f->disk, FAULT_READ);
    return err == RQ_OK ? below(f)->disk->ops->read(below(f), data, bytes, offset, ret_bytes) : err;
}

static enum rq_err fault_writev(struct rq_file *f, struct iovec *parts, int part_count, uint64_t offset)
{
    enum rq_err err = fault(f->disk, FAULT_WRITE);
    struct fault_file *file = (struct fault_file *)f;
    if (err == RQ_OK) {
        struct rq_file *to = file->lazy != NULL && lies(f->disk, FAULT_WRITE, file->path) ? file->lazy : file->below;
        return to->disk->ops->writev(to, parts, part_count, offset);
    }
    size_t left = disk_of(f->disk)->partial_bytes;
    for (int i = 0; i < part_count && left > 0; i++) {
        size_t n = parts[i].iov_len < left ? parts[i].iov_len : left;
        (void)below(f)->disk->ops->write(below(f), parts[i].iov_base, n, offset); /* the call fails anyway */
        offset += n;
        left -= n;
    }
    return err;
}

static enum rq_err fault_write(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    struct iovec part = { (void *)(uintptr_t)data, bytes };
    return fault_writev(f, &part, 1, offset);
}

static enum rq_err fault_sync(struct rq_file *f)
{
    enum rq_err err = fault(f->disk, FAULT_SYNC);
    if (err == RQ_OK && lies(f->disk, FAULT_SYNC, ((struct fault_file *)f)->path)) {
        return RQ_OK;
    }
    return err == RQ_OK ? below(f)->disk->ops->sync(below(f)) : err;
}

static void fault_begin_sync(struct rq_file *f, uint64_t offset, uint64_t bytes)
{
    below(f)->disk->ops->begin_sync(below(f), offset, bytes);
}

static enum rq_err fault_truncate(struct rq_file *f, uint64_t size)
{
    enum rq_err err = fault(f->disk, FAULT_TRUNCATE);
    return err == RQ_OK ? below(f)->disk->ops->truncate(below(f), size) : err;
}

static enum rq_err fault_reserve(struct rq_file *f, uint64_t offset, uint64_t bytes)
{
    enum rq_err err = fault(f->disk, FAULT_RESERVE);
    return err == RQ_OK ? below(f)->disk->ops->reserve(below(f), offset, bytes) : err;
}

static enum rq_err fault_info(struct rq_file *f, struct rq_file_info *ret_info)
{
    enum rq_err err = fault(f->disk, FAULT_INFO);
    return err == RQ_OK ? below(f)->disk->ops->info(below(f), ret_info) : err;
}

static enum rq_err fault_lock(struct rq_file *f, uint64_t offset, uint64_t bytes, enum rq_lock kind)
{
    enum rq_err err = kind == RQ_UNLOCKED ? RQ_OK : fault(f->disk, FAULT_LOCK);
    return err == RQ_OK ? below(f)->disk->ops->lock(below(f), offset, bytes, kind) : err;
}

static enum rq_err fault_lock_test(struct rq_file *f, uint64_t offset, uint64_t bytes, bool *ret_taken)
{
    enum rq_err err = fault(f->disk, FAULT_LOCK);
    return err == RQ_OK ? below(f)->disk->ops->lock_test(below(f), offset, bytes, ret_taken) : err;
}

static enum rq_err fault_map(struct rq_file *f, uint64_t offset, size_t bytes, void **ret_memory)
{
    enum rq_err err = fault(f->disk, FAULT_MAP);
    return err == RQ_OK ? below(f)->disk->ops->map(below(f), offset, bytes, ret_memory) : err;
}

static void fault_unmap(struct rq_file *f, void *memory, size_t bytes)
{
    below(f)->disk->ops->unmap(below(f), memory, bytes);
}

static enum rq_err fault_rename(struct rq_disk *d, const char *from, const char *to)
{
    enum rq_err err = fault(d, FAULT_RENAME);
    return err == RQ_OK ? disk_of(d)->below->ops->rename(disk_of(d)->below, from, to) : err;
}

static enum rq_err fault_unlink(struct rq_disk *d, const char *path)
{
    enum rq_err err = fault(d, FAULT_UNLINK);
    return err == RQ_OK ? disk_of(d)->below->ops->unlink(disk_of(d)->below, path) : err;
}

static enum rq_err fault_mkdir(struct rq_disk *d, const char *path, unsigned mode)
{
    enum rq_err err = fault(d, FAULT_MKDIR);
    return err == RQ_OK ? disk_of(d)->below->ops->mkdir(disk_of(d)->below, path, mode) : err;
}

static enum rq_err fault_sync_dir(struct rq_disk *d, const char *path)
{
    enum rq_err err = fault(d, FAULT_SYNC_DIR);
    if (err == RQ_OK && lies(d, FAULT_SYNC_DIR, path)) {
        return RQ_OK;
    }
    return err == RQ_OK ? disk_of(d)->below->ops->sync_dir(disk_of(d)->below, path) : err;
}

static enum rq_err fault_stat(struct rq_disk *d, const char *path, struct rq_file_info *ret_info)
{
    enum rq_err err = fault(d, FAULT_INFO);
    return err == RQ_OK ? disk_of(d)->below->ops->stat(disk_of(d)->below, path, ret_info) : err;
}

static enum rq_err fault_list(struct rq_disk *d, const char *path, enum rq_err (*name_cb)(void *ctx, const char *name),
                              void *ctx)
{
    enum rq_err err = fault(d, FAULT_INFO);
    return err == RQ_OK ? disk_of(d)->below->ops->list(disk_of(d)->below, path, name_cb, ctx) : err;
}

static enum rq_err fault_space(struct rq_disk *d, const char *path, uint64_t *ret_free_bytes)
{
    enum rq_err err = fault(d, FAULT_INFO);
    return err == RQ_OK ? disk_of(d)->below->ops->space(disk_of(d)->below, path, ret_free_bytes) : err;
}

static const struct rq_disk_ops fault_ops = {
    .open = fault_open,
    .close = fault_close,
    .read = fault_read,
    .write = fault_write,
    .writev = fault_writev,
    .sync = fault_sync,
    .begin_sync = fault_begin_sync,
    .truncate = fault_truncate,
    .reserve = fault_reserve,
    .info = fault_info,
    .lock = fault_lock,
    .lock_test = fault_lock_test,
    .map = fault_map,
    .unmap = fault_unmap,
    .rename = fault_rename,
    .unlink = fault_unlink,
    .mkdir = fault_mkdir,
    .sync_dir = fault_sync_dir,
    .stat = fault_stat,
    .list = fault_list,
    .space = fault_space,
};

void fault_disk_init(struct fault_disk *f, struct rq_disk *below_disk)
{
    *f = (struct fault_disk){ .disk = { &fault_ops }, .below = below_disk };
}

void fault_disk_arm(struct fault_disk *f, unsigned kinds, uint64_t nth, enum rq_err err)
{
    f->kinds = kinds;
    f->countdown = nth;
    f->err = err;
    f->hit = false;
}
