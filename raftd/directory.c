#include "raftd/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "raftd/db/descriptor.h"
#include "raftd/ops/journal.h"
#include "raftd/refuse.h"
#include "raftd/wire/bytes.h"

/* A raft/ that this start has made, with nothing in it yet that is anybody's: a start that is refused takes it away again, or
 * the next one would find a node that there never was.  Empty: none. */
static char raft_dir_made[PATH_MAX];

static void unmake_raft_dir(void)
{
    static const char *const dirs[] = { "/staged", "/trash", "/hashes", "/copies", "" };
    char path[PATH_MAX + 16];
    if (raft_dir_made[0] == '\0') {
        return;
    }
    (void)snprintf(path, sizeof path, "%s/lock", raft_dir_made);
    (void)unlink(path); /* what cannot be removed stays: the start is refused anyway */
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        (void)snprintf(path, sizeof path, "%s%s", raft_dir_made, dirs[i]);
        (void)rmdir(path);
    }
}

char *rq_path_join(const char *a, const char *b)
{
    char *path;
    if (asprintf(&path, "%s/%s", a, b) < 0) {
        rq_refuse("out of memory");
    }
    return path;
}

/* Was it not there? */
static bool make_dir(struct rq_directory *d, const char *path, unsigned mode)
{
    enum rq_err err = d->disk->ops->mkdir(d->disk, path, mode);
    if (err != RQ_OK && err != RQ_EXISTS) {
        rq_refuse("%s cannot be made: %s", path, rq_err_text(err));
    }
    return err == RQ_OK;
}

/* The data directory, and whatever of the way to it is not there. */
static void make_data_dir(struct rq_directory *d, const char *path)
{
    char part[PATH_MAX];
    if ((size_t)snprintf(part, sizeof part, "%s", path) >= sizeof part) {
        rq_refuse("%s cannot be made: the path is too long", path);
    }
    for (char *slash = part[0] == '\0' ? NULL : strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        if (slash[strspn(slash, "/")] == '\0') {
            break; /* the last one has its own mode, with a slash behind it, too */
        }
        *slash = '\0';
        if (access(part, F_OK) != 0) {
            make_dir(d, part, 0755);
        }
        *slash = '/';
    }
    make_dir(d, path, 0750);
}

/* Before anything else is touched: a second raftd finds it taken.  The second lock, of the kind that knows its process, only says
 * whose it is; nothing is written into a directory that is refused later. */
static int take_lock(const char *raft_dir)
{
    char *path = rq_path_join(raft_dir, "lock");
    struct flock who = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    struct stat held, there;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        rq_refuse("%s cannot be opened: %s", path, strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        char pid[32] = "";
        if (fcntl(fd, F_GETLK, &who) == 0 && who.l_type != F_UNLCK && who.l_pid > 0) {
            (void)snprintf(pid, sizeof pid, ", pid %ld,", (long)who.l_pid);
        }
        rq_refuse("another raftd%s serves this directory (%s is locked)", pid, path);
    }
    if (fstat(fd, &held) != 0 || stat(path, &there) != 0 || held.st_ino != there.st_ino) {
        rq_refuse("another raftd has just taken %s away: start this one again", path);
    }
    (void)fcntl(fd, F_SETLK, &who); /* without it the message is poorer */
    free(path);
    return fd;
}

static void make_raft_dir(struct rq_directory *d)
{
    bool made = make_dir(d, d->raft_dir, 0700);
    d->lock_fd = take_lock(d->raft_dir);
    if (made) { /* and nobody else has locked it first */
        (void)snprintf(raft_dir_made, sizeof raft_dir_made, "%s", d->raft_dir);
    }
}

void rq_directory_open(struct rq_directory *d, struct rq_disk *disk, const char *path, bool refound)
{
    char real[PATH_MAX];
    struct stat dir;
    *d = (struct rq_directory){ .disk = disk, .lock_fd = -1 };
    rq_refuse_undo = unmake_raft_dir;
    make_data_dir(d, path);
    if (realpath(path, real) == NULL || stat(real, &dir) != 0) {
        rq_refuse("%s: %s", path, strerror(errno));
    }
    /* Who may do what in the directory may do it with its databases; SQLite in an application that shares them has to be able to
     * write -shm and the control page.  So the mode of the directory decides, not whatever umask raftd was started with. */
    (void)umask(077 & ~dir.st_mode);
    d->dir = strdup(real);
    d->raft_dir = rq_path_join(d->dir, "raft");
    d->staged_dir = rq_path_join(d->raft_dir, "staged");
    d->trash_dir = rq_path_join(d->raft_dir, "trash");
    d->hashes_dir = rq_path_join(d->raft_dir, "hashes");
    d->copies_dir = rq_path_join(d->raft_dir, "copies");

    struct rq_file_info info;
    bool there = d->disk->ops->stat(d->disk, d->raft_dir, &info) == RQ_OK;
    if (!there && refound) {
        d->takes_replicas = true;
    }
    make_raft_dir(d);
    if (there && refound) {
        char name[64];
        (void)snprintf(name, sizeof name, "raft.old-%lld", (long long)time(NULL));
        char *old = rq_path_join(d->dir, name);
        if (d->disk->ops->rename(d->disk, d->raft_dir, old) != RQ_OK) {
            rq_refuse("%s cannot be moved out of the way", d->raft_dir);
        }
        rq_note(RQ_LEVEL_WARN, "a new cluster is founded from the replicas as they are", "former=%s", name);
        free(old);
        make_raft_dir(d);
        d->takes_replicas = true;
    }
    make_dir(d, d->staged_dir, 0700);
    make_dir(d, d->trash_dir, 0700);
    make_dir(d, d->hashes_dir, 0700);
    make_dir(d, d->copies_dir, 0700);
}

