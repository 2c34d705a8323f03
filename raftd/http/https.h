/* HTTPS: the certificate that the server shows, and what it wants of its clients; rqlited's -http-cert and its family.
 *
 * TLS 1.2 and 1.3.  Certificate and key are looked at for each connection and read again when they have changed; what cannot be
 * read then is said once, and the last good stays. */
#ifndef RAFTD_HTTP_HTTPS_H
#define RAFTD_HTTP_HTTPS_H

#include <stdbool.h>

#include "raftd/wire/err.h"

struct rq_http_tls_files {
    const char *cert, *key, *ca_cert; /* "": none; without ca_cert the system's authorities count */
    bool verify_client;
    const char *verify_common_name; /* "": any */
};

struct rq_https;
struct MHD_Connection; /* microhttpd.h */

/* Borrows files.  IO with words. */
enum rq_err rq_https_new(const struct rq_http_tls_files *files, struct rq_https **ret_https, char text[256]);
void rq_https_free(struct rq_https *h); /* after the server */

/* For MHD_OPTION_HTTPS_CERT_CALLBACK and MHD_OPTION_HTTPS_PRIORITIES. */
void *rq_https_certificate_callback(void);
extern const char rq_https_priorities[];
/* For MHD_OPTION_NOTIFY_CONNECTION: before the handshake. */
void rq_https_begin(struct rq_https *h, struct MHD_Connection *connection);

#endif
