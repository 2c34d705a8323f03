/* Database: one replicated database on this host: its replica, its control page, and the transactions on their way.
 *
 * What it owns is touched on its strand only.  The strand belongs to the NAME (struct rq_place): a dropped database and the next
 * one of that name share it, so their work on the files never overlaps.
 *
 *   commit     session -> [strand] judged, checked, diffed against our own base -> node
 *   committed  node -> [strand] applied to the replica, published; who waited is answered
 *
 * At most one transaction is in flight, since only one can be made on the head; others wait here, and are judged again when
 * the head has moved.  Only the state machine refuses: judge() looks at what was applied, at nothing else.
 *
 * The version of the state machine (`version`) runs through the log again at each start; the replica may be ahead of it, which
 * its stamp tells, and then entries only advance the version until both meet. */
#ifndef RAFTD_DB_DATABASE_H
#define RAFTD_DB_DATABASE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "raftd/db/carrier.h"
#include "raftd/db/driver.h"
#include "raftd/db/executor.h"
#include "raftd/db/origins.h"
#include "raftd/db/shelf.h"
#include "raftd/db/staged.h"
#include "raftd/db/turn_door.h"
#include "raftd/log/log.h"
#include "raftd/run/strand.h"
#include "raftd/wire/bytes.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"
#include "raftd/wire/msg.h"
#include "vfs/control.h"
#include "vfs/replica.h"
#include "vfs/snapshot.h"

#define RQ_TXN_MEMORY_MAX   (4u << 20) /* pages of one transaction; what is more goes into a staged body */
#define RQ_COMMIT_BYTES_MAX (RQ_TXN_MEMORY_MAX + (2u << 20)) /* with the frame that was one too many */
#define RQ_DB_TEXT_BYTES    256

struct rq_database;
struct rq_view;

/* What a database needs of the rest of raftd; tests put their own in its place. */
struct rq_database_env {
    void *ctx;
    struct rq_disk *disk;
    struct rq_pool *pool;
    const char *dir;                  /* the served directory */
    const char *staged_dir;           /* raft/staged */
    struct rq_shelf *shelf;           /* of its bodies */
    const struct rq_carrier *carrier; /* NULL: there are no other nodes */
    const char *trash_dir;            /* raft/trash */
    const char *copies_dir;           /* raft/copies: copy_file.h */
    const char *hashes_dir;           /* raft/hashes; NULL: no page hashes are kept */
    const char *http_addr;            /* host:port where users reach this raftd, for messages */
    uint64_t boot;
    uint32_t wal_soft_frames, wal_hard_frames;
    /* Brings an entry to the node; s->done says whether it was appended. */
    void (*submit)(void *ctx, struct rq_submit *s);
    void (*post_later)(void *ctx, struct rq_later *later, uint64_t delay_ms);
    /* Who leads, 0: nobody that is known of; and in which term that is. */
    uint64_t (*leader)(void *ctx);
    uint64_t (*term)(void *ctx);
    /* The newest entry that was given to the state machine. */
    uint64_t (*delivered)(void *ctx);
    /* The log has no room for what others have committed. */
    bool (*full)(void *ctx);
    const struct rq_turn_door *turns; /* borrows; NULL: this host is alone for ever */
    /* May a commit be judged now: all that was known to be committed at start has been delivered. */
    bool (*ready)(void *ctx);
    /* A MARK entry was applied; on the strand.  Takes view; NULL: there is none, as the database is fenced, or has no commit yet. */
    void (*marked)(void *ctx, struct rq_database *db, const struct rq_entry_mark *mark, uint64_t index,
                   struct rq_view *view);
    /* A transaction was made on another page than the one here, or makes another one; on the strand.  True: the other members are asked
     * which is right (cluster/doubts.h), and until then ours counts.  False: ours is taken for the wrong one.  NULL: always. */
    bool (*disputed)(void *ctx, struct rq_database *db, uint32_t pgno);
    /* There is something for the background thread to do. */
    void (*stir)(void *ctx);
    /* The replica's file was made, or opened: which one it is gets remembered, so that its loss is noticed. */
    void (*file_made)(void *ctx, uint32_t id, uint64_t inode, uint64_t device);
    void (*fatal)(void *ctx, const char *why, enum rq_err err) __attribute__((noreturn));
};

