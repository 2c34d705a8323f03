/* holding: members get a vote, or lose it, only when whoever makes a majority then has every staged body that the log names. */
#include <string.h>
#include <time.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/db/catalog.h"
#include "raftd/wire/entry.h"
#include "tests/support/seeded.h"
#include "tests/support/tap.h"

enum { SELF = 1, A, B, C, D, E, MEMBERS_END, START_MS = 1000000, BEST_MS = 5000, FRESH_MS = 10000 };

/* --- the world around it ---------------------------------------------------------------------------------------------------- */

static struct {
    uint64_t now_ms, term, last;
    uint64_t named;             /* that entry names a body */
    uint64_t held[MEMBERS_END]; /* what each has, and says; and what is fenced there: */
    uint32_t fenced[MEMBERS_END];
    bool many_fenced[MEMBERS_END];
    bool connected[MEMBERS_END]; /* and answers: */
    bool silent[MEMBERS_END];
    bool late; /* the next answer is kept: */
    rq_answer_cb late_answer;
    void *late_ctx;
    unsigned asked;
} world;

static struct rq_cluster cluster;
static struct rq_members now, members; /* who votes; who is to */

int clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    *t = (struct timespec){ (time_t)(world.now_ms / 1000), (long)(world.now_ms % 1000) * 1000000 };
    return 0;
}

uint64_t rq_log_last(const struct rq_log *log)
{
    (void)log;
    return world.last;
}

uint64_t rq_node_term(const struct rq_node *n)
{
    (void)n;
    return world.term;
}

struct rq_node *rq_driver_node(struct rq_driver *d)
{
    (void)d;
    return NULL;
}

struct rq_strand *rq_driver_loop(struct rq_driver *d)
{
    (void)d;
    return NULL;
}

bool rq_driver_next_entry(struct rq_driver *d, uint64_t *index, struct rq_log_entry *ret_entry, enum rq_err *ret_err)
{
    (void)d;
    *ret_err = RQ_OK;
    *ret_entry =
        (struct rq_log_entry){ .index = ++*index, .type = *index == world.named ? RQ_ENTRY_STAGED : RQ_ENTRY_TXN };
    return true;
}

void rq_strand_post(struct rq_strand *s, struct rq_task *task, enum rq_carry how)
{
    (void)s, (void)how;
    task->run(task);
}

void rq_strand_will_block(void)
{
}

static struct rq_ask_has what_has(uint64_t instance)
{
    struct rq_ask_has has = { .index = world.held[instance] };
    if (world.many_fenced[instance]) {
        for (uint32_t i = 0; i < RQ_ASK_FENCED_MAX; i++) {
            has.fenced[has.fenced_count++] = 1000 + i;
        }
    } else if (world.fenced[instance] != 0) {
        has.fenced[has.fenced_count++] = 900;
        has.fenced[has.fenced_count++] = world.fenced[instance];
    }
    return has;
}

enum rq_err rq_catalog_has(struct rq_catalog *c, struct rq_ask_has *ret_has)
{
    (void)c;
    *ret_has = what_has(SELF);
    return RQ_OK;
}

const struct rq_members *rq_node_members(const struct rq_node *n)
{
    (void)n;
    return &now;
}

bool rq_peers_state(struct rq_peers *p, uint64_t instance, struct rq_peer_state *ret_state)
{
    (void)p;
    *ret_state = (struct rq_peer_state){ .connected[RQ_PEER_REQUESTS] = world.connected[instance] };
    return true;
}

static void give_answer(rq_answer_cb answer, void *ctx, uint64_t instance)
{
    struct rq_bytes reply;
    rq_bytes_init(&reply, 512);
    const struct rq_ask_has has = what_has(instance);
    check_eq(rq_ask_put_has(&reply, &has), RQ_OK);
    answer(ctx, world.silent[instance] ? RQ_AWAY : RQ_OK, reply.data, reply.size);
    rq_bytes_fini(&reply);
}

enum rq_err rq_peers_request(struct rq_peers *p, uint64_t instance, const struct iovec *parts, int part_count,
                             unsigned timeout_ms, rq_answer_cb answer, void *ctx)
{
    (void)p, (void)parts, (void)part_count, (void)timeout_ms;
    world.asked++;
    if (world.late && instance == A) {
        world.late = false;
        world.late_answer = answer;
        world.late_ctx = ctx;
    } else {
        give_answer(answer, ctx, instance);
    }
    return RQ_OK;
}

void rq_call_answer(struct rq_call *call, const struct iovec *parts, int part_count)
{
    (void)call, (void)parts, (void)part_count; /* nobody asks this node */
}

void rq_call_fail(struct rq_call *call, enum rq_err err, const char *text)
{
    (void)call, (void)err, (void)text;
}

