#include "vfs/files.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/control_share.h"
#include "vfs/wal.h"

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct rq_files *list; /* under list_lock */

static struct rq_files_id id_of(const struct rq_file_info *info)
{
    return (struct rq_files_id){ .device = info->device, .inode = info->inode };
}

static enum rq_err beside(const char *path, const char *suffix, char **ret_path)
{
    const size_t bytes = strlen(path) + strlen(suffix) + 1;
    char *joined = malloc(bytes);
    if (joined == NULL) {
        return RQ_NOMEM;
    }
    (void)snprintf(joined, bytes, "%s%s", path, suffix);
    *ret_path = joined;
    return RQ_OK;
}

static enum rq_err open_beside(struct rq_disk *disk, const char *path, const char *suffix, int flags,
                               struct rq_file **ret_file)
{
    char *name;
    enum rq_err err = beside(path, suffix, &name);
    if (err == RQ_OK) {
        err = disk->ops->open(disk, name, flags | RQ_OPEN_NOFOLLOW, 0, ret_file);
        free(name);
    }
    return err;
}

/* One mapping of the whole of -shm as it is now: its offset is 0, which every page size of the kernel allows. */
static enum rq_err map_all(struct rq_files *f, uint32_t region_count_min, struct rq_files_map *older,
                           struct rq_files_map **ret_map)
{
    struct rq_file_info info;
    enum rq_err err = f->disk->ops->info(f->shm, &info);
    if (err != RQ_OK) {
        return err;
    }
    f->shm_is = id_of(&info);
    uint64_t count = info.size / RQ_WAL_INDEX_REGION;
    if (count < region_count_min || count == 0 || count > UINT32_MAX / RQ_WAL_INDEX_REGION) {
        return RQ_CORRUPT;
    }
    struct rq_files_map *map = malloc(sizeof *map + (size_t)count * sizeof map->regions[0]);
    if (map == NULL) {
        return RQ_NOMEM;
    }
    void *memory;
    err = f->disk->ops->map(f->shm, 0, (size_t)count * RQ_WAL_INDEX_REGION, &memory);
    if (err != RQ_OK) {
        free(map);
        return err;
    }
    map->older = older;
    map->region_count = (uint32_t)count;
    for (uint32_t i = 0; i < map->region_count; i++) {
        map->regions[i] = (uint8_t *)memory + (size_t)i * RQ_WAL_INDEX_REGION;
    }
    *ret_map = map;
    return RQ_OK;
}

static void close_handle(struct rq_disk *disk, struct rq_file **file)
{
    if (*file != NULL) {
        disk->ops->close(*file);
        *file = NULL;
    }
}

static void close_all(struct rq_files *f)
{
    struct rq_files_map *map = atomic_exchange(&f->map, NULL);
    while (map != NULL) {
        struct rq_files_map *older = map->older;
        f->disk->ops->unmap(f->shm, map->regions[0], (size_t)map->region_count * RQ_WAL_INDEX_REGION);
        free(map);
        map = older;
    }
    close_handle(f->disk, &f->wal);
    close_handle(f->disk, &f->shm);
    close_handle(f->disk, &f->db);
}

static void files_free(struct rq_files *f)
{
    close_all(f);
    free(f->path);
    free(f);
}

/* -wal and -shm, both or none.  BUSY also when -wal has content and -shm is not there: somebody is about to make it, or raftd
 * has to; the database file alone would be an old state. */
static enum rq_err open_wal(struct rq_files *f)
{
    struct rq_disk *disk = f->disk;
    struct rq_files_map *map = NULL;
    struct rq_file_info info = { 0 };
    enum rq_err err = open_beside(disk, f->path, "-wal", RQ_OPEN_READ, &f->wal);
    if (err == RQ_OK) {
        err = disk->ops->info(f->wal, &info);
    }
    if (err == RQ_OK) {
        f->wal_is = id_of(&info);
        err = open_beside(disk, f->path, "-shm", RQ_OPEN_WRITE, &f->shm);
    }
    if (err == RQ_OK) {
        err = disk->ops->lock(f->shm, RQ_SHM_DMS, 1, RQ_SHARED);
    }
    if (err == RQ_OK) {
        err = disk->ops->lock(f->shm, RQ_SHM_CKPT, 1, RQ_SHARED);
    }
    if (err == RQ_OK) {
        err = map_all(f, 1, NULL, &map);
    }
    if (err == RQ_OK) {
        atomic_store(&f->map, map);
        return RQ_OK;
    }
    if (err != RQ_NOTFOUND && err != RQ_CORRUPT) {
        return err;
    }
    close_handle(disk, &f->wal);
    close_handle(disk, &f->shm);
    return info.size == 0 ? RQ_OK : RQ_BUSY;
}

