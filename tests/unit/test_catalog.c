/* Catalog: what a drop leaves, when; whom a quarantined database holds up; and what this host can say that it has. */
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

/* --- what is here to stay -------------------------------------------------------------------------------------------------- */

static struct rq_ask_has has(void)
{
    struct rq_ask_has has;
    check_eq(rq_catalog_has(l.rig.catalog, &has), RQ_OK);
    return has;
}

static uint64_t delivered(void)
{
    return rq_driver_view(l.rig.driver).delivered;
}

/* An entry of that index named a body of the database; as if it had been delivered. */
static struct rq_entry_staged name_body(uint64_t index, uint32_t db_id, uint8_t content, bool is_here)
{
    const struct rq_body_head head = { 512, 1 };
    struct rq_entry_staged e = { .head = { .db_id = db_id }, .origin = { 5, index } };
    struct rq_staged *body;
    uint8_t record[4 + 512] = { 0 };
    rq_put_u32(record, 1);
    record[100] = content;
    check_eq(rq_staged_new(&l.disk->disk, RIG_STAGED_DIR, &head, &body), RQ_OK);
    check_eq(rq_staged_add(body, record, sizeof record), RQ_OK);
    check_eq(is_here ? rq_staged_seal(body, e.hash, &e.body_bytes) : rq_staged_end(body, e.hash, &e.body_bytes), RQ_OK);
    rq_staged_free(body);
    check_eq(has_body(&e), is_here);
    check_eq(rq_shelf_name(rq_catalog_shelf(l.rig.catalog), &e, index), RQ_OK);
    return e;
}

static void fence(const struct model_name *n)
{
    struct rq_database *db = rq_catalog_find(l.rig.catalog, n->name, strlen(n->name));
    rq_database_quarantine(db, "a test says so");
    rq_database_unref(db);
    rig_settle(&l.rig);
}

static void fence_a(void *ctx)
{
    (void)ctx;
    fence(a);
}

static void fence_b(void *ctx)
{
    (void)ctx;
    fence(b);
}

static void commit_both(void *ctx)
{
    (void)ctx;
    (void)raftd_model_commit(&l.model, a, false);
    (void)raftd_model_commit(&l.model, b, false);
    rig_settle(&l.rig);
}

static void who_has_applied_all_has_all(void)
{
    live(1);
    check(has().index == delivered() && has().fenced_count == 0);
    (void)name_body(info_of(b).applied_index, info_of(b).id, 1, false); /* applied, and deleted since */
    (void)name_body(delivered(), 999, 2, false);                        /* of a database that was dropped */
    check_eq(has().index, delivered());
    check(info_of(b).applied_index < delivered());
    (void)name_body(delivered(), info_of(b).id, 3, false); /* delivered, and still to be applied */
    check_eq(has().index, delivered() - 1);
}

static void a_fenced_database_has_what_its_file_holds(void)
{
    live(1);
    check(rig_run(&l.rig, fence_a, NULL));
    const uint64_t in_file = info_of(a).file_index;
    check(rig_run(&l.rig, commit_both, NULL));
    check_eq(info_of(a).file_index, in_file);
    check(in_file > 0 && in_file < delivered());
    const struct rq_ask_has h = has();
    check_eq(h.index, in_file);
    check(h.fenced_count == 1 && h.fenced[0] == info_of(a).id);
    check(rig_run(&l.rig, fence_b, NULL)); /* whose file holds more */
    check(info_of(b).file_index > in_file);
    check(has().index == in_file && has().fenced_count == 2);
}

static void a_body_that_is_missing_is_the_end_of_it(void)
{
    live(1);
    check(rig_run(&l.rig, fence_a, NULL)); /* it applies nothing */
    const uint64_t all = has().index;
    (void)name_body(all, info_of(a).id, 1, true);
    check_eq(has().index, all);
    (void)name_body(all + 1, info_of(a).id, 2, false); /* behind what its file holds anyway */
    check_eq(has().index, all);
    (void)name_body(all - 1, info_of(a).id, 3, false);
    check_eq(has().index, all - 2);
    (void)name_body(all - 3, info_of(a).id, 4, false);
    check_eq(has().index, all - 4);
    (void)name_body(all, info_of(a).id, 5, false);
    check_eq(has().index, all - 4);
}

static void a_body_that_is_here_has_its_name_durably(void)
{
    struct rq_ask_has h;
    live(1);
    check(rig_run(&l.rig, fence_a, NULL));
    fault_disk_arm(&l.above, FAULT_BIT(FAULT_SYNC_DIR), 1, RQ_IO);
    check_eq(rq_catalog_has(l.rig.catalog, &h), RQ_OK); /* nothing has to be */
    (void)name_body(has().index, info_of(a).id, 1, true);
    check_eq(rq_catalog_has(l.rig.catalog, &h), RQ_IO);
}

static void compact(void *ctx)
{
    commit_both(NULL);
    *(enum rq_err *)ctx = rq_catalog_compact(l.rig.catalog, (char[512]){ 0 });
}

static void what_was_compacted_is_not_asked_about(void)
{
    enum rq_err err;
    live(1);
    check(rig_run(&l.rig, compact, &err));
    check_eq(err, RQ_OK);
    const uint64_t at = rq_catalog_snapshot(l.rig.catalog).index;
    check(rig_run(&l.rig, commit_both, NULL));
    check(rig_run(&l.rig, fence_a, NULL));
    const uint64_t all = has().index;
    check(all > at);
    (void)name_body(at, info_of(a).id, 1, false);
    check_eq(has().index, all);
    (void)name_body(at + 1, info_of(a).id, 2, false);
    check_eq(has().index, at);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP_APART(a_start_that_has_ended_leaves_no_dropped_file),
        TAP_APART(a_name_is_free_as_soon_as_its_drop_is_committed),
        TAP_APART(a_changed_file_does_not_hold_the_log),
        TAP_APART(a_file_that_cannot_be_opened_for_a_while_loses_nothing),
        TAP_APART(who_hears_no_leader_keeps_the_bodies_that_were_brought),
        TAP_APART(who_has_applied_all_has_all),
        TAP_APART(a_fenced_database_has_what_its_file_holds),
        TAP_APART(a_body_that_is_missing_is_the_end_of_it),
        TAP_APART(a_body_that_is_here_has_its_name_durably),
        TAP_APART(what_was_compacted_is_not_asked_about),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
