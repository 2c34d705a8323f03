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
 * Where databases are fenced, for their files were changed, (H) may be broken already, and nobody may have everything until they are
 * mended.  When all that are connected have said so for a while, a change is made that makes it no worse, whatever those have who are
 * not connected: a voter comes who has as much as any that is there, or one goes and of whichever voters make a majority then one has
 * as much as he.  Who is not connected for a while has nothing to take away, and so can always be removed.
 *
 * A fenced database holds pages that are lost there.  So no voter goes either who has a database whole that no other voter has so:
 *
 *   of each database that a voter has whole one who stays has it whole                                         (W)
 *
 * Who does not answer counts as gone here, too.  This node stays: a leader is not removed.
 *
 * So nobody is stuck: who is dead can be removed, and of those who are there the ones with less, which come back as new instances
 * and fetch all from the one with more. */
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
static enum rq_err look_here(struct rq_cluster *c, struct rq_ask_has *ret_has)
{
    rq_strand_will_block();
    enum rq_err err = rq_catalog_has(c->catalog, ret_has);
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
    struct rq_ask_has has;
    rq_bytes_init(&reply, 512);
    enum rq_err err = look_here(a->cluster, &has);
    if (err == RQ_OK) {
        has.index = has.index > 0 ? has.index : 1; /* the first entry names nothing */
        err = rq_ask_put_has(&reply, &has);
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

/* NULL: neither asked nor heard. */
static struct rq_holder *find(struct rq_holding *h, uint64_t instance)
{
    for (unsigned i = 0; i < h->count; i++) {
        if (h->list[i].instance == instance) {
            return &h->list[i];
        }
    }
    return NULL;
}

static struct rq_holder *find_or_add(struct rq_holding *h, uint64_t instance)
{
    struct rq_holder *holder = find(h, instance);
    if (holder == NULL) {
        if (h->count == RQ_MEMBERS_MAX) {
            h->count = 0; /* most of them are no members any more, and who is says it again */
        }
        holder = &h->list[h->count++];
        *holder = (struct rq_holder){ .instance = instance };
    }
    return holder;
}

struct asked {
    struct rq_task task; /* on the loop */
    struct rq_cluster *cluster;
    uint64_t instance, term;
    struct rq_ask_has has;
};

static void run_told(struct rq_task *task)
{
    struct asked *a = (struct asked *)task;
    struct rq_holding *h = &a->cluster->holding;
    if (a->term == h->term) {
        struct rq_holder *holder = find_or_add(h, a->instance);
        holder->has = a->has; /* less than before, where a database was fenced since */
        holder->told_ms = rq_clock_ms();
    }
    free(a);
}

static void on_told(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct asked *a = ctx;
    if (err == RQ_OK && rq_ask_get_has(data, bytes, &a->has) == RQ_OK) {
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
        *a = (struct asked){ .task = { .run = run_told }, .cluster = c, .instance = instance, .term = c->holding.term };
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
        h->since_ms = h->needed_ms;
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

static void tell_self(struct rq_cluster *c)
{
    struct rq_holder *self = find_or_add(&c->holding, c->config.instance);
    struct rq_ask_has has;
    if (look_here(c, &has) == RQ_OK) {
        self->has = has;
        self->told_ms = rq_clock_ms();
    }
}

/* NULL: it has said nothing since then, or too long ago. */
static const struct rq_ask_has *told_since(struct rq_cluster *c, uint64_t instance, uint64_t since_ms)
{
    const struct rq_holder *holder = find(&c->holding, instance);
    return holder != NULL && holder->told_ms >= since_ms && rq_clock_ms() - holder->told_ms < FRESH_MS ? &holder->has
                                                                                                       : NULL;
}

static const struct rq_ask_has *told_by(struct rq_cluster *c, uint64_t instance)
{
    return told_since(c, instance, c->holding.since_ms);
}

static uint64_t index_of(struct rq_cluster *c, uint64_t instance)
{
    const struct rq_ask_has *has = told_by(c, instance);
    return has != NULL ? has->index : 0;
}

/* Of whichever of these voters make a majority, one has everything up to there. */
static uint64_t majorities_have(struct rq_cluster *c, const struct rq_members *members)
{
    uint64_t has[RQ_MEMBERS_MAX] = { 0 };
    for (unsigned i = 0; i < members->count; i++) {
        has[i] = index_of(c, members->list[i].instance);
    }
    return rq_members_majorities_have(members, has);
}

static bool is_there(struct rq_cluster *c, uint64_t instance)
{
    struct rq_peer_state state = { 0 };
    return instance == c->config.instance ||
           (rq_peers_state(c->peers, instance, &state) && state.connected[RQ_PEER_REQUESTS]);
}

/* All voters that are connected, when they had had the time to get what others have. */
static bool have_all_said(struct rq_cluster *c, const struct rq_members *members)
{
    const uint64_t from = c->holding.needed_ms + BEST_MS;
    bool all = rq_clock_ms() >= from;
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        all = all &&
              (m->role != RQ_MEMBER_VOTER || told_since(c, m->instance, from) != NULL || !is_there(c, m->instance));
    }
    return all;
}

/* One change: at most one comes, or one goes.  NULL: none. */
static const struct rq_member *voter_only_in(const struct rq_members *these, const struct rq_members *others)
{
    const struct rq_member *only = NULL;
    for (unsigned i = 0; i < these->count; i++) {
        const struct rq_member *m = &these->list[i], *other = rq_members_find(others, m->instance);
        if (m->role == RQ_MEMBER_VOTER && (other == NULL || other->role != RQ_MEMBER_VOTER)) {
            only = m;
        }
    }
    return only;
}

static bool makes_it_no_worse(struct rq_cluster *c, const struct rq_members *now, const struct rq_members *members)
{
    const struct rq_member *comes = voter_only_in(members, now), *goes = voter_only_in(now, members);
    uint64_t most = 0;
    for (unsigned i = 0; i < now->count; i++) {
        const uint64_t index = now->list[i].role == RQ_MEMBER_VOTER ? index_of(c, now->list[i].instance) : 0;
        most = index > most ? index : most;
    }
    return (comes == NULL || index_of(c, comes->instance) >= most) &&
           (goes == NULL || majorities_have(c, members) >= index_of(c, goes->instance));
}

/* (H) */
static bool keep_bodies(struct rq_cluster *c, const struct rq_members *now, const struct rq_members *members)
{
    return majorities_have(c, members) >= c->holding.needed ||
           (have_all_said(c, now) && have_all_said(c, members) && makes_it_no_worse(c, now, members));
}

static bool is_fenced(const struct rq_ask_has *has, uint32_t db_id)
{
    bool fenced = false;
    for (unsigned i = 0; i < has->fenced_count; i++) {
        fenced = fenced || has->fenced[i] == db_id;
    }
    return fenced;
}

static bool one_has_it_whole(struct rq_cluster *c, const struct rq_members *members, uint32_t db_id)
{
    bool whole = false;
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_ask_has *has = told_by(c, members->list[i].instance);
        whole = whole || (members->list[i].role == RQ_MEMBER_VOTER && has != NULL &&
                          has->fenced_count < RQ_ASK_FENCED_MAX && !is_fenced(has, db_id));
    }
    return whole;
}

/* (W).  What is whole here stays so. */
static bool keep_whole(struct rq_cluster *c, const struct rq_members *now, const struct rq_members *members)
{
    const struct rq_ask_has *here = told_by(c, c->config.instance);
    const struct rq_member *goes = voter_only_in(now, members);
    if (here == NULL || goes == NULL || here->fenced_count == 0) {
        return here != NULL;
    }
    const struct rq_ask_has *there = told_by(c, goes->instance);
    if (there == NULL) {
        return !is_there(c, goes->instance) && rq_clock_ms() - c->holding.since_ms >= FRESH_MS;
    }
    bool keep = here->fenced_count < RQ_ASK_FENCED_MAX;
    for (unsigned i = 0; i < here->fenced_count; i++) {
        keep = keep && (is_fenced(there, here->fenced[i]) || one_has_it_whole(c, members, here->fenced[i]));
    }
    return keep;
}

static void ask_again(struct rq_cluster *c, const struct rq_members *members)
{
    const uint64_t now = rq_clock_ms();
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        struct rq_holder *holder = find_or_add(&c->holding, m->instance);
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
    tell_self(c);
    const struct rq_members *now = rq_node_members(rq_driver_node(d));
    const bool may = keep_bodies(c, now, members) && keep_whole(c, now, members);
    if (!may) {
        ask_again(c, members);
        ask_again(c, now);
    }
    return may;
}
