/* http server: which route answers what, in which order; answers that take their time, or are larger than memory should be; and
 * clients that leave in the midst of them. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raftd/http/server.h"
#include "raftd/run/clock.h"
#include "tests/support/tap.h"

#define BIG (8u << 20)

#define BODIES_MAX (8u << 20)

static struct rq_http_server *server;
static int port;
static atomic_uint streams_full, streams_ended, held;
static atomic_int stream_err;
static atomic_bool let_go;

static void on_echo(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    char text[256];
    (void)snprintf(text, sizeof text, "%s %s %s %zu %s", (const char *)ctx, request->method, request->path,
                   request->body_bytes, request->content_type != NULL ? request->content_type : "-");
    rq_http_text(response, 200, text);
}

static void on_wait(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    if (rq_http_has(request, "charge")) {
        (void)rq_http_charge(response, BODIES_MAX);
    }
    atomic_fetch_add(&held, 1);
    while (!atomic_load(&let_go)) {
        usleep(1000);
    }
    on_echo(ctx, request, response);
}

/* Without waiting as far as there is room at once, the rest as the client takes it. */
static void on_stream(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    static _Thread_local uint8_t piece[100003];
    size_t sent = 0, taken;
    bool full = false;
    enum rq_err err = RQ_OK;
    (void)ctx;
    response->content_type = "application/octet-stream";
    while (sent < BIG && err == RQ_OK) {
        size_t n = BIG - sent < sizeof piece ? BIG - sent : sizeof piece;
        for (size_t i = 0; i < n; i++) {
            piece[i] = (uint8_t)((sent + i) % 251);
        }
        taken = n;
        err = full ? rq_http_send(response, piece, n) : rq_http_offer(response, piece, n, 0, &taken);
        sent += taken;
        if (taken < n) {
            full = true;
            atomic_fetch_add(&streams_full, 1);
        }
    }
    response->broken = rq_http_has(request, "broken");
    atomic_store(&stream_err, (int)err);
    atomic_fetch_add(&streams_ended, 1);
}

/* Says how much it was, and whether it was what body_byte() gives; ?slow: takes nothing before it is let go; ?early: takes one piece. */
static void on_body(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    static _Thread_local uint8_t piece[70001];
    size_t taken = 0, n = 0;
    bool same = true;
    char text[64];
    enum rq_err err;
    (void)ctx;
    atomic_fetch_add(&held, 1);
    while (rq_http_has(request, "slow") && !atomic_load(&let_go)) {
        usleep(1000);
    }
    do {
        err = rq_http_take(response, piece, sizeof piece, &n);
        for (size_t i = 0; i < n; i++) {
            same = same && piece[i] == (uint8_t)((taken + i) % 251);
        }
        taken += n;
    } while (err == RQ_OK && n > 0 && !rq_http_has(request, "early"));
    (void)snprintf(text, sizeof text, "%zu %s", rq_http_has(request, "early") ? 0 : taken, same ? "same" : "other");
    rq_http_text(response, 200, text);
    atomic_store(&stream_err, (int)err);
    atomic_fetch_add(&streams_ended, 1);
}

/* Suspends itself as often as `times` says, alternately resumed before it returns and by another thread. */
struct rounds {
    unsigned left, made;
};

static atomic_uint forgotten;
static atomic_bool keep;

static void *run_resume(void *arg)
{
    while (atomic_load(&keep)) {
        usleep(1000);
    }
    rq_http_resume(arg);
    return NULL;
}

static void forget_rounds(void *progress)
{
    free(progress);
    atomic_fetch_add(&forgotten, 1);
}

static void on_later(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rounds *r = response->progress;
    pthread_t thread;
    if (r == NULL) {
        r = calloc(1, sizeof *r);
        r->left = (unsigned)strtoul(rq_http_param(request, "times"), NULL, 10);
        response->progress = r;
        response->forget = forget_rounds;
        atomic_fetch_add(&held, 1);
    }
    if (r->left == 0) {
        char text[64];
        (void)snprintf(text, sizeof text, "%s: %u rounds, %zu", (const char *)ctx, r->made, request->body_bytes);
        rq_http_text(response, 200, text);
        return;
    }
    rq_http_suspend(response);
    r->left--;
    if (r->made++ % 2 == 0) {
        check_eq(pthread_create(&thread, NULL, run_resume, response), 0);
        pthread_detach(thread);
    } else {
        rq_http_resume(response);
    }
}

