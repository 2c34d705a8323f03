/* database: the outcome of a transaction is what the log says of it, whoever asks, however often, also after a restart. */
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "raftd/db/database.h"
#include "raftd/wire/entry.h"
#include "tests/support/database_env.h"
#include "tests/support/page1.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"

enum { PAGE = 512, ENTRIES_MAX = 64, DEADLINE_S = 60 };

/* raftd around one database: a node that appends when told to, and a log in memory. */
static struct {
    char dir[64], staged[80], trash[80];
    struct rq_disk *disk;
    struct rq_shelf *shelf;
    struct rq_pool *pool;
    struct rq_place *place;
    struct rq_database *db;
    struct rq_submit *submitted; /* waits for what the node says */
    struct rq_log_entry log[ENTRIES_MAX];
    unsigned log_count, given;
    bool ready, full;
    uint64_t leader, term;
    struct rq_later *later; /* a retry that is not due yet */
    unsigned dropped;
    const struct rq_carrier *carrier; /* NULL: there are no other nodes */
    const struct rq_turn_door *turns; /* likewise */
    uint64_t turn_attempt;
    unsigned turn_holds, turn_lost;
    enum rq_carriage_state carriage;
    void (*brought)(void *ctx);
    void *brought_ctx;
    unsigned brings, leaves;
    void (*fetched)(void *ctx, enum rq_err err);
    void *fetched_ctx;
} world;

static struct rq_msg_outcome answers[ENTRIES_MAX];
static unsigned answer_count;

static void on_submit(void *ctx, struct rq_submit *s)
{
    (void)ctx;
    check(world.submitted == NULL);
    world.submitted = s;
}

static void on_post_later(void *ctx, struct rq_later *later, uint64_t delay_ms)
{
    (void)ctx;
    check(delay_ms > 0);
    check(world.later == NULL);
    world.later = later;
}

static uint64_t on_leader(void *ctx)
{
    (void)ctx;
    return world.leader;
}

static uint64_t on_term(void *ctx)
{
    (void)ctx;
    return world.term;
}

static bool on_full(void *ctx)
{
    (void)ctx;
    return world.full;
}

static bool on_ready(void *ctx)
{
    (void)ctx;
    return world.ready;
}

static void settle(void)
{
    while (rq_pool_run_one(world.pool)) {
    }
}

static void open_database(uint64_t version)
{
    struct rq_database_env env = database_env(world.pool);
    env.disk = world.disk;
    env.dir = world.dir;
    env.staged_dir = world.staged;
    env.shelf = world.shelf;
    env.carrier = world.carrier;
    env.turns = world.turns;
    env.trash_dir = world.trash;
    env.submit = on_submit;
    env.post_later = on_post_later;
    env.leader = on_leader;
    env.term = on_term;
    env.ready = on_ready;
    env.full = on_full;
    struct rq_database_known known = { .version = version };
    rq_origins_init(&known.origins, version);
    check_eq(rq_database_new(&env, world.place, 7, &known, &world.db), RQ_OK);
    settle();
}

static void begin_on(struct rq_disk *disk)
{
    memset(&world, 0, sizeof world);
    world.disk = disk;
    answer_count = 0;
    (void)snprintf(world.dir, sizeof world.dir, "/tmp/rq-database-XXXXXX");
    check(mkdtemp(world.dir) != NULL);
    (void)snprintf(world.staged, sizeof world.staged, "%s/staged", world.dir);
    (void)snprintf(world.trash, sizeof world.trash, "%s/trash", world.dir);
    check_eq(mkdir(world.staged, 0700), 0);
    check_eq(mkdir(world.trash, 0700), 0);
    check_eq(rq_shelf_new(rq_disk_real(), world.staged, &world.shelf), RQ_OK);
    check_eq(rq_pool_new(0, "test", &world.pool), RQ_OK);
    check_eq(rq_place_new(world.pool, "app.db", &world.place), RQ_OK);
    world.ready = true;
    world.leader = world.term = 1;
    open_database(0);
    rq_database_caught_up(world.db);
    settle();
}

static void begin(void)
{
    begin_on(rq_disk_real());
}

static void close_database(void)
{
    rq_database_unref(world.db);
    world.db = NULL;
}

static void end(void)
{
    close_database();
    for (unsigned i = 0; i < world.log_count; i++) {
        rq_blob_unref(world.log[i].blob);
    }
    rq_place_free(world.place);
    rq_pool_free(world.pool);
    rq_shelf_free(world.shelf);
    check(scratch_remove(world.dir));
}

static void on_answer(struct rq_commit *c, const struct rq_msg_outcome *outcome)
{
    answers[answer_count++] = *outcome;
    rq_commit_free(c);
}

/* Two pages; the second is full of fill. */
static struct rq_commit *transaction(uint64_t session, uint64_t seq, uint64_t base, uint8_t fill)
{
    struct rq_commit *c;
    uint8_t records[2 * (4 + PAGE)] = { 0 };
    uint8_t *page1 = records + 4;
    check_eq(rq_commit_new(&c), RQ_OK);
    rq_put_u32(records, 1);
    page1_head(page1, PAGE, base + 1, 2);
    rq_put_u32(records + 4 + PAGE, 2);
    memset(records + 8 + PAGE, fill, PAGE);
    check_eq(rq_bytes_put(&c->pages, records, sizeof records), RQ_OK);
    c->db = rq_database_ref(world.db);
    c->origin = (struct rq_origin){ session, seq };
    c->base = base;
    c->page_size = PAGE;
    c->db_page_count = 2;
    c->answer = on_answer;
    return c;
}

static void ask(uint64_t session, uint64_t seq, uint64_t base)
{
    struct rq_commit *c;
    check_eq(rq_commit_new(&c), RQ_OK);
    c->ask = true;
    c->db = rq_database_ref(world.db);
    c->origin = (struct rq_origin){ session, seq };
    c->base = base;
    c->answer = on_answer;
    rq_database_commit(c);
    settle();
}

static void commit(struct rq_commit *c)
{
    rq_database_commit(c);
    settle();
}

