/* Inside of the cluster: cluster.c (messages, requests, members), cluster_join.c (becoming a member),
 * cluster_members.c (what members ask for), cluster_contact.c (who answers), learn.c (who the members are), reach.c (a leader that
 * a member does not hear), holding.c (who may vote, for the sake of staged bodies), reap.c, removal.c (of this node), copy_source.c and
 * catchup.c (databases that are copied). */
#ifndef RAFTD_CLUSTER_CLUSTER_IMPL_H
#define RAFTD_CLUSTER_CLUSTER_IMPL_H

#include <pthread.h>

#include "raftd/cluster/bodies.h"
#include "raftd/cluster/catchup.h"
#include "raftd/cluster/cluster.h"
#include "raftd/cluster/compare.h"
#include "raftd/cluster/doubts.h"
#include "raftd/cluster/marks.h"
#include "raftd/wire/ask.h"

#define RQ_CLUSTER_WAITING_MAX 64u /* nodes that wait for a cluster to be founded */

struct rq_standing { /* loop context */
    uint64_t instance, since_ms, last_ms, asked_ms;
};

struct rq_reaper { /* loop context */
    struct rq_task task;
    struct rq_later later;
    uint64_t leads_since_ms; /* 0: does not */
};

struct rq_removal { /* loop context, but for out while asks */
    struct rq_cluster *cluster;
    struct rq_task look, found_out;
    struct rq_later later;
    unsigned looks; /* in a row that found no leader */
    bool asks;      /* a thread is on its way, which writes out */
    bool out;
};

struct rq_holding { /* loop context */
    uint64_t term;  /* of the leadership that the rest is of */
    uint64_t
        needed; /* members count when they have everything up to here; nothing behind it names a body, as far as... */
    uint64_t needed_ms; /* since when */
    uint64_t scanned;   /* ...here */
    uint64_t since_ms;  /* nobody was asked before */
    unsigned count;
    struct rq_holder {
        uint64_t instance, asked_ms, told_ms; /* ms: at last */
        struct rq_ask_has has;
    } list[RQ_MEMBERS_MAX];
};

struct rq_cluster {
    struct rq_cluster_config config;
    struct rq_peers *peers;
    struct rq_peers_ops ops;
    struct rq_forward forward;
    struct rq_log *log;
    struct rq_driver *_Atomic driver; /* NULL: not started */
    struct rq_catalog *catalog;       /* borrows; set before driver, as what follows */
    struct rq_catchup *catchup;
    struct rq_marks *_Atomic marks; /* NULL: not started */
    struct rq_compare *compare;
    struct rq_doubts doubts;   /* from replay on */
    atomic_uint copy_sessions; /* of others that copy databases from here */
    unsigned next_asked;       /* loop context: of the members, when no leader is known */

    struct rq_standing standing; /* reach.c */
    struct rq_holding holding;   /* holding.c */
    struct rq_reaper reaper;     /* reap.c */
    struct rq_removal removal;   /* removal.c */
    atomic_bool removed;         /* this node; by all that is known */
    atomic_bool stops_when_removed;
    struct rq_bodies *_Atomic bodies; /* owns; NULL: not yet */
    struct rq_cluster_turns *turns;   /* owns; cluster_turn.h */

    pthread_mutex_t lock;
    uint64_t cluster;                                 /* guarded by lock, as what follows */
    struct rq_members members;                        /* in force here; loop context writes, as told */
    struct rq_members told;                           /* by a member, and newer: they may connect, too (learn.c) */
    struct rq_member waiting[RQ_CLUSTER_WAITING_MAX]; /* who has sent NOTIFY; this node is the first */
    unsigned waiting_count;
};

/* A member that this node has a connection to, each time another one; 0: none.  Loop context. */
uint64_t rq_cluster_someone(struct rq_cluster *c);
/* Loop context, or before the node starts. */
void rq_cluster_told(struct rq_cluster *c, const struct rq_members *told);

