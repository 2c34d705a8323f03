/* record_disk: loses exactly what was not synced, nothing else, and the same for the same seed. */
#include <stdlib.h>

#include "tests/support/record_disk.h"
#include "tests/support/tap.h"

enum { SEEDS = 300 };

static struct rq_file *open_file(struct record_disk *d, const char *path, int flags)
{
    struct rq_file *f = NULL;
    check_eq(d->disk.ops->open(&d->disk, path, RQ_OPEN_WRITE | flags, 0600, &f), RQ_OK);
    return f;
}

static void put(struct rq_file *f, uint64_t offset, char letter, size_t bytes)
{
    static char block[65536];
    check(bytes <= sizeof block);
    memset(block, letter, bytes);
    check_eq(f->disk->ops->write(f, block, bytes, offset), RQ_OK);
}

/* The letter at offset, 0 behind the end. */
static char at(struct record_disk *d, const char *path, uint64_t offset)
{
    struct rq_file *f = NULL;
    if (d->disk.ops->open(&d->disk, path, RQ_OPEN_READ, 0, &f) != RQ_OK) {
        return 0;
    }
    char letter = 0;
    size_t n = 0;
    check_eq(d->disk.ops->read(f, &letter, 1, offset, &n), RQ_OK);
    d->disk.ops->close(f);
    return n == 1 ? letter : 0;
}

static void behaves_as_a_file_system(void)
{
    struct record_disk *d = record_disk_new();
    const struct rq_disk_ops *ops = d->disk.ops;
    struct rq_file *f = NULL;
    check_eq(ops->open(&d->disk, "/a/b", RQ_OPEN_WRITE | RQ_OPEN_CREATE, 0600, &f), RQ_NOTFOUND);
    check_eq(ops->mkdir(&d->disk, "/a", 0700), RQ_OK);
    check_eq(ops->mkdir(&d->disk, "/a/", 0700), RQ_EXISTS);
    check_eq(ops->open(&d->disk, "/a/b", RQ_OPEN_WRITE, 0600, &f), RQ_NOTFOUND);
    f = open_file(d, "/a/./b", RQ_OPEN_CREATE | RQ_OPEN_EXCLUSIVE);
    put(f, 10, 'x', 5000);
    char got[8000];
    size_t n = 0;
    check_eq(ops->read(f, got, sizeof got, 0, &n), RQ_OK);
    check_eq(n, 5010);
    check(got[9] == 0 && got[10] == 'x' && got[5009] == 'x');
    check_eq(ops->truncate(f, 4000), RQ_OK);
    check_eq(ops->reserve(f, 0, 6000), RQ_OK);
    check_eq(ops->read(f, got, sizeof got, 0, &n), RQ_OK);
    check_eq(n, 6000);
    check(got[3999] == 'x' && got[4000] == 0 && got[5009] == 0);
    check_eq(ops->rename(&d->disk, "/a/b", "/c"), RQ_OK);
    struct rq_file_info info;
    check_eq(ops->stat(&d->disk, "/a/b", &info), RQ_NOTFOUND);
    check_eq(ops->stat(&d->disk, "/c", &info), RQ_OK);
    check_eq(info.size, 6000);
    check_eq(ops->unlink(&d->disk, "/c"), RQ_OK);
    check_eq(ops->info(f, &info), RQ_OK);
    check_eq(info.links, 0);
    ops->close(f);
    record_disk_free(d);
}

static void locks_belong_to_handles(void)
{
    struct record_disk *d = record_disk_new();
    const struct rq_disk_ops *ops = d->disk.ops;
    struct rq_file *a = open_file(d, "/f", RQ_OPEN_CREATE), *b = open_file(d, "/f", 0);
    bool taken = false;
    check_eq(ops->lock(a, 100, 10, RQ_SHARED), RQ_OK);
    check_eq(ops->lock(b, 105, 10, RQ_SHARED), RQ_OK);
    check_eq(ops->lock(a, 100, 10, RQ_EXCLUSIVE), RQ_BUSY);
    check_eq(ops->lock(a, 100, 5, RQ_EXCLUSIVE), RQ_OK);
    check_eq(ops->lock(a, 102, 1, RQ_UNLOCKED), RQ_OK);
    check_eq(ops->lock(b, 102, 1, RQ_EXCLUSIVE), RQ_OK);
    check_eq(ops->lock(b, 103, 1, RQ_SHARED), RQ_BUSY);
    ops->close(a);
    check_eq(ops->lock(b, 0, 0, RQ_EXCLUSIVE), RQ_OK);
    a = open_file(d, "/f", 0);
    check_eq(ops->lock_test(a, 1000000, 1, &taken), RQ_OK);
    check(taken);
    record_disk_crash(d);
    ops->close(a);
    ops->close(b);
    record_disk_start(d);
    a = open_file(d, "/f", 0);
    check_eq(ops->lock(a, 0, 0, RQ_EXCLUSIVE), RQ_OK);
    ops->close(a);
    record_disk_free(d);
}

