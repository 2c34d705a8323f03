#include "raftd/http/status.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <yyjson.h>

#include "raftd/db/applied.h"
#include "raftd/http/changes.h"
#include "raftd/http/json.h"
#include "raftd/http/sql.h"
#include "raftd/http/status_parts.h"
#include "raftd/run/metrics.h"

/* --- /readyz -------------------------------------------------------------------------------------------------------------- */

static void get_readyz(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    struct rq_driver *driver = atomic_load(&a->driver);
    struct rq_member leader;
    char text[RQ_TEXT_MAX + 128];
    RQ_COUNT(http, num_readyz);
    if (rq_http_has(request, "noleader")) {
        rq_http_text(response, 200, "[+]node ok");
        return;
    }
    if (!rq_admin_has_leader(a)) {
        rq_http_text(response, 503, "[+]node ok\n[+]leader does not exist");
        return;
    }
    if (!rq_admin_leader(a, &leader)) {
        rq_http_text(response, 503, "[+]node ok\n[+]leader ok\n[+]store not ready");
        return;
    }
    struct rq_cluster_contact contact = { .instance = leader.instance };
    rq_cluster_contact(atomic_load(&a->cluster), &contact, 1, rq_http_timeout_ms(request));
    if (contact.err != RQ_OK) {
        (void)snprintf(text, sizeof text, "[+]node ok\n[+]leader not contactable: %s", contact.text);
        rq_http_text(response, 503, text);
        return;
    }
    const bool sync = rq_http_has(request, "sync");
    if (sync && !rq_applied_wait(atomic_load(&a->catalog), driver, contact.committed, rq_http_timeout_ms(request))) {
        rq_http_text(response, 503, "[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync timeout waiting for commit index");
        return;
    }
    (void)snprintf(text, sizeof text, "[+]node ok\n[+]leader ok\n[+]store ok%s\n[+]db ok", sync ? "\n[+]sync ok" : "");
    rq_http_text(response, 200, text);
}

/* --- /status -------------------------------------------------------------------------------------------------------------- */

static yyjson_mut_val *put_obj(yyjson_mut_doc *doc, yyjson_mut_val *in, const char *key)
{
    return yyjson_mut_obj_add_obj(doc, in, key);
}

static void put_transactions(const struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *http)
{
    struct rq_transactions *t = rq_sql_service_transactions(a->sql);
    if (t != NULL) {
        const struct rq_transactions_config *config = rq_transactions_config(t);
        yyjson_mut_val *in = put_obj(doc, http, "transactions");
        rq_http_put_duration(doc, in, "idle_timeout", config->idle_ms * 1000000u);
        rq_http_put_duration(doc, in, "lifetime", config->lifetime_ms * 1000000u);
        yyjson_mut_obj_add_uint(doc, in, "max", config->open_max);
        yyjson_mut_obj_add_uint(doc, in, "open", rq_transactions_open(t));
    }
}

