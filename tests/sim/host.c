#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/node/filter.h"
#include "raftd/wire/bytes.h"
#include "tests/sim/world.h"
#include "tests/support/seeded.h"

enum {
    SEGMENT_BYTES = 64 * 1024,
    CACHE_BYTES = 8 * 1024,
    PAYLOAD_BYTES_MAX = 3000,
};

/* --- a disk that can be full: what exists can be written, nothing grows --- */

static struct world *disks_of;           /* the one world of this process */
static const struct rq_disk_ops *record; /* as the recording disk has them */
static struct rq_disk_ops limited;

static bool would_overflow(struct rq_file *f, uint64_t end)
{
    struct rq_file_info info;
    for (unsigned i = 0; i < disks_of->host_count; i++) {
        const struct sim_host *h = &disks_of->hosts[i];
        if (&h->disk->disk == f->disk) {
            return h->full && record->info(f, &info) == RQ_OK && end > info.size;
        }
    }
    return false;
}

static enum rq_err outcome(const struct rq_file *f, enum rq_err err)
{
    for (unsigned i = 0; i < disks_of->host_count && err == RQ_IO; i++) {
        err = &disks_of->hosts[i].disk->disk == f->disk ? plant_outcome(&disks_of->hosts[i], err) : err;
    }
    return err;
}

static enum rq_err limited_write(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    return would_overflow(f, offset + bytes) ? RQ_FULL : outcome(f, record->write(f, data, bytes, offset));
}

static enum rq_err limited_writev(struct rq_file *f, struct iovec *parts, int part_count, uint64_t offset)
{
    uint64_t bytes = 0;
    for (int i = 0; i < part_count; i++) {
        bytes += parts[i].iov_len;
    }
    return would_overflow(f, offset + bytes) ? RQ_FULL : outcome(f, record->writev(f, parts, part_count, offset));
}

static enum rq_err limited_reserve(struct rq_file *f, uint64_t offset, uint64_t bytes)
{
    return would_overflow(f, offset + bytes) ? RQ_FULL : record->reserve(f, offset, bytes);
}

static void limit_disk(struct sim_host *h)
{
    disks_of = h->world;
    record = h->disk->disk.ops;
    limited = *record;
    limited.write = limited_write;
    limited.writev = limited_writev;
    limited.reserve = limited_reserve;
    h->disk->disk.ops = &limited;
}

/* --- what the node sees of the world --- */

static uint64_t env_now_ms(void *ctx)
{
    const struct sim_host *h = ctx;
    return h->world->now_ms;
}

static uint64_t disk_ms(struct sim_host *h)
{
    struct world *w = h->world;
    uint64_t ms = w->now_ms + sim_below(w, w->disk_ms_max + 1);
    return ms + (h->slow ? sim_below(w, 500) : 0);
}

static void env_write_wanted(void *ctx)
{
    struct sim_host *h = ctx;
    check_appended(h);
    if (h->write_at == SIM_NEVER) {
        h->write_at = disk_ms(h);
    }
}

void host_leave(struct sim_host *h)
{
    longjmp(h->world->on_death, 1);
}

bool host_disk_failed(const struct sim_host *h)
{
    return h->disk->stopped || h->disk->syncs == h->disk->fail_sync;
}

static void env_send(void *ctx, const struct raft_message *m)
{
    struct sim_host *h = ctx;
    bool last_message = h->messages_to_death == 1;
    h->messages_to_death -= h->messages_to_death > 0;
    if (last_message) {
        sim_count(h->world, SIM_deaths_between_messages);
        host_leave(h);
    }
    struct raft_message sent = *m;
    if (m->type == RAFT_REQUEST_VOTE_RESULT && m->request_vote_result.vote_granted &&
        !rq_filter_is_voter(&rq_node_core(h->node)->raft.configuration, h->id)) {
        sim_count(h->world, SIM_votes_without_a_vote);
    }
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.version == RQ_CORE_NOTICE) {
        sim_count(h->world, SIM_notices);
    }
    check_sent(h, m);
    plant_message(h, &sent);
    world_send(h, &sent, 0, NULL);
}

static void env_send_round(void *ctx, uint64_t to, const struct rq_round *round)
{
    world_send(ctx, &(struct raft_message){ .server_id = to }, 0, round);
}

