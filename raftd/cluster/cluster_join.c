#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"

#define JOIN_WAIT_MS    10000
#define NOTIFY_WAIT_MS  2000
#define NOTIFY_EVERY_MS 300

/* --- waiting for an answer --------------------------------------------------------------------------------------------------- */

void rq_waiter_init(struct rq_waiter *w)
{
    memset(w, 0, sizeof *w);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->done_cond, NULL);
}

enum rq_err rq_waiter_wait(struct rq_waiter *w, enum rq_err asked)
{
    pthread_mutex_lock(&w->lock);
    while (asked == RQ_OK && !w->done) {
        pthread_cond_wait(&w->done_cond, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->done_cond);
    return asked == RQ_OK ? w->err : asked;
}

void rq_waiter_done(struct rq_waiter *w, enum rq_err err, const uint8_t *data, size_t bytes)
{
    pthread_mutex_lock(&w->lock);
    w->err = err;
    if (err != RQ_OK && data != NULL) {
        (void)snprintf(w->text, sizeof w->text, "%.*s", (int)(bytes < RQ_TEXT_MAX ? bytes : RQ_TEXT_MAX),
                       (const char *)data);
    }
    w->done = true;
    pthread_cond_signal(&w->done_cond);
    pthread_mutex_unlock(&w->lock);
}

/* --- what nodes say of themselves --------------------------------------------------------------------------------------------- */

bool rq_cluster_take_text(char to[RQ_MEMBER_TEXT_MAX + 1], struct rq_str from)
{
    if (from.bytes > RQ_MEMBER_TEXT_MAX) {
        return false;
    }
    memcpy(to, from.data, from.bytes);
    to[from.bytes] = '\0';
    return strlen(to) == from.bytes && rq_member_text_ok(to);
}

/* What it says of itself; to a stranger it has to be what it has proved. */
enum rq_err rq_cluster_take_member(const struct rq_peer_who *from, const struct rq_ask_member *m,
                                   struct rq_member *ret_member)
{
    *ret_member = (struct rq_member){ .instance = m->instance, .role = RQ_MEMBER_STANDBY, .votes = m->votes };
    memcpy(ret_member->key, m->key, RQ_MEMBER_KEY_BYTES);
    if (!rq_cluster_take_text(ret_member->name, m->name) ||
        !rq_cluster_take_text(ret_member->raft_addr, m->raft_addr) ||
        !rq_cluster_take_text(ret_member->http_addr, m->http_addr)) {
        return RQ_MISUSE;
    }
    const bool proved = m->instance == from->instance && memcmp(m->key, from->key, RQ_MEMBER_KEY_BYTES) == 0;
    return from->kind != RQ_PEER_JOIN || proved ? RQ_OK : RQ_PERM;
}

bool rq_cluster_keeps_out(struct rq_cluster *c, const struct rq_peer_who *from, struct rq_call *call,
                          const struct rq_ask_member *m)
{
    char user[RQ_MEMBER_TEXT_MAX + 1] = "", password[RQ_MEMBER_TEXT_MAX + 1] = "";
    if (c->config.doors.may_join == NULL || from->kind != RQ_PEER_JOIN) {
        return false; /* a member has asked them itself, or is known already */
    }
    if (m->user.bytes <= RQ_MEMBER_TEXT_MAX && m->password.bytes <= RQ_MEMBER_TEXT_MAX) {
        (void)snprintf(user, sizeof user, "%.*s", (int)m->user.bytes, m->user.data);
        (void)snprintf(password, sizeof password, "%.*s", (int)m->password.bytes, m->password.data);
    }
    if (c->config.doors.may_join(c->config.doors.ctx, user, password, m->votes)) {
        return false;
    }
    rq_note(RQ_LEVEL_WARN, "a node may not join: its user is not in the credentials file with that perm",
            "instance=%016llx address=%s", (unsigned long long)from->instance, from->address);
    rq_call_fail(call, RQ_PERM, "unauthorized (did you forget to set -join-as?)");
    return true;
}

struct rq_ask rq_cluster_join_ask(enum rq_ask_kind kind, const struct rq_member *m)
{
    return (struct rq_ask){
        .kind = kind,
        .member = { .instance = m->instance,
                    .name = { m->name, (uint32_t)strlen(m->name) },
                    .raft_addr = { m->raft_addr, (uint32_t)strlen(m->raft_addr) },
                    .http_addr = { m->http_addr, (uint32_t)strlen(m->http_addr) },
                    .votes = m->votes,
                    .key = m->key,
                    .user = { "", 0 },
                    .password = { "", 0 } },
    };
}

enum rq_err rq_cluster_put_joined(struct rq_cluster *c, struct rq_bytes *out)
{
    struct rq_members members;
    uint8_t *encoded = NULL;
    size_t encoded_bytes = 0;
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&c->lock);
    members = c->members;
    struct rq_ask_joined joined = { .cluster = atomic_load(&c->driver) != NULL ? c->cluster : 0,
                                    .waiting = c->waiting_count };
    pthread_mutex_unlock(&c->lock);
    if (joined.cluster != 0 && members.count > 0) {
        err = rq_members_encode(&members, &encoded, &encoded_bytes);
        joined.members = encoded;
        joined.members_bytes = (uint32_t)encoded_bytes;
    }
    if (err == RQ_OK) {
        err = rq_ask_put_joined(out, &joined);
    }
    free(encoded);
    return err;
}

