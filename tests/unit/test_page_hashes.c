/* page hashes: which pages are known, when the file begins anew, and what the scrub looks at. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/replica_model.h"
#include "tests/support/tap.h"
#include "vfs/page_hashes.h"

static struct model m;
static char text[160];

static void begin(uint32_t page_size, uint64_t seed)
{
    model_init(&m, page_size, seed);
    m.keeps_hashes = true;
}

static void flip(const char *path, off_t offset)
{
    uint8_t byte;
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    check(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
    byte ^= 1;
    check(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

static void flip_page(uint32_t pgno)
{
    flip(m.path, (off_t)(pgno - 1) * (off_t)m.state.page_size + 200);
}

static enum rq_err scrub(void)
{
    static uint32_t pass;
    uint64_t bytes = UINT32_MAX;
    return rq_replica_scrub(m.replica, ++pass, &bytes, text);
}

static void settle(void)
{
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(rq_replica_reset(m.replica), RQ_OK);
}

static enum rq_err reopen(void)
{
    model_close(&m);
    return model_open(&m);
}

/* --- the file ------------------------------------------------------------------------------------------------------------ */

static void entries_are_kept_and_past_the_end_unknown(void)
{
    struct rq_page_hashes *h;
    const char *removed;
    uint64_t hashes[1200], found[1200], version, boot;
    begin(512, 1);
    for (size_t i = 0; i < 1200; i++) {
        hashes[i] = i * 0x123456789abcdefull + 1;
    }
    check_eq(rq_page_hashes_open(m.disk, m.hashes_path, 5, 512, &h, &removed), RQ_OK);
    check(removed == NULL && !rq_page_hashes_version(h, &version, &boot));
    check_eq(rq_page_hashes_get(h, 1, 3, found), RQ_OK);
    check(found[0] == 0 && found[2] == 0);
    check_eq(access(m.hashes_path, F_OK), -1); /* made when there is something to keep */
    check_eq(rq_page_hashes_make(h, 0), RQ_OK);
    check_eq(rq_page_hashes_put(h, 2, 1200, hashes), RQ_OK);
    check_eq(rq_page_hashes_seal(h, 1ull << 33, 900), RQ_OK);
    check_eq(rq_page_hashes_set_boot(h, 5), RQ_OK);
    rq_page_hashes_close(h);

    check_eq(rq_page_hashes_open(m.disk, m.hashes_path, 5, 512, &h, &removed), RQ_OK);
    check(removed == NULL && rq_page_hashes_version(h, &version, &boot) && version == 1ull << 33 && boot == 5);
    check_eq(rq_page_hashes_get(h, 1, 1200, found), RQ_OK);
    check(found[0] == 0 && found[1] == hashes[0] && found[899] == hashes[898] && found[900] == 0);
    check_eq(rq_page_hashes_suspect(h), 0);
    rq_page_hashes_set_suspect(h, 77);
    rq_page_hashes_close(h);
    check_eq(rq_page_hashes_open(m.disk, m.hashes_path, 5, 512, &h, &removed), RQ_OK);
    check_eq(rq_page_hashes_suspect(h), 77);
    rq_page_hashes_close(h);
    model_fini(&m);
}

static void file_that_is_not_of_this_database_is_removed_and_said(void)
{
    for (int kind = 0; kind < 4; kind++) {
        struct rq_page_hashes *h;
        const char *removed;
        begin(512, 1);
        check_eq(rq_page_hashes_open(m.disk, m.hashes_path, 5, 512, &h, &removed), RQ_OK);
        check_eq(rq_page_hashes_make(h, 3), RQ_OK);
        rq_page_hashes_close(h);
        if (kind == 0) {
            flip(m.hashes_path, 25);
        } else if (kind == 1) {
            check_eq(truncate(m.hashes_path, 63), 0);
        }
        check_eq(rq_page_hashes_open(m.disk, m.hashes_path, kind == 2 ? 6 : 5, kind == 3 ? 1024 : 512, &h, &removed),
                 RQ_OK);
        check(removed != NULL && access(m.hashes_path, F_OK) != 0);
        rq_page_hashes_close(h);
        model_fini(&m);
    }
}

/* --- with a replica ------------------------------------------------------------------------------------------------------ */

