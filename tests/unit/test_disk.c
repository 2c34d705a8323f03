/* disk: the kernel's file system as the contract of vfs/disk.h shows it. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/tap.h"
#include "vfs/disk.h"

static char dir[64];
static char path[96];
static char other[96];

static struct rq_disk *disk(void)
{
    return rq_disk_real();
}

static struct rq_file *open_file(const char *name, int flags)
{
    struct rq_file *f = NULL;
    check_eq(disk()->ops->open(disk(), name, flags, 0600, &f), RQ_OK);
    return f;
}

static struct rq_file *fresh_file(int flags)
{
    unlink(path);
    return open_file(path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | flags);
}

static void reads_what_was_written_and_less_at_the_end(void)
{
    struct rq_file *f = fresh_file(0);
    check_eq(f->disk->ops->write(f, "0123456789", 10, 5), RQ_OK);
    char got[32];
    size_t n = 0;
    check_eq(f->disk->ops->read(f, got, sizeof got, 0, &n), RQ_OK);
    check_eq(n, 15);
    check(memcmp(got,
                 "\0\0\0\0\0"
                 "0123456789",
                 15) == 0);
    check_eq(f->disk->ops->read(f, got, 4, 13, &n), RQ_OK);
    check_eq(n, 2);
    check_eq(f->disk->ops->read(f, got, 4, 100, &n), RQ_OK);
    check_eq(n, 0);
    f->disk->ops->close(f);
}

static void writev_writes_all_parts_in_order(void)
{
    enum { PARTS = 3000 }; /* more than one system call takes */
    static char bytes[PARTS];
    static struct iovec parts[2 * PARTS];
    for (size_t i = 0; i < PARTS; i++) {
        bytes[i] = (char)('a' + i % 26);
        parts[2 * i] = (struct iovec){ bytes + i, 1 };
        parts[2 * i + 1] = (struct iovec){ bytes + i, 0 };
    }
    struct rq_file *f = fresh_file(0);
    check_eq(f->disk->ops->writev(f, parts, 2 * PARTS, 7), RQ_OK);
    static char got[PARTS];
    size_t n = 0;
    check_eq(f->disk->ops->read(f, got, sizeof got, 7, &n), RQ_OK);
    check_eq(n, PARTS);
    check(memcmp(got, bytes, PARTS) == 0);
    f->disk->ops->close(f);
}

static void dsync_takes_aligned_and_unaligned_buffers(void)
{
    struct rq_file *f = fresh_file(RQ_OPEN_DSYNC);
    static _Alignas(4096) uint8_t buffer[8192], got[8192];
    memset(buffer, 0x5a, sizeof buffer);
    size_t n = 0;
    check_eq(f->disk->ops->write(f, buffer, 4096, 0), RQ_OK);
    check_eq(f->disk->ops->write(f, buffer + 1, 777, 4096), RQ_OK);
    check_eq(f->disk->ops->write(f, buffer, 4096, 8192), RQ_OK);
    check_eq(f->disk->ops->read(f, got, 4096 + 777, 0, &n), RQ_OK);
    check_eq(n, 4096 + 777);
    check(memcmp(got, buffer, n) == 0);
    f->disk->ops->close(f);
}

static void open_flags_mean_what_they_say(void)
{
    struct rq_file *f = NULL;
    const struct rq_disk_ops *ops = disk()->ops;
    unlink(path);
    unlink(other);
    check_eq(ops->open(disk(), path, RQ_OPEN_WRITE, 0, &f), RQ_NOTFOUND);
    ops->close(open_file(path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_EXCLUSIVE));
    check_eq(ops->open(disk(), path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_EXCLUSIVE, 0600, &f), RQ_EXISTS);
    check_eq(symlink(path, other), 0);
    check_eq(ops->open(disk(), other, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &f), RQ_PERM);
    ops->close(open_file(other, RQ_OPEN_WRITE));
    unlink(other);
    check_eq(mkfifo(other, 0600), 0);
    ops->close(open_file(other, RQ_OPEN_READ)); /* would wait for a writer for ever */
    unlink(other);
    f = open_file(path, RQ_OPEN_READ);
    check_eq(ops->write(f, "x", 1, 0), RQ_IO);
    ops->close(f);
}

static void handles_close_on_exec_and_keep_off_stdio(void)
{
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        close(0);
        struct rq_file *f;
        bool fine = disk()->ops->open(disk(), path, RQ_OPEN_WRITE | RQ_OPEN_CREATE, 0600, &f) == RQ_OK;
        fine = fine && fcntl(0, F_GETFD) < 0 && fcntl(3, F_GETFD) >= 0;
        for (int fd = 3; fd < 20; fd++) {
            int how = fcntl(fd, F_GETFD);
            struct stat here, there;
            if (how >= 0 && fstat(fd, &here) == 0 && stat(path, &there) == 0 && here.st_ino == there.st_ino) {
                fine = fine && (how & FD_CLOEXEC) != 0;
            }
        }
        _exit(fine ? 0 : 1);
    }
    int status = -1;
    check(waitpid(child, &status, 0) == child);
    check_eq(status, 0);
}