static void put_http(const struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    yyjson_mut_val *http = put_obj(doc, root, "http");
    if (a->allow_origin[0] != '\0') {
        yyjson_mut_obj_add_str(doc, http, "allow_origin", a->allow_origin);
    }
    yyjson_mut_obj_add_str(doc, http, "auth", a->auth ? "enabled" : "disabled");
    yyjson_mut_obj_add_str(doc, http, "bind_addr", a->http_addr);
    struct rq_feeds *feeds = atomic_load(&a->changes->feeds);
    const struct rq_feeds_count listened = feeds != NULL ? rq_feeds_count(feeds) : (struct rq_feeds_count){ 0, 0 };
    yyjson_mut_val *changes = put_obj(doc, http, "changes");
    yyjson_mut_obj_add_uint(doc, changes, "databases", listened.feeds);
    yyjson_mut_obj_add_uint(doc, changes, "listeners", listened.listeners);
    const struct rq_write_queue *q = rq_sql_service_queue(a->sql);
    const struct rq_write_queue_config *queue = rq_write_queue_config(q);
    yyjson_mut_val *queues = put_obj(doc, put_obj(doc, http, "queue"), "_default");
    yyjson_mut_obj_add_uint(doc, queues, "batch_size", queue->batch_size);
    yyjson_mut_obj_add_uint(doc, queues, "max_size", queue->capacity);
    yyjson_mut_obj_add_uint(doc, queues, "sequence_number", rq_write_queue_flushed(q));
    rq_http_put_duration(doc, queues, "timeout", queue->timeout_ms * 1000000u);
    put_transactions(a, doc, http);
    yyjson_mut_val *tls = put_obj(doc, http, "tls");
    if (a->tls != NULL) {
        yyjson_mut_obj_add_str(doc, tls, "ca_file", a->tls->ca_cert);
        yyjson_mut_obj_add_str(doc, tls, "cert_file", a->tls->cert);
        yyjson_mut_obj_add_str(doc, tls, "client_auth",
                               a->tls->verify_client ? "RequireAndVerifyClientCert" : "NoClientCert");
    }
    yyjson_mut_obj_add_str(doc, tls, "enabled", a->tls != NULL ? "true" : "false");
    if (a->tls != NULL) {
        yyjson_mut_obj_add_str(doc, tls, "key_file", a->tls->key);
    }
}

/* ?key=store.raft.term: a missing key gives {}, a value that is no object met on the way is the answer. */
static yyjson_mut_val *descend(yyjson_mut_doc *doc, yyjson_mut_val *at, const char *key)
{
    while (*key != '\0' && yyjson_mut_is_obj(at)) {
        size_t bytes = strcspn(key, ".");
        at = yyjson_mut_obj_getn(at, key, bytes);
        if (at == NULL) {
            return yyjson_mut_obj(doc);
        }
        key += bytes;
        key += *key == '.';
    }
    return at;
}

static void get_status(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *s = ctx;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);

    RQ_COUNT(http, num_status);
    yyjson_mut_val *build = put_obj(doc, root, "build");
    yyjson_mut_obj_add_str(doc, build, "compiler_command", "cc");
    yyjson_mut_obj_add_str(doc, build, "compiler_toolchain", __VERSION__);
    yyjson_mut_obj_add_str(doc, build, "version", s->version);
    yyjson_mut_val *cluster = put_obj(doc, root, "cluster");
    yyjson_mut_obj_add_str(doc, cluster, "addr", s->raft_adv_addr);
    yyjson_mut_obj_add_str(doc, cluster, "api_addr", s->http_adv_addr);
    yyjson_mut_obj_add_str(doc, cluster, "https", s->tls != NULL ? "true" : "false");
    struct rq_cluster *c = atomic_load(&s->cluster);
    yyjson_mut_obj_add_bool(doc, cluster, "removed", c != NULL && rq_cluster_was_removed(c));
    yyjson_mut_val *extensions = put_obj(doc, root, "extensions");
    (void)yyjson_mut_obj_add_arr(doc, extensions, "names");
    put_http(s, doc, root);
    const int64_t backup_s = atomic_load(&s->last_backup_s);
    if (backup_s > 0) {
        rq_http_put_time(doc, root, "last_backup_time", (time_t)backup_s);
    }
    yyjson_mut_val *mux = put_obj(doc, root, "mux");
    yyjson_mut_obj_add_str(doc, mux, "addr", s->raft_adv_addr);
    yyjson_mut_obj_add_str(doc, mux, "tls", "enabled");
    rq_status_put_host(s, doc, root);
    rq_status_put_store(s, doc, root);

    const char *key = rq_http_param(request, "key");
    if (key != NULL) {
        root = descend(doc, root, key);
    }
    rq_http_json(response, doc, root, key == NULL && rq_http_param(request, "pretty") != NULL);
}

const struct rq_http_route rq_status_routes[] = {
    { "/readyz", true, true, "GET", "ready", get_readyz },
    { "/status", true, false, "GET", "status", get_status, .type = RQ_HTTP_JSON },
};
const size_t rq_status_route_count = sizeof rq_status_routes / sizeof *rq_status_routes;
