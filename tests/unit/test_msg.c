/* msg: what is encoded is decoded; a body with a byte too few or too many, a field out of bounds or of another kind is refused;
 * no input is read past its end. */
#include "raftd/wire/msg.h"
#include "tests/support/exact.h"
#include "tests/support/seeded.h"
#include "tests/support/tap.h"

#define STR(text) { .data = (text), .bytes = sizeof(text) - 1 }

static bool str_equal(struct rq_str a, struct rq_str b)
{
    return a.bytes == b.bytes && memcmp(a.data, b.data, a.bytes) == 0;
}

static const struct rq_msg_hello hello = { .protocol = RQ_PROTOCOL_VERSION,
                                           .session = UINT64_MAX,
                                           .pid = 4242,
                                           .program = STR("python3"),
                                           .sqlite = STR("3.46.1") };
static const struct rq_msg_welcome welcome = { .protocol = RQ_PROTOCOL_VERSION,
                                               .frame_body_max = RQ_FRAME_BODY_MAX,
                                               .instance = 77,
                                               .node_id = STR("n1"),
                                               .version = STR("0.1.0") };
static const struct rq_msg_open open_message = { .name = STR("app.db"), .create = true };
static const struct rq_msg_opened opened = { .db_id = 5, .version = 1ull << 40, .page_size = 4096 };
static const struct rq_msg_outcome outcome = { .err = RQ_REFUSED, .version = 9, .text = STR("somebody was faster") };
static const struct rq_msg_ask ask = { .db_id = 5, .seq = 70000, .base = 8 };
static const struct rq_msg_status status = { .name = STR("app.db") };
static const struct rq_msg_look look = { .db_id = 5 };
static const struct rq_msg_state state = { .node_id = STR("n1"),
                                           .role = STR("Leader"),
                                           .leader = STR("n1"),
                                           .name = STR("app.db"),
                                           .db_id = 5,
                                           .version = 300,
                                           .applied_index = 1000,
                                           .commit_index = 100000,
                                           .checksum = UINT64_MAX - 1,
                                           .lag = 1,
                                           .state = STR("live"),
                                           .message = STR("") };
static const struct rq_msg_read read_message = { .db_id = 5, .max_age_ms = 1ull << 33, .wait_ms = 10000 };
static const struct rq_msg_ready ready = { .index = 1ull << 35, .left_ms = 450 };
static const struct rq_msg_failed failed = { .err = RQ_QUARANTINED, .text = STR("page 7") };

enum { PAGE_SIZE = 512, PAGES = 3, FRAME_MAX = RQ_FRAME_HEAD_BYTES + RQ_FRAME_BODY_MAX };

/* A COMMIT frame with its pages behind it. */
static struct rq_msg_commit commit_message = {
    .db_id = 5, .seq = 6, .base = 7, .page_size = PAGE_SIZE, .db_page_count = 9, .page_count = PAGES
};
static const uint32_t commit_pgnos[PAGES] = { 1, 4, 9 };

static void put_commit_frame(struct rq_bytes *out)
{
    uint8_t piece[4 + PAGE_SIZE];
    check_eq(rq_msg_put_commit(out, 1, RQ_MSG_COMMIT, &commit_message), RQ_OK);
    for (unsigned i = 0; i < PAGES; i++) {
        memset(piece, (int)(0x10 + i), sizeof piece);
        rq_put_u32(piece, commit_pgnos[i]);
        check_eq(rq_bytes_put(out, piece, sizeof piece), RQ_OK);
    }
}

/* Every message there is, by type, with a decoder that forgets what it decoded. */
#define DECODER(name)                                                   \
    static enum rq_err decode_##name(const uint8_t *body, size_t bytes) \
    {                                                                   \
        struct rq_msg_##name m;                                         \
        return rq_msg_get_##name(body, bytes, &m);                      \
    }
DECODER(hello)
DECODER(welcome)
DECODER(open)
DECODER(opened)
DECODER(commit)
DECODER(outcome)
DECODER(ask)
DECODER(status)
DECODER(state)
DECODER(failed)
DECODER(read)
DECODER(ready)
DECODER(look)
typedef enum rq_err (*decoder)(const uint8_t *body, size_t bytes);
static const decoder decoders[] = {
    decode_hello,  decode_welcome, decode_open,   decode_opened, decode_commit, decode_outcome, decode_ask,
    decode_status, decode_state,   decode_failed, decode_read,   decode_ready,  decode_look,
};
enum { KINDS = sizeof decoders / sizeof *decoders };

