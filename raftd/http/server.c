#include "raftd/http/server.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "raftd/http/credentials.h"
#include "raftd/http/guests.h"
#include "raftd/http/https.h"
#include "raftd/http/local.h"
#include "raftd/http/loop.h"
#include "raftd/net/resolve.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"

#define POLL_THREADS     2
#define POLLED_MAX       512 /* connections: fewer cost less polled, more do by epoll */
#define CONNECTIONS_MAX  10000
#define IDLE_SECONDS     60
#define ANSWER_BYTES_MAX (64u << 20)
#define PULL_BYTES       4096u
#define STREAM_BYTES     (64u << 10)
#define RING_BYTES       (256u << 10) /* of what is passed on piece by piece, and the other side has not taken */
#define THREADS_MAX      64u          /* of each kind */
#define STOP_SECONDS     5

enum { DOOR_PORT, DOOR_SOCKET };

/* Threads that are for one request, by what they are at: none of these takes the room of another. */
enum work { FOR_LOGINS, FOR_HANDLERS, FOR_STREAMS, WORKS };

/* The first connections to the port are polled, all others are the loop's. */
struct rq_http_server {
    struct rq_http_config config;
    struct MHD_Daemon *polling;
    struct rq_http_loop *loop;
    int doors[RQ_HTTP_LOOP_DOORS]; /* owns: listening sockets; -1: none */
    unsigned room, polled_max;     /* connections: all, and those that are polled */
    atomic_uint count, polled;     /* how many there are */
    atomic_bool lingers;           /* a handler, on the thread that polls its connection */
    struct rq_guests *guests;
    struct rq_https *https; /* NULL: plain HTTP */
    pthread_mutex_t lock;
    pthread_cond_t idle;
    unsigned threads[WORKS]; /* guarded by lock */
    unsigned answering;      /* requests that a handler has seen; guarded by lock */
    _Atomic bool stopping;
    atomic_size_t body_bytes; /* of all requests */
};

/* What one side puts in and the other takes out. */
struct ring {
    uint8_t *bytes; /* owns: RING_BYTES */
    size_t begin, size;
};

/* One request, from its first line to its end.
 *
 *   NEW -> answered at once, or after it was suspended and resumed
 *   NEW -> RUNNING (a thread has it, the connection is suspended) -> DONE
 *                                   \-> STREAMING (it sends) -> DONE
 *
 * Of a route that takes the body the thread begins with its first piece, and the connection is suspended when the thread is too slow,
 * and when the body is over. */
struct exchange {
    struct rq_http_server *server;
    struct MHD_Connection *connection;
    struct rq_http_request request;
    struct rq_http_response response;
    const struct rq_http_route *route;
    void *ctx;
    unsigned verdict; /* what is answered without asking the handler; 0: the handler is asked */
    char allow[64];
    char text[RQ_HTTP_TEXT_MAX];
    unsigned illegal; /* status for its target; 0: there is nothing wrong with it */
    bool begun, judged;
    enum { NOT_ASKED, ASKED, ALLOWED, DENIED } login; /* ASKED: a thread finds it out, and only then writes it */
    bool seen;                                        /* by its handler */
    bool lingers;                                     /* it, in this call */
    _Atomic enum { NOT_PUT_OFF, PUT_OFF, SUSPENDED, RESUMED } put_off; /* by it, in this call */
    struct rq_bytes body;
    size_t charged; /* of it, to the server */

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t moved; /* the client took or gave something, or is gone */
    unsigned holders;     /* libmicrohttpd, the thread */
    enum { NEW, RUNNING, STREAMING, DONE } state;
    bool suspended, gone, piecewise;
    bool woken;           /* since it was pulled from last */
    bool body_over;       /* all of it is in the ring, or was */
    struct ring up, down; /* body, answer */
    char target[];        /* decoded in place; behind it, as it came */
};

static void drop_body(struct exchange *x)
{
    rq_bytes_fini(&x->body);
    if (x->charged > 0) {
        atomic_fetch_sub(&x->server->body_bytes, x->charged);
        x->charged = 0;
    }
}

static void drop(struct exchange *x)
{
    pthread_mutex_lock(&x->lock);
    const bool last = --x->holders == 0;
    pthread_mutex_unlock(&x->lock);
    if (last) {
        if (x->response.forget != NULL) {
            x->response.forget(x->response.progress);
        }
        pthread_mutex_destroy(&x->lock);
        pthread_cond_destroy(&x->moved);
        drop_body(x);
        if (x->response.file_bytes > 0) {
            close(x->response.file);
        }
        rq_bytes_fini(&x->response.body);
        free(x->response.location);
        free(x->up.bytes);
        free(x->down.bytes);
        free(x);
    }
}

static bool ring_make(struct ring *r)
{
    if (r->bytes == NULL) {
        r->bytes = malloc(RING_BYTES);
    }
    return r->bytes != NULL;
}

