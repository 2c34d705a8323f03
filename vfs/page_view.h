/* Page view: a database as of one transaction, page by page, for those who look at its structure. */
#ifndef VFS_PAGE_VIEW_H
#define VFS_PAGE_VIEW_H

#include <stdint.h>

#include "raftd/wire/err.h"

struct rq_page_view {
    void *ctx;
    uint32_t page_size, page_count;
    /* Pages from 1 to page_count; the first so many bytes of it. */
    enum rq_err (*read)(void *ctx, uint32_t pgno, uint8_t *page, uint32_t bytes);
};

#endif
