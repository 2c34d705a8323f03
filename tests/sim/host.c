#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/wire/bytes.h"
#include "tests/sim/world.h"
#include "tests/support/seeded.h"

enum {
    ELECTION_MS = 300,
    HEARTBEAT_MS = 50,
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

static enum rq_err limited_write(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    return would_overflow(f, offset + bytes) ? RQ_FULL : record->write(f, data, bytes, offset);
}

static enum rq_err limited_writev(struct rq_file *f, struct iovec *parts, int part_count, uint64_t offset)
{
    uint64_t bytes = 0;
    for (int i = 0; i < part_count; i++) {
        bytes += parts[i].iov_len;
    }
    return would_overflow(f, offset + bytes) ? RQ_FULL : record->writev(f, parts, part_count, offset);
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
    return w->now_ms + sim_below(w, w->disk_ms_max + 1) + (h->slow ? sim_below(w, 500) : 0);
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
    world_send(h, m);
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

static void machine_role(void *ctx, bool leads, uint64_t term, uint64_t leader_id)
{
    const struct sim_host *h = ctx;
    sim_trace(h->world, "host %u: leads %d, term %" PRIu64 ", leader %" PRIu64, h->number, leads, term, leader_id);
}

/* --- life and death --- */

void host_init(struct world *w, unsigned number)
{
    struct sim_host *h = &w->hosts[number];
    *h = (struct sim_host){
        .world = w,
        .number = number,
        .id = 100 + number,
        .write_at = SIM_NEVER,
        .report_at = SIM_NEVER,
        .compact_at = SIM_NEVER,
        .restart_at = 0,
        .trailing = sim_below(w, 12),
    };
    snprintf(h->address, sizeof h->address, "host%u", number);
    h->disk = record_disk_new();
    record_disk_mkdir_p(h->disk, "/raft");
    limit_disk(h);
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
    h->write_at = h->report_at = h->compact_at = SIM_NEVER;
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
    struct world *w = h->world;
    if (w->host_count == 1) {
        return rq_node_found(h->log, h->id, h->address);
    }
    struct raft_configuration conf;
    struct raft_buffer buf;
    raft_configuration_init(&conf);
    for (unsigned i = 0; i < w->host_count; i++) {
        raft_configuration_add(&conf, w->hosts[i].id, w->hosts[i].address, RAFT_VOTER);
    }
    raft_configuration_encode(&conf, &buf);
    raft_configuration_close(&conf);
    struct rq_blob *blob = rq_blob_new(buf.len);
    memcpy(blob->data, buf.base, buf.len);
    raft_free(buf.base);
    struct rq_log_entry e = { .index = 1, .term = 1, .type = RQ_ENTRY_CHANGE, .blob = blob };
    uint64_t durable;
    enum rq_err err = rq_log_reserve(h->log, blob->bytes, 1);
    err = err == RQ_OK ? rq_log_put_meta(h->log, 1, 0) : err;
    err = err == RQ_OK ? rq_log_append(h->log, &e, 1, 0) : err;
    err = err == RQ_OK ? rq_log_write(h->log, &durable) : err;
    rq_blob_unref(blob);
    return err;
}

static enum rq_err open_log(struct sim_host *h, struct rq_log_found *found)
{
    struct rq_log_config config = {
        .disk = &h->disk->disk,
        .dir = "/raft",
        .instance = h->id,
        .segment_bytes = SEGMENT_BYTES,
        .cache_bytes = CACHE_BYTES,
        .create = h->life == 0,
        .first_index = 1,
    };
    return rq_log_open(&config, &h->log, found);
}

static enum rq_err start_node(struct sim_host *h, const struct rq_log_found *found)
{
    struct world *w = h->world;
    struct rq_node_config config = {
        .id = h->id,
        .address = h->address,
        .seed = seeded_next(&w->random),
        .election_timeout_ms = ELECTION_MS,
        .heartbeat_ms = HEARTBEAT_MS,
        .found = *found,
        .snapshot_index = h->descriptor.state.index,
        .snapshot_term = h->descriptor.state.term,
        .snapshot_configuration_index = h->descriptor.configuration_index,
        .snapshot_configuration = h->descriptor.configuration,
        .snapshot_configuration_bytes = h->descriptor.configuration_bytes,
    };
    const struct rq_node_env env = {
        .log = h->log,
        .ctx = h,
        .now_ms = env_now_ms,
        .write_wanted = env_write_wanted,
        .send = w->host_count > 1 ? env_send : NULL,
        .fatal = env_fatal,
    };
    const struct rq_node_machine machine = { .ctx = h, .committed = machine_committed, .role = machine_role };
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
    if (w->now_ms < w->calm_ms && h->life > 0 && sim_chance(w, 100)) {
        record_disk_stop_at(h->disk, 1 + sim_below(w, 12));
    }
    enum rq_err err = open_log(h, &found);
    if (err == RQ_OK && h->life == 0) {
        err = found_cluster(h);
        rq_log_close(h->log);
        h->log = NULL;
        h->life = 1;
        err = err == RQ_OK ? open_log(h, &found) : err;
        record_disk_lie(h->disk, w->plant == SIM_PLANT_LIE_SYNC ? RECORD_LIE_SYNC | RECORD_LIE_DSYNC : 0);
    }
    if (err == RQ_OK) {
        sim_trace(w, "host %u starts: log %" PRIu64 "..%" PRIu64 ", term %" PRIu64 ", committed %" PRIu64, h->number,
                  found.first_index, found.last_index, found.term, found.committed);
        sim_count(w, SIM_restarts);
        h->life++;
        if (w->plant == SIM_PLANT_DOUBLE_APPLY && h->cached.index > h->descriptor.state.index) {
            h->cached.index--;
        }
        h->committed = h->delivered = h->descriptor.state.index;
        memset(h->submitted_term, 0, sizeof h->submitted_term);
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

/* Files durable, then the descriptor, then the core is told.  Nobody can install a descriptor yet, so the log keeps what the
 * slowest member needs. */
void host_compact(struct sim_host *h)
{
    struct world *w = h->world;
    h->compact_at = w->now_ms + 20 + sim_below(w, 400);
    uint64_t index = h->cached.index;
    if (sim_chance(w, 500)) {
        h->synced = h->cached; /* the files only */
        return;
    }
    for (unsigned i = 0; i < w->host_count; i++) {
        const struct sim_host *other = &w->hosts[i];
        uint64_t held = other->stored < other->committed ? other->stored : other->committed;
        if (i != h->number && other->descriptor.state.index > held) {
            held = other->descriptor.state.index;
        }
        if (i != h->number && held < index) {
            return;
        }
    }
    if (index <= h->descriptor.state.index || h->delivered < index) {
        return;
    }
    uint8_t *data;
    size_t bytes;
    uint64_t configuration_index;
    if (setjmp(w->on_death) != 0) {
        bury(h);
        return;
    }
    if (rq_node_configuration(h->node, index, &data, &bytes, &configuration_index) != RQ_OK) {
        sim_fail(w, "host %u: no configuration at %" PRIu64, h->number, index);
    }
    h->synced = h->cached;
    free(h->descriptor.configuration);
    h->descriptor = (struct sim_descriptor){ h->synced, data, bytes, configuration_index };
    enum rq_err err = rq_node_compacted(h->node, index, h->trailing);
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

void host_receive(struct sim_host *h, const struct sim_message *m)
{
    if (setjmp(h->world->on_death) != 0) {
        bury(h);
        return;
    }
    rq_node_receive(h->node, &m->message, m->entries);
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
        sim_count(w, SIM_submitted);
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
