#include "raftd/db/admission.h"

#include <stddef.h>

void rq_admission_init(struct rq_admission *a, unsigned count_max)
{
    *a = (struct rq_admission){ .free = count_max };
    pthread_mutex_init(&a->lock, NULL);
}

bool rq_admission_enter(struct rq_admission *a, struct rq_admission_waiter *w)
{
    pthread_mutex_lock(&a->lock);
    const bool in = a->free > 0; /* then nobody waits */
    if (in) {
        a->free--;
    } else {
        w->next = NULL;
        *(a->last != NULL ? &a->last->next : &a->first) = w;
        a->last = w;
    }
    pthread_mutex_unlock(&a->lock);
    return in;
}

void rq_admission_leave(struct rq_admission *a)
{
    pthread_mutex_lock(&a->lock);
    struct rq_admission_waiter *w = a->first;
    if (w != NULL) { /* takes the place */
        a->first = w->next;
        a->last = a->first != NULL ? a->last : NULL;
    } else {
        a->free++;
    }
    pthread_mutex_unlock(&a->lock);
    if (w != NULL) {
        w->admitted(w);
    }
}
