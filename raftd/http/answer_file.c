#include "raftd/http/answer_file.h"

#include <errno.h>
#include <unistd.h>

#include "raftd/http/scratch.h"

#define PIECE_BYTES (64u << 10) /* of what is indented at once, by which it may become ten times as much */

void rq_answer_file_init(struct rq_answer_file *f, struct rq_answer_room *room)
{
    *f = (struct rq_answer_file){ .room = room, .fd = -1 };
}

void rq_answer_file_fini(struct rq_answer_file *f)
{
    if (f->fd >= 0) {
        close(f->fd);
    }
    if (f->end.bytes > 0) {
        atomic_fetch_sub(&f->room->disk, f->end.bytes);
    }
    rq_answer_file_init(f, f->room);
}

static enum rq_err write_all(int fd, const uint8_t *data, size_t bytes, uint64_t at)
{
    while (bytes > 0) {
        const ssize_t n = pwrite(fd, data, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n == 0 || errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? RQ_FULL : RQ_IO;
        }
        data += n;
        bytes -= (size_t)n;
        at += (uint64_t)n;
    }
    return RQ_OK;
}

static enum rq_err put_as_it_is(struct rq_answer_file *f, const void *data, size_t bytes)
{
    if (f->fd < 0) {
        f->fd = rq_scratch_open(f->room->dir);
    }
    if (f->fd < 0) {
        return errno == ENOSPC || errno == EDQUOT ? RQ_FULL : RQ_IO;
    }
    const uint64_t all = atomic_fetch_add(&f->room->disk, bytes) + bytes;
    enum rq_err err = all <= rq_scratch_room(f->room->dir) ? write_all(f->fd, data, bytes, f->end.bytes) : RQ_FULL;
    if (err == RQ_OK) {
        f->end.bytes += bytes;
    } else {
        atomic_fetch_sub(&f->room->disk, bytes);
    }
    return err;
}

static enum rq_err put_indented(struct rq_answer_file *f, const uint8_t *data, size_t bytes)
{
    struct rq_bytes pretty;
    enum rq_err err = RQ_OK;
    rq_bytes_init(&pretty, SIZE_MAX);
    for (size_t done = 0, n; done < bytes && err == RQ_OK; done += n) {
        n = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        pretty.size = 0;
        err = rq_go_indent(&f->end.indent, &pretty, data + done, n);
        err = err == RQ_OK ? put_as_it_is(f, pretty.data, pretty.size) : err;
    }
    rq_bytes_fini(&pretty);
    return err;
}

void rq_answer_file_cut(struct rq_answer_file *f, const struct rq_answer_mark *mark)
{
    if (f->fd >= 0) {
        const int cut = ftruncate(f->fd, (off_t)mark->bytes);
        (void)cut; /* else it is written over, and what is left of it is not sent */
    }
    atomic_fetch_sub(&f->room->disk, f->end.bytes - mark->bytes);
    f->end = *mark;
}

enum rq_err rq_answer_file_put(struct rq_answer_file *f, const void *data, size_t bytes)
{
    const struct rq_answer_mark before = f->end;
    enum rq_err err = bytes == 0 ? RQ_OK : f->pretty ? put_indented(f, data, bytes) : put_as_it_is(f, data, bytes);
    if (err != RQ_OK) {
        rq_answer_file_cut(f, &before);
    }
    return err;
}

int rq_answer_file_give(struct rq_answer_file *f)
{
    const int fd = f->fd;
    f->fd = -1;
    return fd;
}
