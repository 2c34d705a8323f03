/* control, turn: the turn excludes, is fair, and outlives everybody who dies with it; slots belong to who holds their lock; no
 * content of the page makes a call hang.  Forked processes stand for applications, each with a description of its own. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/tap.h"
#include "vfs/control_share.h"

#define BOOT 77u

static char dir[64];
static char path[96];

/* Shared with forked processes. */
struct board {
    _Atomic uint64_t inside; /* holders now: must be 0 or 1 */
    _Atomic uint64_t clashes;
    _Atomic uint64_t taken[16];
    _Atomic uint32_t ready;
    _Atomic uint32_t wanted; /* nobody starts before so many are ready */
    _Atomic uint32_t stop;
    uint64_t unguarded; /* raised by holders only, without a lock */
};
static struct board *board;

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void fresh_page(struct rq_control *daemon)
{
    (void)unlink(path);
    memset(board, 0, sizeof *board);
    check_eq(rq_control_publish(rq_disk_real(), path, BOOT, 0600, daemon), RQ_OK);
}

static void join_as(struct rq_control *c, uint32_t *slot)
{
    check_eq(rq_control_open(rq_disk_real(), path, BOOT, c), RQ_OK);
    check_eq(rq_slot_claim(c, 1234, slot), RQ_OK);
}

static pid_t spawn(void (*run)(int arg), int arg)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        if (setjmp(tap_jump) != 0) {
            fflush(stdout);
            _exit(1);
        }
        run(arg);
        _exit(0);
    }
    return pid;
}

static int reap(pid_t pid)
{
    int status = -1;
    (void)waitpid(pid, &status, 0);
    return status;
}

/* One who takes the turn over and over until told to stop.  Sleeping: through rq_turn_wait, as SQLite's busy timeout does. */
static void take_turns(int who, bool sleeping)
{
    struct rq_control c;
    uint32_t slot;
    join_as(&c, &slot);
    atomic_fetch_add(&board->ready, 1);
    while (atomic_load(&board->ready) < atomic_load(&board->wanted)) {
        (void)sched_yield();
    }
    while (atomic_load(&board->stop) == 0) {
        if (rq_turn_take(&c, slot) != RQ_OK) {
            if (sleeping) {
                (void)rq_turn_wait(&c, slot, 1000000);
            } else {
                struct timespec poll = { .tv_nsec = 1000000 };
                (void)nanosleep(&poll, NULL);
            }
            continue;
        }
        if (atomic_fetch_add(&board->inside, 1) != 0) {
            atomic_fetch_add(&board->clashes, 1);
        }
        board->unguarded++;
        struct timespec sync = { .tv_nsec = 50000 }; /* as long as a commit takes */
        (void)nanosleep(&sync, NULL);
        atomic_fetch_add(&board->taken[who], 1);
        atomic_fetch_sub(&board->inside, 1);
        rq_turn_release(&c, slot);
    }
    rq_slot_release(&c, slot);
    rq_control_close(&c);
}

static void take_turns_sleeping(int who)
{
    take_turns(who, true);
}

static void take_turns_polling(int who)
{
    take_turns(who, false);
}

static void *take_turns_thread(void *arg)
{
    take_turns((int)(intptr_t)arg, true);
    return NULL;
}

static uint64_t total(int count)
{
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) {
        sum += atomic_load(&board->taken[i]);
    }
    return sum;
}

/* Until `turns` were taken by `count` takers, or too late. */
static bool run_until(int count, uint64_t turns)
{
    uint64_t end = now_ms() + 30000;
    while (total(count) < turns && now_ms() < end) {
        struct timespec t = { .tv_nsec = 2000000 };
        (void)nanosleep(&t, NULL);
    }
    return total(count) >= turns;
}

