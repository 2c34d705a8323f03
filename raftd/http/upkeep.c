#include "raftd/http/upkeep.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"

enum kind { VACUUM, OPTIMIZE, KINDS };

struct rq_upkeep {
    struct rq_admin *admin;
    uint64_t every_ms[KINDS]; /* 0: never */
    uint64_t due_ms[KINDS];
    atomic_bool optimized; /* once: from then on only what was used since is looked at */
};

struct job {
    struct rq_sql_request write; /* first */
    struct rq_task task;
    struct rq_upkeep *upkeep;
    struct rq_desk *desk; /* counted */
    enum kind kind;
};

enum rq_err rq_upkeep_new(const struct rq_upkeep_config *config, struct rq_admin *admin, struct rq_upkeep **ret_upkeep)
{
    struct rq_upkeep *u = calloc(1, sizeof *u);
    if (u == NULL) {
        return RQ_NOMEM;
    }
    u->admin = admin;
    u->every_ms[VACUUM] = (config->vacuum_ns + 999999u) / 1000000u;
    u->every_ms[OPTIMIZE] = (config->optimize_ns + 999999u) / 1000000u;
    for (unsigned kind = 0; kind < KINDS; kind++) {
        u->due_ms[kind] = rq_clock_ms() + u->every_ms[kind];
    }
    if (u->every_ms[VACUUM] > 0) {
        atomic_store(&admin->next_vacuum_s, (int64_t)time(NULL) + (int64_t)(u->every_ms[VACUUM] / 1000u));
    }
    *ret_upkeep = u;
    return RQ_OK;
}

/* --- one time ------------------------------------------------------------------------------------------------------------- */

static void done(struct rq_sql_request *r, enum rq_err outcome)
{
    struct job *j = (struct job *)r;
    struct rq_upkeep *u = j->upkeep;
    const bool good = outcome == RQ_OK && r->code == SQLITE_OK;
    if (j->kind == OPTIMIZE) {
        atomic_store(&u->optimized, good || atomic_load(&u->optimized));
        good ? RQ_COUNT(store, num_auto_optimizes) : RQ_COUNT(store, num_auto_optimizes_failed);
    } else if (good) {
        const int64_t now_s = (int64_t)time(NULL);
        RQ_COUNT(store, num_auto_vacuums);
        atomic_store(&u->admin->last_vacuum_s, now_s);
        atomic_store(&u->admin->next_vacuum_s, now_s + (int64_t)(u->every_ms[VACUUM] / 1000u));
    } else {
        RQ_COUNT(store, num_auto_vacuums_failed);
    }
    if (!good) {
        rq_note(RQ_LEVEL_WARN, "automatic upkeep of the database failed: it is tried again when it is due again",
                "what=%s code=%d outcome=\"%s\"", j->kind == VACUUM ? "vacuum" : "optimize", r->code,
                rq_err_text(outcome));
    }
    rq_desk_unref(j->desk);
    free(j);
}

static int run(struct rq_sql_request *r, sqlite3 *db)
{
    const struct job *j = (const struct job *)r;
    const char *sql = j->kind == VACUUM                    ? "VACUUM"
                      : atomic_load(&j->upkeep->optimized) ? "PRAGMA optimize=0xfffe"
                                                           : "PRAGMA optimize=0x10002";
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static void queue(struct job *j)
{
    const enum rq_err err = rq_desk_queue(j->desk, &j->write);
    if (err != RQ_OK) {
        done(&j->write, err);
    }
}

static void run_open(struct rq_task *task)
{
    struct job *j = (struct job *)((char *)task - offsetof(struct job, task));
    rq_desk_opened(j->desk);
    queue(j);
}

static void begin(struct rq_upkeep *u, struct rq_desks *desks, enum kind kind)
{
    struct job *j = calloc(1, sizeof *j);
    if (j == NULL || rq_desk_find(desks, RQ_ADMIN_DATABASE, strlen(RQ_ADMIN_DATABASE), &j->desk) != RQ_OK) {
        free(j); /* there is nothing to keep up */
        return;
    }
    j->write = (struct rq_sql_request){ .run = run, .done = done };
    j->upkeep = u;
    j->kind = kind;
    if (rq_desk_is_open(j->desk)) {
        queue(j);
    } else {
        j->task.run = run_open;
        rq_strand_post(rq_database_strand(rq_desk_database(j->desk)), &j->task, RQ_HAND_OVER);
    }
}

void rq_upkeep_look(struct rq_upkeep *u, struct rq_desks *desks)
{
    const uint64_t now_ms = rq_clock_ms();
    for (unsigned kind = 0; kind < KINDS; kind++) {
        if (u->every_ms[kind] > 0 && now_ms >= u->due_ms[kind]) {
            u->due_ms[kind] = now_ms + u->every_ms[kind];
            if (rq_admin_leads(u->admin) && rq_catalog_ready(atomic_load(&u->admin->catalog))) {
                begin(u, desks, kind);
            }
        }
    }
}
