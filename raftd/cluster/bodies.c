#include "raftd/cluster/bodies.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/conduit.h"
#include "raftd/db/staged.h"
#include "raftd/db/staged_copy.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/wire/head.h"

#define BLOCK_BYTES  (256u << 10)
#define HEAD_MAX     128u
#define RETRY_MS     200u
#define INCOMING_MAX 16u /* streams of others at a time: each has a thread */

/* A stream that another node has opened. */
struct incoming {
    struct incoming *next;
    struct rq_bodies *bodies;
    struct rq_conduit *conduit;
    uint64_t kind;
    struct rq_head_body head;
};

/* A body that a database waits for. */
struct want {
    struct want *next;
    struct rq_entry_staged entry;
    void (*done)(void *ctx, enum rq_err err);
    void *ctx;
    bool told; /* that it is not easy to get */
};

struct rq_bodies {
    struct rq_bodies_config config;
    struct rq_carrier carrier;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a want, a carriage left, a thread ended, or all stops */
    bool stops;             /* guarded by lock, as the rest */
    unsigned threads;
    struct incoming *incoming;
    unsigned incoming_count;
    struct want *wants;
    bool fetcher_runs;
};

/* One body to the voters. */
struct courier {
    struct rq_carriage *carriage;
    uint64_t instance;
    bool counts; /* it votes; else it is to, and does so the sooner */
    bool full;   /* guarded by the bodies' lock, as has: it had no space, at the last attempt */
    bool has;    /* durably */
};

struct rq_carriage {
    struct rq_bodies *bodies;
    struct rq_entry_staged entry;
    struct rq_file *file;
    /* Guarded by the bodies' lock, as all that follows. */
    unsigned refs; /* the database's, and each courier's */
    unsigned majority, durable;
    unsigned moving; /* couriers with a stream */
    bool votes;      /* this node, when it was begun */
    unsigned others; /* couriers, of whom so many count: */
    unsigned voters;
    bool left;
    void (*done)(void *ctx);
    void *ctx;
    struct courier couriers[];
};

/* --- threads -------------------------------------------------------------------------------------------------------------------- */

static enum rq_err start_thread(struct rq_bodies *b, void *(*run)(void *arg), void *arg)
{
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_mutex_lock(&b->lock);
    const bool started = !b->stops && pthread_create(&thread, &attr, run, arg) == 0;
    b->threads += started;
    pthread_mutex_unlock(&b->lock);
    pthread_attr_destroy(&attr);
    return started ? RQ_OK : RQ_NOMEM;
}

