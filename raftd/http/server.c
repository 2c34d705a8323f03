#include "raftd/http/server.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raftd/net/address.h"

#define THREADS          2
#define CONNECTIONS_MAX  1000
#define IDLE_SECONDS     60
#define ANSWER_BYTES_MAX (64u << 20)

struct rq_http_server {
    struct rq_http_config config;
    struct MHD_Daemon *daemon;
};

/* One request, from its first line to its end. */
struct exchange {
    struct rq_http_request request;
    bool begun, legal;
    size_t body_bytes;
    char target[];
};

/* --- decoding ----------------------------------------------------------------------------------------------------------- */

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool decode(char *s, bool plus_is_blank)
{
    char *out = s;
    for (; *s != '\0'; s++) {
        if (*s == '%') {
            int high = hex(s[1]), low = high < 0 ? -1 : hex(s[2]);
            if (low < 0 || high * 16 + low == 0) {
                return false;
            }
            *out++ = (char)(high * 16 + low);
            s += 2;
        } else {
            *out++ = *s == '+' && plus_is_blank ? ' ' : *s;
        }
    }
    *out = '\0';
    return true;
}

bool rq_http_split_target(char *target, struct rq_http_request *request)
{
    char *query = strchr(target, '?');
    request->path = target;
    request->param_count = 0;
    if (query != NULL) {
        *query++ = '\0';
    }
    if (!decode(target, false)) {
        return false;
    }
    while (query != NULL && *query != '\0') {
        char *next = strchr(query, '&');
        if (next != NULL) {
            *next++ = '\0';
        }
        if (*query != '\0') {
            char *value = strchr(query, '=');
            if (strchr(query, ';') != NULL || request->param_count == RQ_HTTP_PARAMS_MAX) {
                return false;
            }
            if (value != NULL) {
                *value++ = '\0';
            }
            if (!decode(query, true) || (value != NULL && !decode(value, true))) {
                return false;
            }
            request->params[request->param_count++] = (struct rq_http_param){ query, value != NULL ? value : "" };
        }
        query = next;
    }
    return true;
}

const char *rq_http_param(const struct rq_http_request *request, const char *key)
{
    for (size_t i = 0; i < request->param_count; i++) {
        if (strcmp(request->params[i].key, key) == 0) {
            return request->params[i].value;
        }
    }
    return NULL;
}

void rq_http_text(struct rq_http_response *response, unsigned status, const char *text)
{
    response->status = status;
    response->content_type = "text/plain; charset=utf-8";
    response->body.size = 0;
    if (rq_bytes_put(&response->body, text, strlen(text)) != RQ_OK) {
        response->status = 500;
    }
}

/* --- answering ------------------------------------------------------------------------------------------------------------ */

static enum MHD_Result queue(struct rq_http_server *s, struct MHD_Connection *connection,
                             const struct rq_http_response *r, const char *allow, bool close_after)
{
    struct MHD_Response *out = MHD_create_response_from_buffer_copy(r->body.size, r->body.data);
    if (out == NULL) {
        return MHD_NO; /* closes the connection */
    }
    /* A header that cannot be added for lack of memory is left out. */
    (void)MHD_add_response_header(out, "X-Rqlite-Version", s->config.version);
    (void)MHD_add_response_header(out, "Access-Control-Allow-Methods", "OPTIONS, GET, POST");
    (void)MHD_add_response_header(out, "Access-Control-Allow-Headers", "Content-Type");
    if (r->content_type != NULL) {
        (void)MHD_add_response_header(out, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type);
    }
    if (allow != NULL) {
        (void)MHD_add_response_header(out, MHD_HTTP_HEADER_ALLOW, allow);
    }
    if (close_after) {
        (void)MHD_add_response_header(out, MHD_HTTP_HEADER_CONNECTION, "close");
    }
    enum MHD_Result result = MHD_queue_response(connection, r->status, out);
    MHD_destroy_response(out);
    return result;
}

static const struct rq_http_route *route_of(const struct rq_http_server *s, const char *path)
{
    for (size_t i = 0; i < s->config.route_count; i++) {
        const struct rq_http_route *route = &s->config.routes[i];
        if (strcmp(route->path, path) == 0 || (route->prefix && strncmp(route->path, path, strlen(route->path)) == 0)) {
            return route;
        }
    }
    return NULL;
}

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
    return strcmp(method, "HEAD") == 0 && strstr(methods, "GET") != NULL;
}

static enum MHD_Result answer(struct rq_http_server *s, struct MHD_Connection *connection, struct exchange *x)
{
    struct rq_http_response response = { .status = 200 };
    const char *allow = NULL;
    rq_bytes_init(&response.body, ANSWER_BYTES_MAX);