static enum rq_err files_new(struct rq_disk *disk, const char *path, uint32_t db_id, uint32_t epoch,
                             struct rq_files **ret_files)
{
    struct rq_files *f = calloc(1, sizeof *f);
    if (f == NULL) {
        return RQ_NOMEM;
    }
    f->disk = disk;
    f->db_id = db_id;
    f->epoch = epoch;
    f->ref_count = 1;
    enum rq_err err = beside(path, "", &f->path);
    if (err == RQ_OK) {
        err = disk->ops->open(disk, path, RQ_OPEN_READ | RQ_OPEN_NOFOLLOW, 0, &f->db);
    }
    if (err == RQ_OK) {
        err = disk->ops->lock(f->db, RQ_DB_SHARED, RQ_DB_SHARED_BYTES, RQ_SHARED);
    }
    struct rq_file_info info;
    if (err == RQ_OK) {
        err = disk->ops->info(f->db, &info);
    }
    if (err == RQ_OK) {
        f->db_is = id_of(&info);
        err = open_wal(f); /* after SHARED: from here on nobody deletes them */
    }
    if (err != RQ_OK) {
        files_free(f);
        return err;
    }
    *ret_files = f;
    return RQ_OK;
}

/* --- parked sets -------------------------------------------------------------------------------------------------------- */

/* Unlocking cannot fail. */
static void unlock_all(struct rq_files *f)
{
    const struct rq_disk_ops *ops = f->disk->ops;
    (void)ops->lock(f->db, RQ_DB_SHARED, RQ_DB_SHARED_BYTES, RQ_UNLOCKED);
    if (f->shm != NULL) {
        (void)ops->lock(f->shm, RQ_SHM_DMS, 1, RQ_UNLOCKED);
        (void)ops->lock(f->shm, RQ_SHM_CKPT, 1, RQ_UNLOCKED);
    }
}

static bool named_so(const struct rq_files *f, const char *suffix, struct rq_files_id is, uint64_t bytes_min)
{
    char *name;
    struct rq_file_info info;
    if (beside(f->path, suffix, &name) != RQ_OK) {
        return false;
    }
    bool same = f->disk->ops->stat(f->disk, name, &info) == RQ_OK && info.inode == is.inode &&
                info.device == is.device && info.size >= bytes_min;
    free(name);
    return same;
}

/* Takes up a parked set.  The locks come first: from then on nobody deletes or empties what the names mean.
 * NOTFOUND: they mean other files by now. */
static enum rq_err take_up(struct rq_files *f)
{
    const struct rq_disk_ops *ops = f->disk->ops;
    enum rq_err err = ops->lock(f->db, RQ_DB_SHARED, RQ_DB_SHARED_BYTES, RQ_SHARED);
    if (err == RQ_OK) {
        err = ops->lock(f->shm, RQ_SHM_DMS, 1, RQ_SHARED);
    }
    if (err == RQ_OK) {
        err = ops->lock(f->shm, RQ_SHM_CKPT, 1, RQ_SHARED);
    }
    if (err == RQ_OK) {
        const uint64_t mapped = (uint64_t)atomic_load(&f->map)->region_count * RQ_WAL_INDEX_REGION;
        if (!named_so(f, "", f->db_is, 0) || !named_so(f, "-wal", f->wal_is, 0) ||
            !named_so(f, "-shm", f->shm_is, mapped)) {
            f->stale = true;
            err = RQ_NOTFOUND;
        }
    }
    if (err == RQ_OK) {
        f->ref_count = 1;
    } else {
        unlock_all(f);
    }
    return err;
}

static void list_remove(struct rq_files *f)
{
    struct rq_files **at = &list;
    while (*at != f) {
        at = &(*at)->next;
    }
    *at = f->next;
}

static void list_add(struct rq_files *f)
{
    f->next = list;
    list = f;
}

