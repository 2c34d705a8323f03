/* Inside of the database: shared by database.c (life, files, what others see), database_commit.c (judging and preparing) and
 * database_apply.c (applying), database_install.c (as another member has it), copy_out.c (for another member).  Everything here runs on the database's strand,
 * but for rq_db_call(). */
#ifndef RAFTD_DB_DATABASE_IMPL_H
#define RAFTD_DB_DATABASE_IMPL_H

#include <stdatomic.h>

#include "raftd/db/database.h"
#include "raftd/db/proof.h"

#define RECORD_BYTES_MAX (RQ_TXN_MEMORY_MAX + RQ_TXN_MEMORY_MAX / 8 + 65536u)
#define WORK_BYTES_MAX   (64u << 20)  /* page images of one record; a record of RQ_TXN_MEMORY_MAX never needs it */
#define KEEP_BYTES       (1u << 20)   /* larger work buffers are given back */
#define QUICK_BYTES      (256u << 10) /* what is larger takes so long that other lines must not wait for it */
#define ARRIVALS_MAX     64u          /* entries that one task applies: then others have their turn */
#define MERGED_BYTES_MAX (512u << 10) /* of page images that several transactions leave */
#define SPACE_MARGIN     (16u << 20)  /* left free on the disk for what belongs to no transaction */

enum rq_db_turn_state {
    RQ_DB_TURN_ALWAYS,
    RQ_DB_TURN_AWAY,
    RQ_DB_TURN_ASKED,
    RQ_DB_TURN_AWAITED,
    RQ_DB_TURN_HERE,
    RQ_DB_TURN_LEAVING,
};

/* database_turn.c */
struct rq_db_turn {
    enum rq_db_turn_state state;
    uint64_t attempt;       /* to take it: the newest */
    uint64_t serial, index; /* of the newest grant */
    bool delivered;         /* AWAITED: up to index, and whatever is posted now comes after it */
    bool used;              /* since it came here */
    uint64_t since_ms, used_ms;
    bool wanted; /* the leader waits for an answer about wanted_serial, since wanted_ms */
    uint64_t wanted_serial, wanted_ms;
    uint64_t progress, progress_ms; /* LEAVING: of who has it, and when that was another */
    bool ticks;                     /* tick is posted */
    struct rq_task tick;
    struct rq_later tick_later;
};

/* What the log did to a database that was fenced: from one version to another; from > 0 == to: nothing is known. */
struct rq_db_missed {
    uint64_t from, to;
    struct rq_page_set pages; /* that were changed */
};

/* Entries that the log gave one after another: one task of the strand.  Complete when it runs, or when another is begun. */
struct rq_db_arrival {
    struct rq_db_arrival *next;
    struct rq_log_entry entry; /* its blob is counted */
};
struct rq_db_arrivals {
    struct rq_task task;
    struct rq_database *db; /* counted */
    struct rq_db_arrival *first, **last;
    unsigned count;
    bool fetched; /* the body of the first, once: it is not asked for again */
};

struct rq_place {
    struct rq_strand strand;
    char name[];
};

struct rq_database {
    atomic_uint refs;
    struct rq_database_env env;
    struct rq_place *place; /* borrows */
    uint32_t id;
    char *path, *control_path;
    char *hashes_path; /* NULL: none are kept */
    struct rq_task open_task;

    /* The strand's. */
    struct rq_database_known known; /* until the files are open */
    struct rq_control control;      /* replaced under hold */
    struct rq_replica *replica;     /* owns; NULL: no commit yet.  Written under hold, as inode and device */
    uint64_t inode, device;         /* of its file */
    struct rq_replica_state file;   /* what the replica holds */
    struct rq_proof *proof;         /* owns; while the replica is in doubt, else NULL */
    uint64_t version;               /* of the state machine */
    uint64_t applied_index;
    struct rq_origins origins;
    enum rq_control_state state;
    char message[RQ_DB_TEXT_BYTES];
    struct rq_db_missed missed;
    bool dropped;
    bool
        needs_log; /* quarantined, and the log may be what mends it: files that may be in order get what they lack from it at a later
                      start, or it brings a member, which has applied the body that is missing here, as far as this one is */
    bool caught_up;  /* the log was replayed up to what was known to be committed when raftd started */
    bool diverged;   /* the file holds what the log does not */
    bool superseded; /* seen in replay only: the file is already that of a later database of this name */
    struct rq_commit *in_flight;
    struct rq_commit *waiting_first, *waiting_last;
    struct rq_blob *in_flight_blob; /* its entry; counted */
    struct rq_entry_staged staged;  /* what it names, if it has a body */
    bool staged_expected;           /* on the shelf */
    struct rq_carriage *carriage;   /* owns: of that body to the voters; NULL: to nobody */
    uint64_t carried_ms;            /* when that began */
    uint64_t attempt;               /* to submit it: the newest */
    uint64_t attempt_leader;        /* to whom it went; 0: nobody */
    bool attempt_open;              /* not answered */
    bool may_be_appended;           /* by this attempt or one before: only the state machine says what became of it */
    bool retries;                   /* retry is posted */
    uint64_t give_up_ms;            /* then it fails, if it cannot have been appended */
    struct rq_task retry;
    struct rq_later retry_later;
    struct rq_db_turn turn;
    _Atomic uint64_t appended_attempt, appended_term; /* written in loop context, in the other order */
    struct rq_bytes record, work;
    struct rq_overlay merged; /* pages of transactions that are applied but for the writing; empty between tasks */
    unsigned merged_count;    /* of these: file is then what they lead to */
    uint64_t merged_ns;       /* since when */

