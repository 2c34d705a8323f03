/* Peers: members, dialling, accepting, and the I/O thread's round.
 *
 * A few threads share a door: the watcher waits for events, reads, calls back, and then carries what the callbacks posted to strands.
 * Around what blocks (a disk) it leaves, so nobody's heartbeat waits for a sync: what comes meanwhile wakes another thread.  So a
 * message is read and dealt with by one wake-up, and the sync of what it brought costs none.  Two do, as a rule; where all are away,
 * as when several databases apply long transactions or wait for space, there is one more from then on. */
#include "raftd/net/peers.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "raftd/net/peers_impl.h"
#include "raftd/ops/journal.h"
#include "raftd/run/metrics.h"
#include "raftd/run/strand.h"

#define EVENTS_MAX     64
#define PORCH_A_ROUND  4 /* a handshake costs half a millisecond: so many, then those who are let in */
#define ACCEPT_A_ROUND 16
#define BACKLOG        256
#define PING_MS        250u
#define DEAD_MS        2000u
#define DOOR_MS        500 /* time-outs come late by so much at most, and only while the watcher is away */

uint64_t peers_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

void peers_ring(struct rq_peers *p)
{
    uint64_t one = 1;
    (void)!write(p->bell, &one, sizeof one); /* full: it rings already */
}

/* --- members --------------------------------------------------------------------------------------------------------------- */

void peer_member_unref(struct peer_member *m)
{
    if (m != NULL && atomic_fetch_sub(&m->refs, 1) == 1) {
        pthread_mutex_destroy(&m->lock);
        free(m);
    }
}

static struct peer_member *find_locked(struct rq_peers *p, uint64_t instance)
{
    struct peer_member *m = p->members;
    while (m != NULL && m->instance != instance) {
        m = m->next;
    }
    return m;
}

struct peer_member *peer_member_find(struct rq_peers *p, uint64_t instance)
{
    pthread_mutex_lock(&p->lock);
    struct peer_member *m = find_locked(p, instance);
    if (m != NULL) {
        atomic_fetch_add(&m->refs, 1);
    }
    pthread_mutex_unlock(&p->lock);
    return m;
}

static struct peer_member *new_member(struct rq_peers *p, const struct rq_peer_member *from)
{
    struct peer_member *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return NULL;
    }
    atomic_init(&m->refs, 1);
    m->peers = p;
    m->instance = from->instance;
    (void)snprintf(m->address, sizeof m->address, "%s", from->address);
    memcpy(m->key, from->key, RQ_NODE_KEY_BYTES);
    pthread_mutex_init(&m->lock, NULL);
    for (unsigned i = 0; i < RQ_PEER_JOIN; i++) {
        m->dials[i] = (struct peer_dial){ .peers = p,
                                          .member = m,
                                          .kind = (enum rq_peer_kind)i,
                                          .job.address = m->address,
                                          .text = "not yet connected" };
    }
    return m;
}

static bool is_same(const struct peer_member *m, const struct rq_peer_member *as)
{
    return m->instance == as->instance && strcmp(m->address, as->address) == 0 &&
           memcmp(m->key, as->key, RQ_NODE_KEY_BYTES) == 0;
}

enum rq_err rq_peers_set_members(struct rq_peers *p, const struct rq_peer_member *members, size_t count)
{
    struct peer_member *fresh = NULL;
    enum rq_err err = count <= RQ_PEERS_MEMBERS_MAX ? RQ_OK : RQ_TOOBIG;
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < count && err == RQ_OK; i++) {
        const struct peer_member *known = find_locked(p, members[i].instance);
        if (members[i].instance == p->instance || (known != NULL && is_same(known, &members[i]))) {
            continue;
        }
        struct peer_member *m = strlen(members[i].address) < RQ_PEERS_ADDRESS_MAX ? new_member(p, &members[i]) : NULL;
        if (m == NULL) {
            err = strlen(members[i].address) < RQ_PEERS_ADDRESS_MAX ? RQ_NOMEM : RQ_TOOBIG;
            break;
        }
        m->next = fresh;
        fresh = m;
    }
    /* All is there: those that are not named as they are go, the fresh ones come. */
    for (struct peer_member **at = &p->members, *m; err == RQ_OK && (m = *at) != NULL;) {
        bool stays = false;
        for (size_t i = 0; i < count; i++) {
            stays = stays || is_same(m, &members[i]);
        }
        if (stays) {
            at = &m->next;
        } else {
            *at = m->next;
            m->next = p->gone;
            p->gone = m;
        }
    }
    while (fresh != NULL) {
        struct peer_member *m = fresh;
        fresh = m->next;
        if (err == RQ_OK) {
            m->next = p->members;
            p->members = m;
        } else {
            peer_member_unref(m);
        }
    }
    p->judge_again = p->judge_again || err == RQ_OK;
    pthread_mutex_unlock(&p->lock);
    peers_ring(p);
    return err;
}

