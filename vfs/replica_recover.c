/* Replica, recovery: what the WAL holds is found by its checksums alone, whoever wrote it and however they ended.
 *
 * Frames behind the last commit are nobody's: they are left where they are, and the next append writes over them; the chain
 * of checksums goes on from the last committed frame, so what remains of them can never verify.
 *
 * What is taken in is written again: after a failed sync the kernel may hold as clean what never reached the disk, and then the
 * next sync, which says that the log is not needed any more, would do nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "raftd/wire/bytes.h"
#include "vfs/replica_impl.h"

const uint32_t *rq_replica_sum_before(const struct rq_replica *r, uint32_t frame)
{
    return frame == 1 ? r->head.checksum : r->frames.frames[frame - 2].checksum;
}

enum rq_err rq_replica_next_head(const struct rq_replica *r, struct rq_wal_head *ret_head)
{
    struct rq_wal_head h = {
        .page_size = r->page_size,
        .checkpoint_count = r->head.checkpoint_count,
        .big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__,
    };
    if (getrandom(h.salt, sizeof h.salt, 0) != (ssize_t)sizeof h.salt) {
        return RQ_IO;
    }
    if (r->head.page_size != 0) { /* a WAL came before: count on, so that none of its frames is taken for a new one */
        rq_put_u32(h.salt, rq_get_u32(r->head.salt) + 1);
        h.checkpoint_count++;
    }
    uint8_t bytes[RQ_WAL_HEAD_BYTES];
    rq_wal_head_encode(&h, bytes);
    *ret_head = h;
    return RQ_OK;
}

enum rq_err rq_replica_frame_read(struct rq_replica *r, const struct rq_wal_head *head, uint32_t frame,
                                  const struct rq_frame *expected, const uint32_t before[2], uint8_t *buffer)
{
    size_t got;
    enum rq_err err =
        r->disk->ops->read(r->wal, buffer, rq_frame_bytes(r), rq_wal_frame_offset(frame, r->page_size), &got);
    if (err != RQ_OK) {
        return err;
    }
    uint32_t sum[2] = { before[0], before[1] }, pgno, commit_size;
    if (got != rq_frame_bytes(r) ||
        rq_wal_frame_decode(head, sum, buffer, buffer + RQ_WAL_FRAME_BYTES, &pgno, &commit_size) != RQ_OK ||
        pgno != expected->pgno || sum[0] != expected->checksum[0] || sum[1] != expected->checksum[1]) {
        return RQ_CORRUPT;
    }
    return RQ_OK;
}

static enum rq_err write_again(struct rq_replica *r, const uint8_t *bytes, size_t count, uint64_t offset)
{
    return count > 0 ? r->disk->ops->write(r->wal, bytes, count, offset) : RQ_OK;
}

/* Takes in every transaction of the WAL whose head is r->head.  ret_page_count: of the last one. */
static enum rq_err frames_scan(struct rq_replica *r, uint32_t *ret_page_count)
{
    const uint32_t frame_bytes = rq_frame_bytes(r), per_read = RQ_CHUNK_BYTES / frame_bytes;
    uint32_t sum[2] = { r->head.checksum[0], r->head.checksum[1] };
    enum rq_err err = RQ_OK;
    size_t got = per_read * (size_t)frame_bytes;
    bool verifies = true;
    while (verifies && got == per_read * (size_t)frame_bytes) {
        const uint64_t offset = rq_wal_frame_offset(r->frames.added + 1, r->page_size);
        err = r->disk->ops->read(r->wal, r->chunk, per_read * (size_t)frame_bytes, offset, &got);
        if (err == RQ_OK) {
            err = rq_frames_reserve(&r->frames, per_read);
        }
        if (err != RQ_OK) {
            return err;
        }
        size_t at = 0;
        for (; at + frame_bytes <= got; at += frame_bytes) {
            uint32_t pgno, commit_size;
            if (rq_wal_frame_decode(&r->head, sum, r->chunk + at, r->chunk + at + RQ_WAL_FRAME_BYTES, &pgno,
                                    &commit_size) != RQ_OK) {
                verifies = false;
                break;
            }
            rq_frames_add(&r->frames, pgno, sum);
            if (commit_size != 0) {
                rq_frames_commit(&r->frames);
                *ret_page_count = commit_size;
            }
        }
        err = write_again(r, r->chunk, at, offset);
        if (err != RQ_OK) {
            return err;
        }
    }
    rq_frames_rollback(&r->frames);
    return RQ_OK;
}

