/* A transaction record, read and applied to zeros.  Once it was read, only a hash can be wrong. */
#include <string.h>

#include "raftd/wire/txn.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static uint8_t page[RQ_PAGE_SIZE_MAX];
    struct rq_txn_reader reader;
    struct rq_delta delta;
    if (rq_txn_read(&reader, data, bytes) != RQ_OK) {
        return 0;
    }
    MUST(rq_txn_head_check(&reader.head));
    for (uint32_t i = 0; i < reader.head.origin_count; i++) {
        (void)rq_txn_origin(&reader, i);
    }
    uint32_t page_size = reader.head.page_size, count = 0, last = 0;
    enum rq_err err;
    while ((err = rq_txn_next(&reader, &delta)) == RQ_OK) {
        MUST(delta.pgno > last && delta.pgno <= reader.head.page_count);
        last = delta.pgno;
        count++;
        memset(page, 0, page_size);
        err = rq_delta_apply(&delta, page, page_size);
        MUST(err == RQ_OK || err == RQ_CORRUPT);
        delta.before = rq_page_hash(page, page_size); /* so that the ranges are really copied */
        err = rq_delta_apply(&delta, page, page_size);
        MUST(err == RQ_OK || err == RQ_CORRUPT);
    }
    MUST(err == RQ_NOTFOUND);
    MUST(count == reader.delta_count);
    return 0;
}
