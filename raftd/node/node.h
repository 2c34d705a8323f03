/* Node: one member of the raft group.  C-Raft's pure core, the filter around it, and the order in which its updates are obeyed.
 *
 * Everything here runs in loop context: on the loop strand, or in the simulation on the only thread there is.  Disk, clock and
 * network come in through struct rq_node_env, so the simulation runs this very code.  core.c is the only file that calls
 * raft_step(); filter.c is pure.
 *
 * Order of one update: term and vote durable; entries queued to the log; messages; commit index; committed entries delivered;
 * role.  An entry is delivered when it is committed and durable here, once per start, in order, from the one behind the
 * descriptor on.  Whoever is told that it leads has therefore been given everything that was committed before its term. */
#ifndef RAFTD_NODE_NODE_H
#define RAFTD_NODE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/log/log.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"

struct raft_message; /* raft.h */
struct rq_node;

/* At most so much may wait for its commit: the core looks at each uncommitted entry again at every answer. */
#define RQ_NODE_UNCOMMITTED_ENTRIES_MAX 256u
#define RQ_NODE_UNCOMMITTED_BYTES_MAX   ((uint64_t)16 << 20)

/* What the node drives: the replicated state machine.  Called in loop context, also from inside rq_node_new(); must not block on
 * a disk.  May call the node. */
struct rq_node_machine {
    void *ctx;
    /* A committed entry.  Borrows e; e->blob may be ref'd.  Applying it never fails for a local reason: it waits elsewhere. */
    void (*committed)(void *ctx, const struct rq_log_entry *e);
    /* This node may submit or not (rq_node_leads), in which term, and who leads if that is known (else 0).  Only changes. */
    void (*role)(void *ctx, bool leads, uint64_t term, uint64_t leader_id);
};

struct rq_node_env {
    struct rq_log *log; /* borrows */
    void *ctx;
    uint64_t (*now_ms)(void *ctx); /* monotonic */
    /* Entries wait in the log: run rq_log_write() on its strand, then rq_node_persisted() in loop context. */
    void (*write_wanted)(void *ctx);
    /* For another member; copies what it needs before it returns.  An AppendEntries names its entries only by prev_log_index and
     * n_entries: they are in the log.  NULL in a cluster of one, which has nobody to talk to. */
    void (*send)(void *ctx, const struct raft_message *message);
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

/* Starts the core from the log and the descriptor; delivers at once what the log knows to be committed.  CORRUPT: log and
 * descriptor do not fit together. */
enum rq_err rq_node_new(const struct rq_node_config *config, const struct rq_node_env *env,
                        const struct rq_node_machine *machine, struct rq_node **ret_node);
void rq_node_free(struct rq_node *n);

/* The first entry of a cluster of one: a configuration with this voter.  Written to an empty log before the first start, durable
 * on return; may be repeated after a crash in its midst.  EXISTS: the log holds entries. */
enum rq_err rq_node_found(struct rq_log *log, uint64_t id, const char *address);

/* Appends an entry if this node leads and has committed an entry of its own term: else AWAY.  FULL when the log has no room,
 * BUSY when too much is uncommitted, TOOBIG for an entry that can never be taken.  OK says only that it was appended: its fate is told by machine->committed.
 * Takes one reference to the blob on OK. */
enum rq_err rq_node_submit(struct rq_node *n, uint16_t type, struct rq_blob *blob, uint64_t *ret_index,
                           uint64_t *ret_term);

/* rq_log_write() has returned: the node asks rq_log_durable() how far the log is durable now. */
void rq_node_persisted(struct rq_node *n);

/* A message from the authenticated member that message->server_id names.  For AppendEntries: entries holds n_entries of them,
 * and message->append_entries.entries is not looked at.  Borrows all; takes its own references to blobs. */
void rq_node_receive(struct rq_node *n, const struct raft_message *message, const struct rq_log_entry *entries);

void rq_node_timer(struct rq_node *n); /* when now_ms >= rq_node_wake_ms */
uint64_t rq_node_wake_ms(const struct rq_node *n);

bool rq_node_leads(const struct rq_node *n); /* and has committed an entry of its own term */
uint64_t rq_node_term(const struct rq_node *n);
uint64_t rq_node_committed(const struct rq_node *n);
const char *rq_node_role(const struct rq_node *n); /* "Leader", "Follower", "Candidate": rqlite's words */

/* Configuration in force at index, for a descriptor: encoded, and the index of its entry.  Caller frees.  index is committed;
 * BUSY: a newer configuration has been committed above it, ask for a higher index. */
enum rq_err rq_node_configuration(struct rq_node *n, uint64_t index, uint8_t **ret_data, size_t *ret_bytes,
                                  uint64_t *ret_index);

/* A durable descriptor covers everything up to index (all of it delivered, applied and durable in the replicas): tells the core,
 * and releases the log but for `trailing` entries.  BUSY: this start has not yet seen index committed, try again later. */
enum rq_err rq_node_compacted(struct rq_node *n, uint64_t index, unsigned trailing);

#endif
