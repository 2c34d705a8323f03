/* mend: whose pages a quarantined database gets.  The others are this test's; what it does with the pages is as database_repair.c does it. */
#include <string.h>
#include <time.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/mend.h"
#include "raftd/cluster/voice.h"
#include "raftd/db/catalog.h"
#include "raftd/wire/txn.h"
#include "tests/support/seeded.h"
#include "tests/support/tap.h"

enum { SELF = 1, A, B, C, D, END, ID = 7, INDEX = 500, VERSION = 40, PAGES = 6, PAGE = 512, START_MS = 1000000 };

/* --- the others ------------------------------------------------------------------------------------------------------------- */

struct voter {
    bool is_no_voter;
    enum rq_err err;                          /* to everything; OK: it gives it */
    unsigned unready;                         /* so often it says first that it is not there yet */
    struct rq_ask_state state;                /* that it has */
    uint8_t is[PAGES];                        /* each page is full of that byte */
    unsigned hashes_left_out, bytes_left_out; /* of an answer; bytes: of a page */
};

static struct {
    uint64_t now_ms;
    unsigned members; /* this one and the first others */
    struct voter voters[END];
    unsigned asked_pages[END];
    bool comes; /* the MARK entry */
    uint64_t nonce;
} world;

/* Its own file: a page that is disputed is what the records of this host say, so that either may be right. */
static struct {
    uint8_t is[PAGES];
    bool undisputed[PAGES];
} own;

static struct rq_repair *repair;

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

/* Voters, or with none among the others all of these. */
static bool is_asked(uint64_t instance)
{
    bool others_vote = false;
    for (uint64_t i = A; i < SELF + world.members; i++) {
        others_vote = others_vote || !world.voters[i].is_no_voter;
    }
    return instance != SELF && (!others_vote || !world.voters[instance].is_no_voter);
}

unsigned rq_voices(struct rq_cluster *c, struct rq_voice list[RQ_VOICES_MAX], unsigned *ret_voters,
                   bool *ret_self_votes)
{
    (void)c;
    unsigned count = 0;
    *ret_voters = 0;
    *ret_self_votes = !world.voters[SELF].is_no_voter;
    for (uint64_t i = SELF; i < SELF + world.members; i++) {
        *ret_voters += !world.voters[i].is_no_voter;
        if (is_asked(i)) {
            list[count++] = (struct rq_voice){ i, !world.voters[i].is_no_voter };
        }
    }
    return count;
}

static void fill(uint8_t page[PAGE], uint8_t byte)
{
    memset(page, byte, PAGE);
}

static uint64_t hash_of(uint8_t byte)
{
    uint8_t page[PAGE];
    fill(page, byte);
    return rq_page_hash(page, PAGE);
}

static void give(const struct voter *v, uint64_t instance, const struct rq_ask *ask, struct rq_bytes *answer)
{
    uint64_t hashes[PAGES];
    uint8_t page[PAGE];
    if (ask->kind == RQ_ASK_STATE) {
        check_eq(rq_ask_put_state(answer, &v->state), RQ_OK);
    } else if (ask->kind == RQ_ASK_HASHES) {
        for (uint32_t i = 0; i < ask->mark.count; i++) {
            hashes[i] = hash_of(v->is[ask->mark.first - 1 + i]);
        }
        check_eq(rq_ask_put_hashes(answer, hashes, ask->mark.count - v->hashes_left_out), RQ_OK);
    } else {
        world.asked_pages[instance]++;
        fill(page, v->is[ask->mark.first - 1]);
        check_eq(rq_ask_put_pages(answer, page, PAGE - v->bytes_left_out), RQ_OK);
    }
}

enum rq_err rq_voice_ask(struct rq_cluster *c, uint64_t instance, const struct rq_ask *ask, unsigned timeout_ms,
                         struct rq_bytes *ret_answer)
{
    struct voter *v = &world.voters[instance];
    (void)c, (void)timeout_ms;
    check_eq(ask->mark.db_id, ID);
    check_eq(ask->mark.index, INDEX);
    if (v->unready > 0) {
        v->unready--;
        return RQ_UNREADY;
    }
    ret_answer->size = 0;
    if (v->err == RQ_OK) {
        give(v, instance, ask, ret_answer);
    }
    return v->err;
}

