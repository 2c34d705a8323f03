/* raftd: flags, the order of start and stop, and the wiring: the only file that knows every part. */
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "raftd/cluster/cluster.h"
#include "raftd/cluster/recovery.h"
#include "raftd/cluster/survivor.h"
#include "raftd/db/adopt.h"
#include "raftd/db/background.h"
#include "raftd/db/catalog.h"
#include "raftd/db/descriptor.h"
#include "raftd/db/driver.h"
#include "raftd/db/identity.h"
#include "raftd/db/session.h"
#include "raftd/db/stamps.h"
#include "raftd/directory.h"
#include "raftd/flags.h"
#include "raftd/http/about.h"
#include "raftd/http/analyze.h"
#include "raftd/http/backup.h"
#include "raftd/http/begin.h"
#include "raftd/http/changes.h"
#include "raftd/http/console.h"
#include "raftd/http/credentials.h"
#include "raftd/http/databases.h"
#include "raftd/http/join.h"
#include "raftd/http/load.h"
#include "raftd/http/nodes.h"
#include "raftd/http/server.h"
#include "raftd/http/snapshots.h"
#include "raftd/http/sql.h"
#include "raftd/http/status.h"
#include "raftd/http/vars.h"
#include "raftd/net/link.h"
#include "raftd/ops/backup.h"
#include "raftd/ops/bus.h"
#include "raftd/ops/journal.h"
#include "raftd/ops/notify.h"
#include "raftd/refuse.h"
#include "raftd/run/metrics.h"

#define POOL_THREADS      4
#define LEAD_WAIT_MS      10000
#define CLUSTER_LOOK_MS   200u
#define REMOVE_TRIES      20u
#define REMOVE_PAUSE_NS   250000000
#define LOG_SEGMENT_BYTES (16u << 20)
#define LOG_CACHE_BYTES   (32u << 20)
#define LOG_COMPACT_BYTES (128u << 20) /* well below the 256 MB that the log may take */
#define NOFILE_WANTED     65536

struct raftd {
    struct rq_flags flags;
    struct rq_disk *disk;
    struct rq_directory home;
    sigset_t stops; /* what ends raftd: blocked, but for may_be_stopped() */
    struct rq_adoption adoption;
    struct rq_descriptor descriptor;
    struct rq_node_key *key;
    struct rq_cluster *cluster;
    bool recovers; /* a majority is lost for good: this node goes on alone */
    bool joined;   /* into a cluster that others have founded: the log comes from there */
    uint64_t newest_stamp;
    struct rq_log *log;
    struct rq_pool *pool;
    struct rq_driver *driver;
    struct rq_catalog *catalog;
    struct rq_background *background;
    struct rq_link *link;
    struct rq_http_server *http;
    struct rq_admin admin;
    struct rq_sql_service *sql;
    struct rq_executor_door door;
    struct rq_changes changes;
    struct rq_http_family families[14];
    struct rq_credentials *credentials; /* NULL: no -auth */
    char *api_url;
    struct rq_session_host host;
    struct rq_link_ops link_ops;
};

/* --- command line ---------------------------------------------------------------------------------------------------------- */

/* As rqlited takes it: any case, and what is no level is no reason not to start. */
static void set_level(const char *name)
{
    static const char *const names[] = { "ERROR", "WARN", "INFO", "DEBUG" };
    for (int i = 0; i < 4; i++) {
        if (strcasecmp(name, names[i]) == 0) {
            rq_journal_level((enum rq_level)i);
            return;
        }
    }
    char quoted[256];
    rq_note(RQ_LEVEL_WARN, "-raft-log-level is none of ERROR, WARN, INFO, DEBUG: INFO is taken", "given=%s",
            rq_quote(quoted, sizeof quoted, name));
}

static void parse_flags(struct raftd *d, int argc, char **argv)
{
    char text[512];
    switch (rq_flags_parse(argc, argv, &d->flags, text)) {
        case RQ_FLAGS_RUN:
            break;
        case RQ_FLAGS_HELP:
            rq_flags_usage(STDERR_FILENO);
            exit(0);
        case RQ_FLAGS_USAGE:
            fprintf(stderr, "%s\n", text);
            rq_flags_usage(STDERR_FILENO);
            exit(2);
        case RQ_FLAGS_INVALID:
            fprintf(stderr, "fatal: %s\n", text);
            exit(1);
    }
    if (d->flags.version) {
        struct utsname uts = { 0 };
        (void)uname(&uts); /* cannot fail with a good pointer */
        fprintf(stderr, "raftd %s linux %s sqlite%s\n", RQ_BUILD_VERSION, uts.machine, sqlite3_libversion());
        exit(0);
    }
    set_level(d->flags.raft_log_level);
}

static void refuse_recovery(const struct raftd *d, const char *why)
{
    rq_refuse(
        "%s/peers.json: %s; or name another node first in that file, if one is left; else remove the file and found a "
        "new cluster from the databases as they are, without what is missing: raftd -refound %s",
        d->home.raft_dir, why, d->flags.data_dir);
}

