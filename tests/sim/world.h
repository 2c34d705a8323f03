/* World of the simulation: hosts with real nodes and real logs on recording disks, a network, clients and misfortune, all driven
 * by one seed.  One thread, no clock but its own: the same seed gives the same history.
 *
 *   world.c   the queue of what happens next, network, clients, faults, healing
 *   host.c    one host: disk, log, node, state machine; its deaths and starts
 *   check.c   what must hold after every step
 *   sim_node.c  what a sweep (sweep.h) has to know of it; fail-over times
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include <raft.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "raftd/log/log.h"
#include "raftd/node/core.h"
#include "raftd/node/node.h"
#include "tests/sim/sweep.h"
#include "tests/support/record_disk.h"

#define SIM_HOSTS_MAX    6u
#define SIM_INDEX_MAX    20000u
#define SIM_IDENTITY_MAX 65536u /* of (index, term) pairs; a power of two */
#define SIM_IN_FLIGHT    4096u
#define SIM_LOST_MAX     64u
#define SIM_NEVER        UINT64_MAX

/* Things that have to happen in a sweep, or it proves nothing. */
/* clang-format off: one a line */
#define SIM_COUNTERS(X)        \
    X(steps)                   \
    X(elections)               \
    X(submitted)               \
    X(acknowledged)            \
    X(full)                    \
    X(busy)                    \
    X(compactions)             \
    X(installs)                \
    X(deaths_in_an_install)    \
    X(joins)                   \
    X(promotions)              \
    X(removals)                \
    X(removed_told)            \
    X(wipes)                   \
    X(replacements)            \
    X(addresses_changed)       \
    X(transfers)               \
    X(transfers_failed)        \
    X(votes_without_a_vote)    \
    X(notices)                 \
    X(changes_rolled_back)     \
    X(process_crashes)         \
    X(power_losses)            \
    X(deaths_in_a_disk_call)   \
    X(deaths_between_messages) \
    X(failed_syncs)            \
    X(full_disks)              \
    X(slow_disks)              \
    X(restarts)                \
    X(skipped_replays)         \
    X(cuts)                    \
    X(messages)                \
    X(lost_messages)           \
    X(doubled_messages)        \
    X(partitions)              \
    X(one_way_partitions)      \
    X(pauses)                  \
    X(minorities_down)         \
    X(reads)                   \
    X(reads_given_up)          \
    X(entries_lost_unacknowledged)
/* clang-format on */

enum sim_counter {
#define SIM_COUNTER_ENUM(name) SIM_##name,
    SIM_COUNTERS(SIM_COUNTER_ENUM)
#undef SIM_COUNTER_ENUM
        SIM_COUNTER_COUNT
};

/* A fault planted on purpose: a sweep with it has to fail.  Each has been somebody's bug.  plant.c */
#define SIM_PLANTS(X)                                                                                            \
    X(LIE_SYNC, "lie-sync")                   /* the disk says that data is synced, and it is not */             \
    X(DOUBLE_APPLY, "double-apply")           /* at a start the machine forgets the last entry it had applied */ \
    X(VOTE_NOT_STORED, "vote-not-stored")     /* term and vote are kept in memory only */                        \
    X(ACK_UNSYNCED, "ack-unsynced")           /* a write counts before its sync */                               \
    X(STALE_TAIL, "stale-tail")               /* a follower acknowledges all it has, matched or not */           \
    X(VOTE_TWICE, "vote-twice")               /* every candidate gets every vote */                              \
    X(OLD_TERM_COMMIT, "old-term-commit")     /* entries of former terms are committed by counting */            \
    X(APPLY_UNDURABLE, "apply-undurable")     /* what is committed is applied before it is durable here */       \
    X(SOLE_VOTER, "sole-voter")               /* G1 off: a sole voter leads twice in one term */                 \
    X(FAILED_SYNC, "failed-sync")             /* a failed sync is taken for a good one */                        \
    X(INSTALL_UNDURABLE, "install-undurable") /* an index is adopted from a state that is not durable */         \
    X(KEEP_LOG, "keep-log")                   /* and beside the old log */                                       \
    X(EARLY_MEMBERS, "early-members")         /* a descriptor holds members that are not committed */            \
    X(SAME_INSTANCE, "same-instance")         /* a wiped host comes back as the instance that it was */          \
    X(SWAP_MEMBERS, "swap-members")           /* one change puts one member in another's place */                \
    X(READ_AT_ONCE, "read-at-once")           /* a leader answers reads without asking the others */             \
    X(READ_OLD_ANSWER, "read-old-answer")     /* an answer to a former round counts for the present one */