    pthread_mutex_t arrivals_lock;
    struct rq_db_arrivals
        *arrivals;        /* those that may become more; guarded by arrivals_lock, as what is in them is; NULL: none */
    pthread_mutex_t hold; /* the replica stays open while it is held */
    pthread_mutex_t info_lock;
    struct rq_database_info info; /* guarded by info_lock */
    struct rq_repair *repair;     /* borrows; guarded by info_lock; waits for its entry */
    void (*changed)(void *ctx);   /* guarded by info_lock, as its ctx; NULL: nobody watches */
    void *changed_ctx;
    atomic_bool waits; /* for a body that it lacks */
    _Atomic uint64_t last_use_ms;
    atomic_bool short_of_space; /* a committed transaction waits for it, and the strand with it */
    atomic_bool stirred;
    uint32_t frames_touched; /* in the WAL at the last touch: each wal_soft_frames stir once more */
};

/* One posting to the strand that carries more than the embedded task can. */
struct rq_db_errand {
    struct rq_task task;
    struct rq_database *db; /* counted */
    uint64_t session;
    void (*done)(void *ctx);
    void *ctx;
    char text[RQ_DB_TEXT_BYTES];
};

/* --- database_missed.c --- */

/* An entry with an effect that the fenced replica does not get.  staged: NULL, or what e holds. */
void rq_db_missed_add(struct rq_database *db, const struct rq_log_entry *e, const struct rq_txn_head *head,
                      const struct rq_entry_staged *staged);
/* There were some, and what they have changed is not known. */
void rq_db_missed_unknown(struct rq_database *db);
/* May that page be another one at the version of the log than at that of the file? */
bool rq_db_missed_changed(const struct rq_database *db, uint32_t pgno);
void rq_db_missed_fini(struct rq_db_missed *m);

/* --- database.c --- */

/* There is no space here for what others have committed: nothing can be committed from here.  Any thread. */
bool rq_db_is_full(const struct rq_database *db);
/* The control page and the info, from what the strand knows. */
void rq_db_publish(struct rq_database *db);
/* The database was used: there may be work for the background thread. */
void rq_db_touch(struct rq_database *db);
/* The database is fenced on this host.  Its place in the log goes on being followed.  why: says whether what is wrong is in the
 * files (CORRUPT, FOREIGN, ...), or around them (IO, PERM, ...) and may pass. */
void rq_db_quarantine(struct rq_database *db, enum rq_err why, const char *text);
struct rq_replica_config rq_db_replica_config(struct rq_database *db);
/* Begins to keep the hashes of its pages, before anything is done with it.  CORRUPT: its pages are not what we wrote; text says
 * which one. */
enum rq_err rq_db_keep_hashes(struct rq_database *db, struct rq_replica *r, char text[RQ_DB_TEXT_BYTES]);
/* A page that a transaction builds on is not what we wrote. */
void rq_db_quarantine_page(struct rq_database *db, uint32_t pgno);
/* Replay has come to the end of what the file holds: if it is in doubt, is it all there? */
void rq_db_end_doubt(struct rq_database *db);
/* It was opened, or made. */
void rq_db_set_replica(struct rq_database *db, struct rq_replica *r);
/* Its files, if there are any, durably.  why: for the log, which names the place; NULL: nothing is said. */
void rq_db_move_to_trash(struct rq_database *db, const char *why);
struct rq_db_errand *rq_db_errand_new(struct rq_database *db, void (*run)(struct rq_task *task));
/* Runs it on the strand, and waits for its end.  Any thread that may wait, with a reference. */
enum rq_err rq_db_call(struct rq_database *db, enum rq_err (*run)(struct rq_database *db, void *ctx), void *ctx);

/* --- database_mark.c --- */

/* A MARK entry is applied. */
void rq_db_mark(struct rq_database *db, const struct rq_log_entry *e);

/* --- database_repair.c --- */

/* At the entry that it waits for. */
enum rq_err rq_db_repair(struct rq_database *db, struct rq_repair *r, uint64_t index);

/* --- database_commit.c --- */

void rq_db_answer(struct rq_database *db, struct rq_commit *c, enum rq_err err, const char *text);
/* There is a leader, or a new term: is what is in flight still on its way? */
void rq_db_recheck(struct rq_database *db);
/* Its body is needed no more, unless the log does. */
void rq_db_drop_staged(struct rq_database *db);
/* It has its answer, or is about to have it. */
struct rq_commit *rq_db_take_in_flight(struct rq_database *db);
/* Whoever waits is judged again. */
void rq_db_consider_waiting(struct rq_database *db);
/* The head has moved, or never will by what was in flight. */
void rq_db_settle(struct rq_database *db);
/* Does this session hold the turn, and in which slot? */
bool rq_db_turn_holder(const struct rq_database *db, uint64_t session, uint32_t *ret_slot);

/* --- database_turn.c --- */

void rq_db_turn_init(struct rq_database *db);
/* The control page says what the strand knows. */
void rq_db_turn_publish(struct rq_database *db);
/* A commit has its outcome, something was applied, or a connection is gone. */
void rq_db_turn_step(struct rq_database *db);
/* What was applied is not of this host. */
void rq_db_turn_applied_foreign(struct rq_database *db);
void rq_db_turn_role(struct rq_database *db);
void rq_db_turn_dropped(struct rq_database *db);

#endif
