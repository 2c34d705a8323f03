#include "raftd/http/nodes.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <yyjson.h>

#include "raftd/http/json.h"
#include "raftd/run/clock.h"

#define AGAIN_MS      20
#define HAND_OVER_MAX 3 /* in vain */

/* --- /nodes --------------------------------------------------------------------------------------------------------------- */

/* Order and presence of the keys are rqlite's. */
static yyjson_mut_val *describe(yyjson_mut_doc *doc, const struct rq_member *m, const struct rq_cluster_contact *c)
{
    yyjson_mut_val *node = yyjson_mut_obj(doc);
    const bool reached = c->err == RQ_OK;
    yyjson_mut_obj_add_strcpy(doc, node, "id", m->name);
    if (reached) {
        yyjson_mut_obj_add_strcpy(doc, node, "api_addr", c->api_url);
    }
    yyjson_mut_obj_add_strcpy(doc, node, "addr", m->raft_addr);
    yyjson_mut_obj_add_strcpy(doc, node, "version", reached ? c->version : "");
    yyjson_mut_obj_add_bool(doc, node, "voter", m->votes);
    yyjson_mut_obj_add_bool(doc, node, "reachable", reached);
    yyjson_mut_obj_add_bool(doc, node, "leader", reached && c->leads);
    if (reached) {
        yyjson_mut_obj_add_real(doc, node, "time", (double)c->ns / 1e9);
        rq_http_put_duration(doc, node, "time_s", c->ns);
    } else {
        yyjson_mut_obj_add_strcpy(doc, node, "error", c->text);
    }
    return node;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct rq_member *)a)->name, ((const struct rq_member *)b)->name);
}

/* Those that are shown, ordered by name: of several instances of one name the newest alone. */
static void choose(const struct rq_members *all, bool nonvoters, struct rq_members *ret)
{
    ret->count = 0;
    for (unsigned i = 0; i < all->count; i++) {
        const struct rq_member *m = &all->list[i];
        if ((nonvoters || m->votes) && rq_members_find_name(all, m->name) == m) {
            ret->list[ret->count++] = *m;
        }
    }
    qsort(ret->list, ret->count, sizeof *ret->list, by_name);
}

static void get_nodes(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    struct rq_members all, shown;
    const char *version = rq_http_param(request, "ver");
    const bool list = version != NULL && strcmp(version, "2") == 0;
    if (atomic_load(&a->driver) == NULL) {
        rq_http_text(response, 503, "store nodes: store not open\n");
        return;
    }
    rq_cluster_members(atomic_load(&a->cluster), &all);
    choose(&all, rq_http_has(request, "nonvoters"), &shown);
    struct rq_cluster_contact *contacts = calloc(shown.count + 1, sizeof *contacts);
    if (contacts == NULL) {
        response->status = 500;
        return;
    }
    for (unsigned i = 0; i < shown.count; i++) {
        contacts[i].instance = shown.list[i].instance;
    }
    rq_cluster_contact(atomic_load(&a->cluster), contacts, shown.count, rq_http_timeout_ms(request));

    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_val *nodes = list ? yyjson_mut_obj_add_arr(doc, root, "nodes") : root;
    for (unsigned i = 0; i < shown.count; i++) {
        yyjson_mut_val *node = describe(doc, &shown.list[i], &contacts[i]);
        if (list) {
            yyjson_mut_arr_append(nodes, node);
        } else {
            yyjson_mut_obj_add(nodes, yyjson_mut_strcpy(doc, shown.list[i].name), node);
        }
    }
    free(contacts);
    rq_http_json(response, doc, root, rq_http_has(request, "pretty"));
}

/* --- bodies --------------------------------------------------------------------------------------------------------------- */

/* {"id": "NODE"}, that key alone.  null_too: also null, for any node: then id is "". */
static bool read_id(const struct rq_http_request *request, bool null_too, char id[RQ_MEMBER_TEXT_MAX + 1],
                    yyjson_read_err *ret_why)
{
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)request->body, request->body_bytes, 0, NULL, ret_why);
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *value = yyjson_obj_get(root, "id");
    bool good = false;
    id[0] = '\0';
    if (yyjson_is_str(value) && yyjson_get_len(value) <= RQ_MEMBER_TEXT_MAX &&
        strlen(yyjson_get_str(value)) == yyjson_get_len(value)) {
        (void)snprintf(id, RQ_MEMBER_TEXT_MAX + 1, "%s", yyjson_get_str(value));
        good = null_too || yyjson_obj_size(root) == 1;
    } else if (null_too && yyjson_is_obj(root)) {
        good = value == NULL || yyjson_is_null(value);
    }
    yyjson_doc_free(doc);
    return good;
}

static void put_error(struct rq_http_response *response, const char *before, const char *text)
{
    char line[RQ_TEXT_MAX + 64];
    (void)snprintf(line, sizeof line, "%s%s\n", before, text);
    rq_http_text(response, 500, line);
}

/* Something was only in the way, or nobody knows whether it is done, and there is time: after a moment's pause. */
static bool may_try_again(enum rq_err err, uint64_t end_ms)
{
    if ((err != RQ_BUSY && err != RQ_AWAY && err != RQ_UNKNOWN) || rq_clock_ms() >= end_ms) {
        return false;
    }
    nanosleep(&(struct timespec){ .tv_nsec = (long)AGAIN_MS * 1000000 }, NULL);
    return true;
}