void rq_cluster_asked_notify(struct rq_cluster *c, const struct rq_peer_who *from, struct rq_call *call,
                             const struct rq_ask *ask)
{
    struct rq_member member;
    struct rq_bytes reply;
    RQ_COUNT(cluster, num_notify_req);
    if (rq_cluster_take_member(from, &ask->member, &member) != RQ_OK) {
        rq_call_fail(call, RQ_PERM, RQ_CLUSTER_BAD_MEMBER);
        return;
    }
    pthread_mutex_lock(&c->lock);
    const bool founded = c->cluster != 0; /* then it is only told of it */
    pthread_mutex_unlock(&c->lock);
    if (!founded && rq_cluster_keeps_out(c, from, call, &ask->member)) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    unsigned i = 1; /* 0 is this node */
    while (i < c->waiting_count && strcmp(c->waiting[i].name, member.name) != 0) {
        i++;
    }
    if (i < RQ_CLUSTER_WAITING_MAX && member.instance != c->config.instance) {
        c->waiting[i] = member; /* or another start of the same node */
        c->waiting_count += i == c->waiting_count;
    }
    pthread_mutex_unlock(&c->lock);
    rq_bytes_init(&reply, RQ_CLUSTER_REPLY_MAX);
    const enum rq_err err = rq_cluster_put_joined(c, &reply);
    rq_cluster_reply(call, &reply, err);
}

/* --- asking ------------------------------------------------------------------------------------------------------------------ */

struct joining {
    struct rq_waiter waiter;
    struct rq_cluster_found found;
    uint32_t waiting;
};

static void on_joined(void *ctx, enum rq_err err, const struct rq_peer_who *who, const uint8_t *data, size_t bytes)
{
    struct joining *j = ctx;
    struct rq_ask_joined joined;
    (void)who;
    if (err == RQ_OK) {
        err = rq_ask_get_joined(data, bytes, &joined);
    }
    if (err == RQ_OK) {
        j->found.cluster = joined.cluster;
        j->waiting = joined.waiting;
        if (joined.members_bytes > 0) {
            err = rq_members_decode(joined.members, joined.members_bytes, &j->found.members);
        }
    }
    rq_waiter_done(&j->waiter, err, data, bytes);
}

static bool is_url(const char *address)
{
    return strncasecmp(address, "http://", 7) == 0 || strncasecmp(address, "https://", 8) == 0;
}

/* One question to one address, which may be that of the HTTP API. */
static enum rq_err ask_address(struct rq_cluster *c, enum rq_ask_kind kind, const char *address, unsigned timeout_ms,
                               struct joining *j)
{
    const struct rq_cluster_doors *doors = &c->config.doors;
    char user[RQ_MEMBER_TEXT_MAX + 1] = "", password[RQ_MEMBER_TEXT_MAX + 1] = "", found[RQ_PEERS_ADDRESS_MAX];
    struct rq_member self;
    struct rq_bytes body;
    memset(j, 0, sizeof *j);
    if (is_url(address)) {
        enum rq_err why = doors->find != NULL ? doors->find(doors->ctx, address, found, j->waiter.text) : RQ_MISUSE;
        if (why == RQ_OK && strcmp(found, c->config.raft_address) == 0) {
            (void)snprintf(j->waiter.text, sizeof j->waiter.text, "this is the node itself");
            why = RQ_AWAY;
        }
        if (why != RQ_OK) {
            return why;
        }
        address = found;
    }
    if (doors->login != NULL) {
        doors->login(doors->ctx, user, password);
    }
    rq_cluster_self(c, &self);
    struct rq_ask ask = rq_cluster_join_ask(kind, &self);
    ask.member.user = (struct rq_str){ user, (uint32_t)strlen(user) };
    ask.member.password = (struct rq_str){ password, (uint32_t)strlen(password) };
    rq_bytes_init(&body, 1u << 16);
    rq_waiter_init(&j->waiter);
    enum rq_err err = rq_ask_put(&body, &ask);
    if (err == RQ_OK) {
        struct iovec part = { body.data, body.size };
        err = rq_peers_join(c->peers, address, &part, 1, timeout_ms, on_joined, j);
    }
    err = rq_waiter_wait(&j->waiter, err);
    rq_bytes_fini(&body);
    return err;
}

/* The next of the addresses; false at the end. */
static bool next_address(const char **at, char address[RQ_PEERS_ADDRESS_MAX])
{
    while (**at == ',') {
        (*at)++;
    }
    size_t n = strcspn(*at, ",");
    if (n == 0) {
        return false;
    }
    (void)snprintf(address, RQ_PEERS_ADDRESS_MAX, "%.*s", (int)n, *at);
    *at += n;
    return true;
}

