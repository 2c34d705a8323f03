#include "raftd/log/format.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "raftd/wire/bytes.h"

static const uint8_t segment_magic[8] = "RQVFSLOG";
static const uint8_t slot_magic[8] = "RQVFSTRM";

#define HEAD_CHECK_AT 56u /* of both sector formats; version and checksum keep their place for ever */
#define SEGMENT_SPARE 0u
#define SEGMENT_USED  1u

#define RECORD_CHECK_AT 56u
#define RECORD_CHAIN_AT 64u
#define RECORD_FORGETS  1u

static enum rq_err check_sector(const uint8_t *sector, const uint8_t magic[8])
{
    if (memcmp(sector, magic, 8) != 0 || rq_get_u64(sector + HEAD_CHECK_AT) != XXH3_64bits(sector, HEAD_CHECK_AT)) {
        return RQ_CORRUPT;
    }
    uint32_t version = rq_get_u32(sector + 8);
    return version == RQ_LOG_VERSION ? RQ_OK : version > RQ_LOG_VERSION ? RQ_VERSION : RQ_CORRUPT;
}

void rq_log_put_segment_head(uint8_t out[RQ_LOG_SECTOR_BYTES], const struct rq_log_segment_head *h)
{
    memset(out, 0, RQ_LOG_SECTOR_BYTES);
    memcpy(out, segment_magic, sizeof segment_magic);
    rq_put_u32(out + 8, RQ_LOG_VERSION);
    rq_put_u32(out + 12, h->spare ? SEGMENT_SPARE : SEGMENT_USED);
    rq_put_u64(out + 16, h->instance);
    rq_put_u64(out + 24, h->number);
    rq_put_u64(out + 32, h->first_index);
    rq_put_u64(out + 40, h->chain);
    rq_put_u64(out + 48, h->bytes);
    rq_put_u64(out + HEAD_CHECK_AT, XXH3_64bits(out, HEAD_CHECK_AT));
}

enum rq_err rq_log_get_segment_head(const uint8_t sector[RQ_LOG_SECTOR_BYTES], struct rq_log_segment_head *ret_head)
{
    enum rq_err err = check_sector(sector, segment_magic);
    if (err != RQ_OK) {
        return err;
    }
    uint32_t kind = rq_get_u32(sector + 12);
    if (kind != SEGMENT_SPARE && kind != SEGMENT_USED) {
        return RQ_CORRUPT;
    }
    *ret_head = (struct rq_log_segment_head){
        .spare = kind == SEGMENT_SPARE,
        .instance = rq_get_u64(sector + 16),
        .number = rq_get_u64(sector + 24),
        .first_index = rq_get_u64(sector + 32),
        .chain = rq_get_u64(sector + 40),
        .bytes = rq_get_u64(sector + 48),
    };
    bool index_sound = ret_head->first_index >= 1 && ret_head->first_index <= RQ_LOG_INDEX_MAX;
    return ret_head->spare || index_sound ? RQ_OK : RQ_CORRUPT;
}

uint64_t rq_log_payload_hash(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

static uint64_t record_check(const uint8_t *record, const struct rq_log_place *place)
{
    uint8_t covered[RECORD_CHECK_AT + 20];
    memcpy(covered, record, RECORD_CHECK_AT);
    rq_put_u64(covered + RECORD_CHECK_AT, place->instance);
    rq_put_u64(covered + RECORD_CHECK_AT + 8, place->segment);
    rq_put_u32(covered + RECORD_CHECK_AT + 16, place->offset);
    return XXH3_64bits(covered, sizeof covered);
}

uint64_t rq_log_chain(const uint8_t record[RQ_LOG_RECORD_BYTES], uint64_t chain_before)
{
    uint8_t covered[8 + RECORD_CHAIN_AT];
    rq_put_u64(covered, chain_before);
    memcpy(covered + 8, record, RECORD_CHAIN_AT);
    return XXH3_64bits(covered, sizeof covered);
}

void rq_log_put_record(uint8_t out[RQ_LOG_RECORD_BYTES], struct rq_log_record *r, const struct rq_log_place *place,
                       uint64_t chain_before)
{
    rq_put_u32(out, r->bytes);
    rq_put_u16(out + 4, r->type);
    rq_put_u16(out + 6, r->forgets ? RECORD_FORGETS : 0);
    rq_put_u64(out + 8, r->index);
    rq_put_u64(out + 16, r->term);
    rq_put_u64(out + 24, r->durable_upto);
    rq_put_u64(out + 32, r->committed);
    rq_put_u32(out + 40, r->batch);
    rq_put_u32(out + 44, 0);
    rq_put_u64(out + 48, r->payload_hash);
    rq_put_u64(out + RECORD_CHECK_AT, record_check(out, place));
    r->chain = rq_log_chain(out, chain_before);
    rq_put_u64(out + RECORD_CHAIN_AT, r->chain);
}

bool rq_log_get_record(const uint8_t in[RQ_LOG_RECORD_BYTES], const struct rq_log_place *place,
                       struct rq_log_record *ret_record)
{
    if (rq_get_u64(in + RECORD_CHECK_AT) != record_check(in, place)) {
        return false;
    }
    *ret_record = (struct rq_log_record){
        .bytes = rq_get_u32(in),
        .type = rq_get_u16(in + 4),
        .forgets = rq_get_u16(in + 6) == RECORD_FORGETS,
        .index = rq_get_u64(in + 8),
        .term = rq_get_u64(in + 16),
        .durable_upto = rq_get_u64(in + 24),
        .committed = rq_get_u64(in + 32),
        .batch = rq_get_u32(in + 40),
        .payload_hash = rq_get_u64(in + 48),
        .chain = rq_get_u64(in + RECORD_CHAIN_AT),
    };
    return true;
}

void rq_log_put_slot(uint8_t out[RQ_LOG_SECTOR_BYTES], const struct rq_log_slot *s)
{
    memset(out, 0, RQ_LOG_SECTOR_BYTES);
    memcpy(out, slot_magic, sizeof slot_magic);
    rq_put_u32(out + 8, RQ_LOG_VERSION);
    rq_put_u64(out + 16, s->instance);
    rq_put_u64(out + 24, s->sequence);
    rq_put_u64(out + 32, s->term);
    rq_put_u64(out + 40, s->vote);
    rq_put_u64(out + HEAD_CHECK_AT, XXH3_64bits(out, HEAD_CHECK_AT));
}

enum rq_err rq_log_get_slot(const uint8_t sector[RQ_LOG_SECTOR_BYTES], struct rq_log_slot *ret_slot)
{
    enum rq_err err = check_sector(sector, slot_magic);
    if (err == RQ_OK) {
        *ret_slot = (struct rq_log_slot){
            .instance = rq_get_u64(sector + 16),
            .sequence = rq_get_u64(sector + 24),
            .term = rq_get_u64(sector + 32),
            .vote = rq_get_u64(sector + 40),
        };
    }
    return err;
}
