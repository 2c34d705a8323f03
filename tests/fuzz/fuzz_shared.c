/* Control page and -shm, which every application may write, hold anything: the input is laid over the control page's header and
 * its first slot when it is as long as both (what is left of it, over -shm), else over -shm.  A reader that comes then may be turned
 * away or shown nonsense, and ends; raftd loses not a byte, and puts -shm right. */
#include <sched.h>
#include <string.h>
#include <time.h>

#include "tests/fuzz/fuzz.h"
#include "tests/support/small_replica.h"
#include "vfs/control_share.h"
#include "vfs/files.h"
#include "vfs/snapshot.h"

#define HEAD_BYTES    (offsetof(struct rq_control_head, waiting) + sizeof((struct rq_control_head){ 0 }.waiting))
#define CONTROL_BYTES (HEAD_BYTES + sizeof(struct rq_slot))

/* A reader's patience would be most of the time. */
int nanosleep(const struct timespec *requested_time, struct timespec *remaining)
{
    (void)requested_time;
    (void)remaining;
    return 0;
}
int sched_yield(void)
{
    return 0;
}

static void lay_over(struct small_replica *s, const uint8_t *data, size_t bytes)
{
    if (bytes >= CONTROL_BYTES) {
        memcpy((void *)s->control.head, data, HEAD_BYTES);
        memcpy((void *)&s->control.slots[0], data + HEAD_BYTES, sizeof(struct rq_slot));
        data += CONTROL_BYTES;
        bytes -= CONTROL_BYTES;
    }
    if (bytes > 0) {
        struct rq_file *shm;
        void *memory;
        const struct rq_disk_ops *ops = s->disk->disk.ops;
        MUST(ops->open(&s->disk->disk, SMALL_PATH "-shm", RQ_OPEN_WRITE, 0, &shm) == RQ_OK);
        MUST(ops->map(shm, 0, RQ_WAL_INDEX_REGION, &memory) == RQ_OK);
        memcpy(memory, data, bytes < RQ_WAL_INDEX_REGION ? bytes : RQ_WAL_INDEX_REGION);
        ops->unmap(shm, memory, RQ_WAL_INDEX_REGION);
        ops->close(shm);
    }
}

static void read_pages(struct rq_snapshot *r)
{
    uint8_t page[SMALL_PAGE_SIZE];
    const uint32_t pages[] = { 1, 2, 3, 4, r->page_count, UINT32_MAX };
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        (void)rq_snapshot_read(r, pages[i], 0, page, sizeof page);
        (void)rq_snapshot_read(r, pages[i], 65000, page, sizeof page);
    }
}

static void be_reader(struct small_replica *s)
{
    struct rq_snapshot r;
    rq_snapshot_init(&r, &s->disk->disk);
    r.boot = SMALL_BOOT;
    r.path = SMALL_PATH;
    enum rq_err err = rq_snapshot_open(&r);
    MUST(err == RQ_OK || err == RQ_UNREADY);
    for (int i = 0; err == RQ_OK && i < 2; i++) { /* the second time it takes up what it kept */
        err = rq_snapshot_begin(&r);
        if (err == RQ_OK) {
            read_pages(&r);
            (void)rq_snapshot_current(&r);
            rq_snapshot_wait_begin(&r);
            rq_snapshot_wait_end(&r);
            if (r.slot_held) {
                (void)rq_turn_take(r.control, r.slot);
                (void)rq_turn_wait(r.control, r.slot, 0);
                rq_turn_release(r.control, r.slot);
                rq_turn_give_up(r.control, r.slot);
            }
            rq_snapshot_end(&r, true);
        }
    }
    rq_snapshot_fini(&r);
}

static void must_hold(struct small_replica *s)
{
    uint8_t want[SMALL_PAGE_SIZE], page[SMALL_PAGE_SIZE];
    for (uint32_t pgno = 1; pgno <= SMALL_PAGE_COUNT; pgno++) {
        small_replica_page(pgno, want);
        MUST(rq_replica_read(s->replica, pgno, page) == RQ_OK);
        MUST(memcmp(want, page, sizeof page) == 0);
    }
}

/* What raftd does in a second, and in its life. */
static void be_raftd(struct small_replica *s)
{
    char text[160];
    struct rq_replica_state state;
    struct rq_replica_wal wal;
    if (rq_control_check(&s->control, SMALL_PATH "-rqctl", SMALL_BOOT) != RQ_OK) {
        MUST(rq_control_replace(&s->control, SMALL_PATH "-rqctl", SMALL_BOOT, 0600) == RQ_OK);
    }
    rq_control_sweep(&s->control);
    rq_control_drop_former(&s->control);
    rq_turn_pass(&s->control, 0);
    MUST(rq_replica_check(s->replica, text) == RQ_OK);
    MUST(rq_replica_backfill(s->replica) == RQ_OK);
    rq_replica_get_wal(s->replica, &wal);
    MUST(wal.backfilled == wal.frames); /* nobody is alive who could be in the way */
    MUST(rq_replica_reset(s->replica) == RQ_OK);
    must_hold(s);
    rq_replica_close(s->replica);
    const struct rq_replica_config config = small_replica_config(s);
    MUST(rq_replica_open(&config, &s->replica, &state) == RQ_OK);
    MUST(state.version == 2 && state.page_count == SMALL_PAGE_COUNT);
    must_hold(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct small_replica s;
    small_replica_init(&s);
    lay_over(&s, data, bytes);
    be_reader(&s);
    be_raftd(&s);
    be_reader(&s);
    rq_files_fork_orphan(); /* what this process keeps open is of a disk that ends here */
    rq_control_share_fork_orphan();
    small_replica_fini(&s);
    return 0;
}
