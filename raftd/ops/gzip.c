#include "raftd/ops/gzip.h"

#include <stdint.h>
#include <stdlib.h>
#include <zlib.h>

#define OUT_BYTES    (64u << 10)
#define GZIP_WINDOW  (15 + 16) /* zlib: a gzip head and tail around it */
#define MEMORY_LEVEL 8

struct rq_gzip {
    const struct rq_backup_sink *to;
    z_stream z;
    uint8_t out[OUT_BYTES];
};

enum rq_err rq_gzip_new(const struct rq_backup_sink *to, struct rq_gzip **ret_gzip)
{
    struct rq_gzip *g = calloc(1, sizeof *g);
    if (g == NULL ||
        deflateInit2(&g->z, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(g);
        return RQ_NOMEM;
    }
    g->to = to;
    *ret_gzip = g;
    return RQ_OK;
}

/* Until the input is used up; with Z_FINISH until all is out. */
static enum rq_err deflate_all(struct rq_gzip *g, int flush)
{
    int code;
    do {
        g->z.next_out = g->out;
        g->z.avail_out = sizeof g->out;
        code = deflate(&g->z, flush);
        const size_t made = sizeof g->out - g->z.avail_out;
        enum rq_err err = made > 0 ? g->to->put(g->to->ctx, g->out, made) : RQ_OK;
        if (err != RQ_OK) {
            return err;
        }
    } while (g->z.avail_in > 0 || (flush == Z_FINISH && code == Z_OK));
    return flush != Z_FINISH || code == Z_STREAM_END ? RQ_OK : RQ_IO;
}

static enum rq_err put(void *ctx, const void *data, size_t bytes)
{
    struct rq_gzip *g = ctx;
    const uint8_t *from = data;
    while (bytes > 0) {
        const size_t n = bytes < (1u << 20) ? bytes : 1u << 20;
        g->z.next_in = (uint8_t *)(uintptr_t)from; /* zlib only reads it */
        g->z.avail_in = (unsigned)n;
        enum rq_err err = deflate_all(g, Z_NO_FLUSH);
        if (err != RQ_OK) {
            return err;
        }
        from += n;
        bytes -= n;
    }
    return RQ_OK;
}

struct rq_backup_sink rq_gzip_sink(struct rq_gzip *g)
{
    return (struct rq_backup_sink){ g, put };
}

enum rq_err rq_gzip_end(struct rq_gzip *g)
{
    g->z.avail_in = 0;
    return deflate_all(g, Z_FINISH);
}

void rq_gzip_free(struct rq_gzip *g)
{
    if (g != NULL) {
        (void)deflateEnd(&g->z); /* says that there was more to come */
        free(g);
    }
}