static void env_tell_removed(void *ctx, uint64_t instance, uint64_t index)
{
    world_send(ctx, &(struct raft_message){ .server_id = instance }, index, NULL);
}

/* Only a disk that died or failed may end a node. */
static void env_fatal(void *ctx, const char *why, enum rq_err err)
{
    struct sim_host *h = ctx;
    if (err != RQ_IO || !host_disk_failed(h)) {
        sim_fail(h->world, "host %u: %s: %s", h->number, why, rq_err_name(err));
    }
    sim_trace(h->world, "host %u ends: %s", h->number, why);
    host_leave(h);
}

/* --- the state machine --- */

uint64_t host_payload(const struct rq_log_entry *e)
{
    return e->type == RQ_ENTRY_TXN && e->blob != NULL && e->blob->bytes >= 8 ? rq_get_u64(e->blob->data) : 0;
}

static void machine_committed(void *ctx, const struct rq_log_entry *e)
{
    check_delivered(ctx, e);
}

static void machine_install(void *ctx, uint64_t index, uint64_t term, uint64_t leader_id)
{
    struct sim_host *h = ctx;
    (void)term;
    h->install_index = index;
    h->install_from = leader_id;
    if (h->install_at == SIM_NEVER) {
        h->install_at = h->world->now_ms + 1 + sim_below(h->world, 300);
    }
}

static void machine_removed(void *ctx)
{
    struct sim_host *h = ctx;
    sim_trace(h->world, "host %u learns that it was removed", h->number);
    sim_count(h->world, SIM_removed_told);
}

static void machine_role(void *ctx, bool leads, uint64_t term, uint64_t leader_id)
{
    const struct sim_host *h = ctx;
    sim_trace(h->world, "host %u: leads %d, term %" PRIu64 ", leader %" PRIu64, h->number, leads, term, leader_id);
}

/* --- life and death --- */

static void new_instance(struct sim_host *h)
{
    h->id = 100 * (h->wipes + 1u) + h->number;
    h->self = (struct rq_member){ .instance = h->id, .role = RQ_MEMBER_VOTER, .votes = true };
    h->self.key[0] = (uint8_t)h->id;
    h->self.key[1] = (uint8_t)(h->id >> 8);
    snprintf(h->self.name, sizeof h->self.name, "n%u", h->number);
    snprintf(h->self.raft_addr, sizeof h->self.raft_addr, "host%u:4002", h->number);
    snprintf(h->self.http_addr, sizeof h->self.http_addr, "host%u:4001", h->number);
    h->self.votes = h->founder || h->number % 5 != 4;
    h->self.role = h->self.votes ? RQ_MEMBER_VOTER : RQ_MEMBER_STANDBY;
    h->fresh = true;
    h->disk = record_disk_new();
    record_disk_mkdir_p(h->disk, "/raft");
    limit_disk(h);
}

void host_init(struct world *w, unsigned number)
{
    struct sim_host *h = &w->hosts[number]; /* zero, and mostly pages that nobody will touch */
    h->world = w;
    h->number = number;
    h->write_at = h->report_at = h->compact_at = h->install_at = h->ask_at = SIM_NEVER;
    h->founder = number < w->founder_count;
    h->trailing = sim_below(w, 12);
    h->restart_at = h->founder ? 0 : sim_below(w, 600);
    new_instance(h);
}

static void close_all(struct sim_host *h)
{
    rq_node_free(h->node);
    if (h->log != NULL) {
        rq_log_close(h->log);
    }
    h->node = NULL;
    h->log = NULL;
    h->alive = false;
    h->write_at = h->report_at = h->compact_at = h->install_at = h->ask_at = SIM_NEVER;
    h->paused_until = h->timer_from = 0;
    h->messages_to_death = 0;
}

void host_fini(struct sim_host *h)
{
    close_all(h);
    record_disk_free(h->disk);
    free(h->descriptor.configuration);
}

void host_die(struct sim_host *h, bool power_loss)
{
    struct world *w = h->world;
    sim_trace(w, "host %u dies of %s: last %" PRIu64 ", stored %" PRIu64, h->number,
              power_loss ? "power loss" : "a crash", h->last, h->stored);
    sim_count(w, power_loss ? SIM_power_losses : SIM_process_crashes);
    if (power_loss) {
        record_disk_power_loss(h->disk, seeded_next(&w->random));
        h->cached = h->synced;
    } else {
        record_disk_crash(h->disk);
    }
    close_all(h);
    h->restart_at = w->now_ms + 5 + sim_below(w, 800);
}

