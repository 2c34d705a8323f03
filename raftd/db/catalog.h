/* Catalog: the replicated state machine above the databases: which there are, and whose each log entry is.
 *
 * Changed in loop context only, by committed entries; looked at from any thread under its lock. */
#ifndef RAFTD_DB_CATALOG_H
#define RAFTD_DB_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/db/database.h"
#include "raftd/db/descriptor.h"
#include "raftd/db/driver.h"
#include "raftd/wire/ask.h"
#include "raftd/wire/err.h"

struct rq_catalog;

struct rq_catalog_config {
    struct rq_disk *disk; /* borrows, as all */
    struct rq_pool *pool;
    const char *dir, *raft_dir, *staged_dir, *trash_dir, *copies_dir;
    const char *hashes_dir;  /* NULL: no page hashes are kept */
    uint64_t boot;           /* rq_boot_id() */
    const char *http_addr;   /* host:port where users reach this raftd, for messages */
    void (*stir)(void *ctx); /* wakes the background thread */
    void *stir_ctx;
    const struct rq_turn_door *turns; /* NULL: this host is alone for ever */
    /* As in struct rq_database_env; NULL: nobody compares or mends. */
    void (*marked)(void *ctx, struct rq_database *db, const struct rq_entry_mark *mark, uint64_t index,
                   struct rq_view *view);
    bool (*disputed)(void *ctx, struct rq_database *db, uint32_t pgno); /* likewise */
    void *marked_ctx;                                                   /* of both */
};

/* Names that can be served: 1 to RQ_DB_NAME_MAX bytes, no '/', no control character, not beginning with '.', not ending like
 * one of SQLite's or our own files beside a database, not raftd's own. */
bool rq_db_name_valid(const char *name, size_t bytes);

enum rq_err rq_catalog_new(const struct rq_catalog_config *config, struct rq_catalog **ret_catalog);

/* Before the node starts: the databases of the descriptor; opens their files. */
enum rq_err rq_catalog_load(struct rq_catalog *c, struct rq_descriptor *d);
/* Before loading: the state of the databases was being fetched when raftd ended, and the log may lack what they hold. */
bool rq_catalog_is_fetching(struct rq_catalog *c);
/* Before loading: is this the file of the replica of that id, as raft/files remembers it? */
bool rq_catalog_knows_file(struct rq_catalog *c, uint32_t id, uint64_t inode, uint64_t device);
struct rq_node_machine rq_catalog_machine(struct rq_catalog *c);
/* The staged bodies here. */
struct rq_shelf *rq_catalog_shelf(struct rq_catalog *c);
/* Before loading; without one there are no other nodes.  Borrows. */
void rq_catalog_set_carrier(struct rq_catalog *c, const struct rq_carrier *carrier);
/* For entries that others ask for; before the first request. */
void rq_catalog_set_driver(struct rq_catalog *c, struct rq_driver *driver);

/* All that the log knew to be committed has been delivered, and this node leads: databases and log must agree from now on.
 * Blocks until every database has applied it, and what was dropped is in the trash.  CORRUPT: a replica holds what the log does not; text names it. */
enum rq_err rq_catalog_caught_up(struct rq_catalog *c, char text[512]);
/* Then: deletes the bodies that nobody needs. */
enum rq_err rq_catalog_sweep_bodies(struct rq_catalog *c);
bool rq_catalog_ready(const struct rq_catalog *c);
/* An entry of the log that was delivered adopts a file, and the log was not compacted since. */
bool rq_catalog_has_adopted(const struct rq_catalog *c);

/* Counted; NULL. */
struct rq_database *rq_catalog_find(struct rq_catalog *c, const char *name, size_t name_bytes);
struct rq_database *rq_catalog_find_id(struct rq_catalog *c, uint32_t id);
/* All, ordered by name; the caller unrefs each and frees the array. */
enum rq_err rq_catalog_list(struct rq_catalog *c, struct rq_database ***ret_list, size_t *ret_count);

/* There are other members than this node, or none. */
void rq_catalog_members_changed(struct rq_catalog *c);
/* A connection has ended: the turns that it held are free. */
void rq_catalog_session_ended(struct rq_catalog *c, uint64_t session);

/* --- changes ------------------------------------------------------------------------------------------------------------ */

/* done comes once, in loop context or at once, before these return; the request is the callee's then.  UNKNOWN: the leader was
 * lost meanwhile, and it may still happen: ask again. */
