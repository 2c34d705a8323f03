#include "tests/support/raftd_door.h"

#include <stdlib.h>

#include "raftd/wire/msg.h"

#define NODE_ID "1"

struct rq_line {
    unsigned refs;
    struct raftd_door *door;
    void *user;
    bool broken; /* by raftd */
};

void rq_line_unref(struct rq_line *line)
{
    if (--line->refs == 0) {
        free(line);
    }
}

void rq_line_break(struct rq_line *line)
{
    line->broken = true;
}

void rq_line_resume(struct rq_line *line)
{
    (void)line;
    abort(); /* one line alone never waits */
}

void rq_line_send(struct rq_line *line, const void *data, size_t bytes)
{
    struct rq_frame frame;
    if (line->broken || bytes < RQ_FRAME_HEAD_BYTES || rq_frame_decode(data, &frame) != RQ_OK) {
        return;
    }
    line->door->heard(line->door->ctx, &frame, (const uint8_t *)data + RQ_FRAME_HEAD_BYTES);
}

bool raftd_door_open(const struct raftd_door *d)
{
    return d->line != NULL && !d->line->broken;
}

void raftd_door_close(struct raftd_door *d)
{
    if (d->line != NULL) {
        d->line->broken = true;
        d->ops.closed(d->line->user);
        rq_line_unref(d->line);
        d->line = NULL;
    }
}

void raftd_door_gone(struct raftd_door *d)
{
    if (d->line != NULL) {
        d->line->broken = true;
        d->line = NULL;
    }
}

bool raftd_door_send(struct raftd_door *d, const struct rq_bytes *frame)
{
    struct rq_frame f;
    if (!raftd_door_open(d) || rq_frame_decode(frame->data, &f) != RQ_OK ||
        frame->size != RQ_FRAME_HEAD_BYTES + f.body_bytes) {
        return false;
    }
    enum rq_line_next next = d->ops.frame(d->line->user, &f, frame->data + RQ_FRAME_HEAD_BYTES);
    if (next == RQ_LINE_ENDS || d->line->broken) {
        raftd_door_close(d);
        return false;
    }
    return true;
}

bool raftd_door_connect(struct raftd_door *d, struct rig *rig, uint64_t session)
{
    d->host = (struct rq_session_host){
        .catalog = rig->catalog,
        .driver = rig->driver,
        .disk = rig->disk,
        .staged_dir = RIG_STAGED_DIR,
        .instance = 11,
        .node_id = NODE_ID,
        .version = "0",
    };
    rq_session_ops(&d->host, &d->ops);
    struct rq_line *line = calloc(1, sizeof *line);
    if (line == NULL) {
        abort();
    }
    *line = (struct rq_line){ .refs = 1, .door = d };
    line->user = d->ops.opened(d->ops.ctx, line);
    if (line->user == NULL) {
        free(line);
        return false;
    }
    line->refs++;
    d->line = line;
    struct rq_bytes hello;
    rq_bytes_init(&hello, 4096);
    const struct rq_msg_hello m = { .protocol = RQ_PROTOCOL_VERSION, .session = session, .pid = 1 };
    bool welcome = rq_msg_put_hello(&hello, 1, &m) == RQ_OK && raftd_door_send(d, &hello);
    rq_bytes_fini(&hello);
    if (!welcome) {
        raftd_door_close(d);
    }
    return welcome;
}
