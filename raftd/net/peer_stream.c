/* Streams.  Each direction has a window: the sender's credit and the reader's allowance are the same number seen from both ends, so
 * nobody has to hold more than a window of a stream that its reader leaves alone.
 *
 * A stream is in its connection's list until its end is known; who takes it out (under the connection's lock) owes closed(), which
 * comes on the I/O thread: at once there, else by way of streams_closing. */
#include <stdlib.h>
#include <string.h>

#include "raftd/net/peers_impl.h"

struct rq_stream {
    atomic_uint refs; /* the list's, the holder's */
    struct rq_peers *peers;
    struct peer_conn *conn; /* owns a reference */
    uint64_t id;
    const struct rq_stream_ops *ops;
    void *ctx;

    /* Guarded by the connection's lock. */
    struct rq_stream *next; /* in the connection's list; then in a list of closing ones */
    bool listed;
    bool out_ended, in_ended;
    bool blocked;     /* writable() is owed */
    size_t credit;    /* that may be sent */
    size_t allowance; /* that may come */
    size_t consumed;  /* since the last CREDIT */
    enum rq_err err;  /* of closed() */
    char text[RQ_TEXT_MAX + 1];
};

static void stream_unref(struct rq_stream *s)
{
    if (atomic_fetch_sub(&s->refs, 1) == 1) {
        peer_conn_unref(s->conn);
        free(s);
    }
}

void rq_stream_unref(struct rq_stream *s)
{
    if (s != NULL) {
        stream_unref(s);
    }
}

static struct rq_stream *new_stream(struct peer_conn *c, uint64_t id)
{
    struct rq_stream *s = calloc(1, sizeof *s);
    if (s != NULL) {
        atomic_init(&s->refs, 2);
        s->peers = c->peers;
        s->conn = c;
        peer_conn_ref(c);
        s->id = id;
        s->credit = s->allowance = RQ_PEERS_BULK_WINDOW;
    }
    return s;
}

/* With the connection's lock, as the next. */
static void list_stream(struct rq_stream *s)
{
    s->listed = true;
    s->next = s->conn->streams;
    s->conn->streams = s;
    s->conn->stream_count++;
}

/* True: the caller owes closed(), and has the list's reference. */
static bool unlist_stream(struct rq_stream *s, enum rq_err err, const char *text, size_t text_bytes)
{
    if (!s->listed) {
        return false;
    }
    struct rq_stream **at = &s->conn->streams;
    while (*at != s) {
        at = &(*at)->next;
    }
    *at = s->next;
    s->next = NULL;
    s->listed = false;
    s->conn->stream_count--;
    s->err = err;
    memcpy(s->text, text, text_bytes < RQ_TEXT_MAX ? text_bytes : RQ_TEXT_MAX);
    return true;
}

/* The I/O thread, no locks. */
static void close_stream(struct rq_stream *s)
{
    s->ops->closed(s->ctx, s->err, s->text);
    stream_unref(s);
}

static void close_later(struct rq_stream *s)
{
    struct rq_peers *p = s->peers;
    pthread_mutex_lock(&p->lock);
    s->next = p->streams_closing;
    p->streams_closing = s;
    pthread_mutex_unlock(&p->lock);
    peers_ring(p);
}

void peer_streams_closing(struct rq_peers *p)
{
    pthread_mutex_lock(&p->lock);
    struct rq_stream *list = p->streams_closing;
    p->streams_closing = NULL;
    pthread_mutex_unlock(&p->lock);
    while (list != NULL) {
        struct rq_stream *s = list;
        list = s->next;
        close_stream(s);
    }
}

void peer_streams_lost(struct peer_conn *c)
{
    for (;;) {
        pthread_mutex_lock(&c->lock);
        struct rq_stream *s = c->streams;
        if (s != NULL) {
            (void)unlist_stream(s, RQ_AWAY, c->reason, strlen(c->reason));
        }
        pthread_mutex_unlock(&c->lock);
        if (s == NULL) {
            return;
        }
        close_stream(s);
    }
}

/* --- any thread ------------------------------------------------------------------------------------------------------------ */

enum rq_err rq_stream_open(struct rq_peers *p, uint64_t instance, const void *head, size_t head_bytes,
                           const struct rq_stream_ops *ops, void *ctx, struct rq_stream **ret_stream)
{
    if (head_bytes > RQ_PEER_STREAM_HEAD_MAX) {
        return RQ_TOOBIG;
    }
    struct peer_member *m = peer_member_find(p, instance);
    if (m == NULL) {
        return RQ_NOTFOUND;
    }
    pthread_mutex_lock(&m->lock);
    struct peer_conn *c = m->dials[RQ_PEER_BULK].open_conn;
    if (c != NULL) {
        peer_conn_ref(c);
    }
    pthread_mutex_unlock(&m->lock);
    peer_member_unref(m);
    if (c == NULL) {
        return RQ_AWAY;
    }
    enum rq_err err = RQ_BUSY;
    struct rq_stream *s = NULL;
    pthread_mutex_lock(&c->lock);
    if (c->stream_count < RQ_PEERS_BULK_STREAMS_MAX) {
        s = new_stream(c, c->stream_next + 1);
        err = s == NULL ? RQ_NOMEM : RQ_OK;
    }
    if (err == RQ_OK) {
        s->ops = ops;
        s->ctx = ctx;
        *ret_stream = s; /* before the answer can come */
        err = peer_conn_put_locked(c, RQ_PEER_OPEN, s->id, &(struct iovec){ (void *)head, head_bytes }, 1);
        if (err == RQ_OK) {
            c->stream_next++;
            list_stream(s);
            peer_conn_flush_locked(c);
        }
    }
    pthread_mutex_unlock(&c->lock);
    if (err != RQ_OK && s != NULL) {
        peer_conn_unref(s->conn);
        free(s);
    }
    peer_conn_unref(c);
    return err;
}

