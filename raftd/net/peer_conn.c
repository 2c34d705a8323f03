/* One connection: ciphertext in and out, records into frames.
 *
 * Out: a frame is copied into records, each encrypted at once and put behind what the socket has not taken yet; the order of
 * encryption is the order of sending.  In: the I/O thread reads what the socket has, a few times per turn at most; bytes that are
 * in our buffer are always used up, because no event tells of them. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raftd/net/address.h"
#include "raftd/net/peers_impl.h"
#include "raftd/ops/journal.h"

#define OUT_KEPT_BYTES ((size_t)256 << 10) /* a larger buffer is given back when it is empty */

void peer_conn_who(const struct peer_conn *c, struct rq_peer_who *ret_who)
{
    *ret_who = (struct rq_peer_who){
        .cluster = c->cluster,
        .instance = c->instance,
        .epoch = c->epoch,
        .node_name = c->name,
        .key = c->key,
        .address = c->address,
        .kind = c->kind,
    };
}

/* --- ciphertext ----------------------------------------------------------------------------------------------------------- */

static ssize_t receive_cipher(void *ctx, void *data, size_t bytes)
{
    struct peer_conn *c = ctx;
    if (c->in_begin == c->in_end) {
        if (c->receives_left == 0) {
            errno = EAGAIN;
            return -1;
        }
        ssize_t n = recv(c->fd, c->in, c->in_bytes, MSG_DONTWAIT);
        if (n <= 0) {
            return n;
        }
        atomic_fetch_add_explicit(&c->received_bytes, (unsigned long long)n, memory_order_relaxed);
        /* Less than there is room for was all: not asked again before the next event. */
        c->receives_left = (size_t)n < c->in_bytes ? 0 : c->receives_left - 1;
        c->in_begin = 0;
        c->in_end = (size_t)n;
    }
    size_t n = c->in_end - c->in_begin < bytes ? c->in_end - c->in_begin : bytes;
    memcpy(data, c->in + c->in_begin, n);
    c->in_begin += n;
    return (ssize_t)n;
}

static bool make_room(struct peer_conn *c, size_t bytes)
{
    if (c->out_begin > 0 && c->out_bytes - c->out_end < bytes) {
        memmove(c->out, c->out + c->out_begin, c->out_end - c->out_begin);
        c->out_end -= c->out_begin;
        c->out_begin = 0;
    }
    if (c->out_bytes - c->out_end >= bytes) {
        return true;
    }
    size_t wanted = c->out_bytes > 0 ? 2 * c->out_bytes : 4096;
    while (wanted - c->out_end < bytes) {
        wanted *= 2;
    }
    uint8_t *larger = realloc(c->out, wanted);
    if (larger == NULL) {
        return false;
    }
    c->out = larger;
    c->out_bytes = wanted;
    return true;
}

/* From inside of TLS; on the I/O thread perhaps also while it receives, hence the lock is taken here (it is recursive). */
static ssize_t send_cipher(void *ctx, const void *data, size_t bytes)
{
    struct peer_conn *c = ctx;
    pthread_mutex_lock(&c->lock);
    bool room = c->fd >= 0 && make_room(c, bytes);
    if (room) {
        memcpy(c->out + c->out_end, data, bytes);
        c->out_end += bytes;
    }
    pthread_mutex_unlock(&c->lock);
    if (!room) {
        errno = ENOMEM;
        return -1;
    }
    return (ssize_t)bytes;
}

static bool watch(struct peer_conn *c, int how, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = c };
    return epoll_ctl(c->nursed ? c->peers->porch : c->peers->epoll, how, c->fd, &e) == 0;
}

void peer_conn_break_locked(struct peer_conn *c)
{
    if (!c->broken && c->fd >= 0) {
        c->broken = true;
        c->open = false;
        (void)shutdown(c->fd, SHUT_RDWR); /* the I/O thread finds its end */
    }
}

static void write_out(struct peer_conn *c)
{
    while (c->out_begin < c->out_end && !c->waits_for_room && !c->broken) {
        ssize_t n = send(c->fd, c->out + c->out_begin, c->out_end - c->out_begin, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            c->out_begin += (size_t)n;
            atomic_fetch_add_explicit(&c->sent_bytes, (unsigned long long)n, memory_order_relaxed);
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            c->waits_for_room = watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            if (!c->waits_for_room) {
                peer_conn_break_locked(c);
            }
        } else {
            peer_conn_break_locked(c);
        }
    }
    if (c->out_begin == c->out_end) {
        c->out_begin = c->out_end = 0;
        if (c->out_bytes > OUT_KEPT_BYTES) {
            free(c->out);
            c->out = NULL;
            c->out_bytes = 0;
        }
    }
}

