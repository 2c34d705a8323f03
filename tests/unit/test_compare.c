/* compare: which pages are compared when, who is asked, and what follows from what they say.  The others, the log and the clock are this
 * test's; the thread runs here, until there is nothing left for it to do. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/compare.h"
#include "raftd/cluster/voice.h"
#include "raftd/db/catalog.h"
#include "raftd/db/identity.h"
#include "tests/support/tap.h"

enum { SELF, A, B, C, END, PAGES_MAX = 20000, PROPOSED_MAX = 64, EVERY_MS = 5000, START_MS = 1000000, LOOK_MS = 200 };

struct rq_database {
    uint32_t id, pages, page_size;
    char quarantined[RQ_DB_TEXT_BYTES]; /* why */
};

static struct {
    uint64_t now_ms, end_ms; /* the thread runs until then */
    void *(*thread)(void *arg);
    void *arg;
    jmp_buf ended;

    bool leads, ready, alone;
    unsigned members; /* the first of SELF, A, ... */
    bool is_no_voter[END];
    enum rq_err err[END];                     /* to a question; OK: it answers */
    uint64_t ready_ms[END];                   /* before it is UNREADY */
    uint32_t too_many[END];                   /* hashes in its answer */
    uint32_t wrong_page[END], wrong_too[END]; /* in every database; 0: none */
    unsigned asked[END];
    bool all_differ; /* in the wrong page: each wrong one has another content */
    enum rq_err own; /* of rq_marks_compare() */

    struct rq_database *databases;
    unsigned database_count;

    bool comes; /* a proposed MARK entry */
    uint64_t index, nonce;
    struct rq_entry_mark proposed[PROPOSED_MAX];
    uint64_t proposed_ms[PROPOSED_MAX];
    unsigned proposed_count;
    uint64_t compared[PROPOSED_MAX]; /* indexes */
    unsigned compared_count;
} world;

static struct rq_cluster cluster;
static struct rq_compare *compare;

/* --- the thread, and its time --------------------------------------------------------------------------------------------- */

int clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    *t = (struct timespec){ (time_t)(world.now_ms / 1000), (long)(world.now_ms % 1000) * 1000000 };
    return 0;
}

int nanosleep(const struct timespec *wait, struct timespec *left)
{
    (void)left;
    world.now_ms += (uint64_t)wait->tv_nsec / 1000000u;
    return 0;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *arg), void *arg)
{
    (void)attr;
    *thread = pthread_self();
    world.thread = run;
    world.arg = arg;
    return 0;
}

int pthread_detach(pthread_t thread)
{
    (void)thread;
    return 0;
}

/* It waits only when there is nothing to look at. */
int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until)
{
    (void)cond;
    const uint64_t until_ms = (uint64_t)until->tv_sec * 1000u + (uint64_t)until->tv_nsec / 1000000u;
    if (world.now_ms >= world.end_ms) {
        pthread_mutex_unlock(mutex);
        longjmp(world.ended, 1);
    }
    check_eq(until_ms, world.now_ms + LOOK_MS);
    world.now_ms = until_ms;
    return ETIMEDOUT;
}

/* Until there is nothing to do, and that long. */
static void run(uint64_t ms)
{
    world.end_ms = world.now_ms + ms;
    if (setjmp(world.ended) == 0) {
        world.thread(world.arg);
    }
}

/* --- this node ------------------------------------------------------------------------------------------------------------- */

struct rq_driver_view rq_driver_view(const struct rq_driver *d)
{
    (void)d;
    return (struct rq_driver_view){ .leads = world.leads };
}

bool rq_catalog_ready(const struct rq_catalog *c)
{
    (void)c;
    return world.ready;
}

bool rq_cluster_is_alone(struct rq_cluster *c)
{
    (void)c;
    return world.alone;
}

uint64_t rq_random_id(void)
{
    return ++world.nonce;
}

enum rq_err rq_catalog_list(struct rq_catalog *c, struct rq_database ***ret_list, size_t *ret_count)
{
    (void)c;
    *ret_list = calloc(world.database_count + 1, sizeof **ret_list);
    *ret_count = world.database_count;
    for (unsigned i = 0; i < world.database_count; i++) {
        (*ret_list)[i] = &world.databases[i];
    }
    return *ret_list == NULL ? RQ_NOMEM : RQ_OK;
}

