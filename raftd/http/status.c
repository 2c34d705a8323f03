#include "raftd/http/status.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

#define DROP_WAIT_S 10

/* --- readyz --------------------------------------------------------------------------------------------------------------- */

static void get_readyz(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_status *s = ctx;
    struct rq_driver *driver = atomic_load(&s->driver);
    struct rq_catalog *catalog = atomic_load(&s->catalog);
    if (rq_http_param(request, "noleader") != NULL) {
        rq_http_text(response, 200, "[+]node ok");
    } else if (driver == NULL || rq_driver_view(driver).leader_id == 0) {
        rq_http_text(response, 503, "[+]node ok\n[+]leader does not exist");
    } else if (!rq_catalog_ready(catalog)) {
        rq_http_text(response, 503, "[+]node ok\n[+]leader ok\n[+]store not ready");
    } else if (rq_http_param(request, "sync") != NULL) {
        rq_http_text(response, 200, "[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync ok\n[+]db ok");
    } else {
        rq_http_text(response, 200, "[+]node ok\n[+]leader ok\n[+]store ok\n[+]db ok");
    }
}

/* --- JSON -------------------------------------------------------------------------------------------------------------------- */

static void put_json(struct rq_http_response *response, yyjson_mut_doc *doc, const yyjson_mut_val *root, bool pretty)
{
    size_t bytes = 0;
    char *text = root == NULL ? NULL : yyjson_mut_val_write(root, pretty ? YYJSON_WRITE_PRETTY : 0, &bytes);
    response->status = 200;
    response->content_type = "application/json; charset=utf-8";
    if (text == NULL || rq_bytes_put(&response->body, text, bytes) != RQ_OK) {
        response->status = 500;
        response->content_type = NULL;
    }
    free(text);
    yyjson_mut_doc_free(doc);
}

static yyjson_mut_val *put_obj(yyjson_mut_doc *doc, yyjson_mut_val *in, const char *key)
{
    return yyjson_mut_obj_add_obj(doc, in, key);
}

static void put_time(yyjson_mut_doc *doc, yyjson_mut_val *in, const char *key, time_t t)
{
    char text[32];
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    yyjson_mut_obj_add_strcpy(doc, in, key, text);
}

static void put_database(yyjson_mut_doc *doc, yyjson_mut_val *in, struct rq_database *db)
{
    static const char *const states[] = { "", "empty", "live", "quarantined" };
    struct rq_database_info info;
    rq_database_info(db, &info);
    yyjson_mut_obj_add_uint(doc, in, "applied_index", info.applied_index);
    yyjson_mut_obj_add_uint(doc, in, "id", info.id);
    if (info.state == RQ_DB_QUARANTINED) {
        yyjson_mut_obj_add_strcpy(doc, in, "message", info.message);
    }
    yyjson_mut_obj_add_uint(doc, in, "page_count", info.page_count);
    yyjson_mut_obj_add_uint(doc, in, "page_size", info.page_size);
    yyjson_mut_obj_add_str(doc, in, "state", states[info.state]);
    yyjson_mut_obj_add_uint(doc, in, "version", info.version);
}

/* --- /db ------------------------------------------------------------------------------------------------------------------------ */

struct listing {
    struct rq_status *status;
    yyjson_mut_doc *doc;
    yyjson_mut_val *others;
};

/* A SQLite file that would have a database's name, and is none. */
static enum rq_err look_at(void *ctx, const char *name)
{
    struct listing *l = ctx;
    struct rq_disk *disk = l->status->disk;
    struct rq_file_info info;
    char path[4096];
    if (!rq_db_name_valid(name, strlen(name)) ||
        snprintf(path, sizeof path, "%s/%s", l->status->dir, name) >= (int)sizeof path ||
        disk->ops->stat(disk, path, &info) != RQ_OK || !info.regular || info.size == 0) {
        return RQ_OK;
    }
    struct rq_database *db = rq_catalog_find(atomic_load(&l->status->catalog), name, strlen(name));
    if (db == NULL) {
        yyjson_mut_arr_add_strcpy(l->doc, l->others, name);
    } else {
        rq_database_unref(db);
    }
    return RQ_OK;
}