enum sim_plant {
    SIM_PLANT_NONE,
#define SIM_PLANT_ENUM(name, text) SIM_PLANT_##name,
    SIM_PLANTS(SIM_PLANT_ENUM)
#undef SIM_PLANT_ENUM
};
extern enum sim_plant sim_plant; /* one world in a process */

struct sim_state { /* of a state machine: the hash chain over all entries up to index */
    uint64_t index, term, hash;
};

struct sim_descriptor {
    struct sim_state state;
    uint8_t *configuration; /* owns */
    size_t configuration_bytes;
    uint64_t configuration_index;
    bool installed; /* from another host */
};

struct world;

struct sim_host {
    struct world *world;
    unsigned number;
    uint64_t id; /* of the instance: another one after each wipe */
    struct rq_member self;
    struct record_disk *disk;
    struct rq_log *log;
    struct rq_node *node; /* NULL: dead, or just starting */
    bool alive;
    unsigned life;

    uint64_t write_at, report_at, restart_at, compact_at; /* SIM_NEVER: not wanted */
    bool slow, full;
    uint64_t install_at, install_index, install_from;
    uint64_t ask_at, read_at, paused_until, timer_from;
    unsigned messages_to_death; /* 0: none */
    bool absent;                /* dead until the end */
    bool founder, fresh;        /* fresh: founds or begins an empty log at its next start */
    bool left;                  /* was asked to leave */
    unsigned wipes;

    struct sim_state cached, synced; /* what applied files hold: in the page cache, on the medium */
    struct sim_descriptor descriptor;
    unsigned trailing;

    /* The log as it was seen to grow, and what the core was told of it. */
    uint64_t terms[SIM_INDEX_MAX];
    bool changes[SIM_INDEX_MAX]; /* the entry is a member list */
    uint64_t change_at;          /* the newest of them */
    struct rq_members members;   /* in force, and of which entry */
    uint64_t members_key;
    uint64_t last, stored, committed, delivered;
    uint64_t meta_term, meta_vote;
    uint64_t submitted_term[SIM_INDEX_MAX]; /* by a client here, in this life */
    uint64_t submitted_last;
};

struct sim_message {
    struct raft_message message; /* server_id: the sender */
    unsigned to;
    uint64_t due;
    uint64_t to_instance;
    uint64_t removed_index;       /* not 0: not a raft message, but this */
    struct rq_round round;        /* term not 0: not a raft message, but this */
    struct rq_log_entry *entries; /* owns */
};

struct sim_committed {
    uint64_t term, committed_in_term, payload, chain;
    uint64_t members; /* hash of the list, if that is what the entry is */
};

struct sim_identity { /* of a log entry: (index, term) names it for ever */
    uint64_t index, term, payload, term_before;
};

struct world {
    uint64_t seed, random;
    bool trace;
    uint64_t now_ms, calm_ms; /* faults end at calm_ms */
    unsigned host_count, founder_count;
    struct sim_host hosts[SIM_HOSTS_MAX];
    uint64_t *counters;

    struct sim_message in_flight[SIM_IN_FLIGHT];
    unsigned in_flight_count;
    unsigned delay_ms_max, late_permille, lose_permille, double_permille, disk_ms_max, crash_permille;
    bool minority_stays_down, members_change;
    bool deaf[SIM_HOSTS_MAX][SIM_HOSTS_MAX]; /* [a][b]: what a sends to b is lost */
    uint64_t client_at, chaos_at;
    uint64_t chaos_random; /* each misfortune has its own numbers, so that one can be left out */
    unsigned chaos_count;
    const struct sweep_without *without; /* not looked at in a measurement */
    struct {
        uint64_t instance, stored;
    } lost[SIM_LOST_MAX]; /* instances whose disks are gone, and what they had acknowledged */
    unsigned lost_count;
    uint64_t payload_last; /* every entry of a client has its own number */

