/* copy_out: whoever reads all pages once, and again those that it is told of, has what is held, whatever was committed meanwhile; and
 * until then nothing keeps the WAL from being begun anew. */
#include <stdlib.h>
#include <string.h>

#include "raftd/db/copy_out.h"
#include "raftd/wire/txn.h"
#include "tests/support/lone_database.h"
#include "tests/support/page1.h"
#include "tests/support/tap.h"

enum { PAGE = 512, PAGES_MAX = 6000, ID = 7 };

/* --- the database -------------------------------------------------------------------------------------------------------- */

static uint8_t is[PAGES_MAX + 1][PAGE]; /* its pages, in normal form */
static uint32_t page_count;
static uint64_t version, last_index;

static void put_head(uint8_t page1[PAGE], uint32_t count)
{
    page1_head(page1, PAGE, version + 1, count);
    rq_page1_normalise(page1);
}

/* A transaction that changes about so many pages, all of them different, and leaves the database with that many. */
static void commit(uint32_t changes, uint32_t count)
{
    static uint8_t next[PAGES_MAX + 1][PAGE];
    const struct rq_txn_head head = { ID, PAGE, count, 1, version, version + 1 };
    const struct rq_origin origin = { 99, version + 1 };
    struct rq_bytes out;
    memcpy(next, is, sizeof is);
    for (uint32_t i = page_count + 1; i <= count; i++) {
        memset(next[i], 0, PAGE);
    }
    for (uint32_t i = 0; i < changes; i++) {
        const uint32_t pgno = 1 + (uint32_t)random() % count;
        rq_put_u32(next[pgno] + 200, (uint32_t)random());
    }
    put_head(next[1], count);
    rq_bytes_init(&out, 16u << 20);
    check_eq(rq_txn_begin(&out, &head, &origin), RQ_OK);
    for (uint32_t i = 1; i <= count; i++) {
        static const uint8_t zeros[PAGE];
        const uint8_t *base = i <= page_count ? is[i] : zeros;
        if (memcmp(next[i], base, PAGE) != 0) {
            check_eq(rq_txn_add(&out, i, i <= page_count ? base : NULL, next[i], PAGE), RQ_OK);
        }
    }
    check_eq(rq_txn_end(&out, 0), RQ_OK);
    lone_apply(++last_index, RQ_ENTRY_TXN, &out);
    rq_bytes_fini(&out);
    memcpy(is, next, sizeof is);
    version++;
    page_count = count;
    struct rq_database_info info;
    rq_database_info(lone.db, &info);
    check(info.version == version && info.state == RQ_DB_LIVE);
}

static void begin(uint32_t count)
{
    memset(is, 0, sizeof is);
    version = last_index = page_count = 0;
    lone_begin(ID);
    commit(count / 2, count);
    rq_database_caught_up(lone.db);
    lone_settle();
}

/* Everything to the database file, and the WAL anew. */
static enum rq_err empty_wal(void)
{
    struct rq_replica *r = rq_database_hold(lone.db);
    enum rq_err err = rq_replica_backfill(r);
    if (err == RQ_OK) {
        err = rq_replica_reset(r);
    }
    rq_database_release(lone.db);
    return err;
}

/* --- who copies ---------------------------------------------------------------------------------------------------------- */

static uint8_t has[PAGES_MAX + 1][PAGE];
static struct rq_copy_changed changed;

/* Commits between two questions, until it is held. */
static void meanwhile(unsigned commits)
{
    const uint32_t count = page_count;
    for (unsigned i = 0; i < commits; i++) {
        const uint32_t size = random() % 4 == 0 ? 100 + (uint32_t)random() % (PAGES_MAX - 100) : count;
        commit(1 + (uint32_t)random() % 40, size);
    }
    if (commits > 0 && random() % 3 == 0) {
        check_eq(empty_wal(), RQ_OK);
    }
}

static void read_pages(struct rq_copy_out *c, const uint32_t *pgnos, uint32_t count)
{
    static uint8_t pages[100][PAGE];
    for (uint32_t at = 0; at < count; at += 100) {
        const uint32_t some = count - at < 100 ? count - at : 100;
        check_eq(rq_copy_out_pages(c, pgnos + at, some, pages[0]), RQ_OK);
        for (uint32_t i = 0; i < some; i++) {
            memcpy(has[pgnos[at + i]], pages[i], PAGE);
        }
    }
}

static void read_all(struct rq_copy_out *c, uint32_t count, unsigned commits)
{
    for (uint32_t first = 1; first <= count; first += 500) {
        uint32_t pgnos[500], some = 0;
        uint64_t hashes[500];
        meanwhile(commits);
        while (some < 500 && first + some <= count) {
            pgnos[some] = first + some;
            some++;
        }
        check_eq(rq_copy_out_hashes(c, first, some, hashes), RQ_OK);
        read_pages(c, pgnos, some);
        for (uint32_t i = 0; i < some; i++) { /* nothing has come in between */
            check(rq_page_hash(has[pgnos[i]], PAGE) == hashes[i]);
        }
    }
}

static void follow(struct rq_copy_out *c, unsigned commits, unsigned rounds_max)
{
    unsigned rounds = 0;
    do {
        meanwhile(commits);
        check_eq(rq_copy_out_changed(c, ++rounds > rounds_max, &changed), RQ_OK);
        commits = changed.held ? 0 : commits;
        read_pages(c, changed.pgnos, changed.count);
    } while (!changed.held || changed.left > 0);
}

