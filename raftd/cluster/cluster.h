/* Cluster: this node among the others.  What its node says goes out by the peers, what they say comes to its loop; who is a member is
 * the node's matter, and decides who is dialled and who may connect.
 *
 *   driver (loop) --send, propose--> cluster --> peers         peers (their thread) --> cluster --> driver's loop
 *
 * Requests between nodes are dispatched here; docs/protocol.md#asks. */
#ifndef RAFTD_CLUSTER_CLUSTER_H
#define RAFTD_CLUSTER_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/db/carrier.h"
#include "raftd/db/catalog.h"
#include "raftd/db/driver.h"
#include "raftd/db/shelf.h"
#include "raftd/net/peers.h"
#include "raftd/node/member.h"
#include "raftd/wire/err.h"

struct rq_catalog;
struct rq_catchup;
struct rq_cluster;
struct rq_compare;

/* What raftd knows of who may join, and of where others are; each may be NULL. */
struct rq_cluster_doors {
    void *ctx;
    /* May a node join in this user's name ("": nobody's)?  Any thread, must not wait.  NULL: every node may. */
    bool (*may_join)(void *ctx, const char *user, const char *password, bool votes);
    /* Whose name this node joins in; left as they are ("") when nobody's. */
    void (*login)(void *ctx, char user[RQ_MEMBER_TEXT_MAX + 1], char password[RQ_MEMBER_TEXT_MAX + 1]);
    /* The raft address of the node whose HTTP API is at that URL.  Blocks.  PERM: refused for good; with words. */
    enum rq_err (*find)(void *ctx, const char *url, char address[RQ_PEERS_ADDRESS_MAX], char text[RQ_TEXT_MAX + 1]);
};

struct rq_cluster_config {
    uint64_t cluster, instance;                                           /* cluster 0: none yet */
    const char *node_name, *listen_address, *raft_address, *http_address; /* borrows; as advertised, but for listen */
    const char *version, *api_url; /* borrows: what other nodes are told; the URL of the HTTP API */
    bool votes;
    uint64_t reap_voter_ms, reap_reader_ms; /* the leader removes who is silent for so long; 0: never */
    struct rq_node_key *key;                /* borrows */
    const struct rq_tls_files *tls;         /* borrows */
    uint64_t compare_every_ms;              /* databases with those of the other members; 0: never */
    struct rq_cluster_doors doors;
};

/* Listens.  IO, PERM with words. */
enum rq_err rq_cluster_new(const struct rq_cluster_config *config, struct rq_cluster **ret_cluster,
                           char text[RQ_TEXT_MAX + 1]);
void rq_cluster_free(struct rq_cluster *c);
struct rq_peers *rq_cluster_peers(struct rq_cluster *c);     /* borrows */
struct rq_catchup *rq_cluster_catchup(struct rq_cluster *c); /* borrows; NULL before the start */

/* This node as it describes itself to others. */
void rq_cluster_self(const struct rq_cluster *c, struct rq_member *ret_member);

/* Founded or joined: this is the cluster now.  members: who may connect until the log says it; NULL: nobody. */
void rq_cluster_is(struct rq_cluster *c, uint64_t cluster, const struct rq_members *members);

/* For rq_driver_new(): borrowed as long as the driver lives. */
const struct rq_forward *rq_cluster_forward(struct rq_cluster *c);
/* Before the node starts: what the cluster wants to know of it. */
void rq_cluster_set_log(struct rq_cluster *c, struct rq_log *log);
/* From here on staged bodies are taken and given.  Borrows all. */
enum rq_err rq_cluster_carry_bodies(struct rq_cluster *c, struct rq_disk *disk, const char *staged_dir,
                                    struct rq_shelf *shelf, const struct rq_carrier **ret_carrier);
/* For the catalog: borrowed as long as it lives. */
const struct rq_turn_door *rq_cluster_turn_door(struct rq_cluster *c);
/* From here on messages and requests of others are taken. */
enum rq_err rq_cluster_start(struct rq_cluster *c, struct rq_driver *driver, struct rq_catalog *catalog);