/* A transaction, or a question about one; whoever made it is answered once, on the strand. */
struct rq_commit {
    struct rq_task task;
    struct rq_commit *next;
    struct rq_database *db; /* counted */
    bool ask;               /* only wants to know the outcome */
    struct rq_origin origin;
    uint64_t base;
    uint32_t page_size, db_page_count;
    struct rq_bytes pages;  /* owns: {u32 page number, page} ... */
    struct rq_group *group; /* borrows: instead of pages, several transactions of the executor */
    struct rq_staged *body; /* owns: instead of pages, when they were too many; checked and in normal form already */
    uint64_t since_ns;      /* when it came; then when its record was made */
    void (*answer)(struct rq_commit *c, const struct rq_msg_outcome *outcome); /* c is the callee's afterwards */
    void *ctx;                                                                 /* the asker's, as tag */
    uint64_t tag;
};

enum rq_err rq_commit_new(struct rq_commit **ret_commit);
void rq_commit_free(struct rq_commit *c);

/* Pages as they come from an application: checks number, order and place, and brings page 1 to normal form in place.
 * last_pgno: of the piece before, 0 at first.  Any thread. */
enum rq_err rq_commit_check_pages(uint8_t *records, size_t bytes, uint32_t page_size, uint32_t db_page_count,
                                  uint64_t base, uint32_t *last_pgno, const char **ret_text);

/* Further pages of c, whose origin, base and sizes are set, behind those that it has; what is too much for memory goes into a body in
 * staged_dir.  Errors as of rq_commit_check_pages(), NOMEM, FULL; a disk that fails ends the process.  May wait for the disk. */
enum rq_err rq_commit_add_pages(struct rq_commit *c, struct rq_disk *disk, const char *staged_dir,
                                const uint8_t *records, size_t bytes, uint32_t *last_pgno, const char **ret_text);

/* --- life --------------------------------------------------------------------------------------------------------------- */

/* Of a name: its strand.  Small, and kept for the life of the process once the name was used: a strand cannot be freed by what
 * runs on it. */
struct rq_place;

enum rq_err rq_place_new(struct rq_pool *pool, const char *name, struct rq_place **ret_place);
void rq_place_free(struct rq_place *p);
const char *rq_place_name(const struct rq_place *p);
struct rq_strand *rq_place_strand(struct rq_place *p);

/* What is known of a database before its file is opened: from the descriptor, or that it is new. */
struct rq_database_known {
    uint64_t version;       /* of the state machine; 0: no commit yet */
    bool file_made;         /* a file must be there: if it is not, somebody has removed it */
    uint64_t inode, device; /* 0: not recorded */
    bool adopt;             /* the file that is there becomes its content, if it is the one described here */
    struct rq_stamp adopt_stamp;
    uint32_t adopt_page_count;
    uint64_t file_index;       /* rq_database_describe(): the entry that made the file's state */
    bool caught_up;            /* not in replay */
    struct rq_origins origins; /* taken */
};

/* Borrows place for ever.  The files are opened on the strand, before anything else that is posted to it. */
enum rq_err rq_database_new(const struct rq_database_env *env, struct rq_place *place, uint32_t id,
                            struct rq_database_known *known, struct rq_database **ret_db);
struct rq_database *rq_database_ref(struct rq_database *db);
void rq_database_unref(struct rq_database *db);

uint32_t rq_database_id(const struct rq_database *db);
const char *rq_database_name(const struct rq_database *db);
struct rq_place *rq_database_place(const struct rq_database *db); /* borrows */
struct rq_strand *rq_database_strand(const struct rq_database *db);

/* --- from sessions; any thread ---------------------------------------------------------------------------------------------- */

/* Takes the commit, whose db is set. */
void rq_database_commit(struct rq_commit *c);

/* A connection has ended: what its slot held is free. */
void rq_database_session_ended(struct rq_database *db, uint64_t session);

/* --- from the executor; any thread -------------------------------------------------------------------------------------- */

/* Where an executor's groups go; borrows db. */
struct rq_executor_host rq_database_executor_host(struct rq_database *db);

/* --- the turn between hosts; any thread.  raftd/db/turn_door.h --------------------------------------------------------------- */

/* Somebody here began to wait for the turn while it is elsewhere, or gave it back. */
void rq_database_turn_look(struct rq_database *db);
/* Answers to take(). */
void rq_database_turn_granted(struct rq_database *db, uint64_t attempt, uint64_t serial, uint64_t index);
void rq_database_turn_failed(struct rq_database *db, uint64_t attempt);
/* Another host waits for it; answer() will be called. */
void rq_database_turn_wanted(struct rq_database *db, uint64_t serial);
/* The leader knows another holder. */
void rq_database_turn_denied(struct rq_database *db, uint64_t serial);
/* There are other hosts, or none. */
void rq_database_members_changed(struct rq_database *db);

/* --- from the state machine; loop context, in the order of the log -------------------------------------------------------- */

