#include "tests/support/one_host.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "raftd/db/background.h"
#include "raftd/db/descriptor.h"
#include "raftd/db/driver.h"
#include "raftd/db/identity.h"
#include "raftd/node/node.h"

#define POOL_THREADS 4

struct one_host {
    char dir[300], raft_dir[320], staged_dir[340], trash_dir[340];
    struct rq_pool *pool;
    struct rq_log *log;
    struct rq_background *background;
    struct rq_catalog *catalog;
    struct rq_driver *driver;
};

static void must(enum rq_err err, const char *what)
{
    if (err != RQ_OK) {
        fprintf(stderr, "one host: %s: %s\n", what, rq_err_text(err));
        abort();
    }
}

static void open_log(struct one_host *h, struct rq_log_found *found)
{
    struct rq_log_config config = {
        .disk = rq_disk_real(), .dir = h->raft_dir, .instance = 1, .create = true, .first_index = 1
    };
    must(rq_log_open(&config, &h->log, found), "log");
    must(rq_node_found(h->log, &(struct rq_members){ .count = 1,
                                                     .list = { { .instance = 1,
                                                                 .role = RQ_MEMBER_VOTER,
                                                                 .votes = true,
                                                                 .name = "1",
                                                                 .raft_addr = "127.0.0.1:1",
                                                                 .http_addr = "127.0.0.1:2" } } }),
         "found");
    rq_log_close(h->log);
    config.create = false;
    must(rq_log_open(&config, &h->log, found), "log again");
}

struct one_host *one_host_new(const char *dir)
{
    struct one_host *h = calloc(1, sizeof *h);
    struct rq_descriptor descriptor = { 0 };
    struct rq_log_found found;
    snprintf(h->dir, sizeof h->dir, "%s", dir);
    snprintf(h->raft_dir, sizeof h->raft_dir, "%s/raft", h->dir);
    snprintf(h->staged_dir, sizeof h->staged_dir, "%s/staged", h->raft_dir);
    snprintf(h->trash_dir, sizeof h->trash_dir, "%s/trash", h->raft_dir);
    mkdir(h->dir, 0700);
    mkdir(h->raft_dir, 0700);
    mkdir(h->staged_dir, 0700);
    mkdir(h->trash_dir, 0700);
    const struct rq_identity identity = { .instance = 1, .cluster = 1, .format = RQ_DATA_FORMAT };
    must(rq_identity_write(rq_disk_real(), h->raft_dir, &identity), "identity");
    open_log(h, &found);
    must(rq_pool_new(POOL_THREADS, "pool", &h->pool), "pool");
    const struct rq_background_config background = { .compact_entries = 8192,
                                                     .compact_every_ms = 30000,
                                                     .compact_bytes = 128u << 20 };
    must(rq_background_new(&background, &h->background), "background");
    const struct rq_catalog_config catalog = {
        .disk = rq_disk_real(),
        .pool = h->pool,
        .dir = h->dir,
        .raft_dir = h->raft_dir,
        .staged_dir = h->staged_dir,
        .trash_dir = h->trash_dir,
        .boot = rq_boot_id(),
        .http_addr = "localhost:4001",
        .stir = rq_background_stir,
        .stir_ctx = h->background,
    };
    must(rq_catalog_new(&catalog, &h->catalog), "catalog");
    must(rq_catalog_load(h->catalog, &descriptor), "load");
    const struct rq_node_machine machine = rq_catalog_machine(h->catalog);
    const struct rq_driver_config driver = {
        .pool = h->pool,
        .log = h->log,
        .node = { .id = 1,
                  .address = "127.0.0.1:1",
                  .seed = 1,
                  .election_timeout_ms = 1000,
                  .heartbeat_ms = 100,
                  .found = found },
        .machine = &machine,
    };
    must(rq_driver_new(&driver, &h->driver), "driver");
    rq_catalog_set_driver(h->catalog, h->driver);
    must(rq_driver_wait_leads(h->driver, 10000) ? RQ_OK : RQ_AWAY, "lead");
    char text[512];
    must(rq_catalog_caught_up(h->catalog, text), "catch up");
    must(rq_background_start(h->background, h->catalog, h->driver), "background thread");
    return h;
}

void one_host_free(struct one_host *h)
{
    rq_background_stop(h->background);
    /* Node and catalog have no end, as raftd has none but that of its process: they keep log and pool. */
    free(h);
}

struct created {
    struct rq_request request; /* first */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct rq_database *db;
};

static void on_created(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    struct created *c = (struct created *)r;
    must(err, "create");
    pthread_mutex_lock(&c->lock);
    c->db = rq_database_ref(db);
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

struct rq_database *one_host_create(struct one_host *h, const char *name)
{
    struct created c = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };
    c.request.done = on_created;
    rq_catalog_create(h->catalog, name, strlen(name), &c.request);
    pthread_mutex_lock(&c.lock);
    while (c.db == NULL) {
        pthread_cond_wait(&c.wake, &c.lock);
    }
    pthread_mutex_unlock(&c.lock);
    return c.db;
}

void one_host_log_stats(struct one_host *h, struct rq_log_stats *ret_stats)
{
    rq_driver_log_stats(h->driver, ret_stats);
}
