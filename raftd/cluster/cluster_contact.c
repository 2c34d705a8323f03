#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"

#define UNCONNECTED_WAIT_MS 1000u

struct asking {
    struct rq_waiter waiter;
    struct rq_cluster_contact *contact;
    uint64_t begin_ns;
    enum rq_err asked;
};

static void about_self(const struct rq_cluster *c, struct rq_ask_about *ret)
{
    struct rq_driver *d = atomic_load(&c->driver);
    const struct rq_driver_view view = d != NULL ? rq_driver_view(d) : (struct rq_driver_view){ 0 };
    *ret = (struct rq_ask_about){
        .version = { c->config.version, (uint32_t)strlen(c->config.version) },
        .api_url = { c->config.api_url, (uint32_t)strlen(c->config.api_url) },
        .leads = view.leads,
        .term = view.term,
        .committed = view.committed,
    };
}

void rq_cluster_asked_about(struct rq_cluster *c, struct rq_call *call)
{
    RQ_COUNT(cluster, num_get_node_api_req);
    struct rq_ask_about about;
    struct rq_bytes reply;
    about_self(c, &about);
    rq_bytes_init(&reply, 4096);
    const enum rq_err err = rq_ask_put_about(&reply, &about);
    rq_cluster_reply(call, &reply, err);
}

static void fill_in(struct rq_cluster_contact *contact, const struct rq_ask_about *about)
{
    contact->leads = about->leads;
    contact->term = about->term;
    contact->committed = about->committed;
    (void)snprintf(contact->version, sizeof contact->version, "%.*s", (int)about->version.bytes, about->version.data);
    (void)snprintf(contact->api_url, sizeof contact->api_url, "%.*s", (int)about->api_url.bytes, about->api_url.data);
}

static void on_about(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct asking *a = ctx;
    struct rq_ask_about about;
    if (err == RQ_OK) {
        err = rq_ask_get_about(data, bytes, &about);
        data = NULL;
    }
    if (err == RQ_OK) {
        fill_in(a->contact, &about);
    }
    a->contact->ns = rq_clock_ns() - a->begin_ns;
    rq_waiter_done(&a->waiter, err, data, bytes);
}

static enum rq_err ask_about(struct rq_cluster *c, struct asking *a, unsigned timeout_ms)
{
    struct rq_peer_state state;
    struct rq_bytes body;
    const struct rq_ask ask = { .kind = RQ_ASK_ABOUT };
    if (!rq_peers_state(c->peers, a->contact->instance, &state)) {
        return RQ_NOTFOUND;
    }
    if (!state.connected[RQ_PEER_REQUESTS] && timeout_ms > UNCONNECTED_WAIT_MS) {
        timeout_ms = UNCONNECTED_WAIT_MS;
    }
    rq_bytes_init(&body, 64);
    enum rq_err err = rq_ask_put(&body, &ask);
    if (err == RQ_OK) {
        struct iovec part = { body.data, body.size };
        err = rq_peers_request(c->peers, a->contact->instance, &part, 1, timeout_ms, on_about, a);
    }
    rq_bytes_fini(&body);
    return err;
}

static void say_why(struct rq_cluster *c, const struct asking *a)
{
    struct rq_cluster_contact *contact = a->contact;
    struct rq_peer_state state;
    if (a->waiter.text[0] != '\0') {
        (void)snprintf(contact->text, sizeof contact->text, "%s", a->waiter.text);
    } else if (rq_peers_state(c->peers, contact->instance, &state) && !state.connected[RQ_PEER_REQUESTS] &&
               state.text[0] != '\0') {
        (void)snprintf(contact->text, sizeof contact->text, "%s", state.text);
    } else {
        (void)snprintf(contact->text, sizeof contact->text, "%s",
                       contact->err == RQ_NOTFOUND ? "no such member" : "timeout waiting for node to respond");
    }
}

void rq_cluster_contact(struct rq_cluster *c, struct rq_cluster_contact *contacts, unsigned count, unsigned timeout_ms)
{
    struct asking *asking = calloc(count, sizeof *asking);
    for (unsigned i = 0; i < count; i++) {
        const uint64_t instance = contacts[i].instance;
        contacts[i] = (struct rq_cluster_contact){ .instance = instance, .err = RQ_NOMEM };
    }
    if (asking == NULL) {
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        asking[i].contact = &contacts[i];
        asking[i].begin_ns = rq_clock_ns();
        rq_waiter_init(&asking[i].waiter);
        if (contacts[i].instance == c->config.instance) {
            struct rq_ask_about about;
            about_self(c, &about);
            fill_in(&contacts[i], &about);
            contacts[i].ns = rq_clock_ns() - asking[i].begin_ns;
            rq_waiter_done(&asking[i].waiter, RQ_OK, NULL, 0);
        } else {
            asking[i].asked = ask_about(c, &asking[i], timeout_ms);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        contacts[i].err = rq_waiter_wait(&asking[i].waiter, asking[i].asked);
        if (contacts[i].err != RQ_OK) {
            say_why(c, &asking[i]);
        }
    }
    free(asking);
}
