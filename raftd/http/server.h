/* HTTP server: libmicrohttpd behind a request and a response of our own; no handler sees its types.
 *
 * Handlers run on its threads.  Path and query are decoded here, strictly: libmicrohttpd changes malformed input in silence. */
#ifndef RAFTD_HTTP_SERVER_H
#define RAFTD_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"

#define RQ_HTTP_PARAMS_MAX       32
#define RQ_HTTP_TARGET_BYTES_MAX 16384u
#define RQ_HTTP_BODY_BYTES_MAX   (1u << 20)

struct rq_http_param {
    const char *key, *value; /* borrow from the request; value "" when there was no '=' */
};

struct rq_http_request {
    const char *method;
    const char *path; /* decoded */
    struct rq_http_param params[RQ_HTTP_PARAMS_MAX];
    size_t param_count;
};

struct rq_http_response {
    unsigned status;
    const char *content_type; /* NULL: none */
    struct rq_bytes body;
};

struct rq_http_route {
    const char *path;
    bool prefix;         /* everything that begins so, as rqlite does */
    const char *methods; /* "GET, DELETE": also what Allow says.  OPTIONS is answered for every route */
    void (*handle)(void *ctx, const struct rq_http_request *request, struct rq_http_response *response);
};

struct rq_http_server;

struct rq_http_config {
    const char *address; /* host:port */
    const char *version; /* X-Rqlite-Version */
    const struct rq_http_route *routes;
    size_t route_count;
    void *ctx; /* for the handlers */
};

/* text: why not. */
enum rq_err rq_http_new(const struct rq_http_config *config, struct rq_http_server **ret_server, char text[256]);
void rq_http_free(struct rq_http_server *s); /* lets what is being answered finish */

/* The first value of key; NULL: not there. */
const char *rq_http_param(const struct rq_http_request *request, const char *key);
/* Body and type; without memory the answer is an empty 500. */
void rq_http_text(struct rq_http_response *response, unsigned status, const char *text);

/* Splits and decodes a request's target in place.  False: not legal URL encoding, or too many parameters. */
bool rq_http_split_target(char *target, struct rq_http_request *request);

#endif
