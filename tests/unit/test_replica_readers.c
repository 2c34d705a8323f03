/* replica: the reader table of the control page is honoured by back-fill and reset, as control.h promises to readers. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/replica_model.h"
#include "tests/support/tap.h"

static struct model m;
static struct rq_control page; /* the application's handle */
static uint32_t slot;

static struct rq_replica_wal wal_of(void)
{
    struct rq_replica_wal wal;
    rq_replica_get_wal(m.replica, &wal);
    return wal;
}

static void begin_with_frames(void)
{
    model_init(&m, 512, 5);
    char path[128];
    snprintf(path, sizeof path, "%s-rqctl", m.path);
    check_eq(rq_control_open(m.disk, path, 1, &page), RQ_OK);
    check_eq(rq_slot_claim(&page, 1, &slot), RQ_OK);
    check_eq(model_random(&m, 20), RQ_OK);
    check_eq(model_random(&m, 0), RQ_OK);
    check(wal_of().frames > 0);
}

static void end(void)
{
    check(model_matches(&m));
    rq_control_close(&page);
    model_fini(&m);
}

static void snapshot_set(unsigned state, unsigned kind, uint32_t frames)
{
    atomic_store(&page.slots[slot].snapshot, rq_snap_word(state, kind, frames));
}
static uint64_t snapshot(void)
{
    return atomic_load(&page.slots[slot].snapshot);
}

static void backfill_expect(uint32_t backfilled, bool blocked)
{
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(wal_of().backfilled, backfilled);
    check_eq(wal_of().blocked, blocked);
}

static void active_wal_snapshot_holds_backfill_at_its_frame(void)
{
    begin_with_frames();
    const uint32_t held = wal_of().frames;
    snapshot_set(RQ_SNAP_ACTIVE, RQ_SNAP_WAL, held);
    check_eq(model_random(&m, 0), RQ_OK);
    backfill_expect(held, true);
    check_eq(rq_replica_reset(m.replica), RQ_BUSY);
    snapshot_set(RQ_SNAP_COMMITTING, RQ_SNAP_WAL, held);
    backfill_expect(held, true);
    snapshot_set(RQ_SNAP_ACTIVE, RQ_SNAP_WAL, wal_of().frames);
    backfill_expect(wal_of().frames, false);
    check_eq(rq_replica_reset(m.replica), RQ_BUSY);
    check(wal_of().blocked);
    snapshot_set(RQ_SNAP_NONE, 0, 0);
    backfill_expect(wal_of().frames, false); /* nothing to copy, and nobody in the way any more */
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    check_eq(atomic_load(&m.control.head->reset_gate) % 2, 0);
    end();
}

static void file_snapshot_holds_all_of_backfill_and_no_reset(void)
{
    begin_with_frames();
    backfill_expect(wal_of().frames, false);
    snapshot_set(RQ_SNAP_ACTIVE, RQ_SNAP_FILE, wal_of().frames);
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    check_eq(model_random(&m, 0), RQ_OK);
    backfill_expect(0, true);
    snapshot_set(RQ_SNAP_COMMITTING, RQ_SNAP_FILE, 0);
    backfill_expect(0, true);
    snapshot_set(RQ_SNAP_NONE, 0, 0);
    backfill_expect(wal_of().frames, false);
    check(model_file_matches(&m));
    end();
}

static void idle_snapshots_are_taken_away_when_in_the_way(void)
{
    begin_with_frames();
    const uint32_t held = wal_of().frames;
    snapshot_set(RQ_SNAP_IDLE, RQ_SNAP_WAL, held);
    backfill_expect(held, false);
    check_eq(snapshot(), rq_snap_word(RQ_SNAP_IDLE, RQ_SNAP_WAL, held)); /* was not in the way */
    check_eq(model_random(&m, 0), RQ_OK);
    backfill_expect(wal_of().frames, false);
    check_eq(rq_snap_state(snapshot()), RQ_SNAP_NONE);
    snapshot_set(RQ_SNAP_IDLE, RQ_SNAP_WAL, wal_of().frames);
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    check_eq(rq_snap_state(snapshot()), RQ_SNAP_NONE);
    snapshot_set(RQ_SNAP_IDLE, RQ_SNAP_FILE, 0);
    check_eq(model_random(&m, 0), RQ_OK);
    backfill_expect(wal_of().frames, false);
    check_eq(rq_snap_state(snapshot()), RQ_SNAP_NONE);
    end();
}

