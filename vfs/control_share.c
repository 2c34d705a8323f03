#include "vfs/control_share.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct share {
    struct rq_control control; /* first: what connections hold */
    struct share *next;        /* most recently used first */
    uint32_t ref_count;        /* 0: parked */
    struct rq_disk *disk;      /* borrows, for ever */
    uint64_t inode, device;
    size_t db_path_bytes;
    char path[]; /* of the page: that of the database and a suffix */
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct share *list; /* under list_lock, and so are slots and claimed of each page */

static struct share *share_of(struct rq_control *c)
{
    return (struct share *)c;
}

static void unlink_share(struct share *p)
{
    struct share **at = &list;
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
}

static void to_front(struct share *p)
{
    p->next = list;
    list = p;
}

static void share_free(struct share *p)
{
    rq_control_close(&p->control);
    free(p);
}

/* Parked ones that are no use any more, or too many. */
static void drop_parked(void)
{
    uint32_t parked = 0;
    for (struct share **at = &list; *at != NULL;) {
        struct share *p = *at;
        if (p->ref_count == 0 && (atomic_load(&p->control.head->gone) != 0 || ++parked > RQ_PARKED_MAX)) {
            *at = p->next;
            share_free(p);
        } else {
            at = &p->next;
        }
    }
}

enum rq_err rq_control_share_named(const struct rq_control *c)
{
    const struct share *p = (const struct share *)c;
    struct rq_file_info named;
    enum rq_err err = p->disk->ops->stat(p->disk, p->path, &named);
    return err != RQ_OK || (named.inode == p->inode && named.device == p->device) ? err : RQ_FOREIGN;
}

static struct share *find(struct rq_disk *disk, const char *db_path, uint64_t boot)
{
    const size_t bytes = strlen(db_path);
    struct rq_file_info named;
    struct share *p = list;
    while (p != NULL && !(p->disk == disk && p->db_path_bytes == bytes && memcmp(p->path, db_path, bytes) == 0 &&
                          rq_control_usable(&p->control, boot) && atomic_load(&p->control.head->ready) != 0)) {
        p = p->next;
    }
    /* Of one name at most one page is usable, unless somebody took files away behind raftd's back: then the newest is first. */
    if (p == NULL || disk->ops->stat(disk, p->path, &named) != RQ_OK || named.inode != p->inode ||
        named.device != p->device || named.size < RQ_CONTROL_BYTES) {
        return NULL;
    }
    unlink_share(p);
    to_front(p);
    p->ref_count++;
    return p;
}

struct rq_control *rq_control_share_find(struct rq_disk *disk, const char *db_path, uint64_t boot)
{
    pthread_mutex_lock(&list_lock);
    struct share *p = find(disk, db_path, boot);
    pthread_mutex_unlock(&list_lock);
    return p == NULL ? NULL : &p->control;
}

static enum rq_err share_new(struct rq_disk *disk, const char *db_path, uint64_t boot, struct share **ret_share)
{
    const size_t bytes = strlen(db_path);
    struct share *p = calloc(1, sizeof *p + bytes + sizeof "-rqctl");
    if (p == NULL) {
        return RQ_NOMEM;
    }
    memcpy(p->path, db_path, bytes);
    memcpy(p->path + bytes, "-rqctl", sizeof "-rqctl");
    p->disk = disk;
    p->db_path_bytes = bytes;
    p->ref_count = 1;
    struct rq_file_info info;
    enum rq_err err = rq_control_open(disk, p->path, boot, &p->control);
    if (err == RQ_OK) {
        err = disk->ops->info(p->control.file, &info);
    }
    if (err == RQ_OK && atomic_load(&p->control.head->ready) == 0) {
        err = RQ_UNREADY;
    }
    if (err != RQ_OK) {
        share_free(p);
        return err;
    }
    p->inode = info.inode;
    p->device = info.device;
    to_front(p);
    *ret_share = p;
    return RQ_OK;
}

enum rq_err rq_control_share_get(struct rq_disk *disk, const char *db_path, uint64_t boot,
                                 struct rq_control **ret_control)
{
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&list_lock);
    struct share *p = find(disk, db_path, boot);
    if (p == NULL) {
        err = share_new(disk, db_path, boot, &p);
    }
    pthread_mutex_unlock(&list_lock);
    if (err == RQ_OK) {
        *ret_control = &p->control;
    }
    return err;
}

void rq_control_share_put(struct rq_control *c)
{
    if (c == NULL) {
        return;
    }
    struct share *p = share_of(c);
    pthread_mutex_lock(&list_lock);
    if (--p->ref_count == 0) {
        drop_parked();
    }
    pthread_mutex_unlock(&list_lock);
}

enum rq_err rq_control_share_claim(struct rq_control *c, uint64_t session, uint32_t *ret_slot)
{
    pthread_mutex_lock(&list_lock);
    enum rq_err err = rq_slot_claim(c, session, ret_slot);
    pthread_mutex_unlock(&list_lock);
    return err;
}

void rq_control_share_release(struct rq_control *c, uint32_t slot)
{
    pthread_mutex_lock(&list_lock);
    rq_slot_release(c, slot);
    pthread_mutex_unlock(&list_lock);
}

void rq_control_share_fork_lock(void)
{
    pthread_mutex_lock(&list_lock);
}

void rq_control_share_fork_unlock(void)
{
    pthread_mutex_unlock(&list_lock);
}

void rq_control_share_fork_orphan(void)
{
    while (list != NULL) {
        struct share *p = list;
        list = p->next;
        rq_control_orphan(&p->control);
        free(p);
    }
}
