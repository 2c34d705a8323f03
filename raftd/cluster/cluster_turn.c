/* The turns between hosts: what this one's databases want and hold, and, while this node leads, the table of who has which.
 *
 *   database --door--> leader: TURN_TAKE, answered when it is granted           (this node or another one: the same path)
 *   leader --TURN_WANTED--> holder: database, which answers through the door
 *   role changes: what is held here is told to the new leader, TURN_HELD, again and again until it has taken it
 *
 * The table is the loop's; what is held and what has to be answered is under a lock of its own. */
#include "raftd/cluster/cluster_turn.h"

#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/turns.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"

#define TAKE_MS 10000 /* a host that waits longer asks again */
#define WANTED_MS \
    2000 /* a holder that says nothing for so long is silent; half of that, and it says that it needs more */
#define AGAIN_MS 200 /* one whose connection broke has so long to come back */
#define HELD_MS  1000
#define LOOK_MS  20 /* while a new leader waits to hear of its members: is one of them gone? */
#define TELL_MS  10 /* before a leader that did not take it hears again what is held here */

struct holding {
    uint32_t db_id;
    uint64_t serial;
};

/* A question of the leader that this host owes an answer to; or of a former one, which asked about the same holding: one answer is
 * for all. */
struct owed {
    struct owed *next;
    uint32_t db_id;
    uint64_t serial;
    struct rq_call *call; /* NULL: this node leads */
};

struct rq_cluster_turns {
    struct rq_cluster *cluster;
    struct rq_catalog *_Atomic catalog; /* NULL: not started */
    struct rq_turn_door door;

    /* The loop's. */
    struct rq_turns *table;
    struct rq_task timer;
    struct rq_later timer_later;
    bool timer_posted;
    bool leads;
    uint64_t leader, term; /* 0: none */
    uint64_t table_term;   /* of the leadership that the table is of */
    struct rq_task tell;
    struct rq_later tell_later;
    bool tell_posted;
    bool told;             /* the leader knows what is held here */
    uint64_t tell_attempt; /* the newest: earlier ones do not count */

    pthread_mutex_t lock;
    struct holding *held; /* guarded by lock, as what follows */
    size_t held_count, held_capacity;
    bool leaves; /* nothing is held any more */
    struct owed *owed;
};

static struct rq_driver *driver_of(const struct rq_cluster_turns *t)
{
    return atomic_load(&t->cluster->driver);
}

static struct rq_database *database(struct rq_cluster_turns *t, uint32_t db_id)
{
    struct rq_catalog *catalog = atomic_load(&t->catalog);
    return catalog != NULL ? rq_catalog_find_id(catalog, db_id) : NULL;
}

static void *must(void *memory)
{
    if (memory == NULL) {
        rq_fatal("no memory for the turns", RQ_NOMEM);
    }
    return memory;
}

/* --- on the loop ------------------------------------------------------------------------------------------------------------------ */

struct errand {
    struct rq_task task;
    struct rq_cluster_turns *turns;
    struct rq_call *call; /* owns; NULL: of this node itself */
    uint64_t host, attempt, serial, index;
    uint32_t db_id;
    bool given;
    enum rq_err err;
    struct rq_bytes held;
};

/* Copies what; owns its call and bytes. */
static void post(struct rq_cluster_turns *t, void (*run)(struct rq_task *task), const struct errand *what)
{
    struct errand *e = must(malloc(sizeof *e));
    *e = *what;
    e->task.run = run;
    e->turns = t;
    rq_strand_post(rq_driver_loop(driver_of(t)), &e->task, RQ_HAND_OVER);
}

static void errand_free(struct errand *e)
{
    rq_bytes_fini(&e->held);
    free(e);
}

static bool is_connected(const struct rq_cluster_turns *t, uint64_t host)
{
    struct rq_peer_state state;
    return rq_peers_state(t->cluster->peers, host, &state) && state.connected[RQ_PEER_REQUESTS];
}

static void start_timer(struct rq_cluster_turns *t);