/* --- this one --------------------------------------------------------------------------------------------------------------- */

uint32_t rq_database_id(const struct rq_database *db)
{
    (void)db;
    return ID;
}

const char *rq_database_name(const struct rq_database *db)
{
    (void)db;
    return "app.db";
}

void rq_catalog_mark(struct rq_catalog *c, const struct rq_entry_mark *mark, struct rq_request *r)
{
    (void)c;
    check_eq(mark->db_id, ID);
    check_eq(mark->count, 0);
    world.nonce = mark->nonce;
    r->done(r, RQ_OK, NULL);
}

void rq_database_repair_begin(struct rq_database *db, struct rq_repair *r)
{
    (void)db;
    repair = r;
}

/* Nothing of it is there before all of it is. */
static enum rq_err run_repair(void)
{
    const struct rq_repair_source *from = &repair->source;
    struct rq_replica_state state;
    uint64_t hashes[PAGES];
    uint8_t page[PAGE], mended[PAGES];
    memcpy(mended, own.is, PAGES);
    enum rq_err err = from->open(from->ctx, INDEX, &state);
    if (err == RQ_OK) {
        check_eq(state.stamp.db_id, ID);
        check_eq(state.page_count, PAGES);
        err = state.version == VERSION ? RQ_OK : RQ_UNREADY;
    }
    for (uint32_t first = 0; err == RQ_OK && first < PAGES; first += PAGES / 2) { /* in two parts */
        err = from->hashes(from->ctx, first + 1, PAGES / 2, hashes + first);
        for (uint32_t i = first; err == RQ_OK && i < first + PAGES / 2; i++) {
            if (hash_of(own.is[i]) != hashes[i]) {
                err = from->page(from->ctx, i + 1, PAGE, !own.undisputed[i], page);
                mended[i] = page[0];
                check(err != RQ_OK || rq_page_hash(page, PAGE) == hashes[i]);
                repair->mended += err == RQ_OK;
            }
        }
    }
    if (err == RQ_OK) {
        memcpy(own.is, mended, PAGES);
    }
    return err;
}

enum rq_err rq_database_repair_wait(struct rq_database *db, struct rq_repair *r, unsigned timeout_ms)
{
    (void)db;
    check(r == repair && timeout_ms > 0);
    check_eq(world.nonce, r->nonce);
    return world.comes ? run_repair() : RQ_AWAY;
}

/* --- tests ------------------------------------------------------------------------------------------------------------------- */

/* All of them have the right pages, which are full of their number; but not this one. */
static void begin(unsigned members)
{
    memset(&world, 0, sizeof world);
    memset(&own, 0, sizeof own);
    world.now_ms = START_MS;
    world.members = members;
    world.comes = true;
    for (unsigned i = SELF; i < END; i++) {
        world.voters[i].state = (struct rq_ask_state){ VERSION, INDEX - 1, 3, PAGE, PAGES };
        for (unsigned k = 0; k < PAGES; k++) {
            world.voters[i].is[k] = (uint8_t)(k + 1);
            own.is[k] = (uint8_t)(k + 1);
        }
    }
}

static bool is_right(void)
{
    bool right = true;
    for (unsigned k = 0; k < PAGES; k++) {
        right = right && own.is[k] == k + 1;
    }
    return right;
}

static enum rq_err mend(void)
{
    static struct rq_cluster cluster;
    uint64_t compared, mended;
    return rq_mend(&cluster, (struct rq_database *)&world, &compared, &mended);
}

static void pages_that_are_wrong_come_from_the_others(void)
{
    begin(3);
    own.is[1] = own.is[4] = 99;
    check_eq(mend(), RQ_OK);
    check(is_right());
    check_eq(world.asked_pages[A] + world.asked_pages[B], 2);
    begin(3);
    own.is[1] = 99;
    world.comes = false; /* the entry */
    check_eq(mend(), RQ_AWAY);
    check_eq(own.is[1], 99);
}

