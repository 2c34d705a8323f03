/* raftd and memory: a fixed life, again and again, in which the first, the second, ... allocation fails, once.  What was asked for
 * then is answered with an error, and nothing of it has happened; or the line on which it was asked is ended, and who asks again
 * hears the truth; or raftd ends.  Whichever it was, the next start finds what was acknowledged and nothing that was refused
 * (tests/support/raftd_model.h).
 *
 * The linker puts ours in the place of malloc in all that is linked statically: session, catalog, driver, node, C-Raft's core,
 * log and replica.  Each life is a process of its own, so that one that crashes or hangs is a number. */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raftd/ops/journal.h"
#include "tests/support/failing_memory.h"
#include "tests/support/fault_disk.h"
#include "tests/support/raftd_model.h"
#include "tests/support/record_disk.h"
#include "tests/support/tap.h"

enum { LIFE_SECONDS_MAX = 10, ROUNDS = 20 };

/* --- what fails --------------------------------------------------------------------------------------------------------- */

static struct {
    uint64_t countdown; /* until the one that fails; 0: passed, or not armed */
    uint64_t count;
    bool hit;
} memory;

bool allocation_fails(void)
{
    memory.count++;
    if (memory.countdown == 0) {
        return false;
    }
    memory.countdown--;
    if (memory.countdown > 0) {
        return false;
    }
    memory.hit = true;
    return true;
}

void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *sure_malloc(size_t bytes);
void *sure_calloc(size_t count, size_t bytes);
void *sure_realloc(void *p, size_t bytes);

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return allocation_fails() ? NULL : __real_aligned_alloc(alignment, bytes);
}

void *sure_malloc(size_t bytes)
{
    return __real_malloc(bytes);
}

void *sure_calloc(size_t count, size_t bytes)
{
    return __real_calloc(count, bytes);
}

void *sure_realloc(void *p, size_t bytes)
{
    return __real_realloc(p, bytes);
}

/* --- the life ------------------------------------------------------------------------------------------------------------ */

static struct life {
    struct record_disk *disk;
    struct fault_disk above; /* no call to it fails; its handles are memory, too */
    struct rig rig;
    struct raftd_model model;
} l;

/* What the test sees of the processes that live them. */
static struct tally {
    unsigned lives, ended, refused_start, failed, broken, acknowledged;
    uint64_t allocations;
    bool hit;
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
    raftd_model_must(&l.model, err == RQ_OK || (memory.hit && (err == RQ_NOMEM || err == RQ_BUSY)), "%s: %s", what,
                     rq_err_name(err));
}

static void compact(void *ctx)
{
    char text[512] = "";
    (void)ctx;
    background(rq_catalog_compact(l.rig.catalog, text), "compaction");
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
    }
    if (db != NULL) {
        rq_database_release(db);
        rq_database_unref(db);
    }
}

/* After each step: a line that raftd ended is opened again. */
static void settle(void)
{
    rig_settle(&l.rig);
    if (!raftd_door_open(&l.model.door)) {
        tally->broken += memory.hit;
        bool connected = raftd_model_connect(&l.model);
        if (!connected) {
            connected = raftd_model_connect(&l.model);
        }
        raftd_model_must(&l.model, connected, "sent away twice");
    }
}

static void commit(struct model_name *n, bool staged)
{
    (void)raftd_model_commit(&l.model, n, staged);
    settle();
}

static void create(struct model_name *n)
{
    if (n->id == 0) {
        raftd_model_create(&l.model, n);
        settle();
    }
}

/* Whatever has failed by now: it is served. */
static void is_served(struct model_name *n)
{
    unsigned before = l.model.acknowledged;
    create(n);
    commit(n, false);
    raftd_model_must(&l.model, !memory.hit || l.model.acknowledged == before + 1, "%s is not served any more", n->name);
}

static void live(void *ctx)
{
    struct model_name *a = &l.model.names[0], *b = &l.model.names[1];
    (void)ctx;
    settle();
    create(a);
    create(b);
    for (unsigned i = 0; i < ROUNDS; i++) {
        (void)raftd_model_commit(&l.model, a, false); /* two on one base: one of them is refused */
        commit(a, false);
        commit(b, i % 2 == 1);
    }
    tend(a);
    commit(a, false);
    raftd_model_look(&l.model, a);
    raftd_model_ask(&l.model, a);
    compact(NULL);
    commit(b, true);
    if (b->id != 0) {
        raftd_model_drop(&l.model, b);
        settle();
    }
    create(b);
    commit(b, false);
    enum rq_err err = rq_log_prepare(l.rig.log);
    if (err != RQ_OK && err != RQ_FULL) {
        rq_fatal("prepare", err);
    }
    compact(NULL);
    tend(b);
    commit(b, false);
    uint64_t left = memory.countdown;
    memory.countdown = 0;
    is_served(a);
    is_served(b);
    memory.countdown = left;
}

