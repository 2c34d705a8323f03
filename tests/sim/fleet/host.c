/* One raftd of the fleet: started in main.c's order, on a disk of its own. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/survivor.h"
#include "raftd/db/stamps.h"
#include "raftd/node/core.h"
#include "raftd/ops/journal.h"
#include "tests/sim/fleet/fleet.h"
#include "tests/support/seeded.h"

#define COPIES_DIR RIG_RAFT_DIR "/copies"

enum {
    CLUSTER = 4711,
    SEGMENT_BYTES = 64 * 1024,
    CACHE_BYTES = 32 * 1024,
    TASKS_AT_ONCE = 2000,
    SLOW_TASKS = 3,
    SCRUB_MS = 1000,
};

void host_init(struct fleet_host *h, unsigned number)
{
    *h = (struct fleet_host){ .fleet = fleet, .number = number, .instance = 100 + number };
    h->key[0] = (uint8_t)(number + 1);
    snprintf(h->name, sizeof h->name, "n%u", number);
    snprintf(h->raft_address, sizeof h->raft_address, "host%u:4002", number);
    snprintf(h->http_address, sizeof h->http_address, "host%u:4001", number);
    h->disk = record_disk_new();
    record_disk_mkdir_p(h->disk, RIG_DIR);
    h->rig = (struct rig){
        .name = h->name,
        .segment_bytes = SEGMENT_BYTES,
        .cache_bytes = CACHE_BYTES,
        .shuffle = seeded_next(&fleet->random),
    };
    h->restart_at = fleet->now_ms + fleet_below(number < fleet->voter_count ? 30 : 3000);
}

bool host_works(const struct fleet_host *h)
{
    return h->state != FLEET_DEAD && fleet->now_ms >= h->paused_until;
}

/* In this life. */
bool host_disk_failed(const struct fleet_host *h)
{
    return h->disk->stopped || (h->disk->fail_sync != 0 && h->disk->syncs >= h->disk->fail_sync);
}

bool host_run(struct fleet_host *h, void (*work)(void *ctx), void *ctx)
{
    struct fleet_host *former = fleet->current;
    if (h->state == FLEET_DEAD) {
        return false;
    }
    fleet->current = h;
    const bool lives = rig_run(&h->rig, work, ctx);
    fleet->current = former;
    if (!lives) {
        if (!host_disk_failed(h) || h->rig.error != RQ_IO) {
            fleet_fail("host %u ends: %s: %s", h->number, h->rig.why, rq_err_name(h->rig.error));
        }
        fleet_count(FLEET_deaths_in_a_disk_call);
        host_die(h, fleet_chance(500));
    }
    return lives;
}

struct rq_database *host_database(const struct fleet_host *h, uint32_t id)
{
    return h->rig.catalog != NULL ? rq_catalog_find_id(h->rig.catalog, id) : NULL;
}

void host_settle(struct fleet_host *h)
{
    while (rq_pool_run_one(h->rig.pool)) {
    }
}

/* Who waits for all databases then waits for that one first, which outside of threads.c would be for ever. */
bool host_stands_still(const struct fleet_host *h)
{
    bool waits = h->mends_now;
    for (unsigned i = 0; i < FLEET_DATABASES; i++) {
        struct rq_database *db = host_database(h, fleet->truth[i].id);
        if (db != NULL) {
            waits = waits || rq_database_waits(db);
            rq_database_unref(db);
        }
    }
    return waits;
}

/* --- start --------------------------------------------------------------------------------------------------------------- */

struct start {
    struct fleet_host *host;
    struct rq_log_found found;
    struct rq_descriptor descriptor;
};

static void must(enum rq_err err, const char *what)
{
    if (err != RQ_OK) {
        rq_fatal(what, err);
    }
}

static void make_dirs(struct rq_disk *disk)
{
    static const char *const dirs[] = { RIG_RAFT_DIR, RIG_STAGED_DIR, RIG_TRASH_DIR, RIG_HASHES_DIR, COPIES_DIR };
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        enum rq_err err = disk->ops->mkdir(disk, dirs[i], 0700);
        must(err == RQ_EXISTS ? RQ_OK : err, dirs[i]);
    }
    must(disk->ops->sync_dir(disk, RIG_DIR), RIG_DIR);
    must(disk->ops->sync_dir(disk, RIG_RAFT_DIR), RIG_RAFT_DIR);
}

