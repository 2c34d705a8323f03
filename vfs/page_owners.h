/* Page owners: to which table each page of a database belongs: of its own b-tree, of its indices, or of what does not fit into a page
 * of these.
 *
 * For each page it keeps the page that leads to it.  That never has to be taken back: a page is owned when the pages that lead to it,
 * as they are now, really do, up to where a table's b-tree begins; so a page that was freed has no owner, although something once
 * led to it.  When a transaction puts a page elsewhere, the page that leads to it now was changed by that same transaction; so it is
 * enough to look at the pages that were changed.
 *
 * Memory: 5 bytes for each page.  Threads: one at a time. */
#ifndef VFS_PAGE_OWNERS_H
#define VFS_PAGE_OWNERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/page_view.h"
#include "vfs/table_list.h"

struct rq_page_owners;

struct rq_page_owner {
    uint32_t table;         /* RQ_TABLE_NONE: no table's: free, or one that says where others are */
    uint32_t virtual_table; /* that one is of it; or RQ_TABLE_NONE */
    bool structural;        /* leads to other pages, or is one of those that hold what did not fit */
};

enum rq_err rq_page_owners_new(struct rq_page_owners **ret_owners);
void rq_page_owners_free(struct rq_page_owners *o);

/* All anew, from view: reads every page of every table once.  CORRUPT: it is no database; nothing is known then. */
enum rq_err rq_page_owners_walk(struct rq_page_owners *o, const struct rq_page_view *view);

/* From the state that it knows to that of view, between which only these pages changed, ascending.  Errors as above; then walk. */
enum rq_err rq_page_owners_advance(struct rq_page_owners *o, const struct rq_page_view *view, const uint32_t *pgnos,
                                   size_t count);

/* Whose the page is, as of the view of the last walk or advance, which is given again. */
enum rq_err rq_page_owners_find(struct rq_page_owners *o, const struct rq_page_view *view, uint32_t pgno,
                                struct rq_page_owner *ret_owner);

/* Without a look at any page: right for one that had an owner, and perhaps another's for one that had none. */
void rq_page_owners_guess(const struct rq_page_owners *o, uint32_t pgno, struct rq_page_owner *ret_owner);

/* Their names; and which ones the last walk or advance saw come, go or change in sqlite_schema. */
const struct rq_table_list *rq_page_owners_tables(const struct rq_page_owners *o);
/* Did that one change sqlite_schema? */
bool rq_page_owners_schema_changed(const struct rq_page_owners *o);

#endif
