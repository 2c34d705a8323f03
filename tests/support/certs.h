/* Certs: a certificate authority and what it signs, as files. */
#ifndef TESTS_SUPPORT_CERTS_H
#define TESTS_SUPPORT_CERTS_H

#include <gnutls/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct cert {
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
};

static inline bool cert_write(const char *path, const gnutls_datum_t *text)
{
    FILE *f = fopen(path, "w");
    bool good = f != NULL && fwrite(text->data, 1, text->size, f) == text->size;
    return f != NULL && fclose(f) == 0 && good;
}

/* Signed by ca; NULL: signed by itself, and an authority.  dns, ip: alternative names, or NULL. */
static inline bool cert_make(struct cert *c, const struct cert *ca, const char *common_name, const char *dns,
                             const char *ip4)
{
    static unsigned char serial = 1;
    time_t now = time(NULL);
    bool good =
        gnutls_x509_privkey_init(&c->key) == 0 && gnutls_x509_crt_init(&c->crt) == 0 &&
        gnutls_x509_privkey_generate(c->key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0) == 0;
    serial++;
    good = good && gnutls_x509_crt_set_version(c->crt, 3) == 0 && gnutls_x509_crt_set_key(c->crt, c->key) == 0 &&
           gnutls_x509_crt_set_serial(c->crt, &serial, 1) == 0 &&
           gnutls_x509_crt_set_dn_by_oid(c->crt, GNUTLS_OID_X520_COMMON_NAME, 0, common_name,
                                         (unsigned)strlen(common_name)) == 0 &&
           gnutls_x509_crt_set_activation_time(c->crt, now - 60) == 0 &&
           gnutls_x509_crt_set_expiration_time(c->crt, now + 3600) == 0;
    if (ca == NULL) {
        good = good && gnutls_x509_crt_set_basic_constraints(c->crt, 1, -1) == 0 &&
               gnutls_x509_crt_set_key_usage(c->crt, GNUTLS_KEY_KEY_CERT_SIGN) == 0;
    }
    if (dns != NULL) {
        good = good && gnutls_x509_crt_set_subject_alt_name(c->crt, GNUTLS_SAN_DNSNAME, dns, (unsigned)strlen(dns),
                                                            GNUTLS_FSAN_APPEND) == 0;
    }
    if (ip4 != NULL) {
        good =
            good && gnutls_x509_crt_set_subject_alt_name(c->crt, GNUTLS_SAN_IPADDRESS, ip4, 4, GNUTLS_FSAN_APPEND) == 0;
    }
    const struct cert *by = ca != NULL ? ca : c;
    return good && gnutls_x509_crt_sign2(c->crt, by->crt, by->key, GNUTLS_DIG_SHA256, 0) == 0;
}

static inline bool cert_save(const struct cert *c, const char *cert_path, const char *key_path)
{
    gnutls_datum_t text = { 0 };
    bool good = gnutls_x509_crt_export2(c->crt, GNUTLS_X509_FMT_PEM, &text) == 0 && cert_write(cert_path, &text);
    gnutls_free(text.data);
    if (good && key_path != NULL) {
        text.data = NULL;
        good = gnutls_x509_privkey_export2(c->key, GNUTLS_X509_FMT_PEM, &text) == 0 && cert_write(key_path, &text);
        gnutls_free(text.data);
    }
    return good;
}

static inline void cert_fini(struct cert *c)
{
    gnutls_x509_crt_deinit(c->crt);
    gnutls_x509_privkey_deinit(c->key);
}

#endif
