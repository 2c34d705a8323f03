/* raftd and power: seeded histories of commits, creates, drops, background work, deaths at any call to the disk, restarts and
 * power losses.  After each restart everything that was acknowledged is there, see tests/support/raftd_model.h.
 *
 * A state is one death and what was found after it.  RQ_RAFTD_POWER_STATES sets how many are visited, RQ_RAFTD_POWER_SEED runs
 * one history. */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raftd/ops/journal.h"
#include "tests/support/fault_disk.h"
#include "tests/support/raftd_model.h"
#include "tests/support/record_disk.h"
#include "tests/support/seeded.h"
#include "tests/support/tap.h"

enum { STEPS = 90, LAZY_STEPS = 250, HISTORIES_PER_PROCESS = 8, STATES = 2000 };

/* Bugs that are put into raftd from below: a sync that it makes and that does nothing. */
enum plant {
    PLANT_NONE,
    PLANT_LOG,               /* batches of the log are not synced */
    PLANT_REWRITE,           /* what a start finds behind durable_upto is believed, not written again */
    PLANT_COMPACT_SYNC,      /* compaction without a sync of the replicas before */
    PLANT_DESCRIPTOR_SYNC,   /* the descriptor is renamed before it is durable */
    PLANT_DESCRIPTOR_RENAME, /* the log is released before the descriptor's new name is durable */
    PLANT_RESET,             /* a reset is published before its header is durable */
    PLANT_BACKFILL_WAL,      /* back-fill before the WAL is durable */
    PLANT_BACKFILL_FILE,     /* reset before what was back-filled is durable */
    PLANT_STAGED,            /* an entry names a body that is not durable */
    PLANT_HASHES,            /* reset before the hashes of what was back-filled are durable */
    PLANTS,
};

static const char *const plant_names[PLANTS] = {
    "none",
    "log sync",
    "durable_upto rewrite",
    "replica sync before compaction",
    "descriptor sync",
    "descriptor rename",
    "reset header sync",
    "WAL sync before back-fill",
    "file sync after back-fill",
    "staged body sync",
    "page hashes sync",
};

/* What the tests see of the processes that play the histories. */
static struct tally {
    uint64_t seed;
    unsigned histories, states, power_losses, starts_cut;
    unsigned acknowledged, staged, created, dropped, found, lost, refused;
    unsigned compactions, resets, backfills, scrubs;
    char wrong[200];
} *tally;

static struct history {
    struct record_disk *disk;
    struct fault_disk above;
    struct rig rig;
    struct raftd_model model;
    enum plant plant;
    enum { OTHER, COMPACT, RESET, BACKFILL } doing;
    bool opening, plays;
    bool lazy;                /* WALs grow long before anything is done about them */
    struct model_name *fills; /* its new WAL grows over the old one, for so many steps, then all dies */
    unsigned fill_steps;
} h;

static uint32_t below(uint32_t bound)
{
    return seeded_below(&h.model.seed, bound);
}

static bool silent(struct raftd_model *m)
{
    (void)m;
    return h.disk->stopped || h.disk->off;
}

/* --- between raftd and its disk ---------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
    size_t a = strlen(s), b = strlen(end);
    return a >= b && strcmp(s + a - b, end) == 0;
}

/* The background thread holds the replica: a drop would wait for it. */
static bool drops(void)
{
    bool some = false;
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        some = some || h.model.names[i].dropping;
    }
    return some;
}

