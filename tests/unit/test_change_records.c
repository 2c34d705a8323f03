/* Change records: of what the log has, those that count. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "raftd/db/change_records.h"
#include "raftd/db/staged.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"

static struct rq_change_records records;

/* {base, version} each; their indexes are 1, 2, 3 .. */
static void have(size_t count, const uint64_t entries[][2])
{
    rq_change_records_init(&records);
    records.list = calloc(count, sizeof *records.list);
    records.count = records.capacity = count;
    for (size_t i = 0; i < count; i++) {
        records.list[i] = (struct rq_change_record){ .base = entries[i][0], .version = entries[i][1], .index = i + 1 };
    }
}

static void check_kept(size_t count, const uint64_t *indexes)
{
    check_eq(records.count, count);
    for (size_t i = 0; i < count; i++) {
        check_eq(records.list[i].index, indexes[i]);
    }
    rq_change_records_fini(&records);
}

#define HAVE(...) have(sizeof((uint64_t[][2]){ __VA_ARGS__ }) / 16, (const uint64_t[][2]){ __VA_ARGS__ })
#define KEPT(...) check_kept(sizeof((uint64_t[]){ __VA_ARGS__ }) / 8, (const uint64_t[]){ __VA_ARGS__ })

static void follow_leaves_out_what_had_no_effect(void)
{
    HAVE({ 4, 5 }, { 5, 6 }, { 5, 8 }, { 6, 9 }, { 6, 7 }, { 9, 10 });
    check_eq(rq_change_records_follow(&records, 5, 10), RQ_OK);
    KEPT(2, 4, 6);
}

static void follow_says_when_something_is_missing(void)
{
    HAVE({ 5, 6 }, { 7, 8 });
    check_eq(rq_change_records_follow(&records, 5, 8), RQ_NOTFOUND);
    check_kept(0, NULL);
    HAVE({ 7, 8 });
    check_eq(rq_change_records_follow(&records, 5, 8), RQ_NOTFOUND);
    check_kept(0, NULL);
    HAVE({ 5, 6 }, { 6, 7 });
    check_eq(rq_change_records_follow(&records, 5, 6), RQ_NOTFOUND); /* it is not what the log says */
    check_kept(0, NULL);
}

static void trace_begins_behind_what_it_cannot_be_sure_of(void)
{
    HAVE({ 10, 11 }, { 11, 12 }, { 12, 13 }, { 12, 14 });
    rq_change_records_trace(&records, 13, 3);
    KEPT(2, 3);
    HAVE({ 0, 1 }, { 1, 2 }); /* nothing is before the first */
    rq_change_records_trace(&records, 2, 2);
    KEPT(1, 2);
}

static void trace_finds_the_beginning_behind_one_without_effect(void)
{
    HAVE({ 10, 15 }, { 11, 12 }, { 12, 13 }, { 13, 14 });
    rq_change_records_trace(&records, 14, 4);
    KEPT(3, 4);
    HAVE({ 10, 11 }, { 20, 21 });
    rq_change_records_trace(&records, 30, 9);
    check_kept(0, NULL);
    HAVE({ 10, 13 }, { 11, 12 }, { 12, 13 }); /* the first seems to lead there, but not by the entry that did */
    rq_change_records_trace(&records, 13, 3);
    KEPT(3);
}

/* --- from a log that is a list, in the place of the driver's ------------------------------------------------------------------ */

enum { ID = 7, OTHER = 8, PAGE_SIZE = 512, FIRST = 20 };

struct rq_driver {
    struct rq_strand loop;
    struct rq_log_entry list[8]; /* from FIRST on */
    unsigned count;
};

static struct rq_driver driver;
static char staged_dir[64];

struct rq_strand *rq_driver_loop(struct rq_driver *d)
{
    return &d->loop;
}

bool rq_driver_next_entry(struct rq_driver *d, uint64_t *index, struct rq_log_entry *ret_entry, enum rq_err *ret_err)
{
    const uint64_t next = *index < FIRST ? FIRST : *index + 1;
    *ret_err = RQ_OK;
    if (next >= FIRST + d->count) {
        return false;
    }
    *index = next;
    *ret_entry = d->list[next - FIRST];
    (void)rq_blob_ref(ret_entry->blob);
    return true;
}

static void append(uint16_t type, struct rq_bytes *entry)
{
    struct rq_log_entry *e = &driver.list[driver.count];
    *e = (struct rq_log_entry){ FIRST + driver.count++, 3, type, rq_blob_new(entry->size) };
    memcpy(e->blob->data, entry->data, entry->size);
    rq_bytes_fini(entry);
}