/* A thread that waits for an answer which comes on another one. */
struct rq_waiter {
    pthread_mutex_t lock;
    pthread_cond_t done_cond;
    bool done;
    enum rq_err err;
    char text[RQ_TEXT_MAX + 1];
};
void rq_waiter_init(struct rq_waiter *w);
void rq_waiter_done(struct rq_waiter *w, enum rq_err err, const uint8_t *data, size_t bytes);
/* asked: OK, or there will be no answer.  Ends the waiter, but for its text. */
enum rq_err rq_waiter_wait(struct rq_waiter *w, enum rq_err asked);

/* Answers with what was put into body, or with the error that came of that; ends both. */
void rq_cluster_reply(struct rq_call *call, struct rq_bytes *body, enum rq_err err);

#define RQ_CLUSTER_REPLY_MAX  (1u << 20)
#define RQ_CLUSTER_BAD_MEMBER "a node has to have a name and addresses without white space, and to prove its key"

bool rq_cluster_take_text(char to[RQ_MEMBER_TEXT_MAX + 1], struct rq_str from);
/* What it says of itself; of a stranger it has to be what it has proved. */
enum rq_err rq_cluster_take_member(const struct rq_peer_who *from, const struct rq_ask_member *m,
                                   struct rq_member *ret_member);
/* The credentials file does not let this stranger in; the call is answered. */
bool rq_cluster_keeps_out(struct rq_cluster *c, const struct rq_peer_who *from, struct rq_call *call,
                          const struct rq_ask_member *m);
struct rq_ask rq_cluster_join_ask(enum rq_ask_kind kind, const struct rq_member *m); /* borrows m */
enum rq_err rq_cluster_put_joined(struct rq_cluster *c, struct rq_bytes *out);

/* For struct rq_forward. */
void rq_cluster_ask_index(void *ctx, uint64_t leader_id, uint64_t question);

/* Requests of others; each takes the call.  On the peers' thread. */
void rq_cluster_asked_notify(struct rq_cluster *c, const struct rq_peer_who *from, struct rq_call *call,
                             const struct rq_ask *ask);
void rq_cluster_asked_join(struct rq_cluster *c, const struct rq_peer_who *from, struct rq_call *call,
                           const struct rq_ask *ask, const uint8_t *data, size_t bytes);
void rq_cluster_asked_index(struct rq_cluster *c, uint64_t from, struct rq_call *call);
void rq_cluster_asked_remove(struct rq_cluster *c, struct rq_call *call, const struct rq_ask *ask, const uint8_t *data,
                             size_t bytes);
void rq_cluster_asked_transfer(struct rq_cluster *c, struct rq_call *call, const struct rq_ask *ask,
                               const uint8_t *data, size_t bytes);
void rq_cluster_asked_about(struct rq_cluster *c, struct rq_call *call);

/* --- holding.c --- */

/* For struct rq_forward. */
bool rq_cluster_may_vote(void *cluster, const struct rq_members *members);
void rq_cluster_asked_held(struct rq_cluster *c, struct rq_call *call);

/* --- reap.c --- */

void rq_reaper_start(struct rq_cluster *c);

/* --- removal.c --- */

void rq_removal_start(struct rq_cluster *c);
/* For struct rq_forward. */
void rq_cluster_on_removed(void *ctx);

/* --- reach.c --- */

/* Loop context: that member stands for election. */
void rq_cluster_stands(struct rq_cluster *c, uint64_t instance);
void rq_cluster_asked_reach(struct rq_cluster *c, const struct rq_peer_who *from, struct rq_call *call,
                            const struct rq_ask *ask);

/* A member wants to copy databases.  Takes the stream if it is OK. */
enum rq_err rq_cluster_asked_copy(struct rq_cluster *c, struct rq_stream *stream, const struct rq_stream_ops **ret_ops,
                                  void **ret_ctx);

#endif
