#include "raftd/cluster/pipe.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IDLE_S 60 /* a peer that answers pings and nothing else */

struct rq_pipe {
    struct rq_stream *stream; /* the holder's reference */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    uint8_t *ring; /* owns; RQ_PEERS_BULK_WINDOW; guarded by lock, as what follows */
    size_t begin, held;
    bool ended, closed, left; /* the other side will send no more; no callback comes any more; nor does the holder */
    bool writable;
    enum rq_err err;
};

static void free_pipe(struct rq_pipe *p)
{
    rq_stream_unref(p->stream);
    pthread_cond_destroy(&p->moved);
    pthread_mutex_destroy(&p->lock);
    free(p->ring);
    free(p);
}

/* --- the peers' thread --------------------------------------------------------------------------------------------------- */

static void on_data(void *ctx, const uint8_t *data, size_t bytes)
{
    struct rq_pipe *p = ctx;
    pthread_mutex_lock(&p->lock);
    for (size_t done = 0; done < bytes;) { /* there is room: the window is the ring's size */
        const size_t at = (p->begin + p->held) % RQ_PEERS_BULK_WINDOW;
        size_t n = RQ_PEERS_BULK_WINDOW - at;
        n = n < bytes - done ? n : bytes - done;
        memcpy(p->ring + at, data + done, n);
        p->held += n;
        done += n;
    }
    pthread_cond_signal(&p->moved);
    pthread_mutex_unlock(&p->lock);
}

static void on_ended(void *ctx)
{
    struct rq_pipe *p = ctx;
    pthread_mutex_lock(&p->lock);
    p->ended = true;
    pthread_cond_signal(&p->moved);
    pthread_mutex_unlock(&p->lock);
}

static void on_writable(void *ctx)
{
    struct rq_pipe *p = ctx;
    pthread_mutex_lock(&p->lock);
    p->writable = true;
    pthread_cond_signal(&p->moved);
    pthread_mutex_unlock(&p->lock);
}

static void on_closed(void *ctx, enum rq_err err, const char *text)
{
    struct rq_pipe *p = ctx;
    (void)text; /* the error says enough; connections that are lost are logged */
    pthread_mutex_lock(&p->lock);
    p->closed = true;
    p->err = err == RQ_OK ? RQ_AWAY : err;
    pthread_cond_signal(&p->moved);
    const bool left = p->left;
    pthread_mutex_unlock(&p->lock);
    if (left) {
        free_pipe(p);
    }
}

static const struct rq_stream_ops pipe_ops = { on_data, on_ended, on_writable, on_closed };

/* --- the holder ---------------------------------------------------------------------------------------------------------- */

static struct rq_pipe *new_pipe(void)
{
    pthread_condattr_t attr;
    struct rq_pipe *p = calloc(1, sizeof *p);
    uint8_t *ring = malloc(RQ_PEERS_BULK_WINDOW);
    if (p == NULL || ring == NULL) {
        free(p);
        free(ring);
        return NULL;
    }
    p->ring = ring;
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->moved, &attr);
    pthread_condattr_destroy(&attr);
    return p;
}

enum rq_err rq_pipe_open(struct rq_peers *peers, uint64_t instance, const void *head, size_t head_bytes,
                         struct rq_pipe **ret_pipe)
{
    struct rq_pipe *p = new_pipe();
    if (p == NULL) {
        return RQ_NOMEM;
    }
    enum rq_err err = rq_stream_open(peers, instance, head, head_bytes, &pipe_ops, p, &p->stream);
    if (err != RQ_OK) {
        p->stream = NULL;
        free_pipe(p);
        return err;
    }
    *ret_pipe = p;
    return RQ_OK;
}

enum rq_err rq_pipe_accept(struct rq_stream *stream, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                           struct rq_pipe **ret_pipe)
{
    struct rq_pipe *p = new_pipe();
    if (p == NULL) {
        return RQ_NOMEM;
    }
    p->stream = stream;
    *ret_ops = &pipe_ops;
    *ret_ctx = p;
    *ret_pipe = p;
    return RQ_OK;
}

void rq_pipe_refused(struct rq_pipe *p)
{
    p->stream = NULL;
    free_pipe(p);
}

/* With the lock: until something moves.  AWAY: nothing does. */
static enum rq_err wait(struct rq_pipe *p)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_S;
    return pthread_cond_timedwait(&p->moved, &p->lock, &until) == 0 ? RQ_OK : RQ_AWAY;
}

enum rq_err rq_pipe_read(struct rq_pipe *p, void *data, size_t bytes)
{
    uint8_t *to = data;
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&p->lock);
    while (err == RQ_OK && bytes > 0) {
        if (p->held == 0) {
            err = p->closed ? p->err : p->ended ? RQ_AWAY : wait(p);
            continue;
        }
        size_t n = RQ_PEERS_BULK_WINDOW - p->begin;
        n = n < p->held ? n : p->held;
        n = n < bytes ? n : bytes;
        memcpy(to, p->ring + p->begin, n);
        p->begin = (p->begin + n) % RQ_PEERS_BULK_WINDOW;
        p->held -= n;
        to += n;
        bytes -= n;
        pthread_mutex_unlock(&p->lock);
        rq_stream_consumed(p->stream, n);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return err;
}

enum rq_err rq_pipe_write(struct rq_pipe *p, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&p->lock);
    while (err == RQ_OK && bytes > 0) {
        if (p->closed) {
            err = p->err;
            break;
        }
        p->writable = false;
        pthread_mutex_unlock(&p->lock);
        const size_t n = rq_stream_send(p->stream, from, bytes);
        pthread_mutex_lock(&p->lock);
        from += n;
        bytes -= n;
        while (err == RQ_OK && bytes > 0 && !p->writable && !p->closed) {
            err = wait(p);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return err;
}

void rq_pipe_close(struct rq_pipe *p)
{
    rq_stream_abort(p->stream, RQ_AWAY, "done"); /* nothing is on its way that anybody waits for */
    pthread_mutex_lock(&p->lock);
    p->left = true;
    const bool closed = p->closed;
    pthread_mutex_unlock(&p->lock);
    if (closed) {
        free_pipe(p);
    }
}
