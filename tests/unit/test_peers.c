/* peers: messages, requests and joins arrive, or their loss is told, once; who is not who he should be is refused with words on
 * both sides; nobody who connects can hold up the others or make the node hold more than its bounds. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raftd/net/peers.h"
#include "raftd/run/strand.h"
#include "tests/support/certs.h"
#include "tests/support/net_rig.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"

static struct net_node a, b, c;

static void start(struct net_node *n, unsigned number)
{
    memset(n, 0, sizeof *n);
    n->cluster = NET_CLUSTER;
    net_start(n, number);
}

static void start_two(void)
{
    net_start_two(&a, &b);
    net_until(net_connected(&a, b.instance) && net_connected(&b, a.instance));
}

static void stop_two(void)
{
    net_stop(&a);
    net_stop(&b);
}

static bool send_number(struct net_node *from, uint64_t to, uint64_t number, size_t bytes)
{
    static uint8_t body[1 << 20];
    uint8_t head[8];
    rq_put_u64(head, number);
    struct iovec parts[] = { { head, sizeof head }, { body, bytes - sizeof head } };
    return rq_peers_send_raft(from->peers, to, parts, 2);
}

static struct net_answer ask(struct net_node *from, uint64_t to, const char *text, unsigned timeout_ms)
{
    struct net_answer answer = { 0 };
    check_eq(rq_peers_request(from->peers, to, &(struct iovec){ (void *)text, strlen(text) }, 1, timeout_ms,
                              net_answered, &answer),
             RQ_OK);
    net_until(atomic_load(&answer.count) > 0);
    return answer;
}

static struct net_answer join(struct net_node *from, const char *address)
{
    struct net_answer answer = { 0 };
    check_eq(rq_peers_join(from->peers, address, &(struct iovec){ (char[]){ "let me in" }, 9 }, 1, 5000, net_joined,
                           &answer),
             RQ_OK);
    net_until(atomic_load(&answer.count) > 0);
    return answer;
}

static bool says(struct net_node *n, uint64_t about, const char *words)
{
    struct rq_peer_state state;
    return rq_peers_state(n->peers, about, &state) && strstr(state.text, words) != NULL;
}

/* --- what arrives ---------------------------------------------------------------------------------------------------------- */

static void raft_messages_of_all_sizes_arrive_in_order(void)
{
    start_two();
    for (unsigned i = 1; i <= 200; i++) {
        /* Around a record and around what a socket takes at once. */
        size_t bytes = i % 4 == 0   ? 16384u - 40 + i % 32
                       : i % 4 == 1 ? 8u + i
                       : i % 4 == 2 ? 70000u * (i % 9 + 1)
                                    : 4096;
        while (!send_number(&a, b.instance, i, bytes)) {
            net_pause(); /* the queue is full: raft would send again, too */
        }
        check(send_number(&b, a.instance, i, 64));
    }
    net_until(atomic_load(&b.raft_count) == 200 && atomic_load(&a.raft_count) == 200);
    check_eq(atomic_load(&b.out_of_order) + atomic_load(&a.out_of_order), 0);
    stop_two();
}

/* What a message brought, each time to another strand, waits until it is let go. */
static struct rq_strand strands[6];
static struct rq_task tasks[6];
static atomic_uint task_count;
static atomic_bool let_go;

static void wait_for_the_disk(struct rq_task *task)
{
    (void)task;
    rq_strand_will_block();
    while (!atomic_load(&let_go)) {
        net_pause();
    }
}

static void bring_task(void)
{
    unsigned i = atomic_fetch_add(&task_count, 1);
    tasks[i].run = wait_for_the_disk;
    rq_strand_post(&strands[i], &tasks[i], RQ_CARRY);
}

static void node_listens_while_any_number_of_its_strands_wait_for_a_disk(void)
{
    struct rq_pool *pool;
    check_eq(rq_pool_new(1, "test", &pool), RQ_OK);
    start_two();
    b.on_raft = bring_task;
    for (unsigned i = 0; i < 6; i++) {
        rq_strand_init(&strands[i], pool, "s");
        check(send_number(&a, b.instance, i + 1, 64));
        net_until(atomic_load(&task_count) == i + 1);
    }
    struct net_answer answer = ask(&a, b.instance, "hello", 60000);
    check(answer.err == RQ_OK && strcmp(answer.text, "hello") == 0);
    atomic_store(&let_go, true);
    stop_two();
    rq_pool_free(pool);
    for (unsigned i = 0; i < 6; i++) {
        rq_strand_fini(&strands[i]);
    }
}

