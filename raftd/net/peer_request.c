/* Requests.  Ours: an ask per request, found by the slot that its id names; each is taken out under the member's lock by whoever
 * ends it, so it is answered once.  The other side's: a call each, which holds its connection. */
#include <stdlib.h>
#include <string.h>

#include "raftd/net/peers_impl.h"

#define SLOT_BITS 10u
_Static_assert(RQ_PEERS_REQUESTS_MAX == 1u << SLOT_BITS, "an id is {sequence, slot}");

struct peer_ask {
    uint64_t id;
    struct peer_ask *next, *prev; /* of the member, oldest first */
    rq_answer_cb answer;
    void *ctx;
    uint64_t deadline_ms;
    const struct peer_conn *sent_on; /* not followed: only compared.  NULL: it waits for a connection */
    size_t bytes;
    uint8_t data[]; /* while it waits */
};

struct rq_call {
    struct peer_conn *conn; /* owns a reference */
    uint64_t id;
};

static size_t bytes_of(const struct iovec *parts, int part_count)
{
    size_t bytes = 0;
    for (int i = 0; i < part_count; i++) {
        bytes += parts[i].iov_len;
    }
    return bytes;
}

static void copy_parts(uint8_t *to, const struct iovec *parts, int part_count)
{
    for (int i = 0; i < part_count; i++) {
        if (parts[i].iov_len > 0) {
            memcpy(to, parts[i].iov_base, parts[i].iov_len);
            to += parts[i].iov_len;
        }
    }
}

/* --- ours ----------------------------------------------------------------------------------------------------------------- */

/* With the member's lock, as the next two. */
static void put_ask(struct peer_member *m, struct peer_ask *a)
{
    unsigned slot = m->slot_next;
    while (m->slots[slot] != NULL) { /* there is a free one */
        slot = (slot + 1) % RQ_PEERS_REQUESTS_MAX;
    }
    m->slot_next = (slot + 1) % RQ_PEERS_REQUESTS_MAX;
    m->slots[slot] = a;
    a->id = ++m->ask_seq << SLOT_BITS | slot;
    a->prev = m->last;
    *(m->last != NULL ? &m->last->next : &m->first) = a;
    m->last = a;
    m->ask_count++;
    m->waiting_bytes += a->bytes;
}

static void take_ask(struct peer_member *m, struct peer_ask *a)
{
    m->slots[a->id % RQ_PEERS_REQUESTS_MAX] = NULL;
    *(a->prev != NULL ? &a->prev->next : &m->first) = a->next;
    *(a->next != NULL ? &a->next->prev : &m->last) = a->prev;
    a->next = a->prev = NULL;
    m->ask_count--;
    if (a->sent_on == NULL) {
        m->waiting_bytes -= a->bytes;
    }
}

static struct peer_ask *new_ask(size_t bytes, unsigned timeout_ms, rq_answer_cb answer, void *ctx)
{
    struct peer_ask *a = calloc(1, sizeof *a + bytes);
    if (a != NULL) {
        a->bytes = bytes;
        a->answer = answer;
        a->ctx = ctx;
        a->deadline_ms = peers_now_ms() + timeout_ms;
    }
    return a;
}

/* Without locks.  Frees it. */
static void finish_ask(struct peer_ask *a, enum rq_err err, const uint8_t *data, size_t bytes)
{
    a->answer(a->ctx, err, data, bytes);
    free(a);
}

/* A list of taken ones: none was answered. */
static void finish_list(struct peer_ask *list)
{
    while (list != NULL) {
        struct peer_ask *a = list;
        list = a->next;
        finish_ask(a, a->sent_on != NULL ? RQ_UNKNOWN : RQ_AWAY, NULL, 0);
    }
}

