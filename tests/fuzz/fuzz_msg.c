/* A stream of frames, each given to its decoder.  What is taken can be encoded again, and is then taken again. */
#include "raftd/wire/msg.h"
#include "tests/fuzz/fuzz.h"

#define AGAIN(name)                                                                                                   \
    {                                                                                                                 \
        struct rq_msg_##name m;                                                                                       \
        if (rq_msg_get_##name(body, frame->body_bytes, &m) == RQ_OK) {                                                \
            MUST(rq_msg_put_##name(&again, frame->id, &m) == RQ_OK);                                                  \
            MUST(rq_msg_get_##name(again.data + RQ_FRAME_HEAD_BYTES, again.size - RQ_FRAME_HEAD_BYTES, &m) == RQ_OK); \
        }                                                                                                             \
        break;                                                                                                        \
    }

static void take_commit(const struct rq_frame *frame, const uint8_t *body, struct rq_bytes *again)
{
    struct rq_msg_commit m;
    if (rq_msg_get_commit(body, frame->body_bytes, &m) != RQ_OK) {
        return;
    }
    size_t pages_bytes = (size_t)m.page_count * (4 + (size_t)m.page_size);
    MUST(m.pages + pages_bytes == body + frame->body_bytes);
    MUST(rq_msg_put_commit(again, frame->id, (enum rq_msg_type)frame->type, &m) == RQ_OK);
    MUST(rq_bytes_put(again, m.pages, pages_bytes) == RQ_OK);
    MUST(rq_msg_get_commit(again->data + RQ_FRAME_HEAD_BYTES, again->size - RQ_FRAME_HEAD_BYTES, &m) == RQ_OK);
}

static void take(const struct rq_frame *frame, const uint8_t *body)
{
    struct rq_bytes again;
    rq_bytes_init(&again, RQ_FRAME_HEAD_BYTES + RQ_FRAME_BODY_MAX);
    switch (frame->type) {
        case RQ_MSG_HELLO:
            AGAIN(hello)
        case RQ_MSG_WELCOME:
            AGAIN(welcome)
        case RQ_MSG_OPEN:
            AGAIN(open)
        case RQ_MSG_OPENED:
            AGAIN(opened)
        case RQ_MSG_PAGES:
        case RQ_MSG_COMMIT:
            take_commit(frame, body, &again);
            break;
        case RQ_MSG_OUTCOME:
            AGAIN(outcome)
        case RQ_MSG_ASK:
            AGAIN(ask)
        case RQ_MSG_STATUS:
            AGAIN(status)
        case RQ_MSG_STATE:
            AGAIN(state)
        case RQ_MSG_FAILED:
            AGAIN(failed)
        case RQ_MSG_READ:
            AGAIN(read)
        case RQ_MSG_READY:
            AGAIN(ready)
        case RQ_MSG_LOOK:
            AGAIN(look)
        default:
            break;
    }
    rq_bytes_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rq_frame frame;
    size_t object_bytes;
    if (rq_mp_check(data, bytes, &object_bytes) == RQ_OK) {
        MUST(object_bytes >= 1 && object_bytes <= bytes);
    }
    while (bytes >= RQ_FRAME_HEAD_BYTES && rq_frame_decode(data, &frame) == RQ_OK) {
        MUST(frame.body_bytes <= RQ_FRAME_BODY_MAX);
        if (frame.body_bytes > bytes - RQ_FRAME_HEAD_BYTES) {
            break;
        }
        take(&frame, data + RQ_FRAME_HEAD_BYTES);
        data += RQ_FRAME_HEAD_BYTES + frame.body_bytes;
        bytes -= RQ_FRAME_HEAD_BYTES + frame.body_bytes;
    }
    return 0;
}
