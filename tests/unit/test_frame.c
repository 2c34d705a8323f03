/* frame: what is encoded is decoded, and a head that announces too much is refused before anything is allocated for it. */
#include "raftd/wire/bytes.h"
#include "raftd/wire/frame.h"
#include "tests/support/tap.h"

static void head_has_the_documented_bytes(void)
{
    const struct rq_frame frame = { .body_bytes = 0x00010203, .type = 0x0405, .id = 0x060708090a0b0c0dull };
    const uint8_t expected[RQ_FRAME_HEAD_BYTES] = { 0, 1, 2, 3, 4, 5, 0, 0, 6, 7, 8, 9, 10, 11, 12, 13 };
    uint8_t head[RQ_FRAME_HEAD_BYTES];
    rq_frame_encode(&frame, head);
    check_eq(memcmp(head, expected, sizeof head), 0);
}

static void decode_returns_what_was_encoded(void)
{
    const struct rq_frame frame = { .body_bytes = RQ_FRAME_BODY_MAX, .type = 0xffff, .id = UINT64_MAX };
    uint8_t head[RQ_FRAME_HEAD_BYTES];
    struct rq_frame again;
    rq_frame_encode(&frame, head);
    check_eq(rq_frame_decode(head, &again), RQ_OK);
    check_eq(again.body_bytes, frame.body_bytes);
    check_eq(again.type, frame.type);
    check(again.id == frame.id);
}

static void decode_refuses_length_past_max(void)
{
    uint8_t head[RQ_FRAME_HEAD_BYTES] = { 0 };
    struct rq_frame frame = { .id = 77 };
    rq_put_u32(head, RQ_FRAME_BODY_MAX + 1);
    check_eq(rq_frame_decode(head, &frame), RQ_TOOBIG);
    rq_put_u32(head, UINT32_MAX);
    check_eq(rq_frame_decode(head, &frame), RQ_TOOBIG);
    check_eq(frame.id, 77);
}

static void decode_refuses_flags(void)
{
    for (unsigned bit = 0; bit < 16; bit++) {
        uint8_t head[RQ_FRAME_HEAD_BYTES] = { 0 };
        struct rq_frame frame;
        rq_put_u16(head + 6, (uint16_t)(1u << bit));
        check_eq(rq_frame_decode(head, &frame), RQ_PROTOCOL);
    }
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(head_has_the_documented_bytes),
        TAP(decode_returns_what_was_encoded),
        TAP(decode_refuses_length_past_max),
        TAP(decode_refuses_flags),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
