#include "raftd/db/driver.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"

/* How long after a batch the next one waits for company: two syncs' time, but not longer than this. */
#define GATHER_NS_MAX 400000u
/* A batch waits for so many of the last one's writers as come back within a sync, at about this pace. */
#define COMEBACK_NS 12000u

struct rq_driver {
    uint64_t id;
    struct rq_pool *pool; /* borrows */
    struct rq_strand loop, log_strand;
    struct rq_log *log;   /* borrows */
    struct rq_node *node; /* owns; loop context */
    uint64_t full_ms;     /* when leadership was last given up for lack of room */
    struct rq_node_machine machine;
    const struct rq_forward *forward; /* borrows; NULL: none */
    struct rq_freshness freshness;    /* loop context, as own_read: this node's question to itself, when it leads */
    struct own_read {
        struct rq_node_read read; /* first */
        struct rq_driver *driver;
        uint64_t question;
        bool under_way;
    } own_read;

    /* One task each, posted when its flag was clear; the flag is cleared before the work, so no request is lost. */
    struct rq_task write_task, persisted_task, timer_task;
    atomic_bool full;
    atomic_bool write_posted, persisted_posted, timer_posted;

    /* Posts write_task, on the loop, after what is there. */
    struct rq_task begin_write_task;
    bool delivers_many; /* loop context: what is being received brought word of several commits */

    _Atomic bool leads;
    const char *_Atomic role;
    _Atomic uint64_t term, leader_id, committed, delivered;
    _Atomic uint64_t awaited; /* somebody sleeps until this entry is delivered */
    atomic_bool starting;     /* or until all that is committed is */

    /* The log strand's. */
    uint64_t written;    /* newest entry of the last batch */
    uint64_t company;    /* entries in it, and those that waited when it was durable: so many writers are at work */
    uint64_t written_ns; /* when it was durable */
    uint64_t sync_ns;    /* time it took */

    _Atomic uint64_t gather_upto; /* the log strand waits for this entry; 0: it does not */
    pthread_mutex_t gather_lock;
    pthread_cond_t gathered;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t wake_ms;        /* guarded by lock, as what is later: when the timer is due */
    uint64_t sleeps_ms;      /* so long its thread sleeps by itself; 0: it is awake, and will look */
    struct rq_later *laters; /* soonest first */
    pthread_t timer;
};

static uint64_t on_now_ms(void *ctx)
{
    (void)ctx;
    return rq_clock_ms();
}

static struct rq_freshness_now freshness_now(struct rq_driver *d)
{
    return (struct rq_freshness_now){
        .ms = rq_clock_ms(),
        .boot_ms = rq_clock_boot_ms(),
        .leader_id = atomic_load(&d->leader_id),
        .delivered = rq_node_delivered(d->node),
    };
}

/* At the end of whatever was done to the node: readers go on, others see its state, the clock its next date. */
static void loop_done(struct rq_driver *d)
{
    const struct rq_freshness_now now = freshness_now(d);
    rq_freshness_go_on(&d->freshness, &now);
    atomic_store_explicit(&d->committed, rq_node_committed(d->node), memory_order_relaxed);
    atomic_store_explicit(&d->full, rq_node_is_full(d->node), memory_order_relaxed);
    atomic_store_explicit(&d->role, rq_node_role(d->node), memory_order_relaxed);
    uint64_t wake_ms = rq_node_wake_ms(d->node);
    const uint64_t readers_ms = rq_freshness_wake_ms(&d->freshness, now.ms);
    wake_ms = readers_ms < wake_ms ? readers_ms : wake_ms;
    pthread_mutex_lock(&d->lock);
    d->wake_ms = wake_ms;
    if (wake_ms < d->sleeps_ms) { /* else it wakes up in time, and perhaps for nothing, which costs less */
        pthread_cond_broadcast(&d->changed);
    }
    pthread_mutex_unlock(&d->lock);
}

/* Several writers come back together after a batch.  Without this the first of them would start a sync of its own, and the others
 * wait for two: batches of 1 and n - 1 in turn.  So where the disk takes longer than they do, a batch waits for all of them.  Where
 * they take longer the disk is not to wait for anybody: what comes meanwhile is batch enough.  A single writer never waits. */
