/* replica and power: at every moment of a random life the power goes; what is found then is exactly one of the transactions'
 * states, and no older than the last that was synced; none of its pages is taken for changed, and one bit that is changed is
 * found.  With the sync before a reset's publication taken away, it is not. */
#include <stdlib.h>
#include <string.h>

#include "tests/support/record_disk.h"
#include "tests/support/replica_model.h"
#include "tests/support/tap.h"

enum { VERSIONS = 40, PAGE_SIZE = 512 };

struct version {
    uint8_t *pages; /* owns */
    uint32_t page_count;
};

/* One life that is looked at. */
static struct life {
    struct model m;
    struct version history[VERSIONS + 1];
    struct record_disk *disk;
    uint64_t synced; /* version */
    uint64_t random; /* for operations and power; transactions have the model's */
    uint32_t looks, bad, flips;
    bool quiet;        /* damage is expected */
    uint32_t found[3]; /* opened with the newest version, with an older one, with no file */
} life;

static uint32_t random_u32(void)
{
    life.random = life.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(life.random >> 32);
}

/* --- what a survivor finds ----------------------------------------------------------------------------------------------- */

/* A control page of nobody else's. */
static struct {
    struct rq_control_head head;
    struct rq_slot slots[RQ_SLOT_COUNT];
} page;
static struct rq_control survivor_control = { .head = &page.head, .slots = page.slots };

static void survivor_init(struct model *s, struct record_disk *disk)
{
    *s = life.m;
    s->disk = &disk->disk;
    s->control = survivor_control;
    s->replica = NULL;
    s->twin = NULL;
    s->pages = NULL;
}

static bool complain(const char *what, long long a, long long b)
{
    if (!life.quiet) {
        printf("# %s: %lld, %lld (moment %llu)\n", what, a, b, (unsigned long long)life.disk->moments);
    }
    return false;
}

/* Opens and compares.  extra: pages of the one version past the history that may be there, too. */
static bool survivor_open(struct model *s, uint64_t version_min, const struct model *extra)
{
    const enum rq_err err = model_open(s);
    if (err == RQ_NOTFOUND && version_min == 0) {
        life.found[2]++;
        return true;
    }
    if (err != RQ_OK) {
        return complain(rq_err_name(err), (long long)version_min, 0);
    }
    const uint64_t version = s->state.version;
    life.found[version < life.m.state.version]++;
    const bool is_extra = extra != NULL && version == extra->state.version;
    if (version < version_min || (!is_extra && (version > VERSIONS || life.history[version].pages == NULL))) {
        return complain("version", (long long)version, (long long)version_min);
    }
    const struct version expected =
        is_extra ? (struct version){ extra->pages, extra->state.page_count } : life.history[version];
    if (s->state.page_count != expected.page_count || expected.page_count == 0) {
        return complain("pages", s->state.page_count, expected.page_count);
    }
    static uint8_t found[PAGE_SIZE];
    for (uint32_t pgno = 1; pgno <= expected.page_count; pgno++) {
        if (rq_replica_read(s->replica, pgno, found) != RQ_OK ||
            memcmp(found, expected.pages + (size_t)(pgno - 1) * PAGE_SIZE, PAGE_SIZE) != 0) {
            return complain("page of version", pgno, (long long)version);
        }
    }
    const size_t bytes = (size_t)expected.page_count * PAGE_SIZE;
    s->pages = malloc(bytes);
    memcpy(s->pages, expected.pages, bytes);
    return true;
}

static void survivor_fini(struct model *s)
{
    model_close(s);
    free(s->pages);
    s->pages = NULL;
}

static bool scrub(struct model *s, enum rq_err expected, char text[160])
{
    static uint32_t pass;
    uint64_t bytes = UINT32_MAX;
    const enum rq_err err = rq_replica_scrub(s->replica, ++pass, &bytes, text);
    return err == expected || complain(err == RQ_OK ? "nothing was found" : text, err, expected);
}

/* Once a scrub has seen all pages, one bit of one of them is not changed unnoticed: not by the next, not by who reads it, and
 * not by a restart; and when it is right again, all is well. */
