/* raftd and failing calls: a fixed life, again and again, in which the first, the second, ... call to the disk of a kind fails.
 * Whatever raftd makes of it, a clean refusal or its end, the next start finds what was acknowledged and nothing that was
 * refused (tests/support/raftd_model.h). */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raftd/ops/journal.h"
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

/* What the test sees of the process that lives them. */
static struct tally {
    unsigned lives, ended, refused_start, failed, acknowledged;
    uint64_t nth;
    char wrong[200];
} *tally;

static bool hears(struct raftd_model *m)
{
    (void)m;
    return false;
}

/* As background.c does it. */
static void background(enum rq_err err, const char *what)
{
    if (err == RQ_IO) {
        rq_fatal(what, err);
    }
    raftd_model_must(&l.model, err != RQ_CORRUPT, "%s: %s", what, rq_err_name(err));
}

static void tend(struct model_name *n)
{
    struct rq_database *db = n->id != 0 ? rq_catalog_find_id(l.rig.catalog, n->id) : NULL;
    struct rq_replica *r = db != NULL ? rq_database_hold(db) : NULL;
    if (r != NULL) {
        background(rq_replica_backfill(r), "back-fill");
        struct rq_replica_wal wal;
        rq_replica_get_wal(r, &wal);
        if (wal.frames > 0 && wal.frames == wal.backfilled) {
            background(rq_replica_reset(r), "reset");
        }
        background(rq_replica_shrink(r), "shrink");
    }
    if (db != NULL) {
        rq_database_release(db);
        rq_database_unref(db);
    }
}

static void commit(struct model_name *n, bool staged)
{
    (void)raftd_model_commit(&l.model, n, staged);
    rig_settle(&l.rig);
}

static void live(void *ctx)
{
    struct model_name *a = &l.model.names[0], *b = &l.model.names[1];
    (void)ctx;
    raftd_model_create(&l.model, a);
    raftd_model_create(&l.model, b);
    rig_settle(&l.rig);
    for (unsigned i = 0; i < 4; i++) {
        (void)raftd_model_commit(&l.model, a, false); /* two on one base: one of them is refused */
        commit(a, false);
        commit(b, i % 2 == 1);
    }
    tend(a);
    commit(a, false);
    background(rq_catalog_compact(l.rig.catalog, (char[512]){ 0 }), "compaction");
    commit(b, true);
    if (b->id != 0) {
        raftd_model_drop(&l.model, b);
        rig_settle(&l.rig);
    }
    if (b->id == 0) {
        raftd_model_create(&l.model, b);
        rig_settle(&l.rig);
    }
    commit(b, false);
    background(rq_log_prepare(l.rig.log), "prepare");
    background(rq_catalog_compact(l.rig.catalog, (char[512]){ 0 }), "compaction");
    tend(b);
    commit(b, false);
}

static void compact(void *ctx)
{
    (void)ctx;
    background(rq_catalog_compact(l.rig.catalog, (char[512]){ 0 }), "compaction");
}

static void verify(void *ctx)
{
    (void)ctx;
    raftd_model_verify(&l.model);
}

/* False: nothing failed, there are no more such calls. */
static bool live_with_fault(unsigned kinds, enum rq_err err, uint64_t nth, size_t partial_bytes, bool late)
{
    memset(&l, 0, sizeof l);
    l.disk = record_disk_new();
    record_disk_mkdir_p(l.disk, RIG_DIR);
    fault_disk_init(&l.above, &l.disk->disk);
    l.above.partial_bytes = partial_bytes;
    l.rig = (struct rig){ .disk = &l.above.disk, .segment_bytes = 20480, .cache_bytes = 1u << 20 };
    raftd_model_init(&l.model, &l.rig, 5);
    l.model.silent = hears;
    l.model.fails = true;
    fault_disk_arm(&l.above, kinds, late ? 0 : nth, err);
    tally->lives++;
    if (!rig_start(&l.rig)) {
        tally->refused_start++;
        raftd_model_must(&l.model, l.above.hit, "does not start: %s", l.rig.why);
        record_disk_crash(l.disk);
        record_disk_start(l.disk);
        l.model.life++;
        raftd_model_must(&l.model, rig_start(&l.rig), "does not start after %s: %s", l.rig.why,
                         rq_err_name(l.rig.error));
    }
    if (l.model.wrong[0] == '\0' && !rig_run(&l.rig, live, NULL)) {
        tally->ended++;
        raftd_model_must(&l.model, l.above.hit, "ended: %s", l.rig.why);
    }
    if (late) { /* a start over all of that, and what a database that is fenced for a while may not lose in it */
        record_disk_crash(l.disk);
        record_disk_start(l.disk);
        l.model.life++;
        fault_disk_arm(&l.above, kinds, nth, err);
        if (!rig_start(&l.rig) || !rig_run(&l.rig, compact, NULL)) {
            tally->refused_start++;
        } else if (err == RQ_FULL) { /* for a moment: nothing is fenced for that */
            raftd_model_must(&l.model, rig_run(&l.rig, verify, NULL), "ended: %s", l.rig.why);
        }
    }
    bool hit = l.above.hit;
    tally->failed += l.model.failed;
    tally->acknowledged += l.model.acknowledged;
    raftd_model_must(&l.model, hit || l.model.failed == 0, "a failure without a fault");
    fault_disk_arm(&l.above, 0, 0, RQ_OK);
    if (nth % 2 == 0) {
        record_disk_crash(l.disk);
    } else {
        record_disk_power_loss(l.disk, nth);
    }
    record_disk_start(l.disk);
    l.model.life++;
    if (l.model.wrong[0] == '\0' && raftd_model_must(&l.model, rig_start(&l.rig), "does not start again: %s: %s",
                                                     l.rig.why, rq_err_name(l.rig.error))) {
        raftd_model_must(&l.model, rig_run(&l.rig, verify, NULL), "ended while nothing failed: %s", l.rig.why);
    }
    memcpy(tally->wrong, l.model.wrong, sizeof tally->wrong);
    return hit;
}