static void mappings_are_shared_and_survive_a_crash_as_content(void)
{
    struct record_disk *d = record_disk_new();
    const struct rq_disk_ops *ops = d->disk.ops;
    struct rq_file *f = open_file(d, "/f", RQ_OPEN_CREATE), *g = open_file(d, "/f", 0);
    check_eq(ops->truncate(f, 65536), RQ_OK);
    void *a = NULL, *b = NULL;
    check_eq(ops->map(f, 32768, 32768, &a), RQ_OK);
    check_eq(ops->map(g, 0, 65536, &b), RQ_OK);
    *(char *)a = 'm';
    check_eq(((char *)b)[32768], 'm');
    check_eq(at(d, "/f", 32768), 'm');
    put(f, 1, 'w', 1);
    check_eq(((char *)b)[1], 'w');
    *(char *)a = 'n';
    record_disk_crash(d);
    *(char *)a = 'z'; /* too late */
    record_disk_start(d);
    check_eq(at(d, "/f", 32768), 'n');
    ops->unmap(f, a, 32768);
    ops->close(f);
    ops->close(g);
    record_disk_free(d);
}

static void dead_handles_change_nothing(void)
{
    struct record_disk *d = record_disk_new();
    const struct rq_disk_ops *ops = d->disk.ops;
    struct rq_file *f = open_file(d, "/f", RQ_OPEN_CREATE);
    put(f, 0, 'a', 1);
    record_disk_crash(d);
    check_eq(ops->unlink(&d->disk, "/f"), RQ_IO);
    record_disk_start(d);
    check_eq(ops->write(f, "b", 1, 0), RQ_IO);
    check_eq(ops->sync(f), RQ_IO);
    ops->close(f);
    check_eq(at(d, "/f", 0), 'a');
    record_disk_free(d);
}

static void synced_data_under_a_synced_name_survives_power_loss(void)
{
    unsigned tail_seen[3] = { 0 }; /* lost, torn, kept */
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct record_disk *d = record_disk_new();
        struct rq_file *f = open_file(d, "/f", RQ_OPEN_CREATE);
        check_eq(d->disk.ops->sync_dir(&d->disk, "/"), RQ_OK);
        put(f, 0, 'a', 9000);
        check_eq(d->disk.ops->sync(f), RQ_OK);
        put(f, 4096, 'b', 1024);
        put(f, 4096, 'c', 512);
        record_disk_power_loss(d, seed);
        d->disk.ops->close(f);
        record_disk_start(d);
        for (unsigned i = 0; i < 9000; i += 100) {
            char letter = at(d, "/f", i);
            bool first = i >= 4096 && i < 4608, second = i >= 4608 && i < 5120;
            check(letter == 'a' || (letter == 'b' && (first || second)) || (letter == 'c' && first));
        }
        char first = at(d, "/f", 4096), second = at(d, "/f", 4608);
        tail_seen[first == 'a' && second == 'a' ? 0 : first == 'c' && second == 'b' ? 2 : 1]++;
        check_eq(at(d, "/f", 9000), 0);
        record_disk_free(d);
    }
    check(tail_seen[0] > SEEDS / 20 && tail_seen[1] > SEEDS / 20 && tail_seen[2] > SEEDS / 20);
}

