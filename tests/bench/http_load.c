/* HTTP load: the same request again and again over many connections at once, each of which waits for its answer before it sends
 * the next one.
 *
 *     http_load ADDRESS PORT CONNECTIONS SECONDS METHOD TARGET [BODY_FILE]
 *
 * Prints a line: requests answered, of them not with 200, seconds, microseconds of the median, of the 99th percentile, the longest.
 * A request that is still open at the end counts for the longest. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_BYTES_MAX 4096u
#define READ_BYTES     65536u
#define EVENTS         256
#define CHUNKS_END     "\r\n0\r\n\r\n" /* it ends an answer in chunks, and JSON, as it is sent here, has no line ends */

struct connection {
    int fd;
    uint64_t begun_us;
    size_t head_bytes; /* what has come of the answer's head */
    bool head_over, chunked;
    uint64_t body_left;           /* not chunked */
    char last[sizeof CHUNKS_END]; /* bytes that came; chunked */
    char head[HEAD_BYTES_MAX + 1];
};

struct latencies {
    uint32_t *us;
    size_t count, capacity;
};

static struct {
    char *bytes;
    size_t size;
} request;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void note(struct latencies *l, uint64_t us)
{
    if (l->count == l->capacity) {
        l->capacity = l->capacity == 0 ? 1u << 16 : l->capacity * 2;
        uint32_t *more = realloc(l->us, l->capacity * sizeof *more);
        if (more == NULL) {
            errx(1, "no memory");
        }
        l->us = more;
    }
    l->us[l->count++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static int compare(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void make_request(const char *method, const char *target, const char *body_file)
{
    char *body = NULL;
    size_t body_bytes = 0;
    if (body_file != NULL) {
        FILE *f = fopen(body_file, "r");
        size_t capacity = 0;
        if (f == NULL || getdelim(&body, &capacity, '\0', f) < 0) {
            err(1, "%s", body_file);
        }
        body_bytes = strlen(body);
        fclose(f);
    }
    FILE *out = open_memstream(&request.bytes, &request.size);
    if (out == NULL) {
        err(1, "no memory");
    }
    fprintf(out, "%s %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
            method, target, body_bytes, body != NULL ? body : "");
    fclose(out);
    free(body);
}

static void send_request(struct connection *c)
{
    c->head_bytes = 0;
    c->head_over = false;
    c->begun_us = now_us();
    for (size_t sent = 0; sent < request.size;) {
        ssize_t n = send(c->fd, request.bytes + sent, request.size - sent, MSG_NOSIGNAL);
        if (n < 0) {
            err(1, "send");
        }
        sent += (size_t)n;
    }
}

static void connect_to(struct connection *c, const char *address, const char *port)
{
    int on = 1;
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)) };
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1) {
        errx(1, "%s: not an IPv4 address", address);
    }
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0) {
        err(1, "%s:%s", address, port);
    }
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static bool take_chunks(struct connection *c, const char *data, size_t bytes)
{
    const size_t wanted = strlen(CHUNKS_END);
    const size_t fresh = bytes < wanted ? bytes : wanted;
    memmove(c->last, c->last + fresh, wanted - fresh);
    memcpy(c->last + wanted - fresh, data + bytes - fresh, fresh);
    return memcmp(c->last, CHUNKS_END, wanted) == 0;
}

/* What came.  True: the answer is complete. */
static bool take(struct connection *c, const char *data, size_t bytes, uint64_t *failed)
{
    size_t used = 0;
    if (!c->head_over) {
        size_t n = HEAD_BYTES_MAX - c->head_bytes;
        n = n < bytes ? n : bytes;
        const size_t before = c->head_bytes;
        memcpy(c->head + before, data, n);
        c->head_bytes += n;
        c->head[c->head_bytes] = '\0';
        const char *end = strstr(c->head, "\r\n\r\n");
        if (end == NULL) {
            if (c->head_bytes == HEAD_BYTES_MAX) {
                errx(1, "the head of an answer is too long");
            }
            return false;
        }
        const char *length = strcasestr(c->head, "\r\nContent-Length:");
        const char *chunked = strcasestr(c->head, "\r\nTransfer-Encoding: chunked");
        c->chunked = chunked != NULL && chunked < end;
        if (!c->chunked && (length == NULL || length > end)) {
            errx(1, "an answer without Content-Length:\n%s", c->head);
        }
        c->head_over = true;
        c->body_left = c->chunked ? 0 : strtoull(length + strlen("\r\nContent-Length:"), NULL, 10);
        memset(c->last, 0, sizeof c->last);
        *failed += strncmp(c->head, "HTTP/1.1 200", 12) != 0;
        used = (size_t)(end + 4 - c->head) - before;
    }
    if (c->chunked) {
        return take_chunks(c, data + used, bytes - used);
    }
    if (bytes - used > c->body_left) {
        errx(1, "more came than was asked for");
    }
    c->body_left -= bytes - used;
    return c->body_left == 0;
}

int main(int argc, char **argv)
{
    if (argc != 7 && argc != 8) {
        errx(2, "usage: http_load ADDRESS PORT CONNECTIONS SECONDS METHOD TARGET [BODY_FILE]");
    }
    const size_t count = strtoul(argv[3], NULL, 10);
    struct connection *all = calloc(count, sizeof *all);
    char *data = malloc(READ_BYTES);
    const int poll = epoll_create1(EPOLL_CLOEXEC);
    if (count == 0 || all == NULL || data == NULL || poll < 0) {
        errx(1, "no connections, or no memory");
    }
    make_request(argv[5], argv[6], argc == 8 ? argv[7] : NULL);
    for (size_t i = 0; i < count; i++) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = &all[i] };
        connect_to(&all[i], argv[1], argv[2]);
        if (epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event) != 0) {
            err(1, "epoll");
        }
    }
    struct latencies latencies = { 0 };
    uint64_t failed = 0, longest = 0, now;
    const uint64_t begin = now_us(), end = begin + (uint64_t)(strtod(argv[4], NULL) * 1e6);
    for (size_t i = 0; i < count; i++) {
        send_request(&all[i]);
    }
    while ((now = now_us()) < end) {
        struct epoll_event events[EVENTS];
        const int ready = epoll_wait(poll, events, EVENTS, (int)((end - now) / 1000u + 1));
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            const ssize_t n = recv(c->fd, data, READ_BYTES, 0);
            if (n <= 0) {
                errx(1, "the server closed a connection");
            }
            if (take(c, data, (size_t)n, &failed)) {
                note(&latencies, now_us() - c->begun_us);
                send_request(c);
            }
        }
    }
    for (size_t i = 0; i < count; i++) {
        longest = now - all[i].begun_us > longest ? now - all[i].begun_us : longest;
        close(all[i].fd);
    }
    if (latencies.count == 0) {
        errx(1, "no answer at all");
    }
    qsort(latencies.us, latencies.count, sizeof *latencies.us, compare);
    const uint32_t last = latencies.us[latencies.count - 1];
    printf("%zu %llu %.3f %u %u %llu\n", latencies.count, (unsigned long long)failed, (double)(now - begin) / 1e6,
           latencies.us[latencies.count / 2], latencies.us[latencies.count * 99 / 100],
           (unsigned long long)(longest > last ? longest : last));
    close(poll);
    free(latencies.us);
    free(request.bytes);
    free(data);
    free(all);
    return 0;
}
