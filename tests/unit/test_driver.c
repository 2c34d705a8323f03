/* driver: which entries it lets into the log.  A node that leads alone, on a recording disk and without threads. */
#include <stdlib.h>

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

static void settle(void)
{
    while (rq_pool_run_one(pool)) {
    }
}

/* Members are not asked for anything: there is one. */
static void lead(bool in_a_cluster)
{
    static const struct rq_node_machine machine = { .committed = on_committed, .role = on_role };
    static const struct rq_forward forward = { .members = on_members, .role = on_role };
    struct rq_driver_config config = { .machine = &machine, .forward = in_a_cluster ? &forward : NULL };
    struct rq_members members = { .count = 1 };
    struct record_disk *disk = record_disk_new();
    members.list[0] = (struct rq_member){
        .instance = SELF, .role = RQ_MEMBER_VOTER, .votes = true, .name = "1", .raft_addr = "a:1", .http_addr = "a:2"
    };
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
    check_eq(rq_log_open(&log, &config.log, &config.node.found), RQ_OK);
    config.node.id = SELF;
    config.node.address = "a:1";
    config.node.seed = 1;
    config.node.election_timeout_ms = 1000;
    config.node.heartbeat_ms = 100;
    check_eq(rq_pool_new(0, "test", &pool), RQ_OK);
    config.pool = pool;
    check_eq(rq_driver_new(&config, &driver), RQ_OK);
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

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP_APART(body_is_not_named_before_a_majority_has_it),
        TAP_APART(alone_nobody_has_to_be_brought_a_body),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
