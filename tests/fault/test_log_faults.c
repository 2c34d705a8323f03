/* log: whichever single call fails, nothing is acknowledged that is not there after a restart, and lack of space ends nothing. */
#include "tests/support/fault_disk.h"
#include "tests/support/log_rig.h"
#include "tests/support/record_disk.h"
#include "tests/support/tap.h"

#define SEGMENT_BYTES 16384u
#define ENTRY_BYTES   700u

struct run {
    struct record_disk *disk;
    struct fault_disk fault;
    struct rq_log *log;
    struct rq_log_found found;
    uint64_t term;
    uint64_t acknowledged, acknowledged_term, released;
};

static enum rq_err append_and_write(struct run *r, uint64_t index)
{
    enum rq_err err = rig_append(r->log, index, r->term, ENTRY_BYTES, 0);
    uint64_t durable = 0;
    err = err == RQ_OK ? rq_log_write(r->log, &durable) : err;
    if (err == RQ_OK) {
        r->acknowledged = durable;
    }
    return err;
}

/* Founds, fills several segments, releases, recycles, opens again, goes on. */
static enum rq_err workload(struct run *r)
{
    enum rq_err err = rig_open(&r->fault.disk, "/raft", true, SEGMENT_BYTES, 1, &r->log, &r->found);
    r->term = 1;
    for (uint64_t i = 1; err == RQ_OK && i <= 70; i++) {
        err = append_and_write(r, i);
        if (err == RQ_OK && i % 30 == 0) {
            err = rq_log_release(r->log, i - 5);
            r->released = i - 5;
            err = err == RQ_OK ? rq_log_prepare(r->log) : err;
        }
        if (err == RQ_OK && i == 40) {
            err = rq_log_put_meta(r->log, 1, 9);
            r->acknowledged_term = err == RQ_OK ? 1 : 0;
        }
        if (err == RQ_OK && i == 50) {
            rq_log_close(r->log);
            r->log = NULL;
            err = rig_open(&r->fault.disk, "/raft", false, SEGMENT_BYTES, 1, &r->log, &r->found);
        }
        if (err == RQ_OK && !rig_holds(r->log, i, 1, ENTRY_BYTES)) {
            err = RQ_IO;
        }
    }
    return err;
}

static void run_begin(struct run *r)
{
    *r = (struct run){ .disk = record_disk_new() };
    record_disk_mkdir_p(r->disk, "/raft");
    fault_disk_init(&r->fault, &r->disk->disk);
}

static void run_end(struct run *r)
{
    rq_log_close(r->log);
    record_disk_free(r->disk);
}

static void restart(struct run *r, uint64_t seed)
{
    record_disk_power_loss(r->disk, seed);
    rq_log_close(r->log);
    r->log = NULL;
    record_disk_start(r->disk);
    fault_disk_arm(&r->fault, 0, 0, RQ_OK);
    enum rq_err err = rig_open(&r->fault.disk, "/raft", false, SEGMENT_BYTES, 1, &r->log, &r->found);
    if (err == RQ_NOTFOUND && r->acknowledged == 0) {
        check_eq(rig_open(&r->fault.disk, "/raft", true, SEGMENT_BYTES, 1, &r->log, &r->found), RQ_OK);
        return;
    }
    check_eq(err, RQ_OK);
    check(r->found.last_index >= r->acknowledged);
    check(r->found.first_index <= r->released + 1);
    check(r->found.term >= r->acknowledged_term);
    for (uint64_t i = r->found.first_index; i <= r->found.last_index; i++) {
        check(rig_holds(r->log, i, 1, ENTRY_BYTES));
    }
}

static void fail_each(unsigned kinds, enum rq_err err, size_t partial_bytes, bool stays)
{
    for (uint64_t nth = 1;; nth++) {
        struct run r;
        run_begin(&r);
        fault_disk_arm(&r.fault, kinds, nth, err);
        r.fault.partial_bytes = partial_bytes;
        r.fault.stays = stays;
        enum rq_err result = workload(&r);
        bool hit = r.fault.hit;
        if (!hit) {
            check_eq(result, RQ_OK);
            run_end(&r);
            check(nth > 1);
            return;
        }
        restart(&r, nth);
        run_end(&r);
    }
}

static void each_failing_call_leaves_what_was_acknowledged(void)
{
    fail_each(FAULT_ALL, RQ_IO, 0, false);
    fail_each(FAULT_ALL, RQ_IO, 0, true);
    fail_each(FAULT_ALL & ~FAULT_BIT(FAULT_READ), RQ_FULL, 0, false);
}

static void each_short_write_leaves_what_was_acknowledged(void)
{
    fail_each(FAULT_BIT(FAULT_WRITE), RQ_IO, 512, true);
    fail_each(FAULT_BIT(FAULT_WRITE), RQ_IO, 900, true);
}

/* Everything that reserve does on the disk may meet a full one. */
static void full_leaves_the_log_usable(void)
{
    unsigned kinds =
        FAULT_BIT(FAULT_WRITE) | FAULT_BIT(FAULT_RESERVE) | FAULT_BIT(FAULT_OPEN) | FAULT_BIT(FAULT_RENAME);
    for (uint64_t nth = 1;; nth++) {
        struct run r;
        run_begin(&r);
        r.term = 1;
        check_eq(rig_open(&r.fault.disk, "/raft", true, SEGMENT_BYTES, 1, &r.log, &r.found), RQ_OK);
        uint64_t last = 0;
        for (; last < 5; last++) {
            check_eq(append_and_write(&r, last + 1), RQ_OK);
        }
        fault_disk_arm(&r.fault, kinds, nth, RQ_FULL);
        r.fault.stays = true;
        enum rq_err err = rq_log_reserve(r.log, UINT64_C(10) * ENTRY_BYTES, 20);
        bool hit = r.fault.hit;
        check_eq(err, hit ? RQ_FULL : RQ_OK);
        fault_disk_arm(&r.fault, 0, 0, RQ_OK);
        if (!hit) {
            run_end(&r);
            check(nth > 3);
            return;
        }
        for (; last < 60; last++) {
            check_eq(append_and_write(&r, last + 1), RQ_OK);
        }
        restart(&r, nth);
        check_eq(r.found.last_index, 60);
        run_end(&r);
    }
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(each_failing_call_leaves_what_was_acknowledged),
        TAP(each_short_write_leaves_what_was_acknowledged),
        TAP(full_leaves_the_log_usable),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