static void requests_are_answered_or_failed_with_words(void)
{
    start_two();
    struct net_answer answer = ask(&a, b.instance, "hello", 5000);
    check(answer.err == RQ_OK && strcmp(answer.text, "hello") == 0);
    answer = ask(&b, a.instance, "fail", 5000);
    check(answer.err == RQ_REFUSED && strcmp(answer.text, "as was asked for") == 0);
    check_eq(rq_peers_request(a.peers, 9999, NULL, 0, 1, net_answered, &answer), RQ_NOTFOUND);
    stop_two();
}

static void answer_that_may_wait_comes_with_the_next_or_by_itself(void)
{
    start_two();
    struct net_answer first = { 0 };
    struct iovec later = { (char[]){ "later" }, 5 };
    check_eq(rq_peers_request(a.peers, b.instance, &later, 1, 60000, net_answered, &first), RQ_OK);
    struct net_answer answer = ask(&a, b.instance, "hello", 60000);
    check(answer.err == RQ_OK && strcmp(answer.text, "hello") == 0);
    check_eq(atomic_load(&first.count), 1); /* it came before that */
    answer = ask(&a, b.instance, "later", 60000);
    check(answer.err == RQ_OK && strcmp(answer.text, "later") == 0);
    static struct net_answer many;
    for (unsigned i = 0; i < 1000; i++) { /* more than a record holds */
        check_eq(rq_peers_request(a.peers, b.instance, &later, 1, 60000, net_answered, &many), RQ_OK);
    }
    net_until(atomic_load(&many.count) == 1000);
    stop_two();
}

static void a_request_of_the_largest_size_passes(void)
{
    start_two();
    static uint8_t body[RQ_PEER_BODY_MAX + 1];
    struct net_answer answer = { 0 };
    struct iovec part = { body, RQ_PEER_BODY_MAX };
    check_eq(rq_peers_request(a.peers, b.instance, &part, 1, 60000, net_answered, &answer), RQ_OK);
    net_until(atomic_load(&answer.count) > 0);
    check_eq(answer.err, RQ_OK);
    part.iov_len++;
    check_eq(rq_peers_request(a.peers, b.instance, &part, 1, 60000, net_answered, &answer), RQ_TOOBIG);
    stop_two();
}

static void unanswered_is_unknown_and_unsent_is_away(void)
{
    start_two();
    atomic_store(&b.silent, true);
    struct net_answer answer = ask(&a, b.instance, "hello", 100);
    check_eq(answer.err, RQ_UNKNOWN); /* too late */
    rq_call_answer(b.kept, NULL, 0);  /* nobody waits */
    struct net_answer lost = { 0 };
    check_eq(rq_peers_request(a.peers, b.instance, NULL, 0, 60000, net_answered, &lost), RQ_OK);
    net_until(atomic_load(&b.requests) == 2);
    struct rq_call *held = b.kept;
    net_stop(&b);
    net_until(atomic_load(&lost.count) == 1);
    check_eq(lost.err, RQ_UNKNOWN); /* the connection went */
    rq_call_fail(held, RQ_AWAY, "after all was freed");
    net_until(!net_connected(&a, b.instance));
    answer = ask(&a, b.instance, "hello", 150);
    check_eq(answer.err, RQ_AWAY); /* never left */
    check_eq(atomic_load(&answer.count), 1);
    net_stop(&a);
}

static void a_request_waits_for_the_connection(void)
{
    start(&a, 0);
    start(&b, 1);
    net_know(&a, (struct net_node *[]){ &b }, 1); /* is still being made */
    struct net_answer answer = ask(&a, b.instance, "early", 10000);
    check(answer.err == RQ_OK && strcmp(answer.text, "early") == 0);
    stop_two();
}

