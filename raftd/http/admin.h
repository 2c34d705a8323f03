/* Admin: what the endpoints about this node and its cluster work with. */
#ifndef RAFTD_HTTP_ADMIN_H
#define RAFTD_HTTP_ADMIN_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/cluster/cluster.h"
#include "raftd/db/background.h"
#include "raftd/db/catalog.h"
#include "raftd/db/driver.h"
#include "raftd/http/https.h"
#include "raftd/http/server.h"

#define RQ_ADMIN_DATABASE "db.sqlite" /* the one that rqlite's clients mean */

/* As the flags say; for those who look at the status. */
struct rq_admin_times {
    uint64_t election_ns, heartbeat_ns, reap_voter_ns, reap_reader_ns, snapshot_ns, snapshot_entries;
};

struct rq_sql_service;
struct rq_changes;

/* Set before the server is started, but for the first four: NULL until the node serves; driver comes last. */
struct rq_admin {
    _Atomic(struct rq_catalog *) catalog;
    _Atomic(struct rq_cluster *) cluster;
    _Atomic(struct rq_background *) background;
    _Atomic(struct rq_driver *) driver;
    struct rq_sql_service *sql;
    struct rq_changes *changes;
    struct rq_disk *disk;
    const char *dir, *raft_dir, *scratch_dir, *node_id, *version;
    const char *http_addr, *http_adv_addr, *raft_adv_addr;
    const char *api_url; /* "http://host:port" */
    const char *allow_origin;
    const struct rq_http_tls_files *tls;          /* NULL: plain HTTP */
    bool auth;                                    /* there is a credentials file */
    bool foreign_keys;                            /* are enforced in what comes over HTTP */
    uint64_t started_s;                           /* seconds since 1970 */
    _Atomic int64_t last_backup_s;                /* likewise; 0: none */
    _Atomic int64_t last_vacuum_s, next_vacuum_s; /* automatic ones, likewise */
    struct rq_admin_times times;
};

/* A leader is known, and was heard of late: a node without a vote stands for no election when it is not. */
bool rq_admin_has_leader(struct rq_admin *a);
/* The node serves, and has a leader. */
bool rq_admin_leader(struct rq_admin *a, struct rq_member *ret_leader);
bool rq_admin_leads(struct rq_admin *a);

/* With ?redirect on a node that does not lead: the answer is made, 301 to the leader or 500. */
bool rq_admin_redirected(struct rq_admin *a, const struct rq_http_request *request, struct rq_http_response *response);

#endif
