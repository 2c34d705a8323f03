/* Fleet: whole raftd's in one process, on one thread, with a clock, disks and a network of their own, all driven by one seed.
 *
 * Real: everything between the application's frames (raftd/db/session.c), the control page, the messages between nodes and the
 * disk's calls.  Of what raftd does with threads and sockets the simulation has its own: which bytes travel when (net.c), how
 * bodies and databases are carried from host to host (bodies.c, copy.c), and what the background thread does when (host.c).
 *
 *   fleet.c   time, misfortune, healing
 *   host.c    one raftd: start in main.c's order, deaths, background work
 *   net.c     raftd/net/peers.h without sockets
 *   bodies.c  raftd/cluster/bodies.h without threads: staged bodies to a majority
 *   copy.c    raftd/cluster/catchup.h: databases of another member, at moments of chance; wrong pages of one, as there
 *   threads.c those threads of raftd that wait for other members, one at a time
 *   mount.c   the disk as one life of a raftd has it
 *   damage.c  pages that rot, or are wrong from some transaction on
 *   app.c     applications: take the turn, commit, ask again; and read
 *   truth.c   what was committed, and what everybody has to be told and shown
 *   plant.c   faults that a sweep has to find */
#ifndef TESTS_SIM_FLEET_FLEET_H
#define TESTS_SIM_FLEET_FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "ext/fate.h"
#include "raftd/cluster/cluster.h"
#include "raftd/db/catalog.h"
#include "raftd/db/scrub.h"
#include "raftd/net/peers.h"
#include "tests/sim/sweep.h"
#include "tests/support/raftd_door.h"
#include "tests/support/raftd_rig.h"
#include "tests/support/record_disk.h"

#define FLEET_HOSTS_MAX     5u
#define FLEET_APPS_MAX      10u
#define FLEET_DATABASES     2u
#define FLEET_PAGE          512u
#define FLEET_PAGES         6u
#define FLEET_VERSIONS_MAX  4096u
#define FLEET_COMMITS_MAX   8192u
#define FLEET_INDEX_MAX     16384u
#define FLEET_IN_FLIGHT_MAX 4096u
#define FLEET_MS_MAX        120000u
#define FLEET_NEVER         UINT64_MAX

/* Things that have to happen in a sweep, or it proves nothing. */
/* clang-format off: one a line */
#define FLEET_COUNTERS(X)    \
    X(starts)                \
    X(process_crashes)       \
    X(power_losses)          \
    X(deaths_in_a_disk_call) \
    X(partitions)            \
    X(pauses)                \
    X(minorities_down)       \
    X(promotions)            \
    X(removals)              \
    X(recoveries)            \
    X(recoveries_refused)    \
    X(transfers)             \
    X(apps_killed)           \
    X(asks_unanswered)       \
    X(commits)               \
    X(acknowledged)          \
    X(refused)               \
    X(unknown)               \
    X(asked_and_there)       \
    X(asked_and_sent_again)  \
    X(forwarded)             \
    X(without_effect)        \
    X(staged)                \
    X(bodies_brought)        \
    X(bodies_fetched)        \
    X(bodies_nowhere)        \
    X(made_anew)             \
    X(turns_granted)         \
    X(turns_moved)           \
    X(turns_given_up)        \
    X(compactions)           \
    X(installs)              \
    X(pages_fetched)         \
    X(marks)                 \
    X(pages_rotten)          \
    X(pages_spoilt)          \
    X(built_on_wrong)        \
    X(outvoted)              \
    X(found_changed)         \
    X(mended)                \
    X(mended_later)          \
    X(local_reads)           \
    X(linearizable_reads)    \
    X(bounded_reads)         \
    X(reads_refused)
/* clang-format on */

enum fleet_counter {
#define FLEET_COUNTER_ENUM(name) FLEET_##name,
    FLEET_COUNTERS(FLEET_COUNTER_ENUM)
#undef FLEET_COUNTER_ENUM
        FLEET_COUNTER_COUNT
};

