/* SQL connection: a SQLite connection that runs what clients send.
 *
 * It knows prepared statements by their text, so that what comes again and again is compiled once; refuses what would reach past
 * its database; says which statements would end a transaction; and stops what takes longer than it may.
 *
 * Threads: one at a time, as its sqlite3 *.  While it is in use, authorizer and progress handler of the sqlite3 * are its own. */
#ifndef RAFTD_HTTP_SQL_CONNECTION_H
#define RAFTD_HTTP_SQL_CONNECTION_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/http/sql_shape.h"
#include "raftd/wire/err.h"

struct rq_sql_cache;

struct rq_sql_connection {
    sqlite3 *db; /* borrows until fini */
    /* So long a statement that wants to write waits for another writer, in a transaction that has read: where SQLite itself does not
     * wait, and there is no need not to, since nobody waits for who reads.  0: not at all */
    uint32_t turn_wait_ms;
    uint32_t budget; /* so many thousand steps of SQLite's machine for each run, then it is TOO_LONG; 0: any number */
    /* Has whom the run is for gone away?  Is asked now and then; NULL: it goes on for whomever. */
    bool (*has_left)(void *ctx);
    void *ctx;

    /* Private. */
    struct rq_sql_cache *cache; /* owns */
    uint64_t deadline_ns;       /* 0: none */
    uint32_t spent;
    bool running, too_long, timed_out, left;
    bool failed; /* a statement, since somebody asked whether it is outdated */
    bool preparing;
    bool ends_transaction, pragma; /* what is being prepared */
    const char *column_name;
    const char *refused; /* why the authorizer refused; NULL: it did not */
};

enum rq_err rq_sql_connection_init(struct rq_sql_connection *c, sqlite3 *db);
/* Before sqlite3_close(): its prepared statements are finalized. */
void rq_sql_connection_fini(struct rq_sql_connection *c);
/* Instead of fini, when db is closed already, its statements being finalized: as executors do. */
void rq_sql_connection_forget(struct rq_sql_connection *c);

/* A statement on its connection, from rq_sql_prepare() to rq_sql_release(). */
struct rq_sql_prepared {
    sqlite3_stmt *stmt; /* NULL: nothing but blanks and comments */
    bool ends_transaction;
    bool pragma;
    const char *column_name; /* its one column is called so, whatever SQLite says; NULL: as SQLite says */
    struct rq_sql_shape shape;

    /* Private: of the cache. */
    struct rq_sql_prepared *older, *newer, *chain;
    uint64_t hash;
    char *sql; /* owns; NULL: not in the cache */
    size_t bytes;
    bool in_use;
};

/* The first statement of sql, which ends with a zero byte.  SQLITE_OK, or a code whose text rq_sql_error() has.  ret_tail: behind
 * it and the blanks after it. */
int rq_sql_prepare(struct rq_sql_connection *c, const char *sql, size_t bytes, struct rq_sql_prepared **ret_prepared,
                   const char **ret_tail);
/* Resets it, and takes from it what was bound. */
void rq_sql_release(struct rq_sql_prepared *p);
/* What the last call on the connection, which failed, says. */
const char *rq_sql_error(struct rq_sql_connection *c);

/* A run begins: what it may take.  timeout_ns 0: any time. */
void rq_sql_connection_begin(struct rq_sql_connection *c, uint64_t timeout_ns);
/* It has ended: what comes next takes as long as it takes. */
void rq_sql_connection_end(struct rq_sql_connection *c);
/* After SQLITE_BUSY: waits for a moment, unless that was for too long already, or is not to be.  since_ms: 0 at first. */
bool rq_sql_connection_await_turn(struct rq_sql_connection *c, uint64_t *since_ms);
/* Outside of a transaction: is it good for nothing, since the database has got another text encoding, which SQLite takes for a
 * connection once and for all?  Then no statement can be prepared any more, by whoever is to use it next. */
bool rq_sql_connection_outdated(struct rq_sql_connection *c);
/* Is the time of the run over? */
bool rq_sql_connection_late(struct rq_sql_connection *c);
/* Asks has_left() now. */
bool rq_sql_connection_left(struct rq_sql_connection *c);

#endif