static void what_is_under_way_at_the_end_is_answered(void)
{
    start_two();
    atomic_store(&b.silent, true);
    struct net_answer answer = { 0 }, joined = { 0 };
    check_eq(rq_peers_request(a.peers, b.instance, NULL, 0, 60000, net_answered, &answer), RQ_OK);
    check_eq(rq_peers_join(a.peers, "localhost:1", NULL, 0, 60000, net_joined, &joined), RQ_OK);
    net_stop(&a);
    check_eq(atomic_load(&answer.count), 1);
    check_eq(atomic_load(&joined.count), 1);
    check(joined.err == RQ_AWAY);
    net_until(atomic_load(&b.requests) <= 1);
    net_stop(&b);
    if (b.kept != NULL) {
        rq_call_answer(b.kept, NULL, 0);
    }
}

/* --- who is let in --------------------------------------------------------------------------------------------------------- */

static void a_node_without_a_cluster_joins_and_nothing_else(void)
{
    start(&a, 0);
    memset(&c, 0, sizeof c);
    net_start(&c, 2); /* cluster 0 */
    struct net_answer answer = join(&c, a.address);
    check(answer.err == RQ_OK && answer.who == a.instance && strcmp(answer.text, "let me in") == 0);
    net_know(&c, (struct net_node *[]){ &a }, 1);
    net_until(says(&c, a.instance, "node n0 belongs to cluster") || says(&c, a.instance, "in no cluster"));
    check(!net_connected(&c, a.instance));
    atomic_store(&a.strangers_refused, true);
    answer = join(&c, a.address);
    check(answer.err == RQ_NOTFOUND && strcmp(answer.text, "node n2 is no member") == 0);
    net_stop(&c);
    net_stop(&a);
}

static void a_join_fails_with_words(void)
{
    start(&a, 0);
    start(&b, 1);
    struct net_answer answer = join(&a, a.address);
    check(answer.err == RQ_EXISTS && strstr(answer.text, "the node itself") != NULL);
    net_stop(&b);
    answer = join(&a, b.address);
    check(answer.err == RQ_AWAY && answer.text[0] != '\0');
    answer = join(&a, "no such name.invalid:1");
    check(answer.err == RQ_AWAY && answer.text[0] != '\0');
    answer = join(&a, "nonsense");
    check(answer.err == RQ_AWAY && answer.text[0] != '\0');
    b.cluster = NET_CLUSTER + 1;
    net_start(&b, 1);
    answer = join(&a, b.address);
    check(answer.err == RQ_FOREIGN && strstr(answer.text, "belongs to cluster") != NULL);
    stop_two();
}

static void a_node_of_another_cluster_is_refused(void)
{
    start(&a, 0);
    memset(&b, 0, sizeof b);
    b.cluster = NET_CLUSTER + 1;
    net_start(&b, 1);
    net_know(&a, (struct net_node *[]){ &b }, 1);
    net_know(&b, (struct net_node *[]){ &a }, 1);
    net_until(says(&a, b.instance, "belongs to cluster 00000000000000c2") &&
              says(&b, a.instance, "belongs to cluster"));
    check(!send_number(&a, b.instance, 1, 64));
    check_eq(atomic_load(&a.judged) + atomic_load(&b.judged), 0);
    stop_two();
}

static void a_wrong_key_is_refused(void)
{
    start(&a, 0);
    start(&b, 1);
    struct net_node other = b;
    other.key = c.key != NULL ? c.key : a.key; /* whom we expect there has another key */
    net_know(&a, (struct net_node *[]){ &other }, 1);
    net_until(says(&a, b.instance, "does not have the key"));
    other.key = b.key;
    other.instance = 4711;
    net_know(&a, (struct net_node *[]){ &other }, 1);
    net_until(says(&a, 4711, "instance 0000000000001267 was expected"));
    check(!send_number(&a, 4711, 1, 64));
    stop_two();
}

static void copies_of_a_data_directory_are_refused(void)
{
    start_two();
    memset(&c, 0, sizeof c);
    c.cluster = NET_CLUSTER;
    c.instance = b.instance;
    net_start(&c, 1); /* b once more */
    net_know(&c, (struct net_node *[]){ &a }, 1);
    net_until(says(&c, a.instance, "copies of one data directory"));
    check(net_connected(&b, a.instance)); /* who was first stays */
    struct net_answer answer = join(&c, b.address);
    check(answer.err == RQ_FOREIGN && strstr(answer.text, "a copy of the other's data directory") != NULL);
    net_stop(&b); /* the first ends, so the second is the one */
    net_until(net_connected(&c, a.instance));
    net_stop(&c);
    net_stop(&a);
}

