/* Turn door: what a database asks of the cluster about its turn.  In a cluster of several hosts the turn of a database is at one of
 * them; the leader keeps a table of where, and moves it (raftd/cluster/turns.h).  Only who has it lets its applications take the
 * local turn (vfs/control.h).
 *
 * A holding has a serial number, given by the leader: later ones are greater.  0: from the time when this host was alone.
 * Nothing that touches data rests on any of it. */
#ifndef RAFTD_DB_TURN_DOOR_H
#define RAFTD_DB_TURN_DOOR_H

#include <stdbool.h>
#include <stdint.h>

/* Calls come on the database's strand, and must not wait. */
struct rq_turn_door {
    void *ctx;
    /* No other host is a member: whoever asks may write.  Any thread. */
    bool (*alone)(void *ctx);
    /* This host wants it: rq_database_turn_granted() or rq_database_turn_failed() follows, with the same attempt. */
    void (*take)(void *ctx, uint32_t db_id, uint64_t attempt);
    /* It is here now, until it is given or lost: each new leader is told. */
    void (*holds)(void *ctx, uint32_t db_id, uint64_t serial);
    /* The answer to rq_database_turn_wanted().  given: it is not here any more, and whoever has applied the log up to index has all
     * that was committed by it; 0: this host does not know.  Else it is still needed: ask again. */
    void (*answer)(void *ctx, uint32_t db_id, uint64_t serial, bool given, uint64_t index);
    /* It is not here any more, without having been asked for. */
    void (*lost)(void *ctx, uint32_t db_id, uint64_t serial);
    /* The database is gone. */
    void (*dropped)(void *ctx, uint32_t db_id);
};

#endif