/* An operator has said that a majority is lost for good.  What goes on is another cluster from here on: who was away, or in doubt of
 * that, does not get in with what it has. */
static void find_recovery(struct raftd *d)
{
    struct rq_recovery recovery;
    char text[RQ_TEXT_MAX + 1];
    enum rq_err err = d->home.founding ? RQ_NOTFOUND : rq_recovery_read(d->disk, d->home.raft_dir, &recovery, text);
    if (err == RQ_NOTFOUND) {
        return;
    }
    if (err != RQ_OK) {
        rq_refuse("%s/peers.json: %s", d->home.raft_dir, text);
    }
    if (strcmp(recovery.survivor, d->home.identity.node_id) != 0) {
        rq_refuse(
            "%s/peers.json lets node %s go on with what it has; what this node has may differ: start it with an empty "
            "directory and -join %s",
            d->home.raft_dir, recovery.survivor, recovery.address);
    }
    struct rq_file_info info;
    char *fetching = rq_path_join(d->home.raft_dir, "fetching");
    if (d->disk->ops->stat(d->disk, fetching, &info) == RQ_OK) {
        refuse_recovery(d, "this node was being brought up to date, and has some of its databases in part");
    }
    free(fetching);
    d->recovers = true;
    d->home.identity.cluster = rq_random_id(); /* written when nothing speaks against it */
}

static void check_node_id(const struct raftd *d)
{
    if (strlen(d->flags.node_id) > RQ_NODE_ID_MAX || !rq_member_text_ok(d->flags.node_id)) {
        rq_refuse("-node-id is longer than %u bytes, or has white space or control characters", RQ_NODE_ID_MAX);
    }
}

static void found(struct raftd *d)
{
    if (!rq_member_text_ok(d->flags.node_id)) {
        rq_refuse("-node-id is longer than %u bytes, or has a line break", RQ_NODE_ID_MAX);
    }
    enum rq_err err = rq_adopt_survey(d->disk, d->home.dir, d->home.takes_replicas, &d->adoption);
    if (err == RQ_FOREIGN) {
        char list[1500];
        (void)snprintf(list, sizeof list, "%.*s", (int)d->adoption.problems.size,
                       (const char *)d->adoption.problems.data);
        for (char *c = list; *c != '\0'; c++) {
            *c = *c == '\n' ? ';' : *c;
        }
        rq_refuse(
            "no cluster is founded on these files: %s move them away, or found one from the replicas as they are: "
            "raftd -refound %s",
            list, d->home.dir);
    }
    if (err != RQ_OK) {
        rq_refuse("the files in %s cannot be adopted: %s", d->home.dir, rq_err_text(err));
    }
    rq_directory_begin(&d->home);
    d->home.identity = (struct rq_identity){ rq_random_id(), rq_random_id(), "", RQ_DATA_FORMAT };
    rq_directory_write_identity(&d->home, d->flags.node_id);
}

/* --- the cluster ---------------------------------------------------------------------------------------------------------- */

/* While the main thread waits for other nodes SIGTERM ends the process at once: nothing is served yet. */
static void may_be_stopped(struct raftd *d, bool may)
{
    (void)pthread_sigmask(may ? SIG_UNBLOCK : SIG_BLOCK, &d->stops, NULL);
}

static bool on_may_join(void *ctx, const char *user, const char *password, bool votes)
{
    const struct raftd *d = ctx;
    struct rq_login login;
    (void)snprintf(login.username, sizeof login.username, "%s", user);
    (void)snprintf(login.password, sizeof login.password, "%s", password);
    return rq_credentials_allow(d->credentials, user[0] != '\0' ? &login : NULL,
                                votes ? "join" : "join-read-only,join-read-replica");
}

/* An unknown user is nobody, as with rqlited. */
static void on_login(void *ctx, char user[RQ_MEMBER_TEXT_MAX + 1], char password[RQ_MEMBER_TEXT_MAX + 1])
{
    const struct raftd *d = ctx;
    struct rq_login login;
    if (d->flags.join_as[0] != '\0' && rq_credentials_login(d->credentials, d->flags.join_as, &login)) {
        (void)snprintf(user, RQ_MEMBER_TEXT_MAX + 1, "%s", login.username);
        (void)snprintf(password, RQ_MEMBER_TEXT_MAX + 1, "%s", login.password);
    }
}

static enum rq_err on_find(void *ctx, const char *url, char address[RQ_PEERS_ADDRESS_MAX], char text[RQ_TEXT_MAX + 1])
{
    struct raftd *d = ctx;
    struct rq_login login = { "", "" };
    if (d->credentials != NULL) {
        on_login(d, login.username, login.password);
    }
    return rq_join_find(url, &login, &d->flags.http_tls, address, text);
}