/* For the catalog: see struct rq_database_env. */
void rq_cluster_marked(void *cluster, struct rq_database *db, const struct rq_entry_mark *mark, uint64_t index,
                       struct rq_view *view);
bool rq_cluster_disputed(void *cluster, struct rq_database *db, uint32_t pgno);
struct rq_compare *rq_cluster_compare(struct rq_cluster *c); /* borrows; NULL before the start */

/* This node is the only voter. */
bool rq_cluster_is_alone(struct rq_cluster *c);
/* A copy of the members as they are known now; count 0: not known. */
void rq_cluster_members(struct rq_cluster *c, struct rq_members *ret_members);

/* --- becoming a member; blocks ---------------------------------------------------------------------------------------------- */

struct rq_cluster_found {
    uint64_t cluster;
    struct rq_members members; /* at that moment */
};

/* Asks each of the addresses (separated by commas) in turn, up to attempts times, interval_ms apart.  AWAY: nobody took it; text is
 * what the last one said.  MISUSE and the like: refused for good, at once. */
enum rq_err rq_cluster_join(struct rq_cluster *c, const char *addresses, unsigned attempts, unsigned interval_ms,
                            struct rq_cluster_found *ret_found, char text[RQ_TEXT_MAX + 1]);

/* Waits until as many nodes as expected know of each other, the addresses being where they are.  FOUND_HERE: this node is to found
 * the cluster, the others will join it; else as rq_cluster_join(). */
enum rq_err rq_cluster_bootstrap(struct rq_cluster *c, const char *addresses, unsigned expect, unsigned timeout_ms,
                                 bool *ret_found_here, struct rq_cluster_found *ret_found, char text[RQ_TEXT_MAX + 1]);

/* --- changes; any thread that may wait ---------------------------------------------------------------------------------------- */

/* Has the leader remove the node of that name, or raft address.  NOTFOUND, MISUSE: the only voter; AWAY, BUSY, UNKNOWN: try again. */
enum rq_err rq_cluster_remove(struct rq_cluster *c, const char *name, char text[RQ_TEXT_MAX + 1]);
/* Most of the other voters do not know this instance: it was removed, which nobody can tell it, since they do not speak to it any
 * more.  Blocks. */
bool rq_cluster_is_out(struct rq_cluster *c);
/* This node has found out that it was removed, and nobody has taken it in again. */
bool rq_cluster_was_removed(struct rq_cluster *c);
/* From here on raftd gets a SIGTERM then, or at once if it has found out already. */
void rq_cluster_stop_when_removed(struct rq_cluster *c);
/* Has a member say who the members are now: the leader may be one that this node's log does not name yet.  Returns at once. */
void rq_cluster_learn(struct rq_cluster *c);
/* Has the leader know this node as it is now, if its addresses, key or role are other than the members know; or anyway. */
enum rq_err rq_cluster_describe(struct rq_cluster *c, bool anyway, char text[RQ_TEXT_MAX + 1]);
/* Has the leader hand leadership to the voter of that name; NULL: to the best one.  NOTFOUND: it cannot be that one; MISUSE: it leads;
 * UNREADY: it did not take over in time, in which nobody could write; BUSY, AWAY, UNKNOWN: try again. */
enum rq_err rq_cluster_transfer(struct rq_cluster *c, const char *name, char text[RQ_TEXT_MAX + 1]);
/* Hands leadership to another voter, if this node leads and one takes it within an election's time. */
void rq_cluster_step_down(struct rq_cluster *c);

/* --- contact; any thread that may wait ---------------------------------------------------------------------------------------- */

struct rq_cluster_contact {
    uint64_t instance; /* in: of a member, also of this node itself */
    enum rq_err err;   /* OK: what follows is from it; else text says why it cannot be reached */
    uint64_t ns;       /* until it had answered */
    bool leads;
    uint64_t term, committed;
    char version[64], api_url[320];
    char text[RQ_TEXT_MAX + 1];
};

/* Asks all of them at once, and returns when each has answered or timeout_ms have passed; one to which there is no connection is
 * not waited for longer than a second. */
void rq_cluster_contact(struct rq_cluster *c, struct rq_cluster_contact *contacts, unsigned count, unsigned timeout_ms);

#endif
