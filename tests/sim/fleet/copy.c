/* Databases of another member, as raftd/cluster/catchup.c fetches them, without its streams.  Each database is copied in one moment, but
 * time passes between them; and either side may die on the way.  Wrong pages of one are mended as there, on a thread. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/cluster/catchup.h"
#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/mend.h"
#include "raftd/db/descriptor.h"
#include "raftd/wire/txn.h"
#include "tests/sim/fleet/fleet.h"

enum { LOOK_MS = 250 };

struct rq_catchup {
    struct fleet_host *host;
    bool anew[FLEET_DATABASES]; /* its files are such that pages cannot be mended */
    uint64_t wanted, due_ms;
    bool copies; /* between begin and end */
    struct rq_descriptor picture;
    struct fleet_host *from;
    unsigned from_life, next;
};

/* --- a database of another host ------------------------------------------------------------------------------------------ */

/* All of it, at one moment. */
struct original {
    struct fleet_host *host;
    uint32_t id;
    struct rq_replica_state state;
    struct rq_origins origins;
    uint8_t pages[FLEET_PAGES][FLEET_PAGE];
    enum rq_err err;
};

struct describe_task {
    struct rq_task task;
    struct rq_database *db;
    struct rq_database_known known;
    enum rq_err err;
    bool done;
};

static void run_describe(struct rq_task *task)
{
    struct describe_task *t = (struct describe_task *)task;
    t->err = rq_database_describe(t->db, &t->known);
    t->done = true;
}

static void take_original(void *ctx)
{
    struct original *o = ctx;
    struct rq_database_info info;
    struct describe_task t = { .task = { .run = run_describe }, .db = host_database(o->host, o->id) };
    o->err = RQ_NOTFOUND;
    if (t.db == NULL) {
        return;
    }
    host_settle(o->host);
    if (host_stands_still(o->host)) {
        o->err = RQ_BUSY;
        rq_database_unref(t.db);
        return;
    }
    rq_strand_post(rq_database_strand(t.db), &t.task, RQ_HAND_OVER);
    while (!t.done) {
        (void)rq_pool_run_one(o->host->rig.pool);
    }
    o->err = t.err;
    rq_database_info(t.db, &info);
    if (t.err == RQ_OK) {
        struct rq_replica *r = rq_database_hold(t.db);
        if (r != NULL) {
            rq_replica_get_state(r, &o->state);
        }
        if (info.state == RQ_DB_QUARANTINED || o->state.version != t.known.version) {
            o->err = RQ_QUARANTINED; /* not to be copied */
        }
        for (uint32_t i = 0; r != NULL && o->err == RQ_OK && i < o->state.page_count; i++) {
            o->err = rq_replica_read(r, i + 1, o->pages[i]);
        }
        o->origins = t.known.origins;
        rq_database_release(t.db);
    }
    rq_database_unref(t.db);
    if (o->err == RQ_OK && o->state.version > 0 && !truth_is_sound(o->host, truth_database_of(o->id))) {
        o->err = RQ_BUSY; /* what is copied from one that is wrong is as wrong: docs/simulation.md */
    }
}

static enum rq_err tell_state(const struct original *o, struct rq_replica_state *ret_state,
                              struct rq_origins *ret_origins)
{
    *ret_state = o->state;
    const enum rq_err err = rq_origins_copy(&o->origins, ret_origins);
    for (uint64_t base = o->origins.first;
         err == RQ_OK && fleet_plant == FLEET_PLANT_OTHER_ORIGINS && base < o->origins.next; base++) {
        ret_origins->ring[base % ret_origins->capacity] = (struct rq_origin){ 1, base };
    }
    return err;
}

static enum rq_err on_open(void *ctx, uint32_t id, struct rq_replica_state *ret_state, struct rq_origins *ret_origins)
{
    struct original *o = ctx;
    o->id = id;
    if (!net_linked(fleet->current, o->host) || !host_run(o->host, take_original, o)) {
        return RQ_AWAY;
    }
    return o->err == RQ_OK ? tell_state(o, ret_state, ret_origins) : o->err;
}

/* It was held from the beginning on. */
static enum rq_err on_changed(void *ctx, bool hold, struct rq_copy_changed *ret_changed)
{
    (void)ctx, (void)hold;
    ret_changed->held = true;
    ret_changed->left = ret_changed->count = 0;
    return RQ_OK;
}

