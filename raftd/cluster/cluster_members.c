#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/cluster_turn.h"
#include "raftd/db/catalog.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"

#define PASS_ON_MS      10000 /* for the leader's answer */
#define REMOVE_WAIT_MS  2000  /* until the voters that are left are known to have what they need */
#define REMOVE_AGAIN_MS 20
#define RECONNECT_MS    500 /* for a connection to it: a leader that is gone is believed in for about so long */

/* A change of the membership that somebody wants: a node, or a thread of this one. */
struct wish {
    struct rq_task task; /* on the loop */
    struct rq_cluster *cluster;
    struct rq_call *call; /* NULL: the waiter */
    struct rq_waiter *waiter;
    struct rq_member member;           /* JOIN */
    bool is_known;                     /* and the members are told nothing new */
    char name[RQ_MEMBER_TEXT_MAX + 1]; /* REMOVE, TRANSFER */
    struct rq_later again;             /* REMOVE, until then: */
    uint64_t again_until_ms;           /* 0: not tried yet */
    size_t bytes;
    uint8_t ask[]; /* to be passed on to the leader */
};

static void grant(struct wish *w, const uint8_t *data, size_t bytes)
{
    struct iovec part = { (void *)(uintptr_t)data, bytes };
    if (w->call != NULL) {
        rq_call_answer(w->call, &part, bytes > 0 ? 1 : 0);
    } else {
        rq_waiter_done(w->waiter, RQ_OK, data, bytes);
    }
    free(w);
}

static void refuse(struct wish *w, enum rq_err err, const char *text)
{
    if (w->call != NULL) {
        rq_call_fail(w->call, err, text);
    } else {
        rq_waiter_done(w->waiter, err, (const uint8_t *)text, strlen(text));
    }
    free(w);
}

/* Posts it to the loop; or says why not. */
static void make_wish(struct rq_cluster *c, struct rq_call *call, struct rq_waiter *waiter, const struct wish *what,
                      const uint8_t *ask, size_t bytes)
{
    struct rq_driver *d = atomic_load(&c->driver);
    struct wish *w = malloc(sizeof *w + bytes);
    if (w == NULL) {
        rq_fatal("no memory for a change of the membership", RQ_NOMEM);
    }
    *w = *what;
    w->cluster = c;
    w->call = call;
    w->waiter = waiter;
    w->bytes = bytes;
    memcpy(w->ask, ask, bytes);
    if (d == NULL) {
        refuse(w, RQ_AWAY, "this node is in no cluster yet, try again");
        return;
    }
    rq_strand_post(rq_driver_loop(d), &w->task, RQ_HAND_OVER);
}

static void on_passed_on(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct wish *w = ctx;
    char text[RQ_TEXT_MAX + 1];
    if (err == RQ_OK) {
        grant(w, data, bytes);
        return;
    }
    (void)snprintf(text, sizeof text, "%.*s", (int)(bytes < RQ_TEXT_MAX ? bytes : RQ_TEXT_MAX), (const char *)data);
    refuse(w, err, text[0] != '\0' ? text : rq_err_text(err));
}

uint64_t rq_cluster_someone(struct rq_cluster *c)
{
    struct rq_members members;
    struct rq_peer_state state;
    rq_cluster_members(c, &members);
    for (unsigned i = 0; i < members.count; i++) {
        const uint64_t instance = members.list[c->next_asked++ % members.count].instance;
        if (instance != c->config.instance && rq_peers_state(c->peers, instance, &state) &&
            state.connected[RQ_PEER_REQUESTS]) {
            return instance;
        }
    }
    return 0;
}

/* Not the leader: it is asked in the name of who has asked us.  A node that has moved does not hear the leader, who dials its
 * former address; but it reaches others who do. */
static void pass_on(struct wish *w)
{
    uint64_t to = rq_driver_view(atomic_load(&w->cluster->driver)).leader_id;
    struct iovec part = { w->ask, w->bytes };
    enum rq_err err = RQ_AWAY;
    if (to == 0 && w->call == NULL) {
        to = rq_cluster_someone(w->cluster);
    }
    if (to != 0 && to != w->cluster->config.instance) {
        struct rq_peer_state state;
        const bool connected = rq_peers_state(w->cluster->peers, to, &state) && state.connected[RQ_PEER_REQUESTS];
        err = rq_peers_request(w->cluster->peers, to, &part, 1, connected ? PASS_ON_MS : RECONNECT_MS, on_passed_on, w);
    }
    if (err != RQ_OK) {
        refuse(w, RQ_AWAY, "there is no leader now, try again");
    }
}

