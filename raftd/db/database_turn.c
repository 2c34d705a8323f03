/* Turn of a database on this host: when its applications may take it.  Only on the database's strand.
 *
 *                 who waits here is told of        granted             applied up to its index
 *        +--> AWAY ---------------------> ASKED -----------> AWAITED -------------------------> HERE
 *        |      ^  not granted              |                                                     | wanted by others, and
 *        |      +---------------------------+                                                     | used up or not used
 *        |        given, or lost to others                                                        v
 *        +------------------------------------------------------------------------------------ LEAVING
 *   ALWAYS: no other host is a member.
 *
 * In ALWAYS and HERE the control page is open, in the others closed.  In LEAVING whoever has taken the turn may finish; he loses it
 * when he makes no progress for HUNG_MS.
 *
 * The leader wants to hear within two seconds: who still needs the turn says so, and is asked again. */
#include <stddef.h>
#include <stdlib.h>

#include "raftd/db/database_impl.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"

#define QUANTUM_MS 10   /* so long a host keeps what others want */
#define IDLE_MS    2    /* unless nobody uses it for so long */
#define OFFER_MS   20   /* or, before its first use, for so long: whoever polls has to find it open once */
#define HUNG_MS    2000 /* a transaction without any progress for so long is not waited for */
#define KEEP_MS    1000 /* after so long the leader hears that it is still needed */
#define TICK_MS    2
#define RETRY_MS   20

static void step(struct rq_database *db);

/* --- the control page --------------------------------------------------------------------------------------------------------- */

static bool is_open(const struct rq_database *db)
{
    return db->turn.state == RQ_DB_TURN_ALWAYS || db->turn.state == RQ_DB_TURN_HERE;
}

void rq_db_turn_publish(struct rq_database *db)
{
    struct rq_control *c = &db->control;
    if (c->head == NULL || is_open(db) != rq_turn_elsewhere(c)) {
        return;
    }
    if (is_open(db)) {
        rq_turn_open(c);
    } else {
        rq_turn_close(c);
    }
}

static void enter(struct rq_database *db, enum rq_db_turn_state state)
{
    db->turn.state = state;
    rq_db_turn_publish(db);
}

static bool is_taken(const struct rq_database *db)
{
    return db->control.head != NULL && rq_turn_holder(&db->control, NULL) != RQ_SLOT_COUNT;
}

static bool is_queued_for(const struct rq_database *db)
{
    return db->control.head != NULL && rq_turn_wanted(&db->control);
}

/* Whoever has taken it makes nothing that could be committed: it goes on to the next one, if it is open.  Returns the process. */
static uint32_t take_from_holder(struct rq_database *db)
{
    const uint32_t slot = db->control.head != NULL ? rq_turn_holder(&db->control, NULL) : RQ_SLOT_COUNT;
    if (slot == RQ_SLOT_COUNT) {
        return 0;
    }
    rq_turn_pass(&db->control, slot);
    return atomic_load(&db->control.slots[slot].pid);
}

/* Raised by whatever its holder does. */
static uint64_t progress(const struct rq_database *db)
{
    uint32_t taking = 0;
    const uint32_t slot = rq_turn_holder(&db->control, &taking);
    return ((uint64_t)taking << 32) + (slot != RQ_SLOT_COUNT ? atomic_load(&db->control.slots[slot].progress) : 0);
}

/* --- the clock ------------------------------------------------------------------------------------------------------------------ */

static void run_tick(struct rq_task *task)
{
    struct rq_database *db = (struct rq_database *)((char *)task - offsetof(struct rq_database, turn.tick));
    db->turn.ticks = false;
    step(db);
    rq_database_unref(db);
}

static void tick_in(struct rq_database *db, uint64_t delay_ms)
{
    if (!db->turn.ticks) {
        db->turn.ticks = true;
        db->turn.tick.run = run_tick;
        db->turn.tick_later = (struct rq_later){ .strand = &db->place->strand, .task = &db->turn.tick };
        rq_database_ref(db);
        db->env.post_later(db->env.ctx, &db->turn.tick_later, delay_ms);
    }
}

/* --- what the leader hears -------------------------------------------------------------------------------------------------------- */

