/* Change records: which pages the transactions of one database have changed, as the log has them.
 *
 * The log may hold records that had no effect, as they were not made on the head.  A record is never made on a state that was not
 * committed before it, so of those with one base it is the first that counts, and the ones that count follow on one another. */
#ifndef RAFTD_DB_CHANGE_RECORDS_H
#define RAFTD_DB_CHANGE_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/db/driver.h"
#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

/* One entry: a transaction, or a group of some that became visible together. */
struct rq_change_record {
    uint64_t base, version, index;
    size_t first_page;   /* of its pages, in pages of the list */
    uint32_t page_count; /* ascending */
    bool lost;           /* which pages is not known: too many, or the body is gone */
    bool frees;          /* pages may have been freed, or free ones taken */
    bool schema_number;  /* sqlite_schema has changed: so SQLite says in the header */
    bool schema_page;    /* page 1 was changed behind the header */
    bool whole;          /* the pages themselves are known, and not what is new in them: any of the three */
};

struct rq_change_records {
    struct rq_change_record *list; /* owns */
    size_t count, capacity;
    struct rq_bytes pages; /* numbers, as the machine has them */
};

struct rq_change_source {
    struct rq_driver *driver; /* borrow */
    struct rq_disk *disk;
    const char *staged_dir;
    uint32_t db_id;
};

void rq_change_records_init(struct rq_change_records *r);
void rq_change_records_fini(struct rq_change_records *r);

/* Those of entries behind `after` up to `until`, as far as the log still has them; what the list held before is gone.  A thread that
 * may wait. */
enum rq_err rq_change_records_read(struct rq_change_records *r, const struct rq_change_source *source, uint64_t after,
                                   uint64_t until);

/* Leaves those that count, from that base on.  NOTFOUND: they do not lead to that version; r is empty then. */
enum rq_err rq_change_records_follow(struct rq_change_records *r, uint64_t base, uint64_t version);

/* Leaves those that count and led to that version, which is of that entry: as many as it can be sure of, perhaps none. */
void rq_change_records_trace(struct rq_change_records *r, uint64_t version, uint64_t index);

static inline const uint32_t *rq_change_record_pages(const struct rq_change_records *r,
                                                     const struct rq_change_record *record)
{
    return (const uint32_t *)r->pages.data + record->first_page;
}

#endif
