/* ask: what one node asks of another comes in as it went out; truncations, other fields and values out of bounds are refused. */
#include "raftd/wire/ask.h"
#include "raftd/wire/mp.h"
#include "tests/support/exact.h"
#include "tests/support/tap.h"

#define STR(text) { .data = (text), .bytes = sizeof(text) - 1 }

static const uint8_t key[RQ_ASK_KEY_BYTES] = { 1, 2, 3 };
static const uint8_t entry[] = { 0x91, 0x07 };
static const uint8_t held[2 * RQ_ASK_HELD_BYTES] = { 1, 2, 3, 4, 5 };
static const struct rq_ask asks[] = {
    { .kind = RQ_ASK_APPEND, .append = { .type = 6, .bytes = sizeof entry } },
    { .kind = RQ_ASK_APPEND, .append = { .type = 4, .holders = { held, 24 }, .bytes = sizeof entry } },
    { .kind = RQ_ASK_HELD },
    { .kind = RQ_ASK_JOIN,
      .member = { UINT64_MAX, STR("n2"), STR("host2:4002"), STR("host2:4001"), true, key, STR("bob"), STR("secret") } },
    { .kind = RQ_ASK_NOTIFY,
      .member = { 1, STR("n2"), STR("host2:4002"), STR("host2:4001"), false, key, STR(""), STR("") } },
    { .kind = RQ_ASK_REMOVE, .name = STR("n2") },
    { .kind = RQ_ASK_INDEX },
    { .kind = RQ_ASK_REACH, .instance = 1ull << 63 },
    { .kind = RQ_ASK_ABOUT },
    { .kind = RQ_ASK_TRANSFER, .name = STR("n2") },
    { .kind = RQ_ASK_TRANSFER, .name = STR("") },
    { .kind = RQ_ASK_TURN_TAKE, .turn = { .db_id = UINT32_MAX } },
    { .kind = RQ_ASK_TURN_WANTED, .turn = { 7, UINT64_MAX } },
    { .kind = RQ_ASK_TURN_HELD, .held = { held, sizeof held } },
    { .kind = RQ_ASK_TURN_HELD, .held = { held, 0 } },
};
enum { ASKS = sizeof asks / sizeof *asks };

static void put(struct rq_bytes *out, const struct rq_ask *ask)
{
    out->size = 0;
    check_eq(rq_ask_put(out, ask), RQ_OK);
    if (ask->kind == RQ_ASK_APPEND) {
        check_eq(rq_bytes_put(out, entry, sizeof entry), RQ_OK);
    }
}

static enum rq_err get_exact(const uint8_t *data, size_t bytes, struct rq_ask *ret)
{
    uint8_t *copy = exact_copy(data, bytes);
    enum rq_err err = rq_ask_get(copy, bytes, ret);
    free(copy);
    return err;
}

static bool same(struct rq_str a, struct rq_str b)
{
    return a.bytes == b.bytes && (a.bytes == 0 || memcmp(a.data, b.data, a.bytes) == 0);
}

static void each_ask_comes_back(void)
{
    struct rq_bytes b;
    rq_bytes_init(&b, 8192);
    for (unsigned i = 0; i < ASKS; i++) {
        const struct rq_ask *ask = &asks[i];
        struct rq_ask got;
        put(&b, ask);
        check_eq(rq_ask_get(b.data, b.size, &got), RQ_OK);
        check_eq(got.kind, ask->kind);
        check(got.append.type == ask->append.type && got.append.bytes == ask->append.bytes);
        check(got.append.bytes == 0 || memcmp(got.append.data, entry, sizeof entry) == 0);
        check(got.append.holders.bytes == ask->append.holders.bytes);
        check(got.append.holders.bytes == 0 || memcmp(got.append.holders.data, held, got.append.holders.bytes) == 0);
        check(same(got.name, ask->name) && got.instance == ask->instance);
        check(got.member.instance == ask->member.instance && got.member.votes == ask->member.votes);
        check(same(got.member.name, ask->member.name) && same(got.member.raft_addr, ask->member.raft_addr) &&
              same(got.member.http_addr, ask->member.http_addr));
        check(same(got.member.user, ask->member.user) && same(got.member.password, ask->member.password));
        check(got.turn.db_id == ask->turn.db_id && got.turn.serial == ask->turn.serial);
        check(got.held.bytes == ask->held.bytes);
        check(got.held.bytes == 0 || memcmp(got.held.data, held, got.held.bytes) == 0);
        check((got.member.key == NULL) == (ask->member.key == NULL));
        check(got.member.key == NULL || memcmp(got.member.key, key, sizeof key) == 0);
    }
    rq_bytes_fini(&b);
}

static void truncated_or_with_something_behind_it_is_refused(void)
{
    struct rq_bytes b;
    struct rq_ask got;
    rq_bytes_init(&b, 8192);
    for (unsigned i = 0; i < ASKS; i++) {
        put(&b, &asks[i]);
        for (size_t bytes = 0; bytes < b.size; bytes++) {
            check_eq(get_exact(b.data, bytes, &got), RQ_PROTOCOL);
        }
        check_eq(rq_bytes_put(&b, "\0", 1), RQ_OK);
        check_eq(get_exact(b.data, b.size, &got), RQ_PROTOCOL);
    }
    rq_bytes_fini(&b);
}

