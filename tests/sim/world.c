#include "tests/sim/world.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/seeded.h"

/* The core walks a conflicting tail back one entry for each round trip: 256 entries at 160 ms, and some elections. */
enum { HEAL_MS = 60000 };

uint32_t sim_below(struct world *w, uint32_t bound)
{
    assert(bound > 0);
    return seeded_below(&w->random, bound);
}

bool sim_chance(struct world *w, unsigned permille)
{
    return sim_below(w, 1000) < permille;
}

void sim_count(struct world *w, enum sim_counter c)
{
    w->counters[c]++;
}

/* --- network --- */

static struct sim_message take(struct world *w, unsigned at)
{
    struct sim_message m = w->in_flight[at];
    w->in_flight[at] = w->in_flight[--w->in_flight_count];
    return m;
}

static void message_fini(struct sim_message *m)
{
    for (unsigned i = 0; m->entries != NULL && i < m->message.append_entries.n_entries; i++) {
        rq_blob_unref(m->entries[i].blob);
    }
    free(m->entries);
}

static struct rq_log_entry *take_entries(struct sim_host *from, const struct raft_append_entries *m)
{
    struct rq_log_entry *entries = calloc(m->n_entries, sizeof *entries);
    for (unsigned i = 0; i < m->n_entries; i++) {
        enum rq_err err = rq_log_get(from->log, m->prev_log_index + 1 + i, &entries[i]);
        if (err == RQ_IO && host_disk_failed(from)) {
            free(entries);
            host_leave(from);
        }
        if (err != RQ_OK) {
            sim_fail(from->world, "host %u cannot send entry %llu: %s", from->number, m->prev_log_index + 1 + i,
                     rq_err_name(err));
        }
    }
    return entries;
}

static void post(struct sim_host *from, const struct raft_message *m, unsigned to, uint64_t removed_index,
                 const struct rq_round *round)
{
    struct world *w = from->world;
    if (w->in_flight_count == SIM_IN_FLIGHT) {
        return; /* a full queue loses */
    }
    struct sim_message *s = &w->in_flight[w->in_flight_count];
    *s =
        (struct sim_message){ .message = *m, .to = to, .to_instance = w->hosts[to].id, .removed_index = removed_index };
    s->round = round != NULL ? *round : (struct rq_round){ 0 };
    s->message.server_id = from->id;
    s->message.server_address = from->self.raft_addr;
    s->due =
        w->now_ms + 1 + sim_below(w, w->delay_ms_max); /* one random number in a statement: their order is the seed's */
    s->due += sim_chance(w, w->late_permille) ? sim_below(w, 600) : 0;
    if (removed_index == 0 && round == NULL && m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
        s->entries = take_entries(from, &m->append_entries);
    }
    w->in_flight_count++;
}

struct sim_host *world_host(struct world *w, uint64_t instance)
{
    for (unsigned i = 0; i < w->host_count; i++) {
        if (w->hosts[i].id == instance) {
            return &w->hosts[i];
        }
    }
    return NULL;
}

void world_send(struct sim_host *from, const struct raft_message *m, uint64_t removed_index,
                const struct rq_round *round)
{
    struct world *w = from->world;
    bool calm = w->now_ms >= w->calm_ms;
    const struct sim_host *host = world_host(w, m->server_id);
    sim_count(w, SIM_messages);
    if (host == NULL) {
        return; /* an instance whose disk is gone */
    }
    unsigned to = host->number;
    if (!calm && (w->deaf[from->number][to] || sim_chance(w, w->lose_permille))) {
        sim_count(w, SIM_lost_messages);
        return;
    }
    post(from, m, to, removed_index, round);
    if (!calm && sim_chance(w, w->double_permille)) {
        sim_count(w, SIM_doubled_messages);
        post(from, m, to, removed_index, round);
    }
}

static void deliver(struct world *w, unsigned at)
{
    struct sim_message m = take(w, at);
    if (w->hosts[m.to].alive && w->hosts[m.to].id == m.to_instance) {
        host_receive(&w->hosts[m.to], &m);
    }
    message_fini(&m);
}

/* --- clients and misfortune --- */

