/* The peers of raftd/net/peers.h without sockets: messages that may be late or lost, questions with an answer or none. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/fleet/fleet.h"

enum { LATER_MS = 50 };

struct ask {
    struct ask *next;
    uint64_t id, instance, deadline_ms;
    bool sent;
    unsigned life; /* of whom it was sent to */
    uint8_t *data; /* owns */
    size_t bytes;
    rq_answer_cb answer;
    void *ctx;
};

struct rq_peers {
    struct fleet_host *host; /* of one life */
    struct rq_peers_config config;
    struct ask *asks;
    uint64_t ask_last;
};

struct rq_call {
    unsigned here, here_life, asker, asker_life;
    uint64_t id;
};

static uint8_t *gather(const struct iovec *parts, int part_count, size_t *ret_bytes)
{
    size_t bytes = 0;
    for (int i = 0; i < part_count; i++) {
        bytes += parts[i].iov_len;
    }
    uint8_t *data = malloc(bytes + 1), *at = data;
    for (int i = 0; i < part_count; i++) {
        if (parts[i].iov_len > 0) {
            memcpy(at, parts[i].iov_base, parts[i].iov_len);
        }
        at += parts[i].iov_len;
    }
    *ret_bytes = bytes;
    return data;
}

/* --- the network --------------------------------------------------------------------------------------------------------- */

struct fleet_host *net_host(uint64_t instance)
{
    for (unsigned i = 0; i < fleet->host_count; i++) {
        if (fleet->hosts[i].instance == instance) {
            return &fleet->hosts[i];
        }
    }
    return NULL;
}

bool net_linked(const struct fleet_host *a, const struct fleet_host *b)
{
    return a->state != FLEET_DEAD && b->state != FLEET_DEAD && !fleet->deaf[a->number][b->number] &&
           !fleet->deaf[b->number][a->number];
}

void net_send(struct fleet_message *m, unsigned delay_ms)
{
    if (fleet->in_flight_count == FLEET_IN_FLIGHT_MAX) {
        fleet_fail("too many messages under way");
    }
    m->due = fleet->now_ms + delay_ms;
    m->order = ++fleet->order;
    m->from_life = fleet->hosts[m->from].life;
    if (m->kind != FLEET_RAFT) { /* in order, on a connection */
        uint64_t *last = &fleet->last_due[m->from][m->to];
        *last = m->due = m->due > *last ? m->due : *last;
    }
    fleet->in_flight[fleet->in_flight_count++] = *m;
}

static unsigned some_delay(void)
{
    const unsigned delay = fleet_below(fleet->delay_ms_max + 1);
    return fleet_chance(5) ? delay + fleet_below(500) : delay;
}

static struct ask *take_ask(struct rq_peers *p, uint64_t id)
{
    for (struct ask **at = &p->asks; *at != NULL; at = &(*at)->next) {
        struct ask *a = *at;
        if (a->id == id) {
            *at = a->next;
            return a;
        }
    }
    return NULL;
}

static void answer_ask(struct ask *a, enum rq_err err, const uint8_t *data, size_t bytes)
{
    if (err == RQ_UNKNOWN) {
        fleet_count(FLEET_asks_unanswered);
    }
    a->answer(a->ctx, err, data, bytes);
    free(a->data);
    free(a);
}

/* Does it let the other one in? */
static bool judges(const struct fleet_host *h, const struct fleet_host *from, struct rq_peer_who *ret_who)
{
    char text[RQ_TEXT_MAX + 1];
    const struct rq_peers *p = h->peers;
    *ret_who = (struct rq_peer_who){
        .cluster = p->config.cluster,
        .instance = from->instance,
        .epoch = from->life,
        .node_name = from->name,
        .key = from->key,
        .address = from->raft_address,
        .kind = RQ_PEER_REQUESTS,
    };
    return p->config.ops->judge(p->config.ops->ctx, ret_who, text) == RQ_OK;
}