/* Faults planted on purpose; plant.c */
#define FLEET_PLANTS(X)                                                                                                \
    X(ANEW, "commit-anew")                    /* a lost connection: the transaction is made again, on the new head */  \
    X(UNKNOWN_AS_FAILED, "unknown-as-failed") /* out of time: the application is told that it failed */                \
    X(ANY_BASE, "any-base")                   /* a transaction is applied whatever it was made on */                   \
    X(ANY_VOTER, "any-voter")                 /* who comes to vote may lack what the others have */                    \
    X(EARLY_BODY, "early-body")               /* its entry is proposed before a majority has the body */               \
    X(OTHER_ORIGINS, "other-origins")         /* what is installed says that others made the last transactions */      \
    X(EMPTY_INSTALL, "empty-install")         /* a descriptor is taken over without the databases */                   \
    X(OLD_INDEX, "old-index")                 /* a follower is given no read index, and believes it */                 \
    X(LOST_GRANT, "lost-grant")               /* a host is not told that it has the turn */                            \
    X(TWO_RECOVER, "two-recover")             /* two survivors of a lost majority go on, each by itself */             \
    X(RECOVER_NEWER, "recover-newer")         /* a survivor goes on though its replicas are newer than its log */      \
    X(RECOVER_BODILESS, "recover-bodiless")   /* ... and though it lacks a staged body */                              \
    X(SOLE_ACCUSER, "sole-accuser")           /* who has another page than one other member takes himself for wrong */ \
    X(MEND_BY_ANY, "mend-by-any")             /* a quarantined database gets the pages of whoever answers first */     \
    X(MEND_BY_WAL, "mend-by-wal") /* ... but those that are right in the WAL, though readers do not look there */      \
    X(MARK_MOVES, "mark-moves")   /* what is told of a mark is the newest state, not the one at its place */           \
    X(NO_STAMPS, "no-stamps")     /* a start does not wait for what the replicas hold */                               \
    X(LIE_SYNC, "lie-sync")       /* disks say that data is synced, and it is not */

enum fleet_plant {
    FLEET_PLANT_NONE,
#define FLEET_PLANT_ENUM(name, text) FLEET_PLANT_##name,
    FLEET_PLANTS(FLEET_PLANT_ENUM)
#undef FLEET_PLANT_ENUM
};

struct fleet;

/* --- what was committed; truth.c -------------------------------------------------------------------------------------------- */

/* A transaction of an application; known by its number wherever it turns up. */
struct fleet_commit {
    unsigned app, database;
    uint64_t number; /* 1, 2, ... of this world */
    struct rq_origin origin;
    uint64_t base;
    uint64_t chain;   /* of the base, as the application read it */
    uint64_t version; /* 0: has had no effect */
    bool failed;      /* the application was told so */
};

struct fleet_truth {
    uint32_t id; /* of the database; 0: not created yet */
    uint64_t version;
    struct fleet_commit *commits[FLEET_VERSIONS_MAX]; /* that made the version */
    uint64_t chain[FLEET_VERSIONS_MAX];               /* of all of them up to it */
    uint64_t index[FLEET_VERSIONS_MAX];               /* of its entry */
    uint64_t content[FLEET_VERSIONS_MAX];             /* hash of all pages */
    uint8_t pages[FLEET_PAGES][FLEET_PAGE];           /* of the newest version, in normal form */
    uint64_t shown;                                   /* the newest version that anybody can have read */
    uint16_t shown_at[FLEET_MS_MAX];                  /* the same, by time */
    uint64_t shown_ms;
};

/* --- one raftd; host.c ------------------------------------------------------------------------------------------------------ */

enum fleet_state {
    FLEET_DEAD,
    FLEET_STARTS, /* and waits for the cluster */
    FLEET_READY,
};

struct fleet_thread;

struct fleet_host {
    struct fleet *fleet;
    unsigned number;
    uint64_t instance;
    uint8_t key[RQ_NODE_KEY_BYTES];
    char name[8], raft_address[24], http_address[24];
    struct record_disk *disk;
    struct rig rig;
    struct rq_cluster *cluster; /* these three of this life */
    struct rq_peers *peers;
    struct rq_bodies *bodies;
    struct rq_catchup *catchup;
    struct rq_node_machine machine; /* the catalog's */
    struct fleet_thread *threads;   /* of this life; owns */
    struct rq_scrub scrub;
    bool mends, mends_now; /* a database: now, for its MARK entry may have come: then its strand may stand still */
    enum fleet_state state;
    unsigned life;
    bool founded, absent; /* absent: dead until the end */
    bool recovers;        /* peers.json lets it go on alone; recovered: that was done */
    bool recovered;
    uint64_t newest_stamp;
    uint64_t restart_at, paused_until, compact_at, tend_at;
    bool slow;
    bool fenced[FLEET_DATABASES];      /* for lack of a staged body */
    bool frail[FLEET_DATABASES];       /* the disk or the memory of this host damages its pages */
    bool spoils[FLEET_DATABASES];      /* the next transaction here gets a page wrong */
    bool told[FLEET_DATABASES];        /* that it is quarantined */
    uint64_t released;                 /* its log begins behind it */
    uint64_t committed;                /* delivered in this life */
    uint64_t applied[FLEET_DATABASES]; /* version of the file, as it was seen last */
};

