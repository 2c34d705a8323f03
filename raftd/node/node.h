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
#include "raftd/node/member.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"

struct raft_message; /* raft.h */
struct rq_node;

/* A leader's question to a voter, are you still in this term?, and the answer, which repeats it: reads.h. */
struct rq_round {
    uint64_t term, round;
    bool answer;
};

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
    /* The members in force: the newest list in the log, committed or not, which may be rolled back.  Whoever is in it is to be
     * reached and let in.  Borrows.  Called at the start if there is a list, then at changes.  NULL: nobody asks. */
    void (*members)(void *ctx, const struct rq_members *members);
    /* The leader has released what this node's log needs next: fetch the databases' state at this index or a later one from a member
     * that has it, make them and their descriptor (marked as installed) durable, then rq_node_installed().  Called again with a
     * higher index when the leader has moved on, and with any that another leader says; a fetch under way may go on.  NULL in a cluster of one. */
    void (*install)(void *ctx, uint64_t index, uint64_t term, uint64_t leader_id);
    /* This instance is no member any more, and that is committed: it stops taking part.  NULL in a cluster of one. */
    void (*removed)(void *ctx);
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
    /* May exactly these vote from now on, though some of what the log names is elsewhere (staged bodies)?  False: not now, it is asked
     * again.  NULL: always. */
    bool (*may_vote)(void *ctx, const struct rq_members *members);
    /* For another member: its rq_node_receive_round().  What is lost is asked again.  NULL as send. */
    void (*send_round)(void *ctx, uint64_t to, const struct rq_round *round);
    /* For an instance that is no member, by a committed configuration of this index: its rq_node_told_removed().  Best effort: it
     * is told again when it is heard again.  NULL as send. */
    void (*tell_removed)(void *ctx, uint64_t instance, uint64_t index);
    /* Something that cannot go on: raftd logs and ends, the simulation fails the seed.  Does not return. */
    void (*fatal)(void *ctx, const char *why, enum rq_err err);
};

/* A follower that hears nothing stands for election after one to two of these, and wins when another voter has waited as long.
 * Simulated (sim_node --failover 1-3000; clients submit, messages take 1 or 2 ms): from a leader's death to the next one's first
 * commit half take 542 ms in a cluster of three and 505 in one of five, 9 of 10 599 and 576, 99 of 100 828 and 940. */
#define RQ_NODE_ELECTION_MS  300u
#define RQ_NODE_HEARTBEAT_MS 50u

/* So long a leader waits for more entries, before it sends what a commit does not depend on: word of what is committed, and
 * entries to members that are not needed for a majority; one less at times. */
#define RQ_NODE_TELL_MS 2u

/* So long it gathers entries for a member while commits go on without it, and word of commits for one that they need. */
#define RQ_NODE_SHOW_MS 10u

struct rq_node_config {
    uint64_t id; /* the instance's id */
    const char *address;
    uint64_t seed;
    unsigned election_timeout_ms, heartbeat_ms;
    struct rq_log_found found;
    /* The durable descriptor, if there is one. */
    uint64_t snapshot_index, snapshot_term, snapshot_configuration_index;
    const uint8_t *snapshot_configuration; /* as rq_members_encode() gave it */
    size_t snapshot_configuration_bytes;
    bool snapshot_installed; /* it came from another member: a log that does not lead up to it was given up for it */
};

/* A descriptor, as far as the node knows it. */
struct rq_node_snapshot {
    uint64_t index, term, configuration_index;
    const uint8_t *configuration;
    size_t configuration_bytes;
};

/* Starts the core from the log and the descriptor; delivers at once what the log knows to be committed.  CORRUPT: log and
 * descriptor do not fit together. */
enum rq_err rq_node_new(const struct rq_node_config *config, const struct rq_node_env *env,
                        const struct rq_node_machine *machine, struct rq_node **ret_node);
void rq_node_free(struct rq_node *n);

/* The first entry of a cluster: its members.  Written to an empty log before the first start, durable on return; may be repeated
 * after a crash in its midst.  Usually one voter, whom the others join: several must write the very same list.  EXISTS: the log
 * holds entries; MISUSE: such a list cannot be in force. */
enum rq_err rq_node_found(struct rq_log *log, const struct rq_members *members);

/* Recovery from a majority that is lost for good: this voter alone is the cluster, and its whole log counts as committed, also what
 * never was.  The log is open and no node is started on it yet; config is what one would be started with, as far as log and descriptor
 * go, and is so again afterwards.  Durable on return, may be repeated after a crash.  No other instance may ever be started again: what
 * it holds may be another history. */
enum rq_err rq_node_recover(struct rq_log *log, struct rq_node_config *config, const struct rq_member *survivor);

/* Appends an entry if this node leads and has committed an entry of its own term: else AWAY.  FULL when the log has no room,
 * BUSY when too much is uncommitted or leadership is being handed over, TOOBIG for an entry that can never be taken.  OK says only that it was appended: its fate is told by machine->committed.
 * Takes one reference to the blob on OK. */
enum rq_err rq_node_submit(struct rq_node *n, uint16_t type, struct rq_blob *blob, uint64_t *ret_index,
                           uint64_t *ret_term);

/* rq_log_write() has returned: the node asks rq_log_durable() how far the log is durable now. */
void rq_node_persisted(struct rq_node *n);

