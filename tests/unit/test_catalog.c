/* Catalog: what a drop leaves, when; and whom a quarantined database holds up. */
#include <stdlib.h>

#include "raftd/db/descriptor.h"
#include "raftd/db/shelf.h"
#include "raftd/db/staged.h"
#include "tests/support/fault_disk.h"
#include "tests/support/raftd_model.h"
#include "tests/support/record_disk.h"
#include "tests/support/tap.h"

static struct life {
    struct record_disk *disk;
    struct fault_disk above;
    struct rig rig;
    struct raftd_model model;
} l;

static struct model_name *const a = &l.model.names[0], *const b = &l.model.names[1];

static bool hears(struct raftd_model *m)
{
    (void)m;
    return l.disk->stopped || l.disk->off;
}

static void restart(void)
{
    record_disk_crash(l.disk);
    record_disk_start(l.disk);
    l.model.life++;
    check(rig_start(&l.rig));
}

static void two_databases(void *ctx)
{
    (void)ctx;
    raftd_model_create(&l.model, a);
    raftd_model_create(&l.model, b);
    rig_settle(&l.rig);
    for (unsigned i = 0; i < 3; i++) {
        (void)raftd_model_commit(&l.model, a, false);
        (void)raftd_model_commit(&l.model, b, false);
        rig_settle(&l.rig);
    }
}

static void live(uint64_t shuffle)
{
    memset(&l, 0, sizeof l);
    l.disk = record_disk_new();
    record_disk_mkdir_p(l.disk, RIG_DIR);
    fault_disk_init(&l.above, &l.disk->disk);
    l.rig = (struct rig){ .disk = &l.above.disk, .shuffle = shuffle, .segment_bytes = 65536, .cache_bytes = 1u << 20 };
    raftd_model_init(&l.model, &l.rig, 1 + shuffle);
    l.model.silent = hears;
    check(rig_start(&l.rig));
    check(rig_run(&l.rig, two_databases, NULL));
}

static bool all_is_well(void)
{
    if (l.model.wrong[0] != '\0') {
        printf("# %s\n", l.model.wrong);
    }
    return l.model.wrong[0] == '\0';
}

static const char *path_of(const struct model_name *n)
{
    static char path[100];
    (void)snprintf(path, sizeof path, RIG_DIR "/%s", n->name);
    return path;
}

static bool has_file(const struct model_name *n)
{
    struct rq_file_info info;
    return l.disk->disk.ops->stat(&l.disk->disk, path_of(n), &info) == RQ_OK;
}

static struct rq_database_info info_of(const struct model_name *n)
{
    struct rq_database_info info = { 0 };
    struct rq_database *db = rq_catalog_find(l.rig.catalog, n->name, strlen(n->name));
    if (db != NULL) {
        rq_database_info(db, &info);
        rq_database_unref(db);
    }
    return info;
}

/* --- drop ---------------------------------------------------------------------------------------------------------------- */

static void drop_a(void *ctx)
{
    (void)ctx;
    raftd_model_drop(&l.model, a);
    rig_settle(&l.rig);
}

static void a_start_that_has_ended_leaves_no_dropped_file(void)
{
    unsigned cut = 0;
    for (uint64_t moment = 1; moment < 30; moment++) {
        live(moment);
        record_disk_stop_at(l.disk, moment);
        (void)rig_run(&l.rig, drop_a, NULL);
        record_disk_crash(l.disk);
        record_disk_start(l.disk);
        bool there = has_file(a);
        l.model.life++;
        check(rig_start(&l.rig));
        if (info_of(a).id == 0) { /* its DROP was in the log; nothing has run since the start */
            check(!has_file(a));
            cut += there;
        }
        check(all_is_well());
    }
    check(cut > 0); /* some died between the DROP and the trash */
}

static void drop_a_and_create_it(void *ctx)
{
    unsigned *met = ctx;
    uint32_t id = a->id;
    raftd_model_drop(&l.model, a);
    while (info_of(a).id != 0 && rq_pool_run_one(l.rig.pool)) {
    }
    *met += has_file(a);
    raftd_model_create(&l.model, a);
    rig_settle(&l.rig);
    check(info_of(a).id > id);
    check_eq(info_of(a).state, RQ_DB_EMPTY);
}

static void a_name_is_free_as_soon_as_its_drop_is_committed(void)
{
    unsigned met = 0;
    for (uint64_t shuffle = 1; shuffle < 20; shuffle++) {
        live(shuffle);
        check(rig_run(&l.rig, drop_a_and_create_it, &met));
        check(all_is_well());
    }
    check(met > 0); /* in some the file was still there */
}

/* --- quarantine ---------------------------------------------------------------------------------------------------------- */

struct compaction {
    enum rq_err err;
    char text[512];
};

static void commit_b_and_compact(void *ctx)
{
    struct compaction *c = ctx;
    for (unsigned i = 0; i < 5; i++) {
        (void)raftd_model_commit(&l.model, b, false);
        rig_settle(&l.rig);
    }
    c->err = rq_catalog_compact(l.rig.catalog, c->text);
}

