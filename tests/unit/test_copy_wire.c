/* copy_wire: comes back as it was put; what is short, too long, or contradicts itself is refused. */
#include <stdlib.h>

#include "raftd/cluster/copy_wire.h"
#include "raftd/db/database.h"
#include "tests/support/exact.h"
#include "tests/support/tap.h"

static struct rq_descriptor_database databases[2] = { { .name = "app.db", .id = 7 }, { .name = "b", .id = 100 } };
static uint8_t configuration[3] = { 1, 2, 3 };
static const struct rq_descriptor picture = { .index = 100,
                                              .term = 4,
                                              .configuration_index = 9,
                                              .configuration = configuration,
                                              .configuration_bytes = sizeof configuration,
                                              .databases = databases,
                                              .database_count = 2 };

static enum rq_err get_picture(const uint8_t *data, size_t bytes)
{
    struct rq_descriptor d;
    uint8_t *copy = exact_copy(data, bytes);
    enum rq_err err = rq_copy_get_picture(copy, bytes, &d);
    free(copy);
    if (err == RQ_OK) {
        rq_descriptor_fini(&d);
    }
    return err;
}

static void a_picture_comes_back_as_it_was(void)
{
    struct rq_bytes out;
    struct rq_descriptor d;
    rq_bytes_init(&out, 4096);
    check_eq(rq_copy_put_picture(&out, &picture), RQ_OK);
    check_eq(rq_copy_get_picture(out.data, out.size, &d), RQ_OK);
    check(d.index == 100 && d.term == 4 && d.configuration_index == 9 && d.database_count == 2);
    check(d.configuration_bytes == 3 && memcmp(d.configuration, configuration, 3) == 0);
    check(strcmp(d.databases[0].name, "app.db") == 0 && d.databases[0].id == 7 && d.databases[1].id == 100);
    rq_descriptor_fini(&d);
    for (size_t bytes = 0; bytes < out.size; bytes++) {
        check_eq(get_picture(out.data, bytes), RQ_PROTOCOL);
    }
    check_eq(rq_bytes_put(&out, "x", 1), RQ_OK);
    check_eq(get_picture(out.data, out.size), RQ_PROTOCOL);
    rq_bytes_fini(&out);
}

static enum rq_err with_databases(const char *name, uint32_t id)
{
    struct rq_bytes out;
    struct rq_descriptor_database changed[2] = { databases[0], { .id = id } };
    struct rq_descriptor d = picture;
    (void)snprintf(changed[1].name, sizeof changed[1].name, "%s", name);
    d.databases = changed;
    rq_bytes_init(&out, 4096);
    check_eq(rq_copy_put_picture(&out, &d), RQ_OK);
    enum rq_err err = get_picture(out.data, out.size);
    rq_bytes_fini(&out);
    return err;
}

static void a_picture_that_cannot_be_is_refused(void)
{
    check_eq(with_databases("other", 8), RQ_OK);
    check_eq(with_databases("app.db", 8), RQ_PROTOCOL);
    check_eq(with_databases("other", 7), RQ_PROTOCOL);
    check_eq(with_databases("other", 0), RQ_PROTOCOL);
    check_eq(with_databases("other", 101), RQ_PROTOCOL); /* made by an entry behind the picture */
    check_eq(with_databases("../other", 8), RQ_PROTOCOL);
    check_eq(with_databases("", 8), RQ_PROTOCOL);
    check_eq(with_databases("raftd.sock", 8), RQ_PROTOCOL);
}

static void a_database_comes_back_as_it_was(void)
{
    struct rq_bytes out;
    struct rq_origins origins, got;
    struct rq_origin o;
    const struct rq_replica_state state = { { 7, 3, 99, 1 }, (1ull << 32) + 12, 4096, 500 };
    struct rq_replica_state back;
    rq_bytes_init(&out, 65536);
    rq_origins_init(&origins, state.version - 2);
    check_eq(rq_origins_put(&origins, (struct rq_origin){ 5, 6 }), RQ_OK);
    check_eq(rq_origins_put(&origins, (struct rq_origin){ 7, 8 }), RQ_OK);
    check_eq(rq_copy_put_database(&out, &state, &origins), RQ_OK);
    check_eq(rq_copy_get_database(out.data, out.size, &back, &got), RQ_OK);
    check(rq_stamp_equal(&back.stamp, &state.stamp) && back.version == state.version && back.page_size == 4096 &&
          back.page_count == 500);
    check(rq_origins_find(&got, state.version - 1, &o) && o.session == 7 && o.seq == 8 && got.next == state.version);
    rq_origins_fini(&got);
    for (size_t bytes = 0; bytes < out.size; bytes++) {
        uint8_t *copy = exact_copy(out.data, bytes);
        check_eq(rq_copy_get_database(copy, bytes, &back, &got), RQ_PROTOCOL);
        free(copy);
    }
    rq_origins_fini(&origins);
    rq_bytes_fini(&out);
}

