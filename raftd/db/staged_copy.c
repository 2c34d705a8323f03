#include "raftd/db/staged_copy.h"

#include <stdlib.h>
#include <string.h>

#include "raftd/db/staged.h"

#define BLOCK_BYTES (256u << 10)

struct rq_staged_copy {
    struct rq_disk *disk;
    struct rq_file *file;
    char *dir, *path; /* path: NULL once it has its name */
    uint8_t hash[RQ_BODY_HASH_BYTES];
    uint64_t body_bytes, at, begun; /* begun: see rq_staged_written() */
    bool resumes;
    bool broken; /* not what it should be: it cannot be resumed */
    struct rq_body_reader reader;
    bool reader_ready;
    size_t held; /* bytes of a piece that is not complete */
    uint8_t piece[RQ_BODY_PIECE_BYTES_MAX];
};

/* Checks bytes as they come, whole pieces where they lie. */
static enum rq_err check(struct rq_staged_copy *c, const uint8_t *data, size_t bytes)
{
    while (bytes > 0) {
        const size_t want = rq_body_reader_want(&c->reader);
        uint32_t pgno;
        if (want == 0) {
            return RQ_CORRUPT; /* longer than it may be */
        }
        const uint8_t *piece = data;
        size_t used = want;
        if (c->held > 0 || bytes < want) {
            used = bytes < want - c->held ? bytes : want - c->held;
            memcpy(c->piece + c->held, data, used);
            c->held += used;
            piece = c->piece;
        }
        data += used;
        bytes -= used;
        if (piece == c->piece && c->held < want) {
            return RQ_OK;
        }
        c->held = 0;
        enum rq_err err = rq_body_reader_take(&c->reader, piece, &pgno);
        if (err != RQ_OK) {
            return err;
        }
    }
    return RQ_OK;
}

static enum rq_err begin(struct rq_staged_copy *c)
{
    if (c->reader_ready) {
        rq_body_reader_fini(&c->reader);
    }
    c->at = c->begun = 0;
    c->held = 0;
    enum rq_err err = rq_body_reader_init(&c->reader, c->body_bytes);
    c->reader_ready = err == RQ_OK;
    return err;
}

/* What an earlier copy has left. */
static enum rq_err take_over(struct rq_staged_copy *c)
{
    uint8_t *block = malloc(BLOCK_BYTES);
    enum rq_err err = block == NULL ? RQ_NOMEM : RQ_OK;
    size_t n = BLOCK_BYTES;
    while (err == RQ_OK && n == BLOCK_BYTES) {
        err = c->disk->ops->read(c->file, block, BLOCK_BYTES, c->at, &n);
        if (err == RQ_OK) {
            err = check(c, block, n);
            c->at += n;
        }
    }
    free(block);
    if (err != RQ_CORRUPT && err != RQ_VERSION) {
        return err;
    }
    err = begin(c); /* from the first byte, over what is there */
    return err == RQ_OK ? c->disk->ops->truncate(c->file, 0) : err;
}

enum rq_err rq_staged_copy_new(struct rq_disk *disk, const char *dir, const uint8_t hash[RQ_BODY_HASH_BYTES],
                               uint64_t body_bytes, bool resumes, struct rq_staged_copy **ret_copy)
{
    struct rq_staged_copy *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return RQ_NOMEM;
    }
    c->disk = disk;
    c->body_bytes = body_bytes;
    c->resumes = resumes;
    memcpy(c->hash, hash, sizeof c->hash);
    c->dir = strdup(dir);
    c->path = resumes ? rq_staged_path(dir, RQ_STAGED_PART, hash) : rq_staged_temporary(dir);
    enum rq_err err = c->dir == NULL || c->path == NULL ? RQ_NOMEM : begin(c);
    if (err == RQ_OK && resumes) {
        err = disk->ops->open(disk, c->path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_NOFOLLOW, 0600, &c->file);
    } else if (err == RQ_OK) {
        err = rq_staged_open_new(disk, dir, c->path, &c->file);
    }
    if (err == RQ_OK && resumes) {
        err = take_over(c);
    }
    if (err != RQ_OK) {
        rq_staged_copy_free(c);
        return err;
    }
    *ret_copy = c;
    return RQ_OK;
}

uint64_t rq_staged_copy_at(const struct rq_staged_copy *c)
{
    return c->at;
}

enum rq_err rq_staged_copy_add(struct rq_staged_copy *c, const uint8_t *data, size_t bytes)
{
    enum rq_err err = check(c, data, bytes);
    c->broken = c->broken || err == RQ_CORRUPT || err == RQ_VERSION;
    if (err == RQ_OK) {
        err = c->disk->ops->write(c->file, data, bytes, c->at);
    }
    if (err == RQ_OK) {
        c->at += bytes;
        rq_staged_written(c->file, c->at, &c->begun);
    }
    return err;
}

enum rq_err rq_staged_copy_seal(struct rq_staged_copy *c)
{
    uint8_t hash[RQ_BODY_HASH_BYTES];
    if (rq_body_reader_want(&c->reader) > 0) {
        return RQ_CORRUPT;
    }
    rq_body_reader_hash(&c->reader, hash);
    if (memcmp(hash, c->hash, sizeof hash) != 0) {
        c->broken = true;
        return RQ_CORRUPT;
    }
    enum rq_err err = c->disk->ops->truncate(c->file, c->at); /* what is left of the spare */
    if (err == RQ_OK) {
        err = c->disk->ops->sync(c->file);
    }
    char *name = err == RQ_OK ? rq_staged_path(c->dir, "", c->hash) : NULL;
    if (err == RQ_OK) {
        err = name == NULL ? RQ_NOMEM : c->disk->ops->rename(c->disk, c->path, name);
    }
    free(name);
    if (err == RQ_OK) {
        free(c->path);
        c->path = NULL;
        err = c->disk->ops->sync_dir(c->disk, c->dir);
    }
    return err;
}

void rq_staged_copy_free(struct rq_staged_copy *c)
{
    if (c == NULL) {
        return;
    }
    if (c->file != NULL) {
        c->disk->ops->close(c->file);
        if (c->path != NULL && (c->broken || !c->resumes)) {
            (void)c->disk->ops->unlink(c->disk, c->path); /* the next start sweeps it */
        }
    }
    if (c->reader_ready) {
        rq_body_reader_fini(&c->reader);
    }
    free(c->path);
    free(c->dir);
    free(c);
}