/* The node says OK, and the entry is in the log; or it says why not. */
static void append(enum rq_err err)
{
    struct rq_submit *s = world.submitted;
    check(s != NULL);
    world.submitted = NULL;
    if (err == RQ_OK) {
        world.log[world.log_count] =
            (struct rq_log_entry){ .index = 10 + world.log_count, .term = 1, .type = s->type, .blob = s->blob };
        world.log_count++;
    } else {
        rq_blob_unref(s->blob);
    }
    s->done(s, err);
    settle();
}

/* Another node was asked, and this is what is known of it: OK, UNKNOWN or an error. */
static void forwarded(struct rq_submit *s, enum rq_err err, uint64_t term, bool in_log)
{
    if (in_log) {
        world.log[world.log_count] = (struct rq_log_entry){
            .index = 10 + world.log_count, .term = term, .type = s->type, .blob = rq_blob_ref(s->blob)
        };
        world.log_count++;
    }
    rq_blob_unref(s->blob);
    s->forwarded = true;
    s->term = term;
    s->done(s, err);
    settle();
}

static struct rq_submit *take_submitted(void)
{
    struct rq_submit *s = world.submitted;
    check(s != NULL);
    world.submitted = NULL;
    return s;
}

static void role(uint64_t leader, uint64_t term)
{
    world.leader = leader;
    world.term = term;
    rq_database_role_changed(world.db);
    settle();
}

static void time_passes(void)
{
    check(world.later != NULL);
    struct rq_later *later = world.later;
    world.later = NULL;
    rq_strand_post(later->strand, later->task, RQ_HAND_OVER);
    settle();
}

/* As the catalog does it. */
static void give_committed(void)
{
    while (world.given < world.log_count) {
        const struct rq_log_entry *e = &world.log[world.given++];
        struct rq_entry_staged staged;
        if (e->type == RQ_ENTRY_STAGED && rq_entry_get_staged(e->blob->data, e->blob->bytes, &staged) == RQ_OK) {
            check_eq(rq_shelf_name(world.shelf, &staged, e->index), RQ_OK);
        }
        rq_database_committed(world.db, e);
    }
    settle();
}

static struct rq_database_info info(void)
{
    struct rq_database_info i;
    rq_database_info(world.db, &i);
    return i;
}

static uint8_t byte_of_page_2(void)
{
    uint8_t page[PAGE];
    struct rq_replica *r = rq_database_hold(world.db);
    check(r != NULL);
    check_eq(rq_replica_read(r, 2, page), RQ_OK);
    rq_database_release(world.db);
    return page[100];
}

/* --- claims ------------------------------------------------------------------------------------------------------------- */

static void answer_comes_with_the_committed_entry_not_before(void)
{
    begin();
    commit(transaction(1, 1, 0, 'a'));
    check_eq(answer_count, 0);
    append(RQ_OK);
    check_eq(answer_count, 0);
    check_eq(info().version, 0);
    give_committed();
    check_eq(answer_count, 1);
    check_eq(answers[0].err, RQ_OK);
    check_eq(answers[0].version, 1);
    check_eq(info().version, 1);
    check_eq(info().state, RQ_DB_LIVE);
    check_eq(byte_of_page_2(), 'a');
    end();
}

static void second_on_the_same_base_waits_and_is_refused_by_what_was_applied(void)
{
    begin();
    commit(transaction(1, 1, 0, 'a'));
    commit(transaction(2, 1, 0, 'b'));
    commit(transaction(1, 1, 0, 'a')); /* the first, sent again after a lost connection */
    append(RQ_OK);
    check_eq(answer_count, 0);
    check(world.submitted == NULL);
    give_committed();
    check_eq(answer_count, 3);
    check_eq(answers[0].err, RQ_OK);
    check_eq(answers[1].err, RQ_REFUSED);
    check_eq(answers[2].err, RQ_OK);
    check_eq(answers[2].version, 1);
    check_eq(byte_of_page_2(), 'a');
    end();
}

static void what_was_not_appended_is_told_and_the_next_one_goes(void)
{
    begin();
    commit(transaction(1, 1, 0, 'a'));
    commit(transaction(2, 1, 0, 'b'));
    append(RQ_FULL);
    check_eq(answer_count, 1);
    check_eq(answers[0].err, RQ_FULL);
    append(RQ_OK);
    give_committed();
    check_eq(answer_count, 2);
    check_eq(answers[1].err, RQ_OK);
    check_eq(byte_of_page_2(), 'b');
    end();
}

/* What the control page says of it. */
static bool says_that_it_is_full(void)
{
    struct rq_control app;
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/app.db-rqctl", world.dir);
    check_eq(rq_control_open(rq_disk_real(), path, 1, &app), RQ_OK);
    const bool full = atomic_load(&app.head->full) != 0;
    rq_control_close(&app);
    return full;
}

static void without_room_for_what_others_commit_nothing_is_taken(void)
{
    begin();
    world.full = true;
    rq_database_caught_up(world.db); /* or whatever else makes it say how it is */
    settle();
    check(says_that_it_is_full());
    commit(transaction(1, 1, 0, 'a'));
    check_eq(answer_count, 1);
    check_eq(answers[0].err, RQ_FULL);
    check(world.submitted == NULL);
    world.full = false;
    rq_database_caught_up(world.db);
    settle();
    check(!says_that_it_is_full());
    commit(transaction(1, 2, 0, 'b'));
    append(RQ_OK);
    give_committed();
    check_eq(answers[1].err, RQ_OK);
    end();
}

static void entry_that_was_not_made_on_the_head_has_no_effect(void)
{
    begin();
    commit(transaction(1, 1, 0, 'a'));
    append(RQ_OK);
    give_committed();
    world.log[world.log_count] = world.log[0]; /* the log holds it twice */
    world.log[world.log_count].index++;
    rq_blob_ref(world.log[world.log_count++].blob);
    give_committed();
    check_eq(info().version, 1);
    check_eq(info().state, RQ_DB_LIVE);
    end();
}