/* --- dialling -------------------------------------------------------------------------------------------------------------- */

static unsigned jitter(unsigned ms)
{
    unsigned r;
    return getrandom(&r, sizeof r, 0) == (ssize_t)sizeof r ? ms / 2 + r % (ms / 2 + 1) : ms;
}

static void name_of(const struct sockaddr_storage *address, socklen_t bytes, char text[RQ_PEERS_ADDRESS_MAX])
{
    char host[256], port[32];
    if (getnameinfo((const struct sockaddr *)address, bytes, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        (void)snprintf(text, RQ_PEERS_ADDRESS_MAX, "?");
        return;
    }
    (void)snprintf(text, RQ_PEERS_ADDRESS_MAX, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
}

static void prepare_socket(const struct rq_peers *p, int fd)
{
    int on = 1, dead_ms = (int)p->dead_ms;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* slower without, as the next: not wrong */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof dead_ms);
}

static void connect_next(struct peer_dial *d)
{
    struct rq_peers *p = d->peers;
    const struct sockaddr_storage *to = &d->addresses.all[d->address_at];
    socklen_t bytes = d->addresses.bytes[d->address_at];
    char text[RQ_PEERS_ADDRESS_MAX], words[128];
    int fd = socket(to->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        peer_dial_lost(d, strerror_r(errno, words, sizeof words), RQ_OK);
        return;
    }
    prepare_socket(p, fd);
    name_of(to, bytes, text);
    if (connect(fd, (const struct sockaddr *)to, bytes) != 0 && errno != EINPROGRESS) {
        const char *why = strerror_r(errno, words, sizeof words);
        close(fd);
        peer_dial_lost(d, why, RQ_OK);
        return;
    }
    d->conn = peer_conn_new(p, fd, d, text);
    if (d->conn == NULL) {
        close(fd);
        peer_dial_lost(d, "out of memory", RQ_OK);
    }
}

void peer_dial_tick(struct peer_dial *d, uint64_t now_ms)
{
    if (d->conn != NULL || d->resolving || now_ms < d->next_ms) {
        return;
    }
    if (d->address_at < d->addresses.count) {
        connect_next(d);
        return;
    }
    d->address_at = 0;
    if (rq_resolve_digits(d->job.address, &d->addresses) == RQ_OK) {
        connect_next(d);
        return;
    }
    d->resolving = true;
    if (d->member != NULL) {
        atomic_fetch_add(&d->member->refs, 1); /* the job is part of it */
    }
    rq_resolver_post(d->peers->resolver, &d->job);
}

static void resolved(void *ctx, struct rq_resolve_job *job)
{
    struct rq_peers *p = ctx;
    pthread_mutex_lock(&p->lock);
    job->next = p->resolved;
    p->resolved = job;
    pthread_mutex_unlock(&p->lock);
    peers_ring(p);
}

static void take_resolved(struct rq_peers *p)
{
    pthread_mutex_lock(&p->lock);
    struct rq_resolve_job *list = p->resolved;
    p->resolved = NULL;
    pthread_mutex_unlock(&p->lock);
    while (list != NULL) {
        struct peer_dial *d = (struct peer_dial *)((char *)list - offsetof(struct peer_dial, job));
        struct peer_member *m = d->member;
        list = list->next;
        d->resolving = false;
        bool wanted = !p->ending && (m == NULL || !m->gone);
        if (wanted && d->job.err == RQ_OK) {
            d->addresses = d->job.addresses;
            d->address_at = 0;
            d->next_ms = 0;
        } else if (wanted) {
            d->addresses.count = 0;
            peer_dial_lost(d, d->job.why, RQ_OK);
        }
        peer_member_unref(m);
    }
}

static void set_dial_text(struct peer_dial *d, const char *text, struct peer_conn *open_conn)
{
    struct peer_conn *former = NULL;
    if (d->member != NULL) {
        pthread_mutex_lock(&d->member->lock);
        former = d->open_conn;
        d->open_conn = open_conn;
        (void)snprintf(d->text, sizeof d->text, "%s", text);
        pthread_mutex_unlock(&d->member->lock);
    }
    peer_conn_unref(former);
}

void peer_dial_opened(struct peer_dial *d)
{
    d->backoff_ms = 0;
    d->told = false;
    if (d->kind == RQ_PEER_REQUESTS && d->join == NULL) {
        if (d->opened_once) {
            RQ_COUNT(cluster, num_client_force_new_conn);
        }
        d->opened_once = true;
    }
    if (d->join != NULL) {
        peer_join_opened(d->join);
        return;
    }
    peer_conn_ref(d->conn);
    set_dial_text(d, "", d->conn);
    atomic_store(&d->member->heard_ms, peers_now_ms());
    if (d->kind == RQ_PEER_RAFT) {
        rq_note(RQ_LEVEL_INFO, "connected to another node", "node=%s instance=%016llx address=%s", d->conn->name,
                (unsigned long long)d->conn->instance, d->conn->address);
    } else if (d->kind == RQ_PEER_REQUESTS) {
        peer_requests_send_waiting(d->member);
    }
}

void peer_dial_lost(struct peer_dial *d, const char *why, enum rq_err refusal)
{
    struct peer_conn *c = d->conn;
    bool was_open = c != NULL && d->member != NULL && d->open_conn == c;
    d->conn = NULL;
    set_dial_text(d, why, NULL);
    if (was_open) {
        d->addresses.count = d->address_at = 0; /* its name may mean another host now */
    } else {
        d->address_at++;
    }
    bool more = refusal == RQ_OK && !was_open && d->address_at < d->addresses.count;
    if (d->join != NULL && !more) {
        peer_join_over(d->join, refusal != RQ_OK ? refusal : RQ_AWAY, NULL, (const uint8_t *)why, strlen(why));
        return;
    }
    const bool news =
        !d->told || (refusal != RQ_OK && refusal != d->told_refusal); /* first away, then somebody else there */
    if (!more && news && d->kind == RQ_PEER_RAFT) {
        assert(d->member != NULL); /* one without a member is a join's */
        char quoted[RQ_TEXT_MAX + 1];
        d->told = true;
        d->told_refusal = refusal;
        rq_note(refusal != RQ_OK ? RQ_LEVEL_WARN : RQ_LEVEL_INFO, "no connection to another node",
                "instance=%016llx address=%s text=%s", (unsigned long long)d->member->instance, d->member->address,
                rq_quote(quoted, sizeof quoted, why));
    }
    if (more) {
        d->next_ms = 0;
    } else if (refusal != RQ_OK && refusal != RQ_BUSY && refusal != RQ_UNREADY) {
        d->next_ms = peers_now_ms() + jitter(PEER_REFUSED_MS);
        d->addresses.count = 0;
    } else {
        d->backoff_ms = d->backoff_ms == 0 ? PEER_BACKOFF_MS : 2 * d->backoff_ms;
        d->backoff_ms = d->backoff_ms < PEER_BACKOFF_MAX ? d->backoff_ms : PEER_BACKOFF_MAX;
        d->next_ms = peers_now_ms() + jitter(d->backoff_ms);
        d->addresses.count = 0;
    }
    if (was_open && d->kind == RQ_PEER_REQUESTS) {
        peer_requests_lost(d->member, c);
    }
}

/* --- accepting ------------------------------------------------------------------------------------------------------------- */

static void watch_listener(struct rq_peers *p, bool on)
{
    struct epoll_event e = { .events = on ? EPOLLIN : 0, .data.ptr = &p->listener };
    (void)epoll_ctl(p->epoll, EPOLL_CTL_MOD, p->listener, &e); /* it is in there */
    p->listening = on;
}

/* The list has the oldest first. */
static void send_a_stranger_away(struct rq_peers *p)
{
    for (struct peer_conn *c = p->conns; c != NULL; c = c->next) {
        if (c->nursed) {
            peer_conn_close(c, "too many connections have not said who they are");
            return;
        }
    }
}

static void accept_some(struct rq_peers *p)
{
    for (unsigned i = 0; i < ACCEPT_A_ROUND; i++) {
        struct sockaddr_storage from = { 0 };
        socklen_t bytes = sizeof from;
        char text[RQ_PEERS_ADDRESS_MAX];
        int fd = accept4(p->listener, (struct sockaddr *)&from, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                watch_listener(p, false); /* until the next tick */
            }
            return;
        }
        if (p->strangers >= RQ_PEERS_STRANGERS_MAX) {
            send_a_stranger_away(p);
        }
        prepare_socket(p, fd);
        name_of(&from, bytes, text);
        if (peer_conn_new(p, fd, NULL, text) == NULL) {
            close(fd);
        }
    }
}

