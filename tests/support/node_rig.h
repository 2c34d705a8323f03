/* Node rig: one node on a log in memory, with a clock, a disk and peers that are whatever the test says. */
#ifndef TESTS_SUPPORT_NODE_RIG_H
#define TESTS_SUPPORT_NODE_RIG_H

#include <raft.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "raftd/node/core.h"
#include "raftd/node/node.h"
#include "tests/support/memory_log.h"
#include "tests/support/tap.h"

enum {
    SELF = 7,
    PEER_A = 8,
    PEER_B = 9,
    ELECTION_MS = 300,
    HEARTBEAT_MS = 50,
    DELIVERED_MAX = 1024,
    SENT_MAX = 64,
};

struct node_rig {
    struct rq_log *log;
    struct rq_node *node;
    uint64_t now_ms;
    unsigned writes_wanted;
    uint64_t delivered[DELIVERED_MAX]; /* indexes */
    uint64_t delivered_terms[DELIVERED_MAX];
    unsigned delivered_count;
    bool leads;
    uint64_t term, leader_id;
    struct raft_message sent[SENT_MAX];
    unsigned sent_count;
    struct rq_round rounds[SENT_MAX];
    uint64_t rounds_to[SENT_MAX];
    unsigned round_count;
    unsigned fatal_count;
    jmp_buf on_fatal;
    bool submit_in_delivery;
    struct rq_members members; /* as the machine was told last */
    unsigned members_told, removed_count;
    bool may_not_vote;
    struct rq_members asked_to_vote;           /* first, since count was 0 */
    uint64_t install_index;                    /* that the machine was asked for */
    uint64_t told_removed, told_removed_index; /* whom the node told last that it was removed */
};
extern struct node_rig rig; /* one in a program */

/* From the configuration, which may name a descriptor; the rest of it is set here. */
enum rq_err rig_start_with(struct rq_node_config *config);
/* After a power loss, if anything was there. */
enum rq_err rig_start(void);
/* Nothing but an empty log. */
void rig_reset(void);
/* What waits in the log is written, and the node told. */
void rig_persist(void);
void rig_fill_member(struct rq_member *m, uint64_t instance);
enum rq_err rig_found_alone(void);
/* The only voter of its cluster, elected. */
void rig_start_leading(void);
enum rq_err rig_submit(size_t bytes);
/* The clock goes on, the timer runs when it is due. */
void rig_wait_ms(unsigned ms);
struct rq_blob *rig_configuration_of(unsigned servers);
/* One voter of three, which has heard nobody yet. */
void rig_start_member(void);
const struct raft *rig_raft_of_node(void);
const struct raft_message *rig_last_sent(void);
struct rig_append {
    uint64_t term, prev, prev_term, commit;
    unsigned count;
    uint64_t entry_term;
    unsigned servers[4]; /* of entries that are changes; 0: an ordinary entry */
};
/* From PEER_A. */
void rig_feed_append(struct rig_append a);
void rig_feed_result(uint64_t peer, uint64_t term, uint64_t rejected, uint64_t last);
/* Time passes until it asks for votes, and it gets them. */
void rig_elect(void);
/* Leads three, whose logs are the same, and who have known it for a while; nothing more is to be sent. */
void rig_lead_three(void);

#endif