/* The last thing that a thread does. */
static void thread_ends(struct rq_bodies *b)
{
    pthread_mutex_lock(&b->lock);
    b->threads--;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

/* With the lock held. */
static void rest(struct rq_bodies *b, unsigned ms)
{
    const uint64_t end = rq_clock_ms() + ms;
    const struct timespec until = { (time_t)(end / 1000u), (long)(end % 1000u) * 1000000 };
    (void)pthread_cond_timedwait(&b->changed, &b->lock, &until);
}

static enum rq_err open_conduit(struct rq_bodies *b, uint64_t instance, enum rq_head_kind kind,
                                const struct rq_head_body *head, struct rq_conduit **ret_conduit)
{
    struct rq_bytes bytes;
    rq_bytes_init(&bytes, HEAD_MAX);
    enum rq_err err = rq_head_put_body(&bytes, kind, head);
    if (err == RQ_OK) {
        err = rq_conduit_open(b->config.peers, instance, bytes.data, bytes.size, ret_conduit);
    }
    rq_bytes_fini(&bytes);
    return err;
}

/* The transaction has failed, or all ends: nobody wants it any more. */
static bool is_given_up_locked(const struct rq_carriage *c)
{
    return c->bodies->stops || (c->left && c->durable < c->majority);
}

static bool is_given_up(const struct rq_carriage *c)
{
    pthread_mutex_lock(&c->bodies->lock);
    const bool given_up = is_given_up_locked(c);
    pthread_mutex_unlock(&c->bodies->lock);
    return given_up;
}

/* The file from the offset on.  EXISTS: the other side wants no more of it.  carriage: for which that is, NULL: none. */
static enum rq_err send_file(struct rq_bodies *b, struct rq_file *file, uint64_t at, uint64_t end,
                             struct rq_conduit *conduit, struct rq_carriage *carriage)
{
    uint8_t *block = malloc(BLOCK_BYTES);
    enum rq_err err = block == NULL ? RQ_NOMEM : RQ_OK;
    while (err == RQ_OK && at < end) {
        const size_t wanted = end - at < BLOCK_BYTES ? (size_t)(end - at) : BLOCK_BYTES;
        size_t n;
        err = b->config.disk->ops->read(file, block, wanted, at, &n);
        if (err == RQ_OK && n < wanted) {
            err = RQ_CORRUPT;
        }
        if (err == RQ_OK && carriage != NULL && is_given_up(carriage)) {
            err = RQ_SHUTDOWN;
        }
        if (err == RQ_OK) {
            err = rq_conduit_write(conduit, block, n);
            at += n;
        }
    }
    free(block);
    return err;
}

static bool is_here(struct rq_bodies *b, const uint8_t hash[RQ_BODY_HASH_BYTES], uint64_t body_bytes)
{
    struct rq_file *file;
    enum rq_err err = rq_staged_open_file(b->config.disk, b->config.staged_dir, hash, body_bytes, &file);
    if (err == RQ_OK) {
        b->config.disk->ops->close(file);
    }
    return err == RQ_OK;
}

/* What comes by the conduit, behind what the copy has.  Then it is durable here. */
static enum rq_err take_copy(struct rq_conduit *conduit, struct rq_staged_copy *copy)
{
    const uint8_t *data;
    size_t bytes;
    enum rq_err err;
    do {
        err = rq_conduit_read(conduit, &data, &bytes);
        if (err == RQ_OK && bytes > 0) {
            err = rq_staged_copy_add(copy, data, bytes);
        }
    } while (err == RQ_OK && bytes > 0);
    return err == RQ_OK ? rq_staged_copy_seal(copy) : err;
}

static void fatal_if_io(enum rq_err err)
{
    if (err == RQ_IO) {
        rq_fatal("a staged body could not be written", err);
    }
}

/* --- what others open ------------------------------------------------------------------------------------------------------------- */

/* A body is brought here. */
static void receive(struct incoming *in)
{
    struct rq_bodies *b = in->bodies;
    const struct rq_head_body *head = &in->head;
    struct rq_staged_copy *copy = NULL;
    enum rq_err err = rq_shelf_expect(b->config.shelf, head->hash, head->origin, RQ_SHELF_EXPECT_LOOKS);
    if (err == RQ_OK && is_here(b, head->hash, head->body_bytes)) {
        /* Its name may be newer than the last sync of the directory. */
        err = b->config.disk->ops->sync_dir(b->config.disk, b->config.staged_dir);
        fatal_if_io(err);
    } else if (err == RQ_OK) {
        err = rq_staged_copy_new(b->config.disk, b->config.staged_dir, head->hash, head->body_bytes, false, &copy);
        fatal_if_io(err);
        if (err == RQ_OK) {
            err = take_copy(in->conduit, copy);
            fatal_if_io(err);
        }
        rq_staged_copy_free(copy); /* it stays expected: another stream may have brought it meanwhile */
    }
    if (err == RQ_OK) {
        (void)rq_conduit_finish(in->conduit); /* who has not heard it brings it again */
    } else {
        rq_conduit_abort(in->conduit, err, rq_err_text(err));
    }
}

/* A body is fetched from here. */
static void serve(struct incoming *in)
{
    struct rq_bodies *b = in->bodies;
    struct rq_file *file;
    enum rq_err err = rq_shelf_open(b->config.shelf, in->head.hash, in->head.body_bytes, &file);
    if (err == RQ_OK) {
        err = send_file(b, file, in->head.offset, in->head.body_bytes, in->conduit, NULL);
        rq_shelf_close(b->config.shelf, file);
        err = err == RQ_OK ? rq_conduit_finish(in->conduit) : err;
    }
    if (err != RQ_OK) {
        rq_conduit_abort(in->conduit, err, rq_err_text(err));
    }
}

static void *incoming_thread(void *arg)
{
    struct incoming *in = arg;
    struct rq_bodies *b = in->bodies;
    if (in->kind == RQ_HEAD_BRING) {
        receive(in);
    } else {
        serve(in);
    }
    rq_conduit_free(in->conduit);
    pthread_mutex_lock(&b->lock);
    struct incoming **at = &b->incoming;
    while (*at != in) {
        at = &(*at)->next;
    }
    *at = in->next;
    b->incoming_count--;
    pthread_mutex_unlock(&b->lock);
    free(in);
    thread_ends(b);
    return NULL;
}

/* With the lock held. */
static bool is_coming(const struct rq_bodies *b, const uint8_t hash[RQ_BODY_HASH_BYTES])
{
    for (const struct incoming *in = b->incoming; in != NULL; in = in->next) {
        if (in->kind == RQ_HEAD_BRING && memcmp(in->head.hash, hash, RQ_BODY_HASH_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

enum rq_err rq_bodies_stream(struct rq_bodies *b, struct rq_stream *stream, const uint8_t *head, size_t head_bytes,
                             const struct rq_stream_ops **ret_ops, void **ret_ctx, char text[RQ_TEXT_MAX + 1])
{
    struct incoming *in = calloc(1, sizeof *in);
    enum rq_err err = in == NULL ? RQ_NOMEM : rq_head_get_body(head, head_bytes, &in->head);
    if (err == RQ_OK) {
        in->bodies = b;
        in->kind = rq_head_kind(head, head_bytes);
        pthread_mutex_lock(&b->lock);
        if (b->incoming_count < INCOMING_MAX && !b->stops) {
            err = rq_conduit_accept(stream, ret_ops, ret_ctx, &in->conduit);
        } else {
            err = RQ_BUSY;
        }
        if (err == RQ_OK) {
            in->next = b->incoming;
            b->incoming = in;
            b->incoming_count++;
        }
        pthread_mutex_unlock(&b->lock);
    }
    if (err != RQ_OK) {
        free(in);
        (void)snprintf(text, RQ_TEXT_MAX + 1, "%s", rq_err_text(err));
        return err;
    }
    if (start_thread(b, incoming_thread, in) != RQ_OK) {
        pthread_mutex_lock(&b->lock); /* nobody has looked at the list's head since */
        struct incoming **at = &b->incoming;
        while (*at != in) {
            at = &(*at)->next;
        }
        *at = in->next;
        b->incoming_count--;
        pthread_mutex_unlock(&b->lock);
        rq_conduit_abort(in->conduit, RQ_NOMEM, "no thread for it");
        rq_conduit_free(in->conduit);
        free(in);
    }
    return RQ_OK;
}

/* --- bringing --------------------------------------------------------------------------------------------------------------------- */

/* Gives the lock back. */
static void carriage_unref_locked(struct rq_carriage *c)
{
    struct rq_bodies *b = c->bodies;
    const bool last = --c->refs == 0;
    pthread_mutex_unlock(&b->lock);
    if (last) {
        if (c->file != NULL) {
            rq_shelf_close(b->config.shelf, c->file);
        }
        free(c);
    }
}

static enum rq_err bring_to(struct rq_carriage *c, const struct courier *to)
{
    struct rq_bodies *b = c->bodies;
    struct rq_head_body head = { .body_bytes = c->entry.body_bytes, .origin = c->entry.origin };
    struct rq_conduit *conduit;
    memcpy(head.hash, c->entry.hash, sizeof head.hash);
    enum rq_err err = open_conduit(b, to->instance, RQ_HEAD_BRING, &head, &conduit);
    if (err != RQ_OK) {
        return err;
    }
    pthread_mutex_lock(&b->lock);
    c->moving += to->counts;
    pthread_mutex_unlock(&b->lock);
    err = send_file(b, c->file, 0, c->entry.body_bytes, conduit, c);
    if (err == RQ_OK || err == RQ_EXISTS) { /* it has it already, and says so by its END */
        err = rq_conduit_finish(conduit);
    }
    rq_conduit_free(conduit);
    pthread_mutex_lock(&b->lock);
    c->moving -= to->counts;
    pthread_mutex_unlock(&b->lock);
    return err;
}

static void *courier_thread(void *arg)
{
    struct courier *courier = arg;
    struct rq_carriage *c = courier->carriage;
    struct rq_bodies *b = c->bodies;
    bool goes_on = true;
    while (goes_on) {
        enum rq_err err = bring_to(c, courier);
        pthread_mutex_lock(&b->lock);
        courier->full = err == RQ_FULL;
        courier->has = err == RQ_OK;
        if (err == RQ_OK && courier->counts && ++c->durable == c->majority && !c->left) {
            c->done(c->ctx);
        }
        /* Who could not be reached in time fetches it. */
        goes_on = err != RQ_OK && !is_given_up_locked(c) && c->durable < c->majority;
        if (goes_on) {
            rest(b, RETRY_MS);
            goes_on = !is_given_up_locked(c) && c->durable < c->majority;
        }
        pthread_mutex_unlock(&b->lock);
    }
    pthread_mutex_lock(&b->lock);
    carriage_unref_locked(c);
    thread_ends(b);
    return NULL;
}

static bool on_is_alone(void *ctx)
{
    const struct rq_bodies *b = ctx;
    struct rq_members members;
    b->config.members(b->config.ctx, &members);
    return rq_members_are_only(&members, b->config.instance);
}

static enum rq_err on_bring(void *ctx, const struct rq_entry_staged *entry, struct rq_file *file,
                            void (*done)(void *ctx), void *done_ctx, struct rq_carriage **ret_carriage)
{
    struct rq_bodies *b = ctx;
    struct rq_members members;
    unsigned voters = 0, others = 0;
    b->config.members(b->config.ctx, &members);
    struct rq_carriage *c = calloc(1, sizeof *c + members.count * sizeof c->couriers[0]);
    enum rq_err err = c == NULL ? RQ_NOMEM : RQ_OK;
    if (file != NULL) {
        rq_shelf_reads(b->config.shelf);
    } else if (err == RQ_OK) {
        err = rq_shelf_open(b->config.shelf, entry->hash, entry->body_bytes, &file);
    }
    if (err != RQ_OK) {
        if (file != NULL) {
            rq_shelf_close(b->config.shelf, file);
        }
        free(c);
        return err;
    }
    *c = (struct rq_carriage){ .bodies = b, .entry = *entry, .file = file, .refs = 1, .done = done, .ctx = done_ctx };
    for (unsigned i = 0; i < members.count; i++) {
        const struct rq_member *m = &members.list[i];
        voters += m->role == RQ_MEMBER_VOTER;
        if ((m->role == RQ_MEMBER_VOTER || m->votes) && m->instance != b->config.instance) {
            const bool counts = m->role == RQ_MEMBER_VOTER;
            c->couriers[others++] = (struct courier){ .carriage = c, .instance = m->instance, .counts = counts };
            c->voters += counts;
        }
    }
    c->others = others;
    c->majority = voters / 2 + 1;
    c->durable = voters - c->voters; /* here, when the caller has synced it */
    c->votes = c->durable > 0;
    for (unsigned i = 0; err == RQ_OK && i < others; i++) {
        pthread_mutex_lock(&b->lock);
        c->refs++;
        pthread_mutex_unlock(&b->lock);
        err = start_thread(b, courier_thread, &c->couriers[i]);
        if (err != RQ_OK) {
            pthread_mutex_lock(&b->lock);
            c->refs--;
            pthread_mutex_unlock(&b->lock);
        }
    }
    if (err != RQ_OK) {
        b->carrier.leave(c);
        return err;
    }
    *ret_carriage = c;
    return RQ_OK;
}

static void on_holders(void *ctx, struct rq_carriage *c, struct rq_instances *ret_holders)
{
    struct rq_bodies *b = ctx;
    *ret_holders = (struct rq_instances){ 1, { b->config.instance } };
    pthread_mutex_lock(&b->lock);
    for (unsigned i = 0; c != NULL && i < c->others; i++) {
        if (c->couriers[i].has) {
            ret_holders->list[ret_holders->count++] = c->couriers[i].instance;
        }
    }
    pthread_mutex_unlock(&b->lock);
}

/* Are the voters those that it is brought to? */
static bool is_for(const struct rq_carriage *c, const struct rq_members *members)
{
    unsigned others = 0;
    bool votes = false;
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        bool known = m->role != RQ_MEMBER_VOTER || m->instance == c->bodies->config.instance;
        votes = votes || (m->role == RQ_MEMBER_VOTER && known);
        others += m->role == RQ_MEMBER_VOTER && !known;
        for (unsigned k = 0; !known && k < c->others; k++) {
            known = c->couriers[k].counts && c->couriers[k].instance == m->instance;
        }
        if (!known) {
            return false;
        }
    }
    return others == c->voters && votes == c->votes;
}

static enum rq_carriage_state on_state(struct rq_carriage *c)
{
    struct rq_bodies *b = c->bodies;
    struct rq_members members;
    struct rq_instances holders;
    bool full = false;
    b->config.members(b->config.ctx, &members);
    on_holders(b, c, &holders);
    const bool done = rq_members_are_majority(&members, &holders), past = !is_for(c, &members);
    pthread_mutex_lock(&b->lock);
    for (unsigned i = 0; i < c->others; i++) {
        full = full || (c->couriers[i].counts && c->couriers[i].full);
    }
    const enum rq_carriage_state state = done                                    ? RQ_CARRIAGE_DONE
                                         : past                                  ? RQ_CARRIAGE_PAST
                                         : c->durable + c->moving >= c->majority ? RQ_CARRIAGE_MOVES
                                         : full                                  ? RQ_CARRIAGE_FULL
                                                                                 : RQ_CARRIAGE_WAITS;
    pthread_mutex_unlock(&b->lock);
    return state;
}

static void on_leave(struct rq_carriage *c)
{
    struct rq_bodies *b = c->bodies;
    pthread_mutex_lock(&b->lock);
    c->left = true;
    pthread_cond_broadcast(&b->changed);
    carriage_unref_locked(c);
}

/* --- fetching --------------------------------------------------------------------------------------------------------------------- */

static enum rq_err fetch_from(struct rq_bodies *b, const struct rq_entry_staged *entry, uint64_t instance)
{
    struct rq_staged_copy *copy;
    struct rq_conduit *conduit;
    enum rq_err err =
        rq_staged_copy_new(b->config.disk, b->config.staged_dir, entry->hash, entry->body_bytes, true, &copy);
    fatal_if_io(err);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_head_body head = { .body_bytes = entry->body_bytes, .offset = rq_staged_copy_at(copy) };
    memcpy(head.hash, entry->hash, sizeof head.hash);
    if (head.offset == head.body_bytes) {
        err = rq_staged_copy_seal(copy);
    } else {
        err = open_conduit(b, instance, RQ_HEAD_FETCH, &head, &conduit);
        if (err == RQ_OK) {
            err = take_copy(conduit, copy);
            if (err == RQ_OK) {
                (void)rq_conduit_finish(conduit); /* a courtesy */
            }
            rq_conduit_free(conduit);
        } else if (err == RQ_NOTFOUND) {
            err = RQ_AWAY; /* no member any more, or not yet */
        }
    }
    fatal_if_io(err);
    rq_staged_copy_free(copy);
    return err;
}

/* OK: it is here.  NOTFOUND: every other member has said that it is not there; or so many voters that none of them would make a majority
 * without one that had it (docs/protocol.md#who-holds-a-body): that one has applied it, and released it.  Else another time. */
static enum rq_err fetch(struct rq_bodies *b, struct want *w)
{
    struct rq_members members;
    struct rq_instances lack = { 1, { b->config.instance } };
    unsigned others = 0;
    if (is_here(b, w->entry.hash, w->entry.body_bytes)) {
        return RQ_OK;
    }
    b->config.members(b->config.ctx, &members);
    for (unsigned i = 0; i < members.count; i++) {
        if (members.list[i].instance == b->config.instance) {
            continue;
        }
        pthread_mutex_lock(&b->lock);
        const bool comes = is_coming(b, w->entry.hash), stops = b->stops;
        pthread_mutex_unlock(&b->lock);
        if (comes || stops) {
            return RQ_BUSY;
        }
        others++;
        enum rq_err err = fetch_from(b, &w->entry, members.list[i].instance);
        if (err == RQ_OK) {
            return err;
        }
        if (err == RQ_NOTFOUND) {
            lack.list[lack.count++] = members.list[i].instance;
        }
        if (!w->told) {
            w->told = true;
            rq_note(RQ_LEVEL_WARN, "a database waits for a staged body", "id=%u version=%llu bytes=%llu err=%s",
                    w->entry.head.db_id, (unsigned long long)w->entry.head.version,
                    (unsigned long long)w->entry.body_bytes, rq_err_name(err));
        }
    }
    const bool nowhere = lack.count > others || rq_members_are_majority(&members, &lack);
    return (others > 0 && nowhere) || b->config.is_superseded(b->config.ctx) ? RQ_NOTFOUND : RQ_AWAY;
}

/* Who cannot be served now goes behind the others. */
static void *fetcher_thread(void *arg)
{
    struct rq_bodies *b = arg;
    pthread_mutex_lock(&b->lock);
    while (b->wants != NULL && !b->stops) {
        struct want *w = b->wants;
        b->wants = w->next;
        pthread_mutex_unlock(&b->lock);
        enum rq_err err = fetch(b, w);
        const bool over = err == RQ_OK || err == RQ_NOTFOUND;
        if (over) {
            w->done(w->ctx, err);
            free(w);
        }
        pthread_mutex_lock(&b->lock);
        if (!over) {
            struct want **at = &b->wants;
            while (*at != NULL) {
                at = &(*at)->next;
            }
            w->next = NULL;
            *at = w;
            rest(b, RETRY_MS);
        }
    }
    b->fetcher_runs = false;
    pthread_mutex_unlock(&b->lock);
    thread_ends(b);
    return NULL;
}

static void on_fetch(void *ctx, const struct rq_entry_staged *entry, void (*done)(void *ctx, enum rq_err err),
                     void *done_ctx)
{
    struct rq_bodies *b = ctx;
    struct want *w = malloc(sizeof *w);
    if (w == NULL) {
        rq_fatal("no memory to fetch a staged body", RQ_NOMEM);
    }
    *w = (struct want){ .entry = *entry, .done = done, .ctx = done_ctx };
    pthread_mutex_lock(&b->lock);
    struct want **at = &b->wants;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = w;
    const bool starts = !b->fetcher_runs;
    b->fetcher_runs = true;
    pthread_cond_broadcast(&b->changed);
    const bool stops = b->stops;
    pthread_mutex_unlock(&b->lock);
    if (starts && !stops && start_thread(b, fetcher_thread, b) != RQ_OK) {
        rq_fatal("no thread to fetch a staged body", RQ_NOMEM);
    }
}

/* --- life ------------------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_bodies_new(const struct rq_bodies_config *config, struct rq_bodies **ret_bodies)
{
    struct rq_bodies *b = calloc(1, sizeof *b);
    pthread_condattr_t attr;
    if (b == NULL) {
        return RQ_NOMEM;
    }
    b->config = *config;
    b->carrier = (struct rq_carrier){ b, on_is_alone, on_bring, on_fetch, on_state, on_holders, on_leave };
    pthread_mutex_init(&b->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&b->changed, &attr);
    pthread_condattr_destroy(&attr);
    *ret_bodies = b;
    return RQ_OK;
}

void rq_bodies_free(struct rq_bodies *b)
{
    if (b == NULL) {
        return;
    }
    pthread_mutex_lock(&b->lock);
    b->stops = true;
    pthread_cond_broadcast(&b->changed);
    while (b->threads > 0) {
        pthread_cond_wait(&b->changed, &b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    while (b->wants != NULL) {
        struct want *w = b->wants;
        b->wants = w->next;
        free(w);
    }
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

const struct rq_carrier *rq_bodies_carrier(struct rq_bodies *b)
{
    return &b->carrier;
}
