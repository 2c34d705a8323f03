/* Table list: which b-trees a database has, and of which table each is, as sqlite_schema says.
 *
 * Tables are known by a number that stays the same as long as the list lives, also when the table is dropped.  A table of a virtual table
 * (t_data of the FTS5 table t) is that table and the virtual one.
 * Bytes that make no sense are CORRUPT; the list is as it was then. */
#ifndef VFS_TABLE_LIST_H
#define VFS_TABLE_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/page_view.h"

#define RQ_TABLE_NONE   UINT32_MAX
#define RQ_TABLE_SCHEMA 0u /* sqlite_schema: its b-tree begins at page 1 */

struct rq_table_tree {
    uint32_t root;
    uint32_t table;
    uint32_t virtual_table; /* or RQ_TABLE_NONE */
};

struct rq_table_row; /* of sqlite_schema */

struct rq_table_list {
    char **names; /* owns; UTF-8 */
    uint32_t name_count;
    struct rq_table_tree *trees; /* owns; ascending by root; the first is sqlite_schema's */
    uint32_t tree_count;
    struct rq_table_row *rows; /* owns; sorted */
    uint32_t row_count;
    uint32_t *changed; /* owns: tables that came, went, or were changed between the last two readings; may repeat */
    uint32_t changed_count;
};

enum rq_err rq_table_list_init(struct rq_table_list *l);
void rq_table_list_fini(struct rq_table_list *l);

enum rq_err rq_table_list_read(struct rq_table_list *l, const struct rq_page_view *view);

/* NULL: no b-tree begins there. */
const struct rq_table_tree *rq_table_list_tree(const struct rq_table_list *l, uint32_t root);

#endif