/* A WAL in which nothing was committed gets a new header, which is durable before anything is built on it: else the disk could
 * end up with new frames behind an old header, and an old header's frames over a database file that is newer
 * (docs/file-format.md#wal-reset). */
static enum rq_err wal_begin(struct rq_replica *r)
{
    struct rq_wal_head h;
    uint8_t bytes[RQ_WAL_HEAD_BYTES];
    enum rq_err err = rq_replica_next_head(r, &h);
    if (err != RQ_OK) {
        return err;
    }
    rq_wal_head_encode(&h, bytes);
    err = r->disk->ops->write(r->wal, bytes, sizeof bytes, 0);
    if (err == RQ_OK) {
        err = rq_sync_final(r->disk, r->wal);
    }
    if (err == RQ_OK) {
        r->head = h;
    }
    return err;
}

static enum rq_err page1_load(struct rq_replica *r)
{
    const uint32_t frame = rq_frames_find(&r->frames, 1);
    if (frame != 0) {
        enum rq_err err = rq_replica_frame_read(r, &r->head, frame, &r->frames.frames[frame - 1],
                                                rq_replica_sum_before(r, frame), r->frame);
        if (err == RQ_OK) {
            memcpy(r->page1, r->frame + RQ_WAL_FRAME_BYTES, r->page_size);
        }
        return err;
    }
    size_t got;
    enum rq_err err = r->disk->ops->read(r->db, r->page1, r->page_size, 0, &got);
    return err == RQ_OK && got != r->page_size ? RQ_CORRUPT : err;
}

/* Every page is in the database file, or in the WAL (rule Z). */
static bool pages_there(const struct rq_replica *r, uint64_t file_pages)
{
    if (r->state.page_count > file_pages + r->frames.committed + 1) {
        return false;
    }
    for (uint64_t pgno = file_pages + 1; pgno <= r->state.page_count; pgno++) {
        if (rq_frames_find(&r->frames, (uint32_t)pgno) == 0 && pgno != rq_lock_page(r->page_size)) {
            return false;
        }
    }
    return true;
}

enum rq_err rq_replica_recover(struct rq_replica *r)
{
    uint8_t bytes[RQ_WAL_HEAD_BYTES];
    struct rq_file_info db, wal;
    size_t got;
    uint32_t page_count = 0;
    enum rq_err err = r->disk->ops->read(r->wal, bytes, sizeof bytes, 0, &got);
    if (err != RQ_OK) {
        return err;
    }
    /* A header that does not verify is none.  One that does, and is of a format that we do not know, is not written over. */
    const enum rq_err head_err = got == sizeof bytes ? rq_wal_head_decode(bytes, &r->head) : RQ_CORRUPT;
    if (head_err == RQ_VERSION) {
        return head_err;
    }
    if (head_err == RQ_OK) {
        if (r->head.page_size != r->page_size) {
            return RQ_CORRUPT;
        }
        err = write_again(r, bytes, sizeof bytes, 0);
        if (err == RQ_OK) {
            err = frames_scan(r, &page_count);
        }
    }
    if (err == RQ_OK) {
        err = page1_load(r);
    }
    if (err == RQ_OK) {
        err = rq_page1_state(r->page1, &r->state);
    }
    if (err == RQ_OK) {
        err = r->disk->ops->info(r->db, &db);
    }
    if (err != RQ_OK) {
        return err;
    }
    if (r->state.page_size != r->page_size) {
        return RQ_CORRUPT;
    }
    if ((r->frames.committed > 0 && r->state.page_count != page_count) || !pages_there(r, db.size / r->page_size)) {
        return RQ_CORRUPT;
    }
    if (r->frames.committed == 0) {
        err = wal_begin(r);
    }
    if (err == RQ_OK) {
        err = r->disk->ops->info(r->wal, &wal);
    }
    r->wal_reserved = err == RQ_OK ? wal.size : 0;
    return err;
}