static void free_turn_is_taken_and_excludes(void)
{
    struct rq_control daemon, a, b;
    uint32_t slot_a, slot_b;
    fresh_page(&daemon);
    join_as(&a, &slot_a);
    join_as(&b, &slot_b);
    check(slot_a != slot_b);
    check_eq(rq_turn_take(&a, slot_a), RQ_OK);
    check_eq(rq_turn_take(&a, slot_a), RQ_OK);
    check_eq(rq_turn_take(&b, slot_b), RQ_BUSY);
    check(rq_turn_held(&a, slot_a));
    check(!rq_turn_held(&b, slot_b));
    rq_turn_release(&b, slot_b);
    check(rq_turn_held(&a, slot_a));
    rq_turn_release(&a, slot_a);
    check(!rq_turn_held(&a, slot_a));
    check_eq(rq_turn_take(&a, slot_a), RQ_OK); /* b was told BUSY, but does not wait */
    check_eq(rq_turn_take(&b, slot_b), RQ_BUSY);
    rq_turn_release(&a, slot_a);
    check_eq(rq_turn_take(&b, slot_b), RQ_OK);
    rq_turn_release(&b, slot_b);
    check(rq_turn_wait(&a, slot_a, 0));
    check(!rq_turn_held(&a, slot_a));
    check_eq(rq_turn_take(&a, slot_a), RQ_OK);
    rq_turn_pass(&daemon, slot_a);
    check(!rq_turn_held(&a, slot_a));
    rq_control_close(&a);
    rq_control_close(&b);
    rq_control_close(&daemon);
}

static void processes_exclude_each_other_and_share_fairly(void)
{
    struct rq_control daemon;
    pid_t pid[4];
    fresh_page(&daemon);
    board->wanted = 4;
    for (int i = 0; i < 4; i++) {
        pid[i] = spawn(take_turns_sleeping, i);
    }
    bool enough = run_until(4, 8000);
    atomic_store(&board->stop, 1);
    for (int i = 0; i < 4; i++) {
        check_eq(reap(pid[i]), 0);
    }
    check(enough);
    check_eq(board->clashes, 0);
    check_eq(board->unguarded, total(4));
    for (int i = 0; i < 4; i++) {
        check(board->taken[i] * 5 >= total(4));
    }
    check_eq(atomic_load(&daemon.head->turn), 0);
    rq_control_close(&daemon);
}

static void threads_exclude_each_other(void)
{
    struct rq_control daemon;
    pthread_t thread[4];
    fresh_page(&daemon);
    board->wanted = 4;
    for (int i = 0; i < 4; i++) {
        check_eq(pthread_create(&thread[i], NULL, take_turns_thread, (void *)(intptr_t)i), 0);
    }
    bool enough = run_until(4, 2000);
    atomic_store(&board->stop, 1);
    for (int i = 0; i < 4; i++) {
        (void)pthread_join(thread[i], NULL);
    }
    check(enough);
    check_eq(board->clashes, 0);
    check_eq(board->unguarded, total(4));
    rq_control_close(&daemon);
}

/* A busy handler of the application's own sleeps by itself; between two polls the turn must wait for it. */
static void poller_beside_sleepers_gets_its_share(void)
{
    struct rq_control daemon;
    pid_t pid[3];
    fresh_page(&daemon);
    board->wanted = 3;
    for (int i = 0; i < 3; i++) {
        pid[i] = spawn(i == 2 ? take_turns_polling : take_turns_sleeping, i);
    }
    bool enough = run_until(3, 1500);
    atomic_store(&board->stop, 1);
    for (int i = 0; i < 3; i++) {
        check_eq(reap(pid[i]), 0);
    }
    check(enough);
    check_eq(board->clashes, 0);
    check(board->taken[2] * 5 >= total(3));
    rq_control_close(&daemon);
}

/* A poller that does not come back costs those who sleep one offer. */
static void offer_that_is_not_taken_up_goes_on(void)
{
    struct rq_control daemon, holder, lost, next;
    uint32_t slot_holder, slot_lost, slot_next;
    fresh_page(&daemon);
    join_as(&holder, &slot_holder);
    join_as(&lost, &slot_lost);
    join_as(&next, &slot_next);
    check_eq(rq_turn_take(&holder, slot_holder), RQ_OK);
    check_eq(rq_turn_take(&lost, slot_lost), RQ_BUSY);
    check_eq(rq_turn_take(&next, slot_next), RQ_BUSY);
    atomic_store(&next.slots[slot_next].asleep, 1); /* as rq_turn_wait() does: without a sleeper there is no queue */
    rq_turn_release(&holder, slot_holder);
    check_eq(rq_turn_take(&next, slot_next), RQ_BUSY); /* reserved for lost */
    check(rq_turn_wait(&next, slot_next, 5000000));
    check_eq(rq_turn_take(&next, slot_next), RQ_OK);
    check_eq(atomic_load(&lost.slots[slot_lost].ticket), 0);
    rq_turn_release(&next, slot_next);

    /* Who says that he does not want it any more costs nothing. */
    check_eq(rq_turn_take(&holder, slot_holder), RQ_OK);
    check_eq(rq_turn_take(&lost, slot_lost), RQ_BUSY);
    check_eq(rq_turn_take(&next, slot_next), RQ_BUSY);
    rq_turn_release(&holder, slot_holder);
    rq_turn_give_up(&lost, slot_lost);
    check_eq(rq_turn_take(&next, slot_next), RQ_OK);
    rq_control_close(&holder);
    rq_control_close(&lost);
    rq_control_close(&next);
    rq_control_close(&daemon);
}