/* As much as is in one piece; 0: it is full. */
static size_t ring_put(struct ring *r, const void *from, size_t max)
{
    const size_t at = (r->begin + r->size) % RING_BYTES;
    size_t n = RING_BYTES - r->size;
    n = n < RING_BYTES - at ? n : RING_BYTES - at;
    n = n < max ? n : max;
    memcpy(r->bytes + at, from, n);
    r->size += n;
    return n;
}

static size_t ring_take(struct ring *r, void *to, size_t max)
{
    size_t n = r->size < max ? r->size : max;
    n = n < RING_BYTES - r->begin ? n : RING_BYTES - r->begin;
    memcpy(to, r->bytes + r->begin, n);
    r->begin = (r->begin + n) % RING_BYTES;
    r->size -= n;
    return n;
}

/* Connections that the calling thread polls; who comes while it is kept is accepted by another one. */
static _Thread_local unsigned polled_here;

/* --- for handlers --------------------------------------------------------------------------------------------------------- */

void rq_http_text(struct rq_http_response *response, unsigned status, const char *text)
{
    response->status = status;
    response->content_type = "text/plain; charset=utf-8";
    response->body.size = 0;
    if (rq_bytes_put(&response->body, text, strlen(text)) != RQ_OK) {
        response->status = 500;
    }
}

void rq_http_redirect_as(const struct rq_http_request *request, struct rq_http_response *response, unsigned status,
                         const char *base)
{
    response->status = asprintf(&response->location, "%s%s", base, request->target) >= 0 ? status : 500;
}

void rq_http_redirect(const struct rq_http_request *request, struct rq_http_response *response, const char *base)
{
    rq_http_redirect_as(request, response, 301, base);
}

/* Lock held on entry, not on return. */
static void wake_and_unlock(struct exchange *x)
{
    const bool resume = x->suspended;
    x->suspended = false;
    pthread_mutex_unlock(&x->lock);
    if (resume) {
        MHD_resume_connection(x->connection); /* until then it cannot end */
    }
}

static struct exchange *exchange_of(struct rq_http_response *response)
{
    return (struct exchange *)((char *)response - offsetof(struct exchange, response));
}

void rq_http_suspend(struct rq_http_response *response)
{
    atomic_store(&exchange_of(response)->put_off, PUT_OFF);
}

/* When the connection is not suspended, x is the server's again at once. */
void rq_http_resume(struct rq_http_response *response)
{
    struct exchange *x = exchange_of(response);
    if (atomic_exchange(&x->put_off, RESUMED) == SUSPENDED) {
        MHD_resume_connection(x->connection);
    }
}

bool rq_http_has_left(const struct rq_http_response *response)
{
    const struct exchange *x = (const struct exchange *)((const char *)response - offsetof(struct exchange, response));
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct pollfd fd = { .fd = info != NULL ? info->connect_fd : -1, .events = POLLRDHUP };
    return poll(&fd, 1, 0) > 0;
}

bool rq_http_may_linger(struct rq_http_response *response)
{
    struct exchange *x = exchange_of(response);
    x->lingers = x->lingers || (polled_here == 1 && !atomic_exchange(&x->server->lingers, true));
    return x->lingers;
}

void rq_http_wake(struct rq_http_response *response)
{
    struct exchange *x = exchange_of(response);
    pthread_mutex_lock(&x->lock);
    x->woken = true;
    wake_and_unlock(x);
}

/* Lock held.  True: there is room, or nobody for whom it would be; false: not in time. */
static bool await_room(struct exchange *x, uint64_t end_ms)
{
    const struct timespec end = { (time_t)(end_ms / 1000u), (long)(end_ms % 1000u) * 1000000 };
    int waited = 0;
    while (x->down.size == RING_BYTES && !x->gone && waited == 0) {
        waited = pthread_cond_clockwait(&x->moved, &x->lock, CLOCK_MONOTONIC, &end);
    }
    return x->down.size < RING_BYTES || x->gone;
}

enum rq_err rq_http_offer(struct rq_http_response *response, const void *data, size_t bytes, uint64_t wait_ms,
                          size_t *ret_taken)
{
    struct exchange *x = exchange_of(response);
    const uint64_t end_ms = rq_clock_ms() + wait_ms;
    size_t taken = 0;
    *ret_taken = 0;
    if (!ring_make(&x->down)) {
        return RQ_NOMEM;
    }
    while (taken < bytes) {
        pthread_mutex_lock(&x->lock);
        if (x->state != STREAMING) { /* once: queue() looks at it without the lock, when the first piece has woken it */
            x->state = STREAMING;
            x->piecewise = true;
        }
        const bool room = await_room(x, end_ms);
        if (x->gone || atomic_load(&x->server->stopping)) {
            pthread_mutex_unlock(&x->lock);
            return RQ_AWAY;
        }
        taken += ring_put(&x->down, (const uint8_t *)data + taken, bytes - taken);
        wake_and_unlock(x);
        if (!room) {
            break;
        }
    }
    *ret_taken = taken;
    return RQ_OK;
}

