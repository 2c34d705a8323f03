#include "raftd/http/status.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

#include "raftd/cluster/catchup.h"
#include "raftd/db/applied.h"
#include "raftd/http/databases.h"
#include "raftd/http/json.h"

/* --- /readyz -------------------------------------------------------------------------------------------------------------- */

static void get_readyz(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    struct rq_driver *driver = atomic_load(&a->driver);
    struct rq_member leader;
    char text[RQ_TEXT_MAX + 128];
    if (rq_http_has(request, "noleader")) {
        rq_http_text(response, 200, "[+]node ok");
        return;
    }
    if (driver == NULL || rq_driver_view(driver).leader_id == 0) {
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

static void put_databases(yyjson_mut_doc *doc, yyjson_mut_val *store, struct rq_catalog *catalog)
{
    yyjson_mut_val *databases = put_obj(doc, store, "databases");
    struct rq_database **list = NULL;
    size_t count = 0;
    if (rq_catalog_list(catalog, &list, &count) != RQ_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        yyjson_mut_val *key = yyjson_mut_strcpy(doc, rq_database_name(list[i]));
        yyjson_mut_val *one = yyjson_mut_obj(doc);
        rq_http_put_database(doc, one, list[i]);
        yyjson_mut_obj_add(databases, key, one);
        rq_database_unref(list[i]);
    }
    free(list);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct rq_member *const *)a)->name, (*(const struct rq_member *const *)b)->name);
}

static void put_nodes(yyjson_mut_doc *doc, yyjson_mut_val *store, const struct rq_members *members)
{
    const struct rq_member *sorted[RQ_MEMBERS_MAX];
    yyjson_mut_val *nodes = yyjson_mut_obj_add_arr(doc, store, "nodes");
    for (unsigned i = 0; i < members->count; i++) {
        sorted[i] = &members->list[i];
    }
    qsort(sorted, members->count, sizeof *sorted, by_name);
    for (unsigned i = 0; i < members->count; i++) {
        yyjson_mut_val *node = yyjson_mut_arr_add_obj(doc, nodes);
        yyjson_mut_obj_add_strcpy(doc, node, "addr", sorted[i]->raft_addr);
        yyjson_mut_obj_add_strcpy(doc, node, "id", sorted[i]->name);
        yyjson_mut_obj_add_str(doc, node, "suffrage", sorted[i]->role == RQ_MEMBER_VOTER ? "voter" : "nonvoter");
    }
}

static void put_last_contact(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *raft,
                             const struct rq_driver_view *view)
{
    struct rq_peer_state state;
    if (view->leads) {
        yyjson_mut_obj_add_uint(doc, raft, "last_contact", 0);
    } else if (view->leader_id == 0 ||
               !rq_peers_state(rq_cluster_peers(atomic_load(&a->cluster)), view->leader_id, &state) ||
               state.heard_ms_ago == UINT64_MAX) {
        yyjson_mut_obj_add_str(doc, raft, "last_contact", "never");
    } else {
        rq_http_put_duration(doc, raft, "last_contact", state.heard_ms_ago * 1000000u);
    }
}

static void put_raft(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *store, const struct rq_members *members)
{
    struct rq_driver *driver = atomic_load(&a->driver);
    const struct rq_driver_view view = rq_driver_view(driver);
    struct rq_log_stats log;
    unsigned voters = 0;
    bool votes = false;
    rq_driver_log_stats(driver, &log);
    for (unsigned i = 0; i < members->count; i++) {
        const bool voter = members->list[i].role == RQ_MEMBER_VOTER;
        voters += voter;
        votes = votes || (voter && strcmp(members->list[i].name, a->node_id) == 0);
    }
    yyjson_mut_val *raft = put_obj(doc, store, "raft");
    yyjson_mut_obj_add_uint(doc, raft, "applied_index", view.delivered);
    yyjson_mut_obj_add_uint(doc, raft, "commit_index", view.committed);
    yyjson_mut_obj_add_uint(doc, raft, "fsm_pending",
                            view.committed > view.delivered ? view.committed - view.delivered : 0);
    put_last_contact(a, doc, raft, &view);
    yyjson_mut_obj_add_uint(doc, raft, "last_log_index", log.last_index);
    yyjson_mut_obj_add_uint(doc, raft, "last_snapshot_index", log.first_index - 1);
    yyjson_mut_obj_add_uint(doc, raft, "log_entries", log.held);
    yyjson_mut_obj_add_uint(doc, raft, "log_size", log.bytes);
    yyjson_mut_obj_add_uint(doc, raft, "log_writes", log.writes);
    yyjson_mut_obj_add_uint(doc, raft, "num_peers", voters - votes);
    yyjson_mut_obj_add_str(doc, raft, "state", view.role);
    yyjson_mut_obj_add_uint(doc, raft, "term", view.term);
    yyjson_mut_obj_add_bool(doc, raft, "voter", votes);
}

/* What came from other members page by page. */
static void put_catchup(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *store)
{
    struct rq_catchup *catchup = rq_cluster_catchup(atomic_load(&a->cluster));
    struct rq_catchup_stats stats = { 0 };
    if (catchup != NULL) {
        rq_catchup_stats(catchup, &stats);
    }
    yyjson_mut_val *in = put_obj(doc, store, "catchup");
    yyjson_mut_obj_add_uint(doc, in, "installs", stats.installs);
    yyjson_mut_obj_add_uint(doc, in, "pages_compared", stats.pages_compared);
    yyjson_mut_obj_add_uint(doc, in, "pages_fetched", stats.pages_fetched);
    yyjson_mut_obj_add_uint(doc, in, "repairs", stats.repairs);
}