/* Numbers up to `numbers`, as they become more, and an end at NUMBERS; all that are open are woken with each. */
#define NUMBERS 2000u

struct numbers {
    struct rq_http_response *response;
    unsigned at;
};

static pthread_mutex_t numbers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct numbers *open_numbers[32]; /* guarded by numbers_lock */
static atomic_uint numbers;
static atomic_bool self_woken;

static ssize_t pull_numbers(void *progress, void *to, size_t max)
{
    struct numbers *n = progress;
    char text[16];
    if (n->at == NUMBERS) {
        return RQ_HTTP_PULL_END;
    }
    if (n->at == atomic_load(&numbers)) {
        if (atomic_load(&self_woken)) { /* one more comes just when it was seen that there is none */
            atomic_fetch_add(&numbers, 1);
            rq_http_wake(n->response);
        }
        return 0;
    }
    const int bytes = snprintf(text, sizeof text, "%u,", n->at++);
    check((size_t)bytes <= max);
    memcpy(to, text, (size_t)bytes);
    return bytes;
}

static void forget_numbers(void *progress)
{
    pthread_mutex_lock(&numbers_lock);
    for (size_t i = 0; i < sizeof open_numbers / sizeof *open_numbers; i++) {
        if (open_numbers[i] == progress) {
            open_numbers[i] = NULL;
        }
    }
    pthread_mutex_unlock(&numbers_lock);
    free(progress);
    atomic_fetch_add(&forgotten, 1);
}

static void on_numbers(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct numbers *n = calloc(1, sizeof *n);
    size_t i = 0;
    (void)ctx, (void)request;
    n->response = response;
    response->progress = n;
    response->forget = forget_numbers;
    response->pull = pull_numbers;
    response->cache_control = "no-store";
    pthread_mutex_lock(&numbers_lock);
    while (open_numbers[i] != NULL) {
        i++;
    }
    open_numbers[i] = n;
    pthread_mutex_unlock(&numbers_lock);
    atomic_fetch_add(&held, 1);
}

static void one_more_number(void)
{
    atomic_fetch_add(&numbers, 1);
    pthread_mutex_lock(&numbers_lock);
    for (size_t i = 0; i < sizeof open_numbers / sizeof *open_numbers; i++) {
        if (open_numbers[i] != NULL) {
            rq_http_wake(open_numbers[i]->response);
        }
    }
    pthread_mutex_unlock(&numbers_lock);
}

/* BIG bytes in a file, and three behind them. */
static void on_file(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    static uint8_t piece[1u << 20];
    (void)ctx, (void)request;
    response->file = memfd_create("answer", MFD_CLOEXEC);
    check(response->file >= 0);
    for (size_t at = 0; at < BIG; at += sizeof piece) {
        for (size_t i = 0; i < sizeof piece; i++) {
            piece[i] = (uint8_t)((at + i) % 251);
        }
        check_eq(write(response->file, piece, sizeof piece), sizeof piece);
    }
    response->file_bytes = BIG;
    rq_http_text(response, 200, "end");
    if (rq_http_has(request, "short")) {
        check_eq(ftruncate(response->file, 1000), 0);
    }
}

/* Suspended until the client has left. */
static void *run_until_left(void *arg)
{
    atomic_fetch_add(&held, 1);
    while (!rq_http_has_left(arg)) {
        usleep(1000);
    }
    rq_http_resume(arg);
    return NULL;
}

static void on_leaving(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    pthread_t thread;
    (void)ctx, (void)request;
    if (response->progress != NULL) {
        rq_http_text(response, 200, "left");
        return;
    }
    response->progress = calloc(1, 1);
    response->forget = forget_rounds;
    rq_http_suspend(response);
    check_eq(pthread_create(&thread, NULL, run_until_left, response), 0);
    pthread_detach(thread);
}

