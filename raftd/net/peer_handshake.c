/* Handshake: TLS, the certificates' check, then HELLO and WELCOME.  What is refused here is refused with words, which both sides
 * log; nothing but those words goes to anybody who has not proved who he is.
 *
 * A copy of a data directory shows as the same instance with another epoch, at the same time as the first; or as oneself.  After a
 * power loss the former connections of a host may look alive for dead_ms: so long its next start is refused, and tries again. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "raftd/net/peers_impl.h"
#include "raftd/ops/journal.h"

typedef unsigned long long ull;

static uint64_t whom(const struct peer_conn *c)
{
    if (!c->dialled) {
        return c->instance;
    }
    return c->dial != NULL && c->dial->member != NULL ? c->dial->member->instance : 0;
}

static bool say(struct peer_conn *c, enum rq_peer_type type)
{
    struct rq_peers *p = c->peers;
    uint8_t exporter[RQ_PEER_EXPORTER_BYTES], text[RQ_PEER_SIGNED_BYTES], signature[RQ_NODE_SIGNATURE_BYTES];
    struct rq_bytes out;
    rq_bytes_init(&out, RQ_FRAME_HEAD_BYTES + RQ_PEER_HANDSHAKE_BODY_MAX);
    enum rq_err err = rq_channel_exporter(c->channel, exporter);
    if (err == RQ_OK) {
        rq_peer_signed(type, exporter, text);
        err = rq_node_key_sign(p->key, text, sizeof text, signature);
    }
    if (err == RQ_OK) {
        struct rq_peer_hello hello = {
            .version = RQ_PEER_VERSION,
            .cluster = atomic_load(&p->cluster),
            .instance = p->instance,
            .epoch = p->epoch,
            .to = whom(c),
            .kind = c->kind,
            .node_name = { p->name, (uint32_t)strlen(p->name) },
            .address = { p->advertise, (uint32_t)strlen(p->advertise) },
            .key = rq_node_key_public(p->key),
            .signature = signature,
        };
        err = rq_peer_put_hello(&out, type, &hello);
    }
    if (err == RQ_OK) {
        err = peer_conn_send_encoded(c, &out);
    }
    rq_bytes_fini(&out);
    if (err != RQ_OK) {
        peer_conn_close(c, "%s", rq_err_text(err));
    }
    return err == RQ_OK;
}

void peer_handshake_go_on(struct peer_conn *c)
{
    char text[RQ_TEXT_MAX + 1] = "";
    pthread_mutex_lock(&c->lock);
    enum rq_err err = rq_channel_handshake(c->channel, text);
    peer_conn_flush_locked(c);
    pthread_mutex_unlock(&c->lock);
    if (err == RQ_BUSY) {
        return;
    }
    if (err != RQ_OK) {
        peer_conn_close(c, "%s", text);
        return;
    }
    c->state = CONN_HELLO;
    err = rq_channel_verify(c->channel, text);
    if (err != RQ_OK) {
        peer_conn_refuse(c, err, text);
    } else if (c->dialled) {
        (void)say(c, RQ_PEER_HELLO);
    }
}

/* The message's key has signed this channel. */
static bool is_proved(struct peer_conn *c, enum rq_peer_type type, const struct rq_peer_hello *hello)
{
    uint8_t exporter[RQ_PEER_EXPORTER_BYTES], text[RQ_PEER_SIGNED_BYTES];
    if (rq_channel_exporter(c->channel, exporter) != RQ_OK) {
        return false;
    }
    rq_peer_signed(type, exporter, text);
    return rq_node_key_verify(hello->key, text, sizeof text, hello->signature);
}

static void remember(struct peer_conn *c, const struct rq_peer_hello *hello)
{
    c->cluster = hello->cluster;
    c->instance = hello->instance;
    c->epoch = hello->epoch;
    memcpy(c->key, hello->key, RQ_NODE_KEY_BYTES);
    memcpy(c->name, hello->node_name.data, hello->node_name.bytes);
    c->name[hello->node_name.bytes] = '\0';
}

