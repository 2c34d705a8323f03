/* TLS: credentials of the connections between nodes, and one end of a channel.  The only files that know GnuTLS are this and node_key.
 *
 * TLS 1.3 alone.  Without -node-cert the channel has a certificate made from nothing, and proves nothing: the keys of the nodes
 * do (node_key.h).  With it, that certificate is shown, and the other's is checked as rqlited checks it:
 *
 *   dialling    the server's certificate against -node-ca-cert, else the system's; and its name: -node-verify-server-name, else the
 *               host of the address.  Not with -node-no-verify; not if neither -node-cert nor -node-ca-cert is given.
 *   dialled     with -node-verify-client: a client certificate against the same, and -node-verify-common-name its exact common name
 *
 * Files that have changed are read again for the next connection; what cannot be read is said once, and the last good stays. */
#ifndef RAFTD_NET_TLS_H
#define RAFTD_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "raftd/wire/err.h"
#include "raftd/wire/peer.h"

/* The -node-* flags; NULL or "" is not given. */
struct rq_tls_files {
    const char *cert, *key, *ca_cert;
    bool verify_client, no_verify;
    const char *verify_server_name, *verify_common_name;
};

struct rq_tls;

/* Borrows files.  IO or PERM with words: a file that is not what it should be. */
enum rq_err rq_tls_new(const struct rq_tls_files *files, struct rq_tls **ret_tls, char text[RQ_TEXT_MAX + 1]);
void rq_tls_free(struct rq_tls *t); /* channels may outlive it */
void rq_tls_reload(struct rq_tls *t);

/* One end.  It moves ciphertext by these two, which never block: the number of bytes, 0 at the end of the stream, or -1 with errno
 * (EAGAIN).  send takes all or fails for good. */
struct rq_tls_transport {
    void *ctx;
    ssize_t (*receive)(void *ctx, void *data, size_t bytes);
    ssize_t (*send)(void *ctx, const void *data, size_t bytes);
};

struct rq_channel;

/* host: for a dialler, of the address dialled; NULL: this is the dialled end. */
enum rq_err rq_channel_new(struct rq_tls *t, const char *host, const struct rq_tls_transport *transport,
                           struct rq_channel **ret_channel);
void rq_channel_free(struct rq_channel *c);

/* BUSY: waits for bytes.  Else OK, or it failed with words. */
enum rq_err rq_channel_handshake(struct rq_channel *c, char text[RQ_TEXT_MAX + 1]);
/* After the handshake: is the other's certificate what the flags ask for?  PERM with words that the other side is told. */
enum rq_err rq_channel_verify(struct rq_channel *c, char text[RQ_TEXT_MAX + 1]);
/* Bytes that only the two ends of this channel can know. */
enum rq_err rq_channel_exporter(struct rq_channel *c, uint8_t out[RQ_PEER_EXPORTER_BYTES]);

/* One thread may send while another receives.  A record holds up to RQ_CHANNEL_RECORD_MAX bytes. */
#define RQ_CHANNEL_RECORD_MAX 16384u
enum rq_err rq_channel_send(struct rq_channel *c, const void *data, size_t bytes);
/* BUSY: nothing there; AWAY: the end, or broken. */
enum rq_err rq_channel_receive(struct rq_channel *c, void *data, size_t bytes, size_t *ret_bytes);

#endif
