/* control, turn: the turn excludes, is fair, and outlives everybody who dies with it; slots belong to who holds their lock; no
 * content of the page makes a call hang.  Forked processes stand for applications, each with a description of its own. */
#include "vfs/control.h"

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
    check_eq(rq_turn_take(&a, slot_a), RQ_BUSY); /* b is first */
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

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(free_turn_is_taken_and_excludes),
        TAP(processes_exclude_each_other_and_share_fairly),
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