static void two_handles_of_one_process_conflict(void)
{
    struct rq_file *a = fresh_file(0), *b = open_file(path, RQ_OPEN_WRITE), *c = open_file(path, RQ_OPEN_WRITE);
    const struct rq_disk_ops *ops = disk()->ops;
    bool taken = true;
    check_eq(ops->lock_test(b, 100, 10, &taken), RQ_OK);
    check(!taken);
    check_eq(ops->lock(a, 100, 10, RQ_SHARED), RQ_OK);
    check_eq(ops->lock(b, 100, 10, RQ_SHARED), RQ_OK);
    check_eq(ops->lock(b, 105, 1, RQ_EXCLUSIVE), RQ_BUSY);
    check_eq(ops->lock(b, 110, 1, RQ_EXCLUSIVE), RQ_OK);
    check_eq(ops->lock_test(c, 100, 1, &taken), RQ_OK);
    check(taken);
    ops->close(c); /* drops no lock of a or b */
    check_eq(ops->lock(a, 110, 1, RQ_SHARED), RQ_BUSY);
    check_eq(ops->lock(b, 100, 10, RQ_UNLOCKED), RQ_OK);
    check_eq(ops->lock_test(a, 100, 10, &taken), RQ_OK);
    check(!taken); /* the own lock is no conflict */
    check_eq(ops->lock(a, 100, 10, RQ_EXCLUSIVE), RQ_OK);
    check_eq(ops->lock(b, 109, 1, RQ_SHARED), RQ_BUSY);
    ops->close(a);
    check_eq(ops->lock(b, 109, 1, RQ_SHARED), RQ_OK);
    ops->close(b);
}

static void conflicts_with_posix_locks_of_another_process(void)
{
    struct rq_file *f = fresh_file(0);
    int up[2], down[2];
    check(pipe(up) == 0 && pipe(down) == 0);
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        int fd = open(path, O_RDWR);
        struct flock range = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 40, .l_len = 1 };
        char ok = fd >= 0 && fcntl(fd, F_SETLK, &range) == 0 ? 'y' : 'n';
        ssize_t n = write(up[1], &ok, 1);
        n += read(down[0], &ok, 1);
        _exit(n == 2 ? 0 : 1);
    }
    char said = 0;
    check_eq(read(up[0], &said, 1), 1);
    enum rq_err shared = f->disk->ops->lock(f, 40, 1, RQ_SHARED);
    enum rq_err beside = f->disk->ops->lock(f, 41, 1, RQ_EXCLUSIVE);
    bool taken = false;
    enum rq_err tested = f->disk->ops->lock_test(f, 40, 1, &taken);
    check_eq(write(down[1], "x", 1), 1);
    int status = -1;
    check(waitpid(child, &status, 0) == child);
    check_eq(said, 'y');
    check_eq(shared, RQ_BUSY);
    check_eq(beside, RQ_OK);
    check_eq(tested, RQ_OK);
    check(taken);
    check_eq(f->disk->ops->lock(f, 40, 1, RQ_EXCLUSIVE), RQ_OK);
    f->disk->ops->close(f);
    close(up[0]);
    close(up[1]);
    close(down[0]);
    close(down[1]);
}

static void file_size_limit_is_full(void)
{
    struct rq_file *f = fresh_file(0);
    pid_t child = fork(); /* the limit cannot be taken back by everybody */
    check(child >= 0);
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = { 8192, 8192 };
        setrlimit(RLIMIT_FSIZE, &limit);
        static char block[10000];
        struct iovec part = { block, sizeof block };
        bool fine = f->disk->ops->write(f, block, sizeof block, 0) == RQ_FULL;
        fine = fine && f->disk->ops->writev(f, &part, 1, 0) == RQ_FULL;
        fine = fine && f->disk->ops->truncate(f, 20000) == RQ_FULL;
        fine = fine && f->disk->ops->reserve(f, 0, 20000) == RQ_FULL;
        fine = fine && f->disk->ops->write(f, block, 8192, 0) == RQ_OK;
        _exit(fine ? 0 : 1);
    }
    int status = -1;
    check(waitpid(child, &status, 0) == child);
    check_eq(status, 0);
    f->disk->ops->close(f);
}

