#include "raftd/http/backup.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "raftd/db/applied.h"
#include "raftd/http/databases.h"
#include "raftd/http/spool.h"
#include "raftd/ops/backup.h"
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

/* As a linearizable read: this host's files show all that was committed before it was asked; else the answer is made. */
static bool is_recent(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response)
{
    const unsigned timeout_ms = rq_http_timeout_ms(request);
    struct rq_driver *driver = atomic_load(&a->driver);
    struct awaited r = { .reading = { .deadline_ms = rq_clock_ms() + timeout_ms, .done = delivered } };
    char line[RQ_TEXT_MAX + 2];
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

static void run_backup(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                       const char *name)
{
    const char *format = rq_http_param(request, "fmt");
    char path[4096], text[RQ_BACKUP_TEXT_MAX], line[RQ_BACKUP_TEXT_MAX + 2];
    (void)snprintf(path, sizeof path, "%s/%s", a->dir, name);
    const struct rq_backup backup = {
        .path = path,
        .sql = format != NULL && strcmp(format, "sql") == 0,
        .tables = rq_http_param(request, "tables"),
        .vacuum = rq_http_has(request, "vacuum"),
        .compress = rq_http_has(request, "compress"),
        .scratch_dir = a->scratch_dir,
    };
    if (backup.vacuum && format != NULL && (backup.sql || strcmp(format, "delete") == 0)) {
        rq_http_text(response, 500, "invalid backup format\n");
        return;
    }
    response->status = 200;
    response->content_type = backup.sql ? "application/sql" : "application/octet-stream";
    response->served_by = a->http_adv_addr;
    struct rq_spool spool;
    rq_spool_init(&spool, response, a->scratch_dir);
    const struct rq_backup_sink sink = rq_spool_sink(&spool);
    enum rq_err err = rq_backup_run(&backup, &sink, text);
    if (err == RQ_OK) {
        err = rq_spool_end(&spool);
    }
    rq_spool_fini(&spool);
    if (err == RQ_OK) {
        RQ_COUNT(http, backups);
        RQ_COUNT(store, num_backups);
        atomic_store(&a->last_backup_s, (int64_t)time(NULL));
        return;
    }
    if (rq_http_has_sent(response)) {
        response->broken = true;
    } else {
        response->served_by = NULL;
        (void)snprintf(line, sizeof line, "%s\n", text);
        rq_http_text(response, 500, line);
    }
}

static void get_backup(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    const char *name = rq_admin_database_name(request);
    if (atomic_load(&a->driver) == NULL) {
        rq_http_text(response, 503, "store not open\n");
        return;
    }
    if (!rq_http_has(request, "noleader")) {
        if (rq_admin_redirected(a, request, response)) {
            return;
        }
        if (!rq_admin_has_leader(a)) {
            RQ_COUNT(http, leader_not_found);
            rq_http_text(response, 503, "leader not found\n");
            return;
        }
        if (!is_recent(a, request, response)) {
            return;
        }
    }
    struct rq_database *db = rq_catalog_find(atomic_load(&a->catalog), name, strlen(name));
    if (db == NULL) {
        rq_http_text(response, 404, "no such database\n");
        return;
    }
    run_backup(a, request, response, rq_database_name(db));
    rq_database_unref(db);
}

const struct rq_http_route rq_backup_routes[] = {
    { "/db/backup", true, true, "GET", "backup", get_backup },
};
const size_t rq_backup_route_count = sizeof rq_backup_routes / sizeof *rq_backup_routes;