static void questions_are_answered_from_what_was_applied(void)
{
    begin();
    ask(1, 1, 0);
    check_eq(answers[0].err, RQ_NOTFOUND);
    commit(transaction(1, 1, 0, 'a'));
    ask(1, 1, 0); /* in flight: waits */
    check_eq(answer_count, 1);
    append(RQ_OK);
    give_committed();
    check_eq(answer_count, 3);
    check_eq(answers[1].err, RQ_OK);
    check_eq(answers[2].err, RQ_OK);
    ask(2, 1, 0);
    check_eq(answers[3].err, RQ_REFUSED);
    ask(1, 1, 5);
    check_eq(answers[4].err, RQ_PROTOCOL);
    world.ready = false;
    ask(1, 2, 1);
    check_eq(answers[5].err, RQ_UNREADY);
    end();
}

static void lost_leader_is_followed_by_another_attempt(void)
{
    begin();
    commit(transaction(1, 1, 0, 'a'));
    append(RQ_OK);     /* here, in term 0: over by now */
    world.log_count--; /* and cut off */
    rq_blob_unref(world.log[world.log_count].blob);
    role(0, 2);
    check(world.submitted == NULL); /* nobody to ask */
    role(2, 2);
    forwarded(take_submitted(), RQ_OK, 2, true);
    role(2, 2);
    check(world.submitted == NULL); /* it is on its way */
    check_eq(answer_count, 0);
    give_committed();
    check_eq(answer_count, 1);
    check_eq(answers[0].err, RQ_OK);
    check_eq(byte_of_page_2(), 'a');
    end();
}

static void unknown_is_no_outcome_and_is_asked_again(void)
{
    begin();
    commit(transaction(1, 1, 0, 'a'));
    forwarded(take_submitted(), RQ_UNKNOWN, 0, true);
    check_eq(answer_count, 0);
    check(world.submitted == NULL);
    time_passes();
    forwarded(take_submitted(), RQ_AWAY, 0, false); /* this one was not appended, the first may have been */
    check_eq(answer_count, 0);
    time_passes();
    forwarded(take_submitted(), RQ_OK, 1, true); /* now it is in the log twice */
    give_committed();
    check_eq(answer_count, 1);
    check_eq(answers[0].err, RQ_OK);
    check_eq(info().version, 1);
    end();
}

static void unknown_that_never_arrived_is_refused_by_another_in_its_place(void)
{
    begin();
    commit(transaction(2, 9, 0, 'b')); /* of another host, as it comes through the log */
    forwarded(take_submitted(), RQ_UNKNOWN, 0, false);
    commit(transaction(1, 1, 0, 'a'));
    time_passes();
    struct rq_submit *late = take_submitted();
    struct rq_commit *other = transaction(3, 1, 0, 'c');
    struct rq_bytes record;
    const struct rq_txn_head head = {
        .db_id = 7, .page_size = PAGE, .page_count = 2, .base = 0, .version = 1, .origin_count = 1
    };
    rq_bytes_init(&record, 1 << 20);
    check_eq(rq_txn_begin(&record, &head, &other->origin), RQ_OK);
    check_eq(rq_txn_add(&record, 1, NULL, other->pages.data + 4, PAGE), RQ_OK);
    check_eq(rq_txn_add(&record, 2, NULL, other->pages.data + 8 + PAGE, PAGE), RQ_OK);
    check_eq(rq_txn_end(&record, 0), RQ_OK);
    struct rq_blob *blob = rq_blob_new(record.size);
    memcpy(blob->data, record.data, record.size);
    world.log[world.log_count++] = (struct rq_log_entry){ .index = 10, .term = 1, .type = RQ_ENTRY_TXN, .blob = blob };
    rq_bytes_fini(&record);
    rq_commit_free(other);
    give_committed();
    check_eq(answer_count, 2);
    check_eq(answers[0].err, RQ_REFUSED);
    check_eq(answers[1].err, RQ_REFUSED);
    commit(transaction(1, 2, 1, 'd'));
    struct rq_submit *next = take_submitted();
    forwarded(late, RQ_AWAY, 0, false); /* the answer to what was settled long ago is not the next one's */
    check_eq(answer_count, 2);
    forwarded(next, RQ_OK, 1, true);
    give_committed();
    check_eq(answer_count, 3);
    check_eq(answers[2].err, RQ_OK);
    check_eq(byte_of_page_2(), 'd');
    end();
}

static void replay_over_the_file_applies_nothing_twice(void)
{
    begin();
    for (unsigned i = 0; i < 3; i++) {
        commit(transaction(1, i + 1, i, (uint8_t)('a' + i)));
        append(RQ_OK);
        give_committed();
    }
    close_database();
    open_database(0);
    world.given = 0;
    give_committed();
    rq_database_caught_up(world.db);
    settle();
    check_eq(info().version, 3);
    check_eq(info().state, RQ_DB_LIVE);
    check(!info().diverged);
    check_eq(byte_of_page_2(), 'c');
    ask(1, 2, 1);
    check_eq(answers[answer_count - 1].err, RQ_OK);
    check_eq(answers[answer_count - 1].version, 2);
    end();
}

static struct rq_replica_wal wal(void)
{
    struct rq_replica_wal w;
    rq_replica_get_wal(rq_database_hold(world.db), &w);
    rq_database_release(world.db);
    return w;
}

/* Another host makes it. */
static void foreign(uint64_t base, uint32_t page_count, const uint32_t *pgnos, const uint8_t *const *before,
                    const uint8_t *const *after, uint32_t count)
{
    const struct rq_txn_head head = {
        .db_id = 7, .page_size = PAGE, .page_count = page_count, .base = base, .version = base + 1, .origin_count = 1
    };
    struct rq_bytes record;
    rq_bytes_init(&record, 1u << 20);
    check_eq(rq_txn_begin(&record, &head, &(struct rq_origin){ 9, base + 1 }), RQ_OK);
    for (uint32_t i = 0; i < count; i++) {
        check_eq(rq_txn_add(&record, pgnos[i], before[i], after[i], PAGE), RQ_OK);
    }
    check_eq(rq_txn_end(&record, 0), RQ_OK);
    struct rq_blob *blob = rq_blob_new((uint32_t)record.size);
    check(blob != NULL);
    memcpy(blob->data, record.data, record.size);
    rq_bytes_fini(&record);
    world.log[world.log_count] =
        (struct rq_log_entry){ .index = 10 + world.log_count, .term = 1, .type = RQ_ENTRY_TXN, .blob = blob };
    world.log_count++;
}