/* --- the round ------------------------------------------------------------------------------------------------------------- */

/* References; returns how many. */
static unsigned all_members(struct rq_peers *p, struct peer_member *all[RQ_PEERS_MEMBERS_MAX])
{
    unsigned count = 0;
    pthread_mutex_lock(&p->lock);
    for (struct peer_member *m = p->members; m != NULL; m = m->next) {
        atomic_fetch_add(&m->refs, 1);
        all[count++] = m;
    }
    pthread_mutex_unlock(&p->lock);
    return count;
}

static void end_member(struct peer_member *m)
{
    pthread_mutex_lock(&m->lock);
    m->gone = true;
    pthread_mutex_unlock(&m->lock);
    for (unsigned i = 0; i < RQ_PEER_JOIN; i++) {
        struct peer_conn *c = m->dials[i].conn;
        if (c != NULL) {
            peer_conn_close(c, "no member any more, or at another address");
            c->dial = NULL;
        }
    }
    peer_requests_end(m);
    peer_member_unref(m);
}

static void judge_again(struct rq_peers *p)
{
    struct peer_conn *next;
    for (struct peer_conn *c = p->conns; c != NULL; c = next) {
        struct rq_peer_who who;
        char text[RQ_TEXT_MAX + 1] = "";
        next = c->next;
        if (c->state == CONN_OPEN && !c->dialled && c->kind != RQ_PEER_JOIN) {
            peer_conn_who(c, &who);
            enum rq_err err = p->ops->judge(p->ops->ctx, &who, text);
            if (err != RQ_OK) {
                peer_conn_refuse(c, err, text);
                peer_streams_lost(c);
            }
        }
    }
}