static enum rq_err found_cluster(struct fleet_host *h)
{
    struct rq_members members = { .count = fleet->host_count };
    for (unsigned i = 0; i < members.count; i++) {
        const struct fleet_host *other = &fleet->hosts[i];
        struct rq_member *m = &members.list[i];
        *m = (struct rq_member){ .instance = other->instance, .votes = true };
        m->role = i < fleet->voter_count ? RQ_MEMBER_VOTER : RQ_MEMBER_STANDBY;
        snprintf(m->name, sizeof m->name, "%s", other->name);
        snprintf(m->raft_addr, sizeof m->raft_addr, "%s", other->raft_address);
        snprintf(m->http_addr, sizeof m->http_addr, "%s", other->http_address);
        memcpy(m->key, other->key, sizeof m->key);
    }
    return rq_node_found(h->rig.log, &members);
}

static void open_log(struct start *s)
{
    struct fleet_host *h = s->host;
    struct rq_log_config config = {
        .disk = h->rig.disk,
        .dir = RIG_RAFT_DIR,
        .instance = h->instance,
        .segment_bytes = SEGMENT_BYTES,
        .cache_bytes = CACHE_BYTES,
        .create = !h->founded,
        .first_index = 1,
    };
    enum rq_err err = rq_log_open(&config, &h->rig.log, &s->found);
    if (err == RQ_OK && !h->founded) {
        err = found_cluster(h);
        rq_log_close(h->rig.log);
        config.create = false;
        err = err == RQ_OK ? rq_log_open(&config, &h->rig.log, &s->found) : err;
        h->founded = err == RQ_OK;
    }
    must(err, s->found.problem[0] != '\0' ? s->found.problem : "the log");
    err = rq_descriptor_read(h->rig.disk, RIG_RAFT_DIR, &s->descriptor);
    if (err == RQ_NOTFOUND && s->found.first_index <= 1) {
        return;
    }
    must(err, "the descriptor");
    if (s->descriptor.index + 1 < s->found.first_index ||
        (s->descriptor.index > s->found.last_index && !s->descriptor.installed)) {
        rq_fatal("log and descriptor do not meet", RQ_CORRUPT);
    }
}

/* As main.c does with peers.json.  One that has databases in part, or lacks a body, lets another one go on; then there is no disaster at
 * all. */
static bool recover(struct start *s)
{
    struct fleet_host *h = s->host;
    struct rq_file_info info;
    struct rq_member self;
    char text[512];
    const struct rq_survivor survivor = { h->rig.disk, RIG_DIR,        RIG_STAGED_DIR,
                                          h->rig.log,  &s->descriptor, h->newest_stamp };
    struct rq_node_config node = { .found = s->found,
                                   .snapshot_index = s->descriptor.index,
                                   .snapshot_term = s->descriptor.term,
                                   .snapshot_installed = s->descriptor.installed };
    const bool fetching = h->rig.disk->ops->stat(h->rig.disk, RIG_RAFT_DIR "/fetching", &info) == RQ_OK;
    if (fetching || rq_survivor_check(&survivor, text) != RQ_OK) {
        fleet_trace("host %u does not go on alone: %s", h->number, fetching ? "fetching" : text);
        fleet_count(FLEET_recoveries_refused);
        return false;
    }
    const bool given_up = s->descriptor.installed &&
                          rq_log_term_at(h->rig.log, s->descriptor.index) != s->descriptor.term &&
                          s->found.first_index != s->descriptor.index + 1;
    if (!h->recovered && fleet_plant != FLEET_PLANT_TWO_RECOVER) {
        truth_cut(h, s->descriptor.index, given_up ? s->descriptor.index : s->found.last_index);
    }
    rq_cluster_self(h->cluster, &self);
    self.role = RQ_MEMBER_VOTER;
    must(rq_node_recover(h->rig.log, &node, &self), "the recovery");
    s->found = node.found;
    fleet_count(FLEET_recoveries);
    return true;
}

static void on_stir(void *ctx)
{
    (void)ctx; /* the background thread looks when it likes, here */
}

static void on_committed(void *ctx, const struct rq_log_entry *e)
{
    struct fleet_host *h = ctx;
    truth_delivered(h, e);
    h->mends_now = h->mends_now || (h->mends && e->type == RQ_ENTRY_MARK);
    h->machine.committed(h->machine.ctx, e);
}

static void on_role(void *ctx, bool leads, uint64_t term, uint64_t leader_id)
{
    struct fleet_host *h = ctx;
    fleet_trace("host %u: leads %d, term %" PRIu64 ", leader %" PRIu64, h->number, leads, term, leader_id);
    h->machine.role(h->machine.ctx, leads, term, leader_id);
}

