/* Desk: where the SQL of HTTP clients is run on one database of this host.
 *
 *   what may write   its executor (raftd/db/executor.h), which is started for the first such request
 *   what only reads  connections of this host's own, each used by one thread at a time: they wait for nobody, and nobody for them
 *   transactions     a connection for each that a client keeps open (transactions.h)
 *
 * A desk that nobody has used for a minute, or whose database is gone, is cleared away with all its connections.
 * Any thread. */
#ifndef RAFTD_HTTP_DESK_H
#define RAFTD_HTTP_DESK_H

#include <stdbool.h>
#include <stddef.h>

#include "raftd/db/catalog.h"
#include "raftd/db/direct_sink.h"
#include "raftd/db/executor.h"
#include "raftd/http/sql_connection.h"
#include "raftd/wire/err.h"

struct rq_desk;
struct rq_desks;

struct rq_desks_config {
    struct rq_catalog *catalog; /* borrows */
    const char *dir;            /* the served directory; borrows */
    struct rq_disk *disk;       /* borrows */
    const char *staged_dir;     /* borrows: for transactions that are large */
    bool foreign_keys;
    unsigned readers_max; /* connections of one database at once; 0: any number */
};

enum rq_err rq_desks_new(const struct rq_desks_config *config, struct rq_desks **ret_desks);
/* Nobody has a desk any more. */
void rq_desks_free(struct rq_desks *d);
/* Clears away; may wait for a moment. */
void rq_desks_sweep(struct rq_desks *d);

/* Counted.  NOTFOUND: no such database. */
enum rq_err rq_desk_find(struct rq_desks *d, const char *name, size_t bytes, struct rq_desk **ret_desk);
struct rq_desk *rq_desk_ref(struct rq_desk *k);
void rq_desk_unref(struct rq_desk *k);
struct rq_database *rq_desk_database(struct rq_desk *k); /* borrows */

/* The files of the database were opened, or it was seen that there are none yet: whoever finds this false posts a task to its strand,
 * and says so from there.  Before that nobody can connect. */
bool rq_desk_is_open(const struct rq_desk *k);
void rq_desk_opened(struct rq_desk *k);

/* The desk is held until the request is done.  NOMEM: it was not queued. */
enum rq_err rq_desk_queue(struct rq_desk *k, struct rq_sql_request *request);
/* rq_executor_carry(); the desk is held until this has returned, too. */
enum rq_err rq_desk_carry(struct rq_desk *k, struct rq_sql_request *request);

/* When there are too many already: waits for one, or BUSY. */
enum rq_err rq_desk_take_reader(struct rq_desk *k, bool wait, struct rq_sql_connection **ret_reader);
/* False: it was outdated.  Nothing that it said counts; it is closed, and those that were made before it, and others that can read
 * are to be had. */
bool rq_desk_give_reader(struct rq_desk *k, struct rq_sql_connection *reader);

/* A connection for a transaction that a client keeps open: it is the caller's, who closes it with rq_desk_disconnect(), and holds the
 * desk meanwhile.  ret_sink: counted; where its COMMIT goes.  NOMEM, or IO: it cannot be opened. */
enum rq_err rq_desk_connect(struct rq_desk *k, struct rq_sql_connection *ret_connection,
                            struct rq_direct_sink **ret_sink);
void rq_desk_disconnect(struct rq_sql_connection *connection);

/* Of an executor's connection, made when it is first asked for; NULL: no memory. */
struct rq_sql_connection *rq_desk_writer(sqlite3 *db);

#endif
