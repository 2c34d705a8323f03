/* Compaction: a picture of the state machine at one index, synced and described, lets the log forget what came before. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "raftd/db/catalog_impl.h"
#include "raftd/ops/journal.h"

struct describe {
    struct rq_task task;
    struct rq_picture *picture;
    size_t i;
};

static void run_describe(struct rq_task *task)
{
    struct describe *d = (struct describe *)task;
    struct rq_picture *p = d->picture;
    struct rq_descriptor_database *out = &p->descriptor.databases[d->i];
    struct rq_database_known known;
    enum rq_err err = rq_database_describe(p->list[d->i], &known);
    if (err == RQ_OK) {
        (void)snprintf(out->name, sizeof out->name, "%s", rq_database_name(p->list[d->i]));
        out->id = rq_database_id(p->list[d->i]);
        out->version = known.version;
        out->file_made = known.file_made;
        out->origins = known.origins;
        pthread_mutex_lock(&p->n.lock);
        if (known.file_index > p->descriptor.index && known.file_index > p->descriptor.ahead) {
            p->descriptor.ahead = known.file_index;
        }
        pthread_mutex_unlock(&p->n.lock);
    } else if (err == RQ_BUSY) {
        struct rq_database_info info;
        rq_database_info(p->list[d->i], &info);
        pthread_mutex_lock(&p->n.lock);
        (void)snprintf(p->text, 512, "%.200s may need its entries once more, it is quarantined: %.255s",
                       rq_database_name(p->list[d->i]), info.message);
        pthread_mutex_unlock(&p->n.lock);
    }
    rq_countdown_one(&p->n, err);
}

void rq_catalog_describe(struct rq_picture *p)
{
    const uint32_t count = p->descriptor.database_count;
    p->parts = calloc(count + 1u, sizeof *p->parts);
    if (p->parts == NULL) {
        rq_fatal("no memory for a descriptor", RQ_NOMEM);
    }
    pthread_mutex_lock(&p->n.lock);
    p->n.left += count;
    pthread_mutex_unlock(&p->n.lock);
    for (uint32_t i = 0; i < count; i++) {
        p->parts[i] = (struct describe){ { .run = run_describe }, p, i };
        rq_database_post(p->list[i], &p->parts[i].task, RQ_CARRY);
    }
}

void rq_catalog_picture_fini(struct rq_picture *p)
{
    for (size_t i = 0; i < p->count; i++) {
        rq_database_unref(p->list[i]);
    }
    free(p->list);
    free(p->parts);
    rq_descriptor_fini(&p->descriptor);
}

static void run_picture(struct rq_task *task)
{
    struct rq_picture *p = (struct rq_picture *)task;
    struct rq_catalog *c = p->catalog;
    struct rq_node *node = rq_driver_node(c->driver);
    struct rq_descriptor *d = &p->descriptor;
    size_t count = 0;

    d->index = rq_driver_view(c->driver).delivered;
    d->term = rq_driver_term_at(c->driver, d->index);
    pthread_mutex_lock(&c->lock);
    const bool dropping = c->droppings != NULL;
    pthread_mutex_unlock(&c->lock);
    /* A descriptor past a DROP would leave nobody to move the files, should this process die first. */
    p->err = d->term == 0 || dropping ? RQ_BUSY
                                      : rq_node_configuration(node, d->index, &d->configuration,
                                                              &d->configuration_bytes, &d->configuration_index);
    if (p->err == RQ_OK) {
        p->err = rq_catalog_list(c, &p->list, &count);
    }
    for (size_t i = 0; p->err == RQ_OK && i < count; i++) {
        if (rq_database_waits(p->list[i])) { /* its part of the picture would take as long */
            p->err = RQ_BUSY;
        }
    }
    p->count = count;
    if (p->err == RQ_OK) {
        d->databases = calloc(count + 1, sizeof *d->databases);
        if (d->databases == NULL) {
            rq_fatal("no memory for a descriptor", RQ_NOMEM);
        }
        d->database_count = (uint32_t)count;
        rq_catalog_describe(p);
    }
    rq_countdown_one(&p->n, p->err);
}

struct compacted {
    struct rq_task task;
    struct rq_catalog *catalog;
    uint64_t index;    /* of the descriptor */
    uint64_t released; /* the log holds nothing up to here */
    struct rq_countdown n;
};

/* What is kept of the log below a descriptor, so that a member which was away for a while catches up by it. */
#define TRAILING_ENTRIES 10240u
#define TRAILING_BYTES   ((uint64_t)64 << 20) /* of log and bodies; well below what calls for a compaction */