void host_wipe(struct sim_host *h)
{
    struct world *w = h->world;
    if (h->alive) {
        host_die(h, false);
    }
    sim_trace(w, "host %u loses its disk", h->number);
    sim_count(w, SIM_wipes);
    w->lost[w->lost_count % SIM_LOST_MAX].instance = h->id;
    w->lost[w->lost_count++ % SIM_LOST_MAX].stored = h->stored;
    record_disk_free(h->disk);
    free(h->descriptor.configuration);
    h->descriptor = (struct sim_descriptor){ 0 };
    h->cached = h->synced = (struct sim_state){ 0 };
    h->last = h->stored = h->committed = h->delivered = h->change_at = 0;
    h->members.count = 0;
    h->members_key = 0;
    h->meta_term = h->meta_vote = 0;
    memset(h->terms, 0, sizeof h->terms);
    memset(h->changes, 0, sizeof h->changes);
    h->wipes += sim_plant != SIM_PLANT_SAME_INSTANCE;
    h->founder = h->left = false;
    new_instance(h);
}

/* A death inside a call may be the whole machine's. */
static void bury(struct sim_host *h)
{
    if (h->disk->stopped) {
        sim_count(h->world, SIM_deaths_in_a_disk_call);
    }
    host_die(h, sim_chance(h->world, 500));
}

static enum rq_err found_cluster(struct sim_host *h)
{
    const struct world *w = h->world;
    struct rq_members members = { .count = w->founder_count };
    for (unsigned i = 0; i < w->founder_count; i++) {
        members.list[i] = w->hosts[i].self;
    }
    return rq_node_found(h->log, &members);
}

static enum rq_err open_log(struct sim_host *h, struct rq_log_found *found)
{
    struct rq_log_config config = {
        .disk = &h->disk->disk,
        .dir = "/raft",
        .instance = h->id,
        .segment_bytes = SEGMENT_BYTES,
        .cache_bytes = CACHE_BYTES,
        .create = h->fresh,
        .first_index = 1,
    };
    return rq_log_open(&config, &h->log, found);
}

static enum rq_err start_node(struct sim_host *h, const struct rq_log_found *found)
{
    struct world *w = h->world;
    struct rq_node_config config = {
        .id = h->id,
        .address = h->self.raft_addr,
        .seed = seeded_next(&w->random),
        .election_timeout_ms = RQ_NODE_ELECTION_MS,
        .heartbeat_ms = RQ_NODE_HEARTBEAT_MS,
        .found = *found,
        .snapshot_index = h->descriptor.state.index,
        .snapshot_term = h->descriptor.state.term,
        .snapshot_configuration_index = h->descriptor.configuration_index,
        .snapshot_configuration = h->descriptor.configuration,
        .snapshot_configuration_bytes = h->descriptor.configuration_bytes,
        .snapshot_installed = h->descriptor.installed,
    };
    const struct rq_node_env env = {
        .log = h->log,
        .ctx = h,
        .now_ms = env_now_ms,
        .write_wanted = env_write_wanted,
        .send = w->host_count > 1 ? env_send : NULL,
        .send_round = w->host_count > 1 ? env_send_round : NULL,
        .tell_removed = env_tell_removed,
        .fatal = env_fatal,
    };
    const struct rq_node_machine machine = {
        .ctx = h,
        .committed = machine_committed,
        .role = machine_role,
        .install = machine_install,
        .removed = machine_removed,
    };
    return rq_node_new(&config, &env, &machine, &h->node);
}

