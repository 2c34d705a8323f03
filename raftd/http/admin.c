#include "raftd/http/admin.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "raftd/run/metrics.h"

bool rq_admin_leader(struct rq_admin *a, struct rq_member *ret_leader)
{
    struct rq_driver *driver = atomic_load(&a->driver);
    const uint64_t leader = driver != NULL ? rq_driver_view(driver).leader_id : 0;
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