static void put_frame_of_kind(struct rq_bytes *out, unsigned kind)
{
    rq_bytes_init(out, FRAME_MAX);
    switch (kind) {
        case 0:
            check_eq(rq_msg_put_hello(out, 1, &hello), RQ_OK);
            break;
        case 1:
            check_eq(rq_msg_put_welcome(out, 1, &welcome), RQ_OK);
            break;
        case 2:
            check_eq(rq_msg_put_open(out, 1, &open_message), RQ_OK);
            break;
        case 3:
            check_eq(rq_msg_put_opened(out, 1, &opened), RQ_OK);
            break;
        case 4:
            put_commit_frame(out);
            break;
        case 5:
            check_eq(rq_msg_put_outcome(out, 1, &outcome), RQ_OK);
            break;
        case 6:
            check_eq(rq_msg_put_ask(out, 1, &ask), RQ_OK);
            break;
        case 7:
            check_eq(rq_msg_put_status(out, 1, &status), RQ_OK);
            break;
        case 8:
            check_eq(rq_msg_put_state(out, 1, &state), RQ_OK);
            break;
        case 9:
            check_eq(rq_msg_put_failed(out, 1, &failed), RQ_OK);
            break;
        case 10:
            check_eq(rq_msg_put_read(out, 1, &read_message), RQ_OK);
            break;
        case 11:
            check_eq(rq_msg_put_ready(out, 1, &ready), RQ_OK);
            break;
        case 12:
            check_eq(rq_msg_put_look(out, 1, &look), RQ_OK);
            break;
        default:
            check(false);
    }
}