/* NULL: this node does not lead, and the wish is on its way to who does. */
static struct rq_node *leading_node(struct wish *w)
{
    struct rq_node *node = rq_driver_node(atomic_load(&w->cluster->driver));
    if (!rq_node_leads(node)) {
        pass_on(w);
        return NULL;
    }
    return node;
}

/* --- join ------------------------------------------------------------------------------------------------------------------ */

static void joined(void *ctx, enum rq_err err)
{
    struct wish *w = ctx;
    struct rq_bytes reply;
    if (err != RQ_OK) {
        refuse(w, err, "the leader changed meanwhile, try again");
        return;
    }
    RQ_COUNT(store, num_joins);
    rq_note(RQ_LEVEL_INFO, w->is_known ? "node is a member already" : "node joined", "node=%s instance=%016llx raft=%s",
            w->member.name, (unsigned long long)w->member.instance, w->member.raft_addr);
    rq_bytes_init(&reply, RQ_CLUSTER_REPLY_MAX);
    err = rq_cluster_put_joined(w->cluster, &reply);
    if (err == RQ_OK) {
        grant(w, reply.data, reply.size);
    } else {
        refuse(w, err, rq_err_text(err));
    }
    rq_bytes_fini(&reply);
}

static const char *join_refusal(enum rq_err err)
{
    switch ((int)err) {
        case RQ_EXISTS:
            return "a node of this -node-id, or at this address, is a member, and alive";
        case RQ_BUSY:
            return "the membership is being changed, try again";
        case RQ_MISUSE:
            return "this is no address";
        default:
            return rq_err_text(err);
    }
}

static void run_join(struct rq_task *task)
{
    struct wish *w = (struct wish *)task;
    struct rq_node *node = leading_node(w);
    if (node == NULL) {
        return;
    }
    if (rq_cluster_is_alone(w->cluster) && rq_catalog_has_adopted(w->cluster->catalog)) {
        refuse(w, RQ_UNREADY, "this node is about to found the cluster; try again");
        return;
    }
    struct rq_members members;
    rq_cluster_members(w->cluster, &members);
    const struct rq_member *m = rq_members_find(&members, w->member.instance);
    w->is_known = m != NULL && rq_member_same_data(m, &w->member);
    enum rq_err err = rq_node_join(node, &w->member, joined, w);
    if (err != RQ_OK) {
        refuse(w, err, join_refusal(err));
    }
}

void rq_cluster_asked_join(struct rq_cluster *c, const struct rq_peer_who *from, struct rq_call *call,
                           const struct rq_ask *ask, const uint8_t *data, size_t bytes)
{
    struct wish what = { .task = { .run = run_join } };
    RQ_COUNT(cluster, num_join_req);
    enum rq_err err = rq_cluster_take_member(from, &ask->member, &what.member);
    if (err != RQ_OK) {
        rq_call_fail(call, err, RQ_CLUSTER_BAD_MEMBER);
        return;
    }
    if (rq_cluster_keeps_out(c, from, call, &ask->member)) {
        return;
    }
    make_wish(c, call, NULL, &what, data, bytes);
}

/* --- remove ---------------------------------------------------------------------------------------------------------------- */

static void removed(void *ctx, enum rq_err err)
{
    struct wish *w = ctx;
    if (err != RQ_OK) {
        refuse(w, err, "the leader changed meanwhile, try again");
        return;
    }
    rq_note(RQ_LEVEL_INFO, "node removed", "node=%s", w->name);
    grant(w, NULL, 0);
}

static const struct rq_member *find_member(const struct rq_members *members, const char *name)
{
    const struct rq_member *m = rq_members_find_name(members, name);
    for (unsigned i = 0; m == NULL && i < members->count; i++) {
        m = strcmp(members->list[i].raft_addr, name) == 0 ? &members->list[i] : NULL;
    }
    return m;
}