static void hold_and_hang(int who)
{
    struct rq_control c;
    uint32_t slot;
    join_as(&c, &slot);
    atomic_store(&c.slots[slot].snapshot, rq_snap_word(RQ_SNAP_ACTIVE, RQ_SNAP_WAL, 5));
    check_eq(rq_turn_take(&c, slot), RQ_OK);
    atomic_fetch_add(&board->taken[who], slot + 1);
    for (;;) {
        (void)pause();
    }
}

static void turn_and_snapshot_of_a_killed_process_are_free_after_a_sweep(void)
{
    struct rq_control daemon, c;
    uint32_t slot;
    fresh_page(&daemon);
    pid_t pid = spawn(hold_and_hang, 0);
    check(run_until(1, 1));
    uint32_t dead_slot = (uint32_t)board->taken[0] - 1;
    join_as(&c, &slot);
    rq_control_sweep(&daemon);
    check_eq(rq_turn_take(&c, slot), RQ_BUSY); /* alive: the sweep left it alone */
    check(atomic_load(&daemon.slots[dead_slot].snapshot) != 0);
    (void)kill(pid, SIGKILL);
    (void)reap(pid);
    check_eq(rq_turn_take(&c, slot), RQ_BUSY);
    rq_control_sweep(&daemon);
    check_eq(atomic_load(&daemon.slots[dead_slot].snapshot), 0);
    check_eq(rq_turn_take(&c, slot), RQ_OK);
    rq_control_close(&c);
    rq_control_close(&daemon);
}

/* Takers are killed at any instruction while others go on.  A sweep every few milliseconds, as raftd does it. */
static void kills_never_wedge_the_turn(void)
{
    struct rq_control daemon;
    pid_t pid[4];
    unsigned seed = 7;
    fresh_page(&daemon);
    for (int i = 0; i < 4; i++) {
        pid[i] = spawn(take_turns_sleeping, i);
    }
    uint64_t slowest_ms = 0;
    for (int round = 0; round < 150; round++) {
        struct timespec t = { .tv_nsec = rand_r(&seed) % 4000000 };
        (void)nanosleep(&t, NULL);
        int i = rand_r(&seed) % 3; /* the fourth lives through all of it */
        (void)kill(pid[i], SIGKILL);
        (void)reap(pid[i]);
        atomic_store(&board->inside, 0); /* it may have died inside */
        uint64_t before = atomic_load(&board->taken[3]), begin = now_ms();
        rq_control_sweep(&daemon);
        while (atomic_load(&board->taken[3]) == before && now_ms() - begin < 30000) {
            (void)sched_yield();
        }
        slowest_ms = now_ms() - begin > slowest_ms ? now_ms() - begin : slowest_ms;
        pid[i] = spawn(take_turns_sleeping, i);
    }
    atomic_store(&board->stop, 1);
    for (int i = 0; i < 4; i++) {
        check_eq(reap(pid[i]), 0);
    }
    check(slowest_ms < 25000);
    rq_control_sweep(&daemon);
    check_eq(atomic_load(&daemon.head->turn), 0);
    for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
        check_eq(atomic_load(&daemon.slots[i].pid), 0);
    }
    rq_control_close(&daemon);
}

static struct rq_control inherited;
static void keep_inherited(int drop)
{
    if (drop != 0) {
        rq_control_orphan(&inherited);
    }
    atomic_fetch_add(&board->ready, 1);
    for (;;) {
        (void)pause();
    }
}

