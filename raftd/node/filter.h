/* Filter: what stands between the world and C-Raft 0.22.1, whose pure core, used raw, can lose entries or stop for ever.
 *
 * Pure functions over the core's public state and one message; no I/O.  G1 .. G16 name the rules as
 * docs/decisions/0002-raft-core-and-filter.md lists them, with what goes wrong without each. */
#ifndef RAFTD_NODE_FILTER_H
#define RAFTD_NODE_FILTER_H

#include <raft.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/log/log.h"

#define RQ_CONFIGURATION_BYTES_MAX 65536u

/* G1: this member is the only voter, so the core would elect it without raising the term. */
bool rq_filter_sole_voter(const struct raft_configuration *c, raft_id id);

bool rq_filter_is_voter(const struct raft_configuration *c, raft_id id);

/* G8: whether Raft's rules for a vote, but for the voter's own configuration, are met; and the vote.  last and last_term are of the
 * log's newest entry, which is durable. */
bool rq_filter_would_vote(const struct raft *r, const struct raft_request_vote *v, raft_index last,
                          raft_term last_term);
struct raft_request_vote_result rq_filter_vote(const struct raft_request_vote *v);

/* The answer to a leader that offers a descriptor of what is in the log here. */
struct raft_append_entries_result rq_filter_has_all(const struct raft *r, raft_index upto);

/* G10: bytes that raft_configuration_decode() may be given: it trusts the server count and the strings' ends. */
bool rq_filter_configuration_ok(const uint8_t *data, size_t bytes);

enum rq_filter_verdict {
    RQ_FILTER_FEED,   /* the message, as it is now, may go to the core */
    RQ_FILTER_DROP,   /* as if it had been lost on its way */
    RQ_FILTER_ANSWER, /* the core must not see it; *ret_answer goes back */
    RQ_FILTER_BROKEN, /* two leaders in one term: nothing is safe any more, the process ends */
};

/* Judges a message that arrived, for G4, G5, G6, G9, G10 and G14.  entries are those of an AppendEntries, beside the message.
 * May move the anchor of an AppendEntries forward: then its first *ret_clipped entries are to be skipped.  ret_answer borrows
 * the sender's address from the message. */
enum rq_filter_verdict rq_filter_receive(const struct raft *r, struct raft_message *message,
                                         const struct rq_log_entry *entries, unsigned *ret_clipped,
                                         struct raft_message *ret_answer);

/* G2: how many of these entries may go to the core in one message: up to the next change, which must be the first of its own. */
unsigned rq_filter_piece(const struct rq_log_entry *entries, unsigned count);

/* The message can make its receiver leader, and a leader appends a barrier at once: room for it must be there before. */
bool rq_filter_may_elect(const struct raft_message *message);

#endif