static void dsync_is_durable_at_return_and_torn_before(void)
{
    unsigned kept = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct record_disk *d = record_disk_new();
        struct rq_file *f = open_file(d, "/f", RQ_OPEN_CREATE | RQ_OPEN_DSYNC);
        check_eq(d->disk.ops->sync_dir(&d->disk, "/"), RQ_OK);
        put(f, 0, 'a', 4096);
        put(f, 4096, 'b', 4096);
        record_disk_stop_at(d, 1);
        check_eq(d->disk.ops->write(f, "c", 1, 8192), RQ_IO);
        check(d->stopped);
        record_disk_power_loss(d, seed);
        d->disk.ops->close(f);
        record_disk_start(d);
        check_eq(at(d, "/f", 0), 'a');
        check_eq(at(d, "/f", 8191), 'b');
        kept += at(d, "/f", 8192) == 'c';
        record_disk_free(d);
    }
    check(kept > SEEDS / 10 && kept < SEEDS * 9 / 10);
}

static void names_need_a_synced_directory_and_keep_their_order(void)
{
    unsigned seen[3] = { 0 };
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct record_disk *d = record_disk_new();
        const struct rq_disk_ops *ops = d->disk.ops;
        struct rq_file *f = open_file(d, "/one", RQ_OPEN_CREATE);
        put(f, 0, '1', 1);
        check_eq(ops->sync(f), RQ_OK);
        ops->close(f);
        check_eq(ops->sync_dir(&d->disk, "/"), RQ_OK);
        f = open_file(d, "/new", RQ_OPEN_CREATE);
        put(f, 0, '2', 1);
        check_eq(ops->sync(f), RQ_OK);
        ops->close(f);
        check_eq(ops->rename(&d->disk, "/new", "/one"), RQ_OK);
        record_disk_power_loss(d, seed);
        record_disk_start(d);
        char one = at(d, "/one", 0), fresh = at(d, "/new", 0);
        check((one == '1' && fresh == 0) || (one == '1' && fresh == '2') || (one == '2' && fresh == 0));
        seen[one == '2' ? 2 : fresh == '2' ? 1 : 0]++;
        record_disk_free(d);
    }
    check(seen[0] > SEEDS / 20 && seen[1] > 0 && seen[2] > SEEDS / 20);
}

static void renames_across_directories_are_whole(void)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct record_disk *d = record_disk_new();
        const struct rq_disk_ops *ops = d->disk.ops;
        record_disk_mkdir_p(d, "/from/here");
        record_disk_mkdir_p(d, "/to");
        struct rq_file *f = open_file(d, "/from/here/f", RQ_OPEN_CREATE);
        put(f, 0, 'f', 1);
        check_eq(ops->sync(f), RQ_OK);
        ops->close(f);
        check_eq(ops->sync_dir(&d->disk, "/from/here"), RQ_OK);
        check_eq(ops->rename(&d->disk, "/from/here/f", "/to/f"), RQ_OK);
        if (seed % 2 == 0) {
            check_eq(ops->sync_dir(&d->disk, "/to"), RQ_OK);
        }
        record_disk_power_loss(d, seed);
        record_disk_start(d);
        bool old = at(d, "/from/here/f", 0) == 'f', new = at(d, "/to/f", 0) == 'f';
        check(old != new);
        check(new || seed % 2 != 0);
        record_disk_free(d);
    }
}

static void crash_loses_nothing_and_power_loss_later_still_does(void)
{
    unsigned lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct record_disk *d = record_disk_new();
        struct rq_file *f = open_file(d, "/f", RQ_OPEN_CREATE);
        check_eq(d->disk.ops->sync_dir(&d->disk, "/"), RQ_OK);
        put(f, 0, 'a', 10);
        record_disk_crash(d);
        d->disk.ops->close(f);
        record_disk_start(d);
        check_eq(at(d, "/f", 9), 'a');
        record_disk_power_loss(d, seed);
        record_disk_start(d);
        lost += at(d, "/f", 9) == 0;
        record_disk_free(d);
    }
    check(lost > SEEDS / 10 && lost < SEEDS);
}

static void failed_sync_drops_what_reads_still_see(void)
{
    struct record_disk *d = record_disk_new();
    struct rq_file *f = open_file(d, "/f", RQ_OPEN_CREATE);
    check_eq(d->disk.ops->sync_dir(&d->disk, "/"), RQ_OK);
    put(f, 0, 'a', 10);
    check_eq(d->disk.ops->sync(f), RQ_OK);
    put(f, 0, 'b', 10);
    record_disk_fail_sync(d, 1);
    check_eq(d->disk.ops->sync(f), RQ_IO);
    check_eq(d->disk.ops->sync(f), RQ_OK); /* the trap: it has nothing to write */
    check_eq(at(d, "/f", 0), 'b');
    record_disk_evict(d);
    check_eq(at(d, "/f", 0), 'a');
    put(f, 0, 'c', 10);
    check_eq(d->disk.ops->sync(f), RQ_OK);
    record_disk_evict(d);
    check_eq(at(d, "/f", 0), 'c');
    d->disk.ops->close(f);
    record_disk_free(d);
}