static void open_cluster(struct raftd *d)
{
    char text[RQ_TEXT_MAX + 1];
    enum rq_err err = rq_node_key_load(d->disk, d->home.raft_dir, &d->key);
    if (err != RQ_OK) {
        rq_refuse("%s/key: %s", d->home.raft_dir, rq_err_text(err));
    }
    const struct rq_cluster_config config = {
        .cluster = d->home.identity.cluster,
        .instance = d->home.identity.instance,
        .node_name = d->flags.node_id,
        .listen_address = d->flags.raft_addr,
        .raft_address = d->flags.raft_adv_addr,
        .http_address = d->flags.http_adv_addr,
        .version = RQ_BUILD_VERSION,
        .api_url = d->api_url,
        .votes = !d->flags.non_voter,
        .compare_every_ms = d->flags.compare_int_ns / 1000000u,
        .reap_voter_ms = d->flags.reap_voter_ns / 1000000u,
        .reap_reader_ms = d->flags.reap_reader_ns / 1000000u,
        .key = d->key,
        .tls = &d->flags.node_tls,
        .doors = { .ctx = d,
                   .may_join = d->credentials != NULL ? on_may_join : NULL,
                   .login = d->credentials != NULL ? on_login : NULL,
                   .find = on_find },
    };
    err = rq_cluster_new(&config, &d->cluster, text);
    if (err != RQ_OK) {
        rq_refuse("failed to listen on %s: %s", d->flags.raft_addr, text);
    }
}

/* A member gets its databases from the others: what is here already would have to give way. */
static void check_no_databases(struct raftd *d)
{
    enum rq_err err = rq_adopt_survey(d->disk, d->home.dir, false, &d->adoption);
    if (err == RQ_FOREIGN || (err == RQ_OK && d->adoption.count > 0)) {
        rq_refuse(
            "%s holds databases, and a node that joins gets the cluster's: move them away, or start this node alone, "
            "without -join, and let the others join it",
            d->home.dir);
    }
    if (err != RQ_OK) {
        rq_refuse("the files in %s cannot be read: %s", d->home.dir, rq_err_text(err));
    }
    rq_adoption_fini(&d->adoption);
}

/* There is no node here yet, and it is not to found a cluster by itself. */
static void join_cluster(struct raftd *d)
{
    char text[RQ_TEXT_MAX + 1];
    bool found_here = false;
    struct rq_cluster_found cluster;
    enum rq_err err;
    check_no_databases(d);
    rq_directory_begin(&d->home);
    d->home.identity = (struct rq_identity){ 0, rq_random_id(), "", RQ_DATA_FORMAT };
    open_cluster(d);
    may_be_stopped(d, true);
    if (d->flags.bootstrap_expect > 0) {
        err = rq_cluster_bootstrap(d->cluster, d->flags.join, (unsigned)d->flags.bootstrap_expect,
                                   (unsigned)(d->flags.bootstrap_timeout_ns / 1000000u), &found_here, &cluster, text);
        if (err != RQ_OK) {
            rq_refuse("boot timeout: %s", text);
        }
    } else {
        err = rq_cluster_join(d->cluster, d->flags.join, (unsigned)d->flags.join_attempts,
                              (unsigned)(d->flags.join_interval_ns / 1000000u), &cluster, text);
        if (err != RQ_OK) {
            rq_refuse("failed to join cluster: %s", text);
        }
    }
    may_be_stopped(d, false);
    d->joined = !found_here;
    d->home.identity.cluster = found_here ? rq_random_id() : cluster.cluster;
    rq_directory_write_identity(&d->home, d->flags.node_id);
    rq_cluster_is(d->cluster, d->home.identity.cluster, found_here ? NULL : &cluster.members);
}

/* --- log and node --------------------------------------------------------------------------------------------------------------- */

static enum rq_err found_cluster(struct raftd *d)
{
    struct rq_members members = { .count = 1 };
    rq_cluster_self(d->cluster, &members.list[0]);
    members.list[0].role = RQ_MEMBER_VOTER;
    members.list[0].votes = true;
    return rq_node_found(d->log, &members);
}

static void open_log(struct raftd *d, struct rq_log_found *found)
{
    const struct rq_log_config config = {
        .disk = d->disk,
        .dir = d->home.raft_dir,
        .instance = d->home.identity.instance,
        .segment_bytes = LOG_SEGMENT_BYTES,
        .cache_bytes = LOG_CACHE_BYTES,
        .create = d->home.founding,
        .first_index = 1,
    };
    *found = (struct rq_log_found){ 0 };
    enum rq_err err = rq_log_open(&config, &d->log, found);
    if (err == RQ_OK && d->home.founding && !d->joined) {
        err = found_cluster(d);
        if (err == RQ_OK) { /* as it will be found by every later start */
            rq_log_close(d->log);
            struct rq_log_config again = config;
            again.create = false;
            err = rq_log_open(&again, &d->log, found);
        }
    }
    if (err == RQ_NOTFOUND || err == RQ_CORRUPT || err == RQ_FOREIGN) {
        rq_refuse(
            "the log of %s is not what this node left: %s%s%s; put the right raft/ back, or found a new cluster from "
            "the replicas "
            "as they are: raftd -refound %s",
            d->home.raft_dir, rq_err_text(err), found->problem[0] != '\0' ? ": " : "", found->problem, d->home.dir);
    }
    if (err == RQ_VERSION) {
        rq_refuse("the log of %s: %s", d->home.raft_dir, found->problem);
    }
    if (err != RQ_OK) {
        rq_refuse("the log cannot be opened: %s%s%s", rq_err_text(err), found->problem[0] != '\0' ? ": " : "",
                  found->problem);
    }
    if (found->cut_bytes > 0) {
        rq_note(RQ_LEVEL_WARN, "torn tail of the log cut, none of it was ever durable", "bytes=%llu",
                (unsigned long long)found->cut_bytes);
    }
}

