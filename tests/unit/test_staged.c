/* staged: while a body is written, here or as a copy of one, the disk begins with it, all of it but the last few megabytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/staged.h"
#include "raftd/db/staged_copy.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"

#define PAGE       65536u
#define PAGE_COUNT 400u
#define REST_BYTES (5u << 20) /* at most, that the sync at the end has to begin with itself */

static uint64_t begun_upto;
static unsigned begun_count;

static void note_begin_sync(struct rq_file *f, uint64_t offset, uint64_t bytes)
{
    rq_disk_real()->ops->begin_sync(f, offset, bytes);
    check_eq(offset, begun_upto); /* nothing is left out */
    begun_upto = offset + bytes;
    begun_count++;
}

static struct rq_disk_ops noting_ops;
static struct rq_disk noting = { &noting_ops };

/* The kernel's disk, through which every file hears of noting_ops. */
static enum rq_err noting_open(struct rq_disk *d, const char *path, int flags, unsigned mode, struct rq_file **ret_file)
{
    (void)d;
    const enum rq_err err = rq_disk_real()->ops->open(rq_disk_real(), path, flags, mode, ret_file);
    if (err == RQ_OK) {
        (*ret_file)->disk = &noting;
    }
    return err;
}

static void begin(char dir[64])
{
    noting_ops = *rq_disk_real()->ops;
    noting_ops.open = noting_open;
    noting_ops.begin_sync = note_begin_sync;
    (void)snprintf(dir, 64, "/tmp/rq-staged-XXXXXX");
    check(mkdtemp(dir) != NULL);
}

static void check_begun(uint64_t bytes)
{
    check(begun_count > 2 && begun_upto <= bytes && bytes - begun_upto < REST_BYTES);
    begun_upto = begun_count = 0;
}

static void a_body_is_on_its_way_to_the_disk_while_it_comes(void)
{
    char dir[64], other[64];
    const struct rq_body_head head = { PAGE, PAGE_COUNT };
    static uint8_t record[4 + PAGE];
    uint8_t hash[RQ_BODY_HASH_BYTES];
    uint64_t bytes;
    struct rq_staged *s;
    begin(dir);
    check_eq(rq_staged_new(&noting, dir, &head, &s), RQ_OK);
    for (uint32_t pgno = 1; pgno <= PAGE_COUNT; pgno++) {
        rq_put_u32(record, pgno);
        memset(record + 4, (int)pgno, PAGE);
        check_eq(rq_staged_add(s, record, sizeof record), RQ_OK);
    }
    check_eq(rq_staged_seal(s, hash, &bytes), RQ_OK);
    rq_staged_free(s);
    check_begun(bytes);

    struct rq_staged_copy *copy;
    struct rq_file *f;
    size_t n;
    begin(other);
    check_eq(rq_staged_open_file(&noting, dir, hash, bytes, &f), RQ_OK);
    check_eq(rq_staged_copy_new(&noting, other, hash, bytes, false, &copy), RQ_OK);
    for (uint64_t at = 0; at < bytes; at += n) {
        check_eq(noting_ops.read(f, record, sizeof record, at, &n), RQ_OK);
        check_eq(rq_staged_copy_add(copy, record, n), RQ_OK);
    }
    check_eq(rq_staged_copy_seal(copy), RQ_OK);
    rq_staged_copy_free(copy);
    noting_ops.close(f);
    check_begun(bytes);
    check(scratch_remove(dir) && scratch_remove(other));
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(a_body_is_on_its_way_to_the_disk_while_it_comes),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