struct rq_database *rq_catalog_find_id(struct rq_catalog *c, uint32_t id)
{
    (void)c;
    for (unsigned i = 0; i < world.database_count; i++) {
        if (world.databases[i].id == id) {
            return &world.databases[i];
        }
    }
    return NULL;
}

uint32_t rq_database_id(const struct rq_database *db)
{
    return db->id;
}

const char *rq_database_name(const struct rq_database *db)
{
    (void)db;
    return "app.db";
}

void rq_database_info(struct rq_database *db, struct rq_database_info *ret_info)
{
    *ret_info = (struct rq_database_info){ .id = db->id, .page_count = db->pages, .page_size = db->page_size };
}

void rq_database_unref(struct rq_database *db)
{
    (void)db;
}

void rq_database_quarantine(struct rq_database *db, const char *text)
{
    (void)snprintf(db->quarantined, sizeof db->quarantined, "%s", text);
}

static void applied(const struct rq_entry_mark *mark)
{
    rq_compare_marked(compare, mark, ++world.index);
}

void rq_catalog_mark(struct rq_catalog *c, const struct rq_entry_mark *mark, struct rq_request *r)
{
    (void)c;
    check(world.proposed_count < PROPOSED_MAX);
    world.proposed_ms[world.proposed_count] = world.now_ms;
    world.proposed[world.proposed_count++] = *mark;
    if (world.comes) {
        applied(mark);
    }
    r->done(r, world.comes ? RQ_OK : RQ_AWAY, NULL);
}

/* --- pages ------------------------------------------------------------------------------------------------------------------ */

/* As many as there are; right ones are their number. */
static uint32_t hashes_of(unsigned who, const struct rq_entry_mark *mark, uint64_t *hashes)
{
    const struct rq_database *db = rq_catalog_find_id(NULL, mark->db_id);
    const uint32_t pages = db != NULL ? db->pages : 0;
    uint32_t count = 0;
    for (; count < mark->count && mark->first + count <= pages; count++) {
        const uint32_t page = mark->first + count;
        const bool is_wrong = page == world.wrong_page[who] || page == world.wrong_too[who];
        hashes[count] = page + (is_wrong ? 1000000u * (world.all_differ ? who + 1 : 1) : 0);
    }
    return count;
}

enum rq_err rq_marks_compare(struct rq_marks *m, const struct rq_entry_mark *mark, uint64_t index,
                             uint64_t ret_hashes[RQ_MARK_PAGES_MAX], uint32_t *ret_count)
{
    (void)m;
    check(world.compared_count < PROPOSED_MAX);
    world.compared[world.compared_count++] = index;
    *ret_count = hashes_of(SELF, mark, ret_hashes);
    return world.own;
}

unsigned rq_voices(struct rq_cluster *c, struct rq_voice list[RQ_VOICES_MAX], unsigned *ret_voters,
                   bool *ret_self_votes)
{
    (void)c;
    unsigned count = 0;
    *ret_voters = 0;
    *ret_self_votes = !world.is_no_voter[SELF];
    for (unsigned i = SELF; i < world.members; i++) {
        *ret_voters += !world.is_no_voter[i];
        if (i != SELF && !world.is_no_voter[i]) {
            list[count++] = (struct rq_voice){ i, true };
        }
    }
    return count;
}

enum rq_err rq_voice_ask(struct rq_cluster *c, uint64_t instance, const struct rq_ask *ask, unsigned timeout_ms,
                         struct rq_bytes *ret_answer)
{
    static uint64_t hashes[RQ_MARK_PAGES_MAX + 1];
    (void)c, (void)timeout_ms;
    check_eq(ask->kind, RQ_ASK_HASHES);
    check_eq(ask->mark.index, world.compared[world.compared_count - 1]);
    world.asked[instance]++;
    if (world.now_ms < world.ready_ms[instance]) {
        return RQ_UNREADY;
    }
    const struct rq_entry_mark mark = { .db_id = ask->mark.db_id, .first = ask->mark.first, .count = ask->mark.count };
    const uint32_t count = hashes_of((unsigned)instance, &mark, hashes);
    ret_answer->size = 0;
    check_eq(rq_ask_put_hashes(ret_answer, hashes, count + world.too_many[instance]), RQ_OK);
    return world.err[instance];
}

/* --- the beginning of each test --------------------------------------------------------------------------------------------- */

