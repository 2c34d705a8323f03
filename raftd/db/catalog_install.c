/* Install: this node's state machine becomes what another member has applied, because no log leads there any more.
 *
 * Order: raft/fetching is durable; databases that are gone are dropped, new ones made; each database gets its pages, durably; the
 * descriptor; the node is told; raft/fetching goes.  A kill before the descriptor leaves the old log and descriptor beside databases
 * of which some are newer: the same is then done again, and costs little; or the log comes after all, and what a database holds of it has no effect
 * on it.  A kill after it leaves a log that the next start gives up (node.h: snapshot_installed). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/catalog_impl.h"
#include "raftd/db/copy_file.h"
#include "raftd/ops/journal.h"

#define MARKER "fetching"

static enum rq_err marker_path(const struct rq_catalog *c, char path[4096])
{
    return snprintf(path, 4096, "%s/%s", c->config.raft_dir, MARKER) < 4096 ? RQ_OK : RQ_TOOBIG;
}

bool rq_catalog_is_fetching(struct rq_catalog *c)
{
    char path[4096];
    struct rq_file_info info;
    return marker_path(c, path) == RQ_OK && c->config.disk->ops->stat(c->config.disk, path, &info) == RQ_OK;
}

static enum rq_err remove_marker(struct rq_catalog *c)
{
    struct rq_disk *disk = c->config.disk;
    char path[4096];
    enum rq_err err = marker_path(c, path);
    if (err == RQ_OK) {
        err = disk->ops->unlink(disk, path);
    }
    if (err == RQ_OK) {
        err = disk->ops->sync_dir(disk, c->config.raft_dir);
    }
    return err == RQ_NOTFOUND ? RQ_OK : err;
}

/* Does the log, which is durable as far as it was delivered, reach over every replica's stamp? */
static bool log_has_it_all(struct rq_catalog *c)
{
    struct rq_database **list;
    size_t count;
    const uint64_t delivered = rq_driver_view(c->driver).delivered;
    bool all = true;
    if (rq_catalog_list(c, &list, &count) != RQ_OK) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        struct rq_database_info info;
        rq_database_info(list[i], &info);
        all = all && info.applied_index <= delivered; /* which is never below the stamp */
        rq_database_unref(list[i]);
    }
    free(list);
    return all;
}

enum rq_err rq_catalog_fetching_ends(struct rq_catalog *c)
{
    enum rq_err err = RQ_OK;
    if (rq_catalog_is_fetching(c) && pthread_mutex_trylock(&c->whole) == 0) {
        if (log_has_it_all(c)) {
            err = remove_marker(c);
        }
        pthread_mutex_unlock(&c->whole);
    }
    return err;
}

enum rq_err rq_catalog_drop_copies(struct rq_catalog *c)
{
    return rq_copy_file_sweep(c->config.disk, c->config.copies_dir);
}

/* --- on the loop --------------------------------------------------------------------------------------------------------- */

struct step {
    struct rq_task task;
    struct rq_catalog *catalog;
    const struct rq_descriptor *picture;
    struct rq_countdown n;
};

static enum rq_err on_loop(struct rq_catalog *c, const struct rq_descriptor *picture, void (*run)(struct rq_task *task))
{
    struct step s = { .task = { .run = run }, .catalog = c, .picture = picture };
    rq_countdown_init(&s.n, 1);
    rq_strand_post(rq_driver_loop(c->driver), &s.task, RQ_HAND_OVER);
    return rq_countdown_wait(c, &s.n);
}

static bool has_come_by_log(const struct step *s)
{
    return rq_driver_view(s->catalog->driver).delivered >= s->picture->index;
}

static const struct rq_descriptor_database *find_in(const struct rq_descriptor *d, uint32_t id)
{
    for (uint32_t i = 0; i < d->database_count; i++) {
        if (d->databases[i].id == id) {
            return &d->databases[i];
        }
    }
    return NULL;
}

static void drop(struct rq_catalog *c, uint32_t id)
{
    struct dropping *d = rq_catalog_one_more(NULL, 0, sizeof *d);
    *d = (struct dropping){ .catalog = c };
    struct rq_database *db = rq_catalog_take_out(c, id, d);
    if (db == NULL) {
        free(d);
        return;
    }
    rq_database_drop(db, rq_catalog_dropped, d);
}

static void follow(struct rq_catalog *c, const struct rq_descriptor *picture)
{
    struct rq_database **list;
    size_t count;
    if (rq_catalog_list(c, &list, &count) != RQ_OK) {
        rq_fatal("no memory for the catalog", RQ_NOMEM);
    }
    for (size_t i = 0; i < count; i++) {
        const uint32_t id = rq_database_id(list[i]);
        if (find_in(picture, id) == NULL) {
            drop(c, id);
        }
        rq_database_unref(list[i]);
    }
    free(list);
    for (uint32_t i = 0; i < picture->database_count; i++) {
        const struct rq_descriptor_database *wanted = &picture->databases[i];
        struct rq_database *db = rq_catalog_find_id(c, wanted->id);
        if (db != NULL) {
            rq_database_unref(db);
            continue;
        }
        struct rq_database_known known = { 0 };
        rq_origins_init(&known.origins, 0);
        (void)rq_catalog_add(c, wanted->name, wanted->id, &known);
    }
}

