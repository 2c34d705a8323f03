/* Replica, check: are the files still what we wrote? */
#include <stdlib.h>
#include <string.h>

#include "vfs/replica_impl.h"

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

static enum rq_err wal_check(struct rq_replica *r, struct expectation *e, uint8_t *buffer, char text[160])
{
    uint8_t head[RQ_WAL_HEAD_BYTES];
    size_t got;
    rq_wal_head_encode(&e->head, head);
    enum rq_err err = r->disk->ops->read(r->wal, buffer, sizeof head, 0, &got);
    if (err == RQ_OK && (got != sizeof head || memcmp(buffer, head, sizeof head) != 0)) {
        return rq_replica_finding(text, RQ_CORRUPT, "%s: the header was changed", r->wal_path);
    }
    for (uint32_t frame = 1; err == RQ_OK && frame <= e->count; frame++) {
        err = rq_replica_frame_read(r, &e->head, frame, &e->frames[frame], e->frames[frame - 1].checksum, buffer);
        if (err == RQ_CORRUPT) {
            return rq_replica_finding(text, err, "%s: frame %u, page %u, was changed", r->wal_path, frame,
                                      e->frames[frame].pgno);
        }
    }
    return err == RQ_OK ? RQ_OK : rq_replica_finding(text, err, "%s: %s", r->wal_path, rq_err_text(err));
}

static enum rq_err page1_check(struct rq_replica *r, const struct expectation *e, uint8_t *buffer, char text[160])
{
    enum rq_err err = RQ_OK;
    size_t got;
    if (e->backfilled) {
        err = r->disk->ops->read(r->db, buffer, r->page_size, 0, &got);
        if (err == RQ_OK && (got != r->page_size || memcmp(buffer, e->page1, r->page_size) != 0)) {
            return rq_replica_finding(text, RQ_CORRUPT, "%s: page 1 was changed", r->path);
        }
    }
    return err == RQ_OK ? RQ_OK : rq_replica_finding(text, err, "%s: %s", r->path, rq_err_text(err));
}

/* whole: page 1 of the database file, too. */
static enum rq_err content_check(struct rq_replica *r, bool whole, char text[160])
{
    struct expectation e = { 0 };
    uint8_t *buffer = malloc(rq_frame_bytes(r));
    enum rq_err err = buffer == NULL ? RQ_NOMEM : expectation_take(&e, r);
    if (err == RQ_OK) {
        err = wal_check(r, &e, buffer, text);
    }
    if (err == RQ_OK && whole) {
        err = page1_check(r, &e, buffer, text);
    }
    free(buffer);
    free(e.frames);
    free(e.page1);
    return err;
}

static enum rq_err named_check(struct rq_replica *r, const char *path, struct rq_file *file, char text[160])
{
    enum rq_err err = rq_replica_name_check(r, path, file);
    return err == RQ_OK ? err
                        : rq_replica_finding(text, err, "%s: %s", path,
                                             err == RQ_FOREIGN ? "another file has this name now" : rq_err_text(err));
}

enum rq_err rq_replica_check_wal(struct rq_replica *r, char text[160])
{
    text[0] = '\0';
    enum rq_err err = named_check(r, r->path, r->db, text);
    if (err == RQ_OK) {
        err = named_check(r, r->wal_path, r->wal, text);
    }
    return err == RQ_OK ? content_check(r, false, text) : err;
}

void rq_replica_mended(struct rq_replica *r)
{
    rq_replica_note_modified(r);
}

enum rq_err rq_replica_check(struct rq_replica *r, char text[160])
{
    text[0] = '\0';
    enum rq_err err = named_check(r, r->path, r->db, text);
    if (err == RQ_OK) {
        err = rq_replica_mend(r, text);
    }
    if (err == RQ_OK) {
        err = content_check(r, true, text);
    }
    return err == RQ_OK ? rq_replica_modified_check(r, text) : err;
}