static struct rq_database databases[] = { { .id = 30, .pages = 3, .page_size = 4096 },
                                          { .id = 9, .pages = 9000, .page_size = 4096 },
                                          { .id = 12, .pages = 0, .page_size = 0 } };

/* Three voters that all have the right pages. */
static void begin(uint64_t every_ms)
{
    memset(&world, 0, sizeof world);
    world.now_ms = START_MS;
    world.members = 3;
    world.leads = world.ready = world.comes = true;
    world.databases = databases;
    world.database_count = 3;
    world.nonce = 70;
    cluster = (struct rq_cluster){ 0 };
    rq_doubts_init(&cluster.doubts);
    atomic_store(&cluster.driver, (struct rq_driver *)&world);
    for (unsigned i = 0; i < 3; i++) {
        databases[i].quarantined[0] = '\0';
    }
    check_eq(rq_compare_new(&cluster, every_ms, &compare), RQ_OK);
}

static struct rq_compare_stats stats(void)
{
    struct rq_compare_stats s;
    rq_compare_stats(compare, &s);
    return s;
}

static void is_proposed(unsigned i, uint32_t id, uint32_t first, uint32_t count)
{
    check(i < world.proposed_count);
    check_eq(world.proposed[i].db_id, id);
    check_eq(world.proposed[i].first, first);
    check_eq(world.proposed[i].count, count);
}

/* Without a pass: what the leader of another host has marked. */
static void begin_following(void)
{
    begin(EVERY_MS);
    world.leads = false;
}

static const char *why(uint32_t id)
{
    const struct rq_database *db = rq_catalog_find_id(NULL, id);
    return db != NULL ? db->quarantined : "";
}

/* --- claims: passes --------------------------------------------------------------------------------------------------------- */

static void a_pass_goes_through_all_pages_once(void)
{
    begin(EVERY_MS);
    run(EVERY_MS - LOOK_MS);
    check_eq(world.proposed_count, 0);
    run(LOOK_MS);
    check_eq(world.proposed_count, 4);
    is_proposed(0, 9, 1, 4096); /* 16 MB */
    is_proposed(1, 9, 4097, 4096);
    is_proposed(2, 9, 8193, 9000 - 8192);
    is_proposed(3, 30, 1, 3); /* 12 has no pages */
    check_eq(world.compared_count, 4);
    check(stats().passes == 1 && stats().compared == 9003 && stats().wrong == 0 && stats().undecided == 0);
    run(EVERY_MS - LOOK_MS);
    check_eq(world.proposed_count, 4);
    run(LOOK_MS);
    check(world.proposed_count == 8 && stats().passes == 2);
}

static void a_slice_of_small_pages_is_what_a_mark_can_name(void)
{
    begin(EVERY_MS);
    databases[1].page_size = 512;
    run(EVERY_MS);
    databases[1].page_size = 4096;
    is_proposed(0, 9, 1, RQ_MARK_PAGES_MAX);
    is_proposed(1, 9, RQ_MARK_PAGES_MAX + 1, 9000 - RQ_MARK_PAGES_MAX);
}

static void the_first_pass_does_not_wait_for_a_day(void)
{
    begin(24u * 3600 * 1000);
    run(60000 - LOOK_MS);
    check_eq(world.proposed_count, 0);
    run(LOOK_MS);
    check_eq(world.proposed_count, 4);
    run(3600 * 1000);
    check_eq(world.proposed_count, 4);
}

static void nobody_else_begins_a_pass(void)
{
    begin_following();
    run(3 * EVERY_MS);
    world.leads = true;
    world.alone = true;
    run(EVERY_MS);
    world.alone = false;
    world.ready = false;
    run(EVERY_MS);
    world.ready = true;
    atomic_store(&cluster.driver, NULL);
    run(EVERY_MS);
    check_eq(world.proposed_count, 0);
    begin(0);
    run(120000);
    check_eq(world.proposed_count, 0);
}

static void without_databases_the_next_pass_is_tried_in_its_time(void)
{
    begin(EVERY_MS);
    world.database_count = 0;
    run(EVERY_MS + LOOK_MS);
    world.database_count = 3;
    run(EVERY_MS - 2 * LOOK_MS);
    check_eq(world.proposed_count, 0);
    run(LOOK_MS);
    check_eq(world.proposed_count, 4);
}

