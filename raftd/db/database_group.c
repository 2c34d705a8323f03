/* Groups of the executor, on their way to the log as any other commit: one record, or for a large transaction a staged body. */
#include <stdlib.h>
#include <string.h>

#include "raftd/db/database_impl.h"
#include "raftd/wire/bytes.h"
#include "vfs/hold.h"

static void answered(struct rq_commit *c, const struct rq_msg_outcome *outcome)
{
    struct rq_group *g = c->group;
    const enum rq_err err = outcome->err;
    rq_commit_free(c);
    rq_group_settle(g, err);
}

/* On the executor's thread: what comes after a transaction of this size waits for it anyway. */
static enum rq_err stage(struct rq_database *db, const struct rq_group *g, struct rq_staged **ret_body)
{
    const uint32_t page_size = g->head.page_size;
    const struct rq_body_head head = { .page_size = page_size, .db_page_count = g->head.page_count };
    struct rq_overlay_walk walk;
    enum rq_err err = rq_group_walk_init(&walk, g);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_staged *body = NULL;
    uint8_t *record = malloc(4 + (size_t)page_size);
    err = record == NULL ? RQ_NOMEM : rq_staged_new(db->env.disk, db->env.staged_dir, &head, &body);
    while (err == RQ_OK) {
        uint32_t pgno;
        const uint8_t *page;
        err = rq_group_walk_next(&walk, &pgno, &page);
        if (err == RQ_OK) {
            rq_put_u32(record, pgno);
            memcpy(record + 4, page, page_size);
            err = rq_staged_add(body, record, 4 + page_size);
        }
    }
    free(record);
    rq_overlay_walk_fini(&walk);
    if (err != RQ_NOTFOUND) {
        rq_staged_free(body);
        return err;
    }
    *ret_body = body;
    return RQ_OK;
}

static void submit(void *ctx, struct rq_group *g)
{
    struct rq_database *db = ctx;
    struct rq_commit *c;
    enum rq_err err = rq_commit_new(&c);
    if (err != RQ_OK) {
        rq_group_settle(g, err);
        return;
    }
    c->db = rq_database_ref(db);
    c->origin = (struct rq_origin){ .session = g->session, .seq = g->first_seq };
    c->base = g->head.base;
    c->page_size = g->head.page_size;
    c->db_page_count = g->head.page_count;
    c->group = g;
    c->answer = answered;
    if (g->head.origin_count == 1 && (uint64_t)g->pages->count * g->head.page_size > RQ_LAYER_BYTES_MAX) {
        err = stage(db, g, &c->body);
    }
    if (err == RQ_OK) {
        rq_database_commit(c);
        return;
    }
    if (err == RQ_IO) {
        db->env.fatal(db->env.ctx, "a staged body could not be written", err);
    }
    rq_commit_free(c);
    rq_group_settle(g, err);
}

struct rq_executor_host rq_database_executor_host(struct rq_database *db)
{
    return (struct rq_executor_host){ .ctx = db, .submit = submit };
}
