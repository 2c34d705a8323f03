/* repair: at a MARK entry of the log a database is held still for others, or a quarantined one gets its wrong pages back; whatever goes
 * wrong then, it stays as it was. */
#include <stdio.h>
#include <stdlib.h>

#include "raftd/db/database.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"
#include "tests/support/lone_database.h"
#include "tests/support/page1.h"
#include "tests/support/tap.h"

enum { PAGE = 512, PAGES = 200, ID = 7, NONCE = 55 };

/* What each page should be full of, at version. */
static struct {
    uint8_t fill[PAGES + 1];
    uint64_t version, index;
    uint32_t page_count;
} right;

static void page_of(const uint8_t fill[PAGES + 1], uint64_t version, uint32_t pgno, uint8_t page[PAGE])
{
    memset(page, fill[pgno], PAGE);
    if (pgno == 1) {
        page1_head(page, PAGE, version, right.page_count);
        rq_page1_normalise(page);
    }
}

/* --- this host ----------------------------------------------------------------------------------------------------------- */

static void open_database(uint64_t version, bool caught_up)
{
    lone_open(ID, version);
    if (caught_up) {
        rq_database_caught_up(lone.db);
        lone_settle();
    }
}

/* A transaction after which the pages are full of this; it carries those up to last. */
static void commit_pages(const uint8_t fill[PAGES + 1], uint32_t last)
{
    struct rq_bytes out;
    const struct rq_origin origin = { 99, right.version + 1 };
    const struct rq_txn_head head = { ID, PAGE, PAGES, 1, right.version, right.version + 1 };
    rq_bytes_init(&out, 1u << 20);
    right.page_count = PAGES;
    check_eq(rq_txn_begin(&out, &head, &origin), RQ_OK);
    for (uint32_t i = 1; i <= last; i++) {
        uint8_t before[PAGE], after[PAGE];
        if (i > 1 && fill[i] == right.fill[i] && right.version > 0) {
            continue;
        }
        page_of(right.fill, right.version, i, before);
        page_of(fill, right.version + 1, i, after);
        check_eq(rq_txn_add(&out, i, right.version > 0 ? before : NULL, after, PAGE), RQ_OK);
    }
    check_eq(rq_txn_end(&out, 0), RQ_OK);
    memcpy(right.fill, fill, sizeof right.fill);
    right.version++;
    right.index += 2;
    lone_apply(right.index, RQ_ENTRY_TXN, &out);
    rq_bytes_fini(&out);
}

static void commit(const uint8_t fill[PAGES + 1])
{
    commit_pages(fill, PAGES);
}

static void mark(uint64_t nonce, uint32_t first, uint32_t count)
{
    struct rq_bytes out;
    rq_bytes_init(&out, 4096);
    check_eq(rq_entry_put_mark(&out, &(struct rq_entry_mark){ ID, nonce, first, count }), RQ_OK);
    right.index++;
    lone_apply(right.index, RQ_ENTRY_MARK, &out);
    rq_bytes_fini(&out);
}

/* In the database file, whatever raftd thinks of it. */
static void damage(uint32_t pgno)
{
    struct rq_disk *disk = &lone.disk->disk;
    struct rq_file *file;
    check_eq(disk->ops->open(disk, "/data/app.db", RQ_OPEN_WRITE, 0, &file), RQ_OK);
    check_eq(disk->ops->write(file, "damage", 6, (uint64_t)(pgno - 1) * PAGE + 77), RQ_OK);
    disk->ops->close(file);
}

static enum rq_control_state state(void)
{
    struct rq_database_info info;
    rq_database_info(lone.db, &info);
    check_eq(info.version, right.version);
    return info.state;
}

static bool is_right(void)
{
    uint8_t wanted[PAGE], page[PAGE];
    struct rq_replica *r = rq_database_hold(lone.db);
    bool same = r != NULL && state() == RQ_DB_LIVE;
    for (uint32_t i = 1; same && i <= PAGES; i++) {
        page_of(right.fill, right.version, i, wanted);
        same = rq_replica_read(r, i, page) == RQ_OK && memcmp(page, wanted, PAGE) == 0;
    }
    rq_database_release(lone.db);
    return same;
}

