#include "raftd/http/snapshots.h"

#include <stdio.h>
#include <string.h>

#include "raftd/run/metrics.h"

static void post_snapshot(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    char text[512], line[sizeof text + 1];
    struct rq_background *background = atomic_load(&a->driver) != NULL ? atomic_load(&a->background) : NULL;
    if (background == NULL) {
        rq_http_text(response, 503, "store not open\n");
        return;
    }
    RQ_COUNT(http, user_snapshots);
    switch ((int)rq_background_snapshot(background, rq_http_timeout_ms(request), text)) {
        case RQ_OK:
            RQ_COUNT(store, num_user_snapshots);
            break;
        case RQ_NOTFOUND:
            response->status = 204;
            break;
        default:
            RQ_COUNT(store, num_user_snapshots_failed);
            (void)snprintf(line, sizeof line, "%s\n", text);
            rq_http_text(response, 500, line);
    }
}

static void post_reap(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    static const char text[] = "{\"snapshots_reaped\":0,\"wals_checkpointed\":0}\n";
    (void)ctx;
    (void)request;
    RQ_COUNT(http, user_reaps);
    rq_http_text(response, 200, text);
    response->content_type = RQ_HTTP_JSON;
}

const struct rq_http_route rq_snapshots_routes[] = {
    { "/snapshot", false, true, "POST", "snapshot", post_snapshot },
    { "/reap", false, false, "POST", "snapshot", post_reap },
};
const size_t rq_snapshots_route_count = sizeof rq_snapshots_routes / sizeof *rq_snapshots_routes;