static void forked_child_that_drops_what_it_inherited_keeps_no_slot_alive(void)
{
    for (int drop = 0; drop < 2; drop++) {
        struct rq_control daemon;
        uint32_t slot;
        fresh_page(&daemon);
        join_as(&inherited, &slot);
        pid_t pid = spawn(keep_inherited, drop);
        while (atomic_load(&board->ready) == 0) {
            (void)sched_yield();
        }
        rq_control_sweep(&daemon);
        check(atomic_load(&daemon.slots[slot].pid) != 0); /* orphaned by the child, still the parent's */
        rq_control_close(&inherited);                     /* as if the parent had died: nothing was released */
        rq_control_sweep(&daemon);
        bool freed = atomic_load(&daemon.slots[slot].pid) == 0;
        (void)kill(pid, SIGKILL);
        (void)reap(pid);
        check_eq(freed, drop != 0);
        rq_control_close(&daemon);
    }
}

static uint32_t slots_in_use(const struct rq_control *c)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
        count += atomic_load(&c->slots[i].pid) != 0;
    }
    return count;
}

/* db_path is the page's without its suffix. */
static void share_three_slots(int keep)
{
    char db_path[96];
    struct rq_control *c[3];
    uint32_t slot[3];
    (void)snprintf(db_path, sizeof db_path, "%.*s", (int)(strlen(path) - strlen("-rqctl")), path);
    for (int i = 0; i < 3; i++) {
        check_eq(rq_control_share_get(rq_disk_real(), db_path, BOOT, &c[i]), RQ_OK);
        check_eq(rq_control_share_claim(c[i], 1234, &slot[i]), RQ_OK);
        check(i == 0 || (c[i] == c[0] && slot[i] != slot[i - 1]));
    }
    check_eq(rq_turn_take(c[2], slot[2]), RQ_OK);
    check_eq(rq_turn_take(c[1], slot[1]), RQ_BUSY);
    rq_control_share_release(c[0], slot[0]);
    rq_control_share_put(c[0]);
    atomic_fetch_add(&board->ready, 1);
    if (keep != 0) {
        for (;;) {
            (void)pause();
        }
    }
}

static void a_process_that_dies_with_a_shared_page_frees_each_of_its_slots(void)
{
    struct rq_control daemon;
    fresh_page(&daemon);
    atomic_store(&daemon.head->ready, 1);
    pid_t pid = spawn(share_three_slots, 1);
    while (atomic_load(&board->ready) == 0) {
        (void)sched_yield();
    }
    rq_control_sweep(&daemon);
    check_eq(slots_in_use(&daemon), 2); /* the third was given back */
    (void)kill(pid, SIGKILL);
    (void)reap(pid);
    rq_control_sweep(&daemon);
    check_eq(slots_in_use(&daemon), 0);
    check_eq(atomic_load(&daemon.head->turn), 0);
    rq_control_close(&daemon);
}

static void a_sweep_leaves_the_slots_of_its_own_description_alone(void)
{
    struct rq_control daemon;
    uint32_t slot;
    fresh_page(&daemon);
    check_eq(rq_slot_claim(&daemon, 1, &slot), RQ_OK);
    rq_control_sweep(&daemon);
    check_eq(slots_in_use(&daemon), 1);
    rq_control_close(&daemon);
}

static void every_slot_can_be_claimed_once_through_one_description(void)
{
    struct rq_control daemon;
    uint32_t slot;
    fresh_page(&daemon);
    for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
        check_eq(rq_slot_claim(&daemon, 1, &slot), RQ_OK);
        check_eq(slot, i);
    }
    check_eq(rq_slot_claim(&daemon, 1, &slot), RQ_BUSY);
    rq_slot_release(&daemon, 700);
    check_eq(rq_slot_claim(&daemon, 1, &slot), RQ_OK);
    check_eq(slot, 700);
    rq_control_close(&daemon);
}

