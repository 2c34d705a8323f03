#include "raftd/db/staged.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/wire/bytes.h"

#define NAMES_BYTES_MAX (16u << 20)
#define WINDOW_BYTES    (256u << 10)
#define BEGIN_BYTES     (4u << 20)
#define SPARE_BYTES_MAX (256u << 20)
#define SPARE_NAME      "spare"

struct rq_staged {
    struct rq_disk *disk;
    struct rq_file *file;
    struct rq_body_writer writer;
    bool writer_ready;
    char *dir, *path;     /* path: of the temporary file, NULL once sealed */
    uint64_t size, begun; /* of it, see rq_staged_written() */
    bool ended;           /* the tail is written */
    uint8_t tail[RQ_BODY_TAIL_BYTES];
};

struct rq_staged_reader {
    struct rq_file *file;
    struct rq_entry_staged entry;
    struct rq_body_reader body;
    uint64_t next;     /* of the file, behind the window */
    size_t begin, end; /* of the window: what was read and not given */
    uint8_t window[WINDOW_BYTES];
};

_Static_assert(WINDOW_BYTES >= RQ_BODY_PIECE_BYTES_MAX, "a piece fits");

static atomic_uint serial;

static char *spare_of(const char *dir)
{
    char *path;
    return asprintf(&path, "%s/" SPARE_NAME, dir) < 0 ? NULL : path;
}

char *rq_staged_path(const char *dir, const char *prefix, const uint8_t hash[RQ_BODY_HASH_BYTES])
{
    char hex[2 * RQ_BODY_HASH_BYTES + 1], *path;
    for (size_t i = 0; i < RQ_BODY_HASH_BYTES; i++) {
        (void)snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    }
    return asprintf(&path, "%s/%s%s", dir, prefix, hex) < 0 ? NULL : path;
}

static char *path_of(const char *dir, const uint8_t hash[RQ_BODY_HASH_BYTES])
{
    return rq_staged_path(dir, "", hash);
}

char *rq_staged_temporary(const char *dir)
{
    char *path;
    return asprintf(&path, "%s/tmp-%u", dir, atomic_fetch_add(&serial, 1)) < 0 ? NULL : path;
}

enum rq_err rq_staged_open_new(struct rq_disk *disk, const char *dir, const char *path, struct rq_file **ret_file)
{
    char *spare = spare_of(dir);
    if (spare == NULL) {
        return RQ_NOMEM;
    }
    enum rq_err err = disk->ops->rename(disk, spare, path);
    free(spare);
    if (err != RQ_OK && err != RQ_NOTFOUND) {
        return err;
    }
    return disk->ops->open(disk, path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_NOFOLLOW, 0600, ret_file);
}

void rq_staged_written(struct rq_file *file, uint64_t size, uint64_t *begun)
{
    if (size - *begun >= BEGIN_BYTES) {
        file->disk->ops->begin_sync(file, *begun, size - *begun);
        *begun = size;
    }
}

/* --- writing ---------------------------------------------------------------------------------------------------------- */

static enum rq_err append(struct rq_staged *s, const uint8_t *data, size_t bytes)
{
    enum rq_err err = s->disk->ops->write(s->file, data, bytes, s->size);
    if (err == RQ_OK) {
        s->size += bytes;
        rq_staged_written(s->file, s->size, &s->begun);
    }
    return err;
}

enum rq_err rq_staged_new(struct rq_disk *disk, const char *dir, const struct rq_body_head *head,
                          struct rq_staged **ret_staged)
{
    uint8_t head_bytes[RQ_BODY_HEAD_BYTES];
    struct rq_staged *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    s->disk = disk;
    s->dir = strdup(dir);
    s->path = rq_staged_temporary(dir);
    enum rq_err err = s->dir == NULL || s->path == NULL ? RQ_NOMEM : rq_body_writer_init(&s->writer, head, head_bytes);
    if (err == RQ_OK) {
        s->writer_ready = true;
        err = rq_staged_open_new(disk, dir, s->path, &s->file);
    }
    if (err == RQ_OK) {
        err = append(s, head_bytes, sizeof head_bytes);
    }
    if (err != RQ_OK) {
        rq_staged_free(s);
        return err;
    }
    *ret_staged = s;
    return RQ_OK;
}

