/* Flags: raftd's command line, in rqlited's syntax and with its names for all that exists here.
 *
 * -name value, -name=value, --name the same; booleans only as -b or -b=VALUE.  Parsing stops at the first argument that is no
 * flag: the data directory. */
#ifndef RAFTD_FLAGS_H
#define RAFTD_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/http/https.h"
#include "raftd/net/tls.h"

struct rq_flags {
    const char *data_dir; /* all strings borrow from argv, or from buffers that live for ever */
    const char *node_id;
    const char *http_addr, *http_adv_addr, *http_allow_origin;
    const char *http_socket;           /* ours: path of a unix socket for HTTP; "": none */
    struct rq_http_tls_files http_tls; /* -http-cert and its family */
    const char *auth;                  /* the credentials file; "": none */
    bool foreign_keys;                 /* on every connection of HTTP's */
    uint64_t queue_capacity, queue_batch_size, queue_timeout_ns;
    bool queue_transaction;
    uint64_t tx_max, tx_idle_timeout_ns, tx_lifetime_ns; /* ours: transactions that HTTP clients keep open */
    uint64_t readers_max;                                /* of them to one database, that only read; 0: any number */
    const char *raft_addr, *raft_adv_addr;
    struct rq_tls_files node_tls; /* -node-ca-cert and its family */
    const char *raft_log_level;
    const char *join, *join_as;
    uint64_t join_attempts, join_interval_ns;
    uint64_t bootstrap_expect, bootstrap_timeout_ns;
    bool non_voter;
    uint64_t heartbeat_timeout_ns, election_timeout_ns;
    bool shutdown_stepdown, shutdown_remove, remove_shutdown;
    uint64_t reap_voter_ns, reap_reader_ns;            /* 0: never */
    uint64_t raft_snap;                                /* entries since the last descriptor that call for a new one */
    uint64_t raft_snap_int_ns;                         /* how often that is looked at */
    uint64_t auto_vacuum_int_ns, auto_optimize_int_ns; /* of the database that HTTP means; 0: never */
    uint64_t compare_int_ns;                           /* ours: the same for comparing with other nodes; 0: never */
    uint64_t scrub_int_ns;                             /* ours: from the start of one scrub to the next; 0: never */
    struct { /* what rqlited has and nothing here depends on: checked, and not looked at */
        uint64_t connect_timeout_ns, apply_timeout_ns, commit_timeout_ns, lease_timeout_ns, snap_wal_bytes;
        bool compress;
    } rqlited;
    bool refound; /* ours: a new cluster from the replicas as they are */
    bool version;
};

enum rq_flags_result {
    RQ_FLAGS_RUN,
    RQ_FLAGS_HELP,    /* usage was asked for: exit 0 */
    RQ_FLAGS_USAGE,   /* not understood: text and usage on stderr, exit 2 */
    RQ_FLAGS_INVALID, /* understood, and makes no sense: "fatal: text", exit 1 */
};

/* text: why, for USAGE and INVALID. */
enum rq_flags_result rq_flags_parse(int argc, char **argv, struct rq_flags *ret_flags, char text[512]);

void rq_flags_usage(int fd);

#endif
