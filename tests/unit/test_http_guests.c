/* guests of the HTTP server: who goes when there is no room. */
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raftd/http/guests.h"
#include "tests/support/tap.h"

#define ROOM 8u /* and 7 are not nearly full */

static int here[2 * ROOM], there[2 * ROOM];
static struct rq_guest *guest[2 * ROOM];

static void enter(struct rq_guests *g, unsigned i)
{
    int both[2];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, both) == 0);
    here[i] = both[0];
    there[i] = both[1];
    guest[i] = rq_guests_enter(g, here[i]);
    check(guest[i] != NULL);
}

static bool was_sent_away(unsigned i)
{
    char c;
    return recv(there[i], &c, 1, MSG_DONTWAIT) == 0;
}

static void leave(struct rq_guests *g, unsigned i)
{
    rq_guests_leave(g, guest[i]);
    close(here[i]);
    close(there[i]);
}

static void fill(struct rq_guests **ret_guests)
{
    check(rq_guests_new(ROOM, ret_guests) == RQ_OK);
    for (unsigned i = 0; i < ROOM - 1; i++) {
        enter(*ret_guests, i);
    }
}

static void who_waits_longest_goes(void)
{
    struct rq_guests *g;
    fill(&g);
    for (unsigned i = 0; i < ROOM - 1; i++) {
        check(!was_sent_away(i));
    }
    enter(g, 7);
    check(was_sent_away(0) && !was_sent_away(1));
    leave(g, 0); /* as it does when it notices */
    enter(g, 8);
    check(was_sent_away(1) && !was_sent_away(2));
    leave(g, 1);
    leave(g, 5);
    enter(g, 9);
    check(!was_sent_away(2) && !was_sent_away(7) && !was_sent_away(9));
    for (unsigned i = 2; i < 10; i++) {
        if (i != 5) {
            leave(g, i);
        }
    }
    rq_guests_free(g);
}

static void who_is_served_stays(void)
{
    struct rq_guests *g;
    fill(&g);
    rq_guests_is_served(g, guest[0]);
    rq_guests_is_served(g, guest[0]);
    rq_guests_gave(g, guest[1], RQ_GUEST_PIECE_MIN - 1);
    rq_guests_gave(g, guest[2], RQ_GUEST_PIECE_MIN);
    enter(g, 7);
    check(!was_sent_away(0) && was_sent_away(1) && !was_sent_away(2));
    rq_guests_waits(g, guest[0]);
    for (unsigned i = 8; i < 12; i++) {
        enter(g, i);
    }
    check(was_sent_away(3) && was_sent_away(4) && was_sent_away(5) && was_sent_away(6));
    check(!was_sent_away(2) && !was_sent_away(0));
    enter(g, 12);
    check(was_sent_away(2) && !was_sent_away(7) && !was_sent_away(0));
    for (unsigned i = 0; i < 13; i++) {
        leave(g, i);
    }
    rq_guests_free(g);
}

static void all_are_served(void)
{
    struct rq_guests *g;
    fill(&g);
    for (unsigned i = 0; i < ROOM - 1; i++) {
        rq_guests_is_served(g, guest[i]);
    }
    enter(g, 7);
    enter(g, 8);
    for (unsigned i = 0; i < 9; i++) {
        check(was_sent_away(i) == (i == 7));
        leave(g, i);
    }
    rq_guests_waits(g, NULL);
    rq_guests_gave(g, NULL, 1000);
    rq_guests_is_served(g, NULL);
    rq_guests_leave(g, NULL);
    rq_guests_free(g);
}

/* By epoll, edge triggered, a hang-up that was taken for less is told once more; of those who wait, and of those who are served. */
static void who_has_hung_up_is_told_again(void)
{
    struct rq_guests *g;
    struct epoll_event event;
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    fill(&g);
    rq_guests_is_served(g, guest[1]);
    for (unsigned i = 0; i < 3; i++) {
        event = (struct epoll_event){ .events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.u32 = i };
        check(epoll_ctl(epoll, EPOLL_CTL_ADD, here[i], &event) == 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        check(shutdown(there[i], SHUT_WR) == 0);
        check(epoll_wait(epoll, &event, 1, 0) == 1 && event.data.u32 == i);
    }
    check(epoll_wait(epoll, &event, 1, 0) == 0);
    rq_guests_stir(g);
    check(epoll_wait(epoll, &event, 1, 0) == 1 && event.data.u32 == 0);
    check(epoll_wait(epoll, &event, 1, 0) == 1 && event.data.u32 == 1);
    check(epoll_wait(epoll, &event, 1, 0) == 0); /* of nobody else */
    close(epoll);
    for (unsigned i = 0; i < ROOM - 1; i++) {
        leave(g, i);
    }
    rq_guests_free(g);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(who_waits_longest_goes),
        TAP(who_is_served_stays),
        TAP(all_are_served),
        TAP(who_has_hung_up_is_told_again),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
