/* install: a database becomes what another member has, by the pages that differ; whatever happens meanwhile, it is the old one or
 * the new one. */
#include <stdio.h>
#include <stdlib.h>

#include "raftd/db/database.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"
#include "tests/support/lone_database.h"
#include "tests/support/page1.h"
#include "tests/support/tap.h"

enum { PAGE = 512, PAGES_MAX = 20000, ID = 7 };

/* --- another member ------------------------------------------------------------------------------------------------------ */

static struct {
    struct rq_replica_state state;
    uint8_t fill[PAGES_MAX + 1]; /* what each page is full of; 0: zeros */
    unsigned pages_until_lost;   /* then the connection is lost; 0: never */
    bool lies;                   /* sends a page that it did not announce */
    unsigned fetched, opened, held;
    unsigned changes;            /* so many transactions happen at each question, until it is held */
    bool changed[PAGES_MAX + 1]; /* and was not told yet */
} there;

static void page_there(uint32_t pgno, uint8_t page[PAGE])
{
    memset(page, pgno <= there.state.page_count ? there.fill[pgno] : 0, PAGE);
    if (pgno == 1) {
        page1_head(page, PAGE, there.state.version, there.state.page_count);
        rq_page1_normalise(page);
    }
}

/* A transaction: some pages, more or fewer of them, and always page 1. */
static void change_there(void)
{
    struct rq_replica_state *state = &there.state;
    const uint32_t before = state->page_count;
    state->version++;
    state->stamp.index++;
    state->page_count = 200 + (uint32_t)random() % 200;
    for (uint32_t i = before + 1; i <= state->page_count; i++) {
        there.fill[i] = 0; /* rule Z */
        there.changed[i] = true;
    }
    for (unsigned i = 0; i < 5; i++) {
        const uint32_t pgno = 2 + (uint32_t)random() % (state->page_count - 1);
        there.fill[pgno] = (uint8_t)random();
        there.changed[pgno] = true;
    }
    there.changed[1] = true;
}

static void time_passes_there(void)
{
    for (unsigned i = 0; i < there.changes && there.held == 0; i++) {
        change_there();
    }
}

static enum rq_err on_open(void *ctx, uint32_t id, struct rq_replica_state *ret_state, struct rq_origins *ret_origins)
{
    (void)ctx;
    check_eq(id, ID);
    there.opened++;
    there.held = 0;
    memset(there.changed, 0, sizeof there.changed);
    *ret_state = there.state;
    rq_origins_init(ret_origins, there.state.version > 0 ? there.state.version - 1 : 0);
    return there.state.version > 0 ? rq_origins_put(ret_origins, (struct rq_origin){ 77, there.state.version }) : RQ_OK;
}

static enum rq_err on_hashes(void *ctx, uint32_t first, uint32_t count, uint64_t *ret_hashes)
{
    uint8_t page[PAGE];
    (void)ctx;
    check(count <= RQ_COPY_HASHES_MAX);
    time_passes_there();
    for (uint32_t i = 0; i < count; i++) {
        page_there(first + i, page);
        ret_hashes[i] = rq_page_hash(page, PAGE);
    }
    return RQ_OK;
}

static enum rq_err on_pages(void *ctx, const uint32_t *pgnos, uint32_t count, uint32_t page_size, uint8_t *ret_pages)
{
    (void)ctx;
    check(page_size == PAGE && count * PAGE <= RQ_COPY_PAGES_BYTES);
    time_passes_there();
    for (uint32_t i = 0; i < count; i++) {
        page_there(pgnos[i], ret_pages + (size_t)i * PAGE);
        ret_pages[(size_t)i * PAGE + 200] ^= there.lies;
        if (++there.fetched == there.pages_until_lost) {
            return RQ_AWAY;
        }
    }
    return RQ_OK;
}