static void answer(struct rq_database *db, bool given, uint64_t index)
{
    struct rq_db_turn *t = &db->turn;
    if (t->wanted) {
        t->wanted = false;
        db->env.turns->answer(db->env.turns->ctx, db->id, t->wanted_serial, given, index);
    }
}

static void ask(struct rq_database *db)
{
    enter(db, RQ_DB_TURN_ASKED);
    db->env.turns->take(db->env.turns->ctx, db->id, ++db->turn.attempt);
}

static void give(struct rq_database *db)
{
    enter(db, RQ_DB_TURN_AWAY);
    answer(db, true, db->applied_index);
    if (is_queued_for(db)) {
        ask(db); /* behind those for whom it was given */
    }
}

/* Others have it already. */
static void lose(struct rq_database *db)
{
    enter(db, RQ_DB_TURN_AWAY);
    db->env.turns->lost(db->env.turns->ctx, db->id, db->turn.serial);
    answer(db, true, 0);
    (void)take_from_holder(db);
    if (is_queued_for(db)) {
        ask(db);
    }
}

/* --- errands ---------------------------------------------------------------------------------------------------------------------- */

struct turn_errand {
    struct rq_task task;
    struct rq_database *db; /* counted */
    uint64_t attempt, serial, index;
};

static void post(struct rq_database *db, void (*run)(struct rq_task *task), const struct turn_errand *what)
{
    struct turn_errand *e = malloc(sizeof *e);
    if (e == NULL) {
        db->env.fatal(db->env.ctx, "no memory", RQ_NOMEM);
    }
    *e = *what;
    e->task.run = run;
    e->db = rq_database_ref(db);
    rq_strand_post(&db->place->strand, &e->task, RQ_HAND_OVER);
}

static void errand_free(struct turn_errand *e)
{
    rq_database_unref(e->db);
    free(e);
}

/* --- steps ------------------------------------------------------------------------------------------------------------------------ */

static void arrive(struct rq_database *db)
{
    struct rq_db_turn *t = &db->turn;
    t->since_ms = t->used_ms = rq_clock_ms();
    t->used = false;
    enter(db, RQ_DB_TURN_HERE);
    db->env.turns->holds(db->env.turns->ctx, db->id, t->serial);
    step(db);
}

static void run_delivered(struct rq_task *task)
{
    struct turn_errand *e = (struct turn_errand *)task;
    if (e->db->turn.state == RQ_DB_TURN_AWAITED && e->db->turn.serial == e->serial && !e->db->dropped) {
        arrive(e->db);
    }
    errand_free(e);
}

static void await(struct rq_database *db, uint64_t now)
{
    struct rq_db_turn *t = &db->turn;
    if (db->applied_index >= t->index) {
        arrive(db);
        return;
    }
    if (t->wanted && now - t->wanted_ms >= KEEP_MS) {
        enter(db, RQ_DB_TURN_AWAY); /* this host does not get on */
        answer(db, true, 0);
        return;
    }
    if (!t->delivered && db->env.delivered(db->env.ctx) >= t->index) {
        t->delivered = true; /* and on the strand, before what is posted now */
        post(db, run_delivered, &(struct turn_errand){ .serial = t->serial });
    }
    tick_in(db, TICK_MS);
}

static void use(struct rq_database *db, uint64_t now)
{
    struct rq_db_turn *t = &db->turn;
    if (is_taken(db) || db->in_flight != NULL) {
        t->used_ms = now;
        t->used = true;
    } else if (t->used && is_queued_for(db)) {
        t->used_ms = now; /* whose turn it is here is waking up */
    }
    if (!t->wanted) {
        return;
    }
    const bool idle = now - t->used_ms >= (t->used ? IDLE_MS : OFFER_MS);
    if (!idle && (now - t->since_ms < QUANTUM_MS || !t->used)) {
        tick_in(db, TICK_MS);
        return;
    }
    t->progress = 0;
    t->progress_ms = now;
    enter(db, RQ_DB_TURN_LEAVING);
    step(db);
}