static bool lies(void *ctx, enum fault_kind kind, const char *path)
{
    (void)ctx;
    bool wal = ends_with(path, "-wal"), file = ends_with(path, ".db") || ends_with(path, ".sqlite");
    if (kind == FAULT_SYNC && wal && !h.plays && !drops() && (h.doing == BACKFILL || h.doing == COMPACT)) {
        h.plays = true; /* commits go on beside the background thread */
        for (uint32_t n = below(12); n > 0 && rq_pool_run_one(h.rig.pool); n--) {
        }
        h.plays = false;
    }
    switch (h.plant) {
        case PLANT_LOG:
            return strstr(path, "/log/") != NULL && kind == FAULT_WRITE;
        case PLANT_REWRITE:
            return strstr(path, "/log/") != NULL && kind == FAULT_WRITE && h.opening;
        case PLANT_COMPACT_SYNC:
            return wal && h.doing == COMPACT;
        case PLANT_DESCRIPTOR_SYNC:
            return ends_with(path, "descriptor.new");
        case PLANT_DESCRIPTOR_RENAME:
            return h.doing == COMPACT && kind == FAULT_SYNC_DIR && ends_with(path, "/raft");
        case PLANT_RESET:
            return wal && h.doing == RESET;
        case PLANT_BACKFILL_WAL:
            return wal && h.doing == BACKFILL;
        case PLANT_BACKFILL_FILE:
            return file && h.doing == BACKFILL;
        case PLANT_STAGED:
            return strstr(path, "/staged/") != NULL && kind == FAULT_SYNC;
        case PLANT_HASHES:
            return strstr(path, "/hashes/") != NULL && kind == FAULT_SYNC;
        case PLANT_NONE:
        case PLANTS:
            break;
    }
    return false;
}

/* --- steps --------------------------------------------------------------------------------------------------------------------- */

/* As background.c does it. */
static void must_or_end(enum rq_err err, bool allowed, const char *what)
{
    if (err == RQ_IO) {
        rq_fatal(what, err);
    }
    raftd_model_must(&h.model, err == RQ_OK || allowed, "%s: %s", what, rq_err_name(err));
}

static void compact(void)
{
    h.doing = COMPACT;
    enum rq_err err = rq_catalog_compact(h.rig.catalog, (char[512]){ 0 });
    h.doing = OTHER;
    must_or_end(err, err == RQ_BUSY, "compaction");
    tally->compactions += err == RQ_OK;
}

/* Whatever was lost, a page that nobody has changed is never taken for a changed one; nor when it is read for a commit. */
static void scrub(struct rq_replica *r)
{
    static uint32_t pass;
    uint64_t bytes = 1u << 20;
    char text[160];
    enum rq_err err = rq_replica_scrub(r, ++pass, &bytes, text);
    if (err == RQ_IO) {
        rq_fatal("scrub", err);
    }
    raftd_model_must(&h.model, err == RQ_OK && bytes > 0, "scrub: %s %s", rq_err_name(err), text);
    tally->scrubs++;
}

/* What the background thread does with one replica, or with the log. */
static void background(struct model_name *n)
{
    enum rq_err err;
    uint32_t kind = below(8);
    if (kind == 0 || (h.lazy && below(2) == 0)) {
        compact();
    }
    if (kind == 0) {
        return;
    }
    if (kind == 1) {
        must_or_end(rq_log_prepare(h.rig.log), false, "prepare");
        return;
    }
    struct rq_database *db = n->id != 0 ? rq_catalog_find_id(h.rig.catalog, n->id) : NULL;
    if (db == NULL) {
        return;
    }
    struct rq_replica *r = rq_database_hold(db);
    if (r != NULL && kind < 4 && !n->dropping) {
        h.doing = BACKFILL;
        err = rq_replica_backfill(r);
        must_or_end(err, false, "back-fill");
        tally->backfills += err == RQ_OK;
        h.doing = OTHER;
    } else if (r != NULL && kind < 6) {
        struct rq_replica_wal wal;
        must_or_end(rq_replica_backfill(r), false, "back-fill");
        rq_replica_get_wal(r, &wal);
        h.doing = RESET;
        err = wal.frames > 0 && wal.backfilled == wal.frames ? rq_replica_reset(r) : RQ_BUSY;
        h.doing = OTHER;
        must_or_end(err, err == RQ_BUSY, "reset");
        tally->resets += err == RQ_OK;
        must_or_end(rq_replica_shrink(r), false, "shrink");
        if (err == RQ_OK && below(2) == 0) {
            h.fills = n;
            h.fill_steps = 1 + below(6);
        }
    } else if (r != NULL && kind == 6) {
        must_or_end(rq_replica_sync(r), false, "sync");
        scrub(r);
    } else if (r != NULL) {
        must_or_end(rq_replica_reserve(r, 20), false, "reserve");
    }
    rq_database_release(db);
    rq_database_unref(db);
}

