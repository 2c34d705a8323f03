/* Node: one member of the raft group.  C-Raft's pure core, the filter around it, and the order in which its updates are obeyed.
 *
 * Everything here runs in loop context: on the loop strand, or in the simulation on the only thread there is.  Disk, clock,
 * random numbers and (with the cluster) network come in through struct rq_node_env, so the simulation runs this very code.
 * core.c is the only file that calls raft_step(); filter.c is pure.
 *
 * Order of one update: term and vote durable; entries queued to the log; messages; role; commit index; committed entries
 * delivered.  An entry is delivered when it is committed and durable here, once per start, in order. */
#ifndef RAFTD_NODE_NODE_H
#define RAFTD_NODE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/log/log.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"

struct rq_node;

/* What the node drives: the replicated state machine.  Called in loop context; must not block on a disk. */
struct rq_node_machine {
    void *ctx;
    /* A committed entry.  Borrows e; e->blob may be ref'd.  Applying it never fails for a local reason: it waits elsewhere. */
    void (*committed)(void *ctx, const struct rq_log_entry *e);
    /* Leader or not, and in which term. */
    void (*role)(void *ctx, bool leads, uint64_t term, uint64_t leader_id);
};

struct rq_node_env {
    struct rq_log *log; /* borrows */
    void *ctx;
    uint64_t (*now_ms)(void *ctx); /* monotonic */
    uint64_t (*random)(void *ctx);
    /* Entries wait in the log: run rq_log_write() on its strand, then rq_node_persisted() in loop context. */
    void (*write_wanted)(void *ctx);
    /* Something that cannot go on: raftd logs and ends, the simulation fails the seed.  Does not return. */
    void (*fatal)(void *ctx, const char *why, enum rq_err err);
};

struct rq_node_config {
    uint64_t id; /* the instance's id */
    const char *address;
    uint64_t seed;
    unsigned election_timeout_ms, heartbeat_ms;
    struct rq_log_found found;
    /* The durable descriptor, if there is one. */
    uint64_t snapshot_index, snapshot_term, snapshot_configuration_index;
    const uint8_t *snapshot_configuration; /* as raft_configuration_encode() gave it */
    size_t snapshot_configuration_bytes;
};

/* Starts the core from the log and the descriptor; delivers at once what the log knows to be committed. */
enum rq_err rq_node_new(const struct rq_node_config *config,
                        const struct rq_node_env *env,
                        const struct rq_node_machine *machine,
                        struct rq_node **ret_node);
void rq_node_free(struct rq_node *n);

/* The first entry of a cluster of one: a configuration with this voter.  Written to an empty log before the first start. */
enum rq_err rq_node_found(struct rq_log *log, uint64_t id, const char *address);

/* Appends an entry if this node leads and has committed an entry of its own term: else AWAY.  FULL when the log has no room,
 * BUSY when too much is uncommitted.  OK says only that it was appended: its fate is told by machine->committed.
 * Takes one reference to the blob on OK. */
enum rq_err rq_node_submit(struct rq_node *n, uint16_t type, struct rq_blob *blob, uint64_t *ret_index, uint64_t *ret_term);

/* The log reports durable up to this index. */
void rq_node_persisted(struct rq_node *n, uint64_t index);

void rq_node_timer(struct rq_node *n);            /* when now_ms >= rq_node_wake_ms */
uint64_t rq_node_wake_ms(const struct rq_node *n);

bool rq_node_leads(const struct rq_node *n); /* and has committed an entry of its own term */
uint64_t rq_node_term(const struct rq_node *n);
uint64_t rq_node_committed(const struct rq_node *n);
const char *rq_node_role(const struct rq_node *n); /* "Leader", "Follower", "Candidate": rqlite's words */

/* Configuration in force at index, for a descriptor: encoded, and the index of its entry.  Caller frees. */
enum rq_err rq_node_configuration(struct rq_node *n, uint64_t index, uint8_t **ret_data, size_t *ret_bytes, uint64_t *ret_index);

/* A durable descriptor covers everything up to index (all of it applied and durable in the replicas): tells the core, and
 * releases the log. */
enum rq_err rq_node_compacted(struct rq_node *n, uint64_t index);

#endif
