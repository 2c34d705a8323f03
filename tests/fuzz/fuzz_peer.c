/* A stream of frames between nodes, each given to its decoder.  What is taken can be encoded again, and is then taken again. */
#include "raftd/wire/peer.h"
#include "tests/fuzz/fuzz.h"

static void take_hello(const struct rq_frame *frame, const uint8_t *body, struct rq_bytes *again)
{
    struct rq_peer_hello m;
    if (rq_peer_get_hello(body, frame->body_bytes, &m) != RQ_OK) {
        return;
    }
    MUST(m.instance != 0 && m.epoch != 0 && (unsigned)m.kind < RQ_PEER_KINDS && m.version == RQ_PEER_VERSION);
    MUST(rq_peer_put_hello(again, (enum rq_peer_type)frame->type, &m) == RQ_OK);
    MUST(rq_peer_get_hello(again->data + RQ_FRAME_HEAD_BYTES, again->size - RQ_FRAME_HEAD_BYTES, &m) == RQ_OK);
}

static void take_failed(const struct rq_frame *frame, const uint8_t *body, struct rq_bytes *again)
{
    struct rq_peer_failed m;
    if (rq_peer_get_failed(body, frame->body_bytes, &m) != RQ_OK) {
        return;
    }
    MUST(m.err != RQ_OK && m.text.bytes <= RQ_TEXT_MAX);
    MUST(rq_peer_put_failed(again, frame->id, &m) == RQ_OK);
    MUST(rq_peer_get_failed(again->data + RQ_FRAME_HEAD_BYTES, again->size - RQ_FRAME_HEAD_BYTES, &m) == RQ_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rq_frame frame;
    while (bytes >= RQ_FRAME_HEAD_BYTES && rq_peer_frame_decode(data, &frame) == RQ_OK) {
        MUST(frame.body_bytes <= RQ_PEER_BODY_MAX);
        if (frame.body_bytes > bytes - RQ_FRAME_HEAD_BYTES) {
            break;
        }
        struct rq_bytes again;
        rq_bytes_init(&again, RQ_FRAME_HEAD_BYTES + RQ_PEER_HANDSHAKE_BODY_MAX);
        if (frame.type == RQ_PEER_HELLO || frame.type == RQ_PEER_WELCOME) {
            take_hello(&frame, data + RQ_FRAME_HEAD_BYTES, &again);
        } else if (frame.type == RQ_PEER_FAILED) {
            take_failed(&frame, data + RQ_FRAME_HEAD_BYTES, &again);
        }
        rq_bytes_fini(&again);
        data += RQ_FRAME_HEAD_BYTES + frame.body_bytes;
        bytes -= RQ_FRAME_HEAD_BYTES + frame.body_bytes;
    }
    return 0;
}
