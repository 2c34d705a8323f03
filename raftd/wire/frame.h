/* Frame: how messages are cut out of a byte stream, on the local socket and between peers.
 *
 *   0  u32  body bytes, at most RQ_FRAME_BODY_MAX
 *   4  u16  type (enum rq_msg_type)
 *   6  u16  flags: 0
 *   8  u64  id: chosen by who asks, repeated in the answer
 *  16  ...  body: one msgpack array (raftd/wire/msg.h), for PAGES followed by raw page bytes
 */
#ifndef RAFTD_WIRE_FRAME_H
#define RAFTD_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"

#define RQ_FRAME_HEAD_BYTES 16u
#define RQ_FRAME_BODY_MAX   1048576u /* larger transactions travel in several frames */

struct rq_frame {
    uint32_t body_bytes;
    uint16_t type;
    uint64_t id;
};

void rq_frame_encode(const struct rq_frame *frame, uint8_t head[RQ_FRAME_HEAD_BYTES]);

/* TOOBIG when the body exceeds the maximum, PROTOCOL when flags are not 0. */
enum rq_err rq_frame_decode(const uint8_t head[RQ_FRAME_HEAD_BYTES], struct rq_frame *ret_frame);

#endif