static enum rq_err on_changed(void *ctx, bool hold, struct rq_copy_changed *ret_changed)
{
    uint32_t left = 0;
    (void)ctx;
    time_passes_there();
    for (uint32_t i = 1; i <= PAGES_MAX; i++) {
        left += there.changed[i];
    }
    there.held += hold || left < 5 || there.held > 0;
    ret_changed->count = 0;
    for (uint32_t i = 1; i <= PAGES_MAX && ret_changed->count < 16; i++) { /* a few at a time */
        if (there.changed[i]) {
            there.changed[i] = false;
            ret_changed->pgnos[ret_changed->count++] = i;
        }
    }
    ret_changed->left = left - ret_changed->count;
    ret_changed->held = there.held > 0;
    return RQ_OK;
}

static enum rq_err on_held(void *ctx, struct rq_replica_state *ret_state, struct rq_origins *ret_origins)
{
    (void)ctx;
    check(there.held > 0);
    *ret_state = there.state;
    rq_origins_init(ret_origins, there.state.version);
    return RQ_OK;
}

static const struct rq_copy_source source = { NULL, on_open, on_hashes, on_pages, on_changed, on_held };

static void state_there(uint64_t version, uint32_t page_count, uint64_t index)
{
    there.state = (struct rq_replica_state){
        .stamp = { .db_id = ID, .term = 3, .index = index, .version_high = (uint32_t)(version >> 32) },
        .version = version,
        .page_size = PAGE,
        .page_count = page_count,
    };
}

/* --- this host ----------------------------------------------------------------------------------------------------------- */

static void begin(void)
{
    memset(&there, 0, sizeof there);
    lone_begin(ID);
}

static bool by_itself;

static enum rq_err install(struct rq_copy_count *count)
{
    *count = (struct rq_copy_count){ 0 };
    there.fetched = 0;
    return rq_database_install(lone.db, &source, by_itself, count);
}

/* Every page here is what it is there. */
static bool is_as_there(void)
{
    struct rq_database_info info;
    uint8_t wanted[PAGE], page[PAGE];
    rq_database_info(lone.db, &info);
    if (info.version != there.state.version || info.page_count != there.state.page_count || info.state != RQ_DB_LIVE) {
        return false;
    }
    struct rq_replica *r = rq_database_hold(lone.db);
    bool same = r != NULL;
    for (uint32_t i = 1; same && i <= info.page_count; i++) {
        page_there(i, wanted);
        same = rq_replica_read(r, i, page) == RQ_OK && memcmp(page, wanted, PAGE) == 0;
    }
    rq_database_release(lone.db);
    return same;
}

static enum rq_err count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(unsigned *)ctx;
    return RQ_OK;
}

static unsigned copy_files(void)
{
    unsigned count = 0;
    check_eq(lone.disk->disk.ops->list(&lone.disk->disk, "/data/raft/copies", count_name, &count), RQ_OK);
    return count;
}

/* 300 pages, and installed. */
static void begin_with_300(void)
{
    struct rq_copy_count count;
    begin();
    state_there(5, 300, 10);
    memset(there.fill, 'a', 301);
    check_eq(install(&count), RQ_OK);
    check(is_as_there());
}

/* --- claims -------------------------------------------------------------------------------------------------------------- */

static void one_that_was_never_here_is_made(void)
{
    struct rq_copy_count count;
    begin();
    state_there(5, PAGES_MAX, 10);
    for (unsigned i = 1; i <= PAGES_MAX; i++) {
        there.fill[i] = (uint8_t)(i % 7);
    }
    check_eq(install(&count), RQ_OK);
    check(is_as_there());
    check_eq(count.compared, PAGES_MAX);
    check_eq(count.fetched, PAGES_MAX - PAGES_MAX / 7); /* zeros are not sent */
    struct rq_database_info info;
    rq_database_info(lone.db, &info);
    check_eq(info.applied_index, 10);
    lone_end();
}

static void only_pages_that_differ_come(void)
{
    struct rq_copy_count count;
    begin_with_300();
    check_eq(install(&count), RQ_OK);
    check_eq(count.compared, 0); /* the same transactions have made it */
    state_there(9, 310, 20);
    there.fill[5] = 'b';
    there.fill[300] = 'c';
    there.fill[310] = 'd';
    check_eq(install(&count), RQ_OK);
    check(is_as_there());
    check_eq(count.fetched, 4); /* 1, 5, 300, 310; those between the last two are zeros */
    state_there(12, 200, 30);
    check_eq(install(&count), RQ_OK);
    check(is_as_there());
    check_eq(count.fetched, 1);
    lone_close();
    lone_open(ID, 12);
    check(is_as_there());
    lone_end();
}

