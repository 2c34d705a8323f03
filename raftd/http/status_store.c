#include <ftw.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yyjson.h>

#include "raftd/cluster/catchup.h"
#include "raftd/cluster/compare.h"
#include "raftd/http/databases.h"
#include "raftd/http/json.h"
#include "raftd/http/status_parts.h"

static yyjson_mut_val *put_obj(yyjson_mut_doc *doc, yyjson_mut_val *in, const char *key)
{
    return yyjson_mut_obj_add_obj(doc, in, key);
}

/* --- sizes ---------------------------------------------------------------------------------------------------------------- */

/* "83 MB", "1.2 kB". */
static void put_size(yyjson_mut_doc *doc, yyjson_mut_val *in, const char *key, const char *friendly_key, uint64_t bytes)
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB", "EB" };
    double value = (double)bytes;
    unsigned unit = 0;
    char text[32];
    for (; value >= 999.5 && unit < sizeof units / sizeof *units - 1; unit++) {
        value /= 1000;
    }
    (void)snprintf(text, sizeof text, value < 9.95 && unit > 0 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    yyjson_mut_obj_add_uint(doc, in, key, bytes);
    yyjson_mut_obj_add_strcpy(doc, in, friendly_key, text);
}

static _Thread_local uint64_t walked_bytes;

static int walk_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)path;
    (void)at;
    walked_bytes += kind == FTW_F ? (uint64_t)st->st_blocks * 512u : 0;
    return 0;
}

/* On the disk; a file that goes meanwhile does not count. */
static uint64_t dir_bytes(const char *dir)
{
    walked_bytes = 0;
    (void)nftw(dir, walk_one, 16, FTW_PHYS);
    return walked_bytes;
}

static uint64_t file_bytes(const char *path, time_t *ret_modified)
{
    struct stat st = { 0 };
    (void)stat(path, &st); /* not there: nothing */
    *ret_modified = st.st_mtime;
    return (uint64_t)st.st_size;
}

/* --- databases ------------------------------------------------------------------------------------------------------------ */

static void put_databases(yyjson_mut_doc *doc, yyjson_mut_val *store, struct rq_catalog *catalog)
{
    yyjson_mut_val *databases = put_obj(doc, store, "databases");
    struct rq_database **list = NULL;
    size_t count = 0;
    if (rq_catalog_list(catalog, &list, &count) != RQ_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        yyjson_mut_val *key = yyjson_mut_strcpy(doc, rq_database_name(list[i]));
        yyjson_mut_val *one = yyjson_mut_obj(doc);
        rq_http_put_database(doc, one, list[i]);
        yyjson_mut_obj_add(databases, key, one);
        rq_database_unref(list[i]);
    }
    free(list);
}

/* As rqlite's; its tests look at these.  SQLite itself never syncs here either: the log is what is durable. */
static void put_pragmas(const struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *in)
{
    yyjson_mut_val *pragmas = put_obj(doc, in, "pragmas");
    for (int writes = 0; writes < 2; writes++) {
        yyjson_mut_val *one = put_obj(doc, pragmas, writes ? "rw" : "ro");
        yyjson_mut_obj_add_str(doc, one, "busy_timeout", "5000");
        yyjson_mut_obj_add_str(doc, one, "foreign_keys", a->foreign_keys ? "1" : "0");
        yyjson_mut_obj_add_str(doc, one, "journal_mode", "wal");
        yyjson_mut_obj_add_str(doc, one, "synchronous", "0");
        yyjson_mut_obj_add_str(doc, one, "wal_autocheckpoint", writes ? "0" : "1000");
    }
}

/* The database that requests without ?db= mean. */
static void put_sqlite3(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *store)
{
    char path[4096], wal[4096 + 8];
    time_t modified, unused;
    struct rq_database_info info = { 0 };
    struct rq_database *db = rq_catalog_find(atomic_load(&a->catalog), RQ_ADMIN_DATABASE, strlen(RQ_ADMIN_DATABASE));
    if (db != NULL) {
        rq_database_info(db, &info);
        rq_database_unref(db);
    }
    (void)snprintf(path, sizeof path, "%s/%s", a->dir, RQ_ADMIN_DATABASE);
    (void)snprintf(wal, sizeof wal, "%s-wal", path);
    yyjson_mut_val *in = put_obj(doc, store, "sqlite3");
    yyjson_mut_val *options = yyjson_mut_obj_add_arr(doc, in, "compile_options");
    const char *option;
    for (int i = 0; (option = sqlite3_compileoption_get(i)) != NULL; i++) {
        yyjson_mut_arr_add_str(doc, options, option);
    }
    put_size(doc, in, "db_size", "db_size_friendly", file_bytes(path, &modified));
    (void)yyjson_mut_obj_add_arr(doc, in, "extensions");
    rq_http_put_time(doc, in, "last_modified", modified);
    yyjson_mut_val *memory = put_obj(doc, in, "mem_stats");
    yyjson_mut_obj_add_uint(doc, memory, "page_count", info.page_count);
    yyjson_mut_obj_add_uint(doc, memory, "page_size", info.page_size);
    yyjson_mut_obj_add_strcpy(doc, in, "path", path);
    put_pragmas(a, doc, in);
    yyjson_mut_obj_add_uint(doc, in, "size", (uint64_t)info.page_count * info.page_size);
    yyjson_mut_obj_add_str(doc, in, "version", sqlite3_libversion());
    yyjson_mut_obj_add_uint(doc, in, "wal_size", file_bytes(wal, &unused));
}

