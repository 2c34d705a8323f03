/* Page hashes that hold anything: as they are, and with the hash of their header put right.  A page that a replica reads is the
 * right one, or CORRUPT: what the file says can raise an alarm, and change nothing. */
#include <string.h>

#include "raftd/wire/txn.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/exact.h"
#include "tests/support/small_replica.h"

#define PATH     "/data/raft/hashes/7"
#define CHECK_AT 56u

static void must_read(struct small_replica *s)
{
    uint8_t want[SMALL_PAGE_SIZE], page[SMALL_PAGE_SIZE];
    for (uint32_t pgno = 1; pgno <= SMALL_PAGE_COUNT; pgno++) {
        enum rq_err err = rq_replica_read(s->replica, pgno, page);
        small_replica_page(pgno, want);
        MUST(err == RQ_CORRUPT || (err == RQ_OK && memcmp(want, page, sizeof page) == 0));
    }
}

static void must_scrub(struct small_replica *s, uint32_t pass)
{
    char text[160];
    uint64_t bytes = 1 << 20;
    enum rq_err err = rq_replica_scrub(s->replica, pass, &bytes, text);
    MUST(err == RQ_OK || (err == RQ_CORRUPT && text[0] != '\0'));
}

static void try_hashes(const uint8_t *data, size_t bytes)
{
    struct small_replica s;
    const char *forgotten;
    char text[160];
    small_replica_init(&s);
    record_disk_mkdir_p(s.disk, "/data/raft/hashes");
    small_file_write(s.disk, PATH, data, bytes);
    enum rq_err err = rq_replica_keep_hashes(s.replica, PATH, 1, &forgotten, text);
    MUST(err == RQ_OK || err == RQ_CORRUPT);
    if (err == RQ_OK) {
        must_read(&s);
        must_scrub(&s, 1);
        MUST(rq_replica_backfill(s.replica) == RQ_OK);
        must_scrub(&s, 2);
        MUST(rq_replica_reset(s.replica) == RQ_OK);
        must_read(&s);
    }
    small_replica_fini(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    try_hashes(data, bytes);
    if (bytes >= CHECK_AT + 8) {
        uint8_t *sealed = exact_copy(data, bytes);
        rq_put_u64(sealed + CHECK_AT, rq_page_hash(sealed, CHECK_AT));
        try_hashes(sealed, bytes);
        free(sealed);
    }
    return 0;
}
