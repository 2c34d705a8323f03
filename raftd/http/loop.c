#include "raftd/http/loop.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raftd/run/clock.h"

#define SECOND_MS  1000u
#define AT_ONCE    64u /* connections that are accepted before others are looked at */
#define FIRST_DOOR 2u  /* in what the thread waits for */

struct rq_http_loop {
    struct rq_http_loop_config config;
    int epoll_fd; /* the daemon's: readable when it has something to do */
    int wake_fd;
    atomic_bool stops;
    uint64_t second_ms; /* when it is due */
    pthread_t thread;
};

/* 0: the daemon has something to do, also when somebody was resumed. */
static int next_ms(struct rq_http_loop *l)
{
    const int64_t daemon_ms = MHD_get_timeout64s(l->config.daemon); /* -1: nothing is due */
    const uint64_t now_ms = rq_clock_ms();
    if (now_ms >= l->second_ms) {
        l->second_ms = now_ms + SECOND_MS;
        l->config.each_second(l->config.ctx);
    }
    const int64_t left_ms = (int64_t)(l->second_ms - now_ms);
    return (int)(daemon_ms < 0 || left_ms < daemon_ms ? left_ms : daemon_ms);
}

/* What cannot be accepted for lack of descriptors waits: the next look is a moment later, as others are busy or leave. */
static void accept_some(struct rq_http_loop *l, unsigned door)
{
    struct sockaddr_storage address;
    for (unsigned i = 0; i < AT_ONCE && l->config.accepts(l->config.ctx, door); i++) {
        socklen_t bytes = sizeof address;
        const int fd =
            accept4(l->config.doors[door], (struct sockaddr *)&address, &bytes, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            break;
        }
        /* The daemon closes it, also when it does not take it. */
        (void)MHD_add_connection(l->config.daemon, fd, (struct sockaddr *)&address, bytes);
    }
}

static void *run_thread(void *arg)
{
    struct rq_http_loop *l = arg;
    struct pollfd fds[FIRST_DOOR + RQ_HTTP_LOOP_DOORS] = { { .fd = l->epoll_fd, .events = POLLIN },
                                                           { .fd = l->wake_fd, .events = POLLIN } };
    while (!atomic_load(&l->stops)) {
        eventfd_t times;
        for (unsigned door = 0; door < RQ_HTTP_LOOP_DOORS; door++) {
            const bool accepts = l->config.doors[door] >= 0 && l->config.accepts(l->config.ctx, door);
            fds[FIRST_DOOR + door] = (struct pollfd){ .fd = accepts ? l->config.doors[door] : -1, .events = POLLIN };
        }
        if (poll(fds, FIRST_DOOR + RQ_HTTP_LOOP_DOORS, next_ms(l)) > 0) {
            if (fds[1].revents != 0) {
                (void)eventfd_read(l->wake_fd, &times); /* does not block: nobody else reads it */
            }
            for (unsigned door = 0; door < RQ_HTTP_LOOP_DOORS; door++) {
                if (fds[FIRST_DOOR + door].revents != 0) {
                    accept_some(l, door);
                }
            }
        }
        (void)MHD_run(l->config.daemon);
    }
    return NULL;
}

enum rq_err rq_http_loop_new(const struct rq_http_loop_config *config, struct rq_http_loop **ret_loop)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(config->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    struct rq_http_loop *l = calloc(1, sizeof *l);
    const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (info != NULL && l != NULL && wake_fd >= 0) {
        l->config = *config;
        l->epoll_fd = info->epoll_fd;
        l->wake_fd = wake_fd;
        if (pthread_create(&l->thread, NULL, run_thread, l) == 0) {
            *ret_loop = l;
            return RQ_OK;
        }
    }
    if (wake_fd >= 0) {
        close(wake_fd);
    }
    free(l);
    MHD_stop_daemon(config->daemon);
    return RQ_NOMEM;
}

void rq_http_loop_wake(struct rq_http_loop *l)
{
    (void)eventfd_write(l->wake_fd, 1); /* full: it wakes anyway */
}

void rq_http_loop_free(struct rq_http_loop *l)
{
    if (l != NULL) {
        atomic_store(&l->stops, true);
        rq_http_loop_wake(l);
        pthread_join(l->thread, NULL);
        MHD_stop_daemon(l->config.daemon);
        close(l->wake_fd);
        free(l);
    }
}
