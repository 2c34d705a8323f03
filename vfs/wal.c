/* WAL: the bytes of SQLite's write-ahead log and wal-index.
 *
 * WAL file        32-byte header, then frames of 24 bytes + one page; integers are big-endian.
 *   header         0 magic 0x377f0682, +1 when checksums run over big-endian words   4 version 3007000   8 page size
 *                 12 checkpoint count  16 salt (8 bytes)  24 checksum (2 words) of bytes 0..23
 *   frame          0 page number  4 pages in the database after this commit, 0 if not the last frame of one
 *                  8 salt as in the header  16 checksum (2 words) of bytes 0..7 and the page, going on from the frame before
 *
 * wal-index       regions of 32 KiB: 4096 page numbers (u32), then 8192 hash slots (u16), of the host's byte order.
 *   The first 136 bytes of region 0 are the header (twice) and the checkpoint info, so it has 4062 page numbers only.
 *   A slot holds the place of a page number in its region, from 1; 0 is free.  Collisions go to the next slot.
 *   At most 4096 of 8192 slots are taken, so an honest table always has a free one; here that is not relied on.
 *
 * Shared memory is read and written with relaxed atomics: a word may change under us at any time, and no value of it makes
 * these functions run on or touch memory outside the region.  The order of publications is the caller's matter. */
#include "vfs/wal.h"

#include <string.h>

#include "raftd/wire/bytes.h"

#define WAL_MAGIC       0x377f0682u
#define WAL_VERSION     3007000u
#define INDEX_HEAD      136u
#define REGION_ENTRIES  4096u
#define REGION0_ENTRIES (REGION_ENTRIES - INDEX_HEAD / 4)
#define HASH_SLOTS      8192u

_Static_assert(2 * sizeof(struct rq_wal_index_head) + sizeof(struct rq_wal_ckpt_info) == INDEX_HEAD,
               "header of region 0");
_Static_assert(REGION_ENTRIES * 4 + HASH_SLOTS * 2 == RQ_WAL_INDEX_REGION, "layout of a region");

static const bool host_is_big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;

void rq_wal_checksum(bool big_endian, const void *data, size_t n, const uint32_t in[2], uint32_t out[2])
{
    const uint8_t *p = data;
    const bool swap = big_endian != host_is_big_endian;
    uint32_t s0 = in[0], s1 = in[1];
    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint32_t word[2];
        memcpy(word, p + i, sizeof word);
        if (swap) {
            word[0] = __builtin_bswap32(word[0]);
            word[1] = __builtin_bswap32(word[1]);
        }
        s0 += word[0] + s1;
        s1 += word[1] + s0;
    }
    out[0] = s0;
    out[1] = s1;
}

/* --- WAL file --------------------------------------------------------------------------------------------------------- */

void rq_wal_head_encode(struct rq_wal_head *h, uint8_t out[RQ_WAL_HEAD_BYTES])
{
    static const uint32_t zero[2];
    rq_put_u32(out, WAL_MAGIC | (h->big_endian ? 1u : 0u));
    rq_put_u32(out + 4, WAL_VERSION);
    rq_put_u32(out + 8, h->page_size);
    rq_put_u32(out + 12, h->checkpoint_count);
    memcpy(out + 16, h->salt, sizeof h->salt);
    rq_wal_checksum(h->big_endian, out, 24, zero, h->checksum);
    rq_put_u32(out + 24, h->checksum[0]);
    rq_put_u32(out + 28, h->checksum[1]);
}

enum rq_err rq_wal_head_decode(const uint8_t in[RQ_WAL_HEAD_BYTES], struct rq_wal_head *ret_head)
{
    static const uint32_t zero[2];
    struct rq_wal_head h;
    const uint32_t magic = rq_get_u32(in);
    if ((magic & ~1u) != WAL_MAGIC) {
        return RQ_CORRUPT;
    }
    h.big_endian = (magic & 1u) != 0;
    rq_wal_checksum(h.big_endian, in, 24, zero, h.checksum);
    if (h.checksum[0] != rq_get_u32(in + 24) || h.checksum[1] != rq_get_u32(in + 28)) {
        return RQ_CORRUPT;
    }
    if (rq_get_u32(in + 4) != WAL_VERSION) {
        return RQ_VERSION;
    }
    h.page_size = rq_get_u32(in + 8);
    if (h.page_size < 512 || h.page_size > 65536 || (h.page_size & (h.page_size - 1)) != 0) {
        return RQ_CORRUPT;
    }
    h.checkpoint_count = rq_get_u32(in + 12);
    memcpy(h.salt, in + 16, sizeof h.salt);
    *ret_head = h;
    return RQ_OK;
}

