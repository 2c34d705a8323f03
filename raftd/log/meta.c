#include "raftd/log/meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_STRIDE_BYTES ((size_t)4096) /* no medium keeps both in one sector */

#define PATH_BYTES_MAX 4096u

static enum rq_err write_slots(struct rq_log_meta *m)
{
    rq_log_put_slot(m->sector, &m->slot);
    for (unsigned i = 0; i < 2; i++) {
        enum rq_err err = m->file->disk->ops->write(m->file, m->sector, RQ_LOG_SECTOR_BYTES, i * SLOT_STRIDE_BYTES);
        if (err != RQ_OK) {
            return err;
        }
    }
    return RQ_OK;
}

static enum rq_err open_file(struct rq_log_meta *m, struct rq_disk *disk, const char *path, int flags)
{
    *m = (struct rq_log_meta){ .sector = aligned_alloc(SLOT_STRIDE_BYTES, SLOT_STRIDE_BYTES) };
    if (m->sector == NULL) {
        return RQ_NOMEM;
    }
    return disk->ops->open(disk, path, RQ_OPEN_WRITE | RQ_OPEN_DSYNC | flags, 0600, &m->file);
}

enum rq_err rq_log_meta_create(struct rq_disk *disk, const char *dir, uint64_t instance)
{
    char path[PATH_BYTES_MAX], name[PATH_BYTES_MAX];
    if (snprintf(path, sizeof path, "%s/meta.new", dir) >= (int)sizeof path) {
        return RQ_TOOBIG;
    }
    (void)snprintf(name, sizeof name, "%s/meta", dir); /* shorter than path */
    struct rq_log_meta m;
    enum rq_err err = open_file(&m, disk, path, RQ_OPEN_CREATE);
    if (err == RQ_OK) {
        m.slot = (struct rq_log_slot){ .instance = instance };
        err = write_slots(&m);
    }
    rq_log_meta_close(&m);
    if (err == RQ_OK) {
        err = disk->ops->rename(disk, path, name);
    }
    return err == RQ_OK ? disk->ops->sync_dir(disk, dir) : err;
}

enum rq_err rq_log_meta_open(struct rq_log_meta *m, struct rq_disk *disk, const char *dir, uint64_t instance,
                             char *problem, size_t problem_bytes)
{
    char path[PATH_BYTES_MAX];
    if (snprintf(path, sizeof path, "%s/meta", dir) >= (int)sizeof path) {
        return RQ_TOOBIG;
    }
    enum rq_err err = open_file(m, disk, path, 0);
    if (err != RQ_OK) {
        goto undo_open;
    }
    enum rq_err worst = RQ_OK;
    bool any = false;
    for (unsigned i = 0; i < 2; i++) {
        size_t n = 0;
        struct rq_log_slot slot;
        err = disk->ops->read(m->file, m->sector, RQ_LOG_SECTOR_BYTES, i * SLOT_STRIDE_BYTES, &n);
        if (err != RQ_OK) {
            goto undo_open;
        }
        err = n == RQ_LOG_SECTOR_BYTES ? rq_log_get_slot(m->sector, &slot) : RQ_CORRUPT;
        if (err == RQ_OK && slot.instance != instance) {
            err = RQ_FOREIGN;
        }
        if (err != RQ_OK) {
            /* A newer format or another instance is no accident of one slot. */
            worst = worst == RQ_OK || worst == RQ_CORRUPT ? err : worst;
        } else if (!any || slot.sequence > m->slot.sequence) {
            m->slot = slot;
            any = true;
        }
    }
    if (worst != RQ_OK && (worst != RQ_CORRUPT || !any)) {
        err = worst;
        snprintf(problem, problem_bytes, "meta: %s",
                 err == RQ_CORRUPT   ? "both copies of term and vote are damaged"
                 : err == RQ_VERSION ? "written by a newer raftd"
                                     : "belongs to another instance");
        goto undo_open;
    }
    err = write_slots(m);
    err = err == RQ_OK ? disk->ops->sync_dir(disk, dir) : err;
    if (err == RQ_OK) {
        return RQ_OK;
    }
undo_open:
    rq_log_meta_close(m);
    return err;
}

void rq_log_meta_close(struct rq_log_meta *m)
{
    if (m->file != NULL) {
        m->file->disk->ops->close(m->file);
    }
    free(m->sector);
    *m = (struct rq_log_meta){ 0 };
}

enum rq_err rq_log_meta_put(struct rq_log_meta *m, uint64_t term, uint64_t vote)
{
    m->slot.sequence++;
    m->slot.term = term;
    m->slot.vote = vote;
    return write_slots(m);
}
