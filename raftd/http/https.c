#include "raftd/http/https.h"

#include <assert.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "raftd/ops/journal.h"

#define CHAIN_MAX 16u

const char rq_https_priorities[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

/* A handshake may still use what a newer one has replaced: each lives as long as the server.  There is one for each renewal. */
struct pair {
    struct pair *older;
    gnutls_pcert_st chain[CHAIN_MAX];
    unsigned chain_count;
    gnutls_privkey_t key;
};

struct seen {
    struct timespec mtime;
    ino_t inode;
};

struct rq_https {
    const struct rq_http_tls_files *files;
    gnutls_x509_trust_list_t trusted; /* NULL: clients need no certificate */
    pthread_mutex_t lock;
    struct pair *pair; /* guarded by lock, as what follows */
    struct seen cert_seen, key_seen;
};

/* --- certificate and key -------------------------------------------------------------------------------------------------- */

static void pair_free(struct pair *p)
{
    for (unsigned i = 0; i < p->chain_count; i++) {
        gnutls_pcert_deinit(&p->chain[i]);
    }
    if (p->key != NULL) {
        gnutls_privkey_deinit(p->key);
    }
    free(p);
}

/* A GnuTLS code; *ret_file: what it is about. */
static int read_pair(const struct rq_http_tls_files *files, struct pair *p, const char **ret_file)
{
    gnutls_datum_t data;
    unsigned count = CHAIN_MAX;
    *ret_file = files->cert;
    int code = gnutls_load_file(files->cert, &data);
    if (code >= 0) {
        code = gnutls_pcert_list_import_x509_raw(p->chain, &count, &data, GNUTLS_X509_FMT_PEM, 0);
        gnutls_free(data.data);
    }
    if (code < 0) {
        return code;
    }
    p->chain_count = count;
    *ret_file = files->key;
    code = gnutls_load_file(files->key, &data);
    if (code >= 0) {
        code = gnutls_privkey_init(&p->key);
        if (code >= 0) {
            code = gnutls_privkey_import_x509_raw(p->key, &data, GNUTLS_X509_FMT_PEM, NULL, 0);
        }
        gnutls_memset(data.data, 0, data.size);
        gnutls_free(data.data);
    }
    return code;
}

/* Is the key that of the certificate? */
static int check_pair(const struct pair *p)
{
    gnutls_pubkey_t own;
    unsigned char a[64], b[64];
    size_t a_bytes = sizeof a, b_bytes = sizeof b;
    int code = gnutls_pubkey_init(&own);
    if (code < 0) {
        return code;
    }
    code = gnutls_pubkey_import_privkey(own, p->key, 0, 0);
    code = code < 0 ? code : gnutls_pubkey_get_key_id(own, 0, a, &a_bytes);
    code = code < 0 ? code : gnutls_pubkey_get_key_id(p->chain[0].pubkey, 0, b, &b_bytes);
    gnutls_pubkey_deinit(own);
    if (code >= 0 && (a_bytes != b_bytes || memcmp(a, b, a_bytes) != 0)) {
        code = GNUTLS_E_CERTIFICATE_KEY_MISMATCH;
    }
    return code;
}

static bool is_seen(const char *path, struct seen *seen)
{
    struct stat st = { 0 };
    (void)stat(path, &st); /* not there: zeros, and reading says so */
    const bool same = st.st_ino == seen->inode && st.st_mtim.tv_sec == seen->mtime.tv_sec &&
                      st.st_mtim.tv_nsec == seen->mtime.tv_nsec;
    *seen = (struct seen){ st.st_mtim, st.st_ino };
    return same;
}

/* Lock held, or not shared yet. */
static enum rq_err refresh(struct rq_https *h, char text[256])
{
    const bool cert_same = is_seen(h->files->cert, &h->cert_seen), key_same = is_seen(h->files->key, &h->key_seen);
    if (h->pair != NULL && cert_same && key_same) {
        return RQ_OK;
    }
    const char *file = h->files->cert;
    struct pair *p = calloc(1, sizeof *p);
    int code = p != NULL ? read_pair(h->files, p, &file) : GNUTLS_E_MEMORY_ERROR;
    code = code < 0 ? code : check_pair(p);
    if (code < 0) {
        (void)snprintf(text, 256, "%.150s: %.90s", file, gnutls_strerror(code));
        if (p != NULL) {
            pair_free(p);
        }
        return RQ_IO;
    }
    p->older = h->pair;
    h->pair = p;
    return RQ_OK;
}

static int on_certificate_wanted(gnutls_session_t session, const gnutls_datum_t *authorities, int authority_count,
                                 const gnutls_pk_algorithm_t *algorithms, int algorithm_count,
                                 gnutls_pcert_st **ret_chain, unsigned *ret_count, gnutls_privkey_t *ret_key)
{
    struct rq_https *h = gnutls_db_get_ptr(session);
    char text[256], quoted[512];
    (void)authorities;
    (void)authority_count;
    (void)algorithms;
    (void)algorithm_count;
    pthread_mutex_lock(&h->lock);
    if (refresh(h, text) != RQ_OK) {
        rq_note(RQ_LEVEL_ERROR, "the HTTPS certificate has changed and is no good: the former is shown", "why=%s",
                rq_quote(quoted, sizeof quoted, text));
    }
    *ret_chain = h->pair->chain;
    *ret_count = h->pair->chain_count;
    *ret_key = h->pair->key;
    pthread_mutex_unlock(&h->lock);
    return 0;
}

void *rq_https_certificate_callback(void)
{
    gnutls_certificate_retrieve_function2 *callback = on_certificate_wanted;
    void *ret;
    static_assert(sizeof ret == sizeof callback, "libmicrohttpd takes it as a pointer");
    memcpy(&ret, &callback, sizeof ret);
    return ret;
}

/* --- clients -------------------------------------------------------------------------------------------------------------- */

static bool has_name(gnutls_x509_crt_t crt, const char *wanted)
{
    char name[256];
    size_t bytes = sizeof name;
    return wanted[0] == '\0' ||
           (gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &bytes) >= 0 &&
            bytes == strlen(wanted) && memcmp(name, wanted, bytes) == 0);
}