static void read_descriptor(struct raftd *d, const struct rq_log_found *found)
{
    enum rq_err err = rq_descriptor_read(d->disk, d->home.raft_dir, &d->descriptor);
    if (err == RQ_NOTFOUND && found->first_index <= 1) {
        return; /* nothing was compacted yet */
    }
    if (err == RQ_VERSION) {
        rq_refuse("%s/descriptor was written by a newer raftd", d->home.raft_dir);
    }
    if (err != RQ_OK) {
        rq_refuse(
            "%s/descriptor, which the log goes on from at %llu: %s; a new cluster from the replicas as they are: raftd "
            "-refound %s",
            d->home.raft_dir, (unsigned long long)found->first_index, rq_err_text(err), d->home.dir);
    }
    const bool given_up = d->descriptor.installed; /* a log that ends below it was given up for it */
    if (d->descriptor.index + 1 < found->first_index || (d->descriptor.index > found->last_index && !given_up)) {
        rq_refuse(
            "the log holds entries %llu to %llu, the descriptor ends at %llu: one of them is not of this place; "
            "a new cluster from the replicas as they are: raftd -refound %s",
            (unsigned long long)found->first_index, (unsigned long long)found->last_index,
            (unsigned long long)d->descriptor.index, d->home.dir);
    }
}

static void refuse_log(const struct raftd *d, const char *text)
{
    rq_refuse(
        "the log is older or shorter than a replica, so it is not the log that made it; %s; put the right raft/ back, "
        "or "
        "found a new cluster from the replicas as they are: raftd -refound %s",
        text, d->home.dir);
}

/* Before the node writes a new term and its first entry into what may be the wrong log. */
static void check_stamps(struct raftd *d)
{
    char text[512];
    enum rq_err err = rq_stamps_check(d->disk, d->home.dir, d->catalog, &d->descriptor, d->log,
                                      rq_catalog_is_fetching(d->catalog), &d->newest_stamp, text);
    if (err == RQ_CORRUPT) {
        refuse_log(d, text);
    }
    if (err != RQ_OK) {
        rq_refuse("the files in %s cannot be read: %s", d->home.dir, rq_err_text(err));
    }
}

static void recover(struct raftd *d, struct rq_log_found *found)
{
    struct rq_member self;
    struct rq_node_config node = { .found = *found,
                                   .snapshot_index = d->descriptor.index,
                                   .snapshot_term = d->descriptor.term,
                                   .snapshot_installed = d->descriptor.installed };
    const struct rq_survivor survivor = { .disk = d->disk,
                                          .dir = d->home.dir,
                                          .staged_dir = d->home.staged_dir,
                                          .log = d->log,
                                          .descriptor = &d->descriptor,
                                          .newest_stamp = d->newest_stamp };
    char why[512];
    enum rq_err err = rq_survivor_check(&survivor, why);
    if (err != RQ_OK) {
        refuse_recovery(d, why[0] != '\0' ? why : rq_err_text(err));
    }
    rq_directory_write_identity(&d->home, d->flags.node_id);
    rq_cluster_self(d->cluster, &self);
    self.role = RQ_MEMBER_VOTER;
    self.votes = true;
    rq_note(RQ_LEVEL_WARN, "the majority is lost, says peers.json: this node goes on alone, with all it has",
            "last=%llu committed=%llu", (unsigned long long)found->last_index, (unsigned long long)found->committed);
    err = rq_node_recover(d->log, &node, &self);
    if (err == RQ_OK) {
        err = rq_recovery_done(d->disk, d->home.raft_dir);
    }
    if (err != RQ_OK) {
        rq_refuse("recovery by %s/peers.json: %s", d->home.raft_dir, rq_err_text(err));
    }
    *found = node.found;
    RQ_COUNT(store, num_recoveries);
}

