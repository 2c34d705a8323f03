/* descriptor: comes back as it was written; not one byte can change, or be missing, unnoticed. */
#include <stdio.h>
#include <stdlib.h>

#include "raftd/db/descriptor.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"

static char dir[64];

static void begin(void)
{
    struct rq_descriptor_database databases[2] = {
        { .name = "app.db", .id = 3, .version = 1ull << 33, .file_made = true },
        { .name = "empty", .id = 9 },
    };
    uint8_t configuration[5] = { 1, 2, 3, 4, 5 };
    const struct rq_descriptor d = { 100, 7, true, 105, 1, configuration, sizeof configuration, databases, 2 };
    (void)snprintf(dir, sizeof dir, "/tmp/rq-descriptor-XXXXXX");
    check(mkdtemp(dir) != NULL);
    rq_origins_init(&databases[0].origins, (1ull << 33) - 2);
    check_eq(rq_origins_put(&databases[0].origins, (struct rq_origin){ 11, 1 }), RQ_OK);
    check_eq(rq_origins_put(&databases[0].origins, (struct rq_origin){ 12, 2 }), RQ_OK);
    rq_origins_init(&databases[1].origins, 0);
    check_eq(rq_descriptor_write(rq_disk_real(), dir, &d), RQ_OK);
    rq_origins_fini(&databases[0].origins);
}

static void end(void)
{
    check(scratch_remove(dir));
}

static void comes_back_as_it_was_written(void)
{
    struct rq_descriptor d;
    struct rq_origin o;
    begin();
    check_eq(rq_descriptor_read(rq_disk_real(), dir, &d), RQ_OK);
    check_eq(d.index, 100);
    check_eq(d.term, 7);
    check(d.installed);
    check_eq(d.ahead, 105);
    check_eq(d.configuration_index, 1);
    check_eq(d.configuration_bytes, 5);
    check_eq(d.configuration[4], 5);
    check_eq(d.database_count, 2);
    check(strcmp(d.databases[0].name, "app.db") == 0);
    check_eq(d.databases[0].id, 3);
    check_eq(d.databases[0].version, 1ll << 33);
    check(d.databases[0].file_made);
    check(rq_origins_find(&d.databases[0].origins, (1ull << 33) - 1, &o));
    check_eq(o.session, 12);
    check(!d.databases[1].file_made);
    rq_descriptor_fini(&d);
    end();
}

static void no_changed_or_missing_byte_goes_unnoticed(void)
{
    struct rq_descriptor d;
    uint8_t *data;
    size_t bytes;
    begin();
    check_eq(rq_file_read(rq_disk_real(), dir, "descriptor", 1 << 20, &data, &bytes), RQ_OK);
    for (size_t i = 0; i < bytes; i++) {
        data[i] ^= 0x40;
        check_eq(rq_file_replace(rq_disk_real(), dir, "descriptor", data, bytes), RQ_OK);
        check_eq(rq_descriptor_read(rq_disk_real(), dir, &d), RQ_CORRUPT);
        data[i] ^= 0x40;
        check_eq(rq_file_replace(rq_disk_real(), dir, "descriptor", data, i), RQ_OK);
        check_eq(rq_descriptor_read(rq_disk_real(), dir, &d), RQ_CORRUPT);
    }
    free(data);
    end();
}

static void missing_one_is_told_apart(void)
{
    struct rq_descriptor d;
    begin();
    char path[128];
    (void)snprintf(path, sizeof path, "%s/descriptor", dir);
    check_eq(remove(path), 0);
    check_eq(rq_descriptor_read(rq_disk_real(), dir, &d), RQ_NOTFOUND);
    end();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(comes_back_as_it_was_written),
        TAP(no_changed_or_missing_byte_goes_unnoticed),
        TAP(missing_one_is_told_apart),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
