/* Page 1: the head of a database file that a test writes page by page. */
#ifndef TESTS_SUPPORT_PAGE1_H
#define TESTS_SUPPORT_PAGE1_H

#include <string.h>

#include "raftd/wire/bytes.h"

/* The first hundred bytes, as SQLite leaves them at that version in rollback mode. */
static inline void page1_head(uint8_t *page1, uint32_t page_size, uint64_t version, uint32_t page_count)
{
    memset(page1, 0, 100);
    memcpy(page1, "SQLite format 3", 16);
    rq_put_u16(page1 + 16, page_size == 65536 ? 1 : (uint16_t)page_size);
    page1[18] = page1[19] = 1;
    rq_put_u32(page1 + 24, (uint32_t)version);
    rq_put_u32(page1 + 28, page_count);
    rq_put_u32(page1 + 92, (uint32_t)version);
}

#endif
