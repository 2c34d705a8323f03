#include "raftd/flags.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "raftd/net/address.h"
#include "raftd/run/duration.h"

/* ABOVE_0: a duration that is not given if there is to be none. */
enum flag_kind { FLAG_STRING, FLAG_BOOL, FLAG_UINT, FLAG_DURATION, FLAG_ABOVE_0 };

struct flag {
    const char *name;
    enum flag_kind kind;
    size_t offset; /* in struct rq_flags */
    const char *initial;
    const char *meaning;
};

#define FLAG(name, kind, field, initial, meaning) { name, kind, offsetof(struct rq_flags, field), initial, meaning }
#define WITHOUT_EFFECT                            "accepted, so that command lines of rqlited may stay; without effect here"

static const struct flag flags[] = {
    FLAG("auth", FLAG_STRING, auth, "",
         "JSON file that says who may do what over HTTP; if not set, everybody everything"),
    FLAG("auto-optimize-int", FLAG_DURATION, auto_optimize_int_ns, "24h",
         "how often the leader runs PRAGMA optimize on the database that HTTP means; 0 for never"),
    FLAG("auto-vacuum-int", FLAG_DURATION, auto_vacuum_int_ns, "0h0m0s",
         "how often the leader runs VACUUM on it; 0 for never"),
    FLAG("bootstrap-expect", FLAG_UINT, bootstrap_expect, "0",
         "found a cluster when so many nodes have found each other by -join"),
    FLAG("bootstrap-expect-timeout", FLAG_DURATION, bootstrap_timeout_ns, "120s", "how long to wait for them"),
    FLAG("cluster-connect-timeout", FLAG_DURATION, rqlited.connect_timeout_ns, "30s", WITHOUT_EFFECT),
    FLAG("compare-int", FLAG_DURATION, compare_int_ns, "24h",
         "how often all databases are compared with those of the other nodes; 0 for never"),
    FLAG("compress-snap-transport", FLAG_BOOL, rqlited.compress, "false", WITHOUT_EFFECT),
    FLAG("db-max-ro-conns", FLAG_UINT, readers_max, "256",
         "connections for HTTP to one database that only read; 0: any number"),
    FLAG("fk", FLAG_BOOL, foreign_keys, "false", "enforce foreign keys in what comes over HTTP"),
    FLAG("http-addr", FLAG_STRING, http_addr, "localhost:4001", "HTTP server bind address"),
    FLAG("http-adv-addr", FLAG_STRING, http_adv_addr, "", "advertised HTTP address; if not set, same as -http-addr"),
    FLAG("http-allow-origin", FLAG_STRING, http_allow_origin, "", "value of the Access-Control-Allow-Origin header"),
    FLAG("http-ca-cert", FLAG_STRING, http_tls.ca_cert, "", "CA certificate for the certificates of HTTPS clients"),
    FLAG("http-cert", FLAG_STRING, http_tls.cert, "", "certificate of the HTTP server, which then speaks HTTPS"),
    FLAG("http-key", FLAG_STRING, http_tls.key, "", "private key of -http-cert"),
    FLAG("http-socket", FLAG_STRING, http_socket, "", "path of a unix socket on which HTTP is served as well"),
    FLAG("http-tx-idle-timeout", FLAG_DURATION, tx_idle_timeout_ns, "10s",
         "a transaction of /db/begin to which no request comes for so long is rolled back"),
    FLAG("http-tx-lifetime", FLAG_DURATION, tx_lifetime_ns, "1m",
         "such a transaction is rolled back after so long in any case"),
    FLAG("http-tx-max", FLAG_UINT, tx_max, "32", "such transactions that may be open at once"),
    FLAG("http-verify-client", FLAG_BOOL, http_tls.verify_client, "false",
         "require certificates of HTTPS clients (mutual TLS)"),
    FLAG("http-verify-common-name", FLAG_STRING, http_tls.verify_common_name, "",
         "common name that the certificate of an HTTPS client must have"),
    FLAG("join", FLAG_STRING, join, "",
         "comma-delimited raft addresses, or http:// or https:// URLs, of nodes, through any of which to join a "
         "cluster"),
    FLAG("join-as", FLAG_STRING, join_as, "", "user of the -auth file in whose name to join a cluster"),
    FLAG("join-attempts", FLAG_UINT, join_attempts, "5", "rounds over the addresses of -join"),
    FLAG("join-interval", FLAG_DURATION, join_interval_ns, "3s", "pause between two rounds"),
    FLAG("node-id", FLAG_STRING, node_id, "", "unique ID of the node; if not set, the advertised raft address"),
    FLAG("node-ca-cert", FLAG_STRING, node_tls.ca_cert, "", "CA certificate for the certificates of other nodes"),
    FLAG("node-cert", FLAG_STRING, node_tls.cert, "",
         "certificate shown to other nodes, in addition to the node's own key"),
    FLAG("node-key", FLAG_STRING, node_tls.key, "", "private key of -node-cert"),
    FLAG("node-no-verify", FLAG_BOOL, node_tls.no_verify, "false", "do not verify the certificates of other nodes"),
    FLAG("node-verify-client", FLAG_BOOL, node_tls.verify_client, "false",
         "require certificates of nodes that connect (mutual TLS)"),
    FLAG("node-verify-common-name", FLAG_STRING, node_tls.verify_common_name, "",
         "common name that the certificate of a node that connects must have"),
    FLAG("node-verify-server-name", FLAG_STRING, node_tls.verify_server_name, "",
         "host name that the certificate of a node that is connected to must have"),
    FLAG("raft-addr", FLAG_STRING, raft_addr, "localhost:4002", "raft communication bind address"),
    FLAG("raft-adv-addr", FLAG_STRING, raft_adv_addr, "", "advertised raft address; if not set, same as -raft-addr"),
    FLAG("raft-apply-timeout", FLAG_DURATION, rqlited.apply_timeout_ns, "10s", WITHOUT_EFFECT),
    FLAG("raft-cluster-remove-shutdown", FLAG_BOOL, shutdown_remove, "false",
         "remove this node from the cluster when it is stopped"),
    FLAG("raft-commit-timeout", FLAG_DURATION, rqlited.commit_timeout_ns, "50ms", WITHOUT_EFFECT),
    FLAG("raft-election-timeout", FLAG_DURATION, election_timeout_ns, "300ms",
         "as -raft-heartbeat-timeout; the longer of the two counts"),
    FLAG("raft-heartbeat-timeout", FLAG_DURATION, heartbeat_timeout_ns, "300ms",
         "without hearing the leader for one to two of these a node stands for election"),
    FLAG("raft-leader-lease-timeout", FLAG_DURATION, rqlited.lease_timeout_ns, "0h0m0s", WITHOUT_EFFECT),
    FLAG("raft-log-level", FLAG_STRING, raft_log_level, "INFO", "minimum level of log lines: ERROR, WARN, INFO, DEBUG"),
    FLAG("raft-non-voter", FLAG_BOOL, non_voter, "false", "a read replica: gets every commit, has no vote"),
    FLAG("raft-reap-node-timeout", FLAG_ABOVE_0, reap_voter_ns, "0h0m0s",
         "the leader removes a voter that it has not heard for so long; if not set, never"),
    FLAG("raft-reap-read-only-node-timeout", FLAG_ABOVE_0, reap_reader_ns, "0h0m0s",
         "the same for nodes without a vote"),
    FLAG("raft-remove-shutdown", FLAG_BOOL, remove_shutdown, "false",
         "stop when this node was removed from the cluster"),
    FLAG("raft-shutdown-stepdown", FLAG_BOOL, shutdown_stepdown, "true",
         "hand leadership to another node before stopping"),
    FLAG("raft-snap", FLAG_UINT, raft_snap, "8192", "log entries since the last snapshot that call for a new one"),
    FLAG("raft-snap-int", FLAG_DURATION, raft_snap_int_ns, "10s", "how often the log is checked for it"),
    FLAG("raft-snap-wal-size", FLAG_UINT, rqlited.snap_wal_bytes, "4194304", WITHOUT_EFFECT),
    FLAG("refound", FLAG_BOOL, refound, "false",
         "found a new cluster from the replicas in the data directory as they are"),
    FLAG("scrub-int", FLAG_DURATION, scrub_int_ns, "1h",
         "how often every page of every database is compared with its hash; 0 for never"),
    FLAG("version", FLAG_BOOL, version, "false", "show version and exit"),
    FLAG("write-queue-batch-size", FLAG_UINT, queue_batch_size, "128", "queued writes that are made together"),
    FLAG("write-queue-capacity", FLAG_UINT, queue_capacity, "1024",
         "queued writes that one database may have waiting; further ones have to wait for room"),
    FLAG("write-queue-timeout", FLAG_DURATION, queue_timeout_ns, "50ms", "how long a queued write waits for others"),
    FLAG("write-queue-tx", FLAG_BOOL, queue_transaction, "false",
         "queued writes that are made together are one transaction"),
};
#define MIN_ELECTION_NS 50000000u
#define MIN_TX_NS       1000000u
#define FLAG_COUNT      (sizeof flags / sizeof *flags)

