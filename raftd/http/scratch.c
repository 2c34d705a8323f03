#include "raftd/http/scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "raftd/db/identity.h"

uint64_t rq_scratch_room(const char *dir)
{
    struct statvfs v;
    const uint64_t free = statvfs(dir, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : 0;
    return free > RQ_SCRATCH_LEAVE_FREE ? free - RQ_SCRATCH_LEAVE_FREE : 0;
}

int rq_scratch_open(const char *dir)
{
    char path[4096];
    int fd = open(dir, O_RDWR | O_CLOEXEC | O_TMPFILE, 0600);
    if (fd < 0) { /* not every file system has such files */
        (void)snprintf(path, sizeof path, "%s/tmp-scratch-%016llx", dir, (unsigned long long)rq_random_id());
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            (void)unlink(path); /* else the next start does it */
        }
    }
    return fd;
}
