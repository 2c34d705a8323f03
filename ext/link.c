#include "ext/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SOCKET_NAME        "raftd.sock"
#define FRAME_MAX          (RQ_FRAME_HEAD_BYTES + RQ_FRAME_BODY_MAX)
#define FRAME_BODY_MAX_MIN 131072u /* has room for the largest page */
#define KEEP_BYTES         65536u  /* a larger buffer is given back after use: connections are many */
#define RECEIVE_BYTES      4096u

uint64_t rq_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

char *rq_link_socket_of(const char *path, const char *raftd_socket)
{
    if (raftd_socket == NULL || raftd_socket[0] == '\0') {
        raftd_socket = getenv("RQVFS_RAFTD");
    }
    if (raftd_socket != NULL && raftd_socket[0] != '\0') {
        return strdup(raftd_socket);
    }
    const char *slash = strrchr(path, '/');
    size_t dir_bytes = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    char *socket = malloc(dir_bytes + sizeof SOCKET_NAME);
    if (socket != NULL) {
        memcpy(socket, path, dir_bytes);
        memcpy(socket + dir_bytes, SOCKET_NAME, sizeof SOCKET_NAME);
    }
    return socket;
}

static bool draw_session(uint64_t *ret_session)
{
    uint64_t session = 0;
    do {
        ssize_t bytes = getrandom(&session, sizeof session, 0);
        if (bytes < 0 && errno != EINTR) {
            return false;
        }
        if (bytes != (ssize_t)sizeof session) {
            session = 0;
        }
    } while (session == 0); /* 0 is nobody's */
    *ret_session = session;
    return true;
}

enum rq_err rq_link_init(struct rq_link *l, char *socket, const char *sqlite)
{
    *l = (struct rq_link){
        .socket = socket, .sqlite = sqlite, .fd = -1, .pid = getpid(), .frame_body_max = RQ_FRAME_BODY_MAX
    };
    l->socket = socket;
    rq_bytes_init(&l->out, FRAME_MAX);
    rq_bytes_init(&l->in, FRAME_MAX);
    if (socket == NULL) {
        return RQ_NOMEM;
    }
    return draw_session(&l->session) ? RQ_OK : RQ_IO;
}

void rq_link_fini(struct rq_link *l)
{
    rq_link_close(l);
    rq_bytes_fini(&l->out);
    rq_bytes_fini(&l->in);
    free(l->socket);
    l->socket = NULL;
}

void rq_link_close(struct rq_link *l)
{
    if (l->fd >= 0) {
        (void)close(l->fd); /* not shutdown(): a forked child has the same connection, and only lets go of it */
        l->fd = -1;
    }
}

void rq_link_set_text(struct rq_link *l, const char *data, size_t bytes)
{
    size_t n = bytes < sizeof l->text - 1 ? bytes : sizeof l->text - 1;
    if (n > 0) {
        memcpy(l->text, data, n);
    }
    l->text[n] = '\0';
}

/* The connection is of no use any more; says why.  Always AWAY. */
static enum rq_err broken(struct rq_link *l, const char *why)
{
    rq_link_close(l);
    (void)snprintf(l->text, sizeof l->text, "%s (raftd at %s)", why, l->socket);
    return RQ_AWAY;
}

/* True: the descriptor is ready, or broken, which the next call on it tells.  False: too late. */
static bool wait_for(int fd, short events, uint64_t deadline_ms)
{
    for (;;) {
        uint64_t now = rq_now_ms();
        uint64_t left = deadline_ms > now ? deadline_ms - now : 0;
        struct pollfd p = { .fd = fd, .events = events };
        int ready = poll(&p, 1, left > 60000 ? 60000 : (int)left);
        if (ready > 0) {
            return true;
        }
        if (ready < 0 && errno != EINTR) {
            return false;
        }
        if (left == 0) {
            return false;
        }
    }
}

/* --- connecting --------------------------------------------------------------------------------------------------------- */

