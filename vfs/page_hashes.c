#include "vfs/page_hashes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/txn.h"

/* Offsets in the header, which lies in one sector. */
enum {
    H_MAGIC = 0,
    H_FORMAT = 8,
    H_PAGE_SIZE = 12,
    H_DB_ID = 16,
    H_SUSPECT = 20,
    H_VERSION = 24,
    H_BOOT = 32,
    H_CHECK = 56, /* of bytes 0 to 55 */
    H_BYTES = 64,
};
#define FORMAT       1u
#define HASH_BYTES   8u
#define PER_TRANSFER 512u /* entries per read or write */

static const char MAGIC[8] = "RQHASHES";

struct rq_page_hashes {
    struct rq_disk *disk; /* borrows */
    char *path;           /* owns, as dir_path */
    char *dir_path;
    uint32_t db_id, page_size;
    bool dir_synced; /* background only: the file's name is durable */

    pthread_mutex_t lock;
    struct rq_file *file; /* owns; NULL: there is none.  Guarded by lock, as what follows */
    uint64_t version;
    uint64_t boot;
    uint32_t suspect;
};

static uint64_t entry_offset(uint32_t pgno)
{
    return H_BYTES + (uint64_t)(pgno - 1) * HASH_BYTES;
}

/* --- header -------------------------------------------------------------------------------------------------------------- */

/* With the lock, as header_read. */
static enum rq_err header_write(struct rq_page_hashes *h, struct rq_file *file)
{
    uint8_t bytes[H_BYTES] = { 0 };
    memcpy(bytes + H_MAGIC, MAGIC, sizeof MAGIC);
    rq_put_u32(bytes + H_FORMAT, FORMAT);
    rq_put_u32(bytes + H_PAGE_SIZE, h->page_size);
    rq_put_u32(bytes + H_DB_ID, h->db_id);
    rq_put_u32(bytes + H_SUSPECT, h->suspect);
    rq_put_u64(bytes + H_VERSION, h->version);
    rq_put_u64(bytes + H_BOOT, h->boot);
    rq_put_u64(bytes + H_CHECK, rq_page_hash(bytes, H_CHECK));
    return h->disk->ops->write(file, bytes, sizeof bytes, 0);
}

/* ret_wrong: why the file is not to be used, else NULL. */
static enum rq_err header_read(struct rq_page_hashes *h, const char **ret_wrong)
{
    uint8_t bytes[H_BYTES];
    size_t got;
    enum rq_err err = h->disk->ops->read(h->file, bytes, sizeof bytes, 0, &got);
    *ret_wrong = NULL;
    if (err != RQ_OK) {
        return err;
    }
    if (got != sizeof bytes || memcmp(bytes + H_MAGIC, MAGIC, sizeof MAGIC) != 0 ||
        rq_get_u64(bytes + H_CHECK) != rq_page_hash(bytes, H_CHECK)) {
        *ret_wrong = "damaged";
    } else if (rq_get_u32(bytes + H_FORMAT) != FORMAT) {
        *ret_wrong = "of another format";
    } else if (rq_get_u32(bytes + H_DB_ID) != h->db_id || rq_get_u32(bytes + H_PAGE_SIZE) != h->page_size) {
        *ret_wrong = "of another database";
    } else {
        h->version = rq_get_u64(bytes + H_VERSION);
        h->boot = rq_get_u64(bytes + H_BOOT);
        h->suspect = rq_get_u32(bytes + H_SUSPECT);
    }
    return RQ_OK;
}

/* --- life ---------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_page_hashes_open(struct rq_disk *disk, const char *path, uint32_t db_id, uint32_t page_size,
                                struct rq_page_hashes **ret_hashes, const char **ret_removed)
{
    const char *slash = strrchr(path, '/');
    struct rq_page_hashes *h = calloc(1, sizeof *h);
    *ret_removed = NULL;
    if (h == NULL) {
        return RQ_NOMEM;
    }
    h->disk = disk;
    h->db_id = db_id;
    h->page_size = page_size;
    pthread_mutex_init(&h->lock, NULL);
    h->path = strdup(path);
    h->dir_path = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path));
    enum rq_err err = h->path == NULL || h->dir_path == NULL
                          ? RQ_NOMEM
                          : disk->ops->open(disk, path, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &h->file);
    if (err == RQ_OK) {
        err = header_read(h, ret_removed);
    } else if (err == RQ_NOTFOUND) {
        err = RQ_OK;
    }
    if (err == RQ_OK && *ret_removed != NULL) {
        err = rq_page_hashes_forget(h);
    }
    if (err != RQ_OK) {
        rq_page_hashes_close(h);
        return err;
    }
    *ret_hashes = h;
    return RQ_OK;
}

void rq_page_hashes_close(struct rq_page_hashes *h)
{
    if (h == NULL) {
        return;
    }
    if (h->file != NULL) {
        h->disk->ops->close(h->file);
    }
    pthread_mutex_destroy(&h->lock);
    free(h->path);
    free(h->dir_path);
    free(h);
}

enum rq_err rq_page_hashes_forget(struct rq_page_hashes *h)
{
    enum rq_err err = h->disk->ops->unlink(h->disk, h->path);
    if (err == RQ_OK || err == RQ_NOTFOUND) { /* durable: an old file that came back would be believed */
        err = h->disk->ops->sync_dir(h->disk, h->dir_path) == RQ_OK ? RQ_OK : RQ_IO;
    }
    pthread_mutex_lock(&h->lock);
    if (h->file != NULL) {
        h->disk->ops->close(h->file);
        h->file = NULL;
    }
    h->version = 0;
    h->suspect = 0;
    pthread_mutex_unlock(&h->lock);
    return err;
}

