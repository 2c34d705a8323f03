#include "raftd/net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "raftd/ops/journal.h"

/* AES with 128 bits first: as good here, and a quarter faster. */
#define PRIORITY                                                                          \
    "NONE:+VERS-TLS1.3:+AEAD:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:+GROUP-X25519:" \
    "+GROUP-SECP256R1:+GROUP-SECP384R1:+SIGN-ALL:+CTYPE-X509:+COMP-NULL:+MAC-ALL:+KX-ALL:%SERVER_PRECEDENCE"

#define OWN_CERTIFICATE_SECONDS ((time_t)100 * 365 * 86400)

enum { CERT, KEY, CA, FILES };

/* What is looked at to see that a file is another. */
struct stamp {
    bool there;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
};

/* Read once, used by the channels that were opened meanwhile. */
struct credentials {
    atomic_uint refs;
    gnutls_certificate_credentials_t x509;
};

struct rq_tls {
    struct rq_tls_files files;
    gnutls_priority_t priority;
    gnutls_x509_privkey_t own_key; /* without -node-cert */
    gnutls_x509_crt_t own_cert;
    struct credentials *now;
    struct stamp stamps[FILES];
    atomic_bool reload;
};

struct rq_channel {
    gnutls_session_t session;
    struct credentials *credentials; /* owns a reference */
    struct rq_tls_transport transport;
    const struct rq_tls_files *files; /* of the rq_tls, which is there for the handshake */
    bool dials;
    char host[256];
};

static bool given(const char *flag)
{
    return flag != NULL && flag[0] != '\0';
}

static bool checks_servers(const struct rq_tls_files *f)
{
    return (given(f->cert) || given(f->ca_cert)) && !f->no_verify;
}

/* --- credentials -------------------------------------------------------------------------------------------------------- */

static void credentials_unref(struct credentials *c)
{
    if (c != NULL && atomic_fetch_sub(&c->refs, 1) == 1) {
        gnutls_certificate_free_credentials(c->x509);
        free(c);
    }
}

static bool make_own(struct rq_tls *t)
{
    static const unsigned char serial[] = { 1 };
    time_t now = time(NULL);
    return gnutls_x509_privkey_init(&t->own_key) == 0 && gnutls_x509_crt_init(&t->own_cert) == 0 &&
           gnutls_x509_privkey_generate(t->own_key, GNUTLS_PK_EDDSA_ED25519,
                                        GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_ED25519), 0) == 0 &&
           gnutls_x509_crt_set_version(t->own_cert, 3) == 0 && gnutls_x509_crt_set_key(t->own_cert, t->own_key) == 0 &&
           gnutls_x509_crt_set_serial(t->own_cert, serial, sizeof serial) == 0 &&
           gnutls_x509_crt_set_dn_by_oid(t->own_cert, GNUTLS_OID_X520_COMMON_NAME, 0, "raftd", 5) == 0 &&
           gnutls_x509_crt_set_activation_time(t->own_cert, now - 86400) == 0 &&
           gnutls_x509_crt_set_expiration_time(t->own_cert, now + OWN_CERTIFICATE_SECONDS) == 0 &&
           gnutls_x509_crt_sign2(t->own_cert, t->own_cert, t->own_key, GNUTLS_DIG_SHA512, 0) == 0;
}

