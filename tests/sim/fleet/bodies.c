/* Staged bodies from host to host, as raftd/cluster/bodies.c brings and fetches them, without its threads and streams: a body is one
 * message, and what is lost is sent again. */
#include "raftd/cluster/bodies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/staged.h"
#include "raftd/db/staged_copy.h"
#include "raftd/ops/journal.h"
#include "tests/sim/fleet/fleet.h"

enum { AGAIN_MS = 200 };

struct courier {
    uint64_t instance, due_ms;
    bool done, counts; /* counts: it votes */
};

struct rq_carriage {
    struct rq_carriage *next;
    struct rq_bodies *bodies;
    uint64_t id;
    struct rq_entry_staged entry;
    uint8_t *data; /* owns: the body */
    unsigned majority, durable, voters, courier_count;
    bool votes; /* this host, when it was begun */
    struct courier couriers[FLEET_HOSTS_MAX];
    void (*done)(void *ctx);
    void *ctx;
};

struct want {
    struct want *next;
    struct rq_entry_staged entry;
    void (*done)(void *ctx, enum rq_err err);
    void *ctx;
};

struct rq_bodies {
    struct rq_bodies_config config;
    struct rq_carrier carrier;
    struct fleet_host *host;
    struct rq_carriage *carriages;
    uint64_t carriage_last;
    struct want *wants;
};

static void fatal_if_io(enum rq_err err)
{
    if (err == RQ_IO) {
        rq_fatal("a staged body could not be written", err);
    }
}

static enum rq_err read_body(const struct rq_bodies *b, struct rq_file *file, uint64_t bytes, uint8_t **ret_data)
{
    size_t n = 0;
    *ret_data = malloc(bytes);
    enum rq_err err = b->config.disk->ops->read(file, *ret_data, bytes, 0, &n);
    rq_shelf_close(b->config.shelf, file);
    if (err == RQ_OK && n < bytes) {
        err = RQ_CORRUPT;
    }
    if (err != RQ_OK) {
        free(*ret_data);
        *ret_data = NULL;
    }
    return err;
}

/* Durable here, and under its name. */
static enum rq_err keep_body(const struct rq_bodies *b, const struct rq_entry_staged *entry, const uint8_t *data)
{
    struct rq_file *file;
    struct rq_staged_copy *copy;
    struct rq_disk *disk = b->config.disk;
    if (rq_staged_open_file(disk, b->config.staged_dir, entry->hash, entry->body_bytes, &file) == RQ_OK) {
        disk->ops->close(file);
        return disk->ops->sync_dir(disk, b->config.staged_dir);
    }
    enum rq_err err = rq_staged_copy_new(disk, b->config.staged_dir, entry->hash, entry->body_bytes, false, &copy);
    if (err == RQ_OK) {
        err = rq_staged_copy_add(copy, data, entry->body_bytes);
        err = err == RQ_OK ? rq_staged_copy_seal(copy) : err;
        rq_staged_copy_free(copy);
    }
    return err;
}

/* --- bringing ------------------------------------------------------------------------------------------------------------ */

static bool on_is_alone(void *ctx)
{
    const struct rq_bodies *b = ctx;
    struct rq_members members;
    b->config.members(b->config.ctx, &members);
    return rq_members_are_only(&members, b->config.instance);
}

static enum rq_err on_bring(void *ctx, const struct rq_entry_staged *entry, struct rq_file *file,
                            void (*done)(void *ctx), void *done_ctx, struct rq_carriage **ret_carriage)
{
    struct rq_bodies *b = ctx;
    struct rq_members members;
    uint8_t *data;
    unsigned voters = 0;
    enum rq_err err = RQ_OK;
    if (file != NULL) {
        rq_shelf_reads(b->config.shelf);
    } else {
        err = rq_shelf_open(b->config.shelf, entry->hash, entry->body_bytes, &file);
    }
    err = err == RQ_OK ? read_body(b, file, entry->body_bytes, &data) : err;
    if (err != RQ_OK) {
        return err;
    }
    struct rq_carriage *c = calloc(1, sizeof *c);
    *c = (struct rq_carriage){ .next = b->carriages,
                               .bodies = b,
                               .id = ++b->carriage_last,
                               .entry = *entry,
                               .data = data,
                               .done = done,
                               .ctx = done_ctx };
    b->config.members(b->config.ctx, &members);
    for (unsigned i = 0; i < members.count; i++) {
        const struct rq_member *m = &members.list[i];
        voters += m->role == RQ_MEMBER_VOTER;
        const bool counts = m->role == RQ_MEMBER_VOTER;
        if ((counts || m->votes) && m->instance != b->config.instance) {
            c->couriers[c->courier_count++] = (struct courier){ .instance = m->instance, .counts = counts };
            c->voters += counts;
        }
    }
    c->majority = voters / 2 + 1;
    c->durable = voters - c->voters; /* here, when the caller has synced it */
    c->votes = c->durable > 0;
    b->carriages = c;
    *ret_carriage = c;
    return RQ_OK;
}

