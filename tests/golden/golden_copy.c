#include "tests/golden/golden_copy.h"

#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/copy_wire.h"

static void must(enum rq_err err)
{
    if (err != RQ_OK) {
        abort();
    }
}

void golden_copy_questions(struct rq_bytes *out)
{
    static const struct rq_copy_question questions[] = {
        { RQ_COPY_PICTURE, 0, 300 }, { RQ_COPY_DATABASE, 7, 0 }, { RQ_COPY_HASHES, 1024, 1025 },
        { RQ_COPY_CHANGED, 0, 1 },   { RQ_COPY_HELD, 0, 0 },     { RQ_COPY_HEAD, 7, 0 },
        { RQ_COPY_PAGES, 2, 0 },
    };
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        uint8_t bytes[RQ_COPY_QUESTION_BYTES];
        rq_copy_put_question(bytes, &questions[i]);
        must(rq_bytes_put(out, bytes, sizeof bytes));
    }
    uint8_t numbers[8];
    rq_put_u32(numbers, 1);
    rq_put_u32(numbers + 4, 70000);
    must(rq_bytes_put(out, numbers, sizeof numbers));
}

void golden_copy_answer(struct rq_bytes *out)
{
    const char *text = rq_err_text(RQ_UNREADY);
    uint8_t bytes[RQ_COPY_ANSWER_BYTES];
    rq_copy_put_answer(bytes, &(struct rq_copy_answer){ RQ_UNREADY, (uint32_t)strlen(text) });
    must(rq_bytes_put(out, bytes, sizeof bytes));
    must(rq_bytes_put(out, text, strlen(text)));
}

void golden_copy_picture(struct rq_bytes *out)
{
    uint8_t configuration[] = { 1, 2, 3 };
    struct rq_descriptor_database databases[] = { { .name = "app.db", .id = 7 }, { .name = "other.db", .id = 299 } };
    const struct rq_descriptor d = {
        .index = 300,
        .term = 3,
        .configuration_index = 2,
        .configuration = configuration,
        .configuration_bytes = sizeof configuration,
        .databases = databases,
        .database_count = 2,
    };
    must(rq_copy_put_picture(out, &d));
}

void golden_copy_database(struct rq_bytes *out)
{
    const struct rq_replica_state state = {
        .stamp = { .db_id = 7, .term = 3, .index = 300, .version_high = 1 },
        .version = (1ull << 32) + 301,
        .page_size = 4096,
        .page_count = 70000,
    };
    struct rq_origins origins;
    rq_origins_init(&origins, state.version - 2);
    must(rq_origins_put(&origins, (struct rq_origin){ 0x1122334455667788ull, 5 }));
    must(rq_origins_put(&origins, (struct rq_origin){ 0x1122334455667788ull, 6 }));
    must(rq_copy_put_database(out, &state, &origins));
    rq_origins_fini(&origins);
}

void golden_copy_changed(struct rq_bytes *out)
{
    static const struct rq_copy_changed changed = { .held = true, .left = 70000, .count = 2, .pgnos = { 65000, 1 } };
    must(rq_copy_put_changed(out, &changed));
}
