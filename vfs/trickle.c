#include "vfs/trickle.h"

enum rq_err rq_trickle_write(struct rq_trickle *t, struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    const struct rq_disk_ops *ops = f->disk->ops;
    enum rq_err err = ops->write(f, data, bytes, offset);
    if (err != RQ_OK) {
        return err;
    }
    const uint64_t end = offset + bytes;
    t->from = t->waiting == 0 || offset < t->from ? offset : t->from;
    t->upto = t->waiting == 0 || end > t->upto ? end : t->upto;
    t->waiting += bytes;
    t->unsynced += bytes;
    if (t->waiting >= RQ_TRICKLE_BEGIN_BYTES) {
        t->waiting = 0;
        ops->begin_sync(f, t->from, t->upto - t->from);
    }
    if (t->unsynced >= RQ_TRICKLE_SYNC_BYTES) {
        *t = (struct rq_trickle){ 0 };
        err = ops->sync(f) == RQ_OK ? RQ_OK : RQ_IO;
    }
    return err;
}