struct rq_request {
    struct rq_submit submit; /* inner, as what follows */
    struct rq_task task;
    struct rq_catalog *catalog;
    struct rq_request *next;
    uint64_t nonce;
    uint32_t drop_id;
    bool outstanding; /* the submission is not answered */
    bool settled;     /* err and db are known */
    enum rq_err err;
    struct rq_database *db;                                                      /* counted */
    void (*done)(struct rq_request *r, enum rq_err err, struct rq_database *db); /* db: borrows, NULL on error */
    void *ctx;
    uint64_t tag;
};

/* Creates it, or finds the one that was created meanwhile.  MISUSE: no valid name.  EXISTS: a file is there that is not served. */
void rq_catalog_create(struct rq_catalog *c, const char *name, size_t name_bytes, struct rq_request *r);
void rq_catalog_drop(struct rq_catalog *c, uint32_t id, struct rq_request *r);
/* Has the log hold a place at which members compare those pages of the database, or (0, 0) copy it.  nonce: not 0. */
void rq_catalog_mark(struct rq_catalog *c, const struct rq_entry_mark *mark, struct rq_request *r);
/* Founding: the file becomes a database.  Blocks until it is one. */
enum rq_err rq_catalog_adopt(struct rq_catalog *c, const struct rq_entry_adopt *adopt);

/* --- compaction; background thread ----------------------------------------------------------------------------------------- */

/* Makes everything that is applied durable, writes the descriptor and releases the log.  BUSY, AWAY: try again later; text says
 * which database needs the log as it is, if that is why.  IO is final. */
enum rq_err rq_catalog_compact(struct rq_catalog *c, char text[512]);
/* The newest state that the log needs nothing before, made here or had from another member; index 0: none yet. */
struct rq_catalog_snapshot {
    uint64_t index, term;
    uint64_t made_ms; /* since 1970; of one that an earlier process made 0 */
};
struct rq_catalog_snapshot rq_catalog_snapshot(struct rq_catalog *c);
/* The state machine at an index that this node has applied, as compaction takes it.  Errors as there. */
enum rq_err rq_catalog_picture(struct rq_catalog *c, struct rq_descriptor *ret_picture, char text[512]);
/* Index: everything that the log leads to up to there is here to stay: each staged body is durable, or its entry applied; and no
 * database is fenced that lacks any of it.  And which are fenced.  May wait for the disk.  IO is final; NOMEM. */
enum rq_err rq_catalog_has(struct rq_catalog *c, struct rq_ask_has *ret_has);
/* The staged bodies that wait for the log to be compacted past them. */
uint64_t rq_catalog_body_bytes(const struct rq_catalog *c);
/* Each RQ_SHELF_LOOK_MS: deletes the bodies whose time is over.  IO is final. */
enum rq_err rq_catalog_look_at_bodies(struct rq_catalog *c);
/* raftd/db/staged.h */
enum rq_err rq_catalog_drop_spare(struct rq_catalog *c, uint64_t unused_ms);

/* --- the state of another member: a thread that may wait ---------------------------------------------------------------------- */

/* The log is to go on from picture (index, term, configuration; ids and names of databases), which another member has applied.
 * Drops the databases that are not in it and makes those that are new, still empty: then rq_database_install() for each of it, and
 * one of the two below.  A file raft/fetching tells a start that replicas may hold what the log lacks.  EXISTS: the log has come that far by
 * itself.  BUSY: it is being compacted. */
enum rq_err rq_catalog_install_begin(struct rq_catalog *c, const struct rq_descriptor *picture);
/* All of them are durable: so becomes the descriptor, and the node goes on from there.  EXISTS: as above.  IO is final. */
enum rq_err rq_catalog_install_end(struct rq_catalog *c, const struct rq_descriptor *picture);
/* A fetch that did not come to its end is none any more once the log has brought what the replicas hold: raft/fetching goes then.  IO
 * is final. */
enum rq_err rq_catalog_fetching_ends(struct rq_catalog *c);
/* Nothing is being fetched, and nothing is quarantined: deletes what copies that did not come to their end have left. */
enum rq_err rq_catalog_drop_copies(struct rq_catalog *c);
/* It did not come to its end: what was fetched stays, and is tried again. */
void rq_catalog_install_abandon(struct rq_catalog *c);

#endif
