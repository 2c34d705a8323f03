/* active: no readable line is forgotten or given to two threads, quiet ones come back, and strands posted by lines that were
 * ready together are carried together. */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "raftd/net/active.h"
#include "raftd/run/strand.h"
#include "tests/support/tap.h"

#define LINES  8
#define ROUNDS 3000

static struct rq_active *active;
static atomic_bool broken; /* seen on a thread of the set */

struct line {
    struct rq_active_line active;
    int other_end;
    atomic_int inside;
    atomic_bool ended, quiet;
};

static struct line *line_of(struct rq_active_line *a)
{
    return (struct line *)((char *)a - offsetof(struct line, active));
}

static void echo(struct rq_active_line *a)
{
    struct line *l = line_of(a);
    char c;
    if (atomic_fetch_add(&l->inside, 1) != 0) {
        atomic_store(&broken, true);
    }
    ssize_t n = recv(a->fd, &c, 1, MSG_DONTWAIT);
    atomic_fetch_sub(&l->inside, 1);
    if (n <= 0) {
        rq_active_forget(active, a);
        atomic_store(&l->ended, true);
        return;
    }
    if (send(a->fd, &c, 1, MSG_NOSIGNAL) != 1 || !rq_active_wait(active, a)) {
        atomic_store(&broken, true);
    }
}

static void note_quiet(struct rq_active_line *a)
{
    atomic_store(&line_of(a)->quiet, true);
}

static void open_line(struct line *l, void (*readable)(struct rq_active_line *))
{
    int fds[2];
    check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    *l = (struct line){ .active = { .fd = fds[0], .readable = readable, .quiet = note_quiet }, .other_end = fds[1] };
    check(rq_active_wait(active, &l->active));
}

static void await_flag(const atomic_bool *flag)
{
    time_t until = time(NULL) + 20;
    while (!atomic_load(flag) && time(NULL) < until) {
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    check(atomic_load(flag));
}

static bool answered(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    char c;
    return poll(&p, 1, 10000) == 1 && recv(fd, &c, 1, 0) == 1 && c == 'x';
}

static void every_request_of_every_line_is_answered(void)
{
    static struct line lines[LINES];
    for (int i = 0; i < LINES; i++) {
        open_line(&lines[i], echo);
    }
    bool all = true;
    for (int round = 0; round < ROUNDS && all; round++) {
        int busy = 1 + round % LINES; /* one alone, some, all */
        for (int i = 0; i < busy; i++) {
            all = send(lines[i].other_end, "x", 1, 0) == 1 && all;
        }
        for (int i = 0; i < busy; i++) {
            all = answered(lines[i].other_end) && all;
        }
    }
    check(all);
    check(!atomic_load(&broken));
    for (int i = 0; i < LINES; i++) {
        close(lines[i].other_end);
        await_flag(&lines[i].ended);
        close(lines[i].active.fd);
    }
}

static void quiet_line_is_given_back(void)
{
    static struct line line;
    open_line(&line, echo);
    check_eq(send(line.other_end, "x", 1, 0), 1);
    check(answered(line.other_end));
    await_flag(&line.quiet);
    check(rq_active_wait(active, &line.active)); /* and can come again */
    check_eq(send(line.other_end, "x", 1, 0), 1);
    check(answered(line.other_end));
    close(line.other_end);
    await_flag(&line.ended);
    close(line.active.fd);
}

static atomic_bool waits, goes_on;

/* As for a disk, with the line given back before. */
static void echo_after_a_wait(struct rq_active_line *a)
{
    char c;
    ssize_t n = recv(a->fd, &c, 1, MSG_DONTWAIT);
    if (n <= 0) {
        rq_active_forget(active, a);
        atomic_store(&line_of(a)->ended, true);
        return;
    }
    if (!rq_active_wait(active, a)) {
        atomic_store(&broken, true);
    }
    rq_strand_will_block();
    atomic_store(&waits, true);
    await_flag(&goes_on);
    rq_strand_goes_on();
    if (send(a->fd, &c, 1, MSG_NOSIGNAL) != 1) {
        atomic_store(&broken, true);
    }
}

static void line_that_comes_while_the_only_one_waits_is_served(void)
{
    static struct line first, second;
    open_line(&first, echo_after_a_wait);
    check_eq(send(first.other_end, "x", 1, 0), 1);
    await_flag(&waits);
    open_line(&second, echo);
    check_eq(send(second.other_end, "x", 1, 0), 1);
    check(answered(second.other_end));
    atomic_store(&goes_on, true);
    check(answered(first.other_end));
    check(!atomic_load(&broken));
    struct line *const lines[] = { &first, &second };
    for (int i = 0; i < 2; i++) {
        close(lines[i]->other_end);
        await_flag(&lines[i]->ended);
        close(lines[i]->active.fd);
    }
}

static struct rq_strand strand;
static struct rq_task task;
static atomic_bool carried;

static void carry(struct rq_task *t)
{
    (void)t;
    atomic_store(&carried, true);
}

static void held_strand_is_carried_when_let_go(void)
{
    struct rq_pool *pool;
    check_eq(rq_pool_new(1, "test", &pool), RQ_OK);
    rq_strand_init(&strand, pool, "s");
    task.run = carry;
    rq_strand_hold();
    rq_strand_post(&strand, &task, RQ_CARRY);
    check(!atomic_load(&carried));
    rq_strand_let_go();
    check(atomic_load(&carried));
    rq_strand_fini(&strand);
    rq_pool_free(pool);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(every_request_of_every_line_is_answered),
        TAP(quiet_line_is_given_back),
        TAP(line_that_comes_while_the_only_one_waits_is_served),
        TAP(held_strand_is_carried_when_let_go),
    };
    if (rq_active_new(&active) != RQ_OK) {
        return 1;
    }
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
