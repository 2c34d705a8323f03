/* The hold of a connection: hold.h. */
#include <stdlib.h>
#include <string.h>

#include "vfs/shim_parts.h"

#define LAYER_MEMORY_KEPT (1u << 20) /* so that a busy connection does not allocate: two or three layers take turns */

struct rq_hold {
    struct rq_shim_db *db; /* borrows: its owner */
    struct rq_disk *disk;
    const char *spill_dir;
    size_t memory_max;
    bool taken, broken;
    struct rq_layer *newest, *oldest; /* owns */
    struct rq_layer *spares;          /* owns: emptied, with their buffers; by newer */
};

/* --- layers ------------------------------------------------------------------------------------------------------------- */

static struct rq_layer *layer_new(struct rq_hold *h)
{
    struct rq_layer *layer = h->spares;
    if (layer != NULL) {
        h->spares = layer->newer;
    } else {
        layer = calloc(1, sizeof *layer);
        if (layer == NULL) {
            return NULL;
        }
        rq_overlay_init(&layer->pages, h->disk, h->spill_dir, h->memory_max);
        layer->pages.spill.memory_kept = LAYER_MEMORY_KEPT;
    }
    layer->closed = false;
    layer->newer = NULL;
    layer->older = h->newest;
    *(h->newest != NULL ? &h->newest->newer : &h->oldest) = layer;
    h->newest = layer;
    return layer;
}

static void layer_drop_oldest(struct rq_hold *h)
{
    struct rq_layer *layer = h->oldest;
    h->oldest = layer->newer;
    *(h->oldest != NULL ? &h->oldest->older : &h->newest) = NULL;
    rq_overlay_clear(&layer->pages);
    layer->newer = h->spares;
    h->spares = layer;
}

struct rq_hold *rq_hold_new(struct rq_shim_db *db, struct rq_disk *disk, const char *spill_dir, size_t memory_max)
{
    struct rq_hold *h = calloc(1, sizeof *h);
    if (h != NULL) {
        h->db = db;
        h->disk = disk;
        h->spill_dir = spill_dir;
        h->memory_max = memory_max;
    }
    return h;
}

void rq_hold_free(struct rq_hold *h)
{
    if (h == NULL) {
        return;
    }
    while (h->oldest != NULL) {
        layer_drop_oldest(h);
    }
    while (h->spares != NULL) {
        struct rq_layer *layer = h->spares;
        h->spares = layer->newer;
        rq_overlay_fini(&layer->pages);
        free(layer);
    }
    free(h);
}

/* --- under the connection's statements ---------------------------------------------------------------------------------- */

bool rq_hold_taken(const struct rq_hold *h)
{
    return h != NULL && h->taken;
}

enum rq_err rq_hold_read(struct rq_hold *h, uint32_t pgno, uint32_t offset, void *data, uint32_t bytes)
{
    for (struct rq_layer *layer = h->newest; layer != NULL; layer = layer->older) {
        if (pgno > layer->page_count) {
            memset(data, 0, bytes); /* was cut off; if it is back since, unwritten, then as zeros (rule Z) */
            return RQ_OK;
        }
        enum rq_err err = rq_overlay_read(&layer->pages, pgno, offset, data, bytes);
        if (err != RQ_NOTFOUND) {
            return err;
        }
    }
    return RQ_NOTFOUND;
}

static uint64_t overlay_bytes(const struct rq_overlay *o)
{
    return (uint64_t)o->count * o->page_size;
}

/* The layer that the dirty pages go to. */
static struct rq_layer *layer_for(struct rq_hold *h)
{
    struct rq_layer *layer = h->newest;
    const uint64_t bytes = overlay_bytes(&h->db->dirty);
    if (layer != NULL && !layer->closed && overlay_bytes(&layer->pages) + bytes <= RQ_LAYER_BYTES_MAX &&
        layer->version - layer->base < RQ_LAYER_TXN_MAX) {
        return layer;
    }
    rq_hold_close(h);
    layer = layer_new(h);
    if (layer != NULL) {
        layer->db_id = h->db->view.db_id;
        layer->base = layer->version = h->db->version;
        layer->page_size = h->db->page_size;
        layer->closed = bytes > RQ_LAYER_BYTES_MAX;
    }
    return layer;
}

