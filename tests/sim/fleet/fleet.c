#include "tests/sim/fleet/fleet.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/seeded.h"

enum { BEGIN_MS = 10000, HEAL_MS = 60000 };

struct fleet *fleet;
enum fleet_plant fleet_plant;
const char *const fleet_database_names[FLEET_DATABASES] = { "a.db", "b.db" };

/* --- the world of all that is linked into this program: time passes as the fleet says, chance is the seed's --------------------- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    *t = (struct timespec){ (time_t)(fleet->now_ms / 1000u), (long)(fleet->now_ms % 1000u) * 1000000 };
    return 0;
}

ssize_t __wrap_getrandom(void *buffer, size_t length, unsigned flags);
ssize_t __wrap_getrandom(void *buffer, size_t length, unsigned flags)
{
    (void)flags;
    seeded_fill(&fleet->entropy, buffer, length);
    return (ssize_t)length;
}

/* It is noted in control pages, so that it would be another one at each run. */
pid_t __wrap_getpid(void);
pid_t __wrap_getpid(void)
{
    return 1;
}

uint32_t fleet_below(uint32_t bound)
{
    return seeded_below(&fleet->random, bound);
}

bool fleet_chance(unsigned permille)
{
    return fleet_below(1000) < permille;
}

void fleet_count(enum fleet_counter c)
{
    fleet->counters[c]++;
}

void fleet_trace(const char *format, ...)
{
    if (fleet->trace) {
        va_list args;
        va_start(args, format);
        printf("%6" PRIu64 " ", fleet->now_ms - fleet->begin_ms);
        vprintf(format, args);
        printf("\n");
        va_end(args);
    }
}

void fleet_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("# seed %" PRIu64 " at %" PRIu64 " ms, %u hosts: ", fleet->seed, fleet->now_ms - fleet->begin_ms,
           fleet->host_count);
    vprintf(format, args);
    printf("\n");
    fflush(stdout);
    va_end(args);
    _exit(1);
}

/* --- misfortune ----------------------------------------------------------------------------------------------------------- */

static void cut_network(void)
{
    struct fleet *f = fleet;
    const unsigned shape = fleet_below(6), one = fleet_below(f->host_count);
    memset(f->deaf, 0, sizeof f->deaf);
    for (unsigned a = 0; a < f->host_count; a++) {
        const unsigned side_of_a = fleet_below(2);
        for (unsigned b = 0; b < f->host_count; b++) {
            const bool side = fleet_below(2) != side_of_a;
            switch (shape) {
                case 0: /* any links, each way for itself */
                    f->deaf[a][b] = side && a != b;
                    break;
                case 1: /* one is cut off */
                case 2:
                    f->deaf[a][b] = (a == one) != (b == one);
                    break;
                case 3: /* one is not heard */
                    f->deaf[a][b] = a == one && b != one;
                    break;
                case 4: /* two halves with a bridge */
                    f->deaf[a][b] = a != one && b != one && a % 2 != b % 2;
                    break;
                default: /* healed */
                    break;
            }
        }
    }
    fleet_count(FLEET_partitions);
}

static void die_somehow(struct fleet_host *h)
{
    switch (fleet_below(4)) {
        case 0:
            host_die(h, false);
            break;
        case 1:
            host_die(h, true);
            break;
        case 2:
            record_disk_stop_at(h->disk, 1 + fleet_below(12));
            break;
        default:
            record_disk_fail_sync(h->disk, 1 + fleet_below(4));
            break;
    }
}

static void chaos_event(void)
{
    struct fleet *f = fleet;
    struct fleet_host *h = &f->hosts[fleet_below(f->host_count)];
    if (fleet_chance(80)) {
        cut_network();
    }
    if (fleet_chance(80)) {
        h->paused_until = f->now_ms + fleet_below(fleet_chance(300) ? 3000 : 600);
        fleet_count(FLEET_pauses);
    }
    if (fleet_chance(50)) {
        h->slow = !h->slow;
    }
    if (fleet_chance(60) && h->state == FLEET_READY && host_works(h)) {
        host_transfer(h);
    }
    if (f->damages && fleet_chance(500)) {
        damage_strike();
    }
    if (fleet_chance(80)) {
        app_kill(&f->apps[fleet_below(f->app_count)]);
    }
    if (h->state != FLEET_DEAD && fleet_chance(f->crash_permille)) {
        die_somehow(h);
    }
}

/* Each has its own numbers, so that one can be left out. */
static void chaos(void)
{
    struct fleet *f = fleet;
    const uint64_t others = f->random;
    f->random = f->chaos_random + f->chaos_count * 0x9e3779b97f4a7c15ull;
    f->chaos_at = f->now_ms + 10 + fleet_below(120);
    if (f->chaos_count < SWEEP_CHAOS_MAX && !f->without->chaos[f->chaos_count]) {
        chaos_event();
    }
    f->chaos_count++;
    f->random = others;
}

/* --- time ----------------------------------------------------------------------------------------------------------------- */