static void dial_all(struct rq_peers *p, uint64_t now_ms, bool with_time_outs)
{
    struct peer_member *all[RQ_PEERS_MEMBERS_MAX];
    unsigned count = all_members(p, all);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < RQ_PEER_JOIN; k++) {
            peer_dial_tick(&all[i]->dials[k], now_ms);
        }
        if (with_time_outs) {
            peer_requests_tick(all[i], now_ms);
        }
        peer_member_unref(all[i]);
    }
    peer_joins_tick(p, now_ms);
}

/* Somebody wants something of the I/O thread. */
static void answer_bell(struct rq_peers *p)
{
    uint64_t times;
    (void)!read(p->bell, &times, sizeof times); /* nothing there: somebody else's ring was it */
    pthread_mutex_lock(&p->lock);
    struct peer_member *gone = p->gone;
    bool judge = p->judge_again;
    p->gone = NULL;
    p->judge_again = false;
    pthread_mutex_unlock(&p->lock);
    while (gone != NULL) {
        struct peer_member *m = gone;
        gone = m->next;
        end_member(m);
    }
    if (judge) {
        judge_again(p);
    }
    take_resolved(p);
    peer_joins_begin(p);
    peer_streams_closing(p);
    dial_all(p, peers_now_ms(), false);
}

static void tell_member(struct rq_peers *p, struct peer_conn *c)
{
    struct peer_member *m = peer_member_find(p, c->instance);
    if (m != NULL) {
        if (atomic_load(&m->heard_ms) < c->heard_ms) {
            atomic_store(&m->heard_ms, c->heard_ms);
        }
        atomic_fetch_add(&m->sent_bytes, atomic_exchange(&c->sent_bytes, 0));
        atomic_fetch_add(&m->received_bytes, atomic_exchange(&c->received_bytes, 0));
        peer_member_unref(m);
    }
}

static bool is_broken(struct peer_conn *c)
{
    pthread_mutex_lock(&c->lock);
    bool broken = c->broken;
    pthread_mutex_unlock(&c->lock);
    return broken;
}

