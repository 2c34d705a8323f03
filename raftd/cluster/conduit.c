#include "raftd/cluster/conduit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/run/clock.h"
#include "raftd/wire/bytes.h"

struct rq_conduit {
    atomic_uint refs;         /* the thread's, and the stream's until it is closed */
    struct rq_stream *stream; /* counted */
    struct rq_bytes taken;    /* the thread's: what it reads in */
    const uint8_t *rest;      /* of that, what read_exactly() has not handed out */
    size_t rest_bytes;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct rq_bytes come; /* guarded by lock, as the rest */
    bool writable, ended, closed;
    enum rq_err err;
    char text[RQ_TEXT_MAX + 1];
};

static void free_conduit(struct rq_conduit *c)
{
    if (c->stream != NULL) {
        rq_stream_unref(c->stream);
    }
    rq_bytes_fini(&c->taken);
    rq_bytes_fini(&c->come);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void unref(struct rq_conduit *c)
{
    if (atomic_fetch_sub(&c->refs, 1) == 1) {
        free_conduit(c);
    }
}

/* --- from the peers' thread --------------------------------------------------------------------------------------------------- */

static void on_data(void *ctx, const uint8_t *data, size_t bytes)
{
    struct rq_conduit *c = ctx;
    pthread_mutex_lock(&c->lock);
    enum rq_err err = rq_bytes_put(&c->come, data, bytes);
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (err != RQ_OK) {
        rq_stream_abort(c->stream, err, rq_err_text(err));
    }
}

static void on_ended(void *ctx)
{
    struct rq_conduit *c = ctx;
    pthread_mutex_lock(&c->lock);
    c->ended = true;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void on_writable(void *ctx)
{
    struct rq_conduit *c = ctx;
    pthread_mutex_lock(&c->lock);
    c->writable = true;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void on_closed(void *ctx, enum rq_err err, const char *text)
{
    struct rq_conduit *c = ctx;
    pthread_mutex_lock(&c->lock);
    c->closed = true;
    c->err = err;
    (void)snprintf(c->text, sizeof c->text, "%s", text);
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
    unref(c);
}

static const struct rq_stream_ops stream_ops = { on_data, on_ended, on_writable, on_closed };

/* --- life --------------------------------------------------------------------------------------------------------------------- */

static struct rq_conduit *new_conduit(void)
{
    struct rq_conduit *c = calloc(1, sizeof *c);
    pthread_condattr_t attr;
    if (c == NULL) {
        return NULL;
    }
    atomic_init(&c->refs, 2);
    rq_bytes_init(&c->taken, RQ_PEERS_BULK_WINDOW);
    rq_bytes_init(&c->come, RQ_PEERS_BULK_WINDOW);
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attr);
    pthread_condattr_destroy(&attr);
    return c;
}

enum rq_err rq_conduit_open(struct rq_peers *peers, uint64_t instance, const void *head, size_t head_bytes,
                            struct rq_conduit **ret_conduit)
{
    struct rq_conduit *c = new_conduit();
    if (c == NULL) {
        return RQ_NOMEM;
    }
    enum rq_err err = rq_stream_open(peers, instance, head, head_bytes, &stream_ops, c, &c->stream);
    if (err != RQ_OK) {
        c->stream = NULL;
        free_conduit(c); /* there will be no closed() */
        return err;
    }
    *ret_conduit = c;
    return RQ_OK;
}

enum rq_err rq_conduit_accept(struct rq_stream *stream, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                              struct rq_conduit **ret_conduit)
{
    struct rq_conduit *c = new_conduit();
    if (c == NULL) {
        return RQ_NOMEM;
    }
    c->stream = stream;
    *ret_ops = &stream_ops;
    *ret_ctx = c;
    *ret_conduit = c;
    return RQ_OK;
}

void rq_conduit_abort(struct rq_conduit *c, enum rq_err err, const char *text)
{
    rq_stream_abort(c->stream, err, text);
}

void rq_conduit_free(struct rq_conduit *c)
{
    if (c != NULL) {
        rq_stream_abort(c->stream, RQ_AWAY, "given up");
        unref(c);
    }
}

const char *rq_conduit_text(struct rq_conduit *c)
{
    return c->text; /* written once, before the wait that tells of it returns */
}

/* --- waiting ------------------------------------------------------------------------------------------------------------------ */

/* With the lock held.  False: nothing has changed for too long. */
static bool wait_for_change(struct rq_conduit *c)
{
    const uint64_t end = rq_clock_ms() + RQ_CONDUIT_SILENCE_MS;
    const struct timespec until = { (time_t)(end / 1000u), (long)(end % 1000u) * 1000000 };
    return pthread_cond_timedwait(&c->changed, &c->lock, &until) == 0;
}

static enum rq_err silent(struct rq_conduit *c)
{
    rq_stream_abort(c->stream, RQ_AWAY, "nothing was heard for too long");
    return RQ_AWAY;
}

enum rq_err rq_conduit_read(struct rq_conduit *c, const uint8_t **ret_data, size_t *ret_bytes)
{
    bool heard = true;
    if (c->taken.size > 0) {
        rq_stream_consumed(c->stream, c->taken.size);
        c->taken.size = 0;
    }
    pthread_mutex_lock(&c->lock);
    while (c->come.size == 0 && !c->ended && !c->closed && heard) {
        heard = wait_for_change(c);
    }
    const struct rq_bytes come = c->come;
    c->come = c->taken;
    c->taken = come;
    const bool ended = c->ended, closed = c->closed;
    const enum rq_err err = c->err;
    pthread_mutex_unlock(&c->lock);
    *ret_data = c->taken.data;
    *ret_bytes = c->taken.size;
    return c->taken.size > 0 || ended ? RQ_OK : closed ? err : silent(c);
}

enum rq_err rq_conduit_read_exactly(struct rq_conduit *c, void *data, size_t bytes)
{
    uint8_t *to = data;
    while (bytes > 0) {
        if (c->rest_bytes == 0) {
            enum rq_err err = rq_conduit_read(c, &c->rest, &c->rest_bytes);
            if (err != RQ_OK || c->rest_bytes == 0) {
                c->rest_bytes = 0;
                return err == RQ_OK ? RQ_AWAY : err;
            }
        }
        const size_t n = bytes < c->rest_bytes ? bytes : c->rest_bytes;
        memcpy(to, c->rest, n);
        c->rest += n;
        c->rest_bytes -= n;
        to += n;
        bytes -= n;
    }
    return RQ_OK;
}

enum rq_err rq_conduit_write(struct rq_conduit *c, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes > 0) {
        pthread_mutex_lock(&c->lock);
        c->writable = false;
        const enum rq_err over = c->ended ? RQ_EXISTS : c->err;
        const bool closed = c->ended || c->closed;
        pthread_mutex_unlock(&c->lock);
        if (closed) {
            return over;
        }
        const size_t n = rq_stream_send(c->stream, at, bytes);
        at += n;
        bytes -= n;
        if (bytes == 0) {
            break;
        }
        bool heard = true;
        pthread_mutex_lock(&c->lock);
        while (!c->writable && !c->ended && !c->closed && heard) {
            heard = wait_for_change(c);
        }
        pthread_mutex_unlock(&c->lock);
        if (!heard) {
            return silent(c);
        }
    }
    return RQ_OK;
}

enum rq_err rq_conduit_finish(struct rq_conduit *c)
{
    bool heard = true;
    rq_stream_end(c->stream);
    pthread_mutex_lock(&c->lock);
    while (!c->closed && heard) {
        heard = wait_for_change(c);
    }
    const bool closed = c->closed;
    const enum rq_err err = c->err;
    pthread_mutex_unlock(&c->lock);
    return closed ? err : silent(c);
}
