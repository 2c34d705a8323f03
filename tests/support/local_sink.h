/* Local sink: what a raftd of one host does for the shim, in this process and without log or network: it checks the base, writes
 * the replica, answers.  Outcomes can be ordered.
 * Threads: any; one lock around everything. */
#ifndef TESTS_SUPPORT_LOCAL_SINK_H
#define TESTS_SUPPORT_LOCAL_SINK_H

#include "raftd/wire/txn.h"
#include "vfs/control.h"
#include "vfs/disk.h"
#include "vfs/replica.h"
#include "vfs/sink.h"

#define LOCAL_DB_MAX 16

struct local_db {
    char name[64];
    char path[256];
    uint32_t id;
    struct rq_control control;
    struct rq_replica *replica; /* NULL: empty */
    struct rq_replica_state state;
};

/* Serves dir (made, with raft/ in it) until local_stop(). */
void local_start(const char *dir);
void local_stop(void); /* keeps files and control pages, as kill -9 does */

/* For struct rq_shim_config. */
struct rq_sink *local_sink_new(void *ctx, const char *path, const char *raftd_socket, unsigned timeout_ms);

struct local_db *local_db(const char *name); /* NULL: not in the catalog */

/* The next commit has this outcome; applied says whether it is written nevertheless. */
void local_order(enum rq_err outcome, bool applied);
/* ready and open answer this until RQ_OK is set. */
void local_set_ready(enum rq_err err);
/* What reads of connections that want more than what is here were told, and what they asked. */
struct local_reads {
    enum rq_err err; /* the test's, as left_ms */
    uint64_t left_ms;
    unsigned count;
    uint32_t db_id;
    uint64_t max_age_ms;
    bool again;
};
extern struct local_reads local_reads;

/* Called in the next commit, before the base is checked. */
void local_before_commit(void (*call)(void));

uint64_t local_commit_count(void);
uint64_t local_refusal_count(void); /* commits on an old base */
uint64_t local_page_count(void);    /* pages of the last commit */

/* Removes a database and its files; running applications have it still open. */
void local_drop(const char *name);

/* A database without a commit takes the id of one that was dropped, as on a node that gets everything again. */
void local_rename_id(const char *name, uint32_t id);

/* A transaction of another host: the newest version again, with the next change counter. */
void local_foreign_commit(const char *name);
/* What a log does with its entries: a page of the newest version in normal form, zeros where there is none; and a transaction
 * of several, REFUSED if another one was made on its base. */
enum rq_err local_read(const char *name, uint32_t pgno, uint8_t *page, uint32_t page_size);
enum rq_err local_apply(const char *name, const struct rq_txn_head *head, const struct rq_page_source *pages);
enum rq_err local_backfill(const char *name);
enum rq_err local_reset(const char *name);

#endif