static enum rq_err load(const struct rq_tls *t, struct credentials **ret, char text[RQ_TEXT_MAX + 1])
{
    const struct rq_tls_files *f = &t->files;
    struct credentials *c = calloc(1, sizeof *c);
    if (c == NULL || gnutls_certificate_allocate_credentials(&c->x509) != 0) {
        free(c);
        return RQ_NOMEM;
    }
    atomic_init(&c->refs, 1);
    int rc;
    if (given(f->cert)) {
        rc = gnutls_certificate_set_x509_key_file(c->x509, f->cert, f->key, GNUTLS_X509_FMT_PEM);
        if (rc < 0) {
            (void)snprintf(text, RQ_TEXT_MAX + 1, "certificate %s with key %s: %s", f->cert, f->key,
                           gnutls_strerror(rc));
            goto failed;
        }
    } else {
        rc = gnutls_certificate_set_x509_key(c->x509, (gnutls_x509_crt_t *)&t->own_cert, 1, t->own_key);
        if (rc < 0) {
            (void)snprintf(text, RQ_TEXT_MAX + 1, "own certificate: %s", gnutls_strerror(rc));
            goto failed;
        }
    }
    if (given(f->ca_cert)) {
        rc = gnutls_certificate_set_x509_trust_file(c->x509, f->ca_cert, GNUTLS_X509_FMT_PEM);
        if (rc <= 0) {
            (void)snprintf(text, RQ_TEXT_MAX + 1, "certificates of %s: %s", f->ca_cert,
                           rc < 0 ? gnutls_strerror(rc) : "there are none");
            goto failed;
        }
    } else if (checks_servers(f) || f->verify_client) {
        (void)gnutls_certificate_set_x509_system_trust(
            c->x509); /* none: then nobody passes the check, and is told so */
    }
    *ret = c;
    return RQ_OK;

failed:
    credentials_unref(c);
    return RQ_IO;
}

static void stamp_files(const struct rq_tls *t, struct stamp stamps[FILES])
{
    const char *paths[FILES] = { t->files.cert, t->files.key, t->files.ca_cert };
    memset(stamps, 0, FILES * sizeof *stamps);
    for (unsigned i = 0; i < FILES; i++) {
        struct stat st;
        if (given(paths[i]) && stat(paths[i], &st) == 0) {
            stamps[i].there = true;
            stamps[i].inode = st.st_ino;
            stamps[i].size = st.st_size;
            stamps[i].modified = st.st_mtim;
            stamps[i].changed = st.st_ctim;
        }
    }
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_stamps(const struct stamp a[FILES], const struct stamp b[FILES])
{
    for (unsigned i = 0; i < FILES; i++) {
        if (a[i].there != b[i].there || a[i].inode != b[i].inode || a[i].size != b[i].size ||
            !same_time(&a[i].modified, &b[i].modified) || !same_time(&a[i].changed, &b[i].changed)) {
            return false;
        }
    }
    return true;
}

/* A file may be changed after it was looked at and before it is read: then it is read once more than needed. */
static void look_at_files(struct rq_tls *t)
{
    struct stamp stamps[FILES];
    stamp_files(t, stamps);
    if (same_stamps(stamps, t->stamps) && !atomic_exchange(&t->reload, false)) {
        return;
    }
    memcpy(t->stamps, stamps, sizeof stamps);
    char text[RQ_TEXT_MAX + 1], quoted[RQ_TEXT_MAX + 1];
    struct credentials *c;
    text[0] = '\0';
    enum rq_err err = load(t, &c, text);
    if (err != RQ_OK) {
        rq_note(RQ_LEVEL_WARN, "changed certificates cannot be used, the former ones stay", "err=%s text=%s",
                rq_err_name(err), rq_quote(quoted, sizeof quoted, text));
        return;
    }
    credentials_unref(t->now);
    t->now = c;
    rq_note(RQ_LEVEL_INFO, "certificates between nodes read again", "cert=%s",
            given(t->files.cert) ? t->files.cert : "none");
}

enum rq_err rq_tls_new(const struct rq_tls_files *files, struct rq_tls **ret_tls, char text[RQ_TEXT_MAX + 1])
{
    struct rq_tls *t = calloc(1, sizeof *t);
    text[0] = '\0';
    if (t == NULL) {
        return RQ_NOMEM;
    }
    if (files != NULL) {
        t->files = *files;
    }
    enum rq_err err = RQ_NOMEM;
    if (gnutls_priority_init2(&t->priority, PRIORITY, NULL, 0) == 0 && make_own(t)) {
        stamp_files(t, t->stamps);
        err = load(t, &t->now, text);
    }
    if (err != RQ_OK) {
        rq_tls_free(t);
        return err;
    }
    *ret_tls = t;
    return RQ_OK;
}

void rq_tls_free(struct rq_tls *t)
{
    if (t != NULL) {
        credentials_unref(t->now);
        gnutls_x509_crt_deinit(t->own_cert);
        gnutls_x509_privkey_deinit(t->own_key);
        gnutls_priority_deinit(t->priority);
        free(t);
    }
}

void rq_tls_reload(struct rq_tls *t)
{
    atomic_store(&t->reload, true);
}

/* --- channel -------------------------------------------------------------------------------------------------------------- */

static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t bytes)
{
    struct rq_channel *c = ptr;
    ssize_t n = c->transport.receive(c->transport.ctx, data, bytes);
    if (n < 0) {
        gnutls_transport_set_errno(c->session, errno);
    }
    return n;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *data, size_t bytes)
{
    struct rq_channel *c = ptr;
    ssize_t n = c->transport.send(c->transport.ctx, data, bytes);
    if (n < 0) {
        gnutls_transport_set_errno(c->session, errno);
    }
    return n;
}