/* TXN, STAGED or MARK entry of this database.  Applied on the strand, perhaps with those that came before it and are not applied yet. */
void rq_database_committed(struct rq_database *db, const struct rq_log_entry *e);
/* A task for the strand, behind what was committed before it and before what is committed after it. */
void rq_database_post(struct rq_database *db, struct rq_task *task, enum rq_carry how);

/* There is a leader, or none, or a new term. */
void rq_database_role_changed(struct rq_database *db);

/* A DROP entry: files to the trash, name free.  done on the strand, when it is. */
void rq_database_drop(struct rq_database *db, void (*done)(void *ctx), void *ctx);

/* Everything that was known to be committed at start has been given: replica and state machine must have met. */
void rq_database_caught_up(struct rq_database *db);

/* --- from everywhere --------------------------------------------------------------------------------------------------------- */

struct rq_database_info {
    uint32_t id;
    uint64_t version;
    uint32_t page_size, page_count;
    uint64_t applied_index;
    uint64_t file_index; /* of the newest entry that is in its file */
    enum rq_control_state state;
    bool diverged; /* the file holds what the log does not */
    char message[RQ_DB_TEXT_BYTES];
};

/* It stands still until a staged body has been fetched: what is posted to its strand takes that long. */
bool rq_database_waits(const struct rq_database *db);

/* As it was after the last transaction, without waiting for the strand. */
void rq_database_info(struct rq_database *db, struct rq_database_info *ret_info);

/* changed() is called when a transaction was applied, or anything else that rq_database_info() tells has changed; it must neither wait
 * nor call the database.  One at a time; NULL: nobody, and nobody is in it any more on return. */
void rq_database_watch(struct rq_database *db, void (*changed)(void *ctx), void *ctx);

/* Hash of page 1 in normal form: two hosts that give the same are at the same state.  0: no commit yet, or it cannot be read.
 * On the strand. */
uint64_t rq_database_checksum(struct rq_database *db);

/* What a descriptor keeps; on the strand.  origins: a copy, the caller's.  BUSY: the file lacks what the log has, and may get it
 * from there: it is quarantined for a reason that may pass.  Else the file itself, which is older than that, tells the next start
 * that the database stays quarantined. */
enum rq_err rq_database_describe(struct rq_database *db, struct rq_database_known *ret_known);

/* --- from another member ------------------------------------------------------------------------------------------------------ */

#define RQ_COPY_HASHES_MAX  1024u
#define RQ_COPY_PAGES_BYTES (1u << 20)
#define RQ_COPY_CHANGED_MAX 65536u

struct rq_copy_changed {
    bool held;      /* nothing changes any more */
    uint32_t left;  /* so many that have changed are not told yet */
    uint32_t count; /* of those that are, ascending but for one turn over */
    uint32_t pgnos[RQ_COPY_CHANGED_MAX];
};

/* A database as another member has it, while it goes on changing (copy_out.h: what has to be asked in which order, and why that gives
 * one version).  All called on the strand; may block. */
struct rq_copy_source {
    void *ctx;
    /* Begins.  state->version 0: no commit yet.  origins: the caller's. */
    enum rq_err (*open)(void *ctx, uint32_t id, struct rq_replica_state *ret_state, struct rq_origins *ret_origins);
    /* rq_page_hash() of count pages in normal form, from first on; at most RQ_COPY_HASHES_MAX. */
    enum rq_err (*hashes)(void *ctx, uint32_t first, uint32_t count, uint64_t *ret_hashes);
    /* Pages in normal form, of these numbers; at most RQ_COPY_PAGES_BYTES, or one. */
    enum rq_err (*pages)(void *ctx, const uint32_t *pgnos, uint32_t count, uint32_t page_size, uint8_t *ret_pages);
    /* Pages that have changed since they were told last, or since open.  hold: however many are left, from now on nothing changes;
     * the source may find that by itself when they are few. */
    enum rq_err (*changed)(void *ctx, bool hold, struct rq_copy_changed *ret_changed);
    /* What is held.  origins: the caller's. */
    enum rq_err (*held)(void *ctx, struct rq_replica_state *ret_state, struct rq_origins *ret_origins);
};

struct rq_copy_count {
    uint64_t compared, fetched; /* pages */
};

/* The replica becomes what the source has, if that is newer, or this one damaged: pages that differ are fetched, and become one
 * transaction, durable on return.  Readers see the old state until then, and so does a start after a kill; what was fetched until
 * then is not fetched again.  A quarantined
 * one is made anew.  by_itself: not as part of a whole state that is installed: it becomes only what the log here has led to by then (else
 * UNREADY).  Blocks; entries wait meanwhile.  BUSY: the source is older.  FULL: no space; CORRUPT: what came is not what was
 * announced, or cannot be; or the errors of the source: nothing has happened.  EXISTS: dropped meanwhile. */
