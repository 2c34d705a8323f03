#include "raftd/http/databases.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/http/json.h"
#include "raftd/run/clock.h"

#define DROP_WAIT_MS 10000u

void rq_http_put_database(yyjson_mut_doc *doc, yyjson_mut_val *in, struct rq_database *db)
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

struct listing {
    struct rq_admin *admin;
    yyjson_mut_doc *doc;
    yyjson_mut_val *others;
};

/* A SQLite file that would have a database's name, and is none. */
static enum rq_err look_at(void *ctx, const char *name)
{
    struct listing *l = ctx;
    struct rq_disk *disk = l->admin->disk;
    struct rq_file_info info;
    char path[4096];
    if (!rq_db_name_valid(name, strlen(name)) ||
        snprintf(path, sizeof path, "%s/%s", l->admin->dir, name) >= (int)sizeof path ||
        disk->ops->stat(disk, path, &info) != RQ_OK || !info.regular || info.size == 0) {
        return RQ_OK;
    }
    struct rq_database *db = rq_catalog_find(atomic_load(&l->admin->catalog), name, strlen(name));
    if (db == NULL) {
        yyjson_mut_arr_add_strcpy(l->doc, l->others, name);
    } else {
        rq_database_unref(db);
    }
    return RQ_OK;
}

static void get_db(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *s = ctx;
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
        rq_http_put_database(doc, one, list[i]);
        rq_database_unref(list[i]);
    }
    free(list);
    struct listing l = { s, doc, yyjson_mut_obj_add_arr(doc, root, "not_replicated") };
    if (s->disk->ops->list(s->disk, s->dir, look_at, &l) != RQ_OK) {
        root = NULL;
    }
    rq_http_json(response, doc, root, rq_http_param(request, "pretty") != NULL);
}

/* --- changes -------------------------------------------------------------------------------------------------------------- */

/* A change of the catalog that a thread of the server waits for.  Who comes last, it or the answer, frees it. */
struct wish {
    struct rq_request request; /* first */
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool done, left;
    enum rq_err err;
    struct rq_database *db; /* counted; NULL: none */
};

static void wish_free(struct wish *w)
{
    if (w->db != NULL) {
        rq_database_unref(w->db);
    }
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->answered);
    free(w);
}

static void wish_done(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    struct wish *w = (struct wish *)r;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    w->err = err;
    w->db = db != NULL ? rq_database_ref(db) : NULL;
    const bool left = w->left;
    pthread_cond_signal(&w->answered);
    pthread_mutex_unlock(&w->lock);
    if (left) {
        wish_free(w);
    }
}

static struct wish *wish_new(void)
{
    struct wish *w = calloc(1, sizeof *w);
    if (w != NULL) {
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->answered, NULL);
        w->request.done = wish_done;
    }
    return w;
}

/* Takes w.  UNKNOWN: no answer in time.  ret_db, NULL is fine: counted. */
static enum rq_err wish_wait(struct wish *w, unsigned timeout_ms, struct rq_database **ret_db)
{
    const uint64_t end_ms = rq_clock_ms() + timeout_ms;
    const struct timespec until = { (time_t)(end_ms / 1000u), (long)(end_ms % 1000u) * 1000000 };
    int waited = 0;
    pthread_mutex_lock(&w->lock);
    while (!w->done && waited == 0) {
        waited = pthread_cond_clockwait(&w->answered, &w->lock, CLOCK_MONOTONIC, &until);
    }
    const bool done = w->done;
    enum rq_err err = done ? w->err : RQ_UNKNOWN;
    if (err == RQ_OK && ret_db != NULL) {
        *ret_db = w->db;
        w->db = NULL;
    }
    w->left = true;
    pthread_mutex_unlock(&w->lock);
    if (done) {
        wish_free(w);
    }
    return err;
}

const char *rq_admin_database_name(const struct rq_http_request *request)
{
    const char *name = rq_http_param(request, "db");
    return name != NULL ? name : RQ_ADMIN_DATABASE;
}

enum rq_err rq_admin_create(struct rq_admin *a, const char *name, unsigned timeout_ms, struct rq_database **ret_db)
{
    struct rq_catalog *catalog = atomic_load(&a->catalog);
    if (catalog == NULL || !rq_catalog_ready(catalog)) {
        return RQ_UNREADY;
    }
    struct wish *w = wish_new();
    if (w == NULL) {
        return RQ_NOMEM;
    }
    rq_catalog_create(catalog, name, strlen(name), &w->request);
    return wish_wait(w, timeout_ms, ret_db);
}

const char *rq_admin_create_text(enum rq_err err)
{
    switch ((int)err) {
        case RQ_MISUSE:
            return "no database can have this name";
        case RQ_EXISTS:
            return "there is a file of this name that is not replicated";
        case RQ_UNREADY:
            return "store not open";
        case RQ_AWAY:
            return "leader not found";
        case RQ_UNKNOWN:
            return "not known yet whether the database was created";
        default:
            return rq_err_text(err);
    }
}

static void say(struct rq_http_response *response, unsigned status, const char *text)
{
    char line[RQ_HTTP_TEXT_MAX];
    (void)snprintf(line, sizeof line, "%s\n", text);
    rq_http_text(response, status, line);
}

static void post_db(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    struct rq_database *db;
    const char *name = rq_http_param(request, "db");
    if (name == NULL || name[0] == '\0') {
        say(response, 400, "query parameter db is missing: it names the database to create");
        return;
    }
    enum rq_err err = rq_admin_create(a, name, rq_http_timeout_ms(request), &db);
    if (err == RQ_OK) {
        rq_database_unref(db);
        response->status = 200;
        response->served_by = a->http_adv_addr;
    } else {
        say(response,
            err == RQ_MISUSE                    ? 400
            : err == RQ_EXISTS                  ? 409
            : err == RQ_FULL || err == RQ_NOMEM ? 500
                                                : 503,
            rq_admin_create_text(err));
    }
}

static void delete_db(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    struct rq_catalog *catalog = atomic_load(&a->catalog);
    const char *name = rq_http_param(request, "db");
    if (name == NULL || name[0] == '\0') {
        say(response, 400, "query parameter db is missing: it names the database to drop");
        return;
    }
    if (catalog == NULL || !rq_catalog_ready(catalog)) {
        say(response, 503, "store not open");
        return;
    }
    struct rq_database *db = rq_catalog_find(catalog, name, strlen(name));
    if (db == NULL) {
        say(response, 404, "no such database");
        return;
    }
    struct wish *w = wish_new();
    if (w == NULL) {
        rq_database_unref(db);
        response->status = 500;
        return;
    }
    rq_catalog_drop(catalog, rq_database_id(db), &w->request);
    rq_database_unref(db);
    enum rq_err err = wish_wait(w, DROP_WAIT_MS, NULL);
    if (err == RQ_OK) {
        response->status = 200;
    } else if (err == RQ_UNKNOWN) {
        say(response, 503, "not known yet whether the database was dropped");
    } else {
        say(response, err == RQ_NOTFOUND ? 404 : 503, rq_err_text(err));
    }
}

const struct rq_http_route rq_databases_routes[] = {
    { "/db", false, false, "GET", "status", get_db },
    { "/db", false, true, "POST", "load", post_db },
    { "/db", false, true, "DELETE", "load", delete_db },
};
const size_t rq_databases_route_count = sizeof rq_databases_routes / sizeof *rq_databases_routes;
