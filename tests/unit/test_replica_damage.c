/* replica: kills, full disks, deleted and scribbled files.  What was appended stays, and what others can write is never believed. */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raftd/wire/bytes.h"
#include "tests/support/replica_model.h"
#include "tests/support/tap.h"
#include "vfs/replica_impl.h"

static struct model m;

static struct rq_replica_wal wal_of(void)
{
    struct rq_replica_wal wal;
    rq_replica_get_wal(m.replica, &wal);
    return wal;
}

static char *sibling(const char *suffix)
{
    static char path[160];
    snprintf(path, sizeof path, "%s%s", m.path, suffix);
    return path;
}

static void write_at(const char *suffix, const void *data, size_t bytes, off_t offset)
{
    const int fd = open(sibling(suffix), O_WRONLY | O_CLOEXEC);
    check(fd >= 0);
    check_eq(pwrite(fd, data, bytes, offset), bytes);
    close(fd);
}

/* --- a disk that fails or kills at a write ------------------------------------------------------------------------------- */

static struct rq_disk_ops tricky_ops;
static struct rq_disk tricky_disk = { &tricky_ops };
static int64_t writes_left; /* then trick_cb; negative: none */
static enum rq_err (*trick_cb)(struct rq_file *f, const void *data, size_t bytes, uint64_t offset);

static enum rq_err tricky_write(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    if (writes_left >= 0) {
        writes_left--;
        if (writes_left < 0) {
            return trick_cb(f, data, bytes, offset);
        }
    }
    return rq_disk_real()->ops->write(f, data, bytes, offset);
}

static enum rq_err reserve_full(struct rq_file *f, uint64_t offset, uint64_t bytes)
{
    (void)f;
    (void)offset;
    (void)bytes;
    return RQ_FULL;
}

static enum rq_err die_in_write(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    (void)rq_disk_real()->ops->write(f, data, bytes / 2, offset);
    _exit(9);
}

static enum rq_err half_then_full(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    (void)rq_disk_real()->ops->write(f, data, bytes / 2, offset);
    return RQ_FULL;
}

static void tricky_begin(void)
{
    tricky_ops = *rq_disk_real()->ops;
    tricky_ops.write = tricky_write;
    writes_left = -1;
    m.disk = &tricky_disk;
}

static void full_disk_changes_nothing(void)
{
    model_init(&m, 1024, 11);
    tricky_begin();
    check_eq(model_random(&m, 30), RQ_OK);
    check_eq(model_random(&m, 0), RQ_OK);
    const struct rq_replica_wal before = wal_of();
    trick_cb = half_then_full;
    writes_left = 0;
    check_eq(model_random(&m, 45), RQ_FULL);
    check_eq(wal_of().frames, before.frames);
    check(model_matches(&m));
    tricky_ops.reserve = reserve_full;
    check_eq(rq_replica_reserve(m.replica, 100000), RQ_FULL);
    tricky_ops.reserve = rq_disk_real()->ops->reserve;
    check(model_matches(&m));
    check_eq(model_random(&m, 50), RQ_OK);
    check(model_matches(&m));
    writes_left = 0;
    check_eq(rq_replica_backfill(m.replica), RQ_FULL); /* into the database file: nothing is lost, it is tried again */
    check(model_matches(&m));
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check(model_file_matches(&m));
    model_fini(&m);
}

static void full_disk_leaves_nothing_of_a_new_database(void)
{
    model_init(&m, 1024, 14);
    tricky_begin();
    trick_cb = half_then_full;
    writes_left = 0;
    check_eq(model_random(&m, 30), RQ_FULL);
    check(access(m.path, F_OK) != 0 && access(sibling("-rqnew"), F_OK) != 0);
    check_eq(model_random(&m, 30), RQ_OK);
    check(model_matches(&m));
    model_fini(&m);
}

static void reserved_space_is_not_taken_for_frames(void)
{
    model_init(&m, 4096, 12);
    check_eq(model_random(&m, 5), RQ_OK);
    check_eq(model_random(&m, 0), RQ_OK);
    check_eq(rq_replica_reserve(m.replica, 1000), RQ_OK);
    check(wal_of().file_bytes >= UINT64_C(1000) * (4096 + 24));
    const uint32_t frames = wal_of().frames;
    model_close(&m);
    check_eq(model_open(&m), RQ_OK);
    check_eq(wal_of().frames, frames);
    check(model_matches(&m));
    model_fini(&m);
}