static void run_timer(struct rq_task *task)
{
    struct rq_cluster_turns *t = (struct rq_cluster_turns *)((char *)task - offsetof(struct rq_cluster_turns, timer));
    struct rq_members members;
    t->timer_posted = false;
    rq_cluster_members(t->cluster, &members);
    for (unsigned i = 0; i < members.count; i++) {
        const uint64_t host = members.list[i].instance;
        if (host != t->cluster->config.instance && !is_connected(t, host)) {
            rq_turns_heard(t->table, host); /* it says nothing more */
        }
    }
    rq_turns_timer(t->table, rq_clock_ms());
    start_timer(t);
}

/* As long as something is due. */
static void start_timer(struct rq_cluster_turns *t)
{
    if (!t->timer_posted && rq_turns_due_ms(t->table) != UINT64_MAX) {
        t->timer_posted = true;
        t->timer.run = run_timer;
        t->timer_later = (struct rq_later){ .strand = rq_driver_loop(driver_of(t)), .task = &t->timer };
        rq_driver_post_later(driver_of(t), &t->timer_later, LOOK_MS);
    }
}

/* --- the leader: asks ------------------------------------------------------------------------------------------------------------- */

static void on_grant(void *ctx, void *ask, uint32_t db_id, uint64_t serial, uint64_t index)
{
    struct rq_cluster_turns *t = ctx;
    struct errand *e = ask;
    if (index == 0) {
        index = rq_log_last(t->cluster->log); /* whatever else was made on the way here is before it */
    }
    if (e->call != NULL) {
        struct rq_bytes body;
        rq_bytes_init(&body, 64);
        rq_node_awaited(rq_driver_node(driver_of(t)), e->host, index);
        const enum rq_err err = rq_ask_put_granted(&body, serial, index);
        rq_cluster_reply(e->call, &body, err);
    } else {
        struct rq_database *db = database(t, db_id);
        if (db != NULL) {
            rq_database_turn_granted(db, e->attempt, serial, index);
            rq_database_unref(db);
        }
    }
    errand_free(e);
}

static void on_refuse(void *ctx, void *ask)
{
    struct rq_cluster_turns *t = ctx;
    struct errand *e = ask;
    if (e->call != NULL) {
        rq_call_fail(e->call, RQ_AWAY, "");
    } else {
        struct rq_database *db = database(t, e->db_id);
        if (db != NULL) {
            rq_database_turn_failed(db, e->attempt);
            rq_database_unref(db);
        }
    }
    errand_free(e);
}

static void run_take(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    struct rq_cluster_turns *t = e->turns;
    if (!rq_turns_leads(t->table) || rq_turns_take(t->table, e->host, e->db_id, e) != RQ_OK) {
        on_refuse(t, e);
    }
}

/* --- the leader: holders ---------------------------------------------------------------------------------------------------------- */

static void run_given(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    if (e->given) {
        rq_turns_given(e->turns->table, e->db_id, e->serial, e->index);
    } else {
        rq_turns_kept(e->turns->table, e->db_id, e->serial);
    }
    errand_free(e);
}

struct wanting {
    struct rq_cluster_turns *turns;
    uint64_t host, serial;
    uint32_t db_id;
    bool again;
};

static void on_wanted_answer(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes);

static enum rq_err send_wanted(struct wanting *w, unsigned timeout_ms)
{
    struct rq_bytes body;
    const struct rq_ask ask = { .kind = RQ_ASK_TURN_WANTED, .turn = { .db_id = w->db_id, .serial = w->serial } };
    rq_bytes_init(&body, 64);
    enum rq_err err = rq_ask_put(&body, &ask);
    if (err == RQ_OK) {
        struct iovec part = { body.data, body.size };
        err = rq_peers_request(w->turns->cluster->peers, w->host, &part, 1, timeout_ms, on_wanted_answer, w);
    }
    rq_bytes_fini(&body);
    return err;
}

static void silent(struct wanting *w)
{
    rq_note(RQ_LEVEL_WARN, "a host does not answer: others get its turn", "host=%016llx id=%u",
            (unsigned long long)w->host, w->db_id);
    post(w->turns, run_given, &(struct errand){ .db_id = w->db_id, .serial = w->serial, .given = true });
    free(w);
}