bool rq_http_charge(struct rq_http_response *response, size_t bytes)
{
    struct exchange *x = exchange_of(response);
    x->charged += bytes;
    const size_t all = atomic_fetch_add(&x->server->body_bytes, bytes) + bytes;
    return x->charged <= RQ_HTTP_BODY_SMALL_BYTES || all <= x->server->config.bodies_max;
}

enum rq_err rq_http_send(struct rq_http_response *response, const void *data, size_t bytes)
{
    enum rq_err err = RQ_OK;
    for (size_t sent = 0, n; sent < bytes && err == RQ_OK; sent += n) {
        /* Who takes nothing for IDLE_SECONDS is gone. */
        err =
            rq_http_offer(response, (const uint8_t *)data + sent, bytes - sent, (uint64_t)2 * IDLE_SECONDS * 1000u, &n);
    }
    return err;
}

bool rq_http_has_sent(const struct rq_http_response *response)
{
    const struct exchange *x = (const struct exchange *)((const char *)response - offsetof(struct exchange, response));
    return x->piecewise; /* set by the thread that asks */
}

enum rq_err rq_http_take(struct rq_http_response *response, void *to, size_t max, size_t *ret_bytes)
{
    struct exchange *x = exchange_of(response);
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&x->lock);
    while (x->up.size == 0 && !x->body_over && !x->gone) {
        pthread_cond_wait(&x->moved, &x->lock); /* who gives nothing for IDLE_SECONDS is gone */
    }
    if (x->up.size > 0 && !atomic_load(&x->server->stopping)) {
        *ret_bytes = ring_take(&x->up, to, max);
        wake_and_unlock(x);
    } else {
        *ret_bytes = 0;
        err = x->body_over && x->up.size == 0 ? RQ_OK : RQ_AWAY;
        pthread_mutex_unlock(&x->lock);
    }
    return err;
}

/* --- answering ------------------------------------------------------------------------------------------------------------ */

static ssize_t take_piece(void *cls, uint64_t pos, char *to, size_t max)
{
    struct exchange *x = cls;
    ssize_t taken = 0;
    (void)pos;
    pthread_mutex_lock(&x->lock);
    if (x->down.size > 0) {
        taken = (ssize_t)ring_take(&x->down, to, max);
        pthread_cond_signal(&x->moved);
    } else if (x->state == DONE) {
        taken = x->response.broken ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        x->suspended = true;
        MHD_suspend_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
    return taken;
}

static ssize_t pull_piece(void *cls, uint64_t pos, char *to, size_t max)
{
    struct exchange *x = cls;
    ssize_t pulled = 0;
    bool again = true;
    (void)pos;
    while (pulled == 0 && again) {
        pthread_mutex_lock(&x->lock);
        x->woken = false;
        pthread_mutex_unlock(&x->lock);
        pulled = x->response.pull(x->response.progress, to, max);
        pthread_mutex_lock(&x->lock);
        again = x->woken;
        if (pulled == 0 && !again) {
            x->suspended = true;
            MHD_suspend_connection(x->connection);
        }
        pthread_mutex_unlock(&x->lock);
    }
    return pulled == RQ_HTTP_PULL_END ? MHD_CONTENT_READER_END_OF_STREAM : pulled;
}

/* Of an answer whose beginning is in a file. */
static ssize_t read_piece(void *cls, uint64_t pos, char *to, size_t max)
{
    const struct rq_http_response *r = &((struct exchange *)cls)->response;
    if (pos >= r->file_bytes) {
        const size_t at = (size_t)(pos - r->file_bytes), n = r->body.size - at < max ? r->body.size - at : max;
        memcpy(to, r->body.data + at, n);
        return (ssize_t)n;
    }
    const uint64_t left = r->file_bytes - pos;
    ssize_t n;
    do {
        n = pread(r->file, to, left < max ? (size_t)left : max, (off_t)pos);
    } while (n < 0 && errno == EINTR);
    return n > 0 ? n : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void add_header(struct MHD_Response *out, const char *name, const char *value)
{
    if (value != NULL && value[0] != '\0') {
        (void)MHD_add_response_header(out, name, value); /* one that cannot be added for lack of memory is left out */
    }
}

/* A line that says why not, as rqlited writes it; /readyz does not end its own. */
static bool is_error_text(const struct rq_http_response *r)
{
    return r->status >= 400 && r->content_type != NULL && strncmp(r->content_type, "text/plain", 10) == 0 &&
           r->body.size > 0 && r->body.data[r->body.size - 1] == '\n';
}

static enum MHD_Result queue(struct exchange *x, bool close_after)
{
    struct rq_http_response *r = &x->response;
    struct MHD_Response *out =
        x->piecewise      ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BYTES, take_piece, x, NULL)
        : r->pull != NULL ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PULL_BYTES, pull_piece, x, NULL)
        : r->file_bytes > 0
            ? MHD_create_response_from_callback(r->file_bytes + r->body.size, STREAM_BYTES, read_piece, x, NULL)
            : MHD_create_response_from_buffer(r->body.size, r->body.data, MHD_RESPMEM_MUST_FREE);
    if (out == NULL) {
        return MHD_NO; /* closes the connection */
    }
    add_header(out, "X-Rqlite-Version", x->server->config.version);
    add_header(out, "X-Rqlite-Served-By", r->served_by);
    add_header(out, "Access-Control-Allow-Methods", "OPTIONS, GET, POST");
    if (x->server->config.credentials != NULL) {
        add_header(out, "Access-Control-Allow-Headers", "Content-Type, Authorization");
        add_header(out, "Access-Control-Allow-Credentials", "true");
        add_header(out, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Basic realm=\"rqlite\"");
    } else {
        add_header(out, "Access-Control-Allow-Headers", "Content-Type");
    }
    add_header(out, "Access-Control-Allow-Origin", x->server->config.allow_origin);
    add_header(out, MHD_HTTP_HEADER_CONTENT_TYPE,
               r->content_type == NULL && x->route != NULL ? x->route->type : r->content_type);
    add_header(out, MHD_HTTP_HEADER_CACHE_CONTROL, r->cache_control);
    add_header(out, "X-Content-Type-Options", is_error_text(r) ? "nosniff" : NULL);
    add_header(out, MHD_HTTP_HEADER_LOCATION, r->status / 100 == 3 ? r->location : NULL);
    add_header(out, MHD_HTTP_HEADER_ALLOW, x->verdict == 405 ? x->allow : NULL);
    add_header(out, MHD_HTTP_HEADER_CONNECTION, close_after ? "close" : NULL);
    if (!x->piecewise && r->pull == NULL && r->file_bytes == 0) {
        rq_bytes_init(&r->body, 0); /* is libmicrohttpd's */
    }
    enum MHD_Result result = MHD_queue_response(x->connection, r->status, out);
    MHD_destroy_response(out);
    return result;
}

