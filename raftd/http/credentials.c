#include "raftd/http/credentials.h"

#include <crypt.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <yyjson.h>

#include "raftd/ops/journal.h"

#define DIGEST_BYTES 32u
#define KNOWN_MAX    256u

struct rq_credentials {
    const char *path;
    uint8_t key[DIGEST_BYTES]; /* of the digests: of this process alone */
    pthread_mutex_t hashing;   /* so that who guesses passwords takes no more than one core; before lock */
    pthread_mutex_t lock;
    yyjson_doc *doc; /* owns; checked; guarded by lock, as what follows */
    struct timespec read_mtime;
    ino_t read_inode;
    off_t read_size;
    uint8_t known[KNOWN_MAX]
                 [DIGEST_BYTES]; /* of hashes and passwords that belong together; the oldest is written over */
    unsigned known_count, known_next;
};

/* --- the file ------------------------------------------------------------------------------------------------------------- */

static bool is_text(yyjson_val *v)
{
    return v == NULL || (yyjson_is_str(v) && yyjson_get_len(v) <= RQ_CREDENTIAL_MAX &&
                         strlen(yyjson_get_str(v)) == yyjson_get_len(v));
}

static bool is_entry(yyjson_val *entry)
{
    yyjson_val *perms = yyjson_obj_get(entry, "perms"), *perm;
    yyjson_arr_iter each;
    if (!yyjson_is_obj(entry) || !yyjson_is_str(yyjson_obj_get(entry, "username")) ||
        !is_text(yyjson_obj_get(entry, "username")) || !is_text(yyjson_obj_get(entry, "password")) ||
        (perms != NULL && !yyjson_is_arr(perms))) {
        return false;
    }
    yyjson_arr_iter_init(perms, &each);
    while ((perm = yyjson_arr_iter_next(&each)) != NULL) {
        if (!yyjson_is_str(perm)) {
            return false;
        }
    }
    return true;
}

static enum rq_err read_file(const char *path, yyjson_doc **ret_doc, char text[RQ_CREDENTIALS_TEXT_MAX])
{
    yyjson_read_err why;
    yyjson_doc *doc = yyjson_read_file(path, 0, NULL, &why);
    yyjson_val *root = yyjson_doc_get_root(doc), *entry;
    yyjson_arr_iter each;
    if (doc == NULL) {
        (void)snprintf(text, RQ_CREDENTIALS_TEXT_MAX, "%.300s: %.100s", path, why.msg);
        return why.code == YYJSON_READ_ERROR_FILE_OPEN || why.code == YYJSON_READ_ERROR_FILE_READ ? RQ_IO : RQ_PROTOCOL;
    }
    bool good = yyjson_is_arr(root);
    yyjson_arr_iter_init(root, &each);
    while (good && (entry = yyjson_arr_iter_next(&each)) != NULL) {
        good = is_entry(entry);
    }
    if (!good) {
        (void)snprintf(text, RQ_CREDENTIALS_TEXT_MAX,
                       "%.300s: not an array of {\"username\", \"password\", \"perms\": [...]}", path);
        yyjson_doc_free(doc);
        return RQ_PROTOCOL;
    }
    *ret_doc = doc;
    return RQ_OK;
}

/* Lock held, or not shared yet.  Remembers what it looked at even if it is no good: that is said once. */
static enum rq_err refresh(struct rq_credentials *c, bool anyway, char text[RQ_CREDENTIALS_TEXT_MAX])
{
    struct stat st = { 0 };
    yyjson_doc *doc = NULL;
    (void)stat(c->path, &st); /* not there: all zeros, and reading says so */
    if (!anyway && c->doc != NULL && st.st_ino == c->read_inode && st.st_size == c->read_size &&
        st.st_mtim.tv_sec == c->read_mtime.tv_sec && st.st_mtim.tv_nsec == c->read_mtime.tv_nsec) {
        return RQ_OK;
    }
    c->read_inode = st.st_ino;
    c->read_size = st.st_size;
    c->read_mtime = st.st_mtim;
    enum rq_err err = read_file(c->path, &doc, text);
    if (err == RQ_OK) {
        yyjson_doc_free(c->doc);
        c->doc = doc;
        c->known_count = c->known_next = 0;
    }
    return err;
}

static void lock_fresh(struct rq_credentials *c)
{
    char text[RQ_CREDENTIALS_TEXT_MAX], quoted[2 * RQ_CREDENTIALS_TEXT_MAX];
    pthread_mutex_lock(&c->lock);
    if (refresh(c, false, text) != RQ_OK) {
        rq_note(RQ_LEVEL_ERROR, "the credentials file has changed and is no good: what it said before holds", "why=%s",
                rq_quote(quoted, sizeof quoted, text));
    }
}

