/* Scrub: walks through the database files in passes, at a pace that nobody notices, and compares each page with the hash of what
 * raftd wrote (vfs/page_hashes.h).  A database with another page is quarantined.
 *
 * Threads: the background thread. */
#ifndef RAFTD_DB_SCRUB_H
#define RAFTD_DB_SCRUB_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/db/catalog.h"

struct rq_scrub {
    uint64_t every_ms; /* from the start of one pass to that of the next; 0: never */
    /* Ours; starts as zeros. */
    uint32_t pass;
    bool walks;
    uint64_t next_ms, next_pass_ms;
};

/* Does what is due; lowers *due to when there is more. */
void rq_scrub_step(struct rq_scrub *s, struct rq_catalog *catalog, uint64_t now, uint64_t *due);

#endif
