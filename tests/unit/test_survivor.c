/* survivor: who lacks something that its own log leads to does not go on alone by raft/peers.json, and says what it is. */
#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/survivor.h"
#include "raftd/db/staged.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"
#include "tests/support/small_replica.h"
#include "tests/support/tap.h"

#define STAGED_DIR "/data/raft/staged"

enum { ID = 7, FIRST = 42, OTHER = 44 }; /* what the replica has is of the entries 41 and 42 */

static struct small_replica small;
static struct rq_log *raft_log;
static struct rq_descriptor_database known;
static struct rq_descriptor descriptor;
static uint64_t last;
static char text[512];

static void begin(void)
{
    struct rq_log_found found;
    small_replica_init(&small);
    record_disk_mkdir_p(small.disk, STAGED_DIR);
    const struct rq_log_config config = {
        .disk = &small.disk->disk,
        .dir = "/data/raft",
        .instance = 1,
        .segment_bytes = 65536,
        .cache_bytes = 65536,
        .create = true,
        .first_index = FIRST,
    };
    check_eq(rq_log_open(&config, &raft_log, &found), RQ_OK);
    known = (struct rq_descriptor_database){ .name = "app.db", .id = ID, .version = 1 };
    descriptor = (struct rq_descriptor){ .index = FIRST - 1, .term = 3, .databases = &known, .database_count = 1 };
    last = FIRST - 1;
}

static void end(void)
{
    rq_log_close(raft_log);
    small_replica_fini(&small);
}

static void append(uint16_t type, const struct rq_bytes *entry)
{
    uint64_t durable;
    const struct rq_log_entry e = { ++last, 3, type, rq_blob_new(entry->size) };
    memcpy(e.blob->data, entry->data, entry->size);
    check_eq(rq_log_reserve(raft_log, entry->size, 1), RQ_OK);
    check_eq(rq_log_append(raft_log, &e, 1, 0), RQ_OK);
    check_eq(rq_log_write(raft_log, &durable), RQ_OK);
    rq_blob_unref(e.blob);
}

/* Of one page, full of that byte.  Its file is there, or not. */
static struct rq_entry_staged body(uint32_t id, uint64_t base, uint8_t byte, bool there)
{
    struct rq_entry_staged e = { .head = { id, SMALL_PAGE_SIZE, 1, 1, base, base + 1 }, .origin = { 11, base + 1 } };
    const struct rq_body_head head = { SMALL_PAGE_SIZE, 1 };
    struct rq_staged *s;
    uint8_t record[4 + SMALL_PAGE_SIZE];
    memset(record, byte, sizeof record);
    rq_put_u32(record, 1);
    check_eq(rq_staged_new(&small.disk->disk, STAGED_DIR, &head, &s), RQ_OK);
    check_eq(rq_staged_add(s, record, sizeof record), RQ_OK);
    check_eq(rq_staged_seal(s, e.hash, &e.body_bytes), RQ_OK);
    rq_staged_free(s);
    if (!there) {
        check_eq(rq_staged_delete(&small.disk->disk, STAGED_DIR, e.hash), RQ_OK);
    }
    return e;
}

static void append_staged(const struct rq_entry_staged *e)
{
    struct rq_bytes out;
    rq_bytes_init(&out, 4096);
    check_eq(rq_entry_put_staged(&out, e), RQ_OK);
    append(RQ_ENTRY_STAGED, &out);
    rq_bytes_fini(&out);
}

static void append_txn(uint32_t id, uint64_t base)
{
    struct rq_bytes out;
    const struct rq_txn_head head = { id, SMALL_PAGE_SIZE, 3, 1, base, base + 1 };
    const struct rq_origin origin = { 12, base + 1 };
    uint8_t page[SMALL_PAGE_SIZE] = { 0 };
    rq_bytes_init(&out, 65536);
    check_eq(rq_txn_begin(&out, &head, &origin), RQ_OK);
    check_eq(rq_txn_add(&out, 1, NULL, page, sizeof page), RQ_OK);
    check_eq(rq_txn_end(&out, 0), RQ_OK);
    append(RQ_ENTRY_TXN, &out);
    rq_bytes_fini(&out);
}

