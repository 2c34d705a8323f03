#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "raftd/http/server.h"
#include "raftd/run/duration.h"

#define TIMEOUT_MS     30000u
#define TIMEOUT_MAX_MS 3600000u

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The words of Go's package url, which rqlite's clients see. */
static bool refuse_escape(const char *s, char text[RQ_HTTP_TEXT_MAX])
{
    char shown[4] = "";
    for (size_t i = 0; i < 3 && s[i] != '\0'; i++) {
        shown[i] = s[i] >= ' ' && s[i] <= '~' ? s[i] : '?';
    }
    (void)snprintf(text, RQ_HTTP_TEXT_MAX, "invalid URL escape \"%s\"\n", shown);
    return false;
}

static bool decode(char *s, bool plus_is_blank, char text[RQ_HTTP_TEXT_MAX])
{
    char *out = s;
    for (; *s != '\0'; s++) {
        if (*s == '%') {
            int high = hex(s[1]), low = high < 0 ? -1 : hex(s[2]);
            if (low < 0 || high * 16 + low == 0) {
                return refuse_escape(s, text);
            }
            *out++ = (char)(high * 16 + low);
            s += 2;
        } else {
            *out++ = *s == '+' && plus_is_blank ? ' ' : *s;
        }
    }
    *out = '\0';
    return true;
}

const char *rq_http_origin_form(const char *target)
{
    const size_t scheme = strncasecmp(target, "http://", 7) == 0 ? 7 : strncasecmp(target, "https://", 8) == 0 ? 8 : 0;
    return scheme > 0 ? target + scheme + strcspn(target + scheme, "/?") : target;
}

bool rq_http_split_target(char *target, struct rq_http_request *request, char text[RQ_HTTP_TEXT_MAX])
{
    char *query = strchr(target, '?');
    request->path = target;
    request->param_count = 0;
    if (query != NULL) {
        *query++ = '\0';
    }
    if (!decode(target, false, text)) {
        return false;
    }
    while (query != NULL && *query != '\0') {
        char *next = strchr(query, '&');
        if (next != NULL) {
            *next++ = '\0';
        }
        if (*query != '\0') {
            char *value = strchr(query, '=');
            if (strchr(query, ';') != NULL) {
                (void)snprintf(text, RQ_HTTP_TEXT_MAX, "invalid semicolon separator in query\n");
                return false;
            }
            if (request->param_count == RQ_HTTP_PARAMS_MAX) {
                (void)snprintf(text, RQ_HTTP_TEXT_MAX, "more than %d query parameters\n", RQ_HTTP_PARAMS_MAX);
                return false;
            }
            if (value != NULL) {
                *value++ = '\0';
            }
            if (!decode(query, true, text) || (value != NULL && !decode(value, true, text))) {
                return false;
            }
            request->params[request->param_count++] = (struct rq_http_param){ query, value != NULL ? value : "" };
        }
        query = next;
    }
    return true;
}

const char *rq_http_param(const struct rq_http_request *request, const char *key)
{
    for (size_t i = 0; i < request->param_count; i++) {
        if (strcmp(request->params[i].key, key) == 0) {
            return request->params[i].value;
        }
    }
    return NULL;
}

bool rq_http_has(const struct rq_http_request *request, const char *key)
{
    return rq_http_param(request, key) != NULL;
}

unsigned rq_http_timeout_ms(const struct rq_http_request *request)
{
    const char *value = rq_http_param(request, "timeout");
    uint64_t ns;
    if (value == NULL || !rq_parse_duration(value, &ns)) {
        return TIMEOUT_MS;
    }
    return ns / 1000000u < TIMEOUT_MAX_MS ? (unsigned)(ns / 1000000u) : TIMEOUT_MAX_MS;
}

static bool is_integer(const char *s)
{
    s += *s == '-' || *s == '+';
    return *s != '\0' && strlen(s) <= 18 && strspn(s, "0123456789") == strlen(s);
}

bool rq_http_check_params(const struct rq_http_request *request, char text[RQ_HTTP_TEXT_MAX])
{
    static const char *const durations[] = { "timeout", "freshness", "db_timeout", "linearizable_timeout",
                                             "idle_timeout" };
    static const char *const integers[] = { "retries", "trailing_logs" };
    uint64_t ns;
    if (rq_http_has(request, "freshness_strict") && !rq_http_has(request, "freshness")) {
        (void)snprintf(text, RQ_HTTP_TEXT_MAX, "freshness_strict requires freshness\n");
        return false;
    }
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        const char *value = rq_http_param(request, durations[i]);
        if (value != NULL && !rq_parse_duration(value, &ns)) {
            (void)snprintf(text, RQ_HTTP_TEXT_MAX, "%s is not a valid duration\n", durations[i]);
            return false;
        }
    }
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        const char *value = rq_http_param(request, integers[i]);
        if (value != NULL && !is_integer(value)) {
            (void)snprintf(text, RQ_HTTP_TEXT_MAX, "%s is not a valid integer\n", integers[i]);
            return false;
        }
    }
    const char *q = rq_http_param(request, "q");
    if (q != NULL && q[0] == '\0') {
        (void)snprintf(text, RQ_HTTP_TEXT_MAX, "query parameter not set\n");
        return false;
    }
    return true;
}