/* An array of that kind with one number, and nothing else. */
static enum rq_err get_numbers(uint64_t kind, uint64_t number)
{
    struct rq_bytes b;
    struct rq_mp_writer w;
    struct rq_ask got;
    rq_bytes_init(&b, 64);
    rq_mp_write_begin(&w, &b, 2);
    rq_mp_put_uint(&w, kind);
    rq_mp_put_uint(&w, number);
    enum rq_err err = get_exact(b.data, b.size, &got);
    rq_bytes_fini(&b);
    return err;
}

static void values_out_of_bounds_are_refused(void)
{
    static char words[RQ_TEXT_MAX + 1];
    struct rq_bytes b;
    struct rq_ask got;
    rq_bytes_init(&b, 8192);
    check_eq(get_numbers(RQ_ASK_REACH, 1), RQ_OK);
    check_eq(get_numbers(RQ_ASK_REACH, 0), RQ_PROTOCOL); /* no instance is 0 */
    check_eq(get_numbers(RQ_ASK_INDEX, 1), RQ_PROTOCOL); /* it has no second element */
    check_eq(get_numbers(0, 1), RQ_PROTOCOL);
    check_eq(get_numbers(200, 1), RQ_PROTOCOL); /* a kind that nobody knows */
    check_eq(get_numbers(UINT64_MAX, 1), RQ_PROTOCOL);

    put(&b, &asks[0]);
    b.data[2] = 0; /* an entry's type is not 0 */
    check_eq(rq_ask_get(b.data, b.size, &got), RQ_PROTOCOL);
    put(&b, &asks[1]);
    b.data[0] = 0x98; /* an array of one less */
    check_eq(rq_ask_get(b.data, b.size, &got), RQ_PROTOCOL);

    memset(words, 'w', sizeof words);
    struct rq_ask remove = { .kind = RQ_ASK_REMOVE, .name = { words, RQ_TEXT_MAX } };
    put(&b, &remove);
    check_eq(rq_ask_get(b.data, b.size, &got), RQ_OK);
    check_eq(got.name.bytes, RQ_TEXT_MAX);
    rq_bytes_fini(&b);
}

/* As JOIN, with a key that is one byte too short. */
static void key_of_another_length_is_refused(void)
{
    struct rq_bytes b;
    struct rq_mp_writer w;
    struct rq_ask got;
    rq_bytes_init(&b, 8192);
    rq_mp_write_begin(&w, &b, 9);
    rq_mp_put_uint(&w, RQ_ASK_JOIN);
    rq_mp_put_uint(&w, 1);
    for (unsigned i = 0; i < 3; i++) {
        rq_mp_put_text(&w, (struct rq_str)STR("n2:1"));
    }
    rq_mp_put_bool(&w, true);
    rq_mp_put_bin(&w, key, RQ_ASK_KEY_BYTES - 1);
    rq_mp_put_text(&w, (struct rq_str)STR(""));
    rq_mp_put_text(&w, (struct rq_str)STR(""));
    check_eq(w.err, RQ_OK);
    check_eq(get_exact(b.data, b.size, &got), RQ_PROTOCOL);
    rq_bytes_fini(&b);
}

