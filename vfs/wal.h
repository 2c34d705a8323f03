/* WAL: SQLite's write-ahead log and wal-index, as bytes.  Pure: no I/O, no state.
 * Format: https://sqlite.org/walformat.html; the names of fields are SQLite's. */
#ifndef VFS_WAL_H
#define VFS_WAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"

#define RQ_WAL_HEAD_BYTES   32u
#define RQ_WAL_FRAME_BYTES  24u
#define RQ_WAL_INDEX_REGION 32768u /* bytes of one region of -shm */

/* Lock bytes of -shm. */
enum { RQ_SHM_WRITE = 120, RQ_SHM_CKPT = 121, RQ_SHM_RECOVER = 122, RQ_SHM_READ0 = 123, RQ_SHM_DMS = 128 };
#define RQ_READ_MARKS       5
#define RQ_READ_MARK_UNUSED 0xffffffffu
/* Lock bytes of the database file. */
#define RQ_DB_PENDING      0x40000000ull
#define RQ_DB_SHARED       (RQ_DB_PENDING + 2)
#define RQ_DB_SHARED_BYTES 510u

/* wal-index header, as it lies in shared memory twice. */
struct rq_wal_index_head {
    uint32_t iVersion; /* 3007000 */
    uint32_t unused;
    uint32_t iChange;
    uint8_t isInit;
    uint8_t bigEndCksum;
    uint16_t szPage; /* 1 means 65536 */
    uint32_t mxFrame;
    uint32_t nPage;
    uint32_t aFrameCksum[2];
    uint32_t aSalt[2]; /* as the bytes lie in the WAL header */
    uint32_t aCksum[2];
};
struct rq_wal_ckpt_info {
    uint32_t nBackfill;
    uint32_t aReadMark[RQ_READ_MARKS];
    uint8_t aLock[8];
    uint32_t nBackfillAttempted;
    uint32_t notUsed0;
};
_Static_assert(sizeof(struct rq_wal_index_head) == 48, "SQLite's layout");
_Static_assert(sizeof(struct rq_wal_ckpt_info) == 40, "SQLite's layout");

struct rq_wal_head {
    uint32_t page_size;
    uint32_t checkpoint_count;
    uint8_t salt[8];
    uint32_t checksum[2];
    bool big_endian;
};

static inline uint64_t rq_wal_frame_offset(uint32_t frame, uint32_t page_size)
{
    return RQ_WAL_HEAD_BYTES + (uint64_t)(frame - 1) * (page_size + RQ_WAL_FRAME_BYTES);
}
static inline uint32_t rq_wal_index_page_size(const struct rq_wal_index_head *h)
{
    return (h->szPage & 0xfe00u) + ((h->szPage & 1u) << 16);
}

/* SQLite's running checksum over n bytes (a multiple of 8). */
void rq_wal_checksum(bool big_endian, const void *data, size_t n, const uint32_t in[2], uint32_t out[2]);

void rq_wal_head_encode(struct rq_wal_head *h, uint8_t out[RQ_WAL_HEAD_BYTES]); /* fills h->checksum */
enum rq_err rq_wal_head_decode(const uint8_t in[RQ_WAL_HEAD_BYTES], struct rq_wal_head *ret_head);

/* Encodes the 24 bytes in front of page; advances checksum. */
void rq_wal_frame_encode(const struct rq_wal_head *h, uint32_t checksum[2], uint32_t pgno, uint32_t commit_size,
                         const uint8_t *page, uint8_t out[RQ_WAL_FRAME_BYTES]);
/* CORRUPT when salt or checksum do not follow: the end of what was written. */
enum rq_err rq_wal_frame_decode(const struct rq_wal_head *h, uint32_t checksum[2], const uint8_t in[RQ_WAL_FRAME_BYTES],
                                const uint8_t *page, uint32_t *ret_pgno, uint32_t *ret_commit_size);

/* Header checksum of the wal-index. */
void rq_wal_index_seal(struct rq_wal_index_head *h);
bool rq_wal_index_valid(const struct rq_wal_index_head *h);

/* Hash table of the region that frame lies in.  regions[i] is the i-th 32 KiB region, NULL if not mapped. */
uint32_t rq_wal_region_of(uint32_t frame);
uint32_t rq_wal_region_first(uint32_t region); /* the first frame in it */
/* CORRUPT: somebody scribbled on the table so that there is no room; the region is to be cut and put anew. */
enum rq_err rq_wal_index_put(uint8_t *const *regions, uint32_t frame, uint32_t pgno);
/* The same, into the memory of the one region that frame lies in. */
enum rq_err rq_wal_region_put(uint8_t *region, uint32_t frame, uint32_t pgno);
/* Removes every entry beyond mxFrame from its region. */
void rq_wal_index_cut(uint8_t *const *regions, uint32_t mxFrame);
/* The newest frame in [min, max] with this page; 0: none.  Input from shared memory: any content ends, CORRUPT at worst. */
enum rq_err rq_wal_index_find(uint8_t *const *regions, uint32_t region_count, uint32_t min, uint32_t max, uint32_t pgno,
                              uint32_t *ret_frame);

#endif