static void who_is_away_or_fenced_says_nothing(void)
{
    begin(3);
    own.is[1] = 99;
    own.undisputed[1] = true;
    world.voters[A].err = RQ_AWAY;
    check_eq(mend(), RQ_OK);
    check(is_right());
    own.is[1] = 99;
    world.voters[A].err = RQ_QUARANTINED;
    check_eq(mend(), RQ_OK);
    check(is_right());
    world.voters[B].err = RQ_AWAY;
    check_eq(mend(), RQ_AWAY);
}

static void who_is_there_is_waited_for(void)
{
    begin(3);
    own.is[1] = 99;
    world.voters[A].unready = 20;
    check_eq(mend(), RQ_OK);
    check(is_right());
    check(world.now_ms > START_MS);
    static const enum rq_err errs[][2] = { { RQ_UNREADY, RQ_UNREADY },
                                           { RQ_NOTFOUND, RQ_UNREADY },
                                           { RQ_UNKNOWN, RQ_UNKNOWN } };
    for (unsigned i = 0; i < 3; i++) { /* not that the other one decides alone meanwhile */
        begin(3);
        own.is[1] = 99;
        own.undisputed[1] = true;
        world.voters[B].err = errs[i][0];
        check_eq(mend(), errs[i][1]);
        check_eq(own.is[1], 99);
    }
}

static void it_is_the_state_that_most_of_them_have(void)
{
    begin(4);
    own.is[1] = 99;
    own.undisputed[1] = true;
    world.voters[B].state.version = VERSION + 1;
    memset(world.voters[B].is, 77, PAGES);
    check_eq(mend(), RQ_OK);
    check(is_right());
    begin(3);
    world.voters[A].state.version = VERSION + 1; /* one of two */
    check_eq(mend(), RQ_CORRUPT);
    begin(5);
    world.voters[A].state.version = world.voters[B].state.version = VERSION + 1;
    check_eq(mend(), RQ_CORRUPT);
    for (unsigned what = 0; what < 4; what++) { /* that one other's differs in anything is enough */
        begin(3);
        struct rq_ask_state *state = &world.voters[A].state;
        state->stamp_index -= what == 0;
        state->stamp_term += what == 1;
        state->page_size *= what == 2 ? 2 : 1;
        state->page_count -= what == 3;
        check_eq(mend(), RQ_CORRUPT);
    }
}

static void a_page_is_what_most_of_them_say(void)
{
    begin(4);
    own.is[1] = 99;
    own.undisputed[1] = true;
    world.voters[A].is[1] = 98; /* is asked first */
    check_eq(mend(), RQ_OK);
    check(is_right());
    check_eq(world.asked_pages[A], 0);
    begin(3);
    own.is[5] = 99;
    world.voters[A].is[1] = 98;
    check_eq(mend(), RQ_CORRUPT); /* one of two says so */
    check_eq(own.is[5], 99);
}

/* What this host has may be right as well. */
static void a_disputed_page_is_what_most_of_all_voters_say(void)
{
    begin(3);
    own.is[4] = 99;
    world.voters[A].err = RQ_AWAY;
    check_eq(mend(), RQ_CORRUPT);
    check_eq(own.is[4], 99);
    world.voters[A].err = RQ_OK;
    check_eq(mend(), RQ_OK);
    check(is_right());
    begin(2);
    own.is[4] = 99;
    check_eq(mend(), RQ_CORRUPT);
    own.undisputed[4] = true;
    check_eq(mend(), RQ_OK);
    begin(4); /* two of four are not most of them */
    own.is[4] = 99;
    world.voters[A].err = RQ_AWAY;
    check_eq(mend(), RQ_CORRUPT);
    begin(4); /* nor is who has no vote one of them */
    own.is[4] = 99;
    world.voters[SELF].is_no_voter = world.voters[A].is_no_voter = true;
    check_eq(mend(), RQ_OK);
    check(is_right());
    own.is[4] = 99;
    world.voters[B].err = RQ_AWAY;
    check_eq(mend(), RQ_CORRUPT);
}