static void put_store(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    yyjson_mut_val *store = put_obj(doc, root, "store");
    struct rq_driver *driver = atomic_load(&a->driver);
    struct rq_catalog *catalog = atomic_load(&a->catalog);
    struct rq_members members;
    struct rq_member leader;
    if (driver == NULL) {
        yyjson_mut_obj_add_bool(doc, store, "open", false);
        return;
    }
    const struct rq_driver_view view = rq_driver_view(driver);
    const bool led = rq_admin_leader(a, &leader);
    rq_cluster_members(atomic_load(&a->cluster), &members);

    yyjson_mut_obj_add_str(doc, store, "addr", a->raft_adv_addr);
    put_databases(doc, store, catalog);
    put_catchup(a, doc, store);
    yyjson_mut_obj_add_uint(doc, store, "db_applied_index", view.delivered);
    yyjson_mut_obj_add_str(doc, store, "dir", a->dir);
    yyjson_mut_obj_add_uint(doc, store, "fsm_index", view.delivered);
    yyjson_mut_obj_add_uint(doc, store, "fsm_term", view.term);
    yyjson_mut_val *by = put_obj(doc, store, "leader");
    yyjson_mut_obj_add_strcpy(doc, by, "addr", led ? leader.raft_addr : "");
    yyjson_mut_obj_add_strcpy(doc, by, "node_id", led ? leader.name : "");
    yyjson_mut_obj_add_str(doc, store, "node_id", a->node_id);
    put_nodes(doc, store, &members);
    (void)put_obj(doc, store, "open");
    put_raft(a, doc, store, &members);
    yyjson_mut_obj_add_bool(doc, store, "ready", led);
}

static void put_http(const struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    yyjson_mut_val *http = put_obj(doc, root, "http");
    if (a->allow_origin[0] != '\0') {
        yyjson_mut_obj_add_str(doc, http, "allow_origin", a->allow_origin);
    }
    yyjson_mut_obj_add_str(doc, http, "auth", a->auth ? "enabled" : "disabled");
    yyjson_mut_obj_add_str(doc, http, "bind_addr", a->http_addr);
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

static void put_host(struct rq_admin *s, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    struct utsname uts = { 0 };
    char host[256] = "", executable[4096] = "";
    time_t now = time(NULL);

    yyjson_mut_val *node = put_obj(doc, root, "node");
    rq_http_put_time(doc, node, "current_time", now);
    rq_http_put_time(doc, node, "start_time", (time_t)s->started_s);
    rq_http_put_duration(doc, node, "uptime", ((uint64_t)now - s->started_s) * 1000000000u);

    yyjson_mut_val *os = put_obj(doc, root, "os");
    ssize_t n = readlink("/proc/self/exe", executable, sizeof executable - 1);
    executable[n > 0 ? n : 0] = '\0';
    yyjson_mut_obj_add_strcpy(doc, os, "executable", executable);
    (void)gethostname(host, sizeof host - 1); /* then it is "" */
    yyjson_mut_obj_add_strcpy(doc, os, "hostname", host);
    yyjson_mut_obj_add_int(doc, os, "page_size", sysconf(_SC_PAGESIZE));
    yyjson_mut_obj_add_int(doc, os, "pid", getpid());
    yyjson_mut_obj_add_int(doc, os, "ppid", getppid());

    yyjson_mut_val *runtime = put_obj(doc, root, "runtime");
    (void)uname(&uts); /* cannot fail with a good pointer */
    yyjson_mut_obj_add_strcpy(doc, runtime, "GOARCH",
                              strcmp(uts.machine, "x86_64") == 0    ? "amd64"
                              : strcmp(uts.machine, "aarch64") == 0 ? "arm64"
                                                                    : uts.machine);
    yyjson_mut_obj_add_str(doc, runtime, "GOOS", "linux");
    yyjson_mut_obj_add_int(doc, runtime, "num_cpu", sysconf(_SC_NPROCESSORS_ONLN));
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

    yyjson_mut_val *build = put_obj(doc, root, "build");
    yyjson_mut_obj_add_str(doc, build, "version", s->version);
    yyjson_mut_val *cluster = put_obj(doc, root, "cluster");
    yyjson_mut_obj_add_str(doc, cluster, "addr", s->raft_adv_addr);
    yyjson_mut_obj_add_str(doc, cluster, "api_addr", s->http_adv_addr);
    yyjson_mut_obj_add_str(doc, cluster, "https", s->tls != NULL ? "true" : "false");
    put_http(s, doc, root);
    put_host(s, doc, root);
    put_store(s, doc, root);

    const char *key = rq_http_param(request, "key");
    if (key != NULL) {
        root = descend(doc, root, key);
    }
    rq_http_json(response, doc, root, key == NULL && rq_http_param(request, "pretty") != NULL);
}

const struct rq_http_route rq_status_routes[] = {
    { "/readyz", true, true, "GET", "ready", get_readyz },
    { "/status", true, false, "GET", "status", get_status },
};
const size_t rq_status_route_count = sizeof rq_status_routes / sizeof *rq_status_routes;