/* On the peers' thread. */
static void on_wanted_answer(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct wanting *w = ctx;
    struct errand e = { .db_id = w->db_id, .serial = w->serial };
    if (err == RQ_OK && rq_ask_get_given(data, bytes, &e.given, &e.index) == RQ_OK) {
        post(w->turns, run_given, &e);
        free(w);
        return;
    }
    if (!w->again) {
        w->again = true;
        if (send_wanted(w, AGAIN_MS) == RQ_OK) {
            return;
        }
    }
    silent(w);
}

static void on_want(void *ctx, uint64_t host, uint32_t db_id, uint64_t serial)
{
    struct rq_cluster_turns *t = ctx;
    if (host == t->cluster->config.instance) {
        rq_cluster_turn_wanted(t, NULL, db_id, serial);
        return;
    }
    struct wanting *w = must(malloc(sizeof *w));
    *w = (struct wanting){ t, host, serial, db_id, false };
    w->again = !is_connected(t, host);
    if (send_wanted(w, w->again ? AGAIN_MS : WANTED_MS) != RQ_OK) {
        silent(w);
    }
}

static void run_held(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    struct rq_cluster_turns *t = e->turns;
    struct rq_bytes denied, body;
    enum rq_err err = rq_turns_leads(t->table) ? RQ_OK : RQ_AWAY;
    rq_bytes_init(&denied, SIZE_MAX);
    rq_bytes_init(&body, SIZE_MAX);
    for (size_t at = 0; err == RQ_OK && at < e->held.size; at += RQ_ASK_HELD_BYTES) {
        const uint8_t *record = e->held.data + at;
        if (!rq_turns_held(t->table, e->host, rq_get_u32(record), rq_get_u64(record + 4))) {
            err = rq_bytes_put(&denied, record, RQ_ASK_HELD_BYTES);
        }
    }
    if (err == RQ_OK) {
        rq_turns_heard(t->table, e->host);
        err = rq_ask_put_denied(&body, &(struct rq_ask_held){ denied.data, (uint32_t)denied.size });
    }
    rq_cluster_reply(e->call, &body, err);
    rq_bytes_fini(&denied);
    errand_free(e);
}

/* --- this host: what it holds ----------------------------------------------------------------------------------------------------- */

static void drop_held(struct rq_cluster_turns *t, uint32_t db_id, uint64_t serial)
{
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->held_count; i++) {
        if (t->held[i].db_id == db_id && t->held[i].serial == serial) {
            t->held[i] = t->held[--t->held_count];
            break;
        }
    }
    pthread_mutex_unlock(&t->lock);
}

static void put_held(struct rq_cluster_turns *t, struct rq_bytes *out)
{
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->held_count; i++) {
        uint8_t record[RQ_ASK_HELD_BYTES];
        rq_put_u32(record, t->held[i].db_id);
        rq_put_u64(record + 4, t->held[i].serial);
        if (rq_bytes_put(out, record, sizeof record) != RQ_OK) {
            break;
        }
    }
    pthread_mutex_unlock(&t->lock);
}

static void deny(struct rq_cluster_turns *t, const struct rq_ask_held *denied)
{
    for (uint32_t at = 0; at < denied->bytes; at += RQ_ASK_HELD_BYTES) {
        struct rq_database *db = database(t, rq_get_u32(denied->data + at));
        if (db != NULL) {
            rq_database_turn_denied(db, rq_get_u64(denied->data + at + 4));
            rq_database_unref(db);
        }
    }
}

static void tell_later(struct rq_cluster_turns *t)
{
    if (!t->tell_posted) {
        t->tell_posted = true;
        t->tell_later = (struct rq_later){ .strand = rq_driver_loop(driver_of(t)), .task = &t->tell };
        rq_driver_post_later(driver_of(t), &t->tell_later, TELL_MS);
    }
}

static void run_told(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    struct rq_cluster_turns *t = e->turns;
    if (e->attempt == t->tell_attempt) {
        t->told = e->err == RQ_OK;
        if (!t->told) {
            tell_later(t);
        }
    }
    errand_free(e);
}

struct telling {
    struct rq_cluster_turns *turns;
    uint64_t attempt;
};

