/* What a member that copies databases is asked, and what it is told.  What is taken can be encoded again, to the same. */
#include <string.h>

#include "raftd/cluster/copy_wire.h"
#include "tests/fuzz/fuzz.h"

static void take_question(const uint8_t *data, size_t bytes)
{
    struct rq_copy_question q;
    uint8_t again[RQ_COPY_QUESTION_BYTES];
    if (bytes >= sizeof again && rq_copy_get_question(data, &q) == RQ_OK) {
        MUST(q.kind != RQ_COPY_HASHES || (q.value > 0 && q.value + q.count - 1 <= UINT32_MAX));
        MUST(q.kind != RQ_COPY_HASHES || q.count <= RQ_COPY_HASHES_MAX);
        MUST(q.kind != RQ_COPY_PAGES || q.count <= RQ_COPY_PAGES_BYTES / 512);
        rq_copy_put_question(again, &q);
        MUST(memcmp(again, data, sizeof again) == 0);
    }
}

static void take_answer(const uint8_t *data, size_t bytes)
{
    struct rq_copy_answer a;
    uint8_t again[RQ_COPY_ANSWER_BYTES];
    if (bytes >= sizeof again) {
        rq_copy_get_answer(data, &a);
        rq_copy_put_answer(again, &a);
        MUST(memcmp(again, data, sizeof again) == 0);
    }
}

static void take_picture(const uint8_t *data, size_t bytes)
{
    struct rq_descriptor d;
    struct rq_bytes again;
    if (rq_copy_get_picture(data, bytes, &d) != RQ_OK) {
        return;
    }
    MUST(d.index > 0 && d.term > 0);
    rq_bytes_init(&again, bytes);
    MUST(rq_copy_put_picture(&again, &d) == RQ_OK);
    MUST(again.size == bytes && memcmp(again.data, data, bytes) == 0);
    rq_bytes_fini(&again);
    rq_descriptor_fini(&d);
}

static void take_database(const uint8_t *data, size_t bytes)
{
    struct rq_replica_state state;
    struct rq_origins origins;
    struct rq_bytes again;
    if (rq_copy_get_database(data, bytes, &state, &origins) != RQ_OK) {
        return;
    }
    MUST(origins.next - origins.first <= RQ_ORIGINS_MAX && state.stamp.version_high == state.version >> 32);
    rq_bytes_init(&again, bytes);
    MUST(rq_copy_put_database(&again, &state, &origins) == RQ_OK);
    MUST(again.size == bytes && memcmp(again.data, data, bytes) == 0);
    rq_bytes_fini(&again);
    rq_origins_fini(&origins);
}

static void take_changed(const uint8_t *data, size_t bytes)
{
    static struct rq_copy_changed c;
    struct rq_bytes again;
    if (rq_copy_get_changed(data, bytes, &c) != RQ_OK) {
        return;
    }
    MUST(c.count <= RQ_COPY_CHANGED_MAX && (c.count > 0 || c.left == 0));
    rq_bytes_init(&again, bytes);
    MUST(rq_copy_put_changed(&again, &c) == RQ_OK);
    MUST(again.size == bytes && memcmp(again.data, data, bytes) == 0);
    rq_bytes_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    take_question(data, bytes);
    take_answer(data, bytes);
    take_picture(data, bytes);
    take_database(data, bytes);
    take_changed(data, bytes);
    return 0;
}
