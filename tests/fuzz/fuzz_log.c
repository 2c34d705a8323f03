/* A log whose files hold anything.  The input is a slot of term and vote (with its magic), else a segment; what is missing of either
 * is the good one.  Each is taken as it is, and again with every hash put right, so that what lies behind the hashes is reached;
 * a segment then also as the one before and after itself.  What opens is whole: its entries can be read, it opens again as the
 * same log, and it goes on. */
#include <string.h>

#include "raftd/log/format.h"
#include "raftd/wire/bytes.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/log_rig.h"
#include "tests/support/small_replica.h"

#define RAFT          "/data/raft"
#define SEGMENT_BYTES 16384u
#define HASH_AT       56u
#define STRIDE_BYTES  4096u /* from one slot to the other */

enum { ENTRIES_MAX = 3 * SEGMENT_BYTES / RQ_LOG_RECORD_BYTES };

static void seal_sector(uint8_t *sector)
{
    rq_put_u64(sector + HASH_AT, rq_log_payload_hash(sector, HASH_AT));
}

/* Returns the chain after the last record. */
static uint64_t seal_segment(uint8_t *bytes, uint64_t number, uint64_t chain)
{
    rq_put_u64(bytes + 24, number);
    rq_put_u64(bytes + 40, chain);
    seal_sector(bytes);
    for (uint64_t at = RQ_LOG_SECTOR_BYTES; at + RQ_LOG_RECORD_BYTES <= SEGMENT_BYTES;) {
        uint8_t *record = bytes + at;
        uint64_t record_bytes = rq_log_record_bytes(rq_get_u32(record));
        if (rq_get_u64(record + 8) == 0 || record_bytes > SEGMENT_BYTES - at) { /* no record here */
            at = rq_log_sectors_bytes(at + 1);
            continue;
        }
        struct rq_log_record r = {
            .bytes = rq_get_u32(record),
            .type = rq_get_u16(record + 4),
            .index = rq_get_u64(record + 8),
            .term = rq_get_u64(record + 16),
            .durable_upto = rq_get_u64(record + 24),
            .committed = rq_get_u64(record + 32),
            .batch = rq_get_u32(record + 40),
            .payload_hash = rq_log_payload_hash(record + RQ_LOG_RECORD_BYTES, rq_get_u32(record)),
        };
        const struct rq_log_place place = { rq_get_u64(bytes + 16), number, (uint32_t)at };
        rq_log_put_record(record, &r, &place, chain);
        chain = r.chain;
        at += record_bytes;
    }
    return chain;
}

static bool is_meta(const uint8_t *data, size_t bytes)
{
    return bytes >= 8 && memcmp(data, "RQVFSTRM", 8) == 0;
}

static void put_meta(struct record_disk *d, const uint8_t *data, size_t bytes, bool seal)
{
    uint8_t file[STRIDE_BYTES + RQ_LOG_SECTOR_BYTES] = { 0 };
    rq_log_put_slot(file + STRIDE_BYTES, &(struct rq_log_slot){ RIG_INSTANCE, 1, 3, RIG_INSTANCE });
    rq_log_put_slot(file, &(struct rq_log_slot){ RIG_INSTANCE, 1, 3, RIG_INSTANCE });
    if (is_meta(data, bytes)) {
        memcpy(file, data, bytes < RQ_LOG_SECTOR_BYTES ? bytes : RQ_LOG_SECTOR_BYTES);
        if (seal) {
            seal_sector(file);
        }
    }
    small_file_write(d, RAFT "/meta", file, sizeof file);
}

/* segments: 1, or 2 of the same content, sealed. */
static void put_segments(struct record_disk *d, const uint8_t *data, size_t bytes, bool seal, unsigned segments)
{
    static uint8_t file[SEGMENT_BYTES];
    uint64_t chain = RIG_INSTANCE;
    for (unsigned i = 1; i <= segments; i++) {
        const char *path = i == 1 ? RAFT "/log/00000001.seg" : RAFT "/log/00000002.seg";
        memset(file, 0, sizeof file);
        if (is_meta(data, bytes)) {
            rq_log_put_segment_head(file,
                                    &(struct rq_log_segment_head){ false, RIG_INSTANCE, i, 1, chain, SEGMENT_BYTES });
        } else if (bytes > 0) {
            memcpy(file, data, bytes < sizeof file ? bytes : sizeof file);
        }
        if (seal) {
            chain = seal_segment(file, i, chain);
        }
        small_file_write(d, path, file, sizeof file);
    }
}

static enum rq_err open_log(struct record_disk *d, bool create, struct rq_log **ret_log, struct rq_log_found *ret_found)
{
    enum rq_err err = rig_open(&d->disk, RAFT, create, SEGMENT_BYTES, 4096, ret_log, ret_found);
    MUST(err == RQ_OK || err == RQ_CORRUPT || err == RQ_VERSION || err == RQ_FOREIGN || err == RQ_NOTFOUND ||
         (create && err == RQ_EXISTS));
    MUST(err == RQ_OK || err == RQ_NOTFOUND || err == RQ_EXISTS || ret_found->problem[0] != '\0');
    return err;
}

static void read_all(struct rq_log *log, const struct rq_log_found *f)
{
    MUST(f->first_index > 0 && f->last_index + 1 >= f->first_index);
    MUST(f->last_index + 1 - f->first_index <= ENTRIES_MAX);
    for (uint64_t index = f->first_index; index <= f->last_index; index++) {
        struct rq_log_entry e;
        MUST(rq_log_get(log, index, &e) == RQ_OK);
        MUST(e.index == index && e.term == rq_log_term_at(log, index));
        rq_blob_unref(e.blob);
    }
}

static void go_on(struct record_disk *d, struct rq_log *log, const struct rq_log_found *first)
{
    struct rq_log_found f;
    uint64_t durable, index = first->last_index + 1, term = rq_log_term_at(log, first->last_index) + 1;
    rq_log_close(log);
    MUST(open_log(d, false, &log, &f) == RQ_OK);
    MUST(f.first_index == first->first_index && f.last_index == first->last_index && f.term == first->term &&
         f.vote == first->vote && f.committed == first->committed);
    MUST(rig_append(log, index, term, 1000, first->committed) == RQ_OK);
    MUST(rq_log_write(log, &durable) == RQ_OK);
    MUST(durable == index);
    rq_log_close(log);
    MUST(open_log(d, false, &log, &f) == RQ_OK);
    MUST(f.last_index == index && rig_holds(log, index, term, 1000));
    rq_log_close(log);
}

static void try_log(const uint8_t *data, size_t bytes, bool seal, unsigned segments, bool create)
{
    struct record_disk *d = record_disk_new();
    struct rq_log *log;
    struct rq_log_found found;
    record_disk_mkdir_p(d, RAFT "/log");
    put_segments(d, data, bytes, seal, segments);
    if (!create) {
        put_meta(d, data, bytes, seal);
    }
    if (open_log(d, create, &log, &found) == RQ_OK) {
        read_all(log, &found);
        go_on(d, log, &found);
    }
    record_disk_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    try_log(data, bytes, false, 1, false);
    try_log(data, bytes, true, 1, false);
    try_log(data, bytes, true, 2, false);
    try_log(data, bytes, true, 1, true); /* what a founding that died may have left */
    return 0;
}
