#include "raftd/http/vars.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

#include "raftd/http/sql.h"
#include "raftd/run/metrics.h"

/* False on an error that is not mended, also of an earlier call. */
static bool print(struct rq_bytes *to, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool print(struct rq_bytes *to, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    return n >= 0 && n < (int)sizeof line && rq_bytes_put(to, line, (size_t)n) == RQ_OK;
}

static uint64_t counter(unsigned i)
{
    return atomic_load_explicit(&rq_counters[i], memory_order_relaxed);
}

static uint64_t resident_bytes(void)
{
    char text[128] = "", *behind;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        const ssize_t n = read(fd, text, sizeof text - 1);
        text[n > 0 ? n : 0] = '\0';
        close(fd);
    }
    (void)strtoull(text, &behind, 10); /* all of it, and then what is resident */
    return strtoull(behind, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* --- /debug/vars ---------------------------------------------------------------------------------------------------------- */

/* Begins one that was asked for, on a line of its own. */
static bool begin_section(const struct rq_http_request *request, struct rq_bytes *to, const char *name)
{
    const char *key = rq_http_param(request, "key");
    if (key != NULL && strcmp(key, name) != 0) {
        return false;
    }
    return print(to, "%s\"%s\": ", to->size > 2 ? ",\n" : "", name);
}

static void put_cmdline(struct rq_bytes *to)
{
    char text[8192];
    size_t bytes = 0;
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        const ssize_t n = read(fd, text, sizeof text);
        bytes = n > 0 ? (size_t)n : 0;
        close(fd);
    }
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *list = yyjson_mut_arr(doc);
    for (size_t at = 0; at < bytes; at += strnlen(text + at, bytes - at) + 1) {
        yyjson_mut_arr_add_strn(doc, list, text + at, strnlen(text + at, bytes - at));
    }
    char *json = yyjson_mut_val_write(list, YYJSON_WRITE_ALLOW_INVALID_UNICODE, &bytes);
    if (json != NULL) {
        (void)rq_bytes_put(to, json, bytes); /* too long: what follows fails, too */
    }
    free(json);
    yyjson_mut_doc_free(doc);
}

static void get_vars(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_bytes *to = &response->body;
    (void)ctx;
    bool good = print(to, "{\n");
    if (begin_section(request, to, "cmdline")) {
        put_cmdline(to);
    }
    for (unsigned i = 0; good && i < RQ_COUNTER_COUNT;) {
        const char *section = rq_counter_names[i].section;
        const bool wanted = begin_section(request, to, section);
        good = !wanted || print(to, "{");
        for (bool first = true; i < RQ_COUNTER_COUNT && strcmp(rq_counter_names[i].section, section) == 0; i++) {
            good = good && (!wanted || print(to, "%s\"%s\": %llu", first ? "" : ", ", rq_counter_names[i].key,
                                             (unsigned long long)counter(i)));
            first = false;
        }
        good = good && (!wanted || print(to, "}"));
    }
    if (begin_section(request, to, "memstats")) {
        const struct mallinfo2 heap = mallinfo2();
        good = good && print(to, "{\"Alloc\": %zu, \"HeapAlloc\": %zu, \"HeapSys\": %zu, \"Sys\": %llu}", heap.uordblks,
                             heap.uordblks, heap.arena + heap.hblkhd, (unsigned long long)resident_bytes());
    }
    good = good && print(to, "\n}\n");
    response->status = good ? 200 : 500;
    response->content_type = RQ_HTTP_JSON;
}

/* --- /metrics ------------------------------------------------------------------------------------------------------------- */

static bool put_gauge(struct rq_bytes *to, const char *name, const char *what, uint64_t value)
{
    return print(to, "# HELP raftd_%s %s\n# TYPE raftd_%s gauge\nraftd_%s %llu\n", name, what, name, name,
                 (unsigned long long)value);
}

static bool put_counters(struct rq_bytes *to)
{
    bool good = true;
    for (unsigned i = 0; good && i < RQ_COUNTER_COUNT; i++) {
        const struct rq_counter_name *n = &rq_counter_names[i];
        good = print(to, "# TYPE raftd_%s_%s_total counter\nraftd_%s_%s_total %llu\n", n->section, n->key, n->section,
                     n->key, (unsigned long long)counter(i));
    }
    return good;
}

static bool put_stage(struct rq_bytes *to, enum rq_stage stage)
{
    const char *name = rq_stage_names[stage];
    uint64_t count = 0;
    bool good = true;
    for (unsigned i = 0; good && i < RQ_STAGE_BUCKETS; i++) {
        char bound[32] = "+Inf";
        count += atomic_load_explicit(&rq_stages[stage].buckets[i], memory_order_relaxed);
        if (i < RQ_STAGE_BUCKETS - 1) {
            (void)snprintf(bound, sizeof bound, "%.6f", (double)(1ul << i) / 1e6);
        }
        good = print(to, "raftd_commit_stage_seconds_bucket{stage=\"%s\",le=\"%s\"} %llu\n", name, bound,
                     (unsigned long long)count);
    }
    const uint64_t sum_ns = atomic_load_explicit(&rq_stages[stage].sum_ns, memory_order_relaxed);
    return good && print(to,
                         "raftd_commit_stage_seconds_sum{stage=\"%s\"} %.9f\n"
                         "raftd_commit_stage_seconds_count{stage=\"%s\"} %llu\n",
                         name, (double)sum_ns / 1e9, name, (unsigned long long)count);
}

static bool put_stages(struct rq_bytes *to)
{
    bool good = print(to,
                      "# HELP raftd_commit_stage_seconds How long the stages of commits took on this node.\n"
                      "# TYPE raftd_commit_stage_seconds histogram\n");
    for (unsigned i = 0; good && i < RQ_STAGE_COUNT; i++) {
        good = put_stage(to, i);
    }
    return good;
}

static bool put_node(struct rq_admin *a, struct rq_bytes *to)
{
    struct rq_driver *driver = atomic_load(&a->driver);
    bool good = put_gauge(to, "start_time_seconds", "Start of the process, since 1970.", a->started_s) &&
                put_gauge(to, "resident_memory_bytes", "Memory of the process.", resident_bytes()) &&
                put_gauge(to, "ready", "The node serves and knows a leader.", rq_admin_has_leader(a));
    if (driver == NULL) {
        return good;
    }
    good = good && put_gauge(to, "http_transactions", "Transactions that HTTP clients keep open.",
                             rq_transactions_open(rq_sql_service_transactions(a->sql)));
    const struct rq_driver_view view = rq_driver_view(driver);
    struct rq_log_stats log;
    rq_driver_log_stats(driver, &log);
    return good && put_gauge(to, "raft_leader", "This node leads.", view.leads) &&
           put_gauge(to, "raft_term", "Raft term.", view.term) &&
           put_gauge(to, "raft_commit_index", "Newest committed log entry.", view.committed) &&
           put_gauge(to, "raft_applied_index", "Newest log entry given to the databases.", view.delivered) &&
           put_gauge(to, "raft_last_log_index", "Newest log entry.", log.last_index) &&
           put_gauge(to, "raft_snapshot_index", "Log entry of the newest snapshot.",
                     rq_catalog_snapshot(atomic_load(&a->catalog)).index) &&
           put_gauge(to, "raft_log_bytes", "Size of the log's segments.", log.bytes);
}

/* In a label: backslash, quote and line break are escaped; a name has no control characters. */
static void escape(const char *name, char text[2 * RQ_DB_NAME_MAX + 1])
{
    for (; *name != '\0'; name++) {
        if (*name == '"' || *name == '\\') {
            *text++ = '\\';
        }
        *text++ = *name;
    }
    *text = '\0';
}

/* What is said of each database: all values of one name together, as the format wants it. */
static bool put_databases(struct rq_admin *a, struct rq_bytes *to)
{
    static const struct {
        const char *name, *what;
    } series[] = { { "version", "Transactions that it has had." },
                   { "bytes", "Its size." },
                   { "applied_index", "Newest log entry that it has applied." },
                   { "quarantined", "It is fenced on this node." } };
    struct rq_database **list = NULL;
    size_t count = 0;
    bool good = true;
    if (atomic_load(&a->driver) == NULL || rq_catalog_list(atomic_load(&a->catalog), &list, &count) != RQ_OK) {
        return true;
    }
    for (unsigned s = 0; s < sizeof series / sizeof *series; s++) {
        good = good && print(to, "# HELP raftd_database_%s %s\n# TYPE raftd_database_%s gauge\n", series[s].name,
                             series[s].what, series[s].name);
        for (size_t i = 0; good && i < count; i++) {
            char name[2 * RQ_DB_NAME_MAX + 1];
            struct rq_database_info info;
            rq_database_info(list[i], &info);
            const uint64_t values[] = { info.version, (uint64_t)info.page_count * info.page_size, info.applied_index,
                                        info.state == RQ_DB_QUARANTINED };
            escape(rq_database_name(list[i]), name);
            good =
                print(to, "raftd_database_%s{db=\"%s\"} %llu\n", series[s].name, name, (unsigned long long)values[s]);
        }
    }
    for (size_t i = 0; i < count; i++) {
        rq_database_unref(list[i]);
    }
    free(list);
    return good;
}

static void get_metrics(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_bytes *to = &response->body;
    (void)request;
    const bool good = put_node(ctx, to) && put_databases(ctx, to) && put_stages(to) && put_counters(to);
    response->status = good ? 200 : 500;
    response->content_type = "text/plain; version=0.0.4; charset=utf-8";
}

const struct rq_http_route rq_vars_routes[] = {
    { "/debug/vars", false, false, "*", "status", get_vars, .type = RQ_HTTP_JSON },
    { "/metrics", false, false, "GET", "status", get_metrics },
};
const size_t rq_vars_route_count = sizeof rq_vars_routes / sizeof *rq_vars_routes;