static void pause_ms(unsigned ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 }, NULL);
}

/* EXISTS is not: a node that comes back with an empty disk is taken for its former self until that has been silent long enough.
 * Nor is PERM: credentials and certificates are read again while nodes run. */
static bool is_final(enum rq_err err)
{
    return err == RQ_MISUSE || err == RQ_VERSION || err == RQ_FOREIGN;
}

enum rq_err rq_cluster_join(struct rq_cluster *c, const char *addresses, unsigned attempts, unsigned interval_ms,
                            struct rq_cluster_found *ret_found, char text[RQ_TEXT_MAX + 1])
{
    enum rq_err err = RQ_AWAY;
    (void)snprintf(text, RQ_TEXT_MAX + 1, "no address was given");
    for (unsigned i = 0; i < attempts; i++) {
        char address[RQ_PEERS_ADDRESS_MAX];
        const char *at = addresses;
        if (i > 0) {
            pause_ms(interval_ms);
        }
        while (next_address(&at, address)) {
            struct joining j;
            err = ask_address(c, RQ_ASK_JOIN, address, JOIN_WAIT_MS, &j);
            if (err == RQ_OK && j.found.cluster != 0) {
                *ret_found = j.found;
                return RQ_OK;
            }
            (void)snprintf(text, RQ_TEXT_MAX + 1, "%.300s: %.600s", address,
                           j.waiter.text[0] != '\0' ? j.waiter.text : rq_err_text(err));
            rq_note(RQ_LEVEL_INFO, "failed to join", "address=%s err=%s attempt=%u", address, rq_err_name(err), i + 1);
            if (is_final(err)) {
                return err;
            }
        }
    }
    return err == RQ_OK ? RQ_AWAY : err;
}

bool rq_cluster_is_out(struct rq_cluster *c)
{
    struct rq_members members;
    unsigned others = 0, without = 0;
    pthread_mutex_lock(&c->lock);
    members = c->members;
    const uint64_t cluster = c->cluster;
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < members.count; i++) {
        struct joining j;
        if (members.list[i].instance == c->config.instance || members.list[i].role != RQ_MEMBER_VOTER) {
            continue;
        }
        others++;
        without += ask_address(c, RQ_ASK_NOTIFY, members.list[i].raft_addr, NOTIFY_WAIT_MS, &j) == RQ_OK &&
                   j.found.cluster == cluster && rq_members_find(&j.found.members, c->config.instance) == NULL;
    }
    return without > others / 2;
}

/* All that wait are known here: is it this one that founds?  They all come to the same answer, as they all know the same. */
static bool is_first(struct rq_cluster *c, unsigned expect)
{
    pthread_mutex_lock(&c->lock);
    bool first = c->waiting_count >= expect;
    for (unsigned i = 1; i < c->waiting_count; i++) {
        first = first && strcmp(c->waiting[0].name, c->waiting[i].name) < 0;
    }
    pthread_mutex_unlock(&c->lock);
    return first;
}

enum rq_err rq_cluster_bootstrap(struct rq_cluster *c, const char *addresses, unsigned expect, unsigned timeout_ms,
                                 bool *ret_found_here, struct rq_cluster_found *ret_found, char text[RQ_TEXT_MAX + 1])
{
    const uint64_t end = rq_clock_ms() + timeout_ms;
    *ret_found_here = false;
    (void)snprintf(text, RQ_TEXT_MAX + 1, "nobody answered");
    do {
        char address[RQ_PEERS_ADDRESS_MAX];
        const char *at = addresses;
        while (next_address(&at, address)) {
            struct joining j;
            enum rq_err err = strcmp(address, c->config.raft_address) == 0
                                  ? RQ_AWAY
                                  : ask_address(c, RQ_ASK_NOTIFY, address, NOTIFY_WAIT_MS, &j);
            if (err == RQ_OK && j.found.cluster != 0) { /* it is there: join it */
                err = ask_address(c, RQ_ASK_JOIN, address, JOIN_WAIT_MS, &j);
                if (err == RQ_OK && j.found.cluster != 0) {
                    *ret_found = j.found;
                    return RQ_OK;
                }
            }
            if (is_final(err)) {
                (void)snprintf(text, RQ_TEXT_MAX + 1, "%.300s: %.600s", address, j.waiter.text);
                return err;
            }
        }
        if (is_first(c, expect)) {
            *ret_found_here = true;
            return RQ_OK;
        }
        pause_ms(NOTIFY_EVERY_MS);
    } while (rq_clock_ms() < end);
    pthread_mutex_lock(&c->lock);
    (void)snprintf(text, RQ_TEXT_MAX + 1, "%u of %u nodes were found", c->waiting_count, expect);
    pthread_mutex_unlock(&c->lock);
    return RQ_AWAY;
}