void host_start(struct sim_host *h)
{
    struct world *w = h->world;
    struct rq_log_found found;
    h->restart_at = SIM_NEVER;
    record_disk_start(h->disk);
    record_disk_fail_sync(h->disk, 0);
    h->alive = true;
    if (setjmp(w->on_death) != 0) {
        bury(h);
        return;
    }
    if (w->now_ms < w->calm_ms && !h->fresh && sim_chance(w, 100)) {
        record_disk_stop_at(h->disk, 1 + sim_below(w, 12));
    }
    enum rq_err err = open_log(h, &found);
    if (err == RQ_OK && h->fresh) {
        err = h->founder ? found_cluster(h) : RQ_OK;
        rq_log_close(h->log);
        h->log = NULL;
        h->fresh = false;
        err = err == RQ_OK ? open_log(h, &found) : err;
        plant_disk(h);
    }
    if (err == RQ_OK) {
        sim_trace(w, "host %u starts: log %" PRIu64 "..%" PRIu64 ", term %" PRIu64 ", committed %" PRIu64, h->number,
                  found.first_index, found.last_index, found.term, found.committed);
        sim_count(w, SIM_restarts);
        h->life++;
        if (sim_plant == SIM_PLANT_DOUBLE_APPLY && h->cached.index > h->descriptor.state.index) {
            h->cached.index--;
        }
        h->committed = h->delivered = h->descriptor.state.index;
        memset(h->submitted_term, 0, (h->submitted_last + 1) * sizeof h->submitted_term[0]);
        h->submitted_last = 0;
        check_reopened(h, &found);
        err = start_node(h, &found);
    } else {
        h->log = NULL;
    }
    if (err != RQ_OK) {
        if ((err == RQ_IO && host_disk_failed(h)) || (err == RQ_FULL && h->full)) {
            bury(h);
            return;
        }
        sim_fail(w, "host %u does not start: %s: %s", h->number, rq_err_name(err), found.problem);
    }
    h->compact_at = w->now_ms + 20 + sim_below(w, 400);
    h->ask_at = w->now_ms + sim_below(w, 100);
    check_step(h);
}

void host_timer(struct sim_host *h)
{
    if (setjmp(h->world->on_death) != 0) {
        bury(h);
        return;
    }
    rq_node_timer(h->node);
    check_step(h);
}

/* The background thread: recycles segments, and writes new ones ahead of need. */
static bool prepare(struct sim_host *h)
{
    enum rq_err err = rq_log_prepare_wanted(h->log) ? rq_log_prepare(h->log) : RQ_OK;
    if (err == RQ_IO && host_disk_failed(h)) {
        return false;
    }
    if (err != RQ_OK && err != RQ_FULL) {
        sim_fail(h->world, "host %u: the log's preparation: %s", h->number, rq_err_name(err));
    }
    return true;
}

/* The log's strand: writes everything queued.  Its report travels to the loop, and may be overtaken on the way. */
void host_write(struct sim_host *h)
{
    uint64_t durable;
    h->write_at = SIM_NEVER;
    if (sim_chance(h->world, 100) && !prepare(h)) {
        bury(h);
        return;
    }
    enum rq_err err = rq_log_write(h->log, &durable);
    if (err == RQ_OK) {
        h->report_at = disk_ms(h);
        if (rq_log_write_pending(h->log)) {
            h->write_at = h->report_at;
        }
        return;
    }
    if (err == RQ_NOTFOUND) {
        return;
    }
    if (err != RQ_IO || !host_disk_failed(h)) {
        sim_fail(h->world, "host %u: the log's write: %s", h->number, rq_err_name(err));
    }
    bury(h);
}

void host_report(struct sim_host *h)
{
    h->report_at = SIM_NEVER;
    if (setjmp(h->world->on_death) != 0) {
        bury(h);
        return;
    }
    rq_node_persisted(h->node);
    check_step(h);
}

static enum rq_err configuration_at(struct sim_host *h, uint64_t index, struct sim_descriptor *ret)
{
    enum rq_err err = rq_node_configuration(h->node, index, &ret->configuration, &ret->configuration_bytes,
                                            &ret->configuration_index);
    if (err == RQ_OK) {
        check_members_of(h, ret);
    }
    return err;
}

