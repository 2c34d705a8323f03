#include "raftd/http/json.h"

#include <stdlib.h>

#include "raftd/run/duration.h"

void rq_http_json(struct rq_http_response *response, yyjson_mut_doc *doc, const yyjson_mut_val *root, bool pretty)
{
    size_t bytes = 0;
    char *text = root == NULL ? NULL : yyjson_mut_val_write(root, pretty ? YYJSON_WRITE_PRETTY : 0, &bytes);
    response->status = 200;
    response->content_type = RQ_HTTP_JSON;
    if (text == NULL || rq_bytes_put(&response->body, text, bytes) != RQ_OK) {
        response->status = 500;
        response->content_type = NULL;
    }
    free(text);
    yyjson_mut_doc_free(doc);
}

void rq_http_put_time(yyjson_mut_doc *doc, yyjson_mut_val *in, const char *key, time_t t)
{
    char text[32];
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    yyjson_mut_obj_add_strcpy(doc, in, key, text);
}

void rq_http_put_duration(yyjson_mut_doc *doc, yyjson_mut_val *in, const char *key, uint64_t ns)
{
    char text[RQ_DURATION_TEXT];
    rq_format_duration(ns, text);
    yyjson_mut_obj_add_strcpy(doc, in, key, text);
}
