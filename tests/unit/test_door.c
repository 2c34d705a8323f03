/* door: one watcher at a time; an event wakes somebody only while there is none. */
#include <pthread.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "raftd/net/door.h"
#include "tests/support/tap.h"

#define LONG_MS 20000

static int set, event;
static struct rq_door door;

static void open_all(void)
{
    struct epoll_event e = { .events = EPOLLIN };
    set = epoll_create1(EPOLL_CLOEXEC);
    event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    check(set >= 0 && event >= 0);
    check_eq(epoll_ctl(set, EPOLL_CTL_ADD, event, &e), 0);
    check_eq(rq_door_init(&door, set), RQ_OK);
}

static void close_all(void)
{
    rq_door_leave(&door);
    rq_door_fini(&door);
    close(event);
    close(set);
}

static void ring(void)
{
    const uint64_t one = 1;
    check_eq(write(event, &one, sizeof one), sizeof one);
}

static bool would_wake(void)
{
    struct epoll_event e;
    return epoll_wait(door.sleep, &e, 1, 0) > 0;
}

/* Another thread comes to the door, and leaves it if it became the watcher. */
static void *come(void *became)
{
    *(bool *)became = rq_door_wait(&door, LONG_MS);
    rq_door_leave(&door);
    return NULL;
}

static void who_comes_first_watches_and_nobody_else_is_woken(void)
{
    open_all();
    check(!rq_door_is_mine(&door));
    check(rq_door_wait(&door, 0));
    check(rq_door_is_mine(&door));
    ring();
    check(!would_wake());
    close_all();
}

static void event_while_nobody_watches_wakes_one(void)
{
    pthread_t thread;
    bool became = false;
    open_all();
    check(rq_door_wait(&door, 0));
    ring();
    rq_door_leave(&door);
    check(!rq_door_is_mine(&door));
    check_eq(pthread_create(&thread, NULL, come, &became), 0);
    pthread_join(thread, NULL);
    check(became);
    check(would_wake()); /* it has left, and the event is still there */
    close_all();
}

static void who_comes_back_before_anybody_was_needed_watches_on(void)
{
    open_all();
    check(rq_door_wait(&door, 0));
    rq_door_leave(&door);
    rq_door_take(&door);
    check(rq_door_is_mine(&door));
    ring();
    check(!would_wake());
    close_all();
}

static void *come_and_stay(void *gate)
{
    pthread_barrier_t *both = gate;
    const bool became = rq_door_wait(&door, LONG_MS);
    pthread_barrier_wait(both);
    pthread_barrier_wait(both);
    rq_door_leave(&door);
    return became ? &door : NULL;
}

/* Another thread is let in, and this one comes back while that one stays. */
static void check_another_one_watches(void)
{
    pthread_t thread;
    pthread_barrier_t both;
    void *became;
    check_eq(pthread_barrier_init(&both, NULL, 2), 0);
    check_eq(pthread_create(&thread, NULL, come_and_stay, &both), 0);
    pthread_barrier_wait(&both);
    rq_door_take(&door);
    const bool mine = rq_door_is_mine(&door);
    pthread_barrier_wait(&both);
    pthread_join(thread, &became);
    pthread_barrier_destroy(&both);
    check(became != NULL);
    check(!mine);
}

static void who_comes_back_too_late_does_not_watch(void)
{
    open_all();
    check(rq_door_wait(&door, 0));
    rq_door_leave(&door);
    ring();
    check_another_one_watches();
    close_all();
}

static void door_that_was_left_shut_lets_nobody_in(void)
{
    open_all();
    check(rq_door_wait(&door, 0));
    rq_door_leave_shut(&door);
    check(!rq_door_is_mine(&door));
    ring();
    check(!would_wake());
    check(!rq_door_wait(&door, 0));
    rq_door_take(&door);
    check(rq_door_is_mine(&door));
    check(!would_wake());
    close_all();
}

static void who_opens_it_lets_one_in(void)
{
    open_all();
    check(rq_door_wait(&door, 0));
    rq_door_open(&door); /* not left shut: nothing happens */
    ring();
    check(!would_wake());
    rq_door_leave_shut(&door);
    rq_door_open(&door);
    check_another_one_watches();
    rq_door_take(&door);
    check(rq_door_is_mine(&door));
    close_all();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(who_comes_first_watches_and_nobody_else_is_woken),
        TAP(event_while_nobody_watches_wakes_one),
        TAP(who_comes_back_before_anybody_was_needed_watches_on),
        TAP(who_comes_back_too_late_does_not_watch),
        TAP(door_that_was_left_shut_lets_nobody_in),
        TAP(who_opens_it_lets_one_in),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
