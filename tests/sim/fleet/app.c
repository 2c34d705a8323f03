/* Applications, each with one connection to the raftd of its host: as the shim and the bridge are, but that whoever waits is asked
 * again each millisecond.  What is done about a COMMIT whose connection broke is ext/fate.c's decision, as it is the bridge's. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/staged.h"
#include "raftd/ops/journal.h"
#include "raftd/wire/msg.h"
#include "raftd/wire/txn.h"
#include "tests/sim/fleet/fleet.h"

enum {
    OPEN_MS = 2000,
    LOOK_MS = 50,
    COMMIT_MS = 10000,
    SHORT_COMMIT_MS = 1000,
    READ_MS = 1000,
    FRESHNESS_MS = 500,
};

/* What its raftd has said, not yet taken note of. */
struct heard {
    bool any;
    enum rq_msg_type type;
    enum rq_err err;
    uint32_t db_id;
};
static struct heard heard_by[FLEET_APPS_MAX];

static void heard(void *ctx, const struct rq_frame *frame, const uint8_t *body)
{
    struct fleet_app *a = ctx;
    struct heard *h = &heard_by[a->number];
    struct rq_msg_outcome outcome;
    struct rq_msg_opened opened;
    struct rq_msg_failed failed;
    if (frame->id != a->frame_id || frame->type == RQ_MSG_WELCOME) {
        return;
    }
    *h = (struct heard){ .any = true, .type = (enum rq_msg_type)frame->type, .err = RQ_OK };
    if (frame->type == RQ_MSG_OUTCOME && rq_msg_get_outcome(body, frame->body_bytes, &outcome) == RQ_OK) {
        h->err = outcome.err;
    } else if (frame->type == RQ_MSG_OPENED && rq_msg_get_opened(body, frame->body_bytes, &opened) == RQ_OK) {
        h->db_id = opened.db_id;
    } else if (frame->type == RQ_MSG_FAILED && rq_msg_get_failed(body, frame->body_bytes, &failed) == RQ_OK) {
        h->err = failed.err;
    }
    a->frame_id = 0;
}

/* What it has said since the last question, once. */
static struct heard take_heard(const struct fleet_app *a)
{
    const struct heard h = heard_by[a->number];
    heard_by[a->number].any = false;
    return h;
}

void app_init(struct fleet_app *a, unsigned number, struct fleet_host *h)
{
    *a = (struct fleet_app){
        .number = number,
        .database = fleet_below(FLEET_DATABASES),
        .host = h,
        .session = 100 + number,
        .due = fleet->now_ms + fleet_below(200),
    };
    a->door.heard = heard;
    a->door.ctx = a;
    rq_bytes_init(&a->frame, 1u << 20);
    heard_by[number] = (struct heard){ 0 };
}

static void close_control(struct fleet_app *a)
{
    if (a->has_control) {
        rq_control_close(&a->control);
        a->has_control = false;
    }
}

static void be_out(struct fleet_app *a)
{
    close_control(a);
    heard_by[a->number].any = false;
    a->frame_id = 0;
    a->state = APP_OUT;
    a->due = fleet->now_ms + 1 + fleet_below(50);
}

/* Another one takes its place, and nobody will hear what became of its transaction. */
static void begin_anew(struct fleet_app *a)
{
    a->commit = NULL;
    a->seen = 0;
    a->session += 100;
    a->seq = 0;
}

void app_host_gone(struct fleet_app *a, bool machine)
{
    raftd_door_gone(&a->door);
    be_out(a);
    if (machine) {
        begin_anew(a);
    }
}

static void close_door(void *ctx)
{
    struct fleet_app *a = ctx;
    raftd_door_close(&a->door);
    close_control(a);
}

void app_kill(struct fleet_app *a)
{
    fleet_trace("application %u is killed", a->number);
    fleet_count(FLEET_apps_killed);
    if (a->state != APP_OUT) {
        (void)host_run(a->host, close_door, a);
        be_out(a);
    }
    begin_anew(a);
}