enum rq_err rq_database_install(struct rq_database *db, const struct rq_copy_source *source, bool by_itself,
                                struct rq_copy_count *ret_count);

/* No member has the database in order, and the log is to go on from where its state machine is elsewhere: so does this one.  If its
 * file is older, it is quarantined until a member can give it (rq_database_install).  origins: taken.  EXISTS: dropped. */
enum rq_err rq_database_fence(struct rq_database *db, uint64_t version, struct rq_origins *origins);

/* --- at a MARK entry ------------------------------------------------------------------------------------------------------------ */

/* The database as it is at that place of the log, held still, so its WAL cannot begin anew meanwhile.  The database has to be held by
 * a reference as long as it lives. */
struct rq_view {
    struct rq_snapshot snapshot; /* active; one thread at a time */
    struct rq_replica_state state;
    uint64_t inode; /* of the file that it reads: the database may be made anew meanwhile */
};
void rq_view_free(struct rq_view *v); /* NULL is fine */
/* Hashes of pages in normal form, or the pages themselves, one behind the other.  PROTOCOL: there are no such pages.  QUARANTINED: one is not
 * what raftd wrote; db is fenced now. */
enum rq_err rq_view_hashes(struct rq_view *v, struct rq_database *db, uint32_t first, uint32_t count,
                           uint64_t *ret_hashes);
enum rq_err rq_view_page(struct rq_view *v, struct rq_database *db, uint32_t pgno, uint8_t *page);

/* Where the right pages of a quarantined database come from, which are those that it had at the MARK entry of that index.  All called
 * on the strand; may block.  NOTFOUND: it is not held any more. */
struct rq_repair_source {
    void *ctx;
    enum rq_err (*open)(void *ctx, uint64_t index, struct rq_replica_state *ret_state);
    enum rq_err (*hashes)(void *ctx, uint32_t first, uint32_t count, uint64_t *ret_hashes); /* RQ_MARK_PAGES_MAX */
    /* disputed: our own page is what this host's records say that it is, and the log has not changed it since, so that either side may be the
     * wrong one.  CORRUPT: not decided. */
    enum rq_err (*page)(void *ctx, uint32_t pgno, uint32_t page_size, bool disputed, uint8_t *page);
};

/* A quarantined database is mended where the log has the MARK entry of this nonce: pages that are not what they should be become one
 * transaction, durable then, and readers and writers are let in again.  Begin it, have the entry proposed, wait. */
struct rq_repair {
    uint64_t nonce;
    struct rq_repair_source source;
    uint64_t compared, mended; /* pages */
    char first_pages[48];      /* for the log: which ones, as far as they fit */
    /* The database's. */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    enum rq_err err;
};
void rq_database_repair_begin(struct rq_database *db, struct rq_repair *r);
/* AWAY: the entry did not come within that time.  EXISTS: there is nothing to mend (any more).  NOTFOUND: its files are not such that pages of
 * them could be mended; it has to be made anew.  UNREADY: the source has another version.  Else errors of the source, FULL or NOMEM.  Nothing has
 * happened then. */
enum rq_err rq_database_repair_wait(struct rq_database *db, struct rq_repair *r, unsigned timeout_ms);

/* --- background thread --------------------------------------------------------------------------------------------------------- */

/* The replica, which stays open until it is given back; NULL when there is none. */
struct rq_replica *rq_database_hold(struct rq_database *db);
void rq_database_release(struct rq_database *db);
/* While the replica is held: is its name still its file's?  NOTFOUND: unlinked; FOREIGN: another file has it. */
enum rq_err rq_database_check_name(struct rq_database *db);
/* Why a database without its file is quarantined, and what to do about it. */
void rq_database_removed_text(const struct rq_database *db, char text[RQ_DB_TEXT_BYTES]);
/* Frees slots of processes that have died. */
void rq_database_sweep(struct rq_database *db);
/* Makes the control page again if somebody has removed, emptied or overwritten it.  Not while the replica is held. */
void rq_database_mend(struct rq_database *db);
/* CLOCK_MONOTONIC ms of the last transaction or end of a connection. */
uint64_t rq_database_last_use(struct rq_database *db);
/* Nothing is planned for it: its next use stirs again.  Whoever says so looks once more afterwards. */
void rq_database_settled(struct rq_database *db);
void rq_database_quarantine(struct rq_database *db, const char *text);

#endif