/* --- frames out ----------------------------------------------------------------------------------------------------------- */

static void end_record(struct peer_conn *c)
{
    if (c->record_bytes > 0 && rq_channel_send(c->channel, c->record, c->record_bytes) != RQ_OK) {
        peer_conn_break_locked(c);
    }
    c->record_bytes = 0;
}

static void put_bytes(struct peer_conn *c, const uint8_t *data, size_t bytes)
{
    while (bytes > 0 && !c->broken) {
        size_t room = RQ_CHANNEL_RECORD_MAX - c->record_bytes;
        size_t n = bytes < room ? bytes : room;
        memcpy(c->record + c->record_bytes, data, n);
        c->record_bytes += n;
        data += n;
        bytes -= n;
        if (c->record_bytes == RQ_CHANNEL_RECORD_MAX) {
            end_record(c);
        }
    }
}

static size_t bytes_of(const struct iovec *parts, int part_count)
{
    size_t bytes = 0;
    for (int i = 0; i < part_count; i++) {
        bytes += parts[i].iov_len;
    }
    return bytes;
}

enum rq_err peer_conn_put_locked(struct peer_conn *c, enum rq_peer_type type, uint64_t id, const struct iovec *parts,
                                 int part_count)
{
    if (!c->open) {
        return RQ_AWAY;
    }
    uint8_t head[RQ_FRAME_HEAD_BYTES];
    struct rq_frame frame = { .body_bytes = (uint32_t)bytes_of(parts, part_count), .type = (uint16_t)type, .id = id };
    rq_frame_encode(&frame, head);
    put_bytes(c, head, sizeof head);
    for (int i = 0; i < part_count; i++) {
        put_bytes(c, parts[i].iov_base, parts[i].iov_len);
    }
    return c->broken ? RQ_AWAY : RQ_OK;
}

void peer_conn_flush_locked(struct peer_conn *c)
{
    if (!c->broken && c->fd >= 0) {
        end_record(c);
        write_out(c);
    }
}

void peer_conn_flush(struct peer_conn *c)
{
    pthread_mutex_lock(&c->lock);
    peer_conn_flush_locked(c);
    pthread_mutex_unlock(&c->lock);
}

enum rq_err peer_conn_send(struct peer_conn *c, enum rq_peer_type type, uint64_t id, const struct iovec *parts,
                           int part_count, size_t queue_max)
{
    enum rq_err err = RQ_BUSY;
    size_t bytes = bytes_of(parts, part_count) + RQ_FRAME_HEAD_BYTES;
    pthread_mutex_lock(&c->lock);
    size_t queued = c->out_end - c->out_begin;
    if (queued == 0 || (queued <= queue_max && bytes <= queue_max - queued) || !c->open) {
        err = peer_conn_put_locked(c, type, id, parts, part_count);
        peer_conn_flush_locked(c);
    }
    pthread_mutex_unlock(&c->lock);
    return err;
}

enum rq_err peer_conn_send_encoded(struct peer_conn *c, const struct rq_bytes *frame)
{
    pthread_mutex_lock(&c->lock);
    put_bytes(c, frame->data, frame->size);
    peer_conn_flush_locked(c);
    bool broken = c->broken;
    pthread_mutex_unlock(&c->lock);
    return broken ? RQ_AWAY : RQ_OK;
}

void peer_conn_reply(struct peer_conn *c, enum rq_peer_type type, uint64_t id, const struct iovec *parts,
                     int part_count, size_t queue_max)
{
    if (peer_conn_send(c, type, id, parts, part_count, queue_max) == RQ_BUSY) {
        pthread_mutex_lock(&c->lock);
        peer_conn_break_locked(c);
        pthread_mutex_unlock(&c->lock);
    }
}

static bool encode_failed(struct rq_bytes *out, uint64_t id, enum rq_err err, const char *text)
{
    rq_bytes_init(out, RQ_FRAME_HEAD_BYTES + RQ_PEER_HANDSHAKE_BODY_MAX);
    struct rq_peer_failed m = { .err = err, .text = { text, (uint32_t)strnlen(text, RQ_TEXT_MAX) } };
    return rq_peer_put_failed(out, id, &m) == RQ_OK;
}