enum rq_err rq_staged_add(struct rq_staged *s, const uint8_t *records, size_t bytes)
{
    enum rq_err err = rq_body_writer_pages(&s->writer, records, bytes);
    return err == RQ_OK ? append(s, records, bytes) : err;
}

uint32_t rq_staged_page_count(const struct rq_staged *s)
{
    return s->writer.page_count;
}

enum rq_err rq_staged_end(struct rq_staged *s, uint8_t ret_hash[RQ_BODY_HASH_BYTES], uint64_t *ret_bytes)
{
    enum rq_err err = RQ_OK;
    if (!s->ended) {
        rq_body_writer_end(&s->writer, s->tail);
        err = append(s, s->tail, sizeof s->tail);
        if (err == RQ_OK) {
            err = s->disk->ops->truncate(s->file, s->size); /* what is left of the spare */
        }
        s->ended = err == RQ_OK;
    }
    memcpy(ret_hash, s->tail + sizeof s->tail - RQ_BODY_HASH_BYTES, RQ_BODY_HASH_BYTES);
    *ret_bytes = s->size;
    return err;
}

enum rq_err rq_staged_reopen(struct rq_staged *s, struct rq_file **ret_file)
{
    return s->disk->ops->open(s->disk, s->path, RQ_OPEN_READ | RQ_OPEN_NOFOLLOW, 0, ret_file);
}

enum rq_err rq_staged_seal(struct rq_staged *s, uint8_t ret_hash[RQ_BODY_HASH_BYTES], uint64_t *ret_bytes)
{
    enum rq_err err = rq_staged_end(s, ret_hash, ret_bytes);
    if (err == RQ_OK) {
        err = s->disk->ops->sync(s->file);
    }
    if (err != RQ_OK) {
        return err;
    }
    char *path = path_of(s->dir, ret_hash);
    if (path == NULL) {
        return RQ_NOMEM;
    }
    err = s->disk->ops->rename(s->disk, s->path, path);
    free(path);
    if (err == RQ_OK) {
        free(s->path);
        s->path = NULL;
        err = s->disk->ops->sync_dir(s->disk, s->dir);
    }
    return err;
}

void rq_staged_free(struct rq_staged *s)
{
    if (s == NULL) {
        return;
    }
    if (s->file != NULL) {
        s->disk->ops->close(s->file);
        if (s->path != NULL) {
            (void)s->disk->ops->unlink(s->disk, s->path); /* the next start sweeps it */
        }
    }
    if (s->writer_ready) {
        rq_body_writer_fini(&s->writer);
    }
    free(s->path);
    free(s->dir);
    free(s);
}

/* --- reading ---------------------------------------------------------------------------------------------------------- */

/* The next piece that the body's reader wants; it stays where it is until the next one. */
static enum rq_err next_piece(struct rq_staged_reader *r, size_t bytes, const uint8_t **ret_piece)
{
    if (r->end - r->begin < bytes) {
        memmove(r->window, r->window + r->begin, r->end - r->begin);
        r->end -= r->begin;
        r->begin = 0;
        const uint64_t left = r->entry.body_bytes - r->next;
        const size_t room = sizeof r->window - r->end, wanted = left < room ? (size_t)left : room;
        size_t n;
        enum rq_err err = r->file->disk->ops->read(r->file, r->window + r->end, wanted, r->next, &n);
        if (err != RQ_OK) {
            return err;
        }
        r->next += n;
        r->end += n;
        if (r->end < bytes) {
            return RQ_CORRUPT; /* shorter than the entry says */
        }
    }
    *ret_piece = r->window + r->begin;
    r->begin += bytes;
    return RQ_OK;
}

/* From the beginning: the head, which has to be what the entry says. */
static enum rq_err begin(struct rq_staged_reader *r)
{
    const uint8_t *piece;
    uint32_t pgno;
    r->next = 0;
    r->begin = r->end = 0;
    enum rq_err err = rq_body_reader_init(&r->body, r->entry.body_bytes);
    if (err != RQ_OK) {
        return err;
    }
    err = next_piece(r, rq_body_reader_want(&r->body), &piece);
    if (err == RQ_OK) {
        err = rq_body_reader_take(&r->body, piece, &pgno);
    }
    if (err == RQ_OK &&
        (r->body.head.page_size != r->entry.head.page_size || r->body.head.db_page_count != r->entry.head.page_count)) {
        err = RQ_CORRUPT;
    }
    if (err != RQ_OK) {
        rq_body_reader_fini(&r->body);
    }
    return err;
}

