/* Active: the lines of applications that are at work, waited for by few threads with as few wake-ups as possible.
 *
 * One thread at a time is the watcher: it alone takes lines that have become readable, and those that have been quiet for long.
 * What it takes it serves itself, still the watcher: nobody is woken for what comes meanwhile, as it will be back in some 10 us.
 * Before it waits for a disk (rq_strand_will_block) it opens the door, so that the next line that becomes readable wakes another
 * thread; when it goes on, and nobody else watches, it is the watcher again without having slept.  Lines that are ready at the
 * same moment are served together (rq_strand_hold), so that their commits share one write of the log.
 *
 * So whoever is called from a line and takes long says so with rq_strand_will_block(): all other lines wait for it else. */
#ifndef RAFTD_NET_ACTIVE_H
#define RAFTD_NET_ACTIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"

#define RQ_ACTIVE_QUIET_MS 1000

struct rq_active;

/* Embedded in a line.  Who waits for it is the set; else it is its owner's. */
struct rq_active_line {
    int fd;
    /* On a thread of the set, which gives the line back with this call. */
    void (*readable)(struct rq_active_line *line);
    void (*quiet)(struct rq_active_line *line); /* nothing came for RQ_ACTIVE_QUIET_MS */

    bool known; /* to the kernel's set */
    uint64_t since_ms;
    struct rq_active_line *prev, *next;
};

/* The threads live as long as the process. */
enum rq_err rq_active_new(struct rq_active **ret_active);

/* Takes the line until it is readable, at its end, or quiet for long.  False: no room in the kernel's set. */
bool rq_active_wait(struct rq_active *a, struct rq_active_line *line);
/* By its owner, before its descriptor is closed. */
void rq_active_forget(struct rq_active *a, struct rq_active_line *line);

#endif
