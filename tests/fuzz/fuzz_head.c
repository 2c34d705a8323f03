/* First words of streams between nodes.  What is taken can be encoded again, to the same. */
#include <string.h>

#include "raftd/wire/head.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rq_head_body head, back;
    struct rq_bytes again;
    const uint64_t kind = rq_head_kind(data, bytes);
    if (rq_head_get_body(data, bytes, &head) != RQ_OK) {
        return 0;
    }
    MUST(kind == RQ_HEAD_BRING || kind == RQ_HEAD_FETCH);
    rq_bytes_init(&again, 200);
    MUST(rq_head_put_body(&again, (enum rq_head_kind)kind, &head) == RQ_OK);
    MUST(rq_head_kind(again.data, again.size) == kind);
    MUST(rq_head_get_body(again.data, again.size, &back) == RQ_OK);
    MUST(memcmp(back.hash, head.hash, sizeof back.hash) == 0 && back.body_bytes == head.body_bytes);
    MUST(back.origin.session == head.origin.session && back.origin.seq == head.origin.seq);
    MUST(back.offset == head.offset && back.offset <= back.body_bytes);
    rq_bytes_fini(&again);
    return 0;
}