static enum rq_err check_it(uint64_t newest_stamp)
{
    const struct rq_survivor s = { &small.disk->disk, "/data", STAGED_DIR, raft_log, &descriptor, newest_stamp };
    return rq_survivor_check(&s, text);
}

static void replicas_that_are_newer_than_the_log_are_told(void)
{
    begin();
    append_txn(ID, 1);
    check_eq(last, 42);
    check_eq(check_it(42), RQ_OK);
    check_eq(check_it(43), RQ_CORRUPT);
    check(strstr(text, "newer than its log") != NULL);
    descriptor.index = 50; /* of a state that was installed: the log that does not lead up to it is nothing */
    descriptor.installed = true;
    check_eq(check_it(50), RQ_OK);
    check_eq(check_it(51), RQ_CORRUPT);
    descriptor.installed = false;
    check_eq(check_it(50), RQ_OK);
    check_eq(check_it(51), RQ_CORRUPT);
    end();
}

static void log_that_begins_behind_what_was_installed_counts(void)
{
    begin();
    append_txn(ID, 1);
    descriptor.installed = true;
    check_eq(check_it(42), RQ_OK);
    const struct rq_entry_staged e = body(ID, 2, 'g', false);
    append_staged(&e);
    check_eq(check_it(42), RQ_CORRUPT);
    end();
}

static void missing_body_is_told_with_its_file(void)
{
    char hex[2 * RQ_BODY_HASH_BYTES + 1];
    begin();
    append_txn(ID, 1);
    const struct rq_entry_staged e = body(ID, 2, 'b', false);
    append_staged(&e);
    check_eq(check_it(42), RQ_CORRUPT);
    for (unsigned i = 0; i < RQ_BODY_HASH_BYTES; i++) {
        (void)snprintf(hex + 2 * i, 3, "%02x", e.hash[i]);
    }
    check(strstr(text, "app.db: log entry 43 (version 3)") != NULL);
    check(strstr(text, STAGED_DIR "/") != NULL && strstr(text, hex) != NULL);
    (void)body(ID, 2, 'b', true); /* somebody brings it */
    check_eq(check_it(42), RQ_OK);
    char *path = rq_staged_path(STAGED_DIR, "", e.hash);
    small_file_write(small.disk, path, (const uint8_t *)"nothing of the kind", 19);
    free(path);
    check_eq(check_it(42), RQ_CORRUPT);
    end();
}

static void body_that_is_damaged_is_missed(void)
{
    struct rq_bytes file;
    begin();
    append_txn(ID, 1);
    const struct rq_entry_staged e = body(ID, 2, 'b', true);
    append_staged(&e);
    check_eq(check_it(42), RQ_OK);
    char *path = rq_staged_path(STAGED_DIR, "", e.hash);
    rq_bytes_init(&file, 65536);
    small_file_read(small.disk, path, &file);
    file.data[file.size - 1] ^= 1; /* of its page */
    small_file_write(small.disk, path, file.data, file.size);
    check_eq(check_it(42), RQ_CORRUPT);
    rq_bytes_fini(&file);
    free(path);
    end();
}

static void first_of_several_is_told(void)
{
    begin();
    append_txn(ID, 1);
    const struct rq_entry_staged first = body(ID, 2, 'b', false), second = body(ID, 3, 'c', false);
    append_staged(&first);
    append_staged(&second);
    check_eq(check_it(42), RQ_CORRUPT);
    check(strstr(text, "log entry 43 (version 3)") != NULL);
    (void)body(ID, 2, 'b', true);
    check_eq(check_it(42), RQ_CORRUPT);
    check(strstr(text, "log entry 44 (version 4)") != NULL);
    end();
}

