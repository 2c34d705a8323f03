#include "raftd/log/segment.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES_MAX   4096u
#define ALIGN_BYTES      4096u
#define FILL_CHUNK_BYTES (256u << 10)

static enum rq_err file_path(const struct rq_log_dir *dir, uint64_t id, char path[PATH_BYTES_MAX])
{
    int n = snprintf(path, PATH_BYTES_MAX, "%s/%08" PRIx64 ".seg", dir->path, id);
    return n < (int)PATH_BYTES_MAX ? RQ_OK : RQ_TOOBIG;
}

static struct rq_log_segment *segment_new(uint64_t id, uint64_t bytes)
{
    struct rq_log_segment *s = calloc(1, sizeof *s);
    if (s != NULL) {
        s->id = id;
        s->bytes = bytes;
    }
    return s;
}

static enum rq_err fill_with_zeros(struct rq_file *f, uint64_t bytes)
{
    uint8_t *zeros = calloc(1, FILL_CHUNK_BYTES);
    if (zeros == NULL) {
        return RQ_NOMEM;
    }
    enum rq_err err = f->disk->ops->reserve(f, 0, bytes);
    for (uint64_t at = 0; err == RQ_OK && at < bytes; at += FILL_CHUNK_BYTES) {
        size_t n = bytes - at < FILL_CHUNK_BYTES ? (size_t)(bytes - at) : FILL_CHUNK_BYTES;
        err = f->disk->ops->write(f, zeros, n, at);
    }
    free(zeros);
    return err;
}

enum rq_err rq_log_segment_make(struct rq_log_dir *dir, uint64_t bytes, struct rq_log_segment **ret_segment)
{
    char path[PATH_BYTES_MAX], name[PATH_BYTES_MAX];
    uint64_t id = ++dir->id_last;
    enum rq_err err = file_path(dir, id, name);
    if (err != RQ_OK || snprintf(path, sizeof path, "%s/new", dir->path) >= (int)sizeof path) {
        return RQ_TOOBIG;
    }
    struct rq_log_segment *s = segment_new(id, bytes);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    err = dir->disk->ops->open(dir->disk, path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_NOFOLLOW, 0600, &s->reader);
    if (err != RQ_OK) {
        goto undo_segment;
    }
    uint8_t sector[RQ_LOG_SECTOR_BYTES];
    rq_log_put_segment_head(sector,
                            &(struct rq_log_segment_head){ .spare = true, .instance = dir->instance, .bytes = bytes });
    err = s->reader->disk->ops->truncate(s->reader, 0); /* a life before may have died in here */
    err = err == RQ_OK ? fill_with_zeros(s->reader, bytes) : err;
    err = err == RQ_OK ? s->reader->disk->ops->write(s->reader, sector, sizeof sector, 0) : err;
    err = err == RQ_OK ? s->reader->disk->ops->sync(s->reader) : err;
    err = err == RQ_OK ? dir->disk->ops->rename(dir->disk, path, name) : err;
    if (err != RQ_OK) {
        (void)dir->disk->ops->unlink(dir->disk, path); /* gives the space back; the next attempt would, too */
        goto undo_segment;
    }
    err = dir->disk->ops->sync_dir(dir->disk, dir->path);
    err = err == RQ_OK ? rq_log_segment_open_writer(dir, s) : err;
    if (err == RQ_OK) {
        *ret_segment = s;
        return RQ_OK;
    }
undo_segment:
    rq_log_segment_free(s);
    return err;
}

enum rq_err rq_log_segment_open(struct rq_log_dir *dir, uint64_t id, struct rq_log_segment **ret_segment,
                                struct rq_log_segment_head *ret_head)
{
    char path[PATH_BYTES_MAX];
    enum rq_err err = file_path(dir, id, path);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_log_segment *s = segment_new(id, 0);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    uint8_t sector[RQ_LOG_SECTOR_BYTES];
    size_t n = 0;
    struct rq_file_info info;
    err = dir->disk->ops->open(dir->disk, path, RQ_OPEN_READ | RQ_OPEN_NOFOLLOW, 0, &s->reader);
    err = err == RQ_OK ? dir->disk->ops->info(s->reader, &info) : err;
    err = err == RQ_OK ? dir->disk->ops->read(s->reader, sector, sizeof sector, 0, &n) : err;
    if (err == RQ_OK) {
        err = n == sizeof sector ? rq_log_get_segment_head(sector, ret_head) : RQ_CORRUPT;
    }
    if (err == RQ_OK && ret_head->instance != dir->instance) {
        err = RQ_FOREIGN;
    }
    if (err == RQ_OK && (ret_head->bytes < RQ_LOG_SEGMENT_BYTES_MIN || ret_head->bytes > RQ_LOG_SEGMENT_BYTES_MAX ||
                         ret_head->bytes % RQ_LOG_SECTOR_BYTES != 0 || info.size < ret_head->bytes)) {
        err = RQ_CORRUPT;
    }
    if (err != RQ_OK) {
        rq_log_segment_free(s);
        return err;
    }
    s->number = ret_head->number;
    s->bytes = ret_head->bytes;
    *ret_segment = s;
    return RQ_OK;
}

enum rq_err rq_log_segment_open_writer(struct rq_log_dir *dir, struct rq_log_segment *s)
{
    char path[PATH_BYTES_MAX];
    if (s->writer != NULL) {
        return RQ_OK;
    }
    enum rq_err err = file_path(dir, s->id, path);
    int flags = RQ_OPEN_WRITE | RQ_OPEN_DSYNC | RQ_OPEN_NOFOLLOW;
    return err == RQ_OK ? dir->disk->ops->open(dir->disk, path, flags, 0, &s->writer) : err;
}

void rq_log_segment_close_writer(struct rq_log_segment *s)
{
    if (s->writer != NULL) {
        s->writer->disk->ops->close(s->writer);
        s->writer = NULL;
    }
}

enum rq_err rq_log_segment_put_head(struct rq_log_dir *dir, struct rq_log_segment *s,
                                    const struct rq_log_segment_head *head)
{
    uint8_t *sector = aligned_alloc(ALIGN_BYTES, ALIGN_BYTES);
    if (sector == NULL) {
        return RQ_NOMEM;
    }
    rq_log_put_segment_head(sector, head);
    enum rq_err err = rq_log_segment_open_writer(dir, s);
    err = err == RQ_OK ? s->writer->disk->ops->write(s->writer, sector, RQ_LOG_SECTOR_BYTES, 0) : err;
    free(sector);
    return err;
}

enum rq_err rq_log_segment_remove(struct rq_log_dir *dir, struct rq_log_segment *s)
{
    char path[PATH_BYTES_MAX];
    enum rq_err err = file_path(dir, s->id, path);
    rq_log_segment_free(s);
    return err == RQ_OK ? dir->disk->ops->unlink(dir->disk, path) : err;
}

void rq_log_segment_free(struct rq_log_segment *s)
{
    if (s == NULL) {
        return;
    }
    rq_log_segment_close_writer(s);
    if (s->reader != NULL) {
        s->reader->disk->ops->close(s->reader);
    }
    free(s);
}