/* Version 1, all of it in the database file. */
static void begin(void)
{
    uint8_t fill[PAGES + 1];
    memset(&right, 0, sizeof right);
    memset(fill, 'a', sizeof fill);
    right.index = 10;
    lone.marks = lone.disputed = 0;
    lone_begin(ID);
    rq_database_caught_up(lone.db);
    lone_settle();
    commit(fill);
    check(is_right());
}

static void fence(void)
{
    rq_database_quarantine(lone.db, "a test says so");
    lone_settle();
    check_eq(state(), RQ_DB_QUARANTINED);
}

/* --- the others ---------------------------------------------------------------------------------------------------------- */

static struct {
    bool older, lies, away, decides_nothing, lets_go, keeps_hashes_only;
    unsigned pages, disputed;
    uint64_t index;
} there;

static enum rq_err on_open(void *ctx, uint64_t index, struct rq_replica_state *ret_state)
{
    (void)ctx;
    there.index = index;
    *ret_state = (struct rq_replica_state){
        .stamp = { .db_id = ID, .term = 3, .index = index - 1 },
        .version = right.version - there.older,
        .page_size = PAGE,
        .page_count = PAGES,
    };
    return there.away ? RQ_AWAY : RQ_OK;
}

static enum rq_err on_hashes(void *ctx, uint32_t first, uint32_t count, uint64_t *ret_hashes)
{
    uint8_t page[PAGE];
    (void)ctx;
    check(first == 1 && count == PAGES);
    for (uint32_t i = 0; i < count; i++) {
        page_of(right.fill, right.version, first + i, page);
        ret_hashes[i] = rq_page_hash(page, PAGE);
    }
    return there.lets_go ? RQ_NOTFOUND : RQ_OK;
}

static enum rq_err on_page(void *ctx, uint32_t pgno, uint32_t page_size, bool disputed, uint8_t *page)
{
    (void)ctx;
    check_eq(page_size, PAGE);
    there.disputed += disputed;
    if (disputed && there.decides_nothing) {
        return RQ_CORRUPT;
    }
    page_of(right.fill, right.version, pgno, page);
    page[300] ^= there.lies && there.pages == 1;
    there.pages++;
    return there.keeps_hashes_only ? RQ_NOTFOUND : RQ_OK;
}

static enum rq_err repair(uint64_t nonce, struct rq_repair *r)
{
    *r = (struct rq_repair){ .nonce = NONCE, .source = { NULL, on_open, on_hashes, on_page } };
    there.pages = there.disputed = 0;
    rq_database_repair_begin(lone.db, r);
    mark(nonce, 0, 0);
    return rq_database_repair_wait(lone.db, r, 0);
}

/* --- claims -------------------------------------------------------------------------------------------------------------- */

static void mark_shows_one_state_while_commits_go_on(void)
{
    uint64_t hashes[PAGES];
    uint8_t fill[PAGES + 1], wanted[PAGE], page[PAGE];
    begin();
    mark(NONCE, 1, PAGES);
    struct rq_view *v = lone.view;
    check(v != NULL && lone.marks == 1 && v->state.version == 1 && v->state.page_count == PAGES);
    page_of(right.fill, 1, 1, wanted);
    memset(fill, 'b', sizeof fill);
    commit(fill);
    check_eq(rq_view_hashes(v, lone.db, 1, PAGES, hashes), RQ_OK);
    check_eq(hashes[0], rq_page_hash(wanted, PAGE));
    check_eq(rq_view_page(v, lone.db, 9, page), RQ_OK);
    check(page[0] == 'a' && page[PAGE - 1] == 'a');
    check_eq(rq_view_page(v, lone.db, PAGES + 1, page), RQ_PROTOCOL);
    check_eq(rq_view_page(v, lone.db, 0, page), RQ_PROTOCOL);
    lone_end();
}

static void mark_passes_no_damage_on(void)
{
    uint64_t hashes[PAGES];
    begin();
    mark(NONCE, 1, PAGES);
    damage(9);
    check_eq(rq_view_hashes(lone.view, lone.db, 1, PAGES, hashes), RQ_QUARANTINED);
    lone_settle();
    check_eq(state(), RQ_DB_QUARANTINED);
    mark(NONCE + 1, 1, PAGES);
    check(lone.view == NULL && lone.marks == 2);
    lone_end();
}

