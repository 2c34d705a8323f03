/* The disk of a host as one life of its raftd has it.  What a process keeps of files that are open it looks up by the disk (vfs/files.h,
 * vfs/control_share.h), and with another life it begins anew. */
#include <stdlib.h>

#include "tests/sim/fleet/fleet.h"

struct mount {
    struct rq_disk disk; /* first */
    struct rq_disk *under;
    struct rq_disk_ops ops;
};

static struct rq_disk *under(struct rq_disk *d)
{
    return ((struct mount *)d)->under;
}

static enum rq_err mount_open(struct rq_disk *d, const char *path, int flags, unsigned mode, struct rq_file **ret_file)
{
    return under(d)->ops->open(under(d), path, flags, mode, ret_file);
}

static enum rq_err mount_rename(struct rq_disk *d, const char *from, const char *to)
{
    return under(d)->ops->rename(under(d), from, to);
}

static enum rq_err mount_unlink(struct rq_disk *d, const char *path)
{
    return under(d)->ops->unlink(under(d), path);
}

static enum rq_err mount_mkdir(struct rq_disk *d, const char *path, unsigned mode)
{
    return under(d)->ops->mkdir(under(d), path, mode);
}

static enum rq_err mount_sync_dir(struct rq_disk *d, const char *path)
{
    return under(d)->ops->sync_dir(under(d), path);
}

static enum rq_err mount_stat(struct rq_disk *d, const char *path, struct rq_file_info *ret_info)
{
    return under(d)->ops->stat(under(d), path, ret_info);
}

static enum rq_err mount_list(struct rq_disk *d, const char *path, enum rq_err (*name_cb)(void *ctx, const char *name),
                              void *ctx)
{
    return under(d)->ops->list(under(d), path, name_cb, ctx);
}

static enum rq_err mount_space(struct rq_disk *d, const char *path, uint64_t *ret_free_bytes)
{
    return under(d)->ops->space(under(d), path, ret_free_bytes);
}

struct rq_disk *mount_new(struct record_disk *disk)
{
    struct mount *m = calloc(1, sizeof *m);
    m->under = &disk->disk;
    m->ops = *m->under->ops; /* calls on files stay as they are */
    m->ops.open = mount_open;
    m->ops.rename = mount_rename;
    m->ops.unlink = mount_unlink;
    m->ops.mkdir = mount_mkdir;
    m->ops.sync_dir = mount_sync_dir;
    m->ops.stat = mount_stat;
    m->ops.list = mount_list;
    m->ops.space = mount_space;
    m->disk.ops = &m->ops;
    return &m->disk;
}