static void leave(struct rq_database *db, uint64_t now)
{
    struct rq_db_turn *t = &db->turn;
    if (is_taken(db) || db->in_flight != NULL) {
        const uint64_t p = is_taken(db) ? progress(db) : 0;
        if (p != t->progress || db->in_flight != NULL) {
            t->progress = p;
            t->progress_ms = now;
        }
        if (now - t->progress_ms < HUNG_MS) {
            if (now - t->wanted_ms >= KEEP_MS) {
                answer(db, false, 0);
            }
            tick_in(db, TICK_MS);
            return;
        }
        const uint32_t pid = take_from_holder(db);
        rq_note(RQ_LEVEL_WARN, "a transaction makes no progress while another host waits: it loses its turn",
                "id=%u pid=%u", db->id, (unsigned)pid);
    }
    if (t->wanted) {
        give(db);
    } else {
        enter(db,
              RQ_DB_TURN_HERE); /* the leader was told that it is still needed, and will ask again, unless it is gone */
    }
}

static void step(struct rq_database *db)
{
    const uint64_t now = rq_clock_ms();
    if (db->dropped) {
        return;
    }
    switch (db->turn.state) {
        case RQ_DB_TURN_ALWAYS:
        case RQ_DB_TURN_ASKED:
            break;
        case RQ_DB_TURN_AWAY:
            if (is_queued_for(db)) {
                ask(db);
            }
            break;
        case RQ_DB_TURN_AWAITED:
            await(db, now);
            break;
        case RQ_DB_TURN_HERE:
            use(db, now);
            break;
        case RQ_DB_TURN_LEAVING:
            leave(db, now);
            break;
    }
}

/* --- from the rest of the database ---------------------------------------------------------------------------------------------- */

void rq_db_turn_init(struct rq_database *db)
{
    const struct rq_turn_door *door = db->env.turns;
    db->turn.state = door == NULL || door->alone(door->ctx) ? RQ_DB_TURN_ALWAYS : RQ_DB_TURN_AWAY;
}

void rq_db_turn_step(struct rq_database *db)
{
    if (db->turn.state != RQ_DB_TURN_ALWAYS && db->turn.state != RQ_DB_TURN_AWAY) {
        step(db);
    }
}

void rq_db_turn_applied_foreign(struct rq_database *db)
{
    if (db->turn.state == RQ_DB_TURN_HERE || db->turn.state == RQ_DB_TURN_LEAVING) {
        rq_note(RQ_LEVEL_DEBUG, "another host has written: the turn is there", "id=%u", db->id);
        lose(db);
    }
}

void rq_db_turn_dropped(struct rq_database *db)
{
    const struct rq_turn_door *door = db->env.turns;
    if (door != NULL) {
        door->lost(door->ctx, db->id, db->turn.serial);
        answer(db, true, 0);
        door->dropped(door->ctx, db->id);
    }
}

/* What was asked of a former leader, or granted by it, is void. */
void rq_db_turn_role(struct rq_database *db)
{
    if (db->turn.state == RQ_DB_TURN_ASKED || db->turn.state == RQ_DB_TURN_AWAITED) {
        answer(db, true, 0);
        ask(db);
    }
}

/* --- from the cluster ----------------------------------------------------------------------------------------------------------- */

static void run_look(struct rq_task *task)
{
    struct turn_errand *e = (struct turn_errand *)task;
    if (e->db->turn.state == RQ_DB_TURN_AWAY && !e->db->dropped) {
        ask(e->db); /* also for who does not sleep for it: he tries again */
    } else {
        step(e->db);
    }
    errand_free(e);
}

void rq_database_turn_look(struct rq_database *db)
{
    post(db, run_look, &(struct turn_errand){ 0 });
}

static void run_granted(struct rq_task *task)
{
    struct turn_errand *e = (struct turn_errand *)task;
    struct rq_database *db = e->db;
    struct rq_db_turn *t = &db->turn;
    if (t->state == RQ_DB_TURN_ASKED && t->attempt == e->attempt && !db->dropped) {
        if (t->wanted && t->wanted_serial != e->serial) {
            answer(db, true, 0); /* an earlier one, which this host had given or lost */
        }
        t->serial = e->serial;
        t->index = e->index;
        t->delivered = false;
        enter(db, RQ_DB_TURN_AWAITED);
        step(db);
    } /* else the leader will ask for it, and hear that it is not here */
    errand_free(e);
}

