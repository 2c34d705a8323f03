#include "tests/support/lone_database.h"

#include <stdio.h>
#include <stdlib.h>

struct lone lone;

static void must(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* --- the rest of raftd --------------------------------------------------------------------------------------------------- */

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
    rq_view_free(lone.view);
    lone.view = view;
    lone.marks++;
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
    if (lone.may_end) {
        longjmp(lone.ended, 1);
    }
    printf("# fatal: %s: %s\n", why, rq_err_text(err));
    abort();
}

/* --- life ---------------------------------------------------------------------------------------------------------------- */

void lone_settle(void)
{
    while (rq_pool_run_one(lone.pool)) {
    }
}

void lone_open(uint32_t id, uint64_t version)
{
    must(rq_pool_new(0, "test", &lone.pool) == RQ_OK);
    const struct rq_database_env env = {
        .disk = &lone.disk->disk,
        .pool = lone.pool,
        .dir = "/data",
        .staged_dir = "/data/raft/staged",
        .trash_dir = "/data/raft/trash",
        .hashes_dir = "/data/raft/hashes",
        .copies_dir = "/data/raft/copies",
        .http_addr = "localhost:4001",
        .boot = rq_boot_id(), /* snapshots are of this machine, too */
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
    struct rq_database_known known = { .version = version };
    rq_origins_init(&known.origins, version);
    must(rq_place_new(lone.pool, "app.db", &lone.place) == RQ_OK);
    must(rq_database_new(&env, lone.place, id, &known, &lone.db) == RQ_OK);
    lone_settle();
}

void lone_close(void)
{
    rq_view_free(lone.view);
    lone.view = NULL;
    rq_database_unref(lone.db);
    rq_place_free(lone.place);
    rq_pool_free(lone.pool);
}

void lone_begin(uint32_t id)
{
    static const char *const dirs[] = { "staged", "trash", "hashes", "copies" };
    char path[64];
    lone.disk = record_disk_new();
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        (void)snprintf(path, sizeof path, "/data/raft/%s", dirs[i]);
        record_disk_mkdir_p(lone.disk, path);
    }
    lone_open(id, 0);
}

void lone_end(void)
{
    lone_close();
    record_disk_free(lone.disk);
}