static void an_answer_of_another_size_is_none(void)
{
    begin(2);
    own.is[1] = 99;
    own.undisputed[1] = true;
    world.voters[A].hashes_left_out = 1;
    check_eq(mend(), RQ_PROTOCOL);
    world.voters[A].hashes_left_out = 0;
    world.voters[A].bytes_left_out = 1;
    check_eq(mend(), RQ_PROTOCOL);
    check_eq(own.is[1], 99);
}

/* --- chance ------------------------------------------------------------------------------------------------------------------ */

static uint64_t dice;

static bool chance(unsigned percent)
{
    return seeded_below(&dice, 100) < percent;
}

static void draw(unsigned damage)
{
    const unsigned members = 2 + seeded_below(&dice, 4);
    begin(members);
    for (unsigned i = A; i < END; i++) {
        struct voter *v = &world.voters[i];
        v->is_no_voter = chance(15);
        v->err = chance(80) ? RQ_OK : chance(50) ? RQ_AWAY : RQ_QUARANTINED;
        v->unready = chance(20) ? 3 : 0;
        for (unsigned k = 0; k < PAGES; k++) {
            v->is[k] = chance(damage) ? (uint8_t)(90 + seeded_below(&dice, 2)) : v->is[k];
        }
    }
    world.voters[SELF].is_no_voter = chance(10);
    for (unsigned k = 0; k < PAGES; k++) {
        own.is[k] = chance(30) ? (uint8_t)(90 + seeded_below(&dice, 2)) : own.is[k];
        own.undisputed[k] = chance(50);
    }
}

struct count {
    unsigned members, voters; /* who give it and say so; and those among them that vote */
};

static struct count who_say(unsigned page, uint8_t byte, unsigned *ret_given)
{
    struct count count = { 0 };
    *ret_given = 0;
    for (unsigned i = A; i < SELF + world.members; i++) {
        const struct voter *v = &world.voters[i];
        const bool gives = is_asked(i) && v->err == RQ_OK;
        *ret_given += gives;
        count.members += gives && v->is[page] == byte;
        count.voters += gives && v->is[page] == byte && !v->is_no_voter;
    }
    return count;
}

/* Whatever is damaged wherever: a page is changed only to what most of those say who give it, and if it was disputed, most of all voters. And
 * where most of all voters are right, so is this host in the end. */
static void whatever_is_damaged_nothing_becomes_what_no_majority_says(void)
{
    unsigned mended = 0, refused = 0;
    for (dice = 1; dice < 20000; dice++) {
        const uint64_t seed = dice;
        draw(seeded_below(&dice, 4) * 12);
        uint8_t before[PAGES];
        unsigned given, voters = 0;
        bool all_right = true;
        memcpy(before, own.is, PAGES);
        for (unsigned i = SELF; i < SELF + world.members; i++) {
            voters += !world.voters[i].is_no_voter;
        }
        for (unsigned k = 0; k < PAGES; k++) {
            const struct count right = who_say(k, (uint8_t)(k + 1), &given);
            all_right = all_right && right.voters > voters / 2 && right.members > given / 2;
        }
        const enum rq_err err = mend();
        mended += err == RQ_OK && memcmp(before, own.is, PAGES) != 0;
        refused += err == RQ_CORRUPT;
        check(!all_right || (err == RQ_OK && is_right()));
        for (unsigned k = 0; k < PAGES; k++) {
            const struct count same = who_say(k, own.is[k], &given);
            check(err != RQ_OK || same.members > given / 2);
            check(own.is[k] == before[k] || (err == RQ_OK && (own.undisputed[k] || same.voters > voters / 2)));
        }
        dice = seed;
    }
    check(mended > 100 && refused > 100);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(pages_that_are_wrong_come_from_the_others),
        TAP(who_is_away_or_fenced_says_nothing),
        TAP(who_is_there_is_waited_for),
        TAP(it_is_the_state_that_most_of_them_have),
        TAP(a_page_is_what_most_of_them_say),
        TAP(a_disputed_page_is_what_most_of_all_voters_say),
        TAP(an_answer_of_another_size_is_none),
        TAP(whatever_is_damaged_nothing_becomes_what_no_majority_says),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
