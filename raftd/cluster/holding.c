/* Holding: who may vote, so that no staged body gets lost that an acknowledged commit needs.
 *
 * A body is not in the log, and so the votes on an entry that names it say nothing about it.  What the cluster rests on is
 *
 *   of whichever voters make a majority, one has each body that the log names, or has applied its entry        (H)
 *
 * for as long as the log names it, whoever votes: then whoever is left of a cluster that can still do anything has it.  It comes about
 * when the entry is appended: only with a majority of those that vote on it (rq_submit.holders).  It lasts as long as the same vote, since
 * a holder keeps the body until it has applied the entry for good.  And it is kept when others come to vote, or one ceases to: the
 * leader proposes that only when (H) holds for them and for everything in its log.  Members say how far they have all that the log
 * names (HELD).
 *
 * What comes behind the place that members are asked for matters only if it names a body: then they are asked for that.
 *
 * Where disks have lost what was on them, and databases are fenced for it on one host after the other, there may be nobody left who has
 * everything.  Who has the most counts then, if all that are connected have said so for a while: no change makes it worse. */
#include <stdlib.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/db/catalog.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/strand.h"
#include "raftd/wire/entry.h"

#define WAIT_MS  2000u /* for an answer */
#define AGAIN_MS 50u
#define FRESH_MS 10000u /* for so long it counts: a database may be fenced there since */
#define BEST_MS  5000u  /* so long there was nobody who has everything */
#define SCAN_MAX 20000u /* entries; a log that has grown by more is taken as one that names a body at its end */

/* --- what this node has --------------------------------------------------------------------------------------------------- */

/* On the loop. */
static enum rq_err held_here(struct rq_cluster *c, uint64_t *ret_held)
{
    rq_strand_will_block();
    enum rq_err err = rq_catalog_held(c->catalog, ret_held);
    if (err == RQ_IO) {
        rq_fatal("the directory of the staged bodies could not be synced", err);
    }
    return err;
}

struct asked_held {
    struct rq_task task; /* on the loop */
    struct rq_cluster *cluster;
    struct rq_call *call;
};

static void run_asked_held(struct rq_task *task)
{
    struct asked_held *a = (struct asked_held *)task;
    struct rq_bytes reply;
    uint64_t held;
    rq_bytes_init(&reply, 64);
    enum rq_err err = held_here(a->cluster, &held);
    if (err == RQ_OK) {
        err = rq_ask_put_index(&reply, held > 0 ? held : 1); /* the first entry names nothing */
    }
    if (err == RQ_OK) {
        struct iovec part = { reply.data, reply.size };
        rq_call_answer(a->call, &part, 1);
    } else {
        rq_call_fail(a->call, err, rq_err_text(err));
    }
    rq_bytes_fini(&reply);
    free(a);
}

void rq_cluster_asked_held(struct rq_cluster *c, struct rq_call *call)
{
    struct rq_driver *d = atomic_load(&c->driver);
    struct asked_held *a = malloc(sizeof *a);
    if (d == NULL || a == NULL) {
        free(a);
        rq_call_fail(call, d == NULL ? RQ_UNREADY : RQ_NOMEM, "");
        return;
    }
    *a = (struct asked_held){ { .run = run_asked_held }, c, call };
    rq_strand_post(rq_driver_loop(d), &a->task, RQ_CARRY);
}

/* --- what others have ------------------------------------------------------------------------------------------------------ */

static struct rq_holder *find(struct rq_holding *h, uint64_t instance)
{
    for (unsigned i = 0; i < h->count; i++) {
        if (h->list[i].instance == instance) {
            return &h->list[i];
        }
    }
    if (h->count == RQ_MEMBERS_MAX) {
        h->count = 0; /* most of them are no members any more, and who is says it again */
    }
    h->list[h->count] = (struct rq_holder){ .instance = instance };
    return &h->list[h->count++];
}

struct asked {
    struct rq_task task; /* on the loop */
    struct rq_cluster *cluster;
    uint64_t instance, term, held;
};

static void run_told(struct rq_task *task)
{
    struct asked *a = (struct asked *)task;
    struct rq_holding *h = &a->cluster->holding;
    if (a->term == h->term) {
        struct rq_holder *holder = find(h, a->instance);
        holder->held = a->held; /* less than before, where a database was fenced since */
        holder->told_ms = rq_clock_ms();
    }
    free(a);
}

static void on_told(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct asked *a = ctx;
    if (err == RQ_OK && rq_ask_get_index(data, bytes, &a->held) == RQ_OK) {
        rq_strand_post(rq_driver_loop(atomic_load(&a->cluster->driver)), &a->task, RQ_CARRY);
    } else {
        free(a); /* it is asked again */
    }
}

