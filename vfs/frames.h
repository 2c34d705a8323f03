/* Frames: what raftd itself knows of a WAL: which page each frame holds, its checksum, and the newest frame of each page.
 *
 * Made from frames whose checksums were verified, or that we wrote; never from shared memory.
 * Frames are added in two steps, so that a transaction that fails half way leaves no trace: rq_frames_add() behind the committed
 * ones, then rq_frames_commit(), which cannot fail.
 * Threads: none of its own; the owner's mutex. */
#ifndef VFS_FRAMES_H
#define VFS_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"

struct rq_frame {
    uint32_t pgno;
    uint32_t checksum[2]; /* running, after this frame: with the one before it, a frame can be verified alone */
};

struct rq_frames {
    struct rq_frame *frames; /* owns; frame number n is frames[n - 1] */
    uint32_t committed;
    uint32_t added; /* >= committed */
    uint32_t capacity;
    uint32_t *newest;    /* owns; open addressing: number of the newest committed frame of a page, 0 free */
    uint32_t slot_count; /* a power of two, or 0 */
};

void rq_frames_init(struct rq_frames *f);
void rq_frames_fini(struct rq_frames *f);

/* Room for count more frames: NOMEM, or FULL past 2^30 frames. */
enum rq_err rq_frames_reserve(struct rq_frames *f, uint32_t count);
/* After a reserve for it. */
void rq_frames_add(struct rq_frames *f, uint32_t pgno, const uint32_t checksum[2]);
void rq_frames_commit(struct rq_frames *f);
void rq_frames_rollback(struct rq_frames *f); /* forgets what was added since the last commit */
void rq_frames_clear(struct rq_frames *f);

/* 0: the page is in no committed frame. */
uint32_t rq_frames_find(const struct rq_frames *f, uint32_t pgno);

#endif
