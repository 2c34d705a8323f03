#include "raftd/cluster/doubts.h"

#include <stddef.h>

void rq_doubts_init(struct rq_doubts *d)
{
    pthread_mutex_init(&d->lock, NULL);
}

/* With the lock. */
static struct rq_doubt *find(struct rq_doubts *d, uint32_t db_id)
{
    for (unsigned i = 0; i < d->count; i++) {
        if (d->list[i].db_id == db_id) {
            return &d->list[i];
        }
    }
    return NULL;
}

bool rq_doubts_put(struct rq_doubts *d, uint32_t db_id, uint32_t page)
{
    pthread_mutex_lock(&d->lock);
    const bool is_new = find(d, db_id) == NULL && d->count < RQ_DOUBTS_MAX;
    if (is_new) {
        d->list[d->count++] = (struct rq_doubt){ .db_id = db_id, .page = page, .pause_ms = RQ_DOUBT_FIRST_MS };
    }
    pthread_mutex_unlock(&d->lock);
    return is_new;
}

bool rq_doubts_due(struct rq_doubts *d, uint64_t now_ms, struct rq_doubt *ret_doubt)
{
    bool is_due = false;
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->count && !is_due; i++) {
        struct rq_doubt *one = &d->list[i];
        is_due = one->due_ms <= now_ms;
        if (is_due) {
            *ret_doubt = *one;
            one->due_ms = now_ms + one->pause_ms;
            one->pause_ms = 2 * one->pause_ms < RQ_DOUBT_LONGEST_MS ? 2 * one->pause_ms : RQ_DOUBT_LONGEST_MS;
        }
    }
    pthread_mutex_unlock(&d->lock);
    return is_due;
}

uint32_t rq_doubts_page(struct rq_doubts *d, uint32_t db_id)
{
    pthread_mutex_lock(&d->lock);
    const struct rq_doubt *one = find(d, db_id);
    const uint32_t page = one != NULL ? one->page : 0;
    pthread_mutex_unlock(&d->lock);
    return page;
}

void rq_doubts_end(struct rq_doubts *d, uint32_t db_id)
{
    pthread_mutex_lock(&d->lock);
    struct rq_doubt *one = find(d, db_id);
    if (one != NULL) {
        *one = d->list[--d->count];
    }
    pthread_mutex_unlock(&d->lock);
}
