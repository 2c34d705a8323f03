/* streams: every byte arrives once and in order, a reader that rests costs one window, and closed() comes once, whoever ends it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/net_rig.h"
#include "tests/support/tap.h"

/* One end: sends `to_send` bytes of a pattern, and checks what comes against the same pattern. */
struct end {
    struct rq_stream *stream;
    pthread_mutex_t lock; /* one sender at a time */
    uint64_t to_send, sent;
    bool end_said;
    atomic_ullong received, consumed;
    atomic_bool rests; /* consumes nothing */
    atomic_bool wrong;
    atomic_uint ended, closed;
    enum rq_err err;
    char text[RQ_TEXT_MAX + 1];
    uint64_t most_held;
};

static struct net_node a, b;
static struct end there; /* what the other node makes of the next stream */
static enum rq_err refuse_with;

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 31 + at / 251);
}

static void push(struct end *e)
{
    static _Thread_local uint8_t block[100000];
    pthread_mutex_lock(&e->lock);
    while (e->sent < e->to_send) {
        size_t bytes = e->to_send - e->sent < sizeof block ? (size_t)(e->to_send - e->sent) : sizeof block;
        for (size_t i = 0; i < bytes; i++) {
            block[i] = pattern(e->sent + i);
        }
        size_t taken = rq_stream_send(e->stream, block, bytes);
        e->sent += taken;
        if (taken < bytes) {
            break;
        }
    }
    if (e->sent == e->to_send && !e->end_said) {
        e->end_said = true;
        rq_stream_end(e->stream);
    }
    pthread_mutex_unlock(&e->lock);
}

static void take(void *ctx, const uint8_t *data, size_t bytes)
{
    struct end *e = ctx;
    uint64_t at = atomic_load(&e->received);
    for (size_t i = 0; i < bytes; i++) {
        if (data[i] != pattern(at + i)) {
            atomic_store(&e->wrong, true);
        }
    }
    atomic_fetch_add(&e->received, bytes);
    uint64_t held = at + bytes - atomic_load(&e->consumed);
    e->most_held = held > e->most_held ? held : e->most_held;
    if (!atomic_load(&e->rests)) {
        atomic_fetch_add(&e->consumed, bytes);
        rq_stream_consumed(e->stream, bytes);
    }
}

static void ended(void *ctx)
{
    atomic_fetch_add(&((struct end *)ctx)->ended, 1);
}

static void writable(void *ctx)
{
    push(ctx);
}

static void closed(void *ctx, enum rq_err err, const char *text)
{
    struct end *e = ctx;
    e->err = err;
    (void)snprintf(e->text, sizeof e->text, "%s", text);
    atomic_fetch_add(&e->closed, 1);
}

static const struct rq_stream_ops ops = { take, ended, writable, closed };

static enum rq_err opened(void *ctx, const struct rq_peer_who *from, struct rq_stream *stream, const uint8_t *head,
                          size_t head_bytes, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                          char text[RQ_TEXT_MAX + 1])
{
    (void)ctx, (void)from;
    if (refuse_with != RQ_OK || head_bytes != 4 || memcmp(head, "head", 4) != 0) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "not this one");
        return refuse_with;
    }
    there.stream = stream;
    *ret_ops = &ops;
    *ret_ctx = &there;
    push(&there);
    return RQ_OK;
}

static void end_init(struct end *e, uint64_t to_send)
{
    memset(e, 0, sizeof *e);
    pthread_mutex_init(&e->lock, NULL);
    e->to_send = to_send;
}

static void start_two(void)
{
    refuse_with = RQ_OK;
    net_start_two(&a, &b);
    net_until(net_connected(&a, b.instance) && net_connected(&b, a.instance));
}

static void stop_two(void)
{
    net_stop(&a);
    net_stop(&b);
}

static void open_stream(struct end *here)
{
    check_eq(rq_stream_open(a.peers, b.instance, "head", 4, &ops, here, &here->stream), RQ_OK);
    push(here);
}

static void both_directions_arrive_whole_and_end(void)
{
    static struct end here;
    start_two();
    end_init(&here, 20000000);
    end_init(&there, 9999999);
    open_stream(&here);
    net_until(atomic_load(&here.closed) == 1 && atomic_load(&there.closed) == 1);
    check(here.err == RQ_OK && there.err == RQ_OK);
    check(atomic_load(&there.received) == 20000000 && atomic_load(&here.received) == 9999999);
    check(!atomic_load(&here.wrong) && !atomic_load(&there.wrong));
    check(here.most_held <= RQ_PEERS_BULK_WINDOW && there.most_held <= RQ_PEERS_BULK_WINDOW);
    check_eq(atomic_load(&here.ended) + atomic_load(&there.ended), 2);
    rq_stream_unref(here.stream);
    rq_stream_unref(there.stream);
    stop_two();
}

static void a_reader_that_rests_gets_one_window_and_others_go_on(void)
{
    static struct end here;
    start_two();
    end_init(&here, (uint64_t)3 << 20);
    end_init(&there, 0);
    atomic_store(&there.rests, true);
    open_stream(&here);
    net_until(atomic_load(&there.received) == RQ_PEERS_BULK_WINDOW);
    struct net_answer answer = { 0 };
    check_eq(rq_peers_request(a.peers, b.instance, NULL, 0, 5000, net_answered, &answer), RQ_OK);
    net_until(atomic_load(&answer.count) == 1);
    check_eq(answer.err, RQ_OK);
    check_eq(atomic_load(&there.received), RQ_PEERS_BULK_WINDOW);
    check_eq(here.sent, RQ_PEERS_BULK_WINDOW);
    atomic_store(&there.rests, false);
    atomic_fetch_add(&there.consumed, RQ_PEERS_BULK_WINDOW);
    rq_stream_consumed(there.stream, RQ_PEERS_BULK_WINDOW);
    net_until(atomic_load(&here.closed) == 1 && atomic_load(&there.closed) == 1);
    check_eq(atomic_load(&there.received), 3 << 20);
    rq_stream_unref(here.stream);
    rq_stream_unref(there.stream);
    stop_two();
}