static void ask(struct rq_cluster *c, uint64_t instance)
{
    struct asked *a = malloc(sizeof *a);
    struct rq_bytes body;
    struct rq_peer_state state;
    rq_bytes_init(&body, 64);
    enum rq_err err = a == NULL ? RQ_NOMEM : rq_ask_put(&body, &(struct rq_ask){ .kind = RQ_ASK_HELD });
    if (err == RQ_OK && (!rq_peers_state(c->peers, instance, &state) || !state.connected[RQ_PEER_REQUESTS])) {
        err = RQ_AWAY;
    }
    if (err == RQ_OK) {
        *a = (struct asked){ { .run = run_told }, c, instance, c->holding.term, 0 };
        struct iovec part = { body.data, body.size };
        err = rq_peers_request(c->peers, instance, &part, 1, WAIT_MS, on_told, a);
    }
    if (err != RQ_OK) {
        free(a);
    }
    rq_bytes_fini(&body);
}

/* --- who may vote ----------------------------------------------------------------------------------------------------------- */

/* Up to which entry members have to have everything. */
static void look_at_log(struct rq_cluster *c, struct rq_driver *d)
{
    struct rq_holding *h = &c->holding;
    const uint64_t last = rq_log_last(c->log), term = rq_node_term(rq_driver_node(d));
    enum rq_err err = RQ_OK;
    struct rq_log_entry e;
    if (h->term != term) {
        *h = (struct rq_holding){ .term = term, .needed = last, .needed_ms = rq_clock_ms(), .scanned = last };
    }
    if (last - h->scanned > SCAN_MAX) {
        h->needed = h->scanned = last;
        h->needed_ms = rq_clock_ms();
    }
    for (uint64_t i = h->scanned; i < last && rq_driver_next_entry(d, &i, &e, &err);) {
        if (e.type == RQ_ENTRY_STAGED) {
            h->needed = i;
            h->needed_ms = rq_clock_ms();
        }
        h->scanned = i;
        rq_blob_unref(e.blob);
    }
    if (err != RQ_OK) {
        rq_fatal("the log could not be read", err);
    }
}

static void look_here(struct rq_cluster *c)
{
    struct rq_holder *self = find(&c->holding, c->config.instance);
    uint64_t held;
    if (held_here(c, &held) == RQ_OK) {
        self->held = held;
        self->told_ms = rq_clock_ms();
    }
}

static struct rq_instances who_have(struct rq_cluster *c, const struct rq_members *members, uint64_t index)
{
    struct rq_instances set = { 0 };
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        const struct rq_holder *holder = find(&c->holding, m->instance);
        if (holder->held >= index && rq_clock_ms() - holder->told_ms < FRESH_MS) {
            set.list[set.count++] = m->instance;
        }
    }
    return set;
}

/* What to be content with, where too few have what is needed: less than that only if everybody has said that there is no more. */
static uint64_t best_of(struct rq_cluster *c, const struct rq_members *members)
{
    const struct rq_holding *h = &c->holding;
    uint64_t best = 0;
    if (rq_clock_ms() - h->needed_ms < BEST_MS) {
        return h->needed;
    }
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        const struct rq_holder *holder = find(&c->holding, m->instance);
        struct rq_peer_state state = { 0 };
        const bool self = m->instance == c->config.instance;
        const bool there = self || (rq_peers_state(c->peers, m->instance, &state) && state.connected[RQ_PEER_REQUESTS]);
        if (m->role == RQ_MEMBER_VOTER && there && holder->told_ms < h->needed_ms + BEST_MS) {
            return h->needed;
        }
        best = m->role == RQ_MEMBER_VOTER && holder->held > best ? holder->held : best;
    }
    return best;
}

static void ask_again(struct rq_cluster *c, const struct rq_members *members)
{
    const uint64_t now = rq_clock_ms();
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        struct rq_holder *holder = find(&c->holding, m->instance);
        if (m->role == RQ_MEMBER_VOTER && m->instance != c->config.instance && now - holder->asked_ms >= AGAIN_MS) {
            holder->asked_ms = now;
            ask(c, m->instance);
        }
    }
}

bool rq_cluster_may_vote(void *cluster, const struct rq_members *members)
{
    struct rq_cluster *c = cluster;
    struct rq_driver *d = atomic_load(&c->driver);
    if (d == NULL) {
        return false;
    }
    look_at_log(c, d);
    look_here(c);
    struct rq_instances holders = who_have(c, members, c->holding.needed);
    bool may = rq_members_meet_majorities(members, &holders);
    if (!may) {
        holders = who_have(c, members, best_of(c, members));
        may = rq_members_meet_majorities(members, &holders);
    }
    if (!may) {
        ask_again(c, members);
    }
    return may;
}