/* Four voters; the log ends with entry 10.  C, which is dead, is to go. */
static void begin(uint64_t self, uint64_t a, uint64_t b)
{
    memset(&world, 0, sizeof world);
    memset(&cluster, 0, sizeof cluster);
    memset(&now, 0, sizeof now);
    world.now_ms = START_MS;
    world.term = 3;
    world.last = 10;
    world.held[SELF] = self;
    world.held[A] = a;
    world.held[B] = b;
    for (uint64_t i = SELF; i <= C; i++) {
        world.connected[i] = i < C;
        now.list[now.count++] = (struct rq_member){ .instance = i, .role = RQ_MEMBER_VOTER, .votes = true };
    }
    members = now;
    members.count--;
    cluster.config.instance = SELF;
    atomic_store(&cluster.driver, (struct rq_driver *)&world); /* there is one */
}

/* The same, but C is there, too. */
static void begin_with(uint64_t self, uint64_t a, uint64_t b, uint64_t c)
{
    begin(self, a, b);
    world.held[C] = c;
    world.connected[C] = true;
}

/* Of three voters B is to go, and C is none. */
static void begin_three(uint64_t self, uint64_t a, uint64_t b)
{
    begin(self, a, b);
    now.count = 3;
    members = now;
    members.count--;
}

static bool may_vote(void)
{
    return rq_cluster_may_vote(&cluster, &members);
}

/* Asked again and again for so long, as the leader does it; said at the end. */
static bool may_vote_after(unsigned ms)
{
    bool may = may_vote();
    for (unsigned i = 0; i < ms / 100 && !may; i++) {
        world.now_ms += 100;
        may = may_vote();
    }
    return may;
}

/* --- tests ------------------------------------------------------------------------------------------------------------------- */

static void members_that_have_everything_are_asked_first(void)
{
    begin(10, 10, 3);
    check(!may_vote()); /* nobody has said anything yet */
    check(may_vote());
    check_eq(world.asked, 2);
    begin(10, 9, 3);
    check(!may_vote() && !may_vote() && !may_vote());
    check_eq(world.asked, 2); /* not each time */
}

static void who_has_more_than_majorities_of_the_others_stays(void)
{
    begin_with(10, 9, 9, 10);
    check(!may_vote_after(3 * BEST_MS));
    world.held[A] = 10;
    check(may_vote_after(200));
    begin_three(7, 7, 10); /* the last who has it */
    check(!may_vote_after(3 * BEST_MS));
    begin_three(7, 10, 7);
    check(may_vote_after(BEST_MS + 200));
}

static void who_is_dead_can_go_whatever_the_others_lack(void)
{
    begin(10, 7, 8);
    check(!may_vote_after(BEST_MS - 100));
    check(may_vote_after(300));
    begin(1, 1, 1);
    check(may_vote_after(BEST_MS + 200));
    world.last = world.named = 18; /* a new one that nobody has */
    check(!may_vote_after(BEST_MS - 100));
    check(may_vote_after(300));
    world.last = 50000; /* perhaps one, among too many to look at */
    check(!may_vote_after(BEST_MS - 100));
    check(may_vote_after(300));
}

static void what_the_dead_one_said_at_last_counts_for_a_while(void)
{
    begin_with(10, 7, 8, 10);
    check(!may_vote_after(BEST_MS + 200));
    world.connected[C] = false;
    check(!may_vote_after(FRESH_MS - 200));
    check(may_vote_after(400));
}

static void who_has_less_than_the_others_can_go(void)
{
    begin_with(10, 8, 8, 7);
    check(may_vote_after(BEST_MS + 200));
    begin_with(10, 7, 0, 8); /* B is dead: then this one is needed ... */
    world.connected[B] = false;
    check(!may_vote_after(3 * BEST_MS));
    now.count = 0;
    now.list[now.count++] = members.list[0]; /* ... until that is removed */
    now.list[now.count++] = members.list[1];
    now.list[now.count++] = (struct rq_member){ .instance = C, .role = RQ_MEMBER_VOTER, .votes = true };
    members = now;
    members.count--;
    check(may_vote_after(BEST_MS + 200));
}

static void who_comes_to_vote_has_as_much_as_anybody(void)
{
    begin_with(10, 9, 9, 9);
    members = now;
    now.list[3].role = RQ_MEMBER_STANDBY;
    check(!may_vote_after(3 * BEST_MS));
    world.held[C] = 10;
    check(may_vote_after(200));
    begin_with(8, 7, 7, 7); /* nobody has everything */
    members = now;
    now.list[3].role = RQ_MEMBER_STANDBY;
    check(!may_vote_after(3 * BEST_MS));
    world.held[C] = 8;
    check(may_vote_after(200));
    begin_with(8, 7, 7, 8); /* but it may take somebody a while */
    members = now;
    now.list[3].role = RQ_MEMBER_STANDBY;
    check(!may_vote_after(BEST_MS - 100));
}