static void committing_snapshot_goes_on_from_the_file_at_a_reset(void)
{
    begin_with_frames();
    const uint32_t held = wal_of().frames;
    snapshot_set(RQ_SNAP_COMMITTING, RQ_SNAP_WAL, held);
    backfill_expect(held, false);
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    check_eq(snapshot(), rq_snap_word(RQ_SNAP_COMMITTING, RQ_SNAP_FILE, held));
    check_eq(model_random(&m, 0), RQ_OK);
    backfill_expect(0, true); /* it may still read the file when its COMMIT is refused */
    end();
}

static struct rq_disk_ops watched_ops;
static struct rq_disk watched_disk = { &watched_ops };
static uint32_t gate_at_header;

static enum rq_err write_watched(struct rq_file *f, const void *data, size_t bytes, uint64_t offset)
{
    if (bytes == 32 && offset == 0) { /* the header of -wal */
        gate_at_header = atomic_load(&m.control.head->reset_gate);
    }
    return rq_disk_real()->ops->write(f, data, bytes, offset);
}

static void gate_is_shut_while_the_wal_is_begun_anew(void)
{
    model_init(&m, 512, 8);
    watched_ops = *rq_disk_real()->ops;
    watched_ops.write = write_watched;
    m.disk = &watched_disk;
    check_eq(model_random(&m, 20), RQ_OK);
    check_eq(model_random(&m, 0), RQ_OK);
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    const uint32_t gate = atomic_load(&m.control.head->reset_gate);
    check_eq(gate % 2, 0);
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    check_eq(gate_at_header, gate + 1);
    check_eq(atomic_load(&m.control.head->reset_gate), gate + 2);
    model_fini(&m);
}

static void dead_readers_slot_is_swept(void)
{
    begin_with_frames();
    const uint32_t held = wal_of().frames;
    const pid_t child = fork();
    if (child == 0) {
        struct rq_control own;
        uint32_t its_slot;
        char path[128];
        snprintf(path, sizeof path, "%s-rqctl", m.path);
        if (rq_control_open(m.disk, path, 1, &own) != RQ_OK || rq_slot_claim(&own, 2, &its_slot) != RQ_OK) {
            _exit(1);
        }
        atomic_store(&own.slots[its_slot].snapshot, rq_snap_word(RQ_SNAP_ACTIVE, RQ_SNAP_WAL, held));
        _exit(0);
    }
    int status;
    check(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    check_eq(model_random(&m, 0), RQ_OK);
    backfill_expect(wal_of().frames, false);
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    end();
}

static void drain_is_asked_for_over_the_hard_limit(void)
{
    model_init(&m, 512, 6);
    m.hard_frames = 40;
    m.soft_frames = 10;
    check_eq(model_random(&m, 20), RQ_OK);
    check_eq(atomic_load(&m.control.head->drain), 0);
    while (wal_of().frames < 40) {
        check_eq(model_random(&m, 20), RQ_OK);
    }
    check_eq(atomic_load(&m.control.head->drain), 1);
    check_eq(rq_replica_backfill(m.replica), RQ_OK);
    check_eq(rq_replica_reset(m.replica), RQ_OK);
    check_eq(atomic_load(&m.control.head->drain), 0);
    check(model_matches(&m));
    model_fini(&m);
}

static void control_page_says_what_is_applied(void)
{
    model_init(&m, 512, 7);
    const struct rq_control_head *head = m.control.head;
    for (int i = 0; i < 5; i++) {
        check_eq(model_random(&m, 5), RQ_OK);
        check_eq(atomic_load(&head->version), m.state.version);
        check_eq(atomic_load(&head->applied_index), m.state.stamp.index);
    }
    check_eq(atomic_load(&head->state), RQ_DB_LIVE);
    check_eq(atomic_load(&head->db_id), 77);
    check_eq(atomic_load(&head->page_size), 512);
    char text[160];
    atomic_store(&m.control.head->version, 12345); /* scribbled */
    atomic_store(&m.control.head->db_id, 1);
    check_eq(rq_replica_check(m.replica, text), RQ_OK);
    check_eq(atomic_load(&head->version), m.state.version);
    check_eq(atomic_load(&head->db_id), 77);
    atomic_store(&m.control.head->reset_gate, 5); /* as a predecessor that was killed in a reset left it */
    model_close(&m);
    check_eq(model_open(&m), RQ_OK);
    check_eq(atomic_load(&head->reset_gate), 6);
    model_fini(&m);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(active_wal_snapshot_holds_backfill_at_its_frame), TAP(file_snapshot_holds_all_of_backfill_and_no_reset),
        TAP(idle_snapshots_are_taken_away_when_in_the_way),   TAP(committing_snapshot_goes_on_from_the_file_at_a_reset),
        TAP(gate_is_shut_while_the_wal_is_begun_anew),        TAP(dead_readers_slot_is_swept),
        TAP(drain_is_asked_for_over_the_hard_limit),          TAP(control_page_says_what_is_applied),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