    struct sim_committed ledger[SIM_INDEX_MAX];
    uint64_t ledger_last;
    uint64_t shown_last; /* some host has given it to its machine: somebody may have read it, or knows of its commit */
    struct rq_members members; /* the newest committed list, and its entry */
    uint64_t members_index;
    struct sim_identity identities[SIM_IDENTITY_MAX];
    struct {
        uint64_t host_id;
        unsigned life;
    } leader_of_term[SIM_INDEX_MAX];
    uint64_t index_of_payload[SIM_INDEX_MAX];
    jmp_buf on_death;
};

uint32_t sim_below(struct world *w, uint32_t bound);
bool sim_chance(struct world *w, unsigned permille);
void sim_count(struct world *w, enum sim_counter c);
void sim_trace(const struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A violation: says what, with the seed, and ends the process. */
void sim_fail(const struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

/* host.c */
void host_init(struct world *w, unsigned number);
void host_fini(struct sim_host *h);
void host_start(struct sim_host *h);
void host_die(struct sim_host *h, bool power_loss);
void host_wipe(struct sim_host *h); /* the disk is lost; comes back as a new instance of the same name */
/* From inside a call of the node: it dies here. */
void host_leave(struct sim_host *h) __attribute__((noreturn));
bool host_disk_failed(const struct sim_host *h); /* so that IO is no surprise */
/* Calls the node; a death in its midst ends the call, and the host. */
void host_timer(struct sim_host *h);
void host_write(struct sim_host *h);
void host_report(struct sim_host *h);
void host_compact(struct sim_host *h);
void host_install(struct sim_host *h);
void host_receive(struct sim_host *h, const struct sim_message *m);
/* False: refused. */
bool host_submit(struct sim_host *h);
void host_read(struct sim_host *h);
void host_transfer(struct sim_host *h, uint64_t to);
void host_join(struct sim_host *leader, const struct rq_member *member);
/* False: refused. */
bool host_remove(struct sim_host *leader, uint64_t instance);
uint64_t host_payload(const struct rq_log_entry *e); /* number of a client's entry, else 0 */

/* check.c */
void check_appended(struct sim_host *h); /* entries were added to the log */
void check_reopened(struct sim_host *h, struct rq_log_found *found);
void check_descriptor(struct sim_host *h);                                       /* another host's is durable here */
void check_installed(struct sim_host *h);                                        /* and the node knows */
void check_members_of(const struct sim_host *h, const struct sim_descriptor *d); /* that this host made */
void check_delivered(struct sim_host *h, const struct rq_log_entry *e);
void check_sent(const struct sim_host *h, const struct raft_message *m);
void check_read(const struct sim_host *h, uint64_t shown, uint64_t index); /* shown: when it was asked */
void check_step(struct sim_host *h);
void check_end(struct world *w);

/* plant.c */
void plant_disk(struct sim_host *h);
enum rq_err plant_outcome(const struct sim_host *h, enum rq_err err); /* of a failed write */
void plant_message(struct sim_host *from, struct raft_message *m);
void plant_step(struct sim_host *h); /* before the checks */

/* world.c */
void world_send(struct sim_host *from, const struct raft_message *m, uint64_t removed_index,
                const struct rq_round *round);
struct sim_host *world_host(struct world *w, uint64_t instance); /* NULL: no such instance any more */
/* Every list of members that is in force anywhere, or will be when a newer one is rolled back, keeps a majority of voters
 * without this host. */
bool world_can_lose(const struct world *w, const struct sim_host *lost);
void world_run(struct world *w);
/* From the death of a leader until another one has committed an entry; nothing else goes wrong. */
uint64_t world_failover_ms(struct world *w, unsigned hosts);

#endif
