/* Replica, -shm: SQLite's rules for who makes it, our locks, and the publication of what we know.
 *
 * Others can write and shorten this file.  Nothing read from it is believed, but stock readers' marks (replica_backfill.c), which
 * protect only those readers.  To touch mapped memory past the end of a shortened file is SIGBUS: rq_replica_shm_whole() looks
 * at the size first and makes the file long enough again.  Who shortens it in the microsecond between still meets a process that
 * is not prepared for that (raftd is, raftd/ops/bus.h), and ends it and nothing else: it starts again as after any kill. */
#include <stdlib.h>
#include <string.h>

#include "vfs/replica_impl.h"

static const uint8_t zero_region[RQ_WAL_INDEX_REGION];

/* --- file and locks ----------------------------------------------------------------------------------------------------- */

enum rq_err rq_replica_shm_open(struct rq_replica *r, struct rq_file **ret_shm, bool *ret_made)
{
    const struct rq_disk_ops *ops = r->disk->ops;
    struct rq_file *shm;
    bool made = false;
    enum rq_err err = ops->open(r->disk, r->shm_path, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &shm);
    if (err == RQ_NOTFOUND) {
        made = true;
        err = ops->open(r->disk, r->shm_path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_NOFOLLOW, r->mode, &shm);
    }
    if (err != RQ_OK) {
        return err;
    }
    /* SQLite's dead man's switch: everybody who uses the file holds this byte shared, so who gets it exclusively is alone with
     * a file whose content means nothing any more. */
    err = ops->lock(shm, RQ_SHM_DMS, 1, RQ_EXCLUSIVE);
    if (err == RQ_OK) {
        err = ops->truncate(shm, 0);
    }
    if (err == RQ_OK || err == RQ_BUSY) {
        err = ops->lock(shm, RQ_SHM_DMS, 1, RQ_SHARED);
    }
    if (err == RQ_OK) {
        err = ops->lock(shm, RQ_SHM_WRITE, 1, RQ_EXCLUSIVE);
    }
    if (err == RQ_OK) {
        err = ops->lock(shm, RQ_SHM_CKPT, 1, RQ_SHARED);
    }
    if (err != RQ_OK) {
        ops->close(shm);
        return err;
    }
    *ret_shm = shm;
    *ret_made = made;
    return RQ_OK;
}

void rq_replica_shm_close(struct rq_replica *r)
{
    for (uint32_t i = 0; i < r->region_count; i++) {
        r->disk->ops->unmap(r->shm, r->regions[i], RQ_WAL_INDEX_REGION);
    }
    free((void *)r->regions);
    r->regions = NULL;
    r->region_count = 0;
    if (r->shm != NULL) {
        r->disk->ops->close(r->shm);
        r->shm = NULL;
    }
}

/* Makes the file so long, with written bytes: a hole could not be filled on a full disk, and to touch it would be SIGBUS. */
static enum rq_err shm_extend(struct rq_replica *r, uint64_t bytes, bool *ret_was_shorter)
{
    struct rq_file_info info;
    enum rq_err err = r->disk->ops->info(r->shm, &info);
    if (err != RQ_OK) {
        return err;
    }
    *ret_was_shorter = info.size < bytes;
    while (info.size < bytes) {
        const uint64_t in_region = RQ_WAL_INDEX_REGION - info.size % RQ_WAL_INDEX_REGION;
        const size_t n = (size_t)(bytes - info.size < in_region ? bytes - info.size : in_region);
        err = r->disk->ops->write(r->shm, zero_region, n, info.size);
        if (err != RQ_OK) {
            return err;
        }
        info.size += n;
    }
    return RQ_OK;
}

/* Who survives the touch of memory past the end of a shortened file by other memory in its place would go on writing there:
 * once the file is whole, its regions are mapped anew. */
static enum rq_err shm_remap(struct rq_replica *r)
{
    for (uint32_t i = 0; i < r->region_count; i++) {
        void *memory;
        enum rq_err err = r->disk->ops->map(r->shm, (uint64_t)i * RQ_WAL_INDEX_REGION, RQ_WAL_INDEX_REGION, &memory);
        if (err != RQ_OK) {
            return err;
        }
        r->disk->ops->unmap(r->shm, r->regions[i], RQ_WAL_INDEX_REGION);
        r->regions[i] = memory;
    }
    return RQ_OK;
}

bool rq_replica_shm_whole(struct rq_replica *r)
{
    bool was_shorter = false;
    enum rq_err err = shm_extend(r, (uint64_t)r->region_count * RQ_WAL_INDEX_REGION, &was_shorter);
    if (err == RQ_OK && was_shorter) {
        err = shm_remap(r);
    }
    r->index_stale = r->index_stale || was_shorter || err != RQ_OK;
    return err == RQ_OK && r->region_count > 0;
}

enum rq_err rq_replica_shm_grow(struct rq_replica *r, uint32_t frame)
{
    const uint32_t wanted = rq_wal_region_of(frame) + 1;
    if (wanted <= r->region_count) {
        return RQ_OK;
    }
    bool was_shorter;
    enum rq_err err = shm_extend(r, (uint64_t)wanted * RQ_WAL_INDEX_REGION, &was_shorter);
    if (err != RQ_OK) {
        return err;
    }
    uint8_t **grown = (uint8_t **)realloc((void *)r->regions, wanted * sizeof *grown);
    if (grown == NULL) {
        return RQ_NOMEM;
    }
    r->regions = grown;
    while (r->region_count < wanted) {
        void *memory;
        err = r->disk->ops->map(r->shm, (uint64_t)r->region_count * RQ_WAL_INDEX_REGION, RQ_WAL_INDEX_REGION, &memory);
        if (err != RQ_OK) {
            return err;
        }
        r->regions[r->region_count++] = memory;
    }
    return RQ_OK;
}

