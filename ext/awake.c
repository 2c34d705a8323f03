#include "ext/awake.h"

#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A real-time thread would not let those go first whose answer it waits for. */
void rq_awake_init(struct rq_awake *a)
{
    cpu_set_t processors;
    const bool several =
        sched_getaffinity(0, sizeof processors, &processors) != 0 || CPU_COUNT(&processors) > 1; /* fails above 1024 */
    const char *wanted = getenv("RQVFS_AWAKE");
    const bool unwanted = wanted != NULL && strcmp(wanted, "0") == 0;
    *a = (struct rq_awake){ .never = unwanted || !several || sched_getscheduler(0) != SCHED_OTHER };
}

bool rq_awake_begin(struct rq_awake *a)
{
    if (a->never) {
        return false;
    }
    if (a->asleep > 0) {
        a->asleep--;
        return false;
    }
    return true;
}

void rq_awake_end(struct rq_awake *a, bool in_time)
{
    if (in_time) {
        a->in_time = (a->in_time + 1) % RQ_AWAKE_TRUST;
        a->in_vain -= a->in_time == 0 && a->in_vain > 0;
        return;
    }
    a->in_time = 0;
    a->asleep = 1u << a->in_vain;
    a->in_vain += a->asleep < RQ_AWAKE_ASLEEP;
}

bool rq_awake_wait(struct rq_awake *a, int fd)
{
    if (!rq_awake_begin(a)) {
        return false;
    }
    struct pollfd p = { .fd = fd, .events = POLLIN };
    const uint64_t begin = now_ns();
    uint64_t last = begin, now = begin;
    bool found = poll(&p, 1, 0) > 0;
    while (!found && now - last <= RQ_AWAKE_AWAY_NS && now - begin <= RQ_AWAKE_NS) {
        (void)sched_yield(); /* always succeeds */
        found = poll(&p, 1, 0) > 0;
        last = now;
        now = now_ns();
    }
    rq_awake_end(a, now - begin <= RQ_AWAKE_NS);
    return found;
}