    const struct rq_http_route *route = route_of(s, x->request.path);
    if (strcmp(x->request.method, "OPTIONS") != 0) {
        if (route == NULL) {
            response.status = 404;
        } else if (!allows(route->methods, x->request.method)) {
            response.status = 405;
            allow = route->methods;
        } else {
            route->handle(s->config.ctx, &x->request, &response);
        }
    }
    enum MHD_Result result = queue(s, connection, &response, allow, false);
    rq_bytes_fini(&response.body);
    return result;
}

static enum MHD_Result refuse(struct rq_http_server *s, struct MHD_Connection *connection, unsigned status,
                              const char *text)
{
    struct rq_http_response response = { .status = status };
    rq_bytes_init(&response.body, 4096);
    rq_http_text(&response, status, text);
    enum MHD_Result result = queue(s, connection, &response, NULL, true);
    rq_bytes_fini(&response.body);
    return result;
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
    (void)upload_data;
    if (x == NULL) {
        return MHD_NO;
    }
    if (!x->begun) {
        struct framing f = { 0 };
        x->begun = true;
        x->request.method = method;
        (void)MHD_get_connection_values(connection, MHD_HEADER_KIND, count_framing,
                                        &f); /* says how many: counted here */
        if (f.lengths > 1 || f.encodings > 1 || f.hosts > 1 || (f.lengths > 0 && f.encodings > 0)) {
            /* Two framings: what one reader takes for a body is the next request to another. */
            return refuse(s, connection, 400, "ambiguous request\n");
        }
        if (!x->legal) {
            return refuse(s, connection, 400, "invalid URL escape\n");
        }
        return MHD_YES;
    }
    if (*upload_data_size > 0) {
        x->body_bytes += *upload_data_size;
        *upload_data_size = 0;
        return x->body_bytes <= RQ_HTTP_BODY_BYTES_MAX ? MHD_YES : MHD_NO;
    }
    x->request.method = method;
    return answer(s, connection, x);
}

/* --- life ------------------------------------------------------------------------------------------------------------------ */

static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    (void)cls;
    (void)connection;
    size_t bytes = strlen(target);
    struct exchange *x = calloc(1, sizeof *x + bytes + 1);
    if (x != NULL) {
        memcpy(x->target, target, bytes + 1);
        x->legal = bytes <= RQ_HTTP_TARGET_BYTES_MAX && rq_http_split_target(x->target, &x->request);
    }
    return x;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **req_cls,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)connection;
    (void)code;
    free(*req_cls);
    *req_cls = NULL;
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
    char host[256], port[64];
    struct addrinfo *list = NULL;
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    if (!rq_split_host_port(address, host, port)) {
        (void)snprintf(text, 256, "listen tcp: address %.200s: not host:port", address);
        return -1;
    }
    int failed = getaddrinfo(host[0] != '\0' ? host : NULL, port, &hints, &list);
    if (failed != 0) {
        (void)snprintf(text, 256, "listen tcp: lookup %.180s: %s", address, gai_strerror(failed));
        return -1;
    }
    int fd = -1, why = 0, on = 1;
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        if (fd < 0) {
            why = errno;
            continue;
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* else a restart may have to wait */
        if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 512) != 0) {
            why = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0) {
        (void)snprintf(text, 256, "listen tcp %.180s: %s", address, strerror(why));
    }
    return fd;
}

enum rq_err rq_http_new(const struct rq_http_config *config, struct rq_http_server **ret_server, char text[256])
{
    struct rq_http_server *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return RQ_NOMEM;
    }
    s->config = *config;
    int fd = listen_on(config->address, text);
    if (fd < 0) {
        free(s);
        return RQ_IO;
    }
    /* The poll back end: the internal epoll thread stalls when 128 connections are ready at once. */
    s->daemon = MHD_start_daemon(MHD_USE_POLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET,
                                 fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS, MHD_OPTION_CONNECTION_LIMIT,
                                 (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
                                 MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1, MHD_OPTION_URI_LOG_CALLBACK, on_target, NULL,
                                 MHD_OPTION_UNESCAPE_CALLBACK, leave_as_is, NULL, MHD_OPTION_NOTIFY_COMPLETED,
                                 on_completed, NULL, MHD_OPTION_END);
    if (s->daemon == NULL) {
        (void)snprintf(text, 256, "libmicrohttpd does not start");
        close(fd);
        free(s);
        return RQ_IO;
    }
    *ret_server = s;
    return RQ_OK;
}

void rq_http_free(struct rq_http_server *s)
{
    if (s != NULL) {
        MHD_stop_daemon(s->daemon);
        free(s);
    }
}