static void verify(void *ctx)
{
    (void)ctx;
    raftd_model_verify(&l.model);
}

static void start_again(void)
{
    raftd_door_gone(&l.model.door);
    record_disk_crash(l.disk);
    record_disk_start(l.disk);
    l.model.life++;
}

/* late: what fails is an allocation of the start over all that a life without failures left. */
static void live_with_fault(uint64_t nth, bool late)
{
    l.disk = record_disk_new();
    record_disk_mkdir_p(l.disk, RIG_DIR);
    fault_disk_init(&l.above, &l.disk->disk);
    l.rig = (struct rig){ .disk = &l.above.disk, .segment_bytes = 20480, .cache_bytes = 1u << 20 };
    raftd_model_init(&l.model, &l.rig, 5);
    l.model.silent = hears;
    l.model.fails = true;
    memory.countdown = late ? 0 : nth;
    if (!rig_start(&l.rig)) {
        tally->refused_start++;
        raftd_model_must(&l.model, memory.hit && l.rig.error == RQ_NOMEM, "does not start: %s: %s", l.rig.why,
                         rq_err_name(l.rig.error));
        start_again();
        raftd_model_must(&l.model, rig_start(&l.rig), "does not start after it: %s: %s", l.rig.why,
                         rq_err_name(l.rig.error));
    }
    if (l.model.wrong[0] == '\0' && !rig_run(&l.rig, live, NULL)) {
        tally->ended++;
        raftd_model_must(&l.model, memory.hit && l.rig.error == RQ_NOMEM, "ended: %s: %s", l.rig.why,
                         rq_err_name(l.rig.error));
    }
    if (late) {
        start_again();
        memory.countdown = nth;
        if (!rig_start(&l.rig) || !rig_run(&l.rig, compact, NULL)) {
            tally->refused_start++;
            raftd_model_must(&l.model, memory.hit && l.rig.error == RQ_NOMEM, "does not start again: %s: %s", l.rig.why,
                             rq_err_name(l.rig.error));
        } else {
            memory.countdown = 0; /* whatever failed in the start: all is served */
            raftd_model_must(&l.model, rig_run(&l.rig, verify, NULL), "ended: %s", l.rig.why);
        }
    }
    tally->failed += l.model.failed;
    tally->acknowledged += l.model.acknowledged;
    tally->hit = memory.hit;
    tally->allocations = memory.count;
    raftd_model_must(&l.model, memory.hit || l.model.failed == 0, "a failure without a fault");
    memory.countdown = 0;
    l.model.fails = false;
    start_again();
    if (l.model.wrong[0] == '\0' && raftd_model_must(&l.model, rig_start(&l.rig), "does not start again: %s: %s",
                                                     l.rig.why, rq_err_name(l.rig.error))) {
        raftd_model_must(&l.model, rig_run(&l.rig, verify, NULL), "ended while nothing failed: %s", l.rig.why);
    }
    memcpy(tally->wrong, l.model.wrong, sizeof tally->wrong);
}

/* False: nothing failed, there are no more allocations. */
static bool live_in_a_process(uint64_t nth, bool late)
{
    fflush(stdout);
    pid_t pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        alarm(LIFE_SECONDS_MAX);
        live_with_fault(nth, late);
        fflush(stdout);
        _exit(0);
    }
    int status;
    check_eq(waitpid(pid, &status, 0), pid);
    tally->lives++;
    if (tally->wrong[0] != '\0' || status != 0) {
        printf("# allocation %llu: %s (status %#x)\n", (unsigned long long)nth, tally->wrong, (unsigned)status);
    }
    check(tally->wrong[0] == '\0' && status == 0);
    return tally->hit;
}

static void live_with_each_fault(bool late)
{
    void *p = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED);
    tally = p;
    const char *one = getenv("RQ_RAFTD_MEMORY_NTH"); /* alone, for who looks into it */
    uint64_t nth = one != NULL ? strtoull(one, NULL, 10) : 1;
    while (live_in_a_process(nth, late) && one == NULL) {
        nth++;
    }
    printf("# %u lives, %u ended, %u did not start, %u errors answered, %u lines ended, %u acknowledged\n",
           tally->lives, tally->ended, tally->refused_start, tally->failed, tally->broken, tally->acknowledged);
    check(one != NULL || tally->lives > 100);
    munmap(p, sizeof *tally);
}

static void lack_of_memory_ends_it_or_refuses_cleanly(void)
{
    live_with_each_fault(false);
}

static void starts_without_memory_lose_nothing(void)
{
    live_with_each_fault(true);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(lack_of_memory_ends_it_or_refuses_cleanly),
        TAP(starts_without_memory_lose_nothing),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