/* It is read from the database file there, whatever the WAL has of it by now. */
static void mark_passes_no_damage_on_where_a_page_was_changed_since(void)
{
    uint64_t hashes[PAGES];
    uint8_t fill[PAGES + 1];
    begin();
    mark(NONCE, 1, PAGES);
    memset(fill, 'b', sizeof fill);
    commit(fill);
    check_eq(rq_view_hashes(lone.view, lone.db, 1, PAGES, hashes), RQ_OK);
    damage(9);
    check_eq(rq_view_hashes(lone.view, lone.db, 1, PAGES, hashes), RQ_QUARANTINED);
    lone_settle();
    check_eq(state(), RQ_DB_QUARANTINED);
    lone_end();
}

/* What another member gave is newer than that place of the log. */
static void mark_before_what_was_installed_shows_nothing(void)
{
    begin();
    right.index -= 2;
    mark(NONCE, 1, PAGES);
    check(lone.view == NULL && lone.marks == 1);
    right.index += 2;
    mark(NONCE + 1, 1, PAGES);
    check(lone.view != NULL && lone.marks == 2);
    lone_end();
}

static void mark_in_replay_is_nobodys(void)
{
    begin();
    lone_close();
    open_database(1, false);
    lone.marks = 0;
    mark(NONCE, 1, PAGES);
    check_eq(lone.marks, 0);
    lone_end();
}

static void wrong_pages_come_back(void)
{
    struct rq_repair r;
    uint8_t fill[PAGES + 1];
    begin();
    damage(5);
    damage(120);
    fence();
    check_eq(repair(NONCE, &r), RQ_OK);
    check(r.mended == 2 && there.pages == 2 && r.compared == PAGES && there.index == right.index);
    check_eq(strcmp(r.first_pages, "5,120"), 0);
    check_eq(there.disputed, 0); /* their hashes say that they are wrong */
    check(is_right());
    memcpy(fill, right.fill, sizeof fill);
    fill[5] = 'c';
    commit(fill);
    check(is_right());
    lone_close();
    open_database(2, true);
    check(is_right());
    lone_end();
}

/* Readers take from the database file what is back-filled: that the WAL still has it is no help to them. */
static void a_wrong_page_that_the_wal_still_has_comes_back(void)
{
    struct rq_repair r;
    uint8_t fill[PAGES + 1], page[PAGE];
    begin();
    memset(fill, 'b', sizeof fill);
    commit(fill);
    struct rq_replica *replica = rq_database_hold(lone.db);
    check_eq(rq_replica_backfill(replica), RQ_OK);
    damage(9);
    check_eq(rq_replica_read(replica, 9, page), RQ_OK);
    check_eq(rq_replica_read_as_shown(replica, 9, page), RQ_CORRUPT);
    rq_database_release(lone.db);
    fence();
    check_eq(repair(NONCE, &r), RQ_OK);
    check(r.mended == 1 && there.disputed == 0);
    mark(NONCE + 1, 9, 1);
    check(lone.view != NULL && rq_view_page(lone.view, lone.db, 9, page) == RQ_OK && page[77] == 'b');
    lone_end();
}

/* What the log brought while it was fenced comes with them. */
static void what_was_missed_comes_too(void)
{
    struct rq_repair r;
    uint8_t fill[PAGES + 1];
    begin();
    damage(5);
    fence();
    memcpy(fill, right.fill, sizeof fill);
    fill[77] = 'd';
    commit(fill);
    check_eq(state(), RQ_DB_QUARANTINED);
    check_eq(repair(NONCE, &r), RQ_OK);
    check_eq(r.mended, 3);       /* page 1, too */
    check_eq(there.disputed, 0); /* and nothing is claimed about pages that the log has changed */
    check(is_right());
    commit(fill);
    check(is_right());
    lone_end();
}

/* Of pages that the log has left alone its word still stands. */
static void what_was_not_missed_is_disputed(void)
{
    struct rq_repair r;
    uint8_t fill[PAGES + 1];
    begin();
    damage(5);
    fence();
    memcpy(fill, right.fill, sizeof fill);
    for (unsigned i = 0; i < 3; i++) {
        fill[77] = (uint8_t)('d' + i);
        commit_pages(fill, i == 1 ? 77 : 78);
    }
    right.fill[33] = 'x';
    there.decides_nothing = true;
    check_eq(repair(NONCE, &r), RQ_CORRUPT);
    check_eq(there.disputed, 1);
    there.decides_nothing = false;
    check_eq(repair(NONCE, &r), RQ_OK);
    check_eq(there.disputed, 1);
    check_eq(r.mended, 4); /* 1, 5, 33, 77 */
    check(is_right());
    lone_end();
}