static void page_that_was_back_filled_is_known_at_once(void)
{
    begin(1024, 2);
    check_eq(model_random(&m, 20), RQ_OK);
    for (int i = 0; i < 60; i++) {
        check_eq(model_random(&m, 20), RQ_OK);
    }
    settle();
    flip_page(7);
    static uint8_t page[1024];
    check_eq(rq_replica_read(m.replica, 7, page), RQ_CORRUPT);
    check_eq(reopen(), RQ_CORRUPT); /* it is remembered over a restart */
    check(strstr(m.text, "page 7 was changed") != NULL);
    flip_page(7);
    check_eq(reopen(), RQ_OK);
    check(model_matches(&m));
    check_eq(reopen(), RQ_OK);
    model_fini(&m);
}

static void page_that_the_file_was_made_with_is_known_at_once(void)
{
    begin(4096, 3);
    check_eq(model_random(&m, 200), RQ_OK);
    model_close(&m);
    flip_page(1);
    check_eq(model_open(&m), RQ_CORRUPT);
    flip_page(1);
    check_eq(reopen(), RQ_OK);
    check(m.forgotten == NULL);
    check_eq(scrub(), RQ_OK);
    for (uint32_t pgno = 2; pgno <= 200; pgno += 66) { /* 64 pages are written at a time */
        flip_page(pgno);
        check_eq(reopen(), RQ_OK);
        check_eq(scrub(), RQ_CORRUPT);
        check_eq(reopen(), RQ_CORRUPT);
        flip_page(pgno);
        check_eq(reopen(), RQ_OK);
    }
    check_eq(scrub(), RQ_OK);
    model_fini(&m);
}

static void page_whose_hash_was_lost_is_known_after_a_scrub(void)
{
    begin(4096, 3);
    check_eq(model_random(&m, 200), RQ_OK);
    model_close(&m);
    check_eq(unlink(m.hashes_path), 0);
    check_eq(model_open(&m), RQ_OK);
    check_eq(scrub(), RQ_OK);
    for (uint32_t pgno = 2; pgno <= 200; pgno += 99) {
        flip_page(pgno);
        check_eq(scrub(), RQ_CORRUPT);
        char expected[32];
        snprintf(expected, sizeof expected, "page %u was changed", pgno);
        check(strstr(text, expected) != NULL);
        flip_page(pgno);
        check_eq(scrub(), RQ_OK);
    }
    check_eq(truncate(m.path, (off_t)199 * 4096), 0);
    check_eq(scrub(), RQ_CORRUPT);
    model_fini(&m);
}

static void page_1_is_compared_when_the_database_is_opened(void)
{
    begin(1024, 4);
    check_eq(model_random(&m, 5), RQ_OK);
    check_eq(model_random(&m, 5), RQ_OK);
    settle();
    model_close(&m);
    flip(m.path, 500);
    check_eq(model_open(&m), RQ_CORRUPT);
    check(strstr(m.text, "page 1 was changed") != NULL);
    flip(m.path, 500);
    check_eq(reopen(), RQ_OK);
    model_fini(&m);
}

/* What is in the file will be written over: whatever it is, it harms nobody. */
static void page_whose_newest_version_is_in_the_wal_is_left_alone(void)
{
    begin(1024, 5);
    check_eq(model_random(&m, 30), RQ_OK);
    check_eq(scrub(), RQ_OK);
    for (int i = 0; i < 60; i++) {
        check_eq(model_random(&m, 30), RQ_OK); /* every page, some of them often */
    }
    check_eq(scrub(), RQ_OK);
    flip_page(9);
    check_eq(scrub(), RQ_OK);
    settle();
    check_eq(scrub(), RQ_OK);
    check(model_matches(&m));
    model_fini(&m);
}

static void scrub_takes_as_many_bytes_as_it_is_given(void)
{
    begin(4096, 6);
    check_eq(model_random(&m, 300), RQ_OK);
    unsigned calls = 0;
    uint64_t bytes = 0;
    while (bytes == 0) {
        bytes = UINT64_C(100) * 4096;
        check_eq(rq_replica_scrub(m.replica, 1, &bytes, text), RQ_OK);
        calls++;
    }
    check_eq(calls, 4); /* the fourth finds nothing left */
    check_eq(bytes, UINT64_C(100) * 4096);
    flip_page(250);
    bytes = UINT64_C(100) * 4096;
    check_eq(rq_replica_scrub(m.replica, 1, &bytes, text), RQ_OK); /* this pass is over */
    for (int i = 0; i < 2; i++) {
        bytes = UINT64_C(100) * 4096;
        check_eq(rq_replica_scrub(m.replica, 2, &bytes, text), RQ_OK);
    }
    check_eq(rq_replica_scrub(m.replica, 2, &(uint64_t){ UINT64_C(100) * 4096 }, text), RQ_CORRUPT);
    model_fini(&m);
}

