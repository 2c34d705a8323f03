/* conduit: threads that wait get every byte in order, more than any window at once; and an error when there is nobody any more. */
#include <pthread.h>
#include <stdlib.h>

#include "raftd/cluster/conduit.h"
#include "tests/support/net_rig.h"
#include "tests/support/tap.h"

#define BYTES ((size_t)5 << 20)

static struct net_node a, b;
static struct rq_conduit *_Atomic accepted;

static enum rq_err on_stream(void *ctx, const struct rq_peer_who *from, struct rq_stream *stream, const uint8_t *head,
                             size_t head_bytes, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                             char text[RQ_TEXT_MAX + 1])
{
    struct rq_conduit *p;
    (void)ctx, (void)from;
    check(head_bytes == 4 && memcmp(head, "head", 4) == 0);
    enum rq_err err = rq_conduit_accept(stream, ret_ops, ret_ctx, &p);
    (void)snprintf(text, RQ_TEXT_MAX + 1, "%s", rq_err_text(err));
    atomic_store(&accepted, p);
    return err;
}

static struct rq_conduit *open_conduit(void)
{
    struct rq_conduit *p = NULL;
    atomic_store(&accepted, NULL);
    net_until(net_connected(&a, b.instance));
    check_eq(rq_conduit_open(a.peers, b.instance, "head", 4, &p), RQ_OK);
    net_until(atomic_load(&accepted) != NULL);
    return p;
}

static void stop_two(void)
{
    net_stop(&a);
    net_stop(&b);
}

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 31 + at / 251);
}

static void *write_all(void *arg)
{
    uint8_t *data = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++) {
        data[i] = pattern(i);
    }
    enum rq_err err = rq_conduit_write(arg, data, BYTES);
    free(data);
    return err == RQ_OK ? NULL : arg;
}

static void every_byte_comes_in_order(void)
{
    pthread_t there;
    void *failed;
    static uint8_t back[BYTES];
    net_start_two(&a, &b);
    struct rq_conduit *p = open_conduit();
    check(pthread_create(&there, NULL, write_all, atomic_load(&accepted)) == 0);
    check_eq(rq_conduit_read_exactly(p, back, BYTES), RQ_OK);
    check(pthread_join(there, &failed) == 0 && failed == NULL);
    for (size_t i = 0; i < BYTES; i++) {
        check(back[i] == pattern(i));
    }
    rq_conduit_free(p);
    uint8_t byte;
    check_eq(rq_conduit_read_exactly(atomic_load(&accepted), &byte, 1), RQ_AWAY);
    rq_conduit_free(atomic_load(&accepted));
    stop_two();
}

static void who_waits_is_told_that_nobody_is_there(void)
{
    uint8_t byte;
    net_start_two(&a, &b);
    struct rq_conduit *p = open_conduit();
    check_eq(rq_conduit_write(p, "x", 1), RQ_OK);
    check_eq(rq_conduit_read_exactly(atomic_load(&accepted), &byte, 1), RQ_OK);
    check_eq(byte, 'x');
    net_stop(&b);
    check_eq(rq_conduit_read_exactly(p, &byte, 1), RQ_AWAY);
    check_eq(rq_conduit_write(p, &byte, 1), RQ_AWAY);
    rq_conduit_free(p);
    rq_conduit_free(atomic_load(&accepted));
    net_stop(&a);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(every_byte_comes_in_order),
        TAP(who_waits_is_told_that_nobody_is_there),
    };
    net_stream = on_stream;
    net_begin();
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    net_end();
    return failed;
}
