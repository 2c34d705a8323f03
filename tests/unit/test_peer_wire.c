/* peer_wire: what is encoded between nodes is decoded; truncations, other fields and values out of bounds are refused; no input is
 * read past its end. */
#include "raftd/wire/peer.h"
#include "tests/support/exact.h"
#include "tests/support/seeded.h"
#include "tests/support/tap.h"

#define STR(text) { .data = (text), .bytes = sizeof(text) - 1 }

static const uint8_t key[RQ_NODE_KEY_BYTES] = { 1, 2, 3 };
static const uint8_t signature[RQ_NODE_SIGNATURE_BYTES] = { 4, 5, 6 };
static const struct rq_peer_hello hello = { .version = RQ_PEER_VERSION,
                                            .cluster = UINT64_MAX,
                                            .instance = 7,
                                            .epoch = 1ull << 63,
                                            .to = 8,
                                            .kind = RQ_PEER_JOIN,
                                            .node_name = STR("n1"),
                                            .address = STR("host:4002"),
                                            .key = key,
                                            .signature = signature };

static void put(struct rq_bytes *b, const struct rq_peer_hello *m)
{
    rq_bytes_init(b, 8192);
    check_eq(rq_peer_put_hello(b, RQ_PEER_HELLO, m), RQ_OK);
}

static void hello_comes_back(void)
{
    struct rq_bytes b;
    struct rq_frame frame;
    struct rq_peer_hello m;
    put(&b, &hello);
    check_eq(rq_peer_frame_decode(b.data, &frame), RQ_OK);
    check(frame.type == RQ_PEER_HELLO && frame.id == 0 && frame.body_bytes == b.size - RQ_FRAME_HEAD_BYTES);
    check_eq(rq_peer_get_hello(b.data + RQ_FRAME_HEAD_BYTES, frame.body_bytes, &m), RQ_OK);
    check(m.cluster == UINT64_MAX && m.instance == 7 && m.epoch == 1ull << 63 && m.to == 8 && m.kind == RQ_PEER_JOIN);
    check(m.node_name.bytes == 2 && memcmp(m.node_name.data, "n1", 2) == 0);
    check(m.address.bytes == 9 && memcmp(m.address.data, "host:4002", 9) == 0);
    check(memcmp(m.key, key, sizeof key) == 0 && memcmp(m.signature, signature, sizeof signature) == 0);
    rq_bytes_fini(&b);
}

static void failed_comes_back_and_long_words_are_shortened(void)
{
    static char words[RQ_TEXT_MAX + 500];
    struct rq_bytes b;
    struct rq_peer_failed m;
    memset(words, 'w', sizeof words);
    rq_bytes_init(&b, 8192);
    check_eq(rq_peer_put_failed(&b, 9, &(struct rq_peer_failed){ RQ_FOREIGN, { words, sizeof words } }), RQ_OK);
    check_eq(rq_peer_get_failed(b.data + RQ_FRAME_HEAD_BYTES, b.size - RQ_FRAME_HEAD_BYTES, &m), RQ_OK);
    check(m.err == RQ_FOREIGN && m.text.bytes == RQ_TEXT_MAX);
    check_eq(rq_peer_put_failed(&b, 9, &(struct rq_peer_failed){ RQ_OK, STR("") }), RQ_MISUSE);
    rq_bytes_fini(&b);
}

static void another_version_is_told_apart_whatever_follows(void)
{
    struct rq_bytes b;
    struct rq_peer_hello m = hello;
    m.version = RQ_PEER_VERSION + 1;
    put(&b, &m);
    check_eq(rq_peer_get_hello(b.data + RQ_FRAME_HEAD_BYTES, b.size - RQ_FRAME_HEAD_BYTES, &m), RQ_VERSION);
    static const uint8_t short_one[] = { 0x93, 0xcf, 0x72, 0x71, 0x2d, 0x70, 0x65, 0x65, 0x72, 0x73, 2, 0xc1 };
    check_eq(rq_peer_get_hello(short_one, sizeof short_one, &m), RQ_PROTOCOL); /* no message at all */
    static const uint8_t other[] = { 0x93, 0xcf, 0x72, 0x71, 0x2d, 0x70, 0x65, 0x65, 0x72, 0x73, 2, 0xa0 };
    check_eq(rq_peer_get_hello(other, sizeof other, &m), RQ_VERSION);
    rq_bytes_fini(&b);
}

