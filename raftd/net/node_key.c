#include "raftd/net/node_key.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/sealed_text.h"

#define NAME           "key"
#define FILE_BYTES_MAX 1024u
#define HEX_BYTES      ((size_t)2 * RQ_NODE_KEY_BYTES)
#define BODY_BYTES     (sizeof "public=\nprivate=\n" + 2 * HEX_BYTES) /* with its NUL */

struct rq_node_key {
    gnutls_privkey_t key;
    uint8_t public_key[RQ_NODE_KEY_BYTES];
};

static void to_hex(char text[HEX_BYTES + 1], const uint8_t *data)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < RQ_NODE_KEY_BYTES; i++) {
        *text++ = digits[data[i] >> 4];
        *text++ = digits[data[i] & 15];
    }
    *text = '\0';
}

static bool from_hex(const char *text, uint8_t *data)
{
    size_t bytes = RQ_NODE_KEY_BYTES;
    return gnutls_hex_decode(&(gnutls_datum_t){ (unsigned char *)text, HEX_BYTES }, data, &bytes) == 0 &&
           bytes == RQ_NODE_KEY_BYTES;
}

/* Takes the halves; CORRUPT when they are not of one key. */
static enum rq_err key_of(const uint8_t *public_key, const uint8_t *private_key, struct rq_node_key **ret_key)
{
    static const uint8_t trial[] = "trial";
    uint8_t signature[RQ_NODE_SIGNATURE_BYTES];
    struct rq_node_key *k = calloc(1, sizeof *k);
    if (k == NULL || gnutls_privkey_init(&k->key) != 0) {
        free(k);
        return RQ_NOMEM;
    }
    memcpy(k->public_key, public_key, RQ_NODE_KEY_BYTES);
    const gnutls_datum_t x = { (unsigned char *)public_key, RQ_NODE_KEY_BYTES };
    const gnutls_datum_t d = { (unsigned char *)private_key, RQ_NODE_KEY_BYTES };
    if (gnutls_privkey_import_ecc_raw(k->key, GNUTLS_ECC_CURVE_ED25519, &x, NULL, &d) != 0 ||
        rq_node_key_sign(k, trial, sizeof trial, signature) != RQ_OK ||
        !rq_node_key_verify(public_key, trial, sizeof trial, signature)) {
        rq_node_key_free(k);
        return RQ_CORRUPT;
    }
    *ret_key = k;
    return RQ_OK;
}

static enum rq_err make(struct rq_disk *disk, const char *raft_dir, struct rq_node_key **ret_key)
{
    gnutls_privkey_t made;
    gnutls_datum_t x = { 0 }, d = { 0 };
    enum rq_err err = RQ_NOMEM;
    if (gnutls_privkey_init(&made) != 0) {
        return RQ_NOMEM;
    }
    if (gnutls_privkey_generate(made, GNUTLS_PK_EDDSA_ED25519, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_ED25519), 0) ==
            0 &&
        gnutls_privkey_export_ecc_raw(made, NULL, &x, NULL, &d) == 0 && x.size == RQ_NODE_KEY_BYTES &&
        d.size == RQ_NODE_KEY_BYTES) {
        char body[BODY_BYTES], public_hex[HEX_BYTES + 1], private_hex[HEX_BYTES + 1];
        to_hex(public_hex, x.data);
        to_hex(private_hex, d.data);
        (void)snprintf(body, sizeof body, "public=%s\nprivate=%s\n", public_hex, private_hex); /* fits just */
        err = rq_sealed_write(disk, raft_dir, NAME, RQ_NODE_KEY_FORMAT, body);
        if (err == RQ_OK) {
            err = key_of(x.data, d.data, ret_key);
        }
        gnutls_memset(body, 0, sizeof body);
        gnutls_memset(private_hex, 0, sizeof private_hex);
    }
    if (d.data != NULL) {
        gnutls_memset(d.data, 0, d.size);
    }
    gnutls_free(d.data);
    gnutls_free(x.data);
    gnutls_privkey_deinit(made);
    return err;
}

enum rq_err rq_node_key_load(struct rq_disk *disk, const char *raft_dir, struct rq_node_key **ret_key)
{
    char *body;
    uint32_t format;
    enum rq_err err = rq_sealed_read(disk, raft_dir, NAME, RQ_NODE_KEY_FORMAT, FILE_BYTES_MAX, &body, &format);
    if (err == RQ_NOTFOUND) {
        return make(disk, raft_dir, ret_key);
    }
    if (err != RQ_OK) {
        return err;
    }
    char public_hex[HEX_BYTES + 1], private_hex[HEX_BYTES + 1], again[BODY_BYTES];
    uint8_t public_key[RQ_NODE_KEY_BYTES], private_key[RQ_NODE_KEY_BYTES];
    err = RQ_CORRUPT;
    if (sscanf(body, "public=%64[0-9a-f]\nprivate=%64[0-9a-f]", public_hex, private_hex) == 2 &&
        strlen(public_hex) == HEX_BYTES && strlen(private_hex) == HEX_BYTES) {
        (void)snprintf(again, sizeof again, "public=%s\nprivate=%s\n", public_hex, private_hex);
        if (strcmp(again, body) == 0 && from_hex(public_hex, public_key) && from_hex(private_hex, private_key)) {
            err = key_of(public_key, private_key, ret_key);
        }
    }
    gnutls_memset(body, 0, strlen(body));
    gnutls_memset(private_key, 0, sizeof private_key);
    free(body);
    return err;
}

void rq_node_key_free(struct rq_node_key *k)
{
    if (k != NULL) {
        gnutls_privkey_deinit(k->key);
        free(k);
    }
}

const uint8_t *rq_node_key_public(const struct rq_node_key *k)
{
    return k->public_key;
}

enum rq_err rq_node_key_sign(const struct rq_node_key *k, const void *data, size_t bytes,
                             uint8_t signature[RQ_NODE_SIGNATURE_BYTES])
{
    const gnutls_datum_t text = { (unsigned char *)data, (unsigned)bytes };
    gnutls_datum_t made = { 0 };
    if (gnutls_privkey_sign_data2(k->key, GNUTLS_SIGN_EDDSA_ED25519, 0, &text, &made) != 0) {
        return RQ_NOMEM;
    }
    bool whole = made.size == RQ_NODE_SIGNATURE_BYTES;
    if (whole) {
        memcpy(signature, made.data, RQ_NODE_SIGNATURE_BYTES);
    }
    gnutls_free(made.data);
    return whole ? RQ_OK : RQ_CORRUPT;
}

bool rq_node_key_verify(const uint8_t public_key[RQ_NODE_KEY_BYTES], const void *data, size_t bytes,
                        const uint8_t signature[RQ_NODE_SIGNATURE_BYTES])
{
    const gnutls_datum_t x = { (unsigned char *)public_key, RQ_NODE_KEY_BYTES };
    const gnutls_datum_t text = { (unsigned char *)data, (unsigned)bytes };
    const gnutls_datum_t given = { (unsigned char *)signature, RQ_NODE_SIGNATURE_BYTES };
    gnutls_pubkey_t key;
    if (gnutls_pubkey_init(&key) != 0) {
        return false;
    }
    bool good = gnutls_pubkey_import_ecc_raw(key, GNUTLS_ECC_CURVE_ED25519, &x, NULL) == 0 &&
                gnutls_pubkey_verify_data2(key, GNUTLS_SIGN_EDDSA_ED25519, 0, &text, &given) >= 0;
    gnutls_pubkey_deinit(key);
    return good;
}
