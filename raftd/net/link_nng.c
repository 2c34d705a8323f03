/* Link on nng: we accept, nng keeps the lines that are idle, raftd/net/active.h those that are at work.
 *
 * A connection is accepted here and handed to nng through its `socket://` listener; we keep a duplicate of the descriptor.  An
 * idle line waits in nng: one recv is posted, which is also how we learn of the other side's death, and of a frame that is not
 * finished in time.  Once bytes are there the line is active: it is read and answered on the duplicate, without nng's two wake-ups
 * per message, until it has been quiet for a while.  A line whose frame waits has neither.
 *
 * nng aborts the process when an aio is posted that has not run its callback.  rx is posted only while the line has none posted
 * (once at the start, and when an active line has become quiet); tx only while !tx_busy, and its callback clears that. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <nng/nng.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "raftd/net/active.h"
#include "raftd/net/link.h"
#include "raftd/wire/bytes.h"

#define READ_BYTES      16384u
#define KEEP_BYTES      65536u /* a larger read buffer is given back when the line is idle */
#define BACKLOG         1024
#define TASK_THREADS    4 /* the first request of a line may block in the log's sync while the others go on */
#define ACCEPT_PAUSE_MS 100
#define FD_RESERVE_MAX  512 /* descriptors that are not for connections: raftd's own files go on */

struct rq_line {
    struct rq_link *link; /* borrows */
    atomic_uint refs;
    nng_stream *stream;
    nng_aio *rx, *tx;
    int fd; /* duplicate of the stream's */
    void *user;

    /* Owned by who has the line: the callback of rx, or of active. */
    struct rq_active_line active;
    struct rq_bytes in;     /* what has arrived and is not a whole frame yet */
    uint64_t half_since_ms; /* 0: no half frame, and nothing else that the other side owes us */
    atomic_int held;        /* enum held */

    pthread_mutex_t lock;
    struct rq_bytes out, sending; /* guarded by lock, as tx_busy, closed */
    size_t sent;
    bool tx_busy, closed;
};

/* A line whose frame waits belongs to nobody, until it is resumed. */
enum held { HELD_NOT, HELD_WAITS, HELD_RESUMED_EARLY };

struct rq_link {
    struct rq_link_ops ops;
    int dir_fd, listen_fd, stop_fd;
    nng_stream_listener *listener;
    nng_aio *accepted;
    struct rq_active *active;
    pthread_t thread;
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

void rq_line_unref(struct rq_line *line)
{
    if (atomic_fetch_sub(&line->refs, 1) != 1) {
        return;
    }
    /* Reached from callbacks of these very aios: reap waits for them elsewhere. */
    nng_stream_free(line->stream);
    nng_aio_reap(line->rx);
    nng_aio_reap(line->tx);
    close(line->fd);
    rq_bytes_fini(&line->in);
    rq_bytes_fini(&line->out);
    rq_bytes_fini(&line->sending);
    pthread_mutex_destroy(&line->lock);
    free(line);
}

void rq_line_peer(const struct rq_line *line, pid_t *ret_pid, uid_t *ret_uid)
{
    struct ucred peer = { 0 };
    socklen_t bytes = sizeof peer;
    (void)getsockopt(line->fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes); /* zeros if it cannot be told */
    *ret_pid = peer.pid;
    *ret_uid = peer.uid;
}

/* rx completes with an error, or the active line becomes readable; what is called then does the rest. */
void rq_line_break(struct rq_line *line)
{
    (void)shutdown(line->fd, SHUT_RDWR); /* it may be gone already */
}

/* --- sending ---------------------------------------------------------------------------------------------------------- */

/* With the lock held and tx not busy: gives what waits to nng.  The line lives at least until tx's callback. */
static void post_tx(struct rq_line *line)
{
    if (line->sent == line->sending.size) {
        struct rq_bytes done = line->sending;
        line->sending = line->out;
        line->out = done;
        line->out.size = 0;
        line->sent = 0;
    }
    nng_iov iov = { line->sending.data + line->sent, line->sending.size - line->sent };
    (void)nng_aio_set_iov(line->tx, 1, &iov); /* fails only for more than 8 parts */
    line->tx_busy = true;
    atomic_fetch_add(&line->refs, 1);
    nng_stream_send(line->stream, line->tx);
}

static void on_sent(void *arg)
{
    struct rq_line *line = arg;
    pthread_mutex_lock(&line->lock);
    line->tx_busy = false;
    if (nng_aio_result(line->tx) != 0) {
        line->closed = true;
        rq_line_break(line);
    } else {
        line->sent += nng_aio_count(line->tx);
        if (!line->closed && (line->sent < line->sending.size || line->out.size > 0)) {
            post_tx(line);
        }
    }
    pthread_mutex_unlock(&line->lock);
    rq_line_unref(line);
}

void rq_line_send(struct rq_line *line, const void *data, size_t bytes)
{
    const uint8_t *rest = data;

    pthread_mutex_lock(&line->lock);
    if (!line->closed && !line->tx_busy) {
        ssize_t n = send(line->fd, rest, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            rest += n;
            bytes -= (size_t)n;
        } else if (errno != EAGAIN && errno != EINTR) {
            line->closed = true;
            rq_line_break(line);
        }
    }
    if (!line->closed && bytes > 0) {
        if (rq_bytes_put(&line->out, rest, bytes) != RQ_OK) { /* it does not read its answers */
            line->closed = true;
            rq_line_break(line);
        } else if (!line->tx_busy) {
            post_tx(line);
        }
    }
    pthread_mutex_unlock(&line->lock);
}

/* --- receiving -------------------------------------------------------------------------------------------------------- */

/* Gives out every whole frame.  ENDS: what came is no frame, or was refused. */
static enum rq_line_next take_frames(struct rq_line *line)
{
    size_t at = 0;
    struct rq_bytes *in = &line->in;
    enum rq_line_next next = RQ_LINE_GOES_ON;

