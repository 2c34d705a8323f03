#include "raftd/http/join.h"

#include <stdio.h>
#include <string.h>

#include "raftd/http/admin.h"
#include "raftd/http/json.h"
#include "raftd/net/fetch.h"

#define FIND_WAIT_MS     5000
#define ANSWER_BYTES_MAX 65536u

static void post_join(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    const struct rq_admin *a = ctx;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_str(doc, root, "addr", a->raft_adv_addr);
    rq_http_json(response, doc, root, rq_http_has(request, "pretty"));
}

const struct rq_http_route rq_join_routes[] = {
    { "/join", false, false, "POST", "join,join-read-only,join-read-replica", post_join },
};
const size_t rq_join_route_count = sizeof rq_join_routes / sizeof *rq_join_routes;

/* --- the other side ------------------------------------------------------------------------------------------------------- */

static bool read_answer(const struct rq_bytes *body, char address[RQ_PEERS_ADDRESS_MAX])
{
    yyjson_doc *doc = yyjson_read((const char *)body->data, body->size, 0);
    const char *addr = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "addr"));
    const bool good = addr != NULL && strlen(addr) < RQ_PEERS_ADDRESS_MAX && rq_member_text_ok(addr);
    if (good) {
        (void)snprintf(address, RQ_PEERS_ADDRESS_MAX, "%s", addr);
    }
    yyjson_doc_free(doc);
    return good;
}

enum rq_err rq_join_find(const char *url, const struct rq_login *login, const struct rq_http_tls_files *tls,
                         char address[RQ_PEERS_ADDRESS_MAX], char text[RQ_TEXT_MAX + 1])
{
    char target[RQ_PEERS_ADDRESS_MAX + 8], why[256];
    struct rq_bytes body;
    unsigned status = 0;
    size_t bytes = strlen(url);
    while (bytes > 0 && url[bytes - 1] == '/') {
        bytes--;
    }
    (void)snprintf(target, sizeof target, "%.*s/join", (int)bytes, url);
    const struct rq_fetch fetch = {
        .method = "POST",
        .url = target,
        .body = "{}",
        .user = login != NULL ? login->username : "",
        .password = login != NULL ? login->password : "",
        .ca_cert = tls->ca_cert,
        .client_cert = tls->cert,
        .client_key = tls->key,
        .timeout_ms = FIND_WAIT_MS,
    };
    rq_bytes_init(&body, ANSWER_BYTES_MAX);
    enum rq_err err = rq_fetch(&fetch, &status, &body, why);
    if (err != RQ_OK) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "%s", err == RQ_TOOBIG ? "no raftd answers there" : why);
    } else if (status == 401) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "unauthorized (did you forget to set -join-as?)");
        err = RQ_PERM;
    } else if (status != 200 || !read_answer(&body, address)) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "no raftd answers there: HTTP status %u", status);
        err = RQ_AWAY;
    }
    rq_bytes_fini(&body);
    return err;
}
