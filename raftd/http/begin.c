#include "raftd/http/begin.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "raftd/db/applied.h"
#include "raftd/http/databases.h"
#include "raftd/http/json.h"
#include "raftd/http/recent.h"
#include "raftd/http/results.h"
#include "raftd/http/sql.h"
#include "raftd/run/clock.h"
#include "raftd/run/duration.h"
#include "raftd/run/metrics.h"

#define OPEN_MS 10000u

static void say(struct rq_http_response *response, unsigned status, const char *text)
{
    char line[RQ_HTTP_TEXT_MAX + 2];
    (void)snprintf(line, sizeof line, "%s\n", text);
    rq_http_text(response, status, line);
}

static void no_leader(struct rq_http_response *response)
{
    RQ_COUNT(http, leader_not_found);
    say(response, 503, "leader not found");
}

/* No results, in the form that other SQL endpoints have. */
static void answer(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                   uint64_t begin_ns, uint64_t index, const char *error)
{
    struct rq_sql_form form;
    struct rq_sql_results results;
    const struct rq_sql_coda coda = {
        .seconds = (double)(rq_clock_ns() - begin_ns) / 1e9,
        .raft_index = index,
        .error = error,
    };
    rq_sql_form_read(request, &form);
    rq_sql_results_init(&results, (size_t)RQ_HTTP_TEXT_MAX * 8, NULL);
    if (rq_sql_answer(&results, &form, &coda) == RQ_OK) {
        response->status = 200;
        response->content_type = "application/json; charset=utf-8";
        response->served_by = a->http_adv_addr;
        rq_bytes_fini(&response->body);
        response->body = results.json;
    } else {
        rq_sql_results_fini(&results);
        say(response, 500, "out of memory");
    }
}

/* --- begin ---------------------------------------------------------------------------------------------------------------- */

/* What is asked for; false: the answer is made. */
static bool read_wish(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                      struct rq_tx_wish *ret_wish)
{
    const struct rq_transactions_config *config = rq_transactions_config(rq_sql_service_transactions(a->sql));
    const char *mode = rq_http_param(request, "mode"), *idle = rq_http_param(request, "idle_timeout");
    const unsigned timeout_ms = rq_http_timeout_ms(request);
    char text[RQ_HTTP_TEXT_MAX], most[RQ_DURATION_TEXT];
    uint64_t idle_ns = config->idle_ms * 1000000u;
    *ret_wish = (struct rq_tx_wish){ .wait_ms = timeout_ms < RQ_TX_TURN_WAIT_MS ? timeout_ms : RQ_TX_TURN_WAIT_MS };
    if (mode != NULL && strcasecmp(mode, "immediate") != 0 && strcasecmp(mode, "deferred") != 0) {
        say(response, 400, "mode is neither immediate nor deferred");
        return false;
    }
    ret_wish->deferred = mode != NULL && strcasecmp(mode, "deferred") == 0;
    if (!ret_wish->deferred && !rq_http_may(response, "execute")) {
        say(response, 401,
            "a transaction that may write wants the permission execute; mode=deferred can be begun without");
        return false;
    }
    if (idle != NULL) {
        (void)rq_parse_duration(idle, &idle_ns); /* was looked at */
    }
    ret_wish->idle_ms = idle_ns / 1000000u;
    if (ret_wish->idle_ms == 0 || ret_wish->idle_ms > config->lifetime_ms) {
        rq_format_duration(config->lifetime_ms * 1000000u, most);
        (void)snprintf(text, sizeof text, "idle_timeout has to be between 1ms and %s", most);
        say(response, 400, text);
        return false;
    }
    return true;
}

/* NULL: the answer is made.  The database that rqlite's clients mean is there when somebody may write it. */
static struct rq_desk *find_desk(struct rq_admin *a, const struct rq_http_request *request,
                                 struct rq_http_response *response)
{
    const char *name = rq_admin_database_name(request);
    struct rq_desks *desks = rq_sql_service_desks(a->sql);
    struct rq_desk *desk = NULL;
    struct rq_driver *driver = atomic_load(&a->driver);
    enum rq_err err = rq_desk_find(desks, name, strlen(name), &desk);
    if (err == RQ_NOTFOUND && strcmp(name, RQ_ADMIN_DATABASE) == 0 && rq_http_may(response, "execute")) {
        err = rq_admin_create(a, name, rq_http_timeout_ms(request), NULL);
        if (err != RQ_OK) {
            say(response, 503, rq_admin_create_text(err));
            return NULL;
        }
        err = rq_desk_find(desks, name, strlen(name), &desk);
    }
    if (err != RQ_OK) {
        say(response, err == RQ_NOTFOUND ? 404 : 500, err == RQ_NOTFOUND ? "no such database" : "out of memory");
        return NULL;
    }
    if (!rq_desk_is_open(desk)) {
        if (!rq_applied_wait(atomic_load(&a->catalog), driver, rq_driver_view(driver).delivered, OPEN_MS)) {
            rq_desk_unref(desk);
            say(response, 503, "this node has not opened the database yet");
            return NULL;
        }
        rq_desk_opened(desk);
    }
    return desk;
}

