/* A stock tool is the last to close a database while raftd is down, with synchronous=OFF: it copies the WAL into the database file
 * and removes it, and syncs nothing.  Then raftd starts, or the power fails and raftd starts, or both, in any order.
 *
 * Whatever is lost by that, raftd serves no database that lacks something which was acknowledged: one that does is quarantined.
 * And one of which everything is there is served. */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/raftd_model.h"
#include "tests/support/record_disk.h"
#include "tests/support/seeded.h"
#include "tests/support/tap.h"
#include "vfs/wal.h"

enum { HISTORIES = 300 };

/* Bugs that are put in from outside. */
enum plant { PLANT_NONE, PLANT_SAME_BOOT };

static struct life {
    struct record_disk *disk;
    struct rig rig;
    struct raftd_model model;
    enum plant plant;
    bool quarantined[MODEL_NAMES];
} l;

static struct tally {
    unsigned histories, closed, served, quarantined;
    char wrong[200];
} *tally;

static uint32_t below(uint32_t bound)
{
    return seeded_below(&l.model.seed, bound);
}

static bool hears(struct raftd_model *m)
{
    (void)m;
    return l.disk->off;
}

/* --- the stock tool ------------------------------------------------------------------------------------------------------ */

static struct rq_file *open_file(const struct model_name *n, const char *suffix)
{
    char path[100];
    struct rq_file *f;
    (void)snprintf(path, sizeof path, RIG_DIR "/%s%s", n->name, suffix);
    return l.disk->disk.ops->open(&l.disk->disk, path, RQ_OPEN_WRITE, 0, &f) == RQ_OK ? f : NULL;
}

static void unlink_file(const struct model_name *n, const char *suffix)
{
    char path[100];
    (void)snprintf(path, sizeof path, RIG_DIR "/%s%s", n->name, suffix);
    check_eq(l.disk->disk.ops->unlink(&l.disk->disk, path), RQ_OK);
}

/* The newest frame of each page up to the last commit goes into the file; then the file gets its size. */
static void copy_wal(struct rq_file *wal, struct rq_file *db)
{
    const struct rq_disk_ops *ops = l.disk->disk.ops;
    static uint8_t frame[RQ_WAL_FRAME_BYTES + MODEL_PAGE], pages[MODEL_PAGES_MAX][MODEL_PAGE],
        seen[MODEL_PAGES_MAX][MODEL_PAGE];
    bool has[MODEL_PAGES_MAX] = { 0 }, sees[MODEL_PAGES_MAX] = { 0 };
    uint8_t head_bytes[RQ_WAL_HEAD_BYTES];
    struct rq_wal_head head;
    uint32_t page_count = 0, pgno, size;
    size_t got;
    check_eq(ops->read(wal, head_bytes, sizeof head_bytes, 0, &got), RQ_OK);
    if (got != sizeof head_bytes || rq_wal_head_decode(head_bytes, &head) != RQ_OK) {
        return;
    }
    uint32_t sum[2] = { head.checksum[0], head.checksum[1] };
    for (uint32_t n = 1;; n++) {
        check_eq(ops->read(wal, frame, sizeof frame, rq_wal_frame_offset(n, MODEL_PAGE), &got), RQ_OK);
        if (got != sizeof frame ||
            rq_wal_frame_decode(&head, sum, frame, frame + RQ_WAL_FRAME_BYTES, &pgno, &size) != RQ_OK) {
            break;
        }
        check(pgno <= MODEL_PAGES_MAX);
        memcpy(seen[pgno - 1], frame + RQ_WAL_FRAME_BYTES, MODEL_PAGE);
        sees[pgno - 1] = true;
        if (size != 0) {
            page_count = size;
            memcpy(pages, seen, sizeof pages);
            memcpy(has, sees, sizeof has);
        }
    }
    for (uint32_t i = 0; i < page_count; i++) {
        if (has[i]) {
            check_eq(ops->write(db, pages[i], MODEL_PAGE, (uint64_t)i * MODEL_PAGE), RQ_OK);
        }
    }
    if (page_count > 0) {
        check_eq(ops->truncate(db, (uint64_t)page_count * MODEL_PAGE), RQ_OK);
        tally->closed++;
    }
}

static void stock_close(const struct model_name *n)
{
    struct rq_file *wal = open_file(n, "-wal"), *db = open_file(n, "");
    if (wal != NULL && db != NULL) {
        copy_wal(wal, db);
        unlink_file(n, "-wal");
        unlink_file(n, "-shm");
    }
    if (wal != NULL) {
        l.disk->disk.ops->close(wal);
    }
    if (db != NULL) {
        l.disk->disk.ops->close(db);
    }
}

/* --- raftd --------------------------------------------------------------------------------------------------------------- */

static void background(struct model_name *n)
{
    struct rq_database *db = rq_catalog_find_id(l.rig.catalog, n->id);
    struct rq_replica *r = db != NULL ? rq_database_hold(db) : NULL;
    if (r != NULL) {
        check_eq(rq_replica_backfill(r), RQ_OK);
        if (below(2) == 0) {
            check_eq(rq_replica_reset(r), RQ_OK);
        }
    }
    if (db != NULL) {
        rq_database_release(db);
        rq_database_unref(db);
    }
}