static void open_cluster(struct fleet_host *h)
{
    char text[RQ_TEXT_MAX + 1];
    const struct rq_cluster_config config = {
        .cluster = h->recovered ? CLUSTER + 1 + h->number : CLUSTER,
        .instance = h->instance,
        .node_name = h->name,
        .listen_address = h->raft_address,
        .raft_address = h->raft_address,
        .http_address = h->http_address,
        .version = "0",
        .api_url = h->http_address,
        .votes = true,
        .key = (struct rq_node_key *)h->key,
        .compare_every_ms = fleet->compare_every_ms,
    };
    must(rq_cluster_new(&config, &h->cluster, text), "the cluster");
}

static void open_catalog(struct start *s)
{
    struct fleet_host *h = s->host;
    char text[512] = "";
    const struct rq_catalog_config config = {
        .disk = h->rig.disk,
        .pool = h->rig.pool,
        .dir = RIG_DIR,
        .raft_dir = RIG_RAFT_DIR,
        .staged_dir = RIG_STAGED_DIR,
        .trash_dir = RIG_TRASH_DIR,
        .hashes_dir = RIG_HASHES_DIR,
        .copies_dir = COPIES_DIR,
        .boot = 1 + h->rig.boot,
        .http_addr = h->http_address,
        .stir = on_stir,
        .turns = rq_cluster_turn_door(h->cluster),
        .marked = rq_cluster_marked,
        .disputed = rq_cluster_disputed,
        .marked_ctx = h->cluster,
    };
    must(rq_catalog_new(&config, &h->rig.catalog), "the catalog");
    must(rq_stamps_check(h->rig.disk, RIG_DIR, h->rig.catalog, &s->descriptor, h->rig.log,
                         rq_catalog_is_fetching(h->rig.catalog), &h->newest_stamp, text),
         text);
}

static void load_databases(struct start *s)
{
    struct fleet_host *h = s->host;
    const struct rq_carrier *carrier;
    must(rq_cluster_carry_bodies(h->cluster, h->rig.disk, RIG_STAGED_DIR, rq_catalog_shelf(h->rig.catalog), &carrier),
         "the bodies");
    rq_catalog_set_carrier(h->rig.catalog, carrier);
    must(rq_catalog_load(h->rig.catalog, &s->descriptor), "the databases");
}

static void start_node(struct start *s)
{
    struct fleet_host *h = s->host;
    h->machine = rq_catalog_machine(h->rig.catalog);
    const struct rq_node_machine machine = { .ctx = h, .committed = on_committed, .role = on_role };
    const struct rq_driver_config config = {
        .pool = h->rig.pool,
        .log = h->rig.log,
        .node = { .id = h->instance,
                  .address = h->raft_address,
                  .seed = seeded_next(&fleet->random),
                  .election_timeout_ms = RQ_NODE_ELECTION_MS,
                  .heartbeat_ms = RQ_NODE_HEARTBEAT_MS,
                  .found = s->found,
                  .snapshot_index = s->descriptor.index,
                  .snapshot_term = s->descriptor.term,
                  .snapshot_configuration_index = s->descriptor.configuration_index,
                  .snapshot_configuration = s->descriptor.configuration,
                  .snapshot_configuration_bytes = s->descriptor.configuration_bytes,
                  .snapshot_installed = s->descriptor.installed },
        .machine = &machine,
        .forward = rq_cluster_forward(h->cluster),
    };
    rq_cluster_set_log(h->cluster, h->rig.log);
    must(rq_driver_new(&config, &h->rig.driver), "the node");
    rq_catalog_set_driver(h->rig.catalog, h->rig.driver);
    must(rq_cluster_start(h->cluster, h->rig.driver, h->rig.catalog), "the start of the cluster");
}

static void start(void *ctx)
{
    struct start *s = ctx;
    struct fleet_host *h = s->host;
    make_dirs(h->rig.disk);
    must(rq_pool_new(0, h->name, &h->rig.pool), "the pool");
    rq_pool_shuffle(h->rig.pool, h->rig.shuffle++);
    open_cluster(h);
    open_log(s);
    open_catalog(s);
    if (h->recovers) {
        h->recovered = recover(s);
        h->recovers = false;
        for (unsigned i = 0; !h->recovered && i < fleet->host_count; i++) {
            fleet->hosts[i].absent = false;
            fleet->hosts[i].restart_at = fleet->now_ms;
        }
        rq_cluster_is(h->cluster, h->recovered ? CLUSTER + 1 + h->number : CLUSTER, NULL);
    }
    load_databases(s);
    start_node(s);
}