static void gather(struct rq_driver *d)
{
    if (d->company <= 1 || d->sync_ns <= d->company * COMEBACK_NS) {
        return;
    }
    uint64_t upto = d->written + d->company;
    uint64_t end = d->written_ns + (2 * d->sync_ns < GATHER_NS_MAX ? 2 * d->sync_ns : GATHER_NS_MAX);
    struct timespec until = { (time_t)(end / 1000000000u), (long)(end % 1000000000u) };
    pthread_mutex_lock(&d->gather_lock);
    atomic_store(&d->gather_upto, upto);
    int waited = 0;
    while (rq_log_last(d->log) < upto && waited == 0) {
        waited = pthread_cond_timedwait(&d->gathered, &d->gather_lock, &until);
    }
    atomic_store(&d->gather_upto, 0);
    pthread_mutex_unlock(&d->gather_lock);
}

/* Loop context: an entry was queued. */
static void tell_gatherer(struct rq_driver *d)
{
    uint64_t upto = atomic_load(&d->gather_upto);
    if (upto != 0 && rq_log_last(d->log) >= upto) {
        pthread_mutex_lock(&d->gather_lock);
        pthread_cond_signal(&d->gathered);
        pthread_mutex_unlock(&d->gather_lock);
    }
}

static void run_write(struct rq_task *task)
{
    struct rq_driver *d = (struct rq_driver *)((char *)task - offsetof(struct rq_driver, write_task));
    uint64_t durable;
    rq_strand_will_block();
    gather(d);
    atomic_store(&d->write_posted, false);
    uint64_t begin = rq_clock_ns();
    enum rq_err err = rq_log_write(d->log, &durable);
    if (err == RQ_NOTFOUND) {
        return;
    }
    if (err != RQ_OK) {
        rq_fatal("the log could not be written", err);
    }
    rq_strand_goes_on();
    d->written_ns = rq_clock_ns();
    d->sync_ns = d->written_ns - begin;
    d->company = durable > d->written ? rq_log_last(d->log) - d->written : 0;
    d->written = durable;
    if (!atomic_exchange(&d->persisted_posted, true)) {
        rq_strand_post(&d->loop, &d->persisted_task, RQ_CARRY);
    }
    rq_strand_yield(&d->log_strand); /* the next batch is another thread's; this one goes on with what is durable */
}

/* What brought the entries may have told of a commit as well, as it does on a follower: the thread that carries all this applies
 * that first, which is short, rather than wake another one for it.  Where it is more, they share the work: somebody waits for the write. */
static void run_begin_write(struct rq_task *task)
{
    struct rq_driver *d = (struct rq_driver *)((char *)task - offsetof(struct rq_driver, begin_write_task));
    if (d->delivers_many) {
        rq_strand_will_block();
    }
    rq_strand_post(&d->log_strand, &d->write_task, rq_strand_waiting() > 1 ? RQ_HAND_OVER : RQ_CARRY);
}

static void run_persisted(struct rq_task *task)
{
    struct rq_driver *d = (struct rq_driver *)((char *)task - offsetof(struct rq_driver, persisted_task));
    atomic_store(&d->persisted_posted, false);
    rq_node_persisted(d->node);
    loop_done(d);
}

static void run_timer(struct rq_task *task)
{
    struct rq_driver *d = (struct rq_driver *)((char *)task - offsetof(struct rq_driver, timer_task));
    atomic_store(&d->timer_posted, false);
    if (rq_clock_ms() >= rq_node_wake_ms(d->node)) {
        rq_node_timer(d->node);
    }
    loop_done(d);
}

/* A leader whose log has no room lets another one lead, if there is one, and what was to be appended is tried there. */
#define FULL_AGAIN_MS 3000u

static void handed_over(void *ctx, enum rq_err err)
{
    (void)ctx;
    rq_note(RQ_LEVEL_WARN, "the log is full: another node is asked to lead", "err=%s", rq_err_name(err));
}

static bool gives_up_leading(struct rq_driver *d)
{
    const uint64_t now = rq_clock_ms();
    if (d->forward == NULL || now - d->full_ms < FULL_AGAIN_MS) {
        return false;
    }
    d->full_ms = now;
    return rq_node_transfer(d->node, 0, handed_over, NULL) == RQ_OK;
}

/* A staged body has to be where a majority of those is that vote on its entry: not of those that voted when it was brought. */
static bool is_held(struct rq_driver *d, const struct rq_submit *s)
{
    const struct rq_members *members = rq_node_members(d->node);
    return s->type != RQ_ENTRY_STAGED || d->forward == NULL || !rq_node_leads(d->node) || members == NULL ||
           rq_members_are_majority(members, &s->holders);
}