size_t rq_stream_send(struct rq_stream *s, const void *data, size_t bytes)
{
    struct peer_conn *c = s->conn;
    const uint8_t *at = data;
    size_t taken = 0;
    pthread_mutex_lock(&c->lock);
    while (s->listed && !s->out_ended && taken < bytes && s->credit > 0 &&
           c->out_end - c->out_begin < PEER_BULK_QUEUE) {
        size_t n = bytes - taken < RQ_PEER_DATA_MAX ? bytes - taken : RQ_PEER_DATA_MAX;
        n = n < s->credit ? n : s->credit;
        if (peer_conn_put_locked(c, RQ_PEER_DATA, s->id, &(struct iovec){ (void *)(at + taken), n }, 1) != RQ_OK) {
            break;
        }
        s->credit -= n;
        taken += n;
        if (!c->waits_for_room) {
            peer_conn_flush_locked(c); /* now and then, so that the other side has something to do meanwhile */
        }
    }
    peer_conn_flush_locked(c);
    s->blocked = taken < bytes;
    pthread_mutex_unlock(&c->lock);
    return taken;
}

void rq_stream_consumed(struct rq_stream *s, size_t bytes)
{
    uint8_t body[4];
    struct peer_conn *c = s->conn;
    pthread_mutex_lock(&c->lock);
    size_t owed = RQ_PEERS_BULK_WINDOW - s->allowance - s->consumed; /* more cannot have been consumed */
    s->consumed += bytes < owed ? bytes : owed;
    if (s->listed && !s->in_ended && s->consumed >= RQ_PEERS_BULK_WINDOW / 4) {
        rq_put_u32(body, (uint32_t)s->consumed);
        s->allowance += s->consumed;
        s->consumed = 0;
        (void)peer_conn_put_locked(c, RQ_PEER_CREDIT, s->id, &(struct iovec){ body, sizeof body },
                                   1); /* or it is lost */
        peer_conn_flush_locked(c);
    }
    pthread_mutex_unlock(&c->lock);
}

void rq_stream_end(struct rq_stream *s)
{
    struct peer_conn *c = s->conn;
    pthread_mutex_lock(&c->lock);
    bool over = false;
    if (s->listed && !s->out_ended) {
        s->out_ended = true;
        (void)peer_conn_put_locked(c, RQ_PEER_END, s->id, NULL, 0); /* or it is lost */
        peer_conn_flush_locked(c);
        over = s->in_ended && unlist_stream(s, RQ_OK, "", 0);
    }
    pthread_mutex_unlock(&c->lock);
    if (over) {
        close_later(s);
    }
}

void rq_stream_abort(struct rq_stream *s, enum rq_err err, const char *text)
{
    struct peer_conn *c = s->conn;
    pthread_mutex_lock(&c->lock);
    bool over = unlist_stream(s, err, text, strlen(text));
    pthread_mutex_unlock(&c->lock);
    if (over) {
        peer_conn_reply_failed(c, s->id, err, text);
        close_later(s);
    }
}

/* --- frames ---------------------------------------------------------------------------------------------------------------- */

static void take_open(struct peer_conn *c, uint64_t id, const uint8_t *head, size_t head_bytes)
{
    struct rq_peers *p = c->peers;
    char text[RQ_TEXT_MAX + 1] = "too many streams";
    enum rq_err err = RQ_BUSY;
    struct rq_peer_who who;
    if (c->dialled || id <= c->stream_last || head_bytes > RQ_PEER_STREAM_HEAD_MAX) {
        peer_conn_close(c, "a stream is opened wrongly");
        return;
    }
    c->stream_last = id;
    pthread_mutex_lock(&c->lock);
    bool room = c->stream_count < RQ_PEERS_BULK_STREAMS_MAX;
    pthread_mutex_unlock(&c->lock);
    struct rq_stream *s = room ? new_stream(c, id) : NULL;
    if (s != NULL) {
        /* Listed before it is shown: it may be written to at once.  Nothing comes for it meanwhile: that is this thread's. */
        pthread_mutex_lock(&c->lock);
        list_stream(s);
        pthread_mutex_unlock(&c->lock);
        peer_conn_who(c, &who);
        text[0] = '\0';
        err = p->ops->stream(p->ops->ctx, &who, s, head, head_bytes, &s->ops, &s->ctx, text);
        if (err == RQ_OK) {
            return;
        }
        pthread_mutex_lock(&c->lock);
        (void)unlist_stream(s, err, "", 0);
        pthread_mutex_unlock(&c->lock);
        stream_unref(s);
        stream_unref(s); /* NOLINT(clang-analyzer-unix.Malloc): the second of two */
    }
    peer_conn_reply_failed(c, id, err, text);
}