/* A path that does not fit into a socket address goes by a descriptor of its directory; *ret_dir is to be closed after use. */
static bool address_of(const char *path, struct sockaddr_un *ret_address, int *ret_dir)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    size_t bytes = strlen(path);
    *ret_dir = -1;
    if (bytes < sizeof a.sun_path) {
        memcpy(a.sun_path, path, bytes);
        *ret_address = a;
        return true;
    }
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        errno = ENAMETOOLONG;
        return false;
    }
    char *dir_path = strndup(path, (size_t)(slash - path) + 1);
    if (dir_path == NULL) {
        return false;
    }
    int dir = open(dir_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    free(dir_path);
    if (dir < 0) {
        return false;
    }
    int n = snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d%s", dir, slash);
    if (n < 0 || (size_t)n >= sizeof a.sun_path) {
        (void)close(dir);
        errno = ENAMETOOLONG;
        return false;
    }
    *ret_address = a;
    *ret_dir = dir;
    return true;
}

/* A connected, non-blocking socket, or -1 with errno. */
static int connect_to(const char *path)
{
    struct sockaddr_un address;
    int dir;
    if (!address_of(path, &address, &dir)) {
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && fd <= STDERR_FILENO) {
        /* A host without stdin, stdout or stderr: whatever it prints must not go to raftd. */
        int high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        (void)close(fd);
        fd = high;
    }
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        int saved = errno;
        (void)close(fd);
        errno = saved;
        fd = -1;
    }
    if (dir >= 0) {
        int saved = errno;
        (void)close(dir);
        errno = saved;
    }
    return fd;
}

static struct rq_str str_of(const char *text)
{
    return (struct rq_str){ .data = text, .bytes = (uint32_t)strlen(text) };
}

static enum rq_err say_hello(struct rq_link *l, uint64_t deadline_ms)
{
    struct rq_msg_hello hello = {
        .protocol = RQ_PROTOCOL_VERSION,
        .session = l->session,
        .pid = (uint64_t)l->pid,
        .program = str_of(program_invocation_short_name),
        .sqlite = str_of(l->sqlite),
    };
    uint64_t id = rq_link_begin(l);
    enum rq_err err = rq_msg_put_hello(&l->out, id, &hello);
    if (err != RQ_OK) {
        rq_link_close(l);
        return err;
    }
    struct rq_answer answer;
    err = rq_link_call(l, id, RQ_MSG_WELCOME, deadline_ms, &answer);
    if (err != RQ_OK) {
        return err;
    }
    if (answer.err != RQ_OK) {
        rq_link_close(l); /* with the text of FAILED */
        return answer.err;
    }
    struct rq_msg_welcome welcome;
    err = rq_msg_get_welcome(answer.body, answer.bytes, &welcome);
    if (err == RQ_VERSION) {
        (void)broken(l, "a raftd of another protocol version");
        return RQ_VERSION;
    }
    if (err != RQ_OK || welcome.frame_body_max < FRAME_BODY_MAX_MIN) {
        return broken(l, "an answer that is not in the protocol");
    }
    l->frame_body_max = welcome.frame_body_max < RQ_FRAME_BODY_MAX ? welcome.frame_body_max : RQ_FRAME_BODY_MAX;
    return RQ_OK;
}

/* A forked child has its own session: two processes with one would take each other's outcomes. */
static bool mind_fork(struct rq_link *l)
{
    pid_t pid = getpid();
    if (pid == l->pid) {
        return true;
    }
    rq_link_close(l);
    l->pid = pid;
    return draw_session(&l->session);
}

enum rq_err rq_link_open(struct rq_link *l, uint64_t deadline_ms)
{
    if (!mind_fork(l)) {
        return RQ_IO;
    }
    if (l->fd >= 0) {
        return RQ_OK;
    }
    l->in.size = 0;
    l->fd = connect_to(l->socket);
    if (l->fd < 0) {
        int number = errno;
        if (number == EACCES || number == EPERM) {
            (void)broken(l, "permission denied");
            return RQ_PERM;
        }
        if (number == ENOENT || number == ECONNREFUSED || number == ENOTDIR) {
            const char *slash = strrchr(l->socket, '/');
            int dir_bytes = slash == NULL ? 1 : (int)(slash - l->socket);
            (void)snprintf(l->text, sizeof l->text, "raftd is not running; start it with: raftd %.*s", dir_bytes,
                           slash == NULL ? "." : l->socket);
            return RQ_AWAY;
        }
        return broken(l, number == EAGAIN ? "too many connections wait already" : "cannot connect");
    }
    return say_hello(l, deadline_ms);
}