/* --- publication -------------------------------------------------------------------------------------------------------- */

struct rq_wal_ckpt_info *rq_replica_ckpt_info(struct rq_replica *r)
{
    return (struct rq_wal_ckpt_info *)(r->regions[0] + 2 * sizeof(struct rq_wal_index_head));
}

static struct rq_wal_index_head index_head(const struct rq_replica *r)
{
    const uint32_t *sum = rq_replica_sum_before(r, r->frames.committed + 1);
    struct rq_wal_index_head h = {
        .iChange = (uint32_t)r->state.version, /* with salts and checksum: two states never have the same header */
        .bigEndCksum = r->head.big_endian,
        .szPage = (uint16_t)((r->page_size & 0xff00u) | (r->page_size >> 16)),
        .mxFrame = r->frames.committed,
        .nPage = r->state.page_count,
        .aFrameCksum = { sum[0], sum[1] },
    };
    memcpy(h.aSalt, r->head.salt, sizeof h.aSalt);
    rq_wal_index_seal(&h);
    return h;
}

void rq_replica_publish_head(struct rq_replica *r)
{
    const struct rq_wal_index_head h = index_head(r);
    /* Readers take copy 0, then copy 1, and want both equal.  The last fence is the one of control.h: publish, then look at the
     * reader table. */
    atomic_thread_fence(memory_order_seq_cst);
    memcpy(r->regions[0] + sizeof h, &h, sizeof h);
    atomic_thread_fence(memory_order_seq_cst);
    memcpy(r->regions[0], &h, sizeof h);
    atomic_thread_fence(memory_order_seq_cst);
}

/* Makes one region what it must be.  An honest reader at work sees no difference: what it looks for lies where it lay. */
static void publish_region(struct rq_replica *r, uint32_t index)
{
    uint32_t *image = (uint32_t *)r->region_image;
    uint32_t *memory = (uint32_t *)r->regions[index];
    memset(image, 0, RQ_WAL_INDEX_REGION);
    for (uint32_t frame = rq_wal_region_first(index); frame <= r->frames.committed && rq_wal_region_of(frame) == index;
         frame++) {
        /* Cannot fail: the image was empty. */
        (void)rq_wal_region_put(r->region_image, frame, r->frames.frames[frame - 1].pgno);
    }
    const uint32_t first =
        index == 0 ? (2 * sizeof(struct rq_wal_index_head) + sizeof(struct rq_wal_ckpt_info)) / 4 : 0;
    for (uint32_t i = first; i < RQ_WAL_INDEX_REGION / 4; i++) {
        if (__atomic_load_n(&memory[i], __ATOMIC_RELAXED) != image[i]) {
            __atomic_store_n(&memory[i], image[i], __ATOMIC_RELAXED);
        }
    }
}

void rq_replica_publish_all(struct rq_replica *r)
{
    for (uint32_t i = 0; r->frames.committed > 0 && i <= rq_wal_region_of(r->frames.committed); i++) {
        publish_region(r, i);
    }
    struct rq_wal_ckpt_info *info = rq_replica_ckpt_info(r);
    if (__atomic_load_n(&info->nBackfill, __ATOMIC_RELAXED) != r->backfilled) {
        __atomic_store_n(&info->nBackfill, r->backfilled, __ATOMIC_SEQ_CST);
    }
    if (__atomic_load_n(&info->aReadMark[0], __ATOMIC_RELAXED) != 0) {
        __atomic_store_n(&info->aReadMark[0], 0, __ATOMIC_RELAXED);
    }
    const struct rq_wal_index_head h = index_head(r);
    if (memcmp(r->regions[0], &h, sizeof h) != 0 || memcmp(r->regions[0] + sizeof h, &h, sizeof h) != 0) {
        rq_replica_publish_head(r);
    }
    r->index_stale = false;
}

void rq_replica_publish_frames(struct rq_replica *r, uint32_t from)
{
    if (!rq_replica_shm_whole(r)) {
        return; /* readers see the old state until a later append or check can publish all of it */
    }
    if (r->index_stale) {
        rq_replica_publish_all(r);
        return;
    }
    for (uint32_t frame = from + 1; frame <= r->frames.committed; frame++) {
        if (rq_wal_index_put(r->regions, frame, r->frames.frames[frame - 1].pgno) != RQ_OK) {
            publish_region(r, rq_wal_region_of(frame));
        }
    }
    rq_replica_publish_head(r);
}

void rq_replica_publish_control(struct rq_replica *r)
{
    struct rq_control_head *head = r->control->head;
    atomic_store(&head->page_size, r->page_size);
    atomic_store(&head->db_id, r->state.stamp.db_id);
    atomic_store(&head->applied_index, r->state.stamp.index);
    atomic_store(&head->version, r->state.version);
    atomic_store(&head->drain, r->frames.committed >= r->wal_hard_frames ? 1u : 0u);
}