static enum rq_err on_held(void *ctx, struct rq_replica_state *ret_state, struct rq_origins *ret_origins)
{
    return tell_state(ctx, ret_state, ret_origins);
}

static enum rq_err on_hashes(void *ctx, uint32_t first, uint32_t count, uint64_t *ret_hashes)
{
    const struct original *o = ctx;
    for (uint32_t i = 0; i < count; i++) {
        ret_hashes[i] = rq_page_hash(o->pages[first - 1 + i], FLEET_PAGE);
    }
    return RQ_OK;
}

static enum rq_err on_pages(void *ctx, const uint32_t *pgnos, uint32_t count, uint32_t page_size, uint8_t *ret_pages)
{
    const struct original *o = ctx;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(ret_pages + (size_t)i * page_size, o->pages[pgnos[i] - 1], page_size);
        fleet_count(FLEET_pages_fetched);
    }
    return net_linked(fleet->current, o->host) ? RQ_OK : RQ_AWAY;
}

/* --- all of them --------------------------------------------------------------------------------------------------------- */

struct picturing {
    struct fleet_host *host;
    struct rq_descriptor *picture;
    enum rq_err err;
};

static void take_picture(void *ctx)
{
    struct picturing *p = ctx;
    char text[512];
    host_settle(p->host);
    p->err = host_stands_still(p->host) ? RQ_BUSY : rq_catalog_picture(p->host->rig.catalog, p->picture, text);
}

static void begin(struct rq_catchup *u)
{
    struct fleet_host *from = &fleet->hosts[fleet_below(fleet->host_count)];
    if (from == u->host || from->state != FLEET_READY || !host_works(from) || !net_linked(u->host, from) ||
        rq_driver_view(from->rig.driver).delivered < u->wanted) {
        return;
    }
    struct picturing p = { from, &u->picture, RQ_AWAY };
    if (!host_run(from, take_picture, &p) || p.err != RQ_OK) {
        return;
    }
    enum rq_err err = rq_catalog_install_begin(u->host->rig.catalog, &u->picture);
    fleet_trace("host %u installs %llu from host %u: %s", u->host->number, (unsigned long long)u->picture.index,
                from->number, rq_err_name(err));
    if (err != RQ_OK) {
        u->wanted = err == RQ_EXISTS ? 0 : u->wanted;
        rq_descriptor_fini(&u->picture);
        return;
    }
    u->from = from;
    u->from_life = from->life;
    u->copies = true;
    u->next = 0;
}

static void leave(struct rq_catchup *u, enum rq_err err)
{
    fleet_trace("host %u has installed %llu: %s", u->host->number, (unsigned long long)u->picture.index,
                rq_err_name(err));
    if (err == RQ_OK) {
        fleet_count(FLEET_installs);
    }
    if (err == RQ_OK && fleet->majority_is_lost && fleet->now_ms < fleet->calm_ms) {
        fleet->survivor = u->host; /* its databases may be newer than its log is now */
        fleet->calm_ms = fleet->now_ms;
    }
    u->host->committed = 0; /* what is delivered next is behind it, if the log did not come so far by itself */
    if (u->wanted <= u->picture.index && (err == RQ_OK || err == RQ_EXISTS)) {
        u->wanted = 0;
    }
    rq_descriptor_fini(&u->picture);
    u->copies = false;
}

static void go_on(struct rq_catchup *u)
{
    struct rq_catalog *catalog = u->host->rig.catalog;
    if (u->next == u->picture.database_count) {
        leave(u, rq_catalog_install_end(catalog, &u->picture));
        return;
    }
    struct rq_copy_count count = { 0 };
    struct original o = { .host = u->from };
    const struct rq_copy_source source = { &o, on_open, on_hashes, on_pages, on_changed, on_held };
    struct rq_database *db = rq_catalog_find_id(catalog, u->picture.databases[u->next++].id);
    enum rq_err err = u->from->life == u->from_life ? RQ_OK : RQ_AWAY;
    if (db != NULL && err == RQ_OK && fleet_plant != FLEET_PLANT_EMPTY_INSTALL) {
        err = rq_database_install(db, &source, false, &count);
    }
    if (db != NULL) {
        rq_database_unref(db);
    }
    rq_origins_fini(&o.origins);
    if (err != RQ_OK) {
        rq_catalog_install_abandon(catalog);
        leave(u, err);
    }
}

