#include "tests/support/tap.h"
#include "vfs/trickle.h"

#define MB    ((size_t)1 << 20)
#define PIECE ((size_t)RQ_TRICKLE_BEGIN_BYTES)

/* A disk that only notes what it is told. */
static uint64_t written, begun_from, begun_upto, begun_bytes;
static unsigned begun_count, synced_count;
static enum rq_err write_err, sync_err;

static enum rq_err note_write(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    (void)f, (void)data, (void)offset;
    written += write_err == RQ_OK ? bytes : 0;
    return write_err;
}

static void note_begin_sync(struct rq_file *f, uint64_t offset, uint64_t bytes)
{
    (void)f;
    begun_from = offset;
    begun_upto = offset + bytes;
    begun_bytes += bytes;
    begun_count++;
}

static enum rq_err note_sync(struct rq_file *f)
{
    (void)f;
    begun_bytes = written;
    synced_count++;
    return sync_err;
}

static const struct rq_disk_ops ops = { .write = note_write, .begin_sync = note_begin_sync, .sync = note_sync };
static struct rq_disk disk = { &ops };
static struct rq_file file = { &disk };

static void begin(void)
{
    written = begun_from = begun_upto = begun_bytes = 0;
    begun_count = synced_count = 0;
    write_err = sync_err = RQ_OK;
}

static void each_piece_is_begun_and_little_is_left_for_a_sync(void)
{
    struct rq_trickle t = { 0 };
    begin();
    for (uint64_t at = 0; at < 64 * MB; at += PIECE / 10) {
        check_eq(rq_trickle_write(&t, &file, NULL, PIECE / 10, at), RQ_OK);
        check(written < begun_bytes + PIECE);
        check(begun_bytes <= written);
        check(written < (synced_count + 1) * 16 * MB + PIECE);
    }
    check_eq(synced_count, 3);
    check(begun_count <= 64 * MB / PIECE);
}

static void what_is_begun_is_all_that_waited_wherever_it_is(void)
{
    struct rq_trickle t = { 0 };
    begin();
    check_eq(rq_trickle_write(&t, &file, NULL, PIECE / 4, 40 * MB), RQ_OK);
    check_eq(rq_trickle_write(&t, &file, NULL, PIECE / 4, 70 * MB), RQ_OK);
    check_eq(rq_trickle_write(&t, &file, NULL, PIECE / 4, 10 * MB), RQ_OK);
    check_eq(begun_count, 0);
    check_eq(rq_trickle_write(&t, &file, NULL, PIECE / 4, 50 * MB), RQ_OK);
    check_eq(begun_count, 1);
    check_eq(begun_from, 10 * MB);
    check_eq(begun_upto, 70 * MB + PIECE / 4);
    check_eq(rq_trickle_write(&t, &file, NULL, PIECE, 60 * MB), RQ_OK); /* what was begun is not begun again */
    check_eq(begun_count, 2);
    check_eq(begun_from, 60 * MB);
    check_eq(begun_upto, 60 * MB + PIECE);
    check_eq(synced_count, 0);
}

static void what_fails_is_told(void)
{
    struct rq_trickle t = { 0 };
    begin();
    write_err = RQ_FULL;
    check_eq(rq_trickle_write(&t, &file, NULL, 32 * MB, 0), RQ_FULL);
    check_eq(begun_count + synced_count, 0);
    write_err = RQ_OK;
    sync_err = RQ_FULL; /* too late to be only that */
    check_eq(rq_trickle_write(&t, &file, NULL, 15 * MB, 0), RQ_OK);
    check_eq(rq_trickle_write(&t, &file, NULL, MB, 15 * MB), RQ_IO);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(each_piece_is_begun_and_little_is_left_for_a_sync),
        TAP(what_is_begun_is_all_that_waited_wherever_it_is),
        TAP(what_fails_is_told),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