/* Where the one that is asked for has to be as fresh as its level says; false: the answer is made. */
static bool is_fresh(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response)
{
    const char *level = rq_http_param(request, "level");
    if (level != NULL && strcasecmp(level, "none") == 0) {
        return true;
    }
    if (level != NULL && strcasecmp(level, "auto") == 0) {
        struct rq_member self;
        rq_cluster_self(atomic_load(&a->cluster), &self);
        if (!self.votes) {
            return true;
        }
    }
    return rq_http_recent(a, rq_http_timeout_ms(request), response);
}

static void put_begun(const struct rq_http_request *request, struct rq_http_response *response,
                      const struct rq_tx_wish *wish, uint64_t lifetime_ms, const struct rq_transaction *tx)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_strcpy(doc, root, "tx", rq_transaction_id(tx));
    yyjson_mut_obj_add_strcpy(doc, root, "db", rq_transaction_database(tx));
    yyjson_mut_obj_add_str(doc, root, "mode", wish->deferred ? "deferred" : "immediate");
    rq_http_put_duration(doc, root, "idle_timeout", wish->idle_ms * 1000000u);
    rq_http_put_duration(doc, root, "lifetime", lifetime_ms * 1000000u);
    rq_http_json(response, doc, root, rq_http_has(request, "pretty"));
}

static void begin(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                  const struct rq_tx_wish *wish)
{
    struct rq_transactions *all = rq_sql_service_transactions(a->sql);
    struct rq_transaction *tx;
    char text[RQ_TX_TEXT_MAX];
    switch ((int)rq_transaction_begin(all, wish, &tx, text)) {
        case RQ_OK:
            put_begun(request, response, wish, rq_transactions_config(all)->lifetime_ms, tx);
            response->served_by = a->http_adv_addr;
            (void)rq_transaction_give(tx);
            break;
        case RQ_TOOBIG:
            say(response, 503, "too many transactions are open");
            break;
        case RQ_SHUTDOWN:
            say(response, 503, "this node is shutting down");
            break;
        case RQ_BUSY:
            if (!rq_admin_has_leader(a)) {
                no_leader(response);
            } else {
                say(response, 503, "another writer has the database");
            }
            break;
        default:
            say(response, 503, text[0] != '\0' ? text : "out of memory");
            break;
    }
}

static bool serves(struct rq_admin *a, struct rq_http_response *response)
{
    const bool does = atomic_load(&a->driver) != NULL && rq_catalog_ready(atomic_load(&a->catalog));
    if (!does) {
        say(response, 503, "store not open");
    }
    return does;
}

static void post_begin(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    struct rq_tx_wish wish;
    if (!serves(a, response) || rq_admin_redirected(a, request, response) || !read_wish(a, request, response, &wish)) {
        return;
    }
    if (!wish.deferred && !rq_admin_has_leader(a)) {
        no_leader(response);
        return;
    }
    if (wish.deferred && !is_fresh(a, request, response)) {
        return;
    }
    wish.desk = find_desk(a, request, response);
    if (wish.desk != NULL) {
        begin(a, request, response, &wish);
        rq_desk_unref(wish.desk);
    }
}

/* --- who cannot have it --------------------------------------------------------------------------------------------------- */

static const char *end_text(enum rq_tx_end end)
{
    switch (end) {
        case RQ_TX_COMMITTED:
            return "this transaction was committed";
        case RQ_TX_ROLLED_BACK:
            return "this transaction was rolled back";
        case RQ_TX_IDLE:
            return "this transaction was rolled back: no request came within its idle_timeout";
        case RQ_TX_OLD:
            return "this transaction was rolled back: it was open for too long";
        case RQ_TX_GAVE_WAY:
            return "this transaction was rolled back: it was idle while another writer waited";
        case RQ_TX_FAILED:
            return "this transaction was rolled back, by an error of one of its statements";
        case RQ_TX_REFUSED:
            return "this transaction was not committed: nothing was written";
        case RQ_TX_UNKNOWN:
            return "this transaction is over: whether it was committed, /db/commit tells when it is known";
        case RQ_TX_STOPPED:
            break;
    }
    return "this transaction was rolled back: this node is shutting down";
}

/* 421: what is asked for cannot be had from this server, but from another one. */
static void send_elsewhere(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                           uint64_t instance)
{
    struct rq_members members;
    struct rq_cluster_contact contact = { .instance = instance };
    char text[RQ_HTTP_TEXT_MAX];
    rq_cluster_members(atomic_load(&a->cluster), &members);
    const struct rq_member *m = rq_members_find(&members, instance);
    if (m == NULL) {
        say(response, 404, "no such transaction");
        return;
    }
    rq_cluster_contact(atomic_load(&a->cluster), &contact, 1, rq_http_timeout_ms(request));
    if (contact.err == RQ_OK && rq_http_has(request, "redirect")) {
        rq_http_redirect_as(request, response, 307, contact.api_url);
        return;
    }
    (void)snprintf(text, sizeof text, "this transaction is on node %.100s%s%.300s", m->name,
                   contact.err == RQ_OK ? ": " : ", which cannot be reached",
                   contact.err == RQ_OK ? contact.api_url : "");
    say(response, 421, text);
}

