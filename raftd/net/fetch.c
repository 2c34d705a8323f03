#include "raftd/net/fetch.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT); /* then curl_easy_init() fails, and says so */
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
            code = curl_easy_setopt(c, (option), (value)); \
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
    (void)pthread_once(&once, init); /* cannot fail */
    CURL *c = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    CURLcode code = c != NULL && headers != NULL ? set_up(c, f, headers, ret_body, words) : CURLE_OUT_OF_MEMORY;
    if (code == CURLE_OK) {
        code = curl_easy_perform(c);
    }
    if (code == CURLE_OK) {
        code = curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    }
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    if (code != CURLE_OK) {
        (void)snprintf(text, 256, "%.250s", words[0] != '\0' ? words : curl_easy_strerror(code));
        return code == CURLE_OUT_OF_MEMORY ? RQ_NOMEM : code == CURLE_WRITE_ERROR ? RQ_TOOBIG : RQ_AWAY;
    }
    *ret_status = (unsigned)status;
    return RQ_OK;
}