static bool flip_is_found(struct model *s)
{
    char text[160], expected[32];
    uint8_t byte, found[PAGE_SIZE];
    size_t got;
    struct rq_file *file;
    if (s->state.page_count < 2) {
        return true;
    }
    const uint32_t pgno = 2 + random_u32() % (s->state.page_count - 1);
    const uint64_t offset = (uint64_t)(pgno - 1) * PAGE_SIZE + random_u32() % PAGE_SIZE;
    if (!scrub(s, RQ_OK, text) || s->disk->ops->open(s->disk, s->path, RQ_OPEN_WRITE, 0, &file) != RQ_OK) {
        return false;
    }
    const uint8_t bit = (uint8_t)(1u << random_u32() % 8);
    bool good = s->disk->ops->read(file, &byte, 1, offset, &got) == RQ_OK && got == 1;
    byte ^= bit;
    good = good && s->disk->ops->write(file, &byte, 1, offset) == RQ_OK;
    snprintf(expected, sizeof expected, "page %u was", pgno);
    good = good && scrub(s, RQ_CORRUPT, text) && strstr(text, expected) != NULL;
    good = good && rq_replica_read(s->replica, pgno, found) == RQ_CORRUPT;
    model_close(s);
    good = good && model_open(s) == RQ_CORRUPT && strstr(s->text, expected) != NULL;
    model_close(s);
    byte ^= bit;
    good = good && s->disk->ops->write(file, &byte, 1, offset) == RQ_OK && model_open(s) == RQ_OK;
    s->disk->ops->close(file);
    life.flips++;
    return (good && model_matches(s)) || complain("a flip was not found, or stayed", pgno, 0);
}

static bool power_lost_here(struct record_disk *disk)
{
    struct model s;
    survivor_init(&s, disk);
    record_disk_power_loss(disk, random_u32());
    record_disk_start(disk);
    bool good = survivor_open(&s, life.synced, NULL);
    if (good && s.replica != NULL) { /* and it can go on from there, to the last page of its file */
        good = model_random(&s, 0) == RQ_OK && rq_replica_backfill(s.replica) == RQ_OK &&
               rq_replica_reset(s.replica) == RQ_OK && rq_replica_shrink(s.replica) == RQ_OK && model_matches(&s);
    }
    good = good && (s.replica == NULL || flip_is_found(&s));
    survivor_fini(&s);
    return good;
}

/* Killed, started again, gone on without a sync; then the power goes. */
static bool killed_here_then_power_lost(struct record_disk *disk)
{
    struct model s, last;
    survivor_init(&s, disk);
    record_disk_start(disk);
    bool good = survivor_open(&s, life.synced, NULL);
    if (!good || s.replica == NULL || model_random(&s, 0) != RQ_OK) {
        survivor_fini(&s);
        return good && s.replica == NULL;
    }
    record_disk_power_loss(disk, random_u32());
    model_close(&s);
    record_disk_start(disk);
    survivor_init(&last, disk);
    good = survivor_open(&last, life.synced, &s);
    survivor_fini(&last);
    survivor_fini(&s);
    return good;
}

static void look(void *ctx, struct record_disk *disk)
{
    (void)ctx;
    for (int i = 0; i < 4; i++) {
        struct record_disk *copy = record_disk_fork(disk);
        const bool good = i == 0 ? killed_here_then_power_lost(copy) : power_lost_here(copy);
        life.looks++;
        life.bad += !good;
        record_disk_free(copy);
    }
}

/* --- the life ------------------------------------------------------------------------------------------------------------ */

static void life_begin(uint64_t seed)
{
    model_init(&life.m, PAGE_SIZE, seed);
    life.disk = record_disk_new();
    record_disk_mkdir_p(life.disk, life.m.dir);
    life.m.disk = &life.disk->disk;
    life.m.soft_frames = 10;
    life.m.hard_frames = 25;
    life.m.keeps_hashes = true;
    life.random = seed;
    life.synced = 0;
}

static void life_end(void)
{
    model_fini(&life.m);
    record_disk_free(life.disk);
}

/* Every version's pages, from a life without events. */
static void history_write(uint64_t seed)
{
    life_begin(seed);
    for (uint32_t v = 1; v <= VERSIONS; v++) {
        check_eq(model_random(&life.m, v == 1 ? 12 : 0), RQ_OK);
        check_eq(life.m.state.version, v);
        const size_t bytes = (size_t)life.m.state.page_count * PAGE_SIZE;
        life.history[v] = (struct version){ malloc(bytes), life.m.state.page_count };
        memcpy(life.history[v].pages, life.m.pages, bytes);
    }
    life_end();
}

static void history_free(void)
{
    for (uint32_t v = 1; v <= VERSIONS; v++) {
        free(life.history[v].pages);
        life.history[v].pages = NULL;
    }
}