void rq_wal_frame_encode(const struct rq_wal_head *h, uint32_t checksum[2], uint32_t pgno, uint32_t commit_size,
                         const uint8_t *page, uint8_t out[RQ_WAL_FRAME_BYTES])
{
    rq_put_u32(out, pgno);
    rq_put_u32(out + 4, commit_size);
    memcpy(out + 8, h->salt, sizeof h->salt);
    rq_wal_checksum(h->big_endian, out, 8, checksum, checksum);
    rq_wal_checksum(h->big_endian, page, h->page_size, checksum, checksum);
    rq_put_u32(out + 16, checksum[0]);
    rq_put_u32(out + 20, checksum[1]);
}

enum rq_err rq_wal_frame_decode(const struct rq_wal_head *h, uint32_t checksum[2], const uint8_t in[RQ_WAL_FRAME_BYTES],
                                const uint8_t *page, uint32_t *ret_pgno, uint32_t *ret_commit_size)
{
    uint32_t sum[2];
    const uint32_t pgno = rq_get_u32(in);
    if (pgno == 0 || memcmp(in + 8, h->salt, sizeof h->salt) != 0) {
        return RQ_CORRUPT;
    }
    rq_wal_checksum(h->big_endian, in, 8, checksum, sum);
    rq_wal_checksum(h->big_endian, page, h->page_size, sum, sum);
    if (sum[0] != rq_get_u32(in + 16) || sum[1] != rq_get_u32(in + 20)) {
        return RQ_CORRUPT;
    }
    checksum[0] = sum[0];
    checksum[1] = sum[1];
    *ret_pgno = pgno;
    *ret_commit_size = rq_get_u32(in + 4);
    return RQ_OK;
}

/* --- wal-index -------------------------------------------------------------------------------------------------------- */

void rq_wal_index_seal(struct rq_wal_index_head *h)
{
    static const uint32_t zero[2];
    h->iVersion = WAL_VERSION;
    h->isInit = 1;
    rq_wal_checksum(host_is_big_endian, h, offsetof(struct rq_wal_index_head, aCksum), zero, h->aCksum);
}

bool rq_wal_index_valid(const struct rq_wal_index_head *h)
{
    static const uint32_t zero[2];
    uint32_t sum[2];
    rq_wal_checksum(host_is_big_endian, h, offsetof(struct rq_wal_index_head, aCksum), zero, sum);
    return h->isInit != 0 && h->iVersion == WAL_VERSION && sum[0] == h->aCksum[0] && sum[1] == h->aCksum[1];
}

uint32_t rq_wal_region_of(uint32_t frame)
{
    return frame <= REGION0_ENTRIES ? 0 : (frame - REGION0_ENTRIES - 1) / REGION_ENTRIES + 1;
}

uint32_t rq_wal_region_first(uint32_t region)
{
    return region == 0 ? 1 : REGION0_ENTRIES + (region - 1) * REGION_ENTRIES + 1;
}

/* One region, seen as its two arrays. */
struct region {
    uint32_t *pgno; /* pgno[i] is the page of frame before + 1 + i */
    uint16_t *slot;
    uint32_t entries;
    uint32_t before; /* frames in the regions before this one */
};

static struct region region_view(uint8_t *memory, uint32_t index)
{
    struct region r = { .slot = (uint16_t *)(memory + (size_t)REGION_ENTRIES * 4) };
    if (index == 0) {
        r.pgno = (uint32_t *)(memory + INDEX_HEAD);
        r.entries = REGION0_ENTRIES;
    } else {
        r.pgno = (uint32_t *)memory;
        r.entries = REGION_ENTRIES;
        r.before = rq_wal_region_first(index) - 1;
    }
    return r;
}

