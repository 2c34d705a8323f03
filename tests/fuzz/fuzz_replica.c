/* A database file and a WAL that hold anything: as they are, and with every checksum of the WAL put right.  What opens is a replica:
 * all its pages can be read, it takes the next transaction, comes into the file, begins its WAL anew, and opens again as it was. */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/support/exact.h"
#include "tests/support/small_replica.h"
#include "vfs/wal.h"

#define PAGES_MAX 4096u /* of which all are looked at */

static void seal_wal(uint8_t *wal, size_t bytes)
{
    struct rq_wal_head h = { .big_endian = (wal[3] & 1) != 0 };
    static const uint32_t zero[2];
    rq_wal_checksum(h.big_endian, wal, 24, zero, h.checksum);
    rq_put_u32(wal + 24, h.checksum[0]);
    rq_put_u32(wal + 28, h.checksum[1]);
    if (rq_wal_head_decode(wal, &h) != RQ_OK) {
        return;
    }
    uint32_t sum[2] = { h.checksum[0], h.checksum[1] };
    size_t frame_bytes = RQ_WAL_FRAME_BYTES + h.page_size;
    for (size_t at = RQ_WAL_HEAD_BYTES; at + frame_bytes <= bytes; at += frame_bytes) {
        rq_wal_frame_encode(&h, sum, rq_get_u32(wal + at), rq_get_u32(wal + at + 4), wal + at + RQ_WAL_FRAME_BYTES,
                            wal + at);
    }
}

static bool same_state(const struct rq_replica_state *a, const struct rq_replica_state *b)
{
    return a->version == b->version && a->page_size == b->page_size && a->page_count == b->page_count &&
           a->stamp.db_id == b->stamp.db_id && a->stamp.index == b->stamp.index && a->stamp.term == b->stamp.term;
}

static void read_pages(struct rq_replica *r, const struct rq_replica_state *state)
{
    static uint8_t page[65536];
    for (uint32_t pgno = 1; pgno <= state->page_count && pgno <= PAGES_MAX; pgno++) {
        MUST(rq_replica_read(r, pgno, page) == RQ_OK);
    }
}

static void go_on(struct small_replica *s, struct rq_replica_state *state)
{
    char text[160];
    struct rq_replica_state found;
    if (state->page_size == SMALL_PAGE_SIZE) {
        state->version++;
        state->stamp.index++;
        state->stamp.version_high = (uint32_t)(state->version >> 32);
        MUST(small_replica_append(s->replica, state) == RQ_OK);
    }
    MUST(rq_replica_check(s->replica, text) == RQ_OK);
    MUST(rq_replica_backfill(s->replica) == RQ_OK);
    MUST(rq_replica_reset(s->replica) == RQ_OK);
    MUST(rq_replica_check(s->replica, text) == RQ_OK);
    rq_replica_close(s->replica);
    const struct rq_replica_config config = small_replica_config(s);
    MUST(rq_replica_open(&config, &s->replica, &found) == RQ_OK);
    MUST(same_state(state, &found));
}

static void try_files(const uint8_t *data, size_t bytes)
{
    struct small_replica s = { .disk = record_disk_new() };
    struct rq_replica_state state;
    size_t db_bytes = bytes < SMALL_DB_BYTES ? bytes : SMALL_DB_BYTES;
    record_disk_mkdir_p(s.disk, "/data");
    small_file_write(s.disk, SMALL_PATH, data, db_bytes);
    small_file_write(s.disk, SMALL_PATH "-wal", data + db_bytes, bytes - db_bytes);
    MUST(rq_control_publish(&s.disk->disk, SMALL_PATH "-rqctl", SMALL_BOOT, 0600, &s.control) == RQ_OK);
    const struct rq_replica_config config = small_replica_config(&s);
    enum rq_err err = rq_replica_open(&config, &s.replica, &state);
    MUST(err == RQ_OK || err == RQ_CORRUPT || err == RQ_FOREIGN || err == RQ_NOTFOUND || err == RQ_VERSION);
    if (err == RQ_OK) {
        read_pages(s.replica, &state);
        if (state.page_count <= PAGES_MAX) {
            go_on(&s, &state);
            read_pages(s.replica, &state);
        }
    }
    small_replica_fini(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    try_files(data, bytes);
    if (bytes >= SMALL_DB_BYTES + RQ_WAL_HEAD_BYTES) {
        uint8_t *sealed = exact_copy(data, bytes);
        seal_wal(sealed + SMALL_DB_BYTES, bytes - SMALL_DB_BYTES);
        try_files(sealed, bytes);
        free(sealed);
    }
    return 0;
}