/* On the peers' thread. */
static void on_told(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct telling *telling = ctx;
    struct rq_ask_held denied;
    if (err == RQ_OK) {
        err = rq_ask_get_denied(data, bytes, &denied);
    }
    if (err == RQ_OK) {
        deny(telling->turns, &denied);
    }
    post(telling->turns, run_told, &(struct errand){ .attempt = telling->attempt, .err = err });
    free(telling);
}

static void tell_self(struct rq_cluster_turns *t)
{
    struct rq_bytes list;
    rq_bytes_init(&list, SIZE_MAX);
    put_held(t, &list);
    for (size_t at = 0; at < list.size; at += RQ_ASK_HELD_BYTES) {
        if (!rq_turns_held(t->table, t->leader, rq_get_u32(list.data + at), rq_get_u64(list.data + at + 4))) {
            deny(t, &(struct rq_ask_held){ list.data + at, RQ_ASK_HELD_BYTES });
        }
    }
    rq_turns_heard(t->table, t->leader);
    t->told = true;
    rq_bytes_fini(&list);
}

/* Tells the leader what is held here, until it has taken it. */
static void tell(struct rq_cluster_turns *t)
{
    struct rq_bytes list, body;
    t->tell_attempt++;
    if (t->leads) {
        tell_self(t);
        return;
    }
    if (t->leader == 0 || t->leader == t->cluster->config.instance) {
        return; /* the next role is told */
    }
    struct telling *telling = must(malloc(sizeof *telling));
    *telling = (struct telling){ t, t->tell_attempt };
    rq_bytes_init(&list, SIZE_MAX);
    rq_bytes_init(&body, SIZE_MAX);
    put_held(t, &list);
    const struct rq_ask ask = { .kind = RQ_ASK_TURN_HELD, .held = { list.data, (uint32_t)list.size } };
    enum rq_err err = rq_ask_put(&body, &ask);
    if (err == RQ_OK) {
        struct iovec part = { body.data, body.size };
        err = rq_peers_request(t->cluster->peers, t->leader, &part, 1, HELD_MS, on_told, telling);
    }
    if (err != RQ_OK) {
        free(telling);
        tell_later(t);
    }
    rq_bytes_fini(&list);
    rq_bytes_fini(&body);
}

static void run_tell(struct rq_task *task)
{
    struct rq_cluster_turns *t = (struct rq_cluster_turns *)((char *)task - offsetof(struct rq_cluster_turns, tell));
    t->tell_posted = false;
    if (!t->told) {
        tell(t);
    }
}

static void run_tell_more(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    e->turns->told = false;
    tell(e->turns);
    errand_free(e);
}

/* --- this host: the door of its databases ----------------------------------------------------------------------------------------- */

static bool on_alone(void *ctx)
{
    struct rq_cluster_turns *t = ctx;
    pthread_mutex_lock(&t->cluster->lock);
    const bool alone = t->cluster->members.count <= 1;
    pthread_mutex_unlock(&t->cluster->lock);
    return alone;
}

struct taking {
    struct rq_cluster_turns *turns;
    uint32_t db_id;
    uint64_t attempt;
};

static void taken(struct taking *k, enum rq_err err, uint64_t serial, uint64_t index)
{
    struct rq_database *db = database(k->turns, k->db_id);
    if (db != NULL && err == RQ_OK) {
        rq_database_turn_granted(db, k->attempt, serial, index);
    } else if (db != NULL) {
        rq_database_turn_failed(db, k->attempt);
    }
    if (db != NULL) {
        rq_database_unref(db);
    }
    free(k);
}

/* On the peers' thread. */
static void on_take_answer(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    uint64_t serial = 0, index = 0;
    if (err == RQ_OK) {
        err = rq_ask_get_granted(data, bytes, &serial, &index);
    }
    taken(ctx, err, serial, index);
}