static uint32_t slot_of(uint32_t pgno)
{
    return (pgno * 383u) & (HASH_SLOTS - 1);
}

/* Forgets all entries of r but the first keep. */
static void region_cut(const struct region *r, uint32_t keep)
{
    for (uint32_t i = 0; i < HASH_SLOTS; i++) {
        if (__atomic_load_n(&r->slot[i], __ATOMIC_RELAXED) > keep) {
            __atomic_store_n(&r->slot[i], 0, __ATOMIC_RELAXED);
        }
    }
    for (uint32_t i = keep; i < r->entries; i++) {
        __atomic_store_n(&r->pgno[i], 0, __ATOMIC_RELAXED);
    }
}

enum rq_err rq_wal_region_put(uint8_t *region, uint32_t frame, uint32_t pgno)
{
    const struct region r = region_view(region, rq_wal_region_of(frame));
    const uint32_t place = frame - r.before; /* from 1 */

    /* The first entry of a region finds whatever an earlier life of the WAL left there, and an entry that is taken already is
     * that of a writer who died before it published its header. */
    if (place == 1 || __atomic_load_n(&r.pgno[place - 1], __ATOMIC_RELAXED) != 0) {
        region_cut(&r, place - 1);
    }
    uint32_t slot = slot_of(pgno);
    uint32_t taken = 0;
    while (__atomic_load_n(&r.slot[slot], __ATOMIC_RELAXED) != 0) {
        if (++taken == place) {
            return RQ_CORRUPT; /* more in the table than was ever put in */
        }
        slot = (slot + 1) & (HASH_SLOTS - 1);
    }
    __atomic_store_n(&r.pgno[place - 1], pgno, __ATOMIC_RELAXED);
    /* Release: never found before its page number is there. */
    __atomic_store_n(&r.slot[slot], (uint16_t)place, __ATOMIC_RELEASE);
    return RQ_OK;
}

enum rq_err rq_wal_index_put(uint8_t *const *regions, uint32_t frame, uint32_t pgno)
{
    return rq_wal_region_put(regions[rq_wal_region_of(frame)], frame, pgno);
}

void rq_wal_index_cut(uint8_t *const *regions, uint32_t mxFrame)
{
    const uint32_t index = rq_wal_region_of(mxFrame);
    const struct region r = region_view(regions[index], index);
    region_cut(&r, mxFrame - r.before);
}

enum rq_err rq_wal_index_find(uint8_t *const *regions, uint32_t region_count, uint32_t min, uint32_t max, uint32_t pgno,
                              uint32_t *ret_frame)
{
    if (min == 0) {
        min = 1;
    }
    *ret_frame = 0;
    if (max < min) {
        return RQ_OK;
    }
    for (uint32_t index = rq_wal_region_of(max) + 1; index-- > rq_wal_region_of(min);) {
        if (index >= region_count || regions[index] == NULL) {
            return RQ_CORRUPT;
        }
        const struct region r = region_view(regions[index], index);
        uint32_t newest = 0;
        uint32_t slot = slot_of(pgno);
        for (uint32_t probes = 0;; probes++) {
            const uint32_t place = __atomic_load_n(&r.slot[slot], __ATOMIC_ACQUIRE);
            if (place == 0) {
                break;
            }
            if (probes == HASH_SLOTS) {
                return RQ_CORRUPT;
            }
            /* Frames of one page lie in the order of the chain, but for what a cut moved: take the greatest. */
            if (place <= r.entries && r.before + place >= min && r.before + place <= max && place > newest &&
                __atomic_load_n(&r.pgno[place - 1], __ATOMIC_RELAXED) == pgno) {
                newest = place;
            }
            slot = (slot + 1) & (HASH_SLOTS - 1);
        }
        if (newest != 0) {
            *ret_frame = r.before + newest;
            return RQ_OK;
        }
    }
    return RQ_OK;
}