static void tick_conn(struct rq_peers *p, struct peer_conn *c, uint64_t now_ms)
{
    if (c->deadline_ms != 0 && now_ms >= c->deadline_ms) {
        peer_conn_close(
            c, c->state == CONN_CONNECTING ? "no connection in time" : "the handshake was not finished in time");
        return;
    }
    if (is_broken(c)) {
        peer_conn_close(c, "the connection was broken, or not read from");
        return;
    }
    if (c->state != CONN_OPEN) {
        return;
    }
    tell_member(p, c);
    peer_conn_flush(c); /* rq_call_answer_later() */
    if (c->kind == RQ_PEER_JOIN) {
        return;
    }
    uint64_t silent_ms = now_ms - c->heard_ms;
    if (silent_ms >= p->dead_ms) {
        peer_conn_close(c, "nothing was heard for %llu ms", (unsigned long long)silent_ms);
    } else if (c->dialled && silent_ms >= p->ping_ms && now_ms - c->pinged_ms >= p->ping_ms) {
        c->pinged_ms = now_ms;
        (void)peer_conn_send(c, RQ_PEER_PING, 0, NULL, 0, PEER_CONTROL_ROOM); /* what is queued before asks as well */
    }
}

static void tick(struct rq_peers *p, uint64_t now_ms)
{
    struct peer_conn *next;
    if (now_ms - p->tick_ms >= p->dead_ms / 2) {
        /* We were stopped, not they: what they sent meanwhile is still to be read. */
        for (struct peer_conn *c = p->conns; c != NULL; c = c->next) {
            c->heard_ms = now_ms;
        }
    }
    p->tick_ms = now_ms;
    for (struct peer_conn *c = p->conns; c != NULL; c = next) {
        next = c->next; /* closing one connection closes no other */
        tick_conn(p, c, now_ms);
    }
    if (!p->listening) {
        watch_listener(p, true);
    }
    dial_all(p, now_ms, true);
}

static void serve_porch(struct rq_peers *p)
{
    struct epoll_event events[PORCH_A_ROUND];
    int n = epoll_wait(p->porch, events, PORCH_A_ROUND, 0);
    for (int i = 0; i < n; i++) {
        peer_conn_event(events[i].data.ptr, events[i].events);
    }
}

static void bury(struct rq_peers *p)
{
    while (p->graveyard != NULL) {
        struct peer_conn *c = p->graveyard;
        p->graveyard = c->next;
        peer_conn_unref(c);
    }
}

static void do_round(struct rq_peers *p)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t now_ms = peers_now_ms();
    int wait_ms = now_ms - p->tick_ms >= PEER_TICK_MS ? 0 : (int)(PEER_TICK_MS - (now_ms - p->tick_ms));
    int n = epoll_wait(p->epoll, events, EVENTS_MAX, wait_ms);
    /* Raft first: what elects must not wait for what is merely wanted. */
    for (int first = 1; first >= 0; first--) {
        for (int i = 0; i < n; i++) {
            void *who = events[i].data.ptr;
            if (who == &p->listener || who == &p->porch || who == &p->bell) {
                continue;
            }
            struct peer_conn *c = who;
            if ((c->state == CONN_OPEN && c->kind == RQ_PEER_RAFT) == (first == 1) && events[i].events != 0) {
                uint32_t came = events[i].events;
                events[i].events = 0;
                peer_conn_event(c, came);
            }
        }
    }
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == &p->bell) {
            answer_bell(p);
        } else if (events[i].data.ptr == &p->porch) {
            serve_porch(p);
        } else if (events[i].data.ptr == &p->listener) {
            accept_some(p);
        }
    }
    now_ms = peers_now_ms();
    if (now_ms - p->tick_ms >= PEER_TICK_MS) {
        tick(p, now_ms);
    }
    bury(p);
}

/* --- the threads ------------------------------------------------------------------------------------------------------------ */

static void add_thread(struct rq_peers *p);

static _Thread_local bool is_away; /* this thread left the door, and has not come back to it */

static void come_back(struct rq_peers *p)
{
    if (is_away) {
        is_away = false;
        atomic_fetch_sub(&p->threads_away, 1);
    }
}

static void leave_door(void *ctx)
{
    struct rq_peers *p = ctx;
    if (rq_door_is_mine(&p->door)) {
        rq_door_leave(&p->door);
        is_away = true;
        if (atomic_fetch_add(&p->threads_away, 1) + 1 >= atomic_load(&p->thread_count)) {
            add_thread(p);
        }
    }
}