static void lying_syncs_are_found_out(void)
{
    unsigned lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct record_disk *d = record_disk_new();
        record_disk_lie(d, RECORD_LIE_SYNC);
        struct rq_file *f = open_file(d, "/f", RQ_OPEN_CREATE);
        check_eq(d->disk.ops->sync_dir(&d->disk, "/"), RQ_OK);
        put(f, 0, 'a', 10);
        check_eq(d->disk.ops->sync(f), RQ_OK);
        record_disk_power_loss(d, seed);
        d->disk.ops->close(f);
        record_disk_start(d);
        lost += at(d, "/f", 0) == 0;
        record_disk_free(d);
    }
    check(lost > 0);
}

static uint64_t look_count;

static void look(void *ctx, struct record_disk *d)
{
    struct record_disk *copy = record_disk_fork(d);
    record_disk_power_loss(copy, look_count * 7 + 1);
    record_disk_start(copy);
    char letter = at(copy, "/f", 0);
    check(letter == *(char *)ctx || letter == *(char *)ctx + 1 || letter == 0);
    record_disk_free(copy);
    look_count++;
}

static void a_watcher_forks_every_moment(void)
{
    struct record_disk *d = record_disk_new();
    char synced = 'a' - 1;
    struct rq_file *f = open_file(d, "/f", RQ_OPEN_CREATE);
    check_eq(d->disk.ops->sync_dir(&d->disk, "/"), RQ_OK);
    put(f, 0, synced, 1);
    check_eq(d->disk.ops->sync(f), RQ_OK);
    uint64_t before = d->moments;
    record_disk_watch(d, look, &synced);
    while (synced != 'z') {
        put(f, 0, (char)(synced + 1), 600);
        check_eq(d->disk.ops->sync(f), RQ_OK);
        synced++;
    }
    check_eq(look_count, d->moments - before);
    check_eq(look_count, 52);
    d->disk.ops->close(f);
    record_disk_free(d);
}

static void same_seed_same_bytes(void)
{
    char first[8192], second[8192];
    for (int run = 0; run < 2; run++) {
        struct record_disk *d = record_disk_new();
        struct rq_file *f = open_file(d, "/f", RQ_OPEN_CREATE);
        check_eq(d->disk.ops->sync_dir(&d->disk, "/"), RQ_OK);
        for (int i = 0; i < 50; i++) {
            put(f, (uint64_t)(i * 377 % 7000), (char)('A' + i), 700);
        }
        struct record_disk *copy = record_disk_fork(d);
        record_disk_power_loss(copy, 99);
        record_disk_start(copy);
        struct rq_file *g = open_file(copy, "/f", 0);
        size_t n = 0;
        memset(run == 0 ? first : second, 0, sizeof first);
        check_eq(copy->disk.ops->read(g, run == 0 ? first : second, sizeof first, 0, &n), RQ_OK);
        copy->disk.ops->close(g);
        d->disk.ops->close(f);
        record_disk_free(copy);
        record_disk_free(d);
    }
    check(memcmp(first, second, sizeof first) == 0);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(behaves_as_a_file_system),
        TAP(locks_belong_to_handles),
        TAP(mappings_are_shared_and_survive_a_crash_as_content),
        TAP(dead_handles_change_nothing),
        TAP(synced_data_under_a_synced_name_survives_power_loss),
        TAP(dsync_is_durable_at_return_and_torn_before),
        TAP(names_need_a_synced_directory_and_keep_their_order),
        TAP(renames_across_directories_are_whole),
        TAP(crash_loses_nothing_and_power_loss_later_still_does),
        TAP(failed_sync_drops_what_reads_still_see),
        TAP(lying_syncs_are_found_out),
        TAP(a_watcher_forks_every_moment),
        TAP(same_seed_same_bytes),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