static void on_holders(void *ctx, struct rq_carriage *c, struct rq_instances *ret_holders)
{
    const struct rq_bodies *b = ctx;
    *ret_holders = (struct rq_instances){ 1, { b->config.instance } };
    for (unsigned i = 0; c != NULL && i < c->courier_count; i++) {
        if (c->couriers[i].done || fleet_plant == FLEET_PLANT_EARLY_BODY) {
            ret_holders->list[ret_holders->count++] = c->couriers[i].instance;
        }
    }
}

/* Are the voters those that it is brought to? */
static bool is_for(const struct rq_carriage *c, const struct rq_members *members)
{
    unsigned others = 0, known = 0;
    bool votes = false;
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        const bool self = m->instance == c->bodies->config.instance, voter = m->role == RQ_MEMBER_VOTER;
        votes = votes || (voter && self);
        others += voter && !self;
        for (unsigned k = 0; voter && k < c->courier_count; k++) {
            known += c->couriers[k].counts && c->couriers[k].instance == m->instance;
        }
    }
    return others == known && others == c->voters && votes == c->votes;
}

static enum rq_carriage_state on_state(struct rq_carriage *c)
{
    struct rq_bodies *b = c->bodies;
    struct rq_members members;
    struct rq_instances holders;
    unsigned reached = 0;
    b->config.members(b->config.ctx, &members);
    on_holders(b, c, &holders);
    for (unsigned i = 0; i < c->courier_count; i++) {
        const struct fleet_host *to = net_host(c->couriers[i].instance);
        reached += c->couriers[i].counts && !c->couriers[i].done && to != NULL && net_linked(c->bodies->host, to);
    }
    return rq_members_are_majority(&members, &holders) ? RQ_CARRIAGE_DONE
           : !is_for(c, &members)                      ? RQ_CARRIAGE_PAST
           : c->durable + reached >= c->majority       ? RQ_CARRIAGE_MOVES
                                                       : RQ_CARRIAGE_WAITS;
}

static void on_leave(struct rq_carriage *c)
{
    struct rq_carriage **at = &c->bodies->carriages;
    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    free(c->data);
    free(c);
}

static void bring(struct rq_carriage *c, struct courier *courier)
{
    const struct fleet_host *from = c->bodies->host, *to = net_host(courier->instance);
    if (to == NULL || !net_linked(from, to)) {
        return;
    }
    courier->due_ms = fleet->now_ms + AGAIN_MS;
    if (fleet_chance(fleet->lose_body_permille)) {
        return;
    }
    struct fleet_message m = { .kind = FLEET_BODY, .from = from->number, .to = to->number, .to_life = to->life };
    m.id = c->id;
    m.body = c->entry;
    m.bytes = c->entry.body_bytes;
    m.data = malloc(m.bytes);
    memcpy(m.data, c->data, m.bytes);
    net_send(&m, fleet_below(5 * fleet->delay_ms_max + 1));
}

void bodies_receive(struct fleet_host *h, const struct fleet_message *m)
{
    const struct rq_bodies *b = h->bodies;
    struct fleet_message taken = { .kind = FLEET_BODY_TAKEN, .from = h->number, .to = m->from };
    enum rq_err err =
        b == NULL ? RQ_UNREADY : rq_shelf_expect(b->config.shelf, m->body.hash, m->body.origin, RQ_SHELF_EXPECT_LOOKS);
    if (err == RQ_OK) {
        err = keep_body(b, &m->body, m->data);
        fatal_if_io(err);
    }
    fleet_trace("host %u takes body %02x%02x of host %u: %s", h->number, m->body.hash[0], m->body.hash[1], m->from,
                rq_err_name(err));
    if (err == RQ_OK) {
        taken.to_life = m->from_life;
        taken.id = m->id;
        taken.data = calloc(1, 1);
        taken.body = m->body;
        net_send(&taken, fleet_below(fleet->delay_ms_max + 1));
    }
}

void bodies_taken(struct fleet_host *h, const struct fleet_message *m)
{
    struct rq_carriage *c = h->bodies->carriages;
    while (c != NULL && c->id != m->id) {
        c = c->next;
    }
    for (unsigned i = 0; c != NULL && i < c->courier_count; i++) {
        struct courier *courier = &c->couriers[i];
        if (courier->instance == fleet->hosts[m->from].instance && !courier->done) {
            courier->done = true;
            fleet_count(FLEET_bodies_brought);
            if (courier->counts && ++c->durable == c->majority) {
                c->done(c->ctx);
            }
        }
    }
}