/* A member that has lost its disk is there as what it was and as what it is now, for a while, at one address. */
static void who_dials_its_former_self_loses_no_connection(void)
{
    start_two();
    atomic_store(&b.silent, true);
    struct net_answer held = { 0 };
    check_eq(rq_peers_request(a.peers, b.instance, NULL, 0, 60000, net_answered, &held), RQ_OK);
    net_until(atomic_load(&b.requests) == 1);
    struct net_node former = b;
    former.instance = b.instance + 1000;
    net_know(&a, (struct net_node *[]){ &b, &former }, 2);
    check_eq(ask(&a, former.instance, "still there?", 500).err, RQ_AWAY);
    check(says(&a, former.instance, "was expected, and found"));
    rq_call_answer(b.kept, &(struct iovec){ (char[]){ "yes" }, 3 }, 1);
    net_until(atomic_load(&held.count) == 1);
    check(held.err == RQ_OK && strcmp(held.text, "yes") == 0);
    stop_two();
}

static void who_is_removed_is_sent_away(void)
{
    start_two();
    atomic_store(&a.strangers_refused, true);
    net_know(&a, NULL, 0);
    net_until(says(&b, a.instance, "no member"));
    check(!net_connected(&b, a.instance));
    struct rq_peer_state state;
    check(!rq_peers_state(a.peers, b.instance, &state));
    stop_two();
}

static const char *in_folder(const char *folder, const char *name, char path[128])
{
    (void)snprintf(path, 128, "%s/%s", folder, name);
    return path;
}

static void certificates_are_checked_by_both_and_refused_in_words(void)
{
    static const char loopback[4] = { 127, 0, 0, 1 };
    char folder[] = "/tmp/test_peers.XXXXXX", ca_cert[128], other_ca_cert[128], cert[128], key[128];
    struct cert ca, other_ca, node;
    check(mkdtemp(folder) != NULL);
    check(cert_make(&ca, NULL, "authority", NULL, NULL) && cert_make(&other_ca, NULL, "another", NULL, NULL));
    check(cert_make(&node, &ca, "node", NULL, loopback));
    check(cert_save(&ca, in_folder(folder, "ca.crt", ca_cert), NULL));
    check(cert_save(&other_ca, in_folder(folder, "other.crt", other_ca_cert), NULL));
    check(cert_save(&node, in_folder(folder, "node.crt", cert), in_folder(folder, "node.key", key)));
    cert_fini(&ca);
    cert_fini(&other_ca);
    cert_fini(&node);

    const struct rq_tls_files strict = { .cert = cert, .key = key, .ca_cert = ca_cert, .verify_client = true };
    const struct rq_tls_files distrusts = { .cert = cert, .key = key, .ca_cert = other_ca_cert };
    const struct {
        const struct rq_tls_files *dialler;
        const char *words; /* NULL: it gets through */
    } cases[] = { { NULL, "the certificate of the client: " },
                  { &distrusts, "the certificate of the server for 127.0.0.1: " },
                  { &strict, NULL } };
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    a.cluster = b.cluster = NET_CLUSTER;
    a.tls = &strict;
    net_start(&a, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        b.tls = cases[i].dialler;
        net_start(&b, 1);
        net_know(&b, (struct net_node *[]){ &a }, 1);
        if (cases[i].words != NULL) {
            net_until(says(&b, a.instance, cases[i].words));
            check_eq(atomic_load(&a.judged), 0); /* it did not come to who it is */
        } else {
            net_until(net_connected(&b, a.instance));
        }
        net_stop(&b);
    }
    net_stop(&a);
    (void)scratch_remove(folder);
}

/* --- loss ------------------------------------------------------------------------------------------------------------------- */

static void either_side_comes_back(void)
{
    start_two();
    for (int round = 0; round < 4; round++) {
        struct net_node *victim = round % 2 == 0 ? &b : &a, *other = round % 2 == 0 ? &a : &b;
        net_stop(victim);
        net_until(!net_connected(other, victim->instance));
        net_start(victim, victim == &b);
        net_know(victim, (struct net_node *[]){ other }, 1);
        net_until(net_connected(&a, b.instance) && net_connected(&b, a.instance));
        unsigned before = atomic_load(&b.raft_count);
        atomic_store(&b.raft_last, 0);
        check(send_number(&a, b.instance, 1, 64));
        net_until(atomic_load(&b.raft_count) == before + 1);
    }
    stop_two();
}