static void step(void *ctx)
{
    struct model_name *n = &h.model.names[below(MODEL_NAMES)];
    uint32_t kind = below(24);
    (void)ctx;
    if (h.fill_steps > 0) {
        raftd_model_commit(&h.model, h.fills, false);
        rig_settle(&h.rig);
        h.fill_steps--;
        return;
    }
    h.fills = NULL;
    if (n->id == 0 && !n->creating && kind < 12) {
        raftd_model_create(&h.model, n);
        tally->created++;
    } else if (kind == 0 && n->id != 0 && !n->dropping) {
        raftd_model_drop(&h.model, n);
    } else if (kind < 14) {
        raftd_model_commit(&h.model, n, below(6) == 0);
    } else if (kind < 22) {
        if (!h.lazy || below(10) == 0) {
            background(n);
        }
    } else {
        rig_settle(&h.rig);
        raftd_model_ask(&h.model, n);
    }
    if (below(2) == 0) {
        rig_settle(&h.rig);
    } else {
        for (uint32_t k = below(15); k > 0 && rq_pool_run_one(h.rig.pool); k--) {
        }
    }
}

static void verify(void *ctx)
{
    (void)ctx;
    raftd_model_verify(&h.model);
}

/* The process ends, one way or the other, perhaps several times while it starts again. */
static void die_and_recover(void)
{
    do {
        tally->states++;
        if (below(2) == 0) {
            record_disk_crash(h.disk);
        } else {
            tally->power_losses++;
            record_disk_power_loss(h.disk, seeded_next(&h.model.seed));
        }
        record_disk_start(h.disk);
        if (below(4) == 0) {
            record_disk_evict(h.disk);
        }
        record_disk_fail_sync(h.disk, 0);
        if (below(4) == 0) {
            record_disk_stop_at(h.disk, 1 + below(25));
        }
        h.model.life++;
        h.doing = OTHER;
        h.plays = false;
        h.fills = NULL;
        h.fill_steps = 0;
        h.opening = true;
        bool up = rig_start(&h.rig);
        h.opening = false;
        if (up && !h.disk->stopped) {
            record_disk_stop_at(h.disk, 0);
            raftd_model_must(&h.model, rig_run(&h.rig, verify, NULL), "ended while nothing happened: %s", h.rig.why);
            return;
        }
        tally->starts_cut++;
    } while (
        raftd_model_must(&h.model, h.disk->stopped, "does not start: %s: %s", h.rig.why, rq_err_name(h.rig.error)));
}

static void play(uint64_t seed, enum plant plant)
{
    memset(&h, 0, sizeof h);
    h.plant = plant;
    h.lazy = seed % 3 == 0;
    h.disk = record_disk_new();
    record_disk_mkdir_p(h.disk, RIG_DIR);
    fault_disk_init(&h.above, &h.disk->disk);
    h.above.lies = lies;
    h.rig = (struct rig){ .disk = &h.above.disk,
                          .shuffle = seed << 8,
                          .segment_bytes = seed % 4 == 0 ? 65536 : 20480,
                          .cache_bytes = seed % 2 == 0 ? 1 : 1u << 20 };
    raftd_model_init(&h.model, &h.rig, seed);
    h.model.silent = silent;
    tally->seed = seed;
    tally->histories++;
    record_disk_stop_at(h.disk, 1 + below(60));
    die_and_recover(); /* before anything was founded */
    for (unsigned i = 0; h.model.wrong[0] == '\0' && i < (h.lazy ? LAZY_STEPS : STEPS); i++) {
        if (below(h.lazy ? 80 : 12) == 0) {
            record_disk_stop_at(h.disk, 1 + below(30));
        }
        if (below(40) == 0) {
            record_disk_fail_sync(h.disk, 1 + below(4));
        }
        bool alive = rig_run(&h.rig, step, NULL);
        if (!alive && !h.disk->stopped) {
            raftd_model_must(&h.model,
                             h.rig.error == RQ_IO && h.disk->fail_sync != 0 && h.disk->syncs >= h.disk->fail_sync,
                             "ended without a reason: %s: %s", h.rig.why, rq_err_name(h.rig.error));
        }
        bool filled = h.fills != NULL && h.fill_steps == 0;
        if (!alive || h.disk->stopped || filled || below(h.lazy ? 80 : 25) == 0) {
            die_and_recover();
        }
    }
    tally->acknowledged += h.model.acknowledged;
    tally->staged += h.model.staged;
    tally->dropped += h.model.dropped;
    tally->found += h.model.found_unanswered;
    tally->lost += h.model.lost_unanswered;
    tally->refused += h.model.refused;
    memcpy(tally->wrong, h.model.wrong, sizeof tally->wrong);
}

