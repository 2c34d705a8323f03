/* HTTP server: libmicrohttpd behind a request and a response of our own; no handler sees its types.
 *
 * An endpoint family is a table of routes and what its handlers need; raftd/main.c lists the families.  In the order of rqlited:
 * OPTIONS is answered, then a bad query string, then a path that nobody has (404), then who may not do it (401), then the method (405),
 * then the handler is called.
 *
 * Handlers run on the server's few threads and must not wait there, but where rq_http_may_linger() says so.  What cannot be answered
 * yet is suspended, and resumed by whoever has brought it on; then the handler is called again, on such a thread.  Those of a route
 * that `waits` get a thread of their own.  Of these there are so many at once, and as many others whose body or answer comes or goes
 * piece by piece, however much it is (rq_http_take, rq_http_send): clients that are slow at that keep nobody from hearing how this
 * node is.
 *
 * Path and query are decoded here, strictly: libmicrohttpd changes malformed input in silence.  Bodies are whole when a handler is
 * called; together they have RQ_HTTP_BODIES_BYTES_MAX, but who sends no more than RQ_HTTP_BODY_SMALL_BYTES is not kept out by those
 * who send much, and take their time. */
#ifndef RAFTD_HTTP_SERVER_H
#define RAFTD_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"

#define RQ_HTTP_PARAMS_MAX       32
#define RQ_HTTP_TARGET_BYTES_MAX 24576u
#define RQ_HTTP_BODY_BYTES_MAX   (1u << 20)    /* of one request, where the route does not allow for more */
#define RQ_HTTP_BODIES_BYTES_MAX (1024u << 20) /* of all that are being answered */
#define RQ_HTTP_BODY_SMALL_BYTES (16u << 10)
#define RQ_HTTP_TEXT_MAX         512u
#define RQ_HTTP_JSON             "application/json; charset=utf-8"

struct rq_http_param {
    const char *key, *value; /* borrow from the request; value "" when there was no '=' */
};

struct rq_http_request {
    const char *method;
    const char *path;   /* decoded */
    const char *target; /* path and query as they came */
    struct rq_http_param params[RQ_HTTP_PARAMS_MAX];
    size_t param_count;
    const char *content_type;     /* NULL: not given */
    const char *content_encoding; /* NULL: the body is as it is */
    const char *last_event_id;    /* NULL: not given */
    const uint8_t *body;          /* whole; NULL if empty, or to be taken */
    size_t body_bytes;
};

#define RQ_HTTP_PULL_END (-1)

struct rq_http_response {
    unsigned status;
    const char *content_type;  /* NULL: none */
    const char *cache_control; /* NULL: none */
    /* A file that comes before the body: so many bytes of it, from its beginning; 0: there is none.  Owns. */
    int file;
    uint64_t file_bytes;
    struct rq_bytes body;
    /* Instead of a body: the next bytes of it, at most max; 0: none before rq_http_wake(); RQ_HTTP_PULL_END.  On the server's threads:
     * must not wait.  An answer that goes on for hours holds no thread so. */
    ssize_t (*pull)(void *progress, void *to, size_t max);
    const char *served_by;          /* X-Rqlite-Served-By; borrows for ever; NULL: none */
    char *location;                 /* owns: of a redirection; NULL: none */
    bool broken;                    /* of what was sent piece by piece the end is missing: the client is to notice */
    void *progress;                 /* the handler's, from one call to the next of the same request */
    void (*forget)(void *progress); /* called when the request has ended; NULL: nothing is kept */
};

struct rq_http_route {
    const char *path;
    bool prefix;         /* everything that begins so, as rqlite does */
    bool waits;          /* the handler may take its time */
    const char *methods; /* "GET, DELETE": also what Allow says; "*": any */
    const char *perm; /* of the credentials file; a path's first route decides when none has the method; NULL: none */
    void (*handle)(void *ctx, const struct rq_http_request *request, struct rq_http_response *response);
    bool takes_body;      /* and waits: the body comes by rq_http_take(), however much it is */
    bool sends;           /* and waits: may use rq_http_send(), however much it is */
    size_t body_max;      /* 0: RQ_HTTP_BODY_BYTES_MAX */
    const char *perm_too; /* is needed as well; NULL: none */
    const char *type;     /* Content-Type of its answers without a body, which rqlited gives them as well; NULL: none */
};

struct rq_http_family {
    const struct rq_http_route *routes;
    size_t count;
    void *ctx; /* for the handlers */
};

