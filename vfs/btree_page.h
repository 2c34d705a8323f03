/* B-tree page: what one page of a table's or an index's b-tree holds (https://sqlite.org/fileformat2.html#b_tree_pages): its cells,
 * and which other pages it leads to.
 *
 * Any bytes are answered, none is trusted: CORRUPT, or only places within the page. */
#ifndef VFS_BTREE_PAGE_H
#define VFS_BTREE_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"

struct rq_btree_page {
    const uint8_t *bytes; /* borrows */
    uint32_t usable;      /* of the page: what is behind is reserved for extensions */
    uint32_t cells_at;    /* their pointers */
    uint32_t cell_count;
    uint32_t right_child; /* 0: a leaf */
    bool of_table;        /* with rowids; else of an index, or of a table without rowids */
};

struct rq_btree_cell {
    uint32_t child;    /* 0: in a leaf */
    uint32_t overflow; /* first page of what does not fit here; 0: all of it does */
    uint64_t payload_bytes;
    uint32_t local_bytes; /* so many of them are here */
    const uint8_t *payload;
};

/* reserved: byte 20 of page 1. */
enum rq_err rq_btree_page_init(struct rq_btree_page *p, const uint8_t *bytes, uint32_t pgno, uint32_t page_size,
                               uint8_t reserved);
enum rq_err rq_btree_page_cell(const struct rq_btree_page *p, uint32_t i, struct rq_btree_cell *ret_cell);

/* A number of up to 64 bits as SQLite writes it; NULL: cut off. */
const uint8_t *rq_btree_get_varint(const uint8_t *p, const uint8_t *end, uint64_t *ret_v);

#endif