enum rq_err rq_peers_request(struct rq_peers *p, uint64_t instance, const struct iovec *parts, int part_count,
                             unsigned timeout_ms, rq_answer_cb answer, void *ctx)
{
    size_t bytes = bytes_of(parts, part_count);
    if (bytes > RQ_PEER_BODY_MAX) {
        return RQ_TOOBIG;
    }
    struct peer_member *m = peer_member_find(p, instance);
    if (m == NULL) {
        return RQ_NOTFOUND;
    }
    enum rq_err err = RQ_BUSY;
    struct peer_ask *a = NULL;
    pthread_mutex_lock(&m->lock);
    struct peer_conn *c = m->dials[RQ_PEER_REQUESTS].open_conn;
    if (m->gone) {
        err = RQ_NOTFOUND;
    } else if (m->ask_count < RQ_PEERS_REQUESTS_MAX) {
        /* Sent under the lock: when the connection is lost later, this one is among those that were sent on it. */
        if (c != NULL && m->waiting_bytes == 0) {
            a = new_ask(0, timeout_ms, answer, ctx);
            if (a != NULL) {
                a->sent_on = c;
                put_ask(m, a);
                err = peer_conn_send(c, RQ_PEER_REQUEST, a->id, parts, part_count, RQ_PEERS_REQUEST_QUEUE_MAX);
                if (err != RQ_OK) {
                    take_ask(m, a);
                    free(a);
                }
            } else {
                err = RQ_NOMEM;
            }
        } else {
            err = RQ_AWAY;
        }
        if (err == RQ_AWAY) {
            err = RQ_BUSY;
            if (m->waiting_bytes == 0 || bytes + m->waiting_bytes <= RQ_PEERS_REQUEST_QUEUE_MAX) {
                a = new_ask(bytes, timeout_ms, answer, ctx);
                err = a != NULL ? RQ_OK : RQ_NOMEM;
            }
            if (err == RQ_OK) {
                copy_parts(a->data, parts, part_count);
                put_ask(m, a);
            }
        }
    }
    pthread_mutex_unlock(&m->lock);
    peer_member_unref(m);
    return err;
}

void peer_requests_send_waiting(struct peer_member *m)
{
    pthread_mutex_lock(&m->lock);
    struct peer_conn *c = m->dials[RQ_PEER_REQUESTS].open_conn;
    for (struct peer_ask *a = m->first; a != NULL && c != NULL; a = a->next) {
        if (a->sent_on != NULL) {
            continue;
        }
        struct iovec part = { a->data, a->bytes };
        if (peer_conn_send(c, RQ_PEER_REQUEST, a->id, &part, 1, RQ_PEERS_REQUEST_QUEUE_MAX) != RQ_OK) {
            break; /* when there is room, or another connection */
        }
        a->sent_on = c;
        m->waiting_bytes -= a->bytes;
    }
    pthread_mutex_unlock(&m->lock);
}

/* Takes out those that match, as a list in their order. */
static struct peer_ask *take_if(struct peer_member *m, bool (*matches)(const struct peer_ask *a, const void *key),
                                const void *key)
{
    struct peer_ask *list = NULL, **end = &list;
    pthread_mutex_lock(&m->lock);
    for (struct peer_ask *a = m->first, *next; a != NULL; a = next) {
        next = a->next;
        if (matches(a, key)) {
            take_ask(m, a);
            *end = a;
            end = &a->next;
        }
    }
    pthread_mutex_unlock(&m->lock);
    return list;
}

static bool was_sent_on(const struct peer_ask *a, const void *conn)
{
    return a->sent_on == conn;
}

static bool is_late(const struct peer_ask *a, const void *now_ms)
{
    return a->deadline_ms <= *(const uint64_t *)now_ms;
}

static bool is_any(const struct peer_ask *a, const void *nothing)
{
    (void)a, (void)nothing;
    return true;
}

void peer_requests_lost(struct peer_member *m, const struct peer_conn *c)
{
    finish_list(take_if(m, was_sent_on, c));
}

void peer_requests_tick(struct peer_member *m, uint64_t now_ms)
{
    finish_list(take_if(m, is_late, &now_ms));
    peer_requests_send_waiting(m);
}

void peer_requests_end(struct peer_member *m)
{
    finish_list(take_if(m, is_any, NULL));
}