static void a_pass_whose_databases_are_gone_is_over(void)
{
    begin_following();
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 1, .first = 1, .count = 4096 });
    run(0);
    world.leads = true;
    world.database_count = 0;
    run(LOOK_MS);
    world.database_count = 3;
    run(EVERY_MS - LOOK_MS);
    check_eq(world.proposed_count, 0);
    run(LOOK_MS);
    is_proposed(0, 9, 1, 4096);
}

static void a_mark_that_is_lost_is_asked_for_again(void)
{
    begin(EVERY_MS);
    world.comes = false;
    run(EVERY_MS + 10000 - LOOK_MS);
    check_eq(world.proposed_count, 1);
    run(LOOK_MS);
    check_eq(world.proposed_count, 2);
    is_proposed(1, 9, 1, 4096);
    check(world.proposed[0].nonce != world.proposed[1].nonce);
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 1, .first = 1, .count = 4096 }); /* of another leader */
    run(LOOK_MS);
    check_eq(world.proposed_count, 2);
    world.comes = true;
    applied(&world.proposed[1]);
    run(LOOK_MS);
    check_eq(world.proposed_count, 5);
    is_proposed(2, 9, 4097, 4096);
}

static void the_next_leader_goes_on_where_the_last_one_was(void)
{
    begin_following();
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 1, .first = 4097, .count = 4096 });
    run(LOOK_MS);
    world.leads = true;
    run(LOOK_MS);
    check_eq(world.proposed_count, 2);
    is_proposed(0, 9, 8193, 9000 - 8192);
    is_proposed(1, 30, 1, 3);
    check_eq(stats().passes, 1);
}

static void the_end_of_a_pass_is_everybodys(void)
{
    begin_following();
    applied(&(struct rq_entry_mark){ .db_id = 30, .nonce = 1, .first = 1, .count = 3 });
    run(LOOK_MS);
    check_eq(stats().passes, 1);
    world.leads = true;
    run(EVERY_MS - 2 * LOOK_MS);
    check_eq(world.proposed_count, 0);
    run(LOOK_MS);
    check_eq(world.proposed_count, 4);
}

static void marks_are_looked_at_in_their_order_and_the_oldest_are_let_go(void)
{
    begin_following();
    for (uint32_t i = 0; i < 10; i++) {
        applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 100 + i, .first = 1 + i, .count = 2 });
    }
    run(0);
    check_eq(world.compared_count, 8);
    for (unsigned i = 0; i < 8; i++) {
        check_eq(world.compared[i], 3 + i);
    }
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 200, .first = 1, .count = 2 });
    run(0);
    check(world.compared_count == 9 && world.compared[8] == 11);
}

/* --- claims: verdicts ------------------------------------------------------------------------------------------------------- */

static void compare_slice(void)
{
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 1, .first = 101, .count = 50 });
    run(0);
}

static void who_is_wrong_fences_his_own_database(void)
{
    begin_following();
    world.wrong_page[SELF] = 120;
    compare_slice();
    check(strstr(why(9), "not what a majority of the hosts holds at log entry 1: page 120") != NULL);
    check(strstr(why(9), "more") == NULL);
    check(why(30)[0] == '\0');
    check(stats().wrong == 1 && stats().undecided == 0 && stats().compared == 50);
    begin_following();
    world.wrong_page[SELF] = 120;
    world.wrong_too[SELF] = 150;
    compare_slice();
    check(strstr(why(9), "page 120 and 1 more") != NULL);
    check_eq(stats().wrong, 2);
}

static void who_is_right_fences_nobody(void)
{
    begin_following();
    world.wrong_page[B] = 120;
    compare_slice();
    check(why(9)[0] == '\0' && stats().wrong == 0 && stats().undecided == 0);
}

static void without_a_majority_nothing_is_changed(void)
{
    begin_following();
    world.all_differ = true;
    world.wrong_page[SELF] = world.wrong_page[B] = 120;
    compare_slice();
    check(why(9)[0] == '\0' && stats().wrong == 0 && stats().undecided == 1);
    begin_following(); /* one that is away is on nobody's side */
    world.wrong_page[SELF] = 120;
    world.err[B] = RQ_AWAY;
    compare_slice();
    check(why(9)[0] == '\0' && stats().undecided == 1 && stats().compared == 50);
    begin_following(); /* nor does this one count, if it has no vote */
    world.is_no_voter[SELF] = true;
    world.members = 4;
    world.wrong_page[A] = world.wrong_page[SELF] = 120;
    world.err[C] = RQ_QUARANTINED;
    compare_slice();
    check(why(9)[0] == '\0' && stats().undecided == 1);
}