static void receive(void *ctx)
{
    const struct fleet_message *m = ctx;
    struct fleet_host *h = &fleet->hosts[m->to], *from = &fleet->hosts[m->from];
    struct rq_peers *p = h->peers;
    struct rq_peer_who who;
    switch (m->kind) {
        case FLEET_RAFT:
            if (judges(h, from, &who)) {
                p->config.ops->raft(p->config.ops->ctx, from->instance, m->data, m->bytes);
            }
            break;
        case FLEET_ASK:
            if (judges(h, from, &who)) {
                struct rq_call *call = malloc(sizeof *call);
                *call = (struct rq_call){ h->number, h->life, from->number, m->from_life, m->id };
                p->config.ops->request(p->config.ops->ctx, &who, call, m->data, m->bytes);
            }
            break;
        case FLEET_ANSWER: {
            struct ask *a = take_ask(p, m->id);
            if (a != NULL) {
                answer_ask(a, m->err, m->data, m->bytes);
            }
            break;
        }
        case FLEET_BODY:
            bodies_receive(h, m);
            break;
        case FLEET_BODY_TAKEN:
            bodies_taken(h, m);
            break;
    }
}

static bool next_due(const struct fleet_host *h, unsigned *ret_at)
{
    bool found = false;
    for (unsigned i = 0; i < fleet->in_flight_count; i++) {
        const struct fleet_message *m = &fleet->in_flight[i], *best = &fleet->in_flight[*ret_at];
        if (m->to == h->number && m->due <= fleet->now_ms &&
            (!found || m->due < best->due || (m->due == best->due && m->order < best->order))) {
            *ret_at = i;
            found = true;
        }
    }
    return found;
}

void net_deliver(struct fleet_host *h)
{
    unsigned at = 0;
    while (host_works(h) && next_due(h, &at)) {
        struct fleet_message m = fleet->in_flight[at];
        fleet->in_flight[at] = fleet->in_flight[--fleet->in_flight_count];
        const bool lost = fleet->deaf[m.from][m.to] || (m.to_life != 0 && m.to_life != h->life) ||
                          (m.kind != FLEET_RAFT && fleet->hosts[m.from].life != m.from_life) || h->peers == NULL;
        if (!lost) {
            (void)host_run(h, receive, &m);
        }
        free(m.data);
    }
}

static void try_ask(struct rq_peers *p, struct ask *a)
{
    const struct fleet_host *to = net_host(a->instance);
    if (to == NULL || !net_linked(p->host, to)) {
        return;
    }
    struct fleet_message m = { .kind = FLEET_ASK, .from = p->host->number, .to = to->number, .to_life = to->life };
    m.id = a->id;
    m.bytes = a->bytes;
    m.data = malloc(a->bytes + 1);
    memcpy(m.data, a->data, a->bytes);
    a->sent = true;
    a->life = to->life;
    net_send(&m, some_delay());
}

/* Has lost its connection, or its time is over. */
static bool ask_is_lost(const struct ask *a)
{
    const struct fleet_host *to = net_host(a->instance);
    const bool broken = a->sent && (to == NULL || to->state == FLEET_DEAD || to->life != a->life);
    return broken || fleet->now_ms >= a->deadline_ms;
}

/* Tries those that wait for a connection, as far as the first that is lost, which it returns. */
static struct ask *try_asks(struct rq_peers *p)
{
    struct ask *a = p->asks;
    for (; a != NULL && !ask_is_lost(a); a = a->next) {
        if (!a->sent) {
            try_ask(p, a);
        }
    }
    return a;
}

static void tend_asks(void *ctx)
{
    struct rq_peers *p = ctx;
    for (struct ask *lost; (lost = try_asks(p)) != NULL;) { /* from the first again: who is answered may ask anew */
        answer_ask(take_ask(p, lost->id), lost->sent ? RQ_UNKNOWN : RQ_AWAY, NULL, 0);
    }
}

void net_tick(struct fleet_host *h)
{
    if (h->peers != NULL && h->peers->asks != NULL) {
        (void)host_run(h, tend_asks, h->peers);
    }
}

/* --- in place of raftd/net --------------------------------------------------------------------------------------------------- */