static void who_does_not_vote_has_nothing_that_counts(void)
{
    begin_with(8, 8, 10, 8);
    now.list[2].role = members.list[2].role = RQ_MEMBER_STANDBY;
    check(!may_vote_after(BEST_MS - 100));
    check(may_vote_after(300));
    begin_three(3, 9, 9);
    now.list[1].role = members.list[1].role = RQ_MEMBER_STANDBY; /* this node and the one that goes are all */
    check(!may_vote_after(3 * BEST_MS));
}

static void who_is_connected_has_to_have_said_so(void)
{
    begin(9, 9, 10);
    world.held[A] = 8;
    world.silent[B] = true; /* it may be one who has everything */
    check(!may_vote_after(3 * BEST_MS));
    world.connected[B] = false;
    check(may_vote());
}

static void what_was_said_before_that_while_is_not_enough(void)
{
    begin(9, 8, 8);
    check(!may_vote_after(BEST_MS / 2));
    world.silent[A] = world.silent[B] = true;
    check(!may_vote_after(BEST_MS));
    world.silent[A] = world.silent[B] = false;
    check(may_vote_after(200));
}

static void what_was_said_long_ago_does_not_count(void)
{
    begin(3, 10, 10);
    check(may_vote_after(100));
    world.silent[A] = true; /* a database of it may be fenced by now */
    world.now_ms += FRESH_MS;
    check(!may_vote_after(3 * BEST_MS));
    world.silent[A] = false;
    check(may_vote_after(200));
}

static void entries_that_name_a_body_have_to_be_had(void)
{
    begin(10, 10, 3);
    check(may_vote_after(100));
    world.last = 15; /* none of these names one */
    check(may_vote());
    world.last = 20;
    world.named = 18;
    check(!may_vote_after(500));
    world.held[SELF] = world.held[A] = 17;
    check(!may_vote_after(500));
    world.held[SELF] = world.held[A] = 18;
    check(may_vote_after(200));
    world.last = 50000; /* too many to look at */
    check(!may_vote_after(500));
    world.held[SELF] = world.held[A] = 50000;
    check(may_vote_after(200));
}

static void leadership_begins_with_nothing_that_was_said(void)
{
    begin(10, 10, 3);
    check(may_vote_after(100));
    world.term++;
    world.silent[A] = true;
    check(!may_vote_after(500));
    world.silent[A] = false;
    check(may_vote_after(200));
    world.term++;
    world.late = true;
    check(!may_vote());
    world.term++;
    world.silent[A] = true;
    check(!may_vote());
    world.silent[A] = false;
    give_answer(world.late_answer, world.late_ctx, A); /* to a question of the leadership before */
    world.silent[A] = true;
    check(!may_vote_after(500));
}

/* --- databases that one alone has whole ------------------------------------------------------------------------------------------ */

static void who_has_a_database_whole_that_no_other_voter_has_so_stays(void)
{
    begin_with(10, 10, 10, 10);
    world.fenced[SELF] = world.fenced[A] = world.fenced[B] = 5;
    world.fenced[C] = 6;
    check(!may_vote_after(3 * BEST_MS));
    world.fenced[B] = 0;
    check(may_vote_after(200));
    now.list[2].role = members.list[2].role = RQ_MEMBER_STANDBY; /* from it nothing is mended */
    check(!may_vote_after(3 * BEST_MS));
}

static void who_has_it_fenced_too_can_go(void)
{
    begin_with(10, 10, 10, 10);
    world.fenced[SELF] = world.fenced[A] = world.fenced[B] = world.fenced[C] = 5;
    check(may_vote_after(200));
    begin_with(10, 10, 10, 10); /* whatever the others have: here all is whole */
    world.fenced[A] = world.fenced[B] = 5;
    check(may_vote_after(200));
}

static void who_has_it_whole_and_is_dead_can_go_after_a_while(void)
{
    begin_with(10, 10, 10, 10);
    world.fenced[SELF] = world.fenced[A] = world.fenced[B] = 5;
    world.silent[C] = true;
    check(!may_vote_after(3 * BEST_MS));
    world.term++;
    world.connected[C] = false;
    check(!may_vote_after(FRESH_MS - 200));
    check(may_vote_after(400));
    begin_with(10, 10, 10, 10);
    world.fenced[SELF] = world.fenced[A] = world.fenced[B] = 5;
    check(!may_vote_after(2 * FRESH_MS));
    world.connected[C] = false; /* its last word */
    check(!may_vote_after(FRESH_MS - 200));
    check(may_vote_after(400));
}

static void who_has_more_fenced_than_can_be_told_has_nothing_whole(void)
{
    begin_with(10, 10, 10, 10);
    world.fenced[SELF] = world.fenced[A] = 5;
    world.many_fenced[B] = true;
    check(!may_vote_after(3 * BEST_MS));
    begin_with(10, 10, 10, 10);
    world.many_fenced[SELF] = true;
    check(!may_vote_after(3 * BEST_MS));
}