static void none_without_a_commit_stays_so(void)
{
    struct rq_copy_count count;
    struct rq_database_info info;
    begin();
    there.state.version = 0;
    check_eq(install(&count), RQ_OK);
    rq_database_info(lone.db, &info);
    check_eq(info.state, RQ_DB_EMPTY);
    lone_end();
}

static void what_is_newer_here_stays(void)
{
    struct rq_copy_count count;
    struct rq_database_info info;
    begin_with_300();
    state_there(4, 299, 9);
    there.fill[7] = 'x';
    check_eq(install(&count), RQ_OK);
    check_eq(there.fetched, 0);
    rq_database_info(lone.db, &info);
    check_eq(info.version, 5);
    lone_end();
}

static void a_copy_that_breaks_off_changes_nothing(void)
{
    struct rq_copy_count count;
    begin_with_300();
    const struct rq_replica_state before = there.state;
    for (unsigned lost = 1; lost <= 30; lost += 7) {
        state_there(9, 300, 20);
        memset(there.fill + 100, 'b', 40);
        there.pages_until_lost = lost;
        check_eq(install(&count), RQ_AWAY);
        there.state = before;
        memset(there.fill + 100, 'a', 40);
        check(is_as_there());
    }
    there.pages_until_lost = 0;
    state_there(9, 300, 20);
    there.lies = true;
    check_eq(install(&count), RQ_CORRUPT);
    there.lies = false;
    there.state = before;
    check(is_as_there());
    state_there(9, 300, 20);
    there.state.stamp.db_id = ID + 1;
    check_eq(install(&count), RQ_CORRUPT);
    there.state = before;
    check(is_as_there());
    lone_end();
}

static void what_a_copy_that_broke_off_has_fetched_is_not_fetched_again(void)
{
    struct rq_copy_count count;
    begin_with_300();
    for (unsigned anew = 0; anew < 2; anew++) {
        if (anew == 1) {
            rq_database_quarantine(lone.db, "a test says so");
            lone_settle();
        }
        state_there(there.state.version + 1, 6000, there.state.stamp.index + 10);
        for (unsigned i = 2; i <= 6000; i++) {
            there.fill[i] = (uint8_t)(i % 5 + anew + 1);
        }
        there.pages_until_lost = 5000; /* 128 at a time */
        check_eq(install(&count), RQ_AWAY);
        there.pages_until_lost = 0;
        there.fill[3000] ^= 128; /* another one now */
        lone_close();
        lone_open(ID, there.state.version - 1);
        if (anew == 1) {
            rq_database_quarantine(lone.db, "a test says so");
            lone_settle();
        }
        check_eq(install(&count), RQ_OK);
        check(is_as_there());
        check_eq(count.fetched, 6000 - 39 * 128 + 1);
        check_eq(copy_files(), 0);
    }
    lone_end();
}

/* Each time it is one of the states that the source had: the one that it held at the end. */
static void a_source_that_goes_on_changing_is_copied_at_one_moment(void)
{
    struct rq_copy_count count;
    srandom(1);
    begin_with_300();
    for (unsigned run = 0; run < 200; run++) {
        if (run % 7 == 3) {
            rq_database_quarantine(lone.db, "a test says so");
            lone_settle();
        }
        change_there();
        there.changes = run % 4;
        check_eq(install(&count), RQ_OK);
        check(is_as_there());
        check(there.held > 0);
    }
    lone_end();
}

static void who_holds_what_it_did_not_say_is_not_believed(void)
{
    struct rq_copy_count count;
    begin_with_300();
    state_there(9, 300, 20);
    memset(there.fill + 100, 'b', 40);
    there.lies = true;
    there.changes = 1;
    check_eq(install(&count), RQ_CORRUPT);
    there.lies = false;
    check_eq(install(&count), RQ_OK);
    check(is_as_there());
    lone_end();
}