static void killed_at_any_write_leaves_a_prefix(void)
{
    enum { STEPS = 30 };
    for (int at = 0; at < 90; at++) {
        model_init(&m, 512, 13);
        tricky_begin();
        check_eq(model_random(&m, 12), RQ_OK);
        struct model before = m; /* what both sides know */
        const size_t bytes = (size_t)m.state.page_count * 512;
        uint8_t *pages = malloc(bytes);
        check(pages != NULL);
        memcpy(pages, m.pages, bytes);
        model_close(&m);
        const pid_t child = fork();
        if (child == 0) {
            if (model_open(&m) != RQ_OK) {
                _exit(1);
            }
            trick_cb = die_in_write;
            writes_left = at;
            for (int i = 0; i < STEPS; i++) {
                if (model_random(&m, 0) != RQ_OK || (i % 7 == 6 && rq_replica_backfill(m.replica) != RQ_OK) ||
                    (i % 7 == 6 && rq_replica_reset(m.replica) != RQ_OK)) {
                    _exit(2);
                }
            }
            _exit(0);
        }
        int status;
        check(child > 0 && waitpid(child, &status, 0) == child);
        check(WIFEXITED(status) && (WEXITSTATUS(status) == 9 || WEXITSTATUS(status) == 0));
        /* The survivor's state, whatever it is, is compared with the same steps made again, in another directory. */
        struct rq_replica_state found;
        check_eq(model_open(&m), RQ_OK);
        found = m.state;
        struct model survivor = m;
        model_init(&m, 512, 13);
        check_eq(model_random(&m, 12), RQ_OK);
        check(m.state.page_count == before.state.page_count && memcmp(m.pages, pages, bytes) == 0);
        while (m.state.version < found.version) {
            check_eq(model_random(&m, 0), RQ_OK);
        }
        struct model again = m;
        m = survivor;
        free(m.pages);
        m.pages = again.pages;
        m.state = again.state;
        check(model_matches(&m));
        m.random = again.random;
        again.pages = NULL;
        for (int i = 0; i < 5; i++) {
            check_eq(model_random(&m, 0), RQ_OK);
            check(model_matches(&m));
        }
        check_eq(rq_replica_backfill(m.replica), RQ_OK);
        check(model_file_matches(&m));
        model_fini(&m);
        model_fini(&again);
        free(pages);
        if (WEXITSTATUS(status) == 0) {
            check(at > 20); /* every write of the child's life was a place to die */
            return;
        }
    }
    check(!"the child never came to its end");
}

/* --- random life against the model --------------------------------------------------------------------------------------- */

static void random_life_matches_the_model(void)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        model_init(&m, 512u << seed % 4, seed);
        printf("# seed %llu\n", (unsigned long long)seed);
        check_eq(model_random(&m, 10), RQ_OK);
        for (int i = 0; i < 150; i++) {
            switch (model_random_u32(&m) % 12) {
                case 0:
                    check_eq(rq_replica_backfill(m.replica), RQ_OK);
                    break;
                case 1:
                    check_eq(rq_replica_reset(m.replica), wal_of().backfilled == wal_of().frames ? RQ_OK : RQ_BUSY);
                    break;
                case 2: {
                    const uint64_t version = m.state.version;
                    model_close(&m);
                    check_eq(model_open(&m), RQ_OK);
                    check_eq(m.state.version, version);
                    break;
                }
                case 3:
                    check_eq(rq_replica_reserve(m.replica, model_random_u32(&m) % 300), RQ_OK);
                    break;
                default:
                    check_eq(model_random(&m, 0), RQ_OK);
                    break;
            }
            check(model_matches(&m));
        }
        char text[160];
        check_eq(rq_replica_check(m.replica, text), RQ_OK);
        check_eq(rq_replica_backfill(m.replica), RQ_OK);
        check(model_file_matches(&m));
        model_fini(&m);
    }
}