static void body_of_what_the_file_has_is_not_missed(void)
{
    begin();
    const struct rq_entry_staged e = body(ID, 1, 'a', false), next = body(ID, 2, 'b', false);
    append_staged(&e); /* entry 42, as the stamp says */
    check_eq(check_it(42), RQ_OK);
    append_staged(&next);
    check_eq(check_it(42), RQ_CORRUPT);
    end();
}

/* The name is another database's by now. */
static void file_of_a_former_database_has_nothing(void)
{
    begin();
    known.id = 8;
    const struct rq_entry_staged e = body(8, 1, 'a', false);
    append_staged(&e);
    check_eq(check_it(42), RQ_CORRUPT);
    end();
}

static void body_without_effect_is_not_missed(void)
{
    begin();
    append_txn(ID, 1);
    const struct rq_entry_staged early = body(ID, 1, 'c', false), late = body(ID, 3, 'd', false);
    append_staged(&early);
    append_staged(&late);
    check_eq(check_it(42), RQ_OK);
    append_txn(ID, 2); /* now it would have one, but it was not made on it */
    check_eq(check_it(42), RQ_OK);
    append_staged(&late);
    check_eq(check_it(42), RQ_CORRUPT);
    end();
    begin();
    append_txn(ID, 1);
    append_txn(ID, 0); /* nor does another transaction without effect lead anywhere */
    const struct rq_entry_staged e = body(ID, 2, 'e', false);
    append_staged(&e);
    check_eq(check_it(42), RQ_CORRUPT);
    end();
}

static void database_that_the_log_adopts(void)
{
    struct rq_bytes out;
    begin();
    append_txn(ID, 1);
    rq_bytes_init(&out, 4096);
    const struct rq_entry_adopt adopt = { { "old.db", 6 }, SMALL_PAGE_SIZE, 1, 9 };
    check_eq(rq_entry_put_adopt(&out, &adopt), RQ_OK);
    append(RQ_ENTRY_ADOPT, &out);
    const struct rq_entry_staged e = body(43, 9, 'f', false);
    append_staged(&e);
    check_eq(check_it(42), RQ_CORRUPT);
    check(strstr(text, "old.db: log entry 44 (version 10)") != NULL);
    rq_bytes_fini(&out);
    end();
}

static void database_that_the_log_makes_and_drops(void)
{
    struct rq_bytes out;
    begin();
    append_txn(ID, 1);
    append_txn(ID, 2);
    rq_bytes_init(&out, 4096);
    check_eq(rq_entry_put_create(&out, &(struct rq_entry_create){ { "big.db", 6 }, 5 }), RQ_OK);
    append(RQ_ENTRY_CREATE, &out);
    check_eq(last, OTHER);
    const struct rq_entry_staged e = body(OTHER, 0, 'e', false);
    append_staged(&e);
    check_eq(check_it(42), RQ_CORRUPT);
    check(strstr(text, "big.db: log entry 45 (version 1)") != NULL);
    out.size = 0;
    check_eq(rq_entry_put_drop(&out, &(struct rq_entry_drop){ OTHER }), RQ_OK);
    append(RQ_ENTRY_DROP, &out);
    check_eq(check_it(42), RQ_OK);
    rq_bytes_fini(&out);
    end();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(replicas_that_are_newer_than_the_log_are_told),
        TAP(log_that_begins_behind_what_was_installed_counts),
        TAP(missing_body_is_told_with_its_file),
        TAP(body_that_is_damaged_is_missed),
        TAP(first_of_several_is_told),
        TAP(body_of_what_the_file_has_is_not_missed),
        TAP(file_of_a_former_database_has_nothing),
        TAP(body_without_effect_is_not_missed),
        TAP(database_that_the_log_adopts),
        TAP(database_that_the_log_makes_and_drops),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
