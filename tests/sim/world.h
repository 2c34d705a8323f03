/* World of the simulation: hosts with real nodes and real logs on recording disks, a network, clients and misfortune, all driven
 * by one seed.  One thread, no clock but its own: the same seed gives the same history.
 *
 *   world.c   the queue of what happens next, network, clients, faults, healing
 *   host.c    one host: disk, log, node, state machine; its deaths and starts
 *   check.c   what must hold after every step
 *   sim_node.c  seeds, sweeps, report
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
#include "tests/support/record_disk.h"

#define SIM_HOSTS_MAX    5u
#define SIM_INDEX_MAX    20000u
#define SIM_IDENTITY_MAX 65536u /* of (index, term) pairs; a power of two */
#define SIM_IN_FLIGHT    4096u
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
    X(minorities_down)         \
    X(entries_lost_unacknowledged)
/* clang-format on */

enum sim_counter {
#define SIM_COUNTER_ENUM(name) SIM_##name,
    SIM_COUNTERS(SIM_COUNTER_ENUM)
#undef SIM_COUNTER_ENUM
        SIM_COUNTER_COUNT
};

/* A fault planted on purpose: a sweep with it has to fail. */
enum sim_plant {
    SIM_PLANT_NONE,
    SIM_PLANT_LIE_SYNC,    /* the disk says that data is synced, and it is not */
    SIM_PLANT_DOUBLE_APPLY /* the state machine forgets at a start the last entry that it had applied */
};

struct sim_state { /* of a state machine: the hash chain over all entries up to index */
    uint64_t index, term, hash;
};

struct sim_descriptor {
    struct sim_state state;
    uint8_t *configuration; /* owns */
    size_t configuration_bytes;
    uint64_t configuration_index;
};

struct world;

struct sim_host {
    struct world *world;
    unsigned number;
    uint64_t id;
    char address[16];
    struct record_disk *disk;
    struct rq_log *log;
    struct rq_node *node; /* NULL: dead, or just starting */
    bool alive;
    unsigned life;

    uint64_t write_at, report_at, restart_at, compact_at; /* SIM_NEVER: not wanted */
    bool slow, full;
    unsigned messages_to_death; /* 0: none */
    unsigned side;              /* of a partition */
    bool absent;                /* dead until the end */

    struct sim_state cached, synced; /* what applied files hold: in the page cache, on the medium */
    struct sim_descriptor descriptor;
    unsigned trailing;

    /* The log as it was seen to grow, and what the core was told of it. */
    uint64_t terms[SIM_INDEX_MAX];
    uint64_t last, stored, committed, delivered;
    uint64_t meta_term, meta_vote;
    uint64_t submitted_term[SIM_INDEX_MAX]; /* by a client here, in this life */
};

struct sim_message {
    struct raft_message message; /* server_id: the sender */
    unsigned to;
    uint64_t due;
    struct rq_log_entry *entries; /* owns */
};

struct sim_committed {
    uint64_t term, committed_in_term, payload, chain;
};

struct sim_identity { /* of a log entry: (index, term) names it for ever */
    uint64_t index, term, payload, term_before;
};

struct world {
    uint64_t seed, random;
    bool trace;
    enum sim_plant plant;
    uint64_t now_ms, calm_ms; /* faults end at calm_ms */
    unsigned host_count;
    struct sim_host hosts[SIM_HOSTS_MAX];
    uint64_t *counters;

    struct sim_message in_flight[SIM_IN_FLIGHT];
    unsigned in_flight_count;
    unsigned delay_ms_max, lose_permille, double_permille, disk_ms_max, crash_permille;
    bool minority_stays_down;
    uint64_t client_at, chaos_at;
    uint64_t payload_last; /* every entry of a client has its own number */

    struct sim_committed ledger[SIM_INDEX_MAX];
    uint64_t ledger_last;
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
/* From inside a call of the node: it dies here. */
void host_leave(struct sim_host *h) __attribute__((noreturn));
bool host_disk_failed(const struct sim_host *h); /* so that IO is no surprise */
/* Calls the node; a death in its midst ends the call, and the host. */
void host_timer(struct sim_host *h);
void host_write(struct sim_host *h);
void host_report(struct sim_host *h);
void host_compact(struct sim_host *h);
void host_receive(struct sim_host *h, const struct sim_message *m);
/* False: refused. */
bool host_submit(struct sim_host *h);
uint64_t host_payload(const struct rq_log_entry *e); /* number of a client's entry, else 0 */

/* check.c */
void check_appended(struct sim_host *h); /* entries were added to the log */
void check_reopened(struct sim_host *h, const struct rq_log_found *found);
void check_delivered(struct sim_host *h, const struct rq_log_entry *e);
void check_step(struct sim_host *h);
void check_end(struct world *w);

/* world.c */
void world_send(struct sim_host *from, const struct raft_message *m);
void world_run(struct world *w);

#endif
