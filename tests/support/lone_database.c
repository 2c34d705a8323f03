#include "tests/support/lone_database.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/database_env.h"

struct lone lone;

static void must(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* --- the rest of raftd --------------------------------------------------------------------------------------------------- */

static void on_marked(void *ctx, struct rq_database *db, const struct rq_entry_mark *mark, uint64_t index,
                      struct rq_view *view)
{
    (void)ctx, (void)db, (void)mark, (void)index;
    rq_view_free(lone.view);
    lone.view = view;
    lone.marks++;
}

static bool on_disputed(void *ctx, struct rq_database *db, uint32_t pgno)
{
    (void)ctx, (void)db;
    lone.disputed++;
    lone.disputed_page = pgno;
    return lone.is_judged;
}

static uint64_t on_delivered(void *ctx)
{
    (void)ctx;
    return lone.delivered;
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

void lone_apply(uint64_t index, uint16_t type, const struct rq_bytes *entry)
{
    const struct rq_log_entry e = { index, 3, type, rq_blob_new(entry->size) };
    memcpy(e.blob->data, entry->data, entry->size);
    rq_database_committed(lone.db, &e);
    lone_settle();
    rq_blob_unref(e.blob);
}

void lone_open(uint32_t id, uint64_t version)
{
    must(rq_pool_new(0, "test", &lone.pool) == RQ_OK);
    struct rq_database_env env = database_env(lone.pool);
    env.disk = &lone.disk->disk;
    env.dir = "/data";
    env.staged_dir = "/data/raft/staged";
    env.trash_dir = "/data/raft/trash";
    env.hashes_dir = "/data/raft/hashes";
    env.copies_dir = "/data/raft/copies";
    env.boot = rq_boot_id(); /* snapshots are of this machine, too */
    env.delivered = on_delivered;
    env.marked = on_marked;
    env.disputed = on_disputed;
    env.fatal = on_fatal;
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