/* Its other end is gone, and only the event has not been looked at. */
static bool has_ended(const struct peer_conn *c)
{
    char byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/* An open connection of the same instance and key, made by another start of its process. */
static const struct peer_conn *other_epoch_of(const struct peer_conn *c)
{
    for (const struct peer_conn *other = c->peers->conns; other != NULL; other = other->next) {
        if (other != c && other->state == CONN_OPEN && other->instance == c->instance && other->epoch != c->epoch &&
            memcmp(other->key, c->key, RQ_NODE_KEY_BYTES) == 0 && !has_ended(other)) {
            return other;
        }
    }
    return NULL;
}

/* What holds for both ends.  OK, or the refusal with its words. */
static enum rq_err check_who(struct peer_conn *c, char text[RQ_TEXT_MAX + 1])
{
    struct rq_peers *p = c->peers;
    uint64_t cluster = atomic_load(&p->cluster);
    bool joins = c->kind == RQ_PEER_JOIN;
    if (c->instance == p->instance) {
        bool itself = c->epoch == p->epoch;
        (void)snprintf(text, RQ_TEXT_MAX + 1,
                       itself
                           ? "this is the node itself (instance %016llx)"
                           : "both ends are instance %016llx: one of them runs on a copy of the other's data directory",
                       (ull)c->instance);
        return itself ? RQ_EXISTS : RQ_FOREIGN;
    }
    if (cluster == 0 && !joins) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "node %s is in no cluster yet", p->name);
        return RQ_UNREADY;
    }
    if (c->cluster != cluster && !(joins && (c->cluster == 0 || cluster == 0))) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "node %s belongs to cluster %016llx, node %s to cluster %016llx", p->name,
                       (ull)cluster, c->name, (ull)c->cluster);
        return RQ_FOREIGN;
    }
    const struct peer_conn *other = other_epoch_of(c);
    if (other != NULL) {
        (void)snprintf(
            text, RQ_TEXT_MAX + 1,
            "instance %016llx (node %s) is connected to node %s from %s already: if this lasts, two processes run "
            "on copies of one data directory",
            (ull)c->instance, c->name, p->name, other->address);
        return RQ_BUSY; /* it may pass */
    }
    return RQ_OK;
}

/* Who was dialled says so, too: it would take the connection for a newer one of those that are meant for it, and close a good one. */
static enum rq_err not_expected(const char *address, uint64_t wanted, uint64_t found, const char *name,
                                char text[RQ_TEXT_MAX + 1])
{
    (void)snprintf(text, RQ_TEXT_MAX + 1, "at %s instance %016llx was expected, and found %016llx (node %s)", address,
                   (ull)wanted, (ull)found, name);
    return RQ_FOREIGN;
}

/* A connection of the same kind that it had is dead, whether this is known here or not. */
static void close_former(struct peer_conn *c)
{
    for (struct peer_conn *other = c->peers->conns, *next; other != NULL; other = next) {
        next = other->next;
        if (other != c && !other->dialled && other->state == CONN_OPEN && other->instance == c->instance &&
            other->kind == c->kind) {
            peer_conn_close(other, "a newer connection has taken its place");
            return; /* there is no second one, and the list may have changed */
        }
    }
}

