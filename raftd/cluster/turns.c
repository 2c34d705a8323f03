#include "raftd/cluster/turns.h"

#include <stdlib.h>

#include "raftd/node/member.h"

#define BUCKETS 256u

struct waiting {
    struct waiting *next;
    uint64_t host;
    void *ask;
};

/* Of one database. */
struct turn {
    struct turn *next; /* in its bucket */
    uint32_t db_id;
    uint64_t holder; /* 0: nobody that is known of */
    uint64_t serial; /* of the newest grant */
    uint64_t index;  /* nobody has it: as the last holder said */
    bool wanted;     /* the holder was told, and has not answered */
    struct waiting *first;
};

struct rq_turns {
    struct rq_turns_ops ops;
    bool leads;
    uint64_t grace_end_ms;            /* 0: it is over */
    uint64_t unheard[RQ_MEMBERS_MAX]; /* 0: was heard */
    size_t unheard_count;
    uint64_t serial; /* of the newest grant of any turn */
    struct turn *buckets[BUCKETS];
};

static struct turn *find(const struct rq_turns *t, uint32_t db_id)
{
    struct turn *turn = t->buckets[db_id % BUCKETS];
    while (turn != NULL && turn->db_id != db_id) {
        turn = turn->next;
    }
    return turn;
}

static struct turn *find_or_make(struct rq_turns *t, uint32_t db_id)
{
    struct turn *turn = find(t, db_id);
    if (turn != NULL) {
        return turn;
    }
    turn = calloc(1, sizeof *turn);
    if (turn != NULL) {
        turn->db_id = db_id;
        turn->next = t->buckets[db_id % BUCKETS];
        t->buckets[db_id % BUCKETS] = turn;
    }
    return turn;
}

static void want(struct rq_turns *t, struct turn *turn)
{
    if (turn->holder != 0 && turn->first != NULL && !turn->wanted) {
        turn->wanted = true;
        t->ops.want(t->ops.ctx, turn->holder, turn->db_id, turn->serial);
    }
}

/* If it is to be had, the longest waiting has it. */
static void grant(struct rq_turns *t, struct turn *turn)
{
    if (turn->holder == 0 && turn->first != NULL && t->grace_end_ms == 0) {
        struct waiting *w = turn->first;
        turn->first = w->next;
        turn->holder = w->host;
        turn->serial = ++t->serial;
        turn->wanted = false;
        t->ops.grant(t->ops.ctx, w->ask, turn->db_id, turn->serial, turn->index);
        turn->index = 0;
        free(w);
    }
    want(t, turn);
}

static void end_grace(struct rq_turns *t)
{
    t->grace_end_ms = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct turn *turn = t->buckets[i]; turn != NULL; turn = turn->next) {
            grant(t, turn);
        }
    }
}

static void turn_free(struct rq_turns *t, struct turn *turn)
{
    while (turn->first != NULL) {
        struct waiting *w = turn->first;
        turn->first = w->next;
        t->ops.refuse(t->ops.ctx, w->ask);
        free(w);
    }
    free(turn);
}

static void clear(struct rq_turns *t)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (t->buckets[i] != NULL) {
            struct turn *turn = t->buckets[i];
            t->buckets[i] = turn->next;
            turn_free(t, turn);
        }
    }
}

/* --- life --------------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_turns_new(const struct rq_turns_ops *ops, struct rq_turns **ret_turns)
{
    struct rq_turns *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return RQ_NOMEM;
    }
    t->ops = *ops;
    *ret_turns = t;
    return RQ_OK;
}

void rq_turns_free(struct rq_turns *t)
{
    if (t != NULL) {
        clear(t);
        free(t);
    }
}

void rq_turns_begin(struct rq_turns *t, uint64_t now_ms, uint64_t term, const uint64_t *hosts, size_t count)
{
    clear(t);
    t->leads = true;
    t->serial = term << 32; /* greater than that of any leader before */
    t->grace_end_ms = now_ms + RQ_TURNS_GRACE_MS;
    t->unheard_count = count < RQ_MEMBERS_MAX ? count : RQ_MEMBERS_MAX;
    for (size_t i = 0; i < t->unheard_count; i++) {
        t->unheard[i] = hosts[i];
    }
}

void rq_turns_end(struct rq_turns *t)
{
    t->leads = false;
    t->grace_end_ms = 0;
    clear(t);
}

bool rq_turns_leads(const struct rq_turns *t)
{
    return t->leads;
}

uint64_t rq_turns_due_ms(const struct rq_turns *t)
{
    return t->grace_end_ms != 0 ? t->grace_end_ms : UINT64_MAX;
}

void rq_turns_timer(struct rq_turns *t, uint64_t now_ms)
{
    if (t->grace_end_ms != 0 && now_ms >= t->grace_end_ms) {
        end_grace(t);
    }
}

/* --- holders -------------------------------------------------------------------------------------------------------------------- */

bool rq_turns_held(struct rq_turns *t, uint64_t host, uint32_t db_id, uint64_t serial)
{
    struct turn *turn = find_or_make(t, db_id);
    if (turn == NULL || (turn->holder != 0 && turn->holder != host)) {
        return false;
    }
    if (turn->holder == 0) {
        turn->holder = host;
        turn->serial = serial;
        turn->wanted = false;
        want(t, turn);
    }
    return true;
}

void rq_turns_heard(struct rq_turns *t, uint64_t host)
{
    bool all = true;
    for (size_t i = 0; i < t->unheard_count; i++) {
        if (t->unheard[i] == host) {
            t->unheard[i] = 0;
        }
        all = all && t->unheard[i] == 0;
    }
    if (all && t->grace_end_ms != 0) {
        end_grace(t);
    }
}

void rq_turns_given(struct rq_turns *t, uint32_t db_id, uint64_t serial, uint64_t index)
{
    struct turn *turn = find(t, db_id);
    if (turn != NULL && turn->holder != 0 && turn->serial == serial) {
        turn->holder = 0;
        turn->index = index;
        turn->wanted = false;
        grant(t, turn);
    }
}

void rq_turns_kept(struct rq_turns *t, uint32_t db_id, uint64_t serial)
{
    struct turn *turn = find(t, db_id);
    if (turn != NULL && turn->holder != 0 && turn->serial == serial) {
        turn->wanted = false;
        want(t, turn);
    }
}

void rq_turns_forget(struct rq_turns *t, uint32_t db_id)
{
    for (struct turn **at = &t->buckets[db_id % BUCKETS]; *at != NULL; at = &(*at)->next) {
        struct turn *turn = *at;
        if (turn->db_id == db_id) {
            *at = turn->next;
            turn_free(t, turn);
            return;
        }
    }
}

/* --- who waits -------------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_turns_take(struct rq_turns *t, uint64_t host, uint32_t db_id, void *ask)
{
    struct turn *turn = find_or_make(t, db_id);
    if (turn == NULL) {
        return RQ_NOMEM;
    }
    struct waiting **at = &turn->first;
    while (*at != NULL && (*at)->host != host) {
        at = &(*at)->next;
    }
    if (*at != NULL) { /* keeps its place */
        t->ops.refuse(t->ops.ctx, (*at)->ask);
        (*at)->ask = ask;
        return RQ_OK;
    }
    struct waiting *w = malloc(sizeof *w);
    if (w == NULL) {
        return RQ_NOMEM;
    }
    *w = (struct waiting){ .host = host, .ask = ask };
    *at = w;
    if (turn->holder == host) {
        turn->holder = 0;
        turn->index = 0;
        turn->wanted = false;
    }
    grant(t, turn);
    return RQ_OK;
}