static void take_door(void *ctx)
{
    struct rq_peers *p = ctx;
    rq_door_take(&p->door);
    if (rq_door_is_mine(&p->door)) {
        come_back(p);
    }
}

static void *io_thread(void *arg)
{
    struct rq_peers *p = arg;
    const struct rq_duty duty = { leave_door, take_door, p };
    rq_strand_set_duty(&duty);
    while (!atomic_load(&p->stop)) {
        come_back(p);
        if (rq_door_is_mine(&p->door) || rq_door_wait(&p->door, DOOR_MS)) {
            rq_strand_hold();
            do_round(p);
            rq_strand_let_go(); /* here the door may be left */
        }
    }
    rq_door_leave(&p->door);
    peers_ring(p); /* for the other one */
    return NULL;
}

/* If it cannot be made, the others do. */
static void add_thread(struct rq_peers *p)
{
    pthread_mutex_lock(&p->lock);
    const unsigned count = atomic_load(&p->thread_count);
    if (count < PEER_THREADS_MAX && !atomic_load(&p->stop) &&
        pthread_create(&p->threads[count], NULL, io_thread, p) == 0) {
        (void)pthread_setname_np(p->threads[count], "raftd-peers"); /* for ps only */
        atomic_store(&p->thread_count, count + 1);
    }
    pthread_mutex_unlock(&p->lock);
}

/* --- life ------------------------------------------------------------------------------------------------------------------ */

/* As Go's net.Listen: of a name's addresses the first of IPv4, else the first. */
static int listen_on(const char *address, unsigned *ret_port, char text[RQ_TEXT_MAX + 1])
{
    struct rq_addresses found;
    const char *why = "";
    char words[128];
    if (rq_resolve_now(address, true, &found, &why) != RQ_OK) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "%s: %s", address, why);
        return -1;
    }
    bool any = address[0] == ':';
    unsigned at = 0;
    while (at < found.count && found.all[at].ss_family != (any ? AF_INET6 : AF_INET)) {
        at++;
    }
    at = at < found.count ? at : 0;
    int fd = socket(found.all[at].ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1, off = 0;
    if (fd >= 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (found.all[at].ss_family == AF_INET6) {
            (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        }
    }
    struct sockaddr_storage bound = { 0 };
    socklen_t bytes = sizeof bound;
    if (fd < 0 || bind(fd, (struct sockaddr *)&found.all[at], found.bytes[at]) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &bytes) != 0) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "%s: %s", address, strerror_r(errno, words, sizeof words));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    *ret_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                  : ((struct sockaddr_in *)&bound)->sin_port);
    return fd;
}

static bool watch_own(struct rq_peers *p, int *fd)
{
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = fd };
    return epoll_ctl(p->epoll, EPOLL_CTL_ADD, *fd, &e) == 0;
}

enum rq_err rq_peers_new(const struct rq_peers_config *config, struct rq_peers **ret_peers, char text[RQ_TEXT_MAX + 1])
{
    struct rq_peers *p = calloc(1, sizeof *p);
    text[0] = '\0';
    if (p == NULL) {
        return RQ_NOMEM;
    }
    p->ops = config->ops;
    p->key = config->key;
    p->instance = config->instance;
    (void)snprintf(p->name, sizeof p->name, "%s", config->node_name);
    (void)snprintf(p->advertise, sizeof p->advertise, "%.*s", (int)RQ_PEER_NAME_MAX, config->advertise_address);
    p->ping_ms = config->ping_ms != 0 ? config->ping_ms : PING_MS;
    p->dead_ms = config->dead_ms != 0 ? config->dead_ms : DEAD_MS;
    atomic_init(&p->cluster, config->cluster);
    pthread_mutex_init(&p->lock, NULL);
    p->listening = true;
    p->tick_ms = peers_now_ms();
    p->listener = p->epoll = p->porch = p->bell = p->door.sleep = -1;