/* Closes the parked sets of databases that lost their name (they may be deleted, and their space is to be free), and those that
 * are too many. */
static void drop_parked(void)
{
    uint32_t parked = 0;
    for (struct rq_files **at = &list; *at != NULL;) {
        struct rq_files *f = *at;
        if (f->ref_count == 0 && (!named_so(f, "", f->db_is, 0) || ++parked > RQ_PARKED_MAX)) {
            *at = f->next;
            files_free(f);
        } else {
            at = &f->next;
        }
    }
}

static void park(struct rq_files *f)
{
    list_remove(f);
    if (f->db == NULL) { /* inherited through fork */
        files_free(f);
        return;
    }
    unlock_all(f);
    f->stale = f->stale || f->shm == NULL; /* whether that is still so is found out by opening it anew */
    list_add(f);
    drop_parked();
}

/* --- calls -------------------------------------------------------------------------------------------------------------- */

/* A reference to the set that is there already; NOTFOUND: there is none. */
static enum rq_err get_known(struct rq_disk *disk, const char *path, uint32_t db_id, uint32_t epoch,
                             struct rq_files **ret_files)
{
    for (struct rq_files *f = list; f != NULL; f = f->next) {
        if (f->disk != disk || f->db_id != db_id || f->epoch != epoch || strcmp(f->path, path) != 0 || f->stale ||
            rq_files_grown(f)) {
            continue;
        }
        enum rq_err err = RQ_OK;
        if (f->ref_count > 0) {
            f->ref_count++;
        } else {
            err = take_up(f);
        }
        if (err != RQ_NOTFOUND) {
            *ret_files = f;
            return err;
        }
    }
    return RQ_NOTFOUND;
}

enum rq_err rq_files_get(struct rq_disk *disk, const char *path, uint32_t db_id, uint32_t epoch,
                         struct rq_files **ret_files)
{
    struct rq_files *f;
    pthread_mutex_lock(&list_lock);
    enum rq_err err = get_known(disk, path, db_id, epoch, &f);
    if (err == RQ_NOTFOUND) {
        drop_parked();
        err = files_new(disk, path, db_id, epoch, &f);
        if (err == RQ_OK) {
            list_add(f);
        }
    }
    pthread_mutex_unlock(&list_lock);
    if (err == RQ_OK) {
        *ret_files = f;
    }
    return err;
}

void rq_files_put(struct rq_files *f)
{
    if (f == NULL) {
        return;
    }
    pthread_mutex_lock(&list_lock);
    if (--f->ref_count == 0) {
        park(f);
    }
    pthread_mutex_unlock(&list_lock);
}

bool rq_files_grown(const struct rq_files *f)
{
    if (f->shm != NULL) {
        return false;
    }
    char *name;
    struct rq_file_info info;
    if (beside(f->path, "-shm", &name) != RQ_OK) {
        return true;
    }
    const enum rq_err err = f->disk->ops->stat(f->disk, name, &info);
    free(name);
    return err == RQ_OK ? info.size >= RQ_WAL_INDEX_REGION : err != RQ_NOTFOUND;
}

enum rq_err rq_files_map(struct rq_files *f, uint32_t region_count, const struct rq_files_map **ret_map)
{
    struct rq_files_map *map = atomic_load_explicit(&f->map, memory_order_acquire);
    if (region_count > map->region_count) {
        enum rq_err err = RQ_OK;
        pthread_mutex_lock(&list_lock);
        map = atomic_load(&f->map);
        if (region_count > map->region_count) {
            err = map_all(f, region_count, map, &map);
            if (err == RQ_OK) {
                atomic_store(&f->map, map);
            }
        }
        pthread_mutex_unlock(&list_lock);
        if (err != RQ_OK) {
            return err;
        }
    }
    *ret_map = map;
    return RQ_OK;
}

void rq_files_fork_lock(void)
{
    pthread_mutex_lock(&list_lock);
}

void rq_files_fork_unlock(void)
{
    pthread_mutex_unlock(&list_lock);
}

void rq_files_fork_orphan(void)
{
    for (struct rq_files **at = &list; *at != NULL;) {
        struct rq_files *f = *at;
        close_all(f);
        f->stale = true; /* inherited connections only free it */
        if (f->ref_count == 0) {
            *at = f->next;
            files_free(f);
        } else {
            at = &f->next;
        }
    }
}