enum rq_err rq_credentials_new(const char *path, struct rq_credentials **ret, char text[RQ_CREDENTIALS_TEXT_MAX])
{
    struct rq_credentials *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return RQ_NOMEM;
    }
    c->path = path;
    enum rq_err err = gnutls_rnd(GNUTLS_RND_KEY, c->key, sizeof c->key) == 0 ? refresh(c, false, text) : RQ_IO;
    if (err != RQ_OK) {
        free(c);
        return err;
    }
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->hashing, NULL);
    *ret = c;
    return RQ_OK;
}

void rq_credentials_free(struct rq_credentials *c)
{
    if (c != NULL) {
        pthread_mutex_destroy(&c->lock);
        pthread_mutex_destroy(&c->hashing);
        yyjson_doc_free(c->doc);
        free(c);
    }
}

enum rq_err rq_credentials_reload(struct rq_credentials *c, char text[RQ_CREDENTIALS_TEXT_MAX])
{
    pthread_mutex_lock(&c->lock);
    enum rq_err err = refresh(c, true, text);
    pthread_mutex_unlock(&c->lock);
    return err;
}

/* --- who may -------------------------------------------------------------------------------------------------------------- */

static yyjson_val *find_user(struct rq_credentials *c, const char *name)
{
    yyjson_val *found = NULL, *entry;
    yyjson_arr_iter each;
    yyjson_arr_iter_init(yyjson_doc_get_root(c->doc), &each);
    while ((entry = yyjson_arr_iter_next(&each)) != NULL) {
        if (yyjson_equals_str(yyjson_obj_get(entry, "username"), name)) {
            found = entry;
        }
    }
    return found;
}

/* Is name one of "a,b,c"? */
static bool is_among(const char *name, const char *list)
{
    for (const char *at = list; *at != '\0';) {
        const size_t n = strcspn(at, ",");
        if (n == strlen(name) && strncmp(at, name, n) == 0) {
            return true;
        }
        at += n + (at[n] == ',');
    }
    return false;
}

static bool has_perm(yyjson_val *user, const char *wanted)
{
    yyjson_val *perm;
    yyjson_arr_iter each;
    yyjson_arr_iter_init(yyjson_obj_get(user, "perms"), &each);
    while ((perm = yyjson_arr_iter_next(&each)) != NULL) {
        if (is_among(yyjson_get_str(perm), wanted) || yyjson_equals_str(perm, "all")) {
            return true;
        }
    }
    return false;
}

static const char *password_of(yyjson_val *user)
{
    const char *password = yyjson_get_str(yyjson_obj_get(user, "password"));
    return password != NULL ? password : "";
}

/* Takes as long whatever they have in common. */
static bool same_secret(const char *a, const char *b)
{
    char x[RQ_CREDENTIAL_MAX + 1] = { 0 }, y[RQ_CREDENTIAL_MAX + 1] = { 0 };
    volatile unsigned difference = 0;
    (void)snprintf(x, sizeof x, "%s", a);
    (void)snprintf(y, sizeof y, "%s", b);
    for (size_t i = 0; i < sizeof x; i++) {
        difference |= (unsigned)(x[i] ^ y[i]);
    }
    return difference == 0;
}

/* A plain password that only looks like a hash is none that crypt() knows. */
static bool is_hash(const char *password)
{
    const int salt = password[0] == '$' ? crypt_checksalt(password) : CRYPT_SALT_INVALID;
    return salt == CRYPT_SALT_OK || salt == CRYPT_SALT_METHOD_LEGACY || salt == CRYPT_SALT_TOO_CHEAP;
}

static void digest(const struct rq_credentials *c, const char *hash, const char *password, uint8_t ret[DIGEST_BYTES])
{
    char both[2 * RQ_CREDENTIAL_MAX + 2];
    const int bytes = snprintf(both, sizeof both, "%s%c%s", hash, '\n', password);
    if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, c->key, sizeof c->key, both, (size_t)bytes, ret) != 0) {
        rq_fatal("no digest can be made", RQ_NOMEM);
    }
    explicit_bzero(both, sizeof both);
}

/* Lock held. */
static bool is_known(const struct rq_credentials *c, const uint8_t digest[DIGEST_BYTES])
{
    unsigned found = 0;
    for (unsigned i = 0; i < c->known_count; i++) {
        found |= gnutls_memcmp(c->known[i], digest, DIGEST_BYTES) == 0;
    }
    return found != 0;
}

/* Lock held. */
static void remember(struct rq_credentials *c, const uint8_t digest[DIGEST_BYTES])
{
    memcpy(c->known[c->known_next], digest, DIGEST_BYTES);
    c->known_next = (c->known_next + 1) % KNOWN_MAX;
    c->known_count += c->known_count < KNOWN_MAX;
}

static bool hashes_to(const char *password, const char *hash)
{
    struct crypt_data *data = calloc(1, sizeof *data);
    const char *made = data != NULL ? crypt_r(password, hash, data) : NULL;
    const bool same = made != NULL && made[0] != '*' && same_secret(made, hash);
    if (data != NULL) {
        explicit_bzero(data, sizeof *data);
    }
    free(data);
    return same;
}

