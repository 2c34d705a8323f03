/* Which file each replica is, by inode and device: raft/files, so that a start finds out what was put in a replica's place. */
#include "raftd/db/catalog_impl.h"
#include "raftd/ops/journal.h"

/* With the lock held.  Written when a replica is made: rare.  A crash before it leaves the file unknown, which costs a check. */
static void write_files(struct rq_catalog *c)
{
    enum rq_err err = rq_known_files_write(c->config.disk, c->config.raft_dir, &c->files);
    if (err == RQ_IO) {
        rq_fatal("raft/files could not be written", err);
    }
    if (err != RQ_OK) {
        rq_note(RQ_LEVEL_WARN, "raft/files could not be written", "err=%s", rq_err_name(err));
    }
}

enum rq_err rq_catalog_read_files(struct rq_catalog *c)
{
    enum rq_err err = rq_known_files_read(c->config.disk, c->config.raft_dir, &c->files);
    if (err == RQ_CORRUPT) {
        rq_note(RQ_LEVEL_WARN, "raft/files is damaged: whether replicas were replaced meanwhile cannot be told",
                "err=%s", rq_err_name(err));
    }
    return err == RQ_NOTFOUND || err == RQ_CORRUPT ? RQ_OK : err;
}

bool rq_catalog_knows_file(struct rq_catalog *c, uint32_t id, uint64_t inode, uint64_t device)
{
    pthread_mutex_lock(&c->lock);
    const struct rq_known_file *f = rq_known_files_find(&c->files, id);
    const bool known = f != NULL && f->inode == inode && f->device == device;
    pthread_mutex_unlock(&c->lock);
    return known;
}

void rq_catalog_file_made(void *ctx, uint32_t id, uint64_t inode, uint64_t device)
{
    struct rq_catalog *c = ctx;
    pthread_mutex_lock(&c->lock);
    struct rq_known_file *f = rq_known_files_find(&c->files, id);
    if (f == NULL || f->inode != inode || f->device != device) {
        /* Its name is durable first: one that a dead predecessor left may not be, and were it lost then, the file would seem to
         * have been removed by somebody. */
        enum rq_err err = c->config.disk->ops->sync_dir(c->config.disk, c->config.dir);
        if (err != RQ_OK) {
            rq_fatal("the data directory could not be synced", err);
        }
        if (f == NULL) {
            err = rq_known_files_add(&c->files, (struct rq_known_file){ id, inode, device });
            if (err != RQ_OK) {
                rq_fatal("no memory for the catalog", err);
            }
        } else {
            f->inode = inode;
            f->device = device;
        }
        write_files(c);
    }
    pthread_mutex_unlock(&c->lock);
}

void rq_catalog_forget_file(struct rq_catalog *c, uint32_t id)
{
    pthread_mutex_lock(&c->lock);
    struct rq_known_file *f = rq_known_files_find(&c->files, id);
    if (f != NULL) {
        rq_known_files_remove(&c->files, f);
        write_files(c);
    }
    pthread_mutex_unlock(&c->lock);
}
