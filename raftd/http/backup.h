/* Backup: GET /db/backup[?db=NAME][&fmt=sql|delete|binary][&tables=a,b][&vacuum][&compress][&noleader][&redirect]
 *
 * From this host's replica, whichever node is asked: as a linearizable read, when it shows all that was committed before.  A slow client
 * is served from a file (spool.h). */
#ifndef RAFTD_HTTP_BACKUP_H
#define RAFTD_HTTP_BACKUP_H

#include "raftd/http/admin.h"
#include "raftd/http/server.h"

extern const struct rq_http_route rq_backup_routes[]; /* their ctx is a struct rq_admin */
extern const size_t rq_backup_route_count;

#endif
