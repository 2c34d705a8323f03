#include "raftd/db/scrub.h"

#include <stdio.h>
#include <stdlib.h>

#include "raftd/ops/journal.h"

/* 10 MiB a second: a database of 1 GB takes less than two minutes, and a disk or a core hardly notices. */
#define STEP_MS    100
#define STEP_BYTES (1u << 20)

static void scrub_one(struct rq_database *db, uint32_t pass, uint64_t *bytes)
{
    char text[160] = "", why[RQ_DB_TEXT_BYTES];
    struct rq_database_info info;
    enum rq_err err = RQ_OK;
    rq_database_info(db, &info);
    struct rq_replica *r = rq_database_hold(db);
    if (r != NULL && info.state == RQ_DB_LIVE) {
        err = rq_replica_scrub(r, pass, bytes, text);
    }
    rq_database_release(db);
    if (err == RQ_CORRUPT) {
        (void)snprintf(why, sizeof why, "changed behind raftd's back: %s", text);
        rq_database_quarantine(db, why);
    } else if (err == RQ_IO) {
        rq_fatal("a replica could not be scrubbed", err);
    } else if (err != RQ_OK) {
        rq_note(RQ_LEVEL_WARN, "a database cannot be scrubbed in this pass", "id=%u err=%s", rq_database_id(db),
                rq_err_name(err));
    }
}

void rq_scrub_step(struct rq_scrub *s, struct rq_catalog *catalog, uint64_t now, uint64_t *due)
{
    struct rq_database **list;
    size_t count;
    if (s->every_ms == 0) {
        return;
    }
    if (now >= s->next_ms) {
        if (!s->walks) {
            s->walks = true;
            s->pass += s->pass == UINT32_MAX ? 2 : 1; /* 0 is none */
            s->next_pass_ms = now + s->every_ms;
        }
        uint64_t bytes = STEP_BYTES;
        s->next_ms = now + STEP_MS;
        if (rq_catalog_list(catalog, &list, &count) == RQ_OK) {
            for (size_t i = 0; i < count; i++) { /* in one order: the first ones are through before the next begin */
                if (bytes > 0) {
                    scrub_one(list[i], s->pass, &bytes);
                }
                rq_database_unref(list[i]);
            }
            free(list);
            if (bytes > 0) {
                rq_note(RQ_LEVEL_DEBUG, "scrub complete", "pass=%u", s->pass);
                s->walks = false;
                s->next_ms = s->next_pass_ms > s->next_ms ? s->next_pass_ms : s->next_ms;
            }
        }
    }
    if (s->next_ms < *due) {
        *due = s->next_ms;
    }
}