static void client(struct world *w)
{
    w->client_at = w->now_ms + 1 + sim_below(w, 30);
    struct sim_host *h = &w->hosts[sim_below(w, w->host_count)];
    unsigned burst = sim_chance(w, 10) ? RQ_NODE_UNCOMMITTED_ENTRIES_MAX + 20 : 1 + sim_below(w, 4);
    while (burst-- > 0 && h->alive && h->paused_until <= w->now_ms && rq_node_leads(h->node)) {
        if (!host_submit(h)) {
            break;
        }
    }
}

/* Every host that believes to lead is asked; the one that is wrong must not answer. */
static void read_here(struct sim_host *h)
{
    h->read_at = h->world->now_ms + 1 + sim_below(h->world, 40);
    if (rq_node_leads(h->node)) {
        host_read(h);
    }
}

static bool keeps_majority(const struct world *w, const struct rq_members *members, const struct sim_host *lost)
{
    unsigned voters = 0, kept = 0;
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        const struct sim_host *h = world_host((struct world *)(uintptr_t)w, m->instance);
        bool kept_here = h != NULL && h != lost && !h->absent;
        /* One that is to vote may be a voter before it is found to be gone. */
        if (m->role == RQ_MEMBER_VOTER || (m->votes && !kept_here)) {
            voters++;
            kept += kept_here;
        }
    }
    return voters == 0 || kept > voters / 2;
}

bool world_can_lose(const struct world *w, const struct sim_host *lost)
{
    for (unsigned i = 0; i < w->host_count; i++) {
        if (!keeps_majority(w, &w->hosts[i].members, lost)) {
            return false;
        }
    }
    return keeps_majority(w, &w->members, lost); /* a newer list may be rolled back to it */
}

/* An operator takes no healthy voter away as long as its going, together with the disks that are lost, would leave less than a
 * majority: the leader cannot know of a disk that was lost within an election's time. */
static bool may_leave(const struct world *w, const struct rq_members *members, const struct sim_host *h)
{
    struct rq_members rest = { 0 };
    unsigned voters = 0;
    for (unsigned i = 0; i < members->count; i++) {
        voters += members->list[i].role == RQ_MEMBER_VOTER;
        if (members->list[i].instance != h->id) {
            rest.list[rest.count++] = members->list[i];
        }
    }
    return (voters > 3 || h->self.role == RQ_MEMBER_STANDBY) && keeps_majority(w, &rest, NULL);
}

static struct sim_host *leader_for(struct world *w, const struct sim_host *h)
{
    for (unsigned i = 0; i < w->host_count; i++) {
        struct sim_host *l = &w->hosts[i];
        bool reached = !w->deaf[h->number][i] && !w->deaf[i][h->number];
        if (l->alive && l->paused_until <= w->now_ms && rq_node_leads(l->node) && (l == h || reached)) {
            return l;
        }
    }
    return NULL;
}

/* What it wants to be, the others know already. */
static bool is_settled(const struct sim_host *h, const struct rq_members *members)
{
    const struct rq_member *m = rq_members_find(members, h->id);
    return m != NULL && m->role == h->self.role && strcmp(m->raft_addr, h->self.raft_addr) == 0;
}

/* As a node at its start: it asks until the member list says what it wants. */
static void ask(struct sim_host *h)
{
    struct world *w = h->world;
    h->ask_at = w->now_ms + 30 + sim_below(w, 200);
    struct sim_host *leader = leader_for(w, h);
    if (leader != NULL && !h->left && !is_settled(h, &leader->members)) {
        host_join(leader, &h->self);
    }
}

