/* shelf: a body goes when the last one who needs it is gone, and not before; also where two transactions have the same pages. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "raftd/db/shelf.h"
#include "raftd/db/staged.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"

#define PAGE 512u

static char dir[64];
static struct rq_disk *disk;
static struct rq_shelf *shelf;
static const struct rq_origin first = { 11, 1 }, second = { 12, 1 };

static void begin(void)
{
    disk = rq_disk_real();
    (void)snprintf(dir, sizeof dir, "/tmp/rq-shelf-XXXXXX");
    check(mkdtemp(dir) != NULL);
    check_eq(rq_shelf_new(disk, dir, &shelf), RQ_OK);
}

static void end(void)
{
    rq_shelf_free(shelf);
    check(scratch_remove(dir));
}

/* A body with one page of that byte. */
static struct rq_entry_staged make(uint8_t byte)
{
    struct rq_entry_staged e = { .head = { 7, PAGE, 1, 0, 1, 1 }, .origin = first };
    const struct rq_body_head head = { PAGE, 1 };
    struct rq_staged *s;
    uint8_t record[4 + PAGE];
    memset(record, byte, sizeof record);
    rq_put_u32(record, 1);
    check_eq(rq_staged_new(disk, dir, &head, &s), RQ_OK);
    check_eq(rq_staged_add(s, record, sizeof record), RQ_OK);
    check_eq(rq_staged_seal(s, e.hash, &e.body_bytes), RQ_OK);
    rq_staged_free(s);
    return e;
}

static bool there(const char *prefix, const struct rq_entry_staged *e)
{
    struct stat st;
    char *path = rq_staged_path(dir, prefix, e->hash);
    const bool is = stat(path, &st) == 0;
    free(path);
    return is;
}

static bool spare_there(void)
{
    struct stat st;
    char path[80];
    (void)snprintf(path, sizeof path, "%s/spare", dir);
    return stat(path, &st) == 0;
}

static void one_that_is_not_to_come_takes_its_body_along(void)
{
    begin();
    struct rq_entry_staged e = make('a');
    check_eq(rq_shelf_expect(shelf, e.hash, first, RQ_SHELF_FOR_EVER), RQ_OK);
    check_eq(rq_shelf_forget(shelf, e.hash, second), RQ_OK); /* another transaction */
    check(there("", &e));
    check_eq(rq_shelf_forget(shelf, e.hash, first), RQ_OK);
    check(!there("", &e) && spare_there());
    end();
}

static void two_transactions_with_the_same_pages_share_a_body(void)
{
    begin();
    struct rq_entry_staged e = make('a');
    struct rq_entry_staged other = e;
    other.origin = second;
    check_eq(rq_shelf_expect(shelf, e.hash, first, RQ_SHELF_FOR_EVER), RQ_OK);
    check_eq(rq_shelf_name(shelf, &e, 5), RQ_OK);
    check_eq(rq_shelf_expect(shelf, e.hash, second, RQ_SHELF_FOR_EVER), RQ_OK);
    check_eq(rq_shelf_release(shelf, 5, 0), RQ_OK); /* the log has done with one, the other is on its way */
    check(there("", &e));
    check_eq(rq_shelf_name(shelf, &other, 6), RQ_OK);
    check_eq(rq_shelf_name(shelf, &e, 7), RQ_OK); /* the first once more, which has no effect */
    check_eq(rq_shelf_named_bytes(shelf), 2 * e.body_bytes);
    check_eq(rq_shelf_forget(shelf, e.hash, first), RQ_OK);
    check_eq(rq_shelf_release(shelf, 6, 0), RQ_OK);
    check(there("", &e));
    check_eq(rq_shelf_release(shelf, 7, 0), RQ_OK);
    check(!there("", &e));
    check_eq(rq_shelf_named_bytes(shelf), 0);
    end();
}

static void what_was_brought_and_never_named_is_swept_in_time(void)
{
    begin();
    struct rq_entry_staged e = make('a');
    check_eq(rq_shelf_expect(shelf, e.hash, first, 3), RQ_OK);
    check_eq(rq_shelf_look(shelf), RQ_OK);
    check(!rq_shelf_is_due(shelf));
    check_eq(rq_shelf_look(shelf), RQ_OK);
    check(rq_shelf_is_due(shelf));
    check_eq(rq_shelf_expect(shelf, e.hash, first, 2), RQ_OK); /* brought again */
    check_eq(rq_shelf_look(shelf), RQ_OK);
    check(there("", &e));
    check_eq(rq_shelf_look(shelf), RQ_OK);
    check(!there("", &e));

    e = make('b'); /* an entry of the log that is not delivered names it */
    check_eq(rq_shelf_expect(shelf, e.hash, first, 1), RQ_OK);
    check_eq(rq_shelf_expect(shelf, e.hash, first, RQ_SHELF_FOR_EVER), RQ_OK);
    check_eq(rq_shelf_expect(shelf, e.hash, first, 1), RQ_OK);
    check_eq(rq_shelf_look(shelf), RQ_OK);
    check_eq(rq_shelf_look(shelf), RQ_OK);
    check(there("", &e));
    end();
}