/* A message from the authenticated member that message->server_id names.  For AppendEntries: entries holds n_entries of them,
 * and message->append_entries.entries is not looked at.  Borrows all; takes its own references to blobs. */
void rq_node_receive(struct rq_node *n, const struct raft_message *message, const struct rq_log_entry *entries);

/* Somebody on that member waits until it has delivered the entry of this index, a committed one or one that this node appended: it is
 * sent it, and told of its commit, at once.  Forgotten when this node ceases to lead. */
void rq_node_awaited(struct rq_node *n, uint64_t instance, uint64_t index);

void rq_node_receive_round(struct rq_node *n, uint64_t from, const struct rq_round *round);

/* Wants to know how far the log was committed, anywhere, when it asked. */
struct rq_node_read {
    struct rq_node_read *next; /* the node's, as round */
    uint64_t round;
    /* Once, perhaps from inside.  OK: everything that was committed by the time of the question is at or below index.  AWAY: this
     * node does not lead, or ceased to. */
    void (*done)(struct rq_node_read *r, enum rq_err err, uint64_t index);
};
/* Borrows r until done.  Takes a message to a majority and back, and no write. */
void rq_node_read(struct rq_node *n, struct rq_node_read *r);

void rq_node_timer(struct rq_node *n); /* when now_ms >= rq_node_wake_ms */
uint64_t rq_node_wake_ms(const struct rq_node *n);

/* What the leader sends finds no room in the log; it sends it again. */
bool rq_node_is_full(const struct rq_node *n);
bool rq_node_leads(const struct rq_node *n); /* and has committed an entry of its own term */
uint64_t rq_node_term(const struct rq_node *n);
uint64_t rq_node_committed(const struct rq_node *n);
uint64_t rq_node_delivered(
    const struct rq_node *n); /* newest entry that the machine was given, or that a descriptor stands for */
const char *rq_node_role(const struct rq_node *n); /* "Leader", "Follower", "Candidate": rqlite's words */

/* --- membership: asked of the leader, one change at a time ---
 *
 * Every change is one entry that adds, removes or alters one member.  What takes several is done by whoever leads, from the list
 * alone, so that no fail-over forgets it: a standby that is to vote is promoted when it has caught up; an instance whose name a
 * newer one bears is removed when that one has the role it is to have.
 *
 * done is called once, perhaps from inside: OK: committed.  AWAY: it is not going to happen here, ask the leader.  UNKNOWN: it
 * may yet happen; ask again.  All may be asked again and change nothing then.
 * Returns OK, or without calling done: AWAY: does not lead.  BUSY: another change or a transfer is under way, or it would leave
 * less than a majority of voters in reach; try again. */
typedef void (*rq_node_done_cb)(void *ctx, enum rq_err err);

/* Adds the member as a standby, or alters the data of a known instance (role is not looked at, votes is).  A known name with
 * another instance is a node that lost its disk: the new one is to replace the old.  EXISTS: that old one is alive, or leads, or
 * another member at that raft address is. */
enum rq_err rq_node_join(struct rq_node *n, const struct rq_member *member, rq_node_done_cb done, void *ctx);
/* NOTFOUND: no such member.  MISUSE: the only voter.  A leader that is to remove itself hands over, and done tells AWAY. */
enum rq_err rq_node_remove(struct rq_node *n, uint64_t instance, rq_node_done_cb done, void *ctx);
/* Hands leadership to that voter, or to the best one when it is 0, e.g. before a shutdown.  Nothing can be submitted meanwhile.
 * NOTFOUND: no such voter.  BUSY also: it is not in reach.  done: OK, or BUSY when it has not taken over within an election's time:
 * then this node leads on. */
enum rq_err rq_node_transfer(struct rq_node *n, uint64_t instance, rq_node_done_cb done, void *ctx);

/* The members in force; NULL as long as this node knows of none.  Valid until the next call. */
const struct rq_members *rq_node_members(const struct rq_node *n);
/* A member said that this instance is none any more, by a committed configuration of that index. */
void rq_node_told_removed(struct rq_node *n, uint64_t from, uint64_t index);
/* Most of the other voters said that it is none, by a configuration that is newer than those that this node knows. */
void rq_node_found_removed(struct rq_node *n);
/* The state that machine->install asked for, or a later one, is durable here, and its descriptor. */
void rq_node_installed(struct rq_node *n, const struct rq_node_snapshot *snapshot);
/* The leader's: that member answered within an election's time. */
bool rq_node_hears(const struct rq_node *n, uint64_t instance);
/* How far back a member that can be reached still needs the leader's log; UINT64_MAX: none does.  For the choice of `trailing`. */
uint64_t rq_node_needed_from(const struct rq_node *n);

/* Configuration in force at index, for a descriptor: encoded, and the index of its entry.  Caller frees.  index is committed;
 * BUSY: a newer configuration has been committed above it, ask for a higher index. */
enum rq_err rq_node_configuration(struct rq_node *n, uint64_t index, uint8_t **ret_data, size_t *ret_bytes,
                                  uint64_t *ret_index);

/* A durable descriptor covers everything up to index (all of it delivered, applied and durable in the replicas): tells the core,
 * and releases the log but for `trailing` entries.  BUSY: this start has not yet seen index committed, try again later. */
enum rq_err rq_node_compacted(struct rq_node *n, uint64_t index, unsigned trailing);

#endif