struct rq_http_server;
struct rq_http_tls_files; /* https.h */
struct rq_credentials;    /* credentials.h */

struct rq_http_config {
    const char *address;                   /* host:port */
    const char *socket;                    /* path of a unix socket as well; "" or NULL: none */
    const char *version;                   /* X-Rqlite-Version */
    const char *allow_origin;              /* Access-Control-Allow-Origin; "" or NULL: none */
    const struct rq_http_tls_files *tls;   /* borrows; NULL: plain HTTP */
    struct rq_credentials *credentials;    /* borrows; NULL: everybody may do everything */
    const struct rq_http_family *families; /* borrows */
    size_t family_count;
    size_t bodies_max; /* 0: RQ_HTTP_BODIES_BYTES_MAX */
};

/* text: why not. */
enum rq_err rq_http_new(const struct rq_http_config *config, struct rq_http_server **ret_server, char text[256]);
/* No new requests.  Lets what is being answered finish for a few seconds; what takes longer is left behind, the process ends. */
void rq_http_free(struct rq_http_server *s);

/* The first value of key; NULL: not there. */
const char *rq_http_param(const struct rq_http_request *request, const char *key);
bool rq_http_has(const struct rq_http_request *request, const char *key);
/* `timeout`, or 30 s. */
unsigned rq_http_timeout_ms(const struct rq_http_request *request);
/* Body and type; without memory the answer is an empty 500. */
void rq_http_text(struct rq_http_response *response, unsigned status, const char *text);
/* 301 to the same target of another server; base: "http://host:port". */
void rq_http_redirect(const struct rq_http_request *request, struct rq_http_response *response, const char *base);

/* The same with another status: 307 keeps method and body. */
void rq_http_redirect_as(const struct rq_http_request *request, struct rq_http_response *response, unsigned status,
                         const char *base);
/* Has whoever asks this perm of the credentials file as well?  In a handler. */
bool rq_http_may(const struct rq_http_response *response, const char *perm);

/* Handler of a route that does not wait: there is no answer yet, and what it returns with is none.  Once rq_http_resume() was called,
 * which may be before it has returned, it is called again. */
void rq_http_suspend(struct rq_http_response *response);
/* Any thread; once for each suspension. */
void rq_http_resume(struct rq_http_response *response);
/* Handler of a route that does not wait.  True: in this call it may wait for a disk all the same.  Its thread serves no other client,
 * who comes meanwhile gets another one, and that one is not told so. */
bool rq_http_may_linger(struct rq_http_response *response);

/* While it is suspended: has the client closed its side?  Then it will have no answer.  Any thread. */
bool rq_http_has_left(const struct rq_http_response *response);

/* There may be something to pull again.  Any thread, until forget() has returned. */
void rq_http_wake(struct rq_http_response *response);

/* So much more memory is taken for the request's body; given back when the request has ended.  False: there is too much of that, and the
 * request is to be refused.  While the request is not answered. */
bool rq_http_charge(struct rq_http_response *response, size_t bytes);

/* The next piece of the answer; status and headers are as response says at the first one.  Waits while the client is slow.  AWAY:
 * it has gone, or the server stops.  Only in a route that sends. */
enum rq_err rq_http_send(struct rq_http_response *response, const void *data, size_t bytes);
/* The same, as much of it as the client takes within wait_ms. */
enum rq_err rq_http_offer(struct rq_http_response *response, const void *data, size_t bytes, uint64_t wait_ms,
                          size_t *ret_taken);
bool rq_http_has_sent(const struct rq_http_response *response); /* a piece: status and headers are fixed */

/* The next piece of the request's body; 0 bytes: it is over.  Waits while the client is slow.  AWAY: it has gone.  Only in a route that
 * takes the body, and before the first rq_http_send(). */
enum rq_err rq_http_take(struct rq_http_response *response, void *to, size_t max, size_t *ret_bytes);

/* Behind the scheme and the authority, if a target has them. */
const char *rq_http_origin_form(const char *target);
/* Splits and decodes a request's target in place.  False with words: not legal URL encoding, or too many parameters. */
bool rq_http_split_target(char *target, struct rq_http_request *request, char text[RQ_HTTP_TEXT_MAX]);
/* Durations and numbers are such; words as rqlite's otherwise. */
bool rq_http_check_params(const struct rq_http_request *request, char text[RQ_HTTP_TEXT_MAX]);

#endif