void rq_transaction_refuse(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                           enum rq_err err, const struct rq_tx_found *found)
{
    if (err == RQ_FOREIGN) {
        send_elsewhere(a, request, response, found->instance);
    } else if (err == RQ_BUSY) {
        say(response, 409, "another request of this transaction is being answered");
    } else {
        say(response, 404, found->was ? end_text(found->end) : "no such transaction");
    }
}

/* --- commit and rollback -------------------------------------------------------------------------------------------------- */

/* What an outcome means: docs/protocol.md. */
static void put_outcome(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                        uint64_t begin_ns, const struct rq_tx_outcome *outcome)
{
    char text[RQ_TX_TEXT_MAX + 64];
    if (outcome->open) {
        (void)snprintf(text, sizeof text, "%s: the transaction is still open", outcome->text);
        answer(a, request, response, begin_ns, 0, text);
        return;
    }
    switch ((int)outcome->err) {
        case RQ_OK:
            answer(a, request, response, begin_ns, outcome->index, NULL);
            break;
        case RQ_UNKNOWN:
            say(response, 504,
                "the outcome is unknown: the transaction may or may not be committed; to ask again, commit it again");
            break;
        case RQ_REFUSED:
            say(response, 503, "another writer was faster: nothing was written");
            break;
        case RQ_AWAY:
        case RQ_UNREADY:
            say(response, 503, "leader not found: nothing was written");
            break;
        case RQ_BUSY:
            say(response, 503, "another writer has the database: nothing was written");
            break;
        case RQ_NOTFOUND:
            say(response, 404, "no such database");
            break;
        default:
            answer(a, request, response, begin_ns, 0, outcome->text);
            break;
    }
}

/* Of one that is over: by its first COMMIT, which this one asks for again? */
static void commit_again(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response,
                         uint64_t begin_ns, struct rq_tx_found *found)
{
    struct rq_tx_outcome outcome = { .err = RQ_UNKNOWN };
    if (found->was && found->end == RQ_TX_UNKNOWN) {
        rq_transaction_ask(rq_sql_service_transactions(a->sql), rq_http_param(request, "tx"),
                           rq_clock_ms() + rq_http_timeout_ms(request), found);
    }
    if (found->was && found->end == RQ_TX_COMMITTED) {
        outcome = (struct rq_tx_outcome){ .err = RQ_OK, .index = found->index };
    }
    if (found->was && (found->end == RQ_TX_UNKNOWN || found->end == RQ_TX_COMMITTED)) {
        put_outcome(a, request, response, begin_ns, &outcome);
    } else if (found->was && found->end == RQ_TX_REFUSED) {
        say(response, 503, end_text(found->end));
    } else {
        rq_transaction_refuse(a, request, response, RQ_NOTFOUND, found);
    }
}

static enum rq_err take(struct rq_admin *a, const struct rq_http_request *request, struct rq_tx_found *ret_found)
{
    const char *id = rq_http_param(request, "tx");
    return rq_transaction_take(rq_sql_service_transactions(a->sql), id != NULL ? id : "", rq_http_param(request, "db"),
                               ret_found);
}

static void post_commit(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    const uint64_t begin_ns = rq_clock_ns();
    struct rq_tx_found found;
    if (!serves(a, response)) {
        return;
    }
    enum rq_err err = take(a, request, &found);
    if (err == RQ_OK) {
        struct rq_tx_outcome outcome;
        rq_transaction_commit(found.tx, rq_clock_ms() + rq_http_timeout_ms(request), &outcome);
        put_outcome(a, request, response, begin_ns, &outcome);
    } else if (err == RQ_NOTFOUND) {
        commit_again(a, request, response, begin_ns, &found);
    } else {
        rq_transaction_refuse(a, request, response, err, &found);
    }
}

static void post_rollback(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_admin *a = ctx;
    const uint64_t begin_ns = rq_clock_ns();
    struct rq_tx_found found;
    if (!serves(a, response)) {
        return;
    }
    enum rq_err err = take(a, request, &found);
    if (err == RQ_OK) {
        rq_transaction_rollback(found.tx);
    }
    if (err == RQ_OK || (err == RQ_NOTFOUND && found.was && found.end == RQ_TX_ROLLED_BACK)) {
        answer(a, request, response, begin_ns, 0, NULL);
    } else {
        rq_transaction_refuse(a, request, response, err, &found);
    }
}

const struct rq_http_route rq_begin_routes[] = {
    { "/db/begin", true, true, "POST", "execute,query", post_begin },
    { "/db/commit", true, true, "POST", "execute,query", post_commit },
    { "/db/rollback", true, true, "POST", "execute,query", post_rollback },
};
const size_t rq_begin_route_count = sizeof rq_begin_routes / sizeof *rq_begin_routes;