static void run_follow(struct rq_task *task)
{
    struct step *s = (struct step *)task;
    const bool over = has_come_by_log(s);
    if (!over) {
        follow(s->catalog, s->picture);
    }
    rq_countdown_one(&s->n, over ? RQ_EXISTS : RQ_OK);
}

static void run_look(struct rq_task *task)
{
    struct step *s = (struct step *)task;
    rq_countdown_one(&s->n, has_come_by_log(s) ? RQ_EXISTS : RQ_OK);
}

static void run_installed(struct rq_task *task)
{
    struct step *s = (struct step *)task;
    const struct rq_descriptor *d = s->picture;
    const struct rq_node_snapshot snapshot = {
        .index = d->index,
        .term = d->term,
        .configuration_index = d->configuration_index,
        .configuration = d->configuration,
        .configuration_bytes = d->configuration_bytes,
    };
    if (!has_come_by_log(s)) {
        follow(
            s->catalog,
            d); /* once more: entries may have come, and made what later ones of those that never come have dropped */
    }
    rq_driver_installed(s->catalog->driver, &snapshot);
    rq_catalog_give_up_requests(s->catalog, UINT64_MAX); /* their entries may be among those that never come */
    rq_countdown_one(&s->n, RQ_OK);
}

/* --- begin and end ------------------------------------------------------------------------------------------------------- */

enum rq_err rq_catalog_install_begin(struct rq_catalog *c, const struct rq_descriptor *picture)
{
    if (pthread_mutex_trylock(&c->whole) != 0) {
        return RQ_BUSY;
    }
    enum rq_err err = on_loop(c, picture, run_look);
    if (err == RQ_OK) {
        err = rq_file_replace(c->config.disk, c->config.raft_dir, MARKER, "", 0);
    }
    if (err == RQ_OK) {
        err = on_loop(c, picture, run_follow);
    }
    if (err == RQ_OK) {
        rq_catalog_wait_for_places(c);
    } else {
        pthread_mutex_unlock(&c->whole);
    }
    return err;
}

/* What each database is now: the descriptor's, in the order of the picture. */
static enum rq_err describe(struct rq_catalog *c, const struct rq_descriptor *picture, struct rq_picture *p)
{
    struct rq_descriptor *d = &p->descriptor;
    const uint32_t count = picture->database_count;
    d->databases = calloc(count + 1u, sizeof *d->databases);
    p->list = calloc(count + 1u, sizeof *p->list);
    d->configuration = malloc(picture->configuration_bytes + 1);
    if (d->databases == NULL || p->list == NULL || d->configuration == NULL) {
        return RQ_NOMEM;
    }
    memcpy(d->configuration, picture->configuration, picture->configuration_bytes);
    d->configuration_bytes = picture->configuration_bytes;
    d->configuration_index = picture->configuration_index;
    d->index = picture->index;
    d->term = picture->term;
    d->installed = true;
    for (; d->database_count < count; d->database_count++) {
        p->list[d->database_count] = rq_catalog_find_id(c, picture->databases[d->database_count].id);
        if (p->list[d->database_count] == NULL) {
            return RQ_EXISTS; /* dropped by an entry behind the picture */
        }
        p->count++;
    }
    rq_countdown_init(&p->n, 1);
    rq_catalog_describe(p);
    rq_countdown_one(&p->n, RQ_OK);
    return rq_countdown_wait(c, &p->n);
}

enum rq_err rq_catalog_install_end(struct rq_catalog *c, const struct rq_descriptor *picture)
{
    char text[512];
    struct rq_picture p = { .catalog = c, .text = text };
    enum rq_err err = describe(c, picture, &p);
    if (err == RQ_OK) {
        err = on_loop(c, picture, run_look);
    }
    if (err == RQ_OK) { /* one that the log had brought as far was not written, nor synced */
        err = rq_catalog_sync_replicas(&p);
    }
    if (err == RQ_OK) {
        err = rq_descriptor_write(c->config.disk, c->config.raft_dir, &p.descriptor);
    }
    if (err ==
        RQ_OK) { /* should the log have come that far since: the descriptor is true all the same, and the node keeps its log */
        err = on_loop(c, &p.descriptor, run_installed);
        rq_catalog_note_snapshot(c, &p.descriptor, true);
    }
    rq_catalog_picture_fini(&p);
    if (err == RQ_OK) {
        err = remove_marker(c);
    }
    pthread_mutex_unlock(&c->whole);
    return err;
}

void rq_catalog_install_abandon(struct rq_catalog *c)
{
    pthread_mutex_unlock(&c->whole);
}