static void cut_network(struct world *w)
{
    memset(w->deaf, 0, sizeof w->deaf);
    unsigned shape = sim_below(w, 6), one = sim_below(w, w->host_count);
    for (unsigned a = 0; a < w->host_count; a++) {
        unsigned side_of_a = sim_below(w, 2);
        for (unsigned b = 0; b < w->host_count; b++) {
            bool side = sim_below(w, 2) != side_of_a;
            switch (shape) {
                case 0: /* any links, each way for itself */
                    w->deaf[a][b] = side && a != b;
                    break;
                case 1: /* one is cut off */
                    w->deaf[a][b] = (a == one) != (b == one);
                    break;
                case 2: /* one is not heard */
                    w->deaf[a][b] = a == one && b != one;
                    break;
                case 3: /* one hears nothing */
                    w->deaf[a][b] = b == one && a != one;
                    break;
                case 4: /* two halves with a bridge */
                    w->deaf[a][b] = a != one && b != one && a % 2 != b % 2;
                    break;
                default: /* healed */
                    break;
            }
        }
    }
    if (shape < 5 && w->host_count > 1) {
        sim_count(w, shape == 0 || shape == 2 || shape == 3 ? SIM_one_way_partitions : SIM_partitions);
    }
}

static void die_somehow(struct sim_host *h)
{
    struct world *w = h->world;
    switch (sim_below(w, 5)) {
        case 0:
            host_die(h, false);
            break;
        case 1:
            host_die(h, true);
            break;
        case 2:
            record_disk_stop_at(h->disk, 1 + sim_below(w, 8));
            break;
        case 3:
            record_disk_fail_sync(h->disk, 1 + sim_below(w, 4));
            sim_count(w, SIM_failed_syncs);
            break;
        default:
            h->messages_to_death = 1 + sim_below(w, 6);
            break;
    }
}

/* An operator, or a container platform. */
static void change_members(struct world *w, struct sim_host *h)
{
    struct sim_host *leader = leader_for(w, h);
    switch (sim_below(w, 4)) {
        case 0:
            if (!h->fresh && world_can_lose(w, h)) {
                host_wipe(h);
            }
            break;
        case 1:
            if (h->alive) { /* it moves */
                h->self.raft_addr[0] = h->self.raft_addr[0] == 'h' ? 'H' : 'h';
            }
            break;
        default:
            if (leader != NULL && !h->left && may_leave(w, &leader->members, h)) {
                h->left = host_remove(leader, h->id) && h != leader;
            }
            break;
    }
}

static void chaos_event(struct world *w)
{
    struct sim_host *h = &w->hosts[sim_below(w, w->host_count)];
    if (sim_chance(w, 100)) {
        h->full = !h->full;
        if (h->full) {
            sim_count(w, SIM_full_disks);
        }
    }
    if (sim_chance(w, 50)) {
        h->slow = !h->slow;
        if (h->slow) {
            sim_count(w, SIM_slow_disks);
        }
    }
    if (sim_chance(w, 50)) {
        cut_network(w);
    }
    if (sim_chance(w, 50)) {
        h->paused_until = w->now_ms + sim_below(w, 1500);
        h->timer_from = h->paused_until + sim_below(w, 20); /* first comes what waits in its sockets */
        sim_count(w, SIM_pauses);
    }
    if (sim_chance(w, 50) && h->alive && rq_node_leads(h->node)) {
        host_transfer(h, sim_chance(w, 500) ? 0 : w->hosts[sim_below(w, w->host_count)].id);
    }
    if (w->members_change && sim_chance(w, 150)) {
        change_members(w, h);
    } else if (h->alive && sim_chance(w, w->crash_permille)) {
        die_somehow(h);
    }
}

static void chaos(struct world *w)
{
    uint64_t others = w->random;
    w->random = w->chaos_random + w->chaos_count * 0x9e3779b97f4a7c15ull;
    w->chaos_at = w->now_ms + 10 + sim_below(w, 100);
    if (w->chaos_count < SWEEP_CHAOS_MAX && !w->without->chaos[w->chaos_count]) {
        chaos_event(w);
    }
    w->chaos_count++;
    w->random = others;
}

static void calm_down(struct world *w)
{
    memset(w->deaf, 0, sizeof w->deaf);
    for (unsigned i = 0; i < w->host_count; i++) {
        struct sim_host *h = &w->hosts[i];
        h->full = h->slow = false;
        h->paused_until = h->timer_from = 0;
        h->messages_to_death = 0;
        if (h->alive) {
            record_disk_stop_at(h->disk, 0);
            record_disk_fail_sync(h->disk, 0);
        }
        h->restart_at = h->alive ? SIM_NEVER : w->now_ms;
    }
    for (unsigned tries = 0; w->minority_stays_down && tries < 2 * w->host_count; tries++) {
        struct sim_host *h = &w->hosts[sim_below(w, w->host_count)];
        if (!h->absent && is_settled(h, &w->members) && world_can_lose(w, h)) {
            if (h->alive) {
                host_die(h, false);
            }
            h->restart_at = SIM_NEVER;
            h->absent = true;
        }
    }
    if (w->minority_stays_down) {
        sim_count(w, SIM_minorities_down);
    }
}