/* A database that is fenced, from any other host. */
static void make_anew(struct rq_catchup *u, unsigned database)
{
    struct rq_copy_count count = { 0 };
    struct rq_database *db = host_database(u->host, fleet->truth[database].id);
    struct original o = { .host = &fleet->hosts[fleet_below(fleet->host_count)] };
    const struct rq_copy_source source = { &o, on_open, on_hashes, on_pages, on_changed, on_held };
    if (db != NULL && o.host != u->host && o.host->state == FLEET_READY && host_works(o.host)) {
        const enum rq_err err = rq_database_install(db, &source, true, &count);
        fleet_trace("host %u makes a database anew from host %u: %s", u->host->number, o.host->number,
                    rq_err_name(err));
        if (err == RQ_OK) {
            u->anew[database] = false;
            truth_mended(u->host, fleet->truth[database].id);
            fleet_count(FLEET_made_anew);
        }
    }
    rq_origins_fini(&o.origins);
    if (db != NULL) {
        rq_database_unref(db);
    }
}

static bool is_quarantined(struct rq_database *db)
{
    struct rq_database_info info;
    rq_database_info(db, &info);
    return info.state == RQ_DB_QUARANTINED;
}

static void mend(struct rq_catchup *u, unsigned database)
{
    struct rq_database *db = host_database(u->host, fleet->truth[database].id);
    uint64_t compared, mended;
    if (db == NULL) {
        return;
    }
    if (is_quarantined(db)) {
        u->host->mends = true;
        const enum rq_err err = rq_mend(u->host->cluster, db, &compared, &mended);
        u->host->mends = u->host->mends_now = false;
        fleet_trace("host %u mends %s: %s, %llu pages", u->host->number, fleet_database_names[database],
                    rq_err_name(err), (unsigned long long)mended);
        u->anew[database] = err == RQ_NOTFOUND;
        fleet_count(err == RQ_OK ? FLEET_mended : FLEET_mended_later);
    } else {
        u->anew[database] = false;
    }
    rq_database_unref(db);
}

/* As catchup.c: whoever has to be brought up to date is that first. */
static void *mending_thread(void *arg)
{
    struct rq_catchup *u = arg;
    for (;;) {
        nanosleep(&(struct timespec){ .tv_nsec = LOOK_MS * 1000000l }, NULL);
        for (unsigned i = 0; i < FLEET_DATABASES; i++) {
            if (u->host->state == FLEET_READY && u->wanted == 0 && !u->copies) {
                mend(u, i);
            }
        }
    }
    return NULL;
}

static void tick(void *ctx)
{
    struct rq_catchup *u = ctx;
    u->due_ms = fleet->now_ms + 1 + fleet_below(60);
    host_settle(u->host);
    if (host_stands_still(u->host)) {
        return;
    }
    for (unsigned i = 0; u->host->state == FLEET_READY && !u->copies && i < FLEET_DATABASES; i++) {
        if (u->anew[i]) {
            make_anew(u, i);
        }
    }
    if (u->wanted == 0 && !u->copies) {
        return;
    }
    if (u->copies) {
        go_on(u);
    } else if (rq_driver_view(u->host->rig.driver).delivered >= u->wanted) {
        u->wanted = 0;
    } else {
        begin(u);
    }
}

void copy_tick(struct fleet_host *h)
{
    struct rq_catchup *u = h->catchup;
    if (u != NULL && fleet->now_ms >= u->due_ms) {
        (void)host_run(h, tick, u);
    }
}

/* --- in place of raftd/cluster/catchup.c and copy_source.c ---------------------------------------------------------------------- */

enum rq_err rq_catchup_new(struct rq_cluster *c, struct rq_catchup **ret_catchup)
{
    pthread_t thread;
    struct rq_catchup *u = calloc(1, sizeof *u);
    (void)c;
    u->host = fleet->current;
    u->host->catchup = u;
    *ret_catchup = u;
    return pthread_create(&thread, NULL, mending_thread, u) == 0 ? RQ_OK : RQ_NOMEM;
}

void rq_catchup_wanted(struct rq_catchup *u, uint64_t index)
{
    u->wanted = index;
}

bool rq_catchup_is_wanted(struct rq_catchup *u)
{
    return u->wanted != 0;
}

/* There are no streams here. */
enum rq_err rq_cluster_asked_copy(struct rq_cluster *c, struct rq_stream *stream, const struct rq_stream_ops **ret_ops,
                                  void **ret_ctx)
{
    (void)c, (void)stream, (void)ret_ops, (void)ret_ctx;
    return RQ_UNREADY;
}