enum rq_err rq_staged_open(struct rq_disk *disk, const char *dir, const struct rq_entry_staged *entry,
                           struct rq_staged_reader **ret_reader)
{
    struct rq_staged_reader *r = malloc(sizeof *r);
    char *path = path_of(dir, entry->hash);
    enum rq_err err = RQ_NOMEM;
    if (r != NULL && path != NULL) {
        r->entry = *entry;
        err = disk->ops->open(disk, path, RQ_OPEN_READ | RQ_OPEN_NOFOLLOW, 0, &r->file);
        if (err == RQ_OK) {
            err = begin(r);
            if (err != RQ_OK) {
                disk->ops->close(r->file);
            }
        }
    }
    free(path);
    if (err != RQ_OK) {
        free(r);
        return err;
    }
    *ret_reader = r;
    return RQ_OK;
}

enum rq_err rq_staged_open_file(struct rq_disk *disk, const char *dir, const uint8_t hash[RQ_BODY_HASH_BYTES],
                                uint64_t body_bytes, struct rq_file **ret_file)
{
    char *path = path_of(dir, hash);
    struct rq_file_info info;
    enum rq_err err =
        path == NULL ? RQ_NOMEM : disk->ops->open(disk, path, RQ_OPEN_READ | RQ_OPEN_NOFOLLOW, 0, ret_file);
    free(path);
    if (err != RQ_OK) {
        return err;
    }
    err = disk->ops->info(*ret_file, &info);
    if (err == RQ_OK && info.size != body_bytes) {
        err = RQ_NOTFOUND;
    }
    if (err != RQ_OK) {
        disk->ops->close(*ret_file);
    }
    return err;
}

enum rq_err rq_staged_next(struct rq_staged_reader *r, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    size_t want;
    while ((want = rq_body_reader_want(&r->body)) > 0) {
        const uint8_t *piece;
        enum rq_err err = next_piece(r, want, &piece);
        if (err == RQ_OK) {
            err = rq_body_reader_take(&r->body, piece, ret_pgno);
        }
        if (err != RQ_OK) {
            return err;
        }
        if (*ret_pgno != 0) {
            *ret_page = piece + RQ_BODY_PAGE_HEAD_BYTES;
            return RQ_OK;
        }
    }
    uint8_t hash[RQ_BODY_HASH_BYTES];
    rq_body_reader_hash(&r->body, hash);
    return memcmp(hash, r->entry.hash, sizeof hash) == 0 ? RQ_NOTFOUND : RQ_CORRUPT;
}

enum rq_err rq_staged_rewind(struct rq_staged_reader *r)
{
    rq_body_reader_fini(&r->body);
    return begin(r);
}

void rq_staged_close(struct rq_staged_reader *r)
{
    if (r != NULL) {
        r->file->disk->ops->close(r->file);
        rq_body_reader_fini(&r->body);
        free(r);
    }
}

/* --- deleting --------------------------------------------------------------------------------------------------------- */

enum rq_err rq_staged_set_aside(struct rq_disk *disk, const char *dir, const uint8_t hash[RQ_BODY_HASH_BYTES],
                                bool spare, char **ret_rest)
{
    char *path = path_of(dir, hash), *to = NULL;
    struct rq_file_info info;
    enum rq_err err = path == NULL ? RQ_NOMEM : disk->ops->stat(disk, path, &info);
    if (err == RQ_OK) {
        spare = spare && info.size <= SPARE_BYTES_MAX;
        to = spare ? spare_of(dir) : rq_staged_temporary(dir);
        err = to == NULL ? RQ_NOMEM : disk->ops->rename(disk, path, to);
    }
    free(path);
    if (err != RQ_OK || spare) {
        free(to);
        to = NULL;
    }
    *ret_rest = to;
    return err;
}

enum rq_err rq_staged_delete_rest(struct rq_disk *disk, char *rest)
{
    enum rq_err err = rest != NULL ? disk->ops->unlink(disk, rest) : RQ_OK;
    free(rest);
    return err;
}