static void start_node(struct raftd *d)
{
    struct rq_log_found found;
    open_log(d, &found);
    read_descriptor(d, &found);
    if (d->descriptor.index > 0) {
        RQ_COUNT(store, num_restores_start_skipped);
    }
    if (rq_pool_new(POOL_THREADS, "raftd-pool", &d->pool) != RQ_OK) {
        rq_refuse("out of memory or threads");
    }
    const struct rq_background_config background = {
        .compact_entries = d->flags.raft_snap,
        .compact_every_ms = d->flags.raft_snap_int_ns / 1000000u > 100 ? d->flags.raft_snap_int_ns / 1000000u : 100,
        .compact_bytes = LOG_COMPACT_BYTES,
        .scrub_every_ms = d->flags.scrub_int_ns / 1000000u,
    };
    if (rq_background_new(&background, &d->background) != RQ_OK) {
        rq_refuse("out of memory");
    }
    const struct rq_catalog_config catalog = {
        .disk = d->disk,
        .pool = d->pool,
        .dir = d->home.dir,
        .raft_dir = d->home.raft_dir,
        .staged_dir = d->home.staged_dir,
        .trash_dir = d->home.trash_dir,
        .hashes_dir = d->home.hashes_dir,
        .copies_dir = d->home.copies_dir,
        .boot = rq_boot_id(),
        .http_addr = d->flags.http_adv_addr,
        .stir = rq_background_stir,
        .stir_ctx = d->background,
        .turns = rq_cluster_turn_door(d->cluster),
        .marked = rq_cluster_marked,
        .disputed = rq_cluster_disputed,
        .marked_ctx = d->cluster,
    };
    enum rq_err err = rq_catalog_new(&catalog, &d->catalog);
    if (err == RQ_VERSION) {
        rq_refuse("%s/files was written by a newer raftd", d->home.raft_dir);
    }
    if (err == RQ_OK && !d->home.founding) {
        check_stamps(d);
    }
    if (err == RQ_OK && d->recovers) {
        recover(d, &found);
    }
    const struct rq_carrier *carrier;
    if (err == RQ_OK) {
        err = rq_cluster_carry_bodies(d->cluster, d->disk, d->home.staged_dir, rq_catalog_shelf(d->catalog), &carrier);
    }
    if (err == RQ_OK) {
        rq_catalog_set_carrier(d->catalog, carrier);
        err = rq_catalog_load(d->catalog, &d->descriptor);
    }
    if (err != RQ_OK) {
        rq_refuse("the catalog cannot be read: %s", rq_err_text(err));
    }
    const uint64_t election_ns = d->flags.heartbeat_timeout_ns > d->flags.election_timeout_ns
                                     ? d->flags.heartbeat_timeout_ns
                                     : d->flags.election_timeout_ns;
    const unsigned election_ms = (unsigned)(election_ns / 1000000u);
    const struct rq_node_machine machine = rq_catalog_machine(d->catalog);
    const struct rq_driver_config driver = {
        .pool = d->pool,
        .log = d->log,
        .node = { .id = d->home.identity.instance,
                  .address = d->flags.raft_adv_addr,
                  .seed = rq_random_id(),
                  .election_timeout_ms = election_ms,
                  .heartbeat_ms = election_ms / (RQ_NODE_ELECTION_MS / RQ_NODE_HEARTBEAT_MS),
                  .found = found,
                  .snapshot_index = d->descriptor.index,
                  .snapshot_term = d->descriptor.term,
                  .snapshot_configuration_index = d->descriptor.configuration_index,
                  .snapshot_configuration = d->descriptor.configuration,
                  .snapshot_configuration_bytes = d->descriptor.configuration_bytes,
                  .snapshot_installed = d->descriptor.installed },
        .machine = &machine,
        .forward = rq_cluster_forward(d->cluster),
    };
    rq_cluster_set_log(d->cluster, d->log);
    err = rq_driver_new(&driver, &d->driver);
    if (err != RQ_OK) {
        rq_refuse("the node cannot start: %s", rq_err_text(err));
    }
    rq_catalog_set_driver(d->catalog, d->driver);
    if (rq_cluster_start(d->cluster, d->driver, d->catalog) != RQ_OK) {
        rq_refuse("out of memory or threads");
    }
}

/* It was removed, perhaps by itself when it was stopped, and is started to be a member again: with all that it has. */
static void join_again(struct raftd *d)
{
    struct rq_cluster_found cluster;
    char text[RQ_TEXT_MAX + 1];
    if (d->flags.join[0] == '\0' || d->recovers || !rq_cluster_is_out(d->cluster)) {
        return;
    }
    enum rq_err err = rq_cluster_join(d->cluster, d->flags.join, 1, 0, &cluster, text);
    if (err == RQ_OK) {
        rq_note(RQ_LEVEL_INFO, "this node was removed and has joined again", "instance=%016llx",
                (unsigned long long)d->home.identity.instance);
    }
}

/* Until everything that the replicas hold, and all else that was committed when the leader was first heard, has been delivered. */
static void await_cluster(struct raftd *d)
{
    if (rq_cluster_is_alone(d->cluster)) {
        const bool came_first = d->home.founding || d->recovers || rq_recovery_was_done(d->disk, d->home.raft_dir);
        if (!came_first && d->flags.join[0] != '\0' && d->flags.bootstrap_expect == 0) {
            rq_refuse("node is the only node in a single-node cluster, joining other clusters not supported");
        }
        if (!rq_driver_wait_leads(d->driver, LEAD_WAIT_MS)) {
            rq_refuse("the only voter of this cluster did not become its leader");
        }
        return;
    }
    char text[RQ_TEXT_MAX + 1];
    may_be_stopped(d, true);
    for (unsigned looks = 1; !rq_driver_wait_started(d->driver, d->newest_stamp, CLUSTER_LOOK_MS); looks++) {
        /* At another address than it was nobody finds it: soon, or others hear more of this node than the leader. */
        (void)rq_cluster_describe(d->cluster, false, text);
        if (looks % (1000 / CLUSTER_LOOK_MS) == 0 && rq_driver_view(d->driver).leader_id == 0) {
            rq_cluster_learn(d->cluster);
            join_again(d);
        }
        if (d->flags.remove_shutdown && d->flags.join[0] == '\0' && rq_cluster_was_removed(d->cluster)) {
            _exit(0);
        }
        if (looks % (10000 / CLUSTER_LOOK_MS) == 0) {
            const struct rq_driver_view view = rq_driver_view(d->driver);
            rq_note(RQ_LEVEL_INFO, "waiting for the cluster", "leader=%016llx delivered=%llu committed=%llu",
                    (unsigned long long)view.leader_id, (unsigned long long)view.delivered,
                    (unsigned long long)view.committed);
        }
    }
    may_be_stopped(d, false);
}

