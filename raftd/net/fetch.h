/* Fetch: one HTTP request as a client, by libcurl; the only file that knows it.
 *
 * The library is loaded when something is fetched for the first time: with all that it depends on it takes 4 MB of memory, for what
 * most nodes never do. */
#ifndef RAFTD_NET_FETCH_H
#define RAFTD_NET_FETCH_H

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"

struct rq_fetch {
    const char *method, *url;
    const char *body;                     /* JSON; NULL: none */
    const char *user, *password;          /* "" or NULL: nobody */
    const char *ca_cert;                  /* "": the system's */
    const char *client_cert, *client_key; /* "": none */
    unsigned timeout_ms;
};

/* OK: there was an answer, whatever its status.  AWAY with words: none.  TOOBIG past the maximum of ret_body.  Blocks. */
enum rq_err rq_fetch(const struct rq_fetch *f, unsigned *ret_status, struct rq_bytes *ret_body, char text[256]);

#endif
