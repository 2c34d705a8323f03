/* Driver: what turns the node in production: its loop strand, the log's strand, the clock.
 *
 * Loop context = a task on rq_driver_loop().  The node is touched there and nowhere else. */
#ifndef RAFTD_DB_DRIVER_H
#define RAFTD_DB_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/db/freshness.h"
#include "raftd/log/log.h"
#include "raftd/node/node.h"
#include "raftd/run/blob.h"
#include "raftd/run/strand.h"
#include "raftd/wire/err.h"

struct rq_driver;

/* An entry on its way to the leader, this node or another one.  Embedded by who submits it; one use at a time. */
struct rq_submit {
    struct rq_task task;
    struct rq_driver *driver;
    uint16_t type;
    bool here;                   /* another node asks: it is not passed on */
    bool forwarded;              /* the driver's: it was passed on */
    struct rq_blob *blob;        /* the driver takes the reference */
    struct rq_instances holders; /* STAGED: who has the body durably */
    uint64_t term;               /* OK: in which it was appended */
    uint64_t index;              /* OK, and it was not passed on: where */
    enum rq_err err;             /* the driver's */
    /* Loop context.  OK: appended, its fate comes as a committed entry, unless another leader cuts it off.  UNKNOWN: it may have
     * been appended.  Else it was not. */
    void (*done)(struct rq_submit *s, enum rq_err err);
};

/* The way to the other nodes.  All in loop context. */
struct rq_forward {
    void *ctx;
    /* Takes s; answered by rq_driver_forwarded(), never from inside the call. */
    void (*propose)(void *ctx, uint64_t leader_id, struct rq_submit *s);
    void (*send)(void *ctx, const struct raft_message *message);  /* as in struct rq_node_env */
    void (*members)(void *ctx, const struct rq_members *members); /* as in struct rq_node_machine, with what follows */
    void (*role)(void *ctx, bool leads, uint64_t term, uint64_t leader_id);
    void (*install)(void *ctx, uint64_t index, uint64_t term, uint64_t leader_id);
    void (*removed)(void *ctx);
    void (*send_round)(void *ctx, uint64_t to, const struct rq_round *round); /* as send */
    /* As in struct rq_node_env. */
    bool (*may_vote)(void *ctx, const struct rq_members *members);
    /* Asks that leader for a read index; answered by rq_driver_index(), never from inside the call. */
    void (*ask_index)(void *ctx, uint64_t leader_id, uint64_t question);
};

/* A task that is due later. */
struct rq_later {
    struct rq_later *next;
    uint64_t due_ms;
    struct rq_strand *strand;
    struct rq_task *task;
};

/* What others may know of the node without the loop: each a value of some moment, not a snapshot. */
struct rq_driver_view {
    bool leads;       /* has committed an entry of its own term */
    const char *role; /* as rq_node_role() */
    uint64_t term, leader_id;
    uint64_t committed;
    uint64_t delivered; /* newest entry given to the machine */
    bool full;          /* rq_node_is_full() */
};

struct rq_driver_config {
    struct rq_pool *pool; /* borrows, as the log */
    struct rq_log *log;
    struct rq_node_config node;
    const struct rq_node_machine *machine;
    const struct rq_forward *forward; /* borrows; NULL: a cluster of one */
};

/* Starts the node: what the log knows to be committed has been delivered when this returns.  With a pool that has no threads
 * there is none for the clock either: rq_driver_timer() is the caller's. */
enum rq_err rq_driver_new(const struct rq_driver_config *config, struct rq_driver **ret_driver);
void rq_driver_timer(struct rq_driver *d); /* time has passed: the node looks whether something is due */

void rq_driver_submit(struct rq_driver *d, struct rq_submit *s);
void rq_driver_forwarded(struct rq_driver *d, struct rq_submit *s, enum rq_err err, uint64_t term); /* any thread */
/* Posts the task to the strand, to be handed over, once delay_ms have passed.  Any thread; later is the driver's until then. */
void rq_driver_post_later(struct rq_driver *d, struct rq_later *later, uint64_t delay_ms);
struct rq_strand *rq_driver_loop(struct rq_driver *d);
struct rq_node *rq_driver_node(struct rq_driver *d);             /* loop context */
uint64_t rq_driver_term_at(struct rq_driver *d, uint64_t index); /* loop context; 0: not in the log */
/* Loop context: the entry of the log behind *index (0: the first), whose index that becomes; counts its blob.  False: there is none,
 * or *ret_err is not OK. */
bool rq_driver_next_entry(struct rq_driver *d, uint64_t *index, struct rq_log_entry *ret_entry, enum rq_err *ret_err);
/* Loop context: a message of that member; as rq_node_receive(). */
void rq_driver_receive(struct rq_driver *d, const struct raft_message *message, const struct rq_log_entry *entries);
/* Loop context: as rq_node_installed(). */
void rq_driver_installed(struct rq_driver *d, const struct rq_node_snapshot *snapshot);
void rq_driver_receive_round(struct rq_driver *d, uint64_t from, const struct rq_round *round);
/* Any thread.  Waits until this node has delivered all that r asks for; its max_age_ms, deadline_ms and done are set. */
void rq_driver_read(struct rq_driver *d, struct rq_reading *r);
void rq_driver_index(struct rq_driver *d, uint64_t question, enum rq_err err, uint64_t index); /* any thread */
/* Another node asks this one, in loop context: as rq_node_read(). */
void rq_driver_read_index(struct rq_driver *d, struct rq_node_read *r);
struct rq_driver_view rq_driver_view(const struct rq_driver *d);
/* Any thread that may wait for the disk: makes ready what the log will want next.  FULL is no reason to end. */
enum rq_err rq_driver_prepare_log(struct rq_driver *d);
void rq_driver_log_stats(struct rq_driver *d, struct rq_log_stats *ret_stats); /* any thread */

/* Blocks until this node leads, or timeout_ms have passed. */
bool rq_driver_wait_leads(struct rq_driver *d, unsigned timeout_ms);
/* Blocks until entries up to index have been delivered, or timeout_ms have passed. */
bool rq_driver_wait_delivered(struct rq_driver *d, uint64_t index, unsigned timeout_ms);
/* Blocks until a leader is known, and entries up to index and to the commit that it told have been delivered, or timeout_ms have
 * passed. */
bool rq_driver_wait_started(struct rq_driver *d, uint64_t index, unsigned timeout_ms);

#endif
