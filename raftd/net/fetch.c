#include "raftd/net/fetch.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* What is used of it.  The parentheses keep its macros of the same names away. */
static struct {
    __typeof__(curl_global_init) *global_init;
    __typeof__(curl_easy_init) *easy_init;
    __typeof__((curl_easy_setopt)) *easy_setopt;
    __typeof__(curl_easy_perform) *easy_perform;
    __typeof__((curl_easy_getinfo)) *easy_getinfo;
    __typeof__(curl_easy_cleanup) *easy_cleanup;
    __typeof__(curl_easy_strerror) *easy_strerror;
    __typeof__(curl_slist_append) *slist_append;
    __typeof__(curl_slist_free_all) *slist_free_all;
} curl;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool loaded;
static char why_not[256];

static bool find(void *library, const char *name, void *ret_function)
{
    void *found = dlsym(library, name);
    memcpy(ret_function, &found, sizeof found);
    return found != NULL;
}

/* The library stays: others may have taken addresses of what it depends on. */
static void load(void)
{
    static const char *const names[] = { "libcurl-gnutls.so.4", "libcurl.so.4" };
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && library == NULL; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL && i == 0) {
            (void)snprintf(why_not, sizeof why_not, "%.250s", dlerror());
        }
    }
    loaded = library != NULL && find(library, "curl_global_init", &curl.global_init) &&
             find(library, "curl_easy_init", &curl.easy_init) && find(library, "curl_easy_setopt", &curl.easy_setopt) &&
             find(library, "curl_easy_perform", &curl.easy_perform) &&
             find(library, "curl_easy_getinfo", &curl.easy_getinfo) &&
             find(library, "curl_easy_cleanup", &curl.easy_cleanup) &&
             find(library, "curl_easy_strerror", &curl.easy_strerror) &&
             find(library, "curl_slist_append", &curl.slist_append) &&
             find(library, "curl_slist_free_all", &curl.slist_free_all);
    if (loaded) {
        (void)curl.global_init(CURL_GLOBAL_DEFAULT); /* then easy_init() fails, and says so */
    } else if (library != NULL) {
        (void)snprintf(why_not, sizeof why_not, "libcurl lacks a function");
    }
}

static size_t on_data(char *data, size_t size, size_t count, void *ctx)
{
    return rq_bytes_put(ctx, data, size * count) == RQ_OK ? size * count : 0;
}

static bool is_given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static CURLcode set_up(CURL *c, const struct rq_fetch *f, struct curl_slist *headers, struct rq_bytes *body, char *text)
{
    CURLcode code = CURLE_OK;
#define SET(option, value)                                 \
    do {                                                   \
        if (code == CURLE_OK) {                            \
            code = curl.easy_setopt(c, (option), (value)); \
        }                                                  \
    } while (0)
    SET(CURLOPT_ERRORBUFFER, text);
    SET(CURLOPT_URL, f->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_CUSTOMREQUEST, f->method);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_TIMEOUT_MS, (long)f->timeout_ms);
    SET(CURLOPT_WRITEFUNCTION, on_data);
    SET(CURLOPT_WRITEDATA, body);
    if (f->body != NULL) {
        SET(CURLOPT_POSTFIELDS, f->body);
        SET(CURLOPT_HTTPHEADER, headers);
    }
    if (is_given(f->user)) {
        SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        SET(CURLOPT_USERNAME, f->user);
        SET(CURLOPT_PASSWORD, f->password);
    }
    if (is_given(f->ca_cert)) {
        SET(CURLOPT_CAINFO, f->ca_cert);
    }
    if (is_given(f->client_cert)) {
        SET(CURLOPT_SSLCERT, f->client_cert);
        SET(CURLOPT_SSLKEY, f->client_key);
    }
#undef SET
    return code;
}

enum rq_err rq_fetch(const struct rq_fetch *f, unsigned *ret_status, struct rq_bytes *ret_body, char text[256])
{
    char words[CURL_ERROR_SIZE] = "";
    long status = 0;
    (void)pthread_once(&once, load); /* cannot fail */
    if (!loaded) {
        (void)snprintf(text, 256, "%.250s", why_not);
        return RQ_AWAY;
    }
    CURL *c = curl.easy_init();
    struct curl_slist *headers = curl.slist_append(NULL, "Content-Type: application/json");
    CURLcode code = c != NULL && headers != NULL ? set_up(c, f, headers, ret_body, words) : CURLE_OUT_OF_MEMORY;
    if (code == CURLE_OK) {
        code = curl.easy_perform(c);
    }
    if (code == CURLE_OK) {
        code = curl.easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    }
    curl.easy_cleanup(c);
    curl.slist_free_all(headers);
    if (code != CURLE_OK) {
        (void)snprintf(text, 256, "%.250s", words[0] != '\0' ? words : curl.easy_strerror(code));
        return code == CURLE_OUT_OF_MEMORY ? RQ_NOMEM : code == CURLE_WRITE_ERROR ? RQ_TOOBIG : RQ_AWAY;
    }
    *ret_status = (unsigned)status;
    return RQ_OK;
}
