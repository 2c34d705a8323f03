/* A raftd beside the program, and the extension in it, for programs that link SQLite and no part of the project. */
#ifndef TESTS_SUPPORT_RAFTD_PROCESS_H
#define TESTS_SUPPORT_RAFTD_PROCESS_H

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <unistd.h>

struct raftd_place {
    const char *program, *dir, *log; /* what it prints is appended to log */
    const char *http_addr, *raft_addr;
};

/* Its process; -1: none.  It ends with the thread that called. */
static inline pid_t raftd_spawn(const struct raftd_place *p)
{
    pid_t pid = fork();
    if (pid != 0) {
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open(p->log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd >= 0 && dup2(fd, STDOUT_FILENO) >= 0 && dup2(fd, STDERR_FILENO) >= 0) {
        execl(p->program, p->program, "-http-addr", p->http_addr, "-raft-addr", p->raft_addr, p->dir, (char *)NULL);
    }
    _exit(127);
}

/* For ever; false: says why. */
static inline bool extension_load(const char *path)
{
    sqlite3 *db;
    char *text = NULL;
    bool good = sqlite3_open(":memory:", &db) == SQLITE_OK && sqlite3_enable_load_extension(db, 1) == SQLITE_OK &&
                sqlite3_load_extension(db, path, NULL, &text) == SQLITE_OK;
    if (!good) {
        fprintf(stderr, "%s: %s\n", path, text != NULL ? text : sqlite3_errmsg(db));
    }
    sqlite3_free(text);
    sqlite3_close(db);
    return good;
}

#endif
