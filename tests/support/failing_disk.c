/* LD_PRELOAD for a raftd whose disk breaks: while the file $RQ_FAIL_FLAG is there, and says "sync" or "write", these calls of the
 * process fail with EIO where they concern a file whose path contains $RQ_FAIL_PATH. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static bool fails(int fd, const char *what)
{
    const char *flag = getenv("RQ_FAIL_FLAG"), *part = getenv("RQ_FAIL_PATH");
    char word[16] = "", name[64], target[4096];
    int flag_fd = flag == NULL ? -1 : open(flag, O_RDONLY | O_CLOEXEC);
    if (flag_fd < 0) {
        return false;
    }
    ssize_t n = read(flag_fd, word, sizeof word - 1);
    (void)close(flag_fd);
    if (n < 0 || strncmp(word, what, strlen(what)) != 0) {
        return false;
    }
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    n = readlink(name, target, sizeof target - 1);
    target[n > 0 ? n : 0] = '\0';
    return part == NULL || strstr(target, part) != NULL;
}

#define SHOWN __attribute__((visibility("default")))

SHOWN int fdatasync(int fildes)
{
    if (fails(fildes, "sync")) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fildes);
}

/* The names are those with 64 bit offsets, as raftd's are: both are compiled with the same _FILE_OFFSET_BITS. */
SHOWN ssize_t pwrite(int fd, const void *buf, size_t nbytes, off_t offset)
{
    if (fails(fd, "write")) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, buf, nbytes, offset);
}

SHOWN ssize_t pwritev(int fd, const struct iovec *iovec, int count, off_t offset)
{
    if (fails(fd, "write")) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pwritev, fd, iovec, count, offset, 0);
}
