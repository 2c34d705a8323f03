#include "tests/support/raftd_rig.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/descriptor.h"
#include "raftd/db/identity.h"
#include "raftd/ops/journal.h"

static struct rig *running; /* whose code is on the stack */

/* --- the journal --------------------------------------------------------------------------------------------------------- */

void rq_journal_level(enum rq_level level)
{
    (void)level;
}

const char *rq_quote(char *out, size_t out_bytes, const char *s)
{
    (void)snprintf(out, out_bytes, "\"%s\"", s);
    return out;
}

void rq_note(enum rq_level level, const char *msg, const char *keys_format, ...)
{
    va_list args;
    (void)level;
    if (getenv("RQ_RIG_VERBOSE") == NULL) {
        return;
    }
    printf("# raftd%s: %s ", running != NULL && running->name != NULL ? running->name : "", msg);
    va_start(args, keys_format);
    (void)vprintf(keys_format, args);
    va_end(args);
    printf("\n");
}

static void end(bool refused, const char *what, enum rq_err err) __attribute__((noreturn));

static void end(bool refused, const char *what, enum rq_err err)
{
    struct rig *r = running;
    if (r == NULL) {
        printf("# raftd ends outside of rig_run: %s: %s\n", what, rq_err_text(err));
        abort();
    }
    rq_note(RQ_LEVEL_ERROR, what, "err=%s", rq_err_name(err));
    r->up = false;
    r->refused = refused;
    r->error = err;
    (void)snprintf(r->why, sizeof r->why, "%s", what);
    longjmp(r->end, 1);
}

void rq_fatal(const char *what, enum rq_err err)
{
    end(false, what, err);
}

/* --- start, in main.c's order -------------------------------------------------------------------------------------------- */

struct start {
    struct rig *rig;
    struct rq_identity identity;
    bool founding;
    struct rq_log_found found;
    struct rq_descriptor descriptor;
};

static void refuse_on(enum rq_err err, const char *what)
{
    if (err != RQ_OK) {
        end(true, what, err);
    }
}

static void make_dirs(struct rq_disk *disk)
{
    static const char *const dirs[] = { RIG_RAFT_DIR, RIG_STAGED_DIR, RIG_TRASH_DIR, RIG_HASHES_DIR };
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        enum rq_err err = disk->ops->mkdir(disk, dirs[i], 0700);
        refuse_on(err == RQ_EXISTS ? RQ_OK : err, dirs[i]);
    }
}

static enum rq_err put_name(void *ctx, const char *name)
{
    return rq_bytes_put(ctx, name, strlen(name) + 1);
}

static void wipe_log(struct rq_disk *disk)
{
    struct rq_bytes names;
    char path[512];
    rq_bytes_init(&names, 1u << 20);
    if (disk->ops->list(disk, RIG_RAFT_DIR "/log", put_name, &names) == RQ_OK) {
        for (size_t at = 0; at < names.size; at += strlen((char *)names.data + at) + 1) {
            (void)snprintf(path, sizeof path, RIG_RAFT_DIR "/log/%s", (char *)names.data + at);
            (void)disk->ops->unlink(disk, path);
        }
    }
    rq_bytes_fini(&names);
}

static void find_identity(struct start *s)
{
    struct rq_disk *disk = s->rig->disk;
    struct rq_file_info info;
    bool unfinished = disk->ops->stat(disk, RIG_RAFT_DIR "/founding", &info) == RQ_OK;
    enum rq_err err = rq_identity_read(disk, RIG_RAFT_DIR, &s->identity);
    if (err == RQ_OK && !unfinished) {
        return;
    }
    refuse_on(err == RQ_NOTFOUND ? RQ_OK : err, "raft/node");
    if (err == RQ_NOTFOUND && !unfinished && disk->ops->stat(disk, RIG_RAFT_DIR "/log", &info) == RQ_OK) {
        end(true, "a log without raft/node", RQ_NOTFOUND);
    }
    s->founding = true;
    err = rq_file_replace(disk, RIG_RAFT_DIR, "founding", "", 0);
    if (err == RQ_OK) {
        wipe_log(disk);
        static const char *const files[] = { "meta", "descriptor", "files", "node" };
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
            char path[64];
            (void)snprintf(path, sizeof path, RIG_RAFT_DIR "/%s", files[i]);
            (void)disk->ops->unlink(disk, path);
        }
        s->identity = (struct rq_identity){ 11, 12, "1", RQ_DATA_FORMAT };
        err = rq_identity_write(disk, RIG_RAFT_DIR, &s->identity);
    }
    if (err == RQ_OK) {
        err = disk->ops->sync_dir(disk, RIG_DIR);
    }
    refuse_on(err, "raft/ cannot be written");
}