static void answers_come_back(void)
{
    struct rq_bytes b;
    uint64_t term;
    struct rq_ask_joined got, joined = { .cluster = UINT64_MAX, .waiting = 2, .members = entry, .members_bytes = 2 };
    rq_bytes_init(&b, 8192);
    check_eq(rq_ask_put_appended(&b, UINT64_MAX), RQ_OK);
    check_eq(rq_ask_get_appended(b.data, b.size, &term), RQ_OK);
    check_eq(term, UINT64_MAX);
    check_eq(rq_ask_get_joined(b.data, b.size, &got), RQ_PROTOCOL);
    check_eq(rq_ask_get_appended(b.data, b.size - 1, &term), RQ_PROTOCOL);

    b.size = 0;
    check_eq(rq_ask_put_appended(&b, 0), RQ_OK); /* nothing is appended in term 0 */
    check_eq(rq_ask_get_appended(b.data, b.size, &term), RQ_PROTOCOL);

    b.size = 0;
    check_eq(rq_ask_put_index(&b, 1ull << 40), RQ_OK);
    check_eq(rq_ask_get_index(b.data, b.size, &term), RQ_OK);
    check(term == 1ull << 40);
    check_eq(rq_ask_get_index(b.data, b.size - 1, &term), RQ_PROTOCOL);
    check_eq(rq_bytes_put(&b, "\0", 1), RQ_OK);
    check_eq(rq_ask_get_index(b.data, b.size, &term), RQ_PROTOCOL);

    b.size = 0;
    struct rq_ask_has has = { 1ull << 40, 2, { 7, UINT32_MAX } }, has_back;
    check_eq(rq_ask_put_has(&b, &has), RQ_OK);
    check_eq(rq_ask_get_has(b.data, b.size, &has_back), RQ_OK);
    check(has_back.index == has.index && has_back.fenced_count == 2);
    check(has_back.fenced[0] == 7 && has_back.fenced[1] == UINT32_MAX);
    check_eq(rq_ask_get_has(b.data, b.size - 1, &has_back), RQ_PROTOCOL);
    check_eq(has_back.fenced_count, 0);
    has.fenced_count = RQ_ASK_FENCED_MAX;
    b.size = 0;
    check_eq(rq_ask_put_has(&b, &has), RQ_OK);
    check_eq(rq_ask_get_has(b.data, b.size, &has_back), RQ_OK);
    check_eq(has_back.fenced_count, RQ_ASK_FENCED_MAX);

    b.size = 0;
    check_eq(rq_ask_put_joined(&b, &joined), RQ_OK);
    check_eq(rq_ask_get_joined(b.data, b.size, &got), RQ_OK);
    check(got.cluster == UINT64_MAX && got.waiting == 2 && got.members_bytes == 2);
    check(memcmp(got.members, entry, 2) == 0);
    for (size_t bytes = 0; bytes < b.size; bytes++) {
        check_eq(rq_ask_get_joined(b.data, bytes, &got), RQ_PROTOCOL);
    }

    b.size = 0;
    check_eq(rq_ask_put_joined(&b, &(struct rq_ask_joined){ .waiting = 1 }), RQ_OK); /* no cluster, nobody in it */
    check_eq(rq_ask_get_joined(b.data, b.size, &got), RQ_OK);
    check(got.cluster == 0 && got.waiting == 1 && got.members_bytes == 0);
    rq_bytes_fini(&b);
}

static void about_comes_back(void)
{
    const struct rq_ask_about about = { STR("1.2"), STR("http://h:1"), true, 5, UINT64_MAX };
    struct rq_ask_about got;
    struct rq_bytes b;
    rq_bytes_init(&b, 8192);
    check_eq(rq_ask_put_about(&b, &about), RQ_OK);
    check_eq(rq_ask_get_about(b.data, b.size, &got), RQ_OK);
    check(same(got.version, about.version) && same(got.api_url, about.api_url));
    check(got.leads && got.term == 5 && got.committed == UINT64_MAX);
    for (size_t bytes = 0; bytes < b.size; bytes++) {
        check_eq(rq_ask_get_about(b.data, bytes, &got), RQ_PROTOCOL);
    }
    rq_bytes_fini(&b);
}

static void a_list_of_turns_is_whole(void)
{
    struct rq_bytes b;
    struct rq_ask got;
    struct rq_ask_held denied;
    rq_bytes_init(&b, 8192);
    for (uint32_t bytes = 0; bytes <= sizeof held; bytes++) {
        const enum rq_err wanted = bytes % RQ_ASK_HELD_BYTES == 0 ? RQ_OK : RQ_PROTOCOL;
        put(&b, &(struct rq_ask){ .kind = RQ_ASK_TURN_HELD, .held = { held, bytes } });
        check_eq(get_exact(b.data, b.size, &got), wanted);
        b.size = 0;
        check_eq(rq_ask_put_denied(&b, &(struct rq_ask_held){ held, bytes }), RQ_OK);
        check_eq(rq_ask_get_denied(b.data, b.size, &denied), wanted);
    }
    rq_bytes_fini(&b);
}

static void answers_about_turns_come_back(void)
{
    struct rq_bytes b;
    uint64_t serial, index;
    bool given;
    rq_bytes_init(&b, 8192);
    check_eq(rq_ask_put_granted(&b, UINT64_MAX, 9), RQ_OK);
    check_eq(rq_ask_get_granted(b.data, b.size, &serial, &index), RQ_OK);
    check(serial == UINT64_MAX && index == 9);
    check_eq(rq_ask_get_granted(b.data, b.size - 1, &serial, &index), RQ_PROTOCOL);
    check_eq(rq_ask_get_given(b.data, b.size, &given, &index), RQ_PROTOCOL);

    b.size = 0;
    check_eq(rq_ask_put_granted(&b, 0, 9), RQ_OK); /* no grant is the 0th */
    check_eq(rq_ask_get_granted(b.data, b.size, &serial, &index), RQ_PROTOCOL);

    b.size = 0;
    check_eq(rq_ask_put_given(&b, true, 1000), RQ_OK);
    check_eq(rq_ask_get_given(b.data, b.size, &given, &index), RQ_OK);
    check(given && index == 1000);
    check_eq(rq_ask_get_given(b.data, b.size - 1, &given, &index), RQ_PROTOCOL);
    rq_bytes_fini(&b);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(each_ask_comes_back),
        TAP(truncated_or_with_something_behind_it_is_refused),
        TAP(values_out_of_bounds_are_refused),
        TAP(key_of_another_length_is_refused),
        TAP(answers_come_back),
        TAP(about_comes_back),
        TAP(a_list_of_turns_is_whole),
        TAP(answers_about_turns_come_back),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