/* --- chance ------------------------------------------------------------------------------------------------------------------ */

static uint64_t dice;

static bool chance(unsigned percent)
{
    return seeded_below(&dice, 100) < percent;
}

/* Voters that have this and that, of whom some are not connected; one more is to vote, or one less.  Returns who that is. */
static uint64_t draw(bool *ret_goes)
{
    begin(0, 0, 0);
    world.last = 4;
    now.count = 0;
    const unsigned voters = 2 + seeded_below(&dice, 4);
    for (uint64_t i = SELF; i < MEMBERS_END; i++) {
        world.held[i] = 1 + seeded_below(&dice, 4);
        world.connected[i] = i == SELF || chance(70);
        world.fenced[i] = chance(60) ? 0 : chance(50) ? 5 : 6;
        if (i < SELF + voters) {
            now.list[now.count++] = (struct rq_member){ .instance = i, .role = RQ_MEMBER_VOTER, .votes = true };
        }
    }
    members = now;
    *ret_goes = chance(60);
    const uint64_t other = *ret_goes ? A + seeded_below(&dice, voters - 1) : SELF + voters;
    if (*ret_goes) {
        members.count = 0;
        for (unsigned i = 0; i < voters; i++) {
            if (now.list[i].instance != other) {
                members.list[members.count++] = now.list[i];
            }
        }
    } else {
        world.connected[other] = true;
        members.list[members.count++] = (struct rq_member){ .instance = other, .role = RQ_MEMBER_VOTER, .votes = true };
    }
    return other;
}

static bool are_led(const struct rq_members *list)
{
    unsigned connected = 0;
    for (unsigned i = 0; i < list->count; i++) {
        connected += world.connected[list->list[i].instance];
    }
    return connected > list->count / 2;
}

/* What they have in truth, also those who are not connected. */
static uint64_t majorities_of(const struct rq_members *list)
{
    uint64_t has[RQ_MEMBERS_MAX] = { 0 };
    for (unsigned i = 0; i < list->count; i++) {
        has[i] = world.held[list->list[i].instance];
    }
    return rq_members_majorities_have(list, has);
}

static bool has_whole(uint64_t instance, uint32_t db_id)
{
    return db_id == 900 ? world.fenced[instance] == 0 : world.fenced[instance] != db_id;
}

static bool one_who_stays_has_whole(uint32_t db_id)
{
    bool whole = false;
    for (unsigned i = 0; i < members.count; i++) {
        whole = whole || has_whole(members.list[i].instance, db_id);
    }
    return whole;
}

static void no_change_makes_it_worse_and_who_is_dead_can_always_go(void)
{
    unsigned allowed = 0, refused = 0;
    for (uint64_t seed = 1; seed < 4000; seed++) {
        bool goes;
        dice = seed;
        const uint64_t other = draw(&goes);
        if (!are_led(&now) || !are_led(&members)) {
            continue;
        }
        const bool dead = goes && !world.connected[other], may = may_vote_after(2 * FRESH_MS);
        check(may || !dead);
        world.held[other] = dead ? 0 : world.held[other];
        const uint64_t before = majorities_of(&now), after = majorities_of(&members);
        check(!may || after >= before || after >= world.last);
        for (uint32_t id = 5; id <= 900; id = id == 5 ? 6 : id == 6 ? 900 : 901) {
            check(!may || !goes || dead || !has_whole(other, id) || one_who_stays_has_whole(id));
        }
        allowed += may && !dead;
        refused += !may;
    }
    check(allowed > 100 && refused > 100);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(members_that_have_everything_are_asked_first),
        TAP(who_has_more_than_majorities_of_the_others_stays),
        TAP(who_is_dead_can_go_whatever_the_others_lack),
        TAP(what_the_dead_one_said_at_last_counts_for_a_while),
        TAP(who_has_less_than_the_others_can_go),
        TAP(who_comes_to_vote_has_as_much_as_anybody),
        TAP(who_does_not_vote_has_nothing_that_counts),
        TAP(who_is_connected_has_to_have_said_so),
        TAP(what_was_said_before_that_while_is_not_enough),
        TAP(what_was_said_long_ago_does_not_count),
        TAP(entries_that_name_a_body_have_to_be_had),
        TAP(leadership_begins_with_nothing_that_was_said),
        TAP(who_has_a_database_whole_that_no_other_voter_has_so_stays),
        TAP(who_has_it_fenced_too_can_go),
        TAP(who_has_it_whole_and_is_dead_can_go_after_a_while),
        TAP(who_has_more_fenced_than_can_be_told_has_nothing_whole),
        TAP(no_change_makes_it_worse_and_who_is_dead_can_always_go),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