/* Changes one page. */
static void append_txn(uint32_t id, uint64_t base, uint32_t pgno)
{
    const struct rq_txn_head head = { id, PAGE_SIZE, 9, 1, base, base + 1 };
    const struct rq_origin origin = { 12, base + 1 };
    uint8_t page[PAGE_SIZE] = { 1 };
    struct rq_bytes out;
    rq_bytes_init(&out, 65536);
    check_eq(rq_txn_begin(&out, &head, &origin), RQ_OK);
    check_eq(rq_txn_add(&out, pgno, NULL, page, sizeof page), RQ_OK);
    check_eq(rq_txn_end(&out, 0), RQ_OK);
    append(RQ_ENTRY_TXN, &out);
}

enum body { THERE, GONE, DAMAGED };

/* Has that page. */
static void append_staged(uint64_t base, uint32_t pgno, enum body body)
{
    struct rq_entry_staged e = { .head = { ID, PAGE_SIZE, 9, 1, base, base + 1 }, .origin = { 11, base + 1 } };
    const struct rq_body_head head = { PAGE_SIZE, 9 };
    struct rq_staged *s;
    struct rq_bytes out;
    uint8_t record[4 + PAGE_SIZE] = { 0 };
    rq_put_u32(record, pgno);
    check_eq(rq_staged_new(rq_disk_real(), staged_dir, &head, &s), RQ_OK);
    check_eq(rq_staged_add(s, record, sizeof record), RQ_OK);
    check_eq(rq_staged_seal(s, e.hash, &e.body_bytes), RQ_OK);
    rq_staged_free(s);
    char *path = rq_staged_path(staged_dir, "", e.hash);
    if (body == GONE) {
        check_eq(unlink(path), 0);
    } else if (body == DAMAGED) {
        const int fd = open(path, O_WRONLY | O_CLOEXEC);
        check_eq(pwrite(fd, "x", 1, (off_t)e.body_bytes - 1), 1);
        close(fd);
    }
    free(path);
    rq_bytes_init(&out, 4096);
    check_eq(rq_entry_put_staged(&out, &e), RQ_OK);
    append(RQ_ENTRY_STAGED, &out);
}

static void read_log(uint64_t after, uint64_t until)
{
    const struct rq_change_source source = { &driver, rq_disk_real(), staged_dir, ID };
    check_eq(rq_change_records_read(&records, &source, after, until), RQ_OK);
}

static void log_is_read_up_to_an_entry_and_for_one_database(void)
{
    struct rq_pool *pool;
    (void)snprintf(staged_dir, sizeof staged_dir, "/tmp/rq-changes-XXXXXX");
    check(mkdtemp(staged_dir) != NULL);
    check_eq(rq_pool_new(1, "test", &pool), RQ_OK);
    rq_strand_init(&driver.loop, pool, "loop");
    rq_change_records_init(&records);
    append_txn(ID, 1, 4);
    append_txn(OTHER, 1, 5);
    append_staged(2, 6, THERE);
    append_staged(3, 7, GONE);
    append_staged(4, 8, DAMAGED);
    append_txn(ID, 5, 9);

    read_log(FIRST - 1, FIRST + 4);
    check_eq(records.count, 4);
    const struct rq_change_record *r = records.list;
    check_eq(r[0].index, FIRST);
    check_eq(r[0].version, 2);
    check(!r[0].lost && !r[0].whole && r[0].page_count == 1 && rq_change_record_pages(&records, r)[0] == 4);
    check_eq(r[1].index, FIRST + 2);
    check_eq(r[1].base, 2);
    check(!r[1].lost && r[1].whole && r[1].page_count == 1 && rq_change_record_pages(&records, r + 1)[0] == 6);
    check_eq(r[2].index, FIRST + 3);
    check(r[2].lost && r[2].page_count == 0);
    check(r[3].lost);
    read_log(FIRST + 4, FIRST + 9); /* as far as there is something */
    check_eq(records.count, 1);
    check_eq(records.list[0].version, 6);
    read_log(FIRST - 9, FIRST - 4); /* the log has begun behind that */
    check_eq(records.count, 0);

    rq_change_records_fini(&records);
    while (driver.count > 0) {
        rq_blob_unref(driver.list[--driver.count].blob);
    }
    rq_pool_free(pool);
    check(scratch_remove(staged_dir));
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(follow_leaves_out_what_had_no_effect),
        TAP(follow_says_when_something_is_missing),
        TAP(trace_begins_behind_what_it_cannot_be_sure_of),
        TAP(trace_finds_the_beginning_behind_one_without_effect),
        TAP(log_is_read_up_to_an_entry_and_for_one_database),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