/* Page 1 of that version, and one other page, from full of `from` (0: it is not there yet) to full of `to`. */
static void foreign_page(uint64_t base, uint32_t page_count_before, uint32_t page_count, uint32_t pgno, uint8_t from,
                         uint8_t to)
{
    uint8_t page1_before[PAGE] = { 0 }, page1[PAGE] = { 0 }, before[PAGE], after[PAGE];
    if (base > 0) {
        page1_head(page1_before, PAGE, base, page_count_before);
    }
    page1_head(page1, PAGE, base + 1, page_count);
    memset(before, from, PAGE);
    memset(after, to, PAGE);
    foreign(base, page_count, (const uint32_t[]){ 1, pgno },
            (const uint8_t *const[]){ base > 0 ? page1_before : NULL, from != 0 ? before : NULL },
            (const uint8_t *const[]){ page1, after }, pgno <= page_count ? 2 : 1);
}

static uint8_t byte_of_page(uint32_t pgno)
{
    uint8_t page[PAGE];
    check_eq(rq_replica_read(rq_database_hold(world.db), pgno, page), RQ_OK);
    rq_database_release(world.db);
    return page[100];
}

static void what_comes_together_becomes_one_transaction_of_the_wal(void)
{
    begin();
    foreign_page(0, 0, 2, 2, 0, 'a');
    give_committed();
    const uint32_t frames = wal().frames;
    foreign_page(1, 2, 2, 2, 'a', 'b');
    foreign_page(2, 2, 4, 4, 0, 'x'); /* page 3 is zero (rule Z) */
    foreign_page(3, 4, 4, 2, 'b', 'c');
    foreign_page(4, 4, 4, 3, 0, 'y');
    give_committed();
    check_eq(info().version, 5);
    check_eq(info().applied_index, 14);
    check_eq(info().file_index, 14);
    check_eq(info().page_count, 4);
    check_eq(info().state, RQ_DB_LIVE);
    check_eq(wal().frames, frames + 4);
    check_eq(byte_of_page(2), 'c');
    check_eq(byte_of_page(3), 'y');
    check_eq(byte_of_page(4), 'x');
    for (uint64_t base = 0; base < 5; base++) {
        ask(9, base + 1, base);
        check_eq(answers[answer_count - 1].err, RQ_OK);
        check_eq(answers[answer_count - 1].version, base + 1);
    }
    close_database();
    open_database(0);
    world.given = 0;
    give_committed();
    rq_database_caught_up(world.db);
    settle();
    check_eq(info().version, 5);
    check(!info().diverged);
    check_eq(info().state, RQ_DB_LIVE);
    end();
}

/* What its descriptor would say when the task runs. */
struct description {
    struct rq_task task;
    enum rq_err err; /* OK: the log may be released */
    uint64_t version;
};

static void run_describe(struct rq_task *task)
{
    struct rq_database_known known = { 0 };
    struct description *d = (struct description *)task;
    d->err = rq_database_describe(world.db, &known);
    d->version = known.version;
    rq_origins_fini(&known.origins);
}

static enum rq_err describe(void)
{
    struct description d = { .task = { .run = run_describe }, .err = RQ_UNKNOWN };
    rq_strand_post(rq_database_strand(world.db), &d.task, RQ_HAND_OVER);
    settle();
    return d.err;
}

static void what_is_posted_between_entries_runs_between_them(void)
{
    begin();
    foreign_page(0, 0, 2, 2, 0, 'a');
    foreign_page(1, 2, 2, 2, 'a', 'b');
    foreign_page(2, 2, 2, 2, 'b', 'c');
    struct description d = { .task = { .run = run_describe } };
    while (world.given < world.log_count) {
        if (world.given == 2) {
            rq_database_post(world.db, &d.task, RQ_HAND_OVER);
        }
        rq_database_committed(world.db, &world.log[world.given++]);
    }
    settle();
    check_eq(d.err, RQ_OK);
    check_eq(d.version, 2);
    check_eq(info().version, 3);
    check_eq(byte_of_page(2), 'c');
    end();
}

/* --- a WAL that is begun anew meanwhile */

static struct rq_disk_ops slow_ops; /* of a disk that is slow to write for a thread that resets */
static struct rq_disk slow_disk = { &slow_ops };
static _Thread_local bool resets;
static sem_t begun, given_away;
static unsigned times_given_away;

static void wait_for(sem_t *event)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += DEADLINE_S;
    (void)sem_timedwait(event, &until);
}

static enum rq_err slow_write(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    if (resets) {
        resets = false;
        sem_post(&begun);
        wait_for(&given_away);
    }
    return rq_disk_real()->ops->write(f, data, bytes, offset);
}

static void *reset(void *replica)
{
    resets = true;
    return rq_replica_reset(replica) == RQ_OK ? replica : NULL;
}

/* What this thread is there for besides. */
static void on_duty_left(void *ctx)
{
    (void)ctx;
    times_given_away++;
    sem_post(&given_away);
}

static void on_duty_taken(void *ctx)
{
    (void)ctx;
}

/* The appends of the database are held off while act runs. */
static void while_its_wal_is_begun_anew(void (*act)(void))
{
    const struct rq_duty duty = { on_duty_left, on_duty_taken, NULL };
    struct rq_replica *r = rq_database_hold(world.db);
    pthread_t thread;
    void *was_reset;
    check_eq(sem_init(&begun, 0, 0), 0);
    check_eq(sem_init(&given_away, 0, 0), 0);
    times_given_away = 0;
    check_eq(pthread_create(&thread, NULL, reset, r), 0);
    wait_for(&begun);
    rq_strand_set_duty(&duty);
    act();
    rq_strand_set_duty(NULL);
    pthread_join(thread, &was_reset);
    check(was_reset != NULL);
    rq_database_release(world.db);
}

static void commit_third(void)
{
    commit(transaction(1, 3, 2, 'c'));
}