void peer_conn_reply_failed(struct peer_conn *c, uint64_t id, enum rq_err err, const char *text)
{
    struct rq_bytes out;
    if (encode_failed(&out, id, err, text)) {
        struct iovec body = { out.data + RQ_FRAME_HEAD_BYTES, out.size - RQ_FRAME_HEAD_BYTES };
        peer_conn_reply(c, RQ_PEER_FAILED, id, &body, 1, RQ_PEERS_REQUEST_QUEUE_MAX + PEER_CONTROL_ROOM);
    }
    rq_bytes_fini(&out);
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

struct peer_conn *peer_conn_new(struct rq_peers *p, int fd, struct peer_dial *dial, const char *address)
{
    struct peer_conn *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->peers = p;
    c->dial = dial;
    c->dialled = dial != NULL;
    c->nursed = dial == NULL;
    c->kind = dial != NULL ? dial->kind : RQ_PEER_RAFT;
    c->fd = fd;
    c->in_bytes = PEER_IN_BYTES_STRANGER;
    c->in = malloc(c->in_bytes);
    c->record = malloc(RQ_CHANNEL_RECORD_MAX);
    atomic_init(&c->refs, 1);
    (void)snprintf(c->address, sizeof c->address, "%s", address);
    rq_bytes_init(&c->body, RQ_PEER_HANDSHAKE_BODY_MAX);
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&c->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);

    char host[256] = "", port[64];
    if (dial != NULL) {
        const char *dialled = dial->member != NULL ? dial->member->address : dial->job.address;
        (void)rq_split_host_port(dialled, host, port); /* it was resolved */
    }
    const struct rq_tls_transport transport = { c, receive_cipher, send_cipher };
    if (c->in == NULL || c->record == NULL ||
        rq_channel_new(p->tls, dial != NULL ? host : NULL, &transport, &c->channel) != RQ_OK ||
        !watch(c, EPOLL_CTL_ADD, dial != NULL ? EPOLLOUT : EPOLLIN)) {
        c->fd = -1; /* stays the caller's */
        peer_conn_unref(c);
        return NULL;
    }
    c->since_ms = c->heard_ms = peers_now_ms();
    c->state = dial != NULL ? CONN_CONNECTING : CONN_TLS;
    c->deadline_ms = c->since_ms + (dial != NULL ? PEER_CONNECT_MS : RQ_PEERS_HANDSHAKE_MS);
    c->prev = p->conns_last;
    *(p->conns_last != NULL ? &p->conns_last->next : &p->conns) = c;
    p->conns_last = c;
    p->strangers += c->nursed;
    return c;
}

void peer_conn_ref(struct peer_conn *c)
{
    atomic_fetch_add(&c->refs, 1);
}

void peer_conn_unref(struct peer_conn *c)
{
    if (c != NULL && atomic_fetch_sub(&c->refs, 1) == 1) {
        rq_channel_free(c->channel);
        rq_bytes_fini(&c->body);
        pthread_mutex_destroy(&c->lock);
        free(c->in);
        free(c->out);
        free(c->record);
        free(c);
    }
}

void peer_conn_close(struct peer_conn *c, const char *why_format, ...)
{
    struct rq_peers *p = c->peers;
    if (c->state == CONN_GONE) {
        return;
    }
    if (c->refusal == RQ_OK) { /* else it has its reason */
        va_list args;
        va_start(args, why_format);
        (void)vsnprintf(c->reason, sizeof c->reason, why_format, args);
        va_end(args);
    }
    c->state = CONN_GONE;
    p->strangers -= c->nursed;
    pthread_mutex_lock(&c->lock);
    c->open = false;
    c->broken = true;
    close(c->fd);
    c->fd = -1;
    pthread_mutex_unlock(&c->lock);
    *(c->prev != NULL ? &c->prev->next : &p->conns) = c->next;
    *(c->next != NULL ? &c->next->prev : &p->conns_last) = c->prev;
    c->next = p->graveyard;
    p->graveyard = c;
    peer_streams_lost(c);
    if (c->dial != NULL) {
        peer_dial_lost(c->dial, c->reason, c->refusal);
    }
}