static void who_hears_no_majority_has_compared_nothing(void)
{
    begin_following();
    world.err[A] = world.err[B] = RQ_AWAY;
    compare_slice();
    check(world.asked[A] == 1 && world.asked[B] == 1);
    check_eq(stats().compared, 0);
}

static void who_is_late_is_waited_for(void)
{
    begin_following();
    world.wrong_page[SELF] = 120;
    world.ready_ms[B] = START_MS + 19000;
    compare_slice();
    check(why(9)[0] != '\0' && world.now_ms == START_MS + 19000);
    begin_following();
    world.wrong_page[SELF] = 120;
    world.ready_ms[B] = UINT64_MAX;
    compare_slice();
    check(why(9)[0] == '\0' && world.now_ms == START_MS + 20000);
}

static void more_hashes_than_were_asked_for_say_nothing(void)
{
    begin_following();
    world.wrong_page[SELF] = 120;
    world.too_many[B] = 1;
    compare_slice();
    check(why(9)[0] == '\0' && stats().undecided == 1);
}

static void who_is_fenced_or_alone_asks_nobody(void)
{
    begin_following();
    world.own = RQ_QUARANTINED;
    world.wrong_page[SELF] = 120;
    compare_slice();
    check(world.asked[A] == 0 && why(9)[0] == '\0');
    begin_following();
    world.members = 1;
    compare_slice();
    check_eq(stats().compared, 0);
}

/* --- claims: doubts --------------------------------------------------------------------------------------------------------- */

static void whoever_is_in_doubt_asks_at_once(void)
{
    begin(0);
    world.leads = false;
    world.wrong_page[SELF] = 120;
    check(rq_doubts_put(&cluster.doubts, 9, 120));
    run(LOOK_MS);
    check_eq(world.proposed_count, 1);
    is_proposed(0, 9, 120, 1);
    check(why(9)[0] != '\0');
    check_eq(rq_doubts_page(&cluster.doubts, 9), 0);
    run(120000);
    check_eq(world.proposed_count, 1);
}

static void a_doubt_stays_until_a_majority_has_told(void)
{
    begin(0);
    world.leads = false;
    world.wrong_page[B] = 120;
    world.err[A] = RQ_AWAY;
    check(rq_doubts_put(&cluster.doubts, 9, 120));
    run(130000);
    static const unsigned after_ms[] = { 0, 1000, 3000, 7000, 15000, 31000, 63000, 123000 }; /* then each minute */
    check_eq(world.proposed_count, 8);
    for (unsigned i = 0; i < 8; i++) {
        check_eq(world.proposed_ms[i] - world.proposed_ms[0], after_ms[i]);
    }
    compare_slice(); /* and this one is not decided either */
    check_eq(rq_doubts_page(&cluster.doubts, 9), 120);
    world.err[A] = RQ_OK;
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 1, .first = 121, .count = 50 }); /* other pages */
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 1, .first = 70, .count = 50 });
    applied(&(struct rq_entry_mark){ .db_id = 30, .nonce = 1, .first = 1, .count = 3 });
    run(0);
    check_eq(rq_doubts_page(&cluster.doubts, 9), 120);
    compare_slice();
    check_eq(rq_doubts_page(&cluster.doubts, 9), 0);
    check(why(9)[0] == '\0');
}

static void a_doubt_about_nothing_ends(void)
{
    begin(0);
    check(rq_doubts_put(&cluster.doubts, 8, 1)); /* dropped */
    check(rq_doubts_put(&cluster.doubts, 30, 4));
    run(2 * LOOK_MS);
    check_eq(world.proposed_count, 0);
    check(rq_doubts_page(&cluster.doubts, 8) == 0 && rq_doubts_page(&cluster.doubts, 30) == 0);
}