static void run_submit(struct rq_task *task)
{
    struct rq_submit *s = (struct rq_submit *)task;
    struct rq_driver *d = s->driver;
    enum rq_err err = is_held(d, s) ? rq_node_submit(d->node, s->type, s->blob, &s->index, &s->term) : RQ_BUSY;
    const uint64_t leader = atomic_load(&d->leader_id);
    if (err == RQ_AWAY && !s->here && d->forward != NULL && leader != 0 && leader != d->id) {
        s->forwarded = true;
        d->forward->propose(d->forward->ctx, leader, s);
        return;
    }
    if (err != RQ_OK) {
        rq_blob_unref(s->blob);
    }
    if (err == RQ_FULL && gives_up_leading(d)) {
        err = RQ_BUSY; /* nothing was appended: tried again, it goes to the next leader */
    }
    s->done(s, err); /* s may be gone or in use again after this */
    loop_done(d);
}

void rq_driver_submit(struct rq_driver *d, struct rq_submit *s)
{
    s->driver = d;
    s->task.run = run_submit;
    rq_strand_post(&d->loop, &s->task, RQ_CARRY);
}

void rq_driver_receive(struct rq_driver *d, const struct raft_message *message, const struct rq_log_entry *entries)
{
    const uint64_t delivered = rq_node_delivered(d->node);
    rq_node_receive(d->node, message, entries);
    d->delivers_many = rq_node_delivered(d->node) > delivered + 1;
    loop_done(d);
}

static void run_forwarded(struct rq_task *task)
{
    struct rq_submit *s = (struct rq_submit *)task;
    rq_blob_unref(s->blob);
    s->done(s, s->err);
}

