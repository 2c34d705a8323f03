/* Replica, watches: who copies a replica that goes on changing is told which pages have changed meanwhile. */
#include "vfs/replica_impl.h"

void rq_replica_watch_begin(struct rq_replica *r, struct rq_replica_watch *w)
{
    w->replica = r;
    w->next = r->watches;
    r->watches = w;
}

void rq_replica_watch_end(struct rq_replica_watch *w)
{
    if (w->replica == NULL) {
        return;
    }
    struct rq_replica_watch **at = &w->replica->watches;
    while (*at != w) {
        at = &(*at)->next;
    }
    *at = w->next;
    w->replica = NULL;
}

void rq_replica_watches_note(struct rq_replica *r, uint32_t frame)
{
    for (struct rq_replica_watch *w = r->watches; w != NULL; w = w->next) {
        for (uint32_t i = frame; i < r->frames.committed && !w->broken; i++) {
            w->broken = rq_page_set_put(&w->changed, r->frames.frames[i].pgno) != RQ_OK;
        }
    }
}

void rq_replica_watches_break(struct rq_replica *r)
{
    while (r->watches != NULL) {
        r->watches->broken = true;
        rq_replica_watch_end(r->watches);
    }
}