static void what_the_log_has_released_lingers_for_others(void)
{
    begin();
    struct rq_entry_staged e = make('a');
    check_eq(rq_shelf_name(shelf, &e, 5), RQ_OK);
    check_eq(rq_shelf_release(shelf, 5, 2), RQ_OK);
    check_eq(rq_shelf_named_bytes(shelf), 0);
    check_eq(rq_shelf_look(shelf), RQ_OK);
    check(there("", &e));
    check_eq(rq_shelf_look(shelf), RQ_OK);
    check(!there("", &e));
    end();
}

static void what_is_named_is_listed_until_the_log_releases_it(void)
{
    begin();
    struct rq_shelf_named *list;
    size_t count;
    struct rq_entry_staged a = make('a'), b = make('b');
    b.head.db_id = 8;
    check_eq(rq_shelf_expect(shelf, a.hash, first, RQ_SHELF_FOR_EVER), RQ_OK);
    check_eq(rq_shelf_list_named(shelf, 0, &list, &count), RQ_OK);
    check_eq(count, 0);
    free(list);
    check_eq(rq_shelf_name(shelf, &a, 10), RQ_OK);
    check_eq(rq_shelf_name(shelf, &b, 20), RQ_OK);
    check_eq(rq_shelf_list_named(shelf, 9, &list, &count), RQ_OK);
    check_eq(count, 2);
    free(list);
    check_eq(rq_shelf_list_named(shelf, 10, &list, &count), RQ_OK);
    check_eq(count, 1);
    check(list[0].index == 20 && list[0].db_id == 8 && list[0].bytes == b.body_bytes);
    check(memcmp(list[0].hash, b.hash, sizeof b.hash) == 0);
    free(list);
    check_eq(rq_shelf_release(shelf, 20, 1), RQ_OK);
    check_eq(rq_shelf_list_named(shelf, 0, &list, &count), RQ_OK);
    check_eq(count, 0);
    free(list);
    end();
}

static void who_reads_goes_on_reading(void)
{
    begin();
    struct rq_entry_staged e = make('a');
    struct rq_file *file;
    uint8_t byte = 0;
    size_t n;
    check_eq(rq_shelf_open(shelf, e.hash, e.body_bytes + 1, &file), RQ_NOTFOUND);
    check_eq(rq_shelf_name(shelf, &e, 5), RQ_OK);
    check_eq(rq_shelf_open(shelf, e.hash, e.body_bytes, &file), RQ_OK);
    check_eq(rq_shelf_release(shelf, 5, 0), RQ_OK);
    check(!there("", &e) && !spare_there());
    (void)make('b'); /* would be written over a spare */
    check_eq(disk->ops->read(file, &byte, 1, 40, &n), RQ_OK);
    check_eq(byte, 'a');
    rq_shelf_close(shelf, file);
    end();
}

static void a_sweep_leaves_what_is_needed_or_not_ours(void)
{
    begin();
    struct rq_entry_staged kept = make('a'), gone = make('b'), part = make('c'), lost = make('d');
    char *from = rq_staged_path(dir, "", part.hash), *to = rq_staged_path(dir, RQ_STAGED_PART, part.hash);
    check_eq(rename(from, to), 0);
    free(from);
    free(to);
    from = rq_staged_path(dir, "", lost.hash);
    to = rq_staged_path(dir, RQ_STAGED_PART, lost.hash);
    check_eq(rename(from, to), 0);
    free(from);
    free(to);
    check_eq(rq_shelf_name(shelf, &kept, 3), RQ_OK);
    check_eq(rq_shelf_name(shelf, &part, 4), RQ_OK);
    check_eq(rq_shelf_sweep(shelf, 2), RQ_OK); /* one that was just brought here may be named yet */
    check(there("", &kept) && there("", &gone) && there(RQ_STAGED_PART, &part) && !there(RQ_STAGED_PART, &lost));
    check_eq(rq_shelf_look(shelf), RQ_OK);
    check(there("", &gone));
    check_eq(rq_shelf_look(shelf), RQ_OK);
    check(!there("", &gone));
    gone = make('b');
    check_eq(rq_shelf_sweep(shelf, 0), RQ_OK);
    check(there("", &kept) && !there("", &gone) && there(RQ_STAGED_PART, &part));
    end();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(one_that_is_not_to_come_takes_its_body_along),      TAP(two_transactions_with_the_same_pages_share_a_body),
        TAP(what_was_brought_and_never_named_is_swept_in_time), TAP(what_the_log_has_released_lingers_for_others),
        TAP(what_is_named_is_listed_until_the_log_releases_it), TAP(who_reads_goes_on_reading),
        TAP(a_sweep_leaves_what_is_needed_or_not_ours),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