static void every_slot_can_be_claimed_once(void)
{
    struct rq_control daemon;
    static struct rq_control c[RQ_SLOT_COUNT + 1];
    uint32_t slot;
    fresh_page(&daemon);
    for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
        check_eq(rq_control_open(rq_disk_real(), path, BOOT, &c[i]), RQ_OK);
        check_eq(rq_slot_claim(&c[i], i + 1, &slot), RQ_OK);
        check_eq(slot, i);
    }
    check_eq(rq_control_open(rq_disk_real(), path, BOOT, &c[RQ_SLOT_COUNT]), RQ_OK);
    check_eq(rq_slot_claim(&c[RQ_SLOT_COUNT], 1, &slot), RQ_BUSY);
    rq_slot_release(&c[500], 500);
    check_eq(rq_slot_claim(&c[RQ_SLOT_COUNT], 1, &slot), RQ_OK);
    check_eq(slot, 500);
    /* Whose owner is gone without a word looks taken, and is not. */
    rq_control_close(&c[7]);
    check_eq(rq_slot_claim(&c[500], 1, &slot), RQ_OK);
    check_eq(slot, 7);
    for (uint32_t i = 0; i <= RQ_SLOT_COUNT; i++) {
        rq_control_close(&c[i]);
    }
    rq_control_close(&daemon);
}

static void restarted_daemon_takes_over_page_turn_and_slots(void)
{
    struct rq_control daemon, again, c;
    uint32_t slot;
    fresh_page(&daemon);
    join_as(&c, &slot);
    check_eq(rq_turn_take(&c, slot), RQ_OK);
    rq_control_close(&daemon);
    check_eq(rq_control_publish(rq_disk_real(), path, BOOT, 0600, &again), RQ_OK);
    rq_control_sweep(&again);
    check(rq_turn_held(&c, slot));
    rq_turn_pass(&again, slot);
    check(!rq_turn_held(&c, slot));
    check_eq(atomic_load(&c.head->gone), 0);
    rq_control_close(&again);
    rq_control_close(&c);
}

static void page_of_another_boot_or_without_magic_is_replaced_and_says_so(void)
{
    for (int kind = 0; kind < 3; kind++) {
        struct rq_control daemon, again, c;
        uint32_t slot;
        fresh_page(&daemon);
        join_as(&c, &slot);
        if (kind == 0) {
            atomic_store(&daemon.head->magic, 1);
        }
        uint64_t boot = kind == 1 ? BOOT + 1 : BOOT;
        if (kind == 2) {
            check_eq(truncate(path, 5), 0);
        }
        struct rq_control none;
        check_eq(rq_control_open(rq_disk_real(), path, boot, &none), RQ_UNREADY);
        check_eq(rq_control_publish(rq_disk_real(), path, boot, 0600, &again), RQ_OK);
        check_eq(atomic_load(&c.head->gone), 1);
        check_eq(atomic_load(&again.head->gone), 0);
        rq_control_close(&c);
        check_eq(rq_control_open(rq_disk_real(), path, boot, &c), RQ_OK);
        rq_control_close(&c);
        rq_control_close(&again);
        rq_control_close(&daemon);
    }
    struct rq_control c;
    (void)unlink(path);
    check_eq(rq_control_open(rq_disk_real(), path, BOOT, &c), RQ_NOTFOUND);
    check_eq(symlink("/etc/passwd", path), 0);
    check_eq(rq_control_open(rq_disk_real(), path, BOOT, &c), RQ_PERM);
    check(rq_boot_id() != 0 && rq_boot_id() == rq_boot_id());
}

/* Nobody opens it any more, and who has it mapped is told to look for the next one. */
static void a_page_that_was_given_up_is_nobodys(void)
{
    struct rq_control daemon, c, none;
    uint32_t slot;
    (void)unlink(path);
    check_eq(rq_control_publish(rq_disk_real(), path, 0, 0600, &daemon), RQ_OK); /* of no boot that is known */
    check_eq(rq_control_open(rq_disk_real(), path, 0, &none), RQ_UNREADY);
    rq_control_close(&daemon);
    fresh_page(&daemon);
    join_as(&c, &slot);
    const uint32_t epoch = atomic_load(&daemon.head->files_epoch);
    check(epoch != 0);
    atomic_store(&c.slots[slot].snapshot, rq_snap_word(RQ_SNAP_ACTIVE, RQ_SNAP_FILE, 0));
    check_eq(rq_control_replace(&daemon, path, BOOT, 0600), RQ_OK);
    check_eq(atomic_load(&c.head->gone), 1);
    check(atomic_load(&daemon.head->files_epoch) != epoch);
    check_eq(rq_control_check(&c, path, BOOT), RQ_FOREIGN);
    rq_control_drop_former(&daemon);
    check(daemon.former != NULL); /* somebody reads by it */
    atomic_store(&c.slots[slot].snapshot, rq_snap_word(RQ_SNAP_IDLE, RQ_SNAP_FILE, 0));
    rq_control_drop_former(&daemon);
    check(daemon.former == NULL); /* he begins nothing by it */
    rq_control_close(&c);
    atomic_store(&daemon.head->gone, 1);
    check_eq(rq_control_open(rq_disk_real(), path, BOOT, &none), RQ_UNREADY);
    rq_control_close(&daemon);
    fresh_page(&daemon);
    check_eq(rq_control_check(&daemon, path, BOOT), RQ_OK);
    check_eq(truncate(path, 4096), 0); /* its head is all there */
    check_eq(rq_control_check(&daemon, path, BOOT), RQ_UNREADY);
    rq_control_close(&daemon);
}

