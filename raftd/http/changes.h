/* Changes: GET /db/changes, the committed transactions of a database as server-sent events.  docs/rqlite-compatibility.md says what they
 * look like, and what a listener can rely on. */
#ifndef RAFTD_HTTP_CHANGES_H
#define RAFTD_HTTP_CHANGES_H

#include "raftd/db/change_feed.h"
#include "raftd/http/admin.h"
#include "raftd/http/server.h"

/* For the routes; feeds is set when the node serves. */
struct rq_changes {
    struct rq_admin *admin; /* borrows */
    _Atomic(struct rq_feeds *) feeds;
};

/* When admin's parts are set. */
enum rq_err rq_changes_open(struct rq_changes *c);
/* Ends all streams. */
void rq_changes_stop(struct rq_changes *c);

extern const struct rq_http_route rq_changes_routes[];
extern const size_t rq_changes_route_count;

#endif