/* Says whether it may, who asks twice; ?held: stays until it is let go. */
static void on_linger(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    const bool asked = rq_http_may_linger(response), may = rq_http_may_linger(response);
    (void)ctx;
    check_eq(may, asked);
    atomic_fetch_add(&held, 1);
    while (may && rq_http_has(request, "held") && !atomic_load(&let_go)) {
        usleep(1000);
    }
    rq_http_text(response, 200, may ? "may" : "must not");
}

static const struct rq_http_route first_routes[] = {
    { "/file", false, false, "GET", "status", on_file },
    { "/leaving", false, false, "GET", "status", on_leaving },
    { "/linger", false, false, "GET", "status", on_linger },
    { "/numbers", false, false, "GET", "status", on_numbers },
    { "/later", false, false, "GET, POST", "status", on_later, .body_max = 3u << 20 },
    { "/echo", true, false, "GET, POST", "status", on_echo },
    { "/exact", false, false, "GET", "status", on_echo },
    { "/typed", false, false, "GET", "status", on_echo, .type = "a/type" },
    { "/exact", false, false, "DELETE", "load", on_echo },
};
static const struct rq_http_route second_routes[] = {
    { "/wait", false, true, "GET", "status", on_wait },
    { "/stream", false, true, "GET", "status", on_stream, .sends = true },
    { "/body", false, true, "POST", "status", on_body, .takes_body = true },
};
static struct rq_http_family families[] = { { first_routes, sizeof first_routes / sizeof *first_routes,
                                              (void *)(uintptr_t)"one" },
                                            { second_routes, 3, (void *)(uintptr_t)"two" } };

static void start(void)
{
    char address[64], text[256];
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t bytes = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(fd >= 0);
    check_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    check_eq(getsockname(fd, (struct sockaddr *)&a, &bytes), 0);
    close(fd);
    port = ntohs(a.sin_port);
    (void)snprintf(address, sizeof address, "127.0.0.1:%d", port);
    const struct rq_http_config config = {
        .address = address, .version = "9", .families = families, .family_count = 2, .bodies_max = BODIES_MAX
    };
    check_eq(rq_http_new(&config, &server, text), RQ_OK);
    atomic_store(&let_go, false);
    atomic_store(&held, 0);
    atomic_store(&streams_full, 0);
    atomic_store(&streams_ended, 0);
    atomic_store(&forgotten, 0);
    atomic_store(&keep, false);
}

static void stop(void)
{
    rq_http_free(server);
}

static int dial(const char *request)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(fd >= 0);
    check_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    check_eq(write(fd, request, strlen(request)), strlen(request));
    return fd;
}

/* Until the other side closes, or limit bytes have come. */
static size_t take(int fd, char *to, size_t limit)
{
    size_t size = 0;
    ssize_t n;
    while (size < limit && (n = read(fd, to + size, limit - size)) > 0) {
        size += (size_t)n;
    }
    to[size] = '\0';
    return size;
}

static const char *ask(const char *line, const char *rest)
{
    static char answer[65536];
    char request[65536];
    (void)snprintf(request, sizeof request, "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s", line, rest);
    int fd = dial(request);
    (void)take(fd, answer, sizeof answer - 1);
    close(fd);
    return answer;
}

static bool answers(const char *answer, unsigned status, const char *piece)
{
    char head[32];
    (void)snprintf(head, sizeof head, "HTTP/1.1 %u ", status);
    return strncmp(answer, head, strlen(head)) == 0 && strstr(answer, piece) != NULL;
}

static void await(atomic_uint *what, unsigned value)
{
    for (int i = 0; i < 10000 && atomic_load(what) < value; i++) {
        usleep(1000);
    }
    check(atomic_load(what) >= value);
}

