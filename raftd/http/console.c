#include "raftd/http/console.h"

#include <stdio.h>
#include <string.h>

#include "raftd/run/metrics.h"

/* console.html, by embed.py. */
extern const unsigned char rq_console_page[];
extern const size_t rq_console_page_bytes;

static void lead_there(struct rq_http_response *response, unsigned status, const char *what)
{
    char body[128];
    (void)snprintf(body, sizeof body, "<a href=\"/console/\">%s</a>.\n\n", what);
    rq_http_text(response, status, body);
    response->content_type = "text/html; charset=utf-8";
    response->location = strdup("/console/");
    if (response->location == NULL) {
        response->status = 500;
    }
}

static void get_root(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    (void)ctx;
    (void)request;
    lead_there(response, 302, "Found");
}

static void get_console(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    (void)ctx;
    if (strcmp(request->path, "/console") == 0) {
        lead_there(response, 301, "Moved Permanently");
    } else if (strcmp(request->path, "/console/") != 0) {
        rq_http_text(response, 404, "404 page not found\n");
    } else {
        RQ_COUNT(http, ui);
        response->status = rq_bytes_put(&response->body, rq_console_page, rq_console_page_bytes) == RQ_OK ? 200 : 500;
        response->content_type = "text/html; charset=utf-8";
    }
}

const struct rq_http_route rq_console_routes[] = {
    { "/", false, false, "GET", NULL, get_root },
    { "/console", true, false, "GET", "ui", get_console },
};
const size_t rq_console_route_count = sizeof rq_console_routes / sizeof *rq_console_routes;