static void millisecond(void)
{
    struct fleet *f = fleet;
    f->now_ms++;
    if (f->now_ms >= f->chaos_at) {
        chaos();
    }
    const unsigned first = fleet_below(f->host_count);
    for (unsigned i = 0; i < f->host_count; i++) {
        host_tick(&f->hosts[(first + i) % f->host_count]);
    }
    for (unsigned i = 0; i < f->app_count; i++) {
        app_tick(&f->apps[i]);
    }
}

/* All but one are lost for good. */
static void lose_majority(void)
{
    struct fleet *f = fleet;
    for (unsigned i = 0; f->survivor == NULL && i < f->host_count; i++) {
        f->survivor = f->hosts[i].state != FLEET_DEAD && host_stands_still(&f->hosts[i]) ? &f->hosts[i] : NULL;
    }
    const unsigned survivor = f->survivor != NULL ? f->survivor->number : fleet_below(f->host_count),
                   another = (survivor + 1) % f->host_count;
    for (unsigned i = 0; i < f->host_count; i++) {
        struct fleet_host *h = &f->hosts[i];
        if (h->state != FLEET_DEAD) {
            host_die(h, false);
        }
        h->recovers = i == survivor || (i == another && fleet_plant == FLEET_PLANT_TWO_RECOVER);
        h->absent = !h->recovers;
        h->restart_at = h->absent ? FLEET_NEVER : f->now_ms;
    }
}

static void lose_for_good(struct fleet_host *h)
{
    if (h->state != FLEET_DEAD) {
        host_die(h, false);
    }
    h->absent = true;
    h->restart_at = FLEET_NEVER;
}

static void calm_down(void)
{
    struct fleet *f = fleet;
    fleet_trace("calm");
    f->lose_body_permille = 0;
    f->fetch_permille = f->one_is_replaced ? f->fetch_permille : 50;
    memset(f->deaf, 0, sizeof f->deaf);
    f->chaos_at = FLEET_NEVER;
    for (unsigned i = 0; i < f->host_count; i++) {
        memset(f->hosts[i].spoils, 0, sizeof f->hosts[i].spoils);
    }
    if (f->majority_is_lost) {
        lose_majority();
    }
    const bool leaves_some = f->minority_stays_down && !f->majority_is_lost && !f->one_is_replaced;
    for (unsigned left = leaves_some ? (f->voter_count - 1) / 2 : 0; left > 0; left--) {
        lose_for_good(&f->hosts[fleet_below(f->voter_count)]);
        fleet_count(FLEET_minorities_down);
    }
    if (f->one_is_replaced) {
        f->removed = &f->hosts[fleet_below(f->voter_count)];
        lose_for_good(f->removed);
    }
    for (unsigned i = 0; i < f->host_count; i++) {
        struct fleet_host *h = &f->hosts[i];
        h->slow = false;
        h->paused_until = 0;
        if (h->state != FLEET_DEAD && host_disk_failed(h)) {
            host_die(h, false); /* an operator starts it again */
        } else if (h->state != FLEET_DEAD) {
            record_disk_stop_at(h->disk, 0);
            record_disk_fail_sync(h->disk, 0);
        }
    }
}

/* Every application, so every host, gets something done. */
static bool all_have_written(void)
{
    for (unsigned i = 0; i < fleet->app_count; i++) {
        if (fleet->apps[i].done == 0 && !fleet->apps[i].host->absent) {
            return false;
        }
    }
    return true;
}

/* Nobody is left fenced, or wrong without knowing it. */
static bool all_are_sound(void)
{
    struct fleet *f = fleet;
    for (unsigned i = 0; i < f->host_count; i++) {
        struct fleet_host *h = &f->hosts[i];
        for (unsigned k = 0; !h->absent && k < FLEET_DATABASES; k++) {
            if (h->state != FLEET_READY || !truth_is_sound(h, k)) {
                return false;
            }
        }
    }
    return true;
}

static bool all_rest(void)
{
    struct fleet *f = fleet;
    for (unsigned i = 0; i < f->app_count; i++) {
        if (f->apps[i].state != APP_RESTS && !f->apps[i].host->absent) {
            return false;
        }
    }
    for (unsigned i = 0; i < f->host_count; i++) {
        for (unsigned k = 0; k < FLEET_DATABASES; k++) {
            const struct fleet_host *h = &f->hosts[i];
            if (!h->absent && (h->state != FLEET_READY || h->applied[k] != f->truth[k].version)) {
                return false;
            }
        }
    }
    return true;
}

static void tell_of_all(void)
{
    struct fleet *f = fleet;
    for (unsigned i = 0; i < f->host_count; i++) {
        const struct fleet_host *h = &f->hosts[i];
        const struct rq_driver_view view =
            h->rig.driver != NULL ? rq_driver_view(h->rig.driver) : (struct rq_driver_view){ .role = "dead" };
        printf("# host %u: state %u, %s, term %" PRIu64 ", committed %" PRIu64 ", delivered %" PRIu64 ", shows %" PRIu64
               " and %" PRIu64 "\n",
               i, h->state, view.role, view.term, view.committed, view.delivered, h->applied[0], h->applied[1]);
    }
    for (unsigned i = 0; i < f->app_count; i++) {
        const struct fleet_app *a = &f->apps[i];
        printf("# application %u at host %u: %s, state %u, commits %d, acknowledged since %u\n", i, a->host->number,
               fleet_database_names[a->database], a->state, a->commit != NULL, a->done);
    }
}

