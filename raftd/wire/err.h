/* Errors: the one list of outcomes that our own code returns, and that travel between processes.
 *
 * Numbers are part of the protocol (docs/protocol.md): append, never renumber.
 * SQLITE_* codes exist only inside SQLite method tables and ext/rc; errno is converted in the statement after the call. */
#ifndef RAFTD_WIRE_ERR_H
#define RAFTD_WIRE_ERR_H

#define RQ_ERR_LIST(X)                                                                     \
    X(OK, 0, "done")                                                                       \
    X(NOMEM, 1, "out of memory")                                                           \
    X(IO, 2, "a read, write or sync failed")                                               \
    X(FULL, 3, "no space left, or a quota or file size limit was reached")                 \
    X(CORRUPT, 4, "bytes on disk are not what was written there")                          \
    X(PROTOCOL, 5, "the other side sent something that the protocol does not allow")       \
    X(TOOBIG, 6, "larger than the limit that docs/protocol.md names")                      \
    X(AWAY, 7, "raftd is not running, or has no leader; nothing has happened")             \
    X(BUSY, 8, "taken by somebody else now; nothing has happened")                         \
    X(REFUSED, 9, "another transaction was committed on the same base; nothing happened")  \
    X(UNKNOWN, 10, "whether the transaction was committed could not be found out in time") \
    X(QUARANTINED, 11, "the database is quarantined on this host")                         \
    X(NOTFOUND, 12, "no such thing")                                                       \
    X(EXISTS, 13, "exists already")                                                        \
    X(READONLY, 14, "may not be written")                                                  \
    X(PAGESIZE, 15, "the page size of a database cannot be changed")                       \
    X(VERSION, 16, "written by a newer or unknown version")                                \
    X(MISUSE, 17, "called in a way that the interface forbids")                            \
    X(PERM, 18, "permission denied")                                                       \
    X(UNREADY, 19, "this node has not caught up with what it knows to be committed")       \
    X(FOREIGN, 20, "belongs to another cluster, node or database")                         \
    X(SHUTDOWN, 21, "shutting down")

enum rq_err {
#define RQ_ERR_ENUM(name, number, text) RQ_##name = (number),
    RQ_ERR_LIST(RQ_ERR_ENUM)
#undef RQ_ERR_ENUM
};

/* A sentence for people; never NULL, also for numbers that are not in the list. */
const char *rq_err_text(enum rq_err err);

/* The name without its prefix ("REFUSED"), for logs. */
const char *rq_err_name(enum rq_err err);

#endif