/* Encodes into b, behind other bytes; checks the head; leaves body and bytes. */
#define ENCODE(name, TYPE, message)                                     \
    struct rq_bytes b;                                                  \
    struct rq_frame frame;                                              \
    rq_bytes_init(&b, FRAME_MAX);                                       \
    check_eq(rq_bytes_put(&b, "xyz", 3), RQ_OK);                        \
    check_eq(rq_msg_put_##name(&b, 0x1234567890ull, (message)), RQ_OK); \
    check_eq(rq_frame_decode(b.data + 3, &frame), RQ_OK);               \
    check_eq(frame.type, RQ_MSG_##TYPE);                                \
    check(frame.id == 0x1234567890ull);                                 \
    check_eq(frame.body_bytes, b.size - 3 - RQ_FRAME_HEAD_BYTES);       \
    struct rq_msg_##name m;                                             \
    check_eq(rq_msg_get_##name(b.data + 3 + RQ_FRAME_HEAD_BYTES, frame.body_bytes, &m), RQ_OK)

static void hello_comes_back(void)
{
    ENCODE(hello, HELLO, &hello);
    check(m.protocol == hello.protocol && m.session == hello.session && m.pid == hello.pid);
    check(str_equal(m.program, hello.program));
    check(str_equal(m.sqlite, hello.sqlite));
    rq_bytes_fini(&b);
}

static void welcome_comes_back(void)
{
    ENCODE(welcome, WELCOME, &welcome);
    check(m.protocol == 1 && m.frame_body_max == RQ_FRAME_BODY_MAX && m.instance == 77);
    check(str_equal(m.node_id, welcome.node_id));
    check(str_equal(m.version, welcome.version));
    rq_bytes_fini(&b);
}

static void open_comes_back(void)
{
    ENCODE(open, OPEN, &open_message);
    check(str_equal(m.name, open_message.name));
    check(m.create);
    rq_bytes_fini(&b);
}

static void opened_comes_back_also_without_a_page_size(void)
{
    ENCODE(opened, OPENED, &opened);
    check(m.db_id == 5 && m.version == 1ull << 40 && m.page_size == 4096);
    rq_bytes_fini(&b);
    rq_bytes_init(&b, FRAME_MAX);
    check_eq(rq_msg_put_opened(&b, 1, &(struct rq_msg_opened){ .db_id = 6 }), RQ_OK);
    check_eq(rq_msg_get_opened(b.data + RQ_FRAME_HEAD_BYTES, b.size - RQ_FRAME_HEAD_BYTES, &m), RQ_OK);
    check(m.db_id == 6 && m.version == 0 && m.page_size == 0);
    rq_bytes_fini(&b);
}

static void outcome_ask_status_failed_and_look_come_back(void)
{
    {
        ENCODE(outcome, OUTCOME, &outcome);
        check(m.err == RQ_REFUSED && m.version == 9 && str_equal(m.text, outcome.text));
        rq_bytes_fini(&b);
    }
    {
        ENCODE(ask, ASK, &ask);
        check(m.db_id == 5 && m.seq == 70000 && m.base == 8);
        rq_bytes_fini(&b);
    }
    {
        ENCODE(status, STATUS, &status);
        check(str_equal(m.name, status.name));
        rq_bytes_fini(&b);
    }
    {
        ENCODE(failed, FAILED, &failed);
        check(m.err == RQ_QUARANTINED && str_equal(m.text, failed.text));
        rq_bytes_fini(&b);
    }
    {
        ENCODE(look, LOOK, &look);
        check_eq(m.db_id, 5);
        rq_bytes_fini(&b);
    }
}

static void read_and_ready_come_back(void)
{
    {
        ENCODE(read, READ, &read_message);
        check(m.db_id == 5 && m.max_age_ms == 1ull << 33 && m.wait_ms == 10000);
        rq_bytes_fini(&b);
    }
    {
        ENCODE(ready, READY, &ready);
        check(m.index == 1ull << 35 && m.left_ms == 450);
        rq_bytes_fini(&b);
    }
}

static void state_comes_back(void)
{
    ENCODE(state, STATE, &state);
    check(str_equal(m.node_id, state.node_id) && str_equal(m.role, state.role) && str_equal(m.leader, state.leader));
    check(str_equal(m.name, state.name) && m.db_id == 5 && m.version == 300 && m.applied_index == 1000);
    check(m.commit_index == 100000 && m.checksum == UINT64_MAX - 1 && m.lag == 1);
    check(str_equal(m.state, state.state) && str_equal(m.message, state.message));
    rq_bytes_fini(&b);
}

static void commit_counts_its_pages_and_they_come_back(void)
{
    struct rq_bytes b;
    struct rq_frame frame;
    struct rq_msg_commit m;
    put_frame_of_kind(&b, 4);
    check_eq(rq_frame_decode(b.data, &frame), RQ_OK);
    check_eq(frame.type, RQ_MSG_COMMIT);
    check_eq(frame.body_bytes, b.size - RQ_FRAME_HEAD_BYTES);
    check_eq(rq_msg_get_commit(b.data + RQ_FRAME_HEAD_BYTES, frame.body_bytes, &m), RQ_OK);
    check(m.db_id == 5 && m.seq == 6 && m.base == 7 && m.page_size == PAGE_SIZE && m.db_page_count == 9);
    check_eq(m.page_count, PAGES);
    for (unsigned i = 0; i < PAGES; i++) {
        const uint8_t *piece = m.pages + (size_t)i * (4 + PAGE_SIZE);
        check_eq(rq_get_u32(piece), commit_pgnos[i]);
        check_eq(piece[4], 0x10 + i);
        check_eq(piece[4 + PAGE_SIZE - 1], 0x10 + i);
    }
    rq_bytes_fini(&b);
}

static void commit_refuses_wrong_page_numbers(void)
{
    const uint32_t wrong[][PAGES] = { { 0, 4, 9 }, { 4, 4, 9 }, { 5, 4, 9 }, { 1, 9, 9 }, { 1, 4, 10 } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct rq_bytes b;
        struct rq_msg_commit m;
        put_frame_of_kind(&b, 4);
        uint8_t *pages = b.data + b.size - (size_t)PAGES * (4 + PAGE_SIZE);
        for (unsigned n = 0; n < PAGES; n++) {
            rq_put_u32(pages + (size_t)n * (4 + PAGE_SIZE), wrong[i][n]);
        }
        check_eq(rq_msg_get_commit(b.data + RQ_FRAME_HEAD_BYTES, b.size - RQ_FRAME_HEAD_BYTES, &m), RQ_PROTOCOL);
        rq_bytes_fini(&b);
    }
}

/* [db_id, seq, base, page_size, db_page_count, page_count] with small numbers, one byte each, but for the page size. */
static enum rq_err decode_commit_fields(uint8_t seq, uint32_t page_size, uint8_t db_page_count, uint8_t page_count)
{
    uint8_t body[] = { 0x96, 5, seq, 7, 0xce, 0, 0, 0, 0, db_page_count, page_count };
    struct rq_msg_commit m;
    rq_put_u32(body + 5, page_size);
    return rq_msg_get_commit(body, sizeof body, &m);
}

static void commit_refuses_impossible_fields(void)
{
    check_eq(decode_commit_fields(1, 512, 1, 0), RQ_OK);
    check_eq(decode_commit_fields(1, 65536, 1, 0), RQ_OK);
    check_eq(decode_commit_fields(0, 512, 1, 0), RQ_PROTOCOL);
    check_eq(decode_commit_fields(1, 512, 0, 0), RQ_PROTOCOL);
    check_eq(decode_commit_fields(1, 512, 1, 1), RQ_PROTOCOL);
    const uint32_t sizes[] = { 0, 1, 256, 511, 513, 1000, 65535, 65537, 131072, UINT32_MAX };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_eq(decode_commit_fields(1, sizes[i], 1, 0), RQ_PROTOCOL);
    }
}

static void commit_fits_as_many_pages_as_its_header_says(void)
{
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
        struct rq_msg_commit m = { .db_id = UINT32_MAX,
                                   .seq = UINT64_MAX,
                                   .base = UINT64_MAX,
                                   .page_size = page_size,
                                   .db_page_count = UINT32_MAX,
                                   .page_count = RQ_COMMIT_PAGES_MAX(page_size) };
        struct rq_bytes b;
        rq_bytes_init(&b, FRAME_MAX);
        check_eq(rq_msg_put_commit(&b, 1, RQ_MSG_PAGES, &m), RQ_OK);
        check(b.size <= RQ_FRAME_HEAD_BYTES + RQ_COMMIT_ARRAY_BYTES_MAX);
        m.page_count++;
        size_t size = b.size;
        check_eq(rq_msg_put_commit(&b, 1, RQ_MSG_PAGES, &m), RQ_TOOBIG);
        check_eq(b.size, size);
        rq_bytes_fini(&b);
    }
}

static void encoders_refuse_what_decoders_would(void)
{
    struct rq_bytes b;
    static const char long_name[RQ_DB_NAME_MAX + 1] = "x";
    rq_bytes_init(&b, FRAME_MAX);
    struct rq_msg_hello h = hello;
    h.session = 0;
    check_eq(rq_msg_put_hello(&b, 1, &h), RQ_MISUSE);
    const struct rq_str names[] = { STR(""), STR("a\0b"), { .data = long_name, .bytes = sizeof long_name } };
    for (size_t i = 0; i < 3; i++) {
        check_eq(rq_msg_put_open(&b, 1, &(struct rq_msg_open){ .name = names[i] }), RQ_MISUSE);
        check_eq(rq_msg_put_status(&b, 1, &(struct rq_msg_status){ .name = names[i] }), RQ_MISUSE);
    }
    check_eq(rq_msg_put_opened(&b, 1, &(struct rq_msg_opened){ .page_size = 1000 }), RQ_MISUSE);
    check_eq(rq_msg_put_ask(&b, 1, &(struct rq_msg_ask){ .db_id = 1 }), RQ_MISUSE);
    struct rq_msg_commit c = commit_message;
    check_eq(rq_msg_put_commit(&b, 1, RQ_MSG_ASK, &c), RQ_MISUSE);
    c.page_size = 0;
    check_eq(rq_msg_put_commit(&b, 1, RQ_MSG_COMMIT, &c), RQ_MISUSE);
    c.page_size = 131072;
    check_eq(rq_msg_put_commit(&b, 1, RQ_MSG_COMMIT, &c), RQ_MISUSE);
    check_eq(b.size, 0);
    rq_bytes_fini(&b);
}

static void a_name_has_1_to_200_bytes(void)
{
    uint8_t body[4 + 255];
    struct rq_msg_status m;
    for (unsigned bytes = 0; bytes <= 255; bytes++) {
        body[0] = 0x91;
        body[1] = 0xd9;
        body[2] = (uint8_t)bytes;
        memset(body + 3, 'a', bytes);
        check_eq(rq_msg_get_status(body, 3 + bytes, &m), bytes >= 1 && bytes <= RQ_DB_NAME_MAX ? RQ_OK : RQ_PROTOCOL);
    }
}

static void long_text_is_shortened_at_a_character(void)
{
    char text[RQ_TEXT_MAX + 20];
    /* One byte, then two-byte characters: the limit falls in the middle of one. */
    memset(text, 'x', sizeof text);
    for (size_t i = 1; i + 1 < sizeof text; i += 2) {
        text[i] = '\xc3';
        text[i + 1] = '\xa9';
    }
    ENCODE(failed, FAILED, (&(struct rq_msg_failed){ .err = RQ_IO, .text = { .data = text, .bytes = sizeof text } }));
    check_eq(m.text.bytes, RQ_TEXT_MAX - 1);
    check_eq(memcmp(m.text.data, text, m.text.bytes), 0);
    rq_bytes_fini(&b);
}

static void another_protocol_is_told_apart_whatever_its_fields(void)
{
    const uint8_t short_hello[] = { 0x91, 2 };
    const uint8_t long_hello[] = { 0x97, 0xcc, 200, 1, 1, 1, 1, 1, 1 };
    struct rq_msg_hello h;
    struct rq_msg_welcome w;
    check_eq(rq_msg_get_hello(short_hello, sizeof short_hello, &h), RQ_VERSION);
    check_eq(rq_msg_get_hello(long_hello, sizeof long_hello, &h), RQ_VERSION);
    check_eq(rq_msg_get_welcome(short_hello, sizeof short_hello, &w), RQ_VERSION);
}

static void an_error_number_of_later_versions_is_kept(void)
{
    const uint8_t body[] = { 0x92, 0xcd, 0x12, 0x34, 0xa0 };
    struct rq_msg_failed m;
    check_eq(rq_msg_get_failed(body, sizeof body, &m), RQ_OK);
    check_eq(m.err, 0x1234);
    check(rq_err_text(m.err) != NULL);
}

static void fields_of_another_kind_are_refused(void)
{
    /* One element of each kind where ASK wants a number. */
    static const uint8_t kinds[][12] = {
        { 0xc0 },       { 0xc2 }, { 0xc3 },    { 0xa1, 'a' },        { 0xc4, 1, 'a' }, { 0x91, 1 },
        { 0x81, 1, 1 }, { 0xff }, { 0xd0, 5 }, { 0xca, 0, 0, 0, 0 }, { 0xd4, 1, 1 },
    };
    static const uint8_t bytes[] = { 1, 1, 1, 2, 3, 2, 3, 1, 2, 5, 3 };
    for (size_t i = 0; i < sizeof bytes; i++) {
        uint8_t body[32] = { 0x93, 1, 1 };
        struct rq_msg_ask m;
        memcpy(body + 3, kinds[i], bytes[i]);
        check_eq(rq_msg_get_ask(body, 3u + bytes[i], &m), RQ_PROTOCOL);
    }
    const uint8_t number_for_name[] = { 0x91, 1 }, number_for_bool[] = { 0x92, 0xa1, 'a', 1 };
    struct rq_msg_status s;
    struct rq_msg_open o;
    check_eq(rq_msg_get_status(number_for_name, sizeof number_for_name, &s), RQ_PROTOCOL);
    check_eq(rq_msg_get_open(number_for_bool, sizeof number_for_bool, &o), RQ_PROTOCOL);
    const uint8_t wide_db_id[] = { 0x93, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1 };
    struct rq_msg_ask a;
    check_eq(rq_msg_get_ask(wide_db_id, sizeof wide_db_id, &a), RQ_PROTOCOL);
}

static void every_truncation_and_any_byte_behind_is_refused(void)
{
    for (unsigned kind = 0; kind < KINDS; kind++) {
        struct rq_bytes b;
        put_frame_of_kind(&b, kind);
        const uint8_t *body = b.data + RQ_FRAME_HEAD_BYTES;
        size_t body_bytes = b.size - RQ_FRAME_HEAD_BYTES;
        check_eq(decoders[kind](body, body_bytes), RQ_OK);
        for (size_t bytes = 0; bytes < body_bytes; bytes++) {
            uint8_t *copy = exact_copy(body, bytes);
            enum rq_err err = decoders[kind](copy, bytes);
            free(copy);
            check_eq(err, RQ_PROTOCOL);
        }
        check_eq(rq_bytes_put(&b, "", 1), RQ_OK);
        check_eq(decoders[kind](b.data + RQ_FRAME_HEAD_BYTES, body_bytes + 1), RQ_PROTOCOL);
        rq_bytes_fini(&b);
    }
}

static void one_field_more_or_less_is_refused(void)
{
    for (unsigned kind = 0; kind < KINDS; kind++) {
        struct rq_bytes b;
        put_frame_of_kind(&b, kind);
        uint8_t *body = b.data + RQ_FRAME_HEAD_BYTES;
        size_t body_bytes = b.size - RQ_FRAME_HEAD_BYTES;
        body[0]--;
        check_eq(decoders[kind](body, body_bytes), RQ_PROTOCOL);
        body[0] = (uint8_t)(body[0] + 2);
        check_eq(rq_bytes_put(&b, "\x01", 1), RQ_OK);
        check_eq(decoders[kind](b.data + RQ_FRAME_HEAD_BYTES, body_bytes + 1), RQ_PROTOCOL);
        rq_bytes_fini(&b);
    }
}

static void random_mutations_are_harmless_to_every_decoder(void)
{
    uint64_t seed = 11;
    unsigned taken = 0;
    for (unsigned kind = 0; kind < KINDS; kind++) {
        struct rq_bytes b;
        put_frame_of_kind(&b, kind);
        const uint8_t *body = b.data + RQ_FRAME_HEAD_BYTES;
        uint32_t body_bytes = (uint32_t)(b.size - RQ_FRAME_HEAD_BYTES);
        for (unsigned round = 0; round < 20000; round++) {
            size_t bytes = body_bytes - (seeded_below(&seed, 4) == 0 ? seeded_below(&seed, body_bytes) : 0);
            uint8_t *copy = exact_copy(body, bytes);
            for (unsigned n = 1 + seeded_below(&seed, 3); n > 0; n--) {
                copy[seeded_below(&seed, (uint32_t)bytes)] = (uint8_t)seeded_next(&seed);
            }
            for (unsigned other = 0; other < KINDS; other++) {
                enum rq_err err = decoders[other](copy, bytes);
                taken += err == RQ_OK;
                if (err != RQ_OK && err != RQ_VERSION) {
                    check_eq(err, RQ_PROTOCOL);
                }
            }
            free(copy);
        }
        rq_bytes_fini(&b);
    }
    check(taken > 1000);
}

static void a_failed_decode_leaves_the_result_alone(void)
{
    const uint8_t body[] = { 0x93, 1, 2 };
    struct rq_msg_ask m = { .db_id = 123 };
    check_eq(rq_msg_get_ask(body, sizeof body, &m), RQ_PROTOCOL);
    check_eq(m.db_id, 123);
}

static void a_full_buffer_gets_no_half_frame(void)
{
    for (size_t size_max = 0; size_max < 60; size_max++) {
        struct rq_bytes b;
        rq_bytes_init(&b, size_max);
        enum rq_err err = rq_msg_put_outcome(&b, 1, &outcome);
        check(err == RQ_OK || (err == RQ_TOOBIG && b.size == 0));
        rq_bytes_fini(&b);
    }
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(hello_comes_back),
        TAP(welcome_comes_back),
        TAP(open_comes_back),
        TAP(opened_comes_back_also_without_a_page_size),
        TAP(outcome_ask_status_failed_and_look_come_back),
        TAP(read_and_ready_come_back),
        TAP(state_comes_back),
        TAP(commit_counts_its_pages_and_they_come_back),
        TAP(commit_refuses_wrong_page_numbers),
        TAP(commit_refuses_impossible_fields),
        TAP(commit_fits_as_many_pages_as_its_header_says),
        TAP(encoders_refuse_what_decoders_would),
        TAP(a_name_has_1_to_200_bytes),
        TAP(long_text_is_shortened_at_a_character),
        TAP(another_protocol_is_told_apart_whatever_its_fields),
        TAP(an_error_number_of_later_versions_is_kept),
        TAP(fields_of_another_kind_are_refused),
        TAP(every_truncation_and_any_byte_behind_is_refused),
        TAP(one_field_more_or_less_is_refused),
        TAP(random_mutations_are_harmless_to_every_decoder),
        TAP(a_failed_decode_leaves_the_result_alone),
        TAP(a_full_buffer_gets_no_half_frame),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