static enum rq_err get_changed(const struct rq_bytes *b, size_t bytes)
{
    static struct rq_copy_changed got;
    uint8_t *copy = exact_copy(b->data, bytes);
    enum rq_err err = rq_copy_get_changed(copy, bytes, &got);
    free(copy);
    return err;
}

static void changed_pages_come_back_as_they_were(void)
{
    static struct rq_copy_changed changed, got;
    struct rq_bytes out;
    changed = (struct rq_copy_changed){ .held = true, .left = 9, .count = 3, .pgnos = { 70000, 1, 2 } };
    rq_bytes_init(&out, 1u << 20);
    check_eq(rq_copy_put_changed(&out, &changed), RQ_OK);
    check_eq(rq_copy_get_changed(out.data, out.size, &got), RQ_OK);
    check(got.held && got.left == 9 && got.count == 3 && memcmp(got.pgnos, changed.pgnos, 12) == 0);
    for (size_t bytes = 0; bytes < out.size; bytes++) {
        check_eq(get_changed(&out, bytes), RQ_PROTOCOL);
    }
    check_eq(rq_bytes_put(&out, "page", 4), RQ_OK);
    check_eq(get_changed(&out, out.size), RQ_PROTOCOL);
    out.data[0] = 2;
    check_eq(get_changed(&out, out.size - 4), RQ_PROTOCOL);
    out.size = 0;
    changed.pgnos[1] = 0;
    check_eq(rq_copy_put_changed(&out, &changed), RQ_OK);
    check_eq(get_changed(&out, out.size), RQ_PROTOCOL);
    out.size = 0;
    changed.count = 0; /* and some are left */
    check_eq(rq_copy_put_changed(&out, &changed), RQ_OK);
    check_eq(get_changed(&out, out.size), RQ_PROTOCOL);
    out.size = 0;
    changed.count = RQ_COPY_CHANGED_MAX;
    for (uint32_t i = 0; i < changed.count; i++) {
        changed.pgnos[i] = i + 1;
    }
    check_eq(rq_copy_put_changed(&out, &changed), RQ_OK);
    check_eq(get_changed(&out, out.size), RQ_OK);
    check_eq(rq_bytes_put(&out, "page", 4), RQ_OK);
    rq_put_u32(out.data + 5, RQ_COPY_CHANGED_MAX + 1);
    check_eq(get_changed(&out, out.size), RQ_PROTOCOL);
    rq_bytes_fini(&out);
}

static enum rq_err question(uint32_t kind, uint32_t count, uint64_t value)
{
    uint8_t bytes[RQ_COPY_QUESTION_BYTES];
    struct rq_copy_question q = { (enum rq_copy_kind)kind, count, value }, got;
    rq_copy_put_question(bytes, &q);
    enum rq_err err = rq_copy_get_question(bytes, &got);
    check(err != RQ_OK || (got.kind == q.kind && got.count == count && got.value == value));
    return err;
}

static void nobody_may_ask_for_more_than_is_held_at_once(void)
{
    check_eq(question(RQ_COPY_PICTURE, 0, 0), RQ_OK);
    check_eq(question(RQ_COPY_DATABASE, 7, 0), RQ_OK);
    check_eq(question(RQ_COPY_DATABASE, 0, 0), RQ_PROTOCOL);
    check_eq(question(RQ_COPY_HASHES, RQ_COPY_HASHES_MAX, 1), RQ_OK);
    check_eq(question(RQ_COPY_HASHES, RQ_COPY_HASHES_MAX + 1, 1), RQ_PROTOCOL);
    check_eq(question(RQ_COPY_HASHES, 0, 1), RQ_PROTOCOL);
    check_eq(question(RQ_COPY_HASHES, 1, 0), RQ_PROTOCOL);
    check_eq(question(RQ_COPY_HASHES, 1, UINT32_MAX), RQ_PROTOCOL);
    check_eq(question(RQ_COPY_PAGES, RQ_COPY_PAGES_BYTES / 512, 0), RQ_OK);
    check_eq(question(RQ_COPY_PAGES, RQ_COPY_PAGES_BYTES / 512 + 1, 0), RQ_PROTOCOL);
    check_eq(question(RQ_COPY_PAGES, 0, 0), RQ_PROTOCOL);
    check_eq(question(0, 1, 1), RQ_PROTOCOL);
    check_eq(question(RQ_COPY_CHANGED, 0, 1), RQ_OK);
    check_eq(question(RQ_COPY_CHANGED, 0, 2), RQ_PROTOCOL);
    check_eq(question(RQ_COPY_HELD, 0, 0), RQ_OK);
    check_eq(question(RQ_COPY_HEAD, 7, 0), RQ_OK);
    check_eq(question(RQ_COPY_HEAD, 0, 0), RQ_PROTOCOL);
    check_eq(question(8, 1, 1), RQ_PROTOCOL);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(a_picture_comes_back_as_it_was),
        TAP(a_picture_that_cannot_be_is_refused),
        TAP(a_database_comes_back_as_it_was),
        TAP(changed_pages_come_back_as_they_were),
        TAP(nobody_may_ask_for_more_than_is_held_at_once),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