static void a_peer_that_does_not_read_costs_a_fixed_amount(void)
{
    start(&a, 0);
    start(&b, 1);
    a.dead_ms = b.dead_ms = 60000;
    net_stop(&a);
    net_stop(&b);
    net_start(&a, 0);
    net_start(&b, 1);
    net_know(&a, (struct net_node *[]){ &b }, 1);
    net_until(net_connected(&a, b.instance));
    atomic_store(&b.raft_waits, true);
    unsigned sent = 0, dropped = 0;
    enum { MESSAGE = 65536 };
    while (dropped < 100 && sent < 4096) {
        if (send_number(&a, b.instance, sent + dropped + 1, MESSAGE)) {
            sent++;
        } else {
            dropped++;
        }
    }
    check_eq(dropped, 100);
    /* The queue, and what the kernel keeps for both. */
    check((size_t)sent * MESSAGE <= RQ_PEERS_RAFT_QUEUE_MAX + (16u << 20));
    struct rq_peer_state state;
    check(rq_peers_state(a.peers, b.instance, &state) && state.raft_dropped == 100 && state.raft_sent == sent);
    atomic_store(&b.raft_waits, false);
    net_until(atomic_load(&b.raft_count) == sent);
    check_eq(atomic_load(&b.out_of_order), 0);
    stop_two();
}

static void a_stopped_peer_is_noticed(void)
{
    start(&a, 0);
    start(&b, 1);
    net_stop(&a);
    a.ping_ms = 50;
    a.dead_ms = 300;
    net_start(&a, 0);
    net_know(&a, (struct net_node *[]){ &b }, 1);
    net_until(net_connected(&a, b.instance));
    check(send_number(&a, b.instance, 1, 64));
    net_until(atomic_load(&b.raft_count) == 1);
    atomic_store(&b.raft_waits, true); /* stands still with all its sockets open */
    atomic_store(&b.raft_last, 0);
    (void)send_number(&a, b.instance, 2, 64);
    net_until(says(&a, b.instance, "nothing was heard"));
    atomic_store(&b.raft_waits, false);
    net_until(net_connected(&a, b.instance));
    stop_two();
}

/* --- strangers --------------------------------------------------------------------------------------------------------------- */

static int connect_to(const struct net_node *n)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)n->port) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

static bool is_closed(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    uint8_t bytes[512];
    ssize_t n;
    do {
        n = poll(&p, 1, 20000) == 1 ? recv(fd, bytes, sizeof bytes, 0) : 1;
    } while (n > 0 && p.revents != 0);
    return n <= 0;
}

static void a_thousand_silent_connections_do_not_keep_others_out(void)
{
    enum { SILENT = 1000 };
    static int fds[SILENT];
    start(&a, 0);
    for (int i = 0; i < SILENT; i++) {
        fds[i] = connect_to(&a);
    }
    start(&b, 1);
    net_know(&b, (struct net_node *[]){ &a }, 1);
    net_until(net_connected(&b, a.instance));
    unsigned open = 0;
    for (int i = 0; i < SILENT; i++) {
        uint8_t byte;
        open += recv(fds[i], &byte, 1, MSG_DONTWAIT) < 0;
        close(fds[i]);
    }
    check(open <= RQ_PEERS_STRANGERS_MAX);
    stop_two();
}

static void garbage_before_tls_closes_the_connection(void)
{
    start(&a, 0);
    int fd = connect_to(&a);
    static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    check(send(fd, http, sizeof http, MSG_NOSIGNAL) > 0);
    check(is_closed(fd));
    close(fd);
    net_stop(&a);
}

/* A dialler by hand: its end of TLS, and then what it likes. */
struct hand {
    int fd;
    struct rq_tls *tls;
    struct rq_channel *channel;
};

static ssize_t hand_receive(void *ctx, void *data, size_t bytes)
{
    struct pollfd p = { .fd = ((struct hand *)ctx)->fd, .events = POLLIN };
    return poll(&p, 1, 20000) == 1 ? recv(p.fd, data, bytes, 0) : 0;
}

static ssize_t hand_send(void *ctx, const void *data, size_t bytes)
{
    return send(((struct hand *)ctx)->fd, data, bytes, MSG_NOSIGNAL);
}