/* An entry that what was fetched holds already, or that had no effect where it was fetched from. */
static void entries_up_to_the_stamp_have_no_effect(void)
{
    struct rq_copy_count count;
    struct rq_bytes out;
    const struct rq_origin origin = { 99, 1 };
    begin_with_300();
    state_there(9, 300, 20);
    check_eq(install(&count), RQ_OK);
    for (uint64_t index = 18; index <= 21; index++) {
        uint8_t base[PAGE], page[PAGE];
        const struct rq_txn_head head = { ID, PAGE, 300, 1, 9, 10 };
        rq_bytes_init(&out, 65536);
        page_there(2, base);
        memcpy(page, base, PAGE);
        page[3] ^= 1;
        check_eq(rq_txn_begin(&out, &head, &origin), RQ_OK);
        check_eq(rq_txn_add(&out, 2, base, page, PAGE), RQ_OK);
        check_eq(rq_txn_end(&out, 0), RQ_OK);
        lone_apply(index, RQ_ENTRY_TXN, &out);
        rq_bytes_fini(&out);
        struct rq_database_info info;
        rq_database_info(lone.db, &info);
        check_eq(info.version, index <= 20 ? 9 : 10);
    }
    lone_end();
}

static void a_quarantined_one_is_made_anew(void)
{
    struct rq_copy_count count;
    struct rq_file_info info;
    begin_with_300();
    rq_database_quarantine(lone.db, "a test says so");
    lone_settle();
    state_there(4, 300, 9);
    check_eq(install(&count), RQ_BUSY); /* not from one that is older */
    state_there(5, 300, 10);
    there.pages_until_lost = 1;
    check_eq(install(&count), RQ_AWAY);
    struct rq_database_info now;
    rq_database_info(lone.db, &now);
    check_eq(now.state, RQ_DB_QUARANTINED);
    there.pages_until_lost = 0;
    by_itself = true;
    lone.delivered = there.state.stamp.index - 1; /* a start would find it newer than its log */
    check_eq(install(&count), RQ_UNREADY);
    lone.delivered++;
    check_eq(install(&count), RQ_OK);
    by_itself = false;
    check_eq(count.fetched, 0); /* it was, and kept */
    check(is_as_there());
    struct rq_disk *disk = &lone.disk->disk;
    check_eq(disk->ops->stat(disk, "/data/raft/trash/7-app.db", &info), RQ_OK);
    check(disk->ops->stat(disk, "/data/raft/trash/7-app.db.2", &info) == RQ_NOTFOUND);
    rq_database_quarantine(lone.db, "a test says so again");
    lone_settle();
    check_eq(install(&count), RQ_OK);
    check(is_as_there());
    check_eq(disk->ops->stat(disk, "/data/raft/trash/7-app.db", &info), RQ_OK); /* what lies there stays */
    check_eq(disk->ops->stat(disk, "/data/raft/trash/7-app.db.2", &info), RQ_OK);
    lone_end();
}

static void one_that_nobody_has_in_order_is_fenced_at_where_it_is_elsewhere(void)
{
    struct rq_copy_count count;
    struct rq_database_info now;
    struct rq_origins origins;
    begin_with_300();
    rq_origins_init(&origins, 5);
    check_eq(rq_database_fence(lone.db, 5, &origins), RQ_OK);
    check(is_as_there()); /* what is here is as new */
    lone_close();
    lone_open(ID, 3); /* so far the log has been replayed */
    rq_origins_init(&origins, 5);
    check_eq(rq_database_fence(lone.db, 5, &origins), RQ_OK);
    check(is_as_there());
    rq_origins_init(&origins, 9);
    check_eq(rq_database_fence(lone.db, 9, &origins), RQ_OK);
    rq_database_info(lone.db, &now);
    check(now.state == RQ_DB_QUARANTINED && now.version == 9);
    lone_close();
    lone_open(ID, 9); /* the descriptor says so */
    rq_database_caught_up(lone.db);
    lone_settle();
    rq_database_info(lone.db, &now);
    check(now.state == RQ_DB_QUARANTINED && now.version == 9);
    check_eq(install(&count), RQ_BUSY);
    state_there(9, 300, 20);
    check_eq(install(&count), RQ_OK);
    check(is_as_there());
    lone_end();
}