/* Rule Z: after a shrink, pages that come back without content are zero on every host, whatever it had back-filled. */
static void pages_that_nobody_carried_are_zero_on_every_host(void)
{
    static uint8_t page[512];
    for (int backfilled = 0; backfilled < 2; backfilled++) {
        model_init(&m, 512, 21);
        check_eq(model_random(&m, 150), RQ_OK);
        for (int i = 0; i < 60; i++) {
            check_eq(model_random(&m, 150), RQ_OK); /* frames of the later cut off pages are in the WAL */
        }
        check_eq(model_random(&m, 50), RQ_OK);
        if (backfilled == 1) {
            check_eq(rq_replica_backfill(m.replica), RQ_OK);
            check(model_file_matches(&m));
        }
        check_eq(rq_replica_read(m.replica, 100, page), RQ_OK);
        for (size_t i = 0; i < sizeof page; i++) {
            check_eq(page[i], 0);
        }
        check_eq(model_random(&m, 150), RQ_OK); /* a handful of pages; the model has zeros elsewhere */
        check(model_matches(&m));
        check_eq(rq_replica_backfill(m.replica), RQ_OK);
        check(model_file_matches(&m));
        model_close(&m);
        check_eq(model_open(&m), RQ_OK);
        check(model_matches(&m));
        model_fini(&m);
    }
}

static void scribble_wal(void)
{
    struct stat st;
    check_eq(stat(sibling("-wal"), &st), 0);
    uint8_t *noise = malloc((size_t)st.st_size);
    check(noise != NULL);
    memset(noise, '?', (size_t)st.st_size);
    write_at("-wal", noise, (size_t)st.st_size - RQ_WAL_HEAD_BYTES, RQ_WAL_HEAD_BYTES);
    free(noise);
}

/* The next transaction changes the same pages: their base costs no look at the disk. */
static void pages_of_the_last_transaction_are_still_in_memory(void)
{
    static uint8_t page[512], before[64 * 512];
    unsigned last = 0, older = 0;
    model_init(&m, 512, 22);
    for (int i = 0; i < 20; i++) {
        check_eq(model_random(&m, 64), RQ_OK);
    }
    memcpy(before, m.pages, sizeof before);
    check_eq(model_random(&m, 64), RQ_OK);
    scribble_wal();
    for (uint32_t pgno = 2; pgno <= 64; pgno++) {
        const uint8_t *now = m.pages + (size_t)(pgno - 1) * 512;
        const bool changed = memcmp(now, before + (size_t)(pgno - 1) * 512, 512) != 0;
        const enum rq_err err = rq_replica_read(m.replica, pgno, page);
        last += changed;
        older += err == RQ_CORRUPT;
        if (changed) {
            check_eq(err, RQ_OK);
            check(memcmp(page, now, 512) == 0);
        }
    }
    check(last > 0);
    check(older > 0); /* all others are proved when they are read */
    model_fini(&m);
}

static enum rq_err no_pages(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    (void)ctx;
    *ret_pgno = 0;
    *ret_page = NULL;
    return RQ_NOTFOUND;
}

static void lock_page_is_never_written(void)
{
    static uint8_t page1_old[65536], page1[65536], zeros[65536];
    const uint32_t lock_page = 0x40000000 / 65536 + 1;
    const struct rq_page_source source = { .next = no_pages };
    for (uint32_t old_count = lock_page - 3; old_count <= lock_page; old_count++) {
        const struct rq_replica_state after = { .stamp = { .db_id = 1 },
                                                .page_size = 65536,
                                                .page_count = lock_page + 2 };
        struct rq_page_merge merge = { .source = &source,
                                       .after = &after,
                                       .page1_old = page1_old,
                                       .page1 = page1,
                                       .zeros = zeros,
                                       .next_zero = old_count + 1 };
        uint32_t pgno, expected = old_count + 1;
        const uint8_t *page;
        check_eq(rq_page_merge_next(&merge, &pgno, &page), RQ_OK);
        check_eq(pgno, 1);
        while (rq_page_merge_next(&merge, &pgno, &page) == RQ_OK) {
            expected += expected == lock_page;
            check_eq(pgno, expected);
            check(page == zeros);
            expected++;
        }
        check_eq(expected, lock_page + 3);
    }
}

/* --- who else writes ------------------------------------------------------------------------------------------------------ */

