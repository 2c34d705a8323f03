/* Replica, append: the one door for every byte.
 *
 * Frames are written behind the last committed one, where no reader looks; then the map, the wal-index and its header are told.
 * Until the header is published nothing has happened, so every error before that leaves the state as it was. */
#include <string.h>

#include "vfs/replica_impl.h"

#define RESERVE_BYTES (1u << 20) /* -wal is extended by whole ones */
#define BEGIN_BYTES   (256u << 10)
#define BEGIN_MAX     (4u << 20) /* to hand over more at once takes long; a big transaction is left to the sync */
#define PAGE_BYTES    4096u

/* --- the pages of a transaction ------------------------------------------------------------------------------------------ */

/* The source's next page that belongs to the database after the transaction; m->pgno 0 at the end. */
static enum rq_err source_next(struct rq_page_merge *m)
{
    m->handed_out = false;
    for (;;) {
        uint32_t pgno;
        const enum rq_err err = m->source->next(m->source->ctx, &pgno, &m->page);
        if (err == RQ_NOTFOUND) {
            m->pgno = 0;
            return RQ_OK;
        }
        if (err != RQ_OK) {
            return err;
        }
        if (pgno <= m->last_pgno) {
            return RQ_MISUSE;
        }
        m->last_pgno = pgno;
        if (pgno <= m->after->page_count && pgno != rq_lock_page(m->after->page_size)) {
            m->pgno = pgno;
            return RQ_OK;
        }
    }
}

/* No zeros are needed up to pgno. */
static void zeros_past(struct rq_page_merge *m, uint32_t pgno)
{
    if (m->next_zero <= pgno) {
        m->next_zero = pgno + 1;
    }
    m->next_zero += m->next_zero == rq_lock_page(m->after->page_size);
}

enum rq_err rq_page_merge_next(struct rq_page_merge *m, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    if (!m->begun || m->handed_out) {
        const enum rq_err err = source_next(m);
        if (err != RQ_OK) {
            return err;
        }
    }
    if (!m->begun) {
        const uint8_t *page1 = m->pgno == 1 ? m->page : m->page1_old;
        if (page1 == NULL) {
            return RQ_MISUSE;
        }
        memcpy(m->page1, page1, m->after->page_size);
        rq_page1_stamp(m->page1, m->after);
        m->begun = true;
        m->handed_out = m->pgno == 1;
        zeros_past(m, 1);
        *ret_pgno = 1;
        *ret_page = m->page1;
        return RQ_OK;
    }
    if (m->next_zero <= m->after->page_count && (m->pgno == 0 || m->next_zero < m->pgno)) {
        *ret_pgno = m->next_zero;
        *ret_page = m->zeros;
    } else if (m->pgno != 0) {
        *ret_pgno = m->pgno;
        *ret_page = m->page;
        m->handed_out = true;
    } else {
        return RQ_NOTFOUND;
    }
    zeros_past(m, *ret_pgno);
    return RQ_OK;
}

/* --- append -------------------------------------------------------------------------------------------------------------- */

static void append_begin(struct rq_replica *r)
{
    pthread_mutex_lock(&r->mutex);
    while (r->resetting) {
        pthread_cond_wait(&r->changed, &r->mutex);
    }
    r->appending = true;
    pthread_mutex_unlock(&r->mutex);
}

bool rq_replica_appends_held(struct rq_replica *r)
{
    pthread_mutex_lock(&r->mutex);
    const bool held = r->resetting;
    pthread_mutex_unlock(&r->mutex);
    return held;
}

/* With the mutex. */
static void append_end(struct rq_replica *r)
{
    r->appending = false;
    if (r->resetting) {
        pthread_cond_broadcast(&r->changed);
    }
}

/* Memory and -shm for count more frames. */
static enum rq_err room_for(struct rq_replica *r, uint32_t count)
{
    pthread_mutex_lock(&r->mutex);
    enum rq_err err = rq_frames_reserve(&r->frames, count);
    if (err == RQ_OK) {
        err = rq_replica_shm_grow(r, r->frames.added + count);
    }
    pthread_mutex_unlock(&r->mutex);
    return err;
}

enum rq_err rq_replica_reserve(struct rq_replica *r, uint32_t frames)
{
    append_begin(r);
    enum rq_err err = room_for(r, frames);
    const uint64_t wanted = rq_wal_frame_offset(r->frames.committed + frames + 1, r->page_size);
    uint64_t reserved = r->wal_reserved;
    if (err == RQ_OK && wanted > reserved) {
        const uint64_t rounded = (wanted + RESERVE_BYTES - 1) / RESERVE_BYTES * RESERVE_BYTES;
        err = r->disk->ops->reserve(r->wal, reserved, rounded - reserved);
        reserved = err == RQ_OK ? rounded : reserved;
    }
    pthread_mutex_lock(&r->mutex);
    r->wal_reserved = reserved;
    r->promised = err == RQ_OK ? frames : r->promised;
    append_end(r);
    pthread_mutex_unlock(&r->mutex);
    return err;
}