static void take_hello(struct peer_conn *c, const struct rq_peer_hello *hello)
{
    struct rq_peers *p = c->peers;
    char text[RQ_TEXT_MAX + 1] = "";
    remember(c, hello);
    c->kind = hello->kind;
    enum rq_err err = check_who(c, text);
    if (err == RQ_OK && hello->to != 0 && hello->to != p->instance) {
        err = not_expected(p->advertise, hello->to, p->instance, p->name, text);
    }
    if (err == RQ_OK) {
        struct rq_peer_who who;
        peer_conn_who(c, &who);
        err = p->ops->judge(p->ops->ctx, &who, text);
    }
    if (err != RQ_OK) {
        peer_conn_refuse(c, err, text);
        return;
    }
    if (c->kind != RQ_PEER_JOIN) {
        close_former(c);
    }
    if (say(c, RQ_PEER_WELCOME)) {
        peer_conn_opened(c);
        rq_note(RQ_LEVEL_DEBUG, "connection from another node", "node=%s kind=%d from=%s", c->name, (int)c->kind,
                c->address);
    }
    /* It is there: no need to wait before it is dialled. */
    struct peer_member *m = peer_member_find(p, c->instance);
    if (m != NULL) {
        for (unsigned i = 0; i < RQ_PEER_JOIN; i++) {
            m->dials[i].next_ms = 0;
        }
        peer_member_unref(m);
    }
}

static void take_welcome(struct peer_conn *c, const struct rq_peer_hello *welcome)
{
    char text[RQ_TEXT_MAX + 1] = "";
    const struct peer_member *m = c->dial->member;
    remember(c, welcome);
    enum rq_err err = check_who(c, text);
    if (err == RQ_OK && m != NULL && c->instance != m->instance) {
        err = not_expected(m->address, m->instance, c->instance, c->name, text);
    }
    if (err == RQ_OK && m != NULL && memcmp(c->key, m->key, RQ_NODE_KEY_BYTES) != 0) {
        (void)snprintf(text, sizeof text,
                       "instance %016llx (node %s) does not have the key that the cluster knows it by",
                       (ull)c->instance, c->name);
        err = RQ_PERM;
    }
    if (err != RQ_OK) {
        peer_conn_refuse(c, err, text);
        return;
    }
    peer_conn_opened(c);
    peer_dial_opened(c->dial);
}

void peer_handshake_frame(struct peer_conn *c, const struct rq_frame *frame, const uint8_t *body)
{
    struct rq_peer_failed failed;
    if (frame->type == RQ_PEER_FAILED) {
        if (rq_peer_get_failed(body, frame->body_bytes, &failed) != RQ_OK) {
            peer_conn_close(c, "refused without words");
            return;
        }
        (void)snprintf(c->reason, sizeof c->reason, "%.*s", (int)failed.text.bytes, failed.text.data);
        c->refusal = failed.err;
        if (!c->dialled) {
            char quoted[RQ_TEXT_MAX + 1];
            rq_note(RQ_LEVEL_WARN, "connection between nodes refused by who made it", "from=%s text=%s", c->address,
                    rq_quote(quoted, sizeof quoted, c->reason));
        } else if (c->dial != NULL && c->dial->join != NULL) {
            peer_join_over(c->dial->join, failed.err, NULL, (const uint8_t *)c->reason, strlen(c->reason));
            return;
        }
        peer_conn_close(c, "refused");
        return;
    }
    struct rq_peer_hello hello;
    enum rq_peer_type wanted = c->dialled ? RQ_PEER_WELCOME : RQ_PEER_HELLO;
    if (frame->type != wanted || frame->id != 0) {
        peer_conn_close(c, "not the handshake of this protocol");
        return;
    }
    enum rq_err err = rq_peer_get_hello(body, frame->body_bytes, &hello);
    if (err == RQ_VERSION) {
        char text[RQ_TEXT_MAX + 1];
        (void)snprintf(text, sizeof text,
                       "node %s speaks version %u of the protocol between nodes, the other one does not",
                       c->peers->name, RQ_PEER_VERSION);
        peer_conn_refuse(c, err, text);
    } else if (err != RQ_OK || (c->dialled && hello.kind != c->kind)) {
        peer_conn_refuse(c, RQ_PROTOCOL, "this is not the handshake between nodes");
    } else if (!is_proved(c, wanted, &hello)) {
        peer_conn_refuse(c, RQ_PERM, "the key was not proved: its signature is not of this connection");
    } else if (c->dialled) {
        take_welcome(c, &hello);
    } else {
        take_hello(c, &hello);
    }
}