static void who_waits_for_a_wal_that_begins_anew_gives_away_what_else_he_carries(void)
{
    slow_ops = *rq_disk_real()->ops;
    slow_ops.write = slow_write;
    begin_on(&slow_disk);
    for (uint64_t version = 1; version <= 2; version++) {
        commit(transaction(1, version, version - 1, 'a'));
        append(RQ_OK);
        give_committed();
    }
    while_its_wal_is_begun_anew(commit_third);
    check_eq(times_given_away, 1);
    append(RQ_OK);
    give_committed();
    commit(transaction(1, 4, 3, 'd'));
    append(RQ_OK);
    while_its_wal_is_begun_anew(give_committed);
    check_eq(times_given_away, 1);
    check_eq(info().version, 4);
    check_eq(byte_of_page_2(), 'd');
    end();
}

static void pages_behind_a_shorter_end_are_zero_for_the_next(void)
{
    begin();
    foreign_page(0, 0, 3, 3, 0, 'a');
    give_committed();
    foreign_page(1, 3, 3, 3, 'a', 'b');
    foreign_page(2, 3, 2, 3, 0, 0); /* page 3 goes */
    foreign_page(3, 2, 4, 4, 0, 'c');
    foreign_page(4, 4, 4, 3, 0, 'd');
    foreign_page(5, 4, 4, 3, 'd', 'e');
    give_committed();
    check_eq(info().state, RQ_DB_LIVE);
    check_eq(info().version, 6);
    check_eq(byte_of_page(2), 0);
    check_eq(byte_of_page(3), 'e');
    check_eq(byte_of_page(4), 'c');
    end();
}

static void what_came_before_one_that_does_not_fit_is_applied(void)
{
    begin();
    foreign_page(0, 0, 2, 2, 0, 'a');
    give_committed();
    foreign_page(1, 2, 2, 2, 'a', 'b');
    foreign_page(1, 2, 2, 2, 'a', 'z'); /* not made on the head: has no effect */
    foreign_page(2, 2, 2, 2, 'b', 'c');
    foreign_page(3, 2, 2, 2, '!', 'd'); /* made on other bytes than ours */
    foreign_page(4, 2, 2, 2, 'd', 'e');
    give_committed();
    check_eq(info().version, 5);
    check_eq(info().state, RQ_DB_QUARANTINED);
    check_eq(info().file_index, 13);
    check_eq(byte_of_page(2), 'c');
    check_eq(describe(), RQ_OK); /* the log would not mend it, and is not held */
    end();
}

/* --- with other hosts, of which this one has the turn */

static bool on_alone(void *ctx)
{
    (void)ctx;
    return false;
}

static void on_turn_take(void *ctx, uint32_t db_id, uint64_t attempt)
{
    (void)ctx, (void)db_id;
    world.turn_attempt = attempt;
}

static void on_turn_holds(void *ctx, uint32_t db_id, uint64_t serial)
{
    (void)ctx, (void)db_id, (void)serial;
    world.turn_holds++;
}

static void on_turn_lost(void *ctx, uint32_t db_id, uint64_t serial)
{
    (void)ctx, (void)db_id, (void)serial;
    world.turn_lost++;
}

static void begin_with_turn(void)
{
    static const struct rq_turn_door door = {
        .alone = on_alone, .take = on_turn_take, .holds = on_turn_holds, .lost = on_turn_lost
    };
    begin();
    close_database();
    world.turns = &door;
    open_database(0);
    rq_database_caught_up(world.db);
    rq_database_turn_look(world.db);
    settle();
    rq_database_turn_granted(world.db, world.turn_attempt, 1, 0);
    settle();
    check_eq(world.turn_holds, 1);
}

static void own_transaction_among_those_of_others_is_answered_and_leaves_the_turn_here(void)
{
    begin_with_turn();
    commit(transaction(1, 1, 0, 'a'));
    append(RQ_OK);
    give_committed();
    commit(transaction(1, 2, 1, 'b'));
    append(RQ_OK);
    foreign_page(1, 2, 2, 2, 'a', 'z'); /* not made on the head: has no effect */
    give_committed();
    check_eq(answer_count, 2);
    check_eq(answers[1].err, RQ_OK);
    check_eq(world.turn_lost, 0);
    commit(transaction(1, 3, 2, 'c'));
    append(RQ_OK);
    foreign_page(3, 2, 2, 2, 'c', 'd'); /* others have it by now */
    foreign_page(4, 2, 2, 2, 'd', 'e');
    give_committed();
    check_eq(answer_count, 3);
    check_eq(answers[2].err, RQ_OK);
    check_eq(world.turn_lost, 1);
    check_eq(info().version, 5);
    check_eq(byte_of_page(2), 'e');
    end();
}

static void file_that_holds_more_than_the_log_is_found_out(void)
{
    begin();
    for (unsigned i = 0; i < 2; i++) {
        commit(transaction(1, i + 1, i, 'a'));
        append(RQ_OK);
        give_committed();
    }
    close_database();
    open_database(0);
    world.given = 1; /* the log has lost its last entry */
    rq_database_committed(world.db, &world.log[0]);
    rq_database_caught_up(world.db);
    settle();
    check(info().diverged);
    check_eq(info().state, RQ_DB_QUARANTINED);
    end();
}

static void log_of_another_term_is_found_out(void)
{
    begin();
    commit(transaction(1, 1, 0, 'a'));
    append(RQ_OK);
    give_committed();
    close_database();
    open_database(0);
    world.log[0].term = 9;
    world.given = 0;
    give_committed();
    rq_database_caught_up(world.db);
    settle();
    check(info().diverged);
    end();
}

static void removed_file_is_quarantined_and_never_made_anew(void)
{
    char path[100];
    begin();
    commit(transaction(1, 1, 0, 'a'));
    append(RQ_OK);
    give_committed();
    close_database();
    (void)snprintf(path, sizeof path, "%s/app.db", world.dir);
    check_eq(unlink(path), 0);
    open_database(1); /* a descriptor says that there was a commit */
    rq_database_caught_up(world.db);
    settle();
    check_eq(info().state, RQ_DB_QUARANTINED);
    commit(transaction(1, 2, 1, 'b'));
    check_eq(answers[answer_count - 1].err, RQ_QUARANTINED);
    check(access(path, F_OK) != 0);
    end();
}

static void on_dropped(void *ctx)
{
    (void)ctx;
    world.dropped++;
}

