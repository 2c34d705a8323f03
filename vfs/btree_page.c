#include "vfs/btree_page.h"

#include <stddef.h>

#include "raftd/wire/bytes.h"

enum {
    FILE_HEAD_BYTES = 100,
    INTERIOR_INDEX = 2,
    INTERIOR_TABLE = 5,
    LEAF_INDEX = 10,
    LEAF_TABLE = 13,
    VARINT_BYTES_MAX = 9,
};

const uint8_t *rq_btree_get_varint(const uint8_t *p, const uint8_t *end, uint64_t *ret_v)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < VARINT_BYTES_MAX && p < end; i++) {
        const uint8_t byte = *p++;
        if (i == VARINT_BYTES_MAX - 1) { /* the ninth has all its bits */
            *ret_v = v << 8 | byte;
            return p;
        }
        v = v << 7 | (byte & 0x7fu);
        if (byte < 0x80) {
            *ret_v = v;
            return p;
        }
    }
    return NULL;
}

enum rq_err rq_btree_page_init(struct rq_btree_page *p, const uint8_t *bytes, uint32_t pgno, uint32_t page_size,
                               uint8_t reserved)
{
    const uint32_t head = pgno == 1 ? FILE_HEAD_BYTES : 0;
    const uint8_t kind = bytes[head];
    const bool interior = kind == INTERIOR_INDEX || kind == INTERIOR_TABLE;
    if (!interior && kind != LEAF_INDEX && kind != LEAF_TABLE) {
        return RQ_CORRUPT;
    }
    *p = (struct rq_btree_page){
        .bytes = bytes,
        .usable = page_size - reserved,
        .cells_at = head + (interior ? 12 : 8),
        .cell_count = rq_get_u16(bytes + head + 3),
        .right_child = interior ? rq_get_u32(bytes + head + 8) : 0,
        .of_table = kind == INTERIOR_TABLE || kind == LEAF_TABLE,
    };
    const bool fits = p->cells_at + 2 * p->cell_count <= p->usable;
    return fits && (p->right_child != 0) == interior ? RQ_OK : RQ_CORRUPT;
}

/* How much of a payload is in its cell. */
static uint32_t local_bytes(const struct rq_btree_page *p, uint64_t payload)
{
    const uint32_t least = (p->usable - 12) * 32 / 255 - 23;
    const uint32_t most = p->of_table ? p->usable - 35 : (p->usable - 12) * 64 / 255 - 23;
    if (payload <= most) {
        return (uint32_t)payload;
    }
    const uint32_t rest = least + (uint32_t)((payload - least) % (p->usable - 4));
    return rest <= most ? rest : least;
}

enum rq_err rq_btree_page_cell(const struct rq_btree_page *p, uint32_t i, struct rq_btree_cell *ret_cell)
{
    const uint8_t *end = p->bytes + p->usable;
    const uint32_t at = rq_get_u16(p->bytes + p->cells_at + (size_t)2 * i);
    struct rq_btree_cell c = { 0 };
    uint64_t rowid;
    if (at < p->cells_at + 2 * p->cell_count || at + 4 > p->usable) {
        return RQ_CORRUPT;
    }
    const uint8_t *next = p->bytes + at;
    if (p->right_child != 0) {
        c.child = rq_get_u32(next);
        next += 4;
        if (c.child == 0) {
            return RQ_CORRUPT;
        }
    }
    if (p->of_table && p->right_child != 0) { /* a rowid, nothing else */
        *ret_cell = c;
        return RQ_OK;
    }
    next = rq_btree_get_varint(next, end, &c.payload_bytes);
    if (next != NULL && p->of_table) {
        next = rq_btree_get_varint(next, end, &rowid);
    }
    if (next == NULL) {
        return RQ_CORRUPT;
    }
    c.payload = next;
    c.local_bytes = local_bytes(p, c.payload_bytes);
    const bool all = c.local_bytes == c.payload_bytes;
    if ((size_t)(end - next) < c.local_bytes + (all ? 0u : 4u)) {
        return RQ_CORRUPT;
    }
    if (!all) {
        c.overflow = rq_get_u32(next + c.local_bytes);
        if (c.overflow == 0) {
            return RQ_CORRUPT;
        }
    }
    *ret_cell = c;
    return RQ_OK;
}