void host_start(struct fleet_host *h)
{
    struct start s = { .host = h };
    fleet_trace("host %u starts", h->number);
    fleet_count(FLEET_starts);
    record_disk_start(h->disk);
    h->rig.disk = mount_new(h->disk);
    record_disk_fail_sync(h->disk, 0);
    plant_disk(h);
    h->restart_at = FLEET_NEVER;
    h->state = FLEET_STARTS;
    h->life++;
    h->rig.up = true;
    h->compact_at = fleet->now_ms + 20 + fleet_below(400);
    h->tend_at = fleet->now_ms + fleet_below(200);
    h->scrub = (struct rq_scrub){ .every_ms = SCRUB_MS };
    if (fleet->now_ms < fleet->calm_ms && h->life > 1 && fleet_chance(100)) {
        record_disk_stop_at(h->disk, 1 + fleet_below(12));
    }
    (void)host_run(h, start, &s);
    rq_descriptor_fini(&s.descriptor);
}

/* Has it what was committed when it heard of a leader?  Then it catches up, and opens its doors. */
static void await_cluster(void *ctx)
{
    struct fleet_host *h = ctx;
    char text[512] = "";
    host_settle(h);
    if (host_stands_still(h)) {
        return;
    }
    const bool started = rq_cluster_is_alone(h->cluster) ? rq_driver_view(h->rig.driver).leads
                                                         : rq_driver_wait_started(h->rig.driver, h->newest_stamp, 0);
    if (started) {
        must(rq_catalog_caught_up(h->rig.catalog, text), text);
        must(rq_catalog_sweep_bodies(h->rig.catalog), "the sweep of bodies");
        h->state = FLEET_READY;
        fleet_trace("host %u is ready", h->number);
    }
}

/* --- death ---------------------------------------------------------------------------------------------------------------- */

/* What it was is left as it is, as the memory of a dead process. */
void host_die(struct fleet_host *h, bool power_loss)
{
    fleet_trace("host %u dies of %s", h->number, power_loss ? "power loss" : "a crash");
    fleet_count(power_loss ? FLEET_power_losses : FLEET_process_crashes);
    if (power_loss) {
        record_disk_power_loss(h->disk, seeded_next(&fleet->random));
        memset(h->applied, 0, sizeof h->applied);
        h->rig.boot++;
    } else {
        record_disk_crash(h->disk);
    }
    h->state = FLEET_DEAD;
    h->rig.up = false;
    threads_end(h);
    h->mends = h->mends_now = false;
    h->rig.catalog = NULL;
    h->rig.driver = NULL;
    h->peers = NULL;
    h->bodies = NULL;
    h->catchup = NULL;
    h->committed = 0;
    h->paused_until = 0;
    h->restart_at = fleet->now_ms + 5 + fleet_below(fleet_chance(300) ? 2500 : 600);
    for (unsigned i = 0; i < fleet->app_count; i++) {
        if (fleet->apps[i].host == h) {
            app_host_gone(&fleet->apps[i], power_loss);
        }
    }
}

/* --- background ----------------------------------------------------------------------------------------------------------- */

static void compact(void *ctx)
{
    struct fleet_host *h = ctx;
    char text[512];
    host_settle(h);
    if (host_stands_still(h)) {
        return;
    }
    enum rq_err err = rq_catalog_compact(h->rig.catalog, text);
    if (err == RQ_OK) {
        fleet_count(FLEET_compactions);
    } else if (err == RQ_IO) {
        rq_fatal("the log could not be compacted", err);
    } else if (err != RQ_BUSY && err != RQ_AWAY) {
        fleet_fail("host %u does not compact: %s: %s", h->number, rq_err_name(err), text);
    }
}

static void tend(void *ctx)
{
    struct fleet_host *h = ctx;
    struct rq_database *db = host_database(h, fleet->truth[fleet_below(FLEET_DATABASES)].id);
    enum rq_err err = rq_driver_prepare_log(h->rig.driver);
    uint64_t due = FLEET_NEVER;
    if (db != NULL) {
        struct rq_database_info info;
        rq_database_info(db, &info);
        struct rq_replica *r = rq_database_hold(db);
        r = info.state != RQ_DB_QUARANTINED ? r : NULL;
        if (r != NULL && err == RQ_OK) {
            err = rq_replica_backfill(r);
        }
        if (r != NULL && err == RQ_OK && fleet_chance(500)) {
            err = rq_replica_reset(r);
        }
        rq_database_release(db);
        rq_database_sweep(db);
        rq_database_unref(db);
    }
    if (err != RQ_OK && err != RQ_BUSY && err != RQ_FULL) { /* as in background.c: who needs the space says so */
        rq_fatal("background work", err);
    }
    rq_scrub_step(&h->scrub, h->rig.catalog, fleet->now_ms, &due);
}

