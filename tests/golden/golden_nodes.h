/* Golden files of what the nodes of a cluster say to each other: questions (wire/ask.h) and raft messages (node/message.h). */
#ifndef TESTS_GOLDEN_GOLDEN_NODES_H
#define TESTS_GOLDEN_GOLDEN_NODES_H

#include "raftd/wire/bytes.h"

/* A failure aborts: it is no difference of bytes. */
void golden_ask_append(struct rq_bytes *out); /* with the entry behind it */
void golden_ask_join(struct rq_bytes *out);
void golden_ask_notify(struct rq_bytes *out);
void golden_ask_remove(struct rq_bytes *out);
void golden_ask_reach(struct rq_bytes *out);
void golden_ask_index(struct rq_bytes *out);
void golden_ask_append_staged(struct rq_bytes *out);
void golden_ask_held(struct rq_bytes *out);
void golden_ask_about(struct rq_bytes *out);
void golden_ask_transfer(struct rq_bytes *out);
void golden_answer_about(struct rq_bytes *out);
void golden_ask_state(struct rq_bytes *out);
void golden_ask_hashes(struct rq_bytes *out);
void golden_ask_pages(struct rq_bytes *out);
void golden_answer_state(struct rq_bytes *out);
void golden_answer_hashes(struct rq_bytes *out);
void golden_answer_pages(struct rq_bytes *out);
void golden_answer_index(struct rq_bytes *out);
void golden_answer_held(struct rq_bytes *out);
void golden_ask_turn_take(struct rq_bytes *out);
void golden_ask_turn_wanted(struct rq_bytes *out);
void golden_ask_turn_held(struct rq_bytes *out);
void golden_answer_append(struct rq_bytes *out);
void golden_answer_turn_take(struct rq_bytes *out);
void golden_answer_turn_wanted(struct rq_bytes *out);
void golden_answer_turn_held(struct rq_bytes *out);
void golden_answer_join(struct rq_bytes *out);
void golden_head_bring(struct rq_bytes *out);
void golden_head_fetch(struct rq_bytes *out);
void golden_members(struct rq_bytes *out); /* what a CHANGE entry holds */

void golden_raft_append(struct rq_bytes *out);
void golden_raft_append_result(struct rq_bytes *out);
void golden_raft_vote(struct rq_bytes *out);
void golden_raft_vote_result(struct rq_bytes *out);
void golden_raft_install(struct rq_bytes *out);
void golden_raft_timeout(struct rq_bytes *out);
void golden_raft_round(struct rq_bytes *out);
void golden_raft_round_result(struct rq_bytes *out);

#endif