/* --- one application; app.c ------------------------------------------------------------------------------------------------- */

enum fleet_app_state { APP_OUT, APP_OPENS, APP_RESTS, APP_QUEUES, APP_THINKS, APP_COMMITS, APP_READS };

struct fleet_app {
    unsigned number, database;
    struct fleet_host *host;
    uint64_t session, seq;
    enum fleet_app_state state;
    struct raftd_door door;
    struct rq_bytes frame;
    uint32_t db_id;
    struct rq_control control;
    bool has_control;
    uint32_t slot;
    uint64_t due, deadline, frame_id; /* frame_id: of the question that is not answered; 0: none is */
    struct fleet_commit *commit;
    struct rq_fate fate;
    bool big, works, asks;         /* asks: the question that is under way is ASK */
    uint64_t base, chain;          /* APP_THINKS: what it has read with the turn */
    uint64_t look_ms;              /* APP_QUEUES: when raftd is told again */
    uint64_t seen;                 /* the newest version that it has seen */
    uint64_t shown, max_age, left; /* APP_READS */
    unsigned done;                 /* acknowledged since the faults ended */
};

/* --- the world -------------------------------------------------------------------------------------------------------------- */

struct fleet_message {
    enum { FLEET_RAFT, FLEET_ASK, FLEET_ANSWER, FLEET_BODY, FLEET_BODY_TAKEN } kind;
    uint64_t due, order;
    unsigned from, to, from_life, to_life; /* to_life 0: any */
    uint64_t id;
    enum rq_err err;
    uint8_t *data; /* owns */
    size_t bytes;
    struct rq_entry_staged body;
};

struct fleet {
    uint64_t seed, random, entropy;
    bool trace;
    uint64_t *counters;
    const struct sweep_without *without;
    uint64_t begin_ms, now_ms, calm_ms;
    unsigned host_count, app_count, voter_count; /* hosts behind those voters come to vote later */
    struct fleet_host *survivor;                 /* of a majority that is to be lost; NULL: any */
    struct fleet_host *removed;                  /* it is lost for good, and is to leave the cluster; NULL: none */
    struct fleet_host hosts[FLEET_HOSTS_MAX];
    struct fleet_app apps[FLEET_APPS_MAX];
    struct fleet_host *current; /* whose code is on the stack */
    bool looks;                 /* truth.c, by that code */

    struct fleet_message in_flight[FLEET_IN_FLIGHT_MAX];
    unsigned in_flight_count;
    uint64_t order;
    uint64_t last_due[FLEET_HOSTS_MAX][FLEET_HOSTS_MAX];
    bool deaf[FLEET_HOSTS_MAX][FLEET_HOSTS_MAX]; /* [a][b]: what a sends to b is lost */
    unsigned delay_ms_max, lose_permille, crash_permille, trailing_max, big_permille, hung_permille;
    uint64_t chaos_random, chaos_at;
    unsigned chaos_count;
    unsigned lose_body_permille; /* of those that are brought */
    unsigned fetch_permille;     /* each millisecond: a body that is waited for is asked for */
    bool minority_stays_down, majority_is_lost, one_is_replaced;
    bool damages; /* frail hosts are hit */
    uint64_t compare_every_ms;
    bool rests; /* applications begin nothing new */

    struct fleet_truth truth[FLEET_DATABASES];
    struct fleet_commit commits[FLEET_COMMITS_MAX];
    unsigned commit_count;
    struct {
        uint64_t term, hash;
    } log[FLEET_INDEX_MAX];
    uint64_t log_last;
    uint64_t holder[FLEET_DATABASES]; /* host + 1 that had the turn last */
};

extern struct fleet *fleet; /* the one of this process */
extern enum fleet_plant fleet_plant;