enum answer { NO, YES, HASH };

/* Lock held.  HASH: yes, if the password has this hash, and that is not known. */
static enum answer decide(struct rq_credentials *c, const struct rq_login *login, const char *perm,
                          char ret_hash[RQ_CREDENTIAL_MAX + 1])
{
    uint8_t d[DIGEST_BYTES];
    if (has_perm(find_user(c, "*"), perm)) {
        return YES;
    }
    yyjson_val *user = login != NULL && login->username[0] != '\0' ? find_user(c, login->username) : NULL;
    if (user == NULL || !has_perm(user, perm)) {
        return NO;
    }
    const char *password = password_of(user);
    if (!is_hash(password)) {
        return same_secret(password, login->password) ? YES : NO;
    }
    digest(c, password, login->password, d);
    (void)snprintf(ret_hash, RQ_CREDENTIAL_MAX + 1, "%s", password);
    return is_known(c, d) ? YES : HASH;
}

bool rq_credentials_allow(struct rq_credentials *c, const struct rq_login *login, const char *perm)
{
    char hash[RQ_CREDENTIAL_MAX + 1];
    uint8_t d[DIGEST_BYTES];
    lock_fresh(c);
    enum answer answer = decide(c, login, perm, hash);
    pthread_mutex_unlock(&c->lock);
    if (answer != HASH) {
        return answer == YES;
    }
    pthread_mutex_lock(&c->hashing);
    lock_fresh(c); /* who was before us may have had the same password */
    answer = decide(c, login, perm, hash);
    pthread_mutex_unlock(&c->lock);
    if (answer == HASH) {
        answer = hashes_to(login->password, hash) ? YES : NO;
        if (answer == YES) {
            digest(c, hash, login->password, d);
            pthread_mutex_lock(&c->lock);
            remember(c, d);
            pthread_mutex_unlock(&c->lock);
        }
    }
    pthread_mutex_unlock(&c->hashing);
    return answer == YES;
}

bool rq_credentials_is_slow(struct rq_credentials *c, const struct rq_login *login, const char *perm)
{
    char hash[RQ_CREDENTIAL_MAX + 1];
    lock_fresh(c);
    const enum answer answer = decide(c, login, perm, hash);
    pthread_mutex_unlock(&c->lock);
    return answer == HASH;
}

bool rq_credentials_login(struct rq_credentials *c, const char *username, struct rq_login *ret)
{
    lock_fresh(c);
    yyjson_val *user = find_user(c, username);
    if (user != NULL && is_hash(password_of(user))) {
        user = NULL;
    }
    if (user != NULL) {
        (void)snprintf(ret->username, sizeof ret->username, "%s", username);
        (void)snprintf(ret->password, sizeof ret->password, "%s", password_of(user));
    }
    pthread_mutex_unlock(&c->lock);
    return user != NULL;
}

bool rq_credentials_is_hashed(struct rq_credentials *c, const char *username)
{
    lock_fresh(c);
    yyjson_val *user = find_user(c, username);
    const bool hashed = user != NULL && is_hash(password_of(user));
    pthread_mutex_unlock(&c->lock);
    return hashed;
}

/* --- Basic ---------------------------------------------------------------------------------------------------------------- */

static int digit64(char ch)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = ch != '\0' ? strchr(digits, ch) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* Bytes of it; -1: not base64, or too long, or with a zero byte. */
static int decode64(const char *from, char *to, int max)
{
    unsigned bits = 0, have = 0;
    int bytes = 0;
    for (; digit64(*from) >= 0; from++) {
        bits = bits << 6 | (unsigned)digit64(*from);
        have += 6;
        if (have >= 8) {
            have -= 8;
            const char byte = (char)(bits >> have & 0xff);
            if (bytes == max || byte == '\0') {
                return -1;
            }
            to[bytes++] = byte;
        }
    }
    from += strspn(from, "=");
    return *from == '\0' ? bytes : -1;
}

bool rq_login_parse(const char *header, struct rq_login *ret)
{
    char plain[2 * RQ_CREDENTIAL_MAX + 2];
    if (header == NULL || strncasecmp(header, "Basic ", 6) != 0) {
        return false;
    }
    header += 6;
    header += strspn(header, " ");
    const int bytes = decode64(header, plain, (int)sizeof plain - 1);
    if (bytes < 0) {
        return false;
    }
    plain[bytes] = '\0';
    char *colon = strchr(plain, ':');
    if (colon == NULL || colon - plain > (int)RQ_CREDENTIAL_MAX || strlen(colon + 1) > RQ_CREDENTIAL_MAX) {
        return false;
    }
    *colon = '\0';
    memcpy(ret->username, plain, (size_t)(colon - plain) + 1);
    memcpy(ret->password, colon + 1, strlen(colon + 1) + 1);
    return true;
}