static void rest(struct fleet_app *a)
{
    a->state = APP_RESTS;
    a->due = fleet->now_ms + (fleet_chance(500) ? 0 : fleet_below(40));
}

/* --- frames -------------------------------------------------------------------------------------------------------------- */

/* Its answer is waited for until the deadline.  False: the line is broken. */
static bool say(struct fleet_app *a, enum rq_err put)
{
    if (put != RQ_OK) {
        fleet_fail("application %u cannot make a frame: %s", a->number, rq_err_name(put));
    }
    const bool sent = raftd_door_send(&a->door, &a->frame);
    a->frame.size = 0;
    if (!sent) {
        be_out(a);
    }
    return sent;
}

static uint64_t new_frame_id(struct fleet_app *a)
{
    static uint64_t last;
    heard_by[a->number].any = false;
    a->frame_id = ++last;
    return a->frame_id;
}

static void look(struct fleet_app *a)
{
    const struct rq_msg_look m = { a->db_id };
    if (rq_turn_elsewhere(&a->control)) {
        (void)say(a, rq_msg_put_look(&a->frame, 1, &m));
    }
}

static bool connect(struct fleet_app *a)
{
    return raftd_door_open(&a->door) || raftd_door_connect(&a->door, &a->host->rig, a->session);
}

static void open_database(struct fleet_app *a)
{
    const char *name = fleet_database_names[a->database];
    const struct rq_msg_open m = { { name, (uint32_t)strlen(name) }, true };
    a->due = fleet->now_ms + 20;
    if (connect(a)) {
        a->state = APP_OPENS;
        a->deadline = fleet->now_ms + OPEN_MS;
        const uint64_t id = new_frame_id(a);
        (void)say(a, rq_msg_put_open(&a->frame, id, &m));
    }
}

/* The control page, and a slot of it. */
static bool has_slot(struct fleet_app *a)
{
    char path[64];
    if (a->has_control && rq_control_usable(&a->control, a->host->rig.boot + 1)) {
        return true;
    }
    close_control(a);
    (void)snprintf(path, sizeof path, RIG_DIR "/%s-rqctl", fleet_database_names[a->database]);
    if (rq_control_open(a->host->rig.disk, path, a->host->rig.boot + 1, &a->control) != RQ_OK) {
        return false;
    }
    a->has_control = true;
    if (rq_slot_claim(&a->control, a->session, &a->slot) != RQ_OK) {
        close_control(a);
        return false;
    }
    return true;
}

/* --- a transaction ------------------------------------------------------------------------------------------------------- */

static struct fleet_commit *new_commit(struct fleet_app *a, uint64_t number, uint64_t base, uint64_t chain)
{
    if (fleet->commit_count == FLEET_COMMITS_MAX) {
        fleet_fail("too many transactions for one seed");
    }
    struct fleet_commit *c = &fleet->commits[fleet->commit_count++];
    *c = (struct fleet_commit){
        .app = a->number,
        .database = a->database,
        .number = number != 0 ? number : fleet->commit_count,
        .origin = { a->session, ++a->seq },
        .base = base,
        .chain = chain,
    };
    return c;
}

static void send_pages(struct fleet_app *a)
{
    const struct fleet_commit *c = a->commit;
    uint8_t page1[FLEET_PAGE], page[FLEET_PAGE], number[4];
    uint32_t pgno;
    truth_pages(c, page1, &pgno, page);
    const struct rq_msg_commit m = {
        .db_id = a->db_id,
        .seq = c->origin.seq,
        .base = c->base,
        .page_size = FLEET_PAGE,
        .db_page_count = FLEET_PAGES,
        .page_count = 2,
    };
    enum rq_err err = rq_msg_put_commit(&a->frame, new_frame_id(a), RQ_MSG_COMMIT, &m);
    rq_put_u32(number, 1);
    err = err == RQ_OK ? rq_bytes_put(&a->frame, number, sizeof number) : err;
    err = err == RQ_OK ? rq_bytes_put(&a->frame, page1, FLEET_PAGE) : err;
    rq_put_u32(number, pgno);
    err = err == RQ_OK ? rq_bytes_put(&a->frame, number, sizeof number) : err;
    err = err == RQ_OK ? rq_bytes_put(&a->frame, page, FLEET_PAGE) : err;
    if (say(a, err)) {
        rq_fate_sent(&a->fate);
    }
}