static void drop_answers_who_waits_and_moves_the_files(void)
{
    char path[100];
    begin();
    commit(transaction(1, 1, 0, 'a'));
    append(RQ_OK);
    give_committed();
    commit(transaction(1, 2, 1, 'b'));
    commit(transaction(2, 1, 1, 'c'));
    append(RQ_OK);
    rq_database_drop(world.db, on_dropped, NULL);
    settle();
    check_eq(world.dropped, 1);
    check_eq(answer_count, 3);
    check_eq(answers[1].err, RQ_REFUSED);
    check_eq(answers[2].err, RQ_NOTFOUND);
    give_committed(); /* its entry comes behind the drop */
    (void)snprintf(path, sizeof path, "%s/app.db", world.dir);
    check(access(path, F_OK) != 0);
    (void)snprintf(path, sizeof path, "%s/7-app.db", world.trash);
    check(access(path, F_OK) == 0);
    end();
}

static void turn_is_passed_on_before_the_answer(void)
{
    struct rq_control app;
    uint32_t slot;
    char path[100];
    begin();
    (void)snprintf(path, sizeof path, "%s/app.db-rqctl", world.dir);
    check_eq(rq_control_open(rq_disk_real(), path, 1, &app), RQ_OK);
    check_eq(rq_slot_claim(&app, 1, &slot), RQ_OK);
    check_eq(rq_turn_take(&app, slot), RQ_OK);
    commit(transaction(1, 1, 0, 'a'));
    append(RQ_OK);
    check(rq_turn_held(&app, slot));
    give_committed();
    check(!rq_turn_held(&app, slot));
    rq_slot_release(&app, slot);
    rq_control_close(&app);
    end();
}

static void pages_of_the_wrong_shape_are_not_let_in(void)
{
    const char *text;
    uint32_t last = 0;
    begin();
    struct rq_commit *c = transaction(1, 1, 0, 'a');
    uint8_t *page1 = c->pages.data + 4;
#define PUT_IN(expected)                                                                                   \
    do {                                                                                                   \
        last = 0;                                                                                          \
        check_eq(rq_commit_check_pages(c->pages.data, c->pages.size, PAGE, 2, 0, &last, &text), expected); \
    } while (0)
    PUT_IN(RQ_OK);
    check_eq(page1[18], 1);
    page1[0] ^= 1;
    PUT_IN(RQ_CORRUPT);
    page1[0] ^= 1;
    rq_put_u32(page1 + 24, 2);
    PUT_IN(RQ_PROTOCOL);
    rq_put_u32(page1 + 24, 1);
    rq_put_u32(page1 + 28, 3);
    PUT_IN(RQ_CORRUPT);
    rq_put_u32(page1 + 28, 2);
    rq_put_u32(c->pages.data + 4 + PAGE, 3); /* beyond the end */
    PUT_IN(RQ_PROTOCOL);
    rq_put_u32(c->pages.data + 4 + PAGE, 1); /* twice */
    PUT_IN(RQ_PROTOCOL);
    rq_put_u32(c->pages.data + 4 + PAGE, 2);
    memset(page1 + 72, 0xff, 20); /* a stamp is not the application's to say */
    PUT_IN(RQ_OK);
    check_eq(page1[72], 0);
#undef PUT_IN
    last = 0;
    check_eq(rq_commit_check_pages(c->pages.data, c->pages.size, 1000, 2, 0, &last, &text), RQ_PROTOCOL);
    rq_commit_free(c);
    end();
}

/* --- staged bodies ------------------------------------------------------------------------------------------------------ */

/* As session.c does with what is big. */
static void stage(struct rq_commit *c)
{
    const struct rq_body_head head = { c->page_size, c->db_page_count };
    check_eq(rq_staged_new(rq_disk_real(), world.staged, &head, &c->body), RQ_OK);
    check_eq(rq_staged_add(c->body, c->pages.data, c->pages.size), RQ_OK);
    rq_bytes_fini(&c->pages);
}

static void path_of_body(const struct rq_log_entry *e, char path[160])
{
    struct rq_entry_staged staged;
    check_eq(rq_entry_get_staged(e->blob->data, e->blob->bytes, &staged), RQ_OK);
    int bytes = snprintf(path, 160, "%s/", world.staged);
    for (unsigned i = 0; i < RQ_BODY_HASH_BYTES; i++) {
        bytes += snprintf(path + bytes, 160 - (size_t)bytes, "%02x", staged.hash[i]);
    }
}

