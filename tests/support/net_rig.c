#include "tests/support/net_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/scratch.h"

enum rq_err (*net_stream)(void *ctx, const struct rq_peer_who *from, struct rq_stream *stream, const uint8_t *head,
                          size_t head_bytes, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                          char text[RQ_TEXT_MAX + 1]);
static char folder[64];
static struct rq_node_key *keys[NET_NODES_MAX];

static void must(bool holds, const char *what)
{
    if (!holds) {
        printf("Bail out! %s\n", what);
        exit(1);
    }
}

void net_pause(void)
{
    usleep(1000);
}

void net_begin(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/net_rig.XXXXXX");
    must(mkdtemp(folder) != NULL, "scratch folder");
    for (unsigned i = 0; i < NET_NODES_MAX; i++) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s/key", folder);
        (void)unlink(path);
        must(rq_node_key_load(rq_disk_real(), folder, &keys[i]) == RQ_OK, "node key");
    }
}

void net_end(void)
{
    for (unsigned i = 0; i < NET_NODES_MAX; i++) {
        rq_node_key_free(keys[i]);
    }
    (void)scratch_remove(folder);
}

static enum rq_err judge(void *ctx, const struct rq_peer_who *who, char text[RQ_TEXT_MAX + 1])
{
    struct net_node *n = ctx;
    atomic_fetch_add(&n->judged, 1);
    bool known = false;
    for (unsigned i = 0; i < NET_NODES_MAX; i++) {
        known = known || memcmp(who->key, rq_node_key_public(keys[i]), RQ_NODE_KEY_BYTES) == 0;
    }
    if (!known || atomic_load(&n->strangers_refused)) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "node %s is no member", who->node_name);
        return RQ_NOTFOUND;
    }
    return RQ_OK;
}

static void raft(void *ctx, uint64_t from, const uint8_t *data, size_t bytes)
{
    struct net_node *n = ctx;
    (void)from;
    uint64_t number = bytes >= 8 ? rq_get_u64(data) : 0;
    if (number != 0 && number <= atomic_load(&n->raft_last)) {
        atomic_fetch_add(&n->out_of_order, 1);
    }
    atomic_store(&n->raft_last, number);
    atomic_fetch_add(&n->raft_bytes, bytes);
    atomic_fetch_add(&n->raft_count, 1);
    if (n->on_raft != NULL) {
        n->on_raft();
    }
    while (atomic_load(&n->raft_waits)) {
        net_pause();
    }
}

/* "fail" fails; anything else is given back, "later" with time. */
static void request(void *ctx, const struct rq_peer_who *from, struct rq_call *call, const uint8_t *data, size_t bytes)
{
    struct net_node *n = ctx;
    (void)from;
    if (atomic_load(&n->silent)) {
        atomic_store(&n->kept, call);
    } else if (bytes == 4 && memcmp(data, "fail", 4) == 0) {
        rq_call_fail(call, RQ_REFUSED, "as was asked for");
    } else if (bytes == 5 && memcmp(data, "later", 5) == 0) {
        rq_call_answer_later(call, &(struct iovec){ (void *)data, bytes }, 1);
    } else {
        rq_call_answer(call, &(struct iovec){ (void *)data, bytes }, 1);
    }
    atomic_fetch_add(&n->requests, 1);
}

static enum rq_err no_stream(void *ctx, const struct rq_peer_who *from, struct rq_stream *stream, const uint8_t *head,
                             size_t head_bytes, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                             char text[RQ_TEXT_MAX + 1])
{
    (void)ctx, (void)from, (void)stream, (void)head, (void)head_bytes, (void)ret_ops, (void)ret_ctx;
    (void)snprintf(text, RQ_TEXT_MAX + 1, "no streams here");
    return RQ_MISUSE;
}

void net_start(struct net_node *n, unsigned number)
{
    static struct rq_peers_ops all_ops[NET_NODES_MAX * 2];
    static atomic_uint used;
    struct rq_peers_ops *ops = &all_ops[atomic_fetch_add(&used, 1) % (NET_NODES_MAX * 2)];
    *ops = (struct rq_peers_ops){ n, judge, raft, request, net_stream != NULL ? net_stream : no_stream };
    char text[RQ_TEXT_MAX + 1], name[16];
    (void)snprintf(n->address, sizeof n->address, "127.0.0.1:%u", n->port);
    (void)snprintf(name, sizeof name, "n%u", number);
    n->key = keys[number];
    n->instance = n->instance != 0 ? n->instance : 100 + number;
    struct rq_peers_config config = {
        .listen_address = n->address,
        .advertise_address = n->address,
        .node_name = name,
        .cluster = n->cluster,
        .instance = n->instance,
        .key = n->key,
        .tls = n->tls,
        .ops = ops,
        .ping_ms = n->ping_ms,
        .dead_ms = n->dead_ms,
    };
    enum rq_err err = rq_peers_new(&config, &n->peers, text);
    must(err == RQ_OK, text);
    n->port = rq_peers_port(n->peers);
    (void)snprintf(n->address, sizeof n->address, "127.0.0.1:%u", n->port);
}

void net_stop(struct net_node *n)
{
    rq_peers_free(n->peers);
    n->peers = NULL;
}

void net_know(struct net_node *n, struct net_node *const *others, unsigned count)
{
    struct rq_peer_member members[NET_NODES_MAX];
    for (unsigned i = 0; i < count; i++) {
        members[i] = (struct rq_peer_member){ .instance = others[i]->instance, .address = others[i]->address };
        memcpy(members[i].key, rq_node_key_public(others[i]->key), RQ_NODE_KEY_BYTES);
    }
    must(rq_peers_set_members(n->peers, members, count) == RQ_OK, "set members");
}

void net_start_two(struct net_node *a, struct net_node *b)
{
    memset(a, 0, sizeof *a);
    memset(b, 0, sizeof *b);
    a->cluster = b->cluster = NET_CLUSTER;
    net_start(a, 0);
    net_start(b, 1);
    net_know(a, (struct net_node *const[]){ b }, 1);
    net_know(b, (struct net_node *const[]){ a }, 1);
}

bool net_connected(struct net_node *n, uint64_t to)
{
    struct rq_peer_state state;
    return rq_peers_state(n->peers, to, &state) && state.connected[RQ_PEER_RAFT] && state.connected[RQ_PEER_REQUESTS] &&
           state.connected[RQ_PEER_BULK];
}

void net_answered(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct net_answer *a = ctx;
    a->err = err;
    (void)snprintf(a->text, sizeof a->text, "%.*s", (int)bytes, data != NULL ? (const char *)data : "");
    atomic_fetch_add(&a->count, 1);
}

void net_joined(void *ctx, enum rq_err err, const struct rq_peer_who *who, const uint8_t *data, size_t bytes)
{
    struct net_answer *a = ctx;
    a->who = who != NULL ? who->instance : 0;
    net_answered(ctx, err, data, bytes);
}