/* --- without opening ----------------------------------------------------------------------------------------------------- */

/* The last page 1 that the WAL has committed goes to page1; it stays what it was when there is none. */
static enum rq_err peek_wal(struct rq_disk *disk, struct rq_file *wal, uint32_t page_size, uint8_t *page1,
                            uint8_t *frame)
{
    uint8_t bytes[RQ_WAL_HEAD_BYTES];
    struct rq_wal_head head;
    size_t got;
    const size_t frame_bytes = RQ_WAL_FRAME_BYTES + (size_t)page_size;
    enum rq_err err = disk->ops->read(wal, bytes, sizeof bytes, 0, &got);
    if (err != RQ_OK || got != sizeof bytes || rq_wal_head_decode(bytes, &head) != RQ_OK) {
        return err;
    }
    if (head.page_size != page_size) {
        return RQ_CORRUPT;
    }
    uint8_t *page1_next = malloc(page_size);
    uint32_t sum[2] = { head.checksum[0], head.checksum[1] }, pgno, commit_size;
    bool has_next = false;
    err = page1_next == NULL ? RQ_NOMEM : RQ_OK;
    for (uint32_t n = 1; err == RQ_OK; n++) {
        err = disk->ops->read(wal, frame, frame_bytes, rq_wal_frame_offset(n, page_size), &got);
        if (err != RQ_OK || got != frame_bytes ||
            rq_wal_frame_decode(&head, sum, frame, frame + RQ_WAL_FRAME_BYTES, &pgno, &commit_size) != RQ_OK) {
            break;
        }
        if (pgno == 1) {
            memcpy(page1_next, frame + RQ_WAL_FRAME_BYTES, page_size);
            has_next = true;
        }
        if (commit_size != 0 && has_next) {
            memcpy(page1, page1_next, page_size);
        }
    }
    free(page1_next);
    return err;
}

enum rq_err rq_replica_peek(struct rq_disk *disk, const char *path, struct rq_replica_state *ret_state)
{
    static const uint32_t page_size_max = 65536;
    struct rq_file *db = NULL, *wal = NULL;
    char *wal_path = NULL;
    uint8_t *page1 = calloc(1, page_size_max), *frame = malloc(RQ_WAL_FRAME_BYTES + page_size_max);
    size_t got;
    enum rq_err err = page1 == NULL || frame == NULL || asprintf(&wal_path, "%s-wal", path) < 0 ? RQ_NOMEM : RQ_OK;
    if (err == RQ_OK) {
        err = disk->ops->open(disk, path, RQ_OPEN_READ | RQ_OPEN_NOFOLLOW, 0, &db);
    }
    if (err == RQ_OK) {
        err = disk->ops->read(db, page1, page_size_max, 0, &got);
    }
    if (err == RQ_OK) {
        err = rq_page1_state(page1, ret_state);
    }
    if (err == RQ_OK) {
        err = disk->ops->open(disk, wal_path, RQ_OPEN_READ | RQ_OPEN_NOFOLLOW, 0, &wal);
        if (err == RQ_OK) {
            err = peek_wal(disk, wal, ret_state->page_size, page1, frame);
            disk->ops->close(wal);
        } else if (err == RQ_NOTFOUND) {
            err = RQ_OK;
        }
        if (err == RQ_OK) {
            err = rq_page1_state(page1, ret_state);
        }
    }
    if (db != NULL) {
        disk->ops->close(db);
    }
    free(wal_path);
    free(page1);
    free(frame);
    return err;
}