/* The entry that adopts a file has no contents: whoever joins has to get them from here, not from the log.  So the log is released
 * before anybody may join. */
static void release_adoptions(struct raftd *d)
{
    char text[512];
    enum rq_err err;
    while ((err = rq_catalog_compact(d->catalog, text)) == RQ_BUSY) {
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
    }
    if (err != RQ_OK) {
        rq_refuse("what was adopted cannot be recorded: %s", rq_err_text(err));
    }
}

/* From here on replicas and log agree, or raftd does not run. */
static void catch_up(struct raftd *d)
{
    char text[512] = "";
    for (size_t i = 0; i < d->adoption.count; i++) {
        const struct rq_adoptee *a = &d->adoption.list[i];
        const struct rq_entry_adopt adopt = {
            { a->name, (uint32_t)strlen(a->name) }, a->page_size, a->page_count, a->version
        };
        enum rq_err err = rq_catalog_adopt(d->catalog, &adopt);
        if (err != RQ_OK) {
            rq_refuse("%s cannot be adopted: %s", a->name, rq_err_text(err));
        }
        rq_note(RQ_LEVEL_INFO, "database adopted", "db=\"%s\" version=%llu", a->name, (unsigned long long)a->version);
    }
    enum rq_err err = rq_catalog_caught_up(d->catalog, text);
    if (err == RQ_CORRUPT) {
        refuse_log(d, text);
    }
    if (err == RQ_OK) {
        err = rq_catalog_sweep_bodies(d->catalog);
    }
    if (err == RQ_OK && rq_cluster_is_alone(d->cluster) && rq_catalog_has_adopted(d->catalog)) {
        release_adoptions(d);
    }
    if (err == RQ_OK && d->home.founding) {
        char *path = rq_path_join(d->home.raft_dir, "founding");
        err = d->disk->ops->unlink(d->disk, path);
        if (err == RQ_OK) {
            err = d->disk->ops->sync_dir(d->disk, d->home.raft_dir);
        }
        free(path);
    }
    if (err != RQ_OK) {
        rq_refuse("start does not come to its end: %s", rq_err_text(err));
    }
    rq_adoption_fini(&d->adoption);
}

/* --- doors ----------------------------------------------------------------------------------------------------------------------- */

static unsigned at_most(uint64_t n)
{
    return n < UINT_MAX ? (unsigned)n : UINT_MAX;
}

static void look_at_turn(void *ctx, uint32_t db_id)
{
    struct raftd *d = ctx;
    struct rq_database *db = rq_catalog_find_id(d->catalog, db_id); /* there is one while there are executors */
    if (db != NULL) {
        rq_database_turn_look(db);
        rq_database_unref(db);
    }
}

