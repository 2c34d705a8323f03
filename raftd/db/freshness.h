/* Freshness: how much of what is committed this node can prove to have, and whoever wants to read waits for.
 *
 * A proof is a read index (raftd/node/reads.h) and the moment at which it was ASKED for: everything that was committed by then is at
 * or below that index.  It holds for this node once it has delivered that much.  Contact with a leader proves nothing: after a
 * start, a pause or a partition there is no proof until one has been asked for and caught up with.
 *
 *   waiting --question to the leader--> asked --answer: index--> proven --delivered--> done
 *      ^--------- no answer, another leader, too old by now ---------'
 *
 * One question is under way at a time; it serves all who waited when it was sent.  A reading that allows for some age is served by
 * the last proof, if that is still young enough once it is delivered.  So whatever allows for some age is served at least as soon as
 * what allows for none.
 *
 * Ages are told by a clock that runs on while the machine sleeps; they decide about bounded readings only.
 * Threads: loop context. */
#ifndef RAFTD_DB_FRESHNESS_H
#define RAFTD_DB_FRESHNESS_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/node/node.h"
#include "raftd/run/strand.h"
#include "raftd/wire/err.h"

#define RQ_FRESHNESS_RETRY_MS 20u /* between two questions, when the first was of no use */

struct rq_driver;

/* Embedded by who wants to read. */
struct rq_reading {
    struct rq_task task; /* the driver's, as what follows */
    struct rq_driver *driver;
    struct rq_reading *next;
    uint64_t index, proven_ms;
    bool asked_for;       /* its proof was asked for after it came: good for any age */
    uint64_t max_age_ms;  /* 0: nothing may be missing that was committed before the question */
    uint64_t deadline_ms; /* rq_clock_ms() */
    uint64_t left_ms;     /* OK: the proof would do for a reading of this age for so long */
    /* Once.  OK: all of it has been delivered, so it is applied when the database's strand has done what it has.  AWAY: there is no
     * proof to be had in time; UNREADY: this node lacks what was proven.  text: why not. */
    void (*done)(struct rq_reading *r, enum rq_err err, const char *text);
};

struct rq_reading_list {
    struct rq_reading *first;
};

struct rq_freshness_env {
    void *ctx;
    /* Asks the leader, who may be this node, for a read index: rq_freshness_answer(), perhaps from inside. */
    void (*ask)(void *ctx, uint64_t leader_id, uint64_t question);
};

struct rq_freshness {
    struct rq_freshness_env env;
    struct rq_reading_list waiting, asked, proven;
    uint64_t question;        /* number of the last one */
    uint64_t question_to;     /* it is under way to this leader; 0: none is */
    uint64_t question_ms;     /* when it was sent, by the clock of ages */
    uint64_t retry_ms;        /* rq_clock_ms(): not before it */
    uint64_t index, asked_ms; /* the last proof; asked_ms 0: there is none */
    bool going_on;
};

/* What freshness is told of the world, at one moment. */
struct rq_freshness_now {
    uint64_t ms, boot_ms; /* rq_clock_ms(), rq_clock_boot_ms() */
    uint64_t leader_id;   /* 0: not known */
    uint64_t delivered;
};

void rq_freshness_init(struct rq_freshness *f, const struct rq_freshness_env *env);
void rq_freshness_add(struct rq_freshness *f, struct rq_reading *r);
void rq_freshness_answer(struct rq_freshness *f, uint64_t question, enum rq_err err, uint64_t index,
                         const struct rq_freshness_now *now);
/* After whatever may have changed; may be called from inside, and does nothing then. */
void rq_freshness_go_on(struct rq_freshness *f, const struct rq_freshness_now *now);
uint64_t rq_freshness_wake_ms(const struct rq_freshness *f, uint64_t now_ms); /* UINT64_MAX: nothing is due */

#endif
