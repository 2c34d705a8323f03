/* Members: who belongs to the cluster, and what the others need to know of each.
 *
 * One list is one raft configuration: an entry of type CHANGE, part of every descriptor.  C-Raft knows an id, an opaque address and
 * a role of each server; what is ours travels in the address (docs/file-format.md#members), so it is replicated, rolled back and
 * snapshotted with the membership itself, and the key of a new member is known to its peers as soon as the member is.
 *
 * An instance is a member; its node name is only a name.  While an instance takes the place of an older one of the same name both
 * are in the list, the newer one behind. */
#ifndef RAFTD_NODE_MEMBER_H
#define RAFTD_NODE_MEMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"

#define RQ_MEMBERS_MAX      64u
#define RQ_MEMBER_TEXT_MAX  255u /* of an address or a name */
#define RQ_MEMBER_KEY_BYTES 32u

enum rq_member_role {
    RQ_MEMBER_STANDBY, /* gets the log, has no vote */
    RQ_MEMBER_VOTER,
};

struct rq_member {
    uint64_t instance; /* the raft id, never 0 */
    enum rq_member_role role;
    bool votes; /* is to be a voter: a standby with this is promoted when it has caught up */
    char name[RQ_MEMBER_TEXT_MAX + 1];
    char raft_addr[RQ_MEMBER_TEXT_MAX + 1];
    char http_addr[RQ_MEMBER_TEXT_MAX + 1];
    uint8_t key[RQ_MEMBER_KEY_BYTES]; /* what its TLS key is pinned to */
};

/* One to a few dozen: passed around whole. */
struct rq_members {
    unsigned count;
    struct rq_member list[RQ_MEMBERS_MAX];
};

/* Printable, no white space, not empty, not too long: for a name and both addresses. */
bool rq_member_text_ok(const char *text);

/* The same in everything but the instance and its role. */
bool rq_member_same_data(const struct rq_member *a, const struct rq_member *b);

/* As a CHANGE entry holds it.  MISUSE: not a list that may be in force (no voter, an instance twice, two members that differ in
 * nothing but the instance, bad text).  Caller frees. */
enum rq_err rq_members_encode(const struct rq_members *members, uint8_t **ret_data, size_t *ret_bytes);
/* PROTOCOL: not such a list. */
enum rq_err rq_members_decode(const uint8_t *data, size_t bytes, struct rq_members *ret_members);

/* It, and nobody else. */
bool rq_members_are_only(const struct rq_members *members, uint64_t instance);

/* Some of the members, in no order. */
struct rq_instances {
    unsigned count;
    uint64_t list[RQ_MEMBERS_MAX];
};

bool rq_instances_has(const struct rq_instances *set, uint64_t instance);
/* More than half of the voters are among them. */
bool rq_members_are_majority(const struct rq_members *members, const struct rq_instances *set);
/* The most that is true of: whichever voters make a majority, one of them has so much.  has: of the members, in the list's order. */
uint64_t rq_members_majorities_have(const struct rq_members *members, const uint64_t has[RQ_MEMBERS_MAX]);

/* NULL: not there. */
const struct rq_member *rq_members_find(const struct rq_members *members, uint64_t instance);
/* The newest instance of that name. */
const struct rq_member *rq_members_find_name(const struct rq_members *members, const char *name);

#endif
