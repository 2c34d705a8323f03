/* Replica, mend: names and publications that somebody has taken away, or scribbled on, are put right from what we know.
 *
 * -wal and -shm may lose their names to others: a stock connection that was opened while the database was an empty file deletes a
 * -wal that it finds beside it; people tidy up.  Ours stay open, so nothing is lost, and files of those names are made again. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "vfs/replica_impl.h"

enum rq_err rq_replica_finding(char text[160], enum rq_err err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, 160, format, args); /* cut off is good enough */
    va_end(args);
    return err;
}

enum rq_err rq_replica_name_check(struct rq_replica *r, const char *path, struct rq_file *file)
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

bool rq_replica_others_wrote(const struct rq_replica *r)
{
    struct rq_file_info info;
    return r->db_modified_ns != 0 && r->disk->ops->info(r->db, &info) == RQ_OK && info.modified_ns != r->db_modified_ns;
}

enum rq_err rq_replica_modified_check(struct rq_replica *r, char text[160])
{
    struct rq_file_info info;
    enum rq_err err = r->disk->ops->info(r->db, &info);
    if (err == RQ_OK && r->db_modified_ns != 0 && info.modified_ns != r->db_modified_ns) {
        return rq_replica_finding(text, RQ_CORRUPT, "%s: somebody else has written to it", r->path);
    }
    return err == RQ_OK ? RQ_OK : rq_replica_finding(text, err, "%s: %s", r->path, rq_err_text(err));
}

static enum rq_err publications_check(struct rq_replica *r, char text[160])
{
    pthread_mutex_lock(&r->mutex);
    enum rq_err err = rq_replica_name_check(r, r->shm_path, r->shm);
    if (err == RQ_NOTFOUND || err == RQ_FOREIGN) {
        err = shm_replace(r);
    } else if (err == RQ_OK && rq_replica_shm_whole(r)) {
        rq_replica_publish_all(r);
    }
    rq_replica_publish_control(r);
    pthread_mutex_unlock(&r->mutex);
    return err == RQ_OK ? RQ_OK : rq_replica_finding(text, err, "%s: %s", r->shm_path, rq_err_text(err));
}

/* --- a -wal that lost its name ------------------------------------------------------------------------------------------- */

static enum rq_err wal_copy(struct rq_replica *r, struct rq_file *to, uint64_t bytes)
{
    uint8_t *chunk = malloc(RQ_CHUNK_BYTES);
    enum rq_err err = chunk == NULL ? RQ_NOMEM : r->disk->ops->truncate(to, 0);
    for (uint64_t at = 0; err == RQ_OK && at < bytes;) {
        const size_t wanted = bytes - at < RQ_CHUNK_BYTES ? (size_t)(bytes - at) : RQ_CHUNK_BYTES;
        size_t got;
        err = r->disk->ops->read(r->wal, chunk, wanted, at, &got);
        if (err == RQ_OK && got != wanted) {
            err = RQ_CORRUPT;
        }
        if (err == RQ_OK) {
            err = r->disk->ops->write(to, chunk, wanted, at);
        }
        at += wanted;
    }
    /* A transaction that was promised space has it here, too. */
    if (err == RQ_OK && r->wal_reserved > bytes) {
        err = r->disk->ops->reserve(to, bytes, r->wal_reserved - bytes);
    }
    free(chunk);
    return err == RQ_OK ? rq_sync_final(r->disk, to) : err;
}

/* With appends held off, so that the header and the committed frames are all there is. */
static enum rq_err wal_replace_held(struct rq_replica *r)
{
    const struct rq_disk_ops *ops = r->disk->ops;
    struct rq_file *wal = NULL;
    char *path;
    if (asprintf(&path, "%s" RQ_NEW_SUFFIX, r->path) < 0) {
        return RQ_NOMEM;
    }
    enum rq_err err = ops->open(r->disk, path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_NOFOLLOW, r->mode, &wal);
    if (err == RQ_OK) {
        err = wal_copy(r, wal, rq_wal_frame_offset(r->frames.committed + 1, r->page_size));
    }
    if (err == RQ_OK) {
        err = ops->rename(r->disk, path, r->wal_path);
    }
    if (err == RQ_OK) {
        err = ops->sync_dir(r->disk, r->dir_path) == RQ_OK ? RQ_OK : RQ_IO;
    } else {
        (void)ops->unlink(r->disk, path); /* only for its space */
    }
    free(path);
    if (err != RQ_OK) {
        if (wal != NULL) {
            ops->close(wal);
        }
        return err;
    }
    pthread_mutex_lock(&r->syncs);
    pthread_mutex_lock(&r->mutex);
    struct rq_file *former = r->wal;
    r->wal = wal;
    pthread_mutex_unlock(&r->mutex);
    pthread_mutex_unlock(&r->syncs);
    ops->close(former);
    atomic_fetch_add(&r->control->head->files_epoch,
                     1u); /* whoever reads the old one may go on: it has all that he sees */
    return RQ_OK;
}

static enum rq_err wal_check(struct rq_replica *r, char text[160])
{
    enum rq_err err = rq_replica_name_check(r, r->wal_path, r->wal);
    if (err == RQ_OK) {
        return RQ_OK;
    }
    if (err == RQ_NOTFOUND || err == RQ_FOREIGN) {
        const char *what = err == RQ_FOREIGN ? "another file had its name" : "it was deleted";
        const bool blocked = r->blocked;
        err = rq_replica_hold_appends(r) ? wal_replace_held(r) : RQ_BUSY;
        rq_replica_release_appends(r, blocked);
        if (err == RQ_OK) {
            return rq_replica_finding(text, RQ_OK, "%s was made again: %s by somebody", r->wal_path, what);
        }
    }
    return rq_replica_finding(text, err, "%s: %s", r->wal_path, rq_err_text(err));
}

bool rq_replica_is_named(struct rq_replica *r)
{
    pthread_mutex_lock(&r->mutex);
    const enum rq_err err = rq_replica_name_check(r, r->wal_path, r->wal);
    pthread_mutex_unlock(&r->mutex);
    return err == RQ_OK;
}

enum rq_err rq_replica_mend(struct rq_replica *r, char text[160])
{
    text[0] = '\0';
    enum rq_err err = rq_replica_modified_check(r, text);
    if (err == RQ_OK) {
        err = wal_check(r, text);
    }
    return err == RQ_OK ? publications_check(r, text) : err;
}
