/* Log format: bytes of segment headers, record headers and term/vote slots.  docs/file-format.md#log is the specification.
 *
 * Pure: no disk, no memory of its own.  Whatever is decoded was checked: a bad one is told as such, never half believed. */
#ifndef RAFTD_LOG_FORMAT_H
#define RAFTD_LOG_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"

#define RQ_LOG_VERSION      1u
#define RQ_LOG_SECTOR_BYTES 512u
#define RQ_LOG_RECORD_BYTES 72u                 /* header of a record; payload behind it, padded to 8 */
#define RQ_LOG_INDEX_MAX    ((uint64_t)1 << 62) /* of a segment's first record: indexes never come round */

/* Sector 0 of a segment.  One sector: a medium writes it whole or not at all, so a bad one is never a torn one. */
struct rq_log_segment_head {
    bool spare; /* may be taken for a new segment; number, first_index and chain mean nothing */
    uint64_t instance;
    uint64_t number;      /* segments of one log follow one another without a gap */
    uint64_t first_index; /* of its first record */
    uint64_t chain;       /* of the last record before it */
    uint64_t bytes;       /* of the file */
};

void rq_log_put_segment_head(uint8_t out[RQ_LOG_SECTOR_BYTES], const struct rq_log_segment_head *h);
/* CORRUPT, or VERSION for one that a newer raftd wrote. */
enum rq_err rq_log_get_segment_head(const uint8_t sector[RQ_LOG_SECTOR_BYTES], struct rq_log_segment_head *ret_head);

struct rq_log_record {
    uint32_t bytes; /* of the payload */
    uint16_t type;
    uint64_t index;
    uint64_t term;
    uint64_t durable_upto; /* entries up to here were synced when this record's batch was written */
    uint64_t committed;
    uint32_t batch; /* where in the segment its batch begins: everything in front of it was synced before */
    uint64_t payload_hash;
    bool forgets;   /* no record before this one is of the log any more, whatever its index */
    uint64_t chain; /* over the record before, this header and so the payload's hash */
};

/* Where a record lies is part of its checksum: neither another life's record nor a moved one passes. */
struct rq_log_place {
    uint64_t instance;
    uint64_t segment;
    uint32_t offset;
};

uint64_t rq_log_payload_hash(const void *data, size_t bytes);

/* Fills in r->chain from the chain before. */
void rq_log_put_record(uint8_t out[RQ_LOG_RECORD_BYTES], struct rq_log_record *r, const struct rq_log_place *place,
                       uint64_t chain_before);
/* False: no record header that was written for this place.  Says nothing of payload and chain. */
bool rq_log_get_record(const uint8_t in[RQ_LOG_RECORD_BYTES], const struct rq_log_place *place,
                       struct rq_log_record *ret_record);
/* The chain that a record's header must hold after chain_before. */
uint64_t rq_log_chain(const uint8_t record[RQ_LOG_RECORD_BYTES], uint64_t chain_before);

/* Bytes that a record takes inside a batch, and as a batch of its own. */
static inline uint64_t rq_log_record_bytes(uint64_t payload_bytes)
{
    return RQ_LOG_RECORD_BYTES + (payload_bytes + 7) / 8 * 8;
}
static inline uint64_t rq_log_sectors_bytes(uint64_t bytes)
{
    return (bytes + RQ_LOG_SECTOR_BYTES - 1) / RQ_LOG_SECTOR_BYTES * RQ_LOG_SECTOR_BYTES;
}

struct rq_log_slot {
    uint64_t instance;
    uint64_t sequence; /* of the newest put_meta */
    uint64_t term;
    uint64_t vote;
};

void rq_log_put_slot(uint8_t out[RQ_LOG_SECTOR_BYTES], const struct rq_log_slot *s);
enum rq_err rq_log_get_slot(const uint8_t sector[RQ_LOG_SECTOR_BYTES], struct rq_log_slot *ret_slot);

#endif
