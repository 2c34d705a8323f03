#include "raftd/http/backup.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "raftd/db/applied.h"
#include "raftd/ops/backup.h"

static enum rq_err put(void *ctx, const void *data, size_t bytes)
{
    return rq_http_send(ctx, data, bytes);
}

/* This host's files show what the leader had committed when it was asked; else the answer is made. */
static bool is_recent(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response)
{
    const unsigned timeout_ms = rq_http_timeout_ms(request);
    struct rq_member leader;
    if (!rq_admin_leader(a, &leader)) {
        rq_http_text(response, 503, "leader not found\n");
        return false;
    }
    struct rq_cluster_contact contact = { .instance = leader.instance };
    rq_cluster_contact(atomic_load(&a->cluster), &contact, 1, timeout_ms);
    if (contact.err != RQ_OK || !contact.leads) {
        rq_http_text(response, 503, "leader not found\n");
        return false;
    }
    if (!rq_applied_wait(atomic_load(&a->catalog), atomic_load(&a->driver), contact.committed, timeout_ms)) {
        rq_http_text(response, 503, "this node has not caught up with the leader in time\n");
        return false;
    }
    return true;
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
    const struct rq_backup_sink sink = { response, put };
    enum rq_err err = rq_backup_run(&backup, &sink, text);
    if (err == RQ_OK) {
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
    const char *name = rq_http_param(request, "db");
    name = name != NULL ? name : "db.sqlite";
    if (atomic_load(&a->driver) == NULL) {
        rq_http_text(response, 503, "store not open\n");
        return;
    }
    if (!rq_http_has(request, "noleader") &&
        (rq_admin_redirected(a, request, response) || !is_recent(a, request, response))) {
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
    { "/db/backup", true, true, "GET", "backup", get_backup },
};
const size_t rq_backup_route_count = sizeof rq_backup_routes / sizeof *rq_backup_routes;
