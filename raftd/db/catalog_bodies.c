/* The catalog's staged bodies: which of them the log names, how far they are here to stay, and when they are deleted. */
#include <stdlib.h>

#include "raftd/db/catalog_impl.h"
#include "raftd/db/staged.h"
#include "raftd/ops/journal.h"
#include "raftd/wire/entry.h"

void rq_catalog_note_body(struct rq_catalog *c, uint64_t index, const struct rq_entry_staged *staged)
{
    if (rq_shelf_name(c->shelf, staged, index) != RQ_OK) {
        rq_fatal("no memory for the catalog", RQ_NOMEM);
    }
}

/* Which bodies the log names that was not delivered to us: what is below the descriptor is kept for others, what is above the
 * commit index may be committed yet. */
struct naming {
    struct rq_task task;
    struct rq_catalog *catalog;
    bool below; /* also what is below the descriptor: at the start, once */
    struct rq_countdown n;
};

static void run_naming(struct rq_task *task)
{
    struct naming *s = (struct naming *)task;
    struct rq_catalog *c = s->catalog;
    const uint64_t delivered = rq_driver_view(c->driver).delivered;
    uint64_t i = s->below ? 0 : delivered;
    struct rq_log_entry e;
    enum rq_err err = RQ_OK;
    while (rq_driver_next_entry(c->driver, &i, &e, &err)) {
        struct rq_entry_staged staged;
        const bool names = e.type == RQ_ENTRY_STAGED && (i <= c->loaded_index || i > delivered) &&
                           rq_catalog_readable(rq_entry_get_staged(e.blob->data, e.blob->bytes, &staged));
        if (names && i <= c->loaded_index) {
            rq_catalog_note_body(c, i, &staged);
        } else if (names && rq_shelf_expect(c->shelf, staged.hash, staged.origin, RQ_SHELF_FOR_EVER) != RQ_OK) {
            rq_fatal("no memory for the catalog", RQ_NOMEM);
        }
        rq_blob_unref(e.blob);
    }
    rq_countdown_one(&s->n, err);
}

static enum rq_err name_undelivered(struct rq_catalog *c, bool below)
{
    struct naming s = { .task = { .run = run_naming }, .catalog = c, .below = below };
    rq_countdown_init(&s.n, 1);
    rq_strand_post(rq_driver_loop(c->driver), &s.task, RQ_HAND_OVER);
    return rq_countdown_wait(c, &s.n);
}

enum rq_err rq_catalog_sweep_bodies(struct rq_catalog *c)
{
    enum rq_err err = name_undelivered(c, true);
    return err == RQ_OK ? rq_shelf_sweep(c->shelf, rq_catalog_is_alone(c) ? 0 : RQ_SHELF_EXPECT_LOOKS) : err;
}

/* Its entry is applied, or will never be: the body is not missed.  A power loss may undo that, but then the body is still here. */
static bool is_applied(struct rq_catalog *c, const struct rq_shelf_named *named)
{
    struct rq_database_info info;
    struct rq_database *db = rq_catalog_find_id(c, named->db_id);
    if (db == NULL) {
        return true;
    }
    rq_database_info(db, &info);
    rq_database_unref(db);
    return info.state != RQ_DB_QUARANTINED && info.applied_index >= named->index;
}

/* Its log may have been compacted past what a fenced database has. */
static enum rq_err up_to_fenced(struct rq_catalog *c, struct rq_ask_has *has)
{
    struct rq_database **list;
    size_t count;
    enum rq_err err = rq_catalog_list(c, &list, &count);
    for (size_t i = 0; err == RQ_OK && i < count; i++) {
        struct rq_database_info info;
        rq_database_info(list[i], &info);
        if (info.state == RQ_DB_QUARANTINED) {
            has->index = info.file_index < has->index ? info.file_index : has->index;
            if (has->fenced_count < RQ_ASK_FENCED_MAX) {
                has->fenced[has->fenced_count++] = info.id;
            }
        }
        rq_database_unref(list[i]);
    }
    if (err == RQ_OK) {
        free(list);
    }
    return err;
}

enum rq_err rq_catalog_has(struct rq_catalog *c, struct rq_ask_has *ret_has)
{
    struct rq_ask_has has = { .index = rq_driver_view(c->driver).delivered }; /* before the list: that is named */
    struct rq_shelf_named *list;
    size_t count;
    bool unapplied = false;
    enum rq_err err = up_to_fenced(c, &has);
    if (err != RQ_OK) {
        return err;
    }
    err = rq_shelf_list_named(c->shelf, rq_catalog_snapshot(c).index, &list, &count);
    if (err != RQ_OK) {
        return err;
    }
    for (size_t i = 0; i < count; i++) {
        struct rq_file *file;
        if (list[i].index > has.index || is_applied(c, &list[i])) {
            continue;
        }
        if (rq_staged_open_file(c->config.disk, c->config.staged_dir, list[i].hash, list[i].bytes, &file) == RQ_OK) {
            c->config.disk->ops->close(file);
            unapplied = true;
        } else {
            has.index = list[i].index - 1;
        }
    }
    free(list);
    /* A body has its name before the name is durable. */
    err = unapplied ? c->config.disk->ops->sync_dir(c->config.disk, c->config.staged_dir) : RQ_OK;
    *ret_has = has;
    return err;
}

enum rq_err rq_catalog_look_at_bodies(struct rq_catalog *c)
{
    if (atomic_load(&c->leader) == 0) {
        return RQ_OK; /* the entry of a body that was brought here may be committed by others meanwhile: its time does not pass */
    }
    enum rq_err err = rq_shelf_is_due(c->shelf) ? name_undelivered(c, false) : RQ_OK;
    return err == RQ_OK ? rq_shelf_look(c->shelf) : err;
}

uint64_t rq_catalog_body_bytes(const struct rq_catalog *c)
{
    return rq_shelf_named_bytes(c->shelf);
}

enum rq_err rq_catalog_drop_spare(struct rq_catalog *c, uint64_t unused_ms)
{
    return rq_staged_drop_spare(c->config.disk, c->config.staged_dir, unused_ms);
}