static void overwrite(const struct model_name *n, uint64_t offset)
{
    struct rq_disk *disk = &l.disk->disk;
    struct rq_file *f;
    static const uint8_t scribble[100] = "scribble";
    check_eq(disk->ops->open(disk, path_of(n), RQ_OPEN_WRITE, 0, &f), RQ_OK);
    check_eq(disk->ops->write(f, scribble, sizeof scribble, offset), RQ_OK);
    disk->ops->close(f);
}

/* Nothing in the log mends a file that somebody has changed: the log is released without it, and it stays fenced. */
static void a_changed_file_does_not_hold_the_log(void)
{
    struct compaction c;
    struct rq_descriptor d;
    live(1);
    record_disk_crash(l.disk);
    record_disk_start(l.disk);
    overwrite(a, 0);
    for (unsigned round = 0; round < 3; round++) {
        l.model.life++;
        check(rig_start(&l.rig));
        check_eq(info_of(a).state, RQ_DB_QUARANTINED);
        check(strstr(info_of(a).message, "cannot be opened as a replica") != NULL);
        check(rig_run(&l.rig, commit_b_and_compact, &c));
        check_eq(c.err, RQ_OK);
        check_eq(rq_descriptor_read(&l.disk->disk, RIG_RAFT_DIR, &d), RQ_OK);
        check_eq(d.index, rq_driver_view(l.rig.driver).delivered);
        rq_descriptor_fini(&d);
        check_eq(info_of(b).version, 3 + 5 * (round + 1));
        check(all_is_well());
        record_disk_crash(l.disk);
        record_disk_start(l.disk);
    }
}

/* What is wrong is around the file: with the next start it goes on, by what the log has kept for it. */
static void a_file_that_cannot_be_opened_for_a_while_loses_nothing(void)
{
    struct compaction c;
    live(1);
    record_disk_power_loss(l.disk, 1); /* its WAL was never synced: all that is sure of it is in the log */
    record_disk_start(l.disk);
    uint64_t nth = 0;
    do { /* until it is the open of this file that fails */
        l.model.life++;
        fault_disk_arm(&l.above, FAULT_BIT(FAULT_OPEN), ++nth, RQ_IO);
        if (rig_start(&l.rig) && info_of(a).state == RQ_DB_QUARANTINED) {
            break;
        }
        record_disk_crash(l.disk);
        record_disk_start(l.disk);
    } while (l.above.hit);
    check(l.above.hit);
    check(rig_run(&l.rig, commit_b_and_compact, &c));
    check_eq(c.err, RQ_BUSY);
    check(strstr(c.text, a->name) != NULL);
    restart();
    check_eq(info_of(a).state, RQ_DB_LIVE);
    check_eq(info_of(a).version, 3);
    check(rig_run(&l.rig, commit_b_and_compact, &c));
    check_eq(c.err, RQ_OK);
    check(all_is_well());
}

/* --- bodies --------------------------------------------------------------------------------------------------------------- */

static bool has_body(const struct rq_entry_staged *e)
{
    struct rq_file_info info;
    char *path = rq_staged_path(RIG_STAGED_DIR, "", e->hash);
    const bool has = l.disk->disk.ops->stat(&l.disk->disk, path, &info) == RQ_OK;
    free(path);
    return has;
}

static void look(unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        check_eq(rq_catalog_look_at_bodies(l.rig.catalog), RQ_OK);
    }
}

/* Else one that is cut off for long would delete what a majority counts on. */
static void who_hears_no_leader_keeps_the_bodies_that_were_brought(void)
{
    live(1);
    const struct rq_node_machine machine = rq_catalog_machine(l.rig.catalog);
    const struct rq_body_head head = { 512, 1 };
    struct rq_entry_staged e = { .origin = { 5, 1 } };
    struct rq_staged *body;
    uint8_t record[4 + 512] = { 0 };
    rq_put_u32(record, 1);
    check_eq(rq_staged_new(&l.disk->disk, RIG_STAGED_DIR, &head, &body), RQ_OK);
    check_eq(rq_staged_add(body, record, sizeof record), RQ_OK);
    check_eq(rq_staged_seal(body, e.hash, &e.body_bytes), RQ_OK);
    rq_staged_free(body);
    check_eq(rq_shelf_expect(rq_catalog_shelf(l.rig.catalog), e.hash, e.origin, RQ_SHELF_EXPECT_LOOKS), RQ_OK);
    machine.role(machine.ctx, false, 9, 0);
    look(3 * RQ_SHELF_EXPECT_LOOKS);
    check(has_body(&e));
    machine.role(machine.ctx, false, 9, 77);
    look(RQ_SHELF_EXPECT_LOOKS + 1);
    check(!has_body(&e));
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP_APART(a_start_that_has_ended_leaves_no_dropped_file),
        TAP_APART(a_name_is_free_as_soon_as_its_drop_is_committed),
        TAP_APART(a_changed_file_does_not_hold_the_log),
        TAP_APART(a_file_that_cannot_be_opened_for_a_while_loses_nothing),
        TAP_APART(who_hears_no_leader_keeps_the_bodies_that_were_brought),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