/* What is damaged only shows when all pages have been taken: the last byte of the last one. */
static void damage(const struct rq_log_entry *e)
{
    char path[160], byte = 'x';
    struct stat st;
    path_of_body(e, path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    check(fd >= 0);
    check_eq(fstat(fd, &st), 0);
    check_eq(pwrite(fd, &byte, 1, st.st_size - RQ_BODY_TAIL_BYTES - 1), 1);
    check_eq(close(fd), 0);
}

static void staged_body_that_was_damaged_publishes_nothing(void)
{
    begin();
    commit(transaction(1, 1, 0, 'a'));
    append(RQ_OK);
    give_committed();
    struct rq_commit *c = transaction(1, 2, 1, 'b');
    stage(c);
    commit(c);
    append(RQ_OK);
    damage(&world.log[1]);
    give_committed();
    check_eq(info().state, RQ_DB_QUARANTINED);
    check(strcmp(info().message,
                 "the staged body of transaction 2 (log entry 11) cannot be used: "
                 "bytes on disk are not what was written there") == 0);
    check_eq(byte_of_page_2(), 'a');
    struct rq_replica_state state;
    struct rq_replica_wal wal;
    struct rq_replica *r = rq_database_hold(world.db);
    rq_replica_get_state(r, &state);
    rq_replica_get_wal(r, &wal);
    rq_database_release(world.db);
    check_eq(state.version, 1);
    check_eq(wal.frames, 0);

    close_database(); /* nor does a restart find anything of it */
    char path[96];
    (void)snprintf(path, sizeof path, "%s/app.db", world.dir);
    check_eq(rq_replica_peek(rq_disk_real(), path, &state), RQ_OK);
    check_eq(state.version, 1);
    open_database(0);
    world.given = 0;
    give_committed();
    check_eq(info().state, RQ_DB_QUARANTINED);
    check_eq(byte_of_page_2(), 'a');
    end();
}

static void staged_first_commit_that_was_damaged_makes_no_file(void)
{
    begin();
    struct rq_commit *c = transaction(1, 1, 0, 'a');
    char path[160];
    stage(c);
    commit(c);
    append(RQ_OK);
    damage(&world.log[0]);
    give_committed();
    check_eq(info().state, RQ_DB_QUARANTINED);
    (void)snprintf(path, sizeof path, "%s/app.db", world.dir);
    check(access(path, F_OK) != 0);
    end();
}

static void staged_body_that_is_gone_is_said(void)
{
    begin();
    struct rq_commit *c = transaction(1, 1, 0, 'a');
    char path[160];
    stage(c);
    commit(c);
    append(RQ_OK);
    path_of_body(&world.log[0], path);
    check_eq(unlink(path), 0);
    give_committed();
    check_eq(info().state, RQ_DB_QUARANTINED);
    check(strcmp(info().message, "the staged body of transaction 1 (log entry 10) cannot be used: no such thing") == 0);
    end();
}

/* --- bodies between nodes -------------------------------------------------------------------------------------------------- */

static bool on_is_alone(void *ctx)
{
    (void)ctx;
    return false;
}

static enum rq_err on_bring(void *ctx, const struct rq_entry_staged *staged, struct rq_file *file,
                            void (*done)(void *ctx), void *done_ctx, struct rq_carriage **ret_carriage)
{
    (void)ctx, (void)staged;
    if (file != NULL) {
        rq_disk_real()->ops->close(file);
    }
    world.brought = done;
    world.brought_ctx = done_ctx;
    world.carriage = RQ_CARRIAGE_WAITS;
    world.brings++;
    *ret_carriage = (struct rq_carriage *)&world;
    return RQ_OK;
}

static void on_fetch(void *ctx, const struct rq_entry_staged *staged, void (*done)(void *ctx, enum rq_err err),
                     void *done_ctx)
{
    (void)ctx, (void)staged;
    world.fetched = done;
    world.fetched_ctx = done_ctx;
}

static enum rq_carriage_state on_carriage_state(struct rq_carriage *c)
{
    (void)c;
    return world.carriage;
}

static void on_holders(void *ctx, struct rq_carriage *c, struct rq_instances *ret_holders)
{
    (void)ctx;
    *ret_holders = (struct rq_instances){ 2, { 1, c == NULL ? 1 : 2 } };
}

static void on_leave(struct rq_carriage *c)
{
    (void)c;
    world.leaves++;
}

static const struct rq_carrier others = {
    .is_alone = on_is_alone,
    .bring = on_bring,
    .fetch = on_fetch,
    .state = on_carriage_state,
    .holders = on_holders,
    .leave = on_leave,
};

static void begin_among_others(void)
{
    begin();
    close_database();
    world.carrier = &others;
    open_database(0);
    rq_database_caught_up(world.db);
    settle();
}

static void commit_staged(uint64_t base, uint8_t fill)
{
    struct rq_commit *c = transaction(1, base + 1, base, fill);
    stage(c);
    commit(c);
}

static void majority_has_it(void)
{
    world.carriage = RQ_CARRIAGE_DONE;
    world.brought(world.brought_ctx);
    settle();
    time_passes(); /* the look that was due anyway */
}

static void entry_is_not_proposed_before_others_have_its_body(void)
{
    begin_among_others();
    commit_staged(0, 'a');
    check(world.submitted == NULL && world.brings == 1 && world.later != NULL);
    majority_has_it();
    append(RQ_OK);
    give_committed();
    check_eq(answer_count, 1);
    check_eq(answers[0].err, RQ_OK);
    check_eq(world.leaves, 1);
    check_eq(byte_of_page_2(), 'a');
    /* Also when the one before was appended here, and needed no answer. */
    commit_staged(1, 'b');
    check(world.submitted == NULL);
    majority_has_it();
    append(RQ_OK);
    give_committed();
    check_eq(answer_count, 2);
    check_eq(answers[1].err, RQ_OK);
    check_eq(world.leaves, 2);
    end();
}

/* The voters have become others before the entry was proposed, or before it was appended. */
static void body_is_brought_again_when_others_vote(void)
{
    begin_among_others();
    commit_staged(0, 'a');
    world.carriage = RQ_CARRIAGE_PAST;
    world.brought(world.brought_ctx);
    settle();
    check(world.submitted == NULL && world.brings == 2 && world.leaves == 1);
    majority_has_it();
    check(world.submitted != NULL && world.submitted->holders.count == 2 && world.submitted->holders.list[1] == 2);
    append(RQ_BUSY); /* the leader knows of other voters */
    world.carriage = RQ_CARRIAGE_PAST;
    time_passes();
    check(world.submitted == NULL && world.brings == 3);
    majority_has_it();
    append(RQ_OK);
    give_committed();
    check_eq(answer_count, 1);
    check_eq(answers[0].err, RQ_OK);
    end();
}

static void missing_body_is_waited_for(void)
{
    begin_among_others();
    commit_staged(0, 'a');
    majority_has_it();
    append(RQ_OK);
    char path[160], aside[170];
    path_of_body(&world.log[0], path);
    (void)snprintf(aside, sizeof aside, "%s-aside", path);
    check_eq(rename(path, aside), 0);
    give_committed();
    check(world.fetched != NULL && rq_database_waits(world.db));
    check_eq(answer_count, 0);
    check_eq(info().state, RQ_DB_EMPTY);
    rq_database_sweep(world.db); /* whatever else there is waits, too */
    settle();
    check_eq(rename(aside, path), 0);
    world.fetched(world.fetched_ctx, RQ_OK);
    settle();
    check(!rq_database_waits(world.db));
    check_eq(answer_count, 1);
    check_eq(answers[0].err, RQ_OK);
    check_eq(byte_of_page_2(), 'a');
    end();
}

static void damaged_body_is_fetched_again(void)
{
    begin_among_others();
    commit_staged(0, 'a');
    majority_has_it();
    append(RQ_OK);
    char path[160], aside[170];
    path_of_body(&world.log[0], path);
    (void)snprintf(aside, sizeof aside, "%s-aside", path);
    check(scratch_copy(path, aside));
    damage(&world.log[0]);
    give_committed();
    check(world.fetched != NULL && access(path, F_OK) != 0);
    check_eq(rename(aside, path), 0);
    world.fetched(world.fetched_ctx, RQ_OK);
    settle();
    check_eq(info().state, RQ_DB_LIVE);
    check_eq(answers[0].err, RQ_OK);
    check_eq(info().version, 1);
    check_eq(byte_of_page_2(), 'a');
    end();
}

static void body_that_nobody_has_is_said_and_holds_the_log(void)
{
    begin_among_others();
    commit_staged(0, 'a');
    majority_has_it();
    append(RQ_OK);
    char path[160];
    path_of_body(&world.log[0], path);
    check_eq(unlink(path), 0);
    check_eq(describe(), RQ_OK);
    give_committed();
    world.fetched(world.fetched_ctx, RQ_NOTFOUND);
    settle();
    check_eq(info().state, RQ_DB_QUARANTINED);
    check(strcmp(info().message, "the staged body of transaction 1 (log entry 10) cannot be used: no such thing") == 0);
    check_eq(describe(), RQ_BUSY);
    end();
}

static unsigned file_count; /* in staged/ */

static enum rq_err count_file(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    file_count++;
    return RQ_OK;
}

static void next_body_is_written_over_the_last_one(void)
{
    begin();
    struct rq_disk *disk = rq_disk_real();
    for (unsigned i = 0; i < 4; i++) {
        struct rq_commit *c = transaction(1, i + 1, i, (uint8_t)('a' + i));
        if (i == 1) { /* a smaller one than the spare */
            rq_put_u32(c->pages.data + 4 + 28, 1);
            c->pages.size = 4 + PAGE;
            c->db_page_count = 1;
        }
        stage(c);
        commit(c);
        append(RQ_OK);
        give_committed();
        check_eq(info().state, RQ_DB_LIVE);
        check_eq(info().version, i + 1);
        struct rq_entry_staged staged;
        struct stat st;
        char path[160];
        path_of_body(&world.log[i], path);
        check_eq(rq_entry_get_staged(world.log[i].blob->data, world.log[i].blob->bytes, &staged), RQ_OK);
        check_eq(stat(path, &st), 0);
        check_eq((uint64_t)st.st_size, staged.body_bytes);
        check_eq(rq_staged_delete(disk, world.staged, staged.hash), RQ_OK);
        file_count = 0;
        check_eq(disk->ops->list(disk, world.staged, count_file, NULL), RQ_OK);
        check_eq(file_count, 1);
    }
    check_eq(byte_of_page_2(), 'd');
    check_eq(rq_staged_drop_spare(disk, world.staged, 3600000), RQ_OK); /* was just used */
    file_count = 0;
    check_eq(disk->ops->list(disk, world.staged, count_file, NULL), RQ_OK);
    check_eq(file_count, 1);
    check_eq(rq_staged_drop_spare(disk, world.staged, 0), RQ_OK);
    file_count = 0;
    check_eq(disk->ops->list(disk, world.staged, count_file, NULL), RQ_OK);
    check_eq(file_count, 0);
    check_eq(rq_staged_drop_spare(disk, world.staged, 0), RQ_OK); /* there is none */
    end();
}

static void origins_keep_the_newest_and_guess_nothing(void)
{
    struct rq_origins o;
    struct rq_origin origin;
    rq_origins_init(&o, 5);
    for (uint64_t base = 5; base < 5 + RQ_ORIGINS_MAX + 100; base++) {
        check_eq(rq_origins_put(&o, (struct rq_origin){ base, base * 2 }), RQ_OK);
    }
    check(!rq_origins_find(&o, 104, &origin));
    check(!rq_origins_find(&o, 5 + RQ_ORIGINS_MAX + 100, &origin));
    for (uint64_t base = 105; base < 5 + RQ_ORIGINS_MAX + 100; base++) {
        check(rq_origins_find(&o, base, &origin));
        check_eq(origin.session, base);
        check_eq(origin.seq, base * 2);
    }
    rq_origins_fini(&o);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(answer_comes_with_the_committed_entry_not_before),
        TAP(second_on_the_same_base_waits_and_is_refused_by_what_was_applied),
        TAP(what_was_not_appended_is_told_and_the_next_one_goes),
        TAP(without_room_for_what_others_commit_nothing_is_taken),
        TAP(entry_that_was_not_made_on_the_head_has_no_effect),
        TAP(questions_are_answered_from_what_was_applied),
        TAP(lost_leader_is_followed_by_another_attempt),
        TAP(unknown_is_no_outcome_and_is_asked_again),
        TAP(unknown_that_never_arrived_is_refused_by_another_in_its_place),
        TAP(replay_over_the_file_applies_nothing_twice),
        TAP(what_comes_together_becomes_one_transaction_of_the_wal),
        TAP(what_is_posted_between_entries_runs_between_them),
        TAP(who_waits_for_a_wal_that_begins_anew_gives_away_what_else_he_carries),
        TAP(pages_behind_a_shorter_end_are_zero_for_the_next),
        TAP(what_came_before_one_that_does_not_fit_is_applied),
        TAP(own_transaction_among_those_of_others_is_answered_and_leaves_the_turn_here),
        TAP(file_that_holds_more_than_the_log_is_found_out),
        TAP(log_of_another_term_is_found_out),
        TAP(removed_file_is_quarantined_and_never_made_anew),
        TAP(drop_answers_who_waits_and_moves_the_files),
        TAP(turn_is_passed_on_before_the_answer),
        TAP(pages_of_the_wrong_shape_are_not_let_in),
        TAP(staged_body_that_was_damaged_publishes_nothing),
        TAP(staged_first_commit_that_was_damaged_makes_no_file),
        TAP(staged_body_that_is_gone_is_said),
        TAP(entry_is_not_proposed_before_others_have_its_body),
        TAP(body_is_brought_again_when_others_vote),
        TAP(missing_body_is_waited_for),
        TAP(damaged_body_is_fetched_again),
        TAP(body_that_nobody_has_is_said_and_holds_the_log),
        TAP(next_body_is_written_over_the_last_one),
        TAP(origins_keep_the_newest_and_guess_nothing),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