static void get_db(struct rq_status *s, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_catalog *catalog = atomic_load(&s->catalog);
    struct rq_database **list = NULL;
    size_t count = 0;
    if (catalog == NULL || rq_catalog_list(catalog, &list, &count) != RQ_OK) {
        rq_http_text(response, 503, "store not open\n");
        return;
    }
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_val *databases = yyjson_mut_obj_add_arr(doc, root, "databases");
    for (size_t i = 0; i < count; i++) {
        yyjson_mut_val *one = yyjson_mut_arr_add_obj(doc, databases);
        yyjson_mut_obj_add_strcpy(doc, one, "name", rq_database_name(list[i]));
        put_database(doc, one, list[i]);
        rq_database_unref(list[i]);
    }
    free(list);
    struct listing l = { s, doc, yyjson_mut_obj_add_arr(doc, root, "not_replicated") };
    if (s->disk->ops->list(s->disk, s->dir, look_at, &l) != RQ_OK) {
        root = NULL;
    }
    put_json(response, doc, root, rq_http_param(request, "pretty") != NULL);
}

/* A drop that a thread of the server waits for.  Who comes last, it or the answer, frees it. */
struct waiting_drop {
    struct rq_request request;
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool done, left;
    enum rq_err err;
};

static void free_drop(struct waiting_drop *d)
{
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->answered);
    free(d);
}

static void drop_done(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    struct waiting_drop *d = (struct waiting_drop *)r;
    (void)db;
    pthread_mutex_lock(&d->lock);
    d->done = true;
    d->err = err;
    bool left = d->left;
    pthread_cond_signal(&d->answered);
    pthread_mutex_unlock(&d->lock);
    if (left) {
        free_drop(d);
    }
}

static void delete_db(struct rq_status *s, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_catalog *catalog = atomic_load(&s->catalog);
    const char *name = rq_http_param(request, "db");
    if (name == NULL || name[0] == '\0') {
        rq_http_text(response, 400, "query parameter db is missing: it names the database to drop\n");
        return;
    }
    if (catalog == NULL || !rq_catalog_ready(catalog)) {
        rq_http_text(response, 503, "store not open\n");
        return;
    }
    struct rq_database *db = rq_catalog_find(catalog, name, strlen(name));
    if (db == NULL) {
        rq_http_text(response, 404, "no such database\n");
        return;
    }
    struct waiting_drop *d = calloc(1, sizeof *d);
    if (d == NULL) {
        rq_database_unref(db);
        response->status = 500;
        return;
    }
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->answered, NULL);
    d->request.done = drop_done;
    rq_catalog_drop(catalog, rq_database_id(db), &d->request);
    rq_database_unref(db);

    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += DROP_WAIT_S;
    int waited = 0;
    pthread_mutex_lock(&d->lock);
    while (!d->done && waited == 0) {
        waited = pthread_cond_timedwait(&d->answered, &d->lock, &until);
    }
    bool done = d->done;
    enum rq_err err = d->err;
    d->left = true;
    pthread_mutex_unlock(&d->lock);
    if (!done) {
        rq_http_text(response, 503, "not known yet whether the database was dropped\n");
        return;
    }
    free_drop(d);
    if (err == RQ_OK) {
        response->status = 200;
    } else {
        rq_http_text(response, err == RQ_NOTFOUND ? 404 : 503, rq_err_text(err));
    }
}

static void on_db(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    if (strcmp(request->method, "DELETE") == 0) {
        delete_db(ctx, request, response);
    } else {
        get_db(ctx, request, response);
    }
}

/* --- /status ------------------------------------------------------------------------------------------------------------------------- */