/* --- processes ------------------------------------------------------------------------------------------------------------------ */

static void tally_begin(void)
{
    if (tally == NULL) {
        void *p = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        check(p != MAP_FAILED);
        tally = p;
    }
    memset(tally, 0, sizeof *tally);
}

/* Histories from seed on, in a process of their own.  False: something was wrong. */
static bool play_some(uint64_t seed, unsigned count, enum plant plant)
{
    fflush(stdout);
    pid_t pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        for (unsigned i = 0; i < count && tally->wrong[0] == '\0'; i++) {
            play(seed + i, plant);
        }
        fflush(stdout);
        _exit(0);
    }
    int status;
    check_eq(waitpid(pid, &status, 0), pid);
    if (status != 0 && tally->wrong[0] == '\0') {
        (void)snprintf(tally->wrong, sizeof tally->wrong, "the process ended with status %#x", (unsigned)status);
    }
    return tally->wrong[0] == '\0';
}

static void no_death_loses_what_was_acknowledged(void)
{
    const char *one = getenv("RQ_RAFTD_POWER_SEED"), *many = getenv("RQ_RAFTD_POWER_STATES");
    unsigned states = many != NULL ? (unsigned)strtoul(many, NULL, 10) : STATES;
    tally_begin();
    bool good = true;
    if (one != NULL) {
        good = play_some(strtoull(one, NULL, 10), 1, PLANT_NONE);
    } else {
        for (uint64_t seed = 1; good && tally->states < states; seed += HISTORIES_PER_PROCESS) {
            good = play_some(seed, HISTORIES_PER_PROCESS, PLANT_NONE);
        }
    }
    printf(
        "# %u histories, %u deaths, %u of them power losses, %u in a start; %u acknowledged, %u staged, %u refused; "
        "unheard "
        "of: %u there, %u not\n",
        tally->histories, tally->states, tally->power_losses, tally->starts_cut, tally->acknowledged, tally->staged,
        tally->refused, tally->found, tally->lost);
    printf("# %u created, %u dropped, %u back-fills, %u resets, %u compactions, %u scrubs\n", tally->created,
           tally->dropped, tally->backfills, tally->resets, tally->compactions, tally->scrubs);
    if (!good) {
        printf("# seed %llu: %s\n", (unsigned long long)tally->seed, tally->wrong);
    }
    check(good);
    if (one == NULL && states >= STATES) { /* each kind of thing was met */
        check(tally->acknowledged > 2 * states && tally->staged > 100 && tally->found > 50 && tally->lost > 50);
        check(tally->dropped > 20 && tally->resets > 50 && tally->compactions > 50 && tally->refused > 50);
        check(tally->scrubs > 50);
    }
}

/* Without one of its syncs raftd must fail here, else the histories prove nothing. */
static void each_sync_that_is_taken_away_is_found_out(void)
{
    bool all = true;
    for (enum plant plant = PLANT_LOG; plant < PLANTS; plant++) {
        tally_begin();
        bool good = true;
        for (uint64_t seed = 1; good && seed < 1000; seed += HISTORIES_PER_PROCESS) {
            good = play_some(seed, HISTORIES_PER_PROCESS, plant);
        }
        printf("# without %s: %s, %u deaths\n", plant_names[plant], good ? "nothing was noticed" : tally->wrong,
               tally->states);
        all = all && !good;
    }
    check(all);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(no_death_loses_what_was_acknowledged),
        TAP(each_sync_that_is_taken_away_is_found_out),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