static void every_truncation_and_any_byte_behind_is_refused(void)
{
    struct rq_bytes b;
    struct rq_peer_hello m;
    put(&b, &hello);
    size_t bytes = b.size - RQ_FRAME_HEAD_BYTES;
    for (size_t n = 0; n <= bytes + 1; n++) {
        uint8_t *copy = exact_copy(b.data + RQ_FRAME_HEAD_BYTES, n < bytes ? n : bytes);
        if (n == bytes + 1) {
            free(copy);
            copy = calloc(n, 1);
            memcpy(copy, b.data + RQ_FRAME_HEAD_BYTES, bytes);
        }
        enum rq_err err = rq_peer_get_hello(copy, n, &m);
        check(n == bytes ? err == RQ_OK : err == RQ_PROTOCOL);
        free(copy);
    }
    rq_bytes_fini(&b);
}

static void encoders_refuse_what_decoders_would(void)
{
    static char name[RQ_PEER_NAME_MAX + 1];
    struct rq_bytes b;
    struct rq_peer_hello m = hello;
    rq_bytes_init(&b, 8192);
    m.instance = 0;
    check_eq(rq_peer_put_hello(&b, RQ_PEER_HELLO, &m), RQ_MISUSE);
    m = hello;
    m.epoch = 0;
    check_eq(rq_peer_put_hello(&b, RQ_PEER_HELLO, &m), RQ_MISUSE);
    m = hello;
    memset(name, 'n', sizeof name);
    m.node_name = (struct rq_str){ name, sizeof name };
    check_eq(rq_peer_put_hello(&b, RQ_PEER_HELLO, &m), RQ_MISUSE);
    m.node_name = (struct rq_str)STR("n\0n");
    check_eq(rq_peer_put_hello(&b, RQ_PEER_HELLO, &m), RQ_MISUSE);
    check_eq(b.size, 0);
    rq_bytes_fini(&b);
}

static void frame_heads_are_checked(void)
{
    uint8_t head[RQ_FRAME_HEAD_BYTES] = { 0 };
    struct rq_frame frame;
    check_eq(rq_peer_frame_decode(head, &frame), RQ_PROTOCOL); /* type 0 */
    head[5] = RQ_PEER_END + 1;
    check_eq(rq_peer_frame_decode(head, &frame), RQ_PROTOCOL);
    head[5] = RQ_PEER_END;
    check_eq(rq_peer_frame_decode(head, &frame), RQ_OK);
    rq_put_u32(head, RQ_PEER_BODY_MAX);
    check_eq(rq_peer_frame_decode(head, &frame), RQ_OK);
    rq_put_u32(head, RQ_PEER_BODY_MAX + 1);
    check_eq(rq_peer_frame_decode(head, &frame), RQ_TOOBIG);
    rq_put_u32(head, 1);
    head[7] = 1; /* a flag */
    check_eq(rq_peer_frame_decode(head, &frame), RQ_PROTOCOL);
}

static void random_mutations_are_harmless(void)
{
    struct rq_bytes b;
    uint64_t seed = 5;
    put(&b, &hello);
    size_t bytes = b.size - RQ_FRAME_HEAD_BYTES;
    for (int i = 0; i < 20000; i++) {
        uint8_t *copy = exact_copy(b.data + RQ_FRAME_HEAD_BYTES, bytes);
        for (uint32_t n = 1 + seeded_below(&seed, 3); n > 0; n--) {
            copy[seeded_below(&seed, (uint32_t)bytes)] = (uint8_t)seeded_next(&seed);
        }
        struct rq_peer_hello m = { .kind = RQ_PEER_BULK, .instance = 1 };
        struct rq_peer_failed f;
        (void)rq_peer_get_hello(copy, bytes, &m);
        (void)rq_peer_get_failed(copy, bytes, &f);
        check((unsigned)m.kind < RQ_PEER_KINDS && m.instance != 0);
        free(copy);
    }
    rq_bytes_fini(&b);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(hello_comes_back),
        TAP(failed_comes_back_and_long_words_are_shortened),
        TAP(another_version_is_told_apart_whatever_follows),
        TAP(every_truncation_and_any_byte_behind_is_refused),
        TAP(encoders_refuse_what_decoders_would),
        TAP(frame_heads_are_checked),
        TAP(random_mutations_are_harmless),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