enum rq_err rq_peers_new(const struct rq_peers_config *config, struct rq_peers **ret_peers, char text[RQ_TEXT_MAX + 1])
{
    struct rq_peers *p = calloc(1, sizeof *p);
    text[0] = '\0'; /* it cannot fail */
    p->host = fleet->current;
    p->config = *config;
    p->host->peers = p;
    *ret_peers = p;
    return RQ_OK;
}

void rq_peers_free(struct rq_peers *p)
{
    free(p); /* after a start that failed; no raftd of this simulation ends in any other way than by its death */
}

void rq_peers_set_cluster(struct rq_peers *p, uint64_t cluster)
{
    p->config.cluster = cluster;
}

enum rq_err rq_peers_set_members(struct rq_peers *p, const struct rq_peer_member *members, size_t count)
{
    (void)p, (void)members, (void)count; /* everybody finds everybody; judge() decides */
    return RQ_OK;
}

bool rq_peers_send_raft(struct rq_peers *p, uint64_t instance, const struct iovec *parts, int part_count)
{
    const struct fleet_host *to = net_host(instance);
    if (to == NULL || fleet_chance(fleet->lose_permille)) {
        return false;
    }
    struct fleet_message m = { .kind = FLEET_RAFT, .from = p->host->number, .to = to->number };
    m.data = gather(parts, part_count, &m.bytes);
    net_send(&m, some_delay());
    return true;
}

enum rq_err rq_peers_request(struct rq_peers *p, uint64_t instance, const struct iovec *parts, int part_count,
                             unsigned timeout_ms, rq_answer_cb answer, void *ctx)
{
    struct ask *a = calloc(1, sizeof *a);
    a->id = ++p->ask_last;
    a->instance = instance;
    a->deadline_ms = fleet->now_ms + timeout_ms;
    a->data = gather(parts, part_count, &a->bytes);
    a->answer = answer;
    a->ctx = ctx;
    struct ask **at = &p->asks;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = a;
    try_ask(p, a);
    return RQ_OK;
}

/* Nobody joins by asking here. */
enum rq_err rq_peers_join(struct rq_peers *p, const char *address, const struct iovec *parts, int part_count,
                          unsigned timeout_ms, rq_join_cb answer, void *ctx)
{
    (void)p, (void)address, (void)parts, (void)part_count, (void)timeout_ms, (void)answer, (void)ctx;
    return RQ_NOTFOUND;
}

bool rq_peers_state(struct rq_peers *p, uint64_t instance, struct rq_peer_state *ret_state)
{
    const struct fleet_host *other = net_host(instance);
    *ret_state = (struct rq_peer_state){ 0 };
    if (other == NULL) {
        return false;
    }
    for (unsigned i = 0; i < RQ_PEER_KINDS; i++) {
        ret_state->connected[i] = net_linked(p->host, other);
    }
    return true;
}

static void answer_call(struct rq_call *call, enum rq_err err, uint8_t *data, size_t bytes, unsigned delay_ms)
{
    struct fleet_message m = { .kind = FLEET_ANSWER, .from = call->here, .to = call->asker };
    m.to_life = call->asker_life;
    m.id = call->id;
    m.err = err;
    m.data = data;
    m.bytes = bytes;
    net_send(&m, delay_ms);
    free(call);
}

void rq_call_answer(struct rq_call *call, const struct iovec *parts, int part_count)
{
    size_t bytes;
    uint8_t *data = gather(parts, part_count, &bytes);
    answer_call(call, RQ_OK, data, bytes, some_delay());
}

void rq_call_answer_later(struct rq_call *call, const struct iovec *parts, int part_count)
{
    size_t bytes;
    uint8_t *data = gather(parts, part_count, &bytes);
    answer_call(call, RQ_OK, data, bytes, some_delay() + fleet_below(LATER_MS));
}

void rq_call_fail(struct rq_call *call, enum rq_err err, const char *text)
{
    answer_call(call, err, (uint8_t *)strdup(text), strlen(text), some_delay());
}

const uint8_t *rq_node_key_public(const struct rq_node_key *k)
{
    return (const uint8_t *)k; /* the host's */
}