static int64_t modified_ns(void)
{
    struct stat st;
    check_eq(stat(m.path, &st), 0);
    return (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

static void backfill_hides_no_write_of_others(void)
{
    char text[160];
    model_init(&m, 512, 23);
    check_eq(model_random(&m, 64), RQ_OK);
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(rq_replica_mend(m.replica, text), RQ_OK);
    check_eq(model_random(&m, 64), RQ_OK);
    const int64_t before = modified_ns();
    while (modified_ns() == before) { /* the kernel's clock for files ticks slowly */
        write_at("", "?", 1, 2 * 512 + 77);
    }
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(rq_replica_mend(m.replica, text), RQ_CORRUPT);
    check(strstr(text, "somebody else has written") != NULL);
    model_fini(&m);
}

/* --- shared memory ------------------------------------------------------------------------------------------------------- */

static void scribbled_shm_harms_no_data_and_is_put_right(void)
{
    model_init(&m, 1024, 31);
    check_eq(model_sql(&m, "create table t(a integer, b text)"), RQ_OK);
    for (int round = 0; round < 60; round++) {
        char text[160], sql[120];
        snprintf(sql, sizeof sql, "insert into t values(%d, hex(randomblob(700)))", round);
        check_eq(model_sql(&m, sql), RQ_OK);
        switch (round % 6) {
            case 0:
                check_eq(truncate(sibling("-shm"), 0), 0);
                break;
            case 1:
                check_eq(truncate(sibling("-shm"), 5000), 0);
                break;
            case 2:
                check_eq(unlink(sibling("-shm")), 0);
                check_eq(rq_replica_check(m.replica, text), RQ_OK);
                break;
            default: {
                uint8_t noise[4096];
                for (size_t i = 0; i < sizeof noise; i += 4) {
                    rq_put_u32(noise + i, model_random_u32(&m));
                }
                write_at("-shm", noise, sizeof noise, round % 6 == 3 ? 0 : model_random_u32(&m) % 7 * 4096);
                break;
            }
        }
        check_eq(model_sql(&m, "update t set a = a + 1"), RQ_OK); /* with the damage in place */
        check(model_matches(&m));
        if (round % 6 >= 2) {
            check_eq(rq_replica_check(m.replica, text), RQ_OK);
        } /* else an append sees by itself that the file was shortened, and publishes all of it */
        if (round % 6 != 5) {
            sqlite3 *db = model_stock_open(&m);
            check(stock_agrees(&m, db));
            check_eq(sqlite3_close(db), SQLITE_OK);
        }
        if (round % 5 == 4) {
            check_eq(rq_replica_backfill(m.replica), RQ_OK);
        }
        if (round % 15 == 14) {
            check_eq(rq_replica_check(m.replica, text), RQ_OK);
            check_eq(rq_replica_backfill(m.replica), RQ_OK);
            check(model_file_matches(&m));
            check_eq(rq_replica_reset(m.replica), RQ_OK);
        }
    }
    model_fini(&m);
}

/* Two entries of the index swapped, as another process can: SQLite's own checkpointer would write one page over the other. */
static void swapped_index_entries_do_not_reach_the_file(void)
{
    model_init(&m, 1024, 32);
    check_eq(model_sql(&m, "create table t(a integer, b text)"), RQ_OK);
    check_eq(model_sql(&m,
                       "with recursive c(x) as (select 1 union all select x+1 from c where x<200) "
                       "insert into t select x, hex(randomblob(40)) from c"),
             RQ_OK);
    const int fd = open(sibling("-shm"), O_RDWR | O_CLOEXEC);
    uint32_t pgno[2];
    check(fd >= 0 && pread(fd, pgno, sizeof pgno, 136 + 8) == sizeof pgno && pgno[0] != pgno[1]);
    const uint32_t swapped[2] = { pgno[1], pgno[0] };
    check(pwrite(fd, swapped, sizeof swapped, 136 + 8) == sizeof swapped);
    close(fd);
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check(model_file_matches(&m));
    char text[160];
    check_eq(rq_replica_check(m.replica, text), RQ_OK);
    sqlite3 *db = model_stock_open(&m);
    check(stock_agrees(&m, db));
    check_eq(sqlite3_close(db), SQLITE_OK);
    model_fini(&m);
}

static void deleted_shm_is_made_anew_and_said(void)
{
    char text[160];
    model_init(&m, 4096, 33);
    check_eq(model_sql(&m, "create table t(a, b)"), RQ_OK);
    const uint32_t epoch = atomic_load(&m.control.head->files_epoch);
    check_eq(rq_replica_check(m.replica, text), RQ_OK);
    check_eq(atomic_load(&m.control.head->files_epoch), epoch);
    check_eq(unlink(sibling("-shm")), 0);
    check_eq(rq_replica_check(m.replica, text), RQ_OK);
    check_eq(atomic_load(&m.control.head->files_epoch), epoch + 1);
    sqlite3 *db = model_stock_open(&m);
    check_eq(model_sql(&m, "insert into t values(1, 2)"), RQ_OK);
    check(stock_agrees(&m, db));
    check_eq(stock_int(db, "pragma wal_checkpoint"), 1); /* our locks are on the new file */
    check_eq(sqlite3_close(db), SQLITE_OK);
    model_fini(&m);
}

/* --- other files ---------------------------------------------------------------------------------------------------------- */

static void changed_frame_is_named_and_not_copied(void)
{
    char text[160];
    model_init(&m, 1024, 41);
    check_eq(model_random(&m, 40), RQ_OK);
    check_eq(model_random(&m, 60), RQ_OK);
    const uint8_t byte = 0x5a;
    write_at("-wal", &byte, 1, (off_t)rq_wal_frame_offset(7, 1024) + 24 + 333);
    check_eq(rq_replica_check(m.replica, text), RQ_CORRUPT);
    check(strstr(text, "frame 7,") != NULL && strstr(text, "page ") != NULL);
    check_eq(rq_replica_backfill(m.replica), RQ_CORRUPT);
    check_eq(wal_of().backfilled, 0);
    model_fini(&m);
}

static void lost_and_foreign_files_are_said(void)
{
    char text[160], old[128];
    model_init(&m, 1024, 42);
    snprintf(old, sizeof old, "%s/old", m.dir);
    check_eq(model_random(&m, 4), RQ_OK);
    check_eq(rename(m.path, old), 0);
    check_eq(rq_replica_check(m.replica, text), RQ_NOTFOUND);
    const int fd = open(m.path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    check(fd >= 0);
    close(fd);
    check_eq(rq_replica_check(m.replica, text), RQ_FOREIGN);
    check_eq(rename(old, m.path), 0);
    check_eq(rq_replica_check(m.replica, text), RQ_OK);
    model_fini(&m);
}

/* A stock connection from before the first commit deletes what it takes for a left-over; the next one makes an empty -wal. */
static void deleted_wal_is_made_again_with_all_it_had(void)
{
    char text[160];
    model_init(&m, 4096, 34);
    check_eq(model_sql(&m, "create table t(a, b)"), RQ_OK);
    check_eq(model_sql(&m, "insert into t values(1, 2)"), RQ_OK);
    check_eq(rq_replica_reserve(m.replica, 500), RQ_OK);
    for (int foreign = 0; foreign < 2; foreign++) {
        const uint32_t epoch = atomic_load(&m.control.head->files_epoch), frames = wal_of().frames;
        const uint64_t bytes = wal_of().file_bytes;
        check(rq_replica_is_named(m.replica));
        check_eq(unlink(sibling("-wal")), 0);
        if (foreign) {
            close(open(sibling("-wal"), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        }
        check(!rq_replica_is_named(m.replica));
        check_eq(rq_replica_mend(m.replica, text), RQ_OK);
        check(strstr(text, "-wal was made again") != NULL && rq_replica_is_named(m.replica));
        check_eq(atomic_load(&m.control.head->files_epoch), epoch + 1);
        struct stat named;
        check(stat(sibling("-wal"), &named) == 0 && (uint64_t)named.st_size >= bytes); /* what was reserved still is */
        check_eq(wal_of().frames, frames);
        sqlite3 *db = model_stock_open(&m);
        check(stock_agrees(&m, db));
        check_eq(model_sql(&m, "insert into t values(3, 4)"), RQ_OK);
        check(stock_agrees(&m, db));
        check_eq(sqlite3_close(db), SQLITE_OK);
        check_eq(rq_replica_check(m.replica, text), RQ_OK);
        check_eq(text[0], '\0');
    }
    model_close(&m);
    check_eq(model_open(&m), RQ_OK);
    check(model_matches(&m));
    model_fini(&m);
}

static void file_of_somebody_else_is_not_touched(void)
{
    model_init(&m, 1024, 43);
    sqlite3 *db = model_stock_open(&m);
    check_eq(stock_int(db, "create table t(a)"), 0);
    check_eq(sqlite3_close(db), SQLITE_OK);
    check_eq(model_open(&m), RQ_FOREIGN);
    check(access(sibling("-wal"), F_OK) != 0 && access(sibling("-shm"), F_OK) != 0);
    check_eq(model_random(&m, 4), RQ_EXISTS);
    check_eq(unlink(m.path), 0);
    check_eq(model_open(&m), RQ_NOTFOUND);
    model_fini(&m);
}

static void wal_of_a_former_database_is_not_played_into_a_new_one(void)
{
    model_init(&m, 1024, 44);
    check_eq(model_random(&m, 10), RQ_OK);
    check_eq(model_random(&m, 0), RQ_OK);
    model_close(&m);
    check_eq(unlink(m.path), 0);
    free(m.pages);
    m.pages = NULL;
    m.state = (struct rq_replica_state){ .stamp = { .db_id = 78 }, .page_size = 1024 };
    check_eq(model_random(&m, 6), RQ_OK);
    check_eq(wal_of().frames, 0);
    check(model_matches(&m));
    check(model_file_matches(&m));
    model_fini(&m);
}

static void wal_that_grew_is_shortened_when_it_is_empty(void)
{
    const uint64_t soft = 32 + 20 * 1048;
    model_init(&m, 1024, 45);
    m.soft_frames = 20;
    m.hard_frames = 50;
    check_eq(model_random(&m, 30), RQ_OK);
    while (wal_of().file_bytes < UINT64_C(300) * 1048) {
        check_eq(model_random(&m, 30), RQ_OK);
    }
    const uint64_t long_bytes = wal_of().file_bytes;
    check_eq(rq_replica_shrink(m.replica), RQ_OK);
    check_eq(wal_of().file_bytes, long_bytes);
    check(model_matches(&m));
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    check_eq(wal_of().file_bytes, long_bytes);
    check_eq(rq_replica_reserve(m.replica, 100), RQ_OK); /* for a transaction that is on its way through the log */
    check_eq(rq_replica_shrink(m.replica), RQ_OK);
    check_eq(wal_of().file_bytes, 32 + 100 * 1048);
    check_eq(model_random(&m, 30), RQ_OK);
    check(model_matches(&m));
    while (wal_of().file_bytes < UINT64_C(300) * 1048) {
        check_eq(model_random(&m, 30), RQ_OK);
    }
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    check_eq(rq_replica_shrink(m.replica), RQ_OK);
    check_eq(wal_of().file_bytes, soft);
    model_close(&m);
    check_eq(model_open(&m), RQ_OK);
    check_eq(model_random(&m, 30), RQ_OK);
    check(model_matches(&m));
    model_fini(&m);
}

static void version_goes_on_past_32_bits(void)
{
    model_init(&m, 512, 46);
    check_eq(model_random(&m, 3), RQ_OK);
    m.state.version = 0xfffffffeu;
    for (int i = 0; i < 4; i++) {
        check_eq(model_random(&m, 0), RQ_OK);
        check(model_matches(&m));
    }
    model_close(&m);
    check_eq(model_open(&m), RQ_OK);
    check_eq(m.state.version >> 32, 1);
    check_eq(m.state.version, 0x100000002ll);
    model_fini(&m);
}

/* --- threads -------------------------------------------------------------------------------------------------------------- */

static atomic_bool writer_done;

static void *background(void *ctx)
{
    enum rq_err *ret_err = ctx;
    while (!atomic_load(&writer_done)) {
        char text[160];
        enum rq_err err = rq_replica_backfill(m.replica);
        err = err == RQ_OK ? rq_replica_reset(m.replica) : err;
        err = err == RQ_OK || err == RQ_BUSY ? rq_replica_sync(m.replica) : err;
        err = err == RQ_OK ? rq_replica_check(m.replica, text) : err;
        (void)wal_of();
        if (err != RQ_OK) {
            *ret_err = err;
            break;
        }
    }
    return NULL;
}

static void appends_beside_backfill_and_reset(void)
{
    model_init(&m, 1024, 51);
    check_eq(model_sql(&m, "create table t(a integer, b text)"), RQ_OK);
    atomic_store(&writer_done, false);
    pthread_t thread;
    enum rq_err err = RQ_OK;
    check_eq(pthread_create(&thread, NULL, background, &err), 0);
    sqlite3 *db = model_stock_open(&m);
    bool good = true;
    for (int i = 0; i < 300 && good; i++) {
        char sql[120];
        snprintf(sql, sizeof sql,
                 i % 50 == 49 ? "delete from t where a < %d; vacuum" : "insert into t values(%d, hex(randomblob(600)))",
                 i);
        good = model_sql(&m, sql) == RQ_OK && model_matches(&m) && (i % 8 != 0 || stock_agrees(&m, db));
        rq_replica_begin_sync(m.replica);
    }
    atomic_store(&writer_done, true);
    check_eq(pthread_join(thread, NULL), 0);
    check(good);
    check_eq(err, RQ_OK);
    check_eq(sqlite3_close(db), SQLITE_OK);
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check(model_file_matches(&m));
    model_fini(&m);
}

/* --- what is on its way to the disk before it is synced -------------------------------------------------------------------- */

static uint64_t begun_from, begun_upto;
static unsigned begun_count;

static void note_begin_sync(struct rq_file *f, uint64_t offset, uint64_t bytes)
{
    rq_disk_real()->ops->begin_sync(f, offset, bytes);
    begun_from = offset;
    begun_upto = offset + bytes;
    begun_count++;
}

static uint64_t wal_end(void)
{
    return 32 + (uint64_t)wal_of().frames * (4096 + 24);
}

static void a_long_wal_is_on_its_way_to_the_disk_piece_by_piece(void)
{
    model_init(&m, 4096, 16);
    tricky_begin();
    tricky_ops.begin_sync = note_begin_sync;
    check_eq(model_random(&m, 40), RQ_OK);
    uint64_t upto = 0;
    for (int round = 0; round < 2; round++) {
        begun_count = 0;
        while (begun_count < 3) {
            const unsigned before = begun_count;
            check_eq(model_random(&m, 0), RQ_OK);
            rq_replica_begin_sync(m.replica);
            if (begun_count > before) {
                check_eq(begun_from, begun_count == 1 ? 0 : upto);
                check(begun_upto <= wal_end() && begun_upto + 4096 > wal_end());
                upto = begun_upto;
            }
            check(wal_end() < upto + (512u << 10)); /* not left for later */
        }
        check(model_matches(&m));
        check_eq(rq_replica_backfill(m.replica), RQ_OK);
        check_eq(rq_replica_reset(m.replica), RQ_OK); /* and all over again */
        upto = 0;
    }
    model_fini(&m);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(full_disk_changes_nothing),
        TAP(full_disk_leaves_nothing_of_a_new_database),
        TAP(reserved_space_is_not_taken_for_frames),
        TAP(killed_at_any_write_leaves_a_prefix),
        TAP(random_life_matches_the_model),
        TAP(pages_that_nobody_carried_are_zero_on_every_host),
        TAP(pages_of_the_last_transaction_are_still_in_memory),
        TAP(lock_page_is_never_written),
        TAP(backfill_hides_no_write_of_others),
        TAP(scribbled_shm_harms_no_data_and_is_put_right),
        TAP(swapped_index_entries_do_not_reach_the_file),
        TAP(deleted_shm_is_made_anew_and_said),
        TAP(deleted_wal_is_made_again_with_all_it_had),
        TAP(changed_frame_is_named_and_not_copied),
        TAP(lost_and_foreign_files_are_said),
        TAP(file_of_somebody_else_is_not_touched),
        TAP(wal_of_a_former_database_is_not_played_into_a_new_one),
        TAP(wal_that_grew_is_shortened_when_it_is_empty),
        TAP(version_goes_on_past_32_bits),
        TAP(appends_beside_backfill_and_reset),
        TAP(a_long_wal_is_on_its_way_to_the_disk_piece_by_piece),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