/* Whoever was killed while he took or left a slot may have left any part of it. */
static void a_sweep_clears_whatever_stands_for_nobody(void)
{
    struct rq_control daemon;
    fresh_page(&daemon);
    struct rq_slot *s = daemon.slots;
    atomic_store(&s[0].snapshot, rq_snap_word(RQ_SNAP_ACTIVE, RQ_SNAP_WAL, 9));
    atomic_store(&s[1].ticket, 5);
    atomic_store(&s[2].session, 6);
    atomic_store(&s[3].pid, 7);
    atomic_store(&s[3].holds, 8);
    rq_control_sweep(&daemon);
    check_eq(atomic_load(&s[0].snapshot), 0);
    check_eq(atomic_load(&s[1].ticket), 0);
    check_eq(atomic_load(&s[2].session), 0);
    check_eq(atomic_load(&s[3].pid), 0);
    check_eq(atomic_load(&s[3].holds), 0);
    rq_control_close(&daemon);
}

static void a_page_is_made_where_a_half_made_one_was_left(void)
{
    struct rq_control daemon;
    char draft[128];
    (void)unlink(path);
    (void)snprintf(draft, sizeof draft, "%s-new", path);
    FILE *f = fopen(draft, "w");
    check(f != NULL && fclose(f) == 0);
    check_eq(rq_control_publish(rq_disk_real(), path, BOOT, 0600, &daemon), RQ_OK);
    check(access(draft, F_OK) != 0);
    rq_control_close(&daemon);
}

static void a_closed_turn_is_nobodys_and_its_queue_stays(void)
{
    struct rq_control daemon, a, b;
    uint32_t slot_a, slot_b, first, second;
    fresh_page(&daemon);
    join_as(&a, &slot_a);
    join_as(&b, &slot_b);

    /* Who has it keeps it; when he gives it back nobody gets it. */
    check_eq(rq_turn_take(&a, slot_a), RQ_OK);
    check(!rq_turn_elsewhere(&a));
    rq_turn_close(&daemon);
    check(rq_turn_elsewhere(&a) && rq_turn_held(&a, slot_a));
    check_eq(rq_turn_holder(&daemon, &first), slot_a);
    check(!rq_turn_wait(&b, slot_b, 1000));
    rq_turn_release(&a, slot_a);
    check_eq(rq_turn_holder(&daemon, NULL), RQ_SLOT_COUNT);
    check(!rq_turn_wait(&b, slot_b, 1000));
    check_eq(rq_turn_take(&b, slot_b), RQ_BUSY);
    check_eq(rq_turn_take(&a, slot_a), RQ_BUSY);
    rq_control_sweep(&daemon);
    check_eq(rq_turn_take(&a, slot_a), RQ_BUSY);

    /* Opened, it goes to who has waited longest; an offer does not survive that it is closed, the ticket does. */
    atomic_store(&b.slots[slot_b].asleep, 1);
    check(rq_turn_wanted(&daemon));
    rq_turn_open(&daemon);
    check_eq(rq_turn_take(&a, slot_a), RQ_BUSY);
    rq_turn_close(&daemon);
    check_eq(rq_turn_take(&b, slot_b), RQ_BUSY);
    rq_turn_open(&daemon);
    check_eq(rq_turn_take(&a, slot_a), RQ_BUSY);
    check_eq(rq_turn_take(&b, slot_b), RQ_OK);
    check_eq(rq_turn_holder(&daemon, &second), slot_b);
    check(second != first);
    atomic_store(&b.slots[slot_b].asleep, 0);

    /* raftd takes it from who does not get on. */
    rq_turn_close(&daemon);
    rq_turn_pass(&daemon, slot_b);
    check(!rq_turn_held(&b, slot_b));
    check_eq(rq_turn_holder(&daemon, NULL), RQ_SLOT_COUNT);
    rq_control_close(&a);
    rq_control_close(&b);
    rq_control_close(&daemon);
}

