#include "raftd/http/backup.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "raftd/http/databases.h"
#include "raftd/http/recent.h"
#include "raftd/http/spool.h"
#include "raftd/ops/backup.h"
#include "raftd/run/metrics.h"

static void run_backup(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                       const char *name)
{
    const char *format = rq_http_param(request, "fmt");
    char path[4096], text[RQ_BACKUP_TEXT_MAX], line[RQ_BACKUP_TEXT_MAX + 2];
    (void)snprintf(path, sizeof path, "%s/%s", a->dir, name);
    const struct rq_backup backup = {
        .path = path,
        .sql = format != NULL && strcasecmp(format, "sql") == 0,
        .tables = rq_http_param(request, "tables"),
        .vacuum = rq_http_has(request, "vacuum"),
        .compress = rq_http_has(request, "compress"),
        .scratch_dir = a->scratch_dir,
    };
    if (backup.vacuum && format != NULL && (backup.sql || strcasecmp(format, "delete") == 0)) {
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
    if (!rq_http_has(request, "noleader") &&
        (rq_admin_redirected(a, request, response) || !rq_http_recent(a, rq_http_timeout_ms(request), response))) {
        return;
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
    { "/db/backup", true, true, "GET", "backup", get_backup, .sends = true },
};
const size_t rq_backup_route_count = sizeof rq_backup_routes / sizeof *rq_backup_routes;