static void reserve_takes_space_and_keeps_content(void)
{
    struct rq_file *f = fresh_file(0);
    check_eq(f->disk->ops->write(f, "here", 4, 1000), RQ_OK);
    check_eq(f->disk->ops->reserve(f, 0, 1 << 20), RQ_OK);
    struct rq_file_info info;
    check_eq(f->disk->ops->info(f, &info), RQ_OK);
    check_eq(info.size, 1 << 20);
    check(info.regular);
    check_eq(info.links, 1);
    struct stat st;
    check_eq(stat(path, &st), 0);
    check(st.st_blocks * 512 >= 1 << 20);
    char got[4];
    size_t n;
    check_eq(f->disk->ops->read(f, got, 4, 1000, &n), RQ_OK);
    check(memcmp(got, "here", 4) == 0);
    check_eq(f->disk->ops->reserve(f, UINT64_MAX - 5, 10), RQ_FULL);
    check_eq(f->disk->ops->truncate(f, 3), RQ_OK);
    check_eq(f->disk->ops->sync(f), RQ_OK);
    check_eq(unlink(path), 0);
    check_eq(f->disk->ops->info(f, &info), RQ_OK);
    check_eq(info.size, 3);
    check_eq(info.links, 0);
    f->disk->ops->close(f);
}

static void mapping_is_shared_with_writes(void)
{
    struct rq_file *f = fresh_file(0);
    check_eq(f->disk->ops->truncate(f, 65536), RQ_OK);
    void *a = NULL, *b = NULL;
    check_eq(f->disk->ops->map(f, 32768, 32768, &a), RQ_OK);
    check_eq(f->disk->ops->map(f, 0, 65536, &b), RQ_OK);
    memcpy(a, "seen", 4);
    check(memcmp((char *)b + 32768, "seen", 4) == 0);
    char got[4];
    size_t n;
    check_eq(f->disk->ops->read(f, got, 4, 32768, &n), RQ_OK);
    check(memcmp(got, "seen", 4) == 0);
    f->disk->ops->unmap(f, a, 32768);
    f->disk->ops->unmap(f, b, 65536);
    f->disk->ops->close(f);
}

static enum rq_err count_name(void *ctx, const char *name)
{
    check(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
    *(int *)ctx += 1;
    return RQ_OK;
}

static enum rq_err stop_at_once(void *ctx, const char *name)
{
    (void)name;
    *(int *)ctx += 1;
    return RQ_BUSY;
}

static void directory_operations(void)
{
    const struct rq_disk_ops *ops = disk()->ops;
    char sub[96], from[128], to[128];
    snprintf(sub, sizeof sub, "%s/sub", dir);
    snprintf(from, sizeof from, "%s/from", sub);
    snprintf(to, sizeof to, "%s/to", sub);
    check_eq(ops->mkdir(disk(), sub, 0700), RQ_OK);
    check_eq(ops->mkdir(disk(), sub, 0700), RQ_EXISTS);
    ops->close(open_file(from, RQ_OPEN_WRITE | RQ_OPEN_CREATE));
    ops->close(open_file(to, RQ_OPEN_WRITE | RQ_OPEN_CREATE));
    int names = 0;
    check_eq(ops->list(disk(), sub, count_name, &names), RQ_OK);
    check_eq(names, 2);
    names = 0;
    check_eq(ops->list(disk(), sub, stop_at_once, &names), RQ_BUSY);
    check_eq(names, 1);
    check_eq(ops->rename(disk(), from, to), RQ_OK);
    check_eq(ops->rename(disk(), from, to), RQ_NOTFOUND);
    check_eq(ops->sync_dir(disk(), sub), RQ_OK);
    struct rq_file_info info;
    check_eq(ops->stat(disk(), from, &info), RQ_NOTFOUND);
    check_eq(ops->stat(disk(), to, &info), RQ_OK);
    check(info.regular);
    check_eq(ops->stat(disk(), sub, &info), RQ_OK);
    check(!info.regular);
    check_eq(ops->unlink(disk(), to), RQ_OK);
    check_eq(ops->unlink(disk(), to), RQ_NOTFOUND);
    check_eq(ops->sync_dir(disk(), to), RQ_NOTFOUND);
    uint64_t free_bytes = 0;
    check_eq(ops->space(disk(), sub, &free_bytes), RQ_OK);
    check(free_bytes > 0);
    check_eq(rmdir(sub), 0);
}

int main(int argc, char **argv)
{
    const char *below = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/rqdisk.XXXXXX", below != NULL && strlen(below) < 32 ? below : "/tmp");
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        return 1;
    }
    snprintf(path, sizeof path, "%s/file", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    const struct tap_test tests[] = {
        TAP(reads_what_was_written_and_less_at_the_end),
        TAP(writev_writes_all_parts_in_order),
        TAP(dsync_takes_aligned_and_unaligned_buffers),
        TAP(open_flags_mean_what_they_say),
        TAP(handles_close_on_exec_and_keep_off_stdio),
        TAP(two_handles_of_one_process_conflict),
        TAP(conflicts_with_posix_locks_of_another_process),
        TAP(file_size_limit_is_full),
        TAP(reserve_takes_space_and_keeps_content),
        TAP(mapping_is_shared_with_writes),
        TAP(directory_operations),
    };
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    unlink(path);
    unlink(other);
    rmdir(dir);
    return failed;
}