void rq_driver_forwarded(struct rq_driver *d, struct rq_submit *s, enum rq_err err, uint64_t term)
{
    s->err = err;
    s->term = term;
    s->task.run = run_forwarded;
    rq_strand_post(&d->loop, &s->task, RQ_CARRY);
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */

static void own_read_done(struct rq_node_read *read, enum rq_err err, uint64_t index)
{
    struct own_read *own = (struct own_read *)read;
    const struct rq_freshness_now now = freshness_now(own->driver);
    own->under_way = false;
    rq_freshness_answer(&own->driver->freshness, own->question, err, index, &now);
}

static void on_ask(void *ctx, uint64_t leader_id, uint64_t question)
{
    struct rq_driver *d = ctx;
    if (leader_id != d->id) {
        d->forward->ask_index(d->forward->ctx, leader_id, question);
        return;
    }
    assert(!d->own_read.under_way); /* it ends with the leadership at the latest, before there is another leader */
    d->own_read = (struct own_read){ { .done = own_read_done }, d, question, true };
    rq_node_read(d->node, &d->own_read.read);
}

static void run_reading(struct rq_task *task)
{
    struct rq_reading *r = (struct rq_reading *)task;
    struct rq_driver *d = r->driver;
    rq_freshness_add(&d->freshness, r);
    loop_done(d);
}

void rq_driver_read(struct rq_driver *d, struct rq_reading *r)
{
    r->driver = d;
    r->task.run = run_reading;
    rq_strand_post(&d->loop, &r->task, RQ_CARRY);
}

struct told_index {
    struct rq_task task; /* first */
    struct rq_driver *driver;
    uint64_t question, index;
    enum rq_err err;
};

static void run_told_index(struct rq_task *task)
{
    struct told_index *t = (struct told_index *)task;
    const struct rq_freshness_now now = freshness_now(t->driver);
    rq_freshness_answer(&t->driver->freshness, t->question, t->err, t->index, &now);
    loop_done(t->driver);
    free(t);
}

void rq_driver_index(struct rq_driver *d, uint64_t question, enum rq_err err, uint64_t index)
{
    struct told_index *t = malloc(sizeof *t);
    if (t == NULL) {
        rq_fatal("no memory for a read", RQ_NOMEM);
    }
    *t = (struct told_index){ { .run = run_told_index }, d, question, index, err };
    rq_strand_post(&d->loop, &t->task, RQ_CARRY);
}

void rq_driver_read_index(struct rq_driver *d, struct rq_node_read *r)
{
    rq_node_read(d->node, r);
    loop_done(d);
}

void rq_driver_receive_round(struct rq_driver *d, uint64_t from, const struct rq_round *round)
{
    rq_node_receive_round(d->node, from, round);
    loop_done(d);
}

/* --- what the node calls ---------------------------------------------------------------------------------------------- */

static void on_write_wanted(void *ctx)
{
    struct rq_driver *d = ctx;
    tell_gatherer(d);
    if (!atomic_exchange(&d->write_posted, true)) {
        rq_strand_post(&d->loop, &d->begin_write_task, RQ_CARRY);
    }
}

static void on_fatal(void *ctx, const char *why, enum rq_err err)
{
    (void)ctx;
    rq_fatal(why, err);
}

static void on_send(void *ctx, const struct raft_message *message)
{
    struct rq_driver *d = ctx;
    d->forward->send(d->forward->ctx, message);
}

static void on_send_round(void *ctx, uint64_t to, const struct rq_round *round)
{
    struct rq_driver *d = ctx;
    d->forward->send_round(d->forward->ctx, to, round);
}

static void on_committed(void *ctx, const struct rq_log_entry *e)
{
    struct rq_driver *d = ctx;
    d->machine.committed(d->machine.ctx, e);
    atomic_store(&d->delivered, e->index);
    if (e->index == atomic_load(&d->awaited) || atomic_load(&d->starting)) {
        pthread_mutex_lock(&d->lock);
        pthread_cond_broadcast(&d->changed);
        pthread_mutex_unlock(&d->lock);
    }
}

static void on_role(void *ctx, bool leads, uint64_t term, uint64_t leader_id)
{
    struct rq_driver *d = ctx;
    pthread_mutex_lock(&d->lock);
    atomic_store(&d->term, term);
    atomic_store(&d->leader_id, leader_id);
    atomic_store(&d->leads, leads);
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    if (d->forward != NULL) {
        d->forward->role(d->forward->ctx, leads, term, leader_id);
    }
    d->machine.role(d->machine.ctx, leads, term, leader_id);
}

static void on_members(void *ctx, const struct rq_members *members)
{
    const struct rq_driver *d = ctx;
    d->forward->members(d->forward->ctx, members);
}

static bool on_may_vote(void *ctx, const struct rq_members *members)
{
    const struct rq_driver *d = ctx;
    return d->forward->may_vote(d->forward->ctx, members);
}

static void on_install(void *ctx, uint64_t index, uint64_t term, uint64_t leader_id)
{
    const struct rq_driver *d = ctx;
    d->forward->install(d->forward->ctx, index, term, leader_id);
}

static void on_removed(void *ctx)
{
    const struct rq_driver *d = ctx;
    d->forward->removed(d->forward->ctx);
}

/* --- clock ---------------------------------------------------------------------------------------------------------------- */

void rq_driver_post_later(struct rq_driver *d, struct rq_later *later, uint64_t delay_ms)
{
    later->due_ms = rq_clock_ms() + delay_ms;
    pthread_mutex_lock(&d->lock);
    struct rq_later **at = &d->laters;
    while (*at != NULL && (*at)->due_ms <= later->due_ms) {
        at = &(*at)->next;
    }
    later->next = *at;
    *at = later;
    if (later->due_ms < d->sleeps_ms) {
        pthread_cond_broadcast(&d->changed);
    }
    pthread_mutex_unlock(&d->lock);
}

/* With the lock held, which is given up for the posting.  Returns when the next one is due. */
static uint64_t post_due(struct rq_driver *d)
{
    while (d->laters != NULL && d->laters->due_ms <= rq_clock_ms()) {
        struct rq_later *later = d->laters;
        d->laters = later->next;
        pthread_mutex_unlock(&d->lock);
        rq_strand_post(later->strand, later->task, RQ_HAND_OVER);
        pthread_mutex_lock(&d->lock);
    }
    return d->laters != NULL ? d->laters->due_ms : UINT64_MAX;
}

void rq_driver_timer(struct rq_driver *d)
{
    if (!rq_pool_has_threads(d->pool)) {
        pthread_mutex_lock(&d->lock);
        (void)post_due(d);
        pthread_mutex_unlock(&d->lock);
    }
    if (!atomic_exchange(&d->timer_posted, true)) {
        rq_strand_post(&d->loop, &d->timer_task, RQ_CARRY);
    }
}

static void *timer_thread(void *arg)
{
    struct rq_driver *d = arg;
    pthread_mutex_lock(&d->lock);
    for (;;) { /* as long as the process lives */
        const uint64_t later_ms = post_due(d);
        uint64_t wake_ms = d->wake_ms;
        if (rq_clock_ms() >= wake_ms) {
            d->wake_ms = UINT64_MAX; /* until the task says the next */
            pthread_mutex_unlock(&d->lock);
            rq_driver_timer(d);
            pthread_mutex_lock(&d->lock);
            continue;
        }
        wake_ms = later_ms < wake_ms ? later_ms : wake_ms;
        d->sleeps_ms = wake_ms;
        if (wake_ms == UINT64_MAX) {
            pthread_cond_wait(&d->changed, &d->lock);
        } else {
            struct timespec until = { (time_t)(wake_ms / 1000u), (long)(wake_ms % 1000u) * 1000000 };
            pthread_cond_timedwait(&d->changed, &d->lock, &until);
        }
        d->sleeps_ms = 0;
    }
    return NULL;
}

bool rq_driver_wait_leads(struct rq_driver *d, unsigned timeout_ms)
{
    uint64_t end = rq_clock_ms() + timeout_ms;
    struct timespec until = { (time_t)(end / 1000u), (long)(end % 1000u) * 1000000 };
    while (!rq_pool_has_threads(d->pool) && !atomic_load(&d->leads) && rq_pool_run_one(d->pool)) {
    }
    pthread_mutex_lock(&d->lock);
    int waited = 0;
    while (!atomic_load(&d->leads) && waited == 0) {
        waited = pthread_cond_timedwait(&d->changed, &d->lock, &until);
    }
    pthread_mutex_unlock(&d->lock);
    return atomic_load(&d->leads);
}

bool rq_driver_wait_delivered(struct rq_driver *d, uint64_t index, unsigned timeout_ms)
{
    uint64_t end = rq_clock_ms() + timeout_ms;
    struct timespec until = { (time_t)(end / 1000u), (long)(end % 1000u) * 1000000 };
    int waited = 0;
    pthread_mutex_lock(&d->lock);
    atomic_store(&d->awaited, index);
    while (atomic_load(&d->delivered) < index && waited == 0) {
        waited = pthread_cond_timedwait(&d->changed, &d->lock, &until);
    }
    pthread_mutex_unlock(&d->lock);
    return atomic_load(&d->delivered) >= index;
}

/* A follower's commit index is the leader's once it has heard it. */
static bool has_started(struct rq_driver *d, uint64_t index)
{
    uint64_t delivered = atomic_load(&d->delivered);
    return atomic_load(&d->leader_id) != 0 && delivered > 0 && delivered >= index &&
           delivered >= atomic_load(&d->committed);
}

bool rq_driver_wait_started(struct rq_driver *d, uint64_t index, unsigned timeout_ms)
{
    uint64_t end = rq_clock_ms() + timeout_ms;
    struct timespec until = { (time_t)(end / 1000u), (long)(end % 1000u) * 1000000 };
    int waited = 0;
    pthread_mutex_lock(&d->lock);
    atomic_store(&d->starting, true);
    while (!has_started(d, index) && waited == 0) {
        waited = pthread_cond_timedwait(&d->changed, &d->lock, &until);
    }
    atomic_store(&d->starting, false);
    pthread_mutex_unlock(&d->lock);
    return has_started(d, index);
}

/* --- life ------------------------------------------------------------------------------------------------------------------ */

struct start {
    struct rq_task task;
    struct rq_driver *d;
    const struct rq_node_config *config;
    enum rq_err err;
    bool done;
};

static void run_start(struct rq_task *task)
{
    struct start *s = (struct start *)task;
    struct rq_driver *d = s->d;
    const struct rq_node_env env = {
        .log = d->log,
        .ctx = d,
        .now_ms = on_now_ms,
        .write_wanted = on_write_wanted,
        .send = d->forward != NULL ? on_send : NULL,
        .send_round = d->forward != NULL ? on_send_round : NULL,
        .may_vote = d->forward != NULL && d->forward->may_vote != NULL ? on_may_vote : NULL,
        .fatal = on_fatal,
    };
    const struct rq_node_machine machine = {
        .ctx = d,
        .committed = on_committed,
        .role = on_role,
        .members = d->forward != NULL ? on_members : NULL,
        .install = d->forward != NULL ? on_install : NULL,
        .removed = d->forward != NULL ? on_removed : NULL,
    };
    s->err = rq_node_new(s->config, &env, &machine, &d->node);
    s->done = true;
    if (s->err == RQ_OK) {
        loop_done(d);
    }
}

enum rq_err rq_driver_new(const struct rq_driver_config *config, struct rq_driver **ret_driver)
{
    struct rq_driver *d = calloc(1, sizeof *d);
    if (d == NULL) {
        return RQ_NOMEM;
    }
    d->pool = config->pool;
    d->log = config->log;
    d->machine = *config->machine;
    d->forward = config->forward;
    rq_freshness_init(&d->freshness, &(struct rq_freshness_env){ d, on_ask });
    d->id = config->node.id;
    d->written = rq_log_durable(config->log);
    d->write_task.run = run_write;
    d->begin_write_task.run = run_begin_write;
    d->persisted_task.run = run_persisted;
    d->timer_task.run = run_timer;
    d->wake_ms = UINT64_MAX;
    atomic_store(&d->delivered, config->node.snapshot_index);
    rq_strand_init(&d->loop, config->pool, "loop");
    rq_strand_init(&d->log_strand, config->pool, "log");
    pthread_mutex_init(&d->lock, NULL);
    pthread_mutex_init(&d->gather_lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->changed, &attr);
    pthread_cond_init(&d->gathered, &attr);
    pthread_condattr_destroy(&attr);

    /* Nothing else is on the loop strand yet, so this thread carries it: the start is done when these return. */
    struct start start = { { .run = run_start }, d, &config->node, RQ_MISUSE, false };
    *ret_driver = d; /* the machine may look at the driver from within */
    rq_strand_post(&d->loop, &start.task, RQ_CARRY);
    while (!rq_pool_has_threads(config->pool) && !start.done && rq_pool_run_one(config->pool)) {
    }
    if (start.err != RQ_OK || !rq_pool_has_threads(config->pool)) {
        return start.err;
    }
    return pthread_create(&d->timer, NULL, timer_thread, d) == 0 ? RQ_OK : RQ_NOMEM;
}

struct rq_strand *rq_driver_loop(struct rq_driver *d)
{
    return &d->loop;
}

struct rq_node *rq_driver_node(struct rq_driver *d)
{
    assert(rq_strand_is_mine(&d->loop));
    return d->node;
}

bool rq_driver_next_entry(struct rq_driver *d, uint64_t *index, struct rq_log_entry *ret_entry, enum rq_err *ret_err)
{
    assert(rq_strand_is_mine(&d->loop));
    const uint64_t first = rq_log_first(d->log);
    *index = *index < first ? first : *index + 1;
    *ret_err = *index <= rq_log_last(d->log) ? rq_log_get(d->log, *index, ret_entry) : RQ_OK;
    return *index <= rq_log_last(d->log) && *ret_err == RQ_OK;
}

uint64_t rq_driver_term_at(struct rq_driver *d, uint64_t index)
{
    assert(rq_strand_is_mine(&d->loop));
    return rq_log_term_at(d->log, index);
}

void rq_driver_installed(struct rq_driver *d, const struct rq_node_snapshot *snapshot)
{
    rq_node_installed(d->node, snapshot);
    pthread_mutex_lock(&d->lock);
    atomic_store(&d->delivered, rq_node_delivered(d->node));
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    loop_done(d);
}

struct rq_driver_view rq_driver_view(const struct rq_driver *d)
{
    return (struct rq_driver_view){
        .leads = atomic_load(&d->leads),
        .role = atomic_load_explicit(&d->role, memory_order_relaxed),
        .term = atomic_load(&d->term),
        .leader_id = atomic_load(&d->leader_id),
        .committed = atomic_load_explicit(&d->committed, memory_order_relaxed),
        .delivered = atomic_load(&d->delivered),
        .full = atomic_load_explicit(&d->full, memory_order_relaxed),
    };
}

enum rq_err rq_driver_prepare_log(struct rq_driver *d)
{
    return rq_log_prepare_wanted(d->log) ? rq_log_prepare(d->log) : RQ_OK;
}

void rq_driver_log_stats(struct rq_driver *d, struct rq_log_stats *ret_stats)
{
    rq_log_stats(d->log, ret_stats);
}
