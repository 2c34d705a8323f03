#include "raftd/http/databases.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/http/json.h"

#define DROP_WAIT_S 10

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

static void delete_db(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *s = ctx;
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

const struct rq_http_route rq_databases_routes[] = {
    { "/db", false, false, "GET", "status", get_db },
    { "/db", false, true, "DELETE", "load", delete_db },
};
const size_t rq_databases_route_count = sizeof rq_databases_routes / sizeof *rq_databases_routes;
