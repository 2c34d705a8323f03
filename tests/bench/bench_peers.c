/* What a connection between two nodes does on loopback: both ends are in this process, so each figure is of both together.
 *
 *   bench_peers [SECONDS]      default: 2, for each line */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/net_rig.h"
#include "tests/support/tap.h"

#define TIMES_MAX 1000000u

static struct net_node a, b;
static atomic_bool back; /* b has answered */
static double times[TIMES_MAX];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_value(const void *x, const void *y)
{
    double d = *(const double *)x - *(const double *)y;
    return (d > 0) - (d < 0);
}

static void print_times(const char *name, unsigned count, double cpu_seconds)
{
    qsort(times, count, sizeof *times, by_value);
    printf("%-34s p50 %6.1f us   p99 %7.1f us   %5.1f us of cpu\n", name, times[count / 2] * 1e6,
           times[count * 99 / 100] * 1e6, cpu_seconds * 1e6 / count);
}

static void answered(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    (void)ctx, (void)err, (void)data, (void)bytes;
    atomic_store(&back, true);
}

/* The asking thread looks for the answer all the time: what is measured is the way, not its own wake-up. */
static void requests(size_t bytes, double seconds, const char *name)
{
    static uint8_t body[1 << 20];
    unsigned count = 0;
    double begin = now(), cpu_begin = cpu();
    while (now() - begin < seconds && count < TIMES_MAX) {
        double t = now();
        atomic_store(&back, false);
        check_eq(rq_peers_request(a.peers, b.instance, &(struct iovec){ body, bytes }, 1, 5000, answered, NULL), RQ_OK);
        while (!atomic_load(&back)) {
        }
        times[count++] = now() - t;
    }
    print_times(name, count, cpu() - cpu_begin);
}

static void messages(size_t bytes, double seconds, const char *name)
{
    static uint8_t body[1 << 20];
    struct iovec part = { body, bytes };
    unsigned before = atomic_load(&b.raft_count);
    double begin = now(), cpu_begin = cpu();
    uint64_t sent = 0;
    while (now() - begin < seconds) {
        for (int i = 0; i < 100; i++) {
            sent += rq_peers_send_raft(a.peers, b.instance, &part, 1);
        }
    }
    net_until(atomic_load(&b.raft_count) - before == sent);
    double took = now() - begin;
    printf("%-34s %9.0f /s   %8.1f MB/s   %5.1f us of cpu each\n", name, (double)sent / took,
           (double)sent * (double)bytes / took / 1e6, (cpu() - cpu_begin) * 1e6 / (double)sent);
}

/* --- bulk --------------------------------------------------------------------------------------------------------------------- */

static struct rq_stream *reader;
static atomic_ullong received;
static atomic_uint room;

static void take(void *ctx, const uint8_t *data, size_t bytes)
{
    (void)ctx, (void)data;
    atomic_fetch_add(&received, bytes);
    rq_stream_consumed(reader, bytes);
}

static void nothing(void *ctx)
{
    (void)ctx;
}

static void has_room(void *ctx)
{
    (void)ctx;
    atomic_fetch_add(&room, 1);
}

static void is_closed(void *ctx, enum rq_err err, const char *text)
{
    (void)ctx, (void)err, (void)text;
}

static const struct rq_stream_ops ops = { take, nothing, has_room, is_closed };

static enum rq_err opened(void *ctx, const struct rq_peer_who *from, struct rq_stream *stream, const uint8_t *head,
                          size_t head_bytes, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                          char text[RQ_TEXT_MAX + 1])
{
    (void)ctx, (void)from, (void)head, (void)head_bytes;
    text[0] = '\0'; /* nobody is refused */
    reader = stream;
    *ret_ops = &ops;
    *ret_ctx = NULL;
    return RQ_OK;
}

static struct rq_stream *writer;
static atomic_bool enough;

static void *write_stream(void *arg)
{
    static uint8_t block[262144];
    (void)arg;
    while (!atomic_load(&enough)) {
        unsigned seen = atomic_load(&room);
        if (rq_stream_send(writer, block, sizeof block) < sizeof block) {
            while (atomic_load(&room) == seen && !atomic_load(&enough)) {
                usleep(50);
            }
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 2;
    if (setjmp(tap_jump) != 0) {
        return 1;
    }
    net_stream = opened;
    net_begin();
    a.cluster = b.cluster = NET_CLUSTER;
    net_start(&a, 0);
    net_start(&b, 1);
    net_know(&a, (struct net_node *[]){ &b }, 1);
    net_know(&b, (struct net_node *[]){ &a }, 1);
    net_until(net_connected(&a, b.instance) && net_connected(&b, a.instance));

    requests(64, seconds, "request of 64 B, and its answer");
    requests(4096, seconds, "4 KiB");
    requests(262144, seconds, "256 KiB");
    messages(64, seconds, "raft messages of 64 B");
    messages(4096, seconds, "4 KiB");

    check_eq(rq_stream_open(a.peers, b.instance, "", 0, &ops, NULL, &writer), RQ_OK);
    pthread_t thread;
    check_eq(pthread_create(&thread, NULL, write_stream, NULL), 0);
    double begin = now(), cpu_begin = cpu();
    while (now() - begin < seconds) {
        usleep(1000);
    }
    double took = now() - begin, used = cpu() - cpu_begin;
    double megabytes = (double)atomic_load(&received) / 1e6;
    printf("%-34s %8.1f MB/s   %5.2f s of cpu per GB\n", "bulk", megabytes / took, used / (megabytes / 1e3));
    requests(64, seconds, "request of 64 B beside bulk");
    atomic_store(&enough, true);
    pthread_join(thread, NULL);
    rq_stream_abort(writer, RQ_SHUTDOWN, "enough");
    rq_stream_unref(writer);
    net_stop(&a);
    net_stop(&b);
    rq_stream_unref(reader);
    net_end();
    return 0;
}
