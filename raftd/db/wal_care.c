#include "raftd/db/wal_care.h"

#include "raftd/ops/journal.h"

#define IDLE_MS       50  /* after so long without a commit a database file is made complete, so that a copy of it is */
#define BLOCKED_MS    250 /* a reader is in the way: look again */
#define OVER_LIMIT_MS 10  /* the WAL is too long, and readers are asked to leave it */
#define SHRINK_MS     3000 /* for the next big transaction a long WAL keeps its space so long */
#define FILLS_MAX     4

uint64_t rq_wal_care(struct rq_database *db, struct rq_replica *r, uint64_t now, bool leaving, uint32_t *waits)
{
    struct rq_replica_wal wal;
    const uint64_t quiet_since = rq_database_last_use(db);
    const bool quiet = leaving || now >= quiet_since + IDLE_MS;
    uint64_t due = UINT64_MAX;
    bool blocked = false; /* now; wal.blocked may be of a reset that failed a while ago */
    enum rq_err err = RQ_OK;

    rq_replica_get_wal(r, &wal);
    if (wal.frames == 0) {
        if ((leaving || now >= quiet_since + SHRINK_MS) && rq_replica_shrink(r) == RQ_IO) {
            rq_fatal("a WAL could not be shortened", RQ_IO);
        }
        rq_database_settled(db);
        rq_replica_get_wal(r, &wal); /* one that came meanwhile did not stir */
        return wal.frames > 0 ? now + IDLE_MS : due;
    }
    if (!quiet) {
        due = quiet_since + IDLE_MS;
    }
    if (!quiet && wal.frames < RQ_WAL_SOFT_FRAMES) {
        return due;
    }
    /* Beside a steady writer each back-fill leaves less to the next, until a reset can do the rest with the writer held off. */
    for (int i = 0; i < FILLS_MAX && err == RQ_OK && (quiet || wal.frames - wal.backfilled > RQ_RESET_REST_FRAMES);
         i++) {
        err = rq_replica_backfill(r);
        rq_replica_get_wal(r, &wal);
        blocked = wal.blocked;
        if (blocked || wal.backfilled == wal.frames) {
            break;
        }
    }
    if (err == RQ_OK && !blocked) {
        err = rq_replica_reset(r);
        rq_replica_get_wal(r, &wal);
    }
    if (err == RQ_IO) {
        rq_fatal("a replica could not be written", err);
    }
    if (err == RQ_CORRUPT) {
        rq_database_quarantine(db, "a frame in -wal was changed by somebody else");
    } else if (err != RQ_OK && err != RQ_BUSY) {
        const bool told = *waits == rq_database_id(db);
        rq_note(told ? RQ_LEVEL_DEBUG : RQ_LEVEL_WARN, "back-fill has to wait", "id=%u err=%s", rq_database_id(db),
                rq_err_name(err));
        *waits = rq_database_id(db);
    }
    if (wal.frames == 0) {
        return now; /* to see that nothing came meanwhile */
    }
    if (wal.blocked) {
        rq_database_sweep(db); /* a reader that was killed blocks nobody */
    }
    const uint64_t again = now + (wal.frames >= RQ_WAL_HARD_FRAMES ? OVER_LIMIT_MS : BLOCKED_MS);
    return again < due ? again : due;
}