/* GnuTLS asks only to wait, which is never done here. */
static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
    (void)ptr, (void)ms;
    return 1;
}

static bool is_name(const char *host)
{
    uint8_t address[16];
    return host[0] != '\0' && inet_pton(AF_INET, host, address) != 1 && inet_pton(AF_INET6, host, address) != 1;
}

enum rq_err rq_channel_new(struct rq_tls *t, const char *host, const struct rq_tls_transport *transport,
                           struct rq_channel **ret_channel)
{
    struct rq_channel *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return RQ_NOMEM;
    }
    look_at_files(t);
    c->dials = host != NULL;
    c->transport = *transport;
    c->files = &t->files;
    unsigned flags =
        (c->dials ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS;
    if (gnutls_init(&c->session, flags) != 0) {
        free(c);
        return RQ_NOMEM;
    }
    c->credentials = t->now;
    atomic_fetch_add(&c->credentials->refs, 1);
    if (gnutls_priority_set(c->session, t->priority) != 0 ||
        gnutls_credentials_set(c->session, GNUTLS_CRD_CERTIFICATE, c->credentials->x509) != 0) {
        rq_channel_free(c);
        return RQ_NOMEM;
    }
    if (c->dials) {
        const char *name = given(c->files->verify_server_name) ? c->files->verify_server_name : host;
        (void)snprintf(c->host, sizeof c->host, "%s", name);
        if (is_name(c->host)) {
            (void)gnutls_server_name_set(c->session, GNUTLS_NAME_DNS, c->host, strlen(c->host)); /* a courtesy */
        }
    } else {
        /* Not required by the handshake, and without the list of authorities, upon which a client that has none of them would
         * keep back the certificate it has: so each can be told in words what is wrong with it. */
        gnutls_certificate_send_x509_rdn_sequence(c->session, 1);
        gnutls_certificate_server_set_request(c->session,
                                              c->files->verify_client ? GNUTLS_CERT_REQUEST : GNUTLS_CERT_IGNORE);
    }
    gnutls_handshake_set_timeout(c->session, GNUTLS_INDEFINITE_TIMEOUT); /* the owner has a clock */
    gnutls_transport_set_ptr(c->session, c);
    gnutls_transport_set_pull_function(c->session, pull);
    gnutls_transport_set_push_function(c->session, push);
    gnutls_transport_set_pull_timeout_function(c->session, pull_timeout);
    *ret_channel = c;
    return RQ_OK;
}

void rq_channel_free(struct rq_channel *c)
{
    if (c != NULL) {
        gnutls_deinit(c->session);
        credentials_unref(c->credentials);
        free(c);
    }
}

enum rq_err rq_channel_handshake(struct rq_channel *c, char text[RQ_TEXT_MAX + 1])
{
    int rc = gnutls_handshake(c->session);
    if (rc == 0) {
        return RQ_OK;
    }
    if (rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED || !gnutls_error_is_fatal(rc)) {
        return RQ_BUSY;
    }
    if (rc == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        const char *alert = gnutls_alert_get_name(gnutls_alert_get(c->session));
        (void)snprintf(text, RQ_TEXT_MAX + 1, "TLS: the other side says: %s", alert != NULL ? alert : "no");
    } else {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "TLS: %s", gnutls_strerror(rc));
        (void)gnutls_alert_send_appropriate(c->session, rc); /* it is over in any case */
    }
    return RQ_PROTOCOL;
}