void rq_flags_usage(int fd)
{
    dprintf(fd,
            "raftd serves the SQLite databases in a directory, each commit durable on a majority of hosts.\n\n"
            "Usage: raftd [flags] <data directory>\n");
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        static const char *const kinds[] = { " string", "", " uint", " duration", " duration" };
        dprintf(fd, "  -%s%s\n    \t%s", flags[i].name, kinds[flags[i].kind], flags[i].meaning);
        if (flags[i].initial[0] != '\0' && strcmp(flags[i].initial, "false") != 0) {
            dprintf(fd, flags[i].kind == FLAG_STRING ? " (default \"%s\")" : " (default %s)", flags[i].initial);
        }
        dprintf(fd, "\n");
    }
}

static bool parse_bool(const char *s, bool *ret)
{
    static const char *const yes[] = { "1", "t", "T", "TRUE", "true", "True" };
    static const char *const no[] = { "0", "f", "F", "FALSE", "false", "False" };
    for (size_t i = 0; i < 6; i++) {
        if (strcmp(s, yes[i]) == 0 || strcmp(s, no[i]) == 0) {
            *ret = strcmp(s, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static bool set_flag(struct rq_flags *f, const struct flag *flag, const char *value)
{
    void *field = (char *)f + flag->offset;
    switch (flag->kind) {
        case FLAG_STRING:
            *(const char **)field = value;
            return true;
        case FLAG_BOOL:
            return parse_bool(value, field);
        case FLAG_UINT: {
            char *end;
            errno = 0;
            unsigned long long v = strtoull(value, &end, 0);
            if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0) {
                return false;
            }
            *(uint64_t *)field = v;
            return true;
        }
        case FLAG_DURATION:
        case FLAG_ABOVE_0:
            return rq_parse_duration(value, field);
    }
    return false;
}

static bool is_zero(const struct rq_flags *f, const struct flag *flag)
{
    return *(const uint64_t *)((const char *)f + flag->offset) == 0;
}

static bool is_routable(const char *host)
{
    return strcmp(host, "0.0.0.0") != 0 && strcmp(host, "::") != 0;
}

static bool is_number(const char *s)
{
    return *s != '\0' && strspn(s, "0123456789") == strlen(s);
}

/* The order, and the words, are rqlited's. */
static enum rq_flags_result validate(struct rq_flags *f, char text[512])
{
    char host[256], port[64];
#define REFUSE(...)                             \
    do {                                        \
        (void)snprintf(text, 512, __VA_ARGS__); \
        return RQ_FLAGS_INVALID;                \
    } while (0)

    if (f->data_dir[strspn(f->data_dir, " \t\r\n")] == '\0') {
        REFUSE("data directory path is required");
    }
    if ((f->http_tls.cert[0] == '\0') != (f->http_tls.key[0] == '\0')) {
        REFUSE("either both -http-cert and -http-key must be set, or neither");
    }
    if ((f->node_tls.cert[0] == '\0') != (f->node_tls.key[0] == '\0')) {
        REFUSE("either both -node-cert and -node-key must be set, or neither");
    }
    if (f->http_tls.verify_common_name[0] != '\0' && !f->http_tls.verify_client) {
        REFUSE("-http-verify-common-name requires -http-verify-client");
    }
    if (f->node_tls.verify_common_name[0] != '\0' && !f->node_tls.verify_client) {
        REFUSE("-node-verify-common-name requires -node-verify-client");
    }
    if (strcmp(f->http_addr, f->raft_addr) == 0) {
        REFUSE("HTTP and Raft addresses must differ");
    }
    if (f->raft_adv_addr[0] == '\0') {
        f->raft_adv_addr = f->raft_addr;
    }
    if (f->http_adv_addr[0] == '\0') {
        f->http_adv_addr = f->http_addr;
    }
    if (f->node_id[0] == '\0') {
        f->node_id = f->raft_adv_addr;
    }
    if (strncasecmp(f->http_addr, "http", 4) == 0 || strncasecmp(f->http_adv_addr, "http", 4) == 0) {
        REFUSE("HTTP options should not include protocol (http:// or https://)");
    }
    if (!rq_split_host_port(f->http_addr, host, port)) {
        REFUSE("HTTP bind address not valid");
    }
    if (!rq_split_host_port(f->http_adv_addr, host, port)) {
        REFUSE("HTTP advertised HTTP address not valid");
    }
    if (!is_routable(host)) {
        REFUSE("advertised HTTP address is not routable (%s), specify it via -http-addr or -http-adv-addr", host);
    }
    if (!rq_split_host_port(f->raft_addr, host, port)) {
        REFUSE("raft bind address not valid");
    }
    if (!is_number(port)) {
        REFUSE("raft bind port not valid");
    }
    if (!rq_split_host_port(f->raft_adv_addr, host, port)) {
        REFUSE("raft advertised address not valid");
    }
    if (!is_routable(host)) {
        REFUSE("advertised Raft address is not routable (%s), specify it via -raft-addr or -raft-adv-addr", host);
    }
    if (!is_number(port)) {
        REFUSE("raft advertised port is not valid");
    }
    if (strcmp(f->http_adv_addr, f->raft_adv_addr) == 0) {
        REFUSE("advertised HTTP and Raft addresses must differ");
    }
    if (f->bootstrap_expect > 0 && f->non_voter) {
        REFUSE("bootstrapping only applicable to voting nodes");
    }
    if (f->heartbeat_timeout_ns < MIN_ELECTION_NS || f->election_timeout_ns < MIN_ELECTION_NS) {
        REFUSE("-raft-heartbeat-timeout and -raft-election-timeout have to be at least 50ms");
    }
    if (f->tx_idle_timeout_ns < MIN_TX_NS || f->tx_lifetime_ns < MIN_TX_NS) {
        REFUSE("-http-tx-idle-timeout and -http-tx-lifetime have to be at least 1ms");
    }
    for (const char *at = f->join; *at != '\0';
         at += at[strcspn(at, ",")] == ',' ? strcspn(at, ",") + 1 : strcspn(at, ",")) {
        char address[400];
        (void)snprintf(address, sizeof address, "%.*s", (int)strcspn(at, ","), at);
        const bool is_url = strncasecmp(address, "http://", 7) == 0 || strncasecmp(address, "https://", 8) == 0;
        if (!is_url && !rq_split_host_port(address, host, port)) {
            REFUSE("%.300s is an invalid join address", address);
        }
        if (f->bootstrap_expect == 0 && strcmp(address, f->raft_adv_addr) == 0) {
            REFUSE("node cannot join with itself unless bootstrapping");
        }
    }
#undef REFUSE
    return RQ_FLAGS_RUN;
}

enum rq_flags_result rq_flags_parse(int argc, char **argv, struct rq_flags *ret_flags, char text[512])
{
    struct rq_flags f = { 0 };
    int i = 1;

    text[0] = '\0';
    for (size_t k = 0; k < FLAG_COUNT; k++) {
        (void)set_flag(&f, &flags[k], flags[k].initial); /* the table's own values parse: a test says so */
    }
    for (; i < argc; i++) {
        const char *arg = argv[i];
        if (arg[0] != '-' || arg[1] == '\0') {
            break;
        }
        if (strcmp(arg, "--") == 0) {
            i++;
            break;
        }
        const char *name = arg + (arg[1] == '-' ? 2 : 1);
        size_t name_bytes = strcspn(name, "=");
        if (name_bytes == 0 || name[0] == '-') {
            (void)snprintf(text, 512, "bad flag syntax: %s", arg);
            return RQ_FLAGS_USAGE;
        }
        const struct flag *flag = NULL;
        for (size_t k = 0; k < FLAG_COUNT; k++) {
            if (strlen(flags[k].name) == name_bytes && strncmp(flags[k].name, name, name_bytes) == 0) {
                flag = &flags[k];
            }
        }
        if (flag == NULL) {
            if ((name_bytes == 1 && name[0] == 'h') || (name_bytes == 4 && strncmp(name, "help", 4) == 0)) {
                return RQ_FLAGS_HELP;
            }
            (void)snprintf(text, 512, "flag provided but not defined: -%.*s", (int)name_bytes, name);
            return RQ_FLAGS_USAGE;
        }
        const char *value;
        if (name[name_bytes] == '=') {
            value = name + name_bytes + 1;
        } else if (flag->kind == FLAG_BOOL) {
            value = "true";
        } else if (i + 1 < argc) {
            value = argv[++i];
        } else {
            (void)snprintf(text, 512, "flag needs an argument: -%s", flag->name);
            return RQ_FLAGS_USAGE;
        }
        if (flag->kind == FLAG_ABOVE_0 && (value[0] == '-' || (set_flag(&f, flag, value) && is_zero(&f, flag)))) {
            (void)snprintf(text, 512, "-%s must be greater than 0", flag->name);
            return RQ_FLAGS_INVALID;
        }
        if (!set_flag(&f, flag, value)) {
            (void)snprintf(text, 512, "invalid %s \"%s\" for %s-%s: parse error",
                           flag->kind == FLAG_BOOL ? "boolean value" : "value", value,
                           flag->kind == FLAG_BOOL ? "" : "flag ", flag->name);
            return RQ_FLAGS_USAGE;
        }
    }
    if (f.version) {
        *ret_flags = f;
        return RQ_FLAGS_RUN;
    }
    if (i >= argc) {
        (void)snprintf(text, 512, "failed to parse command-line flags: missing required argument: DataPath");
        return RQ_FLAGS_INVALID;
    }
    f.data_dir = argv[i];
    if (i + 1 < argc) {
        (void)snprintf(text, 512, "arguments after data directory (%s) are not accepted (%s)", f.data_dir, argv[i + 1]);
        return RQ_FLAGS_INVALID;
    }
    enum rq_flags_result result = validate(&f, text);
    if (result == RQ_FLAGS_RUN) {
        *ret_flags = f;
    }
    return result;
}