static const char *remove_refusal(enum rq_err err)
{
    switch ((int)err) {
        case RQ_NOTFOUND:
            return "no such node";
        case RQ_MISUSE:
            return "the only voter of a cluster cannot be removed";
        case RQ_BUSY:
            return "the membership is being changed, or too few voters would be in reach that have all that is "
                   "committed; try "
                   "again";
        default:
            return rq_err_text(err);
    }
}

/* It has to ask the others first (holding.c). */
static bool remove_again(struct wish *w)
{
    const uint64_t now = rq_clock_ms();
    struct rq_driver *d = atomic_load(&w->cluster->driver);
    if (w->again_until_ms == 0) {
        w->again_until_ms = now + REMOVE_WAIT_MS;
    }
    if (now >= w->again_until_ms) {
        return false;
    }
    w->again = (struct rq_later){ .strand = rq_driver_loop(d), .task = &w->task };
    rq_driver_post_later(d, &w->again, REMOVE_AGAIN_MS);
    return true;
}

static void run_remove(struct rq_task *task)
{
    struct wish *w = (struct wish *)task;
    struct rq_node *node = leading_node(w);
    if (node == NULL) {
        return;
    }
    const struct rq_members *members = rq_node_members(node);
    const struct rq_member *m = members != NULL ? find_member(members, w->name) : NULL;
    enum rq_err err = m == NULL ? RQ_NOTFOUND : rq_node_remove(node, m->instance, removed, w);
    if (err != RQ_OK && (err != RQ_BUSY || !remove_again(w))) {
        refuse(w, err, remove_refusal(err));
    }
}

void rq_cluster_asked_remove(struct rq_cluster *c, struct rq_call *call, const struct rq_ask *ask, const uint8_t *data,
                             size_t bytes)
{
    struct wish what = { .task = { .run = run_remove } };
    RQ_COUNT(cluster, num_remove_node_req);
    if (!rq_cluster_take_text(what.name, ask->name)) {
        rq_call_fail(call, RQ_NOTFOUND, "no such node");
        return;
    }
    make_wish(c, call, NULL, &what, data, bytes);
}

/* --- transfer -------------------------------------------------------------------------------------------------------------- */

static void transferred(void *ctx, enum rq_err err)
{
    struct wish *w = ctx;
    if (err != RQ_OK) {
        refuse(w, RQ_UNREADY, "leadership was not taken over in time");
        return;
    }
    rq_note(RQ_LEVEL_INFO, "leadership transferred", "to=%s", w->name[0] != '\0' ? w->name : "any");
    grant(w, NULL, 0);
}

static const char *transfer_refusal(enum rq_err err)
{
    switch ((int)err) {
        case RQ_NOTFOUND:
            return "there is no such voter";
        case RQ_BUSY:
            return "leadership is being handed over, or no such voter is in reach; try again";
        default:
            return rq_err_text(err);
    }
}

static void run_transfer(struct rq_task *task)
{
    struct wish *w = (struct wish *)task;
    struct rq_node *node = leading_node(w);
    if (node == NULL) {
        return;
    }
    const struct rq_members *members = rq_node_members(node);
    const struct rq_member *m = w->name[0] != '\0' ? rq_members_find_name(members, w->name) : NULL;
    if (w->name[0] != '\0' && m == NULL) {
        refuse(w, RQ_NOTFOUND, "node not found in cluster");
    } else if (m != NULL && m->instance == w->cluster->config.instance) {
        refuse(w, RQ_MISUSE, "cannot step down to the current Leader");
    } else {
        enum rq_err err = rq_node_transfer(node, m != NULL ? m->instance : 0, transferred, w);
        if (err != RQ_OK) {
            refuse(w, err, transfer_refusal(err));
        }
    }
}

void rq_cluster_asked_transfer(struct rq_cluster *c, struct rq_call *call, const struct rq_ask *ask,
                               const uint8_t *data, size_t bytes)
{
    struct wish what = { .task = { .run = run_transfer } };
    RQ_COUNT(cluster, num_stepdown_req);
    if (ask->name.bytes > 0 && !rq_cluster_take_text(what.name, ask->name)) {
        rq_call_fail(call, RQ_NOTFOUND, "node not found in cluster");
        return;
    }
    make_wish(c, call, NULL, &what, data, bytes);
}

