#include "raftd/http/local.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG       512
#define FULL_PAUSE_MS 50 /* when no connection can be accepted for lack of descriptors */

struct rq_http_local {
    struct MHD_Daemon *daemon;
    int fd, stop_fd;
    pthread_t thread;
    struct sockaddr_un address;
};

static void *run_thread(void *arg)
{
    struct rq_http_local *l = arg;
    struct pollfd both[2] = { { .fd = l->fd, .events = POLLIN }, { .fd = l->stop_fd, .events = POLLIN } };
    while ((both[1].revents & POLLIN) == 0) {
        if (poll(both, 2, -1) < 0 || (both[0].revents & POLLIN) == 0) {
            continue;
        }
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) { /* the daemon closes it, also when it does not take it */
            (void)MHD_add_connection(l->daemon, fd, (struct sockaddr *)&l->address, sizeof l->address);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            (void)poll(&both[1], 1, FULL_PAUSE_MS);
        }
    }
    return NULL;
}

/* Of a process that was killed. */
static void remove_stale(const struct sockaddr_un *address)
{
    struct stat st;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && lstat(address->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
        connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED) {
        (void)unlink(address->sun_path); /* else bind() says so */
    }
    if (fd >= 0) {
        close(fd);
    }
}

enum rq_err rq_http_local_new(struct MHD_Daemon *daemon, const char *path, struct rq_http_local **ret_local,
                              char text[256])
{
    struct rq_http_local *l = calloc(1, sizeof *l);
    if (l == NULL) {
        return RQ_NOMEM;
    }
    l->daemon = daemon;
    l->address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof l->address.sun_path) {
        (void)snprintf(text, 256, "listen unix %.180s: the path is too long for a socket", path);
        free(l);
        return RQ_IO;
    }
    (void)snprintf(l->address.sun_path, sizeof l->address.sun_path, "%s", path);
    remove_stale(&l->address);
    l->stop_fd = eventfd(0, EFD_CLOEXEC);
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->stop_fd < 0 || l->fd < 0 || bind(l->fd, (struct sockaddr *)&l->address, sizeof l->address) != 0 ||
        listen(l->fd, BACKLOG) != 0 || pthread_create(&l->thread, NULL, run_thread, l) != 0) {
        (void)snprintf(text, 256, "listen unix %.180s: %s", path, strerror(errno));
        if (l->fd >= 0) {
            close(l->fd);
        }
        if (l->stop_fd >= 0) {
            close(l->stop_fd);
        }
        free(l);
        return RQ_IO;
    }
    *ret_local = l;
    return RQ_OK;
}

void rq_http_local_free(struct rq_http_local *l)
{
    if (l == NULL) {
        return;
    }
    (void)eventfd_write(l->stop_fd, 1); /* cannot fail: nobody else writes to it */
    pthread_join(l->thread, NULL);
    (void)unlink(l->address.sun_path);
    close(l->fd);
    close(l->stop_fd);
    free(l);
}