/* Only a transaction of megabytes would be staged by a session; so this one is handed in as a session does it then. */
struct big {
    struct fleet_app *app;
    unsigned life;
    uint64_t frame_id;
};

static void big_answered(struct rq_commit *c, const struct rq_msg_outcome *outcome)
{
    struct big *b = c->ctx;
    if (b->app->host->life == b->life && b->app->frame_id == b->frame_id) {
        heard_by[b->app->number] = (struct heard){ true, RQ_MSG_OUTCOME, outcome->err, 0 };
        b->app->frame_id = 0;
    }
    free(b);
    rq_commit_free(c);
}

static void hand_in_big(struct fleet_app *a)
{
    const struct fleet_commit *t = a->commit;
    const struct rq_body_head head = { FLEET_PAGE, FLEET_PAGES };
    uint8_t records[2 * (4 + FLEET_PAGE)];
    uint32_t pgno;
    struct rq_commit *c;
    struct big *b = malloc(sizeof *b);
    *b = (struct big){ a, a->host->life, new_frame_id(a) };
    truth_pages(t, records + 4, &pgno, records + 8 + FLEET_PAGE);
    rq_put_u32(records, 1);
    rq_put_u32(records + 4 + FLEET_PAGE, pgno);
    if (rq_commit_new(&c) != RQ_OK) {
        fleet_fail("no memory");
    }
    c->db = host_database(a->host, a->db_id);
    c->origin = t->origin;
    c->base = t->base;
    c->page_size = FLEET_PAGE;
    c->db_page_count = FLEET_PAGES;
    c->answer = big_answered;
    c->ctx = b;
    rq_page1_normalise(records + 4);
    enum rq_err err = c->db == NULL ? RQ_NOTFOUND : rq_staged_new(a->host->rig.disk, RIG_STAGED_DIR, &head, &c->body);
    err = err == RQ_OK ? rq_staged_add(c->body, records, sizeof records) : err;
    if (err == RQ_IO) {
        rq_fatal("a staged body could not be written", err);
    }
    rq_fate_sent(&a->fate);
    if (err == RQ_OK) {
        rq_database_commit(c);
    } else {
        big_answered(c, &(struct rq_msg_outcome){ .err = err });
    }
}

static void send_or_ask(struct fleet_app *a)
{
    if (!connect(a)) {
        a->due = fleet->now_ms + 20;
        return;
    }
    if (a->fate.may_have_arrived && fleet_plant == FLEET_PLANT_ANEW) {
        uint64_t base, chain = truth_chain_of(a->host, a->database, &base);
        a->commit = new_commit(a, a->commit->number, base, chain);
        a->fate = (struct rq_fate){ 0 };
        a->asks = false;
        send_pages(a);
    } else if (a->fate.may_have_arrived) {
        const struct rq_msg_ask m = { a->db_id, a->commit->origin.seq, a->commit->base };
        const uint64_t id = new_frame_id(a);
        (void)say(a, rq_msg_put_ask(&a->frame, id, &m));
    } else if (a->big) {
        hand_in_big(a);
    } else {
        send_pages(a);
    }
}