static void start_http(struct raftd *d)
{
    char text[256];
    d->door = (struct rq_executor_door){ d, look_at_turn };
    if (rq_executor_register(&d->door) != RQ_OK) {
        rq_refuse("out of memory");
    }
    const struct rq_http_tls_files *tls = d->flags.http_tls.cert[0] != '\0' ? &d->flags.http_tls : NULL;
    if (asprintf(&d->api_url, "%s://%s", tls != NULL ? "https" : "http", d->flags.http_adv_addr) < 0) {
        rq_refuse("out of memory");
    }
    if (d->flags.auth[0] != '\0') {
        char why[RQ_CREDENTIALS_TEXT_MAX] = "out of memory";
        if (rq_credentials_new(d->flags.auth, &d->credentials, why) != RQ_OK) {
            rq_refuse("failed to get credential store: %s", why);
        }
        if (d->flags.join_as[0] != '\0' && rq_credentials_is_hashed(d->credentials, d->flags.join_as)) {
            rq_refuse("-join-as %s: its password in %s is a hash, and other nodes have to be told the password itself",
                      d->flags.join_as, d->flags.auth);
        }
    }
    d->admin = (struct rq_admin){
        .disk = d->disk,
        .dir = d->home.dir,
        .raft_dir = d->home.raft_dir,
        .scratch_dir = d->home.staged_dir,
        .node_id = d->flags.node_id,
        .version = RQ_BUILD_VERSION,
        .http_addr = d->flags.http_addr,
        .http_adv_addr = d->flags.http_adv_addr,
        .raft_adv_addr = d->flags.raft_adv_addr,
        .api_url = d->api_url,
        .allow_origin = d->flags.http_allow_origin,
        .tls = tls,
        .auth = d->credentials != NULL,
        .foreign_keys = d->flags.foreign_keys,
        .started_s = (uint64_t)time(NULL),
        .times = { d->flags.election_timeout_ns, d->flags.heartbeat_timeout_ns, d->flags.reap_voter_ns,
                   d->flags.reap_reader_ns, d->flags.raft_snap_int_ns, d->flags.raft_snap },
    };
    d->families[0] = (struct rq_http_family){ rq_status_routes, rq_status_route_count, &d->admin };
    d->families[1] = (struct rq_http_family){ rq_nodes_routes, rq_nodes_route_count, &d->admin };
    d->families[2] = (struct rq_http_family){ rq_databases_routes, rq_databases_route_count, &d->admin };
    d->families[3] = (struct rq_http_family){ rq_backup_routes, rq_backup_route_count, &d->admin };
    d->families[4] = (struct rq_http_family){ rq_join_routes, rq_join_route_count, &d->admin };
    d->families[5] = (struct rq_http_family){ rq_snapshots_routes, rq_snapshots_route_count, &d->admin };
    d->families[6] = (struct rq_http_family){ rq_vars_routes, rq_vars_route_count, &d->admin };
    d->families[7] = (struct rq_http_family){ rq_about_routes, rq_about_route_count, NULL };
    const struct rq_sql_service_config sql = {
        .admin = &d->admin,
        .foreign_keys = d->flags.foreign_keys,
        .readers_max = at_most(d->flags.readers_max),
        .queue = { .capacity = at_most(d->flags.queue_capacity),
                   .batch_size = at_most(d->flags.queue_batch_size),
                   .timeout_ms = d->flags.queue_timeout_ns / 1000000u,
                   .transaction = d->flags.queue_transaction },
        .upkeep = { d->flags.auto_vacuum_int_ns, d->flags.auto_optimize_int_ns },
        .transactions = { .open_max = at_most(d->flags.tx_max),
                          .idle_ms = d->flags.tx_idle_timeout_ns / 1000000u,
                          .lifetime_ms = d->flags.tx_lifetime_ns / 1000000u },
    };
    if (rq_sql_service_new(&sql, &d->sql) != RQ_OK) {
        rq_refuse("out of memory or threads");
    }
    d->admin.sql = d->sql;
    d->families[8] = (struct rq_http_family){ rq_sql_routes, rq_sql_route_count, d->sql };
    d->families[9] = (struct rq_http_family){ rq_load_routes, rq_load_route_count, &d->admin };
    d->families[11] = (struct rq_http_family){ rq_console_routes, rq_console_route_count, NULL };
    d->families[12] = (struct rq_http_family){ rq_begin_routes, rq_begin_route_count, &d->admin };
    d->families[10] = (struct rq_http_family){ rq_analyze_routes, rq_analyze_route_count, NULL };
    d->changes.admin = &d->admin;
    d->admin.changes = &d->changes;
    d->families[13] = (struct rq_http_family){ rq_changes_routes, rq_changes_route_count, &d->changes };
    const struct rq_http_config config = {
        .address = d->flags.http_addr,
        .socket = d->flags.http_socket,
        .version = RQ_BUILD_VERSION,
        .allow_origin = d->flags.http_allow_origin,
        .tls = tls,
        .credentials = d->credentials,
        .families = d->families,
        .family_count = sizeof d->families / sizeof *d->families,
    };
    if (rq_http_new(&config, &d->http, text) != RQ_OK) {
        rq_refuse("failed to start HTTP server: %s", text);
    }
}

static void start_link(struct raftd *d)
{
    d->host = (struct rq_session_host){
        .catalog = d->catalog,
        .driver = d->driver,
        .disk = d->disk,
        .staged_dir = d->home.staged_dir,
        .instance = d->home.identity.instance,
        .node_id = d->flags.node_id,
        .version = RQ_BUILD_VERSION,
    };
    rq_session_ops(&d->host, &d->link_ops);
    const struct rq_link_config config = { d->home.dir, &d->link_ops };
    enum rq_err err = rq_link_new(&config, &d->link);
    if (err == RQ_EXISTS) {
        rq_refuse("%s/%s is there and is no socket", d->home.dir, RQ_LINK_SOCKET);
    }
    if (err != RQ_OK) {
        rq_refuse("failed to listen on %s/%s: %s", d->home.dir, RQ_LINK_SOCKET, rq_err_text(err));
    }
}

/* --- main -------------------------------------------------------------------------------------------------------------------------- */

/* 2,000 databases and as many connections need more than the usual 1,024. */
static void raise_nofile(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < NOFILE_WANTED) {
        limit.rlim_cur = limit.rlim_max < NOFILE_WANTED ? limit.rlim_max : NOFILE_WANTED;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* then connections wait earlier */
    }
}