/* Files durable, then the descriptor, then the core is told. */
void host_compact(struct sim_host *h)
{
    struct world *w = h->world;
    h->compact_at = w->now_ms + 20 + sim_below(w, 400);
    uint64_t index = h->cached.index;
    if (sim_chance(w, 500)) {
        h->synced = h->cached; /* the files only */
        return;
    }
    if (index <= h->descriptor.state.index || h->delivered < index) {
        return;
    }
    struct sim_descriptor d = { .state = h->cached };
    if (setjmp(w->on_death) != 0) {
        bury(h);
        return;
    }
    enum rq_err err = configuration_at(h, index, &d);
    if (err == RQ_BUSY) { /* a newer one is committed and waits to be applied */
        return;
    }
    if (err != RQ_OK) {
        sim_fail(w, "host %u: no configuration at %" PRIu64, h->number, index);
    }
    h->synced = h->cached;
    free(h->descriptor.configuration);
    h->descriptor = d;
    err = rq_node_compacted(h->node, index, h->trailing);
    if (err != RQ_OK && err != RQ_BUSY) {
        sim_fail(w, "host %u: compaction: %s", h->number, rq_err_name(err));
    }
    if (err == RQ_OK) {
        sim_trace(w, "host %u compacts to %" PRIu64 ", log from %" PRIu64, h->number, index, rq_log_first(h->log));
        sim_count(w, SIM_compactions);
        if (raft_commit_index(&rq_node_core(h->node)->raft) < index) {
            sim_fail(w, "host %u: the core compacts to %" PRIu64 " above its own commit index", h->number, index);
        }
    }
    check_step(h);
}

/* A state that can be fetched: what another host has applied, or its descriptor. */
static bool fetch(struct sim_host *h, struct sim_descriptor *ret)
{
    struct world *w = h->world;
    struct sim_host *from = &w->hosts[sim_below(w, w->host_count)];
    if (from == h || !from->alive || w->deaf[h->number][from->number] || w->deaf[from->number][h->number]) {
        return false;
    }
    if (sim_chance(w, 500)) {
        if (from->descriptor.state.index < h->install_index) {
            return false;
        }
        *ret = from->descriptor;
        ret->configuration = malloc(ret->configuration_bytes);
        memcpy(ret->configuration, from->descriptor.configuration, ret->configuration_bytes);
        return true;
    }
    *ret = (struct sim_descriptor){ .state = from->cached };
    return from->cached.index >= h->install_index && from->cached.index <= from->delivered &&
           configuration_at(from, from->cached.index, ret) == RQ_OK;
}

void host_install(struct sim_host *h)
{
    struct world *w = h->world;
    struct sim_descriptor d;
    h->install_at = w->now_ms + 1 + sim_below(w, 60);
    if (h->cached.index >= h->install_index) {
        h->install_at = SIM_NEVER; /* the log has brought it meanwhile */
        return;
    }
    if (!fetch(h, &d)) {
        return;
    }
    h->install_at = SIM_NEVER;
    sim_trace(w, "host %u installs %" PRIu64 " of term %" PRIu64, h->number, d.state.index, d.state.term);
    sim_count(w, SIM_installs);
    d.installed = true;
    h->cached = d.state;
    if (sim_plant != SIM_PLANT_INSTALL_UNDURABLE) {
        h->synced = d.state;
    }
    free(h->descriptor.configuration);
    h->descriptor = d;
    check_descriptor(h);
    if (w->now_ms < w->calm_ms && sim_chance(w, 100)) {
        sim_count(w, SIM_deaths_in_an_install);
        bury(h);
        return;
    }
    if (setjmp(w->on_death) != 0) {
        bury(h);
        return;
    }
    const struct rq_node_snapshot snapshot = {
        .index = d.state.index,
        .term = d.state.term,
        .configuration_index = d.configuration_index,
        .configuration = d.configuration,
        .configuration_bytes = d.configuration_bytes,
    };
    rq_node_installed(h->node, &snapshot);
    check_installed(h);
    check_step(h);
}

static void join_done(void *ctx, enum rq_err err)
{
    struct sim_host *h = ctx;
    sim_trace(h->world, "host %u: change: %s", h->number, rq_err_name(err));
}

void host_join(struct sim_host *leader, const struct rq_member *member)
{
    if (setjmp(leader->world->on_death) != 0) {
        bury(leader);
        return;
    }
    enum rq_err err = rq_node_join(leader->node, member, join_done, leader);
    if (err == RQ_OK) {
        sim_trace(leader->world, "host %u adds or alters %" PRIu64, leader->number, member->instance);
    } else if (err != RQ_AWAY && err != RQ_BUSY && err != RQ_EXISTS) {
        sim_fail(leader->world, "host %u: join: %s", leader->number, rq_err_name(err));
    }
    check_step(leader);
}