/* --- /leader -------------------------------------------------------------------------------------------------------------- */

static void get_leader(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    struct rq_member leader;
    if (!rq_admin_leader(a, &leader)) {
        rq_http_text(response, 503, "leader not found\n");
        return;
    }
    struct rq_cluster_contact contact = { .instance = leader.instance };
    rq_cluster_contact(atomic_load(&a->cluster), &contact, 1, rq_http_timeout_ms(request));
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    rq_http_json(response, doc, describe(doc, &leader, &contact), rq_http_has(request, "pretty"));
}

/* As the request wants it, by what this node knows. */
static bool has_gone(struct rq_admin *a, const char *id, const struct rq_member *from)
{
    struct rq_member leader;
    return rq_admin_leader(a, &leader) &&
           (id[0] != '\0' ? strcmp(leader.name, id) == 0 : leader.instance != from->instance);
}

/* id "": to any node but the one that leads. */
static enum rq_err hand_over(struct rq_admin *a, const char *id, const struct rq_member *from, unsigned timeout_ms,
                             char text[RQ_TEXT_MAX + 1])
{
    const uint64_t end_ms = rq_clock_ms() + timeout_ms;
    unsigned vain = 0;
    enum rq_err err;
    for (bool again = false;; again = true) {
        if (again && has_gone(a, id, from)) {
            return RQ_OK;
        }
        err = rq_cluster_transfer(atomic_load(&a->cluster), id[0] != '\0' ? id : NULL, text);
        if (again && err == RQ_MISUSE) { /* it leads: an earlier try went well, and its answer was lost */
            return RQ_OK;
        }
        if (err == RQ_UNREADY && ++vain < HAND_OVER_MAX) {
            err = RQ_BUSY;
        }
        if (!may_try_again(err, end_ms)) {
            return err;
        }
    }
}

static void post_leader(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    struct rq_member leader;
    char id[RQ_MEMBER_TEXT_MAX + 1] = "", text[RQ_TEXT_MAX + 1];
    yyjson_read_err why = { .msg = "id is not the name of a node" };
    if (rq_admin_redirected(a, request, response)) {
        return;
    }
    if (request->body_bytes > 0 && request->content_type != NULL &&
        strcmp(request->content_type, "application/json") == 0 && !read_id(request, true, id, &why)) {
        (void)snprintf(text, sizeof text, "invalid JSON: %.200s\n", why.msg);
        rq_http_text(response, 400, text);
        return;
    }
    if (atomic_load(&a->driver) == NULL) {
        rq_http_text(response, 503, "store not open\n");
        return;
    }
    if (!rq_admin_leader(a, &leader)) {
        rq_http_text(response, 503, "leader not found\n");
        return;
    }
    if (id[0] != '\0' && strcmp(id, leader.name) == 0) {
        put_error(response, "stepdown: ", "cannot step down to the current Leader");
        return;
    }
    enum rq_err err = hand_over(a, id, &leader, rq_http_timeout_ms(request), text);
    if (err != RQ_OK) {
        put_error(response, "stepdown: ", text);
        return;
    }
    response->served_by = a->http_adv_addr;
}

/* --- /remove -------------------------------------------------------------------------------------------------------------- */

static enum rq_err remove_node(struct rq_admin *a, const char *id, unsigned timeout_ms, char text[RQ_TEXT_MAX + 1])
{
    const uint64_t end_ms = rq_clock_ms() + timeout_ms;
    enum rq_err err;
    do {
        err = rq_cluster_remove(atomic_load(&a->cluster), id, text);
        if (err == RQ_OK || err == RQ_NOTFOUND ||
            (err != RQ_BUSY && strcmp(id, a->node_id) == 0 && rq_cluster_is_out(atomic_load(&a->cluster)))) {
            return RQ_OK;
        }
    } while (may_try_again(err, end_ms)); /* a leader that is to go hands over first, and says AWAY */
    return err;
}

static void delete_node(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    struct rq_member leader;
    char id[RQ_MEMBER_TEXT_MAX + 1], text[RQ_TEXT_MAX + 1];
    yyjson_read_err why;
    if (!read_id(request, false, id, &why)) {
        response->status = 400;
        return;
    }
    if (rq_admin_redirected(a, request, response)) {
        return;
    }
    if (!rq_admin_leader(a, &leader)) {
        rq_http_text(response, 503, "leader not found\n");
        return;
    }
    enum rq_err err = remove_node(a, id, rq_http_timeout_ms(request), text);
    if (err != RQ_OK) {
        put_error(response, "", text);
        return;
    }
    response->served_by = a->http_adv_addr;
}

const struct rq_http_route rq_nodes_routes[] = {
    { "/nodes", true, true, "GET", "status", get_nodes, .type = RQ_HTTP_JSON },
    { "/leader", false, true, "GET", "leader-ops", get_leader, .type = RQ_HTTP_JSON },
    { "/leader", false, true, "POST", "leader-ops", post_leader, .type = RQ_HTTP_JSON },
    { "/remove", true, true, "DELETE", "remove", delete_node },
};
const size_t rq_nodes_route_count = sizeof rq_nodes_routes / sizeof *rq_nodes_routes;