/* While raftd is down: what was made anew is as well known as what was made by commits. */
static void damage_is_found_in_one_that_was_made_anew(void)
{
    struct rq_copy_count count;
    uint8_t page[PAGE];
    begin_with_300();
    rq_database_quarantine(lone.db, "a test says so");
    lone_settle();
    check_eq(install(&count), RQ_OK);
    lone_close();
    struct rq_disk *disk = &lone.disk->disk;
    struct rq_file *file;
    check_eq(disk->ops->open(disk, "/data/app.db", RQ_OPEN_WRITE, 0, &file), RQ_OK);
    check_eq(disk->ops->write(file, "damage", 6, 99 * PAGE + 77), RQ_OK);
    disk->ops->close(file);
    lone_open(ID, 5);
    struct rq_replica *r = rq_database_hold(lone.db);
    check(r != NULL);
    check_eq(rq_replica_read(r, 99, page), RQ_OK);
    check_eq(rq_replica_read(r, 100, page), RQ_CORRUPT);
    rq_database_release(lone.db);
    lone_end();
}

/* One run of the change from version 5 to 9 that ends at that moment.  False: it came to its end. */
static bool dies_at(uint64_t moment, bool power)
{
    struct rq_copy_count count;
    begin_with_300();
    const struct rq_replica_state before = there.state;
    state_there(9, 320, 20);
    memset(there.fill + 100, 'b', 40);
    there.fill[320] = 'z';
    record_disk_stop_at(lone.disk, moment);
    lone.may_end = true;
    const bool died = setjmp(lone.ended) != 0 || install(&count) != RQ_OK;
    lone.may_end = false;
    if (!died) {
        lone_end();
        return false;
    }
    if (power) {
        record_disk_power_loss(lone.disk, moment);
    } else {
        record_disk_crash(lone.disk);
    }
    record_disk_start(lone.disk);
    lone_open(ID, 5);
    struct rq_database_info info;
    rq_database_info(lone.db, &info);
    check(info.version == 5);
    struct rq_replica *r = rq_database_hold(lone.db);
    check(r != NULL);
    struct rq_replica_state found;
    rq_replica_get_state(r, &found);
    rq_database_release(lone.db);
    check(found.version == 5 || found.version == 9);
    if (found.version == 5) {
        const struct rq_replica_state after = there.state;
        there.state = before;
        memset(there.fill + 100, 'a', 40);
        check(is_as_there());
        there.state = after;
        memset(there.fill + 100, 'b', 40);
    }
    check_eq(install(&count), RQ_OK);
    check(is_as_there());
    check(found.version == 5 || count.fetched == 0);
    lone_end();
    return true;
}

static void a_death_leaves_the_old_state_or_the_new_one(void)
{
    for (int power = 0; power < 2; power++) {
        uint64_t moment = 1;
        while (dies_at(moment, power == 1)) {
            moment++;
        }
        check(moment > 2);
    }
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(one_that_was_never_here_is_made),
        TAP(only_pages_that_differ_come),
        TAP(none_without_a_commit_stays_so),
        TAP(what_is_newer_here_stays),
        TAP(one_that_nobody_has_in_order_is_fenced_at_where_it_is_elsewhere),
        TAP(what_a_copy_that_broke_off_has_fetched_is_not_fetched_again),
        TAP(a_source_that_goes_on_changing_is_copied_at_one_moment),
        TAP(who_holds_what_it_did_not_say_is_not_believed),
        TAP(a_copy_that_breaks_off_changes_nothing),
        TAP(entries_up_to_the_stamp_have_no_effect),
        TAP(damage_is_found_in_one_that_was_made_anew),
        TAP(a_quarantined_one_is_made_anew),
        TAP_APART(a_death_leaves_the_old_state_or_the_new_one),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
