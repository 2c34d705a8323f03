/* A staged body, read in the pieces that its reader asks for. */
#include "raftd/wire/body.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rq_body_reader r;
    if (rq_body_reader_init(&r, bytes) != RQ_OK) {
        return 0;
    }
    enum rq_err err = RQ_OK;
    uint32_t last = 0;
    while (err == RQ_OK && rq_body_reader_want(&r) > 0) {
        size_t want = rq_body_reader_want(&r);
        uint32_t pgno;
        MUST(want <= bytes && want <= RQ_BODY_PIECE_BYTES_MAX);
        err = rq_body_reader_take(&r, data, &pgno);
        MUST(pgno == 0 || (pgno > last && pgno <= r.head.db_page_count));
        last = pgno != 0 ? pgno : last;
        data += want;
        bytes -= want;
    }
    MUST(err != RQ_OK || bytes == 0);
    rq_body_reader_fini(&r);
    return 0;
}