/* --- from here ------------------------------------------------------------------------------------------------------------- */

/* Blocks until the leader, here or elsewhere, has done it. */
static enum rq_err wish_and_wait(struct rq_cluster *c, const struct rq_ask *ask, const struct wish *what,
                                 char text[RQ_TEXT_MAX + 1])
{
    struct rq_waiter waiter;
    struct rq_bytes body;
    rq_bytes_init(&body, 1u << 16);
    rq_waiter_init(&waiter);
    enum rq_err err = rq_ask_put(&body, ask);
    if (err == RQ_OK) {
        make_wish(c, NULL, &waiter, what, body.data, body.size);
    }
    err = rq_waiter_wait(&waiter, err);
    (void)snprintf(text, RQ_TEXT_MAX + 1, "%s", waiter.text[0] != '\0' ? waiter.text : rq_err_text(err));
    rq_bytes_fini(&body);
    return err;
}

enum rq_err rq_cluster_remove(struct rq_cluster *c, const char *name, char text[RQ_TEXT_MAX + 1])
{
    const struct rq_ask ask = { .kind = RQ_ASK_REMOVE, .name = { name, (uint32_t)strlen(name) } };
    struct wish what = { .task = { .run = run_remove } };
    if (strlen(name) > RQ_MEMBER_TEXT_MAX) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "no such node");
        return RQ_NOTFOUND;
    }
    (void)snprintf(what.name, sizeof what.name, "%s", name);
    return wish_and_wait(c, &ask, &what, text);
}

enum rq_err rq_cluster_transfer(struct rq_cluster *c, const char *name, char text[RQ_TEXT_MAX + 1])
{
    const char *to = name != NULL ? name : "";
    const struct rq_ask ask = { .kind = RQ_ASK_TRANSFER, .name = { to, (uint32_t)strlen(to) } };
    struct wish what = { .task = { .run = run_transfer } };
    if (strlen(to) > RQ_MEMBER_TEXT_MAX) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "node not found in cluster");
        return RQ_NOTFOUND;
    }
    (void)snprintf(what.name, sizeof what.name, "%s", to);
    return wish_and_wait(c, &ask, &what, text);
}

enum rq_err rq_cluster_describe(struct rq_cluster *c, bool anyway, char text[RQ_TEXT_MAX + 1])
{
    struct wish what = { .task = { .run = run_join } };
    struct rq_members members;
    rq_cluster_members(c, &members);
    rq_cluster_self(c, &what.member);
    const struct rq_member *m = rq_members_find(&members, what.member.instance);
    if (m == NULL || (!anyway && rq_member_same_data(m, &what.member))) {
        return RQ_OK;
    }
    const struct rq_ask ask = rq_cluster_join_ask(RQ_ASK_JOIN, &what.member);
    return wish_and_wait(c, &ask, &what, text);
}

/* --- stepping down --------------------------------------------------------------------------------------------------------- */

struct step_down {
    struct rq_task task;
    struct rq_cluster *cluster;
    struct rq_waiter *waiter;
};

static void stepped_down(void *ctx, enum rq_err err)
{
    rq_waiter_done(ctx, err, NULL, 0);
}

static void run_step_down(struct rq_task *task)
{
    struct step_down *s = (struct step_down *)task;
    struct rq_node *node = rq_driver_node(atomic_load(&s->cluster->driver));
    enum rq_err err = rq_node_transfer(node, 0, stepped_down, s->waiter);
    if (err != RQ_OK) {
        rq_waiter_done(s->waiter, err, NULL, 0);
    }
}

void rq_cluster_step_down(struct rq_cluster *c)
{
    struct rq_waiter waiter;
    struct step_down s = { { .run = run_step_down }, c, &waiter };
    if (rq_cluster_is_alone(c)) {
        return;
    }
    rq_cluster_turn_leave(c->turns);
    rq_waiter_init(&waiter);
    rq_strand_post(rq_driver_loop(atomic_load(&c->driver)), &s.task, RQ_HAND_OVER);
    (void)rq_waiter_wait(&waiter, RQ_OK);
}