/* --- raft ----------------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct rq_member *const *)a)->name, (*(const struct rq_member *const *)b)->name);
}

static void put_nodes(yyjson_mut_doc *doc, yyjson_mut_val *store, const struct rq_members *members)
{
    const struct rq_member *sorted[RQ_MEMBERS_MAX];
    yyjson_mut_val *nodes = yyjson_mut_obj_add_arr(doc, store, "nodes");
    for (unsigned i = 0; i < members->count; i++) {
        sorted[i] = &members->list[i];
    }
    qsort(sorted, members->count, sizeof *sorted, by_name);
    for (unsigned i = 0; i < members->count; i++) {
        yyjson_mut_val *node = yyjson_mut_arr_add_obj(doc, nodes);
        yyjson_mut_obj_add_strcpy(doc, node, "addr", sorted[i]->raft_addr);
        yyjson_mut_obj_add_strcpy(doc, node, "id", sorted[i]->name);
        yyjson_mut_obj_add_str(doc, node, "suffrage", sorted[i]->role == RQ_MEMBER_VOTER ? "voter" : "nonvoter");
    }
}

static void put_last_contact(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *raft,
                             const struct rq_driver_view *view)
{
    struct rq_peer_state state;
    if (view->leads) {
        yyjson_mut_obj_add_uint(doc, raft, "last_contact", 0);
    } else if (view->leader_id == 0 ||
               !rq_peers_state(rq_cluster_peers(atomic_load(&a->cluster)), view->leader_id, &state) ||
               state.heard_ms_ago == UINT64_MAX) {
        yyjson_mut_obj_add_str(doc, raft, "last_contact", "never");
    } else {
        rq_http_put_duration(doc, raft, "last_contact", state.heard_ms_ago * 1000000u);
    }
}

static void put_raft(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *store, const struct rq_members *members,
                     const struct rq_catalog_snapshot *snapshot)
{
    struct rq_driver *driver = atomic_load(&a->driver);
    const struct rq_driver_view view = rq_driver_view(driver);
    struct rq_log_stats log;
    unsigned voters = 0;
    bool votes = false;
    rq_driver_log_stats(driver, &log);
    for (unsigned i = 0; i < members->count; i++) {
        const bool voter = members->list[i].role == RQ_MEMBER_VOTER;
        voters += voter;
        votes = votes || (voter && strcmp(members->list[i].name, a->node_id) == 0);
    }
    yyjson_mut_val *raft = put_obj(doc, store, "raft");
    yyjson_mut_obj_add_uint(doc, raft, "applied_index", view.delivered);
    yyjson_mut_obj_add_uint(doc, raft, "commit_index", view.committed);
    yyjson_mut_obj_add_uint(doc, raft, "fsm_pending",
                            view.committed > view.delivered ? view.committed - view.delivered : 0);
    put_last_contact(a, doc, raft, &view);
    yyjson_mut_obj_add_uint(doc, raft, "last_log_index", log.last_index);
    yyjson_mut_obj_add_uint(doc, raft, "last_snapshot_index", snapshot->index);
    yyjson_mut_obj_add_uint(doc, raft, "last_snapshot_term", snapshot->term);
    yyjson_mut_obj_add_uint(doc, raft, "log_entries", log.held);
    put_size(doc, raft, "log_size", "log_size_friendly", log.bytes);
    yyjson_mut_obj_add_uint(doc, raft, "log_writes", log.writes);
    yyjson_mut_obj_add_uint(doc, raft, "num_peers", votes ? voters - 1 : 0);
    yyjson_mut_obj_add_str(doc, raft, "state", view.role);
    yyjson_mut_obj_add_uint(doc, raft, "term", view.term);
    yyjson_mut_obj_add_bool(doc, raft, "voter", votes);
}

/* What came from other members page by page. */
static void put_catchup(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *store)
{
    struct rq_catchup *catchup = rq_cluster_catchup(atomic_load(&a->cluster));
    struct rq_catchup_stats stats = { 0 };
    if (catchup != NULL) {
        rq_catchup_stats(catchup, &stats);
    }
    yyjson_mut_val *in = put_obj(doc, store, "catchup");
    yyjson_mut_obj_add_uint(doc, in, "installs", stats.installs);
    yyjson_mut_obj_add_uint(doc, in, "pages_compared", stats.pages_compared);
    yyjson_mut_obj_add_uint(doc, in, "pages_fetched", stats.pages_fetched);
    yyjson_mut_obj_add_uint(doc, in, "repairs", stats.repairs);
}

