#include "raftd/http/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "raftd/db/applied.h"
#include "raftd/db/identity.h"
#include "raftd/db/load.h"
#include "raftd/http/databases.h"
#include "raftd/http/json.h"
#include "raftd/http/load_sql.h"
#include "raftd/http/scratch.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"

#define CHUNK_BYTES (256u << 10)

/* --- the body, as a file -------------------------------------------------------------------------------------------------- */

struct upload {
    char path[4096]; /* unlinked by whoever has it; a kill leaves what the next start sweeps away */
    int fd;
    uint64_t bytes;
    uint8_t first[16]; /* bytes of it, or fewer */
};

static bool write_all(int fd, const uint8_t *data, size_t bytes)
{
    while (bytes > 0) {
        const ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        data += n;
        bytes -= (size_t)n;
    }
    return true;
}

static enum rq_err take_chunks(struct rq_admin *a, struct rq_http_response *response, struct upload *u, uint8_t *chunk)
{
    size_t n = 0;
    enum rq_err err;
    while ((err = rq_http_take(response, chunk, CHUNK_BYTES, &n)) == RQ_OK && n > 0) {
        if (u->bytes < sizeof u->first) {
            const size_t room = sizeof u->first - (size_t)u->bytes;
            memcpy(u->first + u->bytes, chunk, n < room ? n : room);
        }
        u->bytes += n;
        if (rq_scratch_room(a->scratch_dir) == 0 || !write_all(u->fd, chunk, n)) {
            return RQ_FULL;
        }
    }
    return err;
}