static unsigned trailing_below(struct rq_catalog *c, uint64_t index)
{
    struct rq_node *node = rq_driver_node(c->driver);
    const struct rq_members *members = rq_node_members(node);
    struct rq_log_stats stats;
    if (members == NULL || members->count < 2) {
        return 0;
    }
    const uint64_t needed_from = rq_node_needed_from(node);
    uint64_t trailing = needed_from <= index ? index + 1 - needed_from : 0;
    if (trailing < TRAILING_ENTRIES) {
        trailing = TRAILING_ENTRIES;
    }
    rq_driver_log_stats(c->driver, &stats);
    const uint64_t bytes = stats.bytes + rq_shelf_named_bytes(c->shelf);
    if (bytes > TRAILING_BYTES && trailing > stats.held * TRAILING_BYTES / bytes) {
        trailing = stats.held * TRAILING_BYTES / bytes;
    }
    return trailing < index ? (unsigned)trailing : (unsigned)index;
}

static void run_compacted(struct rq_task *task)
{
    struct compacted *t = (struct compacted *)task;
    struct rq_catalog *c = t->catalog;
    const unsigned trailing = trailing_below(c, t->index);
    t->released = t->index - trailing;
    rq_countdown_one(&t->n, rq_node_compacted(rq_driver_node(c->driver), t->index, trailing));
}

/* The log forgets up to index; and the bodies that it named are deleted, here and not on the loop: a big one takes its time.  Other
 * members may still come for them. */
static enum rq_err release_log(struct rq_catalog *c, uint64_t index)
{
    struct compacted t = { .task = { .run = run_compacted }, .catalog = c, .index = index };
    rq_countdown_init(&t.n, 1);
    rq_strand_post(rq_driver_loop(c->driver), &t.task, RQ_HAND_OVER);
    enum rq_err err = rq_countdown_wait(c, &t.n);
    return err == RQ_OK ? rq_shelf_release(c->shelf, t.released, rq_catalog_is_alone(c) ? 0 : RQ_SHELF_LINGER_LOOKS)
                        : err;
}

enum rq_err rq_catalog_sync_replicas(struct rq_picture *p)
{
    enum rq_err err = RQ_OK;
    for (uint32_t i = 0; err == RQ_OK && i < p->descriptor.database_count; i++) {
        struct rq_replica *r = rq_database_hold(p->list[i]);
        if (r != NULL) {
            struct rq_database_info info;
            rq_database_info(p->list[i], &info);
            err = rq_replica_sync(r);
            if (err == RQ_OK && info.state == RQ_DB_LIVE && !rq_replica_is_named(r)) {
                err = RQ_BUSY; /* what was synced would not be found again; it is about to be mended */
            }
        }
        rq_database_release(p->list[i]);
    }
    return err;
}

static enum rq_err take_picture(struct rq_catalog *c, struct rq_picture *p, char text[512])
{
    *p = (struct rq_picture){ .task = { .run = run_picture }, .catalog = c, .text = text };
    text[0] = '\0';
    rq_countdown_init(&p->n, 1);
    rq_strand_post(rq_driver_loop(c->driver), &p->task, RQ_HAND_OVER);
    return rq_countdown_wait(c, &p->n);
}

enum rq_err rq_catalog_picture(struct rq_catalog *c, struct rq_descriptor *ret_picture, char text[512])
{
    struct rq_picture p;
    enum rq_err err = take_picture(c, &p, text);
    if (err == RQ_OK) {
        *ret_picture = p.descriptor;
        p.descriptor = (struct rq_descriptor){ 0 };
    }
    rq_catalog_picture_fini(&p);
    return err;
}

void rq_catalog_note_snapshot(struct rq_catalog *c, const struct rq_descriptor *d, bool now)
{
    struct timespec t = { 0 };
    if (now) {
        clock_gettime(CLOCK_REALTIME, &t);
    }
    pthread_mutex_lock(&c->lock);
    c->snapshot =
        (struct rq_catalog_snapshot){ d->index, d->term, (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u };
    pthread_mutex_unlock(&c->lock);
}

struct rq_catalog_snapshot rq_catalog_snapshot(struct rq_catalog *c)
{
    pthread_mutex_lock(&c->lock);
    const struct rq_catalog_snapshot snapshot = c->snapshot;
    pthread_mutex_unlock(&c->lock);
    return snapshot;
}

enum rq_err rq_catalog_compact(struct rq_catalog *c, char text[512])
{
    struct rq_picture p;
    if (pthread_mutex_trylock(&c->whole) != 0) {
        (void)snprintf(text, 512, "the databases are being fetched from another member");
        return RQ_BUSY;
    }
    enum rq_err err = take_picture(c, &p, text);
    if (err == RQ_OK) {
        err = rq_catalog_sync_replicas(&p);
    }
    if (err == RQ_OK) {
        err = rq_descriptor_write(c->config.disk, c->config.raft_dir, &p.descriptor);
    }
    if (err == RQ_OK) {
        err = release_log(c, p.descriptor.index);
    }
    if (err == RQ_OK) {
        atomic_store(&c->adopted, false);
        rq_catalog_note_snapshot(c, &p.descriptor, true);
    }
    pthread_mutex_unlock(&c->whole);
    rq_catalog_picture_fini(&p);
    return err;
}