static enum rq_err note_name(void *ctx, const char *name)
{
    struct rq_bytes *names = ctx;
    return rq_bytes_put(names, name, strlen(name) + 1);
}

/* What a founding that was killed has left of log and state: it was never anybody's. */
static void wipe(struct rq_directory *d, const char *dir)
{
    struct rq_bytes names;
    rq_bytes_init(&names, 16u << 20);
    if (d->disk->ops->list(d->disk, dir, note_name, &names) == RQ_OK) {
        for (size_t at = 0; at < names.size; at += strlen((char *)names.data + at) + 1) {
            char *path = rq_path_join(dir, (char *)names.data + at);
            (void)d->disk->ops->unlink(d->disk, path); /* directories stay; what else stays is found by the log */
            free(path);
        }
    }
    rq_bytes_fini(&names);
}

void rq_directory_find_identity(struct rq_directory *d, const char *node_id)
{
    struct rq_file_info info;
    char *founding = rq_path_join(d->raft_dir, "founding");
    bool unfinished = d->disk->ops->stat(d->disk, founding, &info) == RQ_OK;
    free(founding);
    enum rq_err err = rq_identity_read(d->disk, d->raft_dir, &d->identity);

    if (err == RQ_OK && !unfinished) {
        if (strcmp(d->identity.node_id, node_id) != 0) {
            rq_refuse("%s belongs to node %s, not to %s: give the right directory, or -node-id %s", d->dir,
                      d->identity.node_id, node_id, d->identity.node_id);
        }
        return;
    }
    if (err == RQ_VERSION) {
        rq_refuse("%s was written by a newer raftd (format %u, this one knows %u)", d->dir, d->identity.format,
                  RQ_DATA_FORMAT);
    }
    if (err != RQ_OK && err != RQ_NOTFOUND) {
        rq_refuse("%s/node: %s", d->raft_dir, rq_err_text(err));
    }
    if (err == RQ_NOTFOUND && !unfinished) {
        char *log_dir = rq_path_join(d->raft_dir, "log");
        if (d->disk->ops->stat(d->disk, log_dir, &info) == RQ_OK) {
            rq_refuse(
                "%s has a log, but %s/node is missing: whose it is cannot be told; "
                "a new cluster from the replicas as they are: raftd -refound %s",
                d->raft_dir, d->raft_dir, d->dir);
        }
        free(log_dir);
    }
    d->founding = true;
    d->takes_replicas = d->takes_replicas || unfinished;
}

void rq_directory_begin(struct rq_directory *d)
{
    raft_dir_made[0] = '\0';
    enum rq_err err = rq_file_replace(d->disk, d->raft_dir, "founding", "", 0);
    if (err == RQ_OK) {
        char *log_dir = rq_path_join(d->raft_dir, "log");
        wipe(d, log_dir);
        wipe(d, d->hashes_dir);
        wipe(d, d->copies_dir);
        free(log_dir);
        static const char *const files[] = { "meta", "descriptor", "files", "node", "key", "fetching" };
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
            char *path = rq_path_join(d->raft_dir, files[i]);
            (void)d->disk->ops->unlink(d->disk, path); /* most are not there */
            free(path);
        }
    } else {
        rq_refuse("%s cannot be written: %s", d->raft_dir, rq_err_text(err));
    }
}

void rq_directory_write_identity(struct rq_directory *d, const char *node_id)
{
    (void)snprintf(d->identity.node_id, sizeof d->identity.node_id, "%s", node_id);
    enum rq_err err = rq_identity_write(d->disk, d->raft_dir, &d->identity);
    if (err == RQ_OK) {
        err = d->disk->ops->sync_dir(d->disk, d->dir);
    }
    if (err != RQ_OK) {
        rq_refuse("%s cannot be written: %s", d->raft_dir, rq_err_text(err));
    }
}