/* --- fetching ------------------------------------------------------------------------------------------------------------ */

static void on_fetch(void *ctx, const struct rq_entry_staged *entry, void (*done)(void *ctx, enum rq_err err),
                     void *done_ctx)
{
    struct rq_bodies *b = ctx;
    struct want *w = calloc(1, sizeof *w);
    *w = (struct want){ b->wants, *entry, done, done_ctx };
    fleet_trace("host %u lacks body %02x%02x", b->host->number, entry->hash[0], entry->hash[1]);
    b->wants = w;
}

struct giving {
    const struct fleet_host *from;
    const struct rq_entry_staged *entry;
    uint8_t *data;
    enum rq_err err;
};

static void give(void *ctx)
{
    struct giving *g = ctx;
    struct rq_file *file;
    const struct rq_bodies *b = g->from->bodies;
    g->err = rq_shelf_open(b->config.shelf, g->entry->hash, g->entry->body_bytes, &file);
    if (g->err == RQ_OK) {
        g->err = read_body(b, file, g->entry->body_bytes, &g->data);
    }
}

/* As there: OK, it is here; NOTFOUND, every other member says that it has it not, or a majority of the voters; else another time. */
static enum rq_err fetch(const struct rq_bodies *b, const struct want *w)
{
    struct rq_members members;
    struct rq_instances lack = { 1, { b->config.instance } };
    unsigned others = 0;
    b->config.members(b->config.ctx, &members);
    for (unsigned i = 0; i < members.count; i++) {
        struct fleet_host *from = net_host(members.list[i].instance);
        if (from == b->host) {
            continue;
        }
        others++;
        struct giving g = { from, &w->entry, NULL, RQ_AWAY };
        if (host_works(from) && from->bodies != NULL && net_linked(b->host, from) && !host_run(from, give, &g)) {
            g.err = RQ_AWAY;
        }
        if (g.err == RQ_OK) {
            enum rq_err err = keep_body(b, &w->entry, g.data);
            free(g.data);
            fatal_if_io(err);
            return err;
        }
        if (g.err == RQ_NOTFOUND) {
            lack.list[lack.count++] = from->instance;
        }
    }
    const bool nowhere = lack.count > others || rq_members_are_majority(&members, &lack);
    return (others > 0 && nowhere) || b->config.is_superseded(b->config.ctx) ? RQ_NOTFOUND : RQ_AWAY;
}

static void tick(void *ctx)
{
    struct rq_bodies *b = ctx;
    for (struct rq_carriage *c = b->carriages; c != NULL; c = c->next) {
        for (unsigned i = 0; i < c->courier_count && c->durable < c->majority; i++) {
            if (!c->couriers[i].done && fleet->now_ms >= c->couriers[i].due_ms) {
                bring(c, &c->couriers[i]);
            }
        }
    }
    struct want *w = b->wants;
    if (w != NULL && fleet_chance(fleet->fetch_permille)) {
        const enum rq_err err = fetch(b, w);
        if (err == RQ_OK || err == RQ_NOTFOUND) {
            b->wants = w->next;
            fleet_count(err == RQ_OK ? FLEET_bodies_fetched : FLEET_bodies_nowhere);
            w->done(w->ctx, err);
            free(w);
        }
    }
}

void bodies_tick(struct fleet_host *h)
{
    if (h->bodies != NULL && (h->bodies->carriages != NULL || h->bodies->wants != NULL)) {
        (void)host_run(h, tick, h->bodies);
    }
}

/* --- in place of raftd/cluster/bodies.c ------------------------------------------------------------------------------------- */

enum rq_err rq_bodies_new(const struct rq_bodies_config *config, struct rq_bodies **ret_bodies)
{
    struct rq_bodies *b = calloc(1, sizeof *b);
    b->config = *config;
    b->carrier = (struct rq_carrier){ b, on_is_alone, on_bring, on_fetch, on_state, on_holders, on_leave };
    b->host = fleet->current;
    b->host->bodies = b;
    *ret_bodies = b;
    return RQ_OK;
}

void rq_bodies_free(struct rq_bodies *b)
{
    free(b);
}

const struct rq_carrier *rq_bodies_carrier(struct rq_bodies *b)
{
    return &b->carrier;
}

/* There are no streams here. */
enum rq_err rq_bodies_stream(struct rq_bodies *b, struct rq_stream *stream, const uint8_t *head, size_t head_bytes,
                             const struct rq_stream_ops **ret_ops, void **ret_ctx, char text[RQ_TEXT_MAX + 1])
{
    (void)b, (void)stream, (void)head, (void)head_bytes, (void)ret_ops, (void)ret_ctx;
    (void)snprintf(text, RQ_TEXT_MAX + 1, "no streams here");
    return RQ_UNREADY;
}