static enum MHD_Result refuse(struct exchange *x, unsigned status, const char *text)
{
    rq_http_text(&x->response, status, text);
    return queue(x, true);
}

/* --- threads that wait ---------------------------------------------------------------------------------------------------- */

/* Lock of x held. */
static void end_thread(struct exchange *x, enum work work)
{
    struct rq_http_server *s = x->server;
    wake_and_unlock(x);
    drop(x);
    pthread_mutex_lock(&s->lock);
    s->threads[work]--;
    pthread_cond_signal(&s->idle);
    pthread_mutex_unlock(&s->lock);
}

static enum work work_of(const struct rq_http_route *route)
{
    return route->takes_body || route->sends ? FOR_STREAMS : FOR_HANDLERS;
}

static void *run_waiting(void *arg)
{
    struct exchange *x = arg;
    const enum work work = work_of(x->route);
    x->route->handle(x->ctx, &x->request, &x->response);
    pthread_mutex_lock(&x->lock); /* also: the connection is suspended by now, or its body still comes */
    x->state = DONE;
    end_thread(x, work);
    return NULL;
}

/* Lock held. */
static void suspend(struct exchange *x)
{
    x->suspended = true;
    MHD_suspend_connection(x->connection);
}

/* Starts a thread for it, which has it from then on, as libmicrohttpd has; false: the answer is made, that this cannot be. */
static bool start_thread(struct rq_http_server *s, struct exchange *x, enum work work, void *(*run)(void *),
                         bool suspends)
{
    pthread_t thread;
    pthread_attr_t detached;
    pthread_mutex_lock(&s->lock);
    const bool may = s->threads[work] < THREADS_MAX;
    s->threads[work] += may;
    pthread_mutex_unlock(&s->lock);
    if (!may) {
        x->verdict = 503;
        rq_http_text(&x->response, 503, "too many requests at once\n");
        return false;
    }
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_mutex_lock(&x->lock);
    const bool made = pthread_create(&thread, &detached, run, x) == 0;
    if (made) {
        x->holders++;
        if (suspends) {
            suspend(x);
        }
    }
    pthread_mutex_unlock(&x->lock);
    pthread_attr_destroy(&detached);
    if (!made) {
        pthread_mutex_lock(&s->lock);
        s->threads[work]--;
        pthread_mutex_unlock(&s->lock);
        x->verdict = 503;
        rq_http_text(&x->response, 503, "no thread for the request\n");
    }
    return made;
}

static struct rq_guest *guest_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? info->socket_context : NULL;
}

/* To the route's handler. */
static bool hand_over(struct rq_http_server *s, struct exchange *x)
{
    x->state = RUNNING;
    rq_guests_is_served(s->guests, guest_of(x->connection));
    return start_thread(s, x, work_of(x->route), run_waiting, x->body_over);
}

/* --- requests ------------------------------------------------------------------------------------------------------------- */

/* Is method one of "GET, DELETE"? */
static bool allows(const char *methods, const char *method)
{
    size_t bytes = strlen(method);
    for (const char *at = methods; (at = strstr(at, method)) != NULL; at += bytes) {
        bool begins = at == methods || at[-1] == ' ', ends = at[bytes] == '\0' || at[bytes] == ',';
        if (begins && ends) {
            return true;
        }
    }
    return strcmp(methods, "*") == 0 || (strcmp(method, "HEAD") == 0 && strstr(methods, "GET") != NULL);
}

