/* Replica, check: are the files still what we wrote, and the publication what we know? */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/replica_impl.h"

static enum rq_err __attribute__((format(printf, 3, 4))) finding(char text[160], enum rq_err err, const char *format,
                                                                 ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, 160, format, args); /* cut off is good enough */
    va_end(args);
    return err;
}

/* NOTFOUND: no file of this name; FOREIGN: another file than ours. */
static enum rq_err name_check(struct rq_replica *r, const char *path, struct rq_file *file)
{
    struct rq_file_info ours, named;
    enum rq_err err = r->disk->ops->info(file, &ours);
    if (err == RQ_OK) {
        err = r->disk->ops->stat(r->disk, path, &named);
    }
    if (err == RQ_OK && (ours.inode != named.inode || ours.device != named.device)) {
        err = RQ_FOREIGN;
    }
    return err;
}

void rq_replica_note_modified(struct rq_replica *r)
{
    struct rq_file_info info;
    r->db_modified_ns = r->disk->ops->info(r->db, &info) == RQ_OK ? info.modified_ns : 0;
}

/* A new -shm under the name that lost the old one.  Our own readers follow files_epoch; who holds the old one goes on reading
 * the snapshot that it shows. */
static enum rq_err shm_replace(struct rq_replica *r)
{
    struct rq_file *shm;
    bool made;
    enum rq_err err = rq_replica_shm_open(r, &shm, &made);
    if (err != RQ_OK) {
        return err;
    }
    rq_replica_shm_close(r);
    r->shm = shm;
    err = rq_replica_shm_grow(r, r->frames.committed + 1);
    if (err == RQ_OK && rq_replica_shm_whole(r)) {
        for (uint32_t i = 1; i < RQ_READ_MARKS; i++) {
            __atomic_store_n(&rq_replica_ckpt_info(r)->aReadMark[i], i == 1 ? r->frames.committed : RQ_READ_MARK_UNUSED,
                             __ATOMIC_RELAXED);
        }
        rq_replica_publish_all(r);
    }
    atomic_fetch_add(&r->control->head->files_epoch, 1u);
    return err;
}

/* Nobody else may write to it: stock tools do not (byte 18), and checkpoints are kept out by locks. */
static enum rq_err modified_check(struct rq_replica *r, char text[160])
{
    struct rq_file_info info;
    enum rq_err err = r->disk->ops->info(r->db, &info);
    if (err == RQ_OK && r->db_modified_ns != 0 && info.modified_ns != r->db_modified_ns) {
        return finding(text, RQ_CORRUPT, "%s: somebody else has written to it", r->path);
    }
    return err == RQ_OK ? RQ_OK : finding(text, err, "%s: %s", r->path, rq_err_text(err));
}

static enum rq_err publications_check(struct rq_replica *r, char text[160])
{
    pthread_mutex_lock(&r->mutex);
    enum rq_err err = name_check(r, r->shm_path, r->shm);
    if (err == RQ_NOTFOUND || err == RQ_FOREIGN) {
        err = shm_replace(r);
    } else if (err == RQ_OK && rq_replica_shm_whole(r)) {
        rq_replica_publish_all(r);
    }
    rq_replica_publish_control(r);
    pthread_mutex_unlock(&r->mutex);
    return err == RQ_OK ? RQ_OK : finding(text, err, "%s: %s", r->shm_path, rq_err_text(err));
}

enum rq_err rq_replica_mend(struct rq_replica *r, char text[160])
{
    text[0] = 0;
    enum rq_err err = modified_check(r, text);
    return err == RQ_OK ? publications_check(r, text) : err;
}

/* What the files must hold, as it was at one moment. */
struct expectation {
    struct rq_wal_head head;
    struct rq_frame *frames; /* owns; frames[0].checksum is the header's, frame n is frames[n] */
    uint8_t *page1;          /* owns */
    uint32_t count;
    bool backfilled; /* all: the database file has this page 1 */
};

static enum rq_err expectation_take(struct expectation *e, struct rq_replica *r)
{
    pthread_mutex_lock(&r->mutex);
    e->head = r->head;
    e->count = r->frames.committed;
    e->backfilled = r->backfilled == r->frames.committed;
    e->frames = malloc((e->count + (size_t)1) * sizeof *e->frames);
    e->page1 = malloc(r->page_size);
    const bool allocated = e->frames != NULL && e->page1 != NULL;
    if (allocated) {
        memcpy(e->frames[0].checksum, r->head.checksum, sizeof r->head.checksum);
        if (e->count > 0) {
            memcpy(e->frames + 1, r->frames.frames, e->count * sizeof *e->frames);
        }
        memcpy(e->page1, r->page1, r->page_size);
    }
    pthread_mutex_unlock(&r->mutex);
    return allocated ? RQ_OK : RQ_NOMEM;
}

static enum rq_err content_check(struct rq_replica *r, struct expectation *e, uint8_t *buffer, char text[160])
{
    uint8_t head[RQ_WAL_HEAD_BYTES];
    size_t got;
    rq_wal_head_encode(&e->head, head);
    enum rq_err err = r->disk->ops->read(r->wal, buffer, sizeof head, 0, &got);
    if (err == RQ_OK && (got != sizeof head || memcmp(buffer, head, sizeof head) != 0)) {
        return finding(text, RQ_CORRUPT, "%s: the header was changed", r->wal_path);
    }
    for (uint32_t frame = 1; err == RQ_OK && frame <= e->count; frame++) {
        err = rq_replica_frame_read(r, &e->head, frame, &e->frames[frame], e->frames[frame - 1].checksum, buffer);
        if (err == RQ_CORRUPT) {
            return finding(text, err, "%s: frame %u, page %u, was changed", r->wal_path, frame, e->frames[frame].pgno);
        }
    }
    if (err == RQ_OK && e->backfilled) {
        err = r->disk->ops->read(r->db, buffer, r->page_size, 0, &got);
        if (err == RQ_OK && (got != r->page_size || memcmp(buffer, e->page1, r->page_size) != 0)) {
            return finding(text, RQ_CORRUPT, "%s: page 1 was changed", r->path);
        }
    }
    return err == RQ_OK ? RQ_OK : finding(text, err, "%s: %s", r->path, rq_err_text(err));
}

enum rq_err rq_replica_check(struct rq_replica *r, char text[160])
{
    text[0] = 0;
    enum rq_err err = name_check(r, r->path, r->db);
    if (err != RQ_OK) {
        return finding(text, err, "%s: %s", r->path,
                       err == RQ_FOREIGN ? "another file has this name now" : rq_err_text(err));
    }
    err = name_check(r, r->wal_path, r->wal);
    if (err != RQ_OK) {
        return finding(text, err, "%s: %s", r->wal_path,
                       err == RQ_FOREIGN ? "another file has this name now" : rq_err_text(err));
    }
    err = publications_check(r, text);
    if (err != RQ_OK) {
        return err;
    }
    struct expectation e = { 0 };
    uint8_t *buffer = malloc(rq_frame_bytes(r));
    err = buffer == NULL ? RQ_NOMEM : expectation_take(&e, r);
    if (err == RQ_OK) {
        err = content_check(r, &e, buffer, text);
    }
    free(buffer);
    free(e.frames);
    free(e.page1);
    return err == RQ_OK ? modified_check(r, text) : err;
}
