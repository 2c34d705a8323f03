#include "vfs/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define RESERVE_BLOCK_BYTES 4096u

struct kernel_file {
    struct rq_file file; /* first: the handle that callers hold */
    int fd;
    atomic_bool direct; /* O_DIRECT is set; cleared at the first access that the file system refuses to do that way */
};

static struct kernel_file *kernel_file(struct rq_file *f)
{
    return (struct kernel_file *)f;
}

static enum rq_err err_from_errno(int number)
{
    switch (number) {
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
            return RQ_FULL;
        case ENOENT:
        case ENOTDIR:
            return RQ_NOTFOUND;
        case EACCES:
        case EPERM:
        case EROFS:
        case ELOOP:
            return RQ_PERM;
        case EEXIST:
            return RQ_EXISTS;
        case EAGAIN:
            return RQ_BUSY;
        case ENOMEM:
            return RQ_NOMEM;
        default:
            return RQ_IO;
    }
}

static int open_retried(const char *path, int flags, unsigned mode)
{
    int fd;
    do {
        fd = open(path, flags, (mode_t)mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* We are a guest: in a process without stdin, stdout or stderr their numbers are free, and a stray printf would go into the
 * database.  A handle never has one of these numbers. */
static int above_stdio(int fd)
{
    if (fd > STDERR_FILENO) {
        return fd;
    }
    int high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int saved = errno;
    close(fd);
    errno = saved;
    return high;
}

static enum rq_err kernel_open(struct rq_disk *d, const char *path, int flags, unsigned mode, struct rq_file **ret_file)
{
    struct kernel_file *k = calloc(1, sizeof *k);
    if (k == NULL) {
        return RQ_NOMEM;
    }
    /* O_NONBLOCK means nothing to a regular file; without it a FIFO that lies in the directory would hold us for ever. */
    int how = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    how |= (flags & RQ_OPEN_WRITE) != 0 ? O_RDWR : O_RDONLY;
    how |= (flags & RQ_OPEN_CREATE) != 0 ? O_CREAT : 0;
    how |= (flags & RQ_OPEN_EXCLUSIVE) != 0 ? O_EXCL : 0;
    how |= (flags & RQ_OPEN_DSYNC) != 0 ? O_DSYNC : 0;
    how |= (flags & RQ_OPEN_NOFOLLOW) != 0 ? O_NOFOLLOW : 0;

    bool direct = (flags & RQ_OPEN_DSYNC) != 0;
    int fd = open_retried(path, how | (direct ? O_DIRECT : 0), mode);
    if (fd < 0 && direct && errno == EINVAL) {
        /* Refused after the file was made: with O_EXCL it would now exist. */
        direct = false;
        fd = open_retried(path, how & ~O_EXCL, mode);
    }
    if (fd >= 0) {
        fd = above_stdio(fd);
    }
    if (fd < 0) {
        enum rq_err err = err_from_errno(errno);
        free(k);
        return err;
    }
    k->file.disk = d;
    k->fd = fd;
    atomic_init(&k->direct, direct);
    *ret_file = &k->file;
    return RQ_OK;
}

static void kernel_close(struct rq_file *f)
{
    close(kernel_file(f)->fd); /* also when it says EINTR the number is free again */
    free(kernel_file(f));
}

/* After a failed access: true if it may be tried again, because it was interrupted, or because the file system refuses O_DIRECT
 * (some only at the first access; all of them for a buffer or size that is not aligned). */
static bool may_try_again(struct kernel_file *k)
{
    if (errno == EINTR) {
        return true;
    }
    if (errno != EINVAL || !atomic_exchange(&k->direct, false)) {
        return false;
    }
    int how = fcntl(k->fd, F_GETFL);
    return how >= 0 && fcntl(k->fd, F_SETFL, how & ~O_DIRECT) == 0;
}

static enum rq_err kernel_read(struct rq_file *f, void *data, size_t bytes, uint64_t offset, size_t *ret_bytes)
{
    struct kernel_file *k = kernel_file(f);
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(k->fd, (char *)data + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && may_try_again(k)) {
            continue;
        }
        if (n < 0) {
            return err_from_errno(errno);
        }
        if (n == 0) {
            break;
        }
        done += (size_t)n;
    }
    *ret_bytes = done;
    return RQ_OK;
}

static enum rq_err kernel_write(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    struct kernel_file *k = kernel_file(f);
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pwrite(k->fd, (const char *)data + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && may_try_again(k)) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? err_from_errno(errno) : RQ_IO;
        }
        done += (size_t)n;
    }
    return RQ_OK;
}