static void work(void *ctx)
{
    struct fleet_host *h = ctx;
    rq_driver_timer(h->rig.driver);
    const unsigned most = h->slow ? fleet_below(SLOW_TASKS) : TASKS_AT_ONCE;
    for (unsigned i = 0; i < most && rq_pool_run_one(h->rig.pool); i++) {
    }
}

void host_tick(struct fleet_host *h)
{
    if (h->state == FLEET_DEAD) {
        if (fleet->now_ms >= h->restart_at) {
            host_start(h);
        }
        return;
    }
    if (!host_works(h)) {
        return;
    }
    net_deliver(h);
    net_tick(h);
    bodies_tick(h);
    copy_tick(h);
    threads_tick(h);
    (void)host_run(h, work, h);
    if (h->state == FLEET_STARTS) {
        (void)host_run(h, await_cluster, h);
    }
    if (h->state == FLEET_READY && fleet->now_ms >= h->compact_at) {
        h->compact_at = fleet->now_ms + 50 + fleet_below(800);
        (void)host_run(h, compact, h);
    }
    if (h->state == FLEET_READY && fleet->now_ms >= h->tend_at) {
        h->tend_at = fleet->now_ms + 20 + fleet_below(300);
        (void)host_run(h, tend, h);
    }
    truth_look(h);
}

/* --- an operator ------------------------------------------------------------------------------------------------------------ */

struct transfer {
    struct rq_task task;
    struct fleet_host *host;
};

static void transferred(void *ctx, enum rq_err err)
{
    const struct fleet_host *h = ctx;
    fleet_trace("host %u has handed over: %s", h->number, rq_err_name(err));
    fleet_count(FLEET_transfers);
}

static void run_transfer(struct rq_task *task)
{
    struct transfer *t = (struct transfer *)task;
    (void)rq_node_transfer(rq_driver_node(t->host->rig.driver), 0, transferred, t->host);
    free(t);
}

static void transfer(void *ctx)
{
    struct fleet_host *h = ctx;
    struct transfer *t = malloc(sizeof *t);
    *t = (struct transfer){ { .run = run_transfer }, h };
    rq_strand_post(rq_driver_loop(h->rig.driver), &t->task, RQ_HAND_OVER);
}

void host_transfer(struct fleet_host *h)
{
    (void)host_run(h, transfer, h);
}

struct removal {
    struct rq_task task;
    struct fleet_host *host;
    uint64_t instance;
};

static void removed(void *ctx, enum rq_err err)
{
    const struct fleet_host *h = ctx;
    fleet_trace("host %u has removed a member: %s", h->number, rq_err_name(err));
}

static void run_remove(struct rq_task *task)
{
    struct removal *r = (struct removal *)task;
    (void)rq_node_remove(rq_driver_node(r->host->rig.driver), r->instance, removed, r->host);
    free(r);
}

static void post_removal(void *ctx)
{
    struct removal *r = ctx;
    rq_strand_post(rq_driver_loop(r->host->rig.driver), &r->task, RQ_HAND_OVER);
}

void host_remove(struct fleet_host *h, uint64_t instance)
{
    struct removal *r = malloc(sizeof *r);
    *r = (struct removal){ { .run = run_remove }, h, instance };
    (void)host_run(h, post_removal, r);
}

struct leading {
    struct rq_task task;
    struct fleet_host *host;
    struct rq_members *members;
    bool committed, done;
};

static void run_leading(struct rq_task *task)
{
    struct leading *l = (struct leading *)task;
    struct rq_node *node = rq_driver_node(l->host->rig.driver);
    *l->members = *rq_node_members(node);
    l->committed = rq_node_leads(node) && rq_node_core(node)->raft.configuration_uncommitted_index == 0;
    l->done = true;
}

static void ask_leading(void *ctx)
{
    struct leading *l = ctx;
    rq_strand_post(rq_driver_loop(l->host->rig.driver), &l->task, RQ_HAND_OVER);
    while (!l->done) {
        (void)rq_pool_run_one(l->host->rig.pool);
    }
}

bool host_leads_voters(struct fleet_host *h, struct rq_members *ret_members)
{
    struct leading l = { .task = { .run = run_leading }, .host = h, .members = ret_members };
    return h->state == FLEET_READY && host_works(h) && rq_driver_view(h->rig.driver).leads &&
           host_run(h, ask_leading, &l) && l.committed;
}