static void heal_until(bool (*done)(void), const char *what)
{
    const uint64_t end_ms = fleet->now_ms + HEAL_MS;
    while (!done()) {
        if (fleet->now_ms >= end_ms) {
            tell_of_all();
            fleet_fail("does not heal: %s", what);
        }
        millisecond();
    }
}

/* Who came later votes in the place of the one that is lost, which an operator has removed. */
static bool is_replaced(void)
{
    struct fleet *f = fleet;
    struct rq_members members;
    for (unsigned i = 0; i < f->host_count; i++) {
        struct fleet_host *h = &f->hosts[i];
        if (!host_leads_voters(h, &members)) {
            continue;
        }
        const bool there = rq_members_find(&members, f->removed->instance) != NULL;
        const struct rq_member *last = rq_members_find(&members, f->hosts[f->host_count - 1].instance);
        if (!there && last->role == RQ_MEMBER_VOTER) {
            return true;
        }
        if (there && fleet_chance(50)) {
            host_remove(h, f->removed->instance);
        }
    }
    return false;
}

/* Then another one is lost for good, as soon as the cluster may do without it: it was the last that had what nobody has fetched from it. */
static void replace_one(void)
{
    struct fleet *f = fleet;
    heal_until(is_replaced, "the one that is lost is not replaced");
    struct fleet_host *h;
    do {
        h = &f->hosts[fleet_below(f->host_count)];
    } while (h == f->removed);
    lose_for_good(h);
    f->fetch_permille = 50;
    fleet_count(FLEET_removals);
}

/* --- a seed ------------------------------------------------------------------------------------------------------------------ */

static void draw(void)
{
    static const unsigned counts[] = { 1, 3, 3, 3, 3, 3, 3, 5 };
    struct fleet *f = fleet;
    f->random = f->seed;
    f->chaos_random = seeded_next(&f->random);
    f->entropy = seeded_next(&f->random);
    f->begin_ms = f->now_ms = BEGIN_MS;
    f->host_count = f->voter_count = counts[fleet_below(8)];
    f->host_count += f->voter_count == 3 && fleet_chance(350);
    f->one_is_replaced = f->host_count > f->voter_count && fleet_chance(600);
    f->lose_body_permille = fleet_chance(f->one_is_replaced ? 800 : 300) ? 300 : 0;
    f->fetch_permille = fleet_chance(f->one_is_replaced ? 200 : 500) ? 50 : 2;
    f->app_count = f->host_count + fleet_below(f->host_count + 1);
    f->delay_ms_max = fleet_chance(700) ? 4 : 40;
    f->lose_permille = fleet_chance(500) ? 0 : fleet_below(50);
    f->crash_permille = 30 + fleet_below(250);
    f->trailing_max = fleet_chance(700) ? 20 : 300;
    f->minority_stays_down = fleet_chance(400);
    f->big_permille = fleet_chance(500) ? 50 : 400;
    f->hung_permille = fleet_chance(800) ? 0 : 20;
    f->majority_is_lost = f->host_count > 1 && !f->one_is_replaced && fleet_chance(200);
    f->compare_every_ms = 100 + fleet_below(1000);
    f->damages = f->voter_count > 1 && !f->majority_is_lost && !f->one_is_replaced && fleet_chance(500);
    if (f->damages && f->host_count == 3 && fleet_chance(150)) { /* of three only one is damaged at a time */
        f->host_count = f->voter_count = 5;
        f->app_count += 2;
    }
    f->minority_stays_down = f->minority_stays_down && !f->damages;
    f->calm_ms = f->now_ms + 700 + fleet_below(2000);
    f->chaos_at = f->now_ms + 300;
}

void fleet_run(struct fleet *f)
{
    fleet = f;
    draw();
    for (unsigned i = 0; i < f->host_count; i++) {
        host_init(&f->hosts[i], i);
    }
    for (unsigned i = 0; i < f->app_count; i++) {
        app_init(&f->apps[i], i, &f->hosts[i % f->host_count]);
    }
    if (f->damages) {
        damage_draw();
    }
    fleet_trace("%u hosts, %u applications, until %" PRIu64, f->host_count, f->app_count, f->calm_ms - f->begin_ms);
    while (f->now_ms < f->calm_ms) {
        millisecond();
    }
    calm_down();
    if (f->removed != NULL) {
        replace_one();
    }
    heal_until(all_have_written, "not every application gets something done");
    heal_until(all_are_sound, "not every damaged page is found and put right");
    f->rests = true;
    heal_until(all_rest, "not every host comes to the same end");
    for (unsigned i = 0; i < f->host_count; i++) {
        if (!f->hosts[i].absent) {
            truth_equal(&f->hosts[i]);
        }
    }
}