static enum rq_err kernel_writev(struct rq_file *f, struct iovec *parts, int part_count, uint64_t offset)
{
    struct kernel_file *k = kernel_file(f);
    while (part_count > 0) {
        if (parts->iov_len == 0) {
            parts++;
            part_count--;
            continue;
        }
        ssize_t n = pwritev(k->fd, parts, part_count < IOV_MAX ? part_count : IOV_MAX, (off_t)offset);
        if (n < 0 && may_try_again(k)) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? err_from_errno(errno) : RQ_IO;
        }
        offset += (size_t)n;
        size_t left = (size_t)n;
        while (part_count > 0 && left >= parts->iov_len) {
            left -= parts->iov_len;
            parts++;
            part_count--;
        }
        if (left > 0) {
            parts->iov_base = (char *)parts->iov_base + left;
            parts->iov_len -= left;
        }
    }
    return RQ_OK;
}

static enum rq_err kernel_sync(struct rq_file *f)
{
    int r;
    do {
        r = fdatasync(kernel_file(f)->fd);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? err_from_errno(errno) : RQ_OK;
}

static void kernel_begin_sync(struct rq_file *f, uint64_t offset, uint64_t bytes)
{
    (void)sync_file_range(kernel_file(f)->fd, (off_t)offset, (off_t)bytes, SYNC_FILE_RANGE_WRITE);
}

static enum rq_err kernel_truncate(struct rq_file *f, uint64_t size)
{
    int r;
    do {
        r = ftruncate(kernel_file(f)->fd, (off_t)size);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? err_from_errno(errno) : RQ_OK;
}

/* Where fallocate is not known to the file system: every block is written, with what it holds already. */
static enum rq_err reserve_by_writing(struct rq_file *f, uint64_t offset, uint64_t bytes)
{
    _Alignas(RESERVE_BLOCK_BYTES) uint8_t block[RESERVE_BLOCK_BYTES];
    uint64_t end = offset + bytes;
    for (uint64_t at = offset - offset % sizeof block; at < end; at += sizeof block) {
        size_t have = 0;
        enum rq_err err = kernel_read(f, block, sizeof block, at, &have);
        if (err != RQ_OK) {
            return err;
        }
        size_t want = end - at < sizeof block ? (size_t)(end - at) : sizeof block;
        if (have < want) {
            memset(block + have, 0, want - have);
            have = want;
        }
        err = kernel_write(f, block, have, at);
        if (err != RQ_OK) {
            return err;
        }
    }
    return RQ_OK;
}

static enum rq_err kernel_reserve(struct rq_file *f, uint64_t offset, uint64_t bytes)
{
    if (bytes == 0) {
        return RQ_OK;
    }
    if (bytes > INT64_MAX || offset > INT64_MAX - bytes) {
        return RQ_FULL;
    }
    int r;
    do {
        r = fallocate(kernel_file(f)->fd, 0, (off_t)offset, (off_t)bytes);
    } while (r < 0 && errno == EINTR);
    if (r < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
        return reserve_by_writing(f, offset, bytes);
    }
    return r < 0 ? err_from_errno(errno) : RQ_OK;
}

static struct rq_file_info info_from_stat(const struct stat *st)
{
    return (struct rq_file_info){
        .size = (uint64_t)st->st_size,
        .inode = st->st_ino,
        .device = st->st_dev,
        .modified_ns = (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec,
        .links = (uint32_t)st->st_nlink,
        .mode = st->st_mode,
        .regular = S_ISREG(st->st_mode),
    };
}

static enum rq_err kernel_info(struct rq_file *f, struct rq_file_info *ret_info)
{
    struct stat st;
    if (fstat(kernel_file(f)->fd, &st) < 0) {
        return err_from_errno(errno);
    }
    *ret_info = info_from_stat(&st);
    return RQ_OK;
}

/* The kernel refuses OFD locks unless l_pid is 0. */
static struct flock lock_range(uint64_t offset, uint64_t bytes, short type)
{
    struct flock range = { 0 };
    range.l_type = type;
    range.l_whence = SEEK_SET;
    range.l_start = (off_t)offset;
    range.l_len = (off_t)bytes;
    return range;
}

static enum rq_err kernel_lock(struct rq_file *f, uint64_t offset, uint64_t bytes, enum rq_lock kind)
{
    short type = kind == RQ_EXCLUSIVE ? F_WRLCK : kind == RQ_SHARED ? F_RDLCK : F_UNLCK;
    struct flock range = lock_range(offset, bytes, type);
    int r;
    do {
        r = fcntl(kernel_file(f)->fd, F_OFD_SETLK, &range);
    } while (r < 0 && errno == EINTR);
    if (r < 0 && errno == EACCES) {
        return RQ_BUSY; /* POSIX lets a taken lock be reported so, too */
    }
    return r < 0 ? err_from_errno(errno) : RQ_OK;
}

static enum rq_err kernel_lock_test(struct rq_file *f, uint64_t offset, uint64_t bytes, bool *ret_taken)
{
    struct flock range = lock_range(offset, bytes, F_WRLCK);
    int r;
    do {
        r = fcntl(kernel_file(f)->fd, F_OFD_GETLK, &range);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        return err_from_errno(errno);
    }
    *ret_taken = range.l_type != F_UNLCK;
    return RQ_OK;
}

static enum rq_err kernel_map(struct rq_file *f, uint64_t offset, size_t bytes, void **ret_memory)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, kernel_file(f)->fd, (off_t)offset);
    if (memory == MAP_FAILED) {
        return err_from_errno(errno);
    }
    *ret_memory = memory;
    return RQ_OK;
}

static void kernel_unmap(struct rq_file *f, void *memory, size_t bytes)
{
    (void)f;
    munmap(memory, bytes);
}

static enum rq_err kernel_rename(struct rq_disk *d, const char *from, const char *to)
{
    (void)d;
    return rename(from, to) < 0 ? err_from_errno(errno) : RQ_OK;
}

static enum rq_err kernel_unlink(struct rq_disk *d, const char *path)
{
    (void)d;
    return unlink(path) < 0 ? err_from_errno(errno) : RQ_OK;
}

static enum rq_err kernel_mkdir(struct rq_disk *d, const char *path, unsigned mode)
{
    (void)d;
    return mkdir(path, (mode_t)mode) < 0 ? err_from_errno(errno) : RQ_OK;
}

static enum rq_err kernel_sync_dir(struct rq_disk *d, const char *path)
{
    (void)d;
    int fd = open_retried(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    int r;
    do {
        r = fsync(fd);
    } while (r < 0 && errno == EINTR);
    /* EINVAL: this file system has no such operation; its names are as durable as it can make them. */
    enum rq_err err = r < 0 && errno != EINVAL ? err_from_errno(errno) : RQ_OK;
    close(fd);
    return err;
}

static enum rq_err kernel_stat(struct rq_disk *d, const char *path, struct rq_file_info *ret_info)
{
    (void)d;
    struct stat st;
    if (lstat(path, &st) < 0) {
        return err_from_errno(errno);
    }
    *ret_info = info_from_stat(&st);
    return RQ_OK;
}

static enum rq_err kernel_list(struct rq_disk *d, const char *path, enum rq_err (*name_cb)(void *ctx, const char *name),
                               void *ctx)
{
    (void)d;
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return err_from_errno(errno);
    }
    enum rq_err err = RQ_OK;
    while (err == RQ_OK) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            err = errno != 0 ? err_from_errno(errno) : RQ_OK;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            err = name_cb(ctx, entry->d_name);
        }
    }
    closedir(dir);
    return err;
}

static enum rq_err kernel_space(struct rq_disk *d, const char *path, uint64_t *ret_free_bytes)
{
    (void)d;
    struct statvfs st;
    int r;
    do {
        r = statvfs(path, &st);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        return err_from_errno(errno);
    }
    *ret_free_bytes = (uint64_t)st.f_bavail * st.f_frsize;
    return RQ_OK;
}

static const struct rq_disk_ops kernel_ops = {
    .open = kernel_open,
    .close = kernel_close,
    .read = kernel_read,
    .write = kernel_write,
    .writev = kernel_writev,
    .sync = kernel_sync,
    .begin_sync = kernel_begin_sync,
    .truncate = kernel_truncate,
    .reserve = kernel_reserve,
    .info = kernel_info,
    .lock = kernel_lock,
    .lock_test = kernel_lock_test,
    .map = kernel_map,
    .unmap = kernel_unmap,
    .rename = kernel_rename,
    .unlink = kernel_unlink,
    .mkdir = kernel_mkdir,
    .sync_dir = kernel_sync_dir,
    .stat = kernel_stat,
    .list = kernel_list,
    .space = kernel_space,
};

struct rq_disk *rq_disk_real(void)
{
    static struct rq_disk disk = { &kernel_ops };
    return &disk;
}
