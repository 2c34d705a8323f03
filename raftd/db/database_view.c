/* View: a database held still for whoever copies it to another member, while commits go on. */
#include <string.h>

#include "raftd/db/database_impl.h"

struct view_task {
    struct rq_task task;
    struct rq_database *db;
    struct rq_snapshot *snapshot;
    struct rq_replica_state *state;
    struct rq_origins *origins;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    enum rq_err err;
};

/* On the strand nothing is applied meanwhile: the snapshot is of the very state that is described. */
static enum rq_err view(struct view_task *t)
{
    struct rq_database *db = t->db;
    struct rq_database_known known;
    if (db->dropped) {
        return RQ_NOTFOUND;
    }
    if (db->state == RQ_DB_QUARANTINED || db->file.version != db->version) {
        return RQ_QUARANTINED;
    }
    if (db->version > 0) {
        t->snapshot->path = db->path;
        enum rq_err err = rq_snapshot_open(t->snapshot);
        if (err == RQ_OK) {
            err = rq_snapshot_begin(t->snapshot);
        }
        if (err == RQ_OK && (t->snapshot->version != db->version || t->snapshot->db_id != db->id)) {
            rq_snapshot_end(t->snapshot, false);
            err = RQ_BUSY; /* somebody has scribbled on -shm */
        }
        if (err != RQ_OK) {
            return err;
        }
    }
    enum rq_err err = rq_database_describe(db, &known);
    if (err != RQ_OK) {
        return err;
    }
    *t->state = db->file;
    *t->origins = known.origins;
    return RQ_OK;
}

static void run_view(struct rq_task *task)
{
    struct view_task *t = (struct view_task *)task;
    const enum rq_err err = view(t);
    pthread_mutex_lock(&t->lock);
    t->err = err;
    t->done = true;
    pthread_cond_signal(&t->ended);
    pthread_mutex_unlock(&t->lock);
}

enum rq_err rq_database_view(struct rq_database *db, struct rq_snapshot *snapshot, struct rq_replica_state *ret_state,
                             struct rq_origins *ret_origins)
{
    struct view_task t = { { .run = run_view }, db, snapshot, ret_state, ret_origins, .err = RQ_OK };
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.ended, NULL);
    rq_strand_post(&db->place->strand, &t.task, RQ_HAND_OVER);
    while (!rq_pool_has_threads(db->env.pool) && !t.done && rq_pool_run_one(db->env.pool)) {
    }
    pthread_mutex_lock(&t.lock);
    while (!t.done) {
        pthread_cond_wait(&t.ended, &t.lock);
    }
    pthread_mutex_unlock(&t.lock);
    pthread_mutex_destroy(&t.lock);
    pthread_cond_destroy(&t.ended);
    return t.err;
}