static enum rq_err check_against_ca(struct rq_channel *c, const char *host, const char *whose,
                                    char text[RQ_TEXT_MAX + 1])
{
    gnutls_typed_vdata_st data[2] = {
        { .type = GNUTLS_DT_KEY_PURPOSE_OID,
          .data = (unsigned char *)(c->dials ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT) },
        { .type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)host },
    };
    unsigned status = 0;
    int rc = gnutls_certificate_verify_peers(c->session, data, host != NULL ? 2 : 1, &status);
    if (rc == GNUTLS_E_NO_CERTIFICATE_FOUND) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "%s did not provide a certificate", whose);
        return RQ_PERM;
    }
    if (rc != 0) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "the certificate of %s: %s", whose, gnutls_strerror(rc));
        return RQ_PERM;
    }
    if (status == 0) {
        return RQ_OK;
    }
    gnutls_datum_t words = { 0 };
    (void)gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &words, 0);
    (void)snprintf(text, RQ_TEXT_MAX + 1, "the certificate of %s%s%s: %s", whose, host != NULL ? " for " : "",
                   host != NULL ? host : "", words.data != NULL ? (const char *)words.data : "is not accepted");
    gnutls_free(words.data);
    return RQ_PERM;
}

static bool has_common_name(struct rq_channel *c, const char *wanted)
{
    unsigned count = 0;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(c->session, &count);
    gnutls_x509_crt_t leaf;
    if (list == NULL || count == 0 || gnutls_x509_crt_init(&leaf) != 0) {
        return false;
    }
    char name[256];
    size_t bytes = sizeof name;
    bool same = gnutls_x509_crt_import(leaf, &list[0], GNUTLS_X509_FMT_DER) == 0 &&
                gnutls_x509_crt_get_dn_by_oid(leaf, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &bytes) == 0 &&
                bytes == strlen(wanted) && memcmp(name, wanted, bytes) == 0;
    gnutls_x509_crt_deinit(leaf);
    return same;
}

enum rq_err rq_channel_verify(struct rq_channel *c, char text[RQ_TEXT_MAX + 1])
{
    const struct rq_tls_files *f = c->files;
    if (c->dials) {
        return checks_servers(f) ? check_against_ca(c, c->host, "the server", text) : RQ_OK;
    }
    if (!f->verify_client) {
        return RQ_OK;
    }
    enum rq_err err = check_against_ca(c, NULL, "the client", text);
    if (err == RQ_OK && given(f->verify_common_name) && !has_common_name(c, f->verify_common_name)) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "client did not provide any valid certificate that matches CN \"%s\"",
                       f->verify_common_name);
        err = RQ_PERM;
    }
    return err;
}

enum rq_err rq_channel_exporter(struct rq_channel *c, uint8_t out[RQ_PEER_EXPORTER_BYTES])
{
    int rc = gnutls_prf_rfc5705(c->session, sizeof RQ_PEER_EXPORTER_LABEL - 1, RQ_PEER_EXPORTER_LABEL, 0, NULL,
                                RQ_PEER_EXPORTER_BYTES, (char *)out);
    return rc == 0 ? RQ_OK : RQ_NOMEM;
}

enum rq_err rq_channel_send(struct rq_channel *c, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes > 0) {
        ssize_t n = gnutls_record_send(c->session, at, bytes);
        if (n <= 0) {
            return RQ_AWAY;
        }
        at += n;
        bytes -= (size_t)n;
    }
    return RQ_OK;
}

enum rq_err rq_channel_receive(struct rq_channel *c, void *data, size_t bytes, size_t *ret_bytes)
{
    ssize_t n = gnutls_record_recv(c->session, data, bytes);
    if (n > 0) {
        *ret_bytes = (size_t)n;
        return RQ_OK;
    }
    /* No renegotiation in TLS 1.3, and nobody here asks again for certificates: what else is not fatal was dealt with. */
    return n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED ? RQ_BUSY : RQ_AWAY;
}