static void take_answer(struct peer_conn *c, const struct rq_frame *frame, const uint8_t *body)
{
    struct rq_peer_failed failed;
    enum rq_err err = RQ_OK;
    const uint8_t *data = body;
    size_t bytes = frame->body_bytes;
    if (frame->type == RQ_PEER_FAILED) {
        if (rq_peer_get_failed(body, frame->body_bytes, &failed) != RQ_OK) {
            peer_conn_close(c, "a refusal that cannot be read");
            return;
        }
        err = failed.err;
        data = (const uint8_t *)failed.text.data;
        bytes = failed.text.bytes;
    }
    if (c->dial->join != NULL) {
        struct rq_peer_who who;
        peer_conn_who(c, &who);
        peer_join_over(c->dial->join, err, &who, data, bytes);
        return;
    }
    struct peer_member *m = c->dial->member;
    pthread_mutex_lock(&m->lock);
    struct peer_ask *a = m->slots[frame->id % RQ_PEERS_REQUESTS_MAX];
    if (a != NULL && a->id == frame->id && a->sent_on == c) {
        take_ask(m, a);
    } else {
        a = NULL; /* it came too late */
    }
    pthread_mutex_unlock(&m->lock);
    if (a != NULL) {
        finish_ask(a, err, data, bytes);
    }
}

/* --- theirs --------------------------------------------------------------------------------------------------------------- */

static void take_request(struct peer_conn *c, const struct rq_frame *frame, const uint8_t *body)
{
    struct rq_peers *p = c->peers;
    if (c->kind == RQ_PEER_JOIN && c->asked) {
        peer_conn_close(c, "more than one question of a node that is no member");
        return;
    }
    c->asked = true;
    struct rq_call *call = NULL;
    if (atomic_load(&c->calls) < RQ_PEERS_REQUESTS_MAX) {
        call = calloc(1, sizeof *call);
    }
    if (call == NULL) {
        peer_conn_reply_failed(c, frame->id, RQ_BUSY, "too many requests are under way");
        return;
    }
    atomic_fetch_add(&c->calls, 1);
    peer_conn_ref(c);
    call->conn = c;
    call->id = frame->id;
    struct rq_peer_who who;
    peer_conn_who(c, &who);
    p->ops->request(p->ops->ctx, &who, call, body, frame->body_bytes);
}

static void end_call(struct rq_call *call)
{
    atomic_fetch_sub(&call->conn->calls, 1);
    peer_conn_unref(call->conn);
    free(call);
}

void rq_call_answer(struct rq_call *call, const struct iovec *parts, int part_count)
{
    if (bytes_of(parts, part_count) > RQ_PEER_BODY_MAX) {
        rq_call_fail(call, RQ_TOOBIG, "the answer is larger than a frame");
        return;
    }
    peer_conn_reply(call->conn, RQ_PEER_ANSWER, call->id, parts, part_count, RQ_PEERS_REQUEST_QUEUE_MAX);
    end_call(call);
}

void rq_call_answer_later(struct rq_call *call, const struct iovec *parts, int part_count)
{
    struct peer_conn *c = call->conn;
    pthread_mutex_lock(&c->lock);
    const bool full = c->record_bytes + RQ_FRAME_HEAD_BYTES + bytes_of(parts, part_count) > RQ_CHANNEL_RECORD_MAX;
    if (!full) {
        (void)peer_conn_put_locked(c, RQ_PEER_ANSWER, call->id, parts, part_count); /* closed: nobody waits any more */
    }
    pthread_mutex_unlock(&c->lock);
    if (full) {
        rq_call_answer(call, parts, part_count);
    } else {
        end_call(call);
    }
}

void rq_call_fail(struct rq_call *call, enum rq_err err, const char *text)
{
    peer_conn_reply_failed(call->conn, call->id, err, text);
    end_call(call);
}

void peer_requests_frame(struct peer_conn *c, const struct rq_frame *frame, const uint8_t *body)
{
    bool answers = frame->type == RQ_PEER_ANSWER || frame->type == RQ_PEER_FAILED;
    if (c->dialled && answers && c->dial != NULL) {
        take_answer(c, frame, body);
    } else if (!c->dialled && frame->type == RQ_PEER_REQUEST && frame->id != 0) {
        take_request(c, frame, body);
    } else {
        peer_conn_close(c, "frame of type %u on a connection for requests", frame->type);
    }
}

