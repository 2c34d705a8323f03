/* spill: reads what was written, wherever it lies; holes are zero; the file has no name. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/tap.h"
#include "vfs/spill.h"

static char dir[64];

static int names_in(const char *path)
{
    DIR *d = opendir(path);
    int count = 0;
    check(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        count += e->d_name[0] != '.';
    }
    closedir(d);
    return count;
}

/* Against a plain array, for every limit: all in memory, all in the file, and across the border. */
static void reads_what_was_written(void)
{
    static uint8_t model[9000], got[9000], piece[700];
    const size_t limits[] = { 0, 1, 512, 4096, 5000, 100000 };
    for (size_t l = 0; l < sizeof limits / sizeof *limits; l++) {
        struct rq_spill s;
        rq_spill_init(&s, rq_disk_real(), dir, limits[l]);
        memset(model, 0, sizeof model);
        uint64_t size = 0;
        unsigned random = 12345;
        for (int step = 0; step < 400; step++) {
            random = random * 1103515245u + 12345u;
            size_t bytes = 1 + random % sizeof piece;
            uint64_t offset = (random >> 10) % (sizeof model - sizeof piece);
            memset(piece, step + 1, bytes);
            memcpy(model + offset, piece, bytes);
            check_eq(rq_spill_write(&s, piece, bytes, offset), RQ_OK);
            size = offset + bytes > size ? offset + bytes : size;
            check_eq(s.size, size);
            uint64_t from = (random >> 5) % sizeof model;
            size_t read_bytes = 0;
            check_eq(rq_spill_read(&s, got, sizeof got - from, from, &read_bytes), RQ_OK);
            check_eq(read_bytes, from < size ? size - from : 0);
            check(memcmp(got, model + from, read_bytes) == 0);
        }
        check_eq(names_in(dir), 0);
        rq_spill_truncate(&s, 0);
        size_t read_bytes = 1;
        check_eq(rq_spill_read(&s, got, 10, 0, &read_bytes), RQ_OK);
        check_eq(read_bytes, 0);
        check(s.file == NULL);
        check_eq(rq_spill_write(&s, piece, 1, 6000), RQ_OK);
        check_eq(rq_spill_read(&s, got, sizeof got, 0, &read_bytes), RQ_OK);
        check_eq(read_bytes, 6001);
        for (size_t i = 0; i < 6000; i++) {
            check(got[i] == 0);
        }
        rq_spill_fini(&s);
    }
}

static void memory_stays_under_its_limit(void)
{
    static uint8_t block[65536];
    struct rq_spill s;
    rq_spill_init(&s, rq_disk_real(), dir, 100000);
    for (int i = 0; i < 64; i++) {
        check_eq(rq_spill_write(&s, block, sizeof block, (uint64_t)i * sizeof block), RQ_OK);
    }
    check(s.memory_capacity <= 100000);
    rq_spill_truncate(&s, 0);
    check(s.memory_capacity > 0); /* is kept for what comes next */
    s.memory_kept = 1000;
    check_eq(rq_spill_write(&s, block, sizeof block, 0), RQ_OK);
    rq_spill_truncate(&s, 0);
    check_eq(s.memory_capacity, 0);
    check_eq(rq_spill_write(&s, block, 1, UINT64_MAX - 10), RQ_TOOBIG);
    check_eq(s.size, 0);
    rq_spill_fini(&s);
}

static void no_directory_is_an_error_and_nothing_else(void)
{
    struct rq_spill s;
    rq_spill_init(&s, rq_disk_real(), "/nonexistent", 16);
    check_eq(rq_spill_write(&s, "0123456789abcdef", 16, 0), RQ_OK);
    check_eq(rq_spill_write(&s, "x", 1, 16), RQ_NOTFOUND);
    check_eq(s.size, 16);
    rq_spill_fini(&s);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(reads_what_was_written),
        TAP(memory_stays_under_its_limit),
        TAP(no_directory_is_an_error_and_nothing_else),
    };
    (void)snprintf(dir, sizeof dir, "/tmp/rqspill-XXXXXX");
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    rmdir(dir);
    return failed;
}