/* Best effort: the members reach this node, or it would not be ready; the next start tries again. */
static void describe_self(struct raftd *d)
{
    char text[RQ_TEXT_MAX + 1];
    enum rq_err err = rq_cluster_describe(d->cluster, !d->home.founding && d->flags.join[0] != '\0', text);
    if (err != RQ_OK) {
        rq_note(RQ_LEVEL_WARN, "the members do not know this node's addresses yet", "why=\"%s\"", text);
    }
}

/* SIGHUP. */
static void reload(struct raftd *d)
{
    char why[RQ_CREDENTIALS_TEXT_MAX], quoted[2 * RQ_CREDENTIALS_TEXT_MAX];
    if (d->credentials == NULL) {
        rq_note(RQ_LEVEL_INFO, "nothing to read again: there is no -auth", "signal=%d", SIGHUP);
    } else if (rq_credentials_reload(d->credentials, why) == RQ_OK) {
        rq_note(RQ_LEVEL_INFO, "the credentials file was read again", "file=%s",
                rq_quote(quoted, sizeof quoted, d->flags.auth));
    } else {
        rq_note(RQ_LEVEL_ERROR, "the credentials file is no good: what it said before holds", "why=%s",
                rq_quote(quoted, sizeof quoted, why));
    }
}

/* What the others notice of a node that is stopped. */
static void leave(struct raftd *d)
{
    char text[RQ_TEXT_MAX + 1];
    if (d->flags.shutdown_remove && !rq_cluster_is_alone(d->cluster)) {
        enum rq_err err = RQ_AWAY;
        for (unsigned i = 0; err != RQ_OK && i < REMOVE_TRIES; i++) {
            if (i > 0) {
                nanosleep(&(struct timespec){ .tv_nsec = REMOVE_PAUSE_NS }, NULL);
            }
            err = rq_cluster_remove(d->cluster, d->flags.node_id, text);
        }
        if (err != RQ_OK) {
            rq_note(RQ_LEVEL_WARN, "this node could not be removed from the cluster", "why=\"%s\"", text);
        }
    } else if (d->flags.shutdown_stepdown) {
        rq_cluster_step_down(d->cluster);
    }
}

int main(int argc, char **argv)
{
    static struct raftd d;
    int signal_number;

    parse_flags(&d, argc, argv);
    (void)prctl(PR_SET_TIMERSLACK, 1000); /* 1 us, not 50: some waits are that short; inherited by every thread */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is lack of space, not the end */
    rq_bus_survive();
    sigemptyset(&d.stops);
    sigaddset(&d.stops, SIGTERM);
    sigaddset(&d.stops, SIGINT);
    sigset_t signals = d.stops;
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* inherited by every thread: only sigwait() below gets them */
    raise_nofile();

    d.disk = rq_disk_real();
    rq_directory_open(&d.home, d.disk, d.flags.data_dir, d.flags.refound);
    rq_directory_find_identity(&d.home, d.flags.node_id);
    check_node_id(&d);
    find_recovery(&d);
    start_http(&d);
    if (d.home.founding && d.flags.join[0] == '\0' && d.flags.non_voter) {
        rq_refuse("cannot create a new non-voting node without joining it to an existing cluster");
    }
    if (d.home.founding && d.flags.join[0] != '\0') {
        join_cluster(&d);
    } else {
        if (d.home.founding) {
            found(&d);
        }
        open_cluster(&d);
    }
    start_node(&d);
    await_cluster(&d);
    catch_up(&d);
    if (rq_background_start(d.background, d.catalog, d.driver) != RQ_OK) {
        rq_refuse("out of memory or threads");
    }
    start_link(&d);
    describe_self(&d);
    atomic_store(&d.admin.catalog, d.catalog); /* from here on /readyz says so */
    atomic_store(&d.admin.cluster, d.cluster);
    atomic_store(&d.admin.background, d.background);
    if (rq_sql_service_open(d.sql) != RQ_OK) {
        rq_refuse("out of memory");
    }
    atomic_store(&d.admin.driver, d.driver);
    if (rq_changes_open(&d.changes) != RQ_OK) {
        rq_refuse("out of memory");
    }
    char quoted[PATH_MAX];
    rq_note(RQ_LEVEL_INFO, "ready", "node=%s dir=%s http=%s cluster=%016llx instance=%016llx version=%s",
            d.flags.node_id, rq_quote(quoted, 1024, d.home.dir), d.flags.http_addr,
            (unsigned long long)d.home.identity.cluster, (unsigned long long)d.home.identity.instance,
            RQ_BUILD_VERSION);
    rq_notify("READY=1");
    if (d.flags.remove_shutdown) {
        rq_cluster_stop_when_removed(d.cluster);
    }

    while (sigwait(&signals, &signal_number) == 0 && signal_number == SIGHUP) {
        reload(&d);
    }
    rq_notify("STOPPING=1");
    rq_note(RQ_LEVEL_INFO, "stopping", "signal=%d", signal_number);
    rq_changes_stop(&d.changes);
    rq_sql_service_drain(d.sql); /* while there is a leader */
    rq_link_stop(d.link);
    leave(&d);
    rq_http_free(d.http);
    rq_background_stop(d.background);
    /* Whatever else is on its way was not acknowledged, or is durable: the next start cannot tell this from a kill. */
    _exit(0);
}