static void conclude(struct fleet_app *a, enum rq_err err)
{
    struct fleet_commit *c = a->commit;
    a->commit = NULL;
    truth_told(a, c, err);
    a->done += err == RQ_OK && fleet->now_ms > fleet->calm_ms;
    rest(a);
    if (a->has_control && rq_turn_held(&a->control, a->slot)) {
        rq_turn_release(&a->control, a->slot);
        look(a);
    }
}

/* An ASK is answered with OUTCOME, as a COMMIT is; which of them it was the fate knows by what it had sent. */
static void go_on_committing(struct fleet_app *a, bool asked)
{
    const struct heard h = take_heard(a);
    enum rq_err err = RQ_UNKNOWN;
    if (h.any) {
        const bool known = asked ? rq_fate_asked(&a->fate, h.err, &err) : rq_fate_outcome(&a->fate, h.err, &err);
        if (asked && known) {
            fleet_count(FLEET_asked_and_there);
        }
        if (asked && !known && !a->fate.may_have_arrived) {
            fleet_count(FLEET_asked_and_sent_again);
        }
        if (known) {
            conclude(a, err);
            return;
        }
        a->due = fleet->now_ms + 1 + fleet_below(20);
        a->asks = false;
    } else if (fleet->now_ms >= a->deadline) {
        raftd_door_close(&a->door);
        conclude(a, rq_fate_out_of_time(&a->fate));
        be_out(a);
    } else if (a->frame_id == 0) {
        a->asks = a->fate.may_have_arrived;
        send_or_ask(a);
    }
}

static void commit(struct fleet_app *a, uint64_t base, uint64_t chain)
{
    a->commit = new_commit(a, 0, base, chain);
    a->fate = (struct rq_fate){ 0 };
    a->big = fleet_chance(fleet->big_permille);
    a->state = APP_COMMITS;
    a->deadline = fleet->now_ms + (fleet_chance(200) ? SHORT_COMMIT_MS : COMMIT_MS);
    a->due = fleet->now_ms;
}

/* As vfs/snapshot.c says at the beginning of each reading. */
static bool is_fenced(const struct fleet_app *a)
{
    struct rq_database_info info = { .state = RQ_DB_EMPTY };
    struct rq_database *db = host_database(a->host, fleet->truth[a->database].id);
    if (db != NULL) {
        rq_database_info(db, &info);
        rq_database_unref(db);
    }
    return info.state == RQ_DB_QUARANTINED;
}

/* With the turn: what it reads is what it builds on, whatever happens until it commits. */
static void think(struct fleet_app *a)
{
    a->chain = truth_chain_of(a->host, a->database, &a->base);
    if (truth_is_fenced(a->host, a->database) || is_fenced(a)) {
        raftd_door_close(&a->door);
        be_out(a);
        return;
    }
    if (a->base < a->seen) {
        fleet_fail("host %u: application %u has seen version %" PRIu64 " and builds on %" PRIu64, a->host->number,
                   a->number, a->seen, a->base);
    }
    a->state = APP_THINKS;
    a->works = !fleet_chance(fleet->hung_permille);
    a->due = fleet->now_ms + (!a->works ? 2500 : fleet_chance(700) ? 0 : fleet_below(30));
}