bool rq_link_alive(struct rq_link *l)
{
    if (l->fd < 0 || l->pid != getpid()) {
        return false;
    }
    char byte;
    ssize_t n = recv(l->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    rq_link_close(l); /* closed by raftd; or it talks without having been asked */
    return false;
}

/* --- talking ------------------------------------------------------------------------------------------------------------ */

void rq_link_rest(struct rq_link *l)
{
    if (l->out.capacity > KEEP_BYTES) {
        rq_bytes_fini(&l->out);
    }
}

uint64_t rq_link_begin(struct rq_link *l)
{
    l->out.size = 0;
    return ++l->last_id;
}

enum rq_err rq_link_send(struct rq_link *l, uint64_t deadline_ms)
{
    size_t done = 0;
    while (done < l->out.size) {
        ssize_t n = send(l->fd, l->out.data + done, l->out.size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            done += (size_t)n;
        } else if (errno == EAGAIN) {
            if (!wait_for(l->fd, POLLOUT, deadline_ms)) {
                return broken(l, "raftd does not read in time");
            }
        } else if (errno != EINTR) {
            return broken(l, "the connection broke");
        }
    }
    return RQ_OK;
}

/* Reads on until `in` holds so many bytes. */
static enum rq_err receive_bytes(struct rq_link *l, size_t wanted, uint64_t deadline_ms)
{
    while (l->in.size < wanted) {
        size_t room = wanted - l->in.size < RECEIVE_BYTES ? RECEIVE_BYTES : wanted - l->in.size;
        if (l->in.size + room > FRAME_MAX) {
            room = FRAME_MAX - l->in.size;
        }
        enum rq_err err = rq_bytes_reserve(&l->in, room);
        if (err != RQ_OK) {
            rq_link_close(l);
            return err;
        }
        if (!wait_for(l->fd, POLLIN, deadline_ms)) {
            return broken(l, "raftd does not answer in time");
        }
        ssize_t n = recv(l->fd, l->in.data + l->in.size, room, MSG_DONTWAIT);
        if (n > 0) {
            l->in.size += (size_t)n;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            return broken(l, "the connection broke");
        }
    }
    return RQ_OK;
}

enum rq_err rq_link_receive(struct rq_link *l, uint64_t id, enum rq_msg_type type, uint64_t deadline_ms,
                            struct rq_answer *ret_answer)
{
    if (l->in.capacity > KEEP_BYTES) {
        rq_bytes_fini(&l->in);
        rq_bytes_init(&l->in, FRAME_MAX);
    }
    l->in.size = 0;
    struct rq_frame frame;
    enum rq_err err = receive_bytes(l, RQ_FRAME_HEAD_BYTES, deadline_ms);
    if (err != RQ_OK) {
        return err;
    }
    if (rq_frame_decode(l->in.data, &frame) != RQ_OK) {
        return broken(l, "an answer that is not in the protocol");
    }
    err = receive_bytes(l, RQ_FRAME_HEAD_BYTES + frame.body_bytes, deadline_ms);
    if (err != RQ_OK) {
        return err;
    }
    const uint8_t *body = l->in.data + RQ_FRAME_HEAD_BYTES;
    /* One request at a time: nothing but its answer can come, and nothing behind it. */
    if (frame.id != id || l->in.size != RQ_FRAME_HEAD_BYTES + frame.body_bytes ||
        (frame.type != (uint16_t)type && frame.type != RQ_MSG_FAILED)) {
        return broken(l, "an answer that is not in the protocol");
    }
    *ret_answer = (struct rq_answer){ .err = RQ_OK, .body = body, .bytes = frame.body_bytes };
    if (frame.type == RQ_MSG_FAILED) {
        struct rq_msg_failed failed;
        if (rq_msg_get_failed(body, frame.body_bytes, &failed) != RQ_OK || failed.err == RQ_OK) {
            return broken(l, "an answer that is not in the protocol");
        }
        rq_link_set_text(l, failed.text.data, failed.text.bytes);
        ret_answer->err = failed.err;
    }
    return RQ_OK;
}

enum rq_err rq_link_call(struct rq_link *l, uint64_t id, enum rq_msg_type type, uint64_t deadline_ms,
                         struct rq_answer *ret_answer)
{
    enum rq_err err = rq_link_send(l, deadline_ms);
    return err == RQ_OK ? rq_link_receive(l, id, type, deadline_ms, ret_answer) : err;
}