static void check_copy(struct rq_copy_out *c)
{
    const struct rq_replica_state *state;
    const struct rq_origins *origins;
    check(rq_copy_out_held(c, &state, &origins));
    check(state->version == version && state->page_count == page_count && state->stamp.index == last_index);
    check(origins->next == version);
    for (uint32_t i = 1; i <= page_count; i++) {
        check(memcmp(has[i], is[i], PAGE) == 0);
    }
}

/* --- claims -------------------------------------------------------------------------------------------------------------- */

static void copy_has_what_is_held_whatever_is_committed_meanwhile(void)
{
    srandom(1);
    begin(2000);
    for (unsigned run = 0; run < 12; run++) {
        struct rq_copy_out *c;
        struct rq_replica_state state;
        struct rq_origins origins;
        memset(has, 0, sizeof has);
        check_eq(rq_copy_out_new(&lone.disk->disk, lone.db, &c, &state, &origins), RQ_OK);
        check(state.version == version && origins.next == version);
        rq_origins_fini(&origins);
        read_all(c, state.page_count, run % 3);
        follow(c, run % 4, run % 5);
        check_copy(c);
        rq_copy_out_free(c);
    }
    lone_end();
}

/* More than is told at once, and it goes on. */
static void what_is_held_stays_as_it_is(void)
{
    struct rq_copy_out *c;
    struct rq_replica_state state;
    struct rq_origins origins;
    srandom(2);
    begin(3000);
    check_eq(rq_copy_out_new(&lone.disk->disk, lone.db, &c, &state, &origins), RQ_OK);
    rq_origins_fini(&origins);
    read_all(c, state.page_count, 0);
    commit(6000, 3500);
    check_eq(rq_copy_out_changed(c, true, &changed), RQ_OK);
    check(changed.held);
    const uint32_t count = page_count;
    static uint8_t then[PAGES_MAX + 1][PAGE];
    memcpy(then, is, sizeof is);
    commit(2000, 200);
    commit(2000, 4000);
    check_eq(empty_wal(), RQ_BUSY);
    read_pages(c, changed.pgnos, changed.count);
    for (uint32_t i = 1; i <= count; i++) {
        check(memcmp(has[i], then[i], PAGE) == 0);
    }
    rq_copy_out_free(c);
    check_eq(empty_wal(), RQ_OK);
    lone_end();
}

static void a_quarantined_one_is_not_copied_on(void)
{
    struct rq_copy_out *c;
    struct rq_replica_state state;
    struct rq_origins origins;
    begin(300);
    check_eq(rq_copy_out_new(&lone.disk->disk, lone.db, &c, &state, &origins), RQ_OK);
    rq_origins_fini(&origins);
    rq_database_quarantine(lone.db, "a test says so");
    lone_settle();
    check_eq(rq_copy_out_changed(c, true, &changed), RQ_QUARANTINED);
    rq_copy_out_free(c);
    check_eq(rq_copy_out_new(&lone.disk->disk, lone.db, &c, &state, &origins), RQ_QUARANTINED);
    check_eq(rq_copy_out_head(lone.db, &state.version, &origins), RQ_OK);
    check(state.version == version && origins.next == version);
    rq_origins_fini(&origins);
    lone_end();
}

static void damage_is_not_passed_on(void)
{
    struct rq_copy_out *c;
    struct rq_replica_state state;
    struct rq_origins origins;
    struct rq_disk *disk;
    struct rq_file *file;
    uint64_t hashes[300];
    begin(300);
    commit(300, 300);
    commit(300, 300);
    check_eq(empty_wal(), RQ_OK);
    check_eq(rq_copy_out_new(&lone.disk->disk, lone.db, &c, &state, &origins), RQ_OK);
    rq_origins_fini(&origins);
    check_eq(rq_copy_out_hashes(c, 1, 300, hashes), RQ_OK);
    disk = &lone.disk->disk;
    check_eq(disk->ops->open(disk, "/data/app.db", RQ_OPEN_WRITE, 0, &file), RQ_OK);
    for (uint32_t i = 100; i < 110; i++) {
        check_eq(disk->ops->write(file, "damage", 6, i * PAGE + 77), RQ_OK);
    }
    disk->ops->close(file);
    check_eq(rq_copy_out_hashes(c, 1, 300, hashes), RQ_QUARANTINED);
    lone_settle();
    struct rq_database_info info;
    rq_database_info(lone.db, &info);
    check_eq(info.state, RQ_DB_QUARANTINED);
    rq_copy_out_free(c);
    lone_end();
}

static void one_without_a_commit_is_no_copy(void)
{
    struct rq_copy_out *c;
    struct rq_replica_state state;
    struct rq_origins origins;
    lone_begin(ID);
    check_eq(rq_copy_out_new(&lone.disk->disk, lone.db, &c, &state, &origins), RQ_OK);
    check(c == NULL && state.version == 0);
    rq_origins_fini(&origins);
    lone_end();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        /* apart: control pages are shared in a process, by disk and name */
        TAP_APART(copy_has_what_is_held_whatever_is_committed_meanwhile),
        TAP_APART(what_is_held_stays_as_it_is),
        TAP_APART(a_quarantined_one_is_not_copied_on),
        TAP_APART(damage_is_not_passed_on),
        TAP_APART(one_without_a_commit_is_no_copy),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