    while (in->size - at >= RQ_FRAME_HEAD_BYTES) {
        struct rq_frame frame;
        if (rq_frame_decode(in->data + at, &frame) != RQ_OK) {
            return RQ_LINE_ENDS;
        }
        if (in->size - at - RQ_FRAME_HEAD_BYTES < frame.body_bytes) {
            break;
        }
        next = line->link->ops.frame(line->user, &frame, in->data + at + RQ_FRAME_HEAD_BYTES);
        if (next == RQ_LINE_ENDS) {
            return next;
        }
        line->half_since_ms = next == RQ_LINE_OWES ? now_ms() : 0;
        if (next == RQ_LINE_WAITS) {
            break;
        }
        at += RQ_FRAME_HEAD_BYTES + frame.body_bytes;
    }
    if (at > 0) {
        memmove(in->data, in->data + at, in->size - at);
        in->size -= at;
    }
    if (in->size > 0 && line->half_since_ms == 0 && next != RQ_LINE_WAITS) {
        line->half_since_ms = now_ms();
    }
    return next;
}

/* Room for what comes next.  It grows with what has come, not with what a header promises. */
static bool make_room(struct rq_line *line)
{
    struct rq_bytes *in = &line->in;
    if (in->capacity - in->size >= READ_BYTES / 4) {
        return true;
    }
    size_t step = in->size > READ_BYTES ? in->size : READ_BYTES;
    size_t room = in->size_max - in->size;
    return rq_bytes_reserve(in, step < room ? step : room) == RQ_OK;
}

static void line_end(struct rq_line *line)
{
    pthread_mutex_lock(&line->lock);
    line->closed = true;
    pthread_mutex_unlock(&line->lock);
    rq_line_break(line);
    rq_active_forget(line->link->active, &line->active);
    nng_stream_close(line->stream);
    line->link->ops.closed(line->user);
    rq_line_unref(line);
}

static void post_rx(struct rq_line *line)
{
    if (line->in.size == 0 && line->in.capacity > KEEP_BYTES) {
        rq_bytes_fini(&line->in);
    }
    if (!make_room(line)) {
        line_end(line);
        return;
    }
    nng_duration timeout = NNG_DURATION_INFINITE;
    if (line->half_since_ms != 0) {
        uint64_t spent = now_ms() - line->half_since_ms;
        timeout = spent < RQ_LINE_HALF_FRAME_MS ? (nng_duration)(RQ_LINE_HALF_FRAME_MS - spent) : 0;
    }
    nng_iov iov = { line->in.data + line->in.size, line->in.capacity - line->in.size };
    (void)nng_aio_set_iov(line->rx, 1, &iov); /* fails only for more than 8 parts */
    nng_aio_set_timeout(line->rx, timeout);
    nng_stream_recv(line->stream, line->rx);
}

/* With what has come: gives it out, and waits for more. */
static void serve(struct rq_line *line)
{
    enum rq_line_next next;
    while ((next = take_frames(line)) == RQ_LINE_WAITS) {
        int held = HELD_NOT;
        if (atomic_compare_exchange_strong(&line->held, &held, HELD_WAITS)) {
            return;
        }
        atomic_store(&line->held, HELD_NOT);
    }
    if (next == RQ_LINE_ENDS) {
        line_end(line);
    } else if (!rq_active_wait(line->link->active, &line->active)) {
        post_rx(line);
    }
}

static void on_received(void *arg)
{
    struct rq_line *line = arg;
    if (nng_aio_result(line->rx) != 0) {
        line_end(line);
        return;
    }
    line->in.size += nng_aio_count(line->rx);
    serve(line);
}

/* What waits in the line is served where nng's callbacks run, not on top of who calls this. */
void rq_line_resume(struct rq_line *line)
{
    int held = HELD_NOT;
    if (!atomic_compare_exchange_strong(&line->held, &held, HELD_RESUMED_EARLY)) {
        atomic_store(&line->held, HELD_NOT);
        nng_sleep_aio(0, line->rx);
    }
}

static struct rq_line *line_of(struct rq_active_line *active)
{
    return (struct rq_line *)((char *)active - offsetof(struct rq_line, active));
}

static void on_readable(struct rq_active_line *active)
{
    struct rq_line *line = line_of(active);
    ssize_t n = -1;
    if (make_room(line)) {
        n = recv(line->fd, line->in.data + line->in.size, line->in.capacity - line->in.size, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            post_rx(line);
            return;
        }
    }
    if (n <= 0) {
        line_end(line);
        return;
    }
    line->in.size += (size_t)n;
    serve(line);
}

static void on_quiet(struct rq_active_line *active)
{
    post_rx(line_of(active));
}

/* --- accepting -------------------------------------------------------------------------------------------------------- */

/* Takes fd.  The stream that nng makes of it is the next that its listener gives out, as nobody else hands it any. */
static bool line_new(struct rq_link *link, int fd)
{
    struct rq_line *line = calloc(1, sizeof *line);
    int dup_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (line == NULL || dup_fd < 0) {
        goto undo;
    }
    if (nng_aio_alloc(&line->rx, on_received, line) != 0) {
        goto undo;
    }
    if (nng_aio_alloc(&line->tx, on_sent, line) != 0) {
        goto undo_rx;
    }
    nng_stream_listener_accept(link->listener, link->accepted);
    int failed = nng_stream_listener_set_int(link->listener, NNG_OPT_SOCKET_FD, fd);
    if (failed != 0) {
        nng_aio_cancel(link->accepted);
    }
    nng_aio_wait(link->accepted);
    if (failed != 0 || nng_aio_result(link->accepted) != 0) {
        goto undo_tx;
    }
    line->stream = nng_aio_get_output(link->accepted, 0);
    line->link = link;
    line->fd = dup_fd;
    line->active = (struct rq_active_line){ .fd = dup_fd, .readable = on_readable, .quiet = on_quiet };
    atomic_init(&line->refs, 2); /* one is the user's */
    pthread_mutex_init(&line->lock, NULL);
    rq_bytes_init(&line->in, RQ_FRAME_HEAD_BYTES + RQ_FRAME_BODY_MAX + READ_BYTES);
    rq_bytes_init(&line->out, RQ_LINE_UNSENT_MAX);
    rq_bytes_init(&line->sending, RQ_LINE_UNSENT_MAX);
    line->user = link->ops.opened(link->ops.ctx, line);
    if (line->user == NULL) {
        rq_line_break(line);
        nng_stream_close(line->stream);
        atomic_store(&line->refs, 1); /* no user has the other */
        rq_line_unref(line);
        return true;
    }
    post_rx(line);
    return true;

undo_tx:
    nng_aio_free(line->tx);
undo_rx:
    nng_aio_free(line->rx);
undo:
    free(line);
    if (dup_fd >= 0) {
        close(dup_fd);
    }
    close(fd);
    return false;
}

/* Descriptors are given out from below: how near is the end? */
static bool descriptors_left(const struct rq_link *link)
{
    struct rlimit limit;
    int lowest = fcntl(link->stop_fd, F_DUPFD_CLOEXEC, 0);
    if (lowest < 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return false;
    }
    close(lowest);
    rlim_t reserve = limit.rlim_cur / 4 < FD_RESERVE_MAX ? limit.rlim_cur / 4 : FD_RESERVE_MAX;
    return (rlim_t)lowest + reserve < limit.rlim_cur;
}

static void *accept_thread(void *arg)
{
    struct rq_link *link = arg;
    bool pause = false;
    for (;;) {
        /* Without descriptors or memory connects wait in the backlog; asking again at once would only burn the processor. */
        struct pollfd fds[2] = { { .fd = link->stop_fd, .events = POLLIN },
                                 { .fd = link->listen_fd, .events = POLLIN } };
        int n = poll(fds, pause ? 1 : 2, pause ? ACCEPT_PAUSE_MS : -1);
        pause = false;
        if (n < 0) {
            continue; /* EINTR */
        }
        if (fds[0].revents != 0) {
            return NULL;
        }
        if (!descriptors_left(link)) {
            pause = true;
            continue;
        }
        int fd = accept4(link->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            pause = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
        } else {
            pause = !line_new(link, fd);
        }
    }
}

/* Bound and listening.  The path goes through the directory's descriptor: its own may be longer than a socket's may. */
static enum rq_err listen_in(int dir_fd, int *ret_fd)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    struct stat st, dir;