static void queue(struct fleet_app *a)
{
    if (!has_slot(a)) {
        be_out(a);
        return;
    }
    _Atomic uint32_t *asleep = &a->control.slots[a->slot].asleep;
    atomic_store(asleep, 1); /* as in rq_turn_wait(), for a millisecond at a time */
    const bool taken = rq_turn_take(&a->control, a->slot) == RQ_OK;
    if (taken || fleet->now_ms >= a->deadline) {
        atomic_store(asleep, 0);
    }
    if (taken) {
        if (fleet->holder[a->database] != a->host->number + 1) {
            fleet_count(FLEET_turns_moved);
            fleet->holder[a->database] = a->host->number + 1;
        }
        think(a);
    } else if (fleet->now_ms >= a->deadline) {
        fleet_count(FLEET_turns_given_up);
        rq_turn_give_up(&a->control, a->slot);
        rest(a);
    } else if (fleet->now_ms >= a->look_ms) {
        a->look_ms = fleet->now_ms + LOOK_MS;
        look(a);
    }
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */

static void read_database(struct fleet_app *a)
{
    if (is_fenced(a)) {
        fleet_count(FLEET_reads_refused);
        rest(a);
        return;
    }
    if (fleet_chance(300)) {
        truth_read(a, 0, "local");
        fleet_count(FLEET_local_reads);
        rest(a);
        return;
    }
    a->max_age = fleet_chance(500) ? 0 : FRESHNESS_MS;
    a->shown = truth_shown_at(a->database, fleet->now_ms - a->max_age);
    a->state = APP_READS;
    a->deadline = fleet->now_ms + (uint64_t)2 * READ_MS;
    const uint64_t id = new_frame_id(a);
    const struct rq_msg_read m = { a->db_id, a->max_age, READ_MS };
    (void)say(a, rq_msg_put_read(&a->frame, id, &m));
}

static void go_on_reading(struct fleet_app *a)
{
    const struct heard h = take_heard(a);
    if (h.any && h.type == RQ_MSG_READY && !is_fenced(a)) {
        truth_read(a, a->shown, a->max_age == 0 ? "linearizable" : "bounded");
        fleet_count(a->max_age == 0 ? FLEET_linearizable_reads : FLEET_bounded_reads);
        rest(a);
    } else if (h.any) {
        fleet_count(FLEET_reads_refused);
        rest(a);
    } else if (fleet->now_ms >= a->deadline) {
        raftd_door_close(&a->door);
        be_out(a);
    }
}

/* --- one millisecond ------------------------------------------------------------------------------------------------------- */

static void opened(struct fleet_app *a)
{
    const struct heard h = take_heard(a);
    if (h.any && h.err == RQ_OK && h.type == RQ_MSG_OPENED) {
        a->db_id = h.db_id;
        a->state = a->commit != NULL ? APP_COMMITS : APP_RESTS;
        a->asks = false;
    } else if (h.any || fleet->now_ms >= a->deadline) {
        raftd_door_close(&a->door);
        be_out(a);
    }
}

static void step(void *ctx)
{
    struct fleet_app *a = ctx;
    if (a->state != APP_OUT && !raftd_door_open(&a->door)) {
        raftd_door_close(&a->door);
        be_out(a);
        return;
    }
    switch (a->state) {
        case APP_OUT:
            open_database(a);
            break;
        case APP_OPENS:
            opened(a);
            break;
        case APP_RESTS:
            if (fleet_chance(300)) {
                read_database(a);
            } else {
                a->state = APP_QUEUES;
                a->deadline = fleet->now_ms + (fleet_chance(200) ? 30 : 5000);
                a->look_ms = 0;
            }
            break;
        case APP_QUEUES:
            queue(a);
            break;
        case APP_THINKS:
            commit(a, a->base, a->chain);
            break;
        case APP_COMMITS:
            go_on_committing(a, a->asks);
            break;
        case APP_READS:
            go_on_reading(a);
            break;
    }
}

void app_tick(struct fleet_app *a)
{
    struct fleet_host *h = a->host;
    if (a->commit != NULL && a->state == APP_OUT && fleet->now_ms >= a->deadline) {
        conclude(a, rq_fate_out_of_time(&a->fate));
        be_out(a);
    }
    if (a->state == APP_THINKS && a->works && a->has_control) {
        atomic_fetch_add(&a->control.slots[a->slot].progress, 1);
    }
    const bool waits = a->frame_id != 0 && !heard_by[a->number].any;
    if (h->state != FLEET_READY || !host_works(h) || fleet->now_ms < a->due || (waits && fleet->now_ms < a->deadline)) {
        return;
    }
    if (a->state == APP_RESTS && fleet->rests) {
        return;
    }
    (void)host_run(h, step, a);
}