/* Processes take it while it is closed and opened all the time: after it was closed and found free nobody has it. */
static void taker(int arg)
{
    struct rq_control c;
    uint32_t slot;
    join_as(&c, &slot);
    (void)arg;
    while (atomic_load(&board->stop) == 0) {
        if (rq_turn_take(&c, slot) == RQ_OK) {
            atomic_fetch_add(&board->inside, 1);
            atomic_fetch_add(&board->taken[0], 1);
            atomic_fetch_sub(&board->inside, 1);
            rq_turn_release(&c, slot);
        }
    }
}

static void nobody_takes_what_was_closed_and_found_free(void)
{
    struct rq_control daemon;
    pid_t pids[3];
    fresh_page(&daemon);
    for (int i = 0; i < 3; i++) {
        pids[i] = spawn(taker, i);
    }
    const uint64_t end = now_ms() + 10000;
    while (atomic_load(&board->taken[0]) == 0 && now_ms() < end) {
    }
    unsigned found_free = 0;
    while (now_ms() < end && found_free < 3000) {
        rq_turn_close(&daemon);
        if (rq_turn_holder(&daemon, NULL) == RQ_SLOT_COUNT) {
            uint64_t before = atomic_load(&board->taken[0]);
            for (int i = 0; i < 200; i++) {
                check_eq(atomic_load(&board->inside), 0);
            }
            check_eq(atomic_load(&board->taken[0]), before);
            found_free++;
        }
        rq_turn_open(&daemon);
    }
    atomic_store(&board->stop, 1);
    for (int i = 0; i < 3; i++) {
        check_eq(reap(pids[i]), 0);
    }
    check(found_free > 0 && atomic_load(&board->taken[0]) > 0);
    rq_control_close(&daemon);
}

/* As each time that the cluster's turn comes to this host: it is opened, and closed before the offer has ended. */
static void who_does_not_look_any_more_holds_up_nobody(void)
{
    struct rq_control daemon, dead, live;
    uint32_t slot_dead, slot_live;
    unsigned rounds = 0;
    fresh_page(&daemon);
    join_as(&dead, &slot_dead);
    join_as(&live, &slot_live);
    rq_turn_close(&daemon);
    check_eq(rq_turn_take(&dead, slot_dead), RQ_BUSY);
    check_eq(rq_turn_take(&live, slot_live), RQ_BUSY);
    atomic_store(&dead.slots[slot_dead].asleep, 1);
    atomic_store(&live.slots[slot_live].asleep, 1);
    bool got = false;
    while (!got && rounds < 10) {
        rounds++;
        rq_turn_open(&daemon);
        got = rq_turn_take(&live, slot_live) == RQ_OK;
        rq_turn_close(&daemon);
    }
    check_eq(rounds, 3);
    rq_turn_release(&live, slot_live);

    /* Back to life it gets a new place. */
    check_eq(rq_turn_take(&dead, slot_dead), RQ_BUSY);
    rq_turn_open(&daemon);
    check_eq(rq_turn_take(&dead, slot_dead), RQ_OK);
    rq_turn_release(&dead, slot_dead);
    rq_control_close(&dead);
    rq_control_close(&live);
    rq_control_close(&daemon);
}

/* One that looks, and comes too late each time, keeps its place. */
static void who_looks_keeps_his_place(void)
{
    struct rq_control daemon, slow, other;
    uint32_t slot_slow, slot_other;
    fresh_page(&daemon);
    join_as(&slow, &slot_slow);
    join_as(&other, &slot_other);
    rq_turn_close(&daemon);
    check_eq(rq_turn_take(&slow, slot_slow), RQ_BUSY);
    check_eq(rq_turn_take(&other, slot_other), RQ_BUSY);
    atomic_store(&slow.slots[slot_slow].asleep, 1);
    for (int i = 0; i < 10; i++) {
        rq_turn_open(&daemon);
        check_eq(rq_turn_take(&other, slot_other), RQ_BUSY);
        rq_turn_close(&daemon);
        check_eq(rq_turn_take(&slow, slot_slow), RQ_BUSY);
    }
    rq_turn_open(&daemon);
    check_eq(rq_turn_take(&slow, slot_slow), RQ_OK);
    rq_turn_release(&slow, slot_slow);
    rq_control_close(&slow);
    rq_control_close(&other);
    rq_control_close(&daemon);
}

