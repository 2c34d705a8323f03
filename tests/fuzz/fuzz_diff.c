/* Two pages made of the input: the record of their difference turns the one into the other. */
#include <string.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/txn.h"
#include "tests/fuzz/fuzz.h"

static void fill(uint8_t *page, uint32_t page_size, const uint8_t *data, size_t bytes)
{
    memset(page, 0, page_size);
    if (bytes > 0) {
        memcpy(page, data, bytes < page_size ? bytes : page_size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static uint8_t base[RQ_PAGE_SIZE_MAX], page[RQ_PAGE_SIZE_MAX];
    if (bytes < 1) {
        return 0;
    }
    uint32_t page_size = RQ_PAGE_SIZE_MIN << (data[0] & 7);
    size_t half = (bytes - 1) / 2;
    fill(base, page_size, data + 1, half);
    fill(page, page_size, data + 1 + half, half);

    struct rq_bytes record;
    struct rq_txn_head head = { .db_id = 1, .page_size = page_size, .page_count = 1, .version = 1, .origin_count = 1 };
    struct rq_txn_reader reader;
    struct rq_delta delta;
    rq_bytes_init(&record, 1 << 20);
    MUST(rq_txn_begin(&record, &head, &(struct rq_origin){ .session = 1, .seq = 1 }) == RQ_OK);
    MUST(rq_txn_add(&record, 1, base, page, page_size) == RQ_OK);
    MUST(rq_txn_end(&record, 0) == RQ_OK);
    MUST(rq_txn_read(&reader, record.data, record.size) == RQ_OK);
    MUST(reader.delta_count == (memcmp(base, page, page_size) != 0));
    if (reader.delta_count == 1) {
        MUST(rq_txn_next(&reader, &delta) == RQ_OK);
        MUST(delta.ranges_bytes <= page_size + 4u);
        MUST(rq_delta_apply(&delta, base, page_size) == RQ_OK);
        MUST(memcmp(base, page, page_size) == 0);
    }
    rq_bytes_fini(&record);
    return 0;
}
