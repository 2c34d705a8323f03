#include "raftd/http/credentials.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <yyjson.h>

#include "raftd/ops/journal.h"

struct rq_credentials {
    const char *path;
    pthread_mutex_t lock;
    yyjson_doc *doc; /* owns; checked; guarded by lock, as what follows */
    struct timespec read_mtime;
    ino_t read_inode;
    off_t read_size;
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
static enum rq_err refresh(struct rq_credentials *c, char text[RQ_CREDENTIALS_TEXT_MAX])
{
    struct stat st = { 0 };
    yyjson_doc *doc = NULL;
    (void)stat(c->path, &st); /* not there: all zeros, and reading says so */
    if (c->doc != NULL && st.st_ino == c->read_inode && st.st_size == c->read_size &&
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
    }
    return err;
}

static void lock_fresh(struct rq_credentials *c)
{
    char text[RQ_CREDENTIALS_TEXT_MAX], quoted[2 * RQ_CREDENTIALS_TEXT_MAX];
    pthread_mutex_lock(&c->lock);
    if (refresh(c, text) != RQ_OK) {
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
    enum rq_err err = refresh(c, text);
    if (err != RQ_OK) {
        free(c);
        return err;
    }
    pthread_mutex_init(&c->lock, NULL);
    *ret = c;
    return RQ_OK;
}

void rq_credentials_free(struct rq_credentials *c)
{
    if (c != NULL) {
        pthread_mutex_destroy(&c->lock);
        yyjson_doc_free(c->doc);
        free(c);
    }
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

bool rq_credentials_allow(struct rq_credentials *c, const struct rq_login *login, const char *perm)
{
    lock_fresh(c);
    bool allowed = has_perm(find_user(c, "*"), perm);
    if (!allowed && login != NULL && login->username[0] != '\0') {
        yyjson_val *user = find_user(c, login->username);
        allowed = user != NULL && same_secret(password_of(user), login->password) && has_perm(user, perm);
    }
    pthread_mutex_unlock(&c->lock);
    return allowed;
}

bool rq_credentials_login(struct rq_credentials *c, const char *username, struct rq_login *ret)
{
    lock_fresh(c);
    yyjson_val *user = find_user(c, username);
    if (user != NULL) {
        (void)snprintf(ret->username, sizeof ret->username, "%s", username);
        (void)snprintf(ret->password, sizeof ret->password, "%s", password_of(user));
    }
    pthread_mutex_unlock(&c->lock);
    return user != NULL;
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