static bool leads_to(const struct rq_http_route *route, const char *path)
{
    return strcmp(route->path, path) == 0 || (route->prefix && strncmp(route->path, path, strlen(route->path)) == 0);
}

/* The route with that path and method, else the first with that path; false: none. */
static bool find_route(const struct rq_http_server *s, struct exchange *x)
{
    for (size_t f = 0; f < s->config.family_count; f++) {
        const struct rq_http_family *family = &s->config.families[f];
        for (size_t i = 0; i < family->count; i++) {
            const struct rq_http_route *route = &family->routes[i];
            if (!leads_to(route, x->request.path)) {
                continue;
            }
            const size_t used = strlen(x->allow);
            (void)snprintf(x->allow + used, sizeof x->allow - used, "%s%s", used > 0 ? ", " : "", route->methods);
            if (x->route == NULL || allows(route->methods, x->request.method)) {
                x->route = route;
                x->ctx = family->ctx;
            }
        }
    }
    return x->route != NULL;
}

static const char *authorization(const struct exchange *x)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
}

static bool wants_perm(const struct exchange *x)
{
    return x->server->config.credentials != NULL && x->route->perm != NULL;
}

/* May it, as one of these says? */
static bool asks(const struct exchange *x,
                 bool (*ask)(struct rq_credentials *c, const struct rq_login *l, const char *perm), bool both)
{
    struct rq_login login;
    struct rq_credentials *c = x->server->config.credentials;
    const struct rq_login *who = rq_login_parse(authorization(x), &login) ? &login : NULL;
    const bool first = ask(c, who, x->route->perm);
    return x->route->perm_too == NULL || first != both ? first : ask(c, who, x->route->perm_too);
}

bool rq_http_may(const struct rq_http_response *response, const char *perm)
{
    const struct exchange *x = (const struct exchange *)((const char *)response - offsetof(struct exchange, response));
    struct rq_credentials *c = x->server->config.credentials;
    struct rq_login login;
    return c == NULL || rq_credentials_allow(c, rq_login_parse(authorization(x), &login) ? &login : NULL, perm);
}

static void *run_login(void *arg)
{
    struct exchange *x = arg;
    const bool allowed = asks(x, rq_credentials_allow, true);
    pthread_mutex_lock(&x->lock);
    x->login = allowed ? ALLOWED : DENIED;
    end_thread(x, FOR_LOGINS);
    return NULL;
}

static bool may(const struct exchange *x)
{
    if (!wants_perm(x)) {
        return true;
    }
    const bool allowed = x->login == NOT_ASKED ? asks(x, rq_credentials_allow, true) : x->login == ALLOWED;
    if (allowed) {
        RQ_COUNT(http, auth_ok);
    } else {
        RQ_COUNT(http, auth_fail);
    }
    return allowed;
}

/* False: somebody finds out whether the password is right; again when the connection is resumed. */
static bool judge(struct rq_http_server *s, struct exchange *x)
{
    x->route = NULL;
    x->allow[0] = '\0';
    if (strcmp(x->request.method, "OPTIONS") == 0) {
        x->verdict = 200;
        x->text[0] = '\0';
    } else if (x->illegal != 0) {
        x->verdict = x->illegal;
    } else if (!rq_http_check_params(&x->request, x->text)) {
        x->verdict = 400;
    } else if (!find_route(s, x)) {
        x->verdict = 404;
    } else if (x->login == NOT_ASKED && wants_perm(x) && asks(x, rq_credentials_is_slow, false)) {
        x->login = ASKED;
        return !start_thread(s, x, FOR_LOGINS, run_login, true);
    } else if (!may(x)) {
        x->verdict = 401;
    } else if (!allows(x->route->methods, x->request.method)) {
        x->verdict = 405;
    } else {
        x->body.size_max = x->route->body_max != 0 ? x->route->body_max : RQ_HTTP_BODY_BYTES_MAX;
    }
    return true;
}

/* What nobody will look at is read and forgotten, so that the client hears why. */
static void take_body(struct exchange *x, const char *data, size_t bytes)
{
    rq_guests_gave(x->server->guests, guest_of(x->connection), bytes);
    enum rq_err err = x->verdict != 0 ? RQ_OK : rq_bytes_put(&x->body, data, bytes);
    if (err == RQ_OK && x->body.capacity > x->charged) {
        err = rq_http_charge(&x->response, x->body.capacity - x->charged) ? RQ_OK : RQ_NOMEM;
    }
    if (err != RQ_OK) {
        drop_body(x);
        x->verdict = err == RQ_TOOBIG ? 413 : 503;
        (void)snprintf(x->text, sizeof x->text, "%s\n",
                       err == RQ_TOOBIG ? "request body too large" : "too many large requests at once");
    }
}

