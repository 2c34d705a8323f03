#include "tests/support/database_env.h"

#include <stdio.h>
#include <stdlib.h>

static void on_submit(void *ctx, struct rq_submit *s)
{
    (void)ctx, (void)s;
    abort();
}

static void on_post_later(void *ctx, struct rq_later *later, uint64_t delay_ms)
{
    (void)ctx, (void)later, (void)delay_ms;
    abort();
}

static uint64_t on_number(void *ctx)
{
    (void)ctx;
    return 1;
}

static bool on_full(void *ctx)
{
    (void)ctx;
    return false;
}

static bool on_ready(void *ctx)
{
    (void)ctx;
    return true;
}

static void on_marked(void *ctx, struct rq_database *db, const struct rq_entry_mark *mark, uint64_t index,
                      struct rq_view *view)
{
    (void)ctx, (void)db, (void)mark, (void)index;
    rq_view_free(view);
}

static void on_stir(void *ctx)
{
    (void)ctx;
}

static void on_file_made(void *ctx, uint32_t id, uint64_t inode, uint64_t device)
{
    (void)ctx, (void)id, (void)inode, (void)device;
}

static void on_fatal(void *ctx, const char *why, enum rq_err err) __attribute__((noreturn));
static void on_fatal(void *ctx, const char *why, enum rq_err err)
{
    (void)ctx;
    printf("# fatal: %s: %s\n", why, rq_err_text(err));
    abort();
}

struct rq_database_env database_env(struct rq_pool *pool)
{
    return (struct rq_database_env){
        .pool = pool,
        .http_addr = "localhost:4001",
        .boot = 1,
        .wal_soft_frames = 1000,
        .wal_hard_frames = 4000,
        .submit = on_submit,
        .post_later = on_post_later,
        .leader = on_number,
        .term = on_number,
        .ready = on_ready,
        .full = on_full,
        .marked = on_marked,
        .stir = on_stir,
        .file_made = on_file_made,
        .fatal = on_fatal,
    };
}
