#include "raftd/http/spool.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "raftd/http/scratch.h"
#include "raftd/run/clock.h"

#define CHUNK_BYTES (256u << 10)

void rq_spool_init(struct rq_spool *s, struct rq_http_response *response, const char *dir)
{
    *s = (struct rq_spool){ .response = response, .dir = dir, .fd = -1 };
}

/* What is in the file goes out, in order; then it is empty. */
static enum rq_err drain(struct rq_spool *s)
{
    uint8_t *chunk = malloc(CHUNK_BYTES);
    enum rq_err err = chunk != NULL ? RQ_OK : RQ_NOMEM;
    for (uint64_t at = 0; at < s->bytes && err == RQ_OK;) {
        const uint64_t left = s->bytes - at;
        const ssize_t n = pread(s->fd, chunk, left < CHUNK_BYTES ? left : CHUNK_BYTES, (off_t)at);
        if (n > 0) {
            at += (uint64_t)n;
            err = rq_http_send(s->response, chunk, (size_t)n);
        } else if (n == 0 || errno != EINTR) {
            err = RQ_IO;
        }
    }
    free(chunk);
    if (s->fd >= 0) {
        close(s->fd);
        s->fd = -1;
    }
    s->bytes = 0;
    return err;
}

/* Bytes that are in the file now: all, unless the disk does not take them. */
static size_t store(struct rq_spool *s, const uint8_t *data, size_t bytes)
{
    size_t stored = 0;
    if (s->fd < 0) {
        s->fd = rq_scratch_open(s->dir);
    }
    while (s->fd >= 0 && stored < bytes && rq_scratch_room(s->dir) > 0) {
        const ssize_t n = pwrite(s->fd, data + stored, bytes - stored, (off_t)s->bytes);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        stored += (size_t)n;
        s->bytes += (uint64_t)n;
    }
    return stored;
}

static enum rq_err put(void *ctx, const void *data, size_t bytes)
{
    struct rq_spool *s = ctx;
    const uint8_t *from = data;
    if (s->bytes == 0) {
        const uint64_t begin_ms = rq_clock_ms();
        const uint64_t may_ms = s->waited_ms < RQ_SPOOL_WAIT_MS ? RQ_SPOOL_WAIT_MS - s->waited_ms : 0;
        size_t taken;
        enum rq_err err = rq_http_offer(s->response, from, bytes, may_ms, &taken);
        if (err != RQ_OK || taken == bytes) {
            s->waited_ms += rq_clock_ms() - begin_ms;
            return err;
        }
        s->waited_ms = RQ_SPOOL_WAIT_MS;
        from += taken;
        bytes -= taken;
    }
    const size_t stored = store(s, from, bytes);
    if (stored == bytes) {
        return RQ_OK;
    }
    enum rq_err err = drain(s);
    return err == RQ_OK ? rq_http_send(s->response, from + stored, bytes - stored) : err;
}

struct rq_backup_sink rq_spool_sink(struct rq_spool *s)
{
    return (struct rq_backup_sink){ s, put };
}

enum rq_err rq_spool_end(struct rq_spool *s)
{
    return s->bytes > 0 ? drain(s) : RQ_OK;
}

void rq_spool_fini(struct rq_spool *s)
{
    if (s->fd >= 0) {
        close(s->fd);
    }
}