static void on_take(void *ctx, uint32_t db_id, uint64_t attempt)
{
    struct rq_cluster_turns *t = ctx;
    const uint64_t self = t->cluster->config.instance;
    const uint64_t leader = driver_of(t) != NULL ? rq_driver_view(driver_of(t)).leader_id : 0;
    if (leader == self) {
        post(t, run_take, &(struct errand){ .host = self, .db_id = db_id, .attempt = attempt });
        return;
    }
    struct rq_bytes body;
    const struct rq_ask ask = { .kind = RQ_ASK_TURN_TAKE, .turn = { .db_id = db_id } };
    struct taking *k = must(malloc(sizeof *k));
    *k = (struct taking){ t, db_id, attempt };
    rq_bytes_init(&body, 64);
    enum rq_err err = leader == 0 ? RQ_AWAY : rq_ask_put(&body, &ask);
    if (err == RQ_OK) {
        struct iovec part = { body.data, body.size };
        err = rq_peers_request(t->cluster->peers, leader, &part, 1, TAKE_MS, on_take_answer, k);
    }
    if (err != RQ_OK) {
        taken(k, err, 0, 0);
    }
    rq_bytes_fini(&body);
}

static void on_holds(void *ctx, uint32_t db_id, uint64_t serial)
{
    struct rq_cluster_turns *t = ctx;
    pthread_mutex_lock(&t->lock);
    if (t->held_count == t->held_capacity) {
        t->held_capacity = t->held_capacity * 2 + 16;
        t->held = must(realloc(t->held, t->held_capacity * sizeof *t->held));
    }
    if (!t->leaves) {
        t->held[t->held_count++] = (struct holding){ db_id, serial };
    }
    pthread_mutex_unlock(&t->lock);
    if (serial >> 32 != rq_driver_view(driver_of(t)).term) { /* not granted by the present leader: it may not know */
        post(t, run_tell_more, &(struct errand){ 0 });
    }
}

static void on_lost(void *ctx, uint32_t db_id, uint64_t serial)
{
    drop_held(ctx, db_id, serial);
}

static void run_dropped(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    rq_turns_forget(e->turns->table, e->db_id);
    errand_free(e);
}

static void on_dropped(void *ctx, uint32_t db_id)
{
    if (driver_of(ctx) != NULL) { /* else the log is being replayed, and nobody has asked for any turn yet */
        post(ctx, run_dropped, &(struct errand){ .db_id = db_id });
    }
}

static struct owed *take_owed(struct rq_cluster_turns *t, uint32_t db_id, uint64_t serial)
{
    pthread_mutex_lock(&t->lock);
    struct owed **at = &t->owed;
    while (*at != NULL && ((*at)->db_id != db_id || (*at)->serial != serial)) {
        at = &(*at)->next;
    }
    struct owed *o = *at;
    if (o != NULL) {
        *at = o->next;
    }
    pthread_mutex_unlock(&t->lock);
    return o;
}

static void on_answer(void *ctx, uint32_t db_id, uint64_t serial, bool given, uint64_t index)
{
    struct rq_cluster_turns *t = ctx;
    if (given) {
        drop_held(t, db_id, serial);
    }
    struct owed *o;
    while ((o = take_owed(t, db_id, serial)) != NULL) {
        if (o->call != NULL) {
            struct rq_bytes body;
            rq_bytes_init(&body, 64);
            const enum rq_err err = rq_ask_put_given(&body, given, index);
            rq_cluster_reply(o->call, &body, err);
        } else {
            post(t, run_given, &(struct errand){ .db_id = db_id, .serial = serial, .given = given, .index = index });
        }
        free(o);
    }
}

/* --- from the rest of the cluster --------------------------------------------------------------------------------------------------- */

void rq_cluster_turn_wanted(struct rq_cluster_turns *t, struct rq_call *call, uint32_t db_id, uint64_t serial)
{
    struct owed *o = must(malloc(sizeof *o));
    pthread_mutex_lock(&t->lock);
    *o = (struct owed){ t->owed, db_id, serial, call };
    t->owed = o;
    pthread_mutex_unlock(&t->lock);
    struct rq_database *db = database(t, db_id);
    if (db != NULL) {
        rq_database_turn_wanted(db, serial);
        rq_database_unref(db);
    } else {
        on_answer(t, db_id, serial, true, 0);
    }
}

