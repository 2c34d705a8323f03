/* holding: members get a vote, or lose it, only when whoever makes a majority then has every staged body that the log names. */
#include <string.h>
#include <time.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/db/catalog.h"
#include "raftd/wire/entry.h"
#include "tests/support/tap.h"

enum { SELF = 1, A, B, C, MEMBERS_END, START_MS = 1000000, BEST_MS = 5000, FRESH_MS = 10000 };

/* --- the world around it ---------------------------------------------------------------------------------------------------- */

static struct {
    uint64_t now_ms, term, last;
    uint64_t named;              /* that entry names a body */
    uint64_t held[MEMBERS_END];  /* what each has, and says */
    bool connected[MEMBERS_END]; /* and answers: */
    bool silent[MEMBERS_END];
    bool late; /* the next answer is kept: */
    rq_answer_cb late_answer;
    void *late_ctx;
    unsigned asked;
} world;

static struct rq_cluster cluster;
static struct rq_members members;

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

enum rq_err rq_catalog_held(struct rq_catalog *c, uint64_t *ret_index)
{
    (void)c;
    *ret_index = world.held[SELF];
    return RQ_OK;
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
    rq_bytes_init(&reply, 64);
    check_eq(rq_ask_put_index(&reply, world.held[instance]), RQ_OK);
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

/* Three voters, all connected; the log ends with entry 10. */
static void begin(uint64_t self, uint64_t a, uint64_t b)
{
    memset(&world, 0, sizeof world);
    memset(&cluster, 0, sizeof cluster);
    memset(&members, 0, sizeof members);
    world.now_ms = START_MS;
    world.term = 3;
    world.last = 10;
    world.held[SELF] = self;
    world.held[A] = a;
    world.held[B] = b;
    for (uint64_t i = SELF; i < C; i++) {
        world.connected[i] = true;
        members.list[members.count++] = (struct rq_member){ .instance = i, .role = RQ_MEMBER_VOTER, .votes = true };
    }
    cluster.config.instance = SELF;
    atomic_store(&cluster.driver, (struct rq_driver *)&world); /* there is one */
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
    world.held[A] = 9; /* one of its databases is fenced since */
    world.now_ms += FRESH_MS;
    check(!may_vote() && !may_vote() && !may_vote());
    check_eq(world.asked, 4); /* not each time */
    begin(3, 10, 10);
    members.list[1].role = members.list[2].role = RQ_MEMBER_STANDBY; /* who does not vote yet is not counted */
    check(!may_vote_after(BEST_MS / 2));
}

static void too_few_that_have_everything_are_never_enough(void)
{
    begin(10, 9, 9);
    check(!may_vote_after(3 * BEST_MS));
    world.held[A] = 10;
    check(may_vote_after(200));
}

static void who_has_the_most_counts_when_nobody_has_had_everything_for_a_while(void)
{
    begin(8, 9, 9);
    check(!may_vote_after(BEST_MS - 100));
    check(may_vote_after(300));
    begin(9, 9, 8);
    check(may_vote_after(BEST_MS + 200));
    world.last = world.named = 18; /* a new one that nobody has */
    check(!may_vote_after(BEST_MS - 100));
    check(may_vote_after(300));
    world.last = 50000; /* perhaps one, among too many to look at */
    check(!may_vote_after(BEST_MS - 100));
    check(may_vote_after(300));
    begin(8, 9, 8); /* one alone has the most */
    check(!may_vote_after(3 * BEST_MS));
}

static void who_does_not_vote_has_nothing_that_counts(void)
{
    begin(8, 9, 9);
    world.connected[C] = true;
    world.held[C] = 10;
    members.list[members.count++] = (struct rq_member){ .instance = C, .role = RQ_MEMBER_VOTER };
    check(!may_vote_after(500));
    members.list[3].role = RQ_MEMBER_STANDBY; /* it has said so, but is gone for good */
    check(may_vote_after(BEST_MS));
    begin(3, 9, 9); /* this node is the one that is not to vote; and the others can say nothing more */
    members.list[0].role = RQ_MEMBER_STANDBY;
    check(!may_vote_after(500));
    world.connected[A] = world.connected[B] = false;
    check(!may_vote_after(BEST_MS / 2));
}

static void who_is_connected_has_to_have_said_so(void)
{
    begin(9, 9, 10);
    world.silent[B] = true; /* it may be one who has everything */
    check(!may_vote_after(3 * BEST_MS));
    world.connected[B] = false;
    check(may_vote());
}

static void what_was_said_before_that_while_is_not_enough(void)
{
    begin(9, 9, 8);
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

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(members_that_have_everything_are_asked_first),
        TAP(too_few_that_have_everything_are_never_enough),
        TAP(who_has_the_most_counts_when_nobody_has_had_everything_for_a_while),
        TAP(who_does_not_vote_has_nothing_that_counts),
        TAP(who_is_connected_has_to_have_said_so),
        TAP(what_was_said_before_that_while_is_not_enough),
        TAP(what_was_said_long_ago_does_not_count),
        TAP(entries_that_name_a_body_have_to_be_had),
        TAP(leadership_begins_with_nothing_that_was_said),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