bool host_remove(struct sim_host *leader, uint64_t instance)
{
    if (setjmp(leader->world->on_death) != 0) {
        bury(leader);
        return false;
    }
    enum rq_err err = rq_node_remove(leader->node, instance, join_done, leader);
    if (err == RQ_OK) {
        sim_trace(leader->world, "host %u removes %" PRIu64, leader->number, instance);
    }
    check_step(leader);
    return err == RQ_OK;
}

static void transfer_done(void *ctx, enum rq_err err)
{
    struct sim_host *h = ctx;
    sim_trace(h->world, "host %u: transfer: %s", h->number, rq_err_name(err));
    sim_count(h->world, err == RQ_OK ? SIM_transfers : SIM_transfers_failed);
}

void host_transfer(struct sim_host *h, uint64_t to)
{
    if (setjmp(h->world->on_death) != 0) {
        bury(h);
        return;
    }
    (void)rq_node_transfer(h->node, to, transfer_done, h);
    check_step(h);
}

void host_receive(struct sim_host *h, const struct sim_message *m)
{
    if (setjmp(h->world->on_death) != 0) {
        bury(h);
        return;
    }
    if (m->removed_index > 0) {
        rq_node_told_removed(h->node, m->message.server_id, m->removed_index);
    } else if (m->round.term > 0) {
        rq_node_receive_round(h->node, m->message.server_id, &m->round);
    } else {
        rq_node_receive(h->node, &m->message, m->entries);
    }
    check_step(h);
}

/* A read that must see whatever anybody had seen when it began. */
struct sim_read {
    struct rq_node_read read; /* first */
    struct sim_host *host;
    uint64_t shown;
};

static void read_done(struct rq_node_read *r, enum rq_err err, uint64_t index)
{
    struct sim_read *read = (struct sim_read *)r;
    struct sim_host *h = read->host;
    if (err == RQ_OK) {
        check_read(h, read->shown, index);
    } else {
        sim_count(h->world, SIM_reads_given_up);
    }
    free(read);
}

void host_read(struct sim_host *h)
{
    const struct world *w = h->world;
    if (sim_plant == SIM_PLANT_READ_AT_ONCE) {
        check_read(h, w->shown_last, rq_node_committed(h->node));
        return;
    }
    if (setjmp(h->world->on_death) != 0) {
        bury(h); /* ends the read, too */
        return;
    }
    struct sim_read *read = calloc(1, sizeof *read);
    *read = (struct sim_read){ .read = { .done = read_done }, .host = h, .shown = w->shown_last };
    rq_node_read(h->node, &read->read);
    check_step(h);
}

bool host_submit(struct sim_host *h)
{
    struct world *w = h->world;
    uint64_t index, term;
    size_t bytes = 8 + (sim_chance(w, 100) ? sim_below(w, PAYLOAD_BYTES_MAX) : sim_below(w, 200));
    if (w->payload_last + 1 >= SIM_INDEX_MAX) {
        return false;
    }
    if (setjmp(w->on_death) != 0) {
        bury(h);
        return false;
    }
    w->payload_last++; /* also when it dies in the call: the entry may be in a log by then */
    struct rq_blob *blob = rq_blob_new(bytes);
    rq_put_u64(blob->data, w->payload_last);
    for (size_t i = 8; i < bytes; i++) {
        blob->data[i] = (uint8_t)(w->payload_last + i);
    }
    enum rq_err err = rq_node_submit(h->node, RQ_ENTRY_TXN, blob, &index, &term);
    if (err == RQ_OK) {
        h->submitted_term[index] = term;
        h->submitted_last = index > h->submitted_last ? index : h->submitted_last;
        sim_count(w, SIM_submitted);
        if (sim_chance(w, 300)) { /* it came from there */
            rq_node_awaited(h->node, w->hosts[sim_below(w, w->host_count)].id, index);
        }
    } else {
        rq_blob_unref(blob);
        if (err == RQ_FULL || err == RQ_BUSY) {
            sim_count(w, err == RQ_FULL ? SIM_full : SIM_busy);
        } else if (err != RQ_AWAY) {
            sim_fail(w, "host %u: submit: %s", h->number, rq_err_name(err));
        }
    }
    check_step(h);
    return err == RQ_OK;
}