static void live_with_each_fault(unsigned kinds, enum rq_err err, size_t partial_bytes, bool late, const char *what)
{
    void *p = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED);
    tally = p;
    fflush(stdout);
    pid_t pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        do {
            tally->nth++;
        } while (live_with_fault(kinds, err, tally->nth, partial_bytes, late) && tally->wrong[0] == '\0');
        fflush(stdout);
        _exit(0);
    }
    int status;
    check_eq(waitpid(pid, &status, 0), pid);
    printf("# %s, %s: %u lives, %u ended, %u did not start, %u refusals, %u acknowledged\n", what, rq_err_name(err),
           tally->lives, tally->ended, tally->refused_start, tally->failed, tally->acknowledged);
    if (tally->wrong[0] != '\0' || status != 0) {
        printf("# call %llu: %s (status %#x)\n", (unsigned long long)tally->nth, tally->wrong, (unsigned)status);
    }
    check(tally->wrong[0] == '\0' && status == 0);
    check(tally->lives > 1);
    munmap(p, sizeof *tally);
}

static void failing_writes_end_it_or_refuse_cleanly(void)
{
    live_with_each_fault(FAULT_BIT(FAULT_WRITE), RQ_IO, 700, false, "write");
}

static void failing_syncs_end_it(void)
{
    live_with_each_fault(FAULT_BIT(FAULT_SYNC), RQ_IO, 0, false, "sync");
    live_with_each_fault(FAULT_BIT(FAULT_SYNC_DIR), RQ_IO, 0, false, "sync of a directory");
}

static void failing_names_end_it_or_refuse_cleanly(void)
{
    live_with_each_fault(FAULT_BIT(FAULT_OPEN), RQ_IO, 0, false, "open");
    live_with_each_fault(FAULT_BIT(FAULT_RENAME), RQ_IO, 0, false, "rename");
    live_with_each_fault(FAULT_BIT(FAULT_MKDIR), RQ_IO, 0, false, "mkdir");
    live_with_each_fault(FAULT_BIT(FAULT_TRUNCATE), RQ_IO, 0, false, "truncate");
    live_with_each_fault(FAULT_BIT(FAULT_MAP), RQ_IO, 0, false, "map");
    live_with_each_fault(FAULT_BIT(FAULT_UNLINK), RQ_IO, 0, false, "unlink");
}

static void failing_questions_end_it_or_refuse_cleanly(void)
{
    live_with_each_fault(FAULT_BIT(FAULT_READ), RQ_IO, 0, false, "read");
    live_with_each_fault(FAULT_BIT(FAULT_INFO), RQ_IO, 0, false, "info");
}

static void lack_of_space_ends_it_or_refuses_cleanly(void)
{
    live_with_each_fault(FAULT_BIT(FAULT_RESERVE), RQ_FULL, 0, false, "reserve");
    live_with_each_fault(FAULT_BIT(FAULT_OPEN), RQ_FULL, 0, false, "open");
    live_with_each_fault(FAULT_BIT(FAULT_WRITE), RQ_FULL, 700, false, "write");
}

static void failing_starts_lose_nothing(void)
{
    live_with_each_fault(FAULT_BIT(FAULT_OPEN), RQ_IO, 0, true, "open in a start");
    live_with_each_fault(FAULT_BIT(FAULT_READ), RQ_IO, 0, true, "read in a start");
    live_with_each_fault(FAULT_BIT(FAULT_WRITE), RQ_IO, 0, true, "write in a start");
    live_with_each_fault(FAULT_BIT(FAULT_MAP), RQ_IO, 0, true, "map in a start");
    live_with_each_fault(FAULT_BIT(FAULT_LOCK), RQ_BUSY, 0, true, "lock in a start");
    live_with_each_fault(FAULT_BIT(FAULT_SYNC), RQ_IO, 0, true, "sync in a start");
    live_with_each_fault(FAULT_BIT(FAULT_INFO), RQ_IO, 0, true, "info in a start");
    live_with_each_fault(FAULT_BIT(FAULT_RENAME), RQ_IO, 0, true, "rename in a start");
}

/* On a disk that copies on write everything takes space, also what is written over what is there. */
static void starts_on_a_full_disk_wait_or_are_refused(void)
{
    live_with_each_fault(FAULT_BIT(FAULT_WRITE), RQ_FULL, 700, true, "write in a start");
    live_with_each_fault(FAULT_BIT(FAULT_OPEN), RQ_FULL, 0, true, "open in a start");
    live_with_each_fault(FAULT_BIT(FAULT_TRUNCATE) | FAULT_BIT(FAULT_RESERVE), RQ_FULL, 0, true, "growth in a start");
    live_with_each_fault(FAULT_BIT(FAULT_MAP), RQ_FULL, 0, true, "map in a start");
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(failing_writes_end_it_or_refuse_cleanly),   TAP(failing_syncs_end_it),
        TAP(failing_names_end_it_or_refuse_cleanly),    TAP(failing_starts_lose_nothing),
        TAP(lack_of_space_ends_it_or_refuses_cleanly),  TAP(failing_questions_end_it_or_refuse_cleanly),
        TAP(starts_on_a_full_disk_wait_or_are_refused),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