/* Writes the frames of one transaction; they are added, not committed.  page1_next holds its page 1 then. */
static enum rq_err frames_write(struct rq_replica *r, const struct rq_page_source *pages,
                                const struct rq_replica_state *after)
{
    struct rq_page_merge merge = {
        .source = pages,
        .after = after,
        .page1_old = r->page1,
        .page1 = r->page1_next,
        .zeros = r->zeros,
        .next_zero = r->state.page_count + 1,
    };
    const uint32_t frame_bytes = rq_frame_bytes(r), per_write = RQ_CHUNK_BYTES / frame_bytes;
    const uint32_t *before = rq_replica_sum_before(r, r->frames.committed + 1);
    uint32_t sum[2] = { before[0], before[1] };
    uint32_t in_chunk = 0, chunk_frame = r->frames.committed + 1, pgno = 0;
    r->chunk_count = 0;
    for (;;) {
        uint32_t next_pgno;
        const uint8_t *page;
        enum rq_err err = rq_page_merge_next(&merge, &next_pgno, &page);
        const bool last = err == RQ_NOTFOUND;
        if (err != RQ_OK && !last) {
            return err;
        }
        if (in_chunk > 0) {
            /* Only now is it known whether the frame before is the one that carries the commit. */
            uint8_t *frame = r->chunk + (size_t)(in_chunk - 1) * frame_bytes;
            rq_wal_frame_encode(&r->head, sum, pgno, last ? after->page_count : 0, frame + RQ_WAL_FRAME_BYTES, frame);
            if (r->frames.added == r->frames.capacity || rq_wal_region_of(r->frames.added + 1) >= r->region_count) {
                err = room_for(r, 1);
                if (err != RQ_OK) {
                    return err;
                }
            }
            rq_frames_add(&r->frames, pgno, sum);
        }
        if (last || in_chunk == per_write) {
            err = r->disk->ops->write(r->wal, r->chunk, (size_t)in_chunk * frame_bytes,
                                      rq_wal_frame_offset(chunk_frame, r->page_size));
            if (err == RQ_OK && last) {
                r->chunk_frame = chunk_frame;
                r->chunk_count = in_chunk;
            }
            if (err != RQ_OK || last) {
                return err;
            }
            chunk_frame += in_chunk;
            in_chunk = 0;
        }
        pgno = next_pgno;
        memcpy(r->chunk + (size_t)in_chunk++ * frame_bytes + RQ_WAL_FRAME_BYTES, page, r->page_size);
    }
}

enum rq_err rq_replica_append(struct rq_replica *r, const struct rq_page_source *pages,
                              const struct rq_replica_state *after)
{
    if (after->page_size != r->page_size || after->page_count == 0 || after->stamp.db_id == 0) {
        return RQ_MISUSE;
    }
    append_begin(r);
    const enum rq_err err = frames_write(r, pages, after);
    pthread_mutex_lock(&r->mutex);
    if (err == RQ_OK) {
        const uint32_t from = r->frames.committed;
        const uint64_t end = rq_wal_frame_offset(r->frames.added + 1, r->page_size);
        uint8_t *page1 = r->page1;
        r->page1 = r->page1_next;
        r->page1_next = page1;
        r->state = *after;
        r->state.stamp.version_high = (uint32_t)(after->version >> 32);
        r->wal_reserved = end > r->wal_reserved ? end : r->wal_reserved;
        r->promised = 0;
        rq_frames_commit(&r->frames);
        rq_replica_watches_note(r, from);
        rq_replica_publish_frames(r, from);
        rq_replica_publish_control(r);
    } else {
        rq_frames_rollback(&r->frames);
    }
    append_end(r);
    pthread_mutex_unlock(&r->mutex);
    return err;
}

void rq_replica_begin_sync(struct rq_replica *r)
{
    pthread_mutex_lock(&r->mutex);
    /* The last page of the page cache is written to again by the next append. */
    const uint64_t end = rq_wal_frame_offset(r->frames.committed + 1, r->page_size) / PAGE_BYTES * PAGE_BYTES;
    const uint64_t begun = end < r->wal_begun ? 0 : r->wal_begun; /* the WAL was begun anew */
    const bool now = !r->resetting && end - begun >= BEGIN_BYTES;
    r->appending = now; /* the file stays ours */
    pthread_mutex_unlock(&r->mutex);
    if (now) {
        if (end - begun <= BEGIN_MAX) {
            r->disk->ops->begin_sync(r->wal, begun, end - begun);
        }
        r->wal_begun = end;
        pthread_mutex_lock(&r->mutex);
        append_end(r);
        pthread_mutex_unlock(&r->mutex);
    }
}