/* Stopping waits for those that have begun. */
static bool begin_answer(struct rq_http_server *s)
{
    pthread_mutex_lock(&s->lock);
    const bool may = !atomic_load(&s->stopping);
    s->answering += may;
    pthread_mutex_unlock(&s->lock);
    return may;
}

static void end_answer(struct rq_http_server *s)
{
    pthread_mutex_lock(&s->lock);
    s->answering--;
    pthread_cond_signal(&s->idle);
    pthread_mutex_unlock(&s->lock);
}

/* What it has put off is often there before it returns: libmicrohttpd hears only of what is not, since suspending costs a wake-up. */
static enum MHD_Result call_handler(struct exchange *x)
{
    do {
        atomic_store(&x->put_off, NOT_PUT_OFF);
        x->route->handle(x->ctx, &x->request, &x->response);
        if (x->lingers) {
            x->lingers = false;
            atomic_store(&x->server->lingers, false);
        }
    } while (atomic_load(&x->put_off) == RESUMED);
    if (atomic_load(&x->put_off) == NOT_PUT_OFF) {
        return queue(x, false);
    }
    MHD_suspend_connection(x->connection);
    if (atomic_exchange(&x->put_off, SUSPENDED) == RESUMED) { /* meanwhile */
        MHD_resume_connection(x->connection);
    }
    return MHD_YES;
}

static enum MHD_Result answer(struct rq_http_server *s, struct exchange *x)
{
    if (x->verdict != 0) {
        x->response.status = x->verdict;
        if (x->text[0] != '\0') {
            rq_http_text(&x->response, x->verdict, x->text);
        }
        return queue(x, x->verdict == 503);
    }
    if (!x->seen && !begin_answer(s)) {
        return refuse(x, 503, "this node is shutting down\n");
    }
    x->seen = true;
    rq_guests_is_served(s->guests, guest_of(x->connection));
    x->request.body = x->body.size > 0 ? x->body.data : NULL;
    x->request.body_bytes = x->body.size;
    if (!x->route->waits) {
        return call_handler(x);
    }
    pthread_mutex_lock(&x->lock);
    const bool is_new = x->state == NEW, waits = x->state == RUNNING;
    x->body_over = true;
    pthread_cond_signal(&x->moved);
    if (waits) {
        suspend(x);
    }
    pthread_mutex_unlock(&x->lock);
    if (is_new && !hand_over(s, x)) {
        return queue(x, true);
    }
    return is_new || waits ? MHD_YES : queue(x, false);
}

/* A piece of the body for a thread, as far as there is room for it; what comes behind the answer is of no use. */
static enum MHD_Result pass_on(struct rq_http_server *s, struct exchange *x, const char *data, size_t *bytes)
{
    if (x->up.bytes == NULL && x->verdict == 0) { /* the first */
        if (!ring_make(&x->up)) {
            return MHD_NO;
        }
        (void)hand_over(s, x);
    }
    if (x->verdict != 0) {
        *bytes = 0;
        return MHD_YES;
    }
    pthread_mutex_lock(&x->lock);
    if (x->state != RUNNING) {
        *bytes = 0;
    } else {
        *bytes -= ring_put(&x->up, data, *bytes);
        pthread_cond_signal(&x->moved);
        if (*bytes > 0) {
            suspend(x);
        }
    }
    pthread_mutex_unlock(&x->lock);
    return MHD_YES;
}

struct framing {
    unsigned lengths, encodings, hosts;
};

static enum MHD_Result count_framing(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    struct framing *f = cls;
    (void)kind;
    (void)value;
    f->lengths += strcasecmp(key, "Content-Length") == 0;
    f->encodings += strcasecmp(key, "Transfer-Encoding") == 0;
    f->hosts += strcasecmp(key, "Host") == 0;
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload_data, size_t *upload_data_size,
                                  void **req_cls)
{
    struct rq_http_server *s = cls;
    struct exchange *x = *req_cls;
    (void)url;
    (void)version;
    if (x == NULL) {
        return MHD_NO;
    }
    x->request.method = method;
    if (!x->begun) {
        struct framing f = { 0 };
        x->begun = true;
        x->server = s;
        x->connection = connection;
        (void)MHD_get_connection_values(connection, MHD_HEADER_KIND, count_framing,
                                        &f); /* says how many: counted here */
        if (f.lengths > 1 || f.encodings > 1 || f.hosts > 1 || (f.lengths > 0 && f.encodings > 0)) {
            /* Two framings: what one reader takes for a body is the next request to another. */
            return refuse(x, 400, "ambiguous request\n");
        }
        x->request.content_type =
            MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);
        x->request.content_encoding =
            MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_ENCODING);
        x->request.last_event_id = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Last-Event-ID");
        x->judged = judge(s, x);
        return MHD_YES;
    }
    if (!x->judged) { /* the same call once more, as the connection was suspended in it */
        x->judged = judge(s, x);
        return MHD_YES;
    }
    if (*upload_data_size > 0 && x->route != NULL && x->route->takes_body) {
        return pass_on(s, x, upload_data, upload_data_size);
    }
    if (*upload_data_size > 0) {
        take_body(x, upload_data, *upload_data_size);
        *upload_data_size = 0;
        return MHD_YES;
    }
    return answer(s, x);
}

