/* Change feed: the transactions of one database as they become visible on this host, for whoever listens.
 *
 * A feed is made for the first listener, and kept for some minutes after the last one has left.  It has a thread, which looks at the
 * database by a snapshot of its own, as any reader does, and finds the transactions up to that state in the log: so nothing is told before
 * it can be read here, commits wait for nobody, and without listeners there is nothing at all.  What it found it keeps, within limits; a
 * listener takes it from there at its own pace.
 *
 * Versions are the same on every host, so a listener may go on at another one. */
#ifndef RAFTD_DB_CHANGE_FEED_H
#define RAFTD_DB_CHANGE_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/db/catalog.h"
#include "raftd/db/driver.h"
#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

#define RQ_FEEDS_MAX         64u  /* databases that are listened to at once */
#define RQ_FEED_LISTENER_MAX 256u /* of all of them */

struct rq_feeds;
struct rq_feed;

struct rq_feeds_config {
    struct rq_catalog *catalog; /* borrow */
    struct rq_driver *driver;
    struct rq_disk *disk;
    const char *dir, *staged_dir;
};

enum rq_err rq_feeds_new(const struct rq_feeds_config *config, struct rq_feeds **ret_feeds);
/* Every listener is told that this is the end; nobody can join any more. */
void rq_feeds_stop(struct rq_feeds *s);
/* When it was stopped, and nobody listens any more: ends the threads. */
void rq_feeds_free(struct rq_feeds *s);

struct rq_feeds_count {
    unsigned feeds, listeners;
};
struct rq_feeds_count rq_feeds_count(struct rq_feeds *s);

/* Embedded by who listens, who sets stir(). */
struct rq_feed_listener {
    struct rq_feed_listener *next, *previous; /* inner */
    struct rq_feed *feed;                     /* inner */
    uint64_t version;                         /* it knows all up to this one */
    /* There may be something new for it; now and then also when there is not.  Any thread; must not wait, nor call the feed. */
    void (*stir)(struct rq_feed_listener *l);
};

/* FULL: there are too many.  SHUTDOWN.  Counts db. */
enum rq_err rq_feed_join(struct rq_feeds *s, struct rq_database *db, struct rq_feed_listener *l);
/* stir() is not called any more when this returns. */
void rq_feed_leave(struct rq_feeds *s, struct rq_feed_listener *l);

/* What can be told. */
struct rq_feed_range {
    bool ready;               /* else the database is still being looked at; stir() comes when it is */
    bool gone;                /* there is no such database any more */
    bool stops;               /* this host does */
    uint64_t oldest, version; /* who knows a version from oldest on misses nothing */
};
struct rq_feed_range rq_feed_range(struct rq_feed_listener *l);

enum rq_feed_answer {
    RQ_FEED_CHANGE,  /* here is one */
    RQ_FEED_NOTHING, /* stir() comes */
    RQ_FEED_GAP, /* this host got a newer state from another one: what was between is not known.  The listener's version is that one now */
    RQ_FEED_BEHIND, /* what it wants next is not kept any more */
    RQ_FEED_GONE,   /* the database was dropped */
    RQ_FEED_STOPS,  /* this host does */
};

struct rq_change {
    uint64_t base, version; /* more than one apart: transactions that became visible together */
    uint64_t index;         /* of the entry in the log */
    uint64_t time_ms;       /* since 1970: when it became visible here; 0: before anybody listened */
    bool tables_known;
};

/* The next one, in order.  tables: its tables replace what it holds; names, each ending with 0. */
enum rq_feed_answer rq_feed_take(struct rq_feed_listener *l, struct rq_change *ret_change, struct rq_bytes *tables);

#endif