static void work(void *ctx)
{
    (void)ctx;
    for (unsigned i = 0; i < 40; i++) {
        struct model_name *n = &l.model.names[below(MODEL_NAMES)];
        if (l.quarantined[n - l.model.names]) {
            continue;
        }
        if (n->id == 0) {
            raftd_model_create(&l.model, n);
        } else if (below(10) == 0) {
            background(n);
        } else if (below(40) == 0) {
            char text[512];
            for (unsigned k = 0; k < MODEL_NAMES && below(10) != 0; k++) { /* as the background thread does, mostly */
                background(&l.model.names[k]);
            }
            enum rq_err err = rq_catalog_compact(l.rig.catalog, text);
            raftd_model_must(&l.model, err == RQ_OK, "compaction: %s %s", rq_err_name(err), text);
        } else {
            (void)raftd_model_commit(&l.model, n, below(8) == 0);
        }
        rig_settle(&l.rig);
    }
}

/* What is quarantined is let alone as long as it is. */
static void verify(void *ctx)
{
    (void)ctx;
    rig_settle(&l.rig);
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        struct model_name *n = &l.model.names[i];
        struct rq_database *db = rq_catalog_find(l.rig.catalog, n->name, strlen(n->name));
        struct rq_database_info info = { 0 };
        if (db != NULL) {
            rq_database_info(db, &info);
            rq_database_unref(db);
        }
        if (info.state == RQ_DB_QUARANTINED) {
            tally->quarantined += !l.quarantined[i];
        } else { /* perhaps again: power loss may give back what the stock tool has removed */
            raftd_model_verify_name(&l.model, n);
            tally->served++;
        }
        l.quarantined[i] = info.state == RQ_DB_QUARANTINED;
    }
}

static void power_loss(void)
{
    record_disk_power_loss(l.disk, seeded_next(&l.model.seed));
    l.rig.boot += l.plant != PLANT_SAME_BOOT;
    record_disk_start(l.disk);
}

static bool start(void)
{
    l.model.life++;
    return raftd_model_must(&l.model, rig_start(&l.rig), "does not start: %s", l.rig.why) &&
           raftd_model_must(&l.model, rig_run(&l.rig, verify, NULL), "ended: %s", l.rig.why) &&
           l.model.wrong[0] == '\0';
}

/* loses: the power fails behind the stock tool's close. */
static void play(uint64_t seed, bool loses)
{
    memset(&l, 0, offsetof(struct life, plant));
    memset(l.quarantined, 0, sizeof l.quarantined);
    l.disk = record_disk_new();
    record_disk_mkdir_p(l.disk, RIG_DIR);
    l.rig =
        (struct rig){ .disk = &l.disk->disk, .shuffle = seed << 8, .segment_bytes = 65536, .cache_bytes = 1u << 20 };
    raftd_model_init(&l.model, &l.rig, seed);
    l.model.silent = hears;
    tally->histories++;
    bool alive = start();
    for (unsigned round = 0; alive && round < 4; round++) {
        alive = raftd_model_must(&l.model, rig_run(&l.rig, work, NULL), "ended: %s", l.rig.why);
        record_disk_crash(l.disk);
        record_disk_start(l.disk);
        if (loses && below(4) == 0) {
            power_loss(); /* before the stock tool comes */
        }
        for (unsigned i = 0; i < MODEL_NAMES; i++) {
            stock_close(&l.model.names[i]);
        }
        if (loses && below(2) == 0) {
            record_disk_crash(l.disk);
            power_loss();
        } else { /* the machine starts anew, and everything is there */
            for (unsigned i = 0; i < MODEL_NAMES && !loses; i++) {
                struct rq_file *db = open_file(&l.model.names[i], "");
                if (db != NULL) {
                    check_eq(l.disk->disk.ops->sync(db), RQ_OK);
                    l.disk->disk.ops->close(db);
                }
            }
            record_disk_crash(l.disk);
            record_disk_start(l.disk);
            l.rig.boot += !loses;
        }
        alive = alive && start();
        if (alive && loses &&
            below(2) == 0) { /* raftd has looked at it, perhaps released the log, and the power fails now */
            alive = rig_run(&l.rig, work, NULL);
            record_disk_crash(l.disk);
            power_loss();
            alive = alive && start();
        }
    }
    memcpy(tally->wrong, l.model.wrong, sizeof tally->wrong);
}

/* In a process of its own.  False: something was wrong. */
static bool play_all(enum plant plant, bool loses)
{
    if (tally == NULL) {
        void *p = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        check(p != MAP_FAILED);
        tally = p;
    }
    memset(tally, 0, sizeof *tally);
    fflush(stdout);
    pid_t pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        l.plant = plant;
        for (uint64_t seed = 1; seed <= HISTORIES && tally->wrong[0] == '\0'; seed++) {
            play(seed, loses);
        }
        fflush(stdout);
        _exit(0);
    }
    int status;
    check_eq(waitpid(pid, &status, 0), pid);
    printf("# %u histories, %u files closed by others, %u quarantined, %u served: %s\n", tally->histories,
           tally->closed, tally->quarantined, tally->served, tally->wrong);
    return status == 0 && tally->wrong[0] == '\0';
}

static void nothing_that_lacks_something_is_served(void)
{
    check(play_all(PLANT_NONE, true));
    check(tally->quarantined > 20 && tally->served > 500);
}

static void what_is_whole_is_served(void)
{
    check(play_all(PLANT_NONE, false));
    check(tally->closed > 500 && tally->served > 10 * tally->quarantined);
}

static void a_boot_that_is_not_noticed_is_found_out(void)
{
    check(!play_all(PLANT_SAME_BOOT, true));
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(nothing_that_lacks_something_is_served),
        TAP(what_is_whole_is_served),
        TAP(a_boot_that_is_not_noticed_is_found_out),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
