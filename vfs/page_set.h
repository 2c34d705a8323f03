/* Page set: page numbers, a bit for each up to the highest. */
#ifndef VFS_PAGE_SET_H
#define VFS_PAGE_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"

struct rq_page_set { /* zeroed: empty */
    uint64_t *words; /* owns */
    size_t word_count;
    uint32_t count; /* pages that are in */
};

void rq_page_set_fini(struct rq_page_set *s); /* empty again */

/* pgno > 0.  NOMEM. */
enum rq_err rq_page_set_put(struct rq_page_set *s, uint32_t pgno);
void rq_page_set_drop(struct rq_page_set *s, uint32_t pgno);
bool rq_page_set_has(const struct rq_page_set *s, uint32_t pgno);
/* The lowest page that is not below from; 0: none is. */
uint32_t rq_page_set_next(const struct rq_page_set *s, uint32_t from);

#endif