/* FULL: the disk does not take it.  AWAY: the client is gone. */
static enum rq_err upload_take(struct rq_admin *a, struct rq_http_response *response, struct upload *u)
{
    uint8_t *chunk = malloc(CHUNK_BYTES);
    *u = (struct upload){ .fd = -1 };
    (void)snprintf(u->path, sizeof u->path, "%s/tmp-load-%016llx", a->scratch_dir, (unsigned long long)rq_random_id());
    if (chunk == NULL) {
        return RQ_NOMEM;
    }
    u->fd = open(u->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    enum rq_err err = u->fd >= 0 ? take_chunks(a, response, u, chunk) : RQ_IO;
    free(chunk);
    return err;
}

static void upload_drop(struct upload *u)
{
    if (u->fd >= 0) {
        close(u->fd);
        (void)unlink(u->path); /* else the next start does it */
    }
}

/* --- loading -------------------------------------------------------------------------------------------------------------- */

static void say(struct rq_http_response *response, unsigned status, const char *text)
{
    char line[RQ_LOAD_TEXT_MAX + 2];
    (void)snprintf(line, sizeof line, "%.*s\n", (int)RQ_LOAD_TEXT_MAX, text);
    rq_http_text(response, status, line);
}

static unsigned status_of(enum rq_err err)
{
    switch ((int)err) {
        case RQ_CORRUPT:
            return 400;
        case RQ_NOTFOUND:
            return 404;
        case RQ_AWAY:
        case RQ_BUSY:
        case RQ_REFUSED:
        case RQ_UNREADY:
            return 503;
        case RQ_UNKNOWN:
            return 504;
        default:
            return 500;
    }
}

static enum rq_err load_file(struct rq_admin *a, struct rq_database *db, const char *file, unsigned timeout_ms,
                             char text[RQ_LOAD_TEXT_MAX])
{
    char path[4096];
    struct rq_driver *driver = atomic_load(&a->driver);
    /* Behind the task that opens its files: before that nobody can connect. */
    if (!rq_applied_wait(atomic_load(&a->catalog), driver, rq_driver_view(driver).delivered, timeout_ms)) {
        (void)snprintf(text, RQ_LOAD_TEXT_MAX, "the databases of this node are not ready");
        return RQ_BUSY;
    }
    (void)snprintf(path, sizeof path, "%s/%s", a->dir, rq_database_name(db));
    const struct rq_load load = {
        .disk = a->disk,
        .staged_dir = a->scratch_dir,
        .file = file,
        .db = db,
        .path = path,
        .timeout_ms = timeout_ms,
    };
    return rq_load_run(&load, text);
}

/* rqlited's answer.  NULL: no SQL was run, so it has no result. */
static void put_result(const struct rq_http_request *request, const struct rq_load_sql_result *r, uint64_t ns,
                       struct rq_http_response *response)
{
    const bool timings = rq_http_has(request, "timings");
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_val *results = yyjson_mut_obj_add_arr(doc, root, "results");
    if (r != NULL) {
        yyjson_mut_val *one = yyjson_mut_arr_add_obj(doc, results);
        if (r->error[0] != '\0') {
            yyjson_mut_obj_add_str(doc, one, "error", r->error);
        }
        if (r->error[0] == '\0' && r->last_insert_id != 0) {
            yyjson_mut_obj_add_sint(doc, one, "last_insert_id", r->last_insert_id);
        }
        if (r->error[0] == '\0' && r->rows_affected != 0) {
            yyjson_mut_obj_add_sint(doc, one, "rows_affected", r->rows_affected);
        }
        if (timings) {
            yyjson_mut_obj_add_real(doc, one, "time", (double)ns / 1e9);
        }
    }
    if (timings) {
        yyjson_mut_obj_add_real(doc, root, "time", (double)ns / 1e9);
    }
    rq_http_json(response, doc, root, rq_http_has(request, "pretty"));
    response->content_type = "text/plain; charset=utf-8";
}

/* The answer is made, whatever becomes of it.  OK: it was loaded. */
static enum rq_err load(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                        struct upload *u, bool sql)
{
    struct rq_load_sql_result result;
    struct rq_database *db;
    char text[RQ_LOAD_TEXT_MAX] = "";
    const uint64_t begin_ns = rq_clock_ns();
    enum rq_err err = rq_admin_create(a, rq_admin_database_name(request), rq_http_timeout_ms(request), &db);
    if (err != RQ_OK) {
        say(response, status_of(err), rq_admin_create_text(err));
        return err;
    }
    if (sql) {
        err = rq_load_sql(a, rq_database_name(db), u->fd, &result);
        (void)snprintf(text, sizeof text, "%s",
                       err == RQ_AWAY || (err == RQ_BUSY && !rq_admin_has_leader(a)) ? "leader not found"
                       : err == RQ_UNKNOWN ? "the outcome is unknown: it may or may not be committed"
                                           : rq_err_text(err));
    } else {
        err = load_file(a, db, u->path, rq_http_timeout_ms(request), text);
    }
    rq_database_unref(db);
    if (err != RQ_OK) {
        say(response, status_of(err), text);
    } else {
        put_result(request, sql && u->bytes > 0 ? &result : NULL, rq_clock_ns() - begin_ns, response);
    }
    return err;
}

static bool is_sql(const struct upload *u)
{
    return !rq_load_is_database(u->first, u->bytes < sizeof u->first ? (size_t)u->bytes : sizeof u->first);
}

/* As load(). */
static enum rq_err load_body(struct rq_admin *a, const struct rq_http_request *request,
                             struct rq_http_response *response, bool may_be_sql)
{
    struct upload u;
    enum rq_err err = upload_take(a, response, &u);
    if (err == RQ_FULL) {
        say(response, 500, "database or disk is full");
    } else if (err != RQ_OK) {
        say(response, 500, rq_err_text(err));
    } else if (is_sql(&u) && !may_be_sql) {
        err = RQ_CORRUPT;
        say(response, 400, "invalid SQLite data");
    } else {
        err = load(a, request, response, &u, is_sql(&u));
    }
    upload_drop(&u);
    return err;
}

static void post_load(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    if (atomic_load(&a->driver) == NULL) {
        say(response, 503, "store not open");
        return;
    }
    RQ_COUNT(http, loads);
    if (rq_admin_redirected(a, request, response)) {
        return;
    }
    if (!rq_admin_has_leader(a)) {
        RQ_COUNT(http, leader_not_found);
        say(response, 503, "leader not found");
    } else if (load_body(a, request, response, true) == RQ_OK) {
        RQ_COUNT(store, num_loads);
        response->served_by = a->http_adv_addr;
    }
}

static void post_boot(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    if (atomic_load(&a->driver) == NULL) {
        say(response, 503, "store not open");
        return;
    }
    RQ_COUNT(http, boot);
    if (!rq_admin_leads(a)) {
        say(response, 503, "not leader");
    } else if (!rq_cluster_is_alone(atomic_load(&a->cluster))) {
        say(response, 503, "not single-node");
    } else if (load_body(a, request, response, false) == RQ_OK) {
        RQ_COUNT(store, num_boots);
        response->body.size = 0;
        response->content_type = NULL;
    }
}

const struct rq_http_route rq_load_routes[] = {
    { "/db/load", true, true, "POST", "load", post_load, .takes_body = true },
    { "/boot", false, true, "POST", "load", post_boot, .takes_body = true },
};
const size_t rq_load_route_count = sizeof rq_load_routes / sizeof *rq_load_routes;
