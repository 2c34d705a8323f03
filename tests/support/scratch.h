/* Scratch files of a test: copied and removed without a shell. */
#ifndef TESTS_SUPPORT_SCRATCH_H
#define TESTS_SUPPORT_SCRATCH_H

#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

static inline int scratch_remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

/* The folder and all in it. */
static inline bool scratch_remove(const char *path)
{
    return nftw(path, scratch_remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0;
}

/* A new file with the same bytes; to must not exist. */
static inline bool scratch_copy(const char *from, const char *to)
{
    char block[65536];
    ssize_t n = -1;
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (in >= 0 && out >= 0) {
        while ((n = read(in, block, sizeof block)) > 0 && write(out, block, (size_t)n) == n) {
        }
    }
    close(in);
    close(out);
    return n == 0;
}

/* Another inode under the same name, with the same bytes. */
static inline bool scratch_replace(const char *path)
{
    char copy[4096];
    (void)snprintf(copy, sizeof copy, "%s.copy", path);
    return scratch_copy(path, copy) && rename(copy, path) == 0;
}

#endif
