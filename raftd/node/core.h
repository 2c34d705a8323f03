/* Core: C-Raft's struct raft and the one loop that steps it.  core.c is the only caller of raft_step() and of the functions that
 * begin and end a struct raft; nothing reaches them but through the filter.
 *
 * Owns: the struct raft.  Borrows: log and environment, for life.  Threads: loop context only.
 * Whatever goes wrong after the start is fatal, but for a submit: the process begins again from its disk. */
#ifndef RAFTD_NODE_CORE_H
#define RAFTD_NODE_CORE_H

#include <raft.h>
#include <stdbool.h>
#include <stdint.h>

#include "raftd/node/node.h"

/* Version of an AppendEntries of ours, without entries: word of the commit index, answered only by a rejection.  The core knows
 * version 0 alone, and gets it as such. */
#define RQ_CORE_NOTICE 1u

/* Entries of the log that are for another member, and wait for more, or for their commit. */
struct rq_core_kept {
    uint64_t prev, prev_term; /* of the one before the first */
    unsigned count;           /* 0: none */
    uint64_t due_ms;          /* looked at again */
    uint64_t last_ms;         /* sent whatever is found then */
    uint64_t hoped;           /* those up to here should be committed by due_ms */
};

/* What a leader knows of another member, beyond what raft keeps to itself. */
struct rq_core_peer {
    uint64_t id;
    uint64_t told;         /* it was sent word that entries up to here are committed */
    uint64_t told_ms;      /* when */
    uint64_t awaited;      /* somebody there waits for an entry up to here */
    uint64_t heard_ms;     /* it answered in this term; 0: not yet */
    uint64_t overtaken_ms; /* another one, who was sent an entry later, answered for it first; 0: not yet */
    struct rq_core_kept kept;
    uint64_t delayed; /* an entry that was kept to its time; 0: none */
};

struct rq_core_wanted { /* a descriptor that the leader says we need */
    uint64_t index, term, leader_id;
};

struct rq_core {
    struct raft raft;
    struct rq_node_env env;
    /* How to start again from what is durable: its snapshot is the newest descriptor that the core was told of.  Owns address and
     * configuration. */
    struct rq_node_config config;
    uint64_t now_ms;              /* last time given to raft: never goes back */
    uint64_t committed;           /* highest index known to be committed: never goes back, which raft's own may */
    uint64_t committed_term;      /* of that entry, which the log may have released */
    uint64_t retry_ms;            /* the log had no room for a barrier: not before this time again */
    uint64_t leader_heard_ms;     /* when a leader of the current term was heard last */
    struct rq_core_wanted wanted; /* index 0: none */
    struct rq_core_peer peers[RQ_MEMBERS_MAX]; /* of this leadership, in no order; tell.h, as the next two */
    unsigned peer_count;
    uint64_t tell_ms; /* some hold what they do not know to be committed, and are told then at the latest; 0: none */
    bool silent;      /* what is being received wants no answer but a rejection */
    uint64_t removed_index; /* a configuration of this index, without us, is committed */
    bool started;
    bool log_full;         /* the newest entries that came from a leader found no room in it */
    bool barrier_reserved; /* the log has room for the barrier of a leader to be */
};

/* C6.  The descriptor came from another member, and the crash fell between its becoming durable and the log's first entry behind
 * it: a log that does not lead up to it was given up then, and is now.  config->found is what there is then. */
enum rq_err rq_core_drop_log_given_up(struct rq_log *log, struct rq_node_config *config);

/* CORRUPT: log and descriptor do not fit together; nothing was started. */
enum rq_err rq_core_start(struct rq_core *core, const struct rq_node_config *config, const struct rq_node_env *env);
void rq_core_fini(struct rq_core *core);

/* Appends e, whose room is reserved; index and term are set.  AWAY: does not lead; nothing happened. */
enum rq_err rq_core_submit(struct rq_core *core, struct rq_log_entry *e);
/* AWAY: does not lead, or hands over already.  NOTFOUND: no voter of this id, or none but us when it is 0. */
enum rq_err rq_core_transfer(struct rq_core *core, uint64_t id);
bool rq_core_transfers(const struct rq_core *core);
/* Another member's state at this index took the place of ours, durably: the log begins anew behind it. */
enum rq_err rq_core_install(struct rq_core *core, const struct rq_node_snapshot *snapshot);

void rq_core_receive(struct rq_core *core, const struct raft_message *message, const struct rq_log_entry *entries);
void rq_core_persisted(struct rq_core *core);
void rq_core_timer(struct rq_core *core);
uint64_t rq_core_wake_ms(const struct rq_core *core);

/* The core forgets entries up to index, but for trailing; *ret_released: the log may release up to here. */
enum rq_err rq_core_compact(struct rq_core *core, uint64_t index, unsigned trailing, uint64_t *ret_released);

/* Leads, and has committed an entry of its own term (G3): before that it does not know what is committed. */
bool rq_core_leads(const struct rq_core *core);
/* Elected, but its first entry found no room in the log. */
bool rq_core_owes_barrier(const struct rq_core *core);
/* A configuration that excludes this member is committed: it does not stand for election. */
bool rq_core_is_removed(const struct rq_core *core);
/* The leader's: that member answered within an election's time. */
bool rq_core_hears(const struct rq_core *core, uint64_t id);
uint64_t rq_core_match(const struct rq_core *core,
                       uint64_t id); /* the leader's: it holds entries up to here; 0: none known */
bool rq_core_holds(const struct rq_core *core, uint64_t index, uint64_t term); /* in the log, or as its descriptor */
uint64_t rq_core_leader_id(const struct rq_core *core);                        /* 0: not known */
uint64_t rq_core_deliverable(const struct rq_core *core);                      /* committed and durable here */

const struct rq_core *rq_node_core(const struct rq_node *n); /* for checks, which see everything and change nothing */

#endif
