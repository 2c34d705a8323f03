#include "raftd/wire/frame.h"

#include "raftd/wire/bytes.h"

enum { BODY_BYTES_AT = 0, TYPE_AT = 4, FLAGS_AT = 6, ID_AT = 8 };
_Static_assert(ID_AT + 8 == RQ_FRAME_HEAD_BYTES, "docs/protocol.md");

void rq_frame_encode(const struct rq_frame *frame, uint8_t head[RQ_FRAME_HEAD_BYTES])
{
    rq_put_u32(head + BODY_BYTES_AT, frame->body_bytes);
    rq_put_u16(head + TYPE_AT, frame->type);
    rq_put_u16(head + FLAGS_AT, 0);
    rq_put_u64(head + ID_AT, frame->id);
}

enum rq_err rq_frame_decode(const uint8_t head[RQ_FRAME_HEAD_BYTES], struct rq_frame *ret_frame)
{
    uint32_t body_bytes = rq_get_u32(head + BODY_BYTES_AT);
    if (body_bytes > RQ_FRAME_BODY_MAX) {
        return RQ_TOOBIG;
    }
    if (rq_get_u16(head + FLAGS_AT) != 0) {
        return RQ_PROTOCOL;
    }
    *ret_frame = (struct rq_frame){
        .body_bytes = body_bytes,
        .type = rq_get_u16(head + TYPE_AT),
        .id = rq_get_u64(head + ID_AT),
    };
    return RQ_OK;
}
