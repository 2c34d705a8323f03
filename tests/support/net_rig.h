/* Net rig: nodes of a cluster as far as the transport knows them, in one process, on loopback. */
#ifndef TESTS_SUPPORT_NET_RIG_H
#define TESTS_SUPPORT_NET_RIG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "raftd/net/peers.h"

#define NET_NODES_MAX 4u
#define NET_CLUSTER   0xc1u

/* What a node does with a stream that is opened to it; NULL: it refuses. */
extern enum rq_err (*net_stream)(void *ctx, const struct rq_peer_who *from, struct rq_stream *stream,
                                 const uint8_t *head, size_t head_bytes, const struct rq_stream_ops **ret_ops,
                                 void **ret_ctx, char text[RQ_TEXT_MAX + 1]);

/* What came in, for tests to wait for.  Counters: any thread. */
struct net_node {
    struct rq_peers *peers;
    struct rq_node_key *key;
    uint64_t instance, cluster;
    unsigned port; /* 0: any; then what it got */
    const struct rq_tls_files *tls;
    unsigned ping_ms, dead_ms;
    char address[64];

    atomic_uint raft_count;
    atomic_ullong raft_bytes, raft_last; /* first 8 bytes of the last message */
    atomic_bool raft_waits;              /* the callback does not return while this is set */
    void (*on_raft)(void);               /* the callback calls it; NULL: nothing */
    atomic_uint out_of_order;
    atomic_uint requests, judged;
    atomic_bool strangers_refused; /* judge says no */
    atomic_bool silent;            /* requests are kept, not answered */
    _Atomic(struct rq_call *) kept;
};

/* In an own scratch folder; keys are made once and live as long as the process. */
void net_begin(void);
void net_end(void);
/* A node with the key of that number. */
void net_start(struct net_node *n, unsigned number);
void net_stop(struct net_node *n);
/* Each knows the others (by the keys of their numbers). */
void net_know(struct net_node *n, struct net_node *const *others, unsigned count);
bool net_connected(struct net_node *n, uint64_t to);
/* Two new ones, which know each other. */
void net_start_two(struct net_node *a, struct net_node *b);
/* Until it holds, a minute at most. */
#define net_until(condition)                                               \
    do {                                                                   \
        for (unsigned net_i = 0; net_i < 60000 && !(condition); net_i++) { \
            net_pause();                                                   \
        }                                                                  \
        check(condition);                                                  \
    } while (0)
void net_pause(void);

/* One request, waited for. */
struct net_answer {
    atomic_uint count;
    enum rq_err err;
    uint64_t who; /* of a join */
    char text[1100];
};
void net_answered(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes);
void net_joined(void *ctx, enum rq_err err, const struct rq_peer_who *who, const uint8_t *data, size_t bytes);

#endif