enum rq_err rq_hold_commit(struct rq_hold *h, uint32_t page_count)
{
    struct rq_shim_db *db = h->db;
    struct rq_layer *layer = layer_for(h);
    enum rq_err err = layer == NULL ? RQ_NOMEM : rq_overlay_merge(&layer->pages, &db->dirty);
    if (err != RQ_OK) {
        /* The layer may have some of the pages already: it is no version of the database. */
        rq_overlay_clear(&db->dirty);
        h->broken = db->view_lost = true;
        return err;
    }
    layer->version++;
    layer->page_count = page_count;
    db->version = layer->version;
    db->page_count = db->file_count = page_count;
    return RQ_OK;
}

/* --- between statements ------------------------------------------------------------------------------------------------- */

static int try_take(struct rq_shim_db *db)
{
    int code = rq_shim_view_begin(db);
    if (code == SQLITE_OK) {
        code = rq_shim_turn_take(db);
        if (code != SQLITE_OK) {
            rq_shim_view_end(db);
        }
    }
    return code;
}

int rq_hold_take(struct rq_hold *h, uint64_t wait_us)
{
    struct rq_shim_db *db = h->db;
    if (h->taken || db->lock != SQLITE_LOCK_NONE) {
        return SQLITE_MISUSE;
    }
    const uint64_t begin = rq_shim_now_us();
    int code = try_take(db);
    for (uint64_t gone = 0;
         (code == SQLITE_BUSY || code == SQLITE_BUSY_SNAPSHOT) && gone < wait_us && db->view.slot_held;
         gone = rq_shim_now_us() - begin) {
        (void)rq_turn_wait(db->view.control, db->view.slot, wait_us - gone); /* whether offered, the next try tells */
        code = try_take(db);
    }
    rq_shim_wait_disarm();
    h->taken = code == SQLITE_OK;
    h->broken = false;
    return code;
}

void rq_hold_end(struct rq_hold *h)
{
    if (h->taken && h->oldest == NULL) {
        h->taken = false;
        rq_shim_turn_release(h->db);
        rq_shim_view_end(h->db);
    }
}

void rq_hold_rest(struct rq_hold *h)
{
    if (h->taken) {
        rq_snapshot_wait_begin(&h->db->view);
    }
}

void rq_hold_wake(struct rq_hold *h)
{
    if (h->taken) {
        rq_snapshot_wait_end(&h->db->view);
    }
}

void rq_hold_close(struct rq_hold *h)
{
    if (h->newest != NULL) {
        h->newest->closed = true;
    }
}

struct rq_layer *rq_hold_oldest(const struct rq_hold *h)
{
    return h->oldest;
}

uint64_t rq_hold_version(const struct rq_hold *h)
{
    return h->db->version;
}

int rq_hold_settle(struct rq_hold *h)
{
    struct rq_shim_db *db = h->db;
    if (!h->taken || db->lock != SQLITE_LOCK_NONE || h->oldest == NULL) {
        return SQLITE_MISUSE;
    }
    const uint64_t applied = h->oldest->version;
    const uint32_t db_id = h->oldest->db_id;
    const struct rq_layer *next = h->oldest->newer; /* if it is closed it may have been applied as well, since */
    layer_drop_oldest(h);
    rq_shim_view_end(db);
    int code = rq_shim_view_begin(db);
    if (code != SQLITE_OK) {
        db->view_lost = true;
        return code;
    }
    db->view_lost = h->broken;
    if ((db->version != applied && (next == NULL || !next->closed || db->version != next->version)) ||
        db->view.db_id != db_id) {
        return SQLITE_BUSY_SNAPSHOT;
    }
    if (h->newest != NULL) {
        db->version = h->newest->version;
        db->page_size = h->newest->page_size;
        db->page_count = db->file_count = h->newest->page_count;
    }
    return SQLITE_OK;
}

void rq_hold_discard(struct rq_hold *h)
{
    while (h->oldest != NULL) {
        layer_drop_oldest(h);
    }
    h->db->reset_cache = true; /* TRAP C: the change counters of what was dropped come again, with other content */
    rq_hold_end(h);
}

bool rq_hold_broken(const struct rq_hold *h)
{
    return h->broken;
}

bool rq_hold_wanted(const struct rq_hold *h)
{
    const struct rq_control *control = h->db->view.control;
    return control != NULL && (rq_turn_wanted(control) || rq_turn_elsewhere(control));
}

bool rq_hold_crowded(const struct rq_hold *h)
{
    const struct rq_snapshot *view = &h->db->view;
    return view->control != NULL && !view->empty && view->kind == RQ_SNAP_WAL &&
           atomic_load_explicit(&view->control->head->drain, memory_order_relaxed) != 0;
}