void peer_conn_refuse(struct peer_conn *c, enum rq_err err, const char *text)
{
    struct rq_bytes out;
    char quoted[RQ_TEXT_MAX + 1];
    if (c->state == CONN_ENDING || c->state == CONN_GONE) {
        return;
    }
    /* The port may be asked by anybody, as often as he likes. */
    uint64_t now_ms = peers_now_ms();
    bool quiet = c->dialled || now_ms - c->peers->refusal_noted_ms < PEER_NOTE_MS;
    c->peers->refusal_noted_ms = quiet ? c->peers->refusal_noted_ms : now_ms;
    rq_note(quiet ? RQ_LEVEL_DEBUG : RQ_LEVEL_WARN, "connection between nodes refused",
            "from=%s instance=%016llx err=%s text=%s", c->address, (unsigned long long)c->instance, rq_err_name(err),
            rq_quote(quoted, sizeof quoted, text));
    (void)snprintf(c->reason, sizeof c->reason, "%s", text);
    if (encode_failed(&out, 0, err, text)) {
        (void)peer_conn_send_encoded(c, &out); /* if it can be told */
    }
    rq_bytes_fini(&out);
    pthread_mutex_lock(&c->lock);
    c->open = false;
    if (c->out_begin == c->out_end) {
        (void)shutdown(c->fd, SHUT_WR);
    }
    pthread_mutex_unlock(&c->lock);
    c->state = CONN_ENDING;
    c->refusal = err;
    c->deadline_ms = now_ms + PEER_ENDING_MS;
}

void peer_conn_opened(struct peer_conn *c)
{
    struct rq_peers *p = c->peers;
    uint8_t *larger = malloc(PEER_IN_BYTES);
    if (larger != NULL) { /* a small one does, too */
        memcpy(larger, c->in + c->in_begin, c->in_end - c->in_begin);
        free(c->in);
        c->in = larger;
        c->in_end -= c->in_begin;
        c->in_begin = 0;
        c->in_bytes = PEER_IN_BYTES;
    }
    c->body.size_max = RQ_PEER_BODY_MAX;
    c->state = CONN_OPEN;
    c->deadline_ms = c->kind == RQ_PEER_JOIN ? peers_now_ms() + RQ_PEERS_JOIN_MS : 0;
    pthread_mutex_lock(&c->lock);
    if (c->nursed && c->kind != RQ_PEER_JOIN) {
        (void)epoll_ctl(p->porch, EPOLL_CTL_DEL, c->fd, NULL); /* it is in there */
        c->nursed = false;
        p->strangers--;
        if (!watch(c, EPOLL_CTL_ADD, EPOLLIN | (c->waits_for_room ? EPOLLOUT : 0u))) {
            peer_conn_break_locked(c); /* no event will come, but the tick finds it */
        }
    }
    c->open = !c->broken;
    pthread_mutex_unlock(&c->lock);
}

/* --- frames in ------------------------------------------------------------------------------------------------------------ */

static void take_open_frame(struct peer_conn *c, const struct rq_frame *frame, const uint8_t *body)
{
    struct rq_peer_failed failed;
    if (frame->type == RQ_PEER_PING) {
        peer_conn_reply(c, RQ_PEER_PONG, frame->id, NULL, 0, RQ_PEERS_REQUEST_QUEUE_MAX + PEER_CONTROL_ROOM);
    } else if (frame->type == RQ_PEER_PONG) {
        return; /* it was heard */
    } else if (frame->type == RQ_PEER_FAILED && frame->id == 0) {
        bool understood = rq_peer_get_failed(body, frame->body_bytes, &failed) == RQ_OK;
        peer_conn_close(c, "the other side says: %.*s", understood ? (int)failed.text.bytes : 0,
                        understood ? failed.text.data : "");
    } else if (c->kind == RQ_PEER_RAFT && frame->type == RQ_PEER_MESSAGE && !c->dialled) {
        c->peers->ops->raft(c->peers->ops->ctx, c->instance, body, frame->body_bytes);
    } else if (c->kind == RQ_PEER_REQUESTS || c->kind == RQ_PEER_JOIN) {
        peer_requests_frame(c, frame, body);
    } else if (c->kind == RQ_PEER_BULK) {
        peer_streams_frame(c, frame, body);
    } else {
        peer_conn_close(c, "frame of type %u on a connection that has none", frame->type);
    }
}

static void take_frame(struct peer_conn *c, const struct rq_frame *frame, const uint8_t *body)
{
    if (c->state == CONN_HELLO) {
        peer_handshake_frame(c, frame, body);
    } else if (c->state == CONN_OPEN) {
        take_open_frame(c, frame, body);
    }
}

/* The head is complete: may such a frame come? */
static bool begin_frame(struct peer_conn *c)
{
    enum rq_err err = rq_peer_frame_decode(c->head, &c->frame);
    if (err == RQ_OK && c->state != CONN_OPEN &&
        (c->frame.body_bytes > RQ_PEER_HANDSHAKE_BODY_MAX || c->frame.type > RQ_PEER_FAILED)) {
        err = RQ_PROTOCOL;
    }
    if (err != RQ_OK) {
        peer_conn_close(c, "not a frame of this protocol: %s", rq_err_text(err));
    }
    return err == RQ_OK;
}

