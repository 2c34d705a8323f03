#include "raftd/http/changes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/http/databases.h"
#include "raftd/http/go_json.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"

#define OUT_BYTES     4096u       /* events are put in front of these many that wait to be sent */
#define OUT_BYTES_MAX (32u << 20) /* one event: the names of all tables */
#define QUIET_MS      10000u      /* then a sign of life is due */
#define RETRY_MS      1000u       /* a client that has lost us comes again after so long */

enum { CALLED, WAITS, STREAMS };

/* One listener. */
struct stream {
    struct rq_feed_listener listener; /* first */
    struct rq_changes *changes;
    struct rq_http_response *response;
    struct rq_database *db; /* counted */
    bool joined;
    /* WAITS: the request is suspended, until the feed is ready.  CALLED: the handler is, or will be. */
    atomic_int state;
    struct rq_bytes out, tables;
    size_t sent; /* of out */
    bool over;   /* nothing comes behind out */
    uint64_t last_ms;
};

/* --- what is sent ----------------------------------------------------------------------------------------------------------- */

static void print(struct stream *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Without memory the stream ends: the client goes on from the last event that it has got. */
static void print(struct stream *s, const char *format, ...)
{
    char line[256];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    s->over = s->over || n < 0 || n >= (int)sizeof line || rq_bytes_put(&s->out, line, (size_t)n) != RQ_OK;
}

static void put(struct stream *s, const char *text)
{
    s->over = s->over || rq_bytes_put(&s->out, text, strlen(text)) != RQ_OK;
}

static void print_text(struct stream *s, const char *text)
{
    s->over = s->over || rq_go_put_text(&s->out, (const uint8_t *)text, strlen(text)) != RQ_OK;
}

static void print_id(struct stream *s, uint64_t version)
{
    print(s, "id: %u-%" PRIu64 "\n", rq_database_id(s->db), version);
}

static void print_time(struct stream *s, uint64_t time_ms)
{
    const time_t seconds = (time_t)(time_ms / 1000u);
    struct tm tm;
    char text[40] = "";
    if (time_ms == 0 || gmtime_r(&seconds, &tm) == NULL) {
        put(s, "null");
        return;
    }
    (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    print(s, "\"%s.%03uZ\"", text, (unsigned)(time_ms % 1000u));
}

static void print_tables(struct stream *s, bool known)
{
    const char *names = (const char *)s->tables.data;
    put(s, known ? "[" : "null");
    for (size_t at = 0; at < s->tables.size; at += strlen(names + at) + 1) {
        put(s, at > 0 ? "," : "");
        print_text(s, names + at);
    }
    put(s, known ? "]" : "");
}

static void print_change(struct stream *s, const struct rq_change *c)
{
    print_id(s, c->version);
    put(s, "event: change\ndata: {\"database\":");
    print_text(s, rq_database_name(s->db));
    print(s, ",\"version\":%" PRIu64 ",\"transactions\":%" PRIu64 ",\"index\":%" PRIu64 ",\"time\":", c->version,
          c->version - c->base, c->index);
    print_time(s, c->time_ms);
    put(s, ",\"tables\":");
    print_tables(s, c->tables_known);
    put(s, "}\n\n");
    RQ_COUNT(http, changes_told);
}

/* All others: what the listener is told about its stream. */
static void print_note(struct stream *s, const char *event, bool with_id)
{
    const struct rq_feed_range range = rq_feed_range(&s->listener);
    if (with_id) {
        print_id(s, s->listener.version);
    }
    print(s, "event: %s\ndata: {\"database\":", event);
    print_text(s, rq_database_name(s->db));
    print(s, ",\"oldest\":%" PRIu64 ",\"version\":%" PRIu64 "}\n\n", range.oldest,
          with_id ? s->listener.version : range.version);
}

static void fill(struct stream *s)
{
    struct rq_change change;
    bool more = true;
    while (more && !s->over && s->out.size < OUT_BYTES) {
        const enum rq_feed_answer answer = rq_feed_take(&s->listener, &change, &s->tables);
        more = answer == RQ_FEED_CHANGE || answer == RQ_FEED_GAP;
        switch (answer) {
            case RQ_FEED_CHANGE:
                print_change(s, &change);
                break;
            case RQ_FEED_GAP:
                print_note(s, "gap", true);
                RQ_COUNT(http, changes_lost);
                break;
            case RQ_FEED_BEHIND:
                print_note(s, "behind", false);
                RQ_COUNT(http, changes_lost);
                s->over = true;
                break;
            case RQ_FEED_GONE:
                print_note(s, "dropped", false);
                s->over = true;
                break;
            case RQ_FEED_STOPS:
                put(s, ": this node stops\n\n");
                s->over = true;
                break;
            case RQ_FEED_NOTHING:
                break;
        }
    }
    if (s->out.size == 0 && rq_clock_ms() >= s->last_ms + QUIET_MS) {
        put(s, ":\n\n");
    }
}

static ssize_t pull(void *progress, void *to, size_t max)
{
    struct stream *s = progress;
    if (s->sent == s->out.size && !s->over) {
        s->sent = s->out.size = 0;
        fill(s);
    }
    size_t n = s->out.size - s->sent;
    if (n == 0) {
        return s->over ? RQ_HTTP_PULL_END : 0;
    }
    n = n < max ? n : max;
    memcpy(to, s->out.data + s->sent, n);
    s->sent += n;
    s->last_ms = rq_clock_ms();
    return (ssize_t)n;
}

/* --- beginning -------------------------------------------------------------------------------------------------------------- */

static void on_stir(struct rq_feed_listener *l)
{
    struct stream *s = (struct stream *)l;
    int waits = WAITS;
    if (atomic_load(&s->state) == STREAMS) {
        rq_http_wake(s->response);
    } else if (atomic_compare_exchange_strong(&s->state, &waits, CALLED)) {
        rq_http_resume(s->response);
    }
}

static void forget(void *progress)
{
    struct stream *s = progress;
    if (s->joined) {
        rq_feed_leave(atomic_load(&s->changes->feeds), &s->listener);
    }
    rq_database_unref(s->db);
    rq_bytes_fini(&s->out);
    rq_bytes_fini(&s->tables);
    free(s);
}

static struct stream *stream_new(struct rq_changes *c, struct rq_database *db, struct rq_http_response *response)
{
    struct stream *s = calloc(1, sizeof *s);
    if (s != NULL) {
        s->changes = c;
        s->response = response;
        s->db = db;
        s->listener.stir = on_stir;
        rq_bytes_init(&s->out, OUT_BYTES_MAX);
        rq_bytes_init(&s->tables, OUT_BYTES_MAX);
        response->progress = s;
        response->forget = forget;
    }
    return s;
}

/* "301", or "7-301" of the database with that id; ret_id is 0 then otherwise. */
static bool parse_place(const char *text, uint64_t *ret_id, uint64_t *ret_version)
{
    char *end;
    uint64_t numbers[2] = { 0, 0 };
    unsigned count = 0;
    do {
        if (count == 2 || *text < '0' || *text > '9' || strspn(text, "0123456789") > 19) {
            return false;
        }
        numbers[count++] = strtoull(text, &end, 10);
        text = end + 1;
    } while (*end == '-');
    *ret_id = count == 2 ? numbers[0] : 0;
    *ret_version = numbers[count - 1];
    return *end == '\0';
}

static void say_410(struct stream *s, struct rq_http_response *response, const struct rq_feed_range *range,
                    const char *why)
{
    response->status = 410;
    response->content_type = "application/json; charset=utf-8";
    s->out.size = 0;
    put(s, "{\"database\":");
    print_text(s, rq_database_name(s->db));
    print(s, ",\"id\":%u,\"oldest\":%" PRIu64 ",\"version\":%" PRIu64 ",\"error\":", rq_database_id(s->db),
          range->oldest, range->version);
    print_text(s, why);
    put(s, "}\n");
    if (s->over || rq_bytes_put(&response->body, s->out.data, s->out.size) != RQ_OK) {
        response->status = 500;
    }
    RQ_COUNT(http, changes_lost);
}

/* False: the answer is made, that it cannot be. */
static bool find_place(struct stream *s, const struct rq_http_request *request, struct rq_http_response *response,
                       const struct rq_feed_range *range)
{
    const char *text = request->last_event_id != NULL && request->last_event_id[0] != '\0'
                           ? request->last_event_id
                           : rq_http_param(request, "from");
    uint64_t id = 0;
    s->listener.version = range->version;
    if (text == NULL) {
        return true;
    }
    if (!parse_place(text, &id, &s->listener.version)) {
        rq_http_text(response, 400, "from, or Last-Event-ID, is no version\n");
        return false;
    }
    if (id != 0 && id != rq_database_id(s->db)) {
        say_410(s, response, range,
                "that was another database of this name: read this one, and listen from its version on");
        return false;
    }
    if (s->listener.version < range->oldest) {
        say_410(s, response, range,
                "changes behind that version are not kept any more: read the database, and listen from its version on");
        return false;
    }
    return true;
}

static void begin(struct stream *s, const struct rq_http_request *request, struct rq_http_response *response,
                  const struct rq_feed_range *range)
{
    if (range->gone) {
        rq_http_text(response, 404, "no such database\n");
        return;
    }
    if (range->stops) {
        rq_http_text(response, 503, "this node is shutting down\n");
        return;
    }
    if (!find_place(s, request, response, range)) {
        return;
    }
    response->content_type = "text/event-stream";
    response->cache_control = "no-store";
    response->pull = pull;
    print(s, "retry: %u\n", RETRY_MS);
    print_note(s, "start", true);
    RQ_COUNT(http, changes);
    atomic_store(&s->state, STREAMS);
}

/* False: the answer is made. */
static bool join(struct rq_changes *c, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_feeds *feeds = atomic_load(&c->feeds);
    struct rq_catalog *catalog = atomic_load(&c->admin->catalog);
    const char *name = rq_admin_database_name(request);
    if (feeds == NULL || catalog == NULL) {
        rq_http_text(response, 503, "store not open\n");
        return false;
    }
    struct rq_database *db = rq_catalog_find(catalog, name, strlen(name));
    if (db == NULL) {
        rq_http_text(response, 404, "no such database\n");
        return false;
    }
    struct stream *s = stream_new(c, db, response);
    if (s == NULL) {
        rq_database_unref(db);
        response->status = 500;
        return false;
    }
    const enum rq_err err = rq_feed_join(feeds, db, &s->listener);
    s->joined = err == RQ_OK;
    if (err != RQ_OK) {
        rq_http_text(response, 503,
                     err == RQ_FULL       ? "too many listen to changes already\n"
                     : err == RQ_SHUTDOWN ? "this node is shutting down\n"
                                          : "out of memory\n");
    }
    return s->joined;
}

/* Called once more when the feed is ready. */
static void get_changes(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_changes *c = ctx;
    response->served_by = c->admin->http_adv_addr;
    if (response->progress == NULL && !join(c, request, response)) {
        return;
    }
    struct stream *s = response->progress;
    struct rq_feed_range range = rq_feed_range(&s->listener);
    if (range.ready || range.gone || range.stops) {
        begin(s, request, response, &range);
        return;
    }
    rq_http_suspend(response);
    atomic_store(&s->state, WAITS); /* from now on it may be resumed */
    range = rq_feed_range(&s->listener);
    if (range.ready || range.gone || range.stops) { /* since then: nobody may stir it again */
        on_stir(&s->listener);
    }
}

/* --- life ------------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_changes_open(struct rq_changes *c)
{
    const struct rq_feeds_config config = {
        .catalog = atomic_load(&c->admin->catalog),
        .driver = atomic_load(&c->admin->driver),
        .disk = c->admin->disk,
        .dir = c->admin->dir,
        .staged_dir = c->admin->scratch_dir,
    };
    struct rq_feeds *feeds;
    const enum rq_err err = rq_feeds_new(&config, &feeds);
    if (err == RQ_OK) {
        atomic_store(&c->feeds, feeds);
    }
    return err;
}

void rq_changes_stop(struct rq_changes *c)
{
    rq_feeds_stop(atomic_load(&c->feeds));
}

const struct rq_http_route rq_changes_routes[] = {
    { "/db/changes", false, false, "GET", "query", get_changes },
};
const size_t rq_changes_route_count = sizeof rq_changes_routes / sizeof *rq_changes_routes;