static void hand_open(struct hand *h, const struct net_node *to)
{
    char text[RQ_TEXT_MAX + 1];
    const struct rq_tls_transport transport = { h, hand_receive, hand_send };
    h->fd = connect_to(to);
    check_eq(rq_tls_new(NULL, &h->tls, text), RQ_OK);
    check_eq(rq_channel_new(h->tls, "127.0.0.1", &transport, &h->channel), RQ_OK);
    check_eq(rq_channel_handshake(h->channel, text), RQ_OK);
}

static void hand_close(struct hand *h)
{
    rq_channel_free(h->channel);
    rq_tls_free(h->tls);
    close(h->fd);
}

/* The refusal that comes, or AWAY when the connection is closed without one. */
static enum rq_err hand_refusal(struct hand *h, char text[RQ_TEXT_MAX + 1])
{
    uint8_t bytes[8192];
    size_t n;
    struct rq_frame frame;
    struct rq_peer_failed failed;
    if (rq_channel_receive(h->channel, bytes, sizeof bytes, &n) != RQ_OK) {
        return RQ_AWAY;
    }
    check(n > RQ_FRAME_HEAD_BYTES && rq_peer_frame_decode(bytes, &frame) == RQ_OK && frame.type == RQ_PEER_FAILED);
    check_eq(rq_peer_get_failed(bytes + RQ_FRAME_HEAD_BYTES, frame.body_bytes, &failed), RQ_OK);
    (void)snprintf(text, RQ_TEXT_MAX + 1, "%.*s", (int)failed.text.bytes, failed.text.data);
    return failed.err;
}

static void put_hello(struct hand *h, struct rq_bytes *out, struct rq_node_key *key, struct rq_peer_hello hello)
{
    uint8_t exporter[RQ_PEER_EXPORTER_BYTES], text[RQ_PEER_SIGNED_BYTES], signature[RQ_NODE_SIGNATURE_BYTES];
    check_eq(rq_channel_exporter(h->channel, exporter), RQ_OK);
    rq_peer_signed(RQ_PEER_HELLO, exporter, text);
    check_eq(rq_node_key_sign(key, text, sizeof text, signature), RQ_OK);
    hello.signature = signature;
    rq_bytes_init(out, 8192);
    check_eq(rq_peer_put_hello(out, RQ_PEER_HELLO, &hello), RQ_OK);
}

static struct rq_peer_hello hello_of(const struct net_node *n)
{
    return (struct rq_peer_hello){
        .version = RQ_PEER_VERSION,
        .cluster = NET_CLUSTER,
        .instance = n->instance,
        .epoch = 5,
        .kind = RQ_PEER_RAFT,
        .node_name = { "hand", 4 },
        .address = { "h:1", 3 },
        .key = rq_node_key_public(n->key),
    };
}

static void another_version_is_refused_with_words(void)
{
    start_two();
    struct hand h;
    struct rq_bytes out;
    char text[RQ_TEXT_MAX + 1];
    hand_open(&h, &a);
    struct rq_peer_hello hello = hello_of(&b);
    hello.version = RQ_PEER_VERSION + 1;
    put_hello(&h, &out, b.key, hello);
    check_eq(rq_channel_send(h.channel, out.data, out.size), RQ_OK);
    check_eq(hand_refusal(&h, text), RQ_VERSION);
    check(strstr(text, "node n0 speaks version 1") != NULL);
    hand_close(&h);
    rq_bytes_fini(&out);
    stop_two();
}

static void a_key_that_is_not_proved_is_refused(void)
{
    start_two();
    char text[RQ_TEXT_MAX + 1];
    struct rq_bytes out;
    struct hand h, other;
    hand_open(&h, &a);
    put_hello(&h, &out, a.key, hello_of(&b)); /* says b's key, signs with another */
    check_eq(rq_channel_send(h.channel, out.data, out.size), RQ_OK);
    check_eq(hand_refusal(&h, text), RQ_PERM);
    rq_bytes_fini(&out);
    hand_close(&h);

    hand_open(&h, &a);
    hand_open(&other, &a);
    put_hello(&other, &out, b.key, hello_of(&b)); /* right, but of another connection */
    check_eq(rq_channel_send(h.channel, out.data, out.size), RQ_OK);
    check_eq(hand_refusal(&h, text), RQ_PERM);
    check(strstr(text, "not proved") != NULL);
    rq_bytes_fini(&out);
    hand_close(&h);
    hand_close(&other);
    stop_two();
}

