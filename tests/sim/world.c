#include "tests/sim/world.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

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

static void post(struct sim_host *from, const struct raft_message *m, unsigned to)
{
    struct world *w = from->world;
    if (w->in_flight_count == SIM_IN_FLIGHT) {
        return; /* a full queue loses */
    }
    struct sim_message *s = &w->in_flight[w->in_flight_count];
    *s = (struct sim_message){ .message = *m, .to = to };
    s->message.server_id = from->id;
    s->message.server_address = from->address;
    s->due = w->now_ms + 1 + sim_below(w, w->delay_ms_max) + (sim_chance(w, 5) ? sim_below(w, 600) : 0);
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
        s->entries = take_entries(from, &m->append_entries);
    }
    w->in_flight_count++;
}

void world_send(struct sim_host *from, const struct raft_message *m)
{
    struct world *w = from->world;
    bool calm = w->now_ms >= w->calm_ms;
    for (unsigned to = 0; to < w->host_count; to++) {
        if (w->hosts[to].id != m->server_id) {
            continue;
        }
        sim_count(w, SIM_messages);
        if (!calm && (w->hosts[to].side != from->side || sim_chance(w, w->lose_permille))) {
            sim_count(w, SIM_lost_messages);
            return;
        }
        post(from, m, to);
        if (!calm && sim_chance(w, w->double_permille)) {
            sim_count(w, SIM_doubled_messages);
            post(from, m, to);
        }
        return;
    }
    sim_fail(w, "host %u sends to a stranger", from->number);
}

static void deliver(struct world *w, unsigned at)
{
    struct sim_message m = take(w, at);
    if (w->hosts[m.to].alive) {
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
    while (burst-- > 0 && h->alive && rq_node_leads(h->node)) {
        if (!host_submit(h)) {
            break;
        }
    }
}

static void chaos(struct world *w)
{
    w->chaos_at = w->now_ms + 10 + sim_below(w, 100);
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
        bool apart = sim_chance(w, 500);
        for (unsigned i = 0; i < w->host_count; i++) {
            w->hosts[i].side = apart ? sim_below(w, 2) : 0;
        }
        if (apart && w->host_count > 1) {
            sim_count(w, SIM_partitions);
        }
    }
    if (!h->alive || !sim_chance(w, w->crash_permille)) {
        return;
    }
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

static void calm_down(struct world *w)
{
    for (unsigned i = 0; i < w->host_count; i++) {
        struct sim_host *h = &w->hosts[i];
        h->full = h->slow = false;
        h->side = 0;
        h->messages_to_death = 0;
        if (h->alive) {
            record_disk_stop_at(h->disk, 0);
            record_disk_fail_sync(h->disk, 0);
        }
        h->restart_at = h->alive ? SIM_NEVER : w->now_ms;
    }
    for (unsigned down = 0; w->minority_stays_down && down < w->host_count / 2;) {
        struct sim_host *h = &w->hosts[sim_below(w, w->host_count)];
        if (!h->absent) {
            if (h->alive) {
                host_die(h, false);
            }
            h->restart_at = SIM_NEVER;
            h->absent = true;
            down++;
        }
    }
    if (w->minority_stays_down) {
        sim_count(w, SIM_minorities_down);
    }
}

/* --- what happens next --- */

enum what { NOTHING, TIMER, WRITE, REPORT, RESTART, COMPACT, MESSAGE, CLIENT, CHAOS };

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

static struct next find_next(const struct world *w)
{
    struct next next = { SIM_NEVER, NOTHING, 0 };
    for (unsigned i = 0; i < w->host_count; i++) {
        const struct sim_host *h = &w->hosts[i];
        if (!h->alive) {
            consider(&next, h->restart_at, RESTART, i);
            continue;
        }
        consider(&next, rq_node_wake_ms(h->node), TIMER, i);
        consider(&next, h->write_at, WRITE, i);
        consider(&next, h->report_at, REPORT, i);
        consider(&next, h->compact_at, COMPACT, i);
    }
    for (unsigned i = 0; i < w->in_flight_count; i++) {
        consider(&next, w->in_flight[i].due, MESSAGE, i);
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

static bool all_applied(const struct world *w)
{
    for (unsigned i = 0; i < w->host_count; i++) {
        const struct sim_host *h = &w->hosts[i];
        if (!h->absent && (!h->alive || h->cached.index < w->ledger_last)) {
            return false;
        }
    }
    return true;
}

/* After the faults: something new is committed, and then, with the clients silent, all of it is applied everywhere. */
static void heal(struct world *w)
{
    uint64_t payload_before = w->payload_last;
    calm_down(w);
    w->chaos_at = SIM_NEVER;
    while (w->client_at != SIM_NEVER || !all_applied(w)) {
        if (w->now_ms > w->calm_ms + HEAL_MS) {
            for (unsigned i = 0; i < w->host_count; i++) {
                const struct sim_host *h = &w->hosts[i];
                printf("# host %u: %s, log to %" PRIu64 ", stored %" PRIu64 ", committed %" PRIu64 ", applied %" PRIu64
                       "\n",
                       i, h->alive ? "alive" : "dead", h->last, h->stored, h->committed, h->cached.index);
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
    static const unsigned counts[] = { 1, 1, 1, 1, 3, 3, 3, 5 };
    w->random = w->seed;
    w->host_count = counts[sim_below(w, 8)];
    w->delay_ms_max = sim_chance(w, 500) ? 15 : 80;
    w->lose_permille = sim_chance(w, 500) ? 0 : sim_below(w, 80);
    w->double_permille = sim_chance(w, 500) ? 0 : sim_below(w, 80);
    w->disk_ms_max = sim_chance(w, 700) ? 8 : 80;
    w->crash_permille = 30 + sim_below(w, 300);
    w->calm_ms = 1000 + sim_below(w, 3000);
    w->minority_stays_down = w->host_count > 1 && sim_chance(w, 300);
}

void world_run(struct world *w)
{
    draw(w);
    for (unsigned i = 0; i < w->host_count; i++) {
        host_init(w, i);
    }
    sim_trace(w, "%u hosts until %" PRIu64, w->host_count, w->calm_ms);
    w->chaos_at = 100;
    while (w->now_ms < w->calm_ms) {
        step(w);
    }
    sim_trace(w, "calm");
    heal(w);
    check_end(w);
    while (w->in_flight_count > 0) {
        struct sim_message m = take(w, 0);
        message_fini(&m);
    }
    for (unsigned i = 0; i < w->host_count; i++) {
        host_fini(&w->hosts[i]);
    }
}