uint32_t fleet_below(uint32_t bound);
bool fleet_chance(unsigned permille);
void fleet_count(enum fleet_counter c);
void fleet_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fleet_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void fleet_run(struct fleet *f);
extern const char *const fleet_database_names[FLEET_DATABASES];

/* host.c */
void host_init(struct fleet_host *h, unsigned number);
void host_start(struct fleet_host *h);
void host_die(struct fleet_host *h, bool power_loss);
/* One millisecond of it. */
void host_tick(struct fleet_host *h);
/* As a part of this raftd.  False: it has ended. */
bool host_run(struct fleet_host *h, void (*work)(void *ctx), void *ctx);
bool host_disk_failed(const struct fleet_host *h);
bool host_works(const struct fleet_host *h);        /* alive, and not paused */
void host_settle(struct fleet_host *h);             /* all that is ready; from inside */
bool host_stands_still(const struct fleet_host *h); /* a database of its: waits for a body, or is mended */
void host_transfer(struct fleet_host *h);
void host_remove(struct fleet_host *h, uint64_t instance); /* is asked to have that member removed */
/* It leads, and these are the voters by a committed list. */
bool host_leads_voters(struct fleet_host *h, struct rq_members *ret_members);
struct rq_database *host_database(const struct fleet_host *h, uint32_t id); /* counted; NULL */

/* net.c */
bool net_linked(const struct fleet_host *a, const struct fleet_host *b); /* both directions */
void net_send(struct fleet_message *m, unsigned delay_ms);               /* takes its data; from and to are set */
void net_deliver(struct fleet_host *h);                                  /* what is due there */
void net_tick(struct fleet_host *h);
struct fleet_host *net_host(uint64_t instance); /* NULL: none */

/* bodies.c */
void bodies_tick(struct fleet_host *h);
void bodies_receive(struct fleet_host *h, const struct fleet_message *m);
void bodies_taken(struct fleet_host *h, const struct fleet_message *m);

/* copy.c */
void copy_tick(struct fleet_host *h);

/* mount.c */
struct rq_disk *mount_new(struct record_disk *disk);

/* threads.c */
void threads_tick(struct fleet_host *h); /* those whose wait is over */
void threads_end(struct fleet_host *h);  /* with their process */

/* damage.c */
void damage_draw(void);   /* whom it hits: less than half of the voters, of each database */
void damage_strike(void); /* one of them */

/* app.c */
void app_init(struct fleet_app *a, unsigned number, struct fleet_host *h);
void app_tick(struct fleet_app *a);
void app_host_gone(struct fleet_app *a, bool machine); /* its raftd has died; machine: and itself with it */
void app_kill(struct fleet_app *a);

/* truth.c */
void truth_delivered(struct fleet_host *h, const struct rq_log_entry *e);
/* A majority is lost for good, and this one goes on with what its log holds up to index; up to `sure` all of it was committed.  What
 * was committed and is not in it is not true any more. */
void truth_cut(const struct fleet_host *h, uint64_t sure, uint64_t index);
void truth_look(struct fleet_host *h); /* at its files */
void truth_told(struct fleet_app *a, struct fleet_commit *c, enum rq_err err);
void truth_read(struct fleet_app *a, uint64_t at_least, const char *what);
uint64_t truth_shown_at(unsigned database, uint64_t ms);
/* The two pages of a transaction. */
void truth_pages(const struct fleet_commit *c, uint8_t page1[FLEET_PAGE], uint32_t *ret_pgno, uint8_t page[FLEET_PAGE]);
void truth_equal(const struct fleet_host *h);
/* The replica could not be opened, for the disk of the host has failed: whoever reads it gets an error. */
bool truth_is_fenced(struct fleet_host *h, unsigned database);
/* All pages there are what was committed. */
bool truth_is_sound(struct fleet_host *h, unsigned database);
/* Pages of a database were put right there, or all of them; it is served again. */
void truth_mended(struct fleet_host *h, uint32_t db_id);
unsigned truth_database_of(uint32_t db_id); /* FLEET_DATABASES: none */
/* Chain of the version that the host's file shows, and which that is. */
uint64_t truth_chain_of(struct fleet_host *h, unsigned database, uint64_t *ret_version);

/* plant.c */
void plant_disk(struct fleet_host *h);
uint64_t plant_version_of(uint32_t db_id);

#endif
