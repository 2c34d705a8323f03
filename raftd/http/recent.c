#include "raftd/http/recent.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "raftd/db/applied.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"

struct awaited {
    struct rq_reading reading; /* first */
    pthread_mutex_t lock;
    pthread_cond_t came;
    bool done;
    enum rq_err err;
    char text[RQ_TEXT_MAX + 1];
};

static void delivered(struct rq_reading *r, enum rq_err err, const char *text)
{
    struct awaited *a = (struct awaited *)r;
    pthread_mutex_lock(&a->lock);
    a->done = true;
    a->err = err;
    (void)snprintf(a->text, sizeof a->text, "%s", text);
    pthread_cond_signal(&a->came);
    pthread_mutex_unlock(&a->lock);
}

bool rq_http_recent(struct rq_admin *a, unsigned timeout_ms, struct rq_http_response *response)
{
    struct rq_driver *driver = atomic_load(&a->driver);
    struct awaited r = { .reading = { .deadline_ms = rq_clock_ms() + timeout_ms, .done = delivered } };
    char line[RQ_TEXT_MAX + 2];
    if (!rq_admin_has_leader(a)) {
        RQ_COUNT(http, leader_not_found);
        rq_http_text(response, 503, "leader not found\n");
        return false;
    }
    pthread_mutex_init(&r.lock, NULL);
    pthread_cond_init(&r.came, NULL);
    rq_driver_read(driver, &r.reading);
    pthread_mutex_lock(&r.lock);
    while (!r.done) { /* it has a deadline */
        pthread_cond_wait(&r.came, &r.lock);
    }
    pthread_mutex_unlock(&r.lock);
    pthread_mutex_destroy(&r.lock);
    pthread_cond_destroy(&r.came);
    if (r.err == RQ_OK &&
        rq_applied_wait(atomic_load(&a->catalog), driver, rq_driver_view(driver).delivered, timeout_ms)) {
        return true;
    }
    (void)snprintf(line, sizeof line, "%s\n", r.text);
    rq_http_text(response, 503,
                 !rq_admin_has_leader(a) ? "leader not found\n"
                 : r.err != RQ_OK        ? line
                                         : "this node has not caught up with the leader in time\n");
    return false;
}