static void garbage_behind_tls_closes_the_connection(void)
{
    start(&a, 0);
    start(&b, 1);
    char text[RQ_TEXT_MAX + 1];
    for (unsigned i = 0; i < 12; i++) {
        struct hand h;
        struct rq_bytes out;
        hand_open(&h, &a);
        put_hello(&h, &out, b.key, hello_of(&b));
        static const uint8_t large[16] = { 0, 0, 0x20, 0, 0, 1 };
        switch (i % 6) {
            case 0: /* cut off */
                check_eq(rq_channel_send(h.channel, out.data, 20 + i), RQ_OK);
                (void)shutdown(h.fd, SHUT_WR);
                break;
            case 1: /* spoilt inside */
                out.data[RQ_FRAME_HEAD_BYTES + i] ^= 0xff;
                check_eq(rq_channel_send(h.channel, out.data, out.size), RQ_OK);
                break;
            case 2: /* larger than a stranger may */
                check_eq(rq_channel_send(h.channel, large, sizeof large), RQ_OK);
                break;
            case 3: /* another frame first */
                out.data[5] = RQ_PEER_MESSAGE;
                check_eq(rq_channel_send(h.channel, out.data, out.size), RQ_OK);
                break;
            case 4: /* the second frame is none */
                check_eq(rq_channel_send(h.channel, out.data, out.size), RQ_OK);
                memset(out.data, 0xff, RQ_FRAME_HEAD_BYTES);
                check_eq(rq_channel_send(h.channel, out.data, RQ_FRAME_HEAD_BYTES), RQ_OK);
                break;
            default: /* a stream on a connection for raft */
                check_eq(rq_channel_send(h.channel, out.data, out.size), RQ_OK);
                memset(out.data, 0, RQ_FRAME_HEAD_BYTES);
                out.data[5] = RQ_PEER_OPEN;
                check_eq(rq_channel_send(h.channel, out.data, RQ_FRAME_HEAD_BYTES), RQ_OK);
                break;
        }
        enum rq_err err;
        uint8_t bytes[4096];
        size_t n;
        if (i % 6 >= 4) {
            while (rq_channel_receive(h.channel, bytes, sizeof bytes, &n) == RQ_OK) {
            }
        } else {
            err = hand_refusal(&h, text);
            check(err == RQ_AWAY || err == RQ_PROTOCOL);
        }
        check(is_closed(h.fd));
        rq_bytes_fini(&out);
        hand_close(&h);
    }
    net_know(&b, (struct net_node *[]){ &a }, 1);
    net_until(net_connected(&b, a.instance));
    stop_two();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(raft_messages_of_all_sizes_arrive_in_order),
        TAP(node_listens_while_any_number_of_its_strands_wait_for_a_disk),
        TAP(requests_are_answered_or_failed_with_words),
        TAP(answer_that_may_wait_comes_with_the_next_or_by_itself),
        TAP(a_request_of_the_largest_size_passes),
        TAP(unanswered_is_unknown_and_unsent_is_away),
        TAP(a_request_waits_for_the_connection),
        TAP(what_is_under_way_at_the_end_is_answered),
        TAP(a_node_without_a_cluster_joins_and_nothing_else),
        TAP(a_join_fails_with_words),
        TAP(a_node_of_another_cluster_is_refused),
        TAP(a_wrong_key_is_refused),
        TAP(copies_of_a_data_directory_are_refused),
        TAP(who_dials_its_former_self_loses_no_connection),
        TAP(who_is_removed_is_sent_away),
        TAP(certificates_are_checked_by_both_and_refused_in_words),
        TAP(either_side_comes_back),
        TAP(a_peer_that_does_not_read_costs_a_fixed_amount),
        TAP(a_stopped_peer_is_noticed),
        TAP(a_thousand_silent_connections_do_not_keep_others_out),
        TAP(garbage_before_tls_closes_the_connection),
        TAP(another_version_is_refused_with_words),
        TAP(a_key_that_is_not_proved_is_refused),
        TAP(garbage_behind_tls_closes_the_connection),
    };
    net_begin();
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    net_end();
    return failed;
}