static void open_log(struct start *s)
{
    struct rig *r = s->rig;
    struct rq_log_config config = {
        .disk = r->disk,
        .dir = RIG_RAFT_DIR,
        .instance = s->identity.instance,
        .segment_bytes = r->segment_bytes,
        .cache_bytes = r->cache_bytes,
        .create = s->founding,
        .first_index = 1,
    };
    enum rq_err err = rq_log_open(&config, &r->log, &s->found);
    if (err == RQ_OK && s->founding) {
        err = rq_node_found(r->log, &(struct rq_members){ .count = 1,
                                                          .list = { { .instance = s->identity.instance,
                                                                      .role = RQ_MEMBER_VOTER,
                                                                      .votes = true,
                                                                      .name = "1",
                                                                      .raft_addr = "localhost:4002",
                                                                      .http_addr = "localhost:4001" } } });
        if (err == RQ_OK) {
            rq_log_close(r->log);
            config.create = false;
            err = rq_log_open(&config, &r->log, &s->found);
        }
    }
    refuse_on(err, s->found.problem[0] != '\0' ? s->found.problem : "the log");
    err = rq_descriptor_read(r->disk, RIG_RAFT_DIR, &s->descriptor);
    if (err == RQ_NOTFOUND && s->found.first_index <= 1) {
        return;
    }
    refuse_on(err, "the descriptor");
    if (s->descriptor.index + 1 < s->found.first_index || s->descriptor.index > s->found.last_index) {
        end(true, "log and descriptor do not meet", RQ_CORRUPT);
    }
}

static void on_stir(void *ctx)
{
    (void)ctx;
}

static void start_node(struct start *s)
{
    struct rig *r = s->rig;
    refuse_on(rq_pool_new(0, "rig", &r->pool), "the pool");
    rq_pool_shuffle(r->pool, r->shuffle++);
    const struct rq_catalog_config catalog = {
        .disk = r->disk,
        .pool = r->pool,
        .dir = RIG_DIR,
        .raft_dir = RIG_RAFT_DIR,
        .staged_dir = RIG_STAGED_DIR,
        .trash_dir = RIG_TRASH_DIR,
        .hashes_dir = RIG_HASHES_DIR,
        .boot = 1 + r->boot,
        .http_addr = "localhost:4001",
        .stir = on_stir,
    };
    enum rq_err err = rq_catalog_new(&catalog, &r->catalog);
    refuse_on(err == RQ_OK ? rq_catalog_load(r->catalog, &s->descriptor) : err, "the catalog");
    const struct rq_node_machine machine = rq_catalog_machine(r->catalog);
    const struct rq_driver_config driver = {
        .pool = r->pool,
        .log = r->log,
        .node = { .id = s->identity.instance,
                  .address = "localhost:4002",
                  .seed = 1,
                  .election_timeout_ms = 1000,
                  .heartbeat_ms = 100,
                  .found = s->found,
                  .snapshot_index = s->descriptor.index,
                  .snapshot_term = s->descriptor.term,
                  .snapshot_configuration_index = s->descriptor.configuration_index,
                  .snapshot_configuration = s->descriptor.configuration,
                  .snapshot_configuration_bytes = s->descriptor.configuration_bytes },
        .machine = &machine,
    };
    refuse_on(rq_driver_new(&driver, &r->driver), "the node");
    rq_catalog_set_driver(r->catalog, r->driver);
    if (!rq_driver_wait_leads(r->driver, 0)) {
        end(true, "the only voter does not lead", RQ_AWAY);
    }
}

static void run_start(void *ctx)
{
    struct start *s = ctx;
    struct rq_disk *disk = s->rig->disk;
    char text[512] = "the databases do not catch up";
    make_dirs(disk);
    find_identity(s);
    open_log(s);
    start_node(s);
    refuse_on(rq_catalog_caught_up(s->rig->catalog, text), text);
    refuse_on(rq_catalog_sweep_bodies(s->rig->catalog), "the bodies");
    if (s->founding) {
        refuse_on(disk->ops->unlink(disk, RIG_RAFT_DIR "/founding"), "the end of founding");
        refuse_on(disk->ops->sync_dir(disk, RIG_RAFT_DIR), "the end of founding");
    }
    s->rig->up = true;
}

bool rig_start(struct rig *r)
{
    struct start start = { .rig = r };
    return rig_run(r, run_start, &start);
}

bool rig_run(struct rig *r, void (*work)(void *ctx), void *ctx)
{
    struct rig *const former = running;
    running = r;
    bool ended = setjmp(r->end) != 0;
    if (!ended) {
        work(ctx);
    }
    running = former;
    return !ended;
}

void rig_settle(struct rig *r)
{
    while (rq_pool_run_one(r->pool)) {
    }
}