/* What comparing databases with those of other members came to. */
static void put_compare(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *store)
{
    struct rq_compare *compare = rq_cluster_compare(atomic_load(&a->cluster));
    struct rq_compare_stats stats = { 0 };
    if (compare != NULL) {
        rq_compare_stats(compare, &stats);
    }
    yyjson_mut_val *in = put_obj(doc, store, "compare");
    yyjson_mut_obj_add_uint(doc, in, "pages_compared", stats.compared);
    yyjson_mut_obj_add_uint(doc, in, "pages_undecided", stats.undecided);
    yyjson_mut_obj_add_uint(doc, in, "pages_wrong", stats.wrong);
    yyjson_mut_obj_add_uint(doc, in, "passes", stats.passes);
}

/* What is one here: a state that the log needs nothing before.  Its pages are in the databases' files. */
static void put_snapshots(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *store,
                          const struct rq_catalog_snapshot *snapshot)
{
    char id[96];
    yyjson_mut_val *in = put_obj(doc, store, "snapshot_store");
    yyjson_mut_obj_add_str(doc, in, "dir", a->raft_dir);
    yyjson_mut_obj_add_uint(doc, in, "dir_size", dir_bytes(a->raft_dir));
    yyjson_mut_val *ids = yyjson_mut_obj_add_arr(doc, in, "snapshots");
    if (snapshot->index > 0) {
        (void)snprintf(id, sizeof id, "%llu-%llu-%llu", (unsigned long long)snapshot->term,
                       (unsigned long long)snapshot->index, (unsigned long long)snapshot->made_ms);
        yyjson_mut_arr_add_strcpy(doc, ids, id);
    }
}

static void put_auto_vacuum(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *store)
{
    const int64_t last_s = atomic_load(&a->last_vacuum_s), next_s = atomic_load(&a->next_vacuum_s);
    if (next_s > 0) { /* it is on */
        yyjson_mut_val *in = put_obj(doc, store, "auto_vacuum");
        rq_http_put_time(doc, in, "last_vacuum", (time_t)last_s);
        rq_http_put_time(doc, in, "next_vacuum_after", (time_t)next_s);
    }
}

void rq_status_put_store(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    yyjson_mut_val *store = put_obj(doc, root, "store");
    struct rq_driver *driver = atomic_load(&a->driver);
    struct rq_catalog *catalog = atomic_load(&a->catalog);
    struct rq_members members;
    struct rq_member leader;
    if (driver == NULL) {
        yyjson_mut_obj_add_bool(doc, store, "open", false);
        return;
    }
    const struct rq_driver_view view = rq_driver_view(driver);
    const struct rq_catalog_snapshot snapshot = rq_catalog_snapshot(catalog);
    const bool led = rq_admin_leader(a, &leader);
    rq_cluster_members(atomic_load(&a->cluster), &members);

    yyjson_mut_obj_add_str(doc, store, "addr", a->raft_adv_addr);
    put_auto_vacuum(a, doc, store);
    put_catchup(a, doc, store);
    put_compare(a, doc, store);
    put_databases(doc, store, catalog);
    yyjson_mut_obj_add_uint(doc, store, "db_applied_index", view.delivered);
    yyjson_mut_obj_add_bool(doc, put_obj(doc, store, "db_conf"), "fk_constraints", a->foreign_keys);
    yyjson_mut_obj_add_str(doc, store, "dir", a->dir);
    put_size(doc, store, "dir_size", "dir_size_friendly", dir_bytes(a->dir));
    rq_http_put_duration(doc, store, "election_timeout", a->times.election_ns);
    yyjson_mut_obj_add_uint(doc, store, "fsm_index", view.delivered);
    yyjson_mut_obj_add_uint(doc, store, "fsm_term", view.term);
    rq_http_put_duration(doc, store, "heartbeat_timeout", a->times.heartbeat_ns);
    yyjson_mut_val *by = put_obj(doc, store, "leader");
    yyjson_mut_obj_add_strcpy(doc, by, "addr", led ? leader.raft_addr : "");
    yyjson_mut_obj_add_strcpy(doc, by, "node_id", led ? leader.name : "");
    yyjson_mut_obj_add_str(doc, store, "node_id", a->node_id);
    put_nodes(doc, store, &members);
    (void)put_obj(doc, store, "open");
    put_raft(a, doc, store, &members, &snapshot);
    yyjson_mut_obj_add_bool(doc, store, "ready", led);
    rq_http_put_duration(doc, store, "reap_read_only_timeout", a->times.reap_reader_ns);
    rq_http_put_duration(doc, store, "reap_timeout", a->times.reap_voter_ns);
    rq_http_put_duration(doc, store, "snapshot_interval", a->times.snapshot_ns);
    put_snapshots(a, doc, store, &snapshot);
    yyjson_mut_obj_add_uint(doc, store, "snapshot_threshold", a->times.snapshot_entries);
    put_sqlite3(a, doc, store);
}
