/* JSON: answers made of yyjson documents, in rqlite's dress. */
#ifndef RAFTD_HTTP_JSON_H
#define RAFTD_HTTP_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <yyjson.h>

#include "raftd/http/server.h"

/* 200 with root, which is in doc; NULL: 500.  Frees doc. */
void rq_http_json(struct rq_http_response *response, yyjson_mut_doc *doc, const yyjson_mut_val *root, bool pretty);

/* RFC 3339, and Go's durations. */
void rq_http_put_time(yyjson_mut_doc *doc, yyjson_mut_val *in, const char *key, time_t t);
void rq_http_put_duration(yyjson_mut_doc *doc, yyjson_mut_val *in, const char *key, uint64_t ns);

#endif