static void put_store(struct rq_status *s, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    yyjson_mut_val *store = put_obj(doc, root, "store");
    struct rq_driver *driver = atomic_load(&s->driver);
    struct rq_catalog *catalog = atomic_load(&s->catalog);
    if (driver == NULL || catalog == NULL) {
        yyjson_mut_obj_add_bool(doc, store, "open", false);
        return;
    }
    struct rq_driver_view view = rq_driver_view(driver);
    struct rq_log_stats log;
    rq_driver_log_stats(driver, &log);

    yyjson_mut_obj_add_str(doc, store, "addr", s->raft_adv_addr);
    yyjson_mut_val *databases = put_obj(doc, store, "databases");
    struct rq_database **list = NULL;
    size_t count = 0;
    uint64_t applied = view.delivered;
    if (rq_catalog_list(catalog, &list, &count) == RQ_OK) {
        for (size_t i = 0; i < count; i++) {
            yyjson_mut_val *key = yyjson_mut_strcpy(doc, rq_database_name(list[i]));
            yyjson_mut_val *one = yyjson_mut_obj(doc);
            put_database(doc, one, list[i]);
            yyjson_mut_obj_add(databases, key, one);
            rq_database_unref(list[i]);
        }
        free(list);
    }
    yyjson_mut_obj_add_uint(doc, store, "db_applied_index", applied);
    yyjson_mut_obj_add_str(doc, store, "dir", s->dir);
    yyjson_mut_obj_add_uint(doc, store, "fsm_index", applied);
    yyjson_mut_obj_add_uint(doc, store, "fsm_term", view.term);
    yyjson_mut_val *leader = put_obj(doc, store, "leader");
    yyjson_mut_obj_add_str(doc, leader, "addr", view.leads ? s->raft_adv_addr : "");
    yyjson_mut_obj_add_str(doc, leader, "node_id", view.leads ? s->node_id : "");
    yyjson_mut_obj_add_str(doc, store, "node_id", s->node_id);
    yyjson_mut_val *node = yyjson_mut_arr_add_obj(doc, yyjson_mut_obj_add_arr(doc, store, "nodes"));
    yyjson_mut_obj_add_str(doc, node, "addr", s->raft_adv_addr);
    yyjson_mut_obj_add_str(doc, node, "id", s->node_id);
    yyjson_mut_obj_add_str(doc, node, "suffrage", "voter");
    (void)put_obj(doc, store, "open");
    yyjson_mut_val *raft = put_obj(doc, store, "raft");
    yyjson_mut_obj_add_uint(doc, raft, "applied_index", applied);
    yyjson_mut_obj_add_uint(doc, raft, "commit_index", view.committed);
    yyjson_mut_obj_add_uint(doc, raft, "last_contact", 0);
    yyjson_mut_obj_add_uint(doc, raft, "log_entries", log.entries);
    yyjson_mut_obj_add_uint(doc, raft, "log_size", log.bytes);
    yyjson_mut_obj_add_uint(doc, raft, "log_writes", log.writes);
    yyjson_mut_obj_add_uint(doc, raft, "num_peers", 0);
    yyjson_mut_obj_add_str(doc, raft, "state", view.leads ? "Leader" : "Follower");
    yyjson_mut_obj_add_uint(doc, raft, "term", view.term);
    yyjson_mut_obj_add_bool(doc, raft, "voter", true);
    yyjson_mut_obj_add_bool(doc, store, "ready", rq_catalog_ready(catalog));
}

static void put_host(struct rq_status *s, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    struct utsname uts = { 0 };
    char host[256] = "", executable[4096] = "";
    time_t now = time(NULL);

    yyjson_mut_val *node = put_obj(doc, root, "node");
    put_time(doc, node, "current_time", now);
    put_time(doc, node, "start_time", (time_t)s->started_s);
    char uptime[32];
    (void)snprintf(uptime, sizeof uptime, "%llds", (long long)now - (long long)s->started_s);
    yyjson_mut_obj_add_strcpy(doc, node, "uptime", uptime);

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
    struct rq_status *s = ctx;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);

    yyjson_mut_val *build = put_obj(doc, root, "build");
    yyjson_mut_obj_add_str(doc, build, "version", s->version);
    yyjson_mut_val *cluster = put_obj(doc, root, "cluster");
    yyjson_mut_obj_add_str(doc, cluster, "addr", s->raft_adv_addr);
    yyjson_mut_obj_add_str(doc, cluster, "api_addr", s->http_adv_addr);
    yyjson_mut_obj_add_str(doc, cluster, "https", "false");
    yyjson_mut_val *http = put_obj(doc, root, "http");
    yyjson_mut_obj_add_str(doc, http, "auth", "disabled");
    yyjson_mut_obj_add_str(doc, http, "bind_addr", s->http_addr);
    put_host(s, doc, root);
    put_store(s, doc, root);

    const char *key = rq_http_param(request, "key");
    if (key != NULL) {
        root = descend(doc, root, key);
    }
    put_json(response, doc, root, key == NULL && rq_http_param(request, "pretty") != NULL);
}

const struct rq_http_route rq_status_routes[] = {
    { "/readyz", true, "GET", get_readyz },
    { "/status", true, "GET", get_status },
    { "/db", false, "GET, DELETE", on_db },
};
const size_t rq_status_route_count = sizeof rq_status_routes / sizeof *rq_status_routes;