static void a_question_is_no_slice_of_a_pass(void)
{
    begin_following();
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 1, .first = 1, .count = 4096 });
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 2, .first = 8000, .count = 1 });
    applied(&(struct rq_entry_mark){ .db_id = 30, .nonce = 2, .first = 4097, .count = 1 });
    run(0);
    check_eq(world.compared_count, 3);
    world.leads = true;
    run(LOOK_MS);
    is_proposed(0, 9, 4097, 4096);
    begin_following(); /* nor does one begin with it */
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 2, .first = 8000, .count = 1 });
    run(LOOK_MS);
    world.leads = true;
    run(LOOK_MS);
    check(world.compared_count == 1 && world.proposed_count == 0);
}

static void a_slice_of_one_page_is_one(void)
{
    begin(EVERY_MS);
    databases[1].pages = 8193;
    databases[0].pages = 1;
    run(EVERY_MS + LOOK_MS);
    check(world.proposed_count == 4 && stats().passes == 1);
    begin(EVERY_MS); /* the only one */
    world.database_count = 1;
    run(EVERY_MS + LOOK_MS);
    check(world.proposed_count == 1 && stats().passes == 1);
    begin_following(); /* for those that follow, too */
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 1, .first = 4097, .count = 4096 });
    applied(&(struct rq_entry_mark){ .db_id = 9, .nonce = 1, .first = 8193, .count = 1 });
    applied(&(struct rq_entry_mark){ .db_id = 30, .nonce = 1, .first = 1, .count = 1 });
    run(0);
    databases[1].pages = 9000;
    databases[0].pages = 3;
    check_eq(stats().passes, 1);
}

static void one_doubt_in_a_database_is_enough(void)
{
    static struct rq_doubts doubts;
    struct rq_doubt d;
    rq_doubts_init(&doubts);
    for (uint32_t id = 1; id <= RQ_DOUBTS_MAX; id++) {
        check(rq_doubts_put(&doubts, id, 10 + id));
        check(!rq_doubts_put(&doubts, id, 5));
    }
    check(!rq_doubts_put(&doubts, RQ_DOUBTS_MAX + 1, 5));
    for (uint32_t id = 1; id <= RQ_DOUBTS_MAX; id++) {
        check(rq_doubts_due(&doubts, 1, &d) && d.db_id == id && d.page == 10 + id);
    }
    check(!rq_doubts_due(&doubts, RQ_DOUBT_FIRST_MS, &d) && rq_doubts_due(&doubts, RQ_DOUBT_FIRST_MS + 1, &d));
    rq_doubts_end(&doubts, 3);
    rq_doubts_end(&doubts, 3);
    check(rq_doubts_page(&doubts, 3) == 0 && rq_doubts_page(&doubts, RQ_DOUBTS_MAX) == 10 + RQ_DOUBTS_MAX);
    check(rq_doubts_put(&doubts, RQ_DOUBTS_MAX + 1, 5) && !rq_doubts_put(&doubts, 3, 5));
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP_APART(a_pass_goes_through_all_pages_once),
        TAP_APART(a_slice_of_small_pages_is_what_a_mark_can_name),
        TAP_APART(the_first_pass_does_not_wait_for_a_day),
        TAP_APART(nobody_else_begins_a_pass),
        TAP_APART(without_databases_the_next_pass_is_tried_in_its_time),
        TAP_APART(a_pass_whose_databases_are_gone_is_over),
        TAP_APART(a_mark_that_is_lost_is_asked_for_again),
        TAP_APART(the_next_leader_goes_on_where_the_last_one_was),
        TAP_APART(the_end_of_a_pass_is_everybodys),
        TAP_APART(marks_are_looked_at_in_their_order_and_the_oldest_are_let_go),
        TAP_APART(who_is_wrong_fences_his_own_database),
        TAP_APART(who_is_right_fences_nobody),
        TAP_APART(without_a_majority_nothing_is_changed),
        TAP_APART(who_hears_no_majority_has_compared_nothing),
        TAP_APART(who_is_late_is_waited_for),
        TAP_APART(more_hashes_than_were_asked_for_say_nothing),
        TAP_APART(who_is_fenced_or_alone_asks_nobody),
        TAP_APART(whoever_is_in_doubt_asks_at_once),
        TAP_APART(a_doubt_stays_until_a_majority_has_told),
        TAP_APART(a_doubt_about_nothing_ends),
        TAP_APART(a_question_is_no_slice_of_a_pass),
        TAP_APART(a_slice_of_one_page_is_one),
        TAP_APART(one_doubt_in_a_database_is_enough),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