/* A stock tool that is the last to close, while nobody serves: it checkpoints, and takes the WAL away. */
static void stock_checkpoint_in_between_is_no_change(void)
{
    for (int settled = 0; settled < 2; settled++) {
        begin(1024, 7);
        check_eq(model_sql(&m, "create table t(a integer, b text)"), RQ_OK);
        check_eq(model_sql(&m, "insert into t values(1, hex(randomblob(4000)))"), RQ_OK);
        settle();
        check_eq(scrub(), RQ_OK);
        if (!settled) {
            check_eq(model_sql(&m, "update t set b = hex(randomblob(4000))"), RQ_OK);
        }
        model_close(&m);
        sqlite3 *db = model_stock_open(&m);
        check_eq(stock_int(db, "select count(*) from t"), 1);
        check_eq(sqlite3_close(db), SQLITE_OK);
        char wal[128];
        snprintf(wal, sizeof wal, "%s-wal", m.path);
        check(access(wal, F_OK) != 0);
        check_eq(model_open(&m), RQ_OK);
        check((m.forgotten == NULL) == (settled == 1)); /* nothing came with that checkpoint: all is known still */
        check(model_matches(&m));
        check_eq(scrub(), RQ_OK);
        check_eq(scrub(), RQ_OK);
        model_fini(&m);
    }
}

static void random_life_gives_no_alarm(void)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        begin(512u << seed % 3, seed);
        printf("# seed %llu\n", (unsigned long long)seed);
        check_eq(model_random(&m, 10), RQ_OK);
        for (int i = 0; i < 200; i++) {
            switch (model_random_u32(&m) % 12) {
                case 0:
                    check_eq(rq_replica_backfill(m.replica), RQ_OK);
                    break;
                case 1:
                    settle();
                    break;
                case 2:
                    check_eq(reopen(), RQ_OK);
                    check(m.forgotten == NULL);
                    break;
                case 3:
                    check_eq(scrub(), RQ_OK);
                    break;
                default:
                    check_eq(model_random(&m, 0), RQ_OK);
                    break;
            }
            check(model_matches(&m));
        }
        model_fini(&m);
    }
}

/* --- without opening ----------------------------------------------------------------------------------------------------- */

static void peek_tells_the_newest_state_and_writes_nothing(void)
{
    struct rq_replica_state state;
    begin(1024, 9);
    check_eq(rq_replica_peek(m.disk, m.path, &state), RQ_NOTFOUND);
    for (int i = 0; i < 40; i++) {
        check_eq(model_random(&m, i == 0 ? 12 : 0), RQ_OK);
        if (i % 9 == 5) {
            check_eq(rq_replica_backfill(m.replica), RQ_OK);
        }
        if (i % 18 == 5) {
            check_eq(rq_replica_reset(m.replica), RQ_OK);
        }
        check_eq(rq_replica_peek(m.disk, m.path, &state), RQ_OK);
        check(state.version == m.state.version && state.stamp.index == m.state.stamp.index &&
              state.stamp.db_id == m.state.stamp.db_id && state.page_count == m.state.page_count);
    }
    model_close(&m);
    char wal[128];
    struct stat before, after;
    snprintf(wal, sizeof wal, "%s-wal", m.path);
    check_eq(stat(wal, &before), 0);
    check_eq(rq_replica_peek(m.disk, m.path, &state), RQ_OK);
    check_eq(stat(wal, &after), 0);
    check(before.st_mtim.tv_nsec == after.st_mtim.tv_nsec && before.st_size == after.st_size);
    check_eq(unlink(wal), 0);
    check_eq(rq_replica_peek(m.disk, m.path, &state), RQ_OK);
    flip(m.path, 18);
    check_eq(rq_replica_peek(m.disk, m.path, &state), RQ_FOREIGN);
    model_fini(&m);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(entries_are_kept_and_past_the_end_unknown),
        TAP(file_that_is_not_of_this_database_is_removed_and_said),
        TAP(page_that_was_back_filled_is_known_at_once),
        TAP(page_that_the_file_was_made_with_is_known_at_once),
        TAP(page_whose_hash_was_lost_is_known_after_a_scrub),
        TAP(page_1_is_compared_when_the_database_is_opened),
        TAP(page_whose_newest_version_is_in_the_wal_is_left_alone),
        TAP(scrub_takes_as_many_bytes_as_it_is_given),
        TAP(stock_checkpoint_in_between_is_no_change),
        TAP(random_life_gives_no_alarm),
        TAP(peek_tells_the_newest_state_and_writes_nothing),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