void rq_cluster_asked_turn(struct rq_cluster_turns *t, const struct rq_peer_who *from, struct rq_call *call,
                           const struct rq_ask *ask)
{
    if (driver_of(t) == NULL) {
        rq_call_fail(call, RQ_AWAY, "");
        return;
    }
    if (ask->kind == RQ_ASK_TURN_WANTED) {
        rq_cluster_turn_wanted(t, call, ask->turn.db_id, ask->turn.serial);
        return;
    }
    struct errand e = { .call = call, .host = from->instance, .db_id = ask->turn.db_id };
    if (ask->kind == RQ_ASK_TURN_TAKE) {
        post(t, run_take, &e);
        return;
    }
    rq_bytes_init(&e.held, SIZE_MAX);
    if (rq_bytes_put(&e.held, ask->held.data, ask->held.bytes) != RQ_OK) {
        rq_call_fail(call, RQ_NOMEM, "");
        return;
    }
    post(t, run_held, &e);
}

static void begin_role(struct rq_cluster_turns *t)
{
    if (t->leads && (!rq_turns_leads(t->table) || t->table_term != t->term)) {
        uint64_t hosts[RQ_MEMBERS_MAX];
        struct rq_members members;
        size_t count = 0;
        rq_cluster_members(t->cluster, &members);
        for (unsigned i = 0; i < members.count; i++) {
            const uint64_t host = members.list[i].instance;
            if (host == t->cluster->config.instance || is_connected(t, host)) {
                hosts[count++] = host;
            }
        }
        t->table_term = t->term;
        rq_turns_begin(t->table, rq_clock_ms(), t->term, hosts, count);
        start_timer(t);
    } else if (!t->leads && rq_turns_leads(t->table)) {
        rq_turns_end(t->table);
    }
    t->told = false;
    tell(t);
}

void rq_cluster_turn_role(struct rq_cluster_turns *t, bool leads, uint64_t term, uint64_t leader)
{
    t->leads = leads;
    t->leader = leader;
    t->term = term;
    if (driver_of(t) != NULL) {
        begin_role(t);
    } /* else the node is being started, and the role begins with what is done then */
}

void rq_cluster_turn_leave(struct rq_cluster_turns *t)
{
    pthread_mutex_lock(&t->lock);
    t->leaves = true;
    t->held_count = 0;
    pthread_mutex_unlock(&t->lock);
}

void rq_cluster_turn_members(struct rq_cluster_turns *t)
{
    struct rq_catalog *catalog = atomic_load(&t->catalog);
    if (catalog != NULL) {
        rq_catalog_members_changed(catalog);
    }
}

static void run_start(struct rq_task *task)
{
    struct errand *e = (struct errand *)task;
    begin_role(e->turns);
    rq_cluster_turn_members(e->turns);
    errand_free(e);
}

void rq_cluster_turn_start(struct rq_cluster_turns *t, struct rq_catalog *catalog)
{
    atomic_store(&t->catalog, catalog);
    post(t, run_start, &(struct errand){ 0 });
}

const struct rq_turn_door *rq_cluster_turn_door(struct rq_cluster *c)
{
    return &c->turns->door;
}

enum rq_err rq_cluster_turns_new(struct rq_cluster *c, struct rq_cluster_turns **ret_turns)
{
    struct rq_cluster_turns *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return RQ_NOMEM;
    }
    const struct rq_turns_ops ops = { t, on_grant, on_refuse, on_want };
    enum rq_err err = rq_turns_new(&ops, &t->table);
    if (err != RQ_OK) {
        free(t);
        return err;
    }
    t->cluster = c;
    t->door = (struct rq_turn_door){ t, on_alone, on_take, on_holds, on_answer, on_lost, on_dropped };
    t->tell.run = run_tell;
    pthread_mutex_init(&t->lock, NULL);
    *ret_turns = t;
    return RQ_OK;
}

void rq_cluster_turns_free(struct rq_cluster_turns *t)
{
    rq_turns_free(t->table);
    while (t->owed != NULL) {
        struct owed *o = t->owed;
        t->owed = o->next;
        if (o->call != NULL) {
            rq_call_fail(o->call, RQ_AWAY, "");
        }
        free(o);
    }
    pthread_mutex_destroy(&t->lock);
    free(t->held);
    free(t);
}
