/* driver: which entries it lets into the log, by a node that leads alone, without threads; and who writes it, with threads.  On a
 * recording disk. */
#include <raft.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "raftd/db/driver.h"
#include "tests/support/record_disk.h"
#include "tests/support/tap.h"

enum { SELF = 1, OTHER = 2 };

static struct rq_pool *pool;
static struct rq_driver *driver;

static void on_committed(void *ctx, const struct rq_log_entry *e)
{
    (void)ctx, (void)e;
}

static void on_role(void *ctx, bool leads, uint64_t term, uint64_t leader_id)
{
    (void)ctx, (void)leads, (void)term, (void)leader_id;
}

static void on_members(void *ctx, const struct rq_members *members)
{
    (void)ctx, (void)members;
}

static struct rq_disk_ops noted_ops;
static enum rq_err (*log_write)(struct rq_file *f, const void *data, size_t bytes, uint64_t offset);
static atomic_uint writes;

static enum rq_err note_write(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    atomic_fetch_add(&writes, 1);
    return log_write(f, data, bytes, offset);
}

static void settle(void)
{
    while (rq_pool_run_one(pool)) {
    }
}

static void start(struct rq_driver_config config, unsigned member_count, unsigned thread_count)
{
    struct rq_members members = { .count = member_count };
    struct record_disk *disk = record_disk_new();
    for (unsigned i = 0; i < member_count; i++) {
        members.list[i] = (struct rq_member){ .instance = SELF + i, .role = RQ_MEMBER_VOTER, .votes = true };
        (void)snprintf(members.list[i].name, sizeof members.list[i].name, "%u", i + 1);
        (void)snprintf(members.list[i].raft_addr, sizeof members.list[i].raft_addr, "a:%u", i + 1);
        (void)snprintf(members.list[i].http_addr, sizeof members.list[i].http_addr, "b:%u", i + 1);
    }
    record_disk_mkdir_p(disk, "/data/raft");
    struct rq_log_config log = { .disk = &disk->disk,
                                 .dir = "/data/raft",
                                 .instance = SELF,
                                 .segment_bytes = 65536,
                                 .cache_bytes = 65536,
                                 .create = true,
                                 .first_index = 1 };
    check_eq(rq_log_open(&log, &config.log, &config.node.found), RQ_OK);
    check_eq(rq_node_found(config.log, &members), RQ_OK);
    rq_log_close(config.log);
    log.create = false;
    noted_ops = *disk->disk.ops;
    log_write = noted_ops.write;
    noted_ops.write = note_write;
    disk->disk.ops = &noted_ops;
    check_eq(rq_log_open(&log, &config.log, &config.node.found), RQ_OK);
    config.node.id = SELF;
    config.node.address = "a:1";
    config.node.seed = 1;
    config.node.election_timeout_ms = 100000; /* longer than a test */
    config.node.heartbeat_ms = 10000;
    check_eq(rq_pool_new(thread_count, "test", &pool), RQ_OK);
    config.pool = pool;
    check_eq(rq_driver_new(&config, &driver), RQ_OK);
}

/* Members are not asked for anything: there is one. */
static void lead(bool in_a_cluster)
{
    static const struct rq_node_machine machine = { .committed = on_committed, .role = on_role };
    static const struct rq_forward forward = { .members = on_members, .role = on_role };
    start((struct rq_driver_config){ .machine = &machine, .forward = in_a_cluster ? &forward : NULL }, 1, 0);
    settle();
    check(rq_driver_view(driver).leads);
}

static enum rq_err submitted;

static void on_submitted(struct rq_submit *s, enum rq_err err)
{
    (void)s;
    submitted = err;
}

static enum rq_err submit(uint16_t type, uint64_t holder)
{
    struct rq_submit s = { .type = type, .blob = rq_blob_new(1), .done = on_submitted };
    if (holder != 0) {
        s.holders = (struct rq_instances){ .count = 1, .list = { holder } };
    }
    submitted = RQ_MISUSE;
    rq_driver_submit(driver, &s);
    settle();
    return submitted;
}

