#include "raftd/http/admin.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "raftd/run/metrics.h"

#define SILENCE_MS_MIN 2000u
#define SILENCE_TIMES  4u /* of the time after which others stand for election */

static uint64_t silence_ms(const struct rq_admin *a)
{
    const uint64_t ns = a->times.election_ns > a->times.heartbeat_ns ? a->times.election_ns : a->times.heartbeat_ns;
    const uint64_t ms = SILENCE_TIMES * (ns / 1000000u);
    return ms > SILENCE_MS_MIN ? ms : SILENCE_MS_MIN;
}

bool rq_admin_has_leader(struct rq_admin *a)
{
    struct rq_driver *driver = atomic_load(&a->driver);
    struct rq_peer_state state;
    if (driver == NULL) {
        return false;
    }
    const struct rq_driver_view view = rq_driver_view(driver);
    if (view.leads || view.leader_id == 0) {
        return view.leads;
    }
    return !rq_peers_state(rq_cluster_peers(atomic_load(&a->cluster)), view.leader_id, &state) ||
           state.heard_ms_ago == UINT64_MAX || state.heard_ms_ago < silence_ms(a);
}

bool rq_admin_leader(struct rq_admin *a, struct rq_member *ret_leader)
{
    struct rq_driver *driver = atomic_load(&a->driver);
    const uint64_t leader = rq_admin_has_leader(a) ? rq_driver_view(driver).leader_id : 0;
    struct rq_members members;
    if (leader == 0 || !rq_catalog_ready(atomic_load(&a->catalog))) {
        return false;
    }
    rq_cluster_members(atomic_load(&a->cluster), &members);
    const struct rq_member *m = rq_members_find(&members, leader);
    if (m != NULL) {
        *ret_leader = *m;
    }
    return m != NULL;
}

bool rq_admin_leads(struct rq_admin *a)
{
    struct rq_driver *driver = atomic_load(&a->driver);
    return driver != NULL && rq_driver_view(driver).leads;
}

bool rq_admin_redirected(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response)
{
    struct rq_member leader;
    if (!rq_http_has(request, "redirect") || rq_admin_leads(a)) {
        return false;
    }
    struct rq_cluster_contact contact = { 0 };
    if (rq_admin_leader(a, &leader)) {
        contact.instance = leader.instance;
        rq_cluster_contact(atomic_load(&a->cluster), &contact, 1, rq_http_timeout_ms(request));
    }
    if (contact.api_url[0] == '\0') {
        RQ_COUNT(http, leader_not_found);
        rq_http_text(response, 500, "leader not found\n");
    } else {
        rq_http_redirect(request, response, contact.api_url);
    }
    return true;
}
