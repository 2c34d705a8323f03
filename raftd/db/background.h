/* Background: the one thread that does what nobody waits for: back-fill and reset of WALs, checks of the replicas against
 * changes by others, scrubbing them, freeing what dead processes held, and compaction of the log. */
#ifndef RAFTD_DB_BACKGROUND_H
#define RAFTD_DB_BACKGROUND_H

#include <stdint.h>

#include "raftd/db/catalog.h"
#include "raftd/db/driver.h"

struct rq_background;

struct rq_background_config {
    uint64_t compact_entries; /* since the last compaction: calls for one, looked at every compact_every_ms */
    uint64_t compact_every_ms;
    uint64_t compact_bytes;  /* of the log: calls for one at once */
    uint64_t scrub_every_ms; /* 0: never */
};

enum rq_err rq_background_new(const struct rq_background_config *config, struct rq_background **ret_background);
/* Starts the thread; until then stirring is only noted. */
enum rq_err rq_background_start(struct rq_background *b, struct rq_catalog *catalog, struct rq_driver *driver);
/* Ends the thread, which makes the database files complete before, where no reader is in the way. */
void rq_background_stop(struct rq_background *b);
/* Has the log compacted now, and waits for it.  NOTFOUND: nothing was committed since the last time.  AWAY: not in time.  Others as
 * rq_catalog_compact(), with text. */
enum rq_err rq_background_snapshot(struct rq_background *b, unsigned timeout_ms, char text[512]);
/* There is work, for a database that was quiet. */
void rq_background_stir(void *background);

#endif