enum rq_err rq_staged_delete(struct rq_disk *disk, const char *dir, const uint8_t hash[RQ_BODY_HASH_BYTES])
{
    char *rest;
    enum rq_err err = rq_staged_set_aside(disk, dir, hash, true, &rest);
    return err == RQ_OK ? rq_staged_delete_rest(disk, rest) : err;
}

enum rq_err rq_staged_drop_spare(struct rq_disk *disk, const char *dir, uint64_t unused_ms)
{
    char *spare = spare_of(dir);
    struct rq_file_info info;
    struct timespec t;
    enum rq_err err = spare == NULL ? RQ_NOMEM : disk->ops->stat(disk, spare, &info);
    if (err == RQ_OK) {
        clock_gettime(CLOCK_REALTIME, &t);
        uint64_t now_ms = (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u,
                 at_ms = info.modified_ns / 1000000u;
        if (now_ms < at_ms ||
            now_ms - at_ms >= unused_ms) { /* a clock that was set back: now or later is all the same */
            err = disk->ops->unlink(disk, spare);
        }
    }
    free(spare);
    return err == RQ_NOTFOUND ? RQ_OK : err; /* none, or one that has become a body meanwhile */
}

struct sweep {
    struct rq_disk *disk;
    const char *dir;
    bool (*keep)(void *ctx, const uint8_t hash[RQ_BODY_HASH_BYTES], bool part);
    void *ctx;
    struct rq_bytes names; /* to be deleted, each with its NUL: a directory is not changed while it is listed */
};

/* The hash in a name that is one. */
static bool hash_in(const char *name, uint8_t ret_hash[RQ_BODY_HASH_BYTES])
{
    const size_t digits = 2 * (size_t)RQ_BODY_HASH_BYTES;
    if (strlen(name) != digits || strspn(name, "0123456789abcdef") != digits) {
        return false;
    }
    for (size_t i = 0; i < RQ_BODY_HASH_BYTES; i++) {
        const char byte[3] = { name[2 * i], name[2 * i + 1], '\0' };
        ret_hash[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
    return true;
}

static enum rq_err look_at(void *ctx, const char *name)
{
    struct sweep *s = ctx;
    uint8_t hash[RQ_BODY_HASH_BYTES];
    const size_t prefix = strlen(RQ_STAGED_PART);
    const bool part = strncmp(name, RQ_STAGED_PART, prefix) == 0;
    if (!hash_in(part ? name + prefix : name, hash) || s->keep(s->ctx, hash, part)) {
        return RQ_OK;
    }
    return rq_bytes_put(&s->names, name, strlen(name) + 1);
}

static enum rq_err look_at_unfinished(void *ctx, const char *name)
{
    struct sweep *s = ctx;
    if (strncmp(name, "tmp-", 4) != 0 && strcmp(name, SPARE_NAME) != 0) {
        return RQ_OK;
    }
    return rq_bytes_put(&s->names, name, strlen(name) + 1);
}

static enum rq_err sweep(struct sweep *s, enum rq_err (*look)(void *ctx, const char *name))
{
    rq_bytes_init(&s->names, NAMES_BYTES_MAX);
    enum rq_err err = s->disk->ops->list(s->disk, s->dir, look, s);
    for (size_t at = 0; err == RQ_OK && at < s->names.size;) {
        const char *name = (const char *)s->names.data + at;
        char *path;
        at += strlen(name) + 1;
        if (asprintf(&path, "%s/%s", s->dir, name) < 0) {
            err = RQ_NOMEM;
            break;
        }
        err = s->disk->ops->unlink(s->disk, path);
        free(path);
    }
    rq_bytes_fini(&s->names);
    return err;
}

enum rq_err rq_staged_sweep(struct rq_disk *disk, const char *dir,
                            bool (*keep)(void *ctx, const uint8_t hash[RQ_BODY_HASH_BYTES], bool part), void *ctx)
{
    struct sweep s = { .disk = disk, .dir = dir, .keep = keep, .ctx = ctx };
    return sweep(&s, look_at);
}

enum rq_err rq_staged_sweep_unfinished(struct rq_disk *disk, const char *dir)
{
    struct sweep s = { .disk = disk, .dir = dir };
    return sweep(&s, look_at_unfinished);
}
