/* A log entry, given to every decoder.  What is taken can be encoded again, and is then taken again. */
#include "raftd/wire/entry.h"
#include "tests/fuzz/fuzz.h"

#define AGAIN(name)                                                         \
    {                                                                       \
        struct rq_entry_##name e;                                           \
        if (rq_entry_get_##name(data, bytes, &e) == RQ_OK) {                \
            struct rq_bytes again;                                          \
            rq_bytes_init(&again, 4096);                                    \
            MUST(rq_entry_put_##name(&again, &e) == RQ_OK);                 \
            MUST(rq_entry_get_##name(again.data, again.size, &e) == RQ_OK); \
            rq_bytes_fini(&again);                                          \
        }                                                                   \
    }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    AGAIN(staged)
    AGAIN(create)
    AGAIN(drop)
    AGAIN(adopt)
    AGAIN(mark)
    return 0;
}
