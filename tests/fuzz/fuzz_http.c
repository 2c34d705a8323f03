/* What a client sends to the HTTP server: as a request's target, and as all of a connection's bytes.  Whatever they are, what the server
 * says is HTTP, it ends, and who asks properly is answered afterwards. */
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "raftd/http/credentials.h"
#include "raftd/http/server.h"
#include "raftd/http/statements.h"
#include "tests/fuzz/fuzz.h"

#define ANSWERS_MAX (64u << 10)
#define WAIT_S      60 /* longer is never */

static void look_at(const struct rq_http_request *request)
{
    char text[RQ_HTTP_TEXT_MAX];
    size_t bytes = strlen(request->path);
    for (size_t i = 0; i < request->param_count; i++) {
        bytes += strlen(request->params[i].key) + strlen(request->params[i].value);
        MUST(rq_http_has(request, request->params[i].key));
    }
    MUST(bytes <= RQ_HTTP_TARGET_BYTES_MAX);
    if (rq_http_check_params(request, text)) {
        struct rq_sql_form form;
        rq_sql_form_read(request, &form);
        (void)rq_http_timeout_ms(request); /* any is right */
    } else {
        MUST(text[strlen(text) - 1] == '\n');
    }
}

static void try_target(const uint8_t *data, size_t bytes)
{
    struct rq_http_request request = { .method = "GET" };
    char text[RQ_HTTP_TEXT_MAX], *target = strndup((const char *)data, bytes);
    MUST(target != NULL);
    if (strlen(target) <= RQ_HTTP_TARGET_BYTES_MAX) {
        if (rq_http_split_target(target, &request, text)) {
            look_at(&request);
        } else {
            MUST(text[strlen(text) - 1] == '\n');
        }
    }
    free(target);
}

/* --- a connection's bytes ------------------------------------------------------------------------------------------------- */

static void on_request(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    (void)ctx;
    look_at(request);
    MUST(request->body_bytes == 0 || request->body != NULL);
    rq_http_text(response, 200, "answered");
}

static struct sockaddr_in address_of_server;

/* An address that was free a moment ago. */
static void find_address(char text[64])
{
    socklen_t bytes = sizeof address_of_server;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    address_of_server = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    MUST(bind(fd, (struct sockaddr *)&address_of_server, bytes) == 0);
    MUST(getsockname(fd, (struct sockaddr *)&address_of_server, &bytes) == 0);
    close(fd);
    (void)snprintf(text, 64, "127.0.0.1:%d", ntohs(address_of_server.sin_port));
}

static void start_server(void)
{
    static const char users[] = "[{\"username\":\"u\",\"password\":\"p\",\"perms\":[\"query\"]}]";
    static const struct rq_http_route routes[] = { { "/db", true, false, "GET, POST", "query", on_request } };
    static const struct rq_http_family family = { routes, 1, NULL };
    static struct rq_credentials *credentials;
    static struct rq_http_server *server;
    static char path[64]; /* borrowed for ever, as all that is static here */
    char address[64], why[RQ_CREDENTIALS_TEXT_MAX], text[256];
    const int fd = memfd_create("users", 0);
    MUST(write(fd, users, sizeof users - 1) == (ssize_t)sizeof users - 1);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    MUST(rq_credentials_new(path, &credentials, why) == RQ_OK); /* which looks at the file again now and then */
    const struct rq_http_config config = {
        .address = address, .version = "1", .credentials = credentials, .families = &family, .family_count = 1
    };
    enum rq_err err = RQ_IO;
    for (int i = 0; i < 100 && err != RQ_OK; i++) { /* somebody else may have got the address meanwhile */
        find_address(address);
        err = rq_http_new(&config, &server, text); /* as long as the process */
    }
    MUST(err == RQ_OK);
}

/* Sends it, ends, and hears what is said, to its end. */
static size_t converse(const uint8_t *data, size_t bytes, char answers[ANSWERS_MAX + 1])
{
    const struct timeval wait = { .tv_sec = WAIT_S };
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t size = 0;
    ssize_t n;
    MUST(connect(fd, (struct sockaddr *)&address_of_server, sizeof address_of_server) == 0);
    MUST(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) == 0);
    (void)send(fd, data, bytes, MSG_NOSIGNAL); /* it may have heard enough */
    (void)shutdown(fd, SHUT_WR);
    while ((n = recv(fd, answers + size, ANSWERS_MAX - size, 0)) > 0) {
        size += (size_t)n;
    }
    MUST(n == 0 || errno == ECONNRESET);
    close(fd);
    answers[size] = '\0';
    return size;
}

static void try_connection(const uint8_t *data, size_t bytes)
{
    static const char proper[] =
        "GET /db?q=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Basic dTpw\r\nConnection: close\r\n\r\n";
    static char answers[ANSWERS_MAX + 1];
    if (converse(data, bytes, answers) > 0) {
        MUST(strncmp(answers, "HTTP/1.", 7) == 0);
        MUST(answers[9] >= '1' && answers[9] <= '5' && strspn(answers + 9, "0123456789") == 3);
    }
    (void)converse((const uint8_t *)proper, sizeof proper - 1, answers);
    MUST(strncmp(answers, "HTTP/1.1 200 ", 13) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static bool started;
    if (!started) {
        started = true;
        start_server();
    }
    try_target(data, bytes);
    try_connection(data, bytes);
    return 0;
}