static void an_abort_is_told_to_both_with_its_words(void)
{
    static struct end here;
    start_two();
    end_init(&here, (uint64_t)8 << 20);
    end_init(&there, 0);
    atomic_store(&there.rests, true);
    open_stream(&here);
    net_until(atomic_load(&there.received) > 0);
    rq_stream_abort(there.stream, RQ_FULL, "no room for it");
    rq_stream_abort(there.stream, RQ_IO, "once more");
    net_until(atomic_load(&here.closed) == 1 && atomic_load(&there.closed) == 1);
    check(here.err == RQ_FULL && strcmp(here.text, "no room for it") == 0);
    check(there.err == RQ_FULL && strcmp(there.text, "no room for it") == 0);
    check_eq(rq_stream_send(here.stream, "x", 1), 0);
    rq_stream_unref(here.stream);
    rq_stream_unref(there.stream);
    stop_two();
}

static void a_refused_stream_is_closed_with_the_words(void)
{
    static struct end here;
    start_two();
    refuse_with = RQ_BUSY;
    end_init(&here, 100);
    open_stream(&here);
    net_until(atomic_load(&here.closed) == 1);
    check(here.err == RQ_BUSY && strcmp(here.text, "not this one") == 0);
    rq_stream_unref(here.stream);
    struct rq_stream *none;
    static const uint8_t head[RQ_PEER_STREAM_HEAD_MAX + 1];
    check_eq(rq_stream_open(a.peers, b.instance, head, sizeof head, &ops, &here, &none), RQ_TOOBIG);
    check_eq(rq_stream_open(a.peers, 4711, "head", 4, &ops, &here, &none), RQ_NOTFOUND);
    stop_two();
}

static void a_lost_connection_closes_its_streams(void)
{
    static struct end here;
    start_two();
    end_init(&here, (uint64_t)8 << 20);
    end_init(&there, 0);
    atomic_store(&there.rests, true);
    open_stream(&here);
    net_until(atomic_load(&there.received) > 0);
    net_stop(&b);
    check_eq(atomic_load(&there.closed), 1);
    net_until(atomic_load(&here.closed) == 1);
    check(here.err == RQ_AWAY && there.err == RQ_AWAY);
    rq_stream_consumed(there.stream, 5); /* stay valid, do nothing */
    rq_stream_end(there.stream);
    rq_stream_unref(there.stream);
    rq_stream_unref(here.stream);
    struct rq_stream *none;
    net_until(rq_stream_open(a.peers, b.instance, "head", 4, &ops, &here, &none) == RQ_AWAY);
    net_stop(&a);
}

/* Keeps what is opened to it, and says nothing. */
static struct rq_stream *kept[RQ_PEERS_BULK_STREAMS_MAX];
static atomic_uint kept_count;

static enum rq_err keep(void *ctx, const struct rq_peer_who *from, struct rq_stream *stream, const uint8_t *head,
                        size_t head_bytes, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                        char text[RQ_TEXT_MAX + 1])
{
    (void)ctx, (void)from, (void)head, (void)head_bytes;
    text[0] = '\0';
    *ret_ops = &ops;
    *ret_ctx = &there;
    kept[atomic_load(&kept_count)] = stream;
    atomic_fetch_add(&kept_count, 1);
    return RQ_OK;
}

static void there_are_as_many_streams_as_allowed(void)
{
    static struct end here[RQ_PEERS_BULK_STREAMS_MAX + 1];
    net_stream = keep;
    start_two();
    end_init(&there, 0);
    for (unsigned i = 0; i <= RQ_PEERS_BULK_STREAMS_MAX; i++) {
        end_init(&here[i], 1);
        enum rq_err err = rq_stream_open(a.peers, b.instance, "head", 4, &ops, &here[i], &here[i].stream);
        check_eq(err, i < RQ_PEERS_BULK_STREAMS_MAX ? RQ_OK : RQ_BUSY);
    }
    net_until(atomic_load(&kept_count) == RQ_PEERS_BULK_STREAMS_MAX);
    for (unsigned i = 0; i < RQ_PEERS_BULK_STREAMS_MAX; i++) {
        rq_stream_abort(here[i].stream, RQ_SHUTDOWN, "enough");
    }
    net_until(atomic_load(&there.closed) == RQ_PEERS_BULK_STREAMS_MAX);
    for (unsigned i = 0; i < RQ_PEERS_BULK_STREAMS_MAX; i++) {
        net_until(atomic_load(&here[i].closed) == 1);
        rq_stream_unref(here[i].stream);
        rq_stream_unref(kept[i]);
    }
    stop_two();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(both_directions_arrive_whole_and_end),    TAP(a_reader_that_rests_gets_one_window_and_others_go_on),
        TAP(an_abort_is_told_to_both_with_its_words), TAP(a_refused_stream_is_closed_with_the_words),
        TAP(a_lost_connection_closes_its_streams),    TAP(there_are_as_many_streams_as_allowed),
    };
    net_stream = opened;
    net_begin();
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    net_end();
    return failed;
}