void rq_database_turn_granted(struct rq_database *db, uint64_t attempt, uint64_t serial, uint64_t index)
{
    post(db, run_granted, &(struct turn_errand){ .attempt = attempt, .serial = serial, .index = index });
}

static void run_failed(struct rq_task *task)
{
    struct turn_errand *e = (struct turn_errand *)task;
    struct rq_database *db = e->db;
    if (db->turn.state == RQ_DB_TURN_ASKED && db->turn.attempt == e->attempt) {
        enter(db, RQ_DB_TURN_AWAY);
        answer(db, true, 0);
        tick_in(db, RETRY_MS); /* does somebody wait still? */
    }
    errand_free(e);
}

void rq_database_turn_failed(struct rq_database *db, uint64_t attempt)
{
    post(db, run_failed, &(struct turn_errand){ .attempt = attempt });
}

static bool may_have(const struct rq_db_turn *t, uint64_t serial)
{
    switch (t->state) {
        case RQ_DB_TURN_ALWAYS: /* the other host is so new that this one does not know of it */
        case RQ_DB_TURN_AWAY:
            return false;
        case RQ_DB_TURN_ASKED:
            return serial > t->serial; /* the grant may be on its way: it comes on another connection */
        case RQ_DB_TURN_AWAITED:
        case RQ_DB_TURN_HERE:
        case RQ_DB_TURN_LEAVING:
            return serial == t->serial;
    }
    return false;
}

static void run_wanted(struct rq_task *task)
{
    struct turn_errand *e = (struct turn_errand *)task;
    struct rq_database *db = e->db;
    struct rq_db_turn *t = &db->turn;
    if (!may_have(t, e->serial) || db->dropped) {
        db->env.turns->answer(db->env.turns->ctx, db->id, e->serial, true, 0);
    } else {
        if (t->wanted && t->wanted_serial != e->serial) {
            answer(db, true, 0);
        }
        t->wanted = true;
        t->wanted_serial = e->serial;
        t->wanted_ms = rq_clock_ms();
        step(db);
    }
    errand_free(e);
}

void rq_database_turn_wanted(struct rq_database *db, uint64_t serial)
{
    post(db, run_wanted, &(struct turn_errand){ .serial = serial });
}

static void run_denied(struct rq_task *task)
{
    struct turn_errand *e = (struct turn_errand *)task;
    struct rq_db_turn *t = &e->db->turn;
    if ((t->state == RQ_DB_TURN_HERE || t->state == RQ_DB_TURN_LEAVING) && t->serial == e->serial && !e->db->dropped) {
        lose(e->db);
    }
    errand_free(e);
}

void rq_database_turn_denied(struct rq_database *db, uint64_t serial)
{
    post(db, run_denied, &(struct turn_errand){ .serial = serial });
}

static void run_members(struct rq_task *task)
{
    struct turn_errand *e = (struct turn_errand *)task;
    struct rq_database *db = e->db;
    struct rq_db_turn *t = &db->turn;
    const struct rq_turn_door *door = db->env.turns;
    if (db->dropped || door == NULL || door->alone(door->ctx) == (t->state == RQ_DB_TURN_ALWAYS)) {
        errand_free(e);
        return;
    }
    if (t->state != RQ_DB_TURN_ALWAYS) {
        answer(db, true, 0);
        t->attempt++; /* what was asked for is void */
        enter(db, RQ_DB_TURN_ALWAYS);
    } else if (!db->caught_up) { /* a start: nothing was promised to anybody */
        enter(db, RQ_DB_TURN_AWAY);
    } else {
        t->serial = 0;
        t->since_ms = t->used_ms = rq_clock_ms();
        t->used = false;
        enter(db, RQ_DB_TURN_HERE);
        door->holds(door->ctx, db->id, t->serial);
    }
    errand_free(e);
}

void rq_database_members_changed(struct rq_database *db)
{
    post(db, run_members, &(struct turn_errand){ 0 });
}