    if (fstatat(dir_fd, RQ_LINK_SOCKET, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!S_ISSOCK(st.st_mode)) {
            return RQ_EXISTS;
        }
        if (unlinkat(dir_fd, RQ_LINK_SOCKET, 0) != 0) {
            return RQ_PERM;
        }
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return RQ_IO;
    }
    (void)snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/%s", dir_fd, RQ_LINK_SOCKET);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        enum rq_err err = errno == EACCES || errno == EPERM || errno == EROFS ? RQ_PERM : RQ_IO;
        close(fd);
        return err;
    }
    /* Nobody can connect before listen.  Who may afterwards is said by this mode and by the directory. */
    if (fchmodat(dir_fd, RQ_LINK_SOCKET, 0660, 0) != 0 || fstat(dir_fd, &dir) != 0 || listen(fd, BACKLOG) != 0) {
        close(fd);
        return RQ_IO;
    }
    (void)fchownat(dir_fd, RQ_LINK_SOCKET, (uid_t)-1, dir.st_gid, AT_SYMLINK_NOFOLLOW); /* only a member of it may */
    *ret_fd = fd;
    return RQ_OK;
}

enum rq_err rq_link_new(const struct rq_link_config *config, struct rq_link **ret_link)
{
    enum rq_err err = RQ_NOMEM;
    struct rq_link *link = calloc(1, sizeof *link);
    if (link == NULL) {
        return RQ_NOMEM;
    }
    link->ops = *config->ops;
    link->dir_fd = open(config->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    link->stop_fd = eventfd(0, EFD_CLOEXEC);
    link->listen_fd = -1;
    if (link->dir_fd < 0 || link->stop_fd < 0) {
        err = RQ_IO;
        goto undo;
    }
    nng_init_set_parameter(NNG_INIT_NUM_TASK_THREADS, TASK_THREADS);
    nng_init_set_parameter(NNG_INIT_NUM_EXPIRE_THREADS, 1);
    nng_init_set_parameter(NNG_INIT_NUM_RESOLVER_THREADS, 1);
    if (nng_stream_listener_alloc(&link->listener, "socket://") != 0 ||
        nng_stream_listener_listen(link->listener) != 0 || nng_aio_alloc(&link->accepted, NULL, NULL) != 0) {
        goto undo;
    }
    err = rq_active_new(&link->active);
    if (err != RQ_OK) {
        goto undo;
    }
    err = listen_in(link->dir_fd, &link->listen_fd);
    if (err != RQ_OK) {
        goto undo;
    }
    if (pthread_create(&link->thread, NULL, accept_thread, link) != 0) {
        err = RQ_NOMEM;
        goto undo;
    }
    *ret_link = link;
    return RQ_OK;

undo:
    if (link->listen_fd >= 0) {
        close(link->listen_fd);
    }
    nng_aio_free(link->accepted);
    if (link->listener != NULL) {
        nng_stream_listener_free(link->listener);
    }
    if (link->stop_fd >= 0) {
        close(link->stop_fd);
    }
    if (link->dir_fd >= 0) {
        close(link->dir_fd);
    }
    free(link);
    return err;
}

void rq_link_stop(struct rq_link *link)
{
    uint64_t one = 1;
    (void)!write(link->stop_fd, &one, sizeof one); /* a counter of 1 always fits */
    pthread_join(link->thread, NULL);
    close(link->listen_fd);
    (void)unlinkat(link->dir_fd, RQ_LINK_SOCKET, 0); /* the next start removes it as well */
}
