/* Change tables: which tables each of some transactions has changed, found from the pages that it changed.
 *
 * Transactions come in batches, with the database as it is after the last one.  Whose a page was between two of them is known as long as
 * none of those behind can have handed a page from one table to another: for that it takes freed pages, or one transaction that changes
 * the structure of two tables.  Before such a one
 *   - of transactions that were followed each names the tables of the whole batch: more than it has changed, perhaps, never less;
 *   - of transactions from before the beginning nothing is said. */
#ifndef RAFTD_DB_CHANGE_TABLES_H
#define RAFTD_DB_CHANGE_TABLES_H

#include <stdbool.h>

#include "raftd/db/change_records.h"
#include "raftd/wire/err.h"
#include "vfs/page_view.h"

/* Names, each ending with 0, in the order of their bytes; shared. */
struct rq_table_names {
    unsigned refs;
    size_t bytes;
    char text[];
};
void rq_table_names_unref(struct rq_table_names *n); /* NULL is fine */

struct rq_change_tables;

enum rq_err rq_change_tables_new(struct rq_change_tables **ret_tables);
void rq_change_tables_free(struct rq_change_tables *t);

/* Those of each record; NULL: not known.  view: the database after the last one.  The first batch, which may be empty, is of
 * transactions from before the beginning; each other one follows on the one before it.  ret_names: room for records->count. */
enum rq_err rq_change_tables_find(struct rq_change_tables *t, const struct rq_page_view *view,
                                  const struct rq_change_records *records, struct rq_table_names **ret_names);

/* The next batch does not follow on this one: it is a first batch again. */
void rq_change_tables_restart(struct rq_change_tables *t);

#endif