/* --- joins ---------------------------------------------------------------------------------------------------------------- */

struct peer_join {
    struct peer_dial dial;
    struct peer_join *next;
    rq_join_cb answer;
    void *ctx;
    uint64_t deadline_ms;
    bool over, sent;
    char address[RQ_PEERS_ADDRESS_MAX];
    size_t bytes;
    uint8_t data[];
};

enum rq_err rq_peers_join(struct rq_peers *p, const char *address, const struct iovec *parts, int part_count,
                          unsigned timeout_ms, rq_join_cb answer, void *ctx)
{
    size_t bytes = bytes_of(parts, part_count);
    if (bytes > RQ_PEER_BODY_MAX || strlen(address) >= RQ_PEERS_ADDRESS_MAX) {
        return RQ_TOOBIG;
    }
    struct peer_join *j = calloc(1, sizeof *j + bytes);
    if (j == NULL) {
        return RQ_NOMEM;
    }
    memcpy(j->address, address, strlen(address) + 1);
    copy_parts(j->data, parts, part_count);
    j->bytes = bytes;
    j->answer = answer;
    j->ctx = ctx;
    j->deadline_ms = peers_now_ms() + timeout_ms;
    j->dial = (struct peer_dial){ .peers = p, .join = j, .kind = RQ_PEER_JOIN, .job.address = j->address };
    pthread_mutex_lock(&p->lock);
    j->next = p->joins_new;
    p->joins_new = j;
    pthread_mutex_unlock(&p->lock);
    peers_ring(p);
    return RQ_OK;
}

void peer_join_opened(struct peer_join *j)
{
    struct iovec part = { j->data, j->bytes };
    j->sent = true;
    (void)peer_conn_send(j->dial.conn, RQ_PEER_REQUEST, 1, &part, 1, RQ_PEERS_REQUEST_QUEUE_MAX); /* its end tells */
}

void peer_join_over(struct peer_join *j, enum rq_err err, const struct rq_peer_who *who, const uint8_t *data,
                    size_t bytes)
{
    if (j->over) {
        return;
    }
    j->over = true;
    struct peer_conn *c = j->dial.conn;
    j->dial.conn = NULL;
    if (c != NULL) {
        c->dial = NULL;
    }
    j->answer(j->ctx, err == RQ_AWAY && j->sent ? RQ_UNKNOWN : err, who, data, bytes);
    if (c != NULL) {
        peer_conn_close(c, "the question was answered");
    }
}

void peer_joins_tick(struct rq_peers *p, uint64_t now_ms)
{
    static const char late[] = "no answer in time";
    for (struct peer_join **at = &p->joins, *j; (j = *at) != NULL;) {
        if (now_ms >= j->deadline_ms) {
            peer_join_over(j, RQ_AWAY, NULL, (const uint8_t *)late, sizeof late - 1);
        }
        if (j->over && !j->dial.resolving) {
            *at = j->next;
            free(j);
            continue;
        }
        if (!j->over) {
            peer_dial_tick(&j->dial, now_ms);
        }
        at = &j->next;
    }
}

void peer_joins_begin(struct rq_peers *p)
{
    pthread_mutex_lock(&p->lock);
    struct peer_join *begun = p->joins_new;
    p->joins_new = NULL;
    pthread_mutex_unlock(&p->lock);
    while (begun != NULL) {
        struct peer_join *j = begun;
        begun = j->next;
        j->next = p->joins;
        p->joins = j;
    }
}

void peer_joins_end(struct rq_peers *p)
{
    static const char ends[] = "shutting down";
    peer_joins_begin(p);
    while (p->joins != NULL) {
        struct peer_join *j = p->joins;
        peer_join_over(j, RQ_AWAY, NULL, (const uint8_t *)ends, sizeof ends - 1);
        p->joins = j->next;
        free(j);
    }
}