/* Whole by itself, as far as it knows, and not what the others hold. */
static void what_others_have_otherwise_is_replaced(void)
{
    struct rq_repair r;
    begin();
    damage(5);
    fence();
    right.fill[33] = 'x';
    there.decides_nothing = true;
    check_eq(repair(NONCE, &r), RQ_CORRUPT); /* one word against another */
    check_eq(state(), RQ_DB_QUARANTINED);
    there.decides_nothing = false;
    check_eq(repair(NONCE, &r), RQ_OK);
    check_eq(r.mended, 2);
    check_eq(there.disputed, 1);
    check(is_right());
    lone_end();
}

/* The next transaction, of a host whose page 33 is full of base: it changes one byte of it.  0: one that fits. */
static void put_record(uint64_t version, uint8_t base, struct rq_bytes *out)
{
    uint8_t before[PAGE], after[PAGE];
    const struct rq_origin origin = { 99, version };
    const struct rq_txn_head head = { ID, PAGE, PAGES, 1, version - 1, version };
    rq_bytes_init(out, 1u << 20);
    check_eq(rq_txn_begin(out, &head, &origin), RQ_OK);
    page_of(right.fill, version - 1, 1, before);
    page_of(right.fill, version, 1, after);
    check_eq(rq_txn_add(out, 1, before, after, PAGE), RQ_OK);
    if (base != 0) {
        memset(before, base, PAGE);
        memset(after, base, PAGE);
        after[10] = 'z';
        check_eq(rq_txn_add(out, 33, before, after, PAGE), RQ_OK);
    }
    check_eq(rq_txn_end(out, 0), RQ_OK);
}

static void apply_misfit(uint8_t base)
{
    struct rq_bytes out;
    put_record(++right.version, base, &out);
    right.index += 2;
    lone_apply(right.index, RQ_ENTRY_TXN, &out);
    rq_bytes_fini(&out);
}

/* Our page, and on it what the transaction has changed. */
static void has_ours_with_its_bytes(void)
{
    uint8_t page[PAGE], wanted[PAGE];
    struct rq_replica *r = rq_database_hold(lone.db);
    memset(wanted, 'a', PAGE);
    wanted[10] = 'z';
    check_eq(rq_replica_read(r, 33, page), RQ_OK);
    check_eq(memcmp(page, wanted, PAGE), 0);
    rq_database_release(lone.db);
    check_eq(state(), RQ_DB_LIVE);
}

static void a_transaction_that_does_not_fit_changes_our_page_if_others_judge(void)
{
    begin();
    lone.is_judged = true;
    apply_misfit('x');
    check(lone.disputed == 1 && lone.disputed_page == 33);
    has_ours_with_its_bytes();
    lone_close();
    open_database(2, true); /* the page is what its hash says */
    has_ours_with_its_bytes();
    lone_end();
}

/* Its page 1 had the change counter of the transaction before it was made: each replica writes its own. */
static void page_1_says_what_the_record_says(void)
{
    uint8_t before[PAGE], after[PAGE], page[PAGE];
    struct rq_bytes out;
    begin();
    const struct rq_origin origin = { 99, 2 };
    const struct rq_txn_head head = { ID, PAGE, PAGES, 1, 1, 2 };
    rq_bytes_init(&out, 1u << 20);
    lone.is_judged = true;
    page_of(right.fill, 2, 1, after);
    memcpy(before, after, PAGE);
    before[300] ^= 1;
    check_eq(rq_txn_begin(&out, &head, &origin), RQ_OK);
    check_eq(rq_txn_add(&out, 1, before, after, PAGE), RQ_OK);
    check_eq(rq_txn_end(&out, 0), RQ_OK);
    right.version = 2;
    lone_apply(right.index + 2, RQ_ENTRY_TXN, &out);
    rq_bytes_fini(&out);
    struct rq_replica *r = rq_database_hold(lone.db);
    check_eq(rq_replica_read(r, 1, page), RQ_OK);
    rq_database_release(lone.db);
    check_eq(rq_get_u32(page + 24), 2);
    check_eq(memcmp(page, after, PAGE), 0);
    check(lone.disputed == 1 && lone.disputed_page == 1);
    lone_end();
}