/* --- life ------------------------------------------------------------------------------------------------------------------ */

static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    (void)cls;
    (void)connection;
    target = rq_http_origin_form(target);
    size_t bytes = strlen(target);
    struct exchange *x = calloc(1, sizeof *x + 2 * (bytes + 1));
    if (x != NULL) {
        pthread_mutex_init(&x->lock, NULL);
        pthread_cond_init(&x->moved, NULL);
        x->holders = 1;
        x->response.status = 200;
        rq_bytes_init(&x->body, RQ_HTTP_BODY_BYTES_MAX);
        rq_bytes_init(&x->response.body, ANSWER_BYTES_MAX);
        memcpy(x->target, target, bytes + 1);
        memcpy(x->target + bytes + 1, target, bytes + 1);
        x->request.target = x->target + bytes + 1;
        if (bytes > RQ_HTTP_TARGET_BYTES_MAX) {
            x->illegal = 414;
            (void)snprintf(x->text, sizeof x->text, "request target too long\n");
        } else if (!rq_http_split_target(x->target, &x->request, x->text)) {
            x->illegal = 400;
        }
    }
    return x;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **req_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct rq_http_server *s = cls;
    struct exchange *x = *req_cls;
    (void)code;
    rq_guests_waits(s->guests, guest_of(connection));
    *req_cls = NULL;
    if (x != NULL) {
        const bool seen = x->seen;
        pthread_mutex_lock(&x->lock);
        x->gone = true;
        pthread_cond_signal(&x->moved);
        pthread_mutex_unlock(&x->lock);
        drop(x);
        if (seen) {
            end_answer(s);
        }
    }
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct rq_http_server *s = cls;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        atomic_fetch_sub(&s->count, 1);
        rq_guests_leave(s->guests, *socket_context);
        return;
    }
    atomic_fetch_add(&s->count, 1);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    *socket_context = info != NULL ? rq_guests_enter(s->guests, info->connect_fd) : NULL;
    if (s->https != NULL) {
        rq_https_begin(s->https, connection);
    }
}

static void on_polled_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                                 enum MHD_ConnectionNotificationCode what)
{
    struct rq_http_server *s = cls;
    on_connection(cls, connection, socket_context, what);
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        polled_here--;
        atomic_fetch_sub(&s->polled, 1);
        return;
    }
    polled_here++;
    if (atomic_fetch_add(&s->polled, 1) + 1 == s->polled_max) {
        rq_http_loop_wake(s->loop);
    }
}

static bool accepts(void *ctx, unsigned door)
{
    struct rq_http_server *s = ctx;
    return (door == DOOR_SOCKET || atomic_load(&s->polled) >= s->polled_max) && atomic_load(&s->count) < s->room;
}

static void each_second(void *ctx)
{
    const struct rq_http_server *s = ctx;
    rq_guests_stir(s->guests);
}

/* Half of the descriptors: databases, applications and other nodes want some as well. */
static unsigned connections_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return CONNECTIONS_MAX / 10;
    }
    return limit.rlim_cur / 2 < CONNECTIONS_MAX ? (unsigned)(limit.rlim_cur / 2) : CONNECTIONS_MAX;
}

/* libmicrohttpd's own decoding is put out of action. */
static size_t leave_as_is(void *cls, struct MHD_Connection *connection, char *s)
{
    (void)cls;
    (void)connection;
    return strlen(s);
}

static int listen_on(const char *address, char text[256])
{
    struct rq_addresses addresses;
    const char *unknown;
    if (rq_resolve_now(address, true, &addresses, &unknown) != RQ_OK) {
        (void)snprintf(text, 256, "listen tcp: lookup %.180s: %s", address, unknown);
        return -1;
    }
    int fd = -1, why = 0, on = 1;
    for (size_t i = 0; i < addresses.count && fd < 0; i++) {
        const struct sockaddr *a = (const struct sockaddr *)&addresses.all[i];
        fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            why = errno;
            continue;
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* else a restart may have to wait */
        if (bind(fd, a, addresses.bytes[i]) != 0 || listen(fd, 512) != 0) {
            why = errno;
            close(fd);
            fd = -1;
        }
    }
    if (fd < 0) {
        (void)snprintf(text, 256, "listen tcp %.180s: %s", address, strerror(why));
    }
    return fd;
}

static bool has_socket(const struct rq_http_server *s)
{
    return s->config.socket != NULL && s->config.socket[0] != '\0';
}

typedef void (*connection_notice)(void *cls, struct MHD_Connection *connection, void **socket_context,
                                  enum MHD_ConnectionNotificationCode what);