/* A reference; NULL: it was closed meanwhile, or never was. */
static struct rq_stream *find_stream(struct peer_conn *c, uint64_t id)
{
    pthread_mutex_lock(&c->lock);
    struct rq_stream *s = c->streams;
    while (s != NULL && s->id != id) {
        s = s->next;
    }
    if (s != NULL) {
        atomic_fetch_add(&s->refs, 1);
    }
    pthread_mutex_unlock(&c->lock);
    return s;
}

static void take_data(struct rq_stream *s, const uint8_t *data, size_t bytes)
{
    struct peer_conn *c = s->conn;
    pthread_mutex_lock(&c->lock);
    bool allowed = bytes <= s->allowance && !s->in_ended;
    if (allowed) {
        s->allowance -= bytes;
    }
    pthread_mutex_unlock(&c->lock);
    if (!allowed) {
        peer_conn_close(c, "more of a stream than there is room for");
    } else if (bytes > 0) {
        s->ops->data(s->ctx, data, bytes);
    }
}

static void take_credit(struct rq_stream *s, const uint8_t *body, size_t bytes)
{
    struct peer_conn *c = s->conn;
    uint32_t more = bytes == 4 ? rq_get_u32(body) : UINT32_MAX;
    pthread_mutex_lock(&c->lock);
    bool allowed = more <= RQ_PEERS_BULK_WINDOW - s->credit;
    bool go_on = allowed && s->blocked;
    if (allowed) {
        s->credit += more;
        s->blocked = false;
    }
    pthread_mutex_unlock(&c->lock);
    if (!allowed) {
        peer_conn_close(c, "more credit than a stream has");
    } else if (go_on) {
        s->ops->writable(s->ctx);
    }
}

static void take_end(struct rq_stream *s)
{
    struct peer_conn *c = s->conn;
    pthread_mutex_lock(&c->lock);
    bool first = !s->in_ended;
    s->in_ended = true;
    pthread_mutex_unlock(&c->lock);
    if (!first) {
        peer_conn_close(c, "a stream ends twice");
        return;
    }
    s->ops->ended(s->ctx);
    pthread_mutex_lock(&c->lock);
    bool over = s->out_ended && unlist_stream(s, RQ_OK, "", 0);
    pthread_mutex_unlock(&c->lock);
    if (over) {
        close_stream(s);
    }
}

static void take_failed(struct rq_stream *s, const struct rq_frame *frame, const uint8_t *body)
{
    struct peer_conn *c = s->conn;
    struct rq_peer_failed failed;
    if (rq_peer_get_failed(body, frame->body_bytes, &failed) != RQ_OK) {
        peer_conn_close(c, "a refusal that cannot be read");
        return;
    }
    pthread_mutex_lock(&c->lock);
    bool over = unlist_stream(s, failed.err, failed.text.data, failed.text.bytes);
    pthread_mutex_unlock(&c->lock);
    if (over) {
        close_stream(s);
    }
}

void peer_streams_frame(struct peer_conn *c, const struct rq_frame *frame, const uint8_t *body)
{
    if (frame->type == RQ_PEER_OPEN) {
        take_open(c, frame->id, body, frame->body_bytes);
        return;
    }
    if (frame->type != RQ_PEER_DATA && frame->type != RQ_PEER_CREDIT && frame->type != RQ_PEER_END &&
        frame->type != RQ_PEER_FAILED) {
        peer_conn_close(c, "frame of type %u on a connection for streams", frame->type);
        return;
    }
    struct rq_stream *s = find_stream(c, frame->id);
    if (s == NULL) {
        return; /* was aborted here, and the other side did not know yet */
    }
    if (frame->type == RQ_PEER_DATA) {
        take_data(s, body, frame->body_bytes);
    } else if (frame->type == RQ_PEER_CREDIT) {
        take_credit(s, body, frame->body_bytes);
    } else if (frame->type == RQ_PEER_END) {
        take_end(s);
    } else {
        take_failed(s, frame, body);
    }
    stream_unref(s); /* NOLINT(clang-analyzer-unix.Malloc): find_stream()'s, not the list's */
}

void peer_streams_room(struct peer_conn *c)
{
    struct rq_stream *ready[RQ_PEERS_BULK_STREAMS_MAX];
    unsigned count = 0;
    pthread_mutex_lock(&c->lock);
    for (struct rq_stream *s = c->streams; s != NULL; s = s->next) {
        if (s->blocked && s->credit > 0) {
            s->blocked = false;
            atomic_fetch_add(&s->refs, 1);
            ready[count++] = s;
        }
    }
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < count; i++) {
        ready[i]->ops->writable(ready[i]->ctx);
        stream_unref(ready[i]);
    }
}