static void take_bytes(struct peer_conn *c, const uint8_t *data, size_t bytes)
{
    while (bytes > 0 && (c->state == CONN_HELLO || c->state == CONN_OPEN)) {
        if (c->head_bytes < RQ_FRAME_HEAD_BYTES) {
            size_t n = RQ_FRAME_HEAD_BYTES - c->head_bytes < bytes ? RQ_FRAME_HEAD_BYTES - c->head_bytes : bytes;
            memcpy(c->head + c->head_bytes, data, n);
            c->head_bytes += n;
            data += n;
            bytes -= n;
            if (c->head_bytes < RQ_FRAME_HEAD_BYTES || !begin_frame(c)) {
                return;
            }
        }
        const struct rq_frame frame = c->frame;
        size_t left = frame.body_bytes - c->body.size;
        if (c->body.size == 0 && bytes >= left) { /* whole in this record: not copied */
            c->head_bytes = 0;
            take_frame(c, &frame, data);
            data += left;
            bytes -= left;
            continue;
        }
        size_t n = bytes < left ? bytes : left;
        if (rq_bytes_put(&c->body, data, n) != RQ_OK) {
            peer_conn_close(c, "out of memory");
            return;
        }
        data += n;
        bytes -= n;
        if (c->body.size == frame.body_bytes) {
            struct rq_bytes body = c->body;
            rq_bytes_init(&c->body, body.size_max);
            c->head_bytes = 0;
            take_frame(c, &frame, body.data);
            rq_bytes_fini(&body);
        }
    }
}

static void read_some(struct peer_conn *c)
{
    uint8_t *plain = c->peers->plain;
    size_t n;
    c->heard_ms = peers_now_ms();
    while (c->state == CONN_HELLO || c->state == CONN_OPEN || c->state == CONN_ENDING) {
        enum rq_err err = rq_channel_receive(c->channel, plain, RQ_CHANNEL_RECORD_MAX, &n);
        if (err == RQ_BUSY) {
            return;
        }
        if (err != RQ_OK) {
            peer_conn_close(c, "the connection was closed or broken");
            return;
        }
        take_bytes(c, plain, n);
    }
}

/* The socket takes bytes again. */
static void write_some(struct peer_conn *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->waits_for_room) {
        c->waits_for_room = !watch(c, EPOLL_CTL_MOD, EPOLLIN);
        write_out(c);
    }
    bool room = c->out_end - c->out_begin < PEER_BULK_QUEUE / 2;
    if (c->state == CONN_ENDING && room) {
        (void)shutdown(c->fd, SHUT_WR);
    }
    pthread_mutex_unlock(&c->lock);
    if (c->state == CONN_OPEN && room) {
        if (c->kind == RQ_PEER_BULK) {
            peer_streams_room(c);
        } else if (c->dial != NULL && c->dial->member != NULL && c->kind == RQ_PEER_REQUESTS) {
            peer_requests_send_waiting(c->dial->member);
        }
    }
}

static bool connected_to_itself(int fd)
{
    struct sockaddr_storage here = { 0 }, there = { 0 };
    socklen_t here_bytes = sizeof here, there_bytes = sizeof there;
    return getsockname(fd, (struct sockaddr *)&here, &here_bytes) == 0 &&
           getpeername(fd, (struct sockaddr *)&there, &there_bytes) == 0 && here_bytes == there_bytes &&
           memcmp(&here, &there, here_bytes) == 0;
}

static void connected(struct peer_conn *c)
{
    int error = 0;
    socklen_t bytes = sizeof error;
    char words[128];
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0 || error != 0) {
        peer_conn_close(c, "%s", strerror_r(error, words, sizeof words));
    } else if (connected_to_itself(c->fd)) {
        /* The kernel gave this end the port that it dials: nobody listens there. */
        peer_conn_close(c, "nobody listens");
    } else if (!watch(c, EPOLL_CTL_MOD, EPOLLIN)) {
        peer_conn_close(c, "no room in the kernel's set");
    } else {
        c->state = CONN_TLS;
        c->deadline_ms = peers_now_ms() + 2 * (uint64_t)c->peers->dead_ms;
        peer_handshake_go_on(c);
    }
}

void peer_conn_event(struct peer_conn *c, uint32_t events)
{
    if (c->state == CONN_CONNECTING) {
        connected(c);
        return;
    }
    if ((events & EPOLLOUT) != 0 && c->state != CONN_GONE) {
        write_some(c);
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        c->receives_left = PEER_RECEIVES_A_TURN;
        if (c->state == CONN_TLS) {
            peer_handshake_go_on(c);
        }
        read_some(c);
    }
}