static void scribbled_words_end_and_mend(void)
{
    struct rq_control daemon, a, b;
    uint32_t slot_a, slot_b;
    unsigned seed = 11;
    fresh_page(&daemon);
    join_as(&a, &slot_a);
    join_as(&b, &slot_b);

    /* Held by a live connection that knows nothing of it. */
    atomic_store(&daemon.head->turn, 99ull << 32 | (slot_b + 1));
    check_eq(rq_turn_take(&a, slot_a), RQ_BUSY);
    rq_control_sweep(&daemon);
    check_eq(rq_turn_take(&a, slot_a), RQ_OK);
    rq_turn_release(&a, slot_a);

    for (int round = 0; round < 300; round++) {
        uint8_t *head = (uint8_t *)&daemon.head->turn;
        size_t head_bytes = sizeof *daemon.head - offsetof(struct rq_control_head, turn);
        for (size_t i = 0; i < head_bytes; i++) {
            head[i] = (uint8_t)rand_r(&seed);
        }
        for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
            atomic_store(&daemon.slots[i].ticket, (uint32_t)rand_r(&seed));
            atomic_store(&daemon.slots[i].holds, (uint32_t)rand_r(&seed));
            atomic_store(&daemon.slots[i].asleep, (uint32_t)rand_r(&seed) & 1);
        }
        uint64_t begin = now_ms();
        (void)rq_turn_take(&a, slot_a);
        (void)rq_turn_wait(&b, slot_b, 0);
        rq_turn_pass(&daemon, slot_a);
        rq_turn_give_up(&a, slot_a);
        rq_turn_release(&b, slot_b);
        rq_control_sweep(&daemon);
        bool got = false;
        for (int i = 0; i < 600 && !got; i++) {
            got = rq_turn_take(&a, slot_a) == RQ_OK ||
                  (rq_turn_wait(&a, slot_a, 50000) && rq_turn_take(&a, slot_a) == RQ_OK);
            rq_control_sweep(&daemon);
        }
        check(got);
        check(now_ms() - begin < 30000);
        rq_turn_release(&a, slot_a);
    }
    rq_control_close(&a);
    rq_control_close(&b);
    rq_control_close(&daemon);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(free_turn_is_taken_and_excludes),
        TAP(processes_exclude_each_other_and_share_fairly),
        TAP(threads_exclude_each_other),
        TAP(poller_beside_sleepers_gets_its_share),
        TAP(offer_that_is_not_taken_up_goes_on),
        TAP(turn_and_snapshot_of_a_killed_process_are_free_after_a_sweep),
        TAP(kills_never_wedge_the_turn),
        TAP(forked_child_that_drops_what_it_inherited_keeps_no_slot_alive),
        TAP(every_slot_can_be_claimed_once),
        TAP(every_slot_can_be_claimed_once_through_one_description),
        TAP(a_process_that_dies_with_a_shared_page_frees_each_of_its_slots),
        TAP(a_sweep_leaves_the_slots_of_its_own_description_alone),
        TAP(restarted_daemon_takes_over_page_turn_and_slots),
        TAP(page_of_another_boot_or_without_magic_is_replaced_and_says_so),
        TAP(a_closed_turn_is_nobodys_and_its_queue_stays),
        TAP(nobody_takes_what_was_closed_and_found_free),
        TAP(who_does_not_look_any_more_holds_up_nobody),
        TAP(who_looks_keeps_his_place),
        TAP(scribbled_words_end_and_mend),
        TAP(a_page_that_was_given_up_is_nobodys),
        TAP(a_sweep_clears_whatever_stands_for_nobody),
        TAP(a_page_is_made_where_a_half_made_one_was_left),
    };
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    (void)snprintf(dir, sizeof dir, "/tmp/rq-control-XXXXXX");
    if (board == MAP_FAILED || mkdtemp(dir) == NULL) {
        return 1;
    }
    (void)snprintf(path, sizeof path, "%s/a.db-rqctl", dir);
    int code = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    (void)unlink(path);
    (void)rmdir(dir);
    return code;
}
