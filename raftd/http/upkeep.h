/* Upkeep: what rqlited does with its database by itself, where it leads: VACUUM and PRAGMA optimize, each when so much time has passed
 * since the start or since it was done last.  Only with the database that requests without `db` mean: others are their
 * applications'.
 * Called by one thread. */
#ifndef RAFTD_HTTP_UPKEEP_H
#define RAFTD_HTTP_UPKEEP_H

#include "raftd/http/admin.h"
#include "raftd/http/desk.h"

struct rq_upkeep_config {
    uint64_t vacuum_ns, optimize_ns; /* 0: never */
};

struct rq_upkeep;

enum rq_err rq_upkeep_new(const struct rq_upkeep_config *config, struct rq_admin *admin, struct rq_upkeep **ret_upkeep);
/* Begins what is due. */
void rq_upkeep_look(struct rq_upkeep *u, struct rq_desks *desks);

#endif