static struct MHD_Daemon *start_daemon(struct rq_http_server *s, unsigned flags, connection_notice notice,
                                       unsigned room, int fd, unsigned threads)
{
    const struct MHD_OptionItem options[] = {
        { MHD_OPTION_LISTEN_SOCKET, fd, NULL },
        { MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)threads, NULL },
        { MHD_OPTION_END, 0, NULL },
    };
    const struct MHD_OptionItem tls[] = {
        { MHD_OPTION_HTTPS_CERT_CALLBACK, 0, rq_https_certificate_callback() },
        { MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)rq_https_priorities },
        { MHD_OPTION_END, 0, NULL },
    };
    return MHD_start_daemon(
        flags | MHD_ALLOW_SUSPEND_RESUME | (s->https != NULL ? MHD_USE_TLS : 0), 0, NULL, NULL, on_request, s,
        MHD_OPTION_CONNECTION_LIMIT, room, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
        MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1, MHD_OPTION_URI_LOG_CALLBACK, on_target, NULL, MHD_OPTION_UNESCAPE_CALLBACK,
        leave_as_is, NULL, MHD_OPTION_NOTIFY_CONNECTION, notice, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
        MHD_OPTION_ARRAY, s->https != NULL ? tls : &tls[sizeof tls / sizeof *tls - 1], MHD_OPTION_ARRAY,
        fd >= 0 ? options : &options[sizeof options / sizeof *options - 1], MHD_OPTION_END);
}

static enum rq_err open_doors(struct rq_http_server *s, char text[256])
{
    s->doors[DOOR_PORT] = listen_on(s->config.address, text);
    if (s->doors[DOOR_PORT] < 0) {
        return RQ_IO;
    }
    s->doors[DOOR_SOCKET] = has_socket(s) ? rq_http_local_listen(s->config.socket, text) : -1;
    if (has_socket(s) && s->doors[DOOR_SOCKET] < 0) {
        return RQ_IO;
    }
    (void)snprintf(text, 256, "libmicrohttpd does not start");
    struct rq_http_loop_config loop = {
        .daemon = start_daemon(s, MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, on_connection, s->room, -1, 0),
        .doors = { s->doors[DOOR_PORT], s->doors[DOOR_SOCKET] },
        .accepts = accepts,
        .each_second = each_second,
        .ctx = s,
    };
    if (loop.daemon == NULL || rq_http_loop_new(&loop, &s->loop) != RQ_OK) {
        return RQ_IO;
    }
    const int own = fcntl(s->doors[DOOR_PORT], F_DUPFD_CLOEXEC, 0);
    s->polling =
        own >= 0 ? start_daemon(s, MHD_USE_POLL_INTERNAL_THREAD, on_polled_connection, s->polled_max, own, POLL_THREADS)
                 : NULL;
    if (s->polling == NULL && own >= 0) {
        close(own);
    }
    return s->polling != NULL ? RQ_OK : RQ_IO;
}

static void server_free(struct rq_http_server *s)
{
    if (s->polling != NULL) {
        MHD_stop_daemon(s->polling);
    }
    rq_http_loop_free(s->loop);
    for (unsigned i = 0; i < RQ_HTTP_LOOP_DOORS; i++) {
        if (s->doors[i] >= 0) {
            close(s->doors[i]);
        }
    }
    rq_https_free(s->https);
    rq_guests_free(s->guests);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->idle);
    free(s);
}

enum rq_err rq_http_new(const struct rq_http_config *config, struct rq_http_server **ret_server, char text[256])
{
    struct rq_http_server *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    s->config = *config;
    s->config.bodies_max = config->bodies_max != 0 ? config->bodies_max : RQ_HTTP_BODIES_BYTES_MAX;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->idle, NULL);
    s->doors[DOOR_PORT] = s->doors[DOOR_SOCKET] = -1;
    s->room = connections_max();
    s->polled_max = s->room < POLLED_MAX ? s->room : POLLED_MAX;
    enum rq_err err = rq_guests_new(s->room, &s->guests);
    err = err == RQ_OK && config->tls != NULL ? rq_https_new(config->tls, &s->https, text) : err;
    err = err == RQ_OK ? open_doors(s, text) : err;
    if (err != RQ_OK) {
        server_free(s);
        return err;
    }
    *ret_server = s;
    return RQ_OK;
}

/* Lock held. */
static bool is_idle(const struct rq_http_server *s)
{
    unsigned threads = 0;
    for (unsigned i = 0; i < WORKS; i++) {
        threads += s->threads[i];
    }
    return threads + s->answering == 0;
}

void rq_http_free(struct rq_http_server *s)
{
    if (s == NULL) {
        return;
    }
    struct timespec until;
    if (has_socket(s)) {
        (void)unlink(s->config.socket); /* else the next start does it */
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_SECONDS;
    int waited = 0;
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->stopping, true);
    while (!is_idle(s) && waited == 0) {
        waited = pthread_cond_timedwait(&s->idle, &s->lock, &until);
    }
    const bool idle = is_idle(s);
    pthread_mutex_unlock(&s->lock);
    if (idle) { /* a suspended connection cannot be stopped */
        server_free(s);
    }
}