/* --- what happens next --- */

enum what { NOTHING, READ, TIMER, WRITE, REPORT, RESTART, COMPACT, INSTALL, ASK, MESSAGE, CLIENT, CHAOS };

struct next {
    uint64_t at;
    enum what what;
    unsigned which;
};

static void consider(struct next *next, uint64_t at, enum what what, unsigned which)
{
    if (at < next->at) {
        *next = (struct next){ at, what, which };
    }
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static struct next find_next(const struct world *w)
{
    struct next next = { SIM_NEVER, NOTHING, 0 };
    for (unsigned i = 0; i < w->host_count; i++) {
        const struct sim_host *h = &w->hosts[i];
        if (!h->alive) {
            consider(&next, h->restart_at, RESTART, i);
            continue;
        }
        uint64_t from = h->paused_until;
        consider(&next, later(h->read_at, from), READ, i);
        consider(&next, later(rq_node_wake_ms(h->node), later(from, h->timer_from)), TIMER, i);
        consider(&next, later(h->write_at, from), WRITE, i);
        consider(&next, later(h->report_at, from), REPORT, i);
        consider(&next, later(h->compact_at, from), COMPACT, i);
        consider(&next, later(h->install_at, from), INSTALL, i);
        consider(&next, later(h->ask_at, from), ASK, i);
    }
    for (unsigned i = 0; i < w->in_flight_count; i++) {
        const struct sim_message *m = &w->in_flight[i];
        consider(&next, later(m->due, w->hosts[m->to].paused_until), MESSAGE, i);
    }
    consider(&next, w->client_at, CLIENT, 0);
    consider(&next, w->chaos_at, CHAOS, 0);
    return next;
}

static void step(struct world *w)
{
    struct next next = find_next(w);
    struct sim_host *h = &w->hosts[next.which % SIM_HOSTS_MAX];
    if (next.at > w->now_ms) {
        w->now_ms = next.at;
    }
    switch (next.what) {
        case READ:
            read_here(h);
            break;
        case TIMER:
            host_timer(h);
            break;
        case WRITE:
            host_write(h);
            break;
        case REPORT:
            host_report(h);
            break;
        case RESTART:
            host_start(h);
            break;
        case COMPACT:
            host_compact(h);
            break;
        case INSTALL:
            host_install(h);
            break;
        case ASK:
            ask(h);
            break;
        case MESSAGE:
            deliver(w, next.which);
            break;
        case CLIENT:
            client(w);
            break;
        case CHAOS:
            chaos(w);
            break;
        case NOTHING:
            sim_fail(w, "nothing will ever happen again");
    }
}

static bool all_settled(const struct world *w)
{
    for (unsigned i = 0; i < w->host_count; i++) {
        const struct sim_host *h = &w->hosts[i];
        bool member = rq_members_find(&w->members, h->id) != NULL;
        if (!h->absent &&
            (!h->alive || (member && h->cached.index < w->ledger_last) || (!h->left && !is_settled(h, &w->members)))) {
            return false;
        }
    }
    for (unsigned i = 0; i < w->members.count; i++) { /* nobody whose disk is gone, and whose host is here */
        uint64_t instance = w->members.list[i].instance;
        if (world_host((struct world *)(uintptr_t)w, instance) == NULL && !w->hosts[instance % 100].left) {
            return false;
        }
    }
    return true;
}

/* After the faults: something new is committed, everybody is the member that it wants to be, and then, with the clients silent, all
 * is applied everywhere. */
static void heal(struct world *w)
{
    uint64_t payload_before = w->payload_last;
    calm_down(w);
    w->chaos_at = SIM_NEVER;
    while (w->client_at != SIM_NEVER || !all_settled(w)) {
        if (w->now_ms > w->calm_ms + HEAL_MS) {
            for (unsigned i = 0; i < w->host_count; i++) {
                const struct sim_host *h = &w->hosts[i];
                printf("# host %u (%" PRIu64 "): %s%s%s, term %" PRIu64 ", log to %" PRIu64 ", stored %" PRIu64
                       ", committed %" PRIu64 ", applied %" PRIu64 "\n",
                       i, h->id, h->alive ? rq_node_role(h->node) : "dead", h->left ? ", left" : "",
                       h->absent ? ", absent" : "", h->meta_term, h->last, h->stored, h->committed, h->cached.index);
                for (unsigned k = 0; k < h->members.count; k++) {
                    printf("#   %" PRIu64 " %s\n", h->members.list[k].instance,
                           h->members.list[k].role == RQ_MEMBER_VOTER ? "voter" : "standby");
                }
            }
            sim_fail(w, "does not heal: committed %" PRIu64, w->ledger_last);
        }
        if (w->ledger[w->ledger_last].payload > payload_before) {
            w->client_at = SIM_NEVER;
        }
        step(w);
    }
}

/* What differs from seed to seed, so that runs differ in kind. */
static void draw(struct world *w)
{
    static const unsigned counts[] = { 1, 1, 3, 3, 3, 3, 3, 5 };
    w->random = w->seed;
    w->chaos_random = seeded_next(&w->random);
    w->founder_count = w->host_count = counts[sim_below(w, 8)];
    w->members_change = sim_chance(w, 500);
    if (w->members_change) {
        w->host_count += 1 + sim_below(w, SIM_HOSTS_MAX - w->host_count);
    }
    w->delay_ms_max = sim_chance(w, 500) ? 15 : 80;
    w->late_permille = 5;
    w->lose_permille = sim_chance(w, 500) ? 0 : sim_below(w, 80);
    w->double_permille = sim_chance(w, 500) ? 0 : sim_below(w, 80);
    w->disk_ms_max = sim_chance(w, 700) ? 8 : 80;
    w->crash_permille = 30 + sim_below(w, 300);
    w->calm_ms = 1000 + sim_below(w, 3000);
    w->minority_stays_down = w->host_count > 1 && sim_chance(w, 300);
}

static void begin(struct world *w)
{
    for (unsigned i = 0; i < w->host_count; i++) {
        host_init(w, i);
    }
}

static void end(struct world *w)
{
    while (w->in_flight_count > 0) {
        struct sim_message m = take(w, 0);
        message_fini(&m);
    }
    for (unsigned i = 0; i < w->host_count; i++) {
        host_fini(&w->hosts[i]);
    }
}

void world_run(struct world *w)
{
    draw(w);
    begin(w);
    sim_trace(w, "%u hosts until %" PRIu64, w->host_count, w->calm_ms);
    w->chaos_at = 100;
    while (w->now_ms < w->calm_ms) {
        step(w);
    }
    sim_trace(w, "calm");
    heal(w);
    check_end(w);
    end(w);
}

static struct sim_host *leader(struct world *w)
{
    for (unsigned i = 0; i < w->host_count; i++) {
        if (w->hosts[i].alive && rq_node_leads(w->hosts[i].node)) {
            return &w->hosts[i];
        }
    }
    return NULL;
}

uint64_t world_failover_ms(struct world *w, unsigned hosts)
{
    struct sim_host *dead;
    w->random = w->seed;
    w->founder_count = w->host_count = hosts;
    w->delay_ms_max = 2;
    w->disk_ms_max = 4;
    w->chaos_at = SIM_NEVER;
    begin(w);
    uint64_t death_ms = 2000 + sim_below(w, 1000);
    while (w->now_ms < death_ms || (dead = leader(w)) == NULL) {
        step(w);
    }
    host_die(dead, false);
    dead->restart_at = SIM_NEVER;
    death_ms = w->now_ms;
    while (leader(w) == NULL) {
        step(w);
    }
    uint64_t ms = w->now_ms - death_ms;
    end(w);
    return ms;
}