/* --- entries ------------------------------------------------------------------------------------------------------------- */

static struct rq_file *file_of(struct rq_page_hashes *h)
{
    pthread_mutex_lock(&h->lock);
    struct rq_file *file = h->file;
    pthread_mutex_unlock(&h->lock);
    return file;
}

bool rq_page_hashes_version(struct rq_page_hashes *h, uint64_t *ret_version, uint64_t *ret_boot)
{
    pthread_mutex_lock(&h->lock);
    const bool there = h->file != NULL;
    *ret_version = h->version;
    *ret_boot = h->boot;
    pthread_mutex_unlock(&h->lock);
    return there;
}

enum rq_err rq_page_hashes_set_boot(struct rq_page_hashes *h, uint64_t boot)
{
    pthread_mutex_lock(&h->lock);
    const bool writes = h->file != NULL && h->boot != boot;
    h->boot = boot;
    enum rq_err err = writes ? header_write(h, h->file) : RQ_OK;
    pthread_mutex_unlock(&h->lock);
    return err;
}

enum rq_err rq_page_hashes_get(struct rq_page_hashes *h, uint32_t pgno, uint32_t count, uint64_t *ret_hashes)
{
    struct rq_file *file = file_of(h);
    uint8_t bytes[PER_TRANSFER * HASH_BYTES];
    while (count > 0) {
        const uint32_t n = count < PER_TRANSFER ? count : PER_TRANSFER;
        size_t got = 0;
        enum rq_err err =
            file == NULL ? RQ_OK : h->disk->ops->read(file, bytes, (size_t)n * HASH_BYTES, entry_offset(pgno), &got);
        if (err != RQ_OK) {
            return err;
        }
        for (uint32_t i = 0; i < n; i++) { /* past the end, nothing is known */
            ret_hashes[i] = ((size_t)i + 1) * HASH_BYTES <= got ? rq_get_u64(bytes + (size_t)i * HASH_BYTES) : 0;
        }
        pgno += n;
        ret_hashes += n;
        count -= n;
    }
    return RQ_OK;
}

enum rq_err rq_page_hashes_make(struct rq_page_hashes *h, uint64_t version)
{
    struct rq_file *file;
    if (file_of(h) != NULL) {
        return RQ_OK;
    }
    enum rq_err err =
        h->disk->ops->open(h->disk, h->path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_NOFOLLOW, 0600, &file);
    if (err != RQ_OK) {
        return err;
    }
    pthread_mutex_lock(&h->lock);
    h->version = version;
    err = h->disk->ops->truncate(file, 0); /* what a make that failed had begun */
    if (err == RQ_OK) {
        err = header_write(h, file);
    }
    if (err == RQ_OK) {
        h->file = file;
    } else {
        h->disk->ops->close(file);
    }
    pthread_mutex_unlock(&h->lock);
    return err;
}

enum rq_err rq_page_hashes_put(struct rq_page_hashes *h, uint32_t pgno, uint32_t count, const uint64_t *hashes)
{
    struct rq_file *file = file_of(h);
    uint8_t bytes[PER_TRANSFER * HASH_BYTES];
    while (count > 0) {
        const uint32_t n = count < PER_TRANSFER ? count : PER_TRANSFER;
        for (uint32_t i = 0; i < n; i++) {
            rq_put_u64(bytes + (size_t)i * HASH_BYTES, hashes[i]);
        }
        enum rq_err err = h->disk->ops->write(file, bytes, (size_t)n * HASH_BYTES, entry_offset(pgno));
        if (err != RQ_OK) {
            return err;
        }
        pgno += n;
        hashes += n;
        count -= n;
    }
    return RQ_OK;
}

enum rq_err rq_page_hashes_seal(struct rq_page_hashes *h, uint64_t version, uint32_t page_count)
{
    struct rq_file *file = file_of(h);
    struct rq_file_info info;
    pthread_mutex_lock(&h->lock);
    h->version = version;
    enum rq_err err = header_write(h, file);
    pthread_mutex_unlock(&h->lock);
    if (err == RQ_OK) {
        err = h->disk->ops->info(file, &info);
    }
    if (err == RQ_OK && info.size > entry_offset(page_count + 1)) {
        err = h->disk->ops->truncate(file, entry_offset(page_count + 1));
    }
    if (err == RQ_OK && h->disk->ops->sync(file) != RQ_OK) {
        err = RQ_IO;
    }
    if (err == RQ_OK && !h->dir_synced) {
        err = h->disk->ops->sync_dir(h->disk, h->dir_path) == RQ_OK ? RQ_OK : RQ_IO;
        h->dir_synced = err == RQ_OK;
    }
    return err;
}

uint32_t rq_page_hashes_suspect(struct rq_page_hashes *h)
{
    pthread_mutex_lock(&h->lock);
    const uint32_t pgno = h->suspect;
    pthread_mutex_unlock(&h->lock);
    return pgno;
}

void rq_page_hashes_set_suspect(struct rq_page_hashes *h, uint32_t pgno)
{
    pthread_mutex_lock(&h->lock);
    h->suspect = pgno;
    if (h->file != NULL) {
        (void)header_write(h, h->file); /* else a scrub finds it again */
    }
    pthread_mutex_unlock(&h->lock);
}