static void routes_are_found_by_path_and_method(void)
{
    start();
    check(answers(ask("GET /echo", "\r\n"), 200, "one GET /echo 0 -"));
    check(answers(ask("GET /echo/more?x=%20", "\r\n"), 200, "one GET /echo/more 0 -"));
    check(answers(ask("POST /echo", "Content-Type: a/b\r\nContent-Length: 3\r\n\r\nabc"), 200, "one POST /echo 3 a/b"));
    check(answers(ask("DELETE /exact", "\r\n"), 200, "one DELETE /exact"));
    check(answers(ask("GET /exact/more", "\r\n"), 404, "X-Rqlite-Version: 9"));
    check(answers(ask("POST /exact", "Content-Length: 0\r\n\r\n"), 405, "Allow: GET, DELETE"));
    check(answers(ask("OPTIONS /nowhere?timeout=x", "\r\n"), 200, ""));
    check(answers(ask("GET /echo?timeout=x", "\r\n"), 400, "timeout is not a valid duration\n"));
    check(answers(ask("POST /exact?timeout=x", "Content-Length: 0\r\n\r\n"), 400, "timeout"));
    check(answers(ask("GET /nowhere?timeout=x", "\r\n"), 400, "timeout"));
    check(answers(ask("GET /echo?a%zz", "\r\n"), 400, "invalid URL escape \"%zz\"\n"));
    check(answers(ask("GET /echo?a=%4", "\r\n"), 400, "invalid URL escape \"%4\"\n"));
    check(answers(ask("GET /echo%\x01\xff?a", "\r\n"), 400, "invalid URL escape \"%??\"\n"));
    check(answers(ask("GET /echo?a;b", "\r\n"), 400, "invalid semicolon separator in query\n"));
    check(answers(ask("OPTIONS /echo?a;b", "\r\n"), 200, "Content-Length: 0"));
    check(answers(ask("GET http://x:1/echo?y", "\r\n"), 200, "one GET /echo 0 -"));
    check(answers(ask("GET HTTPS://x/echo", "\r\n"), 200, "one GET /echo 0 -"));
    check(answers(ask("PUT /typed", "Content-Length: 0\r\n\r\n"), 405, "Content-Type: a/type\r\n"));
    check(answers(ask("GET /typed", "\r\n"), 200, "Content-Type: text/plain; charset=utf-8\r\n"));
    check(answers(ask("POST /echo", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"), 400, ""));
    stop();
}

static void a_body_above_the_limit_is_not_taken(void)
{
    char request[256], answer[4096];
    static char body[RQ_HTTP_BODY_BYTES_MAX + 1];
    start();
    for (int more = 0; more < 2; more++) {
        const size_t bytes = RQ_HTTP_BODY_BYTES_MAX + (unsigned)more;
        (void)snprintf(request, sizeof request,
                       "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", bytes);
        int fd = dial(request);
        for (size_t at = 0; at < bytes;) {
            ssize_t n = send(fd, body + at, bytes - at, MSG_NOSIGNAL);
            if (n <= 0) {
                break;
            }
            at += (size_t)n;
        }
        (void)take(fd, answer, sizeof answer - 1);
        check(more ? answers(answer, 413, "request body too large\n") : answers(answer, 200, "1048576"));
        close(fd);
    }
    /* A route may allow for more. */
    (void)snprintf(request, sizeof request,
                   "POST /later?times=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
                   sizeof body);
    int fd = dial(request);
    check_eq(send(fd, body, sizeof body, MSG_NOSIGNAL), sizeof body);
    (void)take(fd, answer, sizeof answer - 1);
    check(answers(answer, 200, "1048577"));
    close(fd);
    stop();
}

static void what_others_have_sent_keeps_no_small_body_out(void)
{
    char answer[4096];
    static char large[40000] = "Content-Length: 30000\r\n\r\n";
    const size_t head = strlen(large);
    memset(large + head, 'x', 30000);
    large[head + 30000] = '\0';
    start();
    int fd = dial("GET /wait?charge HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); /* takes all there is */
    await(&held, 1);
    check(answers(ask("POST /echo", "Content-Length: 3\r\n\r\nabc"), 200, "POST /echo 3"));
    check(answers(ask("POST /echo", large), 503, "too many large requests at once\n"));
    atomic_store(&let_go, true);
    (void)take(fd, answer, sizeof answer - 1);
    close(fd);
    bool fits = false;
    for (int i = 0; i < 10000 && !fits; i++) { /* once the server has forgotten it */
        fits = answers(ask("POST /echo", large), 200, "POST /echo 30000");
        usleep(1000);
    }
    check(fits);
    stop();
}

static void a_handler_may_come_back_to_a_request(void)
{
    char answer[4096];
    int fds[100];
    start();
    check(answers(ask("POST /later?times=5", "Content-Length: 3\r\n\r\nabc"), 200, "one: 5 rounds, 3"));
    /* Far more than there are threads, on connections that go on to be used. */
    atomic_store(&keep, true);
    for (int i = 0; i < 100; i++) {
        fds[i] = dial(
            "GET /later?times=3 HTTP/1.1\r\nHost: x\r\n\r\n"
            "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }
    await(&held, 101);
    check(answers(ask("GET /echo", "\r\n"), 200, "one GET /echo"));
    atomic_store(&keep, false);
    for (int i = 0; i < 100; i++) {
        (void)take(fds[i], answer, sizeof answer - 1);
        check(answers(answer, 200, "one: 3 rounds, 0") && strstr(answer, "one GET /echo") != NULL);
        close(fds[i]);
    }
    await(&forgotten, 101);
    stop();
}

/* Of a chunked answer, each chunk a number: so many in a row. */
static unsigned count_numbers(const char *answer)
{
    const char *at = answer;
    unsigned count = 0;
    char text[16];
    do {
        (void)snprintf(text, sizeof text, "\n%u,\r", count);
        at = strstr(at, text);
        count += at != NULL;
    } while (at != NULL);
    return count;
}

static void an_answer_may_be_pulled_as_it_comes(void)
{
    static char answer[1u << 20];
    int fds[24];
    start();
    atomic_store(&numbers, 0);
    for (int i = 0; i < 24; i++) {
        fds[i] = dial("GET /numbers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }
    await(&held, 24);
    for (unsigned i = 0; i < NUMBERS; i++) {
        one_more_number();
        if (i == NUMBERS / 2) { /* they hold no thread, and one may leave */
            check(answers(ask("GET /echo", "\r\n"), 200, "one GET /echo"));
            close(fds[23]);
        }
    }
    for (int i = 0; i < 23; i++) {
        (void)take(fds[i], answer, sizeof answer - 1);
        check(answers(answer, 200, "Cache-Control: no-store"));
        check_eq(count_numbers(answer), NUMBERS);
        close(fds[i]);
    }
    await(&forgotten, 24);
    stop();
}

static void a_wake_while_it_is_pulled_counts(void)
{
    static char answer[1u << 20];
    start();
    atomic_store(&numbers, 0);
    atomic_store(&self_woken, true);
    int fd = dial("GET /numbers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    (void)take(fd, answer, sizeof answer - 1);
    atomic_store(&self_woken, false);
    check_eq(count_numbers(answer), NUMBERS);
    close(fd);
    stop();
}

static void stopping_waits_for_what_is_suspended(void)
{
    char answer[4096];
    start();
    atomic_store(&keep, true);
    int fd = dial("GET /later?times=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    await(&held, 1);
    atomic_store(&keep, false);
    stop();
    (void)take(fd, answer, sizeof answer - 1);
    check(answers(answer, 200, "one: 1 rounds, 0"));
    close(fd);
    check_eq(atomic_load(&forgotten), 1);
}

static bool may_linger(int fd)
{
    static const char request[] = "GET /linger HTTP/1.1\r\nHost: x\r\n\r\n";
    char answer[4096];
    size_t size = 0, n;
    check_eq(write(fd, request, sizeof request - 1), sizeof request - 1);
    do {
        n = take(fd, answer + size, 1);
        size += n;
    } while (n == 1 && strstr(answer, "\r\n\r\nmay") == NULL && strstr(answer, "\r\n\r\nmust not") == NULL);
    return strstr(answer, "\r\n\r\nmay") != NULL;
}

/* There are two threads: of three clients one has a thread for itself at most. */
static void who_has_a_thread_for_himself_may_linger_there(void)
{
    enum { CLIENTS = 3 };
    int fds[CLIENTS];
    unsigned may = 0;
    start();
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = dial("");
        const bool alone = may_linger(fds[i]);
        check(alone || i > 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        may += may_linger(fds[i]);
    }
    check(may <= 1);
    close(fds[1]);
    close(fds[2]);
    for (int i = 0; i < 10000 && !may_linger(fds[0]); i++) { /* until it was seen that they are gone */
        usleep(1000);
    }
    check(may_linger(fds[0]));
    close(fds[0]);
    stop();
}

static void who_lingers_keeps_nobody_from_his_answer(void)
{
    char answer[4096];
    start();
    int fd = dial("GET /linger?held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    await(&held, 1);
    for (int i = 0; i < 20; i++) {
        check(answers(ask("GET /linger?held", "\r\n"), 200, "must not")); /* one at a time */
    }
    atomic_store(&let_go, true);
    (void)take(fd, answer, sizeof answer - 1);
    check(answers(answer, 200, "\r\n\r\nmay"));
    close(fd);
    stop();
}

static void those_that_wait_do_not_keep_others_from_their_answers(void)
{
    char answer[4096];
    int fds[20];
    start();
    for (int i = 0; i < 20; i++) {
        fds[i] = dial("GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }
    await(&held, 20);
    check(answers(ask("GET /echo", "\r\n"), 200, "one GET /echo"));
    atomic_store(&let_go, true);
    for (int i = 0; i < 20; i++) {
        (void)take(fds[i], answer, sizeof answer - 1);
        check(answers(answer, 200, "two GET /wait"));
        close(fds[i]);
    }
    stop();
}

static void too_many_that_wait_are_refused(void)
{
    char answer[4096];
    int fds[64];
    start();
    for (int i = 0; i < 64; i++) {
        fds[i] = dial("GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }
    await(&held, 64);
    check(answers(ask("GET /wait", "\r\n"), 503, "too many"));
    atomic_store(&let_go, true);
    for (int i = 0; i < 64; i++) {
        (void)take(fds[i], answer, sizeof answer - 1);
        close(fds[i]);
    }
    check(answers(ask("GET /wait", "\r\n"), 200, "two GET /wait"));
    stop();
}

/* Of a chunked answer: the bytes, or -1 if its end is missing. */
static long unchunk(char *answer, size_t size, uint8_t **ret_data)
{
    char *at = strstr(answer, "\r\n\r\n"), *end = answer + size;
    uint8_t *data = malloc(size);
    size_t bytes = 0;
    *ret_data = data;
    at += 4;
    while (at < end) {
        size_t n = strtoul(at, &at, 16);
        at += 2;
        if (n == 0) {
            return (long)bytes;
        }
        if ((size_t)(end - at) < n) {
            return -1;
        }
        memcpy(data + bytes, at, n);
        bytes += n;
        at += n + 2;
    }
    return -1;
}

static void an_answer_in_pieces_comes_whole_or_visibly_not(void)
{
    char *answer = malloc(BIG + (1u << 20));
    start();
    for (int broken = 0; broken < 2; broken++) {
        char request[128];
        uint8_t *data;
        (void)snprintf(request, sizeof request, "GET /stream%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                       broken ? "?broken" : "");
        int fd = dial(request);
        size_t size = take(fd, answer, 1000);
        if (broken == 0) { /* a client that pauses: there is no more room, and the sender waits */
            await(&streams_full, 1);
            check_eq(atomic_load(&streams_ended), 0);
        }
        size += take(fd, answer + size, BIG + (1u << 20) - 1 - size);
        close(fd);
        check(strstr(answer, "application/octet-stream") != NULL);
        long bytes = unchunk(answer, size, &data);
        check_eq(bytes, broken ? -1 : (long)BIG);
        for (size_t i = 0; bytes > 0 && i < BIG; i++) {
            if (data[i] != i % 251) {
                check_eq(data[i], i % 251);
            }
        }
        free(data);
    }
    await(&streams_ended, 2);
    stop();
    free(answer);
}

static void who_sends_hears_that_the_client_is_gone(void)
{
    char some[2000];
    start();
    for (unsigned i = 1; i <= 5; i++) {
        int fd = dial("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
        (void)take(fd, some, sizeof some - 1);
        close(fd);
        await(&streams_ended, i);
        check_eq(atomic_load(&stream_err), RQ_AWAY);
    }
    stop();
}

static void stopping_ends_what_is_being_sent(void)
{
    char some[2000];
    start();
    int fd = dial("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    (void)take(fd, some, sizeof some - 1);
    const uint64_t begin_ms = rq_clock_ms();
    stop();
    check(rq_clock_ms() - begin_ms < 30000);
    close(fd);
}

/* Sends bytes of a body of `announced`, and returns the connection. */
static int give_body(const char *query, size_t announced, size_t bytes)
{
    static uint8_t piece[100003];
    char request[256];
    (void)snprintf(request, sizeof request,
                   "POST /body%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", query,
                   announced);
    int fd = dial(request);
    for (size_t at = 0; at < bytes;) {
        size_t n = bytes - at < sizeof piece ? bytes - at : sizeof piece;
        for (size_t i = 0; i < n; i++) {
            piece[i] = (uint8_t)((at + i) % 251);
        }
        for (size_t sent = 0; sent < n;) {
            ssize_t one = send(fd, piece + sent, n - sent, MSG_NOSIGNAL);
            if (one <= 0) {
                return fd;
            }
            sent += (size_t)one;
        }
        at += n;
    }
    return fd;
}

static void a_body_in_pieces_comes_whole(void)
{
    static const size_t sizes[] = { 0, 1, 4096, 100003, BIG };
    char answer[4096], wanted[64];
    start();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int fd = give_body("", sizes[i], sizes[i]);
        (void)take(fd, answer, sizeof answer - 1);
        (void)snprintf(wanted, sizeof wanted, "%zu same", sizes[i]);
        check(answers(answer, 200, wanted));
        close(fd);
    }
    check(answers(ask("POST /body", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"), 200,
                  "5 other"));
    stop();
}

struct giver {
    pthread_t thread;
    int fd;
};

static void *run_giver(void *arg)
{
    ((struct giver *)arg)->fd = give_body("?slow", BIG, BIG);
    return NULL;
}

static void a_body_waits_for_who_takes_it(void)
{
    char answer[4096];
    struct giver giver;
    start();
    check_eq(pthread_create(&giver.thread, NULL, run_giver, &giver), 0);
    await(&held, 1);
    check(answers(ask("GET /echo", "\r\n"), 200, "one GET /echo"));
    check_eq(atomic_load(&streams_ended), 0);
    atomic_store(&let_go, true);
    check_eq(pthread_join(giver.thread, NULL), 0);
    (void)take(giver.fd, answer, sizeof answer - 1);
    check(answers(answer, 200, "8388608 same"));
    close(giver.fd);
    stop();
}

static void an_answer_before_the_end_of_the_body_is_one(void)
{
    char answer[4096];
    start();
    int fd = give_body("?early", BIG, BIG);
    (void)take(fd, answer, sizeof answer - 1);
    check(answers(answer, 200, "0 same"));
    close(fd);
    check(answers(ask("POST /nowhere", "Content-Length: 1\r\n\r\nx"), 404, "\r\n\r\n"));
    stop();
}

static void who_takes_hears_that_the_client_is_gone(void)
{
    start();
    for (unsigned i = 1; i <= 3; i++) {
        close(give_body("", BIG, i == 1 ? 1 : i * 1000000u));
        await(&streams_ended, i);
        check_eq(atomic_load(&stream_err), RQ_AWAY);
    }
    stop();
}

static void clients_that_are_slow_keep_others_from_no_answer(void)
{
    char answer[4096];
    int fds[64];
    start();
    for (int i = 0; i < 64; i++) {
        fds[i] = i % 2 == 0 ? give_body("", BIG, 1) : dial("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    await(&held, 32);
    await(&streams_full, 32);
    check(answers(ask("GET /stream", "\r\n"), 503, "too many requests at once\n"));
    check(answers(ask("POST /body", "Content-Length: 1\r\n\r\nx"), 503, "too many requests at once\n"));
    atomic_store(&let_go, true);
    check(answers(ask("GET /wait", "\r\n"), 200, "two GET /wait"));
    for (int i = 0; i < 64; i++) {
        close(fds[i]);
    }
    await(&streams_ended, 64);
    int fd = give_body("", 1, 1);
    (void)take(fd, answer, sizeof answer - 1);
    check(answers(answer, 200, "1 same"));
    close(fd);
    stop();
}

static int open_files(void)
{
    int count = 0;
    for (int fd = 0; fd < 1000; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void an_answer_may_begin_in_a_file(void)
{
    static const char length[] = "Content-Length: 8388611\r\n";
    char *answer = malloc(2 * BIG);
    start();
    check(answers(ask("GET /echo", "\r\n"), 200, "one GET /echo"));
    const int before = open_files(); /* that connection may still be among them */
    int fd = dial(
        "GET /file HTTP/1.1\r\nHost: x\r\n\r\nHEAD /file HTTP/1.1\r\nHost: x\r\n\r\n"
        "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    const size_t size = take(fd, answer, 2 * BIG - 1);
    close(fd);
    char *body = strstr(answer, "\r\n\r\n") + 4, *second = body + BIG + 3, *third = strstr(second, "\r\n\r\n") + 4;
    check(answers(answer, 200, length));
    check(size > BIG + 3 && memcmp(body + BIG, "end", 3) == 0);
    for (size_t i = 0; i < BIG; i++) {
        if ((uint8_t)body[i] != i % 251) {
            check_eq((uint8_t)body[i], i % 251);
        }
    }
    check(answers(second, 200, length)); /* of HEAD: no body */
    check(answers(third, 200, "one GET /echo"));
    /* Who leaves takes the file along, and whose file cannot be read hears it. */
    for (int i = 0; i < 10; i++) {
        fd = dial("GET /file HTTP/1.1\r\nHost: x\r\n\r\n");
        (void)take(fd, answer, 2000);
        close(fd);
    }
    fd = dial("GET /file?short HTTP/1.1\r\nHost: x\r\n\r\n");
    check(take(fd, answer, 2 * BIG - 1) < 2000 && answers(answer, 200, length));
    close(fd);
    for (int i = 0; i < 10000 && open_files() > before; i++) {
        usleep(1000);
    }
    check(open_files() <= before);
    stop();
    free(answer);
}

static void who_works_for_a_client_may_ask_whether_it_has_left(void)
{
    start();
    for (unsigned i = 1; i <= 3; i++) {
        int fd = dial("GET /leaving HTTP/1.1\r\nHost: x\r\n\r\n");
        await(&held, i);
        check_eq(atomic_load(&forgotten), i - 1);
        check_eq(shutdown(fd, i == 1 ? SHUT_WR : SHUT_RDWR), 0);
        await(&forgotten, i);
        close(fd);
    }
    stop();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(routes_are_found_by_path_and_method),
        TAP(a_body_above_the_limit_is_not_taken),
        TAP(what_others_have_sent_keeps_no_small_body_out),
        TAP(a_handler_may_come_back_to_a_request),
        TAP(an_answer_may_be_pulled_as_it_comes),
        TAP(a_wake_while_it_is_pulled_counts),
        TAP(stopping_waits_for_what_is_suspended),
        TAP(who_has_a_thread_for_himself_may_linger_there),
        TAP(who_lingers_keeps_nobody_from_his_answer),
        TAP(those_that_wait_do_not_keep_others_from_their_answers),
        TAP(too_many_that_wait_are_refused),
        TAP(an_answer_in_pieces_comes_whole_or_visibly_not),
        TAP(who_sends_hears_that_the_client_is_gone),
        TAP(a_body_in_pieces_comes_whole),
        TAP(a_body_waits_for_who_takes_it),
        TAP(an_answer_before_the_end_of_the_body_is_one),
        TAP(who_takes_hears_that_the_client_is_gone),
        TAP(clients_that_are_slow_keep_others_from_no_answer),
        TAP(stopping_ends_what_is_being_sent),
        TAP(an_answer_may_begin_in_a_file),
        TAP(who_works_for_a_client_may_ask_whether_it_has_left),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
