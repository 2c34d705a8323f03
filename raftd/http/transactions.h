/* Transactions: those that HTTP clients keep open from one request to the next, each on a connection of its own to this host's file.
 *
 *            begin                 take                  commit, rollback, the error of a statement
 *   (begins) -----> open and idle <----> in use by one request ------------------------------------> over
 *                        \----- idle, or old, for too long; in others' way -------------------------/
 *
 * A transaction lives on the node where it was begun, in memory.  Its id is a secret: who has it, and the permission for SQL, may use it.
 * It names the node, so that another one can say where to go.  What became of one that is over is known for the next RQ_TX_REMEMBERED.
 *
 * Others do not wait for who does nothing: a transaction that has the database's turn, has been idle for RQ_TX_GIVES_WAY_MS, and
 * stands in the way of a writer of this or another host, is rolled back.  (A host that waits would take the turn from it then.)
 *
 * Threads: any; what is in use is that thread's.  Whatever touches a connection may wait for a disk or a writer. */
#ifndef RAFTD_HTTP_TRANSACTIONS_H
#define RAFTD_HTTP_TRANSACTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/http/desk.h"
#include "raftd/http/sql_connection.h"
#include "raftd/wire/err.h"

#define RQ_TX_ID_BYTES      (16 + 1 + 32) /* instance and a random number, in hex */
#define RQ_TX_REMEMBERED    1024u
#define RQ_TX_GIVES_WAY_MS  2000u
#define RQ_TX_BEGINNING_MAX 32u    /* so many may wait for the turn at once */
#define RQ_TX_TURN_WAIT_MS  10000u /* so long at most, as other writes over HTTP */
#define RQ_TX_TEXT_MAX      256u

struct rq_transactions;
struct rq_transaction;

struct rq_transactions_config {
    uint64_t instance; /* of this node */
    unsigned open_max;
    uint64_t idle_ms;     /* without a request for so long it is rolled back; a client may ask for another time */
    uint64_t lifetime_ms; /* after so long in any case; also the most that a client may ask for */
};

enum rq_err rq_transactions_new(const struct rq_transactions_config *config, struct rq_transactions **ret_t);
const struct rq_transactions_config *rq_transactions_config(const struct rq_transactions *t);
unsigned rq_transactions_open(struct rq_transactions *t);
/* Now and then: rolls back whose time is over. */
void rq_transactions_sweep(struct rq_transactions *t);
/* No more of them; those that are idle are rolled back. */
void rq_transactions_stop(struct rq_transactions *t);

struct rq_tx_wish {
    struct rq_desk *desk; /* open; counted for as long as it lives */
    bool deferred;        /* no turn before the first statement that writes */
    uint64_t idle_ms;
    uint64_t wait_ms; /* for the turn */
};

/* In use by the caller.  TOOBIG: there are too many; SHUTDOWN; BUSY: another writer has the turn.  Else text is what SQLite says. */
enum rq_err rq_transaction_begin(struct rq_transactions *t, const struct rq_tx_wish *wish,
                                 struct rq_transaction **ret_tx, char text[RQ_TX_TEXT_MAX]);

/* How one ended. */
enum rq_tx_end {
    RQ_TX_COMMITTED,
    RQ_TX_ROLLED_BACK, /* by its client */
    RQ_TX_IDLE,
    RQ_TX_OLD,
    RQ_TX_GAVE_WAY,
    RQ_TX_FAILED,  /* SQLite has rolled it back, because of an error */
    RQ_TX_REFUSED, /* its COMMIT has failed: nothing of it has happened */
    RQ_TX_UNKNOWN, /* the outcome of its COMMIT is not known yet */
    RQ_TX_STOPPED,
};

struct rq_tx_found {
    struct rq_transaction *tx; /* OK */
    uint64_t instance;         /* FOREIGN: it is on that node */
    bool was;                  /* NOTFOUND: there was one, and this is how it ended */
    enum rq_tx_end end;
    uint64_t index; /* COMMITTED: of the log, 0: it wrote nothing */
};

/* To use it.  database: that it is expected to be of; NULL: any.  BUSY: another request uses it; FOREIGN; NOTFOUND. */
enum rq_err rq_transaction_take(struct rq_transactions *t, const char *id, const char *database,
                                struct rq_tx_found *ret);
/* What became of one whose COMMIT was UNKNOWN; waits until then. */
void rq_transaction_ask(struct rq_transactions *t, const char *id, uint64_t deadline_ms, struct rq_tx_found *ret);

/* --- in use --------------------------------------------------------------------------------------------------------------- */

const char *rq_transaction_id(const struct rq_transaction *tx);
const char *rq_transaction_database(const struct rq_transaction *tx); /* its name */
struct rq_sql_connection *rq_transaction_connection(struct rq_transaction *tx);
uint64_t rq_transaction_left_ms(const struct rq_transaction *tx); /* of its lifetime */

/* Not in use any more.  False: it is over, because SQLite has rolled it back. */
bool rq_transaction_give(struct rq_transaction *tx);

struct rq_tx_outcome {
    bool open; /* a constraint that is looked at at the end is violated: it is not in use any more, and may be mended */
    enum rq_err err; /* OK: committed, or UNKNOWN, or why not */
    uint64_t index;
    char text[RQ_TX_TEXT_MAX]; /* SQLite's, when it is not OK */
};
/* Over afterwards, unless it says so. */
void rq_transaction_commit(struct rq_transaction *tx, uint64_t deadline_ms, struct rq_tx_outcome *ret);
void rq_transaction_rollback(struct rq_transaction *tx);

#endif