    while (p->epoch == 0) {
        (void)!getrandom(&p->epoch, sizeof p->epoch, 0); /* 8 bytes never come in part */
    }
    enum rq_err err = rq_tls_new(config->tls, &p->tls, text);
    if (err != RQ_OK) {
        goto undo;
    }
    err = RQ_IO;
    p->listener = listen_on(config->listen_address, &p->port, text);
    if (p->listener < 0) {
        goto undo;
    }
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->porch = epoll_create1(EPOLL_CLOEXEC);
    p->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (p->epoll < 0 || p->porch < 0 || p->bell < 0 || !watch_own(p, &p->listener) || !watch_own(p, &p->porch) ||
        !watch_own(p, &p->bell)) {
        goto undo;
    }
    err = rq_door_init(&p->door, p->epoll);
    if (err == RQ_OK) {
        err = rq_resolver_new(resolved, p, &p->resolver);
    }
    if (err != RQ_OK) {
        goto undo;
    }
    add_thread(p);
    add_thread(p);
    if (atomic_load(&p->thread_count) == 0) {
        err = RQ_NOMEM;
        goto undo;
    }
    *ret_peers = p;
    return RQ_OK;

undo:
    rq_peers_free(p);
    return err;
}

void rq_peers_free(struct rq_peers *p)
{
    if (p == NULL) {
        return;
    }
    pthread_mutex_lock(&p->lock); /* from here on there are no more threads */
    atomic_store(&p->stop, true);
    pthread_mutex_unlock(&p->lock);
    if (atomic_load(&p->thread_count) > 0) {
        peers_ring(p);
    }
    for (unsigned i = 0; i < atomic_load(&p->thread_count); i++) {
        pthread_join(p->threads[i], NULL);
    }
    /* From here on this is the I/O thread. */
    p->ending = true;
    rq_resolver_free(p->resolver);
    take_resolved(p);
    peer_joins_end(p);
    while (p->conns != NULL) {
        peer_conn_close(p->conns, "shutting down");
    }
    for (;;) {
        pthread_mutex_lock(&p->lock);
        struct peer_member **from = p->members != NULL ? &p->members : &p->gone, *m = *from;
        if (m != NULL) {
            *from = m->next;
        }
        pthread_mutex_unlock(&p->lock);
        if (m == NULL) {
            break;
        }
        end_member(m);
    }
    peer_streams_closing(p);
    bury(p);
    if (p->door.sleep >= 0) {
        rq_door_fini(&p->door);
    }
    int fds[] = { p->listener, p->porch, p->epoll, p->bell };
    for (unsigned i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    rq_tls_free(p->tls);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

unsigned rq_peers_port(const struct rq_peers *p)
{
    return p->port;
}

void rq_peers_set_cluster(struct rq_peers *p, uint64_t cluster)
{
    atomic_store(&p->cluster, cluster);
}

void rq_peers_reload(struct rq_peers *p)
{
    rq_tls_reload(p->tls);
}

bool rq_peers_send_raft(struct rq_peers *p, uint64_t instance, const struct iovec *parts, int part_count)
{
    struct peer_member *m = peer_member_find(p, instance);
    if (m == NULL) {
        return false;
    }
    pthread_mutex_lock(&m->lock);
    struct peer_conn *c = m->dials[RQ_PEER_RAFT].open_conn;
    if (c != NULL) {
        peer_conn_ref(c);
    }
    pthread_mutex_unlock(&m->lock);
    bool sent = c != NULL && peer_conn_send(c, RQ_PEER_MESSAGE, 0, parts, part_count, RQ_PEERS_RAFT_QUEUE_MAX) == RQ_OK;
    atomic_fetch_add(sent ? &m->raft_sent : &m->raft_dropped, 1);
    peer_conn_unref(c);
    peer_member_unref(m);
    return sent;
}

bool rq_peers_state(struct rq_peers *p, uint64_t instance, struct rq_peer_state *ret_state)
{
    struct peer_member *m = peer_member_find(p, instance);
    if (m == NULL) {
        return false;
    }
    uint64_t heard_ms = atomic_load(&m->heard_ms), now_ms = peers_now_ms();
    *ret_state = (struct rq_peer_state){
        .heard_ms_ago = heard_ms == 0 ? UINT64_MAX : now_ms - heard_ms,
        .raft_sent = atomic_load(&m->raft_sent),
        .raft_dropped = atomic_load(&m->raft_dropped),
        .sent_bytes = atomic_load(&m->sent_bytes),
        .received_bytes = atomic_load(&m->received_bytes),
    };
    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < RQ_PEER_JOIN; i++) {
        const struct peer_dial *d = &m->dials[i];
        ret_state->connected[i] = d->open_conn != NULL;
        if (d->open_conn == NULL && ret_state->text[0] == '\0') {
            memcpy(ret_state->text, d->text, sizeof ret_state->text);
        }
    }
    pthread_mutex_unlock(&m->lock);
    peer_member_unref(m);
    return true;
}