static void body_is_not_named_before_a_majority_has_it(void)
{
    lead(true);
    check_eq(submit(RQ_ENTRY_STAGED, 0), RQ_BUSY);
    check_eq(submit(RQ_ENTRY_STAGED, OTHER), RQ_BUSY); /* it does not vote, or not any more */
    check_eq(submit(RQ_ENTRY_STAGED, SELF), RQ_OK);
    check_eq(submit(RQ_ENTRY_TXN, 0), RQ_OK);
}

static void alone_nobody_has_to_be_brought_a_body(void)
{
    lead(false);
    check_eq(submit(RQ_ENTRY_STAGED, 0), RQ_OK);
}

/* --- a member, and what it applies ---------------------------------------------------------------------------------------- */

enum { TERM = 2, DEADLINE_MS = 5000 };

static struct rq_strand database;
static atomic_uint applied, writes_before;
static atomic_bool beside_a_write, was_written;

static bool comes(bool (*there)(void))
{
    for (unsigned i = 0; i < DEADLINE_MS && !there(); i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    return there();
}

static bool is_written(void)
{
    return atomic_load(&writes) > atomic_load(&writes_before);
}

static bool all_is_applied(void)
{
    return atomic_load(&applied) == 3;
}

static void run_apply(struct rq_task *task)
{
    if (atomic_load(&beside_a_write) && comes(is_written)) {
        atomic_store(&was_written, true);
    }
    free(task);
    atomic_fetch_add(&applied, 1);
}

static void apply(void *ctx, const struct rq_log_entry *e)
{
    (void)ctx;
    if (e->index == 1) {
        return; /* the members, at the start */
    }
    struct rq_task *task = calloc(1, sizeof *task);
    task->run = run_apply;
    rq_strand_post(&database, task, RQ_CARRY);
}

static void on_send(void *ctx, const struct raft_message *m)
{
    (void)ctx, (void)m;
}

static void on_send_round(void *ctx, uint64_t to, const struct rq_round *round)
{
    (void)ctx, (void)to, (void)round;
}

struct append {
    struct rq_task task;
    uint64_t prev, prev_term, commit;
    unsigned count;
};

static void run_append(struct rq_task *task)
{
    struct append *a = (struct append *)task;
    struct rq_log_entry entries[4] = { 0 };
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES, .server_id = OTHER, .server_address = "a:2" };
    m.append_entries.term = TERM;
    m.append_entries.prev_log_index = a->prev;
    m.append_entries.prev_log_term = a->prev_term;
    m.append_entries.leader_commit = a->commit;
    m.append_entries.n_entries = a->count;
    for (unsigned i = 0; i < a->count; i++) {
        entries[i] = (struct rq_log_entry){ .term = TERM, .type = RQ_ENTRY_TXN };
    }
    free(a);
    rq_driver_receive(driver, &m, entries);
}

static void receive(struct append what)
{
    struct append *a = malloc(sizeof *a);
    *a = what;
    a->task.run = run_append;
    rq_strand_post(rq_driver_loop(driver), &a->task, RQ_CARRY);
}

/* Who waits for the next entry is not to wait for all that is applied before it. */
static void several_commits_are_applied_beside_the_write_of_the_next_entry(void)
{
    static const struct rq_node_machine machine = { .committed = apply, .role = on_role };
    static const struct rq_forward forward = {
        .members = on_members, .role = on_role, .send = on_send, .send_round = on_send_round
    };
    start((struct rq_driver_config){ .machine = &machine, .forward = &forward }, 3, 2);
    rq_strand_init(&database, pool, "database");
    receive((struct append){ .prev = 1, .prev_term = 1, .commit = 1, .count = 3 });
    atomic_store(&writes_before, atomic_load(&writes));
    atomic_store(&beside_a_write, true);
    receive((struct append){ .prev = 4, .prev_term = TERM, .commit = 4, .count = 1 });
    check(comes(all_is_applied));
    check(atomic_load(&was_written));
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP_APART(body_is_not_named_before_a_majority_has_it),
        TAP_APART(alone_nobody_has_to_be_brought_a_body),
        TAP_APART(several_commits_are_applied_beside_the_write_of_the_next_entry),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
