/* wal care: a WAL over its limit is begun anew as soon as no reader is in it, also while somebody writes. */
#include "raftd/db/wal_care.h"
#include "raftd/run/clock.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"
#include "tests/support/lone_database.h"
#include "tests/support/page1.h"
#include "tests/support/tap.h"

enum { PAGE = 512, PAGES = 300, ID = 7 };

static uint64_t version;
static struct rq_control page; /* the application's handle */
static uint32_t slot, waits;

static void page_of(uint64_t of_version, uint32_t pgno, uint8_t bytes[PAGE])
{
    memset(bytes, (int)of_version, PAGE);
    if (pgno == 1) {
        page1_head(bytes, PAGE, of_version, PAGES);
        rq_page1_normalise(bytes);
    }
}

/* The first so many pages are of another content. */
static void commit(uint32_t pages)
{
    struct rq_bytes out;
    const struct rq_origin origin = { 99, version + 1 };
    const struct rq_txn_head head = { ID, PAGE, PAGES, 1, version, version + 1 };
    rq_bytes_init(&out, 1u << 20);
    check_eq(rq_txn_begin(&out, &head, &origin), RQ_OK);
    for (uint32_t i = 1; i <= pages; i++) {
        uint8_t before[PAGE], after[PAGE];
        page_of(version, i, before);
        page_of(version + 1, i, after);
        check_eq(rq_txn_add(&out, i, version > 0 ? before : NULL, after, PAGE), RQ_OK);
    }
    check_eq(rq_txn_end(&out, 0), RQ_OK);
    version++;
    lone_apply(10 + version, RQ_ENTRY_TXN, &out);
    rq_bytes_fini(&out);
}

static struct rq_replica_wal wal_of(void)
{
    struct rq_replica_wal wal;
    rq_replica_get_wal(rq_database_hold(lone.db), &wal);
    rq_database_release(lone.db);
    return wal;
}

/* While somebody writes. */
static uint64_t care(uint64_t now)
{
    struct rq_replica *r = rq_database_hold(lone.db);
    const uint64_t due = rq_wal_care(lone.db, r, now, false, &waits);
    rq_database_release(lone.db);
    return due;
}

static void snapshot_set(unsigned state)
{
    atomic_store(&page.slots[slot].snapshot,
                 rq_snap_word(state, state == RQ_SNAP_NONE ? 0 : RQ_SNAP_WAL, wal_of().frames));
}

static void begin(void)
{
    version = 0;
    waits = 0;
    lone_begin(ID);
    rq_database_caught_up(lone.db);
    lone_settle();
    commit(PAGES); /* is the file */
    check_eq(rq_control_open(&lone.disk->disk, "/data/app.db-rqctl", rq_boot_id(), &page), RQ_OK);
    check_eq(rq_slot_claim(&page, 1, &slot), RQ_OK);
}

static void end(void)
{
    rq_control_close(&page);
    lone_end();
}

static void beside_a_writer_a_long_wal_alone_is_begun_anew(void)
{
    begin();
    commit(PAGES);
    const uint64_t now = rq_database_last_use(lone.db);
    check(care(now) <= now + 100); /* when it is quiet */
    check_eq(wal_of().backfilled, 0);
    while (wal_of().frames < RQ_WAL_SOFT_FRAMES) {
        commit(PAGES);
    }
    (void)care(rq_database_last_use(lone.db));
    check_eq(wal_of().frames, 0);
    end();
}

/* A reset that failed for a reader says nothing of the next one: with little left to copy no back-fill would find out that the reader
 * has gone, and who writes slowly would wait for the next hundred frames under a WAL that is over its limit. */
static void reset_is_tried_again_when_a_reader_was_in_the_way(void)
{
    begin();
    while (wal_of().frames < RQ_WAL_HARD_FRAMES) {
        commit(PAGES);
    }
    snapshot_set(RQ_SNAP_ACTIVE);
    const uint64_t now = rq_database_last_use(lone.db);
    check(care(now) <= now + 50); /* soon again */
    check_eq(wal_of().backfilled, wal_of().frames);
    check(wal_of().blocked);
    snapshot_set(RQ_SNAP_NONE);
    commit(1);
    check(wal_of().frames - wal_of().backfilled < RQ_RESET_REST_FRAMES);
    (void)care(rq_database_last_use(lone.db));
    check_eq(wal_of().frames, 0);
    check(!wal_of().blocked);
    end();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        /* files stay open in the process, on a disk that is no more */
        TAP_APART(beside_a_writer_a_long_wal_alone_is_begun_anew),
        TAP_APART(reset_is_tried_again_when_a_reader_was_in_the_way),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