static void a_page_that_this_host_did_not_write_is_no_dispute(void)
{
    begin();
    lone.is_judged = true;
    damage(33);
    apply_misfit('a');
    check(lone.disputed == 0 && state() == RQ_DB_QUARANTINED);
    lone_end();
}

static void alone_it_is_fenced_by_such_a_transaction(void)
{
    begin();
    lone.is_judged = false;
    apply_misfit('x');
    check_eq(lone.disputed, 1);
    check_eq(state(), RQ_DB_QUARANTINED);
    lone_end();
}

/* One that fits, one that does not, and one that fits, at once. */
static void it_is_judged_also_among_others(void)
{
    struct rq_bytes out;
    begin();
    lone.is_judged = true;
    for (unsigned i = 0; i < 3; i++) {
        put_record(++right.version, i == 1 ? 'x' : 0, &out);
        right.index++;
        const struct rq_log_entry e = { right.index, 3, RQ_ENTRY_TXN, rq_blob_new(out.size) };
        memcpy(e.blob->data, out.data, out.size);
        rq_database_committed(lone.db, &e);
        rq_blob_unref(e.blob);
        rq_bytes_fini(&out);
    }
    lone_settle();
    check_eq(lone.disputed, 1);
    has_ours_with_its_bytes();
    lone_end();
}

static void nothing_happens_unless_all_is_well(void)
{
    struct rq_repair r;
    begin();
    check_eq(repair(NONCE, &r), RQ_EXISTS); /* nothing to mend */
    damage(5);
    damage(6);
    fence();
    check_eq(repair(NONCE + 1, &r), RQ_AWAY); /* somebody else's mark */
    there.away = true;
    check_eq(repair(NONCE, &r), RQ_AWAY);
    there.away = false;
    there.older = true;
    check_eq(repair(NONCE, &r), RQ_UNREADY);
    there.older = false;
    there.lies = true;
    check_eq(repair(NONCE, &r), RQ_CORRUPT); /* the second page is not what was announced */
    check_eq(state(), RQ_DB_QUARANTINED);
    there.lies = false;
    there.lets_go = true;
    check_eq(repair(NONCE, &r), RQ_UNREADY); /* which is not the end of the pages */
    there.lets_go = false;
    there.keeps_hashes_only = true;
    check_eq(repair(NONCE, &r), RQ_UNREADY);
    there.keeps_hashes_only = false;
    check_eq(state(), RQ_DB_QUARANTINED);
    check_eq(repair(NONCE, &r), RQ_OK);
    check(is_right());
    lone_end();
}

static void files_that_are_not_sound_are_left_alone(void)
{
    struct rq_repair r;
    struct rq_disk *disk;
    uint8_t fill[PAGES + 1];
    begin();
    memset(fill, 'b', sizeof fill);
    commit(fill); /* in the WAL */
    disk = &lone.disk->disk;
    struct rq_file *file;
    check_eq(disk->ops->open(disk, "/data/app.db-wal", RQ_OPEN_WRITE, 0, &file), RQ_OK);
    check_eq(disk->ops->write(file, "damage", 6, 32 + 24 + 100), RQ_OK);
    disk->ops->close(file);
    fence();
    check_eq(repair(NONCE, &r), RQ_NOTFOUND);
    check(there.pages == 0 && state() == RQ_DB_QUARANTINED);
    lone_end();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        /* files stay open in the process, on a disk that is no more */
        TAP_APART(mark_shows_one_state_while_commits_go_on),
        TAP_APART(mark_passes_no_damage_on),
        TAP_APART(mark_passes_no_damage_on_where_a_page_was_changed_since),
        TAP_APART(mark_before_what_was_installed_shows_nothing),
        TAP_APART(mark_in_replay_is_nobodys),
        TAP(wrong_pages_come_back),
        TAP_APART(a_wrong_page_that_the_wal_still_has_comes_back),
        TAP(what_was_missed_comes_too),
        TAP(what_was_not_missed_is_disputed),
        TAP(a_transaction_that_does_not_fit_changes_our_page_if_others_judge),
        TAP(page_1_says_what_the_record_says),
        TAP(a_page_that_this_host_did_not_write_is_no_dispute),
        TAP(alone_it_is_fenced_by_such_a_transaction),
        TAP(it_is_judged_also_among_others),
        TAP(what_others_have_otherwise_is_replaced),
        TAP(nothing_happens_unless_all_is_well),
        TAP(files_that_are_not_sound_are_left_alone),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