/* In the handshake; not 0: it fails. */
static int on_client_certificate(gnutls_session_t session)
{
    struct rq_https *h = gnutls_db_get_ptr(session);
    gnutls_x509_crt_t chain[CHAIN_MAX];
    unsigned count = 0, have = 0, status = GNUTLS_CERT_INVALID;
    const gnutls_datum_t *sent = gnutls_certificate_get_peers(session, &count);
    bool good = sent != NULL && count > 0 && count <= CHAIN_MAX;
    for (; good && have < count; have++) {
        if (gnutls_x509_crt_init(&chain[have]) < 0) {
            good = false;
            break;
        }
        if (gnutls_x509_crt_import(chain[have], &sent[have], GNUTLS_X509_FMT_DER) < 0) {
            gnutls_x509_crt_deinit(chain[have]);
            good = false;
            break;
        }
    }
    if (good) {
        gnutls_typed_vdata_st for_clients = { .type = GNUTLS_DT_KEY_PURPOSE_OID,
                                              .data = (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT };
        good = gnutls_x509_trust_list_verify_crt2(h->trusted, chain, count, &for_clients, 1, 0, &status, NULL) >= 0 &&
               status == 0 && has_name(chain[0], h->files->verify_common_name);
    }
    for (unsigned i = 0; i < have; i++) {
        gnutls_x509_crt_deinit(chain[i]);
    }
    return good ? 0 : GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
}

void rq_https_begin(struct rq_https *h, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (info == NULL || info->tls_session == NULL) {
        rq_fatal("a connection without TLS where there has to be TLS", RQ_MISUSE);
    }
    gnutls_session_t session = (gnutls_session_t)info->tls_session;
    gnutls_db_set_ptr(session, h); /* the pointer that libmicrohttpd leaves free: no sessions are stored */
    if (h->trusted != NULL) {
        gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
        gnutls_session_set_verify_function(session, on_client_certificate);
    }
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

static enum rq_err trust(struct rq_https *h, char text[256])
{
    const char *file = h->files->ca_cert;
    if (gnutls_x509_trust_list_init(&h->trusted, 0) < 0) {
        return RQ_NOMEM;
    }
    const int count = file[0] != '\0'
                          ? gnutls_x509_trust_list_add_trust_file(h->trusted, file, NULL, GNUTLS_X509_FMT_PEM, 0, 0)
                          : gnutls_x509_trust_list_add_system_trust(h->trusted, 0, 0);
    if (count <= 0 && file[0] != '\0') {
        (void)snprintf(text, 256, "%.150s: %.90s", file,
                       count < 0 ? gnutls_strerror(count) : "there is no certificate in it");
        return RQ_IO;
    }
    return RQ_OK;
}

enum rq_err rq_https_new(const struct rq_http_tls_files *files, struct rq_https **ret_https, char text[256])
{
    struct rq_https *h = calloc(1, sizeof *h);
    (void)snprintf(text, 256, "out of memory");
    if (h == NULL) {
        return RQ_NOMEM;
    }
    pthread_mutex_init(&h->lock, NULL);
    h->files = files;
    enum rq_err err = refresh(h, text);
    if (err == RQ_OK && files->verify_client) {
        err = trust(h, text);
    }
    if (err != RQ_OK) {
        rq_https_free(h);
        return err;
    }
    *ret_https = h;
    return RQ_OK;
}

void rq_https_free(struct rq_https *h)
{
    if (h == NULL) {
        return;
    }
    for (struct pair *p = h->pair, *older; p != NULL; p = older) {
        older = p->older;
        pair_free(p);
    }
    if (h->trusted != NULL) {
        gnutls_x509_trust_list_deinit(h->trusted, 1);
    }
    pthread_mutex_destroy(&h->lock);
    free(h);
}