static void reset_maybe_unsynced(bool unsynced)
{
    record_disk_lie(life.disk, unsynced ? RECORD_LIE_SYNC : 0);
    const enum rq_err err = rq_replica_reset(life.m.replica);
    record_disk_lie(life.disk, 0);
    check(err == RQ_OK || err == RQ_BUSY);
}

static void life_run(uint64_t seed, bool reset_unsynced)
{
    history_write(seed);
    life_begin(seed);
    record_disk_watch(life.disk, look, NULL);
    check_eq(model_random(&life.m, 12), RQ_OK);
    life.synced = 1; /* a created file is durable */
    while (life.m.state.version < VERSIONS) {
        switch (random_u32() % 10) {
            case 0:
            case 1:
                check_eq(rq_replica_backfill(life.m.replica), RQ_OK);
                life.synced = life.m.state.version;
                reset_maybe_unsynced(reset_unsynced);
                check_eq(rq_replica_shrink(life.m.replica), RQ_OK);
                break;
            case 2:
                check_eq(rq_replica_sync(life.m.replica), RQ_OK);
                life.synced = life.m.state.version;
                break;
            case 3: {
                uint64_t bytes = UINT64_C(10) * PAGE_SIZE;
                char text[160];
                check_eq(rq_replica_reserve(life.m.replica, 40), RQ_OK);
                check_eq(rq_replica_scrub(life.m.replica, (uint32_t)life.m.state.version, &bytes, text), RQ_OK);
                break;
            }
            default:
                check_eq(model_random(&life.m, 0), RQ_OK);
                break;
        }
    }
    record_disk_watch(life.disk, NULL, NULL);
    life_end();
    history_free();
}

static void lives_run(uint64_t seeds, bool reset_unsynced)
{
    life.looks = life.bad = life.flips = 0;
    memset(life.found, 0, sizeof life.found);
    life.quiet = reset_unsynced;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        life_run(seed, reset_unsynced);
    }
    printf("# %u looks, %u bad; newest version %u, older %u, no file %u\n", life.looks, life.bad, life.found[0],
           life.found[1], life.found[2]);
}

static void power_loss_at_any_moment_leaves_a_prefix_with_all_that_was_synced(void)
{
    lives_run(6, false);
    check_eq(life.bad, 0);
    check(life.flips > 1000);
    check(life.found[0] > 100 && life.found[1] > 100 && life.found[2] > 0); /* each kind of outcome was met */
}

static void reset_published_before_its_header_is_durable_is_found_out(void)
{
    lives_run(6, true);
    check(life.bad > 0);
}

/* The n-th sync fails, and the kernel drops what it should have written: that call says IO, raftd ends, and the next one finds
 * what was synced before. */
static void failed_sync_is_final_and_loses_nothing_that_was_synced(void)
{
    const uint64_t seed = 3;
    uint32_t failed = 0;
    life.quiet = false;
    history_write(seed);
    for (uint64_t n = 1; n <= 40; n++) {
        life_begin(seed);
        check_eq(model_random(&life.m, 12), RQ_OK);
        life.synced = 1;
        record_disk_fail_sync(life.disk, n);
        enum rq_err err = RQ_OK;
        while (err == RQ_OK && life.m.state.version < VERSIONS) {
            err = model_random(&life.m, 0);
            const uint32_t kind = random_u32() % 3;
            if (err == RQ_OK && kind == 0) {
                err = rq_replica_sync(life.m.replica);
                life.synced = err == RQ_OK ? life.m.state.version : life.synced;
            } else if (err == RQ_OK && kind == 1) {
                err = rq_replica_backfill(life.m.replica);
                life.synced = err == RQ_OK ? life.m.state.version : life.synced;
                err = err == RQ_OK ? rq_replica_reset(life.m.replica) : err;
            }
        }
        check(err == RQ_OK || err == RQ_IO);
        failed += err == RQ_IO;
        record_disk_crash(life.disk);
        record_disk_evict(life.disk);
        struct record_disk *copy = record_disk_fork(life.disk);
        struct model s;
        survivor_init(&s, copy);
        record_disk_start(copy);
        const bool good = survivor_open(&s, life.synced, NULL);
        survivor_fini(&s);
        record_disk_free(copy);
        life_end();
        check(good);
    }
    history_free();
    check(failed > 20);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(power_loss_at_any_moment_leaves_a_prefix_with_all_that_was_synced),
        TAP(reset_published_before_its_header_is_durable_is_found_out),
        TAP(failed_sync_is_final_and_loses_nothing_that_was_synced),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
